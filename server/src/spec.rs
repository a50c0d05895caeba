//! [`Command`]: a command is declared in one row. Everything that depends on the command (COMMAND and its
//! subcommands, arity errors, ACL categories, routing, the keys of a request) derives from its row and is written
//! nowhere else.
//!
//! Rows stand in `commands/*.rs` beside their handlers; the parts they are built from are in `spec/`.

mod access;
#[allow(
    dead_code,
    reason = "the vocabulary is whole; families to come use the rest of it"
)]
pub(crate) mod argument;
pub(crate) mod arity;
pub(crate) mod audited;
pub(crate) mod category;
pub(crate) mod channels;
pub(crate) mod flags;
#[allow(
    dead_code,
    reason = "the vocabulary is whole; families to come use the rest of it"
)]
pub(crate) mod key_spec;

pub(crate) use argument::{Arg, ArgKind, Doc, Group};
pub(crate) use arity::Arity;
pub(crate) use audited::Audited;
pub(crate) use category::Category;
pub(crate) use channels::Channels;
pub(crate) use flags::Flags;
pub(crate) use key_spec::{BeginSearch, Derivation, FindKeys, KeyFlags, KeySpec};

use shardis_protocol::Arguments;

use crate::exec::client::CommandTag;
use crate::exec::{
    Handler, LoopHandler, Merge, NodeHandler, ShardHandler, TransactionHandler, WalkHandler, WalkReply,
};
use crate::limits::SHORT_WORDS_MAX;

/// One command, or one subcommand of a container, declared once.
#[derive(Debug)]
pub(crate) struct Command {
    /// Lower-case name; for a subcommand, its own word only (`id`, not `client|id`).
    pub(crate) name: &'static str,
    /// Number of words of a request, including the command's name (and its subcommand's).
    pub(crate) arity: Arity,
    /// Properties of the command, and the conditions under which it may run.
    pub(crate) flags: Flags,
    /// ACL categories beside those that the flags imply.
    pub(crate) acl: Category,
    /// Hints for clients and proxies, as COMMAND INFO shows them.
    pub(crate) tips: &'static [&'static str],
    /// Specifications of its keys.
    pub(crate) keys: &'static [KeySpec],
    /// The channels that it publishes to or subscribes to.
    pub(crate) channels: Channels,
    /// Routing class: the thread that runs the command, and the partitions it gets.
    pub(crate) runs: Runs,
    /// Argument that is a value to be stored: a big one may be kept instead of copied.
    pub(crate) adopts: Option<u8>,
    /// Argument that is a member or field of the collection under the key: batches prefetch it.
    pub(crate) member: Option<u8>,
    /// Tells which arguments of a request are secrets, if the command has any: they appear in no log.
    pub(crate) conceals: Option<fn(Arguments<'_>, usize) -> bool>,
    /// Its entry in the audit log. Only commands that run with the state of their client can be audited.
    pub(crate) audited: Option<&'static Audited>,
    /// Documentation, behind a reference because it is rarely used.
    pub(crate) doc: &'static Doc,
    /// Rows of the subcommands of a container.
    pub(crate) subcommands: &'static [Command],
}

/// Routing class of a command: the thread it runs on, the data it accesses, and the kind of its cost.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Runs {
    /// On the loop that carries the connection, with the state of the client and of the node: PING, SELECT, CONFIG.
    OnSession(NodeHandler),
    /// On the shard of its keys, or with the partitions of several shards lent. The cost is constant or logarithmic:
    /// another loop may borrow the shard for it.
    OnKeys(Handler),
    /// Like `OnKeys`, but with a cost that grows with the data: only the shard's owner runs it.
    OnKeysLong(Handler),
    /// On the shard of the slot that argument 2 names. The cost may grow with the data.
    OnSlot(Handler),
    /// Like `OnKeys`, after all earlier requests of its connection; it may wait for its keys, and later requests of
    /// the connection run only when it has been answered.
    Blocking(Handler),
    /// A part on every shard; the loop of the connection merges the parts. Not atomic over the shards.
    OnEveryShard(ShardHandler, Merge),
    /// With the partitions of all shards lent: atomic over the whole keyspace.
    OnAllShards(Handler),
    /// On the shard in the cursor of argument 1 and, one after the other, on the shards behind it, until the command has done as
    /// much as it was asked to. Not atomic over the shards.
    OnCursorShards(WalkHandler, WalkReply),
    /// A part on every loop, with the connections of the loop; the loop of the connection merges the parts.
    OnEveryLoop(LoopHandler, Merge),
    /// With the state of the client and the partitions of its keys: WATCH.
    OnSessionAndKeys(TransactionHandler),
    /// With the state of the client and the partitions of all shards: DEBUG.
    OnSessionAndAllShards(TransactionHandler),
    /// Runs the commands that the client has queued, with the partitions of their keys and of the watched keys.
    Exec,
    /// Runs a script, with the partitions of its keys or of all shards.
    Script(ScriptKind),
    /// Not executable: a container of subcommands.
    Container,
}

