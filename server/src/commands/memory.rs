//! MEMORY: the memory of keys and of the node.

use shardis_storage::memory;
use shardis_storage::number::DoubleText;

use super::info::figures::{Figure, Gathered, figures_of_shard};
use super::info::sections::{MemoryFigures, excess};
use crate::error::ReplyError;
use crate::exec::arguments::{Options, int, is};
use crate::exec::{CommandResult, Context, Part, Session};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};
use crate::state::ProcessMemory;

const REPORT: Command = Command {
    arity: Arity::Exactly(2),
    tips: &[
        "nondeterministic_output",
        "request_policy:all_shards",
        "response_policy:special",
    ],
    ..Command::BLANK
};

const REPORT_DOC: Doc = Doc {
    since: "4.0.0",
    group: Group::Server,
    complexity: "Depends on how much memory is in use: may be slow",
    ..Doc::BLANK
};

pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "memory",
    arity: Arity::AtLeast(2),
    runs: Runs::Container,
    doc: &Doc {
        since: "4.0.0",
        group: Group::Server,
        complexity: "Depends on the subcommand",
        summary: "Holds the commands about memory.",
        ..Doc::BLANK
    },
    subcommands: &[
        Command {
            name: "doctor",
            runs: Runs::OnEveryShard(figures_of_shard, doctor),
            doc: &Doc {
                summary: "Says what is odd about the memory, and what might help.",
                complexity: "O(1)",
                ..REPORT_DOC
            },
            ..REPORT
        },
        Command {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            runs: Runs::OnSession(help),
            doc: &Doc {
                since: "4.0.0",
                group: Group::Server,
                complexity: "O(1)",
                summary: "Explains the subcommands.",
                ..Doc::BLANK
            },
            ..Command::BLANK
        },
        Command {
            name: "malloc-stats",
            runs: Runs::OnSession(malloc_stats),
            doc: &Doc {
                summary: "Returns what the allocator tells about itself.",
                ..REPORT_DOC
            },
            ..REPORT
        },
        Command {
            name: "purge",
            tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
            runs: Runs::OnSession(purge),
            doc: &Doc {
                summary: "Gives memory that is not in use back to the system.",
                ..REPORT_DOC
            },
            ..REPORT
        },
        Command {
            name: "stats",
            runs: Runs::OnEveryShard(figures_of_shard, stats),
            doc: &Doc {
                summary: "Returns figures about the memory of the server.",
                complexity: "O(1)",
                ..REPORT_DOC
            },
            ..REPORT
        },
        Command {
            name: "usage",
            arity: Arity::AtLeast(3),
            flags: Flags::READONLY,
            acl: Category::empty(),
            keys: &[KeySpec::at(2).read_only()],
            runs: Runs::OnKeys(usage),
            doc: &Doc {
                since: "4.0.0",
                group: Group::Server,
                complexity: "O(N) for N elements that are sampled",
                summary: "Tells how many bytes a key and its value take.",
                args: &[
                    Arg::key("key", 0),
                    Arg::integer("count").token("SAMPLES").optional(),
                ],
                ..Doc::BLANK
            },
            ..Command::BLANK
        },
    ],
    ..Command::BLANK
}];

/// MEMORY USAGE key [SAMPLES count]
fn usage(ctx: &mut Context<'_>) -> CommandResult {
    let mut options = Options::new(ctx.args, 3);
    while let Some(word) = options.word() {
        if !is(word, "SAMPLES") {
            return Err(ReplyError::Syntax);
        }
        // Nothing is sampled, because every collection knows the bytes that it has allocated.
        if int(options.value()?)? < 0 {
            return Err(ReplyError::Syntax);
        }
    }
    let key = ctx.key(2);
    match ctx.keyspace.stored(&key) {
        Some(entry) => ctx.reply.integer(entry.memory() as i64),
        None => ctx.reply.null(),
    }
    Ok(())
}

/// A figure of MEMORY STATS.
#[derive(Clone, Copy)]
enum Number {
    Bytes(u64),
    Difference(i64),
    Ratio(f64),
}

