//! Random blocking commands of several clients: beside a real server, the order in which they are served; alone and
//! all at once, that every element is delivered once or remains.
//!
//! `SHARDIS_DIFF_STEPS` makes the runs longer, `SHARDIS_DIFF_SEED` repeats one.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use shardis_tests::client::{Client, PATIENCE};
use shardis_tests::info::figure;
use shardis_tests::process::Process;
use shardis_tests::reply::Reply;
use shardis_tests::slot::one_key_per_shard;
use shardis_tests::{node, redis};

/// Clients that may wait at a time.
const CLIENTS: usize = 7;

/// Number of steps in an ordinary run.
const STEPS: usize = 600;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

fn seed() -> u64 {
    setting("SHARDIS_DIFF_SEED").unwrap_or_else(rand::random)
}

fn steps() -> usize {
    setting("SHARDIS_DIFF_STEPS").map_or(STEPS, |steps| usize::try_from(steps / 20).expect("a sane number"))
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

fn blocked_clients(control: &mut Client) -> usize {
    figure(control, "blocked_clients") as usize
}

/// One of the two servers, and the connections to it.
struct Side {
    server: Process,
    control: Client,
    clients: Vec<Client>,
    ids: Vec<String>,
}

impl Side {
    fn new(server: Process) -> Self {
        let mut side = Self {
            control: server.connect(),
            server,
            clients: Vec::new(),
            ids: Vec::new(),
        };
        for place in 0..CLIENTS {
            side.connect(place);
        }
        side
    }

    /// A new connection at a place.
    fn connect(&mut self, place: usize) {
        let mut client = self.server.connect();
        let id = client
            .line("CLIENT ID")
            .to_string()
            .trim_start_matches(':')
            .to_owned();
        if place == self.clients.len() {
            self.clients.push(client);
            self.ids.push(id);
        } else {
            self.clients[place] = client;
            self.ids[place] = id;
        }
    }

    fn await_blocked(&mut self, count: usize) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = blocked_clients(&mut self.control);
            if seen == count {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{seen} clients wait, and not {count}"));
            }
        }
    }
}

/// Two servers in the same play, and what was said so far.
struct Play {
    rng: StdRng,
    shardis: Side,
    oracle: Side,
    /// Whether each client waits.
    waiting: [bool; CLIENTS],
    next: u64,
    said: Vec<String>,
}

