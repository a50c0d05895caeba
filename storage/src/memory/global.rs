//! UNSAFE. jemalloc as the global allocator of a program, for the binary; an embedding program keeps its own.
//!
//! Allocations through this type are not counted as data. It replaces the usual crate because of the quantum: that
//! crate assumes that every allocation is aligned to 16 bytes, which does not hold with a quantum of 8.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_int;

use tikv_jemalloc_sys as jemalloc;

/// The allocator, for `#[global_allocator]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Jemalloc;

#[inline]
fn flags(layout: Layout) -> c_int {
    if layout.align() <= super::NATURAL_ALIGN {
        0
    } else {
        jemalloc::MALLOCX_ALIGN(layout.align())
    }
}

// SAFETY: jemalloc returns distinct memory of at least the size and, by the flag, of the alignment asked for, or null;
// layouts of zero size are never passed here by contract of the trait.
unsafe impl GlobalAlloc for Jemalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the size is not zero.
        unsafe { jemalloc::mallocx(layout.size(), flags(layout)).cast() }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the size is not zero.
        unsafe { jemalloc::mallocx(layout.size(), flags(layout) | jemalloc::MALLOCX_ZERO).cast() }
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` with the same layout, so size and alignment are those it was made with.
        unsafe { jemalloc::sdallocx(ptr.cast(), layout.size(), flags(layout)) }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the pointer came from `alloc` with the same layout, and the new size is not zero.
        unsafe { jemalloc::rallocx(ptr.cast(), new_size, flags(layout)).cast() }
    }
}
