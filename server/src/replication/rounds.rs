//! Rounds: the primary's stream on its way from the link to the loop that applies it.
//!
//! The link collects bytes in [`Incoming`], which knows where units end. A [`Round`] is a piece of whole units: the loop applies it on all
//! shards, waits until all of it has been done, and then passes its bytes to the journal in one piece, which moves the offset. So the
//! offset never stands within a unit, and what is passed on to other replicas has been applied.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::journal::units::{Malformed, Meaning, Scanner};

/// Bytes of a stream that have come and are not on their way to the loop.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    bytes: Vec<u8>,
    scanner: Scanner,
    /// The end of the whole units.
    whole: usize,
    /// Bytes at the front that are not to be run.
    silent: usize,
    /// The database selected at the end of the whole units.
    whole_db: u16,
    /// The database selected where the scanner is.
    scanned_db: u16,
    /// The database selected at the front.
    db: u16,
    /// The scanner is within MULTI and EXEC.
    is_within: bool,
    /// Something that was scanned, and not taken, changes data.
    changes: bool,
    /// Length of the request for an acknowledgement that stands behind the whole units: nothing behind it is looked at before it is
    /// answered.
    asked: Option<usize>,
}

/// A piece of the stream that consists of whole units.
#[derive(Debug)]
pub(crate) struct Round {
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// Bytes at the front that are not to be run: they are the link's own business.
    pub(crate) silent: usize,
    /// The database that is selected before it.
    pub(crate) db: u16,
    /// The database that is selected behind it.
    pub(crate) db_behind: u16,
    /// Something in it may change data.
    pub(crate) changes: bool,
}

impl Incoming {
    /// A stream in which this database is selected.
    pub(crate) fn new(db: u16) -> Self {
        Self {
            whole_db: db,
            scanned_db: db,
            db,
            ..Self::default()
        }
    }

    /// The buffer that bytes are received into, behind what is there.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Number of bytes that have come and were not taken.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The database that is selected where the next round begins.
    pub(crate) fn db(&self) -> u16 {
        self.db
    }

    /// Whether a round can be taken.
    pub(crate) fn has_round(&self) -> bool {
        self.whole > self.silent
    }

    /// Whether the primary asks for an acknowledgement of all that was taken so far.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.is_some() && !self.has_round()
    }

    /// Looks at what has come.
    ///
    /// # Errors
    /// When the bytes are no commands.
    pub(crate) fn scan(&mut self) -> Result<(), Malformed> {
        while self.asked.is_none()
            && let Some(found) = self.scanner.next(&self.bytes)?
        {
            match found.meaning {
                Meaning::Select(db) => self.scanned_db = db,
                Meaning::Multi => self.is_within = true,
                Meaning::Exec => self.is_within = false,
                Meaning::GetAck if !self.is_within => {
                    self.asked = Some(found.end - found.begin);
                    return Ok(());
                }
                Meaning::Change => self.changes = true,
                Meaning::GetAck | Meaning::Remark => {}
            }
            if !self.is_within {
                (self.whole, self.whole_db) = (found.end, self.scanned_db);
            }
        }
        Ok(())
    }

    /// Notes that the acknowledgement was sent that the primary has asked for.
    ///
    /// # Errors
    /// When what follows is no command.
    pub(crate) fn answer(&mut self) -> Result<(), Malformed> {
        if let Some(length) = self.asked.take() {
            debug_assert_eq!(self.whole, self.silent, "all before the request is on its way");
            self.whole += length;
            self.silent = self.whole;
        }
        self.scan()
    }

    /// Takes the whole units.
    pub(crate) fn take_round(&mut self) -> Option<Round> {
        if self.whole == 0 {
            return None;
        }
        let rest = self.bytes.split_off(self.whole);
        let bytes = std::mem::replace(&mut self.bytes, rest);
        self.scanner.forget(self.whole);
        self.whole = 0;
        Some(Round {
            bytes,
            silent: std::mem::take(&mut self.silent),
            db: std::mem::replace(&mut self.db, self.whole_db),
            db_behind: self.whole_db,
            // A change within a unit that is not whole counts for what follows.
            changes: std::mem::replace(&mut self.changes, self.is_within),
        })
    }
}

/// Rounds between the link that gives them and the loop that applies them.
#[derive(Debug)]
pub(crate) struct Rounds {
    waiting: Mutex<VecDeque<Round>>,
    /// Number of rounds given.
    given: AtomicU64,
    /// Number of rounds applied.
    applied: AtomicU64,
    /// Tells the link that a round was applied, or that the loop wants the link to end.
    pub(crate) progress: Notify,
    /// The link gives no more, and what waits is not applied.
    is_cut: AtomicBool,
    /// The loop has let go of it.
    is_over: AtomicBool,
    /// The loop wants the link to end.
    is_refused: AtomicBool,
    /// A round could not be applied.
    is_broken: AtomicBool,
    /// The database that is selected at the beginning.
    pub(crate) db: u16,
    /// Our address and that of the primary.
    pub(crate) addresses: (std::net::SocketAddr, std::net::SocketAddr),
    /// File descriptor of the link's socket.
    pub(crate) fd: i32,
}

