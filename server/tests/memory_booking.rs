//! Memory is booked to the partition that stores the value: whatever commands over four shards do with keys and big
//! arguments, a partition without keys has as much memory as one that never had any, and all of them together have
//! the memory that the allocator has counted.
#![cfg(debug_assertions)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use redis::Connection;
use shardis::Server;
use shardis_storage::memory;

/// Command lines. `K` stands for a key, `V` for a value, `B` for a value that is often large, `N` for a small number.
const TEMPLATES: &[&str] = &[
    "SET K B",
    "SET K B",
    "SET K B PX 20",
    "GETSET K B",
    "SETNX K B",
    "SETEX K 1 B",
    "APPEND K B",
    "SETRANGE K 100 B",
    "SETBIT K 70000 1",
    "GET K",
    "GETDEL K",
    "GETEX K PX 15",
    "INCR K",
    "INCRBYFLOAT K 1.5",
    "MSET K B K V K B",
    "MSETNX K V K B",
    "MGET K K K",
    "DEL K",
    "DEL K K",
    "UNLINK K K K",
    "RENAME K K",
    "RENAME K K",
    "RENAMENX K K",
    "COPY K K",
    "COPY K K REPLACE",
    "COPY K K DB 1 REPLACE",
    "MOVE K 1",
    "PEXPIRE K 5",
    "PERSIST K",
    "EXPIRE K 100",
    "BITOP OR K K K",
    "BITOP NOT K K",
    "BITFIELD K SET u8 900 7",
    "LCS K K LEN",
    "STRLEN K",
    "LPUSH K B V B",
    "RPUSH K V V V",
    "LPUSHX K B",
    "LINSERT K BEFORE V B",
    "LSET K 0 B",
    "LREM K 0 V",
    "LTRIM K 0 4",
    "LPOP K",
    "RPOP K 3",
    "LMOVE K K LEFT RIGHT",
    "RPOPLPUSH K K",
    "LMPOP 2 K K LEFT COUNT 2",
    "LRANGE K 0 -1",
    "HSET K V B V V V B",
    "HSETNX K V B",
    "HINCRBY K V 3",
    "HDEL K V V",
    "HGETALL K",
    "HPEXPIRE K 5 FIELDS 1 V",
    "HGETEX K PX 5 FIELDS 1 V",
    "HGETDEL K FIELDS 1 V",
    "HSETEX K PX 5 FIELDS 1 V B",
    "SADD K V V V B",
    "SADD K N N N",
    "SREM K V N",
    "SMOVE K K V",
    "SMOVE K K N",
    "SPOP K",
    "SPOP K 2",
    "SUNIONSTORE K K K",
    "SINTERSTORE K K K",
    "SDIFFSTORE K K K",
    "SUNION K K K",
    "SRANDMEMBER K 3",
    "ZADD K N V N V N B",
    "ZADD K N V",
    "ZREM K V",
    "ZINCRBY K 2 V",
    "ZPOPMIN K",
    "ZUNIONSTORE K 2 K K",
    "ZINTERSTORE K 2 K K",
    "ZDIFFSTORE K 2 K K",
    "ZRANGESTORE K K 0 3",
    "ZREMRANGEBYRANK K 0 1",
    "ZMPOP 2 K K MIN",
    "GEOADD K 13.3 38.1 V 15.1 37.5 V",
    "GEOSEARCHSTORE K K FROMLONLAT 15 37 BYRADIUS 200 km",
    "PFADD K V V",
    "PFMERGE K K K",
    "PFCOUNT K K",
    "SORT K ALPHA STORE K",
    "SORT K BY nosort STORE K",
    "SORT K",
    "XADD K * V B",
    "XADD K MAXLEN 5 * V V",
    "XGROUP CREATE K g 0 MKSTREAM",
    "XREADGROUP GROUP g c STREAMS K >",
    "XTRIM K MAXLEN 2",
    "XACK K g 1-1",
    "XDEL K 1-1",
    "XGROUP DESTROY K g",
    "DBSIZE",
    "RANDOMKEY",
    "KEYS *",
    "SCAN 0",
    "TOUCH K K",
    "EXISTS K K",
    "OBJECT ENCODING K",
    "MEMORY USAGE K",
    "SELECT 1",
    "SELECT 0",
    "SWAPDB 0 1",
    "MULTI",
    "EXEC",
    "EXEC",
    "WATCH K K",
    "UNWATCH",
];

/// Command lines for clients that wait.
const BLOCKING: &[&str] = &[
    "BLPOP K K 0.02",
    "BLMOVE K K LEFT LEFT 0.02",
    "BRPOPLPUSH K K 0.02",
    "BLMPOP 0.02 2 K K RIGHT COUNT 2",
    "BZPOPMIN K K 0.02",
    "BZMPOP 0.02 2 K K MAX",
    "XREAD BLOCK 20 STREAMS K $",
];

fn words(template: &str, rng: &mut SmallRng) -> Vec<Vec<u8>> {
    let word = |word: &str| match word {
        "K" => format!("key:{}", rng.random_range(0..14)).into_bytes(),
        "V" => format!("v{}", rng.random_range(0..9)).into_bytes(),
        "N" => rng.random_range(0..50).to_string().into_bytes(),
        "B" => {
            let len = *[3, 40, 300, 5_000, 70_000, 140_000]
                .choose(rng)
                .expect("the server answers as it does in other tests");
            vec![b'a' + rng.random_range(0..3u8); len]
        }
        other => other.as_bytes().to_vec(),
    };
    template.split(' ').map(word).collect()
}

