//! The door of changes: whatever alters a key passes here, be it a command, the end of its time, or want of memory.
//!
//! [`Door::changed`] is the one function that knows database, key and cause. Whoever watches a key, waits for it, or listens
//! to what happens to it hangs there; so do the effects of what no command asked for. The keyspace itself is [`Guarded`]:
//! others may look at it, and only this module opens it for changes, a look-up for reading never gives a value to change.

use std::ops::Deref;

use rand::rngs::SmallRng;
use shardis_storage::entry::Entry;
use shardis_storage::key::Key;
use shardis_storage::keyspace::eviction::EvictionOptions;
use shardis_storage::keyspace::{
    Database, ExpireStats, FieldEvent, Keyspace, KeyspaceOptions, Lookup, OnExpired,
};
use shardis_storage::value::{INT_TEXT_MAX, StringRef};

use super::effect::Effect;
use super::event::{EventSink, tell};
use super::partition::{Figures, Partition};
use super::view::Stamp;
use super::waiter::Waiters;
use super::watch::Watches;
use crate::config::KeyspaceEvents;

/// Why a key changes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cause<'a> {
    /// A command wrote or removed it.
    Command,
    /// A command changed something beside its value: a consumer group. Who watches the key is not concerned.
    Group,
    /// Its time was over; its value is freed later if `lazily`.
    Expired {
        /// Whether it is unlinked rather than deleted.
        lazily: bool,
    },
    /// The time of this field of a hash was over.
    FieldExpired(StringRef<'a>),
    /// The last field of a hash went with its time, and the key with it.
    LastFieldExpired,
    /// It had to make room; its value is freed later if `lazily`.
    Evicted {
        /// Whether it is unlinked rather than deleted.
        lazily: bool,
    },
}

/// The keyspace of a partition: anybody may look at it, and only the door opens it.
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

    /// The keyspace, to be filled by a test.
    #[cfg(test)]
    pub(crate) fn open(&mut self) -> &mut Keyspace {
        &mut self.0
    }
}

/// Those of a partition's parts that learn of changes.
pub(super) struct Door<'a> {
    watches: &'a mut Watches,
    waiters: &'a mut Waiters,
    figures: &'a mut Figures,
    /// What replicas must be told of what no command asked for; none when nobody listens.
    removals: Option<&'a mut Vec<Effect>>,
    events: Option<&'a EventSink>,
    /// Events that are listened to.
    chosen: KeyspaceEvents,
}

impl Door<'_> {
    /// Makes known that a key changes. The value is changed just before or just after.
    fn changed(&mut self, db: u16, key: &[u8], cause: Cause<'_>) {
        match cause {
            Cause::Group => {}
            Cause::Expired { .. } => self.watches.expired(db, key),
            _ => self.watches.touch(db, key),
        }
        self.waiters.mark(db, key);
        match cause {
            Cause::Command | Cause::Group => {}
            Cause::Expired { lazily } => {
                self.figures.expired += 1;
                self.tell(KeyspaceEvents::EXPIRED, db, "expired", key);
                self.repeat_removal(db, key, lazily);
            }
            Cause::Evicted { lazily } => {
                self.figures.evicted += 1;
                self.tell(KeyspaceEvents::EVICTED, db, "evicted", key);
                self.repeat_removal(db, key, lazily);
            }
            Cause::FieldExpired(field) => {
                self.figures.expired_fields += 1;
                self.tell(KeyspaceEvents::HASH, db, "hexpired", key);
                self.repeat(db, || {
                    let field = field.as_bytes(&mut [0; INT_TEXT_MAX]).to_vec();
                    vec![b"HDEL".to_vec(), key.to_vec(), field]
                });
            }
            // HDEL of that field removes the key there as well.
            Cause::LastFieldExpired => self.tell(KeyspaceEvents::GENERIC, db, "del", key),
        }
    }

    fn tell(&self, class: KeyspaceEvents, db: u16, name: &'static str, key: &[u8]) {
        if self.chosen.contains(class) {
            tell(self.events, db, name, key);
        }
    }

    fn repeat_removal(&mut self, db: u16, key: &[u8], lazily: bool) {
        self.repeat(db, || {
            let name: &[u8] = if lazily { b"UNLINK" } else { b"DEL" };
            vec![name.to_vec(), key.to_vec()]
        });
    }

    fn repeat(&mut self, db: u16, words: impl FnOnce() -> Vec<Vec<u8>>) {
        if let Some(removals) = &mut self.removals {
            removals.push(Effect { db, words: words() });
        }
    }
}

