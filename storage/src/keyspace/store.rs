//! UNSAFE: the entries of a database, and the indexes that point at them.
//!
//! Every entry is owned by the store. It is in the main table (or that of its slot), found by its key; if it has an
//! expiry it is in the *volatile index* as well, a calendar, found by that time and its address; and a hash some of whose
//! fields expire is in the *field index*, a second calendar, under the time at which it is to be looked at: that of its first
//! field, or an earlier one, which the hash remembers.
//!
//! Invariants:
//! - An entry in the main tables came from an [`EntryBox`] and becomes one again when it leaves them.
//! - The volatile index holds just the entries of the main tables that have an expiry, the field index just those whose
//!   header says so. What may change that (a new entry, a removal, an entry that moves because it is rebuilt) happens here
//!   and changes all of them.
//!
//! References handed out borrow the store, so that an entry is not freed or moved under them.

use rand::RngExt;
use rand::rngs::SmallRng;
use smallvec::SmallVec;

use super::calendar::Calendar;
use super::expiry::Expired;
use super::scan::SlotCursor;
use super::slots::{OwnSlots, SlotTables};
use super::snapshot::{BUCKET_COST, Cut, Progress};
use crate::entry::{Entry, EntryBox, EntryPtr, NewValue};
use crate::key::{Key, KeyHasher};
use crate::table::raw::{Position, RawTable, prefetch};
use crate::table::{Ahead, Keyed, TableStats};
use crate::value::Detached;
use crate::value::hash::Hash;

/// Arrangement of a database's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One table. Slots are not separated: counting or enumerating one visits all entries.
    Single,
    /// One small table for each hash slot (cluster mode): counting, enumerating or flushing a slot costs that slot.
    /// Keys of other slots than those of the owner must not be asked for.
    PerSlot(OwnSlots),
}

enum Tables {
    Single(RawTable<EntryPtr>),
    /// The tables, once there is an entry.
    PerSlot(OwnSlots, Option<Box<SlotTables>>),
}

/// Buckets that a snapshot visits at a time.
const STEP_BUCKETS: usize = 8;
/// Bytes of a large entry that a snapshot saves at a time.
const SLICE_BYTES: usize = 64 << 10;

/// The entries of one database.
pub(crate) struct Store {
    tables: Tables,
    volatile: Calendar<EntryPtr>,
    /// Hashes some of whose fields expire.
    fields: Calendar<EntryPtr>,
    hasher: KeyHasher,
    /// The mark of entries that no snapshot has to save.
    mark: bool,
    /// The snapshot that these entries are a part of, until it has saved them.
    cut: Option<Box<Cut>>,
}

/// A part of an entry that a change has replaced, and that is to be dropped, at once or later.
pub(crate) enum Displaced {
    Nothing,
    Value(Detached),
    Entry(EntryBox),
}

impl Store {
    pub(crate) const fn new(layout: Layout, hasher: KeyHasher) -> Self {
        let tables = match layout {
            Layout::Single => Tables::Single(RawTable::new()),
            Layout::PerSlot(own) => Tables::PerSlot(own, None),
        };
        Self {
            tables,
            volatile: Calendar::new(),
            fields: Calendar::new(),
            hasher,
            mark: false,
            cut: None,
        }
    }

    /// An empty store of the same layout and hash function.
    pub(crate) fn new_alike(&self) -> Self {
        let layout = match self.tables {
            Tables::Single(_) => Layout::Single,
            Tables::PerSlot(own, _) => Layout::PerSlot(own),
        };
        Self::new(layout, self.hasher)
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        match &self.tables {
            Tables::Single(table) => table.len(),
            Tables::PerSlot(_, slots) => slots.as_ref().map_or(0, |slots| slots.len()),
        }
    }

    #[inline]
    pub(crate) fn volatile_len(&self) -> usize {
        self.volatile.len()
    }

    #[inline]
    fn table(&self, slot: u16) -> Option<&RawTable<EntryPtr>> {
        match &self.tables {
            Tables::Single(table) => Some(table),
            Tables::PerSlot(own, slots) => slots.as_ref().map(|slots| slots.table(own.index(slot))),
        }
    }

    #[inline]
    fn table_mut(&mut self, slot: u16) -> &mut RawTable<EntryPtr> {
        match &mut self.tables {
            Tables::Single(table) => table,
            Tables::PerSlot(own, slots) => slots
                .get_or_insert_with(|| Box::new(SlotTables::new(*own)))
                .table_mut(own.index(slot)),
        }
    }

