//! CONFIG: reading and changing the running configuration.

use shardis_protocol::Arguments;

use crate::config::{AuditEvents, DirectiveFlags, Requester, Scope, Settings, find, quote};
use crate::error::ReplyError;
use crate::exec::{CommandResult, Part, Session};
use crate::spec::{Arg, Arity, Audited, Category, Command, Doc, Flags, Group, Runs};
use crate::state::Node;

/// The flags of all subcommands but HELP.
const OPERATOR: Flags = Flags::ADMIN
    .union(Flags::NOSCRIPT)
    .union(Flags::LOADING)
    .union(Flags::STALE)
    .union(Flags::ORDERED);

/// The audit log also hides values of directives that do not exist: the name of a secret one may have been misspelt.
const CHANGES_DIRECTIVES: Audited = Audited {
    events: |args| {
        let is_users = |name: &[u8]| find(name).is_some_and(|directive| directive.row.name == "requirepass");
        let mut names = args.tail(2).iter().step_by(2);
        match names.any(is_users) {
            true => AuditEvents::CONFIG | AuditEvents::USERS,
            false => AuditEvents::CONFIG,
        }
    },
    conceals: Some(|args, index| is_secret(args, index) || is_unknown(args, index)),
    claims: None,
};

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
            audited: Some(&Audited::CONFIG),
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
            audited: Some(&CHANGES_DIRECTIVES),
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
    directive_of_value(args, index)
        .and_then(find)
        .is_some_and(|directive| directive.is(DirectiveFlags::SENSITIVE))
}

/// Whether an argument of CONFIG SET is the value of a directive that does not exist.
fn is_unknown(args: Arguments<'_>, index: usize) -> bool {
    directive_of_value(args, index).is_some_and(|name| find(name).is_none())
}

/// The name in front of an argument of CONFIG SET, if that is a value.
fn directive_of_value(args: Arguments<'_>, index: usize) -> Option<&[u8]> {
    args.get(index.wrapping_sub(1))
        .filter(|_| index > 2 && index % 2 == 1)
}

fn rewrite(session: &mut Session<'_>) -> CommandResult {
    let config = session.node.config.lock();
    match config.rewrite(&declared_users(session.node, &config.settings()), Scope::Changed) {
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

/// The users as lines of the configuration, without the word `user`. None if they have a file of their own.
fn declared_users(node: &Node, settings: &Settings) -> Vec<Vec<u8>> {
    if !settings.aclfile.is_empty() {
        return Vec::new();
    }
    let users = node.acl.users();
    users
        .all()
        .map(|user| quote_words(&user.describe()[b"user ".len()..]))
        .collect()
}

/// A line whose words are quoted where the configuration would read them otherwise.
fn quote_words(line: &[u8]) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    let words = line.split(|&byte| byte == b' ').map(|word| {
        if word.iter().all(is_plain) {
            word.to_vec()
        } else {
            quote(word)
        }
    });
    words.collect::<Vec<_>>().join(&b' ')
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
