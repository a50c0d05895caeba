//! Latency spikes: events that delayed a loop by at least `latency-monitor-threshold` milliseconds, each with its
//! last samples, one per second.
//!
//! The node has one monitor, behind a lock: every entry took a millisecond or more, so that the lock does not matter.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::sparkline;

/// A command that is not flagged as fast.
pub(crate) const COMMAND: &str = "command";
/// A command that is flagged as fast.
pub(crate) const FAST_COMMAND: &str = "fast-command";
/// A slice of the cycle that removes expired keys.
pub(crate) const EXPIRE_CYCLE: &str = "expire-cycle";
/// A slice of eviction.
pub(crate) const EVICTION_CYCLE: &str = "eviction-cycle";
/// The removal of one key that was evicted.
pub(crate) const EVICTION_DEL: &str = "eviction-del";
/// A slice of freeing flushed or unlinked values.
pub(crate) const LAZY_FREE: &str = "lazyfree-cycle";

/// The most samples kept of an event.
const SAMPLES_MAX: usize = 160;

/// Number of columns of a graph.
const GRAPH_COLUMNS: usize = 80;

/// One sample: the longest delay of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Time, Unix seconds.
    pub(crate) time_s: i64,
    /// Duration, milliseconds.
    pub(crate) ms: u64,
}

/// The samples of one event, oldest first; never empty.
#[derive(Debug, Default)]
pub(crate) struct Series {
    samples: std::collections::VecDeque<Sample>,
    worst_ms: u64,
}

