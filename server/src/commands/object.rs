//! OBJECT: properties of a value other than its content.

use shardis_storage::entry::Entry;
use shardis_storage::keyspace::eviction::{lfu, lru};

use crate::error::ReplyError;
use crate::exec::{CommandResult, Context, Session};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, KeySpec, Runs};

const QUESTION: Command = Command {
    arity: Arity::Exactly(3),
    flags: Flags::READONLY,
    acl: Category::KEYSPACE,
    tips: &["nondeterministic_output"],
    keys: &[KeySpec::at(2).read_only()],
    ..Command::BLANK
};

const QUESTION_DOC: Doc = Doc {
    since: "2.2.3",
    complexity: "O(1)",
    args: &[Arg::key("key", 0)],
    ..Doc::BLANK
};

pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "object",
    arity: Arity::AtLeast(2),
    runs: Runs::Container,
    doc: &Doc {
        since: "2.2.3",
        complexity: "That of the subcommand",
        summary: "Groups questions about how a value is stored and used.",
        ..Doc::BLANK
    },
    subcommands: &[
        Command {
            name: "encoding",
            runs: Runs::OnKeys(encoding),
            doc: &Doc {
                summary: "Names the form in which a value is stored.",
                ..QUESTION_DOC
            },
            ..QUESTION
        },
        Command {
            name: "freq",
            runs: Runs::OnKeys(freq),
            doc: &Doc {
                since: "4.0.0",
                summary: "Tells how often a key is used, on a logarithmic scale.",
                ..QUESTION_DOC
            },
            ..QUESTION
        },
        Command {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            acl: Category::KEYSPACE,
            runs: Runs::OnSession(help),
            doc: &Doc {
                since: "6.2.0",
                complexity: "O(1)",
                summary: "Lists the subcommands.",
                ..Doc::BLANK
            },
            ..Command::BLANK
        },
        Command {
            name: "idletime",
            runs: Runs::OnKeys(idletime),
            doc: &Doc {
                summary: "Tells for how many seconds a key has not been used.",
                ..QUESTION_DOC
            },
            ..QUESTION
        },
        Command {
            name: "refcount",
            runs: Runs::OnKeys(refcount),
            doc: &Doc {
                summary: "Tells how many keys share a value.",
                ..QUESTION_DOC
            },
            ..QUESTION
        },
    ],
    ..Command::BLANK
}];

