//! Unions, intersections and differences of sorted sets and of plain sets, whose members have a score of 1.
//!
//! Rows first, then the parts of a request, then handlers.

use std::ops::Range;

use shardis_protocol::Arguments;
use shardis_storage::entry::Entry;
use shardis_storage::value::set::Set;
use shardis_storage::value::sorted_set::{SortedSet, SortedSetBuilder};
use shardis_storage::value::{INT_TEXT_MAX, StringRef};
use smallvec::SmallVec;

use super::{limits, reply_entries, score, store};
use crate::error::ReplyError;
use crate::exec::arguments::{int, is};
use crate::exec::{CommandResult, Context, Options};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "zunion",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Category::SORTEDSET,
        keys: &[KeySpec::counted(1).read_only().access()],
        runs: Runs::OnKeysLong(zunion),
        doc: &Doc {
            since: "6.2.0",
            group: Group::SortedSet,
            complexity: "O(N)+O(M*log(M)) for N members in all, M of them in the result.",
            summary: "Returns the members that are in any of several sorted sets.",
            args: &[
                Arg::integer("numkeys"),
                Arg::key("key", 0).multiple(),
                Arg::integer("weight").token("WEIGHTS").optional().multiple(),
                Arg::one_of(
                    "aggregate",
                    &[
                        Arg::flag("sum", "SUM"),
                        Arg::flag("min", "MIN"),
                        Arg::flag("max", "MAX"),
                    ],
                )
                .token("AGGREGATE")
                .optional(),
                Arg::flag("withscores", "WITHSCORES").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zinter",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Category::SORTEDSET,
        keys: &[KeySpec::counted(1).read_only().access()],
        runs: Runs::OnKeysLong(zinter),
        doc: &Doc {
            since: "6.2.0",
            group: Group::SortedSet,
            complexity: "O(N*K)+O(M*log(M)) at worst, the smallest of K sorted sets having N members and the result M.",
            summary: "Returns the members that are in all of several sorted sets.",
            args: &[
                Arg::integer("numkeys"),
                Arg::key("key", 0).multiple(),
                Arg::integer("weight").token("WEIGHTS").optional().multiple(),
                Arg::one_of(
                    "aggregate",
                    &[
                        Arg::flag("sum", "SUM"),
                        Arg::flag("min", "MIN"),
                        Arg::flag("max", "MAX"),
                    ],
                )
                .token("AGGREGATE")
                .optional(),
                Arg::flag("withscores", "WITHSCORES").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zdiff",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Category::SORTEDSET,
        keys: &[KeySpec::counted(1).read_only().access()],
        runs: Runs::OnKeysLong(zdiff),
        doc: &Doc {
            since: "6.2.0",
            group: Group::SortedSet,
            complexity: "O(L + (N-K)log(N)) at worst, with L members in all, N of them in the first sorted set and K in the result.",
            summary: "Returns the members that are in the first of several sorted sets only.",
            args: &[
                Arg::integer("numkeys"),
                Arg::key("key", 0).multiple(),
                Arg::flag("withscores", "WITHSCORES").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zunionstore",
        arity: Arity::AtLeast(4),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::SORTEDSET,
        keys: &[
            KeySpec::at(1).overwrite().update(),
            KeySpec::counted(2).read_only().access(),
        ],
        runs: Runs::OnKeysLong(zunionstore),
        doc: &Doc {
            since: "2.0.0",
            group: Group::SortedSet,
            complexity: "O(N)+O(M*log(M)) for N members in all, M of them in the result.",
            summary: "Stores the members that are in any of several sorted sets.",
            args: &[
                Arg::key("destination", 0),
                Arg::integer("numkeys"),
                Arg::key("key", 1).multiple(),
                Arg::integer("weight").token("WEIGHTS").optional().multiple(),
                Arg::one_of(
                    "aggregate",
                    &[
                        Arg::flag("sum", "SUM"),
                        Arg::flag("min", "MIN"),
                        Arg::flag("max", "MAX"),
                    ],
                )
                .token("AGGREGATE")
                .optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zinterstore",
        arity: Arity::AtLeast(4),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::SORTEDSET,
        keys: &[
            KeySpec::at(1).overwrite().update(),
            KeySpec::counted(2).read_only().access(),
        ],
        runs: Runs::OnKeysLong(zinterstore),
        doc: &Doc {
            since: "2.0.0",
            group: Group::SortedSet,
            complexity: "O(N*K)+O(M*log(M)) at worst, the smallest of K sorted sets having N members and the result M.",
            summary: "Stores the members that are in all of several sorted sets.",
            args: &[
                Arg::key("destination", 0),
                Arg::integer("numkeys"),
                Arg::key("key", 1).multiple(),
                Arg::integer("weight").token("WEIGHTS").optional().multiple(),
                Arg::one_of(
                    "aggregate",
                    &[
                        Arg::flag("sum", "SUM"),
                        Arg::flag("min", "MIN"),
                        Arg::flag("max", "MAX"),
                    ],
                )
                .token("AGGREGATE")
                .optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zdiffstore",
        arity: Arity::AtLeast(4),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::SORTEDSET,
        keys: &[
            KeySpec::at(1).overwrite().update(),
            KeySpec::counted(2).read_only().access(),
        ],
        runs: Runs::OnKeysLong(zdiffstore),
        doc: &Doc {
            since: "6.2.0",
            group: Group::SortedSet,
            complexity: "O(L + (N-K)log(N)) at worst, with L members in all, N of them in the first sorted set and K in the result.",
            summary: "Stores the members that are in the first of several sorted sets only.",
            args: &[
                Arg::key("destination", 0),
                Arg::integer("numkeys"),
                Arg::key("key", 1).multiple(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zintercard",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Category::SORTEDSET,
        keys: &[KeySpec::counted(1).read_only().access()],
        runs: Runs::OnKeysLong(zintercard),
        doc: &Doc {
            since: "7.0.0",
            group: Group::SortedSet,
            complexity: "O(N*K) at worst, the smallest of K sorted sets having N members.",
            summary: "Counts the members that are in all of several sorted sets.",
            args: &[
                Arg::integer("numkeys"),
                Arg::key("key", 0).multiple(),
                Arg::integer("limit").token("LIMIT").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// Number of sources that are listed without an allocation.
const SOURCES_AT_ONCE: usize = 8;

/// Rule that combines the scores of a member that is in several sorted sets.
#[derive(Clone, Copy, Debug, Default)]
enum Aggregate {
    #[default]
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn from_word(word: &[u8]) -> Option<Self> {
        [("SUM", Self::Sum), ("MIN", Self::Min), ("MAX", Self::Max)]
            .into_iter()
            .find(|(name, _)| is(word, name))
            .map(|(_, aggregate)| aggregate)
    }

    /// Infinities of opposite signs add up to 0 rather than to NaN.
    fn merge(self, old: f64, new: f64) -> f64 {
        match self {
            Self::Sum => number_or_zero(old + new),
            Self::Min => {
                if new < old {
                    new
                } else {
                    old
                }
            }
            Self::Max => {
                if new > old {
                    new
                } else {
                    old
                }
            }
        }
    }
}

/// A computed score: 0 in place of NaN (an infinite score with weight 0, say).
fn number_or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// One of the sets to combine. Members of a plain set have a score of 1.
#[derive(Clone, Copy)]
enum Source<'a> {
    Missing,
    Sorted(&'a SortedSet),
    Plain(&'a Set),
}

impl<'a> Source<'a> {
    /// The set of an entry.
    ///
    /// # Errors
    /// [`ReplyError::WrongType`] if the entry is neither a set nor a sorted set.
    fn of(entry: Option<&'a Entry>) -> Result<Self, ReplyError> {
        let Some(entry) = entry else {
            return Ok(Self::Missing);
        };
        let sorted = entry.get().map(Self::Sorted);
        sorted
            .or_else(|| entry.get().map(Self::Plain))
            .ok_or(ReplyError::WrongType)
    }

    fn len(self) -> usize {
        match self {
            Self::Missing => 0,
            Self::Sorted(set) => set.len(),
            Self::Plain(set) => set.len(),
        }
    }

    fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            Self::Missing => None,
            Self::Sorted(set) => set.score(member),
            Self::Plain(set) => set.contains(member).then_some(1.0),
        }
    }

    fn iter(self) -> impl Iterator<Item = (StringRef<'a>, f64)> {
        let (sorted, plain) = match self {
            Self::Missing => (None, None),
            Self::Sorted(set) => (Some(set.iter()), None),
            Self::Plain(set) => (None, Some(set.iter().map(|member| (member, 1.0)))),
        };
        sorted.into_iter().flatten().chain(plain.into_iter().flatten())
    }
}

/// Operation on the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// A request of a command in this file.
struct Request {
    /// Indexes of the keys of the sources.
    keys: Range<usize>,
    /// Weights of the sources; empty if none were given.
    weights: SmallVec<[f64; SOURCES_AT_ONCE]>,
    aggregate: Aggregate,
    with_scores: bool,
}

/// Indexes of the keys whose number is argument `at`.
///
/// # Errors
/// When that is no number, below 1 (for `command`), or larger than the number of arguments that follow.
fn key_positions(args: Arguments<'_>, at: usize, command: &'static str) -> Result<Range<usize>, ReplyError> {
    let count = int(args.at(at))?;
    let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) else {
        return Err(ReplyError::NoInputKeys(command));
    };
    if count >= args.len() - at {
        return Err(ReplyError::Syntax);
    }
    Ok(at + 1..at + 1 + count)
}

/// Looks all sources up and checks their types, before the rest of the request is read.
fn check_sources(ctx: &mut Context<'_>, keys: Range<usize>) -> CommandResult {
    for position in keys {
        let key = ctx.key(position);
        Source::of(ctx.keyspace.read(&key))?;
    }
    Ok(())
}

impl Request {
    /// Reads a request whose number of keys is argument `at`. Without WITHSCORES if it stores its result.
    fn parse(
        ctx: &mut Context<'_>,
        at: usize,
        operation: Operation,
        command: &'static str,
        stores: bool,
    ) -> Result<Self, ReplyError> {
        let keys = key_positions(ctx.args, at, command)?;
        check_sources(ctx, keys.clone())?;
        let mut request = Self {
            keys: keys.clone(),
            weights: SmallVec::new(),
            aggregate: Aggregate::default(),
            with_scores: false,
        };
        let merges = operation != Operation::Difference;
        let mut options = Options::new(ctx.args, keys.end);
        while let Some(word) = options.word() {
            if merges && is(word, "WEIGHTS") && ctx.args.len() - options.position() >= keys.len() {
                request.weights.clear();
                for _ in keys.clone() {
                    let weight = score(options.value()?).map_err(|_| ReplyError::WeightNotFloat)?;
                    request.weights.push(weight);
                }
            } else if merges && is(word, "AGGREGATE") {
                let word = options.value()?;
                request.aggregate = Aggregate::from_word(word).ok_or(ReplyError::Syntax)?;
            } else if !stores && is(word, "WITHSCORES") {
                request.with_scores = true;
            } else {
                return Err(ReplyError::Syntax);
            }
        }
        Ok(request)
    }

    /// The sources with their weights, in the order of the request.
    fn sources<'v>(&self, ctx: &'v Context<'_>) -> Sources<'v> {
        self.keys
            .clone()
            .enumerate()
            .map(|(n, position)| {
                let key = ctx.key(position);
                // The types were checked by the look-up.
                let source = Source::of(ctx.keyspace.found(&key)).unwrap_or(Source::Missing);
                (source, self.weights.get(n).copied().unwrap_or(1.0))
            })
            .collect()
    }

    /// Computes the result.
    fn result(&self, ctx: &Context<'_>, operation: Operation) -> SortedSet {
        let limits = limits(ctx);
        let mut sources = self.sources(ctx);
        let mut result = SortedSetBuilder::new(limits.hasher);
        if operation != Operation::Difference {
            // The smallest set comes first, which also determines the order in which scores are added.
            sources.sort_by_key(|(source, _)| source.len());
        }
        match operation {
            Operation::Union => unite(&sources, self.aggregate, &mut result),
            Operation::Intersection => intersect(&sources, self.aggregate, &mut result),
            Operation::Difference => subtract(&sources, &mut result),
        }
        result.finish(&limits)
    }
}

/// Sources with their weights.
type Sources<'v> = SmallVec<[(Source<'v>, f64); SOURCES_AT_ONCE]>;

fn unite(sources: &[(Source<'_>, f64)], aggregate: Aggregate, result: &mut SortedSetBuilder) {
    let mut scratch = [0; INT_TEXT_MAX];
    for (source, weight) in sources {
        for (member, score) in source.iter() {
            let score = number_or_zero(weight * score);
            result.merge(member.as_bytes(&mut scratch), |old| {
                old.map_or(score, |old| aggregate.merge(old, score))
            });
        }
    }
}

fn intersect(sources: &[(Source<'_>, f64)], aggregate: Aggregate, result: &mut SortedSetBuilder) {
    let Some(((smallest, weight), others)) = sources.split_first() else {
        return;
    };
    let mut scratch = [0; INT_TEXT_MAX];
    for (member, score) in smallest.iter() {
        let member = member.as_bytes(&mut scratch);
        let merged = others
            .iter()
            .try_fold(number_or_zero(weight * score), |merged, (source, weight)| {
                Some(aggregate.merge(merged, weight * source.score(member)?))
            });
        if let Some(merged) = merged {
            result.merge(member, |_| merged);
        }
    }
}

/// Removes from the first source the members of the others: either by looking each of its members up in the others,
/// or by removing each of theirs, whichever is less work.
fn subtract(sources: &[(Source<'_>, f64)], result: &mut SortedSetBuilder) {
    let Some(((first, _), others)) = sources.split_first() else {
        return;
    };
    let mut scratch = [0; INT_TEXT_MAX];
    let theirs: usize = others.iter().map(|(source, _)| source.len()).sum();
    // A member that is in another set is found, on average, in half of them.
    let asks = first.len().saturating_mul(others.len()) / 2 <= first.len() + theirs;
    for (member, score) in first.iter() {
        let member = member.as_bytes(&mut scratch);
        if !asks || !others.iter().any(|(source, _)| source.score(member).is_some()) {
            result.merge(member, |_| score);
        }
    }
    if !asks {
        for (member, _) in others.iter().flat_map(|(source, _)| source.iter()) {
            result.remove(member.as_bytes(&mut scratch));
        }
    }
}

/// Replies with the combination of the sources.
fn reply_result(ctx: &mut Context<'_>, operation: Operation, command: &'static str) -> CommandResult {
    let request = Request::parse(ctx, 1, operation, command, false)?;
    let result = request.result(ctx, operation);
    reply_entries(&mut ctx.reply, result.len(), result.iter(), request.with_scores);
    Ok(())
}

fn zunion(ctx: &mut Context<'_>) -> CommandResult {
    reply_result(ctx, Operation::Union, "zunion")
}

fn zinter(ctx: &mut Context<'_>) -> CommandResult {
    reply_result(ctx, Operation::Intersection, "zinter")
}

fn zdiff(ctx: &mut Context<'_>) -> CommandResult {
    reply_result(ctx, Operation::Difference, "zdiff")
}

/// Stores the combination of the sources.
fn store_result(ctx: &mut Context<'_>, operation: Operation, command: &'static str) -> CommandResult {
    let request = Request::parse(ctx, 2, operation, command, true)?;
    let (destination, result) = (ctx.key(1), request.result(ctx, operation));
    store(ctx, &destination, command, result);
    Ok(())
}

fn zunionstore(ctx: &mut Context<'_>) -> CommandResult {
    store_result(ctx, Operation::Union, "zunionstore")
}

fn zinterstore(ctx: &mut Context<'_>) -> CommandResult {
    store_result(ctx, Operation::Intersection, "zinterstore")
}

fn zdiffstore(ctx: &mut Context<'_>) -> CommandResult {
    store_result(ctx, Operation::Difference, "zdiffstore")
}

fn zintercard(ctx: &mut Context<'_>) -> CommandResult {
    let keys = key_positions(ctx.args, 1, "zintercard")?;
    check_sources(ctx, keys.clone())?;
    let mut limit = usize::MAX;
    let mut options = Options::new(ctx.args, keys.end);
    while let Some(word) = options.word() {
        if !is(word, "LIMIT") {
            return Err(ReplyError::Syntax);
        }
        limit = options.limit()?;
    }
    let request = Request {
        keys,
        weights: SmallVec::new(),
        aggregate: Aggregate::default(),
        with_scores: false,
    };
    let count = common(request.sources(ctx), limit);
    ctx.reply.integer(count as i64);
    Ok(())
}

/// Number of members that all sources have in common, counted up to a limit.
fn common(mut sources: Sources<'_>, limit: usize) -> usize {
    sources.sort_by_key(|(source, _)| source.len());
    let Some(((smallest, _), others)) = sources.split_first() else {
        return 0;
    };
    let mut scratch = [0; INT_TEXT_MAX];
    smallest
        .iter()
        .filter(|(member, _)| {
            let member = member.as_bytes(&mut scratch);
            others.iter().all(|(source, _)| source.score(member).is_some())
        })
        .take(limit)
        .count()
}

#[cfg(test)]
mod tests {
    use shardis_cluster::slot::shard_of_key;
    use shardis_storage::keyspace::Expiry;
    use shardis_storage::value::set::SetLimits;

    use super::*;
    use crate::commands::testing::Shell;

    const NOT_INTEGER: &str = "-ERR value is not an integer or out of range";
    const SYNTAX: &str = "-ERR syntax error";

    fn add_plain_set(shell: &mut Shell, name: &[u8], members: &[&[u8]]) {
        let shards = shell.node.shards;
        let keyspace = &mut shell.partition(shard_of_key(name, shards)).keyspace;
        let limits = SetLimits {
            intset_entries: 0,
            listpack_entries: 128,
            listpack_value: 64,
            hasher: *keyspace.hasher(),
        };
        let mut set = Set::default();
        for member in members {
            set.add(member, &limits);
        }
        let key = keyspace.key(name);
        keyspace
            .open()
            .database_mut(0)
            .set_collection(&key, set.into(), Expiry::Clear, 0);
    }

    fn shell(shards: usize) -> Shell {
        let mut shell = Shell::over(shards);
        for line in [
            "ZADD a 1 x 2 y 3 z",
            "ZADD b 10 y 20 z 30 w",
            "ZADD inf inf x -inf y",
        ] {
            shell.run(line);
        }
        add_plain_set(&mut shell, b"s", &[b"y", b"z", b"7"]);
        shell
    }

    #[test]
    fn sets_are_combined() {
        for shards in [1, 4] {
            shell(shards).check(&[
                ("ZUNION 2 a b", "[\"x\", \"y\", \"z\", \"w\"]"),
                (
                    "ZUNION 2 a s WITHSCORES",
                    "[\"7\", \"1\", \"x\", \"1\", \"y\", \"3\", \"z\", \"4\"]",
                ),
                ("ZUNION 2 a none", "[\"x\", \"y\", \"z\"]"),
                ("ZINTER 2 a b WITHSCORES", "[\"y\", \"12\", \"z\", \"23\"]"),
                (
                    "ZINTER 2 a b WEIGHTS 2 0.5 WITHSCORES",
                    "[\"y\", \"9\", \"z\", \"16\"]",
                ),
                (
                    "ZINTER 2 a b AGGREGATE max WITHSCORES",
                    "[\"y\", \"10\", \"z\", \"20\"]",
                ),
                ("ZINTER 3 a b s AGGREGATE MIN", "[\"y\", \"z\"]"),
                (
                    "ZINTER 2 a a WITHSCORES",
                    "[\"x\", \"2\", \"y\", \"4\", \"z\", \"6\"]",
                ),
                ("ZINTER 2 a none", "[]"),
                ("ZDIFF 2 a b WITHSCORES", "[\"x\", \"1\"]"),
                ("ZDIFF 2 s a", "[\"7\"]"),
                ("ZDIFF 5 a b b b b", "[\"x\"]"),
                ("ZDIFF 2 none a", "[]"),
                ("ZINTERCARD 2 a b", ":2"),
                ("ZINTERCARD 2 a b LIMIT 1", ":1"),
                ("ZINTERCARD 2 a b LIMIT 0", ":2"),
                ("ZINTERCARD 2 a none", ":0"),
            ]);
        }
    }

    #[test]
    fn infinities_never_make_a_score_that_is_no_number() {
        shell(1).check(&[
            (
                "ZUNION 2 inf inf WEIGHTS 1 -1 WITHSCORES",
                "[\"x\", \"0\", \"y\", \"0\"]",
            ),
            (
                "ZUNION 1 inf WEIGHTS 0 WITHSCORES",
                "[\"x\", \"0\", \"y\", \"0\"]",
            ),
            (
                "ZINTER 2 inf inf WEIGHTS 1 -1 WITHSCORES",
                "[\"x\", \"0\", \"y\", \"0\"]",
            ),
            (
                "ZINTER 2 inf inf WEIGHTS 0 0 AGGREGATE MAX WITHSCORES",
                "[\"x\", \"0\", \"y\", \"0\"]",
            ),
        ]);
    }

    #[test]
    fn results_are_stored() {
        for shards in [1, 4] {
            shell(shards).check_effects(&[
                ("SET d v", "+OK", &["SET d v"]),
                (
                    "ZUNIONSTORE d 2 a b WEIGHTS 1 0",
                    ":4",
                    &["ZUNIONSTORE d 2 a b WEIGHTS 1 0"],
                ),
                (
                    "ZRANGE d 0 -1 WITHSCORES",
                    "[\"w\", \"0\", \"x\", \"1\", \"y\", \"2\", \"z\", \"3\"]",
                    &[],
                ),
                ("ZINTERSTORE d 2 d s", ":2", &["ZINTERSTORE d 2 d s"]),
                ("ZRANGE d 0 -1 WITHSCORES", "[\"y\", \"3\", \"z\", \"4\"]", &[]),
                ("ZDIFFSTORE d 2 a b", ":1", &["ZDIFFSTORE d 2 a b"]),
                ("ZINTERSTORE d 2 a none", ":0", &["ZINTERSTORE d 2 a none"]),
                ("EXISTS d", ":0", &[]),
                ("ZINTERSTORE d 2 a none", ":0", &[]),
                ("ZUNIONSTORE a 2 a b", ":4", &["ZUNIONSTORE a 2 a b"]),
            ]);
        }
    }

    #[test]
    fn requests_are_checked() {
        shell(1).check(&[
            ("ZUNION x a", NOT_INTEGER),
            (
                "ZUNION 0 a",
                "-ERR at least 1 input key is needed for 'zunion' command",
            ),
            (
                "ZDIFFSTORE d -1 a",
                "-ERR at least 1 input key is needed for 'zdiffstore' command",
            ),
            (
                "ZINTERCARD 0 a",
                "-ERR at least 1 input key is needed for 'zintercard' command",
            ),
            ("ZUNION 2 a", SYNTAX),
            ("ZUNION 2 a b WEIGHTS 1", SYNTAX),
            ("ZUNION 2 a b WEIGHTS 1 x", "-ERR weight value is not a float"),
            ("ZUNION 2 a b AGGREGATE avg", SYNTAX),
            ("ZUNION 2 a b AGGREGATE", SYNTAX),
            ("ZUNIONSTORE d 2 a b WITHSCORES", SYNTAX),
            ("ZDIFF 2 a b WEIGHTS 1 1", SYNTAX),
            ("ZINTERCARD 2 a b LIMIT -1", "-ERR LIMIT can't be negative"),
            ("ZINTERCARD 2 a b LIMIT x", "-ERR LIMIT can't be negative"),
            ("ZINTERCARD 2 a b LIMIT", SYNTAX),
            ("ZINTERCARD 2 a b WITHSCORES", SYNTAX),
        ]);
    }
}
