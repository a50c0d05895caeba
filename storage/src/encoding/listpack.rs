//! [`Listpack`]: strings and integers packed into one run of bytes, element by element in Redis's format.
//!
//! ```text
//! header   total bytes: u32 LE │ elements: u16 LE, 65535 = too many to say
//! element  encoding and data (its span) │ length of the span, readable from its end
//! end      0xff
//! ```
//! Header and end are added when a pack leaves the process ([`Listpack::to_bytes`]) and checked when one comes in. In
//! memory they would often push a pack into the next size class, and they contain nothing that is not known
//! otherwise.
//!
//! The first byte of an element gives its type (`x` are bits of the value or of the length):
//! ```text
//! 0xxxxxxx            integer 0..=127        0xf1 + 2 bytes LE   integer of 16 bits
//! 10xxxxxx + string   length below 64        0xf2 + 3 bytes LE   integer of 24 bits
//! 110xxxxx + 1 byte   integer of 13 bits     0xf3 + 4 bytes LE   integer of 32 bits
//! 1110xxxx + 1 byte   string below 4096      0xf4 + 8 bytes LE   integer of 64 bits
//! 0xf0 + 4 bytes LE   longer string
//! ```
//! The length behind a span is in groups of seven bits, the highest first; all but the first have the top bit set, so
//! that it can be read backwards.
//!
//! A string that is the canonical spelling of an integer is stored as one. Everything but access through a
//! [`Position`] is linear in the bytes: users must keep packs small.
//!
//! All code in this file is safe: a position of another pack, or of this one before a change, gives wrong values or a
//! panic, but nothing worse.

mod element;

use std::fmt;

use self::element::{Encoded, Needle, back_len_of, decode, read_back_len, span_at};
use crate::memory::compact::{CompactBuffer, TAG_MAX};
use crate::value::StringRef;

const HEADER_BYTES: usize = 6;
/// Closes a pack.
const END: u8 = 0xff;
/// The count in the header when there are this many elements or more.
const COUNT_UNKNOWN: u16 = u16::MAX;
/// Bytes of a pack in Redis's format that are not elements.
pub(crate) const FRAME_BYTES: usize = HEADER_BYTES + 1;

/// A pack of strings and integers. An empty one need not allocate.
#[derive(Clone, Default)]
pub struct Listpack {
    /// The elements, one behind the other; their number is its tag, which does not count beyond [`TAG_MAX`].
    elements: CompactBuffer,
}

const _: () = assert!(size_of::<Listpack>() == 16);

/// Position of an element in a pack: valid until the pack changes, unless a method says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u32);

impl Position {
    #[inline]
    fn new(offset: usize) -> Self {
        // Offsets are within a buffer, whose length fits 32 bits.
        Self(offset as u32)
    }

    #[inline]
    fn offset(self) -> usize {
        self.0 as usize
    }
}

/// The bytes that `value` takes as an element, its own length included.
#[must_use]
pub fn encoded_len(value: &[u8]) -> usize {
    Encoded::of(value).size()
}

