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
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use shardis_cluster::event::Command;

use self::source::Source;
use crate::bus::{self, Bus};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::commands::catalogue::{BadUsers, access_control};
use crate::commands::info::lock_free;
use crate::commands::{names, registry};
use crate::config::{Config, ConfigError, Primary, Settings};
use crate::connection::binding::{Bound, Transport, rebind, unbind};
use crate::connection::handover::LinkClients;
use crate::connection::listener::{Listeners, bind_unix};
use crate::control::keeper::Keeper;
use crate::control::{Control, LinksStart};
use crate::daemon::{Daemon, describe_by};
use crate::event_loop::{Acceptor, EventLoop};
use crate::exec::event::EventSink;
use crate::exec::{Effect, KeyspaceEvent, Partition};
use crate::feed::{Feed, SlowListener};
use crate::journal::{Journal, Recorder};
use crate::links;
use crate::loading::LoadError;
use crate::loading::install::slots_with_keys;
use crate::loading::reload::Reloader;
use crate::log::Log;
use crate::saving::Assignment;
use crate::shard::Mesh;
use crate::shard::departures::Departures;
use crate::shard::poll::{Listener, Poll};
use crate::state::{Addresses, Node, Renames, Seed};
use crate::tls::Contexts;
use crate::tracking::Invalidations;

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
    /// The users cannot be taken, for the reason in this text.
    Users(String),
    /// The configuration leaves nothing to listen on.
    NoAddress,
    /// The certificates, or something else that TLS needs, cannot be used, for the reason in this text.
    Tls(String),
    /// The data cannot be loaded.
    Load(LoadError),
    /// The manifest of the append-only file cannot be used.
    Manifest(String),
    /// The bus of the cluster cannot be opened.
    Bus(String),
    /// The audit log cannot be opened.
    Audit(io::Error),
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
            Self::NoAddress => {
                write!(
                    f,
                    "Configured to not listen anywhere, exiting. Set a port, or the path of a unixsocket."
                )
            }
            Self::Tls(error) => write!(f, "Failed to configure TLS: {error}"),
            Self::Load(error) => error.fmt(f),
            Self::Manifest(error) | Self::Users(error) | Self::Bus(error) => f.write_str(error),
            Self::Audit(error) => write!(f, "The audit log ('audit-log') cannot be opened: {error}"),
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
    /// The same for the port of TLS.
    pub(crate) any_tls_port: bool,
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
            any_tls_port,
            initial,
            daemon,
        } = parts;
        let settings = config.settings();
        let shards = settings.shard_count();
        let renames = renames(&config)?;
        let acl = access_control(&config).map_err(bad_users)?;
        let (ports, unix) = listen(&settings, (any_port, any_tls_port), &log)?;
        ports.enter(&mut config, (any_port, any_tls_port))?;
        let contexts = Contexts::from_settings(&config.settings(), &clock);
        let contexts = contexts.map_err(|error| StartError::Tls(error.to_string()))?;
        let (bus, cluster) = open_bus(&mut config, any_port || any_tls_port, seed, &clock, &log)?;
        let settings = config.settings();
        let mut state = Node::new((config, acl, clock, log), (shards, registry().rows(), seed));
        state.renames = renames;
        state.cluster = cluster.map(|cluster| cluster.of_shards(shards));
        state.daemon = daemon;
        let journal = Arc::clone(&state.journal);
        if let Some(sender) = effects {
            journal.listen(sender, state.feed_state("effects", slow_listener));
        }
        let events = events.map(|sender| state.feed("keyspace events", sender, slow_listener));
        let state = Arc::new(state);
        describe_in_crashes(&state);
        connect_audit(&state);
        state
            .audit
            .configure(&settings, &state.log)
            .map_err(StartError::Audit)?;
        let source = Source::find(initial, &state, &settings)?;
        if source.is_there() {
            // Before any connection is accepted.
            state.loading.begin(state.started_us / 1_000_000);
        }
        state.tls.publish(contexts);
        let listeners = watch_over(&state, &settings, ports, unix);
        state.purge_in_background(&settings);
        introduce(&state, &settings);

        let (mut polls, mut members) = (Vec::new(), Vec::new());
        for shard in 0..shards {
            let (poll, waker) = Poll::new(settings.io_backend)?;
            let mut partition = Partition::new(
                shard,
                state.keyspace_options(shard),
                seed.number,
                journal.read_flag(),
            );
            partition.door.invalidations = Invalidations::new(Arc::clone(&state.tracking));
            partition.door.events = Some(EventSink::new(events.clone(), Arc::clone(&state.pubsub)));
            members.push((partition, waker));
            polls.push(poll);
        }
        let _ = state.multiplexing.set(polls[0].backend());
        let (mesh, inboxes) = Mesh::new(members);
        let mesh = Arc::new(mesh);
        state.connect_bells(ringer(&mesh));
        connect_persistence(&state, &mesh);
        let links = Arc::<LinkClients>::default();
        let departures = Arc::<Departures>::default();
        let control = Control::start(
            Arc::clone(&state),
            state.daemon.is_some(),
            links_of(&state, &mesh, (&links, &departures), bus),
        )?;
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
            running.spawn(
                shard,
                event_loop
                    .with_links(Arc::clone(&links), Arc::clone(&departures))
                    .with_reload(Arc::new(Reloader::new(&mesh))),
            )?;
        }
        let is_placed = running.load(&source, &mesh, &settings)?;
        running.follow(&settings, is_placed);
        running.begin_bus(&mesh);
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

    /// Loads the initial data. True when that has a place in a history. A node that is told to stop meanwhile does so.
    fn load(&self, source: &Source, mesh: &Mesh, settings: &Settings) -> Result<bool, StartError> {
        match source.begin(&self.state, mesh, settings) {
            Err(StartError::Load(error)) if error.is_stop() && self.state.shutdown.is_requested() => {
                Ok(false)
            }
            outcome => outcome,
        }
    }

    /// Begins to follow the primary that the configuration names, which may continue from the data if that `is_placed` in its history.
    fn follow(&self, settings: &Settings, is_placed: bool) {
        if let Some(primary) = settings.replicaof.0.clone() {
            self.state.follow(Some(primary), is_placed);
        }
    }

    /// Has the bus of the cluster begin, with the data as it was loaded.
    fn begin_bus(&self, mesh: &Mesh) {
        if let Some(cluster) = &self.state.cluster {
            let slots = slots_with_keys(&self.state, mesh);
            cluster.order(Command::AdoptSlots(Box::new(slots)));
            cluster.begin();
        }
    }

    /// Logs the addresses at which the node can be reached.
    fn announce(&self) {
        if self.state.shutdown.is_requested() {
            return;
        }
        let addresses = self.state.addresses.load();
        for (name, bound) in [("tcp", &addresses.tcp), ("tls", &addresses.tls)] {
            if !bound.is_empty() {
                self.state
                    .log
                    .notice(format_args!("Ready to accept connections {name}"));
            }
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
        self.state.audit.stop(&self.state.log);
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
                let note = |event, us| node.note_latency(&node.settings.load(), event, us);
                assignment.run(&node.log, &node.clock, &note);
            })
    };
    let ring_all = move || {
        if let Some(node) = rung.upgrade() {
            node.ring_all();
        }
    };
    state.persistence.connect(spawn, ring_all, ringer(mesh));
}

