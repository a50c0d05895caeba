//! Figures and events of commands besides their reply: hits, misses, expired keys, errors, changes, calls, keyspace
//! events.
//!
//! Every command of the table is played on a key that exists, is missing, has another type, or has expired unnoticed.
//! shardis and Valkey must end with the same figures and the same events. (HGETEX, times that have passed, and
//! XREADGROUP of pending entries are left out: there Valkey differs from Redis 8, which shardis follows.)

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use shardis_tests::client::Client;
use shardis_tests::process::Process;
use shardis_tests::reply::Reply;
use shardis_tests::{dialogue, node, redis};

/// Commands on the key `K` of one type.
struct Family {
    fill: &'static str,
    commands: &'static [&'static str],
}

const FAMILIES: &[Family] = &[
    Family {
        fill: "SET K 10",
        commands: &[
            "GET K",
            "GETEX K",
            "GETEX K EX 100",
            "GETEX K PERSIST",
            "GETDEL K",
            "GETSET K v",
            "SET K v",
            "SET K v NX",
            "SET K v XX",
            "SET K v GET",
            "SET K v NX GET",
            "SET K v XX GET",
            "SET K v KEEPTTL",
            "SETEX K 100 v",
            "PSETEX K 100000 v",
            "SETNX K v",
            "MGET K",
            "MGET K K",
            "MSET K v",
            "MSETNX K v",
            "APPEND K v",
            "STRLEN K",
            "GETRANGE K 0 1",
            "SUBSTR K 0 1",
            "SETRANGE K 1 x",
            "SETRANGE K 1 \"\"",
            "INCR K",
            "DECR K",
            "INCRBY K 2",
            "DECRBY K 2",
            "INCRBYFLOAT K 2",
            "LCS K K",
            "GETBIT K 1",
            "SETBIT K 1 1",
            "SETBIT K 1 0",
            "BITCOUNT K",
            "BITPOS K 1",
            "BITOP AND D K",
            "BITOP NOT D K",
            "BITFIELD K GET u8 0",
            "BITFIELD K SET u8 0 1",
            "BITFIELD_RO K GET u8 0",
            "DEL K",
            "UNLINK K",
            "EXISTS K",
            "EXISTS K K",
            "TOUCH K",
            "TYPE K",
            "TTL K",
            "PTTL K",
            "EXPIRETIME K",
            "PEXPIRETIME K",
            "EXPIRE K 100",
            "EXPIRE K 100 XX",
            "PEXPIRE K 100000",
            "EXPIREAT K 4000000000",
            "PEXPIREAT K 4000000000000",
            "PERSIST K",
            "RENAME K D",
            "RENAMENX K D",
            "COPY K D",
            "COPY K D REPLACE",
            "MOVE K 5",
            "OBJECT ENCODING K",
            "OBJECT REFCOUNT K",
            "OBJECT IDLETIME K",
            "OBJECT FREQ K",
            "MEMORY USAGE K",
            "SORT K",
            "SORT_RO K",
            "SORT K BY nosort GET w_*",
            "SORT K STORE D",
            "KEYS K",
            "RANDOMKEY",
            "DBSIZE",
            "WATCH K",
            "SINTERSTORE K none",
            "COPY K K",
            "SUNIONSTORE K none",
            "FLUSHDB",
            "SWAPDB 0 1",
            "GET",
            "SET K v EX 0",
            "SET K v EX x",
            "INCRBY K x",
        ],
    },
    Family {
        fill: "RPUSH K a b c",
        commands: &[
            "LPUSH K x",
            "RPUSH K x",
            "LPUSHX K x",
            "RPUSHX K x",
            "LPOP K",
            "RPOP K",
            "LPOP K 0",
            "LPOP K 2",
            "LPOP K 100",
            "LLEN K",
            "LINDEX K 0",
            "LINDEX K 100",
            "LSET K 0 z",
            "LRANGE K 0 -1",
            "LTRIM K 0 0",
            "LTRIM K 0 -1",
            "LREM K 0 a",
            "LREM K 0 nothing",
            "LINSERT K BEFORE a z",
            "LINSERT K BEFORE nothing z",
            "LPOS K a",
            "LPOS K nothing",
            "LMOVE K D LEFT LEFT",
            "LMOVE K K LEFT RIGHT",
            "RPOPLPUSH K D",
            "LMPOP 1 K LEFT",
            "BLPOP K 0.01",
            "BRPOP K 0.01",
            "BLMOVE K D LEFT LEFT 0.01",
            "BRPOPLPUSH K D 0.01",
            "BLMPOP 0.01 1 K LEFT",
            "SORT K ALPHA",
            "SORT K ALPHA STORE D",
            "SORT_RO K ALPHA",
        ],
    },
    Family {
        fill: "HSET K f 1 g 2",
        commands: &[
            "HSET K f 1",
            "HSET K n 1",
            "HSETNX K f 1",
            "HMSET K f 1",
            "HGET K f",
            "HGET K none",
            "HMGET K f none",
            "HDEL K f",
            "HDEL K none",
            "HDEL K f g",
            "HLEN K",
            "HEXISTS K f",
            "HSTRLEN K f",
            "HKEYS K",
            "HVALS K",
            "HGETALL K",
            "HINCRBY K f 1",
            "HINCRBYFLOAT K f 1",
            "HRANDFIELD K",
            "HRANDFIELD K 2",
            "HSCAN K 0",
            "HEXPIRE K 100 FIELDS 1 f",
            "HPERSIST K FIELDS 1 f",
            "HTTL K FIELDS 1 f",
            "HPTTL K FIELDS 1 none",
            "HEXPIRETIME K FIELDS 1 f",
            "HSETEX K EX 100 FIELDS 1 f v",
            "HGETDEL K FIELDS 1 f",
        ],
    },
    Family {
        fill: "SADD K a b c",
        commands: &[
            "SADD K x",
            "SADD K a",
            "SREM K a",
            "SREM K none",
            "SREM K a b c",
            "SISMEMBER K a",
            "SMISMEMBER K a x",
            "SMEMBERS K",
            "SCARD K",
            "SPOP K",
            "SPOP K 2",
            "SPOP K 0",
            "SRANDMEMBER K",
            "SRANDMEMBER K 2",
            "SMOVE K D a",
            "SMOVE K D none",
            "SINTER K",
            "SINTER K K",
            "SUNION K",
            "SDIFF K",
            "SINTERSTORE D K",
            "SUNIONSTORE D K",
            "SDIFFSTORE D K",
            "SINTERCARD 1 K",
            "SSCAN K 0",
        ],
    },
    Family {
        fill: "ZADD K 1 a 2 b",
        commands: &[
            "ZADD K 1 x",
            "ZADD K 1 a",
            "ZADD K 5 a",
            "ZADD K XX 5 a",
            "ZADD K NX 5 a",
            "ZADD K INCR 1 a",
            "ZINCRBY K 1 a",
            "ZREM K a",
            "ZREM K none",
            "ZSCORE K a",
            "ZSCORE K none",
            "ZMSCORE K a",
            "ZCARD K",
            "ZCOUNT K 0 9",
            "ZLEXCOUNT K - +",
            "ZRANK K a",
            "ZREVRANK K none",
            "ZRANGE K 0 -1",
            "ZREVRANGE K 0 -1",
            "ZRANGEBYSCORE K 0 9",
            "ZREVRANGEBYSCORE K 9 0",
            "ZRANGEBYLEX K - +",
            "ZREVRANGEBYLEX K + -",
            "ZRANGESTORE D K 0 -1",
            "ZREMRANGEBYRANK K 0 0",
            "ZREMRANGEBYSCORE K 0 1",
            "ZREMRANGEBYLEX K - +",
            "ZREMRANGEBYRANK K 8 9",
            "ZPOPMIN K",
            "ZPOPMAX K 2",
            "ZPOPMIN K 0",
            "ZRANDMEMBER K",
            "ZRANDMEMBER K 2",
            "ZUNION 1 K",
            "ZINTER 1 K",
            "ZDIFF 1 K",
            "ZUNIONSTORE D 1 K",
            "ZINTERSTORE D 1 K",
            "ZDIFFSTORE D 1 K",
            "ZINTERCARD 1 K",
            "ZMPOP 1 K MIN",
            "BZPOPMIN K 0.01",
            "BZPOPMAX K 0.01",
            "BZMPOP 0.01 1 K MIN",
            "ZSCAN K 0",
        ],
    },
    Family {
        fill: "GEOADD K 13 38 a 15 37 b",
        commands: &[
            "GEOADD K 1 1 c",
            "GEODIST K a b",
            "GEOPOS K a",
            "GEOHASH K a",
            "GEOSEARCH K FROMMEMBER a BYRADIUS 500 km",
            "GEOSEARCH K FROMLONLAT 13 38 BYRADIUS 500 km",
            "GEOSEARCHSTORE D K FROMLONLAT 13 38 BYRADIUS 500 km",
            "GEORADIUS K 13 38 500 km",
            "GEORADIUS_RO K 13 38 500 km",
            "GEORADIUSBYMEMBER K a 500 km",
            "GEORADIUS K 13 38 500 km STORE D",
        ],
    },
    Family {
        fill: "PFADD K a b",
        commands: &[
            "PFADD K x",
            "PFADD K a",
            "PFCOUNT K",
            "PFCOUNT K K",
            "PFMERGE D K",
            "PFMERGE K",
        ],
    },
    Family {
        fill: "XADD K 1-1 a 1",
        commands: &[
            "XADD K 5-5 a 1",
            "XADD K NOMKSTREAM 5-5 a 1",
            "XADD K MAXLEN 1 5-5 a 1",
            "XLEN K",
            "XRANGE K - +",
            "XREVRANGE K + -",
            "XDEL K 1-1",
            "XDEL K 9-9",
            "XTRIM K MAXLEN 0",
            "XTRIM K MAXLEN 9",
            "XSETID K 9-9",
            "XREADGROUP GROUP nog c STREAMS K >",
            "XREAD STREAMS K 0",
            "XREAD STREAMS K $",
            "XREAD BLOCK 10 STREAMS K $",
            "XREADGROUP GROUP g c STREAMS K >",
            "XACK K g 1-1",
            "XCLAIM K g c 0 1-1",
            "XAUTOCLAIM K g c 0 0",
            "XPENDING K g",
            "XPENDING K g - + 10",
            "XINFO STREAM K",
            "XINFO GROUPS K",
            "XINFO CONSUMERS K g",
            "XGROUP CREATE K g2 0",
            "XGROUP CREATE K g2 0 MKSTREAM",
            "XGROUP SETID K g 0",
            "XGROUP DESTROY K g",
            "XGROUP CREATECONSUMER K g c",
            "XGROUP DELCONSUMER K g c",
        ],
    },
];

