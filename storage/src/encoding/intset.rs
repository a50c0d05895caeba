//! [`Intset`]: distinct integers in ascending order, each as wide as the widest of them needs, in Redis's format byte for
//! byte.
//!
//! ```text
//! width in bytes: u32 LE, 2, 4 or 8 │ elements: u32 LE │ the elements, ascending, `width` bytes LE each
//! ```
//! A set never becomes narrower again, as in Redis. Membership is a binary search; adding and removing move the
//! elements behind.

use std::fmt;

use crate::memory::compact::CompactBuffer;

const HEADER_BYTES: usize = 8;
/// A set without elements.
const EMPTY: [u8; HEADER_BYTES] = [2, 0, 0, 0, 0, 0, 0, 0];

/// A set of integers. An empty one need not allocate.
#[derive(Clone, Default)]
pub struct Intset {
    /// Empty, or a whole set.
    buffer: CompactBuffer,
}

const _: () = assert!(size_of::<Intset>() == 16);

impl Intset {
    /// An empty set, which has not allocated.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            buffer: CompactBuffer::new(),
        }
    }

    /// A copy of the set in `bytes`; `None` when they are not one, ascending without doubles. O(bytes).
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        is_valid(bytes).then(|| Self {
            buffer: CompactBuffer::from(bytes),
        })
    }

    /// The set in Redis's format.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        if self.buffer.is_empty() {
            &EMPTY
        } else {
            &self.buffer
        }
    }

    /// Number of integers.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        (self.as_bytes().len() - HEADER_BYTES) / self.width().bytes()
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().len() == HEADER_BYTES
    }

    /// The bytes allocated.
    #[inline]
    #[must_use]
    pub fn memory(&self) -> usize {
        self.buffer.memory()
    }

    /// Frees the capacity beyond the length.
    pub fn shrink_to_fit(&mut self) {
        if self.is_empty() {
            *self = Self::new();
        } else {
            self.buffer.shrink_to_fit();
        }
    }

    /// The integer at `index` in ascending order.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<i64> {
        let width = self.width();
        let at = index.checked_mul(width.bytes())?;
        self.elements().get(at..).and_then(|rest| width.read(rest))
    }

    /// The smallest integer.
    #[inline]
    #[must_use]
    pub fn min(&self) -> Option<i64> {
        self.get(0)
    }

    /// The greatest integer.
    #[inline]
    #[must_use]
    pub fn max(&self) -> Option<i64> {
        self.get(self.len().checked_sub(1)?)
    }

    /// Whether `value` is in the set. O(log n).
    #[inline]
    #[must_use]
    pub fn contains(&self, value: i64) -> bool {
        Width::of(value) <= self.width() && self.search(value).is_ok()
    }

    /// The integers in ascending order, from either end.
    #[inline]
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            rest: self.elements(),
            width: self.width(),
        }
    }

    /// Adds `value`; false when it was there. O(n).
    pub fn insert(&mut self, value: i64) -> bool {
        if self.buffer.is_empty() {
            self.buffer.reserve(HEADER_BYTES + Width::of(value).bytes());
            self.buffer.extend(&EMPTY);
        }
        if Width::of(value) > self.width() {
            self.widen_with(value);
            return true;
        }
        let Err(index) = self.search(value) else {
            return false;
        };
        let width = self.width();
        let target = self
            .buffer
            .gap(HEADER_BYTES + index * width.bytes(), 0, width.bytes());
        width.write(value, target);
        self.set_header(width);
        true
    }

    /// Removes `value`; false when it was not there. O(n).
    pub fn remove(&mut self, value: i64) -> bool {
        if Width::of(value) > self.width() {
            return false;
        }
        match self.search(value) {
            Ok(index) => self.remove_at(index).is_some(),
            Err(_) => false,
        }
    }

    /// Removes and returns the integer at `index` in ascending order. O(n).
    pub fn remove_at(&mut self, index: usize) -> Option<i64> {
        let value = self.get(index)?;
        let width = self.width();
        self.buffer
            .gap(HEADER_BYTES + index * width.bytes(), width.bytes(), 0);
        self.set_header(width);
        Some(value)
    }

    /// Index of `value`, or the one where it belongs. Callers ask most often beyond the ends, so those come first.
    fn search(&self, value: i64) -> Result<usize, usize> {
        let (width, elements) = (self.width(), self.elements());
        match width {
            Width::Two => search::<2>(elements, value, |bytes| i64::from(i16::from_le_bytes(bytes))),
            Width::Four => search::<4>(elements, value, |bytes| i64::from(i32::from_le_bytes(bytes))),
            Width::Eight => search::<8>(elements, value, i64::from_le_bytes),
        }
    }

    /// Writes all integers anew, wide enough for `value`, which is beyond one end just because it needs the width.
    fn widen_with(&mut self, value: i64) {
        let (old, new) = (self.width(), Width::of(value));
        let count = self.len();
        let mut buffer = CompactBuffer::with_capacity(HEADER_BYTES + (count + 1) * new.bytes());
        buffer.extend(&EMPTY);
        let target = buffer.gap(HEADER_BYTES, 0, (count + 1) * new.bytes());
        let below = (value < 0).then_some(value);
        let above = (value > 0).then_some(value);
        let all = below
            .into_iter()
            .chain(Iter {
                rest: self.elements(),
                width: old,
            })
            .chain(above);
        for (int, slot) in all.zip(target.chunks_exact_mut(new.bytes())) {
            new.write(int, slot);
        }
        self.buffer = buffer;
        self.set_header(new);
    }

    fn set_header(&mut self, width: Width) {
        // The length of a buffer fits 32 bits, and so does this.
        let count = ((self.buffer.len() - HEADER_BYTES) / width.bytes()) as u32;
        self.buffer[..4].copy_from_slice(&(width.bytes() as u32).to_le_bytes());
        self.buffer[4..HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
    }

    #[inline]
    fn width(&self) -> Width {
        match self.as_bytes()[0] {
            2 => Width::Two,
            4 => Width::Four,
            _ => Width::Eight,
        }
    }

    #[inline]
    fn elements(&self) -> &[u8] {
        &self.as_bytes()[HEADER_BYTES..]
    }
}

