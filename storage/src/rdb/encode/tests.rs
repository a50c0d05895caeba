//! Values out and in again: whole and in steps, of every type and encoding, intact and damaged.

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;
use crate::key::KeyHasher;
use crate::memory::thread_balance;
use crate::rdb::checksum::Checksum;
use crate::rdb::payload::{self, Payload};
use crate::rdb::{Error, Limits};
use crate::value::hash::FieldExpiry;
use crate::value::list::{Direction, End, ListLimits};
use crate::value::stream::{Pending, Stream, StreamId, StreamLimits};
use crate::value::{Collection, INT_TEXT_MAX, Owned, StringRef};

/// Limits so small that a few elements are a large collection.
static LIMITS: LazyLock<Limits> = LazyLock::new(|| {
    let list = ListLimits {
        listpack_size: 4,
        compress_depth: 1,
        packed_threshold: 60,
    };
    Limits::alike(list, 6, 24, KeyHasher::new(3))
});

const STREAM_LIMITS: StreamLimits = StreamLimits {
    block_bytes: 200,
    block_entries: 4,
};

const REDIS: WriteOptions = WriteOptions {
    compress_max: usize::MAX,
    dialect: Dialect::Redis,
};

const VALKEY: WriteOptions = WriteOptions {
    compress_max: 0,
    dialect: Dialect::Valkey,
};

fn text(text: StringRef<'_>) -> String {
    String::from_utf8_lossy(text.as_bytes(&mut [0; INT_TEXT_MAX])).into_owned()
}

/// All that is in a value, in an order of its own for what has none.
fn contents(entry: &Entry) -> Vec<String> {
    let mut found = vec![entry.encoding().name().to_owned()];
    match entry.collection() {
        None => found.extend(entry.string().map(text)),
        Some(CollectionRef::List(list)) => {
            list.range(0, Direction::Forward, usize::MAX, |element| {
                found.push(text(element));
            });
        }
        Some(CollectionRef::Set(set)) => found.extend(set.iter().map(text)),
        Some(CollectionRef::SortedSet(set)) => {
            return set
                .iter()
                .map(|(member, score)| format!("{} {score}", text(member)))
                .collect();
        }
        Some(CollectionRef::Hash(hash)) => found.extend(
            hash.iter(i64::MIN)
                .map(|field| format!("{} {} {:?}", text(field.name), text(field.value), field.expiry)),
        ),
        Some(CollectionRef::Stream(stream)) => return stream_contents(stream),
    }
    if !matches!(entry.collection(), Some(CollectionRef::List(_))) {
        found.sort();
    }
    found
}

fn stream_contents(stream: &Stream) -> Vec<String> {
    let log = stream.log();
    let mut found = vec![format!(
        "{} {} {} {} {} {}",
        log.len(),
        log.blocks(),
        log.first_id(),
        log.last_id(),
        log.max_deleted_id(),
        log.entries_added()
    )];
    for item in log.range(StreamId::MIN, StreamId::MAX, Order::Ascending) {
        let fields: Vec<_> = item
            .fields()
            .map(|(name, value)| (text(name), text(value)))
            .collect();
        found.push(format!("{} {fields:?}", item.id));
    }
    for group in stream.groups() {
        found.push(format!(
            "{:?} {} {:?}",
            group.name(),
            group.last_id,
            group.entries_read
        ));
        for pending in group.pending_from(StreamId::MIN) {
            let owner = group
                .consumer(pending.consumer)
                .map(|owner| owner.name().to_vec());
            found.push(format!(
                "{} {} {} {owner:?}",
                pending.id, pending.delivered_ms, pending.deliveries
            ));
        }
        for (_, consumer) in group.consumers() {
            let ids: Vec<_> = consumer.pending_from(StreamId::MIN).collect();
            found.push(format!("{:?} {} {ids:?}", consumer.name(), consumer.seen_ms));
        }
    }
    found
}

fn read(bytes: &[u8]) -> Result<Owned, String> {
    let payload = Payload::verified(bytes).ok_or("checksum")?;
    payload.value(&LIMITS).map_err(|error| error.to_string())
}

