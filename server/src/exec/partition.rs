//! What one shard owns: its part of the keyspace and what is kept beside it. It moves as one box, to whoever runs a
//! command over several shards, and back.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use shardis_storage::keyspace::KeyspaceOptions;
use shardis_storage::keyspace::eviction::Evictor;
use shardis_storage::memory;

use super::change::{Guarded, State};
use super::effect::Effect;
use super::event::{EventSink, tell};
use super::waiter::Waiters;
use super::watch::{WatchToken, WatchedKey, Watches};
use crate::journal::Journal;

/// The data of one shard.
#[derive(Debug)]
pub(crate) struct Partition {
    /// Index of the shard that owns it.
    pub(crate) shard: usize,
    /// Its databases; only the door of changes opens them.
    pub(crate) keyspace: Guarded,
    /// Which of its keys are watched, and by whom.
    pub(crate) watches: Watches,
    /// Which of its keys commands wait for.
    pub(crate) waiters: Waiters,
    /// What it counts.
    pub(crate) figures: Figures,
    /// What is to enter the journal of keys and fields that went without a command asking for it.
    pub(crate) removals: Vec<Effect>,
    /// Where effects go; none when nobody listens.
    pub(crate) journal: Option<Journal>,
    /// Where keyspace events go; none when nobody listens.
    pub(crate) events: Option<EventSink>,
    /// Chooses keys to evict.
    pub(crate) evictor: Evictor,
    /// Its source of chance.
    pub(crate) rng: SmallRng,
    /// Bytes its values, keys and tables take, as the allocator hands them out.
    pub(crate) memory_bytes: i64,
}

/// What a partition counts since the last CONFIG RESETSTAT.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Commands that ran on its keys, whichever loop ran them; one over several partitions counts in each.
    pub(crate) commands: u64,
    /// Look-ups for reading that found a key.
    pub(crate) hits: u64,
    /// Look-ups for reading that found none.
    pub(crate) misses: u64,
    /// Keys removed because their time had come.
    pub(crate) expired: u64,
    /// Fields of hashes that were, because of theirs.
    pub(crate) expired_fields: u64,
    /// Keys removed to make room.
    pub(crate) evicted: u64,
    /// Changes to the dataset; not reset.
    pub(crate) changes: u64,
    /// Objects freed in the background.
    pub(crate) freed: u64,
    /// How often an active expiry cycle ended because its time was over.
    pub(crate) expire_time_caps: u64,
}

impl Figures {
    /// Starts what CONFIG RESETSTAT resets anew.
    pub(crate) fn reset(&mut self) {
        *self = Self {
            changes: self.changes,
            ..Self::default()
        };
    }
}

/// Bytes that may stay allocated in a partition without keys.
const EMPTY_BYTES_MAX: i64 = 16 << 10;

impl Partition {
    /// An empty partition.
    pub(crate) fn new(shard: usize, options: KeyspaceOptions, seed: u64, journal: Option<Journal>) -> Self {
        let before = memory::thread_balance();
        let keyspace = Guarded::new(options);
        Self {
            shard,
            keyspace,
            watches: Watches::default(),
            waiters: Waiters::default(),
            figures: Figures::default(),
            removals: Vec::new(),
            journal,
            events: None,
            evictor: Evictor::new(),
            rng: SmallRng::seed_from_u64(seed ^ shard as u64),
            memory_bytes: memory::thread_balance() - before,
        }
    }

    /// Bytes its values, keys and tables take. Without keys and garbage there is next to nothing.
    ///
    /// # Panics
    /// In debug builds, when something was booked to the wrong partition, as far as that can be seen here.
    pub(crate) fn counted_bytes(&self) -> u64 {
        let bytes = self.memory_bytes;
        debug_assert!(bytes >= 0, "a partition takes {bytes} bytes");
        debug_assert!(
            bytes <= EMPTY_BYTES_MAX || !self.keyspace.is_empty() || self.keyspace.pending_release() > 0,
            "an empty partition takes {bytes} bytes"
        );
        bytes.cast_unsigned()
    }

    /// Whether the time of a key is over that was alive when the client of this token began to watch it.
    pub(crate) fn has_expired(&self, watched: &WatchedKey, token: &Arc<WatchToken>, now_ms: i64) -> bool {
        let WatchedKey { db, key, .. } = watched;
        State::of(&self.keyspace, *db, key, now_ms) == State::Stale && !self.watches.is_stale(*db, key, token)
    }

    /// Tells those who listen what happened to a key. Whether they chose this class of events was asked before.
    pub(crate) fn tell(&self, db: u16, name: &'static str, key: &[u8]) {
        tell(self.events.as_ref(), db, name, key);
    }

    /// Puts removals that no command asked for into the journal, each by itself.
    pub(crate) fn journal_removals(&mut self) {
        for removal in self.removals.drain(..) {
            if let Some(journal) = &self.journal {
                journal.append(vec![removal]);
            }
        }
    }
}
