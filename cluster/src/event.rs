//! The whole vocabulary between a machine and the server that drives it: what happens to a node, and what it wants
//! done.

use std::fmt;
use std::ops::RangeInclusive;

use crate::node::{Address, Host, LinkId, NodeId, ShardId};
use crate::slot::{Slot, SlotSet};
use crate::wire::Packet;

/// A moment, on both clocks. Everything that waits uses the monotonic one; the other is for peers and for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never jumps. It starts above 0, which stands for never.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

/// Milliseconds between two [`Event::Tick`].
pub const TICK_MS: u64 = 100;

/// Directives of the configuration, as far as they matter here. Names are those of redis.conf without `cluster-`.
#[derive(Clone, Debug)]
pub struct Options {
    /// `node-timeout`.
    pub node_timeout_ms: u64,
    /// Period at which a primary pings its replicas, `repl-ping-replica-period`.
    pub replica_ping_period_ms: u64,
    /// `replica-validity-factor`; 0 lets a replica of any age run.
    pub replica_validity_factor: u64,
    /// `replica-no-failover`.
    pub replica_no_failover: bool,
    /// `migration-barrier`.
    pub migration_barrier: usize,
    /// `allow-replica-migration`.
    pub allow_replica_migration: bool,
    /// `require-full-coverage`.
    pub require_full_coverage: bool,
    /// `allow-reads-when-down`.
    pub allow_reads_when_down: bool,
    /// `allow-pubsubshard-when-down`.
    pub allow_pubsubshard_when_down: bool,
    /// `preferred-endpoint-type`.
    pub preferred_endpoint: EndpointKind,
    /// `tls-cluster`: the bus and the port that it announces first use TLS.
    pub is_tls: bool,
    /// Addresses to announce. Without an ip the node learns its own when it is met.
    pub announced: Address,
    /// `announce-hostname`; empty for none.
    pub hostname: Box<str>,
    /// `announce-human-nodename`; empty for none.
    pub human_name: Box<str>,
    /// A rule to break, to see that the simulation notices.
    #[cfg(feature = "broken-rules")]
    pub broken: Option<BrokenRule>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            node_timeout_ms: 15_000,
            replica_ping_period_ms: 10_000,
            replica_validity_factor: 10,
            replica_no_failover: false,
            migration_barrier: 1,
            allow_replica_migration: true,
            require_full_coverage: true,
            allow_reads_when_down: false,
            allow_pubsubshard_when_down: true,
            preferred_endpoint: EndpointKind::Ip,
            is_tls: false,
            announced: Address::default(),
            hostname: Box::default(),
            human_name: Box::default(),
            #[cfg(feature = "broken-rules")]
            broken: None,
        }
    }
}

impl Options {
    /// Whether a test has switched this rule off.
    #[cfg(feature = "broken-rules")]
    pub(crate) fn is_broken(&self, rule: BrokenRule) -> bool {
        self.broken == Some(rule)
    }

    /// Whether a test has switched this rule off: never in a server.
    #[cfg(not(feature = "broken-rules"))]
    #[expect(clippy::unused_self, reason = "the other build looks at the options")]
    pub(crate) fn is_broken(&self, _: BrokenRule) -> bool {
        false
    }
}

/// A rule of the protocol that a test can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenRule {
    /// One vote in an epoch.
    OneVoteAnEpoch,
    /// A vote is on disk before it leaves.
    SaveBeforeVote,
    /// A failover needs the votes of a majority.
    MajorityElects,
    /// A node fails when a majority says so.
    MajorityFails,
    /// A claim with a lower epoch takes no slots.
    GreaterEpochOwns,
    /// A node with an old claim is told of the new one.
    TellOldClaims,
    /// A vote is refused to a replica whose view of its slots is old.
    NoVoteForOldClaims,
}

/// Form in which clients are told of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointKind {
    /// Its address.
    #[default]
    Ip,
    /// The host name that it announces.
    Hostname,
    /// None: clients use the host that they have reached.
    Unknown,
}

