//! Checks requests against the rules of their client's user: when they come, and again when EXEC runs them.
//!
//! A client whose user may do everything is not checked at all ([`Standing::Unrestricted`]).

use shardis_protocol::Arguments;

use super::auditing;
use crate::acl::{Denied, Reason, RefusalReason, User};
use crate::commands::registry;
use crate::error::ReplyError;
use crate::exec::client::Queued;
use crate::exec::{Client, Closing, Standing};
use crate::spec::{Flags, Registered};
use crate::state::Node;

/// Whether the rules of a restricted client's user permit a request on one key at a fixed position, as nearly all requests are.
#[inline]
pub(crate) fn permits_plain(client: &Client, command: &Registered, args: Arguments<'_>) -> bool {
    command.permits_on_key(client.identity.user(), args)
}

/// Checks that the user of a client permits a request.
///
/// # Errors
/// The error that the client gets. What it is about is still to be entered into the log.
#[inline]
pub(crate) fn check_client(
    client: &Client,
    command: &'static Registered,
    args: Arguments<'_>,
) -> Result<(), ReplyError> {
    if client.identity.standing() == Standing::Unrestricted {
        return Ok(());
    }
    check_restricted(client, command, args)
}

#[cold]
fn check_restricted(
    client: &Client,
    command: &'static Registered,
    args: Arguments<'_>,
) -> Result<(), ReplyError> {
    let user = client.identity.user();
    command
        .check_access(user, args)
        .map_err(|denied| error_of(denied, user, command))?;
    let is_queued = client.transaction.is_some() && !command.row.flags.contains(Flags::NOT_QUEUED);
    if is_queued {
        return Ok(());
    }
    command.check_derivation(user, args)
}

/// Checks a command that was queued when its user may have had other rules.
///
/// # Errors
/// The error that stands in the reply of EXEC in place of the command's own reply.
#[inline]
pub(crate) fn check_queued(client: &mut Client, node: &Node, queued: &Queued) -> Result<(), ReplyError> {
    client.follow_users(&node.acl, Closing::AfterReply);
    if client.identity.standing() == Standing::Unrestricted {
        return Ok(());
    }
    check_queued_restricted(client, node, queued)
}

#[cold]
fn check_queued_restricted(client: &mut Client, node: &Node, queued: &Queued) -> Result<(), ReplyError> {
    let (command, args) = (registry().row(queued.command.id), queued.request.arguments());
    let user = client.identity.user();
    let Err(denied) = command.check_access(user, args) else {
        return command.check_derivation(user, args);
    };
    let (reason, object) = subject(denied, command, args);
    client.note_refusal(reason, object, None);
    auditing::deny(node, client, args, reason.name(), Some(object));
    let why = match denied.reason {
        Reason::Command => "no permission to execute the command or subcommand",
        Reason::Key => "no permission to touch the specified keys",
        Reason::Channel => "no permission to access one of the channels used as arguments",
    };
    Err(ReplyError::Text(format!(
        "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is no \
         longer allowed for the following reason: {why}"
    )))
}

/// Notes for the logs that a request was refused, if the rights of its client were the reason.
pub(crate) fn note_refusal(client: &mut Client, node: &Node, error: &ReplyError, args: Arguments<'_>) {
    match error.cause() {
        // ACL LOG does not tell of these, as in Redis.
        ReplyError::NoAuth => return auditing::deny(node, client, args, "unauthenticated", None),
        ReplyError::Forbidden(_) => return auditing::deny(node, client, args, "forbidden", None),
        _ => {}
    }
    if let Some((reason, object)) = refused(error, args) {
        client.note_refusal(reason, object, None);
        auditing::deny(node, client, args, reason.name(), Some(object));
    }
}

/// Notes for the logs that a command of a script was refused, if its user's rules were the reason.
#[cold]
pub(crate) fn note_refusal_in_script(
    client: &mut Client,
    node: &Node,
    error: &ReplyError,
    args: Arguments<'_>,
) {
    if let Some((reason, object)) = refused(error, args) {
        client.note_refusal_in("lua", reason, object, None);
        auditing::deny_in("lua", node, client, args, reason.name(), Some(object));
    }
}

/// The reason of a refusal by the rules of a user, and what was refused.
fn refused<'a>(error: &ReplyError, args: Arguments<'a>) -> Option<(RefusalReason, &'a [u8])> {
    match error.cause() {
        ReplyError::NoCommandPermission { command, .. } => Some((RefusalReason::Command, command.as_bytes())),
        ReplyError::NoKeyPermission(position) => Some((RefusalReason::Key, args.at(*position))),
        ReplyError::NoChannelPermission(position) => Some((RefusalReason::Channel, args.at(*position))),
        _ => None,
    }
}

/// The kind and the name of what was denied.
fn subject<'a>(
    denied: Denied,
    command: &'static Registered,
    args: Arguments<'a>,
) -> (RefusalReason, &'a [u8]) {
    match denied.reason {
        Reason::Command => (RefusalReason::Command, command.full_name.as_bytes()),
        Reason::Key => (RefusalReason::Key, args.at(denied.position)),
        Reason::Channel => (RefusalReason::Channel, args.at(denied.position)),
    }
}

fn error_of(denied: Denied, user: &User, command: &'static Registered) -> ReplyError {
    match denied.reason {
        Reason::Command => ReplyError::NoCommandPermission {
            user: user.name().into(),
            command: &command.full_name,
        },
        Reason::Key => ReplyError::NoKeyPermission(denied.position),
        Reason::Channel => ReplyError::NoChannelPermission(denied.position),
    }
}
