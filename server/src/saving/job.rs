//! [`Job`]: a file to be written, and what is to happen around it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use shardis_storage::rdb::Dialect;

use super::payload::PayloadWriter;
use crate::config::Settings;

/// Purpose of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A client waits for the file: SAVE.
    Command,
    /// BGSAVE, or a save point.
    Background,
    /// The data was removed by FLUSHALL, and so is what was saved of it.
    Flush,
    /// The node stops when the file is there.
    Shutdown {
        /// The node stops as well when the file cannot be written.
        insists: bool,
    },
    /// The base of an append-only file.
    AofBase,
    /// The data that replicas begin with.
    Replicas,
}

impl Purpose {
    /// Whether the node stops afterwards.
    pub(crate) fn is_shutdown(self) -> bool {
        matches!(self, Self::Shutdown { .. })
    }

    /// Whether it is a save of the data, to the file that the settings name.
    pub(super) fn is_save(self) -> bool {
        !matches!(self, Self::AofBase | Self::Replicas)
    }

    /// Whether a job of this purpose waits for the end of one of the `other`.
    pub(super) fn waits_for(self, other: Self) -> bool {
        match other {
            Self::AofBase => matches!(self, Self::Command | Self::Flush | Self::Shutdown { .. }),
            Self::Replicas => matches!(self, Self::Flush | Self::Shutdown { .. }),
            Self::Command | Self::Background | Self::Flush | Self::Shutdown { .. } => false,
        }
    }
}

/// Parts of the data that are saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// The keys.
    pub(crate) keys: bool,
    /// The libraries of functions.
    pub(crate) functions: bool,
}

impl Selection {
    /// All of it.
    pub(crate) const ALL: Self = Self {
        keys: true,
        functions: true,
    };
}

/// Form of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A snapshot file of Redis.
    Rdb,
    /// Commands that make the data anew, as in an append-only file.
    Commands,
}

/// Called when a job has ended, on the thread that wrote the file.
pub(crate) type AtEnd = Box<dyn FnOnce(Result<(), &SaveError>) + Send>;

/// A file to be written.
pub(crate) struct Job {
    /// Its purpose.
    pub(crate) purpose: Purpose,
    /// Its form.
    pub(crate) form: Form,
    /// Parts of the data that it gets.
    pub(crate) selection: Selection,
    /// Form of hashes with fields that expire; none for that of the settings.
    pub(crate) dialect: Option<Dialect>,
    /// Its path.
    pub(crate) path: PathBuf,
    /// Its path while it is not complete.
    pub(crate) temporary: PathBuf,
    /// The way to replicas, which takes the place of a file.
    pub(crate) payload: Option<PayloadWriter>,
    /// Called at the cut, while all partitions are held.
    pub(crate) at_cut: Option<Box<dyn FnOnce() + Send>>,
    /// Called at the end.
    pub(crate) at_end: Option<AtEnd>,
}

/// Paths and form of a file.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(super) form: Form,
    pub(super) path: PathBuf,
    pub(super) temporary: PathBuf,
    pub(super) is_aof_base: bool,
}

/// Reason for which a file was not written.
#[derive(Debug)]
pub(crate) enum SaveError {
    /// The job was given up.
    GivenUp,
    /// The system refused something.
    File(FileError),
}

/// An error of the system, and what it refused.
#[derive(Debug)]
pub(crate) struct FileError {
    /// The step that failed.
    pub(super) attempt: Attempt,
    /// The error.
    pub(super) error: io::Error,
}

/// A step on the way to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// Creating the temporary file.
    Create,
    /// Writing bytes to it, or bringing them to the disk.
    Write,
    /// Giving it its name.
    Rename,
}

/// Refusal of a job, because of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Purpose of that one.
    pub(crate) by: Purpose,
    /// Its number.
    pub(crate) number: u64,
}

impl Job {
    /// A save of the data to the file that the settings name.
    pub(crate) fn dump(purpose: Purpose, settings: &Settings) -> Self {
        let directory = settings.dir.path();
        Self {
            purpose,
            form: Form::Rdb,
            selection: Selection::ALL,
            dialect: None,
            path: settings.dump_path(),
            temporary: directory.join(format!("temp-{}.rdb", std::process::id())),
            payload: None,
            at_cut: None,
            at_end: None,
        }
    }

    /// A snapshot for replicas.
    pub(crate) fn for_replicas(settings: &Settings, selection: Selection, payload: PayloadWriter) -> Self {
        Self {
            selection,
            payload: Some(payload),
            temporary: payload_path(settings),
            ..Self::dump(Purpose::Replicas, settings)
        }
    }

    /// The log line for an error.
    pub(crate) fn describe(&self, error: &SaveError) -> String {
        match error {
            SaveError::GivenUp => "The save was given up".to_owned(),
            SaveError::File(failed) => self.file().describe(failed),
        }
    }

    /// Ends a job that never began to write.
    pub(super) fn end(self, outcome: Result<(), &SaveError>) {
        if let Some(at_end) = self.at_end {
            at_end(outcome);
        }
    }

    pub(super) fn file(&self) -> File {
        File {
            form: self.form,
            path: self.path.clone(),
            temporary: self.temporary.clone(),
            is_aof_base: self.purpose == Purpose::AofBase,
        }
    }
}

/// A free name for a file that a snapshot for replicas needs.
pub(crate) fn payload_path(settings: &Settings) -> PathBuf {
    settings
        .dir
        .path()
        .join(format!("temp-repl-{}.rdb", std::process::id()))
}

impl File {
    /// The directory of the file.
    pub(super) fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        }
    }

    /// The log line for an error.
    pub(super) fn describe(&self, failed: &FileError) -> String {
        let (temporary, path, error) = (self.temporary.display(), self.path.display(), &failed.error);
        match failed.attempt {
            Attempt::Create => format!("Failed opening the temp RDB file {temporary} for saving: {error}"),
            Attempt::Write => format!("Write error while saving DB to the disk({temporary}): {error}"),
            Attempt::Rename => {
                format!("Error moving temp DB file {temporary} on the final destination {path}: {error}")
            }
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("purpose", &self.purpose)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
