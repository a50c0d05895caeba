//! Checks of scripts, in the order in which clients can observe them: before a script runs, and before each of its commands.

use shardis_cluster::Redirect;
use shardis_protocol::Arguments;
use shardis_storage::key::Key;

use super::State;
use crate::dispatch::admission::denied;
use crate::dispatch::execution::Environment;
use crate::dispatch::redirect::{Asked, decide_on};
use crate::dispatch::rights;
use crate::error::{ReplyError, describe};
use crate::exec::client::Asking;
use crate::exec::{Client, Modes};
use crate::scripting::Flags as ScriptFlags;
use crate::spec::{Flags, Registered};
use crate::state::{Denial, Node};

/// Needs that a script declares in its first line. They take the place of the flags of the command that calls it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Declared {
    /// The script may write.
    pub(crate) writes: bool,
    /// The script may take memory.
    pub(crate) takes_memory: bool,
    /// The script may run on old data of a replica.
    pub(crate) is_for_stale: bool,
}

impl Declared {
    /// The needs that these flags stand for. A script that writes nothing takes no memory either.
    pub(crate) fn of(flags: ScriptFlags) -> Self {
        let writes = !flags.contains(ScriptFlags::NO_WRITES);
        Self {
            writes,
            takes_memory: writes && !flags.contains(ScriptFlags::ALLOW_OOM),
            is_for_stale: flags.contains(ScriptFlags::ALLOW_STALE),
        }
    }
}

/// Checks that a script may run, by what it declares. One that declares nothing is checked command by command.
pub(super) fn check_declared(
    flags: Option<ScriptFlags>,
    reads_only: bool,
    client: &Client,
    environment: &Environment<'_>,
) -> Result<(), ReplyError> {
    let node = environment.node;
    let is_stale = !client.is_primary && node.replication.following.is_stale();
    let Some(flags) = flags else {
        return if is_stale {
            Err(ReplyError::PrimaryDown)
        } else {
            Ok(())
        };
    };
    let declared = Declared::of(flags);
    if flags.contains(ScriptFlags::NO_CLUSTER) && node.is_cluster() {
        return Err(ReplyError::Fixed(
            "ERR Can not run script on cluster, 'no-cluster' flag is set.",
        ));
    }
    if is_stale && !declared.is_for_stale {
        return Err(ReplyError::Fixed(
            "MASTERDOWN Link with MASTER is down, replica-serve-stale-data is set to 'no' and 'allow-stale' flag is not set \
             on the script.",
        ));
    }
    if declared.writes {
        check_writer(reads_only, client, environment)?;
    }
    if declared.takes_memory && !client.is_primary && node.excess_bytes() > 0 {
        return Err(ReplyError::Fixed(
            "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
        ));
    }
    Ok(())
}

/// Checks that a script may run which declares that it writes.
fn check_writer(reads_only: bool, client: &Client, environment: &Environment<'_>) -> Result<(), ReplyError> {
    let node = environment.node;
    if !client.is_primary && node.replication.following.refuses_writes() {
        return Err(ReplyError::Fixed(
            "READONLY Can not run script with write flag on readonly replica.",
        ));
    }
    let denial = node.denial(environment.settings).filter(|_| !client.is_primary);
    match denial {
        Some(Denial::Snapshot) => {
            return Err(ReplyError::Fixed(
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Writable \
                 scripts are blocked. Use 'no-writes' flag for read only scripts.",
            ));
        }
        Some(Denial::AppendOnly(number)) => {
            let error = describe(&std::io::Error::from_raw_os_error(number));
            return Err(ReplyError::Text(format!(
                "MISCONF Redis is configured to persist data to AOF, but it's currently unable to persist to disk. Writable \
                 scripts are blocked. Use 'no-writes' flag for read only scripts. AOF error: {error}"
            )));
        }
        Some(Denial::Replicas) | None => {}
    }
    if reads_only {
        return Err(ReplyError::Fixed(
            "ERR Can not execute a script with write flag using *_ro command.",
        ));
    }
    match denial {
        Some(denial) => Err(denied(denial)),
        None => Ok(()),
    }
}

