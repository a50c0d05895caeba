//! A primary and its replica with a bad network between them, under a write load.

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::equality::await_equal;
use super::member::{Kind, Member, PATIENCE, Syncs};
use super::proxy::{Direction, Proxy, Rules};
use super::seeder::{Plan, Seeder, add_bystanders};
use crate::wait::retry;

/// Keys that nobody touches, and the bytes of each: a transfer takes many reads.
const BYSTANDERS: usize = 4000;
const BYSTANDER_BYTES: usize = 150;

/// Commands that are written while a link is broken.
const WRITTEN_MEANWHILE: u64 = 300;

/// Kinds of a primary and of its replica.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    /// Kind of the primary.
    pub primary: Kind,
    /// Kind of the replica.
    pub replica: Kind,
}

/// The pairs that tests of links are made with.
pub const PAIRS: [Kinds; 3] = [
    Kinds {
        primary: Kind::Shardis(4),
        replica: Kind::Redis,
    },
    Kinds {
        primary: Kind::Redis,
        replica: Kind::Shardis(4),
    },
    Kinds {
        primary: Kind::Shardis(1),
        replica: Kind::Shardis(3),
    },
];

/// A primary and its replica. The fields are dropped in this order: the seeder first.
pub struct Pair {
    seeder: Option<Seeder>,
    plan: Plan,
    /// The replica.
    pub replica: Member,
    /// The network between them.
    pub proxy: Proxy,
    /// The primary.
    pub primary: Member,
}

impl Pair {
    /// A primary that is written to, and a server that does not follow it yet.
    ///
    /// # Panics
    /// When one of them does not start.
    #[must_use]
    pub fn start(kinds: Kinds, of_primary: &[&str], of_replica: &[&str]) -> Pair {
        let primary = Member::start(kinds.primary, of_primary);
        Pair::of(primary, Member::start(kinds.replica, of_replica))
    }

    /// The same with servers that the test has started.
    ///
    /// # Panics
    /// When the primary does not take writes.
    #[must_use]
    pub fn of(primary: Member, replica: Member) -> Pair {
        add_bystanders(&primary, BYSTANDERS, BYSTANDER_BYTES);
        let proxy = Proxy::to(primary.port());
        let plan = Plan::of(&[primary.kind(), replica.kind()], rand::rng().random());
        Pair {
            seeder: Some(Seeder::start(primary.port(), plan)),
            plan,
            replica,
            proxy,
            primary,
        }
    }

    /// Has the replica follow the primary through the proxy.
    pub fn follow(&self) {
        self.replica.follow(self.proxy.port());
    }

    /// Has the replica follow the primary, and waits until it does.
    pub fn link(&self) {
        self.follow();
        self.replica.await_link();
    }

    /// Cuts the link at random bytes: in the handshake, in the transfer, in the stream, in both directions. The replica then follows
    /// again.
    ///
    /// # Panics
    /// When it does not.
    pub fn cut_everywhere(&self, rng: &mut StdRng) {
        self.link();
        let transfer = self.proxy.passed();
        for (direction, from, to) in [
            (Direction::FromClient, 0, 150),
            (Direction::FromServer, 0, 60),
            (Direction::FromServer, 60, 250),
            (Direction::FromServer, 250, transfer),
            (Direction::FromServer, 250, transfer),
            (Direction::FromServer, transfer, transfer + 100_000),
            (Direction::FromClient, 150, 400),
        ] {
            // A server that was a primary meanwhile has another history: it begins with a full sync.
            self.replica.promote();
            let at = rng.random_range(from..to);
            self.network(Rules {
                cut: Some((direction, at)),
                ..Rules::default()
            });
            self.follow();
            let what = format!("the link is cut after {at} bytes {direction:?}");
            self.await_that(&what, |pair| !pair.proxy.is_cut_due());
            self.replica.await_link();
        }
    }

    /// The writers.
    ///
    /// # Panics
    /// When they rest.
    #[must_use]
    pub fn seeder(&self) -> &Seeder {
        self.seeder.as_ref().expect("writers at work")
    }

    /// Ends the writing.
    pub fn rest(&mut self) {
        if let Some(seeder) = self.seeder.take() {
            seeder.stop();
        }
    }

    /// Ends the writing, waits until both have the same, and goes on writing.
    ///
    /// # Panics
    /// When they do not have the same.
    pub fn check(&mut self) {
        self.rest();
        self.replica.await_link();
        // A PING would move the offset between two looks, and a timeout without it would cut the link.
        let timing = [("repl-timeout", "60"), ("repl-ping-replica-period", "3600")];
        let before = timing.map(|(name, value)| self.configure(name, value));
        await_equal(&[&self.primary, &self.replica]);
        for ((name, _), before) in timing.iter().zip(before) {
            for (member, value) in [&self.primary, &self.replica].iter().zip(before) {
                member.configure(name, &value);
            }
        }
        self.write_on();
    }

    /// Goes on writing after a rest.
    ///
    /// # Panics
    /// When the primary does not take writes.
    pub fn write_on(&mut self) {
        self.rest();
        self.plan.seed += 1;
        self.seeder = Some(Seeder::start(self.primary.port(), self.plan));
    }

    /// Writes some more, and rests then. While nobody takes the stream, writers that go on would sooner or later write more than the
    /// backlog keeps: how soon depends on the machine.
    ///
    /// # Panics
    /// When the primary does not take writes.
    pub fn write_some(&mut self) {
        self.seeder().await_more(WRITTEN_MEANWHILE);
        self.rest();
    }

    /// Sets a directive of both servers; returns its values before.
    pub fn configure(&self, name: &str, value: &str) -> [String; 2] {
        [&self.primary, &self.replica].map(|member| member.configure(name, value))
    }

    /// Waits until the primary has so many replicas.
    ///
    /// # Panics
    /// When it has not.
    pub fn await_replicas(&self, count: usize) {
        self.primary.await_field("connected_slaves", &count.to_string());
    }

    /// Synchronisations that the primary has served.
    #[must_use]
    pub fn syncs(&self) -> Syncs {
        self.primary.syncs()
    }

    /// Waits until something is so; a failure shows both logs.
    ///
    /// # Panics
    /// When it is not.
    pub fn await_that(&self, what: &str, mut is_so: impl FnMut(&Pair) -> bool) {
        let attempt = || is_so(self).then_some(()).ok_or_else(|| what.to_owned());
        if let Err(reason) = retry(PATIENCE, attempt) {
            panic!(
                "not so: {reason}\n{}\n{}",
                self.primary.tail(),
                self.replica.tail()
            );
        }
    }

    /// Waits until the replica has lost its link.
    pub fn await_loss(&self) {
        self.replica.await_field("master_link_status", "down");
    }

    /// Has the network do as the rules say for connections there are and to come.
    pub fn network(&self, rules: Rules) {
        self.proxy.set(rules);
    }
}
