//! [`Origin`]: on whose behalf a command runs or a key changes. Whatever depends on that asks here.

/// On whose behalf a command runs or a key changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client that has just sent the command, alone, in a batch or in a transaction.
    Client,
    /// A client that has waited for a key: its command was admitted, shown to monitors and counted when it came.
    Waiter,
    /// The primary, whose stream this node follows.
    Primary,
    /// The node itself: expiry and eviction.
    Node,
    /// A file that is loaded: its commands have run before.
    Loading,
    /// A script that a client has called, which counts by itself on which shards its commands ran.
    Script,
}

impl Origin {
    /// Whether the command counts among those that ran on the shards of its keys.
    #[inline]
    pub(crate) fn counts_on_shards(self) -> bool {
        matches!(self, Self::Client | Self::Primary)
    }

    /// Whether a command reports the effects. Otherwise the change itself is what replicas repeat.
    #[inline]
    pub(crate) fn reports_effects(self) -> bool {
        self != Self::Node
    }
}
