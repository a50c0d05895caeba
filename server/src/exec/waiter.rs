//! Commands that wait for a key: who waits, for what, and in which order.
//!
//! A command that finds nothing in any of its keys leaves a [`Wish`]. Its loop makes a [`Ticket`] of it and puts that into
//! the queue of each key, in the shards of the keys. Whoever changes such a key marks it as ready; when the command that
//! did so is done (or the transaction around it), the tickets of ready keys are looked at in the order in which they came,
//! and the command of each is run again for that one key. Before it takes anything it claims its ticket: a client that
//! waits in several shards is thus served by one of them, and not after it has been told that its time is over.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use shardis_protocol::{Arguments, Encoder};
use shardis_storage::value::Kind;

use super::client::{CommandTag, Modes};
use super::request::OwnedRequest;

/// Whether a command may wait, and where it says that it has to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiting<'a> {
    /// It is answered at once, as in a transaction, whether there is something or not.
    Denied,
    /// It may wait: it then leaves its wish here, and no reply.
    Allowed(&'a RefCell<Option<Wish>>),
    /// It has waited, and a key is ready.
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

    /// Whether the command has waited, and runs again for a key that is ready.
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

/// A command that runs again for one of its keys.
#[derive(Debug)]
pub(crate) struct Serving<'a> {
    ticket: &'a Ticket,
    /// The argument that is the key.
    position: usize,
    won: Cell<bool>,
}

impl<'a> Serving<'a> {
    /// Serves a ticket from the key at an argument of its request.
    pub(crate) fn new(ticket: &'a Ticket, position: usize) -> Self {
        Self {
            ticket,
            position,
            won: Cell::new(false),
        }
    }

    /// The argument that is the key.
    pub(crate) fn position(&self) -> usize {
        self.position
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
    /// Somebody answers it.
    claimed: AtomicBool,
}

impl Ticket {
    /// The ticket of a wish.
    #[expect(clippy::too_many_arguments, reason = "every one of them is a field")]
    pub(crate) fn new(
        command: CommandTag,
        args: Arguments<'_>,
        wish: Wish,
        other_shard: Option<usize>,
        db: u16,
        modes: Modes,
        (origin, connection): (usize, usize),
        sequence: u32,
    ) -> Self {
        Self {
            command,
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
            claimed: AtomicBool::new(false),
        }
    }

    /// Takes it upon the caller to answer. False when somebody else has done so: there is nothing left to do then.
    pub(crate) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }

    /// Whether somebody has taken it upon himself to answer.
    pub(crate) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Acquire)
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
    /// Shards with keys that are ready, but whose tickets need another shard that was taken.
    pub(crate) unserved: Vec<usize>,
}

impl Outbox {
    /// Whether there is nothing to see to.
    pub(crate) fn is_empty(&self) -> bool {
        self.served.is_empty() && self.unserved.is_empty()
    }
}

/// Tells in which order keys became ready, over all shards.
static READY: AtomicU64 = AtomicU64::new(0);

/// A key that is ready, and since when in the order of all.
#[derive(Debug)]
pub(crate) struct Ready {
    order: u64,
    /// Its database.
    pub(crate) db: u16,
    /// The key.
    pub(crate) key: Box<[u8]>,
}

/// The waiting commands of one shard, by key.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    queues: HashMap<u16, HashMap<Box<[u8]>, Queue>>,
    /// Keys that were changed and not yet looked at, in that order.
    ready: VecDeque<Ready>,
    /// Keys that are ready but wait for another shard.
    stuck: Vec<Ready>,
}

#[derive(Debug, Default)]
struct Queue {
    tickets: VecDeque<Arc<Ticket>>,
    /// How many of them mind the removal of the key.
    minding: usize,
    is_ready: bool,
}

impl Queue {
    fn drop_at(&mut self, index: usize) {
        if let Some(ticket) = self.tickets.remove(index) {
            self.minding -= usize::from(ticket.minds_removal);
        }
    }
}

