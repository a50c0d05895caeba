//! Keyspace events of the collections, as an embedding program receives them: what each command raises, in order.
//!
//! The expectations were taken from a real server with the classes `KEAnm`; those of fields that expire, which came after
//! it, from the documentation of their commands.

use std::time::Duration;

use crossbeam_channel::Receiver;
use redis::Connection;
use shardis::{KeyspaceEvent, Server};

/// A command line, and the events that it raises: `name key, name key…`.
type Row = (&'static str, &'static str);

/// Lists, and what SORT stores.
const LISTS: &[Row] = &[
    ("LPUSH l a b", "new l, lpush l"),
    ("RPUSH l c", "rpush l"),
    ("LPUSHX l d", "lpush l"),
    ("RPUSHX l e", "rpush l"),
    ("LPUSHX nope d", ""),
    ("LINSERT l BEFORE a x", "linsert l"),
    ("LINSERT l BEFORE zz x", ""),
    ("LSET l 0 y", "lset l"),
    ("LREM l 0 x", "lrem l"),
    ("LREM l 0 zz", ""),
    ("LTRIM l 0 -1", "ltrim l"),
    ("LTRIM l 0 3", "ltrim l"),
    ("LPOP l", "lpop l"),
    ("RPOP l", "rpop l"),
    ("LPOP l 0", ""),
    ("LPOP l 9", "lpop l, del l"),
    ("LPOP l", ""),
    ("LPOP nope 3", ""),
    ("RPUSH l a b c", "new l, rpush l"),
    ("LMOVE l l LEFT RIGHT", "rpush l, lpop l"),
    ("LMOVE l m LEFT RIGHT", "new m, rpush m, lpop l"),
    ("RPOPLPUSH l m", "lpush m, rpop l"),
    ("LMOVE l m LEFT LEFT", "lpush m, lpop l, del l"),
    ("LMOVE nope m LEFT LEFT", ""),
    ("LMPOP 2 l m LEFT COUNT 2", "lpop m"),
    ("LMPOP 2 l m RIGHT", "rpop m, del m"),
    ("LMPOP 2 l m RIGHT", ""),
    ("RPUSH l a", "new l, rpush l"),
    ("LTRIM l 5 6", "ltrim l, del l"),
    ("RPUSH l a a", "new l, rpush l"),
    ("LREM l 0 a", "lrem l, del l"),
    ("RPUSH l a", "new l, rpush l"),
    ("RPOP l", "rpop l, del l"),
    ("RPUSH l a b", "new l, rpush l"),
    ("DEL l m", "del l"),
    ("RPUSH l 3 1 2", "new l, rpush l"),
    ("SORT l STORE d", "new d, sortstore d"),
    ("SORT l STORE d", "sortstore d"),
    ("SORT nope STORE d", "keymiss nope, del d"),
    ("SORT nope STORE d", "keymiss nope"),
    ("SORT nope2", "keymiss nope2"),
    ("SET str v", "new str, set str"),
    ("SORT l STORE str", "sortstore str"),
];

/// Sets.
const SETS: &[Row] = &[
    ("SADD s a b c", "new s, sadd s"),
    ("SADD s a", ""),
    ("SADD s d", "sadd s"),
    ("SREM s d zz", "srem s"),
    ("SREM s zz", ""),
    ("SREM s a b c", "srem s, del s"),
    ("SADD s a b c", "new s, sadd s"),
    ("SMOVE s t a", "srem s, new t, sadd t"),
    ("SMOVE s t zz", ""),
    ("SADD t b", "sadd t"),
    ("SMOVE s t b", "srem s"),
    ("SMOVE s s c", ""),
    ("SMOVE s t c", "srem s, del s, sadd t"),
    ("SADD s a b c", "new s, sadd s"),
    ("SPOP s", "spop s"),
    ("SPOP s 1", "spop s"),
    ("SPOP s 5", "spop s, del s"),
    ("SPOP s", ""),
    ("SPOP s 3", ""),
    ("SADD s a b c d", "new s, sadd s"),
    ("SPOP s 0", ""),
    ("SPOP s 3", "spop s"),
    ("SADD u a", "new u, sadd u"),
    ("SADD v b", "new v, sadd v"),
    ("SINTERSTORE x u u", "new x, sinterstore x"),
    ("SINTERSTORE x u v", "del x"),
    ("SINTERSTORE x u v", ""),
    ("SUNIONSTORE x u v", "new x, sunionstore x"),
    ("SUNIONSTORE x nope nope2", "keymiss nope, keymiss nope2, del x"),
    ("SDIFFSTORE x u v", "new x, sdiffstore x"),
    ("SDIFFSTORE x u v", "sdiffstore x"),
    ("SDIFFSTORE x u u", "del x"),
    ("SINTERCARD 2 u nope", "keymiss nope"),
    ("SMEMBERS nope", "keymiss nope"),
];

