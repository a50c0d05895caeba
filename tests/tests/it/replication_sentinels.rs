//! Real Sentinels fail servers over, and a client of redis-py goes on: the primary is killed, stopped, or asked to go.

use std::time::Duration;

use shardis_tests::process::{Launch, Process, repository_root};
use shardis_tests::redis;
use shardis_tests::replication::equality::await_equal;
use shardis_tests::replication::member::{Kind, Member, PATIENCE};
use shardis_tests::replication::sentinels::{NAME, Sentinels};
use shardis_tests::wait::retry;

use super::redis_py::library;

/// Steps of the client after each failover.
const STEPS: u64 = 50;

/// A primary, its two replicas, what watches them, and a client.
struct Set {
    members: Vec<Member>,
    sentinels: Sentinels,
    client: Process,
}

impl Set {
    fn start(kinds: [Kind; 3]) -> Set {
        // A resync must not wait for the old primary's link to be given up.
        let members: Vec<Member> = kinds
            .iter()
            .map(|kind| Member::start(*kind, &["repl-ping-replica-period 1", "repl-timeout 5"]))
            .collect();
        for replica in &members[1..] {
            replica.follow(members[0].port());
        }
        members[1..].iter().for_each(Member::await_link);
        let sentinels = Sentinels::watch(members[0].port(), 2);
        let ports: Vec<String> = sentinels.ports().iter().map(u16::to_string).collect();
        let script = repository_root().join("tests/python/sentinel.py");
        let client = Launch::new(&redis::tool("python3"))
            .with(&[script.display().to_string(), NAME.to_owned()])
            .with(&ports)
            .variable("PYTHONPATH", &library().display().to_string())
            .variable("PYTHONDONTWRITEBYTECODE", "1")
            .variable("PYTHONUNBUFFERED", "1")
            .spawn(0);
        let set = Set {
            members,
            sentinels,
            client,
        };
        set.await_steps();
        set
    }

    /// Index of the member that is the primary.
    fn primary(&self) -> usize {
        let port = retry(PATIENCE, || self.sentinels.primary()).expect("a primary");
        self.index(port)
    }

    fn index(&self, port: u16) -> usize {
        let of_port = self.members.iter().position(|member| member.port() == port);
        of_port.expect("one of the members")
    }

    /// Steps that the client has made so far.
    fn steps(&self) -> u64 {
        let log = self.client.log();
        let last = log
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("step ")?.parse().ok());
        last.unwrap_or(0)
    }

    /// Waits until the client has gone on for a while.
    fn await_steps(&self) {
        let from = self.steps();
        let goes_on = || match self.steps() {
            steps if steps >= from + STEPS => Ok(()),
            steps => Err(format!(
                "the client is at step {steps} of {from} + {STEPS}: {}",
                self.client.log()
            )),
        };
        self.await_that(goes_on);
    }

    /// Waits until another member is the primary and the client writes to it.
    fn await_failover(&self, old: usize) {
        self.await_that(|| {
            let new = self.index(self.sentinels.primary()?);
            if new == old {
                return Err("the primary is the old one".to_owned());
            }
            is(&self.members[new], "role", "master")
        });
        self.await_steps();
    }

    /// Waits until a member follows the primary, which its configuration then has.
    fn await_replica(&self, replica: usize) {
        let replica = &self.members[replica];
        // On a machine that is slow for a moment there may be another failover meanwhile.
        self.await_that(|| {
            let port = self.sentinels.primary()?.to_string();
            is(replica, "role", "slave")?;
            is(replica, "master_port", &port)?;
            is(replica, "master_link_status", "up")?;
            let text = std::fs::read_to_string(replica.configuration()).map_err(|error| error.to_string())?;
            let wanted = format!("replicaof 127.0.0.1 {port}");
            let has_it = text.lines().any(|line| line.trim() == wanted);
            has_it
                .then_some(())
                .ok_or_else(|| format!("no {wanted} in {text}"))
        });
    }

    fn await_that(&self, attempt: impl FnMut() -> Result<(), String>) {
        retry(PATIENCE, attempt).unwrap_or_else(|reason| panic!("{reason}\n{}", self.report()));
    }

    fn report(&self) -> String {
        let members: Vec<String> = self.members.iter().map(Member::tail).collect();
        format!("{}\n{}", self.sentinels.logs(), members.join("\n"))
    }
}

/// Whether a field of INFO has a value.
fn is(member: &Member, name: &str, wanted: &str) -> Result<(), String> {
    match member.field(name)? {
        value if value == wanted => Ok(()),
        value => Err(format!(
            "{name} of {:?} {} is {value}, not {wanted}",
            member.kind(),
            member.port()
        )),
    }
}

/// Kills, moves and stops the primary of a set in turn.
fn fail_over(kinds: [Kind; 3]) {
    let mut set = Set::start(kinds);
    let killed = set.primary();
    set.members[killed].kill();
    set.await_failover(killed);
    set.members[killed].start_again();
    set.await_replica(killed);

    let asked = set.primary();
    set.sentinels.fail_over();
    set.await_failover(asked);
    set.await_replica(asked);

    let frozen = set.primary();
    set.members[frozen].freeze();
    set.await_failover(frozen);
    set.members[frozen].thaw();
    set.await_replica(frozen);
    assert!(
        set.client.wait(Duration::ZERO).is_none(),
        "the client: {}",
        set.client.log()
    );
    set.client.signal(libc::SIGTERM);
    set.client.wait(PATIENCE).expect("it ends");
    let primary = set.primary();
    // No PING moves the offset between two looks.
    for line in [
        "CONFIG SET repl-ping-replica-period 3600",
        "CONFIG SET repl-timeout 60",
    ] {
        set.members
            .iter()
            .for_each(|member| drop(member.client().line(line)));
    }
    let order = (0..set.members.len()).map(|at| &set.members[(primary + at) % set.members.len()]);
    await_equal(&order.collect::<Vec<_>>());
}

#[test]
fn sentinels_fail_real_servers_over() {
    fail_over([Kind::Redis, Kind::Redis, Kind::Redis]);
}

#[test]
fn sentinels_fail_shardis_over() {
    fail_over([Kind::Shardis(4), Kind::Shardis(2), Kind::Shardis(1)]);
}

#[test]
fn sentinels_fail_a_mixed_set_over() {
    fail_over([Kind::Shardis(4), Kind::Redis, Kind::Shardis(2)]);
}