/// State of the key before the command.
#[derive(Clone, Copy, Debug)]
enum State {
    There,
    Missing,
    OfAnotherType,
    Expired,
}

/// Figures of INFO that commands move.
const FIGURES: &[&str] = &[
    "keyspace_hits",
    "keyspace_misses",
    "expired_keys",
    "total_error_replies",
    "rdb_changes_since_last_save",
];

/// Commands of the test itself.
const OWN: &[&str] = &[
    "cmdstat_info",
    "cmdstat_config|resetstat",
    "cmdstat_publish",
    "cmdstat_ping",
    "cmdstat_unwatch",
];

/// One server with a subscriber to its events.
struct Side {
    speaker: Client,
    listener: Client,
}

impl Side {
    fn new(server: &Process) -> Side {
        let mut speaker = server.connect();
        speaker.line("DEBUG SET-ACTIVE-EXPIRE 0");
        speaker.line("CONFIG SET notify-keyspace-events AKEmn");
        let mut listener = server.connect();
        listener.line("PSUBSCRIBE __keyevent@*");
        Side { speaker, listener }
    }

    /// Figures and events of a command on a key in that state.
    fn play(&mut self, family: &Family, command: &str, state: State) -> BTreeMap<String, String> {
        let (before, _) = self.prepare(family, state);
        let after = if command.starts_with("WATCH") {
            "UNWATCH"
        } else {
            "PING"
        };
        let (mut moved, events) = self.say_all(&[command, after]);
        moved.retain(|name, value| before.get(name) != Some(value));
        for name in FIGURES {
            let figure = |figures: &BTreeMap<String, String>| {
                figures.get(*name).and_then(|value| value.parse::<i64>().ok())
            };
            if let (Some(after), Some(before)) = (figure(&moved), figure(&before)) {
                moved.insert((*name).to_owned(), format!("{:+}", after - before));
            }
        }
        moved.insert("events".to_owned(), events.join(" "));
        moved
    }

