//! `scripts/create-cluster`: a cluster in one command, which keeps its data when it is stopped.

use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use shardis_tests::node;
use shardis_tests::process::{BUS_OFFSET, cluster_port, repository_root};

/// Number of nodes.
const NODES: u16 = 6;

/// The script with a folder of its own, cleaned up when it is dropped.
struct Script {
    folder: TempDir,
    first_port: u16,
}

impl Script {
    fn new() -> Script {
        let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        let are_free =
            |first: &u16| (*first..first + NODES).all(|port| is_free(port) && is_free(port + BUS_OFFSET));
        let first_port = (0..1000).map(|_| cluster_port()).find(are_free);
        Script {
            folder: TempDir::new().expect("a temporary directory"),
            first_port: first_port.expect("neighbouring ports that are free"),
        }
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(repository_root().join("scripts/create-cluster"))
            .args(words)
            .arg("-d")
            .arg(self.folder.path())
            .env("SHARDIS_SERVER", node::binary())
            .stdin(Stdio::null())
            .output()
            .expect("the script can be run")
    }

    /// Runs a command, which must succeed; returns what it printed.
    fn succeed(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {text}{errors}");
        text
    }

    /// Runs a command, which must fail; returns its complaint.
    fn complain(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(!output.status.success(), "{words:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn cli(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-c", "-p", &self.first_port.to_string()])
            .args(words)
            .output()
            .expect("redis-cli can be run");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.run(&["clean"]);
    }
}

#[test]
fn a_cluster_in_one_command() {
    let script = Script::new();
    assert!(script.complain(&["status"]).contains("no cluster in"));
    let port = script.first_port.to_string();
    script.succeed(&[
        "create", "-n", "6", "-r", "1", "-s", "2", "-p", &port, "-t", "5000",
    ]);
    let status = script.succeed(&["status"]);
    for role in ["primary", "replica"] {
        let lines = status.lines().filter(|line| line.contains(role));
        assert_eq!(lines.count(), 3, "{status}");
    }
    assert_eq!(script.cli(&["set", "key", "value"]), "OK");
    assert!(script.complain(&["create"]).contains("a cluster already"));
    script.succeed(&["restart"]);
    let status = || script.run(&["status"]).status.success();
    shardis_tests::wait::wait_until("it is whole again", status);
    assert_eq!(script.cli(&["get", "key"]), "value");
    script.succeed(&["stop"]);
    assert!(script.complain(&["status"]).contains("not whole"));
    script.succeed(&["clean"]);
    assert_eq!(
        std::fs::read_dir(script.folder.path()).map_or(0, Iterator::count),
        0
    );
}
