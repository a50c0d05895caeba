//! [`FileWriter`]: collects the bytes of a file. [`RecordWriter`]: turns keys into bytes of one, a value in steps.

use super::super::checksum::Checksum;
use super::super::decode::Dialect;
use super::super::encode::{ValueWriter, WriteOptions, kind_of, version_of};
use super::super::opcode::record;
use super::super::writer::Sink;
use super::super::{VERSION_COMMON, VERSION_FIELD_EXPIRY, VERSION_VALKEY};
use super::Usage;
use crate::entry::Entry;
use crate::window::Window;

/// Magic of a file, which depends on what will be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// No hash has fields that expire: servers of both families read the file.
    Common,
    /// Hashes may have fields that expire: servers of the family that the options name read the file.
    FieldExpiry,
}

impl Header {
    fn magic_and_version(self, dialect: Dialect) -> (&'static [u8], u16) {
        match (self, dialect) {
            (Self::Common, _) => (b"REDIS0010", VERSION_COMMON),
            (Self::FieldExpiry, Dialect::Redis) => (b"REDIS0012", VERSION_FIELD_EXPIRY),
            (Self::FieldExpiry, Dialect::Valkey) => (b"VALKEY080", VERSION_VALKEY),
        }
    }
}

/// Writes keys as records of a file, each in as many steps as wanted.
#[derive(Debug)]
pub struct RecordWriter {
    options: WriteOptions,
    version: u16,
    value: ValueWriter,
    packed: Vec<u8>,
    /// The value of the key that was begun is not written yet.
    is_open: bool,
}

impl RecordWriter {
    /// A writer for a file with this header.
    #[must_use]
    pub fn new(header: Header, options: WriteOptions) -> Self {
        Self {
            options,
            version: header.magic_and_version(options.dialect).1,
            value: ValueWriter::new(options),
            packed: Vec::new(),
            is_open: false,
        }
    }

    /// Another writer for the same file.
    #[must_use]
    pub fn another(&self) -> Self {
        Self {
            value: ValueWriter::new(self.options),
            packed: Vec::new(),
            is_open: false,
            ..*self
        }
    }

    /// Begins a key: expiry, use, type and name are those of the entry. [`RecordWriter::step`] writes its value.
    ///
    /// # Panics
    /// When the value needs a later version than the file has.
    pub fn begin(&mut self, entry: &Entry, usage: Option<Usage>, out: &mut Vec<u8>) {
        debug_assert!(!self.is_open, "nothing stands within a value");
        let dialect = self.options.dialect;
        assert!(
            version_of(entry, dialect) <= self.version,
            "a hash has fields that expire in a file without"
        );
        let mut sink = Sink::new(Window::whole(out), self.options.compress_max, &mut self.packed);
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
        self.value.restart();
        self.is_open = true;
    }

    /// Adds at most `budget` bytes of the value of the key that was begun; true when it is written, or there is none.
    pub fn step(&mut self, entry: &Entry, out: &mut Vec<u8>, budget: usize) -> bool {
        if self.is_open {
            self.is_open = !self.value.step(entry, out, budget);
        }
        !self.is_open
    }
}

/// A file in the making.
///
/// Nothing is written anywhere: whoever adds something takes the bytes out from time to time.
#[derive(Debug)]
pub struct FileWriter {
    options: WriteOptions,
    records: RecordWriter,
    out: Vec<u8>,
    /// Bytes of `out` that are summed up.
    summed: usize,
    /// The checksum, unless there is to be none.
    sum: Option<Checksum>,
}

impl FileWriter {
    /// A file with nothing but its magic, which ends with a checksum if `is_summed`.
    #[must_use]
    pub fn new(header: Header, options: WriteOptions, is_summed: bool) -> Self {
        Self {
            options,
            records: RecordWriter::new(header, options),
            out: header.magic_and_version(options.dialect).0.to_vec(),
            summed: 0,
            sum: is_summed.then(Checksum::default),
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

    /// Counts bytes of records that were written behind what was taken last.
    ///
    /// # Panics
    /// When there are bytes that have not been taken.
    pub fn pass(&mut self, records: &[u8]) {
        assert!(
            self.out.is_empty(),
            "what was collected stands before what is passed"
        );
        if let Some(sum) = &mut self.sum {
            sum.update(records);
        }
    }

    /// Appends what `write` puts into a sink.
    fn append(&mut self, write: impl FnOnce(&mut Sink<'_>)) {
        debug_assert!(!self.records.is_open, "nothing stands within a value");
        let mut packed = Vec::new();
        write(&mut Sink::new(
            Window::whole(&mut self.out),
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

    /// Begins a database, or goes on with one.
    pub fn select(&mut self, db: u64) {
        self.append(|sink| {
            sink.bytes(&[record::DATABASE]);
            sink.number(db);
        });
    }

    /// Begins a database of about so many keys.
    pub fn database(&mut self, db: u64, keys: usize, expires: usize) {
        self.select(db);
        self.append(|sink| {
            sink.bytes(&[record::SIZES]);
            sink.count(keys);
            sink.count(expires);
        });
    }

    /// Begins a key like [`RecordWriter::begin`].
    ///
    /// # Panics
    /// When the value needs a later version than the file has.
    pub fn key(&mut self, entry: &Entry, usage: Option<Usage>) {
        self.records.begin(entry, usage, &mut self.out);
    }

    /// Goes on with the key that was begun, like [`RecordWriter::step`].
    pub fn step(&mut self, entry: &Entry, budget: usize) -> bool {
        self.records.step(entry, &mut self.out, budget)
    }

    /// Ends the file: nothing may be added any more.
    pub fn end(&mut self) {
        self.append(|sink| sink.bytes(&[record::END]));
        self.sum_up();
        let sum = self.sum.take().map_or([0; 8], Checksum::to_bytes);
        self.out.extend(sum);
    }

    /// Ends the file, and takes the rest of its bytes.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.end();
        self.out
    }
}
