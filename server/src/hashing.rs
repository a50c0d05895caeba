//! [`Hashing`]: computes the hashes, slots and shards of keys.

use shardis_cluster::slot::{shard_of, slot_of};
use shardis_storage::key::{Key, KeyHasher};

/// The hash function of a node's keys, its number of shards, and whether anything there depends on slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hashing {
    hasher: KeyHasher,
    shards: usize,
    has_slots: bool,
}

impl Hashing {
    /// The hashing of a node with so many shards, which either keeps its keys by slot or not.
    pub(crate) fn new(hasher: KeyHasher, shards: usize, keeps_by_slot: bool) -> Self {
        Self {
            hasher,
            shards,
            has_slots: shards > 1 || keeps_by_slot,
        }
    }

    /// The hash function.
    #[inline]
    pub(crate) fn hasher(self) -> KeyHasher {
        self.hasher
    }

    /// Number of shards.
    #[inline]
    pub(crate) fn shards(self) -> usize {
        self.shards
    }

    /// A key with its hash and slot. The slot is 0 where nothing depends on it. Complexity: O(length).
    #[inline]
    pub(crate) fn key(self, bytes: &[u8]) -> Key<'_> {
        Key {
            bytes,
            hash: self.hasher.hash(bytes),
            slot: self.slot(bytes),
        }
    }

    /// The slot of a key, or 0 where nothing depends on it. Complexity: O(length).
    #[inline]
    pub(crate) fn slot(self, bytes: &[u8]) -> u16 {
        if self.has_slots {
            slot_of(bytes).number()
        } else {
            0
        }
    }

    /// The shard that holds a slot.
    #[inline]
    pub(crate) fn shard_of(self, slot: u16) -> usize {
        // A division is expensive, and unnecessary with one shard.
        if self.shards == 1 {
            0
        } else {
            shard_of(slot, self.shards)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_told_where_something_depends_on_them() {
        let hasher = KeyHasher::new(1);
        let of = |shards, by_slot| Hashing::new(hasher, shards, by_slot).key(b"foo").slot;
        assert_eq!((of(1, false), of(1, true), of(4, false)), (0, 12_182, 12_182));
        let four = Hashing::new(hasher, 4, false);
        assert_eq!(four.shard_of(four.slot(b"foo")), 12_182 % 4);
    }
}
