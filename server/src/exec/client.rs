//! A client as commands see it: identity, selected database, transaction. Sockets and buffers are in `connection`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use shardis_protocol::Resp;
use smallvec::SmallVec;

use super::Part;
use super::departure::Departure;
use super::identity::{Identity, Refused};
use super::origin::Origin;
use super::reload::Errand;
use super::request::OwnedRequest;
use super::waiter::Ticket;
use super::watch::WatchList;
use crate::error::ReplyError;
use crate::journal::{Position, Record};
use crate::pubsub::{Hub, Name, Seat, Topic};
use crate::replication::{Introduction, SyncRequest};
use crate::tracking::{Tracking, TrackingModes, TrackingState};

/// The state of one client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Unique and ascending in this process.
    pub(crate) id: u64,
    /// Address of its connection.
    pub(crate) peer: Peer,
    /// Its connection is over TLS, so that it is told of the ports for TLS.
    pub(crate) is_tls: bool,
    /// File descriptor of its socket, as CLIENT LIST shows it.
    pub(crate) fd: i32,
    /// Name set by CLIENT SETNAME.
    pub(crate) name: Option<Box<[u8]>>,
    /// Library name set by CLIENT SETINFO LIB-NAME.
    pub(crate) library_name: Option<Box<[u8]>>,
    /// Library version set by CLIENT SETINFO LIB-VER.
    pub(crate) library_version: Option<Box<[u8]>>,
    /// The selected database.
    pub(crate) db: u16,
    /// The protocol it speaks.
    pub(crate) resp: Resp,
    /// The user that it acts as.
    pub(crate) identity: Identity,
    /// Common name of the certificate that it has shown, if it has shown one.
    pub(crate) certificate_name: Option<Box<[u8]>>,
    /// Requests that were refused and are not in the log yet.
    pub(crate) refused: Vec<Refused>,
    /// Time of the connection, Unix milliseconds.
    pub(crate) created_ms: i64,
    /// Time of its last request, Unix milliseconds.
    pub(crate) active_ms: i64,
    /// Its last command.
    pub(crate) last_command: Option<CommandTag>,
    /// Set by CLIENT REPLY.
    pub(crate) reply_mode: ReplyMode,
    /// Set by CLIENT NO-EVICT.
    pub(crate) no_evict: bool,
    /// Set by CLIENT NO-TOUCH.
    pub(crate) no_touch: bool,
    /// Set by CLIENT CAPA redirect: the client can be redirected to another server.
    pub(crate) can_redirect: bool,
    /// Whether ASKING applies to its command.
    pub(crate) asking: Asking,
    /// Set by READONLY: a replica may answer what only reads.
    pub(crate) reads_replicas: bool,
    /// The client is the primary of this node: its requests are the stream that the node follows.
    pub(crate) is_primary: bool,
    /// Set by MONITOR: the client gets a line for every command.
    pub(crate) monitor: bool,
    /// The client is a replica: its connection is a link.
    pub(crate) is_replica: bool,
    /// Statements by REPLCONF, if it has made any.
    pub(crate) introduction: Option<Box<Introduction>>,
    /// Request of its command to become a replica.
    pub(crate) sync_request: Option<SyncRequest>,
    /// Unix time in microseconds of its transaction while that runs: all commands of a transaction have the same time.
    pub(crate) transaction_us: Option<i64>,
    /// Ticket of its command, if that waits for a key.
    pub(crate) waits: Option<Arc<Ticket>>,
    /// The end of a job that the reply to its command waits for.
    pub(crate) awaits_save: Option<AwaitedSave>,
    /// Number of the decisions of its command that the bus is to carry out before the reply is sent.
    pub(crate) awaits_bus: Option<u64>,
    /// Work that its command leaves to a thread.
    pub(crate) errand: Option<Errand>,
    /// Its command, whose keys leave for another node.
    pub(crate) departure: Option<Box<Departure>>,
    /// State of its script, while that is not at its end.
    pub(crate) script: ScriptStage,
    /// Its command is held back by CLIENT PAUSE.
    pub(crate) is_paused: bool,
    /// The reason for which its wait was ended; the client has not been told yet.
    pub(crate) unblocked: Option<Unblocked>,
    /// The end of the effects of its commands in the journal.
    pub(crate) wrote_to: Position,
    /// Request to close the connection.
    pub(crate) closing: Closing,
    /// Commands queued since MULTI.
    pub(crate) transaction: Option<Box<Transaction>>,
    /// Keys it watches.
    pub(crate) watching: Option<Box<WatchList>>,
    /// Address in the publish-and-subscribe hub: the mailbox for its messages.
    pub(crate) seat: Seat,
    /// Its subscriptions; none when it is no subscriber.
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
    /// Its choices of client-side caching; none when it does not track.
    pub(crate) tracking: Option<Box<TrackingState>>,
}

