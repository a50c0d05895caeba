//! Values, as the rest of the program sees them: type names, strings, detached values.

mod collection;
pub mod hash;
pub mod list;
pub mod set;
pub mod sorted_set;
pub mod stream;

use std::fmt;

use crate::entry::{Entry, EntryBox, NewValue};
use crate::memory::Buffer;
use crate::number::parse_i64;

pub(crate) use collection::Detached;
pub use collection::{Collection, CollectionRef, InPlace, MemberAhead};

/// The type of a value, as TYPE names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Bytes or an integer.
    String,
    /// A sequence with two ends.
    List,
    /// Distinct members.
    Set,
    /// Distinct members ordered by score.
    SortedSet,
    /// Fields with values.
    Hash,
    /// Entries with ids.
    Stream,
}

impl Kind {
    /// The name TYPE replies with.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::SortedSet => "zset",
            Self::Hash => "hash",
            Self::Stream => "stream",
        }
    }

    /// The type of that name, whatever its case (SCAN's TYPE option).
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [
            Self::String,
            Self::List,
            Self::Set,
            Self::SortedSet,
            Self::Hash,
            Self::Stream,
        ]
        .into_iter()
        .find(|kind| kind.name().as_bytes().eq_ignore_ascii_case(name))
    }
}

/// Encoding of a value, as OBJECT ENCODING names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// A string that is an integer.
    Int,
    /// A string of at most 44 bytes that was set as a whole.
    EmbStr,
    /// A longer string, or one that was changed in place.
    Raw,
    /// A small list, set, hash or sorted set: all of it in one run of bytes.
    Listpack,
    /// A small hash some of whose fields expire.
    ListpackEx,
    /// A list in several runs of bytes.
    Quicklist,
    /// A set of integers.
    Intset,
    /// A large set or hash.
    HashTable,
    /// A large sorted set. It is a tree here, but clients know this name.
    SkipList,
    /// A stream.
    Stream,
}

impl Encoding {
    /// The name OBJECT ENCODING replies with.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::EmbStr => "embstr",
            Self::Raw => "raw",
            Self::Listpack => "listpack",
            Self::ListpackEx => "listpackex",
            Self::Quicklist => "quicklist",
            Self::Intset => "intset",
            Self::HashTable => "hashtable",
            Self::SkipList => "skiplist",
            Self::Stream => "stream",
        }
    }
}

/// Room for the decimal digits of any `i64` with its sign.
pub const INT_TEXT_MAX: usize = 20;

/// Writes `int` in decimal to the front of `scratch` and returns what was written.
#[inline]
pub fn format_int(int: i64, scratch: &mut [u8; INT_TEXT_MAX]) -> &[u8] {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(int).as_bytes();
    let target = &mut scratch[..text.len()];
    target.copy_from_slice(text);
    target
}

/// A borrowed string value: bytes, or an integer that represents its decimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringRef<'a> {
    /// Stored as an integer.
    Int(i64),
    /// Stored as bytes.
    Bytes(&'a [u8]),
}

