//! The journal: the one ordered stream of what changed on a node.
//!
//! A loop records the effects of commands while it holds partitions ([`Recorder`]), and hands them to the journal before it lets
//! go of them, with one lock for all commands of a batch: so whoever sees a value finds its effect in the journal, in an
//! order that replays. What belongs together, all effects of one command or of a transaction, is one unit: it enters in one piece,
//! between MULTI and EXEC where it is more than one effect. The journal then ends at a [`Position`], which goes with the reply
//! of the command: its connection gets nothing before [`Journal::has_reached`] that position.
//!
//! Positions count the bytes of the stream that replicas read: the units, and a SELECT before the first effect on another database.
//! The stream has three readers, the listener of an embedding host, the append-only file ([`aof`]) and replicas ([`backlog`]). Without
//! any of them nothing is recorded, and an effect costs a branch.

pub(crate) mod aof;
pub(crate) mod backlog;
pub(crate) mod directory;
pub(crate) mod encoded;
mod listener;
pub(crate) mod manifest;
mod record;
pub(crate) mod recorder;
pub(crate) mod tap;
pub(crate) mod units;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{SendTimeoutError, Sender};
use parking_lot::{Condvar, Mutex, MutexGuard};

use self::aof::Aof;
use self::backlog::{Backlog, BacklogBounds};
use self::listener::{Effects, Listener, Parcel};
pub(crate) use self::record::Audience;
pub(crate) use self::record::Record;
use self::record::UnitView;
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
    /// The place behind so many bytes.
    pub(crate) fn at(offset: u64) -> Self {
        Self(offset)
    }

    /// The number of bytes before it: the replication offset.
    pub(crate) fn offset(self) -> u64 {
        self.0
    }

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
    /// Tells links that wait for further bytes that there are some.
    links: tokio::sync::Notify,
    clock: Arc<Clock>,
}

#[derive(Debug)]
struct Stream {
    end: Position,
    /// The database that readers have selected.
    selected: Option<u16>,
    /// The stream is that of a primary: what this node's clients change does not enter it.
    follows: bool,
    /// From where on effects are missing: who repeats them no longer has the same data.
    broken_from: Option<Position>,
    listener: Option<Listener>,
    /// The way to the append-only file; none while that is off.
    tap: Option<Tap>,
    /// The part of it that is kept for replicas; none while there are none.
    backlog: Option<Box<Backlog>>,
}

