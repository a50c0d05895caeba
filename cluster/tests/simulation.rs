//! Clusters of machines in virtual time, under faults.
//!
//! A run follows from its seed, which every message of a failure names: `SHARDIS_SEED=n cargo test -p shardis-cluster
//! --test simulation chaos` runs that one alone and prints what the nodes log; `SHARDIS_SEEDS=n` runs more of them.
//! `SHARDIS_PRIMARIES=n` is the size of the cluster of the ignored test, which is for an optimised build.
//!
//! | part | subject |
//! |---|---|
//! | `simulation/network.rs` | nodes, connections, faults, time |
//! | `simulation/workload.rs` | clusters to test, and what is done to them |
//! | `simulation/checkers.rs` | rules that hold at every step |

#![expect(
    clippy::print_stdout,
    reason = "figures, and what the nodes of a replayed seed log, are for the person who asked for them"
)]

#[path = "simulation/checkers.rs"]
mod checkers;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/workload.rs"]
mod workload;

use std::ops::Range;

use network::World;
use shardis_cluster::Slot;
use shardis_cluster::event::{BrokenRule, Command, FailoverMode, Options};
use shardis_cluster::node::Flags;
use workload::{
    AGREE_MS, LOOK_MS, Shape, TIMEOUT_MS, agree, all_know_all, believe_the_same, close_slots, create,
    disagreement, disturb, fix, heal, move_slot, options, serves_all,
};

/// Longest time from the death of a primary until all slots are served: its silence, the reports, the votes.
const RECOVER_MS: u64 = TIMEOUT_MS + 2_500;

/// Time in which a cluster agrees when all faults have ended: suspicions and elections may have to run out.
const HEAL_MS: u64 = 60_000;

const SMALL: Shape = Shape {
    primaries: 3,
    replicas: 1,
};
const WIDE: Shape = Shape {
    primaries: 3,
    replicas: 2,
};
const FIVE: Shape = Shape {
    primaries: 5,
    replicas: 1,
};

/// A run's verdict: what went wrong first.
type Verdict = Result<(), String>;

fn ensure(is_so: bool, what: &str) -> Verdict {
    if is_so { Ok(()) } else { Err(what.to_owned()) }
}

fn cluster(seed: u64, shape: Shape, options: &Options) -> World {
    let mut world = World::new(seed);
    create(&mut world, shape, options);
    world
}

/// The checkers' verdict.
fn rules_held(world: &World) -> Verdict {
    world
        .checkers
        .violations
        .first()
        .map_or(Ok(()), |violation| Err(violation.clone()))
}

/// Seeds to run: the one that the environment names, or so many.
fn seeds(default: u64) -> Range<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u64>().ok())
    };
    match number("SHARDIS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SHARDIS_SEEDS").unwrap_or(default),
    }
}

/// Runs a scenario with several seeds; all must pass.
fn check(default: u64, scenario: impl Fn(u64, &Options) -> Verdict) {
    for seed in seeds(default) {
        if let Err(fault) = scenario(seed, &options()) {
            panic!("seed {seed}: {fault}");
        }
    }
}

/// Runs a scenario with a rule broken; some seed must show it.
fn check_broken(rule: BrokenRule, seeds: u64, scenario: impl Fn(u64, &Options) -> Verdict) {
    let options = Options {
        broken: Some(rule),
        ..options()
    };
    let is_noticed = (0..seeds).any(|seed| scenario(seed, &options).is_err());
    assert!(is_noticed, "nobody notices that {rule:?} is broken");
}

fn indexes(range: Range<usize>) -> Vec<usize> {
    range.collect()
}

/// Random faults for a minute, then peace.
fn chaos(seed: u64, options: &Options) -> Verdict {
    let shape = [SMALL, WIDE, FIVE][seed as usize % 3];
    let mut world = cluster(seed, shape, options);
    world.checkers.is_loud = std::env::var("SHARDIS_SEED").is_ok();
    let end_ms = world.now_ms + 60_000;
    while world.now_ms < end_ms {
        disturb(&mut world, shape);
        let pause_ms = world.random.u64(50..2_000);
        world.run(pause_ms);
        rules_held(&world)?;
    }
    heal(&mut world, shape);
    let healed = world.run_until(HEAL_MS, LOOK_MS, agree);
    rules_held(&world)?;
    ensure(healed.is_some(), &disagreement(&world))
}

