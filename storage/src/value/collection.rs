//! The collection types as a group: what entries, garbage and commands on any type need to know of them.

use std::fmt;

use super::hash::Hash;
use super::list::List;
use super::set::Set;
use super::sorted_set::SortedSet;
use super::stream::Stream;
use super::{Encoding, Kind};
use crate::encoding::listpack::Listpack;
use crate::encoding::member_table::MemberTable;
use crate::memory::Buffer;
use crate::release::{BUFFER_MIN, COLLECTION_MIN};
use crate::table::TableStats;

/// A type of collection that is stored in its entry; see [`Entry::get`](crate::entry::Entry::get).
///
/// Sealed: an entry tells the types apart by its header.
pub trait InPlace: sealed::Sealed + Default + Into<Collection> {
    /// Kind, as TYPE names it.
    const KIND: Kind;
}

mod sealed {
    #[expect(unnameable_types, reason = "nobody else is to implement it")]
    pub trait Sealed {}
}

/// A collection, owned.
pub enum Collection {
    /// A list.
    List(List),
    /// A set.
    Set(Set),
    /// A hash.
    Hash(Hash),
    /// A sorted set.
    SortedSet(SortedSet),
    /// A stream.
    Stream(Stream),
}

/// A member that is about to be looked up; see [`CollectionRef::look_ahead`].
#[derive(Clone, Copy)]
pub struct MemberAhead<'a> {
    table: &'a MemberTable,
    hash: u64,
}

impl MemberAhead<'_> {
    /// Asks for the element itself; its bucket should have arrived.
    #[inline]
    pub fn fetch(self) {
        self.table.prefetch_element(self.hash);
    }
}

impl fmt::Debug for MemberAhead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemberAhead")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// A collection, borrowed.
#[derive(Clone, Copy)]
pub enum CollectionRef<'a> {
    /// A list.
    List(&'a List),
    /// A set.
    Set(&'a Set),
    /// A hash.
    Hash(&'a Hash),
    /// A sorted set.
    SortedSet(&'a SortedSet),
    /// A stream.
    Stream(&'a Stream),
}

/// A value that is outside of its entry, taken from it.
pub(crate) enum Detached {
    Bytes(Buffer),
    Collection(Collection),
}

impl Detached {
    /// Whether freeing it takes long enough to be done in slices.
    pub(crate) fn is_large(&self) -> bool {
        match self {
            Self::Bytes(buffer) => buffer.capacity() > BUFFER_MIN,
            Self::Collection(value) => value.as_ref().free_cost() > COLLECTION_MIN,
        }
    }
}

macro_rules! in_place {
    ($($kind:ident),*) => {
        $(
            impl sealed::Sealed for $kind {}

            impl InPlace for $kind {
                const KIND: Kind = Kind::$kind;
            }

            impl From<$kind> for Collection {
                fn from(value: $kind) -> Self {
                    Self::$kind(value)
                }
            }
        )*

        impl Collection {
            /// The collection, borrowed.
            #[must_use]
            pub fn as_ref(&self) -> CollectionRef<'_> {
                match self {
                    $(Self::$kind(value) => CollectionRef::$kind(value),)*
                }
            }

            /// Frees a part that is worth about `budget` small allocations; returns how many were freed.
            pub(crate) fn drain(&mut self, budget: usize) -> usize {
                match self {
                    $(Self::$kind(value) => value.drain(budget),)*
                }
            }
        }

        impl CollectionRef<'_> {
            /// Number of elements.
            #[must_use]
            pub fn len(self) -> usize {
                match self {
                    $(Self::$kind(value) => value.len(),)*
                }
            }

            /// Encoding, as OBJECT ENCODING names it.
            #[must_use]
            pub fn encoding(self) -> Encoding {
                match self {
                    $(Self::$kind(value) => value.encoding(),)*
                }
            }

            /// Bytes allocated for the collection, without those in the entry.
            #[must_use]
            pub fn memory(self) -> usize {
                match self {
                    $(Self::$kind(value) => value.memory(),)*
                }
            }

            /// Approximate number of allocations to free.
            #[must_use]
            pub fn free_cost(self) -> usize {
                match self {
                    $(Self::$kind(value) => value.free_cost(),)*
                }
            }

            /// A copy. O(size).
            #[must_use]
            pub fn duplicate(self) -> Collection {
                match self {
                    $(Self::$kind(value) => Collection::$kind(value.clone()),)*
                }
            }
        }
    };
}

in_place!(List, Set, Hash, SortedSet, Stream);

impl<'a> CollectionRef<'a> {
    /// Whether there are no elements. Except for streams, such a collection stays under a key only during a command.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The pack that it is stored in, if it is one.
    #[must_use]
    pub fn as_listpack(self) -> Option<&'a Listpack> {
        match self {
            Self::List(list) => list.as_listpack(),
            Self::Set(set) => set.as_listpack(),
            Self::Hash(hash) => hash.as_listpack(),
            Self::SortedSet(set) => set.as_listpack(),
            Self::Stream(_) => None,
        }
    }

    /// Asks for the bucket of a member, where members are in a table. For batches: first this for every member, then
    /// [`MemberAhead::fetch`] for what it gave, then the commands.
    #[inline]
    #[must_use]
    pub fn look_ahead(self, member: &[u8]) -> Option<MemberAhead<'a>> {
        let table = match self {
            Self::List(_) | Self::Stream(_) => None,
            Self::Set(set) => set.member_table(),
            Self::Hash(hash) => hash.member_table(),
            Self::SortedSet(set) => set.member_table(),
        }?;
        let hash = table.hash(member);
        table.prefetch_bucket(hash);
        Some(MemberAhead { table, hash })
    }

    /// Statistics of the hash table that stores the collection, if there is one.
    #[must_use]
    pub fn table_stats(self) -> Option<TableStats> {
        match self {
            Self::List(_) | Self::Stream(_) => None,
            Self::Set(set) => set.table_stats(),
            Self::Hash(hash) => hash.table_stats(),
            Self::SortedSet(set) => set.table_stats(),
        }
    }
}

impl fmt::Debug for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl fmt::Debug for CollectionRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collection")
            .field("encoding", &self.encoding())
            .field("len", &self.len())
            .finish()
    }
}
