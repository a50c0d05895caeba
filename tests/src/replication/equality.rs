//! Equality of servers: at one offset, all of them have the same data.
//!
//! A digest of everything decides (`DEBUG DIGEST`), and it decides at once: where offsets are equal and stay so, different data are
//! a fault, however soon it would have passed. What the digest does not have is compared key by key: the time at which a key
//! expires, to the millisecond, and the groups of streams. Valkey has other digests of doubles and of fields that expire, so that its
//! keys are compared one by one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::member::{Kind, Member, PATIENCE};
use crate::client::Client;
use crate::reply::Reply;
use crate::wait::retry;

/// Requests that are sent before their replies are read.
const PIPELINE: usize = 500;

/// Differences that a report names.
const DIFFERENCES_SHOWN: usize = 12;

/// Longer than the life of the fields of a seeder that live short.
const SHORT_LIFE: Duration = Duration::from_millis(600);

/// Characters that a report shows of a value.
const VALUE_SHOWN: usize = 1500;

/// A key's value, in so far as it is compared.
#[derive(Debug)]
struct Entry {
    kind: String,
    digest: String,
    /// The time at which it expires: -1 for never, -2 if it has gone meanwhile.
    expires_ms: i64,
    /// The groups of a stream, in words.
    groups: String,
    /// A member of a sorted set has the score -0.
    has_negative_zero: bool,
}

impl Entry {
    /// Whether it has expired by now, perhaps between two looks, or between the parts of one.
    fn has_expired(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_millis());
        self.expires_ms != -1 && self.expires_ms <= now as i64
    }
}

/// The keys of a server by database and name.
type Keys = BTreeMap<(usize, Vec<u8>), Entry>;

/// Waits until all members have the offset of the first, and then demands that all have its data.
///
/// # Panics
/// When the offsets do not become equal, or the data are not.
pub fn await_equal(members: &[&Member]) {
    if members.iter().all(|member| member.kind() != Kind::Redis) {
        // Then there are fields that expire, and none may do so between two looks.
        sleep(SHORT_LIFE);
    }
    if let Err(difference) = retry(PATIENCE, || compare(members)).and_then(|found| found) {
        let logs: Vec<String> = members.iter().map(|member| member.tail()).collect();
        panic!("{difference}\n{}", logs.join("\n"));
    }
}

/// The offset of a server: of what it has written, or applied.
///
/// # Errors
/// The reason for which it cannot be told.
pub fn offset(member: &Member) -> Result<u64, String> {
    let text = member.field("master_repl_offset")?;
    text.parse()
        .map_err(|error| format!("master_repl_offset:{text}: {error}"))
}

/// Offsets of all members, if they are equal.
fn common_offset(members: &[&Member]) -> Result<u64, String> {
    let offsets = members
        .iter()
        .map(|member| offset(member))
        .collect::<Result<Vec<_>, _>>()?;
    if offsets.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(offsets[0]);
    }
    let kinds: Vec<Kind> = members.iter().map(|member| member.kind()).collect();
    Err(format!("offsets {offsets:?} of {kinds:?}"))
}

/// Compares once: an error while there is nothing to compare yet, else the verdict.
fn compare(members: &[&Member]) -> Result<Result<(), String>, String> {
    let before = common_offset(members)?;
    let digests: Vec<String> = members
        .iter()
        .map(|member| member.client().line("DEBUG DIGEST").text())
        .collect();
    let keys: Vec<Keys> = members.iter().map(|member| read(member)).collect();
    if common_offset(members)? != before {
        return Err(format!("offsets move on from {before}"));
    }
    let mut comparable = members
        .iter()
        .zip(&digests)
        .filter(|(member, _)| member.kind() != Kind::Valkey);
    let first = comparable.next().map(|(_, digest)| digest);
    // Their digests tell the zeros apart, see `scores`.
    let mut entries = keys.iter().flat_map(Keys::values);
    let has_negative_zero = entries.any(|entry| entry.has_negative_zero);
    let are_equal = has_negative_zero || comparable.all(|(_, digest)| Some(digest) == first);
    let differences: Vec<String> = (1..members.len())
        .map(|other| differences((members[0], &keys[0]), (members[other], &keys[other])))
        .collect();
    if are_equal && differences.iter().all(String::is_empty) {
        return Ok(Ok(()));
    }
    let kinds: Vec<Kind> = members.iter().map(|member| member.kind()).collect();
    Ok(Err(format!(
        "{kinds:?} have offset {before} and digests {digests:?}\n{}",
        differences.join("\n")
    )))
}

/// The keys in which two servers differ.
fn differences(first: (&Member, &Keys), other: (&Member, &Keys)) -> String {
    let (members, (first, other)) = ([first.0, other.0], (first.1, other.1));
    let mut text = String::new();
    let mut shown = 0;
    for name in first
        .keys()
        .chain(other.keys().filter(|name| !first.contains_key(*name)))
    {
        let difference = match (first.get(name), other.get(name)) {
            (Some(a), Some(b)) if !is_same(a, b) => format!("{a:?} and {b:?}"),
            (Some(a), None) if !a.has_expired() => format!("{a:?} and nothing"),
            (None, Some(b)) if !b.has_expired() => format!("nothing and {b:?}"),
            _ => continue,
        };
        shown += 1;
        if shown <= DIFFERENCES_SHOWN {
            let values = members.map(|member| value(member, name));
            let _ = writeln!(text, "  {} {}: {difference}", name.0, name.1.escape_ascii());
            let _ = writeln!(text, "    {}\n    {}", values[0], values[1]);
        }
    }
    if shown > DIFFERENCES_SHOWN {
        let _ = writeln!(text, "  … {shown} keys differ");
    }
    text
}

