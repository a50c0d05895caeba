//! Crash reports: a fatal signal leaves a report in the log (`crash-log-enabled`) before the process dies of it.
//!
//! The handler writes directly to the log file, first the facts that need no further work, then the stack. Resolving
//! the names of a stack takes memory and locks, which the crashed code may hold; an alarm ends the process if that
//! never finishes. Of INFO it tells what needs neither a lock nor a partition. Of connections it lists those of the loop
//! that crashed, and the commands that this loop was running: those of other loops change meanwhile. The handler runs on
//! a stack of its own, large enough for this: [`guard_thread`] gives one to a thread.
//!
//! Soundness of the unsafe code: the handler gets valid pointers from the kernel, reads plain numbers through them,
//! and shares with other code only atomics and a value that is set once. The stack of a handler is never freed. A
//! [`Witness`] lives for as long as it is called on its thread, and the handler runs on that thread, which does nothing
//! else meanwhile. The crashed code may have left it half changed: that is the last part of a report, and a second fault
//! ends the process.

use std::backtrace::Backtrace;
use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, Write};
use std::mem;
use std::os::fd::FromRawFd;
use std::path::PathBuf;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The signals that indicate a fault of this program.
const FATAL: [i32; 5] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGABRT,
];

/// Size of a handler's stack, bytes: resolving the names of functions takes many small buffers.
const STACK_BYTES: usize = 256 << 10;

/// Seconds after which an unfinished report is abandoned.
const REPORT_SECONDS_MAX: u32 = 10;

/// Whether crashes are reported.
static WANTED: AtomicBool = AtomicBool::new(true);
/// Whether reports leave out what clients have sent.
static HIDES: AtomicBool = AtomicBool::new(false);
/// Whether a report is being written. A crash during a report ends the process at once.
static UNDER_WAY: AtomicBool = AtomicBool::new(false);
/// Describes the node for a report, without waiting for locks.
static DESCRIPTION: OnceLock<Box<dyn Fn() -> String + Send + Sync>> = OnceLock::new();
/// The log file; none for standard output.
static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();

thread_local! {
    /// The loop of this thread.
    static LOOP: Cell<Option<Testimony>> = const { Cell::new(None) };
    /// The commands that this thread is running.
    static COMMANDS: Cell<Option<Testimony>> = const { Cell::new(None) };
}

/// State of a thread that a report describes when the thread crashes.
pub(crate) trait Witness {
    /// Elements beside it that the description is about.
    type Item;

    /// The description. It may allocate, but must not wait for a lock.
    fn testify(&self, items: &[Self::Item]) -> String;
}

/// A witness, and the function that reads it.
#[derive(Clone, Copy, Debug)]
struct Testimony {
    witness: *const (),
    items: *const (),
    count: usize,
    read: unsafe fn(*const (), *const (), usize) -> String,
}

/// The call of a witness. Dropping it ends the call.
#[derive(Debug)]
pub(crate) struct Called {
    place: &'static std::thread::LocalKey<Cell<Option<Testimony>>>,
    before: Option<Testimony>,
}

impl Called {
    #[inline]
    fn to<W: Witness>(
        place: &'static std::thread::LocalKey<Cell<Option<Testimony>>>,
        witness: *const W,
        items: *const [W::Item],
    ) -> Self {
        let testimony = Testimony {
            witness: witness.cast(),
            items: items.cast(),
            count: items.len(),
            read: read::<W>,
        };
        Self {
            place,
            before: place.replace(Some(testimony)),
        }
    }
}

impl Drop for Called {
    #[inline]
    fn drop(&mut self) {
        self.place.set(self.before);
    }
}

/// Calls the loop of this thread as a witness, which lives for as long as the call.
pub(crate) fn call_loop<W: Witness>(witness: *const W) -> Called {
    let nothing: &[W::Item] = &[];
    Called::to(&LOOP, witness, nothing)
}

/// Calls the commands that this thread runs as a witness, which lives for as long as the call, as do the items.
#[inline]
pub(crate) fn call_commands<W: Witness>(witness: *const W, items: *const [W::Item]) -> Called {
    Called::to(&COMMANDS, witness, items)
}

/// Reads a witness.
///
/// # Safety
/// The pointers are those of a witness of this type and of its items, which this thread has called.
unsafe fn read<W: Witness>(witness: *const (), items: *const (), count: usize) -> String {
    // SAFETY: as above.
    let witness = unsafe { &*witness.cast::<W>() };
    // SAFETY: as above.
    witness.testify(unsafe { std::slice::from_raw_parts(items.cast(), count) })
}

/// The description of what this thread has at a place; none without a witness.
fn testimony(place: &'static std::thread::LocalKey<Cell<Option<Testimony>>>) -> Option<String> {
    let Testimony {
        witness,
        items,
        count,
        read,
    } = place.get()?;
    // SAFETY: a witness is called only while it lives, with its items, and by its thread.
    Some(unsafe { read(witness, items, count) })
}

/// Installs the handler, which reports to this file or to standard output.
///
/// # Errors
/// The error of the system call.
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

/// Sets whether crashes are reported (`crash-log-enabled`).
pub(crate) fn set_reporting(wanted: bool) {
    WANTED.store(wanted, Ordering::Relaxed);
}

/// Sets whether reports leave out what clients have sent (`hide-user-data-from-log`).
pub(crate) fn set_hiding(wanted: bool) {
    HIDES.store(wanted, Ordering::Relaxed);
}

/// Whether reports leave out what clients have sent.
pub(crate) fn hides_data() -> bool {
    HIDES.load(Ordering::Relaxed)
}

/// Sets what describes the node in a report. It may allocate, as the stack's names do, but must not wait for a lock.
pub(crate) fn describe_by(describe: impl Fn() -> String + Send + Sync + 'static) {
    let _ = DESCRIPTION.set(Box::new(describe));
}

/// Gives the calling thread a stack for crash reports, which also works when the thread's own stack is full. It is
/// never freed: threads of the program live about as long as the process.
pub(crate) fn guard_thread() {
    let memory = Box::leak(Box::<[u8; STACK_BYTES]>::new_uninit());
    let stack = libc::stack_t {
        ss_sp: memory.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: STACK_BYTES,
    };
    // SAFETY: the memory is never freed, and used for nothing else. If the system refuses it, handlers run on the
    // thread's own stack.
    unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) };
}

/// Handles a signal: reports it, then lets the process die of it, as its action is the default one again.
extern "C" fn handle(signal: i32, info: *const libc::siginfo_t, _: *const libc::c_void) {
    if WANTED.load(Ordering::Relaxed) && !UNDER_WAY.swap(true, Ordering::AcqRel) {
        // SAFETY: it takes a number.
        unsafe { libc::alarm(REPORT_SECONDS_MAX) };
        // A report that cannot be written is lost.
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
    if let Some(describe) = DESCRIPTION.get() {
        write!(file, "\n------ INFO OUTPUT ------\n{}", describe())?;
    }
    if let Some(commands) = testimony(&COMMANDS) {
        write!(file, "\n------ CURRENT CLIENT INFO ------\n{commands}")?;
    }
    if let Some(clients) = testimony(&LOOP) {
        write!(file, "\n------ CLIENT LIST OUTPUT ------\n{clients}")?;
    }
    file.write_all(
        b"\n=== SHARDIS BUG REPORT END. Make sure to include from START to END. ===\n\n\
          Please report the crash with the text above, and what the server was asked to do.\n",
    )
}

/// Writes the part of a report that needs no allocation.
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
