//! [`Running`]: one running node, and how it is built, started and stopped.
//!
//! Start, in order: 1. shards and their loops' polls; 2. listeners, so that a port in use stops the start before
//! anything else happens; 3. the control thread, and one thread per shard, from when on connections are accepted; 4. the
//! data is loaded; 5. *ready* in the log. Stop, in order: 1. the request is noted and all loops are rung; 2. each loop finishes its
//! turn and writes what it can; 3. their threads are joined; 4. sockets and files that others see (the Unix socket's
//! path, the pid file) are removed; 5. the control thread ends.

mod source;
mod upgrade;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use self::source::Source;
use crate::clock::Clock;
use crate::commands::info::lock_free;
use crate::commands::{names, registry};
use crate::config::{Config, ConfigError, Settings};
use crate::connection::binding::{Bound, rebind, unbind};
use crate::connection::listener::{Listeners, bind_unix};
use crate::control::Control;
use crate::control::keeper::Keeper;
use crate::daemon::{Daemon, describe_by};
use crate::event_loop::{Acceptor, EventLoop};
use crate::exec::event::EventSink;
use crate::exec::{Effect, KeyspaceEvent, Partition};
use crate::feed::{Feed, SlowListener};
use crate::journal::{Journal, Recorder};
use crate::loading::LoadError;
use crate::loading::reload::Reloader;
use crate::log::Log;
use crate::saving::Assignment;
use crate::shard::Mesh;
use crate::shard::poll::{Listener, Poll};
use crate::state::{Addresses, Node, Renames, Seed};

/// Error that prevents a node from starting.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Listen {
        /// The kind of address, and the port or path.
        address: String,
        /// The error of the system.
        error: io::Error,
    },
    /// A line of the configuration cannot be applied.
    Config(ConfigError),
    /// The configuration asks for something that this version cannot do.
    Unsupported {
        /// The directive.
        directive: &'static str,
        /// The reason.
        why: &'static str,
    },
    /// The configuration leaves nothing to listen on.
    NoAddress,
    /// The data cannot be loaded.
    Load(LoadError),
    /// The manifest of the append-only file cannot be used.
    Manifest(String),
    /// The system refused something else.
    Io(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, error } => {
                write!(f, "Failed listening on {address}, aborting. {error}")
            }
            Self::Config(error) => error.fmt(f),
            Self::Unsupported { directive, why } => {
                write!(
                    f,
                    "The configuration cannot be honoured, exiting: '{directive}': {why}."
                )
            }
            Self::NoAddress => {
                write!(
                    f,
                    "Configured to not listen anywhere, exiting. Set a port, or the path of a unixsocket."
                )
            }
            Self::Load(error) => error.fmt(f),
            Self::Manifest(error) => f.write_str(error),
            Self::Io(error) => write!(f, "The node could not start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<LoadError> for StartError {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The data that a node begins with.
#[derive(Clone, Debug)]
pub(crate) enum Initial {
    /// None.
    Nothing,
    /// The snapshot file that the directives name, if it exists.
    Saved,
    /// This snapshot or append-only file.
    File(PathBuf),
}

/// The parts that a node is started with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) clock: Arc<Clock>,
    pub(crate) log: Log,
    pub(crate) seed: Seed,
    /// Destination of effects.
    pub(crate) effects: Option<Sender<Effect>>,
    pub(crate) events: Option<Sender<KeyspaceEvent>>,
    /// Choice for a reader of effects or events that is slow.
    pub(crate) slow_listener: SlowListener,
    /// Port 0 means any free port; otherwise it means none.
    pub(crate) any_port: bool,
    /// The data to load.
    pub(crate) initial: Initial,
    /// The process, when it is the node's own.
    pub(crate) daemon: Option<Daemon>,
}

/// A node that runs until it is stopped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) state: Arc<Node>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    control: Option<Control>,
    keeper: Option<Keeper>,
    listening: Vec<Listening>,
    unix_path: Option<PathBuf>,
}

/// A thread that sends to a listener that does not keep up.
#[derive(Debug)]
struct Listening {
    of: Listened,
    thread: JoinHandle<()>,
}

/// The source that a listener listens to.
#[derive(Clone, Debug)]
enum Listened {
    Effects(Arc<Journal>),
    Events(Feed<KeyspaceEvent>),
}

