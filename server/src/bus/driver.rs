//! [`Driver`]: the task of the bus: brings the machine its events, and carries out what that decides.
//!
//! Decisions are carried out in the order in which they were made. News of peers are looked at when there are none to carry out, or after
//! a number of them, so that a slow disk slows peers down instead of filling memory, and no flood of messages keeps a ping waiting. A save that is durable has ended before the next action begins; a
//! node that cannot save its file stops: after a restart it would break its word. Ticks come first of all.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shardis_cluster::event::{Action, Event, TICK_MS};
use shardis_cluster::node::{Host, LinkId};
use shardis_cluster::wire::{Body, Packet};
use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, channel};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::actions::Role;
use super::failures::Failures;
use super::link::{Encoded, Fault, Link, Malformed};
use super::listener::set_up;
use super::saver::Saver;
use crate::cluster::{Batch, Cluster};
use crate::connection::node_stream::NodeStream;
use crate::connection::outgoing::connect;
use crate::limits::{BUS_BATCHES_TOGETHER, BUS_NEWS, BUS_NEWS_TOGETHER, BUS_STRANGERS_MAX, BUS_UNSENT_BYTES};
use crate::log::Level;
use crate::shard::Mesh;
use crate::state::Node;

/// Something that the tasks of connections tell the driver.
#[derive(Debug)]
pub(super) enum News {
    /// Another node has opened a connection.
    Accepted(NodeStream),
    /// A connection that the machine has asked for is established, or cannot be.
    Connected(u64, io::Result<NodeStream>),
    /// A packet has come.
    Packet(LinkId, shardis_cluster::event::Peer, Box<Packet>),
    /// A packet has come whose form is wrong.
    Malformed(LinkId, Malformed),
    /// A part of a packet has come.
    Data(LinkId),
    /// A connection has ended, because of this fault if there is one.
    Ended(LinkId, Option<Fault>),
    /// No write is under way, as a pause has asked for.
    WritesPaused,
}

/// The task of the bus.
pub(super) struct Driver {
    pub(super) node: Arc<Node>,
    pub(super) mesh: Arc<Mesh>,
    pub(super) saver: Saver,
    pub(super) role: Role,
    /// The link of a replica uses TLS.
    pub(super) uses_tls: bool,
    failures: Rc<Failures>,
    batches: UnboundedReceiver<Batch>,
    pub(super) sender: Sender<News>,
    news: Receiver<News>,
    links: BTreeMap<LinkId, Rc<Link>>,
    /// Connections that are being opened.
    opening: HashMap<u64, AbortHandle>,
    /// Number of connections that other nodes have opened.
    accepted: u64,
    /// Time of the last tick by the node's clock, microseconds.
    ticked_us: i64,
}

/// The node cannot go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fatal;

impl Driver {
    /// The task of a node that is part of a cluster; none if it runs already.
    pub(super) fn new(
        (node, mesh): (Arc<Node>, Arc<Mesh>),
        saver: Saver,
        failures: &Rc<Failures>,
    ) -> Option<Self> {
        let batches = node.cluster.as_ref()?.batches()?;
        let (sender, news) = channel(BUS_NEWS);
        Some(Self {
            role: Role::default(),
            uses_tls: node.settings.load().tls_replication,
            failures: Rc::clone(failures),
            ticked_us: node.clock.now_us(),
            node,
            mesh,
            saver,
            batches,
            sender,
            news,
            links: BTreeMap::new(),
            opening: HashMap::new(),
            accepted: 0,
        })
    }

    pub(super) fn cluster(&self) -> &Cluster {
        let cluster = self.node.cluster.as_ref();
        cluster.expect("the bus runs on nodes of a cluster")
    }

    /// A sender of news, for a task beside this one.
    pub(super) fn sender(&self) -> Sender<News> {
        self.sender.clone()
    }