impl Play {
    fn new(seed: u64, shards: usize) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            shardis: Side::new(node::start(shards)),
            oracle: Side::new(redis::start_peer()),
            waiting: [false; CLIENTS],
            next: 0,
            said: Vec::new(),
        }
    }

    fn waiting_count(&self) -> usize {
        self.waiting.iter().filter(|&&waits| waits).count()
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices.choose(&mut self.rng).expect("a choice")
    }

    fn keys(&mut self, prefix: &str) -> Vec<String> {
        let count = self.rng.random_range(1..=4);
        (0..count)
            .map(|_| format!("{prefix}{}", self.rng.random_range(0..6)))
            .collect()
    }

    /// A blocking command of the client at a place.
    fn blocking(&mut self, place: usize) -> String {
        let (list, zset, stream) = (self.keys("l"), self.keys("z"), self.keys("s"));
        let end = self.pick(&["LEFT", "RIGHT"]);
        let to = self.pick(&["LEFT", "RIGHT"]);
        let count = self.rng.random_range(1..4);
        match self.rng.random_range(0..10) {
            0 | 1 => format!("BLPOP {} 0", list.join(" ")),
            2 => format!("BRPOP {} 0", list.join(" ")),
            3 | 4 => format!("BLMOVE {} l{} {end} {to} 0", list[0], self.rng.random_range(0..6)),
            5 => format!("BLMPOP 0 {} {} {end} COUNT {count}", list.len(), list.join(" ")),
            6 => {
                let name = self.pick(&["BZPOPMIN", "BZPOPMAX"]);
                format!("{name} {} 0", zset.join(" "))
            }
            7 => {
                let which = self.pick(&["MIN", "MAX"]);
                format!("BZMPOP 0 {} {} {which} COUNT {count}", zset.len(), zset.join(" "))
            }
            8 => {
                let ids = vec!["$"; stream.len()].join(" ");
                format!("XREAD COUNT {count} BLOCK 0 STREAMS {} {ids}", stream.join(" "))
            }
            _ => {
                let ids = vec![">"; stream.len()].join(" ");
                format!(
                    "XREADGROUP GROUP g{place} c BLOCK 0 STREAMS {} {ids}",
                    stream.join(" ")
                )
            }
        }
    }

    /// A command that gives to clients that wait, takes from them, or gets in their way. None stores a result over a value of
    /// another kind: the real server then leaves those waiting who wait for such a result, and shardis serves them.
    fn writing(&mut self) -> String {
        let key = self.rng.random_range(0..6);
        let other = self.rng.random_range(0..6);
        let kind = self.pick(&["l", "z", "s"]);
        self.next += 1;
        let next = self.next;
        match self.rng.random_range(0..24) {
            0..=5 => format!("RPUSH l{key} {next}"),
            6..=7 => format!("LPUSH l{key} {next}a {next}b {next}c"),
            8..=10 => format!("ZADD z{key} {next} {next}"),
            11..=13 => format!("XADD s{key} {next}-1 f v"),
            14 => format!("DEL {kind}{key}"),
            15 => format!("SET {kind}{key} x"),
            16 => format!("RENAME {kind}{key} {kind}{other}"),
            17 => format!("COPY {kind}{key} {kind}{other} REPLACE"),
            18 => format!("LMOVE l{key} l{other} LEFT RIGHT"),
            19 => format!("SADD {kind}{key} x"),
            20 => format!("PEXPIREAT {kind}{key} 1"),
            21 => {
                let place = self.rng.random_range(0..CLIENTS);
                format!("XGROUP DESTROY s{key} g{place}")
            }
            22 => format!("LPOP l{key}"),
            _ => format!("ZINCRBY z{key} {next} {other}"),
        }
    }

    /// Says the same to both servers and compares the replies.
    fn say(&mut self, line: &str) -> Result<Reply, String> {
        self.said.push(line.to_owned());
        let ours = self.shardis.control.line(line);
        let theirs = self.oracle.control.line(line);
        // The texts of errors are compared elsewhere.
        if ours != theirs && !(ours.is_error() && theirs.is_error()) {
            return Err(format!("{line}: {ours}, and not {theirs}"));
        }
        Ok(theirs)
    }

    /// Reads the replies of the clients that the real server has served, and demands the same of shardis.
    fn settle(&mut self) -> Result<(), String> {
        let mut served = self.waiting_count() - blocked_clients(&mut self.oracle.control);
        for place in 0..CLIENTS {
            if served == 0 {
                break;
            }
            if !self.waiting[place] {
                continue;
            }
            let theirs = match self.oracle.clients[place].read_within(Duration::from_millis(1)) {
                Ok(reply) => reply,
                Err(error) if error.kind() == ErrorKind::TimedOut => continue,
                Err(error) => return Err(format!("client {place}, beside the real server: {error}")),
            };
            self.waiting[place] = false;
            served -= 1;
            let ours = self.shardis.clients[place]
                .read()
                .map_err(|error| format!("client {place}: {error}, and not {theirs}"))?;
            let _ = write!(
                self.said.last_mut().expect("something was said"),
                "   -> {place}: {theirs}"
            );
            if ours != theirs {
                return Err(format!("client {place}: {ours}, and not {theirs}"));
            }
        }
        let outcome = self.shardis.await_blocked(self.waiting_count());
        outcome.map_err(|mut text| {
            for place in (0..CLIENTS).filter(|&place| self.waiting[place]) {
                if let Ok(reply) = self.shardis.clients[place].read_within(Duration::from_millis(1)) {
                    let _ = write!(text, "; client {place} got {reply}");
                }
            }
            text
        })
    }

    /// A client says a blocking command.
    fn block(&mut self) -> Result<(), String> {
        let Some(place) = (0..CLIENTS).find(|&place| !self.waiting[place]) else {
            return self.end_a_wait();
        };
        let line = self.blocking(place);
        if line.starts_with("XREADGROUP") {
            let streams = words(&line);
            let keys = &streams[7..7 + (streams.len() - 7) / 2];
            for key in keys {
                self.say(&format!("XGROUP CREATE {key} g{place} $ MKSTREAM"))?;
                self.settle()?;
            }
        }
        self.said.push(format!("{place}: {line}"));
        for side in [&mut self.shardis, &mut self.oracle] {
            side.clients[place]
                .send(&words(&line))
                .map_err(|error| error.to_string())?;
        }
        self.waiting[place] = true;
        // The real server has read it when it counts as one that waits, or has been answered.
        let deadline = Instant::now() + PATIENCE;
        while self.waiting[place] && blocked_clients(&mut self.oracle.control) < self.waiting_count() {
            if let Ok(theirs) = self.oracle.clients[place].read_within(Duration::from_millis(1)) {
                let ours = self.shardis.clients[place]
                    .read()
                    .map_err(|error| error.to_string())?;
                self.waiting[place] = false;
                if ours != theirs && !(ours.is_error() && theirs.is_error()) {
                    return Err(format!("{line}: {ours}, and not {theirs}"));
                }
            }
            if Instant::now() > deadline {
                return Err(format!("{line} neither waits nor is answered"));
            }
        }
        // The element that it moved may have served other clients.
        self.settle()
    }

    /// Ends the wait of a client: it is unblocked, or disconnects.
    fn end_a_wait(&mut self) -> Result<(), String> {
        let waiting: Vec<usize> = (0..CLIENTS).filter(|&place| self.waiting[place]).collect();
        let Some(&place) = waiting.choose(&mut self.rng) else {
            return Ok(());
        };
        let how = self.pick(&["UNBLOCK", "UNBLOCK ERROR", "KILL"]);
        self.said.push(format!("{how} {place}"));
        for side in [&mut self.shardis, &mut self.oracle] {
            let id = side.ids[place].clone();
            let reply = match how {
                "UNBLOCK" => side.control.call(&["CLIENT", "UNBLOCK", &id]),
                "KILL" => side.control.call(&["CLIENT", "KILL", "ID", &id]),
                _ => side.control.call(&["CLIENT", "UNBLOCK", &id, "ERROR"]),
            };
            if reply.integer() != Some(1) {
                return Err(format!("{how} {place}: {reply}"));
            }
        }
        if how == "KILL" {
            for side in [&mut self.shardis, &mut self.oracle] {
                side.connect(place);
            }
            self.waiting[place] = false;
        }
        self.settle()
    }

    /// Several writes as one unit.
    fn transaction(&mut self) -> Result<(), String> {
        self.say("MULTI")?;
        for _ in 0..self.rng.random_range(1..6) {
            let line = self.writing();
            self.say(&line)?;
        }
        // The order of replies to commands that fail is compared elsewhere; their number is the same.
        self.said.push("EXEC".to_owned());
        self.shardis.control.line("EXEC");
        self.oracle.control.line("EXEC");
        self.settle()
    }

    fn step(&mut self) -> Result<(), String> {
        match self.rng.random_range(0..20) {
            0..=7 => self.block(),
            8..=14 => {
                let line = self.writing();
                self.say(&line)?;
                self.settle()
            }
            15..=17 => self.transaction(),
            18 => self.end_a_wait(),
            _ if self.rng.random_range(0..5) == 0 => {
                self.say("FLUSHALL")?;
                self.settle()
            }
            _ => Ok(()),
        }
    }

    /// All keys hold the same.
    fn compare(&mut self) -> Result<(), String> {
        for key in 0..6 {
            self.say(&format!("LRANGE l{key} 0 -1"))?;
            self.say(&format!("ZRANGE z{key} 0 -1"))?;
            self.say(&format!("XRANGE s{key} - +"))?;
        }
        Ok(())
    }
}

