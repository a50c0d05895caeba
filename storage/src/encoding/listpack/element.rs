//! One element of a listpack: encoding, decoding, comparing. See [`Listpack`](super::Listpack) for the format.
//!
//! The *span* of an element is its encoding byte, length and data; behind it comes the length of the span, written so
//! that it can be read backwards.

use crate::number::parse_i64;
use crate::value::StringRef;

const STRING_32: u8 = 0xf0;
const INT_16: u8 = 0xf1;
const INT_24: u8 = 0xf2;
const INT_32: u8 = 0xf3;
const INT_64: u8 = 0xf4;

/// Strings shorter than this have their length in the first byte.
const SHORT_STRING_END: usize = 1 << 6;
/// Strings shorter than this have it in the first two.
const MEDIUM_STRING_END: usize = 1 << 12;

/// The most bytes before the data of a string, or of a whole integer.
const HEAD_BYTES_MAX: usize = 9;

/// An element ready to be written.
pub(super) struct Encoded<'a> {
    /// Encoding and length, or a whole integer.
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    /// The data of a string.
    data: &'a [u8],
}

impl<'a> Encoded<'a> {
    /// The string, as an integer if it spells one.
    #[inline]
    pub(super) fn of(value: &'a [u8]) -> Self {
        match parse_i64(value) {
            Some(int) => Self::of_int(int),
            None => Self::of_string(value),
        }
    }

    #[inline]
    fn of_string(data: &'a [u8]) -> Self {
        let len = data.len();
        let mut head = [0; HEAD_BYTES_MAX];
        let head_len = if len < SHORT_STRING_END {
            head[0] = 0x80 | len as u8;
            1
        } else if len < MEDIUM_STRING_END {
            head[0] = 0xe0 | (len >> 8) as u8;
            head[1] = len as u8;
            2
        } else {
            // Longer ones do not fit a buffer and are refused there.
            head[0] = STRING_32;
            head[1..5].copy_from_slice(&(len as u32).to_le_bytes());
            5
        };
        Self { head, head_len, data }
    }

    #[inline]
    pub(super) fn of_int(int: i64) -> Self {
        let mut head = [0; HEAD_BYTES_MAX];
        let bytes = int.to_le_bytes();
        let mut wide = |tag, len: usize| {
            head[0] = tag;
            head[1..=len].copy_from_slice(&bytes[..len]);
            len as u8 + 1
        };
        let head_len = match int {
            0..=127 => {
                head[0] = int as u8;
                1
            }
            -4096..=4095 => {
                head[0] = 0xc0 | ((int >> 8) as u8 & 0x1f);
                head[1] = int as u8;
                2
            }
            -0x8000..=0x7fff => wide(INT_16, 2),
            -0x80_0000..=0x7f_ffff => wide(INT_24, 3),
            -0x8000_0000..=0x7fff_ffff => wide(INT_32, 4),
            _ => wide(INT_64, 8),
        };
        Self {
            head,
            head_len,
            data: &[],
        }
    }

    #[inline]
    fn span(&self) -> usize {
        usize::from(self.head_len) + self.data.len()
    }

    /// The bytes of the element in all.
    #[inline]
    pub(super) fn size(&self) -> usize {
        let span = self.span();
        span + back_len_of(span)
    }

    /// Writes the element to `target`, which is as long as [`Encoded::size`] says.
    #[inline]
    pub(super) fn write(&self, target: &mut [u8]) {
        let (head_len, span) = (usize::from(self.head_len), self.span());
        if head_len == 1 {
            target[0] = self.head[0];
        } else {
            target[..head_len].copy_from_slice(&self.head[..head_len]);
        }
        target[head_len..span].copy_from_slice(self.data);
        write_back_len(span, &mut target[span..]);
    }
}

/// Number of bytes that the length of a span takes. The bounds of two bytes and more are Redis's, one short of what
/// would fit.
#[inline]
pub(super) fn back_len_of(span: usize) -> usize {
    if span <= 127 {
        1
    } else if span < 16_383 {
        2
    } else if span < 2_097_151 {
        3
    } else if span < 268_435_455 {
        4
    } else {
        5
    }
}

/// Writes the length of a span to `target`, which is as long as [`back_len_of`] says.
#[inline]
fn write_back_len(span: usize, target: &mut [u8]) {
    if let [only] = target {
        *only = span as u8;
        return;
    }
    let mut rest = span;
    for byte in target.iter_mut().rev() {
        *byte = 0x80 | (rest & 0x7f) as u8;
        rest >>= 7;
    }
    target[0] &= 0x7f;
}

