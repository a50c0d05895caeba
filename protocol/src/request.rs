//! The incremental parser of requests: every complete request at the front of a connection's input, as places in it.
//!
//! A request comes in one of two forms. The usual one is an array of bulks:
//!
//! ```text
//! *2\r\n  $3\r\n GET \r\n  $5\r\n hello \r\n
//! ```
//!
//! Anything that does not begin with `*` is an inline request, one line of words (`request/inline.rs`).
//!
//! Promises:
//! - No argument is copied. A request is a run of [`Span`]s in a [`Requests`] list that is used turn after turn.
//! - No byte is looked at twice, however small the pieces in which a request arrives. The parser keeps its position,
//!   as offsets from the front of the unfinished request; without one, its state is one null pointer.
//! - A big argument can leave the input: see [`RequestParser::detach_bulk`].
//! - The boundaries of reads change nothing: neither the requests nor the error.
//!
//! Leniencies are those of the reference server: any two bytes may follow a payload, any byte a carriage return, and
//! an empty request is skipped without a reply. So is its one oddity: a NUL byte hides the line end behind it, so
//! that such a line only ends by growing too long.

mod inline;

use crate::arguments::{Arguments, Span};
use crate::error::ProtocolError;
use crate::integer;
use crate::limits::{BIG_ARGUMENT_BYTES, Limits, REACH_BYTES, UNAUTHENTICATED_ARGUMENTS_MAX};

/// Two bytes follow the payload of a bulk.
const TERMINATOR_BYTES: usize = 2;

/// A list that has this many spans takes no further request, so that positions in it always fit in 32 bits: one request
/// adds fewer than 2^30, as each of its arguments takes at least six bytes within reach.
const SPANS_MAX: usize = 1 << 31;

/// Complete requests in the order in which they came.
#[derive(Default, Debug)]
pub struct Requests {
    /// The spans of all arguments, request after request.
    spans: Vec<Span>,
    /// Ends of the requests in `spans`.
    ends: Vec<u32>,
}

/// One request of a [`Requests`] list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Locations of its arguments, the command's name first. Never empty.
    pub spans: &'a [Span],
}

impl<'a> Request<'a> {
    /// The arguments over the buffer that was parsed, and over what was detached from this request.
    #[inline]
    #[must_use]
    pub fn arguments(self, base: &'a [u8], detached: &'a [&'a [u8]]) -> Arguments<'a> {
        Arguments::new(base, self.spans, detached)
    }
}

impl Requests {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Requests {
            spans: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Number of requests.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the list is empty.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The request at `index`; `None` beyond the last one.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Request<'_>> {
        (index < self.len()).then(|| {
            let (first, count) = self.spans_range(index);
            Request {
                spans: &self.spans[first as usize..(first + count) as usize],
            }
        })
    }

    /// All requests in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Request<'_>> {
        let mut first = 0;
        self.ends.iter().map(move |&end| {
            let spans = &self.spans[first..end as usize];
            first = end as usize;
            Request { spans }
        })
    }

    /// First span of a request in [`Requests::spans`], and the number of its spans.
    ///
    /// # Panics
    /// If `index` is beyond the last request.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn spans_range(&self, index: usize) -> (u32, u32) {
        let first = if index == 0 { 0 } else { self.ends[index - 1] };
        (first, self.ends[index] - first)
    }

    /// The spans of all requests, one request after the other.
    #[inline]
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Position in the base where the request at `index` ends. The request must be followed by others of the same
    /// call: it is then neither inline nor has it detached arguments.
    ///
    /// # Panics
    /// If `index` is beyond the last request.
    #[must_use]
    #[track_caller]
    pub fn end_of(&self, index: usize) -> usize {
        let last = self.spans[self.ends[index] as usize - 1];
        last.end() + TERMINATOR_BYTES
    }

    /// Forgets all requests but the first `len`; keeps the memory.
    pub fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.spans
            .truncate(self.ends.last().map_or(0, |&end| end as usize));
    }

    /// Forgets all requests; keeps the memory.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.ends.clear();
    }

    /// Frees memory beyond that for `spans` spans (and as many requests). To be called after an unusual burst, so that a list
    /// that once held a million arguments does not keep their memory.
    pub fn shrink_to(&mut self, spans: usize) {
        self.spans.shrink_to(spans);
        self.ends.shrink_to(spans);
    }

    /// The memory that the list holds, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.ends.capacity() * size_of::<u32>()
    }

    /// Makes a request of the spans that were pushed since the last one.
    #[inline]
    fn close(&mut self) {
        self.ends.push(self.spans.len() as u32);
    }
}

/// Result of [`RequestParser::parse`]: the part of the input that is used up, and what the parser needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Number of bytes at the front of the input that belong to complete requests.
    pub consumed: usize,
    /// Reason for which the parser stopped there.
    pub wants: Wants,
}

/// Input that a parser needs to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Nothing: the input ended at the end of a request.
    Nothing,
    /// Room in the list: as many requests were delivered as were asked for, or an inline one, which comes alone. The
    /// rest of the input may hold more.
    Room,
    /// More bytes: a request has begun.
    More,
    /// The rest of a bulk of at least [`BIG_ARGUMENT_BYTES`]. It may be received elsewhere
    /// ([`RequestParser::detach_bulk`]) or like anything else.
    Bulk {
        /// Length of the payload in bytes.
        len: usize,
        /// Number of its bytes that have arrived; counts the two bytes of the terminator, so up to `len + 1`.
        received: usize,
    },
}

