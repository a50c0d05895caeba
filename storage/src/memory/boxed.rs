//! UNSAFE. [`CountedBox`]: one value behind a pointer, as `Box`, but allocated and counted by this crate.
//!
//! Invariant: the pointer is an allocation of this crate by the size and alignment of `T`, holds an initialised value
//! and is owned by the box alone.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::{alloc, dealloc, usable_size_aligned};

/// A value behind a pointer. For types that have a size and an alignment of at most 64.
pub(crate) struct CountedBox<T>(NonNull<T>);

// SAFETY: the box owns its value as `Box` does.
unsafe impl<T: Send> Send for CountedBox<T> {}
// SAFETY: as above; nothing changes through a shared reference.
unsafe impl<T: Sync> Sync for CountedBox<T> {}

impl<T> CountedBox<T> {
    const FITS: () = assert!(size_of::<T>() > 0 && align_of::<T>() <= 64);

    /// Moves `value` into an allocation of its own.
    #[inline]
    pub(crate) fn new(value: T) -> Self {
        let () = Self::FITS;
        let ptr = alloc(size_of::<T>(), align_of::<T>()).cast::<T>();
        // SAFETY: the memory is new and fits the type.
        unsafe { ptr.write(value) };
        Self(ptr)
    }

    /// The bytes of the allocation itself, without what the value owns.
    #[inline]
    pub(crate) fn memory() -> usize {
        usable_size_aligned(size_of::<T>(), align_of::<T>())
    }
}

impl<T> Drop for CountedBox<T> {
    fn drop(&mut self) {
        /// Frees the memory even when the value's own drop panics.
        struct Memory<T>(NonNull<T>);
        impl<T> Drop for Memory<T> {
            fn drop(&mut self) {
                // SAFETY: allocated with this size and alignment; the value in it is dropped already.
                unsafe { dealloc(self.0.cast(), size_of::<T>(), align_of::<T>()) };
            }
        }
        let memory = Memory(self.0);
        // SAFETY: the value is initialised and dropped this once.
        unsafe { memory.0.drop_in_place() };
    }
}

impl<T> Deref for CountedBox<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the value is initialised and lives as long as the box.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for CountedBox<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`, and borrowed mutably.
        unsafe { self.0.as_mut() }
    }
}

impl<T: Clone> Clone for CountedBox<T> {
    fn clone(&self) -> Self {
        Self::new((**self).clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for CountedBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::memory::thread_balance;

    #[repr(align(64))]
    #[derive(Clone)]
    struct Wide(Rc<()>);

    #[test]
    fn the_value_is_dropped_once_and_its_memory_returned() {
        let start = thread_balance();
        let witness = Rc::new(());
        let boxed = CountedBox::new(Wide(Rc::clone(&witness)));
        assert_eq!(thread_balance() - start, CountedBox::<Wide>::memory() as i64);
        let twin = boxed.clone();
        assert_eq!(Rc::strong_count(&(*twin).0), 3);
        drop(boxed);
        assert_eq!(Rc::strong_count(&witness), 2);
        drop(twin);
        assert_eq!((Rc::strong_count(&witness), thread_balance()), (1, start));
    }

    #[test]
    fn what_is_inside_can_be_changed() {
        let mut boxed = CountedBox::new([1u64; 5]);
        boxed[3] = 9;
        assert_eq!(*boxed, [1, 1, 1, 9, 1]);
    }
}
