//! Ranges of sorted sets, by rank, score or member: reading, storing, counting and removing them.
//!
//! Every kind of range is converted to a range of ranks; see [`Ends`]. Rows first, then the meaning of arguments,
//! then handlers in the order of the rows.

use std::ops::Range;

use shardis_protocol::Arguments;
use shardis_storage::number::parse_decimal_f64;
use shardis_storage::value::INT_TEXT_MAX;
use shardis_storage::value::sorted_set::{LexBound, Order, ScoreBound, SortedSet};

use super::{limits, removed, reply_entries, store};
use crate::error::ReplyError;
use crate::exec::arguments::{int, is};
use crate::exec::{CommandResult, Context, Options};
use crate::spec::argument::Deprecated;
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "zrange",
        arity: Arity::AtLeast(4),
        flags: Flags::READONLY,
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(zrange),
        doc: &Doc {
            since: "1.2.0",
            group: Group::SortedSet,
            complexity: "O(log(N)+M) to return M of N members.",
            summary: "Returns the members of a range of ranks, scores or names.",
            history: &[("6.2.0", "Options `REV`, `BYSCORE`, `BYLEX` and `LIMIT`.")],
            args: &[
                Arg::key("key", 0),
                Arg::string("start"),
                Arg::string("stop"),
                Arg::one_of(
                    "sortby",
                    &[Arg::flag("byscore", "BYSCORE"), Arg::flag("bylex", "BYLEX")],
                )
                .since("6.2.0")
                .optional(),
                Arg::flag("rev", "REV").since("6.2.0").optional(),
                Arg::block("offset_count", &[Arg::integer("offset"), Arg::integer("count")])
                    .token("LIMIT")
                    .since("6.2.0")
                    .optional(),
                Arg::flag("withscores", "WITHSCORES").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zrangestore",
        arity: Arity::AtLeast(5),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::SORTEDSET,
        keys: &[
            KeySpec::at(1).overwrite().update(),
            KeySpec::at(2).read_only().access(),
        ],
        runs: Runs::OnKeysLong(zrangestore),
        doc: &Doc {
            since: "6.2.0",
            group: Group::SortedSet,
            complexity: "O(log(N)+M) to store M of N members.",
            summary: "Stores the members of a range of ranks, scores or names under another key.",
            args: &[
                Arg::key("dst", 0),
                Arg::key("src", 1),
                Arg::string("min"),
                Arg::string("max"),
                Arg::one_of(
                    "sortby",
                    &[Arg::flag("byscore", "BYSCORE"), Arg::flag("bylex", "BYLEX")],
                )
                .optional(),
                Arg::flag("rev", "REV").optional(),
                Arg::block("offset_count", &[Arg::integer("offset"), Arg::integer("count")])
                    .token("LIMIT")
                    .optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zrevrange",
        arity: Arity::AtLeast(4),
        flags: Flags::READONLY,
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(zrevrange),
        doc: &Doc {
            since: "1.2.0",
            group: Group::SortedSet,
            complexity: "O(log(N)+M) to return M of N members.",
            summary: "Returns the members of a range of ranks, highest score first.",
            deprecated: Some(Deprecated {
                since: "6.2.0",
                replaced_by: "`ZRANGE` with the `REV` argument",
            }),
            args: &[
                Arg::key("key", 0),
                Arg::integer("start"),
                Arg::integer("stop"),
                Arg::flag("withscores", "WITHSCORES").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zrangebyscore",
        arity: Arity::AtLeast(4),
        flags: Flags::READONLY,
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(zrangebyscore),
        doc: &Doc {
            since: "1.0.5",
            group: Group::SortedSet,
            complexity: "O(log(N)+M) to return M of N members.",
            summary: "Returns the members whose scores are within a range.",
            deprecated: Some(Deprecated {
                since: "6.2.0",
                replaced_by: "`ZRANGE` with the `BYSCORE` argument",
            }),
            history: &[("2.0.0", "Option `WITHSCORES`.")],
            args: &[
                Arg::key("key", 0),
                Arg::double("min"),
                Arg::double("max"),
                Arg::flag("withscores", "WITHSCORES").since("2.0.0").optional(),
                Arg::block("offset_count", &[Arg::integer("offset"), Arg::integer("count")])
                    .token("LIMIT")
                    .optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zrevrangebyscore",
        arity: Arity::AtLeast(4),
        flags: Flags::READONLY,
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(zrevrangebyscore),
        doc: &Doc {
            since: "2.2.0",
            group: Group::SortedSet,
            complexity: "O(log(N)+M) to return M of N members.",
            summary: "Returns the members whose scores are within a range, highest score first.",
            deprecated: Some(Deprecated {
                since: "6.2.0",
                replaced_by: "`ZRANGE` with the `REV` and `BYSCORE` arguments",
            }),
            history: &[("2.1.6", "`min` and `max` can be exclusive.")],
            args: &[
                Arg::key("key", 0),
                Arg::double("max"),
                Arg::double("min"),
                Arg::flag("withscores", "WITHSCORES").optional(),
                Arg::block("offset_count", &[Arg::integer("offset"), Arg::integer("count")])
                    .token("LIMIT")
                    .optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zrangebylex",
        arity: Arity::AtLeast(4),
        flags: Flags::READONLY,
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(zrangebylex),
        doc: &Doc {
            since: "2.8.9",
            group: Group::SortedSet,
            complexity: "O(log(N)+M) to return M of N members.",
            summary: "Returns the members within a range of names, all scores being equal.",
            deprecated: Some(Deprecated {
                since: "6.2.0",
                replaced_by: "`ZRANGE` with the `BYLEX` argument",
            }),
            args: &[
                Arg::key("key", 0),
                Arg::string("min"),
                Arg::string("max"),
                Arg::block("offset_count", &[Arg::integer("offset"), Arg::integer("count")])
                    .token("LIMIT")
                    .optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zrevrangebylex",
        arity: Arity::AtLeast(4),
        flags: Flags::READONLY,
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(zrevrangebylex),
        doc: &Doc {
            since: "2.8.9",
            group: Group::SortedSet,
            complexity: "O(log(N)+M) to return M of N members.",
            summary: "Returns the members within a range of names backwards, all scores being equal.",
            deprecated: Some(Deprecated {
                since: "6.2.0",
                replaced_by: "`ZRANGE` with the `REV` and `BYLEX` arguments",
            }),
            args: &[
                Arg::key("key", 0),
                Arg::string("max"),
                Arg::string("min"),
                Arg::block("offset_count", &[Arg::integer("offset"), Arg::integer("count")])
                    .token("LIMIT")
                    .optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zcount",
        arity: Arity::Exactly(4),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(zcount),
        doc: &Doc {
            since: "2.0.0",
            group: Group::SortedSet,
            complexity: "O(log(N)) for N members.",
            summary: "Counts the members whose scores are within a range.",
            args: &[Arg::key("key", 0), Arg::double("min"), Arg::double("max")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zlexcount",
        arity: Arity::Exactly(4),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(zlexcount),
        doc: &Doc {
            since: "2.8.9",
            group: Group::SortedSet,
            complexity: "O(log(N)) for N members.",
            summary: "Counts the members within a range of names, all scores being equal.",
            args: &[Arg::key("key", 0), Arg::string("min"), Arg::string("max")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zremrangebyrank",
        arity: Arity::Exactly(4),
        flags: Flags::WRITE,
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_write().delete()],
        runs: Runs::OnKeysLong(zremrangebyrank),
        doc: &Doc {
            since: "2.0.0",
            group: Group::SortedSet,
            complexity: "O(log(N)+M) to remove M of N members.",
            summary: "Removes the members of a range of ranks.",
            args: &[Arg::key("key", 0), Arg::integer("start"), Arg::integer("stop")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zremrangebyscore",
        arity: Arity::Exactly(4),
        flags: Flags::WRITE,
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_write().delete()],
        runs: Runs::OnKeysLong(zremrangebyscore),
        doc: &Doc {
            since: "1.2.0",
            group: Group::SortedSet,
            complexity: "O(log(N)+M) to remove M of N members.",
            summary: "Removes the members whose scores are within a range.",
            args: &[Arg::key("key", 0), Arg::double("min"), Arg::double("max")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zremrangebylex",
        arity: Arity::Exactly(4),
        flags: Flags::WRITE,
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_write().delete()],
        runs: Runs::OnKeysLong(zremrangebylex),
        doc: &Doc {
            since: "2.8.9",
            group: Group::SortedSet,
            complexity: "O(log(N)+M) to remove M of N members.",
            summary: "Removes the members within a range of names, all scores being equal.",
            args: &[Arg::key("key", 0), Arg::string("min"), Arg::string("max")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// Property of members that a range is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Member,
}

/// Parts of a request that are fixed by the command's name; none where options determine them.
#[derive(Clone, Copy, Debug)]
struct Form {
    by: Option<By>,
    order: Option<Order>,
    /// The command stores its result, and has no option WITHSCORES.
    stores: bool,
}

impl Form {
    /// ZRANGE: options determine everything.
    const OPEN: Self = Self {
        by: None,
        order: None,
        stores: false,
    };

    const fn fixed(by: By, order: Order) -> Self {
        Self {
            by: Some(by),
            order: Some(order),
            stores: false,
        }
    }
}

/// The two ends of a range, lower end first.
#[derive(Clone, Copy, Debug)]
enum Ends<'a> {
    /// Ranks in the order of the query, negative ones counted from its end.
    Ranks(i64, i64),
    Scores(ScoreBound, ScoreBound),
    Members(LexBound<'a>, LexBound<'a>),
}

impl<'a> Ends<'a> {
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Self, ReplyError> {
        Ok(match by {
            By::Rank => Self::Ranks(int(min)?, int(max)?),
            By::Score => Self::Scores(score_bound(min)?, score_bound(max)?),
            By::Member => Self::Members(lex_bound(min)?, lex_bound(max)?),
        })
    }

    /// The ranks between the ends, lowest score first, for a query that runs in this order.
    fn ranks(self, set: &SortedSet, order: Order) -> Range<usize> {
        match self {
            Self::Scores(min, max) => set.ranks_by_score(min, max),
            Self::Members(min, max) => set.ranks_by_lex(min, max),
            Self::Ranks(start, stop) => {
                let len = set.len();
                let ranks = clamp(start, stop, len);
                match order {
                    Order::Ascending => ranks,
                    Order::Descending => len - ranks.end..len - ranks.start,
                }
            }
        }
    }
}

/// The ranks from `start` to `stop`, both included and, when negative, counted from the end.
fn clamp(start: i64, stop: i64, len: usize) -> Range<usize> {
    let from_start = |rank: i64| {
        if rank < 0 {
            rank.saturating_add(len as i64)
        } else {
            rank
        }
    };
    let start = from_start(start).max(0) as usize;
    let end = usize::try_from(from_start(stop)).map_or(0, |stop| stop.saturating_add(1).min(len));
    start.min(end)..end
}

/// Reads an end of a range of scores: a decimal number, after `(` if the number itself is excluded. As in Redis, a
/// number too large for a double is infinite here, and an empty text is 0.
fn score_bound(text: &[u8]) -> Result<ScoreBound, ReplyError> {
    let (exclusive, number) = match text {
        [b'(', number @ ..] => (true, number),
        number => (false, number),
    };
    let score = match number {
        [] => Some(0.0),
        number => parse_decimal_f64(number).or_else(|| parse_of_any_size(number)),
    };
    let score = score.ok_or(ReplyError::NotScoreRange)?;
    Ok(ScoreBound { score, exclusive })
}

/// Reads a decimal number that [`parse_decimal_f64`] refuses because of its size.
fn parse_of_any_size(text: &[u8]) -> Option<f64> {
    let digits = text
        .strip_prefix(b"-")
        .or(text.strip_prefix(b"+"))
        .unwrap_or(text);
    let is_number = matches!(digits, [b'0'..=b'9' | b'.', ..]);
    std::str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok()
}

/// Reads an end of a range of members: `-`, `+`, or a member after `[` or `(`.
fn lex_bound(text: &[u8]) -> Result<LexBound<'_>, ReplyError> {
    match text {
        b"-" => Ok(LexBound::Lowest),
        b"+" => Ok(LexBound::Highest),
        [b'[', member @ ..] => Ok(LexBound::Inclusive(member)),
        [b'(', member @ ..] => Ok(LexBound::Exclusive(member)),
        _ => Err(ReplyError::NotMemberRange),
    }
}

/// A query of the ZRANGE family.
#[derive(Debug)]
struct Query<'a> {
    ends: Ends<'a>,
    order: Order,
    /// Number of elements to skip, which selects none if negative, and the most to return, which is unlimited if
    /// negative.
    limit: (i64, i64),
    with_scores: bool,
}

impl<'a> Query<'a> {
    /// Reads the ends from argument `first` on, and the options after them.
    fn parse(args: Arguments<'a>, first: usize, form: Form) -> Result<Self, ReplyError> {
        let Form {
            mut by,
            mut order,
            stores,
        } = form;
        let (mut limit, mut with_scores) = ((0, -1), false);
        let mut options = Options::new(args, first + 2);
        while let Some(word) = options.word() {
            if !stores && is(word, "WITHSCORES") {
                with_scores = true;
            } else if is(word, "LIMIT") {
                let (offset, count) = (options.value()?, options.value()?);
                limit = (int(offset)?, int(count)?);
            } else if order.is_none() && is(word, "REV") {
                order = Some(Order::Descending);
            } else if by.is_none() && is(word, "BYLEX") {
                by = Some(By::Member);
            } else if by.is_none() && is(word, "BYSCORE") {
                by = Some(By::Score);
            } else {
                return Err(ReplyError::Syntax);
            }
        }
        let (by, order) = (by.unwrap_or(By::Rank), order.unwrap_or(Order::Ascending));
        if limit.1 != -1 && by == By::Rank {
            return Err(ReplyError::LimitOfRanks);
        }
        if with_scores && by == By::Member {
            return Err(ReplyError::ScoresOfMembers);
        }
        let (mut min, mut max) = (args.at(first), args.at(first + 1));
        if order == Order::Descending && by != By::Rank {
            (min, max) = (max, min);
        }
        let ends = Ends::parse(by, min, max)?;
        Ok(Self {
            ends,
            order,
            limit,
            with_scores,
        })
    }

    /// The range of ranks that the query selects.
    fn ranks(&self, set: &SortedSet) -> Range<usize> {
        let ranks = self.ends.ranks(set, self.order);
        if matches!(self.ends, Ends::Ranks(..)) {
            return ranks;
        }
        let (offset, count) = self.limit;
        let offset = usize::try_from(offset).map_or(ranks.len(), |offset| offset.min(ranks.len()));
        let count = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .min(ranks.len() - offset);
        match self.order {
            Order::Ascending => ranks.start + offset..ranks.start + offset + count,
            Order::Descending => ranks.end - offset - count..ranks.end - offset,
        }
    }
}

/// Replies with a range of the key at argument 1; the ends are arguments 2 and 3.
fn reply_range(ctx: &mut Context<'_>, form: Form) -> CommandResult {
    let query = Query::parse(ctx.args, 2, form)?;
    let key = ctx.key(1);
    let Some(set) = ctx.keyspace.read_as::<SortedSet>(&key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    let entries = set.range(query.ranks(set), query.order);
    reply_entries(&mut ctx.reply, entries.len(), entries, query.with_scores);
    Ok(())
}

fn zrange(ctx: &mut Context<'_>) -> CommandResult {
    reply_range(ctx, Form::OPEN)
}

fn zrevrange(ctx: &mut Context<'_>) -> CommandResult {
    reply_range(ctx, Form::fixed(By::Rank, Order::Descending))
}

fn zrangebyscore(ctx: &mut Context<'_>) -> CommandResult {
    reply_range(ctx, Form::fixed(By::Score, Order::Ascending))
}

fn zrevrangebyscore(ctx: &mut Context<'_>) -> CommandResult {
    reply_range(ctx, Form::fixed(By::Score, Order::Descending))
}

fn zrangebylex(ctx: &mut Context<'_>) -> CommandResult {
    reply_range(ctx, Form::fixed(By::Member, Order::Ascending))
}

fn zrevrangebylex(ctx: &mut Context<'_>) -> CommandResult {
    reply_range(ctx, Form::fixed(By::Member, Order::Descending))
}

fn zrangestore(ctx: &mut Context<'_>) -> CommandResult {
    let form = Form {
        stores: true,
        ..Form::OPEN
    };
    let query = Query::parse(ctx.args, 3, form)?;
    let limits = limits(ctx);
    let (destination, source) = (ctx.key(1), ctx.key(2));
    let result = match ctx.keyspace.read_as::<SortedSet>(&source)? {
        None => SortedSet::default(),
        Some(set) => {
            let mut scratch = [0; INT_TEXT_MAX];
            // Elements are stored in ascending order whatever the query's, so that each is appended at the end.
            let ranks = query.ranks(set);
            let mut result = SortedSet::for_members(0, ranks.len(), &limits);
            for (member, score) in set.range(ranks, Order::Ascending) {
                result.insert(member.as_bytes(&mut scratch), score, &limits);
            }
            result
        }
    };
    store(ctx, &destination, "zrangestore", result);
    Ok(())
}

/// Counts the members between two ends.
fn count(ctx: &mut Context<'_>, by: By) -> CommandResult {
    let ends = Ends::parse(by, ctx.args.at(2), ctx.args.at(3))?;
    let key = ctx.key(1);
    let set = ctx.keyspace.read_as::<SortedSet>(&key)?;
    let count = set.map_or(0, |set| ends.ranks(set, Order::Ascending).len());
    ctx.reply.integer(count as i64);
    Ok(())
}

fn zcount(ctx: &mut Context<'_>) -> CommandResult {
    count(ctx, By::Score)
}

fn zlexcount(ctx: &mut Context<'_>) -> CommandResult {
    count(ctx, By::Member)
}

/// Removes the members between two ends, and raises this event.
fn remove(ctx: &mut Context<'_>, by: By, event: &'static str) -> CommandResult {
    let ends = Ends::parse(by, ctx.args.at(2), ctx.args.at(3))?;
    let key = ctx.key(1);
    let (mut count, mut left) = (0, 0);
    if let Some(set) = ctx.keyspace.write_as::<SortedSet>(&key)? {
        let ranks = ends.ranks(set, Order::Ascending);
        count = ranks.len();
        set.remove_range(ranks, Order::Ascending, |_, _| {});
        left = set.len();
    }
    removed(ctx, &key, event, count, left);
    ctx.reply.integer(count as i64);
    Ok(())
}

fn zremrangebyrank(ctx: &mut Context<'_>) -> CommandResult {
    remove(ctx, By::Rank, "zremrangebyrank")
}

fn zremrangebyscore(ctx: &mut Context<'_>) -> CommandResult {
    remove(ctx, By::Score, "zremrangebyscore")
}

fn zremrangebylex(ctx: &mut Context<'_>) -> CommandResult {
    remove(ctx, By::Member, "zremrangebylex")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::testing::Shell;

    const NOT_INTEGER: &str = "-ERR value is not an integer or out of range";
    const SYNTAX: &str = "-ERR syntax error";

    #[test]
    fn ranges_of_ranks() {
        Shell::new().check(&[
            ("ZADD z 1 a 2 b 3 c 4 d", ":4"),
            ("ZRANGE z 0 -1", "[\"a\", \"b\", \"c\", \"d\"]"),
            ("ZRANGE z 1 2 WITHSCORES", "[\"b\", \"2\", \"c\", \"3\"]"),
            ("ZRANGE z 0 1 REV", "[\"d\", \"c\"]"),
            ("ZREVRANGE z -2 -1 WITHSCORES", "[\"b\", \"2\", \"a\", \"1\"]"),
            ("ZRANGE z 3 1", "[]"),
            ("ZRANGE z 4 9", "[]"),
            (
                "ZRANGE z -9223372036854775808 9223372036854775807",
                "[\"a\", \"b\", \"c\", \"d\"]",
            ),
            ("ZRANGE none 0 -1", "[]"),
            ("ZRANGE none x -1", NOT_INTEGER),
            ("ZRANGE z 0 -1 LIMIT 0 -1", "[\"a\", \"b\", \"c\", \"d\"]"),
            (
                "ZRANGE z 0 -1 LIMIT 0 1",
                "-ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ),
            ("ZRANGE z 0 -1 LIMIT x", SYNTAX),
            ("ZRANGE z 0 -1 LIMIT x 1", NOT_INTEGER),
            ("ZREVRANGE z 0 -1 REV", SYNTAX),
        ]);
    }

    #[test]
    fn ranges_of_scores() {
        let not_float = "-ERR min or max is not a float";
        Shell::new().check(&[
            ("ZADD z -inf m 1 a 2 b 3 c inf p", ":5"),
            ("ZRANGEBYSCORE z (1 +inf", "[\"b\", \"c\", \"p\"]"),
            (
                "ZRANGEBYSCORE z -inf (2 WITHSCORES",
                "[\"m\", \"-inf\", \"a\", \"1\"]",
            ),
            ("ZRANGEBYSCORE z 1 3 LIMIT 1 1", "[\"b\"]"),
            ("ZRANGEBYSCORE z 1 3 LIMIT 1 -7", "[\"b\", \"c\"]"),
            ("ZRANGEBYSCORE z 1 3 LIMIT -1 2", "[]"),
            ("ZRANGEBYSCORE z 1 3 LIMIT 9 2", "[]"),
            ("ZREVRANGEBYSCORE z 3 1 LIMIT 1 1", "[\"b\"]"),
            ("ZREVRANGEBYSCORE z 3 1 LIMIT 2 5", "[\"a\"]"),
            ("ZREVRANGEBYSCORE z 1 3", "[]"),
            ("ZRANGE z 3 (1 BYSCORE REV", "[\"c\", \"b\"]"),
            ("ZRANGE z 1e400 inf BYSCORE", "[\"p\"]"),
            ("ZRANGEBYSCORE z \"\" 1", "[\"a\"]"),
            ("ZRANGEBYSCORE z nan 1", not_float),
            ("ZRANGEBYSCORE none [1 1", not_float),
            ("ZRANGE z 1 2 BYSCORE BYLEX", SYNTAX),
            ("ZCOUNT z 1 (3", ":2"),
            ("ZCOUNT none 1 3", ":0"),
            ("ZCOUNT z 1 x", not_float),
        ]);
    }

    #[test]
    fn ranges_of_members() {
        let not_member = "-ERR min or max not valid string range item";
        Shell::new().check(&[
            ("ZADD z 0 a 0 b 0 c 0 d", ":4"),
            ("ZRANGEBYLEX z - +", "[\"a\", \"b\", \"c\", \"d\"]"),
            ("ZRANGEBYLEX z [b (d", "[\"b\", \"c\"]"),
            ("ZREVRANGEBYLEX z (d [b LIMIT 1 1", "[\"b\"]"),
            ("ZRANGE z + [c BYLEX REV", "[\"d\", \"c\"]"),
            ("ZLEXCOUNT z (a +", ":3"),
            ("ZLEXCOUNT none - +", ":0"),
            ("ZRANGEBYLEX z a b", not_member),
            ("ZLEXCOUNT none - x", not_member),
            (
                "ZRANGE z - + BYLEX WITHSCORES",
                "-ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ),
        ]);
    }

    #[test]
    fn ranges_are_removed() {
        Shell::new().check_effects(&[
            (
                "ZADD z 1 a 2 b 3 c 4 d 5 e",
                ":5",
                &["ZADD z 1 a 2 b 3 c 4 d 5 e"],
            ),
            ("ZREMRANGEBYRANK z 0 0", ":1", &["ZREMRANGEBYRANK z 0 0"]),
            ("ZREMRANGEBYRANK z 3 1", ":0", &[]),
            ("ZREMRANGEBYSCORE z (2 3", ":1", &["ZREMRANGEBYSCORE z (2 3"]),
            ("ZREMRANGEBYLEX z - [d", ":2", &["ZREMRANGEBYLEX z - [d"]),
            ("ZRANGE z 0 -1", "[\"e\"]", &[]),
            ("ZREMRANGEBYRANK z -5 -1", ":1", &["ZREMRANGEBYRANK z -5 -1"]),
            ("EXISTS z", ":0", &[]),
            ("ZREMRANGEBYRANK z 0 -1", ":0", &[]),
            ("ZREMRANGEBYRANK z x -1", NOT_INTEGER, &[]),
        ]);
    }

    #[test]
    fn ranges_are_stored() {
        for shards in [1, 4] {
            Shell::over(shards).check_effects(&[
                ("ZADD z 1 a 2 b 3 c 4 d", ":4", &["ZADD z 1 a 2 b 3 c 4 d"]),
                ("SET d v EX 100", "+OK", &["SET d v PXAT 1700000100000"]),
                ("ZRANGESTORE d z 1 2", ":2", &["ZRANGESTORE d z 1 2"]),
                ("ZRANGE d 0 -1 WITHSCORES", "[\"b\", \"2\", \"c\", \"3\"]", &[]),
                ("TTL d", ":-1", &[]),
                (
                    "ZRANGESTORE d z 3 2 BYSCORE REV LIMIT 0 1",
                    ":1",
                    &["ZRANGESTORE d z 3 2 BYSCORE REV LIMIT 0 1"],
                ),
                ("ZRANGE d 0 -1", "[\"c\"]", &[]),
                ("ZRANGESTORE z z 1 1", ":1", &["ZRANGESTORE z z 1 1"]),
                ("ZRANGESTORE d none 0 1", ":0", &["ZRANGESTORE d none 0 1"]),
                ("EXISTS d", ":0", &[]),
                ("ZRANGESTORE d none 0 1", ":0", &[]),
                ("ZRANGESTORE d z 0 1 WITHSCORES", SYNTAX, &[]),
            ]);
        }
    }

    #[test]
    fn scores_come_in_pairs_in_resp3() {
        Shell::new().resp3().check(&[
            ("ZADD z 1 a 2.5 b", ":2"),
            ("ZRANGE z 0 -1", "[\"a\", \"b\"]"),
            ("ZRANGE z 0 -1 WITHSCORES", "[[\"a\", ,1], [\"b\", ,2.5]]"),
        ]);
    }

    #[test]
    fn bounds_are_decimal_numbers_of_any_size() {
        for (text, score) in [
            ("1", Some(1.0)),
            ("", Some(0.0)),
            (" 1.5", None),
            ("-inf", Some(f64::NEG_INFINITY)),
            ("1e400", Some(f64::INFINITY)),
            ("-1e400", Some(f64::NEG_INFINITY)),
            ("1e-400", Some(0.0)),
            ("0x10", None),
            ("1 ", None),
            (" ", None),
            ("nan", None),
            ("x", None),
            ("[1", None),
        ] {
            let inclusive = score.map(|score| ScoreBound {
                score,
                exclusive: false,
            });
            assert_eq!(score_bound(text.as_bytes()).ok(), inclusive, "{text:?}");
            let exclusive = score.map(|score| ScoreBound {
                score,
                exclusive: true,
            });
            assert_eq!(
                score_bound(format!("({text}").as_bytes()).ok(),
                exclusive,
                "({text:?}"
            );
        }
        assert!(score_bound(b"((1").is_err());
    }

    proptest! {
        #[test]
        fn clamped_ranks_agree_with_a_plain_twin(start in -12_i64..12, stop in -12_i64..12, len in 0_usize..8) {
            let place = |rank: i64| if rank < 0 { rank + len as i64 } else { rank };
            let expected: Vec<usize> =
                (0..len).filter(|rank| (place(start)..=place(stop)).contains(&(*rank as i64))).collect();
            prop_assert_eq!(clamp(start, stop, len).collect::<Vec<_>>(), expected);
        }
    }
}
