//! Streams against plain models, and what Redis is known to do.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::memory::thread_balance;
use crate::value::INT_TEXT_MAX;

const LIMITS: StreamLimits = StreamLimits {
    block_bytes: 4096,
    block_entries: 10,
};

type Words = Vec<Vec<u8>>;

fn words(item: Item<'_>) -> Words {
    let text = |value: crate::value::StringRef<'_>| value.as_bytes(&mut [0; INT_TEXT_MAX]).to_vec();
    assert_eq!(item.fields().len(), item.len());
    item.fields()
        .flat_map(|(field, value)| [text(field), text(value)])
        .collect()
}

fn add(log: &mut Log, ms: u64, seq: u64, words: &[&str]) -> Result<(), AppendError> {
    log.append(
        StreamId::new(ms, seq),
        words.iter().map(|word| word.as_bytes()),
        &LIMITS,
    )
}

fn numbered(count: u64) -> Stream {
    let mut stream = Stream::default();
    for n in 1..=count {
        add(stream.log_mut(), n, 0, &["f", "v"]).unwrap();
    }
    stream
}

fn ids(log: &Log) -> Vec<u64> {
    log.range(StreamId::MIN, StreamId::MAX, Order::Ascending)
        .map(|item| item.id.ms)
        .collect()
}

#[test]
fn ids_only_grow() {
    let mut stream = Stream::default();
    let log = stream.log_mut();
    assert_eq!(add(log, 0, 0, &["a", "b"]), Err(AppendError::IdNotAbove));
    assert_eq!(add(log, 5, 0, &["a", "b"]), Ok(()));
    assert_eq!(add(log, 5, 0, &["a", "b"]), Err(AppendError::IdNotAbove));
    assert_eq!(add(log, 4, 9, &["a", "b"]), Err(AppendError::IdNotAbove));
    assert!(log.delete(StreamId::new(5, 0)) && log.is_empty());
    assert_eq!((log.blocks(), log.first_id()), (0, StreamId::MIN));
    assert_eq!(add(log, 5, 0, &["a", "b"]), Err(AppendError::IdNotAbove));
    assert_eq!(add(log, 5, 1, &["a", "b"]), Ok(()));
    assert_eq!((log.entries_added(), log.first_id()), (2, StreamId::new(5, 1)));
    assert_eq!(log.max_deleted_id(), StreamId::new(5, 0));
}

#[test]
fn an_approximate_trim_takes_whole_blocks_within_its_limit() {
    let trim = |to, limit| Trim {
        to,
        approximate: true,
        limit,
    };
    let from = |ms| TrimTo::From(StreamId::new(ms, 0));
    for (how, left) in [
        (trim(TrimTo::Length(31), 0), 35),
        (trim(TrimTo::Length(15), 0), 15),
        (trim(TrimTo::Length(0), 0), 0),
        (trim(TrimTo::Length(0), 20), 15),
        (trim(TrimTo::Length(0), 9), 35),
        (trim(TrimTo::Length(36), 0), 35),
        (trim(from(10), 0), 35),
        (trim(from(11), 0), 25),
        (trim(from(100), 25), 15),
    ] {
        let mut stream = numbered(35);
        let removed = stream.trim(how, References::Keep).count;
        assert_eq!((removed, stream.len() as u64), (35 - left, left), "{how:?}");
        assert_eq!(ids(stream.log()), (36 - left..=35).collect::<Vec<_>>());
    }
}

/// A stream of 35 entries in blocks of ten, of which a group has read the first 25 and acknowledged those that are even.
fn half_acknowledged() -> Stream {
    let mut stream = numbered(35);
    stream.add_group(b"group", StreamId::new(25, 0), None);
    let (_, group) = stream.group_mut(b"group").unwrap();
    let (consumer, _) = group.make_consumer(b"consumer", 0);
    for ms in (1..=25).step_by(2) {
        group.assign(Pending {
            id: StreamId::new(ms, 0),
            consumer,
            delivered_ms: 0,
            deliveries: 1,
        });
    }
    stream
}

