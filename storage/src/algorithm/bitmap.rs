//! Bitmaps: the operations of SETBIT, GETBIT, BITCOUNT, BITPOS, BITOP and BITFIELD on the bytes of a string.
//!
//! Bit 0 is the most significant bit of byte 0, as in Redis:
//!
//! ```text
//! byte         0                 1
//! bit   0 1 2 3 4 5 6 7   8 9 10 …
//! value 128 64 …      1   128 …
//! ```
//!
//! Reading beyond the end of a string reads zeros. Before a write there, the caller must extend the string: see
//! [`bytes_for`].

mod field;

pub use field::{Field, Overflow};

use std::ops::RangeInclusive;

/// Bytes a string needs so that it has `bits` bits from `offset` on.
#[must_use]
pub fn bytes_for(offset: u64, bits: u32) -> u64 {
    offset.saturating_add(u64::from(bits)).div_ceil(8)
}

/// The bit at `offset`; false beyond the end.
#[inline]
#[must_use]
pub fn get_bit(bytes: &[u8], offset: u64) -> bool {
    let byte = usize::try_from(offset / 8)
        .ok()
        .and_then(|index| bytes.get(index))
        .copied()
        .unwrap_or(0);
    byte & mask_of(offset) != 0
}

/// Sets the bit at `offset` and returns what it was.
///
/// # Panics
/// If `offset` is beyond the end.
#[inline]
pub fn set_bit(bytes: &mut [u8], offset: u64, value: bool) -> bool {
    let byte = &mut bytes[(offset / 8) as usize];
    let mask = mask_of(offset);
    let before = *byte & mask != 0;
    *byte = if value { *byte | mask } else { *byte & !mask };
    before
}

fn mask_of(offset: u64) -> u8 {
    0x80 >> (offset % 8)
}

/// The number of bits set. O(length), at the speed of memory.
#[must_use]
pub fn count(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let in_words: u64 = words
        .iter()
        .map(|word| u64::from(u64::from_ne_bytes(*word).count_ones()))
        .sum();
    let in_rest: u64 = rest.iter().map(|byte| u64::from(byte.count_ones())).sum();
    in_words + in_rest
}

/// The number of bits set from the first to the last bit of `bits`, both included.
#[must_use]
pub fn count_bit_range(bytes: &[u8], bits: RangeInclusive<u64>) -> u64 {
    let Some(span) = Span::new(bytes, bits) else {
        return 0;
    };
    let edges = (span.head() & span.head_mask).count_ones() + (span.tail() & span.tail_mask).count_ones();
    count(span.middle()) + u64::from(edges)
}

/// The first bit that has the given value, from the first to the last bit of `bits`, both included. Bits beyond the
/// end of the string are ignored.
///
/// O(bytes looked at), 32 at a time.
#[must_use]
pub fn position(bytes: &[u8], value: bool, bits: RangeInclusive<u64>) -> Option<u64> {
    let span = Span::new(bytes, bits)?;
    // A byte equal to `skip` has no bit of the wanted value; in `byte ^ skip`, the wanted bits are ones.
    let skip = if value { 0x00 } else { 0xff };
    let found_in = |byte: u8, mask: u8, index: usize| {
        let wanted = (byte ^ skip) & mask;
        (wanted != 0).then(|| index as u64 * 8 + u64::from(wanted.leading_zeros()))
    };
    let in_middle = || {
        let index = first_other_than(span.middle(), skip)?;
        found_in(span.middle()[index], 0xff, span.first + 1 + index)
    };
    found_in(span.head(), span.head_mask, span.first)
        .or_else(in_middle)
        .or_else(|| found_in(span.tail(), span.tail_mask, span.last))
}

/// The index of the first byte that is not `skip`.
fn first_other_than(bytes: &[u8], skip: u8) -> Option<usize> {
    let (blocks, _) = bytes.as_chunks::<32>();
    // Without an early exit inside a block the compiler compares it with vector instructions.
    let is_skipped = |block: &[u8; 32]| block.iter().fold(0, |other, byte| other | (byte ^ skip)) == 0;
    let skipped = blocks.iter().take_while(|block| is_skipped(block)).count() * 32;
    bytes[skipped..]
        .iter()
        .position(|byte| *byte != skip)
        .map(|index| skipped + index)
}

