//! The arguments of one request, as every command sees them: places in a buffer, looked up on demand.
//! Promise: two small types, both `Copy`; to hand arguments on costs no allocation and touches no byte of them.

use std::fmt;

/// Location of an argument: a range of the base buffer, or one of the request's detached buffers if the argument is
/// too big for the base.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Offset in the base, or the index of the detached buffer.
    start: u32,
    /// Length in bytes, or [`DETACHED`].
    len: u32,
}

/// The length that no span in a base has: a base ends at [`crate::limits::REACH_BYTES`].
const DETACHED: u32 = u32::MAX;

impl Span {
    /// The `len` bytes at `start` of the base; `None` where that is beyond [`crate::limits::REACH_BYTES`].
    #[must_use]
    pub fn new(start: usize, len: usize) -> Option<Span> {
        let end = start.checked_add(len)?;
        (end <= crate::limits::REACH_BYTES).then_some(Span {
            start: start as u32,
            len: len as u32,
        })
    }

    /// The whole of the detached buffer number `index`.
    #[must_use]
    pub const fn detached(index: u32) -> Span {
        Span {
            start: index,
            len: DETACHED,
        }
    }

    /// The `len` bytes at `start`. The caller knows that they end within reach.
    #[inline]
    pub(crate) fn within_reach(start: usize, len: usize) -> Span {
        debug_assert!(
            start + len <= crate::limits::REACH_BYTES,
            "the parser looks no further"
        );
        Span {
            start: start as u32,
            len: len as u32,
        }
    }

    /// End of the span in the base. Meaningless for a detached span.
    #[inline]
    pub(crate) fn end(self) -> usize {
        debug_assert!(self.len != DETACHED, "what is detached is not in the base");
        self.start as usize + self.len as usize
    }

    /// Index of the detached buffer, if the span is detached.
    #[inline]
    #[must_use]
    pub const fn detached_index(self) -> Option<usize> {
        if self.len == DETACHED {
            Some(self.start as usize)
        } else {
            None
        }
    }

    /// The same bytes where the base begins `bytes` earlier.
    #[inline]
    pub(crate) fn moved_up(self, bytes: u32) -> Span {
        if self.len == DETACHED {
            self
        } else {
            Span {
                start: self.start + bytes,
                len: self.len,
            }
        }
    }

    /// The same bytes where the base begins `bytes` later.
    #[inline]
    pub(crate) fn moved_down(self, bytes: u32) -> Span {
        if self.len == DETACHED {
            self
        } else {
            Span {
                start: self.start - bytes,
                len: self.len,
            }
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detached_index() {
            Some(index) => write!(f, "detached {index}"),
            None => write!(f, "{}+{}", self.start, self.len),
        }
    }
}

/// The arguments of one request, the command's name first, over the bytes they lie in.
#[derive(Clone, Copy)]
pub struct Arguments<'a> {
    base: &'a [u8],
    spans: &'a [Span],
    detached: &'a [&'a [u8]],
}