fn encoding(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(2);
    match ctx.keyspace.describe(&key) {
        Some(entry) => ctx.reply.bulk(entry.encoding().name().as_bytes()),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn freq(ctx: &mut Context<'_>) -> CommandResult {
    let now_ms = ctx.now_ms();
    reply_use(ctx, |clock, options| match options {
        Some(options) => Ok(lfu::frequency(clock, now_ms, options).into()),
        None => Err(ReplyError::Fixed(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
             switching between policies at runtime LRU and LFU data will take some time to adjust.",
        )),
    })
}

fn idletime(ctx: &mut Context<'_>) -> CommandResult {
    let now_ms = ctx.now_ms();
    reply_use(ctx, |clock, options| match options {
        None => Ok(lru::idle_seconds(clock, now_ms).into()),
        Some(_) => Err(ReplyError::Fixed(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between \
             policies at runtime LRU and LFU data will take some time to adjust.",
        )),
    })
}

/// Replies with the result of `read`, called with a key's access clock and the options of LFU, if the policy is LFU.
fn reply_use(
    ctx: &mut Context<'_>,
    read: impl FnOnce(u32, Option<lfu::LfuOptions>) -> Result<i64, ReplyError>,
) -> CommandResult {
    let (key, lfu) = (ctx.key(2), ctx.keyspace.stamp.lfu);
    match ctx.keyspace.describe(&key).map(Entry::clock) {
        Some(clock) => ctx.reply.integer(read(clock, lfu)?),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn refcount(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(2);
    match ctx.keyspace.describe(&key) {
        // A value is never shared between keys.
        Some(_) => ctx.reply.integer(1),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn help(session: &mut Session<'_>) -> CommandResult {
    session.help(&[
        "ENCODING <key>",
        "    The form in which the value of the key is stored.",
        "FREQ <key>",
        "    How often the key is used, as the logarithmic counter of an LFU policy.",
        "IDLETIME <key>",
        "    Seconds since the key was last used, under any other policy.",
        "REFCOUNT <key>",
        "    How many keys share the value.",
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::Shell;

    #[test]
    fn names_encodings() {
        let mut shell = Shell::new();
        shell.run("MSET int 12 short abc");
        shell.run_words(&[b"SET", b"long", &[b'x'; 45]]);
        shell.check(&[
            ("OBJECT ENCODING int", "\"int\""),
            ("object encoding short", "\"embstr\""),
            ("OBJECT ENCODING long", "\"raw\""),
            ("OBJECT ENCODING nokey", "nil"),
            ("OBJECT REFCOUNT int", ":1"),
            ("OBJECT REFCOUNT nokey", "nil"),
        ]);
    }

    #[test]
    fn tells_how_long_a_key_was_idle() {
        let mut shell = Shell::new();
        shell.stamp.clock = lru::clock(shell.stamp.now_ms);
        shell.run("SET k v");
        shell.advance(65_999);
        shell.check(&[
            ("OBJECT IDLETIME k", ":65"),
            ("OBJECT IDLETIME nokey", "nil"),
            (
                "OBJECT FREQ k",
                "-ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                 switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ),
            ("OBJECT FREQ nokey", "nil"),
        ]);
    }

    #[test]
    fn what_reads_or_changes_a_collection_is_an_access() {
        let mut shell = Shell::new();
        shell.stamp.clock = lru::clock(shell.stamp.now_ms);
        for line in [
            "RPUSH l 1 2 3",
            "SADD s 1 2 3",
            "ZADD z 1 a 2 b",
            "HSET h f 1 g 2",
        ] {
            shell.run(line);
        }
        for (key, line) in [
            ("l", "LRANGE l 0 -1"),
            ("l", "LPOS l 1"),
            ("l", "LLEN l"),
            ("l", "RPUSH l 4"),
            ("l", "SORT l"),
            ("s", "SMEMBERS s"),
            ("s", "SRANDMEMBER s"),
            ("s", "SINTER s s"),
            ("s", "SSCAN s 0"),
            ("s", "SADD s 9"),
            ("z", "ZRANGE z 0 -1"),
            ("z", "ZSCORE z a"),
            ("z", "ZUNION 1 z"),
            ("z", "ZADD z 3 c"),
            ("h", "HGET h f"),
            ("h", "HGETALL h"),
            ("h", "HSTRLEN h f"),
            ("h", "HINCRBY h f 1"),
            ("h", "HTTL h FIELDS 1 f"),
        ] {
            shell.advance(100_000);
            let idle = shell.run(&format!("OBJECT IDLETIME {key}")).reply;
            assert_ne!(idle, ":0", "before {line}");
            shell.stamp.clock = lru::clock(shell.stamp.now_ms);
            shell.run(line);
            let idle = shell.run(&format!("OBJECT IDLETIME {key}")).reply;
            assert_eq!(idle, ":0", "{line}");
        }
        // A question about a key is no access.
        shell.advance(100_000);
        shell.stamp.clock = lru::clock(shell.stamp.now_ms);
        for question in ["TYPE h", "OBJECT ENCODING h", "MEMORY USAGE h", "TTL h"] {
            shell.run(question);
        }
        shell.check(&[("OBJECT IDLETIME h", ":100")]);
    }

    #[test]
    fn tells_how_often_a_key_is_used() {
        let mut shell = Shell::new();
        shell.stamp.lfu = Some(lfu::LfuOptions::default());
        shell.stamp.clock = lfu::with_frequency(9, shell.stamp.now_ms);
        shell.run("SET k v");
        shell.check(&[
            ("OBJECT FREQ k", ":9"),
            ("OBJECT FREQ nokey", "nil"),
            (
                "OBJECT IDLETIME k",
                "-ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching \
                 between policies at runtime LRU and LFU data will take some time to adjust.",
            ),
        ]);
    }

    #[test]
    fn help_has_the_shape_of_every_help() {
        let reply = Shell::new().run("Object HELP").reply;
        assert!(reply.starts_with(
            "[+OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:, +ENCODING <key>, "
        ));
        assert!(reply.ends_with("+HELP, +    Print this help.]"));
    }
}
