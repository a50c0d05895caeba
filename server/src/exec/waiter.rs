//! Commands that wait for a key: who waits, for what, and in which order.
//!
//! A command that finds nothing in any of its keys leaves a [`Wish`]. Its loop makes a [`Ticket`] of it and puts that into
//! the queue of each key, in the shards of the keys ([`Waiters`]). Whoever changes such a key marks it as ready; when the
//! command that did so is done (or the transaction around it), the tickets of ready keys are looked at in the order in which
//! they came, and the command of each runs again over its keys, in its own order. Before it takes anything it claims its
//! ticket: a client that waits in several shards is thus served by one of them, and not after it has been told that its time
//! is over.
//!
//! It sees the keys of those shards only that are at hand: those that the command or the transaction worked on. That is all
//! there is to see. Had another shard something for it, it would have been served there at once, before anybody else's
//! command ran; and where a key holds a value of another kind, which the command would complain of, the ticket has been told
//! ([`Ticket::tell`]).

mod queues;

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use shardis_protocol::{Arguments, Encoder};
use shardis_storage::value::Kind;

use super::client::{CommandTag, Modes};
use super::request::OwnedRequest;
pub(crate) use queues::{Found, Ready, Waiters};

/// Whether a command may wait, and where it says that it has to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiting<'a> {
    /// It is answered at once, as in a transaction, whether there is something or not.
    Denied,
    /// It may wait: it then leaves its wish here, and no reply.
    Allowed(&'a RefCell<Option<Wish>>),
    /// It has waited, and one of its keys is ready.
    Served(&'a Serving<'a>),
}

impl Waiting<'_> {
    /// To be called by a command that may have waited, before it takes or answers anything. False when its client has been
    /// answered meanwhile: it then leaves everything as it is.
    pub(crate) fn claim(self) -> bool {
        match self {
            Self::Served(serving) => serving.claim(),
            Self::Denied | Self::Allowed(_) => true,
        }
    }

    /// Whether the command has waited, and runs again.
    pub(crate) fn is_served(self) -> bool {
        matches!(self, Self::Served(_))
    }
}

/// The reply to a command whose time is over before it got what it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeoutReply {
    /// A null array.
    Null,
    /// How many replicas have acknowledged what they were to acknowledge.
    Replicas(i64),
    /// Whether this node's own file has, and how many replicas.
    FileAndReplicas(i64, i64),
}

impl TimeoutReply {
    /// Writes it.
    pub(crate) fn write(self, reply: &mut Encoder<'_>) {
        match self {
            Self::Null => reply.null_array(),
            Self::Replicas(count) => reply.integer(count),
            Self::FileAndReplicas(file, count) => {
                reply.array(2);
                reply.integer(file);
                reply.integer(count);
            }
        }
    }
}

/// What a command waits for.
#[derive(Debug)]
pub(crate) struct Wish {
    /// Arguments that are the keys it waits for.
    pub(crate) keys: Range<usize>,
    /// Which kind of value it can be served from.
    pub(crate) kind: Kind,
    /// It is also to run again when a key is gone, to say so.
    pub(crate) minds_removal: bool,
    /// When its time is over, Unix milliseconds; never for `None`.
    pub(crate) deadline_ms: Option<i64>,
    /// The reply when its time is over.
    pub(crate) on_timeout: TimeoutReply,
    /// What is to be run later, where that is not the request as it came.
    pub(crate) request: Option<OwnedRequest>,
}

/// A command that runs again because one of its keys is ready.
#[derive(Debug)]
pub(crate) struct Serving<'a> {
    ticket: &'a Ticket,
    won: Cell<bool>,
}

impl<'a> Serving<'a> {
    /// Serves a ticket.
    pub(crate) fn new(ticket: &'a Ticket) -> Self {
        Self {
            ticket,
            won: Cell::new(false),
        }
    }

    /// Whether a key of another shard, at an argument of the request, holds what the command cannot work with.
    pub(crate) fn is_barred_at(&self, position: usize, now_ms: i64) -> bool {
        self.ticket.is_barred_at(position, now_ms)
    }

