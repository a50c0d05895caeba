//! Blocking commands whose keys are in several shards, while those shards are busy or lent.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use shardis_tests::client::{Client, PATIENCE};
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::slot::of;

const SHARDS: usize = 4;

/// The first `count` names that begin with `prefix` and live in a shard.
fn keys_of(shard: usize, prefix: &str, count: usize) -> Vec<String> {
    let names = (0..).map(|i| format!("{prefix}{i}"));
    names
        .filter(|name| usize::from(of(name.as_bytes())) % SHARDS == shard)
        .take(count)
        .collect()
}

/// Figures of the server by name, from all of INFO.
fn figures(client: &mut Client) -> BTreeMap<String, String> {
    let text = client.line("INFO everything").text();
    let lines = text.lines().filter_map(|line| line.trim().split_once(':'));
    lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn figure(client: &mut Client, name: &str) -> u64 {
    let value = figures(client).remove(name);
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("INFO has no {name}"))
}

fn await_blocked(client: &mut Client, count: u64) {
    let deadline = Instant::now() + PATIENCE;
    while figure(client, "blocked_clients") != count {
        assert!(Instant::now() < deadline, "{count} clients should be blocked");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Number of commands that each loop has run.
fn commands_by_loop(client: &mut Client) -> Vec<u64> {
    let text = client.line("INFO shards").text();
    let counts = text.lines().filter_map(|line| {
        line.split_once("loop_commands=")?
            .1
            .split(',')
            .next()?
            .parse()
            .ok()
    });
    counts.collect()
}

/// A connection that the loop of a shard carries.
fn connect_to(server: &Process, shard: usize) -> Client {
    let mut watcher = server.connect();
    for _ in 0..16 * SHARDS {
        let mut client = server.connect();
        let before = commands_by_loop(&mut watcher);
        (0..64).for_each(|_| drop(client.line("PING")));
        let after = commands_by_loop(&mut watcher);
        if after[shard] - before[shard] >= 64 {
            return client;
        }
    }
    panic!("no connection came to loop {shard}");
}

/// Memory of a process that is in use, bytes.
fn resident_bytes(pid: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).expect("statm");
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("pages");
    pages * 4096
}

/// Processor time that the thread of a loop has used.
fn cpu_of_loop(pid: u32, shard: usize) -> Duration {
    let name = format!("shard-{shard}");
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let of_loop = tasks
        .map(|task| task.expect("a thread").path())
        .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name))
        .unwrap_or_else(|| panic!("no thread is called {name}"));
    let schedstat = fs::read_to_string(of_loop.join("schedstat")).expect("schedstat");
    let nanoseconds = schedstat.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.expect("nanoseconds"))
}

/// A server with moves that wait in shard 1 for elements to put into shard 2, and a command that keeps shard 2 for a while.
struct Scene {
    server: Process,
    /// Looks on, from the loop of shard 1.
    watcher: Client,
    sources: Vec<String>,
    moving: Vec<Client>,
    /// Their commands keep shard 2 busy.
    busy: Vec<Client>,
    /// `LCS` of two keys of shard 2, for a few hundred milliseconds.
    long: [String; 4],
    /// Number of turns of the loops before.
    turns: u64,
    /// Memory in use before.
    resident: u64,
    /// Processor time that the loop of shard 1 had used before.
    cpu: Duration,
}

impl Scene {
    fn with_moves(count: usize) -> Self {
        let server = node::launch(SHARDS)
            .with(&["--proto-max-bulk-len", "1024gb"])
            .serve();
        let mut watcher = connect_to(&server, 1);
        let sources = keys_of(1, "source", count);
        let destinations = keys_of(2, "destination", count);
        let moving: Vec<Client> = sources
            .iter()
            .zip(&destinations)
            .map(|(source, destination)| {
                let mut client = server.connect();
                client
                    .send(&["BLMOVE", source, destination, "LEFT", "LEFT", "0"])
                    .expect("sent");
                client
            })
            .collect();
        await_blocked(&mut watcher, count as u64);
        let tag = keys_of(2, "t", 1).remove(0);
        let mut scene = Self {
            server,
            watcher,
            sources,
            moving,
            busy: Vec::new(),
            long: [
                "LCS".into(),
                format!("{{{tag}}}a"),
                format!("{{{tag}}}b"),
                "LEN".into(),
            ],
            turns: 0,
            resident: 0,
            cpu: Duration::ZERO,
        };
        scene.prepare();
        scene
    }

    /// Makes the command long enough for the observation, on this machine and with this build.
    fn prepare(&mut self) {
        let mut len = 4096;
        loop {
            self.watcher.call(&["SET", &self.long[1], &"ab".repeat(len)]);
            self.watcher.call(&["SET", &self.long[2], &"ba".repeat(len)]);
            // The first one may be slow for other reasons.
            let took = [(); 2].map(|()| {
                let start = Instant::now();
                assert!(self.watcher.call(&self.long).integer().is_some());
                start.elapsed()
            });
            if took.iter().min() > Some(&Duration::from_millis(300)) {
                return;
            }
            len += len / 2;
        }
    }

