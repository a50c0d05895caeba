//! MIGRATE: keys on their way to another server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use shardis_tests::client::Client;
use shardis_tests::info::field;
use shardis_tests::process::Process;
use shardis_tests::wait::{accept, wait_until};
use shardis_tests::{node, redis};

const HOST: &str = "127.0.0.1";

/// Requests, each with the server that gets it: the source or the target.
const MOVES: &[(char, &str)] = &[
    ('s', "SET k v"),
    ('s', "RPUSH l 1 2 3"),
    ('s', "SET e x PX 100000"),
    ('s', "MIGRATE {} nokey 0 1000"),
    ('s', "MIGRATE {} k 0 1000"),
    ('s', "GET k"),
    ('t', "GET k"),
    ('s', "SET k v2"),
    ('s', "MIGRATE {} k 0 1000"),
    ('s', "MIGRATE {} k 0 1000 COPY REPLACE"),
    ('s', "GET k"),
    ('t', "GET k"),
    ('s', "SET k v3"),
    ('s', "MIGRATE {} k 0 1000 REPLACE"),
    ('s', "GET k"),
    ('t', "GET k"),
    ('s', "MSET a 1 b 2 c 3"),
    ('s', "MIGRATE {} \"\" 0 1000 KEYS a b l e nokey"),
    ('s', "EXISTS a b c l e"),
    ('t', "EXISTS a b c l e"),
    ('t', "LRANGE l 0 -1"),
    ('t', "PERSIST e"),
    ('s', "MIGRATE {} a 0 1000 KEYS b"),
    ('s', "MIGRATE {} a 0 1000 FOO"),
    ('s', "MIGRATE {} a 0 x"),
    ('s', "MIGRATE {} a x 1"),
    ('s', "MIGRATE {} a 0 1000 AUTH"),
    ('s', "MIGRATE {} a 0 1000 AUTH2 x"),
    ('s', "MIGRATE {}"),
    // Another database, known or not.
    ('s', "MIGRATE {} c 99 1000"),
    ('s', "EXISTS c"),
    ('s', "MIGRATE {} c 3 1000"),
    ('t', "SELECT 3"),
    ('t', "GET c"),
    ('t', "SELECT 0"),
    // The target has no password.
    ('s', "SET c 4"),
    ('s', "MIGRATE {} c 0 1000 AUTH pw"),
    ('s', "MIGRATE {} c 0 1000 AUTH2 us pw"),
    ('s', "EXISTS c"),
    // Nobody listens, or there is no such host.
    ('s', "MIGRATE 127.0.0.1 1 c 0 500"),
    ('s', "MIGRATE 127.0.0.1 noport c 0 500"),
    ('s', "MIGRATE no.such.host.invalid 7 c 0 500"),
    // One of several is refused.
    ('s', "MSET a 9 q 8"),
    ('t', "SET a old"),
    ('s', "MIGRATE {} \"\" 0 1000 KEYS q a c"),
    ('s', "EXISTS q a c"),
    ('t', "MGET q a c"),
    ('s', "MULTI"),
    ('s', "SET m 1"),
    ('s', "MIGRATE {} m 0 1000"),
    ('s', "EXISTS m"),
    ('s', "SET n 2"),
    ('s', "EXEC"),
    ('t', "GET m"),
    ('s', "COMMAND GETKEYS MIGRATE {} \"\" 0 10 KEYS a b"),
    ('s', "COMMAND GETKEYS MIGRATE {} k 0 10"),
];

/// The words of a request; two quotes are the empty one.
fn words(line: &str) -> Vec<Vec<u8>> {
    let word = |word: &str| word.trim_matches('"').as_bytes().to_vec();
    line.split(' ').map(word).collect()
}

/// The replies to the moves.
fn replies(source: &Process, target: &Process) -> Vec<String> {
    let (mut here, mut there) = (source.connect(), target.connect());
    let address = format!("{HOST} {}", target.port());
    let ask = |&(server, line): &(char, &str)| {
        let line = line.replace("{}", &address);
        let client = if server == 's' { &mut here } else { &mut there };
        client.call(&words(&line)).to_string()
    };
    MOVES.iter().map(ask).collect()
}

