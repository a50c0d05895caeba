//! Tests of the hub with several threads: the order of messages, and the bounds.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;
use crate::limits::PUBLISHED_UNDER_WAY_BYTES;

fn seat(of_loop: u16, connection: u32) -> Seat {
    Seat::new(usize::from(of_loop), connection as usize, u64::from(connection))
}

/// Takes the messages that wait for a loop: payloads and numbers of subscribers.
fn taken(hub: &Hub, of_loop: usize) -> Vec<(String, usize)> {
    let mut publications = VecDeque::new();
    hub.mailbox(of_loop).take(&mut publications);
    publications
        .iter()
        .map(|publication| {
            hub.mailbox(of_loop).delivered(publication);
            let text = String::from_utf8(publication.message.to_vec()).unwrap();
            let payload = text.trim_end().rsplit("\r\n").next().unwrap().to_owned();
            (payload, publication.subscribers.len())
        })
        .collect()
}

#[test]
fn each_loop_gets_one_message_for_its_part_of_the_audience() {
    let hub = Hub::new(3, 1);
    for connection in 0..5 {
        hub.join(Topic::Channel, b"c", seat(0, connection));
        hub.join(Topic::Channel, b"c", seat(2, connection));
    }
    hub.leave(Topic::Channel, b"c", seat(2, 3));
    assert_eq!(hub.publish(b"c", b"hello"), 9);
    assert_eq!(hub.subscribers(Topic::Channel, b"c"), 9);
    assert_eq!(taken(&hub, 0), [("hello".to_owned(), 5)]);
    assert!(hub.mailbox(1).is_empty());
    assert_eq!(taken(&hub, 2), [("hello".to_owned(), 4)]);
}

#[test]
fn who_leaves_still_gets_what_was_addressed_to_it() {
    let hub = Hub::new(1, 1);
    hub.join(Topic::Channel, b"c", seat(0, 1));
    hub.join(Topic::Channel, b"c", seat(0, 2));
    assert_eq!(hub.publish(b"c", b"1"), 2);
    hub.leave(Topic::Channel, b"c", seat(0, 1));
    assert_eq!(hub.publish(b"c", b"2"), 1);
    assert_eq!(taken(&hub, 0), [("1".to_owned(), 2), ("2".to_owned(), 1)]);
}

#[test]
fn names_go_with_their_last_listener() {
    let hub = Hub::new(2, 1);
    for number in 0..1000_u32 {
        let name = number.to_string();
        for topic in Topic::ALL {
            hub.join(topic, name.as_bytes(), seat(number as u16 % 2, number));
        }
    }
    for topic in Topic::ALL {
        assert_eq!(hub.count(topic), 1000);
    }
    assert_eq!(hub.names(Topic::Channel, Some(b"99?")).len(), 10);
    for number in 0..1000_u32 {
        let name = number.to_string();
        for topic in Topic::ALL {
            hub.leave(topic, name.as_bytes(), seat(number as u16 % 2, number));
            hub.leave(topic, name.as_bytes(), seat(number as u16 % 2, number));
        }
    }
    for topic in Topic::ALL {
        assert_eq!(hub.count(topic), 0);
    }
    assert!(hub.names(Topic::ShardChannel, None).is_empty());
}

#[test]
fn events_are_published_on_the_chosen_channels() {
    let hub = Hub::new(1, 1);
    hub.join(Topic::Pattern, b"__key*", seat(0, 1));
    let told = |classes: KeyspaceEvents| {
        hub.choose_events(classes);
        hub.publish_event(3, "del", b"k");
        let mut publications = VecDeque::new();
        hub.mailbox(0).take(&mut publications);
        let texts = publications
            .iter()
            .map(|publication| String::from_utf8_lossy(&publication.message).into_owned());
        texts.collect::<Vec<_>>().join("")
    };
    assert_eq!(told(KeyspaceEvents::GENERIC), "");
    let by_key = "*4\r\n$8\r\npmessage\r\n$6\r\n__key*\r\n$16\r\n__keyspace@3__:k\r\n$3\r\ndel\r\n";
    let by_event = "*4\r\n$8\r\npmessage\r\n$6\r\n__key*\r\n$18\r\n__keyevent@3__:del\r\n$1\r\nk\r\n";
    assert_eq!(told(KeyspaceEvents::KEYSPACE), by_key);
    assert_eq!(told(KeyspaceEvents::KEYEVENT), by_event);
    assert_eq!(
        told(KeyspaceEvents::KEYEVENT.union(KeyspaceEvents::KEYSPACE)),
        [by_key, by_event].concat()
    );
}

#[test]
fn what_is_under_way_is_bounded_and_who_misses_something_is_known() {
    let hub = Hub::new(1, 1);
    hub.join(Topic::Channel, b"c", seat(0, 1));
    let large = vec![b'x'; PUBLISHED_UNDER_WAY_BYTES / 4];
    for _ in 0..6 {
        assert_eq!(hub.publish(b"c", &large), 1);
    }
    let mut publications = VecDeque::new();
    let missed = hub.mailbox(0).take(&mut publications);
    assert_eq!(missed.into_iter().collect::<Vec<_>>(), [seat(0, 1).subscriber]);
    assert_eq!(publications.len(), 4);
    for publication in &publications {
        hub.mailbox(0).delivered(publication);
    }
    assert_eq!(hub.publish(b"c", b"small"), 1);
    assert!(hub.mailbox(0).take(&mut publications).is_empty());
    assert_eq!(publications.len(), 5);
}

#[test]
fn all_loops_get_the_messages_of_a_channel_in_one_order() {
    let hub = Hub::new(2, 1);
    hub.join(Topic::Channel, b"c", seat(0, 1));
    hub.join(Topic::Channel, b"c", seat(1, 1));
    thread::scope(|scope| {
        for publisher in 0..4 {
            let hub = &hub;
            scope.spawn(move || {
                for number in 0..2000 {
                    assert_eq!(hub.publish(b"c", format!("{publisher}:{number}").as_bytes()), 2);
                }
            });
        }
    });
    let (first, second) = (taken(&hub, 0), taken(&hub, 1));
    assert_eq!(first.len(), 8000);
    assert_eq!(first, second);
    for publisher in 0..4 {
        let own = first
            .iter()
            .filter_map(|(payload, _)| payload.strip_prefix(&format!("{publisher}:")));
        assert!(own.map(|number| number.parse::<u32>().unwrap()).is_sorted());
    }
}

/// Connections come and go while others publish: what PUBLISH counts is what arrives, and after a hush nothing more does.
#[test]
fn counts_are_exact_while_listeners_come_and_go() {
    let hub = Hub::new(1, 1);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let publishers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut counted = 0;
                    while !over.load(Ordering::Relaxed) {
                        counted += hub.publish(b"c", b"x");
                    }
                    counted
                })
            })
            .collect();
        let mut arrived = 0;
        for round in 0..2000 {
            hub.join(Topic::Channel, b"c", seat(0, round));
            thread::yield_now();
            arrived += taken(&hub, 0).len();
            let hush = hub.hush();
            arrived += taken(&hub, 0).len();
            hub.leave(Topic::Channel, b"c", seat(0, round));
            // The thread that hushed may publish.
            assert_eq!(hub.publish(b"c", b"x"), 0);
            drop(hush);
            assert!(hub.mailbox(0).is_empty(), "nothing comes after it has left");
        }
        over.store(true, Ordering::Relaxed);
        let counted: usize = publishers
            .into_iter()
            .map(|publisher| publisher.join().unwrap())
            .sum();
        assert_eq!(counted, arrived);
        assert!(arrived > 0);
    });
}
