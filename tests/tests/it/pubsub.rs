//! Publish and subscribe with many clients at once: exact counts, order, slow readers, messages among replies, events of keys.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shardis_tests::client::Client;
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::reply::Reply;

/// Longest time for what the server does soon.
const SOON: Duration = Duration::from_secs(10);

/// A client that speaks RESP3.
fn connect_resp3(server: &Process) -> Client {
    let mut client = server.connect();
    assert!(matches!(client.line("HELLO 3"), Reply::Map(_)));
    client
}

/// Subscribes to some names by one command.
fn subscribe(client: &mut Client, verb: &str, names: &[String]) {
    let words: Vec<&str> = std::iter::once(verb)
        .chain(names.iter().map(String::as_str))
        .collect();
    client.send(&words).expect("a connection");
    for name in names {
        let confirmation = client.read().expect("a confirmation");
        assert_eq!(confirmation.items()[1].text(), *name);
    }
}

/// The words of a message.
fn texts(message: &Reply) -> Vec<String> {
    message.items().iter().map(Reply::text).collect()
}

/// Pipelines PUBLISH commands and returns how many times they were received.
fn publish_all(client: &mut Client, channel: &str, payloads: impl Iterator<Item = String>) -> i64 {
    let request = |payload: String| vec![b"PUBLISH".to_vec(), channel.into(), payload.into_bytes()];
    let requests: Vec<_> = payloads.map(request).collect();
    let replies = client.pipeline(&requests);
    replies
        .iter()
        .map(|reply| reply.integer().expect("a number of receivers"))
        .sum()
}

/// Waits until a question has this answer.
fn wait_for(client: &mut Client, question: &str, answer: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let reply = client.line(question).to_string();
        if reply == answer {
            return;
        }
        assert!(Instant::now() < deadline, "{question}: {reply}, not {answer}");
        thread::sleep(Duration::from_millis(5));
    }
}

const PUBLISHERS: usize = 4;
const SUBSCRIBERS: usize = 6;
const ROUNDS: usize = 40;
const PER_ROUND: usize = 50;

/// Reads messages until every publisher has said that it is done. Returns how many there were.
fn listen(mut client: Client) -> i64 {
    let mut received = 0;
    let mut last: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut done = 0;
    while done < PUBLISHERS {
        let words = texts(&client.read().expect("a message"));
        let payload = words.last().expect("a payload");
        if words[0] == "smessage" {
            done += 1;
            continue;
        }
        received += 1;
        // For each way in which it was received, and each publisher, the numbers rise one by one.
        let (publisher, number) = payload.split_once(':').expect("publisher:number");
        let number: usize = number.parse().expect("a number");
        let way = (words[..words.len() - 1].join(" "), publisher.to_owned());
        let expected = last.get(&way).map_or(0, |last| last + 1);
        assert_eq!(number, expected, "{way:?}");
        last.insert(way, number);
    }
    received
}

/// Subscribes and unsubscribes again and again. Returns how many messages came.
fn come_and_go(server: &Process, resp3: bool, over: &AtomicBool) -> i64 {
    let mut client = if resp3 {
        connect_resp3(server)
    } else {
        server.connect()
    };
    let mut received = 0;
    while !over.load(Ordering::Relaxed) {
        client.send(&["SUBSCRIBE", "load"]).expect("a connection");
        assert_eq!(texts(&client.read().expect("a reply"))[0], "subscribe");
        client.send(&["UNSUBSCRIBE"]).expect("a connection");
        loop {
            let words = texts(&client.read().expect("a message or the confirmation"));
            match words[0].as_str() {
                "message" => received += 1,
                "unsubscribe" => break,
                other => panic!("{other}"),
            }
        }
        // Nothing comes behind the confirmation.
        assert_eq!(client.line("PING"), Reply::Simple(b"PONG".to_vec()));
    }
    received
}