    /// The entry of a key.
    #[inline]
    pub(crate) fn find(&self, key: &Key<'_>) -> Option<&Entry> {
        let (_, entry) = self.table(key.slot)?.find(key.hash, key.bytes)?;
        // SAFETY: entries in the tables are alive and change only through `&mut self`.
        Some(unsafe { entry.as_ref() })
    }

    /// The entry of a key with the means to change it.
    #[inline]
    pub(crate) fn find_mut(&mut self, key: &Key<'_>) -> Option<Occupied<'_>> {
        let (position, entry) = self.table(key.slot)?.find(key.hash, key.bytes)?;
        Some(Occupied {
            store: self,
            position,
            entry,
            hash: key.hash,
            slot: key.slot,
        })
    }

    /// The entry of a key, or the place where it would be.
    #[inline]
    pub(crate) fn find_or_vacant(&mut self, key: &Key<'_>) -> Result<Occupied<'_>, &mut Self> {
        match self
            .table(key.slot)
            .and_then(|table| table.find(key.hash, key.bytes))
        {
            Some((position, entry)) => Ok(Occupied {
                store: self,
                position,
                entry,
                hash: key.hash,
                slot: key.slot,
            }),
            None => Err(self),
        }
    }

    /// Adds an entry for a key that has none. `key` is the entry's own.
    #[inline]
    pub(crate) fn insert(&mut self, key: &Key<'_>, mut entry: EntryBox) -> &mut Entry {
        entry.set_mark(self.mark);
        debug_assert!(entry.key() == key.bytes && self.find(key).is_none());
        debug_assert_eq!(key.hash, self.hasher.hash(key.bytes));
        let expiry = entry.expiry();
        let (ptr, hasher) = (entry.into_ptr(), self.hasher);
        // SAFETY: the store owns the entry from here on; it leaves both tables before it is freed. With a wrong hash it
        // would not be found again, but no pointer would be lost or dangle: the volatile index gets the same hash,
        // and `unlist` stops the program if a removal does not find the entry there.
        unsafe { self.table_mut(key.slot).insert(key.hash, ptr, &hasher) };
        if let Tables::PerSlot(own, Some(slots)) = &mut self.tables {
            slots.added(own.index(key.slot));
        }
        if let Some(at) = expiry {
            // SAFETY: as above.
            unsafe { self.volatile.enter(key.hash, ptr, at, &hasher) };
        }
        self.list_fields(key.hash, ptr, Relist::IfEarlier);
        // SAFETY: alive, and borrowed with the store.
        unsafe { ptr.as_mut() }
    }

    /// Brings the field index up to date with an entry of the main tables that may have fields that expire.
    #[inline]
    fn list_fields(&mut self, hash: u64, entry: EntryPtr, relist: Relist) {
        // SAFETY: the entry is alive, and the store is borrowed mutably.
        let found = unsafe { entry.as_mut() };
        let was_listed = found.lists_fields();
        let fields = found.get_mut::<Hash>();
        let wanted = fields.as_ref().and_then(|fields| fields.next_look());
        if !was_listed && wanted.is_none() {
            return;
        }
        let listed = fields
            .as_ref()
            .filter(|_| was_listed)
            .map(|fields| fields.listed_ms());
        if let (Some(listed), Some(wanted)) = (listed, wanted)
            && listed <= wanted
            && relist == Relist::IfEarlier
        {
            return;
        }
        if let Some(listed) = listed {
            self.fields.leave(hash, entry, listed);
        }
        if let (Some(at), Some(fields)) = (wanted, fields) {
            fields.set_listed_ms(at);
            let hasher = self.hasher;
            // SAFETY: the hash is that of the key; the entry leaves the index before it is freed.
            unsafe { self.fields.enter(hash, entry, at, &hasher) };
        }
        found.set_lists_fields(wanted.is_some());
    }

    /// Takes an entry out of the field index; `fields` is the hash that it holds, or held until it was rebuilt.
    fn unlist_fields(&mut self, hash: u64, entry: EntryPtr, fields: Option<&Hash>) {
        let fields = fields.expect("an entry of the field index holds a hash");
        self.fields.leave(hash, entry, fields.listed_ms());
    }

    /// Takes an entry out of the indexes that it is in.
    #[inline]
    fn unlist(&mut self, hash: u64, entry: EntryPtr) {
        // SAFETY: the entry is alive, and nothing changes it meanwhile.
        let found = unsafe { entry.as_ref() };
        if let Some(at) = found.expiry() {
            self.volatile.leave(hash, entry, at);
        }
        if found.lists_fields() {
            self.unlist_fields(hash, entry, found.get::<Hash>());
        }
    }

    /// Visits some buckets from a cursor on, at most `buckets` of them but at least one; returns the cursor to go on
    /// with, 0 at the end. Every entry that is present from the first call to the last is visited at least once.
    pub(crate) fn scan(&self, cursor: u64, buckets: usize, mut visit: impl FnMut(&Entry)) -> u64 {
        // SAFETY: entries in the tables are alive, and the store is borrowed.
        self.scan_pointers(cursor, buckets, |entry| visit(unsafe { entry.as_ref() }))
    }

    fn scan_pointers(&self, cursor: u64, buckets: usize, mut visit: impl FnMut(EntryPtr)) -> u64 {
        match &self.tables {
            Tables::Single(table) => {
                let mut cursor = cursor as u32;
                for _ in 0..buckets.max(1) {
                    cursor = table.scan(cursor, &mut visit);
                    if cursor == 0 {
                        break;
                    }
                }
                u64::from(cursor)
            }
            Tables::PerSlot(_, None) => 0,
            Tables::PerSlot(_, Some(slots)) => {
                let mut at = SlotCursor::unpack(cursor);
                for _ in 0..buckets.max(1) {
                    let Some(slot) = slots.next_used(at.slot) else {
                        return 0;
                    };
                    let inner = if slot == at.slot { at.inner } else { 0 };
                    at = SlotCursor {
                        slot,
                        inner: slots.table(slot).scan(inner, &mut visit),
                    };
                    if at.inner == 0 {
                        at.slot += 1;
                    }
                    if at.slot == slots.tables() {
                        return 0;
                    }
                }
                at.pack()
            }
        }
    }

    /// Begins a snapshot of what is here now. Every entry is saved once, as it is now: by [`save_some`](Self::save_some), or
    /// before it changes or goes. No other snapshot may be under way.
    pub(crate) fn begin_cut(&mut self, cut: Cut) {
        debug_assert!(self.cut.is_none(), "one snapshot at a time");
        self.mark = !self.mark;
        self.cut = Some(Box::new(cut));
    }

    /// The snapshot that is under way.
    #[inline]
    pub(crate) fn cut(&mut self) -> Option<&mut Cut> {
        self.cut.as_deref_mut()
    }

    /// Ends the snapshot, which has visited all.
    pub(crate) fn end_cut(&mut self) {
        self.cut = None;
    }

    /// The snapshot that these entries are a part of, to be read.
    #[inline]
    pub(crate) fn current_cut(&self) -> Option<&Cut> {
        self.cut.as_deref()
    }

    /// Saves what is left in some buckets. `left` is what may still be saved at once, bytes.
    pub(crate) fn save_some(&mut self, left: &mut usize) -> Progress {
        let Some(mut cut) = self.cut.take() else {
            return Progress::Done;
        };
        let progress = self.save_buckets(&mut cut, left);
        self.cut = Some(cut);
        progress
    }

    fn save_buckets(&mut self, cut: &mut Cut, left: &mut usize) -> Progress {
        if !cut.has_room() {
            return Progress::Held;
        }
        let mut found = SmallVec::<[EntryPtr; 128]>::new();
        let next = self.scan_pointers(cut.cursor, STEP_BUCKETS, |entry| {
            prefetch(entry.as_ptr().as_ptr());
            found.push(entry);
        });
        let (mark, mut large) = (self.mark, None);
        *left = left.saturating_sub(STEP_BUCKETS * BUCKET_COST);
        for ptr in found {
            // SAFETY: entries in the tables are alive; the store is borrowed mutably, and no reference to one is kept.
            let entry = unsafe { ptr.as_mut() };
            if entry.mark() == mark {
                continue;
            }
            if cut.is_large(entry) {
                large = Some(ptr);
                continue;
            }
            // The bucket is visited again: what is saved has the mark then.
            if !cut.has_room() {
                return Progress::Held;
            }
            *left = left.saturating_sub(cut.save(entry, mark));
            if *left == 0 {
                return Progress::More;
            }
        }
        if let Some(ptr) = large {
            // SAFETY: as above.
            cut.begin_slices(ptr, unsafe { ptr.as_ref() });
            self.save_slices(cut, left);
            return if cut.is_slicing() {
                Progress::More
            } else {
                Progress::Held
            };
        }
        cut.cursor = next;
        if next == 0 { Progress::Done } else { Progress::More }
    }

    /// Goes on with the entry that is saved in slices, or begins one that a change waits for.
    pub(crate) fn save_large(&mut self, left: &mut usize, slot_of: fn(&[u8]) -> u16) {
        let Some(mut cut) = self.cut.take() else { return };
        self.save_slices(&mut cut, left);
        while *left > 0
            && let Some(bytes) = cut.next_urgent()
        {
            let key = self.hasher.key(&bytes, slot_of(&bytes));
            let table = self.table(key.slot);
            let Some((_, ptr)) = table.and_then(|table| table.find(key.hash, key.bytes)) else {
                continue;
            };
            // SAFETY: entries in the tables are alive, and the store is borrowed mutably.
            let entry = unsafe { ptr.as_ref() };
            if entry.mark() == self.mark || !cut.is_large(entry) {
                continue;
            }
            if !cut.begin_slices(ptr, entry) {
                cut.hurry_again(bytes);
                break;
            }
            self.save_slices(&mut cut, left);
        }
        self.cut = Some(cut);
    }

    fn save_slices(&self, cut: &mut Cut, left: &mut usize) {
        while *left > 0
            && cut.has_room()
            && let Some(ptr) = cut.sliced()
        {
            // SAFETY: the entry has not left the store, or all of it would be saved; the store is borrowed by the caller, who
            // may change its entries.
            let bytes = cut.save_slice(unsafe { ptr.as_mut() }, self.mark, (*left).min(SLICE_BYTES));
            *left = left.saturating_sub(bytes.max(1));
        }
    }

    /// Whether a change of a key has to be put off until a snapshot has saved more, see
    /// [`Database::is_held_by_snapshot`](super::Database::is_held_by_snapshot).
    #[cold]
    pub(crate) fn waits_for_snapshot(&mut self, key: &Key<'_>) -> bool {
        let is_unsaved = |entry: &&Entry| entry.mark() != self.mark;
        let Some(entry) = self.find(key).filter(is_unsaved) else {
            return false;
        };
        let Some(cut) = self.cut.as_deref().filter(|cut| cut.is_wanted()) else {
            return false;
        };
        let (is_large, has_room) = (cut.is_large(entry), cut.has_room());
        if is_large && let Some(cut) = &mut self.cut {
            cut.hurry(key.bytes);
        }
        is_large || !has_room
    }

    /// Saves an entry that is about to change or go, if a snapshot has not done so yet.
    #[cold]
    fn save_before_change(&mut self, entry: EntryPtr) {
        if let Some(cut) = &mut self.cut {
            // SAFETY: the entry is alive, and the store is borrowed mutably.
            cut.save_ahead((entry, unsafe { entry.as_mut() }), self.mark);
        }
    }

    /// Calls `visit` for every entry.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Entry)) {
        // SAFETY: entries in the tables are alive, and the store is borrowed.
        let mut visit = |entry: EntryPtr| visit(unsafe { entry.as_ref() });
        match &self.tables {
            Tables::Single(table) => table.for_each(visit),
            Tables::PerSlot(_, None) => {}
            Tables::PerSlot(_, Some(slots)) => {
                let mut slot = 0;
                while let Some(used) = slots.next_used(slot) {
                    slots.table(used).for_each(&mut visit);
                    slot = used + 1;
                }
            }
        }
    }

    /// Number of entries in a slot, if it is known without a walk.
    pub(crate) fn slot_len(&self, slot: u16) -> Option<usize> {
        match &self.tables {
            Tables::Single(_) => None,
            Tables::PerSlot(own, _) if !own.contains(slot) => Some(0),
            Tables::PerSlot(..) => Some(self.table(slot).map_or(0, RawTable::len)),
        }
    }

    /// Calls `visit` for the entries of the table that `slot` is in, until it returns false or `max` are visited. With a
    /// single table these are all entries; there are none of another owner's slots.
    pub(crate) fn visit_slot(&self, slot: u16, mut visit: impl FnMut(&Entry) -> bool) {
        if self.slot_len(slot) == Some(0) {
            return;
        }
        let Some(table) = self.table(slot) else { return };
        let (mut cursor, mut more) = (0, true);
        loop {
            cursor = table.scan(cursor, |entry| {
                // SAFETY: entries in the tables are alive, and the store is borrowed.
                more = more && visit(unsafe { entry.as_ref() });
            });
            if cursor == 0 || !more {
                return;
            }
        }
    }

    /// Takes a slot's entries out into a store of their own. O(entries of the slot that have an expiry, and a look at
    /// each of the others). Only in a layout by slot; nothing otherwise.
    pub(crate) fn split_off_slot(&mut self, slot: u16) -> Option<Self> {
        let mut detached = Self::new(Layout::Single, self.hasher);
        if self.slot_len(slot)? == 0 {
            return None;
        }
        let Tables::PerSlot(own, Some(slots)) = &mut self.tables else {
            return None;
        };
        let index = own.index(slot);
        if let Some(ptr) = self.cut.as_ref().and_then(|cut| cut.sliced()) {
            // SAFETY: the entry has not left the store, or all of it would be saved.
            let key = unsafe { ptr.as_ref() }.key();
            let found = slots.table(index).find(self.hasher.hash(key), key);
            if found.is_some_and(|(_, found)| found == ptr) {
                self.save_before_change(ptr);
            }
        }
        let Tables::PerSlot(_, Some(slots)) = &mut self.tables else {
            return None;
        };
        let table = std::mem::replace(slots.table_mut(index), RawTable::new());
        slots.removed(index, table.len());
        table.for_each(|entry| {
            // SAFETY: the entries of the table are alive.
            let found = unsafe { entry.as_ref() };
            if found.expiry().is_some() || found.lists_fields() {
                self.unlist(self.hasher.hash(found.key()), entry);
            }
        });
        // The indexes of the new store stay empty: only `drain` reads them there.
        detached.tables = Tables::Single(table);
        detached.mark = self.mark;
        detached.cut = self.cut.as_ref().and_then(|cut| cut.of_part()).map(Box::new);
        Some(detached)
    }

    /// A random entry, each with the same probability.
    pub(crate) fn random(&self, rng: &mut SmallRng) -> Option<&Entry> {
        let entry = match &self.tables {
            Tables::Single(table) => table.sample(rng),
            Tables::PerSlot(_, None) => None,
            Tables::PerSlot(_, Some(slots)) if slots.len() > 0 => {
                let slot = slots.index_of(rng.random_range(0..slots.len()));
                slots.table(slot).sample(rng)
            }
            Tables::PerSlot(_, Some(_)) => None,
        };
        // SAFETY: entries in the tables are alive, and the store is borrowed.
        entry.map(|entry| unsafe { entry.as_ref() })
    }

    /// Visits about `count` random entries, of those with an expiry if `volatile`. `ahead` remembers where to go on.
    pub(crate) fn random_run(
        &self,
        count: usize,
        volatile: bool,
        ahead: &mut Ahead,
        rng: &mut SmallRng,
        mut visit: impl FnMut(&Entry),
    ) {
        // SAFETY: entries in the tables and the index are alive, and the store is borrowed.
        let mut each = |entry: EntryPtr| visit(unsafe { entry.as_ref() });
        match &self.tables {
            _ if volatile => self.volatile.sample_several(count, rng, each),
            Tables::Single(table) => table.sample_run(count, ahead, rng, each),
            Tables::PerSlot(_, None) => {}
            Tables::PerSlot(_, Some(slots)) if slots.len() > 0 => {
                // The table of a slot may hold fewer entries than the sample asks for.
                for _ in 0..count {
                    let slot = slots.index_of(rng.random_range(0..slots.len()));
                    slots.table(slot).sample(rng).into_iter().for_each(&mut each);
                }
            }
            Tables::PerSlot(_, Some(_)) => {}
        }
    }

    /// A random entry among those with an expiry.
    pub(crate) fn random_volatile(&self, rng: &mut SmallRng) -> Option<&Entry> {
        // SAFETY: entries in the index are entries of the main tables, alive.
        self.volatile.sample(rng).map(|entry| unsafe { entry.as_ref() })
    }

    /// Number of hashes with fields that expire.
    #[inline]
    pub(crate) fn fields_len(&self) -> usize {
        self.fields.len()
    }

    /// The keys with an expiry, by that time.
    #[inline]
    pub(crate) fn volatile(&self) -> &Calendar<EntryPtr> {
        &self.volatile
    }

    /// Calls `visit` for every key with an expiry.
    #[cfg(test)]
    pub(crate) fn for_each_volatile(&self, mut visit: impl FnMut(&Entry)) {
        // SAFETY: entries in the index are entries of the main tables, alive, and the store is borrowed.
        self.volatile.for_each(|entry| visit(unsafe { entry.as_ref() }));
    }

    /// The hashes with fields that expire, by the time of the next look at them.
    #[inline]
    pub(crate) fn fields(&self) -> &Calendar<EntryPtr> {
        &self.fields
    }

    /// Moves the indexes along with the clock; returns the time of the next work in each, the volatile index first.
    #[inline]
    pub(crate) fn follow_clock(&mut self, now_ms: i64) -> (Option<i64>, Option<i64>) {
        (
            self.volatile.follow_clock(now_ms),
            self.fields.follow_clock(now_ms),
        )
    }

    /// Brings the volatile index up to `now`, moving about `budget` pointers, and notes some of the keys that are over.
    /// Returns how many pointers moved.
    pub(crate) fn find_expired(&mut self, now_ms: i64, budget: usize, expired: &mut Expired) -> usize {
        // SAFETY: entries in the index are entries of the main tables, alive.
        let time_of = |entry: EntryPtr| unsafe { entry.as_ref() }.expiry();
        find_over(
            &mut self.volatile,
            &self.hasher,
            (now_ms, budget),
            expired,
            time_of,
        )
    }

    /// Notes keys of hashes that the field index has to look at.
    pub(crate) fn find_hashes(&mut self, now_ms: i64, budget: usize, expired: &mut Expired) -> usize {
        // SAFETY: entries in the index are entries of the main tables, alive.
        let time_of = |entry: EntryPtr| unsafe { entry.as_ref() }.get::<Hash>().map(Hash::listed_ms);
        find_over(&mut self.fields, &self.hasher, (now_ms, budget), expired, time_of)
    }

    /// About how many keys are over and still here.
    pub(crate) fn expired_len(&self, now_ms: i64) -> usize {
        // SAFETY: entries in the index are entries of the main tables, alive.
        let time_of = |entry: EntryPtr| unsafe { entry.as_ref() }.expiry();
        let time_of = |entry| time_of(entry).expect("what an index holds has a time");
        self.volatile.over_len(now_ms, time_of)
    }

    #[inline]
    pub(crate) fn prefetch_bucket(&self, hash: u64, slot: u16) {
        if let Some(table) = self.table(slot) {
            table.prefetch_bucket(hash);
        }
    }

    #[inline]
    pub(crate) fn prefetch_entry(&self, hash: u64, slot: u16) {
        if let Some(table) = self.table(slot) {
            table.prefetch_entry(hash);
        }
    }

    pub(crate) fn stats(&self) -> TableStats {
        match &self.tables {
            Tables::Single(table) => table.stats(),
            Tables::PerSlot(_, slots) => slots
                .as_ref()
                .map_or_else(TableStats::default, |slots| slots.stats()),
        }
    }

    #[inline]
    pub(crate) fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    /// Frees one bucket and its entries; false when all are freed. Between the calls, nothing else may be called.
    /// `each` gets the entries.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(EntryBox)) -> bool {
        // The indexes are freed first, so that they never point at a freed entry.
        if self.volatile.drain() || self.fields.drain() {
            return true;
        }
        // SAFETY: the entry leaves the only table that has it and is handed on.
        let mut each = |entry: EntryPtr| each(unsafe { EntryBox::from_ptr(entry) });
        match &mut self.tables {
            Tables::Single(table) => table.drain_bucket(&mut each),
            Tables::PerSlot(_, None) => return false,
            Tables::PerSlot(own, Some(slots)) => {
                if let Some(slot) = slots.next_used(0) {
                    let mut count = 0;
                    slots.table_mut(slot).drain_bucket(|entry| {
                        count += 1;
                        each(entry);
                    });
                    slots.removed(slot, count);
                }
                // The tables go with the last entry: nobody looks at a store without entries again.
                if slots.len() == 0 {
                    self.tables = Tables::PerSlot(*own, None);
                }
            }
        }
        self.len() > 0
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        while self.drain(drop) {}
    }
}

