//! Commands about other connections act in their place in a transaction: after what is queued ahead of them, before the rest.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use shardis_tests::client::Client;
use shardis_tests::info::word;
use shardis_tests::process::Process;
use shardis_tests::reply::Reply;
use shardis_tests::wait::await_blocked;
use shardis_tests::{node, redis};

/// The servers that must agree: shardis with one shard and with four, redis-server and Valkey.
fn servers() -> Vec<Process> {
    vec![
        node::start(1),
        node::start(4),
        redis::start(),
        redis::start_peer(),
    ]
}

fn id(client: &mut Client) -> i64 {
    client.line("CLIENT ID").integer().expect("a number")
}

/// The texts of the replies to a transaction with these commands.
fn transaction(client: &mut Client, lines: &[&str]) -> Vec<String> {
    assert_eq!(client.line("MULTI").text(), "OK");
    for line in lines {
        assert_eq!(client.line(line).text(), "QUEUED", "{line}");
    }
    let reply = client.line("EXEC");
    let text = |reply: &Reply| {
        reply
            .integer()
            .map_or_else(|| reply.text(), |number| number.to_string())
    };
    reply.items().iter().map(text).collect()
}

#[test]
fn a_list_shows_what_was_said_before_it() {
    for server in servers() {
        let (mut client, mut other) = (server.connect(), server.connect());
        let list = format!("CLIENT LIST ID {} {}", id(&mut client), id(&mut other));
        let replies = transaction(
            &mut client,
            &[
                "CLIENT SETNAME one",
                &list,
                "SELECT 3",
                "SET a 1",
                "CLIENT SETNAME two",
                &list,
                "GET a",
            ],
        );
        let shown = |line| ["name", "db", "multi", "flags"].map(|name| word(line, name));
        assert_eq!(
            shown(&replies[1]),
            ["one", "0", "7", "x"].map(Some),
            "{replies:?}"
        );
        assert_eq!(
            shown(&replies[5]),
            ["two", "3", "7", "x"].map(Some),
            "{replies:?}"
        );
        assert_eq!(replies[6], "1");
    }
}

#[test]
fn a_subscriber_is_there_until_it_is_closed() {
    for server in servers() {
        let (mut client, mut subscriber) = (server.connect(), server.connect());
        let kill = format!("CLIENT KILL ID {}", id(&mut subscriber));
        subscriber.line("SUBSCRIBE news");
        let replies = transaction(
            &mut client,
            &["PUBLISH news a", "SET b 1", &kill, "PUBLISH news c", "GET b"],
        );
        assert_eq!(replies, ["1", "OK", "1", "0", "1"]);
        // It may have got the first message before.
        let (_, is_closed) = subscriber.rest(Duration::from_secs(10));
        assert!(is_closed);
    }
}

/// All bytes that a server sends until it closes the connection.
fn bytes_until_closed(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("a connection");
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a timeout");
    socket.write_all(request.as_bytes()).expect("a request");
    let mut bytes = String::new();
    socket
        .read_to_string(&mut bytes)
        .expect("the end of the connection");
    bytes
}

#[test]
fn a_client_that_closes_itself_gets_no_reply_behind_that() {
    // The commands run all the same.
    for (queue, expected) in [
        (&["SET a 1", "KILL", "INCR a", "GET a"][..], "*4\r\n+OK\r\n:1\r\n"),
        (&["KILL", "INCR a", "INCR a", "LPUSH l 1 2"], "*4\r\n:1\r\n"),
        (
            &["INCR a", "GET nokey", "INCR a", "KILL"],
            "*4\r\n:1\r\n$-1\r\n:2\r\n:1\r\n",
        ),
        (
            &["INCR a", "KILL", "LPUSH a 1", "CLIENT LIST", "INCR a"],
            "*5\r\n:1\r\n:1\r\n",
        ),
    ] {
        for server in servers() {
            let kill = "CLIENT KILL TYPE normal SKIPME no";
            let queue: String = queue
                .iter()
                .map(|line| line.replace("KILL", kill) + "\r\n")
                .collect();
            let bytes = bytes_until_closed(server.address(), &format!("MULTI\r\n{queue}EXEC\r\nPING\r\n"));
            let (_, reply) = bytes.rsplit_once("+QUEUED\r\n").expect("a queue");
            assert_eq!(reply, expected);
            assert_eq!(server.connect().line("GET a").text(), "2");
        }
    }
}

#[test]
fn a_wait_is_ended_before_what_comes_behind() {
    for server in servers() {
        let (mut client, mut waiter) = (server.connect(), server.connect());
        let unblock = format!("CLIENT UNBLOCK {} ERROR", id(&mut waiter));
        waiter.send(&["BLPOP", "list", "0"]).expect("a connection");
        await_blocked(&mut client, 1);
        let replies = transaction(
            &mut client,
            &["RPUSH list a", &unblock, &unblock, "LLEN list", "CLIENT UNPAUSE"],
        );
        assert_eq!(replies, ["1", "1", "0", "1", "OK"]);
        let reply = waiter.read().expect("a reply").text();
        assert!(reply.starts_with("UNBLOCKED "), "{reply}");
        assert_eq!(client.line("LLEN list").integer(), Some(1));
    }
}

#[test]
fn what_was_watched_is_looked_at_before_anything_runs() {
    for server in servers() {
        let (mut client, mut other) = (server.connect(), server.connect());
        let kill = format!("CLIENT KILL ID {}", id(&mut other));
        client.line("WATCH a b c d");
        other.line("SET c 1");
        assert_eq!(client.line("MULTI").text(), "OK");
        client.line("SET a 1");
        client.line(&kill);
        assert!(client.line("EXEC").is_null());
        assert_eq!(other.line("PING").text(), "PONG");
        // Changes by the transaction itself do not fail it.
        client.line("WATCH a b c d");
        let replies = transaction(&mut client, &["SET a 2", &kill, "SET b 3"]);
        assert_eq!(replies, ["OK", "1", "OK"]);
    }
}

#[test]
fn many_of_them_beside_writers() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let writers: Vec<_> = (0..3)
            .map(|_| {
                let mut client = server.connect();
                std::thread::spawn(move || {
                    for _ in 0..300 {
                        let replies = transaction(
                            &mut client,
                            &[
                                "INCR a",
                                "CLIENT LIST",
                                "INCR b",
                                "CLIENT KILL 1:1",
                                "INCR {a}c",
                                "CLIENT INFO",
                                "MGET a b {a}c",
                            ],
                        );
                        let counts = [&replies[0], &replies[2], &replies[4]];
                        assert!(counts.iter().all(|count| *count == counts[0]), "{replies:?}");
                    }
                })
            })
            .collect();
        writers
            .into_iter()
            .for_each(|writer| writer.join().expect("it ends"));
        assert_eq!(server.connect().line("GET b").text(), "900");
    }
}
