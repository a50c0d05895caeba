//! MEMORY: what keys take.

use crate::error::ReplyError;
use crate::exec::arguments::{Options, int, is};
use crate::exec::{CommandResult, Context, Session};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

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
        // Strings are measured whole; the count matters to values of many elements.
        if int(options.value()?)? < 0 {
            return Err(ReplyError::Syntax);
        }
    }
    let key = ctx.key(2);
    match ctx.keyspace.peek(&key) {
        Some(entry) => ctx.reply.integer(entry.memory() as i64),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn help(session: &mut Session<'_>) -> CommandResult {
    session.help(&[
        "USAGE <key> [SAMPLES <count>]",
        "    Bytes that a key and its value take.",
    ])
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Shell;

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
