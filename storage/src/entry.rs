//! UNSAFE: a key, its value and what is known about both, in one allocation.
//!
//! ```text
//!  byte 0        1..4          4..6         6..8
//! +-------------+-------------+------------+--------------+
//! | form, flags | clock       | key length | value length |   header, one little word of 8 bytes
//! +-------------+-------------+------------+--------------+
//! | expiry: milliseconds since 1970        (if EXPIRES)   |
//! +-------------------------------------------------------+
//! | key length of 64 bits                  (if LONG_KEY)  |
//! +-------------------------------------------------------+
//! | key                                                   |
//! +-------------------------------------------------------+
//! | value, directly behind the key, at no alignment:      |
//! |   Int       8 bytes                                   |
//! |   Embedded  `value length` bytes                      |
//! |   Heap      pointer, length, capacity of a `Buffer`   |
//! | or, at the next multiple of 8:                        |
//! |   List, Set, Hash, SortedSet, Stream                  |
//! |     the value itself, as Rust lays it out in 24 bytes |
//! +-------------------------------------------------------+
//! ```
//! A key of 16 bytes with a value of 32 takes 8 + 16 + 32 = 56 bytes. The total is rounded up to 8.
//!
//! The *form* says how the value is stored, and with that its type. It takes four bits.
//!
//! An entry has three types: [`Entry`] is borrowed, [`EntryBox`] owns, [`EntryPtr`] is a bare pointer for tables.
//!
//! Invariants: the header describes the bytes after it; the allocation has the size class of the size that the header
//! gives; a heap value's parts belong to the entry alone. The key of an entry never changes, nor does the presence of
//! an expiry (a table that indexes volatile keys relies on it): both take another entry.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::memory::{Buffer, alloc, dealloc, usable_size};
use crate::number::parse_i64;
use crate::table::Keyed;
use crate::value::{
    Collection, CollectionRef, Detached, Encoding, INT_TEXT_MAX, InPlace, Kind, StringRef, format_int,
};

/// Values up to this many bytes stand in the entry; longer ones have an allocation of their own, so that an entry's
/// reallocation when its value changes size stays cheap.
pub const EMBEDDED_MAX: usize = 1024;

/// The longest string OBJECT ENCODING calls `embstr`.
const EMBSTR_MAX: usize = 44;

const ALIGN: usize = 8;
const HEADER: usize = size_of::<Header>();
const HEAP_PARTS: usize = size_of::<NonNull<u8>>() + 2 * size_of::<usize>();

/// Bytes of a collection in its entry.
const COLLECTION: usize = 24;

/// Representation of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Form {
    Int = 0,
    Embedded = 1,
    Heap = 2,
    List = 3,
    Set = 4,
    Hash = 5,
    SortedSet = 6,
    Stream = 7,
    /// A collection was moved out of here; the entry may only be dropped.
    Taken = 15,
}

impl Form {
    /// The form of collections of this type. Strings are not collections.
    #[inline]
    const fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::List => Some(Self::List),
            Kind::Set => Some(Self::Set),
            Kind::Hash => Some(Self::Hash),
            Kind::SortedSet => Some(Self::SortedSet),
            Kind::Stream => Some(Self::Stream),
            Kind::String => None,
        }
    }

    /// Whether the value is at a multiple of 8.
    #[inline]
    const fn is_aligned(self) -> bool {
        self as u8 >= Self::List as u8
    }

    /// Start of the value if the key ends at `key_end`.
    #[inline]
    const fn value_at(self, key_end: usize) -> usize {
        if self.is_aligned() {
            (key_end + (ALIGN - 1)) & !(ALIGN - 1)
        } else {
            key_end
        }
    }
}

/// The first word of an entry.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Header(u64);

impl Header {
    const FORM_MASK: u64 = 0x0f;
    /// The entry has an expiry.
    const EXPIRES: u64 = 1 << 4;
    /// The key length does not fit 16 bits and is in a word of its own.
    const LONG_KEY: u64 = 1 << 5;
    /// A short string that was changed in place, so that it is `raw` though it could be `embstr`.
    const RAW: u64 = 1 << 6;
    /// A hash some of whose fields expire, and which its store lists as such.
    const FIELDS_EXPIRE: u64 = 1 << 7;
    const CLOCK_SHIFT: u32 = 8;
    const CLOCK_MASK: u64 = 0x00ff_ffff;
    const KEY_SHIFT: u32 = 32;
    const VALUE_SHIFT: u32 = 48;
    const VALUE_MASK: u64 = 0x7fff;
    /// Differs from the mark of the entry's store while a snapshot has still to save the entry.
    const MARK: u64 = 1 << 63;

    #[inline]
    fn form(self) -> Form {
        match self.0 & Self::FORM_MASK {
            0 => Form::Int,
            1 => Form::Embedded,
            2 => Form::Heap,
            3 => Form::List,
            4 => Form::Set,
            5 => Form::Hash,
            6 => Form::SortedSet,
            7 => Form::Stream,
            _ => Form::Taken,
        }
    }

