//! Tests of [`Hash`] against a plain map, in every encoding.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use rand::SeedableRng;

use super::*;
use crate::memory::thread_balance;
use crate::value::INT_TEXT_MAX;

const SMALL: HashLimits = HashLimits {
    listpack_entries: 8,
    listpack_value: 20,
    hasher: KeyHasher::new(11),
};

type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<i64>)>;

fn owned(string: StringRef<'_>) -> Vec<u8> {
    string.as_bytes(&mut [0; INT_TEXT_MAX]).to_vec()
}

fn listed(hash: &Hash, now: i64) -> Model {
    hash.iter(now)
        .map(|field| (owned(field.name), (owned(field.value), field.expiry)))
        .collect()
}

fn visible(model: &Model, now: i64) -> Model {
    let mut model = model.clone();
    model.retain(|_, (_, at)| at.is_none_or(|at| at >= now));
    model
}

fn scanned(hash: &Hash, now: i64) -> Model {
    let (mut model, mut cursor) = (Model::new(), 0);
    loop {
        cursor = hash.scan(cursor, 3, now, |field| {
            model.insert(owned(field.name), (owned(field.value), field.expiry));
        });
        if cursor == 0 {
            return model;
        }
    }
}

fn name(n: u8) -> Vec<u8> {
    if n.is_multiple_of(2) {
        n.to_string().into_bytes()
    } else {
        format!("field:{n}").into_bytes()
    }
}

fn of(names: std::ops::Range<u32>, limits: &HashLimits) -> Hash {
    let mut hash = Hash::default();
    for n in names {
        hash.set(n.to_string().as_bytes(), b"v", FieldExpiry::Clear, 0, limits);
    }
    hash
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 200 }))]
    #[test]
    fn a_hash_behaves_as_a_map(
        entries_max in 2usize..40,
        steps in proptest::collection::vec((0u8..10, 0u8..50, any::<i16>(), 0i64..60), 0..150)
    ) {
        let start = thread_balance();
        let limits = HashLimits { listpack_entries: entries_max, ..SMALL };
        let mut hash = Hash::default();
        let mut model = Model::new();
        let mut now = 0;
        for (step, n, value, at) in steps {
            let name = name(n % 40);
            let value = match value {
                0..=9 => vec![b'x'; value as usize * 200],
                _ => value.to_string().into_bytes(),
            };
            let at = now + 1 + at;
            let before = visible(&model, now).remove(&name);
            match step {
                0..=3 => {
                    let expiry = [FieldExpiry::Clear, FieldExpiry::Keep, FieldExpiry::At(at)][usize::from(step % 3)];
                    prop_assert_eq!(hash.set(&name, &value, expiry, now, &limits), before.is_none());
                    let kept = before.and_then(|(_, at)| at);
                    model.insert(name, (value, expiry.after(kept)));
                }
                4..=5 => {
                    let expiry = (step == 4).then_some(at);
                    prop_assert_eq!(hash.set_expiry(&name, expiry, now), before.is_some());
                    if let Some((value, _)) = before {
                        model.insert(name, (value, expiry));
                    }
                }
                6 => {
                    prop_assert_eq!(hash.remove(&name, now), before.is_some());
                    model.remove(&name);
                }
                7 => {
                    let copy = hash.clone();
                    prop_assert_eq!(copy.encoding(), hash.encoding());
                    hash = copy;
                }
                8 => now += at % 20,
                _ => {
                    let budget = usize::from(n % 5);
                    let hidden = model.len() - visible(&model, now).len();
                    let mut gone = Vec::new();
                    let removed = hash.remove_expired(now, budget, |name| gone.push(owned(name)));
                    prop_assert_eq!(removed, hidden.min(budget));
                    prop_assert_eq!(gone.len(), removed);
                    for name in gone {
                        let (_, at) = model.remove(&name).unwrap();
                        prop_assert!(at.unwrap() < now);
                    }
                }
            }
            prop_assert_eq!(hash.len(), model.len());
            prop_assert_eq!(hash.next_expiry(), model.values().filter_map(|(_, at)| *at).min());
            prop_assert_eq!(hash.memory() as i64, thread_balance() - start);
        }
        let expected = visible(&model, now);
        prop_assert_eq!(hash.visible_len(now), expected.len());
        prop_assert_eq!(&listed(&hash, now), &expected);
        prop_assert_eq!(&listed(&hash, i64::MIN), &model);
        prop_assert_eq!(&scanned(&hash, now), &expected);
        for n in 0..40 {
            let name = name(n);
            prop_assert_eq!(hash.get(&name, now).map(owned), expected.get(&name).map(|(value, _)| value.clone()));
        }
        let mut rng = SmallRng::seed_from_u64(1);
        match hash.random(&mut rng, now) {
            Some(field) => prop_assert!(expected.contains_key(&owned(field.name))),
            None => prop_assert!(expected.is_empty()),
        }
        for count in [0, 1, expected.len() / 2, expected.len(), usize::MAX] {
            let mut chosen = HashSet::new();
            hash.random_distinct(count, &mut rng, now, |field| {
                assert!(expected.contains_key(&owned(field.name)) && chosen.insert(owned(field.name)));
            });
            prop_assert_eq!(chosen.len(), count.min(expected.len()));
        }
        let mut freed = 0;
        let cost = hash.free_cost();
        loop {
            match hash.drain(3) {
                0 => break,
                count => freed += count,
            }
        }
        prop_assert!(freed >= cost.min(1) || model.is_empty());
        prop_assert!(hash.is_empty());
        prop_assert_eq!(thread_balance(), start);
    }

    #[test]
    fn packs_of_any_triples_are_read_in_order(
        triples in proptest::collection::vec((any::<u8>(), any::<u8>(), 0i64..5), 1..12)
    ) {
        let mut pack = Listpack::new();
        for (name, value, at) in &triples {
            pack.push_back_int(i64::from(*name));
            pack.push_back_int(i64::from(*value));
            pack.push_back_int(*at);
        }
        let names: HashSet<u8> = triples.iter().map(|(name, ..)| *name).collect();
        let hash = Hash::from_listpack_ex(&pack, &SMALL);
        prop_assert_eq!(hash.is_some(), names.len() == triples.len());
        if let Some(hash) = hash {
            let expiries = triples.iter().map(|(_, _, at)| *at).filter(|at| *at > 0);
            prop_assert_eq!(hash.next_expiry(), expiries.min());
            prop_assert_eq!(hash.len(), triples.len());
        }
    }
}

