//! Blocking commands where time, many clients or several shards matter. The order of service is tested in
//! `cases/blocking.txt`.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use shardis_tests::client::{Client, PATIENCE};
use shardis_tests::node;
use shardis_tests::procfs::cpu;
use shardis_tests::reply::Reply;
use shardis_tests::slot::one_key_per_shard;
use shardis_tests::wait::await_blocked;

const SHARDS: usize = 4;

/// The texts of an array.
fn texts(reply: &Reply) -> Vec<String> {
    reply.items().iter().map(Reply::text).collect()
}

#[test]
fn a_wait_lasts_as_long_as_was_asked() {
    for shards in [1, SHARDS] {
        let server = node::start(shards);
        let mut client = server.connect();
        for (line, milliseconds) in [
            ("BLPOP a b c d 0.2", 200),
            ("BRPOP a 0.05", 50),
            ("BLMOVE a b LEFT RIGHT 0.1", 100),
            ("BLMPOP 0.15 3 a b c LEFT", 150),
            ("BZPOPMIN a b 0.1", 100),
            ("BZMPOP 0.05 2 a b MAX", 50),
            ("BRPOPLPUSH a b 1", 1000),
            ("BLPOP a 0.0005", 0),
        ] {
            let start = Instant::now();
            let reply = client.line(line);
            let waited = start.elapsed();
            assert!(reply.is_null(), "{line}: {reply}");
            let asked = Duration::from_millis(milliseconds);
            assert!(waited >= asked, "{line}: only {waited:?}");
            assert!(
                waited < asked + Duration::from_millis(1500),
                "{line}: as long as {waited:?}"
            );
        }
        await_blocked(&mut server.connect(), 0);
    }
}

#[test]
fn waits_end_each_at_its_own_time() {
    let server = node::start(SHARDS);
    let start = Instant::now();
    let mut waiting: Vec<(u64, Client)> = [400, 100, 300, 200]
        .into_iter()
        .map(|milliseconds: u64| {
            let mut client = server.connect();
            let seconds = format!("0.{milliseconds}");
            client
                .send(&["BLPOP", &format!("key{milliseconds}"), "same", &seconds])
                .expect("sent");
            (milliseconds, client)
        })
        .collect();
    waiting.sort_by_key(|(milliseconds, _)| *milliseconds);
    for (milliseconds, client) in &mut waiting {
        assert!(client.read().expect("a reply").is_null());
        let waited = start.elapsed();
        assert!(
            waited >= Duration::from_millis(*milliseconds),
            "{milliseconds}: {waited:?}"
        );
    }
}

#[test]
fn fifty_clients_are_served_in_the_order_they_came() {
    const CLIENTS: usize = 50;
    for shards in [1, SHARDS] {
        let server = node::start(shards);
        let mut clients: Vec<Client> = Vec::new();
        for i in 0..CLIENTS {
            let mut client = server.connect();
            // Half of them also wait elsewhere: that does not change their place in the queue.
            if i % 2 == 0 {
                client.send(&["BLPOP", "queue", "0"]).expect("sent");
            } else {
                client
                    .send(&["BLPOP", "other", "queue", "more", "0"])
                    .expect("sent");
            }
            clients.push(client);
            await_blocked(&mut server.connect(), i + 1);
        }
        let mut producer = server.connect();
        for i in 0..CLIENTS {
            producer.call(&["RPUSH", "queue", &i.to_string()]);
        }
        for (i, client) in clients.iter_mut().enumerate() {
            assert_eq!(
                texts(&client.read().expect("a reply")),
                ["queue".to_owned(), i.to_string()]
            );
        }
        await_blocked(&mut server.connect(), 0);
    }
}

