//! [`StreamId`]: the name of an entry of a stream, its time and its place within that millisecond.

use std::fmt;

/// Room for the text of any id: two numbers of 20 digits and the dash between them.
pub const ID_TEXT_MAX: usize = 41;

/// The longest text that is read as an id.
const ID_INPUT_MAX: usize = 127;

/// The id of an entry. Ids are ordered by time first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Unix time in milliseconds, or whatever a client chose instead.
    pub ms: u64,
    /// Distinguishes entries of one millisecond.
    pub seq: u64,
}

/// The part of an id behind its dash, as a client wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    /// A number.
    Given(u64),
    /// There is no dash.
    Missing,
    /// A star: the next free number.
    Next,
}

impl StreamId {
    /// Below every entry: no entry has it.
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    /// The last possible one.
    pub const MAX: Self = Self {
        ms: u64::MAX,
        seq: u64::MAX,
    };

    /// An id of its parts.
    #[must_use]
    pub const fn new(ms: u64, seq: u64) -> Self {
        Self { ms, seq }
    }

    /// The id that follows, if this is not the last one.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => Some(Self::new(self.ms.checked_add(1)?, 0)),
        }
    }

    /// The id before this one, if this is not the first.
    #[must_use]
    pub fn prev(self) -> Option<Self> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => Some(Self::new(self.ms.checked_sub(1)?, u64::MAX)),
        }
    }

    /// Reads an id whose sequence may be missing; `missing` is then its sequence. `None` when it is none.
    #[must_use]
    pub fn parse(text: &[u8], missing: u64) -> Option<Self> {
        let (ms, seq) = Self::parse_parts(text)?;
        match seq {
            Sequence::Given(seq) => Some(Self { ms, seq }),
            Sequence::Missing => Some(Self { ms, seq: missing }),
            Sequence::Next => None,
        }
    }

    /// Reads the two parts of an id. `None` when it is none.
    #[must_use]
    pub fn parse_parts(text: &[u8]) -> Option<(u64, Sequence)> {
        if text.len() > ID_INPUT_MAX {
            return None;
        }
        let Some(dash) = text.iter().position(|&byte| byte == b'-') else {
            return Some((unsigned(text)?, Sequence::Missing));
        };
        let (ms, seq) = (unsigned(&text[..dash])?, &text[dash + 1..]);
        if seq == b"*" {
            return Some((ms, Sequence::Next));
        }
        Some((ms, Sequence::Given(unsigned(seq)?)))
    }

    /// Writes the id as text to the front of `scratch` and returns what was written.
    #[inline]
    pub fn format(self, scratch: &mut [u8; ID_TEXT_MAX]) -> &[u8] {
        let (mut ms, mut seq) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (ms, seq) = (ms.format(self.ms).as_bytes(), seq.format(self.seq).as_bytes());
        let len = ms.len() + 1 + seq.len();
        scratch[..ms.len()].copy_from_slice(ms);
        scratch[ms.len()] = b'-';
        scratch[ms.len() + 1..len].copy_from_slice(seq);
        &scratch[..len]
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// Reads an unsigned number as Redis does here: blanks, a plus sign and zeros may precede the digits.
fn unsigned(text: &[u8]) -> Option<u64> {
    let digits = text.trim_ascii_start();
    let digits = digits.strip_prefix(b"+").unwrap_or(digits);
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_read_as_redis_reads_them() {
        let id = |ms, seq| Some(StreamId::new(ms, seq));
        for (text, expected) in [
            ("5-3", id(5, 3)),
            ("5", id(5, 9)),
            ("005-+03", id(5, 3)),
            ("18446744073709551615-18446744073709551615", Some(StreamId::MAX)),
            ("18446744073709551616-0", None),
            ("5-", None),
            ("-5", None),
            ("", None),
            ("-", None),
            ("5-*", None),
            ("5-3-1", None),
            ("a-1", None),
            ("1-a", None),
        ] {
            assert_eq!(StreamId::parse(text.as_bytes(), 9), expected, "{text}");
        }
        assert_eq!(StreamId::parse_parts(b"7-*"), Some((7, Sequence::Next)));
        assert_eq!(StreamId::parse_parts(b"7"), Some((7, Sequence::Missing)));
        assert_eq!(StreamId::parse(&[b'0'; 128], 0), None);
        assert_eq!(StreamId::parse(&[b'0'; 127], 0), Some(StreamId::MIN));
    }

    #[test]
    fn neighbours_carry_over() {
        assert_eq!(StreamId::new(3, u64::MAX).next(), Some(StreamId::new(4, 0)));
        assert_eq!(StreamId::new(4, 0).prev(), Some(StreamId::new(3, u64::MAX)));
        assert_eq!((StreamId::MAX.next(), StreamId::MIN.prev()), (None, None));
    }

    proptest! {
        #[test]
        fn texts_lead_back(ms: u64, seq: u64) {
            let id = StreamId::new(ms, seq);
            let mut scratch = [0; ID_TEXT_MAX];
            let text = id.format(&mut scratch);
            let shown = id.to_string();
            prop_assert_eq!(text, shown.as_bytes());
            prop_assert_eq!(StreamId::parse(text, 1), Some(id));
            prop_assert_eq!(id.next().and_then(StreamId::prev), Some(id).filter(|id| *id != StreamId::MAX));
        }
    }
}
