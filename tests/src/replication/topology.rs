//! Topologies that change at random: any member becomes the primary, and the others follow it or each other. Where all have the same
//! offset, no change costs a full sync; how many there were tells whether histories and offsets are right, to the byte.

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::chain::{full_syncs, logs};
use super::equality::await_equal;
use super::member::{Kind, Member};
use super::seeder::{Plan, Seeder};

/// Commands that are written in each topology.
const COMMANDS: u64 = 400;

/// Gives the members another topology; the first of the order becomes the primary.
fn arrange(members: &[Member], order: &[usize], rng: &mut StdRng) {
    members[order[0]].promote();
    for at in 1..order.len() {
        let parent = order[rng.random_range(0..at)];
        members[order[at]].follow(members[parent].port());
    }
    for at in &order[1..] {
        members[*at].await_link();
    }
    for member in members {
        member.client().line("CLIENT UNPAUSE");
    }
}

/// Changes the topology so many times.
///
/// # Panics
/// When data differ, or when there was a full sync after the first topology.
pub fn change(kinds: &[Kind], times: usize, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let members: Vec<Member> = kinds.iter().map(|kind| Member::start(*kind, &[])).collect();
    let mut order: Vec<usize> = (0..members.len()).collect();
    for time in 0..times {
        order.shuffle(&mut rng);
        arrange(&members, &order, &mut rng);
        let seeder = Seeder::start(members[order[0]].port(), Plan::of(kinds, rng.random()));
        seeder.await_more(COMMANDS);
        // A link that breaks goes on, too, and with it all that follow it.
        let broken = rng.random_range(0..members.len());
        members[broken].client().line("CLIENT KILL TYPE replica");
        seeder.await_more(COMMANDS);
        seeder.stop();
        let ordered: Vec<&Member> = order.iter().map(|at| &members[*at]).collect();
        // A key that expired afterwards would have the primary write once more. What expires meanwhile is removed by the next primary,
        // at once: its replicas must hear of all of that, in the new history.
        ordered[0].client().line("CLIENT PAUSE 60000 WRITE");
        await_equal(&ordered);
        let full = full_syncs(&members);
        assert_eq!(
            full,
            members.len() as u64 - 1,
            "full syncs, topology {time}: {}",
            logs(&members)
        );
    }
}
