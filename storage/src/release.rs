//! Garbage: what no key leads to any more and is still to be freed, in slices.
//!
//! Freeing a flushed database or a value of hundreds of megabytes at once would be a pause. It waits here instead, still
//! counted as memory, and goes piece by piece whenever the owner calls [`Garbage::release`].
//!
//! Bounds: a store comes here only when it holds more than [`STORE_MIN`] entries and a value only when it is larger than
//! [`VALUE_MIN`]; what is smaller is freed on the spot. So the queues are far smaller than what they refer to.

use std::collections::VecDeque;

use crate::entry::EntryBox;
use crate::keyspace::store::{Displaced, Store};
use crate::memory::Buffer;

/// Values up to this size, in bytes, are freed on the spot.
const VALUE_MIN: usize = 64 << 10;
/// Stores of up to this many entries are freed on the spot.
const STORE_MIN: usize = 1024;
/// A large value is freed in slices of this size.
const VALUE_SLICE: usize = 1 << 20;
/// What a slice costs in units of the budget, in which a small entry is one.
const VALUE_SLICE_COST: usize = 64;

/// What one database has given up and not yet freed.
#[derive(Default)]
pub(crate) struct Garbage {
    stores: VecDeque<Store>,
    buffers: VecDeque<Buffer>,
    /// Entries in `stores`.
    entries: usize,
}

impl Garbage {
    /// How many objects wait: entries of flushed stores and large values.
    #[inline]
    pub(crate) fn pending(&self) -> usize {
        self.entries + self.buffers.len()
    }

    /// Frees a store, later if it is large.
    pub(crate) fn push_store(&mut self, store: Store) {
        if store.len() > STORE_MIN {
            self.entries += store.len();
            self.stores.push_back(store);
        }
    }

    /// Frees an entry; its value later if it is large.
    pub(crate) fn push_entry(&mut self, mut entry: EntryBox) {
        if entry.heap_memory() > VALUE_MIN
            && let Some(buffer) = entry.take_heap()
        {
            self.buffers.push_back(buffer);
        }
    }

    /// Frees what a change has displaced, later if it is large.
    #[inline]
    pub(crate) fn push_displaced(&mut self, displaced: Displaced) {
        match displaced {
            Displaced::Nothing => {}
            Displaced::Entry(entry) => self.push_entry(entry),
            Displaced::Buffer(buffer) => {
                if buffer.capacity() > VALUE_MIN {
                    self.buffers.push_back(buffer);
                }
            }
        }
    }

    /// Frees garbage to the value of about `budget` small entries; returns what is left of the budget.
    pub(crate) fn release(&mut self, budget: usize) -> usize {
        let mut left = budget;
        while left > 0 && self.pending() > 0 {
            let cost = if self.buffers.is_empty() {
                self.release_bucket()
            } else {
                self.release_value()
            };
            left = left.saturating_sub(cost);
        }
        left
    }

    /// Frees a slice of the first value.
    fn release_value(&mut self) -> usize {
        if let Some(buffer) = self.buffers.front_mut()
            && (buffer.capacity() <= VALUE_SLICE || !buffer.trim(VALUE_SLICE))
        {
            self.buffers.pop_front();
        }
        VALUE_SLICE_COST
    }

    /// Frees a bucket of the first store.
    fn release_bucket(&mut self) -> usize {
        let Some(store) = self.stores.front_mut() else {
            return 1;
        };
        let mut freed = 0;
        let buffers = &mut self.buffers;
        let more = store.drain(|mut entry| {
            freed += 1;
            if entry.heap_memory() > VALUE_MIN {
                buffers.extend(entry.take_heap());
            }
        });
        self.entries -= freed;
        if !more {
            self.stores.pop_front();
        }
        freed + 1
    }
}
