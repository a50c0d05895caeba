//! [`Written`]: how far the writes of a client have got, for commands that wait for that.

use shardis_protocol::Encoder;

use crate::journal::Position;
use crate::state::Node;

/// The writes of a client so far.
#[derive(Clone, Copy)]
pub(crate) struct Written<'a> {
    node: &'a Node,
    /// The end of their effects in the journal.
    to: Position,
}

/// Condition on the writes of a client that its command waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// None: the command waits for keys.
    #[default]
    Nothing,
    /// So many replicas have them.
    Replicas(i64),
    /// They are on disk here, if that is asked for, and on so many replicas.
    Files {
        /// They are to be on this node's disk.
        here: bool,
        /// Number of replicas.
        replicas: i64,
    },
}

impl Awaited {
    /// Whether replicas have to be asked.
    pub(crate) fn concerns_replicas(self) -> bool {
        matches!(self, Self::Replicas(_) | Self::Files { replicas: 1.., .. })
    }
}

impl<'a> Written<'a> {
    /// The writes whose effects end at this position.
    pub(crate) fn new(node: &'a Node, to: Position) -> Self {
        Self { node, to }
    }

    /// Whether they are on a replica: then they are nobody else's.
    pub(crate) fn are_local(self) -> bool {
        self.node.replication.following.is_replica()
    }

    fn is_stored_here(self) -> bool {
        self.node.append_only.is_on() && self.node.journal.has_synced(self.to)
    }

    /// Whether a condition holds.
    pub(crate) fn fulfil(self, awaited: Awaited) -> bool {
        let replicas = &self.node.replication.replicas;
        match awaited {
            Awaited::Nothing => false,
            Awaited::Replicas(count) => replicas.having(self.to.offset()) as i64 >= count,
            Awaited::Files {
                here,
                replicas: count,
            } => (!here || self.is_stored_here()) && replicas.storing(self.to.offset()) as i64 >= count,
        }
    }

    /// Replies how far they have got, as the command that waits for this condition does.
    pub(crate) fn report(self, awaited: Awaited, reply: &mut Encoder<'_>) {
        let replicas = &self.node.replication.replicas;
        match awaited {
            Awaited::Nothing => reply.null_array(),
            Awaited::Replicas(_) => reply.integer(replicas.having(self.to.offset()) as i64),
            Awaited::Files { .. } => {
                reply.array(2);
                reply.integer(self.is_stored_here().into());
                reply.integer(replicas.storing(self.to.offset()) as i64);
            }
        }
    }
}

impl std::fmt::Debug for Written<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Written").field(&self.to).finish()
    }
}
