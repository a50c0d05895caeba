//! The bounds of one connection: lengths that a peer may announce, and bytes that it may send in an incomplete
//! request. Promise: each bound that the parsers enforce is named here, and nowhere else.

/// A bulk of at least this many bytes is reported while it arrives ([`crate::Wants::Bulk`]), so that the caller can
/// receive it into a buffer of its own instead of growing the shared one.
pub const BIG_ARGUMENT_BYTES: usize = 32 * 1024;

/// The most arguments a request may have before its sender has authenticated.
pub const UNAUTHENTICATED_ARGUMENTS_MAX: u32 = 10;

/// The longest argument, in bytes, before its sender has authenticated.
pub const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16 * 1024;

/// The last byte that a [`crate::Span`] can reach, counted from the start of its base. A request that does not fit in
/// so many bytes, detached bulks not counted, is refused.
pub const REACH_BYTES: usize = (u32::MAX - 1) as usize;

/// Bounds on what a client may ask of the request parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest argument in bytes (`proto-max-bulk-len`).
    pub bulk_bytes_max: usize,
    /// The most arguments of one request. The wire format allows no more than `i32::MAX`.
    pub arguments_max: u32,
    /// The longest inline request, and the longest line that announces a count or a length, in bytes without its end.
    pub inline_bytes_max: usize,
    /// Whether the client has authenticated or need not. Until then the two `UNAUTHENTICATED_` bounds hold as well.
    ///
    /// A request may authenticate its connection, and the next one in the same read may profit from it. A caller
    /// that passes `false` therefore asks for one request at a time and looks again after having executed it.
    pub authenticated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            bulk_bytes_max: 512 * 1024 * 1024,
            arguments_max: i32::MAX as u32,
            inline_bytes_max: 64 * 1024,
            authenticated: true,
        }
    }
}

impl Limits {
    /// The longest bulk that is accepted in this state.
    pub(crate) fn bulk_bytes_now(&self) -> usize {
        if self.authenticated {
            self.bulk_bytes_max
        } else {
            self.bulk_bytes_max.min(UNAUTHENTICATED_BULK_BYTES_MAX)
        }
    }
}

/// Bounds on the replies of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueLimits {
    /// The longest bulk in bytes.
    pub bulk_bytes_max: usize,
    /// The longest line (a simple string, an error, a number or a length) in bytes, its end included.
    pub line_bytes_max: usize,
    /// The most values in one reply, those inside of aggregates counted.
    pub elements_max: usize,
    /// Greatest depth of nested aggregates.
    pub depth_max: usize,
}

impl Default for ValueLimits {
    fn default() -> Self {
        ValueLimits {
            bulk_bytes_max: 512 * 1024 * 1024,
            line_bytes_max: 1024 * 1024,
            elements_max: i32::MAX as usize,
            depth_max: 128,
        }
    }
}
