//! The sections of INFO, without those about single commands and errors.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use shardis_storage::memory;

use super::figures::{Figure, Gathered};
use super::line;
use crate::acl::RefusalReason;
use crate::append_only::Phase;
use crate::audit::Audit;
use crate::cluster::Cluster;
use crate::exec::Session;
use crate::machine;
use crate::observe::process;
use crate::observe::stats::{Counter, LoopStats};
use crate::observe::threads::CpuTime;
use crate::pubsub::Topic;
use crate::saving::Purpose;
use crate::state::{Node, PauseCauses, PauseMode, ProcessMemory, REDIS_VERSION, SHARDIS_VERSION, Usage};

/// The sum of a counter over all loops.
fn sum(session: &Session<'_>, pick: fn(&LoopStats) -> &Counter) -> u64 {
    let counters = session.node.stats.iter().map(pick);
    counters.map(Counter::get).sum()
}

/// The largest value of a counter on any loop.
fn largest(session: &Session<'_>, pick: fn(&LoopStats) -> &Counter) -> u64 {
    let counters = session.node.stats.iter().map(pick);
    counters.map(Counter::get).max().unwrap_or(0)
}

pub(super) fn server(text: &mut String, session: &Session<'_>, _: &Gathered) {
    let node = session.node;
    let settings = node.settings.load();
    let uptime_s = (node.clock.now_us() - node.started_us).max(0) / 1_000_000;
    line!(text, "redis_version:{REDIS_VERSION}");
    line!(text, "redis_git_sha1:00000000");
    line!(text, "redis_git_dirty:0");
    line!(text, "redis_build_id:shardis-{SHARDIS_VERSION}");
    line!(text, "shardis_version:{SHARDIS_VERSION}");
    line!(
        text,
        "redis_mode:{}",
        if settings.cluster_enabled {
            "cluster"
        } else {
            "standalone"
        }
    );
    line!(text, "os:{}", process::operating_system());
    line!(text, "arch_bits:{}", usize::BITS);
    line!(text, "monotonic_clock:POSIX clock_gettime");
    line!(
        text,
        "multiplexing_api:{}",
        node.multiplexing.get().unwrap_or(&"none")
    );
    line!(text, "process_id:{}", std::process::id());
    line!(text, "process_supervised:no");
    line!(text, "run_id:{}", node.ids.run());
    line!(text, "tcp_port:{}", node.port());
    line!(text, "server_time_usec:{}", node.clock.now_us());
    line!(text, "uptime_in_seconds:{uptime_s}");
    line!(text, "uptime_in_days:{}", uptime_s / 86_400);
    line!(text, "hz:{}", settings.hz);
    line!(text, "configured_hz:{}", settings.hz);
    line!(
        text,
        "lru_clock:{}",
        shardis_storage::keyspace::eviction::lru::clock(session.now_ms)
    );
    line!(text, "executable:{}", process::executable());
    line!(
        text,
        "config_file:{}",
        node.config
            .lock()
            .file()
            .map_or(String::new(), |path| path.display().to_string())
    );
    line!(text, "io_threads_active:0");
    line!(text, "shards:{}", node.shards);
    listeners(text, node);
}

/// Writes the addresses that the node listens on.
fn listeners(text: &mut String, node: &Node) {
    let addresses = node.addresses.load();
    let mut number = 0;
    for (name, bound) in [("tcp", &addresses.tcp), ("tls", &addresses.tls)] {
        let Some(first) = bound.first() else { continue };
        let mut binds = String::new();
        for address in bound {
            // Writing to a String cannot fail.
            let _ = write!(binds, ",bind={}", address.ip());
        }
        line!(text, "listener{number}:name={name}{binds},port={}", first.port());
        number += 1;
    }
    if let Some(path) = &addresses.unix {
        line!(text, "listener{number}:name=unix,bind={path}");
    }
}

