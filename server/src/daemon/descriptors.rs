//! File descriptors of the process: for as many clients as configured, and for the server itself.

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::{DESCRIPTORS_PER_LOOP, DESCRIPTORS_RESERVED};
use crate::log::Log;

/// Raises the limit of the process to a descriptor for each of `clients`, plus those of the server with so many
/// loops, and has the kernel make room for all of them.
///
/// # Errors
/// When the system does not allow so many: then the limit is as high as allowed, and the error is the number of
/// clients that it suffices for.
pub(crate) fn allow(clients: u32, loops: usize, log: &Log) -> Result<(), u32> {
    let reserved = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_LOOP * loops as u64;
    let raised = raise(clients, reserved, log);
    let allowed = raised.err().unwrap_or(clients);
    if let Err(error) = enlarge_table(u64::from(allowed) + reserved) {
        log.verbose(format_args!(
            "The table of open files grows as clients come: {error}"
        ));
    }
    raised
}

/// Has the kernel enlarge the process's table of open files to so many descriptors.
///
/// The table doubles whenever it is full. In a process of several threads each time waits until no processor can look at the
/// old one: up to a third of a second on a busy machine, for which a loop that lets a client in would be deaf. Before
/// threads are started there is no wait.
fn enlarge_table(descriptors: u64) -> std::io::Result<()> {
    let last = i32::try_from(descriptors - 1).map_err(std::io::Error::other)?;
    // The copy has the last number, and goes at once.
    fcntl_dupfd_cloexec(std::io::stderr(), last)?;
    Ok(())
}

/// Raises the limit, as [`allow`] says.
fn raise(clients: u32, reserved: u64, log: &Log) -> Result<(), u32> {
    let wanted = u64::from(clients) + reserved;
    let before = getrlimit(Resource::Nofile);
    // `None` means unlimited.
    let is_enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= wanted);
    if is_enough(before.current) {
        return Ok(());
    }
    let maximum = if is_enough(before.maximum) {
        before.maximum
    } else {
        Some(wanted)
    };
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(wanted),
            maximum,
        },
    );
    let Err(error) = raised else {
        log.notice(format_args!(
            "Increased maximum number of open files to {wanted} (it was originally set to {}).",
            before.current.unwrap_or_default()
        ));
        return Ok(());
    };
    log.warning(format_args!(
        "You requested maxclients of {clients} requiring at least {wanted} max file descriptors."
    ));
    log.warning(format_args!(
        "Server can't set maximum open files to {wanted} because of OS error: {error}."
    ));
    // The highest limit that the process may set itself.
    let best = Rlimit {
        current: before.maximum,
        ..before
    };
    let allowed = match setrlimit(Resource::Nofile, best) {
        Ok(()) => before.maximum,
        Err(_) => before.current,
    };
    // A limit that does not suffice is lower than what was wanted.
    let possible = allowed.map_or(0, |allowed| allowed - allowed.min(reserved));
    Err(u32::try_from(possible).map_or(clients, |possible| possible.min(clients)))
}
