//! A shardis server: the program under test.
//!
//! `SHARDIS_IO_BACKEND` says how it waits for sockets: `auto`, `epoll` or `io_uring`.
//!
//! `SHARDIS_SERVER` names the program; without it, it is looked for beside the test executables. It may also name
//! a real redis-server. Then the suite compares Redis with Redis: a way to see that a dialogue is deterministic
//! before blaming shardis.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::{Launch, Process};

/// The program under test.
///
/// # Panics
/// When there is none; the message says how to build it.
#[must_use]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let path = std::env::var_os("SHARDIS_SERVER").map_or_else(beside_this_test, PathBuf::from);
        assert!(
            path.is_file(),
            "no server at {}. Build it with `cargo build --profile quick -p shardis` and set \
             SHARDIS_SERVER=$PWD/target/quick/shardis-server, or run scripts/test, which does both",
            path.display()
        );
        std::path::absolute(&path).unwrap_or(path)
    })
}

/// `target/<profile>/shardis-server`, seen from `target/<profile>/deps/<test>`.
fn beside_this_test() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    test.ancestors()
        .nth(2)
        .unwrap_or(Path::new("."))
        .join("shardis-server")
}

/// True when the program under test is a real redis-server, see the head of this file.
#[must_use]
pub fn is_redis() -> bool {
    static IS_REDIS: OnceLock<bool> = OnceLock::new();
    *IS_REDIS.get_or_init(|| {
        let version = Launch::new(binary())
            .with(&["--version"])
            .finish(Duration::from_secs(20));
        !version.text().contains("shardis")
    })
}

/// A server of `shards` shards that keeps nothing on disk, with further options to be added.
#[must_use]
pub fn launch(shards: usize) -> Launch {
    let launch = Launch::new(binary()).with(&["--save", "", "--appendonly", "no"]);
    if is_redis() {
        launch
    } else {
        let backend = std::env::var("SHARDIS_IO_BACKEND").unwrap_or_else(|_| "auto".to_owned());
        launch.with(&["--shards", &shards.to_string(), "--io-backend", &backend])
    }
}

/// A running server of `shards` shards that keeps nothing on disk.
#[must_use]
pub fn start(shards: usize) -> Process {
    launch(shards).serve()
}
