//! UNSAFE. Waiting for completion: io_uring (Linux 6.1 and later).
//!
//! Every socket has a standing order to receive, into buffers that the kernel picks from a ring of ours; writes of a turn
//! are handed over together with the next wait, in one system call. A standing order is taken back from a connection that
//! is not read, and what it has sent is moved out of the buffers when these run low, so that connections which wait for
//! something cannot use up the buffers of all.
//!
//! The doorbell and listeners stay with epoll: its own descriptor is waited for like a socket.
//!
//! The memory that the kernel is given, and for how long it stays as it is:
//! - *receive buffers* (`buffers`): the kernel's from when an entry is published until a completion names it, ours until it
//!   is published again; mapped as long as the ring;
//! - *bytes to send* (`Link::sending`): not touched, moved or freed while `Link::in_flight`; a connection that goes leaves
//!   them in `Ring::orphans` until the completion has come.
//!
//! The ring is made where the node starts and used by one thread only, which enables it with its first wait.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::{Event, Holds};
use crate::limits::OUTPUT_KEPT_BYTES;
use crate::shard::outgoing::Outgoing;

/// Requests that fit the submission queue; more are handed over in between.
const SUBMISSIONS: u32 = 1024;
/// Completions that the kernel can hold.
const COMPLETIONS: u32 = 8192;
/// Receive buffers, a power of two.
const BUFFERS: u16 = 128;
/// Bytes of one receive buffer: a value of 16 KiB comes in one piece. Only what is used takes memory.
const BUFFER_BYTES: usize = 20 * 1024;
/// The only group of buffers.
const GROUP: u16 = 0;
/// Bytes of one send; what is left follows.
const SEND_BYTES_MAX: usize = 1 << 30;
/// Buffers that wait to be read from one connection before its order to receive is taken back.
const WAITING_MAX: usize = 8;
/// With fewer free buffers than this, those of connections that are not read are emptied.
const FREE_MIN: u16 = BUFFERS / 2;

/// Sockets whose reads and writes complete.
pub(super) struct Ring {
    ring: IoUring,
    buffers: Buffers,
    links: Vec<Option<Box<Link>>>,
    /// Bytes being sent for connections that are gone, by the token of the send.
    orphans: HashMap<u64, Vec<u8>>,
    /// Links whose order to receive ended because no buffer was free.
    starved: Vec<usize>,
    next_generation: u32,
    epoll: RawFd,
    enabled: bool,
}

/// One connection's socket.
struct Link {
    fd: RawFd,
    generation: u32,
    /// Bytes that have come and were not read: buffer, first unread byte, end.
    received: VecDeque<(u16, usize, usize)>,
    /// Bytes that came before those and were moved here, and how far they were read.
    kept: Vec<u8>,
    kept_from: usize,
    /// The connection has ended: with an error of the system, or in order (0).
    ended: Option<i32>,
    /// The order to receive stands.
    receiving: bool,
    /// It is being taken back.
    cancelling: bool,
    /// Bytes being sent, and how far.
    sending: Vec<u8>,
    sent: usize,
    in_flight: bool,
    /// A write was refused meanwhile: the end of the send is an event.
    wants_to_write: bool,
}

/// Subject of a completion, in its 64 bits of user data: kind, generation of the link, connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token {
    kind: Kind,
    generation: u32,
    connection: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Receive = 1,
    Send,
    Cancel,
    Epoll,
}

const GENERATION_BITS: u32 = 28;

impl Token {
    fn encode(self) -> u64 {
        (self.kind as u64) << 60 | u64::from(self.generation) << 32 | self.connection as u64
    }

    fn decode(data: u64) -> Option<Self> {
        let kind = match data >> 60 {
            1 => Kind::Receive,
            2 => Kind::Send,
            3 => Kind::Cancel,
            4 => Kind::Epoll,
            _ => return None,
        };
        let generation = (data >> 32) as u32 & ((1 << GENERATION_BITS) - 1);
        Some(Self {
            kind,
            generation,
            connection: data as u32 as usize,
        })
    }
}

impl Link {
    fn memory(&self) -> usize {
        size_of::<Self>() + self.kept.capacity() + self.sending.capacity()
    }