    #[inline]
    fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    #[inline]
    fn clock(self) -> u32 {
        (self.0 >> Self::CLOCK_SHIFT & Self::CLOCK_MASK) as u32
    }

    #[inline]
    fn with_clock(self, clock: u32) -> Self {
        let clock = u64::from(clock) & Self::CLOCK_MASK;
        Self(self.0 & !(Self::CLOCK_MASK << Self::CLOCK_SHIFT) | clock << Self::CLOCK_SHIFT)
    }

    /// The key length, unless it is in a word of its own.
    #[inline]
    fn short_key(self) -> usize {
        usize::from((self.0 >> Self::KEY_SHIFT) as u16)
    }

    #[inline]
    fn embedded(self) -> usize {
        (self.0 >> Self::VALUE_SHIFT & Self::VALUE_MASK) as usize
    }

    /// The same key and clock with another value.
    #[inline]
    fn with_value(self, value: &NewValue<'_>) -> Self {
        const KEPT: u64 = (Header::CLOCK_MASK << Header::CLOCK_SHIFT)
            | (0xffff << Header::KEY_SHIFT)
            | Header::EXPIRES
            | Header::LONG_KEY
            | Header::MARK;
        Self(self.0 & KEPT | value.header_bits())
    }

    /// Start of the key.
    #[inline]
    fn key_at(self) -> usize {
        HEADER + 8 * usize::from(self.has(Self::EXPIRES)) + 8 * usize::from(self.has(Self::LONG_KEY))
    }

    #[inline]
    fn value_size(self) -> usize {
        match self.form() {
            Form::Int => size_of::<i64>(),
            Form::Embedded => self.embedded(),
            Form::Heap => HEAP_PARTS,
            Form::List | Form::Set | Form::Hash | Form::SortedSet | Form::Stream | Form::Taken => COLLECTION,
        }
    }
}

/// A value to be put into an entry.
pub(crate) enum NewValue<'a> {
    /// An integer.
    Int(i64),
    /// Bytes to embed, at most [`EMBEDDED_MAX`] with the zeros that follow them up to `len`; `raw` if they are not to
    /// count as `embstr` even if short.
    Embedded { bytes: &'a [u8], len: usize, raw: bool },
    /// Bytes that keep their own allocation.
    Heap(Buffer),
    /// A collection.
    Collection(Collection),
}

impl<'a> NewValue<'a> {
    /// A string in the form it gets when set as a whole: integer, embedded or copied to an allocation of its own.
    #[inline]
    pub(crate) fn string(bytes: &'a [u8]) -> Self {
        if let Some(int) = canonical_int(bytes) {
            Self::Int(int)
        } else if bytes.len() <= EMBEDDED_MAX {
            Self::Embedded {
                bytes,
                len: bytes.len(),
                raw: false,
            }
        } else {
            Self::Heap(Buffer::from(bytes))
        }
    }

    /// A string that stays in bytes even if these spell an integer.
    #[inline]
    pub(crate) fn text(bytes: &'a [u8]) -> Self {
        if Self::embeds(bytes) {
            Self::Embedded {
                bytes,
                len: bytes.len(),
                raw: false,
            }
        } else {
            Self::Heap(Buffer::from(bytes))
        }
    }

    /// Whether bytes set as a whole need no allocation of their own.
    #[inline]
    pub(crate) fn embeds(bytes: &[u8]) -> bool {
        bytes.len() <= EMBEDDED_MAX
    }

    #[inline]
    fn size(&self) -> usize {
        match self {
            Self::Int(_) => size_of::<i64>(),
            Self::Embedded { len, .. } => *len,
            Self::Heap(_) => HEAP_PARTS,
            Self::Collection(_) => COLLECTION,
        }
    }

    #[inline]
    fn form(&self) -> Form {
        match self {
            Self::Int(_) => Form::Int,
            Self::Embedded { .. } => Form::Embedded,
            Self::Heap(_) => Form::Heap,
            Self::Collection(Collection::List(_)) => Form::List,
            Self::Collection(Collection::Set(_)) => Form::Set,
            Self::Collection(Collection::Hash(_)) => Form::Hash,
            Self::Collection(Collection::SortedSet(_)) => Form::SortedSet,
            Self::Collection(Collection::Stream(_)) => Form::Stream,
        }
    }

    #[inline]
    fn header_bits(&self) -> u64 {
        let form = self.form() as u64;
        let Self::Embedded { len, raw, .. } = self else {
            return form;
        };
        debug_assert!(*len <= EMBEDDED_MAX);
        form | (u64::from(*raw) * Header::RAW) | ((*len as u64) << Header::VALUE_SHIFT)
    }

