//! The door of changes: every change of a key passes through it, whether a command, expiry or eviction causes it.
//!
//! [`Door::changed`] is the one function that knows database, key and cause. It informs the watchers of the key and
//! the commands that wait for it, raises keyspace events, and records the effects of removals that no command asked
//! for. The keyspace itself is [`Guarded`]: other modules may read it, only this one opens it for changes, and a
//! look-up for reading never returns a value that can be changed.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::SmallRng;
use shardis_storage::entry::Entry;
use shardis_storage::key::Key;
use shardis_storage::keyspace::eviction::{EvictionOptions, Evictor};
use shardis_storage::keyspace::{
    Database, EntryWriter, ExpireStats, FieldEvent, Keyspace, KeyspaceOptions, Lookup, OnExpired, Progress,
    Saved,
};
use shardis_storage::rdb::Decoded;
use shardis_storage::value::{INT_TEXT_MAX, StringRef};

use super::departure::Leaving;
use super::effect::Effect;
use super::event::EventSink;
use super::origin::Origin;
use super::own_volatile::OwnVolatile;
use super::partition::{Figures, Partition};
use super::view::Stamp;
use super::waiter::Waiters;
use super::watch::Watches;
use crate::config::KeyspaceEvents;
use crate::saving::Snapshot;
use crate::tracking::Invalidations;

/// Cause of a change of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cause<'a> {
    /// A command wrote or removed it.
    Command,
    /// A command changed a consumer group, not the value: watchers of the key are not concerned.
    Group,
    /// The key expired.
    Expired {
        /// Its value is unlinked (freed later) rather than deleted.
        lazily: bool,
    },
    /// This field of a hash expired.
    FieldExpired(StringRef<'a>),
    /// The last field of a hash expired, and the key was removed with it.
    LastFieldExpired,
    /// The slot of the key has gone to another node.
    Dropped {
        /// Its value is unlinked (freed later) rather than deleted.
        lazily: bool,
    },
    /// The key was evicted to make room.
    Evicted {
        /// Its value is unlinked (freed later) rather than deleted.
        lazily: bool,
    },
}

/// The keyspace of a partition. Other modules may read it; only the door opens it for changes.
#[derive(Debug)]
pub(crate) struct Guarded(Keyspace);

impl Deref for Guarded {
    type Target = Keyspace;

    #[inline]
    fn deref(&self) -> &Keyspace {
        &self.0
    }
}

impl Guarded {
    /// An empty keyspace.
    pub(super) fn new(options: KeyspaceOptions) -> Self {
        Self(Keyspace::new(options))
    }

    /// The keyspace, for a test to fill.
    #[cfg(test)]
    pub(crate) fn open(&mut self) -> &mut Keyspace {
        &mut self.0
    }
}

/// The parts of a partition that learn of changes.
#[derive(Debug)]
pub(crate) struct Door {
    /// The watched keys and their watchers.
    pub(crate) watches: Watches,
    /// The keys that commands wait for.
    pub(crate) waiters: Waiters,
    /// The keys that trackers have read, and what they are to be told.
    pub(crate) invalidations: Invalidations,
    /// The keys that are leaving for another node.
    pub(crate) leaving: Leaving,
    /// Counters of the partition.
    pub(crate) figures: Figures,
    /// Effects of expiry and eviction that are not in the journal yet.
    pub(crate) removals: Vec<Effect>,
    /// Effects are recorded: somebody reads the journal.
    pub(crate) is_recorded: Arc<AtomicBool>,
    /// Receiver of keyspace events; none when nobody listens.
    pub(crate) events: Option<EventSink>,
}

impl Cause<'_> {
    /// On whose behalf the key changes.
    fn origin(self) -> Origin {
        match self {
            Self::Command | Self::Group => Origin::Client,
            Self::Expired { .. }
            | Self::FieldExpired(_)
            | Self::LastFieldExpired
            | Self::Dropped { .. }
            | Self::Evicted { .. } => Origin::Node,
        }
    }
}

