//! Binary floating-point numbers of any precision up to 64 bits: rounding, and C's hexadecimal spelling.
//!
//! Both widths of [`super`] are made here from `mantissa × 2^exponent`, so there is one rounding routine, and it rounds
//! once: to nearest, ties to even, denormal numbers included.

/// Bounds of a binary format. A finite number is `significand × 2^exponent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// Bits of the significand, the leading one included; at most 64.
    pub(super) precision: u32,
    /// Exponent of the last bit of the smallest (denormal) number.
    pub(super) exponent_min: i64,
    /// Numbers from 2^this on are infinite.
    pub(super) overflow: i64,
}

/// A number after rounding to a [`Format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounded {
    /// `significand × 2^exponent`. Normal numbers have all `precision` bits; when fewer are used, `exponent` is
    /// `exponent_min`. Zero is the significand 0.
    Finite { significand: u64, exponent: i64 },
    /// Too large for the format.
    Infinite,
}

impl Format {
    /// Rounds `mantissa × 2^exponent` to this format.
    ///
    /// A mantissa that stands for more bits than 128 may end in a sticky one (its last bit is set when any bit dropped
    /// below it was), as long as it has at least two bits more than the precision.
    pub(super) fn round(self, mantissa: u128, exponent: i64) -> Rounded {
        if mantissa == 0 {
            return Rounded::Finite {
                significand: 0,
                exponent: self.exponent_min,
            };
        }
        let bits = i64::from(u128::BITS - mantissa.leading_zeros());
        let mut target = (exponent + bits - i64::from(self.precision)).max(self.exponent_min);
        let mut significand = match target - exponent {
            shift @ ..=0 => mantissa << -shift,
            shift => shift_right_rounding(mantissa, shift),
        };
        if significand >> self.precision != 0 {
            // Rounding carried into one more bit; the bits below it are zeros.
            significand >>= 1;
            target += 1;
        }
        let bits = i64::from(u128::BITS - significand.leading_zeros());
        match u64::try_from(significand) {
            Ok(significand) if target + bits <= self.overflow => Rounded::Finite {
                significand,
                exponent: target,
            },
            _ => Rounded::Infinite,
        }
    }
}

/// `mantissa / 2^shift` to the nearest integer, ties to even; `shift` is not negative.
pub(super) fn shift_right_rounding(mantissa: u128, shift: i64) -> u128 {
    let shift = match u32::try_from(shift) {
        Ok(0) => return mantissa,
        Ok(shift @ ..=u128::BITS) => shift,
        // Less than a half for every mantissa.
        _ => return 0,
    };
    let quotient = mantissa.checked_shr(shift).unwrap_or(0);
    let half = 1u128 << (shift - 1);
    let rest = mantissa & (half | (half - 1));
    let up = rest > half || (rest == half && quotient & 1 == 1);
    quotient + u128::from(up)
}

/// Reads what follows `0x` in a hexadecimal floating-point number: digits with an optional point, then optionally `p`
/// and a decimal exponent. Gives a mantissa and an exponent for [`Format::round`].
pub(super) fn parse_hexadecimal(text: &[u8]) -> Option<(u128, i64)> {
    let end = memchr::memchr2(b'p', b'P', text).unwrap_or(text.len());
    let (mantissa, point_exponent) = parse_hexadecimal_mantissa(&text[..end])?;
    let written_exponent = match text.get(end + 1..) {
        Some(digits) => parse_exponent(digits)?,
        None => 0,
    };
    Some((mantissa, point_exponent + written_exponent))
}

fn parse_hexadecimal_mantissa(text: &[u8]) -> Option<(u128, i64)> {
    let mut mantissa = 0u128;
    let mut exponent = 0i64;
    let mut digits = 0usize;
    let mut seen_point = false;
    for byte in text {
        if *byte == b'.' && !seen_point {
            seen_point = true;
            continue;
        }
        let digit = char::from(*byte).to_digit(16)?;
        digits += 1;
        if mantissa >> 124 == 0 {
            mantissa = mantissa << 4 | u128::from(digit);
        } else {
            // Full: what follows only matters by being there.
            mantissa |= u128::from(digit != 0);
            exponent += 4;
        }
        exponent -= if seen_point { 4 } else { 0 };
    }
    (digits > 0).then_some((mantissa, exponent))
}

/// Far beyond any exponent that makes a difference, far below what overflows when the length of a text is added.
const EXPONENT_CAP: i64 = 1 << 48;

