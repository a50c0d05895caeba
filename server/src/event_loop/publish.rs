//! Delivers published messages from the loop's mailbox to the outputs of its connections.

use std::sync::Arc;

use super::EventLoop;
use crate::commands::registry;
use crate::exec::Closing;
use crate::limits::{PUBLISHED_TURN_BYTES, PUSHED_TURNS_MAX};
use crate::pubsub::{Hush, Missed, Publication, Subscriber};
use crate::spec::{Flags, Registered, Runs};
use crate::state::Node;

impl EventLoop {
    /// Delivers messages to connections of this loop, as many as a turn allows; the rest is delivered in the next
    /// turn, when outputs have been written.
    pub(super) fn deliver_published(&mut self) {
        self.deliver_up_to(PUBLISHED_TURN_BYTES);
    }

    /// Whether there are messages to deliver or to write, so that the loop must not sleep.
    pub(super) fn has_published(&self) -> bool {
        !self.published.is_empty() || !self.clients.pushed_to.is_empty()
    }

    /// Writes the connections that have got messages. Writing to all subscribers is nearly the whole cost of
    /// publishing, so while there is other work, the write is delayed for a few turns and combined with further
    /// messages.
    pub(super) fn release_pushed(&mut self, has_work: bool) {
        if self.clients.pushed_to.is_empty() {
            return;
        }
        if has_work && self.clients.pushed_turns < PUSHED_TURNS_MAX {
            self.clients.pushed_turns += 1;
            return;
        }
        self.clients.pushed_turns = 0;
        let mut pushed_to = std::mem::take(&mut self.clients.pushed_to);
        for number in pushed_to.drain(..) {
            let Some(connection) = self.clients.get_mut(number) else {
                continue;
            };
            connection.is_pushed_to = false;
            if connection.output.is_pending() {
                self.clients.mark_dirty(number);
            }
        }
        self.clients.pushed_to = pushed_to;
    }

    fn deliver_up_to(&mut self, bytes_max: usize) {
        let node = Arc::clone(&self.node);
        let mailbox = node.pubsub.mailbox(self.index);
        let missed = mailbox.take(&mut self.published);
        // Whoever published may have changed something before.
        self.deliver_invalidations();
        let mut appended = 0;
        while appended < bytes_max
            && let Some(publication) = self.published.pop_front()
        {
            appended += self.push_to_all(&publication);
            mailbox.delivered(&publication);
        }
        if !missed.is_empty() {
            self.cut_off(&missed);
        }
    }

    /// Appends a message to the outputs of all its receivers. Returns the number of bytes appended.
    fn push_to_all(&mut self, publication: &Publication) -> usize {
        for &subscriber in publication.subscribers.iter() {
            self.push(subscriber, &publication.message);
        }
        publication.message.len() * publication.subscribers.len()
    }

    /// Appends a message to the output of one of its receivers.
    #[inline]
    pub(super) fn push(&mut self, subscriber: Subscriber, message: &[u8]) {
        let number = subscriber.connection as usize;
        let Some(connection) = self.clients.connections.get_mut(number) else {
            return;
        };
        let client = &connection.client;
        if client.id as u32 != subscriber.client || client.closing != Closing::No {
            return;
        }
        let is_large = connection.output.push(message, client.resp);
        self.note_push(number, is_large);
    }

    /// Notes that a connection has got a message. If its output has become large, its limits are checked at once; those of a small
    /// output are checked when it is written.
    #[inline]
    pub(super) fn note_push(&mut self, number: usize, is_large: bool) {
        let connection = &mut self.clients.connections[number];
        if !connection.is_pushed_to {
            connection.is_pushed_to = true;
            self.clients.pushed_to.push(number);
        }
        if is_large {
            self.clients.mark_dirty(number);
            self.enforce_output_limit(number);
        }
    }

    /// Closes connections that a message did not reach.
    #[cold]
    fn cut_off(&mut self, missed: &Missed) {
        for subscriber in missed {
            let number = subscriber.connection as usize;
            let is_here = self
                .clients
                .get(number)
                .is_some_and(|connection| connection.client.id as u32 == subscriber.client);
            if !is_here {
                continue;
            }
            self.node.stats[self.index].output_limit_closes.add(1);
            self.node.log.warning(format_args!(
                "A subscriber was closed, because its loop did not keep up with the messages that were published."
            ));
            self.clients.disconnect(number);
        }
    }

    /// Delivers everything published so far, and keeps other loops from publishing while the guard lives.
    pub(super) fn hush<'n>(&mut self, node: &'n Node) -> Hush<'n> {
        // Most of it is delivered before the lock is taken, so that other loops wait only briefly.
        self.deliver_up_to(usize::MAX);
        let hush = node.pubsub.hush();
        self.deliver_up_to(usize::MAX);
        hush
    }

    /// Whether a command may end subscriptions of its client.
    pub(super) fn leaves_channels(&self, number: usize, command: &Registered) -> bool {
        let client = &self.clients[number].client;
        let leaves = |row: &Registered| row.row.flags.contains(Flags::LEAVES);
        match (command.row.runs, &client.transaction) {
            (Runs::Exec, Some(transaction)) => transaction
                .queue
                .iter()
                .any(|queued| leaves(registry().row(queued.command.id))),
            _ => leaves(command) && client.is_subscriber(),
        }
    }
}
