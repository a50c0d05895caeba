//! Commands about replication, for a primary without replicas.

use crate::error::ReplyError;
use crate::exec::arguments::{int, int_within, timeout_ms};
use crate::exec::waiter::{TimeoutReply, Wish};
use crate::exec::{CommandResult, Context, Session};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, Runs};

const ACKNOWLEDGED_BY: &[&str] = &["request_policy:all_shards", "response_policy:agg_min"];

pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "role",
        arity: Arity::Exactly(1),
        flags: Flags::NOSCRIPT
            .union(Flags::LOADING)
            .union(Flags::STALE)
            .union(Flags::FAST),
        acl: Category::ADMIN.union(Category::DANGEROUS),
        runs: Runs::OnSession(role),
        doc: &Doc {
            since: "2.8.12",
            group: Group::Server,
            complexity: "O(1)",
            summary: "Tells what this node is in replication, and who is connected to it in that capacity.",
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "wait",
        arity: Arity::Exactly(3),
        flags: Flags::BLOCKING,
        acl: Category::CONNECTION,
        tips: ACKNOWLEDGED_BY,
        runs: Runs::Blocking(wait),
        doc: &Doc {
            since: "3.0.0",
            group: Group::Generic,
            complexity: "O(1)",
            summary: "Waits until so many replicas have what this connection wrote, and tells how many have.",
            args: &[Arg::integer("numreplicas"), Arg::integer("timeout")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "waitaof",
        arity: Arity::Exactly(4),
        flags: Flags::BLOCKING,
        acl: Category::CONNECTION,
        tips: ACKNOWLEDGED_BY,
        runs: Runs::Blocking(waitaof),
        doc: &Doc {
            since: "7.2.0",
            group: Group::Generic,
            complexity: "O(1)",
            summary: "Waits until what this connection wrote is in so many append-only files, and tells in how many it is.",
            args: &[
                Arg::integer("numlocal"),
                Arg::integer("numreplicas"),
                Arg::integer("timeout"),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// Replies with the role, the replication offset, which stays 0 as nothing asks for the stream, and an empty list of
/// replicas.
fn role(session: &mut Session<'_>) -> CommandResult {
    session.reply.array(3);
    session.reply.bulk(b"master");
    session.reply.integer(0);
    session.reply.array(0);
    Ok(())
}

/// WAIT numreplicas timeout. Without replicas, only the timeout can end the wait.
fn wait(ctx: &mut Context<'_>) -> CommandResult {
    let replicas = int(ctx.args.at(1))?;
    let deadline_ms = timeout_ms(ctx.args.at(2), ctx.now_ms())?;
    acknowledge(ctx, replicas, deadline_ms, TimeoutReply::Replicas(0));
    Ok(())
}

/// WAITAOF numlocal numreplicas timeout
fn waitaof(ctx: &mut Context<'_>) -> CommandResult {
    let files = int_within(ctx.args.at(1), 0, 1)?;
    let replicas = int(ctx.args.at(2))
        .ok()
        .filter(|&count| count >= 0)
        .ok_or(ReplyError::NotPositive)?;
    let deadline_ms = timeout_ms(ctx.args.at(3), ctx.now_ms())?;
    if files > 0 && !ctx.settings.appendonly {
        return Err(ReplyError::NoFile);
    }
    let wish = Wish {
        awaits_sync: files > 0 && replicas == 0,
        ..wish(deadline_ms, TimeoutReply::Files(false))
    };
    if (files == 0 && replicas == 0) || !ctx.wait(wish) {
        TimeoutReply::Files(ctx.is_synced).write(&mut ctx.reply);
    }
    Ok(())
}

/// Replies at once if no replica is asked for, or if the command must not wait.
fn acknowledge(ctx: &mut Context<'_>, replicas: i64, deadline_ms: Option<i64>, on_timeout: TimeoutReply) {
    if replicas <= 0 || !ctx.wait(wish(deadline_ms, on_timeout)) {
        on_timeout.write(&mut ctx.reply);
    }
}

/// A wait for something else than a key.
fn wish(deadline_ms: Option<i64>, on_timeout: TimeoutReply) -> Wish {
    Wish {
        keys: 0..0,
        kind: shardis_storage::value::Kind::String,
        minds_removal: false,
        deadline_ms,
        on_timeout,
        request: None,
        awaits_sync: false,
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Shell;

    #[test]
    fn a_lone_primary() {
        Shell::new().check(&[("ROLE", "[\"master\", :0, []]")]);
    }

    #[test]
    fn nobody_acknowledges() {
        Shell::over(2).check(&[
            ("WAIT 0 0", ":0"),
            ("WAIT -1 0", ":0"),
            // Here nothing may wait.
            ("WAIT 3 0", ":0"),
            ("WAIT x 1", "-ERR value is not an integer or out of range"),
            ("WAIT 1 x", "-ERR timeout is not an integer or out of range"),
            ("WAIT 1 -1", "-ERR timeout is negative"),
            ("WAITAOF 0 2 0", "[:0, :0]"),
            (
                "WAITAOF 1 0 0",
                "-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
            ),
            (
                "WAITAOF 2 0 0",
                "-ERR value is out of range, value must between 0 and 1",
            ),
            ("WAITAOF 0 -1 0", "-ERR value is out of range, must be positive"),
        ]);
    }
}