fn stats(session: &mut Session<'_>, parts: &[Part]) -> CommandResult {
    let gathered = Gathered::decode(parts);
    let figures = MemoryFigures::now(session, &gathered);
    let first = whole_numbers(&figures, session.node.scripts.source_bytes());
    let mut last = relative_numbers(&figures, gathered.sum(Figure::Keys)).to_vec();
    if let Some(process) = figures.process() {
        last.extend(numbers_of_process(&process));
    }
    session
        .reply
        .map(first.len() + last.len() + gathered.databases().count());
    write_numbers(session, &first);
    for database in gathered.databases() {
        session.reply.bulk(format!("db.{}", database.index).as_bytes());
        let tables = [
            ("overhead.hashtable.main", Number::Bytes(database.table_bytes)),
            (
                "overhead.hashtable.expires",
                Number::Bytes(database.volatile_bytes),
            ),
            ("overhead.hashtable.slot-to-keys", Number::Bytes(0)),
        ];
        session.reply.map(tables.len());
        write_numbers(session, &tables);
    }
    write_numbers(session, &last);
    Ok(())
}

/// The bytes in use, by consumer.
fn whole_numbers(
    figures: &MemoryFigures,
    (scripts, libraries): (usize, usize),
) -> [(&'static str, Number); 13] {
    use Number::Bytes;
    [
        ("peak.allocated", Bytes(figures.peak)),
        ("total.allocated", Bytes(figures.used())),
        ("startup.allocated", Bytes(figures.startup)),
        ("replication.backlog", Bytes(0)),
        ("replicas.repl.buffer", Bytes(0)),
        ("clients.slaves", Bytes(0)),
        ("clients.normal", Bytes(figures.clients)),
        ("cluster.links", Bytes(0)),
        ("cluster.slot_import", Bytes(0)),
        ("cluster.slot_export", Bytes(0)),
        ("aof.buffer", Bytes(0)),
        ("lua.caches", Bytes(scripts as u64)),
        ("functions.caches", Bytes(libraries as u64)),
    ]
}

/// The proportions of data and overhead.
fn relative_numbers(figures: &MemoryFigures, keys: u64) -> [(&'static str, Number); 9] {
    use Number::{Bytes, Ratio};
    [
        ("overhead.db.hashtable.lut", Bytes(figures.tables)),
        // A table grows bucket by bucket, so that there are never two copies of it.
        ("overhead.db.hashtable.rehashing", Bytes(0)),
        ("overhead.total", Bytes(figures.overhead())),
        ("db.dict.rehashing.count", Bytes(0)),
        ("keys.count", Bytes(keys)),
        (
            "keys.bytes-per-key",
            Bytes(figures.dataset.checked_div(keys).unwrap_or(0)),
        ),
        ("dataset.bytes", Bytes(figures.dataset)),
        ("dataset.percentage", Ratio(figures.dataset_percent())),
        ("peak.percentage", Ratio(figures.peak_percent())),
    ]
}

/// Ratios of memory taken from the system to memory in use, of a process that is the node's own.
fn numbers_of_process(process: &ProcessMemory) -> [(&'static str, Number); 11] {
    use Number::{Bytes, Difference, Ratio};
    let allocator = process.allocator;
    let [allocated, active, resident] =
        [allocator.allocated, allocator.active, allocator.resident].map(|bytes| bytes as u64);
    let (fragmentation, fragmented) = excess(active, allocated);
    let (retention, retained) = excess(resident, active);
    let (beyond, beyond_bytes) = excess(process.resident, resident);
    let (overall, overall_bytes) = excess(process.resident, allocated);
    [
        ("allocator.allocated", Bytes(allocated)),
        ("allocator.active", Bytes(active)),
        ("allocator.resident", Bytes(resident)),
        ("allocator-fragmentation.ratio", Ratio(fragmentation)),
        ("allocator-fragmentation.bytes", Difference(fragmented)),
        ("allocator-rss.ratio", Ratio(retention)),
        ("allocator-rss.bytes", Difference(retained)),
        ("rss-overhead.ratio", Ratio(beyond)),
        ("rss-overhead.bytes", Difference(beyond_bytes)),
        ("fragmentation", Ratio(overall)),
        ("fragmentation.bytes", Difference(overall_bytes)),
    ]
}

fn write_numbers(session: &mut Session<'_>, numbers: &[(&str, Number)]) {
    for (name, number) in numbers {
        session.reply.bulk(name.as_bytes());
        match *number {
            Number::Bytes(bytes) => session.reply.integer(bytes as i64),
            Number::Difference(bytes) => session.reply.integer(bytes),
            Number::Ratio(ratio) => session.reply.double(DoubleText::new(ratio).as_bytes()),
        }
    }
}

/// Memory below which no diagnosis is made, since most of it belongs to the program itself, bytes.
const TELLING_BYTES: u64 = 5 << 20;

/// Waste below which fragmentation is not reported, bytes.
const WASTE_BYTES: i64 = 10 << 20;

/// Average memory per connection above which it is reported, bytes.
const CLIENT_BYTES: u64 = 200 << 10;

fn doctor(session: &mut Session<'_>, parts: &[Part]) -> CommandResult {
    let gathered = Gathered::decode(parts);
    let figures = MemoryFigures::now(session, &gathered);
    let clients = session.node.clients.load(std::sync::atomic::Ordering::Relaxed) as u64;
    let text = diagnosis(&figures, clients);
    session.reply.verbatim(*b"txt", text.as_bytes());
    Ok(())
}

/// Diagnosis of these figures, for a node with so many clients.
fn diagnosis(figures: &MemoryFigures, clients: u64) -> String {
    if figures.used() < TELLING_BYTES {
        return "There is too little data for a judgement: come back when it has grown.\n".to_owned();
    }
    let complaints = [
        complaints_of_node(figures, clients).to_vec(),
        figures
            .process()
            .map_or_else(Vec::new, |process| complaints_of_process(&process).to_vec()),
    ]
    .concat();
    let found: String = complaints
        .iter()
        .filter(|(applies, _)| *applies)
        .map(|&(_, text)| text)
        .collect();
    if found.is_empty() {
        "Nothing odd was found about the memory of this node.\n".to_owned()
    } else {
        format!("What is odd about the memory of this node:\n\n{found}")
    }
}

/// A condition, and the advice given where it holds.
type Complaint = (bool, &'static str);

/// Complaints about memory that the node itself takes.
fn complaints_of_node(figures: &MemoryFigures, clients: u64) -> [Complaint; 2] {
    [
        (
            figures.peak > figures.used() + figures.used() / 2,
            "- Peak: at some time this node took more than half again as much memory as now. The process may keep what it \
             does not use until MEMORY PURGE, and more may be resident than INFO's used_memory says.\n",
        ),
        (
            figures.clients / clients.max(1) > CLIENT_BYTES,
            "- Clients: their buffers are large on average. Look for clients that read slowly, or send very long pipelines \
             (CLIENT LIST, fields qbuf and obl), and at 'client-output-buffer-limit'.\n",
        ),
    ]
}

/// Complaints about memory that the process takes beyond that.
fn complaints_of_process(process: &ProcessMemory) -> [Complaint; 3] {
    let wasteful = |(ratio, bytes): (f64, i64), limit: f64| ratio > limit && bytes > WASTE_BYTES;
    let allocator = process.allocator;
    let [allocated, active, resident] =
        [allocator.allocated, allocator.active, allocator.resident].map(|bytes| bytes as u64);
    [
        (
            wasteful(excess(active, allocated), 1.4),
            "- Fragmentation: much of the pages in use lies between what is used. Values of very different and changing \
             sizes do that; a restart from a snapshot lays them out afresh.\n",
        ),
        (
            wasteful(excess(resident, active), 1.1),
            "- Retention: the allocator holds pages that nothing lies on. MEMORY PURGE gives them back at once.\n",
        ),
        (
            wasteful(excess(process.resident, resident), 1.1),
            "- Other memory: more is resident than the allocator knows of. What else the process has mapped takes it.\n",
        ),
    ]
}

fn malloc_stats(session: &mut Session<'_>) -> CommandResult {
    session.reply.verbatim(*b"txt", &memory::allocator_report());
    Ok(())
}

fn purge(session: &mut Session<'_>) -> CommandResult {
    memory::purge();
    session.reply.ok();
    Ok(())
}

fn help(session: &mut Session<'_>) -> CommandResult {
    session.help(&[
        "DOCTOR",
        "    What is odd about the memory, and what might help.",
        "MALLOC-STATS",
        "    What the allocator tells about itself.",
        "PURGE",
        "    Give memory that is not in use back to the system.",
        "STATS",
        "    Figures about the memory of the server.",
        "USAGE <key> [SAMPLES <count>]",
        "    Bytes that a key and its value take.",
    ])
}

#[cfg(test)]
mod tests {
    use shardis_storage::memory::AllocatorStats;

    use super::*;
    use crate::commands::testing::Shell;
    use crate::state::Usage;

    #[test]
    fn stats_are_those_of_all_shards() {
        let mut shell = Shell::over(3).resp3();
        shell.run("MSET a 1 b 2 c 3 d 4");
        shell.run("SET e 5 EX 1000");
        let reply = shell.run("MEMORY STATS").reply;
        for field in [
            "{\"peak.allocated\": :",
            "\"keys.count\": :5,",
            "\"db.0\": {\"overhead.hashtable.main\": :",
            "\"dataset.percentage\": ,",
        ] {
            assert!(reply.contains(field), "{field}: {reply}");
        }
        assert!(!reply.contains("\"db.1\""), "{reply}");
    }

    #[test]
    fn the_doctor_sees_what_is_odd() {
        let allocator = AllocatorStats {
            allocated: 100 << 20,
            active: 105 << 20,
            resident: 108 << 20,
            mapped: 120 << 20,
        };
        let of_process = |allocator: AllocatorStats, resident| Usage {
            used: allocator.allocated as u64,
            process: Some(ProcessMemory { allocator, resident }),
        };
        let healthy = MemoryFigures {
            usage: of_process(allocator, 112 << 20),
            startup: 1 << 20,
            peak: 110 << 20,
            dataset: 90 << 20,
            tables: 1 << 20,
            clients: 1 << 20,
        };
        let says = |figures: MemoryFigures, word: &str| diagnosis(&figures, 10).contains(word);
        assert!(says(healthy, "Nothing odd"));
        assert!(says(
            MemoryFigures {
                peak: 200 << 20,
                ..healthy
            },
            "- Peak"
        ));
        assert!(says(
            MemoryFigures {
                usage: of_process(allocator, 200 << 20),
                ..healthy
            },
            "- Other memory"
        ));
        assert!(says(
            MemoryFigures {
                clients: 10 << 20,
                ..healthy
            },
            "- Clients"
        ));
        let with = |allocator| MemoryFigures {
            usage: of_process(allocator, 112 << 20),
            ..healthy
        };
        let loose = AllocatorStats {
            active: 150 << 20,
            resident: 150 << 20,
            ..allocator
        };
        assert!(says(with(loose), "- Fragmentation"));
        let kept = AllocatorStats {
            resident: 150 << 20,
            ..allocator
        };
        assert!(says(with(kept), "- Retention"));
        let small = AllocatorStats {
            allocated: 1 << 20,
            ..allocator
        };
        assert!(says(with(small), "too little data"));
    }

    #[test]
    fn the_allocator_tells_of_itself() {
        let report = Shell::new().run("MEMORY MALLOC-STATS").reply;
        assert_eq!(
            report.contains("jemalloc"),
            cfg!(feature = "jemalloc"),
            "{report}"
        );
        Shell::new().check(&[("MEMORY PURGE", "+OK")]);
    }

    #[test]
    fn usage_of_a_collection_is_exact_however_few_samples_are_allowed() {
        let mut shell = Shell::new();
        for number in 0..2000 {
            let member = format!("{}{number}", "m".repeat(70));
            for line in [
                format!("RPUSH list {member}"),
                format!("SADD set {member}"),
                format!("ZADD zset {number} {member}"),
                format!("HSET hash {member} {number}"),
            ] {
                shell.run(&line);
            }
        }
        for key in ["list", "set", "zset", "hash"] {
            let whole = shell.run(&format!("MEMORY USAGE {key} SAMPLES 0")).reply;
            let bytes: u64 = whole.trim_start_matches(':').parse().unwrap();
            assert!((2000 * 73..2000 * 140).contains(&bytes), "{key}: {bytes}");
            for line in [
                format!("MEMORY USAGE {key}"),
                format!("MEMORY USAGE {key} SAMPLES 1"),
            ] {
                assert_eq!(shell.run(&line).reply, whole, "{line}");
            }
            let counted = shell.entry(key, |entry| entry.memory()).unwrap();
            assert_eq!(counted as u64, bytes, "{key}");
        }
    }

    #[test]
    fn usage_counts_key_and_value() {
        let mut shell = Shell::new();
        shell.run("SET k small");
        shell.run("SET large 0");
        shell.run("SETRANGE large 100000 x");
        let bytes = |shell: &mut Shell, key: &str| {
            let reply = shell.run(&format!("MEMORY USAGE {key}")).reply;
            reply.trim_start_matches(':').parse::<u64>().unwrap()
        };
        assert!((16..64).contains(&bytes(&mut shell, "k")));
        assert!(bytes(&mut shell, "large") > 100_000);
        for (line, reply) in [
            ("MEMORY USAGE none", "nil"),
            ("MEMORY USAGE k SAMPLES 5", ":16"),
            ("MEMORY USAGE k SAMPLES -1", "-ERR syntax error"),
            ("MEMORY USAGE k SAMPLES", "-ERR syntax error"),
            ("MEMORY USAGE k FOO", "-ERR syntax error"),
        ] {
            let got = shell.run(line).reply;
            assert!(
                got == reply || reply.starts_with(':') && got.starts_with(':'),
                "{line}: {got}"
            );
        }
    }
}
