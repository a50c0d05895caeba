//! A node that is killed at each step of a slot's way to another one: `redis-cli --cluster fix` mends it, and no key is lost or doubled.

use std::time::Duration;

use shardis_tests::client::Client;
use shardis_tests::cluster::{Cluster, Plan};
use shardis_tests::replication::member::Kind;
use shardis_tests::slot;

/// Keys of the slot that moves: enough of them, and large ones, that one MIGRATE takes a while.
const KEYS: usize = 60;

/// Bytes of a value.
const VALUE_BYTES: usize = 20_000;

/// Keys of other slots.
const BYSTANDERS: usize = 300;

/// Longest wait for a read.
const PATIENCE: Duration = Duration::from_secs(20);

/// Steps of a slot's way, each of which includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Importing,
    Migrating,
    HalfOfTheKeys,
    /// MIGRATE of the rest is under way.
    MidKeys,
    AllKeys,
    TargetOwns,
    SourceKnows,
}

/// All of them.
const STEPS: [Step; 7] = [
    Step::Importing,
    Step::Migrating,
    Step::HalfOfTheKeys,
    Step::MidKeys,
    Step::AllKeys,
    Step::TargetOwns,
    Step::SourceKnows,
];

/// A node that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Source,
    Target,
}

fn key(number: usize) -> String {
    format!("{{moves}}:{number}")
}

fn value(number: usize) -> String {
    format!("{number}:").repeat(VALUE_BYTES / 4)
}

/// Writes all keys; every third one expires in an hour.
fn fill(cluster: &Cluster) {
    let mut client = cluster.client();
    for number in 0..KEYS {
        let (key, value) = (key(number), value(number));
        let mut words = vec!["SET", &key, &value];
        if number % 3 == 0 {
            words.extend(["EX", "3600"]);
        }
        assert_eq!(client.call(&key, &words).reply().text(), "OK");
    }
    for number in 0..BYSTANDERS {
        let key = format!("bystander:{number}");
        client.set(&key, "value");
    }
}

/// A slot on its way between two primaries.
struct Move<'a> {
    cluster: &'a Cluster,
    slot: String,
    source: usize,
    target: usize,
    ids: [String; 2],
}

impl Move<'_> {
    /// Takes all steps up to one.
    fn go(&self, last: Step) {
        let (mut source, mut target) = (self.client(self.source), self.client(self.target));
        let [source_id, target_id] = &self.ids;
        for step in STEPS.into_iter().filter(|step| *step <= last) {
            match step {
                Step::Importing => self.set_slot(&mut target, &["IMPORTING", source_id]),
                Step::Migrating => self.set_slot(&mut source, &["MIGRATING", target_id]),
                Step::HalfOfTheKeys => self.migrate(&mut source, 0..KEYS / 2),
                Step::MidKeys if last == Step::MidKeys => self.begin_to_migrate(&mut source),
                Step::MidKeys => {}
                Step::AllKeys => self.migrate(&mut source, KEYS / 2..KEYS),
                Step::TargetOwns => self.set_slot(&mut target, &["NODE", target_id]),
                Step::SourceKnows => self.set_slot(&mut source, &["NODE", target_id]),
            }
        }
    }

    fn client(&self, index: usize) -> Client {
        self.cluster.member(index).client()
    }

    fn set_slot(&self, client: &mut Client, words: &[&str]) {
        let mut request = vec!["CLUSTER", "SETSLOT", &self.slot];
        request.extend(words);
        let reply = client.call(&request);
        assert_eq!(reply.text(), "OK", "{request:?}");
    }

    fn request(&self, numbers: std::ops::Range<usize>) -> Vec<String> {
        let port = self.cluster.member(self.target).port().to_string();
        let words = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        words
            .into_iter()
            .map(str::to_owned)
            .chain(numbers.map(key))
            .collect()
    }

    fn migrate(&self, source: &mut Client, numbers: std::ops::Range<usize>) {
        let reply = source.call(&self.request(numbers));
        assert_eq!(reply.text(), "OK", "MIGRATE");
    }

    /// Sends MIGRATE for the rest, and does not wait.
    fn begin_to_migrate(&self, source: &mut Client) {
        source
            .send(&self.request(KEYS / 2..KEYS))
            .expect("it takes the request");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Every key is there once, with its value and its expiry.
fn check(cluster: &Cluster, what: &str) {
    let mut client = cluster.client();
    for number in 0..KEYS {
        let key = key(number);
        let found = client.insist(&key, &["GET", &key], PATIENCE).expect("a reply");
        assert_eq!(found.text(), value(number), "{what}: {key}");
        let ttl = client
            .insist(&key, &["TTL", &key], PATIENCE)
            .expect("a reply")
            .integer();
        let expires = ttl.is_some_and(|ttl| (2000..=3600).contains(&ttl));
        assert_eq!(expires, number % 3 == 0, "{what}: {key} has TTL {ttl:?}");
    }
    for number in 0..BYSTANDERS {
        let key = format!("bystander:{number}");
        let found = client.insist(&key, &["GET", &key], PATIENCE).expect("a reply");
        assert_eq!(found.text(), "value", "{what}: {key}");
    }
    assert_eq!(
        cluster.key_count(),
        (KEYS + BYSTANDERS) as i64,
        "{what}: keys of all nodes"
    );
}

/// Kills a node in the middle of a move; `fix` mends what is left, and all is there.
fn kill_at(cluster: &mut Cluster, step: Step, victim: Victim) {
    let what = format!("{victim:?} killed after {step:?}");
    let slot = slot::of(key(0).as_bytes());
    let source = cluster.owner(slot, 0).expect("an owner");
    let target = (source + 1) % cluster.len();
    let moving = Move {
        cluster,
        slot: slot.to_string(),
        source,
        target,
        ids: [cluster.id(source), cluster.id(target)],
    };
    moving.go(step);
    let killed = if victim == Victim::Source { source } else { target };
    cluster.member_mut(killed).kill();
    cluster.member_mut(killed).start_again();
    await_service(cluster);
    let at = cluster.address(0);
    cluster.cli(["fix", &at, "--cluster-yes"]);
    cluster.await_whole();
    for index in 0..cluster.len() {
        let view = cluster.common_view(&[index]).expect("a view");
        assert_eq!(view.open, Vec::<String>::new(), "{what}: node {index}");
    }
    cluster.cli(["check", &at]);
    check(cluster, &what);
}

/// Waits until all nodes take commands again: one that has just started refuses them for a while.
fn await_service(cluster: &Cluster) {
    let all: Vec<usize> = (0..cluster.len()).collect();
    cluster.await_that("service", || {
        for &index in &all {
            cluster.common_view(&[index])?.is_whole()?;
        }
        Ok(())
    });
}

fn kill_at_each_step(victim: Victim) {
    let kinds = [Kind::Shardis(2), Kind::Shardis(1), Kind::Shardis(4)];
    let mut cluster = Plan::of(&kinds)
        .with(&["appendonly yes", "appendfsync always"])
        .create();
    fill(&cluster);
    check(&cluster, "before");
    for step in STEPS {
        kill_at(&mut cluster, step, victim);
    }
}

#[test]
fn a_source_that_is_killed_at_each_step_of_a_move() {
    kill_at_each_step(Victim::Source);
}

#[test]
fn a_target_that_is_killed_at_each_step_of_a_move() {
    kill_at_each_step(Victim::Target);
}
