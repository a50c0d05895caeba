//! Values of other servers, byte by byte: streams of every version, and what makes each part of a value a wrong one.

use super::super::opcode::kind;
use super::super::reader::Reader;
use super::{Dialect, Limits, value};
use crate::key::KeyHasher;
use crate::value::list::Direction;
use crate::value::stream::StreamId;
use crate::value::{CollectionRef, Owned};

/// An id as the members of blocks and of groups have it.
const fn id(ms: u8) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[7] = ms;
    bytes
}

/// A block with this id of two entries: the first one at the id, the other one a millisecond later, which is deleted.
fn block(at: [u8; 16]) -> Vec<u8> {
    // Head: one entry, one deleted, one name of a field; then for each entry: flags, milliseconds, sequence, value, back count.
    let pack = b"\x28\0\0\0\x0f\0\x01\x01\x01\x01\x01\x01\x81f\x02\0\x01\
                 \x02\x01\0\x01\0\x01\x81v\x02\x04\x01\
                 \x03\x01\x01\x01\0\x01\x81w\x02\x04\x01\xff";
    assert_eq!(usize::from(pack[0]), pack.len(), "the length that the pack tells");
    [b"\x10", &at[..], &[pack.len() as u8], pack].concat()
}

/// Figures of the stream with one such block, of the older and of the later form.
const OLD_FIGURES: &[u8] = b"\x01\x07\x00";
const FIGURES: &[u8] = b"\x01\x07\x00\x05\x00\x06\x00\x02";

/// A time of 1000 milliseconds.
const TIME: &[u8] = b"\xe8\x03\0\0\0\0\0\0";
/// A time that there never was.
const NEVER: &[u8] = b"\xff\xff\xff\xff\xff\xff\xff\xff";

/// A group that has delivered an entry, to one consumer; `read` is the number of entries read, and `active` a second time of the
/// consumer, where the version has those.
fn group(read: &[u8], active: &[u8]) -> Vec<u8> {
    let delivered = [&id(5)[..], TIME, b"\x03"].concat();
    [
        b"\x01\x01g\x05\x00",
        read,
        b"\x01",
        &delivered,
        b"\x01\x01c",
        TIME,
        active,
        b"\x01",
        &id(5),
    ]
    .concat()
}

fn read(kind: u8, body: &[u8]) -> Result<Owned, String> {
    let limits = Limits::defaults(KeyHasher::new(2));
    let mut reader = Reader::new(body);
    let value = value(&mut reader, kind, Dialect::Redis, &limits).map_err(|error| error.to_string())?;
    assert!(reader.source.is_empty(), "{} bytes are left", reader.source.len());
    Ok(value)
}

/// The figures of a stream and of its group, in one line.
fn shown(value: &Owned) -> String {
    let Some(CollectionRef::Stream(stream)) = value.entry().collection() else {
        panic!("no stream")
    };
    let log = stream.log();
    let mut line = format!(
        "{} of {} last {} first {} deleted {}",
        log.len(),
        log.entries_added(),
        log.last_id(),
        log.first_id(),
        log.max_deleted_id()
    );
    for group in stream.groups() {
        let delivered: Vec<_> = group.pending_from(StreamId::MIN).collect();
        line += &format!(
            "; read {:?}, {} delivered {} times",
            group.entries_read,
            delivered.len(),
            delivered[0].deliveries
        );
        for (_, consumer) in group.consumers() {
            line += &format!(", seen {} active {:?}", consumer.seen_ms, consumer.active_ms);
        }
    }
    line
}

