//! Connections come and go on all loops: a descriptor that one loop closes may at once be another loop's new connection,
//! which must get nothing that was meant for the one before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shardis_tests::client::{Client, encode};
use shardis_tests::node;
use shardis_tests::process::Process;

const SHARDS: usize = 4;

/// Asks for more than it reads, and goes in the middle of it, or at once.
fn leave_early(server: &Process, over: &AtomicBool) {
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let mut client = server.connect();
        let mut requests = Vec::new();
        for n in 0..20 {
            encode(&mut requests, &["GET", &format!("key:{n}")]);
        }
        let _ = client.write(&requests);
        count += 1;
        if count % 2 == 0 {
            // Once this one is served, so is the one before: the queue of new connections stays short, behind which the
            // others wait.
            let _ = client.read();
        }
    }
}

/// Connects, and expects just the answer to its one request.
fn expect_own_reply(server: &Process, over: &AtomicBool, name: usize) -> Result<u64, String> {
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let mut client = Client::connect(server.address()).map_err(|error| error.to_string())?;
        let token = format!("token {name} {count}");
        for word in [&token, "the end"] {
            let reply = client
                .try_call(&["ECHO", word])
                .map_err(|error| error.to_string())?;
            if reply.bytes() != word.as_bytes() {
                return Err(format!("{reply} is not the reply to {word:?}"));
            }
        }
        count += 1;
    }
    Ok(count)
}

#[test]
fn nobody_gets_what_was_meant_for_a_connection_that_has_gone() {
    let server = node::start(SHARDS);
    let mut client = server.connect();
    for n in 0..20 {
        client.call(&["SET", &format!("key:{n}"), &"v".repeat(3000)]);
    }
    let over = AtomicBool::new(false);
    let counts: Vec<Result<u64, String>> = thread::scope(|scope| {
        (0..3).for_each(|_| {
            scope.spawn(|| leave_early(&server, &over));
        });
        let (server, over) = (&server, &over);
        let expecting: Vec<_> = (0..3)
            .map(|name| scope.spawn(move || expect_own_reply(server, over, name)))
            .collect();
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end && !expecting.iter().any(|thread| thread.is_finished()) {
            thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::Relaxed);
        expecting
            .into_iter()
            .map(|thread| thread.join().expect("a thread does not panic"))
            .collect()
    });
    for count in counts {
        assert!(count.expect("only own replies") > 10);
    }
}
