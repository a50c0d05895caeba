//! [`SortedSet`]: distinct members in the order of their scores, and when a sorted set changes its encoding.
//!
//! A few short members are a pack of pairs (`packed`), everything else a table and a tree that share elements. The
//! thresholds and the moments at which they are looked at are those of Redis 7.2: adding may turn a pack into a table,
//! nothing turns a table back. OBJECT ENCODING calls the table a skiplist, as clients expect.
//!
//! Every range is one of ranks: [`SortedSet::ranks_by_score`] and [`SortedSet::ranks_by_lex`] translate, in O(log n),
//! and counting, reading in either order and removing go on from there.
//!
//! A score is never NaN and never -0.

mod builder;
mod packed;

use std::fmt;
use std::ops::Range;

pub use self::builder::SortedSetBuilder;
use super::{Encoding, StringRef};
use crate::element::ElementBox;
use crate::encoding::listpack::Listpack;
use crate::encoding::member_table::MemberTable;
pub use crate::encoding::order_tree::Order;
pub use crate::encoding::scored_table::Change;
use crate::encoding::scored_table::{self, ScoredTable};
use crate::key::KeyHasher;
use crate::memory::boxed::CountedBox;
use crate::table::TableStats;
use crate::value::INT_TEXT_MAX;

/// Length of a pack beyond which it gets no further member, whatever the thresholds say, bytes.
const PACK_BYTES_MAX: usize = 1 << 30;

/// Thresholds of a packed sorted set, and the hash function of a larger one.
#[derive(Clone, Copy, Debug)]
pub struct SortedSetLimits {
    /// Members a pack may have: `zset-max-listpack-entries`.
    pub listpack_entries: usize,
    /// Bytes a member of a pack may have: `zset-max-listpack-value`.
    pub listpack_value: usize,
    /// Hash function for tables of members.
    pub hasher: KeyHasher,
}

impl SortedSetLimits {
    #[inline]
    fn allow(&self, members: usize, longest: usize) -> bool {
        members <= self.listpack_entries && longest <= self.listpack_value
    }
}

/// One end of a range of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreBound {
    /// The score; may be infinite, not NaN.
    pub score: f64,
    /// Whether that score itself is outside.
    pub exclusive: bool,
}