/// Connects the audit log with what its thread needs of the node, which it must not keep alive.
fn connect_audit(state: &Arc<Node>) {
    let node = Arc::downgrade(state);
    state.audit.connect(move |writer| {
        let node = Weak::clone(&node);
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                if node.upgrade().is_some_and(|node| node.daemon.is_some()) {
                    crate::daemon::guard_thread();
                }
                writer.run();
            })
    });
}

/// Opens the bus of a node that is part of a cluster. The configuration names what the file of nodes and the system have decided: the
/// primary, and the port of the bus.
fn open_bus(
    config: &mut Config,
    any_port: bool,
    seed: Seed,
    clock: &Arc<Clock>,
    log: &Log,
) -> Result<(Option<Bus>, Option<Cluster>), StartError> {
    let settings = config.settings();
    if !settings.cluster_enabled {
        return Ok((None, None));
    }
    let (bus, cluster) = Bus::open(&settings, any_port, seed, clock, log)
        .map_err(|error| StartError::Bus(error.to_string()))?;
    let mut assign = |name, value: String| {
        let assigned = config.assign(name, value.as_bytes());
        assigned.map_err(|error| StartError::Io(io::Error::other(error)))
    };
    if any_port {
        assign("cluster-port", bus.port.to_string())?;
    }
    if let Some(Primary { host, port }) = bus::primary_at_start(&cluster, settings.tls_replication) {
        assign("replicaof", format!("{host} {port}"))?;
    }
    Ok((Some(bus), Some(cluster)))
}

