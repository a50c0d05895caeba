//! INFO, and SHUTDOWN.
//!
//! A figure is shown only if it is true. A figure of a feature that does not exist yet is shown as zero if zero is
//! true, and left out otherwise.

mod by_command;
pub(super) mod figures;
mod replication;
pub(super) mod sections;

use std::fmt::Write;
use std::sync::atomic::Ordering;

use self::figures::{Gathered, figures_of_shard};
use crate::config::ShutdownOptions;
use crate::error::ReplyError;
use crate::exec::arguments::is;
use crate::exec::client::AwaitedSave;
use crate::exec::{CommandResult, Part, Session};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, Runs};
use crate::state::Node;

pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "info",
        arity: Arity::AtLeast(1),
        flags: Flags::LOADING.union(Flags::STALE),
        acl: Category::DANGEROUS,
        tips: &[
            "nondeterministic_output",
            "request_policy:all_shards",
            "response_policy:special",
        ],
        runs: Runs::OnEveryShard(figures_of_shard, merge),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Server,
            complexity: "O(1)",
            summary: "Returns figures about the server, by section.",
            history: &[("7.0.0", "Takes several sections at once.")],
            args: &[Arg::string("section").optional().multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "shutdown",
        arity: Arity::AtLeast(1),
        flags: Flags::ADMIN
            .union(Flags::NOSCRIPT)
            .union(Flags::LOADING)
            .union(Flags::STALE)
            .union(Flags::NO_MULTI)
            .union(Flags::ALLOW_BUSY)
            .union(Flags::ORDERED),
        runs: Runs::OnSession(shutdown),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Server,
            complexity: "O(N) for N keys when the dataset is saved, else O(1)",
            summary: "Ends the server.",
            history: &[("7.0.0", "Knows `NOW`, `FORCE` and `ABORT`.")],
            args: &[
                Arg::one_of(
                    "save-selector",
                    &[Arg::flag("nosave", "NOSAVE"), Arg::flag("save", "SAVE")],
                )
                .optional(),
                Arg::flag("now", "NOW").optional().since("7.0.0"),
                Arg::flag("force", "FORCE").optional().since("7.0.0"),
                Arg::flag("abort", "ABORT").optional().since("7.0.0"),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// A section of INFO: its name in a request, and the function that writes it.
struct Section {
    name: &'static str,
    title: &'static str,
    /// The section is shown by default.
    default: bool,
    write: fn(&mut String, &Session<'_>, &Gathered),
}

const fn section(
    name: &'static str,
    title: &'static str,
    write: fn(&mut String, &Session<'_>, &Gathered),
) -> Section {
    Section {
        name,
        title,
        default: true,
        write,
    }
}

/// A section like [`section`], but shown only on request.
const fn on_demand(
    name: &'static str,
    title: &'static str,
    write: fn(&mut String, &Session<'_>, &Gathered),
) -> Section {
    Section {
        default: false,
        ..section(name, title, write)
    }
}

const SECTIONS: &[Section] = &[
    section("server", "Server", sections::server),
    section("clients", "Clients", sections::clients),
    section("memory", "Memory", sections::memory),
    section("persistence", "Persistence", sections::persistence),
    section("stats", "Stats", sections::stats),
    section("replication", "Replication", replication::replication),
    section("cpu", "CPU", sections::cpu),
    section("modules", "Modules", |_, _, _| {}),
    on_demand("commandstats", "Commandstats", by_command::command_stats),
    section("errorstats", "Errorstats", by_command::error_stats),
    on_demand("latencystats", "Latencystats", by_command::latency_stats),
    section("cluster", "Cluster", sections::cluster),
    section("keyspace", "Keyspace", sections::keyspace),
    on_demand("shards", "Shards", sections::shards),
];

fn merge(session: &mut Session<'_>, parts: &[Part]) -> CommandResult {
    let gathered = Gathered::decode(parts);
    let asked = session.args.tail(1);
    let wanted = |section: &Section| {
        if asked.is_empty() {
            return section.default;
        }
        asked.iter().any(|word| {
            is(word, section.name)
                || (is(word, "DEFAULT") && section.default)
                || is(word, "ALL")
                || is(word, "EVERYTHING")
        })
    };
    let mut text = String::new();
    for section in SECTIONS.iter().filter(|section| wanted(section)) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "# {}\r\n", section.title);
        (section.write)(&mut text, session, &gathered);
    }
    session.reply.verbatim(*b"txt", text.as_bytes());
    Ok(())
}

/// Writes one line of a section.
macro_rules! line {
    ($text:expr, $($format:tt)+) => {{
        // Writing to a String cannot fail.
        let _ = std::fmt::Write::write_fmt($text, format_args!($($format)+));
        $text.push_str("\r\n");
    }};
}
use line;

/// The figures of INFO that need neither a lock nor a partition, for the report of a crash.
pub(crate) fn lock_free(node: &Node) -> String {
    let mut text = String::new();
    line!(&mut text, "# Memory");
    line!(
        &mut text,
        "used_memory_of_shards_and_clients:{}",
        node.known_bytes()
    );
    line!(&mut text, "\r\n# Clients");
    line!(
        &mut text,
        "connected_clients:{}",
        node.clients.load(Ordering::Relaxed)
    );
    line!(&mut text, "\r\n# Commandstats");
    by_command::calls(&mut text, node);
    text
}

const CANNOT_END: ReplyError = ReplyError::Fixed("ERR Errors trying to SHUTDOWN. Check logs.");

/// SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE] [ABORT]
fn shutdown(session: &mut Session<'_>) -> CommandResult {
    let (mut options, mut abort) = (ShutdownOptions::default(), false);
    for word in session.args.tail(1).iter() {
        match () {
            () if is(word, "SAVE") => options.save = true,
            () if is(word, "NOSAVE") => options.nosave = true,
            () if is(word, "NOW") => options.now = true,
            () if is(word, "FORCE") => options.force = true,
            () if is(word, "ABORT") => abort = true,
            () => return Err(ReplyError::Syntax),
        }
    }
    if abort && options != ShutdownOptions::default() || options.save && options.nosave {
        return Err(ReplyError::Syntax);
    }
    if abort {
        if !session.node.go_on() {
            return Err(ReplyError::Fixed("ERR No shutdown in progress."));
        }
        session.reply.ok();
        return Ok(());
    }
    let busy = session.node.scripts.long.find_busy(|_| true);
    if let Some(busy) = busy.filter(|_| !options.nosave) {
        return Err(busy.busy_error());
    }
    match session.node.end(options).map_err(|_| CANNOT_END)? {
        Some(number) => {
            session.client.awaits_save = Some(AwaitedSave {
                number,
                failure: Some(CANNOT_END),
            });
        }
        None => {
            session.client.reply_mode = crate::exec::ReplyMode::Off;
            session.reply.ok();
        }
    }
    // There is no reply: the client notices the end of the connection.
    Ok(())
}
