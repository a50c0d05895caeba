//! RESP2 and RESP3 on the wire: bytes in, requests out; replies in, bytes out.
//!
//! The crate does no I/O, reads no clock and starts no thread: it parses and produces bytes.
//!
//! | module | subject |
//! |---|---|
//! | [`request`] | the server's side: an incremental parser of requests that copies no argument |
//! | [`arguments`] | the arguments of one request, as every command sees them |
//! | [`encoder`] | the server's side: replies written into an output buffer, RESP2 or RESP3 |
//! | [`words`] | a line split into words, with quotes and escapes |
//! | [`value`] | the client's side: an incremental parser of replies |
//! | [`limits`] | every bound of the above, named |
//! | [`error`] | errors in bytes from outside |
//!
//! No input from a peer causes a panic, and no length that a peer announces allocates memory: memory is reserved for
//! bytes that have arrived.

#![forbid(unsafe_code)]

pub mod arguments;
pub mod encoder;
pub mod error;
mod integer;
pub mod limits;
pub mod request;
pub mod value;
pub mod words;

pub use arguments::{Arguments, Span};
pub use encoder::{Bypass, Deferred, Encoder, Resp};
pub use error::{ProtocolError, ValueError};
pub use limits::{Limits, ValueLimits};
pub use request::{DetachedBulk, Progress, Request, RequestParser, Requests, Wants};
pub use value::{ReplyParser, Value};
