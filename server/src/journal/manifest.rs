//! [`Manifest`]: the text file that names the parts of the append-only file, in the order in which they are loaded.
//!
//! ```text
//! file appendonly.aof.2.base.rdb seq 2 type b
//! file appendonly.aof.1.incr.aof seq 1 type h
//! file appendonly.aof.2.incr.aof seq 2 type i
//! ```
//!
//! The *base* is the data at a cut of the journal, *increments* are what followed, one file behind the other. *History* are files
//! that a rewrite has replaced and that may be deleted. This module is pure text; `directory.rs` reads and replaces the file.
//!
//! The format is Redis's: pairs of a name and a value in any order, names in any case, pairs with unknown names for later versions;
//! a `#` in the first column begins a comment. A line is bounded, since tools read it into a buffer of that size.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::config::{quote, split_args};

/// Bytes of a line, its end included.
const LINE_BYTES_MAX: usize = 1024;

/// Pairs that a line has at least.
const PAIRS_MIN: usize = 3;

/// The parts of an append-only file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The data that the increments begin with; none where they begin with nothing.
    pub(crate) base: Option<Part>,
    /// Files that are not needed any more.
    pub(crate) history: Vec<Part>,
    /// The files of commands, the oldest first. The last one is written.
    pub(crate) increments: Vec<Part>,
}

/// A file of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its name in the directory of the manifest.
    pub(crate) name: OsString,
    /// Its number among the files of its kind, from 1 on.
    pub(crate) sequence: u64,
}

/// The form of a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BaseForm {
    /// A snapshot.
    Rdb,
    /// Commands that build the data.
    Commands,
}

/// Error in the text of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestError {
    /// The number of the line, from 1 on, and its text; none where it is not about a readable line.
    line: Option<(usize, String)>,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Empty,
    TooLong,
    Format,
    Path,
    SecondBase,
    NotMonotonic,
    UnknownType,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n*** FATAL AOF MANIFEST FILE ERROR ***")?;
        if let Some((number, text)) = &self.line {
            writeln!(f, "Reading the manifest file, at line {number}")?;
            writeln!(f, ">>> '{text}'")?;
        }
        f.write_str(self.fault.reason())
    }
}

impl std::error::Error for ManifestError {}

impl Fault {
    /// The reason, in the words that operators search logs for.
    fn reason(self) -> &'static str {
        match self {
            Self::Empty => "Found an empty AOF manifest",
            Self::TooLong => "The AOF manifest file contains too long line",
            Self::Format => "Invalid AOF manifest file format",
            Self::Path => "File can't be a path, just a filename",
            Self::SecondBase => "Found duplicate base file information",
            Self::NotMonotonic => "Found a non-monotonic sequence number",
            Self::UnknownType => "Unknown AOF file type",
        }
    }
}

impl Part {
    /// The base number `sequence` of the append-only file `prefix`.
    pub(crate) fn base(prefix: &str, sequence: u64, form: BaseForm) -> Self {
        let suffix = match form {
            BaseForm::Rdb => "rdb",
            BaseForm::Commands => "aof",
        };
        Self::named(format!("{prefix}.{sequence}.base.{suffix}"), sequence)
    }

    /// The increment number `sequence` of the append-only file `prefix`.
    pub(crate) fn increment(prefix: &str, sequence: u64) -> Self {
        Self::named(format!("{prefix}.{sequence}.incr.aof"), sequence)
    }

    fn named(name: String, sequence: u64) -> Self {
        Self {
            name: name.into(),
            sequence,
        }
    }
}

