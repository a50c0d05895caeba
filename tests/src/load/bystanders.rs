//! Use of the machine by other programs: figures measured beside a compiler are worth little, and the report says so.

use std::fs;
use std::io::Result;
use std::time::Instant;

use shardis_tests::procfs::unreadable;

use super::now;

/// `/proc` counts these times in hundredths of a second on every architecture that a server runs on.
const TICKS_PER_SECOND: f64 = 100.0;
/// More than this, in cores, is worth a warning.
const CORES_WORTH_SAYING: f64 = 0.05;

/// A moment in the accounts of the machine and of this program.
pub(crate) struct Bystanders {
    at: Instant,
    machine_ticks: u64,
    own_ticks: u64,
}

impl Bystanders {
    /// Reads the accounts. Those of a server enter them when it has been stopped: read while none is running.
    pub(crate) fn read() -> Result<Self> {
        let machine_ticks = busy_ticks(&fs::read_to_string("/proc/stat")?);
        let own_ticks = own_ticks(&fs::read_to_string("/proc/self/stat")?);
        Ok(Self {
            at: now(),
            machine_ticks: machine_ticks.ok_or_else(|| unreadable("stat"))?,
            own_ticks: own_ticks.ok_or_else(|| unreadable("self/stat"))?,
        })
    }

    /// A warning if other programs, or other machines on this host, have used a noticeable part of a core since.
    pub(crate) fn warning(&self) -> Result<Option<String>> {
        let end = Self::read()?;
        let machine = end.machine_ticks.saturating_sub(self.machine_ticks);
        let others = machine.saturating_sub(end.own_ticks - self.own_ticks) as f64 / TICKS_PER_SECOND;
        let cores = others / (end.at - self.at).as_secs_f64();
        Ok((cores > CORES_WORTH_SAYING).then(|| {
            format!(
                "Others kept {cores:.2} cores busy meanwhile: on a quiet machine these figures are lower."
            )
        }))
    }
}

/// All of the machine's time (proc(5), `/proc/stat`) except idle and iowait, the fourth and fifth figure. Stolen time, the
/// eighth, is in it; guests' time, behind that, is already in the first two.
fn busy_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_ascii_whitespace()
        .take(8)
        .enumerate();
    fields.try_fold(0, |sum, (index, field)| {
        let ticks: u64 = field.parse().ok()?;
        Some(if index == 3 || index == 4 {
            sum
        } else {
            sum + ticks
        })
    })
}

/// The time of this process and of the children that have ended: fields 14 to 17 of `/proc/self/stat`, the name in
/// parentheses being the second.
fn own_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11).take(4);
    fields.try_fold(0, |sum, field| Some(sum + field.parse::<u64>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_the_right_ones() {
        assert_eq!(
            busy_ticks("cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 1\n"),
            Some(63)
        );
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 100 20 3 4000 0 0";
        assert_eq!(own_ticks(stat), Some(4123));
    }

    #[test]
    fn own_work_is_no_bystander() {
        let start = Bystanders {
            own_ticks: 0,
            machine_ticks: 0,
            ..Bystanders::read().unwrap()
        };
        assert!(
            start.warning().unwrap().is_some(),
            "all time since boot is much for an instant"
        );
        assert!(Bystanders::read().unwrap().own_ticks < u64::MAX);
    }
}
