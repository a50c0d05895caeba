//! One database: keys with their values and expiries.
//!
//! All functions are O(1) on average beyond the bytes they copy, unless they say otherwise.

use std::fmt;

use rand::rngs::SmallRng;

use super::expiry::Expiry;
use super::store::{Layout, Occupied, Store};
use crate::entry::{Entry, EntryBox, NewValue};
use crate::key::{Key, KeyHasher};
use crate::memory::Buffer;
use crate::rdb::Decoded;
use crate::release::Garbage;
use crate::table::{Ahead, TableStats};
use crate::value::{Collection, CollectionRef, InPlace, Owned, StringRef};

/// Result of a look-up: an entry to read, or one to change.
#[derive(Debug)]
pub enum Lookup<E> {
    /// No such key.
    Missing,
    /// The key has expired. [`OnExpired`] says whether it still exists.
    Expired,
    /// The key is there.
    Live(E),
}

/// Treatment of an expired key that a look-up finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExpired {
    /// The key stays: on a replica, or while writes are paused.
    Keep,
    /// The key is removed, and replicas free its value at once.
    Remove,
    /// The key is removed, and replicas free a large value later.
    Unlink,
}

/// One database.
pub struct Database {
    pub(super) store: Store,
    pub(super) garbage: Garbage,
    /// Removed keys of which a snapshot has not saved all yet.
    pub(super) unsaved: Vec<Store>,
    pub(super) slot_of: fn(&[u8]) -> u16,
}

impl Database {
    pub(super) fn new(layout: Layout, hasher: KeyHasher, slot_of: fn(&[u8]) -> u16) -> Self {
        let store = Store::new(layout, hasher);
        Self {
            store,
            garbage: Garbage::default(),
            unsaved: Vec::new(),
            slot_of,
        }
    }

    /// Number of keys, expired ones that are still here among them.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there are no keys.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of keys with an expiry.
    #[inline]
    #[must_use]
    pub fn volatile_len(&self) -> usize {
        self.store.volatile_len()
    }

