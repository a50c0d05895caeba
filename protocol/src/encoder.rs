//! [`Encoder`]: encodes replies in RESP2 or RESP3.
//!
//! Handlers express the kind of a reply (a map, a double, null); the negotiated protocol determines the encoding.
//! Promise: everything is appended to the given output buffer and to nothing else; there is no intermediate
//! allocation, and earlier content of the buffer stays as it is.
//!
//! | reply | RESP3 | RESP2 |
//! |---|---|---|
//! | simple string, error, integer, bulk | `+` `-` `:` `$` | the same |
//! | null, null array | `_` | `$-1`, `*-1` |
//! | array, set, push | `*` `~` `>` | `*` |
//! | map of n pairs | `%n` | `*2n` |
//! | attribute | <code>\|n</code> | left out |
//! | double, big number, verbatim string | `,` `(` `=` | bulk |
//! | boolean | `#t`, `#f` | `:1`, `:0` |

/// The version of the protocol that a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resp {
    /// Every connection begins with this one.
    #[default]
    V2,
    /// Asked for with `HELLO 3`.
    V3,
}

/// A type byte, up to twenty digits and the end of the line.
const HEADER_BYTES_MAX: usize = 1 + 20 + 2;

/// Bytes that are copied at once.
const COPY_BLOCK_BYTES: usize = 2048;

/// Size from which avoiding another copy of a value is worth the effort, bytes.
const LARGE_BYTES: usize = 1 << 20;

/// Room that is reserved behind such a value.
const BEHIND_LARGE_BYTES: usize = 16 << 10;

/// From this size on, a string that is a whole reply is offered to the [`Bypass`].
pub const BYPASS_BYTES: usize = 12 << 10;

/// A way for a large string to its receiver past the output buffer, so that it is not copied there.
pub trait Bypass: std::fmt::Debug {
    /// Sends the unsent bytes of the output buffer, then `last`, as far as the receiver takes them at once. Returns how many
    /// bytes of `last` it took; bytes of the buffer that it took are noted as sent, and stay in the buffer.
    fn send(&mut self, buffered: &[u8], last: [&[u8]; 2]) -> usize;
}

/// Writes replies to the end of an output buffer.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    bypass: Option<&'a mut dyn Bypass>,
    resp: Resp,
    /// Once the buffer is this long, nothing is appended to it.
    cut_at: usize,
}

/// An aggregate whose length is not known yet. The caller must close it.
#[must_use = "an aggregate without its length is no valid reply"]
#[derive(Debug)]
pub struct Deferred {
    /// Position of the digits of the length.
    digits_at: usize,
    /// Number of digits reserved.
    digits: usize,
    /// Elements on the wire for each element of the aggregate.
    width: usize,
}

impl<'a> Encoder<'a> {
    /// An encoder that appends to `out`.
    #[inline]
    #[must_use]
    pub fn new(out: &'a mut Vec<u8>, resp: Resp) -> Self {
        Encoder {
            out,
            bypass: None,
            resp,
            cut_at: usize::MAX,
        }
    }

    /// The same encoder, which may send a large string past its buffer.
    #[inline]
    #[must_use]
    pub fn with_bypass(self, bypass: Option<&'a mut dyn Bypass>) -> Self {
        Self { bypass, ..self }
    }

    /// The same encoder, which appends nothing once its buffer holds `cut_at` bytes: a reply of that length will not be
    /// sent. The last value appended may exceed that length.
    #[inline]
    #[must_use]
    pub fn cut_at(self, cut_at: usize) -> Self {
        Self { cut_at, ..self }
    }

