//! COMMAND: information about commands, all of it derived from their rows.
//!
//! The replies have exactly the shape that Redis gives them, down to the difference between simple strings and bulk
//! strings: clients build their command tables from them.

use shardis_protocol::{Arguments, Encoder};
use shardis_storage::glob;

use super::names;
use crate::error::ReplyError;
use crate::exec::arguments::is;
use crate::exec::{CommandResult, Session};
use crate::spec::key_spec::{keys_of, legacy_range};
use crate::spec::{
    Arg, ArgKind, Arity, BeginSearch, Category, Command, Doc, FindKeys, Flags, Group, KeyFlags, KeySpec,
    Registered, Runs,
};
use crate::state::Renames;

const ROW: Command = Command {
    flags: Flags::LOADING.union(Flags::STALE),
    acl: Category::CONNECTION,
    ..Command::BLANK
};

const DOC: Doc = Doc {
    since: "7.0.0",
    group: Group::Server,
    ..Doc::BLANK
};

const NAMES: &[Arg] = &[Arg::string("command-name").optional().multiple()];

pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "command",
    arity: Arity::AtLeast(1),
    tips: &["nondeterministic_output_order"],
    runs: Runs::OnSession(command),
    doc: &Doc {
        since: "2.8.13",
        complexity: "O(N) for N commands",
        summary: "Describes all commands.",
        ..DOC
    },
    subcommands: &[
        Command {
            name: "count",
            arity: Arity::Exactly(2),
            runs: Runs::OnSession(count),
            doc: &Doc {
                since: "2.8.13",
                complexity: "O(1)",
                summary: "Counts the commands.",
                ..DOC
            },
            ..ROW
        },
        Command {
            name: "docs",
            arity: Arity::AtLeast(2),
            tips: &["nondeterministic_output_order"],
            runs: Runs::OnSession(docs),
            doc: &Doc {
                complexity: "O(N) for N commands asked about",
                summary: "Shows the documentation of commands, of all if none is named.",
                args: NAMES,
                ..DOC
            },
            ..ROW
        },
        Command {
            name: "getkeys",
            arity: Arity::AtLeast(3),
            runs: Runs::OnSession(getkeys),
            doc: &Doc {
                since: "2.8.13",
                complexity: "O(N) for a request of N words",
                summary: "Picks the keys out of a request.",
                args: REQUEST,
                ..DOC
            },
            ..ROW
        },
        Command {
            name: "getkeysandflags",
            arity: Arity::AtLeast(3),
            runs: Runs::OnSession(getkeysandflags),
            doc: &Doc {
                complexity: "O(N) for a request of N words",
                summary: "Picks the keys out of a request and tells what is done with each.",
                args: REQUEST,
                ..DOC
            },
            ..ROW
        },
        Command {
            name: "help",
            arity: Arity::Exactly(2),
            runs: Runs::OnSession(help),
            doc: &Doc {
                since: "5.0.0",
                complexity: "O(1)",
                summary: "Lists the subcommands.",
                ..DOC
            },
            ..ROW
        },
        Command {
            name: "info",
            arity: Arity::AtLeast(2),
            tips: &["nondeterministic_output_order"],
            runs: Runs::OnSession(info),
            doc: &Doc {
                since: "2.8.13",
                complexity: "O(N) for N commands asked about",
                summary: "Describes commands, all if none is named.",
                history: &[("7.0.0", "Without a name it describes all.")],
                args: NAMES,
                ..DOC
            },
            ..ROW
        },
        Command {
            name: "list",
            arity: Arity::AtLeast(2),
            tips: &["nondeterministic_output_order"],
            runs: Runs::OnSession(list),
            doc: &Doc {
                complexity: "O(N) for N commands",
                summary: "Lists the names of commands.",
                args: &[Arg::one_of(
                    "filterby",
                    &[
                        Arg::string("module-name").token("MODULE"),
                        Arg::string("category").token("ACLCAT"),
                        Arg::pattern("pattern").token("PATTERN"),
                    ],
                )
                .token("FILTERBY")
                .optional()],
                ..DOC
            },
            ..ROW
        },
    ],
    ..ROW
}];

const REQUEST: &[Arg] = &[Arg::string("command"), Arg::string("arg").optional().multiple()];

