//! Embedding: a server inside another program, above all inside its tests.

mod authority;
pub mod cluster;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

pub use self::authority::{TlsAuthority, TlsIdentity};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, ConfigSource};
use crate::exec::{Effect, KeyspaceEvent};
use crate::feed::SlowListener;
use crate::log::{Lines, Log, LogOutput};
use crate::node::{Initial, Parts, Running, StartError};
use crate::state::Seed;

/// Characters that are percent-encoded in the path of a URL: all but letters, digits and those usual in file names.
const PATH_ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'.')
    .remove(b'-')
    .remove(b'_');

/// Builder of a server. Nothing about it is global: a process may run any number of servers.
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
    directives: Vec<(String, Vec<u8>)>,
    slow_listener: SlowListener,
    clock: Option<Duration>,
    seed: Option<u64>,
    log: bool,
    effects: Option<Sender<Effect>>,
    events: Option<Sender<KeyspaceEvent>>,
    initial: Option<PathBuf>,
    is_secure: bool,
    /// The authority of the certificate; a new one if there is none.
    authority: Option<TlsAuthority>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            port: 0,
            shards: 1,
            directives: Vec::new(),
            slow_listener: SlowListener::default(),
            clock: None,
            seed: None,
            log: false,
            effects: None,
            events: None,
            initial: None,
            is_secure: false,
            authority: None,
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

    /// Number of shards, which each have a thread; 1 by default, 0 for one per core.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// Adds a line of redis.conf: `directive("requirepass", "secret")`, `directive("rename-command", "FLUSHALL
    /// \"\"")`. Lines apply in order: some directives may have several (`save`, `rename-command`, `include`), a later
    /// line of the others replaces an earlier one. A value of several words is several arguments, unless it is
    /// quoted; an empty value is an empty argument. Directives that act on the whole process (`logfile`, `daemonize`,
    /// `pidfile`…) and values that this server cannot honour (`appendonly yes` without `dir`…) are refused by
    /// [`Builder::start`].
    #[must_use]
    pub fn directive(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.directives.push((name.into(), value.into()));
        self
    }

    /// Makes clients connect over TLS: [`Builder::port`] is the port for that, and there is no other one unless the directive `port` is
    /// added. The certificate comes from a throw-away authority, [`Server::tls_authority`], which also makes certificates for clients;
    /// they are asked for if the directive `tls-auth-clients` is added.
    #[must_use]
    pub fn tls_self_signed(mut self) -> Self {
        self.is_secure = true;
        self
    }

    /// As [`tls_self_signed`](Self::tls_self_signed), with an authority that others use, too.
    fn secured_by(self, authority: TlsAuthority) -> Self {
        Self {
            authority: Some(authority),
            ..self.tls_self_signed()
        }
    }

    /// Adds a user, by the rules of ACL SETUSER: `user("orders", "on >pw ~orders:* +@all")`. The user `default` is everybody who has not
    /// authenticated.
    #[must_use]
    pub fn user(self, name: &str, rules: &str) -> Self {
        self.directive("user", format!("{name} {rules}"))
    }

    /// Makes the server's time stand still at `start` after the Unix epoch, until [`Server::advance`] moves it.
    #[must_use]
    pub fn manual_clock(mut self, start: Duration) -> Self {
        self.clock = Some(start);
        self
    }

    /// Makes everything random repeatable: hash seeds, random keys, samples, `run_id`.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Writes the log to standard output, in the format of Redis. By default a server prints nothing: its log
    /// consists of events for the `tracing` subscriber of this process, with the target `shardis` and the run id as
    /// the field `node`. Lines below the directive `loglevel` (`notice` by default) are no events either.
    #[must_use]
    pub fn log_to_stdout(mut self) -> Self {
        self.log = true;
        self
    }

    /// Chooses what happens when the reader of the channel of [`Builder::effects`] or [`Builder::keyspace_events`] does not
    /// keep up, so that it is full. What is dropped, then or because nobody reads any more, is counted in the log.
    #[must_use]
    pub fn slow_listener(mut self, slow_listener: SlowListener) -> Self {
        self.slow_listener = slow_listener;
        self
    }

    /// Sends the effects of all writes to a channel, in the form in which replicas and the append-only file repeat them. With
    /// several shards, the effects of one key are in order. What belongs together, the effects of one command or transaction,
    /// stands between MULTI and EXEC, and is sent whole or not at all. PUBLISH and SPUBLISH are among them: replicas repeat
    /// those, the append-only file does not. When a client gets its reply, the effects are in the channel. One without a bound
    /// takes memory for what is not read; one with a bound has writers wait or loses effects, as [`Builder::slow_listener`]
    /// says.
    #[must_use]
    pub fn effects(mut self, sender: Sender<Effect>) -> Self {
        self.effects = Some(sender);
        self
    }

    /// Sends keyspace events to a channel: those of the classes in the directive `notify-keyspace-events`, which must
    /// also name a kind of channel (`K` or `E`). With several shards, the events of one key are in order.
    #[must_use]
    pub fn keyspace_events(mut self, sender: Sender<KeyspaceEvent>) -> Self {
        self.events = Some(sender);
        self
    }

    /// Makes the server begin with the data of a snapshot file or of an append-only file of Redis, Valkey or shardis. The file
    /// stays as it is, and a torn end of commands is passed over. Without this, a server whose directive `dir` was set begins with
    /// the file `dbfilename` there, if it exists, and any other one without data.
    #[must_use]
    pub fn load(mut self, file: impl Into<PathBuf>) -> Self {
        self.initial = Some(file.into());
        self
    }

    /// Starts the server. Its data has been loaded when this returns.
    ///
    /// # Errors
    /// When a directive is unknown, wrong or refused, the port cannot be listened on, or the data cannot be loaded.
    pub fn start(self) -> Result<Server, BuildError> {
        let authority = match (&self.authority, self.is_secure) {
            (Some(authority), _) => Some(authority.clone()),
            (None, true) => Some(TlsAuthority::new().map_err(StartError::Io)?),
            (None, false) => None,
        };
        let config = self.config(authority.as_ref())?;
        let clock = Arc::new(self.clock.map_or_else(Clock::real, Clock::manual));
        let mut log = Log::new(config.settings().loglevel.into());
        if self.log {
            log = log.to(Lines::new(LogOutput::Stdout, None, Arc::clone(&clock)).into_dispatch());
        }
        let takes_any = |directive| self.port == 0 && !self.names(directive);
        let (any_port, any_tls_port) = match self.is_secure {
            false => (takes_any("port"), false),
            true => (false, takes_any("tls-port")),
        };
        let initial = match &self.initial {
            Some(file) => Initial::File(file.clone()),
            None if self.names("dir") => Initial::Saved,
            None => Initial::Nothing,
        };
        let running = Running::start(Parts {
            log,
            clock,
            seed: self.seed.map_or_else(Seed::random, Seed::chosen),
            effects: self.effects,
            events: self.events,
            slow_listener: self.slow_listener,
            daemon: None,
            any_port,
            any_tls_port,
            initial,
            config,
        })?;
        Ok(Server { running, authority })
    }

    /// Whether a line for this directive was added.
    fn names(&self, directive: &str) -> bool {
        self.directives
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(directive))
    }

    /// The configuration: the builder's defaults, followed by the added lines.
    fn config(&self, authority: Option<&TlsAuthority>) -> Result<Config, BuildError> {
        let ports = match authority {
            None => format!("port {}", self.port),
            Some(_) => format!("port 0\ntls-port {}", self.port),
        };
        let mut text = format!("bind 127.0.0.1\nshards {}\n{ports}\nsave \"\"\n", self.shards).into_bytes();
        text.extend(authority.map(TlsAuthority::lines).unwrap_or_default());
        for (name, value) in &self.directives {
            if [name.as_bytes(), value].iter().any(|part| part.contains(&b'\n')) {
                return Err(BuildError::directive(name, "a line has no line breaks"));
            }
            text.extend_from_slice(name.as_bytes());
            text.push(b' ');
            text.extend_from_slice(if value.is_empty() { b"\"\"" } else { value });
            text.push(b'\n');
        }
        let source = ConfigSource {
            stdin: true,
            ..ConfigSource::default()
        };
        let config = Config::load_with(&source, &mut text.as_slice())?;
        if config.settings().appendonly && !self.names("dir") {
            return Err(BuildError::directive(
                "appendonly",
                "its files need a place of their own: name it with the directive 'dir'",
            ));
        }
        if config.settings().cluster_enabled && !self.names("dir") {
            return Err(BuildError::directive(
                "cluster-enabled",
                "its file of nodes needs a place of its own: name it with the directive 'dir'",
            ));
        }
        match config.of_process() {
            None => Ok(config),
            Some(name) => Err(BuildError::directive(
                name,
                "it acts on the process, which belongs to another program here",
            )),
        }
    }
}

