//! Doubles: scores, and every reply that is a floating-point number.
//!
//! Reading follows C's `strtod` in the "C" locale with Redis's additions: nothing before or after the number, no NaN, no
//! number so large or so small that it would silently become infinite or zero.
//!
//! Printing follows Redis 7.2: integers up to 2^62 in full, everything else with the fewest digits that read back as the
//! same double, in exponent form where that is shorter. Redis 7.0 printed 17 digits instead: where it says
//! `0.10000000000000001`, `1.0000000000000001e-05`, `4.6116860184273879e+18` or `12345.678901234`, 7.2 says `0.1`,
//! `0.00001`, `4611686018427387904` and `1.2345678901234e+4`. For fewer than one value in a thousand the method of 7.2
//! misses the shortest text by a digit; ours never does.

use std::fmt;
use std::io::Write;

use super::binary::{self, Format, Rounded};

const FORMAT: Format = Format {
    precision: f64::MANTISSA_DIGITS,
    exponent_min: -1074,
    overflow: 1024,
};

/// Reads a double as commands accept it: `3`, `-.5`, `1e3`, `0x1.8p3`, `+inf`, `Infinity`…
///
/// None when the text is no number as a whole, is NaN, or is out of range: too large for a finite double or so
/// small that it would become zero. Denormal numbers are accepted.
///
/// O(length of `text`).
#[must_use]
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let (negative, unsigned) = super::split_sign(text);
    let magnitude = match unsigned {
        [b'0', b'x' | b'X', rest @ ..] => parse_hexadecimal(rest)?,
        [b'0'..=b'9' | b'.', ..] => parse_decimal(unsigned)?,
        word if super::is_infinity(word) => f64::INFINITY,
        _ => return None,
    };
    Some(if negative { -magnitude } else { magnitude })
}

/// Reads a double as [`parse_f64`] does, but for hexadecimal ones, which bounds of ranges and weights of SORT may not be.
#[must_use]
pub fn parse_decimal_f64(text: &[u8]) -> Option<f64> {
    let (_, unsigned) = super::split_sign(text);
    let is_hexadecimal = matches!(unsigned, [b'0', b'x' | b'X', ..]);
    parse_f64(text).filter(|_| !is_hexadecimal)
}

/// The standard library accepts the same decimal spellings as C; only what it says of the range differs.
fn parse_decimal(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let out_of_range = value.is_infinite() || (value == 0.0 && has_nonzero_digit(text));
    (!out_of_range).then_some(value)
}

fn parse_hexadecimal(text: &[u8]) -> Option<f64> {
    let (mantissa, exponent) = binary::parse_hexadecimal(text)?;
    match FORMAT.round(mantissa, exponent) {
        Rounded::Finite { significand: 0, .. } if mantissa != 0 => None,
        Rounded::Finite {
            significand,
            exponent,
        } => {
            // The leading bit of a normal number carries into the exponent field; a denormal number has none.
            let exponent_field = (exponent - FORMAT.exponent_min) as u64;
            Some(f64::from_bits(
                (exponent_field << (FORMAT.precision - 1)) + significand,
            ))
        }
        Rounded::Infinite => None,
    }
}

/// Whether a decimal number, before its exponent, has a digit other than 0.
pub(super) fn has_nonzero_digit(text: &[u8]) -> bool {
    text.iter()
        .take_while(|byte| !matches!(byte, b'e' | b'E'))
        .any(|byte| matches!(byte, b'1'..=b'9'))
}

/// The longest text of a double: a sign, 17 digits, a point and either `0.00` before or `e-308` behind them, or zeros
/// up to 24 digits.
const TEXT_CAPACITY: usize = 32;

/// The text of a double, on the stack.
///
/// ```
/// use shardis_storage::number::DoubleText;
/// assert_eq!(DoubleText::new(0.1 + 0.2).as_str(), "0.30000000000000004");
/// assert_eq!(DoubleText::new(3.0).as_bytes(), b"3");
/// ```
#[derive(Clone, Copy)]
pub struct DoubleText {
    bytes: [u8; TEXT_CAPACITY],
    len: u8,
}

impl DoubleText {
    /// Prints `value`: `3`, `0.1`, `1e+25`, `1.5e-7`, `-0`, `inf`, `-inf`, `nan`.
    #[must_use]
    pub fn new(value: f64) -> DoubleText {
        let mut text = DoubleText {
            bytes: [0; TEXT_CAPACITY],
            len: 0,
        };
        if let Some(integer) = exact_integer(value) {
            text.push(itoa::Buffer::new().format(integer).as_bytes());
        } else if value.is_nan() {
            text.push(b"nan");
        } else {
            text.push(if value.is_sign_negative() { b"-" } else { b"" });
            match value.abs() {
                0.0 => text.push(b"0"),
                f64::INFINITY => text.push(b"inf"),
                magnitude => text.push_shortest(magnitude),
            }
        }
        text
    }

