//! UNSAFE: pointers to entries that expire, arranged by time.
//!
//! Expired keys must be found at the rate at which they expire, whatever the number of other keys, and the time of
//! the next one must be known without a search. So the pointers are in *windows* of time, each a table like those of
//! the keys themselves: a window has no order inside, so that adding, removing and changing its time cost a key what
//! they would cost in one table for all.
//!
//! Windows are as wide as they are far away from `start`, a moment that follows the clock. A time is written in digits of
//! six bits; the highest digit in which it differs from `start` is the *level* of its window, that digit the window's
//! number there:
//!
//! ```text
//!  level   a window is wide      times, seen from 12:00:00.000
//!    0          1 ms             12:00:00.000 to .063
//!    1         64 ms             .. to 12:00:04
//!    2          4.1 s            .. to 12:04
//!    3          4.4 min          .. to 17:00, and so on
//! ```
//! When `start` reaches a window of a higher level, its pointers are *dealt out* to the 64 windows of the level
//! below, some at a time; meanwhile they are in a table of their own, `dealing`. A key is dealt out at most once per
//! level. The keys in a window of level 0 that has passed have expired, without a look at them.
//!
//! Invariants:
//! - A pointer entered with a time is in the table that [`Calendar::place`] tells for that time and the present `start`, or
//!   else in `dealing`. Only `start` moving may change what `place` tells: [`Calendar::move_start`] moves it no further than
//!   to the begin of the first window that holds something, and what changes then is that one window, which is dealt out.
//! - No window is empty: `windows` has a table for each bit of `occupied`.
//! - The code that enters a pointer keeps its entry alive, and its key unchanged, until the pointer is removed.

use rand::RngExt;
use rand::rngs::SmallRng;
use smallvec::SmallVec;

use crate::key::KeyHasher;
use crate::memory::compact_vec::CompactVec;
use crate::table::raw::{RawTable, prefetch};
use crate::table::{Keyed, TableStats};

/// Bits of a digit of time.
const DIGIT: u32 = 6;

/// Pointers to what expires, each entered under a time in milliseconds since 1970.
pub(crate) struct Calendar<P: Keyed> {
    /// No window begins before it.
    start: i64,
    levels: CompactVec<Level<P>>,
    /// Pointers entered with a time before `start`: nearly always because they had expired already, otherwise because
    /// the clock was set back.
    past: RawTable<P>,
    /// The bucket with which [`Calendar::over`] continues, in whichever table.
    next: u32,
    /// Pointers being dealt out: one window, or all of them after the clock was set back.
    dealing: CompactVec<RawTable<P>>,
    len: usize,
    /// The sum of all times.
    sum: i128,
}

/// The windows of one level that hold something.
struct Level<P: Keyed> {
    /// A bit for each window that is not empty.
    occupied: u64,
    /// Their tables, in order of time.
    windows: CompactVec<RawTable<P>>,
}

/// Position of a time in the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Past,
    Window { level: usize, digit: u32 },
}

/// The first window that holds something.
#[derive(Clone, Copy, Debug)]
struct First {
    level: usize,
    digit: u32,
    begin: i64,
}

impl<P: Keyed> Level<P> {
    const EMPTY: Self = Self {
        occupied: 0,
        windows: CompactVec::new(),
    };

    fn has(&self, digit: u32) -> bool {
        self.occupied >> digit & 1 == 1
    }

    /// Index of the table of a window in `windows`, existing or not.
    fn index(&self, digit: u32) -> usize {
        (self.occupied & ((1 << digit) - 1)).count_ones() as usize
    }

    fn window(&self, digit: u32) -> Option<&RawTable<P>> {
        self.has(digit).then(|| &self.windows[self.index(digit)])
    }

    fn window_mut(&mut self, digit: u32) -> Option<&mut RawTable<P>> {
        let index = self.index(digit);
        self.has(digit).then(|| &mut self.windows[index])
    }

