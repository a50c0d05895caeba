//! The active cycle that removes fields of hashes whose time is over, in the manner of that for keys.

use super::Database;
use super::expiry::{ExpireStats, Expired};
use crate::value::StringRef;
use crate::value::hash::Hash;

/// Fields removed from one hash before others have their turn.
const FIELDS_AT_ONCE: usize = 256;

/// Effect of the removal of expired fields on a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldEvent<'a> {
    /// This field was removed.
    Field(StringRef<'a>),
    /// The last field was removed, and the key with it.
    Key,
}

impl Database {
    /// Removes expired fields until none are left, or the work exceeds `budget` fields. `on_expired` gets the key and
    /// the event.
    pub fn expire_fields(
        &mut self,
        now_ms: i64,
        budget: usize,
        mut on_expired: impl FnMut(&[u8], FieldEvent<'_>),
    ) -> ExpireStats {
        let mut stats = ExpireStats::default();
        let mut hashes = Expired::default();
        loop {
            // A step may exceed the budget by a little, since hashes are found a bucket at a time.
            let left = budget.saturating_sub(stats.work);
            if left == 0 {
                stats.more = self.store.fields().next_due().is_some_and(|due| due <= now_ms);
                return stats;
            }
            let moved = self.store.find_hashes(now_ms, left, &mut hashes);
            if moved == 0 && hashes.is_empty() {
                return stats;
            }
            stats.work += moved;
            let (found_hashes, mut all_held) = (!hashes.is_empty(), true);
            for bytes in hashes.keys() {
                // The budget is also checked between hashes: a single one may have expired fields for a whole turn.
                if stats.work >= budget {
                    break;
                }
                let Some(fields) = self.expire_fields_of(bytes, now_ms, &mut on_expired) else {
                    stats.work += 1;
                    continue;
                };
                all_held = false;
                stats.expired += fields;
                stats.work += 1 + fields;
            }
            if found_hashes && all_held {
                // The same ones would be found again.
                stats.held = true;
                return stats;
            }
        }
    }

    /// Removes expired fields of one hash, at most [`FIELDS_AT_ONCE`]; returns how many, or nothing when a snapshot has to save
    /// the hash first.
    fn expire_fields_of(
        &mut self,
        bytes: &[u8],
        now_ms: i64,
        mut on_expired: impl FnMut(&[u8], FieldEvent<'_>),
    ) -> Option<usize> {
        let key = self.key(bytes);
        let Some(mut found) = self.store.find_mut(&key) else {
            return Some(0);
        };
        if found.waits_for_snapshot() {
            return None;
        }
        let Some(hash) = found.entry_mut().get_mut::<Hash>() else {
            return Some(0);
        };
        let fields = hash.remove_expired(now_ms, FIELDS_AT_ONCE, |name| {
            on_expired(bytes, FieldEvent::Field(name));
        });
        if hash.is_empty() {
            drop(found.remove());
            on_expired(bytes, FieldEvent::Key);
        } else {
            found.relist_fields();
        }
        Some(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyHasher;
    use crate::keyspace::{Expiry, Layout, OwnSlots};
    use crate::memory::thread_balance;
    use crate::value::hash::{FieldExpiry, HashLimits};

    const HASHER: KeyHasher = KeyHasher::new(3);
    const LIMITS: HashLimits = HashLimits {
        listpack_entries: 8,
        listpack_value: 64,
        hasher: HASHER,
    };

    /// A hash of `fields` fields, of which those of even number expire at 50.
    fn add(database: &mut Database, name: &str, fields: usize) {
        let key = database.key(name.as_bytes());
        let entry = database.entry_or_empty::<Hash>(&key, 0);
        let hash = entry.get_mut::<Hash>().unwrap();
        for n in 0..fields {
            let field = format!("field:{n}");
            hash.set(field.as_bytes(), b"v", FieldExpiry::Clear, 0, &LIMITS);
            if n % 2 == 0 {
                hash.set_expiry(field.as_bytes(), Some(50), 0);
            }
        }
        assert!(!database.settle(&key));
    }

    #[test]
    fn expired_fields_go_and_with_the_last_the_key() {
        for layout in [Layout::Single, Layout::PerSlot(OwnSlots::ALL)] {
            let start = thread_balance();
            let mut database = Database::new(layout, HASHER, |key| u16::from(key[key.len() - 1]));
            for n in 0..100 {
                add(&mut database, &format!("one:{n}"), 1);
                add(&mut database, &format!("some:{n}"), 6);
                add(&mut database, &format!("many:{n}"), 40);
            }
            assert_eq!(database.volatile_hashes(), 300);
            let stats = database.expire_fields(50, 10_000, |_, _| panic!("nothing is over yet"));
            assert_eq!((stats.expired, stats.more), (0, false));
            let (mut fields, mut keys) = (0, 0);
            for _ in 0..100 {
                database.expire_fields(51, 50, |_, event| match event {
                    FieldEvent::Field(_) => fields += 1,
                    FieldEvent::Key => keys += 1,
                });
            }
            assert_eq!((fields, keys), (100 * (1 + 3 + 20), 100));
            assert_eq!((database.len(), database.volatile_hashes()), (200, 0));
            drop(database);
            assert_eq!(thread_balance(), start);
        }
    }

    #[test]
    fn a_hash_is_looked_at_when_its_first_field_expires_however_that_changed() {
        for fields in [3, 40] {
            let mut database = Database::new(Layout::Single, HASHER, |_| 0);
            add(&mut database, "h", fields);
            let key = HASHER.key(b"h", 0);
            let expire_at = |database: &mut Database, at| {
                let hash = database.entry_mut(&key).unwrap().get_mut::<Hash>().unwrap();
                for n in (0..fields).step_by(2) {
                    assert!(hash.set_expiry(format!("field:{n}").as_bytes(), Some(at), 0));
                }
                assert!(!database.settle(&key));
            };
            expire_at(&mut database, 100_000);
            assert_eq!(database.expire_fields(60_000, 1000, |_, _| {}).expired, 0);
            // The look at time 50 found nothing expired; the next one is due when the fields expire.
            assert!(database.next_due(60_000).is_some_and(|due| due > 60_000));
            expire_at(&mut database, 70_000);
            assert!(database.next_due(60_001).is_some_and(|due| due <= 70_001));
            assert_eq!(database.expire_fields(70_000, 1000, |_, _| {}).expired, 0);
            let stats = database.expire_fields(70_001, 1000, |_, _| {});
            assert_eq!(stats.expired, fields.div_ceil(2));
            assert_eq!((database.volatile_hashes(), database.next_due(70_002)), (0, None));
        }
    }

    #[test]
    fn many_fields_of_one_hash_go_in_parts() {
        let mut database = Database::new(Layout::Single, HASHER, |_| 0);
        add(&mut database, "h", 4000);
        let (mut cycles, mut fields) = (0, 0);
        loop {
            let stats = database.expire_fields(51, 10, |_, _| fields += 1);
            cycles += 1;
            assert!(stats.work <= 10 + FIELDS_AT_ONCE + 8, "{stats:?}");
            if !stats.more {
                break;
            }
        }
        assert_eq!((fields, database.volatile_hashes()), (2000, 0));
        assert!(cycles >= 2000 / FIELDS_AT_ONCE);
    }

    #[test]
    fn a_hash_stays_listed_when_its_entry_moves() {
        let mut database = Database::new(Layout::Single, HASHER, |_| 0);
        add(&mut database, "h", 20);
        let key = HASHER.key(b"h", 0);
        for expiry in [Some(1000), None, Some(2000)] {
            database.set_expiry(&key, expiry);
            assert_eq!(database.volatile_hashes(), 1);
        }
        let owned = database.take(&key).unwrap();
        assert_eq!(database.volatile_hashes(), 0);
        let other = HASHER.key(b"other", 0);
        database.insert(&other, owned, 0);
        assert_eq!(database.volatile_hashes(), 1);
        database.set_string(&other, b"v", Expiry::Clear, 0);
        assert_eq!(database.volatile_hashes(), 0);
    }
}
