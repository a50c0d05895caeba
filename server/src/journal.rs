//! The journal: the one ordered stream of what changed on a node.
//!
//! A loop records the effects of commands while it holds partitions ([`Recorder`]), and hands them to the journal before it lets
//! go of them, with one lock for all commands of a batch: so whoever sees a value finds its effect in the journal, in an
//! order that replays. What belongs together, all effects of one command or of a transaction, is one unit: it enters in one piece,
//! between MULTI and EXEC where it is more than one effect. The journal then ends at a [`Position`], which goes with the reply
//! of the command: its connection gets nothing before [`Journal::has_reached`] that position.
//!
//! So far the only reader is the listener of an embedding host; without one there is no journal, and an effect costs a branch.

pub(crate) mod directory;
pub(crate) mod encoded;
mod listener;
pub(crate) mod manifest;
pub(crate) mod recorder;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{SendTimeoutError, Sender};
use parking_lot::{Condvar, Mutex, MutexGuard};

use self::listener::{Effects, Listener, Parcel};
pub(crate) use self::recorder::{Record, Recorder, Unit};
use crate::feed::{FeedState, SlowListener};
use crate::limits::{LISTENER_FAREWELL, LISTENER_STEP};

/// One effect: a command to repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The database it applies to.
    pub db: u16,
    /// Its words.
    pub words: Vec<Vec<u8>>,
}

/// A place in the journal: how many bytes of effects stand before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position(u64);