    /// A key with its hash and slot, for where these are not known yet.
    #[inline]
    pub(super) fn key<'k>(&self, bytes: &'k [u8]) -> Key<'k> {
        self.store.hasher().key(bytes, (self.slot_of)(bytes))
    }

    /// Looks a key up for reading. `touch` gets the access clock of an existing key and returns the new one; `expire`
    /// gets the entry of an expired key before it is removed, and returns how to treat it. One probe.
    #[inline]
    pub fn look_up(
        &mut self,
        key: &Key<'_>,
        now_ms: i64,
        touch: impl FnOnce(u32) -> u32,
        expire: impl FnOnce(&Entry) -> OnExpired,
    ) -> Lookup<&Entry> {
        match self.look(key, now_ms, touch, expire) {
            Lookup::Missing => Lookup::Missing,
            Lookup::Expired => Lookup::Expired,
            Lookup::Live(found) => Lookup::Live(found.into_ref()),
        }
    }

    /// Looks a key up for changing its value in place; otherwise like [`Database::look_up`].
    #[inline]
    pub fn look_up_to_change(
        &mut self,
        key: &Key<'_>,
        now_ms: i64,
        touch: impl FnOnce(u32) -> u32,
        expire: impl FnOnce(&Entry) -> OnExpired,
    ) -> Lookup<&mut Entry> {
        match self.look(key, now_ms, touch, expire) {
            Lookup::Missing => Lookup::Missing,
            Lookup::Expired => Lookup::Expired,
            Lookup::Live(found) => Lookup::Live(found.into_mut()),
        }
    }

    #[inline]
    fn look(
        &mut self,
        key: &Key<'_>,
        now_ms: i64,
        touch: impl FnOnce(u32) -> u32,
        expire: impl FnOnce(&Entry) -> OnExpired,
    ) -> Lookup<Occupied<'_>> {
        let Some(mut found) = self.store.find_mut(key) else {
            return Lookup::Missing;
        };
        if found.entry().is_expired(now_ms) {
            if found.waits_for_snapshot() {
                return Lookup::Expired;
            }
            match expire(found.entry()) {
                OnExpired::Keep => {}
                // The command that happened to find the key does not wait until a large value is freed.
                OnExpired::Remove | OnExpired::Unlink => self.garbage.push_entry(found.remove()),
            }
            return Lookup::Expired;
        }
        let before = found.entry().clock();
        let after = touch(before);
        if after != before {
            found.set_clock(after);
        }
        Lookup::Live(found)
    }

    /// Finds a key, expired or not.
    #[inline]
    #[must_use]
    pub fn peek(&self, key: &Key<'_>) -> Option<&Entry> {
        self.store.find(key)
    }

    /// Sets a key to a string, whatever it held, in the encoding that suits: an integer if the bytes are one's canonical
    /// decimal spelling, else as they are. A key that existed keeps its access clock, a new one gets `clock`.
    #[inline]
    pub fn set_string(&mut self, key: &Key<'_>, bytes: &[u8], expiry: Expiry, clock: u32) -> &mut Entry {
        self.set(key, NewValue::string(bytes), expiry, clock)
    }

    /// Sets a string like [`Database::set_string`], but its bytes stay bytes even if they spell an integer:
    /// INCRBYFLOAT.
    pub fn set_text(&mut self, key: &Key<'_>, bytes: &[u8], expiry: Expiry, clock: u32) -> &mut Entry {
        self.set(key, NewValue::text(bytes), expiry, clock)
    }

    /// Sets a string like [`Database::set_text`], but short bytes are not `embstr` either, since they come from a
    /// string that was changed in place.
    pub fn set_raw(&mut self, key: &Key<'_>, bytes: &[u8], expiry: Expiry, clock: u32) -> &mut Entry {
        self.set(key, NewValue::raw(bytes, bytes.len()), expiry, clock)
    }

    /// Sets a key to a string that is an integer.
    #[inline]
    pub fn set_integer(&mut self, key: &Key<'_>, int: i64, expiry: Expiry, clock: u32) -> &mut Entry {
        self.set(key, NewValue::Int(int), expiry, clock)
    }

    /// Sets a key to the string in `buffer`, whose allocation is adopted unless the bytes are few enough to be embedded.
    /// Room the buffer has to spare stays with it.
    pub fn set_buffer(&mut self, key: &Key<'_>, buffer: Buffer, expiry: Expiry, clock: u32) -> &mut Entry {
        if NewValue::embeds(&buffer) {
            return self.set_string(key, &buffer, expiry, clock);
        }
        self.set(key, NewValue::Heap(buffer), expiry, clock)
    }

    #[inline]
    fn set(&mut self, key: &Key<'_>, value: NewValue<'_>, expiry: Expiry, clock: u32) -> &mut Entry {
        match self.store.find_or_vacant(key) {
            Ok(found) => {
                let expiry = expiry.after(found.entry().expiry());
                let (entry, displaced) = found.assign(expiry, value);
                self.garbage.push_displaced(displaced);
                entry
            }
            Err(store) => store.insert(key, EntryBox::new(key.bytes, clock, expiry.after(None), value)),
        }
    }

    /// Makes the string of a key raw and at least `len` bytes long and gives all of its bytes to change: APPEND, SETRANGE,
    /// SETBIT. A missing key is created, a shorter string continued with zeros; a string that keeps growing is copied a
    /// bounded number of times. The key must be missing or hold a string.
    pub fn string_mut(&mut self, key: &Key<'_>, len: usize, clock: u32) -> &mut [u8] {
        let entry = match self.store.find_or_vacant(key) {
            Ok(found) => found.grow(len),
            Err(store) => store.insert(
                key,
                EntryBox::new(key.bytes, clock, None, NewValue::raw(b"", len)),
            ),
        };
        entry.bytes_mut().expect("the entry was made raw")
    }

    /// Sets a key to a collection, whatever it held. A key that existed keeps its access clock, a new one gets `clock`.
    pub fn set_collection(
        &mut self,
        key: &Key<'_>,
        value: Collection,
        expiry: Expiry,
        clock: u32,
    ) -> &mut Entry {
        self.set(key, NewValue::Collection(value), expiry, clock)
    }

    /// The entry of a key, expired or not, to be changed.
    #[cfg(test)]
    pub(super) fn entry_mut(&mut self, key: &Key<'_>) -> Option<&mut Entry> {
        self.store.find_mut(key).map(|found| found.into_mut())
    }

    /// The entry of a key that is missing or holds a collection of type `T`; an empty collection is created under a
    /// missing key. If it is still empty when the command ends, it must be removed: see [`Database::settle`].
    #[inline]
    pub fn entry_or_empty<T: InPlace>(&mut self, key: &Key<'_>, clock: u32) -> &mut Entry {
        match self.store.find_or_vacant(key) {
            Ok(found) => found.into_mut(),
            Err(store) => {
                let value = NewValue::Collection(T::default().into());
                store.insert(key, EntryBox::new(key.bytes, clock, None, value))
            }
        }
    }

    /// Removes the key of a collection that was changed and is empty now, and makes the active cycle find a hash with
    /// fields that expire. True if the key was removed. Must be called after every change of a collection.
    #[inline]
    pub fn settle(&mut self, key: &Key<'_>) -> bool {
        let Some(found) = self.store.find_mut(key) else {
            return false;
        };
        match found.entry().collection() {
            // An empty stream stays, because its last id must not be lost.
            Some(CollectionRef::Stream(_)) => false,
            Some(value) if value.is_empty() => {
                drop(found.remove());
                true
            }
            Some(CollectionRef::Hash(_)) => {
                found.list_fields();
                false
            }
            _ => false,
        }
    }

    /// Number of hashes with fields that expire.
    #[inline]
    #[must_use]
    pub fn volatile_hashes(&self) -> usize {
        self.store.fields_len()
    }

    /// Removes a key and frees what it held; false if there is none.
    #[inline]
    pub fn remove(&mut self, key: &Key<'_>) -> bool {
        self.store
            .find_mut(key)
            .map(|found| drop(found.remove()))
            .is_some()
    }

    /// Removes a key; a large value is freed later by [`Keyspace::release`](super::Keyspace::release).
    pub fn unlink(&mut self, key: &Key<'_>) -> bool {
        let removed = self.store.find_mut(key).map(|found| found.remove());
        removed.map(|entry| self.garbage.push_entry(entry)).is_some()
    }

    /// Removes a key and gives what it held.
    pub fn take(&mut self, key: &Key<'_>) -> Option<Owned> {
        self.store.find_mut(key).map(|found| Owned {
            entry: found.remove(),
        })
    }

    /// Puts a value under a key, in the place of what it held. The access clock is set to `clock`.
    pub fn insert(&mut self, key: &Key<'_>, value: Owned, clock: u32) -> &mut Entry {
        let entry = value.entry.rekey(key.bytes, clock);
        match self.store.find_or_vacant(key) {
            Ok(found) => {
                let (entry, old) = found.replace(entry);
                self.garbage.push_entry(old);
                entry
            }
            Err(store) => store.insert(key, entry),
        }
    }

    /// Stores a value out of a file under a key that does not exist yet; false, and nothing is stored, if it does.
    pub fn load(&mut self, key: &Key<'_>, value: Decoded<'_>, expiry: Option<i64>, clock: u32) -> bool {
        let Err(store) = self.store.find_or_vacant(key) else {
            return false;
        };
        let value = match value {
            Decoded::Text(StringRef::Int(int)) => NewValue::Int(int),
            Decoded::Text(StringRef::Bytes(bytes)) => NewValue::string(bytes),
            Decoded::Collection(value) => NewValue::Collection(value),
        };
        store.insert(key, EntryBox::new(key.bytes, clock, expiry, value));
        true
    }

    /// A copy of the value of a key. O(size).
    #[must_use]
    pub fn duplicate(&self, key: &Key<'_>) -> Option<Owned> {
        self.store.find(key).map(|entry| Owned {
            entry: entry.duplicate(),
        })
    }

    /// Sets or clears the expiry of a key, milliseconds since 1970; false if there is no such key.
    pub fn set_expiry(&mut self, key: &Key<'_>, expiry: Option<i64>) -> bool {
        self.store
            .find_mut(key)
            .map(|found| found.set_expiry(expiry))
            .is_some()
    }

    /// Visits the keys of at most `buckets` buckets (and of one at least), from a cursor on, and returns the cursor to go
    /// on with; begin with 0, which is also the end. Every key that is present all the time is visited, perhaps twice.
    /// Cursors have at most 32 bits in [`Layout::Single`] and 46 in [`Layout::PerSlot`], where the low 14 are the slot.
    pub fn scan(&self, cursor: u64, buckets: usize, visit: impl FnMut(&Entry)) -> u64 {
        self.store.scan(cursor, buckets, visit)
    }

    /// A random key, each with the same probability, expired or not.
    pub fn random(&self, rng: &mut SmallRng) -> Option<&Entry> {
        self.store.random(rng)
    }

    /// A random key among those that have an expiry.
    pub fn random_volatile(&self, rng: &mut SmallRng) -> Option<&Entry> {
        self.store.random_volatile(rng)
    }

    /// Visits about `count` random keys, of those that have an expiry if `volatile`; none if there is none. `ahead` remembers
    /// where to go on. O(count).
    pub(super) fn sample(
        &self,
        count: usize,
        volatile: bool,
        ahead: &mut Ahead,
        rng: &mut SmallRng,
        visit: impl FnMut(&Entry),
    ) {
        self.store.random_run(count, volatile, ahead, rng, visit);
    }

    /// Visits every key. O(keys).
    pub fn for_each(&self, visit: impl FnMut(&Entry)) {
        self.store.for_each(visit);
    }

    /// Number of keys in a slot. O(1) in [`Layout::PerSlot`]; [`Layout::Single`] looks at all keys.
    #[must_use]
    pub fn slot_len(&self, slot: u16) -> usize {
        self.store.slot_len(slot).unwrap_or_else(|| {
            let mut count = 0;
            self.slot_keys(slot, usize::MAX, |_| count += 1);
            count
        })
    }

    /// Visits up to `max` keys of a slot. O(keys visited) in [`Layout::PerSlot`]; in [`Layout::Single`] keys of other slots
    /// have to be passed over.
    pub fn slot_keys(&self, slot: u16, max: usize, mut visit: impl FnMut(&Entry)) {
        let mixed = self.store.slot_len(slot).is_none();
        let mut left = max;
        self.store.visit_slot(slot, |entry| {
            if left > 0 && (!mixed || (self.slot_of)(entry.key()) == slot) {
                left -= 1;
                visit(entry);
            }
            left > 0
        });
    }

    /// Removes all keys of a slot and returns their number; the values become garbage like with [`Database::flush`].
    /// O(keys of the slot) in [`Layout::PerSlot`]; in [`Layout::Single`] nothing is removed: the caller must
    /// enumerate the keys and remove each.
    pub fn flush_slot(&mut self, slot: u16) -> usize {
        let Some(store) = self.store.split_off_slot(slot) else {
            return 0;
        };
        let removed = store.len();
        self.let_go(store);
        removed
    }

    /// Asks for the cache line in which a key's look-up begins. For batches: first this for every key, then
    /// [`Database::prefetch_entry`] for every key, then the look-ups.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64, slot: u16) {
        self.store.prefetch_bucket(hash, slot);
    }

    /// Asks for the entry itself; the line of [`Database::prefetch_bucket`] should have arrived.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64, slot: u16) {
        self.store.prefetch_entry(hash, slot);
    }

    /// Removes all keys and returns how many there were. They become garbage that
    /// [`Keyspace::release`](super::Keyspace::release) frees; until then they count as memory. O(1) but for small
    /// databases, which are freed at once.
    pub fn flush(&mut self) -> usize {
        let removed = self.len();
        let empty = self.store.new_alike();
        let removed_store = std::mem::replace(&mut self.store, empty);
        self.let_go(removed_store);
        removed
    }

    /// Makes a removed store garbage, unless a snapshot still needs it.
    fn let_go(&mut self, mut store: Store) {
        match store.cut() {
            Some(cut) if cut.is_wanted() => self.unsaved.push(store),
            _ => self.garbage.push_store(store),
        }
    }

    /// Adds all keys of another database, in the place of those of the same names.
    pub(super) fn merge(&mut self, mut other: Self) {
        let mut add = |entry: EntryBox| {
            let (name, clock) = (entry.key().to_vec(), entry.clock());
            let key = self.key(&name);
            self.insert(&key, Owned { entry }, clock);
        };
        while other.store.drain(&mut add) {}
    }

    /// Replaces all keys by those of another database, whose garbage comes along. The old ones become garbage like with
    /// [`Database::flush`].
    pub(super) fn adopt(&mut self, other: Self) {
        self.flush();
        self.store = other.store;
        self.garbage.append(other.garbage);
    }

    /// Statistics of the table of keys. O(1) in [`Layout::Single`], O(slots) in [`Layout::PerSlot`].
    #[must_use]
    pub fn table_stats(&self) -> TableStats {
        self.store.stats()
    }

    /// Statistics of the index of the keys with an expiry. O(windows of time), a few hundred at most.
    #[must_use]
    pub fn volatile_table_stats(&self) -> TableStats {
        self.store.volatile().stats()
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("len", &self.len())
            .field("volatile_len", &self.volatile_len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::keyspace::OwnSlots;
    use crate::memory::thread_balance;
    use crate::value::{Encoding, INT_TEXT_MAX};

    const LAYOUTS: [Layout; 2] = [Layout::Single, Layout::PerSlot(OwnSlots::ALL)];

    /// Eleven slots, so that tables by slot are of some size.
    fn slot_of(key: &[u8]) -> u16 {
        key.iter().fold(0u16, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u16::from(*byte))
        }) % 11
    }

    fn database(layout: Layout) -> Database {
        Database::new(layout, KeyHasher::new(17), slot_of)
    }

    fn name(n: u32) -> Vec<u8> {
        format!("key:{n}").into_bytes()
    }

    fn text(entry: &Entry) -> Vec<u8> {
        entry.string().unwrap().as_bytes(&mut [0; INT_TEXT_MAX]).to_vec()
    }

    fn fill(database: &mut Database, range: std::ops::Range<u32>) {
        for n in range {
            let name = name(n);
            let key = database.key(&name);
            database.set_string(&key, b"value", Expiry::Clear, 0);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set {
            bytes: Vec<u8>,
            expiry: Option<Option<i64>>,
        },
        SetInteger(i64),
        SetBuffer(usize),
        Grow(usize),
        Remove,
        Unlink,
        Rename(u32),
        Copy(u32),
        Expire(Option<i64>),
        Flush,
        FlushSlot,
        Release(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..60),
            (1000usize..1200).prop_map(|len| vec![1; len]),
            Just(vec![2; 70_000]),
            any::<i64>().prop_map(|int| int.to_string().into_bytes()),
        ];
        let expiry = prop_oneof![
            Just(None),
            Just(Some(None)),
            any::<i64>().prop_map(|at| Some(Some(at)))
        ];
        prop_oneof![
            20 => (bytes, expiry).prop_map(|(bytes, expiry)| Step::Set { bytes, expiry }),
            4 => any::<i64>().prop_map(Step::SetInteger),
            2 => (0usize..3000).prop_map(Step::SetBuffer),
            6 => (0usize..2500).prop_map(Step::Grow),
            6 => Just(Step::Remove),
            4 => Just(Step::Unlink),
            4 => any::<u32>().prop_map(Step::Rename),
            2 => any::<u32>().prop_map(Step::Copy),
            8 => any::<Option<i64>>().prop_map(Step::Expire),
            1 => Just(Step::Flush),
            1 => Just(Step::FlushSlot),
            2 => (0usize..200).prop_map(Step::Release),
        ]
    }

    /// Expected content of a database, in the simplest form.
    #[derive(Default)]
    struct Model {
        values: HashMap<Vec<u8>, Vec<u8>>,
        expiries: BTreeMap<Vec<u8>, i64>,
    }

    impl Model {
        fn remove(&mut self, key: &[u8]) -> Option<(Vec<u8>, Option<i64>)> {
            let expiry = self.expiries.remove(key);
            self.values.remove(key).map(|value| (value, expiry))
        }

        fn insert(&mut self, key: &[u8], value: Vec<u8>, expiry: Option<i64>) {
            self.remove(key);
            self.values.insert(key.to_vec(), value);
            self.expiries.extend(expiry.map(|at| (key.to_vec(), at)));
        }
    }

    fn apply(database: &mut Database, model: &mut Model, n: u32, step: Step, keys: u32) {
        let bytes = name(n % keys);
        let key = database.key(&bytes);
        let before = model.expiries.get(&bytes).copied();
        match step {
            Step::Set { bytes: value, expiry } => {
                let (expiry, after) = match expiry {
                    None => (Expiry::Keep, before),
                    Some(None) => (Expiry::Clear, None),
                    Some(Some(at)) => (Expiry::At(at), Some(at)),
                };
                let entry = database.set_string(&key, &value, expiry, 5);
                assert_eq!(
                    (entry.key(), entry.expiry(), text(entry)),
                    (&bytes[..], after, value.clone())
                );
                model.insert(&bytes, value, after);
            }
            Step::SetInteger(int) => {
                let entry = database.set_integer(&key, int, Expiry::Keep, 5);
                assert_eq!(entry.encoding(), Encoding::Int);
                model.insert(&bytes, int.to_string().into_bytes(), before);
            }
            Step::SetBuffer(len) => {
                database.set_buffer(&key, Buffer::from(&vec![3; len][..]), Expiry::Clear, 5);
                model.insert(&bytes, vec![3; len], None);
            }
            Step::Grow(len) => {
                let mut value = model.values.get(&bytes).cloned().unwrap_or_default();
                value.resize(len.max(value.len()), 0);
                let grown = database.string_mut(&key, len, 5);
                assert_eq!(grown, value);
                if let (Some(last), Some(model_last)) = (grown.last_mut(), value.last_mut()) {
                    (*last, *model_last) = (b'z', b'z');
                }
                model.insert(&bytes, value, before);
            }
            Step::Remove => assert_eq!(database.remove(&key), model.remove(&bytes).is_some()),
            Step::Unlink => assert_eq!(database.unlink(&key), model.remove(&bytes).is_some()),
            Step::Rename(other) => {
                let other = name(other % keys);
                let other_key = database.key(&other);
                let (taken, expected) = (database.take(&key), model.remove(&bytes));
                assert_eq!(taken.is_some(), expected.is_some());
                if let (Some(owned), Some((value, expiry))) = (taken, expected) {
                    assert_eq!(owned.expiry(), expiry);
                    let entry = database.insert(&other_key, owned, 6);
                    assert_eq!(entry.clock(), 6);
                    model.insert(&other, value, expiry);
                }
            }
            Step::Copy(other) => {
                let other = name(other % keys);
                let other_key = database.key(&other);
                if let Some(owned) = database.duplicate(&key) {
                    database.insert(&other_key, owned, 6);
                    let value = model.values[&bytes].clone();
                    model.insert(&other, value, before);
                }
            }
            Step::Expire(at) => {
                let present = model.values.contains_key(&bytes);
                assert_eq!(database.set_expiry(&key, at), present);
                if present {
                    model.expiries.remove(&bytes);
                    model.expiries.extend(at.map(|at| (bytes.clone(), at)));
                }
            }
            Step::Flush => {
                assert_eq!(database.flush(), model.values.len());
                *model = Model::default();
            }
            Step::FlushSlot => {
                let removed = database.flush_slot(key.slot);
                if removed > 0 {
                    let before = model.values.len();
                    model.values.retain(|key, _| slot_of(key) != slot_of(&bytes));
                    model.expiries.retain(|key, _| slot_of(key) != slot_of(&bytes));
                    assert_eq!(removed, before - model.values.len());
                }
            }
            Step::Release(budget) => {
                database.garbage.release(budget);
            }
        }
    }

    fn compare(database: &Database, model: &Model) {
        assert_eq!(database.len(), model.values.len());
        assert_eq!(database.volatile_len(), model.expiries.len());
        let mut seen = 0;
        database.for_each(|entry| {
            seen += 1;
            assert_eq!(model.values.get(entry.key()), Some(&text(entry)));
            assert_eq!(model.expiries.get(entry.key()).copied(), entry.expiry());
            let key = database.key(entry.key());
            assert!(std::ptr::eq(database.peek(&key).unwrap(), entry));
        });
        assert_eq!(seen, model.values.len());
        let mut volatile = BTreeSet::new();
        database
            .store
            .for_each_volatile(|entry| assert!(volatile.insert(entry.key().to_vec())));
        assert!(volatile.iter().eq(model.expiries.keys()));
        for slot in 0..11 {
            let expected = model.values.keys().filter(|key| slot_of(key) == slot).count();
            assert_eq!(database.slot_len(slot), expected, "slot {slot}");
            let mut keys = HashSet::new();
            database.slot_keys(slot, expected / 2 + 1, |entry| {
                assert!(keys.insert(entry.key().to_vec()));
            });
            assert_eq!(keys.len(), expected.min(expected / 2 + 1));
            assert!(keys.iter().all(|key| slot_of(key) == slot));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 96 }))]
        #[test]
        fn a_database_behaves_as_its_model(
            steps in proptest::collection::vec((any::<u32>(), step()), 0..if cfg!(miri) { 60 } else { 600 }),
            keys in prop_oneof![Just(3u32), Just(40), Just(400)],
        ) {
            for layout in LAYOUTS {
                let start = thread_balance();
                let mut database = database(layout);
                let mut model = Model::default();
                for (count, (n, step)) in steps.iter().cloned().enumerate() {
                    apply(&mut database, &mut model, n, step, keys);
                    if count % 50 == 0 {
                        compare(&database, &model);
                    }
                }
                compare(&database, &model);
                drop(database);
                prop_assert_eq!(thread_balance(), start);
            }
        }

        #[test]
        fn scan_returns_what_is_there_throughout(
            steady in 0u32..600, waves in proptest::collection::vec((0u32..3000, any::<bool>()), 1..12),
            buckets in 1usize..20, pace in 1usize..6,
        ) {
            for layout in LAYOUTS {
                let mut database = database(layout);
                fill(&mut database, 0..steady);
                fill(&mut database, 10_000..10_000 + waves[0].0);
                let mut seen = HashSet::new();
                let mut waves = waves.iter();
                let (mut cursor, mut calls) = (0, 0);
                loop {
                    cursor = database.scan(cursor, buckets, |entry| {
                        seen.insert(entry.key().to_vec());
                    });
                    calls += 1;
                    if cursor == 0 {
                        break;
                    }
                    if calls % pace == 0 && let Some((count, grow)) = waves.next() {
                        if *grow {
                            fill(&mut database, 10_000..10_000 + count);
                        } else {
                            for n in 10_000..10_000 + count {
                                let name = name(n);
                                let key = database.key(&name);
                                database.remove(&key);
                            }
                        }
                    }
                }
                for n in 0..steady {
                    prop_assert!(seen.contains(&name(n)), "key {} was not returned ({:?})", n, layout);
                }
            }
        }

        #[test]
        fn any_cursor_is_taken(cursor in any::<u64>(), keys in 0u32..200) {
            for layout in LAYOUTS {
                let mut database = database(layout);
                fill(&mut database, 0..keys);
                let mut cursor = cursor;
                for _ in 0..10_000 {
                    cursor = database.scan(cursor, 1, |_| {});
                    if cursor == 0 {
                        break;
                    }
                }
                prop_assert_eq!(cursor, 0, "a scan ends wherever it begins");
            }
        }
    }

    #[test]
    fn look_ups_tell_expired_keys_and_do_with_them_as_told() {
        let mut database = database(Layout::Single);
        let key = database.key(b"key");
        let look = |database: &mut Database, now_ms, on_expired| {
            let found = database.look_up(&key, now_ms, |clock| clock, |_| on_expired);
            match found {
                Lookup::Missing => "missing".to_owned(),
                Lookup::Expired => "expired".to_owned(),
                Lookup::Live(entry) => format!("live since {}", entry.clock()),
            }
        };
        let keep = OnExpired::Keep;
        assert_eq!(look(&mut database, 0, keep), "missing");
        database.set_string(&key, b"v", Expiry::At(100), 3);
        assert_eq!(look(&mut database, 100, keep), "live since 3");
        assert_eq!(look(&mut database, 101, keep), "expired");
        assert_eq!((database.len(), database.volatile_len()), (1, 1));
        database.set_string(&key, b"w", Expiry::Clear, 9);
        assert_eq!(look(&mut database, 101, keep), "live since 3");
        assert_eq!(database.volatile_len(), 0);
        for (removal, waiting) in [(OnExpired::Remove, 1), (OnExpired::Unlink, 2)] {
            database.set_string(&key, &[1; 100_000], Expiry::At(100), 3);
            assert_eq!(look(&mut database, 101, removal), "expired");
            assert_eq!((database.len(), database.volatile_len()), (0, 0));
            assert_eq!(database.garbage.pending(), waiting);
        }
    }

    #[test]
    fn a_look_up_hands_the_entry_over_before_it_goes_and_notes_the_access_of_one_that_stays() {
        let mut database = database(Layout::Single);
        let key = database.key(b"key");
        database.set_string(&key, b"v", Expiry::At(100), 3);
        let found = database.look_up(&key, 100, |clock| clock + 4, |_| panic!("its time is not over"));
        assert!(matches!(found, Lookup::Live(entry) if entry.clock() == 7));
        let mut seen = None;
        let found = database.look_up_to_change(
            &key,
            101,
            |_| panic!("its time is over"),
            |entry| {
                seen = Some((entry.key().to_vec(), entry.expiry()));
                OnExpired::Remove
            },
        );
        assert!(matches!(found, Lookup::Expired));
        assert_eq!(seen, Some((b"key".to_vec(), Some(100))));
    }

    #[test]
    fn appending_keeps_amortised_cost_and_the_raw_encoding() {
        let mut database = database(Layout::Single);
        let key = database.key(b"key");
        database.set_string(&key, b"1", Expiry::Clear, 0);
        for len in 2..5000 {
            database.string_mut(&key, len, 0)[len - 1] = b'x';
        }
        let entry = database.peek(&key).unwrap();
        assert_eq!(entry.string().unwrap().len(), 4999);
        assert_eq!(entry.encoding(), Encoding::Raw);
        let other = database.key(b"other");
        database.string_mut(&other, 0, 0);
        assert_eq!(database.peek(&other).unwrap().encoding(), Encoding::Raw);
    }

    /// Checks what a table takes a key, apart from the room it has in reserve: up to a segment and a half.
    fn check_table_size(stats: TableStats, per_key_max: f64) {
        const RESERVE: usize = 96 << 10;
        let used = (stats.buckets + stats.overflow_buckets) * 64;
        let per_key = used as f64 / stats.entries as f64;
        assert!(
            stats.entries < 1000 || per_key < per_key_max,
            "{per_key} bytes a key: {stats:?}"
        );
        assert!(
            stats.bytes <= used + used / 100 + RESERVE.min(2 * used) + 512,
            "too much in reserve: {stats:?}"
        );
    }

    #[test]
    fn the_table_keeps_its_size_while_growing_and_shrinking() {
        let keys = if cfg!(miri) { 500 } else { 200_000 };
        let mut database = database(Layout::Single);
        for n in 0..keys {
            fill(&mut database, n..n + 1);
            check_table_size(database.table_stats(), 12.9);
        }
        for n in 0..keys {
            let name = name(n);
            let key = database.key(&name);
            assert!(database.remove(&key));
            check_table_size(database.table_stats(), 14.2);
        }
        assert_eq!(database.table_stats(), TableStats::default());
    }

    #[test]
    fn random_reaches_every_key_about_equally() {
        let keys = 700;
        for layout in LAYOUTS {
            let mut database = database(layout);
            fill(&mut database, 0..keys);
            for n in (0..keys).step_by(2) {
                let name = name(n);
                let key = database.key(&name);
                database.set_expiry(&key, Some(1));
            }
            let mut rng = SmallRng::seed_from_u64(1);
            let mut hits: HashMap<Vec<u8>, u32> = HashMap::new();
            let draws = if cfg!(miri) { 700 } else { 140_000 };
            for _ in 0..draws {
                *hits
                    .entry(database.random(&mut rng).unwrap().key().to_vec())
                    .or_default() += 1;
                assert!(database.random_volatile(&mut rng).unwrap().expiry().is_some());
            }
            if !cfg!(miri) {
                assert_eq!(hits.len(), keys as usize);
                // 200 expected; beyond these bounds something is skewed by far more than chance.
                let (min, max) = (hits.values().min().unwrap(), hits.values().max().unwrap());
                assert!(
                    *min > 120 && *max < 300,
                    "between {min} and {max} of 200 ({layout:?})"
                );
            }
            let start = rng.random_range(0..2u64);
            assert!(database.scan(start, 1, |_| {}) < 1 << 46);
        }
    }

    #[test]
    fn an_empty_database_allocates_nothing() {
        let start = thread_balance();
        for layout in LAYOUTS {
            let mut database = database(layout);
            let key = database.key(b"key");
            assert!(database.peek(&key).is_none() && !database.remove(&key));
            assert_eq!(database.scan(0, 10, |_| {}), 0);
            assert!(database.random(&mut SmallRng::seed_from_u64(0)).is_none());
            assert_eq!((database.flush(), database.slot_len(3)), (0, 0));
            assert_eq!(thread_balance(), start);
        }
    }

    #[test]
    fn prefetching_is_harmless_whatever_is_there() {
        for layout in LAYOUTS {
            let mut database = database(layout);
            for count in [0, 1, 100, 3000] {
                fill(&mut database, 0..count);
                for n in 0..count * 2 {
                    let name = name(n);
                    let key = database.key(&name);
                    database.prefetch_bucket(key.hash, key.slot);
                    database.prefetch_entry(key.hash, key.slot);
                }
            }
        }
    }
}