fn command(session: &mut Session<'_>) -> CommandResult {
    session.reply.array(names::all(&session.node.renames).count());
    for known in names::all(&session.node.renames) {
        describe(&mut session.reply, known);
    }
    Ok(())
}

fn count(session: &mut Session<'_>) -> CommandResult {
    let count = names::all(&session.node.renames).count();
    session.reply.integer(count as i64);
    Ok(())
}

fn info(session: &mut Session<'_>) -> CommandResult {
    if session.args.len() == 2 {
        return command(session);
    }
    let names = session.args.tail(2);
    session.reply.array(names.len());
    for name in names.iter() {
        match names::find_full(name, &session.node.renames) {
            Some(known) => describe(&mut session.reply, known),
            None => session.reply.null(),
        }
    }
    Ok(())
}

fn docs(session: &mut Session<'_>) -> CommandResult {
    let known: Vec<&Registered> = match session.args.len() {
        2 => names::all(&session.node.renames).collect(),
        _ => session
            .args
            .tail(2)
            .iter()
            .filter_map(|name| names::find_full(name, &session.node.renames))
            .collect(),
    };
    document_all(&mut session.reply, &known);
    Ok(())
}

/// Properties of a command that determine the keys of its requests.
struct Shape {
    arity: Arity,
    keys: &'static [KeySpec],
    keys_are_optional: bool,
}

impl Shape {
    /// The shape of the command that a request names.
    fn of(request: Arguments<'_>, renames: &Renames) -> Option<Self> {
        let command = names::find(request.get(0)?, renames)?;
        let command = match request.get(1) {
            Some(word) if !command.subcommands.is_empty() => command.subcommand(word)?,
            _ => command,
        };
        Some(Self {
            arity: command.row.arity,
            keys: command.row.keys,
            keys_are_optional: command.row.flags.contains(Flags::NO_MANDATORY_KEYS),
        })
    }
}

/// Filter of the names in COMMAND LIST.
enum Filter<'a> {
    All,
    None,
    Category(Category),
    Pattern(&'a [u8]),
}

impl<'a> Filter<'a> {
    fn parse(args: Arguments<'a>) -> Result<Self, ReplyError> {
        match (args.len(), args.get(2), args.get(3), args.get(4)) {
            (2, ..) => Ok(Self::All),
            (5, Some(word), Some(by), Some(value)) if is(word, "FILTERBY") => match by {
                by if is(by, "ACLCAT") => Ok(Category::by_name(value).map_or(Self::None, Self::Category)),
                by if is(by, "PATTERN") => Ok(Self::Pattern(value)),
                // No command comes from a module.
                by if is(by, "MODULE") => Ok(Self::None),
                _ => Err(ReplyError::Syntax),
            },
            _ => Err(ReplyError::Syntax),
        }
    }

    fn accepts(&self, known: &Registered) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Category(category) => known.row.categories().contains(*category),
            Self::Pattern(pattern) => glob::matches(pattern, known.full_name.as_bytes(), true),
        }
    }
}

fn list(session: &mut Session<'_>) -> CommandResult {
    let filter = Filter::parse(session.args)?;
    let all =
        names::all(&session.node.renames).flat_map(|known| std::iter::once(known).chain(&known.subcommands));
    let accepted: Vec<_> = all.filter(|known| filter.accepts(known)).collect();
    session.reply.array(accepted.len());
    for known in accepted {
        session.reply.bulk(known.full_name.as_bytes());
    }
    Ok(())
}

fn getkeys(session: &mut Session<'_>) -> CommandResult {
    reply_keys(session, |reply, key, _| reply.bulk(key))
}

fn getkeysandflags(session: &mut Session<'_>) -> CommandResult {
    reply_keys(session, |reply, key, flags| {
        reply.array(2);
        reply.bulk(key);
        names(reply, flags.names());
    })
}

fn reply_keys(session: &mut Session<'_>, show: fn(&mut Encoder<'_>, &[u8], KeyFlags)) -> CommandResult {
    let request = session.args.tail(2);
    let shape = Shape::of(request, &session.node.renames)
        .ok_or(ReplyError::Fixed("ERR Invalid command specified"))?;
    if shape.keys.iter().all(KeySpec::is_not_key) {
        return Err(ReplyError::Fixed("ERR The command has no key arguments"));
    }
    if !shape.arity.accepts(request.len()) {
        return Err(ReplyError::Fixed(
            "ERR Invalid number of arguments specified for command",
        ));
    }
    let mut keys = Vec::new();
    let found = keys_of(shape.keys, request, |position, flags| {
        keys.push((position, flags));
    });
    if (found.is_err() || keys.is_empty()) && !shape.keys_are_optional {
        return Err(ReplyError::Fixed("ERR Invalid arguments specified for command"));
    }
    session.reply.array(keys.len());
    for (position, flags) in keys {
        show(&mut session.reply, request.at(position), flags);
    }
    Ok(())
}

