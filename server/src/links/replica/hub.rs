//! [`Hub`]: all links to replicas of a node.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, oneshot};

use super::transfer::{Start, Transfer, Waiter};
use super::{End, Link};
use crate::connection::handover::LinkClients;
use crate::exec::{Client, Peer};
use crate::journal::Position;
use crate::journal::backlog::{Cursor, Overrun};
use crate::replication::{Introduction, Replica, Stage, SyncRequest};
use crate::saving::{Delivery, Purpose};
use crate::state::Node;

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const GETACK: &[u8] = b"*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n";

/// Interval between two ticks, microseconds.
const TICK_US: i64 = 1_000_000;

/// The links to replicas.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) node: Arc<Node>,
    clients: Arc<LinkClients>,
    links: RefCell<Vec<Rc<Link>>>,
    /// Links that wait for a snapshot, in the order in which they came.
    waiters: RefCell<Vec<Waiter>>,
    transfer: RefCell<Option<Transfer>>,
    /// Time of the next tick, Unix microseconds.
    next_tick_us: Cell<i64>,
    ticks: Cell<u64>,
    /// Time since which there are no replicas, Unix microseconds.
    alone_since_us: Cell<i64>,
    /// Bytes of links when the last second ended: sent, and received.
    counted: Cell<(u64, u64)>,
    /// Number of changes of the stream's history that the links were told of.
    histories: Cell<u64>,
}

impl Hub {
    pub(super) fn new(node: Arc<Node>, clients: Arc<LinkClients>) -> Self {
        let now_us = node.clock.now_us();
        Self {
            node,
            clients,
            links: RefCell::default(),
            waiters: RefCell::default(),
            transfer: RefCell::default(),
            next_tick_us: Cell::new(now_us + TICK_US),
            ticks: Cell::new(0),
            alone_since_us: Cell::new(now_us),
            counted: Cell::new((0, 0)),
            histories: Cell::new(0),
        }
    }

    /// Adds a link for a client.
    pub(super) fn add(&self, client: Client, introduction: Introduction) -> Rc<Link> {
        let now_us = self.node.clock.now_us();
        let address = introduction.address.clone().unwrap_or_else(|| host(&client.peer));
        let replica = Arc::new(Replica::new(client.id, address, introduction.port, now_us));
        self.node.replication.replicas.add(Arc::clone(&replica));
        let link = Rc::new(Link {
            replica,
            client: self.clients.add(client),
            introduction,
            tick: Notify::new(),
            acknowledged: Notify::new(),
            cursor: Cell::new(None),
            history: self.node.replication.replicas.histories(),
            sent_us: Cell::new(now_us),
            reason: Cell::new(None),
        });
        self.links.borrow_mut().push(Rc::clone(&link));
        link
    }

    /// Removes a link that has ended.
    pub(super) fn remove(&self, link: &Rc<Link>, end: &End) {
        if matches!(end, End::TooSlow) {
            // The link has noticed before the tick that would have told the reason.
            self.end_cut_cursors();
        }
        let (name, log) = (link.replica.name(), &self.node.log);
        match (end, link.reason.get()) {
            (End::Ended | End::TooSlow, Some(reason)) => {
                log.warning(format_args!("Disconnecting {reason}: {name}"));
            }
            (End::NoSnapshot, _) => log.warning(format_args!(
                "Replica {name} gets no snapshot, its link is closed"
            )),
            (End::Protocol, _) => log.warning(format_args!("Replica {name} does not keep to the protocol")),
            (End::Lost(error), _) => log.verbose(format_args!("The link to replica {name} broke: {error}")),
            (End::Complete | End::TooSlow | End::Ended, _) => {}
        }
        log.notice(format_args!("Connection with replica {name} lost."));
        self.links.borrow_mut().retain(|other| !Rc::ptr_eq(other, link));
        self.clients.remove(&link.client);
        self.node.clients.fetch_sub(1, Ordering::Relaxed);
        if self.node.replication.replicas.remove(link.replica.id) == 0 {
            self.alone_since_us.set(self.node.clock.now_us());
        }
        self.count_healthy();
        self.node.links_bell.notify_waiters();
    }

