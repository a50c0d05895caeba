//! The rows of the server's commands, compared with those of Redis; and a test that each row is tested.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use shardis_tests::client::Client;
use shardis_tests::dialogue::{self, Action};
use shardis_tests::reply::Reply;
use shardis_tests::{node, redis};

/// Difference between the documentation of 7.2 and that of 7.0, the version compared with.
struct Known {
    command: &'static str,
    /// Fields that 7.0 has and 7.2 has not.
    gone: &'static [&'static str],
    /// Fields that 7.2 has and 7.0 has not.
    came: &'static [&'static str],
}

const KNOWN_DIFFERENCES: &[Known] = &[
    // The operation became a choice of words.
    Known {
        command: "bitop",
        gone: &[".arguments[0].type = string"],
        came: &[
            ".arguments[0].type = oneof",
            ".arguments[0].arguments[0].token = AND",
            ".arguments[0].arguments[0].type = pure-token",
            ".arguments[0].arguments[1].token = OR",
            ".arguments[0].arguments[1].type = pure-token",
            ".arguments[0].arguments[2].token = XOR",
            ".arguments[0].arguments[2].type = pure-token",
            ".arguments[0].arguments[3].token = NOT",
            ".arguments[0].arguments[3].type = pure-token",
            ".arguments[0].arguments[4].since = 8.2.0",
            ".arguments[0].arguments[4].token = DIFF",
            ".arguments[0].arguments[4].type = pure-token",
            ".arguments[0].arguments[5].since = 8.2.0",
            ".arguments[0].arguments[5].token = DIFF1",
            ".arguments[0].arguments[5].type = pure-token",
            ".arguments[0].arguments[6].since = 8.2.0",
            ".arguments[0].arguments[6].token = ANDOR",
            ".arguments[0].arguments[6].type = pure-token",
            ".arguments[0].arguments[7].since = 8.2.0",
            ".arguments[0].arguments[7].token = ONE",
            ".arguments[0].arguments[7].type = pure-token",
            ".history has \"8.2.0\"",
        ],
    },
    // Fields without their values, of 7.4.
    Known {
        command: "hscan",
        gone: &[],
        came: &[
            ".arguments[4].flags has +optional",
            ".arguments[4].token = NOVALUES",
            ".arguments[4].type = pure-token",
        ],
    },
    // Conditions on the string before, of 8.4.
    Known {
        command: "set",
        gone: &[],
        came: &[
            ".arguments[2].arguments[2].since = 8.4.0",
            ".arguments[2].arguments[2].token = IFEQ",
            ".arguments[2].arguments[2].type = string",
            ".arguments[2].arguments[3].since = 8.4.0",
            ".arguments[2].arguments[3].token = IFNE",
            ".arguments[2].arguments[3].type = string",
            ".arguments[2].arguments[4].since = 8.4.0",
            ".arguments[2].arguments[4].token = IFDEQ",
            ".arguments[2].arguments[4].type = string",
            ".arguments[2].arguments[5].since = 8.4.0",
            ".arguments[2].arguments[5].token = IFDNE",
            ".arguments[2].arguments[5].type = string",
            ".history has \"8.4.0\"",
        ],
    },
    // Polygons, of Valkey 9.
    Known {
        command: "geosearch",
        gone: &[],
        came: &[
            ".arguments[2].arguments[2].arguments[0].token = BYPOLYGON",
            ".arguments[2].arguments[2].arguments[0].type = integer",
            ".arguments[2].arguments[2].arguments[1].arguments[0].type = double",
            ".arguments[2].arguments[2].arguments[1].arguments[1].type = double",
            ".arguments[2].arguments[2].arguments[1].flags has +multiple",
            ".arguments[2].arguments[2].arguments[1].type = block",
            ".arguments[2].arguments[2].since = 9.0.0",
            ".arguments[2].arguments[2].type = block",
            ".history has \"9.0.0\"",
        ],
    },
    Known {
        command: "geosearchstore",
        gone: &[],
        came: &[
            ".arguments[3].arguments[2].arguments[0].token = BYPOLYGON",
            ".arguments[3].arguments[2].arguments[0].type = integer",
            ".arguments[3].arguments[2].arguments[1].arguments[0].type = double",
            ".arguments[3].arguments[2].arguments[1].arguments[1].type = double",
            ".arguments[3].arguments[2].arguments[1].flags has +multiple",
            ".arguments[3].arguments[2].arguments[1].type = block",
            ".arguments[3].arguments[2].since = 9.0.0",
            ".arguments[3].arguments[2].type = block",
            ".history has \"9.0.0\"",
        ],
    },
    // So did the value of SKIPME.
    Known {
        command: "client|kill",
        gone: &[".arguments[0].arguments[1].arguments[5].type = string"],
        came: &[
            ".arguments[0].arguments[1].arguments[5].type = oneof",
            ".arguments[0].arguments[1].arguments[5].arguments[0].token = YES",
            ".arguments[0].arguments[1].arguments[5].arguments[0].type = pure-token",
            ".arguments[0].arguments[1].arguments[5].arguments[1].token = NO",
            ".arguments[0].arguments[1].arguments[5].arguments[1].type = pure-token",
            ".arguments[0].arguments[1].arguments[6].flags has +optional",
            ".arguments[0].arguments[1].arguments[6].since = 7.4.0",
            ".arguments[0].arguments[1].arguments[6].token = MAXAGE",
            ".arguments[0].arguments[1].arguments[6].type = integer",
            ".history has \"7.4.0\"",
        ],
    },
    Known {
        command: "client|list",
        gone: &[
            ".arguments[1].type = block",
            ".arguments[1].arguments[0].type = integer",
            ".arguments[1].arguments[0].flags has +multiple",
        ],
        came: &[
            ".arguments[1].type = integer",
            ".arguments[1].flags has +multiple",
        ],
    },
    Known {
        command: "client|pause",
        gone: &[".since = 2.9.50"],
        came: &[".since = 3.0.0"],
    },
    // Documented since 7.2 only.
    Known {
        command: "command|getkeys",
        gone: &[],
        came: COMMAND_AND_ARGUMENTS,
    },
    Known {
        command: "command|getkeysandflags",
        gone: &[],
        came: COMMAND_AND_ARGUMENTS,
    },
    Known {
        command: "config|get",
        gone: &[
            ".arguments[0].type = block",
            ".arguments[0].arguments[0].type = string",
        ],
        came: &[".arguments[0].type = string"],
    },
    // A list of patterns is no block any more.
    Known {
        command: "psubscribe",
        gone: &[
            ".arguments[0].type = block",
            ".arguments[0].arguments[0].type = pattern",
        ],
        came: &[".arguments[0].type = pattern"],
    },
    // Deprecated since 7.2 says so.
    Known {
        command: "setnx",
        gone: &[],
        came: &[
            ".deprecated_since = 2.6.12",
            ".doc_flags has +deprecated",
            ".replaced_by = `SET` with the `NX` argument",
        ],
    },
    Known {
        command: "setex",
        gone: &[],
        came: &[
            ".deprecated_since = 2.6.12",
            ".doc_flags has +deprecated",
            ".replaced_by = `SET` with the `EX` argument",
        ],
    },
    Known {
        command: "psetex",
        gone: &[],
        came: &[
            ".deprecated_since = 2.6.12",
            ".doc_flags has +deprecated",
            ".replaced_by = `SET` with the `PX` argument",
        ],
    },
    // A list of arguments is no block any more.
    Known {
        command: "module|loadex",
        gone: &[
            ".arguments[2].type = block",
            ".arguments[2].arguments[0].type = string",
        ],
        came: &[".arguments[2].type = string"],
    },
    // FULL became a word in a block.
    Known {
        command: "xinfo|stream",
        gone: &[
            ".arguments[1].token = FULL",
            ".arguments[1].arguments[0].token = COUNT",
            ".arguments[1].arguments[0].type = integer",
            ".arguments[1].arguments[0].flags has +optional",
        ],
        came: &[
            ".history has \"7.2.0\"",
            ".arguments[1].arguments[0].token = FULL",
            ".arguments[1].arguments[0].type = pure-token",
            ".arguments[1].arguments[1].token = COUNT",
            ".arguments[1].arguments[1].type = integer",
            ".arguments[1].arguments[1].flags has +optional",
        ],
    },
    Known {
        command: "xinfo|consumers",
        gone: &[],
        came: &[".history has \"7.2.0\""],
    },
    Known {
        command: "quit",
        gone: &[],
        came: &[
            ".deprecated_since = 7.2.0",
            ".doc_flags has +deprecated",
            ".replaced_by = closing the connection",
        ],
    },
    Known {
        command: "zrank",
        gone: &[],
        came: WITH_SCORE,
    },
    Known {
        command: "zrevrank",
        gone: &[],
        came: WITH_SCORE,
    },
];

