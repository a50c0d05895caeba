//! The counters of commands and errors after one session, line by line beside those of the real servers: calls that ran, were
//! rejected or failed; unknown names, wrong arity, transactions, waits that end in every way, passwords, want of memory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shardis_tests::client::Client;
use shardis_tests::process::Process;
use shardis_tests::wait::{await_blocked, wait_until};
use shardis_tests::{info, node, redis};

/// The session of a client that makes every kind of mistake.
const SESSION: &str = "
PING
NOSUCH a b
GET
GET a b
SET a 1
GET a
INCR a
LPUSH a 1
HSET a f v
SET a v NX XX
EXPIRE a x
GETEX a EX 0
CONFIG SET nosuch 1
CONFIG NOSUCH
CONFIG GET
CONFIG SET maxclients abc
OBJECT ENCODING a
OBJECT HELP
OBJECT FOO
CLIENT SETNAME x y
CLIENT KILL ID 0
CLIENT NOSUCH
CLIENT ID
MULTI
GET a
SET b 1
LPUSH a 1
NOSUCH
EXEC
MULTI
GET a
GET
EXEC
MULTI
INCR a
LPUSH a 1
GET a
EXEC
MULTI
MULTI
WATCH a
DISCARD
DISCARD
EXEC
WATCH a
SET a 5
MULTI
GET a
EXEC
SUBSCRIBE ch
GET a
PING
UNSUBSCRIBE ch
RENAME nokey b
XADD s 1-1 f v
XADD s 1-1 f v
XREADGROUP GROUP g c STREAMS s >
XGROUP CREATE s g 0
XGROUP CREATE s g 0
XGROUP FOO
ZADD z NX XX 1 a
ZADD z 1 a
ZADD z x a
ZPOPMIN z x
MSET a 1 b
MSET a 1 b 2
MGET a b
SORT a BY nosort GET
SELECT 99
SELECT x
SWAPDB 0 99
BLPOP nolist x
BLPOP nolist 0.01
BLPOP a 0
BZPOPMIN nolist 0.01
BLMOVE nolist other LEFT RIGHT 0.01
XREAD BLOCK 10 STREAMS nostream $
AUTH wrong
AUTH a b
HELLO 9
HELLO x
SCAN x
SCAN 0 FOO
KEYS
RANDOMKEY
DBSIZE
DBSIZE x
FLUSHALL x
DEBUG NOSUCH
COMMAND COUNT
COMMAND FOO
COMMAND INFO get
SLOWLOG FOO
LATENCY FOO
MEMORY USAGE a
MEMORY FOO
GETBIT a -1
SETRANGE a -1 x
COPY a a
LCS a
RESET
CLIENT REPLY FOO
EVALX
PUBLISH ch m
PUBSUB FOO
SPUBLISH
WAIT x y
ROLE
EXPIRETIME a b
PFADD a x
GEOADD g 999 999 m
BITCOUNT a 0
OBJECT FREQ a
CONFIG SET maxmemory 1
SET a 1
GET a
MULTI
SET a 1
GET a
EXEC
CONFIG SET maxmemory 0
CONFIG SET requirepass pw
";

/// A further session, of a client that has to give a password.
const WITHOUT_PASSWORD: &str = "
get a
set a 1
nosuch
get
ping
auth no
auth pw
get a
CONFIG SET requirepass \"\"
del l q other
";

fn run(client: &mut Client, session: &str) {
    for line in session.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line
            .split(' ')
            .map(|word| if word == "\"\"" { "" } else { word })
            .collect();
        client.call(&words);
    }
}

/// Has a client wait in several ways, and ends each wait.
fn wait_and_be_woken(server: &Process, client: &mut Client) {
    let mut waiter = server.connect();
    let id = waiter.line("CLIENT ID").integer().expect("a number");
    for (waits, ends) in [
        ("BLPOP l 0", "RPUSH l v"),
        ("BLMOVE l other LEFT RIGHT 0", "RPUSH l v"),
        ("BLMPOP 0 1 q LEFT", &format!("CLIENT UNBLOCK {id}")),
        ("XREADGROUP GROUP g c BLOCK 0 STREAMS s >", "DEL s"),
        ("BZPOPMAX q 0", &format!("CLIENT UNBLOCK {id} ERROR")),
    ] {
        if waits.starts_with("XREADGROUP") {
            // The entries there are.
            waiter.line(waits);
        }
        let words: Vec<&str> = waits.split(' ').collect();
        waiter.send(&words).expect("a connection");
        await_blocked(client, 1);
        client.line(ends);
        waiter.read().expect("a reply");
    }
}

