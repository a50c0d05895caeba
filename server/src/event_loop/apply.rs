//! Applies the primary's stream on a replica: loop 0 has a connection without a socket, whose input are the rounds that the link gives.
//!
//! Its commands are parsed, sorted by shard and run like those of a client, with the origin `Primary`; replies are dropped. A round is
//! over when all that it contains has run, on every shard; then its bytes enter the journal, which moves the offset, and the next round
//! begins. Loop 0 also makes the cuts of snapshots: none is made within a round, and none begins while one waits for its cut, so that
//! a snapshot and its offset agree.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::EventLoop;
use super::fences::Mark;
use crate::connection::{Connection, Gate};
use crate::exec::client::Unblocked;
use crate::exec::{Client, Closing, Identity, Peer, ReplyMode};
use crate::journal::Position;
use crate::pubsub::Seat;
use crate::replication::{Round, Rounds};
use crate::shard::poll::{Intake, Socket};

/// A loop's part in a replica.
#[derive(Debug, Default)]
pub(super) struct Applying {
    /// The stream that is applied, and its connection.
    current: Option<(Arc<Rounds>, usize)>,
    /// The round that was begun.
    begun: Option<Begun>,
    /// A round may wait.
    may_begin: bool,
    /// Version of the node's role for which all has been done that was admitted before.
    passed: u64,
    /// Version of the node's role that the clients of this loop have been told of.
    told: u64,
    /// The moment since which `told` is known: what was under way then has to end before that has passed.
    since: Mark,
}

/// A round that is being applied.
#[derive(Debug)]
struct Begun {
    bytes: Arc<[u8]>,
    /// The databases that are selected before it and behind it.
    databases: (u16, u16),
}

impl Applying {
    /// Whether this connection is the one that applies.
    #[inline]
    pub(super) fn is_by(&self, number: usize) -> bool {
        self.current.as_ref().is_some_and(|(_, of)| *of == number)
    }

    /// Whether no round has been begun.
    pub(super) fn is_settled(&self) -> bool {
        self.begun.is_none()
    }
}

impl EventLoop {
    /// Ends the round that is over, and begins the next one.
    pub(super) fn apply(&mut self) {
        if self.index != 0 {
            return;
        }
        self.end_round();
        if self.node.replication.following.take_news() {
            self.applying.may_begin = true;
        }
        if self.applying.may_begin && self.applying.is_settled() {
            self.exchange_rounds();
            self.begin_round();
        }
    }

    /// Whether a round can begin at once, so that the loop must not sleep.
    pub(super) fn may_apply(&self) -> bool {
        self.applying.may_begin && self.applying.is_settled() && !self.is_cut_ahead()
    }

    /// Whether a snapshot waits for its cut, before which no round begins.
    fn is_cut_ahead(&self) -> bool {
        self.saving.is_lending || self.node.persistence.awaits_cut()
    }

    /// Lets go of a stream that was cut, and takes on the one that the link gives now.
    fn exchange_rounds(&mut self) {
        if let Some((rounds, number)) = &self.applying.current
            && (rounds.is_cut() || rounds.is_broken())
        {
            let (rounds, number) = (Arc::clone(rounds), *number);
            self.applying.current = None;
            self.clients.disconnect(number);
            rounds.cut();
            rounds.end();
        }
        let given = self.node.replication.following.rounds();
        if self.applying.current.is_none()
            && let Some(rounds) = given.filter(|rounds| !rounds.is_over())
        {
            if rounds.is_cut() {
                return rounds.end();
            }
            let number = self.connect_primary(&rounds);
            self.applying.current = Some((rounds, number));
        }
    }

