//! Files out and in again, and files of old servers, foreign ones and none.

use std::io::Read;

use super::*;
use crate::entry::Entry;
use crate::key::KeyHasher;
use crate::keyspace::{Expiry, Keyspace, KeyspaceOptions, Layout};
use crate::rdb::checksum::Checksum;
use crate::rdb::{Dialect, Limits, WriteOptions};
use crate::value::hash::{FieldExpiry, Hash};
use crate::value::set::Set;
use crate::value::{Collection, INT_TEXT_MAX};

fn limits() -> Limits {
    Limits::defaults(KeyHasher::new(3))
}

const OPTIONS: WriteOptions = WriteOptions {
    compress_max: 1 << 16,
    dialect: Dialect::Redis,
};

/// A source that gives a few bytes at a time.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, target: &mut [u8]) -> std::io::Result<usize> {
        let len = self.1.min(self.0.len()).min(target.len());
        target[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }
}

/// A line for each part of a file, the last one for what is wrong with it.
fn parts(source: impl Read) -> Vec<String> {
    let reader = match FileReader::open(source, limits()) {
        Ok(reader) => reader,
        Err(error) => return vec![error.to_string()],
    };
    reader
        .map(|item| match item {
            Err(error) => error.to_string(),
            Ok(Item::Key(record)) => shown(&record.key, record.value.entry(), record.usage),
            Ok(item) => beside(&item),
        })
        .collect()
}

/// A line for a key.
fn shown(key: &[u8], entry: &Entry, usage: Option<Usage>) -> String {
    let value = match entry.string() {
        Some(text) => text.as_bytes(&mut [0; INT_TEXT_MAX]).escape_ascii().to_string(),
        None => {
            let len = entry.collection().map(|collection| collection.len());
            format!("{} of {len:?}", entry.encoding().name())
        }
    };
    format!("{} {value} {:?} {usage:?}", key.escape_ascii(), entry.expiry())
}

/// A line for a part that is no key.
fn beside(item: &Item) -> String {
    match item {
        Item::Aux { name, value } => format!("aux {} {}", name.escape_ascii(), value.escape_ascii()),
        Item::Function(source) => format!("function {}", source.escape_ascii()),
        Item::Database(db) => format!("database {db}"),
        Item::Sizes { keys, expires } => format!("sizes {keys} {expires}"),
        Item::Skipped { key, reason } => format!("skipped {} {reason}", key.escape_ascii()),
        Item::Key(_) => unreachable!("a key has its own line"),
    }
}

/// The same lines as of [`parts`], by a scanner and with values that are decoded apart, out of pieces of so many bytes.
fn scanned(source: impl Read, piece: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let scan = || -> Result<(), FileError> {
        let mut scanner = FileScanner::open(source, true)?;
        while let Some(part) = scanner.next_part()? {
            lines.push(match part {
                Part::Item(item) => beside(&item),
                Part::Key(head) => {
                    let (offset, mut bytes) = (scanner.offset(), Vec::new());
                    scanner.copy_value(head, &mut bytes)?;
                    assert_eq!(scanner.offset() - offset, bytes.len() as u64);
                    decoded(scanner.key(), head, &bytes, piece).map_err(|error| FileError {
                        offset: offset + error.offset,
                        key: Some(scanner.key().to_vec()),
                        error: error.error,
                    })?
                }
            });
        }
        Ok(())
    };
    if let Err(error) = scan() {
        lines.push(error.to_string());
    }
    lines
}

/// The line for a key whose value is decoded out of pieces of so many bytes, or as a whole for 0.
fn decoded(key: &[u8], head: Head, bytes: &[u8], piece: usize) -> Result<String, ValueError> {
    let mut keyspace = keyspace_of(1);
    let hashed = keyspace.key(key);
    let database = keyspace.database_mut(0);
    let store = |value: Decoded<'_>| {
        assert!(database.load(&hashed, value, head.expiry, 0));
    };
    let stored = match piece {
        0 => head.form.decode(bytes, &limits(), store),
        piece => head.form.decode_from(Trickle(bytes, piece), &limits(), store),
    };
    match stored {
        Ok(()) => {
            let entry = database.peek(&hashed).expect("loaded just now");
            Ok(shown(key, entry, head.usage))
        }
        Err(error) if head.form.is_left_out(&error.error) => {
            Ok(format!("skipped {} {}", key.escape_ascii(), error.error))
        }
        Err(error) => Err(error),
    }
}

/// Checks that a file is the same to whoever reads it and whoever scans it.
fn check(bytes: &[u8]) -> Vec<String> {
    let found = parts(bytes);
    for piece in [0, 1, 1000] {
        assert!(
            scanned(bytes, piece) == found,
            "pieces of {piece}: {:?}",
            found.last()
        );
    }
    assert!(scanned(Trickle(bytes, 7), 0) == found);
    found
}

/// An empty keyspace.
fn keyspace_of(databases: usize) -> Keyspace {
    Keyspace::new(KeyspaceOptions {
        databases,
        layout: Layout::Single,
        hasher: KeyHasher::new(5),
        slot_of: |_| 0,
    })
}

