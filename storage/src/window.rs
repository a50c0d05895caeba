//! [`Window`]: the middle of what is written.
//!
//! What is too long for one step is written again in the next one, from the beginning: the window drops the bytes that were
//! written before. So a writer needs to remember a number of bytes, and no place in memory.

/// A place for bytes, or for some of them.
pub(crate) struct Window<'a> {
    out: &'a mut Vec<u8>,
    /// Bytes that are still to be dropped: an earlier step has written them.
    skip: usize,
    /// Bytes that there is still room for.
    room: usize,
    is_cut: bool,
}

impl<'a> Window<'a> {
    /// A window that drops the first `skip` bytes, and then has `room` for bytes.
    pub(crate) fn new(out: &'a mut Vec<u8>, skip: usize, room: usize) -> Self {
        Self {
            out,
            skip,
            room,
            is_cut: false,
        }
    }

    /// Whether bytes did not fit.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Writes bytes as they are.
    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        let wanted = &bytes[skipped..];
        let taken = &wanted[..self.room.min(wanted.len())];
        self.skip -= skipped;
        self.room -= taken.len();
        self.is_cut |= taken.len() < wanted.len();
        self.out.extend_from_slice(taken);
    }
}
