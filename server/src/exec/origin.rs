//! [`Origin`]: on whose behalf a command runs or a key changes. Whatever depends on that asks here.

/// On whose behalf a command runs or a key changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client that has just sent the command, alone, in a batch or in a transaction.
    Client,
    /// A client that has waited for a key: its command was admitted, shown to monitors and counted when it came.
    Waiter,
    /// The node itself: expiry and eviction.
    Node,
    /// A file that is loaded: its commands have run before.
    Loading,
}

impl Origin {
    /// Whether the command counts among those that ran on the shards of its keys.
    #[inline]
    pub(crate) fn counts_on_shards(self) -> bool {
        self == Self::Client
    }

    /// Whether a command reports the effects. Otherwise the change itself is what replicas repeat.
    #[inline]
    pub(crate) fn reports_effects(self) -> bool {
        self != Self::Node
    }
}