/// The option of 7.2 to show the score beside a rank.
const WITH_SCORE: &[&str] = &[
    ".arguments[2].flags has +optional",
    ".arguments[2].token = WITHSCORE",
    ".arguments[2].type = pure-token",
    ".history has \"7.2.0\"",
];

/// A command and what it is given.
const COMMAND_AND_ARGUMENTS: &[&str] = &[
    ".arguments[0].type = string",
    ".arguments[1].type = string",
    ".arguments[1].flags has +multiple",
    ".arguments[1].flags has +optional",
];

/// Commands of Redis 8 that neither reference knows.
const NEWER: &[&str] = &["delex", "digest", "sunioncard", "sdiffcard", "xackdel", "xdelex"];

/// Fields of COMMAND INFO in which Valkey 9.1 differs on its own: Redis counts. (Command, field, reason.)
const VALKEY_ONLY: &[(&str, &str, &str)] = &[
    ("client|reply", "flags", "refused in MULTI"),
    ("cluster|info", "flags", "allowed while loading"),
    ("cluster|myid", "flags", "allowed while loading"),
    ("cluster|myshardid", "flags", "allowed while loading"),
    ("cluster|nodes", "flags", "allowed while loading"),
    ("cluster|replicate", "arity", "NO ONE"),
    ("cluster|shards", "flags", "allowed while loading"),
    ("cluster|slots", "flags", "allowed while loading"),
    ("exec", "flags", "the slow log became a log of commands"),
    ("georadius", "key specs", "flags of STORE by option"),
    ("georadiusbymember", "key specs", "flags of STORE by option"),
    ("hexpire", "flags", "refused without memory in Redis 7.4"),
    ("hexpireat", "flags", "refused without memory in Redis 7.4"),
    ("hpexpire", "flags", "refused without memory in Redis 7.4"),
    ("hpexpireat", "flags", "refused without memory in Redis 7.4"),
    ("hpttl", "tips", "as those of TTL in Redis 7.4"),
    ("hsetex", "key specs", "an update in Redis 8.0"),
    ("httl", "tips", "as those of TTL in Redis 7.4"),
    ("memory|malloc-stats", "flags", "allowed while loading"),
    ("memory|purge", "flags", "allowed while loading"),
    ("multi", "flags", "MULTI in MULTI fails the transaction"),
    ("watch", "flags", "WATCH in MULTI fails the transaction"),
];

