//! A server of a replicated set: shardis, redis-server or Valkey, with a port, a configuration file and a directory that it keeps
//! when it is killed and started again.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::client::Client;
use crate::faults::Faults;
use crate::info;
use crate::node;
use crate::process::{Launch, Process, cluster_port, free_port};
use crate::redis;
use crate::wait::retry;

/// Longest time for a change of replication: a full sync on a machine that others keep busy takes some seconds.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Number of ports that a start tries.
const PORTS_TRIED: usize = 8;

/// Lines of a log that a report shows.
const LOG_LINES: usize = 40;

/// Files and folders of a data set.
const DATA: [&str; 2] = ["dump.rdb", "appendonlydir"];

/// Kind of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The program under test, with so many shards.
    Shardis(usize),
    /// redis-server 7.0.
    Redis,
    /// Valkey 9.1.
    Valkey,
}

impl Kind {
    /// The program, with the variables of its environment.
    fn launch(self) -> Launch {
        match self {
            Kind::Shardis(_) => Launch::new(node::binary()),
            Kind::Redis => Launch::new(&redis::binary()),
            Kind::Valkey => Launch::new(&redis::peer_binary()),
        }
    }

    /// Lines of the configuration that only this kind has.
    fn directives(self) -> String {
        match self {
            Kind::Shardis(_) if node::is_redis() => String::new(),
            Kind::Shardis(shards) => {
                let backend = std::env::var("SHARDIS_IO_BACKEND").unwrap_or_else(|_| "auto".to_owned());
                format!("shards {shards}\nio-backend {backend}\n")
            }
            Kind::Redis => String::new(),
            Kind::Valkey => "extended-redis-compatibility yes\n".to_owned(),
        }
    }
}

/// Counts of the synchronisations that a server has served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Syncs {
    /// Full ones.
    pub full: u64,
    /// Links that went on where they had been.
    pub resumed: u64,
}

/// One server of a replicated set. It is killed when it is dropped.
pub struct Member {
    kind: Kind,
    port: u16,
    directory: TempDir,
    faults: Option<Faults>,
    process: Option<Process>,
    /// Logs of the processes before this one.
    logs: String,
}

