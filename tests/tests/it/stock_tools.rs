//! redis-cli and redis-benchmark, as they are installed, against one shard and four.

use std::time::Duration;

use shardis_tests::client::{Client, encode};
use shardis_tests::process::{Finished, Launch, Process};
use shardis_tests::{node, redis};

/// Longer than any of these runs takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a tool to its end.
fn tool(name: &str, server: &Process, options: &[&str]) -> Launch {
    Launch::new(&redis::tool(name))
        .with(&["-p", &server.port().to_string()])
        .with(options)
}

/// Runs redis-cli to its end, which must be a good one.
fn cli(server: &Process, options: &[&str]) -> String {
    succeeded(tool("redis-cli", server, options).finish(PATIENCE), options)
}

/// The output of a run that ended well.
fn succeeded(finished: Finished, options: &[&str]) -> String {
    assert_eq!(finished.code, Some(0), "{options:?}: {}", finished.text());
    finished.output
}

/// A server with a thousand small keys and a large one.
fn filled(shards: usize) -> (Process, Client) {
    let server = node::start(shards);
    let mut client = server.connect();
    let set = |i: usize| {
        vec![
            b"SET".to_vec(),
            format!("key:{i}").into_bytes(),
            b"value".to_vec(),
        ]
    };
    client.pipeline(&(0..1000).map(set).collect::<Vec<_>>());
    client.call(&["SET", "giant", &"x".repeat(100_000)]);
    (server, client)
}

/// Runs a check against one shard and against four.
fn both(check: impl Fn(&Process, &mut Client)) {
    for shards in [1, 4] {
        let (server, mut client) = filled(shards);
        check(&server, &mut client);
    }
}

