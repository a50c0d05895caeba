//! Connections, their reopening, and the heartbeat that runs over them.
//!
//! A node opens one connection to every other one and sends on it; what comes on it are answers. Pings of others come
//! on the connections that they open, and are answered there.

use super::Machine;
use crate::event::{Action, Actions, TICK_MS};
use crate::node::{Flags, LinkId, NodeKey, Outbound};
use crate::wire::PingKind;

/// Ticks in a second: so often one node of a few is pinged whatever is due.
const TICKS_A_SECOND: u64 = 1_000 / TICK_MS;

/// Number of nodes of which the one with the oldest pong is pinged.
const PING_SAMPLE: usize = 5;

/// Longest wait between two tries to reach a node, so that the loss of many costs little.
const RECONNECT_WAIT_MAX_MS: u64 = 1_000;

impl Machine {
    /// Everything that happens by time alone.
    pub(super) fn tick(&mut self, actions: &mut Actions) {
        self.note_suspension(actions);
        self.expire_handshakes(actions);
        self.connect_all(actions);
        if self.ticks.is_multiple_of(TICKS_A_SECOND) {
            self.ping_one_of_a_few(actions);
        }
        self.ticks += 1;
        self.watch_all(actions);
        self.expire_manual(actions);
        if self.view.me().is_replica() {
            self.leave_sub_replica(actions);
            self.due.manual = true;
            self.due.election = true;
            self.consider_migration(actions);
        }
        self.due.health |= !self.view.is_ok;
    }

    /// Opens the connections that are missing.
    fn connect_all(&mut self, actions: &mut Actions) {
        let now_ms = self.now.monotonic_ms;
        let me = self.view.my_key();
        for index in 0..self.view.len() {
            let key = self.view.keys()[index];
            let node = &mut self.view[key];
            let is_unreachable = key == me || node.flags.contains(Flags::NOADDR);
            if is_unreachable || node.outbound.is_some() || now_ms < node.reconnect_ms {
                continue;
            }
            node.outbound = Some(Outbound {
                number: self.next_outbound,
                since_ms: now_ms,
                is_up: false,
            });
            // A node that cannot be reached answers no ping either.
            if node.ping_sent_ms == 0 {
                node.ping_sent_ms = now_ms;
            }
            actions.push(Action::Connect {
                number: self.next_outbound,
                ip: node.address.ip,
                bus_port: node.address.bus_port,
            });
            self.outbound.insert(self.next_outbound, key);
            self.next_outbound += 1;
        }
    }

    /// The first packet on a connection: a MEET if the other node may not know this one. A ping that was pending
    /// before stays so: the new connection has proved nothing.
    pub(super) fn link_up(&mut self, number: u64, actions: &mut Actions) {
        let Some(&key) = self.outbound.get(&number) else {
            actions.push(Action::Close(LinkId::Outbound(number)));
            return;
        };
        let node = &mut self.view[key];
        let Some(outbound) = &mut node.outbound else {
            return;
        };
        outbound.is_up = true;
        node.reconnect_wait_ms = 0;
        let pending_ms = node.ping_sent_ms;
        let kind = if node.flags.contains(Flags::MEET) {
            PingKind::Meet
        } else {
            PingKind::Ping
        };
        node.flags.remove(Flags::MEET);
        self.ping(key, kind, actions);
        self.view[key].ping_sent_ms = pending_ms;
    }

    pub(super) fn link_down(&mut self, link: LinkId) {
        match link {
            LinkId::Outbound(number) => {
                if let Some(key) = self.outbound.remove(&number) {
                    self.detach(key);
                }
            }
            LinkId::Inbound(number) => {
                let from = self.view.nodes().find(|(_, node)| node.inbound == Some(number));
                if let Some((key, _)) = from {
                    self.view[key].inbound = None;
                }
            }
        }
    }