#[test]
fn the_encoding_changes_where_redis_changes_it_and_never_back() {
    let mut hash = of(0..8, &SMALL);
    assert_eq!(hash.encoding(), Encoding::Listpack);
    hash.set(b"9", b"v", FieldExpiry::Clear, 0, &SMALL);
    assert_eq!(hash.encoding(), Encoding::HashTable);
    for n in 0..8 {
        assert!(hash.remove(n.to_string().as_bytes(), 0));
    }
    assert_eq!((hash.encoding(), hash.len()), (Encoding::HashTable, 1));

    for (name, value) in [(&[b'f'; 21][..], &b"v"[..]), (b"f", &[b'v'; 21])] {
        let mut hash = of(0..2, &SMALL);
        hash.set(&name[..20.min(name.len())], b"v", FieldExpiry::Clear, 0, &SMALL);
        assert_eq!(hash.encoding(), Encoding::Listpack);
        hash.set(name, value, FieldExpiry::Clear, 0, &SMALL);
        assert_eq!(hash.encoding(), Encoding::HashTable);
    }

    let mut hash = of(0..2, &SMALL);
    hash.set_expiry(b"1", Some(5), 0);
    assert_eq!(hash.encoding(), Encoding::ListpackEx);
    hash.set_expiry(b"1", None, 0);
    assert_eq!(hash.encoding(), Encoding::ListpackEx);

    let mut hash = Hash::default();
    hash.expect_fields(8, &SMALL);
    assert_eq!(hash.encoding(), Encoding::Listpack);
    hash.expect_fields(9, &SMALL);
    assert_eq!(hash.encoding(), Encoding::HashTable);
}

#[test]
#[cfg_attr(miri, ignore = "takes too long under Miri")]
fn random_fields_are_spread_over_the_visible_ones() {
    for limits in [
        SMALL,
        HashLimits {
            listpack_entries: 1000,
            ..SMALL
        },
    ] {
        let mut hash = of(0..40, &limits);
        for n in 0..20u32 {
            hash.set_expiry(n.to_string().as_bytes(), Some(5), 0);
        }
        let mut rng = SmallRng::seed_from_u64(1);
        let mut counts = [0u32; 40];
        let number = |field: Field<'_>| field.name.to_int().unwrap() as usize;
        for _ in 0..10_000 {
            counts[number(hash.random(&mut rng, 10).unwrap())] += 1;
        }
        for _ in 0..2_000 {
            hash.random_distinct(5, &mut rng, 10, |field| counts[number(field)] += 1);
        }
        assert!(counts[..20].iter().all(|count| *count == 0));
        assert!(
            counts[20..].iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
    }
}

#[test]
fn eight_small_fields_take_what_a_pack_takes() {
    let start = thread_balance();
    let limits = HashLimits {
        listpack_entries: 128,
        listpack_value: 64,
        ..SMALL
    };
    let mut hash = Hash::default();
    for n in 0..8 {
        let (name, value) = (format!("field:{n}"), format!("value:{n:08}"));
        hash.set(name.as_bytes(), value.as_bytes(), FieldExpiry::Clear, 0, &limits);
    }
    let bytes = thread_balance() - start;
    assert!(bytes <= 8 * 30, "{bytes} bytes");
}