impl Member {
    /// Starts a server; `directives` are further lines of its configuration.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(kind: Kind, directives: &[&str]) -> Member {
        Member::start_with(kind, directives, None, free_port)
    }

    /// Starts a server whose port leaves room for that of a bus.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with_bus(kind: Kind, directives: &[&str]) -> Member {
        Member::start_with(kind, directives, None, cluster_port)
    }

    /// Starts a server whose files meet faults.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_faulty(kind: Kind, directives: &[&str]) -> Member {
        Member::start_with(kind, directives, Some(Faults::new()), free_port)
    }

    fn start_with(kind: Kind, directives: &[&str], faults: Option<Faults>, choose: fn() -> u16) -> Member {
        let mut member = Member {
            kind,
            port: 0,
            directory: TempDir::new().expect("a temporary directory"),
            faults,
            process: None,
            logs: String::new(),
        };
        for _ in 0..PORTS_TRIED {
            member.port = choose();
            member.write_configuration(directives);
            match member.try_start() {
                Ok(()) => return member,
                Err(reason) => member.logs = format!("{reason}\n{}", member.log()),
            }
        }
        panic!("{kind:?} does not start: {}", member.logs);
    }

    /// Writes the configuration file.
    fn write_configuration(&self, directives: &[&str]) {
        let data = self.data().display().to_string();
        let mut text = format!("port {}\nbind 127.0.0.1\ndir {data}\n", self.port);
        // A full sync begins at once, and no PING moves an offset between two looks.
        text += "save \"\"\nappendonly no\nenable-debug-command yes\nrepl-diskless-sync-delay 0\n";
        text += "repl-ping-replica-period 3600\nrepl-timeout 60\nrepl-backlog-size 64mb\n";
        text += &self.kind.directives();
        for directive in directives {
            let _ = writeln!(text, "{directive}");
        }
        fs::write(self.configuration(), text).expect("a configuration file");
    }

    /// Path of the configuration file.
    #[must_use]
    pub fn configuration(&self) -> std::path::PathBuf {
        self.directory.path().join("server.conf")
    }

    /// The directory of its data.
    #[must_use]
    pub fn data(&self) -> &Path {
        match &self.faults {
            Some(faults) => faults.data(),
            None => self.directory.path(),
        }
    }

    /// Starts the process.
    ///
    /// # Errors
    /// The reason for which it does not serve.
    pub fn try_start(&mut self) -> Result<(), String> {
        let mut launch = self.kind.launch();
        launch = launch.with(&[self.configuration().display().to_string()]);
        if let Some(faults) = &self.faults {
            launch = faults.apply(launch);
        }
        let process = launch.spawn(self.port);
        let ready = process.wait_until_ready();
        self.process = Some(process);
        ready
    }

    /// The faults of its files.
    ///
    /// # Panics
    /// When it was started without.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        self.faults
            .as_ref()
            .expect("a member that was started with faults")
    }

    /// Kind of the server.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Whether it was started, and not killed since.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// The running process.
    ///
    /// # Panics
    /// When none runs.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("a member that runs")
    }

    /// A new connection.
    ///
    /// # Panics
    /// When the server does not accept it.
    #[must_use]
    pub fn client(&self) -> Client {
        self.process().connect()
    }

    /// A field of INFO, if the server answers.
    ///
    /// # Errors
    /// The reason for which there is none.
    pub fn field(&self, name: &str) -> Result<String, String> {
        let mut client = Client::connect(self.address()).map_err(|error| error.to_string())?;
        let text = client
            .try_call(&["INFO", "everything"])
            .map_err(|error| error.to_string())?
            .text();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value
            .map(|value| value.trim().to_owned())
            .ok_or_else(|| format!("INFO of {:?} has no {name}: {text}", self.kind))
    }

    /// A field of INFO that is a number.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn figure(&self, name: &str) -> u64 {
        info::figure(&mut self.client(), name)
    }

    /// Sets a directive. Returns its value before.
    ///
    /// # Panics
    /// When it is refused.
    pub fn configure(&self, name: &str, value: &str) -> String {
        let mut client = self.client();
        let before = client.call(&["CONFIG", "GET", name]).items()[1].text();
        let reply = client.call(&["CONFIG", "SET", name, value]);
        assert_eq!(reply.text(), "OK", "{:?}: CONFIG SET {name} {value}", self.kind);
        before
    }

    /// Has it follow a server on this machine.
    ///
    /// # Panics
    /// When it refuses.
    pub fn follow(&self, port: u16) {
        let reply = self.client().call(&["REPLICAOF", "127.0.0.1", &port.to_string()]);
        assert!(
            reply.text().starts_with("OK"),
            "{:?}: REPLICAOF: {reply}",
            self.kind
        );
    }

    /// Has it be a primary.
    ///
    /// # Panics
    /// When it refuses.
    pub fn promote(&self) {
        let reply = self.client().call(&["REPLICAOF", "NO", "ONE"]);
        assert!(
            reply.text().starts_with("OK"),
            "{:?}: REPLICAOF NO ONE: {reply}",
            self.kind
        );
    }

    /// Waits until it follows its primary.
    ///
    /// # Panics
    /// When it does not; the message has its log.
    pub fn await_link(&self) {
        self.await_field("master_link_status", "up");
    }

    /// Waits until a field of INFO has a value.
    ///
    /// # Panics
    /// When it has not; the message has the log.
    pub fn await_field(&self, name: &str, wanted: &str) {
        let is_so = || match self.field(name)? {
            value if value == wanted => Ok(()),
            value => Err(format!("{name}:{value}, not {wanted}")),
        };
        retry(PATIENCE, is_so)
            .unwrap_or_else(|reason| panic!("{:?} {}: {reason}\n{}", self.kind, self.port, self.tail()));
    }

    /// Synchronisations that it has served since it was started.
    #[must_use]
    pub fn syncs(&self) -> Syncs {
        let fields = info::fields(&mut self.client());
        let figure = |name: &str| fields.get(name).and_then(|text| text.parse().ok());
        Syncs {
            full: figure("sync_full").expect("sync_full"),
            resumed: figure("sync_partial_ok").expect("sync_partial_ok"),
        }
    }

    /// Kills it.
    ///
    /// # Panics
    /// When it lives on.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        process.signal(libc::SIGKILL);
        process.wait(PATIENCE).expect("it was killed");
        self.logs += &process.log();
    }

    /// Ends it by SHUTDOWN with these options.
    ///
    /// # Panics
    /// When it goes on.
    pub fn shut_down(&mut self, options: &[&str]) {
        let words: Vec<&str> = std::iter::once("SHUTDOWN")
            .chain(options.iter().copied())
            .collect();
        self.client().send(&words).expect("it reads");
        let mut process = self.process.take().expect("a member that runs");
        let status = process.wait(PATIENCE);
        self.logs += &process.log();
        assert!(status.is_some(), "{:?} goes on: {}", self.kind, self.tail());
    }

    /// Starts it again, with the data of its directory.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs");
        if let Err(reason) = self.try_start() {
            panic!("{:?} does not start again: {reason}\n{}", self.kind, self.tail());
        }
    }

    /// Deletes the data of its directory.
    ///
    /// # Panics
    /// When it cannot be deleted.
    pub fn forget(&self) {
        for name in DATA {
            let path = self.data().join(name);
            if path.is_dir() {
                fs::remove_dir_all(path).expect("a folder to delete");
            } else if path.is_file() {
                fs::remove_file(path).expect("a file to delete");
            }
        }
    }

    /// Deletes all files that it wrote, as if its disk had been replaced.
    ///
    /// # Panics
    /// When they cannot be deleted.
    pub fn forget_everything(&self) {
        self.forget();
        let nodes = self.data().join("nodes.conf");
        if nodes.is_file() {
            fs::remove_file(nodes).expect("a file to delete");
        }
    }

    /// Stops all its threads, as SIGSTOP does; its sockets stay.
    ///
    /// # Panics
    /// When they go on.
    pub fn freeze(&self) {
        self.process().signal(libc::SIGSTOP);
        let is_so = || {
            self.process()
                .is_stopped()
                .then_some(())
                .ok_or("it goes on".to_owned())
        };
        retry(PATIENCE, is_so).expect("it is stopped");
    }

    /// Has it go on.
    pub fn thaw(&self) {
        self.process().signal(libc::SIGCONT);
    }

    /// The log of all its processes.
    #[must_use]
    pub fn log(&self) -> String {
        let own = self.process.as_ref().map(Process::log).unwrap_or_default();
        format!("{}{own}", self.logs)
    }

    /// The last lines of the log, for reports.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        format!(
            "log of {:?} {}:\n  {}",
            self.kind,
            self.port,
            lines[from..].join("\n  ")
        )
    }
}
