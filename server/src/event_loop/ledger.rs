//! Books the memory of a loop's connections as it changes, and enforces the limits: on the output and input of one
//! connection, and on all connections together.
//!
//! The figures are published in the loop's counters, so that each loop knows the sum over all. When that exceeds
//! `maxmemory-clients`, the largest connections of the node are closed first: loops know how many connections of each
//! size class the others have.

use super::EventLoop;
use crate::connection::{Booked, Connection};
use crate::exec::Closing;
use crate::limits::{PEAK_SECONDS, SIZE_CLASSES};
use crate::observe::stats::{Counter, LoopStats};
use crate::shard::poll::Allocated;

/// Sums over the connections of a loop.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Memory of all connections, bytes.
    bytes: u64,
    /// Number of connections with subscriptions.
    subscribers: u64,
    /// Number of connections that watch keys.
    watchers: u64,
    /// Largest input buffers of the last seconds, bytes.
    inputs: Peaks,
    /// Largest output buffers of the last seconds, bytes.
    outputs: Peaks,
    /// The log has a warning that the limit is exceeded but no connection may be evicted.
    has_complained: bool,
}

/// Largest value of each of the last seconds.
#[derive(Debug, Default)]
struct Peaks {
    seconds: [u64; PEAK_SECONDS],
    /// Largest value of all these seconds.
    max: u64,
}

impl Peaks {
    /// Takes a value of the current second into account.
    #[inline]
    fn note(&mut self, value: usize, published: &Counter) {
        if value as u64 > self.seconds[0] {
            self.seconds[0] = value as u64;
            self.max = self.max.max(value as u64);
            published.set(self.max);
        }
    }

    /// Begins another second.
    fn next_second(&mut self, published: &Counter) {
        self.seconds.rotate_right(1);
        self.seconds[0] = 0;
        self.max = self.seconds.into_iter().max().unwrap_or_default();
        published.set(self.max);
    }
}

impl Ledger {
    /// Books a connection as it is now, if that has changed; `held` are the bytes that the loop's poll has allocated
    /// for it.
    #[inline]
    pub(super) fn book(&mut self, connection: &mut Connection, held: Allocated, stats: &LoopStats) {
        let booked = Booked::of(connection, held);
        if booked != connection.booked {
            self.replace(&mut connection.booked, booked, stats);
        }
    }

    /// Removes a connection that is being closed from the sums.
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

    /// Notes the bytes that a client has sent and that wait to be executed.
    #[inline]
    pub(super) fn note_input(&mut self, bytes: usize, stats: &LoopStats) {
        self.inputs.note(bytes, &stats.input_max);
    }

    /// Notes the bytes of a connection's unsent output.
    #[inline]
    pub(super) fn note_output(&mut self, bytes: usize, stats: &LoopStats) {
        self.outputs.note(bytes, &stats.output_max);
    }

    /// Begins another second.
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
            ledger.book(connection, poll.allocated(number), &node.stats[*index]);
        }
    }

    /// Line of CLIENT LIST for a connection, for the log.
    pub(super) fn described(&self, number: usize) -> String {
        let Some(connection) = self.clients.get(number) else {
            return String::new();
        };
        let buffers = connection.measure(self.poll.holds(number));
        connection.client.describe(&buffers, self.now_ms(), 0)
    }

    /// Closes a connection whose unsent output exceeds its limits. True when it is closed.
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

    /// Closes a connection whose output exceeds its limits.
    #[cold]
    pub(super) fn close_for_output(&mut self, number: usize) {
        let line = self.described(number);
        if let Some(connection) = self.clients.get_mut(number) {
            connection.output.refuse();
            self.close_refused(number, &line);
        }
    }

    /// Closes a connection whose output was dropped; `line` is its line of CLIENT LIST from before.
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

    /// Closes a connection if too much of its input waits to be executed. True when it is closed.
    pub(super) fn enforce_input_limit(&mut self, number: usize) -> bool {
        let limit = self.settings.client_query_buffer_limit as usize;
        let connection = &self.clients[number];
        // Commands queued by a transaction wait for execution, too.
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

    /// Closes the largest connections of this loop, if all connections of the node together exceed
    /// `maxmemory-clients` and no other loop has larger ones.
    pub(super) fn evict_clients(&mut self) {
        let limit = self
            .settings
            .maxmemory_clients
            .bytes(self.settings.maxmemory.bytes());
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

    /// Memory of all connections of the node, bytes.
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

    /// Rings the loops that have connections of a size class, so that they check the limit.
    fn ring_loops_with(&mut self, class: usize) {
        for (number, stats) in self.node.stats.iter().enumerate() {
            if stats.size_classes[class].get() > 0 {
                self.reach.mesh.ring(number);
            }
        }
        self.close_connections();
    }

    /// Closes connections of this loop that are of a size class, the largest first, until the limit is met.
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