impl Manifest {
    /// Reads the text of a manifest.
    ///
    /// # Errors
    /// The first fault.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        if text.is_empty() {
            return Err(ManifestError {
                line: None,
                fault: Fault::Empty,
            });
        }
        let mut manifest = Self::default();
        for (index, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
            if line.first() == Some(&b'#') && line.len() <= LINE_BYTES_MAX {
                continue;
            }
            if line.len() > LINE_BYTES_MAX || line.last() != Some(&b'\n') {
                return Err(ManifestError {
                    line: None,
                    fault: Fault::TooLong,
                });
            }
            let line = line.trim_ascii();
            manifest.add_line(line).map_err(|fault| ManifestError {
                line: Some((index + 1, String::from_utf8_lossy(line).into_owned())),
                fault,
            })?;
        }
        Ok(manifest)
    }

    /// Adds the file that a line names.
    fn add_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let words = split_args(line).ok_or(Fault::Format)?;
        let (pairs, rest) = words.as_chunks::<2>();
        if pairs.len() < PAIRS_MIN || !rest.is_empty() {
            return Err(Fault::Format);
        }
        let (mut name, mut sequence, mut kind) = (None, None, None);
        for [key, value] in pairs {
            match key.to_ascii_lowercase().as_slice() {
                b"file" if value.contains(&b'/') => return Err(Fault::Path),
                b"file" => name = Some(value).filter(|value| !value.is_empty()),
                b"seq" => sequence = number(value),
                b"type" => kind = value.first(),
                _ => {}
            }
        }
        let (Some(name), Some(sequence), Some(kind)) = (name, sequence, kind) else {
            return Err(Fault::Format);
        };
        let name = OsString::from_vec(name.clone());
        self.add(*kind, Part { name, sequence })
    }

    fn add(&mut self, kind: u8, part: Part) -> Result<(), Fault> {
        match kind {
            b'b' if self.base.is_some() => return Err(Fault::SecondBase),
            b'b' => self.base = Some(part),
            b'h' => self.history.push(part),
            b'i' if part.sequence <= self.last_increment() => return Err(Fault::NotMonotonic),
            b'i' => self.increments.push(part),
            _ => return Err(Fault::UnknownType),
        }
        Ok(())
    }

    /// The text of the manifest.
    pub(crate) fn format(&self) -> Vec<u8> {
        let base = self.base.iter().map(|part| (part, b'b'));
        let history = self.history.iter().map(|part| (part, b'h'));
        let increments = self.increments.iter().map(|part| (part, b'i'));
        let mut text = Vec::new();
        for (part, kind) in base.chain(history).chain(increments) {
            text.extend_from_slice(b"file ");
            text.extend(word(&part.name));
            text.extend_from_slice(format!(" seq {} type {}\n", part.sequence, char::from(kind)).as_bytes());
        }
        text
    }

    /// Whether it names nothing to load.
    pub(crate) fn is_empty(&self) -> bool {
        self.base.is_none() && self.increments.is_empty()
    }

    /// The increment that comes next. Its name is no other file's, whatever names people have given to those.
    pub(crate) fn next_increment(&self, prefix: &str) -> Part {
        self.unnamed(self.last_increment() + 1, |sequence| {
            Part::increment(prefix, sequence)
        })
    }

    /// The base that comes next, whose name is no other file's either.
    pub(crate) fn next_base(&self, prefix: &str, form: BaseForm) -> Part {
        self.unnamed(self.base_sequence() + 1, |sequence| {
            Part::base(prefix, sequence, form)
        })
    }

    /// The first part, from number `first` on, that is not named yet.
    fn unnamed(&self, first: u64, part: impl Fn(u64) -> Part) -> Part {
        let named = || self.base.iter().chain(&self.history).chain(&self.increments);
        let is_free = |part: &Part| named().all(|other| other.name != part.name);
        let mut parts = (first..).map(part).filter(is_free);
        parts
            .next()
            .expect("a manifest names fewer files than there are numbers")
    }

    /// Number of the last increment; 0 without one.
    pub(crate) fn last_increment(&self) -> u64 {
        self.increments.last().map_or(0, |part| part.sequence)
    }

    /// Number of the base; 0 without one.
    pub(crate) fn base_sequence(&self) -> u64 {
        self.base.as_ref().map_or(0, |part| part.sequence)
    }

    /// Puts a new base in the place of the old one and of the increments before number `first`, which become history.
    pub(crate) fn rebase(&mut self, base: Part, first: u64) {
        self.history.extend(self.base.replace(base));
        let kept = self.increments.partition_point(|part| part.sequence < first);
        self.history.extend(self.increments.drain(..kept));
    }
}

/// The number of a part: positive, and as Redis reads it.
fn number(text: &[u8]) -> Option<u64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    u64::try_from(number).ok().filter(|&number| number > 0)
}