    fn window_or_new(&mut self, digit: u32) -> &mut RawTable<P> {
        let index = self.index(digit);
        if !self.has(digit) {
            self.windows.insert(index, RawTable::new());
            self.occupied |= 1 << digit;
        }
        &mut self.windows[index]
    }

    /// Takes a window out, with what it holds.
    fn take(&mut self, digit: u32) -> RawTable<P> {
        debug_assert!(self.has(digit));
        let window = self.windows.remove(self.index(digit));
        self.occupied &= !(1 << digit);
        if self.occupied == 0 {
            self.windows = CompactVec::new();
        }
        window
    }

    /// The numbers of the windows that hold something, in order of time.
    fn digits(&self) -> impl Iterator<Item = u32> {
        let mut left = self.occupied;
        std::iter::from_fn(move || {
            let digit = (left != 0).then(|| left.trailing_zeros())?;
            left &= left - 1;
            Some(digit)
        })
    }
}

impl<P: Keyed> Calendar<P> {
    pub(crate) const fn new() -> Self {
        Self {
            start: 0,
            levels: CompactVec::new(),
            past: RawTable::new(),
            next: 0,
            dealing: CompactVec::new(),
            len: 0,
            sum: 0,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The average of all times; `None` when there are none.
    pub(crate) fn average(&self) -> Option<i64> {
        let average = self.sum.checked_div(self.len as i128)?;
        // The average of numbers of 64 bits is one of them.
        i64::try_from(average).ok()
    }

    #[inline]
    fn place(&self, at: i64) -> Place {
        if at < self.start {
            return Place::Past;
        }
        let differs = (at ^ self.start) as u64 | 1;
        let level = differs.ilog2() / DIGIT;
        Place::Window {
            level: level as usize,
            digit: (at >> (level * DIGIT)) as u32 & ((1 << DIGIT) - 1),
        }
    }

    /// The begin of a window: the digits of `start` above its level, then its own.
    fn begin(&self, level: usize, digit: u32) -> i64 {
        let shift = level as u32 * DIGIT;
        let above = (self.start as u64).checked_shr(shift + DIGIT);
        let above = above.and_then(|above| above.checked_shl(shift + DIGIT));
        // A window of the highest level has no digits above it: the shift by 64 bits or more leaves none.
        (above.unwrap_or(0) | u64::from(digit) << shift) as i64
    }

    fn first(&self) -> Option<First> {
        let level = self.levels.iter().position(|level| level.occupied != 0)?;
        let digit = self.levels[level].occupied.trailing_zeros();
        Some(First {
            level,
            digit,
            begin: self.begin(level, digit),
        })
    }

    /// Enters a pointer under a time.
    ///
    /// # Safety
    /// `hash` is that of the key by `hasher`, which is the one of all pointers here. What the pointer leads to stays alive,
    /// and its key as it is, until it has left or the calendar is dropped or drained.
    pub(crate) unsafe fn enter(&mut self, hash: u64, pointer: P, at: i64, hasher: &KeyHasher) {
        let table = match self.place(at) {
            Place::Past => &mut self.past,
            Place::Window { level, digit } => {
                while self.levels.len() <= level {
                    self.levels.push(Level::EMPTY);
                }
                self.levels[level].window_or_new(digit)
            }
        };
        // SAFETY: as the caller promises; only `leave` and `drain` take it out.
        unsafe { table.insert(hash, pointer, hasher) };
        self.len += 1;
        self.sum += i128::from(at);
    }

    /// Takes a pointer out that was entered under this time.
    pub(crate) fn leave(&mut self, hash: u64, pointer: P, at: i64) {
        let place = self.place(at);
        if !self.leave_place(place, hash, pointer) {
            let mut dealing = self.dealing.iter_mut();
            let left = dealing.any(|table| leave_table(table, hash, pointer));
            assert!(left, "the calendar holds what was entered, under its time");
        }
        self.len -= 1;
        self.sum -= i128::from(at);
        if self.len == 0 {
            (self.levels, self.dealing) = (CompactVec::new(), CompactVec::new());
        }
    }

    fn leave_place(&mut self, place: Place, hash: u64, pointer: P) -> bool {
        let Place::Window { level, digit } = place else {
            return leave_table(&mut self.past, hash, pointer);
        };
        let Some(level) = self.levels.get_mut(level) else {
            return false;
        };
        let Some(window) = level.window_mut(digit) else {
            return false;
        };
        let left = leave_table(window, hash, pointer);
        if window.len() == 0 {
            level.take(digit);
        }
        left
    }

    /// Puts another pointer, entered under `after`, in the place of one entered under `before`.
    ///
    /// # Safety
    /// Both have the same key, and as for [`Calendar::enter`].
    pub(crate) unsafe fn follow(
        &mut self,
        hash: u64,
        (old, before): (P, i64),
        (new, after): (P, i64),
        hasher: &KeyHasher,
    ) {
        let place = self.place(before);
        if place == self.place(after)
            && let Place::Window { level, digit } = place
            && let Some(window) = self
                .levels
                .get_mut(level)
                .and_then(|level| level.window_mut(digit))
        {
            if old == new && self.dealing.is_empty() {
                self.sum += i128::from(after) - i128::from(before);
                return;
            }
            if let Some(position) = window.find_entry(hash, old) {
                // SAFETY: the position was found just now; the rest is promised by the caller.
                unsafe { window.replace(position, new) };
                self.sum += i128::from(after) - i128::from(before);
                return;
            }
        }
        self.leave(hash, old, before);
        // SAFETY: as the caller promises.
        unsafe { self.enter(hash, new, after, hasher) };
    }

    /// Brings the calendar up to `now`: deals out windows that have begun, about `budget` pointers; `time_of` gives
    /// the times with which they were entered. Stops where [`Calendar::over`] finds something. Returns the number of
    /// pointers moved.
    pub(crate) fn move_on(
        &mut self,
        now: i64,
        budget: usize,
        hasher: &KeyHasher,
        time_of: impl Fn(P) -> i64,
    ) -> usize {
        let mut moved = 0;
        while moved < budget {
            if !self.dealing.is_empty() {
                moved += self.deal(hasher, &time_of);
            } else if !self.move_start(now) {
                break;
            }
        }
        moved
    }

    /// Deals out one bucket; returns how many pointers that were, 0 when that was the end of a window.
    fn deal(&mut self, hasher: &KeyHasher, time_of: impl Fn(P) -> i64) -> usize {
        let Some(last) = self.dealing.len().checked_sub(1) else {
            return 0;
        };
        if self.dealing[last].len() == 0 {
            self.dealing.remove(last);
            if last == 0 {
                self.dealing = CompactVec::new();
            }
            return 0;
        }
        let mut dealing = std::mem::replace(&mut self.dealing[last], RawTable::new());
        let mut moved = 0;
        dealing.drain_bucket(|pointer| {
            moved += 1;
            let at = time_of(pointer);
            // `enter` counts it again.
            self.len -= 1;
            self.sum -= i128::from(at);
            // SAFETY: the entry is alive as long as the calendar holds it, and the calendar goes on holding it.
            unsafe { self.enter(hasher.hash(pointer.key()), pointer, at, hasher) };
        });
        self.dealing[last] = dealing;
        moved
    }

    /// Moves `start` towards `now`, up to the first window that is not empty. True if that window has begun and is of
    /// a higher level: it is to be dealt out.
    fn move_start(&mut self, now: i64) -> bool {
        debug_assert!(self.dealing.is_empty());
        if self.is_set_back(now) {
            self.begin_anew(now);
            return self.len > 0;
        }
        let Some(first) = self.first().filter(|first| first.begin <= now) else {
            self.start = self.start.max(now);
            return false;
        };
        if first.level == 0 {
            return false;
        }
        let window = self.levels[first.level].take(first.digit);
        self.dealing.push(window);
        self.start = first.begin;
        true
    }

    /// Whether the clock was set back so far that new pointers would be looked at too late.
    fn is_set_back(&self, now: i64) -> bool {
        /// Milliseconds by which a clock may be set back without a new beginning.
        const SET_BACK_MAX: i64 = 1000;
        now < self.start - SET_BACK_MAX
    }

    /// Sets `start` back to `now`. As that changes the place of everything, everything is dealt out.
    fn begin_anew(&mut self, now: i64) {
        let mut levels = std::mem::take(&mut self.levels);
        let past = std::mem::replace(&mut self.past, RawTable::new());
        if past.len() > 0 {
            self.dealing.push(past);
        }
        for level in levels.iter_mut() {
            while level.occupied != 0 {
                let window = level.take(level.occupied.trailing_zeros());
                self.dealing.push(window);
            }
        }
        self.start = now;
    }

    /// Collects some pointers that have expired at `now`, their last millisecond having passed, without removing
    /// them; `time_of` gives the times with which they were entered. Finds none if only pointers that are to be dealt
    /// out have expired.
    pub(crate) fn over(&mut self, now: i64, found: &mut SmallVec<[P; 64]>, time_of: impl Fn(P) -> i64) {
        /// So many are collected, or a bucket more: their entries are then waited for together.
        const AT_ONCE: usize = 48;
        /// Number of buckets of `past` that are searched for expired entries.
        const BUCKETS: usize = 32;
        let mut next = self.next;
        if let Some(window) = self.window_over(now) {
            // The buckets form a ring: the entries found are about to be removed, and removals merge buckets from the end into
            // buckets that were passed before.
            for _ in 0..window.stats().buckets {
                next = window.visit_from(next, |pointer| found.push(pointer));
                if found.len() >= AT_ONCE {
                    break;
                }
            }
            self.next = next;
            return;
        }
        for _ in 0..BUCKETS.min(self.past.stats().buckets) {
            next = self.past.visit_from(next, |pointer| {
                if time_of(pointer) < now {
                    found.push(pointer);
                }
            });
            if found.len() >= AT_ONCE {
                break;
            }
        }
        self.next = next;
    }

    /// The first window, if it is of level 0 and over.
    fn window_over(&self, now: i64) -> Option<&RawTable<P>> {
        let first = self
            .first()
            .filter(|first| first.level == 0 && first.begin < now)?;
        self.levels[0].window(first.digit)
    }

    /// Moves `start` along with the clock as far as possible without dealing anything out, then returns
    /// [`Calendar::next_due`]. Pointers entered after this are near their final place.
    #[inline]
    pub(crate) fn follow_clock(&mut self, now: i64) -> Option<i64> {
        let due = self.next_due();
        if self.is_set_back(now) {
            // All windows are dealt out again.
            return due.map(|_| now);
        }
        if due.is_none_or(|due| due > now) {
            self.start = self.start.max(now);
        }
        due
    }

    /// Time of the next work: dealing out, or removing expired pointers. In the past when it is due; `None` when the
    /// calendar is empty.
    #[inline]
    pub(crate) fn next_due(&self) -> Option<i64> {
        if self.len == 0 {
            return None;
        }
        if !self.dealing.is_empty() || self.past.len() > 0 {
            return Some(self.start);
        }
        let first = self.first()?;
        // An entry is live during the millisecond of its expiry.
        Some(first.begin + i64::from(first.level == 0))
    }

    /// About how many are over at `now`: all in windows that have passed, and of those that have begun the share that a
    /// sample shows. Windows of level 0 and small tables are counted exactly. O(tables that have begun).
    pub(crate) fn over_len(&self, now: i64, time_of: impl Fn(P) -> i64) -> usize {
        let unordered = std::iter::once(&self.past).chain(self.dealing.iter());
        let mut over: usize = unordered.map(|table| estimate_over(table, now, &time_of)).sum();
        for (level, windows) in self.levels.iter().enumerate() {
            let width = 1 << (level as u32 * DIGIT);
            for (digit, window) in windows.digits().zip(windows.windows.iter()) {
                let begin = self.begin(level, digit);
                if begin >= now {
                    return over;
                }
                over += if now - begin >= width {
                    window.len()
                } else {
                    estimate_over(window, now, &time_of)
                };
            }
        }
        over
    }

    fn tables(&self) -> impl Iterator<Item = &RawTable<P>> {
        let windows = self.levels.iter().flat_map(|level| level.windows.iter());
        std::iter::once(&self.past)
            .chain(self.dealing.iter())
            .chain(windows)
    }

    /// A random pointer, each with the same probability.
    pub(crate) fn sample(&self, rng: &mut SmallRng) -> Option<P> {
        self.random_table(rng)?.sample(rng)
    }

    /// A random window's table, the likelier, the more pointers it has; none if there are no pointers.
    fn random_table(&self, rng: &mut SmallRng) -> Option<&RawTable<P>> {
        if self.len == 0 {
            return None;
        }
        let mut number = rng.random_range(0..self.len);
        self.tables().find(|table| match number.checked_sub(table.len()) {
            Some(rest) => {
                number = rest;
                false
            }
            None => true,
        })
    }

    /// Visits about `count` random pointers, perhaps one twice, and one if there is any: each with the same probability. Each is
    /// drawn from a window of its own: the pointers of one window have much in common.
    pub(crate) fn sample_several(&self, count: usize, rng: &mut SmallRng, mut visit: impl FnMut(P)) {
        /// Buckets, and then the entries in them, that are fetched from memory together.
        const AT_ONCE: usize = 8;

        let mut found = false;
        let mut left = count;
        while left > 0 {
            let some = left.min(AT_ONCE);
            left -= some;
            let buckets: SmallVec<[(&RawTable<P>, u32); AT_ONCE]> = (0..some)
                .filter_map(|_| {
                    let table = self.random_table(rng)?;
                    Some((table, table.random_bucket(rng)))
                })
                .collect();
            let mut drawn = SmallVec::<[P; 2 * AT_ONCE]>::new();
            for (table, bucket) in buckets {
                table.sample_from(bucket, rng, |pointer| {
                    prefetch(pointer.as_ptr().as_ptr());
                    drawn.push(pointer);
                });
            }
            found |= !drawn.is_empty();
            drawn.into_iter().for_each(&mut visit);
        }
        if !found && let Some(pointer) = self.sample(rng) {
            visit(pointer);
        }
    }

    /// Statistics of the windows' tables. O(windows).
    pub(crate) fn stats(&self) -> TableStats {
        let mut stats = TableStats::default();
        self.tables().for_each(|table| stats.add(table.stats()));
        stats.bytes += self.levels.memory() + self.dealing.memory();
        stats.bytes += self
            .levels
            .iter()
            .map(|level| level.windows.memory())
            .sum::<usize>();
        stats
    }

    /// Calls `visit` for every pointer.
    #[cfg(test)]
    pub(crate) fn for_each(&self, mut visit: impl FnMut(P)) {
        self.tables().for_each(|table| table.for_each(&mut visit));
    }

    /// Forgets the pointers of one bucket; false when there are none. Between the calls, nothing else may be called.
    pub(crate) fn drain(&mut self) -> bool {
        if self.past.len() > 0 {
            self.past.drain_bucket(|_| self.len -= 1);
            return true;
        }
        if let Some(last) = self.dealing.len().checked_sub(1) {
            self.dealing[last].drain_bucket(|_| self.len -= 1);
            if self.dealing[last].len() == 0 {
                self.dealing.remove(last);
            }
            return true;
        }
        let Some(First { level, digit, .. }) = self.first() else {
            (self.levels, self.dealing) = (CompactVec::new(), CompactVec::new());
            return false;
        };
        let level = &mut self.levels[level];
        if let Some(window) = level.window_mut(digit) {
            window.drain_bucket(|_| self.len -= 1);
            if window.len() == 0 {
                level.take(digit);
            }
        }
        true
    }
}

/// Estimates the number of a table's pointers that have expired at `now`. A table is in the order of hashes, which
/// are independent of time, so that its first buckets are a fair sample.
fn estimate_over<P: Keyed>(table: &RawTable<P>, now: i64, time_of: impl Fn(P) -> i64) -> usize {
    /// Tables up to about this size are counted through.
    const SAMPLE: usize = 1000;
    let (mut seen, mut over, mut bucket) = (0, 0, 0);
    for _ in 0..table.stats().buckets {
        bucket = table.visit_from(bucket, |pointer| {
            seen += 1;
            over += usize::from(time_of(pointer) < now);
        });
        if seen >= SAMPLE {
            break;
        }
    }
    // A walk sees nothing only in an empty table.
    (table.len() * over).checked_div(seen).unwrap_or(0)
}

/// Takes a pointer out of a table; false if it is not there.
fn leave_table<P: Keyed>(table: &mut RawTable<P>, hash: u64, pointer: P) -> bool {
    let Some(position) = table.find_entry(hash, pointer) else {
        return false;
    };
    // SAFETY: the position was found just now.
    unsafe { table.remove(position) };
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;
    use crate::entry::{EntryBox, EntryPtr, NewValue};
    use crate::memory::thread_balance;

    const HASHER: KeyHasher = KeyHasher::new(29);

    /// A calendar of entries, and what it should hold: their times, and a few of them under the pointer of another entry.
    struct Pair {
        calendar: Calendar<EntryPtr>,
        model: BTreeMap<u32, (EntryPtr, i64)>,
    }

    fn name(n: u32) -> [u8; 4] {
        n.to_le_bytes()
    }

    fn entry(n: u32, at: i64) -> EntryPtr {
        EntryBox::new(&name(n), 0, Some(at), NewValue::Int(0)).into_ptr()
    }

    fn free(entry: EntryPtr) {
        // SAFETY: it came from `entry`, and nothing holds it any more.
        drop(unsafe { EntryBox::from_ptr(entry) });
    }

    fn time_of(entry: EntryPtr) -> i64 {
        // SAFETY: entries are alive as long as the calendar holds them.
        unsafe { entry.as_ref() }.expiry().unwrap()
    }

    fn number_of(entry: EntryPtr) -> u32 {
        // SAFETY: as above.
        u32::from_le_bytes(unsafe { entry.key() }.try_into().unwrap())
    }

    impl Pair {
        fn new() -> Self {
            Self {
                calendar: Calendar::new(),
                model: BTreeMap::new(),
            }
        }

        /// Enters `n` under a time, or gives it that time if it is there, as the same entry or another one.
        fn set(&mut self, n: u32, at: i64, rebuilt: bool) {
            let hash = HASHER.hash(&name(n));
            let Some((old, before)) = self.model.get(&n).copied() else {
                let new = entry(n, at);
                // SAFETY: the hash is that of the key, and the entry lives until it is taken out.
                unsafe { self.calendar.enter(hash, new, at, &HASHER) };
                self.model.insert(n, (new, at));
                return;
            };
            let new = if rebuilt { entry(n, at) } else { old };
            // SAFETY: nobody else refers to the entry.
            assert!(unsafe { new.as_mut() }.set_expiry_in_place(at));
            // SAFETY: as above; the key is the same.
            unsafe { self.calendar.follow(hash, (old, before), (new, at), &HASHER) };
            self.model.insert(n, (new, at));
            if rebuilt {
                free(old);
            }
        }

        fn remove(&mut self, n: u32) {
            if let Some((entry, at)) = self.model.remove(&n) {
                self.calendar.leave(HASHER.hash(&name(n)), entry, at);
                free(entry);
            }
        }

        /// Removes all that is over, with a small budget at a time; how many that were.
        fn expire(&mut self, now: i64) -> usize {
            let mut removed = 0;
            loop {
                let moved = self.calendar.move_on(now, 7, &HASHER, time_of);
                let mut found = SmallVec::new();
                self.calendar.over(now, &mut found, time_of);
                if moved == 0 && found.is_empty() {
                    return removed;
                }
                for entry in found {
                    assert!(time_of(entry) < now, "{} is not over at {now}", time_of(entry));
                    self.remove(number_of(entry));
                    removed += 1;
                }
            }
        }

        fn check(&self) {
            assert_eq!(self.calendar.len(), self.model.len());
            let sum: i128 = self.model.values().map(|(_, at)| i128::from(*at)).sum();
            assert_eq!(self.calendar.sum, sum);
            let mut held = BTreeMap::new();
            self.calendar.for_each(|entry| {
                assert!(held.insert(number_of(entry), (entry, time_of(entry))).is_none());
            });
            assert!(held == self.model);
            for level in self.calendar.levels.iter() {
                assert_eq!(level.occupied.count_ones() as usize, level.windows.len());
                assert!(level.windows.iter().all(|window| window.len() > 0));
            }
        }
    }

    impl Drop for Pair {
        fn drop(&mut self) {
            while self.calendar.drain() {}
            for (entry, _) in std::mem::take(&mut self.model).into_values() {
                free(entry);
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set { n: u32, ttl: i64, rebuilt: bool },
        Remove(u32),
        Pass(i64),
        SetBack(i64),
        MoveOn(usize),
    }

    fn ttl() -> impl Strategy<Value = i64> {
        prop_oneof![
            -50i64..300,
            0i64..20_000,
            0i64..10_000_000,
            0i64..100_000_000_000,
            Just(i64::MAX >> 1)
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u32..60, ttl(), any::<bool>()).prop_map(|(n, ttl, rebuilt)| Step::Set { n, ttl, rebuilt }),
            3 => (0u32..60).prop_map(Step::Remove),
            3 => prop_oneof![0i64..100, 0i64..10_000, 0i64..100_000_000].prop_map(Step::Pass),
            1 => prop_oneof![0i64..900, 0i64..10_000_000].prop_map(Step::SetBack),
            2 => (1usize..20).prop_map(Step::MoveOn),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn all_that_is_over_is_found_and_nothing_else(
            steps in proptest::collection::vec(step(), 0..if cfg!(miri) { 40 } else { 300 }),
        ) {
            let balance = thread_balance();
            let mut now = 1_700_000_000_000i64;
            let mut pair = Pair::new();
            for step in steps {
                match step {
                    Step::Set { n, ttl, rebuilt } => pair.set(n, now + ttl, rebuilt),
                    Step::Remove(n) => pair.remove(n),
                    Step::MoveOn(budget) => {
                        pair.calendar.move_on(now, budget, &HASHER, time_of);
                    }
                    Step::SetBack(by) => now -= by,
                    Step::Pass(by) => {
                        now += by;
                        let expected = pair.model.values().filter(|(_, at)| *at < now).count();
                        prop_assert_eq!(pair.expire(now), expected);
                        let next = pair.model.values().map(|(_, at)| *at).min();
                        prop_assert_eq!(next.is_none(), pair.calendar.next_due().is_none());
                        // The due time is at most that of the next expiry, plus the time by which the clock was set back.
                        if let (Some(next), Some(due)) = (next, pair.calendar.next_due()) {
                            prop_assert!(due <= (next + 1).max(pair.calendar.start));
                            prop_assert!(pair.calendar.start <= now + 1000);
                        }
                    }
                }
                pair.check();
            }
            drop(pair);
            prop_assert_eq!(thread_balance(), balance);
        }
    }

    #[test]
    fn a_clock_that_is_set_back_begins_anew() {
        let start = 1_700_000_000_000;
        let mut pair = Pair::new();
        pair.calendar.follow_clock(start);
        for n in 0..50 {
            pair.set(n, start + 1000 * i64::from(n), false);
        }
        let now = start - 3_600_000;
        assert_eq!(
            pair.calendar.follow_clock(now),
            Some(now),
            "there is something to do"
        );
        assert_eq!(pair.expire(now), 0);
        pair.set(50, now + 100, false);
        let due = pair.calendar.follow_clock(now + 50).unwrap();
        assert!(due <= now + 101, "{due}");
        assert_eq!(pair.expire(now + 101), 1);
        assert_eq!(pair.expire(start + 25_001), 26);
        pair.check();
    }

    #[test]
    fn the_next_due_time_is_exact_when_it_is_near_and_costs_few_looks_when_it_is_far() {
        let start = 1_700_000_000_000;
        let mut pair = Pair::new();
        pair.set(1, start + 3_600_000, false);
        let (mut now, mut wakes) = (start, 0);
        while pair.expire(now) == 0 {
            let due = pair.calendar.next_due().unwrap();
            assert!(due > now, "nothing is due at {now}, but it says {due}");
            now = due;
            wakes += 1;
        }
        assert_eq!(now, start + 3_600_001);
        assert!(wakes <= 8, "{wakes}");
        assert!(pair.calendar.next_due().is_none());
    }

    #[test]
    fn what_is_over_and_not_yet_removed_is_estimated() {
        let start = 1_700_000_000_000;
        let mut pair = Pair::new();
        pair.expire(start);
        let count = if cfg!(miri) { 100 } else { 10_000 };
        for n in 0..count {
            pair.set(n, start + i64::from(n) * 10_000 / i64::from(count), false);
        }
        assert_eq!(pair.calendar.over_len(start, time_of), 0);
        let over = pair.calendar.over_len(start + 5_000, time_of);
        let half = count as usize / 2;
        assert!(over.abs_diff(half) <= count as usize / 50, "{over} of {half}");
        assert_eq!(
            pair.calendar.average(),
            Some(start + 4999 - i64::from(count == 100) * 49)
        );
        let removed = pair.expire(start + 5_000);
        assert_eq!(removed, half);
        assert_eq!(pair.calendar.over_len(start + 5_000, time_of), 0);
    }

    #[test]
    fn what_is_over_in_a_wide_window_is_told_though_nothing_deals_it_out() {
        let now = 1_700_000_000_000;
        // At the start of the calendar a window is years wide.
        let mut pair = Pair::new();
        for n in 0..60 {
            pair.set(n, now + i64::from(n % 3), false);
        }
        assert_eq!(pair.calendar.over_len(now + 1, time_of), 20);
        assert_eq!(pair.calendar.over_len(now + 3, time_of), 60);
    }

    #[test]
    fn samples_are_drawn_from_all_windows() {
        let mut pair = Pair::new();
        pair.expire(1_000_000);
        for n in 0..300 {
            pair.set(n, 1_000_000 + (1 << (n % 40)), false);
        }
        let mut rng = SmallRng::seed_from_u64(1);
        let mut hits = BTreeMap::<u32, u32>::new();
        for _ in 0..if cfg!(miri) { 100 } else { 60_000 } {
            *hits
                .entry(number_of(pair.calendar.sample(&mut rng).unwrap()))
                .or_default() += 1;
        }
        if !cfg!(miri) {
            assert_eq!(hits.len(), 300);
            assert!(hits.values().all(|hits| (110..320).contains(hits)), "{hits:?}");
        }
    }

    #[test]
    fn several_samples_are_drawn_from_all_windows_and_places() {
        let mut pair = Pair::new();
        pair.expire(1_000_000);
        for n in 0..300 {
            pair.set(n, 1_000_000 + (1 << (n % 40)), false);
        }
        let mut rng = SmallRng::seed_from_u64(2);
        let mut hits = BTreeMap::<u32, u32>::new();
        let (rounds, count) = (if cfg!(miri) { 10 } else { 6000 }, 10);
        let mut drawn = 0;
        for _ in 0..rounds {
            pair.calendar.sample_several(count, &mut rng, |pointer| {
                drawn += 1;
                *hits.entry(number_of(pointer)).or_default() += 1;
            });
        }
        if !cfg!(miri) {
            assert!(
                drawn * 20 > rounds * count * 19 && drawn * 20 < rounds * count * 21,
                "{drawn}"
            );
            assert_eq!(hits.len(), 300);
            assert!(hits.values().all(|hits| (130..280).contains(hits)), "{hits:?}");
        }
        Pair::new()
            .calendar
            .sample_several(3, &mut rng, |_| panic!("there is none"));
    }
}
