//! The nodes of a tree, and how entries get in and out.

use super::cut::Cut;
use crate::memory::boxed::CountedBox;

/// Entries in a leaf.
pub(super) const LEAF: usize = 63;
/// Children of an inner node.
const FAN: usize = 63;
/// Least room of a neighbour that a full node shares with: with less, the next insertion would have to share again.
const SHARED_ROOM_MIN: usize = 8;
/// Number of slots below which a node tries to merge with a neighbour.
const SPARSE: usize = LEAF / 2;
/// Most entries of a merged node: room is left, or the next insertion would split it again.
const MERGED_MAX: usize = LEAF / 4 * 3;

/// Makes nodes and counts them.
pub(super) struct Nodes {
    pub(super) leaves: usize,
    pub(super) inners: usize,
}

impl Nodes {
    pub(super) fn leaf<T>(&mut self, leaf: Leaf<T>) -> CountedBox<Leaf<T>> {
        self.leaves += 1;
        CountedBox::new(leaf)
    }

    pub(super) fn inner<T>(&mut self, inner: Inner<T>) -> CountedBox<Inner<T>> {
        self.inners += 1;
        CountedBox::new(inner)
    }

    /// Frees a node that has nothing below it.
    pub(super) fn free<T>(&mut self, child: Child<T>) {
        match child {
            Child::Leaf(_) => self.leaves -= 1,
            Child::Inner(_) => self.inners -= 1,
        }
    }
}

/// Opens a gap at `at` in the first `len` of an array's elements.
#[inline]
fn insert_copy<V: Copy>(array: &mut [V], len: usize, at: usize, value: V) {
    array.copy_within(at..len, at + 1);
    array[at] = value;
}

/// Closes the gap that the element at `at` leaves.
#[inline]
fn remove_copy<V: Copy>(array: &mut [V], len: usize, at: usize) -> V {
    let removed = array[at];
    array.copy_within(at + 1..len, at);
    removed
}

/// Moves the last `count` of `left`'s elements to the front of `right`'s.
fn shift_right<V>(left: &mut [V], left_len: usize, right: &mut [V], right_len: usize, count: usize) {
    right[..right_len + count].rotate_right(count);
    right[..count].swap_with_slice(&mut left[left_len - count..left_len]);
}

/// Moves the first `count` of `right`'s elements to the end of `left`'s.
fn shift_left<V>(left: &mut [V], left_len: usize, right: &mut [V], right_len: usize, count: usize) {
    left[left_len..left_len + count].swap_with_slice(&mut right[..count]);
    right[..right_len].rotate_left(count);
}

/// Node that holds entries.
pub(super) struct Leaf<T> {
    pub(super) len: usize,
    pub(super) scores: [f64; LEAF],
    pub(super) items: [T; LEAF],
}

impl<T: Copy> Leaf<T> {
    /// A leaf of one entry.
    pub(super) fn one(score: f64, item: T) -> Self {
        Self {
            len: 1,
            scores: [score; LEAF],
            items: [item; LEAF],
        }
    }

    #[inline]
    pub(super) fn first(&self) -> (f64, T) {
        (self.scores[0], self.items[0])
    }

    #[inline]
    pub(super) fn place_of(&self, cut: &impl Cut<T>) -> usize {
        cut.count(&self.scores[..self.len], &self.items[..self.len])
    }

    #[inline]
    pub(super) fn insert(&mut self, at: usize, score: f64, item: T) {
        insert_copy(&mut self.scores, self.len, at, score);
        insert_copy(&mut self.items, self.len, at, item);
        self.len += 1;
    }

    #[inline]
    pub(super) fn remove(&mut self, at: usize) -> (f64, T) {
        let score = remove_copy(&mut self.scores, self.len, at);
        let item = remove_copy(&mut self.items, self.len, at);
        self.len -= 1;
        (score, item)
    }

