//! UNSAFE. [`CompactBuffer`]: an owned run of bytes in 16 bytes of its own, for values that stand inline in an entry.
//!
//! [`Buffer`](super::Buffer) is for large data that grows fast. This one is for the packed encodings, of which there
//! may be millions: it allocates exactly the size class that fits, and frees memory when less than half of it is
//! used.
//!
//! Invariants, which every `unsafe` block here rests on:
//! - the capacity that `room` tells is 0 and `ptr` dangles, or `ptr` is an allocation of this crate of that size;
//! - all `capacity` bytes are initialised, so that room may be handed out before it is written;
//! - `len <= capacity`.
//!
//! There are four capacities to each doubling, all of them size classes, so that a few bits encode one: `(4 +
//! fraction) << exponent`. The rest of the 32 bits is the tag, for the buffer's owner.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::{alloc, dealloc, geometric_class, realloc, usable_size};

/// Owned bytes, allocated and counted here. Dereferences to them. An empty one allocates nothing.
///
/// Holds less than 4 GiB; growing beyond panics.
pub(crate) struct CompactBuffer {
    ptr: NonNull<u8>,
    len: u32,
    /// The size class in the upper 8 bits, 0 for none; the tag below.
    room: u32,
}

/// The largest tag.
pub(crate) const TAG_MAX: u32 = (1 << CLASS_SHIFT) - 1;

const CLASS_SHIFT: u32 = 24;

/// The largest size class below 4 GiB.
const CAPACITY_MAX: usize = 7 << 29;

/// The number of the size class `capacity`, which is one.
#[inline]
fn class_of(capacity: usize) -> u32 {
    let exponent = capacity.ilog2() - 2;
    debug_assert_eq!(capacity >> exponent << exponent, capacity, "a size class");
    exponent << 2 | (capacity >> exponent) as u32 & 3
}

/// The bytes of a size class, by its number.
#[inline]
fn capacity_of(class: u32) -> usize {
    if class == 0 {
        0
    } else {
        (4 + (class as usize & 3)) << (class >> 2)
    }
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
            room: 0,
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
        match self.capacity() {
            0 => 0,
            capacity => usable_size(capacity),
        }
    }

    /// The tag that was set last: 0 at first.
    #[inline]
    pub(crate) fn tag(&self) -> u32 {
        self.room & TAG_MAX
    }

    /// Keeps a number of at most [`TAG_MAX`] beside the bytes.
    #[inline]
    pub(crate) fn set_tag(&mut self, tag: u32) {
        debug_assert!(tag <= TAG_MAX, "a tag that fits");
        self.room = self.room & !TAG_MAX | tag & TAG_MAX;
    }

    #[inline]
    fn capacity(&self) -> usize {
        capacity_of(self.room >> CLASS_SHIFT)
    }

    /// Makes room for at least `additional` bytes more, and no more than the size class gives.
    ///
    /// # Panics
    /// When that would be 4 GiB or more in all.
    #[inline]
    pub(crate) fn reserve(&mut self, additional: usize) {
        let wanted = self.len().saturating_add(additional);
        if wanted > self.capacity() {
            self.set_capacity(wanted);
        }
    }

    /// Appends `bytes`.
    #[inline]
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.extend_by(bytes.len()).copy_from_slice(bytes);
    }

    /// Appends `additional` bytes of any content, which are returned to be written.
    #[inline]
    pub(crate) fn extend_by(&mut self, additional: usize) -> &mut [u8] {
        self.reserve(additional);
        let len = self.len();
        // Without overflow: `reserve` has bounded the sum by the capacity.
        self.len = (len + additional) as u32;
        &mut self[len..]
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

    /// Frees the capacity beyond the length.
    pub(crate) fn shrink_to_fit(&mut self) {
        if self.len == 0 {
            let tag = self.tag();
            *self = Self::new();
            self.set_tag(tag);
        } else if geometric_class(self.len()) < self.capacity() {
            self.set_capacity(self.len());
        }
    }

    #[inline]
    fn shrink_when_sparse(&mut self) {
        if self.len() < self.capacity() / 2 {
            self.shrink_to_fit();
        }
    }

    /// All allocated bytes, including those beyond the length.
    #[inline]
    fn storage_mut(&mut self) -> &mut [u8] {
        // SAFETY: `capacity` bytes are allocated and initialised; with no allocation it is 0 bytes at a dangling pointer.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.capacity()) }
    }

    /// Moves to the size class of `wanted`, which is at least 1 and at least the length.
    #[cold]
    fn set_capacity(&mut self, wanted: usize) {
        assert!(wanted <= CAPACITY_MAX, "a packed value of 4 GiB");
        let capacity = geometric_class(wanted);
        let old = self.capacity();
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
        self.room = class_of(capacity) << CLASS_SHIFT | self.tag();
    }
}

impl Drop for CompactBuffer {
    #[inline]
    fn drop(&mut self) {
        if self.room > TAG_MAX {
            // SAFETY: allocated with a size of the class of the capacity, and owned alone.
            unsafe { dealloc(self.ptr, self.capacity(), 1) }
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
        let mut copy = Self::from(&**self);
        copy.set_tag(self.tag());
        copy
    }
}

impl fmt::Debug for CompactBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompactBuffer")
            .field("len", &self.len)
            .field("capacity", &self.capacity())
            .field("tag", &self.tag())
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
    fn every_size_class_can_be_told() {
        let mut size = 1;
        while size <= CAPACITY_MAX {
            let class = geometric_class(size);
            assert_eq!(usable_size(class), class);
            assert_eq!(capacity_of(class_of(class)), class);
            assert!(class_of(class) > 0 && class_of(class) < 1 << (32 - CLASS_SHIFT));
            size = class + 1;
        }
    }

    #[test]
    fn the_tag_stays_whatever_happens_to_the_bytes() {
        let mut buffer = CompactBuffer::new();
        assert_eq!(buffer.tag(), 0);
        buffer.set_tag(TAG_MAX);
        buffer.extend(&[1; 500]);
        assert_eq!((buffer.tag(), buffer.memory()), (TAG_MAX, 512));
        assert_eq!(buffer.clone().tag(), TAG_MAX);
        buffer.set_tag(7);
        buffer.gap(0, 500, 0);
        assert_eq!((buffer.tag(), buffer.memory()), (7, 0));
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
