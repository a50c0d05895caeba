//! Append-only files that a server begins with: commands run as they did, what is torn is left out whole, and what is damaged
//! stops the start.

use std::fs;
use std::path::{Path, PathBuf};

use redis::{Connection, FromRedisValue};
use shardis::{Builder, Server};

/// The bytes of commands, one a line.
fn commands(lines: &[&str]) -> Vec<u8> {
    lines
        .iter()
        .flat_map(|line| command(line).get_packed_command())
        .collect()
}

/// The command of a line.
fn command(line: &str) -> redis::Cmd {
    let mut words = line.split(' ');
    let mut command = redis::cmd(words.next().unwrap_or_default());
    for word in words {
        command.arg(word);
    }
    command
}

fn file(directory: &Path, bytes: &[u8]) -> PathBuf {
    let path = directory.join("appendonly.aof");
    fs::write(&path, bytes).expect("a file");
    path
}

fn connect(server: &Server) -> Connection {
    let client = redis::Client::open(server.url()).expect("the URL is one that clients take");
    client.get_connection().expect("the server accepts connections")
}

/// The reply to a command line.
fn ask<T: FromRedisValue>(connection: &mut Connection, line: &str) -> T {
    command(line)
        .query(connection)
        .unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn started(builder: Builder, directory: &Path, bytes: &[u8]) -> Server {
    let path = file(directory, bytes);
    let server = builder
        .load(&path)
        .start()
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(
        fs::read(&path).expect("the file") == bytes,
        "the file stays as it is"
    );
    server
}

#[test]
fn commands_of_a_file_run_as_they_did() {
    let directory = tempfile::tempdir().expect("a directory");
    let far = "9999999999999";
    let mut bytes = b"#TS:1700000000\r\n".to_vec();
    bytes.extend(commands(&[
        "SELECT 0",
        "SET a 1",
        "INCRBY a 41",
        "MSET b x c y d z",
        "RENAME b e",
        "RPUSH l 1 2 3",
        "LMOVE l m LEFT RIGHT",
        "MULTI",
        "HSET h f v",
        "SELECT 3",
        "SADD s x y",
        "EXEC",
        &format!("SET timed v PXAT {far}"),
        // It has expired since, but not when it was counted up.
        "SET counter 5 PXAT 1600000000000",
        "INCRBY counter 1",
        "PERSIST counter",
        "SET gone 5 PXAT 1600000000000",
        // Of no effect, whoever has written them there.
        "PING",
        "GET a",
        "CONFIG SET maxmemory 1",
        "SELECT 1",
        "ZADD z 1.5 m",
        "XADD x 5-1 f v",
        "XGROUP CREATE x g 0",
    ]));
    for shards in [1, 4] {
        let server = started(Server::builder().shards(shards), directory.path(), &bytes);
        let mut client = connect(&server);
        assert_eq!(ask::<String>(&mut client, "GET a"), "42");
        assert_eq!(ask::<Vec<String>>(&mut client, "MGET c d e"), ["y", "z", "x"]);
        assert_eq!(ask::<Vec<i64>>(&mut client, "LRANGE l 0 -1"), [2, 3]);
        assert_eq!(ask::<String>(&mut client, "HGET h f"), "v");
        ask::<()>(&mut client, "SELECT 3");
        assert_eq!(ask::<i64>(&mut client, "SCARD s"), 2);
        assert_eq!(ask::<String>(&mut client, "PEXPIRETIME timed"), far);
        assert_eq!(ask::<Option<String>>(&mut client, "GET gone"), None);
        assert_eq!(ask::<i64>(&mut client, "GET counter"), 6);
        ask::<()>(&mut client, "SELECT 1");
        assert_eq!(ask::<f64>(&mut client, "ZSCORE z m"), 1.5);
        assert_eq!(ask::<i64>(&mut client, "XLEN x"), 1);
        let info: String = ask(&mut client, "INFO everything");
        for line in [
            "maxmemory:0\r\n",
            "rdb_changes_since_last_save:0\r\n",
            "loading:0\r\n",
        ] {
            assert!(info.contains(line), "{line}: {info}");
        }
        assert!(!info.contains("cmdstat_incrby"), "they were no client's commands");
    }
}

/// Fields of hashes have not expired either when they were changed.
#[test]
fn fields_that_have_expired_since_are_changed_as_they_were() {
    let directory = tempfile::tempdir().expect("a directory");
    let bytes = commands(&[
        "HSET h f 5 other x",
        "HPEXPIREAT h 1600000000000 FIELDS 1 f",
        "HINCRBY h f 1",
        "HPERSIST h FIELDS 1 f",
        "HSET i f 5 other x",
        "HPEXPIREAT i 1600000000000 FIELDS 1 f",
    ]);
    for shards in [1, 3] {
        let server = started(Server::builder().shards(shards), directory.path(), &bytes);
        let mut client = connect(&server);
        assert_eq!(ask::<i64>(&mut client, "HGET h f"), 6);
        assert_eq!(ask::<Option<i64>>(&mut client, "HGET i f"), None);
    }
}

/// Times that count from the moment a command runs count from the load, as in Redis.
#[test]
fn relative_times_count_from_the_load() {
    let directory = tempfile::tempdir().expect("a directory");
    let bytes = commands(&["SETEX a 100 v", "SET b v", "PEXPIRE b 100000", "SET c v EX 100"]);
    let server = started(Server::builder().shards(2), directory.path(), &bytes);
    let mut client = connect(&server);
    for key in ["a", "b", "c"] {
        assert!(
            (90..=100).contains(&ask::<i64>(&mut client, &format!("TTL {key}"))),
            "{key}"
        );
    }
}

/// A snapshot with commands behind it, in one file: the old form of an append-only file.
#[test]
fn a_snapshot_may_stand_before_the_commands() {
    let directory = tempfile::tempdir().expect("a directory");
    let snapshot = [
        &b"REDIS0010\xfa\x08aof-base\xc0\x01\xfe\x00"[..],
        b"\x00\x01a\xc0\x05",
        b"\xfc\x00\x60\xbc\x87\x74\x01\x00\x00\x00\x01b\xc0\x07",
        b"\xff\0\0\0\0\0\0\0\0",
    ];
    let bytes = [
        snapshot.concat(),
        commands(&["SELECT 0", "INCR a", "INCR b", "PERSIST b"]),
    ]
    .concat();
    for shards in [1, 4] {
        let server = started(Server::builder().shards(shards), directory.path(), &bytes);
        let mut client = connect(&server);
        assert_eq!(ask::<Vec<i64>>(&mut client, "MGET a b"), [6, 8]);
    }
}

/// Wherever a file is cut, what is whole is loaded, and no part of a transaction.
#[test]
fn a_torn_end_is_left_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let whole = [
        (commands(&["SET a 1"]), "1", "0"),
        (commands(&["INCR a"]), "2", "0"),
        (commands(&["MULTI", "INCR a", "SET b 1", "EXEC"]), "3", "1"),
        (commands(&["INCR a"]), "4", "1"),
    ];
    let bytes: Vec<u8> = whole.iter().flat_map(|(bytes, ..)| bytes.clone()).collect();
    for len in 0..=bytes.len() {
        let (mut left, mut expected) = (len, ("0", "0"));
        for (bytes, a, b) in &whole {
            if left < bytes.len() {
                break;
            }
            left -= bytes.len();
            expected = (a, b);
        }
        let server = started(Server::builder().shards(2), directory.path(), &bytes[..len]);
        let mut client = connect(&server);
        let found = ["a", "b"].map(|key| ask::<Option<String>>(&mut client, &format!("GET {key}")));
        let found = found.map(|value| value.unwrap_or_else(|| "0".to_owned()));
        assert_eq!((found[0].as_str(), found[1].as_str()), expected, "{len} bytes");
    }
    let path = file(directory.path(), &bytes[..bytes.len() - 3]);
    let builder = Server::builder()
        .directive("aof-load-truncated", "no")
        .load(&path);
    let error = builder.start().expect_err("its end is torn").to_string();
    assert!(
        error.contains("Unexpected end of file") && error.contains("at offset 125"),
        "{error}"
    );
}

