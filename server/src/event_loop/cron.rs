//! Periodic work of a loop: freeing memory, client timeouts, figures. Each has a bound, so that no turn becomes long.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::EventLoop;
use super::batches::count_memory;
use crate::exec::Closing;
use crate::limits::RELEASE_SLICE;
use crate::observe::latency;
use crate::observe::stats::Counter;
use crate::scripting::interpreter_bytes;

/// State of the periodic work. Times are in Unix microseconds.
#[derive(Debug)]
pub(super) struct Cron {
    next_us: i64,
    next_second_us: i64,
    last: [u64; 5],
    /// Number of dropped elements of each feed, as of the last warning.
    dropped: Vec<u64>,
    /// Time at which the figures of the last second were taken.
    counted_us: i64,
    sweep: Sweep,
    /// No command ran in the last second.
    was_idle: bool,
}

/// A round over all connections, done in shares.
#[derive(Clone, Copy, Debug, Default)]
struct Sweep {
    from: usize,
    /// Start of the period over which peaks of output buffers are kept, Unix milliseconds.
    peaks_since_ms: i64,
    /// This round resets the peaks.
    forgets_peaks: bool,
}

impl Cron {
    pub(super) fn new(now_us: i64) -> Self {
        Self {
            next_us: now_us,
            next_second_us: now_us,
            last: [0; 5],
            dropped: Vec::new(),
            counted_us: now_us,
            sweep: Sweep::default(),
            was_idle: true,
        }
    }
}

impl EventLoop {
    /// Duration that the loop may sleep when nothing happens.
    pub(super) fn time_to_sleep(&self, busy: bool) -> Duration {
        let expires_us = self.expiry.next_us();
        if busy || expires_us <= self.now_us {
            return Duration::ZERO;
        }
        if !self.node.clock.is_real() {
            // A manual clock stands still, and its advance wakes the loop.
            return Duration::from_secs(3600);
        }
        let mut next_us = self.cron.next_us.min(expires_us);
        if let Some(saves_us) = self.saves_next_us() {
            next_us = next_us.min(saves_us);
        }
        if let Some(&(deadline_ms, _)) = self.clients.deadlines.first() {
            next_us = next_us.min(deadline_ms.saturating_mul(1000));
        }
        if let (false, Some((_, until_ms))) = (
            self.clients.paused.is_empty(),
            self.node.pause.active(self.now_ms()),
        ) {
            next_us = next_us.min(until_ms.saturating_mul(1000));
        }
        // Rounded up, so that the loop does not wake a moment too early and find nothing due.
        Duration::from_micros((next_us - self.now_us).clamp(0, 1_000_000) as u64) + Duration::from_micros(999)
    }

    /// Does the work that is due, as the last step of a turn.
    pub(super) fn run_cron(&mut self) {
        self.release_garbage();
        if self.now_us < self.cron.next_us {
            return;
        }
        if self.node.debug.cron_paused.load(Ordering::Relaxed) {
            self.cron.next_us = self.now_us + 100_000;
            return;
        }
        let hz = i64::from(self.settings.hz.clamp(1, 500));
        self.cron.next_us = self.now_us + 1_000_000 / hz;
        self.sweep_clients(hz);
        self.expire_own();
        self.drop_tracked_keys();
        if self.now_us >= self.cron.next_second_us {
            self.cron.next_second_us = self.now_us + 1_000_000;
            self.every_second();
        }
    }

    /// Frees some of what was flushed or unlinked. Sockets are served between two slices.
    fn release_garbage(&mut self) {
        if !self.has_garbage() {
            return;
        }
        let mesh = std::sync::Arc::clone(&self.reach.mesh);
        let Some(mut held) = mesh.cell(self.index).own() else {
            return;
        };
        let begin_ns = self.node.clock.elapsed_ns();
        count_memory(held.get(), &self.environment(), |partition| {
            partition.release(RELEASE_SLICE)
        });
        let us = (self.node.clock.elapsed_ns() - begin_ns) / 1000;
        self.node.note_latency(&self.settings, latency::LAZY_FREE, us);
    }

    /// Whether there is garbage to free, so that the loop must not sleep.
    pub(super) fn has_garbage(&self) -> bool {
        self.node.garbage[self.index].get() > 0
    }

