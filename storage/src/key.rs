//! A key with the hash and slot computed from it, and the hash function.

use std::hash::Hasher;

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

/// A key in the form that commands pass around: its bytes, its hash and its slot, so that neither is computed twice.
///
/// `hash` must come from the [`KeyHasher`] of the keyspace the key is used with. `slot` must be below
/// [`SLOTS`] and always the same for the same bytes; a keyspace laid out as one table ignores it.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// The bytes of the key.
    pub bytes: &'a [u8],
    /// [`KeyHasher::hash`] of the bytes.
    pub hash: u64,
    /// The hash slot, 0 to 16383.
    pub slot: u16,
}

/// Number of hash slots.
pub const SLOTS: usize = 16384;

/// The seeded hash function of a keyspace: foldhash in its quality variant.
///
/// All bits of the result are usable: tables take the low ones as the index and the high ones as the tag.
#[derive(Clone, Copy, Debug)]
pub struct KeyHasher {
    seed: u64,
}

impl KeyHasher {
    /// A hash function that depends on `seed`; equal seeds give equal functions.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The hash of `bytes`. O(length).
    #[inline]
    #[must_use]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, SharedSeed::global_fixed());
        hasher.write(bytes);
        hasher.finish()
    }

    /// A key with its hash, for a `slot` that is known already.
    #[inline]
    #[must_use]
    pub fn key<'a>(&self, bytes: &'a [u8], slot: u16) -> Key<'a> {
        Key {
            bytes,
            hash: self.hash(bytes),
            slot,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_the_hash() {
        let (one, same, other) = (KeyHasher::new(1), KeyHasher::new(1), KeyHasher::new(2));
        assert_eq!(one.hash(b"key"), same.hash(b"key"));
        assert_ne!(one.hash(b"key"), other.hash(b"key"));
        assert_ne!(one.hash(b"key"), one.hash(b"kez"));
    }

    #[test]
    fn index_and_tag_bits_both_spread() {
        let hasher = KeyHasher::new(7);
        let mut low = [0u32; 64];
        let mut high = [0u32; 64];
        for n in 0..64_000u32 {
            let hash = hasher.hash(format!("user:{n}").as_bytes());
            low[(hash & 63) as usize] += 1;
            high[(hash >> 58) as usize] += 1;
        }
        for count in low.into_iter().chain(high) {
            assert!(
                (850..1150).contains(&count),
                "an uneven share of 64: {count} of 1000 expected"
            );
        }
    }
}