/// Replies with a set of simple strings.
fn names(reply: &mut Encoder<'_>, names: impl Iterator<Item = &'static str>) {
    let names: Vec<_> = names.collect();
    reply.set(names.len());
    for name in names {
        reply.simple(name);
    }
}

/// Encodes the reply of COMMAND INFO for a command: ten elements.
fn describe(reply: &mut Encoder<'_>, known: &Registered) {
    let row = known.row;
    let (range, _) = legacy_range(row.keys);
    reply.array(10);
    reply.bulk(known.full_name.as_bytes());
    reply.integer(row.arity.to_wire());
    names(reply, row.all_flags().names());
    reply.integer(range.first);
    reply.integer(range.last);
    reply.integer(range.step);
    names(reply, row.categories().names());
    reply.set(row.tips.len());
    for tip in row.tips {
        reply.bulk(tip.as_bytes());
    }
    reply.set(row.keys.len());
    for spec in row.keys {
        describe_keys(reply, spec);
    }
    // In Redis, an empty list of subcommands is a set, any other list an array.
    if known.subcommands.is_empty() {
        reply.set(0);
    } else {
        reply.array(known.subcommands.len());
    }
    for subcommand in &known.subcommands {
        describe(reply, subcommand);
    }
}

fn describe_keys(reply: &mut Encoder<'_>, spec: &KeySpec) {
    reply.map(3 + usize::from(spec.notes.is_some()));
    if let Some(notes) = spec.notes {
        text(reply, "notes", notes);
    }
    reply.bulk(b"flags");
    names(reply, spec.flags.names());
    reply.bulk(b"begin_search");
    match spec.begin {
        BeginSearch::Index(index) => step(reply, "index", &[("index", index.into())]),
        BeginSearch::Keyword(word, from) => {
            reply.map(2);
            text(reply, "type", "keyword");
            reply.bulk(b"spec");
            reply.map(2);
            text(reply, "keyword", word);
            number(reply, "startfrom", from.into());
        }
        BeginSearch::Unknown => step(reply, "unknown", &[]),
    }
    reply.bulk(b"find_keys");
    match spec.find {
        FindKeys::Range {
            last,
            step: distance,
            limit,
        } => {
            let fields = [
                ("lastkey", last.into()),
                ("keystep", distance.into()),
                ("limit", limit.into()),
            ];
            step(reply, "range", &fields);
        }
        FindKeys::Count {
            index,
            first,
            step: distance,
        } => {
            let fields = [
                ("keynumidx", index.into()),
                ("firstkey", first.into()),
                ("keystep", distance.into()),
            ];
            step(reply, "keynum", &fields);
        }
        FindKeys::Told(_) | FindKeys::Derived(_) => step(reply, "unknown", &[]),
    }
}

/// Encodes one step of the search for keys: its type and its numbers.
fn step(reply: &mut Encoder<'_>, kind: &str, fields: &[(&str, i64)]) {
    reply.map(2);
    text(reply, "type", kind);
    reply.bulk(b"spec");
    reply.map(fields.len());
    for &(name, value) in fields {
        number(reply, name, value);
    }
}

fn text(reply: &mut Encoder<'_>, name: &str, value: &str) {
    reply.bulk(name.as_bytes());
    reply.bulk(value.as_bytes());
}

fn number(reply: &mut Encoder<'_>, name: &str, value: i64) {
    reply.bulk(name.as_bytes());
    reply.integer(value);
}

/// Encodes a map from full names to the documentation of COMMAND DOCS.
fn document_all<T: std::borrow::Borrow<Registered>>(reply: &mut Encoder<'_>, all: &[T]) {
    reply.map(all.len());
    for known in all {
        let known = known.borrow();
        reply.bulk(known.full_name.as_bytes());
        document(reply, known);
    }
}