/// A name as a word of a line: in quotes where it would not be read back otherwise.
fn word(name: &OsStr) -> Vec<u8> {
    let bytes = name.as_bytes();
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'\'');
    if bytes.iter().all(is_plain) {
        bytes.to_vec()
    } else {
        quote(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As redis-server 7.0 wrote it after a rewrite with `aof-disable-auto-gc`, and then with a name in need of quotes.
    const BY_REDIS: &str = "file appendonly.aof.2.base.rdb seq 2 type b\n\
                            file appendonly.aof.1.base.rdb seq 1 type h\n\
                            file appendonly.aof.1.incr.aof seq 1 type h\n\
                            file appendonly.aof.2.incr.aof seq 2 type i\n";

    #[test]
    fn a_manifest_of_redis_is_read_and_written_alike() {
        let manifest = Manifest::parse(BY_REDIS.as_bytes()).unwrap();
        let names: Vec<_> = manifest
            .base
            .iter()
            .chain(&manifest.increments)
            .map(|part| part.name.to_str().unwrap())
            .collect();
        assert_eq!(names, ["appendonly.aof.2.base.rdb", "appendonly.aof.2.incr.aof"]);
        assert_eq!(
            (
                manifest.base_sequence(),
                manifest.last_increment(),
                manifest.history.len()
            ),
            (2, 2, 2)
        );
        assert_eq!(manifest.format(), BY_REDIS.as_bytes());
        let quoted = b"file \"a b.aof.1.incr.aof\" seq 1 type i\n";
        let manifest = Manifest::parse(quoted).unwrap();
        assert_eq!(manifest.increments, [Part::increment("a b.aof", 1)]);
        assert_eq!(manifest.format(), quoted);
    }

    #[test]
    fn later_versions_and_people_may_add_to_it() {
        for text in [
            "# by hand\nFILE a SEQ 1 TYPE base\n",
            "type b seq 1 file a startoffset 5\n",
            "  file 'a' seq 1 type b\t\r\n#",
        ] {
            let base = Part::named("a".to_owned(), 1);
            let expected = Manifest {
                base: Some(base),
                ..Manifest::default()
            };
            assert_eq!(Manifest::parse(text.as_bytes()), Ok(expected), "{text}");
        }
        assert!(Manifest::parse(b"# nothing\n").unwrap().is_empty());
    }

    /// Each row was answered the same by redis-server 7.0, but for an empty name, which it takes for the directory.
    #[test]
    fn faults_have_the_texts_of_redis() {
        let long = format!("file a seq 1 type b{}\n", " ".repeat(1010));
        for (text, line, reason) in [
            ("", None, "Found an empty AOF manifest"),
            (
                "file a seq 1 type b",
                None,
                "The AOF manifest file contains too long line",
            ),
            (&long, None, "The AOF manifest file contains too long line"),
            ("\n", Some((1, "")), "Invalid AOF manifest file format"),
            (
                "#\nfile a seq 1\n",
                Some((2, "file a seq 1")),
                "Invalid AOF manifest file format",
            ),
            (
                "file a seq 1 type b x\n",
                Some((1, "file a seq 1 type b x")),
                "Invalid AOF manifest file format",
            ),
            (
                "file \"a seq 1 type b\n",
                Some((1, "file \"a seq 1 type b")),
                "Invalid AOF manifest file format",
            ),
            (
                "file a seq 0 type b\n",
                Some((1, "file a seq 0 type b")),
                "Invalid AOF manifest file format",
            ),
            (
                "file '' seq 1 type b\n",
                Some((1, "file '' seq 1 type b")),
                "Invalid AOF manifest file format",
            ),
            (
                "file a/b seq 1 type b\n",
                Some((1, "file a/b seq 1 type b")),
                "File can't be a path, just a filename",
            ),
            (
                "file a seq 1 type b\nfile b seq 2 type b\n",
                Some((2, "file b seq 2 type b")),
                "Found duplicate base file information",
            ),
            (
                "file a seq 2 type i\nfile b seq 2 type i\n",
                Some((2, "file b seq 2 type i")),
                "Found a non-monotonic sequence number",
            ),
            (
                "file a seq 1 type x\n",
                Some((1, "file a seq 1 type x")),
                "Unknown AOF file type",
            ),
        ] {
            let error = Manifest::parse(text.as_bytes()).unwrap_err();
            let expected = line.map(|(number, line)| (number, line.to_owned()));
            assert_eq!((&error.line, error.fault.reason()), (&expected, reason), "{text}");
        }
    }

    #[test]
    fn a_new_base_makes_history_of_what_it_replaces() {
        let mut manifest = Manifest::parse(BY_REDIS.as_bytes()).unwrap();
        manifest.history.clear();
        manifest.increments.push(Part::increment("appendonly.aof", 3));
        manifest.increments.push(Part::increment("appendonly.aof", 4));
        manifest.rebase(Part::base("appendonly.aof", 3, BaseForm::Commands), 4);
        let text = String::from_utf8(manifest.format()).unwrap();
        let expected = "file appendonly.aof.3.base.aof seq 3 type b\n\
                        file appendonly.aof.2.base.rdb seq 2 type h\n\
                        file appendonly.aof.2.incr.aof seq 2 type h\n\
                        file appendonly.aof.3.incr.aof seq 3 type h\n\
                        file appendonly.aof.4.incr.aof seq 4 type i\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_new_file_gets_a_name_that_no_other_file_has() {
        let text = b"file a.1.incr.aof seq 3 type b\nfile a.4.base.rdb seq 1 type h\nfile a.2.incr.aof seq 1 type i\n";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.next_increment("a"), Part::increment("a", 3));
        assert_eq!(
            manifest.next_base("a", BaseForm::Rdb),
            Part::base("a", 5, BaseForm::Rdb)
        );
        assert_eq!(
            manifest.next_base("a", BaseForm::Commands),
            Part::base("a", 4, BaseForm::Commands)
        );
        let fresh = Manifest::default();
        assert_eq!(fresh.next_increment("a"), Part::increment("a", 1));
        assert_eq!(
            fresh.next_base("a", BaseForm::Rdb),
            Part::base("a", 1, BaseForm::Rdb)
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(names in prop::collection::vec("[^/\0]{1,40}", 1..6), count in 0..3_usize) {
            let part = |(index, name): (usize, &String)| Part::named(name.clone(), index as u64 + 1);
            let mut parts: Vec<_> = names.iter().enumerate().map(part).collect();
            let base = parts.pop();
            let history = parts.split_off(parts.len().min(count));
            let manifest = Manifest { base, history, increments: parts };
            prop_assert_eq!(Manifest::parse(&manifest.format()), Ok(manifest));
        }

        #[test]
        fn no_text_makes_it_panic(text: Vec<u8>) {
            if let Ok(manifest) = Manifest::parse(&text)
                && manifest != Manifest::default()
            {
                prop_assert_eq!(Manifest::parse(&manifest.format()), Ok(manifest));
            }
        }
    }
}