#[test]
fn keys_move_as_they_do_from_redis() {
    let (source, target) = (redis::start(), redis::start());
    let expected = replies(&source, &target);
    for shards in [1, 4] {
        for target in [redis::start(), node::start(shards)] {
            let found = replies(&node::start(shards), &target);
            for ((found, expected), (_, line)) in found.iter().zip(&expected).zip(MOVES) {
                assert_eq!(found, expected, "{line} on {shards} shards");
            }
        }
    }
}

/// A target that answers when it is told to.
struct Slow {
    listener: TcpListener,
    stream: Option<TcpStream>,
}

impl Slow {
    fn listen() -> Self {
        Self {
            listener: TcpListener::bind((HOST, 0)).expect("a free port"),
            stream: None,
        }
    }

    fn address(&self) -> String {
        format!(
            "{HOST} {}",
            self.listener.local_addr().expect("it is bound").port()
        )
    }

    /// Waits for SELECT and the key.
    fn take(&mut self) {
        let stream = accept(&self.listener);
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
        let mut line = String::new();
        while !line.starts_with("RESTORE") {
            line.clear();
            assert_ne!(reader.read_line(&mut line).expect("a line"), 0);
        }
        self.stream = Some(stream);
    }

    /// Confirms that both have been done.
    fn confirm(&mut self) {
        let stream = self.stream.as_mut().expect("the key has come");
        stream.write_all(b"+OK\r\n+OK\r\n").expect("it is written");
    }
}

/// A client whose request waits.
fn waiting(server: &Process, line: &str) -> Client {
    let mut client = server.connect();
    client.send(&words(line)).expect("it is written");
    let early = client.read_within(Duration::from_millis(100));
    assert!(early.is_err(), "{line}: {early:?}");
    client
}

#[test]
fn who_would_change_a_key_that_is_leaving_waits_until_it_has_left() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut client = server.connect();
        client.line("MSET k old other 1");
        let mut target = Slow::listen();
        let mut mover = server.connect();
        let line = format!("MIGRATE {} k 0 10000", target.address());
        mover.send(&words(&line)).unwrap();
        target.take();
        // Whoever reads it, or has to do with other keys, goes on, and no loop is deaf.
        assert_eq!(client.line("GET k").text(), "old");
        assert_eq!(client.line("SET other 2").text(), "OK");
        let mut setter = waiting(&server, "SETNX k new");
        let mut spanning = waiting(&server, "MSET k newer other 3");
        let mut second = waiting(&server, &line);
        let mut transaction = server.connect();
        for line in ["MULTI", "APPEND k !", "GET k"] {
            transaction.line(line);
        }
        transaction.send(&["EXEC"]).unwrap();
        assert_eq!(client.line("GET k").text(), "old");
        target.confirm();
        assert_eq!(mover.read().unwrap().text(), "OK");
        // It was gone when they went on, whoever of them came first.
        setter.read().unwrap();
        spanning.read().unwrap();
        assert!(!transaction.read().unwrap().items()[1].text().contains("old"));
        drop(target);
        second.read().unwrap();
        assert_eq!(client.line("SET k last").text(), "OK");
    }
}

#[test]
fn a_key_stays_if_the_target_is_silent() {
    let server = node::start(2);
    let mut client = server.connect();
    client.line("SET k old");
    let mut target = Slow::listen();
    let begin = Instant::now();
    let mut mover = server.connect();
    let line = format!("MIGRATE {} k 0 400", target.address());
    mover.send(&words(&line)).unwrap();
    target.take();
    let mut appender = waiting(&server, "APPEND k !");
    let reply = mover.read().unwrap().to_string();
    assert!(
        reply.contains("IOERR error or timeout reading to target instance"),
        "{reply}"
    );
    assert!(begin.elapsed() >= Duration::from_millis(400));
    assert_eq!(appender.read().unwrap().integer(), Some(4));
    assert_eq!(client.line("GET k").text(), "old!");
}

