//! The messages on their way to one loop: any thread puts something in, the loop takes it out.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::audience::{Listener, Listeners};
use crate::limits::PUBLISHED_UNDER_WAY_BYTES;

/// One message for some connections of a loop.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    /// As RESP2 sends it: an array. RESP3 has another first byte.
    pub(crate) message: Arc<Vec<u8>>,
    /// Its receivers.
    pub(crate) listeners: Arc<Listeners>,
}

impl Publication {
    /// Bytes that it takes while it is under way.
    fn bytes(&self) -> usize {
        self.message.len() + size_of::<Self>()
    }
}

/// Connections that a message was not left for, since too much was under way.
pub(crate) type Missed = HashSet<Listener>;

/// The mailbox of one loop, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Mailbox {
    pending: Mutex<Pending>,
    /// Bytes of what was put in and not yet delivered.
    under_way: AtomicUsize,
}

#[derive(Debug, Default)]
struct Pending {
    publications: VecDeque<Publication>,
    missed: Missed,
}

impl Mailbox {
    /// Puts a message in. If too much is under way already it is dropped, and those that it was for are noted.
    pub(super) fn put(&self, publication: Publication) {
        let mut pending = self.pending.lock();
        if self.under_way.load(Ordering::Relaxed) > PUBLISHED_UNDER_WAY_BYTES {
            pending.missed.extend(publication.listeners.iter());
            return;
        }
        self.under_way.fetch_add(publication.bytes(), Ordering::Relaxed);
        pending.publications.push_back(publication);
    }

    /// Whether there is nothing to take.
    pub(crate) fn is_empty(&self) -> bool {
        let pending = self.pending.lock();
        pending.publications.is_empty() && pending.missed.is_empty()
    }

    /// Takes all that is in it, behind what the loop has taken before. Returns who has missed something: that concerns
    /// what came after all of this.
    pub(crate) fn take(&self, taken: &mut VecDeque<Publication>) -> Missed {
        let mut pending = self.pending.lock();
        if taken.is_empty() {
            std::mem::swap(taken, &mut pending.publications);
        } else {
            taken.append(&mut pending.publications);
        }
        std::mem::take(&mut pending.missed)
    }

    /// Notes that something that was taken has been delivered.
    pub(crate) fn delivered(&self, publication: &Publication) {
        self.under_way.fetch_sub(publication.bytes(), Ordering::Relaxed);
    }
}
