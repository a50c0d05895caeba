//! Files of old and foreign servers, written by hand record by record: every encoding that Redis since 2.8 or Valkey wrote is
//! loaded, whatever the number of shards, and holds what its writer meant.

use std::fs;

use redis::{Connection, Value};
use shardis::Server;

// ----- a writer of raw records

fn text(bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 64);
    [&[bytes.len() as u8], bytes].concat()
}

/// A text of up to 16383 bytes.
fn blob(bytes: &[u8]) -> Vec<u8> {
    let len = (bytes.len() as u16 | 0x4000).to_be_bytes();
    [&len[..], bytes].concat()
}

fn texts(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|one| text(one.as_bytes())).collect()
}

/// A key of a type with its value.
fn record(kind: u8, key: &str, value: &[&[u8]]) -> Vec<u8> {
    [&[kind], &text(key.as_bytes())[..], &value.concat()].concat()
}

/// A ziplist of strings; numbers of one digit are stored as such.
fn ziplist(elements: &[&str]) -> Vec<u8> {
    let (mut entries, mut before, mut tail) = (Vec::new(), 0, 10);
    for element in elements {
        tail = 10 + entries.len();
        let start = entries.len();
        entries.push(before as u8);
        match element.as_bytes() {
            [digit @ b'0'..=b'9'] => entries.push(0xf1 + (digit - b'0')),
            bytes => {
                entries.push(bytes.len() as u8);
                entries.extend(bytes);
            }
        }
        before = entries.len() - start;
    }
    let total = 10 + entries.len() + 1;
    let mut list = (total as u32).to_le_bytes().to_vec();
    list.extend((tail as u32).to_le_bytes());
    list.extend((elements.len() as u16).to_le_bytes());
    list.extend(entries);
    list.push(0xff);
    list
}

fn zipmap(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut map = vec![pairs.len() as u8];
    for (field, value) in pairs {
        map.push(field.len() as u8);
        map.extend(field.bytes());
        map.extend([value.len() as u8, 0]);
        map.extend(value.bytes());
    }
    map.push(0xff);
    map
}

/// A listpack of strings and of numbers from 0 to 127; a string of digits is stored as a number.
fn listpack(elements: &[&str]) -> Vec<u8> {
    let mut entries = Vec::new();
    for element in elements {
        let start = entries.len();
        match element.parse::<u8>() {
            Ok(number @ 0..=127) => entries.push(number),
            _ => {
                entries.push(0x80 | element.len() as u8);
                entries.extend(element.bytes());
            }
        }
        entries.push((entries.len() - start) as u8);
    }
    let total = 6 + entries.len() + 1;
    let mut pack = (total as u32).to_le_bytes().to_vec();
    pack.extend((elements.len() as u16).to_le_bytes());
    pack.extend(entries);
    pack.push(0xff);
    pack
}

/// A listpack with a number of eight bytes as every third element.
fn listpack_of_triples(triples: &[(&str, &str, i64)]) -> Vec<u8> {
    let mut entries = Vec::new();
    for (field, value, at) in triples {
        for word in [field, value] {
            entries.push(0x80 | word.len() as u8);
            entries.extend(word.bytes());
            entries.push(word.len() as u8 + 1);
        }
        match at {
            0 => entries.extend([0, 1]),
            at => {
                entries.push(0xf4);
                entries.extend(at.to_le_bytes());
                entries.push(9);
            }
        }
    }
    let total = 6 + entries.len() + 1;
    let mut pack = (total as u32).to_le_bytes().to_vec();
    pack.extend((3 * triples.len() as u16).to_le_bytes());
    pack.extend(entries);
    pack.push(0xff);
    pack
}

