//! Has the audit log tell of commands that are audited, and of requests that are denied.

use shardis_protocol::Arguments;

use super::admission::named;
use crate::audit::{Actor, Entry, Outcome, Room};
use crate::config::AuditEvents;
use crate::error::ReplyError;
use crate::exec::{Client, CommandResult, Standing};
use crate::observe::slowlog::{self, Words};
use crate::spec::{Audited, Registered};
use crate::state::Node;

/// An audited command that is running.
#[derive(Debug)]
pub(super) struct Begun {
    /// None when the audit log was off as the command began.
    room: Option<Room>,
    events: AuditEvents,
    actor: Actor,
    words: Words,
}

/// Finds room for the entry of a command that is about to run. None if the audit log is not to tell of it.
///
/// # Errors
/// When the command must not run, because it could not be recorded.
pub(super) fn begin(
    node: &Node,
    client: &Client,
    command: &'static Registered,
    audited: &Audited,
    args: Arguments<'_>,
) -> Result<Option<Begun>, ReplyError> {
    let events = (audited.events)(args);
    // A command may also switch the audit log on, which it should tell of then.
    let is_recorded = node.audit.records(events) || events.contains(AuditEvents::CONFIG);
    if !is_recorded || client.is_primary {
        return Ok(None);
    }
    let mut actor = actor_of(client);
    if let Some(claims) = audited.claims {
        actor.user = Some(claims(args).into());
    }
    let words = words(node, command, args);
    match node.audit.begin(events) {
        Ok(room) => Ok(Some(Begun {
            room,
            events,
            actor,
            words,
        })),
        Err(_) => {
            node.audit.record(events, || Entry {
                time_us: node.clock.now_us(),
                event: event_of(events),
                outcome: Outcome::Refused,
                reason: Some(b"audit".as_slice().into()),
                object: None,
                actor: Some(actor),
                command: words,
            });
            Err(ReplyError::Unrecordable)
        }
    }
}

/// Records a command that has run with this result.
pub(super) fn end(
    begun: Begun,
    node: &Node,
    command: &'static Registered,
    args: Arguments<'_>,
    result: &CommandResult,
) {
    let (outcome, reason) = match result {
        Ok(()) => (Outcome::Done, None),
        Err(ReplyError::WrongPassword) => (Outcome::Denied, Some(b"auth".as_slice().into())),
        Err(error) => (Outcome::Failed, Some(reason_of(error, command, args))),
    };
    let entry = || Entry {
        time_us: node.clock.now_us(),
        event: event_of(begun.events),
        outcome,
        reason,
        object: None,
        actor: Some(begun.actor),
        command: begun.words,
    };
    match begun.room {
        Some(room) => room.fill(entry()),
        None => node.audit.record(begun.events, entry),
    }
}

/// Records a request that was denied, for a reason as ACL LOG has it, or another one: `unauthenticated`, `forbidden`.
pub(crate) fn deny(
    node: &Node,
    client: &Client,
    args: Arguments<'_>,
    reason: &'static str,
    object: Option<&[u8]>,
) {
    deny_in(context_of(client), node, client, args, reason, object);
}

/// Records a request that was denied, like [`deny`], which came from there: `toplevel`, `multi`, `lua`.
pub(crate) fn deny_in(
    context: &'static str,
    node: &Node,
    client: &Client,
    args: Arguments<'_>,
    reason: &'static str,
    object: Option<&[u8]>,
) {
    if client.is_primary {
        return;
    }
    node.audit.record(AuditEvents::DENIED, || Entry {
        time_us: node.clock.now_us(),
        event: event_of(AuditEvents::DENIED),
        outcome: Outcome::Denied,
        reason: Some(reason.as_bytes().into()),
        object: object.map(slowlog::shortened),
        actor: Some(Actor {
            context,
            ..actor_of(client)
        }),
        command: named(args, &node.renames).map_or_else(Vec::new, |command| words(node, command, args)),
    });
}

/// Name of an event of these kinds, the most special one.
fn event_of(events: AuditEvents) -> &'static str {
    let names = [
        (AuditEvents::LOGINS, "login"),
        (AuditEvents::USERS, "users"),
        (AuditEvents::CONFIG, "config"),
        (AuditEvents::TOPOLOGY, "topology"),
        (AuditEvents::DENIED, "denied"),
    ];
    let known = names.iter().find(|(kind, _)| events.contains(*kind));
    known.map_or("", |(_, name)| name)
}

fn actor_of(client: &Client) -> Actor {
    let has_logged_in = client.identity.standing() != Standing::Unauthenticated;
    Actor {
        user: has_logged_in.then(|| client.identity.user().name().into()),
        id: client.id,
        address: client.peer.remote(),
        name: client.name.clone(),
        certificate: client.certificate_name.clone(),
        context: context_of(client),
    }
}

/// Origin of the requests of a client.
fn context_of(client: &Client) -> &'static str {
    if client.is_in_transaction() {
        "multi"
    } else {
        "toplevel"
    }
}

/// The words of a request that the audit log shows: no secrets, and where users' data is to stay out of logs, none of it either.
fn words(node: &Node, command: &'static Registered, args: Arguments<'_>) -> Words {
    if command.row.audited.is_none() && node.settings.load().hide_user_data_from_log {
        return vec![command.full_name.as_bytes().into()];
    }
    slowlog::words(args, |index| is_secret(command, args, index))
}

/// Whether the audit log must not show an argument.
fn is_secret(command: &Registered, args: Arguments<'_>, index: usize) -> bool {
    let of_audit = command.row.audited.and_then(|audited| audited.conceals);
    of_audit
        .or(command.row.conceals)
        .is_some_and(|conceals| conceals(args, index))
}

/// The text of an error, unless it quotes a secret of the request.
fn reason_of(error: &ReplyError, command: &Registered, args: Arguments<'_>) -> Box<[u8]> {
    let line = error.line();
    // Errors quote words up to their first NUL.
    let quoted = |word: &[u8]| {
        let shown = word.split(|&byte| byte == 0).next().unwrap_or_default();
        !shown.is_empty() && memchr::memmem::find(&line, shown).is_some()
    };
    let mut words = args.iter().enumerate();
    if words.any(|(index, word)| is_secret(command, args, index) && quoted(word)) {
        b"(redacted)".as_slice().into()
    } else {
        line.into()
    }
}