/// The lines of the sections, without durations.
fn counters(server: &Process) -> BTreeMap<String, String> {
    let mut client = server.connect();
    run(&mut client, SESSION);
    client.line("AUTH pw");
    let mut second = server.connect();
    run(&mut second, WITHOUT_PASSWORD);
    wait_and_be_woken(server, &mut second);
    let mut lines = BTreeMap::new();
    for section in ["commandstats", "errorstats", "latencystats"] {
        let text = second.call(&["INFO", section]).text();
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let counted = value
                .split(',')
                .filter(|field| !field.starts_with("usec") && !field.starts_with('p'));
            lines.insert(name.to_owned(), counted.collect::<Vec<_>>().join(","));
        }
    }
    // Looked at while waiting, as often as it took.
    lines.retain(|name, _| {
        !["client|list", "_info"]
            .iter()
            .any(|looked| name.ends_with(looked))
    });
    lines
}

/// Lines that Redis 7.0 has otherwise than its successors. CLIENT UNBLOCK is in the list of differences of README.md.
const OTHER_THAN_REDIS: &[&str] = &[
    // It counts a wait as failed when other clients got errors meanwhile.
    "cmdstat_blmpop",
    "cmdstat_client|unblock",
    // It queues no command at all while there is no memory.
    "cmdstat_get",
    "errorstat_OOM",
    // It has no latency of a wait that ended in time.
    "latency_percentiles_usec_bzpopmin",
    "latency_percentiles_usec_xread",
    // A deleted stream is told otherwise since 7.2.
    "errorstat_NOGROUP",
    "errorstat_UNBLOCKED",
];

/// Lines that Valkey 9.1 has otherwise: it rejects commands before they run that others run and fail, and its errors add up
/// otherwise.
const OTHER_THAN_VALKEY: &[&str] = &[
    "cmdstat_bitcount",
    "cmdstat_blpop",
    "cmdstat_bzpopmax",
    "cmdstat_client|unblock",
    "cmdstat_config|get",
    "cmdstat_multi",
    "cmdstat_watch",
    "errorstat_ERR",
    "errorstat_NOAUTH",
    "latency_percentiles_usec_config|get",
];

#[test]
fn they_are_those_of_the_real_servers() {
    let peers = [
        (counters(&redis::start()), OTHER_THAN_REDIS),
        (counters(&redis::start_peer()), OTHER_THAN_VALKEY),
    ];
    for shards in [1, 4] {
        let ours = counters(&node::start(shards));
        for (peer, other) in &peers {
            let names: BTreeSet<&String> = ours.keys().chain(peer.keys()).collect();
            let differing: Vec<_> = names
                .into_iter()
                .filter(|name| !other.contains(&name.as_str()) && ours.get(*name) != peer.get(*name))
                .map(|name| (name, ours.get(name), peer.get(name)))
                .collect();
            assert!(
                differing.is_empty(),
                "{shards} shards, not as beside {other:?}: {differing:#?}"
            );
        }
    }
}

#[test]
fn buffers_of_replies_are_counted_when_they_come_and_go() {
    let server = node::start(1);
    let (mut control, mut client) = (server.connect(), server.connect());
    let figures = |control: &mut Client| {
        ["reply_buffer_expands", "reply_buffer_shrinks"].map(|name| info::figure(control, name))
    };
    // Its own buffer is the first; it is never idle.
    figures(&mut control);
    let mut before = figures(&mut control);
    for _ in 0..2 {
        client.line("PING");
        let [expands, shrinks] = figures(&mut control);
        assert_eq!([expands, shrinks], [before[0] + 1, before[1]]);
        wait_until("an idle client has no buffer", || {
            std::thread::sleep(Duration::from_millis(100));
            figures(&mut control)[1] > before[1]
        });
        before = figures(&mut control);
        assert_eq!(before, [expands, shrinks + 1]);
    }
}