/// A range of bits inside a string, cut into a first byte, whole bytes and a last byte.
struct Span<'b> {
    bytes: &'b [u8],
    first: usize,
    last: usize,
    head_mask: u8,
    /// 0 when the last byte is the first.
    tail_mask: u8,
}

impl<'b> Span<'b> {
    /// None when the range has no bit inside the string.
    fn new(bytes: &'b [u8], bits: RangeInclusive<u64>) -> Option<Span<'b>> {
        let bit_last = (bytes.len() as u64 * 8).checked_sub(1)?.min(*bits.end());
        let bit_first = *bits.start();
        if bit_first > bit_last {
            return None;
        }
        let (first, last) = ((bit_first / 8) as usize, (bit_last / 8) as usize);
        let from_first = 0xff >> (bit_first % 8);
        let to_last = 0xff << (7 - bit_last % 8);
        let (head_mask, tail_mask) = if first == last {
            (from_first & to_last, 0)
        } else {
            (from_first, to_last)
        };
        Some(Span {
            bytes,
            first,
            last,
            head_mask,
            tail_mask,
        })
    }

    fn head(&self) -> u8 {
        self.bytes[self.first]
    }

    fn tail(&self) -> u8 {
        self.bytes[self.last]
    }

    fn middle(&self) -> &'b [u8] {
        self.bytes.get(self.first + 1..self.last).unwrap_or(&[])
    }
}

/// The operation by which BITOP joins its sources, X being the first of them and Y the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Bits set in all sources.
    And,
    /// Bits set in any source.
    Or,
    /// Bits set in an odd number of sources.
    Xor,
    /// Bits not set in X, the only source.
    Not,
    /// Bits set in X and in no Y.
    Diff,
    /// Bits set in some Y and not in X.
    Diff1,
    /// Bits set in X and in some Y.
    AndOr,
    /// Bits set in exactly one source.
    One,
}

/// Bytes worked on at a time: the result of a block stays in the first-level cache while source after source joins it.
const BLOCK: usize = 8 * 1024;

/// Writes the result of an operation over all of `out`. Sources shorter than `out` go on with zeros, what is longer is not
/// looked at: `out` is as long as the longest source. With no source the result is zeros.
///
/// O(length of `out` × sources), with vector instructions.
pub fn operate(operation: Operation, sources: &[&[u8]], out: &mut [u8]) {
    let Some((x, others)) = sources.split_first() else {
        out.fill(0);
        return;
    };
    for (index, block) in out.chunks_mut(BLOCK).enumerate() {
        let (start, len) = (index * BLOCK, block.len());
        let x = part(x, start, len);
        let others = others.iter().map(|source| part(source, start, len));
        operate_on_block(operation, x, others, block);
    }
}

/// The part of a source that lies in a block.
fn part(source: &[u8], start: usize, len: usize) -> &[u8] {
    let source = source.get(start..).unwrap_or(&[]);
    &source[..len.min(source.len())]
}

fn operate_on_block<'s>(
    operation: Operation,
    x: &[u8],
    others: impl Iterator<Item = &'s [u8]>,
    out: &mut [u8],
) {
    match operation {
        Operation::And => {
            copy(x, out);
            others.for_each(|y| and(y, out));
        }
        Operation::Or => {
            copy(x, out);
            others.for_each(|y| join(y, out, |out, y| out | y));
        }
        Operation::Xor => {
            copy(x, out);
            others.for_each(|y| join(y, out, |out, y| out ^ y));
        }
        Operation::Not => {
            copy(x, out);
            out.iter_mut().for_each(|byte| *byte = !*byte);
        }
        Operation::Diff => {
            copy(x, out);
            others.for_each(|y| join(y, out, |out, y| out & !y));
        }
        Operation::Diff1 => {
            out.fill(0);
            others.for_each(|y| join(y, out, |out, y| out | y));
            join(x, out, |out, x| out & !x);
        }
        Operation::AndOr => {
            out.fill(0);
            others.for_each(|y| join(y, out, |out, y| out | y));
            and(x, out);
        }
        Operation::One => one(x, others, out),
    }
}