/// A payload of these bytes, type and value.
fn sealed(body: &[u8], version: u16) -> Vec<u8> {
    let summed = [body, &version.to_le_bytes()].concat();
    let sum = Checksum::of(&summed).to_bytes();
    [&summed[..], &sum].concat()
}

fn in_steps(entry: &Entry, options: WriteOptions, budget: usize) -> Vec<u8> {
    let mut writer = ValueWriter::new(options);
    let mut bytes = vec![kind_of(entry, options.dialect)];
    loop {
        let before = bytes.len();
        let is_done = writer.step(entry, &mut bytes, budget);
        assert!(bytes.len() - before <= budget);
        if is_done {
            return bytes;
        }
        assert!(bytes.len() > before, "every step gets further");
    }
}

/// Checks all that holds for any value.
fn check(value: &Owned) {
    let entry = value.entry();
    for options in [REDIS, VALKEY] {
        let bytes = payload::write(entry, options);
        let back = read(&bytes).expect("what was written is read");
        assert_eq!(contents(back.entry()), contents(entry));
        let body = bytes.len() - 10;
        assert_eq!(len(entry, options) + 1, body);
        for budget in [1, 7, 64, 1 << 20] {
            assert!(
                in_steps(entry, options, budget) == bytes[..body],
                "in steps of {budget}"
            );
        }
    }
}

fn collection(value: impl Into<Collection>) -> Owned {
    Owned::collection(value.into(), None)
}

fn a_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..14),
        2 => any::<i64>().prop_map(|int| int.to_string().into_bytes()),
        2 => (-200i64..200).prop_map(|int| int.to_string().into_bytes()),
        1 => (any::<u8>(), 15usize..100).prop_map(|(byte, len)| vec![byte; len]),
        1 => vec(any::<u8>(), 40..80),
    ]
}

fn an_id() -> impl Strategy<Value = StreamId> {
    (1u64..40, 0u64..3).prop_map(|(ms, seq)| StreamId::new(ms, seq))
}

/// A group: name, last id, entries read, and deliveries of entries to consumers.
type GroupPlan = (Vec<u8>, StreamId, Option<u64>, Vec<(StreamId, u8, u64)>);

fn a_stream() -> impl Strategy<Value = Stream> {
    let groups = vec(
        (
            vec(any::<u8>(), 0..4),
            an_id(),
            any::<Option<u64>>().prop_map(|read| read.filter(|read| *read != u64::MAX)),
            vec((an_id(), 0u8..4, 0u64..9), 0..90),
        ),
        0..3,
    );
    let entries = vec((an_id(), vec(a_text(), 1..3), any::<bool>()), 0..40);
    (entries, groups).prop_map(|(entries, groups)| stream_of(entries, groups))
}

fn stream_of(entries: Vec<(StreamId, Vec<Vec<u8>>, bool)>, groups: Vec<GroupPlan>) -> Stream {
    let mut stream = Stream::default();
    for (id, values, goes) in entries {
        let words: Vec<&[u8]> = values.iter().flat_map(|value| [&b"f"[..], value]).collect();
        let is_new = stream
            .log_mut()
            .append(id, words.into_iter(), &STREAM_LIMITS)
            .is_ok();
        if is_new && goes {
            stream.log_mut().delete(id);
        }
    }
    for (name, last_id, read, deliveries) in groups {
        if !stream.add_group(&name, last_id, read) {
            continue;
        }
        let (_, group) = stream.group_mut(&name).unwrap();
        for (id, consumer, deliveries) in deliveries {
            let (consumer, _) = group.make_consumer(&[consumer], 1000 + i64::from(consumer));
            group.assign(Pending {
                id,
                delivered_ms: 77,
                deliveries,
                consumer,
            });
        }
    }
    stream
}