/// A bulk that the caller receives into a buffer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetachedBulk {
    /// Start of the payload in the input that was left over.
    pub payload_start: usize,
    /// Length of the payload in bytes; two more follow it on the wire.
    pub len: usize,
}

/// The parser of one connection's requests.
#[derive(Default, Debug)]
pub struct RequestParser {
    /// The request that has begun and is not complete.
    partial: Option<Box<Partial>>,
}

/// An incomplete request. All offsets count from its first byte.
#[derive(Debug)]
struct Partial {
    phase: Phase,
    /// The arguments that are complete.
    spans: Vec<Span>,
    /// Number of them that are detached.
    detached: u32,
}

/// The incomplete part of a request. The first `searched` bytes do not contain the end of the line.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Its first line: the number of arguments, or all of an inline request.
    FirstLine { searched: usize },
    /// The line at `at`, which holds the length of an argument; with it, `missing` arguments are to come. With none
    /// to come the request is complete: its last argument was detached.
    Length {
        at: usize,
        searched: usize,
        missing: u32,
    },
    /// The `len` bytes of payload at `at`; with them, `missing` arguments are to come.
    Payload { at: usize, len: usize, missing: u32 },
}

/// Progress of a request: its end, or the part it lacks.
enum Step {
    /// The spans are complete; the request takes so many bytes.
    Complete(usize),
    /// A request without arguments, of so many bytes.
    Empty(usize),
    /// More bytes are needed.
    Halt(Phase),
}

impl RequestParser {
    /// A parser at the beginning of a connection.
    #[must_use]
    pub const fn new() -> Self {
        RequestParser { partial: None }
    }

    /// Appends the complete requests at the front of `input` to `out`, `requests_max` at most.
    ///
    /// Spans count from `base`: they fit the buffer in which `input` begins at that offset. The caller keeps
    /// `input[consumed..]` and presents it again, at the front and followed by newer bytes (at whatever `base` it then
    /// has). Inline requests are unescaped in place; nothing else is written to `input`.
    ///
    /// A call that completes an inline request, or one begun in an earlier call, completes no other; this includes every
    /// request with detached arguments. Of several, what lies behind [`Requests::end_of`] any of them may be presented again
    /// after [`RequestParser::forget`], to be parsed once more.
    ///
    /// Takes O(new bytes).
    ///
    /// # Errors
    /// At the first byte that violates the protocol. The requests before it are in `out`: the caller answers them, then sends
    /// the error, and closes the connection.
    ///
    /// # Panics
    /// May panic if the caller does not present the unused input again.
    pub fn parse(
        &mut self,
        input: &mut [u8],
        base: u32,
        limits: &Limits,
        out: &mut Requests,
        requests_max: usize,
    ) -> Result<Progress, ProtocolError> {
        let reach = REACH_BYTES.saturating_sub(base as usize).min(input.len());
        let out_of_reach = input.len() - reach;
        let input = &mut input[..reach];
        let before = out.len();
        let mut stop = before.saturating_add(requests_max);
        let mut at = 0;
        while at < input.len() {
            let is_inline = input[at] != b'*' && self.partial.is_none();
            if out.len() >= stop || out.spans.len() >= SPANS_MAX || (is_inline && out.len() > before) {
                return Ok(Progress {
                    consumed: at,
                    wants: Wants::Room,
                });
            }
            if is_inline || self.partial.is_some() {
                stop = before + 1;
            }
            let rest = &mut input[at..];
            let origin = base as usize + at;
            let step = match self.partial.take() {
                None => begin(rest, origin, limits, out)?,
                Some(partial) => resume(partial, rest, origin, limits, out)?,
            };
            match step {
                Ok(bytes) => at += bytes,
                Err(partial) if out_of_reach > 0 && at == 0 => {
                    drop(partial);
                    return Err(ProtocolError::RequestTooLong);
                }
                Err(partial) => {
                    let wants = if out_of_reach > 0 {
                        Wants::Room
                    } else {
                        partial.wants(rest.len())
                    };
                    self.partial = Some(partial);
                    return Ok(Progress { consumed: at, wants });
                }
            }
        }
        let wants = if out_of_reach > 0 {
            Wants::Room
        } else {
            Wants::Nothing
        };
        Ok(Progress { consumed: at, wants })
    }

    /// Hands the bulk of [`Wants::Bulk`] over to the caller, who then
    /// - takes the bytes from `payload_start` on out of the input that was left over (and truncates it there),
    /// - receives the rest of the payload and the two bytes behind it into a buffer of its own,
    /// - calls [`RequestParser::parse`] with what is left over, followed by the bytes behind the bulk; also when there
    ///   are none yet, for the bulk may have been what completes the request.
    ///
    /// The argument is then a detached span; its index counts the bulks that were detached from its request, from 0.
    /// `None` if the last parse did not end in a big bulk.
    pub fn detach_bulk(&mut self) -> Option<DetachedBulk> {
        let partial = self.partial.as_mut()?;
        match partial.phase {
            Phase::Payload { at, len, missing } if len >= BIG_ARGUMENT_BYTES => {
                partial.spans.push(Span::detached(partial.detached));
                partial.detached += 1;
                partial.phase = Phase::Length {
                    at,
                    searched: at,
                    missing: missing - 1,
                };
                Some(DetachedBulk {
                    payload_start: at,
                    len,
                })
            }
            _ => None,
        }
    }

