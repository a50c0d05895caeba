//! [`View`]: the databases that a command may touch, in one partition or in several that it holds.

mod collection;

use rand::rngs::SmallRng;
use shardis_storage::entry::Entry;
use shardis_storage::key::{Key, KeyHasher};
use shardis_storage::keyspace::eviction::lfu::{self, LfuOptions};
use shardis_storage::keyspace::{Database, Expiry, OnExpired};
use shardis_storage::memory::Buffer;
use shardis_storage::value::{Owned, StringRef};

use super::change::{Cause, Look};
use super::context::NewString;
use super::effect::Effects;
pub(crate) use super::held::{Held, Lent};
use super::partition::Partition;
use crate::config::KeyspaceEvents;
use crate::config::Settings;
use crate::error::ReplyError;
use crate::hashing::Hashing;
use crate::state::Node;

/// The time and the rules of access that all commands of a turn share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    /// Unix time in milliseconds. Keys and fields expire by it.
    pub(crate) now_ms: i64,
    /// Unix time in milliseconds, too. Only while commands are loaded from a file the two differ: whatever these changed had
    /// not expired when they ran.
    pub(crate) wall_ms: i64,
    /// Access clock for entries that are created or touched now.
    pub(crate) clock: u32,
    /// Options of LFU, if the policy is LFU: the access clock then counts uses instead of storing the time of the
    /// last one.
    pub(crate) lfu: Option<LfuOptions>,
    /// Treatment of expired keys that a look-up finds: they are kept while writes are paused and on replicas.
    pub(crate) on_expired: OnExpired,
    /// Keyspace events that somebody listens to; none while no kind of channel is chosen.
    pub(crate) events: KeyspaceEvents,
    /// Clients write to a replica: the keys that they write may have to expire here.
    pub(crate) notes_own_keys: bool,
    /// `lazyfree-lazy-server-del`: values that are overwritten, or renamed over, are freed later.
    pub(crate) lazy_server_del: bool,
    /// `lazyfree-lazy-user-del`: DEL behaves like UNLINK.
    pub(crate) lazy_user_del: bool,
    /// `lazyfree-lazy-user-flush`: FLUSHALL and FLUSHDB free later by default.
    pub(crate) lazy_user_flush: bool,
}

impl Stamp {
    /// The stamp of a node at `now_ms`, from its settings, its role and the state of CLIENT PAUSE.
    pub(crate) fn on(node: &Node, settings: &Settings, now_ms: i64) -> Self {
        // The primary decides when a key of its replica is gone.
        let following = &node.replication.following;
        let keeps_expired = following.leaves_removals() || node.pause.active(now_ms).is_some();
        Self {
            notes_own_keys: following.is_replica() && !settings.replica_read_only,
            ..Self::new(settings, now_ms, keeps_expired)
        }
    }

    /// The stamp of commands that begin now, in a turn that began with this one. Where expired keys were kept, the node may have become
    /// a primary since, or a pause may have ended: a write that was admitted after that has to remove the expired key that it finds, or
    /// its replicas would apply the write to what they still have of that key.
    #[inline]
    pub(crate) fn renewed(self, node: &Node, settings: &Settings) -> Self {
        if self.on_expired == OnExpired::Keep && !self.is_of_repetition() {
            Self::on(node, settings, self.now_ms)
        } else {
            self
        }
    }

    /// The stamp at `now_ms`, from these settings. Expired keys that a look-up finds are kept if `keeps_expired`.
    pub(crate) fn new(settings: &Settings, now_ms: i64, keeps_expired: bool) -> Self {
        let policy = settings.maxmemory_policy.policy();
        Self {
            now_ms,
            wall_ms: now_ms,
            clock: policy.new_clock(now_ms),
            lfu: policy.is_lfu().then_some(LfuOptions {
                log_factor: settings.lfu_log_factor,
                decay_minutes: settings.lfu_decay_time,
            }),
            on_expired: match (keeps_expired, settings.lazyfree_lazy_expire) {
                (true, _) => OnExpired::Keep,
                (false, true) => OnExpired::Unlink,
                (false, false) => OnExpired::Remove,
            },
            events: if settings.notify_keyspace_events.any_channel() {
                settings.notify_keyspace_events
            } else {
                KeyspaceEvents::default()
            },
            notes_own_keys: false,
            lazy_server_del: settings.lazyfree_lazy_server_del,
            lazy_user_del: settings.lazyfree_lazy_user_del,
            lazy_user_flush: settings.lazyfree_lazy_user_flush,
        }
    }