/// Whether a hash of the field index moves in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relist {
    /// Only if a field expires before the time of the next look. Otherwise that time stays: repeatedly extending a
    /// field then costs nothing here, except a look that comes too early.
    IfEarlier,
    /// To the expiry of its first field.
    Always,
}

/// Brings an index up to a time, moving about so many pointers, and notes some of the keys that are over.
fn find_over(
    index: &mut Calendar<EntryPtr>,
    hasher: &KeyHasher,
    (now_ms, budget): (i64, usize),
    expired: &mut Expired,
    time_of: impl Fn(EntryPtr) -> Option<i64>,
) -> usize {
    let time_of = |entry| time_of(entry).expect("what an index holds has a time");
    let mut found = SmallVec::new();
    let moved = index.move_on(now_ms, budget, hasher, time_of);
    index.over(now_ms, &mut found, time_of);
    for &entry in &found {
        prefetch(entry.as_ptr().as_ptr());
    }
    expired.clear();
    for entry in found {
        // SAFETY: entries in the indexes are entries of the main tables, alive; nothing has changed since.
        expired.push(unsafe { entry.key() });
    }
    moved
}

/// An entry in the store, found, with the means to change it.
pub(crate) struct Occupied<'a> {
    store: &'a mut Store,
    /// Position in the main table.
    position: Position,
    entry: EntryPtr,
    hash: u64,
    slot: u16,
}

