//! Replies that come from another loop than that of their connection are output of the connection, and under its limits.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use shardis_tests::client::{Client, PATIENCE};
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::slot::key_of_shard;

const SHARDS: usize = 2;

fn words(line: &[&str]) -> Vec<Vec<u8>> {
    line.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn figure(client: &mut Client, name: &str) -> u64 {
    let text = client.line("INFO everything").text();
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("INFO has no {name}"))
}

/// The most memory that a process has ever had, bytes.
fn most_resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.expect("kilobytes") * 1024
}

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
        let deadline = Instant::now() + PATIENCE;
        while figure(&mut watcher, "client_output_buffer_limit_disconnections") < count {
            assert!(Instant::now() < deadline, "it should be closed");
            thread::sleep(Duration::from_millis(5));
        }
    }
    // 50 MB of replies come from the other shard at a time.
    let peak = most_resident_bytes(server.pid());
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