pub(super) fn clients(text: &mut String, session: &Session<'_>, gathered: &Gathered) {
    let node = session.node;
    let replicas = node.replication.replicas.count();
    let clients = node.clients.load(Ordering::Relaxed);
    line!(text, "connected_clients:{}", clients - replicas.min(clients));
    line!(text, "cluster_connections:0");
    line!(text, "maxclients:{}", node.settings.load().maxclients);
    line!(
        text,
        "client_recent_max_input_buffer:{}",
        largest(session, |stats| &stats.input_max)
    );
    line!(
        text,
        "client_recent_max_output_buffer:{}",
        largest(session, |stats| &stats.output_max)
    );
    line!(text, "blocked_clients:{}", sum(session, |stats| &stats.blocked));
    line!(text, "tracking_clients:{}", node.tracking.figures().clients);
    line!(
        text,
        "pubsub_clients:{}",
        sum(session, |stats| &stats.pubsub_clients)
    );
    line!(
        text,
        "clients_in_timeout_table:{}",
        sum(session, |stats| &stats.blocked_in_time)
    );
    line!(
        text,
        "watching_clients:{}",
        sum(session, |stats| &stats.watching_clients)
    );
    line!(text, "total_watched_keys:{}", gathered.sum(Figure::WatchedKeys));
    line!(text, "total_blocking_keys:{}", gathered.sum(Figure::KeysAwaited));
    line!(
        text,
        "total_blocking_keys_on_nokey:{}",
        gathered.sum(Figure::KeysAwaitedGone)
    );
    pause(text, session);
}

/// Writes the state of CLIENT PAUSE.
fn pause(text: &mut String, session: &Session<'_>) {
    let active = session.node.pause.active(session.now_ms);
    let (actions, left_ms) = match active {
        None => ("none", 0),
        Some((PauseMode::Write, until_ms)) => ("write", until_ms - session.now_ms),
        Some((PauseMode::All, until_ms)) => ("all", until_ms - session.now_ms),
    };
    let causes = session.node.pause.causes();
    let reason = match active {
        None => "none",
        Some(_) if causes.contains(PauseCauses::SHUTDOWN) => "shutdown_in_progress",
        Some(_) if causes.contains(PauseCauses::FAILOVER) => "failover_in_progress",
        Some(_) => "client_pause",
    };
    line!(text, "paused_reason:{reason}");
    line!(text, "paused_actions:{actions}");
    line!(text, "paused_timeout_milliseconds:{left_ms}");
}

/// Figures about memory, for INFO and MEMORY STATS.
#[derive(Clone, Copy, Debug)]
pub(in crate::commands) struct MemoryFigures {
    /// Memory in use, and the memory of the process where that is the node's own.
    pub(in crate::commands) usage: Usage,
    /// Bytes in use when the node began to serve.
    pub(in crate::commands) startup: u64,
    /// The most bytes in use that were noticed.
    pub(in crate::commands) peak: u64,
    /// Bytes allocated for keys, values and their tables.
    pub(in crate::commands) dataset: u64,
    /// Bytes allocated for the tables of keys, as part of those.
    pub(in crate::commands) tables: u64,
    /// Bytes allocated for clients' buffers.
    pub(in crate::commands) clients: u64,
}

impl MemoryFigures {
    /// The figures at this moment.
    pub(in crate::commands) fn now(session: &Session<'_>, gathered: &Gathered) -> Self {
        let usage = session.node.measure_memory();
        let tables = gathered
            .databases()
            .map(|database| database.table_bytes + database.volatile_bytes)
            .sum();
        Self {
            usage,
            startup: session.node.started_bytes.load(Ordering::Relaxed),
            peak: session.node.memory_peak(),
            dataset: gathered.sum(Figure::Memory),
            tables,
            clients: sum(session, |stats| &stats.client_bytes),
        }
    }

    /// Bytes in use.
    pub(in crate::commands) fn used(&self) -> u64 {
        self.usage.used
    }

    /// The memory of the process, if it is the node's own.
    pub(in crate::commands) fn process(&self) -> Option<ProcessMemory> {
        self.usage.process
    }

    /// Bytes in use for other things than data.
    pub(in crate::commands) fn overhead(&self) -> u64 {
        self.used().saturating_sub(self.dataset)
    }

    /// Share of the data in the memory allocated since the start, percent.
    pub(in crate::commands) fn dataset_percent(&self) -> f64 {
        percent(self.dataset, self.used().saturating_sub(self.startup))
    }

