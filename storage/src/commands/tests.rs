//! The commands of a value of each type, whole and in steps.

use super::*;
use crate::key::KeyHasher;
use crate::value::Owned;
use crate::value::hash::{FieldExpiry, HashLimits};
use crate::value::list::{End, ListLimits};
use crate::value::set::SetLimits;
use crate::value::sorted_set::SortedSetLimits;
use crate::value::stream::{Pending, Stream, StreamId, StreamLimits};

const HASHER: KeyHasher = KeyHasher::new(3);

fn in_steps(entry: &Entry, budget: usize) -> Vec<u8> {
    let (mut writer, mut out) = (CommandWriter::new(), Vec::new());
    loop {
        let before = out.len();
        let is_done = writer.step(entry, &mut out, budget);
        assert!(out.len() - before <= budget);
        if is_done {
            return out;
        }
        assert!(out.len() > before, "every step gets further");
    }
}

/// The commands of a value whose key is empty, a line each.
fn commands(value: &Owned) -> Vec<String> {
    let whole = in_steps(value.entry(), usize::MAX);
    for budget in [1, 7, 100] {
        assert!(in_steps(value.entry(), budget) == whole, "in steps of {budget}");
    }
    let mut rest = whole.as_slice();
    let mut commands = Vec::new();
    while !rest.is_empty() {
        let words = (0..length(&mut rest, b'*')).map(|_| {
            let len = length(&mut rest, b'$');
            let (word, behind) = rest.split_at(len);
            rest = behind.strip_prefix(b"\r\n").expect("the end of a word");
            String::from_utf8_lossy(word).into_owned()
        });
        commands.push(words.collect::<Vec<_>>().join(" "));
    }
    commands
}

fn length(rest: &mut &[u8], mark: u8) -> usize {
    let end = rest.windows(2).position(|two| two == b"\r\n").expect("a line");
    assert_eq!(rest[0], mark);
    let number = str::from_utf8(&rest[1..end]).expect("digits").parse();
    *rest = &rest[end + 2..];
    number.expect("digits")
}

fn collection(value: impl Into<crate::value::Collection>) -> Owned {
    Owned::collection(value.into(), None)
}

#[test]
fn strings_have_one_command_and_their_expiry() {
    assert_eq!(commands(&Owned::string(b"text", None)), ["SET  text"]);
    assert_eq!(
        commands(&Owned::string(b"-17", Some(1_700_000_000_000))),
        ["SET  -17", "PEXPIREAT  1700000000000"]
    );
    let long = vec![b'x'; 100_000];
    assert_eq!(commands(&Owned::string(&long, None))[0].len(), 100_005);
}

#[test]
fn lists_keep_their_order_over_several_commands() {
    let limits = ListLimits {
        listpack_size: 8,
        compress_depth: 1,
        packed_threshold: 60,
    };
    let mut list = List::new();
    for index in 0..150 {
        list.push(End::Back, StringRef::Int(index), &limits);
    }
    list.settle(&limits);
    let commands = commands(&collection(list));
    assert_eq!(commands.len(), 3);
    let all: Vec<&str> = commands
        .iter()
        .flat_map(|command| command.strip_prefix("RPUSH  ").expect("a push").split(' '))
        .collect();
    assert_eq!(
        all,
        (0..150).map(|index: i32| index.to_string()).collect::<Vec<_>>()
    );
}

#[test]
fn sets_have_each_member_once() {
    for (members, listpack_entries) in [(1, 4), (3, 4), (500, 4), (3, 0)] {
        let limits = SetLimits {
            intset_entries: 0,
            listpack_entries,
            listpack_value: 24,
            hasher: HASHER,
        };
        let mut set = Set::new();
        for index in 0..members {
            set.add(format!("member:{index}").as_bytes(), &limits);
        }
        let commands = commands(&collection(set));
        let mut all: Vec<&str> = commands
            .iter()
            .flat_map(|command| command.strip_prefix("SADD  ").expect("an addition").split(' '))
            .collect();
        all.sort_unstable();
        let mut expected: Vec<String> = (0..members).map(|index| format!("member:{index}")).collect();
        expected.sort_unstable();
        assert_eq!(all, expected);
    }
}

#[test]
fn scores_are_exact() {
    let limits = SortedSetLimits {
        listpack_entries: 0,
        listpack_value: 0,
        hasher: HASHER,
    };
    let mut set = SortedSet::default();
    for (member, score) in [("a", 0.1 + 0.2), ("b", f64::INFINITY), ("c", -3.0)] {
        set.insert(member.as_bytes(), score, &limits);
    }
    assert_eq!(
        commands(&collection(set)),
        ["ZADD  -3 c 0.30000000000000004 a inf b"]
    );
}

#[test]
fn fields_of_hashes_get_their_expiry_last() {
    for listpack_entries in [0, 10] {
        let limits = HashLimits {
            listpack_entries,
            listpack_value: 24,
            hasher: HASHER,
        };
        let mut hash = Hash::default();
        let expiry = FieldExpiry::At(1_700_000_000_123);
        hash.set(b"f", b"1", expiry, i64::MIN, &limits);
        assert_eq!(
            commands(&collection(hash)),
            ["HSET  f 1", "HPEXPIREAT  1700000000123 FIELDS 1 f"]
        );
    }
}

#[test]
fn streams_have_their_figures_and_groups() {
    let limits = StreamLimits {
        block_bytes: 200,
        block_entries: 4,
    };
    let mut stream = Stream::default();
    for ms in 1..40 {
        let words = [b"f".as_slice(), b"v"];
        stream
            .log_mut()
            .append(StreamId::new(ms, 0), words.into_iter(), &limits)
            .unwrap();
    }
    for ms in 2..40 {
        stream.log_mut().delete(StreamId::new(ms, 0));
    }
    stream.add_group(b"g", StreamId::new(7, 0), None);
    stream.add_group(b"h", StreamId::new(0, 0), Some(3));
    let (_, group) = stream.group_mut(b"g").unwrap();
    let (consumer, _) = group.make_consumer(b"c", 5);
    group.assign(Pending {
        id: StreamId::new(1, 0),
        delivered_ms: 77,
        deliveries: 4,
        consumer,
    });
    assert_eq!(
        commands(&collection(stream)),
        [
            "XADD  1-0 f v",
            "XSETID  39-0 ENTRIESADDED 39 MAXDELETEDID 39-0",
            "XGROUP CREATE  g 7-0 ENTRIESREAD -1",
            "XGROUP CREATECONSUMER  g c",
            "XCLAIM  g c 0 1-0 TIME 77 RETRYCOUNT 4 JUSTID FORCE",
            "XGROUP CREATE  h 0-0 ENTRIESREAD 3",
        ]
    );
}

#[test]
fn figures_of_streams_fit_into_commands() {
    let mut stream = Stream::default();
    stream
        .log_mut()
        .set_last_id(StreamId::new(3, 0), Some(u64::MAX), None);
    stream.add_group(b"g", StreamId::new(3, 0), Some(1 << 63));
    assert_eq!(
        commands(&collection(stream)),
        [
            "XADD  MAXLEN 0 0-1 x y",
            "XSETID  3-0 ENTRIESADDED 9223372036854775807 MAXDELETEDID 0-0",
            "XGROUP CREATE  g 3-0 ENTRIESREAD -1",
        ]
    );
}

#[test]
fn a_stream_without_entries_exists() {
    assert_eq!(
        commands(&collection(Stream::default())),
        [
            "XADD  MAXLEN 0 0-1 x y",
            "XSETID  0-0 ENTRIESADDED 0 MAXDELETEDID 0-0"
        ]
    );
}