impl<'a> StringRef<'a> {
    /// The length in bytes, as STRLEN counts.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match *self {
            Self::Int(int) => {
                let digits = int
                    .unsigned_abs()
                    .checked_ilog10()
                    .map_or(1, |log| log as usize + 1);
                digits + usize::from(int < 0)
            }
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether there are no bytes. An integer always has some.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Bytes([]))
    }

    /// The bytes; an integer is written to `scratch` first.
    #[inline]
    #[must_use]
    pub fn as_bytes<'s>(&self, scratch: &'s mut [u8; INT_TEXT_MAX]) -> &'s [u8]
    where
        'a: 's,
    {
        match *self {
            Self::Int(int) => format_int(int, scratch),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The integer the string spells, if it is the canonical spelling of one that fits 64 bits.
    #[inline]
    #[must_use]
    pub fn to_int(&self) -> Option<i64> {
        match *self {
            Self::Int(int) => Some(int),
            Self::Bytes(bytes) => parse_i64(bytes),
        }
    }
}

/// A value with its expiry, detached from any key: RENAME, COPY and MOVE carry it, also from shard to shard.
pub struct Owned {
    /// The allocation it had under its old key; large values move with it by pointer.
    pub(crate) entry: EntryBox,
}

impl Owned {
    /// A string of `bytes`, encoded as [`Database::set_string`](crate::keyspace::Database::set_string) does.
    #[must_use]
    pub fn string(bytes: &[u8], expiry: Option<i64>) -> Self {
        Self::new(NewValue::string(bytes), expiry)
    }

    /// A string that is an integer.
    #[must_use]
    pub fn integer(int: i64, expiry: Option<i64>) -> Self {
        Self::new(NewValue::Int(int), expiry)
    }

    /// A string whose bytes are adopted.
    #[must_use]
    pub fn buffer(buffer: Buffer, expiry: Option<i64>) -> Self {
        if NewValue::embeds(&buffer) {
            return Self::string(&buffer, expiry);
        }
        Self::new(NewValue::Heap(buffer), expiry)
    }

    /// A collection.
    #[must_use]
    pub fn collection(value: Collection, expiry: Option<i64>) -> Self {
        Self::new(NewValue::Collection(value), expiry)
    }

    fn new(value: NewValue<'_>, expiry: Option<i64>) -> Self {
        Self {
            entry: EntryBox::new(b"", 0, expiry, value),
        }
    }

    /// The type.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.entry.kind()
    }

    /// Expiry, milliseconds since 1970.
    #[must_use]
    pub fn expiry(&self) -> Option<i64> {
        self.entry.expiry()
    }

    /// Changes when it expires.
    pub fn set_expiry(&mut self, expiry: Option<i64>) {
        let Some(at) = expiry else {
            if self.entry.expiry().is_some() {
                self.entry.rebuild(None);
            }
            return;
        };
        if !self.entry.set_expiry_in_place(at) {
            self.entry.rebuild(Some(at));
        }
    }

    /// The access clock it had under its old key, 24 bits.
    #[must_use]
    pub fn clock(&self) -> u32 {
        self.entry.clock()
    }

    /// The value itself.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }
}

impl fmt::Debug for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owned")
            .field("kind", &self.kind())
            .field("expiry", &self.expiry())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_text() {
        let mut scratch = [0; INT_TEXT_MAX];
        for int in [
            0,
            1,
            -1,
            9,
            10,
            -10,
            99,
            100,
            i64::MAX,
            i64::MIN,
            1_000_000_000_000,
        ] {
            let string = StringRef::Int(int);
            assert_eq!(string.len(), int.to_string().len(), "{int}");
            assert_eq!(string.as_bytes(&mut scratch), int.to_string().as_bytes());
            assert_eq!(StringRef::Bytes(int.to_string().as_bytes()).to_int(), Some(int));
        }
        assert!(StringRef::Bytes(b"").is_empty() && !StringRef::Int(0).is_empty());
        assert_eq!(StringRef::Bytes(b"012").to_int(), None);
    }

    #[test]
    fn kinds_are_found_by_name() {
        assert_eq!(Kind::from_name(b"ZSet"), Some(Kind::SortedSet));
        assert_eq!(Kind::from_name(b"sorted"), None);
    }

    #[test]
    fn a_detached_value_keeps_its_bytes_whatever_its_expiry() {
        let start = crate::memory::thread_balance();
        let long = vec![7u8; 5000];
        for bytes in [&b"12"[..], b"short", &long] {
            let mut owned = Owned::string(bytes, None);
            let mut scratch = [0; INT_TEXT_MAX];
            for expiry in [Some(5), Some(6), None, None, Some(7)] {
                owned.set_expiry(expiry);
                assert_eq!(owned.expiry(), expiry);
                assert_eq!(owned.entry().string().unwrap().as_bytes(&mut scratch), bytes);
            }
        }
        assert_eq!(crate::memory::thread_balance(), start);
    }
}
