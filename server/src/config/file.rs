//! The format of a configuration: lines of directives from a file, standard input and the command line.
//!
//! The format is that of `redis.conf`: comments, double and single quotes, `include` with wildcards, directives that
//! may appear several times. Any error stops the start, and names the file, the line and the reason. Size, depth and
//! number of files are bounded.

use super::directives::{DirectiveFlags, Settings, find};
use super::value::{Assign, Reason};
use crate::error::describe;
use shardis_protocol::words;
use shardis_storage::glob;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The most bytes of one file or of standard input.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// The deepest nesting of `include`.
const INCLUDE_DEPTH_MAX: usize = 16;
/// The most files that one `include` with wildcards may match.
const INCLUDE_FILES_MAX: usize = 1024;

/// Directives of former versions that are ignored, with the number of their arguments.
const DEPRECATED: [(&str, usize); 3] = [
    ("list-max-ziplist-entries", 1),
    ("list-max-ziplist-value", 1),
    ("lua-replicate-commands", 1),
];

/// Directives that are allowed only in files.
const FILE_ONLY: [&str; 5] = ["include", "rename-command", "user", "loadmodule", "sentinel"];

/// Sources of a node's configuration; later ones override earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigSource {
    /// A file.
    pub path: Option<PathBuf>,
    /// Whether standard input is read after the file.
    pub stdin: bool,
    /// Arguments `--directive value …`, which override both.
    pub options: Vec<String>,
}

impl ConfigSource {
    /// Sorts the arguments of a command line, without the program's name: the first one may be a file; `-` as the
    /// first or the last argument means standard input; all others are options.
    pub fn from_args(args: &[String]) -> Self {
        let mut options = args;
        let mut source = Self::default();
        if let [first, rest @ ..] = options
            && !first.starts_with('-')
        {
            source.path = Some(PathBuf::from(first));
            options = rest;
        } else if let [first, rest @ ..] = options
            && first == "-"
        {
            source.stdin = true;
            options = rest;
        }
        if let [rest @ .., last] = options
            && last == "-"
        {
            source.stdin = true;
            options = rest;
        }
        source.options = options.to_vec();
        source
    }
}

/// Position of a line, for error messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinePosition {
    /// Path of the file, or name of another source.
    pub origin: Arc<str>,
    /// Line number, from 1.
    pub line: usize,
    /// The line, trimmed.
    pub text: String,
}

/// Error that prevents a node from starting with this configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A line is wrong.
    Line {
        /// Position of the line.
        place: LinePosition,
        /// The reason.
        reason: String,
    },
    /// The directives contradict each other, or one cannot be applied.
    Whole(String),
    /// A file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Unreadable { path, reason } = self {
            return write!(
                f,
                "Fatal error, can't open config file '{}': {reason}",
                path.display()
            );
        }
        writeln!(
            f,
            "\n*** FATAL CONFIG FILE ERROR (shardis {}) ***",
            env!("CARGO_PKG_VERSION")
        )?;
        match self {
            Self::Line { place, reason } => {
                writeln!(
                    f,
                    "Reading the configuration file, at line {} of {}",
                    place.line, place.origin
                )?;
                writeln!(f, ">>> '{}'", place.text)?;
                f.write_str(reason)
            }
            Self::Whole(reason) | Self::Unreadable { reason, .. } => f.write_str(reason),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A line for another part of the server, which may still find an error in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// The arguments after the directive's name.
    pub args: Vec<Vec<u8>>,
    /// Position of the line.
    pub place: LinePosition,
}

impl Declaration {
    /// An error in this line.
    pub fn error(&self, reason: impl Into<String>) -> ConfigError {
        ConfigError::Line {
            place: self.place.clone(),
            reason: reason.into(),
        }
    }
}

/// The result of reading a configuration.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// The values of all directives.
    pub(super) settings: Settings,
    /// `rename-command` lines: a command's name and its new one, which is empty if the command is to be removed.
    pub(super) renamed: Vec<Declaration>,
    /// `user` lines: a name and its rules.
    pub(super) users: Vec<Declaration>,
    /// Whether a `save` line was read: the first one replaces the default, others add to it.
    saves: bool,
}

