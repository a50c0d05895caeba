//! [`Connection`]: the state of one client's connection, its unparsed input and its unsent output.

pub(crate) mod binding;
pub(crate) mod handover;
mod handshake;
pub(crate) mod input;
pub(crate) mod listener;
pub(crate) mod node_stream;
pub(crate) mod outgoing;
pub(crate) mod output;
mod parked;
pub(crate) mod session_stream;

use crate::config::{OutputLimit, OutputLimits};
use crate::exec::Modes;
use crate::exec::client::{Asking, BufferSizes};
use crate::exec::{Client, Closing, OwnedRequest};
use crate::journal::Position;
use crate::limits::{MONITOR_OUTPUT_BYTES, SIZE_CLASSES};
use crate::shard::poll::{Allocated, Holds, Socket};
use input::Input;
use output::{Output, Progress};

/// A connection, as its loop keeps it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The client as commands see it.
    pub(crate) client: Client,
    /// Its socket.
    pub(crate) socket: Socket,
    /// Bytes from the client that are not executed yet.
    pub(crate) input: Input,
    /// Replies for the client that are not written yet.
    pub(crate) output: Output,
    /// Whether the next command may run, or what it waits for.
    pub(crate) gate: Gate,
    /// Time since which a waiting command has found shards taken, on the node's stopwatch.
    pub(crate) busy_since_ns: Option<u64>,
    /// The socket may have bytes to read.
    pub(crate) readable: bool,
    /// The client has closed its side: the socket is read up to its end.
    pub(crate) ends: bool,
    /// The connection is in the loop's list of those to serve.
    pub(crate) is_queued: bool,
    /// The connection is in the loop's list of those to write.
    pub(crate) is_dirty: bool,
    /// The position that its output waits for until the journal has reached it; no further command runs before.
    pub(crate) held_until: Option<Position>,
    /// Progress of the output when the client was last told that any key may have changed, in the place of messages that its output
    /// had no room for; none if it has got another message since.
    pub(crate) told_all_at: Option<Progress>,
    /// The connection is in the loop's list of those that have got messages and are written soon.
    pub(crate) is_pushed_to: bool,
    /// Time since which its output has exceeded the soft limit, Unix milliseconds; `i64::MAX` while it does not.
    pub(crate) over_soft_limit_since_ms: i64,
    /// Bytes received so far.
    pub(crate) bytes_in: u64,
    /// Bytes sent so far.
    pub(crate) bytes_out: u64,
    /// Figures that the loop's ledger has booked for the connection.
    pub(crate) booked: Booked,
}

/// State of a connection with regard to its next command.
#[derive(Debug, Default)]
pub(crate) enum Gate {
    /// The next command may run.
    #[default]
    Open,
    /// This request runs when all requests before it have been answered.
    Drain(OwnedRequest),
    /// This request needs several shards, one of which was taken: it is tried again in the next turn.
    Busy(OwnedRequest),
    /// This request runs when CLIENT PAUSE is over.
    Pause(OwnedRequest),
    /// The previous command needs several shards or loops, and is under way.
    UnderWay,
    /// The previous command waits for a key: see [`Client::waits`].
    Blocked,
    /// The connection leaves the loop to become a link.
    Leaving,
}

impl Gate {
    /// The request that waits here.
    #[inline]
    fn request(&self) -> Option<&OwnedRequest> {
        match self {
            Self::Drain(request) | Self::Busy(request) | Self::Pause(request) => Some(request),
            Self::Open | Self::UnderWay | Self::Blocked | Self::Leaving => None,
        }
    }

    /// Opens the gate if it is of the expected kind, and returns its former state; leaves any other gate as it is. A
    /// list of connections may contain one that was closed and whose number another connection has taken.
    pub(crate) fn take_if(&mut self, is_meant: impl FnOnce(&Self) -> bool) -> Self {
        if is_meant(self) {
            std::mem::take(self)
        } else {
            Self::Open
        }
    }
}

