//! [`FileReader`]: the parts of a file, one after the other.

use std::fmt;
use std::io::Read;

use super::super::checksum::Checksum;
use super::super::decode::{self, Dialect, Limits};
use super::super::opcode::{kind, module, record};
use super::super::reader::{Error, Reader, Source};
use super::super::{VERSION_REDIS_MAX, VERSION_VALKEY};
use super::{FileError, Item, Record, Usage};

/// Bytes that are read at once, and by which memory for a text grows.
const WINDOW: usize = 1 << 16;
/// The first version with a checksum.
const VERSION_SUMMED: u16 = 5;
/// Slots of a cluster.
const SLOTS: u64 = 16_384;
/// Bytes of the name of an import of slots.
const JOB_NAME_BYTES: usize = 40;

/// Bytes out of a stream, with their number and their checksum.
struct Stream<R> {
    source: R,
    window: Box<[u8]>,
    /// Start of what is unread in the window.
    at: usize,
    /// End of what the source has put there.
    end: usize,
    /// Bytes before the window.
    passed: u64,
    sum: Checksum,
    /// End of what is summed up in the window.
    summed: usize,
}

impl<R: Read> Stream<R> {
    fn new(source: R) -> Self {
        Self {
            source,
            window: vec![0; WINDOW].into(),
            at: 0,
            end: 0,
            passed: 0,
            sum: Checksum::default(),
            summed: 0,
        }
    }

    fn offset(&self) -> u64 {
        self.passed + self.at as u64
    }

    /// The checksum of all bytes that were taken.
    fn checksum(&mut self) -> Checksum {
        self.sum.update(&self.window[self.summed..self.at]);
        self.summed = self.at;
        self.sum
    }

    /// Replaces the window, which has been read, by the next bytes.
    fn fill(&mut self) -> Result<(), Error> {
        self.checksum();
        self.passed += self.end as u64;
        (self.at, self.end, self.summed) = (0, 0, 0);
        self.end = loop {
            match self.source.read(&mut self.window) {
                Ok(0) => return Err(Error::Short),
                Ok(read) => break read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Io(error)),
            }
        };
        Ok(())
    }
}

impl<R: Read> Source for Stream<R> {
    fn take<'s>(&'s mut self, len: u64, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], Error> {
        let len = usize::try_from(len).map_err(|_| Error::Short)?;
        if len <= self.end - self.at {
            let start = self.at;
            self.at += len;
            return Ok(&self.window[start..self.at]);
        }
        scratch.clear();
        while scratch.len() < len {
            if self.at == self.end {
                self.fill()?;
            }
            // The length is that of a file, and may be any number.
            let here = (self.end - self.at).min(len - scratch.len());
            scratch.try_reserve(here).map_err(|_| Error::Memory)?;
            scratch.extend_from_slice(&self.window[self.at..self.at + here]);
            self.at += here;
        }
        Ok(scratch)
    }
}

/// Properties of the next key.
#[derive(Default)]
struct Properties {
    expiry: Option<i64>,
    usage: Option<Usage>,
}

/// Reader of a file, an iterator over its parts. After an error there are none.
pub struct FileReader<R> {
    reader: Reader<Stream<R>>,
    limits: Limits,
    dialect: Dialect,
    version: u16,
    /// The key whose value is being read.
    key: Option<Vec<u8>>,
    is_done: bool,
}

impl<R: Read> FileReader<R> {
    /// A reader of the file that `source` gives, behind its magic.
    ///
    /// # Errors
    /// When it is no such file, or of an unknown version.
    pub fn open(source: R, limits: Limits) -> Result<Self, FileError> {
        let mut file = Self {
            reader: Reader::new(Stream::new(source)),
            limits,
            dialect: Dialect::Redis,
            version: 0,
            key: None,
            is_done: false,
        };
        match magic(&mut file.reader) {
            Ok((dialect, version)) => {
                (file.dialect, file.version) = (dialect, version);
                Ok(file)
            }
            Err(error) => Err(file.failure(error)),
        }
    }

    /// The version of the file.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Number of bytes that were read.
    pub fn offset(&self) -> u64 {
        self.reader.source.offset()
    }

    fn failure(&mut self, error: Error) -> FileError {
        self.is_done = true;
        FileError {
            offset: self.offset(),
            key: self.key.take(),
            error,
        }
    }

    /// Reads the next part; none behind the end.
    fn item(&mut self) -> Result<Option<Item>, Error> {
        let mut properties = Properties::default();
        loop {
            let opcode = self.reader.byte()?;
            if self.property(opcode, &mut properties)? {
                continue;
            }
            return match opcode {
                record::AUX => {
                    let (name, value) = (self.text()?, self.text()?);
                    Ok(Some(Item::Aux { name, value }))
                }
                record::FUNCTION => self.text().map(|source| Some(Item::Function(source))),
                record::FUNCTION_OLD => Err(Error::Unsupported("a function of Redis 7.0 before its release")),
                record::DATABASE => self.reader.count().map(|db| Some(Item::Database(db))),
                record::SIZES => {
                    let (keys, expires) = (self.reader.count()?, self.reader.count()?);
                    Ok(Some(Item::Sizes { keys, expires }))
                }
                record::END => self.end().map(|()| None),
                kind => self.key(kind, properties).map(Some),
            };
        }
    }

