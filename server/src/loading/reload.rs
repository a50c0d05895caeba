//! [`Reloader`]: reads the node's files again, while a command holds the partitions of all shards.

use std::sync::{Arc, Weak};

use shardis_storage::memory::thread_balance;

use super::replay::{self, AofFile, Torn};
use super::{LoadError, Loaded, Policy};
use crate::exec::view::Held;
use crate::exec::{Reload, Reloading};
use crate::journal::directory::Directory;
use crate::shard::Mesh;
use crate::state::Node;

/// Reader of the node's files, for DEBUG.
#[derive(Debug)]
pub(crate) struct Reloader {
    /// All shards. The loops that have this reader are among those that keep them.
    mesh: Weak<Mesh>,
}

impl Reloader {
    /// A reader for the node of these shards.
    pub(crate) fn new(mesh: &Arc<Mesh>) -> Self {
        Self {
            mesh: Arc::downgrade(mesh),
        }
    }
}

impl Reload for Reloader {
    fn snapshot(&self, node: &Node, held: &mut Held<'_>, how: Reloading) -> Result<(), String> {
        let policy = Policy {
            merges: how.merges,
            ..Policy::DATA
        };
        let path = node.settings.load().dump_path();
        // Other loops answer that data is loaded, instead of waiting.
        node.loading.begin(node.clock.now_us() / 1_000_000);
        let loaded = super::snapshot_under(policy, node, &path);
        node.loading.end();
        let reloaded = loaded
            .map_err(describe)
            .and_then(|loaded| put(node, held, loaded, how));
        reloaded.inspect_err(|reason| node.log.warning(format_args!("{reason}")))
    }

    fn append_only(&self, node: &Node, held: &mut Held<'_>) -> Result<(), String> {
        node.loading.begin(node.clock.now_us() / 1_000_000);
        let before = thread_balance();
        let loaded = self.replay(node);
        // It is booked to the partitions that nobody uses yet.
        held.leave_out(thread_balance() - before);
        node.loading.end();
        let how = Reloading {
            keeps: false,
            merges: false,
        };
        let reloaded = loaded.and_then(|loaded| put(node, held, loaded, how));
        reloaded.inspect_err(|reason| node.log.warning(format_args!("{reason}")))
    }
}

impl Reloader {
    /// The data of the append-only file; none where there is no such file.
    fn replay(&self, node: &Node) -> Result<Loaded, String> {
        let mesh = self.mesh.upgrade().ok_or("the node ends")?;
        let directory = Directory::of(&node.settings.load());
        let manifest = directory.read_manifest().map_err(|error| error.to_string())?;
        let files = AofFile::all(&directory, &manifest.unwrap_or_default());
        let replayed = replay::append_only(node, &mesh, &files).map_err(describe)?;
        match replayed.torn {
            None => Ok(replayed.loaded),
            Some(Torn { path, good_bytes }) => {
                Err(format!("{} is torn at offset {good_bytes}", path.display()))
            }
        }
    }
}

/// An error that does not end the process.
fn describe(error: LoadError) -> String {
    error.describe()
}

/// Puts loaded data into the partitions that are held.
fn put(node: &Node, held: &mut Held<'_>, loaded: Loaded, how: Reloading) -> Result<(), String> {
    let now_ms = node.clock.now_us() / 1000;
    let libraries = loaded.libraries;
    let mut loaded: Vec<_> = loaded.partitions.into_iter().map(Some).collect();
    if how.keeps && !how.merges {
        let mut common = None;
        held.each(|partition| {
            let other = loaded[partition.shard].as_ref();
            common = common.take().or_else(|| partition.find_common(other?));
        });
        if let Some((db, key)) = common {
            let before = thread_balance();
            drop(loaded);
            // It was booked to the partitions that nobody uses any more.
            held.leave_out(thread_balance() - before);
            let key = key.escape_ascii();
            return Err(format!("RDB has duplicated key '{key}' in DB {db}"));
        }
    }
    node.persistence.give_up(|_| true);
    if how.keeps {
        node.scripts
            .change_functions(|functions| functions.add_all(&libraries))
            .map_err(|error| error.to_string())?;
    } else {
        node.scripts.set_functions(*libraries);
    }
    held.each(|partition| {
        let Some(loaded) = loaded[partition.shard].take() else {
            return;
        };
        if how.keeps {
            partition.merge(loaded, now_ms);
        } else {
            partition.adopt(loaded, now_ms);
            partition.release_all();
        }
    });
    Ok(())
}
