//! Streams: appending, reading ranges and deleting, and the parts that all commands on streams share.
//!
//! Trimming is in [`trim`], XREAD and XREADGROUP in [`read`], consumer groups in [`groups`], commands on pending
//! entries in [`acknowledge`] and [`claim`], XINFO in [`info`]. An empty stream stays under its key, so that no
//! handler here settles it. Rows first, then handlers in the order of the rows.

pub(crate) mod acknowledge;
pub(crate) mod claim;
pub(crate) mod groups;
pub(crate) mod info;
pub(crate) mod read;
pub(crate) mod trim;

use shardis_protocol::{Arguments, Encoder};
use shardis_storage::key::Key;
use shardis_storage::value::stream::{
    AppendError, ID_TEXT_MAX, Item, Log, Order, References, Sequence, Stream, StreamId, StreamLimits, Trimmed,
};
use smallvec::SmallVec;

use self::trim::{TrimRequest, reported};
use super::strings::bulk;
use crate::config::{KeyspaceEvents, Settings};
use crate::error::ReplyError;
use crate::exec::arguments::{int, is};
use crate::exec::{CommandResult, Context, Options};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "xadd",
        arity: Arity::AtLeast(5),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::STREAM,
        tips: &["nondeterministic_output"],
        keys: &[KeySpec::at(1)
            .read_write()
            .update()
            .notes("An update and no mere insertion, for it may trim.")],
        runs: Runs::OnKeys(xadd),
        doc: &Doc {
            since: "5.0.0",
            group: Group::Stream,
            complexity: "O(1) to append; O(N) when N entries are trimmed.",
            summary: "Appends an entry to a stream, which is created if need be.",
            history: &[
                ("6.2.0", "Options `NOMKSTREAM`, `MINID` and `LIMIT`."),
                ("7.0.0", "Ids of the form `<ms>-*`."),
                ("8.2.0", "Options `KEEPREF`, `DELREF` and `ACKED`."),
            ],
            args: &[
                Arg::key("key", 0),
                Arg::flag("nomkstream", "NOMKSTREAM").since("6.2.0").optional(),
                REFERENCES.since("8.2.0"),
                Arg::block("trim", trim::ARGS).optional(),
                Arg::one_of("id-selector", &[Arg::flag("auto-id", "*"), Arg::string("id")]),
                Arg::block("data", &[Arg::string("field"), Arg::string("value")]).multiple(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "xlen",
        arity: Arity::Exactly(2),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Category::STREAM,
        keys: &[KeySpec::at(1).read_only()],
        runs: Runs::OnKeys(xlen),
        doc: &Doc {
            since: "5.0.0",
            group: Group::Stream,
            complexity: "O(1)",
            summary: "Returns how many entries a stream has.",
            args: &[Arg::key("key", 0)],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "xrange",
        arity: Arity::AtLeast(4),
        flags: Flags::READONLY,
        acl: Category::STREAM,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(xrange),
        doc: &Doc {
            since: "5.0.0",
            group: Group::Stream,
            complexity: "O(N) for N entries returned.",
            summary: "Returns the entries between two ids.",
            history: &[("6.2.0", "Ids that are themselves excluded.")],
            args: &[
                Arg::key("key", 0),
                Arg::string("start"),
                Arg::string("end"),
                Arg::integer("count").token("COUNT").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "xrevrange",
        arity: Arity::AtLeast(4),
        flags: Flags::READONLY,
        acl: Category::STREAM,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(xrevrange),
        doc: &Doc {
            since: "5.0.0",
            group: Group::Stream,
            complexity: "O(N) for N entries returned.",
            summary: "Returns the entries between two ids, the last one first.",
            history: &[("6.2.0", "Ids that are themselves excluded.")],
            args: &[
                Arg::key("key", 0),
                Arg::string("end"),
                Arg::string("start"),
                Arg::integer("count").token("COUNT").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "xdel",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::STREAM,
        keys: &[KeySpec::at(1).read_write().delete()],
        runs: Runs::OnKeys(xdel),
        doc: &Doc {
            since: "5.0.0",
            group: Group::Stream,
            complexity: "O(1) for each entry, however long the stream.",
            summary: "Deletes entries, and returns how many there were to delete.",
            args: &[Arg::key("key", 0), Arg::string("id").multiple()],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "xsetid",
        arity: Arity::AtLeast(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Category::STREAM,
        keys: &[KeySpec::at(1).read_write().update()],
        runs: Runs::OnKeys(xsetid),
        doc: &Doc {
            since: "5.0.0",
            group: Group::Stream,
            complexity: "O(1)",
            summary: "Sets what a stream remembers of entries that it no longer has; for replicas.",
            history: &[("7.0.0", "Arguments `entries_added` and `max_deleted_entry_id`.")],
            args: &[
                Arg::key("key", 0),
                Arg::string("last-id"),
                Arg::integer("entries-added")
                    .token("ENTRIESADDED")
                    .since("7.0.0")
                    .optional(),
                Arg::string("max-deleted-id")
                    .token("MAXDELETEDID")
                    .since("7.0.0")
                    .optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// The argument that says what becomes of references to entries that go.
const REFERENCES: Arg = Arg::one_of(
    "condition",
    &[
        Arg::flag("keepref", "KEEPREF"),
        Arg::flag("delref", "DELREF"),
        Arg::flag("acked", "ACKED"),
    ],
)
.optional();

const INVALID_ID: ReplyError =
    ReplyError::Fixed("ERR Invalid stream ID specified as stream command argument");
const ID_NOT_ABOVE: ReplyError =
    ReplyError::Fixed("ERR The ID specified in XADD is equal or smaller than the target stream top item");

/// Ids of a request, few of which are listed without an allocation.
type Ids = SmallVec<[StreamId; 8]>;

// ----- reading arguments

/// Reads an id. A missing sequence is 0.
fn id(text: &[u8]) -> Result<StreamId, ReplyError> {
    StreamId::parse(text, 0).ok_or(INVALID_ID)
}

/// Reads the ids of a range of arguments.
fn ids(args: Arguments<'_>, range: std::ops::Range<usize>) -> Result<Ids, ReplyError> {
    range.map(|index| id(args.at(index))).collect()
}

/// Reads the lower end of an interval: an id, an excluded id, or `-` or `+` for the extremes.
fn start_of_interval(text: &[u8]) -> Result<StreamId, ReplyError> {
    let (id, excluded) = bound(text, 0)?;
    if !excluded {
        return Ok(id);
    }
    id.next()
        .ok_or(ReplyError::Fixed("ERR invalid start ID for the interval"))
}

/// Reads the upper end of an interval. A missing sequence is the last one.
fn end_of_interval(text: &[u8]) -> Result<StreamId, ReplyError> {
    let (id, excluded) = bound(text, u64::MAX)?;
    if !excluded {
        return Ok(id);
    }
    id.prev()
        .ok_or(ReplyError::Fixed("ERR invalid end ID for the interval"))
}

fn bound(text: &[u8], missing: u64) -> Result<(StreamId, bool), ReplyError> {
    let (text, excluded) = match text {
        b"-" => return Ok((StreamId::MIN, false)),
        b"+" => return Ok((StreamId::MAX, false)),
        [b'(', rest @ ..] if !rest.is_empty() => (rest, true),
        text => (text, false),
    };
    let id = StreamId::parse(text, missing).ok_or(INVALID_ID)?;
    Ok((id, excluded))
}

/// Limits of blocks, from the settings.
fn limits(settings: &Settings) -> StreamLimits {
    StreamLimits {
        block_bytes: usize::try_from(settings.stream_node_max_bytes).unwrap_or(usize::MAX),
        block_entries: settings.stream_node_max_entries,
    }
}

/// Part of a request's bytes that errors quote: up to the first NUL.
fn shown(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The error for a key or group that does not exist.
fn no_group(key: &[u8], group: &[u8], where_: &[u8]) -> ReplyError {
    let parts = [
        b"NOGROUP No such key '",
        shown(key),
        b"' or consumer group '",
        shown(group),
        b"'",
        where_,
    ];
    ReplyError::Bytes(parts.concat())
}

/// The treatment of references that a word names.
fn references_of(word: &[u8]) -> Option<References> {
    match word {
        word if is(word, "KEEPREF") => Some(References::Keep),
        word if is(word, "DELREF") => Some(References::Remove),
        word if is(word, "ACKED") => Some(References::Respect),
        _ => None,
    }
}

// ----- replying

/// Replies with an id.
#[inline]
fn reply_id(reply: &mut Encoder<'_>, id: StreamId) {
    reply.bulk(id.format(&mut [0; ID_TEXT_MAX]));
}

/// Replies with an entry.
#[inline]
fn reply_entry(reply: &mut Encoder<'_>, item: Item<'_>) {
    reply.array(2);
    reply_id_and_fields(reply, item);
}

/// Replies with the two elements of an entry, whose array header is already encoded.
#[inline]
fn reply_id_and_fields(reply: &mut Encoder<'_>, item: Item<'_>) {
    reply_id(reply, item.id);
    reply.array(2 * item.len());
    for (field, value) in item.fields() {
        bulk(reply, field);
        bulk(reply, value);
    }
}

/// Replies with at most `count` entries between two ids.
fn reply_range(
    reply: &mut Encoder<'_>,
    log: &Log,
    (from, to): (StreamId, StreamId),
    order: Order,
    count: usize,
) {
    let deferred = reply.deferred_array(count.min(log.len()));
    let mut len = 0;
    for item in log.range(from, to, order).take(count) {
        reply_entry(reply, item);
        len += 1;
    }
    reply.close(deferred, len);
}

// ----- XADD

/// The id for a new entry, as requested.
#[derive(Clone, Copy, Debug)]
enum NewId {
    /// The present time, and the next sequence number in it.
    Auto,
    /// This time, and the next sequence number in it.
    Within(u64),
    /// This id.
    Given(StreamId),
}

impl NewId {
    fn parse(text: &[u8]) -> Result<Self, ReplyError> {
        let (ms, seq) = StreamId::parse_parts(text).ok_or(INVALID_ID)?;
        match seq {
            Sequence::Next => Ok(Self::Within(ms)),
            Sequence::Missing => Ok(Self::Given(StreamId::new(ms, 0))),
            Sequence::Given(seq) => Ok(Self::Given(StreamId::new(ms, seq))),
        }
    }

    /// The id to use after `last`; `None` when there is no later one.
    #[inline]
    fn resolve(self, last: StreamId, now_ms: i64) -> Option<StreamId> {
        match self {
            // The clock may be set back, but ids always grow.
            Self::Auto => match StreamId::new(now_ms.max(0).unsigned_abs(), 0) {
                now if now.ms > last.ms => Some(now),
                _ => last.next(),
            },
            Self::Within(ms) if ms == last.ms => Some(StreamId::new(ms, last.seq.checked_add(1)?)),
            Self::Within(ms) => Some(StreamId::new(ms, 0)),
            Self::Given(id) => Some(id),
        }
    }
}

/// A request of XADD.
#[derive(Debug)]
struct AddRequest {
    only_known: bool,
    trim: Option<TrimRequest>,
    id: NewId,
    /// Index of the argument that is the id. Fields and values follow.
    id_at: usize,
}

impl AddRequest {
    #[inline]
    fn parse(ctx: &Context<'_>) -> Result<Self, ReplyError> {
        let args = ctx.args;
        let mut request = Self {
            only_known: false,
            trim: None,
            id: NewId::Auto,
            id_at: 2,
        };
        if args.at(2) != b"*" {
            request.parse_options(ctx)?;
        }
        let words = args.len().saturating_sub(request.id_at + 1);
        if words < 2 || !words.is_multiple_of(2) {
            return Err(ReplyError::arity("xadd"));
        }
        Ok(request)
    }

    fn parse_options(&mut self, ctx: &Context<'_>) -> CommandResult {
        let mut trim = trim::Parser::new(ctx.args);
        while let Some(word) = trim.next_unknown()? {
            if word == b"*" {
                break;
            }
            if is(word, "NOMKSTREAM") {
                self.only_known = true;
                trim.skip();
                continue;
            }
            self.id = NewId::parse(word)?;
            break;
        }
        self.id_at = trim.position();
        self.trim = trim.finish(ctx.settings, ctx.keyspace.stamp.is_of_repetition())?;
        Ok(())
    }
}

fn xadd(ctx: &mut Context<'_>) -> CommandResult {
    let request = AddRequest::parse(ctx)?;
    if matches!(request.id, NewId::Given(StreamId::MIN)) {
        return Err(ReplyError::Fixed(
            "ERR The ID specified in XADD must be greater than 0-0",
        ));
    }
    let (key, limits, now_ms) = (ctx.key(1), limits(ctx.settings), ctx.wall_ms());
    if request.only_known && ctx.keyspace.write_as::<Stream>(&key)?.is_none() {
        ctx.reply.null();
        return Ok(());
    }
    let words = ctx.args.tail(request.id_at + 1);
    let (stream, made) = ctx.keyspace.make::<Stream>(&key)?;
    let added = add(stream.log_mut(), request.id, words, &limits, now_ms);
    let id = match added {
        Ok(id) => id,
        Err(error) => {
            if made {
                ctx.keyspace.remove(&key, false);
            }
            return Err(error);
        }
    };
    let trimmed = request
        .trim
        .as_ref()
        .map(|request| stream.trim(request.trim, request.references));
    if ctx.effects.is_recording() {
        report_xadd(ctx, &key, &request, trimmed, id)?;
    }
    ctx.modified(&key);
    ctx.notify(KeyspaceEvents::STREAM, "xadd", &key);
    if trimmed.is_some_and(|trimmed| trimmed.count > 0) {
        ctx.notify(KeyspaceEvents::STREAM, "xtrim", &key);
    }
    reply_id(&mut ctx.reply, id);
    Ok(())
}

/// Appends an entry, and returns its id.
#[inline]
fn add(
    log: &mut Log,
    id: NewId,
    words: Arguments<'_>,
    limits: &StreamLimits,
    now_ms: i64,
) -> Result<StreamId, ReplyError> {
    if log.last_id() == StreamId::MAX {
        return Err(ReplyError::Fixed(
            "ERR The stream has exhausted the last possible ID, unable to add more items",
        ));
    }
    let id = id.resolve(log.last_id(), now_ms).ok_or(ID_NOT_ABOVE)?;
    log.append(id, words.iter(), limits)
        .map_err(|error| match error {
            AppendError::IdNotAbove => ID_NOT_ABOVE,
            AppendError::TooLarge => ReplyError::Fixed("ERR Elements are too large to be stored"),
        })?;
    Ok(id)
}

/// Reports the request with the id of the entry, and with the exact result of an approximate trim.
fn report_xadd(
    ctx: &mut Context<'_>,
    key: &Key<'_>,
    request: &AddRequest,
    trimmed: Option<Trimmed>,
    id: StreamId,
) -> CommandResult {
    let log = ctx.keyspace.found_as::<Stream>(key)?.map(Stream::log);
    let mut scratch = [0; ID_TEXT_MAX];
    let id = id.format(&mut scratch);
    let trim = request.trim.as_ref().filter(|request| request.trim.approximate);
    let trimmed = trim.zip(trimmed).zip(log);
    let mut words = reported(ctx.args, trimmed, request.id_at);
    words.push(id.to_vec());
    words.extend(ctx.args.tail(request.id_at + 1).iter().map(<[u8]>::to_vec));
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    ctx.effects.replace(&words);
    Ok(())
}

// ----- the others

fn xlen(ctx: &mut Context<'_>) -> CommandResult {
    let key = ctx.key(1);
    let len = ctx.keyspace.read_as::<Stream>(&key)?.map_or(0, Stream::len);
    ctx.reply.integer(len as i64);
    Ok(())
}

fn xrange(ctx: &mut Context<'_>) -> CommandResult {
    range(ctx, 2, 3, Order::Ascending)
}

fn xrevrange(ctx: &mut Context<'_>) -> CommandResult {
    range(ctx, 3, 2, Order::Descending)
}

/// Replies with the entries from the id at argument `from` up to that at argument `to`.
fn range(ctx: &mut Context<'_>, from: usize, to: usize, order: Order) -> CommandResult {
    let interval = (
        start_of_interval(ctx.args.at(from))?,
        end_of_interval(ctx.args.at(to))?,
    );
    let mut options = Options::new(ctx.args, 4);
    let mut count = usize::MAX;
    while let Some(word) = options.word() {
        if !is(word, "COUNT") {
            return Err(ReplyError::Syntax);
        }
        count = options.int()?.max(0).unsigned_abs() as usize;
    }
    let key = ctx.key(1);
    match ctx.keyspace.read_as::<Stream>(&key)? {
        None => ctx.reply.array(0),
        Some(_) if count == 0 => ctx.reply.null_array(),
        Some(stream) => reply_range(&mut ctx.reply, stream.log(), interval, order, count),
    }
    Ok(())
}

fn xdel(ctx: &mut Context<'_>) -> CommandResult {
    let (key, args) = (ctx.key(1), ctx.args);
    let Some(stream) = ctx.keyspace.write_as::<Stream>(&key)? else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let ids = ids(args, 2..args.len())?;
    let log = stream.log_mut();
    let deleted = ids.into_iter().filter(|&id| log.delete(id)).count() as u64;
    if deleted > 0 {
        ctx.changed(&key, deleted);
        ctx.notify(KeyspaceEvents::STREAM, "xdel", &key);
    }
    ctx.reply.integer(deleted.cast_signed());
    Ok(())
}

fn xsetid(ctx: &mut Context<'_>) -> CommandResult {
    let last = id(ctx.args.at(2))?;
    let (mut added, mut deleted) = (None, None);
    let mut options = Options::new(ctx.args, 3);
    while let Some(word) = options.word() {
        match word {
            word if is(word, "ENTRIESADDED") => {
                let count = u64::try_from(int(options.value()?)?);
                added = Some(count.map_err(|_| ReplyError::Fixed("ERR entries_added must be positive"))?);
            }
            word if is(word, "MAXDELETEDID") => {
                let id = id(options.value()?)?;
                if last < id {
                    return Err(ReplyError::Fixed(
                        "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                    ));
                }
                // 0-0 means the same as no id.
                deleted = (id != StreamId::MIN).then_some(id);
            }
            _ => return Err(ReplyError::Syntax),
        }
    }
    let key = ctx.key(1);
    let stream = ctx.keyspace.write_as::<Stream>(&key)?;
    let log = stream.ok_or(ReplyError::NoSuchKey)?.log_mut();
    if last < log.max_deleted_id() {
        return Err(ReplyError::Fixed(
            "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
        ));
    }
    check_last_id(log, last, added)?;
    log.set_last_id(last, added, deleted);
    ctx.effects.changed(1);
    ctx.notify(KeyspaceEvents::STREAM, "xsetid", &key);
    ctx.reply.ok();
    Ok(())
}

/// Checks that the figures do not contradict the content of the stream.
fn check_last_id(log: &Log, last: StreamId, added: Option<u64>) -> CommandResult {
    let Some(top) = log.last() else {
        return Ok(());
    };
    if last < top.id {
        return Err(ReplyError::Fixed(
            "ERR The ID specified in XSETID is smaller than the target stream top item",
        ));
    }
    if added.is_some_and(|added| added < log.len() as u64) {
        return Err(ReplyError::Fixed(
            "ERR The entries_added specified in XSETID is smaller than the target stream length",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::{START_MS, Shell};

    /// Twenty entries in blocks of so many, of which a group has read 18 and acknowledged every third one.
    fn partly_acknowledged(in_block: u64) -> Shell {
        let mut shell = Shell::new();
        shell.settings.stream_node_max_entries = in_block;
        for ms in 1..=20 {
            shell.run(&format!("XADD s {ms}-0 f v"));
        }
        shell.run("XGROUP CREATE s g 0");
        shell.run("XREADGROUP GROUP g c COUNT 18 STREAMS s >");
        for ms in (1..=18).step_by(3) {
            shell.run(&format!("XACK s g {ms}-0"));
        }
        shell
    }

    #[test]
    fn an_approximate_trim_is_repeated_to_the_same_end() {
        for (trim, effect) in [
            ("XTRIM s MAXLEN ~ 9 ACKED LIMIT 100", "XTRIM s MAXLEN = 14 ACKED"),
            ("XTRIM s ACKED MINID ~ 9", "XTRIM s ACKED MINID = 4-1"),
            (
                "XADD s MINID ~ 17 ACKED 30-0 f v",
                "XADD s MINID = 13-1 ACKED 30-0 f v",
            ),
            (
                "XTRIM s MINID ~ 21",
                "XTRIM s MINID = 18446744073709551615-18446744073709551615",
            ),
            ("XTRIM s MAXLEN ~ 0", "XTRIM s MAXLEN = 0"),
            (
                "XADD s MINID ~ 40 30-0 f v",
                "XADD s MINID = 18446744073709551615-18446744073709551615 30-0 f v",
            ),
        ] {
            let mut shell = partly_acknowledged(3);
            assert_eq!(shell.run(trim).effects, [effect]);
            // A replica may pack its entries in another way.
            let mut replica = partly_acknowledged(7);
            replica.run(effect);
            let all = "XRANGE s - +";
            assert_eq!(shell.run(all).reply, replica.run(all).reply, "{trim}");
        }
    }

    #[test]
    fn a_count_that_no_command_takes_is_unknown_to_replicas() {
        let mut shell = partly_acknowledged(3);
        shell.run("XGROUP SETID s g 18-0 ENTRIESREAD 9223372036854775807");
        let read = shell.run("XREADGROUP GROUP g c COUNT 1 NOACK STREAMS s >");
        assert_eq!(read.effects, ["XGROUP SETID s g 19-0 ENTRIESREAD -1"]);
    }

    #[test]
    fn the_clock_gives_ids_that_never_go_back() {
        let mut shell = Shell::new();
        let id = |ms: i64, seq: u64| format!("\"{}-{seq}\"", START_MS + ms);
        for (advance, expected) in [
            (0, id(0, 0)),
            (0, id(0, 1)),
            (5, id(5, 0)),
            (-3, id(5, 1)),
            (3, id(5, 2)),
        ] {
            shell.advance(advance);
            assert_eq!(shell.run("XADD s * a 1").reply, expected);
        }
        shell.check(&[
            (
                "XADD s 9999999999999-18446744073709551615 a 1",
                "\"9999999999999-18446744073709551615\"",
            ),
            ("XADD s * a 1", "\"10000000000000-0\""),
            ("XDEL s 10000000000000-0", ":1"),
            ("XADD s * a 1", "\"10000000000000-1\""),
        ]);
    }

    #[test]
    fn what_is_added_is_repeated_with_its_id() {
        for shards in [1, 3] {
            let mut shell = Shell::over(shards);
            let auto = format!("XADD s {START_MS}-0 a 1");
            let capped = format!("XADD s MAXLEN = 2 {START_MS}-1 a 1");
            let least = format!("XADD s MINID = {START_MS}-0 {START_MS}-2 a 1");
            shell.check_effects(&[
                ("XADD s * a 1", &format!("\"{START_MS}-0\""), &[&auto]),
                (
                    "XADD s MAXLEN ~ 100 LIMIT 7 * a 1",
                    &format!("\"{START_MS}-1\""),
                    &[&capped],
                ),
                (
                    "XADD s LIMIT 7 MINID ~ 5-5 * a 1",
                    &format!("\"{START_MS}-2\""),
                    &[&least],
                ),
                ("XADD none NOMKSTREAM * a 1", "nil", &[]),
                ("XADD t NOMKSTREAM 5-* a 1", "nil", &[]),
                ("XADD t 5-* a 1", "\"5-0\"", &["XADD t 5-0 a 1"]),
                ("XADD t MAXLEN 1 6-1 a 1", "\"6-1\"", &["XADD t MAXLEN 1 6-1 a 1"]),
                (
                    "XADD t 6-1 a 1",
                    "-ERR The ID specified in XADD is equal or smaller than the target stream top item",
                    &[],
                ),
                ("XDEL t 6-1 9-9", ":1", &["XDEL t 6-1 9-9"]),
                ("XDEL t 6-1", ":0", &[]),
                ("XSETID t 7-1", "+OK", &["XSETID t 7-1"]),
            ]);
        }
    }

    #[test]
    fn an_approximate_trim_is_repeated_as_what_it_did() {
        let mut shell = Shell::new();
        shell.settings.stream_node_max_entries = 2;
        for n in 1..=7 {
            shell.run(&format!("XADD s {n}-0 a 1"));
        }
        shell.check_effects(&[
            ("XTRIM s MAXLEN ~ 6", ":0", &[]),
            ("XTRIM s MAXLEN ~ 4", ":2", &["XTRIM s MAXLEN = 5"]),
            ("XTRIM s MINID ~ 6", ":2", &["XTRIM s MINID = 5-0"]),
            ("XTRIM s MAXLEN ~ 0 LIMIT 2", ":2", &["XTRIM s MAXLEN = 1"]),
            ("XTRIM s MAXLEN 0", ":1", &["XTRIM s MAXLEN 0"]),
            ("XLEN s", ":0", &[]),
        ]);
    }

    #[test]
    fn what_is_delivered_is_repeated_as_claims() {
        for shards in [1, 3] {
            let mut shell = Shell::over(shards);
            let claim = |by: &str, id: &str, count: u64, last: &str| {
                format!(
                    "XCLAIM s g {by} 0 {id} TIME {START_MS} RETRYCOUNT {count} FORCE JUSTID LASTID {last}"
                )
            };
            for line in [
                "XADD s 1-0 a 1",
                "XADD s 2-0 a 1",
                "XADD s 3-0 a 1",
                "XGROUP CREATE s g 0",
            ] {
                shell.run(line);
            }
            shell.check_effects(&[
                (
                    "XREADGROUP GROUP g c COUNT 1 STREAMS s >",
                    "[[\"s\", [[\"1-0\", [\"a\", \"1\"]]]]]",
                    &[
                        "XGROUP CREATECONSUMER s g c",
                        &claim("c", "1-0", 1, "1-0"),
                        "XGROUP SETID s g 1-0 ENTRIESREAD 1",
                    ],
                ),
                (
                    "XREADGROUP GROUP g c STREAMS s 0",
                    "[[\"s\", [[\"1-0\", [\"a\", \"1\"]]]]]",
                    &[],
                ),
                (
                    "XREADGROUP GROUP g c NOACK COUNT 1 STREAMS s >",
                    "[[\"s\", [[\"2-0\", [\"a\", \"1\"]]]]]",
                    &["XGROUP SETID s g 2-0 ENTRIESREAD 2"],
                ),
                (
                    "XCLAIM s g d 0 1-0",
                    "[[\"1-0\", [\"a\", \"1\"]]]",
                    &["XGROUP CREATECONSUMER s g d", &claim("d", "1-0", 3, "2-0")],
                ),
                (
                    "XCLAIM s g d 0 9-0 LASTID 3-0",
                    "[]",
                    &["XGROUP SETID s g 3-0 ENTRIESREAD 2"],
                ),
                (
                    "XAUTOCLAIM s g c 0 0 JUSTID",
                    "[\"0-0\", [\"1-0\"], []]",
                    &[&claim("c", "1-0", 3, "3-0")],
                ),
                ("XDEL s 1-0", ":1", &["XDEL s 1-0"]),
                (
                    "XAUTOCLAIM s g d 0 0",
                    "[\"0-0\", [], [\"1-0\"]]",
                    &[&claim("d", "1-0", 3, "3-0")],
                ),
                ("XPENDING s g", "[:0, nil, nil, nil*]", &[]),
                ("XREADGROUP GROUP g c STREAMS s >", "nil*", &[]),
            ]);
        }
    }

    #[test]
    fn what_a_claim_repeats_has_its_effect_on_a_replica() {
        let (mut primary, mut replica) = (Shell::new(), Shell::new());
        let lines = [
            "XADD s 1-0 a 1",
            "XADD s 2-0 a 1",
            "XADD s 3-0 a 1",
            "XGROUP CREATE s g 0",
            "XREADGROUP GROUP g c COUNT 2 STREAMS s >",
            "XREADGROUP GROUP g d CLAIM 0 STREAMS s >",
            "XDEL s 2-0",
            "XAUTOCLAIM s g c 0 2",
            "XACKDEL s g DELREF IDS 1 1-0",
            "XDELEX s ACKED IDS 2 1-0 3-0",
        ];
        for line in lines {
            for effect in primary.run(line).effects {
                replica.run(&effect);
            }
        }
        for line in ["XINFO STREAM s FULL", "XINFO GROUPS s", "XPENDING s g - + 10"] {
            assert_eq!(primary.run(line).reply, replica.run(line).reply, "{line}");
        }
    }

    #[test]
    fn waiting_is_not_for_transactions() {
        let mut shell = Shell::new().resp3();
        shell.check(&[
            ("XREAD BLOCK 0 STREAMS s $", "nil"),
            ("XREAD BLOCK 0 STREAMS s t $ +", "nil"),
            ("XGROUP CREATE s g $ MKSTREAM", "+OK"),
            ("XREADGROUP GROUP g c BLOCK 0 STREAMS s >", "nil"),
        ]);
    }
}
