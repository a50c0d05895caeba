//! A B+tree of (score, item) pairs that also counts: a large sorted set uses it for positions, ranks and ranges.
//!
//! The tree does not define the order. Every search is given a [`Cut`], a place between entries, and so is every
//! insertion. Scores are stored in the nodes, so that a search looks at an item only where scores are equal.
//!
//! ```text
//!   inner   len | counts of entries below | first score | first item | child
//!                    /                |              \
//!   leaf    len | scores | items   leaf ...       leaf ...
//! ```
//! Counts make rank and select O(log n): the entries before a child are the sum of the counts before it. A leaf fills a
//! size class of 1 KiB with [`LEAF`] entries. A full one first shares with a neighbour and is split only when both are
//! nearly full, which keeps leaves at some 85 % under random insertions; at its ends it is not halved but continued
//! by a new leaf, so that ascending and descending insertions leave full ones behind. Leaves less than half full are
//! merged with a neighbour when both together leave some room.
//!
//! Invariants, for every inner node: `len` is at least 1; slot `i` below `len` has a child, the number of entries in it,
//! and its first entry; its children are all leaves or all inner nodes of one height; no leaf is empty.

mod cut;
mod node;
mod range;

use std::fmt;

pub(crate) use self::cut::{Cut, End, ItemCut, ScoreCut};
use self::node::{Child, Inner, LEAF, Leaf, Move, Moved, Neighbours, Nodes, RemoveAt, RemoveBefore, Visit};
pub(crate) use self::range::Range;
use crate::memory::boxed::CountedBox;

/// Direction of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From low scores to high ones.
    Ascending,
    /// From high scores to low ones.
    Descending,
}

/// The tree. `T` is small: leaves move items about.
pub(crate) struct OrderTree<T> {
    root: Option<Child<T>>,
    len: usize,
    nodes: Nodes,
}

impl<T: Copy> OrderTree<T> {
    /// A tree that has allocated nothing.
    pub(crate) const fn new() -> Self {
        Self {
            root: None,
            len: 0,
            nodes: Nodes { leaves: 0, inners: 0 },
        }
    }

    /// Number of entries.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes allocated. O(1).
    pub(crate) fn memory(&self) -> usize {
        self.nodes.leaves * CountedBox::<Leaf<T>>::memory()
            + self.nodes.inners * CountedBox::<Inner<T>>::memory()
    }

