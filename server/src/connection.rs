//! One client's connection: its state, what was read and not yet executed, what was answered and not yet written.

pub(crate) mod input;
pub(crate) mod listener;
pub(crate) mod output;

use crate::exec::Modes;
use crate::exec::client::BufferSizes;
use crate::exec::{Client, Closing, OwnedRequest};
use crate::shard::poll::{Holds, Socket};
use input::Input;
use output::Output;

/// A connection, as its loop keeps it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The client as commands see it.
    pub(crate) client: Client,
    /// Its socket.
    pub(crate) socket: Socket,
    /// What it sent.
    pub(crate) input: Input,
    /// What it is to get.
    pub(crate) output: Output,
    /// Whether its next command may run, or what that waits for.
    pub(crate) gate: Gate,
    /// Since when the command that waits has found shards taken, on the node's stopwatch.
    pub(crate) busy_since_ns: Option<u64>,
    /// The socket may have something to read.
    pub(crate) readable: bool,
    /// The client has sent all it will: the socket is read up to its end.
    pub(crate) ends: bool,
    /// It is in the loop's list of connections to serve.
    pub(crate) is_queued: bool,
    /// It is in the loop's list of connections to write to.
    pub(crate) is_dirty: bool,
    /// It is in the loop's list of connections that have got messages, and are written soon.
    pub(crate) is_pushed_to: bool,
    /// Since when its output has been over the soft limit, Unix milliseconds.
    pub(crate) over_soft_limit_since_ms: Option<i64>,
}

/// Whether the next command of a connection may run, or what it waits for.
#[derive(Debug, Default)]
pub(crate) enum Gate {
    /// It may.
    #[default]
    Open,
    /// It runs when everything before it has been answered.
    Drain(OwnedRequest),
    /// It needs several shards and found one of them taken: it tries again in the next turn.
    Busy(OwnedRequest),
    /// It runs when CLIENT PAUSE is over.
    Pause(OwnedRequest),
    /// The command before it needs several shards or loops, and is under way.
    UnderWay,
    /// The command before it waits for a key: see [`Client::waits`].
    Blocked,
}

impl Connection {
    /// A connection that was just accepted.
    pub(crate) fn new(client: Client, socket: Socket) -> Self {
        Self {
            client,
            socket,
            input: Input::default(),
            output: Output::default(),
            gate: Gate::Open,
            busy_since_ns: None,
            readable: true,
            ends: false,
            is_queued: false,
            is_dirty: false,
            is_pushed_to: false,
            over_soft_limit_since_ms: None,
        }
    }

    /// What commands must know of the client.
    #[inline]
    pub(crate) fn modes(&self) -> Modes {
        let mut modes = Modes::empty();
        modes.set(Modes::RESP3, self.client.resp == shardis_protocol::Resp::V3);
        modes.set(Modes::MUTE, self.client.reply_mode != crate::exec::ReplyMode::On);
        modes.set(Modes::NO_TOUCH, self.client.no_touch);
        modes
    }

    /// Whether its next command is to run now, and waits for nothing but shards or loops.
    pub(crate) fn has_begun(&self) -> bool {
        matches!(self.gate, Gate::Busy(_) | Gate::UnderWay)
    }

    /// Whether a further command may be taken from its input now.
    #[inline]
    pub(crate) fn may_go_on(&self) -> bool {
        self.client.closing == Closing::No && matches!(self.gate, Gate::Open) && self.output.has_room()
    }

    /// Brings the sizes that CLIENT LIST shows up to date; `held` is what the loop's poll holds of it.
    pub(crate) fn measure(&mut self, held: Holds) {
        let unsent = self.output.unsent();
        let (closed, chunks) = unsent.closed();
        let sending = if held.unsent > 0 { held.sending } else { 0 };
        self.client.buffers = BufferSizes {
            query: self.input.bytes() + held.received,
            query_free: self.input.spare(),
            arguments: self.input.argument_bytes(),
            output: unsent.unsent_tail_len(),
            chunks: chunks + usize::from(sending > 0),
            chunk_bytes: closed + sending + self.output.parked_memory(),
            output_capacity: unsent.tail_capacity() + held.sending - sending,
            output_peak: self.output.peak(),
            total: self.memory(held),
        };
    }

    /// Memory it takes in all.
    #[inline]
    pub(crate) fn memory(&self, held: Holds) -> usize {
        size_of::<Self>() + self.input.memory() + self.output.memory() + self.client.memory() + held.memory
    }
}
