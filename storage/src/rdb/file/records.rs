//! [`Records`]: the parts of a file up to the values, which its users read or pass over.

use std::io::Read;

use super::super::decode::Dialect;
use super::super::opcode::record;
use super::super::reader::{Error, Reader, Source};
use super::super::skip;
use super::super::{VERSION_REDIS_MAX, VERSION_VALKEY};
use super::stream::Stream;
use super::{FileError, Form, Item, Usage};

/// The first version with a checksum.
const VERSION_SUMMED: u16 = 5;
/// Slots of a cluster.
const SLOTS: u64 = 16_384;
/// Bytes of the name of an import of slots.
const JOB_NAME_BYTES: usize = 40;

/// Properties of the next key.
#[derive(Default)]
struct Properties {
    expiry: Option<i64>,
    usage: Option<Usage>,
}

/// A key whose value comes next, without its name.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Form of the value.
    pub form: Form,
    /// When the key expires, milliseconds since 1970.
    pub expiry: Option<i64>,
    /// Use of the key, if the writer's eviction looked at it.
    pub usage: Option<Usage>,
}

/// Part of a file; where that is a key, all before its value.
#[derive(Debug)]
pub enum Part {
    /// Anything but a key.
    Item(Item),
    /// A key, whose value has to be read or passed over next.
    Key(Head),
}

/// Reader of all of a file but its values.
pub(super) struct Records<R> {
    pub(super) reader: Reader<Stream<R>>,
    pub(super) dialect: Dialect,
    pub(super) version: u16,
    /// The last key.
    pub(super) key: Vec<u8>,
    /// The value of the last key is being read.
    pub(super) is_in_value: bool,
    /// The checksum is compared.
    is_verified: bool,
    /// The file has a checksum; not known before its end.
    pub(super) is_summed: bool,
    is_done: bool,
}

impl<R: Read> Records<R> {
    /// The parts of the file that `source` gives, behind its magic.
    ///
    /// # Errors
    /// When it is no such file, or of an unknown version.
    pub(super) fn open(source: R, is_verified: bool) -> Result<Self, FileError> {
        let mut records = Self {
            reader: Reader::new(Stream::new(source, is_verified)),
            dialect: Dialect::Redis,
            version: 0,
            key: Vec::new(),
            is_in_value: false,
            is_verified,
            is_summed: false,
            is_done: false,
        };
        match magic(&mut records.reader) {
            Ok((dialect, version)) => {
                (records.dialect, records.version) = (dialect, version);
                Ok(records)
            }
            Err(error) => Err(records.failure(error)),
        }
    }

    /// Number of bytes that were read.
    pub(super) fn offset(&self) -> u64 {
        self.reader.source.offset()
    }

    /// The error at this place, after which nothing is read any more.
    pub(super) fn failure(&mut self, error: Error) -> FileError {
        self.is_done = true;
        FileError {
            offset: self.offset(),
            key: self.is_in_value.then(|| self.key.clone()),
            error,
        }
    }

    /// The next part; none behind the end.
    pub(super) fn next(&mut self) -> Result<Option<Part>, Error> {
        if self.is_done {
            return Ok(None);
        }
        let mut properties = Properties::default();
        loop {
            let opcode = self.reader.byte()?;
            if !self.property(opcode, &mut properties)? {
                return self.part(opcode, properties);
            }
        }
    }

    fn part(&mut self, opcode: u8, properties: Properties) -> Result<Option<Part>, Error> {
        let item = match opcode {
            record::AUX => {
                let (name, value) = (self.text()?, self.text()?);
                Item::Aux { name, value }
            }
            record::FUNCTION => Item::Function(self.text()?),
            record::FUNCTION_OLD => {
                return Err(Error::Unsupported("a function of Redis 7.0 before its release"));
            }
            record::DATABASE => Item::Database(self.reader.count()?),
            record::SIZES => {
                let (keys, expires) = (self.reader.count()?, self.reader.count()?);
                Item::Sizes { keys, expires }
            }
            record::END => {
                self.is_done = true;
                return self.end().map(|()| None);
            }
            kind => {
                self.reader.text_into(&mut self.key)?;
                let Properties { expiry, usage } = properties;
                let form = Form::new(kind, self.dialect);
                return Ok(Some(Part::Key(Head { form, expiry, usage })));
            }
        };
        Ok(Some(Part::Item(item)))
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
                skip::module(reader)?;
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

    fn end(&mut self) -> Result<(), Error> {
        if self.version < VERSION_SUMMED {
            return Ok(());
        }
        let sum = self.reader.source.checksum();
        let written: [u8; 8] = self.reader.array()?;
        self.is_summed = written != [0; 8];
        match sum.filter(|_| self.is_verified && self.is_summed) {
            Some(sum) if sum.to_bytes() != written => Err(Error::Corrupt("the checksum is wrong")),
            _ => Ok(()),
        }
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

/// Passes over what modules keep about the next key.
fn key_metadata<S: Source>(reader: &mut Reader<S>) -> Result<(), Error> {
    for _ in 0..reader.count()? {
        let _class: [u8; 4] = reader.array()?;
        skip::module(reader)?;
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