#[test]
fn counts_are_exact_and_publishers_in_order_under_load() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let over = AtomicBool::new(false);
        let listeners: Vec<Client> = (0..SUBSCRIBERS)
            .map(|number| {
                let mut client = if number % 2 == 0 {
                    server.connect()
                } else {
                    connect_resp3(&server)
                };
                subscribe(&mut client, "SUBSCRIBE", &["load".to_owned()]);
                subscribe(&mut client, "SSUBSCRIBE", &["done".to_owned()]);
                if number % 3 == 0 {
                    subscribe(
                        &mut client,
                        "PSUBSCRIBE",
                        &["l*d".to_owned(), "other*".to_owned()],
                    );
                }
                client
            })
            .collect();
        thread::scope(|scope| {
            let listeners: Vec<_> = listeners
                .into_iter()
                .map(|client| scope.spawn(move || listen(client)))
                .collect();
            let fickle: Vec<_> = [false, true]
                .map(|resp3| {
                    scope.spawn({
                        let (server, over) = (&server, &over);
                        move || come_and_go(server, resp3, over)
                    })
                })
                .into();
            let publishers: Vec<_> = (0..PUBLISHERS)
                .map(|publisher| {
                    let server = &server;
                    scope.spawn(move || {
                        let mut client = server.connect();
                        let mut counted = 0;
                        for round in 0..ROUNDS {
                            let numbers = round * PER_ROUND..(round + 1) * PER_ROUND;
                            counted += publish_all(
                                &mut client,
                                "load",
                                numbers.map(|number| format!("{publisher}:{number}")),
                            );
                        }
                        let listeners = client.line("SPUBLISH done x").integer();
                        assert_eq!(listeners, Some(SUBSCRIBERS as i64));
                        counted
                    })
                })
                .collect();
            let counted: i64 = publishers
                .into_iter()
                .map(|publisher| publisher.join().expect("a publisher"))
                .sum();
            over.store(true, Ordering::Relaxed);
            let received: i64 = listeners
                .into_iter()
                .chain(fickle)
                .map(|listener| listener.join().expect("a listener"))
                .sum();
            assert_eq!(counted, received, "{shards} shards");
        });
    }
}

#[test]
fn a_message_does_not_overtake_what_its_publisher_did_before() {
    let server = node::start(4);
    let mut subscribers: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for client in &mut subscribers {
        subscribe(client, "SUBSCRIBE", &["written".to_owned()]);
    }
    let mut publisher = server.connect();
    let mut reader = server.connect();
    for number in 0..300 {
        let request = format!("SET key:{number} {number}\r\nPUBLISH written {number}\r\n");
        publisher.write(request.as_bytes()).expect("a connection");
        let client = &mut subscribers[number % 4];
        assert_eq!(texts(&client.read().expect("a message"))[2], number.to_string());
        assert_eq!(
            reader.line(&format!("GET key:{number}")).text(),
            number.to_string()
        );
        for other in (0..4).filter(|other| *other != number % 4) {
            subscribers[other].read().expect("a message");
        }
    }
}

#[test]
fn messages_stand_between_replies_and_never_within_them() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut filler = server.connect();
        for number in 0..100 {
            let value = "v".repeat(number * 7);
            filler.line(&format!("SET key:{number} {value}x"));
        }
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let mut client = connect_resp3(&server);
            subscribe(&mut client, "SUBSCRIBE", &["noise".to_owned()]);
            let publisher = scope.spawn(|| {
                let mut client = server.connect();
                let mut number = 0;
                while !over.load(Ordering::Relaxed) {
                    let next = number + 20;
                    assert_eq!(
                        publish_all(&mut client, "noise", (number..next).map(|n| n.to_string())),
                        20
                    );
                    number = next;
                }
                number
            });
            let mut heard = 0;
            let mut hear = |reply: &Reply| {
                assert_eq!(texts(reply), ["message", "noise", &heard.to_string()]);
                heard += 1;
            };
            for _ in 0..30 {
                let mut request = Vec::new();
                for number in 0..100 {
                    let words = ["GET", &format!("key:{number}")].map(str::to_owned);
                    shardis_tests::client::encode(&mut request, &words);
                }
                request.extend_from_slice(b"MULTI\r\nMGET key:0 key:1 key:2 key:3\r\nPING\r\nEXEC\r\n");
                client.write(&request).expect("a connection");
                let mut replies = Vec::new();
                while replies.len() < 104 {
                    match client.read().expect("a reply or a message") {
                        message @ Reply::Push(_) => hear(&message),
                        reply => replies.push(reply),
                    }
                }
                for (number, reply) in replies[..100].iter().enumerate() {
                    assert_eq!(reply.text(), "v".repeat(number * 7) + "x");
                }
                assert_eq!(replies[103].items().len(), 2);
            }
            over.store(true, Ordering::Relaxed);
            let published = publisher.join().expect("a publisher");
            for _ in 0..published {
                if heard == published {
                    break;
                }
                let message = client.read().expect("a message");
                assert_eq!(texts(&message)[2], heard.to_string());
                heard += 1;
            }
            assert_eq!(heard, published);
        });
    }
}

