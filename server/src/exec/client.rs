//! A client as commands see it: who it is, what it selected, its transaction. Sockets and buffers are elsewhere.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use shardis_protocol::Resp;

use super::Part;
use super::request::OwnedRequest;
use super::waiter::Ticket;
use super::watch::WatchList;
use crate::error::ReplyError;
use crate::pubsub::{Hub, Name, Seat, Topic};

/// The state of one client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Unique in this process, ascending.
    pub(crate) id: u64,
    /// Where it comes from.
    pub(crate) peer: Peer,
    /// Its socket, as CLIENT LIST shows it.
    pub(crate) fd: i32,
    /// CLIENT SETNAME
    pub(crate) name: Option<Box<[u8]>>,
    /// CLIENT SETINFO LIB-NAME
    pub(crate) library_name: Option<Box<[u8]>>,
    /// CLIENT SETINFO LIB-VER
    pub(crate) library_version: Option<Box<[u8]>>,
    /// The selected database.
    pub(crate) db: u16,
    /// The protocol it speaks.
    pub(crate) resp: Resp,
    /// It has given the password, or none was needed when it connected.
    pub(crate) authenticated: bool,
    /// When it connected, Unix milliseconds.
    pub(crate) created_ms: i64,
    /// When it last sent something, Unix milliseconds.
    pub(crate) active_ms: i64,
    /// Its last command.
    pub(crate) last_command: Option<CommandTag>,
    /// CLIENT REPLY
    pub(crate) reply_mode: ReplyMode,
    /// CLIENT NO-EVICT
    pub(crate) no_evict: bool,
    /// CLIENT NO-TOUCH
    pub(crate) no_touch: bool,
    /// It can be told to go to another server: CLIENT CAPA redirect.
    pub(crate) can_redirect: bool,
    /// MONITOR: it sees all commands.
    pub(crate) monitor: bool,
    /// It must be answered at once: its transaction runs.
    pub(crate) denies_blocking: bool,
    /// What it waits for, if its command waits for a key.
    pub(crate) waits: Option<Arc<Ticket>>,
    /// Its command is held back by CLIENT PAUSE.
    pub(crate) is_paused: bool,
    /// Somebody has ended its wait: it is still to be told.
    pub(crate) unblocked: Option<Unblocked>,
    /// Whether and when the connection ends.
    pub(crate) closing: Closing,
    /// What it queued after MULTI.
    pub(crate) transaction: Option<Box<Transaction>>,
    /// What it watches.
    pub(crate) watching: Option<Box<WatchList>>,
    /// Where messages for it go.
    pub(crate) seat: Seat,
    /// What it is subscribed to; none when it is no subscriber.
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
}

/// Sizes of the buffers of a connection, bytes, and what has gone through them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BufferSizes {
    /// Read and not yet executed.
    pub(crate) query: usize,
    /// Room left in the query buffer.
    pub(crate) query_free: usize,
    /// Held by the arguments of an incomplete request.
    pub(crate) arguments: usize,
    /// Waiting to be written, in the chunk that replies are appended to.
    pub(crate) output: usize,
    /// Chunks ahead of that one.
    pub(crate) chunks: usize,
    /// Allocated for those, and for replies that came early.
    pub(crate) chunk_bytes: usize,
    /// Allocated for the chunk that replies are appended to.
    pub(crate) output_capacity: usize,
    /// The most that has waited to be written at the end of a turn, within the last seconds.
    pub(crate) output_peak: usize,
    /// Allocated for the connection in all.
    pub(crate) total: usize,
    /// Bytes that it has sent so far.
    pub(crate) bytes_in: u64,
    /// Bytes that it was sent so far.
    pub(crate) bytes_out: u64,
    /// Commands that it was answered so far.
    pub(crate) commands: u64,
}

