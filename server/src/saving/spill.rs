//! [`Spill`]: what has to wait while the slices of a large value are written, which must follow one another in the file.
//!
//! Without it, every shard would have to wait for a value of a gigabyte on one of them. What comes meanwhile is kept in memory up
//! to a bound, and in a file without a name beyond it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use shardis_storage::keyspace::Saved;

use crate::limits::SPILLED_BYTES_MAX;

/// Pieces that wait.
#[derive(Debug)]
pub(super) struct Spill {
    /// Path of the file, as long as it has a name.
    path: PathBuf,
    kept: Vec<Saved>,
    kept_bytes: usize,
    file: Option<File>,
    /// Database and length of the pieces in the file.
    filed: Vec<(u16, usize)>,
}

impl Spill {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            kept: Vec::new(),
            kept_bytes: 0,
            file: None,
            filed: Vec::new(),
        }
    }

    /// Takes a piece in.
    pub(super) fn push(&mut self, saved: Saved) -> io::Result<()> {
        if self.kept_bytes + saved.bytes.len() <= SPILLED_BYTES_MAX {
            self.kept_bytes += saved.bytes.len();
            self.kept.push(saved);
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(create_nameless(&self.path)?),
        };
        file.write_all(&saved.bytes)?;
        match self.filed.last_mut() {
            Some((db, bytes)) if *db == saved.db => *bytes += saved.bytes.len(),
            _ => self.filed.push((saved.db, saved.bytes.len())),
        }
        Ok(())
    }

    /// Hands everything over, some bytes at a time, and is empty then.
    pub(super) fn drain(&mut self, mut take: impl FnMut(u16, &[u8]) -> io::Result<()>) -> io::Result<()> {
        self.kept_bytes = 0;
        for saved in self.kept.drain(..) {
            take(saved.db, &saved.bytes)?;
        }
        let Some(file) = self.file.as_mut().filter(|_| !self.filed.is_empty()) else {
            return Ok(());
        };
        file.seek(SeekFrom::Start(0))?;
        let mut buffer = vec![0; 64 << 10];
        for (db, bytes) in self.filed.drain(..) {
            let mut left = bytes;
            while left > 0 {
                let chunk = &mut buffer[..left.min(64 << 10)];
                file.read_exact(chunk)?;
                take(db, chunk)?;
                left -= chunk.len();
            }
        }
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0)).map(drop)
    }
}

/// Creates a file that nobody finds and that is gone when it is closed.
pub(super) fn create_nameless(path: &std::path::Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use shardis_storage::keyspace::Part;

    use super::*;

    #[test]
    fn everything_comes_back_once() {
        let path = std::env::temp_dir().join(format!("shardis-spill-{}", std::process::id()));
        let mut spill = Spill::new(path.clone());
        for round in 0..3 {
            let mut expected = [0_usize; 2];
            for n in 0..300_usize {
                let saved = Saved {
                    db: (n / 7 % 2) as u16,
                    bytes: vec![(n / 7 % 2) as u8; n * 97 * (1 + round)],
                    part: Part::Whole,
                };
                expected[usize::from(saved.db)] += saved.bytes.len();
                spill.push(saved).unwrap();
            }
            assert!(round == 0 || spill.file.is_some(), "more than what is kept");
            assert!(!path.exists());
            let mut found = [0; 2];
            spill
                .drain(|db, bytes| {
                    assert!(bytes.iter().all(|&byte| u16::from(byte) == db));
                    found[usize::from(db)] += bytes.len();
                    Ok(())
                })
                .unwrap();
            assert_eq!(found, expected);
        }
    }
}