impl Door {
    /// The door of a partition that nobody watches yet.
    pub(super) fn new(is_recorded: Arc<AtomicBool>) -> Self {
        Self {
            watches: Watches::default(),
            waiters: Waiters::default(),
            invalidations: Invalidations::default(),
            leaving: Leaving::default(),
            figures: Figures::default(),
            removals: Vec::new(),
            is_recorded,
            events: None,
        }
    }

    /// Announces that a key changes. The caller changes the value just before or just after. `chosen` are the classes
    /// of keyspace events that somebody listens to.
    fn changed(&mut self, db: u16, key: &[u8], cause: Cause<'_>, chosen: KeyspaceEvents) {
        match cause {
            Cause::Group => {}
            Cause::Expired { .. } => self.watches.expired(db, key),
            _ => self.watches.touch(db, key),
        }
        if self.invalidations.concern_somebody() {
            self.invalidate(key, cause);
        }
        self.waiters.mark(db, key);
        if cause.origin().reports_effects() {
            return;
        }
        let tell = |door: &Self, class, name| {
            if chosen.contains(class) {
                door.tell(db, name, key);
            }
        };
        match cause {
            Cause::Command | Cause::Group => {}
            Cause::Expired { lazily } => {
                self.figures.expired += 1;
                tell(self, KeyspaceEvents::EXPIRED, "expired");
                self.repeat_removal(db, key, lazily);
            }
            Cause::Evicted { lazily } => {
                self.figures.evicted += 1;
                tell(self, KeyspaceEvents::EVICTED, "evicted");
                self.repeat_removal(db, key, lazily);
            }
            Cause::Dropped { lazily } => {
                self.figures.changes += 1;
                tell(self, KeyspaceEvents::GENERIC, "del");
                self.repeat_removal(db, key, lazily);
            }
            Cause::FieldExpired(field) => {
                self.figures.expired_fields += 1;
                tell(self, KeyspaceEvents::HASH, "hexpired");
                self.repeat(db, || {
                    let field = field.as_bytes(&mut [0; INT_TEXT_MAX]).to_vec();
                    vec![b"HDEL".to_vec(), key.to_vec(), field]
                });
            }
            // Replicas execute an HDEL of that field, which removes the key there as well.
            Cause::LastFieldExpired => tell(self, KeyspaceEvents::GENERIC, "del"),
        }
    }

    /// Notes that trackers are to be told of a change. What is no change of the value is none for them.
    fn invalidate(&mut self, key: &[u8], cause: Cause<'_>) {
        let writer = match cause {
            Cause::Group => return,
            Cause::Command => self.invalidations.writer,
            // Nobody knows of these before being told.
            Cause::Expired { .. }
            | Cause::FieldExpired(_)
            | Cause::LastFieldExpired
            | Cause::Dropped { .. }
            | Cause::Evicted { .. } => 0,
        };
        self.invalidations.changed(key, writer);
    }

    /// Sends a keyspace event to those who listen. The caller has checked that its class is chosen.
    pub(super) fn tell(&self, db: u16, name: &'static str, key: &[u8]) {
        if let Some(events) = &self.events {
            events.tell(db, name, key);
        }
    }

    fn repeat_removal(&mut self, db: u16, key: &[u8], lazily: bool) {
        self.repeat(db, || {
            let name: &[u8] = if lazily { b"UNLINK" } else { b"DEL" };
            vec![name.to_vec(), key.to_vec()]
        });
    }

    fn repeat(&mut self, db: u16, words: impl FnOnce() -> Vec<Vec<u8>>) {
        if self.is_recorded.load(Ordering::Relaxed) {
            self.removals.push(Effect { db, words: words() });
        }
    }

    /// Announces the removal of a key that a look-up found expired, unless expired keys are kept. Returns the treatment
    /// of the key.
    #[cold]
    fn expires(&mut self, stamp: &Stamp, db: u16, key: &[u8]) -> OnExpired {
        if stamp.on_expired != OnExpired::Keep {
            let lazily = stamp.on_expired == OnExpired::Unlink;
            self.changed(db, key, Cause::Expired { lazily }, stamp.events);
        }
        stamp.on_expired
    }

