//! [`Session`]: the records of one connection with a client: bytes from the network become bytes of requests, and replies become
//! records. It does no input or output itself, so that both backends of a poll and the control thread can carry it.
//!
//! Between turns a session holds an incomplete record, if one has come in part, decrypted bytes for which the reader had no room, and
//! records that the socket has not accepted; nothing while the connection is idle. All sessions of a thread receive into the same
//! memory.
//!
//! Alerts and answers that the protocol asks for (handshake messages, tickets, new keys) are sealed while bytes are read, and leave
//! with the next [`sealed`](Session::sealed) bytes that are written.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};

use super::outgoing::Outgoing;
use crate::limits::{TLS_HANDSHAKE_BYTES_MAX, TLS_RECEIVE_BYTES, TLS_SEAL_BYTES, TLS_SESSION_BYTES};

thread_local! {
    /// The memory that sessions of this thread receive into.
    static RECEIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; TLS_HANDSHAKE_BYTES_MAX + TLS_RECEIVE_BYTES]);
}

/// The TLS session of one connection, as its server.
pub(crate) struct Session {
    connection: UnbufferedServerConnection,
    /// The end of what was received: an incomplete record or handshake message.
    incomplete: Vec<u8>,
    /// Decrypted bytes that were not read at once.
    unread: Vec<u8>,
    /// Number of bytes at the front of `unread` that have been read since; less than its length unless it is empty.
    read: usize,
    /// Records to send.
    sealed: Outgoing,
    /// The handshake is complete.
    is_open: bool,
    /// Number of bytes that were received before.
    handshake_bytes: usize,
    end: Option<End>,
}

/// Cause for which nothing more comes out of a session.
#[derive(Clone, Debug)]
enum End {
    /// The peer has closed its side.
    Closed,
    /// The peer broke the protocol, or is not trusted.
    Failed(rustls::Error),
    /// The socket failed.
    Broken(io::ErrorKind),
}

