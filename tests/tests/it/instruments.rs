//! MONITOR, SLOWLOG, LATENCY and INFO over several shards, and what they count beside what Redis counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use shardis_tests::client::Client;
use shardis_tests::info::{field, figure, of_shards, word};
use shardis_tests::reply::Reply;
use shardis_tests::wait::wait_until;
use shardis_tests::{node, redis};

/// Lines that a monitor gets, up to the line with `last`.
fn lines_until(monitor: &mut Client, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let line = monitor.read().expect("a line").text();
        if line.contains(last) {
            return lines;
        }
        lines.push(line);
    }
}

/// One monitor sees the commands of every loop, those of each connection in their order.
#[test]
fn a_monitor_sees_every_loop() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
        let mut monitor = server.connect();
        assert_eq!(monitor.line("MONITOR").text(), "OK");
        for (number, client) in clients.iter_mut().enumerate() {
            let requests: Vec<Vec<Vec<u8>>> = (0..200)
                .map(|step| {
                    // Keys of all shards; now and then a command over several, or over none.
                    let line = match step % 10 {
                        8 => format!("MSET {number}:{step} a {number}:{step}:b b {number}:{step}:c c"),
                        9 => format!("ECHO {number}:{step}"),
                        _ => format!("SET {number}:{step} v"),
                    };
                    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
                })
                .collect();
            client.pipeline(&requests);
        }
        // All are answered; the lines about them arrive soon, from each loop in its own time.
        let mut seen = vec![Vec::new(); clients.len()];
        while seen.iter().map(Vec::len).sum::<usize>() < 8 * 200 {
            let line = monitor.read().expect("a line").text();
            let words: Vec<&str> = line.split('"').collect();
            let (number, step) = words[3].split_once(':').expect("a key of this test");
            seen[number.parse::<usize>().unwrap()].push(step.parse::<u32>().unwrap());
        }
        for steps in seen {
            assert!(steps.iter().copied().eq(0..200), "{steps:?}");
        }
    }
}

/// Over a Unix socket the line names the path.
#[test]
fn monitors_see_where_commands_come_from() {
    let server = node::launch(2).with(&["--unixsocket", "socket"]).serve();
    let path = server.directory().join("socket");
    let mut monitor = server.connect();
    monitor.line("MONITOR");
    let mut client = Client::connect_unix(&path).expect("a connection");
    client.line("ECHO hello");
    let line = monitor.read().expect("a line").text();
    assert!(line.ends_with("[0 unix:socket] \"ECHO\" \"hello\""), "{line}");
}

/// A monitor that does not read is closed at the limit of its class; the others go on.
#[test]
fn slow_monitors_are_closed() {
    let server = node::launch(2)
        .with(&["--client-output-buffer-limit", "normal 1mb 0 0"])
        .serve();
    let mut slow = server.connect();
    slow.line("MONITOR");
    let mut client = server.connect();
    let value = "x".repeat(50_000);
    let begin = Instant::now();
    while client.line("CLIENT LIST").text().lines().count() > 1 {
        assert!(begin.elapsed() < Duration::from_secs(60), "the monitor stays");
        for number in 0..100 {
            client.call(&["SET", &format!("k{number}"), &value]);
        }
    }
    let info = client.line("INFO stats").text();
    assert!(
        info.contains("client_output_buffer_limit_disconnections:1"),
        "{info}"
    );
}

/// RESET and QUIT end monitoring, so that commands cost nothing for it any more.
#[test]
fn monitors_leave() {
    let server = node::start(4);
    let mut monitors: Vec<_> = (0..6).map(|_| server.connect()).collect();
    for monitor in &mut monitors {
        monitor.line("MONITOR");
    }
    let mut client = server.connect();
    client.line("ECHO first");
    for monitor in &mut monitors {
        lines_until(monitor, "first");
        monitor.send(&["RESET"]).expect("a connection");
    }
    for monitor in &mut monitors {
        lines_until(monitor, "RESET");
    }
    std::thread::sleep(Duration::from_millis(50));
    client.line("ECHO second");
    let silence = monitors.iter_mut().all(|monitor| {
        monitor
            .read_within(Duration::from_millis(30))
            .map_or(true, |reply| {
                // A RESET of another one may still have been on its way.
                !reply.text().contains("second")
            })
    });
    assert!(silence);
}

