//! DUMP and RESTORE between servers: what one dumps, every other one restores, of every type and encoding.

use std::thread::sleep;
use std::time::Duration;

use shardis_tests::client::Client;
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::redis::{self, Reference};
use shardis_tests::reply::Reply;

/// A member, field or value so long that its collection becomes a table.
const LONG: &str = "1234567890123456789012345678901234567890123456789012345678901234567890";

/// Commands that fill a server: the first argument of each is its key.
fn filling() -> Vec<String> {
    let mut lines: Vec<String> = [
        "SET s:empty ''",
        "SET s:short hello",
        "SET s:binary '\\x00\\xff'",
        "SET s:8 -128",
        "SET s:16 128",
        "SET s:16b -32768",
        "SET s:32 32768",
        "SET s:32b -2147483648",
        "SET s:64 2147483648",
        "SET s:64b -9223372036854775808",
        "SET s:zeros 00012",
        "RPUSH l:small a 1 b -7 a",
        "SADD set:16 1 2 -300",
        "SADD set:32 1 2 70000",
        "SADD set:64 1 2 5000000000",
        "SADD set:texts a b 7",
        "ZADD z:small 1 a 2.5 b -inf c inf d 0.1 e 1e300 f 1e-9 g 123456789012345678 h -3 7 5e-324 k",
        "ZADD z:whole 1 a 2.5 b -7 c",
        "HSET h:small f 1 g v h -5",
        "XGROUP CREATE x:empty g $ MKSTREAM",
        "XADD x:gone 5-5 f v",
        "XDEL x:gone 5-5",
    ]
    .map(str::to_owned)
    .to_vec();
    let numbered = |count: usize, text: &dyn Fn(usize) -> String| (0..count).map(text).collect::<String>();
    lines.push(format!("SET s:compressible {}", "abc".repeat(500)));
    lines.push(format!(
        "SET s:long {}",
        numbered(3000, &|n| (n * 7919).to_string())
    ));
    lines.push(format!(
        "RPUSH l:long{}",
        numbered(3000, &|n| format!(" element:{n}"))
    ));
    lines.push(format!(
        "RPUSH l:huge a {} b {} c",
        "x".repeat(20_000),
        "yz".repeat(9000)
    ));
    lines.push(format!(
        "SADD set:many{}",
        numbered(1000, &|n| format!(" member:{n}"))
    ));
    lines.push(format!(
        "SADD set:ints{}",
        numbered(600, &|n| format!(" {}", n * 3))
    ));
    lines.push(format!("SADD set:long {LONG} a"));
    lines.push(format!(
        "ZADD z:many{}",
        numbered(500, &|n| format!(" {} m{n}", n as f64 / 3.0))
    ));
    lines.push(format!("ZADD z:long -1 {LONG} 0.1 a"));
    lines.push(format!(
        "HSET h:many{}",
        numbered(1000, &|n| format!(" f{n} {}", n * n))
    ));
    lines.push(format!("HSET h:long {LONG} a b {LONG}{LONG}"));
    for n in 1..=400 {
        lines.push(format!("XADD x:long {n}-{} field {n} other {}", n % 3, n * n));
    }
    lines.extend(
        [
            "XADD x:long 500-0 another fields-of-its-own",
            "XDEL x:long 3-0",
            "XDEL x:long 250-1",
            "XTRIM x:long MINID 120",
            "XGROUP CREATE x:long first 0 ENTRIESREAD 100",
            "XGROUP CREATE x:long second 300-0",
            "XGROUP CREATE x:long idle $",
            "XGROUP CREATECONSUMER x:long first nothing-yet",
            "XREADGROUP GROUP first alice COUNT 100 STREAMS x:long >",
            "XREADGROUP GROUP first bob COUNT 7 STREAMS x:long >",
            "XREADGROUP GROUP second alice COUNT 3 STREAMS x:long >",
            "XACK x:long first 130-1 131-2",
            "XCLAIM x:long first carol 0 140-2 IDLE 1000 RETRYCOUNT 12",
        ]
        .map(str::to_owned),
    );
    lines
}

/// Fills a server and returns the names of its keys.
pub(super) fn fill(client: &mut Client) -> Vec<String> {
    for line in filling() {
        let reply = client.line(&line);
        assert!(!reply.is_error(), "{line}: {}", reply.text());
    }
    let reply = client.line("KEYS *");
    let mut keys: Vec<String> = reply.items().iter().map(Reply::text).collect();
    keys.sort();
    assert!(keys.len() >= 32, "{keys:?}");
    keys
}