#[test]
fn streams_of_all_versions_are_read() {
    let one = [b"\x01", &block(id(5))[..]].concat();
    let unknown = [b"\x81", NEVER].concat();
    // What the first version does not tell follows from the entries, as far as it can.
    let oldest = [&one, OLD_FIGURES, &group(b"", b"")].concat();
    assert_eq!(
        shown(&read(kind::STREAM, &oldest).unwrap()),
        "1 of 1 last 7-0 first 5-0 deleted 0-0; read Some(1), 1 delivered 3 times, seen 1000 active Some(1000)"
    );
    let second = [&one, FIGURES, &group(b"\x02", b"")].concat();
    assert_eq!(
        shown(&read(kind::STREAM_2, &second).unwrap()),
        "1 of 2 last 7-0 first 5-0 deleted 6-0; read Some(2), 1 delivered 3 times, seen 1000 active Some(1000)"
    );
    // A number of entries that is not known has the largest number in its place.
    let third = [&one, FIGURES, &group(&unknown, NEVER)].concat();
    assert_eq!(
        shown(&read(kind::STREAM_3, &third).unwrap()),
        "1 of 2 last 7-0 first 5-0 deleted 6-0; read None, 1 delivered 3 times, seen 1000 active None"
    );
    let producers = b"\x40\x64\x40\x64\x01\x01p\x01\x01i\x05\x00\x01\x00";
    let fourth = [&one, FIGURES, &group(b"\x02", TIME), producers].concat();
    assert_eq!(
        shown(&read(kind::STREAM_4, &fourth).unwrap()),
        "1 of 2 last 7-0 first 5-0 deleted 6-0; read Some(2), 1 delivered 3 times, seen 1000 active Some(1000)"
    );
}

#[test]
fn streams_that_contradict_themselves_are_refused() {
    let one = [b"\x01", &block(id(5))[..]].concat();
    let with = |blocks: &[u8], figures: &[u8], groups: &[u8]| {
        read(kind::STREAM_2, &[blocks, figures, groups].concat()).expect_err("a stream that is none")
    };
    let good = group(b"\x02", b"");
    let mut truncated = block(id(5));
    truncated.remove(0);
    // The pack tells of more entries than there are, of fewer, and of an id that is a text.
    let broken = |at: usize, byte: u8| {
        let mut blocks = one.clone();
        blocks[1 + 17 + 1 + at] = byte;
        blocks
    };
    let empty = [b"\x01\x10", &id(5)[..], b"\x07\x07\0\0\0\0\0\xff"].concat();
    let twice = [b"\x02", &block(id(5))[..], &block(id(5))].concat();
    let short_id = b"\x01\x0f\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0".as_slice();
    for (blocks, reason) in [
        (short_id, "an id of another length"),
        (&empty, "a collection without elements"),
        (&twice, "a block of a stream that is none"),
        (&broken(6, 2), "a block of a stream that is none"),
        (&broken(8, 0), "a block of a stream that is none"),
        (&broken(10, 2), "a block of a stream that is none"),
    ] {
        let error = with(blocks, FIGURES, &good);
        assert!(error.ends_with(reason), "{reason}: {error}");
    }
    for figures in [
        // Two entries, none, and one that is behind the last id.
        b"\x02\x07\x00\x05\x00\x06\x00\x02",
        b"\x00\x07\x00\x05\x00\x06\x00\x02",
        b"\x01\x04\x00\x05\x00\x04\x00\x02",
    ] {
        let error = with(&one, figures, &good);
        assert!(error.ends_with("contradict the entries of a stream"), "{error}");
    }
    // Entries, but no block.
    assert!(with(b"\x00", FIGURES, b"\x00").ends_with("contradict the entries of a stream"));
}

