//! What the connections of a loop take, booked as it changes; and the limits on it: of one connection's output and input, and
//! of all connections together.
//!
//! The figures are published in the loop's counters, so that each loop knows what all take. When that is more than
//! `maxmemory-clients`, the largest go first, wherever they are: by size class, since a loop knows of the others how many they
//! have of each.

use super::EventLoop;
use crate::connection::{Booked, Connection};
use crate::exec::Closing;
use crate::limits::{PEAK_SECONDS, SIZE_CLASSES};
use crate::observe::stats::{Counter, LoopStats};

/// The sums over the connections of a loop.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Memory that they take.
    bytes: u64,
    /// How many are subscribed to something.
    subscribers: u64,
    /// How many watch keys.
    watchers: u64,
    /// The largest buffers for what clients have sent.
    inputs: Peaks,
    /// The largest buffers for what clients are to get.
    outputs: Peaks,
    /// The operator knows that all are over the limit and none of them may be evicted.
    has_complained: bool,
}

/// The largest value of each of the last seconds.
#[derive(Debug, Default)]
struct Peaks {
    seconds: [u64; PEAK_SECONDS],
    /// The largest of them.
    max: u64,
}

impl Peaks {
    /// Takes a value of this second into account.
    #[inline]
    fn note(&mut self, value: usize, published: &Counter) {
        if value as u64 > self.seconds[0] {
            self.seconds[0] = value as u64;
            self.max = self.max.max(value as u64);
            published.set(self.max);
        }
    }

    /// Another second has begun.
    fn next_second(&mut self, published: &Counter) {
        self.seconds.rotate_right(1);
        self.seconds[0] = 0;
        self.max = self.seconds.into_iter().max().unwrap_or_default();
        published.set(self.max);
    }
}

impl Ledger {
    /// Books a connection as it is now, if that has changed; `held` is what the loop's poll has allocated for it.
    #[inline]
    pub(super) fn book(&mut self, connection: &mut Connection, held: usize, stats: &LoopStats) {
        let booked = Booked::of(connection, connection.memory(held));
        if booked != connection.booked {
            self.replace(&mut connection.booked, booked, stats);
        }
    }

    /// Forgets a connection that is about to go.
    pub(super) fn forget(&mut self, connection: &mut Connection, stats: &LoopStats) {
        self.replace(&mut connection.booked, Booked::default(), stats);
    }

    fn replace(&mut self, place: &mut Booked, booked: Booked, stats: &LoopStats) {
        let before = std::mem::replace(place, booked);
        self.bytes = self.bytes - before.bytes as u64 + booked.bytes as u64;
        stats.client_bytes.set(self.bytes);
        if before.is_subscriber != booked.is_subscriber {
            self.subscribers =
                self.subscribers - u64::from(before.is_subscriber) + u64::from(booked.is_subscriber);
            stats.pubsub_clients.set(self.subscribers);
        }
        if before.is_watching != booked.is_watching {
            self.watchers = self.watchers - u64::from(before.is_watching) + u64::from(booked.is_watching);
            stats.watching_clients.set(self.watchers);
        }
        if booked.has_buffer && !before.has_buffer {
            stats.buffer_expands.add(1);
        }
        let (old, new) = (before.size_class(), booked.size_class());
        if old != new {
            let count = |class: usize| &stats.size_classes[class];
            if let Some(old) = old {
                count(old).set(count(old).get() - 1);
            }
            if let Some(new) = new {
                count(new).set(count(new).get() + 1);
            }
        }
    }

    /// Notes how much a client has sent that waits to be executed.
    #[inline]
    pub(super) fn note_input(&mut self, bytes: usize, stats: &LoopStats) {
        self.inputs.note(bytes, &stats.input_max);
    }

    /// Notes how much output has piled up.
    #[inline]
    pub(super) fn note_output(&mut self, bytes: usize, stats: &LoopStats) {
        self.outputs.note(bytes, &stats.output_max);
    }

    /// Another second has begun.
    pub(super) fn next_second(&mut self, stats: &LoopStats) {
        self.inputs.next_second(&stats.input_max);
        self.outputs.next_second(&stats.output_max);
    }
}

impl EventLoop {
    /// Books a connection as it is now.
    #[inline]
    pub(super) fn book_client(&mut self, number: usize) {
        let Self {
            clients,
            ledger,
            poll,
            node,
            index,
            ..
        } = self;
        if let Some(connection) = clients.get_mut(number) {
            ledger.book(connection, poll.memory(number), &node.stats[*index]);
        }
    }

    /// A connection's line in CLIENT LIST, for the log.
    pub(super) fn described(&self, number: usize) -> String {
        let Some(connection) = self.clients.get(number) else {
            return String::new();
        };
        let buffers = connection.measure(self.poll.holds(number));
        connection.client.describe(&buffers, self.now_ms(), 0)
    }

