//! Several loops at once: long commands that leave other loops alone, connections that every loop accepts, pauses
//! that hold back work under way, time that is never older than the command.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shardis_tests::client::{Client, split, words};
use shardis_tests::info::figure;
use shardis_tests::loops::{connect_to_each, loop_of};
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::slot::one_key_per_shard;
use shardis_tests::wait::await_blocked;

const SHARDS: usize = 4;

/// Duration of a command that is long beside everything else in these tests.
const LONG: Duration = Duration::from_millis(600);

/// Makes LCS of these keys take at least [`LONG`].
fn make_long(client: &mut Client, keys: [&str; 2]) {
    make_last(client, keys, LONG);
}

/// Makes LCS of these keys take at least `time`.
fn make_last(client: &mut Client, keys: [&str; 2], time: Duration) {
    // As long as the memory of a plain implementation would allow.
    client.line("CONFIG SET proto-max-bulk-len 1099511627776");
    for doubled in 3..10 {
        for (key, word) in keys.iter().zip(["abc", "bcad"]) {
            let value = word.repeat((1000 << doubled) / word.len());
            assert_eq!(client.call(&["SET", key, &value]).text(), "OK");
        }
        let start = Instant::now();
        client.call(&["LCS", keys[0], keys[1], "LEN"]);
        if start.elapsed() >= time {
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
    let (server, idle) = (node::start(SHARDS), node::start(1));
    let mut clients = connect_to_each(&server);
    let keys = one_key_per_shard("key", SHARDS);
    let mut long = clients.remove(0);
    make_long(&mut long, [&keys[2], &keys[3]]);
    // A server with nothing else to do: its PINGs take as long as this machine makes them.
    clients.push(idle.connect());
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
    let longest = pinging
        .into_iter()
        .map(|pinging| pinging.join().expect("it pings to the end"));
    let longest: Vec<Duration> = longest.collect();
    let bound = took / 2 + longest[SHARDS - 1];
    for (index, longest) in longest[..SHARDS - 1].iter().enumerate() {
        assert!(
            *longest < bound,
            "PING on loop {} took {longest:?} beside a command of {took:?}; {bound:?} at most",
            index + 1
        );
    }
}

/// Whether new connections were accepted and served while a long command kept a loop busy.
fn connections_are_served_beside(server: &Process, busy: &mut Client, keys: &[String]) -> bool {
    busy.send(&["LCS", &keys[0], &keys[1], "LEN"]).expect("sent");
    // Until its loop has certainly begun.
    thread::sleep(LONG / 3);
    for _ in 0..2 * SHARDS {
        server.connect().line("PING");
    }
    let is_still_busy = busy.read_within(Duration::from_millis(1)).is_err();
    if is_still_busy {
        busy.read_within(Duration::from_secs(60)).expect("a reply");
    }
    is_still_busy
}

#[test]
fn new_connections_wait_for_no_loop() {
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("key", SHARDS);
    for (index, mut busy) in connect_to_each(&server).into_iter().enumerate() {
        // On a machine with much else to do the connections may need longer than the command. Those that waited for its
        // loop would need longer than any command.
        let are_served = [1, 3, 8].into_iter().any(|times| {
            make_last(&mut server.connect(), [&keys[0], &keys[1]], LONG * times);
            connections_are_served_beside(&server, &mut busy, &keys)
        });
        assert!(are_served, "new connections wait for loop {index}");
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
        for (lines, key) in [
            (&["LCS {a}1 {a}2 LEN", "SET {a}p v PX 60000"][..], "{a}p"),
            (&["LCS {a}1 {a}2 LEN", "SET p v PX 60000"], "p"),
            (
                &["LCS {a}1 {a}2 LEN", "MSET x 1 y 2", "SET {a}q v PX 60000"],
                "{a}q",
            ),
        ] {
            let start = Instant::now();
            client.pipeline(&lines.iter().map(|line| split(line)).collect::<Vec<_>>());
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
                        1 => vec![words(&["MSETNX", "m", "1", "n0", "1"]), words(&["INCR", "n3"])],
                        _ => vec![
                            vec![b"MULTI".to_vec()],
                            words(&["INCR", "n1"]),
                            words(&["INCR", "n6"]),
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
        let start = Instant::now();
        assert_eq!(control.line("CLIENT PAUSE 1000 WRITE").text(), "OK");
        for (client, line) in held.iter_mut().zip(lines) {
            client.send(&line.split(' ').collect::<Vec<_>>()).expect("sent");
        }
        await_blocked(&mut control, lines.len());
        let list = control.line("CLIENT LIST").text();
        assert_eq!(list.matches("flags=b").count(), lines.len(), "{list}");
        assert!(list.contains("cmd=blpop"), "{list}");
        for (client, line) in held.iter_mut().zip(lines) {
            client.read().expect("a reply");
            let (waited, at_least) = (
                start.elapsed(),
                if line.starts_with("BLPOP") { 1298 } else { 999 },
            );
            assert!(waited >= Duration::from_millis(at_least), "{line}: {waited:?}");
        }
        assert_eq!(figure(&mut control, "blocked_clients"), 0);
    }
}

#[test]
fn a_pause_in_a_transaction_holds_too() {
    let server = node::start(SHARDS);
    let (mut client, mut other) = (server.connect(), server.connect());
    for line in ["MULTI", "CLIENT PAUSE 300 WRITE", "GET a"] {
        client.line(line);
    }
    let start = Instant::now();
    assert_eq!(client.line("EXEC").items().len(), 2);
    other.line("SET a 1");
    assert!(start.elapsed() >= Duration::from_millis(299));
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
    let mut clients = connect_to_each(&server);
    let mut killer = connect_to_each(&server).remove(1);
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
