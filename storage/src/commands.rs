//! Values as commands that make them anew, in steps of bounded length.
//!
//! Servers from Redis 7.0 on repeat these commands; those that expire fields of hashes, from 7.4 on or Valkey 9. A value is
//! a sequence of *parts*, each of which is one command or a few: a [`CommandWriter`] remembers which comes next, not where in
//! memory it is. Between two steps the value may move, but must not change.
//!
//! No command gives back when a consumer was last seen, nor a pending entry that was deleted from its stream.

mod stream;

use crate::entry::Entry;
use crate::number::DoubleText;
use crate::value::hash::Hash;
use crate::value::list::{Direction, List};
use crate::value::set::Set;
use crate::value::sorted_set::{Order, SortedSet};
use crate::value::{CollectionRef, INT_TEXT_MAX, StringRef, format_int};
use crate::window::{Steps, Window};

/// Elements that a command adds, except where a table or pack gives more at once.
const ELEMENTS_PER_COMMAND: usize = 64;

/// The part of a value that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The value as a whole, or its beginning.
    Start,
    /// Elements of a list or sorted set, from this index on.
    Index(usize),
    /// Members or fields of a table, from this cursor on.
    Cursor(u64),
    /// Expiries of fields, from this cursor on.
    FieldExpiry(u64),
    /// A part of a stream.
    Stream(stream::Place),
    /// The expiry of the key.
    Expiry,
    /// There is none.
    Done,
}

/// A value on its way out, with its key and expiry.
#[derive(Debug)]
pub struct CommandWriter(Steps<Place>);

impl Default for CommandWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl CommandWriter {
    /// A writer at the beginning of a value.
    #[must_use]
    pub fn new() -> Self {
        Self(Steps::new(Place::Start))
    }

    /// Appends at most `budget` bytes to `out`, which is at least one, and goes on from there the next time. True when
    /// all is written. It is the same entry each time, and has not changed.
    pub fn step(&mut self, entry: &Entry, out: &mut Vec<u8>, budget: usize) -> bool {
        self.0.step(Place::Done, out, budget, |place, window| {
            let mut lines = Lines(window);
            let next = part(place, entry, &mut lines);
            (next, lines.0.is_cut())
        })
    }
}

/// Commands, one word after the other.
struct Lines<'a>(Window<'a>);

impl Lines<'_> {
    /// Begins a command of so many words.
    fn begin(&mut self, words: usize) {
        self.length(b'*', words);
    }

    fn length(&mut self, mark: u8, length: usize) {
        let mut number = itoa::Buffer::new();
        self.0.bytes(&[mark]);
        self.0.bytes(number.format(length).as_bytes());
        self.0.bytes(b"\r\n");
    }

    fn word(&mut self, word: &[u8]) {
        self.length(b'$', word.len());
        self.0.bytes(word);
        self.0.bytes(b"\r\n");
    }

    fn words(&mut self, words: &[&[u8]]) {
        words.iter().for_each(|word| self.word(word));
    }

    fn text(&mut self, text: StringRef<'_>) {
        self.word(text.as_bytes(&mut [0; INT_TEXT_MAX]));
    }

    fn int(&mut self, int: i64) {
        self.word(format_int(int, &mut [0; INT_TEXT_MAX]));
    }

    fn display(&mut self, value: impl std::fmt::Display) {
        self.word(value.to_string().as_bytes());
    }
}

