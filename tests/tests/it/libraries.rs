//! Function libraries in files: what redis-server saves, shardis loads, runs and saves again, and the other way round.

use std::fs;
use std::path::Path;
use std::time::Duration;

use shardis_tests::node;
use shardis_tests::process::Launch;
use shardis_tests::redis;
use shardis_tests::wait::wait_until;
use tempfile::TempDir;

const SOURCE: &str = "#!lua name=mine\nredis.register_function('two', function() return 2 end)";

fn in_directory(launch: Launch, directory: &Path, options: &[&str]) -> Launch {
    launch
        .with(&[
            "--enable-debug-command",
            "yes",
            "--dir",
            &directory.display().to_string(),
        ])
        .with(options)
}

/// Has a real server load what is in a directory, and run the function.
fn check(directory: &Path, options: &[&str]) {
    let server = in_directory(redis::launch(), directory, options).serve();
    let mut client = server.connect();
    assert_eq!(client.line("FCALL two 0").integer(), Some(2), "{}", server.log());
    assert_eq!(client.line("GET a").text(), "1");
}

#[test]
fn libraries_pass_from_one_snapshot_file_to_the_next() {
    let directory = TempDir::new().expect("a directory");
    let theirs = in_directory(redis::launch(), directory.path(), &[]).serve();
    let mut client = theirs.connect();
    assert_eq!(client.call(&["FUNCTION", "LOAD", SOURCE]).text(), "mine");
    client.line("SET a 1");
    client.line("SAVE");
    drop(theirs);
    for shards in [1, 3] {
        for save in ["SAVE", "DEBUG RELOAD"] {
            let server = in_directory(node::launch(shards), directory.path(), &[]).serve();
            let mut client = server.connect();
            assert_eq!(client.line(save).text(), "OK");
            assert_eq!(client.line("FCALL two 0").integer(), Some(2));
            drop(server);
            check(directory.path(), &[]);
        }
    }
}

#[test]
fn libraries_stay_in_append_only_files() {
    let directory = TempDir::new().expect("a directory");
    let options = ["--appendonly", "yes"];
    let mut theirs = in_directory(redis::launch(), directory.path(), &options).serve();
    let mut client = theirs.connect();
    // One in the increment that is replaced by another, and one that goes.
    for source in [
        "#!lua name=mine\nredis.register_function('two', function() return 3 end)",
        "#!lua name=gone\nredis.register_function('three', function() return 3 end)",
    ] {
        client.call(&["FUNCTION", "LOAD", source]);
    }
    client.call(&["FUNCTION", "LOAD", "REPLACE", SOURCE]);
    client.line("FUNCTION DELETE gone");
    client.line("SET a 1");
    theirs.signal(15);
    assert!(theirs.wait(Duration::from_secs(30)).is_some(), "it stops");
    for (shards, preamble) in [(1, "yes"), (3, "no"), (2, "no"), (2, "yes")] {
        let server = in_directory(node::launch(shards), directory.path(), &options).serve();
        let mut client = server.connect();
        client.line(&format!("CONFIG SET aof-use-rdb-preamble {preamble}"));
        assert!(!client.line("BGREWRITEAOF").is_error());
        wait_until("the rewrite", || {
            server
                .log()
                .contains("Background AOF rewrite finished successfully")
        });
        drop(server);
        check(directory.path(), &options);
        let manifest = fs::read_to_string(directory.path().join("appendonlydir/appendonly.aof.manifest"));
        assert!(manifest.expect("a manifest").contains(if preamble == "yes" {
            ".base.rdb"
        } else {
            ".base.aof"
        }));
    }
}
