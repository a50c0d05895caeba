//! The waiting commands of one shard: a queue for each key, the keys that are ready, and the keys that are stuck
//! because their first ticket needs a shard that is taken.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shardis_storage::value::Kind;

use super::Ticket;

/// Number of types of values.
const KINDS: usize = Kind::Stream as usize + 1;

/// Number of times that a key became ready, over all shards.
static READY: AtomicU64 = AtomicU64::new(0);

/// A ready key, and its place in the order over all shards.
#[derive(Debug)]
pub(crate) struct Ready {
    order: u64,
    /// Its database.
    pub(crate) db: u16,
    /// The key.
    pub(crate) key: Box<[u8]>,
}

impl Ready {
    /// A key that becomes ready now.
    fn now(db: u16, key: Box<[u8]>) -> Self {
        Self {
            order: READY.fetch_add(1, Ordering::Relaxed),
            db,
            key,
        }
    }
}

/// The value of a ready key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its type.
    pub(crate) kind: Kind,
    /// The last millisecond before it expires, Unix time.
    pub(crate) until_ms: i64,
}

/// The waiting commands of one shard, by key.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    queues: HashMap<u16, HashMap<Box<[u8]>, Queue>>,
    /// Keys that were changed and not tried since, in that order.
    ready: VecDeque<Ready>,
    /// Ready keys that wait for another shard, by that shard, or for a snapshot, under their own. One retry is under way for
    /// each entry: the entry is removed when the retry arrives, and no other is sent meanwhile.
    stuck: HashMap<usize, StuckKeys>,
}

/// Keys and the order in which they became ready. Each has a queue whose `stuck_on` says so.
type StuckKeys = HashMap<(u16, Box<[u8]>), u64>;

/// The tickets that wait for one key, first come first.
#[derive(Debug, Default)]
struct Queue {
    tickets: VecDeque<Arc<Ticket>>,
    /// Number of tickets that are also served when the key is removed.
    minding: usize,
    /// Number of tickets that wait in several shards, by the type of value that they wait for.
    spanning: [usize; KINDS],
    /// Some of those tickets have been told that the key holds a value of another type.
    has_told: bool,
    is_ready: bool,
    /// The shard among whose stuck keys this one is.
    stuck_on: Option<usize>,
}

impl Queue {
    fn push(&mut self, ticket: &Arc<Ticket>) {
        self.tickets.push_back(Arc::clone(ticket));
        self.minding += usize::from(ticket.minds_removal);
        self.spanning[ticket.kind as usize] += usize::from(ticket.spans_shards());
    }

    fn drop_at(&mut self, index: usize) {
        if let Some(ticket) = self.tickets.remove(index) {
            self.minding -= usize::from(ticket.minds_removal);
            self.spanning[ticket.kind as usize] -= usize::from(ticket.spans_shards());
        }
    }

    /// Tells the tickets that wait in several shards whether the key holds a value of another type, which they cannot
    /// see from elsewhere. Complexity: O(tickets) if the type differs from that of one of them, or differed the last
    /// time.
    fn tell(&mut self, key: &[u8], found: Option<Found>) {
        let others =
            |(kind, count): (usize, &usize)| *count > 0 && found.is_some_and(|it| it.kind as usize != kind);
        if !self.has_told && !self.spanning.iter().enumerate().any(others) {
            return;
        }
        self.has_told = false;
        for ticket in self.tickets.iter().filter(|ticket| ticket.spans_shards()) {
            let other = found.filter(|found| found.kind != ticket.kind);
            ticket.tell(key, other.map(|found| found.until_ms));
            self.has_told |= other.is_some();
        }
    }
}

impl Waiters {
    /// Whether no command waits: most writes need to know no more.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Whether there are ready keys.
    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Number of keys that are waited for, and of those among them whose removal is also waited for.
    pub(crate) fn key_counts(&self) -> (u64, u64) {
        let queues = self.queues.values().flat_map(HashMap::values);
        queues.fold((0, 0), |(all, minding), queue| {
            (all + 1, minding + u64::from(queue.minding > 0))
        })
    }

    /// Appends a ticket to the queue of a key.
    pub(crate) fn add(&mut self, key: &[u8], ticket: &Arc<Ticket>) {
        let keys = self.queues.entry(ticket.db).or_default();
        if !keys.contains_key(key) {
            keys.insert(key.into(), Queue::default());
        }
        let Some(queue) = keys.get_mut(key) else { return };
        // A command that names a key twice waits for it once.
        if queue.tickets.back().is_none_or(|last| !Arc::ptr_eq(last, ticket)) {
            queue.push(ticket);
        }
    }

