//! The event loop of one shard: one thread that owns the shard and carries its share of the connections.
//!
//! A turn:
//! 1. wait for sockets, the inbox and timers;
//! 2. take in messages; read every ready socket once, parse, check, and sort the commands by shard (`requests`);
//! 3. run what is for this shard, entries prefetched; borrow other shards, or send them batches (`batches`);
//! 4. write every connection that has output; cron within its time (`write`, `cron`).
//!
//! [`Clients`] are the connections of the loop, [`Reach`] is what it has under way elsewhere, [`Turn`] what a turn collects.
//! Commands that do not run in batches run in `run`; those over several shards get there through `lend`, and leave what takes
//! very long to a thread (`errand`); those that every
//! shard or loop does by itself through `gather`, those that wait through `block`, those that wait for what was admitted before
//! through `fences`. What is published reaches connections in
//! `publish`; scripts that run for long are in `scripts`; what becomes known of commands that have run is in `observe`.

mod accept;
mod apply;
mod batches;
mod block;
mod clients;
mod cron;
mod decided;
mod depart;
mod doomed;
mod errand;
mod evict;
mod expire;
mod fences;
mod gather;
mod hand_over;
mod handshakes;
mod invalidate;
mod ledger;
mod lend;
mod observe;
mod publish;
mod reach;
mod redirects;
mod requests;
mod run;
mod scripts;
mod snapshot;
mod turn;
mod users;
mod write;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::config::Settings;
use crate::connection::handover::LinkClients;
use crate::daemon::call_loop;
use crate::dispatch::execution::Environment;
use crate::exec::{Reload, Stamp};
use crate::journal::Recorder;
use crate::limits::TURN_NS;
use crate::observe::process;
use crate::pubsub::Publication;
use crate::shard::Mesh;
use crate::shard::departures::Departures;
use crate::shard::inbox::Message;
use crate::shard::poll::{Event, Poll};
use crate::state::Node;
pub(crate) use accept::Acceptor;
use apply::Applying;
use clients::Clients;
use cron::Cron;
use decided::Decided;
use evict::Evicting;
use expire::Expiry;
use handshakes::Handshakes;
use ledger::Ledger;
use reach::{Reach, Work};
use snapshot::Saving;
use turn::Turn;

/// The loop of one shard.
#[derive(Debug)]
pub(crate) struct EventLoop {
    index: usize,
    node: Arc<Node>,
    inbox: Receiver<Message>,
    poll: Poll,
    /// One loop's view of the node's listeners.
    acceptor: Acceptor,
    clients: Clients,
    /// Memory of the connections.
    ledger: Ledger,
    reach: Reach,
    turn: Turn,
    /// Messages for connections of this loop, taken from its mailbox.
    published: VecDeque<Publication>,
    cron: Cron,
    expiry: Expiry,
    settings: Arc<Settings>,
    /// Time and rules of access, as of the last look at the clock.
    stamp: Stamp,
    /// Time of that look, on the node's stopwatch, nanoseconds.
    looked_ns: u64,
    /// When this turn has no time left for further batches, on the node's stopwatch.
    turn_until_ns: u64,
    now_us: i64,
    /// The node's count of news when this turn began.
    news: u64,
    evicting: Evicting,
    saving: Saving,
    applying: Applying,
    /// The partition has keys of slots that have gone to another node.
    has_doomed_keys: bool,
    /// Clients whose replies wait for the bus.
    decided: Vec<Decided>,
    /// Number of the map of slots that the loop's clients are known to agree with.
    followed_map: Option<u64>,
    /// The node's clients that are links.
    links: Arc<LinkClients>,
    /// The way of keys that leave for another node.
    departures: Arc<Departures>,
    /// Version of the users that all connections have taken over.
    users_version: u64,
    /// Handshakes of TLS.
    handshakes: Handshakes,
}

impl EventLoop {
    /// A loop over the parts that the node's start has built.
    pub(crate) fn new(
        index: usize,
        node: Arc<Node>,
        mesh: Arc<Mesh>,
        inbox: Receiver<Message>,
        poll: Poll,
        acceptor: Acceptor,
        recorder: Recorder,
    ) -> Self {
        let shards = mesh.len();
        let settings = node.settings.load_full();
        let now_us = node.clock.now_us();
        let stamp = Stamp::on(&node, &settings, now_us / 1000);
        Self {
            index,
            inbox,
            poll,
            acceptor,
            clients: Clients::default(),
            ledger: Ledger::default(),
            reach: Reach::new(index, mesh, recorder),
            turn: Turn::new(shards),
            published: VecDeque::new(),
            cron: Cron::new(now_us),
            expiry: Expiry::new(),
            settings,
            stamp,
            looked_ns: 0,
            turn_until_ns: 0,
            now_us,
            news: 0,
            evicting: Evicting::default(),
            saving: Saving::default(),
            applying: Applying::default(),
            has_doomed_keys: false,
            decided: Vec::new(),
            followed_map: None,
            links: Arc::default(),
            departures: Arc::default(),
            users_version: node.acl.version(),
            handshakes: Handshakes::default(),
            node,
        }
    }