/// One end of a range of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// Before every member.
    Lowest,
    /// Behind every member.
    Highest,
    /// From or up to this member.
    Inclusive(&'a [u8]),
    /// From or up to this member, without it.
    Exclusive(&'a [u8]),
}

/// Distinct members with scores. An empty one is packed and has allocated nothing.
#[derive(Clone, Default)]
pub struct SortedSet(Form);

#[derive(Clone)]
enum Form {
    Packed(Listpack),
    Table(CountedBox<ScoredTable>),
}

impl Default for Form {
    fn default() -> Self {
        Self::Packed(Listpack::default())
    }
}

const _: () = assert!(size_of::<SortedSet>() <= 24);

impl SortedSet {
    /// An empty sorted set in the encoding for adding, in all, at most `members`, the first of `first_len` bytes.
    #[must_use]
    pub fn for_members(first_len: usize, members: usize, limits: &SortedSetLimits) -> Self {
        if limits.allow(members, first_len) {
            Self::default()
        } else {
            Self::table(limits.hasher)
        }
    }

    /// A sorted set of the pairs in a pack, which becomes a table if there are too many or too long ones, and is sorted
    /// if it is not. `None` when it has no such pairs or a member twice. O(n log n) at most.
    #[must_use]
    pub fn from_listpack(pack: Listpack, limits: &SortedSetLimits) -> Option<Self> {
        let mut members = SortedSetBuilder::new(limits.hasher);
        for pair in packed::pairs(&pack) {
            let (member, score) = pair?;
            let mut scratch = [0; INT_TEXT_MAX];
            members.merge(member.as_bytes(&mut scratch), |_| score);
        }
        if 2 * members.len() != pack.len() {
            return None;
        }
        if limits.allow(members.len(), members.longest()) && packed::is_sorted(&pack) {
            return Some(Self(Form::Packed(pack)));
        }
        Some(members.finish(limits))
    }

    /// An empty sorted set encoded as a table.
    fn table(hasher: KeyHasher) -> Self {
        Self(Form::Table(CountedBox::new(ScoredTable::new(hasher))))
    }

    /// Number of members.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Packed(pack) => pack.len() / 2,
            Form::Table(table) => table.len(),
        }
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Encoding, as OBJECT ENCODING names it.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        match &self.0 {
            Form::Packed(_) => Encoding::Listpack,
            Form::Table(_) => Encoding::SkipList,
        }
    }

    /// The pack, if it is one: member, score, member, score…
    #[must_use]
    pub fn as_listpack(&self) -> Option<&Listpack> {
        match &self.0 {
            Form::Packed(pack) => Some(pack),
            Form::Table(_) => None,
        }
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
            Form::Packed(pack) => pack.memory(),
            Form::Table(table) => CountedBox::<ScoredTable>::memory() + table.memory(),
        }
    }

    /// Number of allocations to free, about. O(1).
    #[must_use]
    pub fn free_cost(&self) -> usize {
        match &self.0 {
            Form::Packed(_) => 1,
            Form::Table(table) => table.free_cost(),
        }
    }

    /// Frees about `budget` allocations and returns how many; 0 when none are left. Until then the sorted set is good for
    /// nothing else.
    pub fn drain(&mut self, budget: usize) -> usize {
        if let Form::Table(table) = &mut self.0 {
            let freed = table.drain(budget);
            if freed > 0 {
                return freed;
            }
        }
        let freed = usize::from(self.memory() > 0);
        *self = Self::default();
        freed
    }

    // ----- reading

    /// The score of a member. O(1), in a pack O(n).
    #[inline]
    #[must_use]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.0 {
            Form::Packed(pack) => packed::find(pack, member).map(|(_, score)| score),
            Form::Table(table) => table.score(member),
        }
    }

    /// Number of members before a member, and its score. O(log n).
    #[inline]
    #[must_use]
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        match &self.0 {
            Form::Packed(pack) => packed::rank(pack, member),
            Form::Table(table) => table.rank(member),
        }
    }

    /// The member of that rank and its score. O(log n).
    #[inline]
    #[must_use]
    pub fn get(&self, rank: usize) -> Option<(StringRef<'_>, f64)> {
        match &self.0 {
            Form::Packed(pack) => packed::iter(pack, rank..rank.checked_add(1)?, Order::Ascending).next(),
            Form::Table(table) => {
                let (member, score) = table.get(rank)?;
                Some((StringRef::Bytes(member), score))
            }
        }
    }

    /// The ranks of the members whose scores are between two bounds. O(log n).
    #[must_use]
    pub fn ranks_by_score(&self, min: ScoreBound, max: ScoreBound) -> Range<usize> {
        let start = self.rank_of_score(min.score, min.exclusive);
        let end = self.rank_of_score(max.score, !max.exclusive);
        start..end.max(start)
    }

    /// Number of members with a lower score; with `or_equal`, the same one counts too.
    fn rank_of_score(&self, score: f64, or_equal: bool) -> usize {
        // The ends need no search.
        match (score, or_equal) {
            (f64::NEG_INFINITY, false) => 0,
            (f64::INFINITY, true) => self.len(),
            _ => match &self.0 {
                Form::Packed(pack) => {
                    packed::rank_by(pack, |other, _| other < score || (or_equal && other == score))
                }
                Form::Table(table) => table.rank_of_score(score, or_equal),
            },
        }
    }

    /// The ranks of the members between two bounds, provided that all scores are equal; some ranks if they are not.
    /// O(log n).
    #[must_use]
    pub fn ranks_by_lex(&self, min: LexBound<'_>, max: LexBound<'_>) -> Range<usize> {
        let start = self.rank_of_lex(min, true);
        let end = self.rank_of_lex(max, false);
        start..end.max(start)
    }

    /// Number of members before a bound: the lower one of a range, or else the upper one, which may be included.
    fn rank_of_lex(&self, bound: LexBound<'_>, lower: bool) -> usize {
        let (member, or_equal) = match bound {
            LexBound::Lowest => return 0,
            LexBound::Highest => return self.len(),
            LexBound::Inclusive(member) => (member, !lower),
            LexBound::Exclusive(member) => (member, lower),
        };
        self.rank_by_member(|other| other < member || (or_equal && other == member))
    }

    fn rank_by_member(&self, before: impl Fn(&[u8]) -> bool) -> usize {
        match &self.0 {
            Form::Packed(pack) => {
                packed::rank_by(pack, |_, member| before(member.as_bytes(&mut [0; INT_TEXT_MAX])))
            }
            Form::Table(table) => table.rank_by_member(before),
        }
    }

    /// The members of a range of ranks, from its start on or, descending, from its end. O(log n) to start.
    #[inline]
    #[must_use]
    pub fn range(&self, ranks: Range<usize>, order: Order) -> Iter<'_> {
        let end = ranks.end.min(self.len());
        let ranks = ranks.start.min(end)..end;
        Iter(match &self.0 {
            Form::Packed(pack) => AnyIter::Packed(packed::iter(pack, ranks, order)),
            Form::Table(table) => AnyIter::Table(table.range(ranks, order)),
        })
    }

    /// All members, lowest first.
    #[inline]
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        self.range(0..usize::MAX, Order::Ascending)
    }

    /// Visits members from a cursor on, about `count` of them but at least a bucket; returns the cursor to go on with, 0
    /// at the end. A member that is there from the first call to the last is visited at least once. A pack is visited as
    /// a whole.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(StringRef<'_>, f64)) -> u64 {
        let Form::Table(table) = &self.0 else {
            self.iter().for_each(|(member, score)| visit(member, score));
            return 0;
        };
        let (mut cursor, mut seen) = (cursor, 0);
        loop {
            cursor = table.scan(cursor, 1, |element| {
                seen += 1;
                visit(StringRef::Bytes(element.member()), element.score());
            });
            if cursor == 0 || seen >= count {
                return cursor;
            }
        }
    }

    // ----- changing

    /// Gives a member the score that `decide` chooses, given its present one; none, and NaN, leave it as it is. O(log
    /// n).
    #[inline]
    pub fn update(
        &mut self,
        member: &[u8],
        limits: &SortedSetLimits,
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Change {
        let decide = |old| {
            decide(old)
                .filter(|score| !score.is_nan())
                .map(without_sign_of_zero)
        };
        match &mut self.0 {
            Form::Table(table) => table.update(member, decide),
            Form::Packed(pack) => {
                let found = packed::find(pack, member);
                let old = found.map(|(_, score)| score);
                let Some(score) = decide(old).filter(|score| old != Some(*score)) else {
                    return Change::None;
                };
                if let Some((at, _)) = found {
                    packed::remove(pack, at);
                    packed::insert(pack, member, score);
                    return Change::Updated;
                }
                self.add(member, score, limits);
                Change::Added
            }
        }
    }

    /// Adds a member that is not there.
    fn add(&mut self, member: &[u8], score: f64, limits: &SortedSetLimits) {
        if let Form::Packed(pack) = &mut self.0 {
            if limits.allow(pack.len() / 2 + 1, member.len())
                && pack.byte_len() + member.len() < PACK_BYTES_MAX
            {
                packed::insert(pack, member, score);
                return;
            }
            self.become_table(limits);
        }
        if let Form::Table(table) = &mut self.0 {
            table.update(member, |_| Some(score));
        }
    }

    /// Gives a member a score.
    #[inline]
    pub fn insert(&mut self, member: &[u8], score: f64, limits: &SortedSetLimits) -> Change {
        self.update(member, limits, |_| Some(score))
    }

    /// Removes a member; returns the score it had. O(log n).
    #[inline]
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match &mut self.0 {
            Form::Packed(pack) => {
                let (at, score) = packed::find(pack, member)?;
                packed::remove(pack, at);
                Some(score)
            }
            Form::Table(table) => table.remove(member),
        }
    }

    /// Removes a range of ranks and shows every entry to `visit` before, in that order. O(count × log n).
    pub fn remove_range(
        &mut self,
        ranks: Range<usize>,
        order: Order,
        mut visit: impl FnMut(StringRef<'_>, f64),
    ) {
        let end = ranks.end.min(self.len());
        let ranks = ranks.start.min(end)..end;
        match &mut self.0 {
            Form::Packed(pack) => {
                packed::iter(pack, ranks.clone(), order).for_each(|(member, score)| visit(member, score));
                pack.remove_range(2 * ranks.start as isize, 2 * ranks.len());
            }
            Form::Table(table) => {
                for removed in 0..ranks.len() {
                    let rank = match order {
                        Order::Ascending => ranks.start,
                        Order::Descending => ranks.end - 1 - removed,
                    };
                    table.remove_at(rank, |member, score| visit(StringRef::Bytes(member), score));
                }
            }
        }
    }

    /// Makes a table of a pack that a command is about to add up to `members` to, if that is more than a pack may have.
    pub fn expect_members(&mut self, members: usize, limits: &SortedSetLimits) {
        if members > limits.listpack_entries && matches!(self.0, Form::Packed(_)) {
            self.become_table(limits);
        }
    }

    /// Makes a table of what is here.
    fn become_table(&mut self, limits: &SortedSetLimits) {
        let mut table = ScoredTable::new(limits.hasher);
        let mut scratch = [0; INT_TEXT_MAX];
        for (member, score) in self.iter() {
            table.push_back(ElementBox::scored(member.as_bytes(&mut scratch), score));
        }
        self.0 = Form::Table(CountedBox::new(table));
    }
}

