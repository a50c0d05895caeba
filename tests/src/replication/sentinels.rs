//! Real Sentinels that watch a primary and its replicas, and fail over.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;

use super::member::PATIENCE;
use crate::client::Client;
use crate::process::{Launch, Process, free_port};
use crate::redis;
use crate::reply::Reply;
use crate::wait::retry;

/// Name of the primary for the Sentinels.
pub const NAME: &str = "shop";

/// Number of Sentinels; two of them make a majority.
const COUNT: usize = 3;

/// Silence after which a server counts as down.
const DOWN_AFTER: Duration = Duration::from_millis(1500);

/// Three Sentinels; they are killed when this is dropped.
pub struct Sentinels {
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    port: u16,
    process: Process,
    /// The directory of its configuration file, which it rewrites.
    _directory: TempDir,
}

impl Sentinels {
    /// Starts Sentinels for a primary on this machine, and waits until they know each other and so many replicas.
    ///
    /// # Panics
    /// When they do not find each other.
    #[must_use]
    pub fn watch(primary: u16, replicas: usize) -> Sentinels {
        let sentinels = Sentinels {
            sentinels: (0..COUNT).map(|_| Sentinel::start(primary)).collect(),
        };
        for sentinel in &sentinels.sentinels {
            sentinel.await_fields(&[
                ("num-other-sentinels", &(COUNT - 1).to_string()),
                ("num-slaves", &replicas.to_string()),
                ("flags", "master"),
            ]);
        }
        sentinels
    }

    /// Ports of the Sentinels.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        self.sentinels.iter().map(|sentinel| sentinel.port).collect()
    }

    /// The primary's port, if all Sentinels agree on it and none of them moves it.
    ///
    /// # Errors
    /// Their answers, if they do not.
    pub fn primary(&self) -> Result<u16, String> {
        let mut ports = Vec::new();
        for sentinel in &self.sentinels {
            ports.push(sentinel.field("port")?);
            let flags = sentinel.field("flags")?;
            if flags != "master" {
                return Err(format!("a primary that is {flags}"));
            }
        }
        if ports.iter().any(|port| *port != ports[0]) {
            return Err(format!("primaries {ports:?}"));
        }
        ports[0].parse().map_err(|_| format!("a port {}", ports[0]))
    }

    /// Has the first Sentinel fail over, though the primary is well.
    ///
    /// # Panics
    /// When it refuses until time is up.
    pub fn fail_over(&self) {
        let attempt = || match self.sentinels[0].ask(&["SENTINEL", "FAILOVER", NAME])? {
            reply if reply.is_error() => Err(reply.text()),
            _ => Ok(()),
        };
        retry(PATIENCE, attempt).unwrap_or_else(|reason| panic!("{reason}\n{}", self.logs()));
    }

    /// Logs of all of them.
    #[must_use]
    pub fn logs(&self) -> String {
        let logs = self.sentinels.iter().map(|sentinel| sentinel.process.log());
        logs.collect::<Vec<_>>().join("\n")
    }
}

impl Sentinel {
    fn start(primary: u16) -> Sentinel {
        let directory = TempDir::new().expect("a temporary directory");
        let port = free_port();
        let file = directory.path().join("sentinel.conf");
        let down_after = DOWN_AFTER.as_millis();
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {NAME} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {NAME} {down_after}\nsentinel failover-timeout {NAME} 6000\n\
             sentinel parallel-syncs {NAME} 2\n",
            directory.path().display()
        );
        fs::write(&file, text).expect("a configuration file");
        let launch = Launch::new(&redis::tool("redis-sentinel")).with(&[file.display().to_string()]);
        let sentinel = Sentinel {
            port,
            process: launch.spawn(port),
            _directory: directory,
        };
        retry(PATIENCE, || sentinel.ask(&["PING"]))
            .unwrap_or_else(|reason| panic!("a Sentinel: {reason}\n{}", sentinel.process.log()));
        sentinel
    }

    fn ask(&self, words: &[&str]) -> Result<Reply, String> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let mut client = Client::connect(address).map_err(|error| error.to_string())?;
        client.try_call(words).map_err(|error| error.to_string())
    }

    /// A field of what it knows of the primary.
    fn field(&self, name: &str) -> Result<String, String> {
        let reply = self.ask(&["SENTINEL", "MASTER", NAME])?;
        let field = reply.field(name).map(Reply::text);
        field.ok_or_else(|| format!("no {name} in {reply}"))
    }

    fn await_fields(&self, wanted: &[(&str, &str)]) {
        let attempt = || {
            for (name, wanted) in wanted {
                let value = self.field(name)?;
                if value != *wanted {
                    return Err(format!("{name} is {value}, not {wanted}"));
                }
            }
            Ok(())
        };
        retry(PATIENCE, attempt).unwrap_or_else(|reason| panic!("{reason}\n{}", self.process.log()));
    }
}
