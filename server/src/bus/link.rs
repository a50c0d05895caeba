//! [`Link`]: a connection of the bus, and the task that reads it and writes what the socket did not take at once.
//!
//! What is read is cut into frames, whose lengths are checked before the bytes are awaited, and decoded; the driver gets whole packets
//! over a bounded channel, so that a peer that sends more than this node can handle is read more slowly. What is written waits in a
//! queue with a bound: a peer that does not read in time loses the connection. Messages of clients give way to all other packets, so
//! that a node that has many to read answers a ping in time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use shardis_cluster::event::Peer;
use shardis_cluster::node::{Host, LinkId, host};
use shardis_cluster::wire::{FrameError, PREFIX_BYTES, Packet, PacketError, frame_len};
use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;

use super::driver::News;
use crate::cluster::LinkFigures;
use crate::connection::node_stream::NodeStream;
use crate::limits::{BUS_READ_BYTES, BUS_STRANGER_FRAME_BYTES};

/// Bytes of a packet, which several links may share.
pub(super) type Encoded = Rc<[u8]>;

/// A connection of the bus.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    stream: NodeStream,
    peer: Peer,
    unsent: RefCell<Unsent>,
    /// Rung when there is something to write, or the link is closed.
    bell: Notify,
    is_closed: Cell<bool>,
    /// Longest frame of a message that is read from this peer.
    frame_bytes_max: Cell<usize>,
    figures: Arc<LinkFigures>,
}

/// Packets that the socket has not taken.
#[derive(Debug, Default)]
struct Unsent {
    /// The packet that is being sent, and the number of its bytes that are.
    begun: Option<(Encoded, usize)>,
    /// Packets between nodes.
    urgent: VecDeque<Encoded>,
    /// Messages of clients.
    messages: VecDeque<Encoded>,
    /// Bytes that are not sent.
    bytes: usize,
    /// Bytes of all packets that are here.
    held_bytes: usize,
}

impl Unsent {
    /// The packet that is sent next or being sent, and the number of its bytes that are sent.
    fn next(&mut self) -> Option<(Encoded, usize)> {
        self.begun
            .take()
            .or_else(|| Some((self.urgent.pop_front().or_else(|| self.messages.pop_front())?, 0)))
    }
}

/// Cause of the end of a link.
#[derive(Debug)]
enum End {
    /// The driver has closed it.
    Closed,
    /// The connection is lost.
    Lost,
    /// The peer does not keep to a protocol.
    Fault(Fault),
    /// The driver has ended.
    Over,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        // As sessions tell that what has come is wrong, or that the peer does not trust this node.
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Fault(Fault::Session(error)),
            _ => Self::Lost,
        }
    }
}

/// Fault of a peer that ends a link.
#[derive(Debug)]
pub(super) enum Fault {
    /// Something has come that is no frame of the bus.
    Frame(FrameError),
    /// The TLS session has failed.
    Session(io::Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(fault) => fault.fmt(f),
            Self::Session(error) => write!(f, "the TLS session has failed: {error}"),
        }
    }
}

impl Link {
    /// A link over a connection that is established.
    ///
    /// # Errors
    /// When the connection is lost already.
    pub(super) fn new(id: LinkId, stream: NodeStream, figures: Arc<LinkFigures>) -> io::Result<Self> {
        let peer = Peer {
            remote_ip: ip_text(stream.peer_addr()?),
            local_ip: ip_text(stream.local_addr()?),
        };
        Ok(Self {
            id,
            stream,
            peer,
            unsent: RefCell::default(),
            bell: Notify::new(),
            is_closed: Cell::new(false),
            frame_bytes_max: Cell::new(BUS_STRANGER_FRAME_BYTES),
            figures,
        })
    }

    /// The peer's address.
    pub(super) fn remote_ip(&self) -> Host {
        self.peer.remote_ip
    }

    /// Reads longer messages from here on: the peer is known.
    pub(super) fn trust(&self, frame_bytes_max: usize) {
        self.frame_bytes_max.set(frame_bytes_max);
    }

    /// Whether the peer is not known.
    pub(super) fn is_of_stranger(&self) -> bool {
        self.frame_bytes_max.get() == BUS_STRANGER_FRAME_BYTES
    }

    /// Sends a packet, which may be a client's message, and returns the number of bytes that are unsent then.
    pub(super) fn send(&self, packet: Encoded, is_message: bool) -> usize {
        let mut unsent = self.unsent.borrow_mut();
        unsent.bytes += packet.len();
        unsent.held_bytes += packet.len();
        if is_message {
            unsent.messages.push_back(packet);
        } else {
            unsent.urgent.push_back(packet);
        }
        // An error shows when the link is read.
        let _ = self.write(&mut unsent);
        if self.has_to_write(&unsent) {
            self.bell.notify_one();
        }
        unsent.bytes
    }

