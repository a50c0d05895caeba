//! UNSAFE. [`ScoredTable`]: a large sorted set, its members found by name in a table and by order in a tree.
//!
//! Table and tree share the elements: the table owns them, the tree holds their scores a second time and bare pointers.
//!
//! Invariant: the table owns the element of every pointer in the tree. Elements are added to the table before the
//! tree and removed from the tree before the table; when everything is freed in slices, the tree is freed first.

use std::ops::Range;

use super::member_table::MemberTable;
use super::order_tree::{self, Cut, End, ItemCut, Order, OrderTree, ScoreCut};
use crate::element::{Element, ElementBox, ElementPtr};
use crate::key::KeyHasher;
use crate::table::Keyed;
use crate::table::TableStats;
use crate::table::raw::prefetch;

/// Distance, in members, at which a walk fetches ahead of the one just read.
const PREFETCH_DISTANCE: usize = 8;

/// A member as the tree stores it. Values of this type exist only in the tree, or while it is borrowed.
#[derive(Clone, Copy)]
struct Member(ElementPtr);

// SAFETY: a pointer to plain memory; the tree moves together with the table that owns the element.
unsafe impl Send for Member {}
// SAFETY: nothing changes through a shared reference.
unsafe impl Sync for Member {}

impl Member {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: by the module's invariant the element is alive, and members never change.
        unsafe { self.0.key() }
    }
}

/// Behind that score and member.
#[inline]
fn behind(score: f64, member: &[u8]) -> impl Cut<Member> + '_ {
    ScoreCut {
        score,
        ties: move |other: Member| other.bytes() <= member,
    }
}

/// Behind an entry of the table, which is known by its address: only others of its score are looked at.
#[inline]
fn behind_known(score: f64, entry: ElementPtr, member: &[u8]) -> impl Cut<Member> + '_ {
    ScoreCut {
        score,
        ties: move |other: Member| other.0 == entry || other.bytes() <= member,
    }
}

/// Members with scores, ordered by score and, where scores are equal, by their bytes.
pub(crate) struct ScoredTable {
    // Dropped before the members, because it points at them.
    tree: OrderTree<Member>,
    members: MemberTable,
}

/// Change of a member's score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: no score was given, or the one it has.
    None,
    /// The member is new.
    Added,
    /// The member has another score.
    Updated,
}

impl ScoredTable {
    /// The table of the members.
    #[inline]
    pub(crate) fn members(&self) -> &MemberTable {
        &self.members
    }

    pub(crate) const fn new(hasher: KeyHasher) -> Self {
        Self {
            tree: OrderTree::new(),
            members: MemberTable::new(hasher),
        }
    }

    /// A sorted set of the scored members of a table. O(n log n).
    pub(crate) fn from_members(members: MemberTable) -> Self {
        let mut entries: Vec<(f64, Member)> = members
            .iter()
            .map(|element| (element.score(), Member(element.ptr())))
            .collect();
        entries.sort_unstable_by(|(a, one), (b, other)| {
            a.total_cmp(b).then_with(|| one.bytes().cmp(other.bytes()))
        });
        let mut tree = OrderTree::new();
        for (score, member) in entries {
            tree.insert(score, member, &End);
        }
        Self { tree, members }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Size of the table of members, without them.
    pub(crate) fn stats(&self) -> TableStats {
        self.members.stats()
    }

    /// Bytes allocated. O(1).
    pub(crate) fn memory(&self) -> usize {
        self.members.memory() + self.tree.memory()
    }

    /// The score of a member.
    #[inline]
    pub(crate) fn score(&self, member: &[u8]) -> Option<f64> {
        self.members.find(member).map(Element::score)
    }

    /// Gives a member the score that `decide` chooses, given its present one. O(log n).
    #[inline]
    pub(crate) fn update(
        &mut self,
        member: &[u8],
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Change {
        let hash = self.members.hash(member);
        let Some(mut found) = self.members.find_mut_hashed(hash, member) else {
            let Some(score) = decide(None) else {
                return Change::None;
            };
            let ptr = self
                .members
                .insert_hashed(hash, ElementBox::scored(member, score));
            self.tree.insert(score, Member(ptr), &behind(score, member));
            return Change::Added;
        };
        let (old, ptr) = (found.get().score(), found.ptr());
        match decide(Some(old)) {
            Some(score) if score != old => {
                let known = behind_known(old, ptr, member);
                self.tree.reposition(known, score, &behind(score, member));
                found.set_score(score);
                Change::Updated
            }
            _ => Change::None,
        }
    }

    /// Adds a member that is not there and belongs behind all others.
    pub(crate) fn push_back(&mut self, element: ElementBox) {
        let score = element.get().score();
        let ptr = self.members.insert(element);
        self.tree.insert(score, Member(ptr), &End);
    }

    /// Removes a member. O(log n).
    #[inline]
    pub(crate) fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let found = self.members.find_mut(member)?;
        let score = found.get().score();
        self.tree.remove(behind_known(score, found.ptr(), member));
        found.remove();
        Some(score)
    }

    /// Removes the entry of that rank after showing it to `visit`. O(log n).
    pub(crate) fn remove_at(&mut self, rank: usize, visit: impl FnOnce(&[u8], f64)) {
        if let Some((score, member)) = self.tree.remove_at(rank) {
            visit(member.bytes(), score);
            self.members.remove(member.bytes());
        }
    }

    /// Number of entries before a member, and its score. O(log n).
    #[inline]
    pub(crate) fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        let found = self.members.find(member)?;
        let (score, ptr) = (found.score(), found.ptr());
        let before = ScoreCut {
            score,
            ties: |other: Member| other.0 != ptr && other.bytes() < member,
        };
        Some((self.tree.rank(&before), score))
    }

