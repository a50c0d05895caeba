//! UNSAFE. [`MemberTable`]: the elements of a large set, sorted set or hash, found by their member.
//!
//! It is the keyspace's own table over [`Element`]s: it grows and shrinks one bucket at a time, scans with the guarantee
//! of SCAN, and samples at random.
//!
//! Invariants: every pointer in the table came from an [`ElementBox`] and becomes one again when it leaves; `bytes` is
//! what the elements take. References handed out borrow the table, so that no element is freed or changed under them.

use rand::rngs::SmallRng;

use crate::element::{Element, ElementBox, ElementPtr};
use crate::key::KeyHasher;
use crate::table::TableStats;
use crate::table::raw::{Iter as RawIter, Position, RawTable};

/// A table that owns elements, no two with the same member.
pub(crate) struct MemberTable {
    table: RawTable<ElementPtr>,
    hasher: KeyHasher,
    /// Bytes allocated for elements.
    bytes: usize,
}

impl MemberTable {
    /// An empty table, which has not allocated. Tables with the same hash function share hashes.
    #[inline]
    pub(crate) const fn new(hasher: KeyHasher) -> Self {
        Self {
            table: RawTable::new(),
            hasher,
            bytes: 0,
        }
    }

    /// Number of elements.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes allocated, elements included. O(1).
    pub(crate) fn memory(&self) -> usize {
        self.table.stats().bytes + self.bytes
    }

    /// Size of the table, without the elements.
    pub(crate) fn stats(&self) -> TableStats {
        self.table.stats()
    }

    /// The hash function.
    #[inline]
    pub(crate) fn hasher(&self) -> KeyHasher {
        self.hasher
    }

    /// The hash of a member, good for this table and those with the same hash function.
    #[inline]
    pub(crate) fn hash(&self, member: &[u8]) -> u64 {
        self.hasher.hash(member)
    }

    /// The element of a member.
    #[inline]
    pub(crate) fn find(&self, member: &[u8]) -> Option<Element<'_>> {
        self.find_hashed(self.hash(member), member)
    }

    /// The element of a member whose hash is known.
    #[inline]
    pub(crate) fn find_hashed(&self, hash: u64, member: &[u8]) -> Option<Element<'_>> {
        let (_, ptr) = self.table.find(hash, member)?;
        // SAFETY: alive, and borrowed with the table.
        Some(unsafe { ptr.as_ref() })
    }

    /// The element of a member with the means to change it.
    #[inline]
    pub(crate) fn find_mut(&mut self, member: &[u8]) -> Option<Occupied<'_>> {
        self.find_mut_hashed(self.hash(member), member)
    }

    /// The element of a member whose hash is known, with the means to change it.
    #[inline]
    pub(crate) fn find_mut_hashed(&mut self, hash: u64, member: &[u8]) -> Option<Occupied<'_>> {
        let (position, ptr) = self.table.find(hash, member)?;
        Some(Occupied {
            table: self,
            position,
            ptr,
        })
    }

    /// Adds an element whose member is not there. The pointer stays good until it is removed or replaced.
    #[inline]
    pub(crate) fn insert(&mut self, element: ElementBox) -> ElementPtr {
        let hash = self.hash(element.get().member());
        self.insert_hashed(hash, element)
    }

    /// Adds an element whose member is not there and whose hash is known.
    #[inline]
    pub(crate) fn insert_hashed(&mut self, hash: u64, element: ElementBox) -> ElementPtr {
        debug_assert!(self.find(element.get().member()).is_none());
        debug_assert_eq!(hash, self.hash(element.get().member()));
        self.bytes += element.get().memory();
        let ptr = element.into_ptr();
        // SAFETY: the table owns the element from here on. With a wrong hash it would not be found again, but nothing
        // would dangle.
        unsafe { self.table.insert(hash, ptr, &self.hasher) };
        ptr
    }

    /// Takes an element out.
    #[inline]
    pub(crate) fn remove(&mut self, member: &[u8]) -> Option<ElementBox> {
        self.find_mut(member).map(Occupied::remove)
    }

    /// A random element, each with the same probability. Expected O(1).
    #[inline]
    pub(crate) fn random(&self, rng: &mut SmallRng) -> Option<Element<'_>> {
        // SAFETY: alive, and borrowed with the table.
        self.table.sample(rng).map(|ptr| unsafe { ptr.as_ref() })
    }

    /// A random element as [`MemberTable::random`] picks it, with the means to take it out.
    #[inline]
    pub(crate) fn random_mut(&mut self, rng: &mut SmallRng) -> Option<Occupied<'_>> {
        let element = self.random(rng)?;
        let (hash, ptr) = (self.hash(element.member()), element.ptr());
        let position = self.table.find_entry(hash, ptr)?;
        Some(Occupied {
            table: self,
            position,
            ptr,
        })
    }

    /// Visits some buckets from a cursor on, at most `buckets` of them but at least one; returns the cursor to go on
    /// with, 0 at the end. Every element that is present from the first call to the last is visited at least once.
    pub(crate) fn scan(&self, cursor: u64, buckets: usize, mut visit: impl FnMut(Element<'_>)) -> u64 {
        let mut cursor = cursor as u32;
        for _ in 0..buckets.max(1) {
            // SAFETY: alive, and borrowed with the table.
            cursor = self.table.scan(cursor, |ptr| visit(unsafe { ptr.as_ref() }));
            if cursor == 0 {
                break;
            }
        }
        u64::from(cursor)
    }

    /// All elements, in the table's order.
    #[inline]
    pub(crate) fn iter(&self) -> Iter<'_> {
        Iter(self.table.iter())
    }

    /// Asks for the bucket of a hash, the first of two steps that spare a batch of look-ups from waiting for memory.
    #[inline]
    pub(crate) fn prefetch_bucket(&self, hash: u64) {
        self.table.prefetch_bucket(hash);
    }

    /// Asks for the element of a hash, whose bucket should have arrived.
    #[inline]
    pub(crate) fn prefetch_element(&self, hash: u64) {
        self.table.prefetch_entry(hash);
    }

    /// Frees elements, `budget` of them or a bucket more; returns how many, 0 when there are none left. Until the table
    /// is empty it is good for nothing else.
    pub(crate) fn drain(&mut self, budget: usize) -> usize {
        let mut freed = 0;
        while freed < budget && !self.is_empty() {
            self.table.drain_bucket(|ptr| {
                // SAFETY: the element has left the table.
                drop(unsafe { ElementBox::from_ptr(ptr) });
                freed += 1;
            });
        }
        if self.is_empty() {
            self.bytes = 0;
            // Empty buckets count as well.
            self.table = RawTable::new();
        }
        freed
    }
}