    /// The place from which a replica goes on, if what it lacks is still there.
    pub(super) fn resume(&self, link: &Link, request: &SyncRequest) -> Option<Cursor> {
        let (log, name) = (&self.node.log, link.replica.name());
        let SyncRequest::Partial { id, next } = request else {
            log.notice(format_args!("Full resync requested by replica {name}"));
            return None;
        };
        if id == "?" {
            log.notice(format_args!("Full resync requested by replica {name}"));
            return None;
        }
        let figures = &self.node.replication.replicas.figures;
        match self.cursor_for(id, *next) {
            Ok(cursor) => {
                figures.partial.fetch_add(1, Ordering::Relaxed);
                log.notice(format_args!(
                    "Partial resynchronization request from {name} accepted. Sending {} bytes of backlog starting from offset \
                     {next}.",
                    cursor.unsent()
                ));
                Some(cursor)
            }
            Err(why) => {
                figures.partial_refused.fetch_add(1, Ordering::Relaxed);
                log.notice(format_args!("{why}"));
                None
            }
        }
    }

    fn cursor_for(&self, id: &str, next: i64) -> Result<Cursor, String> {
        let history = self.node.replication.history.lock();
        let at = u64::try_from(next).ok().filter(|&next| next > 0);
        if !at.is_some_and(|next| history.covers(id.as_bytes(), next)) {
            return Err(format!(
                "Partial resynchronization not accepted: Replication ID mismatch (Replica asked for '{id}' from offset {next}, my \
                 replication IDs are '{}' and '{}')",
                history.id(),
                history.second_id()
            ));
        }
        let cursor = at.and_then(|next| self.node.journal.cursor(Position::at(next - 1)));
        cursor.ok_or_else(|| {
            let kept = self.node.journal.backlog().unwrap_or_default();
            format!(
                "Unable to partial resync with a replica for lack of backlog (Replica request was: {next}, the backlog has {} bytes \
                 from offset {}). A larger repl-backlog-size would keep more.",
                kept.length, kept.first
            )
        })
    }

    /// Has a link wait for a snapshot. The start comes when that is made.
    pub(super) fn enqueue(&self, link: &Rc<Link>) -> oneshot::Receiver<Start> {
        let (start, started) = oneshot::channel();
        self.node
            .replication
            .replicas
            .figures
            .full
            .fetch_add(1, Ordering::Relaxed);
        self.waiters.borrow_mut().push(Waiter {
            link: Rc::clone(link),
            since_us: self.node.clock.now_us(),
            start,
        });
        self.node.links_bell.notify_waiters();
        started
    }

    /// Does what there is to do.
    pub(super) fn look(&self) {
        let now_us = self.node.clock.now_us();
        let histories = self.node.replication.replicas.histories();
        if self.histories.replace(histories) != histories {
            let links = self.links.borrow();
            let old = links.iter().filter(|link| link.history != histories);
            old.for_each(|link| self.end(link, "replica of an old history"));
        }
        if self.node.journal.has_broken_backlog() && !self.node.replication.following.is_replica() {
            self.begin_history();
        }
        if now_us >= self.next_tick_us.get() {
            self.next_tick_us.set(now_us + TICK_US);
            self.tick(now_us);
        }
        // While the node waits for replicas to have everything, nothing more is sent.
        if self.node.pause.causes().is_empty() && self.node.replication.replicas.take_asked() {
            self.node.journal.append_raw(GETACK);
        }
        self.node.look_at_failover();
        self.look_at_transfer();
        self.begin_transfer(now_us);
    }

    /// Sees to the snapshot that is under way.
    fn look_at_transfer(&self) {
        self.waiters.borrow_mut().retain(|waiter| !waiter.is_over());
        let mut place = self.transfer.borrow_mut();
        let Some(transfer) = place.as_mut() else { return };
        transfer.forget_gone();
        let waiters = self.waiters.take();
        let left = waiters
            .into_iter()
            .filter_map(|waiter| transfer.take_in(waiter, &self.node).err())
            .collect();
        self.waiters.replace(left);
        transfer.start_joined(&self.node);
        if !transfer.is_under_way() {
            *place = None;
        } else if !transfer.is_wanted() {
            let given_up = self
                .node
                .persistence
                .give_up(|purpose| purpose == Purpose::Replicas);
            if given_up {
                let log = &self.node.log;
                log.notice(format_args!(
                    "No replica waits for the snapshot any more, it is given up"
                ));
            }
        }
    }