impl<'a> Arguments<'a> {
    /// Joins `spans` with the buffers that they refer to.
    ///
    /// Every span must lie within `base` or name an element of `detached`; otherwise the look-up of its argument panics.
    #[inline]
    #[must_use]
    pub const fn new(base: &'a [u8], spans: &'a [Span], detached: &'a [&'a [u8]]) -> Self {
        Arguments {
            base,
            spans,
            detached,
        }
    }

    /// Number of arguments, the command's name included.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are no arguments. A parsed request has at least one.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at `index`; `None` beyond the last one.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|&span| self.bytes(span))
    }

    /// The argument at `index`.
    ///
    /// # Panics
    /// If `index` is beyond the last argument. For handlers, whose arity has been checked.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn at(&self, index: usize) -> &'a [u8] {
        self.bytes(self.spans[index])
    }

    /// All arguments in order.
    #[inline]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &'a [u8]> + ExactSizeIterator + Clone + use<'a> {
        let all = *self;
        self.spans.iter().map(move |&span| all.bytes(span))
    }

    /// The arguments from index `from` on; none if `from` is beyond the last one.
    #[inline]
    #[must_use]
    pub fn tail(&self, from: usize) -> Arguments<'a> {
        Arguments {
            spans: self.spans.get(from..).unwrap_or(&[]),
            ..*self
        }
    }

    /// Index of the detached buffer that holds the argument at `index`, if one does. The owner of that buffer may
    /// keep it instead of copying it.
    #[inline]
    #[must_use]
    pub fn detached(&self, index: usize) -> Option<usize> {
        self.spans.get(index).and_then(|span| span.detached_index())
    }

    /// The bytes of the request, from its first to its last, if they are those in which every encoder writes it: an array of
    /// bulks with no digit and no line end but the usual ones, and nothing of it detached.
    #[must_use]
    pub fn encoded(&self) -> Option<&'a [u8]> {
        let first = self.spans.first()?;
        let before = header_bytes(self.spans.len()) + header_bytes(first.len as usize);
        let begin = (first.start as usize).checked_sub(before)?;
        let mut end = self.header_ends(begin, b'*', self.spans.len())?;
        for span in self.spans {
            let payload = self.header_ends(end, b'$', span.len as usize)?;
            if payload != span.start as usize || span.len == DETACHED {
                return None;
            }
            end = payload + span.len as usize + LINE_END.len();
            if self.base.get(end - LINE_END.len()..end)? != LINE_END {
                return None;
            }
        }
        self.base.get(begin..end)
    }

    /// The end of the header of an array or a bulk that begins at `begin` of the base; none if that is no such header.
    #[inline]
    fn header_ends(&self, begin: usize, mark: u8, len: usize) -> Option<usize> {
        let end = begin + header_bytes(len);
        let header = self.base.get(begin..end)?;
        let is_usual = match len {
            0..10 => header == [mark, b'0' + len as u8, b'\r', b'\n'],
            10..100 => {
                header
                    == [
                        mark,
                        b'0' + (len / 10) as u8,
                        b'0' + (len % 10) as u8,
                        b'\r',
                        b'\n',
                    ]
            }
            _ => is_header(header, mark, len),
        };
        is_usual.then_some(end)
    }

    /// Locations of the arguments.
    #[inline]
    #[must_use]
    pub const fn spans(&self) -> &'a [Span] {
        self.spans
    }

    #[inline]
    fn bytes(&self, span: Span) -> &'a [u8] {
        let start = span.start as usize;
        if span.len == DETACHED {
            self.detached[start]
        } else {
            &self.base[start..start + span.len as usize]
        }
    }
}

const LINE_END: &[u8] = b"\r\n";

/// Number of bytes of the header of an array or a bulk: a mark, digits, a line end.
#[inline]
fn header_bytes(len: usize) -> usize {
    let digits = match len {
        0..10 => 1,
        10..100 => 2,
        _ => len.ilog10() as usize + 1,
    };
    1 + digits + LINE_END.len()
}

/// Whether bytes are the header of an array or a bulk of this length. There are as many as that has.
fn is_header(header: &[u8], mark: u8, len: usize) -> bool {
    let (Some((&first, rest)), mut left) = (header.split_first(), len) else {
        return false;
    };
    let Some(digits) = rest.strip_suffix(LINE_END) else {
        return false;
    };
    first == mark
        && digits.iter().rev().all(|&digit| {
            let expected = b'0' + (left % 10) as u8;
            left /= 10;
            digit == expected
        })
}