/// Writes the part at a place; returns the place of the next one.
fn part(place: Place, entry: &Entry, lines: &mut Lines<'_>) -> Place {
    let key = entry.key();
    if place == Place::Expiry {
        if let Some(at) = entry.expiry() {
            lines.begin(3);
            lines.words(&[b"PEXPIREAT", key]);
            lines.int(at);
        }
        return Place::Done;
    }
    match entry.collection() {
        None => {
            lines.begin(3);
            lines.words(&[b"SET", key]);
            lines.text(entry.string().expect("a value is a string or a collection"));
            Place::Expiry
        }
        Some(CollectionRef::List(list)) => list_part(place, key, list, lines),
        Some(CollectionRef::Set(set)) => set_part(place, key, set, lines),
        Some(CollectionRef::SortedSet(set)) => sorted_set_part(place, key, set, lines),
        Some(CollectionRef::Hash(hash)) => hash_part(place, key, hash, lines),
        Some(CollectionRef::Stream(stream)) => {
            let place = match place {
                Place::Stream(place) => place,
                _ => stream::Place::Start,
            };
            stream::part(place, key, stream, lines).map_or(Place::Expiry, Place::Stream)
        }
    }
}

fn list_part(place: Place, key: &[u8], list: &List, lines: &mut Lines<'_>) -> Place {
    let from = index_of(place);
    let count = ELEMENTS_PER_COMMAND.min(list.len() - from);
    lines.begin(2 + count);
    lines.words(&[b"RPUSH", key]);
    list.range(from, Direction::Forward, count, |element| lines.text(element));
    behind(from + count, list.len())
}

fn sorted_set_part(place: Place, key: &[u8], set: &SortedSet, lines: &mut Lines<'_>) -> Place {
    let from = index_of(place);
    let count = ELEMENTS_PER_COMMAND.min(set.len() - from);
    lines.begin(2 + 2 * count);
    lines.words(&[b"ZADD", key]);
    for (member, score) in set.range(from..from + count, Order::Ascending) {
        lines.word(DoubleText::new(score).as_bytes());
        lines.text(member);
    }
    behind(from + count, set.len())
}

fn index_of(place: Place) -> usize {
    match place {
        Place::Index(from) => from,
        _ => 0,
    }
}

fn behind(index: usize, len: usize) -> Place {
    if index < len {
        Place::Index(index)
    } else {
        Place::Expiry
    }
}

fn set_part(place: Place, key: &[u8], set: &Set, lines: &mut Lines<'_>) -> Place {
    let from = cursor_of(place);
    let mut count = 0;
    let next = set.scan(from, ELEMENTS_PER_COMMAND, |_| count += 1);
    if count > 0 {
        lines.begin(2 + count);
        lines.words(&[b"SADD", key]);
        set.scan(from, ELEMENTS_PER_COMMAND, |member| lines.text(member));
    }
    if next == 0 {
        Place::Expiry
    } else {
        Place::Cursor(next)
    }
}

fn hash_part(place: Place, key: &[u8], hash: &Hash, lines: &mut Lines<'_>) -> Place {
    if let Place::FieldExpiry(cursor) = place {
        return field_expiries(cursor, key, hash, lines);
    }
    let from = cursor_of(place);
    let mut count = 0;
    let next = hash.scan(from, ELEMENTS_PER_COMMAND, i64::MIN, |_| count += 1);
    if count > 0 {
        lines.begin(2 + 2 * count);
        lines.words(&[b"HSET", key]);
        hash.scan(from, ELEMENTS_PER_COMMAND, i64::MIN, |field| {
            lines.text(field.name);
            lines.text(field.value);
        });
    }
    match next {
        0 if hash.next_expiry().is_some() => Place::FieldExpiry(0),
        0 => Place::Expiry,
        next => Place::Cursor(next),
    }
}

/// Writes the expiries of some fields, a command each.
fn field_expiries(cursor: u64, key: &[u8], hash: &Hash, lines: &mut Lines<'_>) -> Place {
    let next = hash.scan(cursor, ELEMENTS_PER_COMMAND, i64::MIN, |field| {
        if let Some(at) = field.expiry {
            lines.begin(6);
            lines.words(&[b"HPEXPIREAT", key]);
            lines.int(at);
            lines.words(&[b"FIELDS", b"1"]);
            lines.text(field.name);
        }
    });
    if next == 0 {
        Place::Expiry
    } else {
        Place::FieldExpiry(next)
    }
}

fn cursor_of(place: Place) -> u64 {
    match place {
        Place::Cursor(cursor) => cursor,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
