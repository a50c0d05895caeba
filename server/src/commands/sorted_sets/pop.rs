//! Commands that take members from the ends of sorted sets.
//!
//! Rows first, then handlers in the order of the rows.

use shardis_protocol::Resp;
use shardis_storage::key::Key;
use shardis_storage::number::DoubleText;
use shardis_storage::value::sorted_set::{Order, SortedSet};

use super::super::pop::PopRequest;
use super::{bulk, removed};
use crate::error::ReplyError;
use crate::exec::arguments::{count_from, is};
use crate::exec::{CommandResult, Context};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "zpopmin",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_write().access().delete()],
        runs: Runs::OnKeys(zpopmin),
        doc: &Doc {
            since: "5.0.0",
            group: Group::SortedSet,
            complexity: "O(M*log(N)) to pop M of N members.",
            summary: "Removes and returns the members with the lowest scores.",
            args: &[Arg::key("key", 0), Arg::integer("count").optional()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zpopmax",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_write().access().delete()],
        runs: Runs::OnKeys(zpopmax),
        doc: &Doc {
            since: "5.0.0",
            group: Group::SortedSet,
            complexity: "O(M*log(N)) to pop M of N members.",
            summary: "Removes and returns the members with the highest scores.",
            args: &[Arg::key("key", 0), Arg::integer("count").optional()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zmpop",
        arity: Arity::AtLeast(4),
        flags: Flags::WRITE,
        acl: Category::SORTEDSET,
        keys: &[KeySpec::counted(1).read_write().access().delete()],
        runs: Runs::OnKeys(zmpop),
        doc: &Doc {
            since: "7.0.0",
            group: Group::SortedSet,
            complexity: "O(K) + O(M*log(N)) to look at K keys and pop M of N members.",
            summary: "Removes and returns members of the first of several sorted sets that has any.",
            args: &[
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

fn zpopmin(ctx: &mut Context<'_>) -> CommandResult {
    pop_from(ctx, Order::Ascending)
}

fn zpopmax(ctx: &mut Context<'_>) -> CommandResult {
    pop_from(ctx, Order::Descending)
}

fn pop_from(ctx: &mut Context<'_>, order: Order) -> CommandResult {
    if ctx.args.len() > 3 {
        return Err(ReplyError::Syntax);
    }
    let count = ctx
        .args
        .get(2)
        .map(|arg| count_from(arg, 0, ReplyError::NotPositive))
        .transpose()?;
    let key = ctx.key(1);
    let len = ctx
        .keyspace
        .write_as::<SortedSet>(&key)?
        .map_or(0, |set| set.len());
    let popped = count.unwrap_or(1).min(len);
    // Without a count, or in RESP2, members and scores are in one flat array.
    let nested = count.is_some() && ctx.reply.resp() == Resp::V3;
    ctx.reply.array(if nested { popped } else { 2 * popped });
    pop(ctx, &key, popped, order, nested)
}

/// Pops `count` members, and replies with them after a header that is already encoded.
pub(super) fn pop(
    ctx: &mut Context<'_>,
    key: &Key<'_>,
    count: usize,
    order: Order,
    nested: bool,
) -> CommandResult {
    if count == 0 {
        return Ok(());
    }
    let Some(set) = ctx.keyspace.write_as::<SortedSet>(key)? else {
        return Ok(());
    };
    let ranks = match order {
        Order::Ascending => 0..count,
        Order::Descending => set.len() - count..set.len(),
    };
    let reply = &mut ctx.reply;
    set.remove_range(ranks, order, |member, score| {
        if nested {
            reply.array(2);
        }
        bulk(reply, member);
        reply.double(DoubleText::new(score).as_bytes());
    });
    let left = set.len();
    let event = match order {
        Order::Ascending => "zpopmin",
        Order::Descending => "zpopmax",
    };
    removed(ctx, key, event, count, left);
    Ok(())
}

/// The end of a sorted set that `MIN` or `MAX` names, as the order in which its members are popped.
pub(super) fn order_of(word: &[u8]) -> Result<Order, ReplyError> {
    if is(word, "MIN") {
        Ok(Order::Ascending)
    } else if is(word, "MAX") {
        Ok(Order::Descending)
    } else {
        Err(ReplyError::Syntax)
    }
}

fn zmpop(ctx: &mut Context<'_>) -> CommandResult {
    let request = PopRequest::parse(ctx.args, 1, order_of)?;
    for index in request.keys.clone() {
        if pop_reported(ctx, index, &request)? {
            return Ok(());
        }
    }
    ctx.reply.null_array();
    Ok(())
}

/// Replies with the key at an argument and members popped from its sorted set; false when there is no such set.
pub(super) fn pop_reported(
    ctx: &mut Context<'_>,
    index: usize,
    request: &PopRequest<Order>,
) -> Result<bool, ReplyError> {
    let key = ctx.key(index);
    let len = ctx
        .keyspace
        .write_as::<SortedSet>(&key)?
        .map_or(0, |set| set.len());
    if len == 0 {
        return Ok(false);
    }
    if !ctx.waiting.claim() {
        return Ok(true);
    }
    let count = request.count.min(len);
    report(ctx, &key, count, request.end);
    ctx.reply.array(2);
    ctx.reply.bulk(key.bytes);
    ctx.reply.array(count);
    pop(ctx, &key, count, request.end, true)?;
    Ok(true)
}

/// Reports the members popped from the one key that had some.
fn report(ctx: &mut Context<'_>, key: &Key<'_>, count: usize, order: Order) {
    if !ctx.effects.is_recording() {
        return;
    }
    let command: &[u8] = match order {
        Order::Ascending => b"ZPOPMIN",
        Order::Descending => b"ZPOPMAX",
    };
    let mut digits = itoa::Buffer::new();
    ctx.effects
        .replace(&[command, key.bytes, digits.format(count).as_bytes()]);
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Shell;

    const SYNTAX: &str = "-ERR syntax error";

    #[test]
    fn members_are_popped_from_either_end() {
        let not_positive = "-ERR value is out of range, must be positive";
        Shell::new().check_effects(&[
            ("ZADD z 1 a 2 b 3 c 4 d", ":4", &["ZADD z 1 a 2 b 3 c 4 d"]),
            ("ZPOPMIN z", "[\"a\", \"1\"]", &["ZPOPMIN z"]),
            ("ZPOPMAX z 2", "[\"d\", \"4\", \"c\", \"3\"]", &["ZPOPMAX z 2"]),
            ("ZPOPMIN z 0", "[]", &[]),
            ("ZPOPMIN z 10", "[\"b\", \"2\"]", &["ZPOPMIN z 10"]),
            ("EXISTS z", ":0", &[]),
            ("ZPOPMIN z", "[]", &[]),
            ("ZPOPMIN z -1", not_positive, &[]),
            ("ZPOPMIN z x", not_positive, &[]),
            ("ZPOPMIN z 1 2", SYNTAX, &[]),
        ]);
    }

    #[test]
    fn the_first_key_with_members_is_popped_from() {
        let (no_keys, no_count) = (
            "-ERR numkeys should be greater than 0",
            "-ERR count should be greater than 0",
        );
        for shards in [1, 4] {
            Shell::over(shards).check_effects(&[
                ("ZADD z 1 a 2 b 3 c", ":3", &["ZADD z 1 a 2 b 3 c"]),
                (
                    "ZMPOP 2 none z MIN",
                    "[\"z\", [[\"a\", \"1\"]]]",
                    &["ZPOPMIN z 1"],
                ),
                (
                    "ZMPOP 1 z MAX COUNT 5",
                    "[\"z\", [[\"c\", \"3\"], [\"b\", \"2\"]]]",
                    &["ZPOPMAX z 2"],
                ),
                ("ZMPOP 2 none z MIN", "nil*", &[]),
                ("ZMPOP 0 z MIN", no_keys, &[]),
                ("ZMPOP x z MIN", no_keys, &[]),
                ("ZMPOP 2 z MIN", SYNTAX, &[]),
                ("ZMPOP 9223372036854775807 z MIN", SYNTAX, &[]),
                ("ZMPOP 1 z LEFT", SYNTAX, &[]),
                ("ZMPOP 1 z MIN COUNT 0", no_count, &[]),
                ("ZMPOP 1 z MIN COUNT 1 COUNT 1", SYNTAX, &[]),
            ]);
        }
    }

    #[test]
    fn resp3_nests_what_was_counted() {
        Shell::new().resp3().check(&[
            ("ZADD z 1 a 2 b 3 c", ":3"),
            ("ZPOPMIN z", "[\"a\", ,1]"),
            ("ZPOPMIN z 1", "[[\"b\", ,2]]"),
            ("ZMPOP 1 z MIN", "[\"z\", [[\"c\", ,3]]]"),
            ("ZPOPMIN z", "[]"),
            ("ZMPOP 1 z MIN", "nil"),
        ]);
    }
}
