//! Taking nodes in and forgetting them.
//!
//! A node that is met by address gets a random name until its first packet tells the true one. Nodes that known nodes
//! gossip about are taken in under the name that the gossip gives. A forgotten node is banned for a while, else the
//! gossip of others would bring it back at once.

use std::collections::BTreeMap;

use super::Machine;
use crate::event::{Actions, CommandError, Peer};
use crate::node::{Address, Flags, Host, Node, NodeId, NodeKey};
use crate::wire::Header;

/// Most handshakes at a time: any stranger can start one.
pub(super) const HANDSHAKES_MAX: usize = 1_024;

/// Shortest time after which a handshake is given up.
const HANDSHAKE_MIN_MS: u64 = 1_000;

/// Time for which a forgotten node is not taken in again.
pub(super) const BAN_MS: u64 = 60_000;

/// Longest ban that a peer can ask for.
const BAN_MAX_MS: u64 = 3_600_000;

/// Most nodes that are banned at a time.
const BANS_MAX: usize = 1_024;

/// Nodes that are not taken in, and until when.
#[derive(Debug, Default)]
pub(super) struct Bans(BTreeMap<NodeId, u64>);

impl Bans {
    pub(super) fn contains(&self, id: &NodeId, now_ms: u64) -> bool {
        self.0.get(id).is_some_and(|&until_ms| now_ms < until_ms)
    }

    /// Bans a node. If there are too many, the one whose ban ends first goes.
    fn insert(&mut self, id: NodeId, now_ms: u64, ban_ms: u64) {
        self.0.retain(|_, until_ms| now_ms < *until_ms);
        if self.0.len() == BANS_MAX
            && let Some((&first, _)) = self.0.iter().min_by_key(|(_, until_ms)| **until_ms)
        {
            self.0.remove(&first);
        }
        self.0.insert(id, now_ms + ban_ms);
    }
}

impl Machine {
    /// Calls a node by its address.
    pub(super) fn meet(&mut self, ip: Host, port: u16, bus_port: u16) -> Result<(), CommandError> {
        if ip.parse::<core::net::IpAddr>().is_err() || port == 0 || bus_port == 0 {
            return Err(CommandError::InvalidAddress(ip, port));
        }
        let (tcp_port, tls_port) = self.wire_ports(port, 0);
        let address = Address {
            ip,
            tcp_port,
            tls_port,
            bus_port,
        };
        let is_under_way = self.view.nodes().any(|(_, node)| {
            node.is_in_handshake() && node.address.ip == ip && node.address.bus_port == bus_port
        });
        if is_under_way || self.begin_handshake(address, Flags::MEET).is_some() {
            Ok(())
        } else {
            Err(CommandError::TooManyNodes)
        }
    }

    fn begin_handshake(&mut self, address: Address, flags: Flags) -> Option<NodeKey> {
        let under_way = self
            .view
            .nodes()
            .filter(|(_, node)| node.is_in_handshake())
            .count();
        if under_way >= HANDSHAKES_MAX {
            return None;
        }
        let id = self.random_id();
        let flags = Flags::PRIMARY | Flags::HANDSHAKE | flags;
        self.view
            .insert(Node::new(id, flags, address, self.now.monotonic_ms))
    }

    /// A name for a node that has none yet.
    pub(super) fn random_id(&mut self) -> NodeId {
        loop {
            let mut bits = [0; 20];
            self.random.fill(&mut bits);
            let id = NodeId::new(bits);
            // A server may have drawn its own name from the same seed.
            if self.view.find(&id).is_none() {
                return id;
            }
        }
    }

    /// A stranger asks to be taken in. It is called back, which proves its address.
    pub(super) fn take_in(&mut self, header: &Header, peer: &Peer) {
        let address = self.told_address(header, peer);
        let is_under_way = self.view.nodes().any(|(_, node)| {
            node.is_in_handshake()
                && node.address.ip == address.ip
                && node.address.bus_port == address.bus_port
        });
        if !is_under_way {
            self.begin_handshake(address, Flags::empty());
        }
    }

    /// Addresses that a header tells. Without an announced one, it is the one that the packet came from.
    pub(super) fn told_address(&self, header: &Header, peer: &Peer) -> Address {
        let (tcp_port, tls_port) = self.wire_ports(header.port, header.other_port);
        Address {
            ip: if header.ip.is_empty() {
                peer.remote_ip
            } else {
                header.ip
            },
            tcp_port,
            tls_port,
            bus_port: header.bus_port,
        }
    }

