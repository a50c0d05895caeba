//! Concurrent clients of keys whose slot never rests: it goes from node to node, and every key behaves as if there were one of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use shardis_tests::client::Client;
use shardis_tests::cluster::{Cluster, Plan};
use shardis_tests::history::{Event, is_linearizable, record};
use shardis_tests::replication::member::Kind;
use shardis_tests::slot;
use shardis_tests::wait::EndOnDrop;

/// Clients that speak at the same time.
const CLIENTS: usize = 6;

/// Operations of each client.
const OPERATIONS: usize = 500;

/// Keys that are used, and others of their slot that are only carried along.
const KEYS: usize = 4;
const LUGGAGE: usize = 40;

/// Keys that one MIGRATE takes along.
const KEYS_AT_ONCE: &str = "7";

/// Time between two steps of the slot's way: clients are to meet each of them.
const STEP: Duration = Duration::from_millis(2);

fn key(number: usize) -> String {
    format!("{{restless}}:{number}")
}

/// The nodes of a cluster, as those who carry a slot about know them.
struct Porter<'a> {
    cluster: &'a Cluster,
    slot: String,
    ids: Vec<String>,
    clients: Vec<Client>,
}

impl<'a> Porter<'a> {
    fn of(cluster: &'a Cluster) -> Porter<'a> {
        let members = 0..cluster.len();
        Porter {
            cluster,
            slot: slot::of(key(0).as_bytes()).to_string(),
            ids: members.clone().map(|index| cluster.id(index)).collect(),
            clients: members.map(|index| cluster.member(index).client()).collect(),
        }
    }

    fn set_slot(&mut self, at: usize, what: &str, node: usize) {
        sleep(STEP);
        let words = ["CLUSTER", "SETSLOT", &self.slot, what, &self.ids[node]];
        let reply = self.clients[at].call(&words);
        assert_eq!(reply.text(), "OK", "{words:?} at node {at}");
    }

    /// Carries the slot from one node to another, as redis-cli does.
    fn carry(&mut self, source: usize, target: usize) {
        self.set_slot(target, "IMPORTING", source);
        self.set_slot(source, "MIGRATING", target);
        let port = self.cluster.member(target).port().to_string();
        loop {
            let words = ["CLUSTER", "GETKEYSINSLOT", &self.slot, KEYS_AT_ONCE];
            let reply = self.clients[source].call(&words);
            let keys: Vec<String> = reply.items().iter().map(|key| key.text()).collect();
            if keys.is_empty() {
                break;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            let reply = self.clients[source].call(&words);
            // A client may have taken the keys away meanwhile.
            assert!(
                ["OK", "NOKEY"].contains(&reply.text().as_str()),
                "MIGRATE: {reply}"
            );
        }
        self.set_slot(target, "NODE", target);
        self.set_slot(source, "NODE", target);
        for other in (0..self.ids.len()).filter(|other| ![source, target].contains(other)) {
            self.set_slot(other, "NODE", target);
        }
    }
}

/// Histories of clients while their slot goes around all nodes, how often it moved, and how many commands met ASK.
fn record_moves(cluster: &Cluster, keys: &[String]) -> (Vec<Vec<Event>>, u64, u64) {
    let (is_over, asks) = (AtomicBool::new(false), AtomicU64::new(0));
    let source = cluster.owner(slot::of(keys[0].as_bytes()), 0).expect("an owner");
    scope(|scope| {
        let porter = scope.spawn(|| {
            let (mut porter, mut at, mut moves) = (Porter::of(cluster), source, 0);
            while !is_over.load(Ordering::Relaxed) {
                let next = (at + 1) % cluster.len();
                porter.carry(at, next);
                (at, moves) = (next, moves + 1);
            }
            moves
        });
        let _end = EndOnDrop(&is_over);
        let histories = record(CLIENTS, OPERATIONS, keys, || {
            let mut client = cluster.client();
            let asks = &asks;
            move |key: &str, words: &[&str]| {
                let before = client.redirects().ask;
                let reply = client.call(key, words).reply();
                asks.fetch_add(client.redirects().ask - before, Ordering::Relaxed);
                sleep(Duration::from_micros(500));
                reply
            }
        });
        is_over.store(true, Ordering::Relaxed);
        let moves = porter.join().expect("a porter that ends well");
        (histories, moves, asks.load(Ordering::Relaxed))
    })
}

/// Lets clients work on a slot that moves between nodes of these kinds, and judges what they saw.
fn check(kinds: &[Kind]) {
    let cluster = Plan::of(kinds).create();
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let mut client = cluster.client();
    for number in KEYS..KEYS + LUGGAGE {
        client.set(&key(number), &"v".repeat(3000));
    }
    let (histories, moves, asks) = record_moves(&cluster, &keys);
    for (key, events) in keys.iter().zip(&histories) {
        assert!(
            is_linearizable(events),
            "{key}: no order of these explains them: {events:#?}"
        );
    }
    assert!(
        moves >= 5 && asks >= 5,
        "the slot moved {moves} times, and {asks} commands met ASK"
    );
    let found = (KEYS..KEYS + LUGGAGE).filter(|&number| {
        let key = key(number);
        client.call(&key, &["STRLEN", &key]).reply().integer() == Some(3000)
    });
    assert_eq!(found.count(), LUGGAGE);
}

#[test]
fn keys_on_the_move_are_linearizable() {
    check(&[Kind::Shardis(2), Kind::Shardis(1), Kind::Shardis(4)]);
}

#[test]
fn keys_on_the_move_between_shardis_and_redis_are_linearizable() {
    check(&[Kind::Shardis(2), Kind::Redis, Kind::Shardis(1)]);
}
