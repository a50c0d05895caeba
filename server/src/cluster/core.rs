//! [`Core`]: the machine of this node, which any thread may bring an event, and its decisions on their way to the bus.
//!
//! The machine does no I/O, so that it is behind a lock: a handler on a loop has its command decided at once, and its reply is in
//! order. What was decided is put into the queue of the bus's task before the lock is released, so that the task carries all
//! decisions out in the order in which they were made. The map for the loops is exchanged under the same lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use shardis_cluster::Machine;
use shardis_cluster::event::{Action, Actions, Command, Event, Now, Reply, TICK_MS};
use shardis_cluster::node::LinkId;
use shardis_cluster::wire::HEADER_BYTES;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Cluster;
use super::options::{Ports, options};
use crate::clock::Clock;
use crate::config::Settings;
use crate::limits::BUS_PUBLISHED_BYTES;

/// Time of the machine's clock at the start of the node's stopwatch, milliseconds: 0 stands for never.
const BEGIN_MS: u64 = 1_000;

/// Actions of events that were handled together, to be carried out in order.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) actions: Vec<Action>,
    /// Memory of a message that a client of this node has published, bytes.
    pub(crate) published_bytes: usize,
    /// Number of the batch, if a client waits until it is carried out.
    pub(crate) awaited: Option<u64>,
}

/// Source of events that are handled together.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// The task of the bus, or a change of directives.
    Bus,
    /// A client that publishes a message, which takes so many bytes; it may wait until the message is on its way.
    Publisher { bytes: usize, waits: bool },
    /// A client that waits for what its command brings about.
    Command,
}

/// The machine with its surroundings.
#[derive(Debug)]
pub(super) struct Core {
    clock: Arc<Clock>,
    machine: Mutex<Machine>,
    batches: UnboundedSender<Batch>,
    receiver: Mutex<Option<UnboundedReceiver<Batch>>>,
    /// Memory of published messages in the queue, bytes.
    published_bytes: AtomicUsize,
    /// Time of the last tick, of the machine's clock.
    ticked_ms: AtomicU64,
    /// Time without a tick after which the machine counts as stale, milliseconds.
    patience_ms: AtomicU64,
    /// Number of nodes beside this one.
    others: AtomicUsize,
    /// Number of the last batch that a client waits for.
    numbered: AtomicU64,
    /// Number of the last such batch that was carried out.
    carried_out: AtomicU64,
    /// The connections of the bus.
    links: Mutex<BTreeMap<LinkId, Arc<LinkFigures>>>,
    /// Figures of the bus.
    figures: BusFigures,
    /// Port of the bus.
    bus_port: AtomicU16,
    /// Tells the bus's task to begin.
    begin: Notify,
}

/// Figures of one connection of the bus.
#[derive(Debug, Default)]
pub(crate) struct LinkFigures {
    /// Time at which it was opened, Unix milliseconds.
    pub(crate) opened_ms: i64,
    /// Bytes of memory for what is unsent.
    pub(crate) allocated: AtomicUsize,
    /// Bytes that are unsent.
    pub(crate) unsent: AtomicUsize,
}

/// Figures of the bus as a whole.
#[derive(Debug, Default)]
pub(crate) struct BusFigures {
    /// Connections that were closed because too much was unsent.
    pub(crate) overrun_links: AtomicU64,
    /// Packets that were dropped because they are malformed.
    pub(crate) dropped_packets: AtomicU64,
    /// Connections that were closed because what came over them is no frame of the bus.
    pub(crate) broken_links: AtomicU64,
}

impl Core {
    pub(super) fn new(machine: Machine, clock: Arc<Clock>) -> Self {
        let (batches, receiver) = unbounded_channel();
        Self {
            ticked_ms: AtomicU64::new(now(&clock).monotonic_ms),
            patience_ms: AtomicU64::new(machine.options().node_timeout_ms),
            others: AtomicUsize::new(machine.view().len() - 1),
            clock,
            machine: Mutex::new(machine),
            batches,
            receiver: Mutex::new(Some(receiver)),
            published_bytes: AtomicUsize::new(0),
            numbered: AtomicU64::new(0),
            carried_out: AtomicU64::new(0),
            links: Mutex::default(),
            figures: BusFigures::default(),
            bus_port: AtomicU16::new(0),
            begin: Notify::new(),
        }
    }
}

