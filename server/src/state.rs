//! The state that all loops of a node share: configuration, clock, counters, and requests that concern all loops.

mod deal;
mod ids;
mod libraries;
mod loading;
mod renames;
mod usage;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use shardis_storage::key::KeyHasher;
use shardis_storage::keyspace::{KeyspaceOptions, Layout};

use self::deal::Deal;
use self::ids::Ids;
pub(crate) use self::libraries::Libraries;
use self::loading::Loading;
pub(crate) use self::renames::{Meaning, Renames};
pub(crate) use self::usage::{ProcessMemory, Usage};
use crate::append_only::{AppendOnly, Phase};
use crate::clock::Clock;
use crate::config::{Config, DirectiveFlags, Requester, SetError, Settings, ShutdownOptions};
use crate::daemon::Daemon;
use crate::feed::{Feed, FeedState, SlowListener, Weighed};
use crate::hashing::Hashing;
use crate::journal::Journal;
use crate::journal::aof::Reporter;
use crate::log::{Level, Log};
use crate::observe::latency::LatencyMonitor;
use crate::observe::monitor::Monitors;
use crate::observe::slowlog::SlowLog;
use crate::observe::stats::{Counter, LoopStats};
use crate::observe::threads::Threads;
use crate::pubsub::Hub;
use crate::saving::{Job, Persistence, Purpose, SaveError};

/// The Redis version whose behaviour and replies this node has.
pub(crate) const REDIS_VERSION: &str = "7.2.4";

/// This program's own version.
pub(crate) const SHARDIS_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The state of one node.
pub(crate) struct Node {
    /// The clock that all uses of time follow.
    pub(crate) clock: Arc<Clock>,
    /// The log of the node.
    pub(crate) log: Log,
    /// The hashing of keys.
    pub(crate) hashing: Hashing,
    /// Number of shards, and of loops.
    pub(crate) shards: usize,
    /// The configuration; changed by CONFIG SET.
    pub(crate) config: Mutex<Config>,
    /// The settings as loops read them, anew in every turn.
    pub(crate) settings: ArcSwap<Settings>,
    /// Addresses that the node listens on.
    pub(crate) addresses: ArcSwap<Addresses>,
    /// Makes the node listen on other addresses, when `port` or `bind` change.
    rebinder: OnceLock<Rebinder>,
    /// Names changed by `rename-command`.
    pub(crate) renames: Renames,
    /// The process, when it is the node's own; none when the node is embedded.
    pub(crate) daemon: Option<Daemon>,
    /// Wakes the control thread.
    pub(crate) control_bell: tokio::sync::Notify,
    /// Mechanism by which loops wait for sockets: `epoll` or `io_uring`.
    pub(crate) multiplexing: OnceLock<&'static str>,
    /// State of CLIENT PAUSE.
    pub(crate) pause: Pause,
    /// State of the load of data.
    pub(crate) loading: Loading,
    /// Request to stop the node.
    pub(crate) shutdown: Shutdown,
    /// Counters of each loop.
    pub(crate) stats: Vec<LoopStats>,
    /// Its threads.
    pub(crate) threads: Threads,
    /// Bytes of each shard's data, as of the last commands on it.
    pub(crate) memory: Vec<Counter>,
    /// Number of objects of each shard that wait to be freed, as of the last commands on it.
    pub(crate) garbage: Vec<Counter>,
    /// Changes to each shard's data, as of the last commands on it.
    pub(crate) changes: Vec<Counter>,
    /// Saving to files.
    pub(crate) persistence: Arc<Persistence>,
    /// By shard: another loop has put something into it that expires before its loop would wake.
    pub(crate) due_sooner: Vec<AtomicBool>,
    /// The most bytes in use that were noticed.
    memory_peak: AtomicU64,
    /// Number of connected clients.
    pub(crate) clients: AtomicUsize,
    /// Ids of this run and of its data.
    pub(crate) ids: Ids,
    /// Time of the start, Unix microseconds.
    pub(crate) started_us: i64,
    /// Bytes in use when the node began to serve.
    pub(crate) started_bytes: AtomicU64,
    /// Bytes in use beside data and clients' buffers, as of the last look; 0 where the process is not the node's own.
    other_bytes: AtomicI64,
    /// The directive `maxmemory`, in effect for all loops as soon as it is set.
    memory_limit: AtomicU64,
    /// Place, in the memory of all shards, of the next one to evict from: see [`Node::shard_to_evict_from`].
    evict_place: AtomicU32,
    /// Wrong passwords given since CONFIG RESETSTAT.
    pub(crate) denied_logins: AtomicU64,
    /// The slow log.
    pub(crate) slowlog: Mutex<SlowLog>,
    /// Events that held loops up.
    pub(crate) latency: Mutex<LatencyMonitor>,
    /// The loops that carry monitors.
    pub(crate) monitors: Monitors,
    /// Publish and subscribe.
    pub(crate) pubsub: Arc<Hub>,
    /// The stream of what changes.
    pub(crate) journal: Arc<Journal>,
    /// The files that it is written to.
    pub(crate) append_only: AppendOnly,
    /// Feeds to readers in this process, by name, and their states.
    pub(crate) feeds: Vec<(&'static str, Arc<FeedState>)>,
    /// State changed by DEBUG.
    pub(crate) debug: Debugging,
    /// Deals connections to loops.
    pub(crate) deal: Deal,
    next_client_id: AtomicU64,
    /// Number of times that loops were told to look at the node's state because something in it has changed.
    news: AtomicU64,
    bells: OnceLock<Arc<dyn Fn(usize) + Send + Sync>>,
}

/// Reason for which commands that change data are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    /// The last save in the background failed.
    Snapshot,
    /// The append-only file cannot be written or synced: the number of the system's error.
    AppendOnly(i32),
}

