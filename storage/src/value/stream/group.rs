//! [`Group`]: the consumers that share a stream, and what was delivered to them and not yet acknowledged.
//!
//! Pending entries are kept twice: by id, with the consumer, for the group; and as a mere id with each consumer, so
//! that a consumer's own history is found without going through everybody's. Both are changed together, here alone.

use super::id::StreamId;
use super::runs::{HasId, Runs};
use crate::memory::boxed::CountedBox;
use crate::memory::compact::CompactBuffer;
use crate::memory::compact_vec::CompactVec;

/// Names a consumer within its group, for as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerId(u32);

/// An entry that was delivered and is not yet acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The entry, which may have been deleted meanwhile.
    pub id: StreamId,
    /// Time of the last delivery, Unix milliseconds.
    pub delivered_ms: i64,
    /// Number of times it was delivered.
    pub deliveries: u64,
    /// Consumer of the last delivery.
    pub consumer: ConsumerId,
}

impl HasId for Pending {
    const ALLOCATIONS: usize = 0;

    #[inline]
    fn id(&self) -> StreamId {
        self.id
    }
}

/// A reader on behalf of a group.
#[derive(Clone, Debug)]
pub struct Consumer {
    name: CompactBuffer,
    /// Time of its last attempt to read, claim or the like, Unix milliseconds.
    pub seen_ms: i64,
    /// Time at which it last got an entry, if ever, Unix milliseconds.
    pub active_ms: Option<i64>,
    pending: Runs<StreamId>,
}

impl Consumer {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Number of entries pending with it.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// The ids of what is pending with it from `from` on, ascending.
    pub fn pending_from(&self, from: StreamId) -> impl Iterator<Item = StreamId> {
        self.pending.iter_from(from).copied()
    }
}

/// A consumer group of a stream.
#[derive(Clone, Debug)]
pub struct Group {
    name: CompactBuffer,
    /// The last entry that was delivered.
    pub last_id: StreamId,
    /// Number of entries that were read, counted from the stream's first entry ever; `None` if it is unknown.
    pub entries_read: Option<u64>,
    pending: Runs<Pending>,
    /// Consumers at the places that their [`ConsumerId`]s tell, with gaps where some were removed.
    consumers: CompactVec<Option<CountedBox<Consumer>>>,
    /// The consumers in the order of their names.
    by_name: CompactVec<ConsumerId>,
}

impl Group {
    /// A group without consumers.
    pub(super) fn new(name: &[u8], last_id: StreamId, entries_read: Option<u64>) -> Self {
        Self {
            name: CompactBuffer::from(name),
            last_id,
            entries_read,
            pending: Runs::default(),
            consumers: CompactVec::new(),
            by_name: CompactVec::new(),
        }
    }

    /// The number of entries read as a word of a command has it: -1 if it is unknown, or above what commands take.
    #[must_use]
    pub fn entries_read_in_command(&self) -> i64 {
        self.entries_read
            .and_then(|read| i64::try_from(read).ok())
            .unwrap_or(-1)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    // ----- consumers

    fn search(&self, name: &[u8]) -> Result<usize, usize> {
        self.by_name
            .binary_search_by(|&id| self.consumer(id).map_or(&[][..], Consumer::name).cmp(name))
    }

    /// The consumer of that name. O(log n).
    #[must_use]
    pub fn find_consumer(&self, name: &[u8]) -> Option<ConsumerId> {
        self.search(name).ok().map(|at| self.by_name[at])
    }

    /// A consumer, unless it was removed.
    #[inline]
    #[must_use]
    pub fn consumer(&self, id: ConsumerId) -> Option<&Consumer> {
        self.consumers.get(id.0 as usize)?.as_deref()
    }

    /// A consumer, to note the time of its attempt; none if it was removed.
    pub fn consumer_mut(&mut self, id: ConsumerId) -> Option<&mut Consumer> {
        self.consumers.get_mut(id.0 as usize)?.as_deref_mut()
    }

    /// Number of consumers.
    #[must_use]
    pub fn consumers_len(&self) -> usize {
        self.by_name.len()
    }

    /// The consumers in the order of their names.
    pub fn consumers(&self) -> impl Iterator<Item = (ConsumerId, &Consumer)> {
        self.by_name
            .iter()
            .filter_map(|&id| Some((id, self.consumer(id)?)))
    }

    /// The consumer at a place in the order of names.
    #[must_use]
    pub fn consumer_at(&self, index: usize) -> Option<&Consumer> {
        self.consumer(*self.by_name.get(index)?)
    }

    /// The consumer of that name, created if there is none; the flag says whether it was created. O(consumers) if so.
    pub fn make_consumer(&mut self, name: &[u8], now_ms: i64) -> (ConsumerId, bool) {
        let at = match self.search(name) {
            Ok(at) => return (self.by_name[at], false),
            Err(at) => at,
        };
        let consumer = Some(CountedBox::new(Consumer {
            name: CompactBuffer::from(name),
            seen_ms: now_ms,
            active_ms: None,
            pending: Runs::default(),
        }));
        let gap = if self.by_name.len() < self.consumers.len() {
            self.consumers.iter().position(Option::is_none)
        } else {
            None
        };
        let place = match gap {
            Some(place) => {
                self.consumers[place] = consumer;
                place
            }
            None => {
                self.consumers.push(consumer);
                self.consumers.len() - 1
            }
        };
        let id = ConsumerId(place as u32);
        self.by_name.insert(at, id);
        (id, true)
    }

    /// Removes a consumer and its pending entries; returns their number. `None` when there is no such consumer.
    pub fn remove_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let at = self.search(name).ok()?;
        let id = self.by_name.remove(at);
        let consumer = self.consumers[id.0 as usize].take()?;
        for pending in consumer.pending.iter() {
            self.pending.remove(*pending);
        }
        Some(consumer.pending.len())
    }

