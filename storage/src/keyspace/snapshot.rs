//! Snapshots: the content of a keyspace at one instant, saved in slices while it goes on changing.
//!
//! A snapshot begins with a *cut*, which takes no time: each store turns its mark over, so that all entries that are there carry
//! the other one. An entry is saved once, and then gets the mark of its store: either when the walk over the store comes to
//! it, or before it changes or goes, whatever the cause. New entries have that mark from the beginning. The walk follows the
//! order of SCAN, so that tables may grow and shrink meanwhile. A store that is emptied is kept until it is saved.
//!
//! A *large* entry is saved in slices, which follow one another in the file: only one keyspace of those that are saved together
//! does so at a time, the one that has the [`Baton`]. Other entries go on being saved beside it.
//!
//! What is saved and not yet written is bounded ([`Flow`]): the walk rests while the bound is reached. Whoever is about to change
//! an entry asks [`waits_for_snapshot`](Database::waits_for_snapshot) first, and puts the change off if it is large, or the bound
//! is reached. A change that comes all the same is correct: the entry is then saved at once, however long that takes.
//!
//! When the walk has visited all, every entry has the mark of its store again, and a write costs no more than a branch.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::store::Store;
use super::{Database, Keyspace};
use crate::entry::{Entry, EntryPtr};
use crate::key::Key;

/// The way in which entries become bytes.
pub trait EntryWriter: fmt::Debug + Send {
    /// Another one that writes in the same way.
    fn another(&self) -> Box<dyn EntryWriter>;

    /// Begins an entry.
    fn begin(&mut self, entry: &Entry, out: &mut Vec<u8>);

    /// Appends at most about `budget` bytes of the entry that was begun; true when it is written. The entry does not change
    /// between two steps, but may have moved.
    fn step(&mut self, entry: &Entry, out: &mut Vec<u8>, budget: usize) -> bool;
}

/// Flow of bytes from a keyspace that is saved to whoever writes them.
#[derive(Debug)]
pub struct Flow {
    /// Bytes saved and not written.
    pending: AtomicUsize,
    /// Number of them from which on the keyspace stops.
    bound: usize,
    /// Entries saved.
    entries: AtomicU64,
    /// Bytes saved because their entry was about to change.
    ahead: AtomicU64,
}

impl Flow {
    /// A flow of about so many bytes at a time.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self {
            pending: AtomicUsize::new(0),
            bound,
            entries: AtomicU64::new(0),
            ahead: AtomicU64::new(0),
        }
    }

    /// Whether more may be saved.
    #[inline]
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.pending() < self.bound
    }

    /// Bytes saved and not written.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Entries saved so far.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Bytes saved so far because their entry was about to change.
    #[must_use]
    pub fn ahead(&self) -> u64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// Notes that bytes were written. True when there was no room before, and is now.
    pub fn written(&self, bytes: usize) -> bool {
        let before = self.pending.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "what is written was saved before");
        before >= self.bound && before - bytes < self.bound
    }

    fn saved(&self, bytes: usize) {
        self.pending.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The right to save a large entry in slices, which one keyspace has at a time.
#[derive(Debug, Default)]
pub struct Baton {
    is_taken: AtomicBool,
    /// A command waits for an entry of another keyspace than the one that has it.
    is_awaited: AtomicBool,
}

impl Baton {
    fn take(&self) -> bool {
        !self.is_taken.swap(true, Ordering::Acquire)
    }

    fn give_back(&self) {
        self.is_awaited.store(false, Ordering::Relaxed);
        self.is_taken.store(false, Ordering::Release);
    }

    fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::Relaxed)
    }
}

/// Means by which the snapshots of several keyspaces become one file.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Flow of this keyspace's bytes.
    pub flow: Arc<Flow>,
    /// The right to save in slices.
    pub baton: Arc<Baton>,
    /// Memory from which on an entry is large, bytes.
    pub large: usize,
}

/// Bytes of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The number that the database of the entries had at the cut.
    pub db: u16,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Place in a large entry.
    pub part: Part,
}

/// Place of bytes in a large entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Whole entries.
    Whole,
    /// A slice. The next one has to stand right behind it.
    Slice,
    /// The last slice.
    Last,
}