    /// Nodes allocated.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes.leaves + self.nodes.inners
    }

    /// Inserts an entry at a cut. O(log n).
    pub(crate) fn insert(&mut self, score: f64, item: T, cut: &impl Cut<T>) {
        self.len += 1;
        if self.root.is_none() {
            self.root = Some(Child::Leaf(self.nodes.leaf(Leaf::one(score, item))));
            return;
        }
        if let Some(Child::Leaf(leaf)) = &mut self.root {
            if leaf.len < LEAF {
                let place = leaf.place_of(cut);
                leaf.insert(place, score, item);
                return;
            }
            self.raise_root(None);
        }
        if let Some(Child::Inner(root)) = &mut self.root
            && let Some(split_off) = root.insert(score, item, cut, &mut self.nodes)
        {
            self.raise_root(Some(split_off));
        }
    }

    /// Puts an inner node above the root, and beside the root what was split off it.
    fn raise_root(&mut self, split_off: Option<Child<T>>) {
        if let Some(root) = self.root.take() {
            let mut inner = Inner::one(root);
            if let Some(right) = split_off {
                inner.insert_slot(1, right);
            }
            self.root = Some(Child::Inner(self.nodes.inner(inner)));
        }
    }

    /// Removes the last entry before a cut. O(log n).
    pub(crate) fn remove(&mut self, cut: impl Cut<T>) -> Option<(f64, T)> {
        self.change(RemoveBefore(cut)).inspect(|_| self.shrink())
    }

    /// Removes the entry of that rank, counted from 0. O(log n).
    pub(crate) fn remove_at(&mut self, rank: usize) -> Option<(f64, T)> {
        self.change(RemoveAt(rank)).inspect(|_| self.shrink())
    }

    /// Changes the score of the last entry before a cut, and moves it to `new_cut`. One descent if the entry stays in
    /// its leaf, as it does when a score changes little; else two. O(log n).
    pub(crate) fn reposition(&mut self, cut: impl Cut<T>, score: f64, new_cut: &impl Cut<T>) {
        let moved = self.change(Move { cut, score, new_cut });
        if let Some(Moved::Out(item)) = moved {
            self.shrink();
            self.insert(score, item, new_cut);
        }
    }

    fn change<V: Visit<T>>(&mut self, visit: V) -> Option<V::Outcome> {
        let root = self.root.as_mut()?;
        root.change(visit, Neighbours::default(), &mut self.nodes)
    }

    /// Removes an empty root, and inner nodes with a single child, after an entry was removed.
    fn shrink(&mut self) {
        self.len -= 1;
        if self.len == 0 {
            if let Some(root) = self.root.take() {
                self.nodes.free(root);
            }
            return;
        }
        while let Some(Child::Inner(root)) = &mut self.root
            && root.len == 1
        {
            let only = root.children[0].take();
            let old = std::mem::replace(&mut self.root, only);
            self.nodes.inners -= usize::from(old.is_some());
        }
    }

    /// Number of entries before a cut. O(log n).
    #[inline]
    pub(crate) fn rank(&self, cut: &impl Cut<T>) -> usize {
        let mut rank = 0;
        let mut node = self.root.as_ref();
        loop {
            match node {
                None => return rank,
                Some(Child::Leaf(leaf)) => return rank + leaf.place_of(cut),
                Some(Child::Inner(inner)) => {
                    let at = inner.slot_of(cut);
                    rank += inner.counts[..at].iter().sum::<usize>();
                    node = inner.children[at].as_ref();
                }
            }
        }
    }

    /// The entry of that rank, counted from 0. O(log n).
    pub(crate) fn get(&self, rank: usize) -> Option<(f64, T)> {
        let (mut node, mut rest) = (self.root.as_ref()?, rank);
        while let Child::Inner(inner) = node {
            let (slot, rank) = inner.slot_at(rest);
            (node, rest) = (inner.children[slot].as_ref()?, rank);
        }
        match node {
            Child::Leaf(leaf) if rest < leaf.len => Some((leaf.scores[rest], leaf.items[rest])),
            _ => None,
        }
    }

    /// `count` entries from that rank on, or what there are of them. O(log n) to start.
    #[inline]
    pub(crate) fn range(&self, start: usize, count: usize, order: Order) -> Range<'_, T> {
        let available = match order {
            _ if start >= self.len => 0,
            Order::Ascending => self.len - start,
            Order::Descending => start + 1,
        };
        Range::new(self.root.as_ref(), start, count.min(available), order)
    }

    /// Frees leaves from the end, about `budget` nodes in all, and forgets the entries in them. Returns how many nodes
    /// went: 0 when none are left.
    pub(crate) fn drain(&mut self, budget: usize) -> usize {
        let before = self.nodes();
        while let Some(root) = &mut self.root
            && before - self.nodes.leaves - self.nodes.inners < budget.max(1)
        {
            match root {
                Child::Inner(inner) if inner.len > 0 => self.len -= inner.pop_leaf(&mut self.nodes),
                Child::Inner(_) => {
                    self.root = None;
                    self.nodes.inners -= 1;
                }
                Child::Leaf(leaf) => {
                    self.len -= leaf.len;
                    self.root = None;
                    self.nodes.leaves -= 1;
                }
            }
        }
        before - self.nodes()
    }
}