impl Rounds {
    /// The way of a stream in which this database is selected, over a link with these addresses, ours first.
    pub(crate) fn new(db: u16, addresses: (std::net::SocketAddr, std::net::SocketAddr), fd: i32) -> Self {
        Self {
            waiting: Mutex::default(),
            given: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            progress: Notify::new(),
            is_cut: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_refused: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
            db,
            addresses,
            fd,
        }
    }

    /// Gives the next round to the loop, which the caller wakes.
    pub(crate) fn give(&self, round: Round) {
        self.waiting.lock().push_back(round);
        self.given.fetch_add(1, Ordering::SeqCst);
    }

    /// Number of rounds that were given and are not applied.
    pub(crate) fn under_way(&self) -> u64 {
        self.given.load(Ordering::SeqCst) - self.applied.load(Ordering::SeqCst)
    }

    /// The next round for the loop.
    pub(crate) fn take(&self) -> Option<Round> {
        let mut waiting = self.waiting.lock();
        if self.is_cut() { None } else { waiting.pop_front() }
    }

    /// Notes that a round was applied, and that the journal has it.
    pub(crate) fn note_applied(&self) {
        self.applied.fetch_add(1, Ordering::SeqCst);
        self.progress.notify_one();
    }

    /// Has the loop apply nothing beyond the round that it has begun. Returns the database that is selected behind that, if others
    /// waited.
    pub(crate) fn cut(&self) -> Option<u16> {
        let mut waiting = self.waiting.lock();
        let db = waiting.front().map(|round| round.db);
        self.is_cut.store(true, Ordering::SeqCst);
        self.given.fetch_sub(waiting.len() as u64, Ordering::SeqCst);
        waiting.clear();
        db
    }

    /// Whether nothing more is to be applied.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    /// Notes that the loop has let go of it.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.progress.notify_one();
    }

    /// Whether the loop has let go of it.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Has the link end, as CLIENT KILL wants.
    pub(crate) fn refuse(&self) {
        self.is_refused.store(true, Ordering::SeqCst);
        self.progress.notify_one();
    }

    /// Whether the link is to end.
    pub(crate) fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::SeqCst) || self.is_broken()
    }

    /// Notes that a round could not be applied: the data does not follow the primary's history any more.
    pub(crate) fn break_off(&self) {
        self.is_broken.store(true, Ordering::SeqCst);
        self.progress.notify_one();
    }

    /// Whether a round could not be applied.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(incoming: &mut Incoming, bytes: &[u8]) {
        incoming.buffer().extend_from_slice(bytes);
        incoming.scan().unwrap();
    }

    #[test]
    fn rounds_end_where_units_end() {
        let mut incoming = Incoming::new(0);
        receive(
            &mut incoming,
            b"*1\r\n$4\r\nPING\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n5\r\n*1\r\n$5\r\nMUL",
        );
        let round = incoming.take_round().unwrap();
        assert_eq!((round.bytes.len(), round.silent, round.db), (37, 0, 0));
        assert!(!round.changes);
        receive(&mut incoming, b"TI\r\n*2\r\n$4\r\nINCR\r\n$1\r\nx\r\n");
        assert!(incoming.take_round().is_none());
        receive(&mut incoming, b"*1\r\n$4\r\nEXEC\r\n*2\r\n$4\r\nIN");
        let round = incoming.take_round().unwrap();
        assert!(round.bytes.ends_with(b"EXEC\r\n") && round.changes);
        assert_eq!((round.db, incoming.len()), (5, 10));
    }

    #[test]
    fn a_request_for_an_acknowledgement_waits_for_what_is_before_it() {
        const GETACK: &[u8] = b"*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n";
        const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
        let mut incoming = Incoming::new(0);
        receive(&mut incoming, &[PING, GETACK, PING].concat());
        assert!(!incoming.is_asked());
        assert_eq!(incoming.take_round().unwrap().bytes, PING);
        assert!(incoming.is_asked() && incoming.take_round().is_none());
        incoming.answer().unwrap();
        assert!(!incoming.is_asked());
        let round = incoming.take_round().unwrap();
        assert_eq!(
            (round.bytes.len(), round.silent),
            (GETACK.len() + PING.len(), GETACK.len())
        );
        // One after the other, and nothing else.
        receive(&mut incoming, &[GETACK, GETACK].concat());
        assert!(incoming.is_asked());
        incoming.answer().unwrap();
        assert!(incoming.is_asked());
        incoming.answer().unwrap();
        let round = incoming.take_round().unwrap();
        assert_eq!(round.silent, round.bytes.len());
    }

    #[test]
    fn what_waits_is_dropped_when_the_link_is_cut() {
        let address = "127.0.0.1:1".parse().unwrap();
        let rounds = Rounds::new(0, (address, address), -1);
        let round = |db| Round {
            bytes: vec![1],
            silent: 0,
            db,
            db_behind: db + 1,
            changes: true,
        };
        for db in [1, 2, 3] {
            rounds.give(round(db));
        }
        assert!(rounds.take().is_some());
        assert_eq!(rounds.cut(), Some(2), "the database behind what was begun");
        assert_eq!(rounds.cut(), None);
        assert!(rounds.take().is_none());
        assert_eq!(rounds.under_way(), 1);
        rounds.note_applied();
        assert_eq!(rounds.under_way(), 0);
    }
}