    // ----- what is pending

    /// Number of pending entries.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// Pending entries from `from` on, in the order of ids.
    pub fn pending_from(&self, from: StreamId) -> impl Iterator<Item = &Pending> {
        self.pending.iter_from(from)
    }

    /// The first and the last id that is pending.
    #[must_use]
    pub fn pending_ends(&self) -> Option<(StreamId, StreamId)> {
        Some((self.pending.first()?.id, self.pending.last()?.id))
    }

    /// The pending entry of an id.
    #[must_use]
    pub fn pending(&self, id: StreamId) -> Option<&Pending> {
        self.pending.get(id)
    }

    /// Notes another delivery of what is pending already, to the same consumer.
    pub fn set_delivery(&mut self, id: StreamId, delivered_ms: i64, deliveries: u64) {
        if let Some(pending) = self.pending.get_mut(id) {
            pending.delivered_ms = delivered_ms;
            pending.deliveries = deliveries;
        }
    }

    /// Has an entry pending, whether it is already (with another consumer or the same) or not. O(log n).
    pub fn assign(&mut self, new: Pending) {
        match self.pending.insert(new) {
            Some(old) if old.consumer == new.consumer => return,
            Some(old) => self.unlist(old),
            None => {}
        }
        if let Some(consumer) = self.consumer_mut(new.consumer) {
            consumer.pending.insert(new.id);
        }
    }

    /// Acknowledges an entry; false when it is not pending. O(log n).
    pub fn acknowledge(&mut self, id: StreamId) -> bool {
        let Some(old) = self.pending.remove(id) else {
            return false;
        };
        self.unlist(old);
        true
    }

    fn unlist(&mut self, old: Pending) {
        if let Some(consumer) = self.consumer_mut(old.consumer) {
            consumer.pending.remove(old.id);
        }
    }

    // ----- memory

    /// Bytes allocated, without the box of the group. O(consumers and runs).
    pub(super) fn memory(&self) -> usize {
        let consumers = self.consumers.iter().flatten().map(|consumer| {
            CountedBox::<Consumer>::memory() + consumer.name.memory() + consumer.pending.memory()
        });
        self.name.memory()
            + self.pending.memory()
            + self.consumers.memory()
            + self.by_name.memory()
            + consumers.sum::<usize>()
    }

    /// Number of allocations to free.
    pub(super) fn free_cost(&self) -> usize {
        let consumers = self.consumers.iter().flatten();
        1 + self.pending.free_cost()
            + consumers
                .map(|consumer| 2 + consumer.pending.free_cost())
                .sum::<usize>()
    }

    /// Frees to the value of about `budget` allocations; returns how many were freed. The group is good for nothing else
    /// then.
    pub(super) fn drain(&mut self, budget: usize) -> usize {
        let mut freed = self.pending.drain(budget);
        while freed < budget && !self.consumers.is_empty() {
            let last = self.consumers.len() - 1;
            if let Some(consumer) = &mut self.consumers[last] {
                freed += consumer.pending.drain(budget - freed);
                if consumer.pending.len() > 0 {
                    break;
                }
                freed += 2;
            }
            drop(self.consumers.remove(last));
        }
        freed
    }
}
