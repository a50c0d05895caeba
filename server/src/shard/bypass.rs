//! [`SocketBypass`]: a large reply goes from the value to the socket, without a copy in the output of its connection.
//!
//! The kernel copies the value while its partition is held, which takes hardly longer than a copy into the output would;
//! the system call would be made at the end of the turn anyway.

use std::io::IoSlice;

use shardis_protocol::Bypass;

use super::poll::Link;

/// The socket of a connection whose next reply may pass its output.
#[derive(Debug)]
pub(crate) struct SocketBypass<'a> {
    link: Link<'a>,
    /// Bytes at the front of the output buffer that have been sent.
    sent: &'a mut usize,
    /// Bytes that the socket has taken.
    passed: usize,
}

impl<'a> SocketBypass<'a> {
    /// The socket behind `link`, ahead of which `sent` bytes of the output buffer have been sent.
    #[inline]
    pub(crate) fn new(link: Link<'a>, sent: &'a mut usize) -> Self {
        Self {
            link,
            sent,
            passed: 0,
        }
    }

    /// Bytes that the socket has taken.
    #[inline]
    pub(crate) fn passed(&self) -> usize {
        self.passed
    }
}

impl Bypass for SocketBypass<'_> {
    /// Sends nothing when the socket fails: the error comes up again at the next write.
    fn send(&mut self, buffered: &[u8], last: [&[u8]; 2]) -> usize {
        let unsent = &buffered[*self.sent..];
        let slices = [unsent, last[0], last[1]].map(IoSlice::new);
        let Ok(taken) = self.link.write_slices_now(&slices) else {
            return 0;
        };
        let of_buffer = taken.min(unsent.len());
        *self.sent += of_buffer;
        self.passed += taken;
        taken - of_buffer
    }
}
