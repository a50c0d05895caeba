//! [`Stream`]: entries in the order of their ids, appended at the end, and the consumer groups that read them.
//!
//! Entries are packed in blocks (`blocks`, which are bounded by `stream-node-max-bytes` and `-entries`) and blocks stand
//! in runs (`runs`), sorted by the id of the first entry they had. Appending is O(1) amortised, finding an entry
//! O(log n) and a walk through one block. Blocks, and the moments at which they begin and go, are those of Redis, so that
//! trimming approximately removes just what it removes there.
//!
//! A stream may be empty and stay: its ids go on where they were. What concerns entries is in [`Log`], so that entries
//! can be read while a [`Group`] is changed.

mod blocks;
mod group;
mod id;
mod runs;

use std::fmt;

use self::blocks::{Block, Fate, Walk};
pub use self::blocks::{Fields, Item};
pub use self::group::{Consumer, ConsumerId, Group, Pending};
pub use self::id::{ID_TEXT_MAX, Sequence, StreamId};
use self::runs::{At, HasId as _, Runs};
use super::Encoding;
use crate::encoding::listpack::Listpack;
pub use crate::encoding::order_tree::Order;
use crate::memory::boxed::CountedBox;
use crate::memory::compact_vec::CompactVec;

/// Size limit of blocks and of entries, whatever the configuration says, bytes.
pub const BLOCK_BYTES_MAX: usize = 1 << 30;

/// Limits of a block.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Bytes a block may have: `stream-node-max-bytes`. 0 for no limit but [`BLOCK_BYTES_MAX`].
    pub block_bytes: usize,
    /// Entries a block may have, deleted ones counted: `stream-node-max-entries`. 0 for no limit.
    pub block_entries: u64,
}

/// Reason for which an entry was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// The id is not above the last one.
    IdNotAbove,
    /// The fields and values exceed [`BLOCK_BYTES_MAX`] bytes.
    TooLarge,
}

/// Entries that trimming leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimTo {
    /// The last entries, so many.
    Length(u64),
    /// The entries from this id on.
    From(StreamId),
}

/// A way to trim a stream.
#[derive(Clone, Copy, Debug)]
pub struct Trim {
    /// The entries that are left.
    pub to: TrimTo,
    /// Leave more, if that is cheaper: only whole blocks go.
    pub approximate: bool,
    /// Remove at most so many entries; 0 for no limit.
    pub limit: u64,
}

/// Treatment of groups' references to an entry that is to be removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum References {
    /// The references stay.
    #[default]
    Keep,
    /// The references are removed, too.
    Remove,
    /// The entry stays as long as there are references.
    Respect,
}

/// Figures about the entries that a stream has and had, as a snapshot keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamFigures {
    /// See [`Log::last_id`].
    pub last_id: StreamId,
    /// See [`Log::max_deleted_id`].
    pub max_deleted_id: StreamId,
    /// See [`Log::entries_added`].
    pub entries_added: u64,
}

/// Result of trimming.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Number of removed entries.
    pub count: u64,
    /// The id of the last one.
    pub last: StreamId,
}

/// The entries of a stream, and what is remembered of those that were.
#[derive(Clone, Default)]
pub struct Log {
    blocks: Runs<Block>,
    /// Size of the packs of the blocks, in bytes.
    pack_bytes: usize,
    len: u64,
    first_id: StreamId,
    last_id: StreamId,
    max_deleted_id: StreamId,
    entries_added: u64,
}

/// The groups of a stream, in the order of their names.
type Groups = CompactVec<CountedBox<Group>>;

#[derive(Clone, Default)]
struct State {
    log: Log,
    groups: Groups,
}

fn is_referenced(groups: &Groups, id: StreamId) -> bool {
    groups
        .iter()
        .any(|group| group.last_id < id || group.pending(id).is_some())
}

fn forget(groups: &mut Groups, id: StreamId) -> bool {
    let mut was_pending = false;
    for group in groups.iter_mut() {
        was_pending |= group.acknowledge(id);
    }
    was_pending
}