    /// Writes the value's bytes.
    ///
    /// # Safety
    /// [`NewValue::size`] bytes may be written at `at`, which is aligned to 8 for a collection, and nothing there needs
    /// to be dropped.
    #[inline]
    unsafe fn write(self, at: NonNull<u8>) {
        // SAFETY: exactly `size` bytes are written; `bytes` are borrowed, so they do not overlap memory that the caller
        // may write to.
        unsafe {
            match self {
                Self::Int(int) => at.cast::<i64>().write_unaligned(int),
                Self::Embedded { bytes, len, .. } => {
                    let copied = bytes.len().min(len);
                    at.copy_from_nonoverlapping(NonNull::from(bytes).cast(), copied);
                    if len > copied {
                        at.add(copied).write_bytes(0, len - copied);
                    }
                }
                Self::Heap(buffer) => write_buffer(at, buffer),
                Self::Collection(Collection::List(list)) => at.cast().write(list),
                Self::Collection(Collection::Set(set)) => at.cast().write(set),
                Self::Collection(Collection::Hash(hash)) => at.cast().write(hash),
                Self::Collection(Collection::SortedSet(set)) => at.cast().write(set),
                Self::Collection(Collection::Stream(stream)) => at.cast().write(stream),
            }
        }
    }
}

impl From<Detached> for NewValue<'_> {
    fn from(value: Detached) -> Self {
        match value {
            Detached::Bytes(buffer) => Self::Heap(buffer),
            Detached::Collection(collection) => Self::Collection(collection),
        }
    }
}

/// The integer that `bytes` spell, if it would be printed back as just these bytes.
#[inline]
fn canonical_int(bytes: &[u8]) -> Option<i64> {
    if bytes.len() > INT_TEXT_MAX {
        return None;
    }
    parse_i64(bytes)
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

/// The size of an entry whose key ends at `key_end`.
#[inline]
fn total(key_end: usize, form: Form, value_size: usize) -> usize {
    (form.value_at(key_end) + value_size + (ALIGN - 1)) & !(ALIGN - 1)
}

/// A bare pointer to an entry, for tables, made from an [`EntryBox`]. Its holder must turn it into one again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EntryPtr(NonNull<u8>);

// SAFETY: a bare pointer gives no access: code that dereferences it must justify that.
unsafe impl Send for EntryPtr {}

// SAFETY: entries are allocated with an alignment of 8, and pointers to them compare as addresses.
unsafe impl Keyed for EntryPtr {
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
        // SAFETY: the entry is alive and its key never changes.
        unsafe {
            let header = self.header();
            std::slice::from_raw_parts(self.0.add(header.key_at()).as_ptr(), self.key_len(header))
        }
    }
}

impl EntryPtr {
    /// # Safety
    /// Here and in all methods below: the entry is alive, and there is no reference that conflicts with the access.
    #[inline]
    unsafe fn header(self) -> Header {
        // SAFETY: every entry begins with a header.
        unsafe { self.0.cast::<Header>().read() }
    }

    #[inline]
    unsafe fn set_header(self, header: Header) {
        // SAFETY: every entry begins with a header.
        unsafe { self.0.cast::<Header>().write(header) }
    }

    #[inline]
    unsafe fn key_len(self, header: Header) -> usize {
        if header.has(Header::LONG_KEY) {
            // SAFETY: the flag says that the word before the key is its length.
            return unsafe { self.0.add(header.key_at() - 8).cast::<u64>().read() } as usize;
        }
        header.short_key()
    }

    #[inline]
    unsafe fn value_at(self, header: Header) -> NonNull<u8> {
        // SAFETY: the value follows the key within the allocation.
        unsafe { self.0.add(header.form().value_at(self.key_end(header))) }
    }

    /// End of the key.
    #[inline]
    unsafe fn key_end(self, header: Header) -> usize {
        // SAFETY: the entry is alive.
        header.key_at() + unsafe { self.key_len(header) }
    }

    #[inline]
    unsafe fn total(self, header: Header) -> usize {
        // SAFETY: the entry is alive.
        total(
            unsafe { self.key_end(header) },
            header.form(),
            header.value_size(),
        )
    }

    /// Borrows the entry.
    ///
    /// # Safety
    /// See [`EntryPtr::header`]; for `'a` the entry must stay alive and must not be changed.
    #[inline]
    pub(crate) unsafe fn as_ref<'a>(self) -> &'a Entry {
        // SAFETY: the reference spans what the header describes: all of it is allocated and initialised.
        unsafe { &*self.wide() }
    }

    /// Borrows the entry to change it.
    ///
    /// # Safety
    /// See [`EntryPtr::header`]; for `'a` nothing else uses the entry.
    #[inline]
    pub(crate) unsafe fn as_mut<'a>(self) -> &'a mut Entry {
        // SAFETY: as for `as_ref`, and alone.
        unsafe { &mut *self.wide() }
    }

    #[inline]
    unsafe fn wide(self) -> *mut Entry {
        // SAFETY: the entry is alive.
        let tail = unsafe {
            let header = self.header();
            header.form().value_at(self.key_end(header)) + header.value_size() - HEADER
        };
        std::ptr::slice_from_raw_parts_mut(self.0.as_ptr(), tail) as *mut Entry
    }

