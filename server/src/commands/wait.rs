//! WAIT and WAITAOF: clients that wait until others have what they wrote.

use crate::error::ReplyError;
use crate::exec::arguments::{int, int_within, timeout_ms};
use crate::exec::waiter::Wish;
use crate::exec::{Awaited, CommandResult, Context};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, Runs};

const ACKNOWLEDGED_BY: &[&str] = &["request_policy:all_shards", "response_policy:agg_min"];

const NOT_ON_REPLICAS: ReplyError = ReplyError::Fixed(
    "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured to be \
     writable (which is not the default) writes to replicas are just local and are not propagated.",
);

const FILES_NOT_ON_REPLICAS: ReplyError = ReplyError::Fixed(
    "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just local and are not \
     propagated.",
);

pub(crate) static COMMANDS: &[Command] = &[
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

/// WAIT numreplicas timeout
fn wait(ctx: &mut Context<'_>) -> CommandResult {
    if ctx.written.are_local() {
        return Err(NOT_ON_REPLICAS);
    }
    let replicas = int(ctx.args.at(1))?;
    let deadline_ms = timeout_ms(ctx.args.at(2), ctx.now_ms())?;
    await_writes(ctx, Awaited::Replicas(replicas), deadline_ms);
    Ok(())
}

/// WAITAOF numlocal numreplicas timeout
fn waitaof(ctx: &mut Context<'_>) -> CommandResult {
    let here = int_within(ctx.args.at(1), 0, 1)? > 0;
    let replicas = int(ctx.args.at(2))
        .ok()
        .filter(|&count| count >= 0)
        .ok_or(ReplyError::NotPositive)?;
    let deadline_ms = timeout_ms(ctx.args.at(3), ctx.now_ms())?;
    if ctx.written.are_local() {
        return Err(FILES_NOT_ON_REPLICAS);
    }
    if here && !ctx.settings.appendonly {
        return Err(ReplyError::NoFile);
    }
    await_writes(ctx, Awaited::Files { here, replicas }, deadline_ms);
    Ok(())
}

/// Replies at once if the condition holds, or if the command must not wait.
fn await_writes(ctx: &mut Context<'_>, awaited: Awaited, deadline_ms: Option<i64>) {
    let wish = Wish {
        keys: 0..0,
        kind: shardis_storage::value::Kind::String,
        minds_removal: false,
        deadline_ms,
        request: None,
        awaited,
    };
    if ctx.written.fulfil(awaited) || !ctx.wait(wish) {
        ctx.written.report(awaited, &mut ctx.reply);
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Shell;

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