/// Entries with ids, and consumer groups.
#[derive(Clone)]
pub struct Stream(CountedBox<State>);

const _: () = assert!(size_of::<Stream>() <= 24);

impl Default for Stream {
    fn default() -> Self {
        Self(CountedBox::new(State::default()))
    }
}

impl Stream {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.log().len()
    }

    /// Whether there are no entries. Unlike other collections, an empty stream stays under its key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Encoding, as OBJECT ENCODING names it.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        Encoding::Stream
    }

    /// The entries.
    #[inline]
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    /// The entries, to be changed.
    #[inline]
    #[must_use]
    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.0.log
    }

    // ----- groups

    fn search(&self, name: &[u8]) -> Result<usize, usize> {
        self.0.groups.binary_search_by(|group| group.name().cmp(name))
    }

    /// The groups in the order of their names.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &Group> {
        self.0.groups.iter().map(|group| &**group)
    }

    /// The group at a place in the order of names.
    #[must_use]
    pub fn group_at(&self, index: usize) -> Option<&Group> {
        self.0.groups.get(index).map(|group| &**group)
    }

    /// The group of that name.
    #[must_use]
    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        let at = self.search(name).ok()?;
        Some(&self.0.groups[at])
    }

    /// The group of that name, to be changed, with the entries.
    pub fn group_mut(&mut self, name: &[u8]) -> Option<(&mut Log, &mut Group)> {
        let at = self.search(name).ok()?;
        let State { log, groups } = &mut *self.0;
        Some((log, &mut groups[at]))
    }

    /// Adds a group; false when there is one of that name.
    pub fn add_group(&mut self, name: &[u8], last_id: StreamId, entries_read: Option<u64>) -> bool {
        let Err(at) = self.search(name) else {
            return false;
        };
        let group = Group::new(name, last_id, entries_read);
        self.0.groups.insert(at, CountedBox::new(group));
        true
    }

    /// Removes a group; false when there is none of that name.
    pub fn remove_group(&mut self, name: &[u8]) -> bool {
        let Ok(at) = self.search(name) else {
            return false;
        };
        drop(self.0.groups.remove(at));
        true
    }

    /// Whether a group has still to read an entry or to acknowledge it. O(groups).
    #[must_use]
    pub fn is_referenced(&self, id: StreamId) -> bool {
        is_referenced(&self.0.groups, id)
    }

    /// Has no group wait for an entry's acknowledgement any more; true if one did. O(groups).
    pub fn forget(&mut self, id: StreamId) -> bool {
        forget(&mut self.0.groups, id)
    }

    /// Removes entries from the front, with a view to the groups that refer to them. O(removed), and O(groups) for each entry
    /// unless references stay.
    pub fn trim(&mut self, trim: Trim, references: References) -> Trimmed {
        let State { log, groups } = &mut *self.0;
        match references {
            References::Keep => log.trim(trim, |_| true),
            References::Remove => log.trim(trim, |id| {
                forget(groups, id);
                true
            }),
            References::Respect => log.trim(trim, |id| !is_referenced(groups, id)),
        }
    }

    // ----- memory

    /// Bytes allocated, without those in the entry. O(blocks / 64 + consumers).
    #[must_use]
    pub fn memory(&self) -> usize {
        let groups = self.0.groups.iter();
        CountedBox::<State>::memory()
            + self.log().memory()
            + self.0.groups.memory()
            + groups
                .map(|group| CountedBox::<Group>::memory() + group.memory())
                .sum::<usize>()
    }

    /// Approximate number of allocations to free.
    #[must_use]
    pub fn free_cost(&self) -> usize {
        self.log().blocks.free_cost() + self.groups().map(Group::free_cost).sum::<usize>()
    }

    /// Frees to the value of about `budget` allocations; returns how many were freed. The stream is good for nothing else
    /// then.
    pub(crate) fn drain(&mut self, budget: usize) -> usize {
        let State { log, groups } = &mut *self.0;
        let mut freed = log.blocks.drain(budget);
        while freed < budget && !groups.is_empty() {
            let last = groups.len() - 1;
            let part = groups[last].drain(budget - freed);
            freed += part.max(1);
            if part == 0 {
                drop(groups.remove(last));
            }
        }
        freed
    }
}