    /// Whether this is the stamp of commands that run at a time, in Unix milliseconds.
    pub(crate) fn is_at(&self, now_ms: i64) -> bool {
        self.now_ms == now_ms && self.wall_ms == now_ms
    }

    /// The same rules at another time.
    pub(crate) fn at(&self, now_ms: i64, settings: &Settings) -> Self {
        let clock = settings.maxmemory_policy.policy().new_clock(now_ms);
        Self {
            now_ms,
            wall_ms: now_ms,
            clock,
            ..*self
        }
    }

    /// The same rules for commands that are loaded from a file: nothing has expired, and nobody is told.
    pub(crate) fn of_loading(self) -> Self {
        Self {
            now_ms: 0,
            on_expired: OnExpired::Keep,
            events: KeyspaceEvents::default(),
            ..self
        }
    }

    /// The same rules for commands of the primary: whatever it did not remove has not expired.
    pub(crate) fn of_primary(self) -> Self {
        Self {
            now_ms: 0,
            on_expired: OnExpired::Keep,
            notes_own_keys: false,
            ..self
        }
    }

    /// Whether the commands have run before, elsewhere: they are obeyed also where a client would be refused.
    #[inline]
    pub(crate) fn is_of_repetition(&self) -> bool {
        self.now_ms != self.wall_ms
    }

    /// The access clock of an entry after a use.
    #[inline]
    pub(super) fn touched(&self, clock: u32, rng: &mut SmallRng) -> u32 {
        match self.lfu {
            None => self.clock,
            Some(options) => lfu::touch(clock, self.wall_ms, options, rng),
        }
    }
}

/// Message of the panic when a command does not hold a partition that it needs.
const LENT: &str = "the shards of all that a command names are lent to it";

/// The databases that a command may touch, as seen from one client.
pub(crate) struct View<'a> {
    held: Held<'a>,
    /// Time and rules of access.
    pub(crate) stamp: &'a Stamp,
    /// The client's selected database.
    pub(crate) db: u16,
    /// CLIENT NO-TOUCH: access clocks are not updated.
    pub(crate) no_touch: bool,
    hashing: Hashing,
}

impl<'a> View<'a> {
    /// A view of the partitions held.
    pub(crate) fn new(held: Held<'a>, hashing: Hashing, stamp: &'a Stamp, db: u16) -> Self {
        Self {
            held,
            stamp,
            db,
            no_touch: false,
            hashing,
        }
    }

    /// The partition that owns a slot, for work that allocates nothing in it.
    ///
    /// # Panics
    /// When the partition is not held: routing and handler then disagree on the keys of a command.
    #[inline]
    pub(crate) fn partition(&mut self, slot: u16) -> &mut Partition {
        self.held.beside(slot).expect(LENT)
    }

    /// Whether the partition of a shard is held.
    pub(crate) fn holds(&self, shard: usize) -> bool {
        self.held.holds(shard)
    }

    /// The partition of a shard, for work that allocates nothing in it.
    ///
    /// # Panics
    /// When the partition is not held.
    pub(crate) fn shard(&mut self, shard: usize) -> &mut Partition {
        self.held.beside_shard(|_| shard).expect(LENT)
    }

    /// Calls `act` on the partition of a key, and books to the partition what that allocates.
    #[inline]
    fn with<T>(&mut self, key: &Key<'_>, act: impl FnOnce(&mut Partition) -> T) -> T {
        let (partition, account) = self.held.split(key.slot).expect(LENT);
        let result = act(partition);
        if let Some(account) = account {
            account.turn_to(None);
        }
        result
    }

