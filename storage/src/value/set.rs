//! [`Set`]: distinct members, and when a set changes its encoding.
//!
//! Integers alone are an intset, a few short members a pack, everything else a table of members. Thresholds and the
//! moments at which they are looked at are those of Redis 7.2: adding may turn an intset into a pack or a table and a
//! pack into a table; removing turns nothing back, except that popping most of a table's members at once leaves a pack.
//!
//! [`algebra`] has what is computed from several sets, `random` what is picked by chance.

pub mod algebra;
mod random;

use super::{Encoding, INT_TEXT_MAX, StringRef};
use crate::element::ElementBox;
use crate::encoding::intset::{self, Intset};
use crate::encoding::listpack::{self, Listpack};
use crate::encoding::member_table::{self, MemberTable};
use crate::key::KeyHasher;
use crate::memory::boxed::CountedBox;
use crate::number::parse_i64;
use crate::table::TableStats;

/// The most members of an intset, whatever the threshold says.
const INTSET_ENTRIES_MAX: usize = 1 << 30;
/// Length of a pack beyond which it gets no further member, whatever the thresholds say, bytes.
const PACK_BYTES_MAX: usize = 1 << 30;

/// Thresholds of a set's encodings, and the hash function of its table.
#[derive(Clone, Copy, Debug)]
pub struct SetLimits {
    /// Members an intset may have: `set-max-intset-entries`.
    pub intset_entries: usize,
    /// Members a pack may have: `set-max-listpack-entries`.
    pub listpack_entries: usize,
    /// Bytes a member of a pack may have: `set-max-listpack-value`.
    pub listpack_value: usize,
    /// Hash function for tables of members.
    pub hasher: KeyHasher,
}

impl SetLimits {
    #[inline]
    fn allow_intset(&self, members: usize) -> bool {
        members <= self.intset_entries.min(INTSET_ENTRIES_MAX)
    }

    /// Whether a pack of `members` and `bytes` may take one more member of `len` bytes.
    #[inline]
    fn allow_in_pack(&self, members: usize, bytes: usize, len: usize) -> bool {
        members < self.listpack_entries && len <= self.listpack_value && bytes + len < PACK_BYTES_MAX
    }
}

/// Distinct members. An empty set is an intset and has allocated nothing.
#[derive(Clone)]
pub struct Set(Form);

#[derive(Clone)]
enum Form {
    Intset(Intset),
    Packed(Listpack),
    Table(CountedBox<MemberTable>),
}

const _: () = assert!(size_of::<Set>() <= 24);

impl Default for Set {
    fn default() -> Self {
        Self::new()
    }
}

impl Set {
    /// An empty set: an intset, until its members need another encoding.
    #[must_use]
    pub const fn new() -> Self {
        Self(Form::Intset(Intset::new()))
    }

    /// An empty set in the encoding for adding `first` and, in all, at most `members`.
    #[must_use]
    pub fn for_members(first: &[u8], members: usize, limits: &SetLimits) -> Self {
        if parse_i64(first).is_some() && limits.allow_intset(members) {
            Self::new()
        } else if members <= limits.listpack_entries {
            Self(Form::Packed(Listpack::new()))
        } else {
            Self::table(limits.hasher)
        }
    }

    /// A set of the integers of an intset, which becomes a table if there are too many.
    #[must_use]
    pub fn from_intset(ints: Intset, limits: &SetLimits) -> Self {
        let fits = limits.allow_intset(ints.len());
        let mut set = Self(Form::Intset(ints));
        if !fits {
            set.become_table(limits.hasher);
        }
        set
    }

    /// A set of the elements of a pack, which becomes a table if there are too many. `None` when two are equal.
    /// O(members).
    #[must_use]
    pub fn from_listpack(pack: Listpack, limits: &SetLimits) -> Option<Self> {
        let mut scratch = [0; INT_TEXT_MAX];
        let mut table = MemberTable::new(limits.hasher);
        for member in &pack {
            if !insert(&mut table, member.as_bytes(&mut scratch)) {
                return None;
            }
        }
        Some(Self(if table.len() <= limits.listpack_entries {
            Form::Packed(pack)
        } else {
            Form::Table(CountedBox::new(table))
        }))
    }

