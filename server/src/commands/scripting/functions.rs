//! FUNCTION: the libraries of functions of the node.
//!
//! What changes libraries holds all partitions, so that the change has one place among all effects, and lies before or behind the cut of
//! a snapshot as a whole.

use std::sync::Arc;

use shardis_protocol::Encoder;
use shardis_storage::glob;

use super::{DOC, SUB, check_flush_mode};
use crate::error::ReplyError;
use crate::exec::arguments::{bad_subcommand, is};
use crate::exec::{CommandResult, Session, View};
use crate::scripting::{Functions, FunctionsError, Library, LoadError, Means, restore_policy, with_local};
use crate::spec::{Arg, Arity, Command, Doc, Flags, Runs};

const FUNCTIONS_DOC: Doc = Doc {
    since: "7.0.0",
    ..DOC
};

/// A subcommand that changes libraries.
const CHANGE: Command = Command {
    flags: SUB.flags.union(Flags::WRITE),
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    ..SUB
};

pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "function",
    arity: Arity::AtLeast(2),
    runs: Runs::Container,
    doc: &Doc {
        complexity: "That of the subcommand",
        summary: "Groups the commands about libraries of functions.",
        ..FUNCTIONS_DOC
    },
    subcommands: &[
        Command {
            name: "delete",
            arity: Arity::Exactly(3),
            runs: Runs::OnSessionAndAllShards(delete),
            doc: &Doc {
                complexity: "O(1)",
                summary: "Deletes a library.",
                args: &[Arg::string("library-name")],
                ..FUNCTIONS_DOC
            },
            ..CHANGE
        },
        Command {
            name: "dump",
            arity: Arity::Exactly(2),
            runs: Runs::OnSession(dump),
            doc: &Doc {
                complexity: "O(N) for N functions",
                summary: "Returns all libraries as one payload.",
                ..FUNCTIONS_DOC
            },
            ..SUB
        },
        Command {
            name: "flush",
            arity: Arity::AtLeast(2),
            runs: Runs::OnSessionAndAllShards(flush),
            doc: &Doc {
                complexity: "O(N) for N functions",
                summary: "Deletes all libraries.",
                args: &[Arg::one_of(
                    "flush-type",
                    &[Arg::flag("async", "ASYNC"), Arg::flag("sync", "SYNC")],
                )
                .optional()],
                ..FUNCTIONS_DOC
            },
            ..CHANGE
        },
        Command {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            runs: Runs::OnSession(help),
            doc: &Doc {
                complexity: "O(1)",
                summary: "Describes the subcommands.",
                ..FUNCTIONS_DOC
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
                summary: "Ends functions that run for long and have written nothing.",
                ..FUNCTIONS_DOC
            },
            ..SUB
        },
        Command {
            name: "list",
            arity: Arity::AtLeast(2),
            tips: &["nondeterministic_output_order"],
            runs: Runs::OnSession(list),
            doc: &Doc {
                complexity: "O(N) for N functions",
                summary: "Lists libraries.",
                args: &[
                    Arg::string("library-name-pattern")
                        .token("LIBRARYNAME")
                        .optional(),
                    Arg::flag("withcode", "WITHCODE").optional(),
                ],
                ..FUNCTIONS_DOC
            },
            ..SUB
        },
        Command {
            name: "load",
            arity: Arity::AtLeast(3),
            flags: CHANGE.flags.union(Flags::DENYOOM).union(Flags::INTERPRETS),
            runs: Runs::OnSessionAndAllShards(load),
            doc: &Doc {
                complexity: "O(1) (considering compilation time is redundant)",
                summary: "Adds a library.",
                args: &[
                    Arg::flag("replace", "REPLACE").optional(),
                    Arg::string("function-code"),
                ],
                ..FUNCTIONS_DOC
            },
            ..CHANGE
        },
        Command {
            name: "restore",
            arity: Arity::AtLeast(3),
            flags: CHANGE.flags.union(Flags::DENYOOM).union(Flags::INTERPRETS),
            runs: Runs::OnSessionAndAllShards(restore),
            doc: &Doc {
                complexity: "O(N) for N functions in the payload",
                summary: "Adds all libraries of a payload.",
                args: &[
                    Arg::string("serialized-value"),
                    Arg::one_of(
                        "policy",
                        &[
                            Arg::flag("flush", "FLUSH"),
                            Arg::flag("append", "APPEND"),
                            Arg::flag("replace", "REPLACE"),
                        ],
                    )
                    .optional(),
                ],
                ..FUNCTIONS_DOC
            },
            ..CHANGE
        },
        Command {
            name: "stats",
            arity: Arity::Exactly(2),
            flags: SUB.flags.union(Flags::ALLOW_BUSY),
            tips: &[
                "nondeterministic_output",
                "request_policy:all_shards",
                "response_policy:special",
            ],
            runs: Runs::OnSession(stats),
            doc: &Doc {
                complexity: "O(1)",
                summary: "Tells which function runs for long, and how many there are.",
                ..FUNCTIONS_DOC
            },
            ..SUB
        },
    ],
    ..Command::BLANK
}];

