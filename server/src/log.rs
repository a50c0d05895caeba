//! The log of a node: events for `tracing`, at the levels and with the texts that operators of Redis know.
//!
//! A node prints nothing by itself. The program's subscriber (`lines.rs`) formats its events as lines of Redis; an
//! embedding program receives them in a subscriber of its own. All have the target [`TARGET`] and two fields: `node`,
//! the run id of the node (as in INFO; empty before there is one), and `role`. A line below the level costs one
//! atomic load. Events of the audit log have the target [`AUDIT_TARGET`], more fields, and no level.

mod lines;
mod syslog;

pub(crate) use lines::{Lines, LogOutput};
pub(crate) use syslog::Syslog;

use std::fmt::Arguments;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tracing::{Dispatch, debug, info, trace, warn};

use crate::config::LogLevel;

/// The target of all events of this crate.
const TARGET: &str = "shardis";

/// The target of the events that the audit log tells of.
const AUDIT_TARGET: &str = "shardis::audit";

/// An event that the audit log tells of, as a subscriber gets it: a field is empty where there is nothing to tell.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AuditEvent<'a> {
    /// Kind of the event.
    pub(crate) event: &'a str,
    /// Its outcome.
    pub(crate) outcome: &'a str,
    /// Name of the user.
    pub(crate) user: &'a str,
    /// Address of the client.
    pub(crate) address: &'a str,
    /// The reason for its outcome.
    pub(crate) reason: &'a str,
    /// All of it, as JSON.
    pub(crate) line: &'a str,
}

/// Importance of a line, in the order of `loglevel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Level {
    /// For developers; `TRACE` in `tracing`.
    Debug,
    /// Details, often noise; `DEBUG` in `tracing`.
    Verbose,
    /// Of interest to operators; `INFO` in `tracing`.
    Notice,
    /// Problems that operators must see; `WARN` in `tracing`.
    Warning,
    /// Above every line: logs nothing.
    Nothing,
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Debug => Self::Debug,
            LogLevel::Verbose => Self::Verbose,
            LogLevel::Notice => Self::Notice,
            LogLevel::Warning => Self::Warning,
            LogLevel::Nothing => Self::Nothing,
        }
    }
}

/// The log of one node, or of the program around it.
#[derive(Debug)]
pub(crate) struct Log {
    /// The least important level that is logged (`loglevel`). A subscriber may drop more.
    level: AtomicU8,
    /// The run id of the node; none before it has one.
    node: OnceLock<String>,
    /// The node is a replica.
    is_replica: AtomicBool,
    /// A subscriber that replaces the process's.
    subscriber: Option<Dispatch>,
}

impl Log {
    /// A log of events of at least `level`.
    pub(crate) fn new(level: Level) -> Self {
        Self {
            level: AtomicU8::new(level as u8),
            node: OnceLock::new(),
            is_replica: AtomicBool::new(false),
            subscriber: None,
        }
    }

    /// The same log, with its events going to this subscriber.
    pub(crate) fn to(mut self, subscriber: Dispatch) -> Self {
        self.subscriber = Some(subscriber);
        self
    }

    /// Sets the run id of the node. Only the first call has an effect.
    pub(crate) fn name(&self, node: &str) {
        let _ = self.node.set(node.to_owned());
    }

    /// Sets the role of the node, which each of its lines tells.
    pub(crate) fn set_role(&self, is_replica: bool) {
        self.is_replica.store(is_replica, Ordering::Relaxed);
    }

    /// Changes the level.
    pub(crate) fn set_level(&self, level: Level) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    /// Emits an event if its level is logged.
    #[inline]
    pub(crate) fn write(&self, level: Level, text: Arguments<'_>) {
        if level as u8 >= self.level.load(Ordering::Relaxed) {
            self.emit(level, text);
        }
    }

    #[cold]
    fn emit(&self, level: Level, text: Arguments<'_>) {
        self.tell(|node, role| event(level, node, role, text));
    }

    /// Emits an event of the audit log, whatever the level.
    pub(crate) fn audit(&self, told: AuditEvent<'_>) {
        let AuditEvent {
            event,
            outcome,
            user,
            address,
            reason,
            line,
        } = told;
        self.tell(|node, role| {
            info!(target: AUDIT_TARGET, node, role, event, outcome, user, address, reason, "{line}");
        });
    }

