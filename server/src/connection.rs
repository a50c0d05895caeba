//! One client's connection: its state, what was read and not yet executed, what was answered and not yet written.

pub(crate) mod binding;
pub(crate) mod input;
pub(crate) mod listener;
pub(crate) mod output;
mod parked;

use crate::config::{OutputLimit, OutputLimits};
use crate::exec::Modes;
use crate::exec::client::BufferSizes;
use crate::exec::{Client, Closing, OwnedRequest};
use crate::limits::{MONITOR_OUTPUT_BYTES, SIZE_CLASSES};
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
    /// Since when its output has been over the soft limit, Unix milliseconds; `i64::MAX` while it is not.
    pub(crate) over_soft_limit_since_ms: i64,
    /// Bytes read from it so far.
    pub(crate) bytes_in: u64,
    /// Bytes written to it so far.
    pub(crate) bytes_out: u64,
    /// What the loop's ledger has of it.
    pub(crate) booked: Booked,
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

impl Gate {
    /// Opens the gate if it is of the kind that is asked for, and returns what it was; leaves any other as it is. Lists of
    /// connections may name one that has gone, and whose number another one has now.
    pub(crate) fn take_if(&mut self, is_meant: impl FnOnce(&Self) -> bool) -> Self {
        if is_meant(self) {
            std::mem::take(self)
        } else {
            Self::Open
        }
    }
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
            over_soft_limit_since_ms: i64::MAX,
            bytes_in: 0,
            bytes_out: 0,
            booked: Booked::default(),
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

    /// The sizes that CLIENT LIST shows; `held` is what the loop's poll holds of it.
    pub(crate) fn measure(&self, held: Holds) -> BufferSizes {
        let unsent = self.output.unsent();
        let (closed, chunks) = unsent.closed();
        let sending = if held.unsent > 0 { held.sending } else { 0 };
        BufferSizes {
            query: self.input.bytes() + held.received,
            query_free: self.input.spare(),
            arguments: self.input.argument_bytes(),
            output: unsent.unsent_tail_len(),
            chunks: chunks + usize::from(sending > 0),
            chunk_bytes: closed + sending + self.output.parked_memory(),
            output_capacity: unsent.tail_capacity() + held.sending - sending,
            output_peak: self.output.peak(),
            total: self.memory(held.memory),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            commands: self.output.answered(),
        }
    }

    /// Memory it takes in all, if the loop's poll holds so much for it.
    #[inline]
    pub(crate) fn memory(&self, held: usize) -> usize {
        size_of::<Self>() + self.input.memory() + self.output.memory() + self.client.memory() + held
    }

    /// The limits on its output.
    fn output_limit(&self, limits: &OutputLimits) -> OutputLimit {
        if self.client.is_subscriber() {
            return limits.pubsub;
        }
        match limits.normal {
            // Nobody else is sent what it did not ask for, so only a monitor could grow without end.
            OutputLimit {
                hard_bytes: 0,
                soft_bytes: 0,
                ..
            } if self.client.monitor => OutputLimit {
                hard_bytes: MONITOR_OUTPUT_BYTES,
                ..limits.normal
            },
            limit => limit,
        }
    }

    /// Whether more output has piled up than it may have at any time; `unsent` is what the loop's poll has taken of it.
    pub(crate) fn is_over_hard_limit(&self, limits: &OutputLimits, unsent: usize) -> bool {
        let hard_bytes = self.output_limit(limits).hard_bytes;
        hard_bytes > 0 && (self.output.bytes() + unsent) as u64 >= hard_bytes
    }

    /// Whether more output has piled up than it may have at any time, or has been there for longer than it may.
    pub(crate) fn is_over_output_limit(&mut self, limits: &OutputLimits, unsent: usize, now_ms: i64) -> bool {
        let limit = self.output_limit(limits);
        let bytes = (self.output.bytes() + unsent) as u64;
        if limit.soft_bytes == 0 || bytes < limit.soft_bytes {
            self.over_soft_limit_since_ms = i64::MAX;
            return self.is_over_hard_limit(limits, unsent);
        }
        self.over_soft_limit_since_ms = self.over_soft_limit_since_ms.min(now_ms);
        now_ms - self.over_soft_limit_since_ms > limit.soft_seconds as i64 * 1000
            || self.is_over_hard_limit(limits, unsent)
    }
}

/// What the ledger of a loop has of a connection. Nothing of one that is to be closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Booked {
    /// Memory that it takes.
    pub(crate) bytes: usize,
    /// It may be closed when all connections take too much.
    pub(crate) is_evictable: bool,
    /// It is subscribed to something.
    pub(crate) is_subscriber: bool,
    /// It watches keys, and none of them is known to have changed.
    pub(crate) is_watching: bool,
    /// It has a buffer for its output.
    pub(crate) has_buffer: bool,
}

impl Booked {
    /// What is to be booked of a connection that takes so much memory.
    #[inline]
    pub(crate) fn of(connection: &Connection, bytes: usize) -> Self {
        let client = &connection.client;
        if client.closing == Closing::Now {
            return Self::default();
        }
        Self {
            bytes,
            is_evictable: !client.no_evict,
            is_subscriber: client.is_subscriber(),
            is_watching: client
                .watching
                .as_ref()
                .is_some_and(|watching| !watching.token.is_touched()),
            has_buffer: connection.output.unsent().tail_capacity() > 0,
        }
    }

    /// Its class by size, if it may be evicted: the power of two that its memory reaches.
    pub(crate) fn size_class(&self) -> Option<usize> {
        let class = self.bytes.checked_ilog2()?.min(SIZE_CLASSES as u32 - 1);
        self.is_evictable.then_some(class as usize)
    }
}
