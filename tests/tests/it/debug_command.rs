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

/// Says lines to shardis of one and of four shards and to Redis, under both protocols, and compares the replies.
fn agree(lines: &[&str]) {
    let oracle = redis::launch().with(&["--enable-debug-command", "yes"]).serve();
    for shards in [1, 4] {
        let subject = start(shards);
        for protocol in ["HELLO 2", "HELLO 3"] {
            let [mut ours, mut theirs] = [&subject, &oracle].map(Process::connect);
            for line in [protocol, "FLUSHALL"].iter().chain(lines) {
                let (reply, expected) = (ours.line(line), theirs.line(line));
                if *line != protocol {
                    assert_eq!(reply, expected, "{line} ({protocol}, {shards} shards)");
                }
            }
        }
    }
}

#[test]
fn replies_are_those_of_redis() {
    agree(&[
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
        "DEBUG OBJECT a fast b",
        "DEBUG HTSTATS 0 b",
        "DEBUG HTSTATS-KEY a b",
        "DEBUG QUICKLIST nosuch",
        "DEBUG QUICKLIST a",
        "DEBUG QUICKLIST",
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
    ]);
}

/// A member so long that its collection becomes a table.
const LONG: &str = "1234567890123456789012345678901234567890123456789012345678901234567890";

#[test]
fn collections_have_the_digests_of_redis() {
    let with = |head: &str, tail: &str| format!("{head} {LONG}{tail}");
    let [set, sorted_set, hash] = [
        with("SADD st a 1 z", ""),
        with("ZADD zt 1 a 3", ""),
        with("HSET ht f v", " 1"),
    ];
    agree(&[
        "RPUSH l a 1 b -7 a",
        "RPUSH ll a",
        "SADD s 1 2 3",
        "SADD sp 1 b",
        &set,
        "ZADD z 1 a 2.5 b -inf c inf d 0.1 e 1e300 f 1e-9 g 123456789012345678 h -3 7 1e17 i 12345.678 j 5e-324 k",
        &sorted_set,
        "HSET h f 1 g v",
        &hash,
        "EXPIRE h 1000",
        "DEBUG DIGEST-VALUE l ll s sp st z zt h ht",
        "DEBUG DIGEST",
        "DEBUG HTSTATS-KEY l",
        "DEBUG HTSTATS-KEY s",
        "DEBUG HTSTATS-KEY z",
        "DEBUG HTSTATS-KEY h",
        "DEBUG LISTPACK h",
        "DEBUG LISTPACK z",
        "DEBUG LISTPACK st",
        "DEBUG LISTPACK s",
        "DEBUG LISTPACK nosuch",
        "DEBUG LISTPACK",
        "DEBUG LISTPACK h 1",
        "DEBUG QUICKLIST-PACKED-THRESHOLD 100",
        "DEBUG QUICKLIST-PACKED-THRESHOLD 100b",
        "DEBUG QUICKLIST-PACKED-THRESHOLD 1kb",
        "DEBUG QUICKLIST-PACKED-THRESHOLD 3gb",
        "DEBUG QUICKLIST-PACKED-THRESHOLD 4gb",
        "DEBUG QUICKLIST-PACKED-THRESHOLD 4294967295",
        "DEBUG QUICKLIST-PACKED-THRESHOLD -1",
        "DEBUG QUICKLIST-PACKED-THRESHOLD x",
        "DEBUG QUICKLIST-PACKED-THRESHOLD 1.5mb",
        "DEBUG QUICKLIST-PACKED-THRESHOLD",
        "DEBUG QUICKLIST-PACKED-THRESHOLD 1 2",
        "DEBUG QUICKLIST-PACKED-THRESHOLD 0",
    ]);
}

/// The text of DEBUG OBJECT after a word.
fn told<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let behind = text.split(' ').find_map(|part| part.strip_prefix(word));
    behind.and_then(|rest| rest.strip_prefix(':'))
}