#[test]
fn one_push_with_many_elements_serves_many() {
    let server = node::start(SHARDS);
    let mut clients: Vec<Client> = (0..5)
        .map(|i| {
            let mut client = server.connect();
            client.send(&["BLPOP", "queue", "0"]).expect("sent");
            await_blocked(&mut server.connect(), i + 1);
            client
        })
        .collect();
    let mut producer = server.connect();
    assert_eq!(producer.line("RPUSH queue 0 1 2 3 4 5 6").integer(), Some(7));
    for (i, client) in clients.iter_mut().enumerate() {
        assert_eq!(
            texts(&client.read().expect("a reply")),
            ["queue".to_owned(), i.to_string()]
        );
    }
    assert_eq!(texts(&producer.line("LRANGE queue 0 -1")), ["5", "6"]);
}

#[test]
fn a_client_that_waits_on_all_shards_takes_one_element() {
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("k", SHARDS);
    let mut waiter = server.connect();
    let mut pushers: Vec<Client> = keys.iter().map(|_| server.connect()).collect();
    let mut control = server.connect();
    for round in 0..100 {
        let mut words = vec!["BLPOP"];
        words.extend(keys.iter().map(String::as_str));
        words.push("0");
        waiter.send(&words).expect("sent");
        await_blocked(&mut server.connect(), 1);
        // All at once: every shard finds the waiter, and one of them may have it.
        for (pusher, key) in pushers.iter_mut().zip(&keys) {
            pusher.send(&["RPUSH", key, "x"]).expect("sent");
        }
        for pusher in &mut pushers {
            assert_eq!(pusher.read().expect("a reply").integer(), Some(1));
        }
        let served = texts(&waiter.read().expect("a reply"));
        assert!(
            served.len() == 2 && keys.contains(&served[0]),
            "round {round}: {served:?}"
        );
        let mut del = vec!["DEL"];
        del.extend(keys.iter().map(String::as_str));
        assert_eq!(
            control.call(&del).integer(),
            i64::try_from(SHARDS - 1).ok(),
            "round {round}"
        );
        assert_eq!(waiter.line("PING").text(), "PONG", "round {round}");
    }
}

#[test]
fn every_element_is_delivered_once() {
    const PRODUCERS: usize = 3;
    const CONSUMERS: usize = 6;
    const EACH: usize = 1200;
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("q", SHARDS);
    let (server, keys) = (&server, &keys[..]);
    let mut delivered: Vec<String> = thread::scope(|scope| {
        let consumers: Vec<_> = (0..CONSUMERS)
            .map(|id| {
                scope.spawn(move || {
                    let mut client = server.connect();
                    let mut taken = Vec::new();
                    // Each has its own order of preference; some take at both ends, some one key only.
                    let mut order: Vec<&str> = keys.iter().map(String::as_str).collect();
                    order.rotate_left(id % SHARDS);
                    let mut words = vec![if id % 2 == 0 { "BLPOP" } else { "BRPOP" }];
                    words.extend(order);
                    words.push("0");
                    loop {
                        let reply = texts(&client.call(&words));
                        if reply[1] == "end" {
                            return taken;
                        }
                        taken.push(reply[1].clone());
                    }
                })
            })
            .collect();
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|id| {
                scope.spawn(move || {
                    let mut client = server.connect();
                    for i in 0..EACH {
                        let key = &keys[i % SHARDS];
                        let element = format!("{id}:{i}");
                        let push = if i % 3 == 0 { "LPUSH" } else { "RPUSH" };
                        client.call(&[push, key, &element]);
                    }
                })
            })
            .collect();
        for producer in producers {
            producer.join().expect("a producer that ends well");
        }
        let mut client = server.connect();
        let left = |client: &mut Client| -> i64 {
            keys.iter()
                .filter_map(|key| client.call(&["LLEN", key]).integer())
                .sum()
        };
        let deadline = Instant::now() + PATIENCE;
        while left(&mut client) > 0 {
            assert!(Instant::now() < deadline, "elements are left though clients wait");
            thread::sleep(Duration::from_millis(2));
        }
        for _ in 0..CONSUMERS {
            client.call(&["RPUSH", &keys[0], "end"]);
        }
        consumers
            .into_iter()
            .flat_map(|consumer| consumer.join().expect("a consumer that ends well"))
            .collect()
    });
    delivered.sort();
    let mut produced: Vec<String> = (0..PRODUCERS)
        .flat_map(|id| (0..EACH).map(move |i| format!("{id}:{i}")))
        .collect();
    produced.sort();
    assert_eq!(
        delivered.len(),
        produced.len(),
        "lost or delivered more than once"
    );
    assert!(delivered == produced, "other elements than those produced");
}

