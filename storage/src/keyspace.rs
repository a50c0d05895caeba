//! The keyspace: the databases of one owner, and the crate's front door.
//!
//! A keyspace is a value: a shard's keys are handed to another thread by moving it. It never frees much at a time:
//! FLUSHALL and UNLINK leave garbage, which [`Keyspace::release`] frees in slices.
//!
//! Operations on keys are in [`database`](Database), their removal in [`eviction`] and
//! [`expiry`](Database::expire_cycle).

mod calendar;
mod database;
pub mod eviction;
mod expiry;
mod field_expiry;
mod scan;
mod slots;
mod snapshot;
pub(crate) mod store;

use std::fmt;

pub use database::{Database, Lookup, OnExpired};
pub use expiry::{ExpireStats, Expiry};
pub use field_expiry::FieldEvent;
pub use slots::OwnSlots;
pub use snapshot::{Baton, EntryWriter, Flow, Lane, Part, Progress, Saved};
pub use store::Layout;

use crate::key::{Key, KeyHasher};

/// Options of a keyspace.
#[derive(Clone, Copy, Debug)]
pub struct KeyspaceOptions {
    /// Number of databases that SELECT can choose from; at least one is created.
    pub databases: usize,
    /// Arrangement of the keys of each database.
    pub layout: Layout,
    /// The hash function of all keys.
    pub hasher: KeyHasher,
    /// The slot of a key, below [`SLOTS`](crate::key::SLOTS): what callers put into [`Key::slot`]. Asked for keys that
    /// the keyspace finds by itself: those that expire, those to evict.
    pub slot_of: fn(&[u8]) -> u16,
}

/// The databases of one owner.
pub struct Keyspace {
    databases: Vec<Database>,
    hasher: KeyHasher,
    slot_of: fn(&[u8]) -> u16,
    /// A snapshot is under way.
    is_saved: bool,
}

const _: () = {
    const fn send<T: Send>() {}
    send::<Keyspace>();
};

impl Keyspace {
    /// Empty databases. Nothing is allocated for keys until there are some.
    #[must_use]
    pub fn new(options: KeyspaceOptions) -> Self {
        let KeyspaceOptions {
            databases,
            layout,
            hasher,
            slot_of,
        } = options;
        let databases = (0..databases.max(1))
            .map(|_| Database::new(layout, hasher, slot_of))
            .collect();
        Self {
            databases,
            hasher,
            slot_of,
            is_saved: false,
        }
    }

    /// Number of databases.
    #[inline]
    #[must_use]
    pub fn databases(&self) -> usize {
        self.databases.len()
    }

