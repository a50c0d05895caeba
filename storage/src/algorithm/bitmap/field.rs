//! Integers of any width at any bit of a string: BITFIELD.
//!
//! Signed integers have 1 to 64 bits, unsigned ones 1 to 63, so every value fits an `i64`. They are stored with the most
//! significant bit first, as the string's bits are numbered.

use super::bytes_for;
use crate::number;

/// Treatment of a result that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The result wraps around: only its lowest bits are kept.
    #[default]
    Wrap,
    /// The result is the nearest value that fits.
    Sat,
    /// The operation is refused.
    Fail,
}

/// The type of an integer in a string: `i1` to `i64`, `u1` to `u63`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    signed: bool,
    /// 1..=64, or 1..=63 if unsigned.
    width: u32,
}

/// Bytes that a field can touch: 64 bits that begin inside a byte.
const SPAN_MAX: usize = 9;

impl Field {
    /// Reads a type as BITFIELD takes it: `i` or `u`, then the width.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Field> {
        let (signed, width) = match text {
            [b'i', width @ ..] => (true, width),
            [b'u', width @ ..] => (false, width),
            _ => return None,
        };
        let width = u32::try_from(number::parse_i64(width)?).ok()?;
        let width_max = if signed { 64 } else { 63 };
        (1..=width_max)
            .contains(&width)
            .then_some(Field { signed, width })
    }

    /// Its width in bits.
    #[must_use]
    pub fn width(self) -> u32 {
        self.width
    }

    /// Reads the integer whose first bit is at `offset`, in bits. Beyond the end of the string there are zeros.
    #[must_use]
    pub fn get(self, bytes: &[u8], offset: u64) -> i64 {
        let start = usize::try_from(offset / 8).unwrap_or(usize::MAX);
        let rest = bytes.get(start..).unwrap_or(&[]);
        // The bits from `offset` on, at the top of a word.
        let bits = (load(rest) << (offset % 8)) >> 64;
        self.interpret(bits as u64 >> (64 - self.width))
    }

    /// Writes the integer whose first bit is at `offset`, in bits: the lowest bits of `value`.
    ///
    /// # Panics
    /// If the string has fewer bytes than [`bytes_for`] the field.
    pub fn set(self, bytes: &mut [u8], offset: u64, value: i64) {
        let (start, end) = ((offset / 8) as usize, bytes_for(offset, self.width) as usize);
        let span = &mut bytes[start..end];
        let shift = u128::BITS - (offset % 8) as u32 - self.width;
        let mask = u128::from(u64::MAX >> (64 - self.width)) << shift;
        let word = load(span) & !mask | (u128::from(value as u64) << shift) & mask;
        span.copy_from_slice(&word.to_be_bytes()[..end - start]);
    }

    /// Adds, and returns the value to store; `None` when the sum does not fit and `overflow` refuses it.
    ///
    /// With an increment of 0 any 64-bit number is fitted, as for SET; an unsigned field takes a negative number for a very
    /// large one.
    #[must_use]
    pub fn add(self, value: i64, increment: i64, overflow: Overflow) -> Option<i64> {
        let (min, max) = self.bounds();
        let start = if self.signed {
            i128::from(value)
        } else {
            i128::from(value as u64)
        };
        let sum = start + i128::from(increment);
        if (min..=max).contains(&start) && (min..=max).contains(&sum) {
            return Some(sum as i64);
        }
        match overflow {
            Overflow::Wrap => Some(self.interpret(sum as u64 & u64::MAX >> (64 - self.width))),
            Overflow::Sat => {
                // Redis measures the room above in 64 bits, so a number that lies more than that below the maximum
                // counts as above it. Only SET can name one.
                let above = sum > max || (self.width < 64 && max - start > i128::from(i64::MAX));
                Some(if above { max } else { min } as i64)
            }
            Overflow::Fail => None,
        }
    }

    /// The smallest and the largest value.
    fn bounds(self) -> (i128, i128) {
        match self.signed {
            true => (-(1 << (self.width - 1)), (1 << (self.width - 1)) - 1),
            false => (0, (1 << self.width) - 1),
        }
    }

    /// The integer that `bits`, of which there are `width`, stand for.
    fn interpret(self, bits: u64) -> i64 {
        let unused = 64 - self.width;
        if self.signed {
            (bits << unused) as i64 >> unused
        } else {
            bits as i64
        }
    }
}

