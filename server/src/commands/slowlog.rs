//! SLOWLOG: the log of slow commands.

use crate::error::ReplyError;
use crate::exec::arguments::bad_subcommand;
use crate::exec::{CommandResult, Session};
use crate::spec::{Arg, Arity, Command, Doc, Flags, Group, Runs};

const OPERATOR: Command = Command {
    arity: Arity::Exactly(2),
    flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::STALE),
    ..Command::BLANK
};

const DOC: Doc = Doc {
    since: "2.2.12",
    group: Group::Server,
    complexity: "O(1)",
    ..Doc::BLANK
};

pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "slowlog",
    arity: Arity::AtLeast(2),
    runs: Runs::Container,
    doc: &Doc {
        complexity: "That of the subcommand",
        summary: "Groups the commands about the slow log.",
        ..DOC
    },
    subcommands: &[
        Command {
            name: "get",
            arity: Arity::AtLeast(2),
            tips: &["request_policy:all_nodes", "nondeterministic_output"],
            runs: Runs::OnSession(get),
            doc: &Doc {
                complexity: "O(N) for N entries",
                summary: "Returns entries of the slow log, the newest first.",
                history: &[("4.0.0", "Entries tell the client's address, port and name.")],
                args: &[Arg::integer("count").optional()],
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "help",
            flags: Flags::LOADING.union(Flags::STALE),
            runs: Runs::OnSession(help),
            doc: &Doc {
                since: "6.2.0",
                summary: "Lists the subcommands.",
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "len",
            tips: &[
                "request_policy:all_nodes",
                "response_policy:agg_sum",
                "nondeterministic_output",
            ],
            runs: Runs::OnSession(len),
            doc: &Doc {
                summary: "Counts the entries of the slow log.",
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "reset",
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            runs: Runs::OnSession(reset),
            doc: &Doc {
                complexity: "O(N) for N entries",
                summary: "Removes all entries of the slow log.",
                ..DOC
            },
            ..OPERATOR
        },
    ],
    ..Command::BLANK
}];

/// Default number of entries of GET.
const COUNT: i64 = 10;

/// SLOWLOG GET [count]
fn get(session: &mut Session<'_>) -> CommandResult {
    let count = match (session.args.len(), session.args.get(2)) {
        (2, _) => COUNT,
        (3, Some(count)) => crate::exec::arguments::int(count)
            .ok()
            .filter(|&count| count >= -1)
            .ok_or(ReplyError::Fixed(
                "ERR count should be greater than or equal to -1",
            ))?,
        _ => return Err(bad_subcommand(session.args)),
    };
    let log = session.node.slowlog.lock();
    // A count of -1 means all entries.
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(log.len());
    session.reply.array(count);
    for entry in log.entries().take(count) {
        session.reply.array(6);
        session.reply.integer(entry.id as i64);
        session.reply.integer(entry.time_s);
        session.reply.integer(entry.duration_us as i64);
        session.reply.array(entry.words.len());
        for word in &entry.words {
            session.reply.bulk(word);
        }
        session.reply.bulk(entry.address.as_bytes());
        session.reply.bulk(&entry.name);
    }
    Ok(())
}

fn len(session: &mut Session<'_>) -> CommandResult {
    let len = session.node.slowlog.lock().len();
    session.reply.integer(len as i64);
    Ok(())
}

fn reset(session: &mut Session<'_>) -> CommandResult {
    session.node.slowlog.lock().clear();
    session.reply.ok();
    Ok(())
}

fn help(session: &mut Session<'_>) -> CommandResult {
    session.help(&[
        "GET [<count>]",
        "    The newest entries, 10 unless told otherwise, all for -1. Each has:",
        "    its number, Unix time, duration in microseconds, the words of the command, the client's address and port, and",
        "    its name.",
        "LEN",
        "    How many entries there are.",
        "RESET",
        "    Remove all entries.",
    ])
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Shell;
    use crate::observe::slowlog::Entry;

    fn filled(count: u64) -> Shell {
        let shell = Shell::new();
        for number in 0..count {
            let entry = Entry {
                id: 0,
                time_s: 100 + number as i64,
                duration_us: number,
                words: vec![b"GET".as_slice().into(), b"k".as_slice().into()],
                address: "127.0.0.1:5".to_owned(),
                name: b"me".as_slice().into(),
            };
            shell.node.slowlog.lock().add(entry, 128);
        }
        shell
    }

    #[test]
    fn the_newest_come_first() {
        filled(12).check(&[
            (
                "SLOWLOG GET 2",
                "[[:11, :111, :11, [\"GET\", \"k\"], \"127.0.0.1:5\", \"me\"], [:10, :110, :10, [\"GET\", \"k\"], \
                 \"127.0.0.1:5\", \"me\"]]",
            ),
            ("SLOWLOG GET 0", "[]"),
            ("SLOWLOG LEN", ":12"),
        ]);
    }

    #[test]
    fn ten_are_shown_unless_asked_for_more() {
        let mut shell = filled(12);
        let mut shown = |line: &str| shell.run(line).reply.matches("\"GET\"").count();
        assert_eq!(shown("SLOWLOG GET"), 10);
        assert_eq!(shown("SLOWLOG GET -1"), 12);
        assert_eq!(shown("SLOWLOG GET 99"), 12);
    }

    #[test]
    fn a_reset_removes_all() {
        filled(3).check(&[
            ("SLOWLOG RESET", "+OK"),
            ("SLOWLOG LEN", ":0"),
            ("SLOWLOG GET", "[]"),
        ]);
    }

    #[test]
    fn wrong_counts_are_refused() {
        let count = "-ERR count should be greater than or equal to -1";
        Shell::new().check(&[
            ("SLOWLOG GET -2", count),
            ("SLOWLOG GET x", count),
            (
                "SLOWLOG get 1 2",
                "-ERR unknown subcommand or wrong number of arguments for 'get'. Try SLOWLOG HELP.",
            ),
        ]);
    }
}
