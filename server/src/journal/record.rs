//! [`Record`]: recorded units, one behind the other, and their bytes as the readers of the journal get them.

use super::encoded::Encoded;
use crate::limits::RECORD_KEPT_BYTES;

/// Units, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Record {
    effects: Encoded,
    /// The scope of each effect.
    scopes: Vec<Scope>,
    units: Vec<UnitEnd>,
    /// Number of units that are open, one within the other.
    depth: u32,
    /// Something was changed within the open unit whose effect is not known.
    is_torn: bool,
    shape: Shape,
}

/// The database of an effect, and its readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) db: u16,
    pub(super) audience: Audience,
}

/// The readers that an effect is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Audience {
    /// All.
    #[default]
    All,
    /// Readers that follow the node as it goes on, but no file of its data.
    Replicas,
    /// The file of the data, but no reader that follows the node.
    File,
}

/// The end of a unit.
#[derive(Clone, Copy, Debug)]
struct UnitEnd {
    /// Number of effects up to here.
    effects: usize,
    /// Not all that belongs to it is known.
    is_torn: bool,
}

/// Properties of a record that decide how it becomes bytes of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shape {
    /// No unit is complete.
    #[default]
    Empty,
    /// All units are single effects on this database, for all readers: the bytes of the effects are those of the stream.
    Plain(u16),
    /// Units have several effects, or are on several databases.
    Mixed,
}

/// A unit of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnitView<'a> {
    record: &'a Record,
    begin: usize,
    end: usize,
    /// Not all that belongs to it is known.
    pub(super) is_torn: bool,
}

impl Scope {
    /// An effect on a database.
    pub(super) fn of(db: u16) -> Self {
        Self {
            db,
            audience: Audience::All,
        }
    }

    /// Whether these readers get the effect.
    fn is_for(self, readers: Audience) -> bool {
        match self.audience {
            Audience::All => true,
            Audience::Replicas => readers == Audience::Replicas,
            Audience::File => readers == Audience::All,
        }
    }
}

impl Record {
    /// Whether there is nothing in it, not even a part of a unit.
    pub(super) fn is_empty(&self) -> bool {
        self.effects.len() == 0
    }

    /// Whether there are complete units.
    #[inline]
    pub(super) fn has_units(&self) -> bool {
        !self.units.is_empty()
    }

    /// Whether a unit has begun and not ended.
    pub(super) fn has_open_unit(&self) -> bool {
        self.depth > 0
    }

    pub(super) fn begin_unit(&mut self) {
        self.depth += 1;
    }

    /// Adds effects of one scope to the open unit.
    #[inline]
    pub(super) fn add(&mut self, scope: Scope, encode: impl FnOnce(&mut Encoded)) {
        encode(&mut self.effects);
        self.scopes.resize(self.effects.len(), scope);
    }

    /// Notes that something was changed within the open unit whose effect is not known.
    pub(super) fn tear(&mut self) {
        self.is_torn = true;
    }

    /// Ends a unit. True when it was not within another one and has had effects.
    pub(super) fn end_unit(&mut self) -> bool {
        self.depth -= 1;
        if self.depth > 0 {
            return false;
        }
        let begin = self.units.last().map_or(0, |unit| unit.effects);
        let effects = self.effects.len();
        let is_torn = std::mem::take(&mut self.is_torn);
        if effects == begin && !is_torn {
            return false;
        }
        self.units.push(UnitEnd { effects, is_torn });
        self.shape = match (self.shape, &self.scopes[begin..]) {
            (Shape::Empty, &[scope]) if scope.audience == Audience::All && !is_torn => Shape::Plain(scope.db),
            (Shape::Plain(db), &[scope]) if scope == Scope::of(db) && !is_torn => Shape::Plain(db),
            _ => Shape::Mixed,
        };
        true
    }

    /// Ends the hold on the open unit, which somebody else goes on with.
    pub(super) fn set_aside(&mut self) {
        debug_assert!(
            self.depth == 1 && self.units.is_empty(),
            "a suspended unit is alone in the record"
        );
        self.depth = 0;
    }

    pub(super) fn clear(&mut self) {
        self.effects.clear(RECORD_KEPT_BYTES);
        self.scopes.clear();
        self.units.clear();
        self.shape = Shape::Empty;
    }

    /// Its units.
    pub(super) fn units(&self) -> impl Iterator<Item = UnitView<'_>> {
        let mut begin = 0;
        self.units.iter().map(move |unit| UnitView {
            record: self,
            begin: std::mem::replace(&mut begin, unit.effects),
            end: unit.effects,
            is_torn: unit.is_torn,
        })
    }

    /// Whether not all that belongs to a unit is known.
    pub(super) fn is_torn(&self) -> bool {
        self.shape == Shape::Mixed && self.units.iter().any(|unit| unit.is_torn)
    }

    /// Passes on the bytes of the stream for these readers, piece by piece. `selected` is the database that they have selected.
    #[inline]
    pub(super) fn render(&self, readers: Audience, selected: &mut Option<u16>, mut put: impl FnMut(&[u8])) {
        if let Shape::Plain(db) = self.shape {
            select(db, selected, &mut put);
            return put(self.effects.as_bytes());
        }
        for unit in self.units() {
            unit.render(readers, selected, &mut put);
        }
    }
}

impl<'a> UnitView<'a> {
    /// Its effects, each with its database.
    pub(super) fn effects(self) -> impl DoubleEndedIterator<Item = (Scope, &'a [u8])> {
        (self.begin..self.end).map(move |index| (self.record.scopes[index], self.record.effects.at(index)))
    }

    /// Passes on the bytes of the unit, as [`Record::render`].
    pub(super) fn render(self, readers: Audience, selected: &mut Option<u16>, put: &mut impl FnMut(&[u8])) {
        let count = self.effects().filter(|(scope, _)| scope.is_for(readers)).count();
        let mut is_first = true;
        for (scope, effect) in self.effects().filter(|(scope, _)| scope.is_for(readers)) {
            select(scope.db, selected, put);
            if std::mem::take(&mut is_first) && count > 1 {
                put(MULTI);
            }
            put(effect);
        }
        if count > 1 {
            put(EXEC);
        }
    }
}

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

/// Has readers select a database, unless they have.
#[inline]
fn select(db: u16, selected: &mut Option<u16>, put: &mut impl FnMut(&[u8])) {
    if selected.replace(db) != Some(db) {
        let mut number = itoa::Buffer::new();
        let mut select = Encoded::default();
        select.push([b"SELECT".as_slice(), number.format(db).as_bytes()].into_iter());
        put(select.as_bytes());
    }
}
