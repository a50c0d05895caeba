//! Embedding: a server inside another program, above all inside its tests.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use crate::clock::Clock;
use crate::config::{Config, SetError};
use crate::exec::{Effect, KeyspaceEvent};
use crate::journal::Journal;
use crate::log::{Lines, Log, Output};
use crate::node::{Parts, Running, StartError};

/// Builds a server. Nothing of it is global: a process may run as many as it likes.
///
/// ```
/// use std::io::{Read, Write};
///
/// let server = shardis::Server::builder().port(0).start()?;
/// let mut stream = std::net::TcpStream::connect(server.address())?;
/// stream.write_all(b"PING\r\n")?;
/// let mut reply = [0; 7];
/// stream.read_exact(&mut reply)?;
/// assert_eq!(&reply, b"+PONG\r\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Builder {
    port: u16,
    shards: usize,
    directives: BTreeMap<String, Vec<u8>>,
    clock: Option<Duration>,
    seed: Option<u64>,
    log: bool,
    effects: Option<Sender<Effect>>,
    events: Option<Sender<KeyspaceEvent>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            port: 0,
            shards: 1,
            directives: BTreeMap::new(),
            clock: None,
            seed: None,
            log: false,
            effects: None,
            events: None,
        }
    }
}

impl Builder {
    /// The TCP port on 127.0.0.1; 0, the default, takes any that is free.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// How many shards, each a thread; 1 by default, 0 for as many as there are cores.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// Sets a directive, as a line of redis.conf would: `directive("requirepass", "secret")`.
    #[must_use]
    pub fn directive(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.directives.insert(name.into(), value.into());
        self
    }

    /// Has the server's time stand still at `start` after the Unix epoch, until [`Server::advance`] moves it.
    #[must_use]
    pub fn manual_clock(mut self, start: Duration) -> Self {
        self.clock = Some(start);
        self
    }

    /// Makes all chance repeatable: hash seeds, random keys, samples.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Writes the log to standard output, as Redis writes its own. Otherwise a server prints nothing: its log are events
    /// for the `tracing` subscriber of this process, with the target `shardis` and the run id as the field `node`. Lines
    /// below the directive `loglevel` (`notice` by default) are no events either.
    #[must_use]
    pub fn log_to_stdout(mut self) -> Self {
        self.log = true;
        self
    }

    /// Sends the effects of all writes to a channel, in the form in which replicas and the append-only file repeat them.
    /// With several shards, the effects of one key are in order. PUBLISH and SPUBLISH are among them: replicas repeat those,
    /// the append-only file does not.
    #[must_use]
    pub fn effects(mut self, sender: Sender<Effect>) -> Self {
        self.effects = Some(sender);
        self
    }

    /// Sends keyspace events to a channel: those of the classes that the directive `notify-keyspace-events` names, which
    /// must also name a kind of channel (`K` or `E`). With several shards, the events of one key are in order.
    #[must_use]
    pub fn keyspace_events(mut self, sender: Sender<KeyspaceEvent>) -> Self {
        self.events = Some(sender);
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    /// When a directive is unknown or its value is wrong, or the port cannot be listened on.
    pub fn start(self) -> Result<Server, BuildError> {
        let mut config = Config::default();
        config.assign("bind", b"127.0.0.1")?;
        config.assign("shards", self.shards.to_string().as_bytes())?;
        config.assign("port", self.port.to_string().as_bytes())?;
        config.assign("save", b"")?;
        for (name, value) in &self.directives {
            config.assign(name, value)?;
        }
        let clock = Arc::new(self.clock.map_or_else(Clock::real, Clock::manual));
        let mut log = Log::new(config.settings().loglevel.into());
        if self.log {
            log = log.to(Lines::new(Output::Stdout, None, Arc::clone(&clock)).into_dispatch());
        }
        let running = Running::start(Parts {
            log,
            clock,
            seed: self.seed.unwrap_or_else(rand::random),
            journal: self.effects.map(Journal::new),
            events: self.events,
            daemon: None,
            any_port: self.port == 0 && !self.directives.contains_key("port"),
            config,
        })?;
        Ok(Server { running })
    }
}

/// A server inside this process. Dropping it stops it, and frees its port.
#[derive(Debug)]
pub struct Server {
    running: Running,
}

impl Server {
    /// A builder with defaults for tests: 127.0.0.1, any free port, one shard, nothing persisted, no log.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        let addresses = self.running.state.addresses.load();
        let first = addresses.tcp.first().copied();
        first.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// The URL that client libraries take.
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address())
    }

    /// Moves a manual clock forward: what expires meanwhile is gone when this returns to whoever asks, and blocked
    /// clients whose time is over are answered. False when the server has a real clock.
    pub fn advance(&self, by: Duration) -> bool {
        let moved = self.running.state.clock.advance(by);
        if moved {
            self.running.state.ring_all();
        }
        moved
    }

    /// Stops the server and waits until its threads are gone.
    pub fn stop(mut self) {
        self.running.stop();
    }
}

