//! The load generator and the side-by-side runner behind `scripts/bench`.
//!
//! The benchmark measures the CPU time of the *server* process per operation rather than throughput: a busy generator,
//! a second server waiting beside it or a slow network do not affect it. Servers run on loopback only, on free
//! ports, and live no longer than their [`server::Server`] value.
//!
//! Read next: `rows.rs` is the list of measurements (a new row is one line there); `compare.rs` is one
//! interleaved comparison; `generator.rs` is the event loop that produces the load.

#[path = "load/bystanders.rs"]
pub(crate) mod bystanders;
#[path = "load/client.rs"]
pub(crate) mod client;
#[path = "load/cluster.rs"]
pub(crate) mod cluster;
#[path = "load/compare.rs"]
pub(crate) mod compare;
#[path = "load/eviction.rs"]
pub(crate) mod eviction;
#[path = "load/expiry.rs"]
pub(crate) mod expiry;
#[path = "load/generator.rs"]
pub(crate) mod generator;
#[path = "load/hit_ratio.rs"]
pub(crate) mod hit_ratio;
#[path = "load/log.rs"]
pub(crate) mod log;
#[path = "load/memory.rs"]
pub(crate) mod memory;
#[path = "load/options.rs"]
pub(crate) mod options;
#[path = "load/pauses.rs"]
pub(crate) mod pauses;
#[path = "load/placement.rs"]
pub(crate) mod placement;
#[path = "load/replication.rs"]
pub(crate) mod replication;
#[path = "load/report.rs"]
pub(crate) mod report;
#[path = "load/rows.rs"]
pub(crate) mod rows;
#[path = "load/saves.rs"]
pub(crate) mod saves;
#[path = "load/server.rs"]
pub(crate) mod server;
#[path = "load/skipper.rs"]
pub(crate) mod skipper;
#[path = "load/template.rs"]
pub(crate) mod template;
#[path = "load/tls.rs"]
pub(crate) mod tls;
#[path = "load/users.rs"]
pub(crate) mod users;
#[path = "load/waits.rs"]
pub(crate) mod waits;

use std::time::{Duration, Instant};

/// The time, for the only program of the workspace whose subject is real time.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures the real clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The middle of `values`, which must not be empty (of an even number, the mean of the two in the middle).
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// The wait that a part of all of them stayed below, and the longest one, in milliseconds; none of no waits.
pub(crate) fn percentile_ms(mut waits: Vec<Duration>, part: f64) -> Option<(f64, f64)> {
    waits.sort_unstable();
    let wait = waits.get((waits.len() as f64 * part) as usize)?;
    let longest = waits.last()?;
    Some((wait.as_secs_f64() * 1e3, longest.as_secs_f64() * 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_waits_are_below_their_percentile() {
        let waits = (1..=1000).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile_ms(waits, 0.99), Some((991.0, 1000.0)));
        assert_eq!(percentile_ms(Vec::new(), 0.99), None);
    }

    #[test]
    fn median_of_odd_and_even() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
