//! The journal: the one ordered stream of what changed on a node.
//!
//! A loop records the effects of commands while it holds partitions ([`Recorder`]), and hands them to the journal before it lets
//! go of them, with one lock for all commands of a batch: so whoever sees a value finds its effect in the journal, in an
//! order that replays. What belongs together, all effects of one command or of a transaction, is one unit: it enters in one piece,
//! between MULTI and EXEC where it is more than one effect. The journal then ends at a [`Position`], which goes with the reply
//! of the command: its connection gets nothing before [`Journal::has_reached`] that position.
//!
//! Positions count the bytes of the stream that replicas read: the units, and a SELECT before the first effect on another database.
//! The stream has two readers, the listener of an embedding host and the append-only file ([`aof`]). Without either nothing is
//! recorded, and an effect costs a branch.

pub(crate) mod aof;
pub(crate) mod directory;
pub(crate) mod encoded;
mod listener;
pub(crate) mod manifest;
mod record;
pub(crate) mod recorder;
pub(crate) mod tap;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{SendTimeoutError, Sender};
use parking_lot::{Condvar, Mutex, MutexGuard};

use self::aof::Aof;
use self::listener::{Effects, Listener, Parcel};
pub(crate) use self::record::Record;
use self::record::{Audience, UnitView};
pub(crate) use self::recorder::{Recorder, Unit};
use self::tap::Tap;
use crate::clock::Clock;
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

/// A place in the journal: how many bytes of the stream stand before it.
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
    /// Whether effects are recorded, since the stream has a reader.
    is_read: Arc<AtomicBool>,
    /// There is a listener.
    is_listened: AtomicBool,
    /// The [`Position`] of the end, as of the last units.
    end: AtomicU64,
    /// Tells the thread that empties the listener's queue that there is something in it.
    work: Condvar,
    /// The [`Position`] up to which no reply waits for the listener any more.
    reached: AtomicU64,
    /// A loop waits for more to be reached.
    is_awaited: AtomicBool,
    /// The append-only file.
    pub(crate) aof: Aof,
    clock: Arc<Clock>,
}

#[derive(Debug)]
struct Stream {
    end: Position,
    /// The database that readers have selected.
    selected: Option<u16>,
    /// From where on effects are missing: who repeats them no longer has the same data.
    broken_from: Option<Position>,
    listener: Option<Listener>,
    /// The way to the append-only file; none while that is off.
    tap: Option<Tap>,
}

impl Journal {
    /// An empty journal that nobody reads.
    pub(crate) fn new(clock: Arc<Clock>) -> Self {
        Self {
            stream: Mutex::new(Stream {
                end: Position::default(),
                selected: None,
                broken_from: None,
                listener: None,
                tap: None,
            }),
            is_read: Arc::default(),
            is_listened: AtomicBool::new(false),
            end: AtomicU64::new(0),
            work: Condvar::new(),
            reached: AtomicU64::new(0),
            is_awaited: AtomicBool::new(false),
            aof: Aof::default(),
            clock,
        }
    }

    /// Has a listener read the journal; at the start of the node.
    pub(crate) fn listen(&self, sender: Sender<Effect>, state: Arc<FeedState>) {
        self.stream.lock().listener = Some(Listener::new(sender, state));
        self.is_listened.store(true, Ordering::Release);
        self.is_read.store(true, Ordering::Release);
    }

    /// A journal whose listener's channel has no bound, and the other end of that.
    #[cfg(test)]
    pub(crate) fn unbounded() -> (Self, crossbeam_channel::Receiver<Effect>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let state = FeedState::new(SlowListener::Drop, Arc::default());
        let journal = Self::new(Arc::new(Clock::manual(Duration::ZERO)));
        journal.listen(sender, Arc::new(state));
        (journal, receiver)
    }

