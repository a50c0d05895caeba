//! The rows of the benchmark, and the share of the reference's cost that each may need: a new row is one line here.
//!
//! Commands are written as templates (`template.rs`). Rows that follow each other with the same fill share their
//! servers, so keep them together.

/// Number of connections that send the load.
pub(crate) const CLIENTS: usize = 50;
/// One key that every client asks for.
const HOT: &str = "GET key:000000004711";

/// Content of the keyspace before a row is measured: `count` times `command`, with its numbers counting from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) count: u64,
    pub(crate) command: &'static str,
    /// One connection sends them all, so that they come in the order of their numbers.
    pub(crate) in_order: bool,
}

/// Data that a row uses up, and that is restored before each measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refill {
    pub(crate) fill: Fill,
    /// Requests that find something after it.
    pub(crate) lasts: u64,
}

/// Connections that listen while the load is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Audience {
    pub(crate) listeners: usize,
    /// First requests of each.
    pub(crate) commands: &'static [&'static str],
}

/// One command at one depth of pipeline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) command: &'static str,
    pub(crate) pipeline: usize,
    pub(crate) fills: &'static [Fill],
    pub(crate) refill: Option<Refill>,
    pub(crate) audience: Option<Audience>,
    /// The target: CPU per operation, at most so many times that of the reference.
    pub(crate) at_most: f64,
    /// The other target: user time per operation, at most so many times that of the peer.
    pub(crate) user_at_most: Option<f64>,
}

/// One command on one key, and how unevenly the shards may share its cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HotRow {
    pub(crate) name: &'static str,
    pub(crate) command: &'static str,
    pub(crate) pipeline: usize,
    pub(crate) fills: &'static [Fill],
    pub(crate) shards: usize,
    /// The target: the busiest thread's part of the CPU time of the process.
    pub(crate) share_at_most: f64,
}

const STRINGS: &[Fill] = &[fill(1_000_000, "SET {key} {value:64}")];
const COUNTERS: &[Fill] = &[fill(1_000_000, "SET counter:{rand:1000000} 1")];
const LARGE: &[Fill] = &[fill(10_000, "SET large:{rand:10000} {value:16384}")];

/// Collections that a row fills itself, with elements like those of `redis-benchmark -r 1000000`.
const NEW: &[Fill] = &[];
const LONG_LIST: &[Fill] = &[fill(10_000, "RPUSH list {value:3}")];
const LARGE_SORTED_SET: &[Fill] = &[fill(1_000_000, "ZADD zset {rand:1000000} element:{rand:1000000}")];
/// A stream whose entries have ids that can be told.
const LONG_STREAM: &[Fill] = &[fill_in_order(
    1_000_000,
    "XADD log {rand:1000000}-1 field {value:3}",
)];
/// Two sets of 10,000, half of each in both.
const TWO_SETS: &[Fill] = &[
    fill(10_000, "SADD set:1 element:{rand:10000}"),
    fill(5_000, "SADD set:2 element:{rand:5000}"),
    fill(5_000, "SADD set:2 other:{rand:5000}"),
];

/// A script that is called by its digest, `bfef…` below. Words of a template have no spaces in them.
const SCRIPT_GET: &[Fill] = &[
    fill(1_000_000, "SET {key} {value:64}"),
    fill(1, "SCRIPT LOAD return(redis.call('GET',KEYS[1]))"),
];
const EVALSHA_GET: &str = "EVALSHA bfef805d9dcd9d3857da9372933ef22c17736f58 1 {key}";

/// A token bucket, `7f3d…` below: takes so many tokens out of what is left.
const TOKEN_BUCKET: &[Fill] = &[fill(
    1,
    "SCRIPT LOAD return((function(left)if(left<tonumber(ARGV[1]))then(error)('empty')end;redis.call('SET',KEYS[1],left-ARGV[1],'PX',600000);return(left-ARGV[1])end)(tonumber(redis.call('GET',KEYS[1])or(1000000000))))",
)];
const EVALSHA_BUCKET: &str = "EVALSHA 7f3d5b872e811d232ca376d1ef9375feb0814263 1 bucket:{rand:100000} 1";

/// Places in one degree by one: a circle of a kilometre has some 36 of them.
const PLACES: &[Fill] = &[fill(
    100_000,
    "GEOADD places 10.{rand:1000000000000} 45.{rand:1000000000000} place:{rand:1000000}",
)];

