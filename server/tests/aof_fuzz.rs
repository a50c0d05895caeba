//! The body of the fuzz target `aof` over seeded data: what the fuzzer checks must hold here.

#[path = "../../tests/fuzz/src/aof.rs"]
mod aof;

use proptest::collection::vec;
use proptest::prelude::*;

/// Commands as a file has them, `K` standing for a key, and some that it has not.
const LINES: &[&str] = &[
    "SET K v",
    "SET K 5 PXAT 1600000000000",
    "SET K v PXAT 9999999999999",
    "INCRBY K 3",
    "APPEND K xy",
    "SETRANGE K 70 z",
    "SETBIT K 100 1",
    "MSET K 1 K 2",
    "RENAME K K",
    "COPY K K REPLACE",
    "DEL K K",
    "UNLINK K",
    "PEXPIREAT K 9999999999999",
    "PERSIST K",
    "MOVE K 1",
    "RPUSH K 1 2 x",
    "LPUSH K 9",
    "LMOVE K K LEFT RIGHT",
    "LTRIM K 1 2",
    "LPOP K",
    "LSET K 0 y",
    "SADD K 1 2 3",
    "SADD K x y",
    "SREM K 1",
    "SMOVE K K x",
    "SUNIONSTORE K K K",
    "ZADD K 1 x 2.5 y",
    "ZREM K x",
    "ZUNIONSTORE K 2 K K",
    "HSET K f v g 5",
    "HINCRBY K g 1",
    "HDEL K f",
    "HPEXPIREAT K 1600000000000 FIELDS 1 f",
    "XADD K 1-1 f v",
    "XADD K 2-0 f w",
    "XGROUP CREATE K g 0",
    "XGROUP CREATECONSUMER K g c",
    "XCLAIM K g c 0 1-1 TIME 1600000000000 RETRYCOUNT 1 FORCE JUSTID",
    "XACK K g 1-1",
    "XDEL K 1-1",
    "XTRIM K MAXLEN 1",
    "XSETID K 5-0",
    "PFADD K a b",
    "SORT K ALPHA STORE K",
    "BITOP OR K K K",
    "SELECT 1",
    "SELECT 0",
    "SWAPDB 0 1",
    "FLUSHDB",
    "FLUSHALL",
    "MULTI",
    "EXEC",
    "EXEC",
    "DISCARD",
    "PING",
    "GET K",
    "KEYS *",
    "CLIENT LIST",
    "CONFIG SET maxmemory 1",
    "SHUTDOWN NOSAVE",
    "DEBUG SLEEP 9",
    "SUBSCRIBE K",
    "BLPOP K 0",
    "SPOP K 1",
    "WATCH K",
    "SCRIPT LOAD x",
    "SAVE",
    "MONITOR",
    "QUIT",
    "RESET",
    "HELLO 3",
    "WAIT 1 0",
    "SCAN 0",
    "NOSUCH K",
    "SET K",
    "SELECT 99",
];

/// The bytes of a command, with keys chosen.
fn command() -> impl Strategy<Value = Vec<u8>> {
    let keys = vec(proptest::sample::select(&aof::KEYS[..]), 3);
    (proptest::sample::select(LINES), keys).prop_map(|(line, keys)| {
        let mut keys = keys.into_iter().cycle();
        let mut command = redis::Cmd::new();
        for word in line.split(' ') {
            command.arg(if word == "K" { keys.next() } else { Some(word) });
        }
        command.get_packed_command()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn files_are_refused_or_loaded(
        plan: u8,
        commands in vec(command(), 0..40),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut data = vec![plan];
        data.extend(commands.concat());
        for (at, byte) in damage {
            let at = at.index(data.len());
            data[at] = byte;
        }
        if let Some(cut) = cut {
            data.truncate(1 + cut.index(data.len()));
        }
        let directory = tempfile::tempdir().expect("a directory");
        aof::check(directory.path(), &data);
    }
}
