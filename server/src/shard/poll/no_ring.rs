//! Replacement of `ring.rs` on systems without io_uring: a ring can never be created.

use std::convert::Infallible;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::{Allocated, Event, Holds};
use crate::shard::outgoing::Outgoing;

/// A ring, which cannot be created.
#[derive(Debug)]
pub(super) struct Ring(Infallible);

impl Ring {
    /// # Errors
    /// Always: the system has no io_uring.
    pub(super) fn new(_epoll: RawFd) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn add(&mut self, _fd: RawFd, _connection: usize) {
        match self.0 {}
    }

    pub(super) fn detach(&mut self, _connection: usize) -> Option<Vec<u8>> {
        match self.0 {}
    }

    pub(super) fn remove(&mut self, _connection: usize) {
        match self.0 {}
    }

    pub(super) fn read(&mut self, _connection: usize, _out: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }

    pub(super) fn write(&mut self, _connection: usize, _outgoing: &mut Outgoing) -> io::Result<()> {
        match self.0 {}
    }

    pub(super) fn holds(&self, _connection: usize) -> Holds {
        match self.0 {}
    }

    pub(super) fn allocated(&self, _connection: usize) -> Allocated {
        match self.0 {}
    }

    pub(super) fn release(&mut self, _connection: usize) {
        match self.0 {}
    }

    pub(super) fn wait(&mut self, _timeout: Duration, _on_event: &mut impl FnMut(Event)) -> io::Result<bool> {
        match self.0 {}
    }

    pub(super) fn is_sending(&mut self, _connection: usize) -> bool {
        match self.0 {}
    }
}