impl Listpack {
    /// An empty pack, which has not allocated.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            elements: CompactBuffer::new(),
        }
    }

    /// An empty pack with room for elements of `bytes` bytes in all, as [`encoded_len`] counts them.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            elements: CompactBuffer::with_capacity(bytes),
        }
    }

    /// The pack that `bytes` hold in Redis's format; `None` when they hold none, down to every element. O(bytes).
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (elements, count) = unframed(bytes)?;
        let mut elements = CompactBuffer::from(elements);
        elements.set_tag(tag(count));
        Some(Self { elements })
    }

    /// The pack in Redis's format.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.in_parts(&mut [0; FRAME_BYTES]).concat()
    }

    /// The pack in Redis's format in three parts, so that the elements need not be copied: `frame` is for the others.
    pub(crate) fn in_parts<'p>(&'p self, frame: &'p mut [u8; FRAME_BYTES]) -> [&'p [u8]; 3] {
        // The length of a buffer fits 32 bits, with some room to spare.
        frame[..4].copy_from_slice(&(self.byte_len() as u32).to_le_bytes());
        let count = u16::try_from(self.len()).unwrap_or(COUNT_UNKNOWN);
        frame[4..HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
        frame[HEADER_BYTES] = END;
        let (header, end) = frame.split_at(HEADER_BYTES);
        [header, &self.elements, end]
    }

    /// Number of elements. O(1) below 16 million of them, else O(bytes).
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.count().unwrap_or_else(|| self.iter().count())
    }

    /// Whether there is no element.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The length in bytes in Redis's format, which is what thresholds are about.
    #[inline]
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.elements.len() + FRAME_BYTES
    }

    /// The bytes allocated.
    #[inline]
    #[must_use]
    pub fn memory(&self) -> usize {
        self.elements.memory()
    }

    /// Frees the capacity beyond the length; an empty pack keeps no memory.
    pub fn shrink_to_fit(&mut self) {
        if self.is_empty() {
            self.clear();
        } else {
            self.elements.shrink_to_fit();
        }
    }

    /// Removes every element and frees the memory.
    pub fn clear(&mut self) {
        self.elements = CompactBuffer::new();
    }

    // ----- reading

    /// The elements in order, from either end.
    #[inline]
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            bytes: &self.elements,
            front: 0,
            back: self.elements.len(),
        }
    }

    /// The elements from `from` on, in order.
    #[inline]
    #[must_use]
    pub fn iter_from(&self, from: Position) -> Iter<'_> {
        Iter {
            front: from.offset(),
            ..self.iter()
        }
    }

    /// Position of the first element.
    #[inline]
    #[must_use]
    pub fn first(&self) -> Option<Position> {
        (!self.is_empty()).then_some(Position(0))
    }

    /// Position of the last element.
    #[inline]
    #[must_use]
    pub fn last(&self) -> Option<Position> {
        self.before(self.elements.len())
    }

    /// The element behind the one at `p`.
    #[inline]
    #[must_use]
    pub fn next(&self, p: Position) -> Option<Position> {
        self.there(end_of_element(&self.elements, p.offset()))
    }

    /// The element before the one at `p`.
    #[inline]
    #[must_use]
    pub fn prev(&self, p: Position) -> Option<Position> {
        self.before(p.offset())
    }

    /// The element at `index`, counted from the end when negative: -1 is the last. Walks from the nearer end.
    #[must_use]
    pub fn seek(&self, index: isize) -> Option<Position> {
        let (forward, steps) = self.route(index)?;
        let mut position = if forward { self.first() } else { self.last() };
        for _ in 0..steps {
            position = if forward {
                self.next(position?)
            } else {
                self.prev(position?)
            };
        }
        position
    }

    /// The end to start from for `index`, and the number of steps from there.
    fn route(&self, index: isize) -> Option<(bool, usize)> {
        let given = (
            index >= 0,
            if index >= 0 {
                index as usize
            } else {
                !index as usize
            },
        );
        let (forward, steps) = given;
        let Some(len) = self.count() else {
            return Some(given);
        };
        if steps >= len {
            return None;
        }
        let other_way = len - 1 - steps;
        Some(if other_way < steps {
            (!forward, other_way)
        } else {
            given
        })
    }

    /// The element at `p`.
    #[inline]
    #[must_use]
    pub fn at(&self, p: Position) -> StringRef<'_> {
        decode(&self.elements, p.offset()).0
    }

    /// The element at `p`, and the position of the next one.
    #[inline]
    #[must_use]
    pub fn at_with_next(&self, p: Position) -> (StringRef<'_>, Option<Position>) {
        let (value, span) = decode(&self.elements, p.offset());
        (value, self.there(p.offset() + span + back_len_of(span)))
    }

    /// The first element at or behind `from` that equals `needle`, comparing one and passing over `skip`, by turns.
    ///
    /// Integers are compared as such: the needle is parsed once and nothing is formatted.
    #[must_use]
    pub fn find(&self, from: Position, needle: &[u8], skip: usize) -> Option<Position> {
        let needle = Needle::new(needle);
        let bytes = &*self.elements;
        let mut at = from.offset();
        while at < bytes.len() {
            let (equal, span) = needle.matches(bytes, at);
            if equal {
                return Some(Position::new(at));
            }
            at += span + back_len_of(span);
            for _ in 0..skip {
                if at >= bytes.len() {
                    return None;
                }
                at = end_of_element(bytes, at);
            }
        }
        None
    }

    /// Whether `needle` is an element.
    #[inline]
    #[must_use]
    pub fn contains(&self, needle: &[u8]) -> bool {
        self.position(needle).is_some()
    }

    /// Position of `needle`, if it is an element.
    #[inline]
    #[must_use]
    pub fn position(&self, needle: &[u8]) -> Option<Position> {
        self.find(self.first()?, needle, 0)
    }

    /// Whether the element at `p` equals `value`.
    #[inline]
    #[must_use]
    pub fn equals(&self, p: Position, value: &[u8]) -> bool {
        Needle::new(value).matches(&self.elements, p.offset()).0
    }

    // ----- changing

    /// Appends an element.
    #[inline]
    pub fn push_back(&mut self, value: &[u8]) {
        self.append_element(&Encoded::of(value));
    }

    /// Appends an integer.
    #[inline]
    pub fn push_back_int(&mut self, value: i64) {
        self.append_element(&Encoded::of_int(value));
    }

    /// Appends a copy of an element.
    #[inline]
    pub fn push_back_ref(&mut self, value: StringRef<'_>) {
        match value {
            StringRef::Int(int) => self.push_back_int(int),
            StringRef::Bytes(bytes) => self.push_back(bytes),
        }
    }

    /// Puts an element before all others.
    #[inline]
    pub fn push_front(&mut self, value: &[u8]) {
        self.splice(0, 0, 0, &Encoded::of(value));
    }

    /// Puts an integer before all others.
    #[inline]
    pub fn push_front_int(&mut self, value: i64) {
        self.splice(0, 0, 0, &Encoded::of_int(value));
    }

    /// Inserts an element before the one at `p`, and returns its position.
    pub fn insert_before(&mut self, p: Position, value: &[u8]) -> Position {
        self.splice(p.offset(), 0, 0, &Encoded::of(value));
        p
    }

    /// Inserts an element after the one at `p`, and returns its position.
    pub fn insert_after(&mut self, p: Position, value: &[u8]) -> Position {
        let at = end_of_element(&self.elements, p.offset());
        self.splice(at, 0, 0, &Encoded::of(value));
        Position::new(at)
    }

    /// Puts another element in the place of the one at `p`, which stays its position.
    pub fn replace(&mut self, p: Position, value: &[u8]) {
        let old = end_of_element(&self.elements, p.offset()) - p.offset();
        self.splice(p.offset(), old, 1, &Encoded::of(value));
    }

    /// Puts an integer in the place of the element at `p`, which stays its position.
    pub fn replace_int(&mut self, p: Position, value: i64) {
        let old = end_of_element(&self.elements, p.offset()) - p.offset();
        self.splice(p.offset(), old, 1, &Encoded::of_int(value));
    }

    /// Removes the element at `p`; returns the position of the one that followed, which is `p` now.
    #[inline]
    pub fn remove(&mut self, p: Position) -> Option<Position> {
        self.remove_n(p, 1)
    }

    /// Removes `n` elements from `p` on, or as many as there are; returns the one that followed, at `p` now.
    pub fn remove_n(&mut self, p: Position, n: usize) -> Option<Position> {
        let (start, mut end, mut removed) = (p.offset(), p.offset(), 0);
        while removed < n && end < self.elements.len() {
            end = end_of_element(&self.elements, end);
            removed += 1;
        }
        if removed > 0 {
            self.elements.gap(start, end - start, 0);
            self.changed(removed, 0);
        }
        self.there(start)
    }

    /// Removes `count` elements from `index` on, or as many as there are; a negative index counts from the end.
    pub fn remove_range(&mut self, index: isize, count: usize) {
        if let Some(position) = self.seek(index) {
            self.remove_n(position, count);
        }
    }

    /// Appends a copy of all elements of `other`.
    pub fn append(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            self.clone_from(other);
            return;
        }
        let count = self.count().zip(other.count());
        self.elements.extend(&other.elements);
        self.set_count(count.map(|(own, others)| own + others));
    }

    /// The same elements, the last one first. O(bytes).
    #[must_use]
    pub fn reversed(&self) -> Self {
        let mut reversed = CompactBuffer::new();
        let mut room = reversed.gap(0, 0, self.elements.len());
        let mut at = 0;
        while at < self.elements.len() {
            let end = end_of_element(&self.elements, at);
            let left = room.len() - (end - at);
            room[left..].copy_from_slice(&self.elements[at..end]);
            room = &mut room[..left];
            at = end;
        }
        reversed.set_tag(self.elements.tag());
        Self { elements: reversed }
    }

    /// Cuts the pack before the element at `p`, and returns what stood from there on.
    #[must_use]
    pub fn split_off(&mut self, p: Position) -> Self {
        let at = p.offset();
        let mut tail = Self {
            elements: CompactBuffer::from(&self.elements[at..]),
        };
        let moved = tail.iter().count();
        tail.set_count(Some(moved));
        let total = self.len();
        self.elements.gap(at, self.elements.len() - at, 0);
        self.set_count(Some(total - moved));
        tail
    }

    #[inline]
    fn append_element(&mut self, element: &Encoded<'_>) {
        element.write(self.elements.extend_by(element.size()));
        self.changed(0, 1);
    }

    /// Replaces `removed` bytes, which are `gone` elements, at `at` by one element.
    fn splice(&mut self, at: usize, removed: usize, gone: usize, element: &Encoded<'_>) {
        element.write(self.elements.gap(at, removed, element.size()));
        self.changed(gone, 1);
    }

    /// Brings the count up to date after `removed` elements went and `added` came.
    #[inline]
    fn changed(&mut self, removed: usize, added: usize) {
        let count = self.count().map(|count| count + added - removed);
        self.set_count(count);
    }

    #[inline]
    fn set_count(&mut self, count: Option<usize>) {
        self.elements.set_tag(count.map_or(TAG_MAX, tag));
    }

    /// Number of elements, unless they are too many to be counted.
    #[inline]
    fn count(&self) -> Option<usize> {
        match self.elements.tag() {
            TAG_MAX => None,
            count => Some(count as usize),
        }
    }

    /// The position `at`, unless that is the end.
    #[inline]
    fn there(&self, at: usize) -> Option<Position> {
        (at < self.elements.len()).then(|| Position::new(at))
    }

    /// The element that ends where `end` is.
    #[inline]
    fn before(&self, end: usize) -> Option<Position> {
        (end > 0).then(|| Position::new(start_of_element(&self.elements, end)))
    }
}