/// A stream of two entries, 5-1 and 6-0, with one field, and a group whose consumer has the first one pending.
fn stream(kind: u8) -> Vec<u8> {
    const ID: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1];
    const TIME: [u8; 8] = [0x00, 0x68, 0xe5, 0xcf, 0x8b, 0x01, 0, 0];
    // The sequence of the second entry is one below that of the first, which is the base of all.
    let mut pack = vec![];
    for element in [&[2_u8][..], &[0], &[1], &[0x81, b'f'], &[0]]
        .into_iter()
        .chain([&[2_u8][..], &[0], &[0], &[0x81, b'v'], &[4]])
        .chain([&[2_u8][..], &[1], &[0xdf, 0xff], &[0x81, b'w'], &[4]])
    {
        pack.extend(element);
        pack.push(element.len() as u8);
    }
    let mut block = ((6 + pack.len() + 1) as u32).to_le_bytes().to_vec();
    block.extend(15_u16.to_le_bytes());
    block.extend(pack);
    block.push(0xff);
    let mut value = [vec![1], text(&ID), text(&block), vec![2, 6, 0]].concat();
    if kind != 15 {
        // First id, highest deleted id, entries added.
        value.extend([5, 1, 0, 0, 2]);
    }
    value.push(1);
    value.extend(text(b"group"));
    value.extend([5, 1]);
    if kind != 15 {
        value.push(1);
    }
    value.push(1);
    value.extend(ID);
    value.extend(TIME);
    value.push(3);
    value.push(1);
    value.extend(text(b"consumer"));
    value.extend(TIME);
    if kind == 21 || kind == 26 {
        value.extend(TIME);
    }
    value.push(1);
    value.extend(ID);
    if kind == 26 {
        // Producers: for how long, of how many; one with one id; two counts.
        value.extend([60, 10, 1]);
        value.extend(text(b"producer"));
        value.push(1);
        value.extend(text(b"id"));
        value.extend([5, 1, 1, 0]);
    }
    value
}

/// A time far in the future, in milliseconds, and below 2^48.
const LATER: i64 = 9_999_999_999_999;

// ----- the other side

fn load(magic: &str, records: &[Vec<u8>], shards: usize) -> Connection {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("old.rdb");
    let mut bytes = [magic.as_bytes(), &records.concat(), b"\xff"].concat();
    if magic != "REDIS0004" {
        bytes.extend([0; 8]);
    }
    fs::write(&path, bytes).expect("a file");
    let server = Server::builder().shards(shards).load(path).start();
    let server = server.unwrap_or_else(|error| panic!("{magic}: {error}"));
    let client = redis::Client::open(server.url()).expect("the URL is one that clients take");
    let connection = client.get_connection().expect("the server accepts connections");
    // It lives as long as the test process.
    std::mem::forget(server);
    connection
}

/// The reply to a command line, as text.
fn ask(connection: &mut Connection, line: &str) -> String {
    let mut command = redis::Cmd::new();
    for word in line.split(' ') {
        command.arg(word);
    }
    let value: Value = command
        .query(connection)
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    shown(&value)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Nil => "nil".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::Okay => "OK".to_owned(),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(" "),
        other => format!("{other:?}"),
    }
}

fn check(magic: &str, records: &[Vec<u8>], expected: &[(&str, &str)]) {
    for shards in [1, 3] {
        let mut connection = load(magic, records, shards);
        for (line, reply) in expected {
            assert_eq!(
                &ask(&mut connection, line),
                reply,
                "{magic}, {shards} shards: {line}"
            );
        }
    }
}

#[test]
fn strings_come_in_every_form() {
    check(
        "REDIS0004",
        &[
            vec![0xfe, 0x00],
            record(0, "plain", &[&text(b"value")]),
            record(0, "int8", &[b"\xc0\xff"]),
            record(0, "int16", &[b"\xc1\x00\x80"]),
            record(0, "int32", &[b"\xc2\xff\xff\xff\x7f"]),
            record(0, "lzf", &[b"\xc3\x05\x0a\x00a\xe0\x00\x00"]),
            record(0, "long", &[b"\x80\x00\x00\x00\x03abc"]),
            record(0, "longer", &[b"\x81\x00\x00\x00\x00\x00\x00\x00\x03abd"]),
            // A key that is a number, and one that expires in seconds.
            vec![0x00, 0xc0, 0x07, 0x01, b'k'],
            [
                vec![0xfd],
                2_000_000_000_i32.to_le_bytes().to_vec(),
                record(0, "timed", &[&text(b"v")]),
            ]
            .concat(),
        ],
        &[
            ("MGET plain int8 int16 int32", "value -1 -32768 2147483647"),
            ("MGET lzf long longer 7", "aaaaaaaaaa abc abd k"),
            ("PEXPIRETIME timed", "2000000000000"),
            ("OBJECT ENCODING int32", "int"),
        ],
    );
}

