//! [`Scan`]: splits a snapshot file into the records of each shard, and reads what stands beside them.

use std::io::{self, Read, Write};

use shardis_storage::rdb::file::{FileError, FileScanner, Head, Item, Part};

use super::parcel::{Dispatch, Gone};
use super::progress::Progress;
use super::{Failure, LoadReason, Rules};
use crate::scripting::{Functions, add_library};

/// Scan of a file, which sends its records to the threads that build.
pub(super) struct Scan<'a> {
    rules: &'a Rules<'a>,
    /// The way to each shard's thread.
    routes: Vec<Dispatch>,
    progress: Progress<'a>,
    /// Number of the present database.
    db: u16,
    libraries: Functions,
    told: Told,
}

/// Statements of a snapshot about the stream that it is a part of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// The database that is selected in the stream behind it.
    pub(crate) db: Option<u16>,
    /// The id of the history.
    pub(crate) id: Option<String>,
    /// The offset in that.
    pub(crate) offset: Option<u64>,
}

impl Told {
    /// The place in a history at which the snapshot was made, and the database that is selected there, if all of that is known.
    pub(crate) fn place(&self) -> Option<(&str, u64, u16)> {
        Some((self.id.as_deref()?, self.offset?, self.db?))
    }

    /// Takes in a remark of the writer.
    fn note(&mut self, name: &[u8], value: &[u8]) {
        let text = std::str::from_utf8(value).unwrap_or_default();
        match name {
            b"repl-stream-db" => self.db = text.parse().ok(),
            b"repl-id" if text.len() == 40 => self.id = Some(text.to_owned()),
            b"repl-offset" => self.offset = text.parse().ok(),
            _ => {}
        }
    }
}

/// Result of a scan.
#[derive(Debug)]
pub(super) struct Scanned {
    /// Number of keys that were left out because they had expired.
    pub(super) expired: u64,
    /// Function libraries.
    pub(super) libraries: Functions,
    /// Statements about the stream.
    pub(super) told: Told,
    /// Place of the end of the snapshot in the file.
    pub(super) end: u64,
}

impl<'a> Scan<'a> {
    /// A scan under these rules, after files of so many bytes.
    pub(super) fn new(rules: &'a Rules<'a>, routes: Vec<Dispatch>, passed: u64) -> Self {
        Self {
            rules,
            routes,
            progress: Progress::new(rules.node, passed),
            db: 0,
            libraries: Functions::default(),
            told: Told::default(),
        }
    }

    /// Reads the file up to its end.
    ///
    /// # Errors
    /// When it cannot be read further. [`LoadReason::Stopped`] when a thread that builds has ended.
    pub(super) fn run(mut self, source: impl Read) -> Result<Scanned, Failure> {
        let settings = self.rules.node.settings.load();
        let mut scanner = FileScanner::open(source, settings.rdbchecksum)?;
        while let Some(part) = scanner.next_part()? {
            match part {
                Part::Key(head) => self.key(&mut scanner, head)?,
                Part::Item(item) => self.item(item).map_err(|reason| Failure {
                    offset: Some(scanner.offset()),
                    key: None,
                    reason,
                })?,
            }
            self.progress.note(scanner.offset())?;
        }
        for route in &mut self.routes {
            route.send()?;
        }
        if settings.rdbchecksum && !scanner.is_summed() {
            self.rules.node.log.notice(format_args!(
                "RDB file was saved with checksum disabled: no check performed."
            ));
        }
        Ok(Scanned {
            expired: self.progress.expired,
            libraries: self.libraries,
            told: self.told,
            end: scanner.offset(),
        })
    }

    /// Sends a key and its value to the thread of its shard.
    fn key(&mut self, scanner: &mut FileScanner<impl Read>, head: Head) -> Result<(), Failure> {
        self.progress.delay();
        let stamp = &self.rules.stamp;
        // Replicas that continue with the stream are told of their removal.
        let drops_expired = self.rules.drops_expired && self.told.id.is_none();
        if drops_expired && head.expiry.is_some_and(|at| at < stamp.now_ms) {
            self.progress.expired += 1;
            return Ok(scanner.copy_value(head, io::sink())?);
        }
        let hashing = self.rules.node.hashing;
        let (slot, offset) = (hashing.slot(scanner.key()), scanner.offset());
        let route = &mut self.routes[hashing.shard_of(slot)];
        route.begin((self.db, slot), scanner.key(), head, offset)?;
        let mut value = Value {
            route,
            progress: &mut self.progress,
            offset,
            stop: None,
        };
        let copied = scanner.copy_value(head, &mut value);
        if let Some(failure) = value.stop {
            return Err(failure);
        }
        copied?;
        Ok(route.end()?)
    }

    /// Takes in what stands beside the keys.
    fn item(&mut self, item: Item) -> Result<(), LoadReason> {
        match item {
            Item::Aux { name, value } => {
                self.progress.aux(&name, &value);
                self.told.note(&name, &value);
            }
            Item::Function(source) => {
                let means = self.progress.means();
                add_library(&mut self.libraries, &source, means).map_err(LoadReason::Library)?;
            }
            Item::Database(found) => {
                let databases = self.rules.databases;
                let db = usize::try_from(found).ok().filter(|&db| db < databases);
                let db = db.ok_or(LoadReason::Databases { databases, found })?;
                self.db = db as u16;
            }
            // Tables grow in small steps, so that hints about their sizes are of no use.
            Item::Sizes { .. } => {}
            Item::Key(_) | Item::Skipped { .. } => unreachable!("a scanner has keys apart"),
        }
        Ok(())
    }
}

/// The value that is being read, on its way to the thread of its shard.
struct Value<'v, 'p> {
    route: &'v mut Dispatch,
    progress: &'v mut Progress<'p>,
    /// Place in the file.
    offset: u64,
    /// Reason for which it goes no further.
    stop: Option<Failure>,
}

impl Write for Value<'_, '_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.offset += piece.len() as u64;
        let sent = self.route.add(piece).map_err(Failure::from);
        match sent.and_then(|()| self.progress.note(self.offset)) {
            Ok(()) => Ok(piece.len()),
            Err(failure) => {
                self.stop = Some(failure);
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<Gone> for Failure {
    fn from(_: Gone) -> Self {
        Self::nowhere(LoadReason::Stopped)
    }
}

impl From<FileError> for Failure {
    fn from(FileError { offset, key, error }: FileError) -> Self {
        Self {
            offset: Some(offset),
            key,
            reason: LoadReason::Format(error),
        }
    }
}