/// A server inside this process. Dropping it stops it, and frees its port.
#[derive(Debug)]
pub struct Server {
    running: Running,
    authority: Option<TlsAuthority>,
}

impl Server {
    /// A builder with defaults for tests: 127.0.0.1, any free port, one shard, nothing persisted, no log.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The authority of the server's certificate, if that is a throw-away one: see [`Builder::tls_self_signed`].
    pub fn tls_authority(&self) -> Option<&TlsAuthority> {
        self.authority.as_ref()
    }

    /// Address that clients connect to by TCP, over TLS if it serves nothing else. For a wildcard it is the loopback address of the family; the port is 0
    /// when the server listens only on a Unix socket.
    pub fn address(&self) -> SocketAddr {
        let addresses = self.running.state.addresses.load();
        let Some(mut address) = addresses.tcp.first().or(addresses.tls.first()).copied() else {
            return SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        };
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        address
    }

    /// The URL for client libraries, including the password if there is one: `redis://:secret@127.0.0.1:6379/`, and `rediss://` for a
    /// server that serves TLS only. When
    /// the server listens only on a Unix socket, `unix:///path?pass=secret`, as the `redis` crate reads it.
    pub fn url(&self) -> String {
        let state = &self.running.state;
        let settings = state.settings.load();
        let password = &settings.requirepass.0;
        let password = (!password.is_empty()).then(|| percent_encode(password, NON_ALPHANUMERIC));
        let addresses = state.addresses.load();
        let has_port = !addresses.tcp.is_empty() || !addresses.tls.is_empty();
        if let (false, Some(path)) = (has_port, &addresses.unix) {
            let path = percent_encode(path.as_bytes(), PATH_ENCODED);
            let password = password.map_or_else(String::new, |password| format!("?pass={password}"));
            return format!("unix://{path}{password}");
        }
        let password = password.map_or_else(String::new, |password| format!(":{password}@"));
        let scheme = match addresses.tcp.is_empty() {
            true if has_port => "rediss",
            _ => "redis",
        };
        format!("{scheme}://{password}{}/", self.address())
    }