impl Series {
    fn add(&mut self, sample: Sample) {
        self.worst_ms = self.worst_ms.max(sample.ms);
        if let Some(last) = self.samples.back_mut()
            && last.time_s == sample.time_s
        {
            last.ms = last.ms.max(sample.ms);
            return;
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The samples, oldest first.
    pub(crate) fn samples(&self) -> impl ExactSizeIterator<Item = &Sample> {
        self.samples.iter()
    }

    /// The newest sample.
    pub(crate) fn latest(&self) -> Option<Sample> {
        self.samples.back().copied()
    }

    /// The longest delay ever, milliseconds.
    pub(crate) fn worst_ms(&self) -> u64 {
        self.worst_ms
    }

    /// Text of LATENCY GRAPH: the range, and a curve labelled with the age of each sample.
    pub(crate) fn graph(&self, event: &str, now_s: i64) -> String {
        let values = || self.samples.iter().map(|sample| sample.ms);
        let (lowest, highest) = values().fold((u64::MAX, 0), |(low, high), ms| (low.min(ms), high.max(ms)));
        let mut text = format!(
            "{event} - high {highest} ms, low {lowest} ms (all time high {} ms)\n{}\n",
            self.worst_ms,
            "-".repeat(GRAPH_COLUMNS)
        );
        let labelled: Vec<(u64, String)> = self
            .samples
            .iter()
            .map(|sample| (sample.ms, age(now_s - sample.time_s)))
            .collect();
        text.push_str(&sparkline::draw(&labelled, GRAPH_COLUMNS));
        text
    }

    fn summary(&self) -> Summary {
        debug_assert!(!self.samples.is_empty(), "a series has samples");
        let count = self.samples.len() as u64;
        let mean_ms = self.samples.iter().map(|sample| sample.ms).sum::<u64>() / count;
        let deviation_ms = self
            .samples
            .iter()
            .map(|sample| sample.ms.abs_diff(mean_ms))
            .sum::<u64>()
            / count;
        let span_s = match (self.samples.front(), self.samples.back()) {
            // The machine's clock may have been set back between them.
            (Some(first), Some(last)) => (last.time_s - first.time_s).max(0),
            _ => 0,
        };
        Summary {
            count,
            mean_ms,
            deviation_ms,
            period_s: span_s as f64 / (count as f64 - 1.0).max(1.0),
        }
    }
}

/// Statistics of a series.
struct Summary {
    count: u64,
    mean_ms: u64,
    deviation_ms: u64,
    period_s: f64,
}

/// An age in the short form of labels. It is negative, and shown as 0, when the machine's clock was set back.
fn age(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ ..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// The latency spikes of a node, by event.
#[derive(Debug, Default)]
pub(crate) struct LatencyMonitor {
    events: BTreeMap<&'static str, Series>,
}

impl LatencyMonitor {
    /// Enters an event with its duration in milliseconds.
    pub(crate) fn add(&mut self, event: &'static str, time_s: i64, ms: u64) {
        self.events.entry(event).or_default().add(Sample { time_s, ms });
    }

    /// All events that have samples, by name.
    pub(crate) fn events(&self) -> impl ExactSizeIterator<Item = (&'static str, &Series)> {
        self.events.iter().map(|(&event, series)| (event, series))
    }

    /// The samples of an event; its name ignores case.
    pub(crate) fn event(&self, name: &[u8]) -> Option<(&'static str, &Series)> {
        self.events()
            .find(|(event, _)| event.as_bytes().eq_ignore_ascii_case(name))
    }

    /// Drops the samples of the events that `chosen` selects. Returns the number of events that had some.
    pub(crate) fn reset(&mut self, mut chosen: impl FnMut(&str) -> bool) -> usize {
        let before = self.events.len();
        self.events.retain(|event, _| !chosen(event));
        before - self.events.len()
    }

    /// Text of LATENCY DOCTOR: the events seen, and advice. `threshold_ms` is that of the monitor, 0 when it is off.
    pub(crate) fn diagnosis(&self, threshold_ms: u64) -> String {
        if self.events.is_empty() {
            return if threshold_ms == 0 {
                "The latency monitor is off, so there is nothing to judge by. To turn it on, say from how many milliseconds on \
                 an event counts: CONFIG SET latency-monitor-threshold <milliseconds>.\n"
                    .to_owned()
            } else {
                format!(
                    "No event has taken {threshold_ms} milliseconds or more: there is nothing to complain about.\n"
                )
            };
        }
        let mut text = "Some events have taken longer than they should:\n\n".to_owned();
        for (number, (event, series)) in self.events().enumerate() {
            let summary = series.summary();
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{}. {event}: {} latency spikes (average {}ms, mean deviation {}ms, period {:.2} sec). Worst all time \
                 event {}ms.",
                number + 1,
                summary.count,
                summary.mean_ms,
                summary.deviation_ms,
                summary.period_s,
                series.worst_ms
            );
        }
        text.push_str("\nWhat might help:\n\n");
        for (events, advice) in ADVICE {
            if events.iter().any(|event| self.events.contains_key(event)) {
                let _ = writeln!(text, "- {advice}");
            }
        }
        text
    }
}

/// Advice, and the events that it applies to.
const ADVICE: &[(&[&str], &str)] = &[
    (
        &[COMMAND, FAST_COMMAND],
        "SLOWLOG GET shows which commands take long. What they hold up is their own shard and the loop of their client; \
         more shards (directive 'shards') let the rest go on beside them.",
    ),
    (
        &[FAST_COMMAND],
        "Even commands of constant cost were slow: the values may be very large, or the machine may have no processor to \
         spare. INFO shards shows what each loop uses.",
    ),
    (
        &[EXPIRE_CYCLE],
        "Many keys expire at the same time. Spread their times to live, or let values be freed in the background \
         (directive 'lazyfree-lazy-expire').",
    ),
    (
        &[EVICTION_CYCLE, EVICTION_DEL],
        "Memory is at its limit and keys must go to make room. Raise 'maxmemory', or let evicted values be freed in the \
         background (directive 'lazyfree-lazy-eviction').",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn monitor(samples: &[(i64, u64)]) -> LatencyMonitor {
        let mut monitor = LatencyMonitor::default();
        for &(time_s, ms) in samples {
            monitor.add(COMMAND, time_s, ms);
        }
        monitor
    }

    fn samples(monitor: &LatencyMonitor) -> Vec<(i64, u64)> {
        let (_, series) = monitor.event(b"Command").unwrap();
        series
            .samples()
            .map(|sample| (sample.time_s, sample.ms))
            .collect()
    }

    #[test]
    fn a_second_keeps_its_worst() {
        let monitor = monitor(&[(10, 5), (10, 9), (10, 7), (12, 3)]);
        assert_eq!(samples(&monitor), [(10, 9), (12, 3)]);
        let (event, series) = monitor.events().next().unwrap();
        assert_eq!(
            (event, series.latest(), series.worst_ms()),
            (COMMAND, Some(Sample { time_s: 12, ms: 3 }), 9)
        );
    }

    #[test]
    fn samples_are_bounded() {
        let many: Vec<_> = (0..500).map(|second| (second, 1 + second as u64)).collect();
        let samples = samples(&monitor(&many));
        assert_eq!((samples.len(), samples[0]), (SAMPLES_MAX, (340, 341)));
    }

    #[test]
    fn forgets_what_it_is_told_to() {
        let mut monitor = monitor(&[(1, 1)]);
        monitor.add(EXPIRE_CYCLE, 1, 1);
        assert_eq!(monitor.reset(|event| event == COMMAND), 1);
        assert_eq!(monitor.reset(|event| event == COMMAND), 0);
        assert_eq!(monitor.reset(|_| true), 1);
        assert!(monitor.event(b"command").is_none());
    }

    #[test]
    fn graphs_are_those_of_redis() {
        let dashes = "-".repeat(80);
        let monitor = monitor(&[(100, 14)]);
        let graph = monitor.event(b"command").unwrap().1.graph(COMMAND, 100);
        let head = "command - high 14 ms, low 14 ms (all time high 14 ms)";
        assert_eq!(graph, format!("{head}\n{dashes}\n \n \n \n_\n \n0\ns\n"));
    }

    #[test]
    fn ages_are_short() {
        for (seconds, label) in [
            (59, "59s"),
            (60, "1m"),
            (7_200, "2h"),
            (200_000, "2d"),
            (-5, "0s"),
        ] {
            assert_eq!(age(seconds), label);
        }
    }

    #[test]
    fn the_doctor_says_what_was_seen() {
        assert!(monitor(&[]).diagnosis(0).contains("is off"));
        assert!(monitor(&[]).diagnosis(7).contains("7 milliseconds"));
        let text = monitor(&[(10, 5), (12, 9)]).diagnosis(1);
        let line = "1. command: 2 latency spikes (average 7ms, mean deviation 2ms, period 2.00 sec). Worst all time event 9ms.";
        assert!(text.contains(line) && text.contains("SLOWLOG GET"), "{text}");
        assert!(!text.contains("maxmemory"), "{text}");
    }
}
