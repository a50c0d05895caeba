//! [`Block`]: some entries of a stream in one listpack, laid out as Redis stores them in a snapshot.
//!
//! ```text
//! master   live entries │ deleted entries │ fields │ field 1 … field n │ 0
//! entry    flags │ ms │ seq │ value 1 … value n │ elements before this one
//!      or  flags │ ms │ seq │ fields │ field 1 │ value 1 … │ elements before this one
//! ```
//! The master holds the names of the fields of the first entry; an entry with the same names does not repeat them. Times
//! and sequences are differences to the id of the block, that of its first entry. The number at the end of an entry leads
//! back to its beginning, and the 0 that ends the master tells that there is nothing before it.
//!
//! Deleting marks an entry. Blocks are small, and one without a live entry is freed as a whole.

use super::id::StreamId;
use super::runs::HasId;
use crate::encoding::listpack::{self, Listpack, Position};
use crate::value::StringRef;

/// The entry was deleted.
const DELETED: i64 = 1;
/// The entry has the fields of the master.
const SAME_FIELDS: i64 = 2;

/// Elements of an entry before its values or fields: flags, ms and seq.
const FIXED_ELEMENTS: usize = 3;

/// Fate of an entry when entries are removed from the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The entry is removed.
    Goes,
    /// The entry stays, and the next one is looked at.
    Stays,
    /// The entry stays, and so do all behind it.
    Ends,
}

/// Entries in one pack. There is always at least one, which may be deleted.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// The id of the first entry.
    base: StreamId,
    pack: Listpack,
}

impl HasId for Block {
    const ALLOCATIONS: usize = 1;

    #[inline]
    fn id(&self) -> StreamId {
        self.base
    }
}

/// A field or its value as an integer; the numbers of a block's own are always integers.
#[inline]
fn number(element: StringRef<'_>) -> i64 {
    element.to_int().unwrap_or(0)
}