/// The words of an entry of the slow log.
fn words(entry: &Reply) -> Vec<String> {
    entry.items()[3].items().iter().map(Reply::text).collect()
}

/// One log for all loops: ids descend, all commands are in it, with address and name.
#[test]
fn the_slow_log_is_that_of_the_node() {
    for shards in [1, 4] {
        let server = node::launch(shards)
            .with(&["--slowlog-log-slower-than", "0", "--slowlog-max-len", "1000"])
            .serve();
        let mut clients: Vec<_> = (0..6).map(|_| server.connect()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.call(&["CLIENT", "SETNAME", &format!("client{number}")]);
            let requests: Vec<Vec<Vec<u8>>> = (0..20)
                .map(|key| {
                    let key = format!("{number}:{key}");
                    ["SET", &key, "v"].map(|word| word.as_bytes().to_vec()).to_vec()
                })
                .collect();
            client.pipeline(&requests);
        }
        let mut addresses: BTreeMap<String, String> = BTreeMap::new();
        for line in clients[0].line("CLIENT LIST").text().lines() {
            let field = |name: &str| {
                line.split(' ')
                    .find_map(|field| field.strip_prefix(name))
                    .unwrap_or_default()
                    .to_owned()
            };
            addresses.insert(field("name="), field("addr="));
        }
        let log = clients[0].line("SLOWLOG GET -1");
        let ids: Vec<i64> = log
            .items()
            .iter()
            .filter_map(|entry| entry.items()[0].integer())
            .collect();
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1] + 1), "{ids:?}");
        let mut sets = BTreeSet::new();
        for entry in log.items().iter().filter(|entry| words(entry)[0] == "SET") {
            let key = words(entry)[1].clone();
            let name = format!("client{}", key.split(':').next().unwrap_or_default());
            assert_eq!(entry.items()[5].text(), name, "{entry}");
            assert_eq!(Some(&entry.items()[4].text()), addresses.get(&name), "{entry}");
            sets.insert(key);
        }
        assert_eq!(sets.len(), 6 * 20);
    }
}

/// The duration of a command is its own: a slow one is entered, those beside it are not, however they arrived.
#[test]
fn only_what_is_slow_is_entered() {
    for shards in [1, 4] {
        let server = node::launch(shards)
            .with(&[
                "--slowlog-log-slower-than",
                "20000",
                "--latency-monitor-threshold",
                "20",
                "--enable-debug-command",
                "yes",
            ])
            .serve();
        let mut client = server.connect();
        let mut requests: Vec<Vec<Vec<u8>>> = (0..50)
            .map(|key| vec![b"GET".to_vec(), format!("k{key}").into_bytes()])
            .collect();
        requests.insert(
            25,
            ["DEBUG", "SLEEP", "0.05"]
                .map(|word| word.as_bytes().to_vec())
                .to_vec(),
        );
        client.pipeline(&requests);
        let log = client.line("SLOWLOG GET");
        let [entry] = log.items() else { panic!("{log}") };
        assert_eq!(words(entry), ["DEBUG", "SLEEP", "0.05"]);
        let micros = entry.items()[2].integer().unwrap_or_default();
        assert!((50_000..1_000_000).contains(&micros), "{entry}");
        // Inside a transaction the command counts, not the transaction.
        client.line("SLOWLOG RESET");
        for line in ["MULTI", "GET k", "DEBUG SLEEP 0.03", "GET k", "EXEC"] {
            client.line(line);
        }
        let log = client.line("SLOWLOG GET");
        let [entry] = log.items() else { panic!("{log}") };
        assert_eq!(words(entry)[1], "SLEEP");

        let latest = client.line("LATENCY LATEST");
        let [event] = latest.items() else {
            panic!("{latest}")
        };
        assert_eq!(event.items()[0].text(), "command");
        let worst = event.items()[3].integer().unwrap_or_default();
        assert!((50..1000).contains(&worst), "{latest}");
        let history = client.line("LATENCY HISTORY command");
        assert!(
            history
                .items()
                .iter()
                .all(|sample| sample.items()[1].integer() >= Some(30)),
            "{history}"
        );
        let graph = client.line("LATENCY GRAPH command").text();
        assert!(
            graph.starts_with("command - high ") && graph.contains(&"-".repeat(80)),
            "{graph}"
        );
        let doctor = client.line("LATENCY DOCTOR").text();
        assert!(doctor.contains("1. command: "), "{doctor}");
        assert_eq!(client.line("LATENCY RESET").integer(), Some(1));
    }
}

