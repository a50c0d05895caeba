//! The event loop of one shard: one thread that owns the shard and carries its share of the connections.
//!
//! A turn:
//! 1. wait for sockets, the inbox and timers;
//! 2. take in messages; read every ready socket once, parse, check, and sort the commands by shard (`turn`);
//! 3. run what is for this shard, entries prefetched; borrow other shards, or send them batches (`turn`);
//! 4. write every connection that has output; cron within its time (`cron`).
//!
//! Commands over several shards are in `lend`, those that every shard or loop does by itself in `gather`; what is published
//! reaches connections in `publish`; what becomes known of commands that have run is in `observe`.

/// What the commands of a turn share. Borrows only the parts of the loop that it is made of, so that the others can change
/// meanwhile.
macro_rules! environment {
    ($loop:ident) => {
        $crate::dispatch::run::Environment {
            hasher: $loop.node.hasher,
            stamp: $loop.stamp,
            settings: &$loop.settings,
            shards: $loop.node.shards,
            clock: &$loop.node.clock,
            stats: &$loop.node.stats[$loop.index],
            slow_from_ns: $crate::dispatch::account::slow_from_ns(&$loop.settings),
            mesh: &$loop.mesh,
            outbox: &$loop.outbox,
        }
    };
}

mod accept;
mod block;
mod cron;
mod expire;
mod evict;
mod gather;
mod lend;
mod observe;
mod publish;
mod turn;

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use shardis_protocol::Requests;
use slab::Slab;

use crate::config::Settings;
use crate::connection::Connection;
use crate::connection::output::Written;
use crate::dispatch::run::Environment;
use crate::exec::partition::Journal;
use crate::exec::waiter::{Outbox, Ticket};
use crate::exec::{Closing, Stamp};
use crate::observe::process;
use crate::pubsub::Publication;
use crate::shard::Mesh;
use crate::shard::chunk::ChunkPool;
use crate::shard::inbox::{Batch, Gather, Message, Source, Task};
use crate::shard::poll::{Event, Poll};
use crate::state::Node;
pub(crate) use accept::Acceptor;
use cron::Cron;
use expire::Expiry;
use gather::Gathering;
use lend::Operation;

/// The loop of one shard.
#[derive(Debug)]
pub(crate) struct EventLoop {
    index: usize,
    node: Arc<Node>,
    mesh: Arc<Mesh>,
    inbox: Receiver<Message>,
    poll: Poll,
    /// Listeners, on the first loop.
    acceptor: Option<Acceptor>,
    /// Where the effects of commands go that work on no partition; none when nobody listens.
    journal: Option<Journal>,
    connections: Slab<Connection>,
    /// Connections to serve in this turn, or in the next one.
    queue: Vec<usize>,
    /// Connections with output to write.
    dirty: Vec<usize>,
    /// Connections whose command found a shard taken that it needs, and tries again.
    busy: Vec<usize>,
    /// Connections that wait for the end of a CLIENT PAUSE.
    paused: Vec<usize>,
    /// Connections that are to be closed.
    closing: Vec<usize>,
    /// Work for this shard that waits until its partition is back.
    waiting: VecDeque<Work>,
    /// Commands over several shards that connections of this loop wait for.
    operations: Slab<Operation>,
    /// Commands over all shards or loops that connections of this loop wait for.
    gatherings: Slab<Gathering>,
    /// When the waits of connections end: Unix milliseconds and the connection.
    deadlines: BTreeSet<(i64, usize)>,
    /// How many connections wait for a key.
    blocked: u64,
    /// What became known while waiting commands were served.
    outbox: RefCell<Outbox>,
    /// Batches under way, by shard: while there are any, further ones follow the same way, in order.
    under_way: Vec<u32>,
    turn: Turn,
    /// Connections that see all commands.
    monitors: Vec<usize>,
    /// Lines of this turn's commands, for all monitors of the node.
    lines: Vec<u8>,
    /// What was published to connections of this loop, and taken from its mailbox.
    published: VecDeque<Publication>,
    /// Connections with messages in their output, which may wait a little for more of them.
    pushed_to: Vec<usize>,
    /// For how many turns some of them have waited.
    pushed_turns: u32,
    cron: Cron,
    expiry: Expiry,
    settings: Arc<Settings>,
    stamp: Stamp,
    now_us: i64,
    out_of_memory: bool,
}

/// Work that needs this shard's partition.
#[derive(Debug)]
enum Work {
    Run(Box<Batch>),
    Lend { borrower: usize, operation: usize },
    Gather(Arc<Gather>),
    Withdraw(Arc<Ticket>),
    Serve,
}

/// What a turn collects. Its memory is used turn after turn.
#[derive(Debug)]
struct Turn {
    pool: ChunkPool,
    source: Source,
    /// The chunk that is being filled, and how far.
    filled: Option<(u16, usize)>,
    requests: Requests,
    /// Commands by shard.
    tasks: Vec<Vec<Task>>,
    /// Which shards have commands whose cost is not constant.
    long: Vec<bool>,
    /// Replies nobody is to see.
    scratch: Vec<u8>,
    #[expect(clippy::vec_box, reason = "batches travel as boxes, and come back as such")]
    batches: Vec<Box<Batch>>,
}

