//! The body of the fuzz target `acl` over seeded data: rules and files as people write them, damaged here and there.

#[path = "../../tests/fuzz/src/acl.rs"]
mod acl;

use proptest::collection::vec;
use proptest::prelude::*;

/// Words of rules, and some that are none.
const WORDS: &[&str] = &[
    "on",
    "off",
    "nopass",
    "resetpass",
    "reset",
    ">secret",
    "<secret",
    "#0",
    "sanitize-payload",
    "skip-sanitize-payload",
    "~*",
    "~a*",
    "%R~b*",
    "%RW~c",
    "%W~d?",
    "%X~e",
    "%~f",
    "allkeys",
    "resetkeys",
    "&*",
    "&news.*",
    "allchannels",
    "resetchannels",
    "+@all",
    "-@all",
    "+get",
    "-set",
    "+config|get",
    "-config|set",
    "+client|id",
    "+select|0",
    "-debug",
    "+@read",
    "-@dangerous",
    "+@none",
    "allcommands",
    "nocommands",
    "(~x +@read)",
    "(",
    ")",
    "(%R~y",
    "+mget)",
    "clearselectors",
    "()",
    "(on)",
    "+nosuch",
    "+eval",
    "~",
    "&",
    "+",
    "-",
    "",
    "(~",
    "#e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "!e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
];

fn damaged(text: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    (text, vec((any::<prop::sample::Index>(), any::<u8>()), 0..3)).prop_map(|(text, damage)| {
        let mut bytes = text.into_bytes();
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes
    })
}

fn rules() -> impl Strategy<Value = String> {
    vec(proptest::sample::select(WORDS), 0..12).prop_map(|words| words.join(" "))
}

/// Lines of a file: users of few names, so that some come twice, and other lines.
fn file() -> impl Strategy<Value = String> {
    let name = proptest::sample::select(vec!["a", "b", "default", "", "c d"]);
    let line = prop_oneof![
        9 => (name, rules()).prop_map(|(name, rules)| format!("user {name} {rules}")),
        1 => proptest::sample::select(vec!["", "# comment", "user", "nonsense on", "  user x on  "]).prop_map(str::to_owned),
    ];
    vec(line, 0..6).prop_map(|lines| lines.join("\n"))
}

/// Runs a check over many cases with one server.
fn run<T: std::fmt::Debug>(
    data: impl Strategy<Value = T>,
    check: impl Fn(&shardis::Server, &std::path::Path, T),
) {
    let directory = tempfile::tempdir().expect("a directory");
    let server = acl::start(directory.path());
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(600)
    };
    proptest::test_runner::TestRunner::new(config)
        .run(&data, |data| {
            check(&server, directory.path(), data);
            Ok(())
        })
        .expect("every case holds");
}

#[test]
fn rules_are_refused_or_mean_what_they_show() {
    run(damaged(rules()), |server, _, data| {
        acl::check_rules(server, &data);
    });
}

#[test]
fn files_are_refused_or_loaded_as_they_are_saved() {
    run(damaged(file()), |server, directory, data| {
        acl::check_file(server, directory, &data);
    });
}