impl Block {
    /// A block of one entry. `words` are fields and values by turns.
    pub(super) fn new<'w>(id: StreamId, words: impl ExactSizeIterator<Item = &'w [u8]> + Clone) -> Self {
        let mut pack = Listpack::new();
        pack.push_back_int(0);
        pack.push_back_int(0);
        pack.push_back_int((words.len() / 2) as i64);
        words.clone().step_by(2).for_each(|field| pack.push_back(field));
        pack.push_back_int(0);
        let mut block = Self { base: id, pack };
        block.push(id, words);
        block
    }

    /// A block of a pack that came from outside; `None` unless all of it is as described above, with ids that ascend.
    pub(super) fn of_pack(base: StreamId, pack: Listpack) -> Option<Self> {
        let mut elements = pack.iter();
        let [live, deleted, len] = integers(&mut elements)?.map(u64::try_from);
        let (live, deleted, len) = (live.ok()?, deleted.ok()?, len.ok()?);
        skip(&mut elements, len)?;
        let [0] = integers(&mut elements)? else {
            return None;
        };
        let mut found = [0; 2];
        let mut last = None;
        while let Some((flags, id)) = check_entry(&mut elements, base, len)? {
            if last.is_some_and(|last| id <= last) {
                return None;
            }
            last = Some(id);
            found[usize::from(flags & DELETED != 0)] += 1;
        }
        (found == [live, deleted]).then_some(Self { base, pack })
    }

    /// The pack.
    pub(super) fn pack(&self) -> &Listpack {
        &self.pack
    }

    /// The length of the pack in bytes.
    pub(super) fn byte_len(&self) -> usize {
        self.pack.byte_len()
    }

    /// Bytes allocated.
    pub(super) fn memory(&self) -> usize {
        self.pack.memory()
    }

    /// Frees the capacity beyond the length.
    pub(super) fn shrink_to_fit(&mut self) {
        self.pack.shrink_to_fit();
    }

    /// Positions of the two counts.
    fn counts_at(&self) -> Option<(Position, Position)> {
        let live = self.pack.first()?;
        Some((live, self.pack.next(live)?))
    }

    /// Number of entries, and number of those marked as deleted.
    #[inline]
    pub(super) fn counts(&self) -> (u64, u64) {
        let Some((live, deleted)) = self.counts_at() else {
            return (0, 0);
        };
        let read = |at| number(self.pack.at(at)).unsigned_abs();
        (read(live), read(deleted))
    }

    /// Adds to the counts of live and deleted entries.
    fn count(&mut self, live: i64, deleted: i64) {
        let Some((at, _)) = self.counts_at() else { return };
        if live != 0 {
            let new = number(self.pack.at(at)) + live;
            self.pack.replace_int(at, new);
        }
        // Writing the first count may move the second, so its position is looked up afterwards.
        if deleted != 0
            && let Some(at) = self.pack.next(at)
        {
            let new = number(self.pack.at(at)) + deleted;
            self.pack.replace_int(at, new);
        }
    }

    /// The number of fields of the master, where they begin, and where the 0 behind them is.
    fn master(&self) -> Option<Master> {
        let (_, deleted) = self.counts_at()?;
        let (len, fields) = self.pack.at_with_next(self.pack.next(deleted)?);
        let (len, fields) = (number(len).unsigned_abs() as usize, fields?);
        let mut end = fields;
        for _ in 0..len {
            end = self.pack.next(end)?;
        }
        Some(Master { len, fields, end })
    }

    /// Appends an entry. Its id is above all others of the block.
    #[inline]
    pub(super) fn push<'w>(&mut self, id: StreamId, words: impl ExactSizeIterator<Item = &'w [u8]> + Clone) {
        let fields = words.len() / 2;
        let same = self.has_fields(fields, words.clone().step_by(2));
        let (ms, seq) = (
            id.ms.wrapping_sub(self.base.ms).cast_signed(),
            id.seq.wrapping_sub(self.base.seq).cast_signed(),
        );
        let pack = &mut self.pack;
        pack.push_back_int(if same { SAME_FIELDS } else { 0 });
        pack.push_back_int(ms);
        pack.push_back_int(seq);
        let elements = if same {
            push_all(pack, words.skip(1).step_by(2));
            FIXED_ELEMENTS + fields
        } else {
            pack.push_back_int(fields as i64);
            push_all(pack, words);
            FIXED_ELEMENTS + 1 + 2 * fields
        };
        pack.push_back_int(elements as i64);
        self.count(1, 0);
    }

    /// Whether the master has just these fields.
    #[inline]
    fn has_fields<'w>(&self, len: usize, mut fields: impl Iterator<Item = &'w [u8]>) -> bool {
        let Some((_, deleted)) = self.counts_at() else {
            return false;
        };
        let Some(at) = self.pack.next(deleted) else {
            return false;
        };
        let (known, mut at) = self.pack.at_with_next(at);
        number(known) == len as i64
            && fields.all(|field| {
                let Some(here) = at else { return false };
                at = self.pack.next(here);
                self.pack.equals(here, field)
            })
    }

    /// The entry that begins at `at`, and where its last element is.
    #[inline]
    fn read(&self, at: Position, master: Option<Master>) -> Option<(Found<'_>, Option<Position>)> {
        let pack = &self.pack;
        let (flags, ms_at) = pack.at_with_next(at);
        let (ms, seq_at) = pack.at_with_next(ms_at?);
        let (seq, mut values) = pack.at_with_next(seq_at?);
        let flags = number(flags);
        let (len, names) = if flags & SAME_FIELDS != 0 {
            let master = master?;
            (master.len, Some(master.fields))
        } else {
            let (len, first) = pack.at_with_next(values?);
            values = first;
            (number(len).unsigned_abs() as usize, None)
        };
        let values = values?;
        let item = Item {
            id: StreamId {
                ms: self.base.ms.wrapping_add(number(ms).cast_unsigned()),
                seq: self.base.seq.wrapping_add(number(seq).cast_unsigned()),
            },
            pack,
            len,
            names,
            values,
        };
        let elements = if names.is_some() { len } else { 2 * len };
        let end = (0..elements).try_fold(values, |at, _| pack.next(at));
        Some((Found { at, flags, item }, end))
    }

    /// The entries in order, the deleted ones among them.
    #[inline]
    pub(super) fn forward(&self) -> Walk<'_> {
        let master = self.master();
        Walk {
            block: self,
            next: master.as_ref().and_then(|master| self.pack.next(master.end)),
            master,
            backward: false,
        }
    }

    /// The entries from the last one back.
    pub(super) fn backward(&self) -> Walk<'_> {
        Walk {
            block: self,
            master: self.master(),
            next: self.pack.last(),
            backward: true,
        }
    }

    /// The id of the last entry, whether it is deleted or not.
    pub(super) fn last_id(&self) -> StreamId {
        self.backward().next().map_or(self.base, |entry| entry.item.id)
    }

    /// Marks entries as deleted, from the first live one on, as `fate` decides by their ids; returns their number.
    pub(super) fn delete_from_front(&mut self, mut fate: impl FnMut(StreamId) -> Fate) -> u64 {
        let master = self.master();
        let mut marked = 0;
        let mut next = self.forward().next;
        while let Some(at) = next {
            let Some((entry, end)) = self.read(at, master) else {
                break;
            };
            let (flags, id) = (entry.flags, entry.item.id);
            next = end.and_then(|end| self.pack.next(end));
            if flags & DELETED != 0 {
                continue;
            }
            match fate(id) {
                Fate::Goes => {}
                Fate::Stays => continue,
                Fate::Ends => break,
            }
            // Flags always take one byte, so nothing moves.
            self.pack.replace_int(at, flags | DELETED);
            marked += 1;
        }
        self.count(-marked, marked);
        marked.unsigned_abs()
    }

    /// Marks the entry of an id as deleted, if there is a live one.
    pub(super) fn delete(&mut self, id: StreamId) -> bool {
        let found = self.forward().find(|entry| entry.item.id >= id);
        let Some(entry) = found.filter(|entry| entry.item.id == id && !entry.is_deleted()) else {
            return false;
        };
        let (at, flags) = (entry.at, entry.flags);
        self.pack.replace_int(at, flags | DELETED);
        self.count(-1, 1);
        true
    }
}

