//! STUB until `save` lands.
mod job;
pub(crate) use job::*;
#[derive(Debug, Default)]
pub(crate) struct Persistence;
impl Persistence {
    pub(crate) fn begin(&self, _job: Job, _now_us: i64) -> Result<u64, Refused> {
        Err(Refused {
            by: Purpose::Background,
        })
    }
    pub(crate) fn purpose(&self) -> Option<Purpose> {
        None
    }
    pub(crate) fn give_up(&self, _choose: impl Fn(Purpose) -> bool) -> bool {
        false
    }
}
// Data on disk: how it gets there and back.
//
// [`load`] reads files into partitions that nobody uses yet, away from the loops.

pub(crate) mod load;