    /// Whether something has come that was not read.
    fn has_unread(&self) -> bool {
        !self.kept.is_empty() || !self.received.is_empty()
    }

    /// Reads what was moved out of buffers; returns how many bytes.
    fn read_kept(&mut self, out: &mut [u8]) -> usize {
        let rest = &self.kept[self.kept_from..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.kept_from += count;
        if self.kept_from == self.kept.len() && count > 0 {
            self.kept = Vec::new();
            self.kept_from = 0;
        }
        count
    }
}

impl Ring {
    /// A ring that also watches an epoll descriptor.
    ///
    /// # Errors
    /// When the system has no rings, or none of the kind that is used here.
    pub(super) fn new(epoll: RawFd) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_r_disabled()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_defer_taskrun()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let buffers = Buffers::new()?;
        // SAFETY: the entries are page-aligned, zeroed, as many as said, and outlive the ring: the fields of a struct are
        // dropped in order, and `ring` is declared before `buffers`.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(buffers.address(), BUFFERS, GROUP, 0)?;
        }
        let mut made = Self {
            ring,
            buffers,
            links: Vec::new(),
            orphans: HashMap::new(),
            starved: Vec::new(),
            next_generation: 0,
            epoll,
            enabled: false,
        };
        (0..BUFFERS).for_each(|buffer| made.buffers.give_back(buffer));
        Ok(made)
    }

    /// Begins to receive from a connection's socket.
    pub(super) fn add(&mut self, fd: RawFd, connection: usize) {
        if self.links.len() <= connection {
            self.links.resize_with(connection + 1, || None);
        }
        self.next_generation = (self.next_generation + 1) & ((1 << GENERATION_BITS) - 1);
        self.links[connection] = Some(Box::new(Link {
            fd,
            generation: self.next_generation,
            received: VecDeque::new(),
            kept: Vec::new(),
            kept_from: 0,
            ended: None,
            receiving: false,
            cancelling: false,
            sending: Vec::new(),
            sent: 0,
            in_flight: false,
            wants_to_write: false,
        }));
        self.receive(connection);
    }

    /// Forgets a connection. Its socket has been shut down, so what is under way completes soon.
    ///
    /// Orders that are still in the queue name the socket by its descriptor, which another loop may get for a new connection as
    /// soon as this one is closed: they are handed over before.
    pub(super) fn remove(&mut self, connection: usize) {
        self.hand_over();
        let Some(mut link) = self.links.get_mut(connection).and_then(Option::take) else {
            return;
        };
        for (buffer, ..) in link.received.drain(..) {
            self.buffers.give_back(buffer);
        }
        if link.in_flight {
            let token = Token {
                kind: Kind::Send,
                generation: link.generation,
                connection,
            };
            self.orphans.insert(token.encode(), link.sending);
        }
    }

    /// Gives the order to receive.
    fn receive(&mut self, connection: usize) {
        let Some(link) = self.links.get_mut(connection).and_then(Option::as_deref_mut) else {
            return;
        };
        if link.receiving || link.ended.is_some() {
            return;
        }
        link.receiving = true;
        let token = Token {
            kind: Kind::Receive,
            generation: link.generation,
            connection,
        };
        let entry = opcode::RecvMulti::new(Fd(link.fd), GROUP)
            .build()
            .user_data(token.encode());
        self.push(entry);
    }

    /// Takes the order to receive back.
    fn stop_receiving(&mut self, connection: usize) {
        let Some(link) = self.links.get_mut(connection).and_then(Option::as_deref_mut) else {
            return;
        };
        if !link.receiving || link.cancelling {
            return;
        }
        link.cancelling = true;
        let target = Token {
            kind: Kind::Receive,
            generation: link.generation,
            connection,
        };
        let token = Token {
            kind: Kind::Cancel,
            ..target
        };
        self.push(
            opcode::AsyncCancel::new(target.encode())
                .build()
                .user_data(token.encode()),
        );
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: what entries point to lives until their completion, see the header.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.hand_over();
        }
    }

    /// Hands the kernel all orders that are in the queue.
    fn hand_over(&mut self) {
        while !self.ring.submission().is_empty() {
            // An error leaves the queue as it is, for the kernel is short of something for a moment.
            if self.ring.submit().is_err() {
                std::thread::yield_now();
            }
        }
    }

    /// Reads what has come.
    pub(super) fn read(&mut self, connection: usize, out: &mut [u8]) -> io::Result<usize> {
        let Some(link) = self.links.get_mut(connection).and_then(Option::as_deref_mut) else {
            return Ok(0);
        };
        let mut count = link.read_kept(out);
        while count < out.len()
            && let Some((buffer, from, end)) = link.received.front_mut()
        {
            let bytes = &self.buffers.bytes(*buffer)[*from..*end];
            let taken = bytes.len().min(out.len() - count);
            out[count..count + taken].copy_from_slice(&bytes[..taken]);
            count += taken;
            *from += taken;
            if *from == *end {
                let buffer = *buffer;
                link.received.pop_front();
                self.buffers.give_back(buffer);
            }
        }
        if !link.has_unread() && !link.receiving {
            self.receive(connection);
        }
        if count > 0 {
            return Ok(count);
        }
        match self.links[connection].as_ref().and_then(|link| link.ended) {
            None => Err(io::ErrorKind::WouldBlock.into()),
            Some(0) => Ok(0),
            Some(error) => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Takes the first chunk to send it, unless a send is under way. The buffer that was sent before may come back in its
    /// place.
    pub(super) fn write(&mut self, connection: usize, outgoing: &mut Outgoing) -> io::Result<()> {
        let Some(link) = self.links.get_mut(connection).and_then(Option::as_deref_mut) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        match link.ended {
            Some(error) if error != 0 => return Err(io::Error::from_raw_os_error(error)),
            _ => {}
        }
        if link.in_flight {
            link.wants_to_write = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut spare = std::mem::take(&mut link.sending);
        spare.clear();
        (link.sending, link.sent) = outgoing.take_first(spare);
        self.send(connection);
        Ok(())
    }

    /// What it holds of a connection.
    #[inline]
    pub(super) fn holds(&self, connection: usize) -> Holds {
        let Some(link) = self.links.get(connection).and_then(Option::as_deref) else {
            return Holds::default();
        };
        let waiting = link.received.iter().map(|(_, from, end)| end - from);
        Holds {
            received: link.kept.len() - link.kept_from + waiting.sum::<usize>(),
            unsent: if link.in_flight {
                link.sending.len() - link.sent
            } else {
                0
            },
            sending: link.sending.capacity(),
            memory: link.memory(),
        }
    }

    /// Memory that it holds for a connection.
    #[inline]
    pub(super) fn memory(&self, connection: usize) -> usize {
        let link = self.links.get(connection).and_then(Option::as_deref);
        link.map_or(0, Link::memory)
    }

    /// Gives the memory of an idle connection back.
    pub(super) fn release(&mut self, connection: usize) {
        if let Some(link) = self.links.get_mut(connection).and_then(Option::as_deref_mut)
            && !link.in_flight
        {
            link.sending = Vec::new();
        }
    }

    /// Moves what connections have sent and nobody reads out of the buffers, when few are free; what such a connection sends
    /// beyond that waits in its socket. Complexity: O(connections), but for none that was seen to does it come again.
    fn empty_buffers(&mut self) {
        if self.buffers.free >= FREE_MIN {
            return;
        }
        let mut unread = Vec::new();
        for (connection, link) in self.links.iter_mut().enumerate() {
            let Some(link) = link.as_deref_mut().filter(|link| !link.received.is_empty()) else {
                continue;
            };
            for (buffer, from, end) in link.received.drain(..) {
                link.kept
                    .extend_from_slice(&self.buffers.bytes(buffer)[from..end]);
                self.buffers.give_back(buffer);
            }
            unread.push(connection);
        }
        unread
            .into_iter()
            .for_each(|connection| self.stop_receiving(connection));
    }

    /// Hands over what is left to send.
    fn send(&mut self, connection: usize) {
        let Some(link) = self.links.get_mut(connection).and_then(Option::as_deref_mut) else {
            return;
        };
        link.in_flight = true;
        let rest = &link.sending[link.sent..];
        let token = Token {
            kind: Kind::Send,
            generation: link.generation,
            connection,
        };
        let entry = opcode::Send::new(Fd(link.fd), rest.as_ptr(), rest.len().min(SEND_BYTES_MAX) as u32)
            .flags(libc::MSG_NOSIGNAL)
            .build()
            .user_data(token.encode());
        self.push(entry);
    }

    /// Hands over what is to be sent and waits for completions. True when the epoll descriptor became ready.
    pub(super) fn wait(&mut self, timeout: Duration, on_event: &mut impl FnMut(Event)) -> io::Result<bool> {
        if !self.enabled {
            self.ring.submitter().register_enable_rings()?;
            self.enabled = true;
            self.watch_epoll();
        }
        self.empty_buffers();
        for connection in std::mem::take(&mut self.starved) {
            self.receive(connection);
        }
        let limit = Timespec::new()
            .sec(timeout.as_secs())
            .nsec(timeout.subsec_nanos());
        let args = SubmitArgs::new().timespec(&limit);
        match self.ring.submitter().submit_with_args(1, &args) {
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) => {}
            Err(error) => return Err(error),
        }
        self.complete(on_event)
    }

    fn watch_epoll(&mut self) {
        let token = Token {
            kind: Kind::Epoll,
            generation: 0,
            connection: 0,
        };
        let entry = opcode::PollAdd::new(Fd(self.epoll), libc::POLLIN as u32)
            .multi(true)
            .build();
        self.push(entry.user_data(token.encode()));
    }

    /// Takes in what has completed.
    fn complete(&mut self, on_event: &mut impl FnMut(Event)) -> io::Result<bool> {
        let mut epoll_ready = false;
        while let Some(done) = { self.ring.completion().next() } {
            let Some(token) = Token::decode(done.user_data()) else {
                continue;
            };
            match token.kind {
                Kind::Receive => self.received(token, &done, on_event),
                Kind::Send => self.sent(token, done.result(), on_event),
                Kind::Cancel => {}
                Kind::Epoll => {
                    epoll_ready = true;
                    if !cqueue::more(done.flags()) {
                        self.watch_epoll();
                    }
                }
            }
        }
        Ok(epoll_ready)
    }

    /// The link a completion is about, if it is still there.
    fn link(&mut self, token: Token) -> Option<&mut Link> {
        let link = self.links.get_mut(token.connection)?.as_deref_mut()?;
        (link.generation == token.generation).then_some(link)
    }

    fn received(&mut self, token: Token, done: &cqueue::Entry, on_event: &mut impl FnMut(Event)) {
        let (result, flags) = (done.result(), done.flags());
        let buffer = cqueue::buffer_select(flags);
        self.buffers.free -= u16::from(buffer.is_some());
        let Some(link) = self.link(token) else {
            if let Some(buffer) = buffer {
                self.buffers.give_back(buffer);
            }
            return;
        };
        if !cqueue::more(flags) {
            link.receiving = false;
            link.cancelling = false;
        }
        let (mut is_event, mut starved, mut unused) = (true, false, None);
        match (result, buffer) {
            (1.., Some(buffer)) => link.received.push_back((buffer, 0, result as usize)),
            (0, buffer) => {
                unused = buffer;
                link.ended = Some(0);
            }
            (error, _) if error == -libc::ENOBUFS => {
                is_event = false;
                starved = !link.has_unread();
            }
            (error, _) if error == -libc::ECANCELED => is_event = false,
            (error, _) => link.ended = Some(-error),
        }
        let crowded = link.received.len() >= WAITING_MAX;
        let ended = link.ended.is_some();
        // A cancelled order whose link was emptied meanwhile is given again.
        let idle = !link.receiving && !link.has_unread() && link.ended.is_none() && !starved;
        if let Some(buffer) = unused {
            self.buffers.give_back(buffer);
        }
        if crowded {
            self.stop_receiving(token.connection);
        }
        if starved {
            self.starved.push(token.connection);
        } else if idle {
            self.receive(token.connection);
        }
        if is_event {
            on_event(Event::Socket {
                connection: token.connection,
                readable: true,
                writable: false,
                ended,
            });
        }
    }

    fn sent(&mut self, token: Token, result: i32, on_event: &mut impl FnMut(Event)) {
        let Some(link) = self.link(token) else {
            self.orphans.remove(&token.encode());
            return;
        };
        link.in_flight = false;
        if result < 0 {
            link.ended = Some(-result);
            return on_event(Event::Socket {
                connection: token.connection,
                readable: true,
                writable: true,
                ended: true,
            });
        }
        link.sent += result as usize;
        if link.sent < link.sending.len() {
            return self.send(token.connection);
        }
        if link.sending.capacity() > OUTPUT_KEPT_BYTES {
            link.sending = Vec::new();
        }
        if std::mem::take(&mut link.wants_to_write) {
            on_event(Event::Socket {
                connection: token.connection,
                readable: false,
                writable: true,
                ended: false,
            });
        }
    }

    /// Whether a connection has bytes that were taken and are not sent; if so, their end will be an event.
    pub(super) fn is_sending(&mut self, connection: usize) -> bool {
        let Some(link) = self.links.get_mut(connection).and_then(Option::as_deref_mut) else {
            return false;
        };
        link.wants_to_write |= link.in_flight;
        link.in_flight
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("links", &self.links.len())
            .finish_non_exhaustive()
    }
}

/// Receive buffers, and the ring of entries through which the kernel gets them. Mapped apart from what the allocator gives:
/// most of it is never touched, and would be counted as memory in use without being there.
struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    /// Entries published so far; its low 16 bits are the ring's tail.
    tail: u16,
    /// Buffers that the kernel may fill.
    free: u16,
}