/// Reads a whole configuration.
///
/// # Errors
/// The first error found.
pub(super) fn load(source: &ConfigSource, stdin: &mut dyn Read) -> Result<Loaded, ConfigError> {
    let mut loaded = Loaded::default();
    if let Some(path) = &source.path {
        loaded.file(path, 0)?;
    }
    if source.stdin {
        let path = Path::new("standard input");
        let text = read_bounded(stdin).map_err(|reason| unreadable(path, reason))?;
        loaded.text(&Arc::from("standard input"), &text, 0)?;
    }
    loaded.text(&Arc::from("the command line"), &option_lines(&source.options), 0)?;
    if loaded.settings.cluster_enabled && loaded.settings.replicaof.0.is_some() {
        return Err(ConfigError::Whole(
            "replicaof directive not allowed in cluster mode".to_owned(),
        ));
    }
    Ok(loaded)
}

fn unreadable(path: &Path, reason: String) -> ConfigError {
    ConfigError::Unreadable {
        path: path.to_owned(),
        reason,
    }
}

fn read_bounded(from: &mut dyn Read) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    from.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|error| describe(&error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err("File too large".to_owned());
    }
    Ok(text)
}

/// A line is wrong, or a file that it includes.
enum Fault {
    Here(Reason),
    Within(ConfigError),
}

impl From<&'static str> for Fault {
    fn from(reason: &'static str) -> Self {
        Self::Here(reason.into())
    }
}

impl Loaded {
    fn file(&mut self, path: &Path, depth: usize) -> Result<(), ConfigError> {
        let mut file = File::open(path).map_err(|error| unreadable(path, describe(&error)))?;
        let text = read_bounded(&mut file).map_err(|reason| unreadable(path, reason))?;
        self.text(&Arc::from(path.to_string_lossy()), &text, depth)
    }

    fn text(&mut self, origin: &Arc<str>, text: &[u8], depth: usize) -> Result<(), ConfigError> {
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = trim(line);
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let place = || LinePosition {
                origin: Arc::clone(origin),
                line: index + 1,
                text: String::from_utf8_lossy(line).into_owned(),
            };
            self.line(line, &place, depth).map_err(|fault| match fault {
                Fault::Here(reason) => ConfigError::Line {
                    place: place(),
                    reason: reason.into_owned(),
                },
                Fault::Within(error) => error,
            })?;
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], place: &dyn Fn() -> LinePosition, depth: usize) -> Result<(), Fault> {
        let words = split_args(line).ok_or("Unbalanced quotes in configuration line")?;
        let Some((name, args)) = words.split_first() else {
            return Ok(());
        };
        let name = name.to_ascii_lowercase();
        if let Some(result) = self.directive(&name, args) {
            return result.map_err(Fault::Here);
        }
        let declaration = || Declaration {
            args: args.to_vec(),
            place: place(),
        };
        match (name.as_slice(), args) {
            (b"include", [pattern]) => self.include(pattern, depth),
            (b"rename-command", [_, _]) => {
                self.renamed.push(declaration());
                Ok(())
            }
            (b"user", [_, ..]) => {
                self.users.push(declaration());
                Ok(())
            }
            (b"loadmodule", [_, ..]) => Err("Modules are not supported".into()),
            (b"sentinel", _) => Err("sentinel directive while not in sentinel mode".into()),
            _ if is_deprecated(&name, args.len()) => Ok(()),
            _ if name.contains(&b'.') && args.len() != 1 => {
                Err("Module config specified without value".into())
            }
            _ => Err("Bad directive or wrong number of arguments".into()),
        }
    }

    /// Sets a directive that has a value; `None` if there is none of that name.
    fn directive(&mut self, name: &[u8], args: &[Vec<u8>]) -> Option<Result<(), Reason>> {
        let directive = find(name)?;
        if args.len() != 1 && !directive.is(DirectiveFlags::MULTI_ARG) {
            return Some(Err("wrong number of arguments".into()));
        }
        // Several arguments may be in one pair of quotes.
        let args = match args {
            [text] => directive.args(text),
            _ => args.iter().map(Vec::as_slice).collect(),
        };
        let is_save = directive.row.name == "save";
        let how = if is_save && self.saves {
            Assign::Extend
        } else {
            Assign::Replace
        };
        self.saves |= is_save;
        Some(
            directive
                .value_mut(&mut self.settings)
                .assign(&directive.row, &args, how),
        )
    }

    /// Reads the files that a pattern matches. A pattern without a wildcard must match a file.
    fn include(&mut self, pattern: &[u8], depth: usize) -> Result<(), Fault> {
        if depth >= INCLUDE_DEPTH_MAX {
            return Err("Files include each other too deeply".into());
        }
        let pattern = std::str::from_utf8(pattern).map_err(|_| "argument must be valid UTF-8")?;
        let path = self.settings.dir.path().join(pattern);
        let files = if has_wildcard(pattern) {
            expand(&path)?
        } else {
            vec![path]
        };
        files
            .iter()
            .try_for_each(|file| self.file(file, depth + 1))
            .map_err(Fault::Within)
    }
}

