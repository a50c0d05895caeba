//! Files of snapshots between programs: shardis's reader takes those of real servers, and these load those of its writer.

use std::fs;
use std::path::Path;
use std::time::Duration;

use shardis_storage::key::KeyHasher;
use shardis_storage::keyspace::{Keyspace, KeyspaceOptions, Layout};
use shardis_storage::rdb::file::{FileReader, FileWriter, Header, Item, Record, Usage};
use shardis_storage::rdb::payload;
use shardis_storage::rdb::{Dialect, Limits, WriteOptions};
use shardis_tests::process::{Launch, Process};
use shardis_tests::redis::{self, Reference};
use tempfile::TempDir;

use super::dump_restore::{description, digests, fill, restore, start, start_reference};

fn limits() -> Limits {
    Limits::defaults(KeyHasher::new(1))
}

const OPTIONS: WriteOptions = WriteOptions {
    compress_max: 1 << 16,
    dialect: Dialect::Redis,
};

/// The keys of a file, and its other parts as text.
fn read(path: &Path) -> (Vec<Record>, String) {
    let file = fs::File::open(path).expect("a file");
    let reader = FileReader::open(file, limits()).expect("a file of a known version");
    let (mut keys, mut others) = (Vec::new(), String::new());
    for item in reader {
        match item.unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
            Item::Key(record) => keys.push(record),
            Item::Aux { name, .. } => others += &format!("{} ", String::from_utf8_lossy(&name)),
            other => others += &format!("{other:?} "),
        }
    }
    (keys, others)
}

#[test]
fn files_of_real_servers_are_read() {
    for reference in [Reference::Redis, Reference::Valkey] {
        let (server, subject) = (start_reference(reference), start(2));
        let (mut theirs, mut ours) = (server.connect(), subject.connect());
        let names = fill(&mut theirs);
        theirs.line("SET timed v PXAT 9999999999999");
        theirs.line("SELECT 3");
        theirs.line("SET elsewhere v");
        theirs.line("SELECT 0");
        assert_eq!(theirs.line("SAVE").text(), "OK");
        let (records, others) = read(&server.directory().join("dump.rdb"));
        assert_eq!(records.len(), names.len() + 2, "{others}");
        assert!(
            others.starts_with("redis-ver ") || others.starts_with("valkey-ver "),
            "{others}"
        );
        assert!(
            others.contains("Database(0)") && others.contains("Database(3)"),
            "{others}"
        );
        for Record { key, value, .. } in records {
            let key = String::from_utf8(key).expect("names are texts");
            let expiry = (key == "timed").then_some(9_999_999_999_999);
            assert_eq!(value.expiry(), expiry, "{key}");
            if names.contains(&key) {
                restore(&mut ours, &key, &payload::write(value.entry(), OPTIONS));
                assert_eq!(
                    description(&mut ours, &key),
                    description(&mut theirs, &key),
                    "{key}"
                );
            }
        }
    }
}

/// Writes all keys of a server to a file, in short steps.
fn write(server: &Process, header: Header, path: &Path) {
    let mut client = server.connect();
    let mut keyspace = Keyspace::new(KeyspaceOptions {
        databases: 1,
        layout: Layout::Single,
        hasher: KeyHasher::new(1),
        slot_of: |_| 0,
    });
    for name in client.line("KEYS *").items() {
        let dump = client.call(&[b"DUMP", name.bytes()]);
        let payload = payload::Payload::verified(dump.bytes()).expect("a payload");
        let value = payload.value(&limits()).expect("a value");
        let key = keyspace.key(name.bytes());
        keyspace.database_mut(0).insert(&key, value, 0);
    }
    let mut writer = FileWriter::new(header, OPTIONS, true);
    let mut bytes = Vec::new();
    writer.aux(b"redis-ver", b"7.0.15");
    writer.aux(b"redis-bits", b"64");
    let database = keyspace.database(0);
    writer.database(0, database.len(), database.volatile_len());
    database.for_each(|entry| {
        writer.key(entry, Some(Usage::Idle(1)));
        while !writer.step(entry, 1000) {
            bytes.extend(writer.take());
        }
    });
    bytes.extend(writer.finish());
    fs::write(path, bytes).expect("a file");
}

#[test]
fn real_servers_load_files_of_the_writer() {
    let subject = start(2);
    let mut ours = subject.connect();
    let names = fill(&mut ours);
    let directory = TempDir::new().expect("a directory");
    write(&subject, Header::Common, &directory.path().join("dump.rdb"));
    let place = directory.path().display().to_string();
    let check = Launch::new(&redis::tool("redis-check-rdb"))
        .with(&[format!("{place}/dump.rdb")])
        .finish(Duration::from_secs(30));
    assert_eq!(check.code, Some(0), "{}", check.text());
    for launch in [redis::launch(), redis::launch_peer()] {
        let server = launch
            .with(&["--enable-debug-command", "yes", "--dir", &place])
            .serve();
        let mut theirs = server.connect();
        assert_eq!(theirs.line("DBSIZE").integer(), Some(names.len() as i64));
        for key in &names {
            assert_eq!(
                description(&mut theirs, key),
                description(&mut ours, key),
                "{key}"
            );
        }
    }
    let server = redis::launch()
        .with(&["--enable-debug-command", "yes", "--dir", &place])
        .serve();
    let [first, second] = digests([&subject, &server]);
    assert_eq!(first, second);
}
