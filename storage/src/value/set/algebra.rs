//! Intersection, union and difference.
//!
//! Members that have to be looked up in tables are taken in batches: their buckets and then their elements are asked for
//! before the first is compared, so that the waits for memory overlap.

use super::{Form, Set, SetLimits};
use crate::encoding::member_table::MemberTable;
use crate::value::{Encoding, INT_TEXT_MAX, StringRef};

/// Members looked up at a time; the bits of a mask.
const BATCH: usize = 32;
/// Cost of adding a member to a table, in look-ups.
const INSERT_COST: usize = 4;

/// Calls `visit` with the members that all of `sets` have in common, but at most `limit`, in the order of the
/// smallest set; returns their number. Sorts `sets` by size. O(smallest × sets). Without sets there is no such
/// member.
pub fn intersect(sets: &mut [&Set], limit: usize, mut visit: impl FnMut(StringRef<'_>)) -> usize {
    // A stable sort: among sets of equal size, the one given first decides the order of the reply.
    sets.sort_by_key(|set| set.len());
    let Some((smallest, others)) = sets.split_first() else {
        return 0;
    };
    let mut found = 0;
    let mut members = smallest.iter();
    let mut batch = Batch::new();
    while found < limit && batch.fill(&mut members) {
        for other in others {
            batch.retain(other, true);
        }
        for member in batch.left().take(limit - found) {
            visit(member);
            found += 1;
        }
    }
    found
}

/// The intersection as a set of its own, encoded as SINTERSTORE does: as an intset if it is all integers,
/// else as a listpack as long as it is small.
#[must_use]
pub fn intersection(sets: &mut [&Set], limits: &SetLimits) -> Set {
    let smallest = sets.iter().min_by_key(|set| set.len());
    let mut result = match smallest.map(|set| set.encoding()) {
        Some(Encoding::HashTable | Encoding::Listpack) => Set(Form::Packed(Default::default())),
        _ => Set::new(),
    };
    intersect(sets, usize::MAX, |member| {
        result.add_ref(member, limits);
    });
    result.become_intset_if_integers(limits);
    result
}

/// The union of `sets`, in a set of its own. O(all members).
#[must_use]
pub fn union<'a>(sets: impl IntoIterator<Item = &'a Set>, limits: &SetLimits) -> Set {
    let mut result = Set::new();
    for set in sets {
        for member in set {
            result.add_ref(member, limits);
        }
    }
    result
}

/// Number of members in any of `sets`, counted up to `limit`. O(all members).
#[must_use]
pub fn union_len(sets: &[&Set], limit: usize, limits: &SetLimits) -> usize {
    let largest = sets.iter().map(|set| set.len()).max().unwrap_or(0);
    if sets.len() < 2 || largest >= limit {
        return largest.min(limit);
    }
    let mut seen = Set::new();
    for member in sets.iter().flat_map(|set| set.iter()) {
        seen.add_ref(member, limits);
        if seen.len() >= limit {
            return limit;
        }
    }
    seen.len()
}

