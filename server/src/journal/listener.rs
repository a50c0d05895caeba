//! [`Listener`]: the reader of the journal that embeds the node, and its channel.
//!
//! Units go straight into the channel while there is room. What finds none is dropped, or waits in a queue that a thread
//! empties as the listener reads, as the builder of the node chose; no loop ever waits here. A unit is sent whole or dropped
//! whole: once its first effect is in the channel, the rest stays at the front of the queue for as long as it takes.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Sender, TrySendError};
use smallvec::SmallVec;

use super::{Effect, Position};
use crate::feed::{FeedState, SlowListener};
use crate::limits::LISTENER_QUEUE_BYTES;

/// Effects of a unit in reverse order: most units have one.
pub(super) type Effects = SmallVec<[Effect; 1]>;

/// A unit on its way to the listener.
#[derive(Debug)]
pub(super) struct Parcel {
    /// Effects that remain to be sent, the first one last.
    pub(super) effects: Effects,
    /// The length of the unit in the journal.
    pub(super) bytes: u64,
    /// The end of the unit in the journal.
    pub(super) end: Position,
    /// Some of it is in the channel.
    pub(super) is_begun: bool,
}

/// The sending end of the listener's channel.
#[derive(Debug)]
pub(super) struct Listener {
    sender: Sender<Effect>,
    pub(super) state: Arc<FeedState>,
    /// Units that wait for room.
    queue: VecDeque<Parcel>,
    /// The sum of their lengths.
    queued_bytes: u64,
    /// The listener has taken nothing for as long as it may: nothing waits before there has been room.
    is_stuck: bool,
}

impl Listener {
    pub(super) fn new(sender: Sender<Effect>, state: Arc<FeedState>) -> Self {
        Self {
            sender,
            state,
            queue: VecDeque::new(),
            queued_bytes: 0,
            is_stuck: false,
        }
    }

    /// The end of the channel that effects are put into.
    pub(super) fn sender(&self) -> Sender<Effect> {
        self.sender.clone()
    }

    /// Sends a unit, has it wait, or drops it: then false.
    pub(super) fn take(&mut self, mut parcel: Parcel) -> bool {
        if self.queue.is_empty() && self.has_room_for(parcel.effects.len()) {
            if self.send(&mut parcel) {
                self.is_stuck = false;
                return true;
            }
            if parcel.is_begun {
                self.keep(parcel);
                return true;
            }
        }
        let may_wait = self.waits()
            && !self.state.has_ended()
            && self.queued_bytes + parcel.bytes <= LISTENER_QUEUE_BYTES;
        if may_wait {
            self.keep(parcel);
        } else {
            self.state.count_dropped(parcel.effects.len());
        }
        may_wait
    }

    /// Whether what finds no room waits for it.
    pub(super) fn waits(&self) -> bool {
        matches!(self.state.slow(), SlowListener::Wait(_)) && !self.is_stuck
    }

    /// Whether the channel has room for so many effects; a channel that is smaller takes them as they are read.
    fn has_room_for(&self, count: usize) -> bool {
        self.sender
            .capacity()
            .is_none_or(|capacity| count <= capacity - self.sender.len() || self.sender.is_empty())
    }

    /// Sends as much of a unit as there is room for. True when that is all of it.
    fn send(&self, parcel: &mut Parcel) -> bool {
        while let Some(effect) = parcel.effects.pop() {
            match self.sender.try_send(effect) {
                Ok(()) => parcel.is_begun = true,
                Err(TrySendError::Full(effect) | TrySendError::Disconnected(effect)) => {
                    parcel.effects.push(effect);
                    return false;
                }
            }
        }
        true
    }

    fn keep(&mut self, parcel: Parcel) {
        self.queued_bytes += parcel.bytes;
        self.queue.push_back(parcel);
    }

    /// Whether units wait.
    pub(super) fn has_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes the first effect that waits, to be sent.
    pub(super) fn next(&mut self) -> Option<Effect> {
        self.queue.front_mut()?.effects.pop()
    }

    /// As [`next`](Self::next), if its unit was begun.
    pub(super) fn next_of_begun(&mut self) -> Option<Effect> {
        let first = self.queue.front_mut().filter(|first| first.is_begun)?;
        first.effects.pop()
    }

    /// The effect that was taken is in the channel. Returns where its unit ends if that was the last of it.
    pub(super) fn sent(&mut self) -> Option<Position> {
        self.is_stuck = false;
        let first = self.queue.front_mut()?;
        first.is_begun = true;
        first.effects.is_empty().then(|| self.forget_first())?
    }

    /// The effect that was taken found no room: it waits on.
    pub(super) fn put_back(&mut self, effect: Effect) {
        if let Some(first) = self.queue.front_mut() {
            first.effects.push(effect);
        }
    }

    fn forget_first(&mut self) -> Option<Position> {
        let first = self.queue.pop_front()?;
        self.queued_bytes -= first.bytes;
        Some(first.end)
    }

    /// Gives up what waits, but for the rest of a unit that was begun, or with that too. Returns where the first unit that was
    /// given up begins.
    pub(super) fn give_up(&mut self, all: bool) -> Option<Position> {
        self.is_stuck = true;
        let kept = usize::from(!all && self.queue.front().is_some_and(|first| first.is_begun));
        let given_up = self.queue.split_off(kept);
        self.queued_bytes = self.queue.iter().map(|parcel| parcel.bytes).sum();
        for parcel in &given_up {
            self.state.count_dropped(parcel.effects.len());
        }
        given_up.front().map(|first| first.end.before(first.bytes))
    }

    /// Number of effects that were dropped.
    #[cfg(test)]
    pub(super) fn dropped(&self) -> u64 {
        self.state.dropped()
    }

    /// Does what the end of the node does.
    #[cfg(test)]
    pub(super) fn end(&self) {
        self.state.end();
    }
}
