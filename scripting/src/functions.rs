//! [`Functions`]: the function libraries of a node, by name. What runs them is an [`crate::Engine`]; what is here is
//! data.
//!
//! A dump holds one record per library: the opcode of a snapshot, then its code as a string of a snapshot. Version and
//! checksum follow all of them, as in DUMP.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use shardis_storage::algorithm::lzf;
use shardis_storage::rdb::checksum::Checksum;

use crate::cache::Digest;
use crate::engine::FunctionRow;
use crate::error::LoadError;

/// A loaded library. Engines find its functions by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Its name.
    pub name: Vec<u8>,
    /// Its code, the first line included.
    pub code: Arc<[u8]>,
    /// Digest of the code.
    pub digest: Digest,
    /// Its functions, in the order in which it registered them.
    pub functions: Vec<FunctionRow>,
}

impl Library {
    pub(crate) fn new(
        name: Vec<u8>,
        code: Arc<[u8]>,
        digest: Digest,
        functions: Vec<FunctionRow>,
    ) -> Library {
        Library {
            name,
            code,
            digest,
            functions,
        }
    }
}

/// Error of a change to the libraries. `Display` gives the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FunctionsError {
    /// A library of this name exists.
    LibraryExists(Vec<u8>),
    /// A function of this name exists in another library.
    FunctionExists(Vec<u8>),
    /// No library has this name.
    NoLibrary,
    /// Version or checksum of a dump are wrong.
    InvalidPayload,
    /// A record of a dump is no library.
    NotAFunction,
    /// A record of a dump has the form of a version before the release of functions.
    Unreleased,
    /// A record of a dump is cut off or damaged.
    Damaged,
    /// A library of a dump cannot be loaded.
    Load(LoadError),
}

impl fmt::Display for FunctionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FunctionsError::LibraryExists(name) => {
                write!(
                    f,
                    "ERR Library '{}' already exists",
                    String::from_utf8_lossy(name)
                )
            }
            FunctionsError::FunctionExists(name) => {
                write!(f, "ERR Function {} already exists", String::from_utf8_lossy(name))
            }
            FunctionsError::NoLibrary => write!(f, "ERR Library not found"),
            FunctionsError::InvalidPayload => write!(f, "ERR DUMP payload version or checksum are wrong"),
            FunctionsError::NotAFunction => write!(f, "ERR given type is not a function"),
            FunctionsError::Unreleased => write!(f, "ERR Pre-GA function format not supported"),
            FunctionsError::Damaged => write!(f, "ERR failed loading the given functions payload"),
            FunctionsError::Load(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for FunctionsError {}

/// Fate of the libraries that exist when others are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestorePolicy {
    /// They stay; one of the same name is an error.
    Append,
    /// Libraries of the same name are replaced.
    Replace,
    /// All of them go.
    Flush,
}

/// Number of libraries and functions, for FUNCTION STATS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FunctionsStats {
    /// Libraries.
    pub libraries: usize,
    /// Functions.
    pub functions: usize,
}

/// The libraries of a node. Copies share them, so that a change can be tried on a copy.
#[derive(Clone, Debug, Default)]
pub struct Functions {
    libraries: BTreeMap<Vec<u8>, Arc<Library>>,
    /// Library and index of each function.
    by_function: HashMap<Vec<u8>, (Arc<Library>, usize)>,
}

impl Functions {
    /// The library of a function, and its index there.
    #[must_use]
    pub fn find(&self, function: &[u8]) -> Option<(&Arc<Library>, usize)> {
        self.by_function
            .get(function)
            .map(|(library, index)| (library, *index))
    }

    /// The libraries, by name.
    pub fn libraries(&self) -> impl Iterator<Item = &Arc<Library>> {
        self.libraries.values()
    }

