//! redis-py, the client library of most Python programs: big pipelines, publish and subscribe, transactions, iterators, streams.
//!
//! `scripts/redis-py` installs it, at the version written there; without it these tests fail. The tests themselves
//! are in `python/redis_py.py`.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use shardis_tests::node;
use shardis_tests::process::repository_root;

/// Longest time for a test.
const PATIENCE: Duration = Duration::from_secs(240);

/// The folder of the library.
pub(super) fn library() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let script = Command::new(repository_root().join("scripts/redis-py"))
            .stderr(Stdio::inherit())
            .output()
            .expect("scripts/redis-py can be run");
        assert!(
            script.status.success(),
            "scripts/redis-py could not install the library"
        );
        PathBuf::from(String::from_utf8_lossy(&script.stdout).trim())
    })
}

/// Runs one test of `python/redis_py.py` against servers of one shard and of four.
fn run(test: &str) {
    for shards in [1, 4] {
        let server = node::launch(shards).with(&["--unixsocket", "redis.sock"]).serve();
        let socket = server.directory().join("redis.sock");
        let mut script = Command::new("python3")
            .arg(repository_root().join("tests/python/redis_py.py"))
            .args([test, &server.port().to_string()])
            .arg(socket)
            .env("PYTHONPATH", library())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .spawn()
            .expect("python3 can be run");
        let start = Instant::now();
        let status = loop {
            if let Some(status) = script.try_wait().expect("the script is a child of this process") {
                break status;
            }
            if start.elapsed() > PATIENCE {
                script.kill().expect("the script is still there");
                panic!("{test} takes too long with {shards} shards");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{test} failed with {shards} shards");
    }
}

#[test]
fn big_pipelines() {
    run("big_pipelines");
}

#[test]
fn publish_and_subscribe() {
    run("pubsub");
}

#[test]
fn transactions() {
    run("transactions");
}

#[test]
fn iterators() {
    run("scans");
}

#[test]
fn streams() {
    run("streams");
}

#[test]
fn users() {
    run("users");
}
