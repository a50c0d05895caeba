//! The input of a connection: read into chunks that the connections of a turn share, and parsed request by request.
//!
//! An idle connection holds no buffer. The rest of an incomplete request at the end of a turn is kept in memory of
//! its own, and put in front of the next read. A request that does not fit a chunk grows in memory of its own, and a
//! big argument is read from the socket directly into the buffer that may become the stored value.

use std::io;
use std::sync::Arc;

use shardis_protocol::{Limits, ProtocolError, RequestParser, Requests, Wants};
use shardis_storage::memory::Buffer;

use crate::limits::{CARRY_BYTES_MAX, CHUNK_BYTES, PARSED_AT_ONCE, READ_BYTES_MAX, READ_BYTES_MIN};
use crate::shard::chunk::{Chunk, ChunkPool};
use crate::shard::poll::Link;

/// The unexecuted input of one connection.
#[derive(Debug, Default)]
pub(crate) struct Input {
    parser: RequestParser,
    /// Unparsed bytes, between turns.
    kept: Vec<u8>,
    /// Unparsed bytes in a chunk of this turn.
    fresh: Option<Fresh>,
    /// The big argument that is being received.
    filling: Option<Box<Filling>>,
    /// Big arguments of the incomplete request that have been received.
    detached: Vec<Buffer>,
    /// Bytes of a big argument's line end that are still to come.
    terminator: u8,
    /// The unparsed bytes contain no further complete request.
    exhausted: bool,
    /// Requests are parsed one at a time until more bytes are read.
    one_by_one: bool,
}

/// Position of requests that were parsed together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parsed {
    /// Number of the chunk.
    pub(crate) chunk: u16,
    /// End of this connection's bytes in the chunk.
    end: usize,
}

/// Range of a chunk.
#[derive(Clone, Copy, Debug)]
struct Fresh {
    chunk: u16,
    at: usize,
    end: usize,
}

#[derive(Debug)]
struct Filling {
    buffer: Buffer,
    len: usize,
}

/// The chunks that a turn reads into.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    /// Chunks of the turn, the last one being filled.
    pub(crate) chunks: &'a mut Vec<Chunk>,
    /// The chunk that is being filled, and the number of bytes in it.
    pub(crate) filled: &'a mut Option<(u16, usize)>,
    /// Supplies further chunks.
    pub(crate) pool: &'a mut ChunkPool,
}

/// Result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Bytes were read; the socket may have more if `more` is set.
    Bytes {
        /// Number of bytes.
        count: usize,
        /// The read filled its buffer.
        more: bool,
    },
    /// There are no bytes now.
    Nothing,
    /// The client has closed the connection, or it broke.
    Closed,
}

impl Input {
    /// Reads once from the socket.
    pub(crate) fn receive(&mut self, socket: &mut Link<'_>, reading: &mut Reading<'_>) -> Received {
        debug_assert!(
            self.fresh.is_none(),
            "what was read before is parsed or kept before more is read"
        );
        if self.filling.is_some() {
            return self.fill(socket);
        }
        if self.kept.len() >= CARRY_BYTES_MAX {
            return self.grow(socket, reading);
        }
        let (number, at) = place(reading, self.kept.len());
        let chunk = &mut reading.chunks[usize::from(number)];
        let Some(chunk) = Arc::get_mut(chunk) else {
            unreachable!("a chunk to read into is not shared")
        };
        let start = at + self.kept.len();
        chunk[at..start].copy_from_slice(&self.kept);
        let room = (chunk.len() - start).min(READ_BYTES_MAX);
        let received = received(socket.read(&mut chunk[start..start + room]), room);
        if let Received::Bytes { count, .. } = received {
            let skipped = self.skip_terminator(&mut chunk[start..start + count]);
            let end = start + count - skipped;
            self.kept = Vec::new();
            self.exhausted = false;
            self.one_by_one = false;
            self.fresh = Some(Fresh {
                chunk: number,
                at,
                end,
            });
            *reading.filled = Some((number, end));
        }
        received
    }

    /// Reads more bytes of a request that has outgrown the chunks.
    fn grow(&mut self, socket: &mut Link<'_>, reading: &mut Reading<'_>) -> Received {
        let start = self.kept.len();
        self.kept.resize(start + READ_BYTES_MAX, 0);
        let received = received(socket.read(&mut self.kept[start..]), READ_BYTES_MAX);
        let count = if let Received::Bytes { count, .. } = received {
            count
        } else {
            0
        };
        let skipped = self.terminator.min(u8::try_from(count).unwrap_or(u8::MAX));
        self.terminator -= skipped;
        self.kept.drain(start..start + usize::from(skipped));
        self.kept.truncate(start + count - usize::from(skipped));
        self.exhausted = false;
        if count > 0 && reading.chunks.len() < usize::from(u16::MAX) {
            self.expose_kept(reading.chunks);
        }
        received
    }

