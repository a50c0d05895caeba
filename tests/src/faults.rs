//! Faults of files: a program under test runs with the library of `preload/`, which makes its writes, syncs and renames in
//! one directory fail, wait, or kill it, and its clock jump, as the test says at any moment.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rand::RngExt as _;
use rand::rngs::SmallRng;
use tempfile::TempDir;

use crate::process::{Launch, repository_root};

#[path = "../preload/src/rule.rs"]
mod rule;

pub use rule::{Act, Fault, Operation};

/// The library, built when a test first needs it.
///
/// # Panics
/// When it cannot be built.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "--message-format=json",
                "-p",
                "shardis-preload",
            ])
            .current_dir(repository_root())
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo can be run");
        assert!(output.status.success(), "the library of faults cannot be built");
        let text = String::from_utf8_lossy(&output.stdout);
        let end = text.find("libshardis_preload.so\"").expect("a library") + "libshardis_preload.so".len();
        let start = text[..end].rfind('"').expect("its path") + 1;
        PathBuf::from(&text[start..end])
    })
}

/// A directory for the files of servers, and the faults that meet them there. It outlives the servers.
pub struct Faults {
    directory: TempDir,
    data: PathBuf,
}

impl Faults {
    /// An empty directory without faults.
    ///
    /// # Panics
    /// When there is no temporary directory.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        // The kernel names files by their paths without links.
        let path = directory.path().canonicalize().expect("its path");
        let data = path.join("data");
        fs::create_dir(&data).expect("a directory within");
        let faults = Self { directory, data };
        faults.set(&[]);
        faults
    }

    /// The directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Has a server keep its files here and meet the faults.
    #[must_use]
    pub fn apply(&self, launch: Launch) -> Launch {
        launch
            .with(&["--dir", &self.data.display().to_string()])
            .variable("LD_PRELOAD", &library().display().to_string())
            .variable("SHARDIS_FAULTS", &self.control().display().to_string())
            .variable("SHARDIS_FAULTS_DIRECTORY", &self.data.display().to_string())
    }

    fn control(&self) -> PathBuf {
        self.data.with_file_name("faults")
    }

    /// Replaces the faults; operations are counted anew.
    ///
    /// # Panics
    /// When the control file cannot be written.
    pub fn set(&self, faults: &[Fault]) {
        let mut text = String::new();
        for fault in faults {
            let _ = writeln!(text, "{fault}");
        }
        let written = self.directory.path().join("faults.new");
        fs::write(&written, text).expect("the control file");
        fs::rename(written, self.control()).expect("the control file");
    }

    /// Sets the wall clock of the server so many seconds forward, or back; durations are measured as before.
    ///
    /// # Panics
    /// When the file for that cannot be written.
    pub fn shift_clock(&self, seconds: i64) {
        let written = self.directory.path().join("clock.new");
        fs::write(&written, seconds.to_string()).expect("the file of the clock");
        fs::rename(written, self.control().with_extension("clock")).expect("the file of the clock");
    }

    /// Ends all faults.
    pub fn clear(&self) {
        self.set(&[]);
    }

    /// A line for each operation that met a fault so far: the fault, and the files in parentheses.
    #[must_use]
    pub fn fired(&self) -> Vec<String> {
        self.lines("fired")
    }

    fn lines(&self, kind: &str) -> Vec<String> {
        let text = fs::read_to_string(self.control().with_extension(kind)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Loses what a power failure may lose: of each file, a part of what was written since it was last synced. Only for files
    /// that are appended to, and when no server runs. Returns the number of bytes.
    ///
    /// # Panics
    /// When a file cannot be cut.
    pub fn lose_power(&self, rng: &mut SmallRng) -> u64 {
        let safe = self.safe_bytes();
        let mut lost = 0;
        for name in self.files() {
            let path = self.data.join(&name);
            let metadata = fs::metadata(&path).expect("a file");
            let (length, safe) = (metadata.len(), safe.get(&metadata.ino()).copied().unwrap_or(0));
            if length > safe {
                let kept = rng.random_range(safe..=length);
                lost += length - kept;
                let file = fs::File::options().write(true).open(&path).expect("a file");
                file.set_len(kept).expect("it can be cut");
            }
        }
        lost
    }

    /// Bytes of each file that were synced, by inode. A file that a server did not write is not among them.
    fn safe_bytes(&self) -> HashMap<u64, u64> {
        let number = |text: &str| text.parse().expect("a number");
        let lines = self.lines("synced");
        let pairs = lines.iter().filter_map(|line| line.split_once(' '));
        pairs
            .map(|(inode, bytes)| (number(inode), number(bytes)))
            .collect()
    }

    /// Names of the files, those of folders included, in order.
    ///
    /// # Panics
    /// When the directory cannot be read.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.data.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(name) = path.strip_prefix(&self.data) {
                    found.push(name.display().to_string());
                }
            }
        }
        found.sort();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_survive_being_written_down() {
        let acts = [
            Act::Fail(28),
            Act::Short(3),
            Act::Wait(10_000),
            Act::KillBefore,
            Act::KillAfter,
            Act::Space(4096),
        ];
        for act in acts {
            for fault in [
                Fault::always(Operation::SyncDirectory, "*", act),
                Fault::once(Operation::Write, "incr", 7, act),
            ] {
                assert_eq!(fault.to_string().parse(), Ok(fault));
            }
        }
        assert!("write * 1 0 fail".parse::<Fault>().is_err());
    }
}
