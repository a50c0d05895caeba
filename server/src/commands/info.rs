//! INFO, and the end of the node: SHUTDOWN.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use shardis_storage::memory;

use crate::commands::registry;
use crate::error::ReplyError;
use crate::exec::arguments::is;
use crate::exec::{CommandResult, Context, Part, Session};
use crate::observe::process;
use crate::observe::stats::{CommandStats, Counter, LoopStats};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, Runs};
use crate::state::{Node, REDIS_VERSION, SHARDIS_VERSION};

pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "info",
        arity: Arity::AtLeast(1),
        flags: Flags::LOADING.union(Flags::STALE),
        acl: Category::DANGEROUS,
        tips: &[
            "nondeterministic_output",
            "request_policy:all_shards",
            "response_policy:special",
        ],
        runs: Runs::OnEveryShard(figures_of_shard, merge),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Server,
            complexity: "O(1)",
            summary: "Returns figures about the server, by section.",
            history: &[("7.0.0", "Takes several sections at once.")],
            args: &[Arg::string("section").optional().multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "shutdown",
        arity: Arity::AtLeast(1),
        flags: Flags::ADMIN
            .union(Flags::NOSCRIPT)
            .union(Flags::LOADING)
            .union(Flags::STALE)
            .union(Flags::NO_MULTI)
            .union(Flags::ALLOW_BUSY),
        runs: Runs::OnSession(shutdown),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Server,
            complexity: "O(N) for N keys when the dataset is saved, else O(1)",
            summary: "Ends the server.",
            history: &[("7.0.0", "Knows `NOW`, `FORCE` and `ABORT`.")],
            args: &[
                Arg::one_of(
                    "save-selector",
                    &[Arg::flag("nosave", "NOSAVE"), Arg::flag("save", "SAVE")],
                )
                .optional(),
                Arg::flag("now", "NOW").optional().since("7.0.0"),
                Arg::flag("force", "FORCE").optional().since("7.0.0"),
                Arg::flag("abort", "ABORT").optional().since("7.0.0"),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// What a shard says about itself, as numbers in this order; after them, three for each database.
const SHARD_FIGURES: usize = 9;

/// One shard's figures, encoded.
fn figures_of_shard(ctx: &mut Context<'_>) -> Result<u64, ReplyError> {
    let mut numbers = Vec::new();
    ctx.keyspace.held().each(|partition| {
        let (figures, keyspace) = (&partition.figures, &partition.keyspace);
        numbers.extend([
            figures.hits,
            figures.misses,
            figures.expired,
            figures.evicted,
            figures.changes,
            figures.expire_time_caps,
            keyspace.pending_release() as u64,
            partition.memory_bytes.max(0) as u64,
            keyspace.len() as u64,
        ]);
        for index in 0..keyspace.databases() {
            let database = keyspace.database(index);
            let average_ttl_ms = database.average_ttl_ms().max(0) as u64;
            numbers.extend([
                database.len() as u64,
                database.volatile_len() as u64,
                average_ttl_ms,
            ]);
        }
    });
    for number in numbers {
        ctx.reply.raw(&number.to_le_bytes());
    }
    Ok(1)
}

/// The figures of all shards.
struct Gathered {
    shards: Vec<Vec<u64>>,
}

impl Gathered {
    fn decode(parts: &[Part]) -> Self {
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0, |value, &byte| value << 8 | u64::from(byte))
        };
        Self {
            shards: parts
                .iter()
                .map(|part| part.bytes.chunks_exact(8).map(number).collect())
                .collect(),
        }
    }

    fn sum(&self, figure: usize) -> u64 {
        self.shards.iter().filter_map(|figures| figures.get(figure)).sum()
    }

    /// Keys, volatile keys and their average time to live, of a database over all shards.
    fn database(&self, index: usize) -> (u64, u64, u64) {
        let at = SHARD_FIGURES + index * 3;
        let (keys, volatile) = (self.sum(at), self.sum(at + 1));
        let weighted: u64 = self
            .shards
            .iter()
            .filter_map(|figures| Some(figures.get(at + 1)?.saturating_mul(*figures.get(at + 2)?)))
            .fold(0, u64::saturating_add);
        (keys, volatile, weighted.checked_div(volatile).unwrap_or(0))
    }

    fn databases(&self) -> usize {
        self.shards
            .first()
            .map_or(0, |figures| figures.len().saturating_sub(SHARD_FIGURES) / 3)
    }
}

