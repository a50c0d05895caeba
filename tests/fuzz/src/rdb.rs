//! One run over arbitrary bytes taken for a value or a file, as a client, another server or a disk may bring them: they are
//! refused, or what is read can be written again, is read back the same, and survives being read and changed in any way.
//!
//! The same body runs under the fuzzer and, over seeded data, as a plain test of the `storage` crate.

use shardis_storage::entry::Entry;
use shardis_storage::key::KeyHasher;
use shardis_storage::keyspace::{Keyspace, KeyspaceOptions, Layout};
use shardis_storage::memory::thread_balance;
use shardis_storage::rdb::checksum::Checksum;
use shardis_storage::rdb::file::{FileReader, FileScanner, FileWriter, Header, Item, Part, Record};
use shardis_storage::rdb::payload::{self, Payload};
use shardis_storage::rdb::{Dialect, Limits, WriteOptions};
use shardis_storage::value::hash::{FieldExpiry, Hash};
use shardis_storage::value::list::{Direction, End, List, ListLimits, Side};
use shardis_storage::value::set::Set;
use shardis_storage::value::sorted_set::{Order, SortedSet};
use shardis_storage::value::stream::{Pending, References, Stream, StreamId, StreamLimits, Trim, TrimTo};
use shardis_storage::value::{CollectionRef, Owned, StringRef};

/// Limits so small that a few elements are a large collection.
fn limits() -> Limits {
    let list = ListLimits {
        listpack_size: 4,
        compress_depth: 1,
        packed_threshold: 64,
    };
    Limits::alike(list, 6, 24, KeyHasher::new(7))
}

fn options(plan: u8) -> WriteOptions {
    WriteOptions {
        compress_max: if plan & 1 == 0 { usize::MAX } else { 0 },
        dialect: if plan & 2 == 0 {
            Dialect::Redis
        } else {
            Dialect::Valkey
        },
    }
}

/// Takes `data` for a value: a byte that says how, then type and value, whose version and checksum are made right.
pub(crate) fn check_payload(data: &[u8]) {
    let Some((&plan, body)) = data.split_first() else {
        return;
    };
    let before = thread_balance();
    let version: u16 = if plan & 4 == 0 { 13 } else { 80 };
    let mut bytes = [body, &version.to_le_bytes()].concat();
    bytes.extend(Checksum::of(&bytes).to_bytes());
    let payload = Payload::verified(&bytes).expect("version and checksum are right");
    if let Ok(value) = payload.value(&limits()) {
        let again = payload::write(value.entry(), options(plan));
        let twin = Payload::verified(&again).map(|payload| payload.value(&limits()));
        let twin = twin.expect("a payload").expect("a value that was accepted once");
        assert_eq!(len(twin.entry()), len(value.entry()));
        use_up(value);
    }
    assert_eq!(thread_balance(), before, "memory is left behind");
}