/// Hashes.
const HASHES: &[Row] = &[
    ("HSET h f 1 g 2", "new h, hset h"),
    ("HSET h f 1", "hset h"),
    ("HSETNX h f 1", ""),
    ("HSETNX h n 1", "hset h"),
    ("HMSET h f 1", "hset h"),
    ("HINCRBY h i 1", "hincrby h"),
    ("HINCRBYFLOAT h i 1.5", "hincrbyfloat h"),
    ("HDEL h zz", ""),
    ("HDEL h i n", "hdel h"),
    ("HDEL h f g", "hdel h, del h"),
    ("HGET h f", "keymiss h"),
    ("HSETNX h n 1", "new h, hset h"),
    ("HDEL h n", "hdel h, del h"),
    ("HINCRBY h i 1", "new h, hincrby h"),
    ("HDEL h i", "hdel h, del h"),
    ("HINCRBYFLOAT h i 1", "new h, hincrbyfloat h"),
];

/// Streams, which stay when they are empty.
const STREAMS: &[Row] = &[
    ("XADD s 1-1 a 1", "new s, xadd s"),
    ("XADD s 2-1 a 1", "xadd s"),
    ("XADD s MAXLEN 2 3-1 a 1", "xadd s, xtrim s"),
    ("XADD nope NOMKSTREAM 3-1 a 1", ""),
    ("XTRIM s MAXLEN 5", ""),
    ("XTRIM s MAXLEN 1", "xtrim s"),
    ("XADD s NOMKSTREAM 4-1 a 1", "xadd s"),
    ("XDEL s 9", ""),
    ("XDEL s 3-1", "xdel s"),
    ("XGROUP CREATE s g 0", "xgroup-create s"),
    ("XGROUP CREATECONSUMER s g c", "xgroup-createconsumer s"),
    ("XGROUP CREATECONSUMER s g c", ""),
    ("XREADGROUP GROUP g d STREAMS s >", "xgroup-createconsumer s"),
    ("XGROUP SETID s g 0", "xgroup-setid s"),
    ("XACK s g 4-1", ""),
    ("XADD s 5-1 a 1", "xadd s"),
    ("XREADGROUP GROUP g d STREAMS s >", ""),
    ("XCLAIM s g e 0 4-1", "xgroup-createconsumer s"),
    ("XAUTOCLAIM s g f 0 0", "xgroup-createconsumer s"),
    ("XGROUP DELCONSUMER s g e", "xgroup-delconsumer s"),
    ("XGROUP DELCONSUMER s g nobody", ""),
    ("XSETID s 9-1", "xsetid s"),
    ("XDELEX s IDS 1 5-1", "xdel s"),
    ("XACKDEL s g IDS 1 4-1", "xdel s"),
    ("XGROUP DESTROY s g", "xgroup-destroy s"),
    ("XGROUP DESTROY s g", ""),
    ("XGROUP CREATE made g $ MKSTREAM", "new made, xgroup-create made"),
    ("XRANGE nope - +", "keymiss nope"),
    ("XREAD STREAMS nope 0", "keymiss nope, keymiss nope"),
    ("DEL s", "del s"),
];

