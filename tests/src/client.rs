//! A raw client: sends arguments, inline text or any bytes, and reads replies one at a time.
//!
//! Every operation has a deadline, so a server that never answers fails a test instead of hanging it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::reply::Reply;

/// Longest wait of a client for a reply, or for the server to take what it sends.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Number of calls from which a SCAN of a test's few keys counts as endless.
const SCAN_STEPS_MAX: usize = 100_000;

/// One connection.
pub struct Client {
    stream: Stream,
    received: Vec<u8>,
}

/// The two kinds of socket a server listens on.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(timeout)),
            Stream::Tls(stream) => stream.sock.set_read_timeout(Some(timeout)),
        }
    }

    /// Reads once, again after a signal: only the deadline of the caller ends the wait.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = match self {
                Stream::Tcp(stream) => stream.read(buffer),
                Stream::Unix(stream) => stream.read(buffer),
                Stream::Tls(stream) => stream.read(buffer),
            };
            match result {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }
}

impl Client {
    /// Connects over TCP.
    ///
    /// # Errors
    /// The errors of the socket.
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client {
            stream: Stream::Tcp(stream),
            received: Vec::new(),
        })
    }

    /// Connects over a Unix domain socket.
    ///
    /// # Errors
    /// The errors of the socket.
    pub fn connect_unix(path: &Path) -> io::Result<Client> {
        let stream = UnixStream::connect(path)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client {
            stream: Stream::Unix(stream),
            received: Vec::new(),
        })
    }

    /// Connects over TLS, and completes the handshake.
    ///
    /// # Errors
    /// The errors of the socket and of the handshake.
    pub fn connect_tls(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::from(address.ip());
        let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Client {
            stream: Stream::Tls(Box::new(stream)),
            received: Vec::new(),
        })
    }

    /// The session of a connection over TLS.
    ///
    /// # Panics
    /// When the connection is none.
    pub fn session(&mut self) -> &mut StreamOwned<ClientConnection, TcpStream> {
        match &mut self.stream {
            Stream::Tls(stream) => stream,
            _ => panic!("the connection has no session of TLS"),
        }
    }

    /// Sends any bytes.
    ///
    /// # Errors
    /// The errors of the socket.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends one request as an array of bulk strings.
    ///
    /// # Errors
    /// The errors of the socket.
    pub fn send(&mut self, arguments: &[impl AsRef<[u8]>]) -> io::Result<()> {
        let mut request = Vec::new();
        encode(&mut request, arguments);
        self.write(&request)
    }

    /// Reads the next reply, waiting at most [`PATIENCE`].
    ///
    /// # Errors
    /// The errors of the socket; `UnexpectedEof` when the server closed the connection, `InvalidData` when it sent
    /// something other than RESP, `TimedOut` when nothing came.
    pub fn read(&mut self) -> io::Result<Reply> {
        self.read_within(PATIENCE)
    }

    /// Reads the next reply, waiting at most `patience`.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub fn read_within(&mut self, patience: Duration) -> io::Result<Reply> {
        let deadline = Instant::now() + patience;
        loop {
            let parsed =
                Reply::parse(&self.received).map_err(|text| io::Error::new(ErrorKind::InvalidData, text))?;
            if let Some((reply, length)) = parsed {
                self.received.drain(..length);
                return Ok(reply);
            }
            if self.receive(deadline)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Takes in what the socket has; 0 at its end.
    fn receive(&mut self, deadline: Instant) -> io::Result<usize> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.stream.set_read_timeout(left.max(Duration::from_millis(1)))?;
        let start = self.received.len();
        // A reply of megabytes is read in large steps, since parsing starts over after each of them.
        self.received.resize(start + (64 << 10).max(start), 0);
        let result = self.stream.read(&mut self.received[start..]);
        self.received
            .truncate(start + result.as_ref().map_or(0, |&count| count));
        match result {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
            other => other,
        }
    }

    /// Sends one request and reads its reply.
    ///
    /// # Errors
    /// As [`Client::send`] and [`Client::read`].
    pub fn try_call(&mut self, arguments: &[impl AsRef<[u8]>]) -> io::Result<Reply> {
        self.send(arguments)?;
        self.read()
    }

    /// Sends one request and reads its reply.
    ///
    /// # Panics
    /// When the connection fails, naming the request.
    pub fn call(&mut self, arguments: &[impl AsRef<[u8]>]) -> Reply {
        self.try_call(arguments)
            .unwrap_or_else(|error| panic!("{}: {error}", shown(arguments)))
    }

    /// Sends a command written as one line, split at spaces.
    ///
    /// # Panics
    /// When the connection fails, naming the request.
    pub fn line(&mut self, line: &str) -> Reply {
        self.call(&line.split_ascii_whitespace().collect::<Vec<_>>())
    }

    /// Sends all requests at once, then reads all their replies.
    ///
    /// # Panics
    /// When the connection fails.
    pub fn pipeline(&mut self, requests: &[Vec<Vec<u8>>]) -> Vec<Reply> {
        let mut bytes = Vec::new();
        requests.iter().for_each(|request| encode(&mut bytes, request));
        self.write(&bytes)
            .unwrap_or_else(|error| panic!("a pipeline of {} requests: {error}", requests.len()));
        let reply = |request: &Vec<Vec<u8>>| {
            self.read()
                .unwrap_or_else(|error| panic!("pipelined {}: {error}", shown(request)))
        };
        requests.iter().map(reply).collect()
    }

    /// Follows a SCAN, SSCAN, HSCAN or ZSCAN to its end and returns what it found, in order and each once (an array
    /// of pairs for the last two); a reply that is no cursor with a list is returned as it is.
    ///
    /// # Errors
    /// A failed connection, or a cursor that never comes to its end.
    pub fn scan(&mut self, mut words: Vec<Vec<u8>>) -> Result<Reply, String> {
        let is_of = |name: &[u8]| words[0].eq_ignore_ascii_case(name);
        let cursor_at = if is_of(b"scan") { 1 } else { 2 };
        let width = if is_of(b"hscan") || is_of(b"zscan") { 2 } else { 1 };
        let mut found = Vec::new();
        for _ in 0..SCAN_STEPS_MAX {
            let reply = self
                .try_call(&words)
                .map_err(|error| format!("no reply: {error}"))?;
            let [cursor, batch] = reply.items() else {
                return Ok(reply);
            };
            let batch = batch.items().chunks(width);
            found.extend(batch.map(|element| match element {
                [single] => single.clone(),
                pair => Reply::Array(pair.to_vec()),
            }));
            if cursor.bytes() == b"0" {
                found.sort();
                found.dedup();
                return Ok(Reply::Array(found));
            }
            words[cursor_at] = cursor.bytes().to_vec();
        }
        Err("SCAN does not come to an end".to_owned())
    }

    /// All replies up to the end of the connection, and whether the end was noticed within `patience`.
    pub fn rest(&mut self, patience: Duration) -> (Vec<Reply>, bool) {
        let deadline = Instant::now() + patience;
        let mut replies = Vec::new();
        loop {
            match self.read_within(deadline.saturating_duration_since(Instant::now())) {
                Ok(reply) => replies.push(reply),
                Err(error) => return (replies, error.kind() == ErrorKind::UnexpectedEof),
            }
        }
    }

    /// True when the server closes the connection within `patience` without sending another reply.
    pub fn is_closed_within(&mut self, patience: Duration) -> bool {
        matches!(self.read_within(patience), Err(error) if error.kind() == ErrorKind::UnexpectedEof)
    }
}

