//! Accounting for commands that wait: monitors, slow log and counters show each of them once.

use std::thread;
use std::time::Duration;

use shardis_tests::client::Client;
use shardis_tests::node;
use shardis_tests::process::Process;
use shardis_tests::wait::await_blocked;

/// A connection whose command waits.
fn wait(server: &Process, line: &str) -> Client {
    let mut client = server.connect();
    client.send(&line.split(' ').collect::<Vec<_>>()).expect("sent");
    await_blocked(&mut server.connect(), 1);
    client
}

/// The lines of BLPOP and XREAD that a monitor has seen.
fn seen(monitor: &mut Client) -> Vec<String> {
    let (replies, _) = monitor.rest(Duration::from_millis(300));
    let lines = replies.iter().map(shardis_tests::reply::Reply::text);
    lines
        .filter(|line| line.contains("\"BLPOP\"") || line.contains("\"XREAD\""))
        .filter_map(|line| Some(line.split_once("] ")?.1.to_owned()))
        .collect()
}

#[test]
fn monitors_see_a_command_that_waits_once_and_when_it_comes() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut monitor = server.connect();
        monitor.line("MONITOR");
        let mut waiting = wait(&server, "BLPOP a b 0");
        assert_eq!(seen(&mut monitor), ["\"BLPOP\" \"a\" \"b\" \"0\""]);
        server.connect().line("RPUSH b x");
        waiting.read().expect("served");
        let mut waiting = wait(&server, "XREAD BLOCK 0 STREAMS s $");
        server.connect().line("XADD s 1-1 f v");
        waiting.read().expect("served");
        let once = ["\"XREAD\" \"BLOCK\" \"0\" \"STREAMS\" \"s\" \"$\""];
        assert_eq!(seen(&mut monitor), once);
        assert!(server.connect().line("BLPOP a 0.01").is_null());
        drop(wait(&server, "BLPOP b 0"));
        assert_eq!(
            seen(&mut monitor),
            ["\"BLPOP\" \"a\" \"0.01\"", "\"BLPOP\" \"b\" \"0\""]
        );
    }
}

#[test]
fn the_time_that_a_command_waits_is_not_that_which_it_takes() {
    for shards in [1, 4] {
        let server = node::launch(shards)
            .with(&["--slowlog-log-slower-than", "0"])
            .serve();
        let mut client = server.connect();
        let mut waiting = wait(&server, "XREAD BLOCK 0 STREAMS s $");
        let waits = client.line("INFO commandstats").text();
        assert!(
            !waits.contains("cmdstat_xread"),
            "it is counted when it is done: {waits}"
        );
        thread::sleep(Duration::from_millis(300));
        client.line("XADD s 1-1 f v");
        waiting.read().expect("served");
        let text = client.line("INFO commandstats").text();
        let figures = text
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_xread:calls=1,usec="))
            .unwrap_or_else(|| panic!("one call: {text}"));
        let usec: u64 = figures
            .split(',')
            .next()
            .and_then(|usec| usec.parse().ok())
            .expect("a number");
        assert!(usec < 200_000, "{figures}");
        let entries = client.line("SLOWLOG GET 100");
        let of_xread: Vec<_> = entries
            .items()
            .iter()
            .map(|entry| entry.items()[3].to_string())
            .filter(|words| words.contains("XREAD"))
            .collect();
        assert_eq!(of_xread, [r#"["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]"#]);
    }
}
