//! The subscribers of one channel or pattern, by the loop that carries them.

use std::sync::Arc;

use smallvec::SmallVec;

/// The address of a subscribed connection in the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Index of the loop that carries it.
    pub(crate) of_loop: u16,
    /// The connection on that loop.
    pub(crate) subscriber: Subscriber,
}

impl Seat {
    /// The seat of a client, on a connection of a loop.
    pub(crate) fn new(of_loop: usize, connection: usize, client: u64) -> Self {
        let subscriber = Subscriber {
            connection: connection as u32,
            client: client as u32,
        };
        Self {
            of_loop: of_loop as u16,
            subscriber,
        }
    }
}

/// A subscribed connection, as its loop knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Subscriber {
    /// Number of the connection.
    pub(crate) connection: u32,
    /// Low bits of the client's id: detects a reused number.
    pub(crate) client: u32,
}

/// The subscribers of one loop, in the order of subscription. Most channels have one.
pub(crate) type Subscribers = SmallVec<[Subscriber; 2]>;

/// The subscribers of a name, by loop. A loop is listed only if it has subscribers.
///
/// Messages under way share the lists; a shared list is copied before it is changed.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    by_loop: SmallVec<[(u16, Arc<Subscribers>); 1]>,
}

impl Audience {
    /// Adds a subscriber that is not in the audience.
    pub(crate) fn add(&mut self, seat: Seat) {
        match self
            .by_loop
            .iter_mut()
            .find(|(of_loop, _)| *of_loop == seat.of_loop)
        {
            Some((_, subscribers)) => Arc::make_mut(subscribers).push(seat.subscriber),
            None => {
                let subscribers = Subscribers::from_slice(&[seat.subscriber]);
                self.by_loop.push((seat.of_loop, Arc::new(subscribers)));
            }
        }
    }

    /// Removes a subscriber. Complexity: O(subscribers of its loop), a few bytes each.
    pub(crate) fn remove(&mut self, seat: Seat) {
        let Some(index) = self
            .by_loop
            .iter()
            .position(|(of_loop, _)| *of_loop == seat.of_loop)
        else {
            return;
        };
        let subscribers = Arc::make_mut(&mut self.by_loop[index].1);
        if let Some(place) = subscribers.iter().position(|&known| known == seat.subscriber) {
            subscribers.remove(place);
        }
        if subscribers.is_empty() {
            self.by_loop.remove(index);
        }
    }

    /// Number of subscribers.
    pub(crate) fn len(&self) -> usize {
        self.by_loop
            .iter()
            .map(|(_, subscribers)| subscribers.len())
            .sum()
    }

    /// Whether no subscriber is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_loop.is_empty()
    }

    /// The subscribers of each loop.
    pub(crate) fn by_loop(&self) -> &[(u16, Arc<Subscribers>)] {
        &self.by_loop
    }
}
