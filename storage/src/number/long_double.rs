//! Long doubles: the arithmetic of INCRBYFLOAT and HINCRBYFLOAT.
//!
//! Redis adds with the 80-bit numbers of the x87 unit (a 64-bit significand, 15 bits of exponent) and stores the sum as
//! text, so the results people see depend on that width: 0.1 + 0.2 is `0.3`. The same arithmetic is done here in software,
//! on every machine: reading and adding round once, to nearest even, and printing is exact.

use num_bigint::BigUint;
use rustc_apfloat::ieee::X87DoubleExtended;
use rustc_apfloat::{Float, Round};

use super::binary::{self, Format, Rounded};
use super::double::has_nonzero_digit;

/// The longest text that is read as a long double, in bytes.
pub const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;

const FORMAT: Format = Format {
    precision: 64,
    exponent_min: -16_445,
    overflow: 16_384,
};

/// Digits after the point when printing.
const FRACTION_DIGITS: usize = 17;

/// A number with 64 significant bits and an exponent range of about 10^±4932.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LongDouble(X87DoubleExtended);

impl LongDouble {
    /// Reads a long double as commands accept it: `3`, `-.5`, `3.0e3`, `0x1p3`, `inf`…
    ///
    /// None when the text is no number as a whole, is NaN, is longer than [`TEXT_BYTES_MAX`], or is out of range: too
    /// large, or so small that it would become zero. Infinity may be read, but no sum may be ([`Self::checked_add`]).
    ///
    /// O(length of `text`) for what people write; a mantissa of thousands of digits costs some 100 µs.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<LongDouble> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (negative, unsigned) = super::split_sign(text);
        let magnitude = match unsigned {
            [b'0', b'x' | b'X', rest @ ..] => {
                let (mantissa, exponent) = binary::parse_hexadecimal(rest)?;
                LongDouble::in_range(mantissa, exponent)?
            }
            [b'0'..=b'9' | b'.', ..] => parse_decimal(unsigned)?,
            word if super::is_infinity(word) => LongDouble(X87DoubleExtended::INFINITY),
            _ => return None,
        };
        Some(if negative {
            LongDouble(-magnitude.0)
        } else {
            magnitude
        })
    }

    /// Whether it is neither infinite nor no number.
    #[must_use]
    pub fn is_finite(self) -> bool {
        self.0.is_finite()
    }

    /// The sum, or None when it is infinite or not a number.
    #[must_use]
    pub fn checked_add(self, other: LongDouble) -> Option<LongDouble> {
        let sum = self.0.add_r(other.0, Round::NearestTiesToEven).value;
        sum.is_finite().then_some(LongDouble(sum))
    }

    /// Appends the number as people write it: never an exponent, at most 17 digits after the point, no zeros at the
    /// end, no sign before a zero. At most 4,951 bytes.
    ///
    /// O(1) below 2^128; numbers near the upper end of the range have thousands of digits and cost some 100 µs.
    pub fn write_human(self, out: &mut Vec<u8>) {
        if self.0.is_nan() {
            out.extend_from_slice(b"nan");
            return;
        }
        let start = out.len();
        if self.0.is_negative() {
            out.push(b'-');
        }
        if self.0.is_infinite() {
            out.extend_from_slice(b"inf");
            return;
        }
        let (significand, exponent) = self.parts();
        match u32::try_from(-exponent) {
            Ok(fraction_bits) => write_fixed_point(significand, fraction_bits, out),
            Err(_) => write_integer(significand, exponent.unsigned_abs(), out),
        }
        if out[start..] == *b"-0" {
            out.remove(start);
        }
    }

    /// `significand × 2^exponent` of a finite number.
    fn parts(self) -> (u64, i32) {
        let bits = self.0.to_bits();
        let significand = bits as u64;
        let exponent_field = (bits >> 64) as i32 & 0x7fff;
        (
            significand,
            exponent_field.max(1) - 1 + FORMAT.exponent_min as i32,
        )
    }

    /// The nearest long double, unless that is infinite, or zero though the number is not.
    fn in_range(mantissa: u128, exponent: i64) -> Option<LongDouble> {
        match FORMAT.round(mantissa, exponent) {
            Rounded::Finite { significand: 0, .. } if mantissa != 0 => None,
            Rounded::Finite {
                significand,
                exponent,
            } => {
                // Unlike in the narrower formats the leading bit is stored. Without it the number is denormal, and the
                // exponent field is 0 where the smallest normal numbers have 1.
                let exponent_field = (exponent - FORMAT.exponent_min) as u128 + u128::from(significand >> 63);
                Some(LongDouble(X87DoubleExtended::from_bits(
                    exponent_field << 64 | u128::from(significand),
                )))
            }
            Rounded::Infinite => None,
        }
    }
}