    /// Claims the ticket. False when somebody else did.
    pub(crate) fn claim(&self) -> bool {
        let won = self.won.get() || self.ticket.claim();
        self.won.set(won);
        won
    }

    /// Whether the command has claimed its ticket.
    pub(crate) fn is_won(&self) -> bool {
        self.won.get()
    }
}

/// A command that waits.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// Its command.
    pub(crate) command: CommandTag,
    /// What is to be run.
    pub(crate) request: OwnedRequest,
    /// What the client said, where that is something else.
    said: Option<OwnedRequest>,
    /// Arguments that are the keys it waits for.
    pub(crate) keys: Range<usize>,
    /// The shard that it needs besides that of the key it is served from: what it takes there goes here.
    pub(crate) other_shard: Option<usize>,
    /// Which kind of value it can be served from.
    pub(crate) kind: Kind,
    /// It is also to run again when a key is gone.
    pub(crate) minds_removal: bool,
    /// When its time is over, Unix milliseconds; never for `None`.
    pub(crate) deadline_ms: Option<i64>,
    /// The reply when its time is over.
    pub(crate) on_timeout: TimeoutReply,
    /// The client's database.
    pub(crate) db: u16,
    /// What it must know of the client.
    pub(crate) modes: Modes,
    /// The loop of its connection.
    pub(crate) origin: usize,
    /// The connection on that loop.
    pub(crate) connection: usize,
    /// The place of its reply among those of the connection.
    pub(crate) sequence: u32,
    /// How long the command ran before it waited, nanoseconds.
    pub(crate) ran_ns: u64,
    /// Somebody answers it.
    claimed: AtomicBool,
    /// Until when each key holds a value of another kind than it waits for, Unix milliseconds; [`NEVER`] if it does not.
    /// Nothing if all keys are in one shard: they are then at hand together.
    barred: Box<[AtomicI64]>,
}

/// Before any time.
const NEVER: i64 = i64::MIN;

impl Ticket {
    /// The ticket of a wish.
    #[expect(clippy::too_many_arguments, reason = "every one of them is a field")]
    pub(crate) fn new(
        command: CommandTag,
        args: Arguments<'_>,
        wish: Wish,
        spans_shards: bool,
        other_shard: Option<usize>,
        db: u16,
        modes: Modes,
        (origin, connection): (usize, usize),
        sequence: u32,
        ran_ns: u64,
    ) -> Self {
        let barred = if spans_shards { wish.keys.len() } else { 0 };
        Self {
            command,
            said: wish.request.is_some().then(|| OwnedRequest::copy(args)),
            request: wish.request.unwrap_or_else(|| OwnedRequest::copy(args)),
            keys: wish.keys,
            other_shard,
            kind: wish.kind,
            minds_removal: wish.minds_removal,
            deadline_ms: wish.deadline_ms,
            on_timeout: wish.on_timeout,
            db,
            modes,
            origin,
            connection,
            sequence,
            ran_ns,
            claimed: AtomicBool::new(false),
            barred: (0..barred).map(|_| AtomicI64::new(NEVER)).collect(),
        }
    }

    /// Whether its keys are in several shards.
    pub(crate) fn spans_shards(&self) -> bool {
        !self.barred.is_empty()
    }

    /// Tells it that a key holds a value of another kind until `until_ms`, or that it does not any more. To be called with the
    /// shard of the key at hand.
    fn tell(&self, key: &[u8], until_ms: Option<i64>) {
        for (barred, own) in self.barred.iter().zip(self.keys()) {
            if own == key {
                barred.store(until_ms.unwrap_or(NEVER), Ordering::Release);
            }
        }
    }

    /// Whether the key at an argument of its request has been told to hold a value of another kind.
    fn is_barred_at(&self, position: usize, now_ms: i64) -> bool {
        let barred = self.barred.get(position - self.keys.start);
        barred.is_some_and(|until_ms| until_ms.load(Ordering::Acquire) >= now_ms)
    }

