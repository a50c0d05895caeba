//! UNSAFE: one element of a large collection in one allocation: a set's member, a sorted set's with its score, a hash's
//! field with its value and, maybe, its expiry.
//!
//! ```text
//!  1 byte   1 or 8          0, 1 or 2       0 or 8
//! +-------+---------------+---------------+--------------------+--------+------------------------+
//! | flags | member length | value length  | word               | member | value                  |
//! +-------+---------------+---------------+--------------------+--------+------------------------+
//!           8 if LONG       by the flags    score or expiry,             `value length` bytes or,
//!                                           if WORD                      if HEAP, a `Buffer`'s parts
//! ```
//! A member of 16 bytes takes 18, with a score 26; with a value of 16 bytes 35. jemalloc rounds that up to 8. Nothing
//! but the allocation itself is aligned.
//!
//! It has three types: [`Element`] borrows it, [`ElementBox`] owns it, [`ElementPtr`] is a bare pointer for tables
//! and trees.
//!
//! Invariants: the flags and lengths describe the bytes after them; the allocation has the size class of the size
//! that they give; a heap value's parts belong to the element alone. The member of an element never changes, nor does
//! the presence of the word: both take another element.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use crate::memory::{Buffer, alloc, dealloc, usable_size};
use crate::table::Keyed;

/// Values up to this many bytes stand in the element; longer ones have an allocation of their own, so that changing one
/// never moves more than this.
const EMBEDDED_MAX: usize = 1024;
/// Lengths up to this one take a byte.
const SHORT_MAX: usize = u8::MAX as usize;
const HEAP_PARTS: usize = size_of::<NonNull<u8>>() + 2 * size_of::<usize>();
const ALIGN: usize = 8;

/// The first byte of an element.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
struct Flags(u8);

impl Flags {
    const VALUE_MASK: u8 = 0b11;
    /// No value.
    const BARE: u8 = 0;
    /// A value whose length is a byte.
    const SHORT: u8 = 1;
    /// A value whose length is two bytes.
    const MEDIUM: u8 = 2;
    /// A value with an allocation of its own.
    const HEAP: u8 = 3;
    /// The member's length is eight bytes.
    const LONG: u8 = 1 << 2;
    /// The element has a score or an expiry.
    const WORD: u8 = 1 << 3;

    /// Start of the member, by flags.
    const MEMBER_AT: [u8; 16] = {
        let mut table = [0; 16];
        let mut flags = 0;
        while flags < 16 {
            let value_len = match flags as u8 & Self::VALUE_MASK {
                Self::SHORT => 1,
                Self::MEDIUM => 2,
                _ => 0,
            };
            let member_len = if flags as u8 & Self::LONG == 0 { 1 } else { 8 };
            let word = if flags as u8 & Self::WORD == 0 { 0 } else { 8 };
            table[flags] = 1 + member_len + value_len + word;
            flags += 1;
        }
        table
    };

    #[inline]
    fn value(self) -> u8 {
        self.0 & Self::VALUE_MASK
    }

    #[inline]
    fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    #[inline]
    fn member_at(self) -> usize {
        usize::from(Self::MEMBER_AT[usize::from(self.0 & 15)])
    }

    #[inline]
    fn word_at(self) -> usize {
        self.member_at() - size_of::<u64>()
    }

    #[inline]
    fn value_len_at(self) -> usize {
        if self.has(Self::LONG) { 9 } else { 2 }
    }
}

/// A value on its way into an element.
enum Value<'a> {
    None,
    Embedded(&'a [u8]),
    Heap(Buffer),
}

impl<'a> Value<'a> {
    #[inline]
    fn of(bytes: &'a [u8]) -> Self {
        if bytes.len() <= EMBEDDED_MAX {
            Self::Embedded(bytes)
        } else {
            Self::Heap(Buffer::from(bytes))
        }
    }

    #[inline]
    fn flag(&self) -> u8 {
        match self {
            Self::None => Flags::BARE,
            Self::Embedded(bytes) if bytes.len() <= SHORT_MAX => Flags::SHORT,
            Self::Embedded(_) => Flags::MEDIUM,
            Self::Heap(_) => Flags::HEAP,
        }
    }

    #[inline]
    fn size(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Embedded(bytes) => bytes.len(),
            Self::Heap(_) => HEAP_PARTS,
        }
    }
}

/// A bare pointer to an element, made from an [`ElementBox`]. Its holder must turn it into one again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct ElementPtr(NonNull<u8>);

