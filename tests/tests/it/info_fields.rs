//! INFO and MEMORY STATS name what the reference servers name, but for what is listed here with its reason.

use std::collections::{BTreeMap, BTreeSet};

use std::time::{Duration, Instant};

use shardis_tests::client::Client;
use shardis_tests::{node, redis};

/// Fields of a reference that have no place here, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("server_name", "names another program"),
    ("server_mode", "the name that Valkey gives redis_mode"),
    ("valkey_version", "names another program"),
    ("valkey_release_stage", "names another program"),
    ("availability_zone", "a directive of Valkey"),
    ("clients_hz", "a directive of Valkey"),
    ("atomicvar_api", "about code in C"),
    ("gcc_version", "about code in C"),
    (
        "allocator_muzzy",
        "pages are given back at once, so none are in that state",
    ),
    ("expired_fields", "the name that Valkey gives expired_subkeys"),
    (
        "expired_keys_with_volatile_items_stale_perc",
        "hashes are not sampled: their fields are known in order of time",
    ),
    ("module", "Valkey has Lua as a module; there are none here"),
];

/// Sections of a reference that have no place here: nothing is said of TLS, cluster nodes and scripting engines.
const SECTIONS_LEFT_OUT: &[&str] = &["TLS", "Cluster Info", "Scripting Engines"];

/// The fields of INFO, by section.
fn fields(client: &mut Client, sections: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut fields: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in client.line(&format!("INFO {sections}")).text().lines() {
        if let Some(title) = line.strip_prefix("# ") {
            section = title.to_owned();
            fields.entry(section.clone()).or_default();
        } else if let Some((name, _)) = line.split_once(':') {
            fields.entry(section.clone()).or_default().insert(name.to_owned());
        }
    }
    fields
}

/// Every field of a reference exists here, or is listed.
#[test]
fn info_has_the_fields_of_the_references() {
    for shards in [1, 2] {
        let subject = node::start(shards);
        let ours = fields(&mut subject.connect(), "everything");
        for oracle in [redis::start(), redis::start_peer()] {
            let mut client = oracle.connect();
            for (section, names) in fields(&mut client, "everything") {
                if SECTIONS_LEFT_OUT.contains(&section.as_str()) {
                    continue;
                }
                // These go by what a server has done so far.
                if ["Commandstats", "Errorstats", "Latencystats", "Keyspace"].contains(&section.as_str()) {
                    assert!(ours.contains_key(&section), "no section {section}");
                    continue;
                }
                let here = ours
                    .get(&section)
                    .unwrap_or_else(|| panic!("no section {section}"));
                let left_out = |name: &String| LEFT_OUT.iter().any(|(field, _)| field == name);
                let missing: Vec<_> = names.difference(here).filter(|name| !left_out(name)).collect();
                assert!(missing.is_empty(), "{section} lacks {missing:?}");
            }
        }
        let all: BTreeSet<_> = ours.values().flatten().collect();
        for (name, why) in LEFT_OUT {
            assert!(
                node::is_redis() || !all.contains(&(*name).to_owned()),
                "{name} is there, though: {why}"
            );
        }
    }
}

/// `INFO` alone shows the sections that the references show, in their order.
#[test]
fn info_shows_the_sections_of_the_references() {
    let titles = |client: &mut Client| -> Vec<String> {
        let text = client.line("INFO").text();
        text.lines()
            .filter_map(|line| Some(line.strip_prefix("# ")?.to_owned()))
            .collect()
    };
    let [ours, redis, peer] =
        [node::start(2), redis::start(), redis::start_peer()].map(|server| titles(&mut server.connect()));
    assert_eq!(ours, redis);
    assert_eq!(ours, peer);
}

/// MEMORY STATS has the figures of the references.
#[test]
fn memory_stats_has_the_figures_of_the_references() {
    let names = |client: &mut Client| -> BTreeSet<String> {
        client.line("SET key value");
        let reply = client.line("MEMORY STATS");
        reply.pairs().iter().map(|(name, _)| name.text()).collect()
    };
    let subject = node::start(2);
    let ours = names(&mut subject.connect());
    let left_out = ["allocator.muzzy".to_owned()];
    for oracle in [redis::start(), redis::start_peer()] {
        let wanted = names(&mut oracle.connect());
        let missing: Vec<_> = wanted
            .difference(&ours)
            .filter(|name| !left_out.contains(name))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

/// Watched keys are counted until one of them is changed, and clients with them.
#[test]
fn watched_keys_are_counted() {
    for server in [node::start(1), node::start(4), redis::start_peer()] {
        let mut control = server.connect();
        let mut figures = || -> Vec<String> {
            let text = control.line("INFO clients").text();
            text.lines()
                .filter(|line| line.contains("watch"))
                .map(|line| line.rsplit(':').next().unwrap_or_default().to_owned())
                .collect()
        };
        let mut wait_for = |wanted: [&str; 2]| {
            let begin = Instant::now();
            while figures() != wanted {
                assert!(
                    begin.elapsed() < Duration::from_secs(10),
                    "{:?} is not {wanted:?}",
                    figures()
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        let (mut one, mut other) = (server.connect(), server.connect());
        wait_for(["0", "0"]);
        one.line("WATCH a b c d");
        wait_for(["1", "4"]);
        other.line("WATCH a x");
        wait_for(["2", "5"]);
        one.line("SET x 1");
        // A client whose EXEC will fail watches nothing any more.
        wait_for(["1", "4"]);
        one.line("UNWATCH");
        wait_for(["0", "0"]);
    }
}

/// A paused node reports that, and the rest of the pause.
#[test]
fn a_pause_is_told() {
    let server = node::start(2);
    let mut client = server.connect();
    let told = |client: &mut Client| -> Vec<String> {
        let text = client.line("INFO clients").text();
        text.lines()
            .filter(|line| line.starts_with("paused_"))
            .map(str::to_owned)
            .collect()
    };
    let idle = [
        "paused_reason:none",
        "paused_actions:none",
        "paused_timeout_milliseconds:0",
    ];
    assert_eq!(told(&mut client), idle);
    client.line("CLIENT PAUSE 100000 WRITE");
    let paused = told(&mut client);
    assert_eq!(
        paused[..2],
        ["paused_reason:client_pause", "paused_actions:write"]
    );
    let left_ms: u64 = paused[2].rsplit(':').next().unwrap().parse().unwrap();
    assert!((90_000..=100_000).contains(&left_ms), "{left_ms}");
    client.line("CLIENT UNPAUSE");
    assert_eq!(told(&mut client), idle);
}

/// A new node has more resident memory than memory in use, so that its fragmentation ratio is not below 1.
#[test]
fn a_fresh_node_uses_no_more_than_it_has() {
    for shards in [1, 4] {
        for backend in ["epoll", "io_uring"] {
            let server = node::launch(shards).with(&["--io-backend", backend]).serve();
            let text = server.connect().line("INFO memory").text();
            let figure = |name: &str| -> u64 {
                let line = text
                    .lines()
                    .find_map(|line| line.strip_prefix(&format!("{name}:")));
                line.unwrap().parse().unwrap()
            };
            let (used, rss) = (figure("used_memory"), figure("used_memory_rss"));
            assert!(used < rss, "{used} of {rss}: {text}");
            // The program itself takes little beside its data.
            assert!(used < (shards as u64 + 1) * (2 << 20), "{used}");
        }
    }
}