/// The rights of a script that begins.
pub(super) fn state(
    flags: Option<ScriptFlags>,
    reads_only: bool,
    is_in_transaction: bool,
    environment: &Environment<'_>,
) -> State {
    let given = flags.unwrap_or_default();
    let mut state = State::empty();
    state.set(
        State::READS_ONLY,
        reads_only || given.contains(ScriptFlags::NO_WRITES),
    );
    state.set(State::ALLOWS_OOM, given.contains(ScriptFlags::ALLOW_OOM));
    state.set(State::OUT_OF_MEMORY, environment.node.excess_bytes() > 0);
    state.set(
        State::ALLOWS_CROSS_SLOT,
        flags.is_none() || given.contains(ScriptFlags::ALLOW_CROSS_SLOT_KEYS),
    );
    state.set(State::IN_TRANSACTION, is_in_transaction);
    // A transaction cannot begin anew: other commands of it have run.
    state.set(State::IS_BOUND, is_in_transaction);
    state
}

/// Checks that a script may run a command.
pub(super) fn check_command(
    (command, args): (&'static Registered, Arguments<'_>),
    state: State,
    client: &mut Client,
    environment: &Environment<'_>,
) -> Result<(), ReplyError> {
    let (flags, node) = (command.row.flags, environment.node);
    if flags.contains(Flags::NOSCRIPT) {
        return Err(ReplyError::Fixed(
            "ERR This Redis command is not allowed from script",
        ));
    }
    if !flags.contains(Flags::STALE) && !client.is_primary && node.replication.following.is_stale() {
        return Err(ReplyError::Fixed(
            "ERR Can not execute the command on a stale replica",
        ));
    }
    check_rights((command, args), client, node)?;
    if state.contains(State::READS_ONLY) && flags.intersects(Flags::WRITE | Flags::MAY_REPLICATE) {
        return Err(ReplyError::Fixed(
            "ERR Write commands are not allowed from read-only scripts.",
        ));
    }
    // A script that has begun to write is not stopped halfway.
    if client.is_primary || state.contains(State::HAS_WRITTEN) {
        return Ok(());
    }
    if flags.contains(Flags::WRITE) {
        check_write(node, environment)?;
    }
    let lacks_memory = state.contains(State::OUT_OF_MEMORY) && !state.contains(State::ALLOWS_OOM);
    if lacks_memory && flags.contains(Flags::DENYOOM) {
        return Err(ReplyError::OutOfMemory);
    }
    Ok(())
}

fn check_write(node: &Node, environment: &Environment<'_>) -> Result<(), ReplyError> {
    if node.replication.following.refuses_writes() {
        return Err(ReplyError::ReadOnlyReplica);
    }
    match node.denial(environment.settings) {
        Some(denial) => Err(denied(denial)),
        None => Ok(()),
    }
}

/// Checks a command against the rules of the caller's user.
#[inline]
fn check_rights(
    (command, args): (&'static Registered, Arguments<'_>),
    client: &mut Client,
    node: &Node,
) -> Result<(), ReplyError> {
    let Err(error) = rights::check_client(client, command, args) else {
        return Ok(());
    };
    rights::note_refusal_in_script(client, node, &error, args);
    let line = error.line();
    let reason = line.strip_prefix(b"NOPERM ").unwrap_or(&line);
    Err(ReplyError::Bytes(
        [b"ERR ACL failure in script: ", reason].concat(),
    ))
}

/// Checks that this node of a cluster serves the keys of a command. `has` tells whether a key is here.
pub(super) fn check_redirect(
    (command, args): (&'static Registered, Arguments<'_>),
    client: &Client,
    has: impl FnMut(&Key<'_>) -> bool,
    environment: &Environment<'_>,
) -> Result<(), ReplyError> {
    let Some(slots) = environment.slots else {
        return Ok(());
    };
    let asked = Asked::One(command, args);
    let mut modes = Modes::empty();
    modes.set(Modes::READS_REPLICAS, client.reads_replicas);
    modes.set(Modes::ASKING, client.asking == Asking::Now);
    let keys_here = |_| asked.count_keys(environment.hashing, has);
    let Err(redirect) = decide_on(asked, modes, &slots, environment.hashing, keys_here) else {
        return Ok(());
    };
    Err(ReplyError::Fixed(match redirect {
        Redirect::CrossSlot => "ERR Script attempted to access keys that do not hash to the same slot",
        Redirect::DownForWrites => {
            "ERR Script attempted to execute a write command while the cluster is down and readonly"
        }
        Redirect::Unserved => "ERR Script attempted to access a slot not served",
        Redirect::Down => "ERR Script attempted to execute a command while the cluster is down",
        Redirect::Moved { .. } | Redirect::Ask { .. } | Redirect::TryAgain => {
            "ERR Script attempted to access a non local key in a cluster node"
        }
    }))
}
