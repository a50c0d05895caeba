//! [`Mailbox`]: the messages on their way to one loop. Any thread may put messages in, and the loop takes them out.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::audience::{Subscriber, Subscribers};
use crate::limits::PUBLISHED_UNDER_WAY_BYTES;

/// One message for some connections of a loop.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    /// Encoded for RESP2, as an array. In RESP3 the first byte differs.
    pub(crate) message: Arc<Vec<u8>>,
    /// Its receivers.
    pub(crate) subscribers: Arc<Subscribers>,
}

impl Publication {
    /// Bytes that the publication takes while it is under way.
    fn bytes(&self) -> usize {
        self.message.len() + size_of::<Self>()
    }
}

/// Connections that have missed a message, because too many bytes were under way.
pub(crate) type Missed = HashSet<Subscriber>;

/// The mailbox of one loop, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Mailbox {
    pending: Mutex<Pending>,
    /// Bytes put in and not delivered yet.
    under_way: AtomicUsize,
}

#[derive(Debug, Default)]
struct Pending {
    publications: VecDeque<Publication>,
    missed: Missed,
}

impl Mailbox {
    /// Puts a message in. If too many bytes are under way, the message is dropped and its subscribers are noted.
    pub(super) fn put(&self, publication: Publication) {
        let mut pending = self.pending.lock();
        if self.under_way.load(Ordering::Relaxed) > PUBLISHED_UNDER_WAY_BYTES {
            pending.missed.extend(publication.subscribers.iter());
            return;
        }
        self.under_way.fetch_add(publication.bytes(), Ordering::Relaxed);
        pending.publications.push_back(publication);
    }

    /// Whether there are no messages.
    pub(crate) fn is_empty(&self) -> bool {
        let pending = self.pending.lock();
        pending.publications.is_empty() && pending.missed.is_empty()
    }

    /// Appends all messages to `taken`. Returns the subscribers that have missed a message after all of these.
    pub(crate) fn take(&self, taken: &mut VecDeque<Publication>) -> Missed {
        let mut pending = self.pending.lock();
        if taken.is_empty() {
            std::mem::swap(taken, &mut pending.publications);
        } else {
            taken.append(&mut pending.publications);
        }
        std::mem::take(&mut pending.missed)
    }

    /// Notes that a message that was taken has been delivered.
    pub(crate) fn delivered(&self, publication: &Publication) {
        self.under_way.fetch_sub(publication.bytes(), Ordering::Relaxed);
    }
}
