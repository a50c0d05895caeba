//! Writers that never rest: every type of value, keys that expire, transactions, several databases, and random commands.
//!
//! A seeder's clients write to one port until they are told to stop. When the server is away, or refuses because it is no primary
//! or loads, they try again; any other error is one that the commands themselves have earned, such as `WRONGTYPE`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::member::{Kind, Member};
use crate::client::{Client, encode};
use crate::generate::Generator;
use crate::wait::wait_until;

/// Keys of each type.
const KEYS: u32 = 40;

/// Databases of the seeder; those below are for random commands, those above for keys that nobody touches.
const DATABASES: [&str; 3] = ["4", "5", "6"];

/// The database of keys that nobody touches.
const BYSTANDERS_DATABASE: &str = "9";

/// Commands that are sent at once.
const PIPELINE: usize = 20;

/// Time between two attempts to reach a server that is away.
const AWAY: Duration = Duration::from_millis(20);

/// Longest wait of a writer for replies: a stopped server keeps it from noticing that it is to stop.
const WRITER_PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of a large value: more than one read of a socket.
const LARGE: usize = 100_000;

/// Templates of commands that every version knows. `string`, `list`, `hash`, `set`, `zset`, `stream` are keys of that type; `key`
/// one of any; `word`, `number`, `score`, `moment` (milliseconds until it expires), `later` are values; `large` is a long one.
const COMMANDS: &[&str] = &[
    "SET string word",
    "SET string word PX moment",
    "SET string number EX 1000",
    "SET string word KEEPTTL GET",
    "SET string large",
    "SETRANGE string number word",
    "APPEND string word",
    "INCR counter",
    "INCRBYFLOAT float score",
    "GETEX string PX moment",
    "GETEX string PERSIST",
    "GETDEL string",
    "GETSET string word",
    "MSET string word string word string word",
    "MSETNX string word string word",
    "SETBIT bits number 1",
    "BITFIELD bits SET u8 number 7 INCRBY i5 number 3",
    "BITOP XOR bits bits bits",
    "PFADD log word word word",
    "PFMERGE log log log",
    "RPUSH list word word word",
    "LPUSH list word number",
    "RPUSH list large",
    "LPOP list 2",
    "RPOP list",
    "LMOVE list list LEFT RIGHT",
    "RPOPLPUSH list list",
    "BLMOVE list list RIGHT LEFT 0.01",
    "BLPOP list list 0.01",
    "LMPOP 2 list list LEFT COUNT 3",
    "LINSERT list BEFORE word word",
    "LREM list 1 word",
    "LTRIM list 0 60",
    "LSET list 0 word",
    "HSET hash word word word number",
    "HSET hash word large",
    "HINCRBY hash n number",
    "HINCRBYFLOAT hash f score",
    "HDEL hash word word",
    "SADD set word word number",
    "SREM set word",
    "SPOP set",
    "SPOP set 3",
    "SMOVE set set word",
    "SUNIONSTORE set set set",
    "SDIFFSTORE set set set",
    "ZADD zset score word score word",
    "ZADD zset GT CH score word",
    "ZINCRBY zset score word",
    "ZPOPMIN zset 2",
    "BZPOPMAX zset zset 0.01",
    "ZREM zset word",
    "ZRANGESTORE zset zset 0 20",
    "ZUNIONSTORE zset 2 zset zset",
    "ZREMRANGEBYRANK zset 50 -1",
    "GEOADD geo 13.3 38.1 word 15.0 37.5 word",
    "GEOSEARCHSTORE geo geo FROMLONLAT 15 37 BYRADIUS 400 km",
    "XADD stream * word word",
    "XADD stream MAXLEN ~ 50 * field large",
    "XADD stream NOMKSTREAM * field number",
    "XGROUP CREATE stream group $ MKSTREAM",
    "XGROUP CREATE stream other 0",
    "XREADGROUP GROUP group word COUNT 3 STREAMS stream >",
    "XREADGROUP GROUP other word COUNT 1 NOACK STREAMS stream >",
    "XAUTOCLAIM stream group word 0 - COUNT 2",
    "XTRIM stream MAXLEN 40",
    "XGROUP DELCONSUMER stream group word",
    "XGROUP SETID stream group $",
    "DEL key key",
    "UNLINK key",
    "RENAME string string",
    "COPY key key REPLACE",
    "COPY list list DB 5 REPLACE",
    "MOVE string 6",
    "EXPIRE key 1000",
    "PEXPIRE key moment",
    "PEXPIREAT key 1",
    "EXPIREAT key 5000000000 NX",
    "PERSIST key",
    "SORT list ALPHA STORE list",
    "PUBLISH channel word",
    "SELECT database",
];