/// State of a client's script between two slices of its run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ScriptStage {
    /// No script has begun that has not ended.
    #[default]
    None,
    /// The script has used its slice, and goes on in the next turn.
    Aside,
    /// The script goes on when it has got the partitions of these shards as well.
    Lacks(SmallVec<[usize; 8]>),
    /// The script has met a shard that it did not have, and begins anew with all of them.
    WantsAll,
    /// The script cannot get the shards that it lacks, and ends with an error.
    Failed,
}

impl ScriptStage {
    /// Whether a script has begun and goes on later.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self, Self::Aside | Self::Lacks(_) | Self::Failed)
    }
}

/// The end of a job that a client waits for.
#[derive(Clone, Debug)]
pub(crate) struct AwaitedSave {
    /// Number of the job.
    pub(crate) number: u64,
    /// The reply if the job fails, if it is another one then.
    pub(crate) failure: Option<ReplyError>,
}

/// Sizes of the buffers of a connection, and its traffic so far. All but `commands` are in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BufferSizes {
    /// Bytes read and not yet executed.
    pub(crate) query: usize,
    /// Free bytes in the query buffer.
    pub(crate) query_free: usize,
    /// Bytes held by the arguments of an incomplete request, or of one that waits.
    pub(crate) arguments: usize,
    /// Bytes waiting to be written in the chunk that replies are appended to.
    pub(crate) output: usize,
    /// Number of chunks ahead of that one.
    pub(crate) chunks: usize,
    /// Bytes allocated for those chunks, and for replies that came early.
    pub(crate) chunk_bytes: usize,
    /// Bytes allocated for the chunk that replies are appended to.
    pub(crate) output_capacity: usize,
    /// The most bytes that waited to be written at the end of a turn, within the last seconds.
    pub(crate) output_peak: usize,
    /// Bytes allocated for the connection in all.
    pub(crate) total: usize,
    /// Bytes received from the client so far.
    pub(crate) bytes_in: u64,
    /// Bytes sent to the client so far.
    pub(crate) bytes_out: u64,
    /// Commands answered so far.
    pub(crate) commands: u64,
}

/// Address of a client.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// A TCP connection: the client's address and ours.
    Tcp {
        /// The client's address.
        remote: SocketAddr,
        /// The address it connected to.
        local: SocketAddr,
    },
    /// A connection over the Unix socket at this path.
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

    /// Whether the client must be a process of this machine.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp { remote, .. } => remote.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// Reach of ASKING, which lasts for one command; that may be MULTI, and then it lasts until the transaction ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Asking {
    /// ASKING applies to nothing.
    #[default]
    Off,
    /// ASKING applies to the next command.
    Next,
    /// ASKING applies to the current command.
    Now,
}

/// Mode set by CLIENT REPLY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReplyMode {
    /// Replies are sent.
    #[default]
    On,
    /// No replies are sent.
    Off,
    /// Neither the reply to the current command nor that to the next one is sent.
    SkipNext,
    /// The reply to the current command is not sent.
    Skip,
}

bitflags::bitflags! {
    /// Modes of a client that the execution of its commands depends on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Modes: u8 {
        /// The client speaks RESP3.
        const RESP3 = 1;
        /// Its replies are not sent.
        const MUTE = 2;
        /// Its commands do not update access clocks.
        const NO_TOUCH = 4;
        /// The client is the primary of this node.
        const PRIMARY = 8;
        /// ASKING applies to the command.
        const ASKING = 16;
        /// A replica may answer what only reads.
        const READS_REPLICAS = 32;
        /// The keys that its commands read are remembered.
        const TRACKS = 64;
        /// The client's connection is over TLS.
        const TLS = 128;
    }
}