    /// Removes a ticket from the queues of all its keys. Keys among them that are stuck become ready again: the
    /// tickets behind it may have waited only for it. Complexity: O(tickets ahead of it).
    pub(crate) fn remove(&mut self, ticket: &Arc<Ticket>) {
        for key in ticket.keys() {
            let Some(queue) = self.queue_mut(ticket.db, key) else {
                continue;
            };
            let place = queue.tickets.iter().position(|other| Arc::ptr_eq(other, ticket));
            if let Some(index) = place {
                queue.drop_at(index);
            }
            if queue.tickets.is_empty() {
                self.drop_queue(ticket.db, key);
            } else if queue.stuck_on.is_some() {
                self.mark(ticket.db, key);
            }
        }
    }

    fn queue_mut(&mut self, db: u16, key: &[u8]) -> Option<&mut Queue> {
        self.queues.get_mut(&db)?.get_mut(key)
    }

    fn drop_queue(&mut self, db: u16, key: &[u8]) {
        let Some(keys) = self.queues.get_mut(&db) else {
            return;
        };
        let dropped = keys.remove(key);
        if keys.is_empty() {
            self.queues.remove(&db);
        }
        if let Some(shard) = dropped.and_then(|queue| queue.stuck_on) {
            self.forget_stuck(shard, db, key);
        }
    }

    /// Marks a key as ready if a command waits for it.
    pub(in crate::exec) fn mark(&mut self, db: u16, key: &[u8]) {
        let queue = self.queues.get_mut(&db).and_then(|keys| keys.get_mut(key));
        if let Some(queue) = queue
            && !queue.is_ready
        {
            queue.is_ready = true;
            self.ready.push_back(Ready::now(db, key.into()));
        }
    }

    /// Marks every key of a database that is waited for as ready. Complexity: O(keys waited for).
    pub(in crate::exec) fn mark_all(&mut self, db: u16) {
        for (key, queue) in self.queues.get_mut(&db).into_iter().flatten() {
            if !queue.is_ready {
                queue.is_ready = true;
                self.ready.push_back(Ready::now(db, key.clone()));
            }
        }
    }

    /// Place of the first ready key in the order over all shards.
    pub(crate) fn first_ready(&self) -> Option<u64> {
        self.ready.front().map(|ready| ready.order)
    }

    /// Takes the first ready key.
    pub(crate) fn take_ready(&mut self) -> Option<Ready> {
        let ready = self.ready.pop_front()?;
        if let Some(queue) = self.queue_mut(ready.db, &ready.key) {
            queue.is_ready = false;
        }
        Some(ready)
    }

    /// Puts back a ready key that was taken, as the first one.
    pub(crate) fn put_back(&mut self, ready: Ready) {
        if let Some(queue) = self.queue_mut(ready.db, &ready.key)
            && !queue.is_ready
        {
            queue.is_ready = true;
            self.ready.push_front(ready);
        }
    }

    /// The first ticket from index `from` on that can be served from this value of a key, if there is one. Tickets
    /// that were answered elsewhere are dropped on the way.
    pub(crate) fn candidate(
        &mut self,
        ready: &Ready,
        from: usize,
        found: Option<Found>,
    ) -> Option<(usize, Arc<Ticket>)> {
        let queue = self.queue_mut(ready.db, &ready.key)?;
        queue.tell(&ready.key, found);
        if found.is_none() && queue.minding == 0 {
            return None;
        }
        let mut index = from;
        while let Some(ticket) = queue.tickets.get(index) {
            if ticket.is_claimed() {
                // The loop of that ticket removes it from every queue, and drops the queue if it is empty then.
                queue.drop_at(index);
            } else if found.is_some_and(|found| found.kind == ticket.kind) || ticket.minds_removal {
                return Some((index, Arc::clone(ticket)));
            } else {
                index += 1;
            }
        }
        None
    }

    /// Whether keys are stuck on any shard.
    pub(crate) fn has_stuck(&self) -> bool {
        !self.stuck.is_empty()
    }

    /// Whether keys are stuck on a shard.
    pub(crate) fn is_stuck_on(&self, shard: usize) -> bool {
        self.stuck.contains_key(&shard)
    }

    /// Sets a ready key aside because it needs another shard that is taken. True if it is the first key stuck on that
    /// shard: the caller then sends a retry.
    pub(crate) fn set_aside(&mut self, ready: Ready, shard: usize) -> bool {
        let Some(queue) = self.queue_mut(ready.db, &ready.key) else {
            return false;
        };
        let before = queue.stuck_on.replace(shard);
        if before == Some(shard) {
            return false;
        }
        if let Some(before) = before {
            self.forget_stuck(before, ready.db, &ready.key);
        }
        let is_first = !self.is_stuck_on(shard);
        let keys = self.stuck.entry(shard).or_default();
        keys.insert((ready.db, ready.key), ready.order);
        is_first
    }

    fn forget_stuck(&mut self, shard: usize, db: u16, key: &[u8]) {
        if let Some(keys) = self.stuck.get_mut(&shard) {
            keys.remove(&(db, Box::from(key)));
        }
    }