/// Where a client comes from.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// Over TCP: its address and ours.
    Tcp {
        /// The client's address.
        remote: SocketAddr,
        /// The address it connected to.
        local: SocketAddr,
    },
    /// Over the Unix socket at this path.
    Unix(Arc<str>),
}

impl Peer {
    /// The client's address as CLIENT LIST shows it.
    pub(crate) fn remote(&self) -> String {
        match self {
            Self::Tcp { remote, .. } => remote.to_string(),
            Self::Unix(path) => format!("{path}:0"),
        }
    }

    /// The address it connected to as CLIENT LIST shows it.
    pub(crate) fn local(&self) -> String {
        match self {
            Self::Tcp { local, .. } => local.to_string(),
            Self::Unix(path) => format!("{path}:0"),
        }
    }

    /// Whether it can only be a process of this machine.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp { remote, .. } => remote.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// CLIENT REPLY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReplyMode {
    /// Replies are sent.
    #[default]
    On,
    /// Nothing is sent.
    Off,
    /// The reply to the command that asked for it is not sent, nor the next one.
    SkipNext,
    /// The reply to this command is not sent.
    Skip,
}

bitflags::bitflags! {
    /// What a command must know of its client.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Modes: u8 {
        /// It speaks RESP3.
        const RESP3 = 1;
        /// Its replies are not sent.
        const MUTE = 2;
        /// It leaves access clocks alone.
        const NO_TOUCH = 4;
    }
}

impl Modes {
    /// The protocol of the reply.
    #[inline]
    pub(crate) fn resp(self) -> Resp {
        if self.contains(Self::RESP3) {
            Resp::V3
        } else {
            Resp::V2
        }
    }
}

/// How a wait ended that brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unblocked {
    /// Its time was over, or somebody has declared it over.
    TimedOut,
    /// Somebody has it end with an error.
    WithError,
}

/// Whether and when a connection ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Closing {
    /// It stays.
    #[default]
    No,
    /// After what is to be said has been written.
    AfterReply,
    /// At once.
    Now,
}

/// Commands queued after MULTI.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    /// The commands, in order.
    pub(crate) queue: Vec<Queued>,
    /// A command could not be queued: EXEC will refuse.
    pub(crate) failed: bool,
    /// Bytes the queue holds.
    pub(crate) bytes: usize,
}

impl Transaction {
    /// Bytes that are allocated for it.
    fn memory(&self) -> usize {
        size_of::<Self>() + self.bytes + self.queue.capacity() * size_of::<Queued>()
    }
}

/// What a client is subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    channels: BTreeSet<Name>,
    patterns: BTreeSet<Name>,
    shard_channels: BTreeSet<Name>,
    /// Bytes that are allocated for them, the names included although others may share them.
    bytes: usize,
}

/// Bytes that a subscription takes beside its name's: its place in the set, with the room that such a set keeps, and the
/// counts of references in front of the name.
const SUBSCRIPTION_BYTES: usize = 2 * size_of::<Name>() + 2 * size_of::<usize>();

impl Subscriptions {
    /// Those of a kind.
    pub(crate) fn of(&self, topic: Topic) -> &BTreeSet<Name> {
        match topic {
            Topic::Channel => &self.channels,
            Topic::Pattern => &self.patterns,
            Topic::ShardChannel => &self.shard_channels,
        }
    }

    /// Adds one.
    pub(crate) fn insert(&mut self, topic: Topic, name: Name) {
        let bytes = SUBSCRIPTION_BYTES + name.len();
        if self.of_mut(topic).insert(name) {
            self.bytes += bytes;
        }
    }

    /// Removes one. False when it was not there.
    pub(crate) fn remove(&mut self, topic: Topic, name: &[u8]) -> bool {
        let removed = self.of_mut(topic).remove(name);
        if removed {
            self.bytes -= SUBSCRIPTION_BYTES + name.len();
        }
        removed
    }

