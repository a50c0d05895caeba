//! The active cycle that removes fields of hashes whose time is over, in the manner of that for keys.

use super::Database;
use super::expiry::{Expired, SAMPLE, SAMPLE_BUCKETS, STALE_SHARE};
use crate::value::StringRef;
use crate::value::hash::Hash;

/// Fields removed from one hash before others have their turn.
const FIELDS_AT_ONCE: usize = 256;

/// What becomes of a hash by the removal of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldEvent<'a> {
    /// This field was removed.
    Field(StringRef<'a>),
    /// Its last field was, and with it the key.
    Key,
}

impl Database {
    /// Removes expired fields: looks at samples of the hashes that have any which expire, going round, until few of a
    /// sample had one that has, or `budget` hashes and fields have been looked at. `on_expired` is told the key and what
    /// became of it. Returns how many fields were removed.
    pub fn expire_fields(
        &mut self,
        now_ms: i64,
        budget: usize,
        mut on_expired: impl FnMut(&[u8], FieldEvent<'_>),
    ) -> usize {
        let (mut looked, mut removed) = (0, 0);
        let mut expired = Expired::default();
        while looked < budget && self.volatile_hashes() > 0 {
            let sampled = self.sample_hashes(now_ms, &mut expired);
            for bytes in expired.keys() {
                let key = self.key(bytes);
                let hash = self.entry_mut(&key).and_then(|entry| entry.get_mut::<Hash>());
                let Some(hash) = hash else { continue };
                let fields = hash.remove_expired(now_ms, FIELDS_AT_ONCE, |name| {
                    on_expired(bytes, FieldEvent::Field(name));
                });
                looked += fields;
                removed += fields;
                if self.settle(&key) {
                    on_expired(bytes, FieldEvent::Key);
                }
            }
            looked += sampled;
            if expired.count * STALE_SHARE <= sampled {
                break;
            }
        }
        removed
    }

    /// Looks at the next [`SAMPLE`] or so hashes with fields that expire and notes in which some have.
    fn sample_hashes(&mut self, now_ms: i64, expired: &mut Expired) -> usize {
        expired.clear();
        let mut sampled = 0;
        let mut next = self.expiry.next_hash;
        for _ in 0..SAMPLE_BUCKETS {
            next = self.visit_volatile_hashes(next, |entry| {
                sampled += 1;
                let first = entry.get::<Hash>().and_then(Hash::next_expiry);
                if first.is_some_and(|at| at < now_ms) {
                    expired.push(entry.key());
                }
            });
            if sampled >= SAMPLE {
                break;
            }
        }
        self.expiry.next_hash = next;
        sampled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyHasher;
    use crate::keyspace::{Expiry, Layout};
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
        for layout in [Layout::Single, Layout::PerSlot] {
            let start = thread_balance();
            let mut database = Database::new(layout, HASHER, |key| u16::from(key[key.len() - 1]));
            for n in 0..100 {
                add(&mut database, &format!("one:{n}"), 1);
                add(&mut database, &format!("some:{n}"), 6);
                add(&mut database, &format!("many:{n}"), 40);
            }
            assert_eq!(database.volatile_hashes(), 300);
            assert_eq!(
                database.expire_fields(50, 10_000, |_, _| panic!("nothing is over yet")),
                0
            );
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