    /// Whether a request has begun and is not complete.
    #[inline]
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.partial.is_some()
    }

    /// Forgets the incomplete request. The caller must present its bytes again from the first one on.
    pub fn forget(&mut self) {
        self.partial = None;
    }

    /// The memory that the parser holds for an unfinished request, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            size_of::<Partial>() + partial.spans.capacity() * size_of::<Span>()
        })
    }
}

impl Partial {
    /// The answer to the caller when `kept` bytes of the request have arrived.
    fn wants(&self, kept: usize) -> Wants {
        match self.phase {
            Phase::Payload { at, len, .. } if len >= BIG_ARGUMENT_BYTES => Wants::Bulk {
                len,
                received: kept - at,
            },
            _ => Wants::More,
        }
    }
}

/// The usual case: a request that begins in this input. Its spans are written to their final place; only if it turns
/// out to be incomplete they are moved aside, and made relative to its first byte.
#[inline]
fn begin(
    rest: &mut [u8],
    origin: usize,
    limits: &Limits,
    out: &mut Requests,
) -> Result<Result<usize, Box<Partial>>, ProtocolError> {
    let first = out.spans.len();
    match step(
        Phase::FirstLine { searched: 0 },
        rest,
        origin,
        limits,
        &mut out.spans,
    ) {
        Ok(Step::Complete(bytes)) => {
            out.close();
            Ok(Ok(bytes))
        }
        Ok(Step::Empty(bytes)) => Ok(Ok(bytes)),
        Ok(Step::Halt(phase)) => {
            let spans = out
                .spans
                .drain(first..)
                .map(|span| span.moved_down(origin as u32))
                .collect();
            Ok(Err(Box::new(Partial {
                phase,
                spans,
                detached: 0,
            })))
        }
        Err(error) => {
            out.spans.truncate(first);
            Err(error)
        }
    }
}

/// Continues a request whose beginning was parsed before.
fn resume(
    mut partial: Box<Partial>,
    rest: &mut [u8],
    origin: usize,
    limits: &Limits,
    out: &mut Requests,
) -> Result<Result<usize, Box<Partial>>, ProtocolError> {
    match step(partial.phase, rest, 0, limits, &mut partial.spans)? {
        Step::Complete(bytes) => {
            out.spans
                .extend(partial.spans.iter().map(|span| span.moved_up(origin as u32)));
            out.close();
            Ok(Ok(bytes))
        }
        Step::Empty(bytes) => Ok(Ok(bytes)),
        Step::Halt(phase) => {
            partial.phase = phase;
            Ok(Err(partial))
        }
    }
}

/// Parses on from `phase`. `rest` begins with the request's first byte, which is at `origin` of the spans' base.
#[inline(always)]
fn step(
    phase: Phase,
    rest: &mut [u8],
    origin: usize,
    limits: &Limits,
    spans: &mut Vec<Span>,
) -> Result<Step, ProtocolError> {
    match phase {
        Phase::FirstLine { searched } if rest[0] == b'*' => {
            let (count, at) = match count_line(rest, searched, limits)? {
                Header::Value { value, end } => (value, end),
                Header::Open { searched } => return Ok(Step::Halt(Phase::FirstLine { searched })),
            };
            if count == 0 {
                return Ok(Step::Empty(at));
            }
            // Spans are reserved in proportion to the bytes that have arrived, not to the announced count.
            spans.reserve(count.min(1 + rest.len() / 8));
            arguments(rest, at, at, count as u32, origin, limits, spans)
        }
        Phase::FirstLine { searched } => inline_line(rest, searched, origin, limits, spans),
        Phase::Length {
            at,
            searched,
            missing,
        } => arguments(rest, at, searched, missing, origin, limits, spans),
        Phase::Payload { at, len, missing } => match payload(rest, at, len, origin, spans) {
            Some(end) => arguments(rest, end, end, missing - 1, origin, limits, spans),
            None => Ok(Step::Halt(phase)),
        },
    }
}

/// Parses `missing` bulks, of which the first begins at `at`.
#[inline(always)]
fn arguments(
    rest: &[u8],
    mut at: usize,
    mut searched: usize,
    mut missing: u32,
    origin: usize,
    limits: &Limits,
    spans: &mut Vec<Span>,
) -> Result<Step, ProtocolError> {
    let short_max = limits.bulk_bytes_now();
    while missing > 0 {
        let (len, payload_at) = match short_header(&rest[at..]) {
            Some((len, bytes)) if rest[at] == b'$' && len as usize <= short_max => (len as usize, at + bytes),
            _ => match length_line(&rest[at..], searched.saturating_sub(at), limits)? {
                Header::Value { value, end } => (value, at + end),
                Header::Open { searched } => {
                    return Ok(Step::Halt(Phase::Length {
                        at,
                        searched: at + searched,
                        missing,
                    }));
                }
            },
        };
        match payload(rest, payload_at, len, origin, spans) {
            Some(end) => at = end,
            None => {
                return Ok(Step::Halt(Phase::Payload {
                    at: payload_at,
                    len,
                    missing,
                }));
            }
        }
        searched = at;
        missing -= 1;
    }
    Ok(Step::Complete(at))
}

/// Takes in the payload at `at`, if all of it and its terminator have come; returns the position of the next line.
#[inline(always)]
fn payload(rest: &[u8], at: usize, len: usize, origin: usize, spans: &mut Vec<Span>) -> Option<usize> {
    if (rest.len() - at).checked_sub(TERMINATOR_BYTES)? < len {
        return None;
    }
    spans.push(Span::within_reach(origin + at, len));
    Some(at + len + TERMINATOR_BYTES)
}

