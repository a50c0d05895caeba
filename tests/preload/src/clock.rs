//! UNSAFE. A wall clock that jumps: it is off by as many seconds as the file `<control>.clock` says, which a test may replace at
//! any moment. Clocks that measure durations are left alone, as on a machine whose time is set.

use std::sync::atomic::{AtomicI64, Ordering};

use libc::{c_int, c_void, clockid_t, time_t, timespec, timeval};

use crate::control::Control;
use crate::{errno, inside, set_errno};

/// Nanoseconds between two looks at the file.
const LOOK_NS: i64 = 5_000_000;

/// Seconds that the clock is off, and the time of the last look at the file.
static SHIFT_S: AtomicI64 = AtomicI64::new(0);
static LOOKED_NS: AtomicI64 = AtomicI64::new(i64::MIN);

/// Asks the system for a time.
fn ask(clock: clockid_t, time: *mut timespec) -> c_int {
    // SAFETY: the caller's structure is passed on.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int }
}

/// Seconds that the wall clock is off now.
fn shift() -> i64 {
    let mut now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    ask(libc::CLOCK_MONOTONIC, &raw mut now);
    let now_ns = now.tv_sec * 1_000_000_000 + now.tv_nsec;
    let looked_ns = LOOKED_NS.load(Ordering::Relaxed);
    if looked_ns == i64::MIN || now_ns - looked_ns > LOOK_NS {
        LOOKED_NS.store(now_ns, Ordering::Relaxed);
        let before = errno();
        if let Some(seconds) = inside(|| Control::get()?.clock_shift()) {
            SHIFT_S.store(seconds, Ordering::Relaxed);
        }
        set_errno(before);
    }
    SHIFT_S.load(Ordering::Relaxed)
}

/// # Safety
/// As `clock_gettime`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    let result = ask(clock, time);
    if result == 0 && (clock == libc::CLOCK_REALTIME || clock == libc::CLOCK_REALTIME_COARSE) {
        // SAFETY: the system has just written to it.
        unsafe { (*time).tv_sec += shift() };
    }
    result
}

/// # Safety
/// As `gettimeofday`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn gettimeofday(time: *mut timeval, zone: *mut c_void) -> c_int {
    // SAFETY: the caller's structures are passed on.
    let result = unsafe { libc::syscall(libc::SYS_gettimeofday, time, zone) } as c_int;
    if result == 0 && !time.is_null() {
        // SAFETY: the system has just written to it.
        unsafe { (*time).tv_sec += shift() };
    }
    result
}

/// # Safety
/// As `time`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn time(seconds: *mut time_t) -> time_t {
    let mut now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    ask(libc::CLOCK_REALTIME, &raw mut now);
    let found = now.tv_sec + shift();
    if !seconds.is_null() {
        // SAFETY: the caller vouches for it.
        unsafe { *seconds = found };
    }
    found
}
