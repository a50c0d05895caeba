//! The slow log: the last commands that took longer than `slowlog-log-slower-than`, with the beginning of their
//! requests.
//!
//! The node has one log, behind a lock that only slow commands take. Therefore ids rise in the order of entry over
//! all loops, and `slowlog-max-len` bounds the whole.

use std::collections::VecDeque;

use shardis_protocol::Arguments;

/// The most words kept of a request; the last one then tells the number of missing ones.
const WORDS_MAX: usize = 32;

/// The most bytes kept of a word, before the text that tells the number of missing ones.
const WORD_BYTES_MAX: usize = 128;

/// Replacement of a secret.
const CONCEALED: &[u8] = b"(redacted)";

/// The words of a request in the form of the log.
pub(crate) type Words = Vec<Box<[u8]>>;

/// A slow command, for the slow log or the latency monitor, whose client has not been determined yet.
#[derive(Debug)]
pub(crate) struct Slow {
    /// Duration, nanoseconds.
    pub(crate) nanos: u64,
    /// Words of its request.
    pub(crate) words: Words,
    /// Its event for the latency monitor.
    pub(crate) event: &'static str,
    /// Whether the slow log may contain the command.
    pub(crate) is_logged: bool,
}

/// A slow command in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Id of the entry: ascending, and never reused.
    pub(crate) id: u64,
    /// Time of the end, Unix seconds.
    pub(crate) time_s: i64,
    /// Duration, microseconds.
    pub(crate) duration_us: u64,
    /// Words of its request.
    pub(crate) words: Words,
    /// Address of its client.
    pub(crate) address: String,
    /// Name of its client.
    pub(crate) name: Box<[u8]>,
}

/// The slow commands of a node, newest first.
#[derive(Debug, Default)]
pub(crate) struct SlowLog {
    entries: VecDeque<Entry>,
    next_id: u64,
}

impl SlowLog {
    /// Adds a command, and drops entries beyond `len_max`. The entry's id is set here. With a `len_max` of 0 nothing
    /// is added or dropped.
    pub(crate) fn add(&mut self, mut entry: Entry, len_max: u64) {
        if len_max == 0 {
            return;
        }
        entry.id = self.next_id;
        self.next_id += 1;
        self.entries.push_front(entry);
        self.entries
            .truncate(usize::try_from(len_max).unwrap_or(usize::MAX));
    }

    /// The entries, newest first.
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Drops all entries. Ids go on.
    pub(crate) fn clear(&mut self) {
        self.entries = VecDeque::new();
    }
}

/// The words of a request in the form of the log: at most [`WORDS_MAX`], each cut to [`WORD_BYTES_MAX`] bytes,
/// without secrets. `is_secret` tells which arguments are secrets.
pub(crate) fn words(args: Arguments<'_>, is_secret: impl Fn(usize) -> bool) -> Words {
    let cut = args.len() > WORDS_MAX;
    let shown = if cut { WORDS_MAX - 1 } else { args.len() };
    let word = |(index, word): (usize, &[u8])| {
        if is_secret(index) {
            CONCEALED.into()
        } else {
            shortened(word)
        }
    };
    let mut words: Words = args.iter().enumerate().take(shown).map(word).collect();
    if cut {
        let note = format!("... ({} more arguments)", args.len() - shown);
        words.push(note.into_bytes().into());
    }
    words
}

/// A word cut to [`WORD_BYTES_MAX`] bytes.
pub(crate) fn shortened(word: &[u8]) -> Box<[u8]> {
    match word.len().checked_sub(WORD_BYTES_MAX) {
        None | Some(0) => word.into(),
        Some(missing) => {
            let mut text = word[..WORD_BYTES_MAX].to_vec();
            text.extend_from_slice(format!("... ({missing} more bytes)").as_bytes());
            text.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use shardis_protocol::Span;

    use super::*;

    fn entry(duration_us: u64) -> Entry {
        Entry {
            id: 0,
            time_s: 1,
            duration_us,
            words: vec![b"GET".as_slice().into()],
            address: "127.0.0.1:1".to_owned(),
            name: Box::default(),
        }
    }

    fn kept(said: &[&[u8]], secret: usize) -> Vec<String> {
        let bytes = said.concat();
        let mut start = 0;
        let spans: Vec<Span> = said
            .iter()
            .map(|word| {
                start += word.len();
                Span::new(start - word.len(), word.len()).unwrap()
            })
            .collect();
        let words = words(Arguments::new(&bytes, &spans, &[]), |index| index == secret);
        words
            .iter()
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect()
    }

    #[test]
    fn numbers_rise_and_the_oldest_go() {
        let mut log = SlowLog::default();
        for duration_us in 0..5 {
            log.add(entry(duration_us), 3);
        }
        let ids: Vec<u64> = log.entries().map(|entry| entry.id).collect();
        assert_eq!((ids, log.len()), (vec![4, 3, 2], 3));
        log.clear();
        log.add(entry(9), 3);
        assert_eq!(
            log.entries()
                .map(|entry| (entry.id, entry.duration_us))
                .collect::<Vec<_>>(),
            [(5, 9)]
        );
        // A log with length 0 keeps its entries and accepts no new ones.
        log.add(entry(9), 0);
        assert_eq!(log.len(), 1);
    }

    #[test]
    fn long_requests_are_cut() {
        let long = [b'x'; 130];
        assert_eq!(
            kept(&[b"SET", &long, &long[..128]], 9),
            [
                "SET".to_owned(),
                "x".repeat(128) + "... (2 more bytes)",
                "x".repeat(128)
            ]
        );
        let many = kept(&[b"DEL".as_slice(); 40], 9);
        assert_eq!((many.len(), many[31].as_str()), (32, "... (9 more arguments)"));
        assert_eq!(kept(&[b"DEL".as_slice(); 32], 9).len(), 32);
    }

    #[test]
    fn secrets_are_left_out() {
        assert_eq!(kept(&[b"AUTH", b"me", b"word"], 2), ["AUTH", "me", "(redacted)"]);
    }
}