    /// Closes idle clients, and frees buffers that they do not use: a share of the clients per run, all of them
    /// within a second.
    fn sweep_clients(&mut self, hz: i64) {
        let count = self.clients.connections.len();
        if count == 0 {
            return self.begin_sweep();
        }
        let share = count.div_ceil(hz as usize).max(50);
        let (timeout_s, now_ms) = (self.settings.timeout as i64, self.now_ms());
        let keeps_buffers = self.node.debug.buffers_kept.load(Ordering::Relaxed);
        if self.cron.sweep.from >= self.clients.connections.capacity() {
            self.begin_sweep();
        }
        let first = self.cron.sweep.from;
        let last = (first + share).min(self.clients.connections.capacity());
        for number in first..last {
            let Some(connection) = self.clients.get_mut(number) else {
                continue;
            };
            if self.cron.sweep.forgets_peaks {
                connection.output.forget_peak();
            }
            let idle_ms = now_ms - connection.client.active_ms;
            if idle_ms > 2000 && !keeps_buffers {
                let held_before = connection.output.memory() + self.poll.holds(number).sending;
                connection.input.release();
                connection.output.release();
                connection.socket.release();
                self.poll.release(number);
                let held_now = connection.output.memory() + self.poll.holds(number).sending;
                self.node.stats[self.index]
                    .buffer_shrinks
                    .add(u64::from(held_now < held_before));
            }
            // Subscribers are idle by nature, and a client that waits for a key has a timeout of its own.
            let client = &connection.client;
            let may_time_out =
                timeout_s > 0 && !client.is_subscriber() && client.waits.is_none() && !client.is_primary;
            let idle_too_long = may_time_out && idle_ms > timeout_s * 1000;
            if connection.socket.handshake_bytes().is_some() {
                self.end_late_handshake(number);
            }
            let connection = &self.clients[number];
            if idle_too_long && connection.client.closing == Closing::No {
                self.node.log.verbose(format_args!("Closing idle client"));
                self.node.stats[self.index].timeouts.add(1);
                self.clients.disconnect(number);
            } else {
                self.enforce_output_limit(number);
            }
            self.book_client(number);
        }
        self.cron.sweep.from = last;
    }

    /// Ends a round over the connections, and begins the next.
    fn begin_sweep(&mut self) {
        let (seen, now_ms) = (self.cron.sweep, self.now_ms());
        let forgets_peaks = now_ms - seen.peaks_since_ms >= self.node.debug.peak_ms();
        self.cron.sweep = Sweep {
            peaks_since_ms: if forgets_peaks {
                now_ms
            } else {
                seen.peaks_since_ms
            },
            forgets_peaks,
            ..Sweep::default()
        };
    }

    /// Warns in the log when elements of a feed were dropped.
    fn warn_of_dropped(&mut self) {
        let node = &self.node;
        self.cron.dropped.resize(node.feeds.len(), 0);
        for ((name, state), known) in node.feeds.iter().zip(&mut self.cron.dropped) {
            let dropped = state.dropped();
            if dropped > *known {
                node.log.warning(format_args!(
                    "{} {name} were dropped, because their reader in this process is too slow or gone. Read their channel \
                     faster, give it a larger bound, or choose another SlowListener.",
                    dropped - *known
                ));
                *known = dropped;
            }
        }
    }

    fn every_second(&mut self) {
        if self.index == 0 {
            self.warn_of_dropped();
        }
        let stats = &self.node.stats[self.index];
        self.ledger.next_second(stats);
        let counters = [
            &stats.commands,
            &stats.bytes_in,
            &stats.bytes_out,
            &stats.turns,
            &stats.turn_us,
        ];
        let now = counters.map(Counter::ever);
        let last = std::mem::replace(&mut self.cron.last, now);
        let [commands, bytes_in, bytes_out, turns, turn_us] =
            std::array::from_fn(|index| now[index] - last[index]);
        // A loop that was busy for long takes the figures late: they then cover more than a second. After the machine's
        // clock was set back the span wraps to an endless one, and the rates are 0 for once.
        let elapsed_us = (self.now_us - self.cron.counted_us) as u64;
        self.cron.counted_us = self.now_us;
        let per_second = |count: u64| (count * 1_000_000).checked_div(elapsed_us).unwrap_or_default();
        stats.commands_per_second.set(per_second(commands));
        stats.bytes_in_per_second.set(per_second(bytes_in));
        stats.bytes_out_per_second.set(per_second(bytes_out));
        stats.turns_per_second.set(per_second(turns));
        stats.turn_average_us.set(turn_us / turns.max(1));
        stats.interpreter_bytes.set(interpreter_bytes() as u64);
        self.turn.release_half();
        self.flush_when_idle(commands);
        let mesh = std::sync::Arc::clone(&self.reach.mesh);
        if let Some(mut held) = mesh.cell(self.index).own() {
            held.get().door.watches.prune();
        }
    }

    /// Gives back what the allocator keeps for this thread, once, when a second has passed without commands.
    fn flush_when_idle(&mut self, commands: u64) {
        let is_idle = commands == 0;
        if is_idle && !self.cron.was_idle {
            shardis_storage::memory::flush_thread_cache();
        }
        self.cron.was_idle = is_idle;
    }
}