    /// Gives the entry another value, and another expiry if it has one, if the size allows it: the size class must
    /// stay the same, and an expiry must exist before if there is one after. Otherwise the value is returned. Returns
    /// the part of the old value that is outside of the entry.
    ///
    /// # Safety
    /// See [`EntryPtr::as_mut`].
    #[inline]
    pub(crate) unsafe fn assign<'v>(
        self,
        expiry: Option<i64>,
        value: NewValue<'v>,
    ) -> Result<Option<Detached>, NewValue<'v>> {
        // SAFETY: the entry is alive and ours; the class of the allocation stays that of the size the header tells.
        unsafe {
            let header = self.header();
            let key_end = self.key_end(header);
            let old_total = total(key_end, header.form(), header.value_size());
            let new_total = total(key_end, value.form(), value.size());
            let fits = old_total == new_total || usable_size(old_total) == usable_size(new_total);
            if !fits || header.has(Header::EXPIRES) != expiry.is_some() {
                return Err(value);
            }
            let replaced = self.detach(header);
            if let Some(at) = expiry {
                self.0.add(HEADER).cast::<i64>().write(at);
            }
            let header = header.with_value(&value);
            self.set_header(header);
            value.write(self.value_at(header));
            Ok(replaced)
        }
    }

    /// Takes out a value that is outside of the entry; the rest need not be dropped.
    ///
    /// # Safety
    /// See [`EntryPtr::as_mut`]; `header` is the entry's.
    #[inline]
    unsafe fn detach(self, header: Header) -> Option<Detached> {
        // SAFETY: the form says what is there; it is moved out once, since what is left has another form or is an empty
        // buffer.
        unsafe {
            let at = self.value_at(header);
            let collection = match header.form() {
                Form::Int | Form::Embedded | Form::Taken => return None,
                Form::Heap => {
                    let buffer = ManuallyDrop::into_inner(read_buffer(at));
                    write_buffer(at, Buffer::new());
                    return Some(Detached::Bytes(buffer));
                }
                Form::List => Collection::List(at.cast().read()),
                Form::Set => Collection::Set(at.cast().read()),
                Form::Hash => Collection::Hash(at.cast().read()),
                Form::SortedSet => Collection::SortedSet(at.cast().read()),
                Form::Stream => Collection::Stream(at.cast().read()),
            };
            self.set_header(Header(header.0 & !Header::FORM_MASK | Form::Taken as u64));
            Some(Detached::Collection(collection))
        }
    }

    /// Builds the entry that replaces this one, with another key, clock or expiry. The value moves if it is on the
    /// heap, else it is copied; the old entry then has an unspecified value and may only be dropped.
    ///
    /// # Safety
    /// See [`EntryPtr::as_mut`].
    pub(crate) unsafe fn rebuild(self, key: Option<&[u8]>, clock: u32, expiry: Option<i64>) -> EntryBox {
        // SAFETY: the entry is alive and ours; the borrowed key and bytes end before it changes again.
        unsafe {
            let header = self.header();
            let value = match self.detach(header) {
                Some(value) => value.into(),
                None => self.as_ref().embedded_value(),
            };
            EntryBox::new(key.unwrap_or_else(|| self.key()), clock, expiry, value)
        }
    }

    /// Makes the string raw and at least `len` bytes long if that can be done within the allocation.
    ///
    /// # Safety
    /// See [`EntryPtr::as_mut`]; the entry holds a string.
    pub(crate) unsafe fn grow_in_place(self, len: usize) -> bool {
        // SAFETY: the entry is alive and ours. The class of the allocation stays that of the size the header tells, and
        // what a longer value adds is zeroed before the header tells of it.
        unsafe {
            let header = self.header();
            let at = self.value_at(header);
            match header.form() {
                Form::Heap => {
                    let mut buffer = ManuallyDrop::into_inner(read_buffer(at));
                    if buffer.len() < len {
                        buffer.resize(len);
                    }
                    write_buffer(at, buffer);
                    true
                }
                Form::Embedded => {
                    let old = header.embedded();
                    let new = old.max(len);
                    let key_end = self.key_end(header);
                    let new_total = total(key_end, Form::Embedded, new);
                    let old_total = total(key_end, Form::Embedded, old);
                    if new > EMBEDDED_MAX || usable_size(old_total) != usable_size(new_total) {
                        return false;
                    }
                    at.add(old).write_bytes(0, new - old);
                    let value = NewValue::Embedded {
                        bytes: &[],
                        len: new,
                        raw: true,
                    };
                    self.set_header(header.with_value(&value));
                    true
                }
                _ => false,
            }
        }
    }
}

/// An entry, borrowed: key, value, expiry and access clock.
///
/// As an unsized type it cannot be swapped with another one, so that a `&mut Entry` gives no way to put an entry under
/// a key that is not its own.
#[repr(C)]
pub struct Entry {
    header: Header,
    /// The bytes after the header.
    tail: [u8],
}

