//! RESP2 and RESP3 on the wire: bytes in, requests out; replies in, bytes out.
//!
//! The crate does no I/O, reads no clock and starts no thread. It is handed bytes and says what they mean.
//!
//! | module | subject |
//! |---|---|
//! | [`request`] | the server's side: an incremental parser of requests that copies no argument |
//! | [`arguments`] | the arguments of one request, as every command sees them |
//! | [`encoder`] | the server's side: replies written into an output buffer, RESP2 or RESP3 |
//! | [`words`] | a line split into words, with quotes and escapes |
//! | [`value`] | the client's side: an incremental parser of replies |
//! | [`limits`] | every bound of the above, named |
//! | [`error`] | what can be wrong with bytes from outside |
//!
//! Nothing here panics because of what a peer sent, and nothing grows because of what a peer announced: memory is
//! reserved for bytes that have arrived, never for a length that was only claimed.

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
pub use encoder::{Deferred, Encoder, Resp};
pub use error::{ProtocolError, ValueError};
pub use limits::{Limits, ValueLimits};
pub use request::{DetachedBulk, Progress, Request, RequestParser, Requests, Wants};
pub use value::{ReplyParser, Value};