/// Documentation expected of 7.2 where 7.0 has `old`. Beside a second 7.0 that is `old` itself.
fn expected(command: &str, old: &BTreeSet<String>) -> BTreeSet<String> {
    let mut expected = old.clone();
    let known = KNOWN_DIFFERENCES.iter().filter(|known| known.command == command);
    for known in known.filter(|_| !node::is_redis()) {
        expected.retain(|line| !known.gone.contains(&line.as_str()));
        expected.extend(known.came.iter().map(|&line| line.to_owned()));
    }
    expected
}

/// Commands with an option of a later version in the midst of their arguments, which moves those behind it.
const LATER_OPTIONS: &[(&str, &str)] = &[("xadd", "8.2.0"), ("xtrim", "8.2.0")];

/// Documentation without the arguments and the history of a later version.
fn without_version(doc: &Reply, version: &str) -> Reply {
    let Reply::Map(pairs) = doc else {
        return doc.clone();
    };
    let is_later = |key: &str, item: &Reply| match key {
        "arguments" => item.field("since").is_some_and(|since| since.text() == version),
        "history" => item.items().first().is_some_and(|since| since.text() == version),
        _ => false,
    };
    let pairs = pairs.iter().map(|(key, value)| {
        let kept = |items: &[Reply]| -> Vec<Reply> {
            let items = items.iter().filter(|item| !is_later(&key.text(), item));
            items.cloned().collect()
        };
        let value = match value {
            Reply::Array(items) => Reply::Array(kept(items)),
            Reply::Set(items) => Reply::Set(kept(items)),
            other => other.clone(),
        };
        (key.clone(), value)
    });
    Reply::Map(pairs.collect())
}

/// Texts of a list as a set: flags, categories and tips come in no order.
fn texts(list: &Reply) -> BTreeSet<String> {
    list.items().iter().map(Reply::text).collect()
}

/// Fields that are written for people, and therefore in other words, or renamed throughout in 7.2: the names of
/// arguments.
const WORDING: &[&str] = &["summary", "complexity", "name", "display_text", "notes"];

/// A map without the fields of wording.
fn without_wording(item: &Reply) -> Reply {
    match item {
        Reply::Map(pairs) => Reply::Map(
            pairs
                .iter()
                .filter(|(key, _)| !WORDING.contains(&key.text().as_str()))
                .cloned()
                .collect(),
        ),
        other => other.clone(),
    }
}

