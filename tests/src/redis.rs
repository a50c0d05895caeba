//! The reference servers: redis-server 7.0, and a Valkey that shows what 7.2 and later changed.

use std::path::PathBuf;

use crate::process::{Launch, Process, on_path, repository_root};

/// Kind of a reference server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// redis-server 7.0.
    Redis,
    /// A Valkey: Redis 7.2 and what its successors agree on.
    Valkey,
}

impl Reference {
    /// One that keeps nothing on disk, with further options to be added.
    #[must_use]
    pub fn launch(self) -> Launch {
        match self {
            Reference::Redis => launch(),
            Reference::Valkey => launch_peer(),
        }
    }

    /// Starts one that keeps nothing on disk.
    #[must_use]
    pub fn start(self) -> Process {
        self.launch().serve()
    }
}

/// The redis-server to compare with.
///
/// # Panics
/// When there is none: comparisons are not skipped.
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

/// The valkey-server to compare with: `SHARDIS_PEER` names it, `scripts/peer` puts it into `target/peer`, or it is installed.
///
/// # Panics
/// When there is none: comparisons are not skipped.
#[must_use]
pub fn peer_binary() -> PathBuf {
    if let Some(named) = std::env::var_os("SHARDIS_PEER") {
        return named.into();
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository_root().join("target"), PathBuf::from);
    let downloaded = target.join("peer/valkey-server");
    if downloaded.is_file() {
        return downloaded;
    }
    on_path("valkey-server").unwrap_or_else(|| {
        panic!(
            "there is no valkey-server: not at {} and not on the search path. Run scripts/peer, or set SHARDIS_PEER",
            downloaded.display()
        )
    })
}

/// A valkey-server that keeps nothing on disk and calls itself Redis where Redis says its name.
#[must_use]
pub fn launch_peer() -> Launch {
    Launch::new(&peer_binary()).with(&[
        "--save",
        "",
        "--appendonly",
        "no",
        "--extended-redis-compatibility",
        "yes",
    ])
}

/// A running valkey-server that keeps nothing on disk.
#[must_use]
pub fn start_peer() -> Process {
    launch_peer().serve()
}
