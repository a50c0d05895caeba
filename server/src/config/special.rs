//! Directives with a syntax of their own: `save`, `client-output-buffer-limit`, `notify-keyspace-events` and
//! others.
//!
//! Each type holds what the server acts on and knows the one way it is written; what is shown can be set
//! back.

use super::choice::unknown_word;
use super::directives::Row;
use super::file::quote;
use super::units::{format_memory, parse_memory};
use super::value::{Assign, Emit, Reason, Value, single, utf8};
use crate::limits::{CLIENT_MEMORY_LIMIT_MIN, OUTPUT_CHUNK_BYTES};
use crate::machine;
use shardis_storage::number::parse_i64;
use std::fmt::Write;

/// The most addresses a server listens on.
const BIND_ADDRESSES_MAX: usize = 16;
/// The most save points, percentiles and the like that one directive may list.
const LIST_MAX: usize = 1024;

/// Whether the arguments mean an empty list: none at all, or one empty string.
fn is_empty(args: &[&[u8]]) -> bool {
    matches!(args, [] | [b""])
}

/// The lines of a list directive; an empty list is written as empty quotes.
fn list_lines(shown: Vec<u8>) -> Vec<Vec<u8>> {
    vec![if shown.is_empty() { b"\"\"".to_vec() } else { shown }]
}

/// A word of a line, in quotes only if it needs them to be read back.
fn word(text: &str) -> Vec<u8> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'#');
    if !text.is_empty() && text.bytes().all(plain) {
        text.as_bytes().to_vec()
    } else {
        quote(text.as_bytes())
    }
}

/// Writes items with a space between them.
fn join(items: impl IntoIterator<Item = String>) -> Vec<u8> {
    items.into_iter().collect::<Vec<_>>().join(" ").into_bytes()
}

/// `bind`: the addresses to listen on. A leading `-` makes one optional; `*` is every address of version 4,
/// `::*` of 6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindAddresses(pub Vec<String>);

impl Default for BindAddresses {
    fn default() -> Self {
        Self(vec!["*".to_owned(), "-::*".to_owned()])
    }
}

impl Value for BindAddresses {
    fn assign(&mut self, _row: &Row, args: &[&[u8]], _how: Assign) -> Result<(), Reason> {
        if args.len() > BIND_ADDRESSES_MAX {
            return Err("Too many bind addresses specified.".into());
        }
        let addresses = if is_empty(args) { &[] } else { args };
        self.0 = addresses
            .iter()
            .map(|arg| utf8(arg).map(str::to_owned))
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    fn show(&self, _row: &Row) -> Vec<u8> {
        join(self.0.iter().cloned())
    }

    fn lines(&self, _row: &Row) -> Vec<Vec<u8>> {
        let words: Vec<_> = self.0.iter().map(|address| word(address)).collect();
        list_lines(words.join(&b' '))
    }
}

/// One condition of `save`: a snapshot is due once so many changes are so many seconds old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavePoint {
    /// Seconds since the last snapshot, at least 1.
    pub seconds: u64,
    /// Changes since the last snapshot.
    pub changes: u64,
}

/// `save`: the conditions of which any one makes a snapshot due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavePoints(pub Vec<SavePoint>);

impl Default for SavePoints {
    fn default() -> Self {
        let points = [(3600, 1), (300, 100), (60, 10_000)];
        Self(
            points
                .map(|(seconds, changes)| SavePoint { seconds, changes })
                .to_vec(),
        )
    }
}

impl SavePoint {
    fn parse(pair: &[&[u8]]) -> Option<Self> {
        let [seconds, changes] = pair else { return None };
        let seconds = u64::try_from(parse_i64(seconds)?)
            .ok()
            .filter(|seconds| *seconds > 0)?;
        Some(Self {
            seconds,
            changes: u64::try_from(parse_i64(changes)?).ok()?,
        })
    }

    fn show(self) -> String {
        format!("{} {}", self.seconds, self.changes)
    }
}

impl Value for SavePoints {
    fn assign(&mut self, _row: &Row, args: &[&[u8]], how: Assign) -> Result<(), Reason> {
        if is_empty(args) {
            self.0.clear();
            return Ok(());
        }
        let points: Option<Vec<_>> = args.chunks(2).map(SavePoint::parse).collect();
        let points = points.ok_or("Invalid save parameters")?;
        let kept = if how == Assign::Extend { self.0.len() } else { 0 };
        if kept + points.len() > LIST_MAX {
            return Err("Invalid save parameters".into());
        }
        self.0.truncate(kept);
        self.0.extend(points);
        Ok(())
    }