/// A store's part of a snapshot.
#[derive(Debug)]
pub(crate) struct Cut {
    /// The number that the database had at the cut.
    db: u16,
    lane: Lane,
    writer: Box<dyn EntryWriter>,
    /// Place of the walk.
    pub(super) cursor: u64,
    /// Saved entries that were not taken yet.
    saved: Vec<u8>,
    slicing: Option<Slicing>,
    /// Large entries that a change waits for.
    urgent: VecDeque<Box<[u8]>>,
    /// A command is among those changes: see [`Keyspace::is_snapshot_awaited`].
    is_awaited: bool,
    /// The snapshot was given up: the walk goes on only to turn marks over.
    is_given_up: bool,
}

/// A large entry on its way out. The lane has the baton.
#[derive(Debug)]
struct Slicing {
    /// The entry; none when all of it is saved.
    entry: Option<EntryPtr>,
    writer: Box<dyn EntryWriter>,
    /// Bytes that were not taken yet.
    out: Vec<u8>,
}

/// The most large entries that are noted because a change waits for them.
const URGENT_MAX: usize = 64;

impl Cut {
    fn new(db: u16, lane: Lane, writer: Box<dyn EntryWriter>) -> Self {
        Self {
            db,
            lane,
            writer,
            cursor: 0,
            saved: Vec::new(),
            slicing: None,
            urgent: VecDeque::new(),
            is_awaited: false,
            is_given_up: false,
        }
    }

    /// The cut of entries that leave the store together; none if nothing of them has to be saved.
    pub(super) fn of_part(&self) -> Option<Self> {
        (!self.is_given_up).then(|| Self::new(self.db, self.lane.clone(), self.writer.another()))
    }

    /// Whether it still has to save what is in its store.
    pub(super) fn is_wanted(&self) -> bool {
        !self.is_given_up
    }

    /// Whether an entry is too large to be saved at once.
    pub(super) fn is_large(&self, entry: &Entry) -> bool {
        !self.is_given_up && entry.memory() > self.lane.large
    }

    /// Whether more may be saved.
    pub(super) fn has_room(&self) -> bool {
        self.is_given_up || self.lane.flow.has_room()
    }

    /// Saves an entry that is not being saved in slices, as a whole, unless it has the mark of those that need not be.
    /// Returns the number of bytes.
    pub(super) fn save(&mut self, entry: &mut Entry, mark: bool) -> usize {
        if entry.mark() == mark {
            return 0;
        }
        entry.set_mark(mark);
        if self.is_given_up {
            return 0;
        }
        let before = self.saved.len();
        self.writer.begin(entry, &mut self.saved);
        while !self.writer.step(entry, &mut self.saved, usize::MAX) {}
        let bytes = self.saved.len() - before;
        self.lane.flow.saved(bytes);
        self.lane.flow.entries.fetch_add(1, Ordering::Relaxed);
        bytes
    }