/// The same while slots move. Moves take epochs without votes, so two owners in one epoch are possible for a moment, as
/// in Redis; when an operator has tidied up what was left half done, all agree.
fn chaos_with_moves(seed: u64, options: &Options) -> Verdict {
    let shape = [SMALL, FIVE][seed as usize % 2];
    let mut world = cluster(seed, shape, options);
    world.checkers.is_loud = std::env::var("SHARDIS_SEED").is_ok();
    world.checkers.has_bumps = true;
    for _ in 0..40 {
        disturb(&mut world, shape);
        move_slot(&mut world, shape);
        let pause_ms = world.random.u64(50..1_500);
        world.run(pause_ms);
        rules_held(&world)?;
    }
    heal(&mut world, shape);
    close_slots(&mut world);
    let same = world.run_until(HEAL_MS, LOOK_MS, believe_the_same);
    ensure(same.is_some(), &disagreement(&world))?;
    world.run(5 * TIMEOUT_MS);
    fix(&mut world);
    let healed = world.run_until(HEAL_MS, LOOK_MS, agree);
    rules_held(&world)?;
    ensure(healed.is_some(), &disagreement(&world))
}

#[test]
fn chaos_while_slots_move_ends_in_agreement() {
    check(12, chaos_with_moves);
}

#[test]
fn chaos_breaks_no_rule_and_ends_in_agreement() {
    check(20, chaos);
}

/// A primary dies; its replica takes over; the old one comes back as a replica.
fn primary_dies(seed: u64, options: &Options) -> Verdict {
    let mut world = cluster(seed, SMALL, options);
    let (dead, others) = (world.id(0), indexes(1..6));
    world.kill(0, true);
    let recovered = world.run_until(RECOVER_MS, 100, |world| serves_all(world, &others));
    ensure(
        recovered.is_some(),
        "the slots of a dead primary are not served in time",
    )?;
    ensure(
        world.machine(3).view().me().is_primary(),
        "its replica is not in its place",
    )?;
    world.start(0);
    let agreed = world.run_until(HEAL_MS, LOOK_MS, agree);
    ensure(
        agreed.is_some(),
        "the nodes do not agree about a primary that is back",
    )?;
    ensure(world.id(0) == dead, "a node keeps its name")?;
    ensure(
        world.machine(0).view().me().is_replica(),
        "the old primary is no replica",
    )?;
    rules_held(&world)
}

#[test]
fn a_dead_primary_is_replaced_in_time() {
    check(10, primary_dies);
}

/// A primary sleeps for long and wakes up: it must not stay a primary, and says at once that it may be stale.
fn primary_sleeps(seed: u64, options: &Options) -> Verdict {
    let mut world = cluster(seed, SMALL, options);
    world.pause(0, 5 * TIMEOUT_MS);
    let others = indexes(1..6);
    let recovered = world.run_until(2 * RECOVER_MS, 100, |world| serves_all(world, &others));
    ensure(
        recovered.is_some(),
        "the slots of a sleeping primary are not served in time",
    )?;
    ensure(
        world.machine(0).is_stale(world.now(0)),
        "a node that slept does not know",
    )?;
    let agreed = world.run_until(HEAL_MS, LOOK_MS, agree);
    ensure(
        agreed.is_some(),
        "the nodes do not agree about a primary that woke up",
    )?;
    ensure(
        world.machine(0).view().me().is_replica(),
        "a primary that woke up is no replica",
    )?;
    rules_held(&world)
}

#[test]
fn a_primary_that_slept_gives_way() {
    check(10, primary_sleeps);
}

/// Two primaries and a replica of the third are cut off from the rest of five: the majority recovers, the minority stops.
fn minority_is_cut_off(seed: u64, options: &Options) -> Verdict {
    let mut world = cluster(seed, FIVE, options);
    let (minority, majority) = ([0, 1, 7], [2, 3, 4, 5, 6, 8, 9]);
    world.cut(&minority, &majority, false);
    let recovered = world.run_until(3 * RECOVER_MS, 100, |world| serves_all(world, &majority));
    ensure(recovered.is_some(), "the majority does not recover")?;
    world.run(3 * RECOVER_MS);
    for index in minority {
        let view = world.machine(index).view();
        ensure(
            !view.is_ok,
            "a node in the minority believes that the cluster works",
        )?;
    }
    ensure(
        world.machine(7).view().me().is_replica(),
        "a replica in the minority is promoted",
    )?;
    world.mend();
    let agreed = world.run_until(HEAL_MS, LOOK_MS, agree);
    ensure(agreed.is_some(), "the nodes do not agree after a cut")?;
    rules_held(&world)
}

