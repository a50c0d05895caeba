//! A plain client for the questions beside the load: one request, one reply, blocking, RESP2.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No question asked here has a longer answer.
const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;
const DEPTH_MAX: usize = 8;

/// One connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

/// A reply that is not an error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Text(String),
    Integer(i64),
    Null,
    Array(Vec<Reply>),
}

impl Client {
    /// Connects; every later wait is bounded by `timeout`.
    pub(crate) fn connect(address: SocketAddr, timeout: Duration) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Sends a request, given as words, and reads the reply.
    ///
    /// # Errors
    /// An error reply, as its own text; what can go wrong with a socket.
    pub(crate) fn call(&mut self, request: &str) -> Result<Reply> {
        self.send(request)?;
        self.receive()
    }

    /// Sends a request whose reply is to be [received](Self::receive) later.
    pub(crate) fn send(&mut self, request: &str) -> Result<()> {
        let words: Vec<_> = request.split_ascii_whitespace().collect();
        let mut encoded = format!("*{}\r\n", words.len());
        for word in words {
            encoded.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(encoded.as_bytes())
    }

    /// Sends inline requests, whose replies are to be received later.
    pub(crate) fn send_lines(&mut self, requests: &str) -> Result<()> {
        self.stream.get_mut().write_all(requests.as_bytes())
    }

    /// Reads the reply to the request sent before.
    pub(crate) fn receive(&mut self) -> Result<Reply> {
        read_reply(&mut self.stream.by_ref().take(REPLY_BYTES_MAX as u64), DEPTH_MAX)
    }
}

impl Reply {
    /// The value of an integer reply.
    pub(crate) fn integer(&self) -> Option<i64> {
        if let Self::Integer(value) = self {
            Some(*value)
        } else {
            None
        }
    }

    /// The bytes of a string reply.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// The elements of an array reply; none for any other.
    pub(crate) fn elements(&self) -> &[Self] {
        if let Self::Array(elements) = self {
            elements
        } else {
            &[]
        }
    }
}

fn read_reply(stream: &mut impl BufRead, depth: usize) -> Result<Reply> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let Some(line) = line
        .strip_suffix("\r\n")
        .filter(|line| line.is_ascii() && !line.is_empty())
    else {
        return Err(Error::new(
            ErrorKind::UnexpectedEof,
            "the server closed the connection",
        ));
    };
    let (kind, text) = line.split_at(1);
    let number = || text.parse::<i64>().map_err(|_| malformed(line));
    match kind {
        "+" => Ok(Reply::Text(text.to_owned())),
        "-" => Err(Error::other(text.to_owned())),
        ":" => number().map(Reply::Integer),
        "$" => match usize::try_from(number()?) {
            Err(_) => Ok(Reply::Null),
            Ok(length) if length > REPLY_BYTES_MAX => Err(malformed(line)),
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                stream.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
            }
        },
        "*" if depth > 0 => match usize::try_from(number()?) {
            Err(_) => Ok(Reply::Null),
            Ok(length) => (0..length)
                .map(|_| read_reply(stream, depth - 1))
                .collect::<Result<_>>()
                .map(Reply::Array),
        },
        _ => Err(malformed(line)),
    }
}

fn malformed(line: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("not a reply: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8]) -> Result<Reply> {
        read_reply(&mut bytes, 2)
    }

    #[test]
    fn replies_of_every_kind() {
        let reply = read(b"*4\r\n:-3\r\n$2\r\nab\r\n$-1\r\n*1\r\n+OK\r\n").unwrap();
        let ok = Reply::Array(vec![Reply::Text("OK".to_owned())]);
        assert_eq!(
            reply.elements(),
            [Reply::Integer(-3), Reply::Text("ab".to_owned()), Reply::Null, ok]
        );
    }

    #[test]
    fn errors_depth_and_ends() {
        assert_eq!(read(b"-ERR no\r\n").unwrap_err().to_string(), "ERR no");
        assert_eq!(read(b"").unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(
            read(b"*1\r\n*1\r\n*1\r\n:1\r\n").unwrap_err().kind(),
            ErrorKind::InvalidData
        );
    }
}