impl Entry {
    /// Start of the key in `tail`, and its length.
    #[inline]
    fn key_span(&self) -> (usize, usize) {
        let at = self.header.key_at() - HEADER;
        if self.header.has(Header::LONG_KEY) {
            let mut len = [0; 8];
            len.copy_from_slice(&self.tail[at - 8..at]);
            return (at, u64::from_ne_bytes(len) as usize);
        }
        (at, self.header.short_key())
    }

    /// The key.
    #[inline]
    #[must_use]
    pub fn key(&self) -> &[u8] {
        let (at, len) = self.key_span();
        &self.tail[at..at + len]
    }

    #[inline]
    fn value_bytes(&self) -> &[u8] {
        &self.tail[self.value_start()..]
    }

    /// Start of the value in `tail`. A multiple of 8 there is one in the entry, whose header has 8 bytes.
    #[inline]
    fn value_start(&self) -> usize {
        let (at, len) = self.key_span();
        self.header.form().value_at(at + len)
    }

    /// The type of the value.
    #[inline]
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.header.form() {
            Form::Int | Form::Embedded | Form::Heap | Form::Taken => Kind::String,
            Form::List => Kind::List,
            Form::Set => Kind::Set,
            Form::Hash => Kind::Hash,
            Form::SortedSet => Kind::SortedSet,
            Form::Stream => Kind::Stream,
        }
    }

    /// Encoding of the value.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        match self.header.form() {
            Form::Int => Encoding::Int,
            Form::Embedded if self.header.embedded() <= EMBSTR_MAX && !self.header.has(Header::RAW) => {
                Encoding::EmbStr
            }
            _ => self.collection().map_or(Encoding::Raw, |value| value.encoding()),
        }
    }

    /// The string, if the value is one.
    #[inline]
    #[must_use]
    pub fn string(&self) -> Option<StringRef<'_>> {
        match self.header.form() {
            Form::Int => Some(StringRef::Int(self.int())),
            Form::Embedded => Some(StringRef::Bytes(self.value_bytes())),
            Form::Heap => Some(StringRef::Bytes(self.heap())),
            _ => None,
        }
    }

    /// Replaces the integer that the entry holds. False when it holds another kind of value.
    #[inline]
    pub fn replace_int(&mut self, int: i64) -> bool {
        if self.header.form() != Form::Int {
            return false;
        }
        let start = self.value_start();
        self.tail[start..start + size_of::<i64>()].copy_from_slice(&int.to_ne_bytes());
        true
    }

    /// The collection, if the value is one of this type.
    #[inline]
    #[must_use]
    pub fn get<T: InPlace>(&self) -> Option<&T> {
        const { assert!(size_of::<T>() <= COLLECTION && align_of::<T>() <= ALIGN) };
        if Form::of(T::KIND) != Some(self.header.form()) {
            return None;
        }
        // SAFETY: the form says that a value of the type is there, aligned; it is borrowed as the entry is.
        Some(unsafe { NonNull::from(self.value_bytes()).cast::<T>().as_ref() })
    }

    /// The collection, if the value is one of this type, to be changed.
    #[inline]
    #[must_use]
    pub fn get_mut<T: InPlace>(&mut self) -> Option<&mut T> {
        const { assert!(size_of::<T>() <= COLLECTION && align_of::<T>() <= ALIGN) };
        if Form::of(T::KIND) != Some(self.header.form()) {
            return None;
        }
        let start = self.value_start();
        // SAFETY: as for `get`, and the entry is borrowed mutably.
        Some(unsafe { NonNull::from(&mut self.tail[start..]).cast::<T>().as_mut() })
    }

    /// The collection, if the value is one of any type.
    #[inline]
    #[must_use]
    pub fn collection(&self) -> Option<CollectionRef<'_>> {
        None.or_else(|| self.get().map(CollectionRef::List))
            .or_else(|| self.get().map(CollectionRef::Set))
            .or_else(|| self.get().map(CollectionRef::Hash))
            .or_else(|| self.get().map(CollectionRef::SortedSet))
            .or_else(|| self.get().map(CollectionRef::Stream))
    }

    /// The mark by which a snapshot knows what it has saved.
    #[inline]
    pub(crate) fn mark(&self) -> bool {
        self.header.has(Header::MARK)
    }

    /// Sets the mark.
    #[inline]
    pub(crate) fn set_mark(&mut self, mark: bool) {
        self.header.0 = self.header.0 & !Header::MARK | (u64::from(mark) * Header::MARK);
    }

    /// Whether the store lists this hash among those with fields that expire.
    #[inline]
    pub(crate) fn lists_fields(&self) -> bool {
        self.header.has(Header::FIELDS_EXPIRE)
    }

    /// Notes whether the store lists this hash among those with fields that expire.
    #[inline]
    pub(crate) fn set_lists_fields(&mut self, listed: bool) {
        self.header.0 &= !Header::FIELDS_EXPIRE;
        self.header.0 |= u64::from(listed) * Header::FIELDS_EXPIRE;
    }

    #[inline]
    fn int(&self) -> i64 {
        let mut int = [0; 8];
        int.copy_from_slice(&self.value_bytes()[..8]);
        i64::from_ne_bytes(int)
    }

    /// The bytes of a heap value.
    #[inline]
    fn heap(&self) -> &[u8] {
        debug_assert_eq!(self.header.form(), Form::Heap);
        // SAFETY: the form says that a buffer's parts are there. They are only read, and the bytes they tell of are
        // borrowed for as long as the entry is.
        unsafe {
            let at = NonNull::from(self.value_bytes()).cast::<u8>();
            let ptr = at.cast::<NonNull<u8>>().read_unaligned();
            let len = at.cast::<usize>().add(1).read_unaligned();
            std::slice::from_raw_parts(ptr.as_ptr(), len)
        }
    }

    /// The bytes of a string that is not an integer, to be changed in place.
    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        let start = self.value_start();
        match self.header.form() {
            Form::Embedded => Some(&mut self.tail[start..]),
            // SAFETY: as for `heap`; the bytes belong to the entry, which is borrowed mutably.
            Form::Heap => unsafe {
                let at = NonNull::from(&mut self.tail[start..]).cast::<u8>();
                let ptr = at.cast::<NonNull<u8>>().read_unaligned();
                let len = at.cast::<usize>().add(1).read_unaligned();
                Some(std::slice::from_raw_parts_mut(ptr.as_ptr(), len))
            },
            _ => None,
        }
    }

    /// A value that is not on the heap, to be copied into another entry.
    fn embedded_value(&self) -> NewValue<'_> {
        match self.header.form() {
            Form::Int => NewValue::Int(self.int()),
            _ => {
                let bytes = self.value_bytes();
                NewValue::Embedded {
                    bytes,
                    len: bytes.len(),
                    raw: self.header.has(Header::RAW),
                }
            }
        }
    }

    /// Expiry of the key, milliseconds since 1970.
    #[inline]
    #[must_use]
    pub fn expiry(&self) -> Option<i64> {
        if !self.header.has(Header::EXPIRES) {
            return None;
        }
        let mut at = [0; 8];
        at.copy_from_slice(&self.tail[..8]);
        Some(i64::from_ne_bytes(at))
    }

    /// Whether the key's time is over at `now_ms`. The millisecond of its expiry itself still belongs to it.
    #[inline]
    #[must_use]
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expiry().is_some_and(|at| now_ms > at)
    }

    /// Changes an existing expiry; false if there is none.
    pub(crate) fn set_expiry_in_place(&mut self, at: i64) -> bool {
        let expires = self.header.has(Header::EXPIRES);
        if expires {
            self.tail[..8].copy_from_slice(&at.to_ne_bytes());
        }
        expires
    }

    /// The access clock, 24 bits; what they mean is up to [`crate::keyspace::eviction`].
    #[inline]
    #[must_use]
    pub fn clock(&self) -> u32 {
        self.header.clock()
    }

    /// Sets the access clock to the low 24 bits of `clock`.
    #[inline]
    pub fn set_clock(&mut self, clock: u32) {
        self.header = self.header.with_clock(clock);
    }

    /// Bytes allocated for the entry and its value, by size class; the table's share is not in it. O(1) but for large
    /// collections, which estimate.
    #[must_use]
    pub fn memory(&self) -> usize {
        usable_size(size_of_val(self)) + self.outside_memory()
    }

    /// Bytes allocated outside the entry.
    fn outside_memory(&self) -> usize {
        match self.collection() {
            Some(value) => value.memory(),
            None if self.header.form() == Form::Heap => self.heap_capacity(),
            None => 0,
        }
    }

    /// Whether freeing it takes long enough to be done in slices.
    pub(crate) fn is_large(&self) -> bool {
        match self.collection() {
            Some(value) => value.free_cost() > crate::release::COLLECTION_MIN,
            None => self.header.form() == Form::Heap && self.heap_capacity() > crate::release::BUFFER_MIN,
        }
    }

    fn heap_capacity(&self) -> usize {
        let parts = self.value_bytes();
        let mut capacity = [0; size_of::<usize>()];
        capacity.copy_from_slice(&parts[HEAP_PARTS - size_of::<usize>()..]);
        usize::from_ne_bytes(capacity)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key().escape_ascii().to_string())
            .field("kind", &self.kind())
            .field("expiry", &self.expiry())
            .finish_non_exhaustive()
    }
}

