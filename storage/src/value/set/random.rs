//! Members picked by chance: SPOP and SRANDMEMBER.

use std::collections::HashSet;

use rand::RngExt;
use rand::rngs::SmallRng;

use super::{Form, Set, SetLimits};
use crate::encoding::intset::Intset;
use crate::encoding::listpack::Listpack;
use crate::value::StringRef;

/// More than this share of a table is picked by walking all of it, less by trying at random until all are different.
const WALK_SHARE: usize = 3;
/// A pop of at least this many times the rest moves the rest instead.
const MOVE_SHARE: usize = 5;

impl Set {
    /// A random member, each with (in a table: nearly) the same probability. O(1), in a pack O(n).
    #[must_use]
    pub fn random(&self, rng: &mut SmallRng) -> Option<StringRef<'_>> {
        if self.is_empty() {
            return None;
        }
        match &self.0 {
            Form::Intset(ints) => ints.get(rng.random_range(0..ints.len())).map(StringRef::Int),
            Form::Packed(pack) => {
                let position = pack.seek(rng.random_range(0..pack.len()).cast_signed())?;
                Some(pack.at(position))
            }
            Form::Table(table) => table
                .random(rng)
                .map(|element| StringRef::Bytes(element.member())),
        }
    }

    /// Visits `count` different members picked at random, or all if there are no more. O(count) in a table of which it
    /// is a small part, else O(n).
    pub fn random_distinct(&self, count: usize, rng: &mut SmallRng, mut visit: impl FnMut(StringRef<'_>)) {
        let len = self.len();
        match &self.0 {
            Form::Table(table) if count < len / WALK_SHARE => {
                let mut seen = HashSet::with_capacity(count);
                while seen.len() < count {
                    let Some(element) = table.random(rng) else {
                        return;
                    };
                    // No two members of a table are the same bytes in memory.
                    if seen.insert(element.member().as_ptr()) {
                        visit(StringRef::Bytes(element.member()));
                    }
                }
            }
            _ => choose(self.iter(), len, count, rng, |member, chosen| {
                if chosen {
                    visit(member);
                }
            }),
        }
    }

    /// Removes a random member, after calling `visit` with it; `None` when there is none. O(1), in a pack or an
    /// intset O(n).
    pub fn pop<R>(&mut self, rng: &mut SmallRng, visit: impl FnOnce(StringRef<'_>) -> R) -> Option<R> {
        if self.is_empty() {
            return None;
        }
        match &mut self.0 {
            Form::Intset(ints) => {
                let index = rng.random_range(0..ints.len());
                ints.remove_at(index).map(|int| visit(StringRef::Int(int)))
            }
            Form::Packed(pack) => {
                let position = pack.seek(rng.random_range(0..pack.len()).cast_signed())?;
                let result = visit(pack.at(position));
                pack.remove(position);
                Some(result)
            }
            Form::Table(table) => {
                let element = table.random_mut(rng)?.remove();
                Some(visit(StringRef::Bytes(element.get().member())))
            }
        }
    }

    /// Removes `count` random members, or all if there are no more, after calling `visit` with each. O(n), or
    /// O(count) in a table of which it is not most.
    pub fn pop_many(
        &mut self,
        count: usize,
        rng: &mut SmallRng,
        limits: &SetLimits,
        mut visit: impl FnMut(StringRef<'_>),
    ) {
        let len = self.len();
        let left = len.saturating_sub(count);
        match &mut self.0 {
            Form::Table(table) if left.saturating_mul(MOVE_SHARE) > count => {
                for _ in 0..count {
                    let Some(occupied) = table.random_mut(rng) else {
                        return;
                    };
                    visit(StringRef::Bytes(occupied.remove().get().member()));
                }
            }
            Form::Table(_) => {
                let mut rest = Self(Form::Packed(Listpack::new()));
                choose(self.iter(), len, count, rng, |member, chosen| {
                    if chosen {
                        visit(member);
                    } else {
                        rest.add_ref(member, limits);
                    }
                });
                *self = rest;
            }
            Form::Packed(pack) => {
                let mut rest = Listpack::with_capacity(pack.byte_len());
                choose(pack.iter(), len, count, rng, |member, chosen| {
                    if chosen {
                        visit(member);
                    } else {
                        rest.push_back_ref(member);
                    }
                });
                rest.shrink_to_fit();
                *pack = rest;
            }
            Form::Intset(ints) => {
                let mut rest = Intset::new();
                choose(ints.iter(), len, count, rng, |int, chosen| {
                    if chosen {
                        visit(StringRef::Int(int));
                    } else {
                        rest.insert(int);
                    }
                });
                *ints = rest;
            }
        }
    }
}

/// Shows every one of `len` items, and for each whether it is among `count` that are chosen, every choice being equally
/// probable.
///
/// Walking once suffices: with `wanted` still to be chosen of `left`, the next is one of them with probability
/// `wanted / left`.
fn choose<T>(
    items: impl Iterator<Item = T>,
    len: usize,
    count: usize,
    rng: &mut SmallRng,
    mut each: impl FnMut(T, bool),
) {
    let (mut wanted, mut left) = (count.min(len), len);
    for item in items {
        let chosen = wanted > 0 && (wanted >= left || rng.random_range(0..left) < wanted);
        wanted -= usize::from(chosen);
        left = left.saturating_sub(1);
        each(item, chosen);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::super::tests::{LIMITS, set_of, text};
    use super::*;
    use crate::value::Encoding;

    /// Sets of ten members in each encoding, and one that is large.
    fn sets() -> Vec<(Set, usize)> {
        let limits = SetLimits {
            listpack_entries: 10,
            ..LIMITS
        };
        let mut packed = Set::new();
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
            packed.add(name.as_bytes(), &limits);
        }
        assert_eq!(packed.encoding(), Encoding::Listpack);
        vec![
            (set_of((0..10).map(|int| int.to_string())), 10),
            (packed, 10),
            (set_of((0..10).map(|int| format!("member {int}"))), 10),
            (set_of((0..100).map(|int| format!("member {int}"))), 100),
        ]
    }

    fn index(set: &Set, member: &[u8]) -> usize {
        set.iter().position(|other| text(other) == member).unwrap()
    }

    #[test]
    fn every_member_is_as_likely_as_any_other() {
        const DRAWS: usize = 200;
        let mut rng = SmallRng::seed_from_u64(11);
        for (set, len) in sets() {
            let mut counts = [vec![0usize; len], vec![0; len], vec![0; len], vec![0; len]];
            for _ in 0..DRAWS * len {
                counts[0][index(&set, &text(set.random(&mut rng).unwrap()))] += 1;
                let popped = set.clone().pop(&mut rng, text).unwrap();
                counts[1][index(&set, &popped)] += 1;
            }
            for _ in 0..DRAWS * 10 {
                set.random_distinct(len / 10, &mut rng, |member| {
                    counts[2][index(&set, &text(member))] += 1;
                });
                set.clone().pop_many(len / 10, &mut rng, &LIMITS, |member| {
                    counts[3][index(&set, &text(member))] += 1;
                });
            }
            for (way, counts) in counts.iter().enumerate() {
                for &count in counts {
                    assert!(
                        (DRAWS / 2..DRAWS * 2).contains(&count),
                        "way {way} of {:?}: {count} times instead of {DRAWS}",
                        set.encoding()
                    );
                }
            }
        }
    }

    #[test]
    fn popping_most_of_a_table_leaves_a_pack() {
        let mut rng = SmallRng::seed_from_u64(5);
        let (large, _) = sets().pop().unwrap();
        for (count, expected) in [
            (99, Encoding::Listpack),
            (92, Encoding::Listpack),
            (91, Encoding::HashTable),
            (50, Encoding::HashTable),
        ] {
            let mut set = large.clone();
            let mut popped = 0;
            set.pop_many(count, &mut rng, &LIMITS, |_| popped += 1);
            assert_eq!(
                (popped, set.len(), set.encoding()),
                (count, 100 - count, expected)
            );
        }
    }

    #[test]
    fn an_empty_set_has_nothing_to_pick() {
        let mut rng = SmallRng::seed_from_u64(5);
        let mut set = Set::new();
        assert!(set.random(&mut rng).is_none() && set.pop(&mut rng, |_| ()).is_none());
        set.pop_many(3, &mut rng, &LIMITS, |_| panic!("nothing there"));
        set.random_distinct(3, &mut rng, |_| panic!("nothing there"));
    }
}