/// All that can be asked about a value and that restoring does not change.
pub(super) fn description(client: &mut Client, key: &str) -> String {
    let mut told = client.line(&format!("DEBUG DIGEST-VALUE {key}")).text();
    if !key.starts_with("x:") {
        return told;
    }
    let about = client.line(&format!("XINFO STREAM {key}"));
    for field in [
        "length",
        "last-generated-id",
        "max-deleted-entry-id",
        "entries-added",
        "recorded-first-entry-id",
        "groups",
    ] {
        told += &format!(" {field}={:?}", about.field(field).map(Reply::text));
    }
    let groups = client.line(&format!("XINFO GROUPS {key}"));
    told += &groups.text();
    for group in groups.items() {
        let name = group.field("name").map(Reply::text).unwrap_or_default();
        let consumers = client.line(&format!("XINFO CONSUMERS {key} {name}"));
        for consumer in consumers.items() {
            for field in ["name", "pending"] {
                told += &format!(" {:?}", consumer.field(field).map(Reply::text));
            }
        }
        let pending = client.line(&format!("XPENDING {key} {name} - + 10000"));
        for entry in pending.items() {
            let [id, owner, _, deliveries] = entry.items() else {
                panic!("a pending entry has four parts: {}", entry.text())
            };
            told += &format!(" {} {} {}", id.text(), owner.text(), deliveries.text());
        }
    }
    told
}

fn dump(client: &mut Client, key: &str) -> Vec<u8> {
    client.call(&["DUMP", key]).bytes().to_vec()
}

pub(super) fn restore(client: &mut Client, key: &str, payload: &[u8]) {
    let reply = client.call(&[b"RESTORE", key.as_bytes(), b"0", payload]);
    assert_eq!(reply.text(), "OK", "{key}: {payload:?}");
}

pub(super) fn start(shards: usize) -> Process {
    node::launch(shards)
        .with(&["--enable-debug-command", "yes"])
        .serve()
}

pub(super) fn start_reference(reference: Reference) -> Process {
    let launch = match reference {
        Reference::Redis => redis::launch(),
        Reference::Valkey => redis::launch_peer(),
    };
    launch.with(&["--enable-debug-command", "yes"]).serve()
}

/// Fills one server, carries all its keys to another one, and compares.
fn carry(from: &Process, to: &Process) {
    let [mut source, mut target] = [from, to].map(Process::connect);
    for key in fill(&mut source) {
        let payload = dump(&mut source, &key);
        restore(&mut target, &key, &payload);
        assert_eq!(
            description(&mut target, &key),
            description(&mut source, &key),
            "{key}"
        );
    }
}

/// Digests of all data.
pub(super) fn digests(servers: [&Process; 2]) -> [String; 2] {
    servers.map(|server| server.connect().line("DEBUG DIGEST").text())
}

#[test]
fn what_shardis_dumps_is_restored_everywhere() {
    let (subject, redis) = (start(2), start_reference(Reference::Redis));
    carry(&subject, &redis);
    let [ours, theirs] = digests([&subject, &redis]);
    assert_eq!(ours, theirs);
    // Valkey's digest of all data counts scores in a way of its own.
    carry(&start(4), &start_reference(Reference::Valkey));
    let (one, three) = (start(1), start(3));
    carry(&one, &three);
    let [first, second] = digests([&one, &three]);
    assert_eq!(first, second);
}

#[test]
fn what_others_dump_is_restored_by_shardis() {
    let (subject, redis) = (start(3), start_reference(Reference::Redis));
    carry(&redis, &subject);
    let [ours, theirs] = digests([&subject, &redis]);
    assert_eq!(ours, theirs);
    carry(&start_reference(Reference::Valkey), &start(3));
}

#[test]
fn uncompressed_and_compressed_values_are_restored_alike() {
    let (from, to) = (start(1), redis::start());
    let [mut source, mut target] = [&from, &to].map(Process::connect);
    source.line("SET k abcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabc");
    let packed = dump(&mut source, "k");
    source.line("CONFIG SET rdbcompression no");
    let plain = dump(&mut source, "k");
    assert!(
        packed.len() < 40 && plain.len() > 70,
        "{} {}",
        packed.len(),
        plain.len()
    );
    restore(&mut target, "packed", &packed);
    restore(&mut target, "plain", &plain);
    assert_eq!(target.line("GET packed").text(), target.line("GET plain").text());
}

