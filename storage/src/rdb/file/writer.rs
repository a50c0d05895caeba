//! [`FileWriter`]: collects the bytes of a file, a value in steps.

use super::super::checksum::Checksum;
use super::super::decode::Dialect;
use super::super::encode::{ValueWriter, WriteOptions, kind_of, version_of};
use super::super::opcode::record;
use super::super::writer::Sink;
use super::super::{VERSION_COMMON, VERSION_FIELD_EXPIRY, VERSION_VALKEY};
use super::Usage;
use crate::entry::Entry;

/// Magic of a file, which depends on what will be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// No hash has fields that expire: servers of both families read the file.
    Common,
    /// Hashes may have fields that expire: servers of the family that the options name read the file.
    FieldExpiry,
}

/// A file in the making.
///
/// Nothing is written anywhere: whoever adds something takes the bytes out from time to time.
#[derive(Debug)]
pub struct FileWriter {
    options: WriteOptions,
    version: u16,
    out: Vec<u8>,
    /// Bytes of `out` that are summed up.
    summed: usize,
    /// The checksum, unless there is to be none.
    sum: Option<Checksum>,
    value: Option<ValueWriter>,
}

impl FileWriter {
    /// A file with nothing but its magic, which ends with a checksum if `is_summed`.
    #[must_use]
    pub fn new(header: Header, options: WriteOptions, is_summed: bool) -> Self {
        let (magic, version): (&[u8], u16) = match (header, options.dialect) {
            (Header::Common, _) => (b"REDIS0010", VERSION_COMMON),
            (Header::FieldExpiry, Dialect::Redis) => (b"REDIS0012", VERSION_FIELD_EXPIRY),
            (Header::FieldExpiry, Dialect::Valkey) => (b"VALKEY080", VERSION_VALKEY),
        };
        Self {
            options,
            version,
            out: magic.to_vec(),
            summed: 0,
            sum: is_summed.then(Checksum::default),
            value: None,
        }
    }

    /// Number of bytes that wait to be taken.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.out.len()
    }

    /// Takes the bytes that were collected so far.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        self.sum_up();
        self.summed = 0;
        std::mem::take(&mut self.out)
    }

    fn sum_up(&mut self) {
        if let Some(sum) = &mut self.sum {
            sum.update(&self.out[self.summed..]);
        }
        self.summed = self.out.len();
    }

    /// Appends what `write` puts into a sink.
    fn append(&mut self, write: impl FnOnce(&mut Sink<'_>)) {
        debug_assert!(self.value.is_none(), "nothing stands within a value");
        let mut packed = Vec::new();
        write(&mut Sink::new(
            &mut self.out,
            0,
            usize::MAX,
            self.options.compress_max,
            &mut packed,
        ));
    }

    /// Adds a remark.
    pub fn aux(&mut self, name: &[u8], value: &[u8]) {
        self.append(|sink| {
            sink.bytes(&[record::AUX]);
            sink.text_of(name);
            sink.text_of(value);
        });
    }

    /// Adds the source of a library of functions.
    pub fn function(&mut self, source: &[u8]) {
        self.append(|sink| {
            sink.bytes(&[record::FUNCTION]);
            sink.text_of(source);
        });
    }

    /// Begins a database of about so many keys.
    pub fn database(&mut self, db: u64, keys: usize, expires: usize) {
        self.append(|sink| {
            sink.bytes(&[record::DATABASE]);
            sink.number(db);
            sink.bytes(&[record::SIZES]);
            sink.count(keys);
            sink.count(expires);
        });
    }

    /// Begins a key: expiry, use, type and name are those of the entry. [`FileWriter::step`] writes its value.
    ///
    /// # Panics
    /// When the value needs a later version than the file has.
    pub fn key(&mut self, entry: &Entry, usage: Option<Usage>) {
        let dialect = self.options.dialect;
        assert!(
            version_of(entry, dialect) <= self.version,
            "a hash has fields that expire in a file without"
        );
        self.append(|sink| {
            if let Some(at) = entry.expiry() {
                sink.bytes(&[record::EXPIRY_MS]);
                sink.long(at);
            }
            match usage {
                Some(Usage::Idle(seconds)) => {
                    sink.bytes(&[record::IDLE]);
                    sink.number(seconds);
                }
                Some(Usage::Frequency(count)) => sink.bytes(&[record::FREQUENCY, count]),
                None => {}
            }
            sink.bytes(&[kind_of(entry, dialect)]);
            sink.text_of(entry.key());
        });
        self.value = Some(ValueWriter::new(self.options));
    }

    /// Adds at most `budget` bytes of the value of the key that was begun; true when it is written, or there is none.
    pub fn step(&mut self, entry: &Entry, budget: usize) -> bool {
        let Some(value) = &mut self.value else {
            return true;
        };
        let is_done = value.step(entry, &mut self.out, budget);
        if is_done {
            self.value = None;
        }
        is_done
    }

    /// Ends the file, and takes the rest of its bytes.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.append(|sink| sink.bytes(&[record::END]));
        self.sum_up();
        let sum = self.sum.map_or([0; 8], Checksum::to_bytes);
        self.out.extend(sum);
        self.out
    }
}
