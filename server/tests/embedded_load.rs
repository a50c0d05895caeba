//! Data that an embedded server begins with: a file that its builder names, or the one of its directory.

use std::fs;
use std::path::{Path, PathBuf};

use redis::Connection;
use shardis::Server;

/// A file of these records in a directory of its own.
fn file(directory: &Path, name: &str, records: &[u8]) -> PathBuf {
    let path = directory.join(name);
    let bytes = [b"REDIS0010", records, b"\xff\0\0\0\0\0\0\0\0"].concat();
    fs::write(&path, bytes).expect("a file");
    path
}

fn connect(server: &Server) -> Connection {
    let client = redis::Client::open(server.url()).expect("the URL is one that clients take");
    client.get_connection().expect("the server accepts connections")
}

fn get(server: &Server, key: &str) -> Option<String> {
    let value = redis::cmd("GET").arg(key).query(&mut connect(server));
    value.expect("a string or nothing")
}

#[test]
fn a_server_begins_with_the_data_of_a_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = file(directory.path(), "any.rdb", b"\xfe\x00\x00\x01k\x05value");
    let dump = file(directory.path(), "dump.rdb", b"\xfe\x00\x00\x01k\x05saved");
    for shards in [1, 3] {
        let builder = || Server::builder().shards(shards);
        let server = builder().load(&path).start().expect("a good file");
        assert_eq!(get(&server, "k").as_deref(), Some("value"));
        drop(server);
        let place = directory.path().display().to_string();
        let server = builder()
            .directive("dir", place.as_str())
            .start()
            .expect("a good file");
        assert_eq!(get(&server, "k").as_deref(), Some("saved"));
        drop(server);
        let server = builder()
            .directive("dir", place)
            .load(&path)
            .start()
            .expect("a good file");
        assert_eq!(get(&server, "k").as_deref(), Some("value"));
        // Nothing is loaded that nobody has asked for.
        assert_eq!(get(&builder().start().expect("no file"), "k"), None);
    }
    assert!(dump.exists());
}

#[test]
fn what_is_wrong_with_a_file_is_an_error_of_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("none.rdb");
    let error = Server::builder().load(&missing).start().expect_err("no file");
    assert!(error.to_string().contains("none.rdb"), "{error}");
    let path = file(
        directory.path(),
        "bad.rdb",
        b"\x00\x01k\x05value\x02\x01s\x02\x01m\x01m",
    );
    for shards in [1, 3] {
        let error = Server::builder()
            .shards(shards)
            .load(&path)
            .start()
            .expect_err("a bad file");
        let text = error.to_string();
        assert!(
            text.contains("bad.rdb") && text.contains("at offset 26") && text.contains("key 's'"),
            "{text}"
        );
    }
}
