//! The cell that holds a shard's data: owned, borrowed, or lent.
//!
//! - The *owner*, the shard's loop, holds it while it executes, and releases it before it sleeps. It may wait for it,
//!   because no borrower holds it for longer than a batch of short commands takes.
//! - A *borrower*, another loop, takes it if it is free, or becomes free within a brief spin, and runs a batch of
//!   short commands in place. It never waits: a thread that holds one cell and waits for another could deadlock.
//! - *Lending* takes the data out by value: the cell is then empty, for as long as a command over several shards
//!   needs the data. The owner lends on request; a thread that holds the cell may take the data out as well. The
//!   borrower of the data puts it back, and learns whether the owner has work that waits for it.

use std::time::Duration;

use super::sync::{Mutex, MutexGuard, spin_loop};

/// Number of attempts of an owner before it waits.
const OWNER_TRIES: u32 = if cfg!(shardis_loom) { 1 } else { 100 };

/// A place for the data of one shard.
#[derive(Debug)]
pub(crate) struct Cell<T> {
    content: Mutex<Content<T>>,
}

#[derive(Debug)]
struct Content<T> {
    /// The data; none while it is lent.
    data: Option<Box<T>>,
    /// The owner has found the data lent. When the data is back, the owner gets it first: otherwise borrowers could
    /// keep it from the owner for ever.
    awaited: bool,
}

/// The data of a shard, held until dropped.
#[derive(Debug)]
pub(crate) struct Guard<'a, T> {
    content: MutexGuard<'a, Content<T>>,
}

impl<T> Cell<T> {
    /// A cell that holds `content`.
    pub(crate) fn new(content: T) -> Self {
        Self {
            content: Mutex::new(Content {
                data: Some(Box::new(content)),
                awaited: false,
            }),
        }
    }

    /// Holds the data for the owner, waiting for a borrower to finish. `None` while it is lent.
    #[inline]
    pub(crate) fn own(&self) -> Option<Guard<'_, T>> {
        // A borrower finishes sooner than this thread could be put to sleep and woken again.
        for _ in 0..OWNER_TRIES {
            if let Some(content) = self.content.try_lock() {
                return Guard::of_owner(content);
            }
            spin_loop();
        }
        Guard::of_owner(self.content.lock())
    }

    /// Holds the data for a borrower, if that succeeds within `tries` attempts. `None` when it is taken or lent.
    #[inline]
    pub(crate) fn borrow(&self, tries: u32) -> Option<Guard<'_, T>> {
        for _ in 0..tries {
            if let Some(content) = self.content.try_lock() {
                return Guard::of(content);
            }
            spin_loop();
        }
        None
    }

    /// Holds the data for a command over several shards, if that succeeds within `limit`. The caller may hold other
    /// cells meanwhile, if it takes them in ascending order; the limit keeps it from waiting for a long command.
    /// `None` when the data stays taken, or is lent.
    pub(crate) fn borrow_within(&self, limit: Duration) -> Option<Guard<'_, T>> {
        self.content.try_lock_for(limit).and_then(Guard::of)
    }

    /// Takes the data out for the owner, to lend it. `None` when it is lent already.
    pub(crate) fn take(&self) -> Option<Box<T>> {
        let mut content = self.content.lock();
        content.awaited = content.data.is_none();
        content.data.take()
    }

    /// Puts lent data back. True when the owner has found it lent meanwhile: the caller must tell the owner, and
    /// nobody else gets the data before.
    #[must_use]
    pub(crate) fn put_back(&self, data: Box<T>) -> bool {
        let mut content = self.content.lock();
        debug_assert!(
            content.data.is_none(),
            "what returns was taken out of this cell before"
        );
        content.data = Some(data);
        content.awaited
    }
}

impl<'a, T> Guard<'a, T> {
    #[inline]
    fn of(content: MutexGuard<'a, Content<T>>) -> Option<Self> {
        (content.data.is_some() && !content.awaited).then_some(Self { content })
    }

    #[inline]
    fn of_owner(mut content: MutexGuard<'a, Content<T>>) -> Option<Self> {
        content.awaited = content.data.is_none();
        Self::of(content)
    }

    /// The data.
    #[inline]
    pub(crate) fn get(&mut self) -> &mut T {
        self.content
            .data
            .as_mut()
            .expect("a cell is held only while it has content")
    }

