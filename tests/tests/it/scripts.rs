//! Scripts beyond their replies: effects in the journal, undeclared keys on several shards, scripts that run for long.

use std::time::{Duration, Instant};

use shardis_tests::client::Client;
use shardis_tests::info::{field, figure};
use shardis_tests::loops::{connect_to, connect_to_each};
use shardis_tests::process::Process;
use shardis_tests::reply::Reply;
use shardis_tests::slot::one_key_per_shard;
use shardis_tests::wait::wait_until;
use shardis_tests::{node, redis};

const SHARDS: usize = 4;

/// A script that runs until it is killed.
const ENDLESS: &str = "while true do end";

/// Sends a script whose reply comes later.
fn begin(client: &mut Client, script: &str, keys: &[&str]) {
    let count = keys.len().to_string();
    let mut request = vec!["EVAL", script, &count];
    request.extend(keys);
    client.send(&request).expect("the server reads it");
}

/// Runs a script.
fn eval(client: &mut Client, script: &str, keys: &[&str]) -> Reply {
    begin(client, script, keys);
    client.read().expect("a reply")
}

/// The error or value that a client is sent next.
fn next(client: &mut Client) -> String {
    client.read().expect("a reply").to_string()
}

fn is_long(client: &mut Client) -> bool {
    !client.line("FUNCTION KILL").to_string().contains("NOTBUSY")
}

#[test]
fn a_long_script_leaves_its_own_loop_alone() {
    for shards in [1, SHARDS] {
        let server = node::launch(shards)
            .with(&["--busy-reply-threshold", "100000"])
            .serve();
        let (mut caller, mut other) = (connect_to(&server, 0), connect_to(&server, 0));
        begin(&mut caller, ENDLESS, &["k"]);
        wait_until("the script runs for long", || is_long(&mut other));
        let mut longest = Duration::ZERO;
        for _ in 0..50 {
            let start = Instant::now();
            assert_eq!(other.line("PING").text(), "PONG");
            longest = longest.max(start.elapsed());
        }
        assert!(longest < Duration::from_millis(200), "PING took {longest:?}");
        assert_eq!(other.line("SCRIPT KILL").text(), "OK");
        assert!(next(&mut caller).contains("Script killed by user with SCRIPT KILL"));
        assert_eq!(caller.line("SET k v").text(), "OK");
        assert!(other.line("SCRIPT KILL").to_string().contains("NOTBUSY"));
    }
}

#[test]
fn commands_for_its_shards_are_told_that_a_script_is_busy() {
    for shards in [1, SHARDS] {
        let server = node::launch(shards)
            .with(&["--busy-reply-threshold", "300"])
            .serve();
        let (mut caller, mut waiting, mut other) = (server.connect(), server.connect(), server.connect());
        begin(&mut caller, ENDLESS, &["k"]);
        wait_until("the script runs for long", || is_long(&mut other));
        // One that comes before the script counts as busy is told so as soon as it does.
        waiting.send(&["GET", "k"]).expect("the server reads it");
        assert!(
            next(&mut waiting).contains("BUSY Redis is busy running a script. You can only call SCRIPT KILL")
        );
        for line in ["SET k v", "MSET k v l w", "DBSIZE", "FLUSHALL", "SHUTDOWN"] {
            assert!(other.line(line).to_string().contains("BUSY"), "{line}");
        }
        assert!(eval(&mut other, "return 1", &["k"]).to_string().contains("BUSY"));
        other.line("MULTI");
        other.line("GET k");
        assert!(other.line("EXEC").to_string().contains("EXECABORT"));
        assert_eq!(other.line("PING").text(), "PONG");
        assert!(server.log().contains("Slow script detected"), "{}", server.log());
        assert_eq!(other.line("SCRIPT KILL").text(), "OK");
        assert!(next(&mut caller).contains("killed"));
        assert_eq!(other.line("SET k v").text(), "OK");
        assert_eq!(eval(&mut other, "return 1", &["k"]).integer(), Some(1));
    }
}