/// A large value makes an otherwise short command slow; that is what the log shows, and not its neighbours in the batch.
#[test]
fn a_heavy_command_is_told_from_its_neighbours() {
    let server = node::launch(1)
        .with(&["--slowlog-log-slower-than", "1500"])
        .serve();
    let mut client = server.connect();
    client.call(&["SETRANGE", "large", "60000000", "x"]);
    client.line("SLOWLOG RESET");
    let mut requests: Vec<Vec<Vec<u8>>> = (0..40)
        .map(|key| vec![b"GET".to_vec(), format!("k{key}").into_bytes()])
        .collect();
    requests.insert(20, vec![b"GET".to_vec(), b"large".to_vec()]);
    client.pipeline(&requests);
    let log = client.line("SLOWLOG GET -1");
    let shown: Vec<String> = log
        .items()
        .iter()
        .map(|entry| words(entry).join(" "))
        .filter(|words| words.starts_with("GET"))
        .collect();
    assert_eq!(shown, ["GET large"], "{log}");
}

/// A big argument is kept as the value it becomes; the log has its beginning all the same.
#[test]
fn big_arguments_are_cut_and_not_lost() {
    for shards in [1, 4] {
        let server = node::launch(shards)
            .with(&["--slowlog-log-slower-than", "0"])
            .serve();
        let mut client = server.connect();
        let value = "x".repeat(1_000_000);
        let requests: Vec<Vec<Vec<u8>>> = (0..20)
            .flat_map(|key| {
                [
                    ["SET".to_owned(), format!("k{key}"), value.clone()],
                    ["APPEND".to_owned(), format!("k{key}"), value.clone()],
                ]
            })
            .map(|words| words.map(String::into_bytes).to_vec())
            .collect();
        for reply in client.pipeline(&requests) {
            assert!(
                reply.text() == "OK" || reply.integer() == Some(2_000_000),
                "{reply}"
            );
        }
        let log = client.line("SLOWLOG GET -1");
        let cut = format!("{}... (999872 more bytes)", "x".repeat(128));
        let shown = log
            .items()
            .iter()
            .filter(|entry| words(entry).get(2) == Some(&cut))
            .count();
        assert_eq!(shown, 40, "{log}");
    }
}

/// The counts of commands and errors are those of Redis.
#[test]
fn counts_are_those_of_redis() {
    let oracle = redis::start();
    for shards in [1, 4] {
        let subject = node::start(shards);
        let [ours, theirs] = [&subject, &oracle].map(|server| {
            let mut client = server.connect();
            let mut other = server.connect();
            for client in [&mut client, &mut other] {
                client.line("PING");
            }
            client.line("CONFIG RESETSTAT");
            for line in [
                "SET a 1",
                "SET b x",
                "INCR b",
                "INCRBY a x",
                "GET",
                "GET a b",
                "NOSUCH",
                "CONFIG",
                "CONFIG NOSUCH",
                "CONFIG GET",
                "MSET a 1 b",
                "MSET a 1 b 2 c 3 d 4",
                "MULTI",
                "NOSUCH",
                "GET",
                "EXEC",
                "MULTI",
                "INCR a",
                "INCRBY b x",
                "SETRANGE c x y",
                "EXEC",
                "EXEC",
                "DISCARD",
                "SCAN x",
                "SELECT 99",
                "AUTH nobody wrong",
                "AUTH wrong",
                "HELLO 9",
                "DBSIZE",
                "KEYS *",
                "WATCH a",
                "UNWATCH",
                "OBJECT ENCODING a",
                "OBJECT FREQ a",
            ] {
                client.line(line);
            }
            other.line("GET a");
            counts(&mut client)
        });
        assert_eq!(ours, theirs, "{shards} shards");
    }
}