/// A reply flattened to lines of `path = value`, without the fields of wording.
fn flatten(path: &str, reply: &Reply, lines: &mut BTreeSet<String>) {
    match reply {
        Reply::Map(pairs) => {
            for (key, value) in pairs {
                match key.text().as_str() {
                    wording if WORDING.contains(&wording) => {}
                    // Of the history only the versions are compared: the changes are described in other words.
                    "history" => {
                        let versions = value.items().iter().filter_map(|change| change.items().first());
                        lines.extend(versions.map(|version| format!("{path}.history has {version}")));
                    }
                    key => flatten(&format!("{path}.{key}"), value, lines),
                }
            }
        }
        Reply::Set(items) => {
            for item in items {
                let item = without_wording(item);
                lines.insert(format!("{path} has {item}"));
            }
        }
        Reply::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                flatten(&format!("{path}[{i}]"), item, lines);
            }
        }
        // Flags come as simple or bulk strings; what counts is the word.
        other => {
            let value = if other.bytes().is_empty() {
                other.to_string()
            } else {
                other.text()
            };
            lines.insert(format!("{path} = {value}"));
        }
    }
}

/// One row of COMMAND INFO, field by field.
fn row(reply: &Reply) -> BTreeMap<String, BTreeSet<String>> {
    const FIELDS: [&str; 10] = [
        "name",
        "arity",
        "flags",
        "first key",
        "last key",
        "step",
        "categories",
        "tips",
        "key specs",
        "subcommands",
    ];
    let mut row = BTreeMap::new();
    for (field, value) in FIELDS.iter().zip(reply.items()) {
        let texts = match *field {
            "flags" | "categories" | "tips" => texts(value),
            // Subcommands are rows of their own.
            "subcommands" => continue,
            _ => {
                let mut lines = BTreeSet::new();
                flatten("", value, &mut lines);
                lines
            }
        };
        row.insert((*field).to_owned(), texts);
    }
    row
}

/// Clients of shardis, of Redis 7.0 and of Valkey. All speak RESP3, in which sets and maps show as such.
fn clients() -> [Client; 3] {
    let servers = [node::start(1), redis::start(), redis::start_peer()];
    let clients = [0, 1, 2].map(|index: usize| {
        let mut client = servers[index].connect();
        client.line("HELLO 3");
        client
    });
    RUNNING.with_borrow_mut(|running| running.extend(servers));
    clients
}

thread_local! {
    /// Servers of this test's thread, stopped when it ends.
    static RUNNING: std::cell::RefCell<Vec<shardis_tests::process::Process>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// The commands and subcommands (`container|sub`) of the server under test.
fn names(subject: &mut Client) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for row in subject.line("COMMAND").items() {
        let name = row.items().first().map(Reply::text).unwrap_or_default();
        names.insert(name);
        for sub in row.items().get(9).map(Reply::items).unwrap_or_default() {
            names.insert(sub.items().first().map(Reply::text).unwrap_or_default());
        }
    }
    assert!(names.len() > 60, "only {} commands: {names:?}", names.len());
    names
}

/// A report of the elements that only one of two sets has.
fn differences(wanted: &BTreeSet<String>, got: &BTreeSet<String>) -> String {
    let missing: Vec<_> = wanted.difference(got).collect();
    let extra: Vec<_> = got.difference(wanted).collect();
    format!("missing {missing:?}, too much {extra:?}")
}

/// Rows agree with those of the references. If these differ, the younger one counts, except for its own additions.
#[test]
fn rows_are_those_of_redis() {
    let [mut subject, mut oracle, mut peer] = clients();
    let mut report = String::new();
    let mut listed = VALKEY_ONLY.to_vec();
    for name in &names(&mut subject) {
        let [got, old, new] = [&mut subject, &mut oracle, &mut peer]
            .map(|client| row(&client.call(&["COMMAND", "INFO", name]).items()[0]));
        if old.is_empty() && new.is_empty() && !NEWER.contains(&name.as_str()) {
            report += &format!("{name}: unknown to both references\n");
        }
        for (field, got) in &got {
            let place = listed
                .iter()
                .position(|&(command, of, _)| (command, of) == (name, field));
            let own_way = place.map(|place| listed.swap_remove(place)).is_some();
            let wanted = match (old.get(field), new.get(field)) {
                (_, Some(new)) if !own_way && !node::is_redis() => new,
                (Some(old), _) => old,
                _ => continue,
            };
            if wanted != got {
                report += &format!("{name}: {field}: {}\n", differences(wanted, got));
            } else if own_way && new.get(field) == Some(got) {
                report += &format!("{name}: {field}: listed, but Valkey says the same\n");
            }
        }
    }
    assert!(report.is_empty(), "COMMAND INFO differs:\n{report}");
    assert!(
        listed.is_empty() || node::is_redis(),
        "listed, but no row has it: {listed:?}"
    );
}