    fn show(&self, _row: &Row) -> Vec<u8> {
        join(self.0.iter().map(|point| point.show()))
    }

    fn lines(&self, row: &Row) -> Vec<Vec<u8>> {
        if self.0.is_empty() {
            return list_lines(self.show(row));
        }
        self.0.iter().map(|point| point.show().into_bytes()).collect()
    }
}

/// Limits of the unsent replies of a client, which is disconnected beyond them. A limit of 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimit {
    /// Bytes at which the client is disconnected at once.
    pub hard_bytes: u64,
    /// Bytes at which it is disconnected after `soft_seconds`.
    pub soft_bytes: u64,
    /// Seconds that the replies may stay above `soft_bytes`.
    pub soft_seconds: u64,
}

/// `client-output-buffer-limit`: one limit for each class of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimits {
    /// Ordinary clients.
    pub normal: OutputLimit,
    /// Replicas.
    pub replica: OutputLimit,
    /// Clients with subscriptions.
    pub pubsub: OutputLimit,
}

impl OutputLimits {
    /// Size from which a reply is too long for any client, bytes: a client that gets one is disconnected, so that the
    /// reply need not be complete.
    pub(crate) fn reply_bytes_max(&self) -> usize {
        match (self.normal.hard_bytes, self.pubsub.hard_bytes) {
            (0, _) | (_, 0) => usize::MAX,
            (normal, pubsub) => (normal.max(pubsub) as usize).max(OUTPUT_CHUNK_BYTES),
        }
    }
}

impl Default for OutputLimits {
    fn default() -> Self {
        let limit = |hard_bytes, soft_bytes, soft_seconds| OutputLimit {
            hard_bytes,
            soft_bytes,
            soft_seconds,
        };
        Self {
            normal: limit(0, 0, 0),
            replica: limit(256 << 20, 64 << 20, 60),
            pubsub: limit(32 << 20, 8 << 20, 60),
        }
    }
}

impl OutputLimits {
    fn class_mut(&mut self, name: &[u8]) -> Option<&mut OutputLimit> {
        match name.to_ascii_lowercase().as_slice() {
            b"normal" => Some(&mut self.normal),
            b"slave" | b"replica" => Some(&mut self.replica),
            b"pubsub" => Some(&mut self.pubsub),
            _ => None,
        }
    }
}

impl OutputLimit {
    fn parse(hard: &[u8], soft: &[u8], seconds: &[u8]) -> Option<Self> {
        Some(Self {
            hard_bytes: parse_memory(hard)?,
            soft_bytes: parse_memory(soft)?,
            soft_seconds: u64::try_from(parse_i64(seconds)?).ok()?,
        })
    }
}

impl Value for OutputLimits {
    fn assign(&mut self, _row: &Row, args: &[&[u8]], _how: Assign) -> Result<(), Reason> {
        let mut limits = *self;
        let (groups, rest) = args.as_chunks::<4>();
        if !rest.is_empty() {
            return Err("Wrong number of arguments in buffer limit configuration.".into());
        }
        for [class, hard, soft, seconds] in groups {
            let limit = limits
                .class_mut(class)
                .ok_or("Invalid client class specified in buffer limit configuration.")?;
            *limit = OutputLimit::parse(hard, soft, seconds)
                .ok_or("Error in hard, soft or soft_seconds setting in buffer limit configuration.")?;
        }
        *self = limits;
        Ok(())
    }

    /// The class of replicas is shown under its old name, which tools expect.
    fn show(&self, _row: &Row) -> Vec<u8> {
        let classes = [
            ("normal", self.normal),
            ("slave", self.replica),
            ("pubsub", self.pubsub),
        ];
        join(classes.map(|(name, limit)| {
            format!(
                "{name} {} {} {}",
                limit.hard_bytes, limit.soft_bytes, limit.soft_seconds
            )
        }))
    }

    fn lines(&self, _row: &Row) -> Vec<Vec<u8>> {
        let classes = [
            ("normal", self.normal),
            ("replica", self.replica),
            ("pubsub", self.pubsub),
        ];
        let line = |(name, limit): (&str, OutputLimit)| {
            let (hard, soft) = (format_memory(limit.hard_bytes), format_memory(limit.soft_bytes));
            format!("{name} {hard} {soft} {}", limit.soft_seconds).into_bytes()
        };
        classes.map(line).to_vec()
    }