#[test]
fn a_ring_of_moves_loses_nothing() {
    const TURNS: usize = 150;
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("ring", SHARDS);
    let (server, keys) = (&server, &keys[..]);
    thread::scope(|scope| {
        for i in 0..SHARDS {
            scope.spawn(move || {
                let mut client = server.connect();
                let (from, to) = (&keys[i], &keys[(i + 1) % SHARDS]);
                for _ in 0..TURNS {
                    let moved = client.call(&["BLMOVE", from, to, "LEFT", "RIGHT", "0"]);
                    assert_eq!(moved.text().len(), 1, "{moved}");
                }
            });
        }
        let mut client = server.connect();
        client.call(&["RPUSH", &keys[0], "a", "b", "c"]);
    });
    let mut client = server.connect();
    let mut left: Vec<String> = keys
        .iter()
        .flat_map(|key| texts(&client.call(&["LRANGE", key, "0", "-1"])))
        .collect();
    left.sort();
    assert_eq!(left, ["a", "b", "c"]);
}

#[test]
fn who_hangs_up_takes_nothing() {
    for shards in [1, SHARDS] {
        let server = node::start(shards);
        let keys = one_key_per_shard("k", SHARDS);
        let mut client = server.connect();
        for key in &keys {
            let mut gone = server.connect();
            gone.send(&["BLPOP", &keys[0], key, "0"]).expect("sent");
            await_blocked(&mut server.connect(), 1);
            drop(gone);
            await_blocked(&mut server.connect(), 0);
            assert_eq!(client.call(&["RPUSH", key, "kept"]).integer(), Some(1));
            assert_eq!(client.call(&["LPOP", key]).text(), "kept");
        }
    }
}

#[test]
fn what_a_blocked_client_sent_later_is_done_later() {
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("k", SHARDS);
    let mut waiter = server.connect();
    waiter.send(&["BLPOP", &keys[0], &keys[1], "0"]).expect("sent");
    for key in &keys[2..] {
        waiter.send(&["SET", key, "after"]).expect("sent");
    }
    waiter.send(&["BLPOP", &keys[1], "0"]).expect("sent");
    waiter.send(&["ECHO", "end"]).expect("sent");
    await_blocked(&mut server.connect(), 1);
    let mut client = server.connect();
    for key in &keys[2..] {
        assert!(client.call(&["GET", key]).is_null(), "{key} was set too early");
    }
    client.call(&["RPUSH", &keys[1], "1", "2"]);
    assert_eq!(texts(&waiter.read().expect("a reply")), [keys[1].as_str(), "1"]);
    for _ in &keys[2..] {
        assert_eq!(waiter.read().expect("a reply").text(), "OK");
    }
    assert_eq!(texts(&waiter.read().expect("a reply")), [keys[1].as_str(), "2"]);
    assert_eq!(waiter.read().expect("a reply").text(), "end");
}