impl EventLoop {
    /// A loop over what the node's start has put together.
    pub(crate) fn new(
        index: usize,
        node: Arc<Node>,
        mesh: Arc<Mesh>,
        inbox: Receiver<Message>,
        poll: Poll,
        acceptor: Option<Acceptor>,
        journal: Option<Journal>,
    ) -> Self {
        let shards = mesh.len();
        let settings = node.settings.load_full();
        let now_us = node.clock.now_us();
        let stamp = Stamp::on(&node, &settings, now_us / 1000);
        Self {
            index,
            mesh,
            inbox,
            poll,
            acceptor,
            journal,
            connections: Slab::new(),
            queue: Vec::new(),
            dirty: Vec::new(),
            busy: Vec::new(),
            paused: Vec::new(),
            closing: Vec::new(),
            waiting: VecDeque::new(),
            operations: Slab::new(),
            gatherings: Slab::new(),
            deadlines: BTreeSet::new(),
            blocked: 0,
            outbox: RefCell::default(),
            under_way: vec![0; shards],
            turn: Turn {
                pool: ChunkPool::default(),
                source: Source::default(),
                filled: None,
                requests: Requests::new(),
                tasks: vec![Vec::new(); shards],
                long: vec![false; shards],
                scratch: Vec::new(),
                batches: Vec::new(),
            },
            monitors: Vec::new(),
            lines: Vec::new(),
            published: VecDeque::new(),
            pushed_to: Vec::new(),
            pushed_turns: 0,
            cron: Cron::new(now_us),
            expiry: Expiry::new(),
            settings,
            stamp,
            now_us,
            out_of_memory: false,
            node,
        }
    }

    /// The node that the loop belongs to.
    pub(crate) fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    /// Runs turns until the node is to end.
    ///
    /// # Errors
    /// When the system can no longer say which sockets are ready.
    pub(crate) fn run(mut self) -> io::Result<()> {
        self.node.stats[self.index].thread.set(process::thread_number());
        while !self.node.shutdown.is_requested() {
            self.wait()?;
            self.begin_turn();
            let has_mail = !self.inbox.is_empty();
            self.take_in_messages();
            self.accept();
            self.make_room();
            self.retry_busy();
            self.resume_paused();
            let has_work = !self.queue.is_empty();
            self.serve_and_execute();
            self.end_waits_in_time();
            self.empty_outbox();
            self.hand_on_lines();
            self.deliver_published();
            self.release_pushed(has_work);
            self.write();
            self.run_cron();
            self.expire(has_work || has_mail);
            self.close_connections();
            self.end_turn();
        }
        self.farewell();
        Ok(())
    }

    /// Step 1: waits, unless there is something to do at once.
    fn wait(&mut self) -> io::Result<()> {
        let busy = !self.queue.is_empty()
            || !self.dirty.is_empty()
            || !self.busy.is_empty()
            || !self.outbox.borrow().is_empty()
            || self.has_published()
            || self.has_garbage();
        let timeout = self.time_to_sleep(busy);
        let Self {
            poll,
            connections,
            queue,
            dirty,
            acceptor,
            mesh,
            inbox,
            index,
            node,
            ..
        } = self;
        let bell = mesh.bell(*index);
        let mailbox = node.pubsub.mailbox(*index);
        let is_idle = || inbox.is_empty() && mailbox.is_empty() && !node.shutdown.is_requested();
        let may_sleep = timeout.is_zero() || bell.may_sleep(is_idle);
        let timeout = if may_sleep { timeout } else { Duration::ZERO };
        poll.wait(timeout, |event| match event {
            Event::Accept { listener } => {
                if let Some(acceptor) = acceptor {
                    acceptor.mark_ready(listener);
                }
            }
            Event::Socket {
                connection: number,
                readable,
                writable,
                ended,
            } => {
                let Some(connection) = connections.get_mut(number) else {
                    return;
                };
                connection.ends |= ended;
                if readable || ended {
                    connection.readable |= readable;
                    if !connection.is_queued {
                        connection.is_queued = true;
                        queue.push(number);
                    }
                }
                let has_to_write =
                    connection.output.is_pending() || connection.client.closing == Closing::AfterReply;
                if writable && has_to_write && !connection.is_dirty {
                    connection.is_dirty = true;
                    dirty.push(number);
                }
            }
        })?;
        bell.awake();
        Ok(())
    }

    /// Looks at the clock and the settings, once for the whole turn.
    fn begin_turn(&mut self) {
        if let Some(stall) = self.node.debug.stalled(|| self.node.clock.elapsed_ns()) {
            std::thread::sleep(stall);
        }
        self.now_us = self.node.clock.now_us();
        self.take_settings();
        self.node.stats[self.index].turns.add(1);
    }