#[test]
fn damage_stops_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let good = commands(&["SET a 1", "SET b 2"]);
    for (behind, expected) in [
        (&b"*1\r\n$4\r\nPINGxx"[..], "Bad file format"),
        (b"SET c 3\r\n", "Bad file format"),
        (b"\0\0\0\0\0\0\0\0\0", "zero bytes"),
        (b"*2\r\n$6\r\nNOSUCH\r\n$1\r\na\r\n", "Unknown command 'NOSUCH'"),
        (b"*2\r\n$6\r\nSELECT\r\n$2\r\n16\r\n", "database 16"),
        (b"*2\r\n$3\r\nSET\r\n$1\r\na\r\n", "wrong number of arguments"),
    ] {
        for shards in [1, 3] {
            let path = file(directory.path(), &[&good, behind].concat());
            let error = Server::builder()
                .shards(shards)
                .load(&path)
                .start()
                .expect_err("damage");
            let error = error.to_string();
            assert!(
                error.contains(expected) && error.contains("appendonly.aof"),
                "{error}"
            );
            assert!(error.contains("at offset 54"), "{error}");
        }
    }
    // An end that is short enough may be cut off.
    let bytes = [&good[..], &[0; 100]].concat();
    for (limit, is_loaded) in [("99", false), ("100", true)] {
        let path = file(directory.path(), &bytes);
        let builder = Server::builder().directive("aof-load-corrupt-tail-max-size", limit);
        assert_eq!(builder.load(&path).start().is_ok(), is_loaded, "{limit}");
    }
}
