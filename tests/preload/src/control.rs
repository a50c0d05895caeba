//! The control file, read anew whenever it was replaced, and what its faults do to an operation.
//!
//! Beside it, `<control>.fired` gets a line for each operation that a fault met, and `<control>.synced` one for each file
//! that was synced: its inode, which a rename does not change, and the size that is safe since then.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use crate::rule::{Act, Fault, Operation};

/// The variable that names the control file.
const CONTROL: &str = "SHARDIS_FAULTS";
/// The variable that names the directory under test.
const DIRECTORY: &str = "SHARDIS_FAULTS_DIRECTORY";

/// The faults of this process.
pub(crate) struct Control {
    directory: PathBuf,
    file: PathBuf,
    rules: Mutex<Rules>,
}

/// The faults of the control file.
#[derive(Default)]
struct Rules {
    /// Inode and time of the file they were read from.
    version: Option<(u64, i64, i64)>,
    rules: Vec<Rule>,
}

/// A fault, and what it has met so far.
struct Rule {
    fault: Fault,
    met: u64,
    /// Bytes that the disk has left.
    space: u64,
}

/// Fate of an operation.
#[derive(Default)]
pub(crate) struct Verdict {
    /// Error code of the system that the operation fails with.
    pub(crate) fails: Option<i32>,
    /// The most bytes that a write writes.
    pub(crate) bytes_max: Option<usize>,
    /// Time that the operation takes longer, milliseconds.
    pub(crate) wait_ms: u64,
    /// The process is killed before it.
    pub(crate) kills_before: bool,
    /// The process is killed after it.
    pub(crate) kills_after: bool,
}

impl Control {
    /// The faults of this process; none if it is not under test.
    pub(crate) fn get() -> Option<&'static Control> {
        static CONTROL_OF_PROCESS: OnceLock<Option<Control>> = OnceLock::new();
        let read = || {
            Some(Control {
                directory: std::env::var_os(DIRECTORY)?.into(),
                file: std::env::var_os(CONTROL)?.into(),
                rules: Mutex::default(),
            })
        };
        CONTROL_OF_PROCESS.get_or_init(read).as_ref()
    }

    /// Name of a file below the directory under test; none elsewhere.
    pub(crate) fn name<'a>(&self, path: &'a Path) -> Option<&'a str> {
        path.strip_prefix(&self.directory).ok()?.to_str()
    }

    /// Decides on an operation on a file, a write being of so many bytes.
    pub(crate) fn judge(&self, operation: Operation, names: &[&str], bytes: usize) -> Verdict {
        let mut verdict = Verdict::default();
        let Ok(mut rules) = self.rules.lock() else {
            return verdict;
        };
        rules.read(&self.file);
        for rule in &mut rules.rules {
            if rule.meets(operation, names) {
                rule.act_on(&mut verdict, bytes);
                self.note("fired", &format!("{} ({})", rule.fault, names.join(" ")));
            }
        }
        verdict
    }

    /// Seconds that the wall clock is off: those of the file for that, if there is one.
    pub(crate) fn clock_shift(&self) -> Option<i64> {
        let text = fs::read_to_string(self.file.with_extension("clock"));
        Some(text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0))
    }

    /// Appends a line to one of the files beside the control file.
    pub(crate) fn note(&self, kind: &str, line: &str) {
        let mut path = self.file.clone().into_os_string();
        path.push(format!(".{kind}"));
        if let Ok(mut file) = File::options().append(true).create(true).open(path) {
            // A test that needs the line fails without it.
            let _ = file.write_all(format!("{line}\n").as_bytes());
        }
    }
}

impl Rules {
    /// Reads the control file if it is another one than before.
    fn read(&mut self, path: &Path) {
        let Ok(metadata) = fs::metadata(path) else {
            return;
        };
        let version = Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()));
        if self.version == version {
            return;
        }
        self.version = version;
        let text = fs::read_to_string(path).unwrap_or_default();
        let faults = text.lines().filter_map(|line| line.parse::<Fault>().ok());
        self.rules = faults.map(Rule::new).collect();
    }
}

impl Rule {
    fn new(fault: Fault) -> Self {
        let space = match fault.act {
            Act::Space(bytes) => bytes,
            _ => 0,
        };
        Self { fault, met: 0, space }
    }

    /// Whether it is this operation's turn to fail; counts it.
    fn meets(&mut self, operation: Operation, names: &[&str]) -> bool {
        let Fault {
            operation: wanted,
            file,
            from,
            times,
            ..
        } = &self.fault;
        if *wanted != operation || !(file == "*" || names.iter().any(|name| name.contains(&**file))) {
            return false;
        }
        self.met += 1;
        self.met >= *from && (*times == 0 || self.met < from + times)
    }

    fn act_on(&mut self, verdict: &mut Verdict, bytes: usize) {
        match self.fault.act {
            Act::Fail(code) => verdict.fails = Some(code),
            Act::Short(most) => verdict.bytes_max = Some(most as usize),
            Act::Wait(milliseconds) => verdict.wait_ms += milliseconds,
            Act::KillBefore => verdict.kills_before = true,
            Act::KillAfter => verdict.kills_after = true,
            Act::Space(_) if self.space == 0 => verdict.fails = Some(libc::ENOSPC),
            Act::Space(_) => {
                let taken = self.space.min(bytes as u64);
                self.space -= taken;
                verdict.bytes_max = Some(taken as usize);
            }
        }
    }
}
