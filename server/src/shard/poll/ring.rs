//! UNSAFE. Completion: io_uring (Linux 6.1 and later).
//!
//! Every socket has a multishot receive request, into buffers that the kernel picks from a buffer ring; the writes of
//! a turn are submitted with the next wait, in one system call. The receive request of a connection that is not read
//! is cancelled, and its received bytes are moved out of the buffers when these run low, so that waiting connections
//! cannot use up all buffers.
//!
//! The doorbell and the listeners stay with epoll, whose own descriptor is polled like a socket.
//!
//! Memory that the kernel accesses, and the time for which it must stay in place:
//! - *receive buffers* (`buffers`): the kernel's from when an entry is published until a completion names it, this
//!   program's until it is published again; mapped as long as the ring exists;
//! - *bytes to send* (`SocketState::sending`): not touched, moved or freed while `SocketState::in_flight`; when a connection is
//!   closed, they stay in `Ring::orphans` until the completion.
//!
//! The ring is created on the thread that starts the node, and used by one other thread only, which enables it with
//! its first wait.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::{Allocated, Event, Holds};
use crate::limits::OUTPUT_KEPT_BYTES;
use crate::shard::outgoing::Outgoing;

/// Size of the submission queue; a full queue is submitted early.
const SUBMISSIONS: u32 = 1024;
/// Size of the completion queue.
const COMPLETIONS: u32 = 8192;
/// Number of receive buffers, a power of two.
const BUFFERS: u16 = 128;
/// Size of a receive buffer, bytes: a value of 16 KiB fits in one. Only used pages take memory.
const BUFFER_BYTES: usize = 20 * 1024;
/// The only buffer group.
const GROUP: u16 = 0;
/// The most bytes of one send; the rest follows.
const SEND_BYTES_MAX: usize = 1 << 30;
/// Number of unread buffers of one connection from which its receive request is cancelled.
const WAITING_MAX: usize = 8;
/// Number of free buffers below which those of connections that are not read are emptied.
const FREE_MIN: u16 = BUFFERS / 2;

/// The sockets of a poll that reports completions.
pub(super) struct Ring {
    ring: IoUring,
    buffers: Buffers,
    sockets: Vec<Option<Box<SocketState>>>,
    /// Bytes being sent for closed connections, by the token of the send.
    orphans: HashMap<u64, Vec<u8>>,
    /// Connections whose receive request ended because no buffer was free.
    starved: Vec<usize>,
    next_generation: u32,
    epoll: RawFd,
    enabled: bool,
}

/// One connection's socket.
struct SocketState {
    fd: RawFd,
    generation: u32,
    /// Received and unread bytes: buffer, first unread byte, end.
    received: VecDeque<(u16, usize, usize)>,
    /// Earlier received bytes that were moved here, and the number of them that were read.
    kept: Vec<u8>,
    kept_from: usize,
    /// The connection has ended, with this error code of the system, or in order (0).
    ended: Option<i32>,
    /// A receive request is under way.
    receiving: bool,
    /// The receive request is being cancelled.
    cancelling: bool,
    /// The socket leaves the ring: no further receive request is made.
    leaving: bool,
    /// Bytes being sent, and the number of them that were sent.
    sending: Vec<u8>,
    sent: usize,
    in_flight: bool,
    /// A write was refused meanwhile: the end of the send is reported as an event.
    wants_to_write: bool,
}

/// Token of a completion, in its 64 bits of user data: kind, generation of the socket, connection.
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

impl SocketState {
    fn memory(&self) -> usize {
        size_of::<Self>() + self.kept.capacity() + self.sending.capacity()
    }

    /// Whether there are received and unread bytes.
    fn has_unread(&self) -> bool {
        !self.kept.is_empty() || !self.received.is_empty()
    }

