//! UNSAFE. [`CompactVec`]: a growable run of values in 16 bytes of its own, as `Vec`, but allocated and counted by this
//! crate. For the short runs that trees are made of.
//!
//! Invariants, which every `unsafe` block here rests on:
//! - `capacity` is 0 and `ptr` dangles, or `ptr` is an allocation of this crate, aligned for `T`, of the size class of
//!   `capacity` values;
//! - the first `len` values are initialised and owned by the vector alone; `len <= capacity`.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

use super::{alloc, dealloc, usable_size_aligned};

/// Owned values in a row. Dereferences to a slice of them. An empty one allocates nothing.
///
/// For types that have a size and need an alignment of at most 64. Holds fewer than 2^32 values.
pub(crate) struct CompactVec<T> {
    ptr: NonNull<T>,
    len: u32,
    capacity: u32,
}

// SAFETY: the vector owns its values as `Vec` does.
unsafe impl<T: Send> Send for CompactVec<T> {}
// SAFETY: as above; nothing changes through a shared reference.
unsafe impl<T: Sync> Sync for CompactVec<T> {}

impl<T> CompactVec<T> {
    const FITS: () = assert!(size_of::<T>() > 0 && align_of::<T>() <= 64);

    /// An empty vector that has not allocated.
    #[inline]
    pub(crate) const fn new() -> Self {
        let () = Self::FITS;
        Self {
            ptr: NonNull::dangling(),
            len: 0,
            capacity: 0,
        }
    }

    /// An empty vector with room for at least `capacity` values.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut vector = Self::new();
        vector.reserve(capacity);
        vector
    }

    /// The bytes allocated for the values themselves, without what they own.
    pub(crate) fn memory(&self) -> usize {
        if self.capacity == 0 {
            return 0;
        }
        usable_size_aligned(self.capacity as usize * size_of::<T>(), align_of::<T>())
    }

    /// Makes room for at least `additional` values more, and no more than the size class gives.
    pub(crate) fn reserve(&mut self, additional: usize) {
        let wanted = self.len().saturating_add(additional);
        if wanted > self.capacity as usize {
            self.set_capacity(wanted);
        }
    }

    /// Appends a value. Amortised O(1).
    #[inline]
    pub(crate) fn push(&mut self, value: T) {
        self.insert(self.len(), value);
    }

    /// Puts a value before the one at `at`, or at the end. O(values behind).
    ///
    /// # Panics
    /// When `at` is beyond the end.
    #[inline]
    pub(crate) fn insert(&mut self, at: usize, value: T) {
        let len = self.len();
        assert!(at <= len, "an insertion beyond the end");
        if self.len == self.capacity {
            self.set_capacity(len + len / 2 + 1);
        }
        // SAFETY: `at` is within the values or just behind them.
        let place = unsafe { self.ptr.add(at) };
        // SAFETY: there is room for one value more than `len`; those from `at` on move up by one.
        unsafe { place.copy_to(place.add(1), len - at) };
        // SAFETY: the value that was at `place` has moved away.
        unsafe { place.write(value) };
        self.len += 1;
    }

    /// Removes and returns the value at `at`. O(values behind).
    ///
    /// # Panics
    /// When there is none.
    #[inline]
    pub(crate) fn remove(&mut self, at: usize) -> T {
        let len = self.len();
        assert!(at < len, "a removal beyond the end");
        // SAFETY: `at` is the place of a value.
        let place = unsafe { self.ptr.add(at) };
        // SAFETY: the value is initialised; what follows overwrites its place or the shorter length disowns it.
        let value = unsafe { place.read() };
        // SAFETY: the values behind move down by one.
        unsafe { place.add(1).copy_to(place, len - at - 1) };
        self.len -= 1;
        value
    }

    /// Drops the values of a range. O(values in it and behind).
    ///
    /// # Panics
    /// When the range is not within the vector.
    pub(crate) fn remove_range(&mut self, range: Range<usize>) {
        let len = self.len();
        assert!(
            range.start <= range.end && range.end <= len,
            "a range beyond the end"
        );
        // If a drop panics, the values in and behind the range are leaked rather than dropped twice.
        self.len = range.start as u32;
        // SAFETY: the range is within the values.
        let start = unsafe { self.ptr.add(range.start) };
        let gone = NonNull::slice_from_raw_parts(start, range.len());
        // SAFETY: the values are initialised, and no longer within `len`.
        unsafe { gone.drop_in_place() };
        // SAFETY: as for `start`; at most just behind the values.
        let rest = unsafe { self.ptr.add(range.end) };
        // SAFETY: the values behind the range move to where it began.
        unsafe { rest.copy_to(start, len - range.end) };
        self.len = (len - range.len()) as u32;
    }

    /// Cuts the vector at `at` and returns what stood from there on. O(values returned).
    ///
    /// # Panics
    /// When `at` is beyond the end.
    pub(crate) fn split_off(&mut self, at: usize) -> Self {
        let len = self.len();
        assert!(at <= len, "a cut beyond the end");
        let mut tail = Self::with_capacity(len - at);
        // SAFETY: `at` is within the values or just behind them.
        let from = unsafe { self.ptr.add(at) };
        // SAFETY: the tail is another allocation with room for them; the lengths below make it their only owner.
        unsafe { from.copy_to_nonoverlapping(tail.ptr, len - at) };
        tail.len = (len - at) as u32;
        self.len = at as u32;
        tail
    }

    /// Moves all values of `other` to the end. O(values moved).
    pub(crate) fn append(&mut self, mut other: Self) {
        let (len, more) = (self.len(), other.len());
        self.reserve(more);
        // SAFETY: there is room for `more` values behind the first `len`.
        let end = unsafe { self.ptr.add(len) };
        // SAFETY: the two are different allocations; `other` gives up its values just below.
        unsafe { other.ptr.copy_to_nonoverlapping(end, more) };
        other.len = 0;
        self.len += more as u32;
    }

    /// Moves to the size class of `wanted` values, which is more than the capacity.
    #[cold]
    fn set_capacity(&mut self, wanted: usize) {
        assert!(wanted < u32::MAX as usize, "a compact vector of 2^32 values");
        let bytes = usable_size_aligned(wanted * size_of::<T>(), align_of::<T>());
        // At least `wanted` values, so that their size has the class that was allocated.
        let capacity = (bytes / size_of::<T>()).min(u32::MAX as usize);
        let ptr = alloc(capacity * size_of::<T>(), align_of::<T>()).cast::<T>();
        // SAFETY: the new allocation is larger than the old one; the values move, and the old memory is freed unread.
        unsafe { self.ptr.copy_to_nonoverlapping(ptr, self.len()) };
        self.free();
        self.ptr = ptr;
        self.capacity = capacity as u32;
    }

    /// Frees the memory without dropping values. The caller replaces pointer and capacity, or is dropped.
    #[inline]
    fn free(&mut self) {
        if self.capacity > 0 {
            let bytes = self.capacity as usize * size_of::<T>();
            // SAFETY: allocated with a size of this class and this alignment, and owned alone.
            unsafe { dealloc(self.ptr.cast(), bytes, align_of::<T>()) };
        }
    }
}