/// Takes `data` for a file, behind a magic and without a checksum that would have to be right.
pub(crate) fn check_file(data: &[u8]) {
    let Some((&plan, records)) = data.split_first() else {
        return;
    };
    let magic: &[u8] = if plan & 4 == 0 { b"REDIS0013" } else { b"VALKEY080" };
    let bytes = [magic, records, &[0xff, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    check_scan(&bytes);
    let reader = FileReader::open(&bytes[..], limits()).expect("the magic is right");
    let mut writer = FileWriter::new(Header::FieldExpiry, options(plan), true);
    let (mut written, mut keys) = (0, Vec::new());
    for item in reader {
        match item {
            Ok(Item::Key(record)) => {
                let mut keyspace = Keyspace::new(KeyspaceOptions {
                    databases: 1,
                    layout: Layout::Single,
                    hasher: KeyHasher::new(1),
                    slot_of: |_| 0,
                });
                let key = keyspace.key(&record.key);
                let entry = keyspace.database_mut(0).insert(&key, record.value, 0);
                writer.key(entry, record.usage);
                while !writer.step(entry, 50) {}
                written += 1;
                keys.push(record.key);
            }
            Ok(_) => {}
            Err(error) => {
                assert!(error.offset <= bytes.len() as u64);
                break;
            }
        }
    }
    let bytes = writer.finish();
    let again = FileReader::open(&bytes[..], limits()).expect("a file");
    let again: Vec<_> = again
        .map(|item| match item {
            Ok(Item::Key(record)) => record.key,
            other => panic!("a file of keys alone: {other:?}"),
        })
        .collect();
    assert_eq!((again.len(), again), (written, keys));
}

/// Checks that whoever scans a file and decodes its values elsewhere finds the same as whoever reads it.
fn check_scan(bytes: &[u8]) {
    let reader = FileReader::open(bytes, limits()).expect("the magic is right");
    let mut read: Vec<_> = reader
        .filter_map(|item| match item {
            Ok(Item::Key(Record { key, .. })) => Some((key, "key")),
            Ok(Item::Skipped { key, .. }) => Some((key, "skipped")),
            Ok(_) => None,
            Err(_) => Some((Vec::new(), "error")),
        })
        .collect();
    read.reverse();
    let mut expect = |key: &[u8], what: &str| {
        let expected = read.pop().map(|(key, what)| (key, what.to_owned()));
        assert_eq!(expected, Some((key.to_vec(), what.to_owned())));
    };
    let mut scanner = FileScanner::open(bytes, true).expect("the magic is right");
    loop {
        let head = match scanner.next_part() {
            Ok(None) => break,
            Ok(Some(Part::Item(_))) => continue,
            Ok(Some(Part::Key(head))) => head,
            Err(_) => return expect(b"", "error"),
        };
        let mut value = Vec::new();
        if scanner.copy_value(head, &mut value).is_err() {
            return expect(b"", "error");
        }
        match head.form.decode(&value, &limits(), |_| ()) {
            Ok(()) => expect(scanner.key(), "key"),
            Err(error) if head.form.is_left_out(&error.error) => expect(scanner.key(), "skipped"),
            Err(_) => return expect(b"", "error"),
        }
    }
    assert!(read.is_empty());
}

fn len(entry: &Entry) -> usize {
    match entry.collection() {
        Some(collection) => collection.len(),
        None => entry.string().map_or(0, |string| string.len()),
    }
}

/// Reads a value in every way, changes it, and takes it apart.
fn use_up(value: Owned) {
    let collection = value.entry().collection();
    match collection.map(CollectionRef::duplicate) {
        None => assert!(value.entry().string().is_some()),
        Some(shardis_storage::value::Collection::List(list)) => use_list(list),
        Some(shardis_storage::value::Collection::Set(set)) => use_set(set),
        Some(shardis_storage::value::Collection::SortedSet(set)) => use_sorted_set(set),
        Some(shardis_storage::value::Collection::Hash(hash)) => use_hash(hash),
        Some(shardis_storage::value::Collection::Stream(stream)) => use_stream(stream),
    }
}

fn use_list(mut list: List) {
    let limits = limits().list;
    let mut seen = 0;
    list.range(list.len() - 1, Direction::Backward, usize::MAX, |_| seen += 1);
    assert_eq!(seen, list.len());
    list.insert(Side::Before, b"1", b"before", &limits);
    list.push(End::Front, StringRef::Int(5), &limits);
    list.set(list.len() / 2, b"another", &limits);
    list.remove_equal(b"a", Direction::Forward, 3, &limits);
    while list.pop(End::Back, &limits, |_| ()).is_some() {}
}

fn use_set(mut set: Set) {
    let limits = limits().set;
    let members: Vec<Vec<u8>> = set
        .iter()
        .map(|member| member.as_bytes(&mut [0; 20]).to_vec())
        .collect();
    assert_eq!(members.len(), set.len());
    set.add(b"one more", &limits);
    for member in members {
        assert!(set.contains(&member) && set.remove(&member));
    }
    assert!(set.len() <= 1);
}

fn use_sorted_set(mut set: SortedSet) {
    let limits = limits().sorted_set;
    let members: Vec<(Vec<u8>, f64)> = set
        .range(0..usize::MAX, Order::Descending)
        .map(|(member, score)| (member.as_bytes(&mut [0; 20]).to_vec(), score))
        .collect();
    assert_eq!(members.len(), set.len());
    set.insert(b"one more", 0.5, &limits);
    for (member, score) in members {
        if member != b"one more" {
            assert_eq!(set.remove(&member), Some(score));
        }
    }
    assert_eq!(set.len(), 1);
}

fn use_hash(mut hash: Hash) {
    let limits = limits().hash;
    let fields: Vec<Vec<u8>> = hash
        .iter(i64::MIN)
        .map(|field| field.name.as_bytes(&mut [0; 20]).to_vec())
        .collect();
    assert_eq!(fields.len(), hash.len());
    for field in &fields {
        assert!(hash.get(field, i64::MIN).is_some());
        hash.set_expiry(field, Some(1000), i64::MIN);
    }
    hash.set(b"one more", b"value", FieldExpiry::At(5000), i64::MIN, &limits);
    hash.remove_expired(2000, usize::MAX, |_| ());
    assert_eq!(hash.len(), 1);
}

fn use_stream(mut stream: Stream) {
    const LIMITS: StreamLimits = StreamLimits {
        block_bytes: 100,
        block_entries: 3,
    };
    let log = stream.log();
    let ids: Vec<StreamId> = log
        .range(StreamId::MIN, StreamId::MAX, Order::Descending)
        .map(|item| {
            assert_eq!(item.fields().count(), item.len());
            item.id
        })
        .collect();
    assert_eq!(ids.len(), log.len());
    let groups: Vec<Vec<u8>> = stream.groups().map(|group| group.name().to_vec()).collect();
    for name in &groups {
        let (_, group) = stream.group_mut(name).expect("a group there is");
        let pending: Vec<Pending> = group.pending_from(StreamId::MIN).copied().collect();
        let (consumer, _) = group.make_consumer(b"zoe", 5);
        for (n, pending) in pending.into_iter().enumerate() {
            if n % 2 == 0 {
                group.assign(Pending { consumer, ..pending });
            } else {
                assert!(group.acknowledge(pending.id));
            }
        }
        group.remove_consumer(b"zoe");
    }
    if let Some(id) = stream.log().last_id().next() {
        let words: [&[u8]; 2] = [b"f", b"v"];
        assert_eq!(stream.log_mut().append(id, words.into_iter(), &LIMITS), Ok(()));
    }
    for id in ids.iter().step_by(2) {
        assert!(stream.log_mut().delete(*id));
    }
    let trim = Trim {
        to: TrimTo::Length(1),
        approximate: false,
        limit: 0,
    };
    stream.trim(trim, References::Remove);
    assert!(stream.len() <= 1);
}