#[test]
fn groups_that_contradict_themselves_are_refused() {
    let one = [b"\x01", &block(id(5))[..]].concat();
    let delivered = [&id(5)[..], TIME, b"\x03"].concat();
    let other = [&id(6)[..], TIME, b"\x03"].concat();
    let consumer =
        |name: &[u8], ids: &[[u8; 16]]| [b"\x01", name, TIME, &[ids.len() as u8], &ids.concat()].concat();
    let group = |entries: &[&[u8]], consumers: &[Vec<u8>]| {
        [
            b"\x01g\x05\x00\x02",
            &[entries.len() as u8][..],
            &entries.concat(),
            &[consumers.len() as u8],
            &consumers.concat(),
        ]
        .concat()
    };
    let whole = group(&[&delivered], &[consumer(b"c", &[id(5)])]);
    let read_with = |groups: &[Vec<u8>]| {
        let groups = [&[groups.len() as u8][..], &groups.concat()].concat();
        read(kind::STREAM_2, &[&one, FIGURES, &groups].concat())
    };
    assert!(read_with(std::slice::from_ref(&whole)).is_ok());
    for (groups, reason) in [
        (vec![whole.clone(), whole], "two groups of one name"),
        (
            vec![group(&[&delivered, &delivered], &[consumer(b"c", &[id(5)])])],
            "an entry pending twice in a group",
        ),
        (
            vec![group(&[&delivered, &other], &[consumer(b"c", &[id(5)])])],
            "an entry pending with no consumer",
        ),
        (
            vec![group(&[&delivered], &[])],
            "an entry pending with no consumer",
        ),
        (
            vec![group(&[], &[consumer(b"c", &[id(5)])])],
            "an entry of a consumer that its group does not have",
        ),
        // Two owners of one entry, which was a hole through which code could be run.
        (
            vec![group(
                &[&delivered],
                &[consumer(b"c", &[id(5)]), consumer(b"d", &[id(5)])],
            )],
            "an entry of a consumer that its group does not have",
        ),
        (
            vec![group(&[&delivered], &[consumer(b"c", &[id(5), id(5)])])],
            "an entry of a consumer that its group does not have",
        ),
        (
            vec![group(
                &[&delivered],
                &[consumer(b"c", &[id(5)]), consumer(b"c", &[])],
            )],
            "two consumers of one name",
        ),
    ] {
        let error = read_with(&groups).expect_err("a group that is none");
        assert!(error.ends_with(reason), "{reason}: {error}");
    }
}

#[test]
fn scores_in_packs_are_numbers() {
    // A member and its score, in a listpack and in a ziplist; `score` has three bytes.
    let listpack = |score: &[u8]| {
        let pack = [b"\x0f\0\0\0\x02\0\x81a\x02\x83", score, b"\x04\xff"].concat();
        [&[pack.len() as u8][..], &pack].concat()
    };
    let ziplist = |score: &[u8]| {
        let pack = [
            b"\x13\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\x03".as_slice(),
            score,
            b"\xff",
        ]
        .concat();
        [&[pack.len() as u8][..], &pack].concat()
    };
    for (kind, pack) in [
        (kind::SORTED_SET_LISTPACK, &listpack as &dyn Fn(&[u8]) -> Vec<u8>),
        (kind::SORTED_SET_ZIPLIST, &ziplist),
    ] {
        for score in [b"1.5", b"inf"] {
            assert!(read(kind, &pack(score)).is_ok(), "{kind} {score:?}");
        }
        for score in [b"nan", b"NaN", b"a.b"] {
            let error = read(kind, &pack(score)).expect_err("no number");
            assert!(error.ends_with("distinct members with scores"), "{error}");
        }
    }
}

#[test]
fn empty_nodes_of_lists_are_passed_over_among_others() {
    const EMPTY: &[u8] = b"\x02\x07\x07\0\0\0\0\0\xff";
    const FULL: &[u8] = b"\x02\x0a\x0a\0\0\0\x01\0\x81a\x02\xff";
    let list = |nodes: &[&[u8]]| [&[nodes.len() as u8][..], &nodes.concat()].concat();
    for nodes in [&[EMPTY, FULL][..], &[FULL, EMPTY], &[EMPTY, EMPTY, FULL, EMPTY]] {
        let value = read(kind::LIST_QUICKLIST_2, &list(nodes)).unwrap();
        let Some(CollectionRef::List(list)) = value.entry().collection() else {
            panic!("no list")
        };
        let mut elements = 0;
        list.range(0, Direction::Forward, usize::MAX, |_| elements += 1);
        assert_eq!(elements, 1);
    }
    // A node without bytes is no pack at all.
    assert!(read(kind::LIST_QUICKLIST_2, &list(&[FULL, b"\x02\x00"])).is_err());
}