#[test]
fn a_script_that_has_written_cannot_be_killed_but_the_server_can() {
    for shards in [1, SHARDS] {
        let mut server = node::launch(shards)
            .with(&["--busy-reply-threshold", "50"])
            .serve();
        let (mut caller, mut other) = (server.connect(), server.connect());
        begin(
            &mut caller,
            "redis.call('SET', KEYS[1], 1) while true do redis.call('INCR', KEYS[1]) end",
            &["k"],
        );
        wait_until("the script is busy", || other.line("GET k").is_error());
        assert!(other.line("SCRIPT KILL").to_string().contains("UNKILLABLE"));
        other.send(&["SHUTDOWN", "NOSAVE"]).expect("the server reads it");
        assert!(server.wait(Duration::from_secs(20)).is_some(), "it stops");
    }
}

#[test]
fn there_is_no_debugger() {
    let server = node::start(1);
    let reply = server.connect().line("SCRIPT DEBUG YES").to_string();
    assert!(reply.contains("no debugger"), "{reply}");
}

#[test]
fn a_kill_cannot_be_caught() {
    let server = node::launch(2).with(&["--busy-reply-threshold", "20"]).serve();
    let (mut caller, mut other) = (server.connect(), server.connect());
    begin(
        &mut caller,
        "while true do pcall(function() while true do end end) end",
        &["k"],
    );
    wait_until("the script is busy", || other.line("GET k").is_error());
    assert_eq!(other.line("SCRIPT KILL").text(), "OK");
    assert!(next(&mut caller).contains("killed"));
}

#[test]
fn functions_are_killed_as_functions_and_their_run_is_told() {
    let server = node::launch(2).with(&["--busy-reply-threshold", "20"]).serve();
    let (mut caller, mut other) = (server.connect(), server.connect());
    let library = "#!lua name=lib\nredis.register_function{function_name='f', callback=function() while true do end end, flags={'no-writes'}}";
    assert_eq!(other.call(&["FUNCTION", "LOAD", library]).text(), "lib");
    caller
        .send(&["FCALL", "f", "1", "k", "word"])
        .expect("the server reads it");
    wait_until("the function is busy", || other.line("GET k").is_error());
    let stats = other.line("FUNCTION STATS").to_string();
    assert!(stats.contains("FCALL") && stats.contains("word"), "{stats}");
    assert!(other.line("SCRIPT KILL").to_string().contains("BUSY"));
    assert_eq!(other.line("FUNCTION KILL").text(), "OK");
    assert!(next(&mut caller).contains("FUNCTION KILL"));
}

#[test]
fn a_long_script_of_a_transaction_goes_on_where_it_was() {
    for shards in [1, SHARDS] {
        let server = node::launch(shards)
            .with(&["--busy-reply-threshold", "100000"])
            .serve();
        let (mut caller, mut other) = (server.connect(), server.connect());
        let long =
            "redis.call('INCR', KEYS[1]) for i = 1, 3e7 do end redis.call('INCR', KEYS[1]) return 'done'";
        caller.line("MULTI");
        caller.line("SET k 1");
        caller.call(&["EVAL", long, "1", "k"]);
        caller.line("GET k");
        caller.send(&["EXEC"]).expect("the server reads it");
        assert_eq!(other.line("PING").text(), "PONG");
        let seen = other.line("GET k").to_string();
        assert!(seen.contains('3') || seen == "nil", "{seen}");
        assert_eq!(
            caller.read().expect("a reply").to_string(),
            "[+OK, \"done\", \"3\"]"
        );
    }
}

/// Lines that a monitor is shown, up to one with this word.
fn lines_until(monitor: &mut Client, word: &str) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let line = monitor.read().expect("a line").text();
        let is_last = line.contains(word);
        lines.push(line);
        if is_last {
            return lines;
        }
    }
}

#[test]
fn monitors_see_a_script_before_its_commands() {
    for shards in [1, SHARDS] {
        let server = node::start(shards);
        let (mut monitor, mut client) = (server.connect(), server.connect());
        assert_eq!(monitor.line("MONITOR").text(), "OK");
        eval(
            &mut client,
            "redis.call('SET', KEYS[1], 'v') return redis.call('GET', 'l')",
            &["k"],
        );
        client.line("ECHO end");
        let lines = lines_until(&mut monitor, "end");
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[0].contains("\"EVAL\""), "{lines:?}");
        assert!(lines[1].contains("[0 lua] \"SET\" \"k\" \"v\""), "{lines:?}");
        assert!(lines[2].contains("[0 lua] \"GET\" \"l\""), "{lines:?}");
    }
}