/// Visits the members of `first` that are in none of `others`, but at most `limit`, in the order of `first`; returns how
/// many. Orders `others` by size.
///
/// O(members of `first` × `others`), or O(all members) where that is less.
pub fn subtract(
    first: &Set,
    others: &mut [&Set],
    limit: usize,
    limits: &SetLimits,
    visit: impl FnMut(StringRef<'_>),
) -> usize {
    if others.iter().any(|other| std::ptr::eq(*other, first)) {
        return 0;
    }
    let all: usize = others.iter().map(|set| set.len()).sum();
    let one_by_one = first.len().saturating_mul(others.len());
    let merged_first = all.saturating_mul(INSERT_COST).saturating_add(first.len());
    if one_by_one <= merged_first {
        // The largest set is searched first: it most likely has the member, which ends the search.
        others.sort_by_key(|set| std::cmp::Reverse(set.len()));
        return subtract_each(first, others, limit, visit);
    }
    let merged = union(others.iter().copied(), limits);
    subtract_each(first, &[&merged], limit, visit)
}

fn subtract_each(first: &Set, others: &[&Set], limit: usize, mut visit: impl FnMut(StringRef<'_>)) -> usize {
    let mut found = 0;
    let mut members = first.iter();
    let mut batch = Batch::new();
    while found < limit && batch.fill(&mut members) {
        for other in others {
            batch.retain(other, false);
        }
        for member in batch.left().take(limit - found) {
            visit(member);
            found += 1;
        }
    }
    found
}

/// The difference as a set of its own.
#[must_use]
pub fn difference(first: &Set, others: &mut [&Set], limits: &SetLimits) -> Set {
    let mut result = Set::new();
    subtract(first, others, usize::MAX, limits, |member| {
        result.add_ref(member, limits);
    });
    result
}

/// Some members, which are gradually eliminated.
struct Batch<'a> {
    members: [StringRef<'a>; BATCH],
    /// A bit for each member that is left.
    mask: u32,
}

const _: () = assert!(BATCH == u32::BITS as usize);

impl<'a> Batch<'a> {
    fn new() -> Self {
        Self {
            members: [StringRef::Bytes(b""); BATCH],
            mask: 0,
        }
    }

    /// Takes the next members; false when there are none.
    fn fill(&mut self, members: &mut impl Iterator<Item = StringRef<'a>>) -> bool {
        self.mask = 0;
        for (at, (slot, member)) in self.members.iter_mut().zip(members).enumerate() {
            *slot = member;
            self.mask |= 1 << at;
        }
        self.mask != 0
    }

    /// The members that are left.
    fn left(&self) -> impl Iterator<Item = StringRef<'a>> {
        Bits(self.mask).map(|at| self.members[at])
    }

    /// Keeps the members that `set` contains if `present`, the others if not.
    fn retain(&mut self, set: &Set, present: bool) {
        if self.mask == 0 {
            return;
        }
        let contained = match &set.0 {
            Form::Table(table) => self.find_in_table(table),
            _ => self.select(|_, member| set.contains_ref(member)),
        };
        self.mask &= if present { contained } else { !contained };
    }

    /// The members that are in `table`, as a mask.
    fn find_in_table(&self, table: &MemberTable) -> u32 {
        let mut scratch = [0; INT_TEXT_MAX];
        let mut hashes = [0; BATCH];
        for at in Bits(self.mask) {
            hashes[at] = table.hash(self.members[at].as_bytes(&mut scratch));
            table.prefetch_bucket(hashes[at]);
        }
        for at in Bits(self.mask) {
            table.prefetch_element(hashes[at]);
        }
        self.select(|at, member| {
            table
                .find_hashed(hashes[at], member.as_bytes(&mut scratch))
                .is_some()
        })
    }

    /// The members for which `holds`, as a mask.
    fn select(&self, mut holds: impl FnMut(usize, StringRef<'a>) -> bool) -> u32 {
        Bits(self.mask)
            .filter(|&at| holds(at, self.members[at]))
            .fold(0, |mask, at| mask | 1 << at)
    }
}

/// The places of the bits that are set.
struct Bits(u32);

impl Iterator for Bits {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let at = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::tests::{LIMITS, member, set_of, text};
    use super::*;
    use crate::memory::thread_balance;

    #[test]
    fn stored_results_are_encoded_as_in_the_reference() {
        let ints = set_of(["1", "2", "3"]);
        let pack = set_of(["1", "2", "a"]);
        let table = set_of(["1", "2", "a", "a member too long"]);
        let wide = set_of((0..40).map(|int| int.to_string()).chain(["a".to_owned()]));
        let encoding = |mut sets: Vec<&Set>| intersection(&mut sets, &LIMITS).encoding();
        assert_eq!(encoding(vec![&ints, &pack]), Encoding::Intset);
        assert_eq!(encoding(vec![&pack, &pack]), Encoding::Listpack);
        assert_eq!(encoding(vec![&table, &wide]), Encoding::Listpack);
        assert_eq!(encoding(vec![&table, &table]), Encoding::HashTable);
        assert_eq!(
            encoding(vec![&wide, &set_of(["9", "a member too long"])]),
            Encoding::Intset
        );
        assert_eq!(union([&ints, &ints], &LIMITS).encoding(), Encoding::Intset);
        assert_eq!(union([&ints, &pack], &LIMITS).encoding(), Encoding::Listpack);
        assert_eq!(union([&ints, &table], &LIMITS).encoding(), Encoding::HashTable);
        assert_eq!(
            difference(&table, &mut [&table], &LIMITS).encoding(),
            Encoding::Intset
        );
        assert_eq!(
            difference(&pack, &mut [&ints], &LIMITS).encoding(),
            Encoding::Listpack
        );
    }

    #[test]
    fn a_limit_ends_the_intersection() {
        let large = set_of((0..100).map(|int| int.to_string()));
        for limit in [0, 1, 31, 32, 33, 100, 101] {
            let mut seen = 0;
            let found = intersect(&mut [&large, &large], limit, |_| seen += 1);
            assert_eq!((found, seen), (limit.min(100), limit.min(100)));
        }
        assert_eq!(intersect(&mut [], 10, |_| panic!("nothing there")), 0);
    }

    #[test]
    fn many_small_sets_are_merged_before_they_are_subtracted() {
        let first = set_of((0..1000).map(|int| int.to_string()));
        let others: Vec<Set> = (0..20)
            .map(|int| set_of([(int * 50).to_string(), "x".into()]))
            .collect();
        let mut others: Vec<&Set> = others.iter().collect();
        let result = difference(&first, &mut others, &LIMITS);
        assert_eq!(result.len(), 980);
        assert!(!result.contains(b"50") && result.contains(b"51"));
    }

    fn sets() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let large = (0i64..100, 1i64..100).prop_map(|(from, len)| {
            (from..from + len)
                .map(|int| int.to_string().into_bytes())
                .collect()
        });
        let small = proptest::collection::vec(member(), 0..12);
        proptest::collection::vec(prop_oneof![small, large], 1..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

        #[test]
        fn they_agree_with_a_model(sets in sets()) {
            let start = thread_balance();
            let models: Vec<BTreeSet<Vec<u8>>> = sets.iter().map(|set| set.iter().cloned().collect()).collect();
            let sets: Vec<Set> = sets.into_iter().map(set_of).collect();
            let members = |set: &Set| set.iter().map(text).collect::<BTreeSet<_>>();
            let (first, others) = models.split_first().unwrap();

            let expected = others.iter().fold(first.clone(), |all, other| &all & other);
            let mut refs: Vec<&Set> = sets.iter().collect();
            prop_assert_eq!(members(&intersection(&mut refs, &LIMITS)), expected);

            let expected = others.iter().fold(first.clone(), |all, other| &all | other);
            prop_assert_eq!(members(&union(&sets, &LIMITS)), expected);

            let expected = others.iter().fold(first.clone(), |all, other| &all - other);
            let mut refs: Vec<&Set> = sets[1..].iter().collect();
            prop_assert_eq!(members(&difference(&sets[0], &mut refs, &LIMITS)), expected);

            drop(refs);
            drop(sets);
            prop_assert_eq!(thread_balance(), start);
        }
    }
}