    /// Counts a look-up as a hit or a miss, and raises the event of a miss. Returns the entry if the key is live.
    #[inline]
    fn count<E>(&mut self, found: Lookup<E>, stamp: &Stamp, db: u16, key: &Key<'_>, look: Look) -> Option<E> {
        match found {
            Lookup::Live(entry) => {
                self.figures.hits += u64::from(look.counts);
                Some(entry)
            }
            Lookup::Missing | Lookup::Expired => {
                if look.counts {
                    self.figures.misses += 1;
                    if look.tells && stamp.events.contains(KeyspaceEvents::KEY_MISS) {
                        self.tell(db, "keymiss", key.bytes);
                    }
                }
                None
            }
        }
    }
}

/// Side effects of a look-up.
#[derive(Clone, Copy)]
pub(super) struct Look {
    /// The look-up counts as a hit or a miss.
    pub(super) counts: bool,
    /// A miss raises a `keymiss` event.
    pub(super) tells: bool,
    /// The look-up is an access: it updates the access clock.
    pub(super) touches: bool,
}

impl Look {
    /// The access clock of an entry after this look-up.
    #[inline]
    fn touched(self, stamp: &Stamp, clock: u32, rng: &mut SmallRng) -> u32 {
        if self.touches {
            stamp.touched(clock, rng)
        } else {
            clock
        }
    }
}

/// Budget of one call of `release` when all garbage is freed at once, in small entries.
const RELEASE_AT_ONCE: usize = 1 << 16;

impl Partition {
    /// Announces that a command changed a key. Where nobody watches, waits or tracks, this costs a branch or three.
    #[inline]
    pub(super) fn changed(&mut self, db: u16, key: &[u8], cause: Cause<'_>) {
        let door = &mut self.door;
        if !door.watches.is_empty() || !door.waiters.is_empty() {
            door.changed(db, key, cause, KeyspaceEvents::default());
        } else if door.invalidations.concern_somebody() {
            door.invalidate(key, cause);
        }
    }

    /// Looks a key up for reading; the value cannot be changed through the result.
    #[inline]
    pub(super) fn look_up(
        &mut self,
        stamp: &Stamp,
        db: u16,
        key: &Key<'_>,
        look: Look,
    ) -> Option<(&Entry, &mut SmallRng)> {
        let database = self.keyspace.0.database_mut(usize::from(db));
        let found = database.look_up(
            key,
            stamp.now_ms,
            |clock| look.touched(stamp, clock, &mut self.rng),
            |entry| self.door.expires(stamp, db, entry.key()),
        );
        let entry = self.door.count(found, stamp, db, key, look)?;
        Some((entry, &mut self.rng))
    }

    /// Looks a key up for changing its value in place.
    #[inline]
    pub(super) fn look_up_to_change(
        &mut self,
        stamp: &Stamp,
        db: u16,
        key: &Key<'_>,
        look: Look,
    ) -> Option<(&mut Entry, &mut SmallRng)> {
        let database = self.keyspace.0.database_mut(usize::from(db));
        let found = database.look_up_to_change(
            key,
            stamp.now_ms,
            |clock| look.touched(stamp, clock, &mut self.rng),
            |entry| self.door.expires(stamp, db, entry.key()),
        );
        let entry = self.door.count(found, stamp, db, key, look)?;
        Some((entry, &mut self.rng))
    }

    /// A database, opened to store under a key or to remove it: for every change that is not made in place.
    #[inline]
    pub(super) fn open(&mut self, db: u16) -> &mut Database {
        self.keyspace.0.database_mut(usize::from(db))
    }

    /// Removes a key; a large value is freed later if `lazily`. True when the key existed.
    pub(super) fn remove(&mut self, db: u16, key: &Key<'_>, lazily: bool) -> bool {
        if lazily {
            self.open(db).unlink(key)
        } else {
            self.open(db).remove(key)
        }
    }

