//! The interface between the server and command handlers: what a handler is given, and what it returns.
//!
//! A handler is a synchronous function. It sees its arguments, the databases it may touch, an encoder for its reply, and
//! a place to report its effects; it sees no socket, no shard and no other client. Where it runs was decided before.

pub(crate) mod arguments;
pub(crate) mod change;
pub(crate) mod client;
pub(crate) mod context;
pub(crate) mod cut;
pub(crate) mod departure;
pub(crate) mod effect;
pub(crate) mod event;
pub(crate) mod held;
pub(crate) mod identity;
pub(crate) mod origin;
mod own_volatile;
pub(crate) mod partition;
pub(crate) mod reload;
pub(crate) mod request;
pub(crate) mod scan;
pub(crate) mod session;
pub(crate) mod view;
pub(crate) mod waiter;
pub(crate) mod walk;
pub(crate) mod watch;
pub(crate) mod written;

pub(crate) use arguments::{Expiration, Options};
pub(crate) use client::{Client, Closing, Modes, Peer, ReplyMode, Transaction};
pub(crate) use context::{Context, NewString};
pub use effect::Effect;
pub(crate) use effect::Effects;
pub use event::KeyspaceEvent;
pub(crate) use identity::{Identity, Standing};
pub(crate) use origin::Origin;
pub(crate) use partition::Partition;
pub(crate) use reload::{Errand, Reload, Reloading};
pub(crate) use request::OwnedRequest;
pub(crate) use scan::ScanOptions;
pub(crate) use session::{Carried, Roster, Session};
pub(crate) use view::{Stamp, View};
pub(crate) use walk::Walk;
pub(crate) use written::{Awaited, Written};

use shardis_protocol::Encoder;

use crate::error::ReplyError;

/// Result of a handler: `Ok` when its reply is in the encoder, an error when the command failed and changed nothing.
pub(crate) type CommandResult = Result<(), ReplyError>;

/// Runs a command on the keyspaces it was given.
pub(crate) type Handler = fn(&mut Context<'_>) -> CommandResult;

/// Runs one shard's part of a command over every shard. What it encodes and the number it returns form a [`Part`].
pub(crate) type ShardHandler = fn(&mut Context<'_>) -> Result<u64, ReplyError>;

/// Runs one shard's part of a call of a walk over all keys, and encodes the elements found.
pub(crate) type WalkHandler = fn(&mut Context<'_>, &mut Walk) -> CommandResult;

/// Encodes the reply from the elements that a walk has found.
pub(crate) type WalkReply = fn(&mut Encoder<'_>, &Part);

/// Runs one loop's part of a command over all connections.
pub(crate) type LoopHandler = fn(&mut Roster<'_>) -> Result<Part, ReplyError>;

/// Makes one reply of the parts of all shards or loops, in their order.
pub(crate) type Merge = fn(&mut Session<'_>, &[Part]) -> CommandResult;

/// Runs a command on the client's and the node's state alone.
pub(crate) type NodeHandler = fn(&mut Session<'_>) -> CommandResult;

/// Runs a command on the client's state and the keyspaces of its transaction.
pub(crate) type TransactionHandler = fn(&mut Session<'_>, &mut View<'_>) -> CommandResult;

/// One shard's or loop's part of a reply.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    /// Number of elements, or any other number that the command adds up over its parts.
    pub(crate) count: u64,
    /// Encoded elements, or whatever text the command joins.
    pub(crate) bytes: Vec<u8>,
    /// The part grew beyond the longest reply that can be sent, and is incomplete.
    pub(crate) is_cut: bool,
    /// Cursor for the next call, when the command is one call of a walk.
    pub(crate) cursor: u64,
}
