//! House rules that no compiler checks, each with a message that says what to do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use shardis_tests::process::{repository_file, repository_root};

/// The layers of the server, top to bottom: a module may use those below it and its own.
///
/// Several names in one layer do not know each other. `testing` modules are helpers of tests and exempt.
const LAYERS: &[&[&str]] = &[
    &["main", "program"],
    &["builder"],
    &["node"],
    &["links"],
    &["bus"],
    &["loading"],
    &["event_loop", "control"],
    &["connection"],
    &["dispatch"],
    &["commands", "shard"],
    &["spec"],
    &["exec"],
    &["state"],
    &["append_only", "cluster", "replication"],
    &["tracking"],
    &[
        "acl",
        "audit",
        "keyspace_events",
        "observe",
        "journal",
        "pubsub",
        "saving",
        "scripting",
        "tls",
    ],
    &["daemon"],
    &["log"],
    &["config"],
    &["clock", "error", "feed", "hashing", "machine"],
    &["limits"],
];

/// Words that the pure crates do not contain: they do no I/O, read no clock, start no thread.
const IMPURE: &[&str] = &[
    "tokio",
    "mio::",
    "std::net",
    "Instant::now",
    "SystemTime::now",
    "thread::spawn",
    "std::fs",
];

/// Crates below the server, which do not know each other.
const PURE_CRATES: &[&str] = &["protocol", "storage", "cluster"];

/// Length from which a function is worth a second look, lines.
const LONG_FUNCTION_LINES: usize = 60;

/// Number of longer functions. This number only goes down.
const LONG_FUNCTIONS_MAX: usize = 5;

/// Rust files under a folder of the repository, with their paths from its root.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    files(folder, "rs")
        .into_iter()
        .filter_map(|path| Some((path.clone(), repository_file(&path).ok()?)))
        .collect()
}

/// Files with an extension under a folder, as paths from the root; nothing that was built.
fn files(folder: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![repository_root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if !["target", ".git", "corpus", "artifacts", "node_modules"]
                    .contains(&name.to_string_lossy().as_ref())
                {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    let root = repository_root();
    let relative = |path: PathBuf| path.strip_prefix(&root).unwrap_or(&path).display().to_string();
    let mut found: Vec<String> = found.into_iter().map(relative).collect();
    found.sort();
    found
}

/// Every Rust file of the workspace.
fn all_rust_files() -> Vec<(String, String)> {
    let all: Vec<_> = ["protocol", "storage", "cluster", "scripting", "server", "tests"]
        .iter()
        .flat_map(|folder| rust_files(folder))
        .collect();
    assert!(
        all.len() > 20,
        "the repository is not where this test looks: {}",
        repository_root().display()
    );
    all
}

/// Code without its comments and its tests: what a rule about code looks at.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..tests]
        .lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default()))
        .filter(|(_, line)| !line.trim().is_empty())
}

/// Fails with all complaints at once.
fn complain(rule: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{rule}\n  {}", complaints.join("\n  "));
}

#[test]
fn every_file_says_what_it_is() {
    let complaints: Vec<String> = all_rust_files()
        .into_iter()
        .filter(|(_, text)| {
            !text
                .lines()
                .next()
                .is_some_and(|line| line.starts_with("//! ") && line.len() > 10)
        })
        .map(|(path, _)| path)
        .collect();
    complain(
        "The first line of a file is a `//!` sentence: what lives here. Missing in:",
        &complaints,
    );
}

/// Words that begin no summary line: a sentence about a type, function or field names its subject.
const SUBJECTLESS: &[&str] = &[
    "What", "Who", "Whose", "Whoever", "How", "Where", "That", "Those", "Which", "Why", "It",
];