impl Drop for MemberTable {
    fn drop(&mut self) {
        while self.drain(usize::MAX) > 0 {}
    }
}

impl Clone for MemberTable {
    /// Copies every element.
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.hasher);
        for element in self.iter() {
            copy.insert(element.duplicate());
        }
        copy
    }
}

/// An element of a table, found, with the means to change it.
pub(crate) struct Occupied<'a> {
    table: &'a mut MemberTable,
    position: Position,
    ptr: ElementPtr,
}

impl<'a> Occupied<'a> {
    /// The element.
    #[inline]
    pub(crate) fn get(&self) -> Element<'_> {
        // SAFETY: alive; the table is borrowed mutably, and so are we for this.
        unsafe { self.ptr.as_ref() }
    }

    /// The pointer by which trees know it.
    #[inline]
    pub(crate) fn ptr(&self) -> ElementPtr {
        self.ptr
    }

    /// Changes the score of an element that has one.
    #[inline]
    pub(crate) fn set_score(&mut self, score: f64) {
        // SAFETY: alive, and the table is borrowed mutably.
        let had = unsafe { self.ptr.set_score(score) };
        debug_assert!(had, "a member without a score");
    }

    /// Changes the value, keeping the expiry. The pointer may become another one: the new one is returned.
    #[inline]
    pub(crate) fn set_value(self, value: &[u8]) -> ElementPtr {
        // SAFETY: alive, and the table is borrowed mutably.
        if let Some(more) = unsafe { self.ptr.set_value(value) } {
            self.table.bytes = self.table.bytes.wrapping_add_signed(more);
            return self.ptr;
        }
        let element = ElementBox::field(self.get().member(), value, self.get().expiry());
        self.replace(element).0
    }

    /// Sets or clears the expiry. The pointer may become another one: the new one is returned.
    pub(crate) fn set_expiry(self, expiry_ms: Option<i64>) -> ElementPtr {
        // SAFETY: alive, and the table is borrowed mutably.
        let in_place = expiry_ms.is_some_and(|at| unsafe { self.ptr.set_expiry(at) });
        if in_place || (expiry_ms.is_none() && self.get().expiry().is_none()) {
            return self.ptr;
        }
        let Occupied { table, position, ptr } = self;
        // SAFETY: the element is taken out of its place for as long as it takes to build its successor, which stands
        // there before anybody else looks: neither step in between can panic or calls anything that would look.
        unsafe {
            let old = ElementBox::from_ptr(ptr);
            table.bytes -= old.get().memory();
            let new = old.with_expiry(expiry_ms);
            table.bytes += new.get().memory();
            let ptr = new.into_ptr();
            table.table.replace(position, ptr);
            ptr
        }
    }

    /// Puts another element of the same member in the place of this one, which comes back.
    pub(crate) fn replace(self, element: ElementBox) -> (ElementPtr, ElementBox) {
        debug_assert_eq!(element.get().member(), self.get().member());
        let table = self.table;
        table.bytes += element.get().memory();
        let new = element.into_ptr();
        // SAFETY: the position was found in this table, which has not changed since; the new element is the table's from
        // here on, the old one is not any more.
        let old = unsafe {
            table.table.replace(self.position, new);
            ElementBox::from_ptr(self.ptr)
        };
        table.bytes -= old.get().memory();
        (new, old)
    }

    /// Takes the element out.
    #[inline]
    pub(crate) fn remove(self) -> ElementBox {
        // SAFETY: the position was found in this table, which has not changed since; then no table has the element.
        let old = unsafe {
            self.table.table.remove(self.position);
            ElementBox::from_ptr(self.ptr)
        };
        self.table.bytes -= old.get().memory();
        old
    }
}