    /// Saves an entry that is about to change or go, unless it has the mark of those that need not be.
    pub(super) fn save_ahead(&mut self, (ptr, entry): (EntryPtr, &mut Entry), mark: bool) {
        let bytes = if self.sliced() == Some(ptr) {
            self.save_slice(entry, mark, usize::MAX)
        } else {
            self.save(entry, mark)
        };
        self.lane.flow.ahead.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The entry that is being saved in slices.
    pub(super) fn sliced(&self) -> Option<EntryPtr> {
        self.slicing.as_ref().and_then(|slicing| slicing.entry)
    }

    /// Whether an entry is being saved in slices, or was and its last bytes are still to be taken.
    pub(super) fn is_slicing(&self) -> bool {
        self.slicing.is_some()
    }

    /// Begins to save an entry in slices; false when it is another's turn, or another entry's.
    pub(super) fn begin_slices(&mut self, ptr: EntryPtr, entry: &Entry) -> bool {
        if self.slicing.is_some() || !self.lane.baton.take() {
            return false;
        }
        let (mut writer, mut out) = (self.writer.another(), Vec::new());
        writer.begin(entry, &mut out);
        self.lane.flow.saved(out.len());
        self.slicing = Some(Slicing {
            entry: Some(ptr),
            writer,
            out,
        });
        true
    }

    /// Saves the next slice of the entry that was begun. Returns the number of bytes.
    pub(super) fn save_slice(&mut self, entry: &mut Entry, mark: bool, budget: usize) -> usize {
        let Some(slicing) = &mut self.slicing else {
            return 0;
        };
        let before = slicing.out.len();
        if slicing.writer.step(entry, &mut slicing.out, budget) {
            slicing.entry = None;
            entry.set_mark(mark);
            self.lane.flow.entries.fetch_add(1, Ordering::Relaxed);
        }
        let bytes = slicing.out.len() - before;
        self.lane.flow.saved(bytes);
        bytes
    }

    /// Notes that a change waits until this entry is saved.
    pub(super) fn hurry(&mut self, key: &[u8]) {
        if self.urgent.len() < URGENT_MAX && !self.urgent.iter().any(|known| **known == *key) {
            self.urgent.push_back(key.into());
        }
    }

    /// An entry that a change waits for, to be saved next; none while one is being saved in slices.
    pub(super) fn next_urgent(&mut self) -> Option<Box<[u8]>> {
        self.urgent.pop_front_if(|_| self.slicing.is_none())
    }

    /// Notes again that a change waits for an entry, ahead of others. It is another keyspace's turn.
    pub(super) fn hurry_again(&mut self, key: Box<[u8]>) {
        self.urgent.push_front(key);
        if self.is_awaited {
            self.lane.baton.is_awaited.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a command waits for a large entry that is being saved, or is to be saved next, here or elsewhere.
    fn is_awaited(&self) -> bool {
        let is_slicing = self.is_slicing();
        self.is_awaited && (is_slicing || !self.urgent.is_empty())
            || is_slicing && self.lane.baton.is_awaited()
    }

    /// Hands over what was saved.
    fn hand_over(&mut self, take: &mut impl FnMut(Saved)) {
        if !self.saved.is_empty() {
            take(Saved {
                db: self.db,
                bytes: std::mem::take(&mut self.saved),
                part: Part::Whole,
            });
        }
        let Some(slicing) = &mut self.slicing else { return };
        let is_last = slicing.entry.is_none();
        if is_last || !slicing.out.is_empty() {
            take(Saved {
                db: self.db,
                bytes: std::mem::take(&mut slicing.out),
                part: if is_last { Part::Last } else { Part::Slice },
            });
        }
        if is_last {
            self.end_slices();
        }
    }

    fn end_slices(&mut self) {
        if self.slicing.take().is_some() {
            self.lane.baton.give_back();
            // A command that waits for another one asks again.
            self.is_awaited = false;
        }
    }

    fn give_up(&mut self) {
        self.is_given_up = true;
        self.saved = Vec::new();
        self.urgent.clear();
        self.end_slices();
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.end_slices();
    }
}

/// State of a snapshot after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to save.
    More,
    /// There is more to save, but no room for it, or it is another keyspace's turn to save a large entry.
    Held,
    /// All is saved, or there is no snapshot.
    Done,
}

/// Budget of a step for a bucket without entries to save.
pub(super) const BUCKET_COST: usize = 32;

impl Keyspace {
    /// Begins a snapshot, whose entries `writer` writes. False when there is one, or one that was given up has not been cleared
    /// away yet. O(databases).
    pub fn begin_snapshot(&mut self, lane: &Lane, writer: &dyn EntryWriter) -> bool {
        if self.is_saved {
            return false;
        }
        self.is_saved = true;
        for (number, database) in (0..).zip(&mut self.databases) {
            database
                .store
                .begin_cut(Cut::new(number, lane.clone(), writer.another()));
        }
        true
    }

    /// Whether a snapshot is under way, or one that was given up is being cleared away.
    #[inline]
    #[must_use]
    pub fn has_snapshot(&self) -> bool {
        self.is_saved
    }

    /// Whether a command waits for a large entry, which is saved in slices: it should not take longer than necessary. O(databases).
    #[must_use]
    pub fn is_snapshot_awaited(&self) -> bool {
        let cuts = self
            .databases
            .iter()
            .filter_map(|database| database.store.current_cut());
        self.is_saved && cuts.into_iter().any(Cut::is_awaited)
    }

    /// Saves some entries, about `budget` bytes of them or buckets without any, and hands over what was saved since the last
    /// step.
    pub fn save_some(&mut self, budget: usize, mut take: impl FnMut(Saved)) -> Progress {
        if !self.is_saved {
            return Progress::Done;
        }
        let mut left = budget;
        let mut progress = Progress::Done;
        for database in &mut self.databases {
            database.save_large(&mut left);
        }
        for database in &mut self.databases {
            match database.save_some(&mut left, &mut take) {
                Progress::Done => {}
                _ if left == 0 => progress = Progress::More,
                found if progress == Progress::Done => progress = found,
                _ => {}
            }
        }
        self.is_saved = progress != Progress::Done;
        progress
    }

    /// Gives the snapshot up. Nothing more is saved; [`save_some`](Self::save_some) is to be called until it is done.
    pub fn give_up_snapshot(&mut self) {
        for database in &mut self.databases {
            for store in std::mem::take(&mut database.unsaved) {
                database.garbage.push_store(store);
            }
            if let Some(cut) = database.store.cut() {
                cut.give_up();
            }
        }
    }
}

impl Database {
    /// Whether a command that changes a key has to wait until more of a snapshot is saved. Asking has the entry saved soon. With
    /// no snapshot under way this costs a branch.
    #[inline]
    pub fn waits_for_snapshot(&mut self, key: &Key<'_>) -> bool {
        let waits = self.is_held_by_snapshot(key);
        if waits && let Some(cut) = self.store.cut() {
            cut.is_awaited = true;
        }
        waits
    }

    /// Whether a change of a key that nobody waits for has to be put off until more of a snapshot is saved. Asking has the entry
    /// saved ahead of others.
    #[inline]
    pub fn is_held_by_snapshot(&mut self, key: &Key<'_>) -> bool {
        self.store.cut().is_some() && self.store.waits_for_snapshot(key)
    }

    fn stores(&mut self) -> impl Iterator<Item = &mut Store> {
        self.unsaved.iter_mut().chain([&mut self.store])
    }

    /// Goes on with an entry that is saved in slices, or begins one that a change waits for.
    fn save_large(&mut self, left: &mut usize) {
        let slot_of = self.slot_of;
        for store in self.stores() {
            store.save_large(left, slot_of);
        }
    }

    fn save_some(&mut self, left: &mut usize, take: &mut impl FnMut(Saved)) -> Progress {
        while let Some(store) = self.unsaved.last_mut() {
            match walk(store, left, take) {
                Progress::Done => {
                    let store = self.unsaved.pop().expect("it was there");
                    self.garbage.push_store(store);
                }
                progress => {
                    // Entries that change meanwhile are handed over with the rest.
                    self.hand_over(take);
                    return progress;
                }
            }
        }
        walk(&mut self.store, left, take)
    }

    fn hand_over(&mut self, take: &mut impl FnMut(Saved)) {
        for cut in self.stores().filter_map(Store::cut) {
            cut.hand_over(take);
        }
    }
}

/// Goes on with the walk over a store, and hands over what was saved.
fn walk(store: &mut Store, left: &mut usize, take: &mut impl FnMut(Saved)) -> Progress {
    let mut progress = Progress::More;
    while *left > 0 && progress == Progress::More {
        progress = store.save_some(left);
    }
    let Some(cut) = store.cut() else {
        return Progress::Done;
    };
    cut.hand_over(take);
    if progress == Progress::Done {
        store.end_cut();
    }
    progress
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::key::KeyHasher;
    use crate::keyspace::{Expiry, KeyspaceOptions, Layout, Lookup, OnExpired, OwnSlots};
    use crate::memory::thread_balance;
    use crate::value::INT_TEXT_MAX;
    use crate::value::hash::{FieldExpiry, Hash, HashLimits};

    const HASHER: KeyHasher = KeyHasher::new(3);
    const LIMITS: HashLimits = HashLimits {
        listpack_entries: 4,
        listpack_value: 64,
        hasher: HASHER,
    };
    const DATABASES: usize = 3;

    fn keyspace(layout: Layout) -> Keyspace {
        Keyspace::new(KeyspaceOptions {
            databases: DATABASES,
            layout,
            hasher: HASHER,
            slot_of: |key| u16::from(key[key.len() - 1] % 7),
        })
    }

    /// One line for an entry.
    fn line(entry: &Entry) -> Vec<u8> {
        let mut text = format!("{} {:?}", entry.key().escape_ascii(), entry.expiry());
        if let Some(string) = entry.string() {
            text += &format!(" {}", string.as_bytes(&mut [0; INT_TEXT_MAX]).escape_ascii());
        }
        if let Some(hash) = entry.get::<Hash>() {
            let mut fields: Vec<String> = hash.iter(i64::MIN).map(|field| format!("{field:?}")).collect();
            fields.sort();
            text += &fields.join(",");
        }
        text.push('\n');
        text.into_bytes()
    }

    /// Writes a line for each entry, in steps.
    #[derive(Debug, Default)]
    struct LineWriter {
        written: Option<usize>,
    }

    impl EntryWriter for LineWriter {
        fn another(&self) -> Box<dyn EntryWriter> {
            Box::new(Self::default())
        }

        fn begin(&mut self, _: &Entry, _: &mut Vec<u8>) {
            let before = self.written.replace(0);
            assert!(before.is_none(), "an entry was begun within another");
        }

        fn step(&mut self, entry: &Entry, out: &mut Vec<u8>, budget: usize) -> bool {
            let line = line(entry);
            let written = self.written.expect("an entry was begun");
            let end = line.len().min(written.saturating_add(budget));
            out.extend(&line[written..end]);
            self.written = (end < line.len()).then_some(end);
            end == line.len()
        }
    }

    type Lines = BTreeMap<u16, Vec<String>>;

    fn lines(text: &[u8]) -> impl Iterator<Item = String> + '_ {
        text.split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| String::from_utf8_lossy(line).into_owned())
    }