fn document(reply: &mut Encoder<'_>, known: &Registered) {
    let doc = known.row.doc;
    let map = reply.deferred_map(8);
    let mut pairs = 3;
    text(reply, "summary", doc.summary);
    text(reply, "since", doc.since);
    text(reply, "group", doc.group.name());
    if !doc.complexity.is_empty() {
        pairs += 1;
        text(reply, "complexity", doc.complexity);
    }
    if doc.system {
        pairs += 1;
        reply.bulk(b"doc_flags");
        names(reply, std::iter::once("syscmd"));
    }
    if let Some(deprecated) = doc.deprecated {
        pairs += 3;
        reply.bulk(b"doc_flags");
        names(reply, std::iter::once("deprecated"));
        text(reply, "deprecated_since", deprecated.since);
        text(reply, "replaced_by", deprecated.replaced_by);
    }
    if !doc.history.is_empty() {
        pairs += 1;
        reply.bulk(b"history");
        reply.set(doc.history.len());
        for (version, change) in doc.history {
            reply.array(2);
            reply.bulk(version.as_bytes());
            reply.bulk(change.as_bytes());
        }
    }
    if !doc.args.is_empty() {
        pairs += 1;
        reply.bulk(b"arguments");
        document_arguments(reply, doc.args);
    }
    if !known.subcommands.is_empty() {
        pairs += 1;
        reply.bulk(b"subcommands");
        document_all(reply, &known.subcommands);
    }
    reply.close(map, pairs);
}

fn document_arguments(reply: &mut Encoder<'_>, args: &[Arg]) {
    reply.array(args.len());
    for arg in args {
        document_argument(reply, arg);
    }
}

fn document_argument(reply: &mut Encoder<'_>, arg: &Arg) {
    let map = reply.deferred_map(6);
    let mut pairs = 2;
    text(reply, "name", arg.name);
    text(reply, "type", type_name(arg.kind));
    // Choices and blocks are documented by their parts.
    let parts = match arg.kind {
        ArgKind::OneOf(parts) | ArgKind::Block(parts) => Some(parts),
        _ => {
            pairs += 1;
            text(reply, "display_text", arg.display.unwrap_or(arg.name));
            None
        }
    };
    if let ArgKind::Key(spec) | ArgKind::KeyPattern(spec) = arg.kind {
        pairs += 1;
        number(reply, "key_spec_index", spec.into());
    }
    for (name, value) in [
        ("token", arg.token),
        ("since", arg.since),
        ("deprecated_since", arg.deprecated_since),
    ] {
        if let Some(value) = value {
            pairs += 1;
            text(reply, name, value);
        }
    }
    let flags = [
        (arg.optional, "optional"),
        (arg.multiple, "multiple"),
        (arg.multiple_token, "multiple_token"),
    ];
    if flags.iter().any(|&(set, _)| set) {
        pairs += 1;
        reply.bulk(b"flags");
        names(
            reply,
            flags.into_iter().filter(|&(set, _)| set).map(|(_, name)| name),
        );
    }
    if let Some(parts) = parts {
        pairs += 1;
        reply.bulk(b"arguments");
        document_arguments(reply, parts);
    }
    reply.close(map, pairs);
}

fn type_name(kind: ArgKind) -> &'static str {
    match kind {
        ArgKind::String => "string",
        ArgKind::Integer => "integer",
        ArgKind::Double => "double",
        ArgKind::Key(_) => "key",
        ArgKind::Pattern | ArgKind::KeyPattern(_) => "pattern",
        ArgKind::UnixTime => "unix-time",
        ArgKind::PureToken => "pure-token",
        ArgKind::OneOf(_) => "oneof",
        ArgKind::Block(_) => "block",
    }
}