/// An entry with its ownership.
pub(crate) struct EntryBox(EntryPtr);

// SAFETY: an entry is plain bytes and a buffer of its own; nothing ties it to a thread.
unsafe impl Send for EntryBox {}
// SAFETY: nothing changes through a shared reference.
unsafe impl Sync for EntryBox {}

impl EntryBox {
    /// Builds an entry. One allocation; O(length of key and embedded value).
    #[inline]
    pub(crate) fn new(key: &[u8], clock: u32, expiry: Option<i64>, value: NewValue<'_>) -> Self {
        let long = key.len() > usize::from(u16::MAX);
        let key_bits = if long {
            Header::LONG_KEY
        } else {
            (key.len() as u64) << Header::KEY_SHIFT
        };
        let expiry_bits = if expiry.is_some() { Header::EXPIRES } else { 0 };
        let header = Header(key_bits | expiry_bits | value.header_bits()).with_clock(clock);
        let key_at = header.key_at();
        let key_end = key_at + key.len();
        let ptr = alloc(total(key_end, value.form(), value.size()), ALIGN);
        // SAFETY: the allocation holds header, expiry, key length, key and value in this order, as `total` counted.
        unsafe {
            ptr.cast::<Header>().write(header);
            if let Some(at) = expiry {
                ptr.add(HEADER).cast::<i64>().write(at);
            }
            if long {
                ptr.add(key_at - 8).cast::<u64>().write(key.len() as u64);
            }
            ptr.add(key_at)
                .copy_from_nonoverlapping(NonNull::from(key).cast(), key.len());
            let form = value.form();
            value.write(ptr.add(form.value_at(key_end)));
        }
        Self(EntryPtr(ptr))
    }

