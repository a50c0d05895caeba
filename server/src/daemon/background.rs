//! The process in the background (`daemonize`), and without huge pages (`disable-thp`).
//!
//! Why the unsafe code here is sound: a fork duplicates the calling thread alone, so it is made only if there is no other one;
//! then the child may do whatever the parent may. The other calls take no memory of ours.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;

/// The processes that come out of a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Branch {
    /// The one that was started, and has nothing left to do.
    Parent,
    /// The one in the background.
    Child,
}

/// Goes on in a process of its own, away from the terminal and its session, with nothing to read and no output.
///
/// # Errors
/// What the system says, or that the process has other threads already; there is no other process then.
pub(crate) fn fork_to_background() -> io::Result<Branch> {
    if !is_single_threaded() {
        return Err(io::Error::other("there are other threads"));
    }
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    // SAFETY: this is the only thread.
    match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {}
        _ => return Ok(Branch::Parent),
    }
    // SAFETY: it takes no memory.
    if unsafe { libc::setsid() } == -1 {
        return Err(io::Error::last_os_error());
    }
    for standard in 0..3 {
        // SAFETY: both are descriptors of this process, and nobody owns the standard ones.
        if unsafe { libc::dup2(null.as_raw_fd(), standard) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(Branch::Child)
}

/// Whether the calling thread is the only one; also false where the system does not say.
pub(super) fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Has the kernel give this process no huge pages unasked.
///
/// # Errors
/// What the system says, or that it has no such setting.
#[cfg(target_os = "linux")]
pub(crate) fn forbid_huge_pages() -> io::Result<()> {
    // SAFETY: it takes numbers only.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Has the kernel give this process no huge pages unasked.
///
/// # Errors
/// That the system has no such setting.
#[cfg(not(target_os = "linux"))]
pub(crate) fn forbid_huge_pages() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
