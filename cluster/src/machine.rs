//! One node of a cluster as a state machine: `(now, event) → actions`.
//!
//! [`Machine::handle`] is all there is to drive; what it decides is in one file for each subject:
//!
//! | module | subject |
//! |---|---|
//! | `links` | connections, their reopening, the heartbeat |
//! | `handshake` | taking nodes in, forgetting them |
//! | `gossip` | what a ping says, read and written |
//! | `ownership` | claims to slots, epochs and their collisions |
//! | `failure` | suspicion, reports, failed nodes |
//! | `health` | whether the cluster works |
//! | `election` | votes, given and asked for |
//! | `failover` | promotion, demotion, manual failover |
//! | `migration` | replicas that move to a primary that has none |
//! | `commands` | what clients ask for |
//!
//! Work that several causes can make due is noted in [`Due`] and done once, at the end of the event. Nothing here waits,
//! and no queue grows by what a peer sends: nodes, names that are banned and reports have bounds.

mod commands;
mod election;
mod failover;
mod failure;
mod gossip;
mod handshake;
mod health;
mod links;
mod migration;
mod ownership;

use std::collections::BTreeMap;

use crate::event::{Action, Actions, Event, Facts, Now, Options};
use crate::node::{Flags, LinkId, Node, NodeId, NodeKey, ShardId};
use crate::view::{ClientView, View};
use crate::wire::{Body, Header, ManualFlags, Packet};

use election::Election;
use failover::ManualFailover;
use handshake::Bans;
use health::Health;
use migration::Orphans;

/// Work for the end of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Due {
    /// Whether the cluster works may have changed.
    health: bool,
    /// An election may start, go on or be won.
    election: bool,
    /// A manual failover may go on.
    manual: bool,
    /// The others are to hear at once what this node says of itself. Without it they would hear when they next ping it:
    /// in a large cluster, where gossip about its pongs spares pings, that takes minutes.
    tell_all: bool,
}

/// Number of packets by type, in the order of the types of the bus.
pub type PacketCounts = [u64; 11];

/// Packets of this node, for `CLUSTER INFO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sent.
    pub sent: PacketCounts,
    /// Received and understood.
    pub received: PacketCounts,
}

/// A node of a cluster.
#[derive(Debug)]
pub struct Machine {
    options: Options,
    view: View,
    random: fastrand::Rng,
    now: Now,
    facts: Facts,
    due: Due,
    election: Election,
    manual: ManualFailover,
    health: Health,
    orphans: Orphans,
    bans: Bans,
    /// Nodes that were suspected at the last tick: each ping tells of them.
    suspects: Vec<NodeKey>,
    /// Nodes of the connections that this one opened.
    outbound: BTreeMap<u64, NodeKey>,
    next_outbound: u64,
    ticks: u64,
    last_tick_ms: u64,
    told_version: u64,
    traffic: Traffic,
}

impl Machine {
    /// A node that knows nobody. The names are random; `seed` feeds every later choice.
    #[must_use]
    pub fn new(id: NodeId, shard: ShardId, options: Options, now: Now, seed: u64) -> Self {
        let mut me = Node::new(id, Flags::PRIMARY, options.announced, now.monotonic_ms);
        me.shard = Some(shard);
        Self::resume(View::new(me, seed), shard, options, now, seed)
    }

    /// A node that goes on from its file ([`crate::nodes_file::parse`]); `shard` is used if the file has none.
    #[must_use]
    pub fn resume(view: View, shard: ShardId, options: Options, now: Now, seed: u64) -> Self {
        let told_version = view.version();
        let mut machine = Machine {
            options,
            view,
            random: fastrand::Rng::with_seed(seed),
            now,
            facts: Facts::default(),
            due: Due {
                health: true,
                ..Due::default()
            },
            election: Election::default(),
            manual: ManualFailover::default(),
            health: Health::new(now),
            orphans: Orphans::default(),
            bans: Bans::default(),
            suspects: Vec::new(),
            outbound: BTreeMap::new(),
            next_outbound: 0,
            ticks: 0,
            last_tick_ms: now.monotonic_ms,
            told_version,
            traffic: Traffic::default(),
        };
        machine.view.is_ok = false;
        machine.view.me_mut().shard.get_or_insert(shard);
        machine.announce();
        machine
    }

    /// Handles one event. This is the whole interface for changes; the server carries the actions out in order before
    /// it brings the next event.
    pub fn handle(&mut self, now: Now, event: Event, actions: &mut Actions) {
        debug_assert!(now.monotonic_ms >= self.now.monotonic_ms && now.monotonic_ms > 0);
        self.now = now;
        match event {
            Event::Tick => self.tick(actions),
            Event::LinkUp(number) => self.link_up(number, actions),
            Event::LinkDown(link) => self.link_down(link),
            Event::Data(link) => self.data_came(link),
            Event::Packet { link, peer, packet } => self.receive(link, peer, *packet, actions),
            Event::Facts(facts) => self.note_facts(facts),
            Event::Options(options) => self.set_options(*options, actions),
            Event::WritesPaused => self.tell_pause(actions),
            Event::Command { tag, command } => self.command(tag, command, actions),
            Event::Publish {
                is_sharded,
                channel,
                message,
            } => {
                self.publish(is_sharded, channel, message, actions);
            }
        }
        self.settle(actions);
    }