    /// An empty set encoded as a table.
    fn table(hasher: KeyHasher) -> Self {
        Self(Form::Table(CountedBox::new(MemberTable::new(hasher))))
    }

    /// Number of members.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Intset(ints) => ints.len(),
            Form::Packed(pack) => pack.len(),
            Form::Table(table) => table.len(),
        }
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Form::Intset(ints) => ints.is_empty(),
            Form::Packed(pack) => pack.is_empty(),
            Form::Table(table) => table.is_empty(),
        }
    }

    /// Encoding, as OBJECT ENCODING names it.
    #[inline]
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        match &self.0 {
            Form::Intset(_) => Encoding::Intset,
            Form::Packed(_) => Encoding::Listpack,
            Form::Table(_) => Encoding::HashTable,
        }
    }

    /// The table that it is stored in, where there is one.
    #[inline]
    pub(super) fn member_table(&self) -> Option<&MemberTable> {
        match &self.0 {
            Form::Intset(_) | Form::Packed(_) => None,
            Form::Table(table) => Some(table),
        }
    }

    /// Size of the table, where there is one.
    #[must_use]
    pub fn table_stats(&self) -> Option<TableStats> {
        match &self.0 {
            Form::Intset(_) | Form::Packed(_) => None,
            Form::Table(table) => Some(table.stats()),
        }
    }

    /// The bytes allocated. O(1).
    #[must_use]
    pub fn memory(&self) -> usize {
        match &self.0 {
            Form::Intset(ints) => ints.memory(),
            Form::Packed(pack) => pack.memory(),
            Form::Table(table) => CountedBox::<MemberTable>::memory() + table.memory(),
        }
    }

    /// The intset, while it is one.
    #[must_use]
    pub fn as_intset(&self) -> Option<&Intset> {
        match &self.0 {
            Form::Intset(ints) => Some(ints),
            _ => None,
        }
    }

    /// The pack, while it is one.
    #[must_use]
    pub fn as_listpack(&self) -> Option<&Listpack> {
        match &self.0 {
            Form::Packed(pack) => Some(pack),
            _ => None,
        }
    }

    // ----- reading

    /// Whether `member` is in the set. O(1) in a table, O(log n) in an intset, O(n) in a pack.
    #[inline]
    #[must_use]
    pub fn contains(&self, member: &[u8]) -> bool {
        match &self.0 {
            Form::Intset(ints) => parse_i64(member).is_some_and(|int| ints.contains(int)),
            Form::Packed(pack) => pack.contains(member),
            Form::Table(table) => table.find(member).is_some(),
        }
    }

    /// The same of a member of another set.
    #[must_use]
    pub fn contains_ref(&self, member: StringRef<'_>) -> bool {
        match (&self.0, member) {
            (Form::Intset(ints), StringRef::Int(int)) => ints.contains(int),
            _ => self.contains(member.as_bytes(&mut [0; INT_TEXT_MAX])),
        }
    }

    /// The members: an intset's in ascending order, a pack's in the order they came, a table's in its own.
    #[inline]
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter(match &self.0 {
            Form::Intset(ints) => IterForm::Intset(ints.iter()),
            Form::Packed(pack) => IterForm::Packed(pack.iter()),
            Form::Table(table) => IterForm::Table(table.iter()),
        })
    }

    /// Visits members from a cursor on, about `count` of them but at least a bucket; returns the cursor to go on with, 0
    /// at the end. A member that is there from the first call to the last is visited at least once. An intset or a pack
    /// is visited as a whole.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(StringRef<'_>)) -> u64 {
        let Form::Table(table) = &self.0 else {
            self.iter().for_each(visit);
            return 0;
        };
        let mut cursor = cursor;
        let mut seen = 0;
        // Empty buckets count too, though less, so that a call ends in a table that has become sparse.
        let mut buckets_left = count.saturating_mul(10);
        loop {
            cursor = table.scan(cursor, 1, |element| {
                visit(StringRef::Bytes(element.member()));
                seen += 1;
            });
            buckets_left = buckets_left.saturating_sub(1);
            if cursor == 0 || seen >= count || buckets_left == 0 {
                return cursor;
            }
        }
    }

    // ----- changing

    /// Makes the set ready for `members` more at most: a table if that is more than its encoding may hold, even should
    /// all of them be there already.
    pub fn expect(&mut self, members: usize, limits: &SetLimits) {
        let fits = match &self.0 {
            Form::Intset(_) => limits.allow_intset(members),
            Form::Packed(_) => members <= limits.listpack_entries,
            Form::Table(_) => true,
        };
        if !fits {
            self.become_table(limits.hasher);
        }
    }

    /// Adds `member`; false when it was there.
    #[inline]
    pub fn add(&mut self, member: &[u8], limits: &SetLimits) -> bool {
        match &mut self.0 {
            Form::Table(table) => insert(table, member),
            Form::Packed(pack) => {
                if pack.contains(member) {
                    return false;
                }
                if limits.allow_in_pack(pack.len(), pack.byte_len(), member.len()) {
                    pack.push_back(member);
                } else {
                    insert(self.become_table(limits.hasher), member);
                }
                true
            }
            Form::Intset(_) => match parse_i64(member) {
                Some(int) => self.add_to_intset(int, limits),
                None => {
                    self.add_text_to_intset(member, limits);
                    true
                }
            },
        }
    }

    /// The same of a member of another set.
    #[inline]
    pub fn add_ref(&mut self, member: StringRef<'_>, limits: &SetLimits) -> bool {
        match (&self.0, member) {
            (Form::Intset(_), StringRef::Int(int)) => self.add_to_intset(int, limits),
            _ => self.add(member.as_bytes(&mut [0; INT_TEXT_MAX]), limits),
        }
    }

    fn add_to_intset(&mut self, int: i64, limits: &SetLimits) -> bool {
        let Form::Intset(ints) = &mut self.0 else {
            return self.add_ref(StringRef::Int(int), limits);
        };
        if !ints.insert(int) {
            return false;
        }
        if !limits.allow_intset(ints.len()) {
            self.become_table(limits.hasher);
        }
        true
    }

    /// Adds a member that is no integer: the intset becomes a pack or, if that would not hold all of them, a table.
    #[cold]
    fn add_text_to_intset(&mut self, member: &[u8], limits: &SetLimits) {
        let widest = |ints: &Intset| {
            [ints.min(), ints.max()]
                .into_iter()
                .flatten()
                .map(|int| StringRef::Int(int).len())
                .max()
                .unwrap_or(0)
        };
        if let Form::Intset(ints) = &self.0 {
            let widest = widest(ints);
            // At most eleven bytes for each integer.
            let bytes = ints.len().saturating_mul(11);
            if widest <= limits.listpack_value && limits.allow_in_pack(ints.len(), bytes, member.len()) {
                let mut pack = Listpack::with_capacity(bytes.min(1 << 10));
                ints.iter().for_each(|int| pack.push_back_int(int));
                pack.push_back(member);
                pack.shrink_to_fit();
                self.0 = Form::Packed(pack);
                return;
            }
        }
        insert(self.become_table(limits.hasher), member);
    }

    /// Removes `member`; false when it was not there.
    #[inline]
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.0 {
            Form::Table(table) => table.remove(member).is_some(),
            Form::Packed(pack) => match pack.position(member) {
                Some(position) => {
                    pack.remove(position);
                    true
                }
                None => false,
            },
            Form::Intset(ints) => parse_i64(member).is_some_and(|int| ints.remove(int)),
        }
    }

    /// Makes the set an intset if it holds nothing but integers, and not too many of them.
    fn become_intset_if_integers(&mut self, limits: &SetLimits) {
        if matches!(self.0, Form::Intset(_)) || !limits.allow_intset(self.len()) {
            return;
        }
        let mut ints = Vec::with_capacity(self.len());
        for member in self.iter() {
            match member.to_int() {
                Some(int) => ints.push(int),
                None => return,
            }
        }
        // In ascending order each is appended.
        ints.sort_unstable();
        let mut set = Intset::new();
        for int in ints {
            set.insert(int);
        }
        self.0 = Form::Intset(set);
    }

    /// Turns the set into a table, from any form. O(members), of which there are at most as many as the thresholds allow.
    fn become_table(&mut self, hasher: KeyHasher) -> &mut MemberTable {
        if !matches!(self.0, Form::Table(_)) {
            let mut scratch = [0; INT_TEXT_MAX];
            let mut table = MemberTable::new(hasher);
            for member in self.iter() {
                insert(&mut table, member.as_bytes(&mut scratch));
            }
            self.0 = Form::Table(CountedBox::new(table));
        }
        match &mut self.0 {
            Form::Table(table) => table,
            _ => unreachable!("has just become a table"),
        }
    }

    // ----- freeing

    /// About how many allocations freeing it takes.
    #[must_use]
    pub fn free_cost(&self) -> usize {
        match &self.0 {
            Form::Table(table) => 1 + table.len(),
            _ => 1,
        }
    }

    /// Frees about `budget` members; returns their number, 0 when all are freed. Nothing else may be called from then
    /// on.
    pub fn drain(&mut self, budget: usize) -> usize {
        if let Form::Table(table) = &mut self.0
            && !table.is_empty()
        {
            return table.drain(budget);
        }
        let freed = usize::from(self.memory() > 0);
        *self = Self::new();
        freed
    }
}

