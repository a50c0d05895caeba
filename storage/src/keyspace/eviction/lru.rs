//! The access clock as a time: seconds, modulo 2^24 (194 days).

use crate::entry::Entry;

const MASK: u32 = 0x00ff_ffff;

/// The clock of a key used at `now_ms`.
#[inline]
#[must_use]
pub fn clock(now_ms: i64) -> u32 {
    now_ms.div_euclid(1000) as u32 & MASK
}

/// Seconds since the last use of a key, for OBJECT IDLETIME. Beyond 194 days the count restarts.
#[inline]
#[must_use]
pub fn idle_seconds(clock: u32, now_ms: i64) -> u32 {
    self::clock(now_ms).wrapping_sub(clock) & MASK
}

/// The clock of a key that has been idle for that long (RESTORE's IDLETIME), modulo 194 days.
#[inline]
#[must_use]
pub fn idle_since(seconds: u32, now_ms: i64) -> u32 {
    clock(now_ms).wrapping_sub(seconds) & MASK
}

/// Score for eviction: the longer unused, the higher.
pub(super) fn score(entry: &Entry, now_ms: i64) -> u64 {
    u64::from(idle_seconds(entry.clock(), now_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_survives_the_wrap() {
        let wrap_ms = (i64::from(MASK) + 1) * 1000;
        assert_eq!(clock(wrap_ms), 0);
        assert_eq!(idle_seconds(clock(wrap_ms - 3000), wrap_ms + 4000), 7);
        assert_eq!(idle_seconds(clock(5999), 6000), 1);
        assert_eq!(idle_seconds(idle_since(100, 50_000), 50_000), 100);
    }
}