    /// Begins a snapshot, if replicas wait for one, and no more are expected.
    fn begin_transfer(&self, now_us: i64) {
        if self.transfer.borrow().is_some() || self.node.persistence.purpose().is_some() {
            return;
        }
        let (settings, mut waiters) = (self.node.settings.load(), self.waiters.borrow_mut());
        let Some(first) = waiters.first() else { return };
        let (contents, delivery) = (first.contents(), first.delivery(&settings));
        let waited_us = now_us - first.since_us;
        let fits = |waiter: &Waiter| waiter.fits(contents, delivery);
        let count = waiters.iter().filter(|waiter| fits(waiter)).count();
        let is_enough = settings.repl_diskless_sync_max_replicas > 0
            && count >= settings.repl_diskless_sync_max_replicas as usize;
        let is_due = waited_us >= i64::from(settings.repl_diskless_sync_delay) * 1_000_000;
        if delivery == Delivery::Live && !is_enough && !is_due {
            return;
        }
        let group: Vec<Waiter> = waiters.extract_if(.., |waiter| fits(waiter)).collect();
        let (transfer, job) = Transfer::begin(&self.node, contents, delivery, group);
        match self.node.persistence.begin(job, now_us) {
            Ok(_) => {
                let target = match delivery {
                    Delivery::Live => "replicas sockets",
                    Delivery::Whole => "disk",
                };
                let log = &self.node.log;
                log.notice(format_args!("Starting a snapshot for SYNC with target: {target}"));
                *self.transfer.borrow_mut() = Some(transfer);
            }
            Err(_) => {
                // Something else was quicker.
                waiters.splice(0..0, transfer.abandon());
            }
        }
    }

    /// Does what is due once a second.
    fn tick(&self, now_us: i64) {
        self.ticks.set(self.ticks.get() + 1);
        let settings = self.node.settings.load();
        let links: Vec<Rc<Link>> = self.links.borrow().clone();
        let period = u64::from(settings.repl_ping_replica_period);
        if !links.is_empty() && self.ticks.get().is_multiple_of(period) {
            self.ping();
        }
        self.end_cut_cursors();
        let timeout_us = i64::from(settings.repl_timeout) * 1_000_000;
        for link in &links {
            link.tick.notify_waiters();
            let unsent = link
                .cursor
                .get()
                .and_then(|cursor| self.node.journal.unsent_of(cursor));
            link.client
                .unsent
                .store(unsent.unwrap_or_default(), Ordering::Relaxed);
            match link.replica.stage() {
                Stage::Follows | Stage::Done if link.replica.silent_us(now_us) > timeout_us => {
                    self.end(link, "timedout replica (streaming sync)");
                }
                Stage::Loads if link.replica.silent_us(now_us) > timeout_us => {
                    self.end(link, "timedout replica (full sync)");
                }
                Stage::Receives | Stage::Copies if now_us - link.sent_us.get() > timeout_us => {
                    self.end(link, "timedout replica (full sync)");
                }
                Stage::Waits
                | Stage::Receives
                | Stage::Copies
                | Stage::Loads
                | Stage::Done
                | Stage::Follows => {}
            }
        }
        self.count_healthy();
        self.count_bytes();
        self.free_backlog(now_us, settings.repl_backlog_ttl);
    }

    /// Takes the rates of the second that has passed.
    fn count_bytes(&self) {
        let figures = &self.node.replication.replicas.figures;
        let count = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let now = (count(&figures.bytes_out), count(&figures.bytes_in));
        let before = self.counted.replace(now);
        // CONFIG RESETSTAT lets the figures begin anew.
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        for (rate, bytes) in [
            (&figures.bytes_out_per_second, since(now.0, before.0)),
            (&figures.bytes_in_per_second, since(now.1, before.1)),
        ] {
            rate.store(bytes, Ordering::Relaxed);
        }
    }

