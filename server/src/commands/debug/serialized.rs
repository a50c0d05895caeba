//! The number of bytes that a snapshot takes for a value, without the key and its type: `serializedlength` of DEBUG
//! OBJECT.
//!
//! A length takes one, two, five or nine bytes; a short text that spells an integer takes one to four bytes after a
//! byte that marks it; a pack is one text. A text longer than [`COMPRESS_MIN`] is compressed if that makes it
//! shorter.

use shardis_storage::algorithm::lzf;
use shardis_storage::entry::Entry;
use shardis_storage::value::hash::Hash;
use shardis_storage::value::list::Contents;
use shardis_storage::value::sorted_set::SortedSet;
use shardis_storage::value::stream::{Group, Stream, StreamId};
use shardis_storage::value::{CollectionRef, StringRef, format_int};

/// Texts of up to this many bytes are written as integers if they spell a 32-bit one.
const INT_TEXT_BYTES: usize = 11;
/// Texts of up to this many bytes are not compressed.
const COMPRESS_MIN: usize = 20;
/// The least number of bytes that compression must save.
const COMPRESS_GAIN: usize = 4;
/// Bytes of a score.
const SCORE_BYTES: usize = 8;
/// Bytes of a stream id in plain form.
const ID_BYTES: usize = 16;
/// Bytes of a point in time.
const TIME_BYTES: usize = 8;

/// Bytes of a value, with or without compression. Complexity: O(size).
pub(super) fn len(entry: &Entry, compresses: bool) -> usize {
    let mut sizer = Sizer {
        compresses,
        room: Vec::new(),
    };
    match entry.collection() {
        Some(collection) => sizer.collection(collection),
        None => entry.string().map_or(0, |string| sizer.text(string)),
    }
}

/// Bytes of a length.
fn len_of_len(len: usize) -> usize {
    match len {
        0..64 => 1,
        64..16_384 => 2,
        16_384..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Bytes of a number in the form of a length.
fn len_of_number(number: u64) -> usize {
    usize::try_from(number).map_or(9, len_of_len)
}

/// Bytes of an id in the form of two numbers.
fn len_of_id(id: StreamId) -> usize {
    len_of_number(id.ms) + len_of_number(id.seq)
}

/// Sums up the bytes of a value.
struct Sizer {
    compresses: bool,
    /// Buffer for trial compression.
    room: Vec<u8>,
}

impl Sizer {
    fn text(&mut self, text: StringRef<'_>) -> usize {
        let mut scratch = [0; shardis_storage::value::INT_TEXT_MAX];
        match text {
            StringRef::Int(int) => self.bytes(format_int(int, &mut scratch)),
            StringRef::Bytes(bytes) => self.bytes(bytes),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len();
        let small = if len <= INT_TEXT_BYTES {
            StringRef::Bytes(bytes).to_int()
        } else {
            None
        };
        match small {
            Some(-0x80..=0x7f) => 2,
            Some(-0x8000..=0x7fff) => 3,
            Some(-0x8000_0000..=0x7fff_ffff) => 5,
            _ => match self.compressed(bytes) {
                Some(shorter) => 1 + len_of_len(shorter) + len_of_len(len) + shorter,
                None => len_of_len(len) + len,
            },
        }
    }

    fn compressed(&mut self, bytes: &[u8]) -> Option<usize> {
        if !self.compresses || bytes.len() <= COMPRESS_MIN {
            return None;
        }
        self.room.resize(bytes.len() - COMPRESS_GAIN, 0);
        lzf::compress(bytes, &mut self.room)
    }

    fn collection(&mut self, collection: CollectionRef<'_>) -> usize {
        match collection {
            CollectionRef::List(list) => {
                let mut sum = len_of_len(list.nodes());
                list.visit_nodes(|contents| {
                    // A byte tells packs from plain nodes.
                    sum += 1 + match contents {
                        Contents::Pack(pack) => self.bytes(&pack.to_bytes()),
                        Contents::Plain(element) => self.bytes(element),
                    };
                });
                sum
            }
            CollectionRef::Set(set) => match (set.as_intset(), set.as_listpack()) {
                (Some(ints), _) => self.bytes(ints.as_bytes()),
                (_, Some(pack)) => self.bytes(&pack.to_bytes()),
                _ => len_of_len(set.len()) + set.iter().map(|member| self.text(member)).sum::<usize>(),
            },
            CollectionRef::SortedSet(set) => self.sorted_set(set),
            CollectionRef::Hash(hash) => self.hash(hash),
            CollectionRef::Stream(stream) => self.stream(stream),
        }
    }

    fn sorted_set(&mut self, set: &SortedSet) -> usize {
        if let Some(pack) = set.as_listpack() {
            return self.bytes(&pack.to_bytes());
        }
        let members = set.iter().map(|(member, _)| self.text(member) + SCORE_BYTES);
        len_of_len(set.len()) + members.sum::<usize>()
    }

    /// A hash with fields that expire starts with the earliest time; the other times are stored as distances from it.
    fn hash(&mut self, hash: &Hash) -> usize {
        let earliest = hash.next_expiry();
        let head = if earliest.is_some() { TIME_BYTES } else { 0 };
        if let Some(pack) = hash.as_listpack() {
            return head + self.bytes(&pack.to_bytes());
        }
        let fields = hash.iter(i64::MIN).map(|field| {
            let time = match (earliest, field.expiry) {
                (None, _) => 0,
                (Some(_), None) => len_of_len(0),
                (Some(earliest), Some(at)) => len_of_len(at.abs_diff(earliest) as usize + 1),
            };
            time + self.text(field.name) + self.text(field.value)
        });
        head + len_of_len(hash.len()) + fields.sum::<usize>()
    }

    /// The blocks in plain form, the figures about the entries, then for each group its pending entries and its
    /// consumers.
    fn stream(&mut self, stream: &Stream) -> usize {
        let log = stream.log();
        let mut sum = len_of_len(log.blocks());
        for (_, pack) in log.packs() {
            sum += len_of_len(ID_BYTES) + ID_BYTES + self.bytes(&pack.to_bytes());
        }
        let ids = [log.last_id(), log.first_id(), log.max_deleted_id()];
        sum += len_of_len(log.len()) + ids.map(len_of_id).iter().sum::<usize>();
        sum += len_of_number(log.entries_added()) + len_of_len(stream.groups().len());
        sum + stream.groups().map(|group| self.group(group)).sum::<usize>()
    }

    fn group(&mut self, group: &Group) -> usize {
        // An unknown number is written as -1.
        let mut sum = self.bytes(group.name()) + len_of_id(group.last_id);
        sum += len_of_number(group.entries_read.unwrap_or(u64::MAX));
        sum += len_of_len(group.pending_len()) + len_of_len(group.consumers_len());
        for pending in group.pending_from(StreamId::MIN) {
            sum += ID_BYTES + TIME_BYTES + len_of_number(pending.deliveries);
        }
        for (_, consumer) in group.consumers() {
            let pending = consumer.pending_len();
            sum += self.bytes(consumer.name()) + 2 * TIME_BYTES + len_of_len(pending) + pending * ID_BYTES;
        }
        sum
    }
}
