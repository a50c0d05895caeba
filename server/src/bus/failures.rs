//! [`Failures`]: what the log tells of connections of the bus that fail.
//!
//! A node that is not trusted tries again ten times a second, and a stranger as often as it likes: the log gets one line about each
//! cause in some time, and not more than one in a second about all of them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use crate::limits::{BUS_FAILURE_REPEATED_MS, TLS_FAILURES_TOLD_MS};
use crate::log::Level;
use crate::state::Node;

/// Failures of connections of the bus.
#[derive(Debug)]
pub(super) struct Failures {
    node: Arc<Node>,
    told: RefCell<Told>,
    /// Number of causes that were not told since the last line.
    untold: Cell<u64>,
}

/// Causes that were told not long ago, and when: milliseconds of the stopwatch, in ascending order. There are not many, because there is
/// only one in a second.
type Told = VecDeque<(String, u64)>;

impl Failures {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self {
            node,
            told: RefCell::default(),
            untold: Cell::new(0),
        }
    }

    /// Tells of a failure, unless its cause was told not long ago.
    pub(super) fn tell(&self, cause: String) {
        let now_ms = self.node.clock.elapsed_ns() / 1_000_000;
        if !may_tell(&mut self.told.borrow_mut(), &cause, now_ms) {
            self.untold.set(self.untold.get() + 1);
            self.node.log.write(Level::Debug, format_args!("{cause}"));
            return;
        }
        match self.untold.replace(0) {
            0 => self.node.log.warning(format_args!("{cause}")),
            untold => {
                let log = &self.node.log;
                log.warning(format_args!(
                    "{cause} ({untold} failures before it were not logged)"
                ));
            }
        }
    }
}

/// Whether a cause is told now; then it is noted.
fn may_tell(told: &mut Told, cause: &str, now_ms: u64) -> bool {
    let since = |ms: u64| now_ms.saturating_sub(ms);
    while told
        .front()
        .is_some_and(|&(_, ms)| since(ms) >= BUS_FAILURE_REPEATED_MS)
    {
        told.pop_front();
    }
    let is_early = told
        .back()
        .is_some_and(|&(_, ms)| since(ms) < TLS_FAILURES_TOLD_MS.cast_unsigned());
    if is_early || told.iter().any(|(known, _)| known == cause) {
        return false;
    }
    told.push_back((cause.to_owned(), now_ms));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once_in_a_while_and_all_together_not_often() {
        let mut told = Told::new();
        let mut tell = |cause: &str, now_ms| may_tell(&mut told, cause, now_ms);
        assert!(tell("a", 0));
        assert!(!tell("b", 999), "too soon after another line");
        assert!(tell("b", 1_000));
        assert!(!tell("a", 59_999) && tell("a", 60_000));
        for at in 61..500 {
            tell(&at.to_string(), at * 100);
        }
        assert!(told.len() <= 60, "{}", told.len());
    }
}
