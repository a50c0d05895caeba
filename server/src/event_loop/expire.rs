//! Active expiry: keys and fields of hashes go when their time is over, though nobody asks for them.
//!
//! A loop knows when the next key of its shard is due, and sleeps until then. What is due goes in slices of time, at the end
//! of turns. While there are commands to run, slices take no more than the share of the time that `active-expire-effort`
//! allows; while there are none, one slice follows the other until nothing is due.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::EventLoop;
use super::batches::count_memory;
use crate::config::KeyspaceEvents;
use crate::exec::Partition;
use crate::limits::EXPIRE_SLICE_NS;
use crate::observe::latency;

/// Nothing is due until something changes.
const NEVER: i64 = i64::MAX;

/// After so many milliseconds a loop looks again for a partition that was not at hand.
const LENT_RETRY_MS: i64 = 5;

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

    /// Notes when something is next due, as found now.
    fn note(&mut self, now_ms: i64, due_ms: i64) {
        (self.looked_ms, self.is_stale, self.due_ms) = (now_ms, false, due_ms);
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
        let mesh = Arc::clone(&self.reach.mesh);
        let Some(mut held) = mesh.cell(self.index).own() else {
            return self.expiry.note(now_ms, now_ms + LENT_RETRY_MS);
        };
        let mut due_ms = next_due(held.get(), now_ms);
        if self.is_expiry_off() {
            // The turns of cron see when that is over.
            due_ms = NEVER;
        }
        if due_ms <= now_ms {
            let slice = self.expire_slice(held.get());
            self.account_slice(held.get(), &slice, others_wait);
            due_ms = next_due(held.get(), now_ms);
        }
        self.expiry.note(now_ms, due_ms);
        // What was removed may be what somebody waits for.
        if held.get().waiters.has_ready() {
            self.serve_own(held.get());
        }
    }

    /// Whether keys stay though their time is over.
    fn is_expiry_off(&self) -> bool {
        let debug = &self.node.debug;
        debug.lazy_expiry_only.load(Ordering::Relaxed)
            || debug.cron_paused.load(Ordering::Relaxed)
            || self.node.pause.active(self.now_ms()).is_some()
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

/// When something of a partition is next due.
fn next_due(partition: &mut Partition, now_ms: i64) -> i64 {
    let databases = 0..partition.keyspace.databases() as u16;
    let due = databases.filter_map(|db| partition.next_due(db, now_ms)).min();
    due.unwrap_or(NEVER)
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
    let due = partition.next_due(db, now_ms);
    if due.is_none_or(|due_ms| due_ms > now_ms) {
        return false;
    }
    let fields = partition.expire_fields(db, EXPIRED_AT_ONCE, now_ms, chosen);
    let keys = partition.expire_keys(db, EXPIRED_AT_ONCE, now_ms, lazily, chosen);
    partition.journal_removals();
    fields.more || keys.more
}