/// A section of INFO: its name in a request, and what writes it.
struct Section {
    name: &'static str,
    title: &'static str,
    /// Shown without being asked for.
    default: bool,
    write: fn(&mut String, &Session<'_>, &Gathered),
}

const SECTIONS: &[Section] = &[
    Section {
        name: "server",
        title: "Server",
        default: true,
        write: server,
    },
    Section {
        name: "clients",
        title: "Clients",
        default: true,
        write: clients,
    },
    Section {
        name: "memory",
        title: "Memory",
        default: true,
        write: memory,
    },
    Section {
        name: "persistence",
        title: "Persistence",
        default: true,
        write: persistence,
    },
    Section {
        name: "stats",
        title: "Stats",
        default: true,
        write: stats,
    },
    Section {
        name: "replication",
        title: "Replication",
        default: true,
        write: replication,
    },
    Section {
        name: "cpu",
        title: "CPU",
        default: true,
        write: cpu,
    },
    Section {
        name: "commandstats",
        title: "Commandstats",
        default: false,
        write: command_stats,
    },
    Section {
        name: "cluster",
        title: "Cluster",
        default: true,
        write: cluster,
    },
    Section {
        name: "keyspace",
        title: "Keyspace",
        default: true,
        write: keyspace,
    },
    Section {
        name: "shards",
        title: "Shards",
        default: false,
        write: shards,
    },
];

fn merge(session: &mut Session<'_>, parts: &[Part]) -> CommandResult {
    let gathered = Gathered::decode(parts);
    let asked = session.args.tail(1);
    let wanted = |section: &Section| {
        if asked.is_empty() {
            return section.default;
        }
        asked.iter().any(|word| {
            is(word, section.name)
                || (is(word, "DEFAULT") && section.default)
                || is(word, "ALL")
                || is(word, "EVERYTHING")
        })
    };
    let mut text = String::new();
    for section in SECTIONS.iter().filter(|section| wanted(section)) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "# {}\r\n", section.title);
        (section.write)(&mut text, session, &gathered);
    }
    session.reply.verbatim(*b"txt", text.as_bytes());
    Ok(())
}

/// Writes one line of a section.
macro_rules! line {
    ($text:expr, $($format:tt)+) => {{
        let _ = write!($text, $($format)+);
        $text.push_str("\r\n");
    }};
}

fn server(text: &mut String, session: &Session<'_>, _: &Gathered) {
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
    line!(text, "run_id:{}", node.run_id);
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
    line!(text, "shards:{}", node.shards);
}

fn clients(text: &mut String, session: &Session<'_>, _: &Gathered) {
    line!(
        text,
        "connected_clients:{}",
        session.node.clients.load(Ordering::Relaxed)
    );
    line!(text, "maxclients:{}", session.node.settings.load().maxclients);
    line!(text, "blocked_clients:0");
}

fn memory(text: &mut String, session: &Session<'_>, gathered: &Gathered) {
    let settings = session.node.settings.load();
    let allocator = memory::jemalloc_stats();
    let dataset = gathered.sum(7);
    let rss = process::resident_bytes();
    line!(text, "used_memory:{}", allocator.allocated);
    line!(text, "used_memory_human:{}", human(allocator.allocated as u64));
    line!(text, "used_memory_rss:{rss}");
    line!(text, "used_memory_rss_human:{}", human(rss));
    let peak = session.node.note_memory_peak(allocator.allocated as u64);
    line!(text, "used_memory_peak:{peak}");
    line!(text, "used_memory_peak_human:{}", human(peak));
    line!(text, "used_memory_dataset:{dataset}");
    line!(text, "allocator_allocated:{}", allocator.allocated);
    line!(text, "allocator_active:{}", allocator.active);
    line!(text, "allocator_resident:{}", allocator.resident);
    line!(text, "maxmemory:{}", settings.maxmemory);
    line!(text, "maxmemory_human:{}", human(settings.maxmemory));
    line!(text, "maxmemory_policy:{}", settings.maxmemory_policy.policy());
    line!(
        text,
        "mem_fragmentation_ratio:{:.2}",
        rss as f64 / (allocator.allocated as f64).max(1.0)
    );
    line!(text, "mem_allocator:jemalloc-5.3.0");
    line!(text, "lazyfree_pending_objects:{}", gathered.sum(6));
}

/// Bytes as people read them.
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

fn persistence(text: &mut String, _: &Session<'_>, gathered: &Gathered) {
    line!(text, "loading:0");
    line!(text, "async_loading:0");
    line!(text, "rdb_changes_since_last_save:{}", gathered.sum(4));
}

fn stats(text: &mut String, session: &Session<'_>, gathered: &Gathered) {
    let sum = |pick: fn(&LoopStats) -> &Counter| {
        session
            .node
            .stats
            .iter()
            .map(|stats| pick(stats).get())
            .sum::<u64>()
    };
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
    line!(text, "total_net_input_bytes:{}", sum(|stats| &stats.bytes_in));
    line!(text, "total_net_output_bytes:{}", sum(|stats| &stats.bytes_out));
    let kbps = |bytes: u64| bytes as f64 / 1024.0;
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
    line!(text, "rejected_connections:{}", sum(|stats| &stats.rejected));
    line!(text, "expired_keys:{}", gathered.sum(2));
    line!(text, "expired_time_cap_reached_count:{}", gathered.sum(5));
    line!(text, "evicted_keys:{}", gathered.sum(3));
    line!(text, "keyspace_hits:{}", gathered.sum(0));
    line!(text, "keyspace_misses:{}", gathered.sum(1));
    line!(text, "total_forks:0");
    line!(text, "total_error_replies:{}", sum(|stats| &stats.errors));
    line!(
        text,
        "client_query_buffer_limit_disconnections:{}",
        sum(|stats| &stats.query_limit_closes)
    );
    line!(
        text,
        "client_output_buffer_limit_disconnections:{}",
        sum(|stats| &stats.output_limit_closes)
    );
    line!(text, "eventloop_cycles:{}", sum(|stats| &stats.turns));
}

