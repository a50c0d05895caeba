//! All commands of a transaction have one time, as in Redis since 7.2.

use shardis_tests::client::Client;
use shardis_tests::process::Process;
use shardis_tests::reply::Reply;
use shardis_tests::{node, redis};

/// Replies of a transaction with these commands.
fn transaction(client: &mut Client, lines: &[&str]) -> Vec<Reply> {
    assert_eq!(client.line("MULTI").text(), "OK");
    for line in lines {
        assert_eq!(client.line(line).text(), "QUEUED", "{line}");
    }
    client.line("EXEC").items().to_vec()
}

/// The servers that must agree: shardis with one shard and with four, and Valkey.
fn servers() -> Vec<Process> {
    let launch = |shards| {
        node::launch(shards)
            .with(&["--enable-debug-command", "yes"])
            .serve()
    };
    vec![
        launch(1),
        launch(4),
        redis::launch_peer()
            .with(&["--enable-debug-command", "yes"])
            .serve(),
    ]
}

#[test]
fn time_stands_still_within_a_transaction() {
    for server in servers() {
        let mut client = server.connect();
        let lines = [
            "TIME",
            "SET a v PX 100",
            "XADD s * f v",
            "DEBUG SLEEP 0.2",
            "TIME",
            "PTTL a",
            "GET a",
            "SET b v PX 60000",
            "PEXPIRETIME b",
            "XADD s * f v",
        ];
        let replies = transaction(&mut client, &lines);
        assert_eq!(replies[0], replies[4], "{replies:?}");
        assert_eq!(
            (replies[5].integer(), replies[6].text()),
            (Some(100), "v".to_owned())
        );
        let [seconds, micros] = [0, 1].map(|index| {
            let text = replies[0].items()[index].text();
            text.parse::<i64>().expect("a number")
        });
        let now_ms = seconds * 1000 + micros / 1000;
        assert_eq!(replies[8].integer(), Some(now_ms + 60_000));
        let id = replies[2].text();
        assert_eq!(id, format!("{now_ms}-0"));
        assert_eq!(replies[9].text(), format!("{now_ms}-1"));
        // Behind the transaction time goes on.
        assert!(client.line("GET a").is_null());
        assert!(client.line("PTTL b").integer() <= Some(60_000 - 200));
        assert_ne!(client.line("TIME"), replies[0]);
    }
}