    /// Reads more bytes of a big argument, into its own buffer.
    fn fill(&mut self, socket: &mut Link<'_>) -> Received {
        let Some(filling) = &mut self.filling else {
            return Received::Nothing;
        };
        let missing = filling.len - filling.buffer.len();
        let space = filling.buffer.spare_mut(missing.min(READ_BYTES_MAX * 16));
        let room = space.len();
        let received = received(socket.read(space), room);
        if let Received::Bytes { count, .. } = received {
            filling.buffer.advance(count);
        }
        received
    }

    /// Moves kept bytes into a chunk if they can be parsed without reading first: before the first read of a turn,
    /// and after a big argument is complete.
    pub(crate) fn expose(&mut self, chunks: &mut Vec<Chunk>) {
        if let Some(filling) = self
            .filling
            .take_if(|filling| filling.buffer.len() == filling.len)
        {
            self.detached.push(filling.buffer);
            self.exhausted = false;
        }
        let parseable =
            !self.exhausted && self.filling.is_none() && self.fresh.is_none() && !self.kept.is_empty();
        if parseable && chunks.len() < usize::from(u16::MAX) {
            self.expose_kept(chunks);
        }
    }

    fn expose_kept(&mut self, chunks: &mut Vec<Chunk>) {
        let end = self.kept.len();
        chunks.push(Arc::new(std::mem::take(&mut self.kept)));
        self.fresh = Some(Fresh {
            chunk: (chunks.len() - 1) as u16,
            at: 0,
            end,
        });
    }

    /// Removes the line end of a big argument from the front of the bytes read. Returns the number of bytes removed.
    fn skip_terminator(&mut self, read: &mut [u8]) -> usize {
        let skipped = usize::from(self.terminator).min(read.len());
        if skipped > 0 {
            read.copy_within(skipped.., 0);
            self.terminator -= skipped as u8;
        }
        skipped
    }

    /// Takes the next complete requests, if there are any, and replaces `requests` by them. It takes only one if that
    /// one determines how the next is parsed, as for a client that is not `authenticated`.
    ///
    /// # Errors
    /// When the bytes violate the protocol.
    #[inline]
    pub(crate) fn next_requests(
        &mut self,
        chunks: &mut Vec<Chunk>,
        limits: &Limits,
        requests: &mut Requests,
    ) -> Result<Option<Parsed>, ProtocolError> {
        requests.clear();
        let Some(mut fresh) = self.fresh else {
            return Ok(None);
        };
        // The count is checked because the second half of `get_mut` is expensive, and there are no weak references to
        // chunks.
        if Arc::strong_count(&chunks[usize::from(fresh.chunk)]) > 1 {
            // Commands in the chunk are under way on another shard; the rest moves to a chunk that may be written.
            let rest = chunks[usize::from(fresh.chunk)][fresh.at..fresh.end].to_vec();
            fresh = Fresh {
                chunk: chunks.len() as u16,
                at: 0,
                end: rest.len(),
            };
            chunks.push(Arc::new(rest));
        }
        let Some(chunk) = Arc::get_mut(&mut chunks[usize::from(fresh.chunk)]) else {
            return Ok(None);
        };
        let requests_max = if limits.authenticated && !self.one_by_one {
            PARSED_AT_ONCE
        } else {
            1
        };
        let (base, input) = (fresh.at as u32, &mut chunk[fresh.at..fresh.end]);
        let wants = match self.parser.parse(input, base, limits, requests, requests_max) {
            Ok(progress) => {
                fresh.at += progress.consumed;
                progress.wants
            }
            Err(error) if requests.is_empty() => return Err(error),
            Err(_) => {
                // The faulty request is found again once the requests before it have been taken.
                fresh.at = requests.end_of(requests.len() - 1);
                Wants::Room
            }
        };
        if requests.is_empty() {
            if let Wants::Bulk { .. } = wants {
                self.begin_filling(chunk, &mut fresh);
            }
            self.fresh = Some(fresh);
            self.exhausted = true;
            return Ok(None);
        }
        self.fresh = (fresh.at < fresh.end).then_some(fresh);
        Ok(Some(Parsed {
            chunk: fresh.chunk,
            end: fresh.end,
        }))
    }

    /// Puts back the requests parsed last, except the first `taken`, which are at least one.
    pub(crate) fn put_back(&mut self, parsed: Parsed, requests: &Requests, taken: usize) {
        if taken == requests.len() {
            return;
        }
        self.parser.forget();
        self.exhausted = false;
        // The cause that stops a connection mostly recurs, and no request should be parsed many times.
        self.one_by_one = true;
        self.fresh = Some(Fresh {
            chunk: parsed.chunk,
            at: requests.end_of(taken - 1),
            end: parsed.end,
        });
    }