    /// Removes all keys of a database, and returns their number. Complexity: O(keys watched, waited for or tracked).
    pub(crate) fn flush(&mut self, db: u16, now_ms: i64, lazily: bool) -> u64 {
        let Self { keyspace, door, .. } = self;
        door.watches
            .emptied(db, |key| State::of(keyspace, db, key, now_ms));
        door.waiters.mark_all(db);
        door.invalidations.all_changed(door.invalidations.writer);
        self.own_volatile.forget_all(db);
        let before = self.keyspace.pending_objects();
        let removed = self.open(db).flush();
        if lazily {
            // Databases with few entries are freed at once instead of becoming pending objects, but count as freed.
            let waiting = self.keyspace.pending_objects() - before;
            self.door.figures.freed += (removed - waiting) as u64;
        } else {
            self.release_all();
        }
        removed as u64
    }

    /// Exchanges two databases. Complexity: O(keys watched or waited for).
    pub(crate) fn swap(&mut self, first: u16, second: u16, now_ms: i64) {
        let Self { keyspace, door, .. } = self;
        for (old, new) in [(first, second), (second, first)] {
            door.watches.replaced(old, |key| {
                let of = |db| State::of(keyspace, db, key, now_ms);
                (of(old), of(new))
            });
        }
        keyspace.0.swap(usize::from(first), usize::from(second));
        door.waiters.mark_all(first);
        door.waiters.mark_all(second);
        door.invalidations.all_changed(door.invalidations.writer);
        self.own_volatile.swap(first, second);
    }

    /// Stores a value out of a file under a key that does not exist yet; false, and nothing is stored, if it does. For
    /// partitions that nobody uses yet.
    pub(crate) fn load(
        &mut self,
        db: u16,
        key: &Key<'_>,
        value: Decoded<'_>,
        expiry: Option<i64>,
        clock: u32,
    ) -> bool {
        self.open(db).load(key, value, expiry, clock)
    }

    /// Removes a key that a file brings again. For partitions that nobody uses yet.
    pub(crate) fn unload(&mut self, db: u16, key: &Key<'_>) {
        self.open(db).remove(key);
    }

    /// A key, with its database, that a partition which nobody uses yet has as well.
    pub(crate) fn find_common(&self, loaded: &Self) -> Option<(u16, Vec<u8>)> {
        (0..self.keyspace.databases()).find_map(|db| {
            let (ours, mut common) = (self.keyspace.database(db), None);
            loaded.keyspace.database(db).for_each(|entry| {
                if common.is_none() && ours.peek(&self.keyspace.key(entry.key())).is_some() {
                    common = Some((db as u16, entry.key().to_vec()));
                }
            });
            common
        })
    }

    /// Adds all data of a partition that nobody uses yet, in the place of keys of the same names. Complexity: O(keys).
    pub(crate) fn merge(&mut self, loaded: Self, now_ms: i64) {
        self.tell_of(&loaded, now_ms);
        self.keyspace.0.merge(loaded.keyspace.0);
        self.memory_bytes += loaded.memory_bytes;
    }

    /// Replaces all data by that of a partition that nobody uses yet. What was here is freed later. No snapshot of it is under
    /// way, or it was given up. Complexity: O(keys watched or waited for).
    pub(crate) fn adopt(&mut self, loaded: Self, now_ms: i64) {
        self.tell_of(&loaded, now_ms);
        self.door.leaving.clear();
        self.forget_doomed();
        self.keyspace.0.give_up_snapshot();
        self.keyspace.0.adopt(loaded.keyspace.0);
        self.memory_bytes += loaded.memory_bytes;
        self.evictor = Evictor::new();
        self.own_volatile = OwnVolatile::default();
    }