/// Plays random steps on a server of `shards` shards and beside the real one.
fn play(shards: usize) {
    let seed = seed();
    let mut play = Play::new(seed, shards);
    for step in 0..steps() {
        let outcome = play
            .step()
            .and_then(|()| if step % 50 == 49 { play.compare() } else { Ok(()) });
        if let Err(difference) = outcome {
            let from = play.said.len().saturating_sub(100);
            panic!(
                "{shards} shards, SHARDIS_DIFF_SEED={seed}, step {step}:\n{}\n{difference}",
                play.said[from..].join("\n")
            );
        }
    }
}

#[test]
fn clients_are_served_as_by_the_real_server_with_one_shard() {
    play(1);
}

#[test]
fn clients_are_served_as_by_the_real_server_with_two_shards() {
    play(2);
}

#[test]
fn clients_are_served_as_by_the_real_server_with_four_shards() {
    play(4);
}

/// Everything that happens at once to elements on their way from producers to consumers.
struct Market<'a> {
    server: &'a Process,
    keys: &'a [String],
    /// Destinations of moved elements.
    done: &'a [String],
    is_over: AtomicBool,
    pushed: AtomicUsize,
}

impl Market<'_> {
    /// Pushes elements, some of them in transactions over several shards.
    fn produce(&self, id: usize, seed: u64, count: usize) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut client = self.server.connect();
        let mut next = 0;
        while next < count {
            let several = rng.random_range(0..4) == 0;
            if several {
                client.line("MULTI");
            }
            for _ in 0..if several { rng.random_range(1..5) } else { 1 } {
                let key = self.keys.choose(&mut rng).expect("a key");
                client.call(&["RPUSH", key, &format!("{id}:{next}")]);
                next += 1;
                self.pushed.fetch_add(1, Ordering::Relaxed);
            }
            if several {
                assert!(!client.line("EXEC").is_error());
            }
        }
    }

    /// Takes elements until there are no more; waits for some of the keys, mostly for a short time only.
    fn consume(&self, seed: u64) -> Vec<String> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut client = self.server.connect();
        let mut taken = Vec::new();
        while !self.is_over.load(Ordering::Acquire) {
            let count = rng.random_range(1..=4);
            let keys: Vec<&str> = (0..count)
                .map(|_| self.keys.choose(&mut rng).expect("a key").as_str())
                .collect();
            let keys = keys.join(" ");
            let timeout = ["0.001", "0.003", "0.01", "0.2"]
                .choose(&mut rng)
                .expect("a time");
            let reply = match rng.random_range(0..3) {
                0 => client.line(&format!("BLPOP {keys} {timeout}")),
                1 => client.line(&format!("BRPOP {keys} {timeout}")),
                _ => client.line(&format!("BLMPOP {timeout} {count} {keys} LEFT COUNT 3")),
            };
            match reply.items() {
                [_, Reply::Array(elements)] => taken.extend(elements.iter().map(Reply::text)),
                [_, element] => taken.push(element.text()),
                _ => assert!(reply.is_null() || reply.is_error(), "{reply}"),
            }
        }
        taken
    }

    /// Moves elements, and hangs up whenever it pleases: what was moved is in some list either way.
    fn carry(&self, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut client = self.server.connect();
        while !self.is_over.load(Ordering::Acquire) {
            let from = self.keys.choose(&mut rng).expect("a key");
            let to = self.done.choose(&mut rng).expect("a key");
            client
                .send(&["BLMOVE", from, to, "LEFT", "RIGHT", "0.05"])
                .expect("sent");
            if rng.random_range(0..4) == 0 {
                drop(client.read_within(Duration::from_millis(1)));
                client = self.server.connect();
            } else {
                client.read().expect("a reply");
            }
        }
    }

    /// Ends waits of random clients.
    fn disturb(&self) {
        let mut client = self.server.connect();
        while !self.is_over.load(Ordering::Acquire) {
            let list = client.line("CLIENT LIST").text();
            for line in list.lines().filter(|line| line.contains(" flags=b ")) {
                let id = line.split(' ').next().and_then(|word| word.strip_prefix("id="));
                client.call(&["CLIENT", "UNBLOCK", id.expect("an id"), "ERROR"]);
            }
            thread::sleep(Duration::from_millis(3));
        }
    }
}

