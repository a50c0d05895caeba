//! [`AppendOnly`]: the files of the append-only file, and how they are replaced.
//!
//! The journal writes to the last increment ([`crate::journal::aof`]). A *rewrite* replaces everything before it by a base:
//!
//! 1. The next increment is created, and the manifest names it. So far it is empty: whoever loads the files now loses nothing.
//! 2. At the cut of a snapshot the journal goes on in it.
//! 3. The snapshot is written, synced, and renamed to the name of the base.
//! 4. The manifest names the base, and what it replaces as history.
//! 5. The history is removed, and then not named any more.
//!
//! After a crash at any step the manifest names files that make up the data. A rewrite that has failed leaves one increment more.
//! While the append-only file is switched on, its first increment has a temporary name and no manifest names it: without the first
//! base it is of no use.
//!
//! One thread of the node does these steps, and syncs (`control/keeper.rs`); commands only ask for them.

mod rewrite;
mod status;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use shardis_storage::rdb::file::{FileWriter, Header};
use shardis_storage::rdb::{Dialect, WriteOptions};

pub(crate) use self::rewrite::Requested;
use self::rewrite::Rewrite;
pub(crate) use self::status::{Phase, Status};
use crate::clock::Clock;
use crate::config::Settings;
use crate::journal::Journal;
use crate::journal::aof::Reporter;
use crate::journal::directory::Directory;
use crate::journal::manifest::{BaseForm, Manifest, Part};
use crate::journal::tap::Increment;
use crate::log::Log;
use crate::saving::Persistence;

/// The append-only file of a node.
#[derive(Debug)]
pub(crate) struct AppendOnly {
    journal: Arc<Journal>,
    persistence: Arc<Persistence>,
    clock: Arc<Clock>,
    /// The version of Redis that the node is compatible with.
    version: &'static str,
    /// Held while files are changed, which takes as long as the disk does.
    files: Mutex<Files>,
    /// Held for moments only.
    status: Mutex<Status>,
}

/// The files.
#[derive(Debug, Default)]
struct Files {
    /// Their directory; none before the append-only file is switched on.
    directory: Option<Directory>,
    manifest: Manifest,
    rewrite: Option<Rewrite>,
    /// An increment that the manifest names and the journal has not come to.
    prepared: Option<Arc<Increment>>,
}

/// Data that a node starts with.
#[derive(Debug)]
pub(crate) enum Origin<'a> {
    /// None.
    Nothing,
    /// The data of a snapshot file, which becomes the first base.
    Dump(&'a Path),
    /// The data of the files that a manifest names. The last one was cut behind what was good of it.
    Files(Manifest),
}

impl AppendOnly {
    /// An append-only file that is switched off, and the journal and the saving of snapshots that it needs. The node starts now.
    pub(crate) fn new(clock: &Arc<Clock>, started_us: i64, version: &'static str) -> Self {
        Self {
            journal: Arc::new(Journal::new(Arc::clone(clock))),
            persistence: Arc::new(Persistence::new(started_us)),
            clock: Arc::clone(clock),
            version,
            files: Mutex::default(),
            status: Mutex::default(),
        }
    }

    /// The journal that is written to it.
    pub(crate) fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// The saving of snapshots, which its bases are.
    pub(crate) fn saving(&self) -> &Arc<Persistence> {
        &self.persistence
    }