    fn sorted(mut all: Lines) -> Lines {
        all.values_mut().for_each(|lines| lines.sort());
        all.retain(|_, lines| !lines.is_empty());
        all
    }

    /// The content of a keyspace.
    fn content(keyspace: &Keyspace) -> Lines {
        let mut all = Lines::new();
        for db in 0..DATABASES {
            let mut text = Vec::new();
            keyspace.database(db).for_each(|entry| text.extend(line(entry)));
            all.entry(db as u16).or_default().extend(lines(&text));
        }
        sorted(all)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(usize, Option<i64>),
        Integer(i64),
        Grow(usize),
        Text,
        Field(u8, Option<i64>),
        Remove,
        Unlink,
        Read,
        Write,
        Expire(Option<i64>),
        Rename(u32, usize),
        Copy(u32, usize),
        Swap(usize),
        Flush,
        FlushSlot,
        Clock(i64),
        Release(usize),
        Begin,
        Save(usize),
        Written,
        Baton,
        GiveUp,
        Many(u32),
        Few(u32),
    }

    impl Step {
        /// Whether it changes its key.
        fn changes(&self) -> bool {
            use Step::{Copy, Expire, Field, Grow, Integer, Remove, Rename, Set, Text, Unlink, Write};
            matches!(
                self,
                Set(..)
                    | Integer(_)
                    | Grow(_)
                    | Text
                    | Field(..)
                    | Remove
                    | Unlink
                    | Write
                    | Expire(_)
                    | Rename(..)
                    | Copy(..)
            )
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        let time = || proptest::option::of(0..60_i64);
        prop_oneof![
            4 => (0..40_usize, time()).prop_map(|(len, at)| Step::Set(len, at)),
            1 => (1000..3000_usize, time()).prop_map(|(len, at)| Step::Set(len, at)),
            2 => any::<i64>().prop_map(Step::Integer),
            2 => (0..2000_usize).prop_map(Step::Grow),
            1 => Just(Step::Text),
            4 => (0..12_u8, time()).prop_map(|(field, at)| Step::Field(field, at)),
            2 => Just(Step::Remove),
            1 => Just(Step::Unlink),
            2 => Just(Step::Read),
            1 => Just(Step::Write),
            2 => time().prop_map(Step::Expire),
            2 => (any::<u32>(), 0..DATABASES).prop_map(|(to, db)| Step::Rename(to, db)),
            2 => (any::<u32>(), 0..DATABASES).prop_map(|(to, db)| Step::Copy(to, db)),
            1 => (0..DATABASES).prop_map(Step::Swap),
            1 => Just(Step::Flush),
            1 => Just(Step::FlushSlot),
            2 => (0..10_i64).prop_map(Step::Clock),
            1 => (0..30_usize).prop_map(Step::Release),
            3 => Just(Step::Begin),
            6 => (0..600_usize).prop_map(Step::Save),
            2 => Just(Step::Written),
            1 => Just(Step::Baton),
            1 => prop_oneof![9 => Just(Step::Save(1)), 1 => Just(Step::GiveUp)],
            1 => (1..300_u32).prop_map(Step::Many),
            1 => (1..300_u32).prop_map(Step::Few),
        ]
    }

