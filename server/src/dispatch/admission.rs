//! Checks whether a request may run, in the order in which a client can observe the checks.

use shardis_protocol::{Arguments, Resp};

use super::rights;
use super::script::{Declared, declared_flags};
use crate::commands::{names, registry};
use crate::config::Permission;
use crate::error::ReplyError;
use crate::exec::client::{Asking, CommandTag};
use crate::exec::{Client, Standing};
use crate::limits::SHOWN_BYTES_MAX;
use crate::spec::{Flags, Registered, Runs};
use crate::state::{Denial, Node, PauseMode, Renames};
use crate::tracking::Caching;

/// State of the node that the checks depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions<'a> {
    /// Names changed by `rename-command`.
    pub(crate) renames: &'a Renames,
    /// The error that sends the client elsewhere, if this node of a cluster does not serve the request.
    pub(crate) redirect: Option<&'a ReplyError>,
    /// Memory exceeds `maxmemory`, and nothing could be evicted.
    pub(crate) out_of_memory: bool,
    /// Reason for which data must not change further.
    pub(crate) denial: Option<Denial>,
    /// The node is a replica that clients cannot write to.
    pub(crate) reads_only: bool,
    /// The node is a replica without a link to its primary, and is to tell so.
    pub(crate) is_stale: bool,
    /// The data is being loaded.
    pub(crate) is_loading: bool,
    /// Data is being loaded beside that which is served.
    pub(crate) is_loading_beside: bool,
    /// Mode of the running CLIENT PAUSE.
    pub(crate) pause: Option<PauseMode>,
    /// `enable-debug-command`: the clients that may use DEBUG.
    pub(crate) debugging: Permission,
    /// `enable-module-command`: the clients that may use MODULE.
    pub(crate) modules: Permission,
    /// The node whose scripts declare what they need; none where nothing is checked.
    pub(crate) scripts: Option<&'a Node>,
}

impl<'a> Conditions<'a> {
    /// The conditions of what the primary sends: it has passed the checks there.
    pub(crate) fn of_primary(renames: &'a Renames) -> Self {
        Self {
            renames,
            redirect: None,
            out_of_memory: false,
            denial: None,
            reads_only: false,
            is_stale: false,
            is_loading: false,
            is_loading_beside: false,
            pause: None,
            debugging: Permission::Yes,
            modules: Permission::Yes,
            scripts: None,
        }
    }
}

