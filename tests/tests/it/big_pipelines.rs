//! Clients that send all of a long pipeline before they read anything.

use shardis_tests::client::{Client, encode};
use shardis_tests::node;
use shardis_tests::process::Process;

/// A server for each way to wait for sockets.
fn servers(shards: usize) -> Vec<Process> {
    let launch = |backend: &[&str]| {
        let launch = node::launch(shards).with(&["--unixsocket", "socket"]);
        launch.with(backend).serve()
    };
    if node::is_redis() {
        return vec![launch(&[])];
    }
    vec![
        launch(&["--io-backend", "epoll"]),
        launch(&["--io-backend", "io_uring"]),
    ]
}

/// `count` GETs of keys in turn are answered, all of them sent before anything is read. The keys are long, so that the
/// requests are more than what sockets hold.
fn check(mut client: Client, keys: usize, value: &str, count: usize) {
    let mut requests = Vec::new();
    let name = |number: usize| format!("{:-<200}{}", "key", number % keys);
    for key in 0..keys {
        encode(&mut requests, &["SET", &name(key), value]);
    }
    for number in 0..count {
        encode(&mut requests, &["GET", &name(number)]);
    }
    client.write(&requests).expect("the server goes on reading");
    for key in 0..keys {
        assert_eq!(client.read().expect("a reply").text(), "OK", "{key}");
    }
    for number in 0..count {
        assert_eq!(client.read().expect("a reply").text(), value, "{number}");
    }
}

#[test]
fn a_pipeline_of_values_over_a_unix_socket() {
    for shards in [1, 4] {
        for server in servers(shards) {
            let path = server.directory().join("socket");
            let client = Client::connect_unix(&path).expect("a connection");
            check(client, 10, &"v".repeat(1024), 10_000);
        }
    }
}

#[test]
fn a_long_pipeline_over_tcp() {
    for server in servers(4) {
        check(server.connect(), 10, &"v".repeat(100), 100_000);
    }
}

/// Replies larger than what a turn writes, and than a chunk, come whole and in order.
#[test]
fn large_replies_come_whole() {
    for server in servers(2) {
        let mut client = server.connect();
        let value: String = (0..3_000_000_u32)
            .map(|number| char::from(b'a' + (number % 23) as u8))
            .collect();
        for length in [60_000, 70_000, 3_000_000] {
            client.call(&["SET", &format!("key:{length}"), &value[..length]]);
        }
        let mut requests = Vec::new();
        let lengths = [
            60_000, 3_000_000, 70_000, 60_000, 60_000, 3_000_000, 3_000_000, 70_000,
        ];
        for length in lengths.iter().cycle().take(40) {
            encode(&mut requests, &["GET", &format!("key:{length}")]);
            encode(&mut requests, &["PING"]);
        }
        client.write(&requests).expect("the server goes on reading");
        for &length in lengths.iter().cycle().take(40) {
            assert!(
                client.read().expect("a reply").text() == value[..length],
                "{length}"
            );
            assert_eq!(client.read().expect("a reply").text(), "PONG");
        }
    }
}