/// Requests of blocked clients wait in buffers; other clients are read all the same.
#[test]
fn blocked_clients_that_send_on_starve_nobody() {
    const CLIENTS: usize = 200;
    for shards in [1, SHARDS] {
        let server = node::start(shards);
        let filler = "x".repeat(1000);
        let mut blocked: Vec<Client> = (0..CLIENTS)
            .map(|i| {
                let mut client = server.connect();
                client.send(&["BLPOP", &format!("own:{i}"), "0"]).expect("sent");
                for _ in 0..60 {
                    client.send(&["ECHO", &filler]).expect("sent");
                }
                client
            })
            .collect();
        await_blocked(&mut server.connect(), CLIENTS);
        let mut other = server.connect();
        for i in 0..CLIENTS {
            assert_eq!(other.line("PING").text(), "PONG");
            assert_eq!(
                other.call(&["RPUSH", &format!("own:{i}"), "x"]).integer(),
                Some(1)
            );
        }
        for (i, client) in blocked.iter_mut().enumerate() {
            let served = texts(&client.read().expect("a reply"));
            assert_eq!(served, [format!("own:{i}"), "x".to_owned()]);
            for _ in 0..60 {
                assert_eq!(client.read().expect("a reply").text(), filler);
            }
        }
    }
}

/// Number of connections that this process may open, with some reserved for other tests.
fn connections_allowed() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_ascii_whitespace().nth(3)?.parse().ok());
    soft.unwrap_or(1024_usize).saturating_sub(500)
}

#[test]
fn ten_thousand_blocked_clients_cost_nothing() {
    let count = connections_allowed().min(10_000);
    let server = node::launch(SHARDS).with(&["--maxclients", "10200"]).serve();
    let mut blocked: Vec<Client> = (0..count)
        .map(|i| {
            let mut client = server.connect();
            let timeout = if i % 2 == 0 { "0" } else { "3600" };
            client
                .send(&["BLPOP", &format!("own:{i}"), "shared", timeout])
                .expect("sent");
            // The order of arrival is known for the first two.
            if i < 2 {
                await_blocked(&mut server.connect(), i + 1);
            }
            client
        })
        .collect();
    await_blocked(&mut server.connect(), count);
    let before = cpu(server.pid()).expect("a running process");
    thread::sleep(Duration::from_secs(2));
    let used = cpu(server.pid()).expect("a running process") - before;
    assert!(
        used < Duration::from_millis(200),
        "{used:?} of processor time in two seconds of waiting"
    );

    let mut client = server.connect();
    for i in [0, count / 2, count - 1] {
        let key = format!("own:{i}");
        assert_eq!(client.call(&["RPUSH", &key, "x"]).integer(), Some(1));
        assert_eq!(texts(&blocked[i].read().expect("a reply")), [key.as_str(), "x"]);
    }
    client.line("RPUSH shared y");
    assert_eq!(texts(&blocked[1].read().expect("a reply")), ["shared", "y"]);
    drop(blocked);
    await_blocked(&mut server.connect(), 0);
}

/// A client that disconnects while its command is on the way to wait does not wait for ever: its end is noticed once.
#[test]
fn a_client_that_goes_before_its_command_waits_leaves_nothing_behind() {
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("text:", SHARDS);
    let mut client = server.connect();
    let (first, second) = (&keys[2], &keys[3]);
    let text = |from: u8| -> Vec<u8> { (0..11_000_u32).map(|n| from + (n * n % 23) as u8).collect() };
    client.call(&[&b"SET"[..], first.as_ref(), &text(b'a')]);
    client.call(&[&b"SET"[..], second.as_ref(), &text(b'b')]);
    // Both shards are lent to this one for a while.
    client
        .send(&[&b"LCS"[..], first.as_ref(), second.as_ref()])
        .unwrap();
    thread::sleep(Duration::from_millis(30));
    for _ in 0..20 {
        let mut gone = server.connect();
        gone.send(&[
            &b"BLMPOP"[..],
            b"0",
            b"8",
            b"a",
            b"b",
            b"c",
            b"d",
            b"e",
            b"f",
            b"g",
            b"h",
            b"LEFT",
        ])
        .unwrap();
    }
    let common = client.read().unwrap();
    assert!(!common.bytes().is_empty() && !common.is_error(), "{common}");
    await_blocked(&mut server.connect(), 0);
}
