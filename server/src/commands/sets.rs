//! Sets: adding, removing, moving, testing and walking over members. Commands on random members are in [`random`],
//! those on several sets in [`algebra`].
//!
//! Rows first, then handlers in the order of the rows.

mod algebra;
mod random;

use shardis_protocol::Encoder;
use shardis_storage::key::KeyHasher;
use shardis_storage::value::INT_TEXT_MAX;
use shardis_storage::value::set::{Set, SetLimits};

use super::strings::bulk;
use crate::config::{KeyspaceEvents, Settings};
use crate::error::ReplyError;
use crate::exec::arguments::cursor;
use crate::exec::{CommandResult, Context, Options, ScanOptions};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

const MEMBERS_HISTORY: &[(&str, &str)] = &[("2.4.0", "Several members in one request.")];
const UNORDERED: &[&str] = &["nondeterministic_output_order"];
const BY_CHANCE: &[&str] = &["nondeterministic_output"];

/// The commands of this family.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "sadd",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::SET,
        keys: &[KeySpec::at(1).read_write().insert()],
        runs: Runs::OnKeys(sadd),
        member: Some(2),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Set,
            complexity: "O(N) for N members.",
            summary: "Puts members into a set, which is created if need be.",
            history: MEMBERS_HISTORY,
            args: &[Arg::key("key", 0), Arg::string("member").multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "srem",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::SET,
        keys: &[KeySpec::at(1).read_write().delete()],
        runs: Runs::OnKeys(srem),
        member: Some(2),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Set,
            complexity: "O(N) for N members.",
            summary: "Takes members out of a set, which goes with the last of them.",
            history: MEMBERS_HISTORY,
            args: &[Arg::key("key", 0), Arg::string("member").multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "smembers",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY,
        acl: Category::SET,
        tips: UNORDERED,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(smembers),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Set,
            complexity: "O(N) for a set of N members.",
            summary: "Returns all members of a set.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "sismember",
        arity: Arity::Exactly(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::SET,
        keys: &[KeySpec::at(1).read_only()],
        runs: Runs::OnKeys(sismember),
        member: Some(2),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Set,
            complexity: "O(1)",
            summary: "Tells whether a set has a member.",
            args: &[Arg::key("key", 0), Arg::string("member")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "smismember",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::SET,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(smismember),
        doc: &Doc {
            since: "6.2.0",
            group: Group::Set,
            complexity: "O(N) for N members asked for.",
            summary: "Tells of several members whether a set has them.",
            args: &[Arg::key("key", 0), Arg::string("member").multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "scard",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::SET,
        keys: &[KeySpec::at(1).read_only()],
        runs: Runs::OnKeys(scard),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Set,
            complexity: "O(1)",
            summary: "Returns how many members a set has.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "smove",
        arity: Arity::Exactly(4),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::SET,
        keys: &[
            KeySpec::at(1).read_write().access().delete(),
            KeySpec::at(2).read_write().insert(),
        ],
        runs: Runs::OnKeys(smove),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Set,
            complexity: "O(1)",
            summary: "Takes a member out of one set and puts it into another.",
            args: &[
                Arg::key("source", 0),
                Arg::key("destination", 1),
                Arg::string("member"),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "spop",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::SET,
        tips: BY_CHANCE,
        keys: &[KeySpec::at(1).read_write().access().delete()],
        runs: Runs::OnKeys(random::spop),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Set,
            complexity: "O(1) without a count, O(N) for a count of N.",
            summary: "Takes members picked at random out of a set and returns them.",
            history: &[("3.2.0", "The argument `count`.")],
            args: &[
                Arg::key("key", 0),
                Arg::integer("count").since("3.2.0").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "srandmember",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Category::SET,
        tips: BY_CHANCE,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(random::srandmember),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Set,
            complexity: "O(1) without a count, O(N) for a count of N or -N.",
            summary: "Returns members of a set picked at random; a negative count allows repetitions.",
            history: &[("2.6.0", "The argument `count`.")],
            args: &[
                Arg::key("key", 0),
                Arg::integer("count").since("2.6.0").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "sinter",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Category::SET,
        tips: UNORDERED,
        keys: &[KeySpec::from(1, 1).read_only().access()],
        runs: Runs::OnKeysLong(algebra::sinter),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Set,
            complexity: "O(N*K) at worst, the smallest of K sets having N members.",
            summary: "Returns the members that several sets have in common.",
            args: &[Arg::key("key", 0).multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "sinterstore",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::SET,
        keys: &[
            KeySpec::at(1).overwrite().update(),
            KeySpec::from(2, 1).read_only().access(),
        ],
        runs: Runs::OnKeysLong(algebra::sinterstore),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Set,
            complexity: "O(N*K) at worst, the smallest of K sets having N members.",
            summary: "Stores the members that several sets have in common, in place of whatever the key held.",
            args: &[Arg::key("destination", 0), Arg::key("key", 1).multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "sintercard",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Category::SET,
        keys: &[KeySpec::counted(1).read_only().access()],
        runs: Runs::OnKeysLong(algebra::sintercard),
        doc: &Doc {
            since: "7.0.0",
            group: Group::Set,
            complexity: "O(N*K) at worst, the smallest of K sets having N members.",
            summary: "Counts the members that several sets have in common, up to a limit if one is given.",
            args: &[
                Arg::integer("numkeys"),
                Arg::key("key", 0).multiple(),
                Arg::integer("limit").token("LIMIT").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "sunioncard",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Category::SET,
        keys: &[KeySpec::counted(1).read_only().access()],
        runs: Runs::OnKeysLong(algebra::sunioncard),
        doc: &Doc {
            since: "8.10.0",
            group: Group::Set,
            complexity: "O(N) for sets of N members in all.",
            summary: "Counts the members that any of several sets has, up to a limit if one is given.",
            args: &[
                Arg::integer("numkeys"),
                Arg::key("key", 0).multiple(),
                Arg::flag("approx", "APPROX").optional(),
                Arg::integer("limit").token("LIMIT").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "sdiffcard",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Category::SET,
        keys: &[KeySpec::counted(1).read_only().access()],
        runs: Runs::OnKeysLong(algebra::sdiffcard),
        doc: &Doc {
            since: "8.10.0",
            group: Group::Set,
            complexity: "O(N) for sets of N members in all.",
            summary: "Counts the members of a set that are in no other, up to a limit if one is given.",
            args: &[
                Arg::integer("numkeys"),
                Arg::key("key", 0).multiple(),
                Arg::integer("limit").token("LIMIT").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "sunion",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Category::SET,
        tips: UNORDERED,
        keys: &[KeySpec::from(1, 1).read_only().access()],
        runs: Runs::OnKeysLong(algebra::sunion),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Set,
            complexity: "O(N) for sets of N members in all.",
            summary: "Returns the members that any of several sets has.",
            args: &[Arg::key("key", 0).multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "sunionstore",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::SET,
        keys: &[
            KeySpec::at(1).overwrite().update(),
            KeySpec::from(2, 1).read_only().access(),
        ],
        runs: Runs::OnKeysLong(algebra::sunionstore),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Set,
            complexity: "O(N) for sets of N members in all.",
            summary: "Stores the members that any of several sets has, in place of whatever the key held.",
            args: &[Arg::key("destination", 0), Arg::key("key", 1).multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "sdiff",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Category::SET,
        tips: UNORDERED,
        keys: &[KeySpec::from(1, 1).read_only().access()],
        runs: Runs::OnKeysLong(algebra::sdiff),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Set,
            complexity: "O(N) for sets of N members in all.",
            summary: "Returns the members of the first set that none of the others has.",
            args: &[Arg::key("key", 0).multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "sdiffstore",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::SET,
        keys: &[
            KeySpec::at(1).overwrite().update(),
            KeySpec::from(2, 1).read_only().access(),
        ],
        runs: Runs::OnKeysLong(algebra::sdiffstore),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Set,
            complexity: "O(N) for sets of N members in all.",
            summary: "Stores the members of the first set that none of the others has, in place of whatever the key held.",
            args: &[Arg::key("destination", 0), Arg::key("key", 1).multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "sscan",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Category::SET,
        tips: BY_CHANCE,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(sscan),
        doc: &Doc {
            since: "2.8.0",
            group: Group::Set,
            complexity: "O(1) for a call, O(N) for a walk over all of N members.",
            summary: "Walks over the members of a set, some at each call.",
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

/// Limits of the encodings, from the settings.
#[inline]
pub(super) fn limits(ctx: &Context<'_>) -> SetLimits {
    limits_of(ctx.settings, ctx.keyspace.hasher())
}

/// The same limits for anyone who knows the hasher.
pub(super) fn limits_of(settings: &Settings, hasher: KeyHasher) -> SetLimits {
    SetLimits {
        intset_entries: settings.set_max_intset_entries as usize,
        listpack_entries: settings.set_max_listpack_entries as usize,
        listpack_value: settings.set_max_listpack_value as usize,
        hasher,
    }
}

fn sadd(ctx: &mut Context<'_>) -> CommandResult {
    let (key, limits) = (ctx.key(1), limits(ctx));
    let members = 2..ctx.args.len();
    let args = ctx.args.tail(members.start);
    let add = |set: &mut Set| {
        let added = args.iter().filter(|member| set.add(member, &limits));
        added.count() as u64
    };
    // The usual case, an existing set, takes a single look-up.
    let added = if let Some(set) = ctx.keyspace.write_as::<Set>(&key)? {
        set.expect(members.len(), &limits);
        add(set)
    } else {
        let (set, _) = ctx.keyspace.make::<Set>(&key)?;
        *set = Set::for_members(ctx.args.at(members.start), members.len(), &limits);
        add(set)
    };
    if added > 0 {
        ctx.notify(KeyspaceEvents::SET, "sadd", &key);
        ctx.changed(&key, added);
    }
    ctx.reply.integer(added as i64);
    Ok(())
}

fn srem(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let (mut removed, mut left) = (0, 0);
    if let Some(set) = ctx.keyspace.write_as::<Set>(&key)? {
        for index in 2..ctx.args.len() {
            removed += u64::from(set.remove(ctx.args.at(index)));
        }
        left = set.len();
    }
    if removed > 0 {
        ctx.notify(KeyspaceEvents::SET, "srem", &key);
        ctx.removed(&key, removed, left);
    }
    ctx.reply.integer(removed as i64);
    Ok(())
}

fn smembers(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let set = ctx.keyspace.read_as::<Set>(&key)?;
    reply_members(&mut ctx.reply, set);
    Ok(())
}

/// Replies with all members of a set, none if it is missing.
fn reply_members(reply: &mut Encoder<'_>, set: Option<&Set>) {
    reply.set(set.map_or(0, Set::len));
    for member in set.into_iter().flatten() {
        bulk(reply, member);
    }
}

fn sismember(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let set = ctx.keyspace.read_as::<Set>(&key)?;
    let there = set.is_some_and(|set| set.contains(ctx.args.at(2)));
    ctx.reply.integer(i64::from(there));
    Ok(())
}

fn smismember(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let set = ctx.keyspace.read_as::<Set>(&key)?;
    ctx.reply.array(ctx.args.len() - 2);
    for index in 2..ctx.args.len() {
        let there = set.is_some_and(|set| set.contains(ctx.args.at(index)));
        ctx.reply.integer(i64::from(there));
    }
    Ok(())
}

fn scard(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let set = ctx.keyspace.read_as::<Set>(&key)?;
    ctx.reply.integer(set.map_or(0, Set::len) as i64);
    Ok(())
}

fn smove(ctx: &mut Context<'_>) -> CommandResult {
    let moved = move_member(ctx)?;
    ctx.reply.integer(i64::from(moved));
    Ok(())
}

/// Moves the member that SMOVE names; false when the source does not have it.
fn move_member(ctx: &mut Context<'_>) -> Result<bool, ReplyError> {
    let (source, destination, member) = (ctx.key(1), ctx.key(2), ctx.args.at(3));
    let Some(set) = ctx.keyspace.write_as::<Set>(&source)? else {
        // Without a source, the destination may be of any type.
        return Ok(false);
    };
    let there = set.contains(member);
    ctx.keyspace.write_as::<Set>(&destination)?;
    if !there || source.bytes == destination.bytes {
        return Ok(there);
    }
    if let Some(set) = ctx.keyspace.write_as::<Set>(&source)? {
        set.remove(member);
    }
    ctx.notify(KeyspaceEvents::SET, "srem", &source);
    ctx.keyspace.settle(&source);
    ctx.modified(&source);

    let limits = limits(ctx);
    let (set, made) = ctx.keyspace.make::<Set>(&destination)?;
    if made {
        *set = Set::for_members(member, 1, &limits);
    }
    if set.add(member, &limits) {
        ctx.notify(KeyspaceEvents::SET, "sadd", &destination);
        ctx.modified(&destination);
    }
    Ok(true)
}

fn sscan(ctx: &mut Context<'_>) -> CommandResult {
    let cursor = cursor(ctx.args.at(2)).ok_or(ReplyError::InvalidCursor)?;
    let key = ctx.key(1);
    let Some(set) = ctx.keyspace.read_as::<Set>(&key)? else {
        // For a missing key the options are not even read.
        ctx.reply.array(2);
        ctx.reply.bulk(b"0");
        ctx.reply.array(0);
        return Ok(());
    };
    let options = ScanOptions::parse(Options::new(ctx.args, 3))?;
    let (mut found, mut elements) = (0, Vec::new());
    let mut encoder = Encoder::new(&mut elements, ctx.reply.resp());
    let mut scratch = [0; INT_TEXT_MAX];
    let next = set.scan(cursor, options.count, |member| {
        let member = member.as_bytes(&mut scratch);
        if options.accept(member) {
            found += 1;
            encoder.bulk(member);
        }
    });
    ctx.reply.array(2);
    // A cursor has at most 32 bits.
    ctx.reply.bulk_integer(next as i64);
    ctx.reply.array(found);
    ctx.reply.raw(&elements);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::commands::testing::Shell;

    pub(super) const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    pub(super) const SYNTAX: &str = "-ERR syntax error";

    /// The bulk strings of a reply.
    pub(super) fn strings(reply: &str) -> Vec<String> {
        reply.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    }

    /// The members of a set, in order.
    #[track_caller]
    pub(super) fn members(shell: &mut Shell, key: &str) -> String {
        let reply = shell.run(&format!("SMEMBERS {key}")).reply;
        let members: BTreeSet<_> = strings(&reply).into_iter().collect();
        members.into_iter().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn members_come_and_go() {
        let mut shell = Shell::new();
        shell.check_effects(&[
            ("SADD s a b a c", ":3", &["SADD s a b a c"]),
            ("SADD s a", ":0", &[]),
            ("SCARD s", ":3", &[]),
            ("SISMEMBER s a", ":1", &[]),
            ("SISMEMBER s x", ":0", &[]),
            ("SMISMEMBER s a x b", "[:1, :0, :1]", &[]),
            ("SMEMBERS s", "[\"a\", \"b\", \"c\"]", &[]),
            ("SREM s x", ":0", &[]),
            ("SREM s a x a", ":1", &["SREM s a x a"]),
            ("SREM s b c d", ":2", &["SREM s b c d"]),
            ("EXISTS s", ":0", &[]),
            ("SREM s b", ":0", &[]),
        ]);
        assert_eq!(shell.run("SADD s a b c").changes, 3);
        assert_eq!(shell.run("SREM s a b x").changes, 2);
    }

    #[test]
    fn missing_keys_are_empty_sets_and_others_are_refused() {
        let mut shell = Shell::new();
        shell.check(&[
            ("SMEMBERS none", "[]"),
            ("SCARD none", ":0"),
            ("SISMEMBER none a", ":0"),
            ("SMISMEMBER none a b", "[:0, :0]"),
            ("SSCAN none 0 NONSENSE", "[\"0\", []]"),
            ("SET str x", "+OK"),
            ("SADD str a", WRONG_TYPE),
            ("SREM str a", WRONG_TYPE),
            ("SMEMBERS str", WRONG_TYPE),
            ("SISMEMBER str a", WRONG_TYPE),
            ("SMISMEMBER str a", WRONG_TYPE),
            ("SCARD str", WRONG_TYPE),
            ("SSCAN str 0", WRONG_TYPE),
        ]);
        let mut shell = Shell::new().resp3();
        shell.check(&[
            ("SMEMBERS none", "~[]"),
            ("SADD s 2 1", ":2"),
            ("SMEMBERS s", "~[\"1\", \"2\"]"),
        ]);
    }

    #[test]
    fn thresholds_are_those_of_the_configuration() {
        let mut shell = Shell::new();
        shell.settings.set_max_intset_entries = 2;
        shell.settings.set_max_listpack_entries = 3;
        shell.settings.set_max_listpack_value = 4;
        let mut check = |lines: &[&str], expected: &str| {
            shell.run("DEL s");
            for line in lines {
                shell.run(line);
            }
            let encoding = shell.run("OBJECT ENCODING s").reply;
            assert_eq!(encoding, format!("\"{expected}\""), "{lines:?}");
        };
        check(&["SADD s 1 2"], "intset");
        check(&["SADD s 1 2", "SADD s 3"], "hashtable");
        check(&["SADD s 1 1 1"], "listpack");
        check(&["SADD s 1 1 1 1"], "hashtable");
        check(&["SADD s 1", "SADD s a"], "listpack");
        check(&["SADD s a b c"], "listpack");
        check(&["SADD s a b", "SADD s a a a a"], "hashtable");
        check(&["SADD s long!"], "hashtable");
    }

    #[test]
    fn a_member_moves_from_set_to_set() {
        let mut shell = Shell::over(4);
        shell.check_effects(&[
            ("SADD s a b c", ":3", &["SADD s a b c"]),
            ("SADD t c", ":1", &["SADD t c"]),
            ("SMOVE s t a", ":1", &["SMOVE s t a"]),
            ("SMOVE s t x", ":0", &[]),
            ("SMOVE s s b", ":1", &[]),
            ("SMOVE s s x", ":0", &[]),
            ("SMOVE s t c", ":1", &["SMOVE s t c"]),
            ("SMOVE s u b", ":1", &["SMOVE s u b"]),
            ("EXISTS s", ":0", &[]),
            ("SMOVE s t b", ":0", &[]),
        ]);
        assert_eq!(members(&mut shell, "t"), "a c");
        assert_eq!(members(&mut shell, "u"), "b");
        assert_eq!(shell.run("SMOVE t u c").changes, 2);
        shell.run("SADD t b");
        assert_eq!(shell.run("SMOVE t u b").changes, 1);
        shell.check(&[
            ("SET str x", "+OK"),
            ("SMOVE none str a", ":0"),
            ("SMOVE t str a", WRONG_TYPE),
            ("SMOVE t str x", WRONG_TYPE),
            ("SMOVE str t a", WRONG_TYPE),
        ]);
    }

    #[test]
    fn watchers_learn_of_changes_only() {
        let mut shell = Shell::new();
        shell.run("SADD s a b");
        for (line, changes) in [
            ("SADD s a", false),
            ("SREM s x", false),
            ("SMOVE s t x", false),
            ("SPOP s 0", false),
            ("SADD s c", true),
            ("SREM s c", true),
            ("SMOVE s t a", true),
            ("SPOP s", true),
        ] {
            let token = shell.watch("s");
            shell.run(line);
            assert_eq!(token.is_touched(), changes, "{line}");
        }
    }

    #[test]
    fn a_walk_sees_every_member() {
        let mut shell = Shell::new();
        for number in 0..300 {
            shell.run(&format!("SADD s member{number}"));
        }
        let (mut cursor, mut seen, mut calls) = ("0".to_owned(), BTreeSet::new(), 0);
        loop {
            let mut words = strings(&shell.run(&format!("SSCAN s {cursor} MATCH *7 COUNT 20")).reply);
            cursor = words.remove(0);
            seen.extend(words);
            calls += 1;
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.len(), 30);
        assert!((5..40).contains(&calls), "{calls} calls");
        shell.check(&[
            ("SADD small 1 2 30", ":3"),
            ("SSCAN small 7 COUNT 1", "[\"0\", [\"1\", \"2\", \"30\"]]"),
            ("SSCAN small 0 MATCH 3*", "[\"0\", [\"30\"]]"),
            ("SSCAN small x", "-ERR invalid cursor"),
            ("SSCAN small 0 COUNT 0", SYNTAX),
            (
                "SSCAN small 0 COUNT x",
                "-ERR value is not an integer or out of range",
            ),
            ("SSCAN small 0 MATCH", SYNTAX),
            ("SSCAN small 0 TYPE set", SYNTAX),
        ]);
    }
}
