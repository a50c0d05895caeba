//! Expiry: what a write does to it, and the active cycle that removes keys whose time is over.
//!
//! Keys expire lazily, when somebody looks at them, and actively, by a cycle that goes round the index of volatile keys
//! a few at a time. It goes on while it finds that a noticeable share has expired, and stops at its budget.

use std::ops::Range;

use super::Database;
use crate::entry::Entry;

/// What setting a value does to the key's expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// The key has none afterwards.
    Clear,
    /// The key keeps what it had, none if it is new.
    Keep,
    /// The key expires at this time, in milliseconds since 1970.
    At(i64),
}

impl Expiry {
    /// What the expiry is afterwards if it was `before`.
    #[inline]
    pub(crate) fn after(self, before: Option<i64>) -> Option<i64> {
        match self {
            Self::Clear => None,
            Self::Keep => before,
            Self::At(at) => Some(at),
        }
    }
}

/// What a database remembers from one cycle to the next.
#[derive(Default)]
pub(super) struct ExpiryState {
    /// Where in the volatile index the next sample begins.
    next: u32,
    /// Where in the field index the next sample begins.
    pub(super) next_hash: u32,
    /// A running average of what volatile keys had left to live, in milliseconds.
    average_ttl_ms: i64,
}

/// What a cycle did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireStats {
    /// Keys looked at.
    pub examined: usize,
    /// Keys removed.
    pub expired: usize,
    /// Whether the budget ended it while many of the keys it found had expired: another cycle should follow soon.
    pub more: bool,
}

/// Keys in a sample.
pub(super) const SAMPLE: usize = 20;
/// Buckets passed for a sample at most: an index in need of shrinking is no reason for a long walk.
pub(super) const SAMPLE_BUCKETS: usize = 40;
/// Expired keys removed from one sample at most; one bucket may carry it beyond [`SAMPLE`].
const BATCH: usize = 64;
/// The cycle goes on while more than one in this many of a sample has expired.
pub(super) const STALE_SHARE: usize = 10;

impl Database {
    /// Removes expired keys: looks at samples of volatile keys, going round, until few of a sample have expired or
    /// `budget` keys have been looked at. `on_expired` sees each key before it goes. Large values become garbage.
    pub fn expire_cycle(
        &mut self,
        now_ms: i64,
        budget: usize,
        mut on_expired: impl FnMut(&Entry),
    ) -> ExpireStats {
        let mut stats = ExpireStats::default();
        let mut expired = Expired::default();
        while stats.examined < budget && self.volatile_len() > 0 {
            let sampled = self.sample_expired(now_ms, &mut expired);
            stats.examined += sampled;
            for bytes in expired.keys() {
                let key = self.key(bytes);
                if let Some(entry) = self.peek(&key) {
                    on_expired(entry);
                    self.unlink(&key);
                    stats.expired += 1;
                }
            }
            stats.more = expired.count * STALE_SHARE > sampled;
            if !stats.more {
                return stats;
            }
        }
        stats.more &= self.volatile_len() > 0;
        stats
    }

    /// What keys with an expiry have left to live on average, in milliseconds: an estimate of the active cycle.
    #[must_use]
    pub fn average_ttl_ms(&self) -> i64 {
        self.expiry.average_ttl_ms
    }

    /// Looks at the next [`SAMPLE`] or so volatile keys and notes which have expired.
    fn sample_expired(&mut self, now_ms: i64, expired: &mut Expired) -> usize {
        expired.clear();
        let (mut sampled, mut living, mut ttl_sum) = (0usize, 0i64, 0i64);
        let mut next = self.expiry.next;
        for _ in 0..SAMPLE_BUCKETS {
            next = self.visit_volatile(next, |entry| {
                sampled += 1;
                let ttl = entry.expiry().map_or(0, |at| at.saturating_sub(now_ms));
                if entry.is_expired(now_ms) {
                    expired.push(entry.key());
                } else if ttl > 0 {
                    living += 1;
                    ttl_sum = ttl_sum.saturating_add(ttl);
                }
            });
            if sampled >= SAMPLE {
                break;
            }
        }
        self.expiry.next = next;
        if let Some(average) = ttl_sum.checked_div(living) {
            self.note_ttl(average);
        }
        sampled
    }

    /// Moves the running average a fiftieth of the way.
    fn note_ttl(&mut self, sample_ms: i64) {
        let average = &mut self.expiry.average_ttl_ms;
        *average = if *average == 0 {
            sample_ms
        } else {
            *average / 50 * 49 + sample_ms / 50
        };
    }
}

/// The keys of a sample that have expired, copied: removing one may move what the index holds.
pub(super) struct Expired {
    bytes: Vec<u8>,
    ends: [usize; BATCH],
    pub(super) count: usize,
}

impl Default for Expired {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            ends: [0; BATCH],
            count: 0,
        }
    }
}

impl Expired {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
    }

    /// Notes a key, unless there are enough: the next round finds it again.
    pub(super) fn push(&mut self, key: &[u8]) {
        if self.count < BATCH {
            self.bytes.extend_from_slice(key);
            self.ends[self.count] = self.bytes.len();
            self.count += 1;
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.count).map(|n| {
            let start = n.checked_sub(1).map_or(0, |before| self.ends[before]);
            &self.bytes[Range {
                start,
                end: self.ends[n],
            }]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyHasher;
    use crate::keyspace::Layout;

    fn database(layout: Layout) -> Database {
        Database::new(layout, KeyHasher::new(3), |key| u16::from(key[key.len() - 1]))
    }

    fn fill(database: &mut Database, range: Range<i64>, at: impl Fn(i64) -> i64) {
        for n in range {
            let name = format!("key:{n}");
            let key = database.key(name.as_bytes());
            database.set_string(&key, b"v", Expiry::At(at(n)), 0);
        }
    }

    #[test]
    fn the_last_millisecond_belongs_to_the_key() {
        let mut database = database(Layout::Single);
        fill(&mut database, 0..1, |_| 100);
        assert_eq!(database.expire_cycle(100, 100, |_| {}).expired, 0);
        assert_eq!(database.expire_cycle(101, 100, |_| {}).expired, 1);
    }

    #[test]
    fn cycles_remove_every_expired_key_and_no_other() {
        for layout in [Layout::Single, Layout::PerSlot] {
            let mut database = database(layout);
            fill(&mut database, 0..10_000, |n| if n % 2 == 0 { 50 } else { 1000 });
            let mut removed = Vec::new();
            for _ in 0..1000 {
                database.expire_cycle(100, 200, |entry| removed.push(entry.key().to_vec()));
            }
            removed.sort();
            removed.dedup();
            assert_eq!(removed.len(), 5000);
            assert_eq!((database.len(), database.volatile_len()), (5000, 5000));
            database.for_each(|entry| assert_eq!(entry.expiry(), Some(1000)));
            assert_eq!(database.average_ttl_ms(), 900);
        }
    }

    #[test]
    fn a_cycle_keeps_to_its_budget_and_says_when_there_is_more() {
        let mut database = database(Layout::Single);
        fill(&mut database, 0..10_000, |_| 50);
        let stats = database.expire_cycle(100, 500, |_| {});
        assert!(stats.more && (500..600).contains(&stats.examined), "{stats:?}");
        assert_eq!(stats.expired, stats.examined);
        assert_eq!(database.len(), 10_000 - stats.expired);
        let stats = database.expire_cycle(10, 500, |_| {});
        assert!(!stats.more && stats.examined < 60, "{stats:?}");
    }
}
