//! File descriptors of the process: for as many clients as configured, and for the server itself.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::{DESCRIPTORS_PER_LOOP, DESCRIPTORS_RESERVED};
use crate::log::Log;

/// Raises the limit of the process to a descriptor for each of `clients`, plus those of the server with so many
/// loops.
///
/// # Errors
/// When the system does not allow so many: then the limit is as high as allowed, and the error is the number of
/// clients that it suffices for.
pub(crate) fn allow(clients: u32, loops: usize, log: &Log) -> Result<(), u32> {
    let reserved = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_LOOP * loops as u64;
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
