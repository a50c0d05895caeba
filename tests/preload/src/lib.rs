//! UNSAFE. File operations of a program under test, in place of the C library's: started with this library in `LD_PRELOAD`, a
//! program's writes, syncs, renames… below a directory fail, wait, or kill it, as a control file says (`rule.rs`), and its wall
//! clock jumps (`clock.rs`).
//!
//! `SHARDIS_FAULTS` names the control file, which a test may replace at any time, and `SHARDIS_FAULTS_DIRECTORY` the directory.
//! The functions have the names of the C library's, so that the dynamic linker finds them first; what they do themselves is a
//! system call. Calls that the C library makes within itself, as `fwrite` does, and programs that make system calls of their
//! own are not seen.
//!
//! The obligations of each function are those of the C library's function of that name, which its callers meet.

#[cfg(not(target_os = "linux"))]
compile_error!("the functions here are those of Linux");

mod clock;
mod control;
pub mod rule;

use std::cell::Cell;
use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use libc::{c_char, c_int, c_long, c_uint, c_void, iovec, mode_t, off_t, size_t, ssize_t};

use control::{Control, Verdict};
use rule::Operation;

thread_local! {
    /// This thread is within the library: its own file operations are nobody's business.
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with the library's own file operations unseen; none if that is so already.
fn inside<T>(work: impl FnOnce() -> Option<T>) -> Option<T> {
    if IS_INSIDE.replace(true) {
        return None;
    }
    let result = work();
    IS_INSIDE.set(false);
    result
}

fn set_errno(code: c_int) {
    // SAFETY: the C library gives the address of this thread's variable.
    unsafe { *libc::__errno_location() = code }
}

fn errno() -> c_int {
    // SAFETY: as in `set_errno`.
    unsafe { *libc::__errno_location() }
}

fn kill_this_process() -> ! {
    loop {
        // SAFETY: it takes no pointers.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

/// Kind of file behind a descriptor.
fn kind(fd: c_int) -> Option<mode_t> {
    // SAFETY: all bits zero are a value of this structure.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the structure may be written to.
    let done = unsafe { libc::fstat(fd, &raw mut stat) };
    (done == 0).then_some(stat.st_mode & libc::S_IFMT)
}

/// Path of the regular file, or directory, behind a descriptor.
fn path_of(fd: c_int, wanted: mode_t) -> Option<PathBuf> {
    if kind(fd)? != wanted {
        return None;
    }
    fs::read_link(format!("/proc/self/fd/{fd}")).ok()
}

/// The path that a system call with a directory and a path means.
fn resolve(directory: c_int, path: *const c_char) -> Option<PathBuf> {
    if path.is_null() {
        return None;
    }
    // SAFETY: the caller's path ends with a zero, as the C library demands.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
    if path.is_absolute() {
        return Some(path.to_owned());
    }
    let base = if directory == libc::AT_FDCWD {
        std::env::current_dir().ok()?
    } else {
        path_of(directory, libc::S_IFDIR)?
    };
    Some(base.join(path))
}

/// The verdict on an operation on files, if one of them is below the directory under test. What has to happen before the operation
/// has happened.
fn judge(operation: Operation, paths: impl FnOnce() -> Vec<PathBuf>, bytes: usize) -> Option<Verdict> {
    let before = errno();
    let verdict = inside(|| {
        let control = Control::get()?;
        let paths = paths();
        let names: Vec<&str> = paths.iter().filter_map(|path| control.name(path)).collect();
        if names.is_empty() {
            return None;
        }
        let verdict = control.judge(operation, &names, bytes);
        if verdict.wait_ms > 0 {
            sleep(Duration::from_millis(verdict.wait_ms));
        }
        Some(verdict)
    });
    set_errno(before);
    if verdict.as_ref().is_some_and(|verdict| verdict.kills_before) {
        kill_this_process();
    }
    verdict
}

/// Does an operation under a verdict.
fn carry_out(verdict: Option<Verdict>, call: impl FnOnce(Option<usize>) -> c_long) -> c_long {
    let Some(verdict) = verdict else {
        return call(None);
    };
    if let Some(code) = verdict.fails {
        set_errno(code);
        return -1;
    }
    let result = call(verdict.bytes_max);
    if verdict.kills_after {
        kill_this_process();
    }
    result
}

/// An operation on a descriptor of a regular file.
fn on_file(
    operation: Operation,
    fd: c_int,
    bytes: usize,
    call: impl FnOnce(Option<usize>) -> c_long,
) -> c_long {
    let paths = || path_of(fd, libc::S_IFREG).into_iter().collect();
    carry_out(judge(operation, paths, bytes), call)
}

/// An operation on files by their paths.
fn on_paths(operation: Operation, paths: &[(c_int, *const c_char)], call: impl FnOnce() -> c_long) -> c_long {
    let resolved = || {
        let paths = paths.iter();
        paths
            .filter_map(|&(directory, path)| resolve(directory, path))
            .collect()
    };
    carry_out(judge(operation, resolved, 0), |_| call())
}

/// A sync of a file or a directory, which is noted when it is done.
fn sync(fd: c_int, call: impl FnOnce() -> c_long) -> c_long {
    if kind(fd) == Some(libc::S_IFDIR) {
        let paths = || path_of(fd, libc::S_IFDIR).into_iter().collect();
        return carry_out(judge(Operation::SyncDirectory, paths, 0), |_| call());
    }
    // Bytes that are written while it runs may not be safe.
    let safe = inside(|| {
        let path = path_of(fd, libc::S_IFREG)?;
        let metadata = fs::metadata(&path).ok()?;
        Some((metadata.ino(), metadata.len(), path))
    });
    on_file(Operation::Sync, fd, 0, |_| {
        let result = call();
        if let (0, Some((inode, size, path))) = (result, safe) {
            note(|control| control.name(&path).map(|_| format!("{inode} {size}")));
        }
        result
    })
}

/// Notes what is safe from a loss of power.
fn note(line: impl FnOnce(&Control) -> Option<String>) {
    let before = errno();
    inside(|| {
        let control = Control::get()?;
        control.note("synced", &line(control)?);
        Some(())
    });
    set_errno(before);
}

fn opened(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    on_paths(Operation::Open, &[(directory, path)], || {
        // SAFETY: the caller's path and flags are passed on.
        unsafe { libc::syscall(libc::SYS_openat, directory, path, flags, mode) }
    }) as c_int
}

/// # Safety
/// As `open`. The mode is a variable argument there; on Linux it is passed like a fixed one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    opened(libc::AT_FDCWD, path, flags, mode)
}

/// # Safety
/// As `open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    opened(libc::AT_FDCWD, path, flags | libc::O_LARGEFILE, mode)
}

/// # Safety
/// As `openat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat(fd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    opened(fd, path, flags, mode)
}