fn is_deprecated(name: &[u8], args: usize) -> bool {
    DEPRECATED
        .iter()
        .any(|(known, count)| name == known.as_bytes() && args == *count)
}

/// Whether a line of this name is allowed in a configuration file although the directive has no value.
pub(super) fn is_file_only(name: &[u8]) -> bool {
    let deprecated = DEPRECATED.iter().map(|(known, _)| known);
    FILE_ONLY
        .iter()
        .chain(deprecated)
        .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// The existing files that match a path with wildcards, ordered by name.
fn expand(pattern: &Path) -> Result<Vec<PathBuf>, &'static str> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        match component.as_os_str().to_str() {
            Some(part) if matches!(component, Component::Normal(_)) && has_wildcard(part) => {
                found = found.iter().flat_map(|parent| children(parent, part)).collect();
            }
            _ => found.iter_mut().for_each(|path| path.push(component)),
        }
        if found.len() > INCLUDE_FILES_MAX {
            return Err("Too many files to include");
        }
    }
    found.retain(|path| path.exists());
    Ok(found)
}

/// The entries of a directory whose names match; those with a leading dot only if the pattern has one.
fn children(parent: &Path, pattern: &str) -> Vec<PathBuf> {
    let directory = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let names = entries.filter_map(Result::ok).map(|entry| entry.file_name());
    let matching = names.filter(|name| {
        let name = name.as_encoded_bytes();
        (pattern.starts_with('.') || !name.starts_with(b"."))
            && glob::matches(pattern.as_bytes(), name, false)
    });
    let mut paths: Vec<_> = matching.map(|name| parent.join(name)).collect();
    paths.sort();
    paths
}

/// The options of a command line as lines of a file.
///
/// `--name` begins a line, and the words after it are its arguments, in quotes. The word directly after a bare name
/// is always an argument, so that values may begin with `--`; only `--save` may have none, which clears the save
/// points.
fn option_lines(options: &[String]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut value_due = false;
    for (index, option) in options.iter().enumerate() {
        match option.strip_prefix("--") {
            Some(line) if !value_due => {
                if index > 0 {
                    text.push(b'\n');
                }
                text.extend_from_slice(line.as_bytes());
                let bare = split_args(line.as_bytes()).is_some_and(|words| words.len() == 1);
                let last = options.get(index + 1).is_none_or(|next| next.starts_with("--"));
                if bare && last && line.trim().eq_ignore_ascii_case("save") {
                    text.extend_from_slice(b" \"\"");
                } else {
                    value_due = bare;
                }
            }
            _ => {
                if index > 0 {
                    text.push(b' ');
                }
                text.extend_from_slice(&quote(option.as_bytes()));
                value_due = false;
            }
        }
    }
    text
}