    /// Moves the last `count` entries to the front of `right`, which has room.
    fn give(&mut self, right: &mut Self, count: usize) {
        shift_right(&mut self.scores, self.len, &mut right.scores, right.len, count);
        shift_right(&mut self.items, self.len, &mut right.items, right.len, count);
        self.len -= count;
        right.len += count;
    }

    /// Moves the first `count` entries of `right` to the end, where there is room.
    fn take(&mut self, right: &mut Self, count: usize) {
        shift_left(&mut self.scores, self.len, &mut right.scores, right.len, count);
        shift_left(&mut self.items, self.len, &mut right.items, right.len, count);
        self.len += count;
        right.len -= count;
    }
}

/// Node that leads to leaves, or to other inner nodes.
pub(super) struct Inner<T> {
    pub(super) len: usize,
    pub(super) counts: [usize; FAN],
    pub(super) scores: [f64; FAN],
    pub(super) items: [T; FAN],
    pub(super) children: [Option<Child<T>>; FAN],
}

pub(super) enum Child<T> {
    Leaf(CountedBox<Leaf<T>>),
    Inner(CountedBox<Inner<T>>),
}

/// A change of one entry: the way to find it, and the action there.
pub(super) trait Visit<T> {
    /// Result of the change.
    type Outcome;
    /// The slot of the child to go on in.
    fn slot(&mut self, inner: &Inner<T>) -> usize;
    /// Acts on the entry in a leaf, whose neighbours are given; `None` if there is no such entry.
    fn act(self, leaf: &mut Leaf<T>, neighbours: Neighbours) -> Option<Self::Outcome>;
}

/// Removes the last entry before a cut.
pub(super) struct RemoveBefore<C>(pub(super) C);

impl<T: Copy, C: Cut<T>> Visit<T> for RemoveBefore<C> {
    type Outcome = (f64, T);

    #[inline]
    fn slot(&mut self, inner: &Inner<T>) -> usize {
        inner.slot_of(&self.0)
    }

    #[inline]
    fn act(self, leaf: &mut Leaf<T>, _: Neighbours) -> Option<(f64, T)> {
        let at = leaf.place_of(&self.0).checked_sub(1)?;
        Some(leaf.remove(at))
    }
}

/// Removes the entry of a rank, counted within the visited node.
pub(super) struct RemoveAt(pub(super) usize);

impl<T: Copy> Visit<T> for RemoveAt {
    type Outcome = (f64, T);

    #[inline]
    fn slot(&mut self, inner: &Inner<T>) -> usize {
        let (slot, rest) = inner.slot_at(self.0);
        self.0 = rest;
        slot
    }

    #[inline]
    fn act(self, leaf: &mut Leaf<T>, _: Neighbours) -> Option<(f64, T)> {
        (self.0 < leaf.len).then(|| leaf.remove(self.0))
    }
}

/// Gives the last entry before a cut another score if it then still belongs to its leaf; else removes it.
pub(super) struct Move<'a, C, N> {
    pub(super) cut: C,
    pub(super) score: f64,
    /// The new place, among the others.
    pub(super) new_cut: &'a N,
}

/// Result of an attempt to move an entry.
pub(super) enum Moved<T> {
    /// The entry has its new score.
    Within,
    /// The entry was removed, and must be inserted elsewhere.
    Out(T),
}

impl<T: Copy, C: Cut<T>, N: Cut<T>> Visit<T> for Move<'_, C, N> {
    type Outcome = Moved<T>;

    #[inline]
    fn slot(&mut self, inner: &Inner<T>) -> usize {
        inner.slot_of(&self.cut)
    }

    #[inline]
    fn act(self, leaf: &mut Leaf<T>, neighbours: Neighbours) -> Option<Moved<T>> {
        let at = leaf.place_of(&self.cut).checked_sub(1)?;
        // Equal scores would need the items compared as well: not worth the words.
        let stays = (!neighbours.left || leaf.scores[0] < self.score)
            && neighbours.right.is_none_or(|right| self.score < right);
        let (_, item) = leaf.remove(at);
        if stays {
            leaf.insert(leaf.place_of(self.new_cut), self.score, item);
            return Some(Moved::Within);
        }
        Some(Moved::Out(item))
    }
}

