//! Commands on whole databases, and TIME.

use std::fmt::Write;

use shardis_protocol::Arguments;

use crate::error::ReplyError;
use crate::exec::arguments::{database_at, int, int32, is};
use crate::exec::{CommandResult, Context, Part, Session};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, Runs};
use crate::state::{REDIS_VERSION, SHARDIS_VERSION};

const FLUSH_TYPE: Arg = Arg::one_of(
    "flush-type",
    &[
        Arg::flag("async", "ASYNC").since("4.0.0"),
        Arg::flag("sync", "SYNC").since("6.2.0"),
    ],
)
.optional();

const FLUSH_HISTORY: &[(&str, &str)] = &[("4.0.0", "The mode `ASYNC`."), ("6.2.0", "The mode `SYNC`.")];
const FLUSH_TIPS: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];

pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "dbsize",
        arity: Arity::Exactly(1),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::KEYSPACE,
        tips: &["request_policy:all_shards", "response_policy:agg_sum"],
        runs: Runs::OnEveryShard(dbsize, merge_sum),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Server,
            complexity: "O(1)",
            summary: "Counts the keys of the selected database.",
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "flushall",
        arity: Arity::AtLeast(1),
        flags: Flags::WRITE,
        acl: Category::KEYSPACE.union(Category::DANGEROUS),
        tips: FLUSH_TIPS,
        runs: Runs::OnAllShards(flushall),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Server,
            complexity: "O(N) for N keys in all databases",
            summary: "Removes every key of every database.",
            history: FLUSH_HISTORY,
            args: &[FLUSH_TYPE],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "flushdb",
        arity: Arity::AtLeast(1),
        flags: Flags::WRITE,
        acl: Category::KEYSPACE.union(Category::DANGEROUS),
        tips: FLUSH_TIPS,
        runs: Runs::OnAllShards(flushdb),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Server,
            complexity: "O(N) for N keys in the database",
            summary: "Removes every key of the selected database.",
            history: FLUSH_HISTORY,
            args: &[FLUSH_TYPE],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "lolwut",
        arity: Arity::AtLeast(1),
        flags: Flags::READONLY.union(Flags::FAST),
        runs: Runs::OnSession(lolwut),
        doc: &Doc {
            since: "5.0.0",
            group: Group::Server,
            summary: "Draws something, and tells the version.",
            args: &[Arg::integer("version").token("VERSION").optional()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "swapdb",
        arity: Arity::Exactly(3),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::KEYSPACE.union(Category::DANGEROUS),
        runs: Runs::OnAllShards(swapdb),
        doc: &Doc {
            since: "4.0.0",
            group: Group::Server,
            complexity: "O(N) for N clients that watch keys or wait for them in one of the databases",
            summary: "Exchanges two databases.",
            args: &[Arg::integer("index1"), Arg::integer("index2")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "time",
        arity: Arity::Exactly(1),
        flags: Flags::LOADING.union(Flags::STALE).union(Flags::FAST),
        tips: &["nondeterministic_output"],
        runs: Runs::OnSession(time),
        doc: &Doc {
            since: "2.6.0",
            group: Group::Server,
            complexity: "O(1)",
            summary: "Tells the server's time.",
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

fn dbsize(ctx: &mut Context<'_>) -> Result<u64, ReplyError> {
    let (db, mut keys) = (usize::from(ctx.keyspace.db), 0);
    ctx.keyspace
        .held()
        .each(|partition| keys += partition.keyspace.database(db).len() as u64);
    Ok(keys)
}

fn merge_sum(session: &mut Session<'_>, parts: &[Part]) -> CommandResult {
    session
        .reply
        .integer(parts.iter().map(|part| part.count).sum::<u64>() as i64);
    Ok(())
}

/// Time at which the memory of flushed databases is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freeing {
    /// Before the reply.
    Now,
    /// In slices, while other commands run.
    Later,
}

impl Freeing {
    fn parse(ctx: &Context<'_>) -> Result<Self, ReplyError> {
        match (ctx.args.len(), ctx.args.get(1)) {
            (1, _) if ctx.keyspace.stamp.lazy_user_flush => Ok(Self::Later),
            (1, _) => Ok(Self::Now),
            (2, Some(word)) if is(word, "ASYNC") => Ok(Self::Later),
            (2, Some(word)) if is(word, "SYNC") => Ok(Self::Now),
            _ => Err(ReplyError::Syntax),
        }
    }
}

fn flushdb(ctx: &mut Context<'_>) -> CommandResult {
    let freeing = Freeing::parse(ctx)?;
    let db = ctx.keyspace.db;
    let removed = flush(ctx, db..db + 1, freeing);
    ctx.effects.changed(removed);
    repeat_as_sent(ctx);
    ctx.reply.ok();
    Ok(())
}

fn flushall(ctx: &mut Context<'_>) -> CommandResult {
    let freeing = Freeing::parse(ctx)?;
    let databases = u16::try_from(ctx.settings.databases).unwrap_or(u16::MAX);
    let removed = flush(ctx, 0..databases, freeing);
    ctx.effects.changed(removed + 1);
    ctx.effects.flushed_all();
    repeat_as_sent(ctx);
    ctx.reply.ok();
    Ok(())
}

/// Empties databases in all partitions, and returns the number of removed keys.
fn flush(ctx: &mut Context<'_>, databases: std::ops::Range<u16>, freeing: Freeing) -> u64 {
    let (mut removed, now_ms) = (0, ctx.now_ms());
    ctx.keyspace.held().each(|partition| {
        for db in databases.clone() {
            removed += partition.flush(db, now_ms, freeing == Freeing::Later);
        }
    });
    removed
}

/// Reports the request itself as the effect, even if the databases were empty here.
fn repeat_as_sent(ctx: &mut Context<'_>) {
    if ctx.effects.is_recording() {
        let words: Vec<&[u8]> = ctx.args.iter().collect();
        ctx.effects.replace(&words);
    }
}

fn swapdb(ctx: &mut Context<'_>) -> CommandResult {
    if ctx.settings.cluster_enabled {
        return Err(ReplyError::Fixed("ERR SWAPDB is not allowed in cluster mode"));
    }
    let index = |arg, error| int32(ctx.args.at(arg)).map_err(|_| ReplyError::Fixed(error));
    let first = index(1, "ERR invalid first DB index")?;
    let second = index(2, "ERR invalid second DB index")?;
    let databases = ctx.settings.databases as usize;
    let (first, second) = (database_at(first, databases)?, database_at(second, databases)?);
    if first != second {
        let now_ms = ctx.now_ms();
        let held = ctx.keyspace.held();
        held.each(|partition| partition.swap(first, second, now_ms));
    }
    ctx.effects.changed(1);
    ctx.reply.ok();
    Ok(())
}

fn time(session: &mut Session<'_>) -> CommandResult {
    let transaction_us = session.client.transaction_us;
    let now_us = transaction_us.unwrap_or_else(|| session.node.clock.now_us());
    session.reply.array(2);
    session.reply.bulk_integer(now_us / 1_000_000);
    session.reply.bulk_integer(now_us % 1_000_000);
    Ok(())
}

/// The most crystals that are drawn.
const CRYSTALS_MAX: usize = 12;

/// Checks that a version, or a dimension of the drawing, is a number.
fn check_drawing(args: Arguments<'_>) -> CommandResult {
    if !args.get(1).is_some_and(|word| is(word, "VERSION")) {
        return Ok(());
    }
    let measures = match args.get(2).map(int).transpose()? {
        Some(5) => 3,
        Some(6) => 2,
        _ => 0,
    };
    args.tail(3)
        .iter()
        .take(measures)
        .try_for_each(|measure| int(measure).map(drop))
}

/// Draws one crystal for each shard. The requested version is read as in Redis, but there is only one drawing.
fn lolwut(session: &mut Session<'_>) -> CommandResult {
    check_drawing(session.args)?;
    let crystals = session.node.shards.min(CRYSTALS_MAX);
    let mut drawing = String::new();
    for row in ["   /\\   ", "  /  \\  ", "  \\  /  ", "   \\/   "] {
        // Writing to a String cannot fail.
        let _ = writeln!(drawing, "{}", row.repeat(crystals).trim_end());
    }
    let _ = writeln!(
        drawing,
        "\nshardis ver. {SHARDIS_VERSION}, Redis ver. {REDIS_VERSION}"
    );
    session.reply.verbatim(*b"txt", drawing.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::{START_MS, Shell};

    #[test]
    fn counts_keys() {
        for shards in [1, 4] {
            let mut shell = Shell::over(shards);
            shell.check(&[("DBSIZE", ":0"), ("MSET a 1 b 2 c 3", "+OK"), ("DBSIZE", ":3")]);
            shell.client.db = 1;
            shell.check(&[("DBSIZE", ":0")]);
        }
    }

    #[test]
    fn flushes_one_database_or_all() {
        for shards in [1, 4] {
            let mut shell = Shell::over(shards);
            shell.run("MSET a 1 b 2 c 3");
            shell.client.db = 1;
            shell.run("MSET a 1 b 2");
            shell.check_effects(&[("FLUSHDB", "+OK", &["FLUSHDB"]), ("DBSIZE", ":0", &[])]);
            shell.client.db = 0;
            shell.check_effects(&[
                ("DBSIZE", ":3", &[]),
                ("flushall async", "+OK", &["flushall async"]),
            ]);
            shell.check_effects(&[("DBSIZE", ":0", &[]), ("FLUSHDB SYNC", "+OK", &["FLUSHDB SYNC"])]);
        }
    }

    #[test]
    fn flushing_counts_what_was_removed() {
        let mut shell = Shell::over(2);
        shell.run("MSET a 1 b 2 c 3");
        assert_eq!(shell.run("FLUSHDB").changes, 3);
        assert_eq!(shell.run("FLUSHDB").changes, 0);
        assert_eq!(shell.run("FLUSHALL").changes, 1);
    }

    #[test]
    fn flushing_frees_at_once_or_later() {
        let mut shell = Shell::new();
        let fill = |shell: &mut Shell| {
            // A small number of keys is freed at once in any case.
            for i in 0..2000 {
                shell.run(&format!("SET key:{i} v"));
            }
        };
        for (line, later) in [
            ("FLUSHDB", false),
            ("FLUSHDB SYNC", false),
            ("FLUSHDB ASYNC", true),
            ("FLUSHALL ASYNC", true),
        ] {
            fill(&mut shell);
            shell.run(line);
            assert_eq!(shell.partition(0).keyspace.pending_release() > 0, later, "{line}");
            shell.run("FLUSHALL SYNC");
        }
        shell.stamp.lazy_user_flush = true;
        fill(&mut shell);
        shell.run("FLUSHDB");
        assert!(shell.partition(0).keyspace.pending_release() > 0);
    }

    #[test]
    fn flushing_is_seen_by_watchers_of_what_was_there() {
        for line in ["FLUSHDB", "FLUSHALL ASYNC"] {
            let mut shell = Shell::over(3);
            shell.run("MSET a 1 b 2");
            let (gone, absent) = (shell.watch("a"), shell.watch("nokey"));
            shell.run(line);
            assert!(gone.is_touched() && !absent.is_touched(), "{line}");
        }
    }

    #[test]
    fn wrong_flushes_change_nothing() {
        let mut shell = Shell::new();
        shell.run("SET a 1");
        shell.check_effects(&[
            ("FLUSHDB FOO", "-ERR syntax error", &[]),
            ("FLUSHALL ASYNC SYNC", "-ERR syntax error", &[]),
            ("DBSIZE", ":1", &[]),
        ]);
    }

    #[test]
    fn swaps_databases() {
        for shards in [1, 3] {
            let mut shell = Shell::over(shards);
            shell.run("MSET a 1 b 2 c 3 d 4");
            shell.check_effects(&[("SWAPDB 0 3", "+OK", &["SWAPDB 0 3"]), ("DBSIZE", ":0", &[])]);
            shell.client.db = 3;
            shell.check_effects(&[
                ("MGET a d", "[\"1\", \"4\"]", &[]),
                ("SWAPDB 3 3", "+OK", &["SWAPDB 3 3"]),
                ("SWAPDB x y", "-ERR invalid first DB index", &[]),
                ("SWAPDB 99 y", "-ERR invalid second DB index", &[]),
                ("SWAPDB 99 0", "-ERR DB index is out of range", &[]),
                ("SWAPDB 0 -1", "-ERR DB index is out of range", &[]),
                ("DBSIZE", ":4", &[]),
            ]);
        }
    }

    #[test]
    fn swapping_is_seen_by_watchers_of_what_goes_or_comes() {
        let mut shell = Shell::new();
        shell.run("MSET here 1 both 1");
        shell.client.db = 1;
        shell.run("MSET there 2 both 2");
        shell.run("SET stale 2 PX 1");
        shell.client.db = 0;
        let [here, there, both] = ["here", "there", "both"].map(|key| shell.watch(key));
        let [stale, neither] = ["stale", "neither"].map(|key| shell.watch(key));
        shell.advance(2);
        shell.run("SWAPDB 1 1");
        assert!(!here.is_touched());
        shell.run("SWAPDB 0 1");
        assert!(here.is_touched() && there.is_touched() && both.is_touched());
        assert!(!stale.is_touched() && !neither.is_touched());
    }

    #[test]
    fn tells_the_time() {
        let mut shell = Shell::new();
        shell.advance(1042);
        let seconds = START_MS / 1000 + 1;
        assert_eq!(shell.run("TIME").reply, format!("[\"{seconds}\", \"42000\"]"));
    }

    #[test]
    fn draws() {
        let mut shell = Shell::over(2);
        let reply = shell.run("LOLWUT VERSION 5 1 2").reply;
        assert!(
            reply.starts_with("\"   /\\\\      /\\\\\\n") && reply.contains("Redis ver. 7.2.4"),
            "{reply}"
        );
        for line in ["LOLWUT VERSION x", "LOLWUT VERSION 5 66 x", "LOLWUT VERSION 6 x"] {
            shell.check(&[(line, "-ERR value is not an integer or out of range")]);
        }
        assert!(shell.run("LOLWUT VERSION 6 20 20 x").reply.contains("ver. 7.2.4"));
        assert!(Shell::new().resp3().run("LOLWUT").reply.starts_with("=txt:"));
    }
}
