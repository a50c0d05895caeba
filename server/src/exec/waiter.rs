//! Commands that wait for a key: their tickets, and the queues that the tickets wait in.
//!
//! A command that finds nothing in any of its keys leaves a [`Wish`]. Its loop makes a [`Ticket`] of it and puts that
//! into the queue of each key, in the shards of the keys ([`Waiters`]). A change of such a key marks the key as
//! ready. When the command that changed it is done (or the transaction around it), the tickets of ready keys are
//! tried in the order in which the keys became ready, and the command of each runs again over its keys, in its own
//! order. Before it takes anything it claims its ticket: a client that waits in several shards is thus served by only
//! one of them, and never after it has been told that its timeout is over.
//!
//! A command that runs again sees only the keys in the partitions that are held, those of the command or transaction
//! that made the key ready. No other key matters: if another shard had a value for the command, the command would
//! have been served there at once, before any other command ran; and for keys that hold a value of another type, of
//! which the command would complain, the ticket has been told so ([`Ticket::tell`]).

mod queues;

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use shardis_protocol::Arguments;
use shardis_storage::value::Kind;

use super::client::{CommandTag, Modes};
use super::request::OwnedRequest;
use super::written::Awaited;
use crate::journal::Position;
use crate::pubsub::Seat;
pub(crate) use queues::{Found, Ready, Waiters};

/// Permission of a command to wait, and the place for its wish.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiting<'a> {
    /// The command is answered at once, as in a transaction, whether it finds something or not.
    Denied,
    /// The command may wait: it then leaves its wish here, and no reply.
    Allowed(&'a RefCell<Option<Wish>>),
    /// The command has waited, and one of its keys is ready.
    Served(&'a Serving<'a>),
}

impl Waiting<'_> {
    /// Claims the ticket of a command that has waited; true for a command that has not. False when the client was
    /// answered meanwhile: the command then changes nothing. Handlers call it before they take or answer anything.
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

/// Description of what a command waits for.
#[derive(Debug)]
pub(crate) struct Wish {
    /// Arguments that are the keys it waits for.
    pub(crate) keys: Range<usize>,
    /// Type of value that it can be served from.
    pub(crate) kind: Kind,
    /// The command is also to run again when a key is removed, to report that.
    pub(crate) minds_removal: bool,
    /// End of the timeout, Unix milliseconds; `None` for never.
    pub(crate) deadline_ms: Option<i64>,
    /// The request to run again, where that is not the one that the client sent.
    pub(crate) request: Option<OwnedRequest>,
    /// The condition on the client's writes that it waits for, if it waits for that.
    pub(crate) awaited: Awaited,
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

    /// Whether a key at an argument of the request, in a partition that is not held, has a value of another type.
    pub(crate) fn is_barred_at(&self, position: usize, now_ms: i64) -> bool {
        self.ticket.is_barred_at(position, now_ms)
    }

    /// Claims the ticket. False when it was claimed elsewhere.
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

/// A waiting command.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// Its command.
    pub(crate) command: CommandTag,
    /// The request to run again.
    pub(crate) request: OwnedRequest,
    /// The request that the client sent, where that is another one.
    said: Option<OwnedRequest>,
    /// Arguments that are the keys it waits for.
    pub(crate) keys: Range<usize>,
    /// The shard that a move needs besides the one of the key that it is served from: it takes there and puts here.
    pub(crate) other_shard: Option<usize>,
    /// Type of value that it can be served from.
    pub(crate) kind: Kind,
    /// The command is also to run again when a key is removed.
    pub(crate) minds_removal: bool,
    /// End of the timeout, Unix milliseconds; `None` for never.
    pub(crate) deadline_ms: Option<i64>,
    /// The condition on the client's writes that it waits for, if it waits for that.
    pub(crate) awaited: Awaited,
    /// The end of the client's writes in the journal.
    pub(crate) wrote_to: Position,
    /// The client's database.
    pub(crate) db: u16,
    /// Modes of the client.
    pub(crate) modes: Modes,
    /// Index of the loop that carries its connection.
    pub(crate) origin: usize,
    /// Number of the connection on that loop.
    pub(crate) connection: usize,
    /// Low bits of the client's id.
    pub(crate) client: u32,
    /// Sequence number of its reply on the connection.
    pub(crate) sequence: u32,
    /// Time that the command ran before it waited, nanoseconds.
    pub(crate) ran_ns: u64,
    /// The ticket has been claimed: nobody else may answer it.
    claimed: AtomicBool,
    /// For each key, the Unix time in milliseconds until which it holds a value of another type than the awaited one;
    /// [`NEVER`] if it holds none. Empty if all keys are in one shard: their partition is then held.
    barred: Box<[AtomicI64]>,
}

