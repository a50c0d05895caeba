//! [`TrackingState`]: what a client that tracks has chosen, as its own loop knows it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Wish;

bitflags::bitflags! {
    /// Modes of CLIENT TRACKING.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct TrackingModes: u8 {
        /// The client is told of all keys with its prefixes, whether it has read them or not.
        const BCAST = 1;
        /// The client's reads count only right behind CLIENT CACHING YES.
        const OPTIN = 2;
        /// The client's reads count except right behind CLIENT CACHING NO.
        const OPTOUT = 4;
        /// The client is not told of its own changes.
        const NOLOOP = 8;
    }
}

/// Reach of CLIENT CACHING, which lasts for one command; that may be MULTI, and then it lasts until the transaction ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Caching {
    /// CLIENT CACHING applies to nothing.
    #[default]
    Unsaid,
    /// CLIENT CACHING applies to the next command.
    Next,
    /// CLIENT CACHING applies to the current command.
    Now,
}

/// The choices of a client that tracks.
#[derive(Debug, Default)]
pub(crate) struct TrackingState {
    /// Its modes.
    pub(crate) modes: TrackingModes,
    /// Reach of its CLIENT CACHING.
    pub(crate) caching: Caching,
    /// Id of the client that gets its messages instead.
    pub(crate) redirect: Option<u64>,
    /// Its prefixes, in broadcasting mode.
    pub(crate) prefixes: BTreeSet<Box<[u8]>>,
    /// Set when that client has gone.
    is_broken: Arc<AtomicBool>,
}

impl TrackingState {
    /// Takes over a wish. Prefixes are added to those that the client has.
    pub(super) fn change(&mut self, wish: &Wish<'_>) {
        self.modes = wish.modes;
        self.redirect = wish.redirect.map(|redirect| redirect.client);
        self.is_broken = Arc::default();
        if wish.modes.contains(TrackingModes::BCAST) {
            self.prefixes
                .extend(wish.prefixes.iter().map(|&prefix| prefix.into()));
        }
    }

    /// The flag that is set when the client has gone that gets the messages.
    pub(super) fn broken_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_broken)
    }

    /// Whether the client has gone that gets the messages.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }

    /// Whether the keys that the current command reads are to be remembered.
    #[inline]
    pub(crate) fn notes_reads(&self) -> bool {
        let is_said = self.caching == Caching::Now;
        if self.modes.contains(TrackingModes::BCAST) {
            false
        } else if self.modes.contains(TrackingModes::OPTIN) {
            is_said
        } else {
            !(self.modes.contains(TrackingModes::OPTOUT) && is_said)
        }
    }

    /// Notes that the client's next command begins, in a transaction or not.
    pub(crate) fn begin_request(&mut self, in_transaction: bool) {
        self.caching = match self.caching {
            Caching::Next => Caching::Now,
            Caching::Now if in_transaction => Caching::Now,
            Caching::Now | Caching::Unsaid => Caching::Unsaid,
        };
    }

    /// Notes that the command which has begun is none that CLIENT CACHING can be meant for: it applies to the next one.
    pub(crate) fn pass_over(&mut self) {
        if self.caching == Caching::Now {
            self.caching = Caching::Next;
        }
    }

    /// Bytes allocated for the choices.
    pub(crate) fn memory(&self) -> usize {
        let names: usize = self.prefixes.iter().map(|prefix| prefix.len()).sum();
        size_of::<Self>() + names + self.prefixes.len() * 2 * size_of::<Box<[u8]>>()
    }
}
