//! Histories of concurrent clients, and the check whether a single sequential server could have produced them.
//!
//! Every operation is recorded with the moments of its request and its reply, taken from one counter. A history is
//! linearizable if its operations can be ordered such that the order respects those moments and every reply is the
//! one that a single key would give. Since linearizability is local, each key is checked on its own.

use std::sync::atomic::{AtomicU64, Ordering};

use todc_utils::{Action, History, Specification, WGLChecker};

/// The counter that orders the moments of a history.
#[derive(Default)]
pub struct Moments(AtomicU64);

impl Moments {
    /// The next moment: later than all moments before it, on all threads.
    pub fn next(&self) -> u64 {
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