    /// Informs those who watch or wait that the data of a partition comes which nobody uses yet.
    fn tell_of(&mut self, loaded: &Self, now_ms: i64) {
        let Self { keyspace, door, .. } = self;
        for db in 0..keyspace.databases() as u16 {
            door.watches.replaced(db, |key| {
                let of = |keyspace| State::of(keyspace, db, key, now_ms);
                (of(keyspace), of(&loaded.keyspace))
            });
            door.waiters.mark_all(db);
        }
        door.invalidations.all_changed(0);
    }

    /// Time at which the next key or field of a database expires, Unix milliseconds: in the past when it is overdue.
    #[inline]
    pub(crate) fn next_due(&mut self, db: u16, now_ms: i64) -> Option<i64> {
        // This only rearranges the calendar of expiry; no key changes.
        self.keyspace.0.database_mut(usize::from(db)).next_due(now_ms)
    }

    /// Removes expired keys of a database, about `budget` of them. Their effects are DEL, or UNLINK if `lazily`.
    pub(crate) fn expire_keys(
        &mut self,
        db: u16,
        budget: usize,
        now_ms: i64,
        lazily: bool,
        chosen: KeyspaceEvents,
    ) -> ExpireStats {
        let Self { keyspace, door, .. } = self;
        let database = keyspace.0.database_mut(usize::from(db));
        let cause = Cause::Expired { lazily };
        database.expire_cycle(now_ms, budget, |entry| {
            door.changed(db, entry.key(), cause, chosen);
        })
    }

    /// Looks at some keys that clients of a replica have written, and removes those that have expired.
    pub(crate) fn expire_own(&mut self, count: usize, now_ms: i64, lazily: bool, chosen: KeyspaceEvents) {
        for own in self.own_volatile.next(count) {
            let (db, name) = (own.0, &own.1);
            let Self { keyspace, door, .. } = self;
            let key = keyspace.key(name);
            let database = keyspace.0.database_mut(usize::from(db));
            match database.peek(&key) {
                Some(entry) if entry.expiry().is_some() => {
                    if !entry.is_expired(now_ms) || database.is_held_by_snapshot(&key) {
                        continue;
                    }
                    door.changed(db, name, Cause::Expired { lazily }, chosen);
                    if lazily {
                        database.unlink(&key);
                    } else {
                        database.remove(&key);
                    }
                }
                _ => {}
            }
            self.own_volatile.forget(&own);
        }
    }

    /// Removes expired fields of the hashes of a database, about `budget` of them.
    pub(crate) fn expire_fields(
        &mut self,
        db: u16,
        budget: usize,
        now_ms: i64,
        chosen: KeyspaceEvents,
    ) -> ExpireStats {
        let Self { keyspace, door, .. } = self;
        let database = keyspace.0.database_mut(usize::from(db));
        database.expire_fields(now_ms, budget, |key, event| {
            let cause = match event {
                FieldEvent::Field(name) => Cause::FieldExpired(name),
                FieldEvent::Key => Cause::LastFieldExpired,
            };
            door.changed(db, key, cause, chosen);
        })
    }

    /// Removes the key that the eviction policy chooses, unless a snapshot has to save it first. False when it finds none.
    pub(crate) fn evict(
        &mut self,
        options: EvictionOptions,
        now_ms: i64,
        lazily: bool,
        chosen: KeyspaceEvents,
    ) -> bool {
        let Some(victim) = self.evictor.pick(&self.keyspace, options, now_ms, &mut self.rng) else {
            return false;
        };
        let Self { keyspace, door, .. } = self;
        let key = keyspace.key(victim.key);
        if keyspace.0.database_mut(victim.database).is_held_by_snapshot(&key) {
            // There is something to evict, later or with the next choice.
            return true;
        }
        let cause = Cause::Evicted { lazily };
        door.changed(victim.database as u16, key.bytes, cause, chosen);
        let database = keyspace.0.database_mut(victim.database);
        if lazily {
            database.unlink(&key)
        } else {
            database.remove(&key)
        }
    }