impl Modes {
    /// On whose behalf the client's commands run.
    #[inline]
    pub(crate) fn origin(self) -> Origin {
        if self.contains(Self::PRIMARY) {
            Origin::Primary
        } else {
            Origin::Client
        }
    }

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

/// Reason for which a wait ended without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unblocked {
    /// The timeout was over, or CLIENT UNBLOCK TIMEOUT declared it over.
    TimedOut,
    /// CLIENT UNBLOCK ERROR ended the wait with an error.
    WithError,
    /// The node has become a replica.
    RoleChanged,
}

/// Request to close a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Closing {
    /// None: it stays open.
    #[default]
    No,
    /// After the pending replies have been written.
    AfterReply,
    /// Immediately.
    Now,
}

/// Commands queued after MULTI.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    /// The commands, in order.
    pub(crate) queue: Vec<Queued>,
    /// A command could not be queued: EXEC will be refused.
    pub(crate) failed: bool,
    /// Bytes that the queued requests hold.
    pub(crate) bytes: usize,
    /// State of its run while it waits for the parts of a command.
    pub(crate) suspended: Option<Suspended>,
}

/// State of a transaction that has run in part: its next command needs the parts of all loops.
#[derive(Debug, Default)]
pub(crate) struct Suspended {
    /// Index of the next command.
    pub(crate) next: usize,
    /// The reply so far.
    pub(crate) replies: Vec<u8>,
    /// The effects so far.
    pub(crate) unit: Record,
    /// The client has killed its own connection: the reply is complete, and the rest of the queue runs without replies.
    pub(crate) is_leaving: bool,
}

impl Transaction {
    /// Bytes allocated for the queue.
    fn memory(&self) -> usize {
        size_of::<Self>() + self.bytes + self.queue.capacity() * size_of::<Queued>()
    }
}

/// Subscriptions of a client, by kind.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    channels: BTreeSet<Name>,
    patterns: BTreeSet<Name>,
    shard_channels: BTreeSet<Name>,
    /// Bytes allocated for them, names included although other subscribers may share them.
    bytes: usize,
}

/// Bytes of a subscription beside those of its name: its element in the set, with the room that such a set keeps
/// free, and the reference counts in front of the name.
const SUBSCRIPTION_BYTES: usize = 2 * size_of::<Name>() + 2 * size_of::<usize>();

impl Subscriptions {
    /// The subscriptions of a kind.
    pub(crate) fn of(&self, topic: Topic) -> &BTreeSet<Name> {
        match topic {
            Topic::Channel => &self.channels,
            Topic::Pattern => &self.patterns,
            Topic::ShardChannel => &self.shard_channels,
        }
    }

    /// Adds a subscription.
    pub(crate) fn insert(&mut self, topic: Topic, name: Name) {
        let bytes = SUBSCRIPTION_BYTES + name.len();
        if self.of_mut(topic).insert(name) {
            self.bytes += bytes;
        }
    }

    /// Removes a subscription. False when there was none.
    pub(crate) fn remove(&mut self, topic: Topic, name: &[u8]) -> bool {
        let removed = self.of_mut(topic).remove(name);
        if removed {
            self.bytes -= SUBSCRIPTION_BYTES + name.len();
        }
        removed
    }

    /// Removes all subscriptions of a kind, and returns them.
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

    /// Number of subscriptions that a confirmation of this kind reports: shard channels are counted apart from
    /// channels and patterns.
    pub(crate) fn counted_with(&self, topic: Topic) -> usize {
        match topic {
            Topic::Channel | Topic::Pattern => self.channels.len() + self.patterns.len(),
            Topic::ShardChannel => self.shard_channels.len(),
        }
    }

    /// Whether there are no subscriptions.
    pub(crate) fn is_empty(&self) -> bool {
        Topic::ALL.iter().all(|&topic| self.of(topic).is_empty())
    }

    /// Bytes allocated for all subscriptions.
    fn memory(&self) -> usize {
        size_of::<Self>() + self.bytes
    }
}