/// A value in words, for the report.
fn value(member: &Member, (database, name): &(usize, Vec<u8>)) -> String {
    let mut client = member.client();
    client.call(&["SELECT", &database.to_string()]);
    let kind = client.call(&[b"TYPE".as_slice(), name]).text();
    let before: &[&str] = match &*kind {
        "list" => &["LRANGE", "0", "-1"],
        "set" => &["SMEMBERS"],
        "zset" => &["ZRANGE", "0", "-1", "WITHSCORES"],
        "hash" => &["HGETALL"],
        "stream" => &["XRANGE", "-", "+"],
        _ => &["GET"],
    };
    let (command, options) = before.split_at(1);
    let mut words: Vec<&[u8]> = vec![command[0].as_bytes(), name];
    words.extend(options.iter().map(|word| word.as_bytes()));
    let text = client.call(&words).to_string();
    text.chars().take(VALUE_SHOWN).collect()
}

/// Whether two servers have the same of a key. Of a key that has expired by now each may have seen a part before and a part afterwards;
/// one that is gone from one server and has time left in the other is a difference.
fn is_same(a: &Entry, b: &Entry) -> bool {
    let is_equal =
        a.expires_ms == b.expires_ms && (&a.kind, &a.digest, &a.groups) == (&b.kind, &b.digest, &b.groups);
    is_equal || (a.has_expired() && b.has_expired())
}

/// Reads all keys.
fn read(member: &Member) -> Keys {
    let mut client = member.client();
    let keyspace = client.line("INFO keyspace").text();
    let databases: Vec<usize> = keyspace
        .lines()
        .filter_map(|line| line.strip_prefix("db")?.split(':').next()?.parse().ok())
        .collect();
    let mut keys = Keys::new();
    for database in databases {
        client.call(&["SELECT", &database.to_string()]);
        let names: Vec<Vec<u8>> = client
            .line("KEYS *")
            .items()
            .iter()
            .map(|key| key.bytes().to_vec())
            .collect();
        for names in names.chunks(PIPELINE) {
            for (name, entry) in names.iter().zip(entries(&mut client, names)) {
                keys.insert((database, name.clone()), entry);
            }
        }
    }
    keys
}

/// Reads some keys of the database that the client has chosen.
fn entries(client: &mut Client, names: &[Vec<u8>]) -> Vec<Entry> {
    let ask = |words: &[&str]| {
        let request = |name: &Vec<u8>| {
            let words = words.iter().map(|word| word.as_bytes().to_vec());
            words.chain([name.clone()]).collect::<Vec<_>>()
        };
        names.iter().map(request).collect::<Vec<_>>()
    };
    let digests = client.pipeline(&ask(&["DEBUG", "DIGEST-VALUE"]));
    let kinds = client.pipeline(&ask(&["TYPE"]));
    let times = client.pipeline(&ask(&["PEXPIRETIME"]));
    let mut entries = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let kind = kinds[at].text();
        let groups = if kind == "stream" {
            groups(client, name)
        } else {
            String::new()
        };
        let (digest, has_negative_zero) = match &*kind {
            "zset" => scores(client, name),
            "hash" => (fields(client, name), false),
            _ => (
                digests[at].items().first().map(Reply::text).unwrap_or_default(),
                false,
            ),
        };
        entries.push(Entry {
            digest,
            has_negative_zero,
            expires_ms: times[at].integer().expect("a time"),
            kind,
            groups,
        });
    }
    entries
}

/// The members of a sorted set with their scores, to the bit, since versions write doubles in different ways. A negative zero that
/// Redis has in memory is a positive one in its files; true if there is one.
fn scores(client: &mut Client, name: &[u8]) -> (String, bool) {
    let mut text = String::new();
    let mut has_negative_zero = false;
    let reply = client.call(&[b"ZRANGE".as_slice(), name, b"0", b"-1", b"WITHSCORES"]);
    for pair in reply.items().chunks_exact(2) {
        let score: f64 = pair[1].text().parse().expect("a score");
        has_negative_zero |= score == 0.0 && score.is_sign_negative();
        let _ = write!(text, "{} {:x} ", pair[0], (score + 0.0).to_bits());
    }
    (text, has_negative_zero)
}

/// The fields of a hash in order, with their values, and their times to expire where there are any.
fn fields(client: &mut Client, name: &[u8]) -> String {
    let all = client.call(&[b"HGETALL".as_slice(), name]);
    let mut pairs = all.pairs();
    pairs.sort();
    let count = pairs.len().to_string();
    let mut words = vec![b"HPEXPIRETIME".as_slice(), name, b"FIELDS", count.as_bytes()];
    words.extend(pairs.iter().map(|(field, _)| field.bytes()));
    let times = client.call(&words);
    let mut text = String::new();
    for (at, (field, value)) in pairs.iter().enumerate() {
        let time = times
            .items()
            .get(at)
            .and_then(Reply::integer)
            .filter(|time| *time >= 0);
        let time = time.map(|time| format!(" until {time}")).unwrap_or_default();
        let _ = write!(text, "{field} {value}{time}; ");
    }
    text
}

/// The groups of a stream, with what is pending in each. When somebody last read is left out: replicas do not learn of it.
fn groups(client: &mut Client, name: &[u8]) -> String {
    let mut text = String::new();
    for group in client.call(&[b"XINFO", b"GROUPS".as_slice(), name]).items() {
        let field = |name: &str| group.field(name).map(Reply::to_string).unwrap_or_default();
        let id = group
            .field("name")
            .map(|id| id.bytes().to_vec())
            .unwrap_or_default();
        let pending = client.call(&[b"XPENDING".as_slice(), name, &id]);
        let _ = write!(
            text,
            "{} at {}: {pending}; ",
            field("name"),
            field("last-delivered-id")
        );
    }
    text
}
