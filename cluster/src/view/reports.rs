//! Reports of a view for clients, as plain data: the server gives them the shape of a reply.

use std::fmt::{self, Write};
use std::ops::RangeInclusive;

use super::View;
use crate::event::{EndpointKind, Now, Options};
use crate::node::{Flags, LinkId, Node, NodeId, NodeKey, ShardId};
use crate::redirect::{Endpoint, Owner, SlotState, SlotView, Transfer};
use crate::slot::{SLOTS, Slot, SlotSet, write_ranges};

/// A range of slots with one owner: an entry of `CLUSTER SLOTS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRange {
    /// The first slot.
    pub start: Slot,
    /// The last slot.
    pub end: Slot,
    /// Their owner.
    pub primary: NodeKey,
    /// Its replicas that work and have its data.
    pub replicas: Vec<NodeKey>,
}

/// A primary with its replicas: an entry of `CLUSTER SHARDS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its name.
    pub id: ShardId,
    /// Its slots.
    pub slots: Box<SlotSet>,
    /// Its nodes, the primary first.
    pub nodes: Vec<ShardNode>,
}

/// A node of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardNode {
    /// The node.
    pub key: NodeKey,
    /// Its health in a word.
    pub health: HealthWord,
    /// Its replication offset.
    pub replication_offset: u64,
}

/// Health of a node, as `CLUSTER SHARDS` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthWord {
    /// The node works.
    Online,
    /// The node is held for failed.
    Fail,
    /// The node has no data yet.
    Loading,
}

impl fmt::Display for HealthWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HealthWord::Online => "online",
            HealthWord::Fail => "fail",
            HealthWord::Loading => "loading",
        })
    }
}

/// A connection of the bus: an entry of `CLUSTER LINKS`. The server knows the rest of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkLine {
    /// The connection.
    pub link: LinkId,
    /// The node at its other end.
    pub node: NodeId,
}

/// Figures of `CLUSTER INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// `cluster_state` is ok.
    pub is_ok: bool,
    /// `cluster_slots_assigned`.
    pub slots_assigned: usize,
    /// `cluster_slots_ok`.
    pub slots_ok: usize,
    /// `cluster_slots_pfail`.
    pub slots_pfail: usize,
    /// `cluster_slots_fail`.
    pub slots_fail: usize,
    /// `cluster_known_nodes`.
    pub known_nodes: usize,
    /// `cluster_size`.
    pub size: usize,
    /// `cluster_current_epoch`.
    pub current_epoch: u64,
    /// `cluster_my_epoch`.
    pub my_epoch: u64,
    /// Primaries with slots that may fail at once while the others can still elect. With one or two primaries it is 0:
    /// such a cluster never fails over by itself.
    pub failures_survived: usize,
}

impl View {
    /// Entries of `CLUSTER SLOTS`, in the order of slots. O(slots + ranges × nodes).
    #[must_use]
    pub fn slot_ranges(&self) -> Vec<SlotRange> {
        let mut ranges: Vec<SlotRange> = Vec::new();
        for slot in Slot::all() {
            let Some(primary) = self.owner(slot) else { continue };
            match ranges.last_mut() {
                Some(last) if last.primary == primary && last.end.number() + 1 == slot.number() => {
                    last.end = slot;
                }
                _ => ranges.push(SlotRange {
                    start: slot,
                    end: slot,
                    primary,
                    replicas: Vec::new(),
                }),
            }
        }
        for range in &mut ranges {
            let replicas = self.replicas(range.primary);
            let working = replicas.filter(|(_, node)| !node.is_failed() && node.replication_offset != 0);
            range.replicas = working.map(|(key, _)| key).collect();
        }
        ranges
    }

    /// Entries of `CLUSTER SHARDS`. O(primaries × (nodes + slots)).
    #[must_use]
    pub fn shards(&self) -> Vec<Shard> {
        let heads = self.nodes().filter(|(_, node)| {
            // A replica whose primary is not known stands alone.
            !node.is_in_handshake() && (node.is_primary() || node.primary.is_none())
        });
        heads
            .map(|(key, _)| Shard {
                id: self.shard_of(key),
                slots: Box::new(self.slots_of(key)),
                nodes: std::iter::once(key)
                    .chain(self.replicas(key).map(|(replica, _)| replica))
                    .map(|key| self.shard_node(key))
                    .collect(),
            })
            .collect()
    }

    fn shard_node(&self, key: NodeKey) -> ShardNode {
        let node = &self[key];
        let health = if node.is_failed() {
            HealthWord::Fail
        } else if node.is_replica() && node.replication_offset == 0 {
            HealthWord::Loading
        } else {
            HealthWord::Online
        };
        ShardNode {
            key,
            health,
            replication_offset: node.replication_offset,
        }
    }

    /// Entries of `CLUSTER LINKS`.
    pub fn links(&self) -> impl Iterator<Item = LinkLine> {
        self.nodes().flat_map(|(_, node)| {
            let to = node.outbound.map(|outbound| LinkId::Outbound(outbound.number));
            let from = node.inbound.map(LinkId::Inbound);
            let line = |link| LinkLine { link, node: node.id };
            to.into_iter().chain(from).map(line)
        })
    }

    /// Figures of `CLUSTER INFO`. O(slots + nodes).
    #[must_use]
    pub fn info(&self) -> Info {
        let mut info = Info {
            is_ok: self.is_ok,
            slots_assigned: 0,
            slots_ok: 0,
            slots_pfail: 0,
            slots_fail: 0,
            known_nodes: self.len(),
            size: self.voters().count(),
            current_epoch: self.current_epoch,
            my_epoch: self.config_epoch(self.my_key()),
            failures_survived: 0,
        };
        info.failures_survived = if info.size == 0 { 0 } else { (info.size - 1) / 2 };
        for (_, node) in self.nodes() {
            let slots = usize::from(node.slots);
            info.slots_assigned += slots;
            match node.flags {
                flags if flags.contains(Flags::FAIL) => info.slots_fail += slots,
                flags if flags.contains(Flags::PFAIL) => info.slots_pfail += slots,
                _ => info.slots_ok += slots,
            }
        }
        debug_assert!(info.slots_assigned <= SLOTS);
        info
    }

