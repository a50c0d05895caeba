//! Commands over several sets: intersection, union and difference, whose result is returned, counted or stored.
//!
//! All sources are looked up, and their types checked, before anything is computed.

use std::ops::Range;

use shardis_storage::algorithm::hyperloglog::Registers;
use shardis_storage::key::Key;
use shardis_storage::value::INT_TEXT_MAX;
use shardis_storage::value::set::{Set, algebra};
use smallvec::SmallVec;

use super::super::strings::bulk;
use super::{limits, reply_members};
use crate::config::KeyspaceEvents;
use crate::error::ReplyError;
use crate::exec::arguments::{int, is};
use crate::exec::{CommandResult, Context, Options, View};

/// Number of sources that are listed without an allocation.
const SOURCES_AT_ONCE: usize = 8;

type Sets<'a> = SmallVec<[&'a Set; SOURCES_AT_ONCE]>;

/// The keys of the sets to combine, after their look-up.
struct Sources<'a> {
    keys: SmallVec<[Key<'a>; SOURCES_AT_ONCE]>,
    /// Whether the key with that index holds a set.
    there: SmallVec<[bool; SOURCES_AT_ONCE]>,
}

impl<'a> Sources<'a> {
    /// Looks up the keys at these positions.
    ///
    /// # Errors
    /// [`ReplyError::WrongType`] when one of them holds no set.
    fn look_up(ctx: &mut Context<'a>, positions: Range<usize>) -> Result<Self, ReplyError> {
        let keys: SmallVec<[Key<'a>; SOURCES_AT_ONCE]> = positions.map(|at| ctx.key(at)).collect();
        ctx.keyspace.prefetch(keys.iter());
        let there = keys
            .iter()
            .map(|key| Ok(ctx.keyspace.read_as::<Set>(key)?.is_some()))
            .collect::<Result<_, ReplyError>>()?;
        Ok(Self { keys, there })
    }

    /// The sets; `None` for keys that do not exist.
    fn sets<'s>(&self, keyspace: &'s View<'_>) -> impl Iterator<Item = Option<&'s Set>> {
        self.keys
            .iter()
            .zip(&self.there)
            // An expired key, which the look-up hid, may still be stored on a replica.
            .map(|(key, there)| {
                if *there {
                    keyspace.found_as(key).ok()?
                } else {
                    None
                }
            })
    }

    /// The sets that exist.
    fn present<'s>(&self, keyspace: &'s View<'_>) -> Sets<'s> {
        self.sets(keyspace).flatten().collect()
    }

    /// All sets, or none if one of them does not exist: then the intersection is empty.
    fn all<'s>(&self, keyspace: &'s View<'_>) -> Sets<'s> {
        self.sets(keyspace).collect::<Option<_>>().unwrap_or_default()
    }

    /// The set to subtract from, if it exists, and the sets to subtract.
    fn first_and_others<'s>(&self, keyspace: &'s View<'_>) -> Option<(&'s Set, Sets<'s>)> {
        let mut sets = self.sets(keyspace);
        let first = sets.next()??;
        Some((first, sets.flatten().collect()))
    }
}

pub(super) fn sinter(ctx: &mut Context<'_>) -> CommandResult {
    let sources = Sources::look_up(ctx, 1..ctx.args.len())?;
    let mut sets = sources.all(&ctx.keyspace);
    let smallest = sets.iter().map(|set| set.len()).min().unwrap_or(0);
    let deferred = ctx.reply.deferred_set(smallest);
    let found = algebra::intersect(&mut sets, usize::MAX, |member| bulk(&mut ctx.reply, member));
    ctx.reply.close(deferred, found);
    Ok(())
}

pub(super) fn sinterstore(ctx: &mut Context<'_>) -> CommandResult {
    let (sources, limits) = (Sources::look_up(ctx, 2..ctx.args.len())?, limits(ctx));
    let result = algebra::intersection(&mut sources.all(&ctx.keyspace), &limits);
    store(ctx, "sinterstore", result);
    Ok(())
}

pub(super) fn sintercard(ctx: &mut Context<'_>) -> CommandResult {
    let positions = counted_keys(ctx)?;
    let (limit, _) = count_options(ctx, positions.end, false)?;
    let sources = Sources::look_up(ctx, positions)?;
    let found = algebra::intersect(&mut sources.all(&ctx.keyspace), limit, |_| ());
    ctx.reply.integer(found as i64);
    Ok(())
}

