//! A row of servers, each a replica of the one before, under a write load: the common test of whether two kinds of servers
//! understand each other.

use super::equality::await_equal;
use super::member::{Kind, Member, PATIENCE};
use super::seeder::{Plan, Seeder, add_bystanders};
use crate::wait::retry;

/// Keys that are there before the first replica is.
const BYSTANDERS: usize = 5000;

/// Commands that the seeder has answered after each step.
const COMMANDS: u64 = 1500;

/// Starts a row of servers, all of which follow the first one or a replica of it, and compares their data: after full syncs under
/// load, and after the links were cut under load.
///
/// # Panics
/// When data differ, or when it took more full syncs than one for each link.
pub fn prove(kinds: &[Kind], directives: &[&str], seed: u64) {
    let members: Vec<Member> = kinds
        .iter()
        .map(|kind| Member::start(*kind, directives))
        .collect();
    let all: Vec<&Member> = members.iter().collect();
    add_bystanders(&members[0], BYSTANDERS, 100);
    let seeder = Seeder::start(members[0].port(), Plan::of(kinds, seed));
    seeder.await_more(COMMANDS);
    for pair in members.windows(2) {
        pair[1].follow(pair[0].port());
        let is_linked = || match pair[1].field("master_link_status")? {
            status if status == "up" => Ok(()),
            status => Err(format!("a link that is {status}")),
        };
        retry(PATIENCE, is_linked).unwrap_or_else(|reason| panic!("{reason}: {}", logs(&members)));
        seeder.await_more(COMMANDS / 2);
    }
    seeder.stop();
    await_equal(&all);
    let full = full_syncs(&members);
    assert_eq!(
        full,
        members.len() as u64 - 1,
        "one full sync for each link: {}",
        logs(&members)
    );

    let seeder = Seeder::start(members[0].port(), Plan::of(kinds, seed + 1));
    for member in &members[..members.len() - 1] {
        seeder.await_more(COMMANDS / 4);
        let killed = member.client().line("CLIENT KILL TYPE replica");
        assert_eq!(killed.integer(), Some(1), "replicas of {:?}", member.kind());
    }
    seeder.await_more(COMMANDS);
    let errors = seeder.stop();
    await_equal(&all);
    assert_eq!(
        full_syncs(&members),
        full,
        "links that were cut go on where they were"
    );
    assert!(!errors.contains_key("READONLY"), "{errors:?}");
}

/// Full syncs that all of them have served.
#[must_use]
pub fn full_syncs(members: &[Member]) -> u64 {
    members.iter().map(|member| member.syncs().full).sum()
}

/// The ends of the logs of all of them.
#[must_use]
pub fn logs(members: &[Member]) -> String {
    let tails: Vec<String> = members.iter().map(Member::tail).collect();
    tails.join("\n")
}