    /// Bytes that may wait to be written.
    const BOUND: usize = 1500;
    /// Memory from which on an entry is saved in slices.
    const LARGE: usize = 700;

    /// A keyspace, and what its snapshot has to come to.
    struct Trial {
        keyspace: Keyspace,
        now_ms: i64,
        lane: Lane,
        /// The baton was taken by another keyspace.
        is_baton_away: bool,
        expected: Option<Lines>,
        saved: Lines,
        /// Slices of an entry whose last one has not come yet.
        slices: Option<(u16, Vec<u8>)>,
        /// Bytes that were handed over and not written.
        unwritten: usize,
        /// Snapshots that were compared.
        compared: usize,
    }

    impl Trial {
        fn new(layout: Layout) -> Self {
            Self {
                keyspace: keyspace(layout),
                now_ms: 0,
                lane: Lane {
                    flow: Arc::new(Flow::new(BOUND)),
                    baton: Arc::default(),
                    large: LARGE,
                },
                is_baton_away: false,
                expected: None,
                saved: Lines::new(),
                slices: None,
                unwritten: 0,
                compared: 0,
            }
        }

        fn take(&mut self, saved: Saved) {
            self.unwritten += saved.bytes.len();
            let Saved { db, bytes, part } = saved;
            let whole = match part {
                Part::Whole => bytes,
                Part::Slice | Part::Last => {
                    let (of, mut slices) = self.slices.take().unwrap_or((db, Vec::new()));
                    assert_eq!(of, db);
                    slices.extend(bytes);
                    if part == Part::Slice {
                        self.slices = Some((db, slices));
                        return;
                    }
                    slices
                }
            };
            assert_eq!(whole.last(), Some(&b'\n'), "entries are whole");
            self.saved.entry(db).or_default().extend(lines(&whole));
        }