/// A node that is to become a replica does so when the key is where it is to be: here, or there.
#[test]
fn a_node_follows_when_its_keys_have_left() {
    let (server, primary) = (node::start(2), redis::start());
    primary.connect().line("CONFIG SET repl-diskless-sync-delay 0");
    primary.connect().line("SET of primary");
    let mut client = server.connect();
    client.line("SET k old");
    let mut target = Slow::listen();
    let mut mover = server.connect();
    let line = format!("MIGRATE {} k 0 20000", target.address());
    mover.send(&words(&line)).unwrap();
    target.take();
    let line = format!("REPLICAOF {HOST} {}", primary.port());
    assert_eq!(client.line(&line).text(), "OK");
    let early = mover.read_within(Duration::from_millis(1500));
    assert!(early.is_err(), "{early:?}");
    assert_eq!(field(&mut client, "master_link_status"), "down");
    assert_eq!(client.line("GET k").text(), "old");
    target.confirm();
    assert_eq!(mover.read().unwrap().text(), "OK");
    wait_until("it follows", || field(&mut client, "master_link_status") == "up");
    assert_eq!(client.line("GET of").text(), "primary");
    assert_eq!(client.line("DBSIZE").integer(), Some(1));
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_opened_again() {
    let (server, target) = (node::start(2), redis::start());
    let mut client = server.connect();
    let line = format!("MIGRATE {HOST} {} k 0 1000 REPLACE", target.port());
    for _ in 0..3 {
        client.line("SET k v");
        assert_eq!(client.line(&line).text(), "OK");
        target.connect().line("CLIENT KILL TYPE normal SKIPME yes");
    }
    // One that is kept is used again.
    let connections = |client: &mut Client| shardis_tests::info::figure(client, "total_connections_received");
    let mut there = target.connect();
    let before = connections(&mut there);
    for _ in 0..5 {
        client.line("SET k v");
        assert_eq!(client.line(&line).text(), "OK");
    }
    assert!(connections(&mut there) - before <= 1);
}

#[test]
fn replicas_and_events_tell_of_keys_that_have_left() {
    let (server, target, replica) = (node::start(2), redis::start(), redis::start());
    let mut client = server.connect();
    replica
        .connect()
        .line(&format!("REPLICAOF {HOST} {}", server.port()));
    client.line("CONFIG SET notify-keyspace-events KEA");
    client.line("MSET a 1 b 2 c 3");
    let mut there = replica.connect();
    wait_until("the replica follows", || {
        there.line("EXISTS a b c").integer() == Some(3)
    });
    let mut listener = server.connect();
    listener.line("PSUBSCRIBE __keyevent@0__:*");
    let line = format!("MIGRATE {HOST} {} \"\" 0 1000 KEYS a b", target.port());
    assert_eq!(client.call(&words(&line)).text(), "OK");
    for key in ["a", "b"] {
        let event = listener.read().unwrap();
        assert_eq!(event.items()[2].text(), "__keyevent@0__:del");
        assert_eq!(event.items()[3].text(), key);
    }
    wait_until("they are gone there", || {
        there.line("EXISTS a b c").integer() == Some(1)
    });
    assert_eq!(target.connect().line("MGET a b").items()[1].text(), "2");
}

#[test]
fn a_target_that_hangs_up_in_the_middle_is_tried_once_more() {
    let server = node::start(1);
    let mut client = server.connect();
    client.line("SET k v");
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    let line = format!(
        "MIGRATE {HOST} {} k 0 5000",
        listener.local_addr().unwrap().port()
    );
    client.send(&words(&line)).unwrap();
    for _ in 0..2 {
        let mut stream = accept(&listener);
        let _ = stream.read(&mut [0; 10]).unwrap();
    }
    let reply = client.read().unwrap().to_string();
    assert!(reply.contains("IOERR error or timeout"), "{reply}");
    assert_eq!(client.line("GET k").text(), "v");
}

/// Redis's MIGRATE does not look at the directive, which is about outgoing connections of all kinds.
#[test]
fn keys_come_from_the_address_of_the_configuration() {
    for (given, seen) in [("127.0.0.2", "127.0.0.2"), ("192.0.2.7", HOST)] {
        let server = node::launch(2).with(&["--bind-source-addr", given]).serve();
        let mut client = server.connect();
        client.line("SET k v");
        let mut target = Slow::listen();
        let line = format!("MIGRATE {} k 0 10000", target.address());
        client.send(&words(&line)).expect("it is written");
        target.take();
        let peer = target.stream.as_ref().expect("the key has come").peer_addr();
        assert_eq!(
            peer.expect("it is connected").ip().to_string(),
            seen,
            "with {given}"
        );
        target.confirm();
        assert_eq!(client.read().expect("a reply").text(), "OK");
    }
}