/// Adds a member to a table; false when it was there.
#[inline]
fn insert(table: &mut MemberTable, member: &[u8]) -> bool {
    let hash = table.hash(member);
    if table.find_hashed(hash, member).is_some() {
        return false;
    }
    table.insert_hashed(hash, ElementBox::member(member));
    true
}

impl<'a> IntoIterator for &'a Set {
    type Item = StringRef<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The members of a set.
pub struct Iter<'a>(IterForm<'a>);

enum IterForm<'a> {
    Intset(intset::Iter<'a>),
    Packed(listpack::Iter<'a>),
    Table(member_table::Iter<'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = StringRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<StringRef<'a>> {
        match &mut self.0 {
            IterForm::Intset(iter) => iter.next().map(StringRef::Int),
            IterForm::Packed(iter) => iter.next(),
            IterForm::Table(iter) => iter.next().map(|element| StringRef::Bytes(element.member())),
        }
    }

    #[inline]
    fn fold<B, F: FnMut(B, StringRef<'a>) -> B>(self, init: B, mut each: F) -> B {
        match self.0 {
            IterForm::Intset(iter) => iter.fold(init, |all, int| each(all, StringRef::Int(int))),
            IterForm::Packed(iter) => iter.fold(init, each),
            IterForm::Table(iter) => {
                iter.fold(init, |all, element| each(all, StringRef::Bytes(element.member())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::memory::thread_balance;

    pub(super) const LIMITS: SetLimits = SetLimits {
        intset_entries: 12,
        listpack_entries: 8,
        listpack_value: 10,
        hasher: KeyHasher::new(3),
    };

    pub(super) fn text(member: StringRef<'_>) -> Vec<u8> {
        member.as_bytes(&mut [0; INT_TEXT_MAX]).to_vec()
    }

    pub(super) fn set_of<T: AsRef<[u8]>>(members: impl IntoIterator<Item = T>) -> Set {
        let mut set = Set::new();
        for member in members {
            set.add(member.as_ref(), &LIMITS);
        }
        set
    }

    fn numbered(range: std::ops::Range<i64>) -> impl Iterator<Item = String> {
        range.map(|int| int.to_string())
    }

    #[test]
    fn adding_changes_the_encoding_as_in_the_reference() {
        let full = || set_of(numbered(0..8));
        let check = |mut set: Set, member: &[u8], expected: Encoding| {
            let len = set.len();
            assert!(set.add(member, &LIMITS) && !set.add(member, &LIMITS));
            assert_eq!((set.encoding(), set.len()), (expected, len + 1));
            assert!(set.contains(member) && set.iter().count() == len + 1);
        };
        check(set_of(numbered(0..11)), b"11", Encoding::Intset);
        check(set_of(numbered(0..12)), b"12", Encoding::HashTable);
        check(set_of(numbered(0..7)), b"text", Encoding::Listpack);
        check(full(), b"text", Encoding::HashTable);
        check(Set::new(), b"long enough", Encoding::HashTable);
        check(set_of(["1"]), b"long enough", Encoding::HashTable);
        check(set_of(["12345678901"]), b"text", Encoding::HashTable);
        check(set_of(["a", "1"]), b"12345678901", Encoding::HashTable);
        check(
            set_of(["a", "b", "c", "d", "e", "f", "1"]),
            b"8",
            Encoding::Listpack,
        );
        check(
            set_of(["a", "b", "c", "d", "e", "f", "1", "2"]),
            b"8",
            Encoding::HashTable,
        );
        // Members that look like integers but are not spelled as such stay text.
        check(set_of(["1"]), b"01", Encoding::Listpack);
    }

    #[test]
    fn a_new_set_suits_what_is_to_come() {
        let encoding = |first: &str, members| Set::for_members(first.as_bytes(), members, &LIMITS).encoding();
        assert_eq!(encoding("1", 12), Encoding::Intset);
        assert_eq!(encoding("1", 13), Encoding::HashTable);
        assert_eq!(encoding("a", 8), Encoding::Listpack);
        assert_eq!(encoding("a", 9), Encoding::HashTable);
        let expecting = |mut set: Set, members| {
            set.expect(members, &LIMITS);
            set.encoding()
        };
        assert_eq!(expecting(set_of(["1"]), 12), Encoding::Intset);
        assert_eq!(expecting(set_of(["1"]), 13), Encoding::HashTable);
        assert_eq!(expecting(set_of(["a"]), 8), Encoding::Listpack);
        assert_eq!(expecting(set_of(["a"]), 9), Encoding::HashTable);
    }

    #[test]
    fn removing_changes_no_encoding() {
        let mut set = set_of(numbered(0..100));
        assert_eq!(set.encoding(), Encoding::HashTable);
        for member in numbered(0..100) {
            assert!(set.remove(member.as_bytes()) && !set.remove(member.as_bytes()));
        }
        assert_eq!((set.encoding(), set.is_empty()), (Encoding::HashTable, true));
        let mut set = set_of(["a", "1"]);
        assert!(set.remove(b"a") && !set.remove(b"x"));
        assert_eq!(set.encoding(), Encoding::Listpack);
        let mut set = set_of(["1"]);
        assert!(!set.remove(b"x") && !set.remove(b"01") && set.remove(b"1"));
    }

    #[test]
    fn encoded_sets_are_taken_over_unless_they_are_too_large() {
        let limits = SetLimits {
            intset_entries: 2,
            listpack_entries: 2,
            ..LIMITS
        };
        for (count, small) in [(2, true), (3, false)] {
            let mut ints = Intset::new();
            let mut pack = Listpack::new();
            for int in 0..count {
                ints.insert(int);
                pack.push_back_int(int);
            }
            let from_ints = Set::from_intset(ints, &limits);
            let from_pack = Set::from_listpack(pack.clone(), &limits).unwrap();
            assert_eq!(from_ints.as_intset().is_some(), small);
            assert_eq!(from_pack.as_listpack().is_some(), small);
            assert_eq!(
                (from_ints.len(), from_pack.len()),
                (count as usize, count as usize)
            );
            pack.push_back(b"0");
            assert!(Set::from_listpack(pack, &limits).is_none());
        }
    }

    #[test]
    fn a_large_set_is_freed_in_slices() {
        let start = thread_balance();
        let mut set = set_of(numbered(0..1000));
        let cost = set.free_cost();
        assert!(cost > 1000);
        let (mut freed, mut slices) = (0, 0);
        loop {
            match set.drain(10) {
                0 => break,
                some => freed += some,
            }
            slices += 1;
        }
        assert_eq!((freed, slices > 50), (cost, true));
        assert_eq!(thread_balance(), start);
        let mut small = set_of(["1"]);
        assert_eq!((small.free_cost(), small.drain(10), small.drain(10)), (1, 1, 0));
        assert_eq!(thread_balance(), start);
    }

    #[test]
    fn a_scan_sees_all_members_whatever_is_added_and_removed() {
        let mut set = set_of(numbered(0..500));
        let mut seen = BTreeSet::new();
        let mut cursor = 0;
        for step in 0.. {
            cursor = set.scan(cursor, 10, |member| {
                seen.insert(text(member));
            });
            if cursor == 0 {
                break;
            }
            assert!(step < 1000);
            for other in numbered(1000 + step * 40..1040 + step * 40) {
                if step < 20 {
                    set.add(other.as_bytes(), &LIMITS);
                } else {
                    set.remove(other.as_bytes());
                }
            }
        }
        assert!(numbered(0..500).all(|member| seen.contains(member.as_bytes())));
        let small = set_of(["a", "b"]);
        let mut count = 0;
        assert_eq!((small.scan(0, 1, |_| count += 1), count), (0, 2));
    }

    pub(super) fn member() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            6 => (-15i64..15).prop_map(|int| int.to_string().into_bytes()),
            2 => "[a-e]{0,2}".prop_map(String::into_bytes),
            1 => "[a-b]{9,12}".prop_map(String::into_bytes),
            1 => (0i64..4).prop_map(|int| (int + 99_999_999_999).to_string().into_bytes()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

        #[test]
        fn it_behaves_as_a_set(
            steps in proptest::collection::vec((0u8..12, 0usize..20, member()), 0..60),
            seed: u64,
        ) {
            let start = thread_balance();
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut set = Set::new();
            let mut model: BTreeSet<Vec<u8>> = BTreeSet::new();
            for (step, n, member) in steps {
                match step {
                    0..6 => prop_assert_eq!(set.add(&member, &LIMITS), model.insert(member.clone())),
                    6 | 7 => prop_assert_eq!(set.remove(&member), model.remove(&member)),
                    8 => {
                        let popped = set.pop(&mut rng, text);
                        prop_assert_eq!(popped.is_some(), !model.is_empty());
                        prop_assert!(popped.is_none_or(|popped| model.remove(&popped)));
                    }
                    9 => {
                        let wanted = n.min(model.len());
                        let mut popped = 0;
                        set.pop_many(n, &mut rng, &LIMITS, |member| {
                            assert!(model.remove(&text(member)));
                            popped += 1;
                        });
                        prop_assert_eq!(popped, wanted);
                    }
                    10 => {
                        let mut picked = BTreeSet::new();
                        let mut times = 0;
                        set.random_distinct(n, &mut rng, |member| {
                            picked.insert(text(member));
                            times += 1;
                        });
                        prop_assert_eq!((times, picked.len()), (n.min(model.len()), n.min(model.len())));
                        prop_assert!(picked.is_subset(&model));
                        let one = set.random(&mut rng).map(text);
                        prop_assert_eq!(one.is_some(), !model.is_empty());
                        prop_assert!(one.is_none_or(|one| model.contains(&one)));
                    }
                    _ => set.become_intset_if_integers(&LIMITS),
                }
                prop_assert_eq!(set.contains(&member), model.contains(&member));
                prop_assert_eq!(set.len(), model.len());
                prop_assert_eq!(set.is_empty(), model.is_empty());
                prop_assert_eq!(set.iter().map(text).collect::<BTreeSet<_>>(), model.clone());
                let mut folded = 0;
                set.iter().for_each(|member| folded += usize::from(model.contains(&text(member))));
                prop_assert_eq!(folded, model.len());
                prop_assert_eq!(thread_balance() - start, set.memory() as i64);
                let twin = set.clone();
                prop_assert!(twin.encoding() == set.encoding() && twin.len() == set.len());
            }
            drop(set);
            prop_assert_eq!(thread_balance(), start);
        }
    }
}
