//! The append-only file: a real redis-server loads what is written, whatever the commands, and nothing acknowledged is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use shardis_tests::client::{Client, words};
use shardis_tests::dialogue::{self, Action};
use shardis_tests::generate::{Generator, look_at_all};
use shardis_tests::info::{field, figure};
use shardis_tests::node;
use shardis_tests::process::{Launch, Process};
use shardis_tests::redis;
use shardis_tests::reply::Reply;
use shardis_tests::wait::wait_until;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

const SIGKILL: i32 = 9;

/// A server that appends to files in a directory.
pub(super) fn launch(shards: usize, directory: &Path, policy: &str) -> Launch {
    node::launch(shards).with(&append_only(directory, policy))
}

/// A real server that does.
pub(super) fn launch_real(directory: &Path) -> Launch {
    redis::launch().with(&append_only(directory, "everysec"))
}

fn append_only(directory: &Path, policy: &str) -> [String; 8] {
    let directory = directory.display().to_string();
    [
        "--appendonly",
        "yes",
        "--appendfsync",
        policy,
        "--dir",
        &directory,
        "--enable-debug-command",
        "yes",
    ]
    .map(str::to_owned)
}

pub(super) fn directory() -> TempDir {
    TempDir::new().expect("a directory")
}

pub(super) fn kill(mut server: Process) {
    server.signal(SIGKILL);
    assert!(server.wait(PATIENCE).is_some(), "it is killed");
}

fn digest(client: &mut Client) -> String {
    client.line("DEBUG DIGEST").text()
}

/// The commands of the file that is being written, as text.
fn written(directory: &Path) -> String {
    let path = directory.join("appendonlydir/appendonly.aof.1.incr.aof");
    String::from_utf8_lossy(&fs::read(path).expect("an increment")).replace("\r\n", " ")
}

/// Has the stock tool look at all files.
pub(super) fn check(directory: &Path) {
    let manifest = directory.join("appendonlydir/appendonly.aof.manifest");
    let output = Command::new(redis::tool("redis-check-aof"))
        .arg(&manifest)
        .output()
        .expect("redis-check-aof");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("All AOF files and manifest are valid"),
        "{said}"
    );
}

/// A digest of each value.
fn values(client: &mut Client) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for key in client.line("KEYS *").items() {
        let digest = client.call(&[b"DEBUG", b"DIGEST-VALUE".as_slice(), key.bytes()]);
        let shown = key.bytes().escape_ascii().to_string();
        values.insert(shown, digest.items()[0].text());
    }
    values
}

/// Kills the server; a real one, and one with another number of shards, load its files, and have the same data.
pub(super) fn compare_with_others(server: Process, directory: &Path) {
    let mut client = server.connect();
    // Nothing is to expire between two looks.
    for key in client.line("KEYS *").items() {
        client.call(&[b"PERSIST".as_slice(), key.bytes()]);
    }
    let (ours, our_values) = (digest(&mut client), values(&mut client));
    // A write may be put off while a sync is under way.
    client.line("WAITAOF 1 0 0");
    kill(server);
    check(directory);
    for other in [launch(3, directory, "everysec"), launch_real(directory)] {
        let other = other.serve();
        let mut client = other.connect();
        assert_eq!(our_values, values(&mut client), "values by key");
        assert_eq!(ours, digest(&mut client), "{}", other.log());
    }
}

#[test]
fn a_real_server_loads_what_random_commands_have_left() {
    for (shards, seed) in [(1, 11), (4, 12)] {
        let place = directory();
        let server = launch(shards, place.path(), "everysec").serve();
        let mut clients = [server.connect(), server.connect()];
        let mut generator = Generator::new(seed);
        for _ in 0..30_000 {
            let command = generator.command();
            // Thresholds of encodings are no data. Replies are looked at elsewhere.
            if command.words[0].eq_ignore_ascii_case(b"config") {
                continue;
            }
            let _ = clients[command.client].try_call(&command.words).expect("a reply");
        }
        for client in &mut clients {
            client.line("DISCARD");
            client.call(&look_at_all());
        }
        compare_with_others(server, place.path());
    }
}

