//! Random members of sorted sets, and walks with a cursor.
//!
//! Rows first, then handlers in the order of the rows.

use rand::RngExt;
use rand::rngs::SmallRng;
use rand::seq::index;
use shardis_protocol::Encoder;
use shardis_storage::number::DoubleText;
use shardis_storage::value::sorted_set::SortedSet;
use shardis_storage::value::{INT_TEXT_MAX, StringRef};

use super::{bulk, reply_entries};
use crate::error::ReplyError;
use crate::exec::arguments::{cursor, int_within, is};
use crate::exec::{CommandResult, Context, Options, ScanOptions};
use crate::limits::RANDOM_ELEMENTS_MAX;
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "zrandmember",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Category::SORTEDSET,
        tips: &["nondeterministic_output"],
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(zrandmember),
        doc: &Doc {
            since: "6.2.0",
            group: Group::SortedSet,
            complexity: "O(M*log(N)) to return M of N members.",
            summary: "Returns members chosen at random.",
            args: &[
                Arg::key("key", 0),
                Arg::block(
                    "options",
                    &[
                        Arg::integer("count"),
                        Arg::flag("withscores", "WITHSCORES").optional(),
                    ],
                )
                .optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "zscan",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Category::SORTEDSET,
        tips: &["nondeterministic_output"],
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(zscan),
        doc: &Doc {
            since: "2.8.0",
            group: Group::SortedSet,
            complexity: "O(1) a call, O(N) to go through all N members.",
            summary: "Goes through the members, some at a time.",
            args: &[
                Arg::key("key", 0),
                Arg::integer("cursor"),
                Arg::pattern("pattern").token("MATCH").optional(),
                Arg::integer("count").token("COUNT").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

fn zrandmember(ctx: &mut Context<'_>) -> CommandResult {
    if ctx.args.len() > 2 {
        return random_members(ctx);
    }
    let key = ctx.key(1);
    let found = ctx.keyspace.read_with_rng::<SortedSet>(&key)?;
    match found.and_then(|(set, rng)| set.get(rng.random_range(0..set.len()))) {
        Some((member, _)) => bulk(&mut ctx.reply, member),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn random_members(ctx: &mut Context<'_>) -> CommandResult {
    let count = int_within(ctx.args.at(2), -i64::MAX, i64::MAX)?;
    let with_scores = match ctx.args.get(3) {
        None => false,
        Some(word) if ctx.args.len() == 4 && is(word, "WITHSCORES") => true,
        Some(_) => return Err(ReplyError::Syntax),
    };
    let too_many = with_scores && count > i64::MAX / 2;
    if too_many || count < -RANDOM_ELEMENTS_MAX {
        return Err(ReplyError::OutOfRange);
    }
    let key = ctx.key(1);
    let Some((set, rng)) = ctx.keyspace.read_with_rng::<SortedSet>(&key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    let reply = &mut ctx.reply;
    match usize::try_from(count) {
        Ok(count) if count >= set.len() => reply_entries(reply, set.len(), set.iter(), with_scores),
        Ok(count) => reply_entries(reply, count, distinct(set, count, rng), with_scores),
        Err(_) => {
            let count = count.unsigned_abs() as usize;
            let any = (0..count).filter_map(|_| set.get(rng.random_range(0..set.len())));
            reply_entries(reply, count, any, with_scores);
        }
    }
    Ok(())
}

/// So many distinct members, fewer than there are; every choice has the same probability.
fn distinct<'s>(
    set: &'s SortedSet,
    count: usize,
    rng: &mut SmallRng,
) -> impl Iterator<Item = (StringRef<'s>, f64)> {
    let mut ranks = index::sample(rng, set.len(), count).into_vec();
    // A pack is walked through once; a tree finds each rank fast.
    let mut walk = set.as_listpack().map(|_| set.iter());
    if walk.is_some() {
        ranks.sort_unstable();
    }
    let mut passed = 0;
    ranks.into_iter().filter_map(move |rank| match &mut walk {
        Some(walk) => {
            let entry = walk.nth(rank - passed);
            passed = rank + 1;
            entry
        }
        None => set.get(rank),
    })
}

fn zscan(ctx: &mut Context<'_>) -> CommandResult {
    let cursor = cursor(ctx.args.at(2)).ok_or(ReplyError::InvalidCursor)?;
    let key = ctx.key(1);
    let Some(set) = ctx.keyspace.read_as::<SortedSet>(&key)? else {
        ctx.reply.array(2);
        ctx.reply.bulk(b"0");
        ctx.reply.array(0);
        return Ok(());
    };
    let options = ScanOptions::parse(Options::new(ctx.args, 3))?;
    let packed = set.as_listpack().is_some();
    let (mut found, mut elements) = (0, Vec::new());
    let mut encoder = Encoder::new(&mut elements, ctx.reply.resp());
    let next = set.scan(cursor, options.count, |member, score| {
        let mut scratch = [0; INT_TEXT_MAX];
        let member = member.as_bytes(&mut scratch);
        if options.accept(member) {
            found += 1;
            encoder.bulk(member);
            if packed {
                encoder.bulk(DoubleText::new(score).as_bytes());
            } else {
                encoder.bulk(precise(score).as_bytes());
            }
        }
    });
    ctx.reply.array(2);
    ctx.reply.bulk_integer(next as i64);
    ctx.reply.array(2 * found);
    ctx.reply.raw(&elements);
    Ok(())
}

/// The most digits of a score of a large sorted set in ZSCAN.
const PRECISE_DIGITS: usize = 17;

/// A score in up to 17 digits, as C's `%.17g` writes it: the form that ZSCAN shows for large sorted sets, and that
/// digests use.
pub(crate) fn precise(score: f64) -> String {
    if !score.is_finite() {
        return DoubleText::new(score).as_str().to_owned();
    }
    let text = format!("{score:.*e}", PRECISE_DIGITS - 1);
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..PRECISE_DIGITS as i32).contains(&exponent) {
        let digits = digits.trim_end_matches('0').trim_end_matches('.');
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.unsigned_abs());
    }
    let decimals = (PRECISE_DIGITS as i32 - 1 - exponent) as usize;
    let fixed = format!("{score:.decimals$}");
    if decimals == 0 {
        return fixed;
    }
    fixed.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::commands::testing::Shell;

    const NOT_INTEGER: &str = "-ERR value is not an integer or out of range";
    const SYNTAX: &str = "-ERR syntax error";

    fn filled(members: usize) -> Shell {
        let mut shell = Shell::new();
        for n in 0..members {
            shell.run(&format!("ZADD z {n}.5 m{n}"));
        }
        shell
    }

    fn list(shell: &mut Shell, line: &str) -> Vec<String> {
        let reply = shell.run(line).reply;
        let inner = reply.trim_start_matches('[').trim_end_matches(']');
        inner
            .split(", ")
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn random_members_are_members() {
        for members in [5, 300] {
            let mut shell = filled(members);
            let all: HashSet<String> = (0..members).map(|n| format!("\"m{n}\"")).collect();
            for count in [0, 1, 3, members - 1, members, members + 10] {
                let drawn = list(&mut shell, &format!("ZRANDMEMBER z {count}"));
                let distinct: HashSet<String> = drawn.iter().cloned().collect();
                assert_eq!(
                    (drawn.len(), distinct.len()),
                    (count.min(members), count.min(members))
                );
                assert!(distinct.is_subset(&all));
            }
            assert_eq!(list(&mut shell, "ZRANDMEMBER z -700").len(), 700);
            let pairs = list(&mut shell, "ZRANDMEMBER z 2 WITHSCORES");
            for pair in pairs.chunks(2) {
                let number = pair[0].trim_matches('"').trim_start_matches('m');
                assert_eq!(pair[1], format!("\"{number}.5\""));
            }
        }
    }

    #[test]
    fn every_member_is_drawn_now_and_then() {
        for members in [4, 200] {
            let mut shell = filled(members);
            let mut counts = vec![0; members];
            for _ in 0..100 {
                for word in list(&mut shell, &format!("ZRANDMEMBER z {}", members / 4)) {
                    let number: usize = word.trim_matches('"').trim_start_matches('m').parse().unwrap();
                    counts[number] += 1;
                }
            }
            assert!(counts.iter().all(|count| (5..60).contains(count)), "{counts:?}");
        }
    }

    #[test]
    fn requests_for_random_members_are_checked() {
        let bounds =
            "-ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807";
        filled(1).check(&[
            ("ZRANDMEMBER z", "\"m0\""),
            ("ZRANDMEMBER none", "nil"),
            ("ZRANDMEMBER none 3", "[]"),
            (
                "ZRANDMEMBER z -2 WITHSCORES",
                "[\"m0\", \"0.5\", \"m0\", \"0.5\"]",
            ),
            ("ZRANDMEMBER z x", NOT_INTEGER),
            ("ZRANDMEMBER z -9223372036854775808", bounds),
            (
                "ZRANDMEMBER z -4611686018427387904 WITHSCORES",
                "-ERR value is out of range",
            ),
            ("ZRANDMEMBER z -9000000000", "-ERR value is out of range"),
            ("ZRANDMEMBER z 1 SCORES", SYNTAX),
            ("ZRANDMEMBER z 1 WITHSCORES x", SYNTAX),
        ]);
    }

    #[test]
    fn a_scan_finds_everything() {
        let mut shell = filled(500);
        let (mut cursor, mut seen, mut calls) = ("0".to_owned(), HashSet::new(), 0);
        loop {
            let words = list(&mut shell, &format!("ZSCAN z {cursor} MATCH m4* COUNT 20"));
            cursor = words[0].trim_matches('"').to_owned();
            seen.extend(
                words[1..]
                    .iter()
                    .map(|word| word.trim_matches(['[', '"']).to_owned()),
            );
            calls += 1;
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.iter().filter(|word| word.starts_with("m4")).count(), 111);
        assert!(calls > 10 && calls < 60, "{calls} calls");
    }

    #[test]
    fn a_small_set_is_scanned_at_once() {
        Shell::new().check(&[
            ("ZADD z 1 a 0.1 b", ":2"),
            ("ZSCAN z 0", "[\"0\", [\"b\", \"0.1\", \"a\", \"1\"]]"),
            ("ZSCAN z 7 MATCH a COUNT 1", "[\"0\", [\"a\", \"1\"]]"),
            ("ZSCAN none 0 NONSENSE", "[\"0\", []]"),
            ("ZSCAN z 0 COUNT 0", SYNTAX),
            ("ZSCAN z 0 COUNT x", NOT_INTEGER),
            ("ZSCAN z 0 TYPE zset", SYNTAX),
            ("ZSCAN none x", "-ERR invalid cursor"),
        ]);
    }

    #[test]
    fn precise_scores_are_those_of_printf() {
        for (score, text) in [
            (0.1, "0.10000000000000001"),
            (0.0, "0"),
            (3.0, "3"),
            (-1.5, "-1.5"),
            (100.0, "100"),
            (12345.678901234, "12345.678901234"),
            (1e-5, "1.0000000000000001e-05"),
            (0.0001, "0.0001"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (123456789012345678.0, "1.2345678901234568e+17"),
            (1e300, "1.0000000000000001e+300"),
            (5e-324, "4.9406564584124654e-324"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(precise(score), text);
        }
    }
}
