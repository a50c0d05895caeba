//! Feeds: channels from a node to the program that embeds it. A slow reader must not hold up the node.
//!
//! The channel may have a bound. When it is full, an element is dropped, or waits in a queue that a thread empties as the
//! reader reads, as the builder of the node chose: no loop ever waits here. What has waited in vain, or finds no reader, is
//! dropped and counted. A node that is stopping does not wait at all: the reader may be the one that stops it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{SendTimeoutError, Sender, TrySendError};
use parking_lot::{Condvar, Mutex};

use crate::limits::{LISTENER_QUEUE_BYTES, LISTENER_STEP};

/// Behaviour towards a listener that does not keep up, so that its channel is full. A channel without a bound is never full: it
/// takes memory instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowListener {
    /// An element that finds no room waits for it, for as long as the listener takes something at least this often; then it
    /// is dropped, and what follows does not wait again until there has been room. No more than 256 MiB wait. A command
    /// whose *effects* wait has been done, and only the connection that sent it waits for its reply. For *keyspace events*
    /// nobody waits.
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

/// An element of a feed.
pub(crate) trait Weighed {
    /// Bytes that it takes while it waits.
    fn bytes(&self) -> u64;
}

/// The sending end of a reader's channel.
pub(crate) struct Feed<T> {
    sender: Sender<T>,
    state: Arc<FeedState>,
    waiting: Arc<Waiting<T>>,
}

/// Elements that wait for room in the channel.
struct Waiting<T> {
    queue: Mutex<Queue<T>>,
    /// Tells the thread that empties the queue that there is something in it, or that the node ends.
    work: Condvar,
    /// The queue, or the hand of that thread, has elements: the next ones must not overtake them.
    is_used: AtomicBool,
}

struct Queue<T> {
    items: VecDeque<T>,
    bytes: u64,
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

impl<T: Weighed> Feed<T> {
    /// A feed for a channel.
    pub(crate) fn new(sender: Sender<T>, state: Arc<FeedState>) -> Self {
        let queue = Queue {
            items: VecDeque::new(),
            bytes: 0,
        };
        let waiting = Waiting {
            queue: Mutex::new(queue),
            work: Condvar::new(),
            is_used: AtomicBool::new(false),
        };
        Self {
            sender,
            state,
            waiting: Arc::new(waiting),
        }
    }

    /// State shared by all senders of the channel.
    #[cfg(test)]
    pub(crate) fn state(&self) -> Arc<FeedState> {
        Arc::clone(&self.state)
    }

    /// Sends an element, has it wait for room, or drops it.
    #[inline]
    pub(crate) fn send(&self, item: T) {
        if self.waiting.is_used.load(Ordering::Acquire) {
            return self.wait(item);
        }
        match self.sender.try_send(item) {
            Ok(()) => self.state.is_stuck.store(false, Ordering::Relaxed),
            Err(TrySendError::Full(item)) => self.wait(item),
            Err(TrySendError::Disconnected(_)) => self.state.count_dropped(1),
        }
    }

    #[cold]
    fn wait(&self, item: T) {
        let may_wait = matches!(self.state.slow, SlowListener::Wait(_))
            && !self.state.is_stuck.load(Ordering::Relaxed)
            && !self.state.has_ended();
        let mut queue = self.waiting.queue.lock();
        if !may_wait || queue.bytes + item.bytes() > LISTENER_QUEUE_BYTES {
            return self.state.count_dropped(1);
        }
        queue.bytes += item.bytes();
        queue.items.push_back(item);
        self.waiting.is_used.store(true, Ordering::Release);
        self.waiting.work.notify_one();
    }

    /// Whether the channel has a bound, so that [`serve`](Self::serve) is needed.
    pub(crate) fn has_bound(&self) -> bool {
        self.sender.capacity().is_some()
    }

    /// Sends what waits, until the node ends.
    pub(crate) fn serve(&self) {
        while let Some(item) = self.next_waiting() {
            if !self.send_within_limit(item) {
                // The reader has taken nothing for as long as it may, or is gone.
                self.state.is_stuck.store(true, Ordering::Relaxed);
                self.give_up(1);
            }
        }
        self.give_up(0);
    }

    /// The node has been told to end: nothing waits any more.
    pub(crate) fn end(&self) {
        // With the lock, or it might come between a look at the end and the wait for work.
        let _queue = self.waiting.queue.lock();
        self.waiting.work.notify_all();
    }