    /// Has the subscriber get an event that names the node and its role.
    fn tell(&self, event: impl Fn(&str, &str)) {
        let role = match self.is_replica.load(Ordering::Relaxed) {
            true => "replica",
            false => "primary",
        };
        let event = || match self.node.get() {
            Some(node) => event(node, role),
            None => event("", "starting"),
        };
        match &self.subscriber {
            Some(subscriber) => tracing::dispatcher::with_default(subscriber, event),
            None => event(),
        }
    }

    /// The run id of the node; empty before it has one.
    pub(crate) fn node_name(&self) -> &str {
        self.node.get().map_or("", String::as_str)
    }

    /// Logs a problem that operators must see.
    pub(crate) fn warning(&self, text: Arguments<'_>) {
        self.write(Level::Warning, text);
    }

    /// Logs a message of interest to operators.
    pub(crate) fn notice(&self, text: Arguments<'_>) {
        self.write(Level::Notice, text);
    }

    /// Logs a detail.
    pub(crate) fn verbose(&self, text: Arguments<'_>) {
        self.write(Level::Verbose, text);
    }
}

fn event(level: Level, node: &str, role: &str, text: Arguments<'_>) {
    match level {
        Level::Debug => trace!(target: TARGET, node, role, "{text}"),
        Level::Verbose => debug!(target: TARGET, node, role, "{text}"),
        Level::Notice => info!(target: TARGET, node, role, "{text}"),
        Level::Warning => warn!(target: TARGET, node, role, "{text}"),
        Level::Nothing => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::path::PathBuf;
    use std::sync::Arc;

    /// The lines that a log writes to a file.
    fn written(name: &str, use_log: impl FnOnce(&Log)) -> Vec<String> {
        let path: PathBuf = std::env::temp_dir().join(format!("shardis-log-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let lines = Lines::new(LogOutput::File(path.clone()), None, Arc::new(Clock::real()));
        let log = Log::new(Level::Notice).to(lines.into_dispatch());
        use_log(&log);
        let text = std::fs::read_to_string(&path).unwrap();
        let _ = std::fs::remove_file(&path);
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_have_the_shape_that_tools_parse() {
        let pid = std::process::id();
        let lines = written("shape", |log| {
            log.verbose(format_args!("unwanted"));
            log.notice(format_args!("shardis is starting"));
            log.name("0123");
            log.notice(format_args!("Ready to accept connections tcp"));
            log.warning(format_args!("watch out"));
            log.set_role(true);
            log.notice(format_args!("Connecting to MASTER"));
        });
        let ends = [
            (":C ", " * shardis is starting"),
            (":M ", " * Ready to accept connections tcp"),
            (":M ", " # watch out"),
            (":S ", " * Connecting to MASTER"),
        ];
        assert_eq!(lines.len(), ends.len(), "{lines:?}");
        for (line, (role, end)) in lines.iter().zip(ends) {
            assert!(
                line.starts_with(&format!("{pid}{role}")) && line.ends_with(end),
                "{line}"
            );
        }
    }

    #[test]
    fn audit_lines_are_told_apart_and_have_no_level() {
        let lines = written("audit", |log| {
            log.set_level(Level::Nothing);
            log.audit(AuditEvent {
                event: "login",
                outcome: "denied",
                user: "u",
                address: "a",
                reason: "auth",
                line: "{\"event\":\"login\"}",
            });
        });
        assert!(
            lines.len() == 1 && lines[0].ends_with(" * audit {\"event\":\"login\"}"),
            "{lines:?}"
        );
    }

    #[test]
    fn the_level_can_be_changed() {
        let lines = written("level", |log| {
            log.set_level(Level::Warning);
            log.notice(format_args!("one"));
            log.set_level(Level::Debug);
            log.write(Level::Debug, format_args!("two"));
            log.verbose(format_args!("three"));
            log.set_level(Level::Nothing);
            log.warning(format_args!("four"));
        });
        let ends: Vec<&str> = lines.iter().filter_map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(ends, ["two", "three"]);
        assert!(lines[0].contains(" . ") && lines[1].contains(" - "), "{lines:?}");
    }
}
