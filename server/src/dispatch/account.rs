//! Accounts for a command that has run, beside its counters: slow log, latency monitor, MONITOR.

use shardis_protocol::Arguments;

use crate::config::Settings;
use crate::exec::{Client, Peer};
use crate::observe::latency::{COMMAND, FAST_COMMAND};
use crate::observe::monitor::{self, Origin};
use crate::observe::slowlog::{self, Entry, Slow, Words};
use crate::spec::{Flags, Registered};
use crate::state::Node;

/// Duration from which a command is slow for the slow log or the latency monitor, nanoseconds.
pub(crate) fn slow_from_ns(settings: &Settings) -> u64 {
    let slowlog = slowlog_from_ns(settings);
    match settings.latency_monitor_threshold {
        0 => slowlog,
        ms => slowlog.min(ms.saturating_mul(1_000_000)),
    }
}

fn slowlog_from_ns(settings: &Settings) -> u64 {
    // A negative threshold disables the slow log.
    u64::try_from(settings.slowlog_log_slower_than).map_or(u64::MAX, |us| us.saturating_mul(1000))
}

/// The words of a request as the slow log shows them.
#[cold]
pub(crate) fn words(command: &Registered, args: Arguments<'_>) -> Words {
    slowlog::words(args, |index| command.row.is_secret(args, index))
}

/// Describes a slow command, whose request had these words.
#[cold]
pub(crate) fn slow(command: &Registered, words: Words, nanos: u64) -> Slow {
    let flags = command.row.flags;
    Slow {
        nanos,
        words,
        event: if flags.contains(Flags::FAST) {
            FAST_COMMAND
        } else {
            COMMAND
        },
        is_logged: !flags.contains(Flags::SKIP_SLOWLOG),
    }
}

/// Enters a slow command into the latency monitor and the slow log. `client` is `None` when it has disconnected.
#[cold]
pub(crate) fn enter(node: &Node, settings: &Settings, client: Option<&Client>, slow: Slow) {
    node.note_latency(settings, slow.event, slow.nanos / 1000);
    if !slow.is_logged || slow.nanos < slowlog_from_ns(settings) {
        return;
    }
    let entry = Entry {
        id: 0,
        time_s: node.clock.now_us() / 1_000_000,
        duration_us: slow.nanos / 1000,
        words: slow.words,
        address: client.map_or(String::new(), |client| client.peer.remote()),
        name: client.and_then(|client| client.name.clone()).unwrap_or_default(),
    };
    node.slowlog.lock().add(entry, settings.slowlog_max_len);
}

/// Appends the line of a command for the monitors, unless the command is hidden from them.
#[cold]
pub(crate) fn show(
    lines: &mut Vec<u8>,
    node: &Node,
    client: &Client,
    command: &Registered,
    args: Arguments<'_>,
) {
    if !command.row.flags.intersects(Flags::ADMIN | Flags::SKIP_MONITOR) {
        show_always(lines, node, client, command, args);
    }
}

/// Appends the line of a command for the monitors: that of a script, which its row hides because it is to stand before those of the
/// commands that the script calls.
#[cold]
pub(crate) fn show_always(
    lines: &mut Vec<u8>,
    node: &Node,
    client: &Client,
    command: &Registered,
    args: Arguments<'_>,
) {
    let address = match &client.peer {
        Peer::Unix(path) => format!("unix:{path}"),
        peer @ Peer::Tcp { .. } => peer.remote(),
    };
    let origin = Origin {
        now_us: node.clock.now_us(),
        db: client.db,
        address: &address,
    };
    monitor::append_line(lines, origin, args, |index| command.row.is_secret(args, index));
}

/// Appends the line of a command that a script calls, unless the command is hidden from monitors.
#[cold]
pub(crate) fn show_of_script(
    lines: &mut Vec<u8>,
    node: &Node,
    db: u16,
    command: &Registered,
    args: Arguments<'_>,
) {
    if command.row.flags.intersects(Flags::ADMIN | Flags::SKIP_MONITOR) {
        return;
    }
    let origin = Origin {
        now_us: node.clock.now_us(),
        db,
        address: "lua",
    };
    monitor::append_line(lines, origin, args, |index| command.row.is_secret(args, index));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::registry;
    use crate::commands::testing::Shell;

    #[test]
    fn the_lower_threshold_decides() {
        let with = |slowlog_log_slower_than, latency_monitor_threshold| {
            slow_from_ns(&Settings {
                slowlog_log_slower_than,
                latency_monitor_threshold,
                ..Settings::default()
            })
        };
        assert_eq!(with(10_000, 0), 10_000_000);
        assert_eq!(with(10_000, 2), 2_000_000);
        assert_eq!(with(-1, 0), u64::MAX);
        assert_eq!(with(-1, 3), 3_000_000);
        assert_eq!(with(0, 3), 0);
    }

    #[test]
    fn each_gets_what_it_asked_for() {
        let shell = Shell::new();
        let settings = Settings {
            slowlog_log_slower_than: 5_000,
            latency_monitor_threshold: 2,
            ..Settings::default()
        };
        for (name, nanos) in [
            ("get", 3_000_000),
            ("sort", 6_000_000),
            ("exec", 7_000_000),
            ("get", 6_000_000),
        ] {
            let Some(command) = registry().find(name.as_bytes()) else {
                continue;
            };
            let args = Arguments::new(b"", &[], &[]);
            enter(
                &shell.node,
                &settings,
                Some(&shell.client),
                slow(command, words(command, args), nanos),
            );
        }
        assert_eq!(
            shell
                .node
                .slowlog
                .lock()
                .entries()
                .next()
                .map(|entry| entry.duration_us),
            Some(6_000)
        );
        assert!(
            shell
                .node
                .slowlog
                .lock()
                .entries()
                .all(|entry| entry.duration_us != 7_000 && entry.duration_us != 3_000)
        );
        let latency = shell.node.latency.lock();
        let (_, fast) = latency.event(FAST_COMMAND.as_bytes()).unwrap();
        assert_eq!(fast.worst_ms(), 6);
        assert!(
            latency
                .event(COMMAND.as_bytes())
                .is_some_and(|(_, series)| series.worst_ms() == 7)
        );
    }
}