impl Session {
    /// The session of a connection that was just accepted.
    ///
    /// # Errors
    /// When the context is not usable.
    pub(crate) fn new(context: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(context)?,
            incomplete: Vec::new(),
            unread: Vec::new(),
            read: 0,
            sealed: Outgoing::default(),
            is_open: false,
            handshake_bytes: 0,
            end: None,
        })
    }

    /// Whether the handshake is complete, so that bytes of requests can come.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Number of bytes that were received for the handshake.
    pub(crate) fn handshake_bytes(&self) -> usize {
        self.handshake_bytes
    }

    /// The error by which the session failed, if it did.
    pub(crate) fn failure(&self) -> Option<&rustls::Error> {
        match &self.end {
            Some(End::Failed(error)) => Some(error),
            _ => None,
        }
    }

    /// The certificate that the peer has shown, which was verified. A resumed session has that of its first handshake.
    pub(crate) fn certificate(&self) -> Option<&[u8]> {
        let chain = self.connection.peer_certificates()?;
        chain.first().map(AsRef::as_ref)
    }

    /// Whether there is something to read although the socket has nothing more.
    #[inline]
    pub(crate) fn has_unread(&self) -> bool {
        !self.unread.is_empty() || self.end.is_some()
    }

    /// Reads bytes of requests: what was kept, and what `receive` gets from the socket, until that comes back short or `out` is full.
    /// Returns their number; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` if there are none yet; the error of the socket, or of the session.
    pub(crate) fn read(
        &mut self,
        out: &mut [u8],
        mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut count = self.read_kept(out);
        RECEIVED.with_borrow_mut(|received| {
            while count < out.len() && self.end.is_none() {
                let kept = self.incomplete.len();
                received[..kept].copy_from_slice(&self.incomplete);
                let room = (received.len() - kept).min(TLS_RECEIVE_BYTES);
                let new = match receive(&mut received[kept..kept + room]) {
                    Ok(0) => {
                        self.end = Some(End::Closed);
                        break;
                    }
                    Ok(new) => new,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        self.end = Some(End::Broken(error.kind()));
                        break;
                    }
                };
                if !self.is_open {
                    self.handshake_bytes += new;
                }
                count += self.take_in(&mut received[..kept + new], &mut out[count..]);
                if new < room {
                    break;
                }
            }
        });
        match (&self.end, count) {
            (_, 1..) => Ok(count),
            (None, 0) => Err(io::ErrorKind::WouldBlock.into()),
            (Some(End::Closed), 0) => Ok(0),
            (Some(End::Failed(error)), 0) => Err(io::Error::other(error.clone())),
            (Some(End::Broken(kind)), 0) => Err((*kind).into()),
        }
    }

    /// Takes in bytes that were received otherwise, and returns all that is decrypted.
    pub(crate) fn take_in_all(&mut self, received: &[u8]) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.incomplete);
        bytes.extend_from_slice(received);
        self.take_in(&mut bytes, &mut []);
        std::mem::take(&mut self.unread).split_off(std::mem::take(&mut self.read))
    }

    /// Reads decrypted bytes that were kept.
    fn read_kept(&mut self, out: &mut [u8]) -> usize {
        let rest = &self.unread[self.read..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        if self.read == self.unread.len() {
            self.unread.clear();
            self.read = 0;
        }
        count
    }

    /// Takes in received bytes, `incomplete` ones included. Decrypted bytes go to `out`, and what does not fit is kept. Returns the
    /// number of those in `out`.
    fn take_in(&mut self, received: &mut [u8], out: &mut [u8]) -> usize {
        let (mut used, mut count) = (0, 0);
        let end = loop {
            let UnbufferedStatus { discard, state, .. } =
                self.connection.process_tls_records(&mut received[used..]);
            used += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        used += record.discard;
                        let (fits, rest) = record
                            .payload
                            .split_at(record.payload.len().min(out.len() - count));
                        out[count..count + fits.len()].copy_from_slice(fits);
                        count += fits.len();
                        self.unread.extend_from_slice(rest);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, self.sealed.tail()),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => break Some(End::Closed),
                // No early data is accepted, and nothing else comes before more is received.
                Ok(_) => break None,
                Err(error) => break Some(End::Failed(error)),
            }
        };
        self.is_open = self.is_open || !self.connection.is_handshaking();
        match end {
            None => self.keep_incomplete(&received[used..]),
            Some(end) => self.end(end),
        }
        count
    }

    /// Keeps received bytes until more come.
    fn keep_incomplete(&mut self, rest: &[u8]) {
        self.incomplete.clear();
        if rest.len() >= TLS_HANDSHAKE_BYTES_MAX {
            // Records are shorter, and no client's handshake is longer.
            self.end(End::Failed(
                rustls::InvalidMessage::HandshakePayloadTooLarge.into(),
            ));
        } else {
            self.incomplete.extend_from_slice(rest);
        }
    }

    /// Ends the session, with an alert that tells the peer if it has failed.
    fn end(&mut self, end: End) {
        self.end = Some(end);
        self.incomplete = Vec::new();
        // Nothing that was received is looked at again: what is to be sent comes first.
        while self.connection.wants_write() {
            match self.connection.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, self.sealed.tail()),
                _ => return,
            }
        }
    }

    /// Records that wait to be sent.
    #[inline]
    pub(crate) fn sealed(&mut self) -> &mut Outgoing {
        &mut self.sealed
    }

    /// Whether there are records to send.
    #[inline]
    pub(crate) fn has_sealed(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Number of bytes of records that wait to be sent.
    pub(crate) fn sealed_bytes(&self) -> usize {
        self.sealed.len()
    }

    /// Makes records of as many outgoing bytes as are sealed at a time; those leave `outgoing`.
    ///
    /// # Errors
    /// When the session is not open, or has ended.
    pub(crate) fn seal_from(&mut self, outgoing: &mut Outgoing) -> io::Result<()> {
        let mut taken = 0;
        for slice in outgoing.slices() {
            let part = &slice[..slice.len().min(TLS_SEAL_BYTES - taken)];
            if part.is_empty() {
                continue;
            }
            self.seal(part)?;
            taken += part.len();
            if taken == TLS_SEAL_BYTES {
                break;
            }
        }
        outgoing.advance(taken);
        Ok(())
    }

    /// Makes records of some bytes.
    ///
    /// # Errors
    /// When the session is not open, or has ended.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> io::Result<()> {
        self.write(|traffic, sealed| encrypt(traffic, plain, sealed))
    }

    /// Makes a record that tells the peer that nothing more comes.
    pub(crate) fn seal_end(&mut self) {
        if self.is_open {
            // A session that has failed has told so.
            let _ = self.write(|traffic, sealed| {
                append(sealed, CLOSE_NOTIFY_BYTES, |space| {
                    traffic.queue_close_notify(space)
                })
            });
        }
    }

    /// Calls `write` as soon as the session can write.
    fn write(
        &mut self,
        write: impl FnOnce(
            &mut WriteTraffic<'_, rustls::server::ServerConnectionData>,
            &mut Vec<u8>,
        ) -> Result<(), EncryptError>,
    ) -> io::Result<()> {
        while self.failure().is_none() {
            // It has been looked at, but it has to be there.
            let UnbufferedStatus { discard, state, .. } =
                self.connection.process_tls_records(&mut self.incomplete);
            debug_assert_eq!(discard, 0, "received bytes are used when they are taken in");
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    return write(&mut traffic, self.sealed.tail()).map_err(io::Error::other);
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, self.sealed.tail()),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                // It is told once.
                Ok(ConnectionState::PeerClosed) => self.end = Some(End::Closed),
                Ok(ConnectionState::BlockedHandshake) if self.end.is_none() => {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                _ => break,
            }
        }
        Err(io::ErrorKind::BrokenPipe.into())
    }

    /// Bytes allocated for the session.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>()
            + TLS_SESSION_BYTES
            + self.incomplete.capacity()
            + self.unread.capacity()
            + self.sealed.memory()
            + self
                .connection
                .peer_certificates()
                .map_or(0, |chain| chain.iter().map(|one| one.len()).sum())
    }

    /// Frees memory while the connection is idle.
    pub(crate) fn release(&mut self) {
        self.incomplete.shrink_to_fit();
        if self.unread.is_empty() {
            self.unread = Vec::new();
        }
        self.sealed.release();
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("is_open", &self.is_open)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// Bytes that a record has at most beyond its payload, in either version.
const RECORD_OVERHEAD: usize = 64;
/// The most payload of a record.
const RECORD_PAYLOAD_MAX: usize = 16 * 1024;
/// Enough bytes for the record that ends a session.
const CLOSE_NOTIFY_BYTES: usize = 2 + RECORD_OVERHEAD;

fn encrypt<Data>(
    traffic: &mut WriteTraffic<'_, Data>,
    plain: &[u8],
    sealed: &mut Vec<u8>,
) -> Result<(), EncryptError> {
    let records = plain.len().div_ceil(RECORD_PAYLOAD_MAX);
    append(sealed, plain.len() + records * RECORD_OVERHEAD, |space| {
        traffic.encrypt(plain, space)
    })
}

/// Appends what `write` writes, which is told once more if it needs more than `enough` bytes: new keys may have to go first.
fn append(
    sealed: &mut Vec<u8>,
    enough: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), EncryptError> {
    let start = sealed.len();
    sealed.resize(start + enough, 0);
    let outcome = match write(&mut sealed[start..]) {
        Err(EncryptError::InsufficientSize(needed)) => {
            sealed.resize(start + needed.required_size, 0);
            write(&mut sealed[start..])
        }
        outcome => outcome,
    };
    sealed.truncate(start + *outcome.as_ref().unwrap_or(&0));
    outcome.map(|_| ())
}

/// Appends a message of the protocol itself.
fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, sealed: &mut Vec<u8>) {
    let start = sealed.len();
    let needed = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(needed)) => needed.required_size,
        // Empty, or appended before.
        Ok(_) | Err(EncodeError::AlreadyEncoded) => return,
    };
    sealed.resize(start + needed, 0);
    let encoded = data.encode(&mut sealed[start..]);
    debug_assert!(
        encoded.is_ok_and(|count| count == needed),
        "it fits the size that it asked for"
    );
}
