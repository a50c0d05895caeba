//! CLIENT: the connection of the client itself, and all connections of the node.
//!
//! Subcommands about all connections run on every loop, over the connections of that loop; their parts are merged
//! into one reply.

mod tracking;

use shardis_protocol::Arguments;
use shardis_storage::number::parse_i64;

use crate::acl::Users;
use crate::error::ReplyError;
use crate::exec::arguments::{bad_subcommand, int, is};
use crate::exec::client::Unblocked;
use crate::exec::{Client, Closing, CommandResult, Part, ReplyMode, Roster, Session};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, Runs};
use crate::state::PauseMode;

/// Flags of subcommands that may run in any state of the dataset, but not in a script.
const ANY_TIME: Flags = Flags::NOSCRIPT.union(Flags::LOADING).union(Flags::STALE);

/// Common part of the rows about the connection itself; these may also run while other clients wait for a script.
const OWN: Command = Command {
    flags: ANY_TIME.union(Flags::ALLOW_BUSY),
    acl: Category::CONNECTION,
    ..Command::BLANK
};

/// Common part of the rows about other connections, for operators.
const ADMIN: Command = Command {
    flags: Flags::ADMIN.union(ANY_TIME),
    acl: Category::CONNECTION,
    ..Command::BLANK
};

const DOC: Doc = Doc {
    group: Group::Connection,
    complexity: "O(1)",
    ..Doc::BLANK
};

const ALL_NODES: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

const ON_OR_OFF: Arg = Arg::one_of("enabled", &[Arg::flag("on", "ON"), Arg::flag("off", "OFF")]);

pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "client",
    arity: Arity::AtLeast(2),
    runs: Runs::Container,
    doc: &Doc {
        since: "2.4.0",
        group: Group::Connection,
        complexity: "That of the subcommand",
        summary: "Groups commands about client connections.",
        ..Doc::BLANK
    },
    subcommands: &[
        Command {
            name: "caching",
            arity: Arity::Exactly(3),
            flags: ANY_TIME.union(Flags::ALLOW_BUSY),
            runs: Runs::OnSession(tracking::caching),
            doc: &Doc {
                since: "6.0.0",
                summary: "Says whether the keys that the next command reads are to be tracked.",
                args: &[Arg::one_of(
                    "mode",
                    &[Arg::flag("yes", "YES"), Arg::flag("no", "NO")],
                )],
                ..DOC
            },
            ..OWN
        },
        Command {
            name: "getname",
            arity: Arity::Exactly(2),
            runs: Runs::OnSession(getname),
            doc: &Doc {
                since: "2.6.9",
                summary: "Tells the name of this connection.",
                ..DOC
            },
            ..OWN
        },
        Command {
            name: "getredir",
            arity: Arity::Exactly(2),
            runs: Runs::OnSession(tracking::getredir),
            doc: &Doc {
                since: "6.0.0",
                summary: "Tells which connection gets the invalidation messages of this one.",
                ..DOC
            },
            ..OWN
        },
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
            ..OWN
        },
        Command {
            name: "id",
            arity: Arity::Exactly(2),
            runs: Runs::OnSession(id),
            doc: &Doc {
                since: "5.0.0",
                summary: "Tells the number of this connection.",
                ..DOC
            },
            ..OWN
        },
        Command {
            name: "info",
            arity: Arity::Exactly(2),
            flags: ANY_TIME,
            tips: &["nondeterministic_output"],
            runs: Runs::OnEveryLoop(info, merge_info),
            doc: &Doc {
                since: "6.2.0",
                summary: "Describes this connection.",
                ..DOC
            },
            ..OWN
        },
        Command {
            name: "kill",
            arity: Arity::AtLeast(3),
            runs: Runs::OnEveryLoop(kill, merge_kill),
            doc: &Doc {
                since: "2.4.0",
                complexity: "O(N) for N connections",
                summary: "Closes connections.",
                history: &[
                    ("2.8.12", "Filters that can be combined."),
                    ("2.8.12", "The filter `ID`."),
                    ("3.2.0", "The type `master`."),
                    ("5.0.0", "The type `replica`, of which `slave` is another name."),
                    ("6.2.0", "The filter `LADDR`."),
                    ("7.4.0", "The filter `MAXAGE`."),
                ],
                args: &[Arg::one_of("filter", &[OLD_FILTER, NEW_FILTERS])],
                ..DOC
            },
            ..ADMIN
        },
        Command {
            name: "list",
            arity: Arity::AtLeast(2),
            tips: &["nondeterministic_output"],
            runs: Runs::OnEveryLoop(list, merge_list),
            doc: &Doc {
                since: "2.4.0",
                complexity: "O(N) for N connections",
                summary: "Describes connections.",
                history: &[
                    ("2.8.12", "The field `id`."),
                    ("5.0.0", "The filter `TYPE`."),
                    ("6.0.0", "The field `user`."),
                    (
                        "6.2.0",
                        "The fields `argv-mem`, `tot-mem`, `laddr` and `redir`, and the filter `ID`.",
                    ),
                    ("7.0.0", "The fields `resp`, `multi-mem`, `rbs` and `rbp`."),
                    ("7.0.3", "The field `ssub`."),
                ],
                args: &[
                    Arg::one_of(
                        "client-type",
                        &[
                            Arg::flag("normal", "NORMAL"),
                            Arg::flag("master", "MASTER"),
                            Arg::flag("replica", "REPLICA"),
                            Arg::flag("pubsub", "PUBSUB"),
                        ],
                    )
                    .token("TYPE")
                    .since("5.0.0")
                    .optional(),
                    Arg::integer("client-id")
                        .token("ID")
                        .since("6.2.0")
                        .optional()
                        .multiple(),
                ],
                ..DOC
            },
            ..ADMIN
        },
        Command {
            name: "capa",
            arity: Arity::AtLeast(3),
            runs: Runs::OnSession(capa),
            doc: &Doc {
                since: "8.0.0",
                summary: "Says what this client is able to do, so that the server may make use of it.",
                args: &[Arg::string("capability").multiple()],
                ..DOC
            },
            ..OWN
        },
        Command {
            name: "no-evict",
            arity: Arity::Exactly(3),
            flags: Flags::ADMIN.union(ANY_TIME).union(Flags::ALLOW_BUSY),
            runs: Runs::OnSession(no_evict),
            doc: &Doc {
                since: "7.0.0",
                summary: "Keeps this connection from being closed when connections take too much memory.",
                args: &[ON_OR_OFF],
                ..DOC
            },
            ..ADMIN
        },
        Command {
            name: "no-touch",
            arity: Arity::Exactly(3),
            runs: Runs::OnSession(no_touch),
            doc: &Doc {
                since: "7.2.0",
                summary: "Keeps the commands of this connection from counting as use of their keys.",
                args: &[ON_OR_OFF],
                ..DOC
            },
            ..OWN
        },
        Command {
            name: "pause",
            arity: Arity::AtLeast(3),
            flags: ADMIN.flags.union(Flags::ORDERED).union(Flags::FENCES),
            runs: Runs::OnSession(pause),
            doc: &Doc {
                since: "3.0.0",
                summary: "Holds the commands of all connections back for a while.",
                history: &[("6.2.0", "The modes, `WRITE` among them.")],
                args: &[
                    Arg::integer("timeout"),
                    Arg::one_of("mode", &[Arg::flag("write", "WRITE"), Arg::flag("all", "ALL")])
                        .since("6.2.0")
                        .optional(),
                ],
                ..DOC
            },
            ..ADMIN
        },
        Command {
            name: "reply",
            arity: Arity::Exactly(3),
            flags: ANY_TIME,
            runs: Runs::OnSession(reply),
            doc: &Doc {
                since: "3.2.0",
                summary: "Says whether this connection wants replies.",
                args: &[Arg::one_of(
                    "action",
                    &[
                        Arg::flag("on", "ON"),
                        Arg::flag("off", "OFF"),
                        Arg::flag("skip", "SKIP"),
                    ],
                )],
                ..DOC
            },
            ..OWN
        },
        Command {
            name: "setinfo",
            arity: Arity::Exactly(4),
            tips: ALL_NODES,
            runs: Runs::OnSession(setinfo),
            doc: &Doc {
                since: "7.2.0",
                summary: "Says which library this connection is made with.",
                args: &[Arg::one_of(
                    "attr",
                    &[
                        Arg::string("libname").token("LIB-NAME"),
                        Arg::string("libver").token("LIB-VER"),
                    ],
                )],
                ..DOC
            },
            ..OWN
        },
        Command {
            name: "setname",
            arity: Arity::Exactly(3),
            tips: ALL_NODES,
            runs: Runs::OnSession(setname),
            doc: &Doc {
                since: "2.6.9",
                summary: "Gives this connection a name.",
                args: &[Arg::string("connection-name")],
                ..DOC
            },
            ..OWN
        },
        Command {
            name: "trackinginfo",
            arity: Arity::Exactly(2),
            flags: ANY_TIME,
            runs: Runs::OnSession(tracking::trackinginfo),
            doc: &Doc {
                since: "6.2.0",
                summary: "Tells which keys of this connection are tracked, and how.",
                ..DOC
            },
            ..OWN
        },
        Command {
            name: "tracking",
            arity: Arity::AtLeast(3),
            flags: ANY_TIME,
            runs: Runs::OnEveryLoop(tracking::find, tracking::tracking),
            doc: &Doc {
                since: "6.0.0",
                complexity: "O(N) for N connections, once; then O(1) for each key read",
                summary: "Has this connection be told when keys change that it has read, or that begin in a certain way.",
                args: &[
                    Arg::one_of("status", &[Arg::flag("on", "ON"), Arg::flag("off", "OFF")]),
                    Arg::integer("client-id").token("REDIRECT").optional(),
                    Arg::string("prefix")
                        .token("PREFIX")
                        .optional()
                        .multiple()
                        .multiple_token(),
                    Arg::flag("BCAST", "BCAST").optional(),
                    Arg::flag("OPTIN", "OPTIN").optional(),
                    Arg::flag("OPTOUT", "OPTOUT").optional(),
                    Arg::flag("NOLOOP", "NOLOOP").optional(),
                ],
                ..DOC
            },
            ..OWN
        },
        Command {
            name: "unblock",
            arity: Arity::AtLeast(3),
            runs: Runs::OnEveryLoop(unblock, merge_unblock),
            doc: &Doc {
                since: "5.0.0",
                complexity: "O(log N) for N connections",
                summary: "Ends the waiting of another connection's blocking command.",
                args: &[
                    Arg::integer("client-id"),
                    Arg::one_of(
                        "unblock-type",
                        &[Arg::flag("timeout", "TIMEOUT"), Arg::flag("error", "ERROR")],
                    )
                    .optional(),
                ],
                ..DOC
            },
            ..ADMIN
        },
        Command {
            name: "unpause",
            arity: Arity::Exactly(2),
            flags: ADMIN.flags.union(Flags::ORDERED),
            runs: Runs::OnSession(unpause),
            doc: &Doc {
                since: "6.2.0",
                complexity: "O(N) for N connections held back",
                summary: "Ends what CLIENT PAUSE began.",
                ..DOC
            },
            ..ADMIN
        },
    ],
    ..Command::BLANK
}];