/// Templates of commands for fields that expire, which Redis 7.0 does not know.
const FIELD_COMMANDS: &[&str] = &[
    "HEXPIRE hash 1000 FIELDS 2 word word",
    "HPEXPIRE hash moment FIELDS 1 word",
    "HPERSIST hash FIELDS 1 word",
    "HSETEX hash PX moment FIELDS 1 word word",
    "HGETEX hash EX 500 FIELDS 1 word",
];

/// Commands that empty much, seldom.
const RARE: &[&str] = &["SWAPDB 4 5", "FLUSHDB", "SWAPDB 5 6", "FLUSHDB ASYNC"];

/// One unit in so many is one of [`RARE`], and is a transaction.
const RARE_ONE_IN: u32 = 800;
const TRANSACTION_ONE_IN: u32 = 12;

/// Work of a seeder.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Seed of everything random.
    pub seed: u64,
    /// Commands a second of all writers together.
    pub rate: u32,
    /// Fields expire.
    pub fields: bool,
    /// Random commands besides, also damaged ones.
    pub wild: bool,
}

impl Plan {
    /// A plan that all members understand.
    #[must_use]
    pub fn of(members: &[Kind], seed: u64) -> Plan {
        Plan {
            seed,
            rate: 4000,
            fields: !members.contains(&Kind::Redis),
            // It takes fewer words for scores than the others, and what they repeat it refuses.
            wild: !members.contains(&Kind::Valkey),
        }
    }
}

/// Writers at work.
pub struct Seeder {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<BTreeMap<String, u64>>>,
}

/// State that the writers share with their seeder.
struct Shared {
    port: AtomicU16,
    is_over: AtomicBool,
    answered: AtomicU64,
}

impl Seeder {
    /// Begins to write to a server.
    #[must_use]
    pub fn start(port: u16, plan: Plan) -> Seeder {
        let shared = Arc::new(Shared {
            port: AtomicU16::new(port),
            is_over: AtomicBool::new(false),
            answered: AtomicU64::new(0),
        });
        let count = if plan.wild { 3 } else { 2 };
        let writers = (0..count).map(|number| {
            let writer = Writer {
                shared: Arc::clone(&shared),
                rng: StdRng::seed_from_u64(plan.seed ^ (number + 1)),
                plan,
                generator: (number == 2).then(|| Generator::new(plan.seed)),
                errors: BTreeMap::new(),
                pause: Duration::from_secs(1) * (PIPELINE * count as usize) as u32 / plan.rate,
            };
            spawn(move || writer.run())
        });
        let writers = writers.collect();
        Seeder { shared, writers }
    }

    /// Writes to another server from now on.
    pub fn turn_to(&self, port: u16) {
        self.shared.port.store(port, Ordering::Relaxed);
    }

    /// Commands that were answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more commands were answered.
    ///
    /// # Panics
    /// When they are not.
    pub fn await_more(&self, commands: u64) {
        let wanted = self.answered() + commands;
        wait_until("the seeder writes", || self.answered() >= wanted);
    }

    /// Ends the writing; returns the replies that were errors, by their first word.
    ///
    /// # Panics
    /// When a writer did.
    pub fn stop(mut self) -> BTreeMap<String, u64> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        for writer in std::mem::take(&mut self.writers) {
            for (error, count) in writer.join().expect("a writer that goes on") {
                *all.entry(error).or_insert(0) += count;
            }
        }
        all
    }
}

impl Drop for Seeder {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            // A test that fails is over already; another one joins in `stop`.
            let _ = writer.join();
        }
    }
}

/// One client that writes.
struct Writer {
    shared: Arc<Shared>,
    rng: StdRng,
    plan: Plan,
    /// The source of random commands, of the writer that sends those.
    generator: Option<Generator>,
    errors: BTreeMap<String, u64>,
    pause: Duration,
}

impl Writer {
    fn run(mut self) -> BTreeMap<String, u64> {
        while !self.is_over() {
            let port = self.shared.port.load(Ordering::Relaxed);
            if let Ok(client) = Client::connect(SocketAddr::from(([127, 0, 0, 1], port))) {
                // Its server has gone away, or another one is to be written to.
                let _ = self.write_to(port, client);
            }
            sleep(AWAY);
        }
        self.errors
    }

    fn is_over(&self) -> bool {
        self.shared.is_over.load(Ordering::Relaxed)
    }