/// The commands of the dialogues, as far as 7.0 knows them.
#[test]
fn a_real_server_loads_what_the_dialogues_have_left() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let reply = redis::start().connect().line("COMMAND LIST");
    let known: Vec<String> = reply.items().iter().map(Reply::text).collect();
    for (number, file) in [
        "strings",
        "string_numbers",
        "bitmaps",
        "keys",
        "lists",
        "hashes",
        "sets",
        "sorted_sets",
        "hyperloglog",
        "geo",
        "streams",
        "stream_groups",
        "sort",
        "collections_encoding",
        "option_pairs",
        "transactions",
        "expiry",
    ]
    .into_iter()
    .enumerate()
    {
        let text = fs::read_to_string(cases.join(format!("{file}.txt"))).expect("a file");
        let place = directory();
        let server = launch(1 + 3 * (number % 2), place.path(), "everysec").serve();
        let mut client = server.connect();
        for dialogue in dialogue::parse(&text).expect("dialogues") {
            for step in dialogue.steps {
                let Action::Say(words) = step.action else { continue };
                if is_of_data(&words) && known.contains(&name(&words)) {
                    let _ = client.try_call(&words).expect("a reply");
                }
            }
        }
        client.line("DISCARD");
        let mut all = vec!["EXISTS".to_owned()];
        all.extend(keys(&mut client));
        client.call(&all);
        compare_with_others(server, place.path());
    }
}

/// Whether a command of a dialogue works on data that stays, needs nothing replaced, and does not wait.
fn is_of_data(words: &[Vec<u8>]) -> bool {
    const OTHERS: &str = "hello reset quit client config debug shutdown monitor subscribe psubscribe ssubscribe select blpop \
                          brpop blmove brpoplpush blmpop bzpopmin bzpopmax bzmpop wait waitaof expire pexpire setex psetex \
                          ";
    let has_blank = words.iter().any(|word| word.windows(2).any(|two| two == b"${"));
    let is_option = |word: &[u8]| {
        ["block", "ex", "px"]
            .iter()
            .any(|option| word.eq_ignore_ascii_case(option.as_bytes()))
    };
    let is_other = OTHERS.split_ascii_whitespace().any(|other| other == name(words));
    !is_other && !has_blank && !words.iter().any(|word| is_option(word))
}

fn name(words: &[Vec<u8>]) -> String {
    String::from_utf8_lossy(&words[0]).to_ascii_lowercase()
}

fn keys(client: &mut Client) -> Vec<String> {
    let reply = client.line("KEYS *");
    let mut keys: Vec<String> = reply.items().iter().map(Reply::text).collect();
    keys.push("none".to_owned());
    keys
}

#[test]
fn the_file_tells_of_databases_and_of_what_belongs_together() {
    let place = directory();
    let server = launch(4, place.path(), "everysec").serve();
    let mut client = server.connect();
    for line in [
        "SET a 1",
        "PUBLISH channel message",
        "SELECT 9",
        "MULTI",
        "SET b 1",
        "SET c 2",
        "SELECT 0",
        "INCR a",
        "GET a",
        "EXEC",
        "MULTI",
        "SET d 1",
        "GET d",
        "EXEC",
        "SET e v EX 1000",
        "SADD s only",
        "SPOP s",
    ] {
        assert!(!client.line(line).is_error(), "{line}");
    }
    let text = written(place.path());
    let (before, after) = text
        .split_once("*5 $3 SET $1 e $1 v $4 PXAT $13 ")
        .unwrap_or((&text, ""));
    assert_eq!(
        before,
        "*2 $6 SELECT $1 0 *3 $3 SET $1 a $1 1 *2 $6 SELECT $1 9 *1 $5 MULTI *3 $3 SET $1 b $1 1 *3 $3 SET $1 c $1 2 \
         *2 $6 SELECT $1 0 *2 $4 INCR $1 a *1 $4 EXEC *3 $3 SET $1 d $1 1 "
    );
    assert_eq!(&after[13..], " *3 $4 SADD $1 s $4 only *3 $4 SREM $1 s $4 only ");
}