/// Elements that are left in lists.
fn left(client: &mut Client, keys: &[String]) -> Vec<String> {
    let of = |key: &String| -> Vec<String> {
        let elements = client.call(&["LRANGE", key, "0", "-1"]);
        elements.items().iter().map(Reply::text).collect()
    };
    keys.iter().flat_map(of).collect()
}

fn deal(shards: usize) {
    let (seed, each) = (seed(), steps() * 2);
    let server = node::start(shards);
    let (keys, done) = (one_key_per_shard("q", 4), one_key_per_shard("done", 4));
    let market = Market {
        server: &server,
        keys: &keys,
        done: &done,
        is_over: AtomicBool::new(false),
        pushed: AtomicUsize::new(0),
    };
    let market = &market;
    let mut found: Vec<String> = thread::scope(|scope| {
        let producers: Vec<_> = (0..3)
            .map(|id| scope.spawn(move || market.produce(id, seed + id as u64, each)))
            .collect();
        let consumers: Vec<_> = (10..14)
            .map(|id| scope.spawn(move || market.consume(seed + id)))
            .collect();
        for id in 20..23 {
            scope.spawn(move || market.carry(seed + id));
        }
        scope.spawn(move || market.disturb());
        for producer in producers {
            producer.join().expect("a producer that ends well");
        }
        // No client goes on waiting while there is something to take.
        let mut client = server.connect();
        let deadline = Instant::now() + PATIENCE;
        while !left(&mut client, &keys).is_empty() {
            assert!(Instant::now() < deadline, "elements are left though clients wait");
        }
        market.is_over.store(true, Ordering::Release);
        consumers
            .into_iter()
            .flat_map(|consumer| consumer.join().expect("a consumer that ends well"))
            .collect()
    });
    found.extend(left(&mut server.connect(), &done));
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for element in &found {
        *times.entry(element.clone()).or_default() += 1;
    }
    times.retain(|_, count| *count > 1);
    assert!(
        times.is_empty(),
        "SHARDIS_DIFF_SEED={seed}: delivered more than once: {times:?}"
    );
    assert_eq!(
        found.len(),
        market.pushed.load(Ordering::Relaxed),
        "{shards} shards, SHARDIS_DIFF_SEED={seed}: elements were lost"
    );
    let mut client = server.connect();
    let deadline = Instant::now() + PATIENCE;
    while figure(&mut client, "blocked_clients") > 0 {
        assert!(Instant::now() < deadline, "clients that have gone still wait");
    }
}

#[test]
fn every_element_arrives_once_however_clients_behave() {
    [1, 2, 4].into_iter().for_each(deal);
}