impl Journal {
    /// An empty journal that nobody reads.
    pub(crate) fn new(clock: Arc<Clock>) -> Self {
        Self {
            stream: Mutex::new(Stream {
                end: Position::default(),
                selected: None,
                follows: false,
                broken_from: None,
                listener: None,
                tap: None,
                backlog: None,
            }),
            is_read: Arc::default(),
            is_listened: AtomicBool::new(false),
            end: AtomicU64::new(0),
            work: Condvar::new(),
            reached: AtomicU64::new(0),
            is_awaited: AtomicBool::new(false),
            aof: Aof::default(),
            links: tokio::sync::Notify::new(),
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
        self.tap(&mut stream, record);
        if stream.follows {
            self.append_beside(&mut stream, record, told);
        } else if is_listened {
            for (unit, effects) in record.units().zip(told) {
                stream.tell(unit, effects);
            }
        } else {
            stream.pass(record);
        }
        self.publish(stream)
    }

    /// Takes units in for the append-only file.
    fn tap(&self, stream: &mut Stream, record: &Record) {
        if let Some(tap) = &mut stream.tap {
            tap.take(record, self.aof.stamp(&self.clock));
            if record.is_torn() {
                self.aof.note_torn();
            }
        }
    }

    /// Has the readers of this node get units that are no part of the stream, as that is the one of the primary.
    fn append_beside(&self, stream: &mut Stream, record: &Record, told: Vec<Effects>) {
        self.aof.note_beside(stream.end);
        let end = stream.end;
        for (unit, effects) in record.units().zip(told) {
            stream.hand(unit.is_torn, effects, (end, 0));
        }
    }

    /// Appends a piece of the stream of the primary, which consists of whole units that were applied. The databases are those that
    /// were selected before it and at its end.
    pub(crate) fn append_followed(&self, bytes: &[u8], (before, behind): (u16, u16)) {
        // The slow work is done before the lock is taken.
        let (is_listened, has_file) = (self.is_listened.load(Ordering::Relaxed), self.aof.is_on());
        let record = (is_listened || has_file).then(|| units::record_of(bytes, before));
        let told: Vec<_> = record
            .iter()
            .filter(|_| is_listened)
            .flat_map(|record| record.units().map(decoded))
            .collect();
        let mut stream = self.stream.lock();
        let begin = stream.end;
        stream.end.0 += bytes.len() as u64;
        stream.selected = Some(behind);
        if let Some(backlog) = &mut stream.backlog {
            backlog.push(bytes);
        }
        if let Some(record) = &record {
            self.tap(&mut stream, record);
        }
        let mut left = bytes.len() as u64;
        for effects in told {
            stream.hand(false, effects, (begin, std::mem::take(&mut left)));
        }
        self.publish(stream);
    }

    /// Sets whether the stream is that of a primary. What was recorded before has been handed over.
    pub(crate) fn follow(&self, follows: bool) {
        let mut stream = self.stream.lock();
        stream.follows = follows;
        // A stream of its own begins with the choice of a database, whatever its readers have selected.
        stream.selected = None;
    }

    /// Has the stream go on at another offset: that of the data which this node has got. It is kept from there on. `db` is the database
    /// that is selected there; none has the next effect select one.
    pub(crate) fn jump(&self, to: u64, db: Option<u16>, bounds: BacklogBounds) {
        let mut stream = self.stream.lock();
        stream.end = Position(to);
        stream.selected = db;
        stream.broken_from = None;
        Backlog::restart(&mut stream.backlog, bounds, to);
        self.is_read.store(true, Ordering::Release);
        self.aof.jump(stream.end);
        self.publish(stream);
    }

    /// Has the stream kept from here on, unless it is: the node follows a primary, and others may follow it.
    pub(crate) fn keep_followed(&self, bounds: BacklogBounds) {
        let mut stream = self.stream.lock();
        let end = stream.end.0;
        stream
            .backlog
            .get_or_insert_with(|| Box::new(Backlog::new(bounds, end)));
        self.is_read.store(true, Ordering::Release);
    }

    /// Makes the end of the stream known, and has its readers see to what was appended. Returns the end.
    fn publish(&self, mut stream: MutexGuard<'_, Stream>) -> Position {
        let end = stream.end;
        if !stream.has_waiting(&self.work) {
            self.reached.store(end.0, Ordering::SeqCst);
        }
        self.end.store(end.0, Ordering::SeqCst);
        let is_awaited = stream
            .backlog
            .as_mut()
            .is_some_and(|backlog| backlog.take_awaited());
        drop(stream);
        if is_awaited {
            self.ring_links();
        }
        end
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

    /// Whether a reply may leave that tells of what stands before this position. One behind the end is of a stream that was left.
    #[inline]
    pub(crate) fn has_reached(&self, position: Position) -> bool {
        self.reached.load(Ordering::SeqCst) >= position.0 && self.aof.lets_pass(position)
            || position > self.end()
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

    /// Has the loops look whether what they wait for was acknowledged.
    pub(crate) fn note_acknowledged(&self, ring: impl Fn()) {
        self.ring_awaiting(&ring);
    }

    /// Has the loops look at what is reached, if one waits for that.
    fn ring_awaiting(&self, ring: &impl Fn()) {
        if self.is_awaited.swap(false, Ordering::SeqCst) {
            ring();
        }
    }
}

impl Stream {
    /// Whether somebody reads it.
    fn has_reader(&self) -> bool {
        self.listener.is_some() || self.tap.is_some() || self.backlog.is_some()
    }

    /// Whether replies have to wait for the listener. If something waits for that, its thread is told of the `work`.
    fn has_waiting(&self, work: &Condvar) -> bool {
        let Some(listener) = self.listener.as_ref().filter(|listener| listener.has_waiting()) else {
            return false;
        };
        work.notify_one();
        listener.waits()
    }

    /// Appends units that nobody listens to.
    fn pass(&mut self, record: &Record) {
        let begin = self.end;
        let mut bytes = 0;
        let backlog = &mut self.backlog;
        record.render(Audience::Replicas, &mut self.selected, |piece| {
            bytes += piece.len();
            if let Some(backlog) = backlog {
                backlog.push(piece);
            }
        });
        self.end.0 += bytes as u64;
        if record.is_torn() {
            self.tears_at(begin);
        }
    }

    /// Appends a unit that the listener gets.
    fn tell(&mut self, unit: UnitView<'_>, effects: Effects) {
        let begin = self.end;
        let mut bytes = 0;
        let backlog = &mut self.backlog;
        unit.render(Audience::Replicas, &mut self.selected, &mut |piece: &[u8]| {
            bytes += piece.len();
            if let Some(backlog) = backlog {
                backlog.push(piece);
            }
        });
        self.end.0 += bytes as u64;
        self.hand(unit.is_torn, effects, (begin, bytes as u64));
    }

    /// Gives a unit to the listener: so many bytes of the stream, from `begin` on.
    fn hand(&mut self, is_torn: bool, effects: Effects, (begin, bytes): (Position, u64)) {
        if is_torn {
            self.tears_at(begin);
        }
        let Some(listener) = self.listener.as_mut().filter(|_| !effects.is_empty()) else {
            return;
        };
        let is_taken = listener.take(Parcel {
            effects,
            bytes,
            end: self.end,
            is_begun: false,
        });
        if !is_taken {
            self.breaks_at(begin);
        }
    }

    /// Notes that a unit lacks effects, for all readers.
    fn tears_at(&mut self, position: Position) {
        self.breaks_at(position);
        if let Some(backlog) = &mut self.backlog {
            backlog.note_broken();
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