#[test]
fn collections_are_described_as_redis_does() {
    let oracle = redis::launch().with(&["--enable-debug-command", "yes"]).serve();
    let subject = start(3);
    let [mut ours, mut theirs] = [&subject, &oracle].map(Process::connect);
    let elements: String = (0..3000).map(|number| format!(" element:{number}")).collect();
    for line in [
        "DEBUG QUICKLIST-PACKED-THRESHOLD 100",
        "SADD s 1 2 3",
        &format!("SADD st {LONG} a b"),
        "ZADD z 1 a 2 b",
        &format!("ZADD zt 1 {LONG}"),
        "HSET h f v",
        &format!("HSET ht f {LONG}"),
        &format!("RPUSH l{elements}"),
        &format!("RPUSH l {LONG}{LONG}"),
        &format!("LPUSH l {LONG}{LONG}"),
        "CONFIG SET list-compress-depth 1",
        "CONFIG SET list-max-listpack-size 10",
        &format!("RPUSH lc{elements}"),
    ] {
        ours.line(line);
        theirs.line(line);
    }
    for key in ["s", "st", "z", "zt", "h", "ht", "l", "lc"] {
        let line = format!("DEBUG OBJECT {key}");
        let [subject, oracle] = [ours.line(&line).text(), theirs.line(&line).text()];
        for word in [
            "refcount",
            "ql_nodes",
            "ql_avg_node",
            "ql_listpack_max",
            "ql_compressed",
            "ql_uncompressed_size",
        ] {
            assert_eq!(
                told(&subject, word),
                told(&oracle, word),
                "{word} of {key}: {subject}"
            );
        }
        // The two compressors may differ a little in their results.
        let [subject, oracle] = [&subject, &oracle].map(|text| {
            let bytes = told(text, "serializedlength").and_then(|bytes| bytes.parse::<f64>().ok());
            bytes.expect("every value has a serialized length")
        });
        assert!(
            (subject - oracle).abs() <= 4.0 + oracle / 10.0,
            "{key}: {subject} {oracle}"
        );
    }
    let text = ours.line("DEBUG HTSTATS-KEY st").text();
    assert!(text.contains("number of elements: 3"), "{text}");
    ours.line("DEBUG LISTPACK h");
    assert!(subject.log().contains("DEBUG LISTPACK: "), "{}", subject.log());
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

#[test]
fn the_history_of_the_data_gets_another_name() {
    let server = start(2);
    let mut client = server.connect();
    let mut name = |section: &str, field: &str| {
        let info = client.line(&format!("INFO {section}")).text();
        let value = info.lines().find_map(|line| line.strip_prefix(field));
        value.expect(field).trim().to_owned()
    };
    let (run, first) = (name("server", "run_id:"), name("replication", "master_replid:"));
    assert!(
        run.len() == 40 && first.len() == 40 && run != first,
        "{run} {first}"
    );
    assert_eq!(server.connect().line("DEBUG CHANGE-REPL-ID").text(), "OK");
    let second = name("replication", "master_replid:");
    assert!(second.len() == 40 && second != first, "{second}");
    assert_eq!(name("server", "run_id:"), run);
}

#[test]
fn a_list_is_described_in_the_log() {
    let server = start(1);
    let mut client = server.connect();
    client.line("CONFIG SET list-max-listpack-size 2");
    client.line("RPUSH l first second third");
    let reply = client.line("DEBUG QUICKLIST l").text();
    assert_eq!(reply, "Quicklist structure printed on stdout");
    let log = server.log();
    assert!(
        log.contains("DEBUG QUICKLIST: 2 nodes, 3 elements") && !log.contains("second"),
        "{log}"
    );
    client.line("DEBUG QUICKLIST l 1");
    assert!(server.log().contains("second"), "{}", server.log());
}

#[test]
fn what_takes_time_is_left_out_of_a_fast_description() {
    let server = start(1);
    let mut client = server.connect();
    client.line("SET k v");
    let text = client.line("DEBUG OBJECT k FAST").text();
    assert!(
        text.contains(" encoding:embstr lru:") && !text.contains("serializedlength"),
        "{text}"
    );
    assert!(
        client
            .line("DEBUG HTSTATS 0 full")
            .text()
            .contains("number of elements: 1")
    );
}

/// A command that ends the process does so, and the log has the reason.
#[test]
fn it_ends_as_it_is_told_to() {
    for (word, signal) in [("PANIC", 6), ("ASSERT", 6), ("OOM", 6), ("SEGFAULT", 11)] {
        let mut server = start(2);
        let mut client = server.connect();
        client.send(&["DEBUG", word]).expect("a connection");
        let status = server.wait(Duration::from_secs(30)).expect("an end");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(signal),
            "{word}"
        );
        assert!(client.is_closed_within(Duration::from_secs(5)), "{word}");
        assert!(
            server.log().contains("crashed by signal"),
            "{word}: {}",
            server.log()
        );
    }
}
