//! Follows the stream of the primary: gives it, round by round, to the loop that applies it, and acknowledges what was applied.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::time::Instant;

use super::Keeper;
use super::receive::seconds;
use super::wire::{Lost, Wire};
use crate::journal::units::Malformed;
use crate::limits::{LINK_AHEAD_BYTES, ROUNDS_AHEAD};
use crate::replication::{Incoming, LinkStage, Rounds};
use crate::state::Node;

/// The stream of one link, which is cut when the link is lost.
struct Given {
    incoming: Incoming,
    rounds: Arc<Rounds>,
    node: Arc<Node>,
}

impl Drop for Given {
    fn drop(&mut self) {
        // The rounds that are dropped come again: they begin in the database that was selected before them.
        let db = self.rounds.cut().unwrap_or(self.incoming.db());
        self.node.replication.following.note_stream_db(db);
        self.node.tell_applying_loop();
    }
}

impl From<Malformed> for Lost {
    fn from(_: Malformed) -> Self {
        Self::Broken
    }
}

impl Keeper {
    /// Follows the stream, in which this database is selected, until the link is lost.
    pub(super) async fn follow(&mut self, wire: &mut Wire, db: u16) -> Result<Infallible, Lost> {
        let rounds = Arc::new(Rounds::new(db, wire.addresses()?, wire.fd()));
        let mut given = Given {
            incoming: Incoming::new(db),
            rounds: Arc::clone(&rounds),
            node: Arc::clone(&self.node),
        };
        given.incoming.buffer().append(&mut wire.received);
        self.following().exchange(rounds);
        self.node.ring_applying_loop();
        self.enter(LinkStage::Connected);
        self.node.ring_all();
        self.pass_on(wire, &mut given).await
    }

    async fn pass_on(&self, wire: &mut Wire, given: &mut Given) -> Result<Infallible, Lost> {
        let (mut ticks, mut heard) = (seconds(), Instant::now());
        loop {
            given.incoming.scan()?;
            self.following()
                .note_read(self.node.journal.end().offset() + given.incoming.len() as u64);
            self.give(wire, given)?;
            let may_read = given.incoming.len() < LINK_AHEAD_BYTES
                || !(given.incoming.has_round() || given.incoming.is_asked());
            tokio::select! {
                read = wire.read(given.incoming.buffer()), if may_read => {
                    read?;
                    heard = Instant::now();
                }
                () = given.rounds.progress.notified() => {
                    if given.rounds.is_broken() {
                        return Err(Lost::Broken);
                    }
                    if given.rounds.is_refused() {
                        return Err(Lost::Ended);
                    }
                }
                _ = ticks.tick() => {
                    if heard.elapsed() > wire.patience() && may_read {
                        return Err(Lost::Silent("MASTER timeout: no data nor PING received..."));
                    }
                    self.acknowledge(wire)?;
                }
                () = wire.writable(), if !wire.has_sent() => wire.flush()?,
            }
        }
    }

    /// Gives rounds to the loop, as many as it may have ahead, and answers the primary where it asks how far this node has come.
    fn give(&self, wire: &mut Wire, given: &mut Given) -> Result<(), Lost> {
        loop {
            let under_way = given.rounds.under_way();
            if given.incoming.is_asked() {
                if under_way > 0 {
                    return Ok(());
                }
                self.acknowledge(wire)?;
                given.incoming.answer()?;
            }
            if under_way >= ROUNDS_AHEAD {
                return Ok(());
            }
            let Some(round) = given.incoming.take_round() else {
                return Ok(());
            };
            given.rounds.give(round);
            self.node.tell_applying_loop();
        }
    }

    /// Tells the primary how far this node has come, unless the last such message is still on its way.
    pub(super) fn acknowledge(&self, wire: &mut Wire) -> Result<(), Lost> {
        if !wire.has_sent() {
            return wire.flush();
        }
        let offset = self.node.journal.end().offset().to_string();
        let stored = self.node.journal.synced_to().map(|stored| stored.to_string());
        match &stored {
            Some(stored) => {
                wire.command(&[b"REPLCONF", b"ACK", offset.as_bytes(), b"FACK", stored.as_bytes()])
            }
            None => wire.command(&[b"REPLCONF", b"ACK", offset.as_bytes()]),
        }
    }
}