    /// Memory in use relative to the peak, percent.
    pub(in crate::commands) fn peak_percent(&self) -> f64 {
        percent(self.used(), self.peak)
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    (part as f64 * 100.0 / whole.max(1) as f64).min(100.0)
}

/// Ratio and difference of two figures.
pub(in crate::commands) fn excess(figure: u64, over: u64) -> (f64, i64) {
    (figure as f64 / over.max(1) as f64, figure as i64 - over as i64)
}

pub(super) fn memory(text: &mut String, session: &Session<'_>, gathered: &Gathered) {
    let figures = MemoryFigures::now(session, gathered);
    let machine = machine::memory_bytes();
    // Resident memory and the figures of the allocator belong to the process: an embedded node does not show them as its own.
    let resident = figures.process().map(|process| process.resident);
    for (name, bytes) in [
        ("used_memory", Some(figures.used())),
        ("used_memory_rss", resident),
        ("used_memory_peak", Some(figures.peak)),
    ] {
        let Some(bytes) = bytes else { continue };
        line!(text, "{name}:{bytes}");
        line!(text, "{name}_human:{}", human(bytes));
    }
    line!(text, "used_memory_peak_perc:{:.2}%", figures.peak_percent());
    line!(text, "used_memory_overhead:{}", figures.overhead());
    line!(text, "used_memory_startup:{}", figures.startup);
    line!(text, "used_memory_dataset:{}", figures.dataset);
    line!(text, "used_memory_dataset_perc:{:.2}%", figures.dataset_percent());
    if let Some(ProcessMemory { allocator, .. }) = figures.process() {
        line!(text, "allocator_allocated:{}", allocator.allocated);
        line!(text, "allocator_active:{}", allocator.active);
        line!(text, "allocator_resident:{}", allocator.resident);
    }
    line!(text, "total_system_memory:{machine}");
    line!(text, "total_system_memory_human:{}", human(machine));
    scripts_memory(text, session.node);
    limits_of_memory(text, session, &figures);
    line!(text, "lazyfree_pending_objects:{}", gathered.sum(Figure::Garbage));
    line!(text, "lazyfreed_objects:{}", gathered.sum(Figure::Freed));
}

/// Writes the memory of scripts. Each loop has one interpreter, for scripts and functions, which counts as one for scripts.
fn scripts_memory(text: &mut String, node: &Node) {
    let interpreters = node.stats.iter().map(|stats| stats.interpreter_bytes.get());
    let interpreters: u64 = interpreters.sum();
    let (scripts, libraries) = node.scripts.source_bytes();
    line!(text, "used_memory_lua:{interpreters}");
    line!(text, "used_memory_vm_eval:{interpreters}");
    line!(text, "used_memory_lua_human:{}", human(interpreters));
    line!(text, "used_memory_scripts_eval:{scripts}");
    line!(
        text,
        "number_of_cached_scripts:{}",
        node.scripts.cache_stats().scripts
    );
    let functions = node.scripts.functions().functions.stats();
    line!(text, "number_of_functions:{}", functions.functions);
    line!(text, "number_of_libraries:{}", functions.libraries);
    line!(text, "used_memory_vm_functions:0");
    line!(text, "used_memory_vm_total:{interpreters}");
    line!(text, "used_memory_vm_total_human:{}", human(interpreters));
    line!(text, "used_memory_functions:{libraries}");
    line!(text, "used_memory_scripts:{}", scripts + libraries);
    line!(
        text,
        "used_memory_scripts_human:{}",
        human((scripts + libraries) as u64)
    );
}

/// Writes limits, fragmentation ratios, and the memory of other consumers.
fn limits_of_memory(text: &mut String, session: &Session<'_>, figures: &MemoryFigures) {
    let settings = session.node.settings.load();
    line!(text, "maxmemory:{}", settings.maxmemory.bytes());
    line!(text, "maxmemory_human:{}", human(settings.maxmemory.bytes()));
    line!(text, "maxmemory_policy:{}", settings.maxmemory_policy.policy());
    if let Some(process) = figures.process() {
        excesses(text, &process);
    }
    let aof_buffer = session.node.journal.write_figures().buffered as u64;
    let (backlog, for_links) = session.node.journal.backlog_memory();
    line!(text, "mem_not_counted_for_evict:{}", aof_buffer + for_links);
    line!(text, "mem_replication_backlog:{backlog}");
    line!(text, "mem_total_replication_buffers:{}", backlog + for_links);
    line!(text, "mem_replicas_repl_buffer:0");
    // Links share the memory of the backlog: this is what it keeps for them alone.
    line!(text, "mem_clients_slaves:{for_links}");
    line!(text, "mem_clients_normal:{}", figures.clients);
    let bus = session.node.cluster.as_ref().map_or(0, Cluster::link_bytes);
    line!(text, "mem_cluster_links:{bus}");
    for name in ["slot_import", "slot_export"] {
        line!(text, "mem_cluster_{name}:0");
    }
    line!(text, "mem_aof_buffer:{aof_buffer}");
    // A table grows bucket by bucket, so that there are never two copies of it.
    line!(text, "mem_overhead_db_hashtable_rehashing:0");
    line!(text, "mem_allocator:{}", memory::allocator_name());
    line!(text, "active_defrag_running:0");
}

/// Ratios of memory taken from the system to memory in use, step by step.
fn excesses(text: &mut String, process: &ProcessMemory) {
    let [allocated, active, resident] = [
        process.allocator.allocated,
        process.allocator.active,
        process.allocator.resident,
    ]
    .map(|bytes| bytes as u64);
    for (name, figure, over) in [
        ("allocator_frag", active, allocated),
        ("allocator_rss", resident, active),
        ("rss_overhead", process.resident, resident),
        ("mem_fragmentation", process.resident, allocated),
    ] {
        let (ratio, bytes) = excess(figure, over);
        line!(text, "{name}_ratio:{ratio:.2}");
        line!(text, "{name}_bytes:{bytes}");
    }
}

/// A number of bytes for human readers.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "K", "M", "G", "T", "P"];
    let unit = (bytes.max(1).ilog2() / 10).min(5) as usize;
    if unit == 0 {
        return format!("{bytes}B");
    }
    format!(
        "{:.2}{}",
        bytes as f64 / (1_u64 << (10 * unit)) as f64,
        UNITS[unit]
    )
}