    /// The node's view.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The directives in force.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Packets so far.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The view as a client is told of it, with the ports that it can use.
    #[must_use]
    pub fn for_client(&self, is_tls: bool) -> ClientView<'_> {
        ClientView {
            view: &self.view,
            options: &self.options,
            is_tls,
        }
    }

    /// Whether this node may have been suspended: its last tick is longer ago than other nodes wait for it. Others may
    /// own its slots by now, so the server serves nothing until the next tick was handled.
    #[must_use]
    pub fn is_stale(&self, now: Now) -> bool {
        now.monotonic_ms - self.last_tick_ms > self.options.node_timeout_ms
    }

    /// Does what has become due. Each step can make a later one due, none an earlier one.
    fn settle(&mut self, actions: &mut Actions) {
        if std::mem::take(&mut self.due.manual) {
            self.advance_manual(actions);
        }
        if std::mem::take(&mut self.due.election) {
            self.advance_election(actions);
        }
        if std::mem::take(&mut self.due.health) {
            self.judge_health(actions);
        }
        if std::mem::take(&mut self.due.tell_all) {
            self.pong_to(actions, |_, _| true);
        }
        let version = self.view.version();
        if version != self.told_version {
            self.told_version = version;
            actions.push(Action::SlotsChanged { version });
        }
    }

    fn note_facts(&mut self, facts: Facts) {
        self.facts = facts;
        self.view.me_mut().replication_offset = facts.replication_offset;
        self.due.manual |= self.manual.is_under_way();
    }

    fn set_options(&mut self, options: Options, actions: &mut Actions) {
        self.options = options;
        self.announce();
        self.due.health = true;
        self.due.tell_all = true;
        actions.save(false);
    }

    /// Copies what is configured about this node into its own entry.
    fn announce(&mut self) {
        let announced = self.options.announced;
        let (hostname, human_name) = (self.options.hostname.clone(), self.options.human_name.clone());
        let no_failover = self.options.replica_no_failover;
        let me = self.view.me_mut();
        let learnt = me.address.ip;
        me.address = announced;
        if announced.ip.is_empty() {
            me.address.ip = learnt;
        }
        me.hostname = hostname;
        me.human_name = human_name;
        me.flags.set(Flags::NOFAILOVER, no_failover);
        self.view.touch();
    }

    /// The header of a packet from this node.
    fn header(&mut self) -> Header {
        let slots = self.view.claims();
        let me = self.view.me();
        let (port, other_port) = self.wire_ports(me.address.tcp_port, me.address.tls_port);
        let mut manual = ManualFlags::empty();
        manual.set(ManualFlags::PAUSED, me.is_primary() && self.manual.is_paused());
        Header {
            port,
            other_port,
            bus_port: me.address.bus_port,
            current_epoch: self.view.current_epoch,
            config_epoch: self.view[self.view.claimant()].config_epoch,
            offset: self.facts.replication_offset,
            sender: me.id,
            slots,
            primary: me.primary.map(|primary| self.view[primary].id),
            ip: self.options.announced.ip,
            flags: me.flags,
            is_ok: self.view.is_ok,
            manual,
        }
    }

    /// The ports of a node in the order of the bus: first the kind that the bus itself uses. The same swap leads back.
    fn wire_ports(&self, first: u16, second: u16) -> (u16, u16) {
        if self.options.is_tls {
            (second, first)
        } else {
            (first, second)
        }
    }

    fn packet(&mut self, body: Body) -> Box<Packet> {
        Box::new(Packet {
            header: self.header(),
            body,
        })
    }

    /// Sends to a node over the connection to it; if there is none, the packet is lost as on any network.
    fn send(&mut self, to: NodeKey, body: Body, actions: &mut Actions) {
        if let Some(link) = self.view[to].link() {
            let packet = self.packet(body);
            self.send_packet(link, packet, actions);
        }
    }

    fn send_packet(&mut self, link: LinkId, packet: Box<Packet>, actions: &mut Actions) {
        self.traffic.sent[packet.body.index()] += 1;
        actions.push(Action::Send { link, packet });
    }

    /// Sends to all nodes that fit, over the connections to them.
    fn broadcast(&mut self, body: Body, actions: &mut Actions, fits: impl Fn(NodeKey, &Node) -> bool) {
        let packet = self.packet(body);
        self.broadcast_packet(packet, actions, fits);
    }

    fn broadcast_packet(
        &mut self,
        packet: Box<Packet>,
        actions: &mut Actions,
        fits: impl Fn(NodeKey, &Node) -> bool,
    ) {
        let nodes = self.view.nodes();
        let links: Vec<LinkId> = nodes
            .filter(|&(key, node)| !node.is_in_handshake() && fits(key, node))
            .filter_map(|(_, node)| node.link())
            .collect();
        if links.is_empty() {
            return;
        }
        self.traffic.sent[packet.body.index()] += links.len() as u64;
        actions.push(Action::Broadcast { links, packet });
    }

    /// A message goes to all nodes; that of a sharded channel to those of this shard only.
    fn publish(&mut self, is_sharded: bool, channel: Vec<u8>, message: Vec<u8>, actions: &mut Actions) {
        let head = self.view.claimant();
        let body = Body::Publish {
            is_sharded,
            channel,
            message,
        };
        self.broadcast(body, actions, |key, node| {
            !is_sharded || key == head || node.primary == Some(head)
        });
    }
}

#[cfg(test)]
mod tests;
