//! Sorted sets: commands on single members and their scores, and the parts that all commands on sorted sets share.
//!
//! Ranges are in [`range`], combinations of several sorted sets in [`combine`], popping in [`pop`], random members
//! and cursors in [`walk`]. Rows first, then handlers in the order of the rows.

pub(crate) mod blocking;
pub(crate) mod combine;
pub(crate) mod pop;
pub(crate) mod range;
pub(crate) mod walk;

use shardis_protocol::{Arguments, Encoder, Resp};
use shardis_storage::key::{Key, KeyHasher};
use shardis_storage::number::{DoubleText, parse_f64};
use shardis_storage::value::StringRef;
use shardis_storage::value::sorted_set::{Change, SortedSet, SortedSetLimits};
use smallvec::SmallVec;

use super::strings::bulk;
use crate::config::{KeyspaceEvents, Settings};
use crate::error::ReplyError;
use crate::exec::arguments::is;
use crate::exec::{CommandResult, Context};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "zadd",
        arity: Arity::AtLeast(4),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_write().update()],
        runs: Runs::OnKeys(zadd),
        member: Some(3),
        doc: &Doc {
            since: "1.2.0",
            group: Group::SortedSet,
            complexity: "O(log(N)) for each member given, N being the size of the sorted set.",
            summary: "Gives members a score, adding those that are new.",
            history: &[
                ("2.4.0", "Several members at once."),
                ("3.0.2", "Options `XX`, `NX`, `CH` and `INCR`."),
                ("6.2.0", "Options `GT` and `LT`."),
            ],
            args: &[
                Arg::key("key", 0),
                Arg::one_of("condition", &[Arg::flag("nx", "NX"), Arg::flag("xx", "XX")])
                    .since("3.0.2")
                    .optional(),
                Arg::one_of("comparison", &[Arg::flag("gt", "GT"), Arg::flag("lt", "LT")])
                    .since("6.2.0")
                    .optional(),
                Arg::flag("change", "CH").since("3.0.2").optional(),
                Arg::flag("increment", "INCR").since("3.0.2").optional(),
                Arg::block("score_member", &[Arg::double("score"), Arg::string("member")]).multiple(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zincrby",
        arity: Arity::Exactly(4),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_write().access().update()],
        runs: Runs::OnKeys(zincrby),
        member: Some(3),
        doc: &Doc {
            since: "1.2.0",
            group: Group::SortedSet,
            complexity: "O(log(N)) for N members.",
            summary: "Adds to the score of a member, which is added if need be.",
            args: &[
                Arg::key("key", 0),
                Arg::integer("increment"),
                Arg::string("member"),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zrem",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_write().delete()],
        runs: Runs::OnKeys(zrem),
        member: Some(2),
        doc: &Doc {
            since: "1.2.0",
            group: Group::SortedSet,
            complexity: "O(M*log(N)) to remove M of N members.",
            summary: "Removes members.",
            history: &[("2.4.0", "Several members at once.")],
            args: &[Arg::key("key", 0), Arg::string("member").multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zcard",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_only()],
        runs: Runs::OnKeys(zcard),
        doc: &Doc {
            since: "1.2.0",
            group: Group::SortedSet,
            complexity: "O(1)",
            summary: "Returns how many members there are.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zscore",
        arity: Arity::Exactly(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(zscore),
        member: Some(2),
        doc: &Doc {
            since: "1.2.0",
            group: Group::SortedSet,
            complexity: "O(1)",
            summary: "Returns the score of a member.",
            args: &[Arg::key("key", 0), Arg::string("member")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zmscore",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(zmscore),
        doc: &Doc {
            since: "6.2.0",
            group: Group::SortedSet,
            complexity: "O(N) for N members asked for.",
            summary: "Returns the scores of several members.",
            args: &[Arg::key("key", 0), Arg::string("member").multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zrank",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(zrank),
        member: Some(2),
        doc: &Doc {
            since: "2.0.0",
            group: Group::SortedSet,
            complexity: "O(log(N)) for N members.",
            summary: "Returns how many members come before one, lowest score first.",
            history: &[("7.2.0", "Option `WITHSCORE`.")],
            args: &[
                Arg::key("key", 0),
                Arg::string("member"),
                Arg::flag("withscore", "WITHSCORE").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zrevrank",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::SORTEDSET,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(zrevrank),
        member: Some(2),
        doc: &Doc {
            since: "2.0.0",
            group: Group::SortedSet,
            complexity: "O(log(N)) for N members.",
            summary: "Returns how many members come before one, highest score first.",
            history: &[("7.2.0", "Option `WITHSCORE`.")],
            args: &[
                Arg::key("key", 0),
                Arg::string("member"),
                Arg::flag("withscore", "WITHSCORE").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// Number of pairs whose scores are listed without an allocation.
const PAIRS_AT_ONCE: usize = 8;

/// Limits of the encodings, from the settings.
pub(super) fn limits(ctx: &Context<'_>) -> SortedSetLimits {
    limits_of(ctx.settings, ctx.keyspace.hasher())
}

/// The same limits for anyone who knows the hasher.
pub(super) fn limits_of(settings: &Settings, hasher: KeyHasher) -> SortedSetLimits {
    SortedSetLimits {
        listpack_entries: settings.zset_max_listpack_entries as usize,
        listpack_value: settings.zset_max_listpack_value as usize,
        hasher,
    }
}

/// Replies with `len` entries: in RESP2 a flat array, in RESP3 pairs if there are scores.
fn reply_entries<'s>(
    reply: &mut Encoder<'_>,
    len: usize,
    entries: impl Iterator<Item = (StringRef<'s>, f64)>,
    with_scores: bool,
) {
    let nested = with_scores && reply.resp() == Resp::V3;
    let words = if with_scores && !nested { 2 } else { 1 };
    reply.array(len * words);
    for (member, score) in entries {
        if nested {
            reply.array(2);
        }
        bulk(reply, member);
        if with_scores {
            reply.double(DoubleText::new(score).as_bytes());
        }
    }
}

/// Announces that members were removed, with this event, if any were; without any left, the key is removed.
fn removed(ctx: &mut Context<'_>, key: &Key<'_>, event: &'static str, count: usize, left: usize) {
    if count > 0 {
        ctx.notify(KeyspaceEvents::SORTED_SET, event, key);
        ctx.removed(key, count as u64, left);
    }
}

/// Stores a computed sorted set, raises this event, and replies with its size.
fn store(ctx: &mut Context<'_>, key: &Key<'_>, event: &'static str, result: SortedSet) {
    let len = result.len();
    ctx.store(key, result, len, (KeyspaceEvents::SORTED_SET, event));
}

/// Reads a score or an increment.
#[inline]
fn score(text: &[u8]) -> Result<f64, ReplyError> {
    parse_f64(text).ok_or(ReplyError::NotFloat)
}

/// Options of ZADD about existing and new members.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AddRule {
    /// Add only new members.
    pub(super) only_new: bool,
    /// Change only existing members.
    pub(super) only_known: bool,
    /// Change scores only to higher ones.
    only_up: bool,
    /// Change scores only to lower ones.
    only_down: bool,
    /// Count changed scores too.
    pub(super) count_changed: bool,
    /// Add to the score, and reply with the sum.
    increment: bool,
}

impl AddRule {
    /// Reads the options; returns them with the position of the first score.
    fn parse(args: Arguments<'_>) -> Result<(Self, usize), ReplyError> {
        let mut rule = Self::default();
        let mut first = 2;
        while let Some(word) = args.get(first) {
            let Some(option) = rule.option(word) else { break };
            *option = true;
            first += 1;
        }
        let words = args.len() - first.min(args.len());
        if words == 0 || !words.is_multiple_of(2) {
            return Err(ReplyError::Syntax);
        }
        rule.check(words / 2)?;
        Ok((rule, first))
    }

    /// The flag of the option that a word names.
    fn option(&mut self, word: &[u8]) -> Option<&mut bool> {
        match word {
            word if is(word, "NX") => Some(&mut self.only_new),
            word if is(word, "XX") => Some(&mut self.only_known),
            word if is(word, "GT") => Some(&mut self.only_up),
            word if is(word, "LT") => Some(&mut self.only_down),
            word if is(word, "CH") => Some(&mut self.count_changed),
            word if is(word, "INCR") => Some(&mut self.increment),
            _ => None,
        }
    }

    /// Checks that the options do not contradict each other.
    fn check(self, pairs: usize) -> Result<(), ReplyError> {
        if self.only_new && self.only_known {
            return Err(ReplyError::NxAndXx);
        }
        let by_score = self.only_up || self.only_down;
        if (self.only_new && by_score) || (self.only_up && self.only_down) {
            return Err(ReplyError::GtLtNx);
        }
        if self.increment && pairs > 1 {
            return Err(ReplyError::SingleIncrement);
        }
        Ok(())
    }

    /// The new score of a member; none if it keeps its old one.
    #[inline]
    fn decide(self, old: Option<f64>, given: f64) -> Result<Option<f64>, ReplyError> {
        let Some(old) = old else {
            return Ok((!self.only_known).then_some(given));
        };
        if self.only_new {
            return Ok(None);
        }
        let new = if self.increment { old + given } else { given };
        if new.is_nan() {
            return Err(ReplyError::ScoreNotANumber);
        }
        let refused = (self.only_up && new <= old) || (self.only_down && new >= old);
        Ok((!refused).then_some(new))
    }
}

fn zadd(ctx: &mut Context<'_>) -> CommandResult {
    let (rule, first) = AddRule::parse(ctx.args)?;
    add(ctx, rule, (b"ZADD".as_slice(), first))
}

fn zincrby(ctx: &mut Context<'_>) -> CommandResult {
    // An option of ZADD is accepted as one here as well, and then the pair after it is missing.
    if AddRule::option(&mut AddRule::default(), ctx.args.at(2)).is_some() {
        return Err(ReplyError::Syntax);
    }
    let rule = AddRule {
        increment: true,
        ..AddRule::default()
    };
    add(ctx, rule, (b"ZINCRBY".as_slice(), 2))
}

/// Scores of members that are about to be added.
pub(super) type Scores = SmallVec<[f64; PAIRS_AT_ONCE]>;

/// Adds the pairs of score and member from argument `first` on, as the command of this name does.
fn add(ctx: &mut Context<'_>, rule: AddRule, (name, first): (&[u8], usize)) -> CommandResult {
    let args = ctx.args;
    // All scores are parsed before anything changes.
    let scores: Scores = (first..args.len())
        .step_by(2)
        .map(|index| score(args.at(index)))
        .collect::<Result<_, _>>()?;
    let member = |n| args.at(first + 2 * n + 1);
    let is_common = |index: usize| is_common_spelling(args.at(index));
    let repeated = (ctx.effects.is_recording() && !(first..args.len()).step_by(2).all(is_common))
        .then(|| scores.clone());
    add_members(ctx, rule, scores, member)?;
    if let Some(scores) = repeated {
        report_scores(ctx, (name, first), &scores, member);
    }
    Ok(())
}

/// Whether any server reads a score that is spelt so. Hexadecimal numbers and words are read by some.
fn is_common_spelling(score: &[u8]) -> bool {
    let is_common = |byte: &u8| byte.is_ascii_digit() || b".eE+-".contains(byte);
    !score.starts_with(b"+") && score.iter().all(is_common)
}

/// Reports a change of scores in their usual spelling; those of the request begin at argument `first`, behind its options.
pub(super) fn report_scores<'a>(
    ctx: &mut Context<'_>,
    (name, first): (&[u8], usize),
    scores: &[f64],
    member: impl Fn(usize) -> &'a [u8],
) {
    if ctx.effects.changes() == 0 {
        return;
    }
    let texts: Vec<DoubleText> = scores.iter().map(|&score| DoubleText::new(score)).collect();
    let options = (1..first).map(|at| ctx.args.at(at));
    let pairs = texts
        .iter()
        .enumerate()
        .flat_map(|(n, score)| [score.as_bytes(), member(n)]);
    let words: Vec<&[u8]> = std::iter::once(name).chain(options).chain(pairs).collect();
    ctx.effects.replace(&words);
}

/// Gives members their scores (`member` returns the member of an index), and replies like ZADD.
pub(super) fn add_members<'a>(
    ctx: &mut Context<'_>,
    rule: AddRule,
    scores: Scores,
    member: impl Fn(usize) -> &'a [u8],
) -> CommandResult {
    let (key, limits) = (ctx.key(1), limits(ctx));
    if rule.only_known && ctx.keyspace.write_as::<SortedSet>(&key)?.is_none() {
        reply_added(&mut ctx.reply, rule, Added::default());
        return Ok(());
    }
    let (set, made) = ctx.keyspace.make::<SortedSet>(&key)?;
    if made {
        *set = SortedSet::for_members(member(0).len(), scores.len(), &limits);
    } else {
        set.expect_members(scores.len(), &limits);
    }
    let mut added = Added::default();
    for (n, given) in scores.into_iter().enumerate() {
        added.count(set, member(n), &limits, |old| rule.decide(old, given))?;
    }
    let changes = added.new + added.changed;
    if changes > 0 {
        let event = if rule.increment { "zincr" } else { "zadd" };
        ctx.notify(KeyspaceEvents::SORTED_SET, event, &key);
        ctx.changed(&key, changes as u64);
    }
    reply_added(&mut ctx.reply, rule, added);
    Ok(())
}

/// Result of adding members.
#[derive(Clone, Copy, Debug, Default)]
struct Added {
    new: usize,
    changed: usize,
    /// The new score of the last member; none if the change was refused.
    score: Option<f64>,
}

impl Added {
    /// Sets the score of a member as decided, and counts the change.
    #[inline]
    fn count(
        &mut self,
        set: &mut SortedSet,
        member: &[u8],
        limits: &SortedSetLimits,
        decide: impl FnOnce(Option<f64>) -> Result<Option<f64>, ReplyError>,
    ) -> CommandResult {
        let mut decided = Ok(None);
        let change = set.update(member, limits, |old| {
            decided = decide(old);
            decided.as_ref().ok().copied().flatten()
        });
        self.score = decided?;
        match change {
            Change::Added => self.new += 1,
            Change::Updated => self.changed += 1,
            Change::None => {}
        }
        Ok(())
    }
}

fn reply_added(reply: &mut Encoder<'_>, rule: AddRule, added: Added) {
    match added.score {
        Some(score) if rule.increment => reply.double(DoubleText::new(score).as_bytes()),
        None if rule.increment => reply.null(),
        _ if rule.count_changed => reply.integer((added.new + added.changed) as i64),
        _ => reply.integer(added.new as i64),
    }
}

fn zrem(ctx: &mut Context<'_>) -> CommandResult {
    let (key, args) = (ctx.key(1), ctx.args);
    let (mut count, mut left) = (0, 0);
    if let Some(set) = ctx.keyspace.write_as::<SortedSet>(&key)? {
        count = (2..args.len())
            .filter(|index| set.remove(args.at(*index)).is_some())
            .count();
        left = set.len();
    }
    removed(ctx, &key, "zrem", count, left);
    ctx.reply.integer(count as i64);
    Ok(())
}

fn zcard(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let len = ctx.keyspace.read_as::<SortedSet>(&key)?.map_or(0, SortedSet::len);
    ctx.reply.integer(len as i64);
    Ok(())
}

fn zscore(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let set = ctx.keyspace.read_as::<SortedSet>(&key)?;
    match set.and_then(|set| set.score(ctx.args.at(2))) {
        Some(score) => ctx.reply.double(DoubleText::new(score).as_bytes()),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn zmscore(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let set = ctx.keyspace.read_as::<SortedSet>(&key)?;
    ctx.reply.array(ctx.args.len() - 2);
    for index in 2..ctx.args.len() {
        match set.and_then(|set| set.score(ctx.args.at(index))) {
            Some(score) => ctx.reply.double(DoubleText::new(score).as_bytes()),
            None => ctx.reply.null(),
        }
    }
    Ok(())
}

fn zrank(ctx: &mut Context<'_>) -> CommandResult {
    reply_rank(ctx, "zrank", |rank, _| rank)
}

fn zrevrank(ctx: &mut Context<'_>) -> CommandResult {
    reply_rank(ctx, "zrevrank", |rank, len| len - 1 - rank)
}

/// Replies with the result of `show`, called with a member's rank, lowest score first, and the number of members.
fn reply_rank(
    ctx: &mut Context<'_>,
    command: &'static str,
    show: fn(usize, usize) -> usize,
) -> CommandResult {
    let with_score = match ctx.args.get(3) {
        None => false,
        Some(_) if ctx.args.len() > 4 => return Err(ReplyError::arity(command)),
        Some(word) if is(word, "WITHSCORE") => true,
        Some(_) => return Err(ReplyError::Syntax),
    };
    let key = ctx.key(1);
    let set = ctx.keyspace.read_as::<SortedSet>(&key)?;
    let found = set.and_then(|set| Some((set.len(), set.rank(ctx.args.at(2))?)));
    match found {
        Some((len, (rank, score))) => {
            if with_score {
                ctx.reply.array(2);
            }
            ctx.reply.integer(show(rank, len) as i64);
            if with_score {
                ctx.reply.double(DoubleText::new(score).as_bytes());
            }
        }
        None if with_score => ctx.reply.null_array(),
        None => ctx.reply.null(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use shardis_storage::value::Encoding;

    use crate::commands::testing::Shell;

    const NOT_FLOAT: &str = "-ERR value is not a valid float";
    const SYNTAX: &str = "-ERR syntax error";
    const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

    #[test]
    fn members_get_scores() {
        Shell::new().check_effects(&[
            ("ZADD z 1 a 2 b", ":2", &["ZADD z 1 a 2 b"]),
            ("ZADD z 1 a 3 b 4 c", ":1", &["ZADD z 1 a 3 b 4 c"]),
            ("ZADD z 1 a", ":0", &[]),
            ("ZADD z CH 2 a 3 b 5 d", ":2", &["ZADD z CH 2 a 3 b 5 d"]),
            ("ZSCORE z a", "\"2\"", &[]),
            ("ZMSCORE z a none d", "[\"2\", nil, \"5\"]", &[]),
            ("ZMSCORE none a b", "[nil, nil]", &[]),
            ("ZSCORE none a", "nil", &[]),
            ("ZCARD z", ":4", &[]),
            ("ZCARD none", ":0", &[]),
            ("ZADD z 1 x y", SYNTAX, &[]),
            ("ZADD z 1 new x newer", NOT_FLOAT, &[]),
            ("ZADD z nan a", NOT_FLOAT, &[]),
            ("ZSCORE z new", "nil", &[]),
            ("ZADD s 1e1 a -2.5E-1 b", ":2", &["ZADD s 1e1 a -2.5E-1 b"]),
            // Not every server reads these spellings.
            ("ZADD s CH 0x1p4 a 3 b", ":2", &["ZADD s CH 16 a 3 b"]),
            ("ZADD s +5 a -Infinity b", ":0", &["ZADD s 5 a -inf b"]),
            ("ZADD s 0x5 a", ":0", &[]),
            ("ZINCRBY s 0x1p-1 a", "\"5.5\"", &["ZINCRBY s 0.5 a"]),
            ("DEL s", ":1", &["DEL s"]),
            ("ZREM z a none b", ":2", &["ZREM z a none b"]),
            ("ZREM z none", ":0", &[]),
            ("ZREM z c d", ":2", &["ZREM z c d"]),
            ("EXISTS z", ":0", &[]),
        ]);
    }

    #[test]
    fn options_restrict_what_is_added() {
        let incompatible = "-ERR GT, LT, and/or NX options at the same time are not compatible";
        Shell::new().check_effects(&[
            ("ZADD none XX 1 a", ":0", &[]),
            ("ZADD none XX INCR 1 a", "nil", &[]),
            ("EXISTS none", ":0", &[]),
            ("ZADD z NX 1 a", ":1", &["ZADD z NX 1 a"]),
            ("ZADD z NX 2 a", ":0", &[]),
            ("ZADD z XX CH 2 a 2 b", ":1", &["ZADD z XX CH 2 a 2 b"]),
            ("ZADD z GT CH 1 a 3 b", ":1", &["ZADD z GT CH 1 a 3 b"]),
            ("ZADD z LT CH 1 a 9 b", ":1", &["ZADD z LT CH 1 a 9 b"]),
            ("ZADD z INCR 1.5 a", "\"2.5\"", &["ZADD z INCR 1.5 a"]),
            ("ZADD z NX INCR 1 a", "nil", &[]),
            ("ZADD z GT INCR -1 a", "nil", &[]),
            ("ZADD z INCR 0 a", "\"2.5\"", &[]),
            ("ZINCRBY z -0.5 a", "\"2\"", &["ZINCRBY z -0.5 a"]),
            ("ZINCRBY z inf a", "\"inf\"", &["ZINCRBY z inf a"]),
            (
                "ZINCRBY z -inf a",
                "-ERR resulting score is not a number (NaN)",
                &[],
            ),
            ("ZINCRBY z x a", NOT_FLOAT, &[]),
            (
                "ZADD z NX XX 1 a",
                "-ERR XX and NX options at the same time are not compatible",
                &[],
            ),
            ("ZADD z NX GT 1 a", incompatible, &[]),
            ("ZADD z GT LT 1 a", incompatible, &[]),
            (
                "ZADD z INCR 1 a 2 b",
                "-ERR INCR option supports a single increment-element pair",
                &[],
            ),
            ("ZADD z NX CH", SYNTAX, &[]),
            ("ZADD z CH 1", SYNTAX, &[]),
        ]);
    }

    #[test]
    fn ranks_count_from_either_end() {
        let mut shell = Shell::new();
        shell.check(&[
            ("ZADD z 1 a 2 b 2.5 c", ":3"),
            ("ZRANK z a", ":0"),
            ("ZREVRANK z a", ":2"),
            ("ZRANK z c WITHSCORE", "[:2, \"2.5\"]"),
            ("ZREVRANK z c withscore", "[:0, \"2.5\"]"),
            ("ZRANK z none", "nil"),
            ("ZRANK z none WITHSCORE", "nil*"),
            ("ZRANK none a WITHSCORE", "nil*"),
            ("ZRANK z a x", SYNTAX),
            (
                "ZRANK z a WITHSCORE x",
                "-ERR wrong number of arguments for 'zrank' command",
            ),
            ("SET s v", "+OK"),
            ("ZRANK s a", WRONG_TYPE),
        ]);
        shell = shell.resp3();
        shell.check(&[("ZREVRANK z b WITHSCORE", "[:1, ,2]"), ("ZSCORE z c", ",2.5")]);
    }

    #[test]
    fn encodings_follow_the_configuration() {
        let mut shell = Shell::new();
        shell.settings.zset_max_listpack_entries = 3;
        shell.settings.zset_max_listpack_value = 5;
        for (line, encoding) in [
            ("ZADD a 1 1 2 2 3 3", Encoding::Listpack),
            ("ZADD a 4 4", Encoding::SkipList),
            ("ZADD b 1 1 1 1 1 1 1 1", Encoding::SkipList),
            ("ZADD c 1 12345", Encoding::Listpack),
            ("ZADD c 1 1 1 1 1 1 1 1", Encoding::SkipList),
            ("ZADD d 1 123456", Encoding::SkipList),
            ("ZUNIONSTORE e 1 d", Encoding::SkipList),
            ("ZREM a 4", Encoding::SkipList),
            ("ZUNIONSTORE f 1 a", Encoding::Listpack),
            ("ZRANGESTORE g a 0 1", Encoding::Listpack),
        ] {
            shell.run(line);
            let key = line.split(' ').nth(1).unwrap();
            assert_eq!(
                shell.entry(key, |entry| entry.encoding()),
                Some(encoding),
                "{line}"
            );
        }
    }

    #[test]
    fn watchers_learn_of_changes_and_of_nothing_else() {
        let mut shell = Shell::over(2);
        for (line, touched) in [
            ("ZADD k 1 a 2 b 3 c", true),
            ("ZADD k 1 a", false),
            ("ZADD k XX 1 none", false),
            ("ZINCRBY k 0 a", false),
            ("ZINCRBY k 1 a", true),
            ("ZREM k none", false),
            ("ZREMRANGEBYSCORE k 10 20", false),
            ("ZRANGESTORE other k 0 -1", false),
            ("ZPOPMIN k 0", false),
            ("ZPOPMIN k", true),
            ("ZUNIONSTORE k 1 none", true),
            ("ZUNIONSTORE k 1 none", false),
            ("ZUNIONSTORE k 1 other", true),
        ] {
            let token = shell.watch("k");
            shell.run(line);
            assert_eq!(token.is_touched(), touched, "{line}");
        }
    }

    #[test]
    fn other_types_are_refused() {
        let mut shell = Shell::new();
        shell.run("SET s v");
        for line in [
            "ZADD s 1 a",
            "ZADD s XX 1 a",
            "ZINCRBY s 1 a",
            "ZREM s a",
            "ZCARD s",
            "ZSCORE s a",
            "ZMSCORE s a",
            "ZRANK s a",
            "ZREVRANK s a",
            "ZRANGE s 0 1",
            "ZRANGESTORE d s 0 1",
            "ZREVRANGE s 0 1",
            "ZRANGEBYSCORE s 0 1",
            "ZREVRANGEBYSCORE s 0 1",
            "ZRANGEBYLEX s - +",
            "ZREVRANGEBYLEX s - +",
            "ZCOUNT s 0 1",
            "ZLEXCOUNT s - +",
            "ZREMRANGEBYRANK s 0 1",
            "ZREMRANGEBYSCORE s 0 1",
            "ZREMRANGEBYLEX s - +",
            "ZUNION 1 s",
            "ZINTER 2 none s",
            "ZDIFF 1 s",
            "ZUNIONSTORE d 1 s",
            "ZINTERSTORE d 1 s",
            "ZDIFFSTORE d 1 s",
            "ZINTERCARD 1 s",
            "ZPOPMIN s",
            "ZPOPMAX s",
            "ZMPOP 2 none s MIN",
            "ZRANDMEMBER s",
            "ZRANDMEMBER s 1",
            "ZSCAN s 0",
        ] {
            let answer = shell.run(line);
            assert_eq!((answer.reply.as_str(), answer.changes), (WRONG_TYPE, 0), "{line}");
        }
    }
}
