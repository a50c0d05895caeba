//! DUMP and RESTORE: values as payloads, to be carried to another key, server or time.
//!
//! Rows first, then handlers. What a payload consists of is in `storage::rdb`. RESTORE checks all of it, so that
//! `sanitize-dump-payload` makes no difference.

use shardis_protocol::Arguments;
use shardis_storage::key::{Key, KeyHasher};
use shardis_storage::keyspace::eviction::{lfu, lru};
use shardis_storage::rdb::payload::{self, Payload};
use shardis_storage::rdb::{Dialect, Limits, WriteOptions};
use shardis_storage::value::Owned;

use super::{hashes, lists, sets, sorted_sets};
use crate::config::{FieldExpiryFormat, KeyspaceEvents, Settings};
use crate::error::ReplyError;
use crate::exec::arguments::{int, is};
use crate::exec::{CommandResult, Context, Options};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

/// The commands of this family.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "dump",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY,
        acl: Category::KEYSPACE,
        tips: &["nondeterministic_output"],
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(dump),
        doc: &Doc {
            since: "2.6.0",
            complexity: "O(N) for a value of N bytes",
            summary: "Returns the value of a key in a form that RESTORE takes.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    RESTORE,
    Command {
        name: "restore-asking",
        flags: RESTORE.flags.union(Flags::ASKING),
        doc: &Doc {
            since: "3.0.0",
            group: Group::Server,
            system: true,
            complexity: "O(N) for a value of N bytes; O(N*log(N)) for a large sorted set",
            summary: "Is RESTORE as nodes of a cluster send it to each other.",
            history: &[
                ("3.0.0", "The option `REPLACE`."),
                ("5.0.0", "The option `ABSTTL`."),
                ("5.0.0", "The options `IDLETIME` and `FREQ`."),
            ],
            args: RESTORED,
            ..Doc::BLANK
        },
        ..RESTORE
    },
];

const RESTORED: &[Arg] = &[
    Arg::key("key", 0),
    Arg::integer("ttl"),
    Arg::string("serialized-value"),
    Arg::flag("replace", "REPLACE").since("3.0.0").optional(),
    Arg::flag("absttl", "ABSTTL").since("5.0.0").optional(),
    Arg::integer("seconds")
        .token("IDLETIME")
        .since("5.0.0")
        .optional(),
    Arg::integer("frequency").token("FREQ").since("5.0.0").optional(),
];

/// The row of RESTORE, and with other names of those that are alike.
const RESTORE: Command = Command {
    name: "restore",
    arity: Arity::AtLeast(4),
    flags: Flags::WRITE.union(Flags::DENYOOM),
    acl: Category::KEYSPACE.union(Category::DANGEROUS),
    keys: &[KeySpec::at(1).overwrite().update()],
    runs: Runs::OnKeysLong(restore),
    doc: &Doc {
        since: "2.6.0",
        complexity: "O(N) for a value of N bytes; O(N*log(N)) for a large sorted set",
        summary: "Creates a key with a value that DUMP returned.",
        history: &[
            ("3.0.0", "The option `REPLACE`."),
            ("5.0.0", "The option `ABSTTL`."),
            ("5.0.0", "The options `IDLETIME` and `FREQ`."),
        ],
        args: RESTORED,
        ..Doc::BLANK
    },
    ..Command::BLANK
};

const BUSY_KEY: ReplyError = ReplyError::Fixed("BUSYKEY Target key name already exists.");
const BAD_TTL: ReplyError = ReplyError::Fixed("ERR Invalid TTL value, must be >= 0");
const BAD_IDLE_TIME: ReplyError = ReplyError::Fixed("ERR Invalid IDLETIME value, must be >= 0");
const BAD_FREQUENCY: ReplyError = ReplyError::Fixed("ERR Invalid FREQ value, must be >= 0 and <= 255");
const BAD_CHECKSUM: ReplyError = ReplyError::Fixed("ERR DUMP payload version or checksum are wrong");
const BAD_DATA: ReplyError = ReplyError::Fixed("ERR Bad data format");

/// Argument of RESTORE that is the time to live.
const TTL: usize = 2;
/// Argument of RESTORE that is the payload.
const PAYLOAD: usize = 3;

/// Form in which values are written, from the settings.
pub(super) fn write_options(settings: &Settings) -> WriteOptions {
    WriteOptions {
        compress_max: if settings.rdbcompression { usize::MAX } else { 0 },
        dialect: match settings.rdb_field_expiry_format {
            FieldExpiryFormat::Redis => Dialect::Redis,
            FieldExpiryFormat::Valkey => Dialect::Valkey,
        },
    }
}

/// Limits of the encodings of all types, from the settings.
pub(crate) fn limits_of(settings: &Settings, hasher: KeyHasher) -> Limits {
    Limits {
        list: lists::limits(settings),
        set: sets::limits_of(settings, hasher),
        hash: hashes::limits_of(settings, hasher),
        sorted_set: sorted_sets::limits_of(settings, hasher),
    }
}

