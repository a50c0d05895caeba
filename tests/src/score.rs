//! Doubles as two generations of Redis print them: 7.0 with 17 digits, 7.2 with the fewest that read back as the same.

use crate::reply::Reply;

/// Integers up to here are printed in full by 7.2.
const WHOLE_MAX: f64 = (1_u64 << 62) as f64;

/// The reply that 7.2 gives where 7.0 gave this one: every text that 7.0 would print for the double it reads as is
/// printed anew, at any depth.
#[must_use]
pub fn as_7_2(reply: &Reply) -> Reply {
    map_texts(reply, &printed_anew)
}

/// The reply without the sign of zero. Of the two zeros one is enough: packed sorted sets forget the sign in Redis,
/// all of them do in shardis.
#[must_use]
pub fn with_one_zero(reply: &Reply) -> Reply {
    map_texts(reply, &|text| if text == b"-0" { b"0" } else { text }.to_vec())
}

/// The reply with every text in it replaced, at any depth.
fn map_texts(reply: &Reply, map: &impl Fn(&[u8]) -> Vec<u8>) -> Reply {
    let all = |items: &[Reply]| items.iter().map(|item| map_texts(item, map)).collect();
    match reply {
        Reply::Bulk(text) => Reply::Bulk(map(text)),
        Reply::Double(text) => Reply::Double(map(text)),
        Reply::Array(items) => Reply::Array(all(items)),
        Reply::Set(items) => Reply::Set(all(items)),
        Reply::Map(pairs) => {
            let pairs = pairs.iter();
            Reply::Map(
                pairs
                    .map(|(key, value)| (map_texts(key, map), map_texts(value, map)))
                    .collect(),
            )
        }
        other => other.clone(),
    }
}

/// The text of 7.2 for one of 7.0; anything else stays as it is.
fn printed_anew(text: &[u8]) -> Vec<u8> {
    let value = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<f64>().ok())
        .filter(|value| value.is_finite());
    match value {
        Some(value) if seventeen_digits(value).as_bytes() == text => fewest_digits(value).into_bytes(),
        _ => text.to_vec(),
    }
}

/// The digits of a number, without the point, and the power of ten of the first of them.
fn digits(scientific: &str) -> (String, i32) {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let kept = digits.trim_end_matches('0').len().max(1);
    (digits[..kept].to_owned(), exponent.parse().unwrap_or(0))
}

/// Digits with a point in the right place, `first` being the power of ten of the first digit.
fn plain(digits: &str, first: i32) -> String {
    let whole = usize::try_from(first + 1).unwrap_or(0);
    match usize::try_from(-first - 1) {
        Ok(zeros) => format!("0.{}{digits}", "0".repeat(zeros)),
        Err(_) if digits.len() <= whole => format!("{digits:0<whole$}"),
        Err(_) => format!("{}.{}", &digits[..whole], &digits[whole..]),
    }
}

/// Digits in scientific notation; the exponent has a sign and at least `width` digits.
fn scientific(digits: &str, first: i32, width: usize) -> String {
    let (head, tail) = digits.split_at(1);
    let point = if tail.is_empty() { "" } else { "." };
    let sign = if first < 0 { '-' } else { '+' };
    format!("{head}{point}{tail}e{sign}{:0width$}", first.abs())
}

fn sign(value: f64) -> &'static str {
    if value.is_sign_negative() { "-" } else { "" }
}

/// Digits that C prints for `%.17g`.
fn seventeen_digits(value: f64) -> String {
    let (digits, first) = digits(&format!("{:.16e}", value.abs()));
    let text = if (-4..17).contains(&first) {
        plain(&digits, first)
    } else {
        scientific(&digits, first, 2)
    };
    format!("{}{text}", sign(value))
}

/// Digits that 7.2 prints: whole numbers in full, short numbers with a point, others in scientific notation.
fn fewest_digits(value: f64) -> String {
    if value == value.trunc() && value.abs() <= WHOLE_MAX {
        return format!("{}{:.0}", sign(value), value.abs());
    }
    let (digits, first) = digits(&format!("{:e}", value.abs()));
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    // The power of ten of the last digit.
    let last = first + 1 - count;
    let is_plain = if last >= 0 {
        first < count + 7
    } else {
        last > -7 || first.abs() < 4
    };
    let text = if is_plain {
        plain(&digits, first)
    } else {
        scientific(&digits, first, 1)
    };
    format!("{}{text}", sign(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_generations_print_as_they_are_known_to() {
        for (old, new) in [
            ("0.10000000000000001", "0.1"),
            ("0.30000000000000004", "0.30000000000000004"),
            ("1.0000000000000001e-05", "0.00001"),
            ("9.9999999999999995e-08", "1e-7"),
            ("123456789.12345679", "1.2345678912345679e+8"),
            ("12345.678901234", "1.2345678901234e+4"),
            ("4.6116860184273879e+18", "4611686018427387904"),
            ("9.2233720368547758e+18", "9223372036854776000"),
            ("1e+17", "100000000000000000"),
            ("1e+25", "1e+25"),
            ("-2.25", "-2.25"),
            ("0", "0"),
            ("-0", "-0"),
            ("inf", "inf"),
            ("4.9406564584124654e-324", "5e-324"),
        ] {
            assert_eq!(printed_anew(old.as_bytes()), new.as_bytes(), "{old}");
        }
    }

    #[test]
    fn what_7_0_would_not_print_is_left_alone() {
        for text in ["0.1", "1.50", "007", "1e17", "abc", "", "nan", "+1"] {
            assert_eq!(printed_anew(text.as_bytes()), text.as_bytes(), "{text}");
        }
    }

    #[test]
    fn doubles_are_found_at_any_depth() {
        let reply = |text: &str| {
            Reply::Array(vec![
                Reply::Bulk(b"a".to_vec()),
                Reply::Array(vec![Reply::Double(text.into())]),
            ])
        };
        assert_eq!(as_7_2(&reply("0.10000000000000001")), reply("0.1"));
        assert_eq!(with_one_zero(&reply("-0")), reply("0"));
        assert_eq!(with_one_zero(&reply("-0.5")), reply("-0.5"));
    }
}