    fn emit(&self) -> Emit {
        Emit::EachChanged
    }
}

/// `notify-keyspace-events`: classes of events to publish, and kinds of channels to publish them on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceEvents(u16);

impl KeyspaceEvents {
    /// `K`: channels named by key.
    pub const KEYSPACE: Self = Self(1 << 0);
    /// `E`: channels named by event.
    pub const KEYEVENT: Self = Self(1 << 1);
    /// `g`: commands on any type (DEL, EXPIRE, RENAME…).
    pub const GENERIC: Self = Self(1 << 2);
    /// `$`: strings.
    pub const STRING: Self = Self(1 << 3);
    /// `l`: lists.
    pub const LIST: Self = Self(1 << 4);
    /// `s`: sets.
    pub const SET: Self = Self(1 << 5);
    /// `h`: hashes.
    pub const HASH: Self = Self(1 << 6);
    /// `z`: sorted sets.
    pub const SORTED_SET: Self = Self(1 << 7);
    /// `x`: keys that expired.
    pub const EXPIRED: Self = Self(1 << 8);
    /// `e`: keys that were evicted.
    pub const EVICTED: Self = Self(1 << 9);
    /// `t`: streams.
    pub const STREAM: Self = Self(1 << 10);
    /// `d`: module types.
    pub const MODULE: Self = Self(1 << 11);
    /// `m`: reads of a key that does not exist; not part of `A`.
    pub const KEY_MISS: Self = Self(1 << 12);
    /// `n`: keys that are created; not part of `A`.
    pub const NEW_KEY: Self = Self(1 << 13);
    /// `A`: all classes of events but misses and new keys.
    pub const ALL: Self = Self(0b1111_1111_1100);

    /// The letters in the order they are shown.
    const LETTERS: [(u8, Self); 14] = [
        (b'g', Self::GENERIC),
        (b'$', Self::STRING),
        (b'l', Self::LIST),
        (b's', Self::SET),
        (b'h', Self::HASH),
        (b'z', Self::SORTED_SET),
        (b'x', Self::EXPIRED),
        (b'e', Self::EVICTED),
        (b't', Self::STREAM),
        (b'd', Self::MODULE),
        (b'n', Self::NEW_KEY),
        (b'K', Self::KEYSPACE),
        (b'E', Self::KEYEVENT),
        (b'm', Self::KEY_MISS),
    ];

    /// Whether all of `other` is in here.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any event is published at all, which takes a kind of channel.
    pub const fn any_channel(self) -> bool {
        self.0 & (Self::KEYSPACE.0 | Self::KEYEVENT.0) != 0
    }

    fn of_letter(letter: u8) -> Option<Self> {
        if letter == b'A' {
            return Some(Self::ALL);
        }
        Self::LETTERS
            .iter()
            .find(|(known, _)| *known == letter)
            .map(|(_, events)| *events)
    }
}

impl Value for KeyspaceEvents {
    fn assign(&mut self, _row: &Row, args: &[&[u8]], _how: Assign) -> Result<(), Reason> {
        let mut events = Self::default();
        for letter in single(args)? {
            let more =
                Self::of_letter(*letter).ok_or("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")?;
            events = events.union(more);
        }
        *self = events;
        Ok(())
    }

    fn show(&self, _row: &Row) -> Vec<u8> {
        let all = self.contains(Self::ALL);
        let alone = |events: &Self| self.contains(*events) && !(all && Self::ALL.contains(*events));
        let letters = Self::LETTERS
            .iter()
            .filter(|(_, events)| alone(events))
            .map(|(letter, _)| *letter);
        all.then_some(b'A').into_iter().chain(letters).collect()
    }

    fn lines(&self, row: &Row) -> Vec<Vec<u8>> {
        vec![quote(&self.show(row))]
    }
}

/// `replicaof`: the primary that this node follows. `no one`, and the empty text that is shown for it, mean none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaOf(pub Option<Primary>);

