//! A client that waited is served with two shards while memory exceeds its limit, so that a third shard gives up keys: each
//! shard is charged what it took and credited what it gave up, and one without keys has next to no memory.

use std::time::Duration;

use redis::Connection;
use shardis::Server;
use shardis_cluster::slot::shard_of_key;

const SHARDS: usize = 3;

/// Keys that take the memory, all of them on the last shard.
const KEYS: usize = 20_000;

/// Bytes that may stay allocated in a shard without keys.
const EMPTY_BYTES_MAX: i64 = 16 << 10;

/// Time after which something counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

fn connect(server: &Server) -> Connection {
    let client = redis::Client::open(server.url()).expect("the URL is one that clients take");
    let connection = client.get_connection().expect("the server accepts connections");
    connection
        .set_read_timeout(Some(PATIENCE))
        .expect("a time to wait");
    connection
}

fn command(line: &str) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    line.split(' ').for_each(|word| {
        command.arg(word);
    });
    command
}

fn run(client: &mut Connection, line: &str) {
    command(line)
        .exec(client)
        .unwrap_or_else(|error| panic!("{line}: {error}"));
}

/// A hash tag of a shard.
fn tag(shard: usize) -> String {
    (0..)
        .map(|number| format!("{{{number}}}"))
        .find(|tag| shard_of_key(tag.as_bytes(), SHARDS) == shard)
        .expect("every shard has one")
}

/// The figures of that name in INFO: one, or one for each shard.
fn figures(client: &mut Connection, name: &str) -> Vec<i64> {
    let text: String = redis::cmd("INFO")
        .arg("everything")
        .query(client)
        .expect("a reply");
    let of_line = |line: &str| {
        let at = line.find(name)? + name.len();
        let digits = line[at..].split(|char: char| char != '-' && !char.is_ascii_digit());
        digits.clone().next()?.parse().ok()
    };
    text.lines().filter_map(of_line).collect()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 5 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{what}");
}

/// Stores far more on the last shard than the limit allows that is set next, and then a value that a client waits for. That value
/// has no expiry, so that it is not evicted before it is served.
fn push_beyond_the_limit(client: &mut Connection, list: &str) {
    run(client, "CONFIG SET maxmemory 0 maxmemory-policy volatile-lru");
    let (tag, value) = (tag(SHARDS - 1), "v".repeat(100));
    let mut fill = redis::pipe();
    for number in 0..KEYS {
        fill.cmd("SETEX")
            .arg(format!("{tag}{number}"))
            .arg(&["1000", &value])
            .ignore();
    }
    fill.cmd("CONFIG").arg(&["SET", "maxmemory", "1500kb"]).ignore();
    fill.cmd("RPUSH").arg(&[list, "value"]).ignore();
    fill.exec(client).expect("there is room, or it can be made");
}

#[test]
fn a_third_shard_that_makes_room_is_credited_with_it() {
    let server = Server::builder().shards(SHARDS).start().expect("it starts");
    let (mut client, mut waiting) = (connect(&server), connect(&server));
    let (from, to) = (tag(0), tag(1));
    let command = command(&format!("BLMOVE {from} {to} LEFT RIGHT 0"));
    for _ in 0..5 {
        waiting
            .send_packed_command(&command.get_packed_command())
            .expect("it is sent");
        until("the client waits", || {
            figures(&mut client, "blocked_clients:") == [1]
        });
        push_beyond_the_limit(&mut client, &from);
        waiting.recv_response().expect("the client is served");
    }
    assert!(figures(&mut client, "evicted_keys:")[0] > 0);
    run(&mut client, "CONFIG SET maxmemory 0");
    run(&mut client, "FLUSHALL");
    until("nothing waits to be freed", || {
        figures(&mut client, "lazyfree_pending_objects:") == [0]
    });
    let mut left = Vec::new();
    until("the shards are empty", || {
        left = figures(&mut client, "memory=");
        assert_eq!(left.len(), SHARDS);
        left.iter().all(|bytes| (0..=EMPTY_BYTES_MAX).contains(bytes))
    });
}
