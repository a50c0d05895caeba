//! One run over arbitrary bytes taken for an append-only file: they stop the start with an error, or a node begins with them that
//! answers whatever it is asked about their keys.
//!
//! The same body runs under the fuzzer and, over seeded data, as a plain test of the server.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use shardis::Server;

/// The keys that are asked about.
pub(crate) const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Command lines about a key `K`: they read it in every way, change it, and take it apart.
const LINES: &[&str] = &[
    "TYPE K",
    "OBJECT ENCODING K",
    "DUMP K",
    "PTTL K",
    "MEMORY USAGE K",
    "GETRANGE K 0 -1",
    "BITCOUNT K",
    "LRANGE K 0 -1",
    "LINDEX K -1",
    "SMEMBERS K",
    "SRANDMEMBER K 3",
    "ZRANGE K 0 -1 REV WITHSCORES",
    "ZRANGEBYSCORE K -inf inf",
    "HGETALL K",
    "HSCAN K 0",
    "SSCAN K 0",
    "ZSCAN K 0",
    "XRANGE K - +",
    "XREVRANGE K + -",
    "XINFO STREAM K FULL",
    "PFCOUNT K",
    "COPY K f REPLACE",
    "APPEND K x",
    "SETRANGE K 5 y",
    "PFADD K x",
    "RPUSH K 1 x",
    "LINSERT K BEFORE 1 z",
    "LREM K 0 x",
    "LPOP K 2",
    "SADD K 1 x",
    "SREM K 1",
    "SPOP K 1",
    "ZADD K 1 x 2 y",
    "ZINCRBY K 1 x",
    "ZPOPMIN K 1",
    "HSET K f v 1 2",
    "HPEXPIRE K 5 FIELDS 1 f",
    "HDEL K 1",
    "XADD K 99999999999999-1 f v",
    "XDEL K 1-1",
    "XTRIM K MAXLEN 1",
    "EXPIRE K 100",
    "PERSIST K",
    "RENAME K f",
    "DEL f K",
];

/// Takes `data` for a file: a byte that says how it is loaded, then the file.
pub(crate) fn check(directory: &Path, data: &[u8]) {
    let Some((&plan, bytes)) = data.split_first() else {
        return;
    };
    let path = directory.join("fuzzed.aof");
    fs::write(&path, bytes).expect("a temporary file");
    let server = Server::builder()
        .shards(if plan & 1 == 0 { 1 } else { 3 })
        .directive("aof-load-truncated", if plan & 2 == 0 { "yes" } else { "no" })
        .directive(
            "hash-max-listpack-entries",
            if plan & 4 == 0 { "128" } else { "1" },
        )
        .manual_clock(Duration::from_secs(1_700_000_000))
        .load(&path)
        .start();
    match server {
        Ok(server) => ask(&server),
        Err(error) => assert!(!error.to_string().contains("panicked"), "{error}"),
    }
    assert!(
        fs::read(&path).expect("the file") == bytes,
        "the file stays as it is"
    );
}

/// Sends all commands, and reads until the last of the replies.
fn ask(server: &Server) {
    let mut socket = TcpStream::connect(server.address()).expect("it accepts connections");
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    let mut requests = String::new();
    for db in ["0", "1"] {
        requests += &format!("SELECT {db}\r\n");
        for key in KEYS {
            for line in LINES {
                requests += &line
                    .replace('K', "\u{1}")
                    .replace(" \u{1}", &format!(" {key}"))
                    .replace('\u{1}', "K");
                requests += "\r\n";
            }
        }
    }
    requests += "ECHO the-very-last-reply\r\n";
    socket.write_all(requests.as_bytes()).expect("sent");
    let (mut replies, mut piece) = (Vec::new(), [0; 1 << 16]);
    while !replies.ends_with(b"the-very-last-reply\r\n") {
        let count = match socket.read(&mut piece) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            count => count.expect("it answers"),
        };
        assert!(count > 0, "it closes the connection");
        replies.extend_from_slice(&piece[..count]);
    }
    let text = String::from_utf8_lossy(&replies);
    assert!(!text.contains("internal error"), "a command panicked");
}