// SAFETY: the memory is owned by this value alone, apart from the kernel.
unsafe impl Send for Buffers {}

impl Buffers {
    const ENTRY_BYTES: usize = BUFFERS as usize * size_of::<BufRingEntry>();
    const MEMORY_BYTES: usize = BUFFERS as usize * BUFFER_BYTES;

    fn new() -> io::Result<Self> {
        let entries = map(Self::ENTRY_BYTES)?;
        let memory = map(Self::MEMORY_BYTES).inspect_err(|_| unmap(entries, Self::ENTRY_BYTES))?;
        Ok(Self {
            entries: entries.cast(),
            memory,
            tail: 0,
            free: 0,
        })
    }

    fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    /// The bytes of a buffer that a completion has named.
    fn bytes(&self, buffer: u16) -> &[u8] {
        let at = usize::from(buffer % BUFFERS) * BUFFER_BYTES;
        // SAFETY: within the allocation, initialised, and not the kernel's until it is given back, which takes `&mut self`.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(at), BUFFER_BYTES) }
    }

    /// Publishes a buffer for the kernel to fill.
    fn give_back(&mut self, buffer: u16) {
        let at = usize::from(buffer % BUFFERS) * BUFFER_BYTES;
        let index = usize::from(self.tail % BUFFERS);
        // SAFETY: the entry is within the allocation and not the kernel's: there are as many entries as buffers, and this
        // buffer is ours. Only address, length and number are written, not the word in which the first entry holds the
        // tail.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(index);
            entry.set_addr(self.memory.as_ptr().add(at) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer % BUFFERS);
        }
        self.free += 1;
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is a 16-bit word of the first entry that the kernel only reads, and reads as an atomic.
        let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
        // The entry is written before the tail says so.
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // The ring that knew them is gone.
        unmap(self.entries.cast(), Self::ENTRY_BYTES);
        unmap(self.memory, Self::MEMORY_BYTES);
    }
}

/// Maps zeroed memory that begins at a page.
fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new mapping at an address of the system's choice touches no memory that is in use.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Ends a mapping that [`map`] has made.
fn unmap(memory: NonNull<u8>, bytes: usize) {
    // SAFETY: the mapping is that long, and whoever owned it is done with it. Failing would leave it in place.
    unsafe { libc::munmap(memory.as_ptr().cast(), bytes) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_their_encoding() {
        for kind in [Kind::Receive, Kind::Send, Kind::Cancel, Kind::Epoll] {
            for generation in [0, 1, (1 << GENERATION_BITS) - 1] {
                let token = Token {
                    kind,
                    generation,
                    connection: 123_456,
                };
                assert_eq!(Token::decode(token.encode()), Some(token));
            }
        }
        assert_eq!(Token::decode(0), None);
    }
}