impl<T> fmt::Debug for OrderTree<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderTree").field("len", &self.len).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::memory::thread_balance;

    type Tree = OrderTree<u32>;

    /// Behind the entry, entries being ordered by score and then by item.
    fn behind((score, item): (f64, u32)) -> impl Cut<u32> {
        ScoreCut {
            score,
            ties: move |other| other <= item,
        }
    }

    fn insert(tree: &mut Tree, entry: (f64, u32)) {
        tree.insert(entry.0, entry.1, &behind(entry));
    }

    /// Everything the header promises of the nodes.
    fn check(tree: &Tree) {
        fn below(child: &Child<u32>, nodes: &mut (usize, usize)) -> (usize, usize) {
            match child {
                Child::Leaf(leaf) => {
                    assert!(leaf.len > 0);
                    nodes.0 += 1;
                    (leaf.len, 0)
                }
                Child::Inner(inner) => {
                    assert!(inner.len > 0 && inner.children[inner.len..].iter().all(Option::is_none));
                    nodes.1 += 1;
                    let mut total = 0;
                    let mut heights = Vec::new();
                    for at in 0..inner.len {
                        let child = inner.children[at].as_ref().unwrap();
                        assert_eq!((inner.scores[at], inner.items[at]), child.first());
                        let (count, height) = below(child, nodes);
                        assert_eq!(inner.counts[at], count);
                        total += count;
                        heights.push(height);
                    }
                    assert!(heights.windows(2).all(|pair| pair[0] == pair[1]));
                    (total, heights[0] + 1)
                }
            }
        }
        let mut nodes = (0, 0);
        let count = tree.root.as_ref().map_or(0, |root| below(root, &mut nodes).0);
        assert_eq!(count, tree.len);
        assert_eq!(nodes, (tree.nodes.leaves, tree.nodes.inners));
    }

    fn entries(tree: &Tree) -> Vec<(f64, u32)> {
        tree.range(0, usize::MAX, Order::Ascending).collect()
    }

    fn filled(count: u32, mut score: impl FnMut(u32) -> f64) -> Tree {
        let mut tree = Tree::new();
        for item in 0..count {
            insert(&mut tree, (score(item), item));
        }
        check(&tree);
        tree
    }

    fn fill_percent(tree: &Tree) -> usize {
        tree.len * 100 / (tree.nodes.leaves * LEAF)
    }

    #[test]
    fn a_leaf_fills_its_size_class() {
        assert_eq!(CountedBox::<Leaf<usize>>::memory(), 1024);
        assert_eq!(size_of::<Leaf<usize>>(), 1016);
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes too long under Miri")]
    fn insertions_in_order_leave_full_leaves() {
        for tree in [
            filled(10_000, f64::from),
            filled(10_000, |item| -f64::from(item)),
            filled(10_000, |_| 0.0),
        ] {
            assert!(fill_percent(&tree) >= 98, "{} %", fill_percent(&tree));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes too long under Miri")]
    fn random_insertions_fill_leaves_well() {
        let mut rng = SmallRng::seed_from_u64(1);
        let tree = filled(50_000, |_| rng.random());
        assert!(fill_percent(&tree) >= 80, "{} %", fill_percent(&tree));
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes too long under Miri")]
    fn removals_keep_leaves_filled() {
        let mut rng = SmallRng::seed_from_u64(2);
        let start = thread_balance();
        let mut tree = filled(50_000, |_| rng.random());
        while tree.len() > 100 {
            let rank = rng.random_range(0..tree.len());
            assert_eq!(tree.get(rank), tree.remove_at(rank));
            if tree.len() % 1000 == 0 {
                check(&tree);
                assert!(
                    fill_percent(&tree) >= 40,
                    "{} % at {}",
                    fill_percent(&tree),
                    tree.len()
                );
            }
        }
        while tree.remove_at(0).is_some() {}
        assert_eq!((tree.len(), thread_balance()), (0, start));
    }

    #[test]
    fn a_changed_score_brings_its_entry_to_its_place() {
        let mut tree = filled(1000, f64::from);
        for (item, score) in [
            (500, 500.5),
            (500, 503.5),
            (500, 499.5),
            (999, 1e9),
            (0, -1e9),
            (300, 700.5),
            (301, 700.5),
            (299, 700.5),
            (0, 1e10),
        ] {
            let old = entries(&tree).into_iter().find(|entry| entry.1 == item).unwrap();
            tree.reposition(behind(old), score, &behind((score, item)));
            check(&tree);
            let now = entries(&tree);
            assert!(now.is_sorted() && now.contains(&(score, item)) && now.len() == 1000);
        }
    }

    #[test]
    fn draining_goes_in_slices_and_gives_everything_back() {
        let start = thread_balance();
        let mut tree = filled(if cfg!(miri) { 1_000 } else { 30_000 }, f64::from);
        let mut nodes = tree.nodes();
        loop {
            let freed = tree.drain(10);
            if freed == 0 {
                break;
            }
            assert!(freed <= 13, "{freed}");
            check(&tree);
            nodes -= freed;
        }
        assert_eq!((nodes, tree.len(), thread_balance()), (0, 0, start));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, u32),
        Remove(prop::sample::Index),
        RemoveRank(prop::sample::Index),
        Adjust(prop::sample::Index, u8),
        /// Many at one place, so that leaves split.
        Burst(u8, u16),
        Shrink(prop::sample::Index, u16),
        Look(prop::sample::Index, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (any::<u8>(), any::<u32>()).prop_map(|(score, item)| Step::Insert(score, item)),
            2 => any::<prop::sample::Index>().prop_map(Step::Remove),
            2 => any::<prop::sample::Index>().prop_map(Step::RemoveRank),
            4 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, score)| Step::Adjust(at, score)),
            2 => (any::<u8>(), 0u16..300).prop_map(|(score, count)| Step::Burst(score, count)),
            1 => (any::<prop::sample::Index>(), 0u16..300).prop_map(|(at, count)| Step::Shrink(at, count)),
            2 => (any::<prop::sample::Index>(), 0usize..200).prop_map(|(at, count)| Step::Look(at, count)),
        ]
    }

    fn model_insert(model: &mut Vec<(f64, u32)>, entry: (f64, u32)) {
        let at = model.partition_point(|other| *other <= entry);
        model.insert(at, entry);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 200 }))]
        #[test]
        fn the_tree_behaves_as_a_sorted_vector(steps in prop::collection::vec(step(), 0..80)) {
            let start = thread_balance();
            let mut tree = Tree::new();
            let mut model: Vec<(f64, u32)> = Vec::new();
            let mut next = 1000;
            for step in steps {
                match step {
                    Step::Insert(score, item) => {
                        let entry = (f64::from(score), item);
                        if !model.contains(&entry) {
                            insert(&mut tree, entry);
                            model_insert(&mut model, entry);
                        }
                    }
                    Step::Burst(score, count) => {
                        for _ in 0..count {
                            next += 7919;
                            let entry = (f64::from(score), next % 100_003 + 1_000_000);
                            if !model.contains(&entry) {
                                insert(&mut tree, entry);
                                model_insert(&mut model, entry);
                            }
                        }
                    }
                    Step::Remove(index) if !model.is_empty() => {
                        let entry = model.remove(index.index(model.len()));
                        prop_assert_eq!(tree.remove(behind(entry)), Some(entry));
                    }
                    Step::RemoveRank(index) if !model.is_empty() => {
                        let rank = index.index(model.len());
                        prop_assert_eq!(tree.remove_at(rank), Some(model.remove(rank)));
                    }
                    Step::Shrink(index, count) if !model.is_empty() => {
                        let rank = index.index(model.len());
                        for _ in 0..usize::from(count).min(model.len() - rank) {
                            prop_assert_eq!(tree.remove_at(rank), Some(model.remove(rank)));
                        }
                    }
                    Step::Adjust(index, score) if !model.is_empty() => {
                        let old = model[index.index(model.len())];
                        let new = (f64::from(score), old.1);
                        if !model.contains(&new) {
                            tree.reposition(behind(old), new.0, &behind(new));
                            model.retain(|entry| *entry != old);
                            model_insert(&mut model, new);
                        }
                    }
                    Step::Look(index, count) if !model.is_empty() => {
                        let rank = index.index(model.len());
                        prop_assert_eq!(tree.get(rank), Some(model[rank]));
                        prop_assert_eq!(tree.rank(&ScoreCut { score: model[rank].0, ties: |item| item < model[rank].1 }), rank);
                        let ascending = tree.range(rank, count, Order::Ascending);
                        prop_assert_eq!(ascending.len(), count.min(model.len() - rank));
                        prop_assert!(ascending.eq(model[rank..].iter().copied().take(count)));
                        let descending = tree.range(rank, count, Order::Descending);
                        prop_assert!(descending.eq(model[..=rank].iter().rev().copied().take(count)));
                    }
                    _ => {
                        prop_assert_eq!(tree.remove(End), None);
                        prop_assert_eq!(tree.get(0), None);
                    }
                }
                check(&tree);
                prop_assert_eq!(thread_balance() - start, tree.memory() as i64);
            }
            prop_assert_eq!(entries(&tree), model);
            drop(tree);
            prop_assert_eq!(thread_balance(), start);
        }
    }
}