/// A line without leading and trailing white space; form feeds belong to words, as in Redis.
pub(super) fn trim(line: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let begin = line.iter().position(is_text).unwrap_or(line.len());
    let end = line.iter().rposition(is_text).map_or(begin, |last| last + 1);
    &line[begin..end]
}

/// Splits a line into words by the rules of inline requests, which Redis uses for both. `None` if quotes are
/// unbalanced.
pub(crate) fn split_args(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    words::split(&mut line.to_vec(), |_, word| words.push(word.to_vec())).ok()?;
    Some(words)
}

/// Writes bytes in double quotes such that [`split_args`] reads them back as one word.
pub(crate) fn quote(bytes: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = Vec::with_capacity(bytes.len() + 2);
    text.push(b'"');
    for byte in bytes {
        match byte {
            b'\\' | b'"' => text.extend([b'\\', *byte]),
            b'\n' => text.extend(b"\\n"),
            b'\r' => text.extend(b"\\r"),
            b'\t' => text.extend(b"\\t"),
            0x07 => text.extend(b"\\a"),
            0x08 => text.extend(b"\\b"),
            b' '..=b'~' => text.push(*byte),
            _ => text.extend([
                b'\\',
                b'x',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
        }
    }
    text.push(b'"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A directory of one test, removed when the test ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("shardis-config-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path.canonicalize().unwrap())
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn load_text(text: &str) -> Result<Loaded, ConfigError> {
        load(
            &ConfigSource {
                stdin: true,
                ..ConfigSource::default()
            },
            &mut text.as_bytes(),
        )
    }

    fn load_options(options: &[&str]) -> Result<Loaded, ConfigError> {
        let source = ConfigSource {
            options: strings(options),
            ..ConfigSource::default()
        };
        load(&source, &mut std::io::empty())
    }

    fn shown(loaded: &Loaded, name: &str) -> String {
        String::from_utf8(find(name.as_bytes()).unwrap().show(&loaded.settings)).unwrap()
    }

    #[test]
    fn a_file_in_all_its_forms() {
        let text = "# comment\n\n  PORT 7000 \r\nbind 127.0.0.1 ::1\nmaxmemory 1gb\nrequirepass \"a b\\x00\"\n\
                    slave-priority 7\nclient-output-buffer-limit slave 1mb 2mb 3\n\
                    client-output-buffer-limit pubsub 1 2 3\nrename-command KEYS ''\nuser alice on +@all\n\
                    lua-replicate-commands yes\nlogfile ''";
        let loaded = load_text(text).unwrap();
        let settings = &loaded.settings;
        assert_eq!(settings.port, 7000);
        assert_eq!(settings.bind.0, ["127.0.0.1", "::1"]);
        assert_eq!(settings.maxmemory.bytes(), 1 << 30);
        assert_eq!(settings.requirepass.get(), Some(b"a b\0".as_slice()));
        assert_eq!(settings.replica_priority, 7);
        assert_eq!(settings.client_output_buffer_limit.replica.hard_bytes, 1 << 20);
        assert_eq!(settings.client_output_buffer_limit.pubsub.soft_seconds, 3);
        assert_eq!(loaded.renamed[0].args, [b"KEYS".to_vec(), Vec::new()]);
        assert_eq!(loaded.renamed[0].place.line, 10);
        assert_eq!(
            loaded.users[0].args,
            [b"alice".to_vec(), b"on".to_vec(), b"+@all".to_vec()]
        );
    }

    /// The expectations are those of a real server.
    #[test]
    fn vertical_tabs_and_form_feeds_separate_words_only_where_one_could_begin() {
        let loaded = load_text("port\t\x0b\x0c1\nrequirepass a\x0bb\x0c").unwrap();
        assert_eq!(loaded.settings.port, 1);
        assert_eq!(loaded.settings.requirepass.get(), Some(&b"a\x0bb\x0c"[..]));
    }

    #[test]
    fn save_lines_add_up_and_an_empty_one_clears() {
        for (text, expected) in [
            ("", "3600 1 300 100 60 10000"),
            ("save 900 1\nsave 300 10", "900 1 300 10"),
            ("save 900 1 5 5\nsave \"\"", ""),
            ("save", ""),
            ("save ''\nsave 7 8", "7 8"),
        ] {
            assert_eq!(shown(&load_text(text).unwrap(), "save"), expected, "{text:?}");
        }
    }

    #[test]
    fn wrong_lines_tell_where_and_why() {
        let cases = [
            ("port 1\nprot 1", 2, "Bad directive or wrong number of arguments"),
            ("port 1 2", 1, "wrong number of arguments"),
            ("\n\nport", 3, "wrong number of arguments"),
            ("port abc", 1, "argument couldn't be parsed into an integer"),
            ("requirepass \"abc", 1, "Unbalanced quotes in configuration line"),
            ("dir /nonexistent-directory", 1, "No such file or directory"),
            ("foo.bar", 1, "Module config specified without value"),
            ("foo.bar 1", 1, "Bad directive or wrong number of arguments"),
            ("loadmodule /x.so", 1, "Modules are not supported"),
            (
                "sentinel monitor",
                1,
                "sentinel directive while not in sentinel mode",
            ),
            (
                "rename-command a",
                1,
                "Bad directive or wrong number of arguments",
            ),
            (
                "list-max-ziplist-entries 1 2",
                1,
                "Bad directive or wrong number of arguments",
            ),
            ("save 1 2 3", 1, "Invalid save parameters"),
        ];
        for (text, line, reason) in cases {
            match load_text(text) {
                Err(ConfigError::Line { place, reason: found }) => {
                    assert_eq!((place.line, found.as_str()), (line, reason), "{text:?}");
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
        let error = load_text("cluster-enabled yes\nreplicaof a 1").unwrap_err();
        assert_eq!(
            error,
            ConfigError::Whole("replicaof directive not allowed in cluster mode".to_owned())
        );
    }

    #[test]
    fn errors_read_as_operators_know_them() {
        let scratch = Scratch::new("error");
        let path = scratch.write("node.conf", "port 0\n\n  prot 1  \n");
        let source = ConfigSource {
            path: Some(path.clone()),
            ..ConfigSource::default()
        };
        let text = load(&source, &mut std::io::empty()).unwrap_err().to_string();
        let wanted = format!(
            "\n*** FATAL CONFIG FILE ERROR (shardis {}) ***\n\
             Reading the configuration file, at line 3 of {}\n>>> 'prot 1'\n\
             Bad directive or wrong number of arguments",
            env!("CARGO_PKG_VERSION"),
            path.display()
        );
        assert_eq!(text, wanted);
        let missing = ConfigSource {
            path: Some(PathBuf::from("/nonexistent.conf")),
            ..ConfigSource::default()
        };
        let text = load(&missing, &mut std::io::empty()).unwrap_err().to_string();
        assert_eq!(
            text,
            "Fatal error, can't open config file '/nonexistent.conf': No such file or directory"
        );
    }

    #[test]
    fn include_with_and_without_wildcards() {
        let scratch = Scratch::new("include");
        scratch.write("b.inc", "hz 20\ntimeout 2");
        scratch.write("a.inc", "hz 30\ntimeout 1");
        scratch.write(".hidden.inc", "timeout 99");
        let root = scratch.0.display();
        let loaded = load_text(&format!("hz 1\ninclude {root}/*.inc\nhz 40")).unwrap();
        assert_eq!(
            (loaded.settings.hz, loaded.settings.timeout),
            (40, 2),
            "files come in order"
        );
        let loaded = load_text(&format!("dir {root}\ninclude ?.inc")).unwrap();
        assert_eq!(loaded.settings.hz, 20, "relative to the directory set before");
        load_text(&format!("include {root}/none*")).unwrap();
        let error = load_text(&format!("include {root}/none")).unwrap_err();
        assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
        let own = scratch.write("loop.conf", "");
        std::fs::write(&own, format!("include {}", own.display())).unwrap();
        let error = load_text(&format!("include {}", own.display()))
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("Files include each other too deeply"), "{error}");
    }

    #[test]
    fn options_are_directives() {
        let cases: &[(&[&str], &str, &str)] = &[
            (&["--save", ""], "save", ""),
            (&["--save"], "save", ""),
            (&["--save", "--hz", "20"], "hz", "20"),
            (&["--save", "5", "6", "--save", "7", "8"], "save", "5 6 7 8"),
            (&["--save", "5 6 7 8"], "save", "5 6 7 8"),
            (&["--replicaof", "127.0.0.1 7000"], "replicaof", "127.0.0.1 7000"),
            (
                &["--port", "0", "--bind", "1.2.3.4", "::1"],
                "bind",
                "1.2.3.4 ::1",
            ),
            (
                &["--proc-title-template", "--my--title", "--hz", "5"],
                "proc-title-template",
                "--my--title",
            ),
            (&["--hz 7", "--maxmemory 5"], "maxmemory", "5"),
            (
                &["--shutdown-on-sigint", "nosave", "force"],
                "shutdown-on-sigint",
                "nosave force",
            ),
            (
                &["--proc-title-template", "a \"b"],
                "proc-title-template",
                "a \"b",
            ),
        ];
        for (options, name, expected) in cases {
            assert_eq!(
                shown(&load_options(options).unwrap(), name),
                *expected,
                "{options:?}"
            );
        }
        for (options, line, text) in [
            (&["--hz", "1", "--port", "1", "2"], 2, r#"port "1" "2""#),
            (
                &["--port", "1", "--hz", "--timeout", "3"],
                2,
                r#"hz "--timeout" "3""#,
            ),
            (&["-", "--hz", "5", "--hz", "5"], 1, r#""-""#),
        ] {
            match load_options(options) {
                Err(ConfigError::Line { place, .. }) => {
                    assert_eq!((place.line, place.text.as_str()), (line, text));
                    assert_eq!(&*place.origin, "the command line");
                }
                other => panic!("{options:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn command_lines_are_sorted() {
        let check = |args: &[&str], path: &str, stdin: bool, options: &[&str]| {
            let path = (!path.is_empty()).then(|| PathBuf::from(path));
            let wanted = ConfigSource {
                path,
                stdin,
                options: strings(options),
            };
            assert_eq!(ConfigSource::from_args(&strings(args)), wanted, "{args:?}");
        };
        check(&[], "", false, &[]);
        check(&["a.conf"], "a.conf", false, &[]);
        check(&["a.conf", "--hz", "1"], "a.conf", false, &["--hz", "1"]);
        check(&["-"], "", true, &[]);
        check(&["-", "--hz", "1"], "", true, &["--hz", "1"]);
        check(&["a.conf", "-"], "a.conf", true, &[]);
        check(&["--hz", "1", "-"], "", true, &["--hz", "1"]);
        check(&["--hz", "1", "a.conf"], "", false, &["--hz", "1", "a.conf"]);
    }

    #[test]
    fn later_sources_win() {
        let scratch = Scratch::new("order");
        let path = scratch.write("node.conf", "hz 1\ntimeout 1\nport 1\nsave 900 1");
        let source = ConfigSource {
            path: Some(path),
            stdin: true,
            options: strings(&["--hz", "3", "--save", "5", "5"]),
        };
        let loaded = load(&source, &mut "hz 2\ntimeout 2".as_bytes()).unwrap();
        let settings = &loaded.settings;
        assert_eq!((settings.hz, settings.timeout, settings.port), (3, 2, 1));
        assert_eq!(shown(&loaded, "save"), "900 1 5 5");
    }

    proptest! {
        #[test]
        fn quoted_words_read_back(words: Vec<Vec<u8>>) {
            let line = words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(&b' ');
            prop_assert!(line.iter().all(|byte| (b' '..=b'~').contains(byte)));
            prop_assert_eq!(split_args(&line), Some(words));
        }

        #[test]
        fn no_line_panics(line: Vec<u8>) {
            let _ = split_args(&line);
        }
    }
}