// SAFETY: a bare pointer gives no access: code that dereferences it must justify that.
unsafe impl Send for ElementPtr {}
// SAFETY: as above.
unsafe impl Sync for ElementPtr {}

// SAFETY: jemalloc aligns every allocation to 8, and `alloc` is asked for it; pointers compare as addresses.
unsafe impl Keyed for ElementPtr {
    #[inline]
    fn as_ptr(self) -> NonNull<u8> {
        self.0
    }

    #[inline]
    unsafe fn from_ptr(ptr: NonNull<u8>) -> Self {
        Self(ptr)
    }

    #[inline]
    unsafe fn key<'a>(self) -> &'a [u8] {
        // SAFETY: the element is alive and its member never changes.
        unsafe {
            let flags = self.flags();
            std::slice::from_raw_parts(self.0.add(flags.member_at()).as_ptr(), self.member_len(flags))
        }
    }
}

impl ElementPtr {
    /// # Safety
    /// Here and in all methods below: the element is alive, and there is no reference that conflicts with the access.
    #[inline]
    unsafe fn flags(self) -> Flags {
        // SAFETY: every element begins with its flags.
        unsafe { self.0.cast::<Flags>().read() }
    }

    #[inline]
    unsafe fn member_len(self, flags: Flags) -> usize {
        // SAFETY: the length follows the flags, in as many bytes as they tell.
        unsafe {
            let at = self.0.add(1);
            if flags.has(Flags::LONG) {
                at.cast::<u64>().read_unaligned() as usize
            } else {
                usize::from(at.read())
            }
        }
    }

    /// The bytes the value takes in the element.
    #[inline]
    unsafe fn value_size(self, flags: Flags) -> usize {
        // SAFETY: the flags tell whether there is a length, where and of how many bytes.
        unsafe {
            let at = self.0.add(flags.value_len_at());
            match flags.value() {
                Flags::SHORT => usize::from(at.read()),
                Flags::MEDIUM => usize::from(at.cast::<u16>().read_unaligned()),
                Flags::HEAP => HEAP_PARTS,
                _ => 0,
            }
        }
    }

    #[inline]
    unsafe fn value_at(self, flags: Flags) -> NonNull<u8> {
        // SAFETY: the value follows the member within the allocation.
        unsafe { self.0.add(flags.member_at() + self.member_len(flags)) }
    }

    #[inline]
    unsafe fn total(self, flags: Flags) -> usize {
        // SAFETY: the element is alive.
        unsafe { flags.member_at() + self.member_len(flags) + self.value_size(flags) }
    }

    #[inline]
    unsafe fn word(self) -> Option<u64> {
        // SAFETY: the flags tell whether there is a word.
        unsafe {
            let flags = self.flags();
            flags
                .has(Flags::WORD)
                .then(|| self.0.add(flags.word_at()).cast::<u64>().read_unaligned())
        }
    }

    /// Borrows the element.
    ///
    /// # Safety
    /// See `flags`; for `'a` the element must stay alive and must not be changed.
    #[inline]
    pub(crate) unsafe fn as_ref<'a>(self) -> Element<'a> {
        Element {
            ptr: self,
            lives: PhantomData,
        }
    }

    /// Changes the score or expiry, given as bits, of an element that has one; otherwise does nothing and returns
    /// false.
    ///
    /// # Safety
    /// See `flags`; nobody else uses the element.
    #[inline]
    unsafe fn set_word(self, word: u64) -> bool {
        // SAFETY: the flags tell that there is a word to be overwritten.
        unsafe {
            let flags = self.flags();
            if !flags.has(Flags::WORD) {
                return false;
            }
            self.0.add(flags.word_at()).cast::<u64>().write_unaligned(word);
        }
        true
    }

    /// Changes the score of an element that has one; returns whether it has.
    ///
    /// # Safety
    /// The element is alive and nobody borrows it.
    #[inline]
    pub(crate) unsafe fn set_score(self, score: f64) -> bool {
        // SAFETY: as the caller promises.
        unsafe { self.set_word(score.to_bits()) }
    }

    /// Changes the expiry of an element that has one; returns whether it has.
    ///
    /// # Safety
    /// The element is alive and nobody borrows it.
    #[inline]
    pub(crate) unsafe fn set_expiry(self, expiry_ms: i64) -> bool {
        // SAFETY: as the caller promises.
        unsafe { self.set_word(expiry_ms as u64) }
    }