#[test]
fn collections_of_the_oldest_servers_are_loaded() {
    check(
        "REDIS0006",
        &[
            record(1, "list", &[&[3], &texts(&["a", "b", "c"])]),
            record(2, "set", &[&[2], &texts(&["a", "b"])]),
            record(
                3,
                "zset",
                &[
                    &[4],
                    &texts(&["a"]),
                    &[3],
                    b"1.5",
                    &texts(&["b"]),
                    &[254],
                    &texts(&["c"]),
                    &[255],
                    &texts(&["d"]),
                    &[2],
                    b"-7",
                ],
            ),
            record(4, "hash", &[&[2], &texts(&["f", "v", "g", "w"])]),
            record(
                5,
                "zset2",
                &[
                    &[2],
                    &texts(&["a"]),
                    &2.5_f64.to_le_bytes(),
                    &texts(&["b"]),
                    &(-1_f64).to_le_bytes(),
                ],
            ),
            record(9, "zipmap", &[&blob(&zipmap(&[("f", "v"), ("gg", "ww")]))]),
            record(10, "ziplist", &[&blob(&ziplist(&["a", "5", "bcd"]))]),
            record(
                11,
                "intset",
                &[&blob(&[2, 0, 0, 0, 3, 0, 0, 0, 0xfe, 0xff, 1, 0, 9, 0])],
            ),
            record(12, "zset-ziplist", &[&blob(&ziplist(&["a", "1", "b", "2.5"]))]),
            record(13, "hash-ziplist", &[&blob(&ziplist(&["f", "v", "g", "7"]))]),
            record(
                14,
                "quicklist",
                &[&[2], &blob(&ziplist(&["a", "b"])), &blob(&ziplist(&["3"]))],
            ),
        ],
        &[
            ("LRANGE list 0 -1", "a b c"),
            ("SMISMEMBER set a b c", "1 1 0"),
            ("ZRANGE zset 0 -1 WITHSCORES", "c -inf d -7 a 1.5 b inf"),
            ("HMGET hash f g", "v w"),
            ("ZRANGE zset2 0 -1 WITHSCORES", "b -1 a 2.5"),
            ("HMGET zipmap f gg", "v ww"),
            ("LRANGE ziplist 0 -1", "a 5 bcd"),
            ("SMISMEMBER intset -2 1 9", "1 1 1"),
            ("SCARD intset", "3"),
            ("ZRANGE zset-ziplist 0 -1 WITHSCORES", "a 1 b 2.5"),
            ("HMGET hash-ziplist f g", "v 7"),
            ("LRANGE quicklist 0 -1", "a b 3"),
        ],
    );
}

#[test]
fn collections_of_later_servers_are_loaded() {
    check(
        "REDIS0011",
        &[
            record(16, "hash", &[&blob(&listpack(&["f", "v", "g", "7"]))]),
            record(17, "zset", &[&blob(&listpack(&["a", "1", "b", "2.5"]))]),
            record(
                18,
                "list",
                &[
                    &[3],
                    &[2],
                    &blob(&listpack(&["a", "1"])),
                    &[1],
                    &text(b"plain"),
                    &[2],
                    &blob(&listpack(&["z"])),
                ],
            ),
            record(20, "set", &[&blob(&listpack(&["a", "5"]))]),
        ],
        &[
            ("HMGET hash f g", "v 7"),
            ("ZRANGE zset 0 -1 WITHSCORES", "a 1 b 2.5"),
            ("LRANGE list 0 -1", "a 1 plain z"),
            ("SMISMEMBER set a 5", "1 1"),
            ("OBJECT ENCODING set", "listpack"),
        ],
    );
}