/// The next elements, which are integers.
fn integers<const N: usize>(elements: &mut listpack::Iter<'_>) -> Option<[i64; N]> {
    let mut found = [0; N];
    for slot in &mut found {
        // Texts that spell integers do not do: changing them in place would move what follows.
        let StringRef::Int(int) = elements.next()? else {
            return None;
        };
        *slot = int;
    }
    Some(found)
}

/// Passes over elements of which there are at least so many.
fn skip(elements: &mut listpack::Iter<'_>, count: u64) -> Option<()> {
    for _ in 0..count {
        elements.next()?;
    }
    Some(())
}

/// Checks the entry that comes next and returns its flags and its id, nothing at the end; `None` if it is no entry.
/// The master has `master_len` fields.
fn check_entry(
    elements: &mut listpack::Iter<'_>,
    base: StreamId,
    master_len: u64,
) -> Option<Option<(i64, StreamId)>> {
    let Some(flags) = elements.next() else {
        return Some(None);
    };
    let StringRef::Int(flags @ 0..=3) = flags else {
        return None;
    };
    let [ms, seq] = integers(elements)?;
    let len = if flags & SAME_FIELDS != 0 {
        skip(elements, master_len)?;
        FIXED_ELEMENTS as u64 + master_len
    } else {
        let [fields] = integers(elements)?;
        let values = u64::try_from(fields).ok()?.checked_mul(2)?;
        skip(elements, values)?;
        FIXED_ELEMENTS as u64 + 1 + values
    };
    let [back] = integers(elements)?;
    let id = StreamId {
        ms: base.ms.wrapping_add(ms.cast_unsigned()),
        seq: base.seq.wrapping_add(seq.cast_unsigned()),
    };
    (u64::try_from(back) == Ok(len) && id >= base).then_some(Some((flags, id)))
}

#[inline]
fn push_all<'w>(pack: &mut Listpack, words: impl Iterator<Item = &'w [u8]>) {
    for word in words {
        pack.push_back(word);
    }
}