/// Now, on both clocks of the machine.
pub(crate) fn now(clock: &Clock) -> Now {
    Now {
        monotonic_ms: BEGIN_MS + clock.elapsed_ns() / 1_000_000,
        // The clock counts from 1970.
        unix_ms: (clock.now_us() / 1_000).cast_unsigned(),
    }
}

impl Cluster {
    /// Handles events together: one save of the file is enough for all of them. What was decided is left to the task of the bus.
    pub(crate) fn handle_all(&self, events: impl IntoIterator<Item = Event>) {
        self.decide(events, Origin::Bus);
    }

    /// Notes the port on which the bus listens; at the start.
    pub(crate) fn note_bus_port(&self, port: u16) {
        self.core.bus_port.store(port, Ordering::Relaxed);
    }

    /// Has the machine follow the directives as they are now.
    pub(crate) fn reconfigure(&self, settings: &Settings) {
        let ports = Ports {
            client: settings.port,
            bus: self.core.bus_port.load(Ordering::Relaxed),
        };
        self.handle(Event::Options(Box::new(options(settings, ports))));
    }

    /// Has the bus begin: the data is loaded.
    pub(crate) fn begin(&self) {
        self.core.begin.notify_one();
    }

    /// Waits until the bus is to begin.
    pub(crate) async fn begun(&self) {
        self.core.begin.notified().await;
    }

    /// Handles an event, like [`handle_all`](Self::handle_all).
    pub(crate) fn handle(&self, event: Event) {
        self.handle_all([event]);
    }

    /// Has a command of a client decided. The number is that of its decisions, which
    /// [`has_carried_out`](Self::has_carried_out) tells of.
    pub(crate) fn order(&self, command: Command) -> (Reply, u64) {
        let event = Event::Command { tag: 0, command };
        let (reply, number) = self.decide([event], Origin::Command);
        (reply.expect("a machine replies to each command"), number)
    }

    /// Whether the decisions of a command have been carried out.
    pub(crate) fn has_carried_out(&self, number: u64) -> bool {
        self.core.carried_out.load(Ordering::SeqCst) >= number
    }

    /// Sends a message that a client of this node has published to the other nodes, if there are any. While many wait, the client is
    /// to wait until its own is on its way: then this returns the number for [`has_carried_out`](Self::has_carried_out).
    #[inline]
    pub(crate) fn publish_message(&self, is_sharded: bool, channel: &[u8], message: &[u8]) -> Option<u64> {
        if self.core.others.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.send_message(is_sharded, channel, message)
    }

    fn send_message(&self, is_sharded: bool, channel: &[u8], message: &[u8]) -> Option<u64> {
        let bytes = HEADER_BYTES + channel.len() + message.len();
        let waiting = self.core.published_bytes.fetch_add(bytes, Ordering::Relaxed);
        let waits = waiting > BUS_PUBLISHED_BYTES;
        let event = Event::Publish {
            is_sharded,
            channel: channel.to_vec(),
            message: message.to_vec(),
        };
        let (_, number) = self.decide([event], Origin::Publisher { bytes, waits });
        waits.then_some(number)
    }

    /// Has the machine handle events, publishes the map if it has changed, and leaves the actions to the task of the bus. Returns the
    /// reply to a command, and the number of the batch if it has one.
    fn decide(&self, events: impl IntoIterator<Item = Event>, origin: Origin) -> (Option<Reply>, u64) {
        let mut collected = Actions::new();
        let (mut changes_map, mut is_tick) = (false, false);
        let mut machine = self.core.machine.lock();
        // The clock is read under the lock, so that the machine's time never goes back.
        let now = now(&self.core.clock);
        for event in events {
            changes_map |= matches!(event, Event::Options(_));
            is_tick |= matches!(event, Event::Tick);
            machine.handle(now, event, &mut collected);
        }
        let (mut actions, mut reply) = (Vec::new(), None);
        for action in collected.drain() {
            changes_map |= matches!(action, Action::SlotsChanged { .. } | Action::StateChanged { .. });
            match action {
                Action::Reply { reply: given, .. } => reply = Some(given),
                action => actions.push(action),
            }
        }
        if changes_map {
            self.publish(&machine);
        }
        // Behind the map, by which no command comes to these slots any more.
        for action in &actions {
            if let Action::DropKeys(slots) = action {
                self.doom(slots);
            }
        }
        if is_tick {
            // Behind the map: who finds that the machine is not stale any more finds what it has made of the time without ticks.
            self.core.ticked_ms.store(now.monotonic_ms, Ordering::Release);
        }
        (reply, self.leave(&machine, actions, origin))
    }