const OLD_FILTER: Arg = Arg::string("old-format").display("ip:port").deprecated("2.8.12");

const NEW_FILTERS: Arg = Arg::one_of(
    "new-format",
    &[
        Arg::integer("client-id").token("ID").since("2.8.12").optional(),
        Arg::one_of(
            "client-type",
            &[
                Arg::flag("normal", "NORMAL"),
                Arg::flag("master", "MASTER").since("3.2.0"),
                Arg::flag("slave", "SLAVE"),
                Arg::flag("replica", "REPLICA").since("5.0.0"),
                Arg::flag("pubsub", "PUBSUB"),
            ],
        )
        .token("TYPE")
        .since("2.8.12")
        .optional(),
        Arg::string("username").token("USER").optional(),
        Arg::string("addr").display("ip:port").token("ADDR").optional(),
        Arg::string("laddr")
            .display("ip:port")
            .token("LADDR")
            .since("6.2.0")
            .optional(),
        Arg::one_of("skipme", &[Arg::flag("yes", "YES"), Arg::flag("no", "NO")])
            .token("SKIPME")
            .optional(),
        Arg::integer("maxage").token("MAXAGE").since("7.4.0").optional(),
    ],
)
.multiple();

/// Whether a name can be shown in CLIENT LIST: it must be printable and without spaces.
pub(super) fn is_plain(name: &[u8]) -> bool {
    name.iter().all(u8::is_ascii_graphic)
}

/// The name, or none if it is empty.
fn named(name: &[u8]) -> Option<Box<[u8]>> {
    (!name.is_empty()).then(|| name.into())
}

fn id(session: &mut Session<'_>) -> CommandResult {
    session.reply.integer(session.client.id as i64);
    Ok(())
}

/// Line of the client itself. The command runs on every loop, because only the loop of a connection knows its
/// buffers.
fn info(clients: &mut Roster<'_>) -> Result<Part, ReplyError> {
    let asker = clients.asker;
    let argument_bytes = bytes_of(clients.args);
    let client = clients.clients.find(|client| client.id == asker);
    let line = client.map(|client| client.describe(clients.now_ms, argument_bytes) + "\n");
    Ok(Part {
        bytes: line.unwrap_or_default().into_bytes(),
        ..Part::default()
    })
}

fn merge_info(session: &mut Session<'_>, parts: &[Part]) -> CommandResult {
    let line = parts.iter().find(|part| !part.bytes.is_empty());
    session
        .reply
        .verbatim(*b"txt", line.map_or(&[], |part| &part.bytes));
    Ok(())
}

/// Bytes of the words of a request.
fn bytes_of(args: Arguments<'_>) -> usize {
    args.iter().map(<[u8]>::len).sum()
}

fn setname(session: &mut Session<'_>) -> CommandResult {
    let name = session.args.at(2);
    if !is_plain(name) {
        return Err(ReplyError::BadClientName);
    }
    session.client.name = named(name);
    session.reply.ok();
    Ok(())
}

fn getname(session: &mut Session<'_>) -> CommandResult {
    match &session.client.name {
        Some(name) => session.reply.bulk(name),
        None => session.reply.null(),
    }
    Ok(())
}

fn setinfo(session: &mut Session<'_>) -> CommandResult {
    let (attribute, value) = (session.args.at(2), session.args.at(3));
    let place = match attribute {
        word if is(word, "LIB-NAME") => &mut session.client.library_name,
        word if is(word, "LIB-VER") => &mut session.client.library_version,
        word => {
            let word = String::from_utf8_lossy(word);
            return Err(ReplyError::Text(format!("ERR Unrecognized option '{word}'")));
        }
    };
    if !is_plain(value) {
        let word = String::from_utf8_lossy(attribute);
        return Err(ReplyError::Text(format!(
            "ERR {word} cannot contain spaces, newlines or special characters."
        )));
    }
    *place = named(value);
    session.reply.ok();
    Ok(())
}

/// Sets capabilities. The known one is Valkey's; unknown ones are ignored.
fn capa(session: &mut Session<'_>) -> CommandResult {
    session.client.can_redirect |= session.args.iter().skip(2).any(|word| is(word, "REDIRECT"));
    session.reply.ok();
    Ok(())
}

