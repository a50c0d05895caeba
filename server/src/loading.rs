//! Loading: the data of files becomes that of the node.
//!
//! A file is read into partitions of its own, away from the loops, and these are put in the place of the node's at one
//! instant (`install.rs`); whatever goes wrong before leaves the node's data alone. A snapshot file is split into records
//! by one thread (`scan.rs`), which looks for the ends of values but decodes none, and sends them, in parcels (`parcel.rs`),
//! to one thread for each shard (`build.rs`). The commands of an append-only file run one after the other (`replay.rs`). While data is loaded, loops serve their connections, and refuse commands
//! that need it.

mod build;
mod commands;
pub(crate) mod install;
mod parcel;
mod progress;
pub(crate) mod reload;
pub(crate) mod replay;
mod scan;
pub(crate) mod transfer;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use shardis_storage::key::KeyHasher;
use shardis_storage::rdb::{self, Limits};

use self::build::Builder;
use self::parcel::route;
use self::replay::{AofFile, Torn, is_snapshot};
use self::scan::Scan;
pub(crate) use self::scan::Told;
use crate::commands::dump;
use crate::exec::{Partition, Stamp};
use crate::scripting::Functions;
use crate::shard::Mesh;
use crate::state::Node;

/// Reason for which data cannot be loaded.
#[derive(Debug)]
pub struct LoadError {
    /// The file.
    pub path: PathBuf,
    /// Its place in the file, bytes; none if it has no place.
    pub offset: Option<u64>,
    /// The key that it is about.
    pub key: Option<Vec<u8>>,
    /// The reason.
    reason: LoadReason,
}

/// Reason for which data cannot be loaded, without its place.
#[derive(Debug)]
pub(crate) enum LoadReason {
    /// The system refused something.
    Io(io::Error),
    /// The bytes are not what they should be.
    Format(rdb::Error),
    /// The file holds a database that the node does not have.
    Databases {
        /// Number of databases of the node.
        databases: usize,
        /// Number of the file's database.
        found: u64,
    },
    /// A database holds the key twice.
    Duplicate,
    /// The last file of commands ends within one.
    Torn,
    /// Another file of commands ends within one.
    TornWithin,
    /// The bytes are no commands.
    Damaged {
        /// They are zeros up to the end.
        is_zero: bool,
    },
    /// There is no command of this name.
    UnknownCommand(String),
    /// A command that cannot be run.
    Command {
        /// Its name.
        name: String,
        /// The error.
        error: String,
    },
    /// A library of functions cannot be loaded, for the reason in this text.
    Library(String),
    /// A thread that decoded values panicked.
    Panic,
    /// The primary has no keys, and this replica has some.
    EmptyPrimary,
    /// The node is to stop.
    Stopped,
}

impl LoadError {
    /// An error that has no place in the file.
    pub(crate) fn of(path: &Path, reason: impl Into<LoadReason>) -> Self {
        Self {
            path: path.to_owned(),
            offset: None,
            key: None,
            reason: reason.into(),
        }
    }

    /// Whether nothing is wrong but that the node is to stop.
    pub(crate) fn is_stop(&self) -> bool {
        matches!(self.reason, LoadReason::Stopped)
    }
}

impl LoadError {
    /// The error in a node that goes on.
    pub(crate) fn describe(&self) -> String {
        let text = self.to_string();
        text.trim_end_matches(" Exiting.").to_owned()
    }
}

impl From<io::Error> for LoadReason {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for LoadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Format(error) => error.fmt(f),
            Self::Databases { databases, found } => write!(
                f,
                "it holds database {found}, and the server is configured for {databases} databases"
            ),
            Self::Duplicate => write!(f, "a database holds this key twice"),
            Self::Torn => f.write_str(
                "Unexpected end of file reading the append only file. Make a backup of it, and let redis-check-aof --fix \
                 repair it, or set 'aof-load-truncated' to yes, which has the torn end cut off",
            ),
            Self::TornWithin => f.write_str(
                "Unexpected end of file reading the append only file: the truncated file is not the last file",
            ),
            Self::Damaged { is_zero } => {
                f.write_str("Bad file format reading the append only file")?;
                if *is_zero {
                    f.write_str(" (zero bytes up to its end, which a loss of power leaves)")?;
                }
                f.write_str(
                    ". Make a backup of it, and let redis-check-aof --fix repair it, or let \
                     'aof-load-corrupt-tail-max-size' allow so many bytes at the end to be cut off",
                )
            }
            Self::UnknownCommand(name) => write!(f, "Unknown command '{name}' reading the append only file"),
            Self::Command { name, error } => write!(f, "The command '{name}' of the append only file cannot run: {error}"),
            Self::Library(error) => write!(f, "it holds a library of functions that cannot be loaded: {error}"),
            Self::Panic => write!(f, "a thread of the load panicked. Please report this as a bug"),
            Self::EmptyPrimary => f.write_str(
                "the primary has no keys, and this replica has some, which 'replica-refuse-empty-primary' keeps. Follow another \
                 primary, or set the directive to no",
            ),
            Self::Stopped => write!(f, "the node is to stop"),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Fatal error loading the DB from {}: {}",
            self.path.display(),
            self.reason
        )?;
        if let Some(offset) = self.offset {
            write!(f, ", at offset {offset}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ", key '{}'", key.escape_ascii())?;
        }
        f.write_str(". Exiting.")
    }
}