    /// Gives a field another value if that fits the allocation, and returns the number of bytes by which the field
    /// grows.
    ///
    /// # Safety
    /// The element is alive and nobody borrows it.
    #[inline]
    pub(crate) unsafe fn set_value(self, bytes: &[u8]) -> Option<isize> {
        // SAFETY: the caller owns the element, which is alive. An embedded value keeps its form, so nothing before it moves,
        // and its size class, so there is room; lengths are written in as many bytes as before.
        unsafe {
            let flags = self.flags();
            match flags.value() {
                Flags::SHORT if bytes.len() <= SHORT_MAX => {}
                Flags::MEDIUM if bytes.len() > SHORT_MAX && bytes.len() <= EMBEDDED_MAX => {}
                Flags::HEAP if bytes.len() > EMBEDDED_MAX => {
                    let new = Buffer::from(bytes);
                    let after = new.capacity() as isize;
                    return Some(after - self.swap_heap(flags, new).capacity() as isize);
                }
                _ => return None,
            }
            let (value_at, old_len) = (self.value_at(flags), self.value_size(flags));
            if old_len != bytes.len() {
                let old_total = self.total(flags);
                if usable_size(old_total) != usable_size(old_total - old_len + bytes.len()) {
                    return None;
                }
                self.write_value_len(flags, bytes.len());
            }
            value_at.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
        }
        Some(0)
    }

    /// # Safety
    /// The flags are the element's, or about to be, and the length fits what they tell.
    #[inline]
    unsafe fn write_value_len(self, flags: Flags, len: usize) {
        // SAFETY: the flags give the position of the length.
        unsafe {
            let at = self.0.add(flags.value_len_at());
            match flags.value() {
                Flags::SHORT => at.write(len as u8),
                Flags::MEDIUM => at.cast::<u16>().write_unaligned(len as u16),
                _ => {}
            }
        }
    }

    /// Replaces the buffer of a heap value, and returns the old one.
    ///
    /// # Safety
    /// See `flags`; the flags are the element's and include HEAP.
    unsafe fn swap_heap(self, flags: Flags, buffer: Buffer) -> Buffer {
        // SAFETY: a buffer's parts are there; after this they are those of the other.
        unsafe {
            let at = self.value_at(flags);
            let old = ManuallyDrop::into_inner(read_buffer(at));
            write_buffer(at, buffer);
            old
        }
    }
}

/// # Safety
/// The parts of a buffer may be written at `at`.
#[inline]
unsafe fn write_buffer(at: NonNull<u8>, buffer: Buffer) {
    let (ptr, len, capacity) = buffer.into_parts();
    // SAFETY: the caller gives room for three words; the pointer is written as one, so it keeps its provenance.
    unsafe {
        at.cast::<NonNull<u8>>().write_unaligned(ptr);
        at.cast::<usize>().add(1).write_unaligned(len);
        at.cast::<usize>().add(2).write_unaligned(capacity);
    }
}

/// The buffer whose parts are at `at`. The parts stay there: the caller decides which of the two is used further.
///
/// # Safety
/// [`write_buffer`] has written at `at`.
#[inline]
unsafe fn read_buffer(at: NonNull<u8>) -> ManuallyDrop<Buffer> {
    // SAFETY: the parts are initialised, and the caller drops only one of the copies.
    unsafe {
        let ptr = at.cast::<NonNull<u8>>().read_unaligned();
        let len = at.cast::<usize>().add(1).read_unaligned();
        let capacity = at.cast::<usize>().add(2).read_unaligned();
        ManuallyDrop::new(Buffer::from_parts(ptr, len, capacity))
    }
}

/// An element, borrowed.
#[derive(Clone, Copy)]
pub struct Element<'a> {
    ptr: ElementPtr,
    lives: PhantomData<&'a [u8]>,
}