    /// Whether the reply is too long to be sent.
    #[inline]
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.out.len() >= self.cut_at
    }

    /// The version of the protocol.
    #[inline]
    #[must_use]
    pub fn resp(&self) -> Resp {
        self.resp
    }

    /// Switches to the version `resp`, from the next reply on.
    pub fn set_resp(&mut self, resp: Resp) {
        self.resp = resp;
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A simple string. Ends of lines in it are replaced by spaces.
    pub fn simple(&mut self, text: impl AsRef<[u8]>) {
        self.line(b'+', text.as_ref());
    }

    /// An error: the whole line, its code first, without the `-`. Line ends around it are removed, those inside are
    /// replaced by spaces.
    pub fn error(&mut self, line: impl AsRef<[u8]>) {
        let line = line.as_ref();
        let is_text = |byte: &u8| !matches!(byte, b'\r' | b'\n');
        let start = line.iter().position(is_text).unwrap_or(line.len());
        let end = line.iter().rposition(is_text).map_or(start, |last| last + 1);
        self.line(b'-', &line[start..end]);
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        match usize::try_from(value) {
            Ok(small) if small < 100 => self.header(b':', small),
            _ => self.number_line(b':', itoa::Buffer::new().format(value)),
        }
    }

    /// A string of bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        if self.is_cut() {
            return;
        }
        // Reserves room for the bytes behind a large value: growing the buffer later would copy the value once more.
        let behind = if bytes.len() < LARGE_BYTES {
            2
        } else {
            BEHIND_LARGE_BYTES
        };
        self.out.reserve(HEADER_BYTES_MAX + bytes.len() + behind);
        self.append_header(b'$', bytes.len());
        // Large values and output buffers both begin at a page, and the header puts them a few bytes apart: the one
        // distance at which a processor's string copy instruction is slow (five times, measured). Copies of this size do
        // not use it.
        for block in bytes.chunks(COPY_BLOCK_BYTES) {
            self.out.extend_from_slice(block);
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// A string of bytes that is the whole reply. It may be sent at once, and cannot be taken back: the command must not fail
    /// after it.
    #[inline]
    pub fn whole_bulk(&mut self, bytes: &[u8]) {
        match self.bypass.take() {
            // A string that is too long to be sent is not sent in part, either.
            Some(bypass) if bytes.len() >= BYPASS_BYTES && self.out.len() + bytes.len() < self.cut_at => {
                self.pass(bytes, bypass);
            }
            _ => self.bulk(bytes),
        }
    }

    /// Sends a string past the buffer; what the receiver does not take is appended to the buffer.
    #[cold]
    fn pass(&mut self, bytes: &[u8], bypass: &mut dyn Bypass) {
        const END: &[u8] = b"\r\n";
        self.append_header(b'$', bytes.len());
        let taken = bypass.send(self.out, [bytes, END]);
        if taken < bytes.len() {
            self.out.reserve_exact(bytes.len() - taken + END.len());
            self.out.extend_from_slice(&bytes[taken..]);
            self.out.extend_from_slice(END);
        } else {
            self.out.extend_from_slice(&END[taken - bytes.len()..]);
        }
    }

    /// A number as a string.
    pub fn bulk_integer(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A string that the caller appends: `len` bytes through [`Encoder::raw`], in pieces of any size, then
    /// [`Encoder::bulk_end`].
    pub fn bulk_start(&mut self, len: usize) {
        if self.is_cut() {
            return;
        }
        self.out.reserve(HEADER_BYTES_MAX + len + 2);
        self.header(b'$', len);
    }

    /// Ends the string that [`Encoder::bulk_start`] has begun.
    pub fn bulk_end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }

    /// The null reply in place of a string or a scalar.
    #[inline]
    pub fn null(&mut self) {
        self.out.extend_from_slice(match self.resp {
            Resp::V2 => b"$-1\r\n",
            Resp::V3 => b"_\r\n",
        });
    }

    /// The null reply in place of an array.
    #[inline]
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(match self.resp {
            Resp::V2 => b"*-1\r\n",
            Resp::V3 => b"_\r\n",
        });
    }

    /// The beginning of an array of `len` elements.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len);
    }

    /// The beginning of a map of `pairs` keys, each followed by its value.
    #[inline]
    pub fn map(&mut self, pairs: usize) {
        match self.resp {
            Resp::V2 => self.header(b'*', 2 * pairs),
            Resp::V3 => self.header(b'%', pairs),
        }
    }

    /// The beginning of a set of `len` elements.
    #[inline]
    pub fn set(&mut self, len: usize) {
        self.header(self.kind(b'~'), len);
    }

    /// The beginning of a push message of `len` elements.
    #[inline]
    pub fn push(&mut self, len: usize) {
        self.header(self.kind(b'>'), len);
    }

    /// The beginning of `pairs` keys and values about the reply that follows them.
    ///
    /// RESP2 has no form for them: then nothing is written, the result is `false`, and the caller must not write the pairs.
    #[must_use = "the pairs may be written only if this says so"]
    pub fn attribute(&mut self, pairs: usize) -> bool {
        let speaks = self.resp == Resp::V3;
        if speaks {
            self.header(b'|', pairs);
        }
        speaks
    }

    /// A floating point number, as text: `1.5`, `-2e+21`, `inf`.
    pub fn double(&mut self, text: &[u8]) {
        self.number(b',', text);
    }

    /// An integer of any size, as text.
    pub fn big_number(&mut self, digits: &str) {
        self.number(b'(', digits.as_bytes());
    }

    /// A text with three letters for its format (`txt`, `mkd`).
    pub fn verbatim(&mut self, format: [u8; 3], text: &[u8]) {
        if self.resp == Resp::V2 {
            return self.bulk(text);
        }
        let [a, b, c] = format;
        self.out.reserve(HEADER_BYTES_MAX + text.len() + 6);
        self.header(b'=', text.len() + 4);
        self.out.extend_from_slice(&[a, b, c, b':']);
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Yes or no.
    pub fn boolean(&mut self, value: bool) {
        self.out.extend_from_slice(match (self.resp, value) {
            (Resp::V2, true) => b":1\r\n",
            (Resp::V2, false) => b":0\r\n",
            (Resp::V3, true) => b"#t\r\n",
            (Resp::V3, false) => b"#f\r\n",
        });
    }

    /// Bytes that are encoded already.
    #[inline]
    pub fn raw(&mut self, encoded: &[u8]) {
        if self.is_cut() {
            return;
        }
        self.out.extend_from_slice(encoded);
    }

    /// Begins an array whose length is passed later, to [`Encoder::close`].
    ///
    /// `expected` is a guess at the length, or 0. If the final length has as many digits, nothing is moved when the
    /// array is closed; otherwise its content moves by the difference.
    pub fn deferred_array(&mut self, expected: usize) -> Deferred {
        self.defer(b'*', 1, expected)
    }

    /// Begins a map whose number of pairs is passed later. See [`Encoder::deferred_array`].
    pub fn deferred_map(&mut self, expected: usize) -> Deferred {
        match self.resp {
            Resp::V2 => self.defer(b'*', 2, expected),
            Resp::V3 => self.defer(b'%', 1, expected),
        }
    }

    /// Begins a set whose length is passed later. See [`Encoder::deferred_array`].
    pub fn deferred_set(&mut self, expected: usize) -> Deferred {
        self.defer(self.kind(b'~'), 1, expected)
    }

    /// Sets the length of an aggregate, in pairs for a map. Aggregates inside of it must have been closed before.
    pub fn close(&mut self, deferred: Deferred, len: usize) {
        let Deferred {
            digits_at,
            digits,
            width,
        } = deferred;
        if digits_at == usize::MAX {
            return;
        }
        let mut buffer = itoa::Buffer::new();
        let text = buffer.format(width * len).as_bytes();
        // A splice of equal length overwrites in place; any other moves the rest once.
        if text.len() == digits {
            self.out[digits_at..digits_at + digits].copy_from_slice(text);
        } else {
            self.out
                .splice(digits_at..digits_at + digits, text.iter().copied());
        }
    }

    fn defer(&mut self, kind: u8, width: usize, expected: usize) -> Deferred {
        if self.is_cut() {
            return Deferred {
                digits_at: usize::MAX,
                digits: 0,
                width,
            };
        }
        let at = self.out.len();
        self.header(kind, width * expected);
        Deferred {
            digits_at: at + 1,
            digits: self.out.len() - at - 3,
            width,
        }
    }

    /// The type byte of an aggregate that RESP2 knows as an array only.
    #[inline]
    fn kind(&self, kind: u8) -> u8 {
        match self.resp {
            Resp::V2 => b'*',
            Resp::V3 => kind,
        }
    }

    /// A number that has a type of its own in RESP3.
    fn number(&mut self, kind: u8, text: &[u8]) {
        match self.resp {
            Resp::V2 => self.bulk(text),
            Resp::V3 => self.line(kind, text),
        }
    }

    /// A type byte and a length. Most lengths are small.
    #[inline]
    fn header(&mut self, kind: u8, len: usize) {
        if self.is_cut() {
            return;
        }
        self.append_header(kind, len);
    }

    #[inline]
    fn append_header(&mut self, kind: u8, len: usize) {
        if len < 10 {
            self.out
                .extend_from_slice(&[kind, b'0' + len as u8, b'\r', b'\n']);
        } else if len < 100 {
            let (tens, ones) = (b'0' + (len / 10) as u8, b'0' + (len % 10) as u8);
            self.out.extend_from_slice(&[kind, tens, ones, b'\r', b'\n']);
        } else {
            self.append_number_line(kind, itoa::Buffer::new().format(len));
        }
    }

    fn number_line(&mut self, kind: u8, digits: &str) {
        if !self.is_cut() {
            self.append_number_line(kind, digits);
        }
    }

    fn append_number_line(&mut self, kind: u8, digits: &str) {
        let mut line = [0; HEADER_BYTES_MAX];
        let end = 1 + digits.len();
        line[0] = kind;
        line[1..end].copy_from_slice(digits.as_bytes());
        line[end..end + 2].copy_from_slice(b"\r\n");
        self.out.extend_from_slice(&line[..end + 2]);
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        if self.is_cut() {
            return;
        }
        self.out.reserve(text.len() + 3);
        self.out.push(kind);
        let start = self.out.len();
        self.out.extend_from_slice(text);
        // Lines are short, so that looking at each byte is faster than preparing a vectorised search.
        if text.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            for byte in &mut self.out[start..] {
                if matches!(byte, b'\r' | b'\n') {
                    *byte = b' ';
                }
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Compares the bytes that `write` produces in both versions of the protocol.
    fn check(write: impl Fn(&mut Encoder<'_>), v2: &str, v3: &str) {
        for (resp, expected) in [(Resp::V2, v2), (Resp::V3, v3)] {
            let mut out = b"before".to_vec();
            write(&mut Encoder::new(&mut out, resp));
            assert_eq!(
                out.escape_ascii().to_string(),
                format!("before{}", expected.as_bytes().escape_ascii())
            );
        }
    }

    /// A receiver that takes a number of bytes, and notes them.
    #[derive(Debug)]
    struct Receiver<'a> {
        /// Bytes of the buffer that it has.
        sent: usize,
        takes: usize,
        taken: &'a mut Vec<u8>,
    }

    impl Bypass for Receiver<'_> {
        fn send(&mut self, buffered: &[u8], last: [&[u8]; 2]) -> usize {
            let unsent = &buffered[self.sent..];
            let all = [unsent, last[0], last[1]].concat();
            let count = self.takes.min(all.len());
            self.taken.extend_from_slice(&all[..count]);
            let of_buffer = count.min(unsent.len());
            self.sent += of_buffer;
            count - of_buffer
        }
    }

    proptest! {
        /// However much is sent past the buffer, the rest is in the buffer, from the first unsent byte on.
        #[test]
        fn a_string_is_whole_however_much_of_it_passes(
            size in prop_oneof![0..100_usize, BYPASS_BYTES - 2..BYPASS_BYTES + 2],
            takes in prop_oneof![0..30_usize, BYPASS_BYTES..BYPASS_BYTES + 30],
            sent in 0..=6_usize,
        ) {
            let value: Vec<u8> = (0..size).map(|number| b'a' + (number % 23) as u8).collect();
            let mut expected = b"before".to_vec();
            Encoder::new(&mut expected, Resp::V2).bulk(&value);
            let (mut out, mut taken) = (b"before".to_vec(), Vec::new());
            let mut receiver = Receiver { sent, takes, taken: &mut taken };
            Encoder::new(&mut out, Resp::V2).with_bypass(Some(&mut receiver)).whole_bulk(&value);
            let sent_of_buffer = receiver.sent;
            prop_assert_eq!(size >= BYPASS_BYTES && takes > 0, !taken.is_empty());
            prop_assert_eq!([&b"before"[..sent], &taken, &out[sent_of_buffer..]].concat(), expected);
        }
    }

    #[test]
    fn a_reply_stops_growing_where_it_is_cut() {
        let mut out = b"before".to_vec();
        let mut encoder = Encoder::new(&mut out, Resp::V3).cut_at(100);
        let deferred = encoder.deferred_map(0);
        for _ in 0..1000 {
            encoder.array(2);
            encoder.bulk(b"0123456789");
            encoder.integer(1 << 40);
            encoder.raw(b"+raw\r\n");
            encoder.bulk_start(5);
            encoder.raw(b"piece");
            let inner = encoder.deferred_array(0);
            encoder.double(b"1.5");
            encoder.close(inner, 1);
        }
        assert!(encoder.is_cut());
        encoder.close(deferred, 1000);
        assert!((100..200).contains(&out.len()), "{}", out.len());
        assert!(out.starts_with(b"before%1000\r\n*2\r\n$10\r\n0123456789\r\n"));
    }

    #[test]
    fn both_versions_look_as_specified() {
        check(|e| e.ok(), "+OK\r\n", "+OK\r\n");
        check(|e| e.simple("PONG"), "+PONG\r\n", "+PONG\r\n");
        check(|e| e.simple("a\r\nb"), "+a  b\r\n", "+a  b\r\n");
        check(|e| e.error("ERR no"), "-ERR no\r\n", "-ERR no\r\n");
        check(
            |e| e.error(b"\r\nERR a\rb\nc\r\n\r\n"),
            "-ERR a b c\r\n",
            "-ERR a b c\r\n",
        );
        check(|e| e.error("\r\n"), "-\r\n", "-\r\n");
        check(|e| e.integer(0), ":0\r\n", ":0\r\n");
        check(|e| e.integer(-1), ":-1\r\n", ":-1\r\n");
        check(
            |e| e.integer(i64::MIN),
            ":-9223372036854775808\r\n",
            ":-9223372036854775808\r\n",
        );
        check(|e| e.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n");
        check(|e| e.bulk(b"a\r\nb"), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n");
        check(
            |e| e.bulk(&[b'x'; 12]),
            "$12\r\nxxxxxxxxxxxx\r\n",
            "$12\r\nxxxxxxxxxxxx\r\n",
        );
        check(|e| e.bulk_integer(-10), "$3\r\n-10\r\n", "$3\r\n-10\r\n");
        check(
            |e| {
                e.bulk_start(3);
                e.raw(b"a");
                e.raw(b"bc");
                e.bulk_end();
            },
            "$3\r\nabc\r\n",
            "$3\r\nabc\r\n",
        );
        check(|e| e.null(), "$-1\r\n", "_\r\n");
        check(|e| e.null_array(), "*-1\r\n", "_\r\n");
        check(|e| e.array(0), "*0\r\n", "*0\r\n");
        check(|e| e.array(1234), "*1234\r\n", "*1234\r\n");
        check(|e| e.map(3), "*6\r\n", "%3\r\n");
        check(|e| e.set(3), "*3\r\n", "~3\r\n");
        check(|e| e.push(3), "*3\r\n", ">3\r\n");
        check(|e| assert_eq!(e.attribute(1), e.resp() == Resp::V3), "", "|1\r\n");
        check(|e| e.double(b"1.50"), "$4\r\n1.50\r\n", ",1.50\r\n");
        check(|e| e.big_number("-12"), "$3\r\n-12\r\n", "(-12\r\n");
        check(
            |e| e.verbatim(*b"txt", b"a\nb"),
            "$3\r\na\nb\r\n",
            "=7\r\ntxt:a\nb\r\n",
        );
        check(|e| e.boolean(true), ":1\r\n", "#t\r\n");
        check(|e| e.boolean(false), ":0\r\n", "#f\r\n");
    }

    #[test]
    fn lengths_of_every_size_are_right() {
        for len in [0, 9, 10, 99, 100, 101, 12_345, usize::MAX] {
            check(|e| e.array(len), &format!("*{len}\r\n"), &format!("*{len}\r\n"));
        }
    }

    #[test]
    fn aggregates_may_be_closed_with_another_length_than_was_expected() {
        for (expected, len) in [(0, 0), (0, 7), (0, 12), (5, 123), (1_000, 2), (40, 60)] {
            check(
                |e| {
                    let outer = e.deferred_array(0);
                    let map = e.deferred_map(expected);
                    e.ok();
                    e.close(map, len);
                    let set = e.deferred_set(expected);
                    e.close(set, len);
                    e.close(outer, len);
                },
                &format!("*{len}\r\n*{}\r\n+OK\r\n*{len}\r\n", 2 * len),
                &format!("*{len}\r\n%{len}\r\n+OK\r\n~{len}\r\n"),
            );
        }
    }

    proptest! {
        #[test]
        fn every_integer_reads_back(value in any::<i64>(), small in -200i64..200) {
            for value in [value, small] {
                let mut out = Vec::new();
                Encoder::new(&mut out, Resp::V2).integer(value);
                prop_assert_eq!(out, format!(":{value}\r\n").into_bytes());
            }
        }
    }
}
