//! The out-of-memory score, by which Linux chooses a process to kill when memory runs out (`oom-score-adj`).

use std::fs;
use std::io;

use crate::config::{OomScoreAdj, Settings};
use crate::log::Log;

/// File of a process's own score.
const FILE: &str = "/proc/self/oom_score_adj";

/// The scores that the kernel accepts.
const RANGE: std::ops::RangeInclusive<i32> = -1000..=1000;

/// The score of this process, and its value before the first change.
#[derive(Debug, Default)]
pub(crate) struct OomScore {
    /// The score before the first change; none if it was never changed.
    base: Option<i32>,
}

impl OomScore {
    /// Sets the score that the settings ask for, or restores the first one if they ask for none.
    ///
    /// # Errors
    /// The error of the system call, which is also logged.
    pub(crate) fn follow(&mut self, settings: &Settings, log: &Log) -> io::Result<()> {
        let outcome = self.set(settings.oom_score_adj, settings.oom_score_adj_values.0[0]);
        if let Err(error) = &outcome {
            log.warning(format_args!("Unable to write oom_score_adj: {error}"));
        }
        outcome
    }

    fn set(&mut self, mode: OomScoreAdj, value: i32) -> io::Result<()> {
        let Some(base) = (match mode {
            OomScoreAdj::No => self.base,
            _ => Some(self.base.map_or_else(read, Ok)?),
        }) else {
            return Ok(());
        };
        let score = match mode {
            OomScoreAdj::No => base,
            OomScoreAdj::Yes | OomScoreAdj::Relative => base + value,
            OomScoreAdj::Absolute => value,
        };
        let score = score.clamp(*RANGE.start(), *RANGE.end());
        if read()? != score {
            fs::write(FILE, score.to_string())?;
        }
        self.base = (mode != OomScoreAdj::No).then_some(base);
        Ok(())
    }
}

fn read() -> io::Result<i32> {
    let text = fs::read_to_string(FILE)?;
    text.trim().parse().map_err(io::Error::other)
}
