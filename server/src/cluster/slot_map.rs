//! [`SlotMap`]: the owners of all slots, the slots that move, and the health of the cluster, as commands need them.
//!
//! A map is a copy of the machine's view, made when that changes, and is never changed itself: loops look at it without a lock.
//! A command on a slot of this node that does not move, in a cluster that works, costs a look at one bit.

use std::collections::BTreeMap;

use shardis_cluster::node::NodeKey;
use shardis_cluster::{Endpoint, Machine, Owner, SLOTS, Slot, SlotSet, SlotState, SlotView, Transfer};

/// Place of a node in the list of endpoints.
type Place = u16;

/// Stands for this node in the table of owners.
const ME: Place = Place::MAX - 1;

/// Stands for no node.
const NOBODY: Place = Place::MAX;

/// An endpoint with a host of its own, for clients of both kinds.
#[derive(Debug, PartialEq, Eq)]
struct OwnedEndpoint {
    host: Box<str>,
    /// Port that clients without TLS are told.
    plain_port: u16,
    /// Port that clients with TLS are told.
    tls_port: u16,
}

impl OwnedEndpoint {
    fn borrowed(&self, is_tls: bool) -> Endpoint<'_> {
        Endpoint {
            host: &self.host,
            port: if is_tls { self.tls_port } else { self.plain_port },
        }
    }
}

/// A slot that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    /// To the node at this place.
    Migrating(Place),
    /// To this node.
    Importing,
}

/// The slots of a cluster as one node believes.
#[derive(Debug)]
pub(crate) struct SlotMap {
    number: u64,
    /// Slots whose commands run here whatever their keys are: this node owns them, none moves, and the cluster works.
    settled: Box<SlotSet>,
    /// Slots of this node's primary, if the node is a replica and the cluster works: commands that only read run here, for
    /// clients that ask for that.
    replicated: Box<SlotSet>,
    owners: Box<[Place]>,
    endpoints: Vec<OwnedEndpoint>,
    /// The primary of this node, if it is a replica.
    primary: Place,
    /// The slots that move, in the view of this node.
    open: BTreeMap<Slot, Open>,
    is_healthy: bool,
    serves_reads_when_down: bool,
    serves_shard_channels_when_down: bool,
}

impl SlotMap {
    /// The map of a machine's view.
    pub(crate) fn of(machine: &Machine) -> Self {
        let (view, options) = (machine.view(), machine.options());
        let mut places = Places::new(machine);
        let owners: Box<[Place]> = Slot::all().map(|slot| places.of(view.owner(slot))).collect();
        let migrating = view.migrating().iter();
        let mut open: BTreeMap<Slot, Open> = migrating
            .map(|(&slot, &to)| (slot, Open::Migrating(places.of(Some(to)))))
            .collect();
        for &slot in view.importing().keys() {
            open.entry(slot).or_insert(Open::Importing);
        }
        let primary = places.of(view.me().primary);
        let slots_of = |place: Place| {
            let works = view.is_ok && place != NOBODY;
            let slots = Slot::all().filter(|slot| owners[slot.index()] == place && !open.contains_key(slot));
            Box::new(slots.filter(|_| works).collect::<SlotSet>())
        };
        Self {
            number: 0,
            settled: slots_of(ME),
            replicated: slots_of(primary),
            endpoints: places.endpoints,
            primary,
            is_healthy: view.is_ok,
            serves_reads_when_down: options.allow_reads_when_down,
            serves_shard_channels_when_down: options.allow_pubsubshard_when_down,
            owners,
            open,
        }
    }

    /// The same map with a number, which no other one has.
    pub(super) fn numbered(self, number: u64) -> Self {
        Self { number, ..self }
    }

    /// Number of the map: a later one has a greater number.
    #[inline]
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The map as it is at a moment at which the node may be stale.
    #[inline]
    pub(crate) fn seen(&self, is_stale: bool) -> SeenMap<'_> {
        SeenMap {
            map: self,
            is_stale,
            is_tls: false,
        }
    }

    /// Whether this node holds a slot: it owns it, its primary does, or it is about to get it.
    pub(crate) fn is_home_of(&self, slot: Slot) -> bool {
        let owner = self.owners[slot.index()];
        owner == ME
            || owner != NOBODY && owner == self.primary
            || self.open.get(&slot) == Some(&Open::Importing)
    }
}

