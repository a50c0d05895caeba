//! A small hash: fields and values, or fields, values and expiries, one behind the other in a listpack.
//!
//! With expiries (0 for none) the fields are ordered by them, those without one last, so that the expired ones are
//! always in front.

use super::{Field, FieldExpiry};
use crate::encoding::listpack::{self, Listpack, Position};
use crate::value::{INT_TEXT_MAX, StringRef, format_int};

/// The bytes a pack's elements can take beyond their data: two long strings and an integer.
const OVERHEAD_MAX: usize = 32;

/// A pack of fields.
#[derive(Clone, Default)]
pub(super) struct FieldPack {
    pack: Listpack,
    /// Whether an expiry follows each value.
    volatile: bool,
    /// Value of [`Hash::listed_ms`](super::Hash::listed_ms), in 48 bits.
    listed_ms: [u8; 6],
}

/// The latest time that a pack can be listed under: in the year 10889.
pub(super) const LISTED_MAX: i64 = (1 << 48) - 1;

impl FieldPack {
    #[inline]
    pub(super) fn listed_ms(&self) -> i64 {
        let mut bytes = [0; 8];
        bytes[..6].copy_from_slice(&self.listed_ms);
        i64::from_le_bytes(bytes)
    }

    #[inline]
    pub(super) fn set_listed_ms(&mut self, at: i64) {
        debug_assert!((0..=LISTED_MAX).contains(&at));
        self.listed_ms.copy_from_slice(&at.to_le_bytes()[..6]);
    }

    /// A pack of pairs as it is; `None` if the last is not whole.
    pub(super) fn of_pairs(pack: Listpack) -> Option<Self> {
        pack.len().is_multiple_of(2).then_some(Self {
            pack,
            ..Self::default()
        })
    }

    /// A pack of triples, brought into order; `None` if the last is not whole or an expiry is no number.
    pub(super) fn of_triples(pack: &Listpack) -> Option<Self> {
        if !pack.len().is_multiple_of(3) {
            return None;
        }
        let mut fields = Vec::with_capacity(pack.len() / 3);
        let mut elements = pack.iter();
        while let (Some(name), Some(value), Some(expiry)) =
            (elements.next(), elements.next(), elements.next())
        {
            let expiry = match expiry.to_int()? {
                0 => None,
                at => Some(at.max(1)),
            };
            fields.push(Field { name, value, expiry });
        }
        fields.sort_by_key(|field| field.expiry.unwrap_or(i64::MAX));
        let mut ordered = Listpack::with_capacity(pack.byte_len());
        for field in fields {
            ordered.push_back_ref(field.name);
            ordered.push_back_ref(field.value);
            ordered.push_back_int(field.expiry.unwrap_or(0));
        }
        ordered.shrink_to_fit();
        Some(Self {
            pack: ordered,
            volatile: true,
            ..Self::default()
        })
    }

    #[inline]
    pub(super) fn as_listpack(&self) -> &Listpack {
        &self.pack
    }

    #[inline]
    pub(super) fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// Elements a field takes.
    #[inline]
    fn stride(&self) -> usize {
        2 + usize::from(self.volatile)
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.pack.len() / self.stride()
    }

    /// Whether `bytes` more of names and values keep the pack within `limit`.
    #[inline]
    pub(super) fn has_room(&self, bytes: usize, limit: usize) -> bool {
        self.pack.byte_len() + bytes + OVERHEAD_MAX <= limit
    }

    #[inline]
    fn find(&self, name: &[u8]) -> Option<Position> {
        self.pack.find(self.pack.first()?, name, self.stride() - 1)
    }

