//! Pings, written and read: about their sender, and about the nodes that it knows.

use std::collections::BTreeSet;

use super::Machine;
use crate::event::{Action, Actions, Level, Peer};
use crate::node::{Address, Flags, LinkId, Node, NodeKey};
use crate::wire::extension::{FORGOTTEN_MAX, Forgotten};
use crate::wire::{Body, Extensions, Gossip, Header, Packet, PingKind};

/// Fewest nodes that a ping tells of, if there are so many.
const GOSSIP_MIN: usize = 3;

/// Part of all nodes that a ping tells of: in the time of two pings each way, every node hears of each one often enough
/// to collect the reports of a majority.
const GOSSIP_PART: usize = 10;

/// Most suspected nodes that a ping tells of besides: a lost zone must not make each ping as long as the cluster.
const SUSPECTS_MAX: usize = 256;

/// Most milliseconds that the clock of a peer may be ahead when it tells of a pong.
const CLOCK_AHEAD_MAX_MS: u64 = 500;

impl Machine {
    /// Sends a ping to a node over the connection to it.
    pub(super) fn ping(&mut self, to: NodeKey, kind: PingKind, actions: &mut Actions) {
        let Some(link) = self.view[to].link() else { return };
        if kind == PingKind::Ping {
            self.view[to].ping_sent_ms = self.now.monotonic_ms;
        }
        let packet = self.ping_packet(kind, Some(to), Vec::new());
        self.send_packet(link, packet, actions);
    }

    /// Tells news to all nodes that fit.
    pub(super) fn pong_to(&mut self, actions: &mut Actions, fits: impl Fn(NodeKey, &Node) -> bool) {
        self.tell(Vec::new(), actions, fits);
    }

    /// Tells all nodes to forget one.
    pub(super) fn tell_forgotten(&mut self, forgotten: Forgotten, actions: &mut Actions) {
        self.tell(vec![forgotten], actions, |_, node| {
            node.speaks_extensions != Some(false)
        });
    }

    fn tell(
        &mut self,
        forgotten: Vec<Forgotten>,
        actions: &mut Actions,
        fits: impl Fn(NodeKey, &Node) -> bool,
    ) {
        debug_assert!(forgotten.len() <= FORGOTTEN_MAX);
        for speaks in [true, false] {
            let packet = self.ping_packet(PingKind::Pong, None, forgotten.clone());
            let mut body = packet.body;
            if let Body::Ping { extensions, .. } = &mut body
                && !speaks
            {
                extensions.shard = None;
                extensions.human_name = None;
            }
            self.broadcast(body, actions, |key, node| {
                (node.speaks_extensions != Some(false)) == speaks && fits(key, node)
            });
        }
    }

    /// Tells a node about one other, unasked.
    pub(super) fn report(&mut self, to: NodeKey, about: NodeKey, actions: &mut Actions) {
        let gossip = vec![self.gossip_about(about)];
        let extensions = self.extensions(Some(to), Vec::new());
        let kind = PingKind::Pong;
        self.send(
            to,
            Body::Ping {
                kind,
                gossip,
                extensions,
            },
            actions,
        );
    }

    fn ping_packet(&mut self, kind: PingKind, to: Option<NodeKey>, forgotten: Vec<Forgotten>) -> Box<Packet> {
        let gossip = self.choose_gossip(to);
        let extensions = self.extensions(to, forgotten);
        self.packet(Body::Ping {
            kind,
            gossip,
            extensions,
        })
    }

    fn extensions(&self, to: Option<NodeKey>, forgotten: Vec<Forgotten>) -> Extensions {
        let me = self.view.me();
        let label = |text: &str| (!text.is_empty()).then(|| Box::from(text));
        let speaks = to.is_none_or(|to| self.view[to].speaks_extensions != Some(false));
        Extensions {
            hostname: label(&me.hostname),
            human_name: label(&me.human_name).filter(|_| speaks),
            forgotten,
            shard: Some(self.view.shard_of(self.view.my_key())).filter(|_| speaks),
        }
    }

