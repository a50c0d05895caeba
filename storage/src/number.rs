//! Numbers as text, the way Redis reads and prints them.
//!
//! Three kinds of number appear in the protocol, each with rules of its own:
//! - integers ([`parse_i64`]): one canonical spelling per value, so that a string which parses may be stored as a
//!   number and printed back byte for byte;
//! - doubles ([`parse_f64`], [`DoubleText`]): scores and other replies, read as C's `strtod` reads them and printed with
//!   the fewest digits that read back as the same value;
//! - long doubles ([`LongDouble`]): the 80-bit arithmetic behind INCRBYFLOAT and HINCRBYFLOAT.
//!
//! Every parser takes the whole text or refuses it. None allocates for texts of ordinary length, none panics.

mod binary;
mod double;
mod long_double;

pub use double::{DoubleText, parse_decimal_f64, parse_f64};
pub use long_double::{LongDouble, TEXT_BYTES_MAX};

/// The most digits an `i64` has.
const I64_DIGITS_MAX: usize = 19;

/// Reads an integer in its canonical decimal spelling, the only one Redis accepts.
///
/// An optional `-`, then digits without leading zero; `0` itself is allowed, `-0`, `+1`, ` 1` and `01` are not. Because
/// the spelling is unique, printing the result gives back `text`.
///
/// O(length of `text`), at most 20 bytes are looked at.
#[inline]
#[must_use]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    // Nineteen digits never overflow a u64, so the loop needs no check.
    let (first, rest) = digits.split_first()?;
    if digits.len() > I64_DIGITS_MAX || !first.is_ascii_digit() {
        return None;
    }
    if *first == b'0' {
        return (text.len() == 1).then_some(0);
    }
    let mut magnitude = u64::from(first - b'0');
    for byte in rest {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        magnitude = magnitude * 10 + u64::from(digit);
    }
    if negative {
        0i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// Splits off an optional sign: true for `-`.
fn split_sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    }
}

/// Whether an unsigned text is one of C's two words for infinity.
fn is_infinity(text: &[u8]) -> bool {
    text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_have_one_spelling() {
        let cases: &[(&str, Option<i64>)] = &[
            ("0", Some(0)),
            ("7", Some(7)),
            ("-7", Some(-7)),
            ("10", Some(10)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-9223372036854775809", None),
            ("9999999999999999999", None),
            ("10000000000000000000", None),
            ("18446744073709551616", None),
            ("-18446744073709551616", None),
            ("", None),
            ("-", None),
            ("--1", None),
            ("-0", None),
            ("00", None),
            ("01", None),
            ("-01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("1\0", None),
            ("1.0", None),
            ("1e3", None),
            ("0x1", None),
            ("/1", None),
            (":1", None),
            ("1:", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_i64(text.as_bytes()), *expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn printed_integers_read_back(value: i64) {
            prop_assert_eq!(parse_i64(value.to_string().as_bytes()), Some(value));
        }

        #[test]
        fn what_parses_prints_back(text in "[-+ 0-9]{0,22}") {
            let twin = text.parse::<i64>().ok().filter(|value| value.to_string() == text);
            prop_assert_eq!(parse_i64(text.as_bytes()), twin);
        }

        #[test]
        fn any_bytes_are_survived(text: Vec<u8>) {
            let _ = parse_i64(&text);
        }
    }
}