impl Log {
    /// Number of entries.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The id of the first entry; [`StreamId::MIN`] when there is none.
    #[must_use]
    pub fn first_id(&self) -> StreamId {
        self.first_id
    }

    /// The highest id that was ever given to an entry.
    #[inline]
    #[must_use]
    pub fn last_id(&self) -> StreamId {
        self.last_id
    }

    /// The highest id of an entry that was deleted, other than by trimming.
    #[must_use]
    pub fn max_deleted_id(&self) -> StreamId {
        self.max_deleted_id
    }

    /// Number of entries that were ever added.
    #[must_use]
    pub fn entries_added(&self) -> u64 {
        self.entries_added
    }

    /// In how many blocks the entries are.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The first block from `base` on: the id that the ids in it are differences to, and its pack. O(log blocks).
    #[must_use]
    pub fn block_from(&self, base: StreamId) -> Option<(StreamId, &Listpack)> {
        let block = self.blocks.at(self.blocks.ceil(base)?);
        Some((block.id(), block.pack()))
    }

    /// Appends a block from outside, whose entries count as neither added nor deleted: [`Log::set_figures`] must
    /// follow. False when the pack is no block, or its ids are not above all others. O(its elements).
    pub fn add_block(&mut self, base: StreamId, pack: Listpack) -> bool {
        let Some(block) = Block::of_pack(base, pack) else {
            return false;
        };
        if self.blocks.last().is_some_and(|last| base <= last.last_id()) {
            return false;
        }
        let (live, _) = block.counts();
        if live > 0 {
            self.len += live;
            self.pack_bytes += block.memory();
            self.blocks.insert(block);
        }
        true
    }

    /// Sets the figures of a stream whose blocks came from outside. False when the last id is below that of an entry.
    pub fn set_figures(&mut self, figures: StreamFigures) -> bool {
        let StreamFigures {
            last_id,
            max_deleted_id,
            entries_added,
        } = figures;
        if self.blocks.last().is_some_and(|last| last_id < last.last_id()) {
            return false;
        }
        self.set_last_id(last_id, Some(entries_added), Some(max_deleted_id));
        self.find_first();
        true
    }

    /// Sets the last id, and what is given of the two other figures that XSETID can set.
    pub fn set_last_id(&mut self, id: StreamId, added: Option<u64>, max_deleted: Option<StreamId>) {
        self.last_id = id;
        self.entries_added = added.unwrap_or(self.entries_added);
        self.max_deleted_id = max_deleted.unwrap_or(self.max_deleted_id);
    }

    // ----- reading

