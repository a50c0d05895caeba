//! A network of machines in virtual time: connections, latency, loss, cuts, pauses, crashes, disks and clocks.
//!
//! A connection keeps its order, as TCP does; packets on different connections overtake each other. While a direction
//! is cut its packets are held and come when the cut ends, old as they are then. Everything follows from the seed.

use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};

use shardis_cluster::event::{Action, Actions, Command, Event, Facts, Now, Options, Peer, Reply, TICK_MS};
use shardis_cluster::node::{Host, LinkId, NodeId, ShardId, host};
use shardis_cluster::wire::{PREFIX_BYTES, Packet, frame_len};
use shardis_cluster::{Machine, nodes_file};

use super::checkers::Checkers;

/// Port of the bus of the first node.
const BUS_PORT: u16 = 20_000;

/// Unix time at which a world begins.
const UNIX_START_MS: u64 = 1_700_000_000_000;

/// Most packets that a cut direction of a connection holds.
const HELD_MAX: usize = 1_000;

/// Something that is going to happen to a node.
#[derive(Debug)]
enum Happening {
    Tick,
    /// The answer to an attempt to connect.
    Connected {
        connection: u64,
    },
    Refused {
        number: u64,
    },
    Closed(LinkId),
    Packet {
        connection: u64,
        packet: Vec<Load>,
    },
}

/// A packet under way: bytes, or the packet itself where encoding thousands of nodes' pings would take too long.
#[derive(Debug)]
enum Load {
    Bytes(Vec<u8>),
    Whole(Box<Packet>),
}

struct Entry {
    at_ms: u64,
    number: u64,
    node: usize,
    /// Life of the node for which it is meant.
    life: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at_ms, other.number).cmp(&(self.at_ms, self.number))
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Direction {
    /// No packet arrives before this one.
    last_ms: u64,
    held: Vec<Load>,
}

#[derive(Debug)]
struct Connection {
    opener: usize,
    acceptor: usize,
    number: u64,
    forth: Direction,
    back: Direction,
}

/// A simulated server around a machine.
pub(crate) struct Node {
    pub(crate) machine: Option<Machine>,
    pub(crate) options: Options,
    life: u64,
    /// The file as a process leaves it, and as a loss of power leaves it.
    written: String,
    synced: String,
    /// Whether the file is to be written with the next tick: what need not be durable is written once for many changes.
    is_dirty: bool,
    paused_until_ms: u64,
    unix_shift_ms: i64,
    /// Amount of data.
    pub(crate) offset: u64,
    data_as_of_ms: Option<u64>,
    takes_no_writes: bool,
    last_reply: Option<Reply>,
}

/// Faults of the network and its figures.
#[derive(Debug)]
pub(crate) struct Weather {
    /// Bounds of the latency.
    pub(crate) latency_ms: (u64, u64),
    /// One connection in so many breaks at a packet; 0 for none.
    pub(crate) breaks_one_in: u32,
    /// Directions that are cut.
    pub(crate) cuts: HashSet<(usize, usize)>,
    /// Whether packets go through the codec, and files hold all nodes. Without it thousands of nodes are done sooner, but
    /// files hold the epochs alone, so that no node can start from one.
    pub(crate) is_encoded: bool,
}

/// Nodes, network, time.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) random: fastrand::Rng,
    pub(crate) now_ms: u64,
    pub(crate) nodes: Vec<Node>,
    /// Indexes of the nodes by the names that they have or had.
    by_id: HashMap<NodeId, usize>,
    pub(crate) weather: Weather,
    pub(crate) checkers: Checkers,
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    queue: BinaryHeap<Entry>,
    entries: u64,
    connections: HashMap<u64, Connection>,
    /// Connections by opener and number.
    opened: BTreeMap<(usize, u64), u64>,
    next_connection: u64,
    actions: Actions,
}

impl World {
    /// An empty world.
    pub(crate) fn new(seed: u64) -> Self {
        World {
            seed,
            random: fastrand::Rng::with_seed(seed),
            now_ms: 1_000,
            nodes: Vec::new(),
            by_id: HashMap::new(),
            weather: Weather {
                latency_ms: (1, 20),
                breaks_one_in: 0,
                cuts: HashSet::new(),
                is_encoded: true,
            },
            checkers: Checkers::default(),
            bytes: 0,
            packets: 0,
            queue: BinaryHeap::new(),
            entries: 0,
            connections: HashMap::new(),
            opened: BTreeMap::new(),
            next_connection: 0,
            actions: Actions::new(),
        }
    }