    /// The same loop, whose connections can become links, and whose keys can leave for other nodes.
    pub(crate) fn with_links(mut self, links: Arc<LinkClients>, departures: Arc<Departures>) -> Self {
        self.links = links;
        self.departures = departures;
        self
    }

    /// The same loop, whose commands can have the node's files read again.
    pub(crate) fn with_reload(mut self, reload: Arc<dyn Reload>) -> Self {
        self.reach.reload = Some(reload);
        self
    }

    /// The node that the loop belongs to.
    pub(crate) fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    /// Runs turns until the node stops.
    ///
    /// # Errors
    /// When the system can no longer report which sockets are ready.
    pub(crate) fn run(mut self) -> io::Result<()> {
        self.node.stats[self.index].thread.set(process::thread_number());
        let _witness = call_loop(&raw const self);
        while !self.node.shutdown.is_requested() {
            self.wait()?;
            self.node.debug.freeze.pass();
            self.begin_turn();
            let has_mail = !self.inbox.is_empty();
            self.go_on();
            self.answer_busy();
            self.take_in_messages();
            self.release_held();
            self.accept();
            self.retry_busy();
            self.retry_behind_script();
            self.resume_paused();
            self.apply();
            let has_work = !self.clients.queue.is_empty();
            self.serve_and_execute();
            self.go_on_with_script();
            self.apply();
            self.notice_role();
            self.pass_fences();
            self.pass_fence_of_node();
            self.end_waits_in_time();
            self.end_waits_for_writes();
            self.answer_decided();
            self.empty_outbox();
            self.hand_on_lines();
            self.deliver_published();
            self.release_pushed(has_work);
            // Evicts before a client can see the reply to a changed limit, or to what was stored under the old one.
            self.make_room();
            self.write();
            self.run_cron();
            self.expire(has_work || has_mail);
            self.delete_doomed();
            self.save(has_work || has_mail);
            self.close_connections();
            self.hand_over_leaving();
            self.evict_clients();
            self.end_turn();
        }
        self.farewell();
        Ok(())
    }

    /// Whether there is work for which the loop does not sleep.
    fn has_work(&self) -> bool {
        !self.clients.queue.is_empty()
            || self.evicting.goes_on
            || !self.clients.dirty.is_empty()
            || !self.clients.busy.is_empty()
            || self.acceptor.is_ready()
            || !self.reach.outbox.borrow().is_empty()
            || self.reach.goes_on
            || self.reach.script.is_some()
            || self.has_published()
            || self.has_invalidations()
            || self.has_released()
            || self.has_awaited_writes()
            || self.has_garbage()
            || self.is_saving()
            || self.may_apply()
            || self.may_delete_doomed()
    }

    /// Step 1: waits for events, unless there is work to do at once.
    fn wait(&mut self) -> io::Result<()> {
        debug_assert!(
            self.reach.recorder.is_empty(),
            "a partition was let go of before its effects were handed over"
        );
        let timeout = self.time_to_sleep(self.has_work());
        let Self {
            poll,
            clients,
            acceptor,
            inbox,
            saving,
            ..
        } = self;
        let (bell, mailbox) = (
            self.reach.mesh.bell(self.index),
            self.node.pubsub.mailbox(self.index),
        );
        let invalidations = self.node.tracking.mailbox(self.index);
        let (node, news, shard) = (&self.node, self.news, self.index);
        let due_sooner = &node.due_sooner[self.index];
        let is_idle = || {
            inbox.is_empty()
                && mailbox.is_empty()
                && !invalidations.has_mail()
                && !due_sooner.load(Ordering::SeqCst)
                && saving.may_sleep(shard)
                && !(shard == 0 && node.replication.following.has_news())
                && node.news() == news
                && !node.shutdown.is_requested()
        };
        let may_sleep = timeout.is_zero() || bell.may_sleep(is_idle);
        let timeout = if may_sleep { timeout } else { Duration::ZERO };
        poll.wait(timeout, |event| match event {
            Event::Accept { listener } => {
                acceptor.mark_ready(listener);
            }
            Event::Socket {
                connection: number,
                readable,
                writable,
                ended,
            } => {
                let Some(connection) = clients.get_mut(number) else {
                    return;
                };
                connection.ends |= ended;
                connection.readable |= readable;
                let has_to_write = connection.has_to_write();
                if readable || ended {
                    clients.enqueue(number);
                }
                if writable && has_to_write {
                    clients.mark_dirty(number);
                }
            }
        })?;
        bell.awake();
        Ok(())
    }

