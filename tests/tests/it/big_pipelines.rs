//! Clients that send all of a long pipeline before they read anything.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
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

/// Sizes of values, some of which a socket takes as a whole, in part, or not at all.
const SIZES: [usize; 8] = [3, 11_000, 13_000, 16_384, 70_000, 200_000, 1_500_000, 5_000_000];

/// Bytes that tell where they stand.
fn pattern(size: usize) -> String {
    let mut text = String::with_capacity(size + 8);
    for number in 0.. {
        if text.len() >= size {
            break;
        }
        text += &format!("{number:x},");
    }
    text.truncate(size);
    text
}

/// A request, and its reply.
fn request_of_whole_reply(kind: usize, size: usize, value: &str) -> (Vec<String>, String) {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect();
    match kind % 6 {
        0 => (words(&format!("GET s{size}")), value.to_owned()),
        1 => (words(&format!("HGET h{size} field")), value.to_owned()),
        2 => (words(&format!("LINDEX l{size} 1")), value.to_owned()),
        3 => (words(&format!("GETRANGE s{size} 2 -1")), value[2..].to_owned()),
        4 => (words(&format!("GETEX s{size} PERSIST")), value.to_owned()),
        _ => (words("PING"), "PONG".to_owned()),
    }
}

/// Replies that leave as soon as they are there, past the output, and others before, between and behind them.
#[test]
fn replies_that_pass_the_output_keep_their_places() {
    for (shards, server) in [1, 4]
        .into_iter()
        .flat_map(|shards| servers(shards).into_iter().map(move |server| (shards, server)))
    {
        let mut client = server.connect();
        let values = SIZES.map(pattern);
        for (size, value) in SIZES.iter().zip(&values) {
            client.call(&["SET", &format!("s{size}"), value]);
            client.call(&["HSET", &format!("h{size}"), "field", value]);
            client.call(&["RPUSH", &format!("l{size}"), "first", value]);
        }
        let mut dice = SmallRng::seed_from_u64(7);
        for round in 0..60 {
            let (mut requests, mut expected) = (Vec::new(), Vec::new());
            for _ in 0..dice.random_range(1..40) {
                // A round of small ones only is the usual case, in which everything passes.
                let which = dice.random_range(0..if round % 3 == 0 { SIZES.len() } else { 5 });
                let (request, reply) =
                    request_of_whole_reply(dice.random_range(0..6), SIZES[which], &values[which]);
                encode(&mut requests, &request);
                expected.push(reply);
            }
            client.write(&requests).expect("the server goes on reading");
            for (number, reply) in expected.iter().enumerate() {
                let got = client.read().expect("a reply").text();
                assert!(
                    got == *reply,
                    "{shards} shards, round {round}, reply {number}: {} bytes for {}",
                    got.len(),
                    reply.len()
                );
            }
        }
    }
}
