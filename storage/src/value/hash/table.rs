//! UNSAFE. A large hash: a table of fields, and an index of those that expire, ordered by when they do.
//!
//! Invariant: the index holds just the elements of the table that have an expiry, each under its expiry. What may change
//! that (a new field, a removal, an element that is replaced by another) happens here and changes both. So every pointer
//! in the index is alive.
//!
//! The index orders equal expiries by address: it never has to look at an element to find its place.

use rand::rngs::SmallRng;

use super::FieldExpiry;
use crate::element::{Element, ElementBox, ElementPtr};
use crate::encoding::member_table::{self, MemberTable};
use crate::encoding::order_tree::{Cut, Order, OrderTree, ScoreCut};
use crate::key::KeyHasher;
use crate::table::Keyed;
use crate::table::TableStats;

/// A table of fields.
pub(super) struct FieldTable {
    fields: MemberTable,
    expiries: OrderTree<ElementPtr>,
    /// See [`Hash::listed_ms`](super::Hash::listed_ms).
    pub(super) listed_ms: i64,
}

/// Place of an element in the index. Times are exact up to 2^53 ms; beyond, the order is still that of the numbers.
#[derive(Clone, Copy)]
struct Place {
    time: f64,
    address: usize,
}

impl Place {
    #[inline]
    fn new(expiry: i64, element: ElementPtr) -> Self {
        Self {
            time: expiry as f64,
            address: element.as_ptr().addr().get(),
        }
    }

    /// The cut right behind this place.
    #[inline]
    fn cut(self) -> impl Cut<ElementPtr> {
        ScoreCut {
            score: self.time,
            ties: move |element: ElementPtr| element.as_ptr().addr().get() <= self.address,
        }
    }
}

impl FieldTable {
    /// The table of the fields.
    #[inline]
    pub(super) fn members(&self) -> &MemberTable {
        &self.fields
    }

    pub(super) const fn new(hasher: KeyHasher) -> Self {
        Self {
            fields: MemberTable::new(hasher),
            expiries: OrderTree::new(),
            listed_ms: 0,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    pub(super) fn stats(&self) -> TableStats {
        self.fields.stats()
    }

    pub(super) fn memory(&self) -> usize {
        self.fields.memory() + self.expiries.memory()
    }

    pub(super) fn allocations(&self) -> usize {
        self.fields.len() + self.expiries.nodes()
    }

    /// Frees about `budget` allocations; returns how many.
    pub(super) fn drain(&mut self, budget: usize) -> usize {
        // The index is freed first, so that it never points at a freed element.
        let nodes = self.expiries.drain(budget);
        if self.expiries.nodes() > 0 {
            return nodes;
        }
        nodes + self.fields.drain(budget.saturating_sub(nodes))
    }

    #[inline]
    pub(super) fn find(&self, name: &[u8]) -> Option<Element<'_>> {
        self.fields.find(name)
    }

    #[inline]
    pub(super) fn iter(&self) -> member_table::Iter<'_> {
        self.fields.iter()
    }

    /// Visits one bucket; returns the next cursor.
    pub(super) fn scan(&self, cursor: u64, visit: impl FnMut(Element<'_>)) -> u64 {
        self.fields.scan(cursor, 1, visit)
    }

    #[inline]
    pub(super) fn random(&self, rng: &mut SmallRng) -> Option<Element<'_>> {
        self.fields.random(rng)
    }

    #[inline]
    pub(super) fn next_expiry(&self) -> Option<i64> {
        self.first_to_expire()?.expiry()
    }