/// The head of a block.
#[derive(Clone, Copy, Debug)]
struct Master {
    /// Number of its fields.
    len: usize,
    /// Start of the fields.
    fields: Position,
    /// Position of the 0 behind them.
    end: Position,
}

/// A walk over the entries of a block.
#[derive(Clone, Debug)]
pub(super) struct Walk<'a> {
    block: &'a Block,
    master: Option<Master>,
    /// Start of the next entry; backwards, its end.
    next: Option<Position>,
    backward: bool,
}

/// An entry as a block holds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    /// Its start.
    at: Position,
    flags: i64,
    /// Its contents.
    pub(super) item: Item<'a>,
}

impl Found<'_> {
    /// Whether it is marked as deleted.
    #[inline]
    pub(super) fn is_deleted(&self) -> bool {
        self.flags & DELETED != 0
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Found<'a>;

    #[inline]
    fn next(&mut self) -> Option<Found<'a>> {
        let at = if self.backward {
            self.step_back()?
        } else {
            self.next?
        };
        let (found, end) = self.block.read(at, self.master)?;
        if !self.backward {
            self.next = self.block.pack.next(end?);
        }
        Some(found)
    }
}

impl Walk<'_> {
    /// Moves before the entry whose end is next; returns where it begins.
    fn step_back(&mut self) -> Option<Position> {
        let pack = &self.block.pack;
        let end = self.next?;
        let elements = number(pack.at(end));
        if elements == 0 {
            self.next = None;
            return None;
        }
        let start = (0..elements).try_fold(end, |at, _| pack.prev(at));
        self.next = start.and_then(|start| pack.prev(start));
        start
    }
}

/// An entry of a stream: its id, and its fields with their values.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    /// The id.
    pub id: StreamId,
    pack: &'a Listpack,
    /// Number of its fields.
    len: usize,
    /// Position of the names of the fields if the entry has none of its own.
    names: Option<Position>,
    /// Start of its values, or of names and values by turns.
    values: Position,
}

impl<'a> Item<'a> {
    /// Number of fields.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no fields. Entries that were added by a command have some.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The fields with their values, in the order they were given.
    #[inline]
    #[must_use]
    pub fn fields(&self) -> Fields<'a> {
        Fields {
            pack: self.pack,
            left: self.len,
            names: self.names,
            next: Some(self.values),
        }
    }
}

impl std::fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Item")
            .field("id", &self.id)
            .field("fields", &self.len)
            .finish_non_exhaustive()
    }
}

