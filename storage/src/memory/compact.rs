//! UNSAFE. [`CompactBuffer`]: an owned run of bytes in 16 bytes of its own, for values that stand inline in an entry.
//!
//! [`Buffer`](super::Buffer) is for large things that grow fast. This one is for the packed encodings, of which there
//! may be millions: it takes the size class that fits and no more, and gives memory back when less than half of it is
//! used.
//!
//! Invariants, which every `unsafe` block here rests on:
//! - `capacity` is 0 and `ptr` dangles, or `ptr` is an allocation of this crate of the size class of `capacity`;
//! - all `capacity` bytes are initialised, so that room may be handed out before it is written;
//! - `len <= capacity`.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::{alloc, dealloc, realloc, usable_size};

/// Owned bytes, allocated and counted here. Dereferences to them. An empty one allocates nothing.
///
/// Holds less than 4 GiB; growing beyond panics.
pub(crate) struct CompactBuffer {
    ptr: NonNull<u8>,
    len: u32,
    capacity: u32,
}

const _: () = assert!(size_of::<CompactBuffer>() == 16 && size_of::<Option<CompactBuffer>>() == 16);

// SAFETY: a buffer owns its bytes alone and its methods follow Rust's borrowing; memory may be freed by any thread.
unsafe impl Send for CompactBuffer {}
// SAFETY: nothing changes through a shared reference.
unsafe impl Sync for CompactBuffer {}

impl CompactBuffer {
    /// An empty buffer that has not allocated.
    #[inline]
    pub(crate) const fn new() -> Self {
        Self {
            ptr: NonNull::dangling(),
            len: 0,
            capacity: 0,
        }
    }

    /// An empty buffer with room for at least `capacity` bytes.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut buffer = Self::new();
        buffer.reserve(capacity);
        buffer
    }

    /// The bytes allocated: a whole size class, or 0.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        if self.capacity == 0 {
            0
        } else {
            usable_size(self.capacity as usize)
        }
    }

    /// Makes room for at least `additional` bytes more, and no more than the size class gives.
    ///
    /// # Panics
    /// When that would be 4 GiB or more in all.
    #[inline]
    pub(crate) fn reserve(&mut self, additional: usize) {
        let wanted = self.len().saturating_add(additional);
        if wanted > self.capacity as usize {
            self.set_capacity(wanted);
        }
    }

    /// Appends `bytes`.
    #[inline]
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.gap(self.len(), 0, bytes.len()).copy_from_slice(bytes);
    }

    /// Replaces the `removed` bytes at `at` by `inserted` bytes of any content, which are returned to be written.
    ///
    /// O(bytes behind). May move or shrink the allocation.
    ///
    /// # Panics
    /// When the range is not within the buffer.
    #[inline]
    pub(crate) fn gap(&mut self, at: usize, removed: usize, inserted: usize) -> &mut [u8] {
        let len = self.len();
        assert!(at <= len && removed <= len - at, "a gap outside the buffer");
        let tail = at + removed;
        if inserted > removed {
            self.reserve(inserted - removed);
        }
        if tail < len && inserted != removed {
            self.storage_mut().copy_within(tail..len, at + inserted);
        }
        // Without overflow: `reserve` has bounded the sum by the capacity.
        self.len = (len - removed + inserted) as u32;
        if inserted < removed {
            self.shrink_when_sparse();
        }
        &mut self[at..at + inserted]
    }

    /// Cuts the buffer to `len` bytes if it is longer. The memory stays, for more to come.
    #[inline]
    pub(crate) fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.len = len as u32;
        }
    }

    /// Gives back all room that is not needed.
    pub(crate) fn shrink_to_fit(&mut self) {
        if self.len == 0 {
            *self = Self::new();
        } else if usable_size(self.len()) < self.capacity as usize {
            self.set_capacity(self.len());
        }
    }

    #[inline]
    fn shrink_when_sparse(&mut self) {
        if self.len < self.capacity / 2 {
            self.shrink_to_fit();
        }
    }

    /// All that is allocated, beyond the length too.
    #[inline]
    fn storage_mut(&mut self) -> &mut [u8] {
        // SAFETY: `capacity` bytes are allocated and initialised; with no allocation it is 0 bytes at a dangling pointer.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.capacity as usize) }
    }

    /// Moves to the size class of `wanted`, which is at least 1 and at least the length.
    #[cold]
    fn set_capacity(&mut self, wanted: usize) {
        assert!(wanted <= u32::MAX as usize, "a packed value of 4 GiB");
        // The one class that does not fit 32 bits is used up to its last byte but one.
        let capacity = usable_size(wanted).min(u32::MAX as usize);
        let old = self.capacity as usize;
        let ptr = if old == 0 {
            alloc(capacity, 1)
        } else {
            // SAFETY: the pointer is ours and `old` is of its class.
            unsafe { realloc(self.ptr, old, capacity) }
        };
        if capacity > old {
            // SAFETY: `capacity` bytes are allocated, of which the first `old` were kept.
            unsafe { ptr.add(old).write_bytes(0, capacity - old) };
        }
        self.ptr = ptr;
        self.capacity = capacity as u32;
    }
}

