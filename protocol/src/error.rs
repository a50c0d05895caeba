//! Errors in bytes from outside. [`ProtocolError`] is a client's fault: its text is sent, then the connection is
//! closed. [`ValueError`] is a server's fault: its text is for the log.

use std::fmt;

/// Error in a request. `Display` gives the text after `ERR Protocol error: ` in the last reply.
///
/// Clients and operators look for these texts: they are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The line with the number of arguments does not end within the limit.
    CountLineTooLong,
    /// The number of arguments is not a number or beyond what is allowed.
    InvalidCount,
    /// More arguments than a client may send before it has authenticated.
    UnauthenticatedCount,
    /// An argument does not begin with `$`, but with this byte.
    ExpectedBulk(u8),
    /// The line with the length of an argument does not end within the limit.
    LengthLineTooLong,
    /// The length of an argument is not a number, negative, or beyond what is allowed.
    InvalidLength,
    /// A longer argument than a client may send before it has authenticated.
    UnauthenticatedLength,
    /// An inline request does not end within the limit.
    InlineTooLong,
    /// A quote in an inline request is not closed, or a closing quote is not followed by a space.
    UnbalancedQuotes,
    /// The arguments of one request, detached ones aside, lie further apart than a span can express.
    RequestTooLong,
    /// The bytes are the beginning of a TLS handshake.
    TlsHandshake,
}

impl ProtocolError {
    /// Appends the text to a reply. Unlike `Display` it keeps an offending byte unchanged, even if it is not valid UTF-8.
    pub fn append_to(&self, line: &mut Vec<u8>) {
        match *self {
            ProtocolError::ExpectedBulk(got) => {
                line.extend_from_slice(b"expected '$', got '");
                line.push(if matches!(got, b'\r' | b'\n') { b' ' } else { got });
                line.push(b'\'');
            }
            other => line.extend_from_slice(other.text().as_bytes()),
        }
    }

    fn text(self) -> &'static str {
        match self {
            ProtocolError::CountLineTooLong => "too big mbulk count string",
            ProtocolError::InvalidCount => "invalid multibulk length",
            ProtocolError::UnauthenticatedCount => "unauthenticated multibulk length",
            ProtocolError::ExpectedBulk(_) => "expected '$'",
            ProtocolError::LengthLineTooLong => "too big bulk count string",
            ProtocolError::InvalidLength => "invalid bulk length",
            ProtocolError::UnauthenticatedLength => "unauthenticated bulk length",
            ProtocolError::InlineTooLong => "too big inline request",
            ProtocolError::UnbalancedQuotes => "unbalanced quotes in request",
            ProtocolError::RequestTooLong => "too big request",
            ProtocolError::TlsHandshake => "this port does not speak TLS",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Vec::new();
        self.append_to(&mut line);
        f.write_str(&String::from_utf8_lossy(&line))
    }
}

impl std::error::Error for ProtocolError {}

/// Error in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueError {
    /// The byte that begins a value names no type.
    UnknownType(u8),
    /// A line does not end within the limit, or contains a carriage return without a line feed.
    InvalidLine,
    /// A bulk is not followed by the end of a line.
    UnterminatedBulk,
    /// A length is not a number, negative, or beyond the limit.
    InvalidLength,
    /// An integer, a double, a big number or a boolean has an unknown notation.
    InvalidScalar,
    /// Aggregates are nested too deeply.
    TooDeep,
    /// The reply has too many elements.
    TooManyElements,
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ValueError::UnknownType(byte) => {
                return write!(f, "unknown reply type '{}'", byte.escape_ascii());
            }
            ValueError::InvalidLine => "invalid line in reply",
            ValueError::UnterminatedBulk => "bulk in reply is not terminated",
            ValueError::InvalidLength => "invalid length in reply",
            ValueError::InvalidScalar => "invalid scalar in reply",
            ValueError::TooDeep => "reply is nested too deeply",
            ValueError::TooManyElements => "reply has too many elements",
        })
    }
}

impl std::error::Error for ValueError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offending_byte_is_told_as_it_came() {
        for (got, text) in [
            (b'!', &b"expected '$', got '!'"[..]),
            (b'\r', b"expected '$', got ' '"),
            (b'\n', b"expected '$', got ' '"),
            (0x01, b"expected '$', got '\x01'"),
            (0xff, b"expected '$', got '\xff'"),
        ] {
            let mut line = Vec::new();
            ProtocolError::ExpectedBulk(got).append_to(&mut line);
            assert_eq!(line, text);
        }
    }

    #[test]
    fn both_forms_of_the_text_agree() {
        let mut line = Vec::new();
        ProtocolError::InvalidCount.append_to(&mut line);
        assert_eq!(line, ProtocolError::InvalidCount.to_string().as_bytes());
        assert_eq!(
            ProtocolError::ExpectedBulk(b'!').to_string(),
            "expected '$', got '!'"
        );
    }
}