    /// Reads what concerns the next key, or nobody here; false when the opcode is another one.
    fn property(&mut self, opcode: u8, properties: &mut Properties) -> Result<bool, Error> {
        let reader = &mut self.reader;
        match opcode {
            record::EXPIRY_MS => properties.expiry = Some(reader.long()?),
            record::EXPIRY_S => {
                let seconds = i32::from_le_bytes(reader.array()?);
                properties.expiry = Some(i64::from(seconds) * 1000);
            }
            record::IDLE => properties.usage = Some(Usage::Idle(reader.count()?)),
            record::FREQUENCY => properties.usage = Some(Usage::Frequency(reader.byte()?)),
            record::SLOT_SIZES => {
                let _slot_keys_and_expires = [reader.count()?, reader.count()?, reader.count()?];
            }
            record::META_OR_IMPORT if self.dialect == Dialect::Valkey => slot_import(reader)?,
            record::META_OR_IMPORT => key_metadata(reader)?,
            record::MODULE_AUX => {
                let _module = reader.count()?;
                skip_module(reader)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn text(&mut self) -> Result<Vec<u8>, Error> {
        let mut text = Vec::new();
        self.reader.text_into(&mut text)?;
        Ok(text)
    }

    fn key(&mut self, kind: u8, properties: Properties) -> Result<Item, Error> {
        let key = self.text()?;
        self.key = Some(key.clone());
        let value = if kind == kind::MODULE_2 {
            let _module = self.reader.count()?;
            skip_module(&mut self.reader)?;
            Err(Error::Unsupported("a value of a module"))
        } else {
            decode::value(&mut self.reader, kind, self.dialect, &self.limits)
        };
        self.key = None;
        match value {
            Ok(mut value) => {
                value.set_expiry(properties.expiry);
                let usage = properties.usage;
                Ok(Item::Key(Record { key, value, usage }))
            }
            // The whole of it has been read: what follows can be.
            Err(reason @ Error::Empty) => Ok(Item::Skipped { key, reason }),
            Err(reason @ Error::Unsupported(_)) if kind == kind::MODULE_2 => {
                Ok(Item::Skipped { key, reason })
            }
            Err(error) => {
                self.key = Some(key);
                Err(error)
            }
        }
    }

    fn end(&mut self) -> Result<(), Error> {
        if self.version < VERSION_SUMMED {
            return Ok(());
        }
        let sum = self.reader.source.checksum().to_bytes();
        let written: [u8; 8] = self.reader.array()?;
        if written == sum || written == [0; 8] {
            Ok(())
        } else {
            Err(Error::Corrupt("the checksum is wrong"))
        }
    }
}

impl<R: Read> Iterator for FileReader<R> {
    type Item = Result<Item, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        match self.item() {
            Ok(Some(item)) => Some(Ok(item)),
            Ok(None) => {
                self.is_done = true;
                None
            }
            Err(error) => Some(Err(self.failure(error))),
        }
    }
}

impl<R> fmt::Debug for FileReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReader")
            .field("version", &self.version)
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}

/// Reads the magic: family and version.
fn magic<S: Source>(reader: &mut Reader<S>) -> Result<(Dialect, u16), Error> {
    const VERSION: Error = Error::Corrupt("a file of an unknown version");
    let bytes: [u8; 9] = reader.array()?;
    let (dialect, digits) = match bytes.strip_prefix(b"REDIS") {
        Some(digits) => (Dialect::Redis, digits),
        None => match bytes.strip_prefix(b"VALKEY") {
            Some(digits) => (Dialect::Valkey, digits),
            None => return Err(Error::Corrupt("no magic of a snapshot at the beginning")),
        },
    };
    let number = digits.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| 10 * number + u16::from(digit - b'0'))
    });
    match (dialect, number.ok_or(VERSION)?) {
        (Dialect::Redis, version @ 1..=VERSION_REDIS_MAX) | (Dialect::Valkey, version @ VERSION_VALKEY) => {
            Ok((dialect, version))
        }
        _ => Err(VERSION),
    }
}

/// Passes over what a module wrote, up to its end.
fn skip_module<S: Source>(reader: &mut Reader<S>) -> Result<(), Error> {
    loop {
        match reader.count()? {
            module::END => return Ok(()),
            module::SIGNED | module::UNSIGNED => {
                reader.count()?;
            }
            module::FLOAT => {
                reader.array::<4>()?;
            }
            module::DOUBLE => {
                reader.array::<8>()?;
            }
            module::TEXT => {
                reader.text()?;
            }
            _ => return Err(Error::Corrupt("a part of a module's data of no known kind")),
        }
    }
}

/// Passes over what modules keep about the next key.
fn key_metadata<S: Source>(reader: &mut Reader<S>) -> Result<(), Error> {
    for _ in 0..reader.count()? {
        let _class: [u8; 4] = reader.array()?;
        skip_module(reader)?;
    }
    Ok(())
}

/// Passes over an import of slots that was under way: its name and the ranges of slots.
fn slot_import<S: Source>(reader: &mut Reader<S>) -> Result<(), Error> {
    const CORRUPT: Error = Error::Corrupt("an import of slots that is none");
    if reader.blob()?.len() != JOB_NAME_BYTES {
        return Err(CORRUPT);
    }
    for _ in 0..reader.count()? {
        let (first, last) = (reader.count()?, reader.count()?);
        if first > last || last >= SLOTS {
            return Err(CORRUPT);
        }
    }
    Ok(())
}
