//! [`Clients`]: the connections of a loop, and the lists of connections with pending work.

use std::collections::BTreeSet;
use std::ops::{Index, IndexMut};

use shardis_protocol::{Arguments, Encoder};
use slab::Slab;

use super::hand_over::Leaving;
use crate::connection::{Connection, Gate};
use crate::exec::{Closing, OwnedRequest, ReplyMode};
use crate::journal::Position;
use crate::pubsub::Hub;

/// The connections that a loop carries, by number.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// All connections, by number.
    pub(super) connections: Slab<Connection>,
    /// Connections to serve in this turn, or in the next one.
    pub(super) queue: Vec<usize>,
    /// Connections with output to write.
    pub(super) dirty: Vec<usize>,
    /// Connections whose command needs a shard that was taken, and tries again.
    pub(super) busy: Vec<usize>,
    /// Connections whose command over several shards waits for a snapshot.
    pub(super) behind_snapshot: Vec<usize>,
    /// Connections whose command waits for a script that runs for long.
    pub(super) behind_script: Vec<usize>,
    /// Connections that wait for the end of a CLIENT PAUSE.
    pub(super) paused: Vec<usize>,
    /// Connections whose output waits for the journal.
    pub(super) held: Vec<usize>,
    /// Connections whose command waits until what they wrote is on disk, or on replicas.
    pub(super) awaiting_writes: Vec<usize>,
    /// Connections that leave the loop to become links.
    pub(super) leaving: Vec<Leaving>,
    /// Connections that are to be closed.
    pub(super) closing: Vec<usize>,
    /// Connections of monitors, which see all commands.
    pub(super) monitors: Vec<usize>,
    /// Connections with pushed messages in their output, whose write may be delayed to combine it with further
    /// messages.
    pub(super) pushed_to: Vec<usize>,
    /// Number of turns by which such a write has been delayed.
    pub(super) pushed_turns: u32,
    /// Ends of timeouts: Unix milliseconds and the connection.
    pub(super) deadlines: BTreeSet<(i64, usize)>,
    /// Number of connections that wait for a key.
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

    /// The connection with this number, if there is one, to be changed.
    #[inline]
    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Connection> {
        self.connections.get_mut(number)
    }

    /// Has a command over several shards wait for a snapshot.
    #[cold]
    pub(super) fn put_behind_snapshot(&mut self, number: usize, args: Arguments<'_>) {
        let connection = &mut self.connections[number];
        connection.busy_since_ns = None;
        connection.gate = Gate::Busy(OwnedRequest::copy(args));
        self.behind_snapshot.push(number);
    }

    /// Puts a connection on the list of those to serve.
    pub(super) fn enqueue(&mut self, number: usize) {
        if let Some(connection) = self.connections.get_mut(number)
            && !connection.is_queued
        {
            connection.is_queued = true;
            self.queue.push(number);
        }
    }

    /// Has the output of a connection wait until the journal has reached a position.
    #[cold]
    pub(super) fn hold(&mut self, number: usize, until: Position) {
        let Some(connection) = self.connections.get_mut(number) else {
            return;
        };
        if connection.client.closing == Closing::Now {
            self.closing.push(number);
        }
        match &mut connection.held_until {
            Some(known) => *known = until.max(*known),
            none => {
                *none = Some(until);
                self.held.push(number);
            }
        }
    }

    /// Puts a connection on the list of those to write.
    #[inline]
    pub(super) fn mark_dirty(&mut self, number: usize) {
        if let Some(connection) = self.connections.get_mut(number)
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.dirty.push(number);
        }
    }

    /// Marks a connection to be closed at the end of the turn.
    pub(super) fn disconnect(&mut self, number: usize) {
        if let Some(connection) = self.connections.get_mut(number) {
            connection.client.closing = Closing::Now;
            self.closing.push(number);
        }
    }

    /// Puts the connections that a command has marked on the list of those to close. Messages are no longer counted for them.
    pub(super) fn disconnect_marked(&mut self, hub: &Hub) {
        for (number, connection) in &mut self.connections {
            if connection.client.closing == Closing::Now {
                connection.client.leave_all(hub);
                self.closing.push(number);
            }
        }
    }

    /// Serves a connection again if it has a pending request that may run now.
    pub(super) fn wake_if_it_may_go_on(&mut self, number: usize) {
        let Some(connection) = self.connections.get(number) else {
            return;
        };
        // A connection that was closed while its command was under way is served once more, which closes it.
        let is_over = connection.client.closing == Closing::Now;
        let waits = match connection.gate {
            Gate::Drain(_) => connection.output.in_flight() == 0,
            Gate::Open => {
                connection.output.has_room() && (connection.readable || connection.input.has_unparsed())
            }
            Gate::Busy(_) | Gate::Pause(_) | Gate::UnderWay | Gate::Blocked | Gate::Leaving => false,
        };
        if waits || is_over {
            self.enqueue(number);
        }
    }

    /// Replies to the next request of a connection, in the order of its replies.
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

    /// Completes the reply of a command, which is written in its turn. True when the output has grown so much that
    /// its limits must be checked.
    pub(super) fn conclude(&mut self, number: usize, sequence: u32, start: usize) -> bool {
        let is_large = self.connections[number].output.end(sequence, start);
        self.mark_dirty(number);
        is_large
    }
}

impl Connection {
    /// Drops a reply that CLIENT REPLY suppresses. The command that turns replies on gets one, the command that turns
    /// them off does not.
    pub(super) fn mute(&mut self, sequence: u32, start: usize) {
        if self.client.reply_mode != ReplyMode::On {
            self.output.begin(sequence).truncate(start);
        }
        self.count_reply_mode();
    }

    /// Advances the mode of CLIENT REPLY by one command: SKIP lasts for one command after itself.
    pub(super) fn count_reply_mode(&mut self) {
        self.client.reply_mode = match self.client.reply_mode {
            ReplyMode::SkipNext => ReplyMode::Skip,
            ReplyMode::Skip => ReplyMode::On,
            mode => mode,
        };
    }
}