#[test]
fn a_majority_recovers_and_a_minority_stops() {
    check(6, minority_is_cut_off);
}

/// A minority stops within the node timeout and the time of a ping.
#[test]
fn a_primary_that_is_cut_off_stops_in_time() {
    check(6, |seed, options| {
        let mut world = cluster(seed, SMALL, options);
        world.cut(&[0], &[1, 2, 3, 4, 5], false);
        let stopped = world.run_until(2 * TIMEOUT_MS, 100, |world| !world.machine(0).view().is_ok);
        ensure(stopped.is_some(), "it goes on")
    });
}

/// One node does not hear a primary: that is no failure.
fn one_node_is_deaf(seed: u64, options: &Options) -> Verdict {
    let mut world = cluster(seed, FIVE, options);
    world.cut(&[1], &[0], true);
    world.run(5 * TIMEOUT_MS);
    ensure(
        world.checkers.failures.is_empty(),
        "one node alone declared another one failed",
    )?;
    ensure(
        world.checkers.promotions.is_empty(),
        "a replica took over from a primary that works",
    )?;
    rules_held(&world)
}

#[test]
fn a_majority_must_agree_on_a_failure() {
    check(5, one_node_is_deaf);
}

/// An old primary comes back while it cannot hear the one that replaced it: others must tell it.
fn old_primary_hears_of_it(seed: u64, options: &Options) -> Verdict {
    let mut world = cluster(seed, SMALL, options);
    world.kill(0, true);
    let others = indexes(1..6);
    let recovered = world.run_until(2 * RECOVER_MS, 100, |world| serves_all(world, &others));
    ensure(
        recovered.is_some(),
        "the slots of a dead primary are not served in time",
    )?;
    world.cut(&[3], &[0], false);
    world.start(0);
    let told = world.run_until(5 * TIMEOUT_MS, 100, |world| {
        world.machine(0).view().me().is_replica()
    });
    ensure(told.is_some(), "an old primary is not told who has its slots")?;
    rules_held(&world)
}

#[test]
fn an_old_primary_is_told_by_others() {
    check(5, old_primary_hears_of_it);
}

/// Two replicas ask for the same place at nearly the same time, over a slow network.
fn rivals(seed: u64, options: &Options) -> Verdict {
    let mut world = cluster(seed, WIDE, options);
    world.weather.latency_ms = (100, 300);
    world.kill(0, false);
    world.run(4 * RECOVER_MS);
    rules_held(&world)?;
    world.weather.latency_ms = (1, 20);
    world.start(0);
    let agreed = world.run_until(HEAL_MS, LOOK_MS, agree);
    ensure(
        agreed.is_some(),
        "the nodes do not agree after an election with rivals",
    )?;
    rules_held(&world)
}

#[test]
fn rivals_do_not_both_win() {
    check(15, rivals);
}

/// Two of three primaries are dead: a replica that is told to take over whatever the state gets no majority.
fn minority_asks(seed: u64, options: &Options) -> Verdict {
    let mut world = cluster(seed, SMALL, options);
    world.kill(0, false);
    world.kill(1, false);
    world.run(2 * RECOVER_MS);
    world.order(3, Command::Failover(FailoverMode::Force));
    world.run(2 * RECOVER_MS);
    ensure(world.checkers.promotions.is_empty(), "a minority elects")?;
    rules_held(&world)
}

#[test]
fn a_minority_does_not_elect() {
    check(3, minority_asks);
}

#[test]
fn broken_rules_are_noticed() {
    check_broken(BrokenRule::SaveBeforeVote, 1, primary_dies);
    check_broken(BrokenRule::MajorityElects, 1, minority_asks);
    check_broken(BrokenRule::MajorityFails, 1, one_node_is_deaf);
    check_broken(BrokenRule::TellOldClaims, 1, old_primary_hears_of_it);
    check_broken(BrokenRule::GreaterEpochOwns, 3, primary_sleeps);
    check_broken(BrokenRule::OneVoteAnEpoch, 40, rivals);
}