    /// A node in handshake has told its name. `None` if it was known under it already: then its entry goes.
    pub(super) fn finish_handshake(
        &mut self,
        key: NodeKey,
        header: &Header,
        actions: &mut Actions,
    ) -> Option<NodeKey> {
        actions.save(false);
        if !self.view.rename(key, header.sender) {
            actions.log(
                crate::event::Level::Verbose,
                format!(
                    "Handshake: we already know node {}, updating the address if needed.",
                    header.sender
                ),
            );
            if let Some(known) = self.view.find_known(&header.sender)
                && known != self.view.my_key()
            {
                let (address, now_ms) = (self.view[key].address, self.now.monotonic_ms);
                self.set_address(known, address, actions);
                self.view[known].data_received_ms = now_ms;
            }
            self.remove_node(key, actions);
            return None;
        }
        actions.log(
            crate::event::Level::Debug,
            format!("Handshake with node {} completed.", header.sender),
        );
        let node = &mut self.view[key];
        node.flags
            .remove(Flags::HANDSHAKE | Flags::MEET | Flags::PRIMARY | Flags::REPLICA);
        node.flags
            .insert(header.flags & (Flags::PRIMARY | Flags::REPLICA));
        if !node.flags.intersects(Flags::REPLICA) || header.primary.is_none() {
            node.flags.remove(Flags::REPLICA);
            node.flags.insert(Flags::PRIMARY);
        }
        self.due.health = true;
        Some(key)
    }

    /// Gives up handshakes that have taken too long.
    pub(super) fn expire_handshakes(&mut self, actions: &mut Actions) {
        let max_ms = self.options.node_timeout_ms.max(HANDSHAKE_MIN_MS);
        let now_ms = self.now.monotonic_ms;
        let expired: Vec<NodeKey> = self
            .view
            .nodes()
            .filter(|(_, node)| node.is_in_handshake() && now_ms - node.known_ms > max_ms)
            .map(|(key, _)| key)
            .collect();
        for key in expired {
            self.remove_node(key, actions);
        }
    }

    /// A node was answered by somebody else: its address is not its own any more.
    pub(super) fn lose_address(&mut self, key: NodeKey, actions: &mut Actions) {
        let node = &mut self.view[key];
        let age_ms = self.now.monotonic_ms - node.known_ms;
        actions.log(
            crate::event::Level::Debug,
            format!(
                "PONG contains mismatching sender ID. About node {} added {age_ms} ms ago, having flags {}",
                node.id,
                node.flags.bits()
            ),
        );
        node.flags.insert(Flags::NOADDR);
        node.address = Address::default();
        self.view.touch();
        self.drop_link(key, actions);
        actions.save(false);
    }

    /// Moves a known node to another address; the connection to the old one goes.
    pub(super) fn set_address(&mut self, key: NodeKey, address: Address, actions: &mut Actions) {
        let node = &mut self.view[key];
        if node.address == address && !node.flags.contains(Flags::NOADDR) {
            return;
        }
        node.address = address;
        node.flags.remove(Flags::NOADDR);
        actions.warn(format!(
            "Address updated for node {}, now {}:{}",
            node.id, address.ip, address.tcp_port
        ));
        self.view.touch();
        self.drop_link(key, actions);
        self.view[key].reconnect_ms = 0;
        if self.view.me().primary == Some(key) {
            self.follow(key, false, actions);
        }
        actions.save(false);
    }

    /// Bans a node and drops it.
    pub(super) fn forget(&mut self, key: NodeKey, ban_ms: u64, actions: &mut Actions) {
        let id = self.view[key].id;
        self.bans
            .insert(id, self.now.monotonic_ms, ban_ms.min(BAN_MAX_MS));
        self.remove_node(key, actions);
        self.due.health = true;
        actions.save(false);
    }

    /// Drops a node with its connections.
    pub(super) fn remove_node(&mut self, key: NodeKey, actions: &mut Actions) {
        self.drop_link(key, actions);
        if let Some(number) = self.view[key].inbound.take() {
            actions.push(crate::event::Action::Close(crate::node::LinkId::Inbound(number)));
        }
        self.manual.drop_node(key);
        self.election.drop_node(key);
        self.suspects.retain(|&suspect| suspect != key);
        self.view.remove(key);
    }
}