impl<'a> Element<'a> {
    /// The member, or a hash's field.
    #[inline]
    #[must_use]
    pub fn member(self) -> &'a [u8] {
        // SAFETY: the element is borrowed for `'a`.
        unsafe { self.ptr.key() }
    }

    /// The value of a hash's field; empty if there is none.
    #[inline]
    #[must_use]
    pub fn value(self) -> &'a [u8] {
        // SAFETY: the element is borrowed for `'a`, and the flags tell where its value is. Of a buffer only pointer and
        // length are read, and the bytes they tell of are the element's own.
        unsafe {
            let flags = self.ptr.flags();
            let at = self.ptr.value_at(flags);
            if flags.value() == Flags::HEAP {
                let ptr = at.cast::<NonNull<u8>>().read_unaligned();
                let len = at.cast::<usize>().add(1).read_unaligned();
                return std::slice::from_raw_parts(ptr.as_ptr(), len);
            }
            std::slice::from_raw_parts(at.as_ptr(), self.ptr.value_size(flags))
        }
    }

    /// The score of a sorted set's member; 0 if it has none.
    #[inline]
    #[must_use]
    pub fn score(self) -> f64 {
        // SAFETY: the element is borrowed for `'a`.
        f64::from_bits(unsafe { self.ptr.word() }.unwrap_or(0))
    }

    /// Expiry of a hash's field, milliseconds since 1970.
    #[inline]
    #[must_use]
    pub fn expiry(self) -> Option<i64> {
        // SAFETY: the element is borrowed for `'a`.
        unsafe { self.ptr.word() }.map(|word| word as i64)
    }

    /// The bytes it takes, those of a value on the heap included.
    #[must_use]
    pub fn memory(self) -> usize {
        // SAFETY: the element is borrowed; a buffer read from it is not dropped.
        unsafe {
            let flags = self.ptr.flags();
            let own = usable_size(self.ptr.total(flags));
            if flags.value() != Flags::HEAP {
                return own;
            }
            own + read_buffer(self.ptr.value_at(flags)).capacity()
        }
    }

    /// The pointer by which tables and trees know it.
    #[inline]
    pub(crate) fn ptr(self) -> ElementPtr {
        self.ptr
    }

    /// A copy of the element.
    pub(crate) fn duplicate(self) -> ElementBox {
        // SAFETY: the element is borrowed.
        let (flags, word) = unsafe { (self.ptr.flags(), self.ptr.word()) };
        let value = match flags.value() {
            Flags::BARE => Value::None,
            _ => Value::of(self.value()),
        };
        ElementBox::new(self.member(), word, value)
    }
}

impl fmt::Debug for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Element")
            .field("member", &self.member().escape_ascii().to_string())
            .field("value", &self.value().escape_ascii().to_string())
            .field("expiry", &self.expiry())
            .finish()
    }
}

/// An element with its ownership.
pub(crate) struct ElementBox(ElementPtr);

// SAFETY: an element is plain bytes and a buffer of its own; nothing ties it to a thread.
unsafe impl Send for ElementBox {}
// SAFETY: nothing changes through a shared reference.
unsafe impl Sync for ElementBox {}

impl ElementBox {
    /// A member of a set.
    #[inline]
    pub(crate) fn member(member: &[u8]) -> Self {
        Self::new(member, None, Value::None)
    }

    /// A member of a sorted set.
    #[inline]
    pub(crate) fn scored(member: &[u8], score: f64) -> Self {
        Self::new(member, Some(score.to_bits()), Value::None)
    }

    /// A field of a hash, with its expiry, milliseconds since 1970.
    #[inline]
    pub(crate) fn field(field: &[u8], value: &[u8], expiry_ms: Option<i64>) -> Self {
        Self::new(field, expiry_ms.map(|at| at as u64), Value::of(value))
    }

    /// Builds an element. One allocation; O(length of member and embedded value).
    #[inline]
    fn new(member: &[u8], word: Option<u64>, value: Value<'_>) -> Self {
        let long = if member.len() <= SHORT_MAX { 0 } else { Flags::LONG };
        let has_word = if word.is_none() { 0 } else { Flags::WORD };
        let flags = Flags(value.flag() | long | has_word);
        let member_at = flags.member_at();
        let ptr = alloc(member_at + member.len() + value.size(), ALIGN);
        // SAFETY: the allocation holds all parts in the order of the module's header, each as long as the flags tell.
        unsafe {
            ptr.cast::<Flags>().write(flags);
            let len_at = ptr.add(1);
            if long == 0 {
                len_at.write(member.len() as u8);
            } else {
                len_at.cast::<u64>().write_unaligned(member.len() as u64);
            }
            if let Some(word) = word {
                ptr.add(flags.word_at()).cast::<u64>().write_unaligned(word);
            }
            ptr.add(member_at)
                .copy_from_nonoverlapping(NonNull::from(member).cast(), member.len());
            let value_at = ptr.add(member_at + member.len());
            match value {
                Value::None => {}
                Value::Embedded(bytes) => {
                    ElementPtr(ptr).write_value_len(flags, bytes.len());
                    value_at.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
                }
                Value::Heap(buffer) => write_buffer(value_at, buffer),
            }
        }
        Self(ElementPtr(ptr))
    }

