//! The state that all loops of a node share: configuration, clock, counters, and requests that concern all loops.

mod deal;
mod divergence;
mod ending;
mod failover;
mod fence;
mod freeze;
mod ids;
mod loading;
mod pause;
mod renames;
mod usage;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use shardis_storage::key::KeyHasher;
use shardis_storage::keyspace::{KeyspaceOptions, Layout, OwnSlots};

use self::deal::Deal;
pub(crate) use self::ending::Shutdown;
use self::fence::Fence;
use self::freeze::Freeze;
use self::ids::Ids;
use self::loading::Loading;
pub(crate) use self::pause::{Pause, PauseCauses, PauseMode};
pub(crate) use self::renames::{Meaning, Renames};
pub(crate) use self::usage::{ProcessMemory, Usage};
use crate::acl::{AccessControl, UserDefaults};
use crate::append_only::{AppendOnly, Phase};
use crate::audit::{Audit, Entry, Outcome};
use crate::clock::Clock;
use crate::cluster::{Cluster, Doomed, concerns_machine};
use crate::config::{AuditEvents, Config, DirectiveFlags, Primary, Requester, SetError, Settings};
use crate::daemon::Daemon;
use crate::feed::{Feed, FeedState, SlowListener, Weighed};
use crate::hashing::Hashing;
use crate::journal::Journal;
use crate::journal::aof::Reporter;
use crate::journal::backlog::BacklogBounds;
use crate::log::{Level, Log};
use crate::observe::latency::LatencyMonitor;
use crate::observe::monitor::Monitors;
use crate::observe::slowlog::SlowLog;
use crate::observe::stats::{Counter, LoopStats};
use crate::observe::threads::Threads;
use crate::pubsub::Hub;
use crate::replication::Replication;
use crate::saving::Persistence;
use crate::scripting::Scripts;
use crate::tls::{self, Contexts, Tls};
use crate::tracking::Tracking;

/// The Redis version whose behaviour and replies this node has.
pub(crate) const REDIS_VERSION: &str = "7.2.4";

/// This program's own version.
pub(crate) const SHARDIS_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The state of one node.
pub(crate) struct Node {
    /// The clock that all uses of time follow.
    pub(crate) clock: Arc<Clock>,
    /// The log of the node.
    pub(crate) log: Arc<Log>,
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
    /// Makes the node listen on other addresses, when a port or `bind` changes.
    rebinder: OnceLock<Rebinder>,
    /// Contexts of connections over TLS.
    pub(crate) tls: Arc<Tls>,
    /// Names changed by `rename-command`.
    pub(crate) renames: Renames,
    /// Users, and what they were refused.
    pub(crate) acl: AccessControl,
    /// The audit log.
    pub(crate) audit: Audit,
    /// The process, when it is the node's own; none when the node is embedded.
    pub(crate) daemon: Option<Daemon>,
    /// Wakes the control thread.
    pub(crate) control_bell: tokio::sync::Notify,
    /// Wakes the links, when the control thread has woken.
    pub(crate) links_bell: tokio::sync::Notify,
    /// Mechanism by which loops wait for sockets: `epoll` or `io_uring`.
    pub(crate) multiplexing: OnceLock<&'static str>,
    /// State of CLIENT PAUSE.
    pub(crate) pause: Pause,
    /// The fence of the node's own tasks.
    pub(crate) fence: Fence,
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
    /// Id of this run.
    pub(crate) ids: Ids,
    /// Its part in replication.
    pub(crate) replication: Replication,
    /// Its place in a cluster; none when it is not part of one.
    pub(crate) cluster: Option<Cluster>,
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
    /// The slow log.
    pub(crate) slowlog: Mutex<SlowLog>,
    /// Events that held loops up.
    pub(crate) latency: Mutex<LatencyMonitor>,
    /// The loops that carry monitors.
    pub(crate) monitors: Monitors,
    /// Publish and subscribe.
    pub(crate) pubsub: Arc<Hub>,
    /// Scripts and functions.
    pub(crate) scripts: Scripts,
    /// Client-side caching.
    pub(crate) tracking: Arc<Tracking>,
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
    /// Fewer replicas than `min-replicas-to-write` keep up.
    Replicas,
}