    /// Nodes to tell of: a few random ones that seem to work, and the suspected ones.
    fn choose_gossip(&mut self, to: Option<NodeKey>) -> Vec<Gossip> {
        let me = self.view.my_key();
        let nodes = self.view.len();
        let wanted = (nodes / GOSSIP_PART).max(GOSSIP_MIN).min(nodes);
        let mut chosen = BTreeSet::new();
        for _ in 0..wanted * 3 {
            let key = self.view.keys()[self.random.usize(..nodes)];
            let node = &self.view[key];
            let is_useless = node.flags.intersects(Flags::HANDSHAKE | Flags::NOADDR)
                || (node.link().is_none() && node.slots == 0);
            if key == me || Some(key) == to || node.flags.contains(Flags::PFAIL) || is_useless {
                continue;
            }
            chosen.insert(key);
            if chosen.len() == wanted {
                break;
            }
        }
        let mut gossip = Vec::with_capacity(chosen.len());
        gossip.extend(chosen.into_iter().map(|key| self.gossip_about(key)));
        // If there are more, each ping begins with another one.
        let first = self.random.usize(..self.suspects.len().max(1));
        let suspects = self.suspects[first..].iter().chain(&self.suspects[..first]);
        let suspects = suspects.filter(|&&key| self.view[key].flags.contains(Flags::PFAIL));
        gossip.extend(suspects.take(SUSPECTS_MAX).map(|&key| self.gossip_about(key)));
        gossip
    }

    fn gossip_about(&self, key: NodeKey) -> Gossip {
        let node = &self.view[key];
        let (port, other_port) = self.wire_ports(node.address.tcp_port, node.address.tls_port);
        let seconds = |moment_ms| (crate::view::unix_ms(self.now, moment_ms) / 1_000) as u32;
        Gossip {
            id: node.id,
            ping_sent_s: seconds(node.ping_sent_ms),
            pong_received_s: seconds(node.pong_received_ms),
            ip: node.address.ip,
            port,
            bus_port: node.address.bus_port,
            flags: node.flags,
            other_port,
        }
    }

    /// Every packet comes in here. What only known nodes may say is dropped if a stranger says it.
    pub(super) fn receive(&mut self, link: LinkId, peer: Peer, packet: Packet, actions: &mut Actions) {
        let Packet { header, body } = packet;
        self.traffic.received[body.index()] += 1;
        self.data_came(link);
        let me = self.view.my_key();
        let sender = self.view.find_known(&header.sender).filter(|&key| key != me);
        if let Some(sender) = sender {
            self.note_sender(sender, link, &header, actions);
        }
        match (body, sender) {
            (
                Body::Ping {
                    kind,
                    gossip,
                    extensions,
                },
                _,
            ) => {
                let ping = Ping {
                    kind,
                    gossip,
                    extensions,
                };
                self.receive_ping(link, &peer, &header, ping, actions);
            }
            (_, None) => {}
            (Body::Fail(id), Some(sender)) => self.receive_fail(sender, id, actions),
            (
                Body::Publish {
                    is_sharded,
                    channel,
                    message,
                },
                Some(_),
            ) => {
                actions.push(Action::Deliver {
                    is_sharded,
                    channel,
                    message,
                });
            }
            (Body::AuthRequest, Some(sender)) => self.receive_vote_request(sender, &header, actions),
            (Body::AuthAck, Some(sender)) => self.receive_vote(sender, &header),
            (
                Body::Update {
                    id,
                    config_epoch,
                    slots,
                },
                Some(_),
            ) => {
                self.receive_update(id, config_epoch, &slots, actions);
            }
            (Body::ManualStart, Some(sender)) => self.receive_manual_start(sender, actions),
            (Body::Module, Some(_)) => {}
        }
    }

