//! CONFIG: reading and changing the running configuration.

use shardis_protocol::Arguments;

use crate::config::{DirectiveFlags, Requester, Scope, find};
use crate::error::ReplyError;
use crate::exec::{CommandResult, Part, Session};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, Runs};

/// The flags of all subcommands but HELP.
const OPERATOR: Flags = Flags::ADMIN
    .union(Flags::NOSCRIPT)
    .union(Flags::LOADING)
    .union(Flags::STALE)
    .union(Flags::ORDERED);

pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "config",
    arity: Arity::AtLeast(2),
    runs: Runs::Container,
    doc: &Doc {
        since: "2.0.0",
        group: Group::Server,
        complexity: "Depends on the subcommand",
        summary: "Holds the commands that read and change the running configuration.",
        ..Doc::BLANK
    },
    subcommands: &[
        Command {
            name: "get",
            arity: Arity::AtLeast(3),
            flags: OPERATOR,
            acl: Category::empty(),
            runs: Runs::OnSession(get),
            doc: &Doc {
                since: "2.0.0",
                group: Group::Server,
                complexity: "O(N) for N patterns",
                summary: "Returns the directives that match some patterns, with their values.",
                history: &[("7.0.0", "Takes several patterns at once.")],
                args: &[Arg::string("parameter").multiple()],
                ..Doc::BLANK
            },
            ..Command::BLANK
        },
        Command {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            runs: Runs::OnSession(show_help),
            doc: &Doc {
                since: "5.0.0",
                group: Group::Server,
                complexity: "O(1)",
                summary: "Explains the subcommands.",
                ..Doc::BLANK
            },
            ..Command::BLANK
        },
        Command {
            name: "resetstat",
            arity: Arity::Exactly(2),
            flags: OPERATOR,
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            runs: Runs::OnEveryShard(reset_partition, reset_node),
            doc: &Doc {
                since: "2.0.0",
                group: Group::Server,
                complexity: "O(1)",
                summary: "Starts the counters of INFO anew.",
                ..Doc::BLANK
            },
            ..Command::BLANK
        },
        Command {
            name: "rewrite",
            arity: Arity::Exactly(2),
            flags: OPERATOR,
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            runs: Runs::OnSession(rewrite),
            doc: &Doc {
                since: "2.8.0",
                group: Group::Server,
                complexity: "O(1)",
                summary: "Writes the running configuration into the file it was read from.",
                ..Doc::BLANK
            },
            ..Command::BLANK
        },
        Command {
            name: "set",
            arity: Arity::AtLeast(4),
            flags: OPERATOR,
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            runs: Runs::OnSession(set),
            conceals: Some(is_secret),
            doc: &Doc {
                since: "2.0.0",
                group: Group::Server,
                complexity: "O(N) for N directives",
                summary: "Changes directives of the running server, all or none.",
                history: &[("7.0.0", "Takes several directives at once.")],
                args: &[Arg::block(
                    "parameter_value",
                    &[Arg::string("parameter"), Arg::string("value")],
                )
                .multiple()],
                ..Doc::BLANK
            },
            ..Command::BLANK
        },
    ],
    ..Command::BLANK
}];

fn get(session: &mut Session<'_>) -> CommandResult {
    let patterns: Vec<&[u8]> = session.args.tail(2).iter().collect();
    let found = session.node.config.lock().get(&patterns);
    session.reply.map(found.len());
    for (name, value) in &found {
        session.reply.bulk(name.as_bytes());
        session.reply.bulk(value);
    }
    Ok(())
}

fn set(session: &mut Session<'_>) -> CommandResult {
    let words: Vec<&[u8]> = session.args.tail(2).iter().collect();
    if !words.len().is_multiple_of(2) {
        return Err(ReplyError::Syntax);
    }
    let pairs: Vec<(&[u8], &[u8])> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let requester = Requester {
        local: session.client.peer.is_local(),
        loading: session.node.loading.is_under_way(),
    };
    session
        .node
        .change_settings(&pairs, requester)
        .map_err(|error| ReplyError::Text(error.to_string()))?;
    session.reply.ok();
    Ok(())
}

/// Whether an argument of CONFIG SET is the value of a directive that holds a secret.
fn is_secret(args: Arguments<'_>, index: usize) -> bool {
    let name = args
        .get(index.wrapping_sub(1))
        .filter(|_| index > 2 && index % 2 == 1);
    name.and_then(find)
        .is_some_and(|directive| directive.is(DirectiveFlags::SENSITIVE))
}

fn rewrite(session: &mut Session<'_>) -> CommandResult {
    let config = session.node.config.lock();
    match config.rewrite(&[], Scope::Changed) {
        Ok(()) => {
            session
                .node
                .log
                .notice(format_args!("CONFIG REWRITE executed with success."));
            session.reply.ok();
            Ok(())
        }
        Err(error) => {
            session
                .node
                .log
                .warning(format_args!("CONFIG REWRITE failed: {error}"));
            Err(ReplyError::Text(error.to_string()))
        }
    }
}

fn reset_partition(ctx: &mut crate::exec::Context<'_>) -> Result<u64, ReplyError> {
    ctx.keyspace
        .held()
        .each(|partition| partition.door.figures.reset());
    Ok(0)
}

fn reset_node(session: &mut Session<'_>, _: &[Part]) -> CommandResult {
    session.node.reset_stats();
    session.reply.ok();
    Ok(())
}

fn show_help(session: &mut Session<'_>) -> CommandResult {
    session.help(&[
        "GET <pattern>",
        "    Directives that match the pattern, with their values.",
        "SET <directive> <value>",
        "    Change a directive.",
        "RESETSTAT",
        "    Start the counters of INFO anew.",
        "REWRITE",
        "    Write the running configuration into the configuration file.",
    ])
}
