//! Cores of the server and of the load generator.
//!
//! One shard against one thread: the server gets a core of its own and the generator another, or the scheduler's
//! choices would be measured too. Several shards: everybody may run anywhere. Done by the `taskset` and
//! `setpriv` of util-linux.

use std::io::{Error, Result};
use std::path::Path;
use std::process::{self, Command};

use shardis_tests::procfs;

/// Cores of a server and its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// The server on the first core, the load on the second.
    Pinned { server: usize, load: usize },
    /// Everything anywhere.
    Free,
}

/// The cores of this program as it was started; what [`Placement::Free`] returns to.
pub(crate) struct Cores(Vec<usize>);

impl Cores {
    /// Reads them; call before the first placement.
    pub(crate) fn read() -> Result<Self> {
        procfs::allowed_cores().map(Self)
    }

    /// Number of cores.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Pinned, or free on a machine with one core.
    pub(crate) fn pinned(&self) -> Placement {
        match self.0[..] {
            [server, load, ..] => Placement::Pinned { server, load },
            _ => Placement::Free,
        }
    }

    /// Moves this program to where `placement` wants the load. Servers started later inherit that unless
    /// [`Placement::command`] puts them elsewhere, so place first.
    pub(crate) fn place_load(&self, placement: Placement) -> Result<()> {
        let list = match placement {
            Placement::Pinned { load, .. } => load.to_string(),
            Placement::Free => self.0.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
        };
        let output = Command::new("taskset")
            .args([
                "--all-tasks",
                "--cpu-list",
                "--pid",
                &list,
                &process::id().to_string(),
            ])
            .output()
            .map_err(without_taskset)?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::other(format!(
            "taskset: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )))
    }
}

impl Placement {
    /// A command that runs `program` where a server belongs, and for no longer than this program lives, however this
    /// program may end. Both tools turn into the program: the process id stays.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Self::Pinned { server, .. } = self {
            command.args(["taskset", "--cpu-list", &server.to_string()]);
        }
        command.arg(program);
        command
    }
}

fn without_taskset(error: Error) -> Error {
    Error::new(
        error.kind(),
        format!("cannot run taskset (Debian: package util-linux): {error}"),
    )
}
