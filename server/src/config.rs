//! The running configuration: read at the start, read and changed by CONFIG, written back by CONFIG REWRITE.
//!
//! [`Settings`] holds the typed values, one field per directive; it is shared as an [`Arc`] and never changes once
//! shared. A [`Config`] owns the current one, validates changes and replaces it. Acting on a change (a new port,
//! another `dir`) is up to the server, which calls [`Config::revert`] if it fails. Start reading at `directives.rs`,
//! the table of all directives.
//!
//! - `directives.rs`: the table: each directive once, with its type, default, bounds, flags and effect.
//! - `value.rs`, `choice.rs`, `special.rs`, `audit_events.rs`, `units.rs`: types of values, their syntax, how they are shown.
//! - `file.rs`: the format of files and command lines, and their errors.
//! - `rewrite.rs`: writing the values back into the file.

mod audit_events;
mod choice;
mod directives;
mod file;
mod rewrite;
mod special;
mod units;
mod value;

pub use audit_events::AuditEvents;
pub use choice::{
    AppendFsync, ChannelDefault, DisklessLoad, EndpointType, EvictionPolicy, FieldExpiryFormat, IoBackend,
    LogLevel, OomScoreAdj, Permission, PropagationError, SanitizeDump, Supervision, SyslogFacility,
    TlsClientAuth, TlsClientUser,
};
pub use directives::{Check, DIRECTIVES, Directive, DirectiveEffect, DirectiveFlags, Row, Settings, find};
pub use file::{ConfigError, ConfigSource, Declaration, LinePosition};
pub(crate) use file::{quote, split_args};
pub use rewrite::Scope;
pub(crate) use rewrite::replace as replace_file;
pub use special::{
    BindAddresses, ClientMemory, KeyspaceEvents, MemoryLimit, OomScores, OutputLimit, OutputLimits,
    Percentiles, Primary, ReplicaOf, SavePoint, SavePoints, ShutdownOptions,
};
pub use units::{Form, format_memory, parse_memory};
pub use value::{Assign, Emit, Reason, Secret, Value, WorkingDirectory};

use crate::error::describe;
use shardis_storage::glob;
use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Properties of a client that determine what it may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requester {
    /// The connection comes from this machine.
    pub local: bool,
    /// The node is loading its data.
    pub loading: bool,
}

/// Reason for which CONFIG SET changed nothing. `Display` is the error reply, code included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetError {
    /// There is no directive of this name.
    Unknown(String),
    /// The directive cannot be changed, or not to this value.
    Failed {
        /// The directive.
        name: String,
        /// The reason.
        reason: Reason,
    },
    /// The directive cannot be changed before the data is loaded.
    Loading,
}

impl SetError {
    /// The error for a valid change that could not be carried out.
    pub fn failed(name: impl Into<String>, reason: impl Into<Reason>) -> Self {
        Self::Failed {
            name: name.into(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                write!(
                    f,
                    "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
                )
            }
            Self::Failed { name, reason } => {
                write!(
                    f,
                    "ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"
                )
            }
            Self::Loading => f.write_str("LOADING Redis is loading the dataset in memory"),
        }
    }
}

impl std::error::Error for SetError {}

/// Reason for which CONFIG REWRITE left the file unchanged. `Display` is the error reply, code included.
#[derive(Debug)]
pub enum RewriteError {
    /// The node was started without a file.
    NoFile,
    /// The file cannot be read or replaced.
    Io(io::Error),
}

impl fmt::Display for RewriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile => f.write_str("ERR The server is running without a config file"),
            Self::Io(error) => write!(f, "ERR Rewriting config file: {}", describe(error)),
        }
    }
}

impl std::error::Error for RewriteError {}

impl From<io::Error> for RewriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The configuration of one node.
#[derive(Debug, Default)]
pub struct Config {
    settings: Arc<Settings>,
    file: Option<PathBuf>,
    renamed: Vec<Declaration>,
    users: Vec<Declaration>,
}

impl Config {
    /// Reads the configuration a node starts with.
    ///
    /// # Errors
    /// The first line that is wrong, or file that cannot be read.
    pub fn load(source: &ConfigSource) -> Result<Self, ConfigError> {
        Self::load_with(source, &mut io::stdin())
    }

