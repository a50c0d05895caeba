//! [`Progress`]: what a load tells while it goes on, and what slows or stops it.

use std::thread::sleep;
use std::time::Duration;

use super::{Failure, LoadReason};
use crate::limits::LOAD_REPORT_SECONDS;
use crate::scripting::Means;
use crate::state::Node;

/// Progress of a load.
pub(super) struct Progress<'a> {
    node: &'a Node,
    /// Bytes of files that were loaded before.
    passed: u64,
    /// Place in the file from which progress is noted again.
    next_note: u64,
    /// Time of the next line about it, on the node's stopwatch.
    next_line_ns: u64,
    /// `key-load-delay`: microseconds per key; if negative, a microsecond per so many keys.
    delay: i32,
    delayed: u32,
    /// Number of keys that were left out because they had expired.
    pub(super) expired: u64,
}

impl<'a> Progress<'a> {
    /// The progress of the load of a file, after files of so many bytes.
    pub(super) fn new(node: &'a Node, passed: u64) -> Self {
        Self {
            node,
            passed,
            next_note: 0,
            next_line_ns: node.clock.elapsed_ns() + LOAD_REPORT_SECONDS * 1_000_000_000,
            delay: node.settings.load().key_load_delay,
            delayed: 0,
            expired: 0,
        }
    }

    /// Notes how much was read.
    ///
    /// # Errors
    /// When the node is to stop.
    #[inline]
    pub(super) fn note(&mut self, offset: u64) -> Result<(), Failure> {
        if offset < self.next_note && self.delay == 0 {
            return Ok(());
        }
        self.note_now(offset)
    }

    fn note_now(&mut self, offset: u64) -> Result<(), Failure> {
        let settings = self.node.settings.load();
        self.delay = settings.key_load_delay;
        self.next_note = offset + settings.loading_process_events_interval_bytes;
        self.node.loading.note_bytes(self.passed + offset);
        let now_ns = self.node.clock.elapsed_ns();
        if now_ns >= self.next_line_ns {
            self.next_line_ns = now_ns + LOAD_REPORT_SECONDS * 1_000_000_000;
            self.report();
        }
        if self.node.shutdown.is_requested() || self.node.loading.is_given_up() {
            return Err(Failure::nowhere(LoadReason::Stopped));
        }
        Ok(())
    }

    fn report(&self) {
        if let Some(progress) = self.node.loading.progress() {
            let now_s = self.node.clock.now_us() / 1_000_000;
            self.node.log.notice(format_args!(
                "Loading DB in memory: {:.1}% ({} of {} bytes), {} seconds left",
                progress.percent(),
                progress.bytes_loaded,
                progress.bytes_total,
                progress.seconds_left(now_s),
            ));
        }
    }

    /// Waits before a key as long as `key-load-delay` says.
    #[inline]
    pub(super) fn delay(&mut self) {
        match self.delay {
            0 => {}
            1.. => sleep(Duration::from_micros(u64::from(self.delay.unsigned_abs()))),
            _ => {
                self.delayed += 1;
                if self.delayed >= self.delay.unsigned_abs() {
                    self.delayed = 0;
                    sleep(Duration::from_micros(1));
                }
            }
        }
    }

    /// Logs a remark of the writer of a file, or notes it.
    pub(super) fn aux(&self, name: &[u8], value: &[u8]) {
        let (node, log) = (self.node, &self.node.log);
        let shown = value.escape_ascii();
        let number = || {
            std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<u64>().ok())
        };
        match name {
            b"redis-ver" => log.notice(format_args!("Loading RDB produced by version {shown}")),
            b"valkey-ver" => log.notice(format_args!("Loading RDB produced by Valkey version {shown}")),
            b"ctime" => {
                let now_s = node.clock.now_us() / 1_000_000;
                let written_s = number().and_then(|at| i64::try_from(at).ok()).unwrap_or(now_s);
                // A file of the future is as new as can be.
                let age_s = (now_s - written_s).max(0);
                log.notice(format_args!("RDB age {age_s} seconds"));
            }
            b"used-mem" => {
                let bytes = number().unwrap_or(0);
                let megabytes = bytes as f64 / (1 << 20) as f64;
                log.notice(format_args!("RDB memory usage when created {megabytes:.2} Mb"));
                node.loading.note_used_memory(bytes);
            }
            b"aof-base" if number() == Some(1) => log.notice(format_args!("RDB is base AOF")),
            [b'%', ..] => log.notice(format_args!("RDB '{}': {shown}", name.escape_ascii())),
            _ => {}
        }
    }

    /// Parts of the node that a library of functions may use.
    pub(super) fn means(&self) -> Means<'_> {
        Means {
            clock: &self.node.clock,
            log: &self.node.log,
        }
    }
}