/// A manual failover in each of its ways. An agreed one loses nothing.
#[test]
fn a_manual_failover_changes_the_roles() {
    for mode in [FailoverMode::Agreed, FailoverMode::Force] {
        check(5, |seed, options| {
            let mut world = cluster(seed, SMALL, options);
            world.order(3, Command::Failover(mode));
            let changed = world.run_until(5_000, 100, |world| {
                world.machine(3).view().me().is_primary() && world.machine(0).view().me().is_replica()
            });
            ensure(changed.is_some(), "the roles do not change")?;
            let has_all = world.nodes[3].offset >= world.nodes[0].offset;
            ensure(
                mode == FailoverMode::Force || has_all,
                "an agreed failover loses data",
            )?;
            let agreed = world.run_until(AGREE_MS, LOOK_MS, agree);
            ensure(agreed.is_some(), "the nodes do not agree")?;
            rules_held(&world)
        });
    }
}

/// A takeover needs no votes, so it works where an election cannot: in a minority.
#[test]
fn a_takeover_works_in_a_minority() {
    check(3, |seed, options| {
        let mut world = cluster(seed, SMALL, options);
        world.kill(0, false);
        world.kill(1, false);
        world.run(2 * RECOVER_MS);
        ensure(world.checkers.promotions.is_empty(), "a minority elects")?;
        world.checkers.has_takeovers = true;
        world.order(3, Command::Failover(FailoverMode::Takeover));
        world.order(4, Command::Failover(FailoverMode::Takeover));
        let recovered = world.run_until(AGREE_MS, LOOK_MS, |world| serves_all(world, &[2, 3, 4, 5]));
        ensure(recovered.is_some(), "the slots are not served")?;
        rules_held(&world)
    });
}

/// A primary whose only replica died gets one from a primary that has two.
#[test]
fn an_orphan_gets_a_replica() {
    check(3, |seed, options| {
        let mut world = cluster(seed, WIDE, options);
        world.kill(3, false);
        world.kill(6, false);
        let moved = world.run_until(AGREE_MS, LOOK_MS, |world| {
            let view = world.machine(0).view();
            view.replicas(view.my_key())
                .any(|(_, node)| !node.flags.contains(Flags::FAIL))
        });
        ensure(moved.is_some(), "no replica moves")?;
        world.run(20_000);
        let moved = world.running().filter(|&index| {
            let view = world.machine(index).view();
            view.me().primary.is_some_and(|key| view[key].id == world.id(0))
        });
        ensure(moved.count() == 1, "more than one replica moves")
    });
}

/// A slot moves by SETSLOT, as redis-cli does it; everybody hears of it.
#[test]
fn a_slot_moves() {
    check(3, |seed, options| {
        let mut world = cluster(seed, SMALL, options);
        let slot = Slot::new(7).expect("a slot");
        let (source, target) = (world.id(0), world.id(1));
        world.order(1, Command::SetSlotImporting(slot, source));
        world.order(0, Command::SetSlotMigrating(slot, target));
        world.run(3_000);
        ensure(
            world.machine(0).view().migrating().len() == 1,
            "an open slot stays open",
        )?;
        for index in [1, 0, 2] {
            world.order(
                index,
                Command::SetSlotNode {
                    slot,
                    node: target,
                    has_keys: false,
                },
            );
        }
        let agreed = world.run_until(AGREE_MS, LOOK_MS, agree);
        ensure(agreed.is_some(), "the nodes do not agree")?;
        let view = world.machine(5).view();
        ensure(
            view.owner(slot).map(|key| view[key].id) == Some(target),
            "the slot did not move",
        )
    });
}

/// A forgotten node stays away while it is banned, on all nodes.
#[test]
fn a_forgotten_node_stays_away() {
    check(3, |seed, options| {
        let mut world = cluster(seed, SMALL, options);
        let gone = world.id(5);
        world.kill(5, false);
        world.run(5_000);
        world.order(0, Command::Forget(gone));
        world.run(20_000);
        let forgets = |index: usize| world.machine(index).view().find(&gone).is_none();
        ensure((0..5).all(forgets), "a node still knows it")
    });
}