    /// Reads the configuration like [`Config::load`], with another reader as standard input.
    ///
    /// # Errors
    /// The errors of [`Config::load`].
    pub fn load_with(source: &ConfigSource, stdin: &mut dyn Read) -> Result<Self, ConfigError> {
        // The path is made absolute first: `dir` may move the process.
        let path = source
            .path
            .as_ref()
            .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
        let source = ConfigSource {
            path,
            ..source.clone()
        };
        let loaded = file::load(&source, stdin)?;
        Ok(Self {
            settings: Arc::new(loaded.settings),
            file: source.path,
            renamed: loaded.renamed,
            users: loaded.users,
        })
    }

    /// The current values. The returned settings never change.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings)
    }

    /// The absolute path of the file the configuration was read from, if any.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The `rename-command` lines: a command and its new name, which is empty if the command is to be removed.
    pub fn renamed_commands(&self) -> &[Declaration] {
        &self.renamed
    }

    /// The `user` lines: a name and its rules.
    pub fn users(&self) -> &[Declaration] {
        &self.users
    }

    /// The names and values that CONFIG GET shows for these patterns. A name without wildcards is found in any case,
    /// and returned as it was asked for; hidden directives are found only in this way. Each name is returned once.
    pub fn get(&self, patterns: &[&[u8]]) -> Vec<(String, Vec<u8>)> {
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        for pattern in patterns {
            let wild = pattern.iter().any(|byte| b"*?[".contains(byte));
            for directive in DIRECTIVES
                .iter()
                .filter(|directive| !(wild && directive.is(DirectiveFlags::HIDDEN)))
            {
                for name in directive.names() {
                    let hit = if wild {
                        glob::matches(pattern, name.as_bytes(), true)
                    } else {
                        pattern.eq_ignore_ascii_case(name.as_bytes())
                    };
                    if hit && seen.insert(name) {
                        let name = if wild {
                            name.into()
                        } else {
                            String::from_utf8_lossy(pattern)
                        };
                        found.push((name.into_owned(), directive.show(&self.settings)));
                    }
                }
            }
        }
        found
    }

    /// Changes some directives, all or none, and returns the names of those whose value has changed, or what it names may have.
    ///
    /// # Errors
    /// The first directive that cannot be changed; then no setting has changed.
    pub fn set(
        &mut self,
        pairs: &[(&[u8], &[u8])],
        requester: Requester,
    ) -> Result<Vec<&'static str>, SetError> {
        let mut chosen: Vec<(&'static Directive, &'static str, &[u8])> = Vec::with_capacity(pairs.len());
        for (given, value) in pairs {
            let (directive, name) = self.changeable(given, requester)?;
            // The number of directives bounds this list, whatever a client sends.
            if chosen.iter().any(|(_, earlier, _)| *earlier == name) {
                return Err(SetError::failed(
                    String::from_utf8_lossy(given),
                    "duplicate parameter",
                ));
            }
            chosen.push((directive, name, value));
        }
        let mut settings = Settings::clone(&self.settings);
        for (directive, name, value) in &chosen {
            set_text(directive, &mut settings, value).map_err(|reason| SetError::failed(*name, reason))?;
            if directive.is(DirectiveFlags::FIXED)
                && directive.show(&settings) != directive.show(&self.settings)
            {
                return Err(SetError::failed(*name, CANNOT_CHANGE));
            }
        }
        let changed = chosen.iter().map(|(directive, ..)| *directive);
        let changed = changed.filter(|directive| {
            directive.is(DirectiveFlags::REREAD)
                || directive.show(&settings) != directive.show(&self.settings)
        });
        let changed = changed.map(|directive| directive.row.name).collect();
        self.settings = Arc::new(settings);
        Ok(changed)
    }

    /// The directive of this name, and its name, if the requester may change it now.
    fn changeable(
        &self,
        given: &[u8],
        requester: Requester,
    ) -> Result<(&'static Directive, &'static str), SetError> {
        let text = || String::from_utf8_lossy(given).into_owned();
        let directive = find(given).ok_or_else(|| SetError::Unknown(text()))?;
        if directive.is(DirectiveFlags::IMMUTABLE) {
            return Err(SetError::failed(text(), CANNOT_CHANGE));
        }
        let permitted = self.settings.enable_protected_configs.allows(requester.local);
        if directive.is(DirectiveFlags::PROTECTED) && !permitted {
            return Err(SetError::failed(text(), "can't set protected config"));
        }
        if directive.is(DirectiveFlags::DENY_LOADING) && requester.loading {
            return Err(SetError::Loading);
        }
        let name = directive
            .names()
            .find(|name| given.eq_ignore_ascii_case(name.as_bytes()));
        Ok((directive, name.unwrap_or(directive.row.name)))
    }

    /// Changes one directive for the server itself or the embedding program, whatever its flags: REPLICAOF changes
    /// `replicaof`, a test sets `cluster-enabled` before the start.
    ///
    /// # Errors
    /// The errors of [`Config::set`].
    pub fn assign(&mut self, name: &str, value: &[u8]) -> Result<(), SetError> {
        let directive = find(name.as_bytes()).ok_or_else(|| SetError::Unknown(name.to_owned()))?;
        let settings = Arc::make_mut(&mut self.settings);
        set_text(directive, settings, value).map_err(|reason| SetError::failed(name, reason))
    }

    /// Returns to earlier settings, as [`Config::settings`] gave them.
    pub fn revert(&mut self, previous: Arc<Settings>) {
        self.settings = previous;
    }

    /// Writes the current values into the configuration file. `users` are the rules of all users as ACL LIST prints
    /// them, without the word `user`; empty if users have a file of their own.
    ///
    /// # Errors
    /// Without a file, or if it cannot be replaced; the old file is unchanged then.
    pub fn rewrite(&self, users: &[Vec<u8>], scope: Scope) -> Result<(), RewriteError> {
        let path = self.file.as_deref().ok_or(RewriteError::NoFile)?;
        let old = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            result => result?,
        };
        rewrite::replace(path, &rewrite::render(&old, &self.settings, users, scope))?;
        Ok(())
    }

    /// The name of a directive that acts on the whole process, if one is set.
    pub fn of_process(&self) -> Option<&'static str> {
        let defaults = Settings::default();
        let is_set = |directive: &&Directive| directive.show(&self.settings) != directive.show(&defaults);
        let mut of_process = DIRECTIVES.iter().filter(|row| row.is(DirectiveFlags::PROCESS));
        of_process.find(is_set).map(|directive| directive.row.name)
    }

    /// Log lines for the directives that are set but have no meaning here.
    pub fn notices(&self) -> Vec<String> {
        let defaults = Settings::default();
        // An empty value disables the feature, so that nothing is missing.
        let set = |directive: &&Directive| {
            let value = directive.show(&self.settings);
            !value.is_empty() && value != directive.show(&defaults)
        };
        DIRECTIVES.iter().filter(set).filter_map(notice).collect()
    }
}