/// Places of nodes in the list of endpoints, given as nodes are met.
struct Places<'a> {
    machine: &'a Machine,
    known: BTreeMap<NodeKey, Place>,
    /// The node that was met last: neighbouring slots mostly have one owner.
    last: (Option<NodeKey>, Place),
    endpoints: Vec<OwnedEndpoint>,
}

impl<'a> Places<'a> {
    fn new(machine: &'a Machine) -> Self {
        Self {
            machine,
            known: BTreeMap::from([(machine.view().my_key(), ME)]),
            last: (None, NOBODY),
            endpoints: Vec::new(),
        }
    }

    /// The place of a node, or the one that stands for none.
    fn of(&mut self, node: Option<NodeKey>) -> Place {
        if node != self.last.0 {
            self.last = (node, node.map_or(NOBODY, |key| self.find(key)));
        }
        self.last.1
    }

    fn find(&mut self, key: NodeKey) -> Place {
        let Self {
            machine,
            known,
            endpoints,
            ..
        } = self;
        *known.entry(key).or_insert_with(|| {
            let [plain, tls] = [false, true].map(|is_tls| machine.for_client(is_tls).endpoint(key));
            endpoints.push(OwnedEndpoint {
                host: plain.host.into(),
                plain_port: plain.port,
                tls_port: tls.port,
            });
            (endpoints.len() - 1) as Place
        })
    }
}

/// A map at a moment. A node that may have been suspended for long is stale: others may own its slots by now, so it serves nobody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeenMap<'a> {
    map: &'a SlotMap,
    is_stale: bool,
    /// The client that is told of endpoints is connected over TLS.
    is_tls: bool,
}

impl<'a> SeenMap<'a> {
    /// Number of the map.
    #[inline]
    pub(crate) fn number(self) -> u64 {
        self.map.number
    }

    /// The same moment, with a later map.
    pub(crate) fn with<'b>(self, map: &'b SlotMap) -> SeenMap<'b>
    where
        'a: 'b,
    {
        SeenMap { map, ..self }
    }

    /// The same, with the endpoints that a client with or without TLS can use.
    pub(crate) fn told_to(self, is_tls: bool) -> Self {
        SeenMap { is_tls, ..self }
    }

    /// Whether every command on a slot runs here.
    #[inline]
    pub(crate) fn is_settled(self, slot: u16) -> bool {
        Slot::new(slot).is_some_and(|slot| self.map.settled.contains(slot)) && !self.is_stale
    }

    /// Whether commands on a slot that only read run here, for clients that have asked for that.
    #[inline]
    pub(crate) fn is_replicated(self, slot: u16) -> bool {
        Slot::new(slot).is_some_and(|slot| self.map.replicated.contains(slot)) && !self.is_stale
    }
}

impl SlotView for SeenMap<'_> {
    fn slot(&self, slot: Slot) -> SlotState<'_> {
        let endpoint = |place: Place| self.map.endpoints[usize::from(place)].borrowed(self.is_tls);
        let owner = match self.map.owners[slot.index()] {
            NOBODY => Owner::Nobody,
            ME => Owner::Me,
            place if place == self.map.primary => Owner::MyPrimary(endpoint(place)),
            place => Owner::Other(endpoint(place)),
        };
        let transfer = match self.map.open.get(&slot) {
            None => Transfer::Settled,
            Some(Open::Importing) => Transfer::Importing,
            Some(&Open::Migrating(to)) => Transfer::Migrating(endpoint(to)),
        };
        SlotState { owner, transfer }
    }

    fn is_healthy(&self) -> bool {
        self.map.is_healthy && !self.is_stale
    }

    fn serves_reads_when_down(&self) -> bool {
        self.map.serves_reads_when_down && !self.is_stale
    }

    fn serves_shard_channels_when_down(&self) -> bool {
        self.map.serves_shard_channels_when_down && !self.is_stale
    }
}

const _: () = assert!(SLOTS < NOBODY as usize, "a place for every owner");

#[cfg(test)]
mod tests {
    use shardis_cluster::event::{Actions, Event, Now, Options};
    use shardis_cluster::node::NodeId;
    use shardis_cluster::nodes_file;

    use super::*;

