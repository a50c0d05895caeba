//! Programs under test as child processes: options, a directory of their own, a captured log, an end.
//!
//! A process is killed by its id when its value is dropped. Ports are picked at random below the range from which
//! the system serves outgoing connections; a start that finds its port taken is tried again on another one, so
//! tests may run side by side.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rustls::ClientConfig;
use tempfile::TempDir;

use crate::client::Client;

/// Longest time until a server accepts connections: a debug build on a busy machine needs some.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// The log line after which a server serves.
const READY: &str = "Ready to accept connections";

/// The log line of a server whose port somebody else has.
const PORT_TAKEN: &str = "Failed listening on port";

/// Distance of the port of a node's bus from that of its clients.
pub const BUS_OFFSET: u16 = 10_000;

/// A program and its options, not yet started.
#[derive(Clone)]
pub struct Launch {
    program: PathBuf,
    options: Vec<String>,
    input: Option<String>,
    variables: Vec<(String, String)>,
}

/// Result of a program that ran to its end.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; `None` after a signal, or when the program had to be killed because it did not end.
    pub code: Option<i32>,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

impl Finished {
    /// Both streams together, for assertions that do not care which of them was used.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.output, self.errors)
    }
}

impl Launch {
    /// Starts from no options at all.
    #[must_use]
    pub fn new(program: &Path) -> Launch {
        Launch {
            program: program.to_owned(),
            options: Vec::new(),
            input: None,
            variables: Vec::new(),
        }
    }

