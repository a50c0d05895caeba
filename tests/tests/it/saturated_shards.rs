//! Clients that wait for what needs two shards, both of which are never idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use shardis_tests::client::{Client, PATIENCE, encode, words};
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::slot::key_of_shard;

const SHARDS: usize = 2;

/// Clients that keep the shards busy.
const CLIENTS: usize = 4 * SHARDS;

/// Requests that a client sends at once. They are so long that a loop reads a few of them in a turn: it finds more in each.
const REQUESTS: usize = 64;

/// Bytes of a word in them.
const WORD_BYTES: usize = 8 << 10;

/// Stores a list that takes long to be looked through.
fn fill(client: &mut Client, key: &str) {
    let elements = vec!["element"; 1000];
    let push = words(&[&["RPUSH", key], &elements[..]].concat());
    client.pipeline(&vec![push; 10]);
}

/// Clients that never leave the shards alone.
struct Busy {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    fn with(server: &Process) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for place in 0..CLIENTS {
            let key = key_of_shard("long", place % SHARDS, SHARDS);
            if place < SHARDS {
                fill(&mut server.connect(), &key);
            }
            let look = words(&["LPOS", &key, &"m".repeat(WORD_BYTES)]);
            let mut requests = Vec::new();
            (0..REQUESTS).for_each(|_| encode(&mut requests, &look));
            let (mut client, is_over) = (server.connect(), Arc::clone(&is_over));
            threads.push(thread::spawn(move || {
                client.write(&requests).expect("sent");
                while !is_over.load(Ordering::Relaxed) {
                    // The next ones are there before these are done.
                    client.write(&requests).expect("sent");
                    (0..REQUESTS).for_each(|_| drop(client.read().expect("a reply")));
                }
            }));
        }
        Self { is_over, threads }
    }

    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no panic");
        }
    }
}

#[test]
fn a_move_between_two_busy_shards_comes_to_its_turn() {
    let server = node::launch(SHARDS).serve();
    let (source, destination) = (
        key_of_shard("source", 0, SHARDS),
        key_of_shard("destination", 1, SHARDS),
    );
    let (mut waiting, mut writer) = (server.connect(), server.connect());
    let busy = Busy::with(&server);
    let waits: Vec<Duration> = (0..30)
        .map(|_| {
            waiting
                .send(&["BLMOVE", &source, &destination, "LEFT", "LEFT", "0"])
                .expect("sent");
            // It has come to wait, or is served at once: then the push before it was fast.
            thread::sleep(Duration::from_millis(50));
            assert!(writer.call(&["RPUSH", &source, "v"]).integer().is_some());
            let begin = Instant::now();
            assert_eq!(waiting.read_within(PATIENCE).expect("served").text(), "v");
            begin.elapsed()
        })
        .collect();
    busy.end();
    let slowest = waits.into_iter().max();
    assert!(slowest < Some(Duration::from_secs(5)), "{slowest:?}");
}
