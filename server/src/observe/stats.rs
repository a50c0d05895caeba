//! Counters of one loop. Each has one writer, its loop; anybody reads, and anybody may start them anew.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::errors::ErrorCounts;
use super::histogram::Histogram;
use crate::limits::SIZE_CLASSES;

/// A counter that one thread writes and others read.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    counted: AtomicU64,
    /// What it had counted when it was started anew. A word of its own, so that `counted` keeps to one writer.
    before: AtomicU64,
}

impl Counter {
    /// A counter of nothing yet.
    pub(crate) const fn new() -> Self {
        Self {
            counted: AtomicU64::new(0),
            before: AtomicU64::new(0),
        }
    }

    /// Adds to it. Only the owning loop may: load and store are cheaper than an atomic addition.
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.counted.store(
            self.counted.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    /// Its value.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.ever().wrapping_sub(self.before.load(Ordering::Relaxed))
    }

    /// What it has counted since the start, whatever was reset.
    #[inline]
    pub(crate) fn ever(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }

    /// Sets it, where it tells a state rather than counts. Only the owning loop may.
    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.counted.store(value, Ordering::Relaxed);
    }

    /// Starts it anew. What its loop adds at the same moment may count as before.
    pub(crate) fn reset(&self) {
        self.before.store(self.ever(), Ordering::Relaxed);
    }
}

/// Declares what a loop counts, and which of it CONFIG RESETSTAT starts anew.
macro_rules! loop_stats {
    (counts { $($(#[$doc:meta])+ $count:ident,)+ } states { $($(#[$state_doc:meta])+ $state:ident,)+ }) => {
        /// What one loop counts. On cache lines of its own, so that loops do not slow each other down.
        #[derive(Debug)]
        #[repr(align(128))]
        pub(crate) struct LoopStats {
            $($(#[$doc])+ pub(crate) $count: Counter,)+
            $($(#[$state_doc])+ pub(crate) $state: Counter,)+
            /// Connections that may be evicted, by size class.
            pub(crate) size_classes: [Counter; SIZE_CLASSES],
            /// Error replies, by code.
            pub(crate) error_codes: ErrorCounts,
            /// What each command did, by the number of its row.
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

            /// Starts what CONFIG RESETSTAT resets anew.
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
        /// Commands that this loop executed, on whatever shard.
        commands,
        /// Connections accepted.
        connections,
        /// Connections refused because of `maxclients`.
        rejected,
        /// Bytes read from clients.
        bytes_in,
        /// Bytes written to clients.
        bytes_out,
        /// Reads from sockets that brought something, or their end.
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
        /// Output buffers that were given back because their connections were idle.
        buffer_shrinks,
        /// Output buffers that connections got which had none.
        buffer_expands,
        /// Nanoseconds spent on removing expired keys.
        expire_ns,
        /// Microseconds for which memory was over `maxmemory`, up to the last time it was not.
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
        /// What a short command took when last some ran without a long one among them, nanoseconds.
        usual_ns,
        /// Connections that wait for a key.
        blocked,
        /// Those of them that do so for a limited time.
        blocked_in_time,
        /// Messages that waited in the inbox when the loop last looked, but for those of commands on every shard or loop.
        inbox,
        /// Bytes that its connections take.
        client_bytes,
        /// Connections that are subscribed to something.
        pubsub_clients,
        /// Connections that watch keys, none of which is known to have changed.
        watching_clients,
        /// The largest input buffer that one of its connections had in the last seconds.
        input_max,
        /// The largest output buffer that one of its connections had in the last seconds.
        output_max,
        /// Since when memory is over `maxmemory`, Unix microseconds; 0 when it is not.
        over_memory_since_us,
        /// The number by which the system knows the loop's thread; 0 when it is not known.
        thread,
    }
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
    /// How long it ran each time; made when it first ran while `latency-tracking` was on.
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
    /// Counters of a loop that knows so many commands.
    pub(crate) fn new(commands: usize) -> Self {
        Self::with((0..commands).map(|_| CommandStats::default()).collect())
    }

    /// Counts a command that ran so often, so many nanoseconds each time. `tracked` has it enter the command's histogram.
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

    /// Counts a command that was refused with this error before it ran. `None` where no command could be told.
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
