//! Commands that take members from the ends of sorted sets, and wait for some when there are none.
//!
//! Rows first, then handlers in the order of the rows. A command that waits runs again when a sorted set is created
//! (see [`crate::exec::waiter`]); in a transaction no command waits.

use std::ops::Range;

use shardis_storage::value::Kind;
use shardis_storage::value::sorted_set::{Order, SortedSet};

use super::super::pop::PopRequest;
use super::pop::{order_of, pop, pop_reported};
use crate::exec::arguments::deadline;
use crate::exec::waiter::Wish;
use crate::exec::{Awaited, CommandResult, Context};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

const FRACTIONS: (&str, &str) = ("6.0.0", "The timeout may be a fraction of a second.");

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "bzpopmin",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::BLOCKING).union(Flags::FAST),
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).range(-2, 1, 0).read_write().access().delete()],
        runs: Runs::Blocking(bzpopmin),
        doc: &Doc {
            since: "5.0.0",
            group: Group::SortedSet,
            complexity: "O(log(N)) for a sorted set of N members.",
            summary: "Removes the member with the lowest score of the first of several sorted sets that has any, and returns it with its key; waits while there is none.",
            history: &[FRACTIONS],
            args: &[Arg::key("key", 0).multiple(), Arg::double("timeout")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "bzpopmax",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::BLOCKING).union(Flags::FAST),
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).range(-2, 1, 0).read_write().access().delete()],
        runs: Runs::Blocking(bzpopmax),
        doc: &Doc {
            since: "5.0.0",
            group: Group::SortedSet,
            complexity: "O(log(N)) for a sorted set of N members.",
            summary: "Removes the member with the highest score of the first of several sorted sets that has any, and returns it with its key; waits while there is none.",
            history: &[FRACTIONS],
            args: &[Arg::key("key", 0).multiple(), Arg::double("timeout")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "bzmpop",
        arity: Arity::AtLeast(5),
        flags: Flags::WRITE.union(Flags::BLOCKING),
        acl: Category::SORTEDSET,
        keys: &[KeySpec::counted(2).read_write().access().delete()],
        runs: Runs::Blocking(bzmpop),
        doc: &Doc {
            since: "7.0.0",
            group: Group::SortedSet,
            complexity: "O(K) + O(M*log(N)) to look at K keys and pop M of N members.",
            summary: "Removes and returns members of the first of several sorted sets that has any; waits while there are none.",
            args: &[
                Arg::double("timeout"),
                Arg::integer("numkeys"),
                Arg::key("key", 0).multiple(),
                Arg::one_of("where", &[Arg::flag("min", "MIN"), Arg::flag("max", "MAX")]),
                Arg::integer("count").token("COUNT").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

fn bzpopmin(ctx: &mut Context<'_>) -> CommandResult {
    pop_or_wait(ctx, Order::Ascending, b"ZPOPMIN")
}

fn bzpopmax(ctx: &mut Context<'_>) -> CommandResult {
    pop_or_wait(ctx, Order::Descending, b"ZPOPMAX")
}

fn pop_or_wait(ctx: &mut Context<'_>, order: Order, repeated: &[u8]) -> CommandResult {
    let last = ctx.args.len() - 1;
    let deadline_ms = deadline(ctx.args.at(last), ctx.now_ms())?;
    for index in 1..last {
        if !ctx.is_at_hand(index)? {
            continue;
        }
        let key = ctx.key(index);
        if ctx.keyspace.write_as::<SortedSet>(&key)?.is_none() {
            continue;
        }
        if !ctx.waiting.claim() {
            return Ok(());
        }
        ctx.effects.replace(&[repeated, key.bytes]);
        ctx.reply.array(3);
        ctx.reply.bulk(key.bytes);
        return pop(ctx, &key, 1, order, false);
    }
    wait(ctx, 1..last, deadline_ms);
    Ok(())
}

fn bzmpop(ctx: &mut Context<'_>) -> CommandResult {
    let request = PopRequest::parse(ctx.args, 2, order_of)?;
    let deadline_ms = deadline(ctx.args.at(1), ctx.now_ms())?;
    for index in request.keys.clone() {
        if ctx.is_at_hand(index)? && pop_reported(ctx, index, &request)? {
            return Ok(());
        }
    }
    wait(ctx, request.keys, deadline_ms);
    Ok(())
}

/// Waits for a sorted set. Replies with null if the command must not wait.
fn wait(ctx: &mut Context<'_>, keys: Range<usize>, deadline_ms: Option<i64>) {
    let may_wait = ctx.wait(Wish {
        keys,
        kind: Kind::SortedSet,
        minds_removal: false,
        deadline_ms,
        request: None,
        awaited: Awaited::Nothing,
    });
    if !may_wait {
        ctx.reply.null_array();
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Shell;

    #[test]
    fn who_finds_something_does_not_wait() {
        for shards in [1, 4] {
            Shell::over(shards).check_effects(&[
                ("ZADD z 1 a 2 b 3 c 4 d", ":4", &["ZADD z 1 a 2 b 3 c 4 d"]),
                ("BZPOPMIN none z 0", "[\"z\", \"a\", \"1\"]", &["ZPOPMIN z"]),
                ("BZPOPMAX none z 0", "[\"z\", \"d\", \"4\"]", &["ZPOPMAX z"]),
                (
                    "BZMPOP 0 2 none z MAX COUNT 5",
                    "[\"z\", [[\"c\", \"3\"], [\"b\", \"2\"]]]",
                    &["ZPOPMAX z 2"],
                ),
                ("EXISTS z", ":0", &[]),
                ("BZPOPMIN z 0", "nil*", &[]),
                ("BZMPOP 0 1 z MIN", "nil*", &[]),
            ]);
        }
    }

    #[test]
    fn scores_are_doubles_in_resp3() {
        Shell::new().resp3().check(&[
            ("ZADD z 1 a 2 b", ":2"),
            ("BZPOPMIN z 0", "[\"z\", \"a\", ,1]"),
            ("BZMPOP 0 1 z MIN", "[\"z\", [[\"b\", ,2]]]"),
            ("BZPOPMIN z 0", "nil"),
        ]);
    }
}
