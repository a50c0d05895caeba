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

use crate::limits::LISTENER_STEP;

/// Behaviour towards a listener that does not keep up, so that its channel is full. A channel without a bound is never full: it
/// takes memory instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowListener {
    /// Has commands wait until there is room, for as long as the listener takes something at least this often; then what waits is
    /// dropped, and what follows does not wait again until there has been room. A command with *effects* is done when it
    /// waits: only the connection that sent it does, for its reply. One that raises *keyspace events* waits with all other
    /// commands of its shard, and of its loop.
    Wait(Duration),
    /// Drops at once what finds no room.
    Drop,
}

impl Default for SlowListener {
    /// Waits for up to a second.
    fn default() -> Self {
        Self::Wait(Duration::from_secs(1))
    }
}

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
    /// The state of a channel; `has_ended` is set when the node stops.
    pub(crate) fn new(slow: SlowListener, has_ended: Arc<AtomicBool>) -> Self {
        Self {
            slow,
            dropped: AtomicU64::new(0),
            is_stuck: AtomicBool::new(false),
            has_ended,
        }
    }

    /// Number of dropped elements.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Counts what was dropped.
    pub(crate) fn count_dropped(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Behaviour towards a listener that does not keep up.
    pub(crate) fn slow(&self) -> SlowListener {
        self.slow
    }

    /// Does what the end of the node does.
    #[cfg(test)]
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
    }

    /// Whether the node is to end.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }
}

impl<T> Feed<T> {
    /// A feed for a channel.
    pub(crate) fn new(sender: Sender<T>, state: Arc<FeedState>) -> Self {
        Self { sender, state }
    }

    /// State shared by all senders of the channel.
    #[cfg(test)]
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
            let step = LISTENER_STEP.min(limit - waited);
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
        let state = FeedState::new(SlowListener::Wait(Duration::from_millis(20)), Arc::default());
        let feed = Feed::new(sender, Arc::new(state));
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
        let feed = Feed::new(sender, Arc::new(FeedState::new(limit, Arc::clone(&has_ended))));
        feed.send(1);
        has_ended.store(true, Ordering::Release);
        feed.send(2);
        drop(receiver);
        feed.send(3);
        assert_eq!(feed.state().dropped(), 2);
    }
}
