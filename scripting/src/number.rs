//! Numbers as C prints them with `%.Ng`.

use smallvec::SmallVec;

/// A number as text.
pub(crate) type NumberText = SmallVec<[u8; 32]>;

/// The digits in which Lua prints a number.
pub(crate) const LUA_DIGITS: usize = 14;

/// The digits that keep every bit of a number.
pub(crate) const EXACT_DIGITS: usize = 17;

/// Prints `value` with `digits` significant digits, as `%.Ng` does: without trailing zeros, with an exponent where the
/// number is below 1e-4 or has more digits.
pub(crate) fn general(value: f64, digits: usize) -> NumberText {
    if value.is_nan() {
        let sign = if value.is_sign_negative() { "-nan" } else { "nan" };
        return NumberText::from_slice(sign.as_bytes());
    }
    if value.is_infinite() {
        return NumberText::from_slice(if value < 0.0 { b"-inf" } else { b"inf" });
    }
    // Most numbers of scripts are small integers.
    if value == value.trunc() && value.abs() < 1e14 && (value != 0.0 || value.is_sign_positive()) {
        return integer(value as i64);
    }
    let scientific = format!("{:.*e}", digits - 1, value);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        let text = format!("{}e{sign}{:02}", trimmed(mantissa), exponent.unsigned_abs());
        return NumberText::from_slice(text.as_bytes());
    }
    let decimals = digits as i32 - 1 - exponent;
    let fixed = format!("{:.*}", usize::try_from(decimals).unwrap_or_default(), value);
    NumberText::from_slice(trimmed(&fixed).as_bytes())
}

/// The digits of an integer.
fn integer(value: i64) -> NumberText {
    const DIGITS: usize = 20;
    let (mut digits, mut at, mut rest) = ([0; DIGITS], DIGITS, value.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    NumberText::from_slice(&digits[at..])
}

/// A number without the zeros at the end of its fraction.
fn trimmed(text: &str) -> &str {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_as_in_c() {
        for (value, digits, text) in [
            (3.0, 14, "3"),
            (-17.0, 14, "-17"),
            (1_700_000_000_123.0, 17, "1700000000123"),
            (-0.0, 14, "-0"),
            (0.0, 14, "0"),
            (0.1, 14, "0.1"),
            (0.1, 17, "0.10000000000000001"),
            (1e14, 14, "1e+14"),
            (99_999_999_999_999.0, 14, "99999999999999"),
            (1e15, 17, "1000000000000000"),
            (1e17, 17, "1e+17"),
            (1e100, 14, "1e+100"),
            (12_345_678_901_234_567_890.0, 14, "1.2345678901235e+19"),
            (0.0001, 14, "0.0001"),
            (0.00001, 14, "1e-05"),
            (3.99, 17, "3.9900000000000002"),
            (f64::INFINITY, 14, "inf"),
            (f64::NEG_INFINITY, 14, "-inf"),
            (999_999.999_999_999_9, 14, "1000000"),
        ] {
            assert_eq!(
                general(value, digits).as_slice(),
                text.as_bytes(),
                "{value} with {digits}"
            );
        }
    }
}
