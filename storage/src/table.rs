//! The hash table: what it is, what it costs, and the arithmetic of walking it.
//!
//! Buckets of one cache line hold eight pointers to entries, each with 16 bits of the hash in the top of the address,
//! so that a look-up touches one line of the table and, nearly always, only the entry it wants. A ninth entry makes the
//! bucket lend its last place to the address of another bucket.
//!
//! The table grows by **linear hashing**. Bucket `n` is split off its parent when an insertion leaves more than 6.5
//! entries a bucket, one bucket an insertion; it is merged back when a removal leaves fewer than 5.5. So the cost a key
//! is the same at any size (12.3 to 12.6 bytes after growth), and no operation pays for more than a bucket or two. Up
//! to [`SEGMENT_BUCKETS`] buckets are one array, which grows in steps of a quarter; beyond, they are segments of 64 KiB
//! behind a directory.
//!
//! Seen from SCAN, the buckets are the leaves of a trie over the hash's low bits, lowest first: splitting gives a leaf
//! two children, merging takes them away. A cursor is a place in that trie's order: see [`advance`].

pub(crate) mod raw;

use std::ptr::NonNull;

/// A pointer to data with a key: the element of a table.
///
/// # Safety
/// [`Keyed::as_ptr`] returns addresses whose three low bits are zero, and two pointers are equal if their addresses
/// are. The code that inserts a pointer promises that its key does not change as long as a table holds the pointer.
pub(crate) unsafe trait Keyed: Copy + PartialEq {
    /// The address as tables store it.
    fn as_ptr(self) -> NonNull<u8>;

    /// The inverse of [`Keyed::as_ptr`].
    ///
    /// # Safety
    /// `ptr` came from there.
    unsafe fn from_ptr(ptr: NonNull<u8>) -> Self;

    /// The key.
    ///
    /// # Safety
    /// The pointer's target is alive; `'a` must not outlive it.
    unsafe fn key<'a>(self) -> &'a [u8];
}

/// Buckets in a segment: 64 KiB.
pub(crate) const SEGMENT_BUCKETS: u32 = 1024;

/// The cursor that follows the bucket of `cursor` whose address is the hash bits under `mask`, 0 when it was the last.
///
/// Cursors count with their bits reversed: the highest bit of the mask changes first. Then all hashes that fall into one
/// bucket are consecutive, and so are those of the buckets it is split into later, or of the one it is merged with: what
/// lies before a cursor and what lies behind it does not depend on how many buckets there are.
#[inline]
pub(crate) fn advance(cursor: u32, mask: u32) -> u32 {
    (cursor | !mask).reverse_bits().wrapping_add(1).reverse_bits()
}

/// Places of the next samples of a table.
///
/// They do not come from a random number each: in a sequence that goes on by the golden ratio of the table's length, places are
/// spread evenly at any number of them and at any number of buckets. So no bucket waits for a visit much longer than others do,
/// as it would by chance: of keys that are visited six times each on average, chance leaves one in 400 unvisited.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ahead {
    /// Place of the next sample, as a part of 2³² of the table.
    place: u32,
}

impl Ahead {
    /// The golden ratio, as a part of 2³².
    const STEP: u32 = 0x9e37_79b9;

    /// The bucket, of so many, that the sample after so many others begins with.
    #[inline]
    fn bucket(self, samples: u32, buckets: u32) -> u32 {
        let place = self.place.wrapping_add(samples.wrapping_mul(Self::STEP));
        ((u64::from(place) * u64::from(buckets)) >> 32) as u32
    }

    #[inline]
    fn advance(&mut self) {
        self.place = self.place.wrapping_add(Self::STEP);
    }
}

/// Sizes of a table's parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Entries in it.
    pub entries: usize,
    /// Buckets with an address of their own.
    pub buckets: usize,
    /// Buckets chained behind one of those.
    pub overflow_buckets: usize,
    /// Bytes it has allocated, without the entries.
    pub bytes: usize,
}

impl TableStats {
    /// Adds another table's figures.
    pub(crate) fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.buckets += other.buckets;
        self.overflow_buckets += other.overflow_buckets;
        self.bytes += other.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_visit_every_address_once() {
        for bits in 0..12 {
            let mask = (1u32 << bits) - 1;
            let mut seen = vec![false; 1 << bits];
            let mut cursor = 0;
            loop {
                assert!(!std::mem::replace(&mut seen[(cursor & mask) as usize], true));
                cursor = advance(cursor, mask);
                if cursor == 0 {
                    break;
                }
            }
            assert!(seen.into_iter().all(|seen| seen), "{bits} bits");
        }
    }

    #[test]
    fn a_finer_mask_goes_on_where_a_coarser_one_stopped() {
        let cursor = advance(0b01, 0b11);
        assert_eq!(cursor, 0b11);
        assert_eq!(advance(0b011, 0b111), 0b111);
        assert_eq!(advance(0b111, 0b111), 0);
    }
}