    /// Whether effects are recorded. That changes only while nobody else uses a partition.
    #[inline]
    pub(crate) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    /// The answer to [`is_read`](Self::is_read), for those who ask it without the journal.
    pub(crate) fn read_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_read)
    }

    /// Appends recorded units, in order and with nobody else's between them. Returns the end of the journal behind them.
    fn append(&self, record: &Record) -> Position {
        // The slow work is done before the lock is taken.
        let is_listened = self.is_listened.load(Ordering::Relaxed);
        let told: Vec<_> = is_listened
            .then(|| record.units().map(decoded))
            .into_iter()
            .flatten()
            .collect();
        let mut stream = self.stream.lock();
        if let Some(tap) = &mut stream.tap {
            tap.take(record, self.aof.stamp(&self.clock));
            if record.is_torn() {
                self.aof.note_torn();
            }
        }
        if is_listened {
            for (unit, effects) in record.units().zip(told) {
                stream.tell(unit, effects);
            }
            self.note_told(&stream);
        } else {
            stream.pass(record);
            self.reached.store(stream.end.0, Ordering::SeqCst);
        }
        self.end.store(stream.end.0, Ordering::SeqCst);
        stream.end
    }

    /// Notes what the listener has got, and has its thread see to what it has not.
    fn note_told(&self, stream: &Stream) {
        let Some(listener) = &stream.listener else { return };
        if listener.has_waiting() {
            self.work.notify_one();
        }
        if !(listener.has_waiting() && listener.waits()) {
            self.reached.store(stream.end.0, Ordering::SeqCst);
        }
    }

    /// The end of the journal.
    #[inline]
    pub(crate) fn end(&self) -> Position {
        Position(self.end.load(Ordering::SeqCst))
    }

    /// From where on the journal does not have all effects; none while it has.
    pub(crate) fn broken_from(&self) -> Option<Position> {
        self.stream.lock().broken_from
    }

    /// Whether a reply may leave that tells of what stands before this position.
    #[inline]
    pub(crate) fn has_reached(&self, position: Position) -> bool {
        self.reached.load(Ordering::SeqCst) >= position.0 && self.aof.lets_pass(position)
    }

    /// Has the loops rung when more is reached. To be followed by a look at what is.
    pub(crate) fn await_more(&self) {
        self.is_awaited.store(true, Ordering::SeqCst);
    }

    /// Whether there is a listener whose channel has a bound, so that [`serve_listener`](Self::serve_listener) is needed.
    pub(crate) fn has_bound(&self) -> bool {
        let stream = self.stream.lock();
        let sender = stream.listener.as_ref().map(Listener::sender);
        sender.is_some_and(|sender| sender.capacity().is_some())
    }

    /// Sends what waits for the listener, until the node ends. `ring` has the loops look at what is reached.
    pub(crate) fn serve_listener(&self, ring: impl Fn()) {
        let Some(sender) = self.stream.lock().listener.as_ref().map(Listener::sender) else {
            return;
        };
        let mut idle = Duration::ZERO;
        while let Some(effect) = self.next_waiting() {
            match sender.send_timeout(effect, LISTENER_STEP) {
                Ok(()) => {
                    idle = Duration::ZERO;
                    self.note_sent(&ring);
                }
                Err(SendTimeoutError::Timeout(effect)) => {
                    idle += LISTENER_STEP;
                    let mut stream = self.stream.lock();
                    let Some(listener) = &mut stream.listener else {
                        return;
                    };
                    listener.put_back(effect);
                    let is_over = match listener.state.slow() {
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
                    let Some(listener) = &mut stream.listener else {
                        return;
                    };
                    listener.put_back(effect);
                    self.give_up(stream, true, &ring);
                }
            }
        }
        self.finish_begun(&sender);
        self.give_up(self.stream.lock(), true, &ring);
    }

    /// Sends the rest of a unit that was begun, if the listener still reads. It may be the one who ends the node: it is not
    /// waited for long.
    fn finish_begun(&self, sender: &Sender<Effect>) {
        let next = || self.stream.lock().listener.as_mut()?.next_of_begun();
        while let Some(effect) = next() {
            let sent = sender.send_timeout(effect, LISTENER_FAREWELL);
            let mut stream = self.stream.lock();
            let Some(listener) = &mut stream.listener else {
                return;
            };
            if let Err(error) = sent {
                return listener.put_back(error.into_inner());
            }
            listener.sent();
        }
    }

    /// The next effect that waits for the listener, as soon as there is one; none when the node ends.
    fn next_waiting(&self) -> Option<Effect> {
        let mut stream = self.stream.lock();
        loop {
            let listener = stream.listener.as_mut()?;
            if listener.state.has_ended() {
                return None;
            }
            if let Some(effect) = listener.next() {
                return Some(effect);
            }
            self.work.wait(&mut stream);
        }
    }

    /// The node has been told to end: nobody waits for the listener any more.
    pub(crate) fn stop_listening(&self) {
        // With the lock, or it might come between a look at the end and the wait for work.
        let _stream = self.stream.lock();
        self.work.notify_all();
    }

    fn note_sent(&self, ring: &impl Fn()) {
        let mut stream = self.stream.lock();
        let end_of_all = stream.end;
        let Some(listener) = &mut stream.listener else {
            return;
        };
        let Some(end) = listener.sent() else { return };
        let end = if listener.has_waiting() { end } else { end_of_all };
        drop(stream);
        self.reach(end, ring);
    }

    /// Gives up what waits for the listener, as [`Listener::give_up`].
    fn give_up(&self, mut stream: MutexGuard<'_, Stream>, all: bool, ring: &impl Fn()) {
        if let Some(begin) = stream
            .listener
            .as_mut()
            .and_then(|listener| listener.give_up(all))
        {
            stream.breaks_at(begin);
        }
        let end = stream.end;
        drop(stream);
        self.reach(end, ring);
    }

    fn reach(&self, position: Position, ring: &impl Fn()) {
        self.reached.fetch_max(position.0, Ordering::SeqCst);
        self.ring_awaiting(ring);
    }

    /// Has the loops look at what is reached, if one waits for that.
    fn ring_awaiting(&self, ring: &impl Fn()) {
        if self.is_awaited.swap(false, Ordering::SeqCst) {
            ring();
        }
    }
}