    /// Lets a connection go that is closed or failed, and waits a little longer each time before the next one.
    fn detach(&mut self, key: NodeKey) {
        let now_ms = self.now.monotonic_ms;
        let node = &mut self.view[key];
        node.outbound = None;
        node.reconnect_ms = now_ms + node.reconnect_wait_ms;
        node.reconnect_wait_ms = (node.reconnect_wait_ms * 2).clamp(TICK_MS, RECONNECT_WAIT_MAX_MS);
    }

    /// Closes the connection to a node; a tick opens a new one.
    pub(super) fn drop_link(&mut self, key: NodeKey, actions: &mut Actions) {
        if let Some(outbound) = self.view[key].outbound.take() {
            self.outbound.remove(&outbound.number);
            actions.push(Action::Close(LinkId::Outbound(outbound.number)));
        }
    }

    /// The node that this one called over a connection.
    pub(super) fn called(&self, link: LinkId) -> Option<NodeKey> {
        match link {
            LinkId::Outbound(number) => self.outbound.get(&number).copied(),
            LinkId::Inbound(_) => None,
        }
    }

    pub(super) fn data_came(&mut self, link: LinkId) {
        if let Some(key) = self.called(link) {
            self.view[key].data_received_ms = self.now.monotonic_ms;
        }
    }

    /// Spreads the heartbeat: the node with the oldest pong of a few random ones.
    fn ping_one_of_a_few(&mut self, actions: &mut Actions) {
        let me = self.view.my_key();
        let mut oldest: Option<NodeKey> = None;
        for _ in 0..PING_SAMPLE {
            let key = self.view.keys()[self.random.usize(..self.view.len())];
            let node = &self.view[key];
            if key == me || node.link().is_none() || node.ping_sent_ms != 0 || node.is_in_handshake() {
                continue;
            }
            if oldest.is_none_or(|oldest| node.pong_received_ms < self.view[oldest].pong_received_ms) {
                oldest = Some(key);
            }
        }
        if let Some(key) = oldest {
            self.ping(key, PingKind::Ping, actions);
        }
    }

    /// Looks after each node: a new connection, a ping, a suspicion.
    fn watch_all(&mut self, actions: &mut Actions) {
        let me = self.view.my_key();
        self.suspects.clear();
        for index in 0..self.view.len() {
            let key = self.view.keys()[index];
            let flags = self.view[key].flags;
            if key == me || flags.intersects(Flags::NOADDR | Flags::HANDSHAKE) {
                continue;
            }
            self.watch(key, actions);
            if self.view[key].flags.contains(Flags::PFAIL) {
                self.suspects.push(key);
            }
        }
    }

    fn watch(&mut self, key: NodeKey, actions: &mut Actions) {
        let (now_ms, timeout_ms) = (self.now.monotonic_ms, self.options.node_timeout_ms);
        self.renew_link(key, actions);
        let node = &self.view[key];
        let age_ms = now_ms - node.pong_received_ms;
        if node.link().is_some() && node.ping_sent_ms == 0 && age_ms > timeout_ms / 2 {
            self.ping(key, PingKind::Ping, actions);
            return;
        }
        if self.manual.is_paused() && self.manual.replica() == Some(key) {
            // It waits for the offset at which this node has paused.
            self.ping(key, PingKind::Ping, actions);
            return;
        }
        let node = &self.view[key];
        let silence_ms = now_ms - node.ping_sent_ms.max(node.data_received_ms);
        if node.ping_sent_ms != 0 && silence_ms > timeout_ms {
            self.suspect(key, actions);
        }
    }

    /// A connection that has carried nothing for long may be half dead: a new one may still bring the answer in time.
    fn renew_link(&mut self, key: NodeKey, actions: &mut Actions) {
        let (now_ms, timeout_ms) = (self.now.monotonic_ms, self.options.node_timeout_ms);
        let node = &self.view[key];
        let Some(outbound) = node.outbound else { return };
        let is_silent = |since_ms| now_ms - since_ms > timeout_ms / 2;
        if now_ms - outbound.since_ms > timeout_ms
            && node.ping_sent_ms != 0
            && is_silent(node.ping_sent_ms)
            && is_silent(node.data_received_ms)
        {
            self.drop_link(key, actions);
        }
    }
}