#[test]
fn trimming_may_leave_what_groups_refer_to() {
    let length = |len| TrimTo::Length(len);
    let from = |ms| TrimTo::From(StreamId::new(ms, 0));
    // Target of the trim, whether it is approximate, its limit, and the ids of the removed entries.
    let rows: [(TrimTo, bool, u64, Vec<u64>); 8] = [
        (length(33), false, 0, vec![2, 4]),
        (length(25), false, 0, (2..=20).step_by(2).collect()),
        (length(0), false, 0, (2..=24).step_by(2).collect()),
        (from(12), false, 0, vec![2, 4, 6, 8, 10]),
        (from(12), true, 0, vec![2, 4, 6, 8, 10]),
        (length(0), true, 0, (2..=24).step_by(2).collect()),
        (length(0), true, 10, vec![2, 4, 6, 8, 10]),
        (length(0), true, 4, vec![]),
    ];
    for (to, approximate, limit, gone) in rows {
        let mut stream = half_acknowledged();
        let trim = Trim {
            to,
            approximate,
            limit,
        };
        let trimmed = stream.trim(trim, References::Respect);
        let left: Vec<u64> = (1..=35).filter(|ms| !gone.contains(ms)).collect();
        assert_eq!(ids(stream.log()), left, "{trim:?}");
        assert_eq!(trimmed.count, gone.len() as u64);
        assert_eq!(trimmed.last.ms, gone.last().copied().unwrap_or(0));
        assert_eq!(stream.group(b"group").unwrap().pending_len(), 13);
    }
}

#[test]
fn trimming_may_take_the_references_with_it() {
    let mut stream = half_acknowledged();
    let trim = Trim {
        to: TrimTo::Length(20),
        approximate: false,
        limit: 0,
    };
    assert_eq!(stream.trim(trim, References::Remove).count, 15);
    let pending = |stream: &Stream| {
        let group = stream.group(b"group").unwrap();
        group
            .pending_from(StreamId::MIN)
            .map(|pending| pending.id.ms)
            .collect::<Vec<_>>()
    };
    assert_eq!(pending(&stream), [17, 19, 21, 23, 25]);
    assert_eq!(
        stream
            .trim(
                Trim {
                    to: TrimTo::Length(0),
                    ..trim
                },
                References::Keep
            )
            .count,
        20
    );
    assert_eq!(pending(&stream), [17, 19, 21, 23, 25]);
}

#[test]
fn a_block_ends_when_it_is_full_of_bytes_too() {
    let mut stream = Stream::default();
    for n in 1..=20 {
        add(stream.log_mut(), n, 0, &["field", &"x".repeat(1000)]).unwrap();
    }
    assert_eq!(stream.log().blocks(), 5);
    let mut unlimited = Stream::default();
    let limits = StreamLimits {
        block_bytes: 0,
        block_entries: 0,
    };
    for n in 1..=500 {
        let words = [&b"field"[..], b"value"].into_iter();
        unlimited
            .log_mut()
            .append(StreamId::new(n, 0), words, &limits)
            .unwrap();
    }
    assert_eq!(unlimited.log().blocks(), 1);
}

#[test]
fn an_entry_of_more_than_a_block_is_refused() {
    let (mut stream, word) = (Stream::default(), vec![b'x'; 1 << 20]);
    let words = std::iter::repeat_n(&word[..], 1026);
    let id = StreamId::new(1, 0);
    assert_eq!(
        stream.log_mut().append(id, words, &LIMITS),
        Err(AppendError::TooLarge)
    );
    assert_eq!((stream.len(), stream.log().last_id()), (0, StreamId::MIN));
}

#[test]
fn the_lag_of_a_group_is_told_where_it_can_be() {
    let id = |ms| StreamId::new(ms, 0);
    let mut stream = numbered(20);
    let log = stream.log_mut();
    assert_eq!(log.lag(id(5), Some(5)), Some(15));
    assert_eq!(log.lag(id(5), None), None);
    assert_eq!(log.lag(id(0), None), Some(20));
    assert_eq!(log.lag(id(1), None), Some(19));
    assert_eq!(log.lag(id(20), None), Some(0));
    assert_eq!(log.lag(id(21), None), None);
    assert!(log.delete(id(7)));
    assert_eq!(log.lag(id(5), Some(5)), None);
    assert_eq!(log.lag(id(8), Some(8)), Some(12));
    log.trim(
        Trim {
            to: TrimTo::Length(10),
            approximate: false,
            limit: 0,
        },
        |_| true,
    );
    assert_eq!((log.lag(id(3), None), log.lag(id(11), None)), (Some(10), Some(9)));
    assert_eq!(Stream::default().log().lag(id(9), None), Some(0));
}

