//! The servers under test: started here, asked here, stopped when the value is dropped.

use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use shardis_tests::procfs::{self, Thread, Ticks};

use super::client::Client;
use super::now;
use super::placement::Placement;

/// Time without an answer after which a start has failed: it may have to load its data.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// FLUSHALL or SLOWLOG of a large server may take a while; a test should see it, not give up.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Another program may take the port between our choice and the server's bind.
const START_ATTEMPTS: usize = 3;

/// Program to start.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    /// The reference.
    Redis(PathBuf),
    /// The second reference.
    Peer(PathBuf),
    /// shardis, with this number of shards.
    Shardis(PathBuf, usize),
    /// An older build of shardis, with this number of shards.
    Before(PathBuf, usize),
}

/// The figures of both programs of a pair.
pub(crate) fn both<T>(pair: &[Program; 2], mut measure: impl FnMut(&Program) -> Result<T>) -> Result<[T; 2]> {
    Ok([measure(&pair[0])?, measure(&pair[1])?])
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    /// Its working directory, which also has its log; removed after the last server that uses it.
    directory: Arc<TempDir>,
}

impl Program {
    fn path(&self) -> &Path {
        match self {
            Self::Redis(path) | Self::Peer(path) | Self::Shardis(path, _) | Self::Before(path, _) => path,
        }
    }

    /// A name for the report.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::Peer(_) => "valkey",
            Self::Shardis(..) => "shardis",
            Self::Before(..) => "before",
        }
    }

    /// Starts the program at `placement` on a free loopback port, without persistence, and waits until it answers.
    /// `extra` are further arguments.
    pub(crate) fn start(&self, placement: Placement, extra: &[&str]) -> Result<Server> {
        self.start_in(&Arc::new(TempDir::new()?), placement, extra)
    }

    /// Starts the program like [`start`](Self::start), in a directory that may have files of an earlier server.
    pub(crate) fn start_in(
        &self,
        directory: &Arc<TempDir>,
        placement: Placement,
        extra: &[&str],
    ) -> Result<Server> {
        let mut attempt = 1;
        loop {
            match self.start_once(directory, placement, extra) {
                Err(error) if attempt == START_ATTEMPTS || error.kind() == ErrorKind::NotFound => {
                    return Err(error);
                }
                Err(_) => attempt += 1,
                Ok(server) => return Ok(server),
            }
        }
    }

    fn start_once(&self, directory: &Arc<TempDir>, placement: Placement, extra: &[&str]) -> Result<Server> {
        let log_path = directory.path().join("log");
        let log = fs::File::create(&log_path)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = placement.command(self.path());
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.arg("--dir").arg(directory.path());
        if let Self::Shardis(_, shards) | Self::Before(_, shards) = self {
            command.args(["--shards", &shards.to_string()]);
        }
        command
            .args(extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().map_err(|error| {
            Error::new(
                error.kind(),
                format!("cannot run setpriv (Debian: package util-linux): {error}"),
            )
        })?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Server {
            child,
            address,
            directory: Arc::clone(directory),
        };
        server.wait_until_ready().map_err(|error| {
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            let last_lines: Vec<_> = log.lines().rev().take(5).collect();
            let tail = last_lines.into_iter().rev().collect::<Vec<_>>().join("\n  ");
            Error::other(format!(
                "{} did not start: {error}\n  {tail}",
                self.path().display()
            ))
        })?;
        Ok(server)
    }
}

impl Server {
    /// Address of the server.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its working directory.
    pub(crate) fn directory(&self) -> Arc<TempDir> {
        Arc::clone(&self.directory)
    }

    /// Memory of the process and of those it has forked, in bytes; what they share counts once.
    pub(crate) fn family_bytes(&self) -> Result<u64> {
        procfs::family_bytes(self.child.id())
    }

    /// A new connection for questions.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::connect(self.address, CALL_TIMEOUT)
    }

    /// CPU time used so far, by all threads. Asked of a server that has nothing to do: see `procfs`.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        settle();
        procfs::cpu(self.child.id())
    }

    /// CPU time divided into user and system time.
    pub(crate) fn ticks(&self) -> Result<Ticks> {
        procfs::ticks(self.child.id())
    }

    /// The threads, likewise.
    pub(crate) fn threads(&self) -> Result<Vec<Thread>> {
        settle();
        procfs::threads(self.child.id())
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        procfs::resident_bytes(self.child.id())
    }

    /// `name:value` of INFO, empty if there is no such field.
    pub(crate) fn info(&self, name: &str) -> Result<String> {
        let reply = self.client()?.call("INFO")?;
        let mut lines = reply.text().unwrap_or_default().lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(value.unwrap_or_default().trim().to_owned())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let start = now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(Error::other(format!("it ended with {status}")));
            }
            let answer =
                Client::connect(self.address, START_TIMEOUT).and_then(|mut client| client.call("PING"));
            match answer {
                Ok(_) => return Ok(()),
                Err(error) if now() - start > START_TIMEOUT => return Err(error),
                Err(_) => sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing is to be saved, and it may be busy freeing gigabytes: no polite end is worth the wait. An error means
        // that it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets threads that have run out of work go to sleep, which is when the kernel accounts for them.
fn settle() {
    sleep(Duration::from_millis(3));
}