    /// Deletes keys of a slot of the first database, so many at most; returns how many.
    pub(super) fn delete_in_slot(&mut self, slot: u16, max: usize, stamp: &Stamp) -> usize {
        let Self { keyspace, door, .. } = self;
        let database = keyspace.0.database_mut(0);
        let mut names: Vec<Box<[u8]>> = Vec::with_capacity(database.slot_len(slot).min(max));
        database.slot_keys(slot, max, |entry| names.push(entry.key().into()));
        let lazily = stamp.lazy_server_del;
        for name in &names {
            door.changed(0, name, Cause::Dropped { lazily }, stamp.events);
            let key = keyspace.0.key(name);
            let database = keyspace.0.database_mut(0);
            if lazily {
                database.unlink(&key);
            } else {
                database.remove(&key);
            }
        }
        names.len()
    }

    /// Begins its part of a snapshot. There is none under way.
    pub(crate) fn begin_snapshot(&mut self, snapshot: &Snapshot, writer: &dyn EntryWriter) {
        let lane = snapshot.lane(self.shard);
        self.snapshot = snapshot.number;
        self.seal = if snapshot.purpose.is_shutdown() {
            snapshot.number
        } else {
            0
        };
        let is_begun = self.keyspace.0.begin_snapshot(lane, writer);
        debug_assert!(is_begun, "one snapshot at a time");
    }

    /// Whether a command that changes data may have to wait.
    #[inline]
    pub(crate) fn may_hold_back(&self) -> bool {
        self.keyspace.has_snapshot() || self.is_sealed() || !self.door.leaving.is_empty()
    }

    /// Whether a command that changes a key has to wait: for a snapshot, or because the key is leaving for another node.
    pub(crate) fn holds_back(&mut self, reached: Reached, key: &Key<'_>) -> bool {
        self.door.leaving.contains(key.bytes) || self.waits_for_snapshot(reached, key)
    }

    /// Whether a command that changes a key has to wait for a snapshot, see [`Database::waits_for_snapshot`].
    fn waits_for_snapshot(&mut self, reached: Reached, key: &Key<'_>) -> bool {
        if !self.keyspace.has_snapshot() {
            return false;
        }
        match reached {
            Reached::One(db) => self.open(db).waits_for_snapshot(key),
            Reached::All => {
                (0..self.keyspace.databases() as u16).any(|db| self.open(db).waits_for_snapshot(key))
            }
        }
    }

    /// Goes on with its part of a snapshot, like [`Keyspace::save_some`].
    pub(crate) fn save_some(&mut self, budget: usize, take: impl FnMut(Saved)) -> Progress {
        self.keyspace.0.save_some(budget, take)
    }

    /// Gives its part of a snapshot up. [`save_some`](Self::save_some) is to be called until that is done.
    pub(crate) fn give_up_snapshot(&mut self) {
        self.keyspace.0.give_up_snapshot();
    }

    /// Frees garbage worth about `budget` small entries, in the background; returns what is left, like
    /// [`Keyspace::release`].
    pub(crate) fn release(&mut self, budget: usize) -> usize {
        let before = self.keyspace.pending_objects();
        let left = self.keyspace.0.release(budget);
        self.door.figures.freed += (before - self.keyspace.pending_objects()) as u64;
        left
    }

    /// Frees all garbage at once.
    pub(crate) fn release_all(&mut self) {
        while self.keyspace.0.release(RELEASE_AT_ONCE) > 0 {}
    }
}

/// Databases that a command may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// The database of its client.
    One(u16),
    /// Any: it names another one, or is a transaction in which the client chooses one.
    All,
}

/// State of a key, as a watcher sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is no such key.
    Missing,
    /// The key has expired, but is still stored.
    Stale,
    /// The key holds a value.
    Live,
}

impl State {
    /// The state of a key at `now_ms`.
    pub(super) fn of(keyspace: &Keyspace, db: u16, key: &[u8], now_ms: i64) -> Self {
        match keyspace.database(usize::from(db)).peek(&keyspace.key(key)) {
            None => Self::Missing,
            Some(entry) if entry.is_expired(now_ms) => Self::Stale,
            Some(_) => Self::Live,
        }
    }
}
