//! One run of a node over arbitrary bytes taken for packets of the cluster bus: what is accepted is written as it was
//! read, and whatever a node is told, it sends only packets that others accept and leaves a file that it can read.
//!
//! The first byte of a packet's plan chooses who sends it, the second and third how long it is. The same body runs under
//! the fuzzer and, over seeded data, as a plain test of the `cluster` crate.

use shardis_cluster::event::{Action, Actions, Event, Now, Options, Peer};
use shardis_cluster::node::{LinkId, NodeId};
use shardis_cluster::wire::{PREFIX_BYTES, Packet, frame_len};
use shardis_cluster::{Machine, nodes_file};

/// The file of a node that knows three others: two primaries and its own replica.
const FILE: &str = "\
0101010101010101010101010101010101010101 10.0.0.1:1@11001 myself,master - 0 0 1 connected 0-5000 [7->-0202020202020202020202020202020202020202]
0202020202020202020202020202020202020202 10.0.0.2:2@11002 master - 0 0 2 connected 5001-10000
0303030303030303030303030303030303030303 10.0.0.3:3@11003 master,fail - 0 0 3 connected 10001-16383
0404040404040404040404040404040404040404 10.0.0.4:4@11004 slave 0303030303030303030303030303030303030303 0 0 3 connected
vars currentEpoch 3 lastVoteEpoch 0
";

/// Bytes in front of a packet that say what is done with it.
const PLAN_BYTES: usize = 3;

/// Longest frame that is read.
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Offset of the sender's name in a packet.
const SENDER_AT: usize = 40;

/// A node, and the time in its world.
struct World {
    machine: Machine,
    now: Now,
    actions: Actions,
    /// Connections that the node asked for.
    opened: Vec<u64>,
}

/// Panics if a node contradicts itself over `data`.
pub(crate) fn check(mut data: &[u8]) {
    let now = Now {
        monotonic_ms: 1_000_000,
        unix_ms: 1_700_000_000_000,
    };
    let Ok(Some(view)) = nodes_file::parse(FILE, now, false, 1) else {
        panic!("the file is read");
    };
    let machine = Machine::resume(view, NodeId::new([9; 20]), Options::default(), now, 1);
    let mut world = World {
        machine,
        now,
        actions: Actions::new(),
        opened: Vec::new(),
    };
    world.handle(Event::Tick);
    let opened = world.opened.clone();
    opened
        .into_iter()
        .for_each(|number| world.handle(Event::LinkUp(number)));
    while let Some((&[plan, high, low], rest)) = data.split_first_chunk::<PLAN_BYTES>() {
        let len = usize::from(u16::from_be_bytes([high, low])) % 8_192;
        let (packet, rest) = rest.split_at(len.min(rest.len()));
        data = rest;
        world.receive(plan, packet.to_vec());
    }
    world.handle(Event::Tick);
    let file = nodes_file::print(world.machine.view(), world.now, false);
    assert!(nodes_file::parse(&file, world.now, false, 1).is_ok(), "{file}");
}

impl World {
    /// Hands a packet to the node. A plan with its highest bit repairs what makes most garbage be dropped at once.
    fn receive(&mut self, plan: u8, mut bytes: Vec<u8>) {
        if plan & 0x80 != 0 {
            repair(plan, &mut bytes);
        }
        if let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>() {
            // Decides only; a server would close the connection.
            let _ = frame_len(prefix, FRAME_BYTES_MAX);
        }
        let Ok(packet) = Packet::decode(&bytes) else {
            return;
        };
        check_packet(&packet);
        let link = match plan & 0x40 {
            0 => LinkId::Inbound(u64::from(plan & 3)),
            _ => LinkId::Outbound(u64::from(plan & 3)),
        };
        self.now.monotonic_ms += u64::from(plan) * 16;
        self.now.unix_ms += u64::from(plan) * 16;
        let packet = Box::new(packet);
        self.handle(Event::Packet {
            link,
            peer: Peer::default(),
            packet,
        });
        if plan & 0x20 != 0 {
            self.handle(Event::Tick);
        }
    }

    fn handle(&mut self, event: Event) {
        self.machine.handle(self.now, event, &mut self.actions);
        let batch: Vec<Action> = self.actions.drain().collect();
        for action in batch {
            match action {
                Action::Send { packet, .. } | Action::Broadcast { packet, .. } => check_packet(&packet),
                Action::Connect { number, .. } => self.opened.push(number),
                _ => {}
            }
        }
    }
}

/// Gives bytes the signature, the version and the length of a packet, and the name of a known node for its sender.
fn repair(plan: u8, bytes: &mut Vec<u8>) {
    if bytes.len() < 2_256 {
        bytes.resize(2_256, 0);
    }
    let len = u32::try_from(bytes.len()).expect("a run is far below 4 GiB");
    bytes[..4].copy_from_slice(b"RCmb");
    bytes[4..8].copy_from_slice(&len.to_be_bytes());
    bytes[8..10].copy_from_slice(&1u16.to_be_bytes());
    let name = NodeId::new([1 + (plan & 7); 20]).to_text();
    bytes[SENDER_AT..SENDER_AT + name.len()].copy_from_slice(&name);
}

/// Checks that a packet is written as it was read.
fn check_packet(packet: &Packet) {
    let mut bytes = Vec::new();
    packet.encode(&mut bytes);
    assert_eq!(bytes.len(), packet.len());
    let prefix = bytes.first_chunk().expect("a packet has a header");
    assert_eq!(frame_len(prefix, bytes.len()), Ok(bytes.len()));
    assert_eq!(Packet::decode(&bytes).as_ref(), Ok(packet));
}
