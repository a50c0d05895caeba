//! Typed arguments: integers, floats, expiry options, keyword options.

use shardis_protocol::Arguments;
use shardis_storage::number;

use crate::error::ReplyError;

/// Reads a 64-bit integer as Redis does.
///
/// # Errors
/// [`ReplyError::NotInteger`].
#[inline]
pub(crate) fn int(arg: &[u8]) -> Result<i64, ReplyError> {
    number::parse_i64(arg).ok_or(ReplyError::NotInteger)
}

/// Reads a timeout in seconds, with or without a fraction. Returns the Unix time in milliseconds at which it ends;
/// `None`, for 0, means never.
///
/// # Errors
/// The errors of Redis for a text that is no number, a negative number, and a time beyond the range of a clock.
pub(crate) fn deadline(seconds: &[u8], now_ms: i64) -> Result<Option<i64>, ReplyError> {
    const NOT_FLOAT: ReplyError = ReplyError::Fixed("ERR timeout is not a float or out of range");
    const OUT_OF_RANGE: ReplyError = ReplyError::Fixed("ERR timeout is out of range");
    let Some(seconds) = number::parse_f64(seconds) else {
        // A text that parses as a long double but not as a double is a number out of range.
        let error = number::LongDouble::parse(seconds).map_or(NOT_FLOAT, |_| OUT_OF_RANGE);
        return Err(error);
    };
    let milliseconds = (seconds * 1000.0).ceil();
    if milliseconds >= i64::MAX as f64 {
        return Err(OUT_OF_RANGE);
    }
    if milliseconds < 0.0 {
        return Err(ReplyError::Fixed("ERR timeout is negative"));
    }
    if milliseconds == 0.0 {
        return Ok(None);
    }
    now_ms
        .checked_add(milliseconds as i64)
        .map(Some)
        .ok_or(OUT_OF_RANGE)
}

/// Reads a timeout in whole milliseconds. Returns the Unix time in milliseconds at which it ends; `None`, for 0,
/// means never.
///
/// # Errors
/// The errors of Redis for a text that is no number, a negative number, and a time beyond the range of a clock.
pub(crate) fn timeout_ms(arg: &[u8], now_ms: i64) -> Result<Option<i64>, ReplyError> {
    let timeout = int(arg).map_err(|_| ReplyError::Fixed("ERR timeout is not an integer or out of range"))?;
    match timeout {
        ..0 => Err(ReplyError::Fixed("ERR timeout is negative")),
        0 => Ok(None),
        1.. => now_ms
            .checked_add(timeout)
            .map(Some)
            .ok_or(ReplyError::Fixed("ERR timeout is out of range")),
    }
}

/// Reads an integer within bounds.
///
/// # Errors
/// [`ReplyError::NotInteger`], or [`ReplyError::OutOfBounds`] outside the bounds.
pub(crate) fn int_within(arg: &[u8], min: i64, max: i64) -> Result<i64, ReplyError> {
    let value = int(arg)?;
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(ReplyError::OutOfBounds { min, max })
    }
}

/// Reads a count of at least `min`; anything else is `error`.
pub(crate) fn count_from(arg: &[u8], min: usize, error: ReplyError) -> Result<usize, ReplyError> {
    let count = number::parse_i64(arg).and_then(|count| usize::try_from(count).ok());
    count.filter(|count| *count >= min).ok_or(error)
}

/// Reads a 32-bit integer.
///
/// # Errors
/// [`ReplyError::NotInteger`], or [`ReplyError::OutOfBounds`] when it needs more bits.
pub(crate) fn int32(arg: &[u8]) -> Result<i32, ReplyError> {
    let value = int_within(arg, i64::from(i32::MIN), i64::from(i32::MAX))?;
    Ok(value as i32)
}

/// The number of a database, from an index that a client sent.
///
/// # Errors
/// [`ReplyError::DatabaseOutOfRange`] when there is no such database.
pub(crate) fn database_at(index: i32, databases: usize) -> Result<u16, ReplyError> {
    let known = usize::try_from(index).is_ok_and(|index| index < databases);
    u16::try_from(index)
        .ok()
        .filter(|_| known)
        .ok_or(ReplyError::DatabaseOutOfRange)
}

/// Reads the index of a database.
///
/// # Errors
/// The errors of [`int32`] and [`database_at`].
pub(crate) fn database(arg: &[u8], databases: usize) -> Result<u16, ReplyError> {
    database_at(int32(arg)?, databases)
}