    /// Brings the key into its state and begins all counts anew.
    fn prepare(&mut self, family: &Family, state: State) -> (BTreeMap<String, String>, Vec<String>) {
        let is_list = family.fill.starts_with("RPUSH");
        let other = if is_list { "SET K v" } else { "RPUSH K x" };
        let mut lines = vec!["FLUSHALL"];
        lines.extend(match state {
            State::There | State::Expired => Some(family.fill),
            State::OfAnotherType => Some(other),
            State::Missing => None,
        });
        if lines.ends_with(&["XADD K 1-1 a 1"]) {
            lines.push("XGROUP CREATE K g 0");
        }
        if matches!(state, State::Expired) {
            lines.push("PEXPIRE K 1");
            self.say_all(&lines);
            sleep(Duration::from_millis(3));
            lines.clear();
        }
        lines.push("CONFIG RESETSTAT");
        self.say_all(&lines)
    }

    /// Says the lines in one go; returns the figures after them and the events that they caused.
    fn say_all(&mut self, lines: &[&str]) -> (BTreeMap<String, String>, Vec<String>) {
        let ends = [
            "PUBLISH __keyevent@0__:over x",
            "INFO stats persistence errorstats commandstats",
        ];
        let all = || lines.iter().chain(&ends);
        for line in all() {
            let words = dialogue::words(line).expect("words of a command");
            self.speaker.send(&words).expect("a server that reads");
        }
        let replies = all().map(|_| self.speaker.read().expect("a reply"));
        let info = replies.last().map(|info| info.text()).unwrap_or_default();
        (figures(&info), self.events())
    }

