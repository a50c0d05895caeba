//! [`Directory`]: the directory of the append-only file, and the steps that change what it holds.
//!
//! A file that must survive a crash is written to a temporary name, synced, renamed, and the directory synced: a manifest is the old or the
//! new one, never a part of either, and a file that it names is there.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::manifest::{Manifest, ManifestError};
use crate::config::Settings;

/// The beginning of the names of incomplete bases; the number of the process follows.
const TEMPORARY_BASE: &str = "temp-rewriteaof-bg-";

/// Mode of new files, less the process's mask.
const FILE_MODE: u32 = 0o644;

/// Mode of a new directory, less the process's mask.
const DIRECTORY_MODE: u32 = 0o755;

/// The directory of an append-only file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    path: PathBuf,
    /// The beginning of the names in it: the directive `appendfilename`.
    prefix: String,
}

/// Reason why a manifest cannot be used.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The file cannot be read.
    Unreadable {
        /// The name of its file.
        name: String,
        /// The error of the system.
        error: io::Error,
    },
    /// The text is wrong.
    Text(ManifestError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { name, error } => {
                write!(
                    f,
                    "Fatal error: can't open the AOF manifest file {name} for reading: {error}"
                )
            }
            Self::Text(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

impl Directory {
    /// The directory that the settings name.
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            path: settings.dir.path().join(&settings.appenddirname),
            prefix: settings.appendfilename.clone(),
        }
    }

    /// The beginning of the names of its files.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The path of one of its files.
    pub(crate) fn path_of(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    /// The name of the manifest.
    pub(crate) fn manifest_name(&self) -> String {
        format!("{}.manifest", self.prefix)
    }

    /// The name of an increment that no manifest names yet: the journal goes there while the first base is written.
    pub(crate) fn temporary_increment(&self) -> String {
        format!("temp-{}.incr", self.prefix)
    }

    /// Reads the manifest; none where there is no directory or no manifest in it.
    ///
    /// # Errors
    /// When the manifest cannot be used: the files must not be touched then.
    pub(crate) fn read_manifest(&self) -> Result<Option<Manifest>, OpenError> {
        let name = self.manifest_name();
        match fs::read(self.path_of(&name)) {
            Ok(text) => Manifest::parse(&text).map(Some).map_err(OpenError::Text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(OpenError::Unreadable { name, error }),
        }
    }

    /// Makes the directory, unless it is there.
    ///
    /// # Errors
    /// The error of the system call.
    pub(crate) fn make(&self) -> io::Result<()> {
        match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.path.is_dir() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync_directory(self.path.parent().unwrap_or(Path::new("/"))),
        }
    }

    /// Puts a manifest in the place of the one that is there, if one is.
    ///
    /// # Errors
    /// The error of the system call. Unless the last step failed, the sync of the directory, the old manifest is still in place.
    pub(crate) fn replace_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        let temporary = self.path_of(self.temporary_manifest());
        let written = write_synced(&temporary, &manifest.format())
            .and_then(|()| fs::rename(&temporary, self.path_of(self.manifest_name())));
        if written.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(&temporary);
        }
        written.and_then(|()| self.sync())
    }

    /// Creates an empty file that is appended to.
    ///
    /// # Errors
    /// The error of the system call.
    pub(crate) fn create(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .open(self.path_of(name))
            .and_then(|file| file.set_len(0).map(|()| file))
    }

    /// Opens a file to append to it.
    ///
    /// # Errors
    /// The error of the system call.
    pub(crate) fn open(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        OpenOptions::new().append(true).open(self.path_of(name))
    }

    /// Gives a file another name, for good.
    ///
    /// # Errors
    /// The error of the system call.
    pub(crate) fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> io::Result<()> {
        fs::rename(self.path_of(from), self.path_of(to))?;
        self.sync()
    }

    /// The name of a base that is not complete.
    pub(crate) fn temporary_base(&self) -> PathBuf {
        self.path_of(format!("{TEMPORARY_BASE}{}.aof", std::process::id()))
    }

    /// Removes a file, unless it is missing.
    ///
    /// # Errors
    /// The error of the system call.
    pub(crate) fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        match fs::remove_file(self.path_of(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// Removes files with temporary names, which a process has left that ended too early.
    pub(crate) fn remove_temporary(&self) {
        let found = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let names = found.map(|entry| entry.file_name());
        let is_base = |name: &OsStr| name.as_encoded_bytes().starts_with(TEMPORARY_BASE.as_bytes());
        let bases = names.filter(|name| is_base(name));
        let others = [self.temporary_increment(), self.temporary_manifest()].map(OsString::from);
        for name in bases.chain(others) {
            // One that stays is overwritten or in nobody's way.
            let _ = self.remove(name);
        }
    }

    /// The name of a manifest that is not complete.
    fn temporary_manifest(&self) -> String {
        format!("temp-{}.manifest", self.prefix)
    }

    /// Makes the names in the directory safe.
    ///
    /// # Errors
    /// The error of the system call.
    pub(crate) fn sync(&self) -> io::Result<()> {
        sync_directory(&self.path)
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn write_synced(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::manifest::{BaseForm, Part};

    fn directory() -> (tempfile::TempDir, Directory) {
        let scratch = tempfile::tempdir().unwrap();
        let directory = Directory {
            path: scratch.path().join("appendonlydir"),
            prefix: "appendonly.aof".to_owned(),
        };
        (scratch, directory)
    }

    #[test]
    fn a_directory_without_a_manifest_is_a_fresh_start() {
        let (_scratch, directory) = directory();
        assert!(directory.read_manifest().unwrap().is_none());
        directory.make().unwrap();
        directory.make().unwrap();
        assert!(directory.read_manifest().unwrap().is_none());
    }

    #[test]
    fn a_manifest_is_replaced_and_leaves_nothing_behind() {
        let (_scratch, directory) = directory();
        directory.make().unwrap();
        let mut manifest = Manifest {
            base: Some(Part::base(directory.prefix(), 1, BaseForm::Rdb)),
            ..Manifest::default()
        };
        directory.replace_manifest(&manifest).unwrap();
        manifest.increments.push(Part::increment(directory.prefix(), 1));
        directory.replace_manifest(&manifest).unwrap();
        assert_eq!(directory.read_manifest().unwrap(), Some(manifest));
        let names: Vec<_> = fs::read_dir(&directory.path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["appendonly.aof.manifest"]);
    }

    #[test]
    fn a_manifest_that_cannot_be_used_is_reported_and_stays() {
        let (_scratch, directory) = directory();
        directory.make().unwrap();
        let path = directory.path_of(directory.manifest_name());
        fs::write(&path, "file x\n").unwrap();
        let error = directory.read_manifest().unwrap_err().to_string();
        assert_eq!(
            error,
            "\n*** FATAL AOF MANIFEST FILE ERROR ***\nReading the manifest file, at line 1\n>>> 'file x'\nInvalid AOF \
             manifest file format"
        );
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let error = directory.read_manifest().unwrap_err().to_string();
        assert!(
            error.starts_with("Fatal error: can't open the AOF manifest file appendonly.aof.manifest"),
            "{error}"
        );
    }
}