fn copy(source: &[u8], out: &mut [u8]) {
    let (head, tail) = out.split_at_mut(source.len());
    head.copy_from_slice(source);
    tail.fill(0);
}

/// Joins a source for which zeros change nothing.
fn join(source: &[u8], out: &mut [u8], operation: impl Fn(u8, u8) -> u8) {
    for (out, byte) in out.iter_mut().zip(source) {
        *out = operation(*out, *byte);
    }
}

fn and(source: &[u8], out: &mut [u8]) {
    join(source, out, |out, byte| out & byte);
    out[source.len()..].fill(0);
}

/// Collects in `out` the bits seen at all, and beside it those seen again.
fn one<'s>(x: &[u8], others: impl Iterator<Item = &'s [u8]>, out: &mut [u8]) {
    let mut again = [0; BLOCK];
    copy(x, out);
    for y in others {
        for ((out, again), byte) in out.iter_mut().zip(&mut again).zip(y) {
            *again |= *out & byte;
            *out |= byte;
        }
    }
    join(&again[..out.len()], out, |out, again| out & !again);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bits of a string, one by one.
    fn bits(bytes: &[u8]) -> Vec<bool> {
        bytes
            .iter()
            .flat_map(|byte| (0..8).map(move |bit| byte >> (7 - bit) & 1 == 1))
            .collect()
    }

    #[test]
    fn bit_zero_is_the_most_significant() {
        let mut bytes = [0u8; 2];
        assert!(!set_bit(&mut bytes, 0, true));
        assert!(!set_bit(&mut bytes, 15, true));
        assert_eq!(bytes, [0x80, 0x01]);
        assert!(set_bit(&mut bytes, 0, false));
        assert_eq!(bytes, [0x00, 0x01]);
        assert!(get_bit(&bytes, 15));
        assert!(!get_bit(&bytes, 16));
        assert!(!get_bit(&bytes, u64::MAX));
        assert!(!get_bit(&[], 0));
    }

    #[test]
    fn sizes_in_bytes() {
        for (offset, width, bytes) in [
            (0, 1, 1),
            (7, 1, 1),
            (8, 1, 2),
            (0, 64, 8),
            (1, 64, 9),
            (u64::MAX, 64, u64::MAX / 8 + 1),
        ] {
            assert_eq!(bytes_for(offset, width), bytes);
        }
    }

    #[test]
    fn counts() {
        assert_eq!(count(b""), 0);
        assert_eq!(count(b"foobar"), 26);
        assert_eq!(count(&[0xff; 1000]), 8000);
        assert_eq!(count_bit_range(b"foobar", 5..=30), 17);
        assert_eq!(count_bit_range(b"foobar", 0..=u64::MAX), 26);
        assert_eq!(count_bit_range(b"foobar", 48..=50), 0);
        #[expect(
            clippy::reversed_empty_ranges,
            reason = "a range without bits is what is tested"
        )]
        let backwards = 9..=3;
        assert_eq!(count_bit_range(b"foobar", backwards), 0);
        assert_eq!(count_bit_range(b"", 0..=7), 0);
    }

    #[test]
    fn positions() {
        let all = 0..=u64::MAX;
        assert_eq!(position(&[0xff, 0xf0, 0x00], false, all.clone()), Some(12));
        assert_eq!(position(&[0x00, 0x0f], true, all.clone()), Some(12));
        assert_eq!(position(&[0xff; 3], false, all.clone()), None);
        assert_eq!(position(&[0x00; 3], true, all.clone()), None);
        assert_eq!(position(&[], false, all.clone()), None);
        assert_eq!(position(&[0x00, 0xff, 0xf0], true, 7..=15), Some(8));
        assert_eq!(position(&[0x00, 0xff, 0xf0], true, 0..=7), None);
        assert_eq!(position(&[0xff, 0xff, 0x00], false, 3..=15), None);
        let mut long = vec![0; 4096];
        long[4095] = 1;
        assert_eq!(position(&long, true, all), Some(4096 * 8 - 1));
    }

    const OPERATIONS: [Operation; 8] = [
        Operation::And,
        Operation::Or,
        Operation::Xor,
        Operation::Not,
        Operation::Diff,
        Operation::Diff1,
        Operation::AndOr,
        Operation::One,
    ];

    /// One bit of the result, from the definition.
    fn naive(operation: Operation, sources: &[&[u8]], offset: u64) -> bool {
        let set = sources.iter().filter(|source| get_bit(source, offset)).count();
        let x = sources.first().is_some_and(|x| get_bit(x, offset));
        let others = set - usize::from(x);
        match operation {
            Operation::And => set == sources.len(),
            Operation::Or => set > 0,
            Operation::Xor => set % 2 == 1,
            Operation::Not => !x,
            Operation::Diff => x && others == 0,
            Operation::Diff1 => !x && others > 0,
            Operation::AndOr => x && others > 0,
            Operation::One => set == 1,
        }
    }

    fn check_operations(sources: &[&[u8]]) {
        let len = sources.iter().map(|source| source.len()).max().unwrap_or(0);
        for operation in OPERATIONS {
            // Earlier contents of `out` must not shine through.
            let mut out = vec![0xa5; len];
            operate(operation, sources, &mut out);
            for offset in 0..len as u64 * 8 {
                assert_eq!(
                    get_bit(&out, offset),
                    naive(operation, sources, offset),
                    "{operation:?} at {offset}"
                );
            }
        }
    }

    #[test]
    fn operations_over_several_blocks() {
        let pattern = |len: usize, step: usize| (0..len).map(|i| ((i * step) >> 3) as u8).collect::<Vec<_>>();
        let (a, b, c) = (
            pattern(BLOCK * 2 + 5, 7),
            pattern(BLOCK + 1, 13),
            pattern(BLOCK - 1, 29),
        );
        check_operations(&[&a, &b, &c]);
        check_operations(&[&c, &b, &a]);
        check_operations(&[&b]);
    }

    #[test]
    fn no_source_gives_zeros() {
        let mut out = [1; 3];
        operate(Operation::Not, &[], &mut out);
        assert_eq!(out, [0; 3]);
    }

    proptest! {
        #[test]
        fn bits_read_as_written(mut bytes in prop::collection::vec(any::<u8>(), 1..40), at: prop::sample::Index, value: bool) {
            let offset = at.index(bytes.len() * 8);
            let mut expected = bits(&bytes);
            prop_assert_eq!(set_bit(&mut bytes, offset as u64, value), expected[offset]);
            expected[offset] = value;
            prop_assert_eq!(bits(&bytes), expected);
        }

        #[test]
        fn ranges_agree_with_single_bits(
            fill in prop::sample::select(vec![0x00u8, 0xff, 0x10, 0xa5]),
            changes in prop::collection::vec((0usize..100, any::<u8>()), 0..4),
            len in 0usize..100,
            first in 0u64..820,
            last in 0u64..820,
            value: bool,
        ) {
            let mut bytes = vec![fill; len];
            for (index, byte) in changes {
                if let Some(place) = bytes.get_mut(index) {
                    *place = byte;
                }
            }
            let selected = bits(&bytes);
            let selected = selected.iter().enumerate().filter(|(i, _)| (first..=last).contains(&(*i as u64)));
            let ones = selected.clone().filter(|(_, bit)| **bit).count() as u64;
            let at = selected.clone().find(|(_, bit)| **bit == value).map(|(i, _)| i as u64);
            prop_assert_eq!(count_bit_range(&bytes, first..=last), ones);
            prop_assert_eq!(position(&bytes, value, first..=last), at);
            prop_assert_eq!(count(&bytes), bits(&bytes).iter().filter(|bit| **bit).count() as u64);
        }

        #[test]
        fn operations_agree_with_single_bits(sources in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..5)) {
            let sources: Vec<&[u8]> = sources.iter().map(Vec::as_slice).collect();
            check_operations(&sources);
        }
    }
}
