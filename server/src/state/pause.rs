//! [`Pause`]: the hold on commands by CLIENT PAUSE, and by the node itself.

use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

bitflags::bitflags! {
    /// Causes for which the node itself holds back writes, for as long as they last.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct PauseCauses: u8 {
        /// The node stops when replicas have everything.
        const SHUTDOWN = 1;
        /// A replica takes the node's place when it has everything.
        const FAILOVER = 2;
    }
}

/// State of CLIENT PAUSE, its end and the commands it holds back, and of what the node itself holds back.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    until_ms: AtomicI64,
    mode: AtomicU8,
    causes: AtomicU8,
}

/// Commands that a pause holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PauseMode {
    /// Writes, and commands that may replicate.
    Write,
    /// All commands.
    All,
}

impl Pause {
    /// Begins a pause, or extends one: the later end and the stricter mode win.
    pub(crate) fn begin(&self, mode: PauseMode, until_ms: i64, now_ms: i64) {
        let running = self.asked(now_ms);
        let mode = running.map_or(mode, |(running, _)| running.max(mode));
        let until_ms = running.map_or(until_ms, |(_, running)| running.max(until_ms));
        self.mode.store(mode as u8, Ordering::Release);
        self.until_ms.store(until_ms, Ordering::Release);
    }

    /// Ends the pause that clients have asked for.
    pub(crate) fn end(&self) {
        self.until_ms.store(0, Ordering::Release);
    }

    /// Holds back writes for a cause, until that is over.
    pub(crate) fn hold(&self, cause: PauseCauses) {
        self.causes.fetch_or(cause.bits(), Ordering::AcqRel);
    }

    /// Notes that a cause is over. The caller rings the loops.
    pub(crate) fn release(&self, cause: PauseCauses) {
        self.causes.fetch_and(!cause.bits(), Ordering::AcqRel);
    }

    /// Causes for which the node itself holds back writes.
    pub(crate) fn causes(&self) -> PauseCauses {
        PauseCauses::from_bits_retain(self.causes.load(Ordering::Acquire))
    }

    /// The running pause: its mode and its end in Unix milliseconds.
    #[inline]
    pub(crate) fn active(&self, now_ms: i64) -> Option<(PauseMode, i64)> {
        let asked = self.asked(now_ms);
        if self.causes.load(Ordering::Acquire) == 0 {
            return asked;
        }
        Some((asked.map_or(PauseMode::Write, |(mode, _)| mode), i64::MAX))
    }

    /// The pause that clients have asked for.
    #[inline]
    fn asked(&self, now_ms: i64) -> Option<(PauseMode, i64)> {
        let until_ms = self.until_ms.load(Ordering::Acquire);
        if until_ms <= now_ms {
            return None;
        }
        let all = self.mode.load(Ordering::Acquire) == PauseMode::All as u8;
        Some((if all { PauseMode::All } else { PauseMode::Write }, until_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_only_ever_extended() {
        let pause = Pause::default();
        assert_eq!(pause.active(10), None);
        pause.begin(PauseMode::All, 100, 10);
        pause.begin(PauseMode::Write, 50, 20);
        assert_eq!(pause.active(60), Some((PauseMode::All, 100)));
        assert_eq!(pause.active(100), None);
        pause.begin(PauseMode::Write, 200, 150);
        assert_eq!(pause.active(160), Some((PauseMode::Write, 200)));
        pause.end();
        assert_eq!(pause.active(160), None);
    }

    #[test]
    fn a_cause_of_the_node_is_beside_what_clients_ask_for() {
        let pause = Pause::default();
        pause.hold(PauseCauses::SHUTDOWN);
        assert_eq!(pause.active(10), Some((PauseMode::Write, i64::MAX)));
        pause.begin(PauseMode::All, 100, 10);
        assert_eq!(pause.active(50), Some((PauseMode::All, i64::MAX)));
        pause.end();
        assert_eq!(pause.active(50), Some((PauseMode::Write, i64::MAX)));
        pause.begin(PauseMode::Write, 100, 50);
        pause.release(PauseCauses::SHUTDOWN);
        assert_eq!(pause.active(60), Some((PauseMode::Write, 100)));
        assert_eq!(pause.causes(), PauseCauses::empty());
    }
}