fn a_value() -> impl Strategy<Value = Owned> {
    prop_oneof![
        a_text().prop_map(|bytes| Owned::string(&bytes, None)),
        vec(a_text(), 1..40).prop_map(|elements| {
            let mut list = List::new();
            for element in &elements {
                list.push(End::Back, StringRef::Bytes(element), &LIMITS.list);
            }
            list.settle(&LIMITS.list);
            collection(list)
        }),
        prop_oneof![
            vec(a_text(), 1..30),
            vec(any::<i16>().prop_map(|int| int.to_string().into_bytes()), 1..9)
        ]
        .prop_map(|members| {
            let mut set = Set::new();
            for member in &members {
                set.add(member, &LIMITS.set);
            }
            collection(set)
        }),
        vec((a_text(), any::<f64>()), 1..100).prop_map(|members| {
            let mut set = SortedSet::default();
            for (member, score) in &members {
                let score = if score.is_nan() { f64::INFINITY } else { *score };
                set.insert(member, score, &LIMITS.sorted_set);
            }
            collection(set)
        }),
        vec((a_text(), a_text(), 0i64..50), 1..30).prop_map(|fields| {
            let mut hash = Hash::default();
            for (name, value, expiry) in &fields {
                let expiry = match expiry {
                    0..30 => FieldExpiry::Clear,
                    at => FieldExpiry::At(1_700_000_000_000 + at),
                };
                hash.set(name, value, expiry, i64::MIN, &LIMITS.hash);
            }
            collection(hash)
        }),
        a_stream().prop_map(collection),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 150 }))]

    #[test]
    fn values_come_back_as_they_were(value in a_value()) {
        check(&value);
    }

    #[test]
    fn damaged_values_are_refused_or_are_values(value in a_value(), damage in vec((any::<u16>(), any::<u8>()), 1..4)) {
        let options = if damage[0].1 & 1 == 0 { REDIS } else { VALKEY };
        let whole = payload::write(value.entry(), options);
        let mut body = whole[..whole.len() - 10].to_vec();
        for (at, byte) in damage {
            let at = usize::from(at) % body.len();
            body[at] = byte;
        }
        let before = thread_balance();
        for version in [10, 12, 80] {
            if let Ok(value) = read(&sealed(&body, version)) {
                // Accepted bytes are a value: it can be written, and is accepted again.
                let again = payload::write(value.entry(), options);
                let back = read(&again).expect("an accepted value");
                prop_assert_eq!(contents(back.entry()).len(), contents(value.entry()).len());
            }
        }
        prop_assert_eq!(thread_balance(), before);
    }

    #[test]
    fn no_bytes_cause_a_panic(body in vec(any::<u8>(), 0..60), kind in 0u8..28) {
        for version in [1, 10, 13, 80] {
            let _value = read(&sealed(&[&[kind], &body[..]].concat(), version));
        }
    }
}

#[test]
fn a_value_that_is_cut_anywhere_is_refused() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..60 {
        let value = a_value().new_tree(&mut runner).unwrap().current();
        let whole = payload::write(value.entry(), REDIS);
        for len in 0..whole.len() - 10 {
            assert!(
                read(&sealed(&whole[..len], 10)).is_err(),
                "cut to {len}: {whole:?}"
            );
        }
        assert_eq!(
            read(&sealed(&[&whole[..whole.len() - 10], b"x"].concat(), 12)).unwrap_err(),
            "corrupt data: bytes behind the value"
        );
    }
}

#[test]
fn the_bytes_are_those_of_redis() {
    // Dumps of redis-server 7.0.15.
    let cases: &[(Owned, &[u8])] = &[
        (
            Owned::string(b"v", None),
            b"\x00\x01v\n\x00\x91\x08\xce\xb2\x198\x8a\xce",
        ),
        (
            collection({
                let mut stream = Stream::default();
                let words: [&[u8]; 2] = [b"a", b"b"];
                let id = StreamId::new(1, 1);
                stream
                    .log_mut()
                    .append(id, words.into_iter(), &STREAM_LIMITS)
                    .unwrap();
                stream.log_mut().delete(id);
                stream
            }),
            b"\x13\x00\x00\x01\x01\x00\x00\x01\x01\x01\x00\n\x00\xcd\xa1b\x12\xd3K\xf3\x96",
        ),
    ];
    for (value, bytes) in cases {
        assert_eq!(payload::write(value.entry(), REDIS), *bytes);
        assert_eq!(contents(read(bytes).unwrap().entry()), contents(value.entry()));
    }
}