    /// Notes what every packet of a known node tells.
    fn note_sender(&mut self, sender: NodeKey, link: LinkId, header: &Header, actions: &mut Actions) {
        self.view.current_epoch = self.view.current_epoch.max(header.current_epoch);
        let node = &mut self.view[sender];
        node.data_received_ms = self.now.monotonic_ms;
        node.replication_offset = header.offset;
        // A replica tells its primary's epoch, and maybe an old one.
        if header.primary.is_none() && header.config_epoch > node.config_epoch {
            node.config_epoch = header.config_epoch;
            actions.save(true);
        }
        if let LinkId::Inbound(number) = link
            && let Some(old) = node.inbound.replace(number)
            && old != number
        {
            // It has opened a new one, so it has given the old one up.
            actions.push(Action::Close(LinkId::Inbound(old)));
        }
        self.note_pause(sender, header, actions);
    }

    fn receive_ping(
        &mut self,
        link: LinkId,
        peer: &Peer,
        header: &Header,
        ping: Ping,
        actions: &mut Actions,
    ) {
        let me = self.view.my_key();
        let mut sender = self.view.find_known(&header.sender);
        if ping.kind != PingKind::Pong {
            self.answer(link, peer, header, &ping, actions);
        }
        if let Some(called) = self.called(link) {
            if self.view[called].is_in_handshake() {
                sender = self.finish_handshake(called, header, actions);
            } else if self.view[called].id != header.sender {
                self.lose_address(called, actions);
                return;
            }
            if sender == Some(called) && ping.kind == PingKind::Pong {
                self.receive_pong(called, actions);
            }
        }
        let Some(sender) = sender.filter(|&sender| sender != me) else {
            return;
        };
        if ping.kind == PingKind::Ping && self.called(link).is_none() {
            let address = self.told_address(header, peer);
            self.set_address(sender, address, actions);
        }
        let no_failover = header.flags.contains(Flags::NOFAILOVER);
        self.view[sender].flags.set(Flags::NOFAILOVER, no_failover);
        self.receive_claims(sender, header, actions);
        self.receive_extensions(sender, ping.extensions, actions);
        self.receive_gossip(sender, ping.gossip, actions);
    }

    /// A ping is answered whoever sends it; a stranger may ask to be taken in besides.
    fn answer(&mut self, link: LinkId, peer: &Peer, header: &Header, ping: &Ping, actions: &mut Actions) {
        if ping.kind == PingKind::Meet || self.view.me().address.ip.is_empty() {
            self.learn_own_address(peer, actions);
        }
        if ping.kind == PingKind::Meet && self.view.find(&header.sender).is_none() {
            self.take_in(header, peer);
            actions.save(false);
        }
        let to = self.view.find_known(&header.sender);
        let packet = self.ping_packet(PingKind::Pong, to, Vec::new());
        self.send_packet(link, packet, actions);
    }

    fn learn_own_address(&mut self, peer: &Peer, actions: &mut Actions) {
        let is_announced = !self.options.announced.ip.is_empty();
        let me = self.view.me_mut();
        if is_announced || peer.local_ip.is_empty() || me.address.ip == peer.local_ip {
            return;
        }
        me.address.ip = peer.local_ip;
        actions.warn(format!("IP address for this node updated to {}", peer.local_ip));
        self.view.touch();
        actions.save(false);
    }

    pub(super) fn receive_pong(&mut self, key: NodeKey, actions: &mut Actions) {
        let node = &mut self.view[key];
        node.pong_received_ms = self.now.monotonic_ms;
        node.ping_sent_ms = 0;
        if node.flags.contains(Flags::PFAIL) {
            node.flags.remove(Flags::PFAIL);
            self.due.health = true;
        }
        if self.view[key].is_failed() {
            self.clear_failure_if_due(key, actions);
        }
    }