/// Reads the options of SINTERCARD and its kin from argument `first` on: the limit of the count, and whether an
/// estimate suffices, where that is an option.
fn count_options(ctx: &Context<'_>, first: usize, may_estimate: bool) -> Result<(usize, bool), ReplyError> {
    let mut options = Options::new(ctx.args, first);
    let (mut limit, mut estimate) = (usize::MAX, false);
    while let Some(word) = options.word() {
        if may_estimate && is(word, "APPROX") {
            estimate = true;
            continue;
        }
        if !is(word, "LIMIT") {
            return Err(ReplyError::Syntax);
        }
        limit = options.limit()?;
    }
    Ok((limit, estimate))
}

pub(super) fn sunioncard(ctx: &mut Context<'_>) -> CommandResult {
    let positions = counted_keys(ctx)?;
    let (limit, estimate) = count_options(ctx, positions.end, true)?;
    let (sources, limits) = (Sources::look_up(ctx, positions)?, limits(ctx));
    let sets = sources.present(&ctx.keyspace);
    let count = if estimate {
        estimate_union(&sets).min(limit as u64)
    } else {
        algebra::union_len(&sets, limit, &limits) as u64
    };
    ctx.reply.integer(count as i64);
    Ok(())
}

/// Estimates the number of members of a union, without allocating memory for each of them.
fn estimate_union(sets: &[&Set]) -> u64 {
    let mut seen = Registers::new();
    for member in sets.iter().flat_map(|set| set.iter()) {
        seen.observe(member.as_bytes(&mut [0; INT_TEXT_MAX]));
    }
    seen.cardinality()
}

pub(super) fn sdiffcard(ctx: &mut Context<'_>) -> CommandResult {
    let positions = counted_keys(ctx)?;
    let (limit, _) = count_options(ctx, positions.end, false)?;
    let (sources, limits) = (Sources::look_up(ctx, positions)?, limits(ctx));
    let count = match sources.first_and_others(&ctx.keyspace) {
        Some((first, mut others)) => algebra::subtract(first, &mut others, limit, &limits, |_| ()),
        None => 0,
    };
    ctx.reply.integer(count as i64);
    Ok(())
}