/// Error: the data should be saved before the node stops, and cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CannotSave;

/// Function that listens on the TCP addresses in the settings, and returns the addresses bound. After an error, which
/// it logs, the node listens as before.
type Rebinder = Box<dyn Fn(&Settings, &Log) -> std::io::Result<Addresses> + Send + Sync>;

/// Addresses that a node listens on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    /// TCP addresses, with the ports that were really bound.
    pub(crate) tcp: Vec<std::net::SocketAddr>,
    /// Path of the Unix socket.
    pub(crate) unix: Option<String>,
}

/// Seed of everything random in a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed {
    pub(crate) number: u64,
    /// The seed was chosen, to make runs repeatable.
    pub(crate) is_chosen: bool,
}

impl Seed {
    /// A chosen seed.
    pub(crate) fn chosen(number: u64) -> Self {
        Self {
            number,
            is_chosen: true,
        }
    }

    /// A random seed.
    pub(crate) fn random() -> Self {
        Self {
            number: rand::random(),
            is_chosen: false,
        }
    }
}

impl Node {
    /// The state of a node that is about to start, for so many shards and commands.
    pub(crate) fn new(
        config: Config,
        clock: Arc<Clock>,
        log: Log,
        (shards, commands): (usize, usize),
        seed: Seed,
    ) -> Self {
        let settings = ArcSwap::new(config.settings());
        let started_us = clock.now_us();
        let ids = ids_of_run(seed, started_us, &log);
        let append_only = AppendOnly::new(&clock, started_us, REDIS_VERSION);
        Self {
            journal: Arc::clone(append_only.journal()),
            persistence: Arc::clone(append_only.saving()),
            append_only,
            memory_limit: AtomicU64::new(settings.load().maxmemory.bytes()),
            pubsub: hub(shards, seed, &settings.load()),
            clock,
            log,
            hashing: Hashing::new(
                KeyHasher::new(seed.number),
                shards,
                settings.load().cluster_enabled,
            ),
            shards,
            config: Mutex::new(config),
            settings,
            addresses: ArcSwap::default(),
            rebinder: OnceLock::new(),
            renames: Renames::default(),
            daemon: None,
            control_bell: tokio::sync::Notify::new(),
            multiplexing: OnceLock::new(),
            pause: Pause::default(),
            loading: Loading::default(),
            shutdown: Shutdown::default(),
            stats: (0..shards).map(|_| LoopStats::new(commands)).collect(),
            threads: Threads::default(),
            memory: (0..shards).map(|_| Counter::default()).collect(),
            garbage: (0..shards).map(|_| Counter::default()).collect(),
            changes: (0..shards).map(|_| Counter::default()).collect(),
            due_sooner: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            memory_peak: AtomicU64::new(0),
            clients: AtomicUsize::new(0),
            ids,
            started_us,
            started_bytes: AtomicU64::new(0),
            other_bytes: AtomicI64::new(0),
            evict_place: AtomicU32::new(0),
            denied_logins: AtomicU64::new(0),
            slowlog: Mutex::default(),
            latency: Mutex::default(),
            monitors: Monitors::new(shards),
            feeds: Vec::new(),
            debug: Debugging::default(),
            deal: Deal::new(shards),
            next_client_id: AtomicU64::new(1),
            news: AtomicU64::new(0),
            bells: OnceLock::new(),
        }
    }