    /// Takes the data out for as long as the cell is held; [`put`](Self::put) must follow.
    pub(crate) fn take(&mut self) -> Box<T> {
        self.content
            .data
            .take()
            .expect("a cell is held only while it has content")
    }

    /// Puts back what [`take`](Self::take) took out.
    pub(crate) fn put(&mut self, data: Box<T>) {
        self.content.data = Some(data);
    }

    /// Takes the data away for longer than the cell is held: others find it lent until it is [put
    /// back](Cell::put_back).
    pub(crate) fn take_away(mut self) -> Box<T> {
        self.take()
    }
}

#[cfg(all(test, not(shardis_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_held_cell_cannot_be_borrowed() {
        let cell = Cell::new(1);
        let mut held = cell.own().unwrap();
        *held.get() += 1;
        assert!(cell.borrow(3).is_none());
        drop(held);
        assert_eq!(*cell.borrow(1).unwrap().get(), 2);
    }

    #[test]
    fn a_lent_cell_is_empty_for_everybody_until_it_returns() {
        let cell = Cell::new(7);
        let lent = cell.take().unwrap();
        assert!(cell.own().is_none());
        assert!(cell.borrow(1).is_none());
        assert!(cell.take().is_none());
        assert!(cell.put_back(lent), "the owner has looked for it");
        assert_eq!(*cell.own().unwrap().get(), 7);
    }

    #[test]
    fn who_holds_the_data_may_take_it_away_and_the_owner_is_told_only_if_it_asked() {
        let cell = Cell::new(7);
        let taken = cell.borrow(1).unwrap().take_away();
        assert!(cell.borrow(1).is_none());
        assert!(!cell.put_back(taken), "nobody but a borrower has looked for it");
        let taken = cell.borrow(1).unwrap().take_away();
        assert!(cell.own().is_none());
        assert!(cell.put_back(taken));
        assert!(cell.borrow(1).is_none(), "it is the owner's turn");
        drop(cell.own());
        let taken = cell.borrow(1).unwrap().take_away();
        assert!(!cell.put_back(taken), "the owner was told before");
    }
}

#[cfg(all(test, shardis_loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn owner_and_borrower_never_hold_it_together() {
        loom::model(|| {
            let cell = Arc::new(Cell::new(0_u32));
            let borrower = {
                let cell = Arc::clone(&cell);
                thread::spawn(move || match cell.borrow(1) {
                    Some(mut held) => {
                        *held.get() += 1;
                        1
                    }
                    None => 0,
                })
            };
            let mut held = cell.own().unwrap();
            let seen = *held.get();
            *held.get() = seen + 1;
            drop(held);
            let borrowed = borrower.join().unwrap();
            assert_eq!(*cell.own().unwrap().get(), 1 + borrowed);
        });
    }

    #[test]
    fn what_is_lent_is_found_by_nobody_and_lost_by_nobody() {
        loom::model(|| {
            let cell = Arc::new(Cell::new(0_u32));
            let borrower = {
                let cell = Arc::clone(&cell);
                thread::spawn(move || match cell.borrow(1) {
                    Some(mut held) => {
                        *held.get() += 1;
                        1
                    }
                    None => 0,
                })
            };
            // The coordinator works on the box while the cell is empty.
            let mut lent = cell.take().unwrap();
            *lent += 10;
            assert!(!cell.put_back(lent), "the owner has not looked for it");
            let borrowed = borrower.join().unwrap();
            assert_eq!(*cell.own().unwrap().get(), 10 + borrowed);
        });
    }
    /// The owner finds the data in its cell, or is told when it is back: its work never waits for data that is there.
    #[test]
    fn an_owner_that_finds_it_taken_away_is_told() {
        loom::model(|| {
            let cell = Arc::new(Cell::new(0_u32));
            let coordinator = {
                let cell = Arc::clone(&cell);
                thread::spawn(move || match cell.borrow(1) {
                    Some(held) => {
                        let taken = held.take_away();
                        cell.put_back(taken)
                    }
                    None => false,
                })
            };
            let found = match cell.own() {
                Some(mut held) => {
                    *held.get() += 1;
                    true
                }
                None => false,
            };
            let told = coordinator.join().unwrap();
            assert_eq!(found, !told);
            assert_eq!(*cell.own().unwrap().get(), u32::from(found));
        });
    }
}