impl<T> Drop for CompactVec<T> {
    fn drop(&mut self) {
        /// Frees the memory even when the drop of a value panics.
        struct Memory<'a, T>(&'a mut CompactVec<T>);
        impl<T> Drop for Memory<'_, T> {
            fn drop(&mut self) {
                self.0.free();
            }
        }
        let values = NonNull::slice_from_raw_parts(self.ptr, self.len());
        let _memory = Memory(self);
        // SAFETY: the values are initialised and dropped this once.
        unsafe { values.drop_in_place() };
    }
}

impl<T> Deref for CompactVec<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the first `len` values are initialised; with no allocation that is none at a dangling pointer.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len as usize) }
    }
}

impl<T> DerefMut for CompactVec<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len as usize) }
    }
}

impl<T> Default for CompactVec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> FromIterator<T> for CompactVec<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let values = values.into_iter();
        let mut vector = Self::with_capacity(values.size_hint().0);
        for value in values {
            vector.push(value);
        }
        vector
    }
}

impl<T: Clone> Clone for CompactVec<T> {
    fn clone(&self) -> Self {
        self.iter().cloned().collect()
    }
}

impl<T: fmt::Debug> fmt::Debug for CompactVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;
    use crate::memory::thread_balance;

    #[test]
    fn an_empty_vector_allocates_nothing() {
        let start = thread_balance();
        let vector = CompactVec::<u64>::new();
        assert!(vector.is_empty() && vector.clone().is_empty());
        assert_eq!(thread_balance(), start);
    }

    #[test]
    fn values_are_dropped_once() {
        let witness = Rc::new(());
        let mut vector: CompactVec<_> = (0..20).map(|_| Rc::clone(&witness)).collect();
        drop(vector.remove(3));
        vector.remove_range(2..7);
        let tail = vector.split_off(10);
        assert_eq!(Rc::strong_count(&witness), 15);
        drop(tail);
        assert_eq!(Rc::strong_count(&witness), 11);
        drop(vector.clone());
        drop(vector);
        assert_eq!(Rc::strong_count(&witness), 1);
    }

    #[test]
    #[should_panic(expected = "beyond the end")]
    fn nothing_is_removed_beyond_the_end() {
        CompactVec::from_iter([1u64]).remove(1);
    }

    #[test]
    #[should_panic(expected = "beyond the end")]
    fn nothing_is_inserted_beyond_the_end() {
        CompactVec::from_iter([1u64]).insert(2, 7);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

        #[test]
        fn it_behaves_as_a_vector(steps in proptest::collection::vec((0u8..8, any::<u16>(), any::<u16>()), 0..80)) {
            let start = thread_balance();
            // Three words: a size that does not divide every size class.
            let value = |n: u16| [u64::from(n), 1, 2];
            let mut vector = CompactVec::new();
            let mut model = Vec::new();
            for (step, at, other) in steps {
                let len = model.len();
                let at = at as usize % (len + 1);
                let end = at + other as usize % (len - at + 1);
                match step {
                    0 | 1 => {
                        vector.push(value(other));
                        model.push(value(other));
                    }
                    2 | 3 => {
                        vector.insert(at, value(other));
                        model.insert(at, value(other));
                    }
                    4 if at < len => prop_assert_eq!(vector.remove(at), model.remove(at)),
                    5 => {
                        vector.remove_range(at..end);
                        model.drain(at..end);
                    }
                    6 => {
                        // The halves change places.
                        let mut tail = vector.split_off(at);
                        tail.append(vector);
                        vector = tail;
                        model.rotate_left(at);
                    }
                    _ => vector.reserve(end - at),
                }
                prop_assert_eq!(&*vector, &*model);
            }
            drop(vector);
            prop_assert_eq!(thread_balance(), start);
        }
    }
}