/// Writes the state of persistence.
pub(super) fn persistence(text: &mut String, session: &Session<'_>, gathered: &Gathered) {
    let loading = &session.node.loading;
    line!(text, "loading:{}", u8::from(loading.is_under_way()));
    line!(text, "async_loading:{}", u8::from(loading.is_beside()));
    for name in ["current_cow_peak", "current_cow_size", "current_cow_size_age"] {
        line!(text, "{name}:0");
    }
    line!(text, "current_fork_perc:0.00");
    saving(text, session, gathered);
    line!(text, "rdb_last_load_keys_expired:{}", loading.keys_expired());
    line!(text, "rdb_last_load_keys_loaded:{}", loading.keys_loaded());
    append_only(text, session.node);
    line!(text, "module_fork_in_progress:0");
    line!(text, "module_fork_last_cow_size:0");
    line!(text, "slot_migration_fork_in_progress:0");
    append_only_sizes(text, session.node);
    if let Some(progress) = loading.progress() {
        line!(text, "loading_start_time:{}", progress.started_s);
        line!(text, "loading_total_bytes:{}", progress.bytes_total);
        line!(text, "loading_rdb_used_mem:{}", progress.used_memory);
        line!(text, "loading_loaded_bytes:{}", progress.bytes_loaded);
        line!(text, "loading_loaded_perc:{:.2}", progress.percent());
        let seconds = progress.seconds_left(session.now_ms / 1000);
        line!(text, "loading_eta_seconds:{seconds}");
    }
}

/// Writes the state of the append-only file.
fn append_only(text: &mut String, node: &Node) {
    let (status, written) = (node.append_only.status(), node.journal.write_figures());
    let flag = |is_set: bool| u8::from(is_set);
    let word = |is_bad: bool| if is_bad { "err" } else { "ok" };
    let since_s = |since_us: i64| (node.clock.now_us() - since_us) / 1_000_000;
    line!(text, "aof_enabled:{}", flag(status.phase != Phase::Off));
    line!(
        text,
        "aof_rewrite_in_progress:{}",
        flag(status.rewriting_since_us.is_some())
    );
    line!(text, "aof_rewrite_scheduled:{}", flag(status.is_scheduled));
    line!(text, "aof_last_rewrite_time_sec:{}", status.last_rewrite_s);
    line!(
        text,
        "aof_current_rewrite_time_sec:{}",
        status.rewriting_since_us.map_or(-1, since_s)
    );
    line!(text, "aof_last_bgrewrite_status:{}", word(status.has_failed));
    line!(text, "aof_rewrites:{}", status.rewrites);
    line!(text, "aof_rewrites_consecutive_failures:{}", status.failures);
    line!(text, "aof_last_write_status:{}", word(written.is_failing));
    // Nothing is copied on write.
    line!(text, "aof_last_cow_size:0");
}