/// Receives what [`Builder::effects`] sends.
pub type EffectReceiver = Receiver<Effect>;

/// Why a server could not be built.
#[derive(Debug)]
pub enum BuildError {
    /// A directive is unknown, or its value is wrong.
    Directive(SetError),
    /// The server did not start.
    Start(StartError),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directive(error) => error.fmt(f),
            Self::Start(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BuildError {}

impl From<SetError> for BuildError {
    fn from(error: SetError) -> Self {
        Self::Directive(error)
    }
}

impl From<StartError> for BuildError {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpStream;

    use super::*;

    fn ask(client: &mut BufReader<TcpStream>, line: &str) -> String {
        client
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())
            .unwrap();
        let mut reply = String::new();
        client.read_line(&mut reply).unwrap();
        reply.trim_end().to_owned()
    }

    #[test]
    fn a_panic_in_a_handler_ends_that_command_and_nothing_else() {
        for shards in [1, 3] {
            let server = Server::builder().shards(shards).start().unwrap();
            let mut clients: Vec<_> = (0..6)
                .map(|_| BufReader::new(TcpStream::connect(server.address()).unwrap()))
                .collect();
            for round in 0..3 {
                for (number, client) in clients.iter_mut().enumerate() {
                    assert_eq!(ask(client, &format!("SET key:{number} {round}")), "+OK");
                    let reply = ask(client, &format!("PANIC key:{number}"));
                    assert!(reply.starts_with("-ERR internal error"), "{reply}");
                    assert_eq!(
                        ask(client, &format!("INCR key:{number}")),
                        format!(":{}", round + 1)
                    );
                }
            }
            let client = &mut clients[0];
            client
                .get_mut()
                .write_all(b"SET a 1\r\nPANIC a\r\nGET a\r\nMULTI\r\nPANIC a\r\nEXEC\r\nPING\r\n")
                .unwrap();
            let mut replies = String::new();
            for _ in 0..8 {
                client.read_line(&mut replies).unwrap();
            }
            assert!(replies.starts_with("+OK\r\n-ERR internal error"), "{replies}");
            assert!(
                replies.contains("$1\r\n1\r\n+OK\r\n+QUEUED\r\n-ERR internal error"),
                "{replies}"
            );
            assert!(replies.ends_with("+PONG\r\n"), "{replies}");
        }
    }

    #[test]
    fn a_panic_in_a_transaction_leaves_the_journal_as_it_was() {
        for shards in [1, 3] {
            let (sender, effects) = crossbeam_channel::unbounded();
            let server = Server::builder().shards(shards).effects(sender).start().unwrap();
            let mut client = BufReader::new(TcpStream::connect(server.address()).unwrap());
            for line in ["MULTI", "SET a 1", "SELECT 1", "SET b 2", "PANIC c", "SET d 3"] {
                ask(&mut client, line);
            }
            assert!(ask(&mut client, "EXEC").starts_with("-ERR internal error"));
            for line in ["SET a 4", "SET b 5", "SET c 6"] {
                assert_eq!(ask(&mut client, line), "+OK");
            }
            let journal: Vec<(u16, String)> = effects
                .try_iter()
                .map(|effect| {
                    (
                        effect.db,
                        String::from_utf8_lossy(&effect.words.join(&b' ')).into_owned(),
                    )
                })
                .collect();
            let expected = [
                (0, "MULTI"),
                (0, "SET a 1"),
                (1, "SET b 2"),
                (1, "SET c half"),
                (1, "EXEC"),
                (1, "SET a 4"),
                (1, "SET b 5"),
                (1, "SET c 6"),
            ];
            assert_eq!(journal, expected.map(|(db, words)| (db, words.to_owned())));
        }
    }
}
