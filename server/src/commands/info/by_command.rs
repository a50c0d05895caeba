//! The sections of INFO about single commands and errors: commandstats, errorstats, latencystats.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::figures::Gathered;
use super::line;
use crate::commands::{latency, registry};
use crate::exec::Session;
use crate::observe::stats::{CommandStats, Counter};
use crate::spec::Registered;
use crate::state::Node;

/// All rows; subcommands follow their containers.
fn rows() -> impl Iterator<Item = &'static Registered> {
    registry()
        .all()
        .iter()
        .flat_map(|known| std::iter::once(*known).chain(&known.subcommands))
}

pub(super) fn command_stats(text: &mut String, session: &Session<'_>, _: &Gathered) {
    calls(text, session.node);
}

/// Writes a line for each command that was called or refused, from atomic counters alone.
pub(super) fn calls(text: &mut String, node: &Node) {
    for command in rows() {
        let sum = |pick: fn(&CommandStats) -> &Counter| -> u64 {
            let stats = node
                .stats
                .iter()
                .filter_map(|stats| stats.by_command.get(usize::from(command.id)));
            stats.map(|stats| pick(stats).get()).sum()
        };
        let (calls, nanos) = (sum(|stats| &stats.calls), sum(|stats| &stats.nanos));
        let (rejected, failed) = (sum(|stats| &stats.rejected), sum(|stats| &stats.failed));
        if calls + rejected + failed > 0 {
            line!(
                text,
                "cmdstat_{}:calls={calls},usec={},usec_per_call={:.2},rejected_calls={rejected},failed_calls={failed}",
                command.full_name,
                nanos / 1000,
                nanos as f64 / 1000.0 / calls.max(1) as f64
            );
        }
    }
}

pub(super) fn error_stats(text: &mut String, session: &Session<'_>, _: &Gathered) {
    let mut sum = BTreeMap::new();
    for stats in &session.node.stats {
        stats.error_codes.add_to(&mut sum);
    }
    for (code, count) in sum {
        line!(text, "errorstat_{}:count={count}", String::from_utf8_lossy(&code));
    }
}

pub(super) fn latency_stats(text: &mut String, session: &Session<'_>, _: &Gathered) {
    let settings = session.node.settings.load();
    if !settings.latency_tracking {
        return;
    }
    for command in rows() {
        let distribution = latency::distribution(session.node, command);
        if distribution.total() == 0 {
            continue;
        }
        let mut percentiles = String::new();
        for percent in &settings.latency_tracking_info_percentiles.0 {
            let micros = distribution.percentile(*percent) as f64 / 1000.0;
            let separator = if percentiles.is_empty() { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(percentiles, "{separator}p{percent}={micros:.3}");
        }
        line!(
            text,
            "latency_percentiles_usec_{}:{percentiles}",
            command.full_name
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::registry;
    use crate::commands::testing::Shell;

    #[test]
    fn loops_are_added_up() {
        let mut shell = Shell::over(2);
        let get = registry().find(b"get").unwrap().id;
        shell.node.stats[0].ran(get, 2, 19_000, true);
        shell.node.stats[1].ran(get, 1, 10_000, true);
        shell.node.stats[0].failed(get, b"WRONGTYPE no");
        shell.node.stats[1].failed(get, b"WRONGTYPE no");
        shell.node.stats[1].refused(Some(get), b"NOAUTH no");
        let line = "cmdstat_get:calls=3,usec=48,usec_per_call=16.00,rejected_calls=1,failed_calls=2";
        shell.check(&[
            ("INFO commandstats", &format!("\"# Commandstats\\r\\n{line}\\r\\n\"")),
            (
                "INFO errorstats",
                "\"# Errorstats\\r\\nerrorstat_NOAUTH:count=1\\r\\nerrorstat_WRONGTYPE:count=2\\r\\n\"",
            ),
            (
                "INFO latencystats",
                "\"# Latencystats\\r\\nlatency_percentiles_usec_get:p50=19.071,p99=19.071,p99.9=19.071\\r\\n\"",
            ),
            ("CONFIG RESETSTAT", "+OK"),
            ("INFO commandstats", "\"# Commandstats\\r\\n\""),
            ("INFO errorstats latencystats", "\"# Errorstats\\r\\n\\r\\n# Latencystats\\r\\n\""),
        ]);
    }
}
