//! Reading the primitives of the format: lengths, texts, numbers, from memory or from a stream.
//!
//! No announced length is believed: memory grows with the bytes that have really come, and a compressed text is only
//! made room for as far as its bytes could fill it.

use std::fmt;

use super::opcode::special;
use crate::algorithm::lzf;
use crate::value::{INT_TEXT_MAX, StringRef, format_int};

/// Longest text that a few compressed bytes can make: three bytes repeat 264.
const LZF_GAIN_MAX: u64 = 88;

/// Bytes that are passed over at once.
const PASSED_AT_ONCE: u64 = 1 << 15;

/// Reason for which bytes could not be read.
#[derive(Debug)]
pub enum Error {
    /// The bytes end too early.
    Short,
    /// The bytes contradict the format.
    Corrupt(&'static str),
    /// A collection has no elements. Old servers wrote such keys.
    Empty,
    /// The value belongs to something that this program does not have.
    Unsupported(&'static str),
    /// There is no memory for a text.
    Memory,
    /// The source of the bytes failed.
    Io(std::io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the data ends too early"),
            Self::Corrupt(reason) => write!(f, "corrupt data: {reason}"),
            Self::Empty => f.write_str("a collection without elements"),
            Self::Unsupported(what) => write!(f, "not supported: {what}"),
            Self::Memory => f.write_str("not enough memory"),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Error {}

/// A place where bytes come from.
pub(super) trait Source {
    /// The next `len` bytes; in `scratch` if they are not in memory already.
    ///
    /// # Errors
    /// When there are fewer bytes, or no memory for them, or they cannot be had.
    fn take<'s>(&'s mut self, len: u64, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], Error>;

    /// Passes over the next `len` bytes.
    ///
    /// # Errors
    /// Those of [`take`](Self::take).
    fn pass(&mut self, mut len: u64) -> Result<(), Error> {
        let mut scratch = Vec::new();
        while len > 0 {
            let here = len.min(PASSED_AT_ONCE);
            self.take(here, &mut scratch)?;
            len -= here;
        }
        Ok(())
    }
}

impl Source for &[u8] {
    #[inline]
    fn take<'s>(&'s mut self, len: u64, _: &'s mut Vec<u8>) -> Result<&'s [u8], Error> {
        let len = usize::try_from(len).map_err(|_| Error::Short)?;
        let (taken, rest) = self.split_at_checked(len).ok_or(Error::Short)?;
        *self = rest;
        Ok(taken)
    }
}

/// A length, or the mark of a special text in its place.
enum Length {
    Plain(u64),
    Special(u8),
}

/// Reader of primitives.
pub(super) struct Reader<S> {
    pub(super) source: S,
    /// Bytes as they came, if the source had to be copied.
    raw: Vec<u8>,
    /// A text, decompressed.
    plain: Vec<u8>,
}

impl<S: Source> Reader<S> {
    /// A reader of the bytes of `source`.
    pub(super) fn new(source: S) -> Self {
        Self {
            source,
            raw: Vec::new(),
            plain: Vec::new(),
        }
    }

    /// The next `N` bytes.
    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self.source.take(N as u64, &mut self.raw)?;
        bytes.try_into().map_err(|_| Error::Short)
    }

    /// The next byte.
    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// A number of eight bytes, the lowest first.
    pub(super) fn long(&mut self) -> Result<i64, Error> {
        self.array().map(i64::from_le_bytes)
    }

    #[inline]
    fn length(&mut self) -> Result<Length, Error> {
        let first = self.byte()?;
        Ok(Length::Plain(match first >> 6 {
            0 => u64::from(first),
            1 => u64::from(first & 0x3f) << 8 | u64::from(self.byte()?),
            3 => return Ok(Length::Special(first & 0x3f)),
            _ => match first {
                special::LENGTH_32 => u32::from_be_bytes(self.array()?).into(),
                special::LENGTH_64 => u64::from_be_bytes(self.array()?),
                _ => return Err(Error::Corrupt("a length of no known form")),
            },
        }))
    }

    /// A length, a count, or another unsigned number.
    pub(super) fn count(&mut self) -> Result<u64, Error> {
        match self.length()? {
            Length::Plain(count) => Ok(count),
            Length::Special(_) => Err(Error::Corrupt("a text in the place of a length")),
        }
    }

    /// A number of elements, which is not 0.
    pub(super) fn elements(&mut self) -> Result<u64, Error> {
        match self.count()? {
            0 => Err(Error::Empty),
            count => Ok(count),
        }
    }

    /// A text.
    #[inline]
    pub(super) fn text(&mut self) -> Result<StringRef<'_>, Error> {
        match self.length()? {
            Length::Plain(len) => Ok(StringRef::Bytes(self.source.take(len, &mut self.raw)?)),
            Length::Special(special::INT_8) => Ok(StringRef::Int(i8::from_le_bytes(self.array()?).into())),
            Length::Special(special::INT_16) => Ok(StringRef::Int(i16::from_le_bytes(self.array()?).into())),
            Length::Special(special::INT_32) => Ok(StringRef::Int(i32::from_le_bytes(self.array()?).into())),
            Length::Special(special::LZF) => self.compressed().map(StringRef::Bytes),
            Length::Special(_) => Err(Error::Corrupt("a text of no known form")),
        }
    }

    fn compressed(&mut self) -> Result<&[u8], Error> {
        const CORRUPT: Error = Error::Corrupt("a compressed text that cannot be decompressed");
        let (packed, len) = (self.count()?, self.count()?);
        if len > packed.saturating_mul(LZF_GAIN_MAX) {
            return Err(CORRUPT);
        }
        let bytes = self.source.take(packed, &mut self.raw)?;
        let len = usize::try_from(len).map_err(|_| Error::Memory)?;
        self.plain.clear();
        self.plain.try_reserve_exact(len).map_err(|_| Error::Memory)?;
        self.plain.resize(len, 0);
        lzf::decompress(bytes, &mut self.plain).ok_or(CORRUPT)?;
        Ok(&self.plain)
    }

    /// Passes over a text.
    #[inline]
    pub(super) fn pass_text(&mut self) -> Result<(), Error> {
        let len = match self.length()? {
            Length::Plain(len) => len,
            Length::Special(special::INT_8) => 1,
            Length::Special(special::INT_16) => 2,
            Length::Special(special::INT_32) => 4,
            Length::Special(special::LZF) => {
                let (packed, _len) = (self.count()?, self.count()?);
                packed
            }
            Length::Special(_) => return Err(Error::Corrupt("a text of no known form")),
        };
        self.source.pass(len)
    }

    /// A text that is no number: the bytes of a pack and the like.
    pub(super) fn blob(&mut self) -> Result<&[u8], Error> {
        match self.text()? {
            StringRef::Bytes(bytes) => Ok(bytes),
            StringRef::Int(_) => Err(Error::Corrupt("a number in the place of a pack")),
        }
    }

    /// A text, copied to `target`.
    pub(super) fn text_into(&mut self, target: &mut Vec<u8>) -> Result<(), Error> {
        target.clear();
        match self.text()? {
            StringRef::Int(int) => target.extend(format_int(int, &mut [0; INT_TEXT_MAX])),
            StringRef::Bytes(bytes) => {
                target.try_reserve(bytes.len()).map_err(|_| Error::Memory)?;
                target.extend(bytes);
            }
        }
        Ok(())
    }
}

impl<S> fmt::Debug for Reader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut target = Vec::new();
        let mut reader = Reader::new(bytes);
        match reader.text_into(&mut target) {
            Ok(()) => Ok(target),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn lengths_have_four_forms() {
        let count = |bytes: &[u8]| Reader::new(bytes).count().ok();
        for (bytes, expected) in [
            (&[0x00][..], Some(0)),
            (&[0x3f], Some(63)),
            (&[0x40, 0x40], Some(64)),
            (&[0x7f, 0xff], Some(16_383)),
            (&[0x80, 0, 0, 0x40, 0], Some(16_384)),
            (&[0x81, 0, 0, 0, 1, 0, 0, 0, 0], Some(1 << 32)),
            (&[0x81, 255, 255, 255, 255, 255, 255, 255, 255], Some(u64::MAX)),
            (&[0x82, 0, 0, 0, 0], None),
            (&[0xbf, 0, 0, 0, 0], None),
            // A text in the place of a length is refused, whatever its low bits would count.
            (&[0xc0, 1], None),
            (&[0xc5], None),
            (&[0x40], None),
            (&[0x80, 0, 0], None),
            (&[], None),
        ] {
            assert_eq!(count(bytes), expected, "{bytes:?}");
        }
    }

    /// A compressed text announces a length that its bytes cannot make.
    #[test]
    fn no_memory_is_taken_for_a_length_out_of_reach() {
        let bytes = b"\xc3\x05\x80\x04\x00\x00\x00\x00a\xe0\x00\x00";
        let mut reader = Reader::new(&bytes[..]);
        assert!(reader.text().is_err());
        assert!(reader.plain.capacity() < 1 << 20, "{}", reader.plain.capacity());
    }

    #[test]
    fn texts_are_plain_numbers_or_compressed() {
        assert_eq!(text(b"\x03abc"), Ok(b"abc".to_vec()));
        assert_eq!(text(b"\xc0\xff"), Ok(b"-1".to_vec()));
        assert_eq!(text(b"\xc1\x00\x80"), Ok(b"-32768".to_vec()));
        assert_eq!(text(b"\xc2\xff\xff\xff\x7f"), Ok(b"2147483647".to_vec()));
        assert_eq!(text(b"\xc3\x05\x0a\x00a\xe0\x00\x00"), Ok(b"aaaaaaaaaa".to_vec()));
        for corrupt in [
            &b"\xc3\x05\x0b\x00a\xe0\x00\x00"[..], // another length than announced
            b"\xc3\x05\x09\x00a\xe0\x00\x00",
            b"\xc3\x05\x0a\x00a\xe0\x00\x05", // a copy from before the beginning
            b"\xc3\x05\x81\x00\xff\xff\xff\xff\xff\xff\xff\x00a\xe0\x00\x00", // no memory is taken for this
            b"\xc4\x00",
            b"\x05abc",
            b"\x81\xff\xff\xff\xff\xff\xff\xff\xffabc",
        ] {
            assert!(text(corrupt).is_err(), "{corrupt:?}");
        }
    }
}
