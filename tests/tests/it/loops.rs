//! Several loops at once: long commands that leave other loops alone, connections that every loop accepts, pauses
//! that hold back work under way, time that is never older than the command.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shardis_tests::client::Client;
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::slot::one_key_per_shard;

const SHARDS: usize = 4;

/// Duration of a command that is long beside everything else in these tests.
const LONG: Duration = Duration::from_millis(600);

/// Commands that each loop has run so far.
fn loop_commands(control: &mut Client) -> Vec<u64> {
    let info = control.line("INFO shards").text();
    let figure = |line: &str| {
        line.split("loop_commands=")
            .nth(1)?
            .split(',')
            .next()?
            .parse()
            .ok()
    };
    info.lines().filter_map(figure).collect()
}

/// The loop that carries a client, found by the commands it runs.
fn loop_of(client: &mut Client, control: &mut Client) -> usize {
    const PINGS: u64 = 100;
    let before = loop_commands(control);
    for _ in 0..PINGS {
        client.line("PING");
    }
    let after = loop_commands(control);
    let grown = before
        .iter()
        .zip(&after)
        .position(|(before, after)| after - before >= PINGS);
    grown.expect("one loop has run the pings")
}

/// A client on each loop, by loop.
fn one_client_per_loop(server: &Process) -> Vec<Client> {
    let mut control = server.connect();
    let mut clients: Vec<Option<Client>> = (0..SHARDS).map(|_| None).collect();
    while clients.iter().any(Option::is_none) {
        let mut client = server.connect();
        let index = loop_of(&mut client, &mut control);
        clients[index].get_or_insert(client);
    }
    clients.into_iter().flatten().collect()
}

/// Makes LCS of these keys take at least [`LONG`].
fn make_long(client: &mut Client, keys: [&str; 2]) {
    // As long as the memory of a plain implementation would allow.
    client.line("CONFIG SET proto-max-bulk-len 1099511627776");
    for doubled in 3..10 {
        for (key, word) in keys.iter().zip(["abc", "bcad"]) {
            let value = word.repeat((1000 << doubled) / word.len());
            assert_eq!(client.call(&["SET", key, &value]).text(), "OK");
        }
        let start = Instant::now();
        client.call(&["LCS", keys[0], keys[1], "LEN"]);
        if start.elapsed() >= LONG {
            return;
        }
    }
    panic!("LCS of the longest strings is done too soon");
}

/// The longest PING on a client until `over`.
fn longest_ping(client: &mut Client, over: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        client.line("PING");
        longest = longest.max(start.elapsed());
        thread::sleep(Duration::from_millis(1));
    }
    longest
}

#[test]
fn a_long_command_over_other_shards_leaves_their_loops_alone() {
    let server = node::start(SHARDS);
    let mut clients = one_client_per_loop(&server);
    let keys = one_key_per_shard("key", SHARDS);
    let mut long = clients.remove(0);
    make_long(&mut long, [&keys[2], &keys[3]]);
    let over = Arc::new(AtomicBool::new(false));
    let pinging: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let over = Arc::clone(&over);
            thread::spawn(move || longest_ping(&mut client, &over))
        })
        .collect();
    let start = Instant::now();
    long.call(&["LCS", &keys[2], &keys[3], "LEN"]);
    let took = start.elapsed();
    over.store(true, Ordering::Relaxed);
    for (index, longest) in pinging.into_iter().enumerate() {
        let longest = longest.join().expect("it pings to the end");
        assert!(
            longest < took / 2,
            "PING on loop {} took {longest:?} beside a command of {took:?}",
            index + 1
        );
    }
}

#[test]
fn new_connections_wait_for_no_loop() {
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("key", SHARDS);
    make_long(&mut server.connect(), [&keys[0], &keys[1]]);
    for (index, mut busy) in one_client_per_loop(&server).into_iter().enumerate() {
        busy.send(&["LCS", &keys[0], &keys[1], "LEN"]).expect("sent");
        // Until its loop has certainly begun.
        thread::sleep(LONG / 3);
        let start = Instant::now();
        for _ in 0..2 * SHARDS {
            server.connect().line("PING");
        }
        let connected = start.elapsed();
        busy.read_within(Duration::from_secs(60)).expect("a reply");
        let took = start.elapsed();
        assert!(
            connected < took / 2,
            "connecting took {connected:?} while loop {index} was busy for {took:?}"
        );
    }
}

