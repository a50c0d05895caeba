//! [`Runs`]: values sorted by the id they carry, in short runs one after the other.
//!
//! Streams grow at the end and shrink at the front, and so do their pending entries: appending fills the last run and
//! opens another, so that runs are full; removing shortens one run. A look-up is two binary searches. Adding or
//! removing a run moves 16 bytes for each run behind it, that is, a quarter of a byte for each value.
//!
//! Invariant: no run is empty, and ids ascend strictly, within a run and from run to run.

use super::id::StreamId;
use crate::memory::compact_vec::CompactVec;

/// Values in a run, at most.
const RUN_MAX: usize = 64;

/// A value of a stream, found by an id.
pub(super) trait HasId {
    /// Allocations that a value owns.
    const ALLOCATIONS: usize;

    /// The id it is found by, which never changes.
    fn id(&self) -> StreamId;
}

impl HasId for StreamId {
    const ALLOCATIONS: usize = 0;

    #[inline]
    fn id(&self) -> StreamId {
        *self
    }
}

/// The place of a value: valid until a value is added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    run: usize,
    index: usize,
}

/// Values sorted by their ids.
#[derive(Clone, Debug)]
pub(super) struct Runs<T> {
    runs: CompactVec<CompactVec<T>>,
    len: usize,
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self {
            runs: CompactVec::new(),
            len: 0,
        }
    }
}

impl<T: HasId> Runs<T> {
    /// Number of values.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes allocated, without what the values own. O(runs).
    pub(super) fn memory(&self) -> usize {
        self.runs.memory() + self.runs.iter().map(CompactVec::memory).sum::<usize>()
    }

    /// Number of allocations to free.
    pub(super) fn free_cost(&self) -> usize {
        self.len * T::ALLOCATIONS + self.runs.len()
    }

    /// Frees runs from the end to the value of about `budget` allocations; returns how many were freed.
    pub(super) fn drain(&mut self, budget: usize) -> usize {
        let mut freed = 0;
        while freed < budget && !self.runs.is_empty() {
            let run = self.runs.remove(self.runs.len() - 1);
            freed += run.len() * T::ALLOCATIONS + 1;
            self.len -= run.len();
        }
        freed
    }

    /// Place of an id, or the one where it belongs.
    #[inline]
    fn search(&self, id: StreamId) -> Result<At, At> {
        let behind = self.runs.partition_point(|run| run[0].id() <= id);
        let Some(run) = behind.checked_sub(1) else {
            return Err(At { run: 0, index: 0 });
        };
        match self.runs[run].binary_search_by_key(&id, HasId::id) {
            Ok(index) => Ok(At { run, index }),
            Err(index) => Err(At { run, index }),
        }
    }

    /// The value at a place.
    #[inline]
    pub(super) fn at(&self, at: At) -> &T {
        &self.runs[at.run][at.index]
    }

    /// The value at a place, to be changed.
    #[inline]
    pub(super) fn at_mut(&mut self, at: At) -> &mut T {
        &mut self.runs[at.run][at.index]
    }

    /// Place of an id.
    #[inline]
    pub(super) fn find(&self, id: StreamId) -> Option<At> {
        self.search(id).ok()
    }

    /// The value of an id.
    #[inline]
    pub(super) fn get(&self, id: StreamId) -> Option<&T> {
        self.find(id).map(|at| self.at(at))
    }

    /// The value of an id, to be changed.
    #[inline]
    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut T> {
        self.find(id).map(|at| self.at_mut(at))
    }

    /// The first value.
    #[inline]
    pub(super) fn first(&self) -> Option<&T> {
        self.runs.first().map(|run| &run[0])
    }

    /// The last value.
    #[inline]
    pub(super) fn last(&self) -> Option<&T> {
        self.runs.last().and_then(|run| run.last())
    }

    /// The last value, to be changed.
    #[inline]
    pub(super) fn last_mut(&mut self) -> Option<&mut T> {
        self.runs.last_mut().and_then(|run| run.last_mut())
    }

    /// Place of the first value.
    #[inline]
    pub(super) fn front(&self) -> Option<At> {
        (self.len > 0).then_some(At { run: 0, index: 0 })
    }

    /// The first place whose id is not below `id`.
    pub(super) fn ceil(&self, id: StreamId) -> Option<At> {
        match self.search(id) {
            Ok(at) => Some(at),
            Err(at) if self.runs.get(at.run).is_some_and(|run| at.index < run.len()) => Some(at),
            Err(at) => self.run_start(at.run + 1),
        }
    }

    /// The last place whose id is not above `id`.
    pub(super) fn floor(&self, id: StreamId) -> Option<At> {
        self.search(id).map_or_else(|at| self.prev(at), Some)
    }

    fn run_start(&self, run: usize) -> Option<At> {
        (run < self.runs.len()).then_some(At { run, index: 0 })
    }

    /// The place behind another.
    #[inline]
    pub(super) fn next(&self, at: At) -> Option<At> {
        let index = at.index + 1;
        if index < self.runs[at.run].len() {
            return Some(At { index, ..at });
        }
        self.run_start(at.run + 1)
    }

