//! Distribution of a command's durations: one thread counts, others read.
//!
//! The buckets are those of an HdrHistogram of two significant digits over one nanosecond to one second, so that
//! percentiles and LATENCY HISTOGRAM print the numbers that people know from Redis. In octave 0 each of 256 values has a
//! bucket of its own; each further octave doubles the range and has 128 buckets, twice as wide as those of the one before:
//!
//! ```text
//! octave     0                1                2             ...
//! values     0 ..= 255        256 ..= 511      512 ..= 1023
//! width      1                2                4
//! rows       0 and 1          2                3                  (a row is 128 buckets)
//! ```
//!
//! A row takes memory only once a duration falls into it: most commands use a handful of rows.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The longest duration that is distinguished, nanoseconds; longer ones count as this.
const NANOS_MAX: u64 = 1_000_000_000;

/// Buckets of a row.
const ROW: usize = 128;
const ROW_BITS: u32 = ROW.ilog2();

/// Rows up to the one that holds [`NANOS_MAX`].
const ROWS: usize = row_of(NANOS_MAX) + 1;

/// Counts by bucket. A row is made when a duration falls into it.
type Rows<T> = [OnceLock<Box<[T; ROW]>>; ROWS];

/// A distribution of durations. The owning loop counts, and a reset copies the counts to `before`: no cell has two
/// writers.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// Most counts are small, and there are many histograms: these cells are half as large as they might have to be.
    counted: Rows<AtomicU32>,
    /// Counts that no longer fit those, beside them.
    beyond: OnceLock<Box<Rows<AtomicU64>>>,
    /// Counts at the last reset.
    before: OnceLock<Box<Rows<AtomicU64>>>,
}

/// A row of a histogram, made if there is none yet.
fn row_in<T: Default>(rows: &Rows<T>, row: usize) -> &[T; ROW] {
    rows[row].get_or_init(|| Box::new(std::array::from_fn(|_| T::default())))
}

/// The row of a duration.
const fn row_of(nanos: u64) -> usize {
    // The first two rows have one value per bucket; from there on, each row is one octave.
    let bits = (nanos | (ROW as u64 - 1)).ilog2();
    (bits + 1 - ROW_BITS) as usize
}

/// Number of low bits that the buckets of a row ignore: none in the first two rows.
const fn shift_of(row: usize) -> u32 {
    (row as u32).saturating_sub(1)
}

/// The bucket of a duration: row, and index in it.
const fn place_of(nanos: u64) -> (usize, usize) {
    let row = row_of(nanos);
    (row, (nanos >> shift_of(row)) as usize % ROW)
}

/// The longest duration that falls into a bucket, nanoseconds.
const fn highest_of(row: usize, index: usize) -> u64 {
    // Values of an octave have the bit above the index set; only the first row does not.
    let base = if row == 0 { index } else { ROW + index } as u64;
    ((base + 1) << shift_of(row)) - 1
}

impl Histogram {
    /// Counts `count` commands that took `nanos` each. Only the owning loop may call it.
    #[inline]
    pub(crate) fn add(&self, nanos: u64, count: u64) {
        let (row, index) = place_of(nanos.clamp(1, NANOS_MAX));
        let cell = &row_in(&self.counted, row)[index];
        let sum = u64::from(cell.load(Ordering::Relaxed)) + count;
        match u32::try_from(sum) {
            Ok(sum) => cell.store(sum, Ordering::Relaxed),
            Err(_) => self.add_beyond((row, index), count),
        }
    }