    /// Whether the server runs: until it is dropped or stopped, or a client sends SHUTDOWN.
    pub fn is_running(&self) -> bool {
        !self.running.state.shutdown.is_requested()
    }

    /// Waits until a client has stopped the server by SHUTDOWN and its threads have ended.
    pub fn wait(mut self) {
        self.running.wait();
    }

    /// Moves a manual clock forward. When this returns, what has expired meanwhile is gone for every client, and
    /// blocked clients whose timeout is over have been answered. False when the server has a real clock.
    pub fn advance(&self, by: Duration) -> bool {
        let moved = self.running.state.clock.advance(by);
        if moved {
            self.running.state.ring_all();
        }
        moved
    }

    /// Stops the server, and waits until its threads have ended.
    pub fn stop(mut self) {
        self.running.stop();
    }

    /// Stops the server as SIGTERM does: its replicas get what they lack, for as long as `shutdown-timeout` says.
    fn stop_in_order(mut self) {
        let state = &self.running.state;
        let options = state.settings.load().shutdown_on_sigterm;
        if state.end(options).is_err() {
            // It cannot save, and has said so in its log; it must end nevertheless.
            state.shutdown.request();
            state.ring_all();
        }
        self.running.wait();
    }
}

/// Receiver for the effects that [`Builder::effects`] sends.
pub type EffectReceiver = Receiver<Effect>;

