//! Snapshots: the content of a keyspace at one instant, saved in slices while it goes on changing.
//!
//! A snapshot begins with a *cut*, which takes no time: each store turns its mark over, so that all entries that are there carry
//! the other one. An entry is saved once, and then gets the mark of its store: either when the walk over the store comes to
//! it, or before it changes or goes, whatever the cause. New entries have that mark from the beginning. The walk follows the
//! order of SCAN, so that tables may grow and shrink meanwhile. A store that is emptied is kept until it is saved.
//!
//! When the walk has visited all, every entry has the mark of its store again, and a write costs no more than a branch.

use super::{Database, Keyspace};
use crate::entry::Entry;

/// How an entry is appended to what is saved of its database.
pub type Save = fn(&mut Vec<u8>, &Entry);

/// A store's part of a snapshot.
#[derive(Debug)]
pub(crate) struct Cut {
    /// The number that the database had at the cut.
    pub(super) db: u16,
    pub(super) save: Save,
    /// Place of the walk.
    pub(super) cursor: u64,
    /// Saved entries that were not taken yet.
    saved: Vec<u8>,
    /// The snapshot was given up: the walk goes on only to turn marks over.
    is_given_up: bool,
}

impl Cut {
    pub(super) fn new(db: u16, save: Save) -> Self {
        Self {
            db,
            save,
            cursor: 0,
            saved: Vec::new(),
            is_given_up: false,
        }
    }

    /// Saves an entry unless it has the mark of those that need not be.
    #[inline]
    pub(super) fn save_if_left(&mut self, entry: &mut Entry, mark: bool) {
        if entry.mark() == mark {
            return;
        }
        entry.set_mark(mark);
        if !self.is_given_up {
            (self.save)(&mut self.saved, entry);
        }
    }

    /// The cut of entries that leave the store together; none if nothing of them has to be saved.
    pub(super) fn of_part(&self) -> Option<Self> {
        (!self.is_given_up).then(|| Self::new(self.db, self.save))
    }

    /// Whether it still has to save what is in its store.
    pub(super) fn is_wanted(&self) -> bool {
        !self.is_given_up
    }

    fn give_up(&mut self) {
        self.is_given_up = true;
        self.saved = Vec::new();
    }
}

/// State of a snapshot after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to save.
    More,
    /// All is saved, or there is no snapshot.
    Done,
}

/// Buckets visited between two looks at what they came to.
const STEP_BUCKETS: usize = 16;

impl Keyspace {
    /// Begins a snapshot. False when there is one, or one that was given up has not been cleared away yet. O(databases).
    pub fn begin_snapshot(&mut self, save: Save) -> bool {
        if self.has_snapshot() {
            return false;
        }
        for (number, database) in (0..).zip(&mut self.databases) {
            database.store.begin_cut(number, save);
        }
        true
    }

    /// Whether a snapshot is under way, or one that was given up is being cleared away.
    pub fn has_snapshot(&mut self) -> bool {
        self.databases
            .iter_mut()
            .any(|database| database.store.cut().is_some() || !database.unsaved.is_empty())
    }