    /// Begins to write behind the data that the node starts with, before anybody changes it.
    ///
    /// # Errors
    /// When the files cannot be created or opened: the log says which.
    pub(crate) fn open(&self, settings: &Settings, origin: Origin<'_>, log: &Log) -> io::Result<()> {
        let directory = Directory::of(settings);
        directory.make().inspect_err(|error| {
            log.warning(format_args!(
                "Can't open or create append-only dir {}: {error}",
                settings.appenddirname
            ));
        })?;
        directory.remove_temporary();
        let mut manifest = match origin {
            Origin::Files(manifest) => manifest,
            Origin::Nothing => self.first_base(&directory, settings, None, log)?,
            Origin::Dump(path) => self.first_base(&directory, settings, Some(path), log)?,
        };
        // A killed process may have left bytes that only the system has: what follows must not be safer than they are.
        for part in &manifest.increments {
            directory.open(&part.name)?.sync_data()?;
        }
        let increment = match manifest.increments.last() {
            Some(part) => {
                log.notice(format_args!(
                    "Opening AOF incr file {} on server start",
                    part.name.display()
                ));
                let file = directory.open(&part.name)?;
                let size = file.metadata()?.len();
                Increment::new(file, part.clone(), size)
            }
            None => {
                let part = manifest.next_increment(directory.prefix());
                log.notice(format_args!(
                    "Creating AOF incr file {} on server start",
                    part.name.display()
                ));
                let file = directory.create(&part.name)?;
                manifest.increments.push(part.clone());
                directory.replace_manifest(&manifest)?;
                Increment::new(file, part, 0)
            }
        };
        let mut files = self.files.lock();
        {
            let mut status = self.status.lock();
            status.phase = Phase::On;
            status.measure(&directory, &manifest, Some(&increment.part));
            status.rewritten_bytes = status.base_bytes;
        }
        self.journal
            .aof
            .configure(settings.appendfsync, settings.aof_timestamp_enabled);
        self.journal.fill(Arc::new(increment), settings.appendfsync);
        self.journal.aof.complete(true);
        files.directory = Some(directory);
        files.manifest = manifest;
        Ok(())
    }

    /// Switches the append-only file on: it collects what follows the cut of a first base, which is requested.
    ///
    /// # Errors
    /// When there is no place for the files: the log says why.
    pub(crate) fn turn_on(&self, settings: &Settings, log: &Log) -> Result<(), CannotTurnOn> {
        let mut files = self.files.lock();
        let directory = Directory::of(settings);
        directory.make().map_err(|error| {
            log.warning(format_args!(
                "Can't open or create append-only dir {}: {error}",
                settings.appenddirname
            ));
            CannotTurnOn
        })?;
        let manifest = directory.read_manifest().map_err(|error| {
            log.warning(format_args!("{error}"));
            CannotTurnOn
        })?;
        files.directory = Some(directory);
        files.manifest = manifest.unwrap_or_default();
        files.prepared = None;
        self.status.lock().phase = Phase::First;
        drop(files);
        if self.request(false) == Requested::Scheduled {
            log.notice(format_args!(
                "AOF was enabled but there is already another background operation. An AOF background was scheduled to start \
                 when possible."
            ));
        }
        Ok(())
    }

    /// Switches the append-only file off. What was written so far is synced.
    pub(crate) fn turn_off(&self, reporter: &Reporter<'_>) {
        self.abandon_rewrite();
        let mut files = self.files.lock();
        self.finish(reporter);
        self.journal.stop_filling();
        if let Some(directory) = &files.directory {
            directory.remove_temporary();
        }
        files.prepared = None;
        let mut status = self.status.lock();
        status.phase = Phase::Off;
        status.is_scheduled = false;
    }

    /// Writes and syncs what there is: the node stops, or the file is switched off.
    pub(crate) fn finish(&self, reporter: &Reporter<'_>) {
        if self.journal.aof.is_on() {
            self.journal.write_and_sync(reporter);
        }
    }

    /// Whether it is switched on, even if its first base is not complete.
    pub(crate) fn is_on(&self) -> bool {
        self.status.lock().phase != Phase::Off
    }

    /// State of the append-only file, for INFO.
    pub(crate) fn status(&self) -> Status {
        self.status.lock().clone()
    }