/// Address of a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Value for ReplicaOf {
    fn assign(&mut self, _row: &Row, args: &[&[u8]], _how: Assign) -> Result<(), Reason> {
        if is_empty(args) {
            self.0 = None;
            return Ok(());
        }
        let [host, port] = args else {
            return Err("wrong number of arguments".into());
        };
        if host.eq_ignore_ascii_case(b"no") && port.eq_ignore_ascii_case(b"one") {
            self.0 = None;
            return Ok(());
        }
        let port = parse_i64(port)
            .and_then(|port| u16::try_from(port).ok())
            .ok_or("Invalid master port")?;
        self.0 = Some(Primary {
            host: utf8(host)?.to_owned(),
            port,
        });
        Ok(())
    }

    fn show(&self, _row: &Row) -> Vec<u8> {
        match &self.0 {
            Some(primary) => format!("{} {}", primary.host, primary.port).into_bytes(),
            None => Vec::new(),
        }
    }

    fn lines(&self, _row: &Row) -> Vec<Vec<u8>> {
        let line =
            |primary: &Primary| [word(&primary.host), primary.port.to_string().into_bytes()].join(&b' ');
        self.0.iter().map(line).collect()
    }
}

/// `oom-score-adj-values`: the kernel's score for a primary, a replica and a background process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomScores(pub [i32; 3]);

impl Default for OomScores {
    fn default() -> Self {
        Self([0, 200, 800])
    }
}

impl Value for OomScores {
    fn assign(&mut self, _row: &Row, args: &[&[u8]], _how: Assign) -> Result<(), Reason> {
        let args: &[&[u8]; 3] = args.try_into().map_err(|_| "wrong number of arguments")?;
        let score = |arg: &[u8]| {
            let score = parse_i64(arg).and_then(|score| i32::try_from(score).ok());
            score
                .filter(|score| (-2000..=2000).contains(score))
                .ok_or("Invalid oom-score-adj-values, elements must be between -2000 and 2000.")
        };
        self.0 = [score(args[0])?, score(args[1])?, score(args[2])?];
        Ok(())
    }

    fn show(&self, _row: &Row) -> Vec<u8> {
        join(self.0.map(|score| score.to_string()))
    }
}

/// `latency-tracking-info-percentiles`: the percentiles INFO shows for each command, 0 to 100.
#[derive(Clone, Debug, PartialEq)]
pub struct Percentiles(pub Vec<f64>);

impl Default for Percentiles {
    fn default() -> Self {
        Self(vec![50.0, 99.0, 99.9])
    }
}

impl Percentiles {
    fn parse(arg: &[u8]) -> Result<f64, Reason> {
        let number = std::str::from_utf8(arg)
            .ok()
            .and_then(|text| text.parse::<f64>().ok());
        let number = number
            .filter(|number| !number.is_nan())
            .ok_or("Invalid latency-tracking-info-percentiles parameters")?;
        if !(0.0..=100.0).contains(&number) {
            return Err("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]".into());
        }
        // Six decimals are shown; keeping no more than those makes the shown value settable.
        Ok((number * 1e6).round() / 1e6)
    }
}