/// Writes the sizes of the append-only file, if it is on.
fn append_only_sizes(text: &mut String, node: &Node) {
    let (status, written) = (node.append_only.status(), node.journal.write_figures());
    if status.phase == Phase::Off {
        return;
    }
    line!(text, "aof_current_size:{}", node.append_only.bytes());
    line!(text, "aof_base_size:{}", status.rewritten_bytes);
    line!(text, "aof_pending_rewrite:0");
    line!(text, "aof_buffer_length:{}", written.buffered);
    line!(text, "aof_pending_bio_fsync:{}", u8::from(written.is_syncing));
    line!(text, "aof_delayed_fsync:{}", written.delayed);
}

/// Writes the state of saving.
fn saving(text: &mut String, session: &Session<'_>, gathered: &Gathered) {
    let persistence = &session.node.persistence;
    let now_us = session.node.clock.now_us();
    let (figures, under_way) = (persistence.figures(), persistence.under_way(now_us));
    let is_saving = under_way
        .purpose
        .is_some_and(|purpose| purpose != Purpose::AofBase);
    line!(text, "current_save_keys_processed:{}", under_way.keys_done);
    line!(text, "current_save_keys_total:{}", under_way.keys_all);
    line!(
        text,
        "rdb_changes_since_last_save:{}",
        gathered.sum(Figure::Changes) - persistence.changes_saved()
    );
    line!(text, "rdb_bgsave_in_progress:{}", u8::from(is_saving));
    line!(text, "rdb_last_save_time:{}", persistence.last_save_s());
    let status = if persistence.has_failed() { "err" } else { "ok" };
    line!(text, "rdb_last_bgsave_status:{status}");
    line!(text, "rdb_last_bgsave_time_sec:{}", figures.last_time_s);
    let seconds = if is_saving { under_way.seconds } else { -1 };
    line!(text, "rdb_current_bgsave_time_sec:{seconds}");
    line!(text, "rdb_saves:{}", figures.saves);
    line!(text, "rdb_last_cow_size:{}", figures.last_ahead);
}

pub(super) fn stats(text: &mut String, session: &Session<'_>, gathered: &Gathered) {
    traffic(text, session);
    keys(text, session, gathered);
    for (name, topic) in [
        ("pubsub_channels", Topic::Channel),
        ("pubsub_patterns", Topic::Pattern),
        ("pubsubshard_channels", Topic::ShardChannel),
    ] {
        line!(text, "{name}:{}", session.node.pubsub.count(topic));
    }
    // These features do not exist yet, and so have not been used.
    for name in [
        "latest_fork_usec",
        "total_forks",
        "migrate_cached_sockets",
        "active_defrag_hits",
        "active_defrag_misses",
        "active_defrag_key_hits",
        "active_defrag_key_misses",
        "total_active_defrag_time",
        "current_active_defrag_time",
    ] {
        line!(text, "{name}:0");
    }
    let tracking = session.node.tracking.figures();
    line!(text, "tracking_total_keys:{}", tracking.keys);
    line!(text, "tracking_total_items:{}", tracking.items);
    line!(text, "tracking_total_prefixes:{}", tracking.prefixes);
    line!(
        text,
        "slave_expires_tracked_keys:{}",
        gathered.sum(Figure::OwnVolatile)
    );
    line!(
        text,
        "unexpected_error_replies:{}",
        session.node.replication.divergence.errors.load(Ordering::Relaxed)
    );
    line!(
        text,
        "total_error_replies:{}",
        sum(session, |stats| &stats.errors)
    );
    line!(text, "dump_payload_sanitizations:0");
    work(text, session);
}