    /// Reads bytes that were moved out of buffers; returns their number.
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
    /// When the system has no io_uring, or lacks a feature of it that is used here.
    pub(super) fn new(epoll: RawFd) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_r_disabled()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_defer_taskrun()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let buffers = Buffers::new()?;
        // SAFETY: the entries are page-aligned, zeroed, of the given number, and outlive the ring: the fields of a
        // struct are dropped in order, and `ring` is declared before `buffers`.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(buffers.address(), BUFFERS, GROUP, 0)?;
        }
        let mut made = Self {
            ring,
            buffers,
            sockets: Vec::new(),
            orphans: HashMap::new(),
            starved: Vec::new(),
            next_generation: 0,
            epoll,
            enabled: false,
        };
        (0..BUFFERS).for_each(|buffer| made.buffers.give_back(buffer));
        Ok(made)
    }

    /// Starts to receive from a connection's socket.
    pub(super) fn add(&mut self, fd: RawFd, connection: usize) {
        if self.sockets.len() <= connection {
            self.sockets.resize_with(connection + 1, || None);
        }
        self.next_generation = (self.next_generation + 1) & ((1 << GENERATION_BITS) - 1);
        self.sockets[connection] = Some(Box::new(SocketState {
            fd,
            generation: self.next_generation,
            received: VecDeque::new(),
            kept: Vec::new(),
            kept_from: 0,
            ended: None,
            receiving: false,
            cancelling: false,
            leaving: false,
            sending: Vec::new(),
            sent: 0,
            in_flight: false,
            wants_to_write: false,
        }));
        self.receive(connection);
    }

    /// Removes a connection. Its socket has been shut down, so that its requests complete soon.
    ///
    /// Queued requests name the socket by its descriptor, which another loop may get for a new connection as soon as
    /// this one is closed: they are submitted before.
    pub(super) fn remove(&mut self, connection: usize) {
        self.hand_over();
        let Some(mut socket) = self.sockets.get_mut(connection).and_then(Option::take) else {
            return;
        };
        for (buffer, ..) in socket.received.drain(..) {
            self.buffers.give_back(buffer);
        }
        if socket.in_flight {
            let token = Token {
                kind: Kind::Send,
                generation: socket.generation,
                connection,
            };
            self.orphans.insert(token.encode(), socket.sending);
        }
    }

    /// Takes a connection's socket out. Returns the bytes that were received and not read; none while requests are under way.
    pub(super) fn detach(&mut self, connection: usize) -> Option<Vec<u8>> {
        self.stop_receiving(connection);
        let place = self.sockets.get_mut(connection)?;
        let socket = place.as_deref_mut()?;
        socket.leaving = true;
        if socket.receiving || socket.in_flight {
            return None;
        }
        let mut socket = place.take()?;
        let mut unread = socket.kept.split_off(socket.kept_from);
        for (buffer, from, end) in socket.received.drain(..) {
            unread.extend_from_slice(&self.buffers.bytes(buffer)[from..end]);
            self.buffers.give_back(buffer);
        }
        Some(unread)
    }

    /// Queues a receive request.
    fn receive(&mut self, connection: usize) {
        let Some(socket) = self.sockets.get_mut(connection).and_then(Option::as_deref_mut) else {
            return;
        };
        if socket.receiving || socket.ended.is_some() || socket.leaving {
            return;
        }
        socket.receiving = true;
        let token = Token {
            kind: Kind::Receive,
            generation: socket.generation,
            connection,
        };
        let entry = opcode::RecvMulti::new(Fd(socket.fd), GROUP)
            .build()
            .user_data(token.encode());
        self.push(entry);
    }

    /// Cancels the receive request.
    fn stop_receiving(&mut self, connection: usize) {
        let Some(socket) = self.sockets.get_mut(connection).and_then(Option::as_deref_mut) else {
            return;
        };
        if !socket.receiving || socket.cancelling {
            return;
        }
        socket.cancelling = true;
        let target = Token {
            kind: Kind::Receive,
            generation: socket.generation,
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
            // SAFETY: the memory that entries point to lives until their completion, see the header.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.hand_over();
        }
    }

    /// Submits all queued requests to the kernel.
    fn hand_over(&mut self) {
        while !self.ring.submission().is_empty() {
            // An error leaves the queue as it is, as the kernel is only short of a resource for a moment.
            if self.ring.submit().is_err() {
                std::thread::yield_now();
            }
        }
    }

    /// Reads received bytes.
    pub(super) fn read(&mut self, connection: usize, out: &mut [u8]) -> io::Result<usize> {
        let Some(socket) = self.sockets.get_mut(connection).and_then(Option::as_deref_mut) else {
            return Ok(0);
        };
        let mut count = socket.read_kept(out);
        while count < out.len()
            && let Some((buffer, from, end)) = socket.received.front_mut()
        {
            let bytes = &self.buffers.bytes(*buffer)[*from..*end];
            let taken = bytes.len().min(out.len() - count);
            out[count..count + taken].copy_from_slice(&bytes[..taken]);
            count += taken;
            *from += taken;
            if *from == *end {
                let buffer = *buffer;
                socket.received.pop_front();
                self.buffers.give_back(buffer);
            }
        }
        if !socket.has_unread() && !socket.receiving {
            self.receive(connection);
        }
        if count > 0 {
            return Ok(count);
        }
        match self.sockets[connection].as_ref().and_then(|socket| socket.ended) {
            None => Err(io::ErrorKind::WouldBlock.into()),
            Some(0) => Ok(0),
            Some(error) => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Takes the first chunk to send it, unless a send is under way. The buffer of the previous send may replace the
    /// chunk.
    pub(super) fn write(&mut self, connection: usize, outgoing: &mut Outgoing) -> io::Result<()> {
        let Some(socket) = self.sockets.get_mut(connection).and_then(Option::as_deref_mut) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        match socket.ended {
            Some(error) if error != 0 => return Err(io::Error::from_raw_os_error(error)),
            _ => {}
        }
        if socket.in_flight {
            socket.wants_to_write = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut spare = std::mem::take(&mut socket.sending);
        spare.clear();
        (socket.sending, socket.sent) = outgoing.take_first(spare);
        self.send(connection);
        Ok(())
    }

    /// Bytes that the ring holds for a connection.
    #[inline]
    pub(super) fn holds(&self, connection: usize) -> Holds {
        let Some(socket) = self.sockets.get(connection).and_then(Option::as_deref) else {
            return Holds::default();
        };
        let waiting = socket.received.iter().map(|(_, from, end)| end - from);
        Holds {
            received: socket.kept.len() - socket.kept_from + waiting.sum::<usize>(),
            unsent: if socket.in_flight {
                socket.sending.len() - socket.sent
            } else {
                0
            },
            sending: socket.sending.capacity(),
            memory: socket.memory(),
        }
    }

    /// Bytes that the ring has allocated for a connection.
    #[inline]
    pub(super) fn allocated(&self, connection: usize) -> Allocated {
        let socket = self.sockets.get(connection).and_then(Option::as_deref);
        socket.map_or_else(Allocated::default, |socket| Allocated {
            memory: socket.memory(),
            sending: socket.sending.capacity(),
        })
    }

    /// Frees the memory of an idle connection.
    pub(super) fn release(&mut self, connection: usize) {
        if let Some(socket) = self.sockets.get_mut(connection).and_then(Option::as_deref_mut)
            && !socket.in_flight
        {
            socket.sending = Vec::new();
        }
    }

    /// Moves received bytes that are not read out of the buffers when few are free; further bytes of such a
    /// connection wait in its socket. Complexity: O(connections), but the work is not repeated for the same
    /// connection.
    fn empty_buffers(&mut self) {
        if self.buffers.free >= FREE_MIN {
            return;
        }
        let mut unread = Vec::new();
        for (connection, socket) in self.sockets.iter_mut().enumerate() {
            let Some(socket) = socket.as_deref_mut().filter(|socket| !socket.received.is_empty()) else {
                continue;
            };
            for (buffer, from, end) in socket.received.drain(..) {
                socket
                    .kept
                    .extend_from_slice(&self.buffers.bytes(buffer)[from..end]);
                self.buffers.give_back(buffer);
            }
            unread.push(connection);
        }
        unread
            .into_iter()
            .for_each(|connection| self.stop_receiving(connection));
    }

    /// Queues a send of the remaining bytes.
    fn send(&mut self, connection: usize) {
        let Some(socket) = self.sockets.get_mut(connection).and_then(Option::as_deref_mut) else {
            return;
        };
        socket.in_flight = true;
        let rest = &socket.sending[socket.sent..];
        let token = Token {
            kind: Kind::Send,
            generation: socket.generation,
            connection,
        };
        let entry = opcode::Send::new(
            Fd(socket.fd),
            rest.as_ptr(),
            rest.len().min(SEND_BYTES_MAX) as u32,
        )
        .flags(libc::MSG_NOSIGNAL)
        .build()
        .user_data(token.encode());
        self.push(entry);
    }

    /// Submits all requests and waits for completions. True when the epoll descriptor became ready.
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

    /// Handles completions.
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

    /// The socket of a completion, if it still exists.
    fn socket(&mut self, token: Token) -> Option<&mut SocketState> {
        let socket = self.sockets.get_mut(token.connection)?.as_deref_mut()?;
        (socket.generation == token.generation).then_some(socket)
    }

    fn received(&mut self, token: Token, done: &cqueue::Entry, on_event: &mut impl FnMut(Event)) {
        let (result, flags) = (done.result(), done.flags());
        let buffer = cqueue::buffer_select(flags);
        self.buffers.free -= u16::from(buffer.is_some());
        let Some(socket) = self.socket(token) else {
            if let Some(buffer) = buffer {
                self.buffers.give_back(buffer);
            }
            return;
        };
        if !cqueue::more(flags) {
            socket.receiving = false;
            socket.cancelling = false;
        }
        let (mut is_event, mut starved, mut unused) = (true, false, None);
        match (result, buffer) {
            (1.., Some(buffer)) => socket.received.push_back((buffer, 0, result as usize)),
            (0, buffer) => {
                unused = buffer;
                socket.ended = Some(0);
            }
            (error, _) if error == -libc::ENOBUFS => {
                is_event = false;
                starved = !socket.has_unread();
            }
            (error, _) if error == -libc::ECANCELED => is_event = false,
            (error, _) => socket.ended = Some(-error),
        }
        let crowded = socket.received.len() >= WAITING_MAX;
        let ended = socket.ended.is_some();
        // A cancelled receive request is queued again if its socket was emptied meanwhile.
        let idle = !socket.receiving && !socket.has_unread() && socket.ended.is_none() && !starved;
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
        let Some(socket) = self.socket(token) else {
            self.orphans.remove(&token.encode());
            return;
        };
        socket.in_flight = false;
        if result < 0 {
            socket.ended = Some(-result);
            return on_event(Event::Socket {
                connection: token.connection,
                readable: true,
                writable: true,
                ended: true,
            });
        }
        socket.sent += result as usize;
        if socket.sent < socket.sending.len() {
            return self.send(token.connection);
        }
        if socket.sending.capacity() > OUTPUT_KEPT_BYTES {
            socket.sending = Vec::new();
        }
        if std::mem::take(&mut socket.wants_to_write) {
            on_event(Event::Socket {
                connection: token.connection,
                readable: false,
                writable: true,
                ended: false,
            });
        }
    }

    /// Whether bytes of a connection are accepted and not sent; if so, the end of the send is reported as an event.
    pub(super) fn is_sending(&mut self, connection: usize) -> bool {
        let Some(socket) = self.sockets.get_mut(connection).and_then(Option::as_deref_mut) else {
            return false;
        };
        socket.wants_to_write |= socket.in_flight;
        socket.in_flight
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("sockets", &self.sockets.len())
            .finish_non_exhaustive()
    }
}

/// Receive buffers, and the ring of entries through which the kernel gets them. They are mapped outside the
/// allocator: most of the memory is never touched, and the allocator would count it as in use.
struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    /// Entries published so far; the low 16 bits are the ring's tail.
    tail: u16,
    /// Buffers that the kernel may fill.
    free: u16,
}

// SAFETY: apart from the kernel, the memory is owned by this value alone.
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
        // SAFETY: within the allocation, initialised, and not the kernel's until it is given back, which takes `&mut
        // self`.
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
        // The entry must be written before the tail includes it.
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // The kernel's ring that knew them is closed.
        unmap(self.entries.cast(), Self::ENTRY_BYTES);
        unmap(self.memory, Self::MEMORY_BYTES);
    }
}