impl From<i64> for LongDouble {
    /// Exact.
    fn from(value: i64) -> LongDouble {
        LongDouble(X87DoubleExtended::from_i128(i128::from(value)).value)
    }
}

impl From<f64> for LongDouble {
    /// Exact.
    fn from(value: f64) -> LongDouble {
        use rustc_apfloat::{FloatConvert, ieee::Double};
        LongDouble(
            Double::from_bits(u128::from(value.to_bits()))
                .convert(&mut false)
                .value,
        )
    }
}

/// A decimal number as written, `mantissa × 10^exponent`.
struct Decimal {
    mantissa: u64,
    exponent: i64,
    /// Whether `mantissa` holds all digits.
    complete: bool,
}

/// Digits that always fit the mantissa.
const MANTISSA_DIGITS_MAX: u32 = 19;

impl Decimal {
    /// Reads C's decimal spelling: digits with an optional point, then optionally `e` and an exponent.
    fn parse(text: &[u8]) -> Option<Decimal> {
        let end = memchr::memchr2(b'e', b'E', text).unwrap_or(text.len());
        let written_exponent = match text.get(end + 1..) {
            Some(digits) => binary::parse_exponent(digits)?,
            None => 0,
        };
        let mut decimal = Decimal {
            mantissa: 0,
            exponent: written_exponent,
            complete: true,
        };
        let mut significant_digits = 0;
        let mut seen_digit = false;
        let mut seen_point = false;
        for byte in &text[..end] {
            match byte {
                b'.' if !seen_point => seen_point = true,
                b'0'..=b'9' => {
                    seen_digit = true;
                    significant_digits += u32::from(significant_digits > 0 || *byte != b'0');
                    decimal.complete &= significant_digits <= MANTISSA_DIGITS_MAX;
                    if decimal.complete {
                        decimal.mantissa = decimal.mantissa * 10 + u64::from(byte - b'0');
                        decimal.exponent -= i64::from(seen_point);
                    }
                }
                _ => return None,
            }
        }
        seen_digit.then_some(decimal)
    }

    /// The value, for the small numbers people use: up to 19 digits and a power of ten up to 10^±18, where one
    /// multiplication or division of 128-bit integers holds all that rounding needs to know.
    fn to_long_double_quickly(&self) -> Option<LongDouble> {
        const POWER_MAX: u64 = 18;
        if !self.complete || self.exponent.unsigned_abs() > POWER_MAX || self.mantissa == 0 {
            return None;
        }
        let power = u128::from(10u64.pow(self.exponent.unsigned_abs() as u32));
        if self.exponent >= 0 {
            return LongDouble::in_range(u128::from(self.mantissa) * power, 0);
        }
        // The dividend has 128 bits and the divisor at most 60: the quotient has 68 or more, so that its last bit may
        // stand for the remainder.
        let shift = u128::from(self.mantissa).leading_zeros();
        let dividend = u128::from(self.mantissa) << shift;
        let sticky = u128::from(dividend % power != 0);
        LongDouble::in_range((dividend / power) | sticky, -i64::from(shift))
    }
}

fn parse_decimal(text: &[u8]) -> Option<LongDouble> {
    let decimal = Decimal::parse(text)?;
    if let Some(value) = decimal.to_long_double_quickly() {
        return Some(value);
    }
    let text = std::str::from_utf8(text).ok()?;
    let value = X87DoubleExtended::from_str_r(text, Round::NearestTiesToEven)
        .ok()?
        .value;
    let out_of_range = value.is_infinite() || (value.is_zero() && has_nonzero_digit(text.as_bytes()));
    (!out_of_range).then_some(LongDouble(value))
}

/// Writes `significand × 2^shift`, exactly.
fn write_integer(significand: u64, shift: u32, out: &mut Vec<u8>) {
    if shift <= 64 {
        out.extend_from_slice(
            itoa::Buffer::new()
                .format(u128::from(significand) << shift)
                .as_bytes(),
        );
        return;
    }
    let digits = (BigUint::from(significand) << shift).to_radix_be(10);
    out.extend(digits.iter().map(|digit| b'0' + digit));
}

