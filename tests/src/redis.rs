//! A real redis-server: the oracle.

use std::path::PathBuf;

use crate::process::{Launch, Process, on_path};

/// The redis-server to compare with.
///
/// # Panics
/// When there is none: what cannot be compared is not skipped.
#[must_use]
pub fn binary() -> PathBuf {
    tool("redis-server")
}

/// One of the programs that come with Redis (`redis-server`, `redis-cli`, `redis-benchmark`), or another one.
///
/// # Panics
/// When it is not installed.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    on_path(name).unwrap_or_else(|| {
        panic!("{name} is not on the search path. Install it, for example: apt-get install redis-server redis-tools")
    })
}

/// A redis-server that keeps nothing on disk, with further options to be added.
#[must_use]
pub fn launch() -> Launch {
    Launch::new(&binary()).with(&["--save", "", "--appendonly", "no"])
}

/// A running redis-server that keeps nothing on disk.
#[must_use]
pub fn start() -> Process {
    launch().serve()
}
