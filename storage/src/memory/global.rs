//! UNSAFE. jemalloc as the allocator of a whole program, for the binary; whoever embeds the keyspace keeps their own.
//!
//! What goes through here is not counted as data. Written anew rather than taken from a crate because of the quantum: the
//! usual one assumes that every allocation is aligned to 16 bytes, which is not so with a quantum of 8.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_int;

use tikv_jemalloc_sys as jemalloc;

/// To be named as `#[global_allocator]`.
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
