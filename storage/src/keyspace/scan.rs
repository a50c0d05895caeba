//! Cursors of SCAN: stateless numbers, and their meaning in each layout.
//!
//! A table's own cursor is a reverse-binary counter over the low bits of the hash and has at most 32 bits (see
//! [`crate::table`]). With one table it is the cursor. With a table for each slot, the number of the table is in the low 14 bits
//! and the table's cursor above: at most 46 bits. 0 is both the beginning and the end.

use crate::key::SLOTS;

/// Bits of the number of a table.
const SLOT_BITS: u32 = SLOTS.trailing_zeros();

/// A place in a database of one table for each slot of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotCursor {
    /// Number of the slot among those of the owner.
    pub(crate) slot: usize,
    /// The cursor within the slot's table.
    pub(crate) inner: u32,
}

impl SlotCursor {
    /// Reads a cursor, which may be any number: a client sent it.
    #[inline]
    pub(crate) fn unpack(cursor: u64) -> Self {
        Self {
            slot: (cursor % SLOTS as u64) as usize,
            inner: (cursor >> SLOT_BITS) as u32,
        }
    }

    /// The number for this place. It is 0 for the beginning of slot 0, and for the end.
    #[inline]
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.inner) << SLOT_BITS | self.slot as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packing_keeps_both_parts(slot in 0..SLOTS, inner in any::<u32>()) {
            let cursor = SlotCursor { slot, inner };
            prop_assert_eq!(SlotCursor::unpack(cursor.pack()), cursor);
            prop_assert!(cursor.pack() < 1 << 46);
        }

        #[test]
        fn any_number_names_some_slot(cursor in any::<u64>()) {
            prop_assert!(SlotCursor::unpack(cursor).slot < SLOTS);
        }
    }
}