impl Waiters {
    /// Whether nobody waits: all that most writes need to know.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Whether keys are to be looked at.
    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many keys are waited for, and at how many of them for removal also.
    pub(crate) fn key_counts(&self) -> (u64, u64) {
        let queues = self.queues.values().flat_map(HashMap::values);
        queues.fold((0, 0), |(all, minding), queue| {
            (all + 1, minding + u64::from(queue.minding > 0))
        })
    }

    /// Adds a ticket at the end of the queue of a key.
    pub(crate) fn add(&mut self, key: &[u8], ticket: &Arc<Ticket>) {
        let keys = self.queues.entry(ticket.db).or_default();
        if !keys.contains_key(key) {
            keys.insert(key.into(), Queue::default());
        }
        let Some(queue) = keys.get_mut(key) else { return };
        // A key that is named twice is waited for once.
        if queue.tickets.back().is_none_or(|last| !Arc::ptr_eq(last, ticket)) {
            queue.tickets.push_back(Arc::clone(ticket));
            queue.minding += usize::from(ticket.minds_removal);
        }
    }

    /// Removes a ticket from the queues of all its keys. Complexity: O(those ahead of it).
    pub(crate) fn remove(&mut self, ticket: &Arc<Ticket>) {
        let Some(keys) = self.queues.get_mut(&ticket.db) else {
            return;
        };
        for key in ticket.keys() {
            let Some(queue) = keys.get_mut(key) else { continue };
            let Some(index) = queue.tickets.iter().position(|other| Arc::ptr_eq(other, ticket)) else {
                continue;
            };
            queue.drop_at(index);
            if queue.tickets.is_empty() {
                keys.remove(key);
            }
        }
        if keys.is_empty() {
            self.queues.remove(&ticket.db);
        }
    }

    /// Notes that a key was changed, if somebody waits for it.
    pub(super) fn mark(&mut self, db: u16, key: &[u8]) {
        let queue = self.queues.get_mut(&db).and_then(|keys| keys.get_mut(key));
        if let Some(queue) = queue
            && !queue.is_ready
        {
            queue.is_ready = true;
            self.ready.push_back(ready(db, key.into()));
        }
    }

    /// Notes that every key of a database that is waited for may have changed. Complexity: O(keys waited for).
    pub(super) fn mark_all(&mut self, db: u16) {
        for (key, queue) in self.queues.get_mut(&db).into_iter().flatten() {
            if !queue.is_ready {
                queue.is_ready = true;
                self.ready.push_back(ready(db, key.clone()));
            }
        }
    }

    /// When the first of the ready keys became so, in the order of all shards.
    pub(crate) fn first_ready(&self) -> Option<u64> {
        self.ready.front().map(|ready| ready.order)
    }

    /// Takes the first of the ready keys.
    pub(crate) fn take_ready(&mut self) -> Option<Ready> {
        let ready = self.ready.pop_front()?;
        let queue = self
            .queues
            .get_mut(&ready.db)
            .and_then(|keys| keys.get_mut(&ready.key));
        if let Some(queue) = queue {
            queue.is_ready = false;
        }
        Some(ready)
    }

    /// The ticket to try next for a key that holds a value of this kind, or none: the first one from place `from` on that
    /// can make something of it. Tickets that were answered elsewhere are dropped on the way.
    pub(crate) fn candidate(
        &mut self,
        ready: &Ready,
        from: usize,
        kind: Option<Kind>,
    ) -> Option<(usize, Arc<Ticket>)> {
        let queue = self.queues.get_mut(&ready.db)?.get_mut(&ready.key)?;
        if kind.is_none() && queue.minding == 0 {
            return None;
        }
        let mut index = from;
        while let Some(ticket) = queue.tickets.get(index) {
            if ticket.is_claimed() {
                queue.drop_at(index);
            } else if Some(ticket.kind) == kind || ticket.minds_removal {
                return Some((index, Arc::clone(ticket)));
            } else {
                index += 1;
            }
        }
        None
    }

