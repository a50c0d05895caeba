//! The slow log: the last commands that took longer than `slowlog-log-slower-than`, with the beginning of what they said.
//!
//! One log for the node, behind a lock: it is taken for slow commands only, so that nobody waits for it. That is what
//! makes numbers rise in the order of entry over all loops, and `slowlog-max-len` a bound on the whole.

use std::collections::VecDeque;

use shardis_protocol::Arguments;

/// The most words of a request that are kept; the last of them then tells how many are missing.
const WORDS_MAX: usize = 32;

/// The most bytes of a word that are kept, before the text that tells how many are missing.
const WORD_BYTES_MAX: usize = 128;

/// What stands for a secret.
const CONCEALED: &[u8] = b"(redacted)";

/// The words of a request as the log keeps them.
pub(crate) type Words = Vec<Box<[u8]>>;

/// A command that was slow in the eyes of the slow log or of the latency monitor, before it is known who sent it.
#[derive(Debug)]
pub(crate) struct Slow {
    /// How long it ran, nanoseconds.
    pub(crate) nanos: u64,
    /// What it said.
    pub(crate) words: Words,
    /// The event that it is to the latency monitor.
    pub(crate) event: &'static str,
    /// Whether the slow log may have it.
    pub(crate) is_logged: bool,
}

/// A slow command in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its number: rises, and is never used again.
    pub(crate) id: u64,
    /// When it was done, Unix seconds.
    pub(crate) time_s: i64,
    /// How long it ran, microseconds.
    pub(crate) duration_us: u64,
    /// What it said.
    pub(crate) words: Words,
    /// Where its client comes from.
    pub(crate) address: String,
    /// What its client is called.
    pub(crate) name: Box<[u8]>,
}

/// The slow commands of a node, newest first.
#[derive(Debug, Default)]
pub(crate) struct SlowLog {
    entries: VecDeque<Entry>,
    next_id: u64,
}

impl SlowLog {
    /// Adds a command, and drops what is beyond `len_max`. The number in the entry is set here. With a `len_max` of 0 nothing
    /// is added, and what was there stays.
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

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Drops all of them. Numbers go on.
    pub(crate) fn clear(&mut self) {
        self.entries = VecDeque::new();
    }
}

/// The words of a request as the log keeps them: at most [`WORDS_MAX`], each cut to [`WORD_BYTES_MAX`] bytes, secrets
/// left out. `is_secret` says which argument is one.
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

fn shortened(word: &[u8]) -> Box<[u8]> {
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
        // A log of no length keeps what it has and takes in nothing.
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
