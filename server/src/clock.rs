//! The clock of a node; nothing else asks the system for the time.
//!
//! A node has one clock. It is real, or it stands still until the embedding program moves it; expiry, timeouts,
//! access clocks and every other use of time follow it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The clock of one node. Times are Unix times in microseconds or milliseconds.
#[derive(Debug)]
pub(crate) struct Clock {
    source: TimeSource,
}

#[derive(Debug)]
enum TimeSource {
    Real { start: Instant },
    Manual { now_us: AtomicI64 },
}

impl Clock {
    /// The machine's clock.
    #[expect(clippy::disallowed_methods, reason = "this is the place that asks")]
    pub(crate) fn real() -> Self {
        Self {
            source: TimeSource::Real {
                start: Instant::now(),
            },
        }
    }

    /// A clock that stands at `start` after the Unix epoch until it is moved.
    pub(crate) fn manual(start: Duration) -> Self {
        Self {
            source: TimeSource::Manual {
                now_us: AtomicI64::new(micros(start)),
            },
        }
    }

    /// Now, in microseconds. Complexity: one read of the kernel's clock page.
    #[inline]
    #[expect(clippy::disallowed_methods, reason = "this is the place that asks")]
    pub(crate) fn now_us(&self) -> i64 {
        match &self.source {
            TimeSource::Real { .. } => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros),
            TimeSource::Manual { now_us } => now_us.load(Ordering::Acquire),
        }
    }

    /// Nanoseconds since some moment in the past, for measuring durations. A manual clock stands still.
    #[inline]
    pub(crate) fn elapsed_ns(&self) -> u64 {
        match &self.source {
            TimeSource::Real { start } => u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
            TimeSource::Manual { now_us } => (now_us.load(Ordering::Acquire) as u64).wrapping_mul(1000),
        }
    }

    /// Moves a manual clock forward; false when the clock is real and moves by itself.
    pub(crate) fn advance(&self, by: Duration) -> bool {
        match &self.source {
            TimeSource::Real { .. } => false,
            TimeSource::Manual { now_us } => {
                now_us.fetch_add(micros(by), Ordering::AcqRel);
                true
            }
        }
    }

    /// Whether the clock is the machine's, which moves by itself.
    pub(crate) fn is_real(&self) -> bool {
        matches!(self.source, TimeSource::Real { .. })
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(Duration::from_secs(5));
        assert_eq!(clock.now_us(), 5_000_000);
        assert_eq!(clock.now_us(), 5_000_000);
        assert!(clock.advance(Duration::from_millis(1500)));
        assert_eq!(clock.now_us(), 6_500_000);
    }

    #[test]
    fn a_real_clock_cannot_be_moved() {
        let clock = Clock::real();
        assert!(clock.now_us() > 1_600_000_000_000_000);
        assert!(!clock.advance(Duration::from_secs(1)));
    }
}