/// Runs one command; its reply does not matter here.
fn run(connection: &mut Connection, words: &[Vec<u8>]) {
    let mut command = redis::Cmd::new();
    words.iter().for_each(|word| {
        command.arg(word);
    });
    match command.query::<redis::Value>(connection) {
        Ok(_) => {}
        Err(error) => {
            let text = error.to_string();
            assert!(
                !text.contains("panicked") && !text.contains("Internal"),
                "{words:?}: {text}"
            );
            assert!(!error.is_connection_dropped(), "{text}");
        }
    }
}

fn say(connection: &mut Connection, line: &str) {
    run(
        connection,
        &line
            .split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect::<Vec<_>>(),
    );
}

/// Memory booked to each partition, bytes.
fn booked(connection: &mut Connection) -> Vec<i64> {
    let text: String = redis::cmd("INFO")
        .arg("shards")
        .query(connection)
        .expect("the server answers as it does in other tests");
    let of_line = |line: &str| {
        let (_, rest) = line.split_once("memory=")?;
        rest.split(',').next()?.trim().parse().ok()
    };
    text.lines().filter_map(of_line).collect()
}

fn figure(connection: &mut Connection, name: &str) -> u64 {
    let text: String = redis::cmd("INFO")
        .arg("everything")
        .query(connection)
        .expect("the server answers as it does in other tests");
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .expect("the server answers as it does in other tests");
    line[name.len() + 1..]
        .trim()
        .parse()
        .expect("the server answers as it does in other tests")
}

fn connect(server: &Server) -> Connection {
    let client = redis::Client::open(server.url()).expect("the server answers as it does in other tests");
    client
        .get_connection()
        .expect("the server answers as it does in other tests")
}

/// Waits until nothing waits to be freed, and the loops have published the memory of their partitions.
fn come_to_rest(connection: &mut Connection) {
    while figure(connection, "lazyfree_pending_objects") > 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(400));
}

/// Compares the memory booked with the allocator's count since the start.
fn compare(connection: &mut Connection, elsewhere: i64) -> Vec<i64> {
    come_to_rest(connection);
    let booked = booked(connection);
    let (sum, counted) = (booked.iter().sum::<i64>(), memory::process_balance() - elsewhere);
    assert_eq!(sum, counted, "{booked:?}");
    booked
}

fn run_randomly(server: &Server, seed: u64, count: usize, stop: &AtomicBool) {
    let (mut connection, mut rng) = (connect(server), SmallRng::seed_from_u64(seed));
    for _ in 0..count {
        let template = TEMPLATES
            .choose(&mut rng)
            .expect("the server answers as it does in other tests");
        run(&mut connection, &words(template, &mut rng));
    }
    say(&mut connection, "EXEC");
    stop.store(true, Ordering::Relaxed);
}

fn wait_randomly(server: &Server, seed: u64, stop: &AtomicBool) {
    let (mut connection, mut rng) = (connect(server), SmallRng::seed_from_u64(seed));
    while !stop.load(Ordering::Relaxed) {
        let template = BLOCKING
            .choose(&mut rng)
            .expect("the server answers as it does in other tests");
        run(&mut connection, &words(template, &mut rng));
    }
}

#[test]
fn what_is_booked_is_what_the_allocator_counted() {
    let seed = u64::from(rand::random::<u32>());
    println!("seed {seed}");
    let elsewhere = memory::process_balance();
    let server = Server::builder()
        .shards(4)
        .start()
        .expect("the server answers as it does in other tests");
    let mut connection = connect(&server);
    let empty = compare(&mut connection, elsewhere);
    assert_eq!(empty.len(), 4);

    // Arguments that arrive in buffers of their own and are refused.
    say(&mut connection, "SET string v");
    let large = vec![b'x'; 200_000];
    for line in [
        "LPUSH string",
        "APPEND hash",
        "HSET string f",
        "SETRANGE string 1",
    ] {
        let mut words: Vec<_> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        words.push(large.clone());
        run(&mut connection, &words);
    }
    compare(&mut connection, elsewhere);

    for round in 0..2u64 {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| run_randomly(&server, seed ^ round, 4000, &stop));
            scope.spawn(|| wait_randomly(&server, seed + 2, &stop));
            scope.spawn(|| wait_randomly(&server, seed + 3, &stop));
        });
        compare(&mut connection, elsewhere);
        // Once more with as little memory as makes keys go.
        say(
            &mut connection,
            "CONFIG SET maxmemory 3mb maxmemory-policy allkeys-random",
        );
    }
    say(&mut connection, "CONFIG SET maxmemory 0");

    let keys: Vec<Vec<u8>> = redis::cmd("KEYS")
        .arg("*")
        .query(&mut connection)
        .expect("the server answers as it does in other tests");
    for key in keys {
        run(&mut connection, &[b"DEL".to_vec(), key]);
    }
    say(&mut connection, "SELECT 1");
    say(&mut connection, "FLUSHDB ASYNC");

    assert_eq!(
        compare(&mut connection, elsewhere),
        empty,
        "nothing is left, and nothing is booked"
    );
}