    /// The entries from `from` up to `to`, both included, in either order.
    #[must_use]
    pub fn range(&self, from: StreamId, to: StreamId, order: Order) -> Range<'_> {
        let at = match order {
            Order::Ascending => self.blocks.floor(from).or_else(|| self.blocks.front()),
            Order::Descending => self.blocks.floor(to),
        };
        let mut range = Range {
            log: self,
            at,
            walk: None,
            from,
            to,
            order,
        };
        if from <= to {
            range.enter();
        }
        range
    }

    /// The entry of an id.
    #[must_use]
    pub fn get(&self, id: StreamId) -> Option<Item<'_>> {
        self.range(id, id, Order::Ascending).next()
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> Option<Item<'_>> {
        self.range(StreamId::MIN, StreamId::MAX, Order::Descending).next()
    }

    /// Whether entries between the first one and the last were deleted, at `from` or behind it, so that positions
    /// cannot be computed from counts.
    #[must_use]
    pub fn has_holes_from(&self, from: StreamId) -> bool {
        self.len > 0 && self.first_id <= self.max_deleted_id && from <= self.max_deleted_id
    }

    /// Number of entries from the first ever up to `id`; `None` if it is unknown.
    #[must_use]
    pub fn position_of(&self, id: StreamId) -> Option<u64> {
        if self.entries_added == 0 {
            return Some(0);
        }
        if self.len == 0 && id <= self.last_id {
            return Some(self.entries_added);
        }
        if id != StreamId::MIN && id < self.max_deleted_id {
            return None;
        }
        if id == self.last_id {
            return Some(self.entries_added);
        }
        let whole = self.max_deleted_id == StreamId::MIN || self.max_deleted_id < self.first_id;
        if id > self.last_id || !whole || id > self.first_id {
            return None;
        }
        let before_first = self.entries_added.saturating_sub(self.len);
        Some(before_first + u64::from(id == self.first_id))
    }

    /// Number of entries that a group which has read up to `last_id` has still to read; `None` if it is unknown.
    #[must_use]
    pub fn lag(&self, last_id: StreamId, entries_read: Option<u64>) -> Option<i64> {
        if self.entries_added == 0 || self.len == 0 {
            return Some(0);
        }
        if last_id < self.first_id && self.max_deleted_id < self.first_id {
            // The group has read none of the present entries, so all of them are its lag.
            return Some(self.len as i64);
        }
        let read = match entries_read {
            Some(read) if !self.has_holes_from(last_id) => read,
            _ => self.position_of(last_id)?,
        };
        Some(self.entries_added.wrapping_sub(read).cast_signed())
    }

    // ----- changing

    /// Appends an entry; `words` are its fields and their values by turns. O(1) amortised.
    ///
    /// # Errors
    /// When the id is not above the last one, or there are too many bytes. Nothing has changed then.
    #[inline]
    pub fn append<'w>(
        &mut self,
        id: StreamId,
        words: impl ExactSizeIterator<Item = &'w [u8]> + Clone,
        limits: &StreamLimits,
    ) -> Result<(), AppendError> {
        if id <= self.last_id {
            return Err(AppendError::IdNotAbove);
        }
        let bytes = words.clone().map(<[u8]>::len).sum::<usize>();
        if bytes > BLOCK_BYTES_MAX {
            return Err(AppendError::TooLarge);
        }
        match self.blocks.last_mut() {
            Some(block) if has_room(block, bytes, limits) => {
                let before = block.memory();
                block.push(id, words);
                self.pack_bytes += block.memory() - before;
            }
            _ => self.open_block(id, words),
        }
        if self.len == 0 {
            self.first_id = id;
        }
        self.len += 1;
        self.entries_added = self.entries_added.saturating_add(1);
        self.last_id = id;
        Ok(())
    }

    fn open_block<'w>(&mut self, id: StreamId, words: impl ExactSizeIterator<Item = &'w [u8]> + Clone) {
        if let Some(full) = self.blocks.last_mut() {
            self.pack_bytes -= full.memory();
            full.shrink_to_fit();
            self.pack_bytes += full.memory();
        }
        let block = Block::new(id, words);
        self.pack_bytes += block.memory();
        self.blocks.insert(block);
    }

    /// Deletes an entry; false when there is none of that id.
    pub fn delete(&mut self, id: StreamId) -> bool {
        let Some(at) = self.blocks.floor(id) else {
            return false;
        };
        let deleted = self.change_block(at, |block| u64::from(block.delete(id)));
        if deleted == 0 {
            return false;
        }
        self.max_deleted_id = self.max_deleted_id.max(id);
        if id == self.first_id {
            self.find_first();
        }
        true
    }

    /// Deletes entries of a block by `delete`, which returns their number. The block is removed if none is left.
    fn change_block(&mut self, at: At, delete: impl FnOnce(&mut Block) -> u64) -> u64 {
        let block = self.blocks.at_mut(at);
        let before = block.memory();
        let deleted = delete(block);
        if block.counts().0 == 0 {
            drop(self.blocks.remove_at(at));
            self.pack_bytes -= before;
        } else {
            self.pack_bytes = self.pack_bytes - before + block.memory();
        }
        self.len -= deleted;
        deleted
    }

    fn find_first(&mut self) {
        let first = self.range(StreamId::MIN, StreamId::MAX, Order::Ascending).next();
        self.first_id = first.map_or(StreamId::MIN, |item| item.id);
    }

    /// Removes entries from the front, of those that must go the ones that may.
    fn trim(&mut self, trim: Trim, mut may_go: impl FnMut(StreamId) -> bool) -> Trimmed {
        let mut trimmed = Trimmed::default();
        let mut next = self.blocks.front();
        while let Some(at) = next {
            let block = self.blocks.at(at);
            let ((live, _), base) = (block.counts(), block.id());
            let (surplus, whole) = match trim.to {
                TrimTo::Length(len) => (self.len.checked_sub(len), self.len - live >= len),
                TrimTo::From(first) => (Some(u64::MAX), block.last_id() < first),
            };
            let Some(mut surplus @ 1..) = surplus else { break };
            let is_over_limit = trim.limit > 0 && trimmed.count + live > trim.limit;
            if is_over_limit || (trim.approximate && !whole) {
                break;
            }
            let mut is_end = false;
            trimmed.count += self.change_block(at, |block| {
                block.delete_from_front(|id| {
                    is_end = surplus == 0 || matches!(trim.to, TrimTo::From(first) if id >= first);
                    if is_end {
                        return Fate::Ends;
                    }
                    if !may_go(id) {
                        return Fate::Stays;
                    }
                    surplus -= 1;
                    trimmed.last = id;
                    Fate::Goes
                })
            });
            if is_end {
                break;
            }
            next = base.next().and_then(|from| self.blocks.ceil(from));
        }
        if trimmed.count > 0 {
            self.find_first();
        }
        trimmed
    }

    fn memory(&self) -> usize {
        self.blocks.memory() + self.pack_bytes
    }
}