#[test]
fn small_values_have_the_bytes_of_redis() {
    let (subject, oracle) = (start(2), start_reference(Reference::Redis));
    let [mut ours, mut theirs] = [&subject, &oracle].map(Process::connect);
    // Compressors find repetitions in different ways.
    for client in [&mut ours, &mut theirs] {
        assert_eq!(client.line("CONFIG SET rdbcompression no").text(), "OK");
    }
    let keys = fill(&mut ours);
    fill(&mut theirs);
    let mut compared = 0;
    for key in keys {
        // Tables have an order of their own, times differ, and 7.0 packs elements of any size and long scores.
        let differs = [
            "set:long",
            "h:long",
            "set:many",
            "h:many",
            "set:ints",
            "set:texts",
            "x:long",
            "l:huge",
            "z:small",
            "z:long",
        ]
        .contains(&key.as_str());
        if !differs {
            assert_eq!(dump(&mut ours, &key), dump(&mut theirs, &key), "{key}");
            compared += 1;
        }
    }
    assert!(compared >= 22, "{compared} keys");
}

#[test]
fn encodings_after_restoring_are_those_of_a_real_server() {
    let (source, peer, subject) = (
        start_reference(Reference::Redis),
        start_reference(Reference::Valkey),
        start(2),
    );
    let [mut source, mut theirs, mut ours] = [&source, &peer, &subject].map(Process::connect);
    for key in fill(&mut source) {
        let payload = dump(&mut source, &key);
        restore(&mut theirs, &key, &payload);
        restore(&mut ours, &key, &payload);
        let line = format!("OBJECT ENCODING {key}");
        assert_eq!(ours.line(&line).text(), theirs.line(&line).text(), "{key}");
    }
}

#[test]
fn fields_keep_their_expiries_in_the_chosen_format() {
    let peer = start_reference(Reference::Valkey);
    let subject = start(2);
    let [mut ours, mut theirs] = [&subject, &peer].map(Process::connect);
    let fill = |client: &mut Client| {
        client.line("HSET small f 1 g v h -5");
        client.line(&format!("HSET large f 1 g v h {LONG}"));
        for key in ["small", "large"] {
            client.line(&format!("HPEXPIREAT {key} 9999999999999 FIELDS 1 f"));
            client.line(&format!("HPEXPIREAT {key} 8888888888888 FIELDS 1 g"));
        }
    };
    let told = |client: &mut Client, key: &str| {
        let values = client.line(&format!("HMGET {key} f g h")).text();
        values + &client.line(&format!("HPEXPIRETIME {key} FIELDS 3 f g h")).text()
    };
    fill(&mut ours);
    fill(&mut theirs);
    for key in ["small", "large"] {
        // Valkey's is read always, and written on demand.
        let payload = dump(&mut theirs, key);
        restore(&mut ours, &format!("{key}:2"), &payload);
        assert_eq!(told(&mut ours, &format!("{key}:2")), told(&mut theirs, key));
        ours.line("CONFIG SET rdb-field-expiry-format valkey");
        let payload = dump(&mut ours, key);
        restore(&mut theirs, &format!("{key}:2"), &payload);
        assert_eq!(told(&mut theirs, &format!("{key}:2")), told(&mut ours, key));
        ours.line("CONFIG SET rdb-field-expiry-format redis");
        let payload = dump(&mut ours, key);
        assert_eq!(payload[payload.len() - 10..payload.len() - 8], [12, 0]);
        restore(&mut ours, &format!("{key}:3"), &payload);
        assert_eq!(told(&mut ours, &format!("{key}:3")), told(&mut ours, key));
        // Fields of a restored hash expire as those of any other.
        ours.line(&format!("HPEXPIREAT {key}:3 1 FIELDS 1 f"));
        assert_eq!(ours.line(&format!("HLEN {key}:3")).integer(), Some(2));
    }
}