    /// Takes it upon the caller to answer. False when somebody else has done so: there is nothing left to do then.
    pub(crate) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }

    /// Whether somebody has taken it upon himself to answer.
    pub(crate) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Acquire)
    }

    /// The request as its client sent it.
    pub(crate) fn said(&self) -> Arguments<'_> {
        self.said.as_ref().unwrap_or(&self.request).arguments()
    }

    /// The keys it waits for.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let args = self.request.arguments();
        self.keys.clone().map(move |index| args.at(index))
    }
}

/// A ticket whose command has run again.
#[derive(Debug)]
pub(crate) struct Served {
    /// The ticket, claimed.
    pub(crate) ticket: Arc<Ticket>,
    /// The shard that served it.
    pub(crate) shard: usize,
    /// The reply.
    pub(crate) reply: Vec<u8>,
    /// How long it ran, nanoseconds.
    pub(crate) nanos: u64,
}

/// What becomes known while waiting commands are served, for the loop to see to when it holds no shard.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// What is to be answered.
    pub(crate) served: Vec<Served>,
    /// Shards that need another one which was taken.
    pub(crate) stuck: Vec<Retry>,
}

/// A try to serve the stuck keys of a shard. It goes to and fro between the two shards until one of them, being at hand, finds
/// the other free. There is never more than one for the same two: the keys that are stuck meanwhile wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    /// The shard whose keys are stuck.
    pub(crate) shard: usize,
    /// The shard that their tickets need.
    pub(crate) needs: usize,
}

impl Retry {
    /// The one of its two shards that is not this one.
    pub(crate) fn other(self, shard: usize) -> usize {
        if shard == self.shard {
            self.needs
        } else {
            self.shard
        }
    }
}

impl Outbox {
    /// Whether there is nothing to see to.
    pub(crate) fn is_empty(&self) -> bool {
        self.served.is_empty() && self.stuck.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use shardis_protocol::Span;

    use super::*;

    /// A ticket of a command over keys of one letter each.
    pub(super) fn ticket_over(keys: &str, kind: Kind, spans_shards: bool) -> Arc<Ticket> {
        of_wish(keys, kind, spans_shards, false)
    }

    /// A ticket of a command over keys of one letter each, in one shard.
    pub(super) fn ticket(keys: &str, minds_removal: bool) -> Arc<Ticket> {
        of_wish(keys, Kind::List, false, minds_removal)
    }

    fn of_wish(keys: &str, kind: Kind, spans_shards: bool, minds_removal: bool) -> Arc<Ticket> {
        let bytes = format!("b{keys}0");
        let spans: Vec<_> = (0..bytes.len()).filter_map(|at| Span::new(at, 1)).collect();
        let wish = Wish {
            keys: 1..1 + keys.len(),
            kind,
            minds_removal,
            deadline_ms: None,
            on_timeout: TimeoutReply::Null,
            request: None,
        };
        let command = CommandTag { id: 0, name: "blpop" };
        let args = Arguments::new(bytes.as_bytes(), &spans, &[]);
        Arc::new(Ticket::new(
            command,
            args,
            wish,
            spans_shards,
            None,
            0,
            Modes::empty(),
            (0, 0),
            0,
            0,
        ))
    }

    pub(super) fn add(waiters: &mut Waiters, ticket: &Arc<Ticket>) {
        let keys: Vec<Vec<u8>> = ticket.keys().map(<[u8]>::to_vec).collect();
        keys.iter().for_each(|key| waiters.add(key, ticket));
    }

    #[test]
    fn a_ticket_is_claimed_once() {
        let ticket = ticket("a", false);
        let (first, second) = (Serving::new(&ticket), Serving::new(&ticket));
        assert!(first.claim() && first.claim() && first.is_won());
        assert!(!second.claim() && !second.is_won() && ticket.is_claimed());
    }

    #[test]
    fn a_retry_goes_to_and_fro() {
        let retry = Retry { shard: 3, needs: 1 };
        assert_eq!((retry.other(3), retry.other(1)), (1, 3));
    }
}
