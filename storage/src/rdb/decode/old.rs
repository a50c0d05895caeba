//! The packs of Redis before 7.0: ziplists and zipmaps. They are read into listpacks.
//!
//! ```text
//! ziplist  bytes: u32 LE │ offset of the last entry: u32 LE │ entries: u16 LE, 65535 = too many to say │ entries │ 0xff
//! entry    length of the entry before: 1 byte, or 0xfe and u32 LE │ encoding │ data
//!
//! zipmap   entries: 1 byte, 254 and more = too many to say │ entries │ 0xff
//! entry    length │ field │ length │ unused bytes: 1 byte │ value │ the unused bytes
//! length   1 byte below 254, or 254 and u32 LE
//! ```
//! The first byte of a ziplist's entry gives its type (`x` are bits of the value or of the length, highest first):
//! ```text
//! 00xxxxxx            string below 64        0xc0 + 2 bytes LE   integer of 16 bits
//! 01xxxxxx + 1 byte   string below 16384     0xd0 + 4 bytes LE   integer of 32 bits
//! 0x80 + 4 bytes      longer string          0xe0 + 8 bytes LE   integer of 64 bits
//! 1111xxxx            integer xxxx - 1,      0xf0 + 3 bytes LE   integer of 24 bits
//!                     xxxx from 1 to 13      0xfe + 1 byte       integer of 8 bits
//! ```

use super::super::reader::{Error, Reader, Source};
use super::PACK_BYTES_MAX;
use crate::encoding::listpack::Listpack;
use crate::value::StringRef;

const END: u8 = 0xff;
/// Bytes of a ziplist before its entries.
const ZIPLIST_HEADER: usize = 10;
/// The count in a ziplist's header when there are this many entries or more.
const ZIPLIST_UNKNOWN: u16 = u16::MAX;
/// First byte of a length that does not fit one.
const LONG: u8 = 254;

/// Reads a ziplist with at least one entry.
pub(super) fn ziplist<S: Source>(reader: &mut Reader<S>) -> Result<Listpack, Error> {
    pack(reader, of_ziplist, Error::Corrupt("a ziplist that is none"))
}

/// Reads a zipmap with at least one entry.
pub(super) fn zipmap<S: Source>(reader: &mut Reader<S>) -> Result<Listpack, Error> {
    pack(reader, of_zipmap, Error::Corrupt("a zipmap that is none"))
}

fn pack<S: Source>(
    reader: &mut Reader<S>,
    convert: fn(&[u8]) -> Option<Listpack>,
    corrupt: Error,
) -> Result<Listpack, Error> {
    let bytes = reader.blob()?;
    // An entry may take a few bytes more in a listpack.
    if bytes.len() > PACK_BYTES_MAX / 4 {
        return Err(corrupt);
    }
    match convert(bytes) {
        None => Err(corrupt),
        Some(pack) if pack.is_empty() => Err(Error::Empty),
        Some(mut pack) => {
            pack.shrink_to_fit();
            Ok(pack)
        }
    }
}

/// Bytes that are read from their beginning.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        let [byte] = self.array()?;
        Some(byte)
    }

    /// A length of one byte, or of four behind a mark.
    fn length(&mut self) -> Option<usize> {
        match self.byte()? {
            LONG => Some(u32::from_le_bytes(self.array()?) as usize),
            END => None,
            len => Some(usize::from(len)),
        }
    }
}

fn of_ziplist(bytes: &[u8]) -> Option<Listpack> {
    let mut rest = Bytes(bytes);
    let total = u32::from_le_bytes(rest.array()?) as usize;
    let tail = u32::from_le_bytes(rest.array()?) as usize;
    let count = u16::from_le_bytes(rest.array()?);
    if total != bytes.len() {
        return None;
    }
    let mut pack = Listpack::with_capacity(bytes.len());
    let (mut found, mut last_at, mut last_len) = (0usize, ZIPLIST_HEADER, 0);
    while *rest.0.first()? != END {
        let at = bytes.len() - rest.0.len();
        if rest.length()? != last_len {
            return None;
        }
        pack.push_back_ref(ziplist_entry(&mut rest)?);
        found += 1;
        last_at = at;
        last_len = bytes.len() - rest.0.len() - at;
    }
    let is_counted = count == ZIPLIST_UNKNOWN || usize::from(count) == found;
    (rest.0.len() == 1 && tail == last_at && is_counted).then_some(pack)
}

/// Reads encoding and data of an entry.
fn ziplist_entry<'a>(rest: &mut Bytes<'a>) -> Option<StringRef<'a>> {
    let first = rest.byte()?;
    let len = match first >> 6 {
        0 => usize::from(first),
        1 => usize::from(first & 0x3f) << 8 | usize::from(rest.byte()?),
        2 => u32::from_be_bytes(rest.array()?) as usize,
        _ => return ziplist_int(first, rest).map(StringRef::Int),
    };
    rest.take(len).map(StringRef::Bytes)
}

fn ziplist_int(first: u8, rest: &mut Bytes<'_>) -> Option<i64> {
    Some(match first {
        0xc0 => i16::from_le_bytes(rest.array()?).into(),
        0xd0 => i32::from_le_bytes(rest.array()?).into(),
        0xe0 => i64::from_le_bytes(rest.array()?),
        0xf0 => {
            let [low, middle, high] = rest.array()?;
            i64::from(i32::from_le_bytes([0, low, middle, high]) >> 8)
        }
        0xfe => i8::from_le_bytes(rest.array()?).into(),
        0xf1..=0xfd => i64::from(first & 0x0f) - 1,
        _ => return None,
    })
}