fn text(error: &FunctionsError) -> ReplyError {
    ReplyError::Text(error.to_string())
}

/// Loads a library into the interpreter of this loop.
fn library_of(session: &Session<'_>, source: &[u8]) -> Result<Library, LoadError> {
    let means = Means {
        clock: &session.node.clock,
        log: &session.node.log,
    };
    with_local(|local| local.load_library(source, means))
}

/// Records a change of the libraries.
fn changed(session: &Session<'_>, keyspace: &mut View<'_>) {
    keyspace.shard(0).door.figures.changes += 1;
    if session.recorder.is_on() {
        session.recorder.unit().repeat(session.client.db, session.args);
    }
}

/// FUNCTION LOAD [REPLACE] function-code
fn load(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    let last = session.args.len() - 1;
    let mut replaces = false;
    for word in session.args.tail(2).iter().take(last - 2) {
        if !is(word, "REPLACE") {
            let line = [b"ERR Unknown option given: ", word].concat();
            return Err(ReplyError::Bytes(line));
        }
        replaces = true;
    }
    let library =
        library_of(session, session.args.at(last)).map_err(|error| ReplyError::Text(error.to_string()))?;
    let name = library.name.clone();
    session
        .node
        .scripts
        .change_functions(|functions| functions.add(library, replaces))
        .map_err(|error| text(&error))?;
    changed(session, keyspace);
    session.reply.bulk(&name);
    Ok(())
}

/// FUNCTION DELETE library-name
fn delete(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    let name = session.args.at(2);
    session
        .node
        .scripts
        .change_functions(|functions| functions.delete(name))
        .map_err(|error| text(&error))?;
    changed(session, keyspace);
    session.reply.ok();
    Ok(())
}

/// FUNCTION FLUSH [ASYNC | SYNC]
fn flush(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    check_flush_mode(session, "ERR FUNCTION FLUSH only supports SYNC|ASYNC option")?;
    session.node.scripts.set_functions(Functions::default());
    changed(session, keyspace);
    session.reply.ok();
    Ok(())
}

/// FUNCTION RESTORE serialized-value [FLUSH | APPEND | REPLACE]
fn restore(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    if session.args.len() > 4 {
        return Err(bad_subcommand(session.args));
    }
    let policy = restore_policy(session.args.get(3)).ok_or(ReplyError::Fixed(
        "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
    ))?;
    let payload = session.args.at(2);
    session
        .node
        .scripts
        .change_functions(|functions| {
            *functions = functions.restored(payload, policy, |source| library_of(session, source))?;
            Ok(())
        })
        .map_err(|error| text(&error))?;
    changed(session, keyspace);
    session.reply.ok();
    Ok(())
}

/// FUNCTION DUMP
fn dump(session: &mut Session<'_>) -> CommandResult {
    let payload = session.node.scripts.functions().functions.dump();
    session.reply.bulk(&payload);
    Ok(())
}

