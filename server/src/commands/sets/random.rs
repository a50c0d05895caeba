//! Random members: SPOP and SRANDMEMBER.
//!
//! The effect of SPOP is a removal by name, so that every replica removes the same members.

use shardis_storage::value::set::Set;
use shardis_storage::value::{INT_TEXT_MAX, StringRef};

use super::super::strings::bulk;
use super::{limits, reply_members};
use crate::config::KeyspaceEvents;
use crate::error::ReplyError;
use crate::exec::arguments::{int, int_within};
use crate::exec::{CommandResult, Context};

/// The most members of one SREM in the effects of SPOP.
const REMOVED_AT_ONCE: usize = 1024;
/// The most members, repetitions included, of one reply: it bounds the output that a short request can cause.
const REPETITIONS_MAX: i64 = 1 << 24;

pub(super) fn spop(ctx: &mut Context<'_>) -> CommandResult {
    match ctx.args.len() {
        2 => pop_one(ctx),
        3 => pop_many(ctx),
        _ => Err(ReplyError::Syntax),
    }
}

fn pop_one(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let Some((set, rng)) = ctx.keyspace.write_with_rng::<Set>(&key)? else {
        ctx.reply.null();
        return Ok(());
    };
    set.pop(rng, |member| {
        bulk(&mut ctx.reply, member);
        if ctx.effects.is_recording() {
            let mut scratch = [0; INT_TEXT_MAX];
            ctx.effects
                .replace(&[b"SREM", key.bytes, member.as_bytes(&mut scratch)]);
        }
    });
    let left = set.len();
    ctx.notify(KeyspaceEvents::SET, "spop", &key);
    ctx.removed(&key, 1, left);
    Ok(())
}

fn pop_many(ctx: &mut Context<'_>) -> CommandResult {
    let count = int(ctx.args.at(2))
        .ok()
        .and_then(|count| usize::try_from(count).ok())
        .ok_or(ReplyError::NotPositive)?;
    let (key, limits) = (ctx.key(1), limits(ctx));
    let Some((set, rng)) = ctx.keyspace.write_with_rng::<Set>(&key)? else {
        ctx.reply.set(0);
        return Ok(());
    };
    let len = set.len();
    if count == 0 {
        ctx.reply.set(0);
        return Ok(());
    }
    if count >= len {
        reply_members(&mut ctx.reply, Some(set));
        let lazily = ctx.keyspace.stamp.lazy_server_del;
        ctx.keyspace.remove(&key, lazily);
        let name: &[u8] = if lazily { b"UNLINK" } else { b"DEL" };
        ctx.effects.replace(&[name, key.bytes]);
        ctx.notify(KeyspaceEvents::SET, "spop", &key);
        ctx.notify(KeyspaceEvents::GENERIC, "del", &key);
    } else {
        ctx.reply.set(count);
        let recording = ctx.effects.is_recording();
        let mut popped: Vec<Vec<u8>> = Vec::new();
        set.pop_many(count, rng, &limits, |member| {
            bulk(&mut ctx.reply, member);
            if recording {
                popped.push(text(member));
            }
        });
        for members in popped.chunks(REMOVED_AT_ONCE) {
            let words: Vec<&[u8]> = [b"SREM", key.bytes]
                .into_iter()
                .chain(members.iter().map(Vec::as_slice))
                .collect();
            ctx.effects.replace(&words);
        }
        ctx.notify(KeyspaceEvents::SET, "spop", &key);
    }
    ctx.modified(&key);
    ctx.effects.changed(count.min(len) as u64 - 1);
    Ok(())
}

fn text(member: StringRef<'_>) -> Vec<u8> {
    member.as_bytes(&mut [0; INT_TEXT_MAX]).to_vec()
}

pub(super) fn srandmember(ctx: &mut Context<'_>) -> CommandResult {
    match ctx.args.len() {
        2 => pick_one(ctx),
        3 => pick_many(ctx),
        _ => Err(ReplyError::Syntax),
    }
}