#[test]
fn cli_commands_in_both_protocols() {
    both(|server, _| {
        for protocol in ["-2", "-3"] {
            assert_eq!(cli(server, &[protocol, "set", "k", "v"]), "OK\n");
            assert_eq!(cli(server, &[protocol, "get", "k"]), "v\n");
            assert_eq!(cli(server, &[protocol, "incr", "counter"]), "1\n");
            assert_eq!(cli(server, &[protocol, "del", "counter"]), "1\n");
            let words = cli(server, &[protocol, "config", "get", "maxmemory"]);
            assert_eq!(
                words.split_ascii_whitespace().collect::<Vec<_>>(),
                ["maxmemory", "0"]
            );
            assert!(cli(server, &[protocol, "info"]).contains("redis_version:"));
            assert!(cli(server, &[protocol, "--json", "mget", "k", "missing"]).contains(r#"["v",null]"#));
            assert_eq!(cli(server, &[protocol, "-n", "3", "dbsize"]), "0\n");
        }
    });
}

#[test]
fn cli_repeats_and_pipes_standard_input() {
    both(|server, client| {
        assert_eq!(cli(server, &["-r", "3", "incr", "n"]), "1\n2\n3\n");
        let output = tool("redis-cli", server, &[])
            .input("set a 1\nincr a\nmulti\nget a\nexec\n")
            .finish(PATIENCE);
        assert_eq!(succeeded(output, &["stdin"]).trim_end(), "OK\n2\nOK\nQUEUED\n2");
        assert_eq!(cli(server, &["-x", "set", "from-stdin"]), "OK\n");
        assert_eq!(client.line("EXISTS from-stdin").integer(), Some(1));
    });
}

#[test]
fn cli_help_comes_from_command_docs() {
    both(|server, _| {
        let help = cli(server, &["help", "set"]);
        for part in [
            "SET", "key", "value", "summary", "since", "1.0.0", "group", "string", "NX", "KEEPTTL",
        ] {
            assert!(help.contains(part), "{part} is missing in: {help}");
        }
        assert!(cli(server, &["help", "@string"]).contains("SETRANGE"));
    });
}

#[test]
fn cli_scan_finds_every_key() {
    both(|server, _| {
        let output = cli(server, &["--scan"]);
        let mut keys: Vec<&str> = output.lines().collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 1001);
        let some = cli(server, &["--scan", "--pattern", "key:99*"]);
        assert_eq!(some.lines().count(), 11, "{some}");
    });
}

#[test]
fn cli_bigkeys_and_memkeys_find_the_large_one() {
    both(|server, _| {
        let bigkeys = cli(server, &["--bigkeys"]);
        assert!(bigkeys.contains("Sampled 1001 keys"), "{bigkeys}");
        assert!(bigkeys.contains("\"giant\"' has 100000 bytes"), "{bigkeys}");
        let memkeys = cli(server, &["--memkeys"]);
        assert!(memkeys.contains("Sampled 1001 keys"), "{memkeys}");
        let line = memkeys
            .lines()
            .find(|line| line.contains("\"giant\"' has"))
            .unwrap_or_else(|| panic!("{memkeys}"));
        let bytes: u64 = line
            .split_ascii_whitespace()
            .rev()
            .nth(1)
            .and_then(|word| word.parse().ok())
            .expect("bytes");
        assert!((100_000..150_000).contains(&bytes), "{line}");
    });
}

#[test]
fn cli_pipe_loads_a_stream_of_commands() {
    both(|server, client| {
        let mut stream = Vec::new();
        for i in 0..5000 {
            encode(&mut stream, &["SET", &format!("piped:{i}"), "v"]);
        }
        let stream = String::from_utf8(stream).expect("plain text");
        let output = tool("redis-cli", server, &["--pipe"])
            .input(&stream)
            .finish(PATIENCE);
        let output = succeeded(output, &["--pipe"]);
        assert!(output.contains("errors: 0, replies: 5000"), "{output}");
        assert_eq!(client.line("DBSIZE").integer(), Some(6001));
    });
}

#[test]
fn cli_latency_measures() {
    both(|server, _| {
        let output = cli(server, &["--latency", "--raw", "-i", "0.3"]);
        let figures: Vec<f64> = output
            .split_ascii_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        assert!(
            figures.len() == 4 && figures[3] > 1.0,
            "min, max, average and samples: {output}"
        );
    });
}

#[test]
fn cli_stat_shows_keys_and_clients() {
    both(|server, _| {
        // Without a terminal redis-cli would keep its output to itself until the end, and it has none.
        let cli = redis::tool("redis-cli").display().to_string();
        let options = [
            "-oL",
            &cli,
            "-p",
            &server.port().to_string(),
            "--stat",
            "-i",
            "0.1",
        ];
        let mut stat = Launch::new(&redis::tool("stdbuf")).with(&options).spawn(0);
        assert!(
            stat.wait(Duration::from_millis(700)).is_none(),
            "it goes on until it is stopped"
        );
        let output = stat.log();
        let row = output
            .lines()
            .find(|line| line.starts_with("1001 "))
            .unwrap_or_else(|| panic!("{output}"));
        let columns: Vec<&str> = row.split_ascii_whitespace().collect();
        assert!(
            columns.len() >= 6,
            "keys, memory, clients, blocked, requests, connections: {row}"
        );
        assert!(
            columns[2].parse::<u64>().is_ok_and(|clients| clients >= 1),
            "{row}"
        );
    });
}

/// Runs redis-benchmark and returns its rows of test and requests per second.
fn benchmark(server: &Process, options: &[&str]) -> Vec<(String, f64)> {
    let output = succeeded(tool("redis-benchmark", server, options).finish(PATIENCE), options);
    let row = |line: &str| {
        let mut columns = line.split(',').map(|column| column.trim_matches('"'));
        Some((columns.next()?.to_owned(), columns.next()?.parse().ok()?))
    };
    output.lines().filter_map(row).collect()
}

const TESTS: &str = "ping_inline,ping_mbulk,set,get,incr,mset";

/// Its tests of collections; `lrange` is four sizes, after a push that fills the list.
const COLLECTIONS: &str = "lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange";
const COLLECTION_ROWS: usize = 14;

#[test]
fn benchmark_in_all_its_forms() {
    both(|server, client| {
        for options in [
            &["-t", TESTS, "-n", "2000", "-c", "20", "--csv"][..],
            &[
                "-t", TESTS, "-n", "4000", "-c", "10", "-P", "16", "-r", "1000", "--csv",
            ],
            &[
                "-t",
                TESTS,
                "-n",
                "2000",
                "-c",
                "8",
                "-r",
                "1000",
                "--threads",
                "2",
                "--csv",
            ],
            &["-3", "-t", TESTS, "-n", "2000", "-c", "10", "-P", "4", "--csv"],
            &["-t", "set,get", "-n", "500", "-c", "5", "-d", "20000", "--csv"],
        ] {
            let rows = benchmark(server, options);
            let wanted = if options.contains(&TESTS) { 6 } else { 2 };
            assert_eq!(rows.len(), wanted, "{options:?}: {rows:?}");
            assert!(
                rows.iter().all(|(_, rate)| *rate > 100.0),
                "{options:?}: {rows:?}"
            );
        }
        assert!(
            client.line("GET counter:000000000000").is_null() || client.line("DBSIZE").integer() > Some(1001)
        );
        let quiet = succeeded(
            tool("redis-benchmark", server, &["-t", TESTS, "-n", "1000", "-q"]).finish(PATIENCE),
            &["-q"],
        );
        assert_eq!(quiet.matches("requests per second").count(), 6, "{quiet}");
    });
}

#[test]
fn benchmark_of_collections() {
    both(|server, client| {
        for options in [
            &["-t", COLLECTIONS, "-n", "1000", "-c", "10", "--csv"][..],
            &[
                "-t",
                COLLECTIONS,
                "-n",
                "4000",
                "-c",
                "10",
                "-P",
                "16",
                "-r",
                "1000",
                "--csv",
            ],
            &[
                "-3",
                "-t",
                COLLECTIONS,
                "-n",
                "1000",
                "-c",
                "8",
                "--threads",
                "2",
                "--csv",
            ],
        ] {
            client.line("FLUSHALL");
            let rows = benchmark(server, options);
            assert_eq!(rows.len(), COLLECTION_ROWS, "{options:?}: {rows:?}");
            assert!(rows.iter().all(|(_, rate)| *rate > 50.0), "{options:?}: {rows:?}");
        }
        assert_eq!(client.line("TYPE mylist").text(), "list");
        assert!(client.line("LLEN mylist").integer() >= Some(1000));
        assert_eq!(client.line("TYPE myhash").text(), "hash");
    });
}
