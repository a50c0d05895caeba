//! Active expiry: removes expired keys and expired fields of hashes that no command touches.
//!
//! A loop knows when the next key of its shard expires, and sleeps until then. Expired keys are removed in slices of
//! time, at the end of turns. While there are commands to run, slices take no more than the share of the time that
//! `active-expire-effort` allows; otherwise one slice follows the other until no expired key is left. When keys come faster
//! than that share can remove them, the share grows with the time for which expired keys have waited: else they would
//! take all memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shardis_storage::keyspace::ExpireStats;

use super::EventLoop;
use super::batches::count_memory;
use crate::config::KeyspaceEvents;
use crate::exec::Partition;
use crate::journal::Recorder;
use crate::limits::{
    EXPIRE_LATE_MS, EXPIRE_SHARE_MAX, EXPIRE_SLICE_MAX_NS, EXPIRE_SLICE_NS, OWN_KEYS_AT_ONCE,
};
use crate::observe::latency;
use crate::shard::Mesh;
use crate::state::Node;

/// Time of an expiry that is never due.
const NEVER: i64 = i64::MAX;

/// Delay before the loop tries again for a partition that was taken, milliseconds.
const LENT_RETRY_MS: i64 = 5;

/// State of a shard's active expiry from one turn to the next.
#[derive(Debug)]
pub(super) struct Expiry {
    /// Next time at which something expires, as far as is known, Unix milliseconds.
    due_ms: i64,
    /// Millisecond of the last look at the shard's calendar.
    looked_ms: i64,
    /// The next time may have moved forward since the last look.
    is_stale: bool,
    /// End of the rest in which commands have priority, Unix microseconds.
    rests_until_us: i64,
    /// Index of the database to continue with.
    next_database: usize,
    /// Time at which it was last counted that the share of time was too small, Unix microseconds.
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

    /// Time at which the loop has to look again, Unix microseconds.
    pub(super) fn next_us(&self) -> i64 {
        // The calendar is read at most once per millisecond.
        let next_ms = if self.is_stale { self.looked_ms + 1 } else { NEVER };
        self.due_ms.min(next_ms).saturating_mul(1000)
    }

    /// Notes the next time at which something expires, as found at `now_ms`.
    fn note(&mut self, now_ms: i64, due_ms: i64) {
        (self.looked_ms, self.is_stale, self.due_ms) = (now_ms, false, due_ms);
    }
}

/// Result of a slice.
struct Slice {
    elapsed_ns: u64,
    /// The slice ended before everything that had expired was removed.
    more: bool,
    /// A snapshot has to save something first that has expired.
    held: bool,
}

impl EventLoop {
    /// Removes expired keys and fields for the duration of a slice. `others_wait` if there were commands to run in
    /// this turn.
    pub(super) fn expire(&mut self, others_wait: bool) {
        let now_ms = self.now_ms();
        self.node.due_sooner[self.index].store(false, Ordering::SeqCst);
        let expiry = &mut self.expiry;
        if expiry.looked_ms == now_ms && expiry.due_ms > now_ms {
            expiry.is_stale = true;
            return;
        }
        if others_wait && self.now_us < expiry.rests_until_us {
            // Expiries that this turn has added are looked at when the rest is over.
            expiry.is_stale = true;
            return;
        }
        let mesh = Arc::clone(&self.reach.mesh);
        let Some(mut held) = mesh.cell(self.index).own() else {
            return self.expiry.note(now_ms, now_ms + LENT_RETRY_MS);
        };
        let mut due_ms = next_due(held.get(), now_ms);
        held.get().known_due_ms = due_ms;
        if self.is_expiry_off() {
            // The turns that cron causes notice when expiry is on again.
            due_ms = NEVER;
        }
        if due_ms <= now_ms {
            let late_ms = now_ms.saturating_sub(due_ms);
            let slice = self.expire_slice(held.get(), slice_ns(late_ms));
            due_ms = next_due(held.get(), now_ms);
            held.get().known_due_ms = due_ms;
            if slice.held {
                due_ms = due_ms.max(now_ms + LENT_RETRY_MS);
            }
            self.account_slice(held.get(), &slice, late_ms, others_wait);
        }
        self.expiry.note(now_ms, due_ms);
        // A removal may be what a command waits for.
        if held.get().door.waiters.has_ready() {
            self.serve_own(held.get());
        }
    }

    /// Whether expired keys are kept.
    fn is_expiry_off(&self) -> bool {
        let debug = &self.node.debug;
        debug.lazy_expiry_only.load(Ordering::Relaxed)
            || debug.cron_paused.load(Ordering::Relaxed)
            || self.node.pause.active(self.now_ms()).is_some()
            || self.node.replication.following.leaves_removals()
    }

    /// Removes keys that clients of this replica have given a time to live, and that have expired.
    pub(super) fn expire_own(&mut self) {
        if !self.node.replication.following.is_replica() || self.node.pause.active(self.now_ms()).is_some() {
            return;
        }
        let (now_ms, chosen) = (self.now_ms(), self.stamp.events);
        let lazily = self.settings.lazyfree_lazy_expire;
        let mesh = Arc::clone(&self.reach.mesh);
        let Some(mut held) = mesh.cell(self.index).own() else {
            return;
        };
        let partition = held.get();
        if partition.own_volatile.len() == 0 || partition.is_sealed() {
            return;
        }
        let environment = self.environment();
        count_memory(partition, &environment, |partition| {
            partition.expire_own(OWN_KEYS_AT_ONCE, now_ms, lazily, chosen);
            partition.record_removals(environment.recorder);
        });
    }

