//! What a command handler is given and gives back.
//!
//! A handler is a synchronous function. It sees its arguments, the databases it may touch, an encoder for its reply, and
//! a place to report its effects; it sees no socket, no shard and no other client. Where it runs was decided before.

pub mod arguments;
pub mod client;
pub mod context;
pub mod effect;
pub mod partition;
pub mod request;
pub mod session;
pub mod view;
pub mod watch;

pub use arguments::{Expiration, Options};
pub use client::{Client, Closing, Peer, ReplyMode, Transaction};
pub use context::{Context, NewString};
pub use effect::{Effect, Effects};
pub use partition::{Figures, Partition};
pub use request::OwnedRequest;
pub use session::{Clients, Session};
pub use view::{Stamp, View};

use crate::error::ReplyError;

/// What a handler says when it is done: its reply is in the encoder, or the command failed without a trace.
pub type CommandResult = Result<(), ReplyError>;

/// Runs a command on the keyspaces it was given.
pub type Handler = fn(&mut Context<'_>) -> CommandResult;

/// Runs one shard's part of a command over every shard. What it encodes and the number it returns form a [`Part`].
pub type ShardHandler = fn(&mut Context<'_>) -> Result<u64, ReplyError>;

/// Runs one loop's part of a command over all connections.
pub type ClientsHandler = fn(&mut Clients<'_>) -> Result<Part, ReplyError>;

/// Makes one reply of the parts of all shards or loops, in their order.
pub type Merge = fn(&mut Session<'_>, &[Part]) -> CommandResult;

/// Runs a command on the client's and the node's state alone.
pub type NodeHandler = fn(&mut Session<'_>) -> CommandResult;

/// Runs a command on the client's state and the keyspaces of its transaction.
pub type TransactionHandler = fn(&mut Session<'_>, &mut View<'_>) -> CommandResult;

/// One shard's or loop's part of a reply.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// How many elements, or whatever number the command adds up.
    pub count: u64,
    /// Encoded elements, or whatever text the command joins.
    pub bytes: Vec<u8>,
}