    /// Allocates a buffer for a big argument, and moves the part that has arrived into it.
    fn begin_filling(&mut self, chunk: &[u8], fresh: &mut Fresh) {
        let Some(bulk) = self.parser.detach_bulk() else {
            return;
        };
        let start = fresh.at + bulk.payload_start;
        let arrived = &chunk[start..fresh.end];
        let payload = &arrived[..arrived.len().min(bulk.len)];
        let mut buffer = Buffer::with_capacity(bulk.len);
        buffer.extend(payload);
        // The two bytes after the payload; one of them may have arrived.
        self.terminator = 2 - (arrived.len() - payload.len()).min(2) as u8;
        self.filling = Some(Box::new(Filling {
            buffer,
            len: bulk.len,
        }));
        fresh.end = start;
    }

    /// The big arguments of the request that was just taken.
    #[inline]
    pub(crate) fn take_detached(&mut self) -> Vec<Buffer> {
        std::mem::take(&mut self.detached)
    }

    /// Moves the unparsed bytes out of the turn's chunks, which are reused.
    pub(crate) fn keep(&mut self, chunks: &mut [Chunk]) {
        let Some(fresh) = self.fresh.take() else { return };
        let chunk = &mut chunks[usize::from(fresh.chunk)];
        if fresh.at == 0
            && chunk.len() != CHUNK_BYTES
            && let Some(own) = Arc::get_mut(chunk)
        {
            // A request that grows in memory of its own stays there.
            own.truncate(fresh.end);
            self.kept = std::mem::take(own);
        } else {
            self.kept = chunk[fresh.at..fresh.end].to_vec();
        }
    }

    /// Whether there are bytes that may contain a complete request.
    pub(crate) fn has_unparsed(&self) -> bool {
        !self.exhausted && (self.fresh.is_some() || !self.kept.is_empty()) || self.is_filled()
    }

    /// Whether a big argument is complete and its request can be parsed further.
    pub(crate) fn is_filled(&self) -> bool {
        self.filling
            .as_ref()
            .is_some_and(|filling| filling.buffer.len() == filling.len)
    }

    /// Bytes that wait to be executed.
    pub(crate) fn bytes(&self) -> usize {
        let fresh = self.fresh.map_or(0, |fresh| fresh.end - fresh.at);
        let filling = self.filling.as_ref().map_or(0, |filling| filling.buffer.len());
        self.kept.len() + fresh + filling + self.detached.iter().map(|buffer| buffer.len()).sum::<usize>()
    }

    /// Bytes of an incomplete request's arguments in buffers of their own.
    pub(crate) fn argument_bytes(&self) -> usize {
        let filling = self
            .filling
            .as_ref()
            .map_or(0, |filling| filling.buffer.capacity());
        filling + self.detached.iter().map(Buffer::capacity).sum::<usize>()
    }

    /// Allocated bytes that an incomplete request does not use yet.
    pub(crate) fn spare(&self) -> usize {
        self.kept.capacity() - self.kept.len()
    }

    /// Whether a part of a request has come, and the rest has not.
    #[inline]
    pub(crate) fn holds_memory(&self) -> bool {
        self.kept.capacity() > 0 || self.filling.is_some() || !self.detached.is_empty()
    }

    /// The bytes of no complete request, between turns. A big argument that had begun is lost with its request.
    pub(crate) fn into_unparsed(self) -> Vec<u8> {
        debug_assert!(self.fresh.is_none(), "the turn has kept what it did not use");
        self.kept
    }

    /// Frees memory that an incomplete request does not use.
    pub(crate) fn release(&mut self) {
        self.kept.shrink_to_fit();
    }

    /// Bytes allocated for the input.
    pub(crate) fn memory(&self) -> usize {
        let filling = self
            .filling
            .as_ref()
            .map_or(0, |filling| filling.buffer.capacity());
        let detached: usize = self.detached.iter().map(Buffer::capacity).sum();
        self.kept.capacity() + filling + detached + self.parser.memory()
    }
}

/// A position in a chunk with room for the kept bytes and a read of useful size.
fn place(reading: &mut Reading<'_>, kept: usize) -> (u16, usize) {
    if let Some((number, filled)) = *reading.filled
        && CHUNK_BYTES - filled >= kept + READ_BYTES_MIN
        && Arc::get_mut(&mut reading.chunks[usize::from(number)]).is_some()
    {
        return (number, filled);
    }
    reading.chunks.push(reading.pool.take());
    ((reading.chunks.len() - 1) as u16, 0)
}

fn received(outcome: io::Result<usize>, room: usize) -> Received {
    match outcome {
        Ok(0) => Received::Closed,
        Ok(count) => Received::Bytes {
            count,
            more: count == room,
        },
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Received::Nothing
        }
        Err(_) => Received::Closed,
    }
}