    /// Begins another history, since a change of the data is missing in the one so far: replicas get all data again.
    fn begin_history(&self) {
        self.node.log.warning(format_args!(
            "The stream to replicas lacks changes: they are synchronised anew"
        ));
        self.node.replication.history.lock().change(self.node.ids.fresh());
        self.node.journal.close_backlog();
        self.links
            .borrow()
            .iter()
            .for_each(|link| self.end(link, "replica whose stream lacks changes"));
    }

    /// Has replicas know that this node is there.
    fn ping(&self) {
        if self.node.pause.causes().is_empty() {
            self.node.journal.append_raw(PING);
        }
    }

    /// Keeps the stream no longer, if there have been no replicas for some time. Its history ends with that: what changes until it is
    /// kept again is in no offset.
    fn free_backlog(&self, now_us: i64, ttl_s: u64) {
        if self.node.replication.following.is_replica() {
            // The stream is the primary's: others may continue with it when this node is promoted.
            return self.alone_since_us.set(now_us);
        }
        let alone_us = now_us - self.alone_since_us.get();
        let is_over = ttl_s > 0 && alone_us / 1_000_000 >= ttl_s.cast_signed();
        if !is_over || !self.links.borrow().is_empty() || self.transfer.borrow().is_some() {
            return;
        }
        if self.node.journal.backlog().is_some() {
            self.node.replication.history.lock().change(self.node.ids.fresh());
            self.node.journal.close_backlog();
            self.node.log.notice(format_args!(
                "Replication backlog freed after {ttl_s} seconds without connected replicas."
            ));
        }
    }

    /// Ends the links that were slower than their limits.
    fn end_cut_cursors(&self) {
        for overrun in self.node.journal.take_cut_cursors() {
            self.end_slow(overrun);
        }
    }

    /// Ends the link of a cursor that was cut, and tells which directive would have prevented that.
    fn end_slow(&self, overrun: Overrun) {
        let Overrun {
            cursor,
            unsent,
            is_soft,
        } = overrun;
        let links = self.links.borrow();
        let Some(link) = links.iter().find(|link| link.cursor.get() == Some(cursor)) else {
            return;
        };
        let which = if is_soft { "soft" } else { "hard" };
        self.node.log.warning(format_args!(
            "Replica {} is slower than its output limit allows: {unsent} bytes of the stream wait for it, beyond the {which} limit of \
             'client-output-buffer-limit replica' and beyond 'repl-backlog-size'. A limit above {} bytes would do.",
            link.replica.name(),
            unsent.next_power_of_two()
        ));
        let figures = &self.node.replication.replicas.figures;
        figures.too_slow.fetch_add(1, Ordering::Relaxed);
        self.end(link, "replica for overcoming of output buffer limits");
    }

    fn end(&self, link: &Link, reason: &'static str) {
        link.reason.set(Some(reason));
        link.client.end.notify_one();
    }

    /// Notes that a replica has a snapshot.
    pub(super) fn note_transferred(&self, link: &Link) {
        self.node.log.notice(format_args!(
            "Synchronization with replica {}: the snapshot was sent",
            link.replica.name()
        ));
    }

    /// Notes that a replica follows the stream.
    pub(super) fn note_online(&self, link: &Link) {
        self.count_healthy();
        self.node.log.notice(format_args!(
            "Synchronization with replica {} succeeded",
            link.replica.name()
        ));
    }

    /// Notes that a replica has acknowledged something.
    pub(super) fn note_acknowledged(&self) {
        self.node.journal.note_acknowledged(|| self.node.ring_all());
        if self.node.shutdown.is_waiting() {
            self.node.control_bell.notify_one();
        }
        self.node.look_at_failover();
    }

    fn count_healthy(&self) {
        let lag_max_s = self.node.settings.load().min_replicas_max_lag;
        let replicas = &self.node.replication.replicas;
        replicas.count_healthy(lag_max_s, self.node.clock.now_us());
    }
}

/// The address of a client without its port.
fn host(peer: &Peer) -> String {
    match peer {
        Peer::Tcp { remote, .. } => remote.ip().to_string(),
        Peer::Unix(path) => path.to_string(),
    }
}