/// A node that lost its disk comes back under a new name at its old address; the old name is known to be dead.
#[test]
fn a_node_without_its_disk_is_a_new_node() {
    check(3, |seed, options| {
        let mut world = cluster(seed, SMALL, options);
        let old = world.id(3);
        world.kill(3, true);
        world.wipe(3);
        world.start(3);
        ensure(world.id(3) != old, "a name comes back without a file")?;
        world.meet(3, 0);
        let joined = world.run_until(AGREE_MS, LOOK_MS, all_know_all);
        ensure(joined.is_some(), "it does not join")?;
        let primary = world.id(0);
        world.order(
            3,
            Command::Replicate {
                primary,
                has_keys: false,
            },
        );
        let agreed = world.run_until(HEAL_MS, LOOK_MS, agree);
        ensure(agreed.is_some(), "the nodes do not agree")?;
        rules_held(&world)
    });
}

/// All nodes are killed at once and come back.
#[test]
fn a_cluster_survives_a_loss_of_power() {
    check(5, |seed, options| {
        let mut world = cluster(seed, SMALL, options);
        (0..6).for_each(|index| world.kill(index, true));
        world.run(5_000);
        (0..6).for_each(|index| world.start(index));
        let agreed = world.run_until(HEAL_MS, LOOK_MS, agree);
        ensure(agreed.is_some(), "the nodes do not agree")?;
        rules_held(&world)
    });
}

/// Figures of a large cluster.
#[derive(Debug)]
struct Figures {
    agreed_after_join_ms: u64,
    idle_bytes_a_node_and_second: u64,
    recovered_ms: u64,
}

/// Joins a large cluster, lets it idle, and kills nearly half of its primaries at once.
fn large(primaries: usize) -> Figures {
    let shape = Shape {
        primaries,
        replicas: 1,
    };
    let nodes = shape.nodes();
    let options = Options::default();
    let mut world = World::new(1);
    world.weather.is_encoded = false;
    world.weather.latency_ms = (1, 5);
    create(&mut world, shape, &options);
    let agreed_after_join_ms = world.now_ms - 1_000;
    let before = world.bytes;
    world.run(10_000);
    let idle_bytes_a_node_and_second = (world.bytes - before) / 10 / nodes as u64;
    let dead = (primaries - 1) / 2;
    (0..dead).for_each(|index| world.kill(index, false));
    let alive = indexes(dead..nodes);
    let limit_ms = 3 * options.node_timeout_ms + 5_000;
    let killed_ms = world.now_ms;
    let recovered = world.run_until(limit_ms, 1_000, |world| serves_all(world, &alive));
    let seconds = |at_ms: u64| (at_ms - killed_ms) / 1_000;
    let failures: Vec<u64> = world
        .checkers
        .failures
        .iter()
        .map(|(at_ms, ..)| seconds(*at_ms))
        .collect();
    let promotions: Vec<u64> = world
        .checkers
        .promotions
        .iter()
        .map(|(at_ms, ..)| seconds(*at_ms))
        .collect();
    println!("failures after {failures:?} s, promotions after {promotions:?} s");
    let figures = Figures {
        agreed_after_join_ms,
        idle_bytes_a_node_and_second,
        recovered_ms: recovered.expect("all slots are served again in time"),
    };
    assert_eq!(world.checkers.violations, Vec::<String>::new());
    println!("{nodes} nodes, {dead} of {primaries} primaries lost: {figures:?}");
    figures
}

#[test]
fn a_hundred_nodes_lose_half_of_their_primaries() {
    let figures = large(50);
    assert!(figures.agreed_after_join_ms <= 30_000, "{figures:?}");
    assert!(figures.recovered_ms <= 30_000, "{figures:?}");
    assert!(figures.idle_bytes_a_node_and_second <= 40_000, "{figures:?}");
}

#[test]
#[ignore = "minutes of an optimised build: cargo test --profile quick -p shardis-cluster --test simulation thousand -- --ignored"]
fn a_thousand_nodes_lose_half_of_their_primaries() {
    let primaries = std::env::var("SHARDIS_PRIMARIES")
        .ok()
        .and_then(|value| value.parse().ok());
    let figures = large(primaries.unwrap_or(500));
    assert!(figures.agreed_after_join_ms <= 30_000, "{figures:?}");
}