/// The fields of an entry with their values.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    pack: &'a Listpack,
    left: usize,
    /// Position of the next name, if names stand apart.
    names: Option<Position>,
    next: Option<Position>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (StringRef<'a>, StringRef<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = if let Some(at) = self.names {
            let (name, next) = self.pack.at_with_next(at);
            self.names = next;
            name
        } else {
            let (name, next) = self.pack.at_with_next(self.next?);
            self.next = next;
            name
        };
        let (value, next) = self.pack.at_with_next(self.next?);
        self.next = next;
        Some((name, value))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Fields<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<'w>(text: &'w [&'w str]) -> impl ExactSizeIterator<Item = &'w [u8]> + Clone {
        text.iter().map(|word| word.as_bytes())
    }

    /// Dump of redis-server 7.0 after XADD s 5-1 name a n 1, XADD s 5-3 name b n 2000, XADD s 7-0 other c and XDEL s
    /// 5-3.
    const REFERENCE: &[u8] = b"\x48\0\0\0\x19\0\x02\x01\x01\x01\x02\x01\x84name\x05\x81n\x02\0\x01\x02\x01\0\x01\0\x01\x81a\x02\
        \x01\x01\x05\x01\x03\x01\0\x01\x02\x01\x81b\x02\xc7\xd0\x02\x05\x01\0\x01\x02\x01\xdf\xff\x02\x01\x01\x85other\x06\x81c\
        \x02\x06\x01\xff";

    #[test]
    fn entries_are_walked_from_both_ends() {
        let mut block = Block::new(StreamId::new(5, 1), words(&["name", "a", "n", "1"]));
        block.push(StreamId::new(5, 3), words(&["name", "b", "n", "2000"]));
        block.push(StreamId::new(7, 0), words(&["other", "c"]));
        assert_eq!(block.counts(), (3, 0));
        assert!(block.delete(StreamId::new(5, 3)) && !block.delete(StreamId::new(5, 3)));
        assert!(!block.delete(StreamId::new(5, 2)) && !block.delete(StreamId::new(9, 0)));
        assert_eq!(block.counts(), (2, 1));
        let ids = |walk: Walk<'_>| -> Vec<(String, bool)> {
            walk.map(|found| (found.item.id.to_string(), found.is_deleted()))
                .collect()
        };
        let mut expected = vec![
            ("5-1".to_owned(), false),
            ("5-3".to_owned(), true),
            ("7-0".to_owned(), false),
        ];
        assert_eq!(ids(block.forward()), expected);
        expected.reverse();
        assert_eq!(ids(block.backward()), expected);
        assert_eq!(block.last_id(), StreamId::new(7, 0));
        assert_eq!(block.pack.to_bytes(), REFERENCE);
    }

    #[test]
    fn names_are_those_of_the_master_or_an_entrys_own() {
        let mut block = Block::new(StreamId::new(1, u64::MAX), words(&["a", "x", "b", "7"]));
        block.push(StreamId::new(2, 0), words(&["a", "y", "b", "8"]));
        block.push(StreamId::new(2, 1), words(&["a", "z", "c", "9"]));
        block.push(StreamId::MAX, words(&["a", "z"]));
        let all: Vec<String> = block
            .forward()
            .map(|found| format!("{} {:?}", found.item.id, found.item.fields().collect::<Vec<_>>()))
            .collect();
        assert!(
            all[1].starts_with("2-0 [(Bytes([97]), Bytes([121])), (Bytes([98]), Int(8))]"),
            "{all:?}"
        );
        assert!(
            all[2].starts_with("2-1 [(Bytes([97]), Bytes([122])), (Bytes([99]), Int(9))]"),
            "{all:?}"
        );
        assert!(
            all[3].starts_with("18446744073709551615-18446744073709551615 [("),
            "{all:?}"
        );
    }

    #[test]
    fn a_pack_from_outside_is_checked_down_to_each_entry() {
        let of = |bytes: &[u8]| Block::of_pack(StreamId::new(5, 1), Listpack::from_bytes(bytes)?);
        assert_eq!(of(REFERENCE).map(|block| block.counts()), Some((2, 1)));
        // Every element is an integer of one byte here, or a text.
        for (at, byte) in [
            (6, 3),  // one live entry more than there are
            (8, 0),  // a deleted entry that is not counted
            (10, 3), // a field more
            (10, 1), // a field less
            (21, 1), // no end of the master
            (23, 4), // flags that nobody has
            (34, 6), // a way back that is too long
            (36, 2), // an entry that is not deleted
            (40, 0), // the id of the entry before
        ] {
            let mut bad = REFERENCE.to_vec();
            assert_ne!(bad[at], byte);
            bad[at] = byte;
            assert!(of(&bad).is_none(), "{byte} at {at}");
        }
        assert!(Block::of_pack(StreamId::MIN, Listpack::new()).is_none());
        let mut more = Listpack::from_bytes(REFERENCE).unwrap();
        more.push_back_int(0);
        assert!(Block::of_pack(StreamId::new(5, 1), more).is_none());
    }

    #[test]
    fn counts_may_outgrow_their_byte() {
        let mut block = Block::new(StreamId::new(1, 0), words(&["a", "x"]));
        for seq in 1..300 {
            block.push(StreamId::new(1, seq), words(&["a", "x"]));
        }
        assert_eq!(block.counts(), (300, 0));
        let early = |id: StreamId| if id.seq < 200 { Fate::Goes } else { Fate::Ends };
        let gone = block.delete_from_front(early);
        assert_eq!((gone, block.counts()), (200, (100, 200)));
        assert_eq!(block.delete_from_front(early), 0);
        let live = block.forward().filter(|found| !found.is_deleted());
        assert_eq!(
            live.map(|found| found.item.id.seq).collect::<Vec<_>>(),
            (200..300).collect::<Vec<_>>()
        );
    }
}