    /// Whether the socket is to be written to when it takes more. A session may hold bytes that count as sent.
    fn has_to_write(&self, unsent: &Unsent) -> bool {
        unsent.bytes > 0 || self.stream.has_sealed()
    }

    /// Writes what the socket takes now.
    fn write(&self, unsent: &mut Unsent) -> io::Result<()> {
        let outcome = self.write_all(unsent);
        self.figures.unsent.store(unsent.bytes, Ordering::Relaxed);
        self.figures.allocated.store(unsent.held_bytes, Ordering::Relaxed);
        outcome
    }

    fn write_all(&self, unsent: &mut Unsent) -> io::Result<()> {
        while let Some((packet, sent)) = unsent.next() {
            let count = match self.stream.try_write(&packet[sent..]) {
                Ok(count) => count,
                Err(error) => {
                    unsent.begun = Some((packet, sent));
                    let is_full = error.kind() == io::ErrorKind::WouldBlock;
                    return if is_full { Ok(()) } else { Err(error) };
                }
            };
            unsent.bytes -= count;
            if sent + count < packet.len() {
                unsent.begun = Some((packet, sent + count));
            } else {
                unsent.held_bytes -= packet.len();
            }
        }
        self.stream.flush().map(drop)
    }

    /// Ends the link, with nothing more to be heard of it.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        self.bell.notify_one();
    }

    /// Carries the link until it ends, and tells the driver if that is not its own doing.
    pub(super) async fn carry(self: Rc<Self>, news: Sender<News>) {
        let end = match self.serve(&news).await {
            Ok(()) => End::Closed,
            Err(end) => end,
        };
        let fault = match end {
            End::Closed | End::Over => return,
            End::Lost => None,
            End::Fault(fault) => Some(fault),
        };
        let _ = news.send(News::Ended(self.id, fault)).await;
    }

    async fn serve(&self, news: &Sender<News>) -> Result<(), End> {
        let mut input = Vec::new();
        while !self.is_closed.get() {
            let has_unsent = self.has_to_write(&self.unsent.borrow());
            tokio::select! {
                readable = self.stream.readable() => {
                    readable?;
                    if self.read(&mut input)? {
                        self.pass_packets(&mut input, news).await?;
                    }
                }
                writable = self.stream.writable(), if has_unsent => {
                    writable?;
                    self.write(&mut self.unsent.borrow_mut())?;
                }
                () = self.bell.notified() => {}
            }
        }
        Ok(())
    }

    /// Reads what has come. False if that is nothing.
    fn read(&self, input: &mut Vec<u8>) -> Result<bool, End> {
        input.reserve(BUS_READ_BYTES);
        match self.stream.try_read_buf(input) {
            Ok(0) => Err(End::Lost),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Passes on the packets that are whole. A part of one counts as a sign of life.
    async fn pass_packets(&self, input: &mut Vec<u8>, news: &Sender<News>) -> Result<(), End> {
        let mut used = 0;
        while let Some(frame) = self
            .next_frame(&input[used..])
            .map_err(|fault| End::Fault(Fault::Frame(fault)))?
        {
            let message = match Packet::decode(frame) {
                Ok(packet) => News::Packet(self.id, self.peer, Box::new(packet)),
                Err(fault) => News::Malformed(self.id, fault),
            };
            used += frame.len();
            news.send(message).await.map_err(|_| End::Over)?;
            if self.is_closed.get() {
                return Ok(());
            }
        }
        if used == 0 {
            news.send(News::Data(self.id)).await.map_err(|_| End::Over)?;
        }
        input.drain(..used);
        if input.is_empty() {
            // An idle link keeps no memory.
            *input = Vec::new();
        }
        Ok(())
    }

    /// The frame at the front, if it is whole.
    fn next_frame<'a>(&self, input: &'a [u8]) -> Result<Option<&'a [u8]>, FrameError> {
        let Some(prefix) = input.first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let len = frame_len(prefix, self.frame_bytes_max.get())?;
        Ok(input.get(..len))
    }
}

/// An address as packets tell it.
fn ip_text(address: std::net::SocketAddr) -> Host {
    host(&address.ip().to_canonical().to_string()).expect("an address is a host")
}

/// A packet that was dropped because of its form.
pub(super) type Malformed = PacketError;