/// A command as the state of a client remembers it: its number in the registry, and its full name (`client|id`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandTag {
    /// Its number in the registry.
    pub(crate) id: u16,
    /// Its name as CLIENT LIST shows it.
    pub(crate) name: &'static str,
}

/// One queued command.
#[derive(Debug)]
pub(crate) struct Queued {
    /// The command.
    pub(crate) command: CommandTag,
    /// Its request.
    pub(crate) request: OwnedRequest,
    /// For a command over all loops, the parts of its reply, gathered before EXEC runs the queue.
    pub(crate) parts: Option<Result<Vec<Part>, ReplyError>>,
}

impl Client {
    /// Notes where in the journal the effects of a command end.
    pub(crate) fn note_written(&mut self, end: Position) {
        self.wrote_to = self.wrote_to.max(end);
    }

    /// A client that has just connected.
    pub(crate) fn new(id: u64, peer: Peer, fd: i32, now_ms: i64, identity: Identity) -> Self {
        Self {
            id,
            peer,
            is_tls: false,
            fd,
            name: None,
            library_name: None,
            library_version: None,
            db: 0,
            resp: Resp::V2,
            identity,
            certificate_name: None,
            refused: Vec::new(),
            created_ms: now_ms,
            active_ms: now_ms,
            last_command: None,
            reply_mode: ReplyMode::On,
            no_evict: false,
            no_touch: false,
            can_redirect: false,
            asking: Asking::Off,
            reads_replicas: false,
            is_primary: false,
            monitor: false,
            is_replica: false,
            introduction: None,
            sync_request: None,
            transaction_us: None,
            waits: None,
            awaits_save: None,
            awaits_bus: None,
            errand: None,
            departure: None,
            script: ScriptStage::None,
            is_paused: false,
            unblocked: None,
            wrote_to: Position::default(),
            closing: Closing::No,
            transaction: None,
            watching: None,
            seat: Seat::default(),
            subscriptions: None,
            tracking: None,
        }
    }

    /// Keeps the parts gathered for the command at `index` of the transaction.
    pub(crate) fn keep_parts(&mut self, index: usize, parts: Result<Vec<Part>, ReplyError>) {
        let queue = self
            .transaction
            .as_mut()
            .map(|transaction| &mut transaction.queue);
        if let Some(queued) = queue.and_then(|queue| queue.get_mut(index)) {
            queued.parts = Some(parts);
        }
    }

    /// Resets the client to the state of a new connection (RESET). Identity and library information stay.
    pub(crate) fn reset(&mut self, identity: Identity) {
        self.name = None;
        self.db = 0;
        self.resp = Resp::V2;
        self.identity = identity;
        // A client that asked for it does not get the reply to RESET either.
        if self.reply_mode != ReplyMode::Skip {
            self.reply_mode = ReplyMode::On;
        }
        self.no_evict = false;
        self.no_touch = false;
        self.can_redirect = false;
        self.asking = Asking::Off;
        self.reads_replicas = false;
        self.monitor = false;
        self.transaction = None;
        self.watching = None;
    }

    /// Whether it must be answered at once, because its transaction is running.
    pub(crate) fn denies_blocking(&self) -> bool {
        self.transaction_us.is_some()
    }

    /// Whether its command has keys that are to be sent to another node now.
    pub(crate) fn departs(&self) -> bool {
        let departure = self.departure.as_ref();
        departure.is_some_and(|departure| departure.cargo.is_some())
    }

    /// Notes that its next command begins: what applies to one command may apply to this one.
    pub(crate) fn begin_request(&mut self) {
        if let Some(tracking) = &mut self.tracking {
            tracking.begin_request(self.transaction.is_some());
        }
        self.asking = match self.asking {
            Asking::Next => Asking::Now,
            Asking::Now if self.transaction.is_some() => Asking::Now,
            Asking::Now | Asking::Off => Asking::Off,
        };
    }

    /// Whether a request of the client is, or will be, part of a transaction.
    pub(crate) fn is_in_transaction(&self) -> bool {
        self.transaction.is_some() || self.transaction_us.is_some()
    }

    /// Whether the client has subscriptions.
    #[inline]
    pub(crate) fn is_subscriber(&self) -> bool {
        self.subscriptions.is_some()
    }