/// Bounds that an entry of a node may not pass: whether there are entries before the node, and the first score behind
/// it.
#[derive(Clone, Copy, Default)]
pub(super) struct Neighbours {
    left: bool,
    right: Option<f64>,
}

impl<T: Copy> Child<T> {
    #[inline]
    pub(super) fn first(&self) -> (f64, T) {
        match self {
            Self::Leaf(leaf) => leaf.first(),
            Self::Inner(inner) => (inner.scores[0], inner.items[0]),
        }
    }

    /// Entries below.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.len,
            Self::Inner(inner) => inner.counts[..inner.len].iter().sum(),
        }
    }

    /// Finds an entry and does something to it.
    #[inline]
    pub(super) fn change<V: Visit<T>>(
        &mut self,
        visit: V,
        neighbours: Neighbours,
        nodes: &mut Nodes,
    ) -> Option<V::Outcome> {
        match self {
            Self::Leaf(leaf) => visit.act(leaf, neighbours),
            Self::Inner(inner) => inner.change(visit, neighbours, nodes),
        }
    }
}

impl<T: Copy> Inner<T> {
    /// An inner node above a single child.
    pub(super) fn one(child: Child<T>) -> Self {
        let (score, item) = child.first();
        let mut inner = Self::empty(score, item);
        inner.insert_slot(0, child);
        inner
    }

    /// A node without slots; score and item only fill the arrays.
    fn empty(score: f64, item: T) -> Self {
        Self {
            len: 0,
            counts: [0; FAN],
            scores: [score; FAN],
            items: [item; FAN],
            children: [const { None }; FAN],
        }
    }

    #[inline]
    fn child_mut(&mut self, at: usize) -> &mut Child<T> {
        self.children[at]
            .as_mut()
            .expect("slots below `len` have a child")
    }

    /// The slot whose child holds the last entry before a cut; the first one if there is none.
    #[inline]
    pub(super) fn slot_of(&self, cut: &impl Cut<T>) -> usize {
        cut.count(&self.scores[..self.len], &self.items[..self.len])
            .saturating_sub(1)
    }

    /// The slot whose child holds the entry of that rank, and its rank in there.
    #[inline]
    pub(super) fn slot_at(&self, rank: usize) -> (usize, usize) {
        let mut rest = rank;
        for (at, count) in self.counts[..self.len].iter().enumerate() {
            if rest < *count {
                return (at, rest);
            }
            rest -= count;
        }
        (self.len - 1, rest)
    }

    /// Notes the first entry of a child anew.
    #[inline]
    fn refresh(&mut self, at: usize) {
        (self.scores[at], self.items[at]) = self.child_mut(at).first();
    }

    /// Puts a child into a new slot, for which there is room.
    pub(super) fn insert_slot(&mut self, at: usize, child: Child<T>) {
        let (score, item) = child.first();
        insert_copy(&mut self.counts, self.len, at, child.count());
        insert_copy(&mut self.scores, self.len, at, score);
        insert_copy(&mut self.items, self.len, at, item);
        self.children[self.len] = Some(child);
        self.children[at..=self.len].rotate_right(1);
        self.len += 1;
    }

    fn remove_slot(&mut self, at: usize) -> Option<Child<T>> {
        remove_copy(&mut self.counts, self.len, at);
        remove_copy(&mut self.scores, self.len, at);
        remove_copy(&mut self.items, self.len, at);
        self.children[at..self.len].rotate_left(1);
        self.len -= 1;
        self.children[self.len].take()
    }

