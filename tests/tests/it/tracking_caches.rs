//! Local caches that are kept right by messages: under writers on all shards, through reconnects, and those of client libraries.
//!
//! The libraries' own caches are used by `python/tracking.py` and `node/tracking.js`.

use std::collections::{HashMap, VecDeque};
use std::process::Stdio;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rand::RngExt as _;
use shardis_tests::client::Client;
use shardis_tests::node;
use shardis_tests::process::{Process, repository_root};
use shardis_tests::reply::Reply;

use super::redis_py::library;

/// Keys that are read and written.
const KEYS: usize = 64;

/// Keys that a cache holds: fewer than there are.
const CACHED_MAX: usize = 40;

/// Duration of a run.
const RUN: Duration = Duration::from_millis(1500);

fn key(number: usize) -> String {
    format!("{}:{number}", ["user", "item"][number % 2])
}

fn number_of(key: &[u8]) -> usize {
    let text = String::from_utf8_lossy(key);
    let (_, number) = text.split_once(':').expect("kind:number");
    number.parse().expect("a number")
}

/// Numbers that were acknowledged to writers, by key: nobody may take an older one for the present one any more.
struct Acknowledged(Vec<AtomicU64>);

impl Acknowledged {
    fn new() -> Acknowledged {
        Acknowledged((0..KEYS).map(|_| AtomicU64::new(0)).collect())
    }

    fn all(&self) -> Vec<u64> {
        self.0
            .iter()
            .map(|number| number.load(Ordering::SeqCst))
            .collect()
    }
}

/// A cache of the values that were used last.
#[derive(Default)]
struct Lru {
    values: HashMap<usize, u64>,
    order: VecDeque<usize>,
}

impl Lru {
    fn put(&mut self, number: usize, value: u64) {
        self.order.retain(|&known| known != number);
        self.order.push_back(number);
        self.values.insert(number, value);
        if self.order.len() > CACHED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
    }

    fn drop_all(&mut self) {
        *self = Lru::default();
    }

    fn drop_one(&mut self, number: usize) {
        self.values.remove(&number);
        self.order.retain(|&known| known != number);
    }
}

/// A client with a cache.
struct CachingClient {
    client: Client,
    cache: Lru,
    /// Values found in the cache.
    hits: usize,
}

impl CachingClient {
    fn connect(server: &Process, options: &str) -> CachingClient {
        let mut client = server.connect();
        client.line("HELLO 3");
        assert_eq!(client.line(&format!("CLIENT TRACKING ON {options}")).text(), "OK");
        CachingClient {
            client,
            cache: Lru::default(),
            hits: 0,
        }
    }

    /// The next reply, after the messages ahead of it have been obeyed.
    fn reply(&mut self) -> Reply {
        loop {
            let reply = self.client.read().expect("a reply");
            let Reply::Push(message) = &reply else {
                return reply;
            };
            assert_eq!(message[0].text(), "invalidate");
            if message[1].is_null() {
                self.cache.drop_all();
            }
            for key in message[1].items() {
                self.cache.drop_one(number_of(key.bytes()));
            }
        }
    }

    /// Reads some keys, those in the cache from there, the others in one pipeline.
    fn read(&mut self, numbers: &[usize]) {
        let missing: Vec<usize> = numbers
            .iter()
            .copied()
            .filter(|number| !self.cache.values.contains_key(number))
            .collect();
        self.hits += numbers.len() - missing.len();
        for &number in &missing {
            self.client.send(&["GET", &key(number)]).expect("a connection");
        }
        for &number in &missing {
            let reply = self.reply();
            let value = if reply.is_null() {
                0
            } else {
                reply.text().parse().expect("a number")
            };
            self.cache.put(number, value);
        }
    }

    /// Asserts that nothing in the cache is older than what was acknowledged before the server was asked for news.
    fn check(&mut self, acknowledged: &Acknowledged) {
        let known = acknowledged.all();
        self.client.send(&["PING"]).expect("a connection");
        assert_eq!(self.reply().text(), "PONG");
        for (&number, &value) in &self.cache.values {
            assert!(
                value >= known[number],
                "{} is {value} in the cache, after {} was acknowledged",
                key(number),
                known[number]
            );
        }
    }
}

/// Counts keys up until told to stop. Each writer has keys of its own.
fn write(server: &Process, writer: usize, writers: usize, acknowledged: &Acknowledged, stop: &AtomicBool) {
    let mut client = server.connect();
    let mut rng = rand::rng();
    let own: Vec<usize> = (0..KEYS).filter(|number| number % writers == writer).collect();
    while !stop.load(Ordering::Relaxed) {
        let number = own[rng.random_range(0..own.len())];
        let next = acknowledged.0[number].load(Ordering::SeqCst) + 1;
        match rng.random_range(0..4) {
            0 => {
                let words = [
                    "MULTI".to_owned(),
                    format!("SET {} {next}", key(number)),
                    "EXEC".to_owned(),
                ];
                words.iter().for_each(|line| {
                    client.line(line);
                });
            }
            1 => {
                client.call(&["MSET", &key(number), &next.to_string(), "unrelated:1", "x"]);
            }
            _ => {
                client.call(&["SET", &key(number), &next.to_string()]);
            }
        }
        acknowledged.0[number].store(next, Ordering::SeqCst);
        if rng.random_range(0..3) == 0 {
            thread::sleep(Duration::from_micros(rng.random_range(0..300)));
        }
    }
}