/// Result for a request that passed the checks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Admitted {
    /// The command runs now.
    Run(&'static Registered),
    /// The command is queued: the client is inside MULTI.
    Queue(&'static Registered),
    /// The command waits for the end of a CLIENT PAUSE, and is then checked again.
    Wait(&'static Registered),
}

/// Finds the command of a request and checks whether it may run.
///
/// # Errors
/// The error of the first check that fails, as the client gets it.
#[inline]
pub(crate) fn admit(
    client: &Client,
    args: Arguments<'_>,
    conditions: &Conditions<'_>,
) -> Result<Admitted, ReplyError> {
    let command = find(args, client.last_command, conditions.renames)?;
    let flags = command.row.flags;
    if flags.intersects(Flags::PROTECTED | Flags::MODULES) {
        check_permission(client, flags, conditions)?;
    }
    let needs_login = client.identity.standing() == Standing::Unauthenticated;
    if needs_login && !flags.contains(Flags::NO_AUTH) {
        return Err(refusal(command, ReplyError::NoAuth));
    }
    let in_multi = client.transaction.is_some();
    if in_multi && flags.contains(Flags::NO_MULTI) {
        return Err(ReplyError::NotInMulti);
    }
    rights::check_client(client, command, args).map_err(|error| refusal(command, error))?;
    if let Some(redirect) = conditions.redirect {
        return Err(redirect.clone());
    }
    let declared = declared_by(command, args, conditions);
    let writes = changes_data(client, command) || declared.is_some_and(|declared| declared.writes);
    if conditions.out_of_memory && takes_memory(client, command, declared) {
        return Err(refusal(command, ReplyError::OutOfMemory));
    }
    if let Some(denial) = conditions.denial
        && (flags.contains(Flags::TELLS_HEALTH) && denial != Denial::Replicas || writes)
    {
        return Err(refusal(command, denied(denial)));
    }
    if conditions.reads_only && writes {
        return Err(refusal(command, ReplyError::ReadOnlyReplica));
    }
    if client.is_subscriber() && client.resp == Resp::V2 && !flags.contains(Flags::WHILE_SUBSCRIBED) {
        return Err(refusal(command, not_while_subscribed(command)));
    }
    if conditions.is_stale && needs_fresh_data(client, command, declared) {
        return Err(refusal(command, ReplyError::PrimaryDown));
    }
    if must_wait_for_load(client, command, conditions) {
        return Err(refusal(command, ReplyError::Loading));
    }
    if let Some(mode) = conditions.pause
        && is_held_back(client, command, mode, declared)
    {
        return Ok(Admitted::Wait(command));
    }
    if in_multi && !flags.contains(Flags::NOT_QUEUED) {
        return Ok(Admitted::Queue(command));
    }
    Ok(Admitted::Run(command))
}

/// Needs that the script of a request declares; none if it declares nothing, or the request calls none.
#[inline]
fn declared_by(command: &Registered, args: Arguments<'_>, conditions: &Conditions<'_>) -> Option<Declared> {
    let kind = command.row.runs.script()?;
    declared_flags(kind, args, conditions.scripts?).map(Declared::of)
}

/// Whether a command cannot run while data is being loaded.
fn must_wait_for_load(client: &Client, command: &Registered, conditions: &Conditions<'_>) -> bool {
    let needs_data = |command: &Registered| !command.row.flags.contains(Flags::LOADING);
    let disturbs = |command: &Registered| command.row.flags.contains(Flags::NO_ASYNC_LOADING);
    conditions.is_loading && any(client, command, needs_data)
        || conditions.is_loading_beside && any(client, command, disturbs)
}

/// Whether requests of a client need no other checks than those of their rows and their user's rules, as is usual: determined
/// once for many requests. The node is not `is_waiting` for data. The caller checks the memory.
pub(crate) fn is_unrestricted(client: &Client, pause: Option<PauseMode>, is_waiting: bool) -> bool {
    client.identity.standing() != Standing::Unauthenticated
        && client.transaction.is_none()
        && client.asking == Asking::Off
        && client
            .tracking
            .as_ref()
            .is_none_or(|tracking| tracking.caching == Caching::Unsaid)
        && !is_waiting
        && pause.is_none()
        && !(client.is_subscriber() && client.resp == Resp::V2)
}

/// The command of an unrestricted client's request, which is none that writes if the client `reads_only`. `None` where [`admit`]
/// has more to check.
#[inline]
pub(crate) fn admit_plainly(
    args: Arguments<'_>,
    last: Option<CommandTag>,
    renames: &Renames,
    reads_only: bool,
) -> Option<&'static Registered> {
    let command = by_name(args.at(0), last, renames)?;
    let row = &command.row;
    let is_plain = !(reads_only && row.flags.contains(Flags::WRITE))
        && matches!(row.runs, Runs::OnKeys(_) | Runs::OnKeysLong(_))
        && !row.flags.intersects(Flags::PROTECTED | Flags::MODULES)
        && row.subcommands.is_empty()
        && row.arity.accepts(args.len());
    is_plain.then_some(command)
}

/// Checks that the directive which guards a command allows it to this client.
#[cold]
fn check_permission(client: &Client, flags: Flags, conditions: &Conditions<'_>) -> Result<(), ReplyError> {
    let (permission, command) = if flags.contains(Flags::PROTECTED) {
        (conditions.debugging, "debug")
    } else {
        (conditions.modules, "module")
    };
    if permission.allows(client.peer.is_local()) {
        Ok(())
    } else {
        Err(ReplyError::Forbidden(command))
    }
}

/// The reply to a command that may not run: EXEC reports that the transaction is discarded, whatever the reason.
#[cold]
fn refusal(command: &Registered, error: ReplyError) -> ReplyError {
    match command.row.runs {
        Runs::Exec => ReplyError::ExecRefused(Box::new(error)),
        _ => error,
    }
}

/// The error for a command that a subscriber may not send. In RESP2 a message cannot be told from a reply, so a
/// subscriber may do little but subscribe.
#[cold]
fn not_while_subscribed(command: &Registered) -> ReplyError {
    ReplyError::Text(format!(
        "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
        command.full_name
    ))
}

/// The command, or subcommand, that a request names, if its arity fits. `last` is the client's last command: most
/// clients send the same command again, and comparing its name is faster than a look-up.
///
/// # Errors
/// Unknown command, unknown subcommand, or wrong number of arguments.
#[inline]
pub(crate) fn find(
    args: Arguments<'_>,
    last: Option<CommandTag>,
    renames: &Renames,
) -> Result<&'static Registered, ReplyError> {
    let name = args.at(0);
    let mut command = by_name(name, last, renames).ok_or_else(|| unknown(args))?;
    if !command.row.subcommands.is_empty()
        && let Some(word) = args.get(1)
    {
        command = command
            .subcommand(word)
            .ok_or_else(|| ReplyError::UnknownSubcommand {
                word: shown(word, SHOWN_BYTES_MAX).to_vec(),
                container: name.to_ascii_uppercase(),
            })?;
    }
    // A container command never runs itself: without a subcommand its request is too short.
    if !command.row.arity.accepts(args.len()) || matches!(command.row.runs, Runs::Container) {
        return Err(refusal(command, ReplyError::arity(command.full_name.as_str())));
    }
    Ok(command)
}

