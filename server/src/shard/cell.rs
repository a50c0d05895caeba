//! The cell that holds a shard's data: owned, borrowed, or lent.
//!
//! - The *owner*, the shard's loop, holds it while it executes and lets go before it sleeps. It may wait for it, because
//!   nobody else holds it for longer than a batch of short commands takes.
//! - A *borrower*, another loop, takes it if it is free, or becomes free within a brief spin, and runs a batch of short
//!   commands in place. It never waits: whoever holds one cell and waited for another could deadlock.
//! - *Lending* takes the data out, by value: the cell is then empty, for as long as a command over several shards needs
//!   it, and everybody finds it so. Only the owner lends, on request, and it puts back what returns.

use std::time::Duration;

use super::sync::{Mutex, MutexGuard, spin_loop};

/// How often an owner tries before it waits.
const OWNER_TRIES: u32 = if cfg!(loom) { 1 } else { 100 };

/// A place for the data of one shard.
#[derive(Debug)]
pub(crate) struct Cell<T> {
    content: Mutex<Option<Box<T>>>,
}

/// The data of a shard, held until dropped.
#[derive(Debug)]
pub(crate) struct Guard<'a, T> {
    content: MutexGuard<'a, Option<Box<T>>>,
}

impl<T> Cell<T> {
    /// A cell that holds `content`.
    pub(crate) fn new(content: T) -> Self {
        Self {
            content: Mutex::new(Some(Box::new(content))),
        }
    }

    /// For the owner: holds the data, waiting for a borrower to finish. `None` while it is lent.
    #[inline]
    pub(crate) fn own(&self) -> Option<Guard<'_, T>> {
        // A borrower is done sooner than this thread could be put to sleep and woken again.
        for _ in 0..OWNER_TRIES {
            if let Some(content) = self.content.try_lock() {
                return Guard::of(content);
            }
            spin_loop();
        }
        Guard::of(self.content.lock())
    }

    /// For others: holds the data if that is possible within `tries` attempts. `None` when it is taken or lent.
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

    /// For a command over several shards: holds the data if that is possible within `limit`. It may hold other cells
    /// meanwhile, if it takes them in ascending order; the limit keeps it from waiting for a long command. `None` when it
    /// is taken for longer, or lent.
    pub(crate) fn borrow_within(&self, limit: Duration) -> Option<Guard<'_, T>> {
        self.content.try_lock_for(limit).and_then(Guard::of)
    }

    /// For the owner: takes the data out, to lend it. `None` when it is lent already.
    pub(crate) fn take(&self) -> Option<Box<T>> {
        self.content.lock().take()
    }

    /// For the owner: puts back what was lent.
    pub(crate) fn put_back(&self, content: Box<T>) {
        let mut place = self.content.lock();
        debug_assert!(place.is_none(), "what returns was taken out of this cell before");
        *place = Some(content);
    }
}

impl<'a, T> Guard<'a, T> {
    #[inline]
    fn of(content: MutexGuard<'a, Option<Box<T>>>) -> Option<Self> {
        content.is_some().then_some(Self { content })
    }

    /// The data.
    #[inline]
    pub(crate) fn get(&mut self) -> &mut T {
        self.content
            .as_mut()
            .expect("a cell is held only while it has content")
    }

    /// Takes the data out for as long as the cell is held; [`put`](Self::put) must follow.
    pub(crate) fn take(&mut self) -> Box<T> {
        self.content
            .take()
            .expect("a cell is held only while it has content")
    }

    /// Puts back what [`take`](Self::take) took out.
    pub(crate) fn put(&mut self, content: Box<T>) {
        *self.content = Some(content);
    }
}

#[cfg(all(test, not(loom)))]
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
        cell.put_back(lent);
        assert_eq!(*cell.own().unwrap().get(), 7);
    }
}

#[cfg(all(test, loom))]
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
            cell.put_back(lent);
            let borrowed = borrower.join().unwrap();
            assert_eq!(*cell.own().unwrap().get(), 10 + borrowed);
        });
    }
}