    /// The next element that waits, as soon as there is one; none when the node ends.
    fn next_waiting(&self) -> Option<T> {
        let mut queue = self.waiting.queue.lock();
        loop {
            if self.state.has_ended() {
                return None;
            }
            if let Some(item) = queue.items.pop_front() {
                queue.bytes -= item.bytes();
                return Some(item);
            }
            self.waiting.is_used.store(false, Ordering::Release);
            self.waiting.work.wait(&mut queue);
        }
    }

    /// Sends an element as soon as there is room. False when it was dropped.
    fn send_within_limit(&self, mut item: T) -> bool {
        let SlowListener::Wait(limit) = self.state.slow else {
            return false;
        };
        let mut waited = Duration::ZERO;
        while waited < limit && !self.state.has_ended() {
            let step = LISTENER_STEP.min(limit - waited);
            match self.sender.send_timeout(item, step) {
                Ok(()) => return true,
                Err(SendTimeoutError::Timeout(back)) => item = back,
                Err(SendTimeoutError::Disconnected(_)) => return false,
            }
            waited += step;
        }
        false
    }

    /// Drops what waits, and counts it with what was dropped before.
    fn give_up(&self, before: usize) {
        let mut queue = self.waiting.queue.lock();
        queue.bytes = 0;
        self.state.count_dropped(before + queue.items.drain(..).count());
        self.waiting.is_used.store(false, Ordering::Release);
    }
}

impl<T> Clone for Feed<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            state: Arc::clone(&self.state),
            waiting: Arc::clone(&self.waiting),
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
    use std::thread;

    use super::*;

    impl Weighed for u64 {
        fn bytes(&self) -> u64 {
            8
        }
    }

    fn feed(slow: SlowListener) -> (Feed<u64>, crossbeam_channel::Receiver<u64>, Arc<AtomicBool>) {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let has_ended = Arc::new(AtomicBool::new(false));
        let state = FeedState::new(slow, Arc::clone(&has_ended));
        (Feed::new(sender, Arc::new(state)), receiver, has_ended)
    }

    /// Runs `act` while a thread serves the feed.
    fn serving(feed: &Feed<u64>, has_ended: &AtomicBool, act: impl FnOnce()) {
        thread::scope(|scope| {
            scope.spawn(|| feed.serve());
            act();
            has_ended.store(true, Ordering::Release);
            feed.end();
        });
    }

    #[test]
    fn what_waits_comes_in_order_and_nobody_waits_with_it() {
        let (feed, receiver, has_ended) = feed(SlowListener::Wait(Duration::from_secs(3600)));
        serving(&feed, &has_ended, || {
            (0..1000).for_each(|number| feed.send(number));
            assert!(receiver.iter().take(1000).eq(0..1000));
            feed.send(1000);
            assert_eq!(receiver.recv(), Ok(1000));
        });
        assert_eq!(feed.state().dropped(), 0);
    }

    #[test]
    fn what_has_waited_in_vain_is_dropped_and_then_it_goes_on() {
        let (feed, receiver, has_ended) = feed(SlowListener::Wait(Duration::from_millis(20)));
        serving(&feed, &has_ended, || {
            (0..1000).for_each(|number| feed.send(number));
            while feed.state().dropped() < 999 {
                thread::yield_now();
            }
            feed.send(1000);
            assert_eq!(
                feed.state().dropped(),
                1000,
                "no time is spent on a reader that is stuck"
            );
            assert_eq!(receiver.recv(), Ok(0));
            feed.send(1001);
            assert_eq!(receiver.recv(), Ok(1001));
        });
    }

    #[test]
    fn what_finds_no_room_is_dropped_at_once_where_nothing_waits() {
        let (feed, receiver, _) = feed(SlowListener::Drop);
        (0..10).for_each(|number| feed.send(number));
        assert_eq!((receiver.recv(), feed.state().dropped()), (Ok(0), 9));
    }

    #[test]
    fn nothing_waits_for_one_who_is_gone_nor_when_the_node_ends() {
        let (feed, receiver, has_ended) = feed(SlowListener::Wait(Duration::from_secs(3600)));
        serving(&feed, &has_ended, || {
            (0..3).for_each(|number| feed.send(number));
        });
        assert_eq!(feed.state().dropped(), 2);
        drop(receiver);
        feed.send(3);
        assert_eq!(feed.state().dropped(), 3);
    }
}
