//! Scripts: EVAL, EVALSHA and FCALL, which `dispatch::script` runs, and SCRIPT. Commands on libraries are in `functions.rs`.

pub(crate) mod functions;

use crate::error::ReplyError;
use crate::exec::arguments::is;
use crate::exec::{CommandResult, Session};
use crate::scripting::{Digest, Origin, with_local};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs, ScriptKind};

/// Keys of a script. Its use of them is unknown, so that the most far-reaching one is assumed.
const WRITTEN: &[KeySpec] =
    &[KeySpec::counted(2).read_write().access().update().notes(
        "The use of the keys is not known, so that the most far-reaching one is assumed: RW and UPDATE",
    )];

/// Keys of a script that writes nothing.
const READ: &[KeySpec] = &[KeySpec::counted(2)
    .read_only()
    .access()
    .notes("The use of the keys is not known, so that the most far-reaching one is assumed: RO and ACCESS")];

/// Words behind the script.
const NUMKEYS: Arg = Arg::integer("numkeys");
const KEYS: Arg = Arg::key("key", 0).optional().multiple();
const ARGS: Arg = Arg::string("arg").optional().multiple();

const BY_SOURCE: &[Arg] = &[Arg::string("script"), NUMKEYS, KEYS, ARGS];
const BY_DIGEST: &[Arg] = &[Arg::string("sha1"), NUMKEYS, KEYS, ARGS];
const BY_NAME: &[Arg] = &[Arg::string("function"), NUMKEYS, KEYS, ARGS];

const DOC: Doc = Doc {
    since: "2.6.0",
    group: Group::Scripting,
    complexity: "Depends on the script that is run",
    ..Doc::BLANK
};

/// Flags of all commands that run scripts.
const RUNS_SCRIPT: Flags = Flags::NOSCRIPT
    .union(Flags::SKIP_MONITOR)
    .union(Flags::NO_MANDATORY_KEYS)
    .union(Flags::STALE)
    .union(Flags::INTERPRETS);

/// A command that runs a script, which may write.
const WRITER: Command = Command {
    arity: Arity::AtLeast(3),
    flags: RUNS_SCRIPT.union(Flags::MAY_REPLICATE),
    acl: Category::SCRIPTING,
    keys: WRITTEN,
    ..Command::BLANK
};

/// A command that runs a script, which writes nothing.
const READER: Command = Command {
    flags: RUNS_SCRIPT.union(Flags::READONLY),
    keys: READ,
    ..WRITER
};

pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "eval",
        runs: Runs::Script(ScriptKind::Source),
        doc: &Doc {
            summary: "Runs a script.",
            args: BY_SOURCE,
            ..DOC
        },
        ..WRITER
    },
    Command {
        name: "eval_ro",
        runs: Runs::Script(ScriptKind::Source),
        doc: &Doc {
            since: "7.0.0",
            summary: "Runs a script that writes nothing.",
            args: BY_SOURCE,
            ..DOC
        },
        ..READER
    },
    Command {
        name: "evalsha",
        runs: Runs::Script(ScriptKind::Digest),
        doc: &Doc {
            summary: "Runs a known script by its digest.",
            args: BY_DIGEST,
            ..DOC
        },
        ..WRITER
    },
    Command {
        name: "evalsha_ro",
        runs: Runs::Script(ScriptKind::Digest),
        doc: &Doc {
            since: "7.0.0",
            summary: "Runs a known script by its digest that writes nothing.",
            args: BY_DIGEST,
            ..DOC
        },
        ..READER
    },
    Command {
        name: "fcall",
        runs: Runs::Script(ScriptKind::Function),
        doc: &Doc {
            since: "7.0.0",
            summary: "Calls a function.",
            args: BY_NAME,
            ..DOC
        },
        ..WRITER
    },
    Command {
        name: "fcall_ro",
        runs: Runs::Script(ScriptKind::Function),
        doc: &Doc {
            since: "7.0.0",
            summary: "Calls a function that writes nothing.",
            args: BY_NAME,
            ..DOC
        },
        ..READER
    },
    SCRIPT,
];

/// Common part of the subcommands of SCRIPT.
const SUB: Command = Command {
    flags: Flags::NOSCRIPT,
    acl: Category::SCRIPTING,
    ..Command::BLANK
};