const CANNOT_CHANGE: &str = "can't set immutable config";

/// The log line for a directive that has no meaning here; `None` if the directive has one.
pub fn notice(directive: &Directive) -> Option<String> {
    match directive.row.effect {
        DirectiveEffect::Applied => None,
        DirectiveEffect::Accepted(why) => Some(format!(
            "The directive '{}' is kept but changes nothing: {why}",
            directive.row.name
        )),
    }
}

/// Sets a directive to a value that is one text.
fn set_text(directive: &Directive, settings: &mut Settings, text: &[u8]) -> Result<(), Reason> {
    directive
        .value_mut(settings)
        .assign(&directive.row, &directive.args(text), Assign::Replace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs<'a>(texts: &[(&'a str, &'a str)]) -> Vec<(&'a [u8], &'a [u8])> {
        texts
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect()
    }

    fn set(config: &mut Config, texts: &[(&str, &str)]) -> Result<Vec<&'static str>, String> {
        config
            .set(&pairs(texts), Requester::default())
            .map_err(|error| error.to_string())
    }

    fn get(config: &Config, pattern: &str) -> Vec<(String, String)> {
        let found = config.get(&[pattern.as_bytes()]).into_iter();
        found
            .map(|(name, value)| (name, String::from_utf8(value).unwrap()))
            .collect()
    }

    fn one(config: &Config, name: &str) -> String {
        get(config, name).remove(0).1
    }

    #[test]
    fn get_shows_values_as_tools_expect_them() {
        let config = Config::default();
        let limits = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        for (name, value) in [
            ("save", "3600 1 300 100 60 10000"),
            ("client-output-buffer-limit", limits),
            ("bind", "* -::*"),
            ("proto-max-bulk-len", "536870912"),
            ("maxmemory-policy", "noeviction"),
            ("appendonly", "no"),
            ("latency-tracking-info-percentiles", "50 99 99.9"),
            ("oom-score-adj-values", "0 200 800"),
            ("unixsocketperm", "0"),
            ("replicaof", ""),
            ("watchdog-period", "0"),
        ] {
            assert_eq!(one(&config, name), value, "{name}");
        }
    }

    #[test]
    fn get_finds_names_aliases_and_patterns_once() {
        let config = Config::default();
        let names = |patterns: &[&str]| {
            let patterns: Vec<&[u8]> = patterns.iter().map(|pattern| pattern.as_bytes()).collect();
            config
                .get(&patterns)
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(&["LIST-max-*"]),
            ["list-max-listpack-size", "list-max-ziplist-size"]
        );
        assert_eq!(names(&["list-max-listpack-size", "list-max-*"]).len(), 2);
        assert_eq!(names(&["LIST-MAX-ZIPLIST-SIZE"]), ["LIST-MAX-ZIPLIST-SIZE"]);
        assert_eq!(names(&["port", "PORT"]), ["port"]);
        assert!(names(&["nope", "include", "s\\ave"]).is_empty());
        assert!(!names(&["*"]).contains(&"watchdog-period".to_owned()));
        assert!(names(&["*"]).contains(&"lua-time-limit".to_owned()));
    }

    #[test]
    fn set_tells_what_changed() {
        let mut config = Config::default();
        let changed = set(
            &mut config,
            &[("HZ", "20"), ("timeout", "0"), ("slave-priority", "3")],
        );
        assert_eq!(changed, Ok(vec!["hz", "replica-priority"]));
        assert_eq!(
            (one(&config, "hz"), one(&config, "replica-priority")),
            ("20".into(), "3".into())
        );
    }

    #[test]
    fn set_refuses_in_the_words_clients_know() {
        let failed = |name: &str, reason: &str| {
            format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}")
        };
        let policies = "argument(s) must be one of the following: volatile-lru, volatile-lfu, volatile-random, \
                        volatile-ttl, allkeys-lru, allkeys-lfu, allkeys-random, noeviction";
        let integer = "argument couldn't be parsed into an integer";
        let cases: &[(&[(&str, &str)], String)] = &[
            (
                &[("nope", "1")],
                "ERR Unknown option or number of arguments for CONFIG SET - 'nope'".into(),
            ),
            (
                &[("loadmodule", "1")],
                "ERR Unknown option or number of arguments for CONFIG SET - 'loadmodule'".into(),
            ),
            (&[("port", "abc")], failed("port", integer)),
            (&[("PORT", "x")], failed("port", integer)),
            (&[("slave-priority", "x")], failed("slave-priority", integer)),
            (
                &[("port", "70000")],
                failed("port", "argument must be between 0 and 65535 inclusive"),
            ),
            (
                &[("slowlog-log-slower-than", "-2")],
                failed(
                    "slowlog-log-slower-than",
                    "argument must be between -1 and 9223372036854775807 inclusive",
                ),
            ),
            (
                &[("appendonly", "maybe")],
                failed("appendonly", "argument must be 'yes' or 'no'"),
            ),
            (
                &[("maxmemory", "10xb")],
                failed("maxmemory", "argument must be a memory value"),
            ),
            (
                &[("maxmemory-policy", "foo")],
                failed("maxmemory-policy", policies),
            ),
            (
                &[("databases", "3")],
                failed("databases", "can't set immutable config"),
            ),
            (
                &[("slaveof", "no one")],
                failed("slaveof", "can't set immutable config"),
            ),
            (&[("dir", "/tmp")], failed("dir", "can't set protected config")),
            (&[("hz", "1"), ("hz", "2")], failed("hz", "duplicate parameter")),
            (
                &[("save", "900 1  300 2")],
                failed("save", "Invalid save parameters"),
            ),
        ];
        for (texts, expected) in cases {
            let mut config = Config::default();
            let before = config.settings();
            assert_eq!(set(&mut config, texts).as_ref(), Err(expected));
            assert!(Arc::ptr_eq(&before, &config.settings()));
        }
    }

    #[test]
    fn set_is_all_or_nothing_and_can_be_undone() {
        let mut config = Config::default();
        let before = config.settings();
        assert!(set(&mut config, &[("hz", "20"), ("port", "x")]).is_err());
        assert_eq!(one(&config, "hz"), "10");
        set(&mut config, &[("hz", "20")]).unwrap();
        assert_eq!(before.hz, 10, "settings handed out do not change");
        config.revert(before);
        assert_eq!(one(&config, "hz"), "10");
    }

    #[test]
    fn requesters_have_different_rights() {
        let mut config = Config::default();
        let (local, remote) = (
            Requester {
                local: true,
                ..Requester::default()
            },
            Requester::default(),
        );
        let change = pairs(&[("dbfilename", "x.rdb")]);
        assert!(config.set(&change, local).is_err());
        config.assign("enable-protected-configs", b"local").unwrap();
        assert!(config.set(&change, remote).is_err());
        assert_eq!(config.set(&change, local), Ok(vec!["dbfilename"]));
        let loading = Requester {
            loading: true,
            ..Requester::default()
        };
        let error = config.set(&pairs(&[("appendonly", "yes")]), loading).unwrap_err();
        assert_eq!(
            error.to_string(),
            "LOADING Redis is loading the dataset in memory"
        );
    }

    #[test]
    fn assign_knows_no_flags() {
        let mut config = Config::default();
        config.assign("slaveof", b"localhost 6380").unwrap();
        assert_eq!(one(&config, "replicaof"), "localhost 6380");
        config.assign("replicaof", b"no one").unwrap();
        assert_eq!(one(&config, "replicaof"), "");
        let error = config.assign("databases", b"0").unwrap_err().to_string();
        assert!(
            error.ends_with("argument must be between 1 and 2147483647 inclusive"),
            "{error}"
        );
        assert!(config.assign("nope", b"1").is_err());
    }

    #[test]
    fn everything_shown_can_be_set_back() {
        let mut config = Config::default();
        let options = [
            "--shutdown-on-sigint",
            "nosave",
            "force",
            "--maxmemory-clients",
            "5%",
            "--save",
            "",
        ];
        let options = ["--bind", "127.0.0.1", "::1", "--notify-keyspace-events", "AKEnm"]
            .iter()
            .chain(&options);
        let source = ConfigSource {
            options: options.map(|word| (*word).to_owned()).collect(),
            ..ConfigSource::default()
        };
        for round in 0..2 {
            for (name, value) in config.get(&[b"*"]) {
                let directive = find(name.as_bytes()).unwrap();
                if directive.is(DirectiveFlags::IMMUTABLE) || directive.is(DirectiveFlags::PROTECTED) {
                    continue;
                }
                let changed = config.set(&[(name.as_bytes(), value.as_slice())], Requester::default());
                let reread = directive.is(DirectiveFlags::REREAD).then_some(directive.row.name);
                assert_eq!(changed, Ok(Vec::from_iter(reread)), "round {round}: {name}");
            }
            config = Config::load(&source).unwrap();
        }
    }

    #[test]
    fn directives_without_meaning_are_told_once_set() {
        let mut config = Config::default();
        assert!(config.notices().is_empty());
        set(&mut config, &[("activedefrag", "yes"), ("hz", "20")]).unwrap();
        let [line] = &config.notices()[..] else {
            panic!("{:?}", config.notices())
        };
        assert!(
            line.contains("'activedefrag'") && line.contains("defragmented"),
            "{line}"
        );
        assert_eq!(notice(find(b"hz").unwrap()), None);
    }

    #[test]
    fn every_directive_without_meaning_is_told_in_one_line() {
        const VALUES: [&str; 9] = [
            "yes",
            "no",
            "1",
            "2",
            "100",
            "70000",
            "allchannels",
            "hostname",
            "panic",
        ];
        let without = DIRECTIVES
            .iter()
            .filter(|directive| directive.row.effect != DirectiveEffect::Applied);
        for directive in without {
            let mut config = Config::default();
            let initial = directive.show(&config.settings);
            let is_set = VALUES.iter().any(|value| {
                let settings = Arc::make_mut(&mut config.settings);
                set_text(directive, settings, value.as_bytes()).is_ok() && directive.show(settings) != initial
            });
            assert!(is_set, "{}: none of the values will do", directive.row.name);
            let told = config.notices();
            let name = format!("'{}'", directive.row.name);
            assert!(told.len() == 1 && told[0].contains(&name), "{name}: {told:?}");
        }
    }

    /// A configuration file of one test, removed when the test ends.
    struct ConfigFile(PathBuf);

    impl ConfigFile {
        fn new(name: &str, text: &str) -> Self {
            let path = std::env::temp_dir().join(format!("shardis-{}-{name}.conf", std::process::id()));
            std::fs::write(&path, text).unwrap();
            Self(path)
        }

        fn load(&self, options: &[&str]) -> Config {
            let options = options.iter().map(|word| (*word).to_owned()).collect();
            Config::load(&ConfigSource {
                path: Some(self.0.clone()),
                stdin: false,
                options,
            })
            .unwrap()
        }
    }

    impl Drop for ConfigFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_rewritten_file_says_the_same() {
        let text = "# mine\nsave 900 1\nsave 60 5\nrequirepass \"a b\\x00\\\"\"\nrename-command KEYS K\n\
                    slave-read-only no\nmaxmemory 1gb\nuser alice on\ndir /tmp\n";
        let file = ConfigFile::new("same", text);
        let mut config = file.load(&["--timeout", "9", "--shutdown-on-sigterm", "nosave", "now"]);
        set(
            &mut config,
            &[("maxmemory", "1500"), ("bind", ""), ("maxmemory-clients", "7%")],
        )
        .unwrap();
        set(
            &mut config,
            &[
                ("latency-tracking-info-percentiles", ""),
                ("masterauth", "\n'\"\\"),
            ],
        )
        .unwrap();
        config.assign("replicaof", b"::1 7000").unwrap();
        config
            .rewrite(&[b"alice on ~*".to_vec()], Scope::Changed)
            .unwrap();
        let again = file.load(&[]);
        assert!(*again.settings() == *config.settings());
        assert_eq!(
            again.renamed_commands()[0].args,
            config.renamed_commands()[0].args
        );
        assert_eq!(
            again.users()[0].args,
            [b"alice".to_vec(), b"on".to_vec(), b"~*".to_vec()]
        );
        let once = std::fs::read(&file.0).unwrap();
        assert!(once.starts_with(b"# mine\n"));
        again.rewrite(&[b"alice on ~*".to_vec()], Scope::Changed).unwrap();
        assert_eq!(
            std::fs::read(&file.0).unwrap(),
            once,
            "a second time changes nothing"
        );
        config.rewrite(&[], Scope::Everything).unwrap();
        let text = String::from_utf8(std::fs::read(&file.0).unwrap()).unwrap();
        for directive in DIRECTIVES {
            assert!(
                text.contains(&format!("\n{} ", directive.row.name)),
                "{}",
                directive.row.name
            );
        }
        assert!(*file.load(&[]).settings() == *config.settings());
    }

    #[test]
    fn without_a_file_there_is_nothing_to_rewrite() {
        let error = Config::default()
            .rewrite(&[], Scope::Changed)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "ERR The server is running without a config file");
    }

    #[test]
    fn a_deleted_file_is_written_anew() {
        let file = ConfigFile::new("gone", "port 7001\n");
        let config = file.load(&[]);
        std::fs::remove_file(&file.0).unwrap();
        config.rewrite(&[], Scope::Changed).unwrap();
        assert_eq!(one(&file.load(&[]), "port"), "7001");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// A rewritten file restores any values of the directives.
        #[test]
        fn any_settings_survive_a_rewrite(
            changes in prop::collection::vec((0..DIRECTIVES.len(), 0..3, any::<i64>(), "\\PC{0,12}"), 0..40),
            seed: u32,
        ) {
            let file = ConfigFile::new(&format!("any-{seed}"), "# start\nport 1\nsave 1 1\nsave 2 2\n");
            let mut config = file.load(&[]);
            for (index, kind, number, text) in changes {
                let row = &DIRECTIVES[index].row;
                let ranged = i128::from(number).rem_euclid(row.max - row.min + 1) + row.min;
                let value = match kind {
                    0 => row.form.show(ranged),
                    1 => format!("{text} {}", number >> 48),
                    _ if number % 2 == 0 => "yes".to_owned(),
                    _ => text,
                };
                // A refused value leaves the old one in place.
                let _ = config.assign(row.name, value.as_bytes());
            }
            if config.settings().cluster_enabled {
                config.assign("replicaof", b"no one").unwrap();
            }
            config.rewrite(&[], Scope::Changed).unwrap();
            prop_assert!(*file.load(&[]).settings() == *config.settings());
        }
    }
}