/// A line with a number, as far as it has arrived.
enum Header {
    /// The number, and where the next line begins.
    Value { value: usize, end: usize },
    /// The line is incomplete; its end is not among the first `searched` bytes.
    Open { searched: usize },
}

/// Reads the number of arguments; an empty line counts as 0.
#[inline(always)]
fn count_line(line: &[u8], searched: usize, limits: &Limits) -> Result<Header, ProtocolError> {
    match short_header(line) {
        Some((count, end)) if count <= UNAUTHENTICATED_ARGUMENTS_MAX && count <= limits.arguments_max => {
            Ok(Header::Value {
                value: count as usize,
                end,
            })
        }
        _ => long_count_line(line, searched, limits),
    }
}

/// [`count_line`] for all that is unusual.
#[inline(never)]
fn long_count_line(line: &[u8], searched: usize, limits: &Limits) -> Result<Header, ProtocolError> {
    let cr = match find_cr(line, searched, limits) {
        LineEnd::At(cr) => cr,
        LineEnd::Open { searched } => return Ok(Header::Open { searched }),
        LineEnd::TooFar => return Err(ProtocolError::CountLineTooLong),
    };
    let arguments_max = i64::from(limits.arguments_max.min(i32::MAX as u32));
    let count = integer::parse(&line[1..cr]).filter(|&count| count <= arguments_max);
    let count = count.ok_or(ProtocolError::InvalidCount)?;
    if count > i64::from(UNAUTHENTICATED_ARGUMENTS_MAX) && !limits.authenticated {
        return Err(ProtocolError::UnauthenticatedCount);
    }
    Ok(Header::Value {
        value: count.max(0) as usize,
        end: cr + 2,
    })
}

/// Reads the length of an argument from a line of any form. The type byte counts only once the line is complete.
#[inline(never)]
fn length_line(line: &[u8], searched: usize, limits: &Limits) -> Result<Header, ProtocolError> {
    let cr = match find_cr(line, searched, limits) {
        LineEnd::At(cr) => cr,
        LineEnd::Open { searched } => return Ok(Header::Open { searched }),
        LineEnd::TooFar => return Err(ProtocolError::LengthLineTooLong),
    };
    if line[0] != b'$' {
        return Err(ProtocolError::ExpectedBulk(line[0]));
    }
    let len = integer::parse(&line[1..cr]).and_then(|len| usize::try_from(len).ok());
    let len = len
        .filter(|&len| len <= limits.bulk_bytes_max)
        .ok_or(ProtocolError::InvalidLength)?;
    if len > limits.bulk_bytes_now() {
        return Err(ProtocolError::UnauthenticatedLength);
    }
    Ok(Header::Value {
        value: len,
        end: cr + 2,
    })
}

/// Reads a type byte and a number of at most nine digits, with its carriage return and one byte behind that: nearly
/// every line. Returns the number of bytes. `None` for all other lines, wrong or merely unusual.
#[inline(always)]
fn short_header(line: &[u8]) -> Option<(u32, usize)> {
    match *line {
        [_, digit @ b'0'..=b'9', b'\r', _, ..] => Some((u32::from(digit - b'0'), 4)),
        [_, tens @ b'1'..=b'9', digit @ b'0'..=b'9', b'\r', _, ..] => {
            Some((u32::from(tens - b'0') * 10 + u32::from(digit - b'0'), 5))
        }
        [_, b'1'..=b'9', ..] => medium_header(line),
        _ => None,
    }
}

/// [`short_header`] for a number that does not begin with zero.
#[inline]
fn medium_header(line: &[u8]) -> Option<(u32, usize)> {
    let mut value = 0;
    // A type byte, nine digits and the carriage return; the last byte need only be there.
    for (index, &byte) in line[..line.len() - 1].iter().enumerate().take(11).skip(1) {
        match byte {
            b'0'..=b'9' if index < 10 => value = value * 10 + u32::from(byte - b'0'),
            b'\r' => return Some((value, index + 2)),
            _ => return None,
        }
    }
    None
}

/// End of a line.
enum LineEnd {
    /// Position of its last byte.
    At(usize),
    /// The last byte is not among the first `searched` bytes, and more may come.
    Open { searched: usize },
    /// There is none within the limit.
    TooFar,
}

/// Finds the carriage return that ends `line`, provided that the byte behind it has come as well.
fn find_cr(line: &[u8], searched: usize, limits: &Limits) -> LineEnd {
    match find_byte(b'\r', line, searched, limits.inline_bytes_max) {
        LineEnd::At(cr) if cr + 1 == line.len() => LineEnd::Open { searched: cr },
        end => end,
    }
}

/// Finds the first `end` in `line`, of which the first `searched` bytes hold none, with at most `bytes_max` bytes before
/// it. A NUL hides what follows.
fn find_byte(end: u8, line: &[u8], searched: usize, bytes_max: usize) -> LineEnd {
    let window = &line[..line.len().min(bytes_max.saturating_add(1))];
    // The limit may have shrunk since the last look.
    let searched = searched.min(window.len());
    let found = memchr::memchr2(end, 0, &window[searched..]).map(|index| searched + index);
    match found {
        Some(index) if window[index] == end => LineEnd::At(index),
        _ if line.len() > bytes_max => LineEnd::TooFar,
        // At a NUL the place does not advance, so that the NUL is found again at once.
        Some(index) => LineEnd::Open { searched: index },
        None => LineEnd::Open { searched: line.len() },
    }
}