    /// Whether a library with this digest is among them.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.libraries.values().any(|library| library.digest == *digest)
    }

    /// Adds a library; with `replace`, instead of the one of the same name.
    ///
    /// # Errors
    /// If its name or the name of a function is taken. Then nothing has changed.
    pub fn add(&mut self, library: Library, replace: bool) -> Result<(), FunctionsError> {
        if !replace && self.libraries.contains_key(&library.name) {
            return Err(FunctionsError::LibraryExists(library.name));
        }
        let is_taken = |row: &&FunctionRow| {
            let owner = self.by_function.get(&row.name);
            owner.is_some_and(|(owner, _)| owner.name != library.name)
        };
        if let Some(row) = library.functions.iter().find(is_taken) {
            return Err(FunctionsError::FunctionExists(row.name.clone()));
        }
        self.remove(&library.name);
        let library = Arc::new(library);
        for (index, row) in library.functions.iter().enumerate() {
            self.by_function
                .insert(row.name.clone(), (Arc::clone(&library), index));
        }
        self.libraries.insert(library.name.clone(), library);
        Ok(())
    }

    /// Adds all of another node, each in the place of the one of the same name.
    ///
    /// # Errors
    /// If the name of a function is taken by a library of another name.
    pub fn add_all(&mut self, others: &Functions) -> Result<(), FunctionsError> {
        let mut libraries = others.libraries.values();
        libraries.try_for_each(|library| self.add(Library::clone(library), true))
    }

    /// Removes a library.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn delete(&mut self, name: &[u8]) -> Result<(), FunctionsError> {
        if self.remove(name) {
            Ok(())
        } else {
            Err(FunctionsError::NoLibrary)
        }
    }

    fn remove(&mut self, name: &[u8]) -> bool {
        let Some(library) = self.libraries.remove(name) else {
            return false;
        };
        for row in &library.functions {
            self.by_function.remove(&row.name);
        }
        true
    }

    /// Removes all libraries.
    pub fn clear(&mut self) {
        self.libraries.clear();
        self.by_function.clear();
    }

    /// Numbers for FUNCTION STATS.
    #[must_use]
    pub fn stats(&self) -> FunctionsStats {
        FunctionsStats {
            libraries: self.libraries.len(),
            functions: self.by_function.len(),
        }
    }

    /// The libraries as one payload.
    #[must_use]
    pub fn dump(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for library in self.libraries.values() {
            write_record(&mut out, &library.code);
        }
        out.extend_from_slice(&VERSION.to_le_bytes());
        let checksum = Checksum::of(&out);
        out.extend_from_slice(&checksum.to_bytes());
        out
    }

    /// The libraries as they are after RESTORE of a payload; `load` makes a library from its code. All or nothing:
    /// these libraries stay as they are.
    ///
    /// # Errors
    /// If the payload is invalid, if a library of it cannot be loaded, or if a name is taken.
    pub fn restored(
        &self,
        payload: &[u8],
        policy: RestorePolicy,
        mut load: impl FnMut(&[u8]) -> Result<Library, LoadError>,
    ) -> Result<Functions, FunctionsError> {
        let mut functions = match policy {
            RestorePolicy::Flush => Functions::default(),
            RestorePolicy::Append | RestorePolicy::Replace => self.clone(),
        };
        let replaces = policy == RestorePolicy::Replace;
        let mut given = Functions::default();
        for code in records(payload)? {
            given.add(load(&code).map_err(FunctionsError::Load)?, false)?;
        }
        if replaces {
            // Names of functions are free as soon as their libraries are replaced, whatever the order.
            for name in given.libraries.keys() {
                functions.remove(name);
            }
        }
        for library in given.libraries.into_values() {
            functions.add(Arc::unwrap_or_clone(library), false)?;
        }
        Ok(functions)
    }
}

/// Opcode of a library in a snapshot.
pub const OPCODE: u8 = 245;

/// Opcode of a library in the snapshots of versions before the release of functions.
const OPCODE_UNRELEASED: u8 = 246;

/// Version of the format, and the newest one that is read.
const VERSION: u16 = 10;

/// The newest version whose records are read.
const VERSION_MAX: u16 = 12;

/// Length of version and checksum.
const FOOTER_BYTES: usize = 2 + 8;

/// Text up to this length is not compressed.
const COMPRESS_ABOVE_BYTES: usize = 20;

/// Bytes that compression has to save.
const COMPRESS_GAIN: usize = 4;

/// Prefix of a compressed string.
const COMPRESSED: u8 = 0xc3;

/// Appends the record of a library, as in a snapshot.
pub fn write_record(out: &mut Vec<u8>, code: &[u8]) {
    out.push(OPCODE);
    match compressed(code) {
        Some(packed) => {
            out.push(COMPRESSED);
            write_len(out, packed.len());
            write_len(out, code.len());
            out.extend_from_slice(&packed);
        }
        None => {
            write_len(out, code.len());
            out.extend_from_slice(code);
        }
    }
}

