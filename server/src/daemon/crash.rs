//! The report that a fatal signal leaves in the log (`crash-log-enabled`), before the process dies of that signal.
//!
//! The handler writes to the log's file directly, first what is known without further work, then the stack. To find the
//! names of a stack takes memory and locks, which the code that crashed may hold; so an alarm ends the process should that
//! never end. The handler runs on a stack of its own, large enough for that: [`guard_thread`] gives one to a thread.
//!
//! Why the unsafe code here is sound: the handler gets valid pointers from the kernel, reads plain numbers through them, and
//! shares nothing with other code but atomics and a value that is set once. The stack of a handler is never freed.

use std::backtrace::Backtrace;
use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, Write};
use std::mem;
use std::os::fd::FromRawFd;
use std::path::PathBuf;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The signals that mean a fault of this program.
const FATAL: [i32; 5] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGABRT,
];

/// Bytes of stack for a handler: the names of functions are found with many small buffers.
const STACK_BYTES: usize = 256 << 10;

/// Seconds after which a report that does not end is given up.
const REPORT_SECONDS_MAX: u32 = 10;

/// Whether a report is wanted.
static WANTED: AtomicBool = AtomicBool::new(true);
/// Whether a report is being written. A crash within it ends the process at once.
static UNDER_WAY: AtomicBool = AtomicBool::new(false);
/// The log's file; none for standard output.
static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();

/// Has crashes reported from now on, to this file or to standard output.
///
/// # Errors
/// What the system says.
pub(crate) fn report_crashes(file: Option<PathBuf>) -> io::Result<()> {
    let _ = FILE.set(file);
    guard_thread();
    let handler: extern "C" fn(i32, *const libc::siginfo_t, *const libc::c_void) = handle;
    for signal in FATAL {
        // SAFETY: all bytes zero are a valid value of this plain struct.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
        // SAFETY: the action is valid, and its handler has the signature that its flags announce.
        if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Says whether reports are wanted (`crash-log-enabled`).
pub(crate) fn set_reporting(wanted: bool) {
    WANTED.store(wanted, Ordering::Relaxed);
}

/// Gives the calling thread a stack on which a crash can be reported, also the crash of a stack that is full. It is never
/// taken back: threads of the program live about as long as the process.
pub(crate) fn guard_thread() {
    let memory = Box::leak(Box::<[u8; STACK_BYTES]>::new_uninit());
    let stack = libc::stack_t {
        ss_sp: memory.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: STACK_BYTES,
    };
    // SAFETY: the memory is never freed and used for nothing else. Should the system refuse it, a handler runs on the
    // stack that the thread has already.
    unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) };
}

/// Reports a signal and lets the process die of it: its action is the default one by now.
extern "C" fn handle(signal: i32, info: *const libc::siginfo_t, _: *const libc::c_void) {
    if WANTED.load(Ordering::Relaxed) && !UNDER_WAY.swap(true, Ordering::AcqRel) {
        // SAFETY: it takes a number.
        unsafe { libc::alarm(REPORT_SECONDS_MAX) };
        // A report that cannot be written is lost: there is nowhere to say so.
        let _ = report(signal, info);
    }
    // SAFETY: it takes a number. The signal is held back until this handler has returned.
    unsafe { libc::raise(signal) };
}

fn report(signal: i32, info: *const libc::siginfo_t) -> io::Result<()> {
    let mut file = match FILE.get().and_then(Option::as_ref) {
        Some(path) => OpenOptions::new().create(true).append(true).open(path)?,
        // SAFETY: nobody else owns the descriptor of standard output, and the process is about to end.
        None => unsafe { File::from_raw_fd(libc::STDOUT_FILENO) },
    };
    let mut head = Cursor::new([0; 1024]);
    begin(&mut head, signal, info)?;
    let length = head.position() as usize;
    file.write_all(&head.get_ref()[..length])?;
    write!(
        file,
        "thread: {}\n\n------ STACK TRACE ------\n{}\n",
        std::thread::current().name().unwrap_or("unnamed"),
        Backtrace::force_capture()
    )?;
    file.write_all(
        b"\n=== SHARDIS BUG REPORT END. Make sure to include from START to END. ===\n\n\
          Please report the crash with the text above, and what the server was asked to do.\n",
    )
}

/// Writes what can be said without memory of its own.
fn begin(out: &mut impl Write, signal: i32, info: *const libc::siginfo_t) -> io::Result<()> {
    // SAFETY: the kernel hands over a valid description of the signal.
    let info = unsafe { &*info };
    write!(
        out,
        "\n\n=== SHARDIS BUG REPORT START: Cut & paste starting from here ===\n\
         {}:M # shardis {} crashed by signal: {signal}, si_code: {}\n",
        std::process::id(),
        env!("CARGO_PKG_VERSION"),
        info.si_code
    )?;
    if info.si_code <= 0 {
        // SAFETY: a signal that a process sent names that process.
        let (pid, uid) = unsafe { (info.si_pid(), info.si_uid()) };
        return writeln!(out, "Killed by PID: {pid}, UID: {uid}");
    }
    // SAFETY: a fault of the processor names an address.
    let address = unsafe { info.si_addr() };
    writeln!(out, "Accessing address: {address:p}")
}