impl Drop for CompactBuffer {
    #[inline]
    fn drop(&mut self) {
        if self.capacity > 0 {
            // SAFETY: allocated with a size of the class of `capacity`, and owned alone.
            unsafe { dealloc(self.ptr, self.capacity as usize, 1) }
        }
    }
}

impl Deref for CompactBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the first `len` bytes are allocated and initialised; with no allocation `len` is 0.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for CompactBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len as usize) }
    }
}

impl Default for CompactBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl From<&[u8]> for CompactBuffer {
    fn from(bytes: &[u8]) -> Self {
        let mut buffer = Self::with_capacity(bytes.len());
        buffer.extend(bytes);
        buffer
    }
}

impl Clone for CompactBuffer {
    fn clone(&self) -> Self {
        Self::from(&**self)
    }
}

impl fmt::Debug for CompactBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompactBuffer")
            .field("len", &self.len)
            .field("capacity", &self.capacity)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::thread_balance;

    #[test]
    fn an_empty_buffer_allocates_nothing() {
        let start = thread_balance();
        let buffer = CompactBuffer::new();
        assert_eq!((buffer.memory(), thread_balance()), (0, start));
        assert_eq!(buffer.clone().memory(), 0);
    }

    #[test]
    fn memory_is_given_back_when_less_than_half_is_used() {
        let mut buffer = CompactBuffer::from(&[7u8; 1024][..]);
        assert_eq!(buffer.memory(), 1024);
        buffer.gap(0, 512, 0);
        assert_eq!((buffer.len(), buffer.memory()), (512, 1024));
        buffer.gap(0, 1, 0);
        assert_eq!((buffer.len(), buffer.memory()), (511, 512));
    }

    #[test]
    #[should_panic(expected = "outside the buffer")]
    fn a_gap_stays_within_the_buffer() {
        CompactBuffer::from(&b"abc"[..]).gap(2, 2, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

        #[test]
        fn it_behaves_as_a_vector(
            steps in proptest::collection::vec(
                (0u8..8, any::<u16>(), any::<u16>(), proptest::collection::vec(any::<u8>(), 0..200)),
                0..60,
            )
        ) {
            let start = thread_balance();
            let mut buffer = CompactBuffer::new();
            let mut model: Vec<u8> = Vec::new();
            for (step, at, removed, bytes) in steps {
                let at = at as usize % (model.len() + 1);
                let removed = removed as usize % (model.len() - at + 1);
                match step {
                    0..4 => {
                        buffer.gap(at, removed, bytes.len()).copy_from_slice(&bytes);
                        model.splice(at..at + removed, bytes);
                    }
                    4 => {
                        buffer.extend(&bytes);
                        model.extend(&bytes);
                    }
                    5 => {
                        buffer.truncate(at);
                        model.truncate(at);
                    }
                    6 => buffer.reserve(removed),
                    _ => buffer.shrink_to_fit(),
                }
                prop_assert_eq!(&*buffer, &*model);
                prop_assert_eq!(&*buffer.clone(), &*model);
                prop_assert_eq!(thread_balance() - start, buffer.memory() as i64);
            }
            drop(buffer);
            prop_assert_eq!(thread_balance(), start);
        }
    }
}