    /// Looks at the settings: what was changed holds from now on.
    fn take_settings(&mut self) {
        let settings = self.node.settings.load();
        if !Arc::ptr_eq(&settings, &self.settings) {
            self.settings = Arc::clone(&settings);
        }
        self.stamp = Stamp::on(&self.node, &self.settings, self.now_ms());
    }

    fn now_ms(&self) -> i64 {
        self.now_us / 1000
    }

    fn environment(&self) -> Environment<'_> {
        environment!(self)
    }

    /// Step 2, first part: what other loops sent.
    fn take_in_messages(&mut self) {
        // What arrives meanwhile is taken in by the next turn, so that messages cannot keep sockets waiting.
        let waiting = self.inbox.len();
        self.node.stats[self.index].inbox.set(waiting as u64);
        for _ in 0..waiting {
            let Ok(message) = self.inbox.try_recv() else { break };
            match message {
                Message::Run(batch) => self.work(Work::Run(batch)),
                Message::Done(batch) => self.deliver(batch),
                Message::Lend { borrower, operation } => self.work(Work::Lend { borrower, operation }),
                Message::Lent { operation, partition } => self.lent(operation, partition),
                Message::Returned(partition) => self.returned(partition),
                Message::Gather(gather) => {
                    self.leave_out_of_depth();
                    self.take_part(gather);
                }
                Message::Gathered {
                    gathering,
                    from,
                    part,
                    nanos,
                } => {
                    self.leave_out_of_depth();
                    self.gathered(gathering, from, part, nanos);
                }
                Message::Served(served) => self.answer_served(*served),
                Message::Withdraw(ticket) => self.work(Work::Withdraw(ticket)),
                Message::Serve => self.work(Work::Serve),
                Message::Monitor(lines) => self.take_in_lines(&lines),
                Message::Connect { socket, peer } => self.connect(socket, peer),
            }
        }
    }

    /// A message that only asks, or answers who asked, is not counted as one that waits: else INFO would count itself.
    fn leave_out_of_depth(&self) {
        let depth = &self.node.stats[self.index].inbox;
        depth.set(depth.get().saturating_sub(1));
    }

    /// Puts a connection on the list to serve.
    fn enqueue(&mut self, number: usize) {
        let Some(connection) = self.connections.get_mut(number) else {
            return;
        };
        if !connection.is_queued {
            connection.is_queued = true;
            self.queue.push(number);
        }
    }

    fn mark_dirty(&mut self, number: usize) {
        let Some(connection) = self.connections.get_mut(number) else {
            return;
        };
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(number);
        }
    }

    /// Step 4: writes every connection that has output, once.
    fn write(&mut self) {
        let (mut written, mut writes, mut unfinished) = (0, 0, Vec::new());
        for number in std::mem::take(&mut self.dirty) {
            let Some(connection) = self.connections.get_mut(number) else {
                continue;
            };
            connection.is_dirty = false;
            writes += 1;
            let had_room = connection.output.has_room();
            match connection
                .output
                .write(&mut self.poll.link(&mut connection.socket, number), &mut written)
            {
                Ok(outcome) => {
                    if outcome == Written::More {
                        unfinished.push(number);
                    }
                    let done = outcome == Written::All;
                    let answered = done && connection.output.in_flight() == 0;
                    if answered
                        && connection.client.closing == Closing::AfterReply
                        && !self.poll.is_sending(number)
                    {
                        connection.client.closing = Closing::Now;
                    }
                    if !done && self.is_over_output_limit(number) {
                        self.disconnect(number);
                    } else if !had_room || self.connections[number].input.has_unparsed() {
                        self.enqueue(number);
                    }
                }
                Err(_) => connection.client.closing = Closing::Now,
            }
            if self.connections[number].client.closing == Closing::Now {
                self.closing.push(number);
            }
        }
        unfinished.into_iter().for_each(|number| self.mark_dirty(number));
        if written > 0 {
            let stats = &self.node.stats[self.index];
            stats.bytes_out.add(written);
            stats.writes.add(writes);
        }
    }

    /// Has a connection closed at the end of the turn.
    fn disconnect(&mut self, number: usize) {
        if let Some(connection) = self.connections.get_mut(number) {
            connection.client.closing = Closing::Now;
            self.closing.push(number);
        }
    }

    fn close_connections(&mut self) {
        for number in std::mem::take(&mut self.closing) {
            if let Some(mut connection) = self.connections.try_remove(number) {
                // Before the client can see that the connection is closed.
                connection.client.leave_all(&self.node.pubsub);
                self.poll.remove(&connection.socket, number);
                if connection.client.monitor {
                    self.monitor_left(number);
                }
                if let Some(ticket) = &connection.client.waits {
                    self.forget_wait(ticket);
                }
                self.node
                    .clients
                    .fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }

    /// Says what is still to be said, as far as sockets take it without waiting.
    fn farewell(&mut self) {
        self.dirty = self.connections.iter().map(|(number, _)| number).collect();
        self.write();
        // Hands over what was written, where that is not done by writing itself.
        let _ = self.poll.wait(Duration::ZERO, |_| {});
    }
}
