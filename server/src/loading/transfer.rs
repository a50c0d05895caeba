//! Loads the snapshot that a primary sends: out of the pieces in which it comes, or out of a file that they are written to first.
//!
//! The link ends what it sends with [`Piece::End`], once it has seen the end of the snapshot. A channel that ends without that is a link
//! that was lost: nothing is loaded then.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tokio::sync::mpsc::Receiver;

use super::{LoadError, LoadReason, Loaded, Policy, read_snapshot};
use crate::limits::SNAPSHOT_SYNC_BYTES;
use crate::state::Node;

/// A part of a snapshot on its way from the link.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Some bytes.
    Bytes(Vec<u8>),
    /// There are no more.
    End,
}

/// The way that a snapshot takes.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// By way of a file, which is loaded when it is complete.
    File {
        /// Its path.
        temporary: PathBuf,
        /// The path that it gets when it is loaded.
        path: PathBuf,
        /// The file goes then, since this node keeps none of its data.
        is_removed: bool,
    },
    /// Straight into the data, as it comes.
    Direct,
}

/// Rules for the reception of a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Reception {
    /// Its way.
    pub(crate) way: Way,
    /// Its length, if that is known.
    pub(crate) size: Option<u64>,
    /// Clients are told that data is loaded; else they are served the data that there is.
    pub(crate) excludes: bool,
    /// A snapshot without keys is refused.
    pub(crate) wants_keys: bool,
}

/// Receives a snapshot and loads it.
///
/// # Errors
/// When it does not come to its end, or something is wrong with it.
pub(crate) fn receive(
    node: &Node,
    pieces: Receiver<Piece>,
    reception: &Reception,
) -> Result<Loaded, LoadError> {
    let Way::File {
        temporary,
        path,
        is_removed,
    } = &reception.way
    else {
        let _announced = Announced::begin(node, reception.excludes, reception.size);
        let loaded = load(node, pieces)?;
        return check(loaded, reception, Path::new(STREAM));
    };
    let loaded = keep(pieces, temporary)
        .map_err(|error| LoadError::of(temporary, error))
        .and_then(|()| load_file(node, temporary, reception))
        .and_then(|loaded| check(loaded, reception, temporary));
    // A faulty transfer leaves the file of this node's own data alone.
    let placed = loaded.and_then(|loaded| {
        std::fs::rename(temporary, path).map_err(|error| LoadError::of(path, error))?;
        Ok(loaded)
    });
    let of_no_use = if placed.is_err() { temporary } else { path };
    if placed.is_err() || *is_removed {
        let _ = std::fs::remove_file(of_no_use);
    }
    if placed.is_ok() && *is_removed {
        node.log.notice(format_args!(
            "Removing the RDB file obtained from the master. This replica has persistence disabled"
        ));
    }
    placed
}

/// Loads a file that was received.
fn load_file(node: &Node, path: &Path, reception: &Reception) -> Result<Loaded, LoadError> {
    let file = File::open(path).map_err(|error| LoadError::of(path, error))?;
    let size = file.metadata().map_err(|error| LoadError::of(path, error))?.len();
    let _announced = Announced::begin(node, reception.excludes, Some(size));
    let (loaded, _) = read_snapshot(node, path, &file, 0, Policy::REPLICA)?;
    Ok(loaded)
}

/// Refuses data without keys where some are wanted: a primary that was restarted without its data must not take that of its replicas.
fn check(loaded: Loaded, reception: &Reception, name: &Path) -> Result<Loaded, LoadError> {
    let is_empty = || {
        loaded
            .partitions
            .iter()
            .all(|partition| partition.keyspace.is_empty())
    };
    if reception.wants_keys && is_empty() {
        return Err(LoadError::of(name, LoadReason::EmptyPrimary));
    }
    Ok(loaded)
}

/// Name of a snapshot that comes without a file.
const STREAM: &str = "the primary's stream";

/// A load that the node tells of, for as long as this lives.
struct Announced<'a>(&'a Node);

impl<'a> Announced<'a> {
    fn begin(node: &'a Node, excludes: bool, size: Option<u64>) -> Self {
        let now_s = node.clock.now_us() / 1_000_000;
        if excludes {
            node.loading.begin(now_s);
        } else {
            node.loading.begin_beside(now_s);
        }
        node.loading.expect(size.unwrap_or_default());
        node.ring_all();
        Self(node)
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.0.loading.end();
        self.0.ring_all();
    }
}

/// Loads a snapshot as it comes.
fn load(node: &Node, pieces: Receiver<Piece>) -> Result<Loaded, LoadError> {
    let name = Path::new(STREAM);
    let mut pieces = Pieces::new(pieces);
    let (loaded, end) = read_snapshot(node, name, &mut pieces, 0, Policy::REPLICA)?;
    // The data counts only if the link has seen the end where the snapshot says that it is.
    io::copy(&mut pieces, &mut io::sink()).map_err(|error| LoadError::of(name, error))?;
    if pieces.taken != end {
        let reason = io::Error::other(format!(
            "{} bytes follow the end of the snapshot",
            pieces.taken - end
        ));
        return Err(LoadError::of(name, LoadReason::Io(reason)));
    }
    Ok(loaded)
}

/// Writes a snapshot to a file, which is on the disk then.
fn keep(pieces: Receiver<Piece>, path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let mut pieces = Pieces::new(pieces);
    let mut unsynced = 0;
    while let Some(bytes) = pieces.next()? {
        file.write_all(&bytes)?;
        unsynced += bytes.len() as u64;
        if unsynced >= SNAPSHOT_SYNC_BYTES {
            file.sync_data()?;
            unsynced = 0;
        }
    }
    file.sync_all()
}

/// The pieces of a snapshot, as bytes to read.
struct Pieces {
    channel: Receiver<Piece>,
    current: Vec<u8>,
    read: usize,
    /// Number of bytes that were read in all.
    taken: u64,
    has_ended: bool,
}

impl Pieces {
    fn new(channel: Receiver<Piece>) -> Self {
        Self {
            channel,
            current: Vec::new(),
            read: 0,
            taken: 0,
            has_ended: false,
        }
    }

    /// The next piece; none behind the last.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.has_ended {
            return Ok(None);
        }
        match self.channel.blocking_recv() {
            Some(Piece::Bytes(bytes)) => Ok(Some(bytes)),
            Some(Piece::End) => {
                self.has_ended = true;
                Ok(None)
            }
            None => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the link was lost before the snapshot was complete",
            )),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.current.len() {
            match self.next()? {
                Some(bytes) => (self.current, self.read) = (bytes, 0),
                None => return Ok(0),
            }
        }
        let left = &self.current[self.read..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.read += count;
        self.taken += count as u64;
        Ok(count)
    }
}