    /// Inserts an entry somewhere below; returns what had to be split off this node.
    pub(super) fn insert(
        &mut self,
        score: f64,
        item: T,
        cut: &impl Cut<T>,
        nodes: &mut Nodes,
    ) -> Option<Child<T>> {
        let at = self.slot_of(cut);
        let split_off = match self.child_mut(at) {
            Child::Inner(inner) => inner.insert(score, item, cut, nodes),
            Child::Leaf(leaf) => {
                let place = leaf.place_of(cut);
                if leaf.len == LEAF {
                    return self.insert_into_full(at, place, (score, item), nodes);
                }
                leaf.insert(place, score, item);
                None
            }
        };
        self.counts[at] += 1;
        self.refresh(at);
        let split_off = split_off?;
        self.counts[at] -= split_off.count();
        self.insert_child(at + 1, split_off, nodes)
    }

    /// Inserts an entry into a leaf that is full.
    fn insert_into_full(
        &mut self,
        at: usize,
        place: usize,
        entry: (f64, T),
        nodes: &mut Nodes,
    ) -> Option<Child<T>> {
        let room = |slot: Option<usize>| match slot {
            Some(slot) if slot < self.len => LEAF - self.counts[slot],
            _ => 0,
        };
        let (left, right) = (room(at.checked_sub(1)), room(Some(at + 1)));
        if left.max(right) < SHARED_ROOM_MIN {
            return self.split_leaf(at, place, entry, nodes);
        }
        if left > right {
            self.share(at - 1, LEAF - left + place, entry);
        } else {
            self.share(at, place, entry);
        }
        None
    }

    /// Spreads the entries of two neighbouring leaves evenly, and inserts one at `place`, counted from the first of the
    /// left leaf.
    fn share(&mut self, left_at: usize, place: usize, (score, item): (f64, T)) {
        if let [Some(Child::Leaf(left)), Some(Child::Leaf(right)), ..] = &mut self.children[left_at..] {
            let (left, right) = (&mut **left, &mut **right);
            let half = (left.len + right.len) / 2;
            if left.len > half {
                left.give(right, left.len - half);
            } else {
                left.take(right, half - left.len);
            }
            if place <= left.len {
                left.insert(place, score, item);
            } else {
                right.insert(place - left.len, score, item);
            }
            (self.counts[left_at], self.counts[left_at + 1]) = (left.len, right.len);
        }
        self.refresh(left_at);
        self.refresh(left_at + 1);
    }

    /// Inserts an entry into a full leaf by splitting it: in the middle, or at an end where the insertion is.
    fn split_leaf(
        &mut self,
        at: usize,
        place: usize,
        (score, item): (f64, T),
        nodes: &mut Nodes,
    ) -> Option<Child<T>> {
        let mut new = nodes.leaf(Leaf::one(score, item));
        if let Child::Leaf(leaf) = self.child_mut(at) {
            match place {
                LEAF => {}
                0 => std::mem::swap(leaf, &mut new),
                _ => {
                    new.len = 0;
                    leaf.give(&mut new, LEAF / 2);
                    match place.checked_sub(leaf.len) {
                        Some(place) if place > 0 => new.insert(place, score, item),
                        _ => leaf.insert(place, score, item),
                    }
                }
            }
            self.counts[at] = leaf.len;
        }
        self.refresh(at);
        self.insert_child(at + 1, Child::Leaf(new), nodes)
    }

    /// Puts a child into a new slot; returns what had to be split off this node to make room.
    fn insert_child(&mut self, at: usize, child: Child<T>, nodes: &mut Nodes) -> Option<Child<T>> {
        if self.len < FAN {
            self.insert_slot(at, child);
            return None;
        }
        if at == FAN {
            return Some(Child::Inner(nodes.inner(Self::one(child))));
        }
        let mut right = nodes.inner(Self::empty(self.scores[0], self.items[0]));
        self.give(&mut right, FAN / 2);
        match at.checked_sub(self.len) {
            Some(at) if at > 0 => right.insert_slot(at, child),
            _ => self.insert_slot(at, child),
        }
        Some(Child::Inner(right))
    }