impl<'a> Occupied<'a> {
    #[inline]
    pub(crate) fn entry(&self) -> &Entry {
        // SAFETY: alive; the store is borrowed mutably, and so are we for this.
        unsafe { self.entry.as_ref() }
    }

    /// Whether a change has to be put off, see [`Database::is_held_by_snapshot`](super::Database::is_held_by_snapshot).
    #[inline]
    pub(crate) fn waits_for_snapshot(&mut self) -> bool {
        if self.store.cut.is_none() {
            return false;
        }
        // SAFETY: the entry is alive; nothing is changed.
        let bytes = unsafe { self.entry.key() };
        let (hash, slot) = (self.hash, self.slot);
        self.store.waits_for_snapshot(&Key { bytes, hash, slot })
    }

    /// Saves the entry if a snapshot still has to: called before every change of the value or the expiry.
    #[inline]
    fn before_change(&mut self) {
        if self.store.cut.is_some() {
            self.store.save_before_change(self.entry);
        }
    }

    /// Sets the access clock, which no snapshot has to know of.
    #[inline]
    pub(crate) fn set_clock(&mut self, clock: u32) {
        // SAFETY: alive; the store is borrowed mutably, and so are we for this.
        unsafe { self.entry.as_mut() }.set_clock(clock);
    }

