//! The access clock as a counter of uses: 16 bits of minutes, modulo 2^16 (45 days), and above 8 bits that count in a
//! logarithmic way.
//!
//! The counter rises with a probability that falls as it grows, so that 8 bits tell a hundred uses from a million; it
//! falls by one for each period without use, so that former glory fades.

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::entry::Entry;

/// The count of a new key: enough not to go before it had a chance.
const COUNT_NEW: u8 = 5;

/// Options of the counters' growth and decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LfuOptions {
    /// `lfu-log-factor`: the higher, the more uses it takes to raise a high counter.
    pub log_factor: u32,
    /// `lfu-decay-time`: minutes without use that lower the counter by one; with 0 it never falls.
    pub decay_minutes: u32,
}

impl Default for LfuOptions {
    fn default() -> Self {
        Self {
            log_factor: 10,
            decay_minutes: 1,
        }
    }
}

#[inline]
fn minutes(now_ms: i64) -> u16 {
    now_ms.div_euclid(60_000) as u16
}

#[inline]
fn pack(minutes: u16, count: u8) -> u32 {
    u32::from(minutes) << 8 | u32::from(count)
}

/// The clock of a new key.
#[inline]
#[must_use]
pub fn new_clock(now_ms: i64) -> u32 {
    with_frequency(COUNT_NEW, now_ms)
}

/// The clock of a key with that count (RESTORE's FREQ).
#[inline]
#[must_use]
pub fn with_frequency(count: u8, now_ms: i64) -> u32 {
    pack(minutes(now_ms), count)
}

/// The counter at `now_ms`, for OBJECT FREQ.
#[inline]
#[must_use]
pub fn frequency(clock: u32, now_ms: i64, options: LfuOptions) -> u8 {
    let idle = minutes(now_ms).wrapping_sub((clock >> 8) as u16);
    // A period of 0 minutes means that counters do not decay. A decayed counter stops at 0.
    let periods = u32::from(idle).checked_div(options.decay_minutes).unwrap_or(0);
    (clock as u8).saturating_sub(u8::try_from(periods).unwrap_or(u8::MAX))
}

/// The clock of a key after a use at `now_ms`.
#[inline]
#[must_use]
pub fn touch(clock: u32, now_ms: i64, options: LfuOptions, rng: &mut SmallRng) -> u32 {
    let count = frequency(clock, now_ms, options);
    // Up to the count of a new key, every use counts.
    let above_new = u64::from(count.saturating_sub(COUNT_NEW));
    let one_in = above_new * u64::from(options.log_factor) + 1;
    let rises = count < u8::MAX && (one_in == 1 || rng.random_range(0..one_in) == 0);
    pack(minutes(now_ms), count + u8::from(rises))
}

/// Score for eviction: the fewer uses, the higher.
pub(super) fn score(entry: &Entry, now_ms: i64, options: LfuOptions) -> u64 {
    u64::from(u8::MAX - frequency(entry.clock(), now_ms, options))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const MINUTE: i64 = 60_000;

    #[test]
    fn counters_fade_with_time_and_survive_the_wrap() {
        let options = LfuOptions {
            log_factor: 10,
            decay_minutes: 2,
        };
        let wrap = 65_536 * MINUTE;
        let clock = with_frequency(20, wrap - 4 * MINUTE);
        assert_eq!(frequency(clock, wrap - 4 * MINUTE, options), 20);
        assert_eq!(frequency(clock, wrap + 2 * MINUTE, options), 17);
        assert_eq!(frequency(clock, wrap + 1000 * MINUTE, options), 0);
        assert_eq!(
            frequency(
                clock,
                wrap,
                LfuOptions {
                    decay_minutes: 0,
                    ..options
                }
            ),
            20
        );
    }

    #[test]
    fn counting_is_logarithmic() {
        let mut rng = SmallRng::seed_from_u64(1);
        let options = LfuOptions::default();
        let count_after = |uses: u32, rng: &mut SmallRng| {
            let clock = (0..uses).fold(new_clock(0), |clock, _| touch(clock, 0, options, rng));
            frequency(clock, 0, options)
        };
        assert_eq!(count_after(0, &mut rng), 5);
        // The documented figures for a factor of 10 are 10, 18 and 142 after 100, 1,000 and 100,000 uses.
        assert!((7..=14).contains(&count_after(100, &mut rng)));
        assert!((14..=24).contains(&count_after(1000, &mut rng)));
        assert!((125..=160).contains(&count_after(100_000, &mut rng)));
        assert_eq!(count_after(3_000_000, &mut rng), 255);
    }
}
