//! Accounts for commands that have run: counters, slow log, latency monitor, and the lines for monitors.

use std::sync::Arc;

use shardis_protocol::Arguments;

use super::EventLoop;
use crate::daemon::Witness;
use crate::dispatch::account;
use crate::exec::{Closing, ReplyMode};
use crate::limits::{MONITOR_BATCH_BYTES, MONITOR_UNDER_WAY_BYTES};
use crate::observe::slowlog::Slow;
use crate::shard::inbox::Task;
use crate::spec::Registered;

impl EventLoop {
    /// Accounts for a command of a connection of this loop that ran outside batches.
    pub(super) fn account_for(
        &mut self,
        number: usize,
        command: &'static Registered,
        args: Arguments<'_>,
        nanos: u64,
    ) {
        self.count_run(number, command, args, nanos);
        self.show(number, command, args);
    }

    /// Accounts for a command like [`account_for`](Self::account_for), without a line for monitors, which have one
    /// already.
    pub(super) fn count_run(
        &self,
        number: usize,
        command: &'static Registered,
        args: Arguments<'_>,
        nanos: u64,
    ) {
        let tracked = self.settings.latency_tracking;
        self.node.stats[self.index].ran(command.id, 1, nanos, tracked);
        if nanos >= account::slow_from_ns(&self.settings) {
            let client = self.clients.get(number).map(|connection| &connection.client);
            let slow = account::slow(command, account::words(command, args), nanos);
            account::enter(&self.node, &self.settings, client, slow);
        }
    }

    /// Enters the slow commands of a batch.
    pub(super) fn enter_slow(&self, slow: impl IntoIterator<Item = (Task, Slow)>) {
        for (task, slow) in slow {
            let client = self
                .clients
                .get(task.connection as usize)
                .map(|connection| &connection.client)
                .filter(|client| client.id as u32 == task.client);
            account::enter(&self.node, &self.settings, client, slow);
        }
    }

    /// Shows a command of a connection of this loop to all monitors of the node.
    #[inline]
    pub(super) fn show(&mut self, number: usize, command: &'static Registered, args: Arguments<'_>) {
        if !self.node.monitors.are_there() {
            return;
        }
        let Some(connection) = self.clients.get(number) else {
            return;
        };
        account::show(
            &mut self.turn.lines,
            &self.node,
            &connection.client,
            command,
            args,
        );
        self.hand_on_full_lines();
    }

    /// Sends the lines of the turn to all loops that have monitors, when there are many.
    pub(super) fn hand_on_full_lines(&mut self) {
        if self.turn.lines.len() >= MONITOR_BATCH_BYTES {
            self.hand_on_lines();
        }
    }

    /// Sends the lines of the turn to all loops that have monitors.
    pub(super) fn hand_on_lines(&mut self) {
        if self.turn.lines.is_empty() {
            return;
        }
        let lines: Arc<[u8]> = std::mem::take(&mut self.turn.lines).into();
        let (node, mesh) = (Arc::clone(&self.node), Arc::clone(&self.reach.mesh));
        for index in node.monitors.loops() {
            if index == self.index {
                self.push_lines(&lines);
            } else if node.monitors.send(index, lines.len(), MONITOR_UNDER_WAY_BYTES) {
                mesh.send(index, crate::shard::inbox::Message::Monitor(Arc::clone(&lines)));
            }
        }
    }

    /// Takes in lines from another loop.
    pub(super) fn take_in_lines(&mut self, lines: &[u8]) {
        if !self.node.monitors.arrived(self.index, lines.len()) {
            return self.push_lines(lines);
        }
        // A monitor that lost lines is closed, because a stream with gaps is worse than none.
        for number in std::mem::take(&mut self.clients.monitors) {
            self.clients.monitors.push(number);
            self.node.stats[self.index].output_limit_closes.add(1);
            self.node.log.warning(format_args!(
                "A monitor was closed, because its loop did not keep up with the commands of the other loops."
            ));
            self.clients.disconnect(number);
        }
    }

    /// Appends lines to the outputs of the monitors of this loop.
    fn push_lines(&mut self, lines: &[u8]) {
        for index in 0..self.clients.monitors.len() {
            let number = self.clients.monitors[index];
            let Some(connection) = self.clients.get_mut(number) else {
                continue;
            };
            if connection.client.closing != Closing::No || connection.client.reply_mode == ReplyMode::Off {
                continue;
            }
            // The lines go behind the replies that the monitor still waits for.
            let sequence = connection.output.issue();
            connection.output.deliver(sequence, lines);
            self.clients.mark_dirty(number);
        }
    }

    /// Updates the list of monitors after a command has made a connection a monitor, or has ended that.
    pub(super) fn monitor_changed(&mut self, number: usize) {
        if self.clients[number].client.monitor {
            self.clients.monitors.push(number);
            self.node.monitors.join(self.index);
        } else {
            self.monitor_left(number);
        }
    }

    /// Removes a connection from the list of monitors.
    pub(super) fn monitor_left(&mut self, number: usize) {
        self.clients.monitors.retain(|&monitor| monitor != number);
        self.node.monitors.leave(self.index);
    }

    /// Looks at the clock at the end of a turn, and counts the turn's duration.
    pub(super) fn end_turn(&mut self) {
        let now_us = self.node.clock.now_us();
        // The machine's clock may have been set back during the turn.
        let us = u64::try_from(now_us - self.now_us).unwrap_or_default();
        self.node.stats[self.index].turn_us.add(us);
        self.node.deal.end_turn(self.index);
        // The time to sleep is computed from this look.
        self.now_us = now_us;
    }
}

/// In a crash, a loop tells of its connections.
impl Witness for EventLoop {
    type Item = ();

    fn testify(&self, _: &[()]) -> String {
        let now_ms = self.now_ms();
        let lines = self.clients.connections.iter().map(|(number, connection)| {
            let buffers = connection.measure(self.poll.holds(number));
            connection.client.describe(&buffers, now_ms, 0) + "\n"
        });
        lines.collect()
    }
}
