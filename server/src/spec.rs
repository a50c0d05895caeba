//! A command is one row: [`Command`]. Everything that is asked about a command (COMMAND and its subcommands, arity
//! errors, ACL categories, routing, the keys of a request) derives from its row and is written nowhere else.
//!
//! Rows stand in `commands/*.rs` beside their handlers; the parts they are built from are in `spec/`.

#[allow(
    dead_code,
    reason = "the vocabulary is whole; families to come use the rest of it"
)]
pub(crate) mod argument;
pub(crate) mod arity;
pub(crate) mod category;
pub(crate) mod flags;
#[allow(
    dead_code,
    reason = "the vocabulary is whole; families to come use the rest of it"
)]
pub(crate) mod key_spec;

pub(crate) use argument::{Arg, ArgKind, Doc, Group};
pub(crate) use arity::Arity;
pub(crate) use category::Category;
pub(crate) use flags::Flags;
pub(crate) use key_spec::{BeginSearch, FindKeys, KeyFlags, KeySpec};

use shardis_protocol::Arguments;

use crate::exec::client::CommandTag;
use crate::exec::{
    Handler, LoopHandler, Merge, NodeHandler, ShardHandler, TransactionHandler, WalkHandler, WalkReply,
};
use crate::limits::SHORT_WORDS_MAX;

/// One command, or one subcommand of a container, declared once.
#[derive(Debug)]
pub(crate) struct Command {
    /// Lower-case name; of a subcommand its own word only (`id`, not `client|id`).
    pub(crate) name: &'static str,
    /// How many words a request has, the command's own name (and its subcommand's) included.
    pub(crate) arity: Arity,
    /// What the command does and when it may run.
    pub(crate) flags: Flags,
    /// ACL categories beside those that the flags imply.
    pub(crate) acl: Category,
    /// Hints for clients and proxies, as COMMAND INFO shows them.
    pub(crate) tips: &'static [&'static str],
    /// Where its keys are.
    pub(crate) keys: &'static [KeySpec],
    /// Which thread runs it, and with what at hand.
    pub(crate) runs: Runs,
    /// The argument that holds a value to be stored as it is: a big one may be kept instead of copied.
    pub(crate) adopts: Option<u8>,
    /// The argument that is a member of the collection under the key, or a field: batches have it fetched from memory ahead.
    pub(crate) member: Option<u8>,
    /// Says which arguments of a request are secrets, for commands that have some: no log shows them.
    pub(crate) conceals: Option<fn(Arguments<'_>, usize) -> bool>,
    /// Documentation; cold, so behind a reference.
    pub(crate) doc: &'static Doc,
    /// Rows of the subcommands of a container.
    pub(crate) subcommands: &'static [Command],
}

/// The routing class of a command: one look tells thread, access and cost.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Runs {
    /// On the loop that carries the connection, with the client's own state and the node's: PING, SELECT, CONFIG.
    OnSession(NodeHandler),
    /// On the shard of its keys, or with all shards of its keys lent when they are several. Constant or logarithmic
    /// cost: another loop may borrow the shard for it.
    OnKeys(Handler),
    /// As `OnKeys`, but of a cost that grows with what it touches: only the shard's owner runs it.
    OnKeysLong(Handler),
    /// As `OnKeys`, after all that its connection sent before; it may wait for its keys, and nothing that comes behind it
    /// runs until it has been answered.
    Blocking(Handler),
    /// On every shard by itself; the parts are merged on the loop of the connection. Not atomic over the shards.
    OnEveryShard(ShardHandler, Merge),
    /// With all shards lent: atomic over the whole keyspace.
    OnAllShards(Handler),
    /// On the shard that the cursor in argument 1 names, and on those that follow it, one after the other, until it has done
    /// as much as it was to. Not atomic over the shards.
    OnCursorShards(WalkHandler, WalkReply),
    /// On every loop, with the connections it carries; the parts are merged on the loop of the connection.
    OnEveryLoop(LoopHandler, Merge),
    /// With the client's own state and all shards of its keys: WATCH.
    OnSessionAndKeys(TransactionHandler),
    /// With the client's own state and all shards lent: DEBUG.
    OnSessionAndAllShards(TransactionHandler),
    /// Runs what the client has queued, with all shards of its queue and of its watched keys.
    Exec,
    /// Only names its subcommands.
    Container,
}

impl Runs {
    /// Whether its cost grows with what it touches. Only commands of constant or logarithmic cost run in batches on a shard
    /// that another loop has borrowed, and hold several shards in place.
    #[inline]
    pub(crate) fn is_long(self) -> bool {
        !matches!(
            self,
            Self::OnKeys(_) | Self::Blocking(_) | Self::OnSessionAndKeys(_)
        )
    }

    /// Whether it is EXEC, whose cost and needs are those of what was queued.
    #[inline]
    pub(crate) fn is_exec(self) -> bool {
        matches!(self, Self::Exec)
    }

    /// Whether it works on nothing but its client and the node.
    pub(crate) fn is_on_session(self) -> bool {
        matches!(self, Self::OnSession(_))
    }

    /// Whether every loop does its part of it.
    pub(crate) fn is_on_every_loop(self) -> bool {
        matches!(self, Self::OnEveryLoop(..))
    }
}

impl Command {
    /// What a row starts from; it must set at least name, arity, runs and doc.
    pub(crate) const BLANK: Command = Command {
        name: "",
        arity: Arity::AtLeast(1),
        flags: Flags::empty(),
        acl: Category::empty(),
        tips: &[],
        keys: &[],
        runs: Runs::Container,
        adopts: None,
        member: None,
        conceals: None,
        doc: &Doc::BLANK,
        subcommands: &[],
    };

    /// Flags as declared, and `movablekeys` where the keys cannot be told from first, last and step alone.
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
        self.acl | Category::implied_by(self.flags)
    }
}

/// A row with what was derived from it once.
#[derive(Debug)]
pub(crate) struct Registered {
    /// The row.
    pub(crate) row: &'static Command,
    /// Its number among all rows, subcommands included: the index of its statistics.
    pub(crate) id: u16,
    /// `get`, `client|id`
    pub(crate) full_name: String,
    /// Where its keys are, so that the common cases cost one branch.
    pub(crate) keys: KeyShape,
    /// Its subcommands.
    pub(crate) subcommands: Vec<Registered>,
}

/// Where the keys of a command are, in the terms of routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyShape {
    /// It has none.
    None,
    /// One, always at this argument.
    One(u8),
    /// Found by its key specifications.
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
    /// How the state of a client remembers it.
    #[inline]
    pub(crate) fn tag(&'static self) -> CommandTag {
        CommandTag {
            id: self.id,
            name: &self.full_name,
        }
    }

    /// Whether a request takes long, by the kind of its row or by its length.
    #[inline]
    pub(crate) fn is_long(&self, args: Arguments<'_>) -> bool {
        self.row.runs.is_long() || args.len() > SHORT_WORDS_MAX
    }

    /// The registered subcommand of that name, in any case.
    pub(crate) fn subcommand(&self, word: &[u8]) -> Option<&Registered> {
        self.subcommands
            .iter()
            .find(|known| known.row.name.as_bytes().eq_ignore_ascii_case(word))
    }
}