impl std::error::Error for LoadError {}

/// Data that was read and is not yet the node's.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// A partition for each shard.
    pub(crate) partitions: Vec<Partition>,
    /// Function libraries.
    pub(crate) libraries: Box<Functions>,
    /// Statements of a snapshot about the stream that it is a part of.
    pub(crate) told: Told,
}

/// Treatment of the keys of a snapshot.
#[derive(Clone, Copy, Debug)]
struct Policy {
    /// Keys that have expired are left out.
    drops_expired: bool,
    /// A key that is there twice gets the later value; else it is an error.
    merges: bool,
}

impl Policy {
    /// The policy for a snapshot that is the node's data.
    const DATA: Self = Self {
        drops_expired: true,
        merges: false,
    };
    /// The policy for the snapshot of a primary, which decides when keys expire.
    const REPLICA: Self = Self {
        drops_expired: false,
        merges: false,
    };
    /// The policy for the base of an append-only file: its commands change keys that have expired since.
    const BASE: Self = Self {
        drops_expired: false,
        merges: false,
    };
}

/// Rules of a load, and what all its threads share.
struct Rules<'a> {
    node: &'a Node,
    /// Number of databases.
    databases: usize,
    /// Thresholds of the encodings.
    limits: Limits,
    hasher: KeyHasher,
    /// The time of the load, and rules of access.
    stamp: Stamp,
    /// Keys that have expired are left out.
    drops_expired: bool,
    /// A key that is there twice gets the later value; else it is an error.
    merges: bool,
    /// Number of keys that were left out for another reason.
    left_out: AtomicU64,
}

impl<'a> Rules<'a> {
    fn new(node: &'a Node, policy: Policy) -> Self {
        let settings = node.settings.load();
        let hasher = node.hashing.hasher();
        Self {
            node,
            databases: settings.databases as usize,
            limits: dump::limits_of(&settings, hasher),
            hasher,
            stamp: Stamp::new(&settings, node.clock.now_us() / 1000, false),
            drops_expired: policy.drops_expired,
            merges: policy.merges,
            left_out: AtomicU64::new(0),
        }
    }

    /// Logs what a file has brought, and notes it for INFO.
    fn report(&self, keys: u64, expired: u64) {
        let log = &self.node.log;
        match self.left_out.load(Ordering::Relaxed) {
            0 => log.notice(format_args!(
                "Done loading RDB, keys loaded: {keys}, keys expired: {expired}."
            )),
            left_out => log.notice(format_args!(
                "Done loading RDB, keys loaded: {keys}, keys expired: {expired}, empty keys skipped: {left_out}."
            )),
        }
        self.node.loading.note_keys(keys, expired);
    }
}

/// Reads a snapshot file. Logs what it says of itself, and what it has brought.
///
/// # Errors
/// When something is wrong with it, or the node is to stop.
pub(crate) fn snapshot(node: &Node, path: &Path) -> Result<Loaded, LoadError> {
    let follows = node.settings.load().replicaof.0.is_some();
    let policy = if follows { Policy::REPLICA } else { Policy::DATA };
    snapshot_under(policy, node, path)
}

/// Reads a snapshot file under this policy.
fn snapshot_under(policy: Policy, node: &Node, path: &Path) -> Result<Loaded, LoadError> {
    let file = File::open(path).map_err(|error| LoadError::of(path, error))?;
    let size = file.metadata().map_err(|error| LoadError::of(path, error))?.len();
    load_snapshot(node, path, &file, size, policy).map(|(loaded, _)| loaded)
}