impl Stream {
    /// Appends units that nobody listens to.
    fn pass(&mut self, record: &Record) {
        let begin = self.end;
        let mut bytes = 0;
        record.render(Audience::Replicas, &mut self.selected, |piece| {
            bytes += piece.len();
        });
        self.end.0 += bytes as u64;
        if record.is_torn() {
            self.breaks_at(begin);
        }
    }

    /// Appends a unit that the listener gets.
    fn tell(&mut self, unit: UnitView<'_>, effects: Effects) {
        let begin = self.end;
        let mut bytes = 0;
        unit.render(Audience::Replicas, &mut self.selected, &mut |piece: &[u8]| {
            bytes += piece.len();
        });
        self.end.0 += bytes as u64;
        if unit.is_torn {
            self.breaks_at(begin);
        }
        let Some(listener) = self.listener.as_mut().filter(|_| !effects.is_empty()) else {
            return;
        };
        let is_taken = listener.take(Parcel {
            effects,
            bytes: bytes as u64,
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

/// The effects of a unit as the listener gets them.
fn decoded(unit: UnitView<'_>) -> Effects {
    let mut last_first: Effects = unit
        .effects()
        .rev()
        .map(|(scope, effect)| Effect {
            db: scope.db,
            words: encoded::words(effect),
        })
        .collect();
    if let [last, .., first] = last_first.as_slice() {
        let (begin, end) = (mark("MULTI", first.db), mark("EXEC", last.db));
        last_first.push(begin);
        last_first.insert(0, end);
    }
    last_first
}

fn mark(word: &str, db: u16) -> Effect {
    Effect {
        db,
        words: vec![word.as_bytes().to_vec()],
    }
}

#[cfg(test)]
mod tests;