    /// The events up to the mark.
    fn events(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        loop {
            let message = self.listener.read().expect("an event");
            let words: Vec<String> = message.items().iter().map(Reply::text).collect();
            if words[2].ends_with(":over") {
                return events;
            }
            events.push(format!(
                "{}:{}",
                words[2].trim_start_matches("__keyevent@"),
                words[3]
            ));
        }
    }
}

/// The figures of INFO, errors by kind, and calls by command: made, rejected, failed.
fn figures(info: &str) -> BTreeMap<String, String> {
    let mut figures = BTreeMap::new();
    for (name, value) in info.lines().filter_map(|line| line.trim_end().split_once(':')) {
        if FIGURES.contains(&name) || name.starts_with("errorstat_") {
            figures.insert(name.to_owned(), value.to_owned());
        } else if name.starts_with("cmdstat_") && !OWN.contains(&name) {
            let counts = value.split(',').filter(|field| !field.starts_with("usec"));
            figures.insert(name.to_owned(), counts.collect::<Vec<_>>().join(","));
        }
    }
    figures
}

/// Plays every command in every state on a server of `shards` shards and on Valkey.
fn compare(shards: usize) {
    let debug = ["--enable-debug-command", "yes"];
    let subject = node::launch(shards).with(&debug).serve();
    let oracle = redis::launch_peer().with(&debug).serve();
    let [mut ours, mut theirs] = [&subject, &oracle].map(Side::new);
    let mut report = String::new();
    for family in FAMILIES {
        for command in family.commands {
            for state in [State::There, State::Missing, State::OfAnotherType, State::Expired] {
                let got = ours.play(family, command, state);
                let wanted = theirs.play(family, command, state);
                if got != wanted {
                    report += &format!("{command} ({state:?})\n  wanted {wanted:?}\n  got    {got:?}\n");
                }
            }
        }
    }
    assert!(report.is_empty(), "{shards} shard(s):\n{report}");
}

#[test]
fn commands_count_and_tell_what_they_do_with_one_shard() {
    compare(1);
}

#[test]
fn commands_count_and_tell_what_they_do_with_four_shards() {
    compare(4);
}
