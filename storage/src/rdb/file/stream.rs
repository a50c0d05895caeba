//! [`Stream`]: the bytes of a file as they come, with their number and their checksum, and [`Tee`], which copies them on.

use std::io::{ErrorKind, Read, Write};

use super::super::checksum::Checksum;
use super::super::reader::{Error, Source};

/// Bytes that are read at once, and by which memory for a text grows.
const WINDOW: usize = 1 << 16;

/// Bytes out of a stream, with their number and their checksum.
pub(super) struct Stream<R> {
    source: R,
    window: Box<[u8]>,
    /// Start of what is unread in the window.
    at: usize,
    /// End of what the source has put there.
    end: usize,
    /// Bytes before the window.
    passed: u64,
    /// The checksum of what was taken; none if nobody asks for it.
    sum: Option<Checksum>,
    /// End of what is summed up in the window.
    summed: usize,
}

impl<R: Read> Stream<R> {
    /// The bytes of `source`, summed up if `is_summed`.
    pub(super) fn new(source: R, is_summed: bool) -> Self {
        Self {
            source,
            window: vec![0; WINDOW].into(),
            at: 0,
            end: 0,
            passed: 0,
            sum: is_summed.then(Checksum::default),
            summed: 0,
        }
    }

    /// Number of bytes that were taken.
    pub(super) fn offset(&self) -> u64 {
        self.passed + self.at as u64
    }

    /// The checksum of all bytes that were taken.
    pub(super) fn checksum(&mut self) -> Option<Checksum> {
        if let Some(sum) = &mut self.sum {
            sum.update(&self.window[self.summed..self.at]);
        }
        self.summed = self.at;
        self.sum
    }

    /// Bytes of the window that were not taken yet.
    fn left(&self) -> usize {
        self.end - self.at
    }

    /// Replaces the window, which has been read, by the next bytes.
    fn fill(&mut self) -> Result<(), Error> {
        self.checksum();
        self.passed += self.end as u64;
        (self.at, self.end, self.summed) = (0, 0, 0);
        self.end = loop {
            match self.source.read(&mut self.window) {
                Ok(0) => return Err(Error::Short),
                Ok(read) => break read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Io(error)),
            }
        };
        Ok(())
    }
}

impl<R: Read> Source for Stream<R> {
    fn take<'s>(&'s mut self, len: u64, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], Error> {
        let len = usize::try_from(len).map_err(|_| Error::Short)?;
        if len <= self.left() {
            let start = self.at;
            self.at += len;
            return Ok(&self.window[start..self.at]);
        }
        scratch.clear();
        while scratch.len() < len {
            if self.at == self.end {
                self.fill()?;
            }
            // The length is that of a file, and may be any number.
            let here = self.left().min(len - scratch.len());
            scratch.try_reserve(here).map_err(|_| Error::Memory)?;
            scratch.extend_from_slice(&self.window[self.at..self.at + here]);
            self.at += here;
        }
        Ok(scratch)
    }
}

/// The source of a value that is passed over: every byte that is taken is copied to a writer.
pub(super) struct Tee<'a, R, W> {
    stream: &'a mut Stream<R>,
    out: W,
    /// Start of what is not copied yet in the window of the stream.
    from: usize,
}

impl<'a, R: Read, W: Write> Tee<'a, R, W> {
    /// A source that takes from `stream` and copies to `out`.
    pub(super) fn new(stream: &'a mut Stream<R>, out: W) -> Self {
        let from = stream.at;
        Self { stream, out, from }
    }

    /// Copies what was taken from the window so far.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        let taken = &self.stream.window[self.from..self.stream.at];
        self.out.write_all(taken).map_err(Error::Io)?;
        self.from = self.stream.at;
        Ok(())
    }
}

impl<R: Read, W: Write> Source for Tee<'_, R, W> {
    fn take<'s>(&'s mut self, len: u64, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], Error> {
        if usize::try_from(len).is_ok_and(|len| len <= self.stream.left()) {
            return self.stream.take(len, scratch);
        }
        self.flush()?;
        // Bytes that do not lie in the window are collected in `scratch`.
        self.stream.take(len, scratch)?;
        self.from = self.stream.at;
        self.out.write_all(scratch).map_err(Error::Io)?;
        Ok(scratch)
    }
}