    /// The place before another.
    #[inline]
    pub(super) fn prev(&self, at: At) -> Option<At> {
        if let Some(index) = at.index.checked_sub(1) {
            return Some(At { index, ..at });
        }
        let run = at.run.checked_sub(1)?;
        let index = self.runs[run].len() - 1;
        Some(At { run, index })
    }

    /// The values from the first one on whose id is not below `id`.
    pub(super) fn iter_from(&self, id: StreamId) -> impl Iterator<Item = &T> {
        let mut next = self.ceil(id);
        std::iter::from_fn(move || {
            let at = next?;
            next = self.next(at);
            Some(self.at(at))
        })
    }

    /// The values in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.runs.iter().flat_map(|run| run.iter())
    }

    /// Puts a value where its id belongs; returns the one that was there. O(log n), amortised O(1) at the end.
    pub(super) fn insert(&mut self, value: T) -> Option<T> {
        let id = value.id();
        if self.last().is_none_or(|last| last.id() < id) {
            self.append(value);
            return None;
        }
        let at = match self.search(id) {
            Ok(at) => return Some(std::mem::replace(self.at_mut(at), value)),
            Err(at) => self.make_room(at),
        };
        self.runs[at.run].insert(at.index, value);
        self.len += 1;
        None
    }

    fn append(&mut self, value: T) {
        match self.runs.last_mut() {
            Some(run) if run.len() < RUN_MAX => run.push(value),
            _ => self.runs.push(std::iter::once(value).collect()),
        }
        self.len += 1;
    }

    /// Cuts a full run in two; returns where `at` is then.
    fn make_room(&mut self, at: At) -> At {
        let run = &mut self.runs[at.run];
        if run.len() < RUN_MAX {
            return at;
        }
        let half = run.len() / 2;
        let tail = run.split_off(half);
        self.runs.insert(at.run + 1, tail);
        match at.index.checked_sub(half) {
            Some(index) if index > 0 => At {
                run: at.run + 1,
                index,
            },
            _ => at,
        }
    }

    /// Takes a value out.
    pub(super) fn remove_at(&mut self, at: At) -> T {
        let run = &mut self.runs[at.run];
        let value = run.remove(at.index);
        if run.is_empty() {
            drop(self.runs.remove(at.run));
        }
        self.len -= 1;
        value
    }

    /// Takes the value of an id out.
    pub(super) fn remove(&mut self, id: StreamId) -> Option<T> {
        let at = self.find(id)?;
        Some(self.remove_at(at))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::memory::thread_balance;

    fn id(n: u64) -> StreamId {
        StreamId::new(n / 7, n % 7)
    }

    #[test]
    fn appending_leaves_full_runs() {
        let mut runs = Runs::default();
        for n in 0..640 {
            assert_eq!(runs.insert(id(n)), None);
        }
        assert_eq!((runs.len(), runs.free_cost()), (640, 10));
        for n in 0..640 {
            assert_eq!(runs.remove(id(n)), Some(id(n)));
        }
        assert_eq!((runs.len(), runs.free_cost(), runs.front()), (0, 0, None));
    }

    #[test]
    fn freeing_goes_in_slices() {
        let start = thread_balance();
        let mut runs = Runs::default();
        for n in 0..1000 {
            assert_eq!(runs.insert(id(n)), None);
        }
        assert_eq!(runs.drain(3), 3);
        assert_eq!(runs.len(), 1000 - 40 - 128);
        while runs.drain(3) > 0 {}
        assert_eq!(runs.len(), 0);
        drop(runs);
        assert_eq!(thread_balance(), start);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 128 }))]

        #[test]
        fn runs_behave_as_a_sorted_set(
            steps in prop::collection::vec((any::<bool>(), 0u64..400), 0..900),
            probes in prop::collection::vec(0u64..420, 20),
        ) {
            let start = thread_balance();
            let mut runs = Runs::default();
            let mut model = BTreeSet::new();
            for (adds, n) in steps {
                let id = id(n);
                if adds {
                    prop_assert_eq!(runs.insert(id).is_none(), model.insert(id));
                } else {
                    prop_assert_eq!(runs.remove(id).is_some(), model.remove(&id));
                }
            }
            prop_assert_eq!(runs.len(), model.len());
            prop_assert!(runs.iter().eq(&model));
            prop_assert_eq!(runs.first(), model.first());
            prop_assert_eq!(runs.last(), model.last());
            for probe in probes.into_iter().map(id) {
                prop_assert_eq!(runs.get(probe), model.get(&probe));
                prop_assert!(runs.iter_from(probe).eq(model.range(probe..)));
                let mut down = Vec::new();
                let mut at = runs.floor(probe);
                while let Some(here) = at {
                    down.push(*runs.at(here));
                    at = runs.prev(here);
                }
                prop_assert!(down.iter().eq(model.range(..=probe).rev()));
            }
            prop_assert_eq!(runs.memory() as i64, thread_balance() - start);
            let copy = runs.clone();
            drop(runs);
            prop_assert!(copy.iter().eq(&model));
            drop(copy);
            prop_assert_eq!(thread_balance(), start);
        }
    }
}
