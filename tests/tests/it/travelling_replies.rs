//! Replies that come from another loop than that of their connection are output of the connection, and under its limits.

use shardis_tests::client::{Client, words};
use shardis_tests::info::figure;
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::procfs::resident_bytes_max;
use shardis_tests::slot::key_of_shard;
use shardis_tests::wait::wait_until;

const SHARDS: usize = 2;

fn start(limit: &str) -> Process {
    node::launch(SHARDS)
        .with(&["--client-output-buffer-limit", limit])
        .serve()
}

/// Sends requests for many long replies of both shards at once, of which the connection's loop runs those of one.
fn ask_for_much(server: &Process, client: &mut Client) -> usize {
    let mut filler = server.connect();
    let element = "e".repeat(1000);
    let mut requests = Vec::new();
    for shard in 0..SHARDS {
        let key = key_of_shard("list", shard, SHARDS);
        let elements = vec![element.as_str(); 100];
        filler.pipeline(&[words(&[&["RPUSH", &key], &elements[..]].concat())]);
        requests.extend(vec![words(&["LRANGE", &key, "0", "-1"]); 500]);
    }
    let mut bytes = Vec::new();
    for request in &requests {
        shardis_tests::client::encode(&mut bytes, request);
    }
    client.write(&bytes).expect("sent");
    requests.len()
}

#[test]
fn what_travels_is_cut_where_output_is() {
    let server = start("normal 4mb 0 0");
    let mut watcher = server.connect();
    for count in 1..=4 {
        // It reads nothing.
        let mut greedy = server.connect();
        ask_for_much(&server, &mut greedy);
        wait_until("the client is closed", || {
            figure(&mut watcher, "client_output_buffer_limit_disconnections") == count
        });
    }
    // 50 MB of replies come from the other shard at a time.
    let peak = resident_bytes_max(server.pid()).expect("a running process");
    assert!(peak < 250 << 20, "{peak} bytes of memory at most");
}

#[test]
fn without_a_limit_all_of_it_arrives() {
    let server = start("normal 0 0 0");
    let mut client = server.connect();
    let count = ask_for_much(&server, &mut client);
    for _ in 0..count {
        assert_eq!(client.read().expect("a reply").items().len(), 100);
    }
}
