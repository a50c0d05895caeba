//! Payloads: one value with its type, the version of the format and a checksum. What DUMP gives and RESTORE takes.

use super::checksum::Checksum;
use super::encode::{ValueWriter, WriteOptions, kind_of, version_of};
use super::reader::{Error, Reader};
use super::{Limits, decode, dialect_of};
use crate::entry::Entry;
use crate::value::Owned;

const VERSION_BYTES: usize = 2;
const CHECKSUM_BYTES: usize = 8;

/// The payload of a value. O(size).
#[must_use]
pub fn write(entry: &Entry, options: WriteOptions) -> Vec<u8> {
    let mut bytes = vec![kind_of(entry, options.dialect)];
    let is_done = ValueWriter::new(options).step(entry, &mut bytes, usize::MAX);
    assert!(is_done, "there was room for all of it");
    bytes.extend(version_of(entry, options.dialect).to_le_bytes());
    let sum = Checksum::of(&bytes);
    bytes.extend(sum.to_bytes());
    bytes
}

/// A payload of a known version whose checksum is right.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    body: &'a [u8],
    dialect: decode::Dialect,
}

impl<'a> Payload<'a> {
    /// The payload in `bytes`; `None` if its version is unknown or its checksum wrong. O(length).
    #[must_use]
    pub fn verified(bytes: &'a [u8]) -> Option<Self> {
        let (summed, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        let (body, version) = summed.split_last_chunk::<VERSION_BYTES>()?;
        let dialect = dialect_of(u16::from_le_bytes(*version))?;
        (Checksum::of(summed).to_bytes() == *sum).then_some(Self { body, dialect })
    }

    /// The value, without expiry. O(size).
    ///
    /// # Errors
    /// When the bytes are no value, down to its last element, or something follows it.
    pub fn value(self, limits: &Limits) -> Result<Owned, Error> {
        let mut reader = Reader::new(self.body);
        let kind = reader.byte()?;
        let value = decode::value(&mut reader, kind, self.dialect, limits)?;
        if reader.source.is_empty() {
            Ok(value)
        } else {
            Err(Error::Corrupt("bytes behind the value"))
        }
    }
}
