//! Positions of channels in a request, for the rules of users.

use std::ops::Range;

use shardis_protocol::Arguments;

/// The channels that a command publishes to or subscribes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channels {
    /// None. What ends subscriptions needs no permission.
    None,
    /// Argument 1.
    First,
    /// All arguments.
    All,
    /// All arguments, which are patterns of channels.
    Patterns,
}

impl Channels {
    /// Positions of the channels in a request.
    pub(crate) fn positions(self, args: Arguments<'_>) -> Range<usize> {
        match self {
            Self::None => 0..0,
            Self::First => 1..args.len().min(2),
            Self::All | Self::Patterns => 1..args.len(),
        }
    }
}
