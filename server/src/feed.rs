//! Feeds: channels from a node to the program that embeds it. A slow reader must not block the node for ever.
//!
//! The channel may have a bound. When it is full, a loop waits or does not, as the builder of the node chose; an
//! element that finds no room in the end, or no reader, is dropped and counted. A node that is stopping does not wait
//! at all: the reader may be the one that stops it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{SendTimeoutError, Sender, TrySendError};

/// Choice for a reader that is slow, so that its channel is full. A channel without a bound is never full: it takes
/// memory instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowListener {
    /// The command waits for room, and with it all other commands of its shards, but no longer than this. Then the
    /// element is dropped, and further ones do not wait again until there has been room.
    Wait(Duration),
    /// The element is dropped at once.
    Drop,
}

impl Default for SlowListener {
    /// Waits for up to a second.
    fn default() -> Self {
        Self::Wait(Duration::from_secs(1))
    }
}

/// Interval at which a sender waiting for room checks whether the node is stopping.
const WAIT_STEP: Duration = Duration::from_millis(5);

/// The sending end of a reader's channel.
pub(crate) struct Feed<T> {
    sender: Sender<T>,
    state: Arc<FeedState>,
}

/// State shared by all senders of a channel.
#[derive(Debug)]
pub(crate) struct FeedState {
    slow: SlowListener,
    /// Number of dropped elements.
    dropped: AtomicU64,
    /// A sender has waited in vain, and there has been no room since.
    is_stuck: AtomicBool,
    /// The node is stopping: no sender waits any more.
    has_ended: Arc<AtomicBool>,
}

impl FeedState {
    /// Number of dropped elements.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl<T> Feed<T> {
    /// A feed for a channel; `has_ended` is set when the node stops.
    pub(crate) fn new(sender: Sender<T>, slow: SlowListener, has_ended: Arc<AtomicBool>) -> Self {
        Self {
            sender,
            state: Arc::new(FeedState {
                slow,
                dropped: AtomicU64::new(0),
                is_stuck: AtomicBool::new(false),
                has_ended,
            }),
        }
    }

    /// A feed for a channel without a bound, and its other end.
    #[cfg(test)]
    pub(crate) fn unbounded() -> (Self, crossbeam_channel::Receiver<T>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        (Self::new(sender, SlowListener::Drop, Arc::default()), receiver)
    }

    /// State shared by all senders of the channel.
    pub(crate) fn state(&self) -> Arc<FeedState> {
        Arc::clone(&self.state)
    }

    /// Sends an element; drops it when there is no room or no reader.
    #[inline]
    pub(crate) fn send(&self, item: T) {
        match self.sender.try_send(item) {
            Ok(()) => {}
            Err(TrySendError::Full(item)) => self.send_to_full(item),
            Err(TrySendError::Disconnected(_)) => self.count_dropped(),
        }
    }

    #[cold]
    fn send_to_full(&self, item: T) {
        let SlowListener::Wait(limit) = self.state.slow else {
            return self.count_dropped();
        };
        if self.state.is_stuck.load(Ordering::Relaxed) && self.sender.is_full() {
            return self.count_dropped();
        }
        let (mut item, mut waited) = (item, Duration::ZERO);
        while waited < limit && !self.state.has_ended.load(Ordering::Acquire) {
            let step = WAIT_STEP.min(limit - waited);
            match self.sender.send_timeout(item, step) {
                Ok(()) => return self.state.is_stuck.store(false, Ordering::Relaxed),
                Err(SendTimeoutError::Timeout(back)) => item = back,
                Err(SendTimeoutError::Disconnected(_)) => return self.count_dropped(),
            }
            waited += step;
        }
        self.state.is_stuck.store(true, Ordering::Relaxed);
        self.count_dropped();
    }

    fn count_dropped(&self) {
        self.state.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl<T> Clone for Feed<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            state: Arc::clone(&self.state),
        }
    }
}

impl<T> fmt::Debug for Feed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Feed").field(&self.state).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_dropped_after_the_wait_and_then_at_once() {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let feed = Feed::new(
            sender,
            SlowListener::Wait(Duration::from_millis(20)),
            Arc::default(),
        );
        for number in 0..1000 {
            feed.send(number);
        }
        // If each waited, this would take 20 s.
        assert_eq!(feed.state().dropped(), 999);
        assert_eq!(receiver.recv(), Ok(0));
        feed.send(1000);
        assert_eq!((receiver.recv(), feed.state().dropped()), (Ok(1000), 999));
    }

    #[test]
    fn nobody_waits_for_one_who_is_gone_nor_when_the_node_ends() {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let has_ended = Arc::new(AtomicBool::new(false));
        let limit = SlowListener::Wait(Duration::from_secs(3600));
        let feed = Feed::new(sender, limit, Arc::clone(&has_ended));
        feed.send(1);
        has_ended.store(true, Ordering::Release);
        feed.send(2);
        drop(receiver);
        feed.send(3);
        assert_eq!(feed.state().dropped(), 2);
    }
}
