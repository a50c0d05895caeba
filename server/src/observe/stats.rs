//! Counters of one loop. Each has one writer, the loop; any thread may read or reset them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::errors::ErrorCounts;
use super::histogram::Histogram;
use crate::limits::SIZE_CLASSES;

/// A counter that one thread writes and others read.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    counted: AtomicU64,
    /// Value at the last reset. A separate word, so that `counted` has only one writer.
    before: AtomicU64,
}

impl Counter {
    /// A counter at zero.
    pub(crate) const fn new() -> Self {
        Self {
            counted: AtomicU64::new(0),
            before: AtomicU64::new(0),
        }
    }

    /// Adds to the counter. Only the owning loop may: a load and a store are cheaper than an atomic addition.
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.counted.store(
            self.counted.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    /// Value since the last reset.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.ever().wrapping_sub(self.before.load(Ordering::Relaxed))
    }

    /// Value since the start, regardless of resets.
    #[inline]
    pub(crate) fn ever(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }

    /// Sets a counter that is a state rather than a count. Only the owning loop may.
    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.counted.store(value, Ordering::Relaxed);
    }

    /// Resets the counter. An addition by the loop at the same moment may still count as before.
    pub(crate) fn reset(&self) {
        self.before.store(self.ever(), Ordering::Relaxed);
    }
}