/// Sorted sets.
const SORTED_SETS: &[Row] = &[
    ("ZADD z 1 a 2 b", "new z, zadd z"),
    ("ZADD z 1 a", ""),
    ("ZADD z 2 a", "zadd z"),
    ("ZADD z 5 a 3 n", "zadd z"),
    ("ZADD z XX 9 zz", ""),
    ("ZADD nope XX 9 zz", ""),
    ("ZADD z INCR 1 a", "zincr z"),
    ("ZADD z NX INCR 1 a", ""),
    ("ZADD z CH 7 a", "zadd z"),
    ("ZINCRBY z 1 a", "zincr z"),
    ("ZINCRBY z 0 a", ""),
    ("ZINCRBY new 1 a", "new new, zincr new"),
    ("ZREM z zz", ""),
    ("ZREM z a b", "zrem z"),
    ("ZREM z n", "zrem z, del z"),
    ("ZADD z 1 a 2 b 3 c 4 d 5 e 6 f", "new z, zadd z"),
    ("ZREMRANGEBYSCORE z 1 1", "zremrangebyscore z"),
    ("ZREMRANGEBYSCORE z 100 101", ""),
    ("ZREMRANGEBYRANK z 0 0", "zremrangebyrank z"),
    ("ZREMRANGEBYLEX z [c [c", "zremrangebylex z"),
    ("ZPOPMIN z", "zpopmin z"),
    ("ZPOPMAX z 1", "zpopmax z"),
    ("ZPOPMAX z 0", ""),
    ("ZPOPMIN z 5", "zpopmin z, del z"),
    ("ZPOPMIN z", ""),
    ("ZADD z 1 a 2 b 3 c", "new z, zadd z"),
    ("ZREMRANGEBYRANK z 0 -1", "zremrangebyrank z, del z"),
    ("ZADD z 1 a 2 b 3 c", "new z, zadd z"),
    ("ZREMRANGEBYSCORE z -inf +inf", "zremrangebyscore z, del z"),
    ("ZADD z 1 a 2 b 3 c", "new z, zadd z"),
    ("ZREMRANGEBYLEX z - +", "zremrangebylex z, del z"),
    ("ZADD z 1 a 2 b 3 c", "new z, zadd z"),
    ("ZRANGESTORE d z 0 1", "new d, zrangestore d"),
    ("ZRANGESTORE d z 0 1", "zrangestore d"),
    ("ZRANGESTORE d z 9 10", "del d"),
    ("ZRANGESTORE d z 9 10", ""),
    ("ZRANGESTORE d nope 0 1", "keymiss nope"),
    ("ZUNIONSTORE d 1 z", "new d, zunionstore d"),
    ("ZINTERSTORE d 2 z z", "zinterstore d"),
    ("ZDIFFSTORE d 2 z z", "del d"),
    ("ZDIFFSTORE d 2 z z", ""),
    ("ZDIFFSTORE d 1 z", "new d, zdiffstore d"),
    ("ZUNIONSTORE d 1 nope", "keymiss nope, del d"),
    ("ZMPOP 2 nope z MIN", "zpopmin z"),
    ("ZMPOP 2 nope z MAX COUNT 9", "zpopmax z, del z"),
    ("ZADD z 1 a 2 b", "new z, zadd z"),
    ("ZADD z 1 a 2 b", ""),
    ("ZRANDMEMBER nope", "keymiss nope"),
    ("ZSCORE nope a", "keymiss nope"),
];

/// Keys of any type.
const KEYS: &[Row] = &[
    ("RPUSH l a", "new l, rpush l"),
    ("RENAME l m", "new m, rename_from l, rename_to m"),
    ("COPY m n", "new n, copy_to n"),
    ("RENAME m n", "new n, rename_from m, rename_to n"),
    ("RPUSH l a", "new l, rpush l"),
    ("EXPIRE l 100", "expire l"),
    ("PERSIST l", "persist l"),
    ("SADD s a", "new s, sadd s"),
    ("SET s 1", "set s"),
    ("DEL s", "del s"),
    ("LPUSH l a", "lpush l"),
    ("SADD s 1", "new s, sadd s"),
    ("UNLINK s", "del s"),
];

