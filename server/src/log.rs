//! Log lines in the shape that operators' tools expect: `<pid>:<role> <date> <level mark> <text>`.
//!
//! Every node has a log of its own: standard output, a file that is opened for each line (so that it can be rotated under
//! a running server), or nowhere.

use std::fmt::Arguments;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use jiff::{Timestamp, tz::TimeZone};
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::config::LogLevel;

/// How important a line is. The order is that of `loglevel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Level {
    /// For developers.
    Debug,
    /// Often noise.
    Verbose,
    /// What an operator wants to see.
    Notice,
    /// What an operator must see.
    Warning,
    /// Above every line: nothing is logged.
    Nothing,
}

impl Level {
    fn mark(self) -> char {
        match self {
            Self::Debug => '.',
            Self::Verbose => '-',
            Self::Notice => '*',
            Self::Warning | Self::Nothing => '#',
        }
    }
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

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Nowhere: the default when embedded.
    Silent,
    /// Standard output.
    Stdout,
    /// This file, appended to.
    File(PathBuf),
}

/// The log of one node.
#[derive(Debug)]
pub(crate) struct Log {
    level: AtomicU8,
    target: Mutex<Target>,
    /// Tells the time of each line.
    clock: Arc<Clock>,
}

impl Log {
    /// A log that writes lines of at least `level` to `target`.
    pub(crate) fn new(target: Target, level: Level, clock: Arc<Clock>) -> Self {
        Self {
            level: AtomicU8::new(level as u8),
            target: Mutex::new(target),
            clock,
        }
    }

    /// Changes the level.
    pub(crate) fn set_level(&self, level: Level) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    /// Writes a line if its level is wanted. A line that cannot be written is lost: there is nowhere to say so.
    pub(crate) fn write(&self, level: Level, text: Arguments<'_>) {
        if (level as u8) < self.level.load(Ordering::Relaxed) {
            return;
        }
        let target = self.target.lock();
        if *target == Target::Silent {
            return;
        }
        let now = Timestamp::from_microsecond(self.clock.now_us()).unwrap_or_default();
        let time = now
            .to_zoned(TimeZone::system())
            .strftime("%d %b %Y %H:%M:%S%.3f")
            .to_string();
        let line = format!("{}:M {time} {} {text}\n", std::process::id(), level.mark());
        let _ = match &*target {
            Target::Silent => Ok(()),
            Target::Stdout => std::io::stdout().write_all(line.as_bytes()),
            Target::File(path) => OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .and_then(|mut file| file.write_all(line.as_bytes())),
        };
    }

    /// What an operator wants to see.
    pub(crate) fn notice(&self, text: Arguments<'_>) {
        self.write(Level::Notice, text);
    }

    /// What an operator must see.
    pub(crate) fn warning(&self, text: Arguments<'_>) {
        self.write(Level::Warning, text);
    }

    /// Often noise.
    pub(crate) fn verbose(&self, text: Arguments<'_>) {
        self.write(Level::Verbose, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_shape_that_tools_parse() {
        let folder = std::env::temp_dir().join(format!("shardis-log-{}", std::process::id()));
        let log = Log::new(
            Target::File(folder.clone()),
            Level::Notice,
            Arc::new(Clock::real()),
        );
        log.verbose(format_args!("unwanted"));
        log.notice(format_args!("Ready to accept connections tcp"));
        log.warning(format_args!("watch out"));
        let text = std::fs::read_to_string(&folder).unwrap();
        std::fs::remove_file(&folder).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].starts_with(&format!("{}:M ", std::process::id())),
            "{}",
            lines[0]
        );
        assert!(
            lines[0].ends_with(" * Ready to accept connections tcp"),
            "{}",
            lines[0]
        );
        assert!(lines[1].ends_with(" # watch out"), "{}", lines[1]);
    }
}