/// Function that listens on the TCP addresses in the settings, and returns the addresses bound. After an error, which
/// it logs, the node listens as before.
type Rebinder = Box<dyn Fn(&Settings, &Log) -> std::io::Result<Addresses> + Send + Sync>;

/// Addresses that a node listens on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    /// TCP addresses, with the ports that were really bound.
    pub(crate) tcp: Vec<std::net::SocketAddr>,
    /// TCP addresses for clients over TLS.
    pub(crate) tls: Vec<std::net::SocketAddr>,
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
        (config, acl, clock, log): (Config, AccessControl, Arc<Clock>, Log),
        (shards, commands, seed): (usize, usize, Seed),
    ) -> Self {
        let (settings, started_us) = (ArcSwap::new(config.settings()), clock.now_us());
        let ids = ids_of_run(seed, started_us, &log);
        let append_only = AppendOnly::new(&clock, started_us, REDIS_VERSION);
        Self {
            journal: Arc::clone(append_only.journal()),
            persistence: Arc::clone(append_only.saving()),
            append_only,
            memory_limit: AtomicU64::new(settings.load().maxmemory.bytes()),
            pubsub: hub(shards, seed, &settings.load()),
            tracking: tracking(shards, &settings.load()),
            clock,
            log: Arc::new(log),
            hashing: hashing(shards, seed, &settings.load()),
            shards,
            config: Mutex::new(config),
            settings,
            addresses: ArcSwap::default(),
            rebinder: OnceLock::new(),
            tls: Arc::default(),
            renames: Renames::default(),
            acl,
            audit: Audit::default(),
            daemon: None,
            control_bell: tokio::sync::Notify::new(),
            links_bell: tokio::sync::Notify::new(),
            multiplexing: OnceLock::new(),
            pause: Pause::default(),
            fence: Fence::new(shards),
            loading: Loading::default(),
            shutdown: Shutdown::default(),
            stats: (0..shards).map(|_| LoopStats::new(commands)).collect(),
            threads: Threads::default(),
            memory: counters(shards),
            garbage: counters(shards),
            changes: counters(shards),
            due_sooner: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            memory_peak: AtomicU64::new(0),
            clients: AtomicUsize::new(0),
            replication: Replication::new(ids.fresh(), shards),
            cluster: None,
            ids,
            started_us,
            started_bytes: AtomicU64::new(0),
            other_bytes: AtomicI64::new(0),
            evict_place: AtomicU32::new(0),
            slowlog: Mutex::default(),
            latency: Mutex::default(),
            monitors: Monitors::new(shards),
            scripts: Scripts::default(),
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
        if let Err(error) = self.apply_with_tls(&settings, &previous, &changed) {
            config.revert(previous);
            return Err(error);
        }
        let concerns_cluster = changed.iter().any(|name| concerns_machine(name));
        for name in changed {
            if let Some(notice) = crate::config::find(name.as_bytes()).and_then(crate::config::notice) {
                self.log.warning(format_args!("{notice}"));
            }
        }
        self.pubsub.choose_events(settings.notify_keyspace_events);
        self.tracking.bound_keys(settings.tracking_table_max_keys);
        self.memory_limit
            .store(settings.maxmemory.bytes(), Ordering::Relaxed);
        self.settings.store(Arc::clone(&settings));
        drop(config);
        if concerns_cluster && let Some(cluster) = &self.cluster {
            cluster.reconfigure(&settings);
        }
        self.apply_role_rules();
        self.ring_all();
        Ok(())
    }

    /// Applies the changes like [`apply_all`](Self::apply_all). If they concern TLS, its contexts are made anew before anything else
    /// changes, from all the new values: a certificate and its key are exchanged as a pair.
    fn apply_with_tls(
        &self,
        settings: &Settings,
        previous: &Settings,
        changed: &[&'static str],
    ) -> Result<(), SetError> {
        let Some(name) = changed.iter().find(|name| tls::is_of_contexts(name)) else {
            return self.apply_all(settings, previous, changed);
        };
        let contexts = Contexts::from_settings(settings, &self.clock).map_err(|error| {
            self.log.warning(format_args!("{error}"));
            SetError::failed(*name, "Unable to update TLS configuration. Check server logs.")
        })?;
        let former = self.tls.publish(contexts);
        self.apply_all(settings, previous, changed).inspect_err(|_| {
            self.tls.publish(former);
        })
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
            (_, "requirepass") => self
                .acl
                .set_default_password(settings.requirepass.get(), UserDefaults::from(settings)),
            (_, "appendfsync" | "aof-timestamp-enabled") => self
                .journal
                .aof
                .configure(settings.appendfsync, settings.aof_timestamp_enabled),
            (_, "audit-log" | "audit-events" | "audit-strict") => {
                let configured = self.audit.configure(settings, &self.log);
                configured.map_err(|error| {
                    SetError::failed(name, format!("the audit log cannot be opened: {error}"))
                })?;
            }
            (_, "loglevel") => self.log.set_level(Level::from(settings.loglevel)),
            // An embedded node uses absolute paths; the working directory belongs to the embedding program.
            (Some(_), "dir") => std::env::set_current_dir(settings.dir.path())
                .map_err(|error| SetError::failed(name, format!("{error}")))?,
            (_, "repl-backlog-size" | "client-output-buffer-limit") => {
                self.journal.bound_backlog(BacklogBounds::new(settings));
            }
            (_, "min-replicas-to-write" | "min-replicas-max-lag") => {
                let lag_max_s = settings.min_replicas_max_lag;
                self.replication
                    .replicas
                    .count_healthy(lag_max_s, self.clock.now_us());
            }
            (_, "port" | "tls-port" | "bind") => self.rebind(settings, name)?,
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
                "port" | "tls-port" => "Unable to listen on this port. Check server logs.",
                _ => "Failed to bind to specified addresses.",
            };
            return Err(SetError::failed(name, reason));
        };
        self.addresses.store(Arc::new(addresses));
        self.daemon
            .as_ref()
            .map_or(Ok(()), |daemon| daemon.apply(name, settings, &self.log))
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
        if let Some(error) = self.journal.aof.error() {
            return Some(Denial::AppendOnly(error));
        }
        let replicas_min = settings.min_replicas_to_write;
        let lacks_replicas = replicas_min > 0
            && !self.replication.following.is_replica()
            && settings.min_replicas_max_lag > 0
            && self.replication.replicas.healthy() < replicas_min
            && !self.replication.following.is_replica();
        lacks_replicas.then_some(Denial::Replicas)
    }

    /// Resets the counters of all loops (CONFIG RESETSTAT).
    pub(crate) fn reset_stats(&self) {
        self.stats.iter().for_each(LoopStats::reset);
        self.replication.divergence.errors.store(0, Ordering::Relaxed);
        self.replication.replicas.figures.reset();
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

    /// Has the node follow a primary, or none, from now on: clients notice at once. `resumes` tells whether a primary may find that it
    /// has all that this node has.
    pub(crate) fn follow(&self, primary: Option<Primary>, resumes: bool) {
        let value = primary
            .as_ref()
            .map(|Primary { host, port }| format!("{host} {port}"));
        let mut config = self.config.lock();
        if let Err(error) = config.assign("replicaof", value.unwrap_or_default().as_bytes()) {
            self.log
                .warning(format_args!("'replicaof' cannot show this primary: {error}"));
        }
        self.settings.store(config.settings());
        drop(config);
        self.replication
            .following
            .want(primary, self.clock.now_us(), resumes);
        self.apply_role_rules();
        self.ring_all();
    }

    /// Has the audit log tell of a change of the topology that the node has made by itself.
    pub(crate) fn audit_topology(&self, reason: &str) {
        self.audit.record(AuditEvents::TOPOLOGY, || Entry {
            time_us: self.clock.now_us(),
            event: "topology",
            outcome: Outcome::Done,
            reason: Some(reason.as_bytes().into()),
            object: None,
            actor: None,
            command: Vec::new(),
        });
    }

    /// Applies the rules for clients of a replica, after a change of its role, its link or its directives.
    pub(crate) fn apply_role_rules(&self) {
        let (settings, following) = (self.settings.load(), &self.replication.following);
        following.rule(settings.replica_read_only, settings.replica_serve_stale_data);
        self.log.set_role(following.is_replica());
    }

    /// Has the loop that applies the primary's stream look at what there is for it.
    pub(crate) fn tell_applying_loop(&self) {
        self.replication.following.tell_loop();
        self.ring_applying_loop();
    }

    /// Wakes the loop that applies the primary's stream.
    pub(crate) fn ring_applying_loop(&self) {
        if let Some(ring) = self.bells.get() {
            ring(0);
        }
    }

    /// A client id that was never used before.
    pub(crate) fn next_client_id(&self) -> u64 {
        self.next_client_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Sets the function that wakes a loop; once, at start.
    pub(crate) fn connect_bells(&self, ring: impl Fn(usize) + Send + Sync + 'static) {
        let ring: Arc<dyn Fn(usize) + Send + Sync> = Arc::new(ring);
        self.pubsub.connect_bells(Arc::clone(&ring));
        self.tracking.connect_bells(Arc::clone(&ring));
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

    /// Has all loops and the control thread stand still, as if the process had been stopped, and waits until they do.
    pub(crate) fn freeze(&self) {
        let threads = self.shards + 1;
        self.debug
            .freeze
            .begin(threads, || self.ring_all(), || self.shutdown.is_requested());
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
    pub(crate) fn keyspace_options(&self, shard: usize) -> KeyspaceOptions {
        let settings = self.settings.load();
        KeyspaceOptions {
            databases: settings.databases as usize,
            layout: if settings.cluster_enabled {
                Layout::PerSlot(OwnSlots::of(shard, self.shards))
            } else {
                Layout::Single
            },
            hasher: self.hashing.hasher(),
            slot_of: |key| shardis_cluster::slot::slot_of(key).number(),
        }
    }

    /// Slots that have gone to another node, whose keys the loop of a shard has still to hear of; none outside of a cluster.
    #[inline]
    pub(crate) fn doomed(&self, shard: usize) -> Option<&Doomed> {
        self.cluster.as_ref()?.doomed(shard)
    }

    /// Whether keys of doomed slots may be deleted: not while writes are paused, nor on a replica, whose primary decides.
    pub(crate) fn may_delete_doomed(&self, now_ms: i64) -> bool {
        self.pause.active(now_ms).is_none() && !self.replication.following.leaves_removals()
    }

    /// Whether the node is part of a cluster.
    #[inline]
    pub(crate) fn is_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// The TCP port that clients connect to; that for TLS if there is no other, and 0 when there is none.
    pub(crate) fn port(&self) -> u16 {
        let addresses = self.addresses.load();
        let first = addresses.tcp.first().or(addresses.tls.first());
        first.map_or(0, |address| address.port())
    }

    /// The port that this node tells its primary as that for replicas of its own: the one for TLS, if its links use that.
    pub(crate) fn replication_port(&self) -> u16 {
        let addresses = self.addresses.load();
        match addresses.tls.first() {
            Some(address) if self.settings.load().tls_replication => address.port(),
            _ => self.port(),
        }
    }
}

/// Names for a run of a node, which the log tells from now on.
fn ids_of_run(seed: Seed, started_us: i64, log: &Log) -> Ids {
    // A random seed makes the ids of each run different in any case.
    let ids = Ids::new(seed.number, if seed.is_chosen { 0 } else { started_us });
    log.name(ids.run());
    ids
}

/// The hashing of keys.
fn hashing(shards: usize, seed: Seed, settings: &Settings) -> Hashing {
    Hashing::new(KeyHasher::new(seed.number), shards, settings.cluster_enabled)
}

/// A counter for each shard.
fn counters(shards: usize) -> Vec<Counter> {
    (0..shards).map(|_| Counter::default()).collect()
}

/// The hub of a node that nobody has subscribed to yet.
fn hub(shards: usize, seed: Seed, settings: &Settings) -> Arc<Hub> {
    let hub = Hub::new(shards, seed.number);
    hub.choose_events(settings.notify_keyspace_events);
    Arc::new(hub)
}

fn tracking(shards: usize, settings: &Settings) -> Arc<Tracking> {
    let tracking = Tracking::new(shards);
    tracking.bound_keys(settings.tracking_table_max_keys);
    Arc::new(tracking)
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("shards", &self.shards)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// State of a running node that DEBUG changes, for tests.
#[derive(Debug, Default)]
pub(crate) struct Debugging {
    /// The standstill of all threads that serve.
    pub(crate) freeze: Freeze,
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