    /// Goes round the databases, removing some keys of each at a time, until nothing is due or the slice is used up.
    fn expire_slice(&mut self, partition: &mut Partition, slice_ns: u64) -> Slice {
        let (now_ms, chosen) = (self.now_ms(), self.stamp.events);
        let lazily = self.settings.lazyfree_lazy_expire;
        let clock = &self.node.clock;
        let begin_ns = clock.elapsed_ns();
        let elapsed_ns = || clock.elapsed_ns() - begin_ns;
        let databases = partition.keyspace.databases();
        let mut next = self.expiry.next_database;
        let environment = self.environment();
        let mut held = false;
        let more = count_memory(partition, &environment, |partition| {
            loop {
                let mut more = false;
                for _ in 0..databases {
                    next = (next + 1) % databases;
                    let stats = expire_some(
                        partition,
                        next as u16,
                        now_ms,
                        lazily,
                        chosen,
                        environment.recorder,
                    );
                    (more, held) = (more | stats.more, held | stats.held);
                    if more && elapsed_ns() >= slice_ns {
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
            held,
        }
    }

    /// Counts a slice, and rests afterwards so that commands get their share of the time. The keys that it began with have
    /// waited for `late_ms`.
    fn account_slice(&mut self, partition: &mut Partition, slice: &Slice, late_ms: i64, others_wait: bool) {
        let share = share_percent(self.settings.active_expire_effort, late_ms);
        let now_us = self.node.clock.now_us();
        // A slice of more time has been interrupted, which is no reason for a longer rest.
        let worked_ns = slice.elapsed_ns.min(2 * EXPIRE_SLICE_MAX_NS);
        let rest_ns = worked_ns * (100 - share) / share;
        self.expiry.rests_until_us = now_us + (rest_ns / 1000) as i64;
        let period_us = 1_000_000 / i64::from(self.settings.hz.clamp(1, 500));
        if slice.more && others_wait && now_us - self.expiry.capped_us >= period_us {
            self.expiry.capped_us = now_us;
            partition.door.figures.expire_time_caps += 1;
        }
        self.node.stats[self.index].expire_ns.add(slice.elapsed_ns);
        self.node
            .note_latency(&self.settings, latency::EXPIRE_CYCLE, slice.elapsed_ns / 1000);
    }
}

/// Wakes the loop of a partition that another loop has used, if something in it expires before that loop would look.
pub(super) fn tell_owner(partition: &mut Partition, node: &Node, mesh: &Mesh) {
    let due_ms = partition.keyspace.earliest_due();
    if let Some(due_ms) = due_ms.filter(|&due_ms| due_ms < partition.known_due_ms) {
        partition.known_due_ms = due_ms;
        node.due_sooner[partition.shard].store(true, Ordering::SeqCst);
        mesh.ring(partition.shard);
    }
}

/// Duration of a slice when the keys that are to go have waited for `late_ms`. There is one in a turn.
fn slice_ns(late_ms: i64) -> u64 {
    EXPIRE_SLICE_NS + grown(EXPIRE_SLICE_MAX_NS - EXPIRE_SLICE_NS, late_ms)
}

/// Share of a busy loop's time that active expiry may take, percent: the same as in Redis as long as expired keys are removed
/// about in time, and more the longer they have waited.
fn share_percent(effort: u8, late_ms: i64) -> u64 {
    let usual = 25 + 2 * (u64::from(effort) - 1);
    usual + grown(EXPIRE_SHARE_MAX - usual, late_ms)
}

/// The part of `room` that is used when keys have waited for `late_ms`.
fn grown(room: u64, late_ms: i64) -> u64 {
    let late_ms = late_ms.clamp(0, EXPIRE_LATE_MS);
    room * late_ms.cast_unsigned() / EXPIRE_LATE_MS.cast_unsigned()
}

/// Next time at which something of a partition expires, Unix milliseconds.
fn next_due(partition: &mut Partition, now_ms: i64) -> i64 {
    let databases = 0..partition.keyspace.databases() as u16;
    let due = databases.filter_map(|db| partition.next_due(db, now_ms)).min();
    due.unwrap_or(NEVER)
}

/// Number of keys and fields removed between two looks at the clock.
const EXPIRED_AT_ONCE: usize = 64;

/// Removes some expired keys and fields of a database. The result tells whether there are more, and why.
fn expire_some(
    partition: &mut Partition,
    db: u16,
    now_ms: i64,
    lazily: bool,
    chosen: KeyspaceEvents,
    recorder: &Recorder,
) -> ExpireStats {
    let due = partition.next_due(db, now_ms);
    if due.is_none_or(|due_ms| due_ms > now_ms) {
        return ExpireStats::default();
    }
    let fields = partition.expire_fields(db, EXPIRED_AT_ONCE, now_ms, chosen);
    let keys = partition.expire_keys(db, EXPIRED_AT_ONCE, now_ms, lazily, chosen);
    partition.record_removals(recorder);
    ExpireStats {
        more: fields.more || keys.more,
        held: fields.held || keys.held,
        ..keys
    }
}
