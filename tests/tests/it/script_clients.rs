//! Libraries that work by scripts: locks, rate limiters and queues of Python and Node.js, on servers of one shard and of four.
//!
//! `scripts/script-clients` installs them, at the versions written there; without them these tests fail. The tests themselves are in
//! `python/script_clients.py` and `node/script_clients.js`. BullMQ and others make names of keys from data, so that no router can
//! know them before a script runs.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use shardis_tests::node;
use shardis_tests::process::repository_root;

/// Longest time for a test.
const PATIENCE: Duration = Duration::from_secs(240);

/// The folder of the libraries of a language.
fn libraries(language: &str) -> PathBuf {
    let script = Command::new(repository_root().join("scripts/script-clients"))
        .arg(language)
        .stderr(Stdio::inherit())
        .output()
        .expect("scripts/script-clients can be run");
    assert!(
        script.status.success(),
        "scripts/script-clients could not install the libraries"
    );
    PathBuf::from(String::from_utf8_lossy(&script.stdout).trim())
}

/// Runs one test against servers of one shard and of four.
fn run(program: &str, file: &str, test: &str) {
    let (language, variable) = match program {
        "node" => ("node", "NODE_PATH"),
        _ => ("python", "PYTHONPATH"),
    };
    let folder = libraries(language);
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut script = Command::new(program)
            .arg(repository_root().join(file))
            .args([test, &server.port().to_string()])
            .env(variable, &folder)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .spawn()
            .expect("the program can be run");
        let start = Instant::now();
        let status = loop {
            if let Some(status) = script.try_wait().expect("the script is a child of this process") {
                break status;
            }
            if start.elapsed() > PATIENCE {
                script.kill().expect("it can be killed");
                script.wait().expect("it ends");
                panic!("{test} did not end with {shards} shards: {}", server.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        assert!(
            status.success(),
            "{test} failed with {shards} shards: {}",
            server.log()
        );
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
}

fn python(test: &str) {
    run("python3", "tests/python/script_clients.py", test);
}

fn nodejs(test: &str) {
    run("node", "tests/node/script_clients.js", test);
}

#[test]
fn locks_of_redis_py() {
    python("locks");
}

#[test]
fn registered_scripts_of_redis_py() {
    python("registered_scripts");
}

#[test]
fn rate_limits_of_limits() {
    python("rate_limits");
}

#[test]
fn locks_of_python_redis_lock() {
    python("python_redis_lock");
}

#[test]
fn workers_of_celery() {
    python("celery");
}

#[test]
fn queues_of_bullmq() {
    nodejs("queues");
}

#[test]
fn locks_of_redlock() {
    nodejs("locks");
}

#[test]
fn rate_limits_of_rate_limiter_flexible() {
    nodejs("limits");
}
