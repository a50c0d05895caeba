//! Blocking commands whose keys are in several shards, while those shards are busy or lent.

use std::thread;
use std::time::{Duration, Instant};

use shardis_tests::client::Client;
use shardis_tests::info::{figure, of_shards};
use shardis_tests::loops::connect_to;
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::procfs::resident_bytes;
use shardis_tests::slot::of;
use shardis_tests::wait::await_blocked;

const SHARDS: usize = 4;

/// The first `count` names that begin with `prefix` and live in a shard.
fn keys_of(shard: usize, prefix: &str, count: usize) -> Vec<String> {
    let names = (0..).map(|i| format!("{prefix}{i}"));
    names
        .filter(|name| usize::from(of(name.as_bytes())) % SHARDS == shard)
        .take(count)
        .collect()
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
    /// Work and memory of the server before the observation.
    before: Done,
}

/// Work and memory of a server so far.
#[derive(Default)]
struct Done {
    turns: u64,
    messages: u64,
    resident_bytes: u64,
}

impl Done {
    fn by(server: &Process, client: &mut Client) -> Self {
        Self {
            turns: figure(client, "eventloop_cycles"),
            messages: of_shards(client, "messages").iter().sum(),
            resident_bytes: resident_bytes(server.pid()).expect("a running process"),
        }
    }
}

impl Scene {
    fn with_moves(count: usize, busy: Duration) -> Self {
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
        await_blocked(&mut watcher, count);
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
            before: Done::default(),
        };
        scene.prepare(busy);
        scene
    }

    /// Makes the command last at least so long, on this machine and with this build.
    fn prepare(&mut self, busy: Duration) {
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
            if took.iter().min() > Some(&busy) {
                return;
            }
            len += len / 2;
        }
    }

    /// Keeps shard 2 busy with the long command.
    fn begin_long_command(&mut self) {
        let mut busy = connect_to(&self.server, 2);
        // INFO would wait for the shard.
        self.before = Done::by(&self.server, &mut self.watcher);
        busy.send(&self.long).expect("sent");
        self.busy.push(busy);
        thread::sleep(Duration::from_millis(30));
    }

    /// Pushes an element for each move, and looks at what that costs the loop of shard 1 as long as shard 2 is taken. False
    /// when that loop answered few PINGs meanwhile.
    fn push_and_watch(&mut self) -> bool {
        let sources = self.sources.iter();
        let pushes: Vec<Vec<Vec<u8>>> = sources
            .map(|source| {
                ["RPUSH", source, "v"]
                    .map(|word| word.as_bytes().to_vec())
                    .to_vec()
            })
            .collect();
        self.watcher.pipeline(&pushes);
        let mut pings: u64 = 0;
        while !self.busy.is_empty() {
            self.watcher.line("PING");
            pings += 1;
            self.busy
                .retain_mut(|client| client.read_within(Duration::from_millis(1)).is_err());
        }
        for client in &mut self.moving {
            assert_eq!(client.read().expect("served").text(), "v");
        }
        // The duration depends on the load of the machine; the amount of work does not.
        let (before, now) = (&self.before, Done::by(&self.server, &mut self.watcher));
        let moves = self.sources.len() as u64;
        let turns = now.turns - before.turns;
        let expected = 12 * pings + 8 * moves + 1000;
        assert!(turns < expected, "{turns} turns, and not {expected} at most");
        // One for each served client of another loop, and the retries, which the moves share.
        let messages = now.messages - before.messages;
        let expected = moves + 100;
        assert!(
            messages < expected,
            "{messages} messages, and not {expected} at most"
        );
        let grown = now.resident_bytes.saturating_sub(before.resident_bytes);
        assert!(grown < 4 << 20, "{grown} bytes more in use");
        let left: Vec<&str> = std::iter::once("EXISTS")
            .chain(self.sources.iter().map(String::as_str))
            .collect();
        assert_eq!(self.watcher.call(&left).integer(), Some(0));
        pings >= 10
    }
}

/// Tries a scene with longer and longer commands: on a machine with much else to do, a short one is over before there was
/// much to see. A loop that is held up by the moves is so as long as any of them lasts.
fn expect_answers(mut scene: impl FnMut(Duration) -> bool) {
    let lengths = [300, 1000, 4000].map(Duration::from_millis);
    assert!(
        lengths.into_iter().any(&mut scene),
        "hardly any PING was answered"
    );
}

#[test]
fn moves_to_a_busy_shard_cost_nothing_while_they_wait() {
    for count in [1, 2, 10, 100, 500] {
        expect_answers(|busy| {
            let mut scene = Scene::with_moves(count, busy);
            scene.begin_long_command();
            scene.push_and_watch()
        });
    }
}

#[test]
fn moves_to_a_lent_shard_cost_nothing_while_they_wait() {
    for count in [2, 100] {
        expect_answers(|busy| {
            let mut scene = Scene::with_moves(count, busy);
            let mut borrower = connect_to(&scene.server, 0);
            let other = keys_of(3, "other", 1).remove(0);
            borrower.line("MULTI");
            borrower.call(&["GET", &other]);
            borrower.call(&scene.long);
            // As long as the shard is busy, the transaction can only have it lent.
            scene.begin_long_command();
            borrower.send(&["EXEC"]).expect("sent");
            scene.busy.push(borrower);
            scene.push_and_watch()
        });
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
