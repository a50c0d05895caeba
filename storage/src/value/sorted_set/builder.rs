//! [`SortedSetBuilder`]: a sorted set in the making, whose scores are still computed and whose order does not matter yet.

use super::{Form, SortedSet, SortedSetLimits, packed, without_sign_of_zero};
use crate::element::ElementBox;
use crate::encoding::listpack::Listpack;
use crate::encoding::member_table::MemberTable;
use crate::encoding::scored_table::ScoredTable;
use crate::key::KeyHasher;
use crate::memory::boxed::CountedBox;

/// Members whose scores are merged until [`SortedSetBuilder::finish`] puts them in order: what unions are computed with.
pub struct SortedSetBuilder {
    members: MemberTable,
    longest: usize,
}

impl SortedSetBuilder {
    /// A builder without members.
    #[must_use]
    pub const fn new(hasher: KeyHasher) -> Self {
        Self {
            members: MemberTable::new(hasher),
            longest: 0,
        }
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Length of the longest member ever added, bytes.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Gives a member the score that `merge` makes of the one it has; NaN counts as 0. O(1).
    #[inline]
    pub fn merge(&mut self, member: &[u8], merge: impl FnOnce(Option<f64>) -> f64) {
        let number = |score: f64| {
            if score.is_nan() {
                0.0
            } else {
                without_sign_of_zero(score)
            }
        };
        let hash = self.members.hash(member);
        if let Some(mut found) = self.members.find_mut_hashed(hash, member) {
            let score = number(merge(Some(found.get().score())));
            found.set_score(score);
            return;
        }
        self.longest = self.longest.max(member.len());
        let element = ElementBox::scored(member, number(merge(None)));
        self.members.insert_hashed(hash, element);
    }

    /// Takes a member out.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        self.members.remove(member).is_some()
    }

    /// The sorted set, packed if the limits allow it. O(n log n).
    #[must_use]
    pub fn finish(self, limits: &SortedSetLimits) -> SortedSet {
        let fits = limits.allow(self.members.len(), self.longest);
        let table = ScoredTable::from_members(self.members);
        if !fits {
            return SortedSet(Form::Table(CountedBox::new(table)));
        }
        let mut pack = Listpack::default();
        for (member, score) in table.range(0..table.len(), super::Order::Ascending) {
            packed::push_back(&mut pack, member, score);
        }
        SortedSet(Form::Packed(pack))
    }
}