/// The links of a node, to be begun on its control thread.
fn links_of(
    node: &Arc<Node>,
    mesh: &Arc<Mesh>,
    (clients, departures): (&Arc<LinkClients>, &Arc<Departures>),
    bus: Option<Bus>,
) -> LinksStart {
    let (node, mesh) = (Arc::clone(node), Arc::clone(mesh));
    let loops = (Arc::clone(clients), Arc::clone(departures));
    Box::new(move || Box::pin(links::serve(node, mesh, loops, bus)))
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

/// The error for users that cannot be taken.
fn bad_users(bad: BadUsers) -> StartError {
    match bad {
        BadUsers::Line(error) => StartError::Config(error),
        BadUsers::Both => StartError::Users(
            "Configuring Redis with users defined in redis.conf and at the same setting an ACL file path is invalid. This setup is \
             very likely to lead to configuration errors and security holes, please define either an ACL file or declare users \
             directly in your redis.conf, but not both."
                .to_owned(),
        ),
        BadUsers::File(why) => StartError::Users(format!("Aborting Redis startup because of ACL errors: {why}")),
    }
}

/// The TCP addresses that a node listens on.
#[derive(Debug, Default)]
struct Ports {
    plain: Vec<Bound>,
    tls: Vec<Bound>,
}

impl Ports {
    /// Enters the ports that the system has chosen into the configuration.
    fn enter(&self, config: &mut Config, (any_port, any_tls_port): (bool, bool)) -> Result<(), StartError> {
        for (directive, is_chosen, bound) in [
            ("port", any_port, &self.plain),
            ("tls-port", any_tls_port, &self.tls),
        ] {
            if let (true, Some(bound)) = (is_chosen, bound.first()) {
                let assigned = config.assign(directive, bound.address.port().to_string().as_bytes());
                assigned.map_err(|error| StartError::Io(io::Error::other(error)))?;
            }
        }
        Ok(())
    }

    fn addresses(&self, unix: Option<String>) -> Addresses {
        let of = |bound: &[Bound]| bound.iter().map(|bound| bound.address).collect();
        Addresses {
            tcp: of(&self.plain),
            tls: of(&self.tls),
            unix,
        }
    }

    fn listeners(&self) -> impl Iterator<Item = Arc<Listener>> {
        self.plain.iter().chain(&self.tls).map(Bound::listener)
    }
}

/// Listens on every configured address.
fn listen(
    settings: &Settings,
    (any_port, any_tls_port): (bool, bool),
    log: &Log,
) -> Result<(Ports, Option<Listener>), StartError> {
    let failed = |what: &str, port: u16, error| StartError::Listen {
        address: format!("port {port} ({what})"),
        error,
    };
    let mut ports = Ports::default();
    if settings.port > 0 || any_port {
        let wanted = (Transport::Plain, settings.port);
        ports.plain =
            rebind(&[], settings, wanted, log).map_err(|error| failed("tcp", settings.port, error))?;
    }
    if settings.tls_port > 0 || any_tls_port {
        let wanted = (Transport::Tls, settings.tls_port);
        ports.tls =
            rebind(&[], settings, wanted, log).map_err(|error| failed("tls", settings.tls_port, error))?;
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
    if ports.plain.is_empty() && ports.tls.is_empty() && unix.is_none() {
        return Err(StartError::NoAddress);
    }
    Ok((ports, unix))
}

/// Stores the node's addresses, and makes it listen on others when a port or `bind` changes. Returns the listeners for
/// the loops.
fn watch_over(state: &Node, settings: &Settings, ports: Ports, unix: Option<Listener>) -> Arc<Listeners> {
    let path = unix.as_ref().map(|_| settings.unixsocket.clone());
    let all = ports.listeners().chain(unix.map(Arc::new));
    let listeners = Arc::new(Listeners::new(all, &settings.unixsocket, Arc::clone(&state.tls)));
    state.addresses.store(Arc::new(ports.addresses(path.clone())));
    let (followed, known) = (Arc::clone(&listeners), Mutex::new((ports, settings.clone())));
    state.connect_rebinder(move |settings, log| {
        let mut known = known.lock();
        let (ports, former) = &mut *known;
        let plain = rebind_or_unbind(&ports.plain, settings, (Transport::Plain, settings.port), log)?;
        let tls = match rebind_or_unbind(&ports.tls, settings, (Transport::Tls, settings.tls_port), log) {
            Ok(tls) => tls,
            Err(error) => {
                ports.plain = rebind_or_unbind(&plain, former, (Transport::Plain, former.port), log)?;
                followed.exchange(ports.listeners());
                return Err(error);
            }
        };
        *ports = Ports { plain, tls };
        *former = settings.clone();
        followed.exchange(ports.listeners());
        Ok(ports.addresses(path.clone()))
    });
    listeners
}

/// Listens at another port; at none if it is 0.
fn rebind_or_unbind(
    current: &[Bound],
    settings: &Settings,
    wanted: (Transport, u16),
    log: &Log,
) -> io::Result<Vec<Bound>> {
    if wanted.1 == 0 {
        unbind(current);
        return Ok(Vec::new());
    }
    rebind(current, settings, wanted, log)
}