#[test]
fn a_large_one_is_freed_in_slices() {
    let start = thread_balance();
    let mut stream = numbered(5000);
    for name in ["a", "b"] {
        assert!(stream.add_group(name.as_bytes(), StreamId::MIN, Some(0)));
        let (_, group) = stream.group_mut(name.as_bytes()).unwrap();
        for n in 1..=5000 {
            let (consumer, _) = group.make_consumer(format!("{}", n % 50).as_bytes(), 0);
            group.assign(Pending {
                id: StreamId::new(n, 0),
                delivered_ms: 1,
                deliveries: 1,
                consumer,
            });
        }
    }
    let cost = stream.free_cost();
    assert!(cost > 500 + 2 * (78 + 50), "{cost}");
    let mut left = cost;
    loop {
        let freed = stream.drain(20);
        if freed == 0 {
            break;
        }
        assert!(freed < 90, "{freed}");
        left = left.saturating_sub(freed);
    }
    assert_eq!(left, 0);
    drop(stream);
    assert_eq!(thread_balance(), start);
}

fn entry() -> impl Strategy<Value = Words> {
    let word = prop_oneof![
        4 => "[ab]".prop_map(String::into_bytes),
        2 => (0u32..5000).prop_map(|n| n.to_string().into_bytes()),
        1 => (0usize..1500).prop_map(|len| vec![b'x'; len]),
    ];
    prop_oneof![
        3 => word.clone().prop_map(|value| vec![b"name".to_vec(), value.clone(), b"n".to_vec(), value]),
        1 => prop::collection::vec((word.clone(), word), 1..4)
            .prop_map(|pairs| pairs.into_iter().flat_map(|(field, value)| [field, value]).collect()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 200 }))]

    #[test]
    fn entries_behave_as_a_sorted_map(
        steps in prop::collection::vec((0u8..12, entry(), 0u64..60, 0u64..60), 0..120)
    ) {
        let start = thread_balance();
        let mut stream = Stream::default();
        let mut model: BTreeMap<StreamId, Words> = BTreeMap::new();
        let (mut last, mut added) = (StreamId::MIN, 0);
        for (step, words_in, a, b) in steps {
            let log = stream.log_mut();
            match step {
                0..=6 => {
                    let id = StreamId::new(last.ms + a % 3, if a % 3 == 0 { last.seq + 1 + b } else { b });
                    let words = words_in.iter().map(Vec::as_slice);
                    prop_assert_eq!(log.append(id, words, &LIMITS), Ok(()));
                    model.insert(id, words_in);
                    (last, added) = (id, added + 1);
                }
                7 | 8 => {
                    let id = model.keys().nth(a as usize).copied().unwrap_or(StreamId::new(a, b));
                    prop_assert_eq!(log.delete(id), model.remove(&id).is_some());
                }
                9 => {
                    let approximate = b % 2 == 0;
                    let length = model.len() as u64;
                    let trim = if a % 2 == 0 {
                        Trim { to: TrimTo::Length(a), approximate, limit: 0 }
                    } else {
                        Trim { to: TrimTo::From(StreamId::new(a, 0)), approximate, limit: 0 }
                    };
                    let allowed = match trim.to {
                        TrimTo::Length(len) => length.saturating_sub(len),
                        TrimTo::From(id) => model.range(..id).count() as u64,
                    };
                    let removed = log.trim(trim, |_| true).count;
                    prop_assert!(removed <= allowed);
                    prop_assert!(approximate || removed == allowed);
                    for _ in 0..removed {
                        model.pop_first();
                    }
                }
                _ => {
                    let (from, to) = (StreamId::new(a, b % 3), StreamId::new(b, a % 3));
                    let expected: Vec<_> = if from <= to {
                        model.range(from..=to).map(|(id, words)| (*id, words.clone())).collect()
                    } else {
                        Vec::new()
                    };
                    let read = |order| log.range(from, to, order).map(|item| (item.id, words(item)));
                    prop_assert_eq!(&read(Order::Ascending).collect::<Vec<_>>(), &expected);
                    let mut back: Vec<_> = read(Order::Descending).collect();
                    back.reverse();
                    prop_assert_eq!(back, expected);
                    let found = log.get(from).map(words);
                    prop_assert_eq!(found.as_ref(), model.get(&from));
                }
            }
            let log = stream.log();
            prop_assert_eq!((log.len(), log.last_id(), log.entries_added()), (model.len(), last, added));
            prop_assert_eq!(log.first_id(), model.keys().next().copied().unwrap_or(StreamId::MIN));
            prop_assert_eq!(log.last().map(|item| item.id), model.keys().last().copied());
            prop_assert_eq!(thread_balance() - start, stream.memory() as i64);
        }
        let copy = stream.clone();
        drop(stream);
        let all = copy.log().range(StreamId::MIN, StreamId::MAX, Order::Ascending);
        prop_assert!(all.map(|item| (item.id, words(item))).eq(model));
        drop(copy);
        prop_assert_eq!(thread_balance(), start);
    }

    #[test]
    fn what_is_pending_behaves_as_a_map(
        steps in prop::collection::vec((0u8..8, 0u64..150, 0u8..6), 0..400)
    ) {
        let start = thread_balance();
        let mut stream = Stream::default();
        prop_assert!(stream.add_group(b"g", StreamId::MIN, None) && !stream.add_group(b"g", StreamId::MIN, None));
        let mut model: BTreeMap<StreamId, (String, i64, u64)> = BTreeMap::new();
        let mut names: BTreeMap<String, i64> = BTreeMap::new();
        for (now, (step, n, who)) in (1i64..).zip(steps) {
            let (_, group) = stream.group_mut(b"g").unwrap();
            let (id, name) = (StreamId::new(n, 0), format!("worker-{who}"));
            match step {
                0..=3 => {
                    let (consumer, made) = group.make_consumer(name.as_bytes(), now);
                    prop_assert_eq!(made, !names.contains_key(&name));
                    names.entry(name.clone()).or_insert(now);
                    group.assign(Pending { id, delivered_ms: now, deliveries: n, consumer });
                    model.insert(id, (name, now, n));
                }
                4 | 5 => prop_assert_eq!(group.acknowledge(id), model.remove(&id).is_some()),
                6 => {
                    group.set_delivery(id, now, n + 1);
                    model.entry(id).and_modify(|known| (known.1, known.2) = (now, n + 1));
                }
                _ => {
                    let theirs = model.values().filter(|known| known.0 == name).count();
                    let expected = names.remove(&name).map(|_| theirs);
                    prop_assert_eq!(group.remove_consumer(name.as_bytes()), expected);
                    model.retain(|_, known| known.0 != name);
                }
            }
            let group = stream.group(b"g").unwrap();
            prop_assert_eq!(group.pending_len(), model.len());
            prop_assert_eq!(group.consumers_len(), names.len());
            prop_assert_eq!(group.pending_ends(), model.keys().next().copied().zip(model.keys().last().copied()));
            let seen = group.pending_from(StreamId::MIN).map(|pending| {
                let consumer = group.consumer(pending.consumer).unwrap();
                let name = String::from_utf8(consumer.name().to_vec()).unwrap();
                (pending.id, (name, pending.delivered_ms, pending.deliveries))
            });
            prop_assert!(seen.eq(model.clone()));
            for ((_, consumer), (name, since)) in group.consumers().zip(&names) {
                prop_assert_eq!((consumer.name(), consumer.seen_ms), (name.as_bytes(), *since));
                let theirs = model.iter().filter(|(_, known)| known.0 == *name).map(|(id, _)| *id);
                prop_assert!(consumer.pending_from(StreamId::MIN).eq(theirs.clone()));
                prop_assert_eq!(consumer.pending_len(), theirs.count());
            }
            prop_assert_eq!(stream.is_referenced(id), group.last_id < id || model.contains_key(&id));
            prop_assert_eq!(thread_balance() - start, stream.memory() as i64);
        }
        let forgotten = stream.forget(StreamId::new(3, 0));
        prop_assert_eq!(forgotten, model.contains_key(&StreamId::new(3, 0)));
        prop_assert_eq!(stream.group(b"g").unwrap().pending(StreamId::new(3, 0)), None);
        prop_assert!(stream.remove_group(b"g") && !stream.remove_group(b"g"));
        drop(stream);
        prop_assert_eq!(thread_balance(), start);
    }
}
