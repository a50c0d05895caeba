//! LATENCY: events that delayed the server, and the durations of commands.

use crate::commands::names;
use crate::error::ReplyError;
use crate::exec::{CommandResult, Session};
use crate::observe::histogram::Distribution;
use crate::spec::{Arg, Arity, Command, Doc, Flags, Group, Registered, Runs};
use crate::state::Node;

const OPERATOR: Command = Command {
    arity: Arity::Exactly(2),
    flags: Flags::ADMIN
        .union(Flags::NOSCRIPT)
        .union(Flags::LOADING)
        .union(Flags::STALE),
    tips: &[
        "nondeterministic_output",
        "request_policy:all_nodes",
        "response_policy:special",
    ],
    ..Command::BLANK
};

const DOC: Doc = Doc {
    since: "2.8.13",
    group: Group::Server,
    complexity: "O(1)",
    ..Doc::BLANK
};

pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "latency",
    arity: Arity::AtLeast(2),
    runs: Runs::Container,
    doc: &Doc {
        complexity: "That of the subcommand",
        summary: "Groups the commands about latency.",
        ..DOC
    },
    subcommands: &[
        Command {
            name: "doctor",
            runs: Runs::OnSession(doctor),
            doc: &Doc {
                summary: "Says what the latency monitor has seen, and what might help.",
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "graph",
            arity: Arity::Exactly(3),
            runs: Runs::OnSession(graph),
            doc: &Doc {
                summary: "Draws the latency of an event over time.",
                args: &[Arg::string("event")],
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "help",
            flags: Flags::LOADING.union(Flags::STALE),
            tips: &[],
            runs: Runs::OnSession(help),
            doc: &Doc {
                summary: "Lists the subcommands.",
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "histogram",
            arity: Arity::AtLeast(2),
            runs: Runs::OnSession(histogram),
            doc: &Doc {
                since: "7.0.0",
                complexity: "O(N) for N commands that are shown",
                summary: "Returns how many calls of commands stayed within which times.",
                args: &[Arg::string("command").optional().multiple()],
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "history",
            arity: Arity::Exactly(3),
            runs: Runs::OnSession(history),
            doc: &Doc {
                summary: "Returns the samples of an event, with their times.",
                args: &[Arg::string("event")],
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "latest",
            runs: Runs::OnSession(latest),
            doc: &Doc {
                summary: "Returns the newest sample of each event, and the worst there was.",
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "reset",
            arity: Arity::AtLeast(2),
            tips: &["request_policy:all_nodes", "response_policy:agg_sum"],
            runs: Runs::OnSession(reset),
            doc: &Doc {
                summary: "Forgets the samples of events.",
                args: &[Arg::string("event").optional().multiple()],
                ..DOC
            },
            ..OPERATOR
        },
    ],
    ..Command::BLANK
}];

fn doctor(session: &mut Session<'_>) -> CommandResult {
    let threshold_ms = session.node.settings.load().latency_monitor_threshold;
    let text = session.node.latency.lock().diagnosis(threshold_ms);
    session.reply.verbatim(*b"txt", text.as_bytes());
    Ok(())
}

fn graph(session: &mut Session<'_>) -> CommandResult {
    let name = session.args.at(2);
    let latency = session.node.latency.lock();
    let Some((event, series)) = latency.event(name) else {
        let line = [b"ERR No samples available for event '", name, b"'"].concat();
        return Err(ReplyError::Bytes(line));
    };
    let graph = series.graph(event, session.now_ms / 1000);
    session.reply.verbatim(*b"txt", graph.as_bytes());
    Ok(())
}

fn history(session: &mut Session<'_>) -> CommandResult {
    let latency = session.node.latency.lock();
    let Some((_, series)) = latency.event(session.args.at(2)) else {
        session.reply.array(0);
        return Ok(());
    };
    session.reply.array(series.samples().len());
    for sample in series.samples() {
        session.reply.array(2);
        session.reply.integer(sample.time_s);
        session.reply.integer(sample.ms as i64);
    }
    Ok(())
}

fn latest(session: &mut Session<'_>) -> CommandResult {
    let latency = session.node.latency.lock();
    session.reply.array(latency.events().len());
    for (event, series) in latency.events() {
        let newest = series.latest();
        session.reply.array(4);
        session.reply.bulk(event.as_bytes());
        session.reply.integer(newest.map_or(0, |sample| sample.time_s));
        session.reply.integer(newest.map_or(0, |sample| sample.ms as i64));
        session.reply.integer(series.worst_ms() as i64);
    }
    Ok(())
}

fn reset(session: &mut Session<'_>) -> CommandResult {
    let events = session.args.tail(2);
    let chosen = |event: &str| {
        events.is_empty()
            || events
                .iter()
                .any(|word| word.eq_ignore_ascii_case(event.as_bytes()))
    };
    let count = session.node.latency.lock().reset(chosen);
    session.reply.integer(count as i64);
    Ok(())
}

/// Latency distribution of a command, summed over all loops of a node.
pub(super) fn distribution(node: &Node, command: &Registered) -> Distribution {
    let histograms = node
        .stats
        .iter()
        .filter_map(|stats| stats.by_command.get(usize::from(command.id))?.histogram.get());
    Distribution::of(histograms.map(|histogram| &**histogram))
}

/// LATENCY HISTOGRAM [command ...]: a container includes its subcommands; unknown names are skipped.
fn histogram(session: &mut Session<'_>) -> CommandResult {
    let asked = session.args.tail(2);
    let commands: Vec<&Registered> = if asked.is_empty() {
        names::all(&session.node.renames)
            .flat_map(with_subcommands)
            .collect()
    } else {
        asked
            .iter()
            .filter_map(|name| names::find_full(name, &session.node.renames))
            .flat_map(with_subcommands)
            .collect()
    };
    let map = session.reply.deferred_map(commands.len());
    let mut shown = 0;
    for command in commands {
        let distribution = distribution(session.node, command);
        if distribution.total() == 0 {
            continue;
        }
        shown += 1;
        let steps = distribution.by_powers_of_two();
        session.reply.bulk(command.full_name.as_bytes());
        session.reply.map(2);
        session.reply.bulk(b"calls");
        session.reply.integer(distribution.total() as i64);
        session.reply.bulk(b"histogram_usec");
        session.reply.map(steps.len());
        for (micros, count) in steps {
            session.reply.integer(micros as i64);
            session.reply.integer(count as i64);
        }
    }
    session.reply.close(map, shown);
    Ok(())
}

fn with_subcommands(command: &'static Registered) -> impl Iterator<Item = &'static Registered> {
    std::iter::once(command).chain(&command.subcommands)
}

fn help(session: &mut Session<'_>) -> CommandResult {
    session.help(&[
        "DOCTOR",
        "    What was seen, and what might help.",
        "GRAPH <event>",
        "    A curve of the samples of the event.",
        "HISTOGRAM [<command> ...]",
        "    How many calls of those commands, or of all, stayed within which times.",
        "HISTORY <event>",
        "    The samples of the event, with their times.",
        "LATEST",
        "    The newest sample of every event.",
        "RESET [<event> ...]",
        "    Forget the samples of those events, or of all.",
    ])
}

#[cfg(test)]
mod tests {
    use crate::commands::registry;
    use crate::commands::testing::{START_MS, Shell};

    /// A shell that has seen two spikes of an event and one of another.
    fn spiked() -> Shell {
        let shell = Shell::new();
        let now_s = START_MS / 1000;
        let mut latency = shell.node.latency.lock();
        latency.add("command", now_s - 5, 30);
        latency.add("command", now_s, 14);
        latency.add("expire-cycle", now_s, 2);
        drop(latency);
        shell
    }

    #[test]
    fn tells_the_samples_of_events() {
        let now_s = START_MS / 1000;
        spiked().check(&[
            (
                "LATENCY LATEST",
                &format!("[[\"command\", :{now_s}, :14, :30], [\"expire-cycle\", :{now_s}, :2, :2]]"),
            ),
            (
                "LATENCY HISTORY Command",
                &format!("[[:{}, :30], [:{now_s}, :14]]", now_s - 5),
            ),
            ("LATENCY HISTORY nosuch", "[]"),
            ("LATENCY RESET nosuch EXPIRE-CYCLE", ":1"),
            ("LATENCY HISTORY expire-cycle", "[]"),
            ("LATENCY RESET", ":1"),
            ("LATENCY RESET", ":0"),
            ("LATENCY LATEST", "[]"),
        ]);
    }

    #[test]
    fn draws_and_judges() {
        let mut shell = spiked().resp3();
        let graph = shell.run("LATENCY GRAPH command").reply;
        let head = "=txt:\"command - high 30 ms, low 14 ms (all time high 30 ms)\\n---";
        assert!(
            graph.starts_with(head) && graph.ends_with("\\n50\\nss\\n\""),
            "{graph}"
        );
        shell.check(&[(
            "LATENCY GRAPH nosuch",
            "-ERR No samples available for event 'nosuch'",
        )]);
        assert!(
            shell
                .run("LATENCY DOCTOR")
                .reply
                .contains("1. command: 2 latency spikes")
        );
    }

    #[test]
    fn histograms_of_all_loops_are_added_up() {
        let mut shell = Shell::over(2).resp3();
        let get = registry().find(b"GET").unwrap().id;
        shell.node.stats[0].ran(get, 2, 16_000, true);
        shell.node.stats[1].ran(get, 1, 900, true);
        shell.node.stats[1].ran(
            registry().find(b"config").unwrap().subcommand(b"Set").unwrap().id,
            1,
            900,
            true,
        );
        shell.node.stats[1].ran(registry().find(b"set").unwrap().id, 1, 900, false);
        let get = "\"get\": {\"calls\": :3, \"histogram_usec\": {:1: :1, :16: :3}}";
        let set = "\"config|set\": {\"calls\": :1, \"histogram_usec\": {:1: :1}}";
        shell.check(&[
            ("LATENCY HISTOGRAM get nosuch get|x", &format!("{{{get}}}")),
            ("LATENCY HISTOGRAM CONFIG", &format!("{{{set}}}")),
            ("LATENCY HISTOGRAM", &format!("{{{get}, {set}}}")),
            ("LATENCY HISTOGRAM set", "{}"),
        ]);
    }
}
