//! UNSAFE: every allocation of the crate, counted where it is made.
//!
//! Memory comes from jemalloc directly, not through the global allocator: embedded, that one belongs to the host.
//! jemalloc is built with a quantum of 8 bytes (see `.cargo/config.toml`), so that an entry of 56 bytes costs 56
//! and not 64, and with one arena for the large allocations of all threads. It is linked under a prefix and does not replace `malloc`.
//!
//! The counter of a thread counts *usable* bytes, those of the size class. The caller that lends a keyspace to a
//! thread reads [`thread_balance`] before and after: the difference is the change of that keyspace's memory.
//!
//! Invariant: what was allocated with a size and an alignment is freed with the same alignment and a size of the
//! same size class. Within that, memory may be freed by any thread.

pub(crate) mod boxed;
pub(crate) mod compact;
pub(crate) mod compact_vec;
#[cfg(all(feature = "jemalloc", not(miri)))]
mod global;

use std::alloc::{Layout, handle_alloc_error};
use std::cell::Cell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

thread_local! {
    static BALANCE: Cell<i64> = const { Cell::new(0) };
}

#[cfg(all(feature = "jemalloc", not(miri)))]
pub use global::Jemalloc;

/// Bytes this thread allocated through the crate minus bytes it freed, by size class. Negative on a thread that frees
/// what others allocated. Only differences mean something.
#[inline]
#[must_use]
pub fn thread_balance() -> i64 {
    BALANCE.get()
}

/// log2 of jemalloc's smallest spacing of size classes: what its build was told, or its default.
const LG_QUANTUM: u32 = match option_env!("JEMALLOC_SYS_WITH_LG_QUANTUM") {
    Some(text) if text.len() == 1 && text.as_bytes()[0].is_ascii_digit() => {
        (text.as_bytes()[0] - b'0') as u32
    }
    _ => 4,
};

/// Up to this size classes are computed here; above, jemalloc is asked: there they depend on its run-time options, and
/// the call no longer matters.
const COMPUTED_MAX: usize = 14 << 10;

/// The bytes an allocation of `size` bytes takes: its size class. Of small ones there are four to each doubling.
///
/// `size` is at least 1. The same as jemalloc's `nallocx`, which a test holds it to, but mostly without the call.
#[inline]
#[must_use]
pub fn usable_size(size: usize) -> usize {
    if size > COMPUTED_MAX {
        system::usable_size(size)
    } else {
        geometric_class(size)
    }
}

/// The smallest of the sizes from `size` on of which there are four to each doubling. That is the size class, but for large
/// sizes, whose classes are whole pages: there it is one of them.
#[inline]
fn geometric_class(size: usize) -> usize {
    const QUANTUM: usize = 1 << LG_QUANTUM;
    if size <= QUANTUM {
        // Below the quantum the classes are the powers of two from 8.
        return if size <= 8 { 8 } else { size.next_power_of_two() };
    }
    let spacing = (1 << (size - 1).ilog2().saturating_sub(2)).max(QUANTUM);
    (size + spacing - 1) & !(spacing - 1)
}

/// [`usable_size`] of an aligned allocation. jemalloc serves it from the class of the size rounded up to the alignment,
/// since every class that is a multiple of a small power of two is aligned to it.
#[inline]
fn usable_size_aligned(size: usize, align: usize) -> usize {
    usable_size((size + align - 1) & !(align - 1))
}

/// Bytes that all threads of the process have allocated through the crate and not freed.
#[cfg(debug_assertions)]
static TOTAL: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);

/// The balances of all threads together, for tests that compare it with what was booked: release builds do not keep it.
#[cfg(debug_assertions)]
#[must_use]
pub fn process_balance() -> i64 {
    TOTAL.load(std::sync::atomic::Ordering::Relaxed)
}

#[inline]
fn count(bytes: usize, sign: i64) {
    #[cfg(debug_assertions)]
    TOTAL.fetch_add(
        sign.wrapping_mul(bytes as i64),
        std::sync::atomic::Ordering::Relaxed,
    );
    BALANCE.set(BALANCE.get().wrapping_add(sign.wrapping_mul(bytes as i64)));
}

/// Alignments up to this one come with every allocation.
const NATURAL_ALIGN: usize = 8;