#[test]
fn checksum_and_version_are_checked() {
    let good = payload::write(Owned::string(b"v", None).entry(), REDIS);
    assert!(Payload::verified(&good).is_some());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 4;
        assert!(Payload::verified(&bad).is_none(), "byte {at}");
        assert!(Payload::verified(&good[..at]).is_none(), "cut to {at}");
    }
    for (version, is_known) in [
        (0, false),
        (1, true),
        (13, true),
        (14, false),
        (79, false),
        (80, true),
        (81, false),
    ] {
        let payload = sealed(b"\x00\x01v", version);
        assert_eq!(Payload::verified(&payload).is_some(), is_known, "{version}");
    }
    // A sum of 0, which some servers take for "not computed", is a wrong sum.
    let mut unsummed = good;
    let len = unsummed.len();
    unsummed[len - 8..].fill(0);
    assert!(Payload::verified(&unsummed).is_none());
}

#[test]
fn only_fields_that_expire_need_another_version() {
    let mut hash = Hash::default();
    hash.set(b"f", b"v", FieldExpiry::At(1_700_000_000_000), 0, &LIMITS.hash);
    let mut value = collection(hash.clone());
    assert_eq!(version_of(value.entry(), Dialect::Redis), 12);
    assert_eq!(version_of(value.entry(), Dialect::Valkey), 80);
    // The pack still has room for expiries, but there is none.
    hash.set_expiry(b"f", None, 0);
    value = collection(hash);
    for options in [REDIS, VALKEY] {
        assert_eq!(version_of(value.entry(), options.dialect), 10);
        assert_eq!(kind_of(value.entry(), options.dialect), kind::HASH);
        let back = read(&payload::write(value.entry(), options)).unwrap();
        assert_eq!(contents(back.entry())[0], "f v None");
    }
}

/// Texts and what becomes of them: the reason for refusal, or the contents.
fn refusal(body: &[u8], version: u16) -> String {
    read(&sealed(body, version)).map_or_else(|error| error, |value| contents(value.entry()).join(" "))
}

#[test]
fn hostile_values_are_refused() {
    const HUGE: &[u8] = b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff";
    let empty = Error::Empty.to_string();
    let short = Error::Short.to_string();
    for kind in [
        kind::LIST,
        kind::SET,
        kind::HASH,
        kind::SORTED_SET_2,
        kind::SORTED_SET,
    ] {
        assert_eq!(refusal(&[kind, 0], 10), empty, "no elements of {kind}");
        assert_eq!(
            refusal(&[&[kind], HUGE].concat(), 10),
            short,
            "too many of {kind}"
        );
    }
    for (body, reason) in [
        // Counts that are texts, and packs that are numbers.
        (&b"\x01\xc1\x00\x00"[..], "a text in the place of a length"),
        (b"\x10\xc0\x05", "a number in the place of a pack"),
        // Twice the same.
        (b"\x02\x02\x01a\x01a", "a member or field twice"),
        (b"\x02\x02\xc0\x05\x015", "a member or field twice"),
        (b"\x04\x02\x01a\x01b\x01a\x01c", "a member or field twice"),
        (
            b"\x05\x02\x01a\0\0\0\0\0\0\0\0\x01a\0\0\0\0\0\0\xf0\x3f",
            "a member or field twice",
        ),
        // Scores that are none.
        (
            b"\x05\x01\x01a\0\0\0\0\0\0\xf8\x7f",
            "a score that is not a number",
        ),
        (b"\x03\x01\x01a\xfd", "a score that is not a number"),
        (b"\x03\x01\x01a\x03nan", "a score that is not a number"),
        // Nodes of lists.
        (b"\x12\x01\x03\x01a", "a node of a list of no known kind"),
        (b"\x12\x01\x01\x00", "an empty node of a list"),
        // Intsets: width, count, order.
        (b"\x0b\x0a\x03\0\0\0\x01\0\0\0\x01\0", "an intset that is none"),
        (b"\x0b\x0a\x02\0\0\0\x02\0\0\0\x01\0", "an intset that is none"),
        (
            b"\x0b\x0c\x02\0\0\0\x02\0\0\0\x02\0\x01\0",
            "an intset that is none",
        ),
        // Modules and types that do not exist.
        (b"\x08\x01a", "a value of no known type"),
        (b"\x1b\x01a", "a value of no known type"),
    ] {
        assert_eq!(refusal(body, 10), format!("corrupt data: {reason}"), "{body:?}");
    }
    assert_eq!(refusal(b"\x07\x01", 10), "not supported: a value of a module");
    // Packs without elements, also as all nodes of a list.
    for body in [
        &b"\x10\x07\x07\0\0\0\0\0\xff"[..],
        b"\x12\x01\x02\x07\x07\0\0\0\0\0\xff",
        b"\x0b\x08\x02\0\0\0\0\0\0\0",
    ] {
        assert_eq!(refusal(body, 10), empty, "{body:?}");
    }
}

