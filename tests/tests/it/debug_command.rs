//! DEBUG where it is allowed: what it answers beside Redis, and what it does to a node of several shards.

use std::time::{Duration, Instant};

use shardis_tests::process::Process;
use shardis_tests::{node, redis};

/// A server of so many shards that allows DEBUG.
fn start(shards: usize) -> Process {
    node::launch(shards)
        .with(&["--enable-debug-command", "yes"])
        .serve()
}

#[test]
fn replies_are_those_of_redis() {
    let oracle = redis::launch().with(&["--enable-debug-command", "yes"]).serve();
    for shards in [1, 4] {
        let subject = start(shards);
        for protocol in ["HELLO 2", "HELLO 3"] {
            let [mut ours, mut theirs] = [&subject, &oracle].map(Process::connect);
            ours.line(protocol);
            theirs.line(protocol);
            for line in [
                "FLUSHALL",
                "DEBUG DIGEST",
                "SET a b",
                "SET number 12345",
                "SET volatile x EX 1000",
                "DEBUG DIGEST",
                "DEBUG DIGEST-VALUE a number volatile nosuch",
                "DEBUG DIGEST-VALUE",
                "DEBUG POPULATE 100",
                "DEBUG POPULATE 10 pre 20",
                "GET pre:9",
                "DBSIZE",
                "SELECT 3",
                "SET a b",
                "DEBUG DIGEST",
                "DEBUG POPULATE x",
                "DEBUG POPULATE 1 a -1",
                "DEBUG OBJECT nosuch",
                "DEBUG OBJECT a b",
                "DEBUG HTSTATS 99",
                "DEBUG HTSTATS -1",
                "DEBUG HTSTATS x",
                "DEBUG HTSTATS-KEY nosuch",
                "DEBUG HTSTATS-KEY a",
                "DEBUG PROTOCOL string",
                "DEBUG PROTOCOL integer",
                "DEBUG PROTOCOL double",
                "DEBUG PROTOCOL bignum",
                "DEBUG PROTOCOL null",
                "DEBUG PROTOCOL array",
                "DEBUG PROTOCOL set",
                "DEBUG PROTOCOL map",
                "DEBUG PROTOCOL attrib",
                "DEBUG PROTOCOL verbatim",
                "DEBUG PROTOCOL true",
                "DEBUG PROTOCOL false",
                "DEBUG PROTOCOL nonsense",
                "DEBUG SET-ACTIVE-EXPIRE 0",
                "DEBUG SET-ACTIVE-EXPIRE 1",
                "DEBUG SET-ACTIVE-EXPIRE",
                "DEBUG PAUSE-CRON 1",
                "DEBUG PAUSE-CRON 0",
                "DEBUG REPLYBUFFER RESIZING 0",
                "DEBUG REPLYBUFFER RESIZING 1",
                "DEBUG REPLYBUFFER PEAK-RESET-TIME NEVER",
                "DEBUG REPLYBUFFER PEAK-RESET-TIME RESET",
                "DEBUG REPLYBUFFER PEAK-RESET-TIME x",
                "DEBUG REPLYBUFFER nonsense 1",
                "DEBUG SLEEP 0.001",
                "DEBUG SLEEP x",
                "DEBUG LOG hello",
                "DEBUG ERROR MINE",
                "DEBUG REPLICATE SET a b",
                "DEBUG nonsense",
                "DEBUG",
                "DEBUG SLEEP",
                "DEBUG HELP x",
                "MULTI",
                "SET b c",
                "DEBUG DIGEST-VALUE b",
                "DEBUG nonsense",
                "EXEC",
            ] {
                assert_eq!(
                    ours.line(line),
                    theirs.line(line),
                    "{line} ({protocol}, {shards} shards)"
                );
            }
        }
    }
}

#[test]
fn values_are_described() {
    let server = start(2);
    let mut client = server.connect();
    client.line("SET k 12");
    let text = client.line("DEBUG OBJECT k").text();
    assert!(
        text.starts_with("Value at:0x") && text.contains(" encoding:int serializedlength:2 lru:"),
        "{text}"
    );
    let text = client.line("DEBUG HTSTATS 0").text();
    assert!(
        text.starts_with("[Dictionary HT]") && text.contains("number of elements: 1"),
        "{text}"
    );
    assert!(!server.log().contains("DEBUG LOG: mark"));
    client.line("DEBUG LOG mark");
    assert!(server.log().contains("DEBUG LOG: mark"), "{}", server.log());
}

/// While one connection has the server sleep, no other one is answered, whichever loop carries it.
#[test]
fn nobody_is_answered_while_the_server_sleeps() {
    let server = start(4);
    let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.line("PING");
    }
    clients[0].send(&["DEBUG", "SLEEP", "0.5"]).expect("a connection");
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    for client in &mut clients[1..] {
        client.send(&["PING"]).expect("a connection");
    }
    for client in &mut clients[1..] {
        assert_eq!(client.read().expect("a reply").text(), "PONG");
        assert!(
            begin.elapsed() > Duration::from_millis(250),
            "{:?}",
            begin.elapsed()
        );
    }
    assert_eq!(clients[0].read().expect("a reply").text(), "OK");
}

#[test]
fn expired_keys_stay_while_nobody_looks() {
    let server = start(2);
    let mut client = server.connect();
    client.line("DEBUG SET-ACTIVE-EXPIRE 0");
    for number in 0..10 {
        client.line(&format!("SET k{number} v PX 1"));
    }
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(client.line("DBSIZE").integer(), Some(10));
    client.line("DEBUG SET-ACTIVE-EXPIRE 1");
    let begin = Instant::now();
    while client.line("DBSIZE").integer() != Some(0) {
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "expired keys do not go"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn only_neighbours_may_where_the_directive_says_so() {
    for (permission, allowed) in [("no", false), ("local", true), ("yes", true)] {
        let server = node::launch(1)
            .with(&["--enable-debug-command", permission])
            .serve();
        let reply = server.connect().line("DEBUG SLEEP 0").text();
        assert_eq!(reply == "OK", allowed, "{permission}: {reply}");
        assert!(
            allowed || reply.starts_with("ERR DEBUG command not allowed."),
            "{reply}"
        );
    }
}