/// Reads the length of a span that ends before `end`: the length, and the bytes it took.
#[inline]
pub(super) fn read_back_len(bytes: &[u8], end: usize) -> (usize, usize) {
    let mut byte = bytes[end - 1];
    let (mut span, mut taken) = (usize::from(byte & 0x7f), 1);
    while byte & 0x80 != 0 {
        byte = bytes[end - 1 - taken];
        span |= usize::from(byte & 0x7f) << (7 * taken);
        taken += 1;
    }
    (span, taken)
}

/// The bytes before the data of a string, and those of the data, for the element that `first` begins; an integer has no
/// data.
#[inline]
fn lengths(bytes: &[u8], at: usize) -> (usize, usize) {
    let first = bytes[at];
    match first {
        0..0x80 => (1, 0),
        0x80..0xc0 => (1, usize::from(first & 0x3f)),
        0xc0..0xe0 => (2, 0),
        0xe0..0xf0 => (2, usize::from(first & 0x0f) << 8 | usize::from(bytes[at + 1])),
        STRING_32 => {
            let mut len = [0; 4];
            len.copy_from_slice(&bytes[at + 1..at + 5]);
            (5, u32::from_le_bytes(len) as usize)
        }
        INT_16 => (3, 0),
        INT_24 => (4, 0),
        INT_32 => (5, 0),
        // Other first bytes do not occur in a pack that was built here or validated.
        _ => (9, 0),
    }
}

/// The span of the element at `at`.
#[inline]
pub(super) fn span_at(bytes: &[u8], at: usize) -> usize {
    let (head, data) = lengths(bytes, at);
    head + data
}

/// The element at `at`, and its span.
#[inline]
pub(super) fn decode(bytes: &[u8], at: usize) -> (StringRef<'_>, usize) {
    let first = bytes[at];
    if first < 0x80 {
        return (StringRef::Int(i64::from(first)), 1);
    }
    if first < 0xc0 {
        let span = 1 + usize::from(first & 0x3f);
        return (StringRef::Bytes(&bytes[at + 1..at + span]), span);
    }
    decode_wide(bytes, at)
}

/// The same for what is not in the first byte alone.
fn decode_wide(bytes: &[u8], at: usize) -> (StringRef<'_>, usize) {
    let (head, data) = lengths(bytes, at);
    let first = bytes[at];
    if (0xe0..=STRING_32).contains(&first) {
        return (StringRef::Bytes(&bytes[at + head..at + head + data]), head + data);
    }
    let int = if first < 0xe0 {
        // Thirteen bits, moved to the top and back so that the sign extends.
        let raw = u16::from(first) << 11 | u16::from(bytes[at + 1]) << 3;
        i64::from(raw.cast_signed() >> 3)
    } else {
        let width = head - 1;
        let mut raw = [0; 8];
        raw[8 - width..].copy_from_slice(&bytes[at + 1..at + head]);
        i64::from_le_bytes(raw) >> (64 - 8 * width)
    };
    (StringRef::Int(int), head)
}

/// The bytes of the element that `bytes` begin with; `None` when it is not a whole and correct one.
pub(super) fn checked_size(bytes: &[u8]) -> Option<usize> {
    let head_needed = match *bytes.first()? {
        STRING_32 => 5,
        0xe0..0xf0 => 2,
        first if first > INT_64 => return None,
        _ => 1,
    };
    if bytes.len() < head_needed {
        return None;
    }
    let span = span_at(bytes, 0);
    let size = span.checked_add(back_len_of(span))?;
    let back = bytes.get(span..size)?;
    let mut expected = [0; 5];
    let expected = &mut expected[..back.len()];
    write_back_len(span, expected);
    (back == expected).then_some(size)
}

/// A string to search for, prepared once.
pub(super) struct Needle<'a> {
    text: &'a [u8],
    int: Option<i64>,
}