/// Facts about this node that the machine cannot know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Replication offset. 0 on a replica that will need all data anew, whatever it once had: it must not win.
    pub replication_offset: u64,
    /// On a replica, monotonic time until which its data were its primary's: now while the link is up and busy, the
    /// time of the last traffic otherwise. `None` if it never had its primary's data.
    pub data_as_of_ms: Option<u64>,
}

/// The two ends of the connection that a packet came over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Address of the other end.
    pub remote_ip: Host,
    /// Address of this end.
    pub local_ip: Host,
}

/// Something that happens to a node.
#[derive(Clone, Debug)]
pub enum Event {
    /// [`TICK_MS`] have passed.
    Tick,
    /// A connection that was asked for is established.
    LinkUp(u64),
    /// A connection failed or ended.
    LinkDown(LinkId),
    /// Bytes came over a connection, though no whole packet yet.
    Data(LinkId),
    /// A packet came.
    Packet {
        /// Over this connection.
        link: LinkId,
        /// Between these addresses.
        peer: Peer,
        /// The packet.
        packet: Box<Packet>,
    },
    /// The server knows something new about itself. Due before a tick, and as soon as the offset of a replica in a
    /// manual failover grows.
    Facts(Facts),
    /// The configuration has changed.
    Options(Box<Options>),
    /// No write is admitted any more, as [`Action::PauseWrites`] asks for, and every write that was is in the offset of the
    /// last [`Event::Facts`].
    WritesPaused,
    /// A client asks for a change; the answer is an [`Action::Reply`] with the same tag.
    Command {
        /// Chosen by the server.
        tag: u64,
        /// The command.
        command: Command,
    },
    /// A client publishes a message; local subscribers are the server's matter.
    Publish {
        /// Whether the channel is sharded: then only the shard hears of it.
        is_sharded: bool,
        /// The channel.
        channel: Vec<u8>,
        /// The message.
        message: Vec<u8>,
    },
}

/// A subcommand of `CLUSTER` that changes something, parsed.
#[derive(Clone, Debug)]
pub enum Command {
    /// `MEET`.
    Meet {
        /// Address to call.
        ip: Host,
        /// Port for clients.
        port: u16,
        /// Port of the bus.
        bus_port: u16,
    },
    /// `FORGET`.
    Forget(NodeId),
    /// `ADDSLOTS` and `ADDSLOTSRANGE`.
    AddSlots(Vec<RangeInclusive<Slot>>),
    /// `DELSLOTS` and `DELSLOTSRANGE`.
    DelSlots(Vec<RangeInclusive<Slot>>),
    /// `FLUSHSLOTS`.
    FlushSlots {
        /// Whether the node has any keys.
        has_keys: bool,
    },
    /// `SETSLOT slot MIGRATING node`.
    SetSlotMigrating(Slot, NodeId),
    /// `SETSLOT slot IMPORTING node`.
    SetSlotImporting(Slot, NodeId),
    /// `SETSLOT slot STABLE`.
    SetSlotStable(Slot),
    /// `SETSLOT slot NODE node`.
    SetSlotNode {
        /// The slot.
        slot: Slot,
        /// Its new owner.
        node: NodeId,
        /// Whether this node has keys of the slot.
        has_keys: bool,
    },
    /// `REPLICATE`.
    Replicate {
        /// The primary.
        primary: NodeId,
        /// Whether this node has any keys.
        has_keys: bool,
    },
    /// `FAILOVER`.
    Failover(FailoverMode),
    /// `RESET`.
    Reset {
        /// With `HARD`, the node's new name; the caller brings randomness.
        hard: Option<NodeId>,
        /// The node's new shard.
        shard: ShardId,
        /// Whether this node has any keys.
        has_keys: bool,
    },
    /// `BUMPEPOCH`.
    BumpEpoch,
    /// `SET-CONFIG-EPOCH`.
    SetConfigEpoch(u64),
    /// `SAVECONFIG`.
    SaveConfig,
    /// `COUNT-FAILURE-REPORTS`.
    CountFailureReports(NodeId),
    /// Sent once at the start, when the data are loaded: slots that have keys. Those that nobody owns are claimed,
    /// those of others are marked as importing, so that no key is lost by a file that is older than the data.
    AdoptSlots(Box<SlotSet>),
}