impl Position {
    fn before(self, bytes: u64) -> Self {
        Self(self.0 - bytes)
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A node's journal.
#[derive(Debug)]
pub(crate) struct Journal {
    stream: Mutex<Stream>,
    /// Tells the thread that empties the listener's queue that there is something in it.
    work: Condvar,
    sender: Sender<Effect>,
    /// The [`Position`] up to which no reply waits any more.
    reached: AtomicU64,
    /// A loop waits for more to be reached.
    is_awaited: AtomicBool,
}

#[derive(Debug)]
struct Stream {
    end: Position,
    /// From where on effects are missing: who repeats them no longer has the same data.
    broken_from: Option<Position>,
    listener: Listener,
}

/// Bytes that enclose the effects of a unit.
const MARKS_BYTES: usize = "*1\r\n$5\r\nMULTI\r\n*1\r\n$4\r\nEXEC\r\n".len();

impl Journal {
    /// An empty journal that is read by a listener.
    pub(crate) fn new(sender: Sender<Effect>, state: Arc<FeedState>) -> Self {
        Self {
            stream: Mutex::new(Stream {
                end: Position::default(),
                broken_from: None,
                listener: Listener::new(sender.clone(), state),
            }),
            work: Condvar::new(),
            sender,
            reached: AtomicU64::new(0),
            is_awaited: AtomicBool::new(false),
        }
    }

    /// A journal whose listener's channel has no bound, and the other end of that.
    #[cfg(test)]
    pub(crate) fn unbounded() -> (Self, crossbeam_channel::Receiver<Effect>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let state = FeedState::new(SlowListener::Drop, Arc::default());
        (Self::new(sender, Arc::new(state)), receiver)
    }

    /// Appends recorded units, in order and with nobody else's between them. Returns the end of the journal behind them.
    fn append(&self, record: &Record) -> Position {
        // The slow work is done before the lock is taken.
        let units: Vec<_> = record
            .units()
            .map(|(effects, is_torn)| (bytes_of(&effects), decoded(&effects), is_torn))
            .collect();
        let mut stream = self.stream.lock();
        for (bytes, effects, is_torn) in units {
            stream.append(bytes, effects, is_torn);
        }
        if stream.listener.has_waiting() {
            self.work.notify_one();
        }
        if !(stream.listener.has_waiting() && stream.listener.waits()) {
            self.reached.store(stream.end.0, Ordering::SeqCst);
        }
        stream.end
    }

    /// From where on the journal does not have all effects; none while it has.
    pub(crate) fn broken_from(&self) -> Option<Position> {
        self.stream.lock().broken_from
    }

    /// Whether a reply may leave that tells of what stands before this position.
    #[inline]
    pub(crate) fn has_reached(&self, position: Position) -> bool {
        self.reached.load(Ordering::SeqCst) >= position.0
    }

    /// Has the loops rung when more is reached. To be followed by a look at what is.
    pub(crate) fn await_more(&self) {
        self.is_awaited.store(true, Ordering::SeqCst);
    }

    /// Whether the listener's channel has a bound, so that [`serve_listener`](Self::serve_listener) is needed.
    pub(crate) fn has_bound(&self) -> bool {
        self.sender.capacity().is_some()
    }

    /// Sends what waits for the listener, until the node ends. `ring` has the loops look at what is reached.
    pub(crate) fn serve_listener(&self, ring: impl Fn()) {
        let mut idle = Duration::ZERO;
        while let Some(effect) = self.next_waiting() {
            match self.sender.send_timeout(effect, LISTENER_STEP) {
                Ok(()) => {
                    idle = Duration::ZERO;
                    self.note_sent(&ring);
                }
                Err(SendTimeoutError::Timeout(effect)) => {
                    idle += LISTENER_STEP;
                    let mut stream = self.stream.lock();
                    stream.listener.put_back(effect);
                    let is_over = match stream.listener.state.slow() {
                        SlowListener::Wait(limit) => idle >= limit,
                        SlowListener::Drop => false,
                    };
                    if is_over {
                        idle = Duration::ZERO;
                        self.give_up(stream, false, &ring);
                    }
                }
                Err(SendTimeoutError::Disconnected(effect)) => {
                    let mut stream = self.stream.lock();
                    stream.listener.put_back(effect);
                    self.give_up(stream, true, &ring);
                }
            }
        }
        self.finish_begun();
        self.give_up(self.stream.lock(), true, &ring);
    }

    /// Sends the rest of a unit that was begun, if the listener still reads. It may be the one who ends the node: it is not
    /// waited for long.
    fn finish_begun(&self) {
        let next = || {
            let mut stream = self.stream.lock();
            stream.listener.next_of_begun()
        };
        while let Some(effect) = next() {
            if let Err(error) = self.sender.send_timeout(effect, LISTENER_FAREWELL) {
                return self.stream.lock().listener.put_back(error.into_inner());
            }
            self.stream.lock().listener.sent();
        }
    }

    /// The next effect that waits for the listener, as soon as there is one; none when the node ends.
    fn next_waiting(&self) -> Option<Effect> {
        let mut stream = self.stream.lock();
        loop {
            if stream.listener.state.has_ended() {
                return None;
            }
            if let Some(effect) = stream.listener.next() {
                return Some(effect);
            }
            self.work.wait(&mut stream);
        }
    }

    /// The node has been told to end: nobody waits for the listener any more.
    pub(crate) fn end(&self) {
        // With the lock, or it might come between a look at the end and the wait for work.
        let _stream = self.stream.lock();
        self.work.notify_all();
    }

    fn note_sent(&self, ring: &impl Fn()) {
        let mut stream = self.stream.lock();
        let Some(end) = stream.listener.sent() else {
            return;
        };
        let end = if stream.listener.has_waiting() {
            end
        } else {
            stream.end
        };
        drop(stream);
        self.reach(end, ring);
    }

    /// Gives up what waits for the listener, as [`Listener::give_up`].
    fn give_up(&self, mut stream: MutexGuard<'_, Stream>, all: bool, ring: &impl Fn()) {
        if let Some(begin) = stream.listener.give_up(all) {
            stream.breaks_at(begin);
        }
        let end = stream.end;
        drop(stream);
        self.reach(end, ring);
    }

    fn reach(&self, position: Position, ring: &impl Fn()) {
        self.reached.fetch_max(position.0, Ordering::SeqCst);
        if self.is_awaited.swap(false, Ordering::SeqCst) {
            ring();
        }
    }
}

impl Stream {
    fn append(&mut self, bytes: u64, effects: Effects, is_torn: bool) {
        let begin = self.end;
        self.end.0 += bytes;
        if is_torn {
            self.breaks_at(begin);
        }
        if effects.is_empty() {
            return;
        }
        let is_taken = self.listener.take(Parcel {
            effects,
            bytes,
            end: self.end,
            is_begun: false,
        });
        if !is_taken {
            self.breaks_at(begin);
        }
    }

    fn breaks_at(&mut self, position: Position) {
        self.broken_from.get_or_insert(position);
    }
}

/// The length of a unit, with what encloses it.
fn bytes_of(effects: &[(u16, &[u8])]) -> u64 {
    let bytes: usize = effects.iter().map(|(_, effect)| effect.len()).sum();
    let marks = if effects.len() > 1 { MARKS_BYTES } else { 0 };
    (bytes + marks) as u64
}

/// The effects of a unit as the listener gets them.
fn decoded(effects: &[(u16, &[u8])]) -> Effects {
    let last_first = effects.iter().rev().map(|&(db, effect)| Effect {
        db,
        words: encoded::words(effect),
    });
    match effects {
        [first, .., last] => {
            let (begin, end) = (mark("MULTI", first.0), mark("EXEC", last.0));
            std::iter::once(end).chain(last_first).chain([begin]).collect()
        }
        _ => last_first.collect(),
    }
}

fn mark(word: &str, db: u16) -> Effect {
    Effect {
        db,
        words: vec![word.as_bytes().to_vec()],
    }
}

#[cfg(test)]
mod tests;