    /// The text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        let start = usize::from(self.len);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }

    fn push_zeros(&mut self, count: usize) {
        self.push(&[b'0'; TEXT_CAPACITY][..count]);
    }

    /// Lays out the shortest digits of a positive finite number, in one of three ways chosen by size alone.
    fn push_shortest(&mut self, magnitude: f64) {
        let Digits {
            bytes,
            len,
            leading_exponent,
        } = Digits::shortest(magnitude);
        let digits = &bytes[..len];
        // magnitude = digits (as an integer) × 10^scale.
        let scale = leading_exponent - (len as i32 - 1);
        if scale >= 0 && leading_exponent < len as i32 + 7 {
            self.push(digits);
            self.push_zeros(scale as usize);
        } else if scale < 0 && (scale > -7 || leading_exponent.abs() < 4) {
            self.push_point_notation(digits, leading_exponent);
        } else {
            self.push_exponent_notation(digits, leading_exponent);
        }
    }

    /// `0.00123`, `1.23` or `123.4`: the point falls before or among the digits.
    fn push_point_notation(&mut self, digits: &[u8], leading_exponent: i32) {
        match usize::try_from(leading_exponent) {
            Ok(leading) => {
                let (whole, fraction) = digits.split_at(leading + 1);
                self.push(whole);
                self.push(b".");
                self.push(fraction);
            }
            Err(_) => {
                self.push(b"0.");
                self.push_zeros((-leading_exponent - 1) as usize);
                self.push(digits);
            }
        }
    }

    /// `1e+25`, `1.5e-7`: the exponent always has a sign, never a leading zero.
    fn push_exponent_notation(&mut self, digits: &[u8], leading_exponent: i32) {
        let (leading, fraction) = digits.split_at(1);
        self.push(leading);
        if !fraction.is_empty() {
            self.push(b".");
            self.push(fraction);
        }
        self.push(if leading_exponent < 0 { b"e-" } else { b"e+" });
        self.push(
            itoa::Buffer::new()
                .format(leading_exponent.unsigned_abs())
                .as_bytes(),
        );
    }
}

impl AsRef<[u8]> for DoubleText {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Display for DoubleText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for DoubleText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DoubleText({})", self.as_str())
    }
}

/// The integer that `value` is, if it is one no further than 2^62 from zero. Negative zero is none: it keeps its sign.
fn exact_integer(value: f64) -> Option<i64> {
    const LIMIT: f64 = (1i64 << 62) as f64;
    let within = value.abs() <= LIMIT && (value != 0.0 || value.is_sign_positive());
    let integer = value as i64;
    (within && integer as f64 == value).then_some(integer)
}

/// Significant decimal digits, without zeros at the end, as text; the first one counts `10^leading_exponent`.
#[derive(Debug, PartialEq)]
struct Digits {
    bytes: [u8; 17],
    len: usize,
    leading_exponent: i32,
}

impl Digits {
    /// The fewest digits that identify a positive finite number; among those, the nearest to it.
    fn shortest(magnitude: f64) -> Digits {
        Digits::few(magnitude).unwrap_or_else(|| Digits::any(magnitude))
    }

    /// The digits of a number that people wrote: of ordinary size, with no more than 15 digits.
    ///
    /// Different decimals of up to 15 digits are different doubles, so if one of them reads back as `magnitude` it is the
    /// only one. That it does is checked with one division, exact but for its rounding, which is how it would be read.
    fn few(magnitude: f64) -> Option<Digits> {
        const DIGITS: u32 = 15;
        if !(1e-5..1e15).contains(&magnitude) {
            return None;
        }
        let whole_digits = (magnitude as u64).checked_ilog10().map_or(0, |log| log + 1);
        let mut decimals = (DIGITS - whole_digits) as i32;
        let power = 10u64.pow(decimals as u32) as f64;
        let mut units = (magnitude * power + 0.5) as u64;
        if units as f64 / power != magnitude {
            return None;
        }
        while units.is_multiple_of(10) {
            units /= 10;
            decimals -= 1;
        }
        let mut buffer = itoa::Buffer::new();
        let text = buffer.format(units).as_bytes();
        let mut bytes = [0; 17];
        bytes[..text.len()].copy_from_slice(text);
        Some(Digits {
            bytes,
            len: text.len(),
            leading_exponent: text.len() as i32 - 1 - decimals,
        })
    }