/// Hashes with fields that expire.
const FIELDS: &[Row] = &[
    ("HSET h a 1 b 2 c 3 d 4", "new h, hset h"),
    ("HPEXPIRE h 5000 FIELDS 2 a b", "hexpire h"),
    ("HEXPIRE h 100 NX FIELDS 1 a", ""),
    ("HPERSIST h FIELDS 1 a", "hpersist h"),
    ("HPERSIST h FIELDS 1 a", ""),
    ("HEXPIRE h 0 FIELDS 1 c", "hdel h"),
    ("HGETEX h EX 100 FIELDS 1 a", "hexpire h"),
    ("HGETEX h PERSIST FIELDS 1 a", "hpersist h"),
    ("HGETEX h FIELDS 1 a", ""),
    ("HSETEX h EX 100 FIELDS 1 e 5", "hset h, hexpire h"),
    ("HSETEX h KEEPTTL FIELDS 1 e 6", "hset h"),
    ("HSETEX h FNX FIELDS 1 e 6", ""),
    ("HSETEX h PXAT 1 FIELDS 1 e 6", "hdel h"),
    ("HGETDEL h FIELDS 1 none", ""),
    ("HGETDEL h FIELDS 1 d", "hdel h"),
    ("HEXPIREAT h 1 FIELDS 2 a b", "hdel h, del h"),
    ("HTTL h FIELDS 1 a", "keymiss h"),
];

struct Listener {
    server: Server,
    client: Connection,
    events: Receiver<KeyspaceEvent>,
}

impl Listener {
    fn new(shards: usize, classes: &str) -> Self {
        let (sender, events) = crossbeam_channel::unbounded();
        let server = Server::builder()
            .shards(shards)
            .directive("notify-keyspace-events", classes)
            .manual_clock(Duration::from_secs(1_700_000_000))
            .keyspace_events(sender)
            .start()
            .expect("nothing keeps it from starting");
        let client = redis::Client::open(server.url())
            .and_then(|client| client.get_connection())
            .expect("the server accepts connections");
        Self {
            server,
            client,
            events,
        }
    }

    /// Runs a command and returns what it raised.
    fn run(&mut self, line: &str) -> String {
        let mut words = line.split(' ');
        let mut command = redis::cmd(words.next().unwrap_or_default());
        command.arg(words.collect::<Vec<_>>());
        let _: redis::Value = command.query(&mut self.client).expect(line);
        self.told()
    }

    fn told(&self) -> String {
        let shown = |event: KeyspaceEvent| format!("{} {}", event.name, String::from_utf8_lossy(&event.key));
        self.events.try_iter().map(shown).collect::<Vec<_>>().join(", ")
    }
}

#[test]
fn commands_raise_the_events_of_redis() {
    for shards in [1, 4] {
        for rows in [LISTS, SETS, HASHES, SORTED_SETS, STREAMS, KEYS, FIELDS] {
            let mut listener = Listener::new(shards, "KEAnm");
            for (line, events) in rows {
                assert_eq!(listener.run(line), *events, "{line}");
            }
        }
    }
}

#[test]
fn fields_that_expire_are_told_of() {
    let mut listener = Listener::new(2, "EA");
    listener.run("HSET h a 1");
    listener.run("HPEXPIRE h 5 FIELDS 1 a");
    // A cycle is due with every tenth of a second that passes.
    for _ in 0..200 {
        listener.server.advance(Duration::from_millis(100));
        let told = listener.run("PING");
        if !told.is_empty() {
            assert_eq!(told, "hexpired h, del h");
            return;
        }
    }
    panic!("the field is still there");
}

#[test]
fn the_directive_chooses_the_classes() {
    for (classes, expected) in [
        ("", ["", "", "", ""]),
        ("A", ["", "", "", ""]),
        ("Kl", ["lpush k", "", "lpop k", ""]),
        ("Ez", ["", "zadd z", "", "zrem z"]),
        ("KEg", ["", "", "del k", "del z"]),
        ("Ezn", ["new k", "new z, zadd z", "", "zrem z"]),
    ] {
        let mut listener = Listener::new(1, classes);
        let lines = ["LPUSH k a", "ZADD z 1 a", "LPOP k", "ZREM z a"];
        assert_eq!(lines.map(|line| listener.run(line)), expected, "{classes}");
    }
    let mut listener = Listener::new(3, "");
    assert_eq!(listener.run("CONFIG SET notify-keyspace-events Eh"), "");
    assert_eq!(listener.run("HSET h f v"), "hset h");
}
