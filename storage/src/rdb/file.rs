//! Files: databases with their keys, and what is said about them beside.
//!
//! ```text
//! magic    "REDIS" and four digits, or "VALKEY" and three
//! record   0xfa │ name │ value                     a remark of the writer
//!          0xf5 │ source                           a library of functions
//!          0xfe │ number                           the database of what follows
//!          0xfb │ keys │ keys that expire          hints about its size
//!          properties of a key │ type │ key │ value
//! property 0xfc │ 8 bytes LE                       expiry, milliseconds since 1970 (0xfd: 4 bytes, seconds)
//!          0xf8 │ seconds  or  0xf9 │ 1 byte       how long it is unused, or how often it is used
//! end      0xff │ checksum (from version 5 on)     0 for none
//! ```
//! Reading and writing do no I/O: a [`FileReader`] takes its bytes from whatever implements [`std::io::Read`], a
//! [`FileWriter`] collects bytes that its owner takes. The records of keys may also be written elsewhere, each by a
//! [`RecordWriter`], and are then passed to the file.
//! A [`FileScanner`] splits a file without decoding values, which its
//! owner has decoded elsewhere ([`Form`]).

mod reader;
mod records;
mod scanner;
mod stream;
mod writer;

use std::fmt;
use std::io::Read;

pub use self::reader::FileReader;
pub use self::records::{Head, Part};
pub use self::scanner::FileScanner;
use self::stream::Stream;
pub use self::writer::{FileWriter, Header, RecordWriter};
use super::decode::{self, Decoded, Dialect, Limits};
use super::opcode::kind;
use super::reader::{Error, Reader, Source};
use crate::value::Owned;

/// Use of a key, by which it is evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Seconds since its last use.
    Idle(u64),
    /// Its count of uses.
    Frequency(u8),
}

/// A key with its value, which has its expiry.
#[derive(Debug)]
pub struct Record {
    /// The key.
    pub key: Vec<u8>,
    /// The value, with its expiry.
    pub value: Owned,
    /// Use of the key, if the writer's eviction looked at it.
    pub usage: Option<Usage>,
}

/// Form of a value in a file.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Type of the value.
    kind: u8,
    /// Family of the file's writer.
    dialect: Dialect,
}

impl Form {
    fn new(kind: u8, dialect: Dialect) -> Self {
        Self { kind, dialect }
    }

    /// Whether it is the value of a module, which can be passed over but not decoded.
    fn is_module(self) -> bool {
        self.kind == kind::MODULE_2
    }

    /// Whether a key with such a value is left out for this reason, instead of the whole file being refused: a collection
    /// without elements, which old servers wrote, and a value of a module.
    #[must_use]
    pub fn is_left_out(self, reason: &Error) -> bool {
        match reason {
            Error::Empty => true,
            Error::Unsupported(_) => self.is_module(),
            _ => false,
        }
    }

    /// Decodes the bytes of a value of this form, and calls `store` with it. O(size).
    ///
    /// # Errors
    /// When the bytes are no such value, down to its last element, or something follows it.
    pub fn decode<T>(
        self,
        bytes: &[u8],
        limits: &Limits,
        store: impl FnOnce(Decoded<'_>) -> T,
    ) -> Result<T, ValueError> {
        let mut reader = Reader::new(bytes);
        let value = self.read(&mut reader, limits, store);
        value.map_err(|error| ValueError {
            offset: (bytes.len() - reader.source.len()) as u64,
            error,
        })
    }

    /// Decodes a value of this form like [`decode`](Self::decode), out of what `source` gives up to its end.
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode), and those of the source.
    pub fn decode_from<T>(
        self,
        source: impl Read,
        limits: &Limits,
        store: impl FnOnce(Decoded<'_>) -> T,
    ) -> Result<T, ValueError> {
        let mut reader = Reader::new(Stream::new(source, false));
        let value = self.read(&mut reader, limits, store);
        value.map_err(|error| ValueError {
            offset: reader.source.offset(),
            error,
        })
    }

    fn read<S: Source, T>(
        self,
        reader: &mut Reader<S>,
        limits: &Limits,
        store: impl FnOnce(Decoded<'_>) -> T,
    ) -> Result<T, Error> {
        let value = store(decode::decoded(reader, self.kind, self.dialect, limits)?);
        match reader.byte() {
            Err(Error::Short) => Ok(value),
            Err(error) => Err(error),
            Ok(_) => Err(Error::Corrupt("bytes behind the value")),
        }
    }
}

/// Reason for which a value could not be decoded.
#[derive(Debug)]
pub struct ValueError {
    /// Number of bytes of the value that were read.
    pub offset: u64,
    /// The reason.
    pub error: Error,
}

impl ValueError {
    /// Whether the source of the bytes failed, so that nothing is known of the value.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        matches!(self.error, Error::Io(_))
    }
}

/// Part of a file.
#[derive(Debug)]
pub enum Item {
    /// A remark of the writer.
    Aux {
        /// Its name.
        name: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// The source of a library of functions.
    Function(Vec<u8>),
    /// The number of the database of the keys that follow.
    Database(u64),
    /// Hints about the size of the database. They may be wrong.
    Sizes {
        /// Number of keys.
        keys: u64,
        /// Number of keys that expire.
        expires: u64,
    },
    /// A key.
    Key(Record),
    /// A key that was passed over: a collection without elements, which old servers wrote, or a value of a module.
    Skipped {
        /// The key.
        key: Vec<u8>,
        /// The reason.
        reason: Error,
    },
}

/// Reason for which a file cannot be read further.
#[derive(Debug)]
pub struct FileError {
    /// Number of bytes of the file that were read.
    pub offset: u64,
    /// The key whose value was being read.
    pub key: Option<Vec<u8>>,
    /// The reason.
    pub error: Error,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}", self.error, self.offset)?;
        match &self.key {
            Some(key) => write!(f, ", key '{}'", key.escape_ascii()),
            None => Ok(()),
        }
    }
}

impl std::error::Error for FileError {}

#[cfg(test)]
mod tests;
