//! Snapshots whose file takes in nothing for a while: a pipe stands in the place of the temporary file. What is on its way is
//! bounded, and only those wait who would change what is not saved.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use shardis_storage::key::KeyHasher;
use shardis_storage::rdb::Limits;
use shardis_storage::rdb::file::{FileReader, Item};
use shardis_tests::client::Client;
use shardis_tests::info::{field, figure};
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::procfs;
use shardis_tests::wait::wait_until;

const MOMENT: Duration = Duration::from_millis(300);

const KEYS: usize = 60_000;

/// Starts a server whose saves wait for nothing but their file.
pub(super) fn start(shards: usize) -> Process {
    node::launch(shards)
        .with(&[
            "--enable-debug-command",
            "yes",
            "--rdb-save-incremental-fsync",
            "no",
            "--rdbcompression",
            "no",
        ])
        .serve()
}

/// A pipe in the place of the file that the server is about to write.
struct Pipe(PathBuf);

impl Pipe {
    fn of(server: &Process) -> Self {
        let path = server.directory().join(format!("temp-{}.rdb", server.pid()));
        let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
        assert!(made.success());
        Self(path)
    }

    /// Takes in all that is written.
    fn drain(&self) -> JoinHandle<Vec<u8>> {
        let path = self.0.clone();
        spawn(move || {
            let mut bytes = Vec::new();
            let mut pipe = File::open(path).expect("the pipe");
            pipe.read_to_end(&mut bytes).expect("the server writes");
            bytes
        })
    }
}

fn resident_bytes(server: &Process) -> u64 {
    procfs::resident_bytes(server.pid()).expect("the server runs")
}

fn populate(client: &mut Client) {
    client.line(&format!("DEBUG POPULATE {KEYS} key 300"));
}

fn wait_until_stalled(client: &mut Client) {
    let mut before = None;
    let mut alike = 0;
    wait_until("nothing more is saved", || {
        let now = figure(client, "current_save_keys_processed");
        alike = if before == Some(now) { alike + 1 } else { 0 };
        before = Some(now);
        std::thread::sleep(Duration::from_millis(20));
        now > 0 && alike > 10
    });
}

/// The keys in the bytes of a file, each with the length of its text, or 0.
fn keys_in(bytes: &[u8]) -> Vec<(String, usize)> {
    let reader = FileReader::open(bytes, Limits::defaults(KeyHasher::new(1))).expect("a file");
    reader
        .filter_map(|item| match item.expect("a whole file") {
            Item::Key(record) => {
                let text = record.value.entry().string();
                let len = text.map_or(0, |text| text.len());
                Some((String::from_utf8_lossy(&record.key).into_owned(), len))
            }
            _ => None,
        })
        .collect()
}

/// Sends a command; true if it is answered at once.
fn is_answered(client: &mut Client, line: &str) -> bool {
    client
        .send(&line.split(' ').collect::<Vec<_>>())
        .expect("the server reads");
    client.read_within(MOMENT).is_ok()
}

#[test]
fn only_those_wait_who_change_what_is_not_saved() {
    for shards in [1, 2] {
        let server = start(shards);
        let mut client = server.connect();
        populate(&mut client);
        let pipe = Pipe::of(&server);
        let memory = resident_bytes(&server);
        client.line("BGSAVE");
        wait_until_stalled(&mut client);
        let grown = resident_bytes(&server).saturating_sub(memory);
        assert!(
            grown < shards as u64 * (6 << 20) + (8 << 20),
            "{grown} bytes more for {shards} shards"
        );
        let saved = figure(&mut client, "current_save_keys_processed") as usize;
        assert!(
            saved < KEYS,
            "{saved} are saved: {:?}",
            shardis_tests::info::fields(&mut client)
        );
        // New keys, and reads of all.
        for n in 0..300 {
            assert_eq!(client.line(&format!("SET new:{n} v")).text(), "OK");
            assert_eq!(client.line(&format!("STRLEN key:{n}")).integer(), Some(300));
        }
        let mut writers: Vec<Client> = (0..60).map(|_| server.connect()).collect();
        let mut waiting = Vec::new();
        for (n, writer) in writers.iter_mut().enumerate() {
            if !is_answered(writer, &format!("APPEND key:{n} more")) {
                waiting.push(n);
            }
        }
        assert!(
            !waiting.is_empty() && waiting.len() < 60,
            "{waiting:?} of 60 wait"
        );
        // A command that waits holds nobody up, but the later commands of its connection.
        let first = waiting[0];
        writers[first]
            .send(&["STRLEN", &format!("key:{first}")])
            .expect("it reads");
        assert!(writers[first].read_within(MOMENT).is_err());
        let begin = Instant::now();
        assert_eq!(client.line(&format!("STRLEN key:{first}")).integer(), Some(300));
        assert_eq!(client.line("PING").text(), "PONG");
        assert!(begin.elapsed() < MOMENT);
        let mut transaction = server.connect();
        for line in ["MULTI", "SET new:1 w", &format!("APPEND key:{first} more")] {
            transaction.line(line);
        }
        assert!(!is_answered(&mut transaction, "EXEC"));
        let mut several = server.connect();
        assert!(!is_answered(&mut several, &format!("MSET new:2 w key:{first} w")));
        assert_eq!(client.line("GET new:1").text(), "v", "EXEC has not begun");
        let drained = pipe.drain();
        for &n in &waiting {
            let length = writers[n]
                .read_within(Duration::from_secs(20))
                .expect("an answer");
            assert!(length.integer() >= Some(304) || n == first, "{length:?}");
        }
        assert!(
            !transaction
                .read_within(Duration::from_secs(20))
                .expect("an answer")
                .is_error()
        );
        assert!(
            !several
                .read_within(Duration::from_secs(20))
                .expect("an answer")
                .is_error()
        );
        let mut found = keys_in(&drained.join().expect("the pipe is read"));
        found.sort();
        found.dedup();
        assert_eq!(found.len(), KEYS, "each key once, and no new one");
        assert!(
            found
                .iter()
                .all(|(key, len)| key.starts_with("key:") && *len == 300)
        );
    }
}