/// A million elements to be popped.
const TO_POP: Refill = Refill {
    fill: fill(10_000, "RPUSH queue [ {value:3} ]*100"),
    lasts: 1_000_000,
};
const TO_DRAW: Refill = Refill {
    fill: fill(1_000_000, "SADD hat element:{rand:1000000}"),
    lasts: 1_000_000,
};

const SUBSCRIBERS: Audience = Audience {
    listeners: 50,
    commands: &["SUBSCRIBE news"],
};

/// Clients that are told of changes of keys, of which there are none, or of those that are written.
const TRACKERS_OF_OTHERS: Audience = Audience {
    listeners: 50,
    commands: &["CLIENT TRACKING ON BCAST PREFIX other:", "HELLO 3"],
};
const TRACKERS: Audience = Audience {
    listeners: 50,
    commands: &["CLIENT TRACKING ON BCAST PREFIX key:", "HELLO 3"],
};

const GET: &str = "GET {key}";
const SET: &str = "SET {key} {value:64}";

/// Five million keys: half of them strings, the others collections of four elements.
pub(crate) const MIXED: &[Fill] = &[
    fill(2_500_000, "SET string:{rand:2500000} {value:64}"),
    fill(
        625_000,
        "HSET hash:{rand:625000} field-1 {rand:625000} field-2 value-2 field-3 value-3 field-4 value-4",
    ),
    fill(
        625_000,
        "RPUSH list:{rand:625000} element-1 element-2 {rand:625000} element-4",
    ),
    fill(
        625_000,
        "SADD set:{rand:625000} element-1 element-2 element-3 {value:8}",
    ),
    fill(
        625_000,
        "ZADD zset:{rand:625000} 1 element-1 2 element-2 3 element-3 {rand:625000} element-4",
    ),
];

/// One shard against redis-server, and against Valkey.
#[rustfmt::skip] // A row is a line, however long.
pub(crate) const CPU: &[Row] = &[
    row("GET -P 1", GET, 1, STRINGS, 0.80),
    row("SET -P 1", SET, 1, STRINGS, 0.80),
    beside_peer(0.52, row("GET -P 16", GET, 16, STRINGS, 0.40)),
    beside_peer(0.45, row("SET -P 16", SET, 16, STRINGS, 0.35)),
    beside_peer(0.48, row("GET -P 100", GET, 100, STRINGS, 0.25)),
    beside_peer(0.42, row("SET -P 100", SET, 100, STRINGS, 0.25)),
    beside_peer(0.42, row("GET hot key -P 16", HOT, 16, STRINGS, 0.60)),
    beside_peer(0.39, row("MSET of 10 -P 16", "MSET [ {key} {value:64} ]*10", 16, STRINGS, 0.38)),
    beside_peer(0.50, row("INCR -P 16", "INCR counter:{rand:1000000}", 16, COUNTERS, 0.45)),
    beside_peer(0.80, row("GET 16 KiB -P 1", "GET large:{rand:10000}", 1, LARGE, 0.90)),
    row("SET 16 KiB -P 1", "SET large:{rand:10000} {value:16384}", 1, LARGE, 0.90),
    beside_peer(0.52, row("LPUSH -P 16", "LPUSH stack {value:3}", 16, NEW, 0.53)),
    beside_peer(0.52, using_up(TO_POP, row("LPOP -P 16", "LPOP queue", 16, NEW, 0.53))),
    beside_peer(0.50, row("SADD -P 16", "SADD set element:{rand:1000000}", 16, NEW, 0.53)),
    using_up(TO_DRAW, row("SPOP -P 16", "SPOP hat", 16, NEW, 0.53)),
    beside_peer(0.29, row("HSET -P 16", "HSET hash element:{rand:1000000} {value:3}", 16, NEW, 0.57)),
    beside_peer(0.32, row("ZADD -P 16", "ZADD zset {rand:1000000} element:{rand:1000000}", 16, NEW, 0.48)),
    beside_peer(0.56, row("LRANGE of 100 -P 16", "LRANGE list 0 99", 16, LONG_LIST, 0.80)),
    row("LRANGE of 600 -P 16", "LRANGE list 0 599", 16, LONG_LIST, 0.70),
    row("ZRANGE of 100 in 1 M -P 16", "ZRANGE zset {rand:999900} +inf BYSCORE LIMIT 0 100", 16, LARGE_SORTED_SET, 0.70),
    row("ZRANK in 1 M -P 16", "ZRANK zset element:{rand:1000000}", 16, LARGE_SORTED_SET, 0.70),
    row("PFADD -P 16", "PFADD seen element:{rand:1000000}", 16, NEW, 0.70),
    row("GEOSEARCH of 36 -P 16", "GEOSEARCH places FROMLONLAT 10.{rand:1000000000000} 45.{rand:1000000000000} BYRADIUS 1 km ASC", 16, PLACES, 0.80),
    beside_peer(0.36, row("XADD -P 16", "XADD stream * field {value:3}", 16, NEW, 0.60)),
    row("XREAD of 100 in 1 M -P 16", "XREAD COUNT 100 STREAMS log {rand:999900}", 16, LONG_STREAM, 0.70),
    row("SINTER of 2 x 10,000 -P 1", "SINTER set:1 set:2", 1, TWO_SETS, 0.70),
    row("EVALSHA with a GET -P 1", EVALSHA_GET, 1, SCRIPT_GET, 0.95),
    row("EVALSHA with a GET -P 16", EVALSHA_GET, 16, SCRIPT_GET, 0.80),
    row("token bucket -P 1", EVALSHA_BUCKET, 1, TOKEN_BUCKET, 0.90),
    row("token bucket -P 16", EVALSHA_BUCKET, 16, TOKEN_BUCKET, 0.90),
    heard_by(SUBSCRIBERS, row("PUBLISH to 50 subscribers -P 1", "PUBLISH news {value:64}", 1, NEW, 0.80)),
    heard_by(SUBSCRIBERS, row("PUBLISH to 50 subscribers -P 16", "PUBLISH news {value:64}", 16, NEW, 0.80)),
    heard_by(TRACKERS_OF_OTHERS, row("SET -P 16, 50 track others", SET, 16, STRINGS, 0.37)),
    heard_by(TRACKERS, row("SET -P 16, 50 track these", SET, 16, STRINGS, 0.80)),
];