    /// Saves some entries, about `budget` bytes of them or buckets without any, and hands over what was saved since the last
    /// step, by databases: the number that each had when the snapshot began, and its entries.
    pub fn save_some(&mut self, budget: usize, mut take: impl FnMut(u16, Vec<u8>)) -> Progress {
        let mut left = budget;
        for database in &mut self.databases {
            database.save_some(&mut left, &mut take);
        }
        if self.has_snapshot() {
            Progress::More
        } else {
            Progress::Done
        }
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
    fn save_some(&mut self, left: &mut usize, take: &mut impl FnMut(u16, Vec<u8>)) {
        while let Some(store) = self.unsaved.last_mut()
            && *left > 0
        {
            if walk(store, left, take) == Progress::Done
                && let Some(store) = self.unsaved.pop()
            {
                self.garbage.push_store(store);
            }
        }
        walk(&mut self.store, left, take);
    }
}

/// Goes on with the walk over a store, and hands over what was saved.
fn walk(store: &mut super::store::Store, left: &mut usize, take: &mut impl FnMut(u16, Vec<u8>)) -> Progress {
    let mut hand_over = |cut: &mut Cut| {
        if !cut.saved.is_empty() {
            take(cut.db, std::mem::take(&mut cut.saved));
        }
    };
    while *left > 0 {
        let before = store.cut().map_or(0, |cut| cut.saved.len());
        match store.save_some(STEP_BUCKETS) {
            Some(mut cut) => {
                hand_over(&mut cut);
                return Progress::Done;
            }
            None => {
                let Some(cut) = store.cut() else {
                    return Progress::Done;
                };
                let saved = cut.saved.len() - before;
                *left = left.saturating_sub(saved.max(STEP_BUCKETS));
            }
        }
    }
    store.cut().map_or(Progress::Done, |cut| {
        hand_over(cut);
        Progress::More
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::key::KeyHasher;
    use crate::keyspace::{Expiry, KeyspaceOptions, Layout, Lookup, OnExpired};
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
    fn line(saved: &mut Vec<u8>, entry: &Entry) {
        let mut text = format!("{} {:?}", entry.key().escape_ascii(), entry.expiry());
        if let Some(string) = entry.string() {
            text += &format!(" {}", string.as_bytes(&mut [0; INT_TEXT_MAX]).escape_ascii());
        }
        if let Some(hash) = entry.get::<Hash>() {
            let mut fields: Vec<String> = hash.iter(i64::MIN).map(|field| format!("{field:?}")).collect();
            fields.sort();
            text += &fields.join(",");
        }
        saved.extend_from_slice(text.as_bytes());
        saved.push(b'\n');
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
            keyspace.database(db).for_each(|entry| line(&mut text, entry));
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
        GiveUp,
        Many(u32),
        Few(u32),
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
            1 => prop_oneof![9 => Just(Step::Save(1)), 1 => Just(Step::GiveUp)],
            1 => (1..300_u32).prop_map(Step::Many),
            1 => (1..300_u32).prop_map(Step::Few),
        ]
    }

    /// A keyspace, and what its snapshot has to come to.
    struct Trial {
        keyspace: Keyspace,
        now_ms: i64,
        expected: Option<Lines>,
        saved: Lines,
        /// Snapshots that were compared.
        compared: usize,
    }

    impl Trial {
        fn save(&mut self, budget: usize) {
            let saved = &mut self.saved;
            let progress = self.keyspace.save_some(budget, |db, text| {
                saved.entry(db).or_default().extend(lines(&text));
            });
            if progress == Progress::Done {
                let saved = sorted(std::mem::take(&mut self.saved));
                if let Some(expected) = self.expected.take() {
                    assert_eq!(saved, expected);
                    self.compared += 1;
                } else {
                    assert!(saved.is_empty(), "nothing is saved of what was given up");
                }
            }
        }

        fn apply(&mut self, (n, db): (u32, usize), step: Step, keys: u32) {
            let name = |n: u32| format!("key:{}", n % keys).into_bytes();
            let bytes = name(n);
            let key = self.keyspace.key(&bytes);
            let now_ms = self.now_ms;
            let database = self.keyspace.database_mut(db);
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
                    database.lookup(&key, now_ms, |clock| clock + 1, |_| OnExpired::Remove);
                }
                Step::Write => {
                    let found = database.lookup_mut(&key, now_ms, |clock| clock + 1, |_| OnExpired::Unlink);
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
                    if self.keyspace.begin_snapshot(line) {
                        self.expected = Some(content(&self.keyspace));
                    }
                }
                Step::Save(budget) => self.save(budget),
                Step::GiveUp => {
                    self.keyspace.give_up_snapshot();
                    (self.expected, self.saved) = (None, Lines::new());
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        /// Whatever happens between its slices, a snapshot has each key once, as it was at the cut.
        #[test]
        fn a_snapshot_is_what_was_there_when_it_began(
            steps in prop::collection::vec((any::<u32>(), 0..DATABASES, step()), 0..if cfg!(miri) { 60 } else { 500 }),
            keys in prop_oneof![Just(3_u32), Just(40), Just(400)],
        ) {
            for layout in [Layout::Single, Layout::PerSlot] {
                let start = thread_balance();
                {
                    let mut trial = Trial {
                        keyspace: keyspace(layout),
                        now_ms: 0,
                        expected: None,
                        saved: Lines::new(),
                        compared: 0,
                    };
                    for (n, db, step) in steps.iter().cloned() {
                        trial.apply((n, db), step, keys);
                    }
                    while trial.keyspace.has_snapshot() {
                        trial.save(200);
                    }
                    prop_assert!(trial.expected.is_none());
                }
                prop_assert_eq!(thread_balance(), start);
            }
        }
    }
}