/// Reads a SCAN cursor over all shards. Returns the shard that the walk is in, and the cursor within that shard's
/// database.
///
/// A cursor over all shards is the inner cursor times the number of shards, plus the shard: with one shard, the inner
/// cursor alone.
///
/// # Errors
/// [`ReplyError::InvalidCursor`].
pub(crate) fn decode_cursor(arg: &[u8], shards: usize) -> Result<(usize, u64), ReplyError> {
    let cursor = cursor(arg).ok_or(ReplyError::InvalidCursor)?;
    let shards = shards as u64;
    Ok(((cursor % shards) as usize, cursor / shards))
}

/// The cursor that continues the walk after `inner` of a shard. An inner cursor of 0 means that the shard is done:
/// the walk continues with the next shard, and ends with 0 after the last one.
pub(crate) fn encode_cursor(shard: usize, inner: u64, shards: usize) -> u64 {
    match inner {
        0 if shard + 1 >= shards => 0,
        0 => shard as u64 + 1,
        // An inner cursor has at most 46 bits, so nothing wraps.
        inner => inner.wrapping_mul(shards as u64).wrapping_add(shard as u64),
    }
}

/// Reads a cursor as Redis 7.4 and later do: a plain integer must not be negative; any other text is read as
/// `strtoull` reads it, with leading blanks and a sign, wrapping around.
pub(crate) fn cursor(text: &[u8]) -> Option<u64> {
    if let Some(value) = number::parse_i64(text) {
        return u64::try_from(value).ok();
    }
    let blanks = text
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r'))
        .count();
    let (negative, digits) = match &text[blanks..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let magnitude = digits.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            None
        } else {
            value.checked_mul(10)?.checked_add(u64::from(digit))
        }
    })?;
    Some(if negative {
        magnitude.wrapping_neg()
    } else {
        magnitude
    })
}

/// The error for a subcommand whose options contradict each other.
pub(crate) fn bad_subcommand(args: Arguments<'_>) -> ReplyError {
    let show = |index| String::from_utf8_lossy(args.get(index).unwrap_or_default()).into_owned();
    ReplyError::Text(format!(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try {} HELP.",
        show(1),
        show(0).to_ascii_uppercase()
    ))
}

/// A walk over the optional words at the end of a request.
#[derive(Clone, Debug)]
pub(crate) struct Options<'a> {
    args: Arguments<'a>,
    next: usize,
}

impl<'a> Options<'a> {
    /// The options from argument `from` on.
    pub(crate) fn new(args: Arguments<'a>, from: usize) -> Self {
        Self { args, next: from }
    }

    /// The next word, if there is one.
    pub(crate) fn word(&mut self) -> Option<&'a [u8]> {
        let word = self.args.get(self.next)?;
        self.next += 1;
        Some(word)
    }

    /// The argument that must follow the option just read.
    ///
    /// # Errors
    /// [`ReplyError::Syntax`] when the request ends here.
    pub(crate) fn value(&mut self) -> Result<&'a [u8], ReplyError> {
        self.word().ok_or(ReplyError::Syntax)
    }

    /// The integer that must follow the option just read.
    ///
    /// # Errors
    /// [`ReplyError::Syntax`] when the request ends here, [`ReplyError::NotInteger`].
    pub(crate) fn int(&mut self) -> Result<i64, ReplyError> {
        int(self.value()?)
    }

    /// The limit that must follow the option just read, an integer; 0 means unlimited.
    ///
    /// # Errors
    /// [`ReplyError::Syntax`] when the request ends here, [`ReplyError::NegativeLimit`] also for a text that is no
    /// number.
    pub(crate) fn limit(&mut self) -> Result<usize, ReplyError> {
        let limit = int(self.value()?)
            .ok()
            .and_then(|limit| usize::try_from(limit).ok());
        match limit.ok_or(ReplyError::NegativeLimit)? {
            0 => Ok(usize::MAX),
            limit => Ok(limit),
        }
    }

    /// Index of the argument that is read next.
    pub(crate) fn position(&self) -> usize {
        self.next
    }
}

/// Whether an argument is this keyword, ignoring case. `keyword` is in capitals.
#[inline]
pub(crate) fn is(arg: &[u8], keyword: &str) -> bool {
    arg.eq_ignore_ascii_case(keyword.as_bytes())
}

/// The four forms of a key's expiry in options: `EX`, `PX`, `EXAT`, `PXAT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiration {
    /// The time is in seconds; in milliseconds otherwise.
    pub(crate) seconds: bool,
    /// The time is a Unix time; a distance from now otherwise.
    pub(crate) absolute: bool,
}

