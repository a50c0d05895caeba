//! XREAD and XREADGROUP: new entries of several streams, for anybody or for a consumer of a group.
//!
//! Reading for a group changes the group. The effect of a delivery is an XCLAIM for each entry and an XGROUP SETID
//! for the group's last id. Everything that can fail is checked before anything changes.

use std::ops::Range;

use shardis_protocol::{Arguments, Deferred, Encoder, Resp};
use shardis_storage::key::Key;
use shardis_storage::value::Kind;
use shardis_storage::value::stream::{
    ConsumerId, Group as ConsumerGroup, ID_TEXT_MAX, Item, Log, Order, Pending, Stream, StreamId,
};

use super::groups::{report_consumer, report_last_id};
use super::{id, no_group, reply_entry, reply_id, reply_id_and_fields};
use crate::config::KeyspaceEvents;
use crate::error::ReplyError;
use crate::exec::arguments::{int, is};
use crate::exec::effect::Effects;
use crate::exec::request::OwnedRequest;
use crate::exec::waiter::Wish;
use crate::exec::{Awaited, CommandResult, Context};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

const STREAMS: Arg = Arg::block(
    "streams",
    &[Arg::key("key", 0).multiple(), Arg::string("id").multiple()],
)
.token("STREAMS");

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "xread",
        arity: Arity::AtLeast(4),
        flags: Flags::READONLY.union(Flags::BLOCKING),
        acl: Category::STREAM,
        keys: &[KeySpec::after("STREAMS", 1).range(-1, 1, 2).read_only().access()],
        runs: Runs::Blocking(xread),
        doc: &Doc {
            since: "5.0.0",
            group: Group::Stream,
            complexity: "O(N) for N entries returned.",
            summary: "Returns the entries of several streams that come behind given ids; can wait for one.",
            args: &[
                Arg::integer("count").token("COUNT").optional(),
                Arg::integer("milliseconds").token("BLOCK").optional(),
                STREAMS,
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "xreadgroup",
        arity: Arity::AtLeast(7),
        flags: Flags::WRITE.union(Flags::BLOCKING),
        acl: Category::STREAM,
        keys: &[KeySpec::after("STREAMS", 4).range(-1, 1, 2).read_only().access()],
        runs: Runs::Blocking(xreadgroup),
        doc: &Doc {
            since: "5.0.0",
            group: Group::Stream,
            complexity: "O(N) for N entries returned, or looked at to find out which were idle.",
            summary: "Delivers entries of several streams to a consumer of a group: new ones, or its pending ones again; can wait for one.",
            args: &[
                Arg::block("group-block", &[Arg::string("group"), Arg::string("consumer")]).token("GROUP"),
                Arg::integer("count").token("COUNT").optional(),
                Arg::integer("milliseconds").token("BLOCK").optional(),
                Arg::flag("noack", "NOACK").optional(),
                STREAMS,
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// A request of XREAD or XREADGROUP.
#[derive(Debug)]
struct ReadRequest<'a> {
    /// The most entries of each stream.
    count: usize,
    /// Timeout of the wait, milliseconds; 0 for no timeout, `None` for no wait.
    block_ms: Option<i64>,
    /// The group, and the consumer in it.
    group: Option<(&'a [u8], &'a [u8])>,
    /// Delivered entries need no acknowledgement.
    no_ack: bool,
    /// Pending entries whose last delivery is at least so many milliseconds ago are delivered first.
    claim_idle_ms: Option<i64>,
    /// Indexes of the arguments that are keys. As many ids follow.
    keys: Range<usize>,
}

impl<'a> ReadRequest<'a> {
    fn parse(args: Arguments<'a>, of_group: bool) -> Result<Self, ReplyError> {
        let mut request = Self {
            count: usize::MAX,
            block_ms: None,
            group: None,
            no_ack: false,
            claim_idle_ms: None,
            keys: 0..0,
        };
        let mut at = 1;
        while request.keys.is_empty() {
            let word = args.get(at).ok_or(ReplyError::Syntax)?;
            at += request.option(args, at, word, of_group)?;
        }
        if of_group && request.group.is_none() {
            return Err(ReplyError::Fixed("ERR Missing GROUP option for XREADGROUP"));
        }
        Ok(request)
    }

    /// Reads the option at an argument; returns the number of arguments it takes.
    fn option(
        &mut self,
        args: Arguments<'a>,
        at: usize,
        word: &[u8],
        of_group: bool,
    ) -> Result<usize, ReplyError> {
        match (word, args.get(at + 1), args.get(at + 2)) {
            (word, Some(value), _) if is(word, "BLOCK") => self.block_ms = Some(timeout(value)?),
            (word, Some(value), _) if is(word, "COUNT") => {
                self.count = match int(value)? {
                    ..=0 => usize::MAX,
                    count => count as usize,
                };
            }
            (word, Some(_), _) if is(word, "STREAMS") => {
                let words = args.len() - at - 1;
                if !words.is_multiple_of(2) {
                    return Err(ReplyError::Fixed(if of_group {
                        "ERR Unbalanced 'xreadgroup' list of streams: for each stream key an ID or '>' must be specified."
                    } else {
                        "ERR Unbalanced 'xread' list of streams: for each stream key an ID or '$' must be specified."
                    }));
                }
                self.keys = at + 1..at + 1 + words / 2;
            }
            (word, Some(group), Some(consumer)) if is(word, "GROUP") => {
                if !of_group {
                    return Err(ReplyError::Fixed(
                        "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                self.group = Some((group, consumer));
                return Ok(3);
            }
            (word, ..) if is(word, "NOACK") => {
                if !of_group {
                    return Err(ReplyError::Fixed(
                        "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                self.no_ack = true;
                return Ok(1);
            }
            (word, Some(value), _) if of_group && is(word, "CLAIM") => {
                let idle_ms = int(value)
                    .ok()
                    .filter(|idle_ms| *idle_ms >= 0)
                    .ok_or(ReplyError::Fixed("ERR min-idle-time must be a positive integer"))?;
                self.claim_idle_ms = Some(idle_ms);
            }
            _ => return Err(ReplyError::Syntax),
        }
        Ok(2)
    }

    /// Index of the id for the key at an argument.
    fn id_at(&self, key: usize) -> usize {
        key + self.keys.len()
    }

    /// Waits for one of the streams. False when the request does not ask for that or must not wait.
    fn wait(&self, ctx: &Context<'_>, request: Option<OwnedRequest>) -> bool {
        let Some(block_ms) = self.block_ms else {
            return false;
        };
        ctx.wait(Wish {
            keys: self.keys.clone(),
            kind: Kind::Stream,
            minds_removal: self.group.is_some(),
            awaited: Awaited::Nothing,
            deadline_ms: (block_ms > 0).then(|| ctx.wall_ms().saturating_add(block_ms)),
            request,
        })
    }
}

/// Reads a timeout in milliseconds.
fn timeout(text: &[u8]) -> Result<i64, ReplyError> {
    match int(text) {
        Err(_) => Err(ReplyError::Fixed("ERR timeout is not an integer or out of range")),
        Ok(..0) => Err(ReplyError::Fixed("ERR timeout is negative")),
        Ok(ms) => Ok(ms),
    }
}

/// A reply made of streams with their entries; it is null if there are none.
#[derive(Debug, Default)]
struct Streams {
    deferred: Option<Deferred>,
    len: usize,
}

impl Streams {
    /// Begins a stream: its entries are encoded next.
    fn begin(&mut self, reply: &mut Encoder<'_>, key: &[u8], expected: usize) {
        let nested = reply.resp() == Resp::V2;
        if self.deferred.is_none() {
            let deferred = if nested {
                reply.deferred_array(expected)
            } else {
                reply.deferred_map(expected)
            };
            self.deferred = Some(deferred);
        }
        if nested {
            reply.array(2);
        }
        reply.bulk(key);
        self.len += 1;
    }

    /// Ends the reply; false when there was no stream.
    fn end(self, reply: &mut Encoder<'_>) -> bool {
        if let Some(deferred) = self.deferred {
            reply.close(deferred, self.len);
        }
        self.len > 0
    }
}

// ----- XREAD

fn xread(ctx: &mut Context<'_>) -> CommandResult {
    let request = ReadRequest::parse(ctx.args, false)?;
    let mut streams = Streams::default();
    // As in Redis, everything is checked before anything is read: each key is therefore looked up twice, and counts
    // twice as a hit or miss.
    for index in request.keys.clone() {
        if !ctx.is_at_hand(index)? {
            continue;
        }
        let key = ctx.key(index);
        ctx.keyspace.read_as::<Stream>(&key)?;
        check_id(ctx.args.at(request.id_at(index)))?;
    }
    for index in request.keys.clone() {
        if !ctx.is_at_hand(index)? {
            continue;
        }
        let (key, after) = (ctx.key(index), ctx.args.at(request.id_at(index)));
        let Some(stream) = ctx.keyspace.read_as::<Stream>(&key)? else {
            continue;
        };
        let log = stream.log();
        let from = first_to_read(log, after)?;
        let Some(from) = from.filter(|&from| log.last().is_some_and(|last| last.id >= from)) else {
            continue;
        };
        if !ctx.waiting.claim() {
            return Ok(());
        }
        streams.begin(&mut ctx.reply, key.bytes, request.keys.len());
        super::reply_range(
            &mut ctx.reply,
            log,
            (from, StreamId::MAX),
            Order::Ascending,
            request.count,
        );
    }
    if streams.end(&mut ctx.reply) {
        return Ok(());
    }
    let waits = request.block_ms.is_some() && {
        let resolved = with_ids_resolved(ctx, &request)?;
        request.wait(ctx, resolved)
    };
    if !waits {
        ctx.reply.null_array();
    }
    Ok(())
}

/// Checks that XREAD can read from an id.
fn check_id(text: &[u8]) -> CommandResult {
    match text {
        b"$" | b"+" => Ok(()),
        b">" => Err(ReplyError::Fixed(
            "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
        )),
        text => id(text).map(drop),
    }
}

/// The first id after the known id `after`. `None` when there is no later one.
fn first_to_read(log: &Log, after: &[u8]) -> Result<Option<StreamId>, ReplyError> {
    Ok(match after {
        b"$" => log.last_id().next(),
        b"+" => log.last().map(|last| last.id),
        text => id(text)?.next(),
    })
}

/// The request with `$` and `+` replaced by the ids that they mean now: the one to run when there are new entries.
fn with_ids_resolved(
    ctx: &mut Context<'_>,
    request: &ReadRequest<'_>,
) -> Result<Option<OwnedRequest>, ReplyError> {
    let is_relative = |index: &usize| matches!(ctx.args.at(request.id_at(*index)), b"$" | b"+");
    if ctx.waiting.is_served() || !request.keys.clone().any(|index| is_relative(&index)) {
        return Ok(None);
    }
    let mut words: Vec<Vec<u8>> = ctx.args.iter().map(<[u8]>::to_vec).collect();
    let relative: Vec<usize> = request.keys.clone().filter(is_relative).collect();
    for index in relative {
        let key = ctx.key(index);
        let stream = ctx.keyspace.found_as::<Stream>(&key)?;
        let last = stream.map_or(StreamId::MIN, |stream| stream.log().last_id());
        words[request.id_at(index)] = last.format(&mut [0; ID_TEXT_MAX]).to_vec();
    }
    Ok(Some(OwnedRequest::of(words.iter().map(Vec::as_slice))))
}

// ----- XREADGROUP

fn xreadgroup(ctx: &mut Context<'_>) -> CommandResult {
    let request = ReadRequest::parse(ctx.args, true)?;
    let Some((group, consumer)) = request.group else {
        return Err(ReplyError::Syntax);
    };
    for index in request.keys.clone() {
        if ctx.is_at_hand(index)? {
            check_group(ctx, &request, index, group)?;
        }
    }
    let mut streams = Streams::default();
    for index in request.keys.clone() {
        if !ctx.is_at_hand(index)? {
            continue;
        }
        let key = ctx.key(index);
        let delivery = Delivery {
            key: key.bytes,
            group,
            consumer,
            now_ms: ctx.wall_ms(),
            no_ack: request.no_ack,
            left: request.count,
        };
        // As in Redis, a second look-up counts as one.
        ctx.keyspace.read(&key);
        let history = match ctx.args.at(request.id_at(index)) {
            b">" => None,
            text => Some(id(text)?),
        };
        read_for_group(ctx, &key, &request, delivery, history, &mut streams)?;
    }
    if !streams.end(&mut ctx.reply) && !request.wait(ctx, None) {
        ctx.reply.null_array();
    }
    Ok(())
}

/// Checks that the group exists and that the id is valid.
fn check_group(
    ctx: &mut Context<'_>,
    request: &ReadRequest<'_>,
    index: usize,
    group: &[u8],
) -> CommandResult {
    let key = ctx.key(index);
    let stream = ctx.keyspace.read_as::<Stream>(&key)?;
    if stream.and_then(|stream| stream.group(group)).is_none() {
        return Err(no_group(key.bytes, group, b" in XREADGROUP with GROUP option"));
    }
    match ctx.args.at(request.id_at(index)) {
        b">" => Ok(()),
        b"$" => Err(ReplyError::Fixed(
            "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer \
             by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty \
             result set.",
        )),
        b"+" => Err(ReplyError::Fixed(
            "ERR The + ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer \
             by specifying a proper ID, or use the > ID to get new messages. The + ID would just return an empty \
             result set.",
        )),
        text => id(text).map(drop),
    }
}

/// Reads one stream: the consumer's pending entries after `history`, or else new entries.
fn read_for_group(
    ctx: &mut Context<'_>,
    key: &Key<'_>,
    request: &ReadRequest<'_>,
    mut delivery: Delivery<'_>,
    history: Option<StreamId>,
    streams: &mut Streams,
) -> CommandResult {
    let Some(stream) = ctx.keyspace.write_as::<Stream>(key)? else {
        return Ok(());
    };
    let Some((log, group)) = stream.group_mut(delivery.group) else {
        return Ok(());
    };
    let log: &Log = log;
    let idle = request.claim_idle_ms.filter(|_| history.is_none());
    let has_new = log.last().is_some_and(|last| last.id > group.last_id);
    let has_idle = idle.is_some_and(|idle_ms| delivery.first_idle(group, StreamId::MIN, idle_ms).is_some());
    let serves = history.is_some() || has_new || has_idle;
    // A reader that woke up for nothing goes on waiting, and counts as seen already.
    if ctx.waiting.is_served() && !(serves && ctx.waiting.claim()) {
        return Ok(());
    }
    if serves {
        streams.begin(&mut ctx.reply, key.bytes, request.keys.len());
    }
    let (consumer, made) = group.make_consumer(delivery.consumer, delivery.now_ms);
    if let Some(known) = group.consumer_mut(consumer) {
        known.seen_ms = delivery.now_ms;
    }
    if made {
        report_consumer(ctx.effects, key.bytes, delivery.group, delivery.consumer);
    }
    if let Some(after) = history {
        delivery.deliver_again(&mut ctx.reply, log, group, consumer, after);
    } else if serves {
        let deferred = ctx.reply.deferred_array(delivery.left.min(log.len()));
        let mut len = 0;
        if let Some(idle_ms) = idle {
            len += delivery.deliver_idle(&mut ctx.reply, ctx.effects, log, group, consumer, idle_ms);
        }
        len += delivery.deliver_unseen(&mut ctx.reply, ctx.effects, log, group, consumer, idle.is_some());
        ctx.reply.close(deferred, len);
    }
    if made {
        ctx.notify(KeyspaceEvents::STREAM, "xgroup-createconsumer", key);
    }
    Ok(())
}

/// A delivery of entries of one stream to a consumer.
#[derive(Debug)]
struct Delivery<'a> {
    key: &'a [u8],
    group: &'a [u8],
    consumer: &'a [u8],
    now_ms: i64,
    /// The entries need no acknowledgement.
    no_ack: bool,
    /// Number of entries that may still be delivered.
    left: usize,
}

impl Delivery<'_> {
    /// Replies with entries that were never delivered to the group; returns their number.
    fn deliver_unseen(
        &mut self,
        reply: &mut Encoder<'_>,
        effects: &mut Effects,
        log: &Log,
        group: &mut ConsumerGroup,
        consumer: ConsumerId,
        with_delivery: bool,
    ) -> usize {
        let Some(from) = group.last_id.next() else {
            return 0;
        };
        let mut len = 0;
        for item in log.range(from, StreamId::MAX, Order::Ascending).take(self.left) {
            advance(group, log, item.id);
            if with_delivery {
                reply_delivery(reply, item, 0, 0);
            } else {
                reply_entry(reply, item);
            }
            len += 1;
            if self.no_ack {
                continue;
            }
            let pending = Pending {
                id: item.id,
                delivered_ms: self.now_ms,
                deliveries: 1,
                consumer,
            };
            group.assign(pending);
            report_pending(effects, self.key, group, self.consumer, &pending);
        }
        if len > 0 {
            if let Some(known) = group.consumer_mut(consumer) {
                known.active_ms = Some(self.now_ms);
            }
            report_last_id(effects, self.key, group);
        }
        len
    }

    /// Replies with the consumer's pending entries after `after`, which counts as another delivery.
    fn deliver_again(
        &mut self,
        reply: &mut Encoder<'_>,
        log: &Log,
        group: &mut ConsumerGroup,
        consumer: ConsumerId,
        after: StreamId,
    ) {
        let deferred = reply.deferred_array(0);
        let mut len = 0;
        let mut next = after.next();
        while let Some(from) = next.filter(|_| len < self.left) {
            let known = group.consumer(consumer);
            let Some(id) = known.and_then(|known| known.pending_from(from).next()) else {
                break;
            };
            if let Some(item) = log.get(id) {
                reply_entry(reply, item);
                let deliveries = group.pending(id).map_or(0, |pending| pending.deliveries);
                group.set_delivery(id, self.now_ms, deliveries.saturating_add(1));
            } else {
                // The entry was deleted, but still needs an acknowledgement.
                reply.array(2);
                reply_id(reply, id);
                reply.null_array();
            }
            len += 1;
            next = id.next();
        }
        reply.close(deferred, len);
    }

    /// The first pending entry from `from` on whose last delivery is at least `idle_ms` ago.
    fn first_idle(&self, group: &ConsumerGroup, from: StreamId, idle_ms: i64) -> Option<Pending> {
        group
            .pending_from(from)
            .find(|pending| self.now_ms.saturating_sub(pending.delivered_ms) >= idle_ms)
            .copied()
    }

    /// Replies with pending entries of any consumer whose last delivery is at least `idle_ms` ago, and transfers them
    /// to this consumer; returns their number.
    fn deliver_idle(
        &mut self,
        reply: &mut Encoder<'_>,
        effects: &mut Effects,
        log: &Log,
        group: &mut ConsumerGroup,
        consumer: ConsumerId,
        idle_ms: i64,
    ) -> usize {
        let mut len = 0;
        let mut next = Some(StreamId::MIN);
        while let Some(from) = next.filter(|_| self.left > 0) {
            let Some(old) = self.first_idle(group, from, idle_ms) else {
                break;
            };
            next = old.id.next();
            let new = Pending {
                delivered_ms: self.now_ms,
                deliveries: old.deliveries.saturating_add(1),
                consumer,
                ..old
            };
            match log.get(old.id) {
                Some(item) => {
                    let idle_ms = self.now_ms.saturating_sub(old.delivered_ms);
                    reply_delivery(reply, item, idle_ms, old.deliveries);
                    group.assign(new);
                    len += 1;
                    self.left -= 1;
                }
                None => drop(group.acknowledge(old.id)),
            }
            effects.changed(1);
            report_pending(effects, self.key, group, self.consumer, &new);
        }
        if len > 0
            && let Some(known) = group.consumer_mut(consumer)
        {
            known.active_ms = Some(self.now_ms);
        }
        len
    }
}

/// Replies with an entry, the time since its previous delivery, and the number of deliveries.
fn reply_delivery(reply: &mut Encoder<'_>, item: Item<'_>, idle_ms: i64, deliveries: u64) {
    reply.array(4);
    reply_id_and_fields(reply, item);
    reply.integer(idle_ms);
    reply.integer(deliveries.cast_signed());
}

/// Advances the last id of a group to a later entry.
fn advance(group: &mut ConsumerGroup, log: &Log, id: StreamId) {
    group.entries_read = match group.entries_read {
        // The count of entries read stays exact only if the group began at the first entry, and none after its last
        // id was deleted.
        Some(read) if group.last_id >= log.first_id() && !log.has_holes_from(group.last_id) => {
            Some(read.saturating_add(1))
        }
        _ => log.position_of(id),
    };
    group.last_id = id;
}

/// Reports the consumer, the time and the number of deliveries of a pending entry. The caller counts the change: a
/// stream read for a group counts once, however many entries are delivered.
pub(super) fn report_pending(
    effects: &mut Effects,
    key: &[u8],
    group: &ConsumerGroup,
    consumer: &[u8],
    pending: &Pending,
) {
    if !effects.is_recording() {
        return;
    }
    let (mut id, mut last_id) = ([0; ID_TEXT_MAX], [0; ID_TEXT_MAX]);
    effects.replace(&[
        b"XCLAIM",
        key,
        group.name(),
        consumer,
        b"0",
        pending.id.format(&mut id),
        b"TIME",
        pending.delivered_ms.to_string().as_bytes(),
        b"RETRYCOUNT",
        pending.deliveries.to_string().as_bytes(),
        b"FORCE",
        b"JUSTID",
        b"LASTID",
        group.last_id.format(&mut last_id),
    ]);
}