#[test]
fn connections_are_dealt_evenly() {
    let server = node::start(SHARDS);
    let mut control = server.connect();
    let mut carried = [0; SHARDS];
    let mut clients = Vec::new();
    for _ in 0..4 * SHARDS {
        let mut client = server.connect();
        carried[loop_of(&mut client, &mut control)] += 1;
        clients.push(client);
    }
    let (fewest, most) = (carried.iter().min(), carried.iter().max());
    // The loop of `control` carries one of its own.
    assert!(
        most.zip(fewest).is_some_and(|(most, fewest)| most - fewest <= 1),
        "{carried:?}"
    );
}

#[test]
fn what_comes_behind_a_long_command_has_a_time_of_its_own() {
    for shards in [1, SHARDS] {
        let server = node::start(shards);
        let mut client = server.connect();
        make_long(&mut client, ["{a}1", "{a}2"]);
        let words = |line: &str| {
            line.split(' ')
                .map(|word| word.as_bytes().to_vec())
                .collect::<Vec<_>>()
        };
        for (lines, key) in [
            (&["LCS {a}1 {a}2 LEN", "SET {a}p v PX 60000"][..], "{a}p"),
            (&["LCS {a}1 {a}2 LEN", "SET p v PX 60000"], "p"),
            (
                &["LCS {a}1 {a}2 LEN", "MSET x 1 y 2", "SET {a}q v PX 60000"],
                "{a}q",
            ),
        ] {
            let start = Instant::now();
            client.pipeline(&lines.iter().map(|line| words(line)).collect::<Vec<_>>());
            let took = start.elapsed();
            let left = client.line(&format!("PTTL {key}")).integer().expect("a time");
            let since = start.elapsed() - took;
            let gone = Duration::from_millis(60_000 - left.cast_unsigned());
            assert!(
                gone < since + took / 2,
                "{lines:?} over {shards} shards: {gone:?} were gone after {since:?}, the command took {took:?}"
            );
        }
    }
}

/// Writers that never stop: single keys, several at once, transactions.
fn start_writers(server: &Process, over: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<()>> {
    (0..8)
        .map(|number| {
            let (mut client, over) = (server.connect(), Arc::clone(over));
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let requests: Vec<Vec<Vec<u8>>> = match number % 3 {
                        0 => (0..8)
                            .map(|key| vec![b"INCR".to_vec(), format!("n{key}").into_bytes()])
                            .collect(),
                        1 => vec![
                            ["MSETNX", "m", "1", "n0", "1"]
                                .map(|word| word.as_bytes().to_vec())
                                .to_vec(),
                            ["INCR", "n3"].map(|word| word.as_bytes().to_vec()).to_vec(),
                        ],
                        _ => vec![
                            vec![b"MULTI".to_vec()],
                            ["INCR", "n1"].map(|word| word.as_bytes().to_vec()).to_vec(),
                            ["INCR", "n6"].map(|word| word.as_bytes().to_vec()).to_vec(),
                            vec![b"EXEC".to_vec()],
                        ],
                    };
                    client.pipeline(&requests);
                }
            })
        })
        .collect()
}

#[test]
fn a_pause_of_writes_holds_back_what_is_under_way() {
    for shards in [1, SHARDS] {
        let server = node::start(shards);
        let over = Arc::new(AtomicBool::new(false));
        let writers = start_writers(&server, &over);
        let (mut control, mut reader) = (server.connect(), server.connect());
        for round in 0..40 {
            thread::sleep(Duration::from_millis(10));
            let pause = if round % 2 == 0 {
                "CLIENT PAUSE 10000 WRITE"
            } else {
                "CLIENT PAUSE 10000 write"
            };
            assert_eq!(control.line(pause).text(), "OK");
            let read = |reader: &mut Client| reader.line("MGET n0 n1 n2 n3 n4 n5 n6 n7").to_string();
            let first = read(&mut reader);
            thread::sleep(Duration::from_millis(20));
            assert_eq!(
                read(&mut reader),
                first,
                "after OK of {pause}, {shards} shards, round {round}"
            );
            assert_eq!(control.line("CLIENT UNPAUSE").text(), "OK");
        }
        over.store(true, Ordering::Relaxed);
        writers
            .into_iter()
            .for_each(|writer| writer.join().expect("it writes to the end"));
    }
}

