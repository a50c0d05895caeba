//! The connections of a loop, and the lists that name those of them for which something is to be done.

use std::collections::BTreeSet;
use std::ops::{Index, IndexMut};

use shardis_protocol::Encoder;
use slab::Slab;

use crate::connection::{Connection, Gate};
use crate::exec::{Closing, ReplyMode};

/// The connections that a loop carries, by number.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// All of them.
    pub(super) connections: Slab<Connection>,
    /// Connections to serve in this turn, or in the next one.
    pub(super) queue: Vec<usize>,
    /// Connections with output to write.
    pub(super) dirty: Vec<usize>,
    /// Connections whose command found a shard taken that it needs, and tries again.
    pub(super) busy: Vec<usize>,
    /// Connections that wait for the end of a CLIENT PAUSE.
    pub(super) paused: Vec<usize>,
    /// Connections that are to be closed.
    pub(super) closing: Vec<usize>,
    /// Connections that see all commands.
    pub(super) monitors: Vec<usize>,
    /// Connections with messages in their output, which may wait a little for more of them.
    pub(super) pushed_to: Vec<usize>,
    /// For how many turns some of them have waited.
    pub(super) pushed_turns: u32,
    /// When the waits of connections end: Unix milliseconds and the connection.
    pub(super) deadlines: BTreeSet<(i64, usize)>,
    /// How many connections wait for a key.
    pub(super) blocked: u64,
}

impl Index<usize> for Clients {
    type Output = Connection;

    #[inline]
    fn index(&self, number: usize) -> &Connection {
        &self.connections[number]
    }
}

impl IndexMut<usize> for Clients {
    #[inline]
    fn index_mut(&mut self, number: usize) -> &mut Connection {
        &mut self.connections[number]
    }
}

impl Clients {
    /// The connection with this number, if there is one.
    #[inline]
    pub(super) fn get(&self, number: usize) -> Option<&Connection> {
        self.connections.get(number)
    }

    /// As [`get`](Self::get), to change it.
    #[inline]
    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Connection> {
        self.connections.get_mut(number)
    }

    /// Puts a connection on the list to serve.
    pub(super) fn enqueue(&mut self, number: usize) {
        if let Some(connection) = self.connections.get_mut(number)
            && !connection.is_queued
        {
            connection.is_queued = true;
            self.queue.push(number);
        }
    }

    /// Puts a connection on the list to write to.
    #[inline]
    pub(super) fn mark_dirty(&mut self, number: usize) {
        if let Some(connection) = self.connections.get_mut(number)
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.dirty.push(number);
        }
    }

    /// Has a connection closed at the end of the turn.
    pub(super) fn disconnect(&mut self, number: usize) {
        if let Some(connection) = self.connections.get_mut(number) {
            connection.client.closing = Closing::Now;
            self.closing.push(number);
        }
    }

    /// Has those connections closed with the turn that a command has marked.
    pub(super) fn disconnect_marked(&mut self) {
        let marked = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.client.closing == Closing::Now);
        self.closing.extend(marked.map(|(number, _)| number));
    }

    /// Serves a connection again if something in its input waits and now may run.
    pub(super) fn wake_if_it_may_go_on(&mut self, number: usize) {
        let Some(connection) = self.connections.get(number) else {
            return;
        };
        // What is closed while its command is under way is served once more, to be closed then.
        let is_over = connection.client.closing == Closing::Now;
        let waits = match connection.gate {
            Gate::Drain(_) => connection.output.in_flight() == 0,
            Gate::Open => {
                connection.output.has_room() && (connection.readable || connection.input.has_unparsed())
            }
            Gate::Busy(_) | Gate::Pause(_) | Gate::UnderWay | Gate::Blocked => false,
        };
        if waits || is_over {
            self.enqueue(number);
        }
    }

    /// Answers the next request of a connection right away, in its place in the order.
    pub(super) fn reply(&mut self, number: usize, write: impl FnOnce(&mut Encoder<'_>)) {
        let Some(connection) = self.connections.get_mut(number) else {
            return;
        };
        let sequence = connection.output.issue();
        let (out, start) = connection.output.begin_at(sequence);
        write(&mut Encoder::new(out, connection.client.resp));
        connection.mute(sequence, start);
        self.conclude(number, sequence, start);
    }

    /// The reply of a command is complete: it goes out in its turn. True when so much output has piled up that the limits
    /// on it should be looked at.
    pub(super) fn conclude(&mut self, number: usize, sequence: u32, start: usize) -> bool {
        let is_large = self.connections[number].output.end(sequence, start);
        self.mark_dirty(number);
        is_large
    }
}

impl Connection {
    /// Drops a reply that CLIENT REPLY keeps from being sent. The command that turns replies on again is answered, the one
    /// that turns them off is not.
    pub(super) fn mute(&mut self, sequence: u32, start: usize) {
        if self.client.reply_mode != ReplyMode::On {
            self.output.begin(sequence).truncate(start);
        }
        self.count_reply_mode();
    }

    /// CLIENT REPLY SKIP lasts for one command after the one that asked for it.
    pub(super) fn count_reply_mode(&mut self) {
        self.client.reply_mode = match self.client.reply_mode {
            ReplyMode::SkipNext => ReplyMode::Skip,
            ReplyMode::Skip => ReplyMode::On,
            mode => mode,
        };
    }
}