    /// The digits of any number, by the standard library.
    fn any(magnitude: f64) -> Digits {
        let mut text = [0; TEXT_CAPACITY];
        let mut rest = &mut text[..];
        // The standard library's shortest form, at most `d.(16 digits)e-308`, fits.
        let _ = write!(rest, "{magnitude:e}");
        let unused = rest.len();
        let text = &text[..TEXT_CAPACITY - unused];

        let mut digits = Digits {
            bytes: [0; 17],
            len: 0,
            leading_exponent: 0,
        };
        let end = memchr::memchr(b'e', text).unwrap_or(text.len());
        for digit in text[..end].iter().filter(|byte| **byte != b'.') {
            digits.bytes[digits.len] = *digit;
            digits.len += 1;
        }
        let exponent = text.get(end + 1..).and_then(binary::parse_exponent);
        digits.leading_exponent = exponent.unwrap_or(0) as i32;
        digits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Answers of the real server, value by value.
    #[test]
    fn reads_what_scores_may_be() {
        let cases: &[(&str, Option<f64>)] = &[
            ("1", Some(1.0)),
            ("+1", Some(1.0)),
            ("-0", Some(-0.0)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("00012", Some(12.0)),
            ("1e05", Some(100_000.0)),
            ("1E-2", Some(0.01)),
            ("inf", Some(f64::INFINITY)),
            ("+inf", Some(f64::INFINITY)),
            ("iNf", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("0x1p3", Some(8.0)),
            ("0x.8", Some(0.5)),
            ("0X1P-2", Some(0.25)),
            ("-0x10", Some(-16.0)),
            ("0x1e5", Some(485.0)),
            ("0x0p99999999999999999999", Some(0.0)),
            ("0x1.fffffffffffff7p1023", Some(f64::MAX)),
            ("0x1p-1074", Some(5e-324)),
            ("0x1.8p-1075", Some(5e-324)),
            ("0x1p-1022", Some(f64::MIN_POSITIVE)),
            ("0x0.fffffffffffffp-1022", Some(2.225_073_858_507_201e-308)),
            ("1e-310", Some(1e-310)),
            ("4.9e-324", Some(5e-324)),
            ("2.5e-324", Some(5e-324)),
            ("1.7976931348623158e308", Some(f64::MAX)),
            ("0e-5000", Some(0.0)),
            ("0e99999999999999999999", Some(0.0)),
            ("", None),
            (" 1", None),
            ("\t1", None),
            ("1 ", None),
            ("1\0", None),
            ("\x001", None),
            ("+", None),
            ("-", None),
            ("+-1", None),
            ("+ 1", None),
            (".", None),
            ("1_0", None),
            ("1,5", None),
            ("1d5", None),
            ("1e", None),
            ("1e+", None),
            ("e5", None),
            ("nan", None),
            ("-nan", None),
            ("nan(1)", None),
            ("infin", None),
            ("infinityx", None),
            ("0x", None),
            ("0x.", None),
            ("0xg", None),
            ("0x.p1", None),
            ("0x1.8p", None),
            ("1e400", None),
            ("-1e400", None),
            ("1e99999999999999999999", None),
            ("1e-400", None),
            ("2.4e-324", None),
            ("1e-99999999999999999999", None),
            ("1.7976931348623159e308", None),
            ("0x1p1024", None),
            ("0x1.fffffffffffff8p1023", None),
            ("0x1p-1075", None),
        ];
        for (text, expected) in cases {
            let got = parse_f64(text.as_bytes());
            assert_eq!(
                got.map(f64::to_bits),
                expected.map(f64::to_bits),
                "{text:?}: {got:?}"
            );
        }
    }

    #[test]
    fn long_texts_are_read_exactly() {
        assert_eq!(
            parse_f64(format!("1{}e-6000", "0".repeat(6000)).as_bytes()),
            Some(1.0)
        );
        assert_eq!(parse_f64("1".repeat(400).as_bytes()), None);
        assert_eq!(parse_f64(format!("0.{}1", "0".repeat(400)).as_bytes()), None);
        assert_eq!(
            parse_f64(format!("0x1{}p-24000", "0".repeat(6000)).as_bytes()),
            Some(1.0)
        );
        assert_eq!(
            parse_f64(format!("0x.{}1p24004", "0".repeat(6000)).as_bytes()),
            Some(1.0)
        );
        // Half an ulp above 1, and a last digit that breaks the tie.
        assert_eq!(parse_f64(b"0x1.00000000000008"), Some(1.0));
        let above = format!("0x1.00000000000008{}1", "0".repeat(50));
        assert_eq!(parse_f64(above.as_bytes()), Some(1.0 + f64::EPSILON));
    }

    #[test]
    fn prints_as_redis_7_2() {
        let cases: &[(f64, &str)] = &[
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (-3.0, "-3"),
            (0.1, "0.1"),
            (-0.25, "-0.25"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1.5, "1.5"),
            (123.456, "123.456"),
            (1e15, "1000000000000000"),
            (1e17, "100000000000000000"),
            (123_456_789_012_345_680.0, "123456789012345680"),
            (4_611_686_018_427_387_904.0, "4611686018427387904"),
            (4_611_686_018_427_388_928.0, "4611686018427389000"),
            (9_223_372_036_854_775_807.0, "9223372036854776000"),
            (-9_223_372_036_854_775_808.0, "-9223372036854776000"),
            (1e19, "1e+19"),
            (-2.132_179_436_531_733_6e23, "-213217943653173360000000"),
            (-f64::MIN_POSITIVE, "-2.2250738585072014e-308"),
            (1.2e21, "1.2e+21"),
            (1e25, "1e+25"),
            (f64::MAX, "1.7976931348623157e+308"),
            (0.001, "0.001"),
            (0.000_01, "0.00001"),
            (0.000_001, "0.000001"),
            (0.000_000_1, "1e-7"),
            (1.5e-6, "1.5e-6"),
            (0.001_234_567_89, "0.00123456789"),
            (0.000_123_456_789, "1.23456789e-4"),
            (12_345.678_9, "12345.6789"),
            (12_345.678_901_234, "1.2345678901234e+4"),
            (1_234.567_890_123_4, "1234.5678901234"),
            (1e-300, "1e-300"),
            (5e-324, "5e-324"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (-f64::NAN, "nan"),
        ];
        for (value, expected) in cases {
            assert_eq!(DoubleText::new(*value).as_str(), *expected);
        }
    }

    /// Any bit pattern that is a number, so that all magnitudes are met equally often.
    fn any_number() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            (any::<i32>(), 0i32..12).prop_map(|(units, digits)| f64::from(units) / 10f64.powi(digits)),
            any::<i64>().prop_map(|integer| integer as f64),
        ]
        .prop_filter("a number", |value| !value.is_nan())
    }

    proptest! {
        #[test]
        fn printed_doubles_read_back(value in any_number()) {
            let text = DoubleText::new(value);
            prop_assert_eq!(parse_f64(text.as_bytes()).map(f64::to_bits), Some(value.to_bits()), "{}", text);
        }

        #[test]
        fn the_quick_way_finds_the_same_digits(units in 1u64..10_000_000_000_000_000, scale in 0u32..24, magnitude in 1e-6..1e16) {
            let decimal: f64 = format!("{units}e-{scale}").parse().unwrap();
            for value in [decimal, magnitude] {
                prop_assert_eq!(Digits::shortest(value), Digits::any(value), "{}", value);
            }
            if units < 1_000_000_000_000_000 && (1e-5..1e15).contains(&decimal) && scale <= 15 {
                prop_assert!(Digits::few(decimal).is_some(), "{}", decimal);
            }
        }

        #[test]
        fn hexadecimal_agrees_with_a_reference(significand: u64, exponent in -1200i32..1100, negative: bool) {
            use rustc_apfloat::{Float, ieee::Double};
            let text = format!("{}0x{significand:x}p{exponent}", if negative { "-" } else { "" });
            let reference = text.parse::<Double>().unwrap();
            let lost = reference.is_infinite() || (reference.is_zero() && significand != 0);
            let expected = (!lost).then_some(reference.to_bits() as u64);
            prop_assert_eq!(parse_f64(text.as_bytes()).map(f64::to_bits), expected, "{}", text);
        }

        #[test]
        fn number_like_texts_are_survived(text in "[-+]?[0-9a-fxXpPeE.]{0,24}|[infaty]{1,8}", bytes: Vec<u8>) {
            let got = parse_f64(text.as_bytes());
            let _ = parse_f64(&bytes);
            if !text.contains(['x', 'X']) {
                let twin = text.parse::<f64>().ok().filter(|value| !value.is_nan());
                let lost = twin.is_some_and(|value| value == 0.0 && has_nonzero_digit(text.as_bytes()))
                    || (twin.is_some_and(f64::is_infinite) && !text.contains(['i', 'n']));
                prop_assert_eq!(got, if lost { None } else { twin });
            }
        }
    }
}
