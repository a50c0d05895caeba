//! Active expiry: keys and fields of hashes go when their time is over, though nobody asks for them.
//!
//! A loop knows when the next key of its shard is due, and sleeps until then. What is due goes in slices of time, at the end
//! of turns. While there are commands to run, slices take no more than the share of the time that `active-expire-effort`
//! allows; while there are none, one slice follows the other until nothing is due.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shardis_storage::keyspace::Keyspace;

use super::EventLoop;
use super::batches::count_memory;
use crate::config::KeyspaceEvents;
use crate::exec::Partition;
use crate::limits::EXPIRE_SLICE_NS;
use crate::observe::latency;

/// Nothing is due until something changes.
const NEVER: i64 = i64::MAX;

/// What a loop remembers of its shard's active expiry from one turn to the next.
#[derive(Debug)]
pub(super) struct Expiry {
    /// When something is next due, as far as is known, Unix milliseconds.
    due_ms: i64,
    /// The millisecond in which the shard was last looked at for what is due.
    looked_ms: i64,
    /// Something may have become due sooner since then.
    is_stale: bool,
    /// Until when commands go first, Unix microseconds.
    rests_until_us: i64,
    /// The database to go on with.
    next_database: usize,
    /// When it was last counted that the share of time did not suffice, Unix microseconds.
    capped_us: i64,
}

impl Expiry {
    pub(super) const fn new() -> Self {
        Self {
            due_ms: 0,
            looked_ms: 0,
            is_stale: true,
            rests_until_us: 0,
            next_database: 0,
            capped_us: 0,
        }
    }

    /// When the loop has to look again, Unix microseconds.
    pub(super) fn next_us(&self) -> i64 {
        // Within the millisecond of the last look a shard is not looked at again: it waits for the next.
        let next_ms = if self.is_stale { self.looked_ms + 1 } else { NEVER };
        self.due_ms.min(next_ms).saturating_mul(1000)
    }

    /// Nothing can go now: looks again in a later turn.
    fn put_off(&mut self, due_ms: i64) {
        (self.due_ms, self.is_stale) = (due_ms, false);
    }
}

/// What a slice did.
struct Slice {
    elapsed_ns: u64,
    /// Its time was over before all that is due had gone.
    more: bool,
}

impl EventLoop {
    /// Removes keys and fields whose time is over, for the length of a slice. `others_wait` says that there were commands to
    /// run in this turn.
    pub(super) fn expire(&mut self, others_wait: bool) {
        let now_ms = self.now_ms();
        let expiry = &mut self.expiry;
        if expiry.looked_ms == now_ms && expiry.due_ms > now_ms {
            expiry.is_stale = true;
            return;
        }
        if others_wait && self.now_us < expiry.rests_until_us {
            return;
        }
        let debug = &self.node.debug;
        let is_off =
            debug.lazy_expiry_only.load(Ordering::Relaxed) || debug.cron_paused.load(Ordering::Relaxed);
        if is_off || self.node.pause.active(now_ms).is_some() {
            // The turns of cron see when that is over.
            return self.expiry.put_off(NEVER);
        }
        let mesh = Arc::clone(&self.reach.mesh);
        let Some(mut held) = mesh.cell(self.index).own() else {
            return self.expiry.put_off(now_ms + 1);
        };
        if next_due(&held.get().keyspace).is_some_and(|due_ms| due_ms <= now_ms) {
            let slice = self.expire_slice(held.get());
            self.account_slice(held.get(), &slice, others_wait);
        }
        let due_ms = next_due(&held.get().keyspace).unwrap_or(NEVER);
        (self.expiry.looked_ms, self.expiry.is_stale, self.expiry.due_ms) = (now_ms, false, due_ms);
        // What was removed may be what somebody waits for.
        if held.get().waiters.has_ready() {
            self.serve_again(held.get());
        }
    }

    /// Goes round the databases, some keys of each at a time, until nothing is due or the slice is over.
    fn expire_slice(&mut self, partition: &mut Partition) -> Slice {
        let (now_ms, chosen) = (self.now_ms(), self.stamp.events);
        let lazily = self.settings.lazyfree_lazy_expire;
        let clock = &self.node.clock;
        let begin_ns = clock.elapsed_ns();
        let elapsed_ns = || clock.elapsed_ns() - begin_ns;
        let databases = partition.keyspace.databases();
        let mut next = self.expiry.next_database;
        let more = count_memory(partition, &self.node, |partition| {
            loop {
                let mut more = false;
                for _ in 0..databases {
                    next = (next + 1) % databases;
                    more |= expire_some(partition, next as u16, now_ms, lazily, chosen);
                    if more && elapsed_ns() >= EXPIRE_SLICE_NS {
                        return true;
                    }
                }
                if !more {
                    return false;
                }
            }
        });
        self.expiry.next_database = next;
        Slice {
            elapsed_ns: elapsed_ns(),
            more,
        }
    }

    /// Counts a slice, and sees to it that commands get their share of the time before the next.
    fn account_slice(&mut self, partition: &mut Partition, slice: &Slice, others_wait: bool) {
        let share = share_percent(self.settings.active_expire_effort);
        let now_us = self.node.clock.now_us();
        let rest_ns = slice.elapsed_ns * (100 - share) / share;
        self.expiry.rests_until_us = now_us + (rest_ns / 1000) as i64;
        let period_us = 1_000_000 / i64::from(self.settings.hz.clamp(1, 500));
        if slice.more && others_wait && now_us - self.expiry.capped_us >= period_us {
            self.expiry.capped_us = now_us;
            partition.figures.expire_time_caps += 1;
        }
        self.node.stats[self.index].expire_ns.add(slice.elapsed_ns);
        self.node
            .note_latency(&self.settings, latency::EXPIRE_CYCLE, slice.elapsed_ns / 1000);
    }
}

/// The share of a busy loop's time that active expiry may take, in percent: what it is in Redis.
fn share_percent(effort: u8) -> u64 {
    25 + 2 * (u64::from(effort) - 1)
}

/// When something of a keyspace is next due.
fn next_due(keyspace: &Keyspace) -> Option<i64> {
    (0..keyspace.databases())
        .filter_map(|index| keyspace.database(index).next_due())
        .min()
}

/// Keys, and fields, that go between two looks at the clock.
const EXPIRED_AT_ONCE: usize = 64;

/// Removes some of what is over in a database. True if there is more.
fn expire_some(
    partition: &mut Partition,
    db: u16,
    now_ms: i64,
    lazily: bool,
    chosen: KeyspaceEvents,
) -> bool {
    let due = partition.keyspace.database(usize::from(db)).next_due();
    if due.is_none_or(|due_ms| due_ms > now_ms) {
        return false;
    }
    let fields = partition.expire_fields(db, EXPIRED_AT_ONCE, now_ms, chosen);
    let keys = partition.expire_keys(db, EXPIRED_AT_ONCE, now_ms, lazily, chosen);
    partition.journal_removals();
    fields.more || keys.more
}