/// Indexes of the keys of SINTERCARD and its kin, whose number comes first.
fn counted_keys(ctx: &Context<'_>) -> Result<Range<usize>, ReplyError> {
    let count = int(ctx.args.at(1))
        .ok()
        .and_then(|count| usize::try_from(count).ok())
        .filter(|&count| count > 0)
        .ok_or(ReplyError::NumkeysNotPositive)?;
    if count > ctx.args.len() - 2 {
        return Err(ReplyError::Fixed(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    Ok(2..2 + count)
}

pub(super) fn sunion(ctx: &mut Context<'_>) -> CommandResult {
    let (sources, limits) = (Sources::look_up(ctx, 1..ctx.args.len())?, limits(ctx));
    match sources.present(&ctx.keyspace)[..] {
        // A single set is its own union.
        [only] => reply_members(&mut ctx.reply, Some(only)),
        ref sets => {
            let union = algebra::union(sets.iter().copied(), &limits);
            reply_members(&mut ctx.reply, Some(&union));
        }
    }
    Ok(())
}

pub(super) fn sunionstore(ctx: &mut Context<'_>) -> CommandResult {
    let (sources, limits) = (Sources::look_up(ctx, 2..ctx.args.len())?, limits(ctx));
    let result = algebra::union(sources.present(&ctx.keyspace), &limits);
    store(ctx, "sunionstore", result);
    Ok(())
}

pub(super) fn sdiff(ctx: &mut Context<'_>) -> CommandResult {
    let (sources, limits) = (Sources::look_up(ctx, 1..ctx.args.len())?, limits(ctx));
    let Some((first, mut others)) = sources.first_and_others(&ctx.keyspace) else {
        ctx.reply.set(0);
        return Ok(());
    };
    let deferred = ctx.reply.deferred_set(first.len());
    let found = algebra::subtract(first, &mut others, usize::MAX, &limits, |member| {
        bulk(&mut ctx.reply, member);
    });
    ctx.reply.close(deferred, found);
    Ok(())
}

pub(super) fn sdiffstore(ctx: &mut Context<'_>) -> CommandResult {
    let (sources, limits) = (Sources::look_up(ctx, 2..ctx.args.len())?, limits(ctx));
    let result = match sources.first_and_others(&ctx.keyspace) {
        Some((first, mut others)) => algebra::difference(first, &mut others, &limits),
        None => Set::new(),
    };
    store(ctx, "sdiffstore", result);
    Ok(())
}

/// Stores a result under the destination, argument 1, and replies with its size. `event` is the keyspace event to
/// raise.
fn store(ctx: &mut Context<'_>, event: &'static str, result: Set) {
    let (key, len) = (ctx.key(1), result.len());
    ctx.store(&key, result, len, (KeyspaceEvents::SET, event));
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SYNTAX, WRONG_TYPE, members, strings};
    use crate::commands::testing::Shell;
    use shardis_storage::keyspace::OnExpired;

    fn shell() -> Shell {
        let mut shell = Shell::over(4);
        shell.check(&[
            ("SADD a 1 2 3 x", ":4"),
            ("SADD b 2 3 4 y", ":4"),
            ("SADD c 3 y", ":2"),
            ("SADD i 3 2 1", ":3"),
            ("SET str v", "+OK"),
        ]);
        shell
    }

    #[track_caller]
    fn sorted(shell: &mut Shell, line: &str) -> String {
        let mut members = strings(&shell.run(line).reply);
        members.sort();
        members.join(" ")
    }

    #[test]
    fn sets_are_combined() {
        let mut shell = shell();
        for (line, expected) in [
            ("SINTER a b", "2 3"),
            ("SINTER a b c", "3"),
            ("SINTER a a", "1 2 3 x"),
            ("SINTER a i none", ""),
            ("SINTER none", ""),
            ("SUNION a b", "1 2 3 4 x y"),
            ("SUNION a none", "1 2 3 x"),
            ("SUNION none", ""),
            ("SDIFF a b", "1 x"),
            ("SDIFF a b i", "x"),
            ("SDIFF a none", "1 2 3 x"),
            ("SDIFF none a", ""),
            ("SDIFF a b a", ""),
        ] {
            assert_eq!(sorted(&mut shell, line), expected, "{line}");
        }
        // A set of integers stays sorted.
        shell.check(&[
            ("SINTER i a", "[\"1\", \"2\", \"3\"]"),
            ("SUNION i i", "[\"1\", \"2\", \"3\"]"),
            ("SDIFF i none", "[\"1\", \"2\", \"3\"]"),
        ]);
    }

    #[test]
    fn what_is_no_set_is_refused_wherever_it_stands() {
        let mut shell = shell();
        for command in [
            "SINTER",
            "SUNION",
            "SDIFF",
            "SINTERSTORE d",
            "SUNIONSTORE d",
            "SDIFFSTORE d",
            "SINTERCARD 2",
        ] {
            for keys in ["a str", "str a", "none str", "str none"] {
                assert_eq!(
                    shell.run(&format!("{command} {keys}")).reply,
                    WRONG_TYPE,
                    "{command} {keys}"
                );
            }
        }
        shell.check(&[("EXISTS d", ":0")]);
    }

    #[test]
    fn results_are_stored_over_whatever_was_there() {
        let mut shell = shell();
        shell.check_effects(&[
            ("SINTERSTORE d a b", ":2", &["SINTERSTORE d a b"]),
            ("SET str v EX 100", "+OK", &["SET str v PXAT 1700000100000"]),
            ("SUNIONSTORE str a b", ":6", &["SUNIONSTORE str a b"]),
            ("TTL str", ":-1", &[]),
            ("SDIFFSTORE a a b", ":2", &["SDIFFSTORE a a b"]),
            ("SINTERSTORE d a none", ":0", &["SINTERSTORE d a none"]),
            ("EXISTS d", ":0", &[]),
            ("SINTERSTORE d a none", ":0", &[]),
            ("SDIFFSTORE i i i", ":0", &["SDIFFSTORE i i i"]),
            ("EXISTS i", ":0", &[]),
            ("SUNIONSTORE d none none", ":0", &[]),
            ("SDIFFSTORE d none a", ":0", &[]),
        ]);
        assert_eq!(members(&mut shell, "str"), "1 2 3 4 x y");
        assert_eq!(members(&mut shell, "a"), "1 x");
    }

    #[test]
    fn common_members_are_counted() {
        shell().check(&[
            ("SINTERCARD 2 a b", ":2"),
            ("SINTERCARD 2 a none", ":0"),
            ("SINTERCARD 1 a LIMIT 3", ":3"),
            ("SINTERCARD 1 a LIMIT 0", ":4"),
            ("SINTERCARD 1 a limit 1 LIMIT 2", ":2"),
            ("SINTERCARD 0 a", "-ERR numkeys should be greater than 0"),
            ("SINTERCARD x a", "-ERR numkeys should be greater than 0"),
            (
                "SINTERCARD 3 a b",
                "-ERR Number of keys can't be greater than number of args",
            ),
            ("SINTERCARD 1 a LIMIT -1", "-ERR LIMIT can't be negative"),
            ("SINTERCARD 1 a LIMIT x", "-ERR LIMIT can't be negative"),
            ("SINTERCARD 1 a LIMIT", SYNTAX),
            ("SINTERCARD 1 a b", SYNTAX),
            ("SINTERCARD 1 str LIMIT -1", "-ERR LIMIT can't be negative"),
        ]);
    }

    #[test]
    fn members_of_unions_and_differences_are_counted() {
        shell().check(&[
            ("SUNIONCARD 2 a b", ":6"),
            ("SUNIONCARD 2 a none", ":4"),
            ("SUNIONCARD 1 none", ":0"),
            ("SUNIONCARD 2 a b LIMIT 5", ":5"),
            ("SUNIONCARD 2 a b LIMIT 0", ":6"),
            ("SUNIONCARD 2 a b LIMIT 2", ":2"),
            ("SUNIONCARD 2 a b APPROX", ":6"),
            ("SUNIONCARD 2 a b approx LIMIT 5", ":5"),
            ("SUNIONCARD 2 a b LIMIT -1", "-ERR LIMIT can't be negative"),
            ("SUNIONCARD 0 a", "-ERR numkeys should be greater than 0"),
            ("SUNIONCARD 2 a str", WRONG_TYPE),
            ("SDIFFCARD 2 a b", ":2"),
            ("SDIFFCARD 3 a b i", ":1"),
            ("SDIFFCARD 2 a b LIMIT 1", ":1"),
            ("SDIFFCARD 2 a b LIMIT 0", ":2"),
            ("SDIFFCARD 2 none a", ":0"),
            ("SDIFFCARD 1 a", ":4"),
            ("SDIFFCARD 2 a a", ":0"),
            ("SDIFFCARD 2 a b APPROX", SYNTAX),
            (
                "SDIFFCARD 3 a b",
                "-ERR Number of keys can't be greater than number of args",
            ),
            ("SDIFFCARD 2 str a", WRONG_TYPE),
        ]);
    }

    #[test]
    fn replies_are_sets_in_resp3() {
        let mut shell = Shell::new().resp3();
        shell.check(&[
            ("SADD i 1 2", ":2"),
            ("SINTER i i", "~[\"1\", \"2\"]"),
            ("SINTER i none", "~[]"),
            ("SUNION i none", "~[\"1\", \"2\"]"),
            ("SDIFF i none", "~[\"1\", \"2\"]"),
            ("SDIFF none i", "~[]"),
        ]);
    }

    #[test]
    fn a_source_past_its_time_is_none_even_where_it_has_to_stay() {
        let mut shell = shell();
        shell.run("PEXPIRE b 10");
        shell.stamp.on_expired = OnExpired::Keep;
        shell.advance(100);
        shell.check(&[("SINTERCARD 2 a b", ":0"), ("SUNION b", "[]")]);
        assert_eq!(sorted(&mut shell, "SDIFF a b"), "1 2 3 x");
    }

    /// On a real server, too, the destination is removed without a look-up.
    #[test]
    fn a_result_of_nothing_removes_even_a_key_whose_time_is_over() {
        for line in [
            "SINTERSTORE d n1 n2",
            "SUNIONSTORE d n1 n2",
            "SDIFFSTORE d n1 n2",
            "ZUNIONSTORE d 1 n1",
            "ZRANGESTORE d n1 0 1",
            "GEOSEARCHSTORE d n1 FROMLONLAT 1 1 BYRADIUS 1 km",
            "SORT n1 STORE d",
            "BITOP AND d n1 n2",
        ] {
            let mut shell = Shell::new();
            shell.check_effects(&[(line, ":0", &[])]);
            shell.run("SET d v PX 10");
            shell.advance(100);
            shell.check_effects(&[(line, ":0", &[line]), (line, ":0", &[])]);
        }
    }
}