/// The counters of commands and errors, without times.
fn counts(client: &mut Client) -> BTreeMap<String, String> {
    let text = [
        client.line("INFO commandstats").text(),
        client.line("INFO errorstats").text(),
        client.line("INFO stats").text(),
    ]
    .concat();
    let mut counts = BTreeMap::new();
    for (name, value) in text.lines().filter_map(|line| line.trim().split_once(':')) {
        let value: Vec<&str> = value
            .split(',')
            .filter(|part| !part.starts_with("usec"))
            .collect();
        let counted = name.starts_with("cmdstat_") || name.starts_with("errorstat_");
        if counted || name == "total_error_replies" || name == "total_commands_processed" {
            counts.insert(name.to_owned(), value.join(","));
        }
    }
    counts
}

/// CONFIG RESETSTAT is done when it is answered, on all loops.
#[test]
fn a_reset_counts_nothing_wrong() {
    let server = node::start(4);
    let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for round in 0..20 {
        for client in &mut clients {
            client.line("PING");
        }
        let resetting = round % clients.len();
        clients[resetting].line("CONFIG RESETSTAT");
        for (number, client) in clients.iter_mut().enumerate() {
            client.line(&format!("GET key:{number}"));
        }
        let stats = clients[resetting].line("INFO commandstats").text();
        assert!(stats.contains("cmdstat_get:calls=8,"), "{stats}");
        assert!(!stats.contains("cmdstat_ping"), "{stats}");
    }
}

/// Figures that Redis 7.0 has and shardis has not, because they would be made up.
const UNTOLD: &[&str] = &[
    // About the program Redis: its compiler, its atomic operations, its event loop's library.
    "gcc_version",
    "atomicvar_api",
    // There is no thread that runs all commands; INFO shards tells each.
    "used_cpu_sys_main_thread",
    "used_cpu_user_main_thread",
    // Buffers are taken and given back, not resized.
    "reply_buffer_shrinks",
    "reply_buffer_expands",
];

/// Every field of Redis exists, section by section, and so do those that 7.2 added.
#[test]
fn info_is_complete() {
    let oracle = redis::start();
    for shards in [1, 4] {
        let subject = node::start(shards);
        let [ours, theirs] = [&subject, &oracle].map(|server| {
            let mut client = server.connect();
            for line in ["SET k v EX 100", "GET k", "NOSUCH"] {
                client.line(line);
            }
            sections(&client.line("INFO everything").text())
        });
        let by_name = ["Commandstats", "Errorstats", "Latencystats"];
        for (section, fields) in theirs
            .iter()
            .filter(|(section, _)| !by_name.contains(&section.as_str()))
        {
            let Some(known) = ours.get(section) else {
                panic!("section {section} is missing");
            };
            let missing: Vec<_> = fields
                .iter()
                .filter(|field| !known.contains(*field) && !UNTOLD.contains(&field.as_str()))
                .collect();
            assert!(missing.is_empty(), "{section}: {missing:?}");
        }
        if node::is_redis() {
            continue;
        }
        for (section, field) in [
            ("Server", "listener0"),
            ("Clients", "total_blocking_keys"),
            ("Clients", "total_blocking_keys_on_nokey"),
            ("Stats", "eventloop_cycles"),
            ("Stats", "eventloop_duration_sum"),
            ("Stats", "eventloop_duration_cmd_sum"),
            ("Stats", "instantaneous_eventloop_cycles_per_sec"),
            ("Stats", "instantaneous_eventloop_duration_usec"),
            ("Stats", "acl_access_denied_auth"),
            ("Shards", "shard0"),
        ] {
            assert!(ours[section].contains(field), "{section}: {field}");
        }
    }
}

