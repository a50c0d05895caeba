//! Expiry: its change by writes, and the active cycle that removes expired keys.
//!
//! Keys expire lazily, when a look-up finds them, and actively, by a cycle that takes them from an index ordered by
//! time ([`calendar`](super::calendar)): it visits no key that has not expired, knows the time of the next one, and
//! continues where its budget ended.

use super::Database;
use crate::entry::Entry;

/// Effect of setting a value on the key's expiry.
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
    /// The expiry after the effect, given the one `before`.
    #[inline]
    pub(crate) fn after(self, before: Option<i64>) -> Option<i64> {
        match self {
            Self::Clear => None,
            Self::Keep => before,
            Self::At(at) => Some(at),
        }
    }
}

/// Statistics of a cycle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireStats {
    /// Keys, or fields of hashes, removed.
    pub expired: usize,
    /// Work done, in units of the budget.
    pub work: usize,
    /// Whether the budget ended it before all was removed that is over.
    pub more: bool,
    /// Whether it ended because a snapshot has to save what is over first.
    pub held: bool,
}

/// Bytes of keys copied at a time, unless a single one is longer.
const COPIED_MAX: usize = 64 << 10;

impl Database {
    /// Removes expired keys until none are left, or the work exceeds `budget` keys. `on_expired` sees each key before
    /// its removal. Large values become garbage.
    pub fn expire_cycle(
        &mut self,
        now_ms: i64,
        budget: usize,
        mut on_expired: impl FnMut(&Entry),
    ) -> ExpireStats {
        let mut stats = ExpireStats::default();
        let mut expired = Expired::default();
        loop {
            // The work of a step may exceed the budget by a little: keys are found by the bucket.
            let left = budget.saturating_sub(stats.work);
            if left == 0 {
                stats.more = self.store.volatile().next_due().is_some_and(|due| due <= now_ms);
                return stats;
            }
            let moved = self.store.find_expired(now_ms, left, &mut expired);
            if moved == 0 && expired.is_empty() {
                return stats;
            }
            stats.work += moved;
            let (found_keys, before) = (!expired.is_empty(), stats.expired);
            for bytes in expired.keys() {
                let key = self.key(bytes);
                if let Some(mut found) = self.store.find_mut(&key) {
                    if found.waits_for_snapshot() {
                        stats.work += 1;
                        continue;
                    }
                    on_expired(found.entry());
                    self.garbage.push_entry(found.remove());
                    stats.expired += 1;
                    stats.work += 1;
                }
            }
            if found_keys && stats.expired == before {
                // The same ones would be found again.
                stats.held = true;
                return stats;
            }
        }
    }

    /// Time of an active cycle's next work, for keys or for fields of hashes, milliseconds since 1970: in the past
    /// when it is due, `None` when nothing here expires. Should be called regularly, because it rearranges the
    /// calendar by the distance from `now_ms`.
    #[inline]
    pub fn next_due(&mut self, now_ms: i64) -> Option<i64> {
        let (keys, hashes) = self.store.follow_clock(now_ms);
        match (keys, hashes) {
            (Some(keys), Some(hashes)) => Some(keys.min(hashes)),
            (due, None) | (None, due) => due,
        }
    }

    /// Time of an active cycle's next work as the calendar is arranged now; never later than [`Database::next_due`].
    #[inline]
    #[must_use]
    pub fn earliest_due(&self) -> Option<i64> {
        let (keys, hashes) = (self.store.volatile().next_due(), self.store.fields().next_due());
        keys.into_iter().chain(hashes).min()
    }

    /// About how many keys are over and still here. O(windows of time), a few hundred at most.
    #[must_use]
    pub fn stale_len(&self, now_ms: i64) -> usize {
        self.store.expired_len(now_ms)
    }

    /// Average time to live of the keys with an expiry, milliseconds; 0 when it is over on average, or there are none.
    #[must_use]
    pub fn average_ttl_ms(&self, now_ms: i64) -> i64 {
        let average = self.store.volatile().average();
        average.map_or(0, |at| at.saturating_sub(now_ms).max(0))
    }
}

/// Keys that have expired, copied: removing one may move what the index holds.
#[derive(Default)]
pub(crate) struct Expired {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Expired {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Notes a key, unless there are enough: the next round finds it again.
    pub(crate) fn push(&mut self, key: &[u8]) {
        if self.is_empty() || self.bytes.len() + key.len() <= COPIED_MAX {
            self.bytes.extend_from_slice(key);
            self.ends.push(self.bytes.len());
        }
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends
            .iter()
            .map(move |&end| &self.bytes[std::mem::replace(&mut start, end)..end])
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::key::KeyHasher;
    use crate::keyspace::{Layout, OwnSlots};

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
        for layout in [Layout::Single, Layout::PerSlot(OwnSlots::ALL)] {
            let mut database = database(layout);
            let keys = if cfg!(miri) { 100 } else { 10_000 };
            fill(&mut database, 0..keys, |n| if n % 2 == 0 { 50 } else { 1000 });
            assert_eq!(database.stale_len(50), 0);
            assert_eq!(database.average_ttl_ms(100), 425);
            let (mut removed, mut cycles) = (Vec::new(), 0);
            loop {
                let stats = database.expire_cycle(100, 200, |entry| removed.push(entry.key().to_vec()));
                cycles += 1;
                if !stats.more {
                    break;
                }
                assert_eq!(database.next_due(100).map(|due| due <= 100), Some(true));
            }
            assert!(cycles <= 2 * keys / 200 + 2, "{cycles}");
            removed.sort();
            removed.dedup();
            let half = keys as usize / 2;
            assert_eq!(removed.len(), half);
            assert_eq!((database.len(), database.volatile_len()), (half, half));
            database.for_each(|entry| assert_eq!(entry.expiry(), Some(1000)));
            assert_eq!(
                (database.average_ttl_ms(100), database.average_ttl_ms(2000)),
                (900, 0)
            );
            assert!(database.next_due(100).is_some_and(|due| due > 100));
            assert_eq!(database.stale_len(100), 0);
        }
    }

    #[test]
    fn a_cycle_keeps_to_its_budget_and_says_when_there_is_more() {
        let mut database = database(Layout::Single);
        fill(&mut database, 0..10_000, |_| 50);
        let stats = database.expire_cycle(100, 500, |_| {});
        assert!(stats.more && (500..600).contains(&stats.work), "{stats:?}");
        assert_eq!(stats.expired, stats.work, "what is near need not be moved first");
        assert_eq!(database.len(), 10_000 - stats.expired);
        let stats = database.expire_cycle(10, 500, |_| {});
        assert_eq!(stats, ExpireStats::default());
    }

    #[test]
    fn few_expired_keys_among_many_are_found_at_once() {
        let mut database = database(Layout::Single);
        database.expire_cycle(1_000_000, 1, |_| {});
        let living = if cfg!(miri) { 100 } else { 50_000 };
        fill(&mut database, 0..living, |n| 3_000_000 + n);
        fill(&mut database, living..living + 5, |_| 1_000_100);
        let mut work = 0;
        for now in 1_000_000..1_000_102 {
            work += database.expire_cycle(now, 1000, |_| {}).work;
        }
        assert_eq!(database.len(), living as usize);
        assert!(work <= 10, "{work} units of work for 5 keys");
    }
}