#[test]
fn old_and_foreign_types_are_read() {
    for (body, version, expected) in [
        (&b"\x01\x02\x01a\xc0\x05"[..], 1, "listpack a 5"),
        (b"\x03\x02\x01a\x031.5\x01b\xfe", 1, "a 1.5 b inf"),
        (b"\x09\x0b\x01\x03foo\x03\x00bar\xff", 1, "foo bar None listpack"),
        // A list in one ziplist, and a list of ziplists.
        (
            b"\x0a\x10\x10\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\xf2\xff",
            1,
            "listpack a 1",
        ),
        (
            b"\x0e\x01\x10\x10\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\xf2\xff",
            1,
            "listpack a 1",
        ),
        (
            b"\x14\x0d\x0d\0\0\0\x02\0\x81a\x02\x81b\x02\xff",
            11,
            "a b listpack",
        ),
        // Fields with expiries: of Redis 7.4, before its release, and of Valkey 9.
        (
            b"\x18\xe8\x03\0\0\0\0\0\0\x02\x05\x01a\x01b\x00\x01c\x01d",
            12,
            "a b Some(1004) c d None listpackex",
        ),
        (b"\x16\x01\x05\x01a\x01b", 12, "a b Some(5) listpackex"),
        (
            b"\x16\x02\x01a\x01b\x05\0\0\0\0\0\0\0\x01c\x01d\xff\xff\xff\xff\xff\xff\xff\xff",
            80,
            "a b Some(5) c d None listpackex",
        ),
        (
            b"\x19\x05\0\0\0\0\0\0\0\x17\x17\0\0\0\x06\0\x81a\x02\x81b\x02\x05\x01\x81c\x02\x81d\x02\x00\x01\xff",
            12,
            "a b Some(5) c d None listpackex",
        ),
        (
            b"\x17\x0f\x0f\0\0\0\x03\0\x81a\x02\x81b\x02\x05\x01\xff",
            12,
            "a b Some(5) listpackex",
        ),
        // Out of order, and out of range.
        (
            b"\x19\x05\0\0\0\0\0\0\0\x17\x17\0\0\0\x06\0\x81a\x02\x81b\x02\x00\x01\x81c\x02\x81d\x02\x05\x01\xff",
            12,
            "corrupt data: fields that are not in the order of their expiries",
        ),
        (
            b"\x18\0\0\0\0\0\0\x01\0\x01\x02\x01a\x01b",
            12,
            "corrupt data: an expiry of a field out of range",
        ),
        (
            b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\x01\x03\x01a\x01b",
            12,
            "corrupt data: an expiry of a field out of range",
        ),
    ] {
        assert_eq!(refusal(body, version), expected, "{body:?}");
    }
}