/// Appends a request as an array of bulk strings.
pub fn encode(request: &mut Vec<u8>, arguments: &[impl AsRef<[u8]>]) {
    request.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        let argument = argument.as_ref();
        request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        request.extend_from_slice(argument);
        request.extend_from_slice(b"\r\n");
    }
}

/// The arguments of a request.
#[must_use]
pub fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

/// The arguments of a request written as one line, split at spaces.
#[must_use]
pub fn split(line: &str) -> Vec<Vec<u8>> {
    words(&line.split_ascii_whitespace().collect::<Vec<_>>())
}

/// A request, in the form of reports.
#[must_use]
pub fn shown(arguments: &[impl AsRef<[u8]>]) -> String {
    let argument = |argument: &[u8]| {
        let bare = !argument.is_empty()
            && argument
                .iter()
                .all(|byte| byte.is_ascii_graphic() && !b"\"'$\\".contains(byte));
        if !bare {
            return crate::reply::quoted(argument);
        }
        match argument.len() {
            0..=200 => String::from_utf8_lossy(argument).into_owned(),
            length => format!("{}...({length} bytes)", String::from_utf8_lossy(&argument[..40])),
        }
    };
    arguments
        .iter()
        .map(|bytes| argument(bytes.as_ref()))
        .collect::<Vec<_>>()
        .join(" ")
}