    /// Calls `act` on the client's database in the partition of a key, opened for changes.
    #[inline]
    fn change<T>(&mut self, key: &Key<'_>, act: impl FnOnce(&mut Database) -> T) -> T {
        let db = self.db;
        self.with(key, |partition| act(partition.open(db)))
    }

    /// The partition of a key, for a change in place: what is allocated from here on is booked to it until the
    /// command turns to another partition.
    #[inline]
    fn turn_to(&mut self, key: &Key<'_>) -> &mut Partition {
        self.held.find(key.slot).expect(LENT)
    }

    /// Calls `act` with another database selected.
    pub(crate) fn in_database<T>(&mut self, db: u16, act: impl FnOnce(&mut Self) -> T) -> T {
        let selected = std::mem::replace(&mut self.db, db);
        let result = act(self);
        self.db = selected;
        result
    }

    /// The hasher of keys, members and fields.
    #[inline]
    pub(crate) fn hasher(&self) -> KeyHasher {
        self.hashing.hasher()
    }

    /// The partitions held.
    pub(crate) fn held(&mut self) -> &mut Held<'a> {
        &mut self.held
    }

    /// A key with its hash and slot. Complexity: O(its length).
    pub(crate) fn key<'k>(&self, bytes: &'k [u8]) -> Key<'k> {
        self.hashing.key(bytes)
    }

    /// The client's database in the partition of a key, for reading.
    #[inline]
    pub(crate) fn database(&self, key: &Key<'_>) -> &Database {
        let partition = self.held.peek(key.slot).expect(LENT);
        partition.keyspace.database(usize::from(self.db))
    }

    /// Looks a key up for reading: counts a hit or miss, hides and removes an expired key, updates the access clock.
    #[inline]
    pub(crate) fn read(&mut self, key: &Key<'_>) -> Option<&Entry> {
        let touches = !self.no_touch;
        self.look_up(
            key,
            Look {
                counts: true,
                tells: true,
                touches,
            },
        )
    }

    /// Looks a key up for a question about it rather than for its value: like [`read`](Self::read), but not an
    /// access.
    #[inline]
    pub(crate) fn inspect(&mut self, key: &Key<'_>) -> Option<&Entry> {
        self.look_up(
            key,
            Look {
                counts: true,
                tells: true,
                touches: false,
            },
        )
    }

    /// Looks a key up to describe how it is stored: like [`inspect`](Self::inspect), but a miss raises no event.
    pub(crate) fn describe(&mut self, key: &Key<'_>) -> Option<&Entry> {
        self.look_up(
            key,
            Look {
                counts: true,
                tells: false,
                touches: false,
            },
        )
    }

    /// The entry of a key as it is stored, even if it has expired.
    pub(crate) fn stored(&self, key: &Key<'_>) -> Option<&Entry> {
        self.database(key).peek(key)
    }

    /// Looks a key up for changing it: like [`read`](Self::read), but neither a hit nor a miss.
    #[inline]
    pub(crate) fn write(&mut self, key: &Key<'_>) -> Option<&Entry> {
        let touches = !self.no_touch;
        self.look_up(
            key,
            Look {
                counts: false,
                tells: false,
                touches,
            },
        )
    }

    /// Looks a key up like [`write`](Self::write), for changing its value in place.
    #[inline]
    pub(crate) fn write_entry(&mut self, key: &Key<'_>) -> Option<&mut Entry> {
        let look = Look {
            counts: false,
            tells: false,
            touches: !self.no_touch,
        };
        let (stamp, db) = (self.stamp, self.db);
        let found = self.turn_to(key).look_up_to_change(stamp, db, key, look);
        found.map(|(entry, _)| entry)
    }

    /// Looks a key up without a trace of the access, but hides and removes an expired key.
    pub(crate) fn peek(&mut self, key: &Key<'_>) -> Option<&Entry> {
        self.look_up(
            key,
            Look {
                counts: false,
                tells: false,
                touches: false,
            },
        )
    }

    #[inline]
    fn look_up(&mut self, key: &Key<'_>, look: Look) -> Option<&Entry> {
        self.look_up_with_rng(key, look).map(|(entry, _)| entry)
    }

    #[inline]
    fn look_up_with_rng(&mut self, key: &Key<'_>, look: Look) -> Option<(&Entry, &mut SmallRng)> {
        let (stamp, db) = (self.stamp, self.db);
        let (partition, account) = self.held.split(key.slot).expect(LENT);
        let found = partition.look_up(stamp, db, key, look);
        if let Some(account) = account {
            account.turn_to(None);
        }
        found
    }

    /// Looks a string up for reading; see [`read`](Self::read).
    ///
    /// # Errors
    /// [`ReplyError::WrongType`] when the key holds something else.
    #[inline]
    pub(crate) fn read_string(&mut self, key: &Key<'_>) -> Result<Option<StringRef<'_>>, ReplyError> {
        self.read(key)
            .map(|entry| entry.string().ok_or(ReplyError::WrongType))
            .transpose()
    }

    /// Looks a string up for changing it; see [`write`](Self::write).
    ///
    /// # Errors
    /// [`ReplyError::WrongType`] when the key holds something else.
    #[inline]
    pub(crate) fn write_string(&mut self, key: &Key<'_>) -> Result<Option<StringRef<'_>>, ReplyError> {
        self.write(key)
            .map(|entry| entry.string().ok_or(ReplyError::WrongType))
            .transpose()
    }

    /// The entry of a key that this command has looked up before and found live. Several can be held at a time.
    ///
    /// # Panics
    /// When the partition is not held; see [`partition`](Self::partition).
    pub(crate) fn found(&self, key: &Key<'_>) -> Option<&Entry> {
        self.database(key).peek(key)
    }

    /// Prefetches the entries of several keys, before the keys are looked up one after another.
    pub(crate) fn prefetch<'k>(&mut self, keys: impl Iterator<Item = &'k Key<'k>> + Clone) {
        for key in keys.clone() {
            self.database(key).prefetch_bucket(key.hash, key.slot);
        }
        for key in keys {
            self.database(key).prefetch_entry(key.hash, key.slot);
        }
    }

    /// Announces that a command changed a key, which counts as one change to the dataset.
    #[inline]
    pub(crate) fn modified(&mut self, key: &Key<'_>, effects: &mut Effects) {
        effects.changed(1);
        self.signal(key);
    }

    /// Announces that a command changed a key, without counting a change to the dataset.
    #[inline]
    pub(crate) fn signal(&mut self, key: &Key<'_>) {
        self.pass(key, Cause::Command);
    }

    /// Announces a change of a key with this cause.
    #[inline]
    pub(crate) fn pass(&mut self, key: &Key<'_>, cause: Cause<'_>) {
        let db = self.db;
        self.partition(key.slot).changed(db, key.bytes, cause);
        if self.stamp.notes_own_keys {
            self.with(key, |partition| partition.own_volatile.note(db, key.bytes));
        }
    }

    /// Raises a keyspace event. Costs one check of the settings where nobody listens.
    #[inline]
    pub(crate) fn notify(&mut self, class: KeyspaceEvents, name: &'static str, key: &Key<'_>) {
        if self.stamp.events.contains(class) {
            let db = self.db;
            self.partition(key.slot).tell(db, name, key.bytes);
        }
    }

    /// Raises the event `new` if the key does not exist yet and is about to be created.
    #[inline]
    pub(crate) fn notify_if_new(&mut self, key: &Key<'_>) {
        if self.stamp.events.contains(KeyspaceEvents::NEW_KEY) && self.found(key).is_none() {
            self.notify(KeyspaceEvents::NEW_KEY, "new", key);
        }
    }

    /// Prepares a key for a value that replaces whatever it holds: an expired value is removed first, which is
    /// announced, so that the new value does not inherit its expiry; a new key raises the event `new`.
    #[inline]
    pub(crate) fn make_way(&mut self, key: &Key<'_>) {
        if self.database(key).volatile_len() > 0 {
            self.peek(key);
        }
        self.notify_if_new(key);
    }

    /// Stores a string under a key, replacing any value.
    #[inline]
    pub(crate) fn set_string(&mut self, key: &Key<'_>, value: NewString<'_>, expiry: Expiry) {
        self.make_way(key);
        let stamp = self.stamp;
        if let NewString::Adopted(buffer) = &value {
            self.held.carry(key.slot, buffer.capacity() as i64);
        }
        self.change(key, |database| {
            let entry = match value {
                NewString::Bytes(bytes) => database.set_string(key, bytes, expiry, stamp.clock),
                NewString::Adopted(buffer) => database.set_buffer(key, buffer, expiry, stamp.clock),
            };
            // With LRU a new value is as recent as a new key; with LFU the key's count of uses stays.
            if stamp.lfu.is_none() {
                entry.set_clock(stamp.clock);
            }
        });
    }

    /// Stores a string that stays in bytes even if it spells an integer.
    pub(crate) fn set_text(&mut self, key: &Key<'_>, bytes: &[u8], expiry: Expiry) {
        self.make_way(key);
        let clock = self.stamp.clock;
        self.change(key, |database| {
            database.set_text(key, bytes, expiry, clock);
        });
    }

    /// Stores bytes with encoding `raw`, however short, as a change in place leaves them. The expiry stays.
    pub(crate) fn set_raw(&mut self, key: &Key<'_>, bytes: &[u8]) {
        self.make_way(key);
        let clock = self.stamp.clock;
        self.change(key, |database| {
            database.set_raw(key, bytes, Expiry::Keep, clock);
        });
    }

    /// Stores the bytes of a buffer.
    pub(crate) fn set_buffer(&mut self, key: &Key<'_>, buffer: Buffer, expiry: Expiry) {
        self.make_way(key);
        let clock = self.stamp.clock;
        self.held.carry(key.slot, buffer.capacity() as i64);
        self.change(key, |database| {
            database.set_buffer(key, buffer, expiry, clock);
        });
    }

    /// Stores an integer as a string.
    #[inline]
    pub(crate) fn set_integer(&mut self, key: &Key<'_>, value: i64, expiry: Expiry) {
        self.make_way(key);
        let clock = self.stamp.clock;
        self.change(key, |database| {
            database.set_integer(key, value, expiry, clock);
        });
    }

    /// The bytes of the string under a key, made raw and at least `len` long; see [`Database::string_mut`].
    pub(crate) fn string_mut(&mut self, key: &Key<'_>, len: usize) -> &mut [u8] {
        self.make_way(key);
        let (db, clock) = (self.db, self.stamp.clock);
        self.turn_to(key).open(db).string_mut(key, len, clock)
    }

    /// Removes a key, freeing a large value later when `lazily`. True when it was there.
    pub(crate) fn remove(&mut self, key: &Key<'_>, lazily: bool) -> bool {
        let db = self.db;
        self.with(key, |partition| partition.remove(db, key, lazily))
    }

    /// Sets or clears the expiry of a key, Unix milliseconds.
    pub(crate) fn set_expiry(&mut self, key: &Key<'_>, at_ms: Option<i64>) {
        self.change(key, |database| database.set_expiry(key, at_ms));
    }

    /// Takes a value from its key, to be put under another.
    pub(crate) fn take(&mut self, key: &Key<'_>) -> Option<Owned> {
        let value = self.change(key, |database| database.take(key))?;
        self.held.carry(key.slot, -(value.entry().memory() as i64));
        Some(value)
    }

    /// Copies the value of a key, to be put under another. Complexity: O(size).
    pub(crate) fn duplicate(&mut self, key: &Key<'_>) -> Option<Owned> {
        self.held.turn_away();
        self.database(key).duplicate(key)
    }

    /// Calls `make` to make a value that is not stored yet: its memory is in hand until [`put`](Self::put) stores it.
    pub(crate) fn in_hand<T>(&mut self, make: impl FnOnce() -> T) -> T {
        self.held.turn_away();
        make()
    }

    /// Puts a value under a key that does not exist, with this access clock.
    pub(crate) fn put(&mut self, key: &Key<'_>, value: Owned, clock: u32) {
        self.notify_if_new(key);
        self.held.carry(key.slot, value.entry().memory() as i64);
        self.change(key, |database| {
            database.insert(key, value, clock);
        });
    }
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("db", &self.db)
            .finish_non_exhaustive()
    }
}
