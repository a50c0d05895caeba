//! [`Recorder`]: the effects that a loop has recorded while it holds partitions, until it hands them to the journal.
//!
//! A loop hands over before it lets go of a partition, with one lock for all commands of a batch. What belongs together, the
//! effects of one command or of a transaction, is a *unit*: it is recorded within a [`Unit`] and enters the journal whole.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use smallvec::SmallVec;

use super::encoded::Encoded;
use super::{Effect, Journal, Position};
use crate::limits::RECORD_KEPT_BYTES;

/// The effects that one loop has recorded.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// The journal that they enter; none when nobody listens.
    journal: Option<Arc<Journal>>,
    record: RefCell<Record>,
    /// Units that were ever recorded.
    recorded: Cell<u64>,
    /// The end of what was handed over last.
    position: Cell<Position>,
}

/// Units, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Record {
    effects: Encoded,
    /// The database of each effect.
    databases: Vec<u16>,
    units: Vec<UnitEnd>,
    /// Number of units that are open, one within the other.
    depth: u32,
    /// Something was changed within the open unit whose effect is not known.
    is_torn: bool,
}

/// The effects of a unit, each with its database.
pub(super) type UnitEffects<'a> = SmallVec<[(u16, &'a [u8]); 1]>;

/// The end of a unit.
#[derive(Clone, Copy, Debug)]
struct UnitEnd {
    /// Number of effects up to here.
    effects: usize,
    /// Not all that belongs to it is known.
    is_torn: bool,
}

impl Recorder {
    /// A recorder for a journal; without one it records nothing.
    pub(crate) fn new(journal: Option<Arc<Journal>>) -> Self {
        Self {
            journal,
            ..Self::default()
        }
    }

    /// Whether effects are recorded at all.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.journal.is_some()
    }

    /// The journal, if there is one.
    pub(crate) fn journal(&self) -> Option<&Arc<Journal>> {
        self.journal.as_ref()
    }

    /// Whether a reply may leave to a client whose effects end here.
    #[inline]
    pub(crate) fn has_reached(&self, position: Position) -> bool {
        self.journal
            .as_ref()
            .is_none_or(|journal| journal.has_reached(position))
    }

    /// Begins a unit; it ends when what this returns is dropped. A unit within another belongs to that one.
    pub(crate) fn unit(&self) -> Unit<'_> {
        self.record.borrow_mut().depth += 1;
        Unit(self)
    }

    /// Goes on with a unit that was set aside.
    pub(crate) fn resume(&self, unit: Record) -> Unit<'_> {
        let before = self.record.replace(unit);
        debug_assert!(
            before.effects.len() == 0,
            "what is set aside was alone in the record"
        );
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
        self.record.borrow().units.is_empty()
    }

    /// Hands all units to the journal, in one piece. To be called before a partition that they changed is let go of. True when
    /// there were any.
    #[inline]
    pub(crate) fn hand_over(&self) -> bool {
        self.journal.is_some() && self.hand_over_recorded()
    }

    fn hand_over_recorded(&self) -> bool {
        let mut record = self.record.borrow_mut();
        // Within a transaction its unit is not over yet: those who borrow a partition beside it hand over what is whole.
        debug_assert!(record.depth == 0, "a partition is let go of within a unit");
        let Some(journal) = self.journal.as_ref().filter(|_| !record.units.is_empty()) else {
            return false;
        };
        self.position.set(journal.append(&record));
        record.clear();
        true
    }

    fn end_unit(&self) {
        let mut record = self.record.borrow_mut();
        record.depth -= 1;
        if record.depth == 0 && record.end_unit() {
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
        let mut record = self.0.record.borrow_mut();
        record.effects.push(words);
        record.databases.push(db);
    }

    /// Records effects that are encoded already.
    pub(crate) fn append(&self, db: u16, effects: &Encoded) {
        let mut record = self.0.record.borrow_mut();
        record.effects.append(effects);
        let count = record.effects.len();
        record.databases.resize(count, db);
    }

    /// Records removals of keys that no command asked for.
    pub(crate) fn add_all(&self, removals: impl Iterator<Item = Effect>) {
        removals.for_each(|Effect { db, words }| self.add(db, words.iter().map(Vec::as_slice)));
    }

    /// Sets the unit aside, for a transaction that goes on later. Nothing else is in the record, as nobody lets go of a partition
    /// with a record that was not handed over.
    pub(crate) fn suspend(self) -> Record {
        let mut unit = self.0.record.take();
        debug_assert!(
            unit.depth == 1 && unit.units.is_empty(),
            "a suspended unit is alone in the record"
        );
        unit.depth = 0;
        // The record has no open unit any more: this one must not end it.
        std::mem::forget(self);
        unit
    }

    /// Notes that something was changed within this unit whose effect is not known.
    pub(crate) fn tear(&self) {
        self.0.record.borrow_mut().is_torn = true;
    }
}

impl Drop for Unit<'_> {
    fn drop(&mut self) {
        self.0.end_unit();
    }
}

impl Record {
    /// Ends the unit of what was recorded since the last one. False when that is nothing.
    fn end_unit(&mut self) -> bool {
        let begin = self.units.last().map_or(0, |unit| unit.effects);
        let effects = self.effects.len();
        let is_torn = std::mem::take(&mut self.is_torn);
        if effects == begin && !is_torn {
            return false;
        }
        self.units.push(UnitEnd { effects, is_torn });
        true
    }

    fn clear(&mut self) {
        self.effects.clear(RECORD_KEPT_BYTES);
        self.databases.clear();
        self.units.clear();
    }

    /// Its units: their effects, each with its database, and whether some are missing.
    pub(super) fn units(&self) -> impl Iterator<Item = (UnitEffects<'_>, bool)> {
        let mut effects = self.databases.iter().copied().zip(self.effects.iter());
        let mut begin = 0;
        self.units.iter().map(move |unit| {
            let count = unit.effects - std::mem::replace(&mut begin, unit.effects);
            (effects.by_ref().take(count).collect(), unit.is_torn)
        })
    }
}