        fn save(&mut self, budget: usize) {
            let (had_room, before) = (self.lane.flow.has_room(), self.lane.flow.pending());
            let mut taken = Vec::new();
            let progress = self.keyspace.save_some(budget, |saved| taken.push(saved));
            assert!(
                had_room || self.lane.flow.pending() == before,
                "the bound is kept"
            );
            taken.into_iter().for_each(|saved| self.take(saved));
            if progress == Progress::Done {
                let saved = sorted(std::mem::take(&mut self.saved));
                assert!(self.slices.is_none());
                if let Some(expected) = self.expected.take() {
                    assert_eq!(saved, expected);
                    self.compared += 1;
                } else {
                    assert!(saved.is_empty(), "nothing is saved of what was given up");
                }
            }
        }

        fn write_all(&mut self) {
            self.lane.flow.written(std::mem::take(&mut self.unwritten));
        }

        fn switch_baton(&mut self) {
            if self.is_baton_away {
                self.lane.baton.give_back();
                self.is_baton_away = false;
            } else {
                self.is_baton_away = self.lane.baton.take();
            }
        }

        fn apply(&mut self, (n, db): (u32, usize), step: Step, keys: u32) {
            let name = |n: u32| format!("key:{}", n % keys).into_bytes();
            let bytes = name(n);
            let key = self.keyspace.key(&bytes);
            let now_ms = self.now_ms;
            let database = self.keyspace.database_mut(db);
            // Most changes wait when they should, some do not.
            if n % 7 > 0 && step.changes() && database.waits_for_snapshot(&key) {
                return;
            }
            match step {
                Step::Set(len, at) => {
                    let expiry = at.map_or(Expiry::Keep, |at| Expiry::At(now_ms + at));
                    database.set_string(&key, &vec![b'a' + (n % 26) as u8; len], expiry, 1);
                }
                Step::Integer(int) => {
                    database.set_integer(&key, int, Expiry::Keep, 1);
                }
                Step::Grow(len) => {
                    if database.peek(&key).is_none_or(|entry| entry.string().is_some())
                        && let Some(last) = database.string_mut(&key, len, 1).last_mut()
                    {
                        *last = b'a' + (len % 26) as u8;
                    }
                }
                Step::Text => {
                    database.set_text(&key, b"17", Expiry::Clear, 1);
                }
                Step::Field(field, at) => {
                    if database
                        .peek(&key)
                        .is_none_or(|entry| entry.get::<Hash>().is_some())
                    {
                        let entry = database.entry_or_empty::<Hash>(&key, 1);
                        let hash = entry.get_mut::<Hash>().unwrap();
                        let field = [b'f', field];
                        hash.set(&field, &n.to_be_bytes(), FieldExpiry::Clear, now_ms, &LIMITS);
                        hash.set_expiry(&field, at.map(|at| now_ms + at), now_ms);
                        database.settle(&key);
                    }
                }
                Step::Remove => {
                    database.remove(&key);
                }
                Step::Unlink => {
                    database.unlink(&key);
                }
                Step::Read => {
                    database.look_up(&key, now_ms, |clock| clock + 1, |_| OnExpired::Remove);
                }
                Step::Write => {
                    let found =
                        database.look_up_to_change(&key, now_ms, |clock| clock + 1, |_| OnExpired::Unlink);
                    if let Lookup::Live(entry) = found {
                        entry.replace_int(i64::from(n));
                    }
                }
                Step::Expire(at) => {
                    database.set_expiry(&key, at.map(|at| now_ms + at));
                }
                Step::Rename(to, to_db) => {
                    if let Some(owned) = database.take(&key) {
                        self.put(&name(to), to_db, owned);
                    }
                }
                Step::Copy(to, to_db) => {
                    if let Some(owned) = database.duplicate(&key) {
                        self.put(&name(to), to_db, owned);
                    }
                }
                Step::Swap(other) => self.keyspace.swap(db, other),
                Step::Flush => {
                    database.flush();
                }
                Step::FlushSlot => {
                    database.flush_slot(key.slot);
                }
                Step::Clock(ms) => {
                    self.now_ms += ms;
                    for db in 0..DATABASES {
                        let database = self.keyspace.database_mut(db);
                        database.next_due(self.now_ms);
                        database.expire_cycle(self.now_ms, 20, |_| {});
                        database.expire_fields(self.now_ms, 20, |_, _| {});
                    }
                }
                Step::Release(budget) => {
                    self.keyspace.release(budget);
                }
                Step::Begin => {
                    if self.keyspace.begin_snapshot(&self.lane, &LineWriter::default()) {
                        self.expected = Some(content(&self.keyspace));
                    }
                }
                Step::Save(budget) => self.save(budget),
                Step::Written => self.write_all(),
                Step::Baton => self.switch_baton(),
                Step::GiveUp => {
                    self.keyspace.give_up_snapshot();
                    (self.expected, self.saved, self.slices) = (None, Lines::new(), None);
                    // After a snapshot was given up, the next one begins with another flow.
                    self.lane.flow = Arc::new(Flow::new(BOUND));
                    self.unwritten = 0;
                }
                Step::Many(count) => {
                    for n in 0..count {
                        let bytes = format!("more:{n}").into_bytes();
                        let key = database.key(&bytes);
                        database.set_integer(&key, i64::from(n), Expiry::Clear, 1);
                    }
                }
                Step::Few(count) => {
                    for n in 0..count {
                        let bytes = format!("more:{n}").into_bytes();
                        let key = database.key(&bytes);
                        database.remove(&key);
                    }
                }
            }
        }