/// Reads a decimal exponent with an optional sign, capping what is enormous.
pub(super) fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = super::split_sign(text);
    if digits.is_empty() {
        return None;
    }
    let mut exponent = 0i64;
    for byte in digits {
        let digit = char::from(*byte).to_digit(10)?;
        exponent = (exponent * 10 + i64::from(digit)).min(EXPONENT_CAP);
    }
    Some(if negative { -exponent } else { exponent })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TINY: Format = Format {
        precision: 3,
        exponent_min: -4,
        overflow: 5,
    };

    fn finite(significand: u64, exponent: i64) -> Rounded {
        Rounded::Finite {
            significand,
            exponent,
        }
    }

    #[test]
    fn rounds_to_nearest_even_once() {
        let cases = [
            (0, 1 << 40, finite(0, -4)),
            (1, 0, finite(4, -2)),
            (7, 0, finite(7, 0)),
            (9, 0, finite(4, 1)),       // 4.5 → 4
            (11, 0, finite(6, 1)),      // 5.5 → 6
            (15, 0, finite(4, 2)),      // 7.5 → 8, one bit more
            (31, 0, Rounded::Infinite), // 31 → 32 = 2^5
            (7, 2, finite(7, 2)),
            (1, 5, Rounded::Infinite),
            (1, -4, finite(1, -4)),
            (1, -5, finite(0, -4)), // a half of the smallest: to even
            (3, -6, finite(1, -4)), // three quarters of it
            (3, -5, finite(2, -4)), // one and a half
            (1, i64::MIN / 4, finite(0, -4)),
            (1, i64::MAX / 4, Rounded::Infinite),
            (u128::MAX, -200, finite(0, -4)),
            (u128::MAX, -132, finite(1, -4)), // almost the smallest
            (u128::MAX, -133, finite(0, -4)), // almost, but not quite, half of the smallest
            (1 << 127, -132, finite(0, -4)),
        ];
        for (mantissa, exponent, expected) in cases {
            assert_eq!(
                TINY.round(mantissa, exponent),
                expected,
                "{mantissa} x 2^{exponent}"
            );
        }
    }

    #[test]
    fn hexadecimal_spellings() {
        let cases: &[(&str, Option<(u128, i64)>)] = &[
            ("1", Some((1, 0))),
            ("1p3", Some((1, 3))),
            ("1P-2", Some((1, -2))),
            (".8", Some((8, -4))),
            ("a.bC", Some((0xabc, -8))),
            ("1.", Some((1, 0))),
            ("0p99999999999999999999", Some((0, EXPONENT_CAP))),
            ("1e5", Some((0x1e5, 0))),
            ("", None),
            (".", None),
            ("p1", None),
            ("1p", None),
            ("1p+", None),
            ("1pp1", None),
            ("1.2.3", None),
            ("g", None),
            ("-1", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_hexadecimal(text.as_bytes()), *expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn rounding_to_double_agrees_with_the_compiler(mantissa: u64, exponent in -1200i64..1100) {
            let double = Format { precision: 53, exponent_min: -1074, overflow: 1024 };
            // The product is exact until its last step as long as the scale is split in two exact halves that only
            // shrink at the end; for a result in the normal range there is one rounding, that of the conversion.
            let scaled = mantissa as f64;
            let bits = i64::from(64 - mantissa.leading_zeros());
            prop_assume!(mantissa != 0 && exponent + bits > -1021 && exponent + bits < 1023);
            let expected = scaled * 2f64.powi((exponent / 2) as i32) * 2f64.powi((exponent - exponent / 2) as i32);
            let Rounded::Finite { significand, exponent } = double.round(u128::from(mantissa), exponent) else {
                return Err(TestCaseError::fail("finite"));
            };
            let value = significand as f64 * 2f64.powi((exponent / 2) as i32) * 2f64.powi((exponent - exponent / 2) as i32);
            prop_assert_eq!(value, expected);
        }

        #[test]
        fn sticky_digits_break_ties(head in 1u128.., tail in "[0-9a-f]{1,40}") {
            // 31 hexadecimal digits fit; what follows them may only turn a tie.
            let text = format!("{:031x}{tail}", head >> 4 | 1 << 123);
            let (mantissa, exponent) = parse_hexadecimal(text.as_bytes()).unwrap();
            let exact = num_bigint::BigUint::parse_bytes(text.as_bytes(), 16).unwrap();
            let got = num_bigint::BigUint::from(mantissa) << exponent as u64;
            let (small, large) = if got < exact { (&got, &exact) } else { (&exact, &got) };
            prop_assert!((large - small) >> exponent as u64 <= num_bigint::BigUint::from(1u8));
            prop_assert_eq!(got == exact, exact.trailing_zeros().unwrap() >= exponent as u64);
        }
    }
}