/// The fields of each section.
fn sections(info: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in info.lines() {
        if let Some(title) = line.strip_prefix("# ") {
            title.trim().clone_into(&mut section);
            sections.entry(section.clone()).or_default();
        } else if let Some((field, _)) = line.split_once(':') {
            sections
                .entry(section.clone())
                .or_default()
                .insert(field.to_owned());
        }
    }
    sections
}

/// Sections that are shown for certain words.
#[test]
fn info_shows_what_is_asked_for() {
    let server = node::start(2);
    let mut client = server.connect();
    let mut shown = |line: &str| -> Vec<String> {
        let text = client.line(line).text();
        let titles = text.lines().filter_map(|line| line.strip_prefix("# "));
        titles.map(|title| title.trim().to_owned()).collect()
    };
    let default = shown("INFO");
    let expected = [
        "Server",
        "Clients",
        "Memory",
        "Persistence",
        "Stats",
        "Replication",
        "CPU",
        "Modules",
        "Errorstats",
        "Cluster",
        "Keyspace",
    ];
    assert_eq!(default, expected);
    assert_eq!(shown("INFO default"), default);
    let all = shown("INFO all");
    assert!(default.iter().all(|title| all.contains(title)) && all.contains(&"Commandstats".to_owned()));
    assert_eq!(shown("INFO everything"), all);
    assert_eq!(shown("INFO keyspace CPU keyspace"), ["CPU", "Keyspace"]);
    assert_eq!(shown("INFO latencystats default").len(), default.len() + 1);
    assert!(shown("INFO nosuch").is_empty());
}