/// The elements of a table.
pub(crate) struct Iter<'a>(RawIter<'a, ElementPtr>);

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        // SAFETY: alive, and borrowed with the table.
        self.0.next().map(|ptr| unsafe { ptr.as_ref() })
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;
    use crate::memory::thread_balance;

    const HASHER: KeyHasher = KeyHasher::new(5);

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 64 }))]
        #[test]
        fn a_table_behaves_as_a_map(
            steps in proptest::collection::vec((0u16..400, 0u8..6, 0usize..1500, any::<i32>()), 0..600)
        ) {
            let start = thread_balance();
            let mut table = MemberTable::new(HASHER);
            let mut model: HashMap<Vec<u8>, (Vec<u8>, Option<i64>)> = HashMap::new();
            for (n, step, size, at) in steps {
                let member = n.to_string().into_bytes();
                let value = vec![b'v'; if size % 5 == 0 { size } else { size % 20 }];
                let expiry = (at % 3 != 0).then_some(i64::from(at));
                match (step, table.find_mut(&member)) {
                    (0, found) => {
                        let removed = found.map(Occupied::remove);
                        let expected = model.remove(&member);
                        prop_assert_eq!(
                            removed.as_ref().map(|e| (e.get().value().to_vec(), e.get().expiry())),
                            expected
                        );
                    }
                    (1, Some(found)) => {
                        let ptr = found.set_expiry(expiry);
                        prop_assert_eq!(table.find(&member).map(Element::ptr), Some(ptr));
                        model.get_mut(&member).unwrap().1 = expiry;
                    }
                    (_, Some(found)) => {
                        let ptr = found.set_value(&value);
                        prop_assert_eq!(table.find(&member).map(Element::ptr), Some(ptr));
                        model.get_mut(&member).unwrap().0 = value;
                    }
                    (_, None) => {
                        table.insert(ElementBox::field(&member, &value, expiry));
                        model.insert(member, (value, expiry));
                    }
                }
                prop_assert_eq!(table.len(), model.len());
            }
            let copy = table.clone();
            for table in [&table, &copy] {
                let listed: HashMap<_, _> =
                    table.iter().map(|e| (e.member().to_vec(), (e.value().to_vec(), e.expiry()))).collect();
                prop_assert_eq!(&listed, &model);
                prop_assert_eq!(table.iter().len(), model.len());
            }
            prop_assert_eq!(thread_balance() - start, (table.memory() + copy.memory()) as i64);
            drop(copy);
            while table.drain(10) > 0 {}
            prop_assert_eq!((table.memory(), thread_balance()), (0, start));
        }
    }

    #[test]
    fn a_scan_sees_all_that_stays_while_the_table_changes_size() {
        let mut table = MemberTable::new(HASHER);
        for n in 0..2000u32 {
            table.insert(ElementBox::member(&n.to_le_bytes()));
        }
        let (mut seen, mut cursor, mut round) = (HashSet::new(), 0, 0u32);
        loop {
            cursor = table.scan(cursor, 3, |element| {
                seen.insert(element.member().to_vec());
            });
            if cursor == 0 {
                break;
            }
            // The first thousand stay; the rest goes, and others come and go.
            table.remove(&(1000 + round % 1000).to_le_bytes());
            for n in 0..20 {
                table.insert(ElementBox::member(&(10_000 + round * 20 + n).to_le_bytes()));
            }
            round += 1;
            assert!(round < 10_000);
        }
        assert!((0..1000u32).all(|n| seen.contains(&n.to_le_bytes()[..])));
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes too long under Miri")]
    fn random_elements_are_spread_over_all() {
        let mut table = MemberTable::new(HASHER);
        for n in 0..100u32 {
            table.insert(ElementBox::scored(&n.to_le_bytes(), f64::from(n)));
        }
        let mut rng = SmallRng::seed_from_u64(1);
        let mut counts = [0u32; 100];
        for _ in 0..100_000 {
            counts[table.random(&mut rng).unwrap().score() as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (700..1300).contains(count)),
            "{counts:?}"
        );
    }
}
