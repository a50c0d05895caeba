//! [`FileReader`]: the parts of a file, one after the other, with their values.

use std::fmt;
use std::io::Read;

use super::super::decode::{self, Limits};
use super::super::reader::Error;
use super::super::skip;
use super::records::{Head, Part, Records};
use super::{FileError, Form, Item, Record};

/// Reader of a file, an iterator over its parts. After an error there are none.
pub struct FileReader<R> {
    records: Records<R>,
    limits: Limits,
}

impl<R: Read> FileReader<R> {
    /// A reader of the file that `source` gives, behind its magic.
    ///
    /// # Errors
    /// When it is no such file, or of an unknown version.
    pub fn open(source: R, limits: Limits) -> Result<Self, FileError> {
        let records = Records::open(source, true)?;
        Ok(Self { records, limits })
    }

    /// The version of the file.
    pub fn version(&self) -> u16 {
        self.records.version
    }

    /// Number of bytes that were read.
    pub fn offset(&self) -> u64 {
        self.records.offset()
    }

    /// Reads the next part; none behind the end.
    fn item(&mut self) -> Result<Option<Item>, Error> {
        Ok(match self.records.next()? {
            None => None,
            Some(Part::Item(item)) => Some(item),
            Some(Part::Key(head)) => Some(self.key(head)?),
        })
    }

    fn key(&mut self, head: Head) -> Result<Item, Error> {
        let (reader, Form { kind, dialect }) = (&mut self.records.reader, head.form);
        self.records.is_in_value = true;
        let value = if head.form.is_module() {
            skip::value(reader, kind, dialect)?;
            Err(Error::Unsupported("a value of a module"))
        } else {
            decode::value(reader, kind, dialect, &self.limits)
        };
        let key = || self.records.key.clone();
        let item = match value {
            Ok(mut value) => {
                value.set_expiry(head.expiry);
                Item::Key(Record {
                    key: key(),
                    value,
                    usage: head.usage,
                })
            }
            // The whole of it has been read: what follows can be.
            Err(reason) if head.form.is_left_out(&reason) => Item::Skipped { key: key(), reason },
            Err(error) => return Err(error),
        };
        self.records.is_in_value = false;
        Ok(item)
    }
}

impl<R: Read> Iterator for FileReader<R> {
    type Item = Result<Item, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.item() {
            Ok(item) => item.map(Ok),
            Err(error) => Some(Err(self.records.failure(error))),
        }
    }
}

impl<R> fmt::Debug for FileReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReader")
            .field("version", &self.records.version)
            .field("dialect", &self.records.dialect)
            .finish_non_exhaustive()
    }
}
