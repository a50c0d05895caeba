//! Values to bytes, in steps of bounded length.
//!
//! Written is what servers from Redis 7.0 to 8 and Valkey 9 all read (version 10), and only for hashes with fields that
//! expire a type that one family reads. A value is a sequence of *parts*: the length of a table, a node of a list, a
//! bucket of a table, a block of a stream… A [`ValueWriter`] remembers which part comes next and how much of it is
//! written, not where in memory it is: between two steps the value may move, but must not change.

mod stream;

use super::decode::Dialect;
use super::opcode::{kind, node};
use super::writer::Sink;
use crate::entry::Entry;
use crate::value::CollectionRef;
use crate::value::hash::{Field, Hash};
use crate::value::list::{Contents, List};
use crate::value::set::Set;
use crate::value::sorted_set::{Order, SortedSet};
use crate::window::Steps;

/// Members of a sorted set in a part.
const MEMBERS_PER_PART: usize = 64;

/// Way to write values.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// Longest text that is compressed, bytes; 0 for none. Compressing a text is one step, however long it is.
    pub compress_max: usize,
    /// Family of servers that is to read hashes with fields that expire.
    pub dialect: Dialect,
}

/// The oldest version of the format that has the value's type.
pub(super) fn version_of(entry: &Entry, dialect: Dialect) -> u16 {
    match (kind_of(entry, dialect), dialect) {
        (kind::HASH_22, _) => super::VERSION_VALKEY,
        (kind::HASH_EX | kind::HASH_LISTPACK_EX, _) => super::VERSION_FIELD_EXPIRY,
        _ => super::VERSION_COMMON,
    }
}

/// The type that a value is written as.
pub(super) fn kind_of(entry: &Entry, dialect: Dialect) -> u8 {
    match entry.collection() {
        None => kind::STRING,
        Some(CollectionRef::List(_)) => kind::LIST_QUICKLIST_2,
        Some(CollectionRef::Set(set)) if set.as_intset().is_some() => kind::SET_INTSET,
        Some(CollectionRef::Set(_)) => kind::SET,
        Some(CollectionRef::SortedSet(set)) if set.as_listpack().is_some() => kind::SORTED_SET_LISTPACK,
        Some(CollectionRef::SortedSet(_)) => kind::SORTED_SET_2,
        Some(CollectionRef::Hash(hash)) => kind_of_hash(hash, dialect),
        Some(CollectionRef::Stream(_)) => kind::STREAM_2,
    }
}

fn kind_of_hash(hash: &Hash, dialect: Dialect) -> u8 {
    let expires = hash.next_expiry().is_some();
    match (expires, dialect, hash.as_listpack()) {
        (true, Dialect::Valkey, _) => kind::HASH_22,
        (true, Dialect::Redis, Some(_)) => kind::HASH_LISTPACK_EX,
        (true, Dialect::Redis, None) => kind::HASH_EX,
        (false, _, Some(_)) if !hash.packs_expiries() => kind::HASH_LISTPACK,
        (false, ..) => kind::HASH,
    }
}

/// The part of a value that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The value as a whole, or the beginning of one in several parts.
    Start,
    /// This node of a list.
    Node(usize),
    /// The members from this cursor on; so many are left.
    Bucket { cursor: u64, left: usize },
    /// The members of a sorted set below this rank, the highest first.
    Below(usize),
    /// A part of a stream.
    Stream(stream::Place),
    /// There is none.
    Done,
}

/// A value on its way out.
#[derive(Debug)]
pub struct ValueWriter {
    options: WriteOptions,
    steps: Steps<Place>,
    packed: Vec<u8>,
}

impl ValueWriter {
    /// A writer at the beginning of a value.
    #[must_use]
    pub fn new(options: WriteOptions) -> Self {
        Self {
            options,
            steps: Steps::new(Place::Start),
            packed: Vec::new(),
        }
    }

    /// Returns to the beginning, for another value.
    pub fn restart(&mut self) {
        self.steps = Steps::new(Place::Start);
    }

    /// Appends at most `budget` bytes to `out`, which is at least one, and goes on from there the next time. True when
    /// the value is written. It is the same value each time, and has not changed.
    ///
    /// # Panics
    /// When the value has changed so that something was left out.
    pub fn step(&mut self, entry: &Entry, out: &mut Vec<u8>, budget: usize) -> bool {
        let Self {
            options,
            steps,
            packed,
        } = self;
        steps.step(Place::Done, out, budget, |place, window| {
            let mut sink = Sink::new(window, options.compress_max, packed);
            let next = part(place, entry, options.dialect, &mut sink);
            (next, sink.is_cut())
        })
    }
}

/// The number of bytes that a value takes, without its type. O(size).
#[must_use]
pub fn len(entry: &Entry, options: WriteOptions) -> usize {
    const STEP: usize = 1 << 16;
    let mut writer = ValueWriter::new(options);
    let (mut out, mut sum) = (Vec::new(), 0);
    loop {
        let is_done = writer.step(entry, &mut out, STEP);
        sum += out.len();
        out.clear();
        if is_done {
            return sum;
        }
    }
}