    /// Ends the retry for a shard: the keys that are stuck on that shard become ready again.
    pub(crate) fn retry(&mut self, shard: usize) {
        let keys = self.stuck.remove(&shard).unwrap_or_default();
        let mut keys: Vec<_> = keys.into_iter().map(|(key, order)| (order, key)).collect();
        keys.sort_unstable();
        for (_, (db, key)) in keys {
            if let Some(queue) = self.queue_mut(db, &key) {
                queue.stuck_on = None;
            }
            self.mark(db, &key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{add, ticket, ticket_over};
    use super::*;

    fn found(kind: Kind) -> Option<Found> {
        Some(Found {
            kind,
            until_ms: i64::MAX,
        })
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
        let (_, next) = waiters.candidate(&ready, 0, found(Kind::List)).unwrap();
        assert!(Arc::ptr_eq(&next, &first));
        assert!(waiters.candidate(&ready, 0, found(Kind::SortedSet)).is_none());
        assert!(waiters.candidate(&ready, 0, None).is_none());
        // Served elsewhere meanwhile.
        assert!(first.claim() && !first.claim());
        let (place, next) = waiters.candidate(&ready, 0, found(Kind::List)).unwrap();
        assert!(place == 0 && Arc::ptr_eq(&next, &second));
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
    fn no_queue_outlives_its_tickets() {
        let mut waiters = Waiters::default();
        let gone = ticket("a", false);
        add(&mut waiters, &gone);
        waiters.mark(0, b"a");
        assert!(gone.claim());
        let ready = waiters.take_ready().unwrap();
        assert!(waiters.candidate(&ready, 0, found(Kind::List)).is_none());
        waiters.remove(&gone);
        assert!(waiters.is_empty() && waiters.key_counts() == (0, 0));
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
            let (_, next) = waiters.candidate(&ready, 0, None).unwrap();
            assert!(Arc::ptr_eq(&next, &minding));
            served += 1;
        }
        assert_eq!(served, 2);
    }

    #[test]
    fn one_retry_is_asked_for_however_many_keys_are_stuck() {
        let mut waiters = Waiters::default();
        let tickets = ["a", "b", "c"].map(|key| ticket(key, false));
        tickets.iter().for_each(|ticket| add(&mut waiters, ticket));
        let mut asked = 0;
        for _ in 0..3 {
            for key in [b"c", b"a", b"b"] {
                waiters.mark(0, key);
                let ready = waiters.take_ready().unwrap();
                asked += usize::from(waiters.set_aside(ready, 7));
            }
        }
        assert_eq!(asked, 1);
        assert!(waiters.is_stuck_on(7) && !waiters.is_stuck_on(6) && !waiters.has_ready());
        waiters.retry(7);
        assert!(!waiters.is_stuck_on(7));
        let order: Vec<_> = std::iter::from_fn(|| waiters.take_ready())
            .map(|ready| ready.key)
            .collect();
        assert_eq!(order, [b"c", b"a", b"b"].map(|key| Box::from(&key[..])));
    }

    #[test]
    fn who_stands_behind_a_stuck_ticket_is_looked_at_when_that_goes() {
        let mut waiters = Waiters::default();
        let (first, second) = (ticket("a", false), ticket("a", false));
        add(&mut waiters, &first);
        add(&mut waiters, &second);
        waiters.mark(0, b"a");
        let ready = waiters.take_ready().unwrap();
        assert!(waiters.set_aside(ready, 1));
        waiters.remove(&first);
        let ready = waiters.take_ready().unwrap();
        // It needs a third shard. The retry of the first one still comes, and finds nothing.
        assert!(waiters.set_aside(ready, 2));
        waiters.retry(1);
        assert!(!waiters.has_ready());
        waiters.remove(&second);
        assert!(waiters.is_empty());
        waiters.retry(2);
        assert!(!waiters.has_ready());
    }

    #[test]
    fn tickets_of_several_shards_are_told_of_other_kinds() {
        let mut waiters = Waiters::default();
        let (spanning, other) = (ticket_over("ab", Kind::Stream, true), ticket("a", false));
        add(&mut waiters, &spanning);
        add(&mut waiters, &other);
        let mut look = |found: Option<Found>| {
            waiters.mark(0, b"a");
            let ready = waiters.take_ready().unwrap();
            waiters.candidate(&ready, 0, found);
            [1, 2].map(|position| spanning.is_barred_at(position, 1000))
        };
        assert_eq!(look(found(Kind::List)), [true, false]);
        assert_eq!(look(None), [false, false]);
        assert_eq!(look(found(Kind::String)), [true, false]);
        assert_eq!(look(found(Kind::Stream)), [false, false]);
        let until = |until_ms| {
            Some(Found {
                kind: Kind::Set,
                until_ms,
            })
        };
        assert_eq!(look(until(1000)), [true, false]);
        assert_eq!(look(until(999)), [false, false]);
    }
}
