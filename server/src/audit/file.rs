//! [`AuditFile`]: the file that the audit log is appended to.
//!
//! Before something is written, the file is opened anew if its path names another one by now, so that it can be rotated under a running
//! node. A line is in the file whole or not at all: what a write that failed has left of a line is cut off again.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

/// Wait before another try to write to a pipe that is full.
const PIPE_STEP: Duration = Duration::from_millis(10);

/// Mode of a new file: it names users, keys and addresses.
const MODE: u32 = 0o640;

/// The file that the audit log is appended to.
#[derive(Debug, Default)]
pub(super) struct AuditFile {
    file: Option<File>,
    /// Part of a line stands at the end of the file, and could not be cut off.
    is_torn: bool,
}

impl AuditFile {
    /// Opens the file of a path. A pipe must have a reader: waiting for one would hold up the caller.
    pub(super) fn open(&mut self, path: &Path) -> io::Result<()> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(MODE)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        self.file = Some(file);
        self.is_torn = false;
        Ok(())
    }

    /// Appends lines, of which each ends at one of the offsets `ends`. Returns the number of lines that are in the file then, and the
    /// error that kept the others out.
    pub(super) fn append(
        &mut self,
        path: &Path,
        bytes: &[u8],
        ends: &[usize],
        gives_up: impl Fn() -> bool,
    ) -> (usize, io::Result<()>) {
        if let Err(error) = self.renew(path) {
            return (0, Err(error));
        }
        let (written, result) = self.write(bytes, gives_up);
        let whole = ends.partition_point(|&end| end <= written);
        let torn = written - whole.checked_sub(1).map_or(0, |last| ends[last]);
        if torn > 0 {
            self.cut(torn);
        }
        (whole, result)
    }

    /// Opens the file anew if there is none, or its path names another one.
    fn renew(&mut self, path: &Path) -> io::Result<()> {
        let place = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let own = self.file.as_ref().map(File::metadata).transpose()?.map(place);
        let named = std::fs::metadata(path).map(place).ok();
        if own.is_some() && own == named {
            return Ok(());
        }
        self.open(path)
    }

    /// Writes bytes, and returns the number of those that were written.
    fn write(&mut self, bytes: &[u8], gives_up: impl Fn() -> bool) -> (usize, io::Result<()>) {
        let Some(file) = &mut self.file else {
            return (0, Err(ErrorKind::NotFound.into()));
        };
        if self.is_torn {
            match file.write(b"\n") {
                Ok(1) => self.is_torn = false,
                Ok(_) => return (0, Err(ErrorKind::WriteZero.into())),
                Err(error) => return (0, Err(error)),
            }
        }
        let mut written = 0;
        while written < bytes.len() {
            match file.write(&bytes[written..]) {
                Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && !gives_up() => {
                    std::thread::sleep(PIPE_STEP);
                }
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }

    /// Cuts bytes off the end of the file.
    fn cut(&mut self, bytes: usize) {
        let is_cut = self.file.as_ref().is_some_and(|file| {
            let length = file
                .metadata()
                .ok()
                .filter(Metadata::is_file)
                .map(|metadata| metadata.len());
            let rest = length.and_then(|length| length.checked_sub(bytes as u64));
            rest.is_some_and(|rest| file.set_len(rest).is_ok())
        });
        self.is_torn = !is_cut;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(file: &mut AuditFile, path: &Path, lines: &[&str]) -> usize {
        let bytes: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let mut end = 0;
        let ends: Vec<usize> = lines
            .iter()
            .map(|line| {
                end += line.len() + 1;
                end
            })
            .collect();
        let (whole, result) = file.append(path, bytes.as_bytes(), &ends, || false);
        result.unwrap();
        whole
    }

    #[test]
    fn a_file_that_was_moved_away_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("audit"), directory.path().join("audit.1"));
        let mut file = AuditFile::default();
        file.open(&path).unwrap();
        assert_eq!(append(&mut file, &path, &["a", "b"]), 2);
        std::fs::rename(&path, &old).unwrap();
        assert_eq!(append(&mut file, &path, &["c"]), 1);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(append(&mut file, &path, &["d"]), 1);
        let text = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!((text(&old), text(&path)), ("a\nb\n".to_owned(), "d\n".to_owned()));
        // Emptied in place, as `copytruncate` does.
        std::fs::write(&path, "").unwrap();
        append(&mut file, &path, &["e"]);
        assert_eq!(text(&path), "e\n");
    }

    #[test]
    fn what_is_left_of_a_line_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit");
        let mut file = AuditFile::default();
        append(&mut file, &path, &["a", "bcd"]);
        file.cut(3);
        append(&mut file, &path, &["e"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nbe\n");
        file.is_torn = true;
        append(&mut file, &path, &["f"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nbe\n\nf\n");
    }

    #[test]
    fn a_pipe_without_a_reader_and_a_directory_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        assert!(AuditFile::default().open(directory.path()).is_err());
        let path = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success() && AuditFile::default().open(&path).is_err());
    }
}