impl fmt::Debug for Arguments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|argument| format!("{}", argument.escape_ascii())))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::REACH_BYTES;

    const SPANS: [Span; 4] = [
        Span { start: 0, len: 3 },
        Span { start: 4, len: 1 },
        Span::detached(0),
        Span { start: 5, len: 0 },
    ];

    fn sample() -> Arguments<'static> {
        Arguments::new(b"SET k", &SPANS, &[b"big"])
    }

    #[test]
    fn every_way_to_look_agrees() {
        let arguments = sample();
        let expected: [&[u8]; 4] = [b"SET", b"k", b"big", b""];
        assert_eq!(arguments.len(), 4);
        assert!(arguments.iter().eq(expected));
        assert!(arguments.iter().rev().eq(expected.into_iter().rev()));
        for (index, bytes) in expected.into_iter().enumerate() {
            assert_eq!(arguments.at(index), bytes);
            assert_eq!(arguments.get(index), Some(bytes));
        }
        assert_eq!(arguments.get(4), None);
        assert_eq!(format!("{arguments:?}"), r#"["SET", "k", "big", ""]"#);
    }

    /// The request that a parser finds in these bytes, as it was sent.
    fn sent(bytes: &[u8]) -> Option<Vec<u8>> {
        let (mut bytes, mut requests) = (bytes.to_vec(), crate::Requests::new());
        let mut parser = crate::RequestParser::default();
        parser
            .parse(
                &mut bytes,
                0,
                &crate::Limits::default(),
                &mut requests,
                usize::MAX,
            )
            .unwrap();
        let request = requests.get(0).unwrap();
        request.arguments(&bytes, &[]).encoded().map(<[u8]>::to_vec)
    }

    #[test]
    fn a_request_is_sent_in_the_usual_form_or_not() {
        let long = format!("*2\r\n$4\r\nECHO\r\n$123\r\n{}\r\n", "x".repeat(123));
        let many = format!("*11\r\n{}", "$1\r\na\r\n".repeat(11));
        for usual in [
            "*1\r\n$4\r\nPING\r\n",
            "*2\r\n$3\r\nGET\r\n$0\r\n\r\n",
            &long,
            &many,
        ] {
            let behind = format!("*1\r\n$4\r\nPING\r\n{usual}*1\r\n");
            assert_eq!(sent(usual.as_bytes()).as_deref(), Some(usual.as_bytes()));
            assert_eq!(
                sent(behind.as_bytes()).as_deref(),
                Some(b"*1\r\n$4\r\nPING\r\n".as_slice())
            );
        }
        for other in [
            "GET a\r\n",
            "*1\r\n$4\r\nPINGxx",
            "*1\rx$4\r\nPING\r\n",
            "*1\r\n$4\rxPING\r\n",
            "*2\r\n$4\r\nPING\r\n$1\r\naxx",
        ] {
            assert_eq!(sent(other.as_bytes()), None, "{other:?}");
        }
        assert_eq!(sample().encoded(), None);
        let tail = "*2\r\n$4\r\nECHO\r\n$1\r\na\r\n";
        let spans = [Span::new(8, 4).unwrap(), Span::new(18, 1).unwrap()];
        let request = Arguments::new(tail.as_bytes(), &spans, &[]);
        assert_eq!(request.encoded(), Some(tail.as_bytes()));
        assert_eq!(request.tail(1).encoded(), None);
    }

    #[test]
    fn a_tail_may_be_empty_but_not_wrong() {
        let arguments = sample();
        assert!(arguments.tail(2).iter().eq([&b"big"[..], b""]));
        assert!(arguments.tail(4).is_empty());
        assert!(arguments.tail(9).is_empty());
    }

    #[test]
    fn detached_arguments_tell_their_buffer() {
        let arguments = sample();
        assert_eq!(arguments.detached(2), Some(0));
        assert_eq!(arguments.tail(1).detached(1), Some(0));
        assert_eq!(arguments.detached(1), None);
        assert_eq!(arguments.detached(7), None);
    }

    #[test]
    fn a_span_stays_within_reach_and_its_size() {
        assert_eq!(size_of::<Span>(), 8);
        assert!(Span::new(0, REACH_BYTES).is_some());
        assert!(Span::new(1, REACH_BYTES).is_none());
        assert!(Span::new(usize::MAX, 1).is_none());
    }
}
