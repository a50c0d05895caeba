//! The journal: the one ordered stream of changes of a node.
//!
//! Effects are appended while the partitions that they changed are still held, so that replaying them in order gives
//! the same data. All effects of one command or transaction are one unit: they are appended in one piece, without
//! effects of others in between, and between MULTI and EXEC if there is more than one. So far the only reader is the
//! listener of an embedding program; without one there is no journal, and an effect costs a branch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::feed::Feed;

/// One effect: a command to repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The database it applies to.
    pub db: u16,
    /// Words of the command.
    pub words: Vec<Vec<u8>>,
}

/// A position in the journal: the number of effects before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position(u64);

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A handle to a node's journal, or to a unit that is being collected.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    stream: Arc<Mutex<Stream>>,
    /// A change was made whose effect is not known: readers that repeat the effects no longer have the same data.
    is_broken: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Stream {
    sink: Sink,
    end: Position,
}

/// Destination of effects.
#[derive(Debug)]
enum Sink {
    Listener(Feed<Effect>),
    /// A unit that is not complete yet.
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

    /// Begins a unit of several commands. [`Journal::end_unit`] appends it to this journal.
    pub(crate) fn begin_unit(&self) -> Self {
        Self {
            stream: Stream::into(Sink::Unit(Vec::new())),
            is_broken: Arc::clone(&self.is_broken),
        }
    }

    /// Appends a completed unit.
    pub(crate) fn end_unit(&self, unit: &Self) -> Position {
        let effects = match &mut unit.stream.lock().sink {
            Sink::Unit(effects) => std::mem::take(effects),
            Sink::Listener(_) => Vec::new(),
        };
        self.append(effects)
    }

    /// Appends the effects of one unit in one piece. Returns the position after them.
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

    /// Notes that a change was made whose effect is not known.
    pub(crate) fn break_history(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
    }

    /// Position of the end of the journal, if a change before it is not known.
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