/// The text in compressed form, if it is worth that.
fn compressed(code: &[u8]) -> Option<Vec<u8>> {
    if code.len() <= COMPRESS_ABOVE_BYTES {
        return None;
    }
    let mut packed = vec![0; code.len() - COMPRESS_GAIN];
    let len = lzf::compress(code, &mut packed)?;
    packed.truncate(len);
    Some(packed)
}

fn write_len(out: &mut Vec<u8>, len: usize) {
    match len {
        0..64 => out.push(len as u8),
        64..0x4000 => out.extend_from_slice(&(len as u16 | 0x4000).to_be_bytes()),
        0x4000..=0xffff_ffff => {
            out.push(0x80);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
        _ => {
            out.push(0x81);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// The code of each library of a payload.
fn records(payload: &[u8]) -> Result<Vec<Vec<u8>>, FunctionsError> {
    let end = payload
        .len()
        .checked_sub(FOOTER_BYTES)
        .ok_or(FunctionsError::InvalidPayload)?;
    let (records, footer) = payload.split_at(end);
    let version = u16::from_le_bytes([footer[0], footer[1]]);
    let checksum = Checksum::of(&payload[..end + 2]);
    if version > VERSION_MAX || checksum.to_bytes() != footer[2..] {
        return Err(FunctionsError::InvalidPayload);
    }
    let mut reader = RecordReader(records);
    let mut codes = Vec::new();
    while let Some(opcode) = reader.byte() {
        match opcode {
            OPCODE => codes.push(reader.string().ok_or(FunctionsError::Damaged)?),
            OPCODE_UNRELEASED => return Err(FunctionsError::Unreleased),
            _ => return Err(FunctionsError::NotAFunction),
        }
    }
    Ok(codes)
}

/// Greatest factor by which compressed text grows: 264 bytes for three.
const EXPANSION_MAX: usize = 88;

/// The rest of the records of a payload.
struct RecordReader<'a>(&'a [u8]);

impl RecordReader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn bytes(&mut self, len: usize) -> Option<&[u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        if self.0.first() != Some(&COMPRESSED) {
            let len = self.len()?;
            return self.bytes(len).map(<[u8]>::to_vec);
        }
        self.byte();
        let (packed_len, len) = (self.len()?, self.len()?);
        let packed = self.bytes(packed_len)?;
        // A length that lies allocates nothing.
        if len > packed.len().checked_mul(EXPANSION_MAX)? {
            return None;
        }
        let mut code = vec![0; len];
        lzf::decompress(packed, &mut code)?;
        Some(code)
    }

    fn len(&mut self) -> Option<usize> {
        let first = self.byte()?;
        let len = match first {
            0..0x40 => u64::from(first),
            0x40..0x80 => u64::from(first & 0x3f) << 8 | u64::from(self.byte()?),
            0x80 => u64::from(u32::from_be_bytes(self.bytes(4)?.try_into().ok()?)),
            0x81 => u64::from_be_bytes(self.bytes(8)?.try_into().ok()?),
            _ => return None,
        };
        usize::try_from(len).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shebang::Flags;

    fn library(name: &str, functions: &[&str]) -> Library {
        let code = format!("#!lua name={name}\n-- {}\n", functions.join(" "));
        parsed(code.as_bytes()).expect("valid")
    }

    /// A library whose functions are the words of its second line.
    fn parsed(code: &[u8]) -> Result<Library, LoadError> {
        let header = crate::shebang::parse_library(code)?;
        let words = String::from_utf8_lossy(&code[header.bytes..]).into_owned();
        let functions = words.split_whitespace().skip(1).map(|name| FunctionRow {
            name: name.as_bytes().to_vec(),
            description: None,
            flags: Flags::empty(),
        });
        Ok(Library::new(
            header.name,
            code.into(),
            Digest::of(code),
            functions.collect(),
        ))
    }

    #[test]
    fn names_are_taken_once() {
        let mut functions = Functions::default();
        functions.add(library("a", &["f", "g"]), false).expect("free");
        assert_eq!(
            functions.add(library("a", &["h"]), false),
            Err(FunctionsError::LibraryExists(b"a".to_vec()))
        );
        assert_eq!(
            functions.add(library("b", &["h", "g"]), false),
            Err(FunctionsError::FunctionExists(b"g".to_vec()))
        );
        assert!(functions.find(b"h").is_none(), "a failure changes nothing");
        functions
            .add(library("a", &["g", "h"]), true)
            .expect("its own names");
        assert!(functions.find(b"f").is_none());
        assert_eq!(
            functions
                .find(b"h")
                .map(|(library, index)| (library.name.clone(), index)),
            Some((b"a".to_vec(), 1))
        );
        assert_eq!(
            functions.stats(),
            FunctionsStats {
                libraries: 1,
                functions: 2
            }
        );
        assert_eq!(functions.delete(b"x"), Err(FunctionsError::NoLibrary));
        assert_eq!(functions.delete(b"a"), Ok(()));
        assert_eq!(functions.stats(), FunctionsStats::default());
    }

    #[test]
    fn a_dump_is_restored() {
        let mut functions = Functions::default();
        functions.add(library("a", &["f"]), false).expect("free");
        functions.add(library("long", &["g"; 1]), false).expect("free");
        functions
            .add(library("c", &["abcabcabcabcabcabcabcabcabcabcabcabc"]), false)
            .expect("free");
        let payload = functions.dump();
        let empty = Functions::default();
        let restored = empty
            .restored(&payload, RestorePolicy::Append, parsed)
            .expect("valid");
        assert!(restored.libraries().eq(functions.libraries()));
    }

    #[test]
    fn policies_of_restore() {
        let mut old = Functions::default();
        old.add(library("a", &["f"]), false).expect("free");
        old.add(library("b", &["g"]), false).expect("free");
        let mut new = Functions::default();
        new.add(library("a", &["h"]), false).expect("free");
        let payload = new.dump();
        assert_eq!(
            old.restored(&payload, RestorePolicy::Append, parsed).map(|_| ()),
            Err(FunctionsError::LibraryExists(b"a".to_vec()))
        );
        let replaced = old
            .restored(&payload, RestorePolicy::Replace, parsed)
            .expect("valid");
        assert!(
            replaced.find(b"f").is_none() && replaced.find(b"g").is_some() && replaced.find(b"h").is_some()
        );
        let flushed = old
            .restored(&payload, RestorePolicy::Flush, parsed)
            .expect("valid");
        assert_eq!(
            flushed.stats(),
            FunctionsStats {
                libraries: 1,
                functions: 1
            }
        );
        assert!(old.find(b"f").is_some(), "the old libraries stay");
    }

    #[test]
    fn damaged_payloads_are_refused() {
        let mut functions = Functions::default();
        functions
            .add(library("a", &["abcabcabcabcabcabcabcabcabcabcabcabc"]), false)
            .expect("free");
        let payload = functions.dump();
        for at in 0..payload.len() {
            let mut damaged = payload.clone();
            damaged[at] ^= 0x10;
            let restored = Functions::default().restored(&damaged, RestorePolicy::Append, parsed);
            assert_eq!(
                restored.map(|_| ()),
                Err(FunctionsError::InvalidPayload),
                "byte {at}"
            );
            let cut = Functions::default().restored(&payload[..at], RestorePolicy::Append, parsed);
            assert_eq!(
                cut.map(|_| ()),
                Err(FunctionsError::InvalidPayload),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn lengths_that_lie_allocate_nothing() {
        let seal = |records: &[u8]| {
            let mut payload = records.to_vec();
            payload.extend_from_slice(&VERSION.to_le_bytes());
            let checksum = Checksum::of(&payload);
            payload.extend_from_slice(&checksum.to_bytes());
            payload
        };
        for (records, error) in [
            (
                &[OPCODE, 0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
                FunctionsError::Damaged,
            ),
            (
                &[OPCODE, COMPRESSED, 1, 0x80, 0xff, 0xff, 0xff, 0xff, 0],
                FunctionsError::Damaged,
            ),
            (&[OPCODE], FunctionsError::Damaged),
            (&[OPCODE_UNRELEASED, 0], FunctionsError::Unreleased),
            (&[0, 0], FunctionsError::NotAFunction),
        ] {
            let restored = Functions::default().restored(&seal(records), RestorePolicy::Append, parsed);
            assert_eq!(restored.map(|_| ()), Err(error), "{records:?}");
        }
    }
}
