//! Bounds on the work of one turn: the rest of a pipeline waits for the next turn, and nothing gets out of order by
//! that.

use shardis_tests::client::encode;
use shardis_tests::info::figure;
use shardis_tests::node;
use shardis_tests::slot::one_key_per_shard;

/// Bytes of a long value.
const LONG: usize = 200_000;

/// A long value that is not like others.
fn long_value(number: usize) -> String {
    format!("{number}{}", "x".repeat(LONG))
}

/// Long values are read by a pipeline in slices of about a mebibyte a turn, by whichever loop runs it: its length is no
/// reason for others to wait.
#[test]
fn a_pipeline_of_long_replies_takes_many_turns() {
    const GETS: usize = 400;
    for shards in [1, 2, 4] {
        let server = node::start(shards);
        let (mut client, mut control) = (server.connect(), server.connect());
        let keys = one_key_per_shard("k", shards);
        for key in &keys {
            client.call(&["SET", key, &"x".repeat(LONG)]);
        }
        let mut bytes = Vec::new();
        // Unsent replies would need turns of their own.
        encode(&mut bytes, &["CLIENT", "REPLY", "OFF"]);
        for key in keys.iter().cycle().take(GETS) {
            encode(&mut bytes, &["GET", key]);
        }
        encode(&mut bytes, &["CLIENT", "REPLY", "ON"]);
        let before = figure(&mut control, "eventloop_cycles");
        client.write(&bytes).expect("the server takes a pipeline");
        assert_eq!(client.read().expect("an answer").text(), "OK");
        let taken = figure(&mut control, "eventloop_cycles") - before;
        let slices = (GETS * LONG / (1 << 20)) as u64;
        assert!(
            taken >= slices / 2,
            "{shards} shards: {taken} turns for {slices} slices"
        );
    }
}

/// Commands of one connection on one shard run in order though each slice of them ends somewhere else, and their replies come
/// in the order of the commands.
#[test]
fn a_pipeline_in_slices_stays_in_order() {
    const COMMANDS: usize = 900;
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut client = server.connect();
        let keys = one_key_per_shard("k", shards);
        let mut bytes = Vec::new();
        for number in 0..COMMANDS {
            let key = &keys[number % shards];
            match number / shards % 5 {
                0 => encode(&mut bytes, &["SET", key, &long_value(number)]),
                1 | 2 => encode(&mut bytes, &["GET", key]),
                3 => encode(&mut bytes, &["APPEND", key, "y"]),
                _ => encode(&mut bytes, &["ECHO", &number.to_string()]),
            }
        }
        client.write(&bytes).expect("the server takes a pipeline");
        let mut expected: Vec<String> = vec![String::new(); shards];
        for number in 0..COMMANDS {
            let value = &mut expected[number % shards];
            let reply = client.read().expect("an answer for each command");
            match number / shards % 5 {
                0 => {
                    *value = long_value(number);
                    assert_eq!(reply.text(), "OK");
                }
                1 | 2 => assert!(reply.text() == *value, "{shards} shards, command {number}"),
                3 => {
                    value.push('y');
                    assert_eq!(reply.integer(), Some(value.len() as i64));
                }
                _ => assert_eq!(reply.text(), number.to_string()),
            }
        }
    }
}
