//! Transactions: MULTI, EXEC, DISCARD, WATCH, UNWATCH. `dispatch::transaction` runs the queued commands.

use crate::error::ReplyError;
use crate::exec::watch::WatchedKey;
use crate::exec::{CommandResult, Session, Transaction, View};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "multi",
        arity: Arity::Exactly(1),
        flags: ALWAYS.union(Flags::NOT_QUEUED),
        acl: Category::TRANSACTION,
        runs: Runs::OnSession(multi),
        doc: &Doc {
            since: "1.2.0",
            group: Group::Transactions,
            complexity: "O(1)",
            summary: "Begins a transaction: further commands are queued.",
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "exec",
        arity: Arity::Exactly(1),
        flags: Flags::NOSCRIPT
            .union(Flags::LOADING)
            .union(Flags::STALE)
            .union(Flags::SKIP_SLOWLOG)
            .union(Flags::NOT_QUEUED),
        acl: Category::TRANSACTION,
        runs: Runs::Exec,
        doc: &Doc {
            since: "1.2.0",
            group: Group::Transactions,
            complexity: "The sum of the queued commands",
            summary: "Runs the queued commands as one.",
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "discard",
        arity: Arity::Exactly(1),
        flags: ALWAYS.union(Flags::NOT_QUEUED),
        acl: Category::TRANSACTION,
        runs: Runs::OnSession(discard),
        doc: &Doc {
            since: "2.0.0",
            group: Group::Transactions,
            complexity: "O(N) for N queued commands",
            summary: "Ends a transaction without running what was queued.",
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "watch",
        arity: Arity::AtLeast(2),
        flags: ALWAYS.union(Flags::NOT_QUEUED),
        acl: Category::TRANSACTION,
        keys: &[KeySpec::from(1, 1).read_only()],
        runs: Runs::OnSessionAndKeys(watch),
        doc: &Doc {
            since: "2.2.0",
            group: Group::Transactions,
            complexity: "O(1) for each key",
            summary: "Has the next EXEC run only if none of the keys was changed before it.",
            args: &[Arg::key("key", 0).multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "unwatch",
        arity: Arity::Exactly(1),
        flags: ALWAYS,
        acl: Category::TRANSACTION,
        runs: Runs::OnSession(unwatch),
        doc: &Doc {
            since: "2.2.0",
            group: Group::Transactions,
            complexity: "O(1)",
            summary: "Forgets all watched keys.",
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// The flags that most commands of this family share.
const ALWAYS: Flags = Flags::NOSCRIPT
    .union(Flags::LOADING)
    .union(Flags::STALE)
    .union(Flags::FAST)
    .union(Flags::ALLOW_BUSY);

fn multi(session: &mut Session<'_>) -> CommandResult {
    if session.client.transaction.is_some() {
        return Err(ReplyError::NestedMulti);
    }
    session.client.transaction = Some(Box::<Transaction>::default());
    session.reply.ok();
    Ok(())
}

fn discard(session: &mut Session<'_>) -> CommandResult {
    if session.client.transaction.take().is_none() {
        return Err(ReplyError::DiscardWithoutMulti);
    }
    session.client.watching = None;
    session.reply.ok();
    Ok(())
}

fn watch(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    if session.client.transaction.is_some() {
        return Err(ReplyError::WatchInsideMulti);
    }
    let (db, now_ms) = (session.client.db, keyspace.stamp.now_ms);
    let watching = session.client.watching.get_or_insert_default();
    for bytes in session.args.tail(1).iter() {
        if watching.contains(db, bytes) {
            continue;
        }
        let key = keyspace.key(bytes);
        // WATCH does not look keys up: an expired one stays, and its later removal is no change.
        let is_stale = keyspace.found(&key).is_some_and(|entry| entry.is_expired(now_ms));
        let watches = &mut keyspace.partition(key.slot).door.watches;
        watches.add(db, bytes, &watching.token, is_stale);
        watching.push(WatchedKey {
            db,
            slot: key.slot,
            key: bytes.into(),
        });
    }
    session.reply.ok();
    Ok(())
}

fn unwatch(session: &mut Session<'_>) -> CommandResult {
    session.client.watching = None;
    session.reply.ok();
    Ok(())
}
