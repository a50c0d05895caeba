//! [`Partition`]: the keyspace of one shard and the data kept beside it. It is moved as one box to the loop that runs
//! a command over several shards, and back.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use shardis_cluster::{Slot, SlotSet};
use shardis_storage::key::Key;
use shardis_storage::keyspace::KeyspaceOptions;
use shardis_storage::keyspace::eviction::Evictor;
use shardis_storage::memory;

use super::change::{Door, Guarded, State};
use super::own_volatile::OwnVolatile;
use super::view::Stamp;
use super::watch::{WatchToken, WatchedKey};
use crate::cluster::Doomed;
use crate::journal::Recorder;
use crate::saving::Content;

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
    /// Bytes allocated for its values, keys and tables, as the allocator rounds them. While a thread uses the partition by
    /// itself, what it has allocated since the balance `booked_to` is still missing.
    pub(crate) memory_bytes: i64,
    /// Slots that have gone to another node, and whose keys are still to be deleted.
    doomed: Option<Box<SlotSet>>,
    /// Number of the job of the snapshot that it begins or began last.
    pub(crate) snapshot: u64,
    /// Balance of the thread that uses the partition by itself, up to which everything is booked, bytes.
    booked_to: i64,
    /// Number of the job that saves the data for the last time; 0 when there was none.
    pub(crate) seal: u64,
    /// Time of the next expiry that its loop knows of, Unix milliseconds.
    pub(crate) known_due_ms: i64,
    /// Keys that clients of a replica have written, which expire here without its primary.
    pub(crate) own_volatile: OwnVolatile,
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

/// Bytes that may stay allocated in a partition without keys, beside the tables of slots.
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
            doomed: None,
            snapshot: 0,
            seal: 0,
            booked_to: 0,
            known_due_ms: i64::MAX,
            own_volatile: OwnVolatile::default(),
        }
    }

    /// Starts the use of the partition by this thread alone: all that the thread allocates from here on belongs to it.
    #[inline]
    pub(crate) fn begin_use(&mut self) {
        self.booked_to = memory::thread_balance();
    }

    /// Books what this thread has allocated since the use of the partition began, or since it was last booked.
    #[inline]
    pub(crate) fn book(&mut self) {
        let now = memory::thread_balance();
        self.memory_bytes += now - self.booked_to;
        self.booked_to = now;
    }

    /// Bytes allocated for its values, keys and tables. A partition without keys and garbage has next to none.
    ///
    /// # Panics
    /// In debug builds, when the figure shows that something was booked to the wrong partition.
    pub(crate) fn counted_bytes(&self) -> u64 {
        let bytes = self.memory_bytes;
        debug_assert!(bytes >= 0, "a partition takes {bytes} bytes");
        debug_assert!(
            bytes <= EMPTY_BYTES_MAX
                || !self.keyspace.is_empty()
                || self.keyspace.pending_release() > 0
                || self.own_volatile.len() > 0
                || bytes <= EMPTY_BYTES_MAX + self.slot_table_bytes(),
            "an empty partition takes {bytes} bytes"
        );
        bytes.cast_unsigned()
    }

    /// Bytes of the tables that a node of a cluster has for its slots, whether they have keys or not.
    fn slot_table_bytes(&self) -> i64 {
        let databases = 0..self.keyspace.databases();
        let bytes = databases.map(|index| self.keyspace.database(index).table_stats().bytes);
        bytes.sum::<usize>() as i64
    }

    /// Whether its data may have been saved for the last time.
    pub(crate) fn is_sealed(&self) -> bool {
        self.seal != 0
    }

    /// Adds slots whose keys are to be deleted.
    pub(crate) fn doom(&mut self, slots: Box<SlotSet>) {
        match &mut self.doomed {
            Some(known) => known.extend(slots.iter()),
            none => *none = Some(slots),
        }
    }

    /// Deletes nothing more: the data is not what it was, or another node decides about it.
    pub(crate) fn forget_doomed(&mut self) {
        self.doomed = None;
    }

    /// Whether keys of any slot are to be deleted.
    #[inline]
    pub(crate) fn has_doomed(&self) -> bool {
        self.doomed.is_some()
    }

    /// Deletes keys of doomed slots, so many at most. False when none is left.
    pub(crate) fn delete_doomed(&mut self, max: usize, stamp: &Stamp) -> bool {
        let mut left = max;
        while let Some(slots) = &mut self.doomed {
            let Some(slot) = slots.iter().next() else {
                self.doomed = None;
                return false;
            };
            let deleted = self.delete_in_slot(slot.number(), left, stamp);
            if deleted == left {
                return true;
            }
            left -= deleted;
            if let Some(slots) = &mut self.doomed {
                slots.remove(slot);
            }
        }
        false
    }

    /// Deletes all keys of a slot now if it is doomed: it has come back. `doomed` are those that this partition was not told of yet.
    #[cold]
    pub(crate) fn delete_if_doomed(&mut self, slot: u16, doomed: Option<&Doomed>, stamp: &Stamp) {
        let Some(slot) = Slot::new(slot) else { return };
        let is_new = doomed.is_some_and(|doomed| doomed.remove(slot));
        let is_known = self.doomed.as_mut().is_some_and(|slots| slots.remove(slot));
        if is_new || is_known {
            self.delete_in_slot(slot.number(), usize::MAX, stamp);
        }
    }

    /// Whether a key of the first database is stored, expired or not: the look changes nothing.
    pub(crate) fn has(&self, key: &Key<'_>) -> bool {
        self.keyspace.database(0).peek(key).is_some()
    }

    /// Adds what it has to the content of a snapshot.
    pub(crate) fn add_to(&self, content: &mut Content) {
        content.changes += self.door.figures.changes;
        let databases = self.keyspace.databases();
        content.databases.resize(databases, (0, 0));
        for (db, (keys, expires)) in content.databases.iter_mut().enumerate() {
            let database = self.keyspace.database(db);
            *keys += database.len();
            *expires += database.volatile_len();
            content.has_field_expiries |= database.volatile_hashes() > 0;
        }
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
