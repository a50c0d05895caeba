//! The packed form of a sorted set: a pack of member, score, member, score…, lowest score first, as Redis keeps it.
//!
//! A score is stored by its shortest text, which the pack keeps as an integer if the score is whole. Everything is O(n),
//! for few members.

use std::cmp::Ordering;
use std::ops::Range;

use super::Order;
use crate::encoding::listpack::{Listpack, Position};
use crate::number::{DoubleText, parse_f64};
use crate::value::{INT_TEXT_MAX, StringRef};

/// A stored score; none if it is not a number.
fn parse_score(stored: StringRef<'_>) -> Option<f64> {
    match stored {
        StringRef::Int(int) => Some(int as f64),
        StringRef::Bytes(text) => parse_f64(text),
    }
}

/// Compares what is stored with a string, by bytes.
fn compare(stored: StringRef<'_>, member: &[u8]) -> Ordering {
    stored.as_bytes(&mut [0; INT_TEXT_MAX]).cmp(member)
}

/// Whether the pack is a sorted set: pairs in strict order, every second element a score.
pub(super) fn is_sorted(pack: &Listpack) -> bool {
    let mut last: Option<(f64, StringRef<'_>)> = None;
    let mut elements = pack.iter();
    while let Some(member) = elements.next() {
        let Some(score) = elements.next().and_then(parse_score) else {
            return false;
        };
        let behind = last.is_none_or(|(before, other)| {
            before < score
                || (before == score && compare(other, member.as_bytes(&mut [0; INT_TEXT_MAX])).is_lt())
        });
        if !behind {
            return false;
        }
        last = Some((score, member));
    }
    true
}

/// Every second element as a score with the one before it; `None` in the place of what is no such pair.
pub(super) fn pairs(pack: &Listpack) -> impl Iterator<Item = Option<(StringRef<'_>, f64)>> {
    let mut elements = pack.iter();
    std::iter::from_fn(move || {
        let member = elements.next()?;
        Some(elements.next().and_then(parse_score).map(|score| (member, score)))
    })
}

/// Position of a member, and its score.
pub(super) fn find(pack: &Listpack, member: &[u8]) -> Option<(Position, f64)> {
    let at = pack.find(pack.first()?, member, 1)?;
    Some((at, read_score(pack, at)))
}

/// The score of the member at `at`.
fn read_score(pack: &Listpack, at: Position) -> f64 {
    let stored = pack.next(at).map(|score| pack.at(score));
    stored.and_then(parse_score).unwrap_or_default()
}

/// Appends an entry.
pub(super) fn push_back(pack: &mut Listpack, member: &[u8], score: f64) {
    pack.push_back(member);
    pack.push_back(DoubleText::new(score).as_bytes());
}

/// Adds a member that is not there.
pub(super) fn insert(pack: &mut Listpack, member: &[u8], score: f64) {
    let mut next = pack.first();
    while let Some(at) = next {
        let other = read_score(pack, at);
        if other > score || (other == score && compare(pack.at(at), member).is_gt()) {
            pack.insert_before(at, DoubleText::new(score).as_bytes());
            pack.insert_before(at, member);
            return;
        }
        next = pack.next(at).and_then(|score| pack.next(score));
    }
    push_back(pack, member, score);
}

/// Removes the entry whose member is at `at`.
pub(super) fn remove(pack: &mut Listpack, at: Position) {
    pack.remove_n(at, 2);
}

/// Number of entries before a member, and its score.
pub(super) fn rank(pack: &Listpack, member: &[u8]) -> Option<(usize, f64)> {
    let (found, score) = find(pack, member)?;
    let mut rank = 0;
    let mut next = pack.first();
    while let Some(at) = next
        && at < found
    {
        rank += 1;
        next = pack.next(at).and_then(|score| pack.next(score));
    }
    Some((rank, score))
}

/// Number of entries that `before` is true for, all of which come before the others.
pub(super) fn rank_by(pack: &Listpack, before: impl Fn(f64, StringRef<'_>) -> bool) -> usize {
    iter(pack, 0..usize::MAX, Order::Ascending)
        .take_while(|(member, score)| before(*score, *member))
        .count()
}

/// The entries of a range of ranks.
pub(super) fn iter(pack: &Listpack, ranks: Range<usize>, order: Order) -> Iter<'_> {
    let end = ranks.end.min(pack.len() / 2);
    let start = ranks.start.min(end);
    let first = match order {
        Order::Ascending => start,
        Order::Descending => end.saturating_sub(1),
    };
    Iter {
        pack,
        at: pack.seek(2 * first as isize),
        left: end - start,
        order,
    }
}

/// Entries of a pack in order.
pub(super) struct Iter<'a> {
    pack: &'a Listpack,
    /// The member that comes next.
    at: Option<Position>,
    left: usize,
    order: Order,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (StringRef<'a>, f64);

    fn next(&mut self) -> Option<(StringRef<'a>, f64)> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at?;
        let (member, behind) = self.pack.at_with_next(at);
        let (score, next) = self.pack.at_with_next(behind?);
        self.at = match self.order {
            Order::Ascending => next,
            Order::Descending => self.pack.prev(at).and_then(|score| self.pack.prev(score)),
        };
        Some((member, parse_score(score).unwrap_or_default()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}