    #[inline]
    fn first_to_expire(&self) -> Option<Element<'_>> {
        let (_, element) = self.expiries.get(0)?;
        // SAFETY: elements in the index are elements of the table, alive, and borrowed with it.
        Some(unsafe { element.as_ref() })
    }

    /// Number of fields that have expired.
    pub(super) fn expired(&self, now_ms: i64) -> usize {
        self.expiries
            .range(0, self.expiries.len(), Order::Ascending)
            .take_while(|(_, element)| {
                // SAFETY: elements in the index are elements of the table, alive, and borrowed with it.
                unsafe { element.as_ref() }.expiry().is_some_and(|at| at < now_ms)
            })
            .count()
    }

    /// Enters an element into the index if it expires.
    #[inline]
    fn list(&mut self, expiry: Option<i64>, element: ElementPtr) {
        if let Some(at) = expiry {
            let place = Place::new(at, element);
            self.expiries.insert(place.time, element, &place.cut());
        }
    }

    /// Takes an element that may be freed already out of the index, where it stood under `expiry`.
    #[inline]
    fn unlist(&mut self, expiry: Option<i64>, element: ElementPtr) {
        if let Some(at) = expiry {
            let place = Place::new(at, element);
            let removed = self.expiries.remove(place.cut());
            assert!(
                removed.is_some_and(|(_, removed)| removed == element),
                "the index holds every field that has an expiry"
            );
        }
    }

    /// Adds a field that is not there.
    #[inline]
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], expiry: Option<i64>) {
        let hash = self.fields.hash(name);
        self.insert_hashed(hash, name, value, expiry);
    }

    #[inline]
    fn insert_hashed(&mut self, hash: u64, name: &[u8], value: &[u8], expiry: Option<i64>) {
        let element = self
            .fields
            .insert_hashed(hash, ElementBox::field(name, value, expiry));
        self.list(expiry, element);
    }

    #[inline]
    pub(super) fn set(&mut self, name: &[u8], value: &[u8], expiry: FieldExpiry, now_ms: i64) -> bool {
        let hash = self.fields.hash(name);
        let Some(found) = self.fields.find_mut_hashed(hash, name) else {
            self.insert_hashed(hash, name, value, expiry.after(None));
            return true;
        };
        let (old, before) = (found.ptr(), found.get().expiry());
        let expired = before.is_some_and(|at| at < now_ms);
        let after = expiry.after(if expired { None } else { before });
        let new = if after == before {
            found.set_value(value)
        } else {
            found.replace(ElementBox::field(name, value, after)).0
        };
        self.relist(before, old, after, new);
        expired
    }

    /// Follows an element that has become another one or has another expiry.
    #[inline]
    fn relist(&mut self, before: Option<i64>, old: ElementPtr, after: Option<i64>, new: ElementPtr) {
        if before != after || old != new {
            self.unlist(before, old);
            self.list(after, new);
        }
    }

    pub(super) fn remove(&mut self, name: &[u8], now_ms: i64) -> bool {
        let Some(found) = self.fields.find_mut(name) else {
            return false;
        };
        let removed = found.remove();
        let expiry = removed.get().expiry();
        self.unlist(expiry, removed.get().ptr());
        expiry.is_none_or(|at| at >= now_ms)
    }

    pub(super) fn set_expiry(&mut self, name: &[u8], expiry: Option<i64>, now_ms: i64) -> bool {
        let Some(found) = self.fields.find_mut(name) else {
            return false;
        };
        let (old, before) = (found.ptr(), found.get().expiry());
        if before.is_some_and(|at| at < now_ms) {
            return false;
        }
        let new = found.set_expiry(expiry);
        self.relist(before, old, expiry, new);
        true
    }

    pub(super) fn remove_expired(
        &mut self,
        now_ms: i64,
        budget: usize,
        mut visit: impl FnMut(&[u8]),
    ) -> usize {
        let mut removed = 0;
        while removed < budget {
            let Some((_, ptr)) = self.expiries.get(0) else {
                break;
            };
            // SAFETY: elements in the index are elements of the table, alive; nothing frees this one while its name is
            // looked at, nor until it is found in the table.
            let element = unsafe { ptr.as_ref() };
            if element.expiry().is_none_or(|at| at >= now_ms) {
                break;
            }
            visit(element.member());
            self.expiries.remove_at(0);
            let gone = self.fields.remove(element.member());
            debug_assert!(gone.is_some());
            removed += 1;
        }
        removed
    }
}

impl Clone for FieldTable {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.fields.hasher());
        for element in self.iter() {
            copy.insert(element.member(), element.value(), element.expiry());
        }
        copy
    }
}
