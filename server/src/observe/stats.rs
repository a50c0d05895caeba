//! Counters of one loop. Each has one writer, its loop; anybody reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that one thread writes and others read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds to it. Only the owning loop may: load and store are cheaper than an atomic addition.
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    /// Its value.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it. Only the owning loop may.
    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// What one loop counts. On cache lines of its own, so that loops do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct LoopStats {
    /// Commands executed for this loop's connections.
    pub(crate) commands: Counter,
    /// Connections accepted.
    pub(crate) connections: Counter,
    /// Connections refused because of `maxclients`.
    pub(crate) rejected: Counter,
    /// Bytes read from clients.
    pub(crate) bytes_in: Counter,
    /// Bytes written to clients.
    pub(crate) bytes_out: Counter,
    /// Error replies.
    pub(crate) errors: Counter,
    /// Turns of the loop.
    pub(crate) turns: Counter,
    /// Batches sent to other shards.
    pub(crate) batches_sent: Counter,
    /// Batches that ran on a borrowed shard.
    pub(crate) batches_borrowed: Counter,
    /// Commands that ran with several shards lent.
    pub(crate) lends: Counter,
    /// Connections closed because of `timeout`, or a full output buffer.
    pub(crate) timeouts: Counter,
    /// Connections closed because their output buffer was over its limit.
    pub(crate) output_limit_closes: Counter,
    /// Connections closed because their query buffer was over its limit.
    pub(crate) query_limit_closes: Counter,
    /// Commands of the last second, per second.
    pub(crate) commands_per_second: Counter,
    /// Bytes read in the last second.
    pub(crate) bytes_in_per_second: Counter,
    /// Bytes written in the last second.
    pub(crate) bytes_out_per_second: Counter,
    /// What each command did, by the number of its row.
    pub(crate) by_command: Vec<CommandStats>,
}

/// What one command did on one loop.
#[derive(Debug, Default)]
pub(crate) struct CommandStats {
    /// How often it ran.
    pub(crate) calls: Counter,
    /// How long it ran in all, nanoseconds. Short commands of one batch share its time evenly.
    pub(crate) nanos: Counter,
    /// How often it was refused before it ran.
    pub(crate) rejected: Counter,
    /// How often it ran and failed.
    pub(crate) failed: Counter,
}

impl LoopStats {
    /// Counters of a loop that knows so many commands.
    pub(crate) fn new(commands: usize) -> Self {
        Self {
            by_command: (0..commands).map(|_| CommandStats::default()).collect(),
            ..Self::default()
        }
    }

    /// Counts a command that ran for so long.
    #[inline]
    pub(crate) fn ran(&self, command: u16, nanos: u64) {
        self.commands.add(1);
        if let Some(stats) = self.by_command.get(usize::from(command)) {
            stats.calls.add(1);
            stats.nanos.add(nanos);
        }
    }

    /// Counts a command that ran and failed.
    #[cold]
    pub(crate) fn failed(&self, command: u16) {
        self.errors.add(1);
        if let Some(stats) = self.by_command.get(usize::from(command)) {
            stats.failed.add(1);
        }
    }

    /// Starts the counters of CONFIG RESETSTAT anew. Only the owning loop may.
    pub(crate) fn reset(&self) {
        for counter in [
            &self.commands,
            &self.connections,
            &self.rejected,
            &self.bytes_in,
            &self.bytes_out,
            &self.errors,
            &self.turns,
            &self.batches_sent,
            &self.batches_borrowed,
            &self.lends,
            &self.timeouts,
            &self.output_limit_closes,
            &self.query_limit_closes,
        ] {
            counter.set(0);
        }
        for command in &self.by_command {
            for counter in [&command.calls, &command.nanos, &command.rejected, &command.failed] {
                counter.set(0);
            }
        }
    }
}