fn dump(ctx: &mut Context<'_>) -> CommandResult {
    let options = write_options(ctx.settings);
    match ctx.keyspace.read(&ctx.key(1)) {
        Some(entry) => ctx.reply.bulk(&payload::write(entry, options)),
        None => ctx.reply.null(),
    }
    Ok(())
}

/// Options of RESTORE.
#[derive(Default)]
struct RestoreOptions {
    replaces: bool,
    /// The time to live is a point in time.
    is_absolute: bool,
    idle_s: Option<u64>,
    frequency: Option<u8>,
}

impl RestoreOptions {
    fn read(args: Arguments<'_>) -> Result<Self, ReplyError> {
        let mut chosen = Self::default();
        let mut options = Options::new(args, PAYLOAD + 1);
        while let Some(word) = options.word() {
            if is(word, "REPLACE") {
                chosen.replaces = true;
            } else if is(word, "ABSTTL") {
                chosen.is_absolute = true;
            } else if is(word, "IDLETIME") && chosen.frequency.is_none() {
                let idle_s = u64::try_from(options.int()?).map_err(|_| BAD_IDLE_TIME)?;
                chosen.idle_s = Some(idle_s);
            } else if is(word, "FREQ") && chosen.idle_s.is_none() {
                let frequency = u8::try_from(options.int()?).map_err(|_| BAD_FREQUENCY)?;
                chosen.frequency = Some(frequency);
            } else {
                return Err(ReplyError::Syntax);
            }
        }
        Ok(chosen)
    }

    /// The access clock of the key. An option that does not suit the eviction policy is ignored.
    fn clock(&self, ctx: &Context<'_>) -> u32 {
        let is_lfu = ctx.keyspace.stamp.lfu.is_some();
        match (self.idle_s, self.frequency) {
            // The clock counts modulo less than 32 bits.
            (Some(idle_s), _) if !is_lfu => lru::idle_since(idle_s as u32, ctx.wall_ms()),
            (_, Some(frequency)) if is_lfu => lfu::with_frequency(frequency, ctx.wall_ms()),
            _ => ctx.keyspace.stamp.clock,
        }
    }
}

fn restore(ctx: &mut Context<'_>) -> CommandResult {
    let options = RestoreOptions::read(ctx.args)?;
    let key = ctx.key(1);
    if !options.replaces && ctx.keyspace.write(&key).is_some() {
        return Err(BUSY_KEY);
    }
    let expiry = expiry(ctx, &options)?;
    let value = value(ctx)?;
    let was_there = options.replaces && ctx.keyspace.remove(&key, ctx.keyspace.stamp.lazy_server_del);
    if expiry.is_some_and(|at| at <= ctx.now_ms()) {
        if was_there {
            report_removal(ctx, &key);
        }
    } else {
        store(ctx, &key, value, expiry, &options);
    }
    ctx.reply.ok();
    Ok(())
}

/// Reads the time to live, and returns the point in time at which it ends.
fn expiry(ctx: &Context<'_>, options: &RestoreOptions) -> Result<Option<i64>, ReplyError> {
    let ttl = int(ctx.args.at(TTL))?;
    Ok(match ttl {
        ..0 => return Err(BAD_TTL),
        0 => None,
        at if options.is_absolute => Some(at),
        // As in Redis, a time beyond all times has passed.
        ttl => Some(ctx.wall_ms().wrapping_add(ttl)),
    })
}

/// Reads the value of the payload.
fn value(ctx: &mut Context<'_>) -> Result<Owned, ReplyError> {
    let limits = limits_of(ctx.settings, ctx.keyspace.hasher());
    let payload = Payload::verified(ctx.args.at(PAYLOAD)).ok_or(BAD_CHECKSUM)?;
    ctx.keyspace
        .in_hand(|| payload.value(&limits))
        .map_err(|_| BAD_DATA)
}

/// Announces that the value is gone that an expired one would have replaced.
fn report_removal(ctx: &mut Context<'_>, key: &Key<'_>) {
    let name: &[u8] = if ctx.keyspace.stamp.lazy_server_del {
        b"UNLINK"
    } else {
        b"DEL"
    };
    ctx.effects.replace(&[name, key.bytes]);
    ctx.modified(key);
    ctx.notify(KeyspaceEvents::GENERIC, "del", key);
}

fn store(
    ctx: &mut Context<'_>,
    key: &Key<'_>,
    mut value: Owned,
    expiry: Option<i64>,
    options: &RestoreOptions,
) {
    value.set_expiry(expiry);
    let clock = options.clock(ctx);
    ctx.keyspace.put(key, value, clock);
    if let Some(at) = expiry
        && !options.is_absolute
        && ctx.effects.is_recording()
    {
        let at = at.to_string();
        let mut words: Vec<&[u8]> = ctx.args.iter().collect();
        words[TTL] = at.as_bytes();
        words.push(b"ABSTTL");
        ctx.effects.replace(&words);
    }
    ctx.modified(key);
    ctx.notify(KeyspaceEvents::GENERIC, "restore", key);
}

