//! The configuration as a whole, beside the real servers: the same names, values that can be set back, files of all versions.

use std::collections::BTreeMap;
use std::fs;

use shardis_tests::client::{Client, PATIENCE};
use shardis_tests::node;
use shardis_tests::process::{Launch, Process, free_port};
use shardis_tests::redis;

/// Names and values that CONFIG GET shows for a pattern.
fn get(server: &Process, pattern: &str) -> BTreeMap<String, String> {
    let reply = server.connect().call(&["CONFIG", "GET", pattern]);
    let pairs = reply.pairs();
    pairs
        .iter()
        .map(|(name, value)| (name.text(), value.text()))
        .collect()
}

fn set(client: &mut Client, name: &str, value: &str) -> String {
    client.call(&["CONFIG", "SET", name, value]).text()
}

/// Names that only the real servers show.
const NOT_SHOWN: [&str; 1] = ["aof-disable-auto-gc"];

/// Names that only shardis shows, the first one of them like Redis 8.
const OWN: [&str; 8] = [
    "aof-load-corrupt-tail-max-size",
    "audit-events",
    "audit-log",
    "audit-strict",
    "io-backend",
    "rdb-field-expiry-format",
    "replica-refuse-empty-primary",
    "shards",
];

#[test]
fn every_directive_of_the_real_servers_is_known() {
    let server = node::start(1);
    let shown = get(&server, "*");
    let (redis, peer) = (get(&redis::start(), "*"), get(&redis::start_peer(), "*"));
    for name in redis.keys().chain(peer.keys()) {
        assert_eq!(get(&server, name).len(), 1, "{name} is unknown");
    }
    let hidden: Vec<_> = redis.keys().filter(|name| !shown.contains_key(*name)).collect();
    assert_eq!(hidden, NOT_SHOWN);
    if !node::is_redis() {
        let own = shown
            .keys()
            .filter(|name| !redis.contains_key(*name) && !peer.contains_key(*name));
        assert_eq!(own.collect::<Vec<_>>(), OWN);
    }
}

#[test]
fn what_was_shown_can_be_set_back_as_on_a_real_server() {
    let (server, redis) = (node::start(2), redis::start());
    let (mut client, mut other) = (server.connect(), redis.connect());
    for (name, value) in get(&redis, "*") {
        // It disconnects nobody, but the two servers have different directories.
        let own = get(&server, &name)[&name].clone();
        let (ours, theirs) = (set(&mut client, &name, &own), set(&mut other, &name, &value));
        assert_eq!(ours, theirs, "{name}: {own:?} here, {value:?} there");
    }
    if !node::is_redis() {
        for (name, other) in [("shards", "3"), ("io-backend", "epoll")] {
            let value = get(&server, name)[name].clone();
            assert_eq!(set(&mut client, name, &value), "OK", "{name}");
            let refused = set(&mut client, name, if value == other { "io_uring" } else { other });
            assert!(refused.contains("can't set immutable config"), "{refused}");
        }
    }
}

/// Starts a server from a file in `directory`.
fn start_from(directory: &tempfile::TempDir, text: Option<&str>) -> Process {
    let path = directory.path().join("server.conf");
    if let Some(text) = text {
        fs::write(&path, text).expect("a file");
    }
    Launch::new(node::binary())
        .with(&[path.display().to_string()])
        .serve()
}

#[test]
fn every_value_survives_a_rewrite_and_a_restart() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let text = format!(
        "dir {}\nsave \"\"\nrequirepass \"\"\nmaxmemory 100mb\n# mine\nunixsocket s\n",
        directory.path().display()
    );
    let server = start_from(&directory, Some(&text));
    let mut client = server.connect();
    for (name, value) in [
        ("maxmemory-policy", "allkeys-lfu"),
        ("hz", "77"),
        ("save", "7 8 9 10"),
        ("proc-title-template", "a {title} \"quoted\""),
        ("client-output-buffer-limit", "pubsub 1mb 2mb 3"),
        ("notify-keyspace-events", "KEA"),
        ("oom-score-adj-values", "1 2 3"),
        ("shutdown-on-sigint", "nosave now"),
        ("latency-tracking-info-percentiles", "1 50 99.5"),
        ("masterauth", "a b\"c"),
        ("loglevel", "verbose"),
    ] {
        assert_eq!(set(&mut client, name, value), "OK", "{name}");
    }
    let before = get(&server, "*");
    // The values shown are set back, and change nothing.
    for (name, value) in &before {
        let reply = set(&mut client, name, value);
        assert!(reply == "OK" || reply.contains("can't set"), "{name}: {reply}");
    }
    assert_eq!(get(&server, "*"), before);
    assert_eq!(client.line("CONFIG REWRITE").text(), "OK");
    drop((client, server));
    let after = get(&start_from(&directory, None), "*");
    // The harness gives each start a port of its own.
    let same = |values: &BTreeMap<String, String>| {
        let mut values = values.clone();
        values.remove("port");
        values
    };
    assert_eq!(same(&after), same(&before));
    let file = fs::read_to_string(directory.path().join("server.conf")).expect("a file");
    assert!(file.contains("# mine"), "{file}");
}

