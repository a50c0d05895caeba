//! Moves the process to the background (`daemonize`), and disables huge pages for it (`disable-thp`).
//!
//! Soundness of the unsafe code: a fork duplicates only the calling thread, so it is done only if there are no
//! others; then the child may do whatever the parent may. The other calls access no memory of this program.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;

/// The two processes after a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Branch {
    /// The process that was started, which has nothing left to do.
    Parent,
    /// The process in the background.
    Child,
}

/// Continues in a new process without terminal and session, whose standard input is empty and whose output is
/// discarded.
///
/// # Errors
/// The error of the system call, or that the process already has other threads; then there is no new process.
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

/// Whether the calling thread is the only one; also false where the system does not tell.
pub(super) fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Tells the kernel not to give this process transparent huge pages.
///
/// # Errors
/// The error of the system call, or that the system has no such setting.
#[cfg(target_os = "linux")]
pub(crate) fn forbid_huge_pages() -> io::Result<()> {
    // SAFETY: it takes numbers only.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Tells the kernel not to give this process transparent huge pages.
///
/// # Errors
/// Always: the system has no such setting.
#[cfg(not(target_os = "linux"))]
pub(crate) fn forbid_huge_pages() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