#[test]
fn who_does_not_read_is_cut_off_and_nobody_waits() {
    for shards in [1, 4] {
        let server = node::launch(shards)
            .with(&["--client-output-buffer-limit", "pubsub 4mb 0 0"])
            .serve();
        let mut slow: Vec<Client> = (0..3).map(|_| server.connect()).collect();
        for client in &mut slow {
            subscribe(client, "SUBSCRIBE", &["flood".to_owned()]);
        }
        let mut control = server.connect();
        let read = AtomicUsize::new(0);
        thread::scope(|scope| {
            let mut quick = server.connect();
            subscribe(&mut quick, "SUBSCRIBE", &["flood".to_owned()]);
            let read = &read;
            let reader = scope.spawn(move || {
                for number in 0..1000 {
                    let message = quick.read().expect("who reads is not cut off");
                    assert!(message.items()[2].text().starts_with(&format!("{number}:")));
                    read.store(number + 1, Ordering::Relaxed);
                }
            });
            let mut publisher = server.connect();
            let mut receivers = Vec::new();
            let payload = "x".repeat(64 << 10);
            for number in 0..1000 {
                let reply = publisher.call(&["PUBLISH", "flood", &format!("{number}:{payload}")]);
                receivers.push(reply.integer().expect("a number of receivers"));
                // As fast as the quick one reads: only a client that does not read at all falls behind by megabytes.
                while number > read.load(Ordering::Relaxed) + 16 && !reader.is_finished() {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            assert_eq!((receivers[0], receivers[999]), (4, 1));
            reader.join().expect("the quick reader");
        });
        wait_for(&mut control, "PUBSUB NUMSUB flood", "[\"flood\", :0]");
        for mut client in slow {
            let (messages, ended) = client.rest(SOON);
            assert!(ended && messages.len() < 1000, "{} messages", messages.len());
        }
        let closed = control.line("INFO stats").text();
        assert!(
            closed.contains("client_output_buffer_limit_disconnections:3"),
            "{closed}"
        );
        assert!(server.log().contains("overcoming of output buffer limits"));
    }
}

#[test]
fn a_soft_limit_gives_a_reader_time() {
    let server = node::launch(2)
        .with(&["--client-output-buffer-limit", "pubsub 0 100kb 1"])
        .serve();
    let mut client = server.connect();
    subscribe(&mut client, "SUBSCRIBE", &["c".to_owned()]);
    let mut publisher = server.connect();
    let payload = "x".repeat(1 << 20);
    // Messages in the buffers of the sockets do not count, so there are more than fit there.
    for _ in 0..16 {
        assert_eq!(publisher.call(&["PUBLISH", "c", &payload]).integer(), Some(1));
    }
    thread::sleep(Duration::from_millis(300));
    assert_eq!(publisher.line("PUBSUB NUMSUB c").to_string(), "[\"c\", :1]");
    wait_for(&mut publisher, "PUBSUB NUMSUB c", "[\"c\", :0]");
}

#[test]
fn ten_thousand_channels() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut subscribers: Vec<Client> = (0..10).map(|_| server.connect()).collect();
        for (number, client) in subscribers.iter_mut().enumerate() {
            let names: Vec<String> = (0..1000).map(|n| format!("channel:{number}:{n}")).collect();
            subscribe(client, "SUBSCRIBE", &names);
        }
        let mut control = server.connect();
        assert_eq!(control.line("PUBSUB CHANNELS").items().len(), 10_000);
        assert_eq!(control.line("PUBSUB CHANNELS channel:7:*").items().len(), 1000);
        for number in 0..10 {
            let requests: Vec<_> = (0..1000)
                .map(|n| {
                    let channel = format!("channel:{number}:{n}");
                    vec![b"PUBLISH".to_vec(), channel.into_bytes(), b"x".to_vec()]
                })
                .collect();
            let replies = control.pipeline(&requests);
            assert!(replies.iter().all(|reply| reply.integer() == Some(1)));
        }
        for (number, client) in subscribers.iter_mut().enumerate() {
            for n in 0..1000 {
                let words = texts(&client.read().expect("a message"));
                assert_eq!(words[1], format!("channel:{number}:{n}"));
            }
        }
        // They go with their subscribers.
        subscribers.truncate(5);
        let deadline = Instant::now() + SOON;
        while control.line("PUBSUB CHANNELS").items().len() != 5000 {
            assert!(Instant::now() < deadline);
        }
        let info = control.line("INFO stats").text();
        assert!(info.contains("pubsub_channels:5000"), "{info}");
    }
}