/// Two shards against one.
pub(crate) const SHARDS: &[Row] = &[
    row("GET -P 1, 2 shards", GET, 1, STRINGS, 1.20),
    row("SET -P 1, 2 shards", SET, 1, STRINGS, 1.20),
    row("GET -P 16, 2 shards", GET, 16, STRINGS, 1.15),
    row("SET -P 16, 2 shards", SET, 16, STRINGS, 1.15),
    row(
        "token bucket -P 1, 2 shards",
        EVALSHA_BUCKET,
        1,
        TOKEN_BUCKET,
        1.30,
    ),
];

/// One hot key and several shards.
pub(crate) const HOT_KEY: &[HotRow] = &[
    hot("GET hot key -P 16, 2 shards", HOT, 16, 2, 0.60),
    hot("GET hot key -P 16, 6 shards", HOT, 16, 6, 0.25),
];

/// Eight elements in each of a hundred thousand keys, and a million in one: the command that adds them, how often, how
/// many elements that makes, and the bytes that each may take with all that belongs to it.
#[rustfmt::skip] // A row is a line, however long.
pub(crate) const COLLECTION_BYTES: &[BytesRow] = &[
    bytes("100 k hashes of 8, bytes each", fill(100_000, "HSET hash:{rand:100000} field-000001 value-0000000001 field-000002 value-0000000002 field-000003 value-0000000003 field-000004 value-0000000004 field-000005 value-0000000005 field-000006 value-0000000006 field-000007 value-0000000007 field-000008 value-0000000008"), 800_000, 46.0),
    bytes("100 k zsets of 8, bytes each", fill(100_000, "ZADD zset:{rand:100000} 1 element-0001 2 element-0002 3 element-0003 4 element-0004 5 element-0005 6 element-0006 7 element-0007 8 element-0008"), 800_000, 26.0),
    bytes("100 k sets of 8, bytes each", fill(100_000, "SADD set:{rand:100000} element-0001 element-0002 element-0003 element-0004 element-0005 element-0006 element-0007 element-0008"), 800_000, 23.0),
    bytes("100 k lists of 8, bytes each", fill(100_000, "RPUSH list:{rand:100000} element-0001 element-0002 element-0003 element-0004 element-0005 element-0006 element-0007 element-0008"), 800_000, 26.0),
    bytes("hash of 1 M, bytes each", fill(1_000_000, "HSET hash {key} {value:16}"), 1_000_000, 60.0),
    bytes("zset of 1 M, bytes each", fill(1_000_000, "ZADD zset {rand:1000000} {key}"), 1_000_000, 73.0),
    bytes("set of 1 M, bytes each", fill(1_000_000, "SADD set {key}"), 1_000_000, 38.0),
    bytes("100 k streams of 8, bytes each", fill(800_000, "XADD stream:{rand:100000} * sensor {value:6} reading {value:4}"), 800_000, 150.0),
    bytes("stream of 1 M, bytes each", fill(1_000_000, "XADD stream * sensor {value:6} reading {value:4}"), 1_000_000, 34.0),
    bytes("list of 1 M, bytes each", fill(1_000_000, "RPUSH list {key}"), 1_000_000, 19.0),
];