#[cfg(test)]
mod tests {
    use shardis_storage::value::Owned;

    use super::*;
    use crate::commands::testing::{START_MS, Shell};

    fn payload_of(text: &str) -> Vec<u8> {
        let options = WriteOptions {
            compress_max: 0,
            dialect: Dialect::Redis,
        };
        payload::write(Owned::string(text.as_bytes(), None).entry(), options)
    }

    /// Restores a string, and returns the reply and the effects.
    fn restore(
        shell: &mut Shell,
        key: &str,
        ttl: &str,
        text: &str,
        options: &[&str],
    ) -> (String, Vec<String>) {
        let payload = payload_of(text);
        let mut words: Vec<&[u8]> = vec![b"RESTORE", key.as_bytes(), ttl.as_bytes(), &payload];
        words.extend(options.iter().map(|option| option.as_bytes()));
        let answer = shell.run_words(&words);
        let shown = payload.escape_ascii().to_string();
        let effects = answer
            .effects
            .iter()
            .map(|effect| effect.replace(&shown, "PAYLOAD"));
        (answer.reply, effects.collect())
    }

    #[test]
    fn a_restored_key_is_repeated_with_the_time_at_which_it_expires() {
        for shards in [1, 3] {
            let mut shell = Shell::over(shards);
            let watched = shell.watch("a");
            let ok = |effects: &[&str]| ("+OK".to_owned(), effects.iter().map(|&e| e.to_owned()).collect());
            assert_eq!(
                restore(&mut shell, "a", "0", "v", &[]),
                ok(&["RESTORE a 0 PAYLOAD"])
            );
            assert!(watched.is_touched());
            let later = (START_MS + 5000).to_string();
            assert_eq!(
                restore(&mut shell, "b", "5000", "text", &["IDLETIME", "7"]),
                ok(&[&format!("RESTORE b {later} PAYLOAD IDLETIME 7 ABSTTL")])
            );
            assert_eq!(
                restore(&mut shell, "c", &later, "5", &["ABSTTL"]),
                ok(&[&format!("RESTORE c {later} PAYLOAD ABSTTL")])
            );
            shell.check(&[
                ("OBJECT IDLETIME b", ":7"),
                ("MGET a b c", "[\"v\", \"text\", \"5\"]"),
                ("PTTL a", ":-1"),
                ("PTTL b", ":5000"),
                ("PTTL c", ":5000"),
                ("OBJECT ENCODING c", "\"int\""),
            ]);
        }
    }

    #[test]
    fn what_has_expired_replaces_nothing_but_removes() {
        let mut shell = Shell::over(2);
        shell.run("SET a old EX 100");
        let watched = shell.watch("a");
        let ok = |effects: &[&str]| ("+OK".to_owned(), effects.iter().map(|&e| e.to_owned()).collect());
        assert_eq!(
            restore(&mut shell, "a", "5", "v", &["ABSTTL", "REPLACE"]),
            ok(&["DEL a"])
        );
        assert!(watched.is_touched());
        assert_eq!(
            restore(&mut shell, "a", "5", "v", &["ABSTTL", "REPLACE"]),
            ok(&[])
        );
        assert_eq!(restore(&mut shell, "b", "5", "v", &["ABSTTL"]), ok(&[]));
        shell.check(&[("EXISTS a b", ":0")]);
        // A key that has expired is no reason for BUSYKEY, and leaves its expiry to nobody.
        shell.run("SET a old PX 1");
        shell.advance(10);
        let (reply, effects) = restore(&mut shell, "a", "0", "v", &[]);
        assert_eq!(
            (reply.as_str(), effects.last().map(String::as_str)),
            ("+OK", Some("RESTORE a 0 PAYLOAD"))
        );
        shell.check(&[("GET a", "\"v\""), ("TTL a", ":-1")]);
    }

    #[test]
    fn a_refused_payload_changes_nothing() {
        let mut shell = Shell::new();
        shell.run("SET a old");
        let good = payload_of("v");
        let mut bad = good.clone();
        bad[1] ^= 1;
        let answer = shell.run_words(&[b"RESTORE", b"a", b"0", &bad, b"REPLACE"]);
        assert_eq!(answer.reply, "-ERR DUMP payload version or checksum are wrong");
        assert!(answer.effects.is_empty());
        shell.check(&[("GET a", "\"old\"")]);
    }

    #[test]
    fn the_frequency_is_kept_where_the_policy_counts_it() {
        let mut shell = Shell::new();
        restore(&mut shell, "a", "0", "v", &["FREQ", "200"]);
        shell.check(&[("OBJECT IDLETIME a", ":0")]);
        shell.stamp.lfu = Some(lfu::LfuOptions::default());
        shell.stamp.clock = lfu::new_clock(START_MS);
        restore(&mut shell, "b", "0", "v", &["FREQ", "200"]);
        restore(&mut shell, "c", "0", "v", &["IDLETIME", "200"]);
        shell.check(&[("OBJECT FREQ b", ":200"), ("OBJECT FREQ c", ":5")]);
    }
}