/// Lines of a configuration file that say what a server has.
fn file_of(values: &BTreeMap<String, String>, leave_out: &[&str]) -> String {
    let line = |(name, value): (&String, &String)| match name.as_str() {
        "save"
        | "client-output-buffer-limit"
        | "bind"
        | "latency-tracking-info-percentiles"
        | "oom-score-adj-values"
        | "shutdown-on-sigint"
        | "shutdown-on-sigterm"
            if !value.is_empty() =>
        {
            format!("{name} {value}\n")
        }
        _ => format!("{name} \"{value}\"\n"),
    };
    let kept = values
        .iter()
        .filter(|(name, _)| !leave_out.contains(&name.as_str()));
    kept.map(line).collect()
}

/// Directives of a place and a moment.
const OF_THIS_RUN: [&str; 7] = [
    "port",
    "dir",
    "logfile",
    "pidfile",
    "slaveof",
    "replicaof",
    "unixsocket",
];

#[test]
fn files_of_all_versions_start_a_server() {
    for real in [redis::start(), redis::start_peer()] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let values = get(&real, "*");
        let server = start_from(&directory, Some(&file_of(&values, &OF_THIS_RUN)));
        for (name, value) in values
            .iter()
            .filter(|(name, _)| !OF_THIS_RUN.contains(&name.as_str()))
        {
            assert_eq!(&get(&server, name)[name], value, "{name}");
        }
    }
}

#[test]
fn directives_without_meaning_are_told_in_one_line_each() {
    if node::is_redis() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = start_from(
        &directory,
        Some(
            "save \"\"\nmptcp yes\nprimaryauth secret\nprimaryuser someone\ncommandlog-execution-slower-than 77\n",
        ),
    );
    let log = server.log();
    assert_eq!(log.matches("'mptcp'").count(), 1, "{log}");
    for (name, value) in [
        ("masterauth", "secret"),
        ("masteruser", "someone"),
        ("slowlog-log-slower-than", "77"),
        ("mptcp", "yes"),
    ] {
        assert_eq!(get(&server, name)[name], value);
    }
    assert!(!log.contains("secret"), "{log}");
    assert!(
        !get(&server, "*").contains_key("mptcp"),
        "CONFIG GET * lists what 7.2 lists"
    );
}

#[test]
fn the_file_that_comes_with_redis_starts_a_server() {
    let text =
        fs::read_to_string("/etc/redis/redis.conf").expect("the file of Debian's package redis-server");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = directory.path().display();
    // The places of the package belong to its own user.
    let text =
        format!("{text}\ndir {place}\nlogfile \"\"\npidfile {place}/pid\ndaemonize no\nsupervised no\n");
    let server = start_from(&directory, Some(&text));
    assert_eq!(get(&server, "tcp-keepalive")["tcp-keepalive"], "300");
}

/// Whether a server starts with these arguments; else its exit code.
fn outcome(launch: Launch, words: &[&str]) -> Result<(), Option<i32>> {
    let mut server = launch.with(words).spawn(0);
    match server.wait_until_ready() {
        Ok(()) => Ok(()),
        Err(_) => Err(server.wait(PATIENCE).and_then(|status| status.code())),
    }
}

#[test]
fn a_command_line_means_what_it_means_to_a_real_server() {
    for words in [
        &["--hz 20"][..],
        &["--hz=20"],
        &["-h=1"],
        &["--HZ", "20"],
        &["--hz"],
        &["--hz", "20", "x"],
        &["--nosuch", "1"],
        &["--save"],
        &["--save", "--hz", "20"],
        &["--save", "900", "1", "--save", "60", "1000"],
        &["--save", "900 1 60 1000"],
        &["--requirepass", "--hz"],
        &["--maxmemory 1gb", "--hz", "20"],
        &["--client-output-buffer-limit", "pubsub", "1mb", "2mb", "3"],
        &["--client-output-buffer-limit", "pubsub 1mb 2mb 3"],
        &["--shutdown-on-sigint", "nosave", "force"],
        &["--shutdown-on-sigint", "nosave force"],
        &["--rename-command", "GET", "fetch"],
        &["--include", "/nonexistent"],
        &["--loglevel", "verbose", "-"],
        &["--loglevel", "verbose", "--"],
        &["--daemonize", "maybe"],
    ] {
        let port = free_port().to_string();
        let place = ["--port", &port, "--bind", "127.0.0.1"];
        let all: Vec<&str> = place.iter().chain(words).copied().collect();
        let ours = outcome(Launch::new(node::binary()), &all);
        assert_eq!(ours, outcome(Launch::new(&redis::binary()), &all), "{words:?}");
    }
}