/// FUNCTION KILL
fn kill(session: &mut Session<'_>) -> CommandResult {
    session.node.scripts.long.kill(true)?;
    session.reply.ok();
    Ok(())
}

/// FUNCTION LIST [LIBRARYNAME pattern] [WITHCODE]
fn list(session: &mut Session<'_>) -> CommandResult {
    let (mut pattern, mut with_code) = (None, false);
    let mut words = session.args.tail(2).iter();
    while let Some(word) = words.next() {
        if !with_code && is(word, "WITHCODE") {
            with_code = true;
        } else if pattern.is_none() && is(word, "LIBRARYNAME") {
            pattern = Some(
                words
                    .next()
                    .ok_or(ReplyError::Fixed("ERR library name argument was not given"))?,
            );
        } else {
            return Err(ReplyError::Bytes([b"ERR Unknown argument ", word].concat()));
        }
    }
    let table = session.node.scripts.functions();
    let is_chosen =
        |library: &&Arc<Library>| pattern.is_none_or(|pattern| glob::matches(pattern, &library.name, true));
    let chosen: Vec<_> = table.functions.libraries().filter(is_chosen).collect();
    session.reply.array(chosen.len());
    for library in chosen {
        describe(&mut session.reply, library, with_code);
    }
    Ok(())
}

/// Encodes what FUNCTION LIST tells of a library.
fn describe(reply: &mut Encoder<'_>, library: &Library, with_code: bool) {
    reply.map(3 + usize::from(with_code));
    reply.bulk(b"library_name");
    reply.bulk(&library.name);
    reply.bulk(b"engine");
    reply.bulk(b"LUA");
    reply.bulk(b"functions");
    reply.array(library.functions.len());
    for function in &library.functions {
        reply.map(3);
        reply.bulk(b"name");
        reply.bulk(&function.name);
        reply.bulk(b"description");
        match &function.description {
            Some(description) => reply.bulk(description),
            None => reply.null(),
        }
        reply.bulk(b"flags");
        reply.set(function.flags.names().count());
        function.flags.names().for_each(|name| reply.simple(name));
    }
    if with_code {
        reply.bulk(b"library_code");
        reply.bulk(&library.code);
    }
}

/// FUNCTION STATS
fn stats(session: &mut Session<'_>) -> CommandResult {
    let (node, reply) = (session.node, &mut session.reply);
    reply.map(2);
    reply.bulk(b"running_script");
    match node.scripts.long.first_function() {
        None => reply.null(),
        Some(function) => {
            reply.map(3);
            reply.bulk(b"name");
            reply.bulk(&function.name);
            reply.bulk(b"command");
            reply.array(function.words.len());
            function.words.iter().for_each(|word| reply.bulk(word));
            reply.bulk(b"duration_ms");
            let ns = node.clock.elapsed_ns() - function.began_ns;
            reply.integer((ns / 1_000_000) as i64);
        }
    }
    let stats = node.scripts.functions().functions.stats();
    reply.bulk(b"engines");
    reply.map(1);
    reply.bulk(b"LUA");
    reply.map(2);
    reply.bulk(b"libraries_count");
    reply.integer(stats.libraries as i64);
    reply.bulk(b"functions_count");
    reply.integer(stats.functions as i64);
    Ok(())
}

fn help(session: &mut Session<'_>) -> CommandResult {
    session.help(&[
        "LOAD [REPLACE] <FUNCTION CODE>",
        "    Adds a library; with REPLACE, in the place of the one of its name.",
        "DELETE <LIBRARY NAME>",
        "    Deletes a library.",
        "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
        "    Lists libraries with their functions, and on request with their code.",
        "STATS",
        "    Tells which function runs for long, and how many libraries and functions there are.",
        "KILL",
        "    Ends functions that run for long and have written nothing.",
        "FLUSH [ASYNC|SYNC]",
        "    Deletes all libraries.",
        "DUMP",
        "    Returns all libraries as one payload, for RESTORE.",
        "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
        "    Adds the libraries of a payload: beside those that are here, in the place of those of the same names, or of all.",
    ])
}