#[test]
fn subscribers_are_not_timed_out() {
    let server = node::launch(2).with(&["--timeout", "1"]).serve();
    let mut subscriber = server.connect();
    subscribe(&mut subscriber, "SUBSCRIBE", &["c".to_owned()]);
    let mut idle = server.connect();
    assert_eq!(idle.line("PING"), Reply::Simple(b"PONG".to_vec()));
    assert!(idle.is_closed_within(SOON));
    let mut publisher = server.connect();
    assert_eq!(publisher.line("PUBLISH c x").integer(), Some(1));
    assert_eq!(
        texts(&subscriber.read().expect("a message")),
        ["message", "c", "x"]
    );
}

#[test]
fn events_of_keys_reach_subscribers_on_any_loop() {
    for shards in [1, 4] {
        let server = node::launch(shards)
            .with(&["--notify-keyspace-events", "KEA"])
            .serve();
        let mut subscribers: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        for client in &mut subscribers {
            subscribe(client, "PSUBSCRIBE", &["__keyevent@0__:*".to_owned()]);
        }
        let mut writer = server.connect();
        let request = |words: [&str; 5]| words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let requests: Vec<_> = (0..500)
            .map(|number| request(["SET", &format!("key:{number}"), "v", "PX", "200"]))
            .collect();
        writer.pipeline(&requests);
        for client in &mut subscribers {
            let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
            // Set, given a time to live, and expired without anybody's looking.
            for _ in 0..1500 {
                let words = texts(&client.read().expect("an event"));
                let event = words[2].rsplit(':').next().unwrap_or_default().to_owned();
                seen.entry(words[3].clone()).or_default().push(event);
            }
            assert_eq!(seen.len(), 500);
            for (key, events) in seen {
                assert_eq!(events, ["set", "expire", "expired"], "{key}");
            }
        }
    }
}

#[test]
fn evicted_keys_are_told_of() {
    for shards in [1, 4] {
        let server = node::launch(shards)
            .with(&["--notify-keyspace-events", "Ee"])
            .with(&["--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru"])
            .serve();
        let mut subscriber = server.connect();
        subscribe(
            &mut subscriber,
            "SUBSCRIBE",
            &["__keyevent@0__:evicted".to_owned()],
        );
        let mut writer = server.connect();
        let value = "x".repeat(1000);
        for number in 0..8000 {
            writer.call(&["SET", &format!("key:{number}"), &value]);
        }
        let info = writer.line("INFO stats").text();
        let evicted = info
            .lines()
            .find_map(|line| line.strip_prefix("evicted_keys:"))
            .and_then(|count| count.parse().ok())
            .unwrap_or(0);
        assert!(evicted > 1000, "{info}");
        for _ in 0..evicted {
            let words = texts(&subscriber.read().expect("an event"));
            assert!(words[2].starts_with("key:"), "{words:?}");
        }
    }
}

/// Subscribing by a client library.
#[test]
fn the_redis_crate_subscribes() {
    let server = node::start(4);
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/", server.port())).expect("a valid URL");
    let mut listener = client.get_connection().expect("a server that accepts");
    let mut listener = listener.as_pubsub();
    // It waits for one confirmation a call, so one channel a call.
    listener.subscribe("news").expect("subscribed");
    listener.subscribe("weather").expect("subscribed");
    listener.psubscribe("w*").expect("subscribed");
    let mut publisher = client.get_connection().expect("a server that accepts");
    let receivers: i64 = redis::Commands::publish(&mut publisher, "weather", "sunny").expect("a count");
    assert_eq!(receivers, 2);
    let message = listener.get_message().expect("a message");
    assert_eq!(message.get_channel_name(), "weather");
    let message = listener.get_message().expect("a message");
    assert_eq!(message.get_pattern::<String>().expect("a pattern"), "w*");
    assert_eq!(message.get_payload::<String>().expect("a payload"), "sunny");
    listener.unsubscribe("weather").expect("unsubscribed");
    listener.punsubscribe("w*").expect("unsubscribed");
    let receivers: i64 = redis::Commands::publish(&mut publisher, "weather", "rain").expect("a count");
    assert_eq!(receivers, 0);
}