    /// The text of `CLUSTER NODES`; `is_tls` says which port the client wants. O(nodes + slots).
    #[must_use]
    pub fn nodes_text(&self, now: Now, is_tls: bool) -> String {
        let mut text = String::new();
        let ranges = self.ranges_by_node();
        for &key in self.keys() {
            self.write_line(&mut text, key, &ranges[usize::from(key.0)], now, is_tls);
        }
        text
    }

    /// One line of `CLUSTER NODES`, as for [`View::nodes_text`].
    #[must_use]
    pub fn node_text(&self, key: NodeKey, now: Now, is_tls: bool) -> String {
        let mut text = String::new();
        let ranges: Vec<_> = self.slots_of(key).ranges().collect();
        self.write_line(&mut text, key, &ranges, now, is_tls);
        text
    }

    fn write_line(
        &self,
        text: &mut String,
        key: NodeKey,
        slots: &[RangeInclusive<Slot>],
        now: Now,
        is_tls: bool,
    ) {
        let node = &self[key];
        write_all(text, format_args!("{} {}", node.id, address(node, is_tls)));
        if !node.hostname.is_empty() {
            write_all(text, format_args!(",{}", node.hostname));
        }
        self.write_rest(text, key, slots, now);
    }

    /// The part of a line that `CLUSTER NODES` and the file have in common: everything behind the address.
    pub(crate) fn write_rest(
        &self,
        text: &mut String,
        key: NodeKey,
        slots: &[RangeInclusive<Slot>],
        now: Now,
    ) {
        let node = &self[key];
        write_all(text, format_args!(" {} ", node.flags));
        match node.primary {
            Some(primary) => write_all(text, format_args!("{}", self[primary].id)),
            None => text.push('-'),
        }
        let is_connected = key == self.my_key() || node.link().is_some();
        write_all(
            text,
            format_args!(
                " {} {} {} {}",
                unix_ms(now, node.ping_sent_ms),
                unix_ms(now, node.pong_received_ms),
                self.config_epoch(key),
                if is_connected { "connected" } else { "disconnected" },
            ),
        );
        if !slots.is_empty() {
            text.push(' ');
            write_ranges(text, slots.iter().cloned()).expect("a string takes everything");
        }
        if key == self.my_key() {
            for (slot, &to) in self.migrating() {
                write_all(text, format_args!(" [{slot}->-{}]", self[to].id));
            }
            for (slot, &from) in self.importing() {
                write_all(text, format_args!(" [{slot}-<-{}]", self[from].id));
            }
        }
        text.push('\n');
    }
}

/// The unix time of a moment on the monotonic clock; 0 stays never.
pub(crate) fn unix_ms(now: Now, moment_ms: u64) -> u64 {
    if moment_ms == 0 || moment_ms > now.monotonic_ms {
        return 0;
    }
    // A wall clock that was set back to just after 1970 gives the beginning of time.
    now.unix_ms.saturating_sub(now.monotonic_ms - moment_ms)
}

/// Address of a node as texts have it.
pub(crate) fn address(node: &Node, is_tls: bool) -> impl fmt::Display {
    let address = node.address;
    let port = address.client_port(is_tls);
    fmt::from_fn(move |f| write!(f, "{}:{port}@{}", address.ip, address.bus_port))
}

/// Writing to a string cannot fail.
fn write_all(text: &mut String, arguments: fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes everything");
}

/// A view as a client is told of it: which port of a node it can use and how a node is called.
#[derive(Clone, Copy, Debug)]
pub struct ClientView<'a> {
    pub(crate) view: &'a View,
    pub(crate) options: &'a Options,
    pub(crate) is_tls: bool,
}

impl<'a> ClientView<'a> {
    /// The endpoint of a node in the form that `cluster-preferred-endpoint-type` asks for.
    #[must_use]
    pub fn endpoint(&self, key: NodeKey) -> Endpoint<'a> {
        let node = &self.view[key];
        Endpoint {
            host: match self.options.preferred_endpoint {
                EndpointKind::Ip => &node.address.ip,
                EndpointKind::Hostname if node.hostname.is_empty() => "?",
                EndpointKind::Hostname => &node.hostname,
                EndpointKind::Unknown => "",
            },
            port: node.address.client_port(self.is_tls),
        }
    }
}

impl SlotView for ClientView<'_> {
    fn slot(&self, slot: Slot) -> SlotState<'_> {
        let me = self.view.my_key();
        let owner = match self.view.owner(slot) {
            None => Owner::Nobody,
            Some(owner) if owner == me => Owner::Me,
            Some(owner) if self.view.me().primary == Some(owner) => Owner::MyPrimary(self.endpoint(owner)),
            Some(owner) => Owner::Other(self.endpoint(owner)),
        };
        let transfer = match self.view.migrating().get(&slot) {
            Some(&to) => Transfer::Migrating(self.endpoint(to)),
            None if self.view.importing().contains_key(&slot) => Transfer::Importing,
            None => Transfer::Settled,
        };
        SlotState { owner, transfer }
    }

    fn is_healthy(&self) -> bool {
        self.view.is_ok
    }

    fn serves_reads_when_down(&self) -> bool {
        self.options.allow_reads_when_down
    }

    fn serves_shard_channels_when_down(&self) -> bool {
        self.options.allow_pubsubshard_when_down
    }
}
