//! ACL: users and their rules, the log of what was refused, the file of users.

use shardis_protocol::{Arguments, Encoder};
use shardis_storage::number::DoubleText;

use super::catalogue::{Rows, read};
use super::{names, registry};
use crate::acl::{BadRule, Reason, Selector, User, UserDefaults, Users, may_be_secret};
use crate::config::{AuditEvents, replace_file};
use crate::error::ReplyError;
use crate::exec::arguments::{bad_subcommand, int, is};
use crate::exec::{Closing, CommandResult, Session};
use crate::limits::PASSWORD_BITS_MAX;
use crate::spec::{Arg, Arity, Audited, Category, Command, Doc, Flags, Group, Registered, Runs};

/// Flags of subcommands that anybody may use.
const ANY_TIME: Flags = Flags::NOSCRIPT.union(Flags::LOADING).union(Flags::STALE);

/// Common part of the rows for operators.
const OPERATOR: Command = Command {
    arity: Arity::Exactly(2),
    flags: Flags::ADMIN.union(ANY_TIME),
    ..Command::BLANK
};

/// Common part of the rows that change users: they are answered when no command runs any more that the users before the change
/// permitted.
const CHANGE: Command = Command {
    flags: OPERATOR.flags.union(Flags::ORDERED).union(Flags::FENCES),
    tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
    ..OPERATOR
};

const DOC: Doc = Doc {
    since: "6.0.0",
    group: Group::Server,
    complexity: "O(N) for N users",
    ..Doc::BLANK
};

const USERNAME: Arg = Arg::string("username");

/// The audit log names users that the slow log does not.
const DELETES_USERS: Audited = Audited {
    conceals: Some(|_, _| false),
    ..Audited::USERS
};

/// The audit log shows rules, but for passwords and what may be one.
const CHANGES_RULES: Audited = Audited {
    conceals: Some(|args, index| index > 2 && may_be_secret(args.at(index))),
    ..Audited::USERS
};

/// ACL LOG changes something only if it empties the log.
const EMPTIES_LOG: Audited = Audited {
    events: |args| match args.get(2) {
        Some(word) if is(word, "RESET") => AuditEvents::USERS,
        _ => AuditEvents::empty(),
    },
    ..Audited::USERS
};

pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "acl",
    arity: Arity::AtLeast(2),
    runs: Runs::Container,
    doc: &Doc {
        complexity: "That of the subcommand",
        summary: "Groups the commands about users and their rules.",
        ..DOC
    },
    subcommands: &[
        Command {
            name: "cat",
            arity: Arity::AtLeast(2),
            flags: ANY_TIME,
            runs: Runs::OnSession(cat),
            doc: &Doc {
                complexity: "O(1), as the categories and commands are a fixed set",
                summary: "Lists the categories, or the commands in one.",
                args: &[Arg::string("category").optional()],
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "deluser",
            arity: Arity::AtLeast(3),
            runs: Runs::OnSession(deluser),
            conceals: Some(|_, index| index > 1),
            audited: Some(&DELETES_USERS),
            doc: &Doc {
                complexity: "O(1) amortized considering the typical user",
                summary: "Deletes users, and closes their connections.",
                args: &[USERNAME.multiple()],
                ..DOC
            },
            ..CHANGE
        },
        Command {
            name: "dryrun",
            arity: Arity::AtLeast(4),
            runs: Runs::OnSession(dryrun),
            doc: &Doc {
                since: "7.0.0",
                complexity: "O(1)",
                summary: "Tells whether a user may run a command, without running it.",
                args: &[
                    USERNAME,
                    Arg::string("command"),
                    Arg::string("arg").optional().multiple(),
                ],
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "genpass",
            arity: Arity::AtLeast(2),
            flags: ANY_TIME,
            runs: Runs::OnSession(genpass),
            doc: &Doc {
                complexity: "O(1)",
                summary: "Makes a random password.",
                args: &[Arg::integer("bits").optional()],
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "getuser",
            arity: Arity::Exactly(3),
            runs: Runs::OnSession(getuser),
            conceals: Some(|_, index| index > 1),
            doc: &Doc {
                complexity: "O(N) for N passwords, commands and patterns of the user",
                summary: "Shows the rules of a user.",
                history: &[
                    ("6.2.0", "Patterns of channels."),
                    (
                        "7.0.0",
                        "Selectors; patterns of keys and channels in the form of rules.",
                    ),
                ],
                args: &[USERNAME],
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "help",
            flags: Flags::LOADING.union(Flags::STALE),
            runs: Runs::OnSession(help),
            doc: &Doc {
                complexity: "O(1)",
                summary: "Lists the subcommands.",
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "list",
            runs: Runs::OnSession(list),
            doc: &Doc {
                summary: "Shows all users in the form of lines of a file.",
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "load",
            tips: &[],
            runs: Runs::OnSession(load),
            audited: Some(&Audited::USERS),
            doc: &Doc {
                summary: "Reads the users anew from their file.",
                ..DOC
            },
            ..CHANGE
        },
        Command {
            name: "log",
            arity: Arity::AtLeast(2),
            runs: Runs::OnSession(log),
            audited: Some(&EMPTIES_LOG),
            doc: &Doc {
                complexity: "O(N) for N entries",
                summary: "Shows what users were refused.",
                args: &[
                    Arg::one_of("operation", &[Arg::integer("count"), Arg::flag("reset", "RESET")])
                        .optional(),
                ],
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "save",
            tips: CHANGE.tips,
            runs: Runs::OnSession(save),
            audited: Some(&Audited::USERS),
            doc: &Doc {
                summary: "Writes the users to their file.",
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "setuser",
            arity: Arity::AtLeast(3),
            runs: Runs::OnSession(setuser),
            conceals: Some(|_, index| index > 1),
            audited: Some(&CHANGES_RULES),
            doc: &Doc {
                complexity: "O(N) for N rules",
                summary: "Changes the rules of a user, who is made if there is none of that name.",
                history: &[
                    ("6.2.0", "Patterns of channels."),
                    ("7.0.0", "Selectors, and rights on keys."),
                ],
                args: &[USERNAME, Arg::string("rule").optional().multiple()],
                ..DOC
            },
            ..CHANGE
        },
        Command {
            name: "users",
            runs: Runs::OnSession(users),
            doc: &Doc {
                summary: "Lists the names of all users.",
                ..DOC
            },
            ..OPERATOR
        },
        Command {
            name: "whoami",
            flags: ANY_TIME,
            runs: Runs::OnSession(whoami),
            doc: &Doc {
                complexity: "O(1)",
                summary: "Tells the user that this connection acts as.",
                ..DOC
            },
            ..OPERATOR
        },
    ],
    ..Command::BLANK
}];

/// ACL CAT [category]
fn cat(session: &mut Session<'_>) -> CommandResult {
    let name = match session.args.len() {
        2 => {
            let names: Vec<_> = Category::all().names().collect();
            session.reply.array(names.len());
            names
                .iter()
                .for_each(|name| session.reply.bulk(&name.as_bytes()[1..]));
            return Ok(());
        }
        3 => session.args.at(2),
        _ => return Err(bad_subcommand(session.args)),
    };
    let shown = &name[..name.len().min(CATEGORY_SHOWN_BYTES)];
    let category = Category::by_name(name)
        .ok_or_else(|| ReplyError::Bytes([b"ERR Unknown category '", shown, b"'"].concat()))?;
    let all = registry()
        .all()
        .iter()
        .flat_map(|known| std::iter::once(*known).chain(&known.subcommands));
    let within: Vec<&Registered> = all
        .filter(|known| known.row.categories().contains(category))
        .collect();
    session.reply.array(within.len());
    within
        .iter()
        .for_each(|known| session.reply.bulk(known.full_name.as_bytes()));
    Ok(())
}

/// Bytes of an unknown category that the error quotes.
const CATEGORY_SHOWN_BYTES: usize = 128;

/// ACL SETUSER username [rule ...]
fn setuser(session: &mut Session<'_>) -> CommandResult {
    let name = session.args.at(2);
    if !Users::is_valid_name(name) {
        return Err(ReplyError::Fixed(
            "ERR Usernames can't contain spaces or null characters",
        ));
    }
    let defaults = UserDefaults::from(&**session.node.settings.load());
    let rules = session.args.tail(3);
    session.node.acl.change(|users| {
        let before = users.find(name).map(|user| User::clone(user));
        let user = before
            .unwrap_or_else(|| User::new(name, defaults, &Rows))
            .with(rules.iter(), defaults, &Rows)
            .map_err(|bad| error_of(&bad))?;
        users.set(user);
        Ok::<_, ReplyError>(())
    })?;
    warn_of_first_arguments(session, rules);
    end_change(session);
    session.reply.ok();
    Ok(())
}

fn error_of(bad: &BadRule) -> ReplyError {
    // Redis quotes words as C strings.
    let shown = |word: &[u8]| word.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
    ReplyError::Bytes(match bad {
        BadRule::Word(word, error) => [
            b"ERR Error in ACL SETUSER modifier '",
            &shown(word)[..],
            b"': ",
            error.to_string().as_bytes(),
        ]
        .concat(),
        BadRule::Unmatched(word) => [
            b"ERR Unmatched parenthesis in acl selector starting at '",
            &shown(word)[..],
            b"'.",
        ]
        .concat(),
    })
}

/// Logs rules that permit a command with one first argument only, which Redis deprecates.
fn warn_of_first_arguments(session: &Session<'_>, rules: Arguments<'_>) {
    let is_first_argument = |rule: &[u8]| {
        let name = rule.strip_prefix(b"+")?.split(|&byte| byte == b'|').next()?;
        let command = registry().find(name)?;
        Some(rule.len() > name.len() + 1 && command.subcommands.is_empty())
    };
    for rule in rules.iter().filter(|rule| is_first_argument(rule) == Some(true)) {
        session.node.log.warning(format_args!(
            "Deprecation warning: Allowing a first arg of an otherwise blocked command is a misuse of ACL and may get disabled in \
             the future (offender: {})",
            rule.escape_ascii()
        ));
    }
}

/// Has clients follow a change of the users: this one at once, so that it still gets the reply, all others before the reply.
fn end_change(session: &mut Session<'_>) {
    session
        .client
        .follow_users(&session.node.acl, Closing::AfterReply);
    session.node.ring_all();
}

/// ACL DELUSER username [username ...]
fn deluser(session: &mut Session<'_>) -> CommandResult {
    let names = session.args.tail(2);
    if names.iter().any(Users::is_default) {
        return Err(ReplyError::Fixed("ERR The 'default' user cannot be removed"));
    }
    let removed = session.node.acl.change(|users| {
        let removed = names.iter().filter(|name| users.remove(name)).count();
        Ok::<_, ReplyError>(removed)
    })?;
    end_change(session);
    session.reply.integer(removed as i64);
    Ok(())
}

/// ACL GETUSER username
fn getuser(session: &mut Session<'_>) -> CommandResult {
    let users = session.node.acl.users();
    let Some(user) = users.find(session.args.at(2)) else {
        session.reply.null();
        return Ok(());
    };
    let reply = &mut session.reply;
    reply.map(6);
    reply.bulk(b"flags");
    let flags: Vec<_> = user.flags().collect();
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    reply.array(user.passwords().len());
    user.passwords().for_each(|hash| reply.bulk(hash));
    show_selector(reply, user.root());
    reply.bulk(b"selectors");
    reply.array(user.selectors().len());
    for selector in user.selectors() {
        reply.map(3);
        show_selector(reply, selector);
    }
    Ok(())
}

/// Encodes the three fields of a selector.
fn show_selector(reply: &mut Encoder<'_>, selector: &Selector) {
    reply.bulk(b"commands");
    reply.bulk(&selector.describe_commands());
    reply.bulk(b"keys");
    reply.bulk(&selector.describe_keys());
    reply.bulk(b"channels");
    reply.bulk(&selector.describe_channels());
}

/// ACL LIST
fn list(session: &mut Session<'_>) -> CommandResult {
    let users = session.node.acl.users();
    session.reply.array(users.all().len());
    for user in users.all() {
        session.reply.bulk(&user.describe());
    }
    Ok(())
}

/// ACL USERS
fn users(session: &mut Session<'_>) -> CommandResult {
    let users = session.node.acl.users();
    session.reply.array(users.all().len());
    for user in users.all() {
        session.reply.bulk(user.name());
    }
    Ok(())
}

/// ACL WHOAMI
fn whoami(session: &mut Session<'_>) -> CommandResult {
    session.reply.bulk(session.client.identity.user().name());
    Ok(())
}

/// ACL GENPASS [bits]
fn genpass(session: &mut Session<'_>) -> CommandResult {
    let bits = match session.args.len() {
        2 => PASSWORD_BITS,
        3 => int(session.args.at(2))?,
        _ => return Err(bad_subcommand(session.args)),
    };
    let bits = usize::try_from(bits)
        .ok()
        .filter(|bits| (1..=PASSWORD_BITS_MAX).contains(bits));
    let digits = bits.map(|bits| bits.div_ceil(4)).ok_or_else(|| {
        ReplyError::Text(format!(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to \
             {PASSWORD_BITS_MAX}"
        ))
    })?;
    // A password must not follow from the seed of a node.
    let bytes: [u8; PASSWORD_BITS_MAX / 8] = rand::random();
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    session.reply.bulk(&text.as_bytes()[..digits]);
    Ok(())
}

/// Bits of a password if the request does not tell.
const PASSWORD_BITS: i64 = 256;

/// ACL DRYRUN username command [arg ...]
fn dryrun(session: &mut Session<'_>) -> CommandResult {
    let users = session.node.acl.users();
    let name = session.args.at(2);
    let missing =
        |what: &[u8], name: &[u8]| ReplyError::Bytes([b"ERR ", what, b" '", name, b"' not found"].concat());
    let user = users.find(name).ok_or_else(|| missing(b"User", name))?;
    let request = session.args.tail(3);
    let command = named(session, request).ok_or_else(|| missing(b"Command", request.at(0)))?;
    if !command.row.arity.accepts(request.len()) {
        return Err(ReplyError::arity(command.full_name.as_str()));
    }
    match command.check_access(user, request) {
        Ok(()) => session.reply.ok(),
        Err(denied) => {
            let what: &[u8] = match denied.reason {
                Reason::Command => b"run",
                Reason::Key | Reason::Channel => b"access",
            };
            let (kind, object): (&[u8], &[u8]) = match denied.reason {
                Reason::Command => (b"command", command.full_name.as_bytes()),
                Reason::Key => (b"key", request.at(denied.position)),
                Reason::Channel => (b"channel", request.at(denied.position)),
            };
            let parts = [
                b"User ",
                user.name(),
                b" has no permissions to ",
                what,
                b" the '",
                object,
                b"' ",
                kind,
            ];
            session.reply.bulk(&parts.concat());
        }
    }
    Ok(())
}

/// The command, or subcommand, that a request names.
fn named(session: &Session<'_>, request: Arguments<'_>) -> Option<&'static Registered> {
    let command = names::find(request.at(0), &session.node.renames)?;
    match request.get(1) {
        Some(word) if !command.subcommands.is_empty() => command.subcommand(word),
        _ => Some(command),
    }
}

/// ACL LOG [count | RESET]
fn log(session: &mut Session<'_>) -> CommandResult {
    let count = match session.args.len() {
        2 => LOG_ENTRIES,
        3 if is(session.args.at(2), "RESET") => {
            session.node.acl.log().clear();
            session.reply.ok();
            return Ok(());
        }
        3 => match int(session.args.at(2))? {
            // No entries, as in Redis.
            ..0 => 0,
            count => count,
        },
        _ => return Err(bad_subcommand(session.args)),
    };
    let log = session.node.acl.log();
    let count = usize::try_from(count)
        .unwrap_or(usize::MAX)
        .min(log.entries().len());
    session.reply.array(count);
    for entry in log.entries().take(count) {
        let reply = &mut session.reply;
        reply.map(10);
        reply.bulk(b"count");
        reply.integer(entry.count as i64);
        for (field, text) in [
            (&b"reason"[..], entry.refusal.reason.name().as_bytes()),
            (b"context", entry.refusal.context.as_bytes()),
            (b"object", &entry.refusal.object),
            (b"username", &entry.refusal.user),
        ] {
            reply.bulk(field);
            reply.bulk(text);
        }
        let age_s = (session.now_ms - entry.updated_ms) as f64 / 1000.0;
        reply.bulk(b"age-seconds");
        reply.double(DoubleText::new(age_s).as_bytes());
        reply.bulk(b"client-info");
        reply.bulk(entry.refusal.client.as_bytes());
        for (field, number) in [
            (&b"entry-id"[..], entry.id as i64),
            (b"timestamp-created", entry.created_ms),
            (b"timestamp-last-updated", entry.updated_ms),
        ] {
            reply.bulk(field);
            reply.integer(number);
        }
    }
    Ok(())
}

/// Entries of the log that are shown if the request does not tell.
const LOG_ENTRIES: i64 = 10;

const NO_FILE: ReplyError = ReplyError::Fixed(
    "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER command and \
     then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store users in the Redis \
     configuration.",
);

/// ACL LOAD
fn load(session: &mut Session<'_>) -> CommandResult {
    let settings = session.node.settings.load();
    let file = settings.path(&settings.aclfile).ok_or(NO_FILE)?;
    let read = read(&file, &settings).map_err(|why| ReplyError::Text(format!("ERR {why}")))?;
    session.node.acl.change(|users| {
        users.take_over(&read);
        Ok::<_, ReplyError>(())
    })?;
    end_change(session);
    session.reply.ok();
    Ok(())
}

/// ACL SAVE
fn save(session: &mut Session<'_>) -> CommandResult {
    let settings = session.node.settings.load();
    let file = settings.path(&settings.aclfile).ok_or(NO_FILE)?;
    let users = session.node.acl.users();
    if let Err(error) = replace_file(&file, &users.text()) {
        session.node.log.warning(format_args!(
            "The users could not be saved to '{}': {error}",
            file.display()
        ));
        return Err(ReplyError::Fixed(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more information",
        ));
    }
    session.reply.ok();
    Ok(())
}

fn help(session: &mut Session<'_>) -> CommandResult {
    session.help(&[
        "CAT [<category>]",
        "    The categories, or the commands in one.",
        "DELUSER <username> [<username> ...]",
        "    Delete users, and close their connections.",
        "DRYRUN <username> <command> [<arg> ...]",
        "    Tell whether the user may run the command, without running it.",
        "GETUSER <username>",
        "    The rules of a user.",
        "GENPASS [<bits>]",
        "    A random password, of 256 bits unless told otherwise.",
        "LIST",
        "    All users in the form of lines of a file.",
        "LOAD",
        "    Read the users anew from their file.",
        "LOG [<count>|RESET]",
        "    What users were refused, the newest first, 10 entries unless told otherwise; or remove all entries.",
        "SAVE",
        "    Write the users to their file.",
        "SETUSER <username> <rule> [<rule> ...]",
        "    Change the rules of a user, who is made if there is none of that name.",
        "USERS",
        "    The names of all users.",
        "WHOAMI",
        "    The user that this connection acts as.",
    ])
}