        fn put(&mut self, bytes: &[u8], db: usize, owned: crate::value::Owned) {
            let key = self.keyspace.key(bytes);
            self.keyspace.database_mut(db).insert(&key, owned, 2);
        }
    }

    /// A command that waits for a large entry has it saved in a hurry, until it is saved; one that nobody waits for is not.
    #[test]
    fn a_large_entry_is_awaited_by_commands_only_and_until_it_is_saved() {
        let mut keyspace = keyspace(Layout::Single);
        let (large, other) = (b"large".as_slice(), b"other".as_slice());
        for name in [large, other] {
            let key = keyspace.key(name);
            let value = vec![b'v'; 4 * LARGE];
            keyspace
                .database_mut(1)
                .set_string(&key, &value, Expiry::Clear, 0);
        }
        let lane = Lane {
            flow: Arc::new(Flow::new(1 << 20)),
            baton: Arc::default(),
            large: LARGE,
        };
        assert!(keyspace.begin_snapshot(&lane, &LineWriter::default()));
        let (large, other) = (keyspace.key(large), keyspace.key(other));
        assert!(keyspace.database_mut(1).is_held_by_snapshot(&other));
        assert!(
            !keyspace.is_snapshot_awaited(),
            "only its expiry or eviction is put off"
        );
        assert!(keyspace.database_mut(1).waits_for_snapshot(&large));
        assert!(keyspace.is_snapshot_awaited());
        let mut slices = 0;
        while keyspace.database_mut(1).waits_for_snapshot(&large) {
            assert!(keyspace.is_snapshot_awaited(), "after {slices} slices");
            keyspace.save_some(LARGE, |_| {});
            slices += 1;
        }
        assert!(slices > 4, "{slices}");
        assert!(!keyspace.is_snapshot_awaited());
        while keyspace.save_some(LARGE, |_| {}) != Progress::Done {
            assert!(!keyspace.is_snapshot_awaited());
        }
    }