/// Memory of collections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BytesRow {
    pub(crate) name: &'static str,
    pub(crate) fill: Fill,
    pub(crate) elements: u64,
    /// The target: bytes of resident memory for each element.
    pub(crate) at_most: f64,
}

const fn bytes(name: &'static str, fill: Fill, elements: u64, at_most: f64) -> BytesRow {
    BytesRow {
        name,
        fill,
        elements,
        at_most,
    }
}

const fn fill(count: u64, command: &'static str) -> Fill {
    Fill {
        count,
        command,
        in_order: false,
    }
}

const fn fill_in_order(count: u64, command: &'static str) -> Fill {
    Fill {
        in_order: true,
        ..fill(count, command)
    }
}

const fn row(
    name: &'static str,
    command: &'static str,
    pipeline: usize,
    fills: &'static [Fill],
    at_most: f64,
) -> Row {
    Row {
        name,
        command,
        pipeline,
        fills,
        refill: None,
        audience: None,
        at_most,
        user_at_most: None,
    }
}

const fn beside_peer(user_at_most: f64, row: Row) -> Row {
    Row {
        user_at_most: Some(user_at_most),
        ..row
    }
}

const fn using_up(refill: Refill, row: Row) -> Row {
    Row {
        refill: Some(refill),
        ..row
    }
}

const fn heard_by(audience: Audience, row: Row) -> Row {
    Row {
        audience: Some(audience),
        ..row
    }
}

const fn hot(
    name: &'static str,
    command: &'static str,
    pipeline: usize,
    shards: usize,
    share_at_most: f64,
) -> HotRow {
    HotRow {
        name,
        command,
        pipeline,
        fills: STRINGS,
        shards,
        share_at_most,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::load::template::Template;

    #[test]
    fn every_row_can_be_encoded_and_has_a_name_of_its_own() {
        let rows: Vec<_> = CPU.iter().chain(SHARDS).collect();
        for row in &rows {
            assert!(Template::random(row.command, row.pipeline).is_ok(), "{row:?}");
            let refill = row.refill.map(|refill| refill.fill);
            for fill in row.fills.iter().chain(&refill) {
                assert!(Template::counting(fill.command, 1).is_ok(), "{row:?}");
            }
            if let Some(audience) = row.audience {
                for command in audience.commands {
                    assert!(Template::random(command, 1).is_ok(), "{row:?}");
                }
            }
            assert!(
                row.at_most > 0.0 && row.user_at_most.is_none_or(|most| most > 0.0),
                "{row:?}"
            );
        }
        for fill in MIXED {
            assert!(Template::counting(fill.command, 1).is_ok(), "{fill:?}");
        }
        for row in HOT_KEY {
            assert!(Template::random(row.command, row.pipeline).is_ok(), "{row:?}");
            assert!(row.share_at_most < 1.0 && row.shards > 1, "{row:?}");
        }
        for row in COLLECTION_BYTES {
            assert!(Template::counting(row.fill.command, 1).is_ok(), "{row:?}");
            assert!(row.elements % row.fill.count == 0, "{row:?}");
        }
        let names = CPU
            .iter()
            .chain(SHARDS)
            .map(|row| row.name)
            .chain(HOT_KEY.iter().map(|row| row.name))
            .chain(COLLECTION_BYTES.iter().map(|row| row.name));
        assert_eq!(names.clone().collect::<HashSet<_>>().len(), names.count());
    }
}