    /// Ends one of its subscriptions. Returns the number that a confirmation reports.
    pub(crate) fn leave(&mut self, hub: &Hub, topic: Topic, name: &[u8]) -> usize {
        let Some(subscriptions) = &mut self.subscriptions else {
            return 0;
        };
        if subscriptions.remove(topic, name) {
            hub.leave(topic, name, self.seat);
        }
        let left = subscriptions.counted_with(topic);
        if subscriptions.is_empty() {
            self.subscriptions = None;
        }
        left
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

    /// Whether the keys that its current command reads are to be remembered.
    #[inline]
    pub(crate) fn notes_reads(&self) -> bool {
        self.tracking
            .as_ref()
            .is_some_and(|tracking| tracking.notes_reads())
    }

    /// Ends its tracking.
    pub(crate) fn end_tracking(&mut self, tracking: &Tracking) {
        if self.tracking.take().is_some() {
            tracking.leave(self.seat);
        }
    }

    /// Whether it tracks in these modes.
    fn tracks_in(&self, modes: TrackingModes) -> bool {
        self.tracking
            .as_ref()
            .is_some_and(|tracking| tracking.modes.contains(modes))
    }

    /// Number of names of a kind that the client is subscribed to.
    pub(crate) fn subscribed_to(&self, topic: Topic) -> usize {
        let subscriptions = self.subscriptions.as_ref();
        subscriptions.map_or(0, |subscriptions| subscriptions.of(topic).len())
    }

    /// Bytes allocated for the client, without the buffers of its connection.
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
        let waiting = self.waits.as_ref().map_or(0, |ticket| ticket.memory());
        let tracking = self.tracking.as_ref().map_or(0, |tracking| tracking.memory());
        names + queue + watched + subscribed + waiting + tracking
    }

    /// Line of CLIENT LIST for the client, without the line feed. `argument_bytes` belong to the command that it is
    /// running.
    pub(crate) fn describe(&self, buffers: &BufferSizes, now_ms: i64, argument_bytes: usize) -> String {
        let mut line = String::with_capacity(320);
        let text = |bytes: &Option<Box<[u8]>>| {
            bytes
                .as_deref()
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
                .unwrap_or_default()
        };
        // The machine's clock may have been set back since.
        let seconds = |since: i64| (now_ms - since).max(0) / 1000;
        let queued = self.transaction.as_ref();
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db={} sub={} psub={} ssub={} multi={} watch={} \
             qbuf={} qbuf-free={} argv-mem={} multi-mem={} rbs={} rbp={} obl={} oll={} omem={} tot-mem={} events={} cmd={} \
             user={} redir={} resp={} lib-name={} lib-ver={} tot-net-in={} tot-net-out={} tot-cmds={}",
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
            self.user_name(),
            self.redirect(),
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

    /// Id of the client that gets its messages about changes: 0 if it does itself, -1 if it does not track.
    pub(crate) fn redirect(&self) -> i64 {
        let tracking = self.tracking.as_ref();
        tracking.map_or(-1, |tracking| tracking.redirect.unwrap_or(0) as i64)
    }

    /// Name of its user as CLIENT LIST shows it.
    fn user_name(&self) -> Cow<'_, str> {
        if self.is_primary {
            Cow::Borrowed("(superuser)")
        } else {
            String::from_utf8_lossy(self.identity.user().name())
        }
    }

    fn flags(&self) -> String {
        let mut flags = String::new();
        for (set, flag) in [
            (self.monitor, 'O'),
            (self.is_primary, 'M'),
            (self.is_replica, 'S'),
            (self.is_subscriber(), 'P'),
            (self.transaction.is_some(), 'x'),
            (self.waits.is_some() || self.is_paused, 'b'),
            (self.tracking.is_some(), 't'),
            (
                self.tracking
                    .as_ref()
                    .is_some_and(|tracking| tracking.is_broken()),
                'R',
            ),
            (self.tracks_in(TrackingModes::BCAST), 'B'),
            (
                self.watching
                    .as_ref()
                    .is_some_and(|watching| watching.token.is_touched()),
                'd',
            ),
            (self.closing == Closing::AfterReply, 'c'),
            (matches!(self.peer, Peer::Unix(_)), 'U'),
            (self.reads_replicas, 'r'),
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