    /// Gives up ownership: the pointer must come back through [`EntryBox::from_ptr`].
    #[inline]
    pub(crate) fn into_ptr(self) -> EntryPtr {
        ManuallyDrop::new(self).0
    }

    /// Takes ownership again.
    ///
    /// # Safety
    /// The pointer came from [`EntryBox::into_ptr`], only once since, and nobody borrows the entry.
    #[inline]
    pub(crate) unsafe fn from_ptr(ptr: EntryPtr) -> Self {
        Self(ptr)
    }

    /// Replaces the entry by one with or without an expiry.
    pub(crate) fn rebuild(&mut self, expiry: Option<i64>) {
        // SAFETY: we own the entry; what is left of the old one is dropped with the assignment.
        *self = unsafe { self.0.rebuild(None, self.clock(), expiry) };
    }

    /// The same value under another key.
    pub(crate) fn rekey(self, key: &[u8], clock: u32) -> Self {
        // SAFETY: we own the entry; what is left of the old one is dropped here.
        unsafe { self.0.rebuild(Some(key), clock, self.expiry()) }
    }

    /// Takes the part of the value that is outside of the entry, which may only be dropped after that.
    pub(crate) fn detach(self) -> Option<Detached> {
        // SAFETY: we own the entry, and the header is its own.
        unsafe { self.0.detach(self.0.header()) }
    }
}

impl Entry {
    /// A copy of the entry with all its data. O(size).
    pub(crate) fn duplicate(&self) -> EntryBox {
        let value = match self.collection() {
            Some(value) => NewValue::Collection(value.duplicate()),
            None if self.header.form() == Form::Heap => NewValue::Heap(Buffer::from(self.heap())),
            None => self.embedded_value(),
        };
        EntryBox::new(self.key(), self.clock(), self.expiry(), value)
    }

    /// The entry that replaces this one when its string must become raw and `len` bytes long and cannot in place.
    pub(crate) fn grown(&self, len: usize) -> EntryBox {
        let mut scratch = [0; INT_TEXT_MAX];
        let bytes = match self.header.form() {
            Form::Int => format_int(self.int(), &mut scratch),
            Form::Embedded => self.value_bytes(),
            Form::Heap => self.heap(),
            _ => &[],
        };
        let len = len.max(bytes.len());
        EntryBox::new(self.key(), self.clock(), self.expiry(), NewValue::raw(bytes, len))
    }
}

impl NewValue<'_> {
    /// A raw string of `len` bytes that begins with `bytes` and continues with zeros.
    pub(crate) fn raw(bytes: &[u8], len: usize) -> NewValue<'_> {
        if len <= EMBEDDED_MAX {
            return NewValue::Embedded {
                bytes,
                len,
                raw: true,
            };
        }
        let mut buffer = Buffer::new();
        // A value that outgrows the entry is likely to grow further: the buffer reserves ahead.
        buffer.reserve(len);
        buffer.extend(bytes);
        buffer.resize(len);
        NewValue::Heap(buffer)
    }
}

impl Drop for EntryBox {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: we own the entry; its size class is that of the size the header tells.
        unsafe {
            let header = self.0.header();
            let size = self.0.total(header);
            drop(self.0.detach(header));
            dealloc(self.0.0, size, ALIGN);
        }
    }
}

impl Deref for EntryBox {
    type Target = Entry;