const SCRIPT: Command = Command {
    name: "script",
    arity: Arity::AtLeast(2),
    runs: Runs::Container,
    doc: &Doc {
        complexity: "That of the subcommand",
        summary: "Groups the commands about known scripts.",
        ..DOC
    },
    subcommands: &[
        Command {
            name: "debug",
            arity: Arity::AtLeast(3),
            runs: Runs::OnSession(debug),
            doc: &Doc {
                since: "3.2.0",
                complexity: "O(1)",
                summary: "Answers that there is no debugger.",
                args: &[Arg::one_of(
                    "mode",
                    &[
                        Arg::flag("yes", "YES"),
                        Arg::flag("sync", "SYNC"),
                        Arg::flag("no", "NO"),
                    ],
                )],
                ..DOC
            },
            ..SUB
        },
        Command {
            name: "exists",
            arity: Arity::AtLeast(3),
            flags: SUB.flags.union(Flags::STALE),
            tips: &["request_policy:all_shards", "response_policy:agg_logical_and"],
            runs: Runs::OnSession(exists),
            doc: &Doc {
                complexity: "O(N) for N digests",
                summary: "Tells which scripts are known.",
                args: &[Arg::string("sha1").multiple()],
                ..DOC
            },
            ..SUB
        },
        Command {
            name: "flush",
            arity: Arity::AtLeast(2),
            flags: SUB.flags.union(Flags::STALE).union(Flags::ORDERED),
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            runs: Runs::OnSession(flush),
            doc: &Doc {
                complexity: "O(N) for N known scripts",
                summary: "Forgets all scripts.",
                history: &[("6.2.0", "Knows `ASYNC` and `SYNC`.")],
                args: &[Arg::one_of(
                    "flush-type",
                    &[Arg::flag("async", "ASYNC"), Arg::flag("sync", "SYNC")],
                )
                .since("6.2.0")
                .optional()],
                ..DOC
            },
            ..SUB
        },
        Command {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            runs: Runs::OnSession(help),
            doc: &Doc {
                since: "5.0.0",
                complexity: "O(1)",
                summary: "Describes the subcommands.",
                ..DOC
            },
            ..SUB
        },
        Command {
            name: "kill",
            arity: Arity::Exactly(2),
            flags: SUB.flags.union(Flags::ALLOW_BUSY),
            tips: &["request_policy:all_shards", "response_policy:one_succeeded"],
            runs: Runs::OnSession(kill),
            doc: &Doc {
                complexity: "O(1)",
                summary: "Ends scripts that run for long and have written nothing.",
                ..DOC
            },
            ..SUB
        },
        Command {
            name: "load",
            arity: Arity::Exactly(3),
            flags: SUB
                .flags
                .union(Flags::STALE)
                .union(Flags::ORDERED)
                .union(Flags::INTERPRETS),
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            runs: Runs::OnSession(load),
            doc: &Doc {
                complexity: "O(N) for N bytes of the script",
                summary: "Makes a script known.",
                args: &[Arg::string("script")],
                ..DOC
            },
            ..SUB
        },
        Command {
            name: "show",
            arity: Arity::Exactly(3),
            flags: SUB.flags.union(Flags::STALE),
            runs: Runs::OnSession(show),
            doc: &Doc {
                since: "8.0.0",
                complexity: "O(1)",
                summary: "Shows the source of a known script.",
                args: &[Arg::string("sha1")],
                ..DOC
            },
            ..SUB
        },
    ],
    ..Command::BLANK
};

/// SCRIPT DEBUG mode
fn debug(session: &mut Session<'_>) -> CommandResult {
    let mode = session.args.at(2);
    if ["YES", "SYNC", "NO"].iter().any(|known| is(mode, known)) {
        return Err(ReplyError::Fixed("ERR There is no debugger for scripts"));
    }
    Err(ReplyError::Fixed("ERR Use SCRIPT DEBUG YES/SYNC/NO"))
}

/// SCRIPT EXISTS sha1 [sha1 ...]
fn exists(session: &mut Session<'_>) -> CommandResult {
    let digests = session.args.tail(2);
    session.reply.array(digests.len());
    for digest in digests.iter() {
        session.reply.integer(session.node.scripts.knows(digest).into());
    }
    Ok(())
}

/// SCRIPT FLUSH [ASYNC | SYNC]
fn flush(session: &mut Session<'_>) -> CommandResult {
    check_flush_mode(session, "ERR SCRIPT FLUSH only support SYNC|ASYNC option")?;
    session.node.scripts.forget_all();
    session.reply.ok();
    Ok(())
}

/// Checks that a flush has no argument but one of its two modes, which differ in nothing here: otherwise `error`.
fn check_flush_mode(session: &Session<'_>, error: &'static str) -> CommandResult {
    match (session.args.len(), session.args.get(2)) {
        (2, _) => Ok(()),
        (3, Some(word)) if is(word, "ASYNC") || is(word, "SYNC") => Ok(()),
        _ => Err(ReplyError::Fixed(error)),
    }
}

/// SCRIPT KILL
fn kill(session: &mut Session<'_>) -> CommandResult {
    session.node.scripts.long.kill(false)?;
    session.reply.ok();
    Ok(())
}

/// SCRIPT LOAD script
fn load(session: &mut Session<'_>) -> CommandResult {
    let (scripts, source) = (&session.node.scripts, session.args.at(2));
    let cached = with_local(|local| local.add(scripts, source, Origin::Loaded))
        .map_err(|error| ReplyError::Text(error.to_string()))?;
    session.reply.bulk(cached.script.digest.as_bytes());
    Ok(())
}

/// SCRIPT SHOW sha1
fn show(session: &mut Session<'_>) -> CommandResult {
    let digest = Digest::parse(session.args.at(2));
    let cached = digest.and_then(|digest| session.node.scripts.find(&digest));
    let cached = cached.ok_or(ReplyError::NoScript)?;
    session.reply.bulk(&cached.script.source);
    Ok(())
}

fn help(session: &mut Session<'_>) -> CommandResult {
    session.help(&[
        "DEBUG (YES|SYNC|NO)",
        "    Answers that there is no debugger.",
        "EXISTS <sha1> [<sha1> ...]",
        "    Tells of each digest whether a script with it is known.",
        "FLUSH [ASYNC|SYNC]",
        "    Forgets all scripts.",
        "KILL",
        "    Ends scripts that run for long and have written nothing.",
        "LOAD <script>",
        "    Makes a script known without running it, and returns its digest.",
        "SHOW <sha1>",
        "    Shows the source of a known script.",
    ])
}