#[test]
fn paused_clients_are_blocked_and_their_time_begins_after_the_pause() {
    for shards in [1, SHARDS] {
        let server = node::start(shards);
        let mut control = server.connect();
        let lines = [
            "SET a 1",
            "BLPOP k 0.3",
            "PFCOUNT a",
            "PUBLISH c m",
            "MSET a 1 b 2 c 3",
        ];
        let mut held: Vec<Client> = lines.iter().map(|_| server.connect()).collect();
        assert_eq!(control.line("CLIENT PAUSE 1000 WRITE").text(), "OK");
        let start = Instant::now();
        for (client, line) in held.iter_mut().zip(lines) {
            client.send(&line.split(' ').collect::<Vec<_>>()).expect("sent");
        }
        thread::sleep(Duration::from_millis(200));
        let info = control.line("INFO clients").text();
        assert!(
            info.contains(&format!("blocked_clients:{}\r", lines.len())),
            "{info}"
        );
        let list = control.line("CLIENT LIST").text();
        assert_eq!(list.matches("flags=b").count(), lines.len(), "{list}");
        assert!(list.contains("cmd=blpop"), "{list}");
        for (client, line) in held.iter_mut().zip(lines) {
            client.read().expect("a reply");
            let (waited, at_least) = (
                start.elapsed(),
                if line.starts_with("BLPOP") { 1250 } else { 950 },
            );
            assert!(waited >= Duration::from_millis(at_least), "{line}: {waited:?}");
        }
        let info = control.line("INFO clients").text();
        assert!(info.contains("blocked_clients:0\r"), "{info}");
    }
}

#[test]
fn a_pause_in_a_transaction_holds_too() {
    let server = node::start(SHARDS);
    let (mut client, mut other) = (server.connect(), server.connect());
    for line in ["MULTI", "CLIENT PAUSE 300 WRITE", "GET a"] {
        client.line(line);
    }
    assert_eq!(client.line("EXEC").items().len(), 2);
    let start = Instant::now();
    other.line("SET a 1");
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[test]
fn a_transaction_whose_watch_failed_kills_nobody() {
    for shards in [1, SHARDS] {
        let server = node::start(shards);
        let (mut client, mut other, mut victim) = (server.connect(), server.connect(), server.connect());
        let id = victim.line("CLIENT ID").to_string();
        let id = id.trim_start_matches(':').to_owned();
        let kill = format!("CLIENT KILL ID {id}");
        client.line("WATCH w x");
        other.line("SET w 1");
        for line in ["MULTI", "GET x", &kill, "CLIENT LIST"] {
            client.line(line);
        }
        assert!(client.line("EXEC").is_null());
        assert_eq!(victim.line("PING").text(), "PONG");
        // Nor does one that could not be queued.
        for line in ["MULTI", &kill, "NOSUCHCOMMAND"] {
            client.line(line);
        }
        assert!(client.line("EXEC").to_string().contains("EXECABORT"));
        assert_eq!(victim.line("PING").text(), "PONG");
        // One that runs does.
        client.line("WATCH w x");
        for line in ["MULTI", "SET x 1", &kill, "GET x"] {
            client.line(line);
        }
        let replies = client.line("EXEC").to_string();
        assert!(replies.contains(":1"), "{replies}");
        assert!(victim.is_closed_within(Duration::from_secs(5)));
        assert_eq!(client.line("GET x").text(), "1");
    }
}

#[test]
fn the_command_of_a_client_that_goes_runs_all_the_same() {
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("key", SHARDS);
    let mut clients = one_client_per_loop(&server);
    let mut killer = one_client_per_loop(&server).remove(1);
    make_long(&mut clients[0], [&keys[2], &keys[3]]);
    clients[0]
        .send(&["LCS", &keys[2], &keys[3], "LEN"])
        .expect("sent");
    thread::sleep(Duration::from_millis(50));
    let mut gone = clients.remove(1);
    let [first, second] = [1, 2].map(|shard| format!("{{{}}}x", keys[shard]));
    gone.send(&["MSET", &first, "x", &second, "y"]).expect("sent");
    // Long enough for its loop to have asked for the shards.
    thread::sleep(Duration::from_millis(100));
    killer.line("CLIENT KILL TYPE normal SKIPME yes");
    drop(gone);
    let deadline = Instant::now() + Duration::from_secs(60);
    while killer.call(&["GET", &first]).is_null() {
        assert!(Instant::now() < deadline, "MSET has not run");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(killer.call(&["GET", &second]).text(), "y");
}
