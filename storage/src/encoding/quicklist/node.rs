//! One node of a quicklist: many small elements in a pack, or a single large one.

use std::ops::ControlFlow;

use super::limit::NodeLimit;
use super::{Direction, End};
use crate::algorithm::lzf;
use crate::encoding::listpack::{Listpack, Position};
use crate::memory::Buffer;
use crate::memory::boxed::CountedBox;
use crate::memory::compact::CompactBuffer;
use crate::number::parse_i64;
use crate::value::{INT_TEXT_MAX, StringRef};

/// Nodes of fewer bytes are not compressed.
const COMPRESS_MIN: usize = 48;
/// Bytes that compression has to save.
const COMPRESS_GAIN: usize = 8;
/// The length of the original, in front of what was compressed.
const RAW_LEN_BYTES: usize = 4;

/// Node of a list. It has at least one element.
#[derive(Clone)]
pub(super) enum Node {
    /// A pack, and its number of elements, which is needed far more often than the pack itself.
    Pack { count: u32, pack: Listpack },
    /// A pack of the elements in reverse order. Only the first of several nodes is stored like this: elements that
    /// are pushed or popped at the front of the list are then at the end of a pack, where nothing has to be moved.
    /// The order is restored as soon as the node is changed in any other place.
    Reversed { count: u32, pack: Listpack },
    /// One element that is too large for a pack.
    Plain(CountedBox<Buffer>),
    /// Another kind of node, compressed: the length of the original (u32 LE), then LZF.
    Compressed {
        plain: bool,
        count: u32,
        bytes: CompactBuffer,
    },
}

const _: () = assert!(size_of::<Node>() == 24);

/// Elements of a node, uncompressed.
#[derive(Clone, Copy, Debug)]
pub enum Contents<'a> {
    /// A pack of elements.
    Pack(&'a Listpack),
    /// A single element.
    Plain(&'a [u8]),
}

/// A text to compare elements with.
#[derive(Clone, Copy)]
pub(crate) struct Needle<'a> {
    text: &'a [u8],
    int: Option<i64>,
}

impl<'a> Needle<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            int: parse_i64(text),
        }
    }

    /// Whether `element` is this text.
    #[inline]
    pub(crate) fn equals(&self, element: StringRef<'_>) -> bool {
        match element {
            StringRef::Int(int) => self.int == Some(int),
            StringRef::Bytes(bytes) => bytes == self.text,
        }
    }
}

impl Node {
    /// A node of one element in a pack.
    pub(super) fn packed(value: StringRef<'_>) -> Self {
        let mut pack = Listpack::new();
        pack.push_back_ref(value);
        Self::Pack { count: 1, pack }
    }

    /// A node of one element by itself.
    pub(super) fn plain(value: StringRef<'_>) -> Self {
        let mut scratch = [0; INT_TEXT_MAX];
        let bytes = value.as_bytes(&mut scratch);
        Self::Plain(CountedBox::new(Buffer::from(bytes)))
    }

    /// A node of the elements of `pack`.
    pub(super) fn of_pack(pack: Listpack) -> Self {
        Self::Pack {
            // Every element takes two bytes, of at most 2^32.
            count: pack.len() as u32,
            pack,
        }
    }