fn pick_one(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let found = ctx.keyspace.read_with_rng::<Set>(&key)?;
    match found.and_then(|(set, rng)| set.random(rng)) {
        Some(member) => bulk(&mut ctx.reply, member),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn pick_many(ctx: &mut Context<'_>) -> CommandResult {
    let count = int_within(ctx.args.at(2), -i64::MAX, i64::MAX)?;
    let key = ctx.key(1);
    let Some((set, rng)) = ctx.keyspace.read_with_rng::<Set>(&key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    if let Ok(count) = usize::try_from(count) {
        ctx.reply.array(count.min(set.len()));
        set.random_distinct(count, rng, |member| bulk(&mut ctx.reply, member));
        return Ok(());
    }
    if count < -REPETITIONS_MAX {
        return Err(ReplyError::OutOfBounds {
            min: -REPETITIONS_MAX,
            max: i64::MAX,
        });
    }
    let count = count.unsigned_abs() as usize;
    ctx.reply.array(count);
    for _ in 0..count {
        // A set under a key is never empty.
        if let Some(member) = set.random(rng) {
            bulk(&mut ctx.reply, member);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::tests::{SYNTAX, WRONG_TYPE, members, strings};
    use crate::commands::testing::Shell;

    const NOT_POSITIVE: &str = "-ERR value is out of range, must be positive";

    #[test]
    fn a_popped_member_is_repeated_as_its_removal() {
        let mut shell = Shell::new();
        for add in ["SADD s 1 2 3 4", "SADD s a b c d"] {
            shell.run(add);
            for left in (0..4).rev() {
                let answer = shell.run("SPOP s");
                let popped = strings(&answer.reply).remove(0);
                assert_eq!(answer.effects, [format!("SREM s {popped}")]);
                assert_eq!(answer.changes, 1);
                assert_eq!(shell.run("SCARD s").reply, format!(":{left}"));
            }
            shell.check(&[("EXISTS s", ":0"), ("SPOP s", "nil")]);
        }
    }

    #[test]
    fn several_are_popped_at_once() {
        let mut shell = Shell::new();
        shell.check(&[
            ("SPOP none 1", "[]"),
            ("SPOP none -1", NOT_POSITIVE),
            ("SADD s a b c d e", ":5"),
            ("SPOP s 0", "[]"),
            ("SPOP s -1", NOT_POSITIVE),
            ("SPOP s x", NOT_POSITIVE),
            ("SPOP s 1 2", SYNTAX),
            ("SET str x", "+OK"),
            ("SPOP str", WRONG_TYPE),
            ("SPOP str 1", WRONG_TYPE),
        ]);
        let answer = shell.run("SPOP s 3");
        let popped = strings(&answer.reply);
        assert_eq!(answer.effects, [format!("SREM s {}", popped.join(" "))]);
        assert_eq!((answer.changes, popped.len()), (3, 3));
        let left = members(&mut shell, "s");
        assert!(!popped.iter().any(|member| left.contains(member)));
        let answer = shell.run("SPOP s 9");
        assert_eq!((answer.effects, answer.changes), (vec!["DEL s".to_owned()], 2));
        shell.check(&[("EXISTS s", ":0")]);
        shell.run("SADD s a");
        shell.stamp.lazy_server_del = true;
        assert_eq!(shell.run("SPOP s 1").effects, ["UNLINK s"]);
    }

    #[test]
    fn many_popped_members_are_removed_in_portions() {
        let mut shell = Shell::new();
        for number in 0..3000 {
            shell.run(&format!("SADD s member{number}"));
        }
        let answer = shell.run("SPOP s 2500");
        let popped: BTreeSet<_> = strings(&answer.reply).into_iter().collect();
        let removed: BTreeSet<_> = answer
            .effects
            .iter()
            .flat_map(|effect| effect.split(' ').skip(2).map(str::to_owned))
            .collect();
        assert_eq!((popped.len(), answer.effects.len()), (2500, 3));
        assert_eq!(popped, removed);
        shell.check(&[("SCARD s", ":500")]);
    }

    #[test]
    fn members_are_picked_with_and_without_repetition() {
        let mut shell = Shell::new();
        shell.check(&[
            ("SRANDMEMBER none", "nil"),
            ("SRANDMEMBER none 3", "[]"),
            (
                "SRANDMEMBER none -9223372036854775808",
                "-ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
            ),
            ("SADD s a", ":1"),
            ("SRANDMEMBER s", "\"a\""),
            ("SRANDMEMBER s 0", "[]"),
            ("SRANDMEMBER s 9223372036854775807", "[\"a\"]"),
            ("SRANDMEMBER s -3", "[\"a\", \"a\", \"a\"]"),
            ("SRANDMEMBER s x", "-ERR value is not an integer or out of range"),
            ("SRANDMEMBER s 1 2", SYNTAX),
            (
                "SRANDMEMBER s -9223372036854775807",
                "-ERR value is out of range, value must between -16777216 and 9223372036854775807",
            ),
            ("SET str x", "+OK"),
            ("SRANDMEMBER str", WRONG_TYPE),
            ("SRANDMEMBER str 1", WRONG_TYPE),
        ]);
        for number in 0..300 {
            shell.run(&format!("SADD big {number} member{number}"));
        }
        for count in [1, 100, 500, 600, 700] {
            let answer = shell.run(&format!("SRANDMEMBER big {count}"));
            let picked = strings(&answer.reply);
            let different: BTreeSet<_> = picked.iter().collect();
            assert_eq!((picked.len(), different.len()), (count.min(600), count.min(600)));
            assert!(answer.effects.is_empty());
        }
        assert_eq!(strings(&shell.run("SRANDMEMBER big -700").reply).len(), 700);
        shell.check(&[("SCARD big", ":600")]);
    }

    #[test]
    fn popped_sets_are_sets_in_resp3() {
        let mut shell = Shell::new().resp3();
        shell.check(&[
            ("SADD s a", ":1"),
            ("SRANDMEMBER s 1", "[\"a\"]"),
            ("SPOP s 1", "~[\"a\"]"),
            ("SPOP s 1", "~[]"),
            ("SRANDMEMBER s 1", "[]"),
        ]);
    }
}