/// Whether an entry of `bytes` bytes fits this block.
#[inline]
fn has_room(block: &Block, bytes: usize, limits: &StreamLimits) -> bool {
    let most = match limits.block_bytes {
        0 => BLOCK_BYTES_MAX,
        most => most.min(BLOCK_BYTES_MAX),
    };
    if block.byte_len() + bytes >= most {
        return false;
    }
    let (live, deleted) = block.counts();
    limits.block_entries == 0 || live + deleted < limits.block_entries
}

/// Entries of a stream, in order; see [`Log::range`].
#[derive(Clone)]
pub struct Range<'a> {
    log: &'a Log,
    /// The block that is walked.
    at: Option<At>,
    walk: Option<Walk<'a>>,
    from: StreamId,
    to: StreamId,
    order: Order,
}

impl Range<'_> {
    /// Begins with the block that is next.
    fn enter(&mut self) {
        let log = self.log;
        self.walk = self.at.map(|at| {
            let block = log.blocks.at(at);
            match self.order {
                Order::Ascending => block.forward(),
                Order::Descending => block.backward(),
            }
        });
    }

    /// Leaves the block for the next one.
    fn leave(&mut self) {
        self.at = self.at.and_then(|at| match self.order {
            Order::Ascending => self.log.blocks.next(at),
            Order::Descending => self.log.blocks.prev(at),
        });
        self.enter();
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        loop {
            let Some(found) = self.walk.as_mut()?.next() else {
                self.leave();
                continue;
            };
            let id = found.item.id;
            let (before, behind) = match self.order {
                Order::Ascending => (id < self.from, id > self.to),
                Order::Descending => (id > self.to, id < self.from),
            };
            if behind {
                self.walk = None;
                return None;
            }
            if !before && !found.is_deleted() {
                return Some(found.item);
            }
        }
    }
}

impl fmt::Debug for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Range")
            .field("from", &self.from)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("len", &self.len)
            .field("last_id", &self.last_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("log", self.log())
            .field("groups", &self.0.groups.len())
            .finish()
    }
}

#[cfg(test)]
mod tests;