/// The same number, but 0 for -0: both are equal, and must look equal.
fn without_sign_of_zero(score: f64) -> f64 {
    score + 0.0
}

/// Members with their scores, in order.
pub struct Iter<'a>(AnyIter<'a>);

enum AnyIter<'a> {
    Packed(packed::Iter<'a>),
    Table(scored_table::Iter<'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = (StringRef<'a>, f64);

    #[inline]
    fn next(&mut self) -> Option<(StringRef<'a>, f64)> {
        match &mut self.0 {
            AnyIter::Packed(iter) => iter.next(),
            AnyIter::Table(iter) => {
                let (member, score) = iter.next()?;
                Some((StringRef::Bytes(member), score))
            }
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            AnyIter::Packed(iter) => iter.size_hint(),
            AnyIter::Table(iter) => iter.size_hint(),
        }
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a SortedSet {
    type Item = (StringRef<'a>, f64);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl fmt::Debug for SortedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use proptest::prelude::*;

    use super::*;
    use crate::memory::thread_balance;

    const LIMITS: SortedSetLimits = SortedSetLimits {
        listpack_entries: 20,
        listpack_value: 16,
        hasher: KeyHasher::new(3),
    };

    const INFINITE: [f64; 2] = [f64::NEG_INFINITY, f64::INFINITY];

    fn text(member: StringRef<'_>) -> Vec<u8> {
        member.as_bytes(&mut [0; INT_TEXT_MAX]).to_vec()
    }

    fn of(entries: &[(&str, f64)]) -> SortedSet {
        let mut set = SortedSet::default();
        for (member, score) in entries {
            set.insert(member.as_bytes(), *score, &LIMITS);
        }
        set
    }

    fn list<'a>(entries: impl Iterator<Item = (StringRef<'a>, f64)>) -> Vec<(Vec<u8>, f64)> {
        entries.map(|(member, score)| (text(member), score)).collect()
    }

    /// Entries of a set in order, in both encodings.
    fn both(entries: &[(&str, f64)]) -> [SortedSet; 2] {
        let packed = of(entries);
        assert_eq!(packed.encoding(), Encoding::Listpack);
        let mut table = packed.clone();
        table.become_table(&LIMITS);
        [packed, table]
    }

    #[test]
    fn the_encoding_changes_when_redis_changes_it() {
        let members: Vec<String> = (0..21).map(|n| n.to_string()).collect();
        let mut set = SortedSet::default();
        for (n, member) in members.iter().enumerate() {
            assert_eq!(set.encoding(), Encoding::Listpack, "{n} members");
            set.insert(member.as_bytes(), n as f64, &LIMITS);
        }
        assert_eq!(set.encoding(), Encoding::SkipList);
        set.remove_range(1..21, Order::Ascending, |_, _| {});
        assert_eq!((set.len(), set.encoding()), (1, Encoding::SkipList));

        let mut set = of(&[("0123456789abcdef", 1.0)]);
        assert_eq!(set.encoding(), Encoding::Listpack);
        set.insert(b"0123456789abcdefg", 1.0, &LIMITS);
        assert_eq!(set.encoding(), Encoding::SkipList);

        assert_eq!(
            SortedSet::for_members(16, 20, &LIMITS).encoding(),
            Encoding::Listpack
        );
        assert_eq!(
            SortedSet::for_members(17, 1, &LIMITS).encoding(),
            Encoding::SkipList
        );
        assert_eq!(
            SortedSet::for_members(1, 21, &LIMITS).encoding(),
            Encoding::SkipList
        );
        let mut set = of(&[("a", 1.0)]);
        set.expect_members(20, &LIMITS);
        assert_eq!(set.encoding(), Encoding::Listpack);
        set.expect_members(21, &LIMITS);
        assert_eq!(set.encoding(), Encoding::SkipList);
        assert_eq!(set.score(b"a"), Some(1.0));
    }

    #[test]
    fn a_score_is_neither_nan_nor_minus_zero() {
        for mut set in both(&[("a", -0.0)]) {
            assert!(set.score(b"a").unwrap().is_sign_positive());
            for old in [None, Some(f64::INFINITY)] {
                let change = set.update(b"b", &LIMITS, |score| {
                    assert_eq!(score, None);
                    Some(old.unwrap_or(1.0) * f64::NAN)
                });
                assert_eq!((change, set.len()), (Change::None, 1));
            }
            assert_eq!(set.insert(b"a", f64::NAN, &LIMITS), Change::None);
            assert_eq!(set.insert(b"a", -0.0, &LIMITS), Change::None);
            assert_eq!(set.insert(b"a", f64::NEG_INFINITY, &LIMITS), Change::Updated);
            assert_eq!(set.insert(b"a", -0.0, &LIMITS), Change::Updated);
            assert!(set.get(0).unwrap().1.is_sign_positive());
        }
    }

    #[test]
    fn scores_survive_packing() {
        for score in [
            0.0,
            1.0,
            -1.0,
            0.1,
            1e300,
            -1e-300,
            5e-324,
            9007199254740993.0,
            4.6e18,
            -4.7e18,
            1e19,
            1.5,
            INFINITE[0],
            INFINITE[1],
            f64::MAX,
        ] {
            let set = of(&[("m", score)]);
            assert_eq!(set.score(b"m"), Some(score));
        }
    }

    #[test]
    fn ranges_of_scores_mind_exclusion_and_infinity() {
        let bound = |text: &str| match text.strip_prefix('(') {
            Some(rest) => ScoreBound {
                score: rest.parse().unwrap(),
                exclusive: true,
            },
            None => ScoreBound {
                score: text.parse().unwrap(),
                exclusive: false,
            },
        };
        for set in both(&[
            ("a", INFINITE[0]),
            ("b", 1.0),
            ("c", 1.0),
            ("d", 2.0),
            ("e", INFINITE[1]),
        ]) {
            for (min, max, expected) in [
                ("-inf", "inf", 0..5),
                ("(-inf", "(inf", 1..4),
                ("1", "1", 1..3),
                ("(1", "2", 3..4),
                ("1", "(2", 1..3),
                ("(1", "(2", 3..3),
                ("1.5", "1.7", 3..3),
                ("3", "1", 4..4),
                ("inf", "inf", 4..5),
                ("-inf", "-inf", 0..1),
            ] {
                assert_eq!(
                    set.ranks_by_score(bound(min), bound(max)),
                    expected,
                    "{min} {max}"
                );
            }
        }
    }

    #[test]
    fn ranges_of_members_compare_bytes() {
        use LexBound::{Exclusive, Highest, Inclusive, Lowest};
        for set in both(&[("10", 0.0), ("9", 0.0), ("a", 0.0), ("ab", 0.0), ("b", 0.0)]) {
            for (min, max, expected) in [
                (Lowest, Highest, 0..5),
                (Highest, Lowest, 5..5),
                (Lowest, Lowest, 0..0),
                (Highest, Highest, 5..5),
                (Inclusive(b"9".as_slice()), Exclusive(b"b".as_slice()), 1..4),
                (Exclusive(b"9"), Inclusive(b"b"), 2..5),
                (Inclusive(b"aa"), Inclusive(b"abc"), 3..4),
                (Inclusive(b""), Inclusive(b"1"), 0..0),
            ] {
                assert_eq!(set.ranks_by_lex(min, max), expected, "{min:?} {max:?}");
            }
        }
    }

    #[test]
    fn packs_from_outside_are_checked_and_sorted() {
        let pack = |elements: &[&str]| {
            let mut pack = Listpack::default();
            elements
                .iter()
                .for_each(|element| pack.push_back(element.as_bytes()));
            SortedSet::from_listpack(pack, &LIMITS)
        };
        let sorted = pack(&["b", "1", "10", "2", "9", "2", "a", "inf"]).unwrap();
        assert_eq!(sorted.encoding(), Encoding::Listpack);
        let unsorted = pack(&["9", "2", "a", "inf", "b", "1", "10", "2"]).unwrap();
        assert_eq!(list(sorted.iter()), list(unsorted.iter()));
        let long = pack(&["0123456789abcdefg", "2.5"]).unwrap();
        assert_eq!(long.encoding(), Encoding::SkipList);
        assert_eq!(long.score(b"0123456789abcdefg"), Some(2.5));
        for corrupt in [
            &["a"][..],
            &["a", "1", "b"],
            &["a", "x"],
            &["a", "nan"],
            &["a", "1", "a", "2"],
        ] {
            assert!(pack(corrupt).is_none(), "{corrupt:?}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes too long under Miri")]
    fn a_large_one_is_freed_in_slices() {
        let start = thread_balance();
        let mut set = SortedSet::default();
        for n in 0..10_000u32 {
            set.insert(&n.to_be_bytes(), f64::from(n), &LIMITS);
        }
        let mut left = set.free_cost();
        assert!(left > 10_000);
        loop {
            let freed = set.drain(100);
            if freed == 0 {
                break;
            }
            assert!(freed < 130, "{freed}");
            left = left.saturating_sub(freed);
        }
        assert_eq!((left, set.len(), thread_balance()), (0, 0, start));
    }

    #[test]
    fn scans_see_everything() {
        for count in [5, 3000] {
            let mut set = SortedSet::default();
            for n in 0..count {
                set.insert(n.to_string().as_bytes(), f64::from(n), &LIMITS);
            }
            let (mut seen, mut cursor) = (HashSet::new(), 0);
            loop {
                cursor = set.scan(cursor, 2, |member, score| {
                    assert_eq!(text(member), score.to_string().into_bytes());
                    seen.insert(score as i32);
                });
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(seen.len() as i32, count);
        }
    }

    #[test]
    fn a_builder_merges_and_then_sorts() {
        for (count, encoding) in [(20, Encoding::Listpack), (300, Encoding::SkipList)] {
            let mut builder = SortedSetBuilder::new(LIMITS.hasher);
            for n in (0..count).chain(0..count / 2) {
                builder.merge(n.to_string().as_bytes(), |old| {
                    old.unwrap_or_default() - f64::from(n)
                });
            }
            builder.merge(b"nan", |_| f64::NAN);
            assert!(builder.remove(b"nan") && !builder.remove(b"nan"));
            let set = builder.finish(&LIMITS);
            assert_eq!((set.len(), set.encoding()), (count as usize, encoding));
            assert_eq!(set.score(b"1"), Some(-2.0));
            assert!(set.iter().map(|(_, score)| score).is_sorted());
            assert_eq!(set.rank(b"0"), Some((count as usize - 1, 0.0)));
        }
    }

    fn member() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            8 => (0u8..60).prop_map(|n| n.to_string().into_bytes()),
            2 => prop::collection::vec(b'a'..b'd', 0..3),
            1 => (0u8..5).prop_map(|n| vec![b'x'; 250 + usize::from(n) * 3]),
        ]
    }

    fn score() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (-5i8..5).prop_map(f64::from),
            2 => any::<f64>(),
            1 => prop::sample::select(vec![INFINITE[0], INFINITE[1], 0.5, -0.0]),
        ]
    }

    fn sorted(model: &BTreeMap<Vec<u8>, f64>) -> Vec<(Vec<u8>, f64)> {
        let mut entries: Vec<_> = model
            .iter()
            .map(|(member, score)| (member.clone(), *score))
            .collect();
        entries.sort_by(|a, b| a.1.total_cmp(&b.1));
        entries
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 200 }))]
        #[test]
        fn a_sorted_set_behaves_as_a_sorted_map(
            steps in prop::collection::vec((0u8..8, member(), score(), any::<u8>(), any::<u8>()), 0..120)
        ) {
            let start = thread_balance();
            let mut set = SortedSet::default();
            let mut model: BTreeMap<Vec<u8>, f64> = BTreeMap::new();
            for (step, member, score, from, count) in steps {
                let expected = sorted(&model);
                let ranks = usize::from(from)..usize::from(from) + usize::from(count % 8);
                let within = ranks.start.min(expected.len())..ranks.end.min(expected.len());
                match step {
                    0 => prop_assert_eq!(set.remove(&member), model.remove(&member)),
                    1 => {
                        let mut removed = Vec::new();
                        set.remove_range(ranks, Order::Descending, |member, score| removed.push((text(member), score)));
                        removed.reverse();
                        prop_assert_eq!(&removed, &expected[within]);
                        model.retain(|member, _| removed.iter().all(|(other, _)| other != member));
                    }
                    2 => {
                        let rank = expected.iter().position(|(other, _)| *other == member);
                        prop_assert_eq!(set.rank(&member).map(|(rank, _)| rank), rank);
                        prop_assert_eq!(set.score(&member), model.get(&member).copied());
                        prop_assert_eq!(list(set.range(ranks.clone(), Order::Ascending)), &expected[within.clone()]);
                        let mut descending = list(set.range(ranks, Order::Descending));
                        descending.reverse();
                        prop_assert_eq!(descending, &expected[within.clone()]);
                        let entry = set.get(within.start).map(|(member, score)| (text(member), score));
                        prop_assert_eq!(entry.as_ref(), expected.get(within.start));
                    }
                    _ => {
                        let score = without_sign_of_zero(score);
                        let old = model.insert(member.clone(), score);
                        let change = match old {
                            None => Change::Added,
                            Some(old) if old == score => Change::None,
                            Some(_) => Change::Updated,
                        };
                        prop_assert_eq!(set.insert(&member, score, &LIMITS), change);
                    }
                }
                prop_assert_eq!(set.len(), model.len());
                prop_assert_eq!(thread_balance() - start, set.memory() as i64);
            }
            prop_assert_eq!(list(set.iter()), sorted(&model));
            let copy = set.clone();
            drop(set);
            prop_assert_eq!(list(copy.iter()), sorted(&model));
            prop_assert_eq!(thread_balance() - start, copy.memory() as i64);
            drop(copy);
            prop_assert_eq!(thread_balance(), start);
        }
    }
}