    /// Closes a connection if more output has piled up than it may have, or for longer than it may. True when it is closed.
    pub(super) fn enforce_output_limit(&mut self, number: usize) -> bool {
        let now_ms = self.now_ms();
        let Some(connection) = self.clients.get_mut(number) else {
            return false;
        };
        let limits = &self.settings.client_output_buffer_limit;
        let unsent = self.poll.holds(number).unsent;
        let is_over = connection.client.closing != Closing::Now
            && connection.is_over_output_limit(limits, unsent, now_ms);
        if is_over {
            self.close_for_output(number);
        }
        is_over
    }

    /// Closes a connection that has got more output than it may have.
    #[cold]
    pub(super) fn close_for_output(&mut self, number: usize) {
        let line = self.described(number);
        if let Some(connection) = self.clients.get_mut(number) {
            connection.output.refuse();
            self.close_refused(number, &line);
        }
    }

    /// Closes a connection whose output was dropped; the line is what CLIENT LIST said of it before.
    #[cold]
    pub(super) fn close_refused(&mut self, number: usize, line: &str) {
        let is_closing = |connection: &Connection| connection.client.closing == Closing::Now;
        if self.clients.get(number).is_none_or(is_closing) {
            return;
        }
        self.node.stats[self.index].output_limit_closes.add(1);
        self.node.log.warning(format_args!(
            "Client {line} closed for overcoming of output buffer limits."
        ));
        self.clients.disconnect(number);
    }

    /// Closes a connection if more of what it has sent waits to be executed than may. True when it is closed.
    pub(super) fn enforce_input_limit(&mut self, number: usize) -> bool {
        let limit = self.settings.client_query_buffer_limit as usize;
        let connection = &self.clients[number];
        // What a transaction has queued waits for its execution, too.
        let queued = connection.client.transaction.as_ref();
        if connection.input.bytes() + queued.map_or(0, |transaction| transaction.bytes) <= limit {
            return false;
        }
        let line = self.described(number);
        self.node.stats[self.index].query_limit_closes.add(1);
        self.node.log.warning(format_args!(
            "Closing client that reached max query buffer length: {line}"
        ));
        self.clients.disconnect(number);
        true
    }

    /// Closes the largest connections of this loop, if all connections of the node take more than `maxmemory-clients` and
    /// none on another loop is larger.
    pub(super) fn evict_clients(&mut self) {
        let limit = self.settings.maxmemory_clients.bytes(self.settings.maxmemory);
        if limit == 0 || self.client_bytes() < limit {
            self.ledger.has_complained = false;
            return;
        }
        while self.client_bytes() >= limit {
            let Some(class) = self.largest_class() else {
                return self.complain_of_clients();
            };
            if self.node.stats[self.index].size_classes[class].get() == 0 {
                return self.ring_loops_with(class);
            }
            self.evict_of_class(class, limit);
        }
        self.close_connections();
    }

    /// Memory that all connections of the node take.
    fn client_bytes(&self) -> u64 {
        self.node.stats.iter().map(|stats| stats.client_bytes.get()).sum()
    }

    /// The largest size class that any loop has connections of.
    fn largest_class(&self) -> Option<usize> {
        let has = |class: &usize| {
            self.node
                .stats
                .iter()
                .any(|stats| stats.size_classes[*class].get() > 0)
        };
        (0..SIZE_CLASSES).rev().find(has)
    }

    /// Has loops look at the limit that have connections of a size class.
    fn ring_loops_with(&mut self, class: usize) {
        for (number, stats) in self.node.stats.iter().enumerate() {
            if stats.size_classes[class].get() > 0 {
                self.reach.mesh.ring(number);
            }
        }
        self.close_connections();
    }

    /// Closes connections of this loop that are of a size class, the largest first, until the limit is kept.
    fn evict_of_class(&mut self, class: usize, limit: u64) {
        let connections = self.clients.connections.iter();
        let mut found: Vec<(usize, usize)> = connections
            .filter(|(_, connection)| connection.booked.size_class() == Some(class))
            .map(|(number, connection)| (connection.booked.bytes, number))
            .collect();
        found.sort_unstable_by(|one, other| other.cmp(one));
        for (_, number) in found {
            if self.client_bytes() < limit {
                return;
            }
            self.evict_client(number);
        }
    }

    fn evict_client(&mut self, number: usize) {
        let line = self.described(number);
        self.clients.disconnect(number);
        let stats = &self.node.stats[self.index];
        self.ledger.forget(&mut self.clients[number], stats);
        stats.evicted_clients.add(1);
        self.node.log.notice(format_args!("Evicting client: {line}"));
    }

    fn complain_of_clients(&mut self) {
        if !std::mem::replace(&mut self.ledger.has_complained, true) {
            self.node.log.warning(format_args!(
                "Over client maxmemory after evicting all evictable clients"
            ));
        }
        self.close_connections();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_forgotten_in_time() {
        let (mut peaks, published) = (Peaks::default(), Counter::default());
        for value in [10, 500, 20] {
            peaks.note(value, &published);
        }
        assert_eq!(published.get(), 500);
        for _ in 1..PEAK_SECONDS {
            peaks.next_second(&published);
            peaks.note(30, &published);
            assert_eq!(published.get(), 500);
        }
        peaks.next_second(&published);
        assert_eq!(published.get(), 30);
    }
}