/// Error that prevents a server from being built.
#[derive(Debug)]
pub enum BuildError {
    /// A line of the configuration is wrong or refused.
    Directive {
        /// The line, or the name of the directive.
        line: String,
        /// The reason.
        reason: String,
    },
    /// The server did not start.
    Start(StartError),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directive { line, reason } => write!(f, "'{line}': {reason}"),
            Self::Start(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BuildError {}

impl BuildError {
    fn directive(line: &str, reason: &str) -> Self {
        Self::Directive {
            line: line.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

impl From<ConfigError> for BuildError {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Line { place, reason } => Self::Directive {
                line: place.text,
                reason,
            },
            error => Self::Start(StartError::Config(error)),
        }
    }
}

impl From<StartError> for BuildError {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
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
    fn users_are_lines_of_the_configuration() {
        let server = Server::builder()
            .directive("user", "orders on >pw ~orders:* +@all")
            .directive("user", "default off")
            .start()
            .unwrap();
        let mut client = BufReader::new(TcpStream::connect(server.address()).unwrap());
        for (line, reply) in [
            ("PING", "-NOAUTH Authentication required."),
            ("AUTH orders pw", "+OK"),
            ("SET orders:1 x", "+OK"),
            ("SET other x", "-NOPERM No permissions to access a key"),
        ] {
            assert_eq!(ask(&mut client, line), reply, "{line}");
        }
        assert!(Server::builder().directive("user", "a nonsense").start().is_err());
    }

    /// Its client has a part of the reply already, so that it cannot be told.
    #[test]
    fn a_panic_behind_a_reply_that_has_left_closes_the_connection() {
        let server = Server::builder().shards(1).start().unwrap();
        let connect = || {
            let socket = TcpStream::connect(server.address()).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            BufReader::new(socket)
        };
        let (mut client, mut other) = (connect(), connect());
        assert_eq!(ask(&mut client, "PANIC-LATE k"), "$20000");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), 20_002);
        assert_eq!(ask(&mut other, "PING"), "+PONG");
    }

    #[test]
    fn a_panic_ends_its_command_wherever_it_runs() {
        for shards in [1, 3] {
            let server = Server::builder().shards(shards).start().unwrap();
            let mut clients: Vec<_> = (0..3)
                .map(|_| BufReader::new(TcpStream::connect(server.address()).unwrap()))
                .collect();
            for client in &mut clients {
                for command in ["session", "shard", "loop", "merge", "merge-loops", "all"] {
                    let line = format!("PANIC-{command}");
                    let reply = ask(client, &line);
                    assert!(reply.starts_with("-ERR internal error"), "{line}: {reply}");
                    ask(client, "MULTI");
                    ask(client, &line);
                    let reply = ask(client, "EXEC");
                    let reply = if reply == "*1" { ask(client, "") } else { reply };
                    assert!(reply.starts_with("-ERR internal error"), "{line}: {reply}");
                    assert_eq!(ask(client, "PING"), "+PONG", "{line}");
                    assert_eq!(ask(client, "SET k v"), "+OK", "{line}");
                }
            }
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