/// A time before all others.
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
        (db, wrote_to): (u16, Position),
        modes: Modes,
        seat: Seat,
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
            awaited: wish.awaited,
            wrote_to,
            db,
            modes,
            origin: usize::from(seat.of_loop),
            connection: seat.subscriber.connection as usize,
            client: seat.subscriber.client,
            sequence,
            ran_ns,
            claimed: AtomicBool::new(false),
            barred: (0..barred).map(|_| AtomicI64::new(NEVER)).collect(),
        }
    }

    /// Bytes of the arguments that the client sent.
    pub(crate) fn argument_bytes(&self) -> usize {
        self.said.as_ref().unwrap_or(&self.request).argument_bytes()
    }

    /// Bytes allocated for the ticket.
    pub(crate) fn memory(&self) -> usize {
        let requests = [Some(&self.request), self.said.as_ref()];
        let requests: usize = requests.into_iter().flatten().map(OwnedRequest::size).sum();
        size_of::<Self>() + requests + size_of_val(&*self.barred)
    }

    /// Whether the keys are in several shards.
    pub(crate) fn spans_shards(&self) -> bool {
        !self.barred.is_empty()
    }

    /// Tells the ticket that a key holds a value of another type until `until_ms`, or no longer does. The caller
    /// holds the partition of the key.
    fn tell(&self, key: &[u8], until_ms: Option<i64>) {
        for (barred, own) in self.barred.iter().zip(self.keys()) {
            if own == key {
                barred.store(until_ms.unwrap_or(NEVER), Ordering::Release);
            }
        }
    }

    /// Whether the ticket has been told that the key at an argument holds a value of another type.
    fn is_barred_at(&self, position: usize, now_ms: i64) -> bool {
        let barred = self.barred.get(position - self.keys.start);
        barred.is_some_and(|until_ms| until_ms.load(Ordering::Acquire) >= now_ms)
    }

    /// Claims the ticket: the caller must answer it. False when it was claimed before, and nothing is left to do.
    pub(crate) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }

    /// Whether the ticket has been claimed.
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

/// The result of a ticket whose command has run again.
#[derive(Debug)]
pub(crate) struct Served {
    /// The ticket, claimed.
    pub(crate) ticket: Arc<Ticket>,
    /// The shard that served it.
    pub(crate) shard: usize,
    /// The reply.
    pub(crate) reply: Vec<u8>,
    /// Time that the command ran, nanoseconds.
    pub(crate) nanos: u64,
    /// The end of its effects in the journal; none when there are none.
    pub(crate) position: Option<Position>,
}

/// Results of serving tickets, which the loop handles once it holds no partition any more.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Replies to send.
    pub(crate) served: Vec<Served>,
    /// Retries for keys that need a shard which was taken.
    pub(crate) stuck: Vec<Retry>,
}

/// An attempt to serve the stuck keys of a shard. It travels back and forth between the two shards until one of them,
/// while it is held, finds the other free. The same two shards have at most one: keys that get stuck meanwhile wait
/// for it. One whose two shards are the same is for keys that wait for a snapshot; the loop of the shard keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    /// Shard whose keys are stuck.
    pub(crate) shard: usize,
    /// Shard that their tickets need.
    pub(crate) needs: usize,
    /// When it began, on the node's stopwatch.
    pub(crate) since_ns: u64,
}

impl Retry {
    /// The one of the two shards that is not `shard`.
    pub(crate) fn other(self, shard: usize) -> usize {
        if shard == self.shard {
            self.needs
        } else {
            self.shard
        }
    }
}

impl Outbox {
    /// Whether there is nothing to handle.
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
            request: None,
            awaited: Awaited::Nothing,
        };
        let command = CommandTag { id: 0, name: "blpop" };
        let args = Arguments::new(bytes.as_bytes(), &spans, &[]);
        Arc::new(Ticket::new(
            command,
            args,
            wish,
            spans_shards,
            None,
            (0, Position::default()),
            Modes::empty(),
            Seat::default(),
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
        let retry = Retry {
            shard: 3,
            needs: 1,
            since_ns: 0,
        };
        assert_eq!((retry.other(3), retry.other(1)), (1, 3));
    }
}