    /// The hash function of all keys.
    #[inline]
    #[must_use]
    pub fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    /// A key with its hash and slot, for where these are not known yet.
    #[must_use]
    pub fn key<'a>(&self, bytes: &'a [u8]) -> Key<'a> {
        self.hasher.key(bytes, (self.slot_of)(bytes))
    }

    /// A database.
    ///
    /// # Panics
    /// When `index` is not below [`Keyspace::databases`].
    #[inline]
    #[must_use]
    pub fn database(&self, index: usize) -> &Database {
        &self.databases[index]
    }

    /// A database, to be changed.
    ///
    /// # Panics
    /// When `index` is not below [`Keyspace::databases`].
    #[inline]
    #[must_use]
    pub fn database_mut(&mut self, index: usize) -> &mut Database {
        &mut self.databases[index]
    }

    /// Exchanges two databases. O(1).
    ///
    /// # Panics
    /// When an index is not below [`Keyspace::databases`].
    pub fn swap(&mut self, a: usize, b: usize) {
        self.databases.swap(a, b);
    }

    /// Keys in all databases.
    #[must_use]
    pub fn len(&self) -> usize {
        self.databases.iter().map(Database::len).sum()
    }

    /// Time of the earliest work of active cycles over all databases, see [`Database::earliest_due`].
    #[must_use]
    pub fn earliest_due(&self) -> Option<i64> {
        self.databases.iter().filter_map(Database::earliest_due).min()
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.databases.iter().all(Database::is_empty)
    }

    /// Empties all databases; returns how many keys there were. See [`Database::flush`].
    pub fn flush_all(&mut self) -> usize {
        self.databases.iter_mut().map(Database::flush).sum()
    }

    /// Adds all keys of another keyspace of as many databases and with the same hash function, in the place of those of the
    /// same names. O(keys).
    ///
    /// # Panics
    /// When the other keyspace is of another kind.
    pub fn merge(&mut self, other: Self) {
        assert_eq!(
            self.databases.len(),
            other.databases.len(),
            "keyspaces of one node"
        );
        for (database, other) in self.databases.iter_mut().zip(other.databases) {
            database.merge(other);
        }
    }

    /// Replaces all keys by those of another keyspace of as many databases and with the same hash function. The old ones
    /// become garbage like with [`Keyspace::flush_all`].
    ///
    /// # Panics
    /// When the other keyspace is of another kind.
    pub fn adopt(&mut self, other: Self) {
        assert_eq!(
            self.databases.len(),
            other.databases.len(),
            "keyspaces of one node"
        );
        for (database, other) in self.databases.iter_mut().zip(other.databases) {
            database.adopt(other);
        }
    }

    /// Frees garbage to the value of about `budget` small entries (50 to 100 ns each) and returns how many objects
    /// remain. To free all at once, call it until that is 0.
    pub fn release(&mut self, budget: usize) -> usize {
        let mut left = budget;
        for database in &mut self.databases {
            left = database.garbage.release(left);
        }
        self.pending_release()
    }

    /// Number of objects that wait to be freed, by the count of Redis: like [`Keyspace::pending_release`], without
    /// large strings.
    #[must_use]
    pub fn pending_objects(&self) -> usize {
        self.databases
            .iter()
            .map(|database| database.garbage.objects())
            .sum()
    }

    /// Number of objects that wait to be freed: entries of flushed databases and large values.
    #[inline]
    #[must_use]
    pub fn pending_release(&self) -> usize {
        self.databases
            .iter()
            .map(|database| database.garbage.pending())
            .sum()
    }
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyspace")
            .field("databases", &self.databases.len())
            .field("len", &self.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::thread_balance;

    fn keyspace(layout: Layout) -> Keyspace {
        Keyspace::new(KeyspaceOptions {
            databases: 3,
            layout,
            hasher: KeyHasher::new(5),
            slot_of: |key| u16::from(key.first().copied().unwrap_or(0)),
        })
    }

    #[test]
    fn swapped_databases_take_their_keys_along() {
        let mut keyspace = keyspace(Layout::Single);
        let key = keyspace.key(b"key");
        keyspace
            .database_mut(0)
            .set_string(&key, b"value", Expiry::Clear, 0);
        keyspace.swap(0, 2);
        let key = keyspace.key(b"key");
        assert!(keyspace.database(0).peek(&key).is_none());
        assert!(keyspace.database(2).peek(&key).is_some());
        assert_eq!(keyspace.len(), 1);
    }

    #[test]
    fn flushed_keys_are_gone_at_once_and_freed_by_and_by() {
        for layout in [Layout::Single, Layout::PerSlot(OwnSlots::ALL)] {
            let start = thread_balance();
            let mut keyspace = keyspace(layout);
            let empty = thread_balance();
            for n in 0..5000 {
                let name = format!("{n}");
                let key = keyspace.key(name.as_bytes());
                let expiry = if n % 2 == 0 { Expiry::At(1) } else { Expiry::Clear };
                keyspace.database_mut(1).set_string(&key, b"value", expiry, 0);
            }
            let key = keyspace.key(b"large");
            keyspace
                .database_mut(1)
                .set_string(&key, &vec![1; 3 << 20], Expiry::Clear, 0);
            let full = thread_balance();
            assert_eq!(keyspace.flush_all(), 5001);
            assert!(keyspace.is_empty());
            assert_eq!(keyspace.database(1).volatile_len(), 0);
            assert!(thread_balance() > full - 1000, "garbage still counts");
            let mut calls = 0;
            let mut before = keyspace.pending_release();
            assert_eq!(before, 5001);
            loop {
                let left = keyspace.release(100);
                assert!(before - left <= 130, "{} freed by a budget of 100", before - left);
                calls += 1;
                if left == 0 {
                    break;
                }
                before = left;
            }
            assert!(calls >= 50);
            assert!(
                thread_balance() < empty + 4096,
                "the tables are freed with the last entry"
            );
            drop(keyspace);
            assert_eq!(thread_balance(), start);
        }
    }
}
