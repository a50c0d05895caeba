//! [`FileScanner`]: splits a file into keys whose values others decode.

use std::fmt;
use std::io::{Read, Write};

use super::super::reader::{Error, Reader};
use super::super::skip;
use super::FileError;
use super::records::{Head, Part, Records};
use super::stream::Tee;

/// Scanner of a file. It reads what stands beside the values, and copies the values as they are, of which it only looks
/// for the ends; so the values can be decoded elsewhere meanwhile.
pub struct FileScanner<R> {
    records: Records<R>,
}

impl<R: Read> FileScanner<R> {
    /// A scanner of the file that `source` gives, behind its magic. The checksum at its end is compared if `is_verified`.
    ///
    /// # Errors
    /// When it is no such file, or of an unknown version.
    pub fn open(source: R, is_verified: bool) -> Result<Self, FileError> {
        let records = Records::open(source, is_verified)?;
        Ok(Self { records })
    }

    /// Number of bytes that were read. Behind the end of the file, the source may have given more.
    pub fn offset(&self) -> u64 {
        self.records.offset()
    }

    /// Whether the file has a checksum, once its end was read.
    pub fn is_summed(&self) -> bool {
        self.records.is_summed
    }

    /// The last key.
    pub fn key(&self) -> &[u8] {
        &self.records.key
    }

    /// The next part; none behind the end. If it is a key, [`copy_value`](Self::copy_value) has to follow.
    ///
    /// # Errors
    /// When the file cannot be read further.
    pub fn next_part(&mut self) -> Result<Option<Part>, FileError> {
        let part = self.records.next();
        part.map_err(|error| self.records.failure(error))
    }

    /// Copies the value of a key that was just read to `out`, as it is in the file.
    ///
    /// # Errors
    /// When its end cannot be found, or `out` refuses it.
    pub fn copy_value(&mut self, head: Head, out: impl Write) -> Result<(), FileError> {
        self.records.is_in_value = true;
        self.copy(head, out)
            .map_err(|error| self.records.failure(error))?;
        self.records.is_in_value = false;
        Ok(())
    }

    fn copy(&mut self, head: Head, out: impl Write) -> Result<(), Error> {
        let mut reader = Reader::new(Tee::new(&mut self.records.reader.source, out));
        skip::value(&mut reader, head.form.kind, head.form.dialect)?;
        reader.source.flush()
    }
}

impl<R> fmt::Debug for FileScanner<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileScanner")
            .field("version", &self.records.version)
            .field("dialect", &self.records.dialect)
            .finish_non_exhaustive()
    }
}
