//! [`Failover`]: the handover of a primary's role to one of its replicas, which FAILOVER asks for.
//!
//! It has two stages. In the first one writes are held back, until a replica has acknowledged all that there is. Then the node becomes the
//! replica of that one, and asks it, by `PSYNC … FAILOVER`, to be the primary. The steps are in `state/failover.rs`.

use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// The handover of the node's role.
#[derive(Debug, Default)]
pub(crate) struct Failover {
    /// Its stage, for those who do not need more.
    stage: AtomicU8,
    asked: Mutex<Option<Asked>>,
}

/// Stage of a handover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FailoverStage {
    /// There is none.
    None,
    /// A replica is to have everything first.
    WaitsForSync,
    /// The node follows the target, and asks it to be the primary.
    UnderWay,
}

/// The wish for a handover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Address and port of the replica that is to be the primary; none until one is chosen.
    pub(crate) target: Option<(String, i64)>,
    /// Number of the fence behind which no write is under way any more.
    pub(crate) fence: u64,
    /// Time for each of the stages, microseconds; none for no limit.
    pub(crate) timeout_us: Option<i64>,
    /// The handover goes on at the end of that time, whatever the replica has.
    pub(crate) insists: bool,
    /// End of the time for the present stage, Unix microseconds.
    pub(crate) until_us: Option<i64>,
    /// The target was asked to be the primary, and may be.
    pub(crate) was_told: bool,
}

impl FailoverStage {
    /// Its name in INFO.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "no-failover",
            Self::WaitsForSync => "waiting-for-sync",
            Self::UnderWay => "failover-in-progress",
        }
    }
}

impl Failover {
    /// The stage that it has reached.
    pub(crate) fn stage(&self) -> FailoverStage {
        match self.stage.load(Ordering::Acquire) {
            0 => FailoverStage::None,
            1 => FailoverStage::WaitsForSync,
            _ => FailoverStage::UnderWay,
        }
    }

    /// The wish; the stage changes only while this is held.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<Asked>> {
        self.asked.lock()
    }

    /// Notes the stage, which belongs to the wish that the caller holds.
    pub(crate) fn enter(&self, stage: FailoverStage, asked: &mut Option<Asked>) {
        if stage == FailoverStage::None {
            *asked = None;
        }
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// Notes that the target is asked to be the primary. Returns whether it was asked before, without an answer that came.
    pub(crate) fn note_told(&self) -> bool {
        let mut asked = self.asked.lock();
        asked
            .as_mut()
            .is_some_and(|asked| std::mem::replace(&mut asked.was_told, true))
    }
}