/// Declares the counters of a loop, and which of them CONFIG RESETSTAT resets.
macro_rules! loop_stats {
    (counts { $($(#[$doc:meta])+ $count:ident,)+ } states { $($(#[$state_doc:meta])+ $state:ident,)+ }) => {
        /// Counters of one loop, on cache lines of their own, so that loops do not slow each other down.
        #[derive(Debug)]
        #[repr(align(128))]
        pub(crate) struct LoopStats {
            $($(#[$doc])+ pub(crate) $count: Counter,)+
            $($(#[$state_doc])+ pub(crate) $state: Counter,)+
            /// Connections that may be evicted, by size class.
            pub(crate) size_classes: [Counter; SIZE_CLASSES],
            /// Error replies, by code.
            pub(crate) error_codes: ErrorCounts,
            /// Counters of each command, by the number of its row.
            pub(crate) by_command: Vec<CommandStats>,
        }

        impl LoopStats {
            fn with(by_command: Vec<CommandStats>) -> Self {
                Self {
                    $($count: Counter::default(),)+
                    $($state: Counter::default(),)+
                    size_classes: [const { Counter::new() }; SIZE_CLASSES],
                    error_codes: ErrorCounts::default(),
                    by_command,
                }
            }

            /// Resets the counters that CONFIG RESETSTAT resets.
            pub(crate) fn reset(&self) {
                $(self.$count.reset();)+
                self.error_codes.reset();
                self.by_command.iter().for_each(CommandStats::reset);
            }
        }
    };
}

loop_stats! {
    counts {
        /// Commands executed by this loop, on any shard.
        commands,
        /// Connections accepted.
        connections,
        /// Connections refused because of `maxclients`.
        rejected,
        /// Bytes read from clients.
        bytes_in,
        /// Bytes written to clients.
        bytes_out,
        /// Reads from sockets that returned bytes, or the end of the connection.
        reads,
        /// Writes to sockets.
        writes,
        /// Error replies.
        errors,
        /// Turns of the loop.
        turns,
        /// Microseconds of those turns, without the waits between them.
        turn_us,
        /// Nanoseconds of those spent on commands.
        command_ns,
        /// Messages taken from the inbox.
        messages,
        /// Batches sent to other shards.
        batches_sent,
        /// Batches that ran on a borrowed shard.
        batches_borrowed,
        /// Commands that ran with several shards lent.
        lends,
        /// Connections closed because of `timeout`, or a full output buffer.
        timeouts,
        /// Connections closed because their output buffer was over its limit.
        output_limit_closes,
        /// Connections closed because their query buffer was over its limit.
        query_limit_closes,
        /// Connections closed because all of them together took more than `maxmemory-clients`.
        evicted_clients,
        /// Output buffers freed because their connections were idle.
        buffer_shrinks,
        /// Output buffers allocated for connections that had none.
        buffer_expands,
        /// Nanoseconds spent on removing expired keys.
        expire_ns,
        /// Microseconds for which memory exceeded `maxmemory`, in periods that have ended.
        over_memory_us,
    }
    states {
        /// Commands of the last second, per second.
        commands_per_second,
        /// Bytes read in the last second.
        bytes_in_per_second,
        /// Bytes written in the last second.
        bytes_out_per_second,
        /// Turns of the last second, per second.
        turns_per_second,
        /// Average length of a turn of the last second, microseconds.
        turn_average_us,
        /// Average time of a short command, as of the last lap without a long one, nanoseconds.
        usual_ns,
        /// Connections that wait for a key.
        blocked,
        /// Connections that wait for a key with a timeout.
        blocked_in_time,
        /// Messages waiting in the inbox when the loop last looked, without those of commands on every shard or loop.
        inbox,
        /// Memory of its connections, bytes.
        client_bytes,
        /// Memory of its interpreter of scripts, bytes.
        interpreter_bytes,
        /// Connections that are subscribed to something.
        pubsub_clients,
        /// Connections that watch keys, none of which is known to have changed.
        watching_clients,
        /// Size of the largest input buffer of its connections in the last seconds, bytes.
        input_max,
        /// Size of the largest output buffer of its connections in the last seconds, bytes.
        output_max,
        /// Time since which memory exceeds `maxmemory`, Unix microseconds; 0 while it does not.
        over_memory_since_us,
        /// The number by which the system knows the loop's thread; 0 when it is not known.
        thread,
    }
}

/// Counters of one command on one loop.
#[derive(Debug, Default)]
pub(crate) struct CommandStats {
    /// Number of executions.
    pub(crate) calls: Counter,
    /// Sum of the durations, nanoseconds. Short commands of one batch share its time evenly.
    pub(crate) nanos: Counter,
    /// Number of refusals before execution.
    pub(crate) rejected: Counter,
    /// Number of executions that failed.
    pub(crate) failed: Counter,
    /// Distribution of the durations; created at the first execution while `latency-tracking` was on.
    pub(crate) histogram: OnceLock<Box<Histogram>>,
}

impl CommandStats {
    fn reset(&self) {
        for counter in [&self.calls, &self.nanos, &self.rejected, &self.failed] {
            counter.reset();
        }
        if let Some(histogram) = self.histogram.get() {
            histogram.reset();
        }
    }
}

impl LoopStats {
    /// Counters of a loop, for so many commands.
    pub(crate) fn new(commands: usize) -> Self {
        Self::with((0..commands).map(|_| CommandStats::default()).collect())
    }

    /// Counts `count` executions of a command that took `nanos` each. If `tracked`, they enter the command's
    /// histogram.
    #[inline]
    pub(crate) fn ran(&self, command: u16, count: u64, nanos: u64, tracked: bool) {
        self.commands.add(count);
        self.command_ns.add(count * nanos);
        let Some(stats) = self.by_command.get(usize::from(command)) else {
            return;
        };
        stats.calls.add(count);
        stats.nanos.add(count * nanos);
        if tracked {
            stats.histogram.get_or_init(Box::default).add(nanos, count);
        }
    }

    /// Counts a command that ran and failed with this error.
    #[cold]
    pub(crate) fn failed(&self, command: u16, line: &[u8]) {
        self.answered_error(line);
        if let Some(stats) = self.by_command.get(usize::from(command)) {
            stats.failed.add(1);
        }
    }

    /// Counts a command that failed with an error that has been counted already.
    #[cold]
    pub(crate) fn failed_as_counted(&self, command: u16) {
        if let Some(stats) = self.by_command.get(usize::from(command)) {
            stats.failed.add(1);
        }
    }

    /// Counts a command that was refused with this error. `None` if the command is unknown.
    #[cold]
    pub(crate) fn refused(&self, command: Option<u16>, line: &[u8]) {
        self.answered_error(line);
        if let Some(stats) = command.and_then(|command| self.by_command.get(usize::from(command))) {
            stats.rejected.add(1);
        }
    }

    /// Counts an error reply.
    #[cold]
    pub(crate) fn answered_error(&self, line: &[u8]) {
        self.errors.add(1);
        self.error_codes.add(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_start_anew_without_a_second_writer() {
        let counter = Counter::default();
        counter.add(5);
        counter.reset();
        assert_eq!((counter.get(), counter.ever()), (0, 5));
        counter.add(2);
        assert_eq!((counter.get(), counter.ever()), (2, 7));
    }

    #[test]
    fn a_reset_leaves_states_alone() {
        let stats = LoopStats::new(2);
        stats.ran(1, 3, 1000, true);
        stats.failed(1, b"ERR no");
        stats.refused(Some(1), b"NOAUTH no");
        stats.client_bytes.set(9);
        assert_eq!((stats.commands.get(), stats.errors.get()), (3, 2));
        stats.reset();
        let command = &stats.by_command[1];
        let counters = [
            &stats.commands,
            &stats.errors,
            &command.calls,
            &command.failed,
            &command.rejected,
        ];
        assert!(counters.iter().all(|counter| counter.get() == 0));
        assert_eq!(stats.client_bytes.get(), 9);
    }
}