/// What a look-up leaves behind.
#[derive(Clone, Copy)]
pub(super) struct Look {
    /// It is a hit or a miss.
    pub(super) counts: bool,
    /// A miss is an event too.
    pub(super) tells: bool,
    /// It is an access.
    pub(super) touches: bool,
}

/// Takes a partition apart: its keyspace to change, and the door that learns of it.
macro_rules! open {
    ($partition:ident, $chosen:expr) => {{
        let Partition {
            keyspace: Guarded(keyspace),
            watches,
            waiters,
            figures,
            removals,
            journal,
            events,
            ..
        } = $partition;
        let door = Door {
            watches,
            waiters,
            figures,
            removals: journal.is_some().then_some(removals),
            events: events.as_ref(),
            chosen: $chosen,
        };
        (keyspace, door)
    }};
}

/// Looks a key up by one of the two look-ups of a database, and makes known what it comes across. The door is built only
/// when there is something to tell.
macro_rules! look_up {
    ($by:ident, $partition:ident, $stamp:ident, $db:ident, $key:ident, $look:ident) => {{
        let Partition {
            keyspace: Guarded(keyspace),
            watches,
            waiters,
            figures,
            removals,
            journal,
            events,
            rng,
            ..
        } = $partition;
        let touch = |clock| {
            if $look.touches {
                $stamp.touched(clock, rng)
            } else {
                clock
            }
        };
        let expire = |entry: &Entry| {
            let door = Door {
                watches,
                waiters,
                figures,
                removals: journal.is_some().then_some(removals),
                events: events.as_ref(),
                chosen: $stamp.events,
            };
            door.expires($db, entry.key(), $stamp.on_expired)
        };
        let database = keyspace.database_mut(usize::from($db));
        match database.$by($key, $stamp.now_ms, touch, expire) {
            Lookup::Live(entry) => {
                figures.hits += u64::from($look.counts);
                Some((entry, rng))
            }
            Lookup::Missing | Lookup::Expired => {
                if $look.counts {
                    figures.misses += 1;
                    if $look.tells && $stamp.events.contains(KeyspaceEvents::KEY_MISS) {
                        tell(events.as_ref(), $db, "keymiss", $key.bytes);
                    }
                }
                None
            }
        }
    }};
}

impl Door<'_> {
    /// A look-up has come across a key whose time is over: makes known that it goes, if it does.
    #[cold]
    fn expires(mut self, db: u16, key: &[u8], on_expired: OnExpired) -> OnExpired {
        if on_expired != OnExpired::Keep {
            let lazily = on_expired == OnExpired::Unlink;
            self.changed(db, key, Cause::Expired { lazily });
        }
        on_expired
    }
}

/// What is freed at a time, in small entries, when all is to be freed at once.
const RELEASE_AT_ONCE: usize = 1 << 16;

impl Partition {
    /// Makes known that a command changed a key. Where nobody watches or waits it costs a branch or two.
    #[inline]
    pub(super) fn changed(&mut self, db: u16, key: &[u8], cause: Cause<'_>) {
        if !self.watches.is_empty() || !self.waiters.is_empty() {
            let (_, mut door) = open!(self, KeyspaceEvents::default());
            door.changed(db, key, cause);
        }
    }

    /// Looks a key up for reading; the value cannot be changed through what it gives.
    #[inline]
    pub(super) fn look_up(
        &mut self,
        stamp: &Stamp,
        db: u16,
        key: &Key<'_>,
        look: Look,
    ) -> Option<(&Entry, &mut SmallRng)> {
        look_up!(lookup, self, stamp, db, key, look)
    }

    /// Looks a key up for changing its value where it stands.
    #[inline]
    pub(super) fn look_up_to_change(
        &mut self,
        stamp: &Stamp,
        db: u16,
        key: &Key<'_>,
        look: Look,
    ) -> Option<(&mut Entry, &mut SmallRng)> {
        look_up!(lookup_mut, self, stamp, db, key, look)
    }

    /// A database, to store something under a key or remove what is there: every change that is not made where the value
    /// stands.
    #[inline]
    pub(super) fn open(&mut self, db: u16) -> &mut Database {
        self.keyspace.0.database_mut(usize::from(db))
    }