    /// Moves the last `count` slots to the front of `right`, which has room.
    fn give(&mut self, right: &mut Self, count: usize) {
        shift_right(&mut self.counts, self.len, &mut right.counts, right.len, count);
        shift_right(&mut self.scores, self.len, &mut right.scores, right.len, count);
        shift_right(&mut self.items, self.len, &mut right.items, right.len, count);
        shift_right(
            &mut self.children,
            self.len,
            &mut right.children,
            right.len,
            count,
        );
        self.len -= count;
        right.len += count;
    }

    /// Moves all slots of `right` to the end, where there is room.
    fn take_all(&mut self, right: &mut Self) {
        let count = right.len;
        shift_left(&mut self.counts, self.len, &mut right.counts, count, count);
        shift_left(&mut self.scores, self.len, &mut right.scores, count, count);
        shift_left(&mut self.items, self.len, &mut right.items, count, count);
        shift_left(&mut self.children, self.len, &mut right.children, count, count);
        self.len += count;
        right.len = 0;
    }

    fn change<V: Visit<T>>(
        &mut self,
        mut visit: V,
        neighbours: Neighbours,
        nodes: &mut Nodes,
    ) -> Option<V::Outcome> {
        let at = visit.slot(self);
        let neighbours = Neighbours {
            left: neighbours.left || at > 0,
            right: self.scores[..self.len].get(at + 1).copied().or(neighbours.right),
        };
        let child = self.child_mut(at);
        let outcome = child.change(visit, neighbours, nodes)?;
        self.settle(at, nodes);
        Some(outcome)
    }

    /// Brings a slot up to date after an entry has left its child, or changed its score there.
    #[inline]
    fn settle(&mut self, at: usize, nodes: &mut Nodes) {
        let count = self.child_mut(at).count();
        self.counts[at] = count;
        if count == 0 {
            if let Some(empty) = self.remove_slot(at) {
                nodes.free(empty);
            }
            return;
        }
        self.refresh(at);
        if self.slots(at) < SPARSE {
            self.merge_around(at, nodes);
        }
    }

    /// Slots in use in a child.
    #[inline]
    fn slots(&self, at: usize) -> usize {
        match &self.children[at] {
            Some(Child::Inner(inner)) => inner.len,
            _ => self.counts[at],
        }
    }

    /// Merges a sparse child with a neighbour if that leaves room in it.
    fn merge_around(&mut self, at: usize, nodes: &mut Nodes) {
        let fits = |left: usize| self.slots(left) + self.slots(left + 1) <= MERGED_MAX;
        let left = if at + 1 < self.len && fits(at) {
            at
        } else if at > 0 && fits(at - 1) {
            at - 1
        } else {
            return;
        };
        match &mut self.children[left..] {
            [Some(Child::Leaf(left)), Some(Child::Leaf(right)), ..] => {
                let all = right.len;
                left.take(right, all);
            }
            [Some(Child::Inner(left)), Some(Child::Inner(right)), ..] => left.take_all(right),
            _ => return,
        }
        self.counts[left] += self.counts[left + 1];
        if let Some(emptied) = self.remove_slot(left + 1) {
            nodes.free(emptied);
        }
    }

    /// Frees the last leaf, and inner nodes that are empty without it; returns how many entries it held.
    pub(super) fn pop_leaf(&mut self, nodes: &mut Nodes) -> usize {
        let at = self.len - 1;
        let popped = match self.child_mut(at) {
            Child::Leaf(leaf) => leaf.len,
            Child::Inner(inner) => inner.pop_leaf(nodes),
        };
        self.counts[at] -= popped;
        if self.counts[at] == 0
            && let Some(empty) = self.remove_slot(at)
        {
            nodes.free(empty);
        }
        popped
    }
}
