//! redis-cli as a replica: it shows the stream in order, takes snapshots that a real server loads, and goes away at any moment.

use std::time::Duration;

use shardis_tests::process::{Finished, Launch};
use shardis_tests::redis::tool;
use shardis_tests::replication::equality::await_equal;
use shardis_tests::replication::member::Kind::{Redis, Shardis};
use shardis_tests::replication::member::{Member, PATIENCE};
use shardis_tests::replication::seeder::add_bystanders;
use shardis_tests::wait::retry;

/// Keys of a snapshot.
const KEYS: usize = 2000;

fn cli(member: &Member, options: &[&str]) -> Launch {
    Launch::new(&tool("redis-cli"))
        .with(&["-p", &member.port().to_string()])
        .with(options)
}

fn succeeded(finished: Finished) -> String {
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    finished.text()
}

#[test]
fn cli_shows_the_stream() {
    for shards in [1, 4] {
        let primary = Member::start(Shardis(shards), &["repl-ping-replica-period 1"]);
        add_bystanders(&primary, KEYS, 50);
        let listening = cli(&primary, &["--replica"]).spawn(0);
        primary.await_field("connected_slaves", "1");
        let mut client = primary.client();
        for number in 0..50 {
            client.call(&["SET", &format!("key:{number}"), "value of the stream"]);
        }
        let sees_all = || match listening.log() {
            text if text.contains("key:49") && text.contains("PING") => Ok(text),
            text => Err(format!("{text}\n{}", primary.tail())),
        };
        let text = retry(PATIENCE, sees_all).unwrap_or_else(|reason| panic!("{reason}"));
        let places: Vec<Option<usize>> = (0..50)
            .map(|number| text.find(&format!("key:{number}\"")))
            .collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{text}");
    }
}

#[test]
fn cli_takes_a_snapshot_that_a_real_server_loads() {
    for shards in [1, 4] {
        let primary = Member::start(Shardis(shards), &[]);
        add_bystanders(&primary, KEYS, 50);
        let mut other = Member::start(Redis, &[]);
        other.kill();
        let file = other.data().join("dump.rdb").display().to_string();
        succeeded(cli(&primary, &["--rdb", &file]).finish(Duration::from_secs(60)));
        other.start_again();
        let keys = |member: &Member| member.client().line("DEBUG DIGEST").text();
        assert_eq!(keys(&primary), keys(&other));
        // A snapshot makes no replica.
        primary.await_field("connected_slaves", "0");
    }
}

#[test]
fn a_tool_that_goes_away_disturbs_nobody() {
    let primary = Member::start(Shardis(4), &[]);
    let replica = Member::start(Redis, &[]);
    add_bystanders(&primary, KEYS * 10, 100);
    for _ in 0..5 {
        let listening = cli(&primary, &["--replica"]).spawn(0);
        primary.await_field("connected_slaves", "1");
        drop(listening);
        primary.await_field("connected_slaves", "0");
    }
    replica.follow(primary.port());
    replica.await_link();
    await_equal(&[&primary, &replica]);
}
