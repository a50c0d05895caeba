//! Step 4 of a turn: writes replies, and closes connections.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::EventLoop;
use crate::connection::Connection;
use crate::connection::output::Written;
use crate::dispatch::script;
use crate::exec::Closing;
use crate::journal::{Journal, Position};
use crate::limits::LARGE_OUTPUT_BYTES;

impl EventLoop {
    /// Step 4: writes every connection that has output, once.
    pub(super) fn write(&mut self) {
        self.deliver_invalidations();
        let barrier = self.settle_journal();
        self.write_behind(barrier);
    }

    /// Has the effects of the turn written before replies tell of them. Returns the position that all replies of the turn wait for,
    /// since they may tell of anything before it.
    fn settle_journal(&mut self) -> Position {
        let node = &self.node;
        node.reporting(&self.settings, |reporter| node.journal.settle(reporter))
    }

    /// Writes the connections that have output, as soon as the journal has reached this position and what each of them wrote.
    fn write_behind(&mut self, barrier: Position) {
        let (mut written, mut writes, mut unfinished) = (0, 0, Vec::new());
        for number in std::mem::take(&mut self.clients.dirty) {
            let Some(connection) = self.clients.get_mut(number) else {
                continue;
            };
            connection.is_dirty = false;
            let barrier = connection.waits_for(barrier);
            if !self.reach.recorder.has_reached(barrier) {
                self.clients.hold(number, barrier);
                continue;
            }
            writes += 1;
            let had_room = connection.output.has_room();
            let stats = &self.node.stats[self.index];
            let mut waiting = connection.output.bytes();
            if waiting >= LARGE_OUTPUT_BYTES {
                // A slow reader has some on its way already, in a buffer that goes as a whole.
                waiting += self.poll.holds(number).being_sent();
            }
            self.ledger.note_output(waiting, stats);
            let before = written;
            let outcome = connection
                .output
                .write(&mut self.poll.link(&mut connection.socket, number), &mut written);
            connection.bytes_out += written - before;
            match outcome {
                Ok(outcome) => {
                    if outcome == Written::More {
                        unfinished.push(number);
                    }
                    let done = outcome == Written::All;
                    let answered = done && connection.output.in_flight() == 0;
                    if answered
                        && connection.client.closing == Closing::AfterReply
                        && !self.poll.is_sending(number)
                    {
                        connection.client.closing = Closing::Now;
                    }
                    if !done && self.enforce_output_limit(number) {
                        // The connection is already on the list of those to be closed.
                    } else if !had_room || self.clients[number].input.has_unparsed() {
                        self.clients.enqueue(number);
                    }
                }
                Err(_) => connection.client.closing = Closing::Now,
            }
            if self.clients[number].client.closing == Closing::Now {
                self.clients.closing.push(number);
            }
            self.book_client(number);
        }
        unfinished
            .into_iter()
            .for_each(|number| self.clients.mark_dirty(number));
        if written > 0 {
            let stats = &self.node.stats[self.index];
            stats.bytes_out.add(written);
            stats.writes.add(writes);
        }
    }

    /// The journal, if connections wait for it.
    fn awaited_journal(&self) -> Option<&Arc<Journal>> {
        let journal = self.reach.recorder.journal();
        journal.filter(|_| !self.clients.held.is_empty())
    }

    /// Whether connections may go on that wait for the journal. If not, the loop is rung when the journal reaches more.
    pub(super) fn has_released(&self) -> bool {
        let Some(journal) = self.awaited_journal() else {
            return false;
        };
        // In this order, or it might be reached unnoticed.
        journal.await_more();
        let may_go_on = |&number: &usize| {
            let connection = self.clients.get(number);
            connection.is_none_or(|connection| journal.has_reached(connection.held_until.unwrap_or_default()))
        };
        self.clients.held.iter().any(may_go_on)
    }

    /// Has connections go on for which the journal has reached what they wait for. Their output leaves before anything is added to it,
    /// which may have to wait again.
    pub(super) fn release_held(&mut self) {
        let Some(journal) = self.awaited_journal().map(Arc::clone) else {
            return;
        };
        let others = std::mem::take(&mut self.clients.dirty);
        for number in std::mem::take(&mut self.clients.held) {
            let Some(connection) = self.clients.get_mut(number) else {
                continue;
            };
            let Some(until) = connection.held_until else {
                continue;
            };
            if journal.has_reached(until) {
                connection.held_until = None;
                connection.is_dirty = true;
                self.clients.dirty.push(number);
                self.clients.enqueue(number);
            } else {
                self.clients.held.push(number);
            }
        }
        self.write_behind(Position::default());
        self.clients.dirty.extend(others);
    }

    /// Closes the connections that are to be closed.
    pub(super) fn close_connections(&mut self) {
        for number in std::mem::take(&mut self.clients.closing) {
            if self.applying.is_by(number) {
                self.refuse_stream(number);
                continue;
            }
            if self.clients.get(number).is_some_and(Connection::has_begun) {
                // The command runs all the same, as it would on one shard; the connection is closed after that.
                continue;
            }
            if let Some(mut connection) = self.clients.connections.try_remove(number) {
                // The subscriptions end before the client can see that the connection is closed.
                connection.client.leave_all(&self.node.pubsub);
                connection.client.end_tracking(&self.node.tracking);
                self.ledger.forget(&mut connection, &self.node.stats[self.index]);
                self.poll.remove(&mut connection.socket, number);
                if connection.client.monitor {
                    self.monitor_left(number);
                }
                if let Some(ticket) = &connection.client.waits {
                    self.forget_wait(ticket);
                }
                if connection.client.is_paused {
                    self.clients.paused.retain(|&paused| paused != number);
                    self.count_blocked();
                }
                self.node.clients.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Writes the remaining output, as far as sockets take it without waiting. Replies that wait for the append-only file leave if it
    /// can be synced now.
    pub(super) fn farewell(&mut self) {
        script::abandon();
        if !self.node.has_failed() {
            let node = &self.node;
            node.reporting(&self.settings, |reporter| node.journal.pass_all(reporter));
        }
        self.clients.dirty = self
            .clients
            .connections
            .iter()
            .map(|(number, _)| number)
            .collect();
        self.write();
        // With io_uring, writes are submitted by the next wait.
        let _ = self.poll.wait(Duration::ZERO, |_| {});
        for (number, connection) in &mut self.clients.connections {
            self.poll.end(&mut connection.socket, number);
        }
    }
}