/// A real replica that has everything its primary has sent.
fn replica_of(primary: &Process) -> Process {
    let port = primary.address().port().to_string();
    let replica = redis::launch()
        .with(&["--enable-debug-command", "yes", "--replicaof", "127.0.0.1", &port])
        .serve();
    wait_until("the replica has its data", || {
        field(&mut replica.connect(), "master_link_status") == "up"
    });
    replica
}

#[test]
fn replicas_repeat_the_effects_of_a_script_as_one_unit() {
    for shards in [1, SHARDS] {
        let server = node::launch(shards)
            .with(&["--repl-diskless-sync-delay", "0", "--enable-debug-command", "yes"])
            .serve();
        let mut client = server.connect();
        client.call(&[
            "FUNCTION",
            "LOAD",
            "#!lua name=before\nredis.register_function('before', function() return 1 end)",
        ]);
        let replica = replica_of(&server);
        let (mut follower, mut monitor) = (replica.connect(), replica.connect());
        assert_eq!(monitor.line("MONITOR").text(), "OK");
        eval(
            &mut client,
            "redis.call('SET', KEYS[1], 1) redis.call('SADD', KEYS[2], 'a') redis.call('GET', KEYS[1]) return redis.call('SPOP', KEYS[2])",
            &["k", "s"],
        );
        eval(&mut client, "return redis.call('INCR', KEYS[1])", &["k"]);
        eval(
            &mut client,
            "redis.set_repl(redis.REPL_NONE) redis.call('SET', KEYS[1], 'x') redis.set_repl(redis.REPL_ALL) return redis.call('SET', KEYS[2], 'y')",
            &["hidden", "shown"],
        );
        client.call(&[
            "FUNCTION",
            "LOAD",
            "#!lua name=after\nredis.register_function('after', function(k) return redis.call('SET', k[1], 'by function') end)",
        ]);
        client.line("FCALL after 1 f");
        client.line("SET last 1");
        let lines = lines_until(&mut monitor, "\"last\"");
        let commands: Vec<String> = lines
            .iter()
            .filter_map(|line| line.split_once("] ").map(|(_, command)| command.to_owned()))
            .filter(|command| {
                ![
                    "\"ping\"",
                    "\"PING\"",
                    "\"select\"",
                    "\"SELECT\"",
                    "\"replconf\"",
                    "\"info\"",
                    "\"INFO",
                ]
                .iter()
                .any(|name| command.starts_with(name))
            })
            .collect();
        let names: Vec<_> = commands
            .iter()
            .map(|command| {
                command
                    .split(' ')
                    .next()
                    .unwrap_or_default()
                    .trim_matches('"')
                    .to_uppercase()
            })
            .collect();
        assert_eq!(
            names,
            [
                "MULTI", "SET", "SADD", "SREM", "EXEC", "INCR", "SET", "FUNCTION", "SET", "SET"
            ],
            "{commands:?}"
        );
        wait_until("the replica has everything", || {
            figure(&mut client, "master_repl_offset") == figure(&mut follower, "slave_repl_offset")
        });
        assert_eq!(follower.line("EXISTS k shown hidden f").integer(), Some(3));
        assert!(follower.line("FUNCTION LIST").to_string().contains("before"));
        assert!(follower.line("FCALL_RO before 0").is_error());
    }
}