    /// Removes all of a kind.
    pub(crate) fn take(&mut self, topic: Topic) -> BTreeSet<Name> {
        let names = std::mem::take(self.of_mut(topic));
        self.bytes -= names
            .iter()
            .map(|name| SUBSCRIPTION_BYTES + name.len())
            .sum::<usize>();
        names
    }

    fn of_mut(&mut self, topic: Topic) -> &mut BTreeSet<Name> {
        match topic {
            Topic::Channel => &mut self.channels,
            Topic::Pattern => &mut self.patterns,
            Topic::ShardChannel => &mut self.shard_channels,
        }
    }

    /// How many there are, as confirmations for a kind count them: shard channels apart from the others.
    pub(crate) fn counted_with(&self, topic: Topic) -> usize {
        match topic {
            Topic::Channel | Topic::Pattern => self.channels.len() + self.patterns.len(),
            Topic::ShardChannel => self.shard_channels.len(),
        }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        Topic::ALL.iter().all(|&topic| self.of(topic).is_empty())
    }

    /// Bytes that are allocated for them.
    fn memory(&self) -> usize {
        size_of::<Self>() + self.bytes
    }
}

/// A command as the state of a client remembers it: its number in the registry, and its full name (`client|id`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandTag {
    /// Its number among all rows.
    pub(crate) id: u16,
    /// Its name as CLIENT LIST shows it.
    pub(crate) name: &'static str,
}

/// One queued command.
#[derive(Debug)]
pub(crate) struct Queued {
    /// Its command.
    pub(crate) command: CommandTag,
    /// Its arguments.
    pub(crate) request: OwnedRequest,
    /// Of a command over all loops, their parts: gathered before EXEC runs the queue.
    pub(crate) parts: Option<Result<Vec<Part>, ReplyError>>,
}

impl Client {
    /// A client that has just connected.
    pub(crate) fn new(id: u64, peer: Peer, fd: i32, now_ms: i64, authenticated: bool) -> Self {
        Self {
            id,
            peer,
            fd,
            name: None,
            library_name: None,
            library_version: None,
            db: 0,
            resp: Resp::V2,
            authenticated,
            created_ms: now_ms,
            active_ms: now_ms,
            last_command: None,
            reply_mode: ReplyMode::On,
            no_evict: false,
            no_touch: false,
            can_redirect: false,
            monitor: false,
            denies_blocking: false,
            waits: None,
            is_paused: false,
            unblocked: None,
            closing: Closing::No,
            transaction: None,
            watching: None,
            seat: Seat::default(),
            subscriptions: None,
        }
    }

    /// Keeps what was gathered for the command at `index` of its transaction.
    pub(crate) fn keep_parts(&mut self, index: usize, parts: Result<Vec<Part>, ReplyError>) {
        let queue = self
            .transaction
            .as_mut()
            .map(|transaction| &mut transaction.queue);
        if let Some(queued) = queue.and_then(|queue| queue.get_mut(index)) {
            queued.parts = Some(parts);
        }
    }

    /// Back to the state of a new connection: RESET. Identity and library information stay.
    pub(crate) fn reset(&mut self, authenticated: bool) {
        self.name = None;
        self.db = 0;
        self.resp = Resp::V2;
        self.authenticated = authenticated;
        // The reply to RESET itself is still skipped where that was asked for.
        if self.reply_mode != ReplyMode::Skip {
            self.reply_mode = ReplyMode::On;
        }
        self.no_evict = false;
        self.no_touch = false;
        self.can_redirect = false;
        self.monitor = false;
        self.transaction = None;
        self.watching = None;
    }

    /// Whether it is subscribed to anything.
    #[inline]
    pub(crate) fn is_subscriber(&self) -> bool {
        self.subscriptions.is_some()
    }

    /// Ends all its subscriptions. Complexity: O(subscriptions).
    pub(crate) fn leave_all(&mut self, hub: &Hub) {
        let Some(subscriptions) = self.subscriptions.take() else {
            return;
        };
        for topic in Topic::ALL {
            for name in subscriptions.of(topic) {
                hub.leave(topic, name, self.seat);
            }
        }
    }