impl Expiration {
    /// Seconds from now.
    pub(crate) const EX: Self = Self {
        seconds: true,
        absolute: false,
    };
    /// Milliseconds from now.
    pub(crate) const PX: Self = Self {
        seconds: false,
        absolute: false,
    };
    /// Unix time in seconds.
    pub(crate) const EXAT: Self = Self {
        seconds: true,
        absolute: true,
    };
    /// Unix time in milliseconds.
    pub(crate) const PXAT: Self = Self {
        seconds: false,
        absolute: true,
    };

    /// The form that an option names.
    pub(crate) fn from_option(word: &[u8]) -> Option<Self> {
        [
            ("EX", Self::EX),
            ("PX", Self::PX),
            ("EXAT", Self::EXAT),
            ("PXAT", Self::PXAT),
        ]
        .into_iter()
        .find(|(name, _)| is(word, name))
        .map(|(_, way)| way)
    }

    /// The Unix time in milliseconds that `value` means, which may be negative; `None` when it overflows 64 bits.
    pub(crate) fn resolve(self, value: i64, now_ms: i64) -> Option<i64> {
        let ms = if self.seconds {
            value.checked_mul(1000)?
        } else {
            value
        };
        if self.absolute {
            Some(ms)
        } else {
            ms.checked_add(now_ms)
        }
    }

    /// The Unix time in milliseconds that a positive argument means, for commands that store a value with it (SET,
    /// GETEX…).
    ///
    /// # Errors
    /// [`ReplyError::NotInteger`], or [`ReplyError::InvalidExpire`] for `command` when the argument is not positive
    /// or too large.
    pub(crate) fn at(self, arg: &[u8], now_ms: i64, command: &'static str) -> Result<i64, ReplyError> {
        let value = int(arg)?;
        if value <= 0 {
            return Err(ReplyError::InvalidExpire(command));
        }
        self.resolve(value, now_ms)
            .ok_or(ReplyError::InvalidExpire(command))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expiry_is_resolved_without_overflow() {
        assert_eq!(Expiration::EX.resolve(2, 10), Some(2010));
        assert_eq!(Expiration::PXAT.resolve(2, 10), Some(2));
        assert_eq!(Expiration::EX.resolve(i64::MAX / 1000 + 1, 0), None);
        assert_eq!(Expiration::PX.resolve(i64::MAX, 1), None);
        assert_eq!(
            Expiration::PX.at(b"0", 1, "set"),
            Err(ReplyError::InvalidExpire("set"))
        );
    }

    #[test]
    fn databases_are_checked() {
        assert_eq!(database(b"15", 16), Ok(15));
        assert_eq!(database(b"16", 16), Err(ReplyError::DatabaseOutOfRange));
        assert_eq!(database(b"-1", 16), Err(ReplyError::DatabaseOutOfRange));
        assert_eq!(database(b"65536", 100_000), Err(ReplyError::DatabaseOutOfRange));
        assert_eq!(database(b"x", 16), Err(ReplyError::NotInteger));
        let bounds = ReplyError::OutOfBounds {
            min: i64::from(i32::MIN),
            max: i64::from(i32::MAX),
        };
        assert_eq!(database(b"2147483648", 16), Err(bounds));
    }

    #[test]
    fn cursors_are_read_as_redis_reads_them() {
        for (text, cursor) in [
            ("0", Some(0)),
            ("", None),
            ("+7", Some(7)),
            ("007", Some(7)),
            ("-1", None),
            ("-01", Some(u64::MAX)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            (" 0", Some(0)),
            ("\t1", Some(1)),
            ("0 ", None),
            ("-", None),
            ("x", None),
        ] {
            assert_eq!(super::cursor(text.as_bytes()), cursor, "{text:?}");
        }
    }

    #[test]
    fn a_cursor_walks_one_shard_after_the_other() {
        assert_eq!(encode_cursor(0, 0, 1), 0);
        assert_eq!(encode_cursor(0, 5, 1), 5);
        assert_eq!(
            (
                encode_cursor(0, 0, 3),
                encode_cursor(1, 0, 3),
                encode_cursor(2, 0, 3)
            ),
            (1, 2, 0)
        );
    }

    proptest! {
        #[test]
        fn a_cursor_leads_back_to_its_place(shards in 1_usize..200, shard in any::<usize>(), inner in 1..1_u64 << 46) {
            let shard = shard % shards;
            let text = encode_cursor(shard, inner, shards).to_string();
            prop_assert_eq!(decode_cursor(text.as_bytes(), shards), Ok((shard, inner)));
        }

        #[test]
        fn any_cursor_names_a_shard_that_exists(shards in 1_usize..200, text in "[-+]?[0-9]{0,21}") {
            if let Ok((shard, _)) = decode_cursor(text.as_bytes(), shards) {
                prop_assert!(shard < shards);
            }
        }
    }
}