    /// Number of elements.
    #[inline]
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Pack { count, .. } | Self::Reversed { count, .. } | Self::Compressed { count, .. } => {
                *count as usize
            }
            Self::Plain(_) => 1,
        }
    }

    /// Whether the node is one element by itself.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_) | Self::Compressed { plain: true, .. })
    }

    /// Whether the node is compressed.
    pub(super) fn is_compressed(&self) -> bool {
        matches!(self, Self::Compressed { .. })
    }

    /// The bytes of what is in the node, uncompressed.
    #[inline]
    pub(super) fn raw_len(&self) -> usize {
        match self {
            Self::Pack { pack, .. } | Self::Reversed { pack, .. } => pack.byte_len(),
            Self::Plain(buffer) => buffer.len(),
            Self::Compressed { bytes, .. } => raw_len(bytes),
        }
    }

    /// Whether an element of `len` bytes can join the others here.
    #[inline]
    pub(super) fn accepts(&self, len: usize, limit: NodeLimit) -> bool {
        !self.is_plain() && !limit.exceeded_with(self.raw_len(), self.count(), len)
    }

    /// Whether the elements of `other` can join those here.
    pub(super) fn can_merge(&self, other: &Self, limit: NodeLimit) -> bool {
        let elements = self.count() + other.count();
        !self.is_plain()
            && !other.is_plain()
            && !limit.exceeded_by(self.raw_len() + other.raw_len(), elements)
    }

    // ----- reading

    /// Shows what is in the node; one that is compressed or reversed is copied for that.
    pub(super) fn read<R>(&self, read: impl FnOnce(Contents<'_>) -> R) -> R {
        match self {
            Self::Pack { pack, .. } => read(Contents::Pack(pack)),
            Self::Reversed { pack, .. } => read(Contents::Pack(&pack.reversed())),
            Self::Plain(buffer) => read(Contents::Plain(buffer)),
            Self::Compressed { .. } => {
                let mut copy = self.clone();
                copy.decompress();
                copy.read(read)
            }
        }
    }

    /// Calls `read` with the element at `offset`.
    ///
    /// # Panics
    /// When there is none.
    pub(super) fn read_at<R>(&self, offset: usize, read: impl FnOnce(StringRef<'_>) -> R) -> R {
        if let Self::Reversed { count, pack } = self {
            return read(pack.at(position(pack, *count as usize - 1 - offset)));
        }
        self.read(|contents| match contents {
            Contents::Pack(pack) => read(pack.at(position(pack, offset))),
            Contents::Plain(bytes) => read(StringRef::Bytes(bytes)),
        })
    }

    /// Calls `read` with the first or the last element.
    ///
    /// # Panics
    /// When there is none.
    #[inline]
    pub(super) fn read_end<R>(&self, end: End, read: impl FnOnce(StringRef<'_>) -> R) -> R {
        match (self, end) {
            (Self::Pack { pack, .. }, End::Front) | (Self::Reversed { pack, .. }, End::Back) => {
                read(pack.at(pack.first().expect("no node is empty")))
            }
            (Self::Pack { pack, .. }, End::Back) | (Self::Reversed { pack, .. }, End::Front) => {
                read(pack.at(pack.last().expect("no node is empty")))
            }
            (Self::Plain(buffer), _) => read(StringRef::Bytes(buffer)),
            (Self::Compressed { count, .. }, End::Back) => self.read_at(*count as usize - 1, read),
            (Self::Compressed { .. }, End::Front) => self.read_at(0, read),
        }
    }

    /// Calls `visit` with the elements from `offset` on in one direction, until it breaks.
    pub(super) fn visit<F>(&self, offset: usize, direction: Direction, visit: &mut F) -> ControlFlow<()>
    where
        F: FnMut(StringRef<'_>) -> ControlFlow<()>,
    {
        if let Self::Reversed { count, pack } = self {
            return visit_pack(pack, *count as usize - 1 - offset, direction.opposite(), visit);
        }
        self.read(|contents| match contents {
            Contents::Plain(bytes) => visit(StringRef::Bytes(bytes)),
            Contents::Pack(pack) => visit_pack(pack, offset, direction, visit),
        })
    }

    // ----- changing

    /// Makes a node of which only the front is going to change cheap to change there. O(bytes).
    #[cold]
    pub(super) fn reverse(&mut self) {
        if let Some((pack, count)) = self.pack_mut() {
            *self = Self::Reversed {
                count: *count,
                pack: pack.reversed(),
            };
        }
    }

    /// Whether [`Node::reverse`] would make changes at the front cheaper.
    #[inline]
    pub(super) fn gains_by_reversal(&self) -> bool {
        matches!(self, Self::Pack { .. })
    }

    /// Undoes [`Node::reverse`].
    #[inline]
    fn put_in_order(&mut self) {
        if let Self::Reversed { count, pack } = self {
            *self = Self::Pack {
                count: *count,
                pack: pack.reversed(),
            };
        }
    }

    /// The pack of a node, uncompressed and in order from now on, and its count; none of a plain node.
    fn pack_mut(&mut self) -> Option<(&mut Listpack, &mut u32)> {
        self.decompress();
        self.put_in_order();
        match self {
            Self::Pack { count, pack } => Some((pack, count)),
            _ => None,
        }
    }

    /// Puts an element at one end. The node [accepts](Node::accepts) it.
    #[inline]
    pub(super) fn push(&mut self, end: End, value: StringRef<'_>) {
        if let (Self::Reversed { count, pack }, End::Front) = (&mut *self, end) {
            pack.push_back_ref(value);
            *count += 1;
            return;
        }
        let Some((pack, count)) = self.pack_mut() else {
            debug_assert!(false, "a plain node accepts nothing");
            return;
        };
        push(pack, end, value);
        *count += 1;
    }

    /// Puts an element before the one at `offset`. The node [accepts](Node::accepts) it.
    pub(super) fn insert(&mut self, offset: usize, value: StringRef<'_>) {
        if offset == self.count() {
            return self.push(End::Back, value);
        }
        let Some((pack, count)) = self.pack_mut() else {
            debug_assert!(false, "a plain node accepts nothing");
            return;
        };
        let mut scratch = [0; INT_TEXT_MAX];
        pack.insert_before(position(pack, offset), value.as_bytes(&mut scratch));
        *count += 1;
    }

    /// Puts another element in the place of the one at `offset` of a pack, if that leaves it within its limit. False
    /// when it stays as it was.
    pub(super) fn replace(&mut self, offset: usize, value: StringRef<'_>, limit: NodeLimit) -> bool {
        let Some((pack, count)) = self.pack_mut() else {
            return false;
        };
        let position = position(pack, offset);
        let rest = pack.byte_len() - pack.at(position).len();
        if limit.exceeded_with(rest, *count as usize - 1, value.len()) {
            return false;
        }
        match value {
            StringRef::Int(int) => pack.replace_int(position, int),
            StringRef::Bytes(bytes) => pack.replace(position, bytes),
        }
        true
    }

    /// Removes elements; the node may be empty then, and is not to stay in a list.
    pub(super) fn remove(&mut self, offset: usize, removed: usize) {
        debug_assert!(offset + removed <= self.count());
        if removed == self.count() {
            *self = Self::Pack {
                count: 0,
                pack: Listpack::new(),
            };
        } else if removed > 0
            && let Some((pack, count)) = self.pack_mut()
        {
            pack.remove_n(position(pack, offset), removed);
            *count -= removed as u32;
        }
    }

    /// Removes the element at one end.
    #[inline]
    pub(super) fn pop(&mut self, end: End) {
        if let (Self::Reversed { count, pack }, End::Front) = (&mut *self, end) {
            pop(pack, End::Back, |_| ());
            *count -= 1;
            return;
        }
        match self.pack_mut() {
            Some((pack, count)) => {
                pop(pack, end, |_| ());
                *count -= 1;
            }
            None => self.remove(0, 1),
        }
    }

    /// Splits the node before the element at `offset`, which is neither the first nor beyond the last: returns the
    /// part from there on.
    ///
    /// # Panics
    /// When there is no such element, or only one.
    pub(super) fn split_off(&mut self, offset: usize) -> Self {
        let (pack, count) = self.pack_mut().expect("only a pack has an element to cut before");
        let mut tail = pack.split_off(position(pack, offset));
        tail.shrink_to_fit();
        pack.shrink_to_fit();
        let moved = *count - offset as u32;
        *count = offset as u32;
        Self::Pack {
            count: moved,
            pack: tail,
        }
    }

    /// Appends the elements of `other`, with which the node [can merge](Node::can_merge).
    pub(super) fn merge(&mut self, mut other: Self) {
        if let Some((pack, count)) = self.pack_mut()
            && let Some((others, others_count)) = other.pack_mut()
        {
            pack.append(others);
            *count += *others_count;
        }
    }

    /// Removes elements equal to `needle`, starting at the end where `direction` starts, as long as `left` is not 0,
    /// and counts `left` down.
    pub(super) fn remove_equal(&mut self, needle: &Needle<'_>, direction: Direction, left: &mut usize) {
        let start = match direction {
            Direction::Forward => 0,
            Direction::Backward => self.count() - 1,
        };
        let found = self.visit(start, direction, &mut |element| {
            if needle.equals(element) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if found.is_continue() {
            return;
        }
        let compressed = self.is_compressed();
        match self.pack_mut() {
            None => {
                self.remove(0, 1);
                *left -= 1;
            }
            Some((pack, count)) => *count -= remove_equal(pack, needle, direction, left) as u32,
        }
        if compressed && self.count() > 0 {
            self.compress();
        }
    }

    /// The elements as one pack.
    pub(super) fn into_pack(mut self) -> Listpack {
        self.decompress();
        self.put_in_order();
        match self {
            Self::Pack { pack, .. } => pack,
            plain => {
                let mut pack = Listpack::new();
                plain.read_at(0, |element| pack.push_back_ref(element));
                pack
            }
        }
    }

    // ----- compression

    /// Compresses the node if that saves memory. A change decompresses it.
    pub(super) fn compress(&mut self) {
        if self.is_compressed() {
            return;
        }
        let compressed = self.read(|contents| match contents {
            Contents::Pack(pack) => compressed(&pack.to_bytes()),
            Contents::Plain(bytes) => compressed(bytes),
        });
        if let Some(bytes) = compressed {
            *self = Self::Compressed {
                plain: self.is_plain(),
                count: self.count() as u32,
                bytes,
            };
        }
    }

    /// Undoes [`Node::compress`].
    #[inline]
    pub(super) fn decompress(&mut self) {
        if let Self::Compressed { plain, count, bytes } = self {
            *self = decompressed(*plain, *count, bytes);
        }
    }

    /// Frees part of a large node; false when another call would free nothing. The rest may only be dropped.
    pub(super) fn trim(&mut self, bytes: usize) -> bool {
        match self {
            Self::Plain(buffer) => buffer.capacity() > bytes && buffer.trim(bytes),
            _ => false,
        }
    }
}

/// Position of the element at `offset`.
fn position(pack: &Listpack, offset: usize) -> Position {
    pack.seek(offset as isize).expect("an offset is below the count")
}

/// Puts an element at one end of a pack.
#[inline]
pub(crate) fn push(pack: &mut Listpack, end: End, value: StringRef<'_>) {
    match (end, value) {
        (End::Front, StringRef::Bytes(bytes)) => pack.push_front(bytes),
        (End::Front, StringRef::Int(int)) => pack.push_front_int(int),
        (End::Back, value) => pack.push_back_ref(value),
    }
}

/// Calls `read` with the element at one end of a pack, and removes it.
///
/// # Panics
/// When there is none.
#[inline]
pub(crate) fn pop<R>(pack: &mut Listpack, end: End, read: impl FnOnce(StringRef<'_>) -> R) -> R {
    let position = match end {
        End::Front => pack.first(),
        End::Back => pack.last(),
    };
    let position = position.expect("nobody pops from an empty pack");
    let result = read(pack.at(position));
    pack.remove(position);
    result
}

/// Calls `visit` with the elements of a pack from `offset` on in one direction, until it breaks.
#[inline]
pub(crate) fn visit_pack<F>(
    pack: &Listpack,
    offset: usize,
    direction: Direction,
    visit: &mut F,
) -> ControlFlow<()>
where
    F: FnMut(StringRef<'_>) -> ControlFlow<()>,
{
    let Some(start) = pack.seek(offset as isize) else {
        return ControlFlow::Continue(());
    };
    match direction {
        Direction::Forward => pack.iter_from(start).try_for_each(visit),
        Direction::Backward => {
            let mut next = Some(start);
            while let Some(position) = next {
                visit(pack.at(position))?;
                next = pack.prev(position);
            }
            ControlFlow::Continue(())
        }
    }
}

/// Removes elements equal to `needle` from a pack, from either end on, as long as `left` is not 0, which is counted
/// down; returns how many.
pub(crate) fn remove_equal(
    pack: &mut Listpack,
    needle: &Needle<'_>,
    direction: Direction,
    left: &mut usize,
) -> usize {
    let before = *left;
    let mut next = match direction {
        Direction::Forward => pack.first(),
        Direction::Backward => pack.last(),
    };
    while let Some(position) = next
        && *left > 0
    {
        // An element before a position keeps its place when something there or behind goes.
        let previous = pack.prev(position);
        let equal = needle.equals(pack.at(position));
        next = match (direction, equal) {
            (Direction::Forward, true) => {
                let run = run_of(pack, position, needle, *left);
                *left -= run;
                pack.remove_n(position, run)
            }
            (Direction::Forward, false) => pack.next(position),
            (Direction::Backward, equal) => {
                if equal {
                    *left -= 1;
                    pack.remove(position);
                }
                previous
            }
        };
    }
    before - *left
}

/// Length of the run of elements equal to `needle` from `start` on, which is one; at most `limit`.
fn run_of(pack: &Listpack, start: Position, needle: &Needle<'_>, limit: usize) -> usize {
    pack.iter_from(start)
        .take(limit)
        .take_while(|element| needle.equals(*element))
        .count()
}

/// The length of the original of a compressed node.
fn raw_len(bytes: &[u8]) -> usize {
    bytes
        .first_chunk()
        .map_or(0, |len| u32::from_le_bytes(*len) as usize)
}

/// Compressed form of `raw`, unless it would save too little.
fn compressed(raw: &[u8]) -> Option<CompactBuffer> {
    if raw.len() < COMPRESS_MIN {
        return None;
    }
    let raw_len = u32::try_from(raw.len()).ok()?;
    let room = raw.len() - COMPRESS_GAIN;
    let mut bytes = CompactBuffer::with_capacity(room);
    bytes.extend(&raw_len.to_le_bytes());
    let len = lzf::compress(raw, bytes.gap(RAW_LEN_BYTES, 0, room - RAW_LEN_BYTES))?;
    bytes.truncate(RAW_LEN_BYTES + len);
    bytes.shrink_to_fit();
    Some(bytes)
}

/// The node that was compressed to `bytes`.
///
/// # Panics
/// When the bytes do not come from [`compressed`].
fn decompressed(plain: bool, count: u32, bytes: &[u8]) -> Node {
    let (len, text) = bytes.split_at(RAW_LEN_BYTES);
    if plain {
        let mut raw = Buffer::zeroed(raw_len(len));
        lzf::decompress(text, &mut raw).expect("compressed here");
        return Node::Plain(CountedBox::new(raw));
    }
    let mut raw = CompactBuffer::new();
    lzf::decompress(text, raw.gap(0, 0, raw_len(len))).expect("compressed here");
    let pack = Listpack::from_bytes(&raw).expect("a pack before it was compressed");
    Node::Pack { count, pack }
}