#[test]
fn summary_lines_name_their_subject() {
    let mut complaints = Vec::new();
    for (path, text) in all_rust_files() {
        let mut before = "";
        for (number, line) in text.lines().map(str::trim_start).enumerate() {
            let is_inside = before.starts_with("///") || before.starts_with("//!");
            let summary = line.strip_prefix("/// ").or_else(|| line.strip_prefix("//! "));
            if !is_inside
                && let Some(word) = summary.and_then(|summary| summary.split(' ').next())
                && SUBJECTLESS.contains(&word)
            {
                complaints.push(format!("{path}:{}: {line}", number + 1));
            }
            before = line;
        }
    }
    complain(
        "A summary line says what a type is, what a function does, which quantity a field holds. Not so:",
        &complaints,
    );
}

#[test]
fn no_mod_rs() {
    let complaints: Vec<String> = all_rust_files()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.ends_with("/mod.rs"))
        .collect();
    complain(
        "A module `name` lives in name.rs and name/, so that every tab has a name of its own. Rename:",
        &complaints,
    );
}

/// Crates below the server that use others, with those that they may use.
const PURE_CRATES_ABOVE: &[(&str, &[&str])] = &[("scripting", &["protocol", "storage"])];

#[test]
fn pure_crates_stay_pure_and_apart() {
    let mut complaints = Vec::new();
    let lowest = PURE_CRATES.iter().map(|krate| (krate, &[][..]));
    for (krate, used) in lowest.chain(PURE_CRATES_ABOVE.iter().map(|(krate, used)| (krate, *used))) {
        for (path, text) in rust_files(&format!("{krate}/src")) {
            let others = PURE_CRATES
                .iter()
                .chain(PURE_CRATES_ABOVE.iter().map(|(krate, _)| krate))
                .filter(|other| *other != krate && !used.contains(other))
                .map(|other| format!("shardis_{other}"));
            let banned: Vec<String> = others.chain(IMPURE.iter().map(|&word| word.to_owned())).collect();
            for (number, line) in code(&text) {
                if let Some(word) = banned.iter().find(|word| line.contains(word.as_str())) {
                    complaints.push(format!("{path}:{number}: {word}"));
                }
            }
        }
    }
    complain(
        "`protocol`, `storage` and `cluster` do no I/O, read no clock and do not know each other; `scripting` uses the first two:",
        &complaints,
    );
}

/// The layer of a module of the server, 0 at the top.
fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn arrows_in_the_server_point_downwards() {
    let mut complaints = Vec::new();
    for (path, text) in rust_files("server/src") {
        let module = path
            .trim_start_matches("server/src/")
            .split(['/', '.'])
            .next()
            .unwrap_or_default()
            .to_owned();
        if module == "lib" || path.contains("testing") {
            continue;
        }
        let Some(own) = layer(&module) else {
            complaints.push(format!(
                "{path}: `{module}` is in no layer; give it its place in LAYERS of tidy.rs"
            ));
            continue;
        };
        for (number, line) in code(&text) {
            for used in line
                .split("crate::")
                .skip(1)
                .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
            {
                let used = used.unwrap_or_default();
                let is_upward = layer(used).is_some_and(|used_layer| used_layer <= own) && used != module;
                if is_upward {
                    complaints.push(format!("{path}:{number}: `{module}` must not use `{used}`"));
                }
            }
        }
    }
    complain(
        "Inside the server, modules use what lies below them (the table LAYERS in tidy.rs says what does):",
        &complaints,
    );
}

#[test]
fn every_script_is_in_the_documentation() {
    let documentation = ["README.md", "ARCHITECTURE.md"]
        .map(|path| repository_file(path).unwrap_or_default())
        .join("\n");
    let complaints: Vec<String> = fs::read_dir(repository_root().join("scripts"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(format!("scripts/{}", entry.ok()?.file_name().to_string_lossy())))
        .filter(|script| !documentation.contains(script.as_str()))
        .collect();
    complain(
        "A script that nobody knows of is no help: mention it in README.md or ARCHITECTURE.md:",
        &complaints,
    );
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut complaints = Vec::new();
    for path in files("", "md") {
        let text = repository_file(&path).unwrap_or_default();
        let folder = Path::new(&path).parent().unwrap_or(Path::new("")).to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let is_relative = !file.is_empty() && !file.contains("://") && !file.starts_with("mailto:");
            if is_relative && !repository_root().join(&folder).join(file).exists() {
                complaints.push(format!("{path}: {target}"));
            }
        }
    }
    complain("These links lead nowhere:", &complaints);
}