/// A keyspace of strings and collections, one of them large.
fn keyspace() -> Keyspace {
    let mut keyspace = keyspace_of(2);
    for (name, value, expiry) in [
        ("text", &b"some text"[..], Expiry::Clear),
        ("17", b"123", Expiry::At(1_700_000_000_000)),
        ("long", &[b'x'; 100_000], Expiry::Clear),
        ("noise", &[0xa5; 70_000], Expiry::Clear),
    ] {
        let key = keyspace.key(name.as_bytes());
        keyspace.database_mut(0).set_string(&key, value, expiry, 0);
    }
    let mut set = Set::new();
    for n in 0..5000 {
        set.add(format!("member:{n}").as_bytes(), &limits().set);
    }
    let key = keyspace.key(b"set");
    keyspace
        .database_mut(1)
        .set_collection(&key, Collection::Set(set), Expiry::Clear, 0);
    keyspace
}

/// The file of a keyspace, written in steps of so many bytes.
fn write(keyspace: &Keyspace, header: Header, options: WriteOptions, budget: usize) -> Vec<u8> {
    let mut writer = FileWriter::new(header, options, true);
    let mut bytes = Vec::new();
    writer.aux(b"redis-bits", b"64");
    writer.function(b"#!lua name=mine");
    for db in 0..keyspace.databases() {
        let database = keyspace.database(db);
        writer.database(db as u64, database.len(), database.volatile_len());
        database.for_each(|entry| {
            writer.key(entry, Some(Usage::Idle(7)));
            while !writer.step(entry, budget) {
                bytes.extend(writer.take());
            }
        });
        bytes.extend(writer.take());
    }
    bytes.extend(writer.finish());
    bytes
}

#[test]
fn a_file_holds_what_was_written_whatever_the_steps() {
    let keyspace = keyspace();
    let whole = write(&keyspace, Header::Common, OPTIONS, usize::MAX);
    assert!(whole.starts_with(b"REDIS0010\xfa\x0aredis-bits\xc0\x40"));
    for budget in [13, 100, 4096] {
        assert!(
            write(&keyspace, Header::Common, OPTIONS, budget) == whole,
            "steps of {budget}"
        );
    }
    let found = check(&whole);
    assert_eq!(
        found[..4],
        [
            "aux redis-bits 64",
            "function #!lua name=mine",
            "database 0",
            "sizes 4 1"
        ]
    );
    let mut keys = found[4..8].to_vec();
    keys.sort();
    assert_eq!(keys[0], "17 123 Some(1700000000000) Some(Idle(7))");
    assert_eq!(keys[3], "text some text None Some(Idle(7))");
    assert!(keys[1].len() > 100_000 && keys[2].len() > 70_000);
    assert_eq!(
        found[8..],
        [
            "database 1",
            "sizes 1 0",
            "set hashtable of Some(5000) None Some(Idle(7))"
        ]
    );
    for step in [3, 1000, 65_537] {
        assert!(parts(Trickle(&whole, step)) == found, "{step} bytes at a time");
    }
}

#[test]
fn a_damaged_file_is_refused_with_its_place() {
    let mut keyspace = keyspace();
    let key = keyspace.key(b"long");
    keyspace.database_mut(0).remove(&key);
    let key = keyspace.key(b"noise");
    keyspace.database_mut(0).remove(&key);
    let key = keyspace.key(b"set");
    keyspace.database_mut(1).remove(&key);
    let whole = write(&keyspace, Header::Common, OPTIONS, usize::MAX);
    let intact = parts(&whole[..]);
    for len in 0..whole.len() {
        let cut = check(&whole[..len]);
        let last = cut.last().expect("at least an error");
        assert!(
            last.starts_with(&format!("the data ends too early at offset {len}")),
            "cut to {len}: {last}"
        );
    }
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 0x10;
        // A flipped bit is seen in its place, or by the checksum at the latest.
        let last = check(&bad).pop().unwrap();
        assert!(last.contains(" at offset "), "byte {at}: {last}");
    }
    // Without a checksum there is none to be wrong.
    let mut unsummed = whole.clone();
    let end = whole.len() - 8;
    unsummed[end..].fill(0);
    assert_eq!(parts(&unsummed[..]), intact);
}

/// Lengths that end beyond the file, and beyond any memory, behind bytes that have been read.
#[test]
fn a_text_of_any_length_is_no_more_than_short() {
    for len in [100, u64::from(u32::MAX), i64::MAX as u64, u64::MAX] {
        let bytes = file(
            b"REDIS0010",
            &[b"\xfa\x01a\x81", &len.to_be_bytes()[..], b"text"].concat(),
        );
        for pace in [1, 7, 1000] {
            let found = parts(Trickle(&bytes, pace));
            assert!(
                found.last().is_some_and(|last| last.contains("ends")),
                "{len}: {found:?}"
            );
        }
    }
}

#[test]
fn an_error_names_the_key() {
    let found = check(b"REDIS0010\xfe\x00\x02\x03key\x02\x01a\x01a\xff");
    assert_eq!(
        found,
        [
            "database 0",
            "corrupt data: a member or field twice at offset 21, key 'key'"
        ]
    );
}