/// # Safety
/// As `openat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat64(fd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    opened(fd, path, flags | libc::O_LARGEFILE, mode)
}

/// # Safety
/// As `write`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, count: size_t) -> ssize_t {
    on_file(Operation::Write, fd, count, |most| {
        let count = most.unwrap_or(count).min(count);
        // SAFETY: no more than what the caller vouches for.
        unsafe { libc::syscall(libc::SYS_write, fd, bytes, count) }
    }) as ssize_t
}

/// # Safety
/// As `writev`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller vouches for so many parts.
    let slices = unsafe { std::slice::from_raw_parts(parts, count as usize) };
    let bytes = slices.iter().map(|part| part.iov_len).sum();
    on_file(Operation::Write, fd, bytes, |most| match (most, slices.first()) {
        (Some(most), Some(first)) if most < bytes => {
            let count = most.min(first.iov_len);
            // SAFETY: no more than the first of the caller's parts.
            unsafe { libc::syscall(libc::SYS_write, fd, first.iov_base, count) }
        }
        // SAFETY: the caller's parts are passed on.
        _ => unsafe { libc::syscall(libc::SYS_writev, fd, parts, count) },
    }) as ssize_t
}

fn written_at(fd: c_int, bytes: *const c_void, count: size_t, at: off_t) -> ssize_t {
    on_file(Operation::Write, fd, count, |most| {
        let count = most.unwrap_or(count).min(count);
        // SAFETY: no more than what the caller vouches for.
        unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, count, at) }
    }) as ssize_t
}