/// Figures of shards add up to those of the node, and are about what was done.
#[test]
fn shards_tell_their_share() {
    if node::is_redis() {
        return;
    }
    let server = node::start(4);
    let mut client = server.connect();
    let requests: Vec<Vec<Vec<u8>>> = (0..1000)
        .map(|key| vec![b"SET".to_vec(), format!("k{key}").into_bytes(), b"v".to_vec()])
        .collect();
    client.pipeline(&requests);
    let text = client.line("INFO shards").text();
    let sum = |name: &str| -> u64 {
        text.split([',', ':', '\r'])
            .filter_map(|part| part.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
            .sum()
    };
    assert_eq!(
        text.lines().filter(|line| line.starts_with("shard")).count(),
        4,
        "{text}"
    );
    assert_eq!(sum("keys"), 1000, "{text}");
    assert!(sum("commands") >= 1000 && sum("memory") > 10_000, "{text}");
    assert!(sum("borrowed_batches") + sum("sent_batches") > 0, "{text}");
    assert!(text.contains(",cpu=") && text.contains(",inbox="), "{text}");
    assert_eq!(
        field(&mut server.connect(), "used_memory_dataset"),
        sum("memory").to_string()
    );
}

/// A hot key shows: commands are counted where their keys are, whichever loop runs them.
#[test]
fn a_busy_shard_stands_out() {
    if node::is_redis() {
        return;
    }
    let server = node::start(4);
    let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for client in &mut clients {
        (0..50).for_each(|_| drop(client.line("INCR hot")));
    }
    let client = &mut clients[0];
    let counted = of_shards(client, "commands");
    assert_eq!(
        counted.iter().filter(|&&count| count > 0).collect::<Vec<_>>(),
        [&400]
    );
    let by_loop = of_shards(client, "loop_commands");
    assert!(by_loop.iter().sum::<u64>() >= 400, "{by_loop:?}");
    // Several shards are lent for this; each counts what was for its keys.
    client.line("CONFIG RESETSTAT");
    for line in [
        "MULTI",
        "SET {a}1 v",
        "SET {a}2 v",
        "SET {b} v",
        "MSET {c} v {d} v",
        "EXEC",
    ] {
        client.line(line);
    }
    let mut counted = of_shards(client, "commands");
    counted.sort_unstable();
    // The letters a to d are spread over all four shards.
    assert_eq!(counted, [1, 1, 1, 2]);
    // Nobody waits, and the question does not count itself.
    assert_eq!(of_shards(client, "inbox"), [0; 4]);
}

/// Output that waits for a client that does not read counts as memory, wherever it waits.
#[test]
fn unread_replies_weigh() {
    let server = node::start(2);
    let mut client = server.connect();
    client.call(&["SET", "big", &"x".repeat(2_000_000)]);
    let mut deaf = server.connect();
    let id = deaf.line("CLIENT ID").integer().expect("an id");
    // In one piece: a client that does not read gets nothing more done once this much waits for it.
    deaf.write(&b"GET big\r\n".repeat(16))
        .expect("an open connection");
    let mut unread = 0;
    wait_until("replies that wait for their client", || {
        let line = client.line(&format!("CLIENT LIST ID {id}")).text();
        let of_client = |name: &str| -> u64 { word(&line, name).expect(name).parse().expect("a number") };
        unread = of_client("obl") + of_client("omem");
        assert!(of_client("tot-mem") >= unread, "{line}");
        unread > 8_000_000
    });
    wait_until("the sum of all clients", || {
        let mut bytes = |name| figure(&mut client, name);
        bytes("mem_clients_normal") >= unread && bytes("client_recent_max_output_buffer") >= unread
    });
}

/// Fields of hashes that expired are counted as 7.4 does, apart from keys.
#[test]
fn expired_fields_are_counted() {
    if node::is_redis() {
        return;
    }
    let server = node::start(2);
    let mut client = server.connect();
    for line in [
        "HSET a x 1 y 2 z 3",
        "HSET b x 1",
        "HPEXPIRE a 1 FIELDS 2 x y",
        "HPEXPIRE b 1 FIELDS 1 x",
    ] {
        client.line(line);
    }
    wait_until("three fields have gone", || {
        field(&mut server.connect(), "expired_subkeys") == "3"
    });
    assert_eq!(field(&mut server.connect(), "expired_keys"), "0");
    client.line("CONFIG RESETSTAT");
    assert_eq!(field(&mut server.connect(), "expired_subkeys"), "0");
}

/// The allocator is named with the version it has.
#[test]
fn the_allocator_is_told_as_it_is() {
    if node::is_redis() {
        return;
    }
    let server = node::start(1);
    let name = field(&mut server.connect(), "mem_allocator");
    let report = server.connect().line("MEMORY MALLOC-STATS").text();
    let version = name.strip_prefix("jemalloc-").expect("jemalloc");
    assert!(
        report.contains(&format!("Version: \"{version}-")),
        "{name}: {report:.200}"
    );
}

/// Wrong passwords are counted, and errors by their codes.
#[test]
fn refusals_are_counted() {
    let server = node::launch(2).with(&["--requirepass", "secret"]).serve();
    let mut client = server.connect();
    client.line("GET k");
    client.line("AUTH wrong");
    client.line("AUTH secret");
    client.line("SET k v");
    client.line("CONFIG SET maxmemory 1");
    client.line("SET k v");
    client.line("CONFIG SET maxmemory 0");
    let info = client.line("INFO errorstats").text();
    for line in [
        "errorstat_NOAUTH:count=1",
        "errorstat_WRONGPASS:count=1",
        "errorstat_OOM:count=1",
    ] {
        assert!(info.contains(line), "{line}: {info}");
    }
    let stats = client.line("INFO stats").text();
    assert!(
        stats.contains("acl_access_denied_auth:1\r\n") || node::is_redis(),
        "{stats}"
    );
    assert!(stats.contains("total_error_replies:3\r\n"), "{stats}");
}
