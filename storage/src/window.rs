//! [`Window`]: the middle of what is written. [`Steps`]: parts, one after the other, in steps of bounded length.
//!
//! A part that is too long for one step is written again in the next one, from the beginning: the window drops the bytes that
//! were written before. So a writer needs to remember a number of bytes, and no place in memory.

/// A sequence of parts on its way out; `P` names the part that comes next.
#[derive(Debug)]
pub(crate) struct Steps<P> {
    next: P,
    /// Bytes of that part that are written already.
    written: usize,
}

impl<P: Copy + PartialEq> Steps<P> {
    /// Parts of which nothing is written.
    pub(crate) fn new(first: P) -> Self {
        Self {
            next: first,
            written: 0,
        }
    }

    /// Appends at most `budget` bytes to `out`, which is at least one, and goes on from there the next time. True when the part
    /// that comes next is `end`. `write` writes a part, and returns the one behind it and whether bytes did not fit.
    pub(crate) fn step(
        &mut self,
        end: P,
        out: &mut Vec<u8>,
        budget: usize,
        mut write: impl FnMut(P, Window<'_>) -> (P, bool),
    ) -> bool {
        let mut room = budget.max(1);
        while self.next != end {
            if room == 0 {
                return false;
            }
            let before = out.len();
            let (next, is_cut) = write(self.next, Window::new(out, self.written, room));
            let wrote = out.len() - before;
            room -= wrote;
            if is_cut {
                self.written += wrote;
            } else {
                (self.next, self.written) = (next, 0);
            }
        }
        true
    }
}

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
    fn new(out: &'a mut Vec<u8>, skip: usize, room: usize) -> Self {
        Self {
            out,
            skip,
            room,
            is_cut: false,
        }
    }

    /// A window that all bytes fit into.
    pub(crate) fn whole(out: &'a mut Vec<u8>) -> Self {
        Self::new(out, 0, usize::MAX)
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