/// Allocates `size` bytes, at least one, aligned to `align` (a power of two, at most 64). The bytes are not
/// initialised. Aborts the process when there is no memory, like Rust's own collections.
#[inline]
pub(crate) fn alloc(size: usize, align: usize) -> NonNull<u8> {
    debug_assert!(size > 0 && align.is_power_of_two() && align <= 64);
    let Some(ptr) = NonNull::new(system::alloc(size, align)) else {
        out_of_memory(size, align)
    };
    count(usable_size_aligned(size, align), 1);
    ptr
}

/// Gives memory back.
///
/// # Safety
/// `ptr` came from [`alloc`] with the same `align` and a size of the same size class as `size`, and nothing uses it
/// any more.
#[inline]
pub(crate) unsafe fn dealloc(ptr: NonNull<u8>, size: usize, align: usize) {
    count(usable_size_aligned(size, align), -1);
    // SAFETY: the caller vouches for pointer, class and alignment.
    unsafe { system::dealloc(ptr.as_ptr(), size, align) }
}

/// Moves or resizes an allocation of natural alignment; the bytes both sizes have in common are kept.
///
/// # Safety
/// As for [`dealloc`] with an alignment of at most 8, `old_size` being the present size. `new_size` is at least 1.
unsafe fn realloc(ptr: NonNull<u8>, old_size: usize, new_size: usize) -> NonNull<u8> {
    debug_assert!(new_size > 0);
    // SAFETY: the caller vouches for pointer and class.
    let moved = unsafe { system::realloc(ptr.as_ptr(), old_size, new_size) };
    let Some(moved) = NonNull::new(moved) else {
        out_of_memory(new_size, NATURAL_ALIGN)
    };
    count(usable_size(old_size), -1);
    count(usable_size(new_size), 1);
    moved
}

#[cold]
fn out_of_memory(size: usize, align: usize) -> ! {
    match Layout::from_size_align(size, align) {
        Ok(layout) => handle_alloc_error(layout),
        Err(_) => handle_alloc_error(Layout::new::<u8>()),
    }
}

/// jemalloc under its prefix.
#[cfg(all(feature = "jemalloc", not(miri)))]
mod system {
    use tikv_jemalloc_sys as jemalloc;

    use super::NATURAL_ALIGN;

    /// A size that comes from the arena of large allocations (see `.cargo/config.toml`).
    const LARGE: usize = 1 << 20;

    #[inline]
    fn flags(align: usize) -> std::ffi::c_int {
        if align <= NATURAL_ALIGN {
            0
        } else {
            jemalloc::MALLOCX_ALIGN(align)
        }
    }

    #[inline]
    pub(super) fn alloc(size: usize, align: usize) -> *mut u8 {
        // SAFETY: any size may be asked of malloc; mallocx wants one above zero, which the caller promises.
        unsafe {
            if align <= NATURAL_ALIGN {
                // Only plain malloc has the short way through the thread's cache.
                jemalloc::malloc(size).cast()
            } else {
                jemalloc::mallocx(size, flags(align)).cast()
            }
        }
    }

    #[inline]
    pub(super) unsafe fn dealloc(ptr: *mut u8, size: usize, align: usize) {
        // SAFETY: the caller vouches for pointer, class and alignment.
        unsafe { jemalloc::sdallocx(ptr.cast(), size, flags(align)) }
    }

    /// The size class; 0 when no class is so large.
    pub(super) fn usable_size(size: usize) -> usize {
        // SAFETY: the size is above zero.
        unsafe { jemalloc::nallocx(size, 0) }
    }

    pub(super) unsafe fn realloc(ptr: *mut u8, _old_size: usize, new_size: usize) -> *mut u8 {
        // SAFETY: the caller vouches for the pointer; the size is above zero.
        unsafe { jemalloc::rallocx(ptr.cast(), new_size, 0).cast() }
    }

    /// Reads one figure of jemalloc by name; 0 when it has none of that name.
    pub(super) fn read<T: Default>(name: &std::ffi::CStr) -> T {
        let mut value = T::default();
        let mut size = size_of::<T>();
        // SAFETY: the name ends with a zero byte and the result is written to `value`, whose size is told.
        let status = unsafe {
            jemalloc::mallctl(
                name.as_ptr(),
                (&raw mut value).cast(),
                &raw mut size,
                std::ptr::null_mut(),
                0,
            )
        };
        if status == 0 { value } else { T::default() }
    }

