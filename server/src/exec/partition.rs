//! [`Partition`]: the keyspace of one shard and the data kept beside it. It is moved as one box to the loop that runs
//! a command over several shards, and back.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use shardis_storage::keyspace::KeyspaceOptions;
use shardis_storage::keyspace::eviction::Evictor;
use shardis_storage::memory;

use super::change::{Door, Guarded, State};
use super::watch::{WatchToken, WatchedKey};
use crate::journal::Recorder;

/// The data of one shard.
#[derive(Debug)]
pub(crate) struct Partition {
    /// Index of the shard that owns it.
    pub(crate) shard: usize,
    /// Its databases; only the door of changes opens them.
    pub(crate) keyspace: Guarded,
    /// The parts that learn of changes of its keys.
    pub(crate) door: Door,
    /// Chooses the keys to evict.
    pub(crate) evictor: Evictor,
    /// Source of random numbers.
    pub(crate) rng: SmallRng,
    /// Bytes allocated for its values, keys and tables, as the allocator rounds them.
    pub(crate) memory_bytes: i64,
    /// Time of the next expiry that its loop knows of, Unix milliseconds.
    pub(crate) known_due_ms: i64,
}

/// Counters of a partition since the last CONFIG RESETSTAT.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Commands that ran on its keys, on any loop; a command over several partitions counts in each.
    pub(crate) commands: u64,
    /// Look-ups for reading that found a key.
    pub(crate) hits: u64,
    /// Look-ups for reading that found none.
    pub(crate) misses: u64,
    /// Keys removed because they expired.
    pub(crate) expired: u64,
    /// Fields of hashes removed because they expired.
    pub(crate) expired_fields: u64,
    /// Keys removed by eviction.
    pub(crate) evicted: u64,
    /// Changes to the dataset; not reset.
    pub(crate) changes: u64,
    /// Objects freed in the background.
    pub(crate) freed: u64,
    /// Number of active expiry cycles that ended because their time was used up.
    pub(crate) expire_time_caps: u64,
}

impl Figures {
    /// Resets the counters that CONFIG RESETSTAT resets.
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
    /// An empty partition. `is_recorded` tells whether the journal is read.
    pub(crate) fn new(
        shard: usize,
        options: KeyspaceOptions,
        seed: u64,
        is_recorded: Arc<AtomicBool>,
    ) -> Self {
        let before = memory::thread_balance();
        let keyspace = Guarded::new(options);
        Self {
            shard,
            keyspace,
            door: Door::new(is_recorded),
            evictor: Evictor::new(),
            rng: SmallRng::seed_from_u64(seed ^ shard as u64),
            memory_bytes: memory::thread_balance() - before,
            known_due_ms: i64::MAX,
        }
    }

    /// Bytes allocated for its values, keys and tables. A partition without keys and garbage has next to none.
    ///
    /// # Panics
    /// In debug builds, when the figure shows that something was booked to the wrong partition.
    pub(crate) fn counted_bytes(&self) -> u64 {
        let bytes = self.memory_bytes;
        debug_assert!(bytes >= 0, "a partition takes {bytes} bytes");
        debug_assert!(
            bytes <= EMPTY_BYTES_MAX || !self.keyspace.is_empty() || self.keyspace.pending_release() > 0,
            "an empty partition takes {bytes} bytes"
        );
        bytes.cast_unsigned()
    }

    /// Whether a watched key has expired that was live when the client of this token began to watch it.
    pub(crate) fn has_expired(&self, watched: &WatchedKey, token: &Arc<WatchToken>, now_ms: i64) -> bool {
        let WatchedKey { db, key, .. } = watched;
        State::of(&self.keyspace, *db, key, now_ms) == State::Stale
            && !self.door.watches.is_stale(*db, key, token)
    }

    /// Sends a keyspace event to those who listen. The caller has checked that its class is chosen.
    pub(crate) fn tell(&self, db: u16, name: &'static str, key: &[u8]) {
        self.door.tell(db, name, key);
    }

    /// Records the removals of expiry and eviction, each as a unit of its own.
    pub(crate) fn record_removals(&mut self, recorder: &Recorder) {
        for removal in self.door.removals.drain(..) {
            recorder.unit().add_all(std::iter::once(removal));
        }
    }
}
