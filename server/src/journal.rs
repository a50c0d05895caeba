//! The journal: the one ordered stream of what changed on a node.
//!
//! Effects are appended while the partitions that they changed are still held, so that they stand in an order that replays.
//! What belongs together, all effects of one command or of a transaction, is one unit: it is appended in one piece, between
//! MULTI and EXEC where it is more than one effect, and nobody else's effects come between. So far the only reader is the
//! listener of an embedding host; without one there is no journal, and an effect costs a branch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::feed::Feed;

/// One effect: a command to repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The database it applies to.
    pub db: u16,
    /// Its words.
    pub words: Vec<Vec<u8>>,
}

/// A place in the journal: how many effects stand before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position(u64);

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A handle to a node's journal, or to a unit that is still collected.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    stream: Arc<Mutex<Stream>>,
    /// Something was changed without its effect being known: who repeats the effects no longer has the same data.
    is_broken: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Stream {
    sink: Sink,
    end: Position,
}

/// Where effects go.
#[derive(Debug)]
enum Sink {
    Listener(Feed<Effect>),
    /// They wait for the end of their unit.
    Unit(Vec<Effect>),
}

impl Journal {
    /// An empty journal that is read by a listener.
    pub(crate) fn new(listener: Feed<Effect>) -> Self {
        Self {
            stream: Stream::into(Sink::Listener(listener)),
            is_broken: Arc::default(),
        }
    }

    /// Begins a unit of several commands: what is appended to it enters this journal with [`Journal::end_unit`].
    pub(crate) fn begin_unit(&self) -> Self {
        Self {
            stream: Stream::into(Sink::Unit(Vec::new())),
            is_broken: Arc::clone(&self.is_broken),
        }
    }

    /// Appends all that was appended to a unit.
    pub(crate) fn end_unit(&self, unit: &Self) -> Position {
        let effects = match &mut unit.stream.lock().sink {
            Sink::Unit(effects) => std::mem::take(effects),
            Sink::Listener(_) => Vec::new(),
        };
        self.append(effects)
    }

    /// Appends what belongs together, in one piece. Returns the end of the journal behind it.
    pub(crate) fn append(&self, unit: Vec<Effect>) -> Position {
        let mut stream = self.stream.lock();
        let enclosed = match (&stream.sink, unit.as_slice()) {
            (Sink::Listener(_), [first, .., last]) => Some((mark("MULTI", first.db), mark("EXEC", last.db))),
            _ => None,
        };
        match enclosed {
            None => unit.into_iter().for_each(|effect| stream.push(effect)),
            Some((begin, end)) => {
                let whole = std::iter::once(begin).chain(unit).chain([end]);
                whole.for_each(|effect| stream.push(effect));
            }
        }
        stream.end
    }

    /// Notes that something was changed without its effect being known.
    pub(crate) fn break_history(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
    }

    /// Where the journal ends, if something before that is not known.
    pub(crate) fn broken_before(&self) -> Option<Position> {
        let is_broken = self.is_broken.load(Ordering::Relaxed);
        is_broken.then(|| self.stream.lock().end)
    }
}

impl Stream {
    fn into(sink: Sink) -> Arc<Mutex<Self>> {
        let end = Position::default();
        Arc::new(Mutex::new(Self { sink, end }))
    }

    fn push(&mut self, effect: Effect) {
        self.end.0 += 1;
        match &mut self.sink {
            Sink::Unit(effects) => effects.push(effect),
            Sink::Listener(listener) => listener.send(effect),
        }
    }
}

fn mark(word: &str, db: u16) -> Effect {
    Effect {
        db,
        words: vec![word.as_bytes().to_vec()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effects(words: &[&str]) -> Vec<Effect> {
        words.iter().map(|word| mark(word, 0)).collect()
    }

    #[test]
    fn units_are_whole_whoever_appends_meanwhile() {
        let (sender, receiver) = Feed::unbounded();
        let journal = Journal::new(sender);
        let unit = journal.begin_unit();
        unit.append(effects(&["a"]));
        assert_eq!(journal.append(effects(&["x"])), Position(1));
        unit.append(effects(&["b", "c"]));
        assert_eq!(journal.end_unit(&unit), Position(6));
        journal.end_unit(&journal.begin_unit());
        let seen: Vec<Effect> = receiver.try_iter().collect();
        assert_eq!(seen, effects(&["x", "MULTI", "a", "b", "c", "EXEC"]));
    }

    #[test]
    fn a_break_within_a_unit_is_one_of_the_journal() {
        let journal = Journal::new(Feed::unbounded().0);
        assert_eq!(journal.broken_before(), None);
        let unit = journal.begin_unit();
        unit.break_history();
        journal.append(effects(&["x"]));
        assert_eq!(journal.broken_before(), Some(Position(1)));
    }
}