    /// Keeps a key for later that is ready but waits for another shard.
    pub(crate) fn set_aside(&mut self, ready: Ready) {
        self.stuck.push(ready);
    }

    /// Has the keys that waited for other shards looked at again.
    pub(crate) fn retry(&mut self) {
        for ready in std::mem::take(&mut self.stuck) {
            self.mark(ready.db, &ready.key);
        }
    }
}

fn ready(db: u16, key: Box<[u8]>) -> Ready {
    Ready {
        order: READY.fetch_add(1, Ordering::Relaxed),
        db,
        key,
    }
}

#[cfg(test)]
mod tests {
    use shardis_protocol::Span;

    use super::*;

    /// A ticket of a BLPOP over keys of one letter each.
    fn ticket(keys: &str, minds_removal: bool) -> Arc<Ticket> {
        let bytes = format!("b{keys}0");
        let spans: Vec<_> = (0..bytes.len()).filter_map(|at| Span::new(at, 1)).collect();
        let wish = Wish {
            keys: 1..1 + keys.len(),
            kind: Kind::List,
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
            None,
            0,
            Modes::empty(),
            (0, 0),
            0,
        ))
    }

    fn add(waiters: &mut Waiters, ticket: &Arc<Ticket>) {
        let keys: Vec<Vec<u8>> = ticket.keys().map(<[u8]>::to_vec).collect();
        keys.iter().for_each(|key| waiters.add(key, ticket));
    }

    #[test]
    fn first_come_first_served() {
        let mut waiters = Waiters::default();
        let (first, second) = (ticket("ab", false), ticket("a", false));
        add(&mut waiters, &first);
        add(&mut waiters, &second);
        waiters.mark(0, b"a");
        waiters.mark(0, b"a");
        waiters.mark(1, b"a");
        waiters.mark(0, b"x");
        let ready = waiters.take_ready().unwrap();
        assert!(!waiters.has_ready());
        let (_, found) = waiters.candidate(&ready, 0, Some(Kind::List)).unwrap();
        assert!(Arc::ptr_eq(&found, &first));
        assert!(waiters.candidate(&ready, 0, Some(Kind::SortedSet)).is_none());
        assert!(waiters.candidate(&ready, 0, None).is_none());
        // Served elsewhere meanwhile.
        assert!(first.claim() && !first.claim());
        let (place, found) = waiters.candidate(&ready, 0, Some(Kind::List)).unwrap();
        assert!(place == 0 && Arc::ptr_eq(&found, &second));
        waiters.remove(&first);
        waiters.remove(&second);
        assert!(waiters.is_empty());
    }

    #[test]
    fn a_key_named_twice_is_waited_for_once() {
        let mut waiters = Waiters::default();
        let twice = ticket("aa", true);
        add(&mut waiters, &twice);
        assert_eq!(waiters.key_counts(), (1, 1));
        waiters.remove(&twice);
        assert!(waiters.is_empty());
    }

    #[test]
    fn who_minds_removal_is_found_when_the_key_is_gone() {
        let mut waiters = Waiters::default();
        let (patient, minding) = (ticket("a", false), ticket("ab", true));
        add(&mut waiters, &patient);
        add(&mut waiters, &minding);
        waiters.mark_all(0);
        let mut served = 0;
        while let Some(ready) = waiters.take_ready() {
            let (_, found) = waiters.candidate(&ready, 0, None).unwrap();
            assert!(Arc::ptr_eq(&found, &minding));
            served += 1;
        }
        assert_eq!(served, 2);
    }

    #[test]
    fn what_is_set_aside_is_looked_at_again() {
        let mut waiters = Waiters::default();
        let waiting = ticket("a", false);
        add(&mut waiters, &waiting);
        waiters.mark(0, b"a");
        let ready = waiters.take_ready().unwrap();
        waiters.set_aside(ready);
        assert!(!waiters.has_ready());
        waiters.retry();
        assert!(waiters.has_ready());
    }
}
