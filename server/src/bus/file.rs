//! [`NodesFile`]: nodes.conf on the disk, of which this node is the only user.
//!
//! The file is replaced as a whole: the new text is written under a temporary name, which then takes the place of the old file. After a
//! crash the file has the old or the new text. The file that has the name is always locked by its node: the new one is locked before it
//! gets the name, and whoever locks a file looks whether it still has the name then. A Redis server locks the same file in the same way.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Mode of the file, less the process's mask.
const FILE_MODE: u32 = 0o644;

/// Number of tries to lock a file that is replaced at the same time.
const LOCK_TRIES: usize = 10;

/// Fault of the file for which a node does not start.
#[derive(Debug)]
pub(crate) enum NodesFileError {
    /// Another node uses the file.
    InUse(PathBuf),
    /// The system refuses to open, lock or read it.
    Io(PathBuf, io::Error),
    /// Its text is wrong.
    Text(PathBuf, shardis_cluster::nodes_file::FileError),
}

impl fmt::Display for NodesFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(
                f,
                "Sorry, the cluster configuration file {} is already used by a different node. Please make sure that different nodes \
                 use different cluster configuration files.",
                path.display()
            ),
            Self::Io(path, error) => write!(
                f,
                "Can't open {} in order to acquire a lock: {error}",
                path.display()
            ),
            Self::Text(path, error) => write!(
                f,
                "Unrecoverable error: corrupted cluster config file {}: {error}. The node does not start, and leaves the file as it is.",
                path.display()
            ),
        }
    }
}

impl std::error::Error for NodesFileError {}

/// The file, locked.
#[derive(Debug)]
pub(crate) struct NodesFile {
    path: PathBuf,
    /// The file that has the name, with the lock on it.
    locked: File,
}

impl NodesFile {
    /// Opens and locks the file, and returns its text: an empty one on a node's first start.
    ///
    /// # Errors
    /// When another node uses it, or it cannot be read.
    pub(crate) fn open(path: PathBuf) -> Result<(Self, String), NodesFileError> {
        let fault = |error| NodesFileError::Io(path.clone(), error);
        for _ in 0..LOCK_TRIES {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(FILE_MODE)
                .open(&path)
                .map_err(fault)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(NodesFileError::InUse(path)),
                Err(TryLockError::Error(error)) => return Err(fault(error)),
            }
            if !has_name(&file, &path).map_err(fault)? {
                continue;
            }
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(fault)?;
            return Ok((Self { path, locked: file }, text));
        }
        Err(NodesFileError::InUse(path))
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the text. It is on the disk afterwards if it `is_durable`; else it survives the end of the process, but not that of the
    /// system.
    ///
    /// # Errors
    /// The error of the system. The file has the old or the new text.
    pub(crate) fn save(&mut self, text: &str, is_durable: bool) -> io::Result<()> {
        let temporary = self.temporary();
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(&temporary)?;
        file.lock()?;
        file.write_all(text.as_bytes())?;
        if is_durable {
            file.sync_all()?;
        }
        fs::rename(&temporary, &self.path)?;
        self.locked = file;
        if is_durable {
            self.sync_folder()?;
        }
        Ok(())
    }

    /// The name for a text that is not whole yet: a node that finds such a file overwrites it.
    fn temporary(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".tmp");
        name.into()
    }

    fn sync_folder(&self) -> io::Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// Whether the open file is the one that has the name.
fn has_name(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.conf");
        let (mut file, text) = NodesFile::open(path.clone()).unwrap();
        assert_eq!(text, "");
        let is_taken = || matches!(NodesFile::open(path.clone()), Err(NodesFileError::InUse(_)));
        assert!(is_taken());
        for (text, is_durable) in [("one", false), ("two", true)] {
            file.save(text, is_durable).unwrap();
            assert!(is_taken(), "the file that took the place is locked too");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        drop(file);
        let (_, text) = NodesFile::open(path.clone()).unwrap();
        assert_eq!(text, "two");
    }

    #[test]
    fn what_cannot_be_saved_leaves_the_old_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.conf");
        let (mut file, _) = NodesFile::open(path.clone()).unwrap();
        file.save("old", true).unwrap();
        fs::create_dir(folder.path().join("nodes.conf.tmp")).unwrap();
        assert!(file.save("new", true).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }
}