/// Writes the numbers of connections, commands and bytes.
fn traffic(text: &mut String, session: &Session<'_>) {
    let sum = |pick| sum(session, pick);
    let kbps = |bytes: u64| bytes as f64 / 1024.0;
    line!(
        text,
        "total_connections_received:{}",
        sum(|stats| &stats.connections)
    );
    line!(text, "total_commands_processed:{}", sum(|stats| &stats.commands));
    line!(
        text,
        "instantaneous_ops_per_sec:{}",
        sum(|stats| &stats.commands_per_second)
    );
    let synced = &session.node.replication.replicas.figures;
    let count = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
    line!(
        text,
        "total_net_input_bytes:{}",
        sum(|stats| &stats.bytes_in) + count(&synced.bytes_in)
    );
    line!(
        text,
        "total_net_output_bytes:{}",
        sum(|stats| &stats.bytes_out) + count(&synced.bytes_out)
    );
    line!(text, "total_net_repl_input_bytes:{}", count(&synced.bytes_in));
    line!(text, "total_net_repl_output_bytes:{}", count(&synced.bytes_out));
    line!(text, "total_net_cluster_slot_import_bytes:0");
    line!(text, "total_net_cluster_slot_export_bytes:0");
    line!(
        text,
        "instantaneous_input_kbps:{:.2}",
        kbps(sum(|stats| &stats.bytes_in_per_second))
    );
    line!(
        text,
        "instantaneous_output_kbps:{:.2}",
        kbps(sum(|stats| &stats.bytes_out_per_second))
    );
    line!(
        text,
        "instantaneous_input_repl_kbps:{:.2}",
        kbps(count(&synced.bytes_in_per_second))
    );
    line!(
        text,
        "instantaneous_output_repl_kbps:{:.2}",
        kbps(count(&synced.bytes_out_per_second))
    );
    line!(text, "rejected_connections:{}", sum(|stats| &stats.rejected));
    line!(text, "sync_full:{}", count(&synced.full));
    line!(text, "sync_partial_ok:{}", count(&synced.partial));
    line!(text, "sync_partial_err:{}", count(&synced.partial_refused));
}

/// Writes the counters about keys.
fn keys(text: &mut String, session: &Session<'_>, gathered: &Gathered) {
    let over_us = largest(session, |stats| &stats.over_memory_us);
    let since_us = largest(session, |stats| &stats.over_memory_since_us);
    let now_us = session.node.clock.now_us() as u64;
    let current_us = if since_us > 0 {
        now_us.saturating_sub(since_us)
    } else {
        0
    };
    line!(text, "expired_keys:{}", gathered.sum(Figure::Expired));
    line!(text, "expired_subkeys:{}", gathered.sum(Figure::ExpiredFields));
    line!(text, "expired_stale_perc:{:.2}", gathered.stale_percent());
    line!(
        text,
        "expired_time_cap_reached_count:{}",
        gathered.sum(Figure::ExpireTimeCaps)
    );
    line!(
        text,
        "expire_cycle_cpu_milliseconds:{}",
        sum(session, |stats| &stats.expire_ns) / 1_000_000
    );
    line!(text, "evicted_keys:{}", gathered.sum(Figure::Evicted));
    line!(
        text,
        "evicted_clients:{}",
        sum(session, |stats| &stats.evicted_clients)
    );
    line!(text, "evicted_scripts:0");
    line!(
        text,
        "total_eviction_exceeded_time:{}",
        (over_us + current_us) / 1000
    );
    line!(text, "current_eviction_exceeded_time:{}", current_us / 1000);
    line!(text, "keyspace_hits:{}", gathered.sum(Figure::Hits));
    line!(text, "keyspace_misses:{}", gathered.sum(Figure::Misses));
}

/// Writes the counters about the work of loops.
fn work(text: &mut String, session: &Session<'_>) {
    let node = session.node;
    let sum = |pick| sum(session, pick);
    line!(text, "total_reads_processed:{}", sum(|stats| &stats.reads));
    line!(text, "total_writes_processed:{}", sum(|stats| &stats.writes));
    // Loops do their own I/O; no other threads do.
    for name in [
        "reads_processed",
        "writes_processed",
        "freed_objects",
        "accept_processed",
        "poll_processed",
        "total_prefetch_batches",
        "total_prefetch_entries",
    ] {
        line!(text, "io_threaded_{name}:0");
    }
    line!(
        text,
        "client_query_buffer_limit_disconnections:{}",
        sum(|stats| &stats.query_limit_closes)
    );
    line!(
        text,
        "client_output_buffer_limit_disconnections:{}",
        sum(|stats| &stats.output_limit_closes)
            + session
                .node
                .replication
                .replicas
                .figures
                .too_slow
                .load(Ordering::Relaxed)
    );
    line!(
        text,
        "reply_buffer_shrinks:{}",
        sum(|stats| &stats.buffer_shrinks)
    );
    line!(
        text,
        "reply_buffer_expands:{}",
        sum(|stats| &stats.buffer_expands)
    );
    line!(text, "eventloop_cycles:{}", sum(|stats| &stats.turns));
    line!(text, "eventloop_duration_sum:{}", sum(|stats| &stats.turn_us));
    line!(
        text,
        "eventloop_duration_cmd_sum:{}",
        sum(|stats| &stats.command_ns) / 1000
    );
    line!(
        text,
        "instantaneous_eventloop_cycles_per_sec:{}",
        sum(|stats| &stats.turns_per_second)
    );
    line!(
        text,
        "instantaneous_eventloop_duration_usec:{}",
        sum(|stats| &stats.turn_average_us) / node.shards.max(1) as u64
    );
    for (what, reason) in [
        ("auth", RefusalReason::Auth),
        ("cmd", RefusalReason::Command),
        ("key", RefusalReason::Key),
        ("channel", RefusalReason::Channel),
        ("tls_cert", RefusalReason::TlsCertificate),
    ] {
        line!(text, "acl_access_denied_{what}:{}", node.acl.refused(reason));
    }
    // No rule is about databases.
    line!(text, "acl_access_denied_db:0");
    audit(text, &node.audit);
}

