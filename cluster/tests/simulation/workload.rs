//! Clusters to test, and what is done to them.

use std::collections::{BTreeSet, HashSet};

use shardis_cluster::event::{Command, FailoverMode, Options};
use shardis_cluster::node::NodeId;
use shardis_cluster::{SLOTS, Slot};

use super::network::World;

/// Node timeout of the small clusters.
pub(crate) const TIMEOUT_MS: u64 = 2_000;

/// Time in which a healthy cluster must agree.
pub(crate) const AGREE_MS: u64 = 60_000;

/// Time between two looks at a cluster that is waited for.
pub(crate) const LOOK_MS: u64 = 500;

/// Directives of the small clusters.
pub(crate) fn options() -> Options {
    Options {
        node_timeout_ms: TIMEOUT_MS,
        ..Options::default()
    }
}

/// Shape of a cluster: primaries are the first nodes, replicas follow in rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) primaries: usize,
    /// Replicas of each primary.
    pub(crate) replicas: usize,
}

impl Shape {
    pub(crate) fn nodes(self) -> usize {
        self.primaries * (1 + self.replicas)
    }
}

/// Makes a cluster as an operator does: slots, epochs, MEET, REPLICATE.
pub(crate) fn create(world: &mut World, shape: Shape, options: &Options) {
    world.checkers.voters = shape.primaries;
    for index in 0..shape.nodes() {
        world.add(options.clone());
        if index < shape.primaries {
            let start = index * SLOTS / shape.primaries;
            let end = (index + 1) * SLOTS / shape.primaries - 1;
            let slot = |number| Slot::new(number as u16).expect("a slot");
            world.order(index, Command::AddSlots(vec![slot(start)..=slot(end)]));
        }
        world.order(index, Command::SetConfigEpoch(index as u64 + 1));
    }
    for index in 1..shape.nodes() {
        world.meet(index, 0);
    }
    let nodes = shape.nodes();
    let joined = world.run_until(AGREE_MS, LOOK_MS, all_know_all);
    assert!(
        joined.is_some(),
        "seed {}: the nodes do not find each other",
        world.seed
    );
    for index in shape.primaries..nodes {
        let primary = world.id(index % shape.primaries);
        world.order(
            index,
            Command::Replicate {
                primary,
                has_keys: false,
            },
        );
    }
    let agreed = world.run_until(AGREE_MS, LOOK_MS, agree);
    assert!(agreed.is_some(), "seed {}: {}", world.seed, disagreement(world));
}

/// Whether every node that runs knows all the others by name.
pub(crate) fn all_know_all(world: &World) -> bool {
    let names: Vec<NodeId> = world.running().map(|index| world.id(index)).collect();
    world.running().all(|index| {
        let view = world.machine(index).view();
        names.iter().all(|name| view.find_known(name).is_some())
    })
}

/// Owners of slots, and nodes with their primaries.
type Belief = (Vec<Option<NodeId>>, Vec<(NodeId, Option<NodeId>)>);

/// Names of the nodes that run.
fn running_names(world: &World) -> HashSet<NodeId> {
    world.running().map(|index| world.id(index)).collect()
}

/// Belief of a node about slots and about the roles of the nodes that run, by names. Of a node that will never come
/// back a newcomer does not learn more than its name.
fn belief(world: &World, running: &HashSet<NodeId>, index: usize) -> Belief {
    let view = world.machine(index).view();
    let name = |key| view[key].id;
    // A slot that its owner gave up is nobody's, though clients are still sent there.
    let owner = |slot| view.owner(slot).filter(|_| !view.is_unclaimed(slot)).map(name);
    let owners = Slot::all().map(owner).collect();
    let mut roles: Vec<_> = view
        .nodes()
        .filter(|(_, node)| running.contains(&node.id))
        .map(|(_, node)| (node.id, node.primary.map(name)))
        .collect();
    roles.sort_unstable();
    (owners, roles)
}

/// Whether all nodes that run believe the same, and that the cluster works.
pub(crate) fn agree(world: &World) -> bool {
    world.running().all(|index| world.machine(index).view().is_ok) && believe_the_same(world)
}

/// Assigns slots that nobody owns to a primary, as `redis-cli --cluster fix` does: the target of a slot that dies before
/// its replica has heard of the slot takes it along.
pub(crate) fn fix(world: &mut World) {
    let is_primary = |&index: &usize| world.machine(index).view().me().is_primary();
    let primary = world.running().find(is_primary).expect("a primary runs");
    let view = world.machine(primary).view();
    let lost: Vec<Slot> = Slot::all().filter(|&slot| view.is_unclaimed(slot)).collect();
    let node = world.id(primary);
    for slot in lost {
        world.order(
            primary,
            Command::SetSlotNode {
                slot,
                node,
                has_keys: false,
            },
        );
    }
}

/// Ends moves that were left half done: a node that imports a slot takes no other node's word about it.
pub(crate) fn close_slots(world: &mut World) {
    for index in world.running().collect::<Vec<_>>() {
        let view = world.machine(index).view();
        let open: BTreeSet<Slot> = view
            .importing()
            .keys()
            .chain(view.migrating().keys())
            .copied()
            .collect();
        for slot in open {
            world.order(index, Command::SetSlotStable(slot));
        }
    }
}

/// Whether all nodes that run believe the same.
pub(crate) fn believe_the_same(world: &World) -> bool {
    let mut running = world.running();
    let Some(first) = running.next() else { return true };
    let names = running_names(world);
    let belief_of_first = belief(world, &names, first);
    running.all(|index| belief(world, &names, index) == belief_of_first)
}