/// Form in which a request names the script that it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScriptKind {
    /// By its source: EVAL.
    Source,
    /// By its digest: EVALSHA.
    Digest,
    /// As a function of a library: FCALL.
    Function,
}

impl Runs {
    /// Whether the cost grows with the data. Only commands of constant or logarithmic cost run in batches on a
    /// borrowed shard, or while they hold the cells of several shards.
    #[inline]
    pub(crate) fn is_long(self) -> bool {
        !matches!(
            self,
            Self::OnKeys(_) | Self::Blocking(_) | Self::OnSessionAndKeys(_)
        )
    }

    /// Whether the command is EXEC, whose cost and needs are those of the queued commands.
    #[inline]
    pub(crate) fn is_exec(self) -> bool {
        matches!(self, Self::Exec)
    }

    /// The form in which the command names a script; `None` if it runs none.
    #[inline]
    pub(crate) fn script(self) -> Option<ScriptKind> {
        match self {
            Self::Script(kind) => Some(kind),
            _ => None,
        }
    }

    /// Whether the command works only on its client and the node.
    pub(crate) fn is_on_session(self) -> bool {
        matches!(self, Self::OnSession(_))
    }

    /// Whether every loop runs a part of the command.
    pub(crate) fn is_on_every_loop(self) -> bool {
        matches!(self, Self::OnEveryLoop(..))
    }
}

impl Command {
    /// Starting point of rows; a row must set at least name, arity, runs and doc.
    pub(crate) const BLANK: Command = Command {
        name: "",
        arity: Arity::AtLeast(1),
        flags: Flags::empty(),
        acl: Category::empty(),
        tips: &[],
        keys: &[],
        channels: Channels::None,
        runs: Runs::Container,
        adopts: None,
        member: None,
        conceals: None,
        audited: None,
        doc: &Doc::BLANK,
        subcommands: &[],
    };

    /// The declared flags, and `movablekeys` if first key, last key and step alone do not determine the keys.
    pub(crate) fn all_flags(&self) -> Flags {
        let (_, movable) = key_spec::legacy_range(self.keys);
        if movable {
            self.flags | Flags::MOVABLE_KEYS
        } else {
            self.flags
        }
    }

    /// Whether an argument of a request is a secret.
    pub(crate) fn is_secret(&self, args: Arguments<'_>, index: usize) -> bool {
        self.conceals.is_some_and(|conceals| conceals(args, index))
    }

    /// ACL categories: the explicit ones and those that the flags imply.
    pub(crate) fn categories(&self) -> Category {
        let implied = Category::implied_by(self.flags);
        // The flag of a script that it only reads is no statement about keys.
        let implied = if self.acl.contains(Category::SCRIPTING) {
            implied.difference(Category::READ)
        } else {
            implied
        };
        self.acl | implied
    }
}

/// A row, and the data derived from it at start.
#[derive(Debug)]
pub(crate) struct Registered {
    /// The row.
    pub(crate) row: &'static Command,
    /// Number of the row among all rows, subcommands included: the index of its statistics.
    pub(crate) id: u16,
    /// Full name: `get`, `client|id`.
    pub(crate) full_name: String,
    /// Position of the keys, so that the common cases cost one branch.
    pub(crate) keys: KeyShape,
    /// The subcommands of a container.
    pub(crate) subcommands: Vec<Registered>,
}

/// Position of the keys of a command, as routing needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyShape {
    /// The command has no keys.
    None,
    /// One key, always at this argument.
    One(u8),
    /// The key specifications find the keys.
    General,
}

impl KeyShape {
    /// The shape of a row. Complexity: O(its specifications).
    pub(crate) fn of(row: &Command) -> Self {
        match row.keys {
            [] => Self::None,
            [spec] => match (spec.begin, spec.find) {
                (BeginSearch::Index(index), FindKeys::Range { last: 0, .. })
                    if row.arity.minimum() > usize::from(index) =>
                {
                    Self::One(index)
                }
                _ => Self::General,
            },
            _ => Self::General,
        }
    }
}

impl Registered {
    /// The tag by which the state of a client remembers the command.
    #[inline]
    pub(crate) fn tag(&'static self) -> CommandTag {
        CommandTag {
            id: self.id,
            name: &self.full_name,
        }
    }

    /// Whether a request takes long, because of its row or its length.
    #[inline]
    pub(crate) fn is_long(&self, args: Arguments<'_>) -> bool {
        self.row.runs.is_long() || args.len() > SHORT_WORDS_MAX
    }

    /// The registered subcommand of that name, ignoring case.
    pub(crate) fn subcommand(&self, word: &[u8]) -> Option<&Registered> {
        self.subcommands
            .iter()
            .find(|known| known.row.name.as_bytes().eq_ignore_ascii_case(word))
    }
}
