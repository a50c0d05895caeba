//! Every dialogue of `cases/`, under both protocols, with one shard and with four.

use std::fs;
use std::path::{Path, PathBuf};

use shardis_tests::dialogue::{self, Resp, Servers};
use shardis_tests::diff::Subject;
use shardis_tests::node;
use shardis_tests::redis::Reference;

/// One test for each file, so that they run side by side and fail by name.
macro_rules! dialogues {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                hold(stringify!($name));
            }
        )*

        /// The files that have a test.
        const FILES: &[&str] = &[$(stringify!($name)),*];
    };
}

dialogues! {
    strings string_numbers bitmaps keys expiry scanning saving transactions connection client_commands configuration
    command_reflection errors binary slowlog latency monitoring memory debug lists hashes hash_field_expiry sets
    sorted_sets hyperloglog geo streams stream_groups stream_blocking sort blocking collections_encoding wrongtype pubsub
    keyspace_events after_7_2
    option_pairs
    watch_stale blocking_again stream_references hash_field_options
    lone_node dump_restore replication acl tracking scripts functions
}

/// Directory of the files.
fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

/// Holds the dialogues of one file in all four settings.
fn hold(name: &str) {
    let path = cases().join(format!("{name}.txt"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = format!("cases/{name}.txt");
    let dialogues = dialogue::parse(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    // All of them may use DEBUG, but for the one about its refusal.
    let permission = [
        "--enable-debug-command",
        if name == "debug" { "no" } else { "yes" },
    ];
    let references = [Reference::Redis, Reference::Valkey]
        .map(|reference| (reference, reference.launch().with(&permission).serve()));
    let mut report = String::new();
    for shards in [1, 4] {
        let subject = node::launch(shards).with(&permission).serve();
        let kind = if node::is_redis() {
            Subject::Redis
        } else {
            Subject::Shardis
        };
        let servers = Servers {
            kind,
            subject: &subject,
            references: &references,
        };
        for resp in [Resp::V2, Resp::V3] {
            if let Err(differences) = dialogue::hold(&file, &dialogues, resp, &servers) {
                report += &format!("--- {shards} shard(s), {resp:?}: {differences}\n");
            }
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn every_file_has_a_test() {
    let mut files: Vec<String> = fs::read_dir(cases())
        .expect("tests/cases")
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    files.sort();
    let mut tested = FILES.to_vec();
    tested.sort_unstable();
    assert_eq!(files, tested, "a file without a test, or a test without a file");
}
