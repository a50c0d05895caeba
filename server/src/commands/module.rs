//! MODULE: a server that has no modules and can load none.
//!
//! Modules are linked against the internals of Redis. Loading one is therefore refused like loading a file that is no
//! module, with a line in the log that says why.

use crate::error::ReplyError;
use crate::exec::{CommandResult, Session};
use crate::spec::{Arg, Arity, Command, Doc, Flags, Group, Runs};

const ADMIN: Command = Command {
    flags: Flags::ADMIN.union(Flags::NOSCRIPT),
    ..Command::BLANK
};

/// Common part of the rows that Redis guards by `enable-module-command`.
const GUARDED: Command = Command {
    flags: Flags::ADMIN
        .union(Flags::NOSCRIPT)
        .union(Flags::NO_ASYNC_LOADING)
        .union(Flags::MODULES),
    ..Command::BLANK
};

const DOC: Doc = Doc {
    since: "4.0.0",
    group: Group::Server,
    complexity: "O(1)",
    ..Doc::BLANK
};

pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "module",
    arity: Arity::AtLeast(2),
    runs: Runs::Container,
    doc: &Doc {
        complexity: "That of the subcommand",
        summary: "Groups commands about modules.",
        ..DOC
    },
    subcommands: &[
        Command {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            runs: Runs::OnSession(help),
            doc: &Doc {
                since: "5.0.0",
                summary: "Lists the subcommands.",
                ..DOC
            },
            ..Command::BLANK
        },
        Command {
            name: "list",
            arity: Arity::Exactly(2),
            tips: &["nondeterministic_output_order"],
            runs: Runs::OnSession(list),
            doc: &Doc {
                complexity: "O(N) for N modules",
                summary: "Describes the modules that are loaded.",
                ..DOC
            },
            ..ADMIN
        },
        Command {
            name: "load",
            arity: Arity::AtLeast(3),
            runs: Runs::OnSession(load),
            doc: &Doc {
                summary: "Loads a module.",
                args: &[Arg::string("path"), Arg::string("arg").optional().multiple()],
                ..DOC
            },
            ..GUARDED
        },
        Command {
            name: "loadex",
            arity: Arity::AtLeast(3),
            runs: Runs::OnSession(load),
            doc: &Doc {
                since: "7.0.0",
                summary: "Loads a module that has directives of its own.",
                args: &[
                    Arg::string("path"),
                    Arg::block("configs", &[Arg::string("name"), Arg::string("value")])
                        .token("CONFIG")
                        .optional()
                        .multiple_token(),
                    Arg::string("args").token("ARGS").optional().multiple(),
                ],
                ..DOC
            },
            ..GUARDED
        },
        Command {
            name: "unload",
            arity: Arity::Exactly(3),
            runs: Runs::OnSession(unload),
            doc: &Doc {
                summary: "Removes a module.",
                args: &[Arg::string("name")],
                ..DOC
            },
            ..GUARDED
        },
    ],
    ..Command::BLANK
}];

fn list(session: &mut Session<'_>) -> CommandResult {
    session.reply.array(0);
    Ok(())
}

fn load(session: &mut Session<'_>) -> CommandResult {
    let path = String::from_utf8_lossy(session.args.at(2));
    session.node.log.warning(format_args!(
        "Module {path} failed to load: shardis cannot load modules of Redis"
    ));
    Err(ReplyError::Fixed(
        "ERR Error loading the extension. Please check the server logs.",
    ))
}

fn unload(_: &mut Session<'_>) -> CommandResult {
    Err(ReplyError::Fixed(
        "ERR Error unloading module: no such module with that name",
    ))
}

fn help(session: &mut Session<'_>) -> CommandResult {
    session.help(&[
        "LIST",
        "    The modules that are loaded.",
        "LOAD <path> [<arg> ...]",
        "    Load a module.",
        "LOADEX <path> [[CONFIG NAME VALUE] [CONFIG NAME VALUE]] [ARGS ...]",
        "    Load a module that has directives of its own.",
        "UNLOAD <name>",
        "    Remove a module.",
    ])
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Shell;

    #[test]
    fn there_are_no_modules() {
        Shell::new().check(&[
            ("MODULE LIST", "[]"),
            (
                "MODULE LOAD /lib/x.so",
                "-ERR Error loading the extension. Please check the server logs.",
            ),
            (
                "MODULE UNLOAD x",
                "-ERR Error unloading module: no such module with that name",
            ),
        ]);
    }
}
