//! RDB, the format of Redis's snapshots: values as bytes, as DUMP and RESTORE exchange them and files hold them.
//!
//! ```text
//! text     length │ bytes          or  0xc0, 0xc1, 0xc2 + an integer of 8, 16, 32 bits
//!                                  or  0xc3 │ compressed length │ length │ compressed bytes (LZF)
//! length   00xxxxxx                or  01xxxxxx + 1 byte, or 0x80 + 4 bytes, or 0x81 + 8 bytes, highest first
//! payload  type: 1 byte │ value │ version: 2 bytes │ checksum of all before: 8 bytes     (lowest first)
//! file     magic and version │ records │ 0xff │ checksum of all before: 8 bytes
//! ```
//! [`decode`] reads the types of all versions, [`encode`] writes those that most servers read, in steps, so that a huge
//! value holds nobody up. [`payload`] is the form of a single value, [`file`](mod@file) that of a snapshot.

pub mod checksum;
mod decode;
mod encode;
pub mod file;
mod opcode;
pub mod payload;
mod reader;
mod skip;
mod writer;

pub use decode::{Decoded, Dialect, Limits};
pub use encode::{ValueWriter, WriteOptions, len};
pub use reader::Error;

/// The version that values have: that of Redis 7.0.
const VERSION_COMMON: u16 = 10;
/// The first version of Redis with fields that expire.
const VERSION_FIELD_EXPIRY: u16 = 12;
/// The latest version of Redis that is read.
const VERSION_REDIS_MAX: u16 = 13;
/// The only version of Valkey's own.
const VERSION_VALKEY: u16 = 80;

/// Family whose version this is; none if it is unknown.
fn dialect_of(version: u16) -> Option<Dialect> {
    match version {
        1..=VERSION_REDIS_MAX => Some(Dialect::Redis),
        VERSION_VALKEY => Some(Dialect::Valkey),
        _ => None,
    }
}
