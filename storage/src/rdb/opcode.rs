//! The bytes that say what follows: types of values, and the records of a file that are no keys.

/// Types of values, as they precede a value or a key.
pub(super) mod kind {
    pub(crate) const STRING: u8 = 0;
    pub(crate) const LIST: u8 = 1;
    pub(crate) const SET: u8 = 2;
    /// Scores as text.
    pub(crate) const SORTED_SET: u8 = 3;
    pub(crate) const HASH: u8 = 4;
    /// Scores as eight bytes.
    pub(crate) const SORTED_SET_2: u8 = 5;
    /// A module's value before 4.0, whose end only the module finds.
    pub(crate) const MODULE: u8 = 6;
    pub(crate) const MODULE_2: u8 = 7;
    pub(crate) const HASH_ZIPMAP: u8 = 9;
    pub(crate) const LIST_ZIPLIST: u8 = 10;
    pub(crate) const SET_INTSET: u8 = 11;
    pub(crate) const SORTED_SET_ZIPLIST: u8 = 12;
    pub(crate) const HASH_ZIPLIST: u8 = 13;
    /// Nodes that are ziplists.
    pub(crate) const LIST_QUICKLIST: u8 = 14;
    pub(crate) const STREAM: u8 = 15;
    pub(crate) const HASH_LISTPACK: u8 = 16;
    pub(crate) const SORTED_SET_LISTPACK: u8 = 17;
    /// Nodes that are listpacks or single elements.
    pub(crate) const LIST_QUICKLIST_2: u8 = 18;
    /// With first id, highest deleted id, entries ever added, and the groups' numbers of entries read.
    pub(crate) const STREAM_2: u8 = 19;
    pub(crate) const SET_LISTPACK: u8 = 20;
    /// With the times of the consumers' last entries.
    pub(crate) const STREAM_3: u8 = 21;
    /// In Redis fields with absolute expiries (7.4 before its release), in Valkey fields with expiries.
    pub(crate) const HASH_22: u8 = 22;
    /// A pack of fields, values and expiries, of Redis 7.4 before its release.
    pub(crate) const HASH_LISTPACK_EX_OLD: u8 = 23;
    /// Fields with distances from the earliest expiry.
    pub(crate) const HASH_EX: u8 = 24;
    /// The earliest expiry, and a pack of fields, values and expiries.
    pub(crate) const HASH_LISTPACK_EX: u8 = 25;
    /// With what is remembered of producers that repeat themselves.
    pub(crate) const STREAM_4: u8 = 26;
}

/// Nodes of a list.
pub(super) mod node {
    /// A single element.
    pub(crate) const PLAIN: u64 = 1;
    /// A pack.
    pub(crate) const PACKED: u64 = 2;
}

/// First bytes of texts and lengths.
pub(super) mod special {
    /// Lengths of 32 bits, highest byte first.
    pub(crate) const LENGTH_32: u8 = 0x80;
    /// Lengths of 64 bits, highest byte first.
    pub(crate) const LENGTH_64: u8 = 0x81;
    /// Top bits of a byte that no length begins with.
    pub(crate) const MARK: u8 = 0xc0;
    pub(crate) const INT_8: u8 = 0;
    pub(crate) const INT_16: u8 = 1;
    pub(crate) const INT_32: u8 = 2;
    /// A compressed text.
    pub(crate) const LZF: u8 = 3;
}

/// The number with which "unknown" is written where a count is expected.
pub(super) const UNKNOWN: u64 = u64::MAX;

/// Records of a file that are no keys.
pub(super) mod record {
    /// In Redis metadata of the next key, kept by modules; in Valkey an import of slots that was under way.
    pub(crate) const META_OR_IMPORT: u8 = 243;
    pub(crate) const SLOT_SIZES: u8 = 244;
    pub(crate) const FUNCTION: u8 = 245;
    /// A function of Redis 7.0 before its release, which nobody reads any more.
    pub(crate) const FUNCTION_OLD: u8 = 246;
    pub(crate) const MODULE_AUX: u8 = 247;
    pub(crate) const IDLE: u8 = 248;
    pub(crate) const FREQUENCY: u8 = 249;
    pub(crate) const AUX: u8 = 250;
    pub(crate) const SIZES: u8 = 251;
    pub(crate) const EXPIRY_MS: u8 = 252;
    pub(crate) const EXPIRY_S: u8 = 253;
    pub(crate) const DATABASE: u8 = 254;
    pub(crate) const END: u8 = 255;
}

/// Parts of what a module wrote.
pub(super) mod module {
    pub(crate) const END: u64 = 0;
    pub(crate) const SIGNED: u64 = 1;
    pub(crate) const UNSIGNED: u64 = 2;
    pub(crate) const FLOAT: u64 = 3;
    pub(crate) const DOUBLE: u64 = 4;
    pub(crate) const TEXT: u64 = 5;
}
