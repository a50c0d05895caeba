//! [`Recorder`]: the effects that a loop has recorded while it holds partitions, until it hands them to the journal.
//!
//! A loop hands over before it lets go of a partition, with one lock for all commands of a batch. What belongs together, the
//! effects of one command or of a transaction, is a *unit*: it is recorded within a [`Unit`] and enters the journal whole.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use shardis_protocol::Arguments;

use super::encoded::Encoded;
use super::record::{Audience, Record, Scope};
use super::{Effect, Journal, Position};

/// The effects that one loop has recorded.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// The journal that they enter; none in tests that look at the record itself.
    journal: Option<Arc<Journal>>,
    record: RefCell<Record>,
    /// Units that were ever recorded.
    recorded: Cell<u64>,
    /// The end of what was handed over last.
    position: Cell<Position>,
    /// Readers of the effects that are recorded next.
    audience: Cell<Audience>,
}

impl Recorder {
    /// A recorder for a journal.
    pub(crate) fn new(journal: Arc<Journal>) -> Self {
        Self {
            journal: Some(journal),
            ..Self::default()
        }
    }

    /// Whether effects are recorded now. That changes only while nobody else uses a partition: who holds one may ask as often as
    /// it likes.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_read())
    }

    /// The journal, if there is one.
    pub(crate) fn journal(&self) -> Option<&Arc<Journal>> {
        self.journal.as_ref()
    }

    /// Whether a reply may leave whose connection waits for a position.
    #[inline]
    pub(crate) fn has_reached(&self, position: Position) -> bool {
        self.journal
            .as_ref()
            .is_none_or(|journal| journal.has_reached(position))
    }

    /// Sets the readers of the effects that are recorded from here on: a script may choose them.
    pub(crate) fn address(&self, audience: Audience) {
        self.audience.set(audience);
    }

    /// The scope of an effect on a database.
    fn scope(&self, db: u16) -> Scope {
        Scope {
            db,
            audience: self.audience.get(),
        }
    }

    /// Begins a unit; it ends when what this returns is dropped. A unit within another belongs to that one.
    pub(crate) fn unit(&self) -> Unit<'_> {
        self.record.borrow_mut().begin_unit();
        Unit(self)
    }

    /// Goes on with a unit that was set aside.
    pub(crate) fn resume(&self, unit: Record) -> Unit<'_> {
        let before = self.record.replace(unit);
        debug_assert!(before.is_empty(), "what is set aside was alone in the record");
        self.unit()
    }

    /// Number of units recorded so far: more than before if something had effects.
    #[inline]
    pub(crate) fn recorded(&self) -> u64 {
        self.recorded.get()
    }

    /// The end of what was handed over last.
    #[inline]
    pub(crate) fn position(&self) -> Position {
        self.position.get()
    }

    /// The end of what was recorded since there were so many units, and has been handed over; the beginning of the journal
    /// if that is nothing.
    pub(crate) fn end_since(&self, recorded: u64) -> Position {
        if self.recorded() > recorded {
            self.position()
        } else {
            Position::default()
        }
    }

    /// Whether all that was recorded was handed over.
    pub(crate) fn is_empty(&self) -> bool {
        !self.record.borrow().has_units()
    }

    /// Hands all units to the journal, in one piece. To be called before a partition that they changed is let go of. True when
    /// there were any.
    #[inline]
    pub(crate) fn hand_over(&self) -> bool {
        !self.is_empty() && self.hand_over_recorded()
    }

    fn hand_over_recorded(&self) -> bool {
        let mut record = self.record.borrow_mut();
        // Within a transaction its unit is not over yet: those who borrow a partition beside it hand over what is whole.
        debug_assert!(!record.has_open_unit(), "a partition is let go of within a unit");
        let Some(journal) = &self.journal else {
            return false;
        };
        self.position.set(journal.append(&record));
        record.clear();
        true
    }

    fn end_unit(&self) {
        if self.record.borrow_mut().end_unit() {
            self.recorded.set(self.recorded.get() + 1);
        }
    }
}

/// A unit that is open. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Unit<'a>(&'a Recorder);

impl Unit<'_> {
    /// Records an effect.
    pub(crate) fn add<'w>(&self, db: u16, words: impl ExactSizeIterator<Item = &'w [u8]>) {
        let scope = self.0.scope(db);
        self.0
            .record
            .borrow_mut()
            .add(scope, |effects| effects.push(words));
    }

    /// Records a request as its effect.
    pub(crate) fn repeat(&self, db: u16, request: Arguments<'_>) {
        let scope = self.0.scope(db);
        let mut record = self.0.record.borrow_mut();
        record.add(scope, |effects| effects.push_request(request));
    }

    /// Records a request as an effect on replicas, which is no change of the data.
    pub(crate) fn repeat_on_replicas(&self, db: u16, request: Arguments<'_>) {
        if self.0.audience.get() == Audience::File {
            return;
        }
        let scope = Scope {
            db,
            audience: Audience::Replicas,
        };
        let mut record = self.0.record.borrow_mut();
        record.add(scope, |effects| effects.push_request(request));
    }

    /// Records effects that are encoded already.
    pub(crate) fn append(&self, db: u16, commands: &Encoded) {
        let scope = self.0.scope(db);
        let mut record = self.0.record.borrow_mut();
        record.add(scope, |effects| effects.append(commands));
    }

    /// Records removals of keys that no command asked for.
    pub(crate) fn add_all(&self, removals: impl Iterator<Item = Effect>) {
        removals.for_each(|Effect { db, words }| self.add(db, words.iter().map(Vec::as_slice)));
    }

    /// Sets the unit aside, for a transaction that goes on later. Nothing else is in the record, as nobody lets go of a partition
    /// with a record that was not handed over.
    pub(crate) fn suspend(self) -> Record {
        let mut unit = self.0.record.take();
        unit.set_aside();
        // The record has no open unit any more: this one must not end it.
        std::mem::forget(self);
        unit
    }

    /// Notes that something was changed within this unit whose effect is not known.
    pub(crate) fn tear(&self) {
        self.0.record.borrow_mut().tear();
    }
}

impl Drop for Unit<'_> {
    fn drop(&mut self) {
        self.0.end_unit();
    }
}