/// An inline request, and one whose lengths have zeros ahead, become commands as every client sends them.
#[test]
fn requests_in_other_forms_are_written_in_the_usual_one() {
    let place = directory();
    let server = launch(1, place.path(), "everysec").serve();
    let mut client = server.connect();
    client
        .write(b"set a 'b c'\r\n*3\r\n$3\r\nSETxx$1\r\nbxx$1\r\ncxx")
        .expect("sent");
    for _ in 0..2 {
        assert_eq!(client.read().expect("a reply").text(), "OK");
    }
    let long = "x".repeat(40_000);
    assert_eq!(client.call(&["SET", "long", &long]).text(), "OK");
    assert_eq!(
        written(place.path()),
        format!(
            "*2 $6 SELECT $1 0 *3 $3 set $1 a $3 b c *3 $3 SET $1 b $1 c *3 $3 SET $4 long $5 40000 {long} "
        )
        .replace("$5 40000", "$40000")
    );
}

#[test]
fn a_killed_server_has_written_what_it_has_acknowledged() {
    for policy in ["no", "everysec", "always"] {
        for shards in [1, 4] {
            let place = directory();
            let server = launch(shards, place.path(), policy).serve();
            let mut client = server.connect();
            let requests: Vec<_> = (0..2000)
                .map(|number| words(&["SET", &format!("key:{number}"), &number.to_string()]))
                .collect();
            assert!(
                client
                    .pipeline(&requests)
                    .iter()
                    .all(|reply| reply.text() == "OK")
            );
            compare_with_others(server, place.path());
        }
    }
}

#[test]
fn replies_under_always_wait_for_the_file_and_so_do_those_who_read() {
    let place = directory();
    let server = launch(2, place.path(), "always").serve();
    let (mut writer, mut reader, mut other) = (server.connect(), server.connect(), server.connect());
    // Each write to the file takes a while.
    assert_eq!(other.line("DEBUG AOF-FLUSH-SLEEP 700000").text(), "OK");
    writer.send(&["SET", "a", "1"]).expect("sent");
    wait_until("the value is there", || {
        // It is seen in the figures before anybody is told of it.
        written(place.path()).is_empty()
    });
    std::thread::sleep(Duration::from_millis(100));
    reader.send(&["GET", "a"]).expect("sent");
    let early = reader.read_within(Duration::from_millis(200));
    assert!(
        early.is_err(),
        "a value that is not in the file was shown: {early:?}"
    );
    assert!(written(place.path()).is_empty());
    assert_eq!(reader.read_within(PATIENCE).expect("a reply").text(), "1");
    assert_eq!(writer.read_within(PATIENCE).expect("a reply").text(), "OK");
    assert!(written(place.path()).contains("SET"));
}

#[test]
fn who_waits_for_the_file_is_told_when_it_is_on_disk() {
    let place = directory();
    let server = launch(2, place.path(), "everysec").serve();
    let mut client = server.connect();
    assert_eq!(client.line("SET a 1").text(), "OK");
    let reply = client.line("WAITAOF 1 0 5000");
    assert_eq!(reply.items()[0].integer(), Some(1));
    client.line("CONFIG SET appendfsync no");
    client.line("SET a 2");
    let reply = client.line("WAITAOF 1 0 50");
    assert_eq!(reply.items()[0].integer(), Some(0), "nothing syncs it");
    client.line("CONFIG SET appendfsync always");
    let reply = client.line("WAITAOF 1 0 0");
    assert_eq!(reply.items()[0].integer(), Some(1));
    client.line("MULTI");
    client.line("WAITAOF 1 0 0");
    let reply = client.line("EXEC");
    assert_eq!(reply.items()[0].items()[0].integer(), Some(1));
    client.line("CONFIG SET appendonly no");
    assert!(client.line("WAITAOF 1 0 0").is_error());
}

#[test]
fn the_file_and_its_figures_are_told_of() {
    let place = directory();
    let server = launch(2, place.path(), "everysec").serve();
    let mut client = server.connect();
    client.line("SET a 1");
    assert_eq!(field(&mut client, "aof_enabled"), "1");
    let size = fs::metadata(place.path().join("appendonlydir/appendonly.aof.1.incr.aof"))
        .expect("a file")
        .len();
    let base = fs::metadata(place.path().join("appendonlydir/appendonly.aof.1.base.rdb"))
        .expect("a file")
        .len();
    assert_eq!(figure(&mut client, "aof_current_size"), size + base);
    assert_eq!(figure(&mut client, "aof_base_size"), base);
    assert_eq!(figure(&mut client, "aof_buffer_length"), 0);
    client.line("CONFIG SET appendonly no");
    assert_eq!(field(&mut client, "aof_enabled"), "0");
}
