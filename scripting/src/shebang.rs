//! The first line of a script or library: `#!lua name=… flags=…`.

use bitflags::bitflags;

use crate::error::HeaderError;

bitflags! {
    /// Conditions under which a script or function may run.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: u8 {
        /// The script writes nothing: it may run on a replica, when memory is short and by the `_RO` commands.
        const NO_WRITES = 1;
        /// Short memory does not keep it from running.
        const ALLOW_OOM = 1 << 1;
        /// Old data of a replica do not keep it from running.
        const ALLOW_STALE = 1 << 2;
        /// Cluster mode keeps it from running.
        const NO_CLUSTER = 1 << 3;
        /// Keys of several slots may be touched.
        const ALLOW_CROSS_SLOT_KEYS = 1 << 4;
    }
}

/// Flags by name, in the order in which FUNCTION LIST tells them.
pub const FLAG_NAMES: [(&str, Flags); 5] = [
    ("no-writes", Flags::NO_WRITES),
    ("allow-oom", Flags::ALLOW_OOM),
    ("allow-stale", Flags::ALLOW_STALE),
    ("no-cluster", Flags::NO_CLUSTER),
    ("allow-cross-slot-keys", Flags::ALLOW_CROSS_SLOT_KEYS),
];

impl Flags {
    /// The flag with this name.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Flags> {
        FLAG_NAMES
            .iter()
            .find(|(known, _)| known.as_bytes() == name)
            .map(|&(_, flag)| flag)
    }

    /// Names of the flags that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        FLAG_NAMES
            .into_iter()
            .filter(move |(_, flag)| self.contains(*flag))
            .map(|(name, _)| name)
    }
}

/// A script as its first line declares it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The declared flags; `None` without a first line of this kind. Then nothing is checked before the script runs,
    /// only each of its commands.
    pub flags: Option<Flags>,
    /// Length of the line, without its end: the code begins there, so that its lines keep their numbers.
    pub bytes: usize,
}

/// Reads the first line of a script.
///
/// # Errors
/// If the line begins with `#!` and is not a valid declaration.
pub fn parse_script(source: &[u8]) -> Result<Header, HeaderError> {
    if !source.starts_with(b"#!") {
        return Ok(Header::default());
    }
    let line = first_line(source).ok_or(HeaderError::Unended)?;
    let (engine, options) = engine_and_options(line);
    if engine != b"lua" {
        return Err(HeaderError::UnknownScriptEngine(engine.to_vec()));
    }
    let mut flags = Flags::empty();
    for word in options {
        let Some(names) = word.strip_prefix(b"flags=") else {
            return Err(HeaderError::UnknownOption(word.to_vec()));
        };
        if names.is_empty() {
            continue;
        }
        for name in names.split(|&byte| byte == b',') {
            flags |= Flags::named(name).ok_or_else(|| HeaderError::UnknownFlag(name.to_vec()))?;
        }
    }
    Ok(Header {
        flags: Some(flags),
        bytes: line.len(),
    })
}

/// A library as its first line declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryHeader {
    /// Name of the library.
    pub name: Vec<u8>,
    /// Length of the line, without its end.
    pub bytes: usize,
}

/// Reads the first line of a library.
///
/// # Errors
/// If there is no such line, or if it names no engine or no library.
pub fn parse_library(source: &[u8]) -> Result<LibraryHeader, HeaderError> {
    if !source.starts_with(b"#!") {
        return Err(HeaderError::MissingMetadata);
    }
    let line = first_line(source).ok_or(HeaderError::InvalidMetadata)?;
    let (engine, options) = engine_and_options(line);
    let mut name = None;
    for word in options {
        let Some(given) = strip_prefix_nocase(word, b"name=") else {
            return Err(HeaderError::InvalidMetadataValue(word.to_vec()));
        };
        if name.replace(given.to_vec()).is_some() {
            return Err(HeaderError::RepeatedName);
        }
    }
    let name = name.ok_or(HeaderError::MissingName)?;
    if !is_name(&name) {
        return Err(HeaderError::InvalidLibraryName);
    }
    if !engine.eq_ignore_ascii_case(b"lua") {
        return Err(HeaderError::UnknownLibraryEngine(engine.to_vec()));
    }
    Ok(LibraryHeader {
        name,
        bytes: line.len(),
    })
}

/// Whether this may be the name of a library or a function.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// The first line without its end. `None` if it has none.
fn first_line(source: &[u8]) -> Option<&[u8]> {
    let end = source.iter().position(|&byte| byte == b'\n')?;
    Some(&source[..end])
}

/// The name of the engine behind `#!`, which may be empty, and the words that follow it.
fn engine_and_options(line: &[u8]) -> (&[u8], impl Iterator<Item = &[u8]>) {
    let mut words = line[2..].split(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
    let engine = words.next().unwrap_or_default();
    (engine, words.filter(|word| !word.is_empty()))
}

fn strip_prefix_nocase<'a>(word: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = word.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script_error(source: &[u8]) -> String {
        parse_script(source).expect_err("an invalid line").to_string()
    }

    fn library_error(source: &[u8]) -> String {
        parse_library(source).expect_err("an invalid line").to_string()
    }

    #[test]
    fn a_script_without_the_line_has_no_flags() {
        assert_eq!(parse_script(b"return 1"), Ok(Header::default()));
    }

    #[test]
    fn flags_are_read() {
        let header = parse_script(b"#!lua flags=no-writes,allow-stale\nreturn 1").expect("valid");
        assert_eq!(header.flags, Some(Flags::NO_WRITES | Flags::ALLOW_STALE));
        assert_eq!(header.bytes, b"#!lua flags=no-writes,allow-stale".len());
        assert_eq!(
            parse_script(b"#!lua flags=\nreturn 1").map(|header| header.flags),
            Ok(Some(Flags::empty()))
        );
    }

    #[test]
    fn errors_of_a_script_have_the_texts_of_redis() {
        for (source, text) in [
            (
                &b"#!lua flags=xx\nreturn 1"[..],
                "ERR Unexpected flag in script shebang: xx",
            ),
            (
                b"#!lua flags=no-writes,\nreturn 1",
                "ERR Unexpected flag in script shebang: ",
            ),
            (b"#!lua x=1\nreturn 1", "ERR Unknown lua shebang option: x=1"),
            (b"#!js\nreturn 1", "ERR Unexpected engine in script shebang: #!js"),
            (b"#!\nreturn 1", "ERR Unexpected engine in script shebang: #!"),
            (b"#!lua", "ERR Invalid script shebang"),
        ] {
            assert_eq!(script_error(source), text);
        }
    }

    #[test]
    fn errors_of_a_library_have_the_texts_of_redis() {
        for (source, text) in [
            (&b"return 1"[..], "ERR Missing library metadata"),
            (b"#!lua", "ERR Invalid library metadata"),
            (b"#!lua\nreturn 1", "ERR Library name was not given"),
            (b"#!js name=x\nreturn 1", "ERR Engine 'js' not found"),
            (
                b"#!lua name=a-b\nreturn 1",
                "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one character long",
            ),
            (
                b"#!lua name=x y=1\nreturn 1",
                "ERR Invalid metadata value given: y=1",
            ),
            (
                b"#!lua name=x name=y\nreturn 1",
                "ERR Invalid metadata value, name argument was given multiple times",
            ),
        ] {
            assert_eq!(library_error(source), text);
        }
    }

    #[test]
    fn the_name_of_a_library_is_read() {
        let header = parse_library(b"#!lua name=my_lib\nreturn 1").expect("valid");
        assert_eq!((header.name.as_slice(), header.bytes), (&b"my_lib"[..], 17));
    }
}
