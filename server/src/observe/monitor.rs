//! MONITOR: the lines about commands, and the loops that carry monitors.
//!
//! Each loop writes lines about its own commands into a buffer of the turn, and sends the buffer at the end of the
//! turn to all loops that carry monitors. Without monitors, a command costs one check of [`Monitors::are_there`].

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use shardis_protocol::Arguments;

/// Replacement of a secret.
const CONCEALED: &[u8] = b"(redacted)";

/// Origin of a command, as its line shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    /// Time, Unix microseconds.
    pub(crate) now_us: i64,
    /// The client's database.
    pub(crate) db: u16,
    /// The client's address; `unix:` and a path over a Unix socket, `lua` from a script.
    pub(crate) address: &'a str,
}

/// Appends the line of a command: `+1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`.
pub(crate) fn append_line(
    lines: &mut Vec<u8>,
    origin: Origin<'_>,
    args: Arguments<'_>,
    is_secret: impl Fn(usize) -> bool,
) {
    let Origin { now_us, db, address } = origin;
    // Writing to a Vec cannot fail.
    let _ = write!(
        lines,
        "+{}.{:06} [{db} {address}]",
        now_us / 1_000_000,
        now_us % 1_000_000
    );
    for (index, word) in args.iter().enumerate() {
        lines.push(b' ');
        append_quoted(lines, if is_secret(index) { CONCEALED } else { word });
    }
    lines.extend_from_slice(b"\r\n");
}

/// Appends bytes in quotes, with escapes for those that are not printable.
fn append_quoted(line: &mut Vec<u8>, word: &[u8]) {
    line.push(b'"');
    for &byte in word {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\t' => line.extend_from_slice(b"\\t"),
            0x07 => line.extend_from_slice(b"\\a"),
            0x08 => line.extend_from_slice(b"\\b"),
            b' '..=b'~' => line.push(byte),
            _ => {
                let _ = write!(line, "\\x{byte:02x}");
            }
        }
    }
    line.push(b'"');
}

/// The loops that carry monitors.
#[derive(Debug)]
pub(crate) struct Monitors {
    all: AtomicU32,
    by_loop: Vec<OnLoop>,
}

#[derive(Debug, Default)]
struct OnLoop {
    monitors: AtomicU32,
    /// Bytes of lines on their way to the loop.
    under_way: AtomicUsize,
    /// Lines for the loop were dropped because too many bytes were under way.
    has_gap: AtomicBool,
}

impl Monitors {
    /// A table for so many loops, without monitors.
    pub(crate) fn new(loops: usize) -> Self {
        Self {
            all: AtomicU32::new(0),
            by_loop: (0..loops).map(|_| OnLoop::default()).collect(),
        }
    }

    /// Whether there are monitors: commands need to know no more.
    #[inline]
    pub(crate) fn are_there(&self) -> bool {
        self.all.load(Ordering::Relaxed) > 0
    }

    /// Notes that a connection of a loop has become a monitor.
    pub(crate) fn join(&self, index: usize) {
        self.by_loop[index].monitors.fetch_add(1, Ordering::AcqRel);
        self.all.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that a connection of a loop is no monitor any more.
    pub(crate) fn leave(&self, index: usize) {
        self.all.fetch_sub(1, Ordering::AcqRel);
        self.by_loop[index].monitors.fetch_sub(1, Ordering::AcqRel);
    }

    /// The loops that carry monitors.
    pub(crate) fn loops(&self) -> impl Iterator<Item = usize> {
        self.by_loop
            .iter()
            .enumerate()
            .filter(|(_, there)| there.monitors.load(Ordering::Acquire) > 0)
            .map(|(index, _)| index)
    }

    /// Notes that bytes are about to be sent to a loop. False when more than `limit` are under way already: then they
    /// must not be sent, and the loop learns of the gap with its next lines.
    pub(crate) fn send(&self, index: usize, bytes: usize, limit: usize) -> bool {
        let under_way = &self.by_loop[index].under_way;
        if under_way.load(Ordering::Relaxed) > limit {
            self.by_loop[index].has_gap.store(true, Ordering::Release);
            return false;
        }
        under_way.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Notes that bytes have arrived at a loop. True when lines before them were dropped.
    pub(crate) fn arrived(&self, index: usize, bytes: usize) -> bool {
        let there = &self.by_loop[index];
        there.under_way.fetch_sub(bytes, Ordering::Relaxed);
        there.has_gap.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use shardis_protocol::Span;

    use super::*;

    fn line(words: &[&[u8]], secret: usize) -> String {
        let bytes = words.concat();
        let mut start = 0;
        let spans: Vec<Span> = words
            .iter()
            .map(|word| {
                start += word.len();
                Span::new(start - word.len(), word.len()).unwrap()
            })
            .collect();
        let origin = Origin {
            now_us: 1_339_518_083_007_412,
            db: 3,
            address: "127.0.0.1:60866",
        };
        let mut lines = Vec::new();
        let args = Arguments::new(&bytes, &spans, &[]);
        append_line(&mut lines, origin, args, |index| index == secret);
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn lines_show_time_database_address_and_words() {
        assert_eq!(
            line(&[b"set", b"a\x00\"\\\n\r\t\x07\x08\xff~ ", b""], 9),
            "+1339518083.007412 [3 127.0.0.1:60866] \"set\" \"a\\x00\\\"\\\\\\n\\r\\t\\a\\b\\xff~ \" \"\"\r\n"
        );
        assert_eq!(
            line(&[b"AUTH", b"secret"], 1),
            "+1339518083.007412 [3 127.0.0.1:60866] \"AUTH\" \"(redacted)\"\r\n"
        );
    }

    #[test]
    fn loops_with_monitors_are_known() {
        let monitors = Monitors::new(3);
        assert!(!monitors.are_there());
        monitors.join(2);
        monitors.join(2);
        monitors.join(0);
        monitors.leave(2);
        assert_eq!(monitors.loops().collect::<Vec<_>>(), [0, 2]);
        monitors.leave(2);
        monitors.leave(0);
        assert!(!monitors.are_there() && monitors.loops().next().is_none());
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let monitors = Monitors::new(1);
        assert!(monitors.send(0, 100, 99) && !monitors.send(0, 1, 99));
        assert!(monitors.arrived(0, 100));
        assert!(monitors.send(0, 1, 99) && !monitors.arrived(0, 1));
    }
}