#[test]
fn docs_have_the_structure_of_those_of_redis() {
    let [mut subject, mut oracle, _] = clients();
    let mut report = String::new();
    for name in &names(&mut subject) {
        if oracle.call(&["COMMAND", "DOCS", name]).pairs().is_empty() {
            // Valkey documents what came after 7.0 as a command of its own.
            continue;
        }
        let [got, wanted] = [&mut subject, &mut oracle].map(|client| {
            let docs = client.call(&["COMMAND", "DOCS", name]);
            let mut doc = docs.field(name).cloned().unwrap_or(Reply::Null);
            for (_, version) in LATER_OPTIONS.iter().filter(|(command, _)| command == name) {
                doc = without_version(&doc, version);
            }
            let [summary, complexity] = ["summary", "complexity"].map(|key| doc.field(key).map(Reply::text));
            let mut lines = BTreeSet::new();
            flatten("", &without_subcommands(&doc), &mut lines);
            (
                lines,
                summary.is_some_and(|text| !text.is_empty()),
                complexity.is_some(),
            )
        });
        let wanted_lines = expected(name, &wanted.0);
        if wanted_lines != got.0 {
            report += &format!("{name}: {}\n", differences(&wanted_lines, &got.0));
        }
        if (got.1, got.2) != (wanted.1, wanted.2) {
            report += &format!("{name}: summary or complexity is missing\n");
        }
    }
    assert!(report.is_empty(), "COMMAND DOCS differs:\n{report}");
}

/// The documentation of subcommands is compared under their own names.
fn without_subcommands(doc: &Reply) -> Reply {
    match doc {
        Reply::Map(pairs) => Reply::Map(
            pairs
                .iter()
                .filter(|(key, _)| key.text() != "subcommands")
                .cloned()
                .collect(),
        ),
        other => other.clone(),
    }
}

#[test]
fn command_list_and_count_agree_with_the_rows() {
    let [mut subject, ..] = clients();
    let names = names(&mut subject);
    let listed: BTreeSet<String> = texts(&subject.line("COMMAND LIST"));
    assert_eq!(listed, names);
    let top = names.iter().filter(|name| !name.contains('|')).count();
    assert_eq!(subject.line("COMMAND COUNT").integer(), i64::try_from(top).ok());
    let by_pattern: BTreeSet<String> = texts(&subject.line("COMMAND LIST FILTERBY PATTERN *set*"));
    assert_eq!(
        by_pattern,
        names
            .iter()
            .filter(|name| name.contains("set"))
            .cloned()
            .collect()
    );
}

/// Rows that no dialogue can speak of, and the test file that does, which must name them in capitals.
const TESTED_ELSEWHERE: &[(&str, &str)] = &[
    ("shutdown", "program.rs"),
    ("info", "server_replies.rs"),
    ("bgrewriteaof", "append_only_rewrites.rs"),
];

#[test]
fn every_row_is_hit_by_a_behaviour_test() {
    let [mut subject, ..] = clients();
    let said = said_in_dialogues();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let is_tested_elsewhere = |name: &String| {
        TESTED_ELSEWHERE.iter().any(|(row, file)| {
            let text = fs::read_to_string(tests.join(file)).unwrap_or_default();
            row == name && text.contains(&name.replace('|', " ").to_uppercase())
        })
    };
    let missing: Vec<String> = names(&mut subject)
        .into_iter()
        .filter(|name| !said.contains(name) && !is_tested_elsewhere(name))
        .collect();
    assert!(
        missing.is_empty() || node::is_redis(),
        "no dialogue in tests/cases says {missing:?}"
    );
}

/// Every command, and every command with its first argument, that occurs in the dialogues.
fn said_in_dialogues() -> BTreeSet<String> {
    let mut said = BTreeSet::new();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    for file in fs::read_dir(cases).expect("tests/cases").filter_map(Result::ok) {
        let text = fs::read_to_string(file.path()).expect("a readable file");
        for step in dialogue::parse(&text)
            .expect("a valid file")
            .into_iter()
            .flat_map(|dialogue| dialogue.steps)
        {
            if let Action::Say(words) | Action::Scan(words) = step.action {
                let words: Vec<String> = words
                    .iter()
                    .map(|word| String::from_utf8_lossy(word).to_ascii_lowercase())
                    .collect();
                said.insert(words[0].clone());
                if words.len() > 1 {
                    said.insert(format!("{}|{}", words[0], words[1]));
                }
            }
        }
    }
    said
}