    #[cold]
    fn add_beyond(&self, (row, index): (usize, usize), count: u64) {
        let cell = &row_in(self.beyond.get_or_init(Box::default), row)[index];
        cell.store(cell.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// Counts of a row since the start; none when nothing has fallen into it.
    fn counts(&self, row: usize) -> Option<[u64; ROW]> {
        let counted = self.counted[row].get()?;
        let mut counts = std::array::from_fn(|index| u64::from(counted[index].load(Ordering::Relaxed)));
        if let Some(beyond) = self.beyond.get().and_then(|rows| rows[row].get()) {
            for (sum, count) in counts.iter_mut().zip(&**beyond) {
                *sum += count.load(Ordering::Relaxed);
            }
        }
        Some(counts)
    }

    /// Counts of a row since the last reset.
    fn fresh_counts(&self, row: usize) -> Option<[u64; ROW]> {
        let Some(before) = self.before.get().and_then(|rows| rows[row].get()) else {
            return self.counts(row);
        };
        // Looked at first, so that a reset at this moment does not take away more than was counted.
        let before: [u64; ROW] = std::array::from_fn(|index| before[index].load(Ordering::Acquire));
        let counts = self.counts(row)?;
        Some(std::array::from_fn(|index| counts[index] - before[index]))
    }

    /// Resets the counts.
    pub(crate) fn reset(&self) {
        for row in 0..ROWS {
            if let Some(counted) = self.counts(row) {
                let before = row_in(self.before.get_or_init(Box::default), row);
                for (before, counted) in before.iter().zip(counted) {
                    before.store(counted, Ordering::Release);
                }
            }
        }
    }
}

/// The sum of one command's histograms over all loops.
#[derive(Debug, Default)]
pub(crate) struct Distribution {
    /// Longest duration of each bucket that is not empty, ascending, with its count.
    buckets: Vec<(u64, u64)>,
    /// Number of all durations.
    total: u64,
}

impl Distribution {
    /// Adds up histograms.
    pub(crate) fn of<'a>(histograms: impl Iterator<Item = &'a Histogram> + Clone) -> Self {
        let mut sum = Self::default();
        for row in 0..ROWS {
            let parts = histograms
                .clone()
                .filter_map(|histogram| histogram.fresh_counts(row));
            let counts =
                parts.reduce(|sums, counts| std::array::from_fn(|index| sums[index] + counts[index]));
            for (index, count) in counts.into_iter().flatten().enumerate() {
                if count > 0 {
                    sum.buckets.push((highest_of(row, index), count));
                    sum.total += count;
                }
            }
        }
        sum
    }

    /// Number of counted durations.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The duration that `percent` of all did not exceed, nanoseconds, rounded up to the end of its bucket; 0 without
    /// any.
    pub(crate) fn percentile(&self, percent: f64) -> u64 {
        let wanted = (percent / 100.0 * self.total as f64 + 0.5) as u64;
        let mut seen = 0;
        for &(highest, count) in &self.buckets {
            seen += count;
            if seen >= wanted.max(1) {
                return highest;
            }
        }
        self.buckets.last().map_or(0, |&(highest, _)| highest)
    }

    /// Cumulative counts at the powers of two of microseconds (1.024, 2.048, …), as (microseconds, count), where the
    /// count is larger than at the power before.
    pub(crate) fn by_powers_of_two(&self) -> Vec<(u64, u64)> {
        let (mut steps, mut seen, mut limit) = (Vec::new(), 0, 1024);
        let mut buckets = self.buckets.iter().peekable();
        while buckets.peek().is_some() {
            let (row, index) = place_of(limit);
            let highest = highest_of(row, index);
            let before = seen;
            while let Some((_, count)) = buckets.next_if(|&&(nanos, _)| nanos <= highest) {
                seen += count;
            }
            if seen > before {
                steps.push((highest / 1000, seen));
            }
            limit *= 2;
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn distribution(times: &[u64]) -> Distribution {
        let histogram = Histogram::default();
        for &nanos in times {
            histogram.add(nanos, 1);
        }
        Distribution::of(std::iter::once(&histogram))
    }

    proptest! {
        /// A bucket ends at or above the times in it, by less than one part in a hundred.
        #[test]
        fn buckets_are_narrow(nanos in 1..=NANOS_MAX) {
            let (row, index) = place_of(nanos);
            let highest = highest_of(row, index);
            prop_assert!(nanos <= highest && highest - nanos <= nanos / 100, "{} {}", nanos, highest);
            prop_assert_eq!(place_of(highest), (row, index));
        }

        /// Percentiles are those of the sorted durations, as far as buckets can tell.
        #[test]
        fn percentiles_follow_the_order(mut times in prop::collection::vec(1..2_000_000_u64, 1..200), percent in 0.0..=100.0) {
            let got = distribution(&times).percentile(percent);
            times.sort_unstable();
            let rank = ((percent / 100.0 * times.len() as f64 + 0.5) as usize).max(1);
            let (row, index) = place_of(times[rank - 1]);
            prop_assert_eq!(got, highest_of(row, index));
        }
    }

    #[test]
    fn numbers_are_those_of_redis() {
        // Values reported by a real server: 19 microseconds read as 19.071, 10 as 10.047.
        assert_eq!(distribution(&[19_000]).percentile(50.0), 19_071);
        assert_eq!(distribution(&[10_000]).percentile(99.9), 10_047);
        let steps = distribution(&[900, 1_000, 8_200, 15_000, 2_000_000, 5_000_000_000]).by_powers_of_two();
        assert_eq!(steps, [(1, 2), (8, 3), (16, 4), (2113, 5), (1_082_130, 6)]);
    }

    #[test]
    fn counts_may_be_larger_than_a_small_cell() {
        let histogram = Histogram::default();
        let total = || Distribution::of(std::iter::once(&histogram)).total();
        let large = u64::from(u32::MAX) - 1;
        for (count, sum) in [
            (large, large),
            (1, large + 1),
            (5, large + 6),
            (large, 2 * large + 6),
        ] {
            histogram.add(7, count);
            assert_eq!(total(), sum);
        }
        histogram.reset();
        assert_eq!(total(), 0);
        histogram.add(7, 3);
        assert_eq!(total(), 3);
    }

    #[test]
    fn loops_add_up_and_start_anew() {
        let (one, other) = (Histogram::default(), Histogram::default());
        one.add(5_000, 3);
        other.add(5_000, 2);
        other.add(7, 1);
        let both = || Distribution::of([&one, &other].into_iter());
        assert_eq!(both().total(), 6);
        one.reset();
        other.reset();
        assert_eq!(both().total(), 0);
        other.add(7, 4);
        assert_eq!((both().total(), both().percentile(100.0)), (4, 7));
        assert_eq!(Distribution::default().percentile(50.0), 0);
        assert!(Distribution::default().by_powers_of_two().is_empty());
    }
}