    /// Adds options.
    #[must_use]
    pub fn with(mut self, options: &[impl AsRef<str>]) -> Launch {
        self.options
            .extend(options.iter().map(|option| option.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the program's environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Launch {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives the program `text` as its standard input; otherwise it has none.
    #[must_use]
    pub fn input(mut self, text: &str) -> Launch {
        self.input = Some(text.to_owned());
        self
    }

    /// Starts a server on a free port of 127.0.0.1 in a directory of its own and waits until it serves.
    ///
    /// # Panics
    /// When the server does not start; the message has its log.
    #[must_use]
    pub fn serve(self) -> Process {
        for _ in 0..8 {
            let port = free_port();
            let process = self
                .clone()
                .with(&["--port", &port.to_string(), "--bind", "127.0.0.1"])
                .spawn(port);
            match process.wait_until_ready() {
                Ok(()) => return process,
                Err(reason) if process.log().contains(PORT_TAKEN) => drop(reason),
                Err(reason) => panic!(
                    "{} {}: {reason}\n{}",
                    self.program.display(),
                    self.options.join(" "),
                    process.log()
                ),
            }
        }
        panic!("{}: no free port in eight attempts", self.program.display())
    }

    /// Starts the program in a directory of its own without waiting for anything. `port` is where
    /// [`Process::connect`] will look for it.
    ///
    /// # Panics
    /// When the program cannot be executed.
    #[must_use]
    pub fn spawn(&self, port: u16) -> Process {
        let directory = TempDir::new().expect("a temporary directory");
        let log = directory.path().join("stdout.log");
        let mut child = self
            .command(directory.path(), &log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        if let (Some(text), Some(mut pipe)) = (&self.input, child.stdin.take()) {
            // A program that does not read its input is judged by what it does, not by a broken pipe.
            let _ = pipe.write_all(text.as_bytes());
        }
        Process {
            child,
            port,
            directory,
            log,
            tls: None,
        }
    }

    /// The command line, its output going to files in `directory`.
    fn command(&self, directory: &Path, log: &Path) -> Command {
        let create = |path: &Path| File::create(path).expect("a log file in the temporary directory");
        let mut command = Command::new(&self.program);
        command
            .args(&self.options)
            .envs(self.variables.iter().cloned())
            .current_dir(directory)
            .stdin(if self.input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(create(log))
            .stderr(create(&log.with_extension("err")));
        command
    }

    /// Runs the program to its end, or kills it after `patience`.
    ///
    /// # Panics
    /// When the program cannot be executed.
    #[must_use]
    pub fn finish(self, patience: Duration) -> Finished {
        let mut process = self.spawn(0);
        let status = process.wait(patience);
        Finished {
            code: status.and_then(|status| status.code()),
            output: process.log(),
            errors: fs::read_to_string(process.log.with_extension("err")).unwrap_or_default(),
        }
    }
}

/// A running program; killed when dropped.
pub struct Process {
    child: Child,
    port: u16,
    directory: TempDir,
    log: PathBuf,
    /// Configuration of clients, if it is reached over TLS.
    tls: Option<Arc<ClientConfig>>,
}

impl Process {
    /// The same process, reached over TLS at another port.
    #[must_use]
    pub fn over_tls(mut self, port: u16, config: Arc<ClientConfig>) -> Process {
        (self.port, self.tls) = (port, Some(config));
        self
    }

    /// Waits for the line that says it serves.
    ///
    /// # Errors
    /// The reason for which it does not: it ended, or time is up.
    pub fn wait_until_ready(&self) -> Result<(), String> {
        let deadline = Instant::now() + START_PATIENCE;
        while !self.log().contains(READY) {
            if !self.is_running() {
                return Err("the process ended before it was ready".to_owned());
            }
            if Instant::now() > deadline {
                return Err(format!("not ready after {START_PATIENCE:?}"));
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// True while the process has not ended (and become a zombie).
    #[must_use]
    pub fn is_running(&self) -> bool {
        state(&format!("/proc/{}/stat", self.pid())).is_some_and(|state| state != 'Z')
    }

    /// True when a signal has stopped all threads of the process.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid()))
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        let mut states = threads.map(|thread| state(&thread.path().join("stat").display().to_string()));
        states.all(|state| state == Some('T'))
    }

    /// Address of the server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its working directory, deleted with the process.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Standard output so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// A new connection.
    ///
    /// # Panics
    /// When the server does not accept it; the message has its log.
    #[must_use]
    pub fn connect(&self) -> Client {
        let connected = match &self.tls {
            None => Client::connect(self.address()),
            Some(config) => Client::connect_tls(self.address(), config),
        };
        connected.unwrap_or_else(|error| panic!("connect to {}: {error}\n{}", self.address(), self.log()))
    }

    /// Sends a signal, for example `libc::SIGTERM`.
    pub fn signal(&self, signal: i32) {
        let name = signal.to_string();
        // The `kill` program rather than the system call: no unsafe code for the sake of a test.
        let _ = Command::new("kill")
            .args([format!("-{name}"), self.pid().to_string()])
            .status();
    }

    /// Waits for its end; `None` when it still runs after `patience`.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => sleep(Duration::from_millis(5)),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The state letter in a `stat` file of `/proc`: it follows the program's name, which may hold anything.
fn state(path: &str) -> Option<char> {
    fs::read_to_string(path)
        .ok()?
        .rsplit(')')
        .next()?
        .trim_start()
        .chars()
        .next()
}

/// A port of 127.0.0.1 that nobody listens on at this moment.
///
/// # Panics
/// When a thousand random ports are all taken.
#[must_use]
pub fn free_port() -> u16 {
    let mut rng = rand::rng();
    let candidates = (0..1000).map(|_| rng.random_range(10_000..30_000_u16));
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    candidates
        .into_iter()
        .find(is_free)
        .expect("one of a thousand random ports is free")
}

/// First of the ports that Linux gives to sockets that connect, unless it is told otherwise.
const EPHEMERAL_FIRST: u16 = 32_768;

/// A port of 127.0.0.1 that nobody listens on, nor on the one that a node of a cluster takes for its bus. No connection gets that one
/// by chance: a node that starts again, or that changes the port of its bus, finds it free.
///
/// # Panics
/// When a thousand random ports are all taken.
#[must_use]
pub fn cluster_port() -> u16 {
    let mut ports = (0..1000).map(|_| free_port());
    let is_free = |port: &u16| {
        let bus = port + BUS_OFFSET;
        bus < EPHEMERAL_FIRST && TcpListener::bind((Ipv4Addr::LOCALHOST, bus)).is_ok()
    };
    ports
        .find(is_free)
        .expect("one of a thousand random ports has a free one for its bus")
}

/// The program `name` if it is on the search path.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// Reads a file of the repository, by its path from the root.
///
/// # Errors
/// The errors of the file system.
pub fn repository_file(path: &str) -> io::Result<String> {
    fs::read_to_string(repository_root().join(path))
}

/// The root of the repository.
#[must_use]
pub fn repository_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(PathBuf::new, Path::to_path_buf)
}