#[test]
fn functions_and_effects_survive_a_restart() {
    let directories = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let launch = |shards: usize, append_only: &str| {
        let directory = &directories[usize::from(append_only == "yes")];
        node::launch(shards)
            .with(&[
                "--dir",
                &directory.path().display().to_string(),
                "--appendonly",
                append_only,
            ])
            .with(&["--enable-debug-command", "yes"])
            .serve()
    };
    for append_only in ["yes", "no"] {
        let mut server = launch(SHARDS, append_only);
        let mut client = server.connect();
        client.call(&["FUNCTION", "FLUSH"]);
        client.call(&[
            "FUNCTION",
            "LOAD",
            "#!lua name=lib\nredis.register_function('add', function(k, a) return redis.call('INCRBY', k[1], a[1]) end)",
        ]);
        client.line("SET n 0");
        assert_eq!(client.line("FCALL add 1 n 5").integer(), Some(5));
        assert_eq!(
            eval(
                &mut client,
                "redis.call('INCR', KEYS[1]) return redis.call('INCR', 'other')",
                &["n"]
            )
            .integer(),
            Some(1)
        );
        let payload = client.line("FUNCTION DUMP");
        assert_eq!(client.line("FUNCTION FLUSH").text(), "OK");
        let restore: Vec<&[u8]> = vec![b"FUNCTION", b"RESTORE", payload.bytes()];
        assert_eq!(client.call(&restore).text(), "OK");
        assert_eq!(client.line("DEBUG RELOAD").text(), "OK");
        assert_eq!(client.line("FCALL add 1 n 1").integer(), Some(7));
        server.signal(15);
        assert!(server.wait(Duration::from_secs(20)).is_some(), "it stops");
        if append_only == "no" {
            continue;
        }
        for shards in [1, 3] {
            let server = launch(shards, append_only);
            let mut client = server.connect();
            assert_eq!(client.line("GET n").text(), "7");
            assert_eq!(client.line("FCALL add 1 n 0").integer(), Some(7));
            assert_eq!(
                client.line("DEL other").integer(),
                Some(if shards == 1 { 1 } else { 0 })
            );
        }
    }
}

/// Runs a script so often that it gets the shards of its declared keys only.
fn earn_trust(client: &mut Client, script: &str, key: &str) {
    for _ in 0..40 {
        let reply = client.call(&["EVAL", script, "1", key, key]);
        assert!(!reply.is_error(), "{reply}");
    }
}

#[test]
fn a_trusted_script_that_meets_another_shard_begins_anew() {
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("key", SHARDS);
    for client in &mut connect_to_each(&server) {
        client.line("FLUSHALL");
        client.line("SCRIPT FLUSH");
        let script = "redis.call('GET', KEYS[1]) local r = redis.call('INCR', ARGV[1]) return r";
        earn_trust(client, script, &keys[0]);
        for (number, key) in keys.iter().enumerate() {
            let reply = client.call(&["EVAL", script, "1", &keys[0], key]);
            assert_eq!(reply.integer(), Some(if number == 0 { 41 } else { 1 }));
        }
    }
}

#[test]
fn a_trusted_script_that_has_written_gets_the_shard_it_lacks() {
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("key", SHARDS);
    for client in &mut connect_to_each(&server) {
        for (from, to) in [(0, 3), (3, 0), (1, 2)] {
            client.line("FLUSHALL");
            client.line("SCRIPT FLUSH");
            let script =
                "redis.call('INCR', KEYS[1]) redis.call('INCR', ARGV[1]) return redis.call('GET', ARGV[1])";
            earn_trust(client, script, &keys[from]);
            let reply = client.call(&["EVAL", script, "1", &keys[from], &keys[to]]);
            assert_eq!(reply.text(), "1");
            assert_eq!(client.line(&format!("GET {}", keys[from])).text(), "81");
        }
    }
}

#[test]
fn trusted_scripts_that_want_each_others_shards_all_end() {
    let server = node::start(SHARDS);
    let keys = one_key_per_shard("key", SHARDS);
    let mut clients = connect_to_each(&server);
    let mut ended = 0;
    for round in 0..20 {
        // A comment makes each round's script one that has not strayed yet.
        let script = format!(
            "-- {round}\nredis.call('INCR', KEYS[1]) for i = 1, 200000 do end return redis.call('INCR', ARGV[1])"
        );
        for client in &mut clients {
            for key in &keys {
                client.call(&["EVAL", &script, "1", key, key]);
            }
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let (own, other) = (&keys[number], &keys[(number + 1) % SHARDS]);
            client
                .send(&["EVAL", &script, "1", own, other])
                .expect("the server reads it");
        }
        for client in &mut clients {
            let reply = client.read().expect("a reply");
            assert!(
                reply.integer().is_some() || reply.to_string().contains("shard"),
                "{reply}"
            );
            ended += 1;
        }
        // Others collect all shards meanwhile.
        assert!(clients[0].line("DBSIZE").integer().is_some());
    }
    assert_eq!(ended, 20 * SHARDS);
}