#[test]
fn streams_of_every_version_are_loaded() {
    for (kind, magic) in [
        (15, "REDIS0009"),
        (19, "REDIS0010"),
        (21, "REDIS0011"),
        (26, "REDIS0013"),
    ] {
        check(
            magic,
            &[record(kind, "stream", &[&stream(kind)])],
            &[("XRANGE stream - +", "5-1 f v 6-0 f w")],
        );
        let mut connection = load(magic, &[record(kind, "stream", &[&stream(kind)])], 3);
        let pending = ask(&mut connection, "XPENDING stream group - + 10");
        assert!(
            pending.starts_with("5-1 consumer ") && pending.ends_with(" 3"),
            "{pending}"
        );
        let info = ask(&mut connection, "XINFO STREAM stream");
        for figure in [
            "last-generated-id 6-0",
            "entries-added 2",
            "max-deleted-entry-id 0-0",
            "recorded-first-entry-id 5-1",
        ] {
            assert!(info.contains(figure), "{figure}: {info}");
        }
    }
}

#[test]
fn hashes_with_fields_that_expire_come_in_the_forms_of_both_families() {
    let long = |number: i64| number.to_le_bytes().to_vec();
    let length = |number: i64| [&[0x81][..], &number.to_be_bytes()].concat();
    let expected = |key: &str| -> Vec<(String, String)> {
        vec![
            (format!("HMGET {key} f g"), "v w".to_owned()),
            (format!("HPEXPIRETIME {key} FIELDS 2 f g"), format!("{LATER} -1")),
        ]
    };
    let redis: Vec<Vec<u8>> = vec![
        // Before its release: times as they are.
        record(
            22,
            "early",
            &[
                &[2],
                &length(LATER),
                &texts(&["f", "v"]),
                &[0],
                &texts(&["g", "w"]),
            ],
        ),
        record(
            23,
            "early-pack",
            &[&blob(&listpack_of_triples(&[("f", "v", LATER), ("g", "w", 0)]))],
        ),
        // Then as distances from the earliest one.
        record(
            24,
            "fields",
            &[
                &long(LATER),
                &[2],
                &[1],
                &texts(&["f", "v"]),
                &[0],
                &texts(&["g", "w"]),
            ],
        ),
        record(
            25,
            "pack",
            &[
                &long(LATER),
                &blob(&listpack_of_triples(&[("f", "v", LATER), ("g", "w", 0)])),
            ],
        ),
    ];
    let valkey = vec![record(
        22,
        "valkey",
        &[
            &[2],
            &texts(&["f", "v"]),
            &long(LATER),
            &texts(&["g", "w"]),
            &long(-1),
        ],
    )];
    for (magic, records, keys) in [
        ("REDIS0012", redis, &["early", "early-pack", "fields", "pack"][..]),
        ("VALKEY080", valkey, &["valkey"][..]),
    ] {
        for key in keys {
            let expected = expected(key);
            let expected: Vec<_> = expected
                .iter()
                .map(|(line, reply)| (line.as_str(), reply.as_str()))
                .collect();
            check(magic, &records, &expected);
        }
    }
}