    /// The field whose name is at a position.
    #[inline]
    fn at(&self, position: Position) -> Option<Field<'_>> {
        self.iter_from(position).next()
    }

    #[inline]
    pub(super) fn get(&self, name: &[u8]) -> Option<Field<'_>> {
        self.at(self.find(name)?)
    }

    /// The field of that number.
    pub(super) fn nth(&self, index: usize) -> Option<Field<'_>> {
        self.at(self.pack.seek((index * self.stride()) as isize)?)
    }

    #[inline]
    pub(super) fn iter(&self) -> Iter<'_> {
        Iter {
            elements: self.pack.iter(),
            volatile: self.volatile,
        }
    }

    #[inline]
    fn iter_from(&self, position: Position) -> Iter<'_> {
        Iter {
            elements: self.pack.iter_from(position),
            volatile: self.volatile,
        }
    }

    #[inline]
    pub(super) fn next_expiry(&self) -> Option<i64> {
        if !self.volatile {
            return None;
        }
        self.iter().next()?.expiry
    }

    /// Number of fields that have expired.
    pub(super) fn expired(&self, now_ms: i64) -> usize {
        self.iter().take_while(|field| field.is_expired(now_ms)).count()
    }

    #[inline]
    pub(super) fn set(&mut self, name: &[u8], value: &[u8], expiry: FieldExpiry, now_ms: i64) -> bool {
        let found = self.find(name).and_then(|at| Some((at, self.at(at)?)));
        let Some((at, field)) = found else {
            self.insert(name, value, expiry.after(None));
            return true;
        };
        let expired = field.is_expired(now_ms);
        let before = if expired { None } else { field.expiry };
        let after = expiry.after(before);
        if after != field.expiry {
            self.remove_at(at);
            self.insert(name, value, after);
        } else if let Some(at) = self.pack.next(at) {
            self.pack.replace(at, value);
        }
        expired
    }

    pub(super) fn remove(&mut self, name: &[u8], now_ms: i64) -> bool {
        let found = self.find(name).and_then(|at| Some((at, self.at(at)?)));
        let Some((at, field)) = found else {
            return false;
        };
        let expired = field.is_expired(now_ms);
        self.remove_at(at);
        !expired
    }

    fn remove_at(&mut self, position: Position) {
        self.pack.remove_n(position, self.stride());
    }

    pub(super) fn set_expiry(&mut self, name: &[u8], expiry: Option<i64>, now_ms: i64) -> bool {
        let found = self.find(name).and_then(|at| Some((at, self.at(at)?)));
        let Some((at, field)) = found else {
            return false;
        };
        if field.is_expired(now_ms) {
            return false;
        }
        if field.expiry != expiry {
            let mut scratch = [0; INT_TEXT_MAX];
            let value = field.value.as_bytes(&mut scratch).to_vec();
            self.remove_at(at);
            self.insert(name, &value, expiry);
        }
        true
    }

    /// Adds a field that is not there.
    fn insert(&mut self, name: &[u8], value: &[u8], expiry: Option<i64>) {
        if expiry.is_some() {
            self.make_volatile();
        }
        if !self.volatile {
            self.pack.push_back(name);
            self.pack.push_back(value);
            return;
        }
        // A time before 1970 has passed, like one directly after it; 0 means never.
        let number = expiry.map_or(0, |at| at.max(1));
        let Some(position) = expiry.and_then(|at| self.place_of(at)) else {
            self.pack.push_back(name);
            self.pack.push_back(value);
            self.pack.push_back_int(number);
            return;
        };
        let mut scratch = [0; INT_TEXT_MAX];
        self.pack
            .insert_before(position, format_int(number, &mut scratch));
        self.pack.insert_before(position, value);
        self.pack.insert_before(position, name);
    }

    /// The first field that does not expire before or at `expiry`, if there is one.
    fn place_of(&self, expiry: i64) -> Option<Position> {
        let mut position = self.pack.first();
        while let Some(at) = position {
            if self.at(at)?.expiry.is_none_or(|other| other > expiry) {
                break;
            }
            for _ in 0..self.stride() {
                position = position.and_then(|at| self.pack.next(at));
            }
        }
        position
    }

    /// Puts an expiry behind every value.
    fn make_volatile(&mut self) {
        if self.volatile {
            return;
        }
        let mut volatile = Listpack::with_capacity(self.pack.byte_len() + 2 * self.len());
        for field in self.iter() {
            volatile.push_back_ref(field.name);
            volatile.push_back_ref(field.value);
            volatile.push_back_int(0);
        }
        self.pack = volatile;
        self.volatile = true;
    }

    pub(super) fn remove_expired(
        &mut self,
        now_ms: i64,
        budget: usize,
        mut visit: impl FnMut(StringRef<'_>),
    ) -> usize {
        let mut count = 0;
        for field in self
            .iter()
            .take(budget)
            .take_while(|field| field.is_expired(now_ms))
        {
            visit(field.name);
            count += 1;
        }
        self.pack.remove_range(0, count * self.stride());
        count
    }
}

/// The fields of a pack.
pub(super) struct Iter<'a> {
    elements: listpack::Iter<'a>,
    volatile: bool,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        Some(Field {
            name: self.elements.next()?,
            value: self.elements.next()?,
            expiry: if self.volatile {
                self.elements.next()?.to_int().filter(|at| *at != 0)
            } else {
                None
            },
        })
    }
}