/// Writes the part at a place; returns the place of the next one.
fn part(place: Place, entry: &Entry, dialect: Dialect, sink: &mut Sink<'_>) -> Place {
    match entry.collection() {
        None => {
            let string = entry.string().expect("a value is a string or a collection");
            sink.text(string);
            Place::Done
        }
        Some(CollectionRef::List(list)) => list_part(place, list, sink),
        Some(CollectionRef::Set(set)) => set_part(place, set, sink),
        Some(CollectionRef::SortedSet(set)) => sorted_set_part(place, set, sink),
        Some(CollectionRef::Hash(hash)) => hash_part(place, hash, dialect, sink),
        Some(CollectionRef::Stream(stream)) => {
            let place = match place {
                Place::Stream(place) => place,
                _ => stream::Place::Start,
            };
            stream::part(place, stream, sink).map_or(Place::Done, Place::Stream)
        }
    }
}

fn list_part(place: Place, list: &List, sink: &mut Sink<'_>) -> Place {
    let Place::Node(number) = place else {
        sink.count(list.nodes());
        return Place::Node(0);
    };
    let found = list.node(number, |contents| match contents {
        Contents::Pack(pack) => {
            sink.number(node::PACKED);
            sink.pack(pack);
        }
        Contents::Plain(element) => {
            sink.number(node::PLAIN);
            sink.text_of(element);
        }
    });
    assert!(found.is_some(), "a list changed while it was written");
    if number + 1 == list.nodes() {
        Place::Done
    } else {
        Place::Node(number + 1)
    }
}

fn set_part(place: Place, set: &Set, sink: &mut Sink<'_>) -> Place {
    let Place::Bucket { cursor, left } = place else {
        if let Some(ints) = set.as_intset() {
            sink.text_of(ints.as_bytes());
            return Place::Done;
        }
        sink.count(set.len());
        return Place::Bucket {
            cursor: 0,
            left: set.len(),
        };
    };
    let mut seen = 0;
    let cursor = set.scan(cursor, 1, |member| {
        sink.text(member);
        seen += 1;
    });
    behind_bucket(cursor, left, seen)
}

/// The place behind members of a table that is walked by cursors.
fn behind_bucket(cursor: u64, left: usize, seen: usize) -> Place {
    let left = left.checked_sub(seen);
    match (cursor, left) {
        (0, Some(0)) => Place::Done,
        (1.., Some(left)) => Place::Bucket { cursor, left },
        _ => panic!("a table changed while it was written"),
    }
}

fn sorted_set_part(place: Place, set: &SortedSet, sink: &mut Sink<'_>) -> Place {
    let Place::Below(rank) = place else {
        if let Some(pack) = set.as_listpack() {
            sink.pack(pack);
            return Place::Done;
        }
        sink.count(set.len());
        return Place::Below(set.len());
    };
    // The highest first: whoever reads them inserts each before all others.
    let next = rank.saturating_sub(MEMBERS_PER_PART);
    for (member, score) in set.range(next..rank, Order::Descending) {
        sink.text(member);
        sink.long(score.to_bits().cast_signed());
    }
    if next == 0 {
        Place::Done
    } else {
        Place::Below(next)
    }
}

fn hash_part(place: Place, hash: &Hash, dialect: Dialect, sink: &mut Sink<'_>) -> Place {
    let earliest = hash.next_expiry();
    let kind = kind_of_hash(hash, dialect);
    let Place::Bucket { cursor, left } = place else {
        if let (Some(earliest), Dialect::Redis) = (earliest, dialect) {
            sink.long(earliest);
        }
        if let (Some(pack), kind::HASH_LISTPACK | kind::HASH_LISTPACK_EX) = (hash.as_listpack(), kind) {
            sink.pack(pack);
            return Place::Done;
        }
        sink.count(hash.len());
        return Place::Bucket {
            cursor: 0,
            left: hash.len(),
        };
    };
    let mut seen = 0;
    let cursor = hash.scan(cursor, 1, i64::MIN, |field| {
        write_field(field, kind, earliest, sink);
        seen += 1;
    });
    behind_bucket(cursor, left, seen)
}

/// Writes a field of a hash that is no pack; `earliest` is the first expiry of all fields.
fn write_field(field: Field<'_>, kind: u8, earliest: Option<i64>, sink: &mut Sink<'_>) {
    if kind == kind::HASH_EX {
        // The distance from one below the earliest, so that 0 is free for none.
        let distance = field
            .expiry
            .zip(earliest)
            .map(|(at, earliest)| at.abs_diff(earliest) + 1);
        sink.number(distance.unwrap_or(0));
    }
    sink.text(field.name);
    sink.text(field.value);
    if kind == kind::HASH_22 {
        sink.long(field.expiry.unwrap_or(-1));
    }
}

#[cfg(test)]
mod tests;