    fn write_to(&mut self, port: u16, mut client: Client) -> std::io::Result<()> {
        // Random commands have databases of their own.
        let database = if self.generator.is_some() {
            "0"
        } else {
            DATABASES[0]
        };
        client.send(&["SELECT", database])?;
        client.read_within(WRITER_PATIENCE)?;
        while !self.is_over() && self.shared.port.load(Ordering::Relaxed) == port {
            let mut commands = Vec::new();
            while commands.len() < PIPELINE {
                commands.extend(self.unit());
            }
            let mut bytes = Vec::new();
            commands.iter().for_each(|words| encode(&mut bytes, words));
            client.write(&bytes)?;
            for _ in &commands {
                let reply = client.read_within(WRITER_PATIENCE)?;
                self.shared.answered.fetch_add(1, Ordering::Relaxed);
                if reply.is_error() {
                    let text = reply.text();
                    let word = text.split(' ').next().unwrap_or_default().to_owned();
                    *self.errors.entry(word).or_insert(0) += 1;
                }
            }
            sleep(self.pause);
        }
        Ok(())
    }

    /// Commands that belong together.
    fn unit(&mut self) -> Vec<Vec<Vec<u8>>> {
        if let Some(generator) = &mut self.generator {
            return vec![random(generator)];
        }
        if self.rng.random_ratio(1, RARE_ONE_IN) {
            let line = RARE.choose(&mut self.rng).expect("some");
            return vec![crate::client::split(line)];
        }
        if !self.rng.random_ratio(1, TRANSACTION_ONE_IN) {
            return vec![self.command()];
        }
        // Two keys that no other command writes: replicas never see them differ.
        let twin = self.rng.random_range(0..KEYS);
        let mut unit = vec![crate::client::split("MULTI")];
        unit.extend((0..self.rng.random_range(0..4)).map(|_| self.command()));
        for name in ["left", "right"] {
            unit.push(crate::client::split(&format!("INCR {name}:{twin}")));
        }
        unit.push(crate::client::split("EXEC"));
        unit
    }

    fn command(&mut self) -> Vec<Vec<u8>> {
        let is_of_fields = self.plan.fields && self.rng.random_ratio(1, 12);
        let commands = if is_of_fields { FIELD_COMMANDS } else { COMMANDS };
        let template = commands.choose(&mut self.rng).expect("some");
        template.split(' ').map(|word| self.fill(word)).collect()
    }

    fn fill(&mut self, word: &str) -> Vec<u8> {
        const TYPES: [&str; 9] = [
            "string", "list", "hash", "set", "zset", "stream", "bits", "log", "geo",
        ];
        let number = self.rng.random_range(0..KEYS);
        match word {
            "key" => format!("{}:{number}", TYPES.choose(&mut self.rng).expect("some")).into_bytes(),
            "counter" | "float" => format!("{word}:{number}").into_bytes(),
            word if TYPES.contains(&word) => format!("{word}:{number}").into_bytes(),
            "word" if self.rng.random_ratio(1, 20) => b"\0binary\r\n\xff".to_vec(),
            "word" => format!("word-{number}").into_bytes(),
            "number" => number.to_string().into_bytes(),
            "score" => format!("{}.25", i64::from(number) - 20).into_bytes(),
            "moment" => self.rng.random_range(1..400).to_string().into_bytes(),
            "database" => DATABASES.choose(&mut self.rng).expect("some").as_bytes().to_vec(),
            "large" if self.rng.random_ratio(1, 10) => vec![b'a' + (number % 26) as u8; LARGE],
            "large" => vec![b'a' + (number % 26) as u8; LARGE / 500],
            other => other.as_bytes().to_vec(),
        }
    }
}

/// A random command. Thresholds of encodings are no data, what PFDEBUG does stays where it is done, and so, in Redis, does the growth
/// of a string by a BITFIELD that fails. Redis 7.0 accepts words for scores, and the least number of all, which later versions refuse.
fn random(generator: &mut Generator) -> Vec<Vec<u8>> {
    const OWN: [&[u8]; 5] = [
        b"config",
        b"pfdebug",
        b"bitfield",
        b"zrangestore",
        b"zremrangebyscore",
    ];
    loop {
        let words = generator.command().words;
        let has_least = words.iter().any(|word| word == i64::MIN.to_string().as_bytes());
        if !has_least && !OWN.iter().any(|name| words[0].eq_ignore_ascii_case(name)) {
            return words;
        }
    }
}

/// Stores keys that nobody touches afterwards, so that a full sync has something to transfer.
///
/// # Panics
/// When the server does not take them.
pub fn add_bystanders(member: &Member, count: usize, bytes: usize) {
    let mut client = member.client();
    client.call(&["SELECT", BYSTANDERS_DATABASE]);
    let value = "v".repeat(bytes);
    for first in (0..count).step_by(1000) {
        let mut requests = Vec::new();
        let numbers = first..count.min(first + 1000);
        for number in numbers.clone() {
            encode(
                &mut requests,
                &["SET", &format!("bystander:{number}"), &format!("{value}{number}")],
            );
        }
        client.write(&requests).expect("the server reads");
        for _ in numbers {
            assert_eq!(client.read().expect("a reply").text(), "OK");
        }
    }
}