/// Maps zeroed memory at the begin of a page.
fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new mapping at an address of the system's choice overlaps no memory in use.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Ends a mapping of [`map`].
fn unmap(memory: NonNull<u8>, bytes: usize) {
    // SAFETY: the mapping has that length, and its owner has finished with it. A failure would leave it in place.
    unsafe { libc::munmap(memory.as_ptr().cast(), bytes) };
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::Shutdown;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;

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

    #[test]
    fn a_queued_send_does_not_reach_the_next_socket_with_its_descriptor() {
        let (watched, _other_end) = UnixStream::pair().expect("sockets");
        let mut ring = Ring::new(watched.as_raw_fd()).expect("a system with io_uring");
        ring.wait(Duration::ZERO, &mut |_| ()).expect("it is enabled");
        let (socket, _client) = UnixStream::pair().expect("sockets");
        ring.add(socket.as_raw_fd(), 0);
        let mut outgoing = Outgoing::default();
        outgoing.tail().extend_from_slice(b"for the client");
        ring.write(0, &mut outgoing).expect("it is queued");
        socket.shutdown(Shutdown::Both).expect("it is shut down");
        ring.remove(0);

        let (next, mut next_client) = UnixStream::pair().expect("sockets");
        let mut reused = OwnedFd::from(socket);
        rustix::io::dup2(&next, &mut reused).expect("the descriptor is another socket's");
        ring.wait(Duration::from_millis(10), &mut |_| ())
            .expect("the queue is handed over");
        next_client.set_nonblocking(true).expect("it is not waited for");
        let received = next_client.read(&mut [0; 100]);
        assert_eq!(
            received.map_err(|error| error.kind()),
            Err(io::ErrorKind::WouldBlock)
        );
    }
}