    /// Adds a node that knows nobody, and starts it.
    pub(crate) fn add(&mut self, mut options: Options) -> usize {
        let index = self.nodes.len();
        options.announced.bus_port = BUS_PORT + index as u16;
        options.announced.tcp_port = 1_000 + index as u16;
        self.nodes.push(Node {
            machine: None,
            options,
            life: 0,
            written: String::new(),
            synced: String::new(),
            is_dirty: false,
            paused_until_ms: 0,
            unix_shift_ms: 0,
            offset: 0,
            data_as_of_ms: None,
            takes_no_writes: false,
            last_reply: None,
        });
        self.start(index);
        index
    }

    fn random_name(&mut self) -> NodeId {
        let mut bits = [0; 20];
        self.random.fill(&mut bits);
        NodeId::new(bits)
    }

    pub(crate) fn machine(&self, index: usize) -> &Machine {
        self.nodes[index].machine.as_ref().expect("the node runs")
    }

    pub(crate) fn is_up(&self, index: usize) -> bool {
        self.nodes[index].machine.is_some()
    }

    pub(crate) fn id(&self, index: usize) -> NodeId {
        self.machine(index).view().me().id
    }

    /// Whether a node's process is stopped.
    pub(crate) fn is_paused(&self, index: usize) -> bool {
        self.nodes[index].paused_until_ms > self.now_ms
    }