    #[inline]
    fn deref(&self) -> &Entry {
        // SAFETY: the entry is owned, and borrowed with `self`.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for EntryBox {
    #[inline]
    fn deref_mut(&mut self) -> &mut Entry {
        // SAFETY: the entry is owned, and borrowed mutably with `self`.
        unsafe { self.0.as_mut() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::thread_balance;

    fn bytes_of(entry: &Entry) -> Vec<u8> {
        entry.string().unwrap().as_bytes(&mut [0; INT_TEXT_MAX]).to_vec()
    }

    #[test]
    fn small_entries_have_no_padding() {
        for (key, value, expiry, size) in [
            (16, 32, None, 56),
            (16, 32, Some(1), 64),
            (1, 1, None, 16),
            (8, 0, None, 16),
            (16, EMBEDDED_MAX, None, 1280),
        ] {
            let start = thread_balance();
            let entry = EntryBox::new(&vec![b'k'; key], 0, expiry, NewValue::string(&vec![b'v'; value]));
            assert_eq!(thread_balance() - start, size, "key {key}, value {value}");
            assert_eq!(entry.memory() as i64, size);
        }
    }

    #[test]
    fn encodings_are_named_as_strings_are_made() {
        let long = [b'x'; 45];
        for (bytes, name) in [
            (&b"123"[..], "int"),
            (b"-9223372036854775808", "int"),
            (b"9223372036854775808", "embstr"),
            (b"0123", "embstr"),
            (b"", "embstr"),
            (&long[..44], "embstr"),
            (&long, "raw"),
        ] {
            let entry = EntryBox::new(b"k", 0, None, NewValue::string(bytes));
            assert_eq!(entry.encoding().name(), name, "{}", bytes.escape_ascii());
            assert_eq!(bytes_of(&entry), bytes);
        }
        let entry = EntryBox::new(b"k", 0, None, NewValue::string(b"123"));
        assert_eq!(entry.grown(3).encoding().name(), "raw");
    }

    #[test]
    fn a_replaced_heap_value_comes_out_and_nothing_leaks() {
        let start = thread_balance();
        let entry = EntryBox::new(b"key", 0, None, NewValue::Heap(Buffer::zeroed(5000))).into_ptr();
        // SAFETY: the entry was just made and is used here alone.
        unsafe {
            let value = NewValue::Embedded {
                bytes: &[1; 24],
                len: 24,
                raw: false,
            };
            let Ok(Some(old)) = entry.assign(None, value) else {
                panic!("24 bytes fit where 3 words were")
            };
            assert!(matches!(old, Detached::Bytes(bytes) if bytes.len() == 5000));
            let Err(_) = entry.assign(None, NewValue::string(&[1; 400])) else {
                panic!("400 bytes do not")
            };
            let Err(_) = entry.assign(Some(1), NewValue::Int(1)) else {
                panic!("an expiry does not")
            };
            drop(EntryBox::from_ptr(entry));
        }
        assert_eq!(thread_balance(), start);
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 0..40),
            1 => (65_530usize..65_545).prop_map(|len| vec![b'k'; len]),
        ]
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<i64>().prop_map(|int| int.to_string().into_bytes()),
            proptest::collection::vec(any::<u8>(), 0..80),
            (1000usize..1100).prop_map(|len| vec![b'v'; len]),
        ]
    }

    proptest! {
        #[test]
        fn an_entry_gives_back_what_was_put_in(
            key in key(), other in key(), value in value(), next in value(),
            expiry in any::<Option<i64>>(), clock in 0u32..1 << 24, grow in 0usize..1300,
        ) {
            let start = thread_balance();
            let mut entry = EntryBox::new(&key, clock, expiry, NewValue::string(&value));
            prop_assert_eq!((entry.key(), entry.clock(), entry.expiry()), (&key[..], clock, expiry));
            prop_assert_eq!(bytes_of(&entry), value.clone());
            prop_assert_eq!(thread_balance() - start, entry.memory() as i64);

            entry.set_clock(!clock);
            prop_assert_eq!(entry.clock(), !clock & 0xff_ffff);
            prop_assert_eq!(bytes_of(&entry.duplicate()), value.clone());

            let mut entry = entry.rekey(&other, clock);
            prop_assert_eq!((entry.key(), entry.clock(), entry.expiry()), (&other[..], clock, expiry));
            prop_assert_eq!(bytes_of(&entry), value.clone());
            entry.rebuild(Some(77));
            prop_assert_eq!((entry.expiry(), bytes_of(&entry)), (Some(77), value.clone()));

            let ptr = entry.into_ptr();
            // SAFETY: the entry is owned here, and by nobody else until it is a box again.
            let entry = unsafe {
                let assigned = ptr.assign(Some(78), NewValue::string(&next)).is_ok();
                let now = if assigned { &next } else { &value };
                prop_assert_eq!(bytes_of(ptr.as_ref()), now.clone());
                let mut want = now.clone();
                want.resize(grow.max(want.len()), 0);
                let old = EntryBox::from_ptr(ptr);
                let new = if ptr.grow_in_place(grow) { old } else { old.grown(grow) };
                prop_assert_eq!(bytes_of(&new), want);
                prop_assert_eq!(new.encoding(), Encoding::Raw);
                new
            };
            prop_assert_eq!(thread_balance() - start, entry.memory() as i64);
            drop(entry);
            prop_assert_eq!(thread_balance(), start);
        }
    }
}