    /// Keeps shard 2 busy with the long command.
    fn begin_long_command(&mut self) {
        let mut busy = connect_to(&self.server, 2);
        // INFO would wait for the shard.
        self.turns = figure(&mut self.watcher, "eventloop_cycles");
        self.resident = resident_bytes(self.server.pid());
        self.cpu = cpu_of_loop(self.server.pid(), 1);
        busy.send(&self.long).expect("sent");
        self.busy.push(busy);
        thread::sleep(Duration::from_millis(30));
    }

    /// Pushes an element for each move, and looks at what that costs the loop of shard 1 as long as shard 2 is taken.
    fn push_and_watch(&mut self) {
        let sources = self.sources.iter();
        let pushes: Vec<Vec<Vec<u8>>> = sources
            .map(|source| {
                ["RPUSH", source, "v"]
                    .map(|word| word.as_bytes().to_vec())
                    .to_vec()
            })
            .collect();
        self.watcher.pipeline(&pushes);
        let mut pings = 0;
        while !self.busy.is_empty() {
            self.watcher.line("PING");
            pings += 1;
            self.busy
                .retain_mut(|client| client.read_within(Duration::from_millis(1)).is_err());
        }
        assert!(pings >= 10, "only {pings} PINGs were answered meanwhile");
        // The duration of a PING would also depend on other load of this machine.
        let used = cpu_of_loop(self.server.pid(), 1) - self.cpu;
        let sensible =
            Duration::from_micros(300) * (pings + self.sources.len() as u32) + Duration::from_millis(30);
        assert!(
            used < sensible,
            "the loop was busy for {used:?}, and not {sensible:?} at most"
        );
        for client in &mut self.moving {
            assert_eq!(client.read().expect("served").text(), "v");
        }
        let turns = figure(&mut self.watcher, "eventloop_cycles") - self.turns;
        let expected = 12 * u64::from(pings) + 8 * self.sources.len() as u64 + 1000;
        assert!(turns < expected, "{turns} turns, and not {expected} at most");
        let grown = resident_bytes(self.server.pid()).saturating_sub(self.resident);
        assert!(grown < 4 << 20, "{grown} bytes more in use");
        let left: Vec<&str> = std::iter::once("EXISTS")
            .chain(self.sources.iter().map(String::as_str))
            .collect();
        assert_eq!(self.watcher.call(&left).integer(), Some(0));
    }
}

#[test]
fn moves_to_a_busy_shard_cost_nothing_while_they_wait() {
    for count in [1, 2, 10, 100, 500] {
        let mut scene = Scene::with_moves(count);
        scene.begin_long_command();
        scene.push_and_watch();
    }
}

#[test]
fn moves_to_a_lent_shard_cost_nothing_while_they_wait() {
    for count in [2, 100] {
        let mut scene = Scene::with_moves(count);
        let mut borrower = connect_to(&scene.server, 0);
        let other = keys_of(3, "other", 1).remove(0);
        borrower.line("MULTI");
        borrower.call(&["GET", &other]);
        borrower.call(&scene.long);
        // As long as the shard is busy, the transaction can only have it lent.
        scene.begin_long_command();
        borrower.send(&["EXEC"]).expect("sent");
        scene.busy.push(borrower);
        scene.push_and_watch();
    }
}

#[test]
fn what_expires_within_its_transaction_serves_nobody() {
    for shards in [1, SHARDS] {
        let server = node::launch(shards)
            .with(&["--enable-debug-command", "yes"])
            .serve();
        let mut writer = server.connect();
        for (blocking, push) in [
            ("BLPOP k other 0", "RPUSH k a"),
            ("BRPOP other k 0", "RPUSH k a"),
            ("BLMPOP 0 2 other k LEFT", "RPUSH k a"),
            ("BLMOVE k other LEFT RIGHT 0", "RPUSH k a"),
            ("BRPOPLPUSH k other 0", "RPUSH k a"),
            ("BZPOPMIN k other 0", "ZADD k 1 a"),
            ("BZPOPMAX other k 0", "ZADD k 1 a"),
            ("BZMPOP 0 2 other k MIN", "ZADD k 1 a"),
            ("XREAD BLOCK 0 STREAMS other k 0 0", "XADD k 1-1 f v"),
        ] {
            let mut waiting = server.connect();
            waiting
                .send(&blocking.split(' ').collect::<Vec<_>>())
                .expect("sent");
            await_blocked(&mut writer, 1);
            for line in ["MULTI", push, "PEXPIRE k 1", "DEBUG SLEEP 0.01", "EXEC"] {
                assert!(!writer.line(line).is_error(), "{line}");
            }
            assert!(
                waiting.read_within(Duration::from_millis(20)).is_err(),
                "{blocking} is served with what has expired"
            );
            writer.line(push);
            assert!(!waiting.read().expect("served").is_null(), "{blocking}");
            writer.line("FLUSHALL");
        }
    }
}