/// Parses one inline request. Its line ends with a newline; one carriage return before that belongs to the end.
#[inline(never)]
fn inline_line(
    rest: &mut [u8],
    searched: usize,
    origin: usize,
    limits: &Limits,
    spans: &mut Vec<Span>,
) -> Result<Step, ProtocolError> {
    // A record of version 3.0 to 3.4 with a handshake message, which is the first of a client. It need not have a newline.
    if let [0x16, 3, 0..=4, _, _, 1, ..] = rest {
        return Err(ProtocolError::TlsHandshake);
    }
    // The end of a line is two bytes or one: the first of two does not count as part of the request.
    let with_cr = rest.get(limits.inline_bytes_max) == Some(&b'\r');
    let bytes_max = limits.inline_bytes_max + usize::from(with_cr);
    let newline = match find_byte(b'\n', rest, searched, bytes_max) {
        LineEnd::At(newline) => newline,
        LineEnd::Open { searched } => return Ok(Step::Halt(Phase::FirstLine { searched })),
        LineEnd::TooFar => return Err(ProtocolError::InlineTooLong),
    };
    let text = &mut rest[..newline];
    let text_bytes = text.strip_suffix(b"\r").map_or(newline, <[u8]>::len);
    let before = spans.len();
    inline::split(&mut text[..text_bytes], origin, spans)?;
    Ok(if spans.len() == before {
        Step::Empty(newline + 1)
    } else {
        Step::Complete(newline + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    type Words = Vec<Vec<u8>>;

    /// A simple model of the reading half of a connection.
    struct Reader {
        parser: RequestParser,
        limits: Limits,
        requests_max: usize,
        /// Start of the input in its buffer.
        base: usize,
        /// Whether big bulks are detached.
        detaches: bool,
        /// Whether half of the requests of each call are put back.
        puts_back: bool,
        kept: Vec<u8>,
        /// A bulk being received, and the number of its bytes with the terminator.
        receiving: Option<(Vec<u8>, usize)>,
        detached: Vec<Vec<u8>>,
        requests: Vec<Words>,
        error: Option<ProtocolError>,
        wants: Wants,
    }

    impl Reader {
        fn new() -> Self {
            Reader {
                parser: RequestParser::new(),
                limits: Limits::default(),
                requests_max: usize::MAX,
                base: 0,
                detaches: false,
                puts_back: false,
                kept: Vec::new(),
                receiving: None,
                detached: Vec::new(),
                requests: Vec::new(),
                error: None,
                wants: Wants::Nothing,
            }
        }

        /// Takes in what one read returned.
        fn read(&mut self, mut bytes: &[u8]) {
            if let Some((mut bulk, bytes_max)) = self.receiving.take() {
                let (payload, behind) = bytes.split_at(bytes.len().min(bytes_max - bulk.len()));
                bulk.extend_from_slice(payload);
                bytes = behind;
                if bulk.len() < bytes_max {
                    self.receiving = Some((bulk, bytes_max));
                    return;
                }
                bulk.truncate(bytes_max - TERMINATOR_BYTES);
                self.detached.push(bulk);
            }
            self.kept.extend_from_slice(bytes);
            while self.error.is_none() && self.parse() {}
        }

        /// Parses once; returns whether to parse again.
        fn parse(&mut self) -> bool {
            let mut buffer = vec![b'#'; self.base];
            buffer.append(&mut self.kept);
            let mut out = Requests::new();
            let result = self.parser.parse(
                &mut buffer[self.base..],
                self.base as u32,
                &self.limits,
                &mut out,
                self.requests_max,
            );
            assert!(out.len() <= self.requests_max);
            if self.puts_back && out.len() > 1 {
                out.truncate(out.len() / 2);
                self.deliver(&buffer, &out);
                self.parser.forget();
                self.kept = buffer.split_off(out.end_of(out.len() - 1));
                return true;
            }
            self.deliver(&buffer, &out);
            match result {
                Ok(Progress { consumed, wants }) => {
                    self.kept = buffer.split_off(self.base + consumed);
                    self.wants = wants;
                    assert_eq!(wants == Wants::Nothing, self.kept.is_empty());
                    match wants {
                        Wants::Bulk { len, received } => self.detaches && self.detach(len, received),
                        Wants::Room => true,
                        Wants::More | Wants::Nothing => false,
                    }
                }
                Err(error) => {
                    self.error = Some(error);
                    false
                }
            }
        }

        fn deliver(&mut self, buffer: &[u8], out: &Requests) {
            for (index, request) in out.iter().enumerate() {
                assert_eq!(Some(request), out.get(index));
                let detached: Vec<&[u8]> = self.detached.iter().map(Vec::as_slice).collect();
                let arguments = request.arguments(buffer, &detached);
                let used = (0..arguments.len()).filter_map(|index| arguments.detached(index));
                assert!(used.eq(0..if index == 0 { detached.len() } else { 0 }));
                self.requests.push(arguments.iter().map(<[u8]>::to_vec).collect());
                self.detached.clear();
            }
        }

        fn detach(&mut self, len: usize, received: usize) -> bool {
            let bulk = self.parser.detach_bulk().unwrap();
            assert_eq!(bulk.len, len);
            let payload = self.kept.split_off(bulk.payload_start);
            assert_eq!(payload.len(), received);
            self.receiving = Some((payload, len + TERMINATOR_BYTES));
            false
        }
    }

    fn words(words: &[&str]) -> Words {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn read_all(input: &[u8]) -> Reader {
        let mut reader = Reader::new();
        reader.read(input);
        reader
    }

    #[test]
    fn an_idle_parser_is_one_pointer() {
        assert_eq!(size_of::<RequestParser>(), size_of::<usize>());
    }

    /// Each row was answered alike by a real server, as far as a client can tell.
    #[test]
    fn requests_are_understood_as_by_the_reference() {
        for (input, expected) in [
            (&b"*1\r\n$4\r\nPING\r\n"[..], &[&["PING"][..]][..]),
            (
                b"*2\r\n$3\r\nGET\r\n$12\r\n0123456789ab\r\n",
                &[&["GET", "0123456789ab"]],
            ),
            (b"*1\rX$4\rXPINGXX*1\rX$4\rXPINGXX", &[&["PING"], &["PING"]]),
            (
                b"*2\r\n$4\r\nECHO\r\n$5\r\na\0\r\nb\r\n",
                &[&["ECHO", "a\0\r\nb"]],
            ),
            (b"*1\r\n$0\r\n\r\nPING\r\n", &[&[""], &["PING"]]),
            (b"*0\r\nPING\r\n", &[&["PING"]]),
            (b"*-1\r\nPING\r\n", &[&["PING"]]),
            (b"*-5\r\nPING\r\n", &[&["PING"]]),
            (b"*-9223372036854775808\r\nPING\r\n", &[&["PING"]]),
            (b"PING\n", &[&["PING"]]),
            (b"PING\r\r\n", &[&["PING"]]),
            (
                b"\n\r\n  \r\nPING\nSET \"a b\" '' \r\n",
                &[&["PING"], &["SET", "a b", ""]],
            ),
            (b"$4\r\n", &[&["$4"]]),
            (b"''\nPING\n", &[&[""], &["PING"]]),
        ] {
            let reader = read_all(input);
            let expected: Vec<Words> = expected.iter().map(|request| words(request)).collect();
            assert_eq!(
                (reader.requests, reader.error),
                (expected, None),
                "{}",
                input.escape_ascii()
            );
            assert_eq!(reader.wants, Wants::Nothing, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn what_is_incomplete_waits_without_a_word() {
        for input in [
            &b"*"[..],
            b"*1",
            b"*1\r",
            b"*1\n$4\nPING\n",
            b"*1\0\r\n",
            b"*x",
            b"*1048577\r\n",
            b"*2147483647\r\n",
            b"*1\r\n!",
            b"*1\r\n!4\r",
            b"*1\r\n\0\r\n",
            b"*1\r\n$4\r\nPING",
            b"*1\r\n$4\r\nPING\r",
            b"PING",
            b"PING\r",
            b"PING\0\nPING\n",
            b"'",
        ] {
            let reader = read_all(input);
            assert!(
                reader.requests.is_empty() && reader.error.is_none(),
                "{}",
                input.escape_ascii()
            );
            assert_eq!(
                (reader.wants, &reader.kept[..]),
                (Wants::More, input),
                "{}",
                input.escape_ascii()
            );
        }
    }

    #[test]
    fn errors_are_those_of_the_reference() {
        for (input, error) in [
            (&b"*+1\r\n"[..], ProtocolError::InvalidCount),
            (b"* 1\r\n", ProtocolError::InvalidCount),
            (b"*01\r\n", ProtocolError::InvalidCount),
            (b"*00\r\n", ProtocolError::InvalidCount),
            (b"*-0\r\n", ProtocolError::InvalidCount),
            (b"*1x\r\n", ProtocolError::InvalidCount),
            (b"*\r\n", ProtocolError::InvalidCount),
            (b"*2147483648\r\n", ProtocolError::InvalidCount),
            (b"*4294967297\r\n", ProtocolError::InvalidCount),
            (b"*99999999999999999999999\r\n", ProtocolError::InvalidCount),
            (b"*1\r\n$+4\r\n", ProtocolError::InvalidLength),
            (b"*1\r\n$-1\r\n", ProtocolError::InvalidLength),
            (b"*1\r\n$04\r\n", ProtocolError::InvalidLength),
            (b"*1\r\n$\r\n", ProtocolError::InvalidLength),
            (b"*1\r\n$536870913\r\n", ProtocolError::InvalidLength),
            (b"*1\r\n$18446744073709551617\r\n", ProtocolError::InvalidLength),
            (b"*1\r\n!4\r\n", ProtocolError::ExpectedBulk(b'!')),
            (b"*1\r\n\r\n", ProtocolError::ExpectedBulk(b'\r')),
            (b"*1\r\n\n\r\n", ProtocolError::ExpectedBulk(b'\n')),
            (b"*1\r\n\xff\r\n", ProtocolError::ExpectedBulk(0xff)),
            (b"*2\r\n$1\r\na\r\n:1\r\n", ProtocolError::ExpectedBulk(b':')),
            (b"ECHO 'a\r\n", ProtocolError::UnbalancedQuotes),
        ] {
            let reader = read_all(&[b"PING\r\n", input].concat());
            assert_eq!(
                reader.requests,
                [words(&["PING"])],
                "what came before is delivered"
            );
            assert_eq!(reader.error, Some(error), "{}", input.escape_ascii());
        }
        assert_eq!(read_all(b"*1\r\n$536870912\r\n").error, None);
    }

    #[test]
    fn lines_end_within_the_limit() {
        let ones = |count| vec![b'1'; count];
        for (start, end, error) in [
            (&b"*"[..], &b"\r\n"[..], ProtocolError::CountLineTooLong),
            (b"*1\r\n$", b"\r\n", ProtocolError::LengthLineTooLong),
            (b"*1\r\n!", b"\r\n", ProtocolError::LengthLineTooLong),
            (b"1", b"\n", ProtocolError::InlineTooLong),
            (b"1", b"\r\n", ProtocolError::InlineTooLong),
        ] {
            // 64 KiB are let through, be it to another error; the byte behind them is one too many.
            let longest = [start, &ones(65_535)].concat();
            assert_eq!(read_all(&longest).error, None);
            assert_ne!(read_all(&[&longest, end].concat()).error, Some(error));
            let too_long = [&longest[..], b"1"].concat();
            assert_eq!(read_all(&too_long).error, Some(error));
            assert_eq!(read_all(&[&too_long, end].concat()).error, Some(error));
        }
        // A line does not end behind a NUL.
        let hidden = |count| read_all(&[b"\0\n", &ones(count)[..]].concat()).error;
        assert_eq!(
            (hidden(65_534), hidden(65_535)),
            (None, Some(ProtocolError::InlineTooLong))
        );
    }

    #[test]
    fn strangers_are_kept_short() {
        let limits = Limits {
            authenticated: false,
            ..Limits::default()
        };
        for (input, error) in [
            (&b"*10\r\n"[..], None),
            (b"*11\r\n", Some(ProtocolError::UnauthenticatedCount)),
            (b"*1\r\n$16384\r\n", None),
            (b"*1\r\n$16385\r\n", Some(ProtocolError::UnauthenticatedLength)),
            (b"*1\r\n$536870913\r\n", Some(ProtocolError::InvalidLength)),
            (b"*2147483648\r\n", Some(ProtocolError::InvalidCount)),
        ] {
            let mut reader = Reader {
                limits,
                ..Reader::new()
            };
            reader.read(input);
            assert_eq!(reader.error, error, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn own_limits_hold() {
        let limits = Limits {
            bulk_bytes_max: 5,
            arguments_max: 2,
            ..Limits::default()
        };
        for (input, error) in [
            (&b"*2\r\n$5\r\n"[..], None),
            (b"*3\r\n", Some(ProtocolError::InvalidCount)),
            (b"*2\r\n$6\r\n", Some(ProtocolError::InvalidLength)),
        ] {
            let mut reader = Reader {
                limits,
                ..Reader::new()
            };
            reader.read(input);
            assert_eq!(reader.error, error, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn spans_never_leave_their_reach() {
        let mut parser = RequestParser::new();
        let mut out = Requests::new();
        let mut input = *b"PING\r\n*1\r\n$4\r\nPING\r\n";
        let limits = Limits::default();
        // The first request fits, the second would not.
        let base = (REACH_BYTES - 10) as u32;
        let progress = parser
            .parse(&mut input, base, &limits, &mut out, usize::MAX)
            .unwrap();
        assert_eq!(
            progress,
            Progress {
                consumed: 6,
                wants: Wants::Room
            }
        );
        let again = parser
            .parse(&mut input[6..], 0, &limits, &mut out, usize::MAX)
            .unwrap();
        assert_eq!(
            again,
            Progress {
                consumed: 14,
                wants: Wants::Nothing
            }
        );
        assert_eq!(out.get(1).unwrap().arguments(&input[6..], &[]).at(0), b"PING");
        let error = RequestParser::new().parse(&mut input[6..], base, &limits, &mut out, usize::MAX);
        assert_eq!(error, Err(ProtocolError::RequestTooLong));
    }

    #[test]
    fn a_list_is_cut_and_used_again() {
        let mut out = Requests::new();
        let parse = |out: &mut Requests| {
            let words = |count: usize| format!("*{count}\r\n{}", "$1\r\nx\r\n".repeat(count));
            let mut input = [2, 1, 3].map(words).concat().into_bytes();
            RequestParser::new()
                .parse(&mut input, 0, &Limits::default(), out, usize::MAX)
                .unwrap();
        };
        parse(&mut out);
        assert_eq!(
            (out.spans_range(0), out.spans_range(1), out.spans_range(2)),
            ((0, 2), (2, 1), (3, 3))
        );
        out.truncate(1);
        assert_eq!((out.len(), out.spans().len(), out.get(1)), (1, 2, None));
        parse(&mut out);
        assert_eq!((out.len(), out.spans_range(3)), (4, (5, 3)));
        out.clear();
        assert!(out.is_empty() && out.spans().is_empty() && out.memory() > 0);
        out.shrink_to(0);
        assert_eq!(out.memory(), 0);
    }

    #[test]
    fn a_bulk_may_be_detached_to_the_last_byte_of_its_terminator() {
        let payload = vec![b'x'; BIG_ARGUMENT_BYTES];
        let request = [
            &b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$32768\r\n"[..],
            &payload,
            b"\r\n",
        ]
        .concat();
        for split in 1..request.len() {
            if split > 60 && split < request.len() - 60 {
                continue;
            }
            let mut reader = Reader {
                detaches: true,
                ..Reader::new()
            };
            reader.read(&request[..split]);
            reader.read(&request[split..]);
            reader.read(b"PING\r\n");
            let set = vec![b"SET".to_vec(), b"k".to_vec(), payload.clone()];
            assert_eq!(reader.requests, [set, words(&["PING"])]);
        }
        let mut reader = read_all(b"*1\r\n$32767\r\n");
        assert_eq!((reader.wants, reader.parser.detach_bulk()), (Wants::More, None));
        assert_eq!(RequestParser::new().detach_bulk(), None);
    }

    /// With quadratic work this test would take far too long.
    #[test]
    fn a_trickle_takes_linear_time() {
        let arguments = 100_000;
        let mut request = format!("*{arguments}\r\n").into_bytes();
        request.extend(b"$1\r\na\r\n".repeat(arguments));
        let mut parser = RequestParser::new();
        let mut out = Requests::new();
        for end in 1..=request.len() {
            let progress = parser
                .parse(&mut request[..end], 0, &Limits::default(), &mut out, 1)
                .unwrap();
            assert_eq!(out.len() == 1, progress.consumed > 0);
        }
        let arguments_read = out.get(0).unwrap().arguments(&request, &[]);
        assert_eq!(arguments_read.len(), arguments);
        assert!(arguments_read.iter().all(|argument| argument == b"a"));
    }

    #[test]
    fn what_is_announced_costs_nothing() {
        let mut parser = RequestParser::new();
        let mut out = Requests::new();
        let mut input = *b"*2147483647\r\n$536870912\r\n";
        parser
            .parse(&mut input, 0, &Limits::default(), &mut out, 1)
            .unwrap();
        assert!(parser.memory() + out.memory() < 512);
    }

    const EMPTY_REQUESTS: &[&[u8]] = &[b"*0\r\n", b"*-1\r\n", b"\r\n", b" \n"];

    /// Fragments of garbage that the parser does not reject at the first byte.
    const FRAGMENTS: &[&[u8]] = &[
        b"*1\r\n",
        b"*2\r\n",
        b"*3\r\n",
        b"*12\r\n",
        b"$0\r\n\r\n",
        b"$1\r\n",
        b"$3\r\nabc\r\n",
        b"$40000\r\n",
        b"$",
        b"*",
        b"\r\n",
        b"\r",
        b"\n",
        b"'",
        b"\"",
        b"\\",
        b" ",
        b"1",
        b"10",
        b"-1",
    ];

    /// A request and one way to write it.
    fn any_request() -> impl Strategy<Value = (Words, Vec<u8>)> {
        let argument = prop_oneof![
            20 => vec(any::<u8>(), 0..20),
            5 => vec(any::<u8>(), 90..130),
            1 => (32_760usize..32_780).prop_map(|len| vec![b'x'; len]),
        ];
        let array = vec(argument, 1..14).prop_map(|words| {
            let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
            for word in &words {
                bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                bytes.extend_from_slice(word);
                bytes.extend_from_slice(b"\r\n");
            }
            (words, bytes)
        });
        let inline = vec((vec(any::<u8>(), 0..12), any::<bool>()), 1..6).prop_map(|words| {
            let mut bytes = b" ".to_vec();
            for (word, escapes) in &words {
                bytes.extend_from_slice(b"\"");
                for &byte in word {
                    if *escapes || matches!(byte, b'"' | b'\\' | b'\n' | 0) {
                        bytes.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
                    } else {
                        bytes.push(byte);
                    }
                }
                bytes.extend_from_slice(b"\" ");
            }
            bytes.extend_from_slice(b"\r\n");
            (words.into_iter().map(|(word, _)| word).collect(), bytes)
        });
        let nothing =
            proptest::sample::select(EMPTY_REQUESTS).prop_map(|bytes| (Words::new(), bytes.to_vec()));
        prop_oneof![4 => array, 2 => inline, 1 => nothing]
    }

    proptest! {
        #[test]
        fn reads_may_be_cut_anywhere(
            requests in vec(any_request(), 1..8),
            cuts in vec(prop_oneof![3 => 1usize..30, 1 => 1usize..5_000, 1 => 1usize..50_000], 1..60),
            requests_max in 1usize..5,
            base in 0usize..50,
            detaches: bool,
            puts_back: bool,
        ) {
            let stream: Vec<u8> = requests.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
            let expected: Vec<Words> =
                requests.into_iter().map(|(words, _)| words).filter(|words| !words.is_empty()).collect();
            let mut reader = Reader { requests_max, base, detaches, puts_back, ..Reader::new() };
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                let (read, behind) = rest.split_at(rest.len().min(*cut));
                reader.read(read);
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(reader.error, None);
            prop_assert_eq!(reader.requests, expected);
            prop_assert_eq!(reader.wants, Wants::Nothing);
            prop_assert_eq!(reader.parser.memory(), 0);
        }

        #[test]
        fn garbage_gives_one_answer_however_it_arrives(
            pieces in vec(prop_oneof![
                vec(any::<u8>(), 1..4),
                proptest::sample::select(FRAGMENTS).prop_map(<[u8]>::to_vec),
            ], 0..40),
            cuts in vec(1usize..12, 1..40),
            requests_max in 1usize..4,
            authenticated: bool,
            puts_back: bool,
        ) {
            let stream = pieces.concat();
            let limits = Limits { inline_bytes_max: 24, authenticated, ..Limits::default() };
            let mut whole = Reader { limits, ..Reader::new() };
            whole.read(&stream);
            let mut split = Reader { limits, requests_max, puts_back, ..Reader::new() };
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                let (read, behind) = rest.split_at(rest.len().min(*cut));
                split.read(read);
                rest = behind;
                if rest.is_empty() || split.error.is_some() {
                    break;
                }
            }
            prop_assert_eq!(&split.requests, &whole.requests);
            prop_assert_eq!(split.error, whole.error);
            if whole.error.is_none() {
                prop_assert_eq!(split.wants, whole.wants);
                prop_assert_eq!(split.kept, whole.kept);
            }
        }
    }
}