/// The first [`SPAN_MAX`] bytes or more at the top of a word, zeros where there are none.
fn load(bytes: &[u8]) -> u128 {
    match bytes.first_chunk() {
        Some(chunk) => u128::from_be_bytes(*chunk),
        None => {
            let mut chunk = [0; size_of::<u128>()];
            chunk[..bytes.len()].copy_from_slice(bytes);
            u128::from_be_bytes(chunk)
        }
    }
}

const _: () = assert!(SPAN_MAX <= size_of::<u128>());

#[cfg(test)]
mod tests {
    use super::super::{get_bit, set_bit};
    use super::*;
    use proptest::prelude::*;

    fn field(text: &str) -> Field {
        Field::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn types_as_bitfield_takes_them() {
        for text in ["i1", "i8", "i64", "u1", "u63"] {
            let parsed = field(text);
            assert_eq!(
                format!("{}{}", if parsed.signed { 'i' } else { 'u' }, parsed.width()),
                text
            );
        }
        for text in [
            "",
            "i",
            "u",
            "8",
            "i0",
            "u0",
            "i65",
            "u64",
            "i-1",
            "i08",
            "I8",
            "i8 ",
            "x8",
            "i99999999999999999999",
        ] {
            assert_eq!(Field::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn reads_and_writes_across_bytes() {
        let mut bytes = [0; 10];
        field("u8").set(&mut bytes, 4, 0xab);
        assert_eq!(bytes[..2], [0x0a, 0xb0]);
        assert_eq!(field("u8").get(&bytes, 4), 0xab);
        assert_eq!(field("i8").get(&bytes, 4), 0xab - 256);
        field("i64").set(&mut bytes, 15, i64::MIN);
        assert_eq!(field("i64").get(&bytes, 15), i64::MIN);
        field("i64").set(&mut bytes, 15, -1);
        assert_eq!(
            bytes,
            [0x0a, 0xb1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]
        );
    }

    #[test]
    fn beyond_the_end_there_are_zeros() {
        assert_eq!(field("u8").get(&[0xff], 4), 0xf0);
        assert_eq!(field("i64").get(&[0xff], 0), (0xffu64 << 56) as i64);
        assert_eq!(field("i64").get(&[], 0), 0);
        assert_eq!(field("u63").get(&[0xff; 4], u64::MAX), 0);
    }

    /// Answers of the real server to SET and INCRBY, for numbers near and far beyond the bounds.
    #[test]
    fn overflow_as_bitfield() {
        use Overflow::{Fail, Sat, Wrap};
        const MAX: i64 = i64::MAX;
        const MIN: i64 = i64::MIN;
        let set: &[(&str, i64, i64, i64, bool)] = &[
            // type, number, wrapped, saturated, refused
            ("i8", 300, 44, 127, true),
            ("i8", -1, -1, -1, false),
            ("i8", -300, -44, -128, true),
            ("i8", MAX, -1, 127, true),
            ("i8", MIN, 0, 127, true),
            ("u8", 300, 44, 255, true),
            ("u8", -1, 255, 255, true),
            ("u8", -300, 212, 255, true),
            ("u8", MIN, 0, 255, true),
            ("i64", MIN, MIN, MIN, false),
            ("i64", MAX, MAX, MAX, false),
            ("u63", -1, MAX, MAX, true),
            ("u63", -300, MAX - 299, MAX, true),
            ("u63", MAX, MAX, MAX, false),
            ("u63", MIN, 0, MAX, true),
            ("i1", 300, 0, 0, true),
            ("i1", -1, -1, -1, false),
            ("i1", -300, 0, -1, true),
            ("i1", MIN, 0, 0, true),
            ("u1", -1, 1, 1, true),
            ("i63", MAX, -1, (1 << 62) - 1, true),
            ("i63", MIN, 0, (1 << 62) - 1, true),
        ];
        for (name, number, wrapped, saturated, refused) in set {
            let field = field(name);
            assert_eq!(field.add(*number, 0, Wrap), Some(*wrapped), "{name} SET {number}");
            assert_eq!(
                field.add(*number, 0, Sat),
                Some(*saturated),
                "{name} SET {number}"
            );
            assert_eq!(
                field.add(*number, 0, Fail),
                (!refused).then_some(*number),
                "{name} SET {number}"
            );
        }
        let increments: &[(&str, i64, i64, i64, i64)] = &[
            // type, value, increment, wrapped, saturated; all of them are refused
            ("i8", 100, 100, -56, 127),
            ("i8", -100, -100, 56, -128),
            ("i8", 0, MIN, 0, -128),
            ("i8", 127, MAX, 126, 127),
            ("u8", 255, 1, 0, 255),
            ("u8", 0, -1, 255, 0),
            ("u8", 0, MIN, 0, 0),
            ("u63", MAX, MAX, MAX - 1, MAX),
            ("u63", 0, MIN, 0, 0),
            ("i64", MAX, 1, MIN, MAX),
            ("i64", MIN, -1, MAX, MIN),
            ("i64", MAX, MAX, -2, MAX),
            ("i64", MIN, MIN, 0, MIN),
            ("i1", 0, 1, -1, 0),
            ("i1", -1, -1, 0, -1),
            ("u1", 1, 1, 0, 1),
        ];
        for (name, value, increment, wrapped, saturated) in increments {
            let field = field(name);
            assert_eq!(
                field.add(*value, *increment, Wrap),
                Some(*wrapped),
                "{name} {value} INCRBY {increment}"
            );
            assert_eq!(
                field.add(*value, *increment, Sat),
                Some(*saturated),
                "{name} {value} INCRBY {increment}"
            );
            assert_eq!(
                field.add(*value, *increment, Fail),
                None,
                "{name} {value} INCRBY {increment}"
            );
        }
    }

    fn any_field() -> impl Strategy<Value = Field> {
        (any::<bool>(), 1u32..=64).prop_map(|(signed, width)| Field {
            signed,
            width: if signed { width } else { width.min(63) },
        })
    }

    proptest! {
        #[test]
        fn agrees_with_single_bits(
            field in any_field(),
            mut bytes in prop::collection::vec(any::<u8>(), 20),
            offset in 0u64..90,
            value: i64,
            cut in 0usize..=20,
        ) {
            let width = u64::from(field.width);
            // Read what is there, as if the string ended at `cut`.
            let bits = (0..width).fold(0u64, |bits, i| bits << 1 | u64::from(get_bit(&bytes[..cut], offset + i)));
            prop_assert_eq!(field.get(&bytes[..cut], offset), field.interpret(bits));
            // Write, bit by bit and at once.
            let mut expected = bytes.clone();
            for i in 0..width {
                set_bit(&mut expected, offset + i, value as u64 >> (width - 1 - i) & 1 == 1);
            }
            field.set(&mut bytes, offset, value);
            prop_assert_eq!(bytes, expected);
        }

        #[test]
        fn results_always_fit(field in any_field(), value: i64, increment: i64) {
            let (min, max) = field.bounds();
            let fits = |result: Option<i64>| result.is_none_or(|result| (min..=max).contains(&i128::from(result)));
            for overflow in [Overflow::Wrap, Overflow::Sat, Overflow::Fail] {
                prop_assert!(fits(field.add(value, increment, overflow)));
            }
            // A sum that fits is stored unchanged, whatever the overflow behaviour.
            let start = field.add(value, 0, Overflow::Wrap).unwrap();
            let sum = i128::from(start) + i128::from(increment);
            let refused = field.add(start, increment, Overflow::Fail);
            prop_assert_eq!(refused.map(i128::from), (min..=max).contains(&sum).then_some(sum));
        }
    }
}