/// Reads ON or OFF.
fn switch(word: &[u8]) -> Result<bool, ReplyError> {
    match word {
        word if is(word, "ON") => Ok(true),
        word if is(word, "OFF") => Ok(false),
        _ => Err(ReplyError::Syntax),
    }
}

fn no_evict(session: &mut Session<'_>) -> CommandResult {
    session.client.no_evict = switch(session.args.at(2))?;
    session.reply.ok();
    Ok(())
}

fn no_touch(session: &mut Session<'_>) -> CommandResult {
    session.client.no_touch = switch(session.args.at(2))?;
    session.reply.ok();
    Ok(())
}

fn reply(session: &mut Session<'_>) -> CommandResult {
    let mode = &mut session.client.reply_mode;
    match session.args.at(2) {
        word if is(word, "ON") => {
            *mode = ReplyMode::On;
            session.reply.ok();
        }
        word if is(word, "OFF") => *mode = ReplyMode::Off,
        // Replies are off anyway, so that there is none to skip.
        word if is(word, "SKIP") && *mode == ReplyMode::Off => {}
        word if is(word, "SKIP") => *mode = ReplyMode::SkipNext,
        _ => return Err(ReplyError::Syntax),
    }
    Ok(())
}

fn pause(session: &mut Session<'_>) -> CommandResult {
    let mode = match (session.args.len(), session.args.get(3)) {
        (3, _) => PauseMode::All,
        (4, Some(word)) if is(word, "ALL") => PauseMode::All,
        (4, Some(word)) if is(word, "WRITE") => PauseMode::Write,
        (4, _) => return Err(ReplyError::Fixed("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(bad_subcommand(session.args)),
    };
    let until_ms = timeout(session.args.at(2), session.now_ms)?;
    session.node.pause.begin(mode, until_ms, session.now_ms);
    session.reply.ok();
    Ok(())
}

/// The end of a timeout given in milliseconds, Unix milliseconds.
fn timeout(arg: &[u8], now_ms: i64) -> Result<i64, ReplyError> {
    let timeout = int(arg).map_err(|_| ReplyError::Fixed("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(ReplyError::Fixed("ERR timeout is negative"));
    }
    now_ms
        .checked_add(timeout)
        .ok_or(ReplyError::Fixed("ERR timeout is out of range"))
}

fn unpause(session: &mut Session<'_>) -> CommandResult {
    session.node.pause.end();
    session.node.ring_all();
    session.reply.ok();
    Ok(())
}

/// Types of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientType {
    Normal,
    Subscriber,
    Replica,
    Primary,
}

impl ClientType {
    fn of(client: &Client) -> Self {
        if client.is_primary {
            Self::Primary
        } else if client.is_replica {
            Self::Replica
        } else if client.is_subscriber() {
            Self::Subscriber
        } else {
            Self::Normal
        }
    }
}

/// Reads a type of connection.
fn kind(word: &[u8]) -> Result<ClientType, ReplyError> {
    match word {
        word if is(word, "NORMAL") => Ok(ClientType::Normal),
        word if is(word, "PUBSUB") => Ok(ClientType::Subscriber),
        word if is(word, "REPLICA") || is(word, "SLAVE") => Ok(ClientType::Replica),
        word if is(word, "MASTER") => Ok(ClientType::Primary),
        _ => Err(ReplyError::Text(format!(
            "ERR Unknown client type '{}'",
            String::from_utf8_lossy(word)
        ))),
    }
}

/// Selection of the connections that CLIENT LIST describes.
enum Listed {
    All,
    /// Connections of this type.
    Only(ClientType),
    /// Connections with these ids, in this order.
    Ids(Vec<i64>),
}

impl Listed {
    fn parse(args: Arguments<'_>) -> Result<Self, ReplyError> {
        match (args.len(), args.get(2)) {
            (2, _) => Ok(Self::All),
            (4, Some(word)) if is(word, "TYPE") => Ok(Self::Only(kind(args.at(3))?)),
            (4.., Some(word)) if is(word, "ID") => {
                let id = |arg| parse_i64(arg).ok_or(ReplyError::Fixed("ERR Invalid client ID"));
                Ok(Self::Ids(args.tail(3).iter().map(id).collect::<Result<_, _>>()?))
            }
            _ => Err(ReplyError::Syntax),
        }
    }

    fn includes(&self, client: &Client) -> bool {
        match self {
            Self::All => true,
            Self::Only(kind) => ClientType::of(client) == *kind,
            Self::Ids(ids) => ids.contains(&(client.id as i64)),
        }
    }
}

fn list(clients: &mut Roster<'_>) -> Result<Part, ReplyError> {
    let listed = Listed::parse(clients.args)?;
    let (asker, asking_bytes) = (clients.asker, bytes_of(clients.args));
    let mut part = Part::default();
    for client in &mut clients.clients {
        if listed.includes(&client) {
            part.count += 1;
            let argument_bytes = if client.id == asker { asking_bytes } else { 0 };
            let line = client.describe(clients.now_ms, argument_bytes);
            part.bytes.extend_from_slice(line.as_bytes());
            part.bytes.push(b'\n');
        }
    }
    Ok(part)
}

/// Sorts the lines of all loops by id, or puts them in the order in which the request lists the ids.
fn merge_list(session: &mut Session<'_>, parts: &[Part]) -> CommandResult {
    let lines = parts
        .iter()
        .flat_map(|part| part.bytes.split_inclusive(|&byte| byte == b'\n'));
    let mut lines: Vec<(i64, &[u8])> = lines.map(|line| (id_of(line), line)).collect();
    lines.sort_by_key(|&(id, _)| id);
    let text = match Listed::parse(session.args)? {
        Listed::Ids(ids) => {
            let line = |id: &i64| {
                lines
                    .binary_search_by_key(id, |&(id, _)| id)
                    .ok()
                    .map(|index| lines[index].1)
            };
            ids.iter().filter_map(line).collect::<Vec<_>>().concat()
        }
        Listed::All | Listed::Only(_) => lines.iter().map(|&(_, line)| line).collect::<Vec<_>>().concat(),
    };
    session.reply.verbatim(*b"txt", &text);
    Ok(())
}

/// The id that begins a line of CLIENT LIST.
fn id_of(line: &[u8]) -> i64 {
    let id = line
        .split(|&byte| byte == b' ')
        .next()
        .and_then(|field| field.strip_prefix(b"id="));
    id.and_then(parse_i64).unwrap_or_default()
}

/// Filters of CLIENT KILL.
#[derive(Debug)]
struct Killed<'a> {
    address: Option<&'a [u8]>,
    local_address: Option<&'a [u8]>,
    id: Option<i64>,
    /// Number of the user.
    user: Option<u64>,
    kind: Option<ClientType>,
    /// The least age of a connection, seconds.
    age_s: Option<i64>,
    skip_me: bool,
}

impl<'a> Killed<'a> {
    /// Reads either `CLIENT KILL addr` or filters, which must all match.
    fn parse(args: Arguments<'a>, users: &Users) -> Result<Self, ReplyError> {
        let mut killed = Self {
            address: None,
            local_address: None,
            id: None,
            user: None,
            kind: None,
            age_s: None,
            skip_me: true,
        };
        if args.len() == 3 {
            return Ok(Self {
                address: args.get(2),
                skip_me: false,
                ..killed
            });
        }
        let mut words = args.tail(2).iter();
        while let Some(word) = words.next() {
            killed.set(word, words.next().ok_or(ReplyError::Syntax)?, users)?;
        }
        Ok(killed)
    }

    fn set(&mut self, filter: &[u8], value: &'a [u8], users: &Users) -> Result<(), ReplyError> {
        match filter {
            word if is(word, "ID") => {
                let id = parse_i64(value).filter(|&id| id > 0);
                self.id = Some(id.ok_or(ReplyError::Fixed("ERR client-id should be greater than 0"))?);
            }
            word if is(word, "TYPE") => self.kind = Some(kind(value)?),
            word if is(word, "ADDR") => self.address = Some(value),
            word if is(word, "LADDR") => self.local_address = Some(value),
            word if is(word, "USER") => {
                let user = users.find(value);
                let missing = || ReplyError::Bytes([b"ERR No such user '", value, b"'"].concat());
                self.user = Some(user.ok_or_else(missing)?.id());
            }
            word if is(word, "MAXAGE") => {
                let age_s = parse_i64(value)
                    .ok_or(ReplyError::Fixed("ERR maxage is not an integer or out of range"))?;
                if age_s <= 0 {
                    return Err(ReplyError::Fixed("ERR maxage should be greater than 0"));
                }
                self.age_s = Some(age_s);
            }
            word if is(word, "SKIPME") && is(value, "YES") => self.skip_me = true,
            word if is(word, "SKIPME") && is(value, "NO") => self.skip_me = false,
            _ => return Err(ReplyError::Syntax),
        }
        Ok(())
    }

    fn includes(&self, client: &Client, asker: u64, now_ms: i64) -> bool {
        self.kind.is_none_or(|kind| ClientType::of(client) == kind)
            && self.address.is_none_or(|address| client.peer.remote().as_bytes() == address)
            && self.local_address.is_none_or(|address| client.peer.local().as_bytes() == address)
            && self.id.is_none_or(|id| client.id as i64 == id)
            && self.user.is_none_or(|user| client.identity.user().id() == user && !client.is_primary)
            // The ages are compared in whole seconds of the clock, like the field `age` of CLIENT LIST.
            && self.age_s.is_none_or(|age_s| (now_ms / 1000) - (client.created_ms / 1000) >= age_s)
            && !(self.skip_me && client.id == asker)
            // A connection that is being closed is not counted.
            && client.closing != Closing::Now
    }
}

fn kill(clients: &mut Roster<'_>) -> Result<Part, ReplyError> {
    let killed = Killed::parse(clients.args, clients.users)?;
    let mut part = Part::default();
    for mut client in &mut clients.clients {
        if killed.includes(&client, clients.asker, clients.now_ms) {
            // A client that kills its own connection gets the reply first.
            client.closing = if client.id == clients.asker {
                Closing::AfterReply
            } else {
                Closing::Now
            };
            part.count += 1;
        }
    }
    Ok(part)
}

fn merge_kill(session: &mut Session<'_>, parts: &[Part]) -> CommandResult {
    let killed: u64 = parts.iter().map(|part| part.count).sum();
    match (session.args.len(), killed) {
        (3, 0) => return Err(ReplyError::Fixed("ERR No such client")),
        (3, _) => session.reply.ok(),
        _ => session.reply.integer(killed as i64),
    }
    Ok(())
}

fn unblock(clients: &mut Roster<'_>) -> Result<Part, ReplyError> {
    let args = clients.args;
    let how = match (args.len(), args.get(3)) {
        (3, _) => Unblocked::TimedOut,
        (4, Some(word)) if is(word, "TIMEOUT") => Unblocked::TimedOut,
        (4, Some(word)) if is(word, "ERROR") => Unblocked::WithError,
        (4, _) => {
            return Err(ReplyError::Fixed(
                "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
            ));
        }
        _ => return Err(bad_subcommand(args)),
    };
    let id = int(args.at(2))?;
    let mut part = Part::default();
    for mut client in &mut clients.clients {
        if i64::try_from(client.id) != Ok(id) {
            continue;
        }
        // A client whose ticket has been claimed is no longer blocked.
        if client.waits.as_ref().is_some_and(|ticket| ticket.claim()) {
            client.unblocked = Some(how);
            part.count += 1;
        }
    }
    Ok(part)
}

fn merge_unblock(session: &mut Session<'_>, parts: &[Part]) -> CommandResult {
    session
        .reply
        .integer(parts.iter().map(|part| part.count).sum::<u64>() as i64);
    Ok(())
}

fn help(session: &mut Session<'_>) -> CommandResult {
    session.help(&[
        "CACHING (YES|NO)",
        "    Track what the next command reads, or not.",
        "CAPA <capability> [<capability> ...]",
        "    Say what this client is able to do: REDIRECT, go to another server when told so.",
        "GETNAME",
        "    The name of this connection.",
        "GETREDIR",
        "    The connection that gets the invalidation messages of this one.",
        "ID",
        "    The number of this connection.",
        "INFO",
        "    What CLIENT LIST says about this connection.",
        "KILL <ip:port>",
        "    Close the connection from that address.",
        "KILL <filter> <value> [<filter> <value> [...]]",
        "    Close the connections that fit all filters:",
        "    * ID <client-id>",
        "      The connection of that number.",
        "    * ADDR (<ip:port>|<unixsocket>:0)",
        "      Connections from that address.",
        "    * LADDR (<ip:port>|<unixsocket>:0)",
        "      Connections to that address of the server.",
        "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
        "      Connections of that type.",
        "    * USER <username>",
        "      Connections that authenticated as that user.",
        "    * MAXAGE <seconds>",
        "      Connections that are as old as that, or older.",
        "    * SKIPME (YES|NO)",
        "      Spare this connection (the default), or not.",
        "LIST [TYPE (NORMAL|MASTER|REPLICA|PUBSUB)|ID <client-id> [<client-id> ...]]",
        "    One line for each connection, of that type, or of those numbers.",
        "NO-EVICT (ON|OFF)",
        "    Keep this connection when others are closed to save memory.",
        "NO-TOUCH (ON|OFF)",
        "    Read and write keys without marking them as used.",
        "PAUSE <timeout> [WRITE|ALL]",
        "    Hold all commands back, or those that write, for so many milliseconds.",
        "REPLY (ON|OFF|SKIP)",
        "    Send replies to this connection, none at all, or none to the next command.",
        "SETINFO (LIB-NAME|LIB-VER) <value>",
        "    Say which library this connection uses.",
        "SETNAME <name>",
        "    Give this connection a name; an empty one takes it away.",
        "TRACKING (ON|OFF) [REDIRECT <client-id>] [BCAST] [PREFIX <prefix> [...]] [OPTIN] [OPTOUT] [NOLOOP]",
        "    Tell this connection, or that one, when keys change.",
        "TRACKINGINFO",
        "    Which keys of this connection are tracked, and how.",
        "UNBLOCK <client-id> [TIMEOUT|ERROR]",
        "    End the waiting of that connection as if its time were over, or with an error.",
        "UNPAUSE",
        "    Let the commands that wait go on.",
    ])
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::commands::testing::{START_MS, Shell};
    use crate::exec::{Identity, Peer};

    /// A shell whose client is number 1, with two more on another loop: 7 from port 7007 and 3 from port 7003.
    fn three_clients() -> Shell {
        let mut shell = Shell::new();
        for id in [7_u16, 3] {
            let peer = Peer::Tcp {
                remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 7000 + id)),
                local: SocketAddr::from((Ipv4Addr::LOCALHOST, 6379)),
            };
            let identity = Identity::of_new_client(&shell.node.acl.users());
            let client = Client::new(id.into(), peer, 10, START_MS, identity);
            shell.others.push(client);
        }
        shell
    }

    /// The ids in a reply of CLIENT LIST.
    fn ids(reply: &str) -> Vec<&str> {
        reply
            .split("id=")
            .skip(1)
            .map(|line| line.split(' ').next().unwrap())
            .collect()
    }

    #[test]
    fn capabilities_are_kept_until_reset() {
        let mut shell = Shell::new();
        shell.check(&[
            (
                "CLIENT CAPA",
                "-ERR wrong number of arguments for 'client|capa' command",
            ),
            ("CLIENT CAPA unheard-of", "+OK"),
        ]);
        assert!(!shell.run("CLIENT INFO").reply.contains(" capa="));
        shell.check(&[
            ("CLIENT CAPA other redirect", "+OK"),
            ("CLIENT CAPA other", "+OK"),
        ]);
        assert!(shell.run("CLIENT INFO").reply.contains(" capa=r"));
        shell.run("RESET");
        assert!(!shell.client.can_redirect);
    }

    #[test]
    fn names_the_connection() {
        let mut shell = Shell::new();
        shell.check(&[
            ("CLIENT ID", ":1"),
            ("CLIENT GETNAME", "nil"),
            ("CLIENT SETNAME me!", "+OK"),
            ("CLIENT GETNAME", "\"me!\""),
            (
                "CLIENT SETNAME \"a b\"",
                "-ERR Client names cannot contain spaces, newlines or special characters.",
            ),
            (
                "CLIENT SETNAME \"a\\n\"",
                "-ERR Client names cannot contain spaces, newlines or special characters.",
            ),
            ("CLIENT GETNAME", "\"me!\""),
            ("CLIENT SETNAME \"\"", "+OK"),
            ("CLIENT GETNAME", "nil"),
        ]);
    }

    #[test]
    fn names_the_library() {
        let mut shell = Shell::new();
        shell.check(&[
            ("CLIENT SETINFO lib-name redis-py(x)", "+OK"),
            ("CLIENT SETINFO LIB-VER 5.0", "+OK"),
            ("CLIENT SETINFO lib-foo 5", "-ERR Unrecognized option 'lib-foo'"),
            (
                "CLIENT SETINFO lib-ver \"5 0\"",
                "-ERR lib-ver cannot contain spaces, newlines or special characters.",
            ),
        ]);
        assert!(
            shell
                .run("CLIENT INFO")
                .reply
                .contains(" lib-name=redis-py(x) lib-ver=5.0 tot-net-in=")
        );
        shell.check(&[("CLIENT SETINFO LIB-NAME \"\"", "+OK")]);
        assert!(shell.client.library_name.is_none());
    }

    #[test]
    fn describes_the_connection() {
        let mut shell = Shell::new();
        shell.client.db = 3;
        shell.advance(5000);
        let reply = shell.run("CLIENT INFO").reply;
        assert!(
            reply.starts_with("\"id=1 addr=127.0.0.1:50000 laddr=127.0.0.1:6379 fd=8 name= age=5 "),
            "{reply}"
        );
        assert!(reply.contains(" db=3 ") && reply.ends_with("\\n\""), "{reply}");
        assert!(shell.resp3().run("CLIENT INFO").reply.starts_with("=txt:\"id=1 "));
    }

    #[test]
    fn lists_connections_in_order() {
        let mut shell = three_clients();
        for (line, listed) in [
            ("CLIENT LIST", &["1", "3", "7"][..]),
            ("CLIENT LIST TYPE normal", &["1", "3", "7"]),
            ("CLIENT LIST TYPE Replica", &[]),
            ("CLIENT LIST TYPE pubsub", &[]),
            ("CLIENT LIST ID 7 99 1 7", &["7", "1", "7"]),
            ("CLIENT LIST ID -5", &[]),
        ] {
            assert_eq!(ids(&shell.run(line).reply), listed, "{line}");
        }
        shell.check(&[
            ("CLIENT LIST FOO", "-ERR syntax error"),
            ("CLIENT LIST TYPE", "-ERR syntax error"),
            ("CLIENT LIST TYPE normal x", "-ERR syntax error"),
            ("CLIENT LIST TYPE foo", "-ERR Unknown client type 'foo'"),
            ("CLIENT LIST ID", "-ERR syntax error"),
            ("CLIENT LIST ID 1 x", "-ERR Invalid client ID"),
            ("CLIENT LIST ID 99", "\"\""),
        ]);
        assert!(shell.resp3().run("CLIENT LIST").reply.starts_with("=txt:"));
    }

    #[test]
    fn kills_by_address() {
        let mut shell = three_clients();
        shell.check(&[
            ("CLIENT KILL 127.0.0.1:1", "-ERR No such client"),
            ("CLIENT KILL 127.0.0.1:7003", "+OK"),
        ]);
        let closing: Vec<_> = shell.others.iter().map(|client| client.closing).collect();
        assert_eq!(closing, [Closing::No, Closing::Now]);
        shell.check(&[
            ("CLIENT KILL 127.0.0.1:7003", "-ERR No such client"),
            ("CLIENT KILL 127.0.0.1:50000", "+OK"),
        ]);
        assert_eq!(shell.client.closing, Closing::AfterReply);
    }

    #[test]
    fn kills_what_fits_all_filters() {
        for (filters, killed) in [
            ("ID 7", &[7][..]),
            ("ID 1", &[]),
            ("ID 1 SKIPME no", &[1]),
            ("ID 3 ID 7", &[7]),
            ("ADDR 127.0.0.1:7003", &[3]),
            ("ADDR 127.0.0.1:7003 ID 7", &[]),
            ("LADDR 127.0.0.1:6379", &[7, 3]),
            ("TYPE normal SKIPME YES", &[7, 3]),
            ("TYPE normal SKIPME NO", &[1, 7, 3]),
            ("TYPE replica SKIPME NO", &[]),
            ("TYPE master SKIPME NO", &[]),
            ("USER default", &[7, 3]),
        ] {
            let mut shell = three_clients();
            let reply = shell.run(&format!("CLIENT KILL {filters}")).reply;
            assert_eq!(reply, format!(":{}", killed.len()), "{filters}");
            let all = std::iter::once(&shell.client).chain(&shell.others);
            let closed: Vec<_> = all
                .filter(|client| client.closing != Closing::No)
                .map(|client| client.id)
                .collect();
            assert_eq!(closed, killed, "{filters}");
        }
    }

    #[test]
    fn wrong_filters_kill_nobody() {
        let mut shell = three_clients();
        shell.check(&[
            ("CLIENT KILL ID x", "-ERR client-id should be greater than 0"),
            ("CLIENT KILL ID 0", "-ERR client-id should be greater than 0"),
            ("CLIENT KILL TYPE foo", "-ERR Unknown client type 'foo'"),
            ("CLIENT KILL USER foo", "-ERR No such user 'foo'"),
            ("CLIENT KILL SKIPME foo", "-ERR syntax error"),
            ("CLIENT KILL FOO bar", "-ERR syntax error"),
            ("CLIENT KILL ID 7 ADDR", "-ERR syntax error"),
        ]);
        assert!(shell.others.iter().all(|client| client.closing == Closing::No));
    }

    #[test]
    fn pauses() {
        let mut shell = Shell::new();
        shell.check(&[
            ("CLIENT PAUSE x", "-ERR timeout is not an integer or out of range"),
            ("CLIENT PAUSE -1", "-ERR timeout is negative"),
            ("CLIENT PAUSE 9223372036854775807", "-ERR timeout is out of range"),
            (
                "CLIENT PAUSE x FOO",
                "-ERR CLIENT PAUSE mode must be WRITE or ALL",
            ),
            (
                "CLIENT PAUSE 1 ALL x",
                "-ERR unknown subcommand or wrong number of arguments for 'PAUSE'. Try CLIENT HELP.",
            ),
            ("CLIENT PAUSE 0", "+OK"),
        ]);
        let active = |shell: &Shell| shell.node.pause.active(shell.stamp.now_ms);
        assert_eq!(active(&shell), None);
        shell.check(&[("CLIENT PAUSE 100 write", "+OK")]);
        assert_eq!(active(&shell), Some((PauseMode::Write, START_MS + 100)));
        shell.check(&[("CLIENT PAUSE 50", "+OK")]);
        assert_eq!(active(&shell), Some((PauseMode::All, START_MS + 100)));
        shell.check(&[("CLIENT UNPAUSE", "+OK")]);
        assert_eq!(active(&shell), None);
    }

    #[test]
    fn replies_on_demand() {
        let mut shell = Shell::new();
        for (line, reply, mode) in [
            ("CLIENT REPLY skip", "", ReplyMode::SkipNext),
            ("CLIENT REPLY off", "", ReplyMode::Off),
            ("CLIENT REPLY SKIP", "", ReplyMode::Off),
            ("CLIENT REPLY foo", "-ERR syntax error", ReplyMode::Off),
            ("CLIENT REPLY ON", "+OK", ReplyMode::On),
        ] {
            assert_eq!(shell.run(line).reply, reply, "{line}");
            assert_eq!(shell.client.reply_mode, mode, "{line}");
        }
    }

    #[test]
    fn switches() {
        let mut shell = Shell::new();
        shell.check(&[("CLIENT NO-EVICT on", "+OK"), ("CLIENT NO-TOUCH ON", "+OK")]);
        assert!(shell.client.no_evict && shell.client.no_touch);
        assert!(shell.run("CLIENT INFO").reply.contains(" flags=eT "));
        shell.check(&[
            ("CLIENT NO-EVICT foo", "-ERR syntax error"),
            ("CLIENT NO-TOUCH foo", "-ERR syntax error"),
            ("CLIENT NO-EVICT OFF", "+OK"),
            ("CLIENT NO-TOUCH off", "+OK"),
        ]);
        assert!(!shell.client.no_evict && !shell.client.no_touch);
    }

    #[test]
    fn nobody_is_blocked() {
        three_clients().check(&[
            ("CLIENT UNBLOCK 3", ":0"),
            ("CLIENT UNBLOCK 3 error", ":0"),
            (
                "CLIENT UNBLOCK x FOO",
                "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
            ),
            ("CLIENT UNBLOCK x", "-ERR value is not an integer or out of range"),
            (
                "CLIENT UNBLOCK 3 ERROR x",
                "-ERR unknown subcommand or wrong number of arguments for 'UNBLOCK'. Try CLIENT HELP.",
            ),
        ]);
    }

    #[test]
    fn help_lists_every_subcommand() {
        let reply = Shell::new().run("CLIENT HELP").reply;
        for subcommand in COMMANDS[0].subcommands {
            assert!(
                reply.contains(&format!("+{}", subcommand.name.to_ascii_uppercase())),
                "{}",
                subcommand.name
            );
        }
    }
}