/// The command of a name, which may be that of the last one.
#[inline(always)]
fn by_name(name: &[u8], last: Option<CommandTag>, renames: &Renames) -> Option<&'static Registered> {
    match last {
        Some(last) if renames.is_empty() && is_name(name, last.name) => Some(registry().row(last.id)),
        _ => names::find(name, renames),
    }
}

/// Whether a request names this command. For names of a few bytes this takes half as long as the standard library's
/// comparison, which is made for long slices.
#[inline]
fn is_name(word: &[u8], lowercase: &str) -> bool {
    word.len() == lowercase.len()
        && word
            .iter()
            .zip(lowercase.as_bytes())
            .all(|(byte, lower)| byte.to_ascii_lowercase() == *lower)
}

/// The command, or subcommand, that a request names, whatever its arity: the one that a refusal is counted for.
pub(crate) fn named(args: Arguments<'_>, renames: &Renames) -> Option<&'static Registered> {
    let command = names::find(args.at(0), renames)?;
    match args.get(1) {
        Some(word) if !command.row.subcommands.is_empty() => command.subcommand(word),
        _ => Some(command),
    }
}

/// The error for the name of no command, which quotes the beginning of the request.
#[cold]
fn unknown(args: Arguments<'_>) -> ReplyError {
    let mut line = [
        b"'",
        shown(args.at(0), SHOWN_BYTES_MAX),
        b"', with args beginning with: ",
    ]
    .concat();
    let start = line.len();
    for arg in args.tail(1).iter() {
        let used = line.len() - start;
        if used >= SHOWN_BYTES_MAX {
            break;
        }
        line.extend([b"'", shown(arg, SHOWN_BYTES_MAX - used), b"' "].concat());
    }
    ReplyError::UnknownCommand(line)
}

/// The part of a text that a C string shows: up to the first NUL, at most `bytes_max` bytes.
fn shown(text: &[u8], bytes_max: usize) -> &[u8] {
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    &text[..text.len().min(bytes_max)]
}

/// Whether a command is such a one. EXEC is if itself or one of its queued commands is.
pub(crate) fn any(client: &Client, command: &Registered, is_such: fn(&Registered) -> bool) -> bool {
    is_such(command)
        || client.transaction.as_ref().is_some_and(|transaction| {
            matches!(command.row.runs, Runs::Exec)
                && transaction
                    .queue
                    .iter()
                    .any(|queued| is_such(registry().row(queued.command.id)))
        })
}

/// Whether a command may take memory.
fn takes_memory(client: &Client, command: &Registered, declared: Option<Declared>) -> bool {
    declared.is_some_and(|declared| declared.takes_memory)
        || any(client, command, |command| {
            command.row.flags.contains(Flags::DENYOOM)
        })
}

/// Whether a command cannot run on a replica without a link to its primary.
fn needs_fresh_data(client: &Client, command: &Registered, declared: Option<Declared>) -> bool {
    declared.is_some_and(|declared| !declared.is_for_stale)
        || any(client, command, |command| {
            !command.row.flags.contains(Flags::STALE)
        })
}

/// The error for a command that must not change data.
#[cold]
pub(super) fn denied(denial: Denial) -> ReplyError {
    match denial {
        Denial::Snapshot => ReplyError::CannotSave,
        Denial::AppendOnly(number) => ReplyError::CannotAppend(number),
        Denial::Replicas => ReplyError::TooFewReplicas,
    }
}

/// Whether a command changes data. EXEC does if one of its queued commands does.
fn changes_data(client: &Client, command: &Registered) -> bool {
    let changes = |command: &Registered| command.row.flags.contains(Flags::WRITE);
    match &client.transaction {
        Some(transaction) if matches!(command.row.runs, Runs::Exec) => transaction
            .queue
            .iter()
            .any(|queued| changes(registry().row(queued.command.id))),
        _ => changes(command),
    }
}

fn is_held_back(client: &Client, command: &Registered, mode: PauseMode, declared: Option<Declared>) -> bool {
    let writes = |command: &Registered| command.row.flags.intersects(Flags::WRITE | Flags::MAY_REPLICATE);
    match (mode, &client.transaction) {
        (PauseMode::All, _) => true,
        (PauseMode::Write, Some(transaction)) if matches!(command.row.runs, Runs::Exec) => transaction
            .queue
            .iter()
            .any(|queued| writes(registry().row(queued.command.id))),
        (PauseMode::Write, _) => declared.map_or_else(|| writes(command), |declared| declared.writes),
    }
}
