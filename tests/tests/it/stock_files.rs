//! The configuration files that come with Redis and Valkey: each starts the server as it is. `tests/stock` lists what they set, and what
//! they only mention.

use std::collections::HashSet;
use std::fs;

use shardis_tests::node;
use shardis_tests::process::{Launch, Process, repository_root};

/// The directives of a file.
struct Stock {
    /// Name of its list.
    name: String,
    /// Directives that it sets: name and value as they stand there.
    set: Vec<(String, String)>,
    /// Directives that it mentions.
    mentioned: Vec<String>,
}

/// Directives of files that have no value of their own.
const WITHOUT_VALUE: [&str; 4] = ["include", "loadmodule", "rename-command", "user"];

/// Directives whose values the test replaces, since they are about places of the machine.
const OF_THIS_RUN: [&str; 4] = ["bind", "dir", "pidfile", "port"];

fn stock() -> Vec<Stock> {
    let folder = repository_root().join("tests/stock");
    let files = fs::read_dir(folder).expect("the folder of lists");
    let stock: Vec<_> = files
        .map(|file| {
            let path = file.expect("a list").path();
            let text = fs::read_to_string(&path).expect("a list");
            let name = path.file_stem().unwrap_or_default().display().to_string();
            parse(name, &text)
        })
        .collect();
    assert!(stock.len() >= 7, "some lists are missing");
    stock
}

fn parse(name: String, text: &str) -> Stock {
    // The first two lines say what the file is.
    let lines = text.lines().skip(2);
    let (mut set, mut mentioned) = (Vec::new(), Vec::new());
    for line in lines {
        match line.strip_prefix("# ") {
            Some(name) => mentioned.push(name.to_owned()),
            None => {
                let (name, value) = line.split_once(' ').expect("a name and a value");
                set.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    assert!(
        set.len() > 60 && mentioned.len() > 80,
        "{name}: {} directives set",
        set.len()
    );
    Stock { name, set, mentioned }
}

impl Stock {
    /// Starts the server from a file that sets the same.
    fn serve(&self) -> Process {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("stock.conf");
        let lines: String = self
            .set
            .iter()
            .map(|(name, value)| format!("{name} {value}\n"))
            .collect();
        let place = directory.path().display();
        fs::write(&path, format!("{lines}pidfile {place}/pid\n")).expect("a file");
        Launch::new(node::binary())
            .with(&[path.display().to_string()])
            .serve()
    }
}

fn get(server: &Process, name: &str) -> Vec<(String, String)> {
    let reply = server.connect().call(&["CONFIG", "GET", name]);
    let pairs = reply.pairs();
    pairs
        .iter()
        .map(|(name, value)| (name.text(), value.text()))
        .collect()
}

/// A value of a file as CONFIG GET shows it.
fn shown(value: &str) -> String {
    match value.strip_suffix("mb").map(str::parse::<u64>) {
        Some(Ok(mebibytes)) => (mebibytes << 20).to_string(),
        _ => value.trim_matches('"').to_owned(),
    }
}

#[test]
fn each_file_starts_a_server_that_has_its_values() {
    if node::is_redis() {
        return;
    }
    for file in stock() {
        let server = file.serve();
        for (name, value) in &file.set {
            let pairs = get(&server, name);
            let [(known, own)] = &pairs[..] else {
                panic!("{}: {name} is unknown", file.name)
            };
            assert_eq!(known, name, "{}", file.name);
            if name == "client-output-buffer-limit" {
                let (class, limits) = value.split_once(' ').expect("a class and limits");
                let limits: Vec<_> = limits.split(' ').map(shown).collect();
                let class = class.replace("replica", "slave");
                let line = format!("{class} {}", limits.join(" "));
                assert!(own.contains(&line), "{}: {line:?} is not in {own:?}", file.name);
            } else if !OF_THIS_RUN.contains(&name.as_str()) {
                assert_eq!(*own, shown(value), "{}: {name}", file.name);
            }
        }
    }
}

#[test]
fn each_directive_that_a_file_mentions_is_known() {
    if node::is_redis() {
        return;
    }
    let server = node::start(1);
    let mut names: Vec<_> = stock().into_iter().flat_map(|file| file.mentioned).collect();
    names.retain(|name| !WITHOUT_VALUE.contains(&name.as_str()));
    for name in names.into_iter().collect::<HashSet<_>>() {
        assert_eq!(get(&server, &name).len(), 1, "{name} is unknown");
    }
}

/// Values that have no effect are told, each in one line, and no others.
#[test]
fn each_value_without_effect_is_told_once() {
    if node::is_redis() {
        return;
    }
    for file in stock() {
        let server = file.serve();
        assert_eq!(server.connect().line("PING").text(), "PONG");
        let log = server.log();
        let told: Vec<_> = log
            .lines()
            .filter_map(|line| line.split_once("The directive '")?.1.split_once("' is kept"))
            .map(|(name, _)| name)
            .collect();
        let distinct: HashSet<_> = told.iter().copied().collect();
        assert_eq!(distinct.len(), told.len(), "{}: {told:?}", file.name);
        let is_set = |told: &&str| file.set.iter().any(|(name, _)| name == told);
        assert!(distinct.iter().all(is_set), "{}: {told:?}", file.name);
        if file.name.starts_with("redis") {
            // They set what is the default anyway.
            assert!(told.is_empty(), "{}: {told:?}", file.name);
        }
    }
}
