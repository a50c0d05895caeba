//! Garbage: data without a key that is still to be freed, in slices.
//!
//! Freeing a flushed database or a value of hundreds of megabytes at once would be a pause. It waits here instead,
//! still counted as memory, and is freed piece by piece by the owner's calls of [`Garbage::release`].
//!
//! Bounds: only stores with more than [`STORE_MIN`] entries, strings larger than [`BUFFER_MIN`] and collections with
//! more than [`COLLECTION_MIN`] allocations become garbage; smaller ones are freed at once. So the queues are far
//! smaller than the data they refer to.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::entry::EntryBox;
use crate::keyspace::store::{Displaced, Store};
use crate::value::Detached;

/// Strings up to this size, in bytes, are freed on the spot.
pub(crate) const BUFFER_MIN: usize = 64 << 10;
/// Collections of up to about this many allocations are freed on the spot.
pub(crate) const COLLECTION_MIN: usize = 64;
/// Stores of up to this many entries are freed on the spot.
const STORE_MIN: usize = 1024;
/// Size of the slices in which a large string is freed, bytes.
const BUFFER_SLICE: usize = 1 << 20;
/// Cost of such a slice in units of the budget, in which a small entry is one.
const BUFFER_SLICE_COST: usize = 64;

/// Values that one database has given up and not yet freed.
#[derive(Default)]
pub(crate) struct Garbage {
    stores: VecDeque<Store>,
    values: VecDeque<Detached>,
    /// Entries in `stores`.
    entries: usize,
    /// Strings in `values`.
    strings: usize,
}

impl Garbage {
    /// Number of objects that wait: entries of flushed stores and large values.
    #[inline]
    pub(crate) fn pending(&self) -> usize {
        self.entries + self.values.len()
    }

    /// Number of these that are objects by the count of Redis, which excludes strings, being one allocation.
    #[inline]
    pub(crate) fn objects(&self) -> usize {
        self.pending() - self.strings
    }

    /// Adds what waits elsewhere to be freed.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.stores.append(&mut other.stores);
        self.values.append(&mut other.values);
        self.entries += other.entries;
        self.strings += other.strings;
    }

    fn push_value(&mut self, value: Detached) {
        self.strings += usize::from(matches!(value, Detached::Bytes(_)));
        self.values.push_back(value);
    }

    /// Frees a store, later if it is large; if not, later what is large in it.
    pub(crate) fn push_store(&mut self, mut store: Store) {
        if store.len() > STORE_MIN {
            self.entries += store.len();
            self.stores.push_back(store);
        } else {
            while store.drain(|entry| self.push_entry(entry)) {}
        }
    }

    /// Frees an entry; its value later if it is large.
    pub(crate) fn push_entry(&mut self, entry: EntryBox) {
        if entry.is_large()
            && let Some(value) = entry.detach()
        {
            self.push_value(value);
        }
    }

    /// Frees what a change has displaced, later if it is large.
    #[inline]
    pub(crate) fn push_displaced(&mut self, displaced: Displaced) {
        match displaced {
            Displaced::Nothing => {}
            Displaced::Entry(entry) => self.push_entry(entry),
            Displaced::Value(value) => {
                if value.is_large() {
                    self.push_value(value);
                }
            }
        }
    }

    /// Frees garbage to the value of about `budget` small entries; returns what is left of the budget.
    pub(crate) fn release(&mut self, budget: usize) -> usize {
        let mut left = budget;
        while left > 0 && self.pending() > 0 {
            let cost = if self.values.is_empty() {
                self.release_bucket()
            } else {
                self.release_value(left)
            };
            left = left.saturating_sub(cost);
        }
        left
    }

    /// Frees a slice of the first value, a collection's to the value of about `budget`.
    fn release_value(&mut self, budget: usize) -> usize {
        let (cost, more) = match self.values.front_mut() {
            Some(Detached::Bytes(buffer)) => {
                let more = buffer.capacity() > BUFFER_SLICE && buffer.trim(BUFFER_SLICE);
                (BUFFER_SLICE_COST, more)
            }
            Some(Detached::Collection(value)) => {
                let freed = value.drain(budget);
                (
                    freed.max(1),
                    freed > 0 && value.as_ref().free_cost() > COLLECTION_MIN,
                )
            }
            None => (1, false),
        };
        if !more && let Some(Detached::Bytes(_)) = self.values.pop_front() {
            self.strings -= 1;
        }
        cost
    }

    /// Frees a bucket of the first store.
    fn release_bucket(&mut self) -> usize {
        let Some(store) = self.stores.front_mut() else {
            return 1;
        };
        let (mut freed, mut large) = (0, SmallVec::<[EntryBox; 8]>::new());
        let more = store.drain(|entry| {
            freed += 1;
            if entry.is_large() {
                large.push(entry);
            }
        });
        self.entries -= freed;
        if !more {
            self.stores.pop_front();
        }
        for entry in large {
            self.push_entry(entry);
        }
        freed + 1
    }
}