impl fmt::Debug for Listpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a Listpack {
    type Item = StringRef<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The elements of a pack, from either end.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    /// Start of the next element, at most `back`.
    front: usize,
    /// End of the last element that is left.
    back: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = StringRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<StringRef<'a>> {
        if self.front >= self.back {
            return None;
        }
        let (value, span) = decode(self.bytes, self.front);
        self.front += span + back_len_of(span);
        Some(value)
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        self.back = start_of_element(self.bytes, self.back);
        Some(decode(self.bytes, self.back).0)
    }
}

impl std::iter::FusedIterator for Iter<'_> {}

/// The tag for `count` elements.
#[inline]
fn tag(count: usize) -> u32 {
    u32::try_from(count).map_or(TAG_MAX, |count| count.min(TAG_MAX))
}

/// End of the element at `at`, where the next one begins.
#[inline]
fn end_of_element(bytes: &[u8], at: usize) -> usize {
    let span = span_at(bytes, at);
    at + span + back_len_of(span)
}

/// Start of the element that ends at `end`.
#[inline]
fn start_of_element(bytes: &[u8], end: usize) -> usize {
    let (span, back_len) = read_back_len(bytes, end);
    end - back_len - span
}

/// The elements of a pack in Redis's format and their number; `None` when a byte is out of place anywhere.
fn unframed(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (header, elements) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let (&END, elements) = elements.split_last()? else {
        return None;
    };
    let [total @ .., low, high] = *header;
    if u32::from_le_bytes(total) as usize != bytes.len() {
        return None;
    }
    let (mut rest, mut found) = (elements, 0usize);
    while !rest.is_empty() {
        rest = &rest[element::checked_size(rest)?..];
        found += 1;
    }
    let count = u16::from_le_bytes([low, high]);
    (count == COUNT_UNKNOWN || usize::from(count) == found).then_some((elements, found))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::thread_balance;
    use crate::value::INT_TEXT_MAX;

    fn text(value: StringRef<'_>) -> Vec<u8> {
        value.as_bytes(&mut [0; INT_TEXT_MAX]).to_vec()
    }

    fn pack<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Listpack {
        let mut pack = Listpack::new();
        for value in values {
            pack.push_back(value);
        }
        pack
    }

    /// Every way to read a pack agrees with `model`, and the bytes are valid.
    fn check(pack: &Listpack, model: &[Vec<u8>]) {
        assert_eq!(pack.len(), model.len());
        assert_eq!(pack.is_empty(), model.is_empty());
        assert_eq!(pack.iter().map(text).collect::<Vec<_>>(), model);
        let backwards: Vec<_> = pack.iter().rev().map(text).collect();
        assert!(backwards.iter().eq(model.iter().rev()));
        assert!(
            Listpack::from_bytes(&pack.to_bytes()).is_some_and(|twin| twin.to_bytes() == pack.to_bytes())
        );
        let mut position = pack.first();
        for value in model {
            assert_eq!(text(pack.at(position.unwrap())), *value);
            position = pack.next(position.unwrap());
        }
        assert_eq!(position, None);
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 0..12),
            2 => any::<i64>().prop_map(|int| int.to_string().into_bytes()),
            2 => (-5000i64..5000).prop_map(|int| int.to_string().into_bytes()),
            1 => (0usize..300).prop_map(|len| vec![b'm'; len]),
            1 => (4090usize..4100).prop_map(|len| vec![b'l'; len]),
        ]
    }

    /// Dump of redis-server 7.0 after RPUSH key 1 -1 5000 hello 1000000 "" 1000.
    const REFERENCE: &[u8] = &[
        33, 0, 0, 0, 7, 0, 1, 1, 0xdf, 0xff, 2, 0xf1, 0x88, 0x13, 3, 0x85, b'h', b'e', b'l', b'l', b'o', 6,
        0xf2, 0x40, 0x42, 0x0f, 4, 0x80, 1, 0xc3, 0xe8, 2, 0xff,
    ];

    #[test]
    fn the_bytes_are_those_of_the_reference() {
        let values = [&b"1"[..], b"-1", b"5000", b"hello", b"1000000", b"", b"1000"];
        assert_eq!(pack(values).to_bytes(), REFERENCE);
    }

    #[test]
    fn an_empty_pack_allocates_nothing_and_is_valid() {
        let start = thread_balance();
        let mut pack = Listpack::default();
        assert_eq!((pack.len(), pack.byte_len(), pack.memory()), (0, 7, 0));
        assert_eq!(
            (pack.first(), pack.last(), pack.seek(0), pack.seek(-1)),
            (None, None, None, None)
        );
        assert!(!pack.contains(b"") && pack.iter().next_back().is_none());
        assert!(Listpack::from_bytes(&pack.to_bytes()).is_some());
        pack.remove_range(0, 5);
        pack.append(&Listpack::new());
        pack.push_back(b"x");
        pack.remove_range(0, 5);
        assert!(pack.is_empty() && pack.memory() == 0);
        assert_eq!(thread_balance(), start);
    }

    #[test]
    fn elements_are_found_by_value_and_stride() {
        let pack = pack([&b"a"[..], b"1", b"1", b"b", b"300", b"a", &[b'x'; 100], b"-7"]);
        let start = pack.first().unwrap();
        let index = |p: Option<Position>| p.map(|p| (0..8).position(|i| pack.seek(i) == Some(p)).unwrap());
        assert_eq!(index(pack.find(start, b"a", 0)), Some(0));
        assert_eq!(index(pack.find(pack.seek(1).unwrap(), b"a", 0)), Some(5));
        assert_eq!(index(pack.find(start, b"1", 1)), Some(2));
        assert_eq!(index(pack.find(start, b"300", 3)), Some(4));
        assert_eq!(index(pack.find(start, b"300", 1)), Some(4));
        assert_eq!(index(pack.find(start, b"b", 1)), None);
        assert_eq!(index(pack.find(start, &[b'x'; 100], 0)), Some(6));
        assert_eq!(index(pack.find(start, b"-7", 0)), Some(7));
        for absent in [&b""[..], b"01", b"+1", b"x", &[b'x'; 99], b"-70"] {
            assert_eq!(pack.position(absent), None);
        }
        assert!(pack.equals(pack.seek(-1).unwrap(), b"-7"));
    }

    #[test]
    fn integers_stored_as_strings_are_found_too() {
        // Legal in the format, though this code would write an integer.
        let pack = Listpack::from_bytes(&[11, 0, 0, 0, 1, 0, 0x82, b'4', b'2', 3, 0xff]).unwrap();
        assert!(pack.contains(b"42") && !pack.contains(b"43"));
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes too long under Miri")]
    fn more_elements_than_the_header_can_say_are_counted() {
        let mut pack = Listpack::new();
        for int in 0..70_000 {
            pack.push_back_int(int);
        }
        assert_eq!(pack.to_bytes()[4..6], [0xff, 0xff]);
        assert_eq!(pack.len(), 70_000);
        for index in [0, 1, 69_999] {
            assert_eq!(pack.at(pack.seek(index).unwrap()), StringRef::Int(index as i64));
            assert_eq!(
                pack.at(pack.seek(-1 - index).unwrap()),
                StringRef::Int(69_999 - index as i64)
            );
        }
        assert_eq!((pack.seek(70_000), pack.seek(-70_001)), (None, None));
        assert!(Listpack::from_bytes(&pack.to_bytes()).is_some());
        let tail = pack.split_off(pack.seek(10).unwrap());
        assert_eq!((pack.len(), tail.len()), (10, 69_990));
        pack.append(&tail);
        assert_eq!(pack.len(), 70_000);
        pack.remove_range(5, 69_990);
        assert_eq!(pack.len(), 10);
    }

    #[test]
    fn corrupt_packs_are_refused() {
        let good = pack([&b"1"[..], b"hello", &[b'x'; 200]]).to_bytes();
        for len in 0..good.len() {
            assert!(Listpack::from_bytes(&good[..len]).is_none());
        }
        // A wrong length, a wrong count, no end, an end inside.
        for (at, byte) in [(0, 7), (4, 2), (good.len() - 1, 0), (6, 0xff)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(Listpack::from_bytes(&bad).is_none(), "{at}");
        }
        let mut unknown = good;
        unknown[4..6].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(Listpack::from_bytes(&unknown).map(|pack| pack.len()), Some(3));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

        #[test]
        fn it_behaves_as_a_list(
            steps in proptest::collection::vec((0u8..12, any::<u16>(), 1usize..4, value()), 0..40)
        ) {
            let start = thread_balance();
            let mut pack = Listpack::new();
            let mut model: Vec<Vec<u8>> = Vec::new();
            for (step, at, n, value) in steps {
                let at = at as usize % model.len().max(1);
                let position = pack.seek(at as isize);
                prop_assert_eq!(position, pack.seek(at as isize - model.len() as isize));
                let Some(position) = position else {
                    pack.push_front(&value);
                    model.push(value);
                    continue;
                };
                match step {
                    0 => {
                        pack.push_back(&value);
                        model.push(value);
                    }
                    1 => {
                        pack.push_front(&value);
                        model.insert(0, value);
                    }
                    2 => {
                        let new = pack.insert_before(position, &value);
                        prop_assert_eq!(text(pack.at(new)), &*value);
                        model.insert(at, value);
                    }
                    3 => {
                        let new = pack.insert_after(position, &value);
                        prop_assert_eq!(text(pack.at(new)), &*value);
                        prop_assert_eq!(pack.prev(new), Some(position));
                        model.insert(at + 1, value);
                    }
                    4 => {
                        pack.replace(position, &value);
                        prop_assert_eq!(text(pack.at(position)), &*value);
                        model[at] = value;
                    }
                    5 => {
                        pack.replace_int(position, -77);
                        model[at] = b"-77".to_vec();
                    }
                    6 => {
                        let next = pack.remove(position);
                        model.remove(at);
                        prop_assert_eq!(next.map(|p| text(pack.at(p))), model.get(at).cloned());
                    }
                    7 => {
                        let next = pack.remove_n(position, n);
                        model.drain(at..(at + n).min(model.len()));
                        prop_assert_eq!(next.map(|p| text(pack.at(p))), model.get(at).cloned());
                    }
                    8 => {
                        let tail = pack.split_off(position);
                        check(&tail, &model[at..]);
                        check(&pack, &model[..at]);
                        pack.append(&tail);
                    }
                    9 => {
                        let twin = pack.clone();
                        pack.append(&twin);
                        model.extend_from_within(..);
                        pack.remove_range(at as isize, model.len() / 2);
                        model.drain(at..at + model.len() / 2);
                    }
                    10 => {
                        let found = pack.find(position, &value, n);
                        let expected = (at..model.len()).step_by(n + 1).find(|&i| model[i] == value);
                        prop_assert_eq!(found, expected.and_then(|i| pack.seek(i as isize)));
                        let present = model[at].clone();
                        let first = model.iter().position(|other| *other == present).unwrap();
                        prop_assert_eq!(pack.position(&present), pack.seek(first as isize));
                    }
                    _ => pack.shrink_to_fit(),
                }
                check(&pack, &model);
                prop_assert_eq!(thread_balance() - start, pack.memory() as i64);
            }
            drop(pack);
            prop_assert_eq!(thread_balance(), start);
        }

        #[test]
        fn any_bytes_are_survived(mut bytes: Vec<u8>, exact: bool) {
            if exact && bytes.len() > 6 {
                let total = bytes.len() as u32;
                bytes[..4].copy_from_slice(&total.to_le_bytes());
                bytes[4..6].fill(0xff);
                *bytes.last_mut().unwrap() = 0xff;
            }
            if let Some(pack) = Listpack::from_bytes(&bytes) {
                prop_assert_eq!(pack.iter().count(), pack.iter().rev().count());
            }
        }
    }
}