fn replication(text: &mut String, session: &Session<'_>, _: &Gathered) {
    line!(text, "role:master");
    line!(text, "connected_slaves:0");
    line!(text, "master_replid:{}", session.node.run_id);
}

fn cpu(text: &mut String, _: &Session<'_>, _: &Gathered) {
    let (user_s, system_s) = process::cpu_seconds();
    line!(text, "used_cpu_sys:{system_s:.6}");
    line!(text, "used_cpu_user:{user_s:.6}");
}

fn command_stats(text: &mut String, session: &Session<'_>, _: &Gathered) {
    let all = registry()
        .all()
        .iter()
        .flat_map(|known| std::iter::once(*known).chain(&known.subcommands));
    for command in all {
        let sum = |pick: fn(&CommandStats) -> &Counter| -> u64 {
            let stats = session
                .node
                .stats
                .iter()
                .filter_map(|stats| stats.by_command.get(usize::from(command.id)));
            stats.map(|stats| pick(stats).get()).sum()
        };
        let (calls, nanos) = (sum(|stats| &stats.calls), sum(|stats| &stats.nanos));
        let (rejected, failed) = (sum(|stats| &stats.rejected), sum(|stats| &stats.failed));
        if calls + rejected + failed > 0 {
            line!(
                text,
                "cmdstat_{}:calls={calls},usec={},usec_per_call={:.2},rejected_calls={rejected},failed_calls={failed}",
                command.full_name,
                nanos / 1000,
                nanos as f64 / 1000.0 / calls.max(1) as f64
            );
        }
    }
}

fn cluster(text: &mut String, session: &Session<'_>, _: &Gathered) {
    line!(
        text,
        "cluster_enabled:{}",
        u8::from(session.node.settings.load().cluster_enabled)
    );
}

fn keyspace(text: &mut String, _: &Session<'_>, gathered: &Gathered) {
    for index in 0..gathered.databases() {
        let (keys, volatile, average_ttl_ms) = gathered.database(index);
        if keys > 0 {
            line!(
                text,
                "db{index}:keys={keys},expires={volatile},avg_ttl={average_ttl_ms}"
            );
        }
    }
}

fn shards(text: &mut String, session: &Session<'_>, gathered: &Gathered) {
    for (shard, stats) in session.node.stats.iter().enumerate() {
        let figures = gathered.shards.get(shard);
        let figure = |index: usize| {
            figures
                .and_then(|figures| figures.get(index))
                .copied()
                .unwrap_or(0)
        };
        line!(
            text,
            "shard{shard}:commands={},keys={},memory={},turns={},borrowed_batches={},sent_batches={},lends={}",
            stats.commands.get(),
            figure(8),
            figure(7),
            stats.turns.get(),
            stats.batches_borrowed.get(),
            stats.batches_sent.get(),
            stats.lends.get()
        );
    }
}

/// SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE] [ABORT]
fn shutdown(session: &mut Session<'_>) -> CommandResult {
    let (mut save, mut nosave, mut abort, mut other) = (false, false, false, false);
    for word in session.args.tail(1).iter() {
        match () {
            () if is(word, "SAVE") => save = true,
            () if is(word, "NOSAVE") => nosave = true,
            () if is(word, "NOW") || is(word, "FORCE") => other = true,
            () if is(word, "ABORT") => abort = true,
            () => return Err(ReplyError::Syntax),
        }
    }
    if abort && (save || nosave || other) || save && nosave {
        return Err(ReplyError::Syntax);
    }
    if abort {
        // The node ends within the turn that is told to: there is never a shutdown under way that could be stopped.
        return Err(ReplyError::Fixed("ERR No shutdown in progress."));
    }
    if save {
        return Err(ReplyError::Fixed(
            "ERR Errors trying to SHUTDOWN. Check logs. SAVE needs persistence, which this version does not have: use \
             SHUTDOWN NOSAVE",
        ));
    }
    session
        .node
        .log
        .warning(format_args!("User requested shutdown..."));
    end(session.node);
    // Nothing is answered: the client learns from the end of the connection.
    session.client.reply_mode = crate::exec::ReplyMode::Off;
    session.reply.ok();
    Ok(())
}

fn end(node: &Node) {
    node.shutdown.request();
    node.ring_all();
}

#[cfg(test)]
mod tests {
    use super::human;

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
}