impl Listened {
    /// Whether the listener's channel has a bound, so that it may be full.
    fn has_bound(&self) -> bool {
        match self {
            Self::Effects(journal) => journal.has_bound(),
            Self::Events(feed) => feed.has_bound(),
        }
    }

    /// Sends what waits, until the node ends.
    fn serve(&self, node: &Node) {
        match self {
            Self::Effects(journal) => journal.serve_listener(|| node.ring_all()),
            Self::Events(feed) => feed.serve(),
        }
    }

    /// The node has been told to end.
    fn end(&self) {
        match self {
            Self::Effects(journal) => journal.stop_listening(),
            Self::Events(feed) => feed.end(),
        }
    }
}

impl Listening {
    /// Starts the thread.
    fn start(name: &str, of: Listened, node: &Arc<Node>) -> io::Result<Self> {
        let (served, node) = (of.clone(), Arc::clone(node));
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _entered = node.threads.enter();
            served.serve(&node);
        })?;
        Ok(Self { of, thread })
    }
}

impl Running {
    /// Starts a node.
    pub(crate) fn start(parts: Parts) -> Result<Self, StartError> {
        let Parts {
            mut config,
            clock,
            log,
            seed,
            effects,
            events,
            slow_listener,
            any_port,
            initial,
            daemon,
        } = parts;
        if let Some((directive, why)) = config.broken_promise() {
            return Err(StartError::Unsupported { directive, why });
        }
        let settings = config.settings();
        let shards = settings.shard_count();
        let renames = renames(&config)?;
        let (tcp, unix) = listen(&settings, any_port, &log)?;
        if let (true, Some(bound)) = (any_port, tcp.first()) {
            let port = bound.address.port().to_string();
            config
                .assign("port", port.as_bytes())
                .map_err(|error| StartError::Io(io::Error::other(error)))?;
        }
        let mut state = Node::new(config, clock, log, (shards, registry().rows()), seed);
        state.renames = renames;
        state.daemon = daemon;
        let journal = Arc::clone(&state.journal);
        if let Some(sender) = effects {
            journal.listen(sender, state.feed_state("effects", slow_listener));
        }
        let events = events.map(|sender| state.feed("keyspace events", sender, slow_listener));
        let state = Arc::new(state);
        describe_in_crashes(&state);
        let source = Source::find(initial, &state, &settings)?;
        if source.is_there() {
            // Before any connection is accepted.
            state.loading.begin(state.started_us / 1_000_000);
        }
        let listeners = watch_over(&state, &settings, tcp, unix);
        state.purge_in_background(&settings);
        introduce(&state, &settings);

        let (mut polls, mut members) = (Vec::new(), Vec::new());
        for shard in 0..shards {
            let (poll, waker) = Poll::new(settings.io_backend)?;
            let mut partition =
                Partition::new(shard, state.keyspace_options(), seed.number, journal.read_flag());
            partition.door.events = Some(EventSink::new(events.clone(), Arc::clone(&state.pubsub)));
            members.push((partition, waker));
            polls.push(poll);
        }
        let _ = state.multiplexing.set(polls[0].backend());
        let (mesh, inboxes) = Mesh::new(members);
        let mesh = Arc::new(mesh);
        state.connect_bells(ringer(&mesh));
        connect_persistence(&state, &mesh);
        let control = Control::start(Arc::clone(&state), state.daemon.is_some())?;
        let unix_path = Some(&settings.unixsocket).filter(|path| !path.is_empty());
        let mut running = Self {
            state,
            threads: Vec::new(),
            control: Some(control),
            keeper: None,
            listening: Vec::new(),
            unix_path: unix_path.map(PathBuf::from),
        };
        running.keeper = Some(Keeper::start(Arc::clone(&running.state))?);
        running.listen("effects", Some(Listened::Effects(Arc::clone(&journal))))?;
        running.listen("events", events.map(Listened::Events))?;
        for (shard, (poll, inbox)) in polls.into_iter().zip(inboxes).enumerate() {
            let acceptor = Acceptor::new(Arc::clone(&listeners), &poll)?;
            let event_loop = EventLoop::new(
                shard,
                Arc::clone(&running.state),
                Arc::clone(&mesh),
                inbox,
                poll,
                acceptor,
                Recorder::new(Arc::clone(&journal)),
            );
            running.spawn(shard, event_loop.with_reload(Arc::new(Reloader::new(&mesh))))?;
        }
        running.load(&source, &mesh, &settings)?;
        let used = running.state.measure_memory().used;
        running.state.started_bytes.store(used, Ordering::Relaxed);
        running.announce();
        Ok(running)
    }