/// Functions longer than [`LONG_FUNCTION_LINES`], tests apart. Relies on rustfmt: a function ends with the first
/// closing brace at its own indentation.
fn long_functions() -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in all_rust_files()
        .into_iter()
        .filter(|(path, _)| !path.contains("/tests/") && !path.ends_with("/tests.rs"))
    {
        let lines: Vec<&str> = text.lines().collect();
        let end_of_code = lines
            .iter()
            .position(|line| *line == "#[cfg(test)]")
            .unwrap_or(lines.len());
        for (start, line) in lines[..end_of_code].iter().enumerate() {
            let indent = &line[..line.len() - line.trim_start().len()];
            let Some(name) = function_name(line.trim_start()) else {
                continue;
            };
            let length = lines[start..]
                .iter()
                .position(|line| line.strip_prefix(indent) == Some("}"))
                .unwrap_or(0);
            if length > LONG_FUNCTION_LINES {
                found.push(format!("{path}:{}: {name} ({length} lines)", start + 1));
            }
        }
    }
    found
}

/// The Rust files that a header names in backticks.
fn named_files(header: &str) -> BTreeSet<String> {
    let quoted = header.split('`').skip(1).step_by(2);
    quoted
        .filter(|word| word.ends_with(".rs"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn unsafe_code_is_where_the_header_of_its_crate_says() {
    for root in ["storage/src/", "scripting/src/"] {
        let header = repository_file(&format!("{root}lib.rs")).expect("the crate has a root");
        let found = rust_files(root.trim_end_matches('/'))
            .into_iter()
            .filter(|(_, text)| {
                text.lines().any(|line| {
                    let code = line.trim_start();
                    !code.starts_with("//")
                        && ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                            .iter()
                            .any(|begin| code.contains(begin))
                })
            });
        let found: BTreeSet<String> = found
            .map(|(path, _)| path.trim_start_matches(root).to_owned())
            .collect();
        assert_eq!(
            found,
            named_files(&header),
            "files with `unsafe`, and those that {root}lib.rs names"
        );
    }
}

/// The name of the function that a line begins, if it begins one with a body.
fn function_name(line: &str) -> Option<&str> {
    let mut rest = line;
    for word in [
        "pub(crate) ",
        "pub(super) ",
        "pub ",
        "const ",
        "async ",
        "unsafe ",
    ] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let is_one_line = line.ends_with('}') || line.ends_with(';');
    rest.strip_prefix("fn ")
        .filter(|_| !is_one_line)?
        .split(['(', '<'])
        .next()
}

#[test]
fn long_functions_do_not_multiply() {
    let found = long_functions();
    assert!(
        found.len() <= LONG_FUNCTIONS_MAX,
        "There are {} functions of more than {LONG_FUNCTION_LINES} lines, and there were {LONG_FUNCTIONS_MAX}. \
         Could one of them tell its story in parts?\n  {}",
        found.len(),
        found.join("\n  ")
    );
    assert!(
        found.len() + 5 > LONG_FUNCTIONS_MAX,
        "Only {} functions are longer than {LONG_FUNCTION_LINES} lines now. Well done: lower LONG_FUNCTIONS_MAX.",
        found.len()
    );
}

#[test]
fn the_ratchet_sees_what_a_function_is() {
    assert_eq!(function_name("pub(crate) const fn new<T>("), Some("new"));
    assert_eq!(function_name("async fn run(self) {"), Some("run"));
    assert_eq!(function_name("fn short() {}"), None);
    assert_eq!(function_name("let fn_name = 1;"), None);
}
