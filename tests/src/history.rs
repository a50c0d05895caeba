//! Histories of concurrent clients, and the check whether a single sequential server could have produced them.
//!
//! Every operation is recorded with the moments of its request and its reply, taken from one counter. A history is
//! linearizable if its operations can be ordered such that the order respects those moments and every reply is the
//! one that a single key would give. Since linearizability is local, each key is checked on its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use todc_utils::{Action, History, Specification, WGLChecker};

use crate::reply::Reply;

/// The counter that orders the moments of a history.
#[derive(Default)]
struct Moments(AtomicU64);

impl Moments {
    /// The next moment: later than all moments before it, on all threads.
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// An operation on a key with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// GET saw this.
    Get(Option<i64>),
    /// SET to this.
    Set(i64),
    /// INCR came to this.
    Increment(i64),
    /// GETSET to the first, and the second was there.
    Exchange(i64, Option<i64>),
    /// SET NX to the first succeeded or not.
    SetIfMissing(i64, bool),
    /// GETDEL found this.
    Take(Option<i64>),
}

/// An operation with its client and its moments.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// The client: it has one operation at a time.
    pub client: usize,
    /// Just before it was sent.
    pub asked: u64,
    /// Just after the answer had come.
    pub answered: u64,
    /// The operation, and the answer to it.
    pub operation: Operation,
}

/// Does one random operation on a key, by a function that sends a command about a key, and returns its outcome.
fn operate(
    call: &mut impl FnMut(&str, &[&str]) -> Reply,
    rng: &mut StdRng,
    key: &str,
    value: i64,
) -> Operation {
    let text = value.to_string();
    let mut say = |words: &[&str]| call(key, words);
    match rng.random_range(0..10) {
        0..=3 => Operation::Get(number(&say(&["GET", key]))),
        4..=5 => {
            assert_eq!(say(&["SET", key, &text]).text(), "OK");
            Operation::Set(value)
        }
        6 => Operation::Increment(number(&say(&["INCR", key])).expect("INCR gives a number")),
        7 => Operation::Exchange(value, number(&say(&["GETSET", key, &text]))),
        8 => Operation::SetIfMissing(value, !say(&["SET", key, &text, "NX"]).is_null()),
        _ => Operation::Take(number(&say(&["GETDEL", key]))),
    }
}

/// A number in a reply, if there is one.
fn number(reply: &Reply) -> Option<i64> {
    reply.integer().or_else(|| reply.text().parse().ok())
}

/// The events of each key, as so many clients saw them that did so many operations each. A client is a function that sends a command
/// about a key and returns the reply, made by `connect`.
///
/// # Panics
/// When a client does.
pub fn record<C>(
    clients: usize,
    operations: usize,
    keys: &[String],
    connect: impl Fn() -> C + Sync,
) -> Vec<Vec<Event>>
where
    C: FnMut(&str, &[&str]) -> Reply,
{
    let moments = Moments::default();
    let one_client = |client: usize| {
        let (mut call, mut rng) = (connect(), StdRng::seed_from_u64(client as u64));
        let mut events = Vec::with_capacity(operations);
        for step in 0..operations {
            let key = rng.random_range(0..keys.len());
            let value = i64::try_from(client * operations + step).expect("small") * 1000;
            let asked = moments.next();
            let operation = operate(&mut call, &mut rng, &keys[key], value);
            let answered = moments.next();
            let event = Event {
                client,
                asked,
                answered,
                operation,
            };
            events.push((key, event));
        }
        events
    };
    let one_client = &one_client;
    let all: Vec<(usize, Event)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|client| scope.spawn(move || one_client(client)))
            .collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().expect("a client that ends well"))
            .collect()
    });
    let of_key = |key| {
        all.iter()
            .filter(|(of, _)| *of == key)
            .map(|(_, event)| *event)
            .collect()
    };
    (0..keys.len()).map(of_key).collect()
}

/// One key holding an integer, as a sequential object.
struct Register;

impl Specification for Register {
    type State = Option<i64>;
    type Operation = Operation;

    fn init() -> Self::State {
        None
    }

    fn apply(operation: &Operation, &state: &Option<i64>) -> (bool, Option<i64>) {
        match *operation {
            Operation::Get(seen) => (seen == state, state),
            Operation::Set(value) => (true, Some(value)),
            Operation::Increment(result) => (result == state.unwrap_or(0) + 1, Some(result)),
            Operation::Exchange(value, old) => (old == state, Some(value)),
            Operation::SetIfMissing(value, done) => (done == state.is_none(), state.or(Some(value))),
            Operation::Take(old) => (old == state, None),
        }
    }
}

/// Could a single key, missing at first, have answered so? Cheap while few operations overlap.
#[must_use]
pub fn is_linearizable(events: &[Event]) -> bool {
    if events.is_empty() {
        return true;
    }
    let mut moments: Vec<(u64, usize, Action<Operation>)> = events
        .iter()
        .flat_map(|event| {
            [
                (event.asked, event.client, Action::Call(event.operation)),
                (event.answered, event.client, Action::Response(event.operation)),
            ]
        })
        .collect();
    moments.sort_by_key(|(moment, ..)| *moment);
    let actions = moments
        .into_iter()
        .map(|(_, client, action)| (client, action))
        .collect();
    WGLChecker::<Register>::is_linearizable(History::from_actions(actions))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(client: usize, asked: u64, answered: u64, operation: Operation) -> Event {
        Event {
            client,
            asked,
            answered,
            operation,
        }
    }

    #[test]
    fn overlapping_operations_may_take_effect_in_either_order() {
        let write = event(0, 0, 9, Operation::Set(1));
        for seen in [None, Some(1)] {
            assert!(
                is_linearizable(&[write, event(1, 2, 3, Operation::Get(seen))]),
                "{seen:?}"
            );
        }
    }

    #[test]
    fn a_stale_read_is_refused() {
        let events = [
            event(0, 0, 1, Operation::Set(1)),
            event(1, 2, 3, Operation::Get(None)),
        ];
        assert!(!is_linearizable(&events));
    }

    #[test]
    fn a_value_that_comes_and_goes_is_refused() {
        let write = event(0, 0, 9, Operation::Set(1));
        let reads = [
            event(1, 2, 3, Operation::Get(Some(1))),
            event(1, 4, 5, Operation::Get(None)),
        ];
        assert!(!is_linearizable(&[write, reads[0], reads[1]]));
    }

    #[test]
    fn a_lost_increment_is_refused() {
        let events = [
            event(0, 0, 3, Operation::Increment(1)),
            event(1, 1, 2, Operation::Increment(1)),
        ];
        assert!(!is_linearizable(&events));
        let events = [
            event(0, 0, 3, Operation::Increment(2)),
            event(1, 1, 2, Operation::Increment(1)),
        ];
        assert!(is_linearizable(&events));
    }
}