    /// Indexes of the nodes that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|&index| self.is_up(index))
    }

    pub(crate) fn now(&self, index: usize) -> Now {
        let unix_ms = (UNIX_START_MS + self.now_ms).checked_add_signed(self.nodes[index].unix_shift_ms);
        Now {
            monotonic_ms: self.now_ms,
            unix_ms: unix_ms.expect("clocks jump by hours, not by decades"),
        }
    }

    /// Starts a node that is down, from its file if it has one.
    pub(crate) fn start(&mut self, index: usize) {
        assert!(!self.is_up(index));
        let (id, shard, seed): (NodeId, ShardId, u64) =
            (self.random_name(), self.random_name(), self.random.u64(..));
        let now = self.now(index);
        let node = &mut self.nodes[index];
        let view = nodes_file::parse(&node.written, now, false, seed).expect("a node reads what it wrote");
        let options = node.options.clone();
        node.machine = Some(match view {
            Some(view) => Machine::resume(view, shard, options, now, seed),
            None => Machine::new(id, shard, options, now, seed),
        });
        let id = node.machine.as_ref().map(|machine| machine.view().me().id);
        self.by_id.extend(id.map(|id| (id, index)));
        node.life += 1;
        node.takes_no_writes = false;
        // Data come from the disk; how old they are nobody knows.
        node.data_as_of_ms = None;
        let at_ms = self.now_ms + self.random.u64(1..=TICK_MS);
        self.schedule(index, at_ms, Happening::Tick);
    }

    /// Kills a node. A loss of power takes what was not synced.
    pub(crate) fn kill(&mut self, index: usize, loses_power: bool) {
        let node = &mut self.nodes[index];
        node.machine = None;
        node.is_dirty = false;
        node.life += 1;
        node.paused_until_ms = 0;
        if loses_power {
            node.written = node.synced.clone();
        }
        let broken: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.opener == index || connection.acceptor == index)
            .map(|(&number, _)| number)
            .collect();
        let mut broken = broken;
        broken.sort_unstable();
        for number in broken {
            self.break_connection(number, Some(index));
        }
    }

    /// Takes a node's disk away.
    pub(crate) fn wipe(&mut self, index: usize) {
        assert!(!self.is_up(index));
        let node = &mut self.nodes[index];
        node.written.clear();
        node.synced.clear();
        node.offset = 0;
    }

    /// Stops a node's process for a while.
    pub(crate) fn pause(&mut self, index: usize, for_ms: u64) {
        self.nodes[index].paused_until_ms = self.now_ms + for_ms;
    }

    /// Sets a node's wall clock forward or back.
    pub(crate) fn shift_clock(&mut self, index: usize, by_ms: i64) {
        self.nodes[index].unix_shift_ms = by_ms;
    }

    /// Cuts the network between two groups, both ways or only from the first to the second.
    pub(crate) fn cut(&mut self, from: &[usize], to: &[usize], is_one_way: bool) {
        for &a in from {
            for &b in to {
                self.weather.cuts.insert((a, b));
                if !is_one_way {
                    self.weather.cuts.insert((b, a));
                }
            }
        }
    }

    /// Ends all cuts; what was held comes now.
    pub(crate) fn mend(&mut self) {
        self.weather.cuts.clear();
        let mut numbers: Vec<u64> = self.connections.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            for is_forth in [true, false] {
                let Some(connection) = self.connections.get_mut(&number) else {
                    continue;
                };
                let (opener, acceptor) = (connection.opener, connection.acceptor);
                let direction = if is_forth {
                    &mut connection.forth
                } else {
                    &mut connection.back
                };
                let held = std::mem::take(&mut direction.held);
                if held.is_empty() {
                    continue;
                }
                let to = if is_forth { acceptor } else { opener };
                let at_ms = self.arrival(number, is_forth);
                self.schedule(
                    to,
                    at_ms,
                    Happening::Packet {
                        connection: number,
                        packet: held,
                    },
                );
            }
        }
    }

    fn schedule(&mut self, node: usize, at_ms: u64, what: Happening) {
        self.entries += 1;
        self.queue.push(Entry {
            at_ms,
            number: self.entries,
            node,
            life: self.nodes[node].life,
            what,
        });
    }

    fn latency(&mut self) -> u64 {
        let (min, max) = self.weather.latency_ms;
        self.random.u64(min..=max)
    }

    /// When a packet that is sent now arrives: never before the one in front of it.
    fn arrival(&mut self, connection: u64, is_forth: bool) -> u64 {
        let at_ms = self.now_ms + self.latency();
        let connection = self
            .connections
            .get_mut(&connection)
            .expect("the connection is open");
        let direction = if is_forth {
            &mut connection.forth
        } else {
            &mut connection.back
        };
        direction.last_ms = direction.last_ms.max(at_ms);
        direction.last_ms
    }

    /// Runs until `ms` have passed.
    pub(crate) fn run(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.queue.peek().is_some_and(|entry| entry.at_ms <= end_ms) {
            let entry = self.queue.pop().expect("there is one");
            self.now_ms = self.now_ms.max(entry.at_ms);
            self.happen(entry);
        }
        self.now_ms = end_ms;
    }

    /// Runs until something is so, looked at once in `step_ms`; returns the time it took, or `None` if it was not so
    /// within `max_ms`.
    pub(crate) fn run_until(
        &mut self,
        max_ms: u64,
        step_ms: u64,
        is_so: impl Fn(&World) -> bool,
    ) -> Option<u64> {
        let start_ms = self.now_ms;
        while !is_so(self) {
            if self.now_ms - start_ms >= max_ms {
                return None;
            }
            self.run(step_ms);
        }
        Some(self.now_ms - start_ms)
    }

    fn happen(&mut self, entry: Entry) {
        let index = entry.node;
        let node = &self.nodes[index];
        if entry.life != node.life || node.machine.is_none() {
            return;
        }
        if node.paused_until_ms > self.now_ms {
            let at_ms = node.paused_until_ms;
            self.schedule(index, at_ms, entry.what);
            return;
        }
        match entry.what {
            Happening::Tick => self.tick(index),
            Happening::Connected { connection } => {
                if let Some(connection) = self.connections.get(&connection) {
                    let number = connection.number;
                    self.handle(index, Event::LinkUp(number));
                }
            }
            Happening::Refused { number } => {
                self.handle(index, Event::LinkDown(LinkId::Outbound(number)));
            }
            Happening::Closed(link) => self.handle(index, Event::LinkDown(link)),
            Happening::Packet { connection, packet } => {
                for load in packet {
                    self.arrive(index, connection, load);
                }
            }
        }
    }

    fn tick(&mut self, index: usize) {
        self.live(index);
        self.handle(index, Event::Tick);
        if self.nodes[index].is_dirty {
            self.write_file(index, self.now(index));
        }
        let at_ms = self.now_ms + TICK_MS;
        self.schedule(index, at_ms, Happening::Tick);
    }

    /// A primary that works takes writes; a replica that reaches its primary gets them.
    fn live(&mut self, index: usize) {
        let view = self.machine(index).view();
        let (is_primary, is_ok) = (view.me().is_primary(), view.is_ok);
        let primary = view.me().primary.map(|key| view[key].id);
        let source = primary.and_then(|id| self.by_id.get(&id).copied());
        let source = source.filter(|&source| self.is_up(source) && Some(self.id(source)) == primary);
        let source = source.filter(|&source| {
            let is_cut = |pair| self.weather.cuts.contains(&pair);
            !is_cut((source, index)) && !is_cut((index, source)) && !self.is_paused(source)
        });
        if is_primary && is_ok && !self.nodes[index].takes_no_writes {
            self.nodes[index].offset += self.random.u64(1..100);
        }
        if let Some(source) = source {
            let offset = self.nodes[source].offset;
            let node = &mut self.nodes[index];
            (node.offset, node.data_as_of_ms) = (offset, Some(self.now_ms));
        }
        let node = &self.nodes[index];
        let facts = Facts {
            replication_offset: node.offset,
            data_as_of_ms: node.data_as_of_ms,
        };
        self.handle(index, Event::Facts(facts));
    }

    fn arrive(&mut self, index: usize, number: u64, load: Load) {
        let Some(connection) = self.connections.get(&number) else {
            return;
        };
        let (link, other) = if connection.acceptor == index {
            (LinkId::Inbound(number), connection.opener)
        } else {
            (LinkId::Outbound(connection.number), connection.acceptor)
        };
        let packet = match load {
            Load::Whole(packet) => packet,
            Load::Bytes(bytes) => {
                let prefix: &[u8; PREFIX_BYTES] = bytes.first_chunk().expect("a packet has a header");
                assert_eq!(
                    frame_len(prefix, 1 << 20),
                    Ok(bytes.len()),
                    "a node reads what another sends"
                );
                Box::new(Packet::decode(&bytes).expect("a node understands what another sends"))
            }
        };
        let peer = Peer {
            remote_ip: ip(other),
            local_ip: ip(index),
        };
        self.handle(index, Event::Packet { link, peer, packet });
    }

    /// Sends a command to a node and returns its answer.
    pub(crate) fn command(&mut self, index: usize, command: Command) -> Reply {
        self.nodes[index].last_reply = None;
        self.handle(index, Event::Command { tag: 7, command });
        self.nodes[index]
            .last_reply
            .take()
            .expect("a command is answered at once")
    }

    /// Sends a command that must succeed.
    pub(crate) fn order(&mut self, index: usize, command: Command) {
        let text = format!("{command:?}");
        assert_eq!(self.command(index, command), Reply::Ok, "{text}");
    }

    /// Calls one node from another.
    pub(crate) fn meet(&mut self, index: usize, other: usize) {
        self.order(
            index,
            Command::Meet {
                ip: ip(other),
                port: 1_000 + other as u16,
                bus_port: BUS_PORT + other as u16,
            },
        );
    }

    fn handle(&mut self, index: usize, event: Event) {
        let now = self.now(index);
        let mut actions = std::mem::take(&mut self.actions);
        let machine = self.nodes[index].machine.as_mut().expect("the node runs");
        machine.handle(now, event, &mut actions);
        let batch: Vec<Action> = actions.drain().collect();
        self.actions = actions;
        for action in batch {
            let machine = self.nodes[index].machine.as_ref().expect("the node runs");
            self.checkers.see(self.now_ms, machine, &action);
            self.act(index, now, action);
        }
        let machine = self.nodes[index].machine.as_ref().expect("the node runs");
        self.checkers.look(self.now_ms, index, machine);
    }

    fn act(&mut self, index: usize, now: Now, action: Action) {
        match action {
            Action::Save { is_durable: true } => {
                self.write_file(index, now);
                let node = &mut self.nodes[index];
                node.synced = node.written.clone();
            }
            Action::Save { is_durable: false } => self.nodes[index].is_dirty = true,
            Action::Connect { number, bus_port, .. } => self.connect(index, number, bus_port),
            Action::Close(link) => self.close(index, link),
            Action::Send { link, packet } => self.transmit(index, link, packet),
            Action::Broadcast { links, packet } => {
                for link in links {
                    self.transmit(index, link, packet.clone());
                }
            }
            Action::Promote => self.nodes[index].data_as_of_ms = None,
            Action::PauseWrites { .. } => {
                self.nodes[index].takes_no_writes = true;
                self.handle(index, Event::WritesPaused);
            }
            Action::ResumeWrites => self.nodes[index].takes_no_writes = false,
            Action::Reply { reply, .. } => self.nodes[index].last_reply = Some(reply),
            Action::Replicate { .. } => self.nodes[index].takes_no_writes = false,
            Action::SlotsChanged { .. }
            | Action::StateChanged { .. }
            | Action::DropKeys(_)
            | Action::DropAll
            | Action::Deliver { .. }
            | Action::Log(..) => {}
        }
    }

    fn write_file(&mut self, index: usize, now: Now) {
        let view = self.machine(index).view();
        let text = if self.weather.is_encoded {
            nodes_file::print(view, now, false)
        } else {
            let (current, last_vote) = (view.current_epoch, view.last_vote_epoch);
            format!("vars currentEpoch {current} lastVoteEpoch {last_vote}")
        };
        let node = &mut self.nodes[index];
        node.written = text;
        node.is_dirty = false;
    }

    fn connect(&mut self, index: usize, number: u64, bus_port: u16) {
        let acceptor = usize::from(bus_port - BUS_PORT);
        let is_cut = |pair| self.weather.cuts.contains(&pair);
        if is_cut((index, acceptor)) || is_cut((acceptor, index)) {
            // Nobody answers; the machine gives it up.
            return;
        }
        let at_ms = self.now_ms + self.latency() + self.latency();
        if !self.is_up(acceptor) {
            self.schedule(index, at_ms, Happening::Refused { number });
            return;
        }
        self.next_connection += 1;
        let connection = self.next_connection;
        self.opened.insert((index, number), connection);
        self.connections.insert(
            connection,
            Connection {
                opener: index,
                acceptor,
                number,
                forth: Direction::default(),
                back: Direction::default(),
            },
        );
        self.schedule(index, at_ms, Happening::Connected { connection });
    }

    fn close(&mut self, index: usize, link: LinkId) {
        let number = match link {
            LinkId::Outbound(number) => self.opened.get(&(index, number)).copied(),
            LinkId::Inbound(number) => Some(number),
        };
        if let Some(number) = number {
            self.break_connection(number, Some(index));
        }
    }

    /// Ends a connection; the ends learn of it, except the one that did it.
    fn break_connection(&mut self, number: u64, by: Option<usize>) {
        let Some(connection) = self.connections.remove(&number) else {
            return;
        };
        self.opened.remove(&(connection.opener, connection.number));
        let ends = [
            (
                connection.opener,
                LinkId::Outbound(connection.number),
                connection.acceptor,
            ),
            (connection.acceptor, LinkId::Inbound(number), connection.opener),
        ];
        for (end, link, other) in ends {
            if Some(end) != by && self.is_up(end) && !self.weather.cuts.contains(&(other, end)) {
                let at_ms = self.now_ms + self.latency();
                self.schedule(end, at_ms, Happening::Closed(link));
            }
        }
    }

    fn transmit(&mut self, index: usize, link: LinkId, packet: Box<Packet>) {
        self.checkers
            .check_file(self.now_ms, &packet, &self.nodes[index].synced);
        let number = match link {
            LinkId::Outbound(number) => self.opened.get(&(index, number)).copied(),
            LinkId::Inbound(number) => Some(number),
        };
        let Some(number) = number else { return };
        self.packets += 1;
        self.bytes += packet.len() as u64;
        if self.weather.breaks_one_in > 0 && self.random.u32(..self.weather.breaks_one_in) == 0 {
            self.break_connection(number, None);
            return;
        }
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        let is_forth = connection.opener == index;
        let to = if is_forth {
            connection.acceptor
        } else {
            connection.opener
        };
        let load = if self.weather.is_encoded {
            let mut bytes = Vec::with_capacity(packet.len());
            packet.encode(&mut bytes);
            Load::Bytes(bytes)
        } else {
            Load::Whole(packet)
        };
        let direction = if is_forth {
            &mut connection.forth
        } else {
            &mut connection.back
        };
        if self.weather.cuts.contains(&(index, to)) {
            if direction.held.len() < HELD_MAX {
                direction.held.push(load);
            }
            return;
        }
        let at_ms = self.arrival(number, is_forth);
        let packet = vec![load];
        self.schedule(
            to,
            at_ms,
            Happening::Packet {
                connection: number,
                packet,
            },
        );
    }
}

fn ip(index: usize) -> Host {
    host(&format!("10.0.{}.{}", index / 256, index % 256)).expect("an address")
}