    /// An extension that is missing means an empty text, except for the shard: Redis 7.0 does not know it.
    fn receive_extensions(&mut self, sender: NodeKey, extensions: Extensions, actions: &mut Actions) {
        let node = &mut self.view[sender];
        node.speaks_extensions = Some(extensions.shard.is_some());
        let hostname = extensions.hostname.unwrap_or_default();
        let human_name = extensions.human_name.unwrap_or_default();
        let shard = extensions.shard.or(node.shard);
        if node.hostname != hostname || node.human_name != human_name || node.shard != shard {
            node.hostname = hostname;
            node.human_name = human_name;
            node.shard = shard;
            self.view.touch();
            actions.save(false);
        }
        for forgotten in extensions.forgotten {
            let key = self.view.find_known(&forgotten.id);
            let is_dear = key == Some(self.view.my_key()) || (key.is_some() && key == self.view.me().primary);
            if let Some(key) = key
                && key != sender
                && !is_dear
            {
                self.forget(key, forgotten.ttl_s.saturating_mul(1_000), actions);
            }
        }
    }

    fn receive_gossip(&mut self, sender: NodeKey, gossip: Vec<Gossip>, actions: &mut Actions) {
        let me = self.view.my_key();
        for entry in gossip {
            match self.view.find_known(&entry.id) {
                Some(key) if key == me || key == sender => {}
                Some(key) => self.receive_entry(sender, key, &entry, actions),
                None => self.learn_of(&entry, actions),
            }
        }
    }

    fn receive_entry(&mut self, sender: NodeKey, key: NodeKey, entry: &Gossip, actions: &mut Actions) {
        let is_failing = entry.flags.intersects(Flags::FAILING);
        if self.view[sender].is_voter() {
            self.note_report(sender, key, is_failing, actions);
        }
        let is_quiet = {
            let node = &self.view[key];
            node.ping_sent_ms == 0 && node.reports.is_empty() && !node.is_failing()
        };
        if !is_failing && is_quiet {
            self.believe_pong(key, entry.pong_received_s);
        }
        let has_address = !entry.flags.contains(Flags::NOADDR) && !entry.ip.is_empty();
        if self.view[key].is_failing() && !is_failing && has_address {
            let address = self.gossip_address(entry);
            if address != self.view[key].address {
                self.set_address(key, address, actions);
            }
        }
    }

    /// Takes a pong that another node got for one of ours, which spares a ping. Its clock must agree with this one.
    fn believe_pong(&mut self, key: NodeKey, pong_received_s: u32) {
        let pong_ms = u64::from(pong_received_s) * 1_000;
        if pong_ms > self.now.unix_ms + CLOCK_AHEAD_MAX_MS {
            return;
        }
        let age_ms = self.now.unix_ms.saturating_sub(pong_ms);
        let node = &mut self.view[key];
        if let Some(moment_ms) = self.now.monotonic_ms.checked_sub(age_ms) {
            node.pong_received_ms = node.pong_received_ms.max(moment_ms);
        }
    }

    fn gossip_address(&self, entry: &Gossip) -> Address {
        let (tcp_port, tls_port) = self.wire_ports(entry.port, entry.other_port);
        Address {
            ip: entry.ip,
            tcp_port,
            tls_port,
            bus_port: entry.bus_port,
        }
    }

    /// Takes in a node that a known one tells of, under its name: its address alone could be another node's by now.
    /// Its failure is for this node to find out.
    fn learn_of(&mut self, entry: &Gossip, actions: &mut Actions) {
        let now_ms = self.now.monotonic_ms;
        let is_usable = !entry.flags.intersects(Flags::NOADDR | Flags::HANDSHAKE) && !entry.ip.is_empty();
        if !is_usable || self.bans.contains(&entry.id, now_ms) || self.view.find(&entry.id).is_some() {
            return;
        }
        let role = if entry.flags.contains(Flags::REPLICA) {
            Flags::REPLICA
        } else {
            Flags::PRIMARY
        };
        let flags = role | entry.flags & Flags::NOFAILOVER;
        let node = Node::new(entry.id, flags, self.gossip_address(entry), now_ms);
        match self.view.insert(node) {
            Some(_) => actions.save(false),
            None => actions.log(Level::Debug, "Too many nodes are known to take another one in."),
        }
    }
}

/// The body of a ping.
struct Ping {
    kind: PingKind,
    gossip: Vec<Gossip>,
    extensions: Extensions,
}