impl Connection {
    /// A newly accepted connection.
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
            held_until: None,
            told_all_at: None,
            is_pushed_to: false,
            over_soft_limit_since_ms: i64::MAX,
            bytes_in: 0,
            bytes_out: 0,
            booked: Booked::default(),
        }
    }

    /// The position that its output waits for, if that waits for this one in any case.
    #[inline]
    pub(crate) fn waits_for(&self, position: Position) -> Position {
        let own = self.client.wrote_to.max(position);
        self.held_until.map_or(own, |held_until| held_until.max(own))
    }

    /// Modes of the client that commands depend on.
    #[inline]
    pub(crate) fn modes(&self) -> Modes {
        let mut modes = Modes::empty();
        modes.set(Modes::RESP3, self.client.resp == shardis_protocol::Resp::V3);
        modes.set(Modes::MUTE, self.client.reply_mode != crate::exec::ReplyMode::On);
        modes.set(Modes::NO_TOUCH, self.client.no_touch);
        modes.set(Modes::PRIMARY, self.client.is_primary);
        modes.set(Modes::ASKING, self.client.asking == Asking::Now);
        modes.set(Modes::READS_REPLICAS, self.client.reads_replicas);
        modes.set(Modes::TRACKS, self.client.notes_reads());
        modes.set(Modes::TLS, self.client.is_tls);
        modes
    }

    /// Whether the connection is to be written, or looked at, when its socket accepts more.
    #[inline]
    pub(crate) fn has_to_write(&self) -> bool {
        self.output.is_pending() || self.client.closing == Closing::AfterReply || self.socket.has_sealed()
    }

    /// Whether the connection's command has begun, and waits only for shards or loops.
    pub(crate) fn has_begun(&self) -> bool {
        matches!(self.gate, Gate::Busy(_) | Gate::UnderWay)
    }

    /// Whether a further command may be taken from the input now.
    #[inline]
    pub(crate) fn may_go_on(&self) -> bool {
        self.client.closing == Closing::No
            && matches!(self.gate, Gate::Open)
            && self.output.has_room()
            && self.held_until.is_none()
    }

    /// Sizes for CLIENT LIST; `held` are the bytes that the loop's poll holds for the connection.
    pub(crate) fn measure(&self, held: Holds) -> BufferSizes {
        let unsent = self.output.unsent();
        let (closed, chunks) = unsent.closed();
        let sending = held.being_sent();
        BufferSizes {
            query: self.input.bytes() + held.received,
            query_free: self.input.spare(),
            arguments: self.input.argument_bytes() + self.waiting_argument_bytes(),
            output: unsent.unsent_tail_len() + self.socket.sealed_bytes(),
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

    /// Memory of the connection in all, including the `held` bytes of the loop's poll.
    #[inline]
    pub(crate) fn memory(&self, held: usize) -> usize {
        let waiting = self.gate.request().map_or(0, OwnedRequest::size);
        let buffers = self.input.memory() + self.output.memory() + self.socket.memory();
        size_of::<Self>() + buffers + self.client.memory() + waiting + held
    }

    /// Bytes of the arguments of a command that waits: for a key, the end of a pause, other shards, or earlier commands.
    fn waiting_argument_bytes(&self) -> usize {
        let ticket = self.client.waits.as_ref();
        ticket.map_or(0, |ticket| ticket.argument_bytes())
            + self.gate.request().map_or(0, OwnedRequest::argument_bytes)
    }

    /// Limits on the output of the connection.
    fn output_limit(&self, limits: &OutputLimits) -> OutputLimit {
        if self.client.is_subscriber() {
            return limits.pubsub;
        }
        match limits.normal {
            // Normal clients get only replies to their own requests; a monitor's output could grow without end.
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

    /// Whether the output exceeds the hard limit; `unsent` bytes of it are held by the loop's poll.
    pub(crate) fn is_over_hard_limit(&self, limits: &OutputLimits, unsent: usize) -> bool {
        let hard_bytes = self.output_limit(limits).hard_bytes;
        hard_bytes > 0 && (self.output.bytes() + unsent) as u64 >= hard_bytes
    }

    /// Whether the output exceeds the hard limit, or has exceeded the soft limit for too long.
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

/// Figures that a loop's ledger has booked for a connection. All zero for a connection that is to be closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Booked {
    /// Memory of the connection, bytes.
    pub(crate) bytes: usize,
    /// The connection may be closed when all connections together exceed their limit.
    pub(crate) is_evictable: bool,
    /// The connection has subscriptions.
    pub(crate) is_subscriber: bool,
    /// The connection watches keys, none of which is known to have changed.
    pub(crate) is_watching: bool,
    /// The connection has a buffer for its output.
    pub(crate) has_buffer: bool,
}

impl Booked {
    /// The figures to book for a connection, for which the loop's poll has allocated `held`.
    #[inline]
    pub(crate) fn of(connection: &Connection, held: Allocated) -> Self {
        let client = &connection.client;
        if client.closing == Closing::Now {
            return Self::default();
        }
        Self {
            bytes: connection.memory(held.memory),
            is_evictable: !client.no_evict && !client.is_primary,
            is_subscriber: client.is_subscriber(),
            is_watching: client
                .watching
                .as_ref()
                .is_some_and(|watching| !watching.token.is_touched()),
            has_buffer: connection.output.unsent().tail_capacity() + held.sending > 0,
        }
    }

    /// Size class for eviction: the power of two that its memory reaches. None if the connection may not be evicted.
    pub(crate) fn size_class(&self) -> Option<usize> {
        let class = self.bytes.checked_ilog2()?.min(SIZE_CLASSES as u32 - 1);
        self.is_evictable.then_some(class as usize)
    }
}