/// Writes `significand / 2^fraction_bits`, rounded to [`FRACTION_DIGITS`] digits (ties to even), without zeros at the end.
fn write_fixed_point(significand: u64, fraction_bits: u32, out: &mut Vec<u8>) {
    const SCALE: u128 = 10u128.pow(FRACTION_DIGITS as u32);
    let mut whole = significand.checked_shr(fraction_bits).unwrap_or(0);
    let fraction = significand - whole.checked_shl(fraction_bits).unwrap_or(0);
    let mut scaled = binary::shift_right_rounding(u128::from(fraction) * SCALE, i64::from(fraction_bits));
    if scaled == SCALE {
        whole += 1;
        scaled = 0;
    }
    out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
    if scaled != 0 {
        write_fraction(scaled as u64, out);
    }
}

/// Writes a point and `scaled`, which is not 0, as digits behind it.
fn write_fraction(mut scaled: u64, out: &mut Vec<u8>) {
    let mut width = FRACTION_DIGITS;
    while scaled.is_multiple_of(10) {
        scaled /= 10;
        width -= 1;
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(scaled).as_bytes();
    out.push(b'.');
    out.resize(out.len() + width - digits.len(), b'0');
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn human(value: LongDouble) -> String {
        let mut out = Vec::new();
        value.write_human(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn sum(a: &str, b: &str) -> Option<String> {
        let sum = LongDouble::parse(a.as_bytes())?.checked_add(LongDouble::parse(b.as_bytes())?)?;
        Some(human(sum))
    }

    /// Answers of the real server to INCRBYFLOAT, pair by pair.
    #[test]
    fn sums_as_incrbyfloat() {
        let cases: &[(&str, &str, Option<&str>)] = &[
            ("0.1", "0.2", Some("0.3")),
            ("10.50", "0.1", Some("10.6")),
            ("5.0e3", "2.0e2", Some("5200")),
            ("0", "3.0e3", Some("3000")),
            ("17", "-16.9", Some("0.1")),
            ("0.1", "-0.1", Some("0")),
            ("1", "-1.00000000000000000001", Some("0")),
            ("0", "1e-18", Some("0")),
            ("0", "5e-18", Some("0")),
            ("0", "-5e-18", Some("0")),
            ("0", "-4e-18", Some("0")),
            ("0", "-6e-18", Some("-0.00000000000000001")),
            ("-0", "-0", Some("0")),
            ("0", "1e-4940", Some("0")),
            ("0", "0x1p-16445", Some("0")),
            ("0", "0x1.8p-16446", Some("0")),
            ("0", "1.", Some("1")),
            ("0", ".5", Some("0.5")),
            ("0", "+1", Some("1")),
            ("0", "0x1p3", Some("8")),
            ("0", "9223372036854775807", Some("9223372036854775807")),
            ("9223372036854775807", "1", Some("9223372036854775808")),
            ("-9223372036854775808", "-1", Some("-9223372036854775809")),
            ("18446744073709551616", "1", Some("18446744073709551616")),
            ("18446744073709551615", "1", Some("18446744073709551616")),
            ("3.0e38", "1", Some("299999999999999999997937801345797980160")),
            ("inf", "-inf", None),
            ("0", "inf", None),
            ("0", "-inf", None),
            ("0", "nan", None),
            ("1e4932", "1e4932", None),
            ("0", "1e5000", None),
            ("0", "0x1p16384", None),
            ("0", "0x1.ffffffffffffffffp16383", None),
            ("0", "1e-4960", None),
            ("0", "0x1p-16446", None),
            ("0", "", None),
            ("0", " 1", None),
            ("0", "1 ", None),
            ("0", "1\0", None),
            ("0", "0x", None),
            ("0", "1e", None),
            ("0", "1e+", None),
            ("0", "1.2.3", None),
            ("0", "+-1", None),
            ("0", ".", None),
            ("0", "e5", None),
        ];
        for (a, b, expected) in cases {
            assert_eq!(sum(a, b).as_deref(), *expected, "{a:?} + {b:?}");
        }
    }

    #[test]
    fn huge_values_print_every_digit() {
        let text = sum("0", "1e300").unwrap();
        assert_eq!(text.len(), 301);
        assert!(text.starts_with("100000000000000000000899732407"), "{text}");
        for largest in ["1.18973149535723176502e4932", "0x1.fffffffffffffffep16383"] {
            let text = sum("0", largest).unwrap();
            assert_eq!(text.len(), 4933);
            assert!(text.starts_with("118973149535723176502126385303"), "{text}");
        }
    }

    #[test]
    fn texts_have_a_length_limit() {
        let zeros = "0".repeat(TEXT_BYTES_MAX - 1);
        assert_eq!(sum("0", &format!("{zeros}1")).as_deref(), Some("1"));
        assert_eq!(sum("0", &format!("{zeros}01")), None);
        assert_eq!(
            sum("0", &format!("1{}e-5000", &zeros[..5000])).as_deref(),
            Some("1")
        );
    }

    #[test]
    fn conversions_are_exact() {
        for value in [0, 1, -1, i64::MAX, i64::MIN, 1 << 53 | 1] {
            assert_eq!(human(LongDouble::from(value)), value.to_string());
        }
        assert_eq!(human(LongDouble::from(0.1)), "0.10000000000000001");
        assert_eq!(human(LongDouble::from(-0.0)), "0");
        assert_eq!(human(LongDouble::from(-2.5)), "-2.5");
        assert_eq!(human(LongDouble::from(5e-324)), "0");
        assert_eq!(human(LongDouble::from(f64::INFINITY)), "inf");
        assert_eq!(human(LongDouble::from(f64::NEG_INFINITY)), "-inf");
        assert_eq!(human(LongDouble::from(f64::NAN)), "nan");
        assert_eq!(human(LongDouble::from(f64::MAX)), format!("{:.0}", f64::MAX));
    }

    /// The same number printed with nothing but big integers.
    fn human_slowly(significand: u64, exponent: i32) -> String {
        let ten = BigUint::from(10u8).pow(FRACTION_DIGITS as u32);
        let significand = BigUint::from(significand);
        let scaled = if exponent >= 0 {
            (significand << exponent as u32) * ten
        } else {
            let bits = exponent.unsigned_abs();
            let product = significand * ten;
            let quotient = &product >> bits;
            let twice_rest = (&product - (&quotient << bits)) << 1u32;
            let unit = BigUint::from(1u8) << bits;
            let up = twice_rest > unit || (twice_rest == unit && quotient.bit(0));
            quotient + u8::from(up)
        };
        let digits = format!("{scaled:0>18}");
        let (whole, fraction) = digits.split_at(digits.len() - FRACTION_DIGITS);
        format!("{whole}.{fraction}")
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    }

    fn decimal_text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[-+]?[0-9]{1,22}(\\.[0-9]{0,22})?",
            "[-+]?[0-9]{0,22}\\.[0-9]{1,22}",
            "[-+]?[0-9]{1,25}(\\.[0-9]{0,4})?[eE][-+]?[0-9]{1,2}",
            "[-+]?[0-9]{1,5}[eE][-+]?[0-9]{1,4}",
        ]
    }

    proptest! {
        #[test]
        fn decimals_agree_with_a_reference(text in decimal_text()) {
            let expected = text.parse::<X87DoubleExtended>().unwrap();
            let lost = expected.is_infinite() || (expected.is_zero() && has_nonzero_digit(text.as_bytes()));
            let got = LongDouble::parse(text.as_bytes()).map(|value| value.0.to_bits());
            prop_assert_eq!(got, (!lost).then(|| expected.to_bits()), "{}", text);
        }

        #[test]
        fn hexadecimals_agree_with_a_reference(head: u128, tail in "[0-9a-f]{0,9}", exponent in -16700i32..16500) {
            let text = format!("0x{head:x}.{tail}p{exponent}");
            let expected = text.parse::<X87DoubleExtended>().unwrap();
            let lost = expected.is_infinite() || (expected.is_zero() && head != 0);
            prop_assume!(head != 0);
            let got = LongDouble::parse(text.as_bytes()).map(|value| value.0.to_bits());
            prop_assert_eq!(got, (!lost).then(|| expected.to_bits()), "{}", text);
        }

        #[test]
        fn prints_exactly(significand in any::<u64>(), exponent in -140i32..200) {
            let value = LongDouble::in_range(u128::from(significand), i64::from(exponent)).unwrap();
            prop_assert_eq!(human(value), human_slowly(significand, exponent));
        }

        #[test]
        fn ties_print_even(whole in 0u64..1000, odd in 0u64..1 << 20) {
            // k/2^18 has 18 digits behind the point, the last one 5: a tie for all odd k.
            let significand = whole << 18 | (odd | 1) & 0x3ffff;
            let value = LongDouble::in_range(u128::from(significand), -18).unwrap();
            prop_assert_eq!(human(value), human_slowly(significand, -18));
        }

        #[test]
        fn any_bytes_are_survived(text in "[-+]?[0-9a-fxXpPeE.]{0,24}", bytes: Vec<u8>) {
            let _ = LongDouble::parse(text.as_bytes());
            let _ = LongDouble::parse(&bytes);
        }
    }
}