#[test]
fn a_large_value_is_saved_in_slices_beside_others() {
    for shards in [1, 2] {
        let server = start(shards);
        let mut client = server.connect();
        for n in 0..100_000 {
            client
                .send(&["HSET", "large", &format!("field:{n}"), &"v".repeat(100)])
                .expect("it reads");
        }
        for _ in 0..100_000 {
            client.read().expect("a reply");
        }
        client.line("DEBUG POPULATE 2000 key 100");
        let pipe = Pipe::of(&server);
        client.line("BGSAVE");
        wait_until_stalled(&mut client);
        let mut writer = server.connect();
        assert!(
            !is_answered(&mut writer, "HSET large late 1"),
            "it is being saved, or is about to be"
        );
        assert_eq!(client.line("HGET large field:7").text().len(), 100);
        assert_eq!(client.line("HEXISTS large late").integer(), Some(0));
        let drained = pipe.drain();
        assert_eq!(
            writer
                .read_within(Duration::from_secs(20))
                .expect("an answer")
                .integer(),
            Some(1)
        );
        let bytes = drained.join().expect("the pipe is read");
        assert_eq!(keys_in(&bytes).len(), 2001);
        let reader = FileReader::open(&*bytes, Limits::defaults(KeyHasher::new(1))).expect("a file");
        let fields = reader.filter_map(|item| match item.expect("a whole file") {
            Item::Key(record) => record.value.entry().collection().map(|hash| hash.len()),
            _ => None,
        });
        assert_eq!(fields.collect::<Vec<_>>(), [100_000]);
    }
}

#[test]
fn what_expires_is_hidden_until_it_is_saved() {
    let server = start(2);
    let mut client = server.connect();
    populate(&mut client);
    for n in 0..60 {
        client.line(&format!("PEXPIRE key:{n} 1500"));
    }
    let pipe = Pipe::of(&server);
    client.line("BGSAVE");
    wait_until_stalled(&mut client);
    std::thread::sleep(Duration::from_millis(1600));
    let before = client.line("DBSIZE").integer().expect("a number");
    assert!(before > KEYS as i64 - 60, "some wait to be saved");
    for n in 0..60 {
        assert!(client.line(&format!("GET key:{n}")).is_null());
    }
    let drained = pipe.drain();
    wait_until("all have gone", || {
        client.line("DBSIZE").integer() == Some(KEYS as i64 - 60)
    });
    assert_eq!(keys_in(&drained.join().expect("the pipe is read")).len(), KEYS);
    assert_eq!(figure(&mut client, "expired_keys"), 60);
}

#[test]
fn what_was_saved_for_the_last_time_does_not_change() {
    let server = start(2);
    let (mut client, mut writer, mut ender) = (server.connect(), server.connect(), server.connect());
    client.line("MSET a 1 b 2 c 3");
    let pipe = Pipe::of(&server);
    ender.send(&["SHUTDOWN", "SAVE"]).expect("it reads");
    wait_until("it saves", || figure(&mut client, "rdb_bgsave_in_progress") == 1);
    wait_until("all is saved", || {
        figure(&mut client, "current_save_keys_processed") == 3
    });
    assert!(!is_answered(&mut writer, "INCR a"));
    let mut several = server.connect();
    assert!(!is_answered(&mut several, "MSET a 7 b 8 c 9"));
    assert_eq!(client.line("GET a").text(), "1");
    assert_eq!(client.line("MGET a b c").items().len(), 3);
    // The thread that writes waits for a reader of the pipe, and then learns that nothing more is wanted.
    assert_eq!(client.line("SHUTDOWN ABORT").text(), "OK");
    drop(File::open(&pipe.0).expect("the pipe"));
    let counted = writer.read_within(Duration::from_secs(20)).expect("an answer");
    // The two may go on in either order.
    assert!([Some(2), Some(8)].contains(&counted.integer()), "{counted:?}");
    assert_eq!(
        several
            .read_within(Duration::from_secs(20))
            .expect("an answer")
            .text(),
        "OK"
    );
    assert!(
        ender
            .read_within(Duration::from_secs(20))
            .expect("an answer")
            .is_error()
    );
    assert_eq!(field(&mut client, "rdb_bgsave_in_progress"), "0");
}

#[test]
fn eviction_goes_on_while_a_save_does_not() {
    let server = start(2);
    let mut client = server.connect();
    populate(&mut client);
    let used = figure(&mut client, "used_memory");
    let pipe = Pipe::of(&server);
    client.line("BGSAVE");
    wait_until_stalled(&mut client);
    client.line("CONFIG SET maxmemory-policy allkeys-random");
    client.line(&format!("CONFIG SET maxmemory {used}"));
    // Keys that are saved can go; the others stay until they are, and nobody is refused.
    for n in 0..2000 {
        assert_eq!(
            client
                .call(&["SET", &format!("new:{n}"), &"x".repeat(300)])
                .text(),
            "OK"
        );
    }
    let drained = pipe.drain();
    let found = keys_in(&drained.join().expect("the pipe is read"));
    assert_eq!(found.len(), KEYS);
    wait_until("memory is within its limit", || {
        figure(&mut client, "used_memory") <= used + (1 << 20)
    });
    assert!(figure(&mut client, "evicted_keys") > 0);
}