/// Reads a snapshot out of an open file of so many bytes. Returns also where it ends.
fn load_snapshot(
    node: &Node,
    path: &Path,
    file: &File,
    size: u64,
    policy: Policy,
) -> Result<(Loaded, u64), LoadError> {
    let started_ns = node.clock.elapsed_ns();
    node.loading.expect(size);
    let loaded = read_snapshot(node, path, file, 0, policy)?;
    let seconds = (node.clock.elapsed_ns() - started_ns) as f64 / 1e9;
    node.log
        .notice(format_args!("DB loaded from disk: {seconds:.3} seconds"));
    Ok(loaded)
}

/// Reads a file of any kind: a snapshot, commands, or a snapshot with commands behind it. It is left as it is, even if its end
/// is torn.
///
/// # Errors
/// When something is wrong with it, or the node is to stop.
pub(crate) fn file(node: &Node, mesh: &Mesh, path: &Path) -> Result<Loaded, LoadError> {
    let mut file = File::open(path).map_err(|error| LoadError::of(path, error))?;
    let size = file.metadata().map_err(|error| LoadError::of(path, error))?.len();
    if is_snapshot(&mut file).map_err(|error| LoadError::of(path, error))? {
        let (loaded, end) = load_snapshot(node, path, &file, size, Policy::DATA)?;
        if end == size {
            return Ok(loaded);
        }
    }
    // Commands change keys that have expired since, so that these are needed after all.
    let file = AofFile {
        path: path.to_owned(),
        is_base: true,
    };
    let replayed = replay::append_only(node, mesh, &[file])?;
    if let Some(Torn { path, good_bytes }) = replayed.torn {
        let path = path.display();
        node.log.warning(format_args!(
            "The end of {path} is passed over from offset {good_bytes} on"
        ));
    }
    Ok(replayed.loaded)
}

/// Reads a snapshot out of an open file, or of what else has this name, after files of so many bytes. Returns also where
/// it ends.
fn read_snapshot(
    node: &Node,
    path: &Path,
    source: impl Read,
    passed: u64,
    policy: Policy,
) -> Result<(Loaded, u64), LoadError> {
    let rules = Rules::new(node, policy);
    let (routes, arrivals): (Vec<_>, Vec<_>) = (0..node.shards).map(|_| route()).unzip();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (shard, arrival) in arrivals.into_iter().enumerate() {
            let builder = Builder::new(&rules, shard, arrival);
            let thread = thread::Builder::new()
                .name(format!("load-{shard}"))
                .spawn_scoped(scope, move || builder.run())
                .map_err(|error| LoadError::of(path, error))?;
            threads.push(thread);
        }
        let scanned = Scan::new(&rules, routes, passed).run(source);
        let (mut failures, mut partitions, mut keys) = (Vec::new(), Vec::new(), 0);
        for thread in threads {
            match thread.join() {
                Ok(Ok((partition, built))) => {
                    partitions.push(partition);
                    keys += built;
                }
                Ok(Err(failure)) => failures.push(failure),
                Err(_) => failures.push(Failure::nowhere(LoadReason::Panic)),
            }
        }
        match scanned {
            Ok(scanned) if failures.is_empty() => {
                rules.report(keys, scanned.expired);
                let loaded = Loaded {
                    partitions,
                    libraries: Box::new(scanned.libraries),
                    told: scanned.told,
                };
                Ok((loaded, scanned.end))
            }
            scanned => {
                failures.extend(scanned.err());
                Err(Failure::first(failures).in_file(path))
            }
        }
    })
}

/// A reason and its place in the file.
#[derive(Debug)]
struct Failure {
    offset: Option<u64>,
    key: Option<Vec<u8>>,
    reason: LoadReason,
}

impl Failure {
    fn nowhere(reason: LoadReason) -> Self {
        Self {
            offset: None,
            key: None,
            reason,
        }
    }

    /// The one of several failures that is to be reported: that which stands first in the file. The stop of other threads
    /// follows from it.
    fn first(failures: Vec<Self>) -> Self {
        let rank = |failure: &Self| (matches!(failure.reason, LoadReason::Stopped), failure.offset);
        let first = failures.into_iter().min_by_key(rank);
        first.unwrap_or_else(|| Self::nowhere(LoadReason::Stopped))
    }

    fn in_file(self, path: &Path) -> LoadError {
        let Self { offset, key, reason } = self;
        LoadError {
            path: path.to_owned(),
            offset,
            key,
            reason,
        }
    }
}