    /// Starts the thread for a listener, if there is one that may not keep up.
    fn listen(&mut self, name: &str, to: Option<Listened>) -> io::Result<()> {
        if let Some(to) = to.filter(Listened::has_bound) {
            self.listening.push(Listening::start(name, to, &self.state)?);
        }
        Ok(())
    }

    /// Spawns the thread of a loop. If a later spawn fails, dropping the node stops the threads before it.
    fn spawn(&mut self, shard: usize, event_loop: EventLoop) -> io::Result<()> {
        let thread = std::thread::Builder::new()
            .name(format!("shard-{shard}"))
            .spawn(move || run_guarded(event_loop))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Loads the initial data. A node that is told to stop meanwhile does so.
    fn load(&self, source: &Source, mesh: &Mesh, settings: &Settings) -> Result<(), StartError> {
        match source.begin(&self.state, mesh, settings) {
            Err(StartError::Load(error)) if error.is_stop() && self.state.shutdown.is_requested() => Ok(()),
            outcome => outcome,
        }
    }

    /// Logs the addresses at which the node can be reached.
    fn announce(&self) {
        if self.state.shutdown.is_requested() {
            return;
        }
        let addresses = self.state.addresses.load();
        if !addresses.tcp.is_empty() {
            self.state
                .log
                .notice(format_args!("Ready to accept connections tcp"));
        }
        if addresses.unix.is_some() {
            self.state
                .log
                .notice(format_args!("Ready to accept connections unix"));
        }
        if let Some(daemon) = &self.state.daemon {
            daemon
                .supervisor
                .tell_ready("Ready to accept connections", &self.state.log);
        }
    }

    /// Stops the node, and waits until its threads have ended.
    pub(crate) fn stop(&mut self) {
        self.state.shutdown.request();
        self.state.ring_all();
        self.wait();
    }

    /// Waits until the node has been stopped, by a command or a signal.
    pub(crate) fn wait(&mut self) {
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self
                    .state
                    .log
                    .warning(format_args!("A loop ended, and with it the node: {error}")),
                Err(_) => self.state.log.warning(format_args!(
                    "A loop panicked, which ended the node. Please report this as a bug."
                )),
            }
        }
        self.state.persistence.stop();
        if let Some(path) = self.unix_path.take() {
            self.state
                .log
                .notice(format_args!("Removing the unix socket file."));
            let _ = std::fs::remove_file(path);
        }
        for Listening { of, thread } in self.listening.drain(..) {
            of.end();
            // It has nothing left to do, and nothing is lost by its panic but what was reported then.
            let _ = thread.join();
        }
        // The loops append no more. A node is stopped once, however often it is told to.
        if let Some(keeper) = self.keeper.take() {
            drop(keeper);
            self.finish_append_only();
        }
        drop(self.control.take());
    }

    /// Brings what is left of the journal to the append-only file, and that to the disk.
    fn finish_append_only(&self) {
        let state = &self.state;
        if !state.journal.aof.is_on() || state.has_failed() {
            return;
        }
        state.log.notice(format_args!("Calling fsync() on the AOF file."));
        state.reporting(&state.settings.load(), |reporter| {
            state.append_only.finish(reporter);
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes the report of a crash describe the node, if the process is its own.
fn describe_in_crashes(state: &Arc<Node>) {
    if state.daemon.is_some() {
        let node = Arc::downgrade(state);
        describe_by(move || node.upgrade().map(|node| lock_free(&node)).unwrap_or_default());
    }
}

/// Logs what the node is, before it has data.
fn introduce(node: &Node, settings: &Settings) {
    let mode = if settings.cluster_enabled {
        "cluster"
    } else {
        "standalone"
    };
    let (log, port, shards) = (&node.log, settings.port, node.shards);
    log.notice(format_args!("Running mode={mode}, port={port}, shards={shards}."));
    log.notice(format_args!(" PID: {}", std::process::id()));
    log.notice(format_args!("Server initialized"));
}

/// Connects saving with what it needs of the node, which it must not keep alive.
fn connect_persistence(state: &Arc<Node>, mesh: &Arc<Mesh>) {
    let (saved, rung) = (Arc::downgrade(state), Arc::downgrade(state));
    let spawn = move |assignment: Assignment| {
        let node = saved
            .upgrade()
            .ok_or_else(|| io::Error::other("the node has ended"))?;
        std::thread::Builder::new()
            .name("save".to_owned())
            .spawn(move || {
                if node.daemon.is_some() {
                    crate::daemon::guard_thread();
                }
                let _entered = node.threads.enter();
                assignment.run(&node.log, &node.clock);
            })
    };
    let ring_all = move || {
        if let Some(node) = rung.upgrade() {
            node.ring_all();
        }
    };
    state.persistence.connect(spawn, ring_all, ringer(mesh));
}

/// A function that wakes loops as long as they exist. Partitions hold it, so that it must not keep them alive.
fn ringer(mesh: &Arc<Mesh>) -> impl Fn(usize) + Send + Sync + 'static {
    let mesh = Arc::downgrade(mesh);
    move |shard| {
        if let Some(mesh) = mesh.upgrade() {
            mesh.ring(shard);
        }
    }
}

/// Runs a loop. If the loop ends although the node is not stopping, the node is stopped: it must not go on without
/// one of its shards.
fn run_guarded(event_loop: EventLoop) -> io::Result<()> {
    let node = event_loop.node();
    if node.daemon.is_some() {
        crate::daemon::guard_thread();
    }
    let _entered = node.threads.enter();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| event_loop.run()));
    node.shutdown.request();
    node.ring_all();
    outcome.unwrap_or_else(|_| Err(io::Error::other("it panicked. Please report this as a bug.")))
}