    /// Runs until the node ends, or cannot go on.
    pub(super) async fn run(&mut self) -> Result<(), Fatal> {
        let mut ticks = interval(Duration::from_millis(TICK_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let node = Arc::clone(&self.node);
        loop {
            tokio::select! {
                biased;
                () = next_tick(&node, &mut ticks, self.ticked_us) => self.tick().await?,
                batch = self.batches.recv() => match batch {
                    Some(batch) => self.carry_out_some(batch).await?,
                    None => return Ok(()),
                },
                news = self.news.recv() => match news {
                    Some(news) => self.take_in(news),
                    None => return Ok(()),
                },
            }
        }
    }

    async fn tick(&mut self) -> Result<(), Fatal> {
        self.ticked_us = self.node.clock.now_us();
        self.see_to_role();
        let facts = Event::Facts(self.facts());
        self.cluster().handle_all([facts, Event::Tick]);
        self.save_what_can_wait().await
    }

    /// Takes in what there is, up to a bound, as events that are handled together.
    fn take_in(&mut self, first: News) {
        let mut events = Vec::new();
        let mut next = Some(first);
        while let Some(news) = next {
            events.extend(self.event_of(news));
            next = (events.len() < BUS_NEWS_TOGETHER)
                .then(|| self.news.try_recv().ok())
                .flatten();
        }
        self.cluster().handle_all(events);
    }

    fn event_of(&mut self, news: News) -> Option<Event> {
        match news {
            News::Accepted(stream) => {
                self.accepted += 1;
                self.adopt(LinkId::Inbound(self.accepted), stream);
                self.drop_old_stranger();
                None
            }
            News::Connected(number, outcome) => self.opened(number, outcome),
            // Programs that embed a cluster cut it in two.
            News::Packet(_, _, packet) if self.cluster().ignores(&packet.header.sender) => None,
            News::Packet(link, peer, packet) => self.links.contains_key(&link).then(|| {
                self.trust(link, &packet);
                Event::Packet { link, peer, packet }
            }),
            News::Malformed(link, fault) => {
                self.note_malformed(link, fault);
                Some(Event::Data(link))
            }
            News::Data(link) => Some(Event::Data(link)),
            News::Ended(link, fault) => self.ended(link, fault),
            News::WritesPaused => {
                let facts = Event::Facts(self.facts());
                self.cluster().handle(facts);
                Some(Event::WritesPaused)
            }
        }
    }

    /// Carries out what there is, up to a bound, and tells the loops.
    async fn carry_out_some(&mut self, first: Batch) -> Result<(), Fatal> {
        let mut rings = self.carry_out(first).await?;
        for _ in 1..BUS_BATCHES_TOGETHER {
            let Ok(batch) = self.batches.try_recv() else { break };
            rings |= self.carry_out(batch).await?;
        }
        if rings {
            self.node.ring_all();
        }
        if let Ok(news) = self.news.try_recv() {
            self.take_in(news);
        }
        Ok(())
    }

    /// Carries out what was decided together. True when loops have to look.
    async fn carry_out(&mut self, mut batch: Batch) -> Result<bool, Fatal> {
        let (is_awaited, mut rings) = (batch.awaited.is_some(), false);
        if batch
            .actions
            .iter()
            .any(|action| matches!(action, Action::Promote))
        {
            self.node.replication.following.await_promotion();
        }
        for action in std::mem::take(&mut batch.actions) {
            match action {
                Action::Save { is_durable } => self.save(is_durable, is_awaited).await?,
                Action::Connect { number, ip, bus_port } => self.open(number, ip, bus_port),
                Action::Close(link) => self.close(link),
                Action::Send { link, packet } => self.send(&[link], &packet),
                Action::Broadcast { links, packet } => self.send(&links, &packet),
                Action::SlotsChanged { .. } | Action::StateChanged { .. } => rings = true,
                action => self.act(action).await,
            }
        }
        rings |= self.cluster().note_carried_out(&batch);
        Ok(rings)
    }

    /// Sends a packet over some links; it is encoded once.
    fn send(&mut self, links: &[LinkId], packet: &Packet) {
        let mut bytes = Vec::with_capacity(packet.len());
        packet.encode(&mut bytes);
        let encoded: Encoded = bytes.into();
        let is_message = matches!(packet.body, Body::Publish { .. });
        let limit = match self.node.settings.load().cluster_link_sendbuf_limit {
            0 => BUS_UNSENT_BYTES,
            limit => usize::try_from(limit).unwrap_or(BUS_UNSENT_BYTES),
        };
        let mut overrun = Vec::new();
        for id in links {
            let Some(link) = self.links.get(id) else { continue };
            if link.send(Rc::clone(&encoded), is_message) > limit {
                overrun.push(*id);
            }
        }
        for link in overrun {
            self.node.log.warning(format_args!(
                "Freeing a link of the cluster bus, as it exceeds the limit of {limit} unsent bytes"
            ));
            self.cluster()
                .figures()
                .overrun_links
                .fetch_add(1, Ordering::Relaxed);
            self.close(link);
            self.cluster().handle(Event::LinkDown(link));
        }
    }

    /// Opens a connection, over TLS if `tls-cluster` says so now.
    fn open(&mut self, number: u64, ip: Host, bus_port: u16) {
        let (node, news, failures) = (
            Arc::clone(&self.node),
            self.sender.clone(),
            Rc::clone(&self.failures),
        );
        let settings = self.node.settings.load_full();
        let task = spawn_local(async move {
            let patience = Duration::from_millis(settings.cluster_node_timeout.max(TICK_MS));
            let connecting = async {
                let stream = connect(ip.as_str(), bus_port, &settings.bind_source_addr).await?;
                // A connection without these properties works, too.
                let _ = set_up(&stream, settings.cluster_node_timeout);
                if !settings.tls_cluster {
                    return Ok(NodeStream::plain(stream));
                }
                let contexts = node.tls.contexts();
                let secured = NodeStream::secure(stream, contexts.as_deref(), ip.as_str()).await;
                secured.inspect_err(|error| {
                    failures.tell(format!(
                        "No TLS session with the node of the cluster at {ip}:{bus_port}: {error}"
                    ));
                })
            };
            let outcome = timeout(patience, connecting)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let _ = news.send(News::Connected(number, outcome)).await;
        });
        self.opening.insert(number, task.abort_handle());
    }

    fn opened(&mut self, number: u64, outcome: io::Result<NodeStream>) -> Option<Event> {
        // One that was closed meanwhile is not wanted any more.
        self.opening.remove(&number)?;
        let link = LinkId::Outbound(number);
        match outcome {
            Ok(stream) => Some(match self.adopt(link, stream) {
                true => Event::LinkUp(number),
                false => Event::LinkDown(link),
            }),
            Err(error) => {
                let log = &self.node.log;
                log.write(
                    Level::Debug,
                    format_args!("Unable to connect to a node of the cluster: {error}"),
                );
                Some(Event::LinkDown(link))
            }
        }
    }

    /// Makes a link of a connection. False if that is lost already.
    fn adopt(&mut self, id: LinkId, stream: NodeStream) -> bool {
        let figures = self.cluster().add_link(id);
        let Ok(link) = Link::new(id, stream, figures) else {
            self.cluster().remove_link(id);
            return false;
        };
        let link = Rc::new(link);
        if matches!(id, LinkId::Outbound(_)) {
            link.trust(self.frame_bytes_max());
        }
        spawn_local(Rc::clone(&link).carry(self.sender.clone()));
        self.links.insert(id, link);
        true
    }

    fn close(&mut self, id: LinkId) {
        if let LinkId::Outbound(number) = id
            && let Some(task) = self.opening.remove(&number)
        {
            task.abort();
        }
        if let Some(link) = self.links.remove(&id) {
            link.close();
            self.cluster().remove_link(id);
        }
    }

    fn ended(&mut self, id: LinkId, fault: Option<Fault>) -> Option<Event> {
        if let Some(fault) = fault {
            self.cluster()
                .figures()
                .broken_links
                .fetch_add(1, Ordering::Relaxed);
            let link = self.links.get(&id);
            let with = link.map_or_else(String::new, |link| format!(" with {}", link.remote_ip()));
            self.failures
                .tell(format!("A link of the cluster bus{with} is closed: {fault}"));
        }
        self.links.remove(&id)?;
        self.cluster().remove_link(id);
        Some(Event::LinkDown(id))
    }

    fn note_malformed(&self, link: LinkId, fault: Malformed) {
        self.cluster()
            .figures()
            .dropped_packets
            .fetch_add(1, Ordering::Relaxed);
        let log = &self.node.log;
        log.write(
            Level::Debug,
            format_args!("A packet of the cluster bus is dropped ({link:?}): {fault}"),
        );
    }

    /// Longest frame of a message that a known node may send.
    fn frame_bytes_max(&self) -> usize {
        let text_bytes = self.node.settings.load().proto_max_bulk_len;
        usize::try_from(2 * text_bytes).unwrap_or(usize::MAX / 2) + shardis_cluster::wire::HEADER_BYTES + 8
    }

    /// Has long messages read from a node that this one knows.
    fn trust(&self, link: LinkId, packet: &Packet) {
        let Some(link) = self.links.get(&link).filter(|link| link.is_of_stranger()) else {
            return;
        };
        let sender = &packet.header.sender;
        if self
            .cluster()
            .read(|machine, _| machine.view().find_known(sender).is_some())
        {
            link.trust(self.frame_bytes_max());
        }
    }

    /// Closes the oldest connection of a stranger, if there are too many.
    fn drop_old_stranger(&mut self) {
        let mut strangers = self.links.values().filter(|link| link.is_of_stranger());
        let oldest = strangers.next().map(|link| link.id);
        if strangers.count() >= BUS_STRANGERS_MAX
            && let Some(oldest) = oldest
        {
            self.close(oldest);
        }
    }
}

/// Waits until a tick is due. While the node's clock stands still, the advances of that are looked at instead.
async fn next_tick(node: &Node, ticks: &mut Interval, ticked_us: i64) {
    if node.clock.is_real() {
        ticks.tick().await;
        return;
    }
    loop {
        let mut rung = std::pin::pin!(node.links_bell.notified());
        // In this order, or an advance might be missed.
        rung.as_mut().enable();
        if node.clock.now_us() - ticked_us >= (TICK_MS * 1_000).cast_signed() {
            return;
        }
        rung.await;
    }
}
