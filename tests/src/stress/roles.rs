//! The clients of a run, each in a role: its commands, and the end of its connection.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::{Plan, Shared};
use crate::client::{Client, encode};
use crate::generate::Generator;

/// A request: its words.
type Request = Vec<Vec<u8>>;

/// Makes the next pipeline of a client.
type Script = fn(&mut StdRng) -> Vec<Request>;

/// The whole of what a client does.
type Role = Box<dyn FnOnce(&Shared, StdRng) + Send>;

/// Clients that send pipelines and read all replies: how many of them, and their script.
const TALKERS: &[(usize, Script)] = &[
    (3, moves),
    (2, fills),
    (2, expires),
    (2, transacts),
    (6, blocks),
    (3, feeds),
    (1, disturbs),
];

/// Clients of the random generator over all families.
const GENERATORS: usize = 3;

/// Clients that end their connections rudely.
const VANDALS: usize = 3;

/// Clients that listen to what is published or said.
const LISTENERS: usize = 2;

/// Starts all clients of a plan.
pub(super) fn spawn(plan: Plan, shared: &Arc<Shared>) -> Vec<JoinHandle<()>> {
    let mut seeds = StdRng::seed_from_u64(plan.seed);
    let mut threads = Vec::new();
    let mut start = |client: Role| {
        let (shared, rng) = (Arc::clone(shared), StdRng::seed_from_u64(seeds.random()));
        threads.push(thread::spawn(move || client(&shared, rng)));
    };
    for &(count, script) in TALKERS {
        for _ in 0..count {
            start(Box::new(move |shared, rng| talk(shared, rng, script)));
        }
    }
    (0..GENERATORS).for_each(|_| start(Box::new(generate)));
    (0..VANDALS).for_each(|_| start(Box::new(vandalise)));
    (0..LISTENERS).for_each(|_| start(Box::new(listen)));
    start(Box::new(kill));
    threads
}

/// Sends pipelines of a script until the run is over.
fn talk(shared: &Shared, mut rng: StdRng, script: Script) {
    converse(shared, |_| script(&mut rng));
}

/// Sends pipelines of random commands of all families.
fn generate(shared: &Shared, mut rng: StdRng) {
    let mut generator = Generator::new(rng.random());
    converse(shared, |_| {
        let commands = (0..rng.random_range(1..40)).map(|_| generator.command().words);
        commands.collect()
    });
}

/// Sends pipelines, one connection after another, each as long as it lasts, and checks that each is answered in full.
fn converse(shared: &Shared, mut next: impl FnMut(&mut Client) -> Vec<Request>) {
    while !shared.is_over() {
        let Ok(mut client) = Client::connect(shared.server.address()) else {
            sleep(Duration::from_millis(10));
            continue;
        };
        while !shared.is_over() {
            shared.rest();
            let requests = next(&mut client);
            match answered(&mut client, &requests) {
                Ok(None) => shared.pipelines.fetch_add(1, Ordering::Relaxed),
                Ok(Some(fault)) => {
                    shared.faults.add(fault);
                    return;
                }
                Err(_) => {
                    shared.ended.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            };
        }
    }
}

/// Sends a pipeline and reads all its replies, the last of which must repeat a token. The fault, if there is one; an error
/// when the connection has ended, as many are made to.
fn answered(client: &mut Client, requests: &[Request]) -> std::io::Result<Option<String>> {
    const TOKEN: &str = "the last of this pipeline";
    let mut bytes = Vec::new();
    requests.iter().for_each(|request| encode(&mut bytes, request));
    // Ends a subscription or transaction that the requests have begun, so that the token is answered at once.
    for request in [&["UNSUBSCRIBE"][..], &["DISCARD"], &["ECHO", TOKEN]] {
        encode(&mut bytes, request);
    }
    client.write(&bytes)?;
    let mut replies = Vec::new();
    for request in requests {
        match client.read() {
            Ok(reply) => replies.push(reply.to_string().chars().take(60).collect::<String>()),
            Err(error) => {
                let fault = format!("{} was not answered: {error}", crate::client::shown(request));
                return fault_or_end(error, fault);
            }
        }
    }
    let mut last = client.read();
    for _ in 0..2 {
        replies.extend(
            last.as_ref()
                .map(|reply| reply.to_string().chars().take(60).collect::<String>()),
        );
        last = client.read();
    }
    match last {
        Ok(reply) if reply.bytes() == TOKEN.as_bytes() => Ok(None),
        Ok(reply) => {
            let said: Vec<String> = requests
                .iter()
                .map(|request| crate::client::shown(request))
                .collect();
            Ok(Some(format!(
                "{reply} came in the place of the token, after {}, which were answered {}",
                said.join("; "),
                replies.join("; ")
            )))
        }
        Err(error) => fault_or_end(error, "the token was not answered".to_owned()),
    }
}

/// A connection may end; one that is silent or makes no sense is a fault.
fn fault_or_end(error: std::io::Error, fault: String) -> std::io::Result<Option<String>> {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::InvalidData => Ok(Some(fault)),
        _ => Err(error),
    }
}