/// The first difference between two nodes, for a message.
pub(crate) fn disagreement(world: &World) -> String {
    let first = world.running().next().expect("a node runs");
    let names = running_names(world);
    let (owners, roles) = belief(world, &names, first);
    for index in world.running() {
        let (their_owners, their_roles) = belief(world, &names, index);
        if let Some(slot) = (0..SLOTS).find(|&slot| owners[slot] != their_owners[slot]) {
            let (a, b) = (owners[slot], their_owners[slot]);
            let text = world.machine(index).view().nodes_text(world.now(index), false);
            return format!("nodes {first} and {index} do not agree on slot {slot}: {a:?}, {b:?}:\n{text}");
        }
        if let Some((a, b)) = roles.iter().zip(&their_roles).find(|(a, b)| a != b) {
            return format!("nodes {first} and {index} do not agree on a role: {a:?}, {b:?}");
        }
    }
    match world.running().find(|&index| !world.machine(index).view().is_ok) {
        Some(index) => {
            let view = world.machine(index).view();
            let text = view.nodes_text(world.now(index), false);
            format!("node {index} holds the cluster for broken:\n{text}")
        }
        None => "the nodes agree".to_owned(),
    }
}

/// Whether each of these nodes believes that every slot has an owner that runs and thinks so too.
pub(crate) fn serves_all(world: &World, observers: &[usize]) -> bool {
    // Nodes by slot that serve it. During a failover there may be two for a moment.
    let mut servers = vec![Vec::new(); SLOTS];
    for index in world.running().filter(|&index| !world.is_paused(index)) {
        let view = world.machine(index).view();
        if view.is_ok {
            let mine = view.slots_of(view.my_key());
            mine.iter()
                .for_each(|slot| servers[slot.index()].push(view.me().id));
        }
    }
    observers.iter().all(|&observer| {
        let view = world.machine(observer).view();
        let is_served = |slot: Slot| {
            let owner = view.owner(slot).map(|key| view[key].id);
            owner.is_some_and(|owner| servers[slot.index()].contains(&owner))
        };
        view.is_ok && Slot::all().all(is_served)
    })
}

/// Does something bad, or something that an operator does, at random.
pub(crate) fn disturb(world: &mut World, shape: Shape) {
    let nodes = shape.nodes();
    let index = world.random.usize(..nodes);
    match world.random.u32(..12) {
        0 | 1 if world.is_up(index) => {
            let loses_power = world.random.bool();
            world.kill(index, loses_power);
        }
        2..=4 => {
            if let Some(down) = (0..nodes).find(|&index| !world.is_up(index)) {
                world.start(down);
            }
        }
        5 => {
            let for_ms = world.random.u64(100..3 * TIMEOUT_MS);
            world.pause(index, for_ms);
        }
        6 => split(world, nodes),
        7 => world.mend(),
        8 => {
            let hours = world.random.i64(-2..=2);
            world.shift_clock(index, hours * 3_600_000);
        }
        9 => world.weather.breaks_one_in = [0, 0, 500, 50][world.random.usize(..4)],
        10 if world.is_up(index) && world.machine(index).view().me().is_replica() => {
            let mode = if world.random.bool() {
                FailoverMode::Agreed
            } else {
                FailoverMode::Force
            };
            world.command(index, Command::Failover(mode));
        }
        _ => world.weather.latency_ms = [(1, 5), (1, 20), (5, 200)][world.random.usize(..3)],
    }
}

/// Moves a random slot, as redis-cli does, or half of the way if something is in the way.
pub(crate) fn move_slot(world: &mut World, shape: Shape) {
    let slot = Slot::new(world.random.u16(..SLOTS as u16)).expect("a slot");
    let owns = |world: &World, index: usize| {
        let view = world.machine(index).view();
        view.owner(slot) == Some(view.my_key())
    };
    let primaries: Vec<usize> = world
        .running()
        .filter(|&index| world.machine(index).view().me().is_primary())
        .collect();
    let source = primaries.iter().copied().find(|&index| owns(world, index));
    let others: Vec<usize> = primaries
        .into_iter()
        .filter(|&index| Some(index) != source)
        .collect();
    let (Some(source), Some(&target)) = (source, others.get(world.random.usize(..others.len().max(1))))
    else {
        return;
    };
    let (from, to) = (world.id(source), world.id(target));
    world.command(target, Command::SetSlotImporting(slot, from));
    world.command(source, Command::SetSlotMigrating(slot, to));
    let copy_ms = world.random.u64(10..500);
    world.run(copy_ms);
    let rest = (0..shape.nodes()).filter(|&index| index != source && index != target);
    for index in [target, source].into_iter().chain(rest) {
        if world.is_up(index) {
            world.command(
                index,
                Command::SetSlotNode {
                    slot,
                    node: to,
                    has_keys: index == target,
                },
            );
        }
    }
}

/// Cuts a random group off, both ways or one way.
fn split(world: &mut World, nodes: usize) {
    let mut all: Vec<usize> = (0..nodes).collect();
    world.random.shuffle(&mut all);
    let (one, other) = all.split_at(world.random.usize(1..nodes));
    let is_one_way = world.random.bool();
    world.cut(one, other, is_one_way);
}

/// Ends all faults.
pub(crate) fn heal(world: &mut World, shape: Shape) {
    world.mend();
    world.weather.breaks_one_in = 0;
    world.weather.latency_ms = (1, 20);
    for index in 0..shape.nodes() {
        world.shift_clock(index, 0);
        if !world.is_up(index) {
            world.start(index);
        }
    }
}