fn help(session: &mut Session<'_>) -> CommandResult {
    session.help(&[
        "(no subcommand)",
        "    What there is to know about every command.",
        "COUNT",
        "    How many commands there are.",
        "DOCS [<command-name> ...]",
        "    The documentation of these commands, or of all.",
        "GETKEYS <command> [<arg> ...]",
        "    The keys in such a request.",
        "GETKEYSANDFLAGS <command> [<arg> ...]",
        "    The keys in such a request, and what it does with each.",
        "INFO [<command-name> ...]",
        "    What there is to know about these commands, or about all.",
        "LIST [FILTERBY (MODULE <module-name>|ACLCAT <category>|PATTERN <pattern>)]",
        "    The names of all commands, or of those that fit.",
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::registry;
    use crate::commands::testing::Shell;

    #[test]
    fn describes_a_command() {
        let rename = "[\"rename\", :3, [+write], :1, :2, :1, [+@keyspace, +@write, +@slow], [], \
            [[\"flags\", [+RW, +access, +delete], \
            \"begin_search\", [\"type\", \"index\", \"spec\", [\"index\", :1]], \
            \"find_keys\", [\"type\", \"range\", \"spec\", [\"lastkey\", :0, \"keystep\", :1, \"limit\", :0]]], \
            [\"flags\", [+OW, +update], \
            \"begin_search\", [\"type\", \"index\", \"spec\", [\"index\", :2]], \
            \"find_keys\", [\"type\", \"range\", \"spec\", [\"lastkey\", :0, \"keystep\", :1, \"limit\", :0]]]], []]";
        let id = "[\"client|id\", :2, [+noscript, +loading, +stale, +allow_busy], :0, :0, :0, [+@slow, +@connection], [], [], []]";
        Shell::new().check(&[
            ("COMMAND INFO Rename", &format!("[{rename}]")),
            (
                "COMMAND INFO nope get|x CLIENT|ID client|id|x",
                &format!("[nil, nil, {id}, nil]"),
            ),
        ]);
    }

    #[test]
    fn resp3_has_sets_and_maps() {
        let mut shell = Shell::new().resp3();
        let ttl = "[\"ttl\", :2, ~[+readonly, +fast], :1, :1, :1, ~[+@keyspace, +@read, +@fast], \
            ~[\"nondeterministic_output\"], ~[{\"flags\": ~[+RO, +access], \
            \"begin_search\": {\"type\": \"index\", \"spec\": {\"index\": :1}}, \
            \"find_keys\": {\"type\": \"range\", \"spec\": {\"lastkey\": :0, \"keystep\": :1, \"limit\": :0}}}], ~[]]";
        shell.check(&[("COMMAND INFO ttl nope", &format!("[{ttl}, nil]"))]);
        let object = shell.run("COMMAND INFO object").reply;
        assert!(object.starts_with(
            "[[\"object\", :-2, ~[], :0, :0, :0, ~[+@slow], ~[], ~[], [[\"object|encoding\", :3, "
        ));
    }

    #[test]
    fn documents_a_command() {
        let mut shell = Shell::new().resp3();
        let select = "{\"select\": {\"summary\": \"Chooses the database that the commands to come work on.\", \
            \"since\": \"1.0.0\", \"group\": \"connection\", \"complexity\": \"O(1)\", \
            \"arguments\": [{\"name\": \"index\", \"type\": \"integer\", \"display_text\": \"index\"}]}}";
        shell.check(&[("COMMAND DOCS select nope", select), ("COMMAND DOCS nope", "{}")]);
        let quit = shell.run("COMMAND DOCS quit").reply;
        assert!(
            quit.contains(
                "\"doc_flags\": ~[+deprecated], \"deprecated_since\": \"7.2.0\", \"replaced_by\": "
            )
        );
        let expire = shell.run("COMMAND DOCS expire").reply;
        assert!(expire.contains("\"history\": ~[[\"7.0.0\", "));
        assert!(expire.contains(
            "{\"name\": \"key\", \"type\": \"key\", \"display_text\": \"key\", \"key_spec_index\": :0}"
        ));
        assert!(expire.contains(
            "{\"name\": \"condition\", \"type\": \"oneof\", \"since\": \"7.0.0\", \"flags\": ~[+optional], \"arguments\": \
             [{\"name\": \"nx\", \"type\": \"pure-token\", \"display_text\": \"nx\", \"token\": \"NX\"}, "
        ));
        let object = shell.run("COMMAND DOCS object").reply;
        assert!(object.contains("\"subcommands\": {\"object|encoding\": {\"summary\": "));
        let kill = shell.run("COMMAND DOCS client|kill").reply;
        assert!(kill.contains(
            "{\"name\": \"old-format\", \"type\": \"string\", \"display_text\": \"ip:port\", \"deprecated_since\": \"2.8.12\"}"
        ));
    }

    #[test]
    fn describes_and_documents_everything() {
        for mut shell in [Shell::new(), Shell::new().resp3()] {
            let all = registry().all().len();
            assert_eq!(shell.run("COMMAND COUNT").reply, format!(":{all}"));
            for known in registry().all() {
                let name = &known.full_name;
                let (info, docs) = (format!("COMMAND INFO {name}"), format!("COMMAND DOCS {name}"));
                let (info, docs) = (shell.run(&info).reply, shell.run(&docs).reply);
                assert!(info.starts_with(&format!("[[\"{name}\", ")), "{name}");
                assert!(docs.contains("\"group\""), "{name}");
            }
            let whole = shell.run("COMMAND").reply;
            assert_eq!(shell.run("COMMAND INFO").reply, whole);
            assert_eq!(whole.matches("[\"client|id\", :2, ").count(), 1);
            assert!(shell.run("COMMAND DOCS").reply.contains("\"client|id\""));
        }
    }

    #[test]
    fn lists_names() {
        let mut shell = Shell::new();
        let names =
            |reply: &str| -> Vec<String> { reply.split('"').skip(1).step_by(2).map(str::to_owned).collect() };
        let all = names(&shell.run("COMMAND LIST").reply);
        assert_eq!(all.len(), registry().rows());
        for (line, listed) in [
            ("COMMAND LIST FILTERBY PATTERN nosuch*", &[][..]),
            ("COMMAND LIST FILTERBY PATTERN OBJECT|?r*", &["object|freq"]),
            ("COMMAND LIST FILTERBY pattern renam[ez]", &["rename"]),
            ("COMMAND LIST FILTERBY MODULE any", &[]),
            ("COMMAND LIST FILTERBY ACLCAT nonsense", &[]),
        ] {
            assert_eq!(names(&shell.run(line).reply), listed, "{line}");
        }
        let admin = names(&shell.run("COMMAND LIST FILTERBY ACLCAT Admin").reply);
        assert!(admin.contains(&"client|kill".to_owned()) && !admin.contains(&"get".to_owned()));
        for line in [
            "COMMAND LIST FILTERBY",
            "COMMAND LIST FOO PATTERN x",
            "COMMAND LIST FILTERBY FOO x",
        ] {
            shell.check(&[(line, "-ERR syntax error")]);
        }
    }

    #[test]
    fn picks_keys() {
        Shell::new().check(&[
            ("COMMAND GETKEYS mset a b c d", "[\"a\", \"c\"]"),
            ("COMMAND GETKEYS object encoding x", "[\"x\"]"),
            (
                "COMMAND GETKEYSANDFLAGS rename a b",
                "[[\"a\", [+RW, +access, +delete]], [\"b\", [+OW, +update]]]",
            ),
            ("COMMAND GETKEYSANDFLAGS set a b", "[[\"a\", [+OW, +update]]]"),
            (
                "COMMAND GETKEYSANDFLAGS set a b get",
                "[[\"a\", [+RW, +access, +update]]]",
            ),
            ("COMMAND GETKEYS nope x", "-ERR Invalid command specified"),
            ("COMMAND GETKEYS object nope x", "-ERR Invalid command specified"),
            ("COMMAND GETKEYS ping x", "-ERR The command has no key arguments"),
            (
                "COMMAND GETKEYS get a b",
                "-ERR Invalid number of arguments specified for command",
            ),
            (
                "COMMAND GETKEYS object encoding",
                "-ERR Invalid number of arguments specified for command",
            ),
            ("COMMAND GETKEYS eval script 2 a b c", "[\"a\", \"b\"]"),
            ("COMMAND GETKEYS fcall f 0 c", "[]"),
            ("COMMAND GETKEYS migrate h p k 0 1", "[\"k\"]"),
            ("COMMAND GETKEYS migrate h p \"\" 0 1 keys a b", "[\"a\", \"b\"]"),
            (
                "COMMAND GETKEYS bgsave schedule x",
                "-ERR The command has no key arguments",
            ),
        ]);
        let reply = Shell::new().resp3().run("COMMAND GETKEYSANDFLAGS get a").reply;
        assert_eq!(reply, "[[\"a\", ~[+RO, +access]]]");
    }

    #[test]
    fn help_lists_every_subcommand() {
        let reply = Shell::new().run("COMMAND HELP").reply;
        for subcommand in COMMANDS[0].subcommands {
            assert!(
                reply.contains(&format!("+{}", subcommand.name.to_ascii_uppercase())),
                "{}",
                subcommand.name
            );
        }
    }
}
