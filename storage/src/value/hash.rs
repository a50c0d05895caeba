//! [`Hash`]: fields with values, each with an optional expiry of its own; and the choice of the encoding.
//!
//! A small hash is a pack of fields and values ([`packed`]); once a field has an expiry, of fields, values and expiries,
//! ordered by these (`listpackex`). A large one is a table of fields with an index of those that expire ([`table`]). It
//! changes at the thresholds Redis has, and never back.
//!
//! An expired field is *hidden*: every function that gets the time skips it, though [`Hash::len`] counts it until
//! [`Hash::remove_expired`] or a write removes it. A caller that may not decide that a field has expired (a replica
//! applying its primary's writes) passes [`i64::MIN`] as the time.

mod packed;
mod table;

use std::collections::HashSet;

use rand::RngExt;
use rand::rngs::SmallRng;

use self::packed::FieldPack;
use self::table::FieldTable;
use super::{Encoding, StringRef};
use crate::element::Element;
use crate::encoding::listpack::Listpack;
use crate::encoding::member_table;
use crate::encoding::member_table::MemberTable;
use crate::key::KeyHasher;
use crate::memory::boxed::CountedBox;
use crate::table::TableStats;

/// A pack with its next field may not be longer than this, whatever the thresholds say.
const PACK_BYTES_MAX: usize = 1 << 30;

/// Thresholds of a packed hash, and the hash function of a larger one.
#[derive(Clone, Copy, Debug)]
pub struct HashLimits {
    /// Fields a pack may have: `hash-max-listpack-entries`.
    pub listpack_entries: usize,
    /// Bytes a field or value in a pack may have: `hash-max-listpack-value`.
    pub listpack_value: usize,
    /// Hash function for tables of fields.
    pub hasher: KeyHasher,
}

impl HashLimits {
    #[inline]
    fn allow(&self, name: &[u8], value: &[u8]) -> bool {
        name.len() <= self.listpack_value && value.len() <= self.listpack_value
    }
}

/// Effect of setting a value on the field's expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldExpiry {
    /// The field has none afterwards.
    Clear,
    /// The field keeps what it had, none if it is new.
    Keep,
    /// The field expires at this time, in milliseconds since 1970.
    At(i64),
}

impl FieldExpiry {
    /// Expiry afterwards if it was `before`.
    #[inline]
    fn after(self, before: Option<i64>) -> Option<i64> {
        match self {
            Self::Clear => None,
            Self::Keep => before,
            Self::At(at) => Some(at),
        }
    }
}

/// A field with its value and expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name.
    pub name: StringRef<'a>,
    /// Its value.
    pub value: StringRef<'a>,
    /// Expiry, milliseconds since 1970.
    pub expiry: Option<i64>,
}

impl Field<'_> {
    /// Whether its time is over: its last millisecond still belongs to it.
    #[inline]
    #[must_use]
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expiry.is_some_and(|at| at < now_ms)
    }
}

impl<'a> From<Element<'a>> for Field<'a> {
    #[inline]
    fn from(element: Element<'a>) -> Self {
        Self {
            name: StringRef::Bytes(element.member()),
            value: StringRef::Bytes(element.value()),
            expiry: element.expiry(),
        }
    }
}

/// Fields with values.
#[derive(Clone)]
pub struct Hash(Form);

const _: () = assert!(size_of::<Hash>() <= 24);
const _: () = {
    const fn goes_with_its_keyspace_to_another_thread<T: Send>() {}
    goes_with_its_keyspace_to_another_thread::<Hash>();
};

#[derive(Clone)]
enum Form {
    Packed(FieldPack),
    Table(CountedBox<FieldTable>),
}

impl Default for Hash {
    /// An empty hash, which has not allocated.
    fn default() -> Self {
        Self(Form::Packed(FieldPack::default()))
    }
}

impl Hash {
    /// A hash of the pairs of field and value in a pack (RDB's and Redis's listpack hashes). `None` if they are not
    /// pairs, there are none, or a field appears twice. O(fields).
    #[must_use]
    pub fn from_listpack(pack: Listpack, limits: &HashLimits) -> Option<Self> {
        Self::from_pack(FieldPack::of_pairs(pack)?, limits)
    }