    /// How many names of a kind it is subscribed to.
    pub(crate) fn subscribed_to(&self, topic: Topic) -> usize {
        let subscriptions = self.subscriptions.as_ref();
        subscriptions.map_or(0, |subscriptions| subscriptions.of(topic).len())
    }

    /// Bytes that are allocated for it, those of its buffers apart.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        let named = [&self.name, &self.library_name, &self.library_version];
        let names: usize = named.into_iter().flatten().map(|name| name.len()).sum();
        let queue = self
            .transaction
            .as_ref()
            .map_or(0, |transaction| transaction.memory());
        let watched = self.watching.as_ref().map_or(0, |watching| watching.memory());
        let subscribed = self.subscriptions.as_ref().map_or(0, |known| known.memory());
        names + queue + watched + subscribed
    }

    /// Its line in CLIENT LIST, without the line feed. `argument_bytes` are those of the command that it is running.
    pub(crate) fn describe(&self, buffers: &BufferSizes, now_ms: i64, argument_bytes: usize) -> String {
        let mut line = String::with_capacity(320);
        let text = |bytes: &Option<Box<[u8]>>| {
            bytes
                .as_deref()
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
                .unwrap_or_default()
        };
        let seconds = |since: i64| (now_ms - since).max(0) / 1000;
        let queued = self.transaction.as_ref();
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db={} sub={} psub={} ssub={} multi={} watch={} \
             qbuf={} qbuf-free={} argv-mem={} multi-mem={} rbs={} rbp={} obl={} oll={} omem={} tot-mem={} events={} cmd={} \
             user=default redir=-1 resp={} lib-name={} lib-ver={} tot-net-in={} tot-net-out={} tot-cmds={}",
            self.id,
            self.peer.remote(),
            self.peer.local(),
            self.fd,
            text(&self.name),
            seconds(self.created_ms),
            seconds(self.active_ms),
            self.flags(),
            self.db,
            self.subscribed_to(Topic::Channel),
            self.subscribed_to(Topic::Pattern),
            self.subscribed_to(Topic::ShardChannel),
            queued.map_or(-1, |transaction| transaction.queue.len() as i64),
            self.watching.as_ref().map_or(0, |watching| watching.keys.len()),
            buffers.query,
            buffers.query_free,
            buffers.arguments + argument_bytes,
            queued.map_or(0, |transaction| transaction.bytes),
            buffers.output_capacity,
            buffers.output_peak,
            buffers.output,
            buffers.chunks,
            buffers.chunk_bytes,
            buffers.total,
            if buffers.output + buffers.chunks > 0 {
                "rw"
            } else {
                "r"
            },
            self.last_command.map_or("NULL", |command| command.name),
            if self.resp == Resp::V3 { 3 } else { 2 },
            text(&self.library_name),
            text(&self.library_version),
            buffers.bytes_in,
            buffers.bytes_out,
            buffers.commands,
        );
        if self.can_redirect {
            line.push_str(" capa=r");
        }
        line
    }

    fn flags(&self) -> String {
        let mut flags = String::new();
        for (set, flag) in [
            (self.monitor, 'O'),
            (self.is_subscriber(), 'P'),
            (self.transaction.is_some(), 'x'),
            (self.waits.is_some() || self.is_paused, 'b'),
            (
                self.watching
                    .as_ref()
                    .is_some_and(|watching| watching.token.is_touched()),
                'd',
            ),
            (self.closing == Closing::AfterReply, 'c'),
            (matches!(self.peer, Peer::Unix(_)), 'U'),
            (self.no_evict, 'e'),
            (self.no_touch, 'T'),
        ] {
            if set {
                flags.push(flag);
            }
        }
        if flags.is_empty() {
            flags.push('N');
        }
        flags
    }
}