/// # Safety
/// As `pwrite`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite(fd: c_int, bytes: *const c_void, count: size_t, at: off_t) -> ssize_t {
    written_at(fd, bytes, count, at)
}

/// # Safety
/// As `pwrite`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, count: size_t, at: off_t) -> ssize_t {
    written_at(fd, bytes, count, at)
}

/// # Safety
/// As `fsync`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    // SAFETY: it takes no pointers.
    sync(fd, || unsafe { libc::syscall(libc::SYS_fsync, fd) }) as c_int
}

/// # Safety
/// As `fdatasync`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: it takes no pointers.
    sync(fd, || unsafe { libc::syscall(libc::SYS_fdatasync, fd) }) as c_int
}

/// # Safety
/// As `sync_file_range`. It promises nothing about a crash, so that nothing is noted as safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sync_file_range(fd: c_int, from: off_t, bytes: off_t, flags: c_uint) -> c_int {
    on_file(Operation::Sync, fd, 0, |_| {
        // SAFETY: it takes no pointers.
        unsafe { libc::syscall(libc::SYS_sync_file_range, fd, from, bytes, flags) }
    }) as c_int
}

fn renamed(from: (c_int, *const c_char), to: (c_int, *const c_char), flags: c_uint) -> c_int {
    on_paths(Operation::Rename, &[from, to], || {
        // SAFETY: the caller's paths and flags are passed on.
        unsafe { libc::syscall(libc::SYS_renameat2, from.0, from.1, to.0, to.1, flags) }
    }) as c_int
}

/// # Safety
/// As `rename`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    renamed((libc::AT_FDCWD, from), (libc::AT_FDCWD, to), 0)
}

/// # Safety
/// As `renameat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn renameat(
    from_directory: c_int,
    from: *const c_char,
    to_directory: c_int,
    to: *const c_char,
) -> c_int {
    renamed((from_directory, from), (to_directory, to), 0)
}

/// # Safety
/// As `renameat2`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn renameat2(
    from_directory: c_int,
    from: *const c_char,
    to_directory: c_int,
    to: *const c_char,
    flags: c_uint,
) -> c_int {
    renamed((from_directory, from), (to_directory, to), flags)
}

/// # Safety
/// As `unlink`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    on_paths(Operation::Unlink, &[(libc::AT_FDCWD, path)], || {
        // SAFETY: the caller's path is passed on.
        unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) }
    }) as c_int
}

/// # Safety
/// As `close`. Where it fails, the descriptor is closed all the same, as Linux does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    let paths = || path_of(fd, libc::S_IFREG).into_iter().collect();
    let verdict = judge(Operation::Close, paths, 0);
    if verdict.as_ref().is_some_and(|verdict| verdict.fails.is_some()) {
        // SAFETY: it takes no pointers.
        unsafe { libc::syscall(libc::SYS_close, fd) };
    }
    // SAFETY: it takes no pointers.
    carry_out(verdict, |_| unsafe { libc::syscall(libc::SYS_close, fd) }) as c_int
}

fn truncated(fd: c_int, length: off_t) -> c_int {
    on_file(Operation::Truncate, fd, 0, |_| {
        // SAFETY: it takes no pointers.
        unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) }
    }) as c_int
}

/// # Safety
/// As `ftruncate`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate(fd: c_int, length: off_t) -> c_int {
    truncated(fd, length)
}

/// # Safety
/// As `ftruncate`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate64(fd: c_int, length: off_t) -> c_int {
    truncated(fd, length)
}