    /// The keyspace that has the baton hurries when another one waits for it, for a command.
    #[test]
    fn whoever_has_the_baton_hurries_for_others() {
        let lane = Lane {
            flow: Arc::new(Flow::new(1 << 20)),
            baton: Arc::default(),
            large: LARGE,
        };
        let [mut one, mut other] = [(); 2].map(|()| {
            let mut keyspace = keyspace(Layout::Single);
            let key = keyspace.key(b"large");
            let value = vec![b'v'; 4 * LARGE];
            keyspace
                .database_mut(0)
                .set_string(&key, &value, Expiry::Clear, 0);
            assert!(keyspace.begin_snapshot(&lane, &LineWriter::default()));
            keyspace
        });
        one.save_some(LARGE, |_| {});
        assert!(!one.is_snapshot_awaited());
        let key = other.key(b"large");
        assert!(other.database_mut(0).waits_for_snapshot(&key));
        other.save_some(LARGE, |_| {});
        assert!(one.is_snapshot_awaited() && other.is_snapshot_awaited());
        while one.save_some(LARGE, |_| {}) != Progress::Done {}
        assert!(other.is_snapshot_awaited());
        while other.save_some(LARGE, |_| {}) != Progress::Done {}
        assert!(!other.is_snapshot_awaited());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        /// A snapshot has each key once, as it was at the cut, whatever happens between its slices.
        #[test]
        fn a_snapshot_is_what_was_there_when_it_began(
            steps in prop::collection::vec((any::<u32>(), 0..DATABASES, step()), 0..if cfg!(miri) { 60 } else { 500 }),
            keys in prop_oneof![Just(3_u32), Just(40), Just(400)],
        ) {
            for layout in [Layout::Single, Layout::PerSlot(OwnSlots::ALL)] {
                let start = thread_balance();
                {
                    let mut trial = Trial::new(layout);
                    for (n, db, step) in steps.iter().cloned() {
                        trial.apply((n, db), step, keys);
                    }
                    if trial.is_baton_away {
                        trial.switch_baton();
                    }
                    while trial.keyspace.has_snapshot() {
                        trial.write_all();
                        trial.save(200);
                    }
                    prop_assert!(trial.expected.is_none());
                }
                prop_assert_eq!(thread_balance(), start);
            }
        }
    }
}