/// Reads at random, checks the cache, and connects anew now and then. Returns the number of values found in the cache.
fn use_cache(server: &Process, options: &str, acknowledged: &Acknowledged, stop: &AtomicBool) -> usize {
    let mut rng = rand::rng();
    let mut client = CachingClient::connect(server, options);
    let mut hits = 0;
    for round in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let numbers: Vec<usize> = (0..rng.random_range(1..30))
            .map(|_| rng.random_range(0..KEYS))
            .collect();
        client.read(&numbers);
        client.check(acknowledged);
        if round % 150 == 0 {
            hits += client.hits;
            // What was cached goes with the connection.
            client = CachingClient::connect(server, options);
        }
    }
    client.check(acknowledged);
    hits + client.hits
}

/// Runs readers with these options beside writers.
fn stay_coherent(shards: usize, options: &[&str]) {
    let server = node::start(shards);
    let (acknowledged, stop) = (Acknowledged::new(), AtomicBool::new(false));
    thread::scope(|scope| {
        for writer in 0..3 {
            let (server, acknowledged, stop) = (&server, &acknowledged, &stop);
            scope.spawn(move || write(server, writer, 3, acknowledged, stop));
        }
        let readers: Vec<_> = options
            .iter()
            .map(|options| {
                let (server, acknowledged, stop) = (&server, &acknowledged, &stop);
                scope.spawn(move || use_cache(server, options, acknowledged, stop))
            })
            .collect();
        thread::sleep(RUN);
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(
                reader.join().expect("a coherent cache") > 0,
                "nothing was ever cached"
            );
        }
    });
}

const BROADCAST: &str = "BCAST PREFIX user: PREFIX item: NOLOOP";

#[test]
fn caches_stay_coherent() {
    stay_coherent(1, &["", BROADCAST]);
    stay_coherent(4, &["", "", BROADCAST, BROADCAST]);
}

#[test]
fn caches_stay_coherent_beside_a_full_table() {
    let server = node::launch(4).with(&["--tracking-table-max-keys", "20"]).serve();
    let (acknowledged, stop) = (Acknowledged::new(), AtomicBool::new(false));
    thread::scope(|scope| {
        let (server, acknowledged, stop) = (&server, &acknowledged, &stop);
        scope.spawn(move || write(server, 0, 1, acknowledged, stop));
        let readers = [(); 3].map(|()| scope.spawn(move || use_cache(server, "", acknowledged, stop)));
        thread::sleep(RUN);
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().expect("a coherent cache");
        }
    });
}

/// Writes keys that another one writes too, keeps what it has written itself, and is not told of that.
fn write_through(server: &Process, writer: u64, barrier: &Barrier) {
    let mut client = CachingClient::connect(server, BROADCAST);
    let mut rng = rand::rng();
    for round in 0..3000 {
        let number = rng.random_range(0..8);
        let value = round * 10 + writer;
        client
            .client
            .send(&["SET", &key(number), &value.to_string()])
            .expect("a connection");
        assert_eq!(client.reply().text(), "OK");
        client.cache.put(number, value);
    }
    barrier.wait();
    client.client.send(&["PING"]).expect("a connection");
    assert_eq!(client.reply().text(), "PONG");
    for (number, value) in client.cache.values.clone() {
        client.client.send(&["GET", &key(number)]).expect("a connection");
        assert_eq!(client.reply().text(), value.to_string(), "{}", key(number));
    }
}

#[test]
fn what_two_have_written_through_their_caches_is_what_the_last_one_wrote() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let barrier = Barrier::new(3);
        thread::scope(|scope| {
            let (server, barrier) = (&server, &barrier);
            for writer in 0..3 {
                scope.spawn(move || write_through(server, writer, barrier));
            }
        });
    }
}

/// Runs a script that uses the cache of a client library.
fn run(program: &str, script: &str, (variable, folder): (&str, &str)) {
    for shards in [1, 4] {
        let server = node::start(shards);
        let status = std::process::Command::new(program)
            .arg(repository_root().join("tests").join(script))
            .arg(server.port().to_string())
            .env(variable, folder)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .status()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(status.success(), "{script} failed with {shards} shards");
    }
}

#[test]
fn the_cache_of_redis_py_works() {
    run(
        "python3",
        "python/tracking.py",
        ("PYTHONPATH", &library().display().to_string()),
    );
}

#[test]
fn the_cache_of_node_redis_works() {
    let script = std::process::Command::new(repository_root().join("scripts/node-clients"))
        .stderr(Stdio::inherit())
        .output()
        .expect("scripts/node-clients can be run");
    assert!(
        script.status.success(),
        "scripts/node-clients could not install the libraries"
    );
    let folder = String::from_utf8_lossy(&script.stdout).trim().to_owned();
    run("node", "node/tracking.js", ("NODE_PATH", &folder));
}