impl Value for Percentiles {
    fn assign(&mut self, _row: &Row, args: &[&[u8]], _how: Assign) -> Result<(), Reason> {
        let args = if is_empty(args) { &[] } else { args };
        if args.len() > LIST_MAX {
            return Err("Invalid latency-tracking-info-percentiles parameters".into());
        }
        self.0 = args
            .iter()
            .map(|arg| Self::parse(arg))
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    fn show(&self, _row: &Row) -> Vec<u8> {
        join(self.0.iter().map(|number| {
            let text = format!("{number:.6}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }))
    }

    fn lines(&self, row: &Row) -> Vec<Vec<u8>> {
        list_lines(self.show(row))
    }
}

/// `shutdown-on-sigterm` and `shutdown-on-sigint`: the options of the SHUTDOWN that a signal causes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownOptions {
    /// Save even if no save point is configured.
    pub save: bool,
    /// Do not save.
    pub nosave: bool,
    /// Do not wait for replicas that lag.
    pub now: bool,
    /// Stop even if the save fails.
    pub force: bool,
}

impl Value for ShutdownOptions {
    fn assign(&mut self, _row: &Row, args: &[&[u8]], _how: Assign) -> Result<(), Reason> {
        let unknown = || unknown_word(["default", "save", "nosave", "now", "force"].into_iter());
        let mut options = Self::default();
        if args.is_empty() {
            return Err(unknown());
        }
        for arg in args {
            match arg.to_ascii_lowercase().as_slice() {
                b"default" => {}
                b"save" => options.save = true,
                b"nosave" => options.nosave = true,
                b"now" => options.now = true,
                b"force" => options.force = true,
                _ => return Err(unknown()),
            }
        }
        if options.save && options.nosave {
            return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".into());
        }
        *self = options;
        Ok(())
    }

    fn show(&self, _row: &Row) -> Vec<u8> {
        let words = [
            (self.save, "save"),
            (self.nosave, "nosave"),
            (self.now, "now"),
            (self.force, "force"),
        ];
        let chosen = join(
            words
                .iter()
                .filter(|(chosen, _)| *chosen)
                .map(|(_, word)| (*word).to_owned()),
        );
        if chosen.is_empty() {
            b"default".to_vec()
        } else {
            chosen
        }
    }
}

/// `maxmemory-clients`: the most memory all clients' buffers may take together; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientMemory {
    /// This number of bytes.
    Bytes(u64),
    /// This share of `maxmemory`, 1 to 100.
    Percent(u8),
}

impl Default for ClientMemory {
    fn default() -> Self {
        Self::Bytes(0)
    }
}

impl ClientMemory {
    /// The limit in bytes given `maxmemory`; 0 is no limit. It is never so low that nobody could talk to the server to raise it.
    pub fn bytes(self, maxmemory: u64) -> u64 {
        let bytes = match self {
            Self::Bytes(bytes) => bytes,
            // Divided first: this may lose up to 99 bytes, but cannot overflow.
            Self::Percent(percent) => maxmemory / 100 * u64::from(percent),
        };
        if bytes == 0 {
            0
        } else {
            bytes.max(CLIENT_MEMORY_LIMIT_MIN)
        }
    }

    fn write(self, bytes_text: fn(u64) -> String) -> Vec<u8> {
        let mut text = String::new();
        match self {
            Self::Bytes(bytes) => text = bytes_text(bytes),
            Self::Percent(percent) => {
                // Writing to a string cannot fail.
                let _ = write!(text, "{percent}%");
            }
        }
        text.into_bytes()
    }
}

impl Value for ClientMemory {
    fn assign(&mut self, row: &Row, args: &[&[u8]], _how: Assign) -> Result<(), Reason> {
        let arg = single(args)?;
        let refused = || Reason::from("argument must be a memory or percent value");
        *self = if let Some(percent) = arg.strip_suffix(b"%") {
            let percent = parse_i64(percent)
                .filter(|percent| *percent >= 0)
                .ok_or_else(refused)?;
            let percent = u8::try_from(percent).ok().filter(|percent| *percent <= 100);
            match percent.ok_or("percentage argument must be less or equal to 100")? {
                0 => Self::Bytes(0),
                percent => Self::Percent(percent),
            }
        } else {
            let bytes = parse_memory(arg).ok_or_else(refused)?;
            if i128::from(bytes) > row.max {
                return Err(format!("argument must be between {} and {} inclusive", row.min, row.max).into());
            }
            Self::Bytes(bytes)
        };
        Ok(())
    }

    fn show(&self, _row: &Row) -> Vec<u8> {
        self.write(|bytes| bytes.to_string())
    }

    fn lines(&self, _row: &Row) -> Vec<Vec<u8>> {
        vec![self.write(format_memory)]
    }
}

/// `maxmemory`: bytes, or a percentage of the memory that the process may use. Clients are shown bytes, which is what they know;
/// files keep the percentage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// So many bytes; 0 is no limit.
    Bytes(u64),
    /// A percentage of the memory that there was when it was set.
    Percent {
        /// The percentage, 1 to 100.
        percent: u8,
        /// The bytes that it was then.
        bytes: u64,
    },
}

impl Default for MemoryLimit {
    fn default() -> Self {
        Self::Bytes(0)
    }
}

impl MemoryLimit {
    /// The limit in bytes; 0 is no limit.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::Bytes(bytes) | Self::Percent { bytes, .. } => bytes,
        }
    }

    /// A percentage of so many bytes.
    fn share(percent: &[u8], of_bytes: u64) -> Result<Self, Reason> {
        let percent = parse_i64(percent)
            .and_then(|percent| u8::try_from(percent).ok())
            .filter(|percent| (1..=100).contains(percent))
            .ok_or("percentage argument must be between 1 and 100")?;
        if of_bytes == 0 {
            return Err(
                "the memory of this system is not known, so that there is no percentage of it".into(),
            );
        }
        let bytes = (u128::from(of_bytes) * u128::from(percent) / 100) as u64;
        Ok(Self::Percent { percent, bytes })
    }
}

