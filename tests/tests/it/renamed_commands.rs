//! `rename-command`: the server's replies about commands under their old and their new names, beside both references.

use std::fs;
use std::path::Path;

use shardis_tests::process::{Launch, Process, free_port};
use shardis_tests::reply::Reply;
use shardis_tests::{node, redis};

/// Names that were changed, taken away, changed twice, and given anew.
const RENAMES: &str = "rename-command GET hole\nrename-command set \"\"\nrename-command CLIENT krant\n\
    rename-command hole fetch\nrename-command mget GET\nrename-command EVAL run\nrename-command bgsave ''\n\
    rename-command incr BgSave\n";

/// A server with those names.
fn renamed(program: &Path, directory: &Path) -> Process {
    let port = free_port();
    let file = directory.join(format!("{port}.conf"));
    fs::write(&file, format!("port {port}\nsave \"\"\n{RENAMES}")).expect("a configuration file");
    let server = Launch::new(program)
        .with(&[file.display().to_string()])
        .spawn(port);
    server.wait_until_ready().expect("a server with renamed commands");
    server
}

/// A reply without what servers may word or number differently.
fn comparable(reply: &Reply) -> String {
    match reply {
        Reply::Array(items) | Reply::Set(items) => {
            let mut items: Vec<_> = items.iter().map(comparable).collect();
            items.sort();
            format!("{items:?}")
        }
        other => other.to_string(),
    }
}

#[test]
fn old_and_new_names_mean_what_they_mean_to_redis() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let programs = [
        node::binary().to_path_buf(),
        redis::binary(),
        redis::peer_binary(),
    ];
    let servers = programs.map(|program| renamed(&program, directory.path()));
    let [mut subject, mut oracle, mut peer] = [0, 1, 2].map(|index: usize| servers[index].connect());
    for line in [
        "hole k",
        "set k v",
        "fetch k",
        "FETCH k x",
        "client id",
        "KRANT",
        "krant nosuch",
        "krant id x",
        "get a b",
        "incr n",
        "bgsave n",
        "bgsave",
        "BGSAVE a b",
        "mget a",
        "SET a b",
        "COMMAND INFO get",
        "COMMAND INFO fetch",
        "COMMAND INFO hole",
        "COMMAND INFO set",
        "COMMAND INFO mget",
        "COMMAND INFO client|id",
        "COMMAND INFO krant|list",
        "COMMAND INFO bgsave",
        "COMMAND INFO incr",
        "COMMAND LIST FILTERBY PATTERN *mget",
        "COMMAND LIST FILTERBY PATTERN fetch",
        "COMMAND LIST FILTERBY PATTERN set",
        "COMMAND LIST FILTERBY PATTERN krant*",
        "COMMAND LIST FILTERBY PATTERN client",
        "COMMAND LIST FILTERBY PATTERN incr",
        "COMMAND GETKEYS fetch a",
        "COMMAND GETKEYS get a b",
        "COMMAND GETKEYS hole a",
        "COMMAND GETKEYS set a b",
        "COMMAND GETKEYS mget a b",
        "COMMAND GETKEYS bgsave n",
        "COMMAND GETKEYS incr n",
        "COMMAND GETKEYS krant id x",
        "COMMAND GETKEYS run s 2 a b c",
        "COMMAND GETKEYS eval s 2 a b c",
        "COMMAND GETKEYSANDFLAGS fetch a",
        "COMMAND DOCS set",
        "COMMAND DOCS hole",
        "COMMAND DOCS client|id",
        "COMMAND DOCS mget",
        "MULTI",
        "set k v",
        "fetch k",
        "EXEC",
        "MULTI",
        "fetch k",
        "get k k",
        "bgsave n",
        "EXEC",
    ] {
        let replies = [&mut subject, &mut oracle, &mut peer].map(|client| comparable(&client.line(line)));
        assert_eq!(replies[1], replies[2], "the references agree on {line}");
        assert_eq!(replies[0], replies[1], "{line}");
    }
    for line in [
        "COMMAND DOCS fetch",
        "COMMAND DOCS get",
        "COMMAND DOCS krant|id",
        "LATENCY HISTOGRAM fetch set hole",
    ] {
        let names =
            [&mut subject, &mut oracle].map(|client| client.line(line).items().first().map(Reply::text));
        assert_eq!(names[0], names[1], "{line}");
    }
    for name in ["krant", "fetch", "bgsave"] {
        let line = format!("COMMAND INFO {name}");
        let own = [&mut subject, &mut oracle].map(|client| client.line(&line).items()[0].items()[0].text());
        assert_eq!(own[0], own[1], "{line}");
    }
    let text = subject.line("INFO commandstats").text();
    assert!(
        text.contains("cmdstat_get:calls=") && !text.contains("cmdstat_fetch"),
        "{text}"
    );
    let help = subject.line("krant help").items()[0].text();
    assert!(help.starts_with("KRANT <subcommand>"), "{help}");
}

#[test]
fn what_has_no_name_is_not_counted_as_a_command() {
    let count = |options: &[&str]| {
        let server = node::launch(1).with(options).serve();
        let mut client = server.connect();
        let count = client.line("COMMAND COUNT").integer().expect("a number");
        let listed = client.line("COMMAND").items().len();
        assert_eq!(i64::try_from(listed).ok(), Some(count));
        assert_eq!(client.line("COMMAND DOCS").pairs().len(), listed);
        count
    };
    let all = count(&[]);
    assert_eq!(count(&["--rename-command", "get", ""]), all - 1);
    assert_eq!(count(&["--rename-command", "get", "fetch"]), all);
}

/// Every name of Redis is known to `rename-command`, those of commands to come as well.
#[test]
fn every_name_of_redis_can_be_changed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let names: Vec<String> = {
        let oracle = redis::start();
        let mut client = oracle.connect();
        let rows = client.line("COMMAND");
        rows.items().iter().map(|row| row.items()[0].text()).collect()
    };
    assert!(names.len() > 200, "{names:?}");
    let port = free_port();
    let renames: String = names
        .iter()
        .filter(|name| *name != "ping")
        .map(|name| format!("rename-command {name} x-{name}\n"))
        .collect();
    let file = directory.path().join("all.conf");
    fs::write(&file, format!("port {port}\nsave \"\"\n{renames}")).expect("a configuration file");
    let server = Launch::new(node::binary())
        .with(&[file.display().to_string()])
        .spawn(port);
    server.wait_until_ready().expect("a server with renamed commands");
    let mut client = server.connect();
    assert_eq!(client.line("x-set k v").text(), "OK");
    assert!(client.line("set k v").is_error() && client.line("eval x 0").is_error());
    assert_eq!(
        client.line("x-command count").integer(),
        client.line("x-command").items().len().try_into().ok()
    );
}