    /// Borrows it.
    #[inline]
    pub(crate) fn get(&self) -> Element<'_> {
        // SAFETY: alive as long as the box, which is borrowed.
        unsafe { self.0.as_ref() }
    }

    /// The same field and value with another expiry, or none. A value on the heap moves.
    pub(crate) fn with_expiry(self, expiry_ms: Option<i64>) -> Self {
        // SAFETY: the element is ours; a buffer taken out leaves an empty one to be dropped.
        unsafe {
            let flags = self.0.flags();
            if let Some(at) = expiry_ms
                && self.0.set_expiry(at)
            {
                return self;
            }
            let word = expiry_ms.map(|at| at as u64);
            let value = match flags.value() {
                Flags::BARE => Value::None,
                Flags::HEAP => Value::Heap(self.0.swap_heap(flags, Buffer::new())),
                _ => Value::Embedded(self.get().value()),
            };
            Self::new(self.get().member(), word, value)
        }
    }

    /// Gives up ownership: the pointer must come back through [`ElementBox::from_ptr`].
    #[inline]
    pub(crate) fn into_ptr(self) -> ElementPtr {
        ManuallyDrop::new(self).0
    }

    /// Takes ownership again.
    ///
    /// # Safety
    /// The pointer came from [`ElementBox::into_ptr`], only once since, and nobody borrows the element.
    #[inline]
    pub(crate) unsafe fn from_ptr(ptr: ElementPtr) -> Self {
        Self(ptr)
    }
}

impl Drop for ElementBox {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the element is ours; its buffer is freed once, then its allocation with a size of its class.
        unsafe {
            let flags = self.0.flags();
            if flags.value() == Flags::HEAP {
                drop(ManuallyDrop::into_inner(read_buffer(self.0.value_at(flags))));
            }
            dealloc(self.0.0, self.0.total(flags), ALIGN);
        }
    }
}

impl fmt::Debug for ElementBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::thread_balance;

    fn bytes_of_any_form() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            proptest::collection::vec(any::<u8>(), 250..260),
            proptest::collection::vec(any::<u8>(), 1020..1030),
            proptest::collection::vec(any::<u8>(), 3000..3010),
        ]
    }

    #[test]
    fn elements_are_as_small_as_the_header_says() {
        let start = thread_balance();
        let member = ElementBox::member(&[7; 16]);
        assert_eq!(thread_balance() - start, 24);
        let scored = ElementBox::scored(&[7; 16], 1.5);
        assert_eq!(thread_balance() - start, 24 + 32);
        let field = ElementBox::field(&[7; 16], &[8; 20], None);
        assert_eq!(thread_balance() - start, 24 + 32 + 40);
        assert_eq!(scored.get().score(), 1.5);
        assert_eq!((member.get().value(), member.get().score()), (&b""[..], 0.0));
        assert_eq!(field.get().expiry(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]
        #[test]
        fn elements_keep_what_they_are_given(
            member in bytes_of_any_form(),
            mut value in bytes_of_any_form(),
            steps in proptest::collection::vec((bytes_of_any_form(), any::<Option<i64>>(), 0u8..4), 0..8),
        ) {
            let start = thread_balance();
            let mut element = ElementBox::field(&member, &value, None);
            let mut expiry = None;
            for (bytes, at, step) in steps {
                match step {
                    0 => {
                        element = element.with_expiry(at);
                        expiry = at;
                    }
                    1 => element = element.get().duplicate(),
                    _ => {
                        // SAFETY: the element is ours and not borrowed.
                        if unsafe { element.0.set_value(&bytes) }.is_none() {
                            element = ElementBox::field(&member, &bytes, expiry);
                        }
                        value = bytes;
                    }
                }
                prop_assert_eq!(element.get().member(), &member[..]);
                prop_assert_eq!(element.get().value(), &value[..]);
                prop_assert_eq!(element.get().expiry(), expiry);
                prop_assert_eq!(element.get().memory() as i64, thread_balance() - start);
            }
            let scored = ElementBox::scored(&member, -2.5);
            prop_assert_eq!((scored.get().member(), scored.get().score()), (&member[..], -2.5));
            drop((element, scored));
            prop_assert_eq!(thread_balance(), start);
        }
    }

    #[test]
    fn a_value_of_the_same_class_is_written_in_place() {
        let element = ElementBox::field(b"field", b"1", None);
        // SAFETY: the element is ours and not borrowed.
        let (near, far) = unsafe { (element.0.set_value(b"123"), element.0.set_value(&[b'x'; 100])) };
        assert_eq!((near, far), (Some(0), None));
        assert_eq!(element.get().value(), b"123");
    }
}