    /// Leaves actions to the task of the bus, while the machine is locked. Returns the number of the batch if a client waits for it.
    fn leave(&self, machine: &Machine, actions: Vec<Action>, origin: Origin) -> u64 {
        let core = &self.core;
        core.others.store(machine.view().len() - 1, Ordering::Relaxed);
        let patience_ms = machine.options().node_timeout_ms;
        core.patience_ms.store(patience_ms, Ordering::Relaxed);
        let number = || core.numbered.fetch_add(1, Ordering::Relaxed) + 1;
        let (published_bytes, number) = match origin {
            Origin::Bus => (0, 0),
            Origin::Publisher { bytes, waits: false } => (bytes, 0),
            Origin::Publisher { bytes, waits: true } => (bytes, number()),
            Origin::Command => (0, number()),
        };
        if !actions.is_empty() || published_bytes > 0 || number > 0 {
            // When the task has ended the node has, too: then nobody carries anything out.
            let _ = core.batches.send(Batch {
                actions,
                published_bytes,
                awaited: (number > 0).then_some(number),
            });
        }
        number
    }

    /// Calls `look` on the machine as it is now.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&Machine, Now) -> R) -> R {
        let machine = self.core.machine.lock();
        look(&machine, now(&self.core.clock))
    }

    /// Whether the machine has had no tick for so long that others may have given up this node. `elapsed_ns` is the node's stopwatch.
    #[inline]
    pub(crate) fn is_stale(&self, elapsed_ns: u64) -> bool {
        let ticked_ms = self.core.ticked_ms.load(Ordering::Acquire);
        let now_ms = BEGIN_MS + elapsed_ns / 1_000_000;
        now_ms > ticked_ms + self.core.patience_ms.load(Ordering::Relaxed)
    }

    /// Whether no tick is due: the machine has seen the time that it is.
    pub(crate) fn has_ticked(&self) -> bool {
        let ticked_ms = self.core.ticked_ms.load(Ordering::Acquire);
        now(&self.core.clock).monotonic_ms < ticked_ms + TICK_MS
    }

    /// The queue of decisions, once: for the task of the bus.
    pub(crate) fn batches(&self) -> Option<UnboundedReceiver<Batch>> {
        self.core.receiver.lock().take()
    }

    /// Notes that a batch was carried out. True when a client waits for that.
    pub(crate) fn note_carried_out(&self, batch: &Batch) -> bool {
        let bytes = batch.published_bytes;
        self.core.published_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(number) = batch.awaited {
            self.core.carried_out.store(number, Ordering::SeqCst);
        }
        batch.awaited.is_some()
    }

    /// Adds a connection of the bus to those that have figures.
    pub(crate) fn add_link(&self, link: LinkId) -> Arc<LinkFigures> {
        let figures = Arc::new(LinkFigures {
            opened_ms: self.core.clock.now_us() / 1_000,
            ..LinkFigures::default()
        });
        self.core.links.lock().insert(link, Arc::clone(&figures));
        figures
    }

    /// Removes a connection of the bus from those that have figures.
    pub(crate) fn remove_link(&self, link: LinkId) {
        self.core.links.lock().remove(&link);
    }

    /// The figures of a connection of the bus, while that is open.
    pub(crate) fn link_figures(&self, link: LinkId) -> Option<Arc<LinkFigures>> {
        self.core.links.lock().get(&link).cloned()
    }

    /// Bytes of memory for what is unsent on all connections of the bus.
    pub(crate) fn link_bytes(&self) -> usize {
        let links = self.core.links.lock();
        links
            .values()
            .map(|figures| figures.allocated.load(Ordering::Relaxed))
            .sum()
    }

    /// Figures of the bus.
    pub(crate) fn figures(&self) -> &BusFigures {
        &self.core.figures
    }
}
