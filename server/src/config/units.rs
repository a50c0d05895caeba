//! Numbers in a configuration: plain integers, memory sizes with a unit, octal modes.
//!
//! Pure functions between text and number. `parse(format(n)) == n` holds for every form.

use shardis_storage::number::parse_i64;

/// The units of a memory size, the largest first, so that a size is written with the largest one that divides it.
const BINARY_UNITS: [(&str, u64); 3] = [("gb", 1 << 30), ("mb", 1 << 20), ("kb", 1 << 10)];

/// Notation of an integer directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A decimal integer.
    Plain,
    /// A number of bytes, with an optional unit.
    Memory,
    /// A file mode in octal digits.
    Octal,
}

impl Form {
    /// Reads an integer written in this form.
    ///
    /// # Errors
    /// The reason, in the words Redis gives a client.
    pub fn parse(self, text: &[u8]) -> Result<i128, &'static str> {
        match self {
            Self::Plain => parse_i64(text)
                .map(i128::from)
                .ok_or("argument couldn't be parsed into an integer"),
            Self::Memory => parse_memory(text)
                .map(i128::from)
                .ok_or("argument must be a memory value"),
            Self::Octal => parse_octal(text)
                .map(i128::from)
                .ok_or("argument couldn't be parsed as an octal number"),
        }
    }

    /// Writes an integer as CONFIG GET shows it: sizes in bytes, modes in octal.
    pub fn show(self, number: i128) -> String {
        match self {
            Self::Plain | Self::Memory => number.to_string(),
            Self::Octal => format!("{number:o}"),
        }
    }

    /// Writes an integer as a configuration file has it: sizes with their largest exact unit.
    pub fn write(self, number: i128) -> String {
        match (self, u64::try_from(number)) {
            (Self::Memory, Ok(bytes)) => format_memory(bytes),
            _ => self.show(number),
        }
    }
}

/// Reads a size in bytes: digits, then nothing, `b`, `k` (1000), `kb` (1024), `m`, `mb`, `g` or `gb`, in any
/// case; no text at all is 0. `None` if it is anything else, or does not fit.
pub fn parse_memory(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return Some(0);
    }
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1_000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    std::str::from_utf8(number)
        .ok()?
        .parse::<u64>()
        .ok()?
        .checked_mul(factor)
}

/// Writes a size with the largest unit that divides it exactly: `1gb`, `3kb`, `1025`.
pub fn format_memory(bytes: u64) -> String {
    let unit = BINARY_UNITS
        .iter()
        .find(|(_, size)| bytes != 0 && bytes.is_multiple_of(*size));
    match unit {
        Some((name, size)) => format!("{}{name}", bytes / size),
        None => bytes.to_string(),
    }
}

fn parse_octal(text: &[u8]) -> Option<u32> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(text).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn memory_sizes_take_units_in_any_case() {
        let cases: &[(&str, Option<u64>)] = &[
            ("0", Some(0)),
            ("100b", Some(100)),
            ("1k", Some(1_000)),
            ("1KB", Some(1_024)),
            ("2m", Some(2_000_000)),
            ("2Mb", Some(2 << 20)),
            ("1g", Some(1_000_000_000)),
            ("1gB", Some(1 << 30)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("18446744073709551615k", None),
            ("", Some(0)),
            ("kb", None),
            ("-1", None),
            (" 5", None),
            ("5 ", None),
            ("1.5g", None),
            ("10xb", None),
            ("5%", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_memory(text.as_bytes()), *expected, "{text:?}");
        }
    }

    #[test]
    fn memory_sizes_are_written_with_their_largest_exact_unit() {
        for (bytes, expected) in [
            (0, "0"),
            (1, "1"),
            (1_025, "1025"),
            (3_072, "3kb"),
            (5 << 20, "5mb"),
            (1 << 30, "1gb"),
        ] {
            assert_eq!(format_memory(bytes), expected);
        }
    }

    #[test]
    fn octal_modes() {
        assert_eq!(Form::Octal.parse(b"700"), Ok(0o700));
        assert_eq!(Form::Octal.show(0o700), "700");
        for text in ["999", "+7", "-7", "0x7", ""] {
            let wanted = Err("argument couldn't be parsed as an octal number");
            assert_eq!(Form::Octal.parse(text.as_bytes()), wanted, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_form_reads_back_what_it_writes(number: u32) {
            for form in [Form::Plain, Form::Memory, Form::Octal] {
                prop_assert_eq!(form.parse(form.show(number.into()).as_bytes()), Ok(number.into()));
                prop_assert_eq!(form.parse(form.write(number.into()).as_bytes()), Ok(number.into()));
            }
        }
    }
}