#[test]
fn expiries_of_restored_fields_come_to_pass() {
    let server = start(2);
    let mut client = server.connect();
    client.line("HSET h f 1 g 2");
    client.line("HPEXPIRE h 200 FIELDS 1 f");
    let payload = dump(&mut client, "h");
    client.line("DEL h");
    restore(&mut client, "copy", &payload);
    let expired = |client: &mut Client| client.line("INFO stats").text().contains("expired_subkeys:1");
    for _ in 0..500 {
        if expired(&mut client) {
            assert_eq!(
                client.line("HGETALL copy").text(),
                client.line("HMGET copy g g").text().replacen('2', "g", 1)
            );
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("no cycle has removed the field");
}

#[test]
fn large_payloads_go_to_any_shard() {
    let server = start(4);
    let mut client = server.connect();
    let value = "0123456789abcdef".repeat(1 << 16);
    client.line("CONFIG SET rdbcompression no");
    client.call(&["SET", "source", &value]);
    let payload = dump(&mut client, "source");
    assert!(payload.len() > 1 << 20);
    for n in 0..8 {
        let key = format!("copy:{n}");
        restore(&mut client, &key, &payload);
        assert_eq!(client.call(&["STRLEN", &key]).integer(), Some(1 << 20));
    }
    // In a pipeline with others, in order.
    let requests: Vec<Vec<Vec<u8>>> = (0..20)
        .flat_map(|n| {
            let key = format!("p:{n}").into_bytes();
            [
                vec![b"RESTORE".to_vec(), key.clone(), b"0".to_vec(), payload.clone()],
                vec![b"STRLEN".to_vec(), key],
            ]
        })
        .collect();
    for pair in client.pipeline(&requests).chunks(2) {
        assert_eq!(
            (pair[0].text().as_str(), pair[1].integer()),
            ("OK", Some(1 << 20))
        );
    }
}

/// A source of numbers, always the same.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Commands that read and change a value of any type in every way that goes through all of it.
const USES: &[&str] = &[
    "TYPE k",
    "OBJECT ENCODING k",
    "MEMORY USAGE k",
    "DEBUG DIGEST-VALUE k",
    "DUMP k",
    "GET k",
    "APPEND k x",
    "GETRANGE k 0 -1",
    "SETRANGE k 3 x",
    "BITCOUNT k",
    "PFCOUNT k",
    "PFADD k a",
    "LRANGE k 0 -1",
    "LINDEX k -1",
    "LPOP k",
    "RPUSH k 5 x",
    "LINSERT k BEFORE x y",
    "LREM k 0 x",
    "LSET k 0 z",
    "LTRIM k 1 -2",
    "SMEMBERS k",
    "SADD k 7 seven",
    "SSCAN k 0 COUNT 1000",
    "SRANDMEMBER k 5",
    "SPOP k",
    "SINTER k k",
    "ZRANGE k 0 -1 WITHSCORES",
    "ZRANGE k 0 -1 REV",
    "ZADD k 1.5 new",
    "ZPOPMIN k",
    "ZRANGEBYSCORE k -inf +inf",
    "ZSCAN k 0 COUNT 1000",
    "HGETALL k",
    "HSET k new v",
    "HSCAN k 0 COUNT 1000",
    "HRANDFIELD k 5 WITHVALUES",
    "HPEXPIRE k 100000 FIELDS 1 new",
    "HEXPIRETIME k FIELDS 1 new",
    "HDEL k new",
    "XRANGE k - +",
    "XREVRANGE k + -",
    "XADD k * f v",
    "XINFO STREAM k FULL",
    "XREADGROUP GROUP g c COUNT 3 STREAMS k >",
    "XREADGROUP GROUP first zoe COUNT 3 STREAMS k >",
    "XPENDING k first - + 1000",
    "XAUTOCLAIM k first zoe 0 0 COUNT 1000",
    "XTRIM k MAXLEN 50",
    "XDEL k 200-2",
    "XGROUP DELCONSUMER k first alice",
    "XSETID k 99999999999999-1",
    "SORT k ALPHA",
    "COPY k k2 REPLACE",
    "DEL k",
];

#[test]
fn damaged_payloads_harm_nobody() {
    let server = start(2);
    let mut client = server.connect();
    let keys = fill(&mut client);
    let payloads: Vec<Vec<u8>> = keys.iter().map(|key| dump(&mut client, key)).collect();
    client.line("FLUSHALL");
    let mut numbers = Numbers(42);
    let mut accepted = 0;
    for round in 0..3000 {
        let mut payload = payloads[round % payloads.len()].clone();
        let body = payload.len() - 10;
        for _ in 0..=numbers.below(3) {
            let at = numbers.below(body.min(200));
            payload[at] = numbers.below(256) as u8;
        }
        payload.truncate(body + 2);
        let sum = crc64(&payload);
        payload.extend(sum.to_le_bytes());
        let reply = client.call(&[&b"RESTORE"[..], b"k", b"0", &payload, b"REPLACE"]);
        if reply.is_error() {
            assert_eq!(reply.text(), "ERR Bad data format");
            continue;
        }
        accepted += 1;
        for line in USES {
            let reply = client.line(line).text();
            assert!(!reply.contains("internal error"), "{line}: {reply}\n{payload:?}");
        }
    }
    assert!(accepted > 100, "{accepted} of 3000");
    assert_eq!(client.line("PING").text(), "PONG");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// The checksum of a payload, in the plainest way.
fn crc64(bytes: &[u8]) -> u64 {
    let mut sum = 0u64;
    for byte in bytes {
        sum ^= u64::from(*byte);
        for _ in 0..8 {
            sum = sum >> 1 ^ if sum & 1 == 1 { 0x95ac_9329_ac4b_c9b5 } else { 0 };
        }
    }
    sum
}