    /// Removes a key, freeing a large value later if `lazily`. True when it was there.
    pub(super) fn remove(&mut self, db: u16, key: &Key<'_>, lazily: bool) -> bool {
        if lazily {
            self.open(db).unlink(key)
        } else {
            self.open(db).remove(key)
        }
    }

    /// Removes all keys of a database, and returns how many there were. Complexity: O(keys watched or waited for).
    pub(crate) fn flush(&mut self, db: u16, now_ms: i64, lazily: bool) -> u64 {
        let Self {
            keyspace, watches, ..
        } = self;
        watches.emptied(db, |key| State::of(keyspace, db, key, now_ms));
        self.waiters.mark_all(db);
        let before = self.keyspace.pending_objects();
        let removed = self.open(db).flush();
        if lazily {
            // Few entries are freed on the spot: they do not wait, but count.
            let waiting = self.keyspace.pending_objects() - before;
            self.figures.freed += (removed - waiting) as u64;
        } else {
            self.release_all();
        }
        removed as u64
    }

    /// Exchanges two databases. Complexity: O(keys watched or waited for).
    pub(crate) fn swap(&mut self, first: u16, second: u16, now_ms: i64) {
        let Self {
            keyspace, watches, ..
        } = self;
        for (old, new) in [(first, second), (second, first)] {
            watches.replaced(old, |key| {
                let of = |db| State::of(keyspace, db, key, now_ms);
                (of(old), of(new))
            });
        }
        self.keyspace.0.swap(usize::from(first), usize::from(second));
        self.waiters.mark_all(first);
        self.waiters.mark_all(second);
    }

    /// When something in a database is next to go because of its time, Unix milliseconds: in the past when it is due.
    #[inline]
    pub(crate) fn next_due(&mut self, db: u16, now_ms: i64) -> Option<i64> {
        // Nothing changes but how what expires is arranged.
        self.keyspace.0.database_mut(usize::from(db)).next_due(now_ms)
    }

    /// Removes keys of a database whose time is over, about `budget` of them. Those who repeat it are told to free large
    /// values later if `lazily`.
    pub(crate) fn expire_keys(
        &mut self,
        db: u16,
        budget: usize,
        now_ms: i64,
        lazily: bool,
        chosen: KeyspaceEvents,
    ) -> ExpireStats {
        let (keyspace, mut door) = open!(self, chosen);
        let cause = Cause::Expired { lazily };
        keyspace
            .database_mut(usize::from(db))
            .expire_cycle(now_ms, budget, |entry| door.changed(db, entry.key(), cause))
    }

    /// Removes fields of the hashes of a database whose time is over, about `budget` of them.
    pub(crate) fn expire_fields(
        &mut self,
        db: u16,
        budget: usize,
        now_ms: i64,
        chosen: KeyspaceEvents,
    ) -> ExpireStats {
        let (keyspace, mut door) = open!(self, chosen);
        let database = keyspace.database_mut(usize::from(db));
        database.expire_fields(now_ms, budget, |key, event| {
            let cause = match event {
                FieldEvent::Field(name) => Cause::FieldExpired(name),
                FieldEvent::Key => Cause::LastFieldExpired,
            };
            door.changed(db, key, cause);
        })
    }

    /// Removes the key that the policy gives up first. False when it finds none.
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
        let (keyspace, mut door) = open!(self, chosen);
        let key = keyspace.key(victim.key);
        door.changed(victim.database as u16, key.bytes, Cause::Evicted { lazily });
        let database = keyspace.database_mut(victim.database);
        if lazily {
            database.unlink(&key)
        } else {
            database.remove(&key)
        }
    }

    /// Frees garbage to the value of about `budget` small entries, in the background; returns what is left, as
    /// [`Keyspace::release`].
    pub(crate) fn release(&mut self, budget: usize) -> usize {
        let before = self.keyspace.pending_objects();
        let left = self.keyspace.0.release(budget);
        self.figures.freed += (before - self.keyspace.pending_objects()) as u64;
        left
    }

    /// Frees all garbage at once.
    pub(crate) fn release_all(&mut self) {
        while self.keyspace.0.release(RELEASE_AT_ONCE) > 0 {}
    }
}

/// What stands under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Missing,
    /// Something whose time is over.
    Stale,
    /// A value.
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