    /// The entry, to be read.
    #[inline]
    pub(crate) fn into_ref(self) -> &'a Entry {
        // SAFETY: alive, and the store stays borrowed for `'a`.
        unsafe { self.entry.as_ref() }
    }

    #[inline]
    pub(crate) fn into_mut(mut self) -> &'a mut Entry {
        self.before_change();
        self.into_changed()
    }

    /// The entry, which a snapshot need not save any more.
    #[inline]
    fn into_changed(self) -> &'a mut Entry {
        debug_assert!(self.store.cut.is_none() || self.entry().mark() == self.store.mark);
        // SAFETY: alive, and the store stays borrowed for `'a`.
        unsafe { self.entry.as_mut() }
    }

    /// Gives the key another value and expiry: in place if the size allows, else by an entry that takes the place of
    /// this one. The access clock stays.
    #[inline]
    pub(crate) fn assign(mut self, expiry: Option<i64>, value: NewValue<'_>) -> (&'a mut Entry, Displaced) {
        self.before_change();
        if self.entry().lists_fields() {
            // SAFETY: the entry is alive; the store is borrowed mutably.
            let fields = unsafe { self.entry.as_ref() }.get::<Hash>();
            self.store.unlist_fields(self.hash, self.entry, fields);
            self.entry_mut().set_lists_fields(false);
        }
        let before = self.entry().expiry();
        // SAFETY: the store is borrowed mutably.
        match unsafe { self.entry.assign(expiry, value) } {
            Ok(replaced) => {
                self.follow_expiry(before);
                self.store.list_fields(self.hash, self.entry, Relist::IfEarlier);
                let displaced = replaced.map_or(Displaced::Nothing, Displaced::Value);
                (self.into_changed(), displaced)
            }
            Err(value) => {
                let new = EntryBox::new(self.entry().key(), self.entry().clock(), expiry, value);
                let (entry, old) = self.put(new);
                (entry, Displaced::Entry(old))
            }
        }
    }

    /// Brings the volatile index up to date when an expiry there was has become another one.
    #[inline]
    fn follow_expiry(&mut self, before: Option<i64>) {
        if let (Some(before), Some(after)) = (before, self.entry().expiry())
            && before != after
        {
            let (old, new) = ((self.entry, before), (self.entry, after));
            let hasher = self.store.hasher;
            // SAFETY: the entry is in the index under the time before; it leaves it before it is freed.
            unsafe { self.store.volatile.follow(self.hash, old, new, &hasher) };
        }
    }

    /// Brings the field index up to date after a change of the value.
    pub(crate) fn list_fields(self) {
        self.store.list_fields(self.hash, self.entry, Relist::IfEarlier);
    }

    /// Has the hash looked at again when its first field expires.
    pub(crate) fn relist_fields(self) {
        self.store.list_fields(self.hash, self.entry, Relist::Always);
    }

    /// Sets or clears the expiry.
    pub(crate) fn set_expiry(mut self, expiry: Option<i64>) -> &'a mut Entry {
        self.before_change();
        match (self.entry().expiry(), expiry) {
            (None, None) => self.into_changed(),
            (before @ Some(_), Some(at)) => {
                self.entry_mut().set_expiry_in_place(at);
                self.follow_expiry(before);
                self.into_changed()
            }
            (None, Some(_)) | (Some(_), None) => {
                let clock = self.entry().clock();
                // SAFETY: the store is borrowed mutably; what is left of the old entry is dropped by `replace`'s result.
                let new = unsafe { self.entry.rebuild(None, clock, expiry) };
                self.put(new).0
            }
        }
    }

    #[inline]
    pub(crate) fn entry_mut(&mut self) -> &mut Entry {
        self.before_change();
        // SAFETY: alive; the store is borrowed mutably, and so are we for this.
        unsafe { self.entry.as_mut() }
    }

    /// Makes the string raw and at least `len` bytes long, with zeros behind what there was.
    pub(crate) fn grow(mut self, len: usize) -> &'a mut Entry {
        self.before_change();
        // SAFETY: the store is borrowed mutably; entries hold strings.
        if unsafe { self.entry.grow_in_place(len) } {
            return self.into_changed();
        }
        let new = self.entry().grown(len);
        self.put(new).0
    }

    /// Puts another entry of the same key in the place of this one, which comes back.
    pub(crate) fn replace(mut self, new: EntryBox) -> (&'a mut Entry, EntryBox) {
        self.before_change();
        self.put(new)
    }

    /// Puts another entry of the same key in the place of this one, which a snapshot need not save any more.
    fn put(self, mut new: EntryBox) -> (&'a mut Entry, EntryBox) {
        new.set_mark(self.store.mark);
        debug_assert_eq!(new.key(), self.entry().key());
        let (before, after) = (self.entry().expiry(), new.expiry());
        let new = new.into_ptr();
        let store = self.store;
        let hasher = store.hasher;
        // SAFETY: the position was found in this table, which has not changed since; the new entry is owned by the store
        // from here on.
        unsafe { store.table_mut(self.slot).replace(self.position, new) };
        match (before, after) {
            (Some(before), Some(after)) => {
                let (old, new) = ((self.entry, before), (new, after));
                // SAFETY: the keys are the same, and both entries alive; the new one is in the main table as well.
                unsafe { store.volatile.follow(self.hash, old, new, &hasher) };
            }
            (Some(before), None) => store.volatile.leave(self.hash, self.entry, before),
            // SAFETY: the hash is that of the key; the entry is in the main table and leaves both before it is freed.
            (None, Some(after)) => unsafe { store.volatile.enter(self.hash, new, after, &hasher) },
            (None, None) => {}
        }
        // SAFETY: the old entry is alive until it is handed out, and the new one in the table.
        let (old, built) = unsafe { (self.entry.as_ref(), new.as_ref()) };
        if old.lists_fields() {
            // The value has moved to the entry that was built from this one.
            let fields = old.get::<Hash>().or_else(|| built.get::<Hash>());
            store.unlist_fields(self.hash, self.entry, fields);
        }
        store.list_fields(self.hash, new, Relist::IfEarlier);
        // SAFETY: no table has the old entry any more; the new one is borrowed with the store.
        unsafe { (new.as_mut(), EntryBox::from_ptr(self.entry)) }
    }

    /// Takes the entry out.
    pub(crate) fn remove(mut self) -> EntryBox {
        self.before_change();
        self.store.unlist(self.hash, self.entry);
        // SAFETY: the position was found in this table, which has not changed since.
        unsafe { self.store.table_mut(self.slot).remove(self.position) };
        if let Tables::PerSlot(own, Some(slots)) = &mut self.store.tables {
            slots.removed(own.index(self.slot), 1);
        }
        // SAFETY: no table has the entry any more.
        unsafe { EntryBox::from_ptr(self.entry) }
    }
}