    /// Bytes of all files that make up the data.
    pub(crate) fn bytes(&self) -> u64 {
        let (before, replaced, current) = {
            let status = self.status.lock();
            (
                status.base_bytes + status.older_bytes,
                status.replaced.clone(),
                self.journal.increment(),
            )
        };
        let is_current = |other: &Arc<Increment>| {
            current
                .as_ref()
                .is_some_and(|increment| Arc::ptr_eq(increment, other))
        };
        let replaced = replaced.filter(|increment| !is_current(increment));
        let written = [replaced, current.clone()].into_iter().flatten();
        before + written.map(|increment| increment.size()).sum::<u64>()
    }

    /// Takes the sizes of the files after a rewrite that has brought nothing.
    fn measure(&self, files: &Files) {
        let current = self.journal.increment();
        if let Some(directory) = &files.directory {
            let current = current.as_ref().map(|increment| &increment.part);
            self.status.lock().measure(directory, &files.manifest, current);
        }
    }

    /// Makes the base that a fresh append-only file begins with: a copy of a snapshot file, or one of no data.
    fn first_base(
        &self,
        directory: &Directory,
        settings: &Settings,
        dump: Option<&Path>,
        log: &Log,
    ) -> io::Result<Manifest> {
        let form = if dump.is_some() || settings.aof_use_rdb_preamble {
            BaseForm::Rdb
        } else {
            BaseForm::Commands
        };
        let part = Part::base(directory.prefix(), 1, form);
        log.notice(format_args!(
            "Creating AOF base file {} on server start",
            part.name.display()
        ));
        let path = directory.path_of(&part.name);
        // One that a crash has left is not in any manifest.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match dump {
            // A save replaces the file that the name stands for, and never changes it.
            Some(dump) if fs::hard_link(dump, &path).is_ok() => {}
            Some(dump) => {
                fs::copy(dump, &path)?;
            }
            None => fs::write(&path, empty_base(form, settings, self.version))?,
        }
        fs::File::open(&path)?.sync_all()?;
        directory.sync()?;
        Ok(Manifest {
            base: Some(part),
            ..Manifest::default()
        })
    }
}

/// Error: the append-only file cannot be switched on. The log says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CannotTurnOn;

/// The bytes of a base without data.
fn empty_base(form: BaseForm, settings: &Settings, version: &str) -> Vec<u8> {
    match form {
        BaseForm::Commands => Vec::new(),
        BaseForm::Rdb => {
            let options = WriteOptions {
                compress_max: 0,
                dialect: Dialect::Redis,
            };
            let mut writer = FileWriter::new(Header::Common, options, settings.rdbchecksum);
            writer.aux(b"redis-ver", version.as_bytes());
            writer.aux(b"redis-bits", usize::BITS.to_string().as_bytes());
            writer.aux(b"aof-base", b"1");
            writer.finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;
    use crate::log::Level;

    /// A process that was killed may have left bytes that only the system has: an older increment must not be less safe than what is
    /// written from now on. The one here is opened and cannot be synced.
    #[test]
    fn every_increment_is_synced_at_the_start() {
        let scratch = tempfile::tempdir().unwrap();
        let settings = Settings {
            appenddirname: scratch.path().join("files").display().to_string(),
            ..Settings::default()
        };
        let directory = Directory::of(&settings);
        directory.make().unwrap();
        let increments = [1, 2].map(|sequence| Part::increment(directory.prefix(), sequence));
        symlink("/dev/null", directory.path_of(&increments[0].name)).unwrap();
        fs::write(directory.path_of(&increments[1].name), b"").unwrap();
        let manifest = Manifest {
            increments: increments.to_vec(),
            ..Manifest::default()
        };
        let clock = Arc::new(Clock::manual(Duration::from_secs(1000)));
        let open = |manifest: &Manifest| {
            let append_only = AppendOnly::new(&clock, 0, "7.2.4");
            append_only.open(
                &settings,
                Origin::Files(manifest.clone()),
                &Log::new(Level::Nothing),
            )
        };
        let error = open(&manifest).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        fs::remove_file(directory.path_of(&increments[0].name)).unwrap();
        fs::write(directory.path_of(&increments[0].name), b"").unwrap();
        open(&manifest).unwrap();
    }
}