/// The names of commands after all `rename-command` lines.
fn renames(config: &Config) -> Result<Renames, StartError> {
    let mut renames = Renames::default();
    for line in config.renamed_commands() {
        let [old, new] = &line.args[..] else {
            return Err(StartError::Config(line.error("wrong number of arguments")));
        };
        names::rename(&mut renames, old, new).map_err(|why| StartError::Config(line.error(why)))?;
    }
    Ok(renames)
}

/// Listens on every configured address.
fn listen(
    settings: &Settings,
    any_port: bool,
    log: &Log,
) -> Result<(Vec<Bound>, Option<Listener>), StartError> {
    let mut tcp = Vec::new();
    if settings.port > 0 || any_port {
        tcp = rebind(&[], settings, settings.port, log).map_err(|error| StartError::Listen {
            address: format!("port {} (tcp)", settings.port),
            error,
        })?;
    }
    let mut unix = None;
    if !settings.unixsocket.is_empty() {
        let mode = Some(settings.unixsocketperm).filter(|&mode| mode > 0);
        let listener = bind_unix(&settings.unixsocket, mode).map_err(|error| StartError::Listen {
            address: format!("unix socket {}", settings.unixsocket),
            error,
        })?;
        unix = Some(listener);
    }
    if tcp.is_empty() && unix.is_none() {
        return Err(StartError::NoAddress);
    }
    Ok((tcp, unix))
}

/// Stores the node's addresses, and makes it listen on others when `port` or `bind` change. Returns the listeners for
/// the loops.
fn watch_over(state: &Node, settings: &Settings, tcp: Vec<Bound>, unix: Option<Listener>) -> Arc<Listeners> {
    let path = unix.as_ref().map(|_| settings.unixsocket.clone());
    let all = tcp.iter().map(Bound::listener).chain(unix.map(Arc::new));
    let listeners = Arc::new(Listeners::new(all, &settings.unixsocket));
    let addresses = move |tcp: &[Bound]| Addresses {
        tcp: tcp.iter().map(|bound| bound.address).collect(),
        unix: path.clone(),
    };
    state.addresses.store(Arc::new(addresses(&tcp)));
    let (followed, tcp) = (Arc::clone(&listeners), Mutex::new(tcp));
    state.connect_rebinder(move |settings, log| {
        let mut tcp = tcp.lock();
        let bound = match settings.port {
            0 => {
                unbind(&tcp);
                Vec::new()
            }
            port => rebind(&tcp, settings, port, log)?,
        };
        followed.exchange(bound.iter().map(Bound::listener));
        *tcp = bound;
        Ok(addresses(&tcp))
    });
    listeners
}
