//! [`Source`]: the data that a node begins with.
//!
//! | `appendonly` | there is | the node begins with |
//! |---|---|---|
//! | yes | a manifest | the files that it names, and appends to the last of them |
//! | yes | an append-only file of the old form and no manifest | that file, moved into the directory (`upgrade.rs`) |
//! | yes | a snapshot file and no manifest | that file, which becomes the first base (Redis would begin with nothing) |
//! | yes | neither | nothing, and an empty base |
//! | no | a snapshot file | that file |

use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;

use super::upgrade::take_in_old_file;
use super::{Initial, StartError};
use crate::append_only::Origin;
use crate::config::Settings;
use crate::journal::backlog::BacklogBounds;
use crate::journal::directory::Directory;
use crate::journal::manifest::Manifest;
use crate::loading::install::install;
use crate::loading::replay::{self, AofFile, Torn};
use crate::loading::{self, LoadError, Told};
use crate::shard::Mesh;
use crate::state::Node;

/// The files that hold the data.
#[derive(Debug)]
pub(super) enum Source {
    /// There are none.
    Nothing,
    /// A snapshot file.
    Snapshot(PathBuf),
    /// The files of an append-only file.
    AppendOnly(Directory, Manifest),
    /// A file that the builder of the node has chosen, of either kind.
    File(PathBuf),
}

impl Source {
    /// Finds the files.
    ///
    /// # Errors
    /// When there is a manifest that cannot be used, even if the append-only file is off: it may have been switched off by
    /// mistake.
    pub(super) fn find(initial: Initial, node: &Node, settings: &Settings) -> Result<Self, StartError> {
        let initial = match initial {
            Initial::File(path) => return Ok(Self::File(path)),
            initial => initial,
        };
        if settings.appendonly || node.daemon.is_some() {
            let directory = Directory::of(settings);
            let manifest = directory
                .read_manifest()
                .map_err(|error| StartError::Manifest(error.to_string()))?;
            if settings.appendonly
                && let Some(manifest) = take_in_old_file(&directory, manifest, settings, &node.log)?
                && !manifest.is_empty()
            {
                return Ok(Self::AppendOnly(directory, manifest));
            }
        }
        let is_wanted = settings.appendonly || matches!(initial, Initial::Saved);
        let found = is_wanted.then(|| node.saved_file()).flatten();
        Ok(found.map_or(Self::Nothing, Self::Snapshot))
    }

    /// Whether there is something to load.
    pub(super) fn is_there(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    /// Loads the data, and begins to append behind it, before any command can change it. True when the data has a place in a history,
    /// from which a primary may continue.
    ///
    /// # Errors
    /// When something is wrong with the files, or no others can be made.
    pub(super) fn begin(&self, node: &Node, mesh: &Mesh, settings: &Settings) -> Result<bool, StartError> {
        let (loaded, origin) = match self {
            Self::Nothing => (None, Origin::Nothing),
            Self::Snapshot(path) => (Some(loading::snapshot(node, path)?), Origin::Dump(path)),
            Self::File(path) => {
                install(node, mesh, loading::file(node, mesh, path)?);
                return self.begin_anew(node, settings).map(|()| false);
            }
            Self::AppendOnly(directory, manifest) => {
                let replayed = replay::append_only(node, mesh, &AofFile::all(directory, manifest))?;
                if let Some(torn) = &replayed.torn {
                    cut(torn, node)?;
                }
                (Some(replayed.loaded), Origin::Files(manifest.clone()))
            }
        };
        if settings.appendonly {
            node.append_only.open(settings, origin, &node.log)?;
        }
        let Some(loaded) = loaded else { return Ok(false) };
        let is_placed = matches!(self, Self::Snapshot(_)) && resume(node, &loaded.told, settings);
        install(node, mesh, loaded);
        Ok(is_placed)
    }

    /// Begins an append-only file of data that no file of it holds.
    fn begin_anew(&self, node: &Node, settings: &Settings) -> Result<(), StartError> {
        if settings.appendonly {
            node.append_only
                .turn_on(settings, &node.log)
                .map_err(|_| io::Error::other("the append-only file cannot be switched on"))?;
        }
        Ok(())
    }
}

/// Goes on in the history that a snapshot tells its place in. False if it tells none.
fn resume(node: &Node, told: &Told, settings: &Settings) -> bool {
    let Some((id, offset, db)) = told.place() else {
        return false;
    };
    let mut history = node.replication.history.lock();
    let follows = settings.replicaof.0.is_some();
    if follows {
        history.take_over(id.to_owned());
    } else {
        // Changes from here on are under an id of its own.
        history.resume(id.to_owned(), offset);
    }
    drop(history);
    if follows {
        // Keys that expire before the link is there must not move the offset: the primary's stream goes on from it.
        node.journal.follow(true);
    }
    let selected = follows.then_some(db);
    node.journal.jump(offset, selected, BacklogBounds::new(settings));
    node.replication.replicas.begin_at(None);
    node.replication.following.note_stream_db(db);
    true
}

/// Cuts the torn end of a file off.
fn cut(torn: &Torn, node: &Node) -> Result<(), LoadError> {
    let Torn { path, good_bytes } = torn;
    node.log.warning(format_args!(
        "Truncating the AOF {} at offset {good_bytes}",
        path.file_name().unwrap_or_default().display()
    ));
    let cut = || {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(*good_bytes)?;
        file.sync_all()
    };
    cut().map_err(|error: io::Error| LoadError::of(path, error))?;
    node.log.warning(format_args!(
        "AOF {} loaded anyway because aof-load-truncated is enabled",
        path.file_name().unwrap_or_default().display()
    ));
    Ok(())
}