fn of_zipmap(bytes: &[u8]) -> Option<Listpack> {
    let mut rest = Bytes(bytes);
    let count = rest.byte()?;
    let mut pack = Listpack::with_capacity(bytes.len());
    let mut found = 0usize;
    while *rest.0.first()? != END {
        let field = rest.length()?;
        pack.push_back(rest.take(field)?);
        let value = rest.length()?;
        let unused = rest.byte()?;
        pack.push_back(rest.take(value)?);
        rest.take(usize::from(unused))?;
        found += 1;
    }
    (rest.0.len() == 1 && (count >= LONG || usize::from(count) == found)).then_some(pack)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::INT_TEXT_MAX;

    fn texts(pack: &Listpack) -> Vec<String> {
        let text = |element: StringRef<'_>| {
            String::from_utf8_lossy(element.as_bytes(&mut [0; INT_TEXT_MAX])).into_owned()
        };
        pack.iter().map(text).collect()
    }

    /// A ziplist of these entries, each without the length of the one before it.
    fn ziplist_of(entries: &[&[u8]]) -> Vec<u8> {
        let (mut body, mut last, mut tail) = (Vec::new(), 0u8, ZIPLIST_HEADER);
        for entry in entries {
            tail = ZIPLIST_HEADER + body.len();
            body.push(last);
            body.extend(*entry);
            last = entry.len() as u8 + 1;
        }
        let total = (ZIPLIST_HEADER + body.len() + 1) as u32;
        let mut bytes = total.to_le_bytes().to_vec();
        bytes.extend((tail as u32).to_le_bytes());
        bytes.extend((entries.len() as u16).to_le_bytes());
        bytes.extend(body);
        bytes.push(END);
        bytes
    }

    const ENTRIES: &[&[u8]] = &[
        b"\x02hi",
        b"\x40\x03abc",
        b"\x80\x00\x00\x00\x02xy",
        b"\xc0\x00\x80",
        b"\xd0\xff\xff\xff\x7f",
        b"\xe0\x00\x00\x00\x00\x00\x00\x00\x80",
        b"\xf0\x00\x00\x80",
        b"\xfe\x80",
        b"\xf1",
        b"\xfd",
    ];

    #[test]
    fn ziplists_are_read() {
        let good = ziplist_of(ENTRIES);
        assert_eq!(
            texts(&of_ziplist(&good).unwrap()),
            [
                "hi",
                "abc",
                "xy",
                "-32768",
                "2147483647",
                "-9223372036854775808",
                "-8388608",
                "-128",
                "0",
                "12"
            ]
        );
        assert!(of_ziplist(&ziplist_of(&[])).unwrap().is_empty());
        let mut unknown = good;
        unknown[8..10].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(of_ziplist(&unknown).unwrap().len(), ENTRIES.len());
    }

    #[test]
    fn corrupt_ziplists_are_refused() {
        let good = ziplist_of(ENTRIES);
        for len in 0..good.len() {
            assert!(of_ziplist(&good[..len]).is_none(), "cut to {len}");
        }
        // Total, tail, count and the lengths of entries before others: each has one right value.
        let lengths = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 14, 20];
        for at in lengths {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(of_ziplist(&bad).is_none(), "byte {at}");
        }
        assert!(of_ziplist(&[&good[..], b"x"].concat()).is_none());
        assert!(of_ziplist(&ziplist_of(&[b"\xff"])).is_none());
        assert!(of_ziplist(&ziplist_of(&[b"\xc1\x00\x00"])).is_none());
        assert!(of_ziplist(&ziplist_of(&[b"\x80\xff\xff\xff\xffab"])).is_none());
    }

    #[test]
    fn zipmaps_are_read() {
        let good = b"\x02\x03foo\x03\x00bar\x05hello\x05\x02world??\xff";
        assert_eq!(texts(&of_zipmap(good).unwrap()), ["foo", "bar", "hello", "world"]);
        let long = b"\x01\xfe\x03\x00\x00\x00foo\xfe\x03\x00\x00\x00\x00bar\xff";
        assert_eq!(texts(&of_zipmap(long).unwrap()), ["foo", "bar"]);
        let unknown = [b"\xfe", &good[1..]].concat();
        assert_eq!(of_zipmap(&unknown).unwrap().len(), 4);
        assert!(of_zipmap(b"\x00\xff").unwrap().is_empty());
    }

    #[test]
    fn corrupt_zipmaps_are_refused() {
        let good = b"\x02\x03foo\x03\x00bar\x05hello\x05\x02world??\xff";
        for len in 0..good.len() {
            assert!(of_zipmap(&good[..len]).is_none(), "cut to {len}");
        }
        for bad in [
            &b"\x01\x03foo\x03\x00bar\x05hello\x05\x02world??\xff"[..],
            b"\x02\x03foo\x03\x00bar\x05hello\x05\x02world??\xffx",
            b"\x01\x03foo\xff\x00bar\xff",
            b"\x01\xfe\xff\xff\xff\xfffoo\x03\x00bar\xff",
            b"\x01\x03foo\x03\x09bar\xff",
        ] {
            assert!(of_zipmap(bad).is_none(), "{bad:?}");
        }
    }
}