    /// Number of entries with a lower score; with `or_equal`, the same one counts too. O(log n).
    #[inline]
    pub(crate) fn rank_of_score(&self, score: f64, or_equal: bool) -> usize {
        self.tree.rank(&ScoreCut {
            score,
            ties: |_| or_equal,
        })
    }

    /// Number of members that `before` is true for, all scores being equal. O(log n).
    #[inline]
    pub(crate) fn rank_by_member(&self, before: impl Fn(&[u8]) -> bool) -> usize {
        self.tree.rank(&ItemCut(|member: Member| before(member.bytes())))
    }

    /// The entry of that rank. O(log n).
    #[inline]
    pub(crate) fn get(&self, rank: usize) -> Option<(&[u8], f64)> {
        let (score, member) = self.tree.get(rank)?;
        // SAFETY: by the module's invariant the element is alive, and the table is borrowed with the result.
        Some((unsafe { member.0.key() }, score))
    }

    /// The entries of a range of ranks. O(log n) to start.
    #[inline]
    pub(crate) fn range(&self, ranks: Range<usize>, order: Order) -> Iter<'_> {
        let start = match order {
            Order::Ascending => ranks.start,
            Order::Descending => ranks.end.saturating_sub(1),
        };
        let iter = Iter(self.tree.range(start, ranks.len(), order));
        for distance in 0..PREFETCH_DISTANCE.min(iter.len()) {
            iter.prefetch(distance);
        }
        iter
    }

    /// Scans like [`MemberTable::scan`].
    pub(crate) fn scan(&self, cursor: u64, buckets: usize, visit: impl FnMut(Element<'_>)) -> u64 {
        self.members.scan(cursor, buckets, visit)
    }

    /// Number of allocations, about.
    pub(crate) fn free_cost(&self) -> usize {
        self.members.len() + self.tree.nodes()
    }

    /// Frees about `budget` allocations and returns how many; 0 when there are none left. Until then it is good for
    /// nothing else.
    pub(crate) fn drain(&mut self, budget: usize) -> usize {
        let freed = self.tree.drain(budget);
        if freed > 0 {
            return freed;
        }
        self.members.drain(budget)
    }
}

impl Clone for ScoredTable {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.members.hasher());
        for (member, score) in self.range(0..self.len(), Order::Ascending) {
            copy.push_back(ElementBox::scored(member, score));
        }
        copy
    }
}

/// Entries of a table in order.
pub(crate) struct Iter<'a>(order_tree::Range<'a, Member>);

impl Iter<'_> {
    #[inline]
    fn prefetch(&self, distance: usize) {
        if let Some(member) = self.0.ahead(distance) {
            prefetch(member.0.as_ptr().as_ptr());
        }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], f64);

    #[inline]
    fn next(&mut self) -> Option<(&'a [u8], f64)> {
        self.prefetch(PREFETCH_DISTANCE);
        let (score, member) = self.0.next()?;
        // SAFETY: by the module's invariant the element is alive; table and tree are borrowed for `'a`.
        Some((unsafe { member.0.key() }, score))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}