impl<'a> Needle<'a> {
    #[inline]
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            int: parse_i64(text),
        }
    }

    /// Whether the element at `at` equals the needle, and the span of the element.
    #[inline]
    pub(super) fn matches(&self, bytes: &[u8], at: usize) -> (bool, usize) {
        let first = bytes[at];
        if (0x80..0xc0).contains(&first) {
            let len = usize::from(first & 0x3f);
            let equal = len == self.text.len() && bytes[at + 1..=at + len] == *self.text;
            return (equal, 1 + len);
        }
        let (value, span) = decode(bytes, at);
        let equal = match value {
            StringRef::Int(int) => self.int == Some(int),
            // Packs made elsewhere may hold integers as strings.
            StringRef::Bytes(data) => data == self.text,
        };
        (equal, span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(element: &Encoded<'_>) -> Vec<u8> {
        let mut target = vec![0; element.size()];
        element.write(&mut target);
        target
    }

    #[test]
    fn integers_take_the_smallest_encoding() {
        let cases: &[(i64, &[u8])] = &[
            (0, &[0, 1]),
            (127, &[127, 1]),
            (128, &[0xc0, 128, 2]),
            (-1, &[0xdf, 0xff, 2]),
            (4095, &[0xcf, 0xff, 2]),
            (-4096, &[0xd0, 0, 2]),
            (4096, &[0xf1, 0, 0x10, 3]),
            (-4097, &[0xf1, 0xff, 0xef, 3]),
            (32767, &[0xf1, 0xff, 0x7f, 3]),
            (32768, &[0xf2, 0, 0x80, 0, 4]),
            (-8_388_608, &[0xf2, 0, 0, 0x80, 4]),
            (8_388_608, &[0xf3, 0, 0, 0x80, 0, 5]),
            (i64::from(i32::MIN), &[0xf3, 0, 0, 0, 0x80, 5]),
            (1 << 31, &[0xf4, 0, 0, 0, 0x80, 0, 0, 0, 0, 9]),
            (i64::MIN, &[0xf4, 0, 0, 0, 0, 0, 0, 0, 0x80, 9]),
        ];
        for (int, bytes) in cases {
            assert_eq!(encode(&Encoded::of_int(*int)), *bytes, "{int}");
            assert_eq!(decode(bytes, 0), (StringRef::Int(*int), bytes.len() - 1), "{int}");
        }
    }

    #[test]
    fn strings_take_the_smallest_head() {
        for (len, head, back) in [
            (0, &[0x80][..], &[1][..]),
            (63, &[0xbf], &[64]),
            (64, &[0xe0, 64], &[66]),
            (125, &[0xe0, 125], &[127]),
            (126, &[0xe0, 126], &[1, 0x80]),
            (4095, &[0xef, 0xff], &[32, 0x81]),
            (4096, &[0xf0, 0, 16, 0, 0], &[32, 0x85]),
            (16_377, &[0xf0, 0xf9, 0x3f, 0, 0], &[127, 0xfe]),
            // Here Redis spends three bytes though two would do.
            (16_378, &[0xf0, 0xfa, 0x3f, 0, 0], &[0, 0xff, 0xff]),
            (70_000, &[0xf0, 0x70, 0x11, 1, 0], &[4, 0xa2, 0xf5]),
        ] {
            let data = vec![b'x'; len];
            let bytes = encode(&Encoded::of(&data));
            assert_eq!(bytes, [head, &data, back].concat(), "{len}");
            let span = head.len() + len;
            assert_eq!(decode(&bytes, 0), (StringRef::Bytes(&data), span));
            assert_eq!(read_back_len(&bytes, bytes.len()), (span, back.len()));
            assert_eq!(checked_size(&bytes), Some(bytes.len()));
        }
    }

    #[test]
    fn lengths_of_spans_read_back() {
        for span in [
            1,
            127,
            128,
            16_382,
            16_383,
            2_097_150,
            2_097_151,
            268_435_454,
            268_435_455,
            u32::MAX as usize,
        ] {
            let mut bytes = vec![0xee; 3 + back_len_of(span)];
            write_back_len(span, &mut bytes[3..]);
            assert_eq!(
                read_back_len(&bytes, bytes.len()),
                (span, bytes.len() - 3),
                "{span}"
            );
        }
    }

    #[test]
    fn torn_elements_are_refused() {
        for value in [
            &b"7"[..],
            b"-300",
            b"99999999999",
            b"text",
            &[b'x'; 100],
            &[b'x'; 5000],
        ] {
            let bytes = encode(&Encoded::of(value));
            for len in 0..bytes.len() {
                assert_eq!(checked_size(&bytes[..len]), None, "{len} of {}", bytes.len());
            }
            let mut wrong = bytes.clone();
            *wrong.last_mut().unwrap() ^= 1;
            assert_eq!(checked_size(&wrong), None);
        }
        assert_eq!(checked_size(&[0xf5, 0, 0, 0, 0, 0, 0, 0, 0, 9]), None);
    }
}