    /// The connection that applies a stream.
    fn connect_primary(&mut self, rounds: &Rounds) -> usize {
        let (local, remote) = rounds.addresses;
        let id = self.node.next_client_id();
        let peer = Peer::Tcp { remote, local };
        let identity = Identity::of_primary(&self.node.acl.users());
        let mut client = Client::new(id, peer, rounds.fd, self.now_ms(), identity);
        client.is_primary = true;
        client.db = rounds.db;
        client.reply_mode = ReplyMode::Off;
        self.node.clients.fetch_add(1, Ordering::Relaxed);
        let socket = Socket::Primary(Intake::default());
        let number = self.clients.connections.insert(Connection::new(client, socket));
        self.clients[number].client.seat = Seat::new(self.index, number, id);
        self.clients[number].readable = false;
        self.book_client(number);
        number
    }

    fn begin_round(&mut self) {
        if self.is_cut_ahead() {
            return;
        }
        self.applying.may_begin = false;
        let Some((rounds, number)) = &self.applying.current else {
            return;
        };
        let Some(round) = rounds.take() else {
            return;
        };
        if round.changes
            && let Some(denial) = self.node.denial(&self.settings)
            && !self.node.may_apply(denial)
        {
            return;
        }
        let Round { bytes, silent, .. } = round;
        let databases = (round.db, round.db_behind);
        let bytes: Arc<[u8]> = bytes.into();
        let connection = &mut self.clients.connections[*number];
        if let Socket::Primary(intake) = &mut connection.socket {
            intake.give(Arc::clone(&bytes), silent);
        }
        connection.readable = silent < bytes.len();
        connection.client.active_ms = self.now_us / 1000;
        self.applying.begun = Some(Begun { bytes, databases });
        self.clients.enqueue(*number);
    }

    /// Passes the bytes of a round to the journal when all of it has run.
    fn end_round(&mut self) {
        let Some((rounds, number)) = &self.applying.current else {
            return;
        };
        let connection = &self.clients.connections[*number];
        let is_over = !connection.readable
            && matches!(connection.gate, Gate::Open)
            && connection.output.in_flight() == 0
            && connection.input.bytes() == 0;
        if !is_over {
            return;
        }
        let Some(Begun { bytes, databases }) = self.applying.begun.take() else {
            return;
        };
        self.node.journal.append_followed(&bytes, databases);
        rounds.note_applied();
        self.applying.may_begin = true;
    }

    /// Has the link of the primary end, as a client wants that has killed the connection of its stream: what was begun is applied first.
    pub(super) fn refuse_stream(&mut self, number: usize) {
        if let Some((rounds, _)) = &self.applying.current {
            rounds.refuse();
        }
        self.clients[number].client.closing = Closing::No;
        self.clients.enqueue(number);
    }

    /// Gives the stream up: it contains something that is no command.
    pub(super) fn break_stream(&mut self) {
        if let Some((rounds, _)) = &self.applying.current {
            rounds.break_off();
        }
        // The round that was begun cannot be ended.
        self.applying.begun = None;
        self.applying.may_begin = true;
    }

    /// Notices that the node's role has changed: clients that wait are told, and the link waits until all has run that was admitted
    /// before.
    pub(super) fn notice_role(&mut self) {
        let version = self.node.replication.following.version();
        if version == self.applying.passed {
            return;
        }
        if version != self.applying.told {
            self.applying.told = version;
            self.applying.since = self.reach.eras.mark();
            if self.node.replication.following.is_replica() {
                self.unblock_all();
            }
        }
        if self.has_run(self.applying.since) {
            self.applying.passed = version;
            for (_, connection) in &mut self.clients.connections {
                // Positions of the stream so far mean nothing in the one that is followed.
                connection.client.wrote_to = Position::default();
            }
            self.node.replication.following.pass(self.index, version);
        }
    }

    /// Ends all waits for keys: what the clients wait for comes from the primary now.
    fn unblock_all(&mut self) {
        for (_, connection) in &mut self.clients.connections {
            if let Some(ticket) = &connection.client.waits
                && ticket.claim()
            {
                connection.client.unblocked = Some(Unblocked::RoleChanged);
            }
        }
        self.answer_unblocked_clients();
    }
}