    /// Looks at the clock and the settings, once for the turn.
    fn begin_turn(&mut self) {
        if let Some(stall) = self.node.debug.stalled(|| self.node.clock.elapsed_ns()) {
            std::thread::sleep(stall);
        }
        // News are counted before the state is read: a change announces itself afterwards, so none is missed.
        self.news = self.node.news();
        self.now_us = self.node.clock.now_us();
        self.looked_ns = self.node.clock.elapsed_ns();
        self.turn_until_ns = self.looked_ns + TURN_NS;
        self.node.deal.begin_turn(self.index, self.now_us);
        self.take_settings();
        self.follow_users();
        self.follow_slots();
        self.evicting.begin_turn();
        self.handshakes.begin_turn();
        self.acceptor.follow(&self.poll);
        self.node.stats[self.index].turns.add(1);
    }

    /// Takes over the current settings.
    fn take_settings(&mut self) {
        let settings = self.node.settings.load();
        if !Arc::ptr_eq(&settings, &self.settings) {
            self.settings = Arc::clone(&settings);
        }
        self.stamp = Stamp::on(&self.node, &self.settings, self.now_ms());
    }

    /// Looks at the clock for the commands that run next.
    fn look_at_clock(&mut self) {
        self.looked_ns = self.node.clock.elapsed_ns();
        self.now_us = self.node.clock.now_us();
        self.stamp = Stamp::on(&self.node, &self.settings, self.now_ms());
    }

    /// Whether this turn has no time left for further batches, as of the last look at the clock.
    #[inline]
    fn is_turn_over(&self) -> bool {
        self.looked_ns >= self.turn_until_ns
    }

    fn now_ms(&self) -> i64 {
        self.now_us / 1000
    }

    /// The environment of the commands that run now.
    fn environment(&self) -> Environment<'_> {
        let looked = (self.stamp, self.looked_ns);
        self.reach.environment(&self.node, &self.settings, looked)
    }

    /// Step 2, first part: handles the messages of other loops.
    fn take_in_messages(&mut self) {
        // Messages that arrive meanwhile are handled in the next turn, so that they cannot keep sockets waiting.
        let waiting = self.inbox.len();
        self.node.stats[self.index].inbox.set(waiting as u64);
        for _ in 0..waiting {
            if self.is_turn_over() {
                // Messages bring long replies, too. The rest is handled in the next turn, for which the loop does not sleep.
                return;
            }
            let Ok(message) = self.inbox.try_recv() else { break };
            // The message may bring a reply that came of a change which the client is to be told of first.
            self.deliver_invalidations();
            self.node.stats[self.index].messages.add(1);
            match message {
                Message::Run(batch) => self.work(Work::Run(batch)),
                Message::Done(batch) => self.deliver(batch),
                Message::Lend {
                    borrower,
                    operation,
                    is_urgent,
                } => self.work(Work::Lend {
                    borrower,
                    operation,
                    is_urgent,
                }),
                Message::GiveWay(request) => self.give_way(&request),
                Message::Lent { operation, partition } => self.lent(operation, partition),
                Message::Back { operation, back } => self.came_back(operation, *back),
                Message::Landed { operation, landed } => self.landed(operation, landed),
                Message::Returned => self.returned(),
                Message::Fence { origin, gathering } => self.await_fence(origin, gathering),
                Message::Gather(gather) => {
                    self.leave_out_of_depth();
                    self.take_part(gather);
                }
                Message::Walk(walking) => self.work(Work::Walk(walking)),
                Message::Gathered {
                    gathering,
                    from,
                    part,
                } => {
                    self.leave_out_of_depth();
                    self.gathered(gathering, from, part);
                }
                Message::Served(served) => self.answer_served(*served),
                Message::Withdraw(ticket) => self.work(Work::Withdraw(ticket)),
                Message::Serve(retry) => self.work(Work::Serve(retry)),
                Message::Monitor(lines) => self.take_in_lines(&lines),
                Message::Connect { socket, peer } => self.connect(socket, peer),
            }
        }
    }

    /// Excludes a message that asks for a part, or answers that, from the count of waiting messages: else INFO would
    /// count itself.
    fn leave_out_of_depth(&self) {
        let depth = &self.node.stats[self.index].inbox;
        let waiting = depth.get();
        debug_assert!(waiting > 0, "the message that is handled was counted");
        depth.set(waiting - 1);
    }
}