    /// A hash of the triples of field, value and expiry (0 for none) in a pack, ordered by expiry or not. `None` as for
    /// [`Hash::from_listpack`], or if an expiry is no number. O(fields · log fields).
    #[must_use]
    pub fn from_listpack_ex(pack: &Listpack, limits: &HashLimits) -> Option<Self> {
        Self::from_pack(FieldPack::of_triples(pack)?, limits)
    }

    fn from_pack(pack: FieldPack, limits: &HashLimits) -> Option<Self> {
        let mut scratch = [0; super::INT_TEXT_MAX];
        let mut names = HashSet::with_capacity(pack.len());
        let mut fits = pack.len() <= limits.listpack_entries;
        for field in pack.iter() {
            let name = field.name.as_bytes(&mut scratch);
            fits = fits && name.len().max(field.value.len()) <= limits.listpack_value;
            if !names.insert(name.to_vec()) {
                return None;
            }
        }
        let mut hash = Self(Form::Packed(pack));
        if !fits {
            hash.convert(limits);
        }
        (!hash.is_empty()).then_some(hash)
    }

    /// Number of fields, expired ones that are still to be removed included.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Packed(pack) => pack.len(),
            Form::Table(table) => table.len(),
        }
    }

    /// Whether there is no field.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of fields that are not hidden. O(1 + hidden fields).
    #[must_use]
    pub fn visible_len(&self, now_ms: i64) -> usize {
        if self.next_expiry().is_none_or(|at| at >= now_ms) {
            return self.len();
        }
        self.len()
            - match &self.0 {
                Form::Packed(pack) => pack.expired(now_ms),
                Form::Table(table) => table.expired(now_ms),
            }
    }

    /// Encoding, as OBJECT ENCODING names it.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        match &self.0 {
            Form::Packed(pack) if pack.is_volatile() => Encoding::ListpackEx,
            Form::Packed(_) => Encoding::Listpack,
            Form::Table(_) => Encoding::HashTable,
        }
    }

    /// The pack, if the hash is one: of pairs for `listpack`, of triples for `listpackex`.
    #[must_use]
    pub fn as_listpack(&self) -> Option<&Listpack> {
        match &self.0 {
            Form::Packed(pack) => Some(pack.as_listpack()),
            Form::Table(_) => None,
        }
    }

    /// Whether the hash is a pack of triples, though perhaps none of its fields has an expiry any more.
    #[must_use]
    pub(crate) fn packs_expiries(&self) -> bool {
        matches!(&self.0, Form::Packed(pack) if pack.is_volatile())
    }

    /// The table that it is stored in, where there is one.
    #[inline]
    pub(super) fn member_table(&self) -> Option<&MemberTable> {
        match &self.0 {
            Form::Packed(_) => None,
            Form::Table(table) => Some(table.members()),
        }
    }

    /// Size of the table, where there is one.
    #[must_use]
    pub fn table_stats(&self) -> Option<TableStats> {
        match &self.0 {
            Form::Packed(_) => None,
            Form::Table(table) => Some(table.stats()),
        }
    }

    /// Bytes allocated. O(1).
    #[must_use]
    pub fn memory(&self) -> usize {
        match &self.0 {
            Form::Packed(pack) => pack.as_listpack().memory(),
            Form::Table(table) => CountedBox::<FieldTable>::memory() + table.memory(),
        }
    }

    /// Approximate number of allocations to free.
    #[must_use]
    pub fn free_cost(&self) -> usize {
        match &self.0 {
            Form::Packed(_) => 1,
            Form::Table(table) => table.allocations(),
        }
    }

    /// Frees about `budget` allocations and returns how many it were: 0 when the hash is empty and holds none. In between,
    /// the hash is good for nothing else.
    pub fn drain(&mut self, budget: usize) -> usize {
        match &mut self.0 {
            Form::Packed(pack) => {
                let freed = usize::from(pack.as_listpack().memory() > 0);
                *pack = FieldPack::default();
                freed
            }
            Form::Table(table) => {
                let freed = table.drain(budget);
                if table.allocations() > 0 {
                    return freed;
                }
                *self = Self::default();
                freed + 1
            }
        }
    }

    // ----- reading

    /// The field of that name, if it is not hidden.
    #[inline]
    #[must_use]
    pub fn field(&self, name: &[u8], now_ms: i64) -> Option<Field<'_>> {
        let field = match &self.0 {
            Form::Packed(pack) => pack.get(name)?,
            Form::Table(table) => Field::from(table.find(name)?),
        };
        (!field.is_expired(now_ms)).then_some(field)
    }

    /// The value of a field that is not hidden.
    #[inline]
    #[must_use]
    pub fn get(&self, name: &[u8], now_ms: i64) -> Option<StringRef<'_>> {
        self.field(name, now_ms).map(|field| field.value)
    }

    /// All fields that are not hidden.
    #[inline]
    #[must_use]
    pub fn iter(&self, now_ms: i64) -> Iter<'_> {
        Iter {
            fields: match &self.0 {
                Form::Packed(pack) => AnyFields::Packed(pack.iter()),
                Form::Table(table) => AnyFields::Table(table.iter()),
            },
            now_ms,
        }
    }

    /// Visits some fields from a cursor on, about `count` of them, and returns the cursor to go on with, 0 at the end.
    /// Every field that is present from the first call to the last is visited at least once. A pack is visited as a whole.
    pub fn scan(&self, cursor: u64, count: usize, now_ms: i64, mut visit: impl FnMut(Field<'_>)) -> u64 {
        let Form::Table(table) = &self.0 else {
            self.iter(now_ms).for_each(visit);
            return 0;
        };
        // Buckets passed at most: a table in need of shrinking is no reason for a long walk.
        let mut buckets = count.saturating_mul(10);
        let (mut cursor, mut seen) = (cursor, 0);
        loop {
            cursor = table.scan(cursor, |element| {
                seen += 1;
                let field = Field::from(element);
                if !field.is_expired(now_ms) {
                    visit(field);
                }
            });
            buckets = buckets.saturating_sub(1);
            if cursor == 0 || seen >= count || buckets == 0 {
                return cursor;
            }
        }
    }

    /// A random field that is not hidden, each with the same probability. Expected O(1) in a table that has few
    /// hidden fields, O(fields) in a pack.
    #[must_use]
    pub fn random(&self, rng: &mut SmallRng, now_ms: i64) -> Option<Field<'_>> {
        /// With fewer than half of the fields hidden nearly every search ends within so many tries.
        const TRIES: usize = 32;
        if let Form::Table(table) = &self.0 {
            for _ in 0..TRIES {
                let field = Field::from(table.random(rng)?);
                if !field.is_expired(now_ms) {
                    return Some(field);
                }
            }
        }
        let visible = self.visible_len(now_ms);
        if visible == 0 {
            return None;
        }
        let nth = rng.random_range(0..visible);
        match &self.0 {
            Form::Packed(pack) => pack.nth(pack.len() - visible + nth),
            Form::Table(_) => self.iter(now_ms).nth(nth),
        }
    }

    /// Visits `count` different fields that are not hidden, chosen at random, or all if there are no more.
    /// O(count) where that is a small part of a table, else O(fields).
    pub fn random_distinct(
        &self,
        count: usize,
        rng: &mut SmallRng,
        now_ms: i64,
        mut visit: impl FnMut(Field<'_>),
    ) {
        /// From one in so many on, drawing until enough differ is dearer than passing over all.
        const SMALL_SHARE: usize = 4;
        let visible = self.visible_len(now_ms);
        if let Form::Table(table) = &self.0
            && count.saturating_mul(SMALL_SHARE) < visible
            && visible > table.len() / 2
        {
            let mut chosen = HashSet::with_capacity(count);
            while chosen.len() < count {
                let Some(element) = table.random(rng) else { return };
                let field = Field::from(element);
                if !field.is_expired(now_ms) && chosen.insert(element.member().as_ptr()) {
                    visit(field);
                }
            }
            return;
        }
        // Each field is taken with the probability of what is still wanted among what is still to come, which makes every
        // choice of `count` fields equally likely.
        let (mut wanted, mut left) = (count.min(visible), visible);
        for field in self.iter(now_ms) {
            if wanted == 0 {
                return;
            }
            if rng.random_range(0..left) < wanted {
                wanted -= 1;
                visit(field);
            }
            left -= 1;
        }
    }

    // ----- changing

    /// Becomes a table now if so many fields are about to be set that Redis would not pack them.
    pub fn expect_fields(&mut self, count: usize, limits: &HashLimits) {
        if count > limits.listpack_entries {
            self.convert(limits);
        }
    }

    /// Sets a field's value; returns whether the field was missing or hidden. O(1) in a table, O(bytes) in a pack.
    #[inline]
    pub fn set(
        &mut self,
        name: &[u8],
        value: &[u8],
        expiry: FieldExpiry,
        now_ms: i64,
        limits: &HashLimits,
    ) -> bool {
        if let Form::Packed(pack) = &self.0
            && !(limits.allow(name, value) && pack.has_room(name.len() + value.len(), PACK_BYTES_MAX))
        {
            self.convert(limits);
        }
        match &mut self.0 {
            Form::Table(table) => table.set(name, value, expiry, now_ms),
            Form::Packed(pack) => {
                let new = pack.set(name, value, expiry, now_ms);
                if pack.len() > limits.listpack_entries {
                    self.convert(limits);
                }
                new
            }
        }
    }

    /// Removes a field; returns whether it existed and was not hidden. Hidden ones are removed as well.
    #[inline]
    pub fn remove(&mut self, name: &[u8], now_ms: i64) -> bool {
        match &mut self.0 {
            Form::Packed(pack) => pack.remove(name, now_ms),
            Form::Table(table) => table.remove(name, now_ms),
        }
    }

    /// Sets or clears the expiry of a field that is not hidden; returns whether there is one.
    pub fn set_expiry(&mut self, name: &[u8], expiry_ms: Option<i64>, now_ms: i64) -> bool {
        match &mut self.0 {
            Form::Packed(pack) => pack.set_expiry(name, expiry_ms, now_ms),
            Form::Table(table) => table.set_expiry(name, expiry_ms, now_ms),
        }
    }

    /// Expiry of the next field, milliseconds since 1970; in the past while there are hidden fields. O(1).
    #[inline]
    #[must_use]
    pub fn next_expiry(&self) -> Option<i64> {
        match &self.0 {
            Form::Packed(pack) => pack.next_expiry(),
            Form::Table(table) => table.next_expiry(),
        }
    }

    /// Time of the active cycle's next look at the hash: the expiry of its next field, as far as it can be noted.
    #[inline]
    pub(crate) fn next_look(&self) -> Option<i64> {
        self.next_expiry().map(|at| at.clamp(0, packed::LISTED_MAX))
    }

    /// The time under which the keyspace has listed the hash among those with fields that expire, if it has.
    #[inline]
    pub(crate) fn listed_ms(&self) -> i64 {
        match &self.0 {
            Form::Packed(pack) => pack.listed_ms(),
            Form::Table(table) => table.listed_ms,
        }
    }

    /// Notes that time, a result of [`Hash::next_look`].
    #[inline]
    pub(crate) fn set_listed_ms(&mut self, at: i64) {
        match &mut self.0 {
            Form::Packed(pack) => pack.set_listed_ms(at),
            Form::Table(table) => table.listed_ms = at,
        }
    }

    /// Removes hidden fields, at most `budget` of them, and calls `visit` with their names; returns their
    /// number. O(log fields) each in a table.
    pub fn remove_expired(
        &mut self,
        now_ms: i64,
        budget: usize,
        mut visit: impl FnMut(StringRef<'_>),
    ) -> usize {
        match &mut self.0 {
            Form::Packed(pack) => pack.remove_expired(now_ms, budget, visit),
            Form::Table(table) => table.remove_expired(now_ms, budget, |name| visit(StringRef::Bytes(name))),
        }
    }

    /// Becomes a table.
    #[cold]
    fn convert(&mut self, limits: &HashLimits) {
        let Form::Packed(pack) = &self.0 else { return };
        let mut table = FieldTable::new(limits.hasher);
        table.listed_ms = pack.listed_ms();
        let (mut name, mut value) = ([0; super::INT_TEXT_MAX], [0; super::INT_TEXT_MAX]);
        for field in pack.iter() {
            table.insert(
                field.name.as_bytes(&mut name),
                field.value.as_bytes(&mut value),
                field.expiry,
            );
        }
        self.0 = Form::Table(CountedBox::new(table));
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hash")
            .field("encoding", &self.encoding())
            .field("len", &self.len())
            .finish()
    }
}

/// The fields of a hash that are not hidden.
pub struct Iter<'a> {
    fields: AnyFields<'a>,
    now_ms: i64,
}

enum AnyFields<'a> {
    Packed(packed::Iter<'a>),
    Table(member_table::Iter<'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        loop {
            let field = match &mut self.fields {
                AnyFields::Packed(fields) => fields.next()?,
                AnyFields::Table(elements) => Field::from(elements.next()?),
            };
            if !field.is_expired(self.now_ms) {
                return Some(field);
            }
        }
    }
}

#[cfg(test)]
mod tests;
