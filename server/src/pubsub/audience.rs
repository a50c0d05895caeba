//! The listeners of one channel or pattern, by the loop that carries them.

use std::sync::Arc;

use smallvec::SmallVec;

/// A connection that listens, wherever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seat {
    /// The loop that carries it.
    pub(crate) of_loop: u16,
    /// The listener as that loop knows it.
    pub(crate) listener: Listener,
}

impl Seat {
    /// The seat of a client on a connection of a loop.
    pub(crate) fn new(of_loop: usize, connection: usize, client: u64) -> Self {
        let listener = Listener {
            connection: connection as u32,
            client: client as u32,
        };
        Self {
            of_loop: of_loop as u16,
            listener,
        }
    }
}

/// A connection that listens, as its loop knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Listener {
    /// Its number.
    pub(crate) connection: u32,
    /// Low bits of the client's id: tells a reused number.
    pub(crate) client: u32,
}

/// Those of one loop, in the order in which they subscribed. Most channels have one.
pub(crate) type Listeners = SmallVec<[Listener; 2]>;

/// All who listen to a name. A loop is in it only with listeners.
///
/// Messages under way share the lists; a list that is shared is copied before it is changed.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    by_loop: SmallVec<[(u16, Arc<Listeners>); 1]>,
}

impl Audience {
    /// Adds one who is not in it.
    pub(crate) fn add(&mut self, seat: Seat) {
        match self
            .by_loop
            .iter_mut()
            .find(|(of_loop, _)| *of_loop == seat.of_loop)
        {
            Some((_, listeners)) => Arc::make_mut(listeners).push(seat.listener),
            None => {
                let listeners = Listeners::from_slice(&[seat.listener]);
                self.by_loop.push((seat.of_loop, Arc::new(listeners)));
            }
        }
    }

    /// Removes one. Complexity: O(those of its loop), a few bytes each.
    pub(crate) fn remove(&mut self, seat: Seat) {
        let Some(index) = self
            .by_loop
            .iter()
            .position(|(of_loop, _)| *of_loop == seat.of_loop)
        else {
            return;
        };
        let listeners = Arc::make_mut(&mut self.by_loop[index].1);
        if let Some(place) = listeners.iter().position(|&known| known == seat.listener) {
            listeners.remove(place);
        }
        if listeners.is_empty() {
            self.by_loop.remove(index);
        }
    }

    /// Number of listeners.
    pub(crate) fn len(&self) -> usize {
        self.by_loop.iter().map(|(_, listeners)| listeners.len()).sum()
    }

    /// Whether nobody is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_loop.is_empty()
    }

    /// Those of each loop.
    pub(crate) fn by_loop(&self) -> &[(u16, Arc<Listeners>)] {
        &self.by_loop
    }
}