    /// Changes directives, and tells all loops.
    ///
    /// # Errors
    /// When one of them cannot be changed: then none is.
    pub(crate) fn change_settings(
        &self,
        pairs: &[(&[u8], &[u8])],
        requester: Requester,
    ) -> Result<(), SetError> {
        let mut config = self.config.lock();
        let previous = config.settings();
        let changed = config.set(pairs, requester)?;
        let settings = config.settings();
        if let Err(error) = self.apply_all(&settings, &previous, &changed) {
            config.revert(previous);
            return Err(error);
        }
        for name in changed {
            if let Some(notice) = crate::config::find(name.as_bytes()).and_then(crate::config::notice) {
                self.log.warning(format_args!("{notice}"));
            }
        }
        self.pubsub.choose_events(settings.notify_keyspace_events);
        self.memory_limit
            .store(settings.maxmemory.bytes(), Ordering::Relaxed);
        self.settings.store(settings);
        drop(config);
        self.ring_all();
        Ok(())
    }

    /// Applies the changes that do not follow from loops reading the settings: all of them, or none.
    fn apply_all(
        &self,
        settings: &Settings,
        previous: &Settings,
        changed: &[&'static str],
    ) -> Result<(), SetError> {
        for (done, &name) in changed.iter().enumerate() {
            if let Err(error) = self.apply(settings, name) {
                // The old values were possible before, so that this should not fail; if it does, the log reports it.
                for &name in changed[..done].iter().rev() {
                    if let Err(error) = self.apply(previous, name) {
                        self.log
                            .warning(format_args!("'{name}' could not be set back: {error}"));
                    }
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Switches the append-only file on or off.
    fn switch_append_only(&self, settings: &Settings) -> Result<(), SetError> {
        match (settings.appendonly, self.append_only.status().phase) {
            (true, Phase::Off) => self
                .append_only
                .turn_on(settings, &self.log)
                .map_err(|_| SetError::failed("appendonly", "Unable to turn on AOF. Check server logs.")),
            (false, Phase::First | Phase::On) => {
                self.reporting(settings, |reporter| self.append_only.turn_off(reporter));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Sets whether the allocator returns unused memory in the background.
    pub(crate) fn purge_in_background(&self, settings: &Settings) {
        let wanted = settings.jemalloc_bg_thread;
        if !shardis_storage::memory::purge_in_background(wanted) && wanted {
            self.log.warning(format_args!(
                "The allocator has no background thread: 'jemalloc-bg-thread' changes nothing"
            ));
        }
    }

    fn apply(&self, settings: &Settings, name: &'static str) -> Result<(), SetError> {
        let is_of_process =
            crate::config::find(name.as_bytes()).is_some_and(|row| row.is(DirectiveFlags::PROCESS));
        match (&self.daemon, name) {
            (_, "jemalloc-bg-thread") => self.purge_in_background(settings),
            (_, "appendonly") => self.switch_append_only(settings)?,
            (_, "appendfsync" | "aof-timestamp-enabled") => self
                .journal
                .aof
                .configure(settings.appendfsync, settings.aof_timestamp_enabled),
            (_, "loglevel") => self.log.set_level(Level::from(settings.loglevel)),
            // An embedded node uses absolute paths; the working directory belongs to the embedding program.
            (Some(_), "dir") => std::env::set_current_dir(settings.dir.path())
                .map_err(|error| SetError::failed(name, format!("{error}")))?,
            (_, "port" | "bind") => self.rebind(settings, name)?,
            (Some(daemon), _) => daemon.apply(name, settings, &self.log)?,
            (None, _) if is_of_process => {
                return Err(SetError::failed(
                    name,
                    "it acts on the process, which belongs to another program here",
                ));
            }
            (None, _) => {}
        }
        Ok(())
    }

    /// Sets the function that listens on other addresses; once, at start.
    pub(crate) fn connect_rebinder(
        &self,
        rebind: impl Fn(&Settings, &Log) -> std::io::Result<Addresses> + Send + Sync + 'static,
    ) {
        let _ = self.rebinder.set(Box::new(rebind));
    }

    /// Listens on the addresses in the settings, unless it does so already.
    fn rebind(&self, settings: &Settings, name: &'static str) -> Result<(), SetError> {
        let Some(rebind) = self.rebinder.get() else {
            return Ok(());
        };
        let supervisor = self.daemon.as_ref().map(|daemon| daemon.supervisor);
        if let Some(supervisor) = supervisor {
            supervisor.tell_reloading(&self.log);
        }
        let bound = rebind(settings, &self.log);
        if let Some(supervisor) = supervisor {
            supervisor.tell_ready("Ready to accept connections", &self.log);
        }
        let Ok(addresses) = bound else {
            let reason = match name {
                "port" => "Unable to listen on this port. Check server logs.",
                _ => "Failed to bind to specified addresses.",
            };
            return Err(SetError::failed(name, reason));
        };
        self.addresses.store(Arc::new(addresses));
        self.daemon
            .as_ref()
            .map_or(Ok(()), |daemon| daemon.apply(name, settings, &self.log))
    }

    /// Stops the node, in the manner that a signal or a command asks for: at once, or when its data is saved. Then the number of
    /// that job is returned.
    ///
    /// # Errors
    /// When the data is to be saved first, which cannot be begun: then the node goes on.
    pub(crate) fn end(&self, options: ShutdownOptions) -> Result<Option<u64>, CannotSave> {
        if self.loading.is_under_way() {
            self.log.warning(format_args!(
                "Received shutdown signal during loading, exiting now."
            ));
            self.shutdown.request();
            self.ring_all();
            return Ok(None);
        }
        self.log.notice(format_args!("User requested shutdown..."));
        if self.append_only.status().is_first_base_missing() {
            if !options.force {
                self.log.warning(format_args!("Writing initial AOF, can't exit"));
                return Err(CannotSave);
            }
            self.log
                .warning(format_args!("Writing initial AOF. Exit anyway."));
        }
        let settings = self.settings.load();
        if options.nosave || !options.save && settings.save.0.is_empty() {
            self.shutdown.request();
            self.ring_all();
            return Ok(None);
        }
        self.persistence.unschedule();
        self.persistence.give_up(|purpose| !purpose.is_shutdown());
        self.log
            .notice(format_args!("Saving the final RDB snapshot before exiting."));
        let insists = options.force;
        let requested = self.shutdown.flag();
        let mut job = Job::dump(Purpose::Shutdown { insists }, &settings);
        job.at_end = Some(Box::new(move |outcome| {
            if outcome.is_ok() || insists && !matches!(outcome, Err(SaveError::GivenUp)) {
                requested.store(true, Ordering::Release);
            }
        }));
        match self.persistence.begin(job, self.clock.now_us()) {
            Ok(number) => Ok(Some(number)),
            Err(refused) if refused.by.is_shutdown() => Ok(Some(refused.number)),
            Err(_) => Err(CannotSave),
        }
    }

    /// Ends a stop that waits until data is saved; false when there is none.
    pub(crate) fn go_on(&self) -> bool {
        let is_ended = self.persistence.give_up(Purpose::is_shutdown);
        if is_ended {
            self.log.notice(format_args!("Shutdown manually aborted."));
        }
        is_ended
    }

    /// Whether the node stops, at once or when its data is saved.
    pub(crate) fn is_ending(&self) -> bool {
        self.shutdown.is_requested() || self.persistence.purpose().is_some_and(Purpose::is_shutdown)
    }

    /// Whether the data was saved for the last time by the job of this number, so that it must not change any more.
    #[inline]
    pub(crate) fn is_sealed(&self, seal: u64) -> bool {
        seal != 0 && self.persistence.sealed_by() == seal
    }

    /// The reason for which commands that change data are refused, if they are.
    #[inline]
    pub(crate) fn denial(&self, settings: &Settings) -> Option<Denial> {
        let cannot_save = self.persistence.has_failed()
            && settings.stop_writes_on_bgsave_error
            && !settings.save.0.is_empty();
        if cannot_save {
            return Some(Denial::Snapshot);
        }
        self.journal.aof.error().map(Denial::AppendOnly)
    }

    /// Stops the node after a fault that it must not outlive: the program ends with an error.
    pub(crate) fn fail(&self) {
        self.shutdown.has_failed.store(true, Ordering::Release);
        self.shutdown.request();
        self.ring_all();
    }

    /// Whether a fault has ended the node.
    pub(crate) fn has_failed(&self) -> bool {
        self.shutdown.has_failed.load(Ordering::Acquire)
    }

    /// Resets the counters of all loops (CONFIG RESETSTAT).
    pub(crate) fn reset_stats(&self) {
        self.stats.iter().for_each(LoopStats::reset);
        self.denied_logins.store(0, Ordering::Relaxed);
    }

    /// Calls `act` with the parts of the node that writing the append-only file reports to.
    #[inline]
    pub(crate) fn reporting<R>(&self, settings: &Settings, act: impl FnOnce(&Reporter<'_>) -> R) -> R {
        let note = |event, us| self.note_latency(settings, event, us);
        act(&Reporter {
            log: &self.log,
            note: &note,
        })
    }

    /// Reports an event that took `us` microseconds to the latency monitor, if it exceeds the threshold.
    #[inline]
    pub(crate) fn note_latency(&self, settings: &Settings, event: &'static str, us: u64) {
        let threshold_ms = settings.latency_monitor_threshold;
        if threshold_ms > 0 && us / 1000 >= threshold_ms {
            let now_s = self.clock.now_us() / 1_000_000;
            self.latency.lock().add(event, now_s, us / 1000);
        }
    }

    /// A feed for a channel that a reader in this process has.
    pub(crate) fn feed<T: Weighed>(
        &mut self,
        name: &'static str,
        sender: Sender<T>,
        slow: SlowListener,
    ) -> Feed<T> {
        let state = self.feed_state(name, slow);
        Feed::new(sender, state)
    }

    /// The state of a channel that a reader in this process has.
    pub(crate) fn feed_state(&mut self, name: &'static str, slow: SlowListener) -> Arc<FeedState> {
        let state = Arc::new(FeedState::new(slow, self.shutdown.flag()));
        self.feeds.push((name, Arc::clone(&state)));
        state
    }

    /// A client id that was never used before.
    pub(crate) fn next_client_id(&self) -> u64 {
        self.next_client_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Sets the function that wakes a loop; once, at start.
    pub(crate) fn connect_bells(&self, ring: impl Fn(usize) + Send + Sync + 'static) {
        let ring: Arc<dyn Fn(usize) + Send + Sync> = Arc::new(ring);
        self.pubsub.connect_bells(Arc::clone(&ring));
        let _ = self.bells.set(ring);
    }

    /// Bytes of data and of clients' buffers, which are known at any moment.
    pub(crate) fn known_bytes(&self) -> i64 {
        let data: u64 = self.memory.iter().map(Counter::get).sum();
        let clients: u64 = self.stats.iter().map(|stats| stats.client_bytes.get()).sum();
        (data + clients).cast_signed()
    }

    /// Changes to the data so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.iter().map(Counter::get).sum()
    }

    /// Bytes by which the node exceeds `maxmemory`.
    #[inline]
    pub(crate) fn excess_bytes(&self) -> u64 {
        match self.memory_limit.load(Ordering::Relaxed) {
            0 => 0,
            limit => {
                let counted = self.other_bytes.load(Ordering::Relaxed) + self.known_bytes();
                u64::try_from(counted - limit.cast_signed()).unwrap_or(0)
            }
        }
    }

    /// The shard to evict from next: each as often as its part of the memory is large, whichever loop evicts.
    ///
    /// Mostly the excess is a fraction of a key, so that the first shard asked gives all of it. If that were always the loop's
    /// own, clients of one loop would empty its shard of all that they store there.
    pub(crate) fn shard_to_evict_from(&self) -> usize {
        /// The golden ratio, as a part of 2³²: multiples of it are spread evenly, at any number.
        const STEP: u32 = 0x9e37_79b9;
        let place = self.evict_place.fetch_add(STEP, Ordering::Relaxed);
        let all: u64 = self.memory.iter().map(Counter::get).sum();
        let mut left = ((u128::from(all) * u128::from(place)) >> 32) as u64;
        for (shard, memory) in self.memory.iter().enumerate() {
            match left.checked_sub(memory.get()) {
                Some(rest) => left = rest,
                None => return shard,
            }
        }
        // Other loops change the figures meanwhile.
        0
    }

    /// Makes all loops and the control thread look at the changed state of the node: wakes those that sleep, and
    /// keeps those that are about to sleep from doing so.
    pub(crate) fn ring_all(&self) {
        self.news.fetch_add(1, Ordering::SeqCst);
        self.control_bell.notify_one();
        if let Some(ring) = self.bells.get() {
            (0..self.shards).for_each(|of_loop| ring(of_loop));
        }
    }

    /// Number of changes announced so far. A loop reads it before the clock and the settings, and does not sleep when
    /// it has grown since.
    #[inline]
    pub(crate) fn news(&self) -> u64 {
        self.news.load(Ordering::SeqCst)
    }

    /// The snapshot file that the directives name, unless it is known not to exist: one that cannot be looked at must not be
    /// taken for none.
    pub(crate) fn saved_file(&self) -> Option<PathBuf> {
        Some(self.settings.load().dump_path()).filter(|path| !matches!(path.try_exists(), Ok(false)))
    }

    /// The arrangement of the data of one shard.
    pub(crate) fn keyspace_options(&self) -> KeyspaceOptions {
        let settings = self.settings.load();
        KeyspaceOptions {
            databases: settings.databases as usize,
            layout: if settings.cluster_enabled {
                Layout::PerSlot
            } else {
                Layout::Single
            },
            hasher: self.hashing.hasher(),
            slot_of: |key| shardis_cluster::slot::slot_of(key).number(),
        }
    }

    /// The TCP port that clients connect to; 0 when there is none.
    pub(crate) fn port(&self) -> u16 {
        let addresses = self.addresses.load();
        addresses.tcp.first().map_or(0, |address| address.port())
    }
}

/// Names for a run of a node, which the log tells from now on.
fn ids_of_run(seed: Seed, started_us: i64, log: &Log) -> Ids {
    // A random seed makes the ids of each run different in any case.
    let ids = Ids::new(seed.number, if seed.is_chosen { 0 } else { started_us });
    log.name(ids.run());
    ids
}

/// The hub of a node that nobody has subscribed to yet.
fn hub(shards: usize, seed: Seed, settings: &Settings) -> Arc<Hub> {
    let hub = Hub::new(shards, seed.number);
    hub.choose_events(settings.notify_keyspace_events);
    Arc::new(hub)
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("shards", &self.shards)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// State of CLIENT PAUSE: its end, and the commands it holds back.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    until_ms: AtomicI64,
    mode: AtomicU8,
}

/// Commands that a pause holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PauseMode {
    /// Writes, and commands that may replicate.
    Write,
    /// All commands.
    All,
}

impl Pause {
    /// Begins a pause, or extends one: the later end and the stricter mode win.
    pub(crate) fn begin(&self, mode: PauseMode, until_ms: i64, now_ms: i64) {
        let running = self.active(now_ms);
        let mode = running.map_or(mode, |(running, _)| running.max(mode));
        let until_ms = running.map_or(until_ms, |(_, running)| running.max(until_ms));
        self.mode.store(mode as u8, Ordering::Release);
        self.until_ms.store(until_ms, Ordering::Release);
    }

    /// Ends the pause.
    pub(crate) fn end(&self) {
        self.until_ms.store(0, Ordering::Release);
    }

    /// The running pause: its mode and its end in Unix milliseconds.
    #[inline]
    pub(crate) fn active(&self, now_ms: i64) -> Option<(PauseMode, i64)> {
        let until_ms = self.until_ms.load(Ordering::Acquire);
        if until_ms <= now_ms {
            return None;
        }
        let all = self.mode.load(Ordering::Acquire) == PauseMode::All as u8;
        Some((if all { PauseMode::All } else { PauseMode::Write }, until_ms))
    }
}

/// State of a running node that DEBUG changes, for tests.
#[derive(Debug, Default)]
pub(crate) struct Debugging {
    /// End of a stall of all loops, nanoseconds of the node's clock; 0 without one.
    stall_until_ns: AtomicU64,
    /// Expired keys are removed only by look-ups.
    pub(crate) lazy_expiry_only: AtomicBool,
    /// Periodic work is suspended.
    pub(crate) cron_paused: AtomicBool,
    /// Output buffers of idle connections are kept.
    pub(crate) buffers_kept: AtomicBool,
    /// Time for which the peak of an output buffer is kept, milliseconds; 0 for the default.
    peak_ms: AtomicI64,
}

/// Default time for which the peak of an output buffer is kept, milliseconds.
const PEAK_MS: i64 = 5000;

impl Debugging {
    /// Stalls all loops until then, nanoseconds of the node's clock.
    pub(crate) fn stall(&self, until_ns: u64) {
        self.stall_until_ns.fetch_max(until_ns, Ordering::AcqRel);
    }

    /// Time for which the peak of an output buffer is kept, milliseconds.
    pub(crate) fn peak_ms(&self) -> i64 {
        match self.peak_ms.load(Ordering::Relaxed) {
            0 => PEAK_MS,
            ms => ms,
        }
    }

    /// Sets that time; 0 for the default.
    pub(crate) fn set_peak_ms(&self, ms: i64) {
        self.peak_ms.store(ms, Ordering::Relaxed);
    }

    /// Duration for which a loop has to stall now; `None` without a stall.
    #[inline]
    pub(crate) fn stalled(&self, now_ns: impl FnOnce() -> u64) -> Option<Duration> {
        match self.stall_until_ns.load(Ordering::Acquire) {
            0 => None,
            until_ns => until_ns
                .checked_sub(now_ns())
                .filter(|&left| left > 0)
                .map(Duration::from_nanos),
        }
    }
}

/// The request to stop the node.
#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    requested: Arc<AtomicBool>,
    /// A fault has ended the node.
    has_failed: AtomicBool,
}

impl Shutdown {
    /// The flag that is set by the request.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.requested)
    }

    /// Requests the stop of the node. The loops notice it in their next turn.
    pub(crate) fn request(&self) {
        self.requested.store(true, Ordering::Release);
    }

    /// Whether the node is to stop.
    #[inline]
    pub(crate) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_only_ever_extended() {
        let pause = Pause::default();
        assert_eq!(pause.active(10), None);
        pause.begin(PauseMode::All, 100, 10);
        pause.begin(PauseMode::Write, 50, 20);
        assert_eq!(pause.active(60), Some((PauseMode::All, 100)));
        assert_eq!(pause.active(100), None);
        pause.begin(PauseMode::Write, 200, 150);
        assert_eq!(pause.active(160), Some((PauseMode::Write, 200)));
        pause.end();
        assert_eq!(pause.active(160), None);
    }
}
