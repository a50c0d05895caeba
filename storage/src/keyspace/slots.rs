//! One small table for each hash slot of an owner, and the number of entries in each.
//!
//! The counts are in a Fenwick tree, so that the slot of the n-th entry, which a uniform random choice needs, is
//! found in 14 steps; an insertion or removal takes as many to update it.

use crate::entry::EntryPtr;
use crate::key::SLOTS;
use crate::memory::Array;
use crate::table::TableStats;
use crate::table::raw::RawTable;

/// Every slot has its table, used or not: 768 KiB a database, divided by its owners.
const _: () = assert!(size_of::<RawTable<EntryPtr>>() <= 48);

/// The slots of one owner among several, who deal all slots out in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnSlots {
    first: u16,
    owners: u32,
    /// 2^32 divided by the number of owners, rounded up: a product with it is what a division of a slot would give.
    reciprocal: u64,
}

impl OwnSlots {
    /// All slots: there is one owner.
    pub const ALL: Self = Self::of(0, 1);

    /// The slots of an owner of several, counted from 0.
    ///
    /// # Panics
    /// If there is no such owner, or there are more than slots.
    #[must_use]
    pub const fn of(owner: usize, owners: usize) -> Self {
        assert!(owner < owners && owners <= SLOTS);
        Self {
            first: owner as u16,
            owners: owners as u32,
            reciprocal: (1u64 << 32).div_ceil(owners as u64),
        }
    }

    /// Number of a slot of the owner among all its slots.
    #[inline]
    pub(crate) const fn index(self, slot: u16) -> usize {
        debug_assert!(self.contains(slot));
        (((slot as usize % SLOTS) as u64 * self.reciprocal) >> 32) as usize
    }

    /// Whether the owner has a slot.
    #[inline]
    pub(crate) const fn contains(self, slot: u16) -> bool {
        slot as u32 % self.owners == self.first as u32
    }

    /// Number of the owner's slots, or one more.
    const fn count(self) -> usize {
        SLOTS.div_ceil(self.owners as usize)
    }
}

/// The tables of a database in cluster mode. Each is found by the number of its slot among those of the owner, its *index*.
pub(crate) struct SlotTables {
    tables: Array<RawTable<EntryPtr>>,
    counts: Fenwick,
    len: usize,
}

impl SlotTables {
    pub(crate) fn new(own: OwnSlots) -> Self {
        let slots = own.count();
        Self {
            tables: Array::new(slots),
            counts: Fenwick::new(slots),
            len: 0,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Number of tables.
    #[inline]
    pub(crate) fn tables(&self) -> usize {
        self.tables.len()
    }

    #[inline]
    pub(crate) fn table(&self, index: usize) -> &RawTable<EntryPtr> {
        &self.tables[index]
    }

    /// A slot's table, to be changed; the caller must report added and removed entries by [`SlotTables::added`] and
    /// [`SlotTables::removed`].
    #[inline]
    pub(crate) fn table_mut(&mut self, index: usize) -> &mut RawTable<EntryPtr> {
        &mut self.tables[index]
    }

    #[inline]
    pub(crate) fn added(&mut self, index: usize) {
        self.len += 1;
        self.counts.change(index, 1);
    }

    #[inline]
    pub(crate) fn removed(&mut self, index: usize, count: usize) {
        self.len -= count;
        self.counts.change(index, (count as u64).wrapping_neg());
    }

    /// The index of the slot that has the entry of that number, counted over all slots in order; the number is below `len`.
    pub(crate) fn index_of(&self, number: usize) -> usize {
        self.counts.find(number as u64)
    }

    /// The first index from this one on whose slot has entries.
    pub(crate) fn next_used(&self, index: usize) -> Option<usize> {
        let before = self.counts.sum_below(index) as usize;
        (before < self.len).then(|| self.index_of(before))
    }

    pub(crate) fn stats(&self) -> TableStats {
        let bytes = self.tables.bytes() + self.counts.sums.bytes();
        let mut stats = TableStats {
            bytes,
            ..TableStats::default()
        };
        for table in self.tables.iter() {
            stats.add(table.stats());
        }
        stats
    }
}

/// Counts of slots with their prefix sums: `sums[i]` is the sum of the slots that end at `i` and span the lowest set bit
/// of `i + 1`.
struct Fenwick {
    sums: Array<u64>,
}

impl Fenwick {
    fn new(slots: usize) -> Self {
        Self {
            sums: Array::new(slots),
        }
    }

    /// Adds `delta`, in two's complement, to a slot's count.
    #[inline]
    fn change(&mut self, slot: usize, delta: u64) {
        let mut index = slot;
        while index < self.sums.len() {
            self.sums[index] = self.sums[index].wrapping_add(delta);
            index |= index + 1;
        }
    }

    /// The sum over all slots below.
    fn sum_below(&self, slot: usize) -> u64 {
        let (mut sum, mut end) = (0, slot.min(self.sums.len()));
        while end > 0 {
            sum += self.sums[end - 1];
            end &= end - 1;
        }
        sum
    }

    /// The slot within which the prefix sum exceeds `number`.
    fn find(&self, number: u64) -> usize {
        let (mut start, mut left) = (0, number);
        let mut span = 1 << self.sums.len().ilog2();
        while span > 0 {
            match self.sums.get(start + span - 1) {
                Some(&sum) if sum <= left => {
                    left -= sum;
                    start += span;
                }
                _ => {}
            }
            span /= 2;
        }
        start
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn prefix_sums_agree_with_counting(
            slots in 1..3000usize,
            changes in proptest::collection::vec((0..SLOTS, 1u64..5), 1..60),
            probe in 0..SLOTS,
        ) {
            let mut fenwick = Fenwick::new(slots);
            let mut model = vec![0u64; slots];
            let probe = probe % (slots + 1);
            for (slot, count) in changes {
                let slot = slot % slots;
                fenwick.change(slot, count);
                model[slot] += count;
                if count == 4 {
                    fenwick.change(slot, 3u64.wrapping_neg());
                    model[slot] -= 3;
                }
            }
            prop_assert_eq!(fenwick.sum_below(probe), model[..probe].iter().sum::<u64>());
            let order: Vec<usize> =
                model.iter().enumerate().flat_map(|(slot, n)| std::iter::repeat_n(slot, *n as usize)).collect();
            for (number, slot) in order.iter().enumerate() {
                prop_assert_eq!(fenwick.find(number as u64), *slot);
            }
        }

        #[test]
        fn slots_are_divided_exactly(owners in 1..=SLOTS, slot in 0..SLOTS as u16) {
            let own = OwnSlots::of(usize::from(slot) % owners, owners);
            let index = own.index(slot);
            prop_assert_eq!(index, usize::from(slot) / owners);
            prop_assert!(index < own.count());
            let others = (0..owners).filter(|&owner| OwnSlots::of(owner, owners).contains(slot));
            prop_assert_eq!(others.count(), 1);
        }
    }
}