/// Writes the counters of the audit log.
fn audit(text: &mut String, audit: &Audit) {
    let figures = audit.figures();
    for (name, figure) in [
        ("lines_written", &figures.written),
        ("events_dropped", &figures.dropped),
        ("commands_refused", &figures.refused),
        ("write_errors", &figures.errors),
    ] {
        line!(text, "audit_{name}:{}", figure.load(Ordering::Relaxed));
    }
    line!(text, "audit_lines_waiting:{}", audit.waiting());
    let status = if audit.is_failing() { "err" } else { "ok" };
    line!(text, "audit_last_write_status:{status}");
}

pub(super) fn cpu(text: &mut String, session: &Session<'_>, _: &Gathered) {
    let CpuTime { user_s, system_s } = session.node.cpu_time();
    line!(text, "used_cpu_sys:{system_s:.6}");
    line!(text, "used_cpu_user:{user_s:.6}");
    // The process never forks children.
    line!(text, "used_cpu_sys_children:0.000000");
    line!(text, "used_cpu_user_children:0.000000");
    // The main thread of Redis runs commands and serves sockets; the counterpart here are the loops.
    let loops = session.node.stats.iter();
    let CpuTime { user_s, system_s } = loops.map(|stats| CpuTime::of_thread(stats.thread.get())).sum();
    line!(text, "used_cpu_sys_main_thread:{system_s:.6}");
    line!(text, "used_cpu_user_main_thread:{user_s:.6}");
    let active_us = sum(session, |stats| &stats.turn_us);
    line!(text, "used_active_time_main_thread:{:.6}", active_us as f64 / 1e6);
}

pub(super) fn cluster(text: &mut String, session: &Session<'_>, _: &Gathered) {
    line!(
        text,
        "cluster_enabled:{}",
        u8::from(session.node.settings.load().cluster_enabled)
    );
}

pub(super) fn keyspace(text: &mut String, _: &Session<'_>, gathered: &Gathered) {
    for database in gathered.databases() {
        line!(
            text,
            "db{}:keys={},expires={},avg_ttl={}",
            database.index,
            database.keys,
            database.volatile,
            database.average_ttl_ms
        );
    }
}

/// Writes a line for each shard about its data and its loop.
pub(super) fn shards(text: &mut String, session: &Session<'_>, gathered: &Gathered) {
    for (shard, stats) in session.node.stats.iter().enumerate() {
        line!(
            text,
            "shard{shard}:commands={},loop_commands={},cpu={:.6},keys={},memory={},clients_memory={},inbox={},\
             messages={},turns={},borrowed_batches={},sent_batches={},lends={}",
            gathered.of_shard(shard, Figure::Commands),
            stats.commands.get(),
            process::thread_cpu_ns(stats.thread.get()) as f64 / 1e9,
            gathered.of_shard(shard, Figure::Keys),
            gathered.of_shard(shard, Figure::Memory),
            stats.client_bytes.get(),
            stats.inbox.get(),
            stats.messages.get(),
            stats.turns.get(),
            stats.batches_borrowed.get(),
            stats.batches_sent.get(),
            stats.lends.get()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{excess, human};

    #[test]
    fn sizes_read_well() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (1_572_864, "1.50M"),
            (3 << 30, "3.00G"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn an_excess_may_be_negative() {
        assert_eq!(excess(30, 20), (1.5, 10));
        assert_eq!(excess(10, 20), (0.5, -10));
        assert_eq!(excess(0, 0), (0.0, 0));
    }
}