impl fmt::Debug for Intset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a Intset {
    type Item = i64;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The integers of a set in ascending order, from either end.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    /// A whole number of elements.
    rest: &'a [u8],
    width: Width,
}

impl Iterator for Iter<'_> {
    type Item = i64;

    #[inline]
    fn next(&mut self) -> Option<i64> {
        let value = self.width.read(self.rest)?;
        self.rest = &self.rest[self.width.bytes()..];
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.rest.len() / self.width.bytes();
        (len, Some(len))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<i64> {
        let (rest, last) = self
            .rest
            .split_at(self.rest.len().checked_sub(self.width.bytes())?);
        self.rest = rest;
        self.width.read(last)
    }
}

impl ExactSizeIterator for Iter<'_> {}
impl std::iter::FusedIterator for Iter<'_> {}

/// Width of each integer of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Width {
    Two,
    Four,
    Eight,
}

impl Width {
    /// The narrowest that holds `value`.
    #[inline]
    fn of(value: i64) -> Self {
        if i16::try_from(value).is_ok() {
            Self::Two
        } else if i32::try_from(value).is_ok() {
            Self::Four
        } else {
            Self::Eight
        }
    }

    #[inline]
    const fn bytes(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// The integer that `bytes` begin with, if they are long enough.
    #[inline]
    fn read(self, bytes: &[u8]) -> Option<i64> {
        Some(match self {
            Self::Two => i64::from(i16::from_le_bytes(*bytes.first_chunk()?)),
            Self::Four => i64::from(i32::from_le_bytes(*bytes.first_chunk()?)),
            Self::Eight => i64::from_le_bytes(*bytes.first_chunk()?),
        })
    }

    /// Writes `value`, which fits, to `target`, which is as long as the width.
    #[inline]
    fn write(self, value: i64, target: &mut [u8]) {
        target.copy_from_slice(&value.to_le_bytes()[..self.bytes()]);
    }
}

/// Binary search among integers of `N` bytes, after a look at both ends.
#[inline]
fn search<const N: usize>(
    elements: &[u8],
    value: i64,
    read: impl Fn([u8; N]) -> i64,
) -> Result<usize, usize> {
    let (elements, _) = elements.as_chunks::<N>();
    match (elements.first(), elements.last()) {
        (_, Some(&last)) if read(last) < value => Err(elements.len()),
        (Some(&first), _) if read(first) > value => Err(0),
        _ => elements.binary_search_by(|&bytes| read(bytes).cmp(&value)),
    }
}

fn is_valid(bytes: &[u8]) -> bool {
    let Some((header, elements)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return false;
    };
    let [w0, w1, w2, w3, count @ ..] = *header;
    let width = match u32::from_le_bytes([w0, w1, w2, w3]) {
        2 => Width::Two,
        4 => Width::Four,
        8 => Width::Eight,
        _ => return false,
    };
    let count = u32::from_le_bytes(count) as usize;
    count.checked_mul(width.bytes()) == Some(elements.len())
        && (Iter {
            rest: elements,
            width,
        })
        .is_sorted_by(|one, next| one < next)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::memory::thread_balance;

    fn set(values: &[i64]) -> Intset {
        let mut set = Intset::new();
        for &value in values {
            set.insert(value);
        }
        set
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        assert_eq!(set(&[]).as_bytes(), [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            set(&[5, -1, 5]).as_bytes(),
            [2, 0, 0, 0, 2, 0, 0, 0, 0xff, 0xff, 5, 0]
        );
        assert_eq!(
            set(&[5, 70_000]).as_bytes(),
            [4, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0x70, 0x11, 1, 0]
        );
    }

    #[test]
    fn a_set_widens_at_either_end_and_stays_wide() {
        let mut set = set(&[1, 32_767, -32_768]);
        assert_eq!(set.as_bytes()[0], 2);
        assert!(!set.contains(-40_000) && !set.remove(1 << 40));
        assert!(set.insert(-40_000));
        assert_eq!(set.as_bytes()[0], 4);
        assert!(set.insert(1 << 40) && set.insert(i64::MIN));
        assert_eq!(set.as_bytes()[0], 8);
        assert!(set.iter().eq([i64::MIN, -40_000, -32_768, 1, 32_767, 1 << 40]));
        assert!(
            set.iter()
                .rev()
                .eq([1 << 40, 32_767, 1, -32_768, -40_000, i64::MIN])
        );
        assert_eq!((set.min(), set.max()), (Some(i64::MIN), Some(1 << 40)));
        while set.len() > 1 {
            assert!(set.remove_at(set.len() - 1).is_some());
        }
        assert_eq!((set.as_bytes()[0], set.remove(i64::MIN), set.len()), (8, true, 0));
        assert_eq!((set.remove_at(0), set.min(), set.max()), (None, None, None));
        let start = thread_balance();
        let before = set.memory() as i64;
        set.shrink_to_fit();
        assert_eq!((thread_balance(), set.memory()), (start - before, 0));
    }

    #[test]
    fn corrupt_sets_are_refused() {
        for bad in [
            &[][..],
            &[2, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 1, 0, 0, 0],
            &[2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 2],
            &[2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0],
            &[2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 1, 0],
            &[2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 1, 0],
        ] {
            assert!(Intset::from_bytes(bad).is_none(), "{bad:?}");
        }
        assert!(Intset::from_bytes(set(&[9]).as_bytes()).is_some_and(|set| set.contains(9)));
    }

    fn value() -> impl Strategy<Value = i64> {
        prop_oneof![
            4 => -20i64..20,
            1 => -33_000i64..33_000,
            1 => any::<i32>().prop_map(i64::from),
            1 => any::<i64>(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

        #[test]
        fn it_behaves_as_an_ordered_set(steps in proptest::collection::vec((0u8..4, value()), 0..80)) {
            let start = thread_balance();
            let mut set = Intset::new();
            let mut model = BTreeSet::new();
            for (step, value) in steps {
                match step {
                    0 | 1 => prop_assert_eq!(set.insert(value), model.insert(value)),
                    2 => prop_assert_eq!(set.remove(value), model.remove(&value)),
                    _ => {
                        let index = value.unsigned_abs() as usize % (model.len() + 1);
                        let expected = model.iter().nth(index).copied();
                        prop_assert_eq!(set.get(index), expected);
                        prop_assert_eq!(set.remove_at(index), expected);
                        if let Some(value) = expected {
                            model.remove(&value);
                        }
                    }
                }
                prop_assert_eq!(set.contains(value), model.contains(&value));
                prop_assert_eq!(set.len(), model.len());
                prop_assert_eq!(set.iter().len(), model.len());
                prop_assert!(set.iter().eq(model.iter().copied()));
                prop_assert!(Intset::from_bytes(set.as_bytes()).is_some());
                prop_assert_eq!(thread_balance() - start, set.memory() as i64);
            }
            drop(set);
            prop_assert_eq!(thread_balance(), start);
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            if let Some(set) = Intset::from_bytes(&bytes) {
                prop_assert_eq!(set.as_bytes(), &*bytes);
            }
        }
    }
}
