//! Figures of the kernel about a process: CPU time of its threads, memory, the cores it may use.
//!
//! The division of CPU time into user and system time comes from `/proc/PID/stat`, in ticks of a hundredth of a second: over the rounds
//! of a row that is a few hundred of them.
//!
//! CPU time comes from `/proc/PID/task/TID/schedstat` (Linux, Documentation/scheduler/sched-stats.rst): the first number
//! is the time spent on a core, user and system together, in nanoseconds. The kernel brings it up to date when a thread
//! is switched out, so read it of threads that sleep; `/proc/PID/stat` would be current but counts in hundredths of a
//! second. A thread that ends takes its figure with it: neither server ends threads while it is measured.

use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

/// One thread of a process.
#[derive(Debug)]
pub struct Thread {
    /// Its id.
    pub id: u32,
    /// Its name, up to 15 bytes of it.
    pub name: String,
    /// Time on a core since the thread began.
    pub cpu: Duration,
}

/// The threads of process `pid`, by ascending id.
///
/// # Errors
/// The errors of the file system.
pub fn threads(pid: u32) -> Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let directory = task?.path();
        let schedstat = match fs::read_to_string(directory.join("schedstat")) {
            // The thread has ended since the directory was read.
            Err(error) if error.kind() == ErrorKind::NotFound && !directory.exists() => continue,
            other => other?,
        };
        let id = directory.file_name().and_then(|name| name.to_str()?.parse().ok());
        let nanoseconds = schedstat
            .split_ascii_whitespace()
            .next()
            .and_then(|number| number.parse().ok());
        let (Some(id), Some(nanoseconds)) = (id, nanoseconds) else {
            return Err(unreadable("schedstat"));
        };
        let name = fs::read_to_string(directory.join("comm"))
            .unwrap_or_default()
            .trim()
            .to_owned();
        threads.push(Thread {
            id,
            name,
            cpu: Duration::from_nanos(nanoseconds),
        });
    }
    threads.sort_by_key(|thread| thread.id);
    Ok(threads)
}

/// CPU time of all threads of `pid` together.
///
/// # Errors
/// The errors of the file system.
pub fn cpu(pid: u32) -> Result<Duration> {
    Ok(threads(pid)?.iter().map(|thread| thread.cpu).sum())
}

/// Ticks that a process spent in its own code and in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticks {
    /// In its own code.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
}

/// User and system time of all threads of `pid` so far, those that ended included.
///
/// # Errors
/// The errors of the file system.
pub fn ticks(pid: u32) -> Result<Ticks> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_ticks(&stat).ok_or_else(|| unreadable("stat"))
}

/// Reads fields 14 and 15; the second one, the program's name, may hold spaces and parentheses.
fn parse_ticks(stat: &str) -> Option<Ticks> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(Ticks {
        user: fields.next()?.parse().ok()?,
        system: fields.next()?.parse().ok()?,
    })
}

/// Resident memory of `pid` in bytes.
///
/// # Errors
/// The errors of the file system.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    bytes_of_status(pid, "VmRSS:")
}

/// The most resident memory that `pid` has had, in bytes.
///
/// # Errors
/// The errors of the file system.
pub fn resident_bytes_max(pid: u32) -> Result<u64> {
    bytes_of_status(pid, "VmHWM:")
}

/// Memory of `pid` and of its children, in bytes: pages that several of them share are divided among them.
///
/// # Errors
/// The errors of the file system.
pub fn family_bytes(pid: u32) -> Result<u64> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let children = children
        .split_ascii_whitespace()
        .filter_map(|child| child.parse().ok());
    // A child may end at any moment; its part is then that of the others.
    let of_children = children.filter_map(|child| proportional_bytes(child).ok());
    Ok(proportional_bytes(pid)? + of_children.sum::<u64>())
}

fn proportional_bytes(pid: u32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    kilobytes(&rollup, "Pss:")
}

fn bytes_of_status(pid: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    kilobytes(&status, name)
}

/// A field of such a file that is given in kilobytes, in bytes.
fn kilobytes(text: &str, name: &str) -> Result<u64> {
    let kilobytes = field(text, name).and_then(|text| text.strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes
        .map(|kilobytes| kilobytes * 1024)
        .ok_or_else(|| unreadable(name))
}

/// The cores this process may run on, ascending.
///
/// # Errors
/// The errors of the file system.
pub fn allowed_cores() -> Result<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status")?;
    field(&status, "Cpus_allowed_list:")
        .and_then(parse_list)
        .ok_or_else(|| unreadable("Cpus_allowed_list"))
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

/// Reads the kernel's list format: `0-3,8,10-11`.
fn parse_list(list: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(numbers)
}

/// The error for a file whose format is not the one documented.
#[must_use]
pub fn unreadable(what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidData,
        format!("{what} of /proc is not in the form expected"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists() {
        assert_eq!(parse_list("0-2,5,7-8"), Some(vec![0, 1, 2, 5, 7, 8]));
        assert_eq!(parse_list("3"), Some(vec![3]));
        assert_eq!(parse_list("a"), None);
    }

    #[test]
    fn user_and_system_time_stand_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 99 0 0 0 123 45 0 0 20 0 1 0 1";
        let ticks = Ticks {
            user: 123,
            system: 45,
        };
        assert_eq!(parse_ticks(stat), Some(ticks));
        assert_eq!(parse_ticks("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_threads_memory_and_cores() {
        let pid = std::process::id();
        assert!(!threads(pid).unwrap().is_empty());
        assert!(resident_bytes(pid).unwrap() > 100_000);
        assert!(family_bytes(pid).unwrap() > 100_000);
        assert!(!allowed_cores().unwrap().is_empty());
    }

    #[test]
    fn work_shows_as_cpu_time() {
        let pid = std::process::id();
        let before = cpu(pid).unwrap();
        std::hint::black_box((0..50_000_000_u64).map(std::hint::black_box).sum::<u64>());
        std::thread::sleep(Duration::from_millis(2));
        assert!(cpu(pid).unwrap() > before);
    }
}