/// Ways of a manual failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailoverMode {
    /// The primary pauses until this replica has all of its data.
    Agreed,
    /// Without the primary.
    Force,
    /// Without the primary and without votes.
    Takeover,
}

/// Something that a machine wants done. A batch of actions is carried out in order.
#[derive(Clone, Debug)]
pub enum Action {
    /// Save the file of nodes: [`crate::nodes_file::print`] of the view as it is now. It stands first in its batch,
    /// and if it `is_durable` nothing of the batch may happen before the file is synced. A node whose file cannot be
    /// saved stops: it would break its word after a restart.
    Save {
        /// Whether the batch waits for the disk.
        is_durable: bool,
    },
    /// Open a connection.
    Connect {
        /// Its number.
        number: u64,
        /// Address to call.
        ip: Host,
        /// Port to call.
        bus_port: u16,
    },
    /// Close a connection; no [`Event::LinkDown`] needs to follow, and one does no harm.
    Close(LinkId),
    /// Send a packet.
    Send {
        /// Over this connection.
        link: LinkId,
        /// The packet.
        packet: Box<Packet>,
    },
    /// Send one packet to many: it is encoded once.
    Broadcast {
        /// Over these connections.
        links: Vec<LinkId>,
        /// The packet.
        packet: Box<Packet>,
    },
    /// Replicate from this primary.
    Replicate {
        /// Its name.
        primary: NodeId,
        /// Its addresses.
        address: Address,
        /// Whether it is of another shard than this node was: what this node has is not its data.
        is_foreign: bool,
    },
    /// Stop replicating: this node is a primary now.
    Promote,
    /// Take writes no more until that monotonic time, for a manual failover. Reads go on. [`Event::WritesPaused`] follows,
    /// when the writes that were under way have ended.
    PauseWrites {
        /// End of the pause.
        until_ms: u64,
    },
    /// Take writes again.
    ResumeWrites,
    /// The owners of slots, the open slots, or the addresses of nodes are not those of the last version.
    SlotsChanged {
        /// The new version.
        version: u64,
    },
    /// The cluster as this node sees it works now, or no longer.
    StateChanged {
        /// Whether it works.
        is_ok: bool,
    },
    /// Slots went to another primary while this node stays one: their keys, if any, are deleted, for its replicas and
    /// its append-only file too.
    DropKeys(Box<SlotSet>),
    /// All data are deleted: the node was a replica and was reset.
    DropAll,
    /// A message for the local subscribers.
    Deliver {
        /// Whether the channel is sharded.
        is_sharded: bool,
        /// The channel.
        channel: Vec<u8>,
        /// The message.
        message: Vec<u8>,
    },
    /// The answer to a command.
    Reply {
        /// Tag of the command.
        tag: u64,
        /// The answer.
        reply: Reply,
    },
    /// A line for the log.
    Log(Level, String),
}

/// Importance of a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For debugging.
    Debug,
    /// Of some interest.
    Verbose,
    /// For everybody.
    Notice,
    /// Something is wrong.
    Warning,
}

/// Answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `OK`.
    Ok,
    /// A simple string.
    Status(String),
    /// A number.
    Number(u64),
    /// An error.
    Error(CommandError),
}

