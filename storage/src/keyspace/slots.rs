//! One small table for each hash slot, and the number of entries in each.
//!
//! The counts are in a Fenwick tree, so that the slot of the n-th entry, which a uniform random choice needs, is
//! found in 14 steps; an insertion or removal takes as many to update it.

use crate::entry::EntryPtr;
use crate::key::SLOTS;
use crate::memory::Array;
use crate::table::TableStats;
use crate::table::raw::RawTable;

/// Every slot has its table, used or not: 768 KiB a database.
const _: () = assert!(size_of::<RawTable<EntryPtr>>() <= 48);

/// The tables of a database in cluster mode.
pub(crate) struct SlotTables {
    tables: Array<RawTable<EntryPtr>>,
    counts: Fenwick,
    len: usize,
}

impl SlotTables {
    pub(crate) fn new() -> Self {
        Self {
            tables: Array::new(SLOTS),
            counts: Fenwick::new(),
            len: 0,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn table(&self, slot: usize) -> &RawTable<EntryPtr> {
        &self.tables[slot]
    }

    /// A slot's table, to be changed; the caller must report added and removed entries by [`SlotTables::added`] and
    /// [`SlotTables::removed`].
    #[inline]
    pub(crate) fn table_mut(&mut self, slot: usize) -> &mut RawTable<EntryPtr> {
        &mut self.tables[slot]
    }

    #[inline]
    pub(crate) fn added(&mut self, slot: usize) {
        self.len += 1;
        self.counts.change(slot, 1);
    }

    #[inline]
    pub(crate) fn removed(&mut self, slot: usize, count: usize) {
        self.len -= count;
        self.counts.change(slot, (count as u64).wrapping_neg());
    }

    /// The slot that has the entry of that number, counted over all slots in order; the number is below `len`.
    pub(crate) fn slot_of(&self, number: usize) -> usize {
        self.counts.find(number as u64)
    }

    /// The first slot from `slot` on that has entries.
    pub(crate) fn next_used(&self, slot: usize) -> Option<usize> {
        let before = self.counts.sum_below(slot) as usize;
        (before < self.len).then(|| self.slot_of(before))
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
    fn new() -> Self {
        Self {
            sums: Array::new(SLOTS),
        }
    }

    /// Adds `delta`, in two's complement, to a slot's count.
    #[inline]
    fn change(&mut self, slot: usize, delta: u64) {
        let mut index = slot;
        while index < SLOTS {
            self.sums[index] = self.sums[index].wrapping_add(delta);
            index |= index + 1;
        }
    }

    /// The sum over all slots below.
    fn sum_below(&self, slot: usize) -> u64 {
        let (mut sum, mut end) = (0, slot.min(SLOTS));
        while end > 0 {
            sum += self.sums[end - 1];
            end &= end - 1;
        }
        sum
    }

    /// The slot within which the prefix sum exceeds `number`.
    fn find(&self, number: u64) -> usize {
        let (mut start, mut left) = (0, number);
        let mut span = SLOTS / 2;
        while span > 0 {
            let sum = self.sums[start + span - 1];
            if sum <= left {
                left -= sum;
                start += span;
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
            changes in proptest::collection::vec((0..SLOTS, 1u64..5), 1..60), probe in 0..SLOTS
        ) {
            let mut fenwick = Fenwick::new();
            let mut model = vec![0u64; SLOTS];
            for (slot, count) in changes {
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
    }
}