    /// The version of jemalloc, in its own words.
    pub(super) fn version() -> String {
        let mut text: *const std::ffi::c_char = std::ptr::null();
        let mut size = size_of_val(&text);
        // SAFETY: the name ends with a zero byte and the result, a pointer, is written to `text`, whose size is told.
        let status = unsafe {
            jemalloc::mallctl(
                c"version".as_ptr(),
                (&raw mut text).cast(),
                &raw mut size,
                std::ptr::null_mut(),
                0,
            )
        };
        if status != 0 || text.is_null() {
            return String::new();
        }
        // SAFETY: jemalloc's version is a constant text that ends with a zero byte.
        let text = unsafe { std::ffi::CStr::from_ptr(text) };
        text.to_string_lossy().into_owned()
    }

    /// Gives the memory that the calling thread's cache holds back to its arena.
    pub(super) fn flush_thread_cache() {
        // SAFETY: the command takes and returns nothing.
        unsafe {
            jemalloc::mallctl(
                c"thread.tcache.flush".as_ptr(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                0,
            );
        }
    }

    pub(super) fn refresh() {
        let mut epoch = 1u64;
        // SAFETY: "epoch" takes a u64, given with its size, and wants no result.
        unsafe {
            jemalloc::mallctl(
                c"epoch".as_ptr(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                (&raw mut epoch).cast(),
                size_of::<u64>(),
            );
        }
    }

    pub(super) fn purge() {
        // Arena 4096 stands for all arenas.
        // SAFETY: the command takes and returns nothing.
        unsafe {
            jemalloc::mallctl(
                c"arena.4096.purge".as_ptr(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                0,
            );
        }
    }

    /// Writes one setting of jemalloc; false when it has none of that name and type.
    fn write<T>(name: &std::ffi::CStr, mut value: T) -> bool {
        // SAFETY: the name ends with a zero byte and the value is given with its size, by which jemalloc knows a wrong type.
        let status = unsafe {
            jemalloc::mallctl(
                name.as_ptr(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                (&raw mut value).cast(),
                size_of::<T>(),
            )
        };
        status == 0
    }

    pub(super) fn purge_in_background(on: bool) -> bool {
        write(c"background_thread", on)
    }

    pub(super) fn keep_unused_for(ms: isize) {
        // Set for future arenas, then for the existing ones. An arena that was never used refuses, but counts as a future one.
        // The arena of large allocations does not: it would begin by keeping nothing, at the price of page faults for
        // each of them, so it is used once before.
        let first = alloc(LARGE, NATURAL_ALIGN);
        if !first.is_null() {
            // SAFETY: it came from `alloc` with this size and alignment, and nothing uses it.
            unsafe { dealloc(first, LARGE, NATURAL_ALIGN) };
        }
        write(c"arenas.dirty_decay_ms", ms);
        for arena in 0..read::<std::ffi::c_uint>(c"arenas.narenas") {
            if let Ok(name) = std::ffi::CString::new(format!("arena.{arena}.dirty_decay_ms")) {
                write(&name, ms);
            }
        }
    }

    /// Takes a piece of the allocator's report; `report` is the `Vec<u8>` that collects it.
    unsafe extern "C" fn collect(report: *mut std::ffi::c_void, piece: *const std::ffi::c_char) {
        // SAFETY: `report` below passes its vector, which nobody else uses meanwhile.
        let report = unsafe { &mut *report.cast::<Vec<u8>>() };
        // SAFETY: jemalloc passes a text that ends with a zero byte.
        report.extend_from_slice(unsafe { std::ffi::CStr::from_ptr(piece) }.to_bytes());
    }

    pub(super) fn report() -> Vec<u8> {
        let mut report = Vec::new();
        // SAFETY: the callback gets what it expects, and no options are given.
        unsafe {
            jemalloc::malloc_stats_print(Some(collect), (&raw mut report).cast(), std::ptr::null());
        }
        report
    }

    /// Frees the end of a large allocation in place; returns the remaining size.
    pub(super) unsafe fn trim(ptr: *mut u8, new_size: usize) -> usize {
        // SAFETY: the caller vouches for the pointer; the size is above zero.
        unsafe { jemalloc::xallocx(ptr.cast(), new_size, 0, 0) }
    }
}

/// Without jemalloc, which Miri cannot run, the system's allocator; sizes are rounded to the class so that freeing by
/// class works there as well.
#[cfg(any(not(feature = "jemalloc"), miri))]
mod system {
    use std::alloc::Layout;

    use super::usable_size_aligned;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(usable_size_aligned(size, align), align.max(super::NATURAL_ALIGN))
            .expect("sizes are far below that of the address space")
    }

    pub(super) fn alloc(size: usize, align: usize) -> *mut u8 {
        // SAFETY: the size is above zero.
        unsafe { std::alloc::alloc(layout(size, align)) }
    }

    pub(super) unsafe fn dealloc(ptr: *mut u8, size: usize, align: usize) {
        // SAFETY: the caller vouches for pointer, class and alignment.
        unsafe { std::alloc::dealloc(ptr, layout(size, align)) }
    }

    pub(super) fn usable_size(size: usize) -> usize {
        super::geometric_class(size)
    }

    pub(super) unsafe fn realloc(ptr: *mut u8, old_size: usize, new_size: usize) -> *mut u8 {
        // SAFETY: the caller vouches for pointer and class; the new size is above zero.
        unsafe { std::alloc::realloc(ptr, layout(old_size, 1), layout(new_size, 1).size()) }
    }

    pub(super) fn read<T: Default>(_name: &std::ffi::CStr) -> T {
        T::default()
    }

    pub(super) fn version() -> String {
        String::new()
    }

    pub(super) fn refresh() {}

    pub(super) fn flush_thread_cache() {}

    pub(super) fn purge() {}

    pub(super) fn purge_in_background(_on: bool) -> bool {
        false
    }

    pub(super) fn keep_unused_for(_ms: isize) {}

    pub(super) fn report() -> Vec<u8> {
        Vec::new()
    }

    pub(super) unsafe fn trim(_ptr: *mut u8, _new_size: usize) -> usize {
        usize::MAX
    }
}

/// Statistics of jemalloc for the whole process, in bytes. They cover this crate, and the rest of the process too
/// where the binary has made jemalloc the global allocator.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllocatorStats {
    /// In use by the application.
    pub allocated: usize,
    /// In pages that hold something in use.
    pub active: usize,
    /// Physically resident, metadata and unused dirty pages included.
    pub resident: usize,
    /// Mapped from the operating system.
    pub mapped: usize,
}

/// The allocator's name and version in the notation of Redis: `jemalloc-5.3.0`, or `libc` for the allocator of the
/// system.
#[must_use]
pub fn allocator_name() -> String {
    let version = system::version();
    if version.is_empty() {
        return "libc".to_owned();
    }
    // The number is followed by the number of later changes and the id of the last one.
    let number = version.split('-').next().unwrap_or_default();
    format!("jemalloc-{number}")
}

/// Asks jemalloc for its figures. It sums over its arenas: microseconds, not for every command.
#[must_use]
pub fn jemalloc_stats() -> AllocatorStats {
    system::refresh();
    // jemalloc counts the unused memory in the caches of threads as allocated. Arena 4096 stands for all arenas.
    let cached: usize = system::read(c"stats.arenas.4096.tcache_bytes");
    AllocatorStats {
        allocated: system::read::<usize>(c"stats.allocated") - cached,
        active: system::read(c"stats.active"),
        resident: system::read(c"stats.resident"),
        mapped: system::read(c"stats.mapped"),
    }
}

/// Gives memory that jemalloc keeps ready for the calling thread back to where all threads take it from. Bounded for each thread,
/// a few megabytes at most; a thread that goes to sleep would keep it.
pub fn flush_thread_cache() {
    system::flush_thread_cache();
}

/// The allocator's report about itself, as text for people. Tens of kilobytes.
#[must_use]
pub fn allocator_report() -> Vec<u8> {
    system::report()
}

/// Gives all unused pages back to the operating system. Takes as long as there are such pages.
pub fn purge() {
    system::purge();
}

/// Milliseconds after which unused pages have gone back to the operating system.
///
/// Shorter, they would be wanted again too often: a SET of 100 KB faults 1.0 pages with this value, 0.6 with a second. Longer, what
/// short peaks have left adds up.
const UNUSED_KEPT_MS: isize = 250;

/// Has jemalloc give pages that nothing uses any more back to the operating system, little by little, from threads of its
/// own; without them it does so only when it is used. True if it can. Holds for the whole process.
pub fn purge_in_background(on: bool) -> bool {
    system::keep_unused_for(UNUSED_KEPT_MS);
    system::purge_in_background(on)
}

/// Below this length a growing buffer doubles; above, it grows by this much.
const GROWTH_STEP_MAX: usize = 1 << 20;

/// A growable run of bytes, allocated and counted here.
///
/// It dereferences to its bytes. Its capacity is always a whole size class. An empty one allocates nothing.
pub struct Buffer {
    ptr: NonNull<u8>,
    len: usize,
    /// Bytes allocated; 0 means `ptr` dangles.
    capacity: usize,
    /// The first this many bytes are initialised; between `len` and `capacity`.
    initialised: usize,
}

// SAFETY: a buffer owns its bytes alone and its methods follow Rust's borrowing; memory may be freed by any thread.
unsafe impl Send for Buffer {}
// SAFETY: nothing changes through a shared reference.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// An empty buffer that has not allocated.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ptr: NonNull::dangling(),
            len: 0,
            capacity: 0,
            initialised: 0,
        }
    }

    /// An empty buffer with room for at least `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let mut buffer = Self::new();
        buffer.reserve_exact(capacity);
        buffer
    }

    /// A buffer of `len` zero bytes.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Self::with_capacity(len);
        buffer.resize(len);
        buffer
    }

    /// Number of bytes that fit without allocating.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes room for at least `additional` bytes more, and no more than the size class gives.
    pub fn reserve_exact(&mut self, additional: usize) {
        let wanted = self.len.saturating_add(additional);
        if wanted > self.capacity {
            self.set_capacity(wanted);
        }
    }

    /// Makes room for at least `additional` more bytes. If that takes an allocation, makes room for as much again (at
    /// most 1 MiB), so that a buffer that grows by small pieces is copied a bounded number of times.
    #[inline]
    pub fn reserve(&mut self, additional: usize) {
        let wanted = self.len.saturating_add(additional);
        if wanted > self.capacity {
            self.set_capacity(wanted.saturating_add(wanted.min(GROWTH_STEP_MAX)));
        }
    }

    /// Appends `bytes`, growing as [`Buffer::reserve`] does.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        // SAFETY: there is room for them behind `len`, and `bytes` cannot overlap what we own and borrow mutably.
        unsafe {
            self.ptr
                .add(self.len)
                .copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
        };
        self.len += bytes.len();
        self.initialised = self.initialised.max(self.len);
    }

    /// Makes the buffer `len` bytes long: cuts it, or appends zeros, growing as [`Buffer::reserve`] does.
    pub fn resize(&mut self, len: usize) {
        if len > self.len {
            self.reserve(len - self.len);
            // SAFETY: `reserve` made room for `len` bytes.
            unsafe { self.ptr.add(self.len).write_bytes(0, len - self.len) };
            self.initialised = self.initialised.max(len);
        }
        self.len = len;
    }

    /// Cuts the buffer to `len` bytes if it is longer. The memory stays.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The spare bytes, at most `limit` of them, to be written to (by `read(2)`, say) and then claimed with
    /// [`Buffer::advance`]. Bytes that were never written are zeroed first, once.
    #[must_use]
    pub fn spare_mut(&mut self, limit: usize) -> &mut [u8] {
        let end = self.len + limit.min(self.capacity - self.len);
        if end > self.initialised {
            // SAFETY: `end` is within the capacity.
            unsafe {
                self.ptr
                    .add(self.initialised)
                    .write_bytes(0, end - self.initialised);
            };
            self.initialised = end;
        }
        // SAFETY: from `len` to `end` all is allocated, initialised and ours.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(self.len).as_ptr(), end - self.len) }
    }

    /// Claims the first `count` bytes of the spare room as part of the buffer.
    ///
    /// # Panics
    /// When that exceeds the bytes from [`Buffer::spare_mut`].
    pub fn advance(&mut self, count: usize) {
        assert!(
            count <= self.initialised - self.len,
            "advance beyond the spare room handed out"
        );
        self.len += count;
    }

    /// Frees the capacity beyond the length.
    pub fn shrink_to_fit(&mut self) {
        if self.len == 0 {
            *self = Self::new();
        } else if usable_size(self.len) < self.capacity {
            self.set_capacity(self.len);
        }
    }

    /// Frees up to about `bytes` from the end of the allocation and keeps the rest; false when it had to stay as it is.
    /// A huge value is freed in slices by this.
    pub(crate) fn trim(&mut self, bytes: usize) -> bool {
        let target = usable_size(self.capacity.saturating_sub(bytes).max(1));
        if target >= self.capacity {
            return false;
        }
        // SAFETY: the pointer is a live allocation of natural alignment since the capacity is above zero.
        let left = unsafe { system::trim(self.ptr.as_ptr(), target) };
        if left != target {
            return false;
        }
        count(self.capacity - target, -1);
        self.capacity = target;
        self.initialised = self.initialised.min(target);
        self.len = self.len.min(target);
        true
    }

    #[cold]
    fn set_capacity(&mut self, wanted: usize) {
        // A size beyond all classes is passed on, so that the allocator refuses it.
        let capacity = usable_size(wanted).max(wanted);
        self.ptr = if self.capacity == 0 {
            alloc(capacity, 1)
        } else {
            // SAFETY: the pointer is ours, of natural alignment, and `capacity` its class.
            unsafe { realloc(self.ptr, self.capacity, capacity) }
        };
        self.capacity = capacity;
        self.initialised = self.initialised.min(capacity);
    }

    /// Takes the buffer apart: pointer, length, capacity. The caller then owns the memory.
    pub(crate) fn into_parts(self) -> (NonNull<u8>, usize, usize) {
        let buffer = ManuallyDrop::new(self);
        (buffer.ptr, buffer.len, buffer.capacity)
    }

    /// Puts a buffer together again from its parts.
    ///
    /// # Safety
    /// The parts came from one [`Buffer::into_parts`], and no other buffer is made of them.
    pub(crate) unsafe fn from_parts(ptr: NonNull<u8>, len: usize, capacity: usize) -> Self {
        Self {
            ptr,
            len,
            capacity,
            initialised: len,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.capacity > 0 {
            // SAFETY: allocated with this capacity, its whole class, and owned alone.
            unsafe { dealloc(self.ptr, self.capacity, 1) }
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the first `len` bytes are allocated and initialised; with no allocation `len` is 0.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

impl From<&[u8]> for Buffer {
    fn from(bytes: &[u8]) -> Self {
        let mut buffer = Self::with_capacity(bytes.len());
        buffer.extend(bytes);
        buffer
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self::from(&**self)
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("len", &self.len)
            .field("capacity", &self.capacity)
            .finish()
    }
}

/// Types of which all-zero bytes are a value.
///
/// # Safety
/// They are, and the alignment is at most 64.
pub(crate) unsafe trait Zeroed {}

// SAFETY: zero is an integer.
unsafe impl Zeroed for u64 {}

/// A fixed run of values that starts as zero bytes, allocated and counted here.
pub(crate) struct Array<T: Zeroed> {
    ptr: NonNull<T>,
    len: usize,
}

// SAFETY: the array owns its values as a `Box<[T]>` would.
unsafe impl<T: Zeroed + Send> Send for Array<T> {}

impl<T: Zeroed> Array<T> {
    /// `len` values of zero bytes; at least one, of a type that has a size.
    pub(crate) fn new(len: usize) -> Self {
        let bytes = len.saturating_mul(size_of::<T>());
        assert!(bytes > 0);
        let ptr = alloc(bytes, align_of::<T>());
        // SAFETY: that many bytes have just been allocated.
        unsafe { ptr.write_bytes(0, bytes) };
        Self { ptr: ptr.cast(), len }
    }

    /// Bytes taken.
    pub(crate) fn bytes(&self) -> usize {
        usable_size_aligned(self.len * size_of::<T>(), align_of::<T>())
    }
}

impl<T: Zeroed> Drop for Array<T> {
    fn drop(&mut self) {
        // SAFETY: the values are initialised and dropped once, then their memory is given back as it was taken.
        unsafe {
            std::ptr::slice_from_raw_parts_mut(self.ptr.as_ptr(), self.len).drop_in_place();
            dealloc(self.ptr.cast(), self.len * size_of::<T>(), align_of::<T>());
        }
    }
}

impl<T: Zeroed> Deref for Array<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` initialised values are allocated here.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl<T: Zeroed> DerefMut for Array<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[cfg(all(feature = "jemalloc", not(miri)))]
    #[test]
    fn size_classes_are_those_of_the_allocator() {
        // SAFETY: nallocx allocates nothing and takes any size above zero.
        let nallocx = |size, flags| unsafe { tikv_jemalloc_sys::nallocx(size, flags) };
        let large =
            (17..34).flat_map(|lg| [(1 << lg) - 1, 1 << lg, (1 << lg) + 1, (1 << lg) + (1 << (lg - 1))]);
        for size in (1..70_000).chain(large) {
            assert_eq!(usable_size(size), nallocx(size, 0), "size {size}");
            let aligned = nallocx(size, tikv_jemalloc_sys::MALLOCX_ALIGN(64));
            assert_eq!(
                usable_size_aligned(size, 64),
                aligned,
                "size {size} aligned to 64"
            );
        }
    }

    #[test]
    fn an_entry_of_56_bytes_costs_56() {
        assert_eq!(usable_size(56), 56, "jemalloc must be built with lg-quantum 3");
    }

    #[test]
    fn the_balance_follows_what_is_held() {
        let start = thread_balance();
        let mut buffer = Buffer::with_capacity(100);
        assert_eq!(thread_balance() - start, 112);
        buffer.resize(5000);
        assert_eq!(thread_balance() - start, buffer.capacity() as i64);
        buffer.truncate(10);
        buffer.shrink_to_fit();
        assert_eq!(thread_balance() - start, 16);
        drop(buffer);
        let array = Array::<u64>::new(1000);
        assert_eq!(thread_balance() - start, array.bytes() as i64);
        drop(array);
        assert_eq!(thread_balance(), start);
    }

    #[test]
    fn small_pieces_cause_few_moves() {
        let bytes = if cfg!(miri) { 3_000 } else { 3_000_000 };
        let mut buffer = Buffer::new();
        let mut moves = 0;
        for n in 0..bytes {
            let before = buffer.capacity();
            buffer.extend(&[n as u8]);
            moves += u32::from(buffer.capacity() != before);
        }
        assert_eq!(buffer.len(), bytes);
        assert!(buffer.iter().enumerate().all(|(n, byte)| *byte == n as u8));
        assert!(moves < 25, "{moves} moves");
        assert!(buffer.capacity() < 5 << 20);
    }

    #[test]
    fn a_huge_buffer_is_trimmed_in_slices() {
        let start = thread_balance();
        let mut buffer = Buffer::zeroed(16 << 20);
        let mut slices = 0;
        while buffer.trim(4 << 20) {
            slices += 1;
            assert_eq!(thread_balance() - start, buffer.capacity() as i64);
        }
        // Only jemalloc gives the end of an allocation back.
        let trims = cfg!(all(feature = "jemalloc", not(miri)));
        assert!(!trims || slices >= 3, "{slices} slices");
        drop(buffer);
        assert_eq!(thread_balance(), start);
    }

    #[test]
    #[should_panic(expected = "beyond the spare room")]
    fn advance_never_exposes_what_was_not_written() {
        let mut buffer = Buffer::with_capacity(64);
        buffer.spare_mut(8)[0] = 1;
        buffer.advance(9);
    }

    proptest! {
        #[test]
        fn a_buffer_behaves_as_a_vector(
            steps in proptest::collection::vec((0u8..6, proptest::collection::vec(any::<u8>(), 0..300)), 0..40)
        ) {
            let start = thread_balance();
            let mut buffer = Buffer::new();
            let mut model: Vec<u8> = Vec::new();
            for (step, bytes) in steps {
                match step {
                    0 | 1 => {
                        buffer.extend(&bytes);
                        model.extend(&bytes);
                    }
                    2 => {
                        buffer.resize(bytes.len() * 2);
                        model.resize(bytes.len() * 2, 0);
                    }
                    3 => {
                        buffer.truncate(bytes.len());
                        model.truncate(bytes.len());
                    }
                    4 => buffer.shrink_to_fit(),
                    _ => {
                        buffer.reserve(bytes.len());
                        buffer.spare_mut(bytes.len()).copy_from_slice(&bytes);
                        buffer.advance(bytes.len());
                        model.extend(&bytes);
                    }
                }
                prop_assert_eq!(&*buffer, &*model);
                prop_assert_eq!(thread_balance() - start, buffer.capacity() as i64);
            }
        }
    }
}
