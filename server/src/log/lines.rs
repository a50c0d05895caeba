//! A subscriber that writes events as Redis writes its log: `<pid>:<role> <date> <level mark> <text>`.
//!
//! Lines go to standard output or to a file, and to the system's log beside it. The file is opened for each line, so that it
//! can be rotated under a running server.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{Timestamp, tz::TimeZone};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

use super::{AUDIT_TARGET, Syslog, TARGET};
use crate::clock::Clock;

/// Destination of log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogOutput {
    /// Standard output.
    Stdout,
    /// This file, appended to.
    File(PathBuf),
}

/// The subscriber.
#[derive(Debug)]
pub(crate) struct Lines {
    output: LogOutput,
    syslog: Option<Syslog>,
    /// Clock for the time of each line.
    clock: Arc<Clock>,
    /// Locked while a line is written, so that lines do not mix.
    turn: Mutex<()>,
}

impl Lines {
    /// A subscriber that writes to these destinations.
    pub(crate) fn new(output: LogOutput, syslog: Option<Syslog>, clock: Arc<Clock>) -> Self {
        Self {
            output,
            syslog,
            clock,
            turn: Mutex::new(()),
        }
    }

    /// The subscriber in the form that `tracing` takes.
    pub(crate) fn into_dispatch(self) -> Dispatch {
        Dispatch::new(Registry::default().with(self))
    }

    /// Writes one line. A line that cannot be written is lost, as there is nowhere to report it.
    fn write(&self, level: Level, line: &Line) {
        let now = Timestamp::from_microsecond(self.clock.now_us()).unwrap_or_default();
        let time = now.to_zoned(TimeZone::system());
        let text = format!(
            "{}:{} {} {} {}\n",
            std::process::id(),
            line.role,
            time.strftime("%d %b %Y %H:%M:%S%.3f"),
            mark(level),
            line.text
        );
        let _turn = self.turn.lock();
        let _ = match &self.output {
            LogOutput::Stdout => std::io::stdout().write_all(text.as_bytes()),
            LogOutput::File(path) => OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .and_then(|mut file| file.write_all(text.as_bytes())),
        };
        if let Some(syslog) = &self.syslog {
            syslog.send(level, &time, &line.text);
        }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_ours(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        is_ours(metadata)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        if event.metadata().target() == AUDIT_TARGET {
            line.text.insert_str(0, "audit ");
        }
        self.write(*event.metadata().level(), &line);
    }
}

/// Whether an event is one of a node, or of its audit log.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    [TARGET, AUDIT_TARGET].contains(&metadata.target())
}

/// The character for a level in a line.
fn mark(level: Level) -> char {
    match level {
        Level::TRACE => '.',
        Level::DEBUG => '-',
        Level::INFO => '*',
        _ => '#',
    }
}

/// The parts of a line from the fields of its event.
#[derive(Debug)]
struct Line {
    role: char,
    text: String,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            role: 'M',
            text: String::new(),
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "role" => {
                self.role = match value {
                    "starting" => 'C',
                    "replica" => 'S',
                    "sentinel" => 'X',
                    _ => 'M',
                }
            }
            "message" => self.text.push_str(value),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.text = format!("{value:?}");
        }
    }
}
