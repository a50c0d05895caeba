//! Pending entries: XPENDING lists them, XCLAIM and XAUTOCLAIM transfer them to another consumer.
//!
//! The effect of a transfer is an XCLAIM with all its options given; so is the effect when an entry is no longer
//! pending because it was deleted.

use shardis_protocol::{Arguments, Encoder};
use shardis_storage::value::stream::{ConsumerId, Group as ConsumerGroup, Log, Pending, Stream, StreamId};
use smallvec::SmallVec;

use super::groups::{report_consumer, report_last_id};
use super::read::report_pending;
use super::{Ids, end_of_interval, id, no_group, reply_entry, reply_id, shown, start_of_interval};
use crate::config::KeyspaceEvents;
use crate::error::ReplyError;
use crate::exec::arguments::{int, is};
use crate::exec::effect::Effects;
use crate::exec::{CommandResult, Context, Options};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "xpending",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Category::STREAM,
        tips: &["nondeterministic_output"],
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(xpending),
        doc: &Doc {
            since: "5.0.0",
            group: Group::Stream,
            complexity: "O(N) for N entries returned or, with IDLE, looked at; the summary O(N) for N consumers.",
            summary: "Tells what is pending in a group: in sum, or entry by entry.",
            history: &[("6.2.0", "Option `IDLE`, and ids that are themselves excluded.")],
            args: &[
                Arg::key("key", 0),
                Arg::string("group"),
                Arg::block(
                    "filters",
                    &[
                        Arg::integer("min-idle-time")
                            .token("IDLE")
                            .since("6.2.0")
                            .optional(),
                        Arg::string("start"),
                        Arg::string("end"),
                        Arg::integer("count"),
                        Arg::string("consumer").optional(),
                    ],
                )
                .optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "xclaim",
        arity: Arity::AtLeast(6),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::STREAM,
        tips: &["nondeterministic_output"],
        keys: &[KeySpec::at(1).read_write().update()],
        runs: Runs::OnKeys(xclaim),
        doc: &Doc {
            since: "5.0.0",
            group: Group::Stream,
            complexity: "O(log(N)) for each entry, with N of them pending.",
            summary: "Makes a consumer take over entries that are pending with another.",
            args: &[
                Arg::key("key", 0),
                Arg::string("group"),
                Arg::string("consumer"),
                Arg::string("min-idle-time"),
                Arg::string("id").multiple(),
                Arg::integer("ms").token("IDLE").optional(),
                Arg::unix_time("unix-time-milliseconds").token("TIME").optional(),
                Arg::integer("count").token("RETRYCOUNT").optional(),
                Arg::flag("force", "FORCE").optional(),
                Arg::flag("justid", "JUSTID").optional(),
                Arg::string("lastid").token("LASTID").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "xautoclaim",
        arity: Arity::AtLeast(6),
        flags: Flags::WRITE.union(Flags::FAST),
        acl: Category::STREAM,
        tips: &["nondeterministic_output"],
        keys: &[KeySpec::at(1).read_write().delete()],
        runs: Runs::OnKeys(xautoclaim),
        doc: &Doc {
            since: "6.2.0",
            group: Group::Stream,
            complexity: "O(log(N)) for each entry looked at, with N of them pending.",
            summary: "Makes a consumer take over what has been pending with others for some time, a part at a time.",
            history: &[(
                "7.0.0",
                "A third element of the reply: entries that were deleted and are pending no more.",
            )],
            args: &[
                Arg::key("key", 0),
                Arg::string("group"),
                Arg::string("consumer"),
                Arg::string("min-idle-time"),
                Arg::string("start"),
                Arg::integer("count").token("COUNT").optional(),
                Arg::flag("justid", "JUSTID").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// Default number of entries that XAUTOCLAIM transfers.
const COUNT_DEFAULT: i64 = 100;
/// Number of pending entries that XAUTOCLAIM visits for each entry it may transfer.
const ATTEMPTS_FACTOR: usize = 10;
/// The largest number of entries that XAUTOCLAIM accepts.
const COUNT_MAX: i64 = i64::MAX / 16;

/// Age of a delivery at `now_ms`, in milliseconds.
fn idle_ms(pending: &Pending, now_ms: i64) -> i64 {
    now_ms.saturating_sub(pending.delivered_ms).max(0)
}

// ----- XPENDING

/// Filter of the pending entries to list.
#[derive(Debug)]
struct Filter<'a> {
    from: StreamId,
    to: StreamId,
    count: usize,
    min_idle_ms: i64,
    consumer: Option<&'a [u8]>,
}

impl<'a> Filter<'a> {
    /// Reads a filter; none if the request ends with the group.
    fn parse(args: Arguments<'a>) -> Result<Option<Self>, ReplyError> {
        if args.len() == 3 {
            return Ok(None);
        }
        if !(6..=9).contains(&args.len()) {
            return Err(ReplyError::Syntax);
        }
        let (mut first, mut min_idle_ms) = (3, 0);
        if is(args.at(3), "IDLE") {
            min_idle_ms = int(args.at(4))?;
            if args.len() < 8 {
                return Err(ReplyError::Syntax);
            }
            first = 5;
        }
        let count = int(args.at(first + 2))?;
        Ok(Some(Self {
            from: start_of_interval(args.at(first))?,
            to: end_of_interval(args.at(first + 1))?,
            count: count.max(0).unsigned_abs() as usize,
            min_idle_ms,
            consumer: args.get(first + 3),
        }))
    }
}

fn xpending(ctx: &mut Context<'_>) -> CommandResult {
    let filter = Filter::parse(ctx.args)?;
    let (key, name, now_ms) = (ctx.key(1), ctx.args.at(2), ctx.wall_ms());
    let stream = ctx.keyspace.read_as::<Stream>(&key)?;
    let group = stream
        .and_then(|stream| stream.group(name))
        .ok_or_else(|| no_group(key.bytes, name, b""))?;
    let Some(filter) = filter else {
        reply_summary(&mut ctx.reply, group);
        return Ok(());
    };
    let deferred = ctx.reply.deferred_array(0);
    let mut len = 0;
    let mut show = |pending: &Pending| {
        let idle_ms = idle_ms(pending, now_ms);
        if len == filter.count || pending.id > filter.to {
            return false;
        }
        if filter.min_idle_ms > 0 && idle_ms < filter.min_idle_ms {
            return true;
        }
        let consumer = group.consumer(pending.consumer);
        ctx.reply.array(4);
        reply_id(&mut ctx.reply, pending.id);
        ctx.reply.bulk(consumer.map_or(&[][..], |known| known.name()));
        ctx.reply.integer(idle_ms);
        ctx.reply.integer(pending.deliveries.cast_signed());
        len += 1;
        true
    };
    match filter.consumer.map(|name| group.find_consumer(name)) {
        None => drop(group.pending_from(filter.from).all(show)),
        Some(Some(consumer)) => {
            if let Some(known) = group.consumer(consumer) {
                let pending = |id| group.pending(id);
                known.pending_from(filter.from).filter_map(pending).all(&mut show);
            }
        }
        Some(None) => {}
    }
    ctx.reply.close(deferred, len);
    Ok(())
}

fn reply_summary(reply: &mut Encoder<'_>, group: &ConsumerGroup) {
    reply.array(4);
    reply.integer(group.pending_len() as i64);
    let Some((first, last)) = group.pending_ends() else {
        reply.null();
        reply.null();
        reply.null_array();
        return;
    };
    reply_id(reply, first);
    reply_id(reply, last);
    let busy = || {
        let consumers = group.consumers().map(|(_, consumer)| consumer);
        consumers.filter(|consumer| consumer.pending_len() > 0)
    };
    reply.array(busy().count());
    for consumer in busy() {
        reply.array(2);
        reply.bulk(consumer.name());
        // A bulk string, for historical reasons.
        reply.bulk_integer(consumer.pending_len() as i64);
    }
}

// ----- XCLAIM

/// A request of XCLAIM.
#[derive(Debug)]
struct ClaimRequest {
    min_idle_ms: i64,
    ids: Ids,
    /// Time of the delivery to note, Unix milliseconds.
    delivered_ms: i64,
    retry_count: Option<u64>,
    /// Entries that are not pending are claimed, too.
    force: bool,
    just_id: bool,
    last_id: StreamId,
}

impl ClaimRequest {
    fn parse(args: Arguments<'_>, now_ms: i64) -> Result<Self, ReplyError> {
        let min_idle_ms = int(args.at(4))
            .map_err(|_| ReplyError::Fixed("ERR Invalid min-idle-time argument for XCLAIM"))?;
        let ids: Ids = args
            .tail(5)
            .iter()
            .map_while(|text| StreamId::parse(text, 0))
            .collect();
        let mut options = Options::new(args, 5 + ids.len());
        let mut request = Self {
            min_idle_ms,
            ids,
            delivered_ms: now_ms,
            retry_count: None,
            force: false,
            just_id: false,
            last_id: StreamId::MIN,
        };
        while let Some(word) = options.word() {
            request.option(word, &mut options, now_ms)?;
        }
        Ok(request)
    }

    fn option(&mut self, word: &[u8], options: &mut Options<'_>, now_ms: i64) -> CommandResult {
        let unknown = || ReplyError::Bytes([b"ERR Unrecognized XCLAIM option '", shown(word), b"'"].concat());
        // A time out of range counts as now: clients compute it with clocks of their own.
        let sane = |ms: i64| if (0..=now_ms).contains(&ms) { ms } else { now_ms };
        match word {
            word if is(word, "FORCE") => self.force = true,
            word if is(word, "JUSTID") => self.just_id = true,
            word if is(word, "IDLE") => {
                let idle_ms = int(options.word().ok_or_else(unknown)?)
                    .map_err(|_| ReplyError::Fixed("ERR Invalid IDLE option argument for XCLAIM"))?;
                self.delivered_ms = sane(now_ms.saturating_sub(idle_ms));
            }
            word if is(word, "TIME") => {
                let ms = int(options.word().ok_or_else(unknown)?)
                    .map_err(|_| ReplyError::Fixed("ERR Invalid TIME option argument for XCLAIM"))?;
                self.delivered_ms = sane(ms);
            }
            word if is(word, "RETRYCOUNT") => {
                let count = int(options.word().ok_or_else(unknown)?)
                    .map_err(|_| ReplyError::Fixed("ERR Invalid RETRYCOUNT option argument for XCLAIM"))?;
                self.retry_count = u64::try_from(count).ok();
            }
            word if is(word, "LASTID") => self.last_id = id(options.word().ok_or_else(unknown)?)?,
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// New state of an entry that is claimed; `None` when it is not to be claimed.
    fn claim(&self, old: Option<Pending>, new: Pending, now_ms: i64) -> Option<Pending> {
        if old.is_none() && !self.force {
            return None;
        }
        // An entry that was not pending counts as delivered once, because it is forced upon the consumer.
        let (idle_ms, deliveries) = old.map_or((i64::MAX, 1), |old| {
            (now_ms.saturating_sub(old.delivered_ms), old.deliveries)
        });
        if self.min_idle_ms > 0 && idle_ms < self.min_idle_ms {
            return None;
        }
        let increment = u64::from(!self.just_id);
        Some(Pending {
            delivered_ms: self.delivered_ms,
            deliveries: self
                .retry_count
                .unwrap_or_else(|| deliveries.saturating_add(increment)),
            ..new
        })
    }
}

fn xclaim(ctx: &mut Context<'_>) -> CommandResult {
    let (key, args, now_ms) = (ctx.key(1), ctx.args, ctx.wall_ms());
    let (name, by) = (args.at(2), args.at(3));
    let stream = ctx.keyspace.read_to_change::<Stream>(&key)?;
    let (log, group) = stream
        .and_then(|stream| stream.group_mut(name))
        .ok_or_else(|| no_group(key.bytes, name, b""))?;
    let request = ClaimRequest::parse(args, now_ms)?;
    let mut moves_on = request.last_id > group.last_id;
    if moves_on {
        group.last_id = request.last_id;
    }
    let mut claims = Claims::begin(ctx.effects, log, group, key.bytes, by, now_ms);
    let deferred = ctx.reply.deferred_array(request.ids.len());
    let mut len = 0;
    for &id in &request.ids {
        let old = claims.group.pending(id).copied();
        if claims.log.get(id).is_none() {
            if let Some(old) = old {
                claims.forget(old);
                moves_on = false;
            }
            continue;
        }
        if let Some(new) = request.claim(old, claims.new_pending(id), now_ms) {
            claims.take(&mut ctx.reply, new, request.just_id);
            len += 1;
            moves_on = false;
        }
    }
    ctx.reply.close(deferred, len);
    let made = claims.made;
    if moves_on {
        report_last_id(claims.effects, key.bytes, claims.group);
    }
    if made {
        ctx.notify(KeyspaceEvents::STREAM, "xgroup-createconsumer", &key);
    }
    Ok(())
}

/// A transfer of entries to a consumer.
struct Claims<'c> {
    effects: &'c mut Effects,
    log: &'c Log,
    group: &'c mut ConsumerGroup,
    key: &'c [u8],
    /// The name of the consumer.
    by: &'c [u8],
    consumer: ConsumerId,
    /// The consumer was created by this command.
    made: bool,
    now_ms: i64,
}

impl<'c> Claims<'c> {
    /// Begins a transfer; creates the consumer if it does not exist.
    fn begin(
        effects: &'c mut Effects,
        log: &'c Log,
        group: &'c mut ConsumerGroup,
        key: &'c [u8],
        by: &'c [u8],
        now_ms: i64,
    ) -> Self {
        let (consumer, made) = group.make_consumer(by, now_ms);
        if let Some(known) = group.consumer_mut(consumer) {
            known.seen_ms = now_ms;
        }
        if made {
            report_consumer(effects, key, group.name(), by);
        }
        Self {
            effects,
            log,
            group,
            key,
            by,
            consumer,
            made,
            now_ms,
        }
    }

    /// State of an entry if it was delivered for the first time now.
    fn new_pending(&self, id: StreamId) -> Pending {
        Pending {
            id,
            delivered_ms: self.now_ms,
            deliveries: 1,
            consumer: self.consumer,
        }
    }

    /// Removes a deleted entry from the pending ones.
    fn forget(&mut self, old: Pending) {
        self.group.acknowledge(old.id);
        self.effects.changed(1);
        report_pending(self.effects, self.key, self.group, self.by, &old);
    }

    /// Transfers an entry, and replies with it.
    fn take(&mut self, reply: &mut Encoder<'_>, new: Pending, just_id: bool) {
        self.group.assign(new);
        if let Some(known) = self.group.consumer_mut(self.consumer) {
            known.active_ms = Some(self.now_ms);
        }
        match self.log.get(new.id) {
            Some(item) if !just_id => reply_entry(reply, item),
            _ => reply_id(reply, new.id),
        }
        self.effects.changed(1);
        report_pending(self.effects, self.key, self.group, self.by, &new);
    }
}

// ----- XAUTOCLAIM

fn xautoclaim(ctx: &mut Context<'_>) -> CommandResult {
    let (key, args, now_ms) = (ctx.key(1), ctx.args, ctx.wall_ms());
    let (name, by) = (args.at(2), args.at(3));
    let min_idle_ms = int(args.at(4))
        .map_err(|_| ReplyError::Fixed("ERR Invalid min-idle-time argument for XAUTOCLAIM"))?;
    let start = start_of_interval(args.at(5))?;
    let (mut count, mut just_id) = (COUNT_DEFAULT, false);
    let mut options = Options::new(args, 6);
    while let Some(word) = options.word() {
        match word {
            word if is(word, "COUNT") => {
                count = int(options.value()?)
                    .ok()
                    .filter(|count| (1..=COUNT_MAX).contains(count))
                    .ok_or(ReplyError::Fixed("ERR COUNT must be > 0"))?;
            }
            word if is(word, "JUSTID") => just_id = true,
            _ => return Err(ReplyError::Syntax),
        }
    }
    let stream = ctx.keyspace.read_to_change::<Stream>(&key)?;
    let (log, group) = stream
        .and_then(|stream| stream.group_mut(name))
        .ok_or_else(|| no_group(key.bytes, name, b""))?;
    let mut claims = Claims::begin(ctx.effects, log, group, key.bytes, by, now_ms);
    let scan = Scan {
        min_idle_ms,
        just_id,
        count: count as usize,
    };
    scan.run(&mut ctx.reply, &mut claims, start);
    if claims.made {
        ctx.notify(KeyspaceEvents::STREAM, "xgroup-createconsumer", &key);
    }
    Ok(())
}

/// One step of a walk through the pending entries.
#[derive(Debug)]
struct Scan {
    min_idle_ms: i64,
    just_id: bool,
    /// The most entries to reply with.
    count: usize,
}

impl Scan {
    /// Transfers entries that have been idle long enough, from `start` on. Replies with the id to continue from, the
    /// transferred entries, and the deleted entries that are no longer pending.
    fn run(&self, reply: &mut Encoder<'_>, claims: &mut Claims<'_>, start: StreamId) {
        // The id to continue from comes first in the reply, but is known only at the end.
        let mut taken: SmallVec<[Pending; 8]> = SmallVec::new();
        let mut deleted: SmallVec<[Pending; 8]> = SmallVec::new();
        let mut attempts = self.count.saturating_mul(ATTEMPTS_FACTOR);
        let mut seen = claims.group.pending_from(start);
        let mut next = seen.next().copied();
        while let Some(pending) = next
            && attempts > 0
            && taken.len() + deleted.len() < self.count
        {
            attempts -= 1;
            next = seen.next().copied();
            if claims.log.get(pending.id).is_none() {
                deleted.push(pending);
            } else if self.min_idle_ms <= 0
                || claims.now_ms.saturating_sub(pending.delivered_ms) >= self.min_idle_ms
            {
                taken.push(pending);
            }
        }
        drop(seen);
        reply.array(3);
        reply_id(reply, next.map_or(StreamId::MIN, |pending| pending.id));
        reply.array(taken.len());
        for old in taken {
            let new = Pending {
                deliveries: old.deliveries.saturating_add(u64::from(!self.just_id)),
                ..claims.new_pending(old.id)
            };
            claims.take(reply, new, self.just_id);
        }
        reply.array(deleted.len());
        for old in deleted {
            claims.forget(old);
            reply_id(reply, old.id);
        }
    }
}
