//! Commands that take elements from lists, and wait for some when there are none.
//!
//! Rows first, then handlers in the order of the rows. A command that waits runs again when a list is created (see
//! [`crate::exec::waiter`]); in a transaction no command waits. The effect of each is the command that takes the same
//! elements without waiting.

use std::ops::Range;

use shardis_storage::value::Kind;
use shardis_storage::value::list::{End, List};

use super::super::pop::PopRequest;
use super::{bulk, end, limits, move_element, notify_popped, pop_from};
use crate::exec::arguments::deadline;
use crate::exec::waiter::Wish;
use crate::exec::{Awaited, CommandResult, Context};
use crate::spec::argument::Deprecated;
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

const FLAGS: Flags = Flags::WRITE.union(Flags::BLOCKING);

const FRACTIONS: (&str, &str) = ("6.0.0", "The timeout may be a fraction of a second.");

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "blpop",
        arity: Arity::AtLeast(3),
        flags: FLAGS,
        acl: Category::LIST,
        keys: &[KeySpec::at(1).range(-2, 1, 0).read_write().access().delete()],
        runs: Runs::Blocking(blpop),
        doc: &Doc {
            since: "2.0.0",
            group: Group::List,
            complexity: "O(N) for N keys.",
            summary: "Removes the first element of the first of several lists that is not empty, and returns it with its key; waits while there is none.",
            history: &[FRACTIONS],
            args: &[Arg::key("key", 0).multiple(), Arg::double("timeout")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "brpop",
        arity: Arity::AtLeast(3),
        flags: FLAGS,
        acl: Category::LIST,
        keys: &[KeySpec::at(1).range(-2, 1, 0).read_write().access().delete()],
        runs: Runs::Blocking(brpop),
        doc: &Doc {
            since: "2.0.0",
            group: Group::List,
            complexity: "O(N) for N keys.",
            summary: "Removes the last element of the first of several lists that is not empty, and returns it with its key; waits while there is none.",
            history: &[FRACTIONS],
            args: &[Arg::key("key", 0).multiple(), Arg::double("timeout")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "blmove",
        arity: Arity::Exactly(6),
        flags: FLAGS.union(Flags::DENYOOM),
        acl: Category::LIST,
        keys: &[
            KeySpec::at(1).read_write().access().delete(),
            KeySpec::at(2).read_write().insert(),
        ],
        runs: Runs::Blocking(blmove),
        doc: &Doc {
            since: "6.2.0",
            group: Group::List,
            complexity: "O(1)",
            summary: "Moves an element from one end of a list to one end of another and returns it; waits while there is none.",
            args: &[
                Arg::key("source", 0),
                Arg::key("destination", 1),
                Arg::one_of("wherefrom", super::ENDS),
                Arg::one_of("whereto", super::ENDS),
                Arg::double("timeout"),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "brpoplpush",
        arity: Arity::Exactly(4),
        flags: FLAGS.union(Flags::DENYOOM),
        acl: Category::LIST,
        keys: &[
            KeySpec::at(1).read_write().access().delete(),
            KeySpec::at(2).read_write().insert(),
        ],
        runs: Runs::Blocking(brpoplpush),
        doc: &Doc {
            since: "2.2.0",
            group: Group::List,
            complexity: "O(1)",
            summary: "Moves the last element of a list to the front of another and returns it; waits while there is none.",
            deprecated: Some(Deprecated {
                since: "6.2.0",
                replaced_by: "`BLMOVE` with the `RIGHT` and `LEFT` arguments",
            }),
            history: &[FRACTIONS],
            args: &[
                Arg::key("source", 0),
                Arg::key("destination", 1),
                Arg::double("timeout"),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "blmpop",
        arity: Arity::AtLeast(5),
        flags: Flags::WRITE.union(Flags::BLOCKING),
        acl: Category::LIST,
        keys: &[KeySpec::counted(2).read_write().access().delete()],
        runs: Runs::Blocking(blmpop),
        doc: &Doc {
            since: "7.0.0",
            group: Group::List,
            complexity: "O(N + M) for N keys and M elements returned.",
            summary: "Removes elements from an end of the first of several lists that is not empty, and returns them with its key; waits while there are none.",
            args: &[
                Arg::double("timeout"),
                Arg::integer("numkeys"),
                Arg::key("key", 0).multiple(),
                Arg::one_of("where", super::ENDS),
                Arg::integer("count").token("COUNT").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// Waits for a list. False when the command must not wait.
fn wait(ctx: &Context<'_>, keys: Range<usize>, deadline_ms: Option<i64>) -> bool {
    ctx.wait(Wish {
        keys,
        kind: Kind::List,
        minds_removal: false,
        deadline_ms,
        request: None,
        awaited: Awaited::Nothing,
    })
}

fn blpop(ctx: &mut Context<'_>) -> CommandResult {
    pop_or_wait(ctx, End::Front)
}

fn brpop(ctx: &mut Context<'_>) -> CommandResult {
    pop_or_wait(ctx, End::Back)
}

fn pop_or_wait(ctx: &mut Context<'_>, end: End) -> CommandResult {
    let last = ctx.args.len() - 1;
    let deadline_ms = deadline(ctx.args.at(last), ctx.now_ms())?;
    for index in 1..last {
        if !ctx.is_at_hand(index)? {
            continue;
        }
        let (key, limits) = (ctx.key(index), limits(ctx.settings));
        let Some(list) = ctx.keyspace.write_as::<List>(&key)? else {
            continue;
        };
        if !ctx.waiting.claim() {
            return Ok(());
        }
        ctx.reply.array(2);
        ctx.reply.bulk(key.bytes);
        list.pop(end, &limits, |element| bulk(&mut ctx.reply, element));
        let left = list.len();
        let name: &[u8] = match end {
            End::Front => b"LPOP",
            End::Back => b"RPOP",
        };
        ctx.effects.replace(&[name, key.bytes]);
        notify_popped(ctx, &key, end);
        ctx.removed(&key, 1, left);
        return Ok(());
    }
    if !wait(ctx, 1..last, deadline_ms) {
        ctx.reply.null_array();
    }
    Ok(())
}

fn blmove(ctx: &mut Context<'_>) -> CommandResult {
    let (from, to) = (end(ctx.args.at(3))?, end(ctx.args.at(4))?);
    let deadline_ms = deadline(ctx.args.at(5), ctx.now_ms())?;
    let args = ctx.args;
    move_or_wait(
        ctx,
        (from, to),
        deadline_ms,
        &[b"LMOVE", args.at(1), args.at(2), args.at(3), args.at(4)],
    )
}

fn brpoplpush(ctx: &mut Context<'_>) -> CommandResult {
    let deadline_ms = deadline(ctx.args.at(3), ctx.now_ms())?;
    let args = ctx.args;
    move_or_wait(
        ctx,
        (End::Back, End::Front),
        deadline_ms,
        &[b"RPOPLPUSH", args.at(1), args.at(2)],
    )
}

fn move_or_wait(
    ctx: &mut Context<'_>,
    (from, to): (End, End),
    deadline_ms: Option<i64>,
    repeated: &[&[u8]],
) -> CommandResult {
    if move_element(ctx, from, to)? {
        ctx.effects.replace(repeated);
    } else if !wait(ctx, 1..2, deadline_ms) {
        ctx.reply.null();
    }
    Ok(())
}

fn blmpop(ctx: &mut Context<'_>) -> CommandResult {
    let request = PopRequest::parse(ctx.args, 2, end)?;
    let deadline_ms = deadline(ctx.args.at(1), ctx.now_ms())?;
    for index in request.keys.clone() {
        if ctx.is_at_hand(index)? && pop_from(ctx, index, request.end, request.count)? {
            return Ok(());
        }
    }
    if !wait(ctx, request.keys, deadline_ms) {
        ctx.reply.null_array();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Shell;

    #[test]
    fn who_finds_something_does_not_wait() {
        for shards in [1, 4] {
            Shell::over(shards).check_effects(&[
                ("RPUSH l a b c d e", ":5", &["RPUSH l a b c d e"]),
                ("BLPOP none l 0", "[\"l\", \"a\"]", &["LPOP l"]),
                ("BRPOP none l 1.5", "[\"l\", \"e\"]", &["RPOP l"]),
                ("BLMOVE l m LEFT RIGHT 0", "\"b\"", &["LMOVE l m LEFT RIGHT"]),
                ("BRPOPLPUSH l m 0", "\"d\"", &["RPOPLPUSH l m"]),
                ("LRANGE m 0 -1", "[\"d\", \"b\"]", &[]),
                (
                    "BLMPOP 0 2 none m RIGHT COUNT 5",
                    "[\"m\", [\"b\", \"d\"]]",
                    &["RPOP m 2"],
                ),
                ("BLPOP l 0", "[\"l\", \"c\"]", &["LPOP l"]),
                ("EXISTS l m", ":0", &[]),
            ]);
        }
    }

    #[test]
    fn who_may_not_wait_gets_nothing() {
        Shell::new().check(&[
            ("BLPOP a b 0", "nil*"),
            ("BRPOP a 0", "nil*"),
            ("BLMPOP 0 1 a LEFT", "nil*"),
            ("BLMOVE a b LEFT LEFT 0", "nil"),
            ("BRPOPLPUSH a b 0", "nil"),
        ]);
    }

    #[test]
    fn timeouts_that_are_none() {
        let not_float = "-ERR timeout is not a float or out of range";
        Shell::new().check(&[
            ("BLPOP a x", not_float),
            ("BLPOP a nan", not_float),
            ("BLPOP a -1", "-ERR timeout is negative"),
            ("BLPOP a 1e300", "-ERR timeout is out of range"),
            ("BLMPOP x 1 a LEFT", not_float),
            ("BLMPOP x 0 a LEFT", "-ERR numkeys should be greater than 0"),
            ("BLMPOP x 1 a LEFT COUNT", "-ERR syntax error"),
            ("BLMOVE a b UP LEFT x", "-ERR syntax error"),
            ("BLMOVE a b LEFT LEFT x", not_float),
        ]);
    }
}