/// Error of a command. `Display` gives the line, its code first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each one is the text that `Display` gives it")]
pub enum CommandError {
    UnknownNode(NodeId),
    UnknownTarget(NodeId),
    InvalidAddress(Host, u16),
    TooManyNodes,
    ForgetsItself,
    ForgetsItsPrimary,
    SlotIsBusy(Slot),
    SlotIsUnassigned(Slot),
    SlotIsNamedTwice(Slot),
    FlushesSlotsWithKeys,
    SetSlotOnReplica,
    NotTheOwner(Slot),
    IsTheOwner(Slot),
    TargetIsNoPrimary,
    SlotHasKeys(Slot),
    ReplicatesItself,
    ReplicatesAReplica,
    ReplicatesWithData,
    FailoverOnPrimary,
    FailoverWithoutPrimary,
    FailoverOfADeadPrimary,
    ResetWithKeys,
    EpochWithOtherNodes,
    EpochIsSet,
    EpochIsInvalid(i64),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use CommandError as E;
        f.write_str("ERR ")?;
        f.write_str(match self {
            E::UnknownNode(id) => return write!(f, "Unknown node {id}"),
            E::UnknownTarget(id) => return write!(f, "I don't know about node {id}"),
            E::InvalidAddress(ip, port) => return write!(f, "Invalid node address specified: {ip}:{port}"),
            E::SlotIsBusy(slot) => return write!(f, "Slot {slot} is already busy"),
            E::SlotIsUnassigned(slot) => return write!(f, "Slot {slot} is already unassigned"),
            E::SlotIsNamedTwice(slot) => return write!(f, "Slot {slot} specified multiple times"),
            E::NotTheOwner(slot) => return write!(f, "I'm not the owner of hash slot {slot}"),
            E::IsTheOwner(slot) => return write!(f, "I'm already the owner of hash slot {slot}"),
            E::SlotHasKeys(slot) => {
                return write!(
                    f,
                    "Can't assign hashslot {slot} to a different node while I still hold keys for this hash slot."
                );
            }
            E::EpochIsInvalid(epoch) => return write!(f, "Invalid config epoch specified: {epoch}"),
            E::TooManyNodes => "Too many nodes are known already",
            E::ForgetsItself => "I tried hard but I can't forget myself...",
            E::ForgetsItsPrimary => "Can't forget my master!",
            E::FlushesSlotsWithKeys => "DB must be empty to perform CLUSTER FLUSHSLOTS.",
            E::SetSlotOnReplica => "Please use SETSLOT only with masters.",
            E::TargetIsNoPrimary => "Target node is not a master",
            E::ReplicatesItself => "Can't replicate myself",
            E::ReplicatesAReplica => "I can only replicate a master, not a replica.",
            E::ReplicatesWithData => "To set a master the node must be empty and without assigned slots.",
            E::FailoverOnPrimary => "You should send CLUSTER FAILOVER to a replica",
            E::FailoverWithoutPrimary => "I'm a replica but my master is unknown to me",
            E::FailoverOfADeadPrimary => "Master is down or failed, please use CLUSTER FAILOVER FORCE",
            E::ResetWithKeys => "CLUSTER RESET can't be called with master nodes containing keys",
            E::EpochWithOtherNodes => {
                "The user can assign a config epoch only when the node does not know any other node."
            }
            E::EpochIsSet => "Node config epoch is already non-zero",
        })
    }
}

impl std::error::Error for CommandError {}

/// Actions of one event, in the order in which they are carried out.
#[derive(Debug, Default)]
pub struct Actions {
    save: Option<bool>,
    list: Vec<Action>,
}

impl Actions {
    /// No actions.
    #[must_use]
    pub fn new() -> Self {
        Actions::default()
    }

    /// Takes the actions out: the save first, so that nothing leaves a node before the file knows of it.
    pub fn drain(&mut self) -> impl Iterator<Item = Action> {
        let save = self.save.take().map(|is_durable| Action::Save { is_durable });
        save.into_iter().chain(self.list.drain(..))
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.save.is_none() && self.list.is_empty()
    }

    pub(crate) fn push(&mut self, action: Action) {
        self.list.push(action);
    }

    pub(crate) fn log(&mut self, level: Level, text: impl Into<String>) {
        self.list.push(Action::Log(level, text.into()));
    }

    pub(crate) fn notice(&mut self, text: impl Into<String>) {
        self.log(Level::Notice, text);
    }

    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        self.log(Level::Warning, text);
    }

    /// The file must be saved; a durable save stays one.
    pub(crate) fn save(&mut self, is_durable: bool) {
        self.save = Some(self.save.unwrap_or_default() || is_durable);
    }
}