    const ME_LINE: &str = "1111111111111111111111111111111111111111 127.0.0.1:7000@17000 myself,";
    const OTHER: &str = "2222222222222222222222222222222222222222";
    const OTHER_LINE: &str = "2222222222222222222222222222222222222222 127.0.0.2:7001@17001,,tls-port=7101 master - 0 0 2 connected 100-300";
    const ELSEWHERE: Endpoint<'_> = Endpoint {
        host: "127.0.0.2",
        port: 7001,
    };
    /// The same for clients with TLS.
    const SECURED: Endpoint<'_> = Endpoint {
        port: 7101,
        ..ELSEWHERE
    };

    /// The map of a node with this file, some time after its start: then its cluster works.
    fn map(lines: &[&str]) -> SlotMap {
        let at = |monotonic_ms| Now {
            monotonic_ms,
            unix_ms: monotonic_ms,
        };
        let text = lines.join("\n") + "\nvars currentEpoch 2 lastVoteEpoch 0\n";
        let view = nodes_file::parse(&text, at(1), false, 1).unwrap().unwrap();
        let options = Options {
            require_full_coverage: false,
            ..Options::default()
        };
        let mut machine = Machine::resume(view, NodeId::new([1; 20]), options, at(1), 1);
        machine.handle(at(5_000), Event::Tick, &mut Actions::new());
        SlotMap::of(&machine)
    }

    fn slot(number: u16) -> Slot {
        Slot::new(number).unwrap()
    }

    #[test]
    fn a_primary_knows_its_slots_and_those_of_others() {
        let me = format!("{ME_LINE}master - 0 0 1 connected 0-99 [5->-{OTHER}] [200-<-{OTHER}]");
        let map = map(&[&me, OTHER_LINE]);
        let seen = map.seen(false);
        for (number, owner, transfer, is_settled, is_home) in [
            (1, Owner::Me, Transfer::Settled, true, true),
            (5, Owner::Me, Transfer::Migrating(ELSEWHERE), false, true),
            (150, Owner::Other(ELSEWHERE), Transfer::Settled, false, false),
            (200, Owner::Other(ELSEWHERE), Transfer::Importing, false, true),
            (301, Owner::Nobody, Transfer::Settled, false, false),
        ] {
            assert_eq!(
                seen.slot(slot(number)),
                SlotState { owner, transfer },
                "slot {number}"
            );
            assert_eq!(seen.is_settled(number), is_settled, "slot {number}");
            assert_eq!(map.is_home_of(slot(number)), is_home, "slot {number}");
        }
    }

    #[test]
    fn a_client_is_told_of_the_port_of_its_kind() {
        let me = format!("{ME_LINE}master - 0 0 1 connected 0-99 [5->-{OTHER}]");
        let map = map(&[&me, OTHER_LINE]);
        let seen = map.seen(false).told_to(true);
        assert_eq!(seen.slot(slot(150)).owner, Owner::Other(SECURED));
        assert_eq!(seen.slot(slot(5)).transfer, Transfer::Migrating(SECURED));
        let plain_only = OTHER_LINE.replace(",,tls-port=7101", "");
        let map = self::map(&[&me, &plain_only]);
        let seen = map.seen(false).told_to(true);
        let owner = seen.slot(slot(150)).owner;
        assert_eq!(owner, Owner::Other(ELSEWHERE), "the only port there is");
    }

    #[test]
    fn a_replica_knows_the_slots_of_its_primary() {
        let me = format!("{ME_LINE}slave {OTHER} 0 0 2 connected");
        let map = map(&[&me, OTHER_LINE]);
        let seen = map.seen(false);
        assert_eq!(seen.slot(slot(100)).owner, Owner::MyPrimary(ELSEWHERE));
        assert!(seen.is_replicated(100) && !seen.is_settled(100) && !seen.is_replicated(99));
        assert!(map.is_home_of(slot(100)) && !map.is_home_of(slot(99)));
    }

    #[test]
    fn a_stale_node_serves_nobody() {
        let map = map(&[&format!("{ME_LINE}master - 0 0 1 connected 0-16383")]);
        assert!(map.seen(false).is_healthy() && map.seen(false).is_settled(1));
        let stale = map.seen(true);
        assert!(!stale.is_healthy() && !stale.serves_reads_when_down());
        assert!(!stale.serves_shard_channels_when_down() && !stale.is_settled(1));
    }
}
