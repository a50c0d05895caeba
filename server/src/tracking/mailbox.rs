//! [`Mailbox`]: the messages on their way to one loop. Any thread may put messages in, and the loop takes them out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::broadcast::Changes;
use crate::limits::INVALIDATIONS_UNDER_WAY_BYTES;
use crate::pubsub::Subscriber;

/// The address of a message on a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receiver {
    /// The connection that gets the message.
    pub(crate) subscriber: Subscriber,
    /// Number of the tracker that it is for.
    pub(crate) tracker: u32,
    /// The way of the message.
    pub(crate) route: Route,
    /// Changes by the tracker itself are left out.
    pub(crate) spares_own: bool,
}

/// Way of a message from a change to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The connection is the tracker's own.
    Own,
    /// The connection is one that the tracker has named.
    Redirected,
    /// The connection that the tracker has named has gone: the tracker's own is told that.
    Broken,
}

/// A message for some connections of a loop.
#[derive(Debug)]
pub(crate) struct Notice {
    /// The content.
    pub(crate) content: Content,
    /// The receivers.
    pub(crate) receivers: SmallVec<[Receiver; 2]>,
}

/// Content of a message. `writer` is the number of the client that has made the change; 0 if none did.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// One key has changed.
    Key {
        /// The encoded array of its name.
        array: Arc<Vec<u8>>,
        /// The client that has changed it.
        writer: u32,
    },
    /// Keys with the receivers' prefix have changed.
    Keys(Arc<Changes>),
    /// Any key may have changed.
    All {
        /// The client that has caused it.
        writer: u32,
    },
}

impl Notice {
    /// A message to these receivers.
    pub(super) fn new(content: Content, receivers: impl IntoIterator<Item = Receiver>) -> Self {
        Self {
            content,
            receivers: receivers.into_iter().collect(),
        }
    }

    /// Bytes that the message takes while it is under way.
    fn bytes(&self) -> usize {
        let content = match &self.content {
            Content::Key { array, .. } => array.len(),
            Content::Keys(changes) => changes.bytes(),
            Content::All { .. } => 0,
        };
        size_of::<Self>() + content + self.receivers.len() * size_of::<Receiver>()
    }
}

/// The mailbox of one loop, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Mailbox {
    /// There is something to take.
    has_mail: AtomicBool,
    pending: Mutex<Mail>,
}

/// Messages for a loop.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    /// The messages, in order.
    pub(crate) notices: Vec<Notice>,
    /// Messages were dropped, because too many bytes were under way: all receivers on the loop are to be told that any key may
    /// have changed.
    pub(crate) has_lost: bool,
    bytes: usize,
}

impl Mailbox {
    /// Puts a message in. If too many bytes are under way, it is dropped.
    pub(super) fn put(&self, notice: Notice) {
        let mut pending = self.pending.lock();
        if pending.bytes >= INVALIDATIONS_UNDER_WAY_BYTES {
            pending.has_lost = true;
        } else {
            pending.bytes += notice.bytes();
            pending.notices.push(notice);
        }
        self.has_mail.store(true, Ordering::SeqCst);
    }

    /// Whether there is something to take.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::SeqCst)
    }

    /// Takes everything.
    pub(crate) fn take(&self) -> Mail {
        let mut pending = self.pending.lock();
        self.has_mail.store(false, Ordering::SeqCst);
        std::mem::take(&mut pending)
    }
}
