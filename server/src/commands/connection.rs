//! Commands on the connection itself: greeting, authentication, selected database.

use shardis_protocol::{Arguments, Resp};

use super::client::is_plain;
use crate::acl::{DEFAULT_USER, RefusalReason, Users};
use crate::config::AuditEvents;
use crate::error::ReplyError;
use crate::exec::arguments::{database_at, int, int32, is};
use crate::exec::{Closing, CommandResult, Identity, Session};
use crate::spec::argument::Deprecated;
use crate::spec::{Arg, Arity, Audited, Category, Command, Doc, Flags, Group, Runs};
use crate::state::{REDIS_VERSION, SHARDIS_VERSION};

/// Flags of commands that may run at any time, even before authentication.
const ALWAYS: Flags = Flags::NOSCRIPT
    .union(Flags::LOADING)
    .union(Flags::STALE)
    .union(Flags::FAST)
    .union(Flags::NO_AUTH)
    .union(Flags::ALLOW_BUSY);

/// AUTH is a login.
const LOGS_IN: Audited = Audited {
    events: |_| AuditEvents::LOGINS,
    conceals: None,
    claims: Some(|args| match args.len() {
        2 => DEFAULT_USER,
        _ => args.at(1),
    }),
};

/// HELLO is a login if it has a password.
const MAY_LOG_IN: Audited = Audited {
    events: |args| match credential(args) {
        Some(_) => AuditEvents::LOGINS,
        None => AuditEvents::empty(),
    },
    conceals: None,
    claims: Some(|args| credential(args).map_or(DEFAULT_USER, |place| args.at(place))),
};

pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "auth",
        arity: Arity::AtLeast(2),
        flags: ALWAYS,
        acl: Category::CONNECTION,
        runs: Runs::OnSession(auth),
        conceals: Some(|_, index| index > 0),
        audited: Some(&LOGS_IN),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Connection,
            complexity: "O(N) for N passwords of the user",
            summary: "Tells the server who the client is.",
            history: &[("6.0.0", "A user name before the password.")],
            args: &[
                Arg::string("username").since("6.0.0").optional(),
                Arg::string("password"),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "echo",
        arity: Arity::Exactly(2),
        flags: Flags::LOADING.union(Flags::STALE).union(Flags::FAST),
        acl: Category::CONNECTION,
        runs: Runs::OnSession(echo),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Connection,
            complexity: "O(1)",
            summary: "Sends a message back.",
            args: &[Arg::string("message")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "hello",
        arity: Arity::AtLeast(1),
        flags: ALWAYS,
        acl: Category::CONNECTION,
        runs: Runs::OnSession(hello),
        conceals: Some(is_credential),
        audited: Some(&MAY_LOG_IN),
        doc: &Doc {
            since: "6.0.0",
            group: Group::Connection,
            complexity: "O(1)",
            summary: "Chooses the protocol, and tells about the server and the connection.",
            history: &[(
                "6.2.0",
                "Without a version nothing is changed, and the reply is the same.",
            )],
            args: &[Arg::block(
                "arguments",
                &[
                    Arg::integer("protover"),
                    Arg::block("auth", &[Arg::string("username"), Arg::string("password")])
                        .token("AUTH")
                        .optional(),
                    Arg::string("clientname").token("SETNAME").optional(),
                ],
            )
            .optional()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "ping",
        arity: Arity::AtLeast(1),
        flags: Flags::FAST
            .union(Flags::WHILE_SUBSCRIBED)
            .union(Flags::TELLS_HEALTH),
        acl: Category::CONNECTION,
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        runs: Runs::OnSession(ping),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Connection,
            complexity: "O(1)",
            summary: "Shows that the server answers.",
            args: &[Arg::string("message").optional()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "quit",
        arity: Arity::AtLeast(1),
        flags: ALWAYS.union(Flags::NOT_QUEUED).union(Flags::WHILE_SUBSCRIBED),
        acl: Category::CONNECTION,
        runs: Runs::OnSession(quit),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Connection,
            complexity: "O(1)",
            summary: "Ends the connection.",
            deprecated: Some(Deprecated {
                since: "7.2.0",
                replaced_by: "closing the connection",
            }),
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "reset",
        arity: Arity::Exactly(1),
        flags: ALWAYS
            .union(Flags::NOT_QUEUED)
            .union(Flags::WHILE_SUBSCRIBED)
            .union(Flags::LEAVES),
        acl: Category::CONNECTION,
        runs: Runs::OnSession(reset),
        doc: &Doc {
            since: "6.2.0",
            group: Group::Connection,
            complexity: "O(1)",
            summary: "Takes the connection back to how it was when it was new.",
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "select",
        arity: Arity::Exactly(2),
        flags: Flags::LOADING
            .union(Flags::STALE)
            .union(Flags::FAST)
            .union(Flags::ALLOW_BUSY),
        acl: Category::CONNECTION,
        runs: Runs::OnSession(select),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Connection,
            complexity: "O(1)",
            summary: "Chooses the database that the commands to come work on.",
            args: &[Arg::integer("index")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

fn ping(session: &mut Session<'_>) -> CommandResult {
    if session.args.len() > 2 {
        return Err(ReplyError::arity("ping"));
    }
    let message = session.args.get(1);
    // A RESP2 subscriber expects a reply in the shape of a message.
    if session.client.is_subscriber() && session.client.resp == Resp::V2 {
        session.reply.array(2);
        session.reply.bulk(b"pong");
        session.reply.bulk(message.unwrap_or_default());
    } else if let Some(message) = message {
        session.reply.bulk(message);
    } else {
        session.reply.simple("PONG");
    }
    Ok(())
}

fn echo(session: &mut Session<'_>) -> CommandResult {
    session.reply.bulk(session.args.at(1));
    Ok(())
}

fn select(session: &mut Session<'_>) -> CommandResult {
    let settings = session.node.settings.load();
    let chosen = int32(session.args.at(1))?;
    if settings.cluster_enabled && chosen != 0 {
        return Err(ReplyError::Fixed("ERR SELECT is not allowed in cluster mode"));
    }
    session.client.db = database_at(chosen, settings.databases as usize)?;
    session.reply.ok();
    Ok(())
}

fn quit(session: &mut Session<'_>) -> CommandResult {
    session.client.closing = Closing::AfterReply;
    session.reply.ok();
    Ok(())
}

fn reset(session: &mut Session<'_>) -> CommandResult {
    let identity = Identity::of_new_client(&session.node.acl.users());
    session.client.leave_all(&session.node.pubsub);
    session.client.end_tracking(&session.node.tracking);
    session.client.reset(identity);
    session.reply.set_resp(session.client.resp);
    session.reply.simple("RESET");
    Ok(())
}

fn auth(session: &mut Session<'_>) -> CommandResult {
    let users = session.node.acl.users();
    let (user, password) = match session.args.len() {
        2 if users.default_user().has_no_password() => return Err(ReplyError::NoPasswordSet),
        2 => (DEFAULT_USER, session.args.at(1)),
        3 => (session.args.at(1), session.args.at(2)),
        _ => return Err(ReplyError::Syntax),
    };
    authenticate(session, &users, user, password)?;
    session.reply.ok();
    Ok(())
}

/// Has the client act as a user, if the password is right. A user who does not exist takes as long as one who does.
fn authenticate(session: &mut Session<'_>, users: &Users, name: &[u8], password: &[u8]) -> CommandResult {
    let known = users.find(name);
    let accepts = known.unwrap_or(users.default_user()).accepts(password);
    match known.filter(|_| accepts) {
        Some(user) => {
            session.client.identity.authenticate(user, users);
            Ok(())
        }
        None => {
            let object = session.args.at(0);
            session
                .client
                .note_refusal(RefusalReason::Auth, object, Some(name));
            Err(ReplyError::WrongPassword)
        }
    }
}

fn hello(session: &mut Session<'_>) -> CommandResult {
    let resp = session.args.get(1).map(protocol).transpose()?;
    let options = HelloOptions::parse(session)?;
    if let Some((user, password)) = options.credentials {
        let users = session.node.acl.users();
        authenticate(session, &users, user, password)?;
    }
    if !session.client.identity.has_authenticated() {
        return Err(ReplyError::Fixed(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> \
             <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = options.name {
        session.client.name = (!name.is_empty()).then(|| name.into());
    }
    if let Some(resp) = resp {
        session.client.resp = resp;
        session.reply.set_resp(resp);
    }
    introduce(session);
    Ok(())
}

/// The protocol of a version number.
fn protocol(version: &[u8]) -> Result<Resp, ReplyError> {
    match int(version) {
        Ok(2) => Ok(Resp::V2),
        Ok(3) => Ok(Resp::V3),
        Ok(_) => Err(ReplyError::UnsupportedProtocol),
        Err(_) => Err(ReplyError::Fixed(
            "ERR Protocol version is not an integer or out of range",
        )),
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct HelloOptions<'a> {
    credentials: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

impl<'a> HelloOptions<'a> {
    fn parse(session: &Session<'a>) -> Result<Self, ReplyError> {
        let mut parsed = Self::default();
        let mut words = session.args.iter().skip(2);
        while let Some(word) = words.next() {
            // The arguments of an option are consumed only if all of them are present.
            let mut ahead = words.clone();
            if is(word, "AUTH")
                && let (Some(user), Some(password)) = (ahead.next(), ahead.next())
            {
                parsed.credentials = Some((user, password));
                words = ahead;
            } else if is(word, "SETNAME")
                && let Some(name) = words.next()
            {
                if !is_plain(name) {
                    return Err(ReplyError::BadClientName);
                }
                parsed.name = Some(name);
            } else {
                let word = String::from_utf8_lossy(word);
                return Err(ReplyError::Text(format!(
                    "ERR Syntax error in HELLO option '{word}'"
                )));
            }
        }
        Ok(parsed)
    }
}

/// Whether an argument of HELLO is a user name or a password: one of the two after AUTH.
fn is_credential(args: Arguments<'_>, index: usize) -> bool {
    logins(args).any(|place| index == place + 1 || index == place + 2)
}

/// Position of the user name that HELLO logs in with, if it does.
fn credential(args: Arguments<'_>) -> Option<usize> {
    let last = logins(args).last()?;
    args.get(last + 2).map(|_| last + 1)
}

/// Positions of the word AUTH in HELLO.
fn logins(args: Arguments<'_>) -> impl Iterator<Item = usize> {
    let mut place = 2;
    std::iter::from_fn(move || {
        while let Some(word) = args.get(place) {
            let here = place;
            if is(word, "AUTH") {
                place += 3;
                return Some(here);
            }
            place += if is(word, "SETNAME") { 2 } else { 1 };
        }
        None
    })
}

/// Replies to HELLO with a description of the server and of this connection.
fn introduce(session: &mut Session<'_>) {
    let protocol = if session.client.resp == Resp::V3 { 3 } else { 2 };
    let reply = &mut session.reply;
    reply.map(8);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(protocol);
    reply.bulk(b"id");
    reply.integer(session.client.id as i64);
    reply.bulk(b"mode");
    let is_cluster = session.node.cluster.is_some();
    reply.bulk(if is_cluster {
        &b"cluster"[..]
    } else {
        b"standalone"
    });
    reply.bulk(b"role");
    let is_replica = session.node.replication.following.is_replica();
    reply.bulk(if is_replica { &b"replica"[..] } else { b"master" });
    reply.bulk(b"modules");
    reply.array(0);
    // A field of shardis, at the end: clients skip fields that they do not know.
    reply.bulk(b"shardis_version");
    reply.bulk(SHARDIS_VERSION.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::acl::UserDefaults;
    use crate::commands::testing::Shell;
    use crate::config::Settings;
    use crate::exec::ReplyMode;

    fn with_password(password: &str) -> Shell {
        let mut shell = Shell::new();
        let mut settings = Settings::clone(&shell.node.settings.load());
        settings.requirepass.0 = password.into();
        shell
            .node
            .acl
            .set_default_password(settings.requirepass.get(), UserDefaults::from(&settings));
        shell.node.settings.store(Arc::new(settings));
        shell.client.identity = Identity::of_new_client(&shell.node.acl.users());
        shell
    }

    #[test]
    fn answers() {
        Shell::new().check(&[
            ("PING", "+PONG"),
            ("ping hello", "\"hello\""),
            ("PING \"\"", "\"\""),
            ("PING a b", "-ERR wrong number of arguments for 'ping' command"),
            ("ECHO hello", "\"hello\""),
        ]);
    }

    #[test]
    fn selects_a_database() {
        let mut shell = Shell::new();
        shell.check(&[
            ("SELECT 15", "+OK"),
            ("SELECT 16", "-ERR DB index is out of range"),
            ("SELECT -1", "-ERR DB index is out of range"),
            ("SELECT x", "-ERR value is not an integer or out of range"),
            (
                "SELECT 99999999999",
                "-ERR value is out of range, value must between -2147483648 and 2147483647",
            ),
        ]);
        assert_eq!(shell.client.db, 15);
    }

    #[test]
    fn quits_after_the_reply() {
        let mut shell = Shell::new();
        shell.check(&[("QUIT now please", "+OK")]);
        assert_eq!(shell.client.closing, Closing::AfterReply);
    }

    #[test]
    fn resets_what_the_client_chose() {
        let mut shell = Shell::new().resp3();
        shell.client.db = 3;
        shell.client.name = Some(b"me".as_slice().into());
        shell.client.reply_mode = ReplyMode::Off;
        shell.client.no_touch = true;
        assert_eq!(shell.run("RESET").raw, b"+RESET\r\n");
        let client = &shell.client;
        assert_eq!(
            (client.db, client.resp, client.reply_mode),
            (0, Resp::V2, ReplyMode::On)
        );
        assert!(client.name.is_none() && !client.no_touch && client.identity.has_authenticated());
        let mut shell = with_password("secret");
        shell.check(&[("AUTH secret", "+OK"), ("RESET", "+RESET")]);
        assert!(!shell.client.identity.has_authenticated());
    }

    #[test]
    fn without_a_password_anything_will_do() {
        Shell::new().check(&[
            (
                "AUTH x",
                "-ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?",
            ),
            ("AUTH default x", "+OK"),
            ("AUTH foo x", "-WRONGPASS invalid username-password pair or user is disabled."),
            ("AUTH a b c", "-ERR syntax error"),
        ]);
    }

    #[test]
    fn a_password_must_be_right() {
        let mut shell = with_password("secret");
        let wrong = "-WRONGPASS invalid username-password pair or user is disabled.";
        for line in [
            "AUTH Secret",
            "AUTH secre",
            "AUTH secrets",
            "AUTH \"\"",
            "AUTH Default secret",
            "AUTH default x",
        ] {
            shell.check(&[(line, wrong)]);
            assert!(!shell.client.identity.has_authenticated(), "{line}");
        }
        shell.check(&[("AUTH secret", "+OK")]);
        assert!(shell.client.identity.has_authenticated());
        // A wrong password later does not undo it.
        shell.check(&[("AUTH x", wrong)]);
        assert!(shell.client.identity.has_authenticated());
    }

    #[test]
    fn introduces_itself() {
        let mut shell = Shell::new();
        let ours = format!("\"shardis_version\", \"{SHARDIS_VERSION}\"");
        let two = "\"server\", \"redis\", \"version\", \"7.2.4\", \"proto\", :2, \"id\", :1, \"mode\", \"standalone\", \
                   \"role\", \"master\", \"modules\", []";
        assert_eq!(shell.run("HELLO").reply, format!("[{two}, {ours}]"));
        let reply = shell.run("HELLO 3").reply;
        assert!(
            reply.starts_with("{\"server\": \"redis\", \"version\": \"7.2.4\", \"proto\": :3, \"id\": :1, ")
        );
        assert_eq!(shell.client.resp, Resp::V3);
        assert!(shell.run("HELLO").reply.contains("\"proto\": :3"));
        assert!(shell.run("HELLO 2").reply.starts_with("[\"server\""));
    }

    #[test]
    fn hello_names_and_authenticates() {
        let mut shell = with_password("secret");
        assert!(
            shell
                .run("HELLO 3")
                .reply
                .starts_with("-NOAUTH HELLO must be called with the client already ")
        );
        shell.check(&[
            (
                "HELLO 3 AUTH default x",
                "-WRONGPASS invalid username-password pair or user is disabled.",
            ),
            (
                "HELLO 3 SETNAME \"a b\"",
                "-ERR Client names cannot contain spaces, newlines or special characters.",
            ),
        ]);
        assert_eq!(shell.client.resp, Resp::V2);
        assert!(
            shell
                .run("HELLO 3 setname me auth default secret")
                .reply
                .starts_with('{')
        );
        assert!(shell.client.identity.has_authenticated());
        assert_eq!(shell.client.name.as_deref(), Some(&b"me"[..]));
        shell.run("HELLO 2 SETNAME \"\"");
        assert!(shell.client.name.is_none());
    }

    #[test]
    fn wrong_greetings() {
        Shell::new().check(&[
            (
                "HELLO x",
                "-ERR Protocol version is not an integer or out of range",
            ),
            ("HELLO 4", "-NOPROTO unsupported protocol version"),
            ("HELLO 1 FOO", "-NOPROTO unsupported protocol version"),
            ("HELLO 2 FOO", "-ERR Syntax error in HELLO option 'FOO'"),
            ("HELLO 2 AUTH a", "-ERR Syntax error in HELLO option 'AUTH'"),
            ("HELLO 2 SETNAME", "-ERR Syntax error in HELLO option 'SETNAME'"),
            (
                "HELLO 2 AUTH foo bar",
                "-WRONGPASS invalid username-password pair or user is disabled.",
            ),
        ]);
    }
}