/// Each value would be believed by somebody who does not check it, and names the key that holds it.
#[test]
fn damaged_values_of_old_servers_are_refused() {
    let intset = |bytes: &[u8]| blob(bytes);
    let cases: Vec<(u8, Vec<u8>)> = vec![
        // Members and fields twice.
        (2, [&[2][..], &texts(&["a", "a"])].concat()),
        (4, [&[2][..], &texts(&["f", "1", "f", "2"])].concat()),
        (
            5,
            [&[2][..], &texts(&["a"]), &[0; 8], &texts(&["a"]), &[0; 8]].concat(),
        ),
        (9, blob(&zipmap(&[("f", "1"), ("f", "2")]))),
        (12, blob(&ziplist(&["a", "1", "a", "2"]))),
        (13, blob(&ziplist(&["f", "1", "f", "2"]))),
        (16, blob(&listpack(&["f", "1", "f", "2"]))),
        (17, blob(&listpack(&["a", "1", "a", "2"]))),
        (20, blob(&listpack(&["a", "a"]))),
        // Pairs that are none, scores that are none.
        (13, blob(&ziplist(&["f", "1", "g"]))),
        (16, blob(&listpack(&["f"]))),
        (17, blob(&listpack(&["a", "x"]))),
        (3, [&[1][..], &texts(&["a"]), &[253]].concat()),
        (5, [&[1][..], &texts(&["a"]), &f64::NAN.to_le_bytes()].concat()),
        // Sets of integers: width, size, order.
        (11, intset(&[3, 0, 0, 0, 1, 0, 0, 0, 1, 0])),
        (11, intset(&[2, 0, 0, 0, 9, 0, 0, 0, 1, 0])),
        (11, intset(&[2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0])),
        (11, intset(&[2, 0, 0, 0, 2, 0, 0, 0, 5, 0, 1, 0])),
        (11, intset(&[2, 0, 0, 0, 2, 0, 0, 0, 5, 0, 5, 0])),
        // Packs whose lengths lie.
        (10, blob(&[11, 0, 0, 0, 10, 0, 0, 0, 5, 0, 0xff])),
        (
            10,
            blob(&{
                let mut list = ziplist(&["a", "b"]);
                list[0] += 1;
                list
            }),
        ),
        (
            10,
            blob(&{
                let mut list = ziplist(&["a", "b"]);
                list[13] = 9;
                list
            }),
        ),
        (
            16,
            blob(&{
                let mut pack = listpack(&["f", "v"]);
                pack[0] -= 1;
                pack
            }),
        ),
        (
            16,
            blob(&{
                let mut pack = listpack(&["f", "v"]);
                pack[6] = 0xbf;
                pack
            }),
        ),
        (
            16,
            blob(&{
                let mut pack = listpack(&["f", "v"]);
                pack[8] = 9;
                pack
            }),
        ),
        (18, [&[1, 3][..], &blob(&listpack(&["a"]))].concat()),
        (18, [&[1, 1][..], &text(b"")].concat()),
        // A compressed text of another length, and one that copies from before its beginning.
        (0, b"\xc3\x05\x0b\x00a\xe0\x00\x00".to_vec()),
        (0, b"\xc3\x04\x0a\xe0\x00\x00\x00".to_vec()),
        // A text where a count is expected.
        (1, b"\xc0\x01\x01a".to_vec()),
        // Fields out of the order of their times.
        (
            25,
            [
                &1_i64.to_le_bytes()[..],
                &blob(&listpack_of_triples(&[("g", "w", 0), ("f", "v", LATER)])),
            ]
            .concat(),
        ),
        // An entry that is pending with nobody, or with two.
        (15, {
            let mut value = stream(15);
            let end = value.len();
            value.truncate(end - 17);
            value.push(0);
            value
        }),
        (19, {
            let mut value = stream(19);
            let block = value.len() - 1;
            value[block] ^= 1;
            value
        }),
        (99, text(b"v")),
    ];
    let directory = tempfile::tempdir().expect("a directory");
    for (number, (kind, value)) in cases.into_iter().enumerate() {
        let path = directory.path().join(format!("{number}.rdb"));
        let records = [record(0, "good", &[&text(b"v")]), record(kind, "bad", &[&value])].concat();
        fs::write(
            &path,
            [b"REDIS0012", &records[..], b"\xff\0\0\0\0\0\0\0\0"].concat(),
        )
        .expect("a file");
        for shards in [1, 3] {
            let error = Server::builder().shards(shards).load(&path).start();
            let error = error
                .err()
                .unwrap_or_else(|| panic!("case {number}, type {kind}: loaded"));
            let text = error.to_string();
            assert!(
                text.contains("key 'bad'") && text.contains("at offset "),
                "case {number}: {text}"
            );
        }
    }
}