fn words(line: &str) -> Request {
    line.split_ascii_whitespace()
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

/// One of a few keys of a kind, spread over the shards.
fn key(rng: &mut StdRng, kind: char) -> String {
    format!("{kind}:{}", rng.random_range(0..24))
}

/// A value of any size up to beyond the one from which arguments have buffers of their own.
fn value(rng: &mut StdRng) -> Vec<u8> {
    let len = *[1, 30, 200, 5_000, 70_000, 200_000].choose(rng).unwrap_or(&1);
    vec![b'a' + rng.random_range(0..26_u8); rng.random_range(len / 2..=len)]
}

/// Moves of values between keys, mostly from shard to shard.
fn moves(rng: &mut StdRng) -> Vec<Request> {
    let templates = [
        "RENAME s s",
        "RENAMENX s s",
        "COPY s s REPLACE",
        "COPY l l REPLACE",
        "MOVE s 1",
        "LMOVE l l LEFT RIGHT",
        "RPOPLPUSH l l",
        "SMOVE m m a",
        "SUNIONSTORE m m m",
        "SINTERSTORE m m m",
        "ZUNIONSTORE z 2 z z",
        "ZRANGESTORE z z 0 -1",
        "SORT l BY nosort STORE l",
        "BITOP OR s s s",
        "PFMERGE p p p",
        "MSET s 1 s 2 s 3",
        "SWAPDB 0 1",
        "DEL s l m z",
        "UNLINK s l m z",
    ];
    let mut requests = Vec::new();
    for _ in 0..rng.random_range(1..12) {
        let template = templates.choose(rng).copied().unwrap_or("PING");
        requests.push(filled(template, rng));
    }
    requests
}

/// The words of a template; single letters that name a kind of key become keys.
fn filled(template: &str, rng: &mut StdRng) -> Request {
    let mut words: Request = Vec::new();
    for word in template.split(' ') {
        words.push(match word {
            "s" | "l" | "m" | "z" | "p" | "h" | "x" => {
                key(rng, word.chars().next().unwrap_or('s')).into_bytes()
            }
            _ => word.as_bytes().to_vec(),
        });
    }
    words
}

/// Values of all sizes, in commands of all kinds that keep an argument; some on keys of the wrong type.
fn fills(rng: &mut StdRng) -> Vec<Request> {
    let templates = [
        "SET s",
        "SET l",
        "APPEND s",
        "SETRANGE s 10",
        "GETSET s",
        "LPUSH l",
        "RPUSH l",
        "RPUSH s",
        "LSET l 0",
        "SADD m",
        "HSET h field",
        "HSET s field",
        "ZADD z 1",
        "XADD x MAXLEN 50 * field",
        "PFADD p",
        "SETNX s",
        "MSET s",
    ];
    let mut requests = Vec::new();
    for _ in 0..rng.random_range(1..8) {
        let mut request = filled(templates.choose(rng).copied().unwrap_or("SET s"), rng);
        request.push(value(rng));
        requests.push(request);
    }
    if rng.random_ratio(1, 400) {
        let flushes = ["FLUSHALL", "FLUSHALL ASYNC", "FLUSHDB", "FLUSHDB ASYNC"];
        requests.push(words(flushes.choose(rng).copied().unwrap_or("FLUSHALL")));
    }
    requests
}

/// Keys and fields that live for moments.
fn expires(rng: &mut StdRng) -> Vec<Request> {
    let mut requests = Vec::new();
    for _ in 0..rng.random_range(1..60) {
        let (key, ms) = (rng.random_range(0..5000), rng.random_range(1..200));
        requests.push(words(&match rng.random_range(0..5) {
            0 => format!("HSET f:{key} a 1 b 2 c 3"),
            1 => format!("HPEXPIRE f:{key} {ms} FIELDS 2 a b"),
            2 => format!("PEXPIRE f:{key} {ms}"),
            3 => format!("GET v:{key}"),
            _ => format!("SET v:{key} {ms} PX {ms}"),
        }));
    }
    requests
}

/// Transactions, some of them over watched keys, some given up.
fn transacts(rng: &mut StdRng) -> Vec<Request> {
    let mut requests = Vec::new();
    if rng.random_ratio(1, 3) {
        requests.push(filled("WATCH s l z", rng));
    }
    requests.push(words("MULTI"));
    let templates = [
        "INCR s",
        "SET s value",
        "SET s value PX 1",
        "LPUSH l a b",
        "RPOP l",
        "LMOVE l l LEFT LEFT",
        "BLPOP l 0",
        "ZADD z 1 a 2 b",
        "ZPOPMIN z",
        "RENAME s s",
        "SWAPDB 0 1",
        "XADD x MAXLEN 20 * a b",
        "PUBLISH channel message",
        "CLIENT LIST",
        "DBSIZE",
        "KEYS nothing*",
    ];
    for _ in 0..rng.random_range(1..10) {
        requests.push(filled(templates.choose(rng).copied().unwrap_or("PING"), rng));
    }
    requests.push(words(if rng.random_ratio(1, 8) { "DISCARD" } else { "EXEC" }));
    requests
}

/// Commands that wait, for moments, on one key or several.
fn blocks(rng: &mut StdRng) -> Vec<Request> {
    let templates = [
        "BLPOP l 0.05",
        "BLPOP l l l 0.1",
        "BRPOP l l 0.02",
        "BLMOVE l l LEFT RIGHT 0.1",
        "BLMOVE l l RIGHT LEFT 0.1",
        "BRPOPLPUSH l l 0.05",
        "BLMPOP 0.1 2 l l LEFT COUNT 3",
        "BZPOPMIN z z 0.1",
        "BZPOPMAX z 0.05",
        "BZMPOP 0.1 2 z z MAX",
        "XREAD BLOCK 50 STREAMS x x $ $",
    ];
    (0..rng.random_range(1..4))
        .map(|_| filled(templates.choose(rng).copied().unwrap_or("PING"), rng))
        .collect()
}

/// Elements for those who wait.
fn feeds(rng: &mut StdRng) -> Vec<Request> {
    let templates = [
        "RPUSH l a",
        "LPUSH l a b c",
        "ZADD z 3 c",
        "ZADD z 1 a 2 b",
        "XADD x MAXLEN 30 * a b",
        "SADD m a b c",
        "DEL l l l",
        "LTRIM l 0 20",
        "ZREMRANGEBYRANK z 20 -1",
    ];
    (0..rng.random_range(1..10))
        .map(|_| filled(templates.choose(rng).copied().unwrap_or("PING"), rng))
        .collect()
}

/// Changes of settings and pauses that a running server must bear.
fn disturbs(rng: &mut StdRng) -> Vec<Request> {
    sleep(Duration::from_millis(rng.random_range(5..60)));
    let lines = [
        "CONFIG SET maxmemory-policy allkeys-lru",
        "CONFIG SET maxmemory-policy allkeys-lfu",
        "CONFIG SET maxmemory-policy allkeys-random",
        "CONFIG SET maxmemory-policy volatile-ttl",
        "CONFIG SET maxmemory-policy volatile-lru",
        "CONFIG SET maxmemory-policy noeviction",
        "CONFIG SET active-expire-effort 10",
        "CONFIG SET active-expire-effort 1",
        "CONFIG SET lazyfree-lazy-eviction yes",
        "CONFIG SET lazyfree-lazy-eviction no",
        "CLIENT PAUSE 3 ALL",
        "CLIENT PAUSE 30 WRITE",
        "CLIENT UNPAUSE",
        "INFO everything",
        "MEMORY STATS",
        "CLIENT LIST",
        "SCAN 0 COUNT 1000",
        "RANDOMKEY",
        "DEBUG JMAP",
    ];
    vec![words(lines.choose(rng).copied().unwrap_or("PING"))]
}

/// Kills and unblocks clients at random, but for those with a name.
fn kill(shared: &Shared, mut rng: StdRng) {
    converse(shared, |client| {
        sleep(Duration::from_millis(rng.random_range(1..30)));
        let list = client.try_call(&["CLIENT", "LIST"]).map(|reply| reply.text());
        let victims: Vec<String> = list
            .unwrap_or_default()
            .lines()
            .filter(|line| line.contains(" name= "))
            .filter_map(|line| Some(line.strip_prefix("id=")?.split(' ').next()?.to_owned()))
            .collect();
        let Some(victim) = victims.choose(&mut rng) else {
            return Vec::new();
        };
        vec![words(&match rng.random_range(0..4) {
            0 => format!("CLIENT UNBLOCK {victim}"),
            1 => format!("CLIENT UNBLOCK {victim} ERROR"),
            _ => format!("CLIENT KILL ID {victim}"),
        })]
    });
}

/// Connections that end in the middle of something.
fn vandalise(shared: &Shared, mut rng: StdRng) {
    while !shared.is_over() {
        let Ok(mut client) = Client::connect(shared.server.address()) else {
            continue;
        };
        let mut bytes = Vec::new();
        match rng.random_range(0..6) {
            // Half an argument.
            0 => {
                encode(&mut bytes, &[&b"SET"[..], b"s:1", &value(&mut rng)]);
                bytes.truncate(rng.random_range(0..bytes.len()));
            }
            // A wait whose client has disconnected.
            1 => encode(&mut bytes, &filled("BLMOVE l l LEFT LEFT 0", &mut rng)),
            2 => encode(&mut bytes, &filled("BZMPOP 0 2 z z MIN", &mut rng)),
            // A transaction that is never carried out, over watched keys.
            3 => {
                for line in ["WATCH s l", "MULTI", "SET s value", "LPUSH l a"] {
                    encode(&mut bytes, &filled(line, &mut rng));
                }
            }
            // Many replies that are not read.
            4 => {
                for _ in 0..rng.random_range(1..2000) {
                    encode(&mut bytes, &filled("GET s", &mut rng));
                }
            }
            _ => bytes.extend((0..rng.random_range(1..200)).map(|_| rng.random::<u8>())),
        }
        let _ = client.write(&bytes);
        sleep(Duration::from_millis(rng.random_range(0..20)));
        shared.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Connections that take in what they did not ask for, for a while.
fn listen(shared: &Shared, mut rng: StdRng) {
    while !shared.is_over() {
        let Ok(mut client) = Client::connect(shared.server.address()) else {
            continue;
        };
        let lines = ["PSUBSCRIBE __key*", "SUBSCRIBE channel", "MONITOR"];
        let line = words(lines.choose(&mut rng).copied().unwrap_or("MONITOR"));
        if client.send(&line).is_err() {
            continue;
        }
        for _ in 0..rng.random_range(1..2000) {
            match client.read_within(Duration::from_millis(50)) {
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    shared.faults.add(format!("a listener got {error}"));
                    return;
                }
                Err(_) => break,
                Ok(_) => {}
            }
        }
        shared.ended.fetch_add(1, Ordering::Relaxed);
    }
}