impl Value for MemoryLimit {
    fn assign(&mut self, row: &Row, args: &[&[u8]], how: Assign) -> Result<(), Reason> {
        *self = if let Some(percent) = single(args)?.strip_suffix(b"%") {
            Self::share(percent, machine::usable_bytes())?
        } else {
            let mut bytes = 0_u64;
            bytes.assign(row, args, how)?;
            Self::Bytes(bytes)
        };
        Ok(())
    }

    fn show(&self, row: &Row) -> Vec<u8> {
        self.bytes().show(row)
    }

    fn lines(&self, row: &Row) -> Vec<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => bytes.lines(row),
            Self::Percent { percent, .. } => vec![format!("{percent}%").into_bytes()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets `text` as CONFIG SET does and shows the result.
    fn set<V: Value + Default>(text: &str) -> Result<String, String> {
        let row = Row::new("directive");
        let mut value = V::default();
        let args: Vec<&[u8]> = if text.is_empty() {
            Vec::new()
        } else {
            text.split(' ').map(str::as_bytes).collect()
        };
        value
            .assign(&row, &args, Assign::Replace)
            .map_err(|reason| reason.into_owned())?;
        let shown = String::from_utf8(value.show(&row)).unwrap();
        Ok(shown)
    }

    fn check<V: Value + Default>(cases: &[(&str, Result<&str, &str>)]) {
        for (text, expected) in cases {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(set::<V>(text), expected, "{text:?}");
        }
    }

    #[test]
    fn save_points() {
        let invalid = Err("Invalid save parameters");
        check::<SavePoints>(&[
            ("", Ok("")),
            ("900 1", Ok("900 1")),
            ("60 0 5 6", Ok("60 0 5 6")),
            ("1", invalid),
            ("0 60", invalid),
            ("900 1 -1 2", invalid),
            ("900 1  300 2", invalid),
            ("a b", invalid),
        ]);
    }

    #[test]
    fn save_lines_add_up_when_they_extend() {
        let row = Row::new("save");
        let mut points = SavePoints::default();
        points.assign(&row, &[b"900", b"1"], Assign::Replace).unwrap();
        points.assign(&row, &[b"300", b"10"], Assign::Extend).unwrap();
        assert_eq!(points.show(&row), b"900 1 300 10");
        assert!(points.assign(&row, &[b"5", b"x"], Assign::Extend).is_err());
        assert_eq!(points.lines(&row), [b"900 1".to_vec(), b"300 10".to_vec()]);
        points.assign(&row, &[b""], Assign::Extend).unwrap();
        assert_eq!(points.lines(&row), [b"\"\"".to_vec()]);
        let flood = vec![b"1".as_slice(); 2 * (LIST_MAX + 1)];
        assert!(points.assign(&row, &flood, Assign::Replace).is_err());
    }

    #[test]
    fn output_limits_change_only_the_classes_named() {
        let kept = "pubsub 33554432 8388608 60";
        check::<OutputLimits>(&[
            (
                "normal 1mb 2kb 3 replica 1 2 3",
                Ok(&format!("normal 1048576 2048 3 slave 1 2 3 {kept}")),
            ),
            ("SLAVE 0 0 0", Ok(&format!("normal 0 0 0 slave 0 0 0 {kept}"))),
            (
                "normal 1 2",
                Err("Wrong number of arguments in buffer limit configuration."),
            ),
            (
                "foo 1 2 3",
                Err("Invalid client class specified in buffer limit configuration."),
            ),
            (
                "normal -1 1 1",
                Err("Error in hard, soft or soft_seconds setting in buffer limit configuration."),
            ),
        ]);
    }

    #[test]
    fn keyspace_events_are_letters() {
        check::<KeyspaceEvents>(&[
            ("AKE", Ok("AKE")),
            ("tdxg$lshzeKE", Ok("AKE")),
            ("mnE", Ok("nEm")),
            ("AKEmn", Ok("AnKEm")),
            ("zz", Ok("z")),
            ("Q", Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")),
        ]);
        assert!(!KeyspaceEvents::ALL.any_channel());
        let both = KeyspaceEvents::ALL.union(KeyspaceEvents::KEYSPACE);
        assert!(both.any_channel() && both.contains(KeyspaceEvents::HASH));
        assert!(!both.contains(KeyspaceEvents::KEY_MISS));
    }

    #[test]
    fn the_rest() {
        let too_many = Err("Too many bind addresses specified.");
        check::<BindAddresses>(&[
            ("", Ok("")),
            ("127.0.0.1 -::1", Ok("127.0.0.1 -::1")),
            ("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17", too_many),
        ]);
        let range = Err("Invalid oom-score-adj-values, elements must be between -2000 and 2000.");
        check::<OomScores>(&[
            ("1 0 -2", Ok("1 0 -2")),
            ("1 2", Err("wrong number of arguments")),
            ("1 2 3000", range),
            ("1 a 2", range),
        ]);
        check::<Percentiles>(&[
            ("", Ok("")),
            ("1 99.90 0.0001 12.3456789", Ok("1 99.9 0.0001 12.345679")),
            (
                "1 200",
                Err("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]"),
            ),
            (
                "1 nan",
                Err("Invalid latency-tracking-info-percentiles parameters"),
            ),
        ]);
        let words = "argument(s) must be one of the following: default, save, nosave, now, force";
        check::<ShutdownOptions>(&[
            ("force SAVE", Ok("save force")),
            ("save default", Ok("save")),
            ("default", Ok("default")),
            ("", Err(words)),
            ("foo", Err(words)),
            (
                "nosave save",
                Err("shutdown options SAVE and NOSAVE can't be used simultaneously"),
            ),
        ]);
        check::<ReplicaOf>(&[
            ("h 1", Ok("h 1")),
            ("NO one", Ok("")),
            ("", Ok("")),
            ("a", Err("wrong number of arguments")),
            ("a 99999", Err("Invalid master port")),
        ]);
    }

    #[test]
    fn a_memory_limit_is_bytes_or_a_share_of_what_there_is() {
        let row = Row::new("maxmemory").range(0, i128::from(u64::MAX)).memory();
        let set = |text: &str| {
            let mut value = MemoryLimit::default();
            value
                .assign(&row, &[text.as_bytes()], Assign::Replace)
                .map_err(Reason::into_owned)?;
            let text = |bytes| String::from_utf8(bytes).unwrap();
            Ok((text(value.show(&row)), text(value.lines(&row).concat())))
        };
        let half = (u128::from(machine::usable_bytes()) / 2).to_string();
        assert_eq!(set("50%"), Ok((half, "50%".to_owned())));
        assert_eq!(set("1gb"), Ok(((1 << 30).to_string(), "1gb".to_owned())));
        for text in ["0%", "101%", "-1%", "x%", "%"] {
            let refused = "percentage argument must be between 1 and 100".to_owned();
            assert_eq!(set(text), Err(refused), "{text}");
        }
        assert_eq!(set("x"), Err("argument must be a memory value".to_owned()));
        let whole = MemoryLimit::share(b"100", u64::MAX).map(MemoryLimit::bytes);
        assert!(whole.is_ok_and(|bytes| bytes == u64::MAX));
        assert!(MemoryLimit::share(b"50", 0).is_err());
    }

    #[test]
    fn client_memory_is_bytes_or_a_share() {
        let refused = Err("argument must be a memory or percent value".to_owned());
        let row = Row::new("maxmemory-clients")
            .range(-100, i128::from(i64::MAX))
            .memory();
        let set = |text: &str| {
            let mut value = ClientMemory::default();
            value
                .assign(&row, &[text.as_bytes()], Assign::Replace)
                .map_err(Reason::into_owned)?;
            Ok((value, String::from_utf8(value.lines(&row).concat()).unwrap()))
        };
        assert_eq!(set("10%"), Ok((ClientMemory::Percent(10), "10%".to_owned())));
        assert_eq!(set("2gb"), Ok((ClientMemory::Bytes(2 << 30), "2gb".to_owned())));
        assert_eq!(
            set("101%"),
            Err("percentage argument must be less or equal to 100".to_owned())
        );
        for text in ["-5", "x%", "%", "-1%"] {
            assert_eq!(set(text), refused, "{text:?}");
        }
        assert_eq!(ClientMemory::Percent(50).bytes(u64::MAX), u64::MAX / 100 * 50);
        let floor = CLIENT_MEMORY_LIMIT_MIN;
        for (limit, bytes) in [(0, 0), (1, floor), (floor, floor), (floor + 1, floor + 1)] {
            assert_eq!(ClientMemory::Bytes(limit).bytes(0), bytes);
        }
        assert_eq!(ClientMemory::Percent(50).bytes(0), 0);
    }
}