/// A file of these records, with its checksum.
fn file(magic: &[u8], records: &[u8]) -> Vec<u8> {
    let summed = [magic, records, b"\xff"].concat();
    let sum = Checksum::of(&summed).to_bytes();
    [&summed[..], &sum].concat()
}

#[test]
fn records_of_all_servers_are_read() {
    const JOB: &[u8] = b"\x280123456789012345678901234567890123456789";
    let import = [b"\xf3", JOB, b"\x01\x00\x7f\xff\x00\x01k\x01v"].concat();
    let bad_import = [b"\xf3", JOB, b"\x01\x00\x80\x00\x00\x40\x00\x00\x01k\x01v"].concat();
    let cases: &[(&[u8], &[u8], &[&str])] = &[
        // Properties in any order, each for the next key alone.
        (
            b"REDIS0009",
            b"\xf9\x07\xfd\x01\x00\x00\x00\x00\x01k\x01v\x00\x01l\x01w",
            &["k v Some(1000) Some(Frequency(7))", "l w None None"],
        ),
        (
            b"REDIS0011",
            b"\xfc\xe8\x03\0\0\0\0\0\0\xf8\x40\x64\x00\xc0\x05\xc0\x06",
            &["5 6 Some(1000) Some(Idle(100))"],
        ),
        // Numbers of keys that nobody can have, which nothing is made room for.
        (
            b"REDIS0010",
            b"\xfb\x81\x7f\xff\xff\xff\xff\xff\xff\xff\x81\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x01k\x01v",
            &["sizes 9223372036854775807 9223372036854775807", "k v None None"],
        ),
        // Sizes of slots, data of modules beside keys and about a key, a module's value.
        (
            b"REDIS0012",
            b"\xf4\x05\x01\x00\x00\x01k\x01v",
            &["k v None None"],
        ),
        (
            b"REDIS0010",
            b"\xf7\x81\x12\x34\x56\x78\x12\x34\x56\x78\x02\x01\x05\x01x\x00\x00\x01k\x01v",
            &["k v None None"],
        ),
        (
            b"REDIS0013",
            b"\xf3\x01abcd\x01\x05\x00\x00\x01k\x01v",
            &["k v None None"],
        ),
        (
            b"REDIS0010",
            b"\x07\x01m\x81\x12\x34\x56\x78\x12\x34\x56\x78\x03abcd\x04abcdefgh\x00\x00\x01k\x01v",
            &["skipped m not supported: a value of a module", "k v None None"],
        ),
        // The same opcode in Valkey: slots that were being imported.
        (b"VALKEY080", &import, &["k v None None"]),
        (
            b"VALKEY080",
            &bad_import,
            &["corrupt data: an import of slots that is none at offset 58"],
        ),
        // Collections without elements.
        (
            b"REDIS0006",
            b"\x02\x01e\x00\x0a\x01f\x0b\x0b\0\0\0\x0a\0\0\0\0\0\xff\x00\x01k\x01v",
            &[
                "skipped e a collection without elements",
                "skipped f a collection without elements",
                "k v None None",
            ],
        ),
        (
            b"REDIS0010",
            b"\xf6\x01x",
            &["not supported: a function of Redis 7.0 before its release at offset 10"],
        ),
    ];
    for (magic, records, expected) in cases {
        assert_eq!(check(&file(magic, records)), *expected, "{records:?}");
    }
    // Version 4 ends without a checksum.
    assert_eq!(check(b"REDIS0004\x00\x01k\x01v\xff"), ["k v None None"]);
}

#[test]
fn only_known_versions_are_opened() {
    for (magic, is_known) in [
        ("REDIS0001", true),
        ("REDIS0013", true),
        ("VALKEY080", true),
        ("REDIS0000", false),
        ("REDIS0014", false),
        ("REDIS0080", false),
        ("VALKEY079", false),
        ("VALKEY081", false),
        ("REDIS 010", false),
        ("RADIS0010", false),
        ("REDI", false),
    ] {
        let bytes = file(magic.as_bytes(), b"");
        assert_eq!(
            FileReader::open(&bytes[..], limits()).is_ok(),
            is_known,
            "{magic}"
        );
    }
}

#[test]
fn fields_that_expire_make_the_file_one_of_a_family() {
    let mut keyspace = keyspace();
    let mut hash = Hash::default();
    hash.set(b"f", b"v", FieldExpiry::At(1_700_000_000_000), 0, &limits().hash);
    let key = keyspace.key(b"hash");
    keyspace
        .database_mut(1)
        .set_collection(&key, Collection::Hash(hash), Expiry::Clear, 0);
    for (dialect, magic) in [(Dialect::Redis, b"REDIS0012"), (Dialect::Valkey, b"VALKEY080")] {
        let options = WriteOptions { dialect, ..OPTIONS };
        let bytes = write(&keyspace, Header::FieldExpiry, options, 1000);
        assert!(bytes.starts_with(magic));
        let found = check(&bytes);
        assert!(
            found
                .iter()
                .any(|part| part.starts_with("hash listpackex of Some(1)")),
            "{:?}",
            found.last()
        );
    }
}
