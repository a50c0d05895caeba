//! Hits of a cache that is too small: GETs of a trace, each miss followed by a SET, under `allkeys-lru` and `allkeys-lfu`.
//!
//! Besides the other server's, the measure is an exact LRU, simulated with as many keys as the server held. The trace takes
//! real time, in which the cache is turned over several times slower than the seconds that access clocks count.

use std::collections::{BTreeMap, HashMap};
use std::io::{Error, Result, Write};
use std::thread::sleep;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::client::Reply;
use super::now;
use super::options::Options;
use super::placement::Cores;
use super::report::{Report, Target};
use super::server::Program;

/// Keys that the trace asks for.
const KEYS: usize = 400_000;
/// Exponent of their popularity.
const EXPONENT: f64 = 0.99;
/// Requests that are sent at once.
const BATCH: usize = 50;
/// Requests a second.
const RATE: f64 = 50_000.0;
/// Requests of a trace; the first third fills the cache and does not count.
const REQUESTS: usize = 1_200_000;
const QUICK_REQUESTS: usize = 600_000;
const MEMORY: &str = "10mb";
const VALUE_BYTES: usize = 100;
const SAMPLES: &str = "10";
/// Percentage points that hits may be below those of an exact LRU.
const BELOW_MAX: f64 = 1.0;

/// A trace: keys in the order in which they are asked for.
struct Trace {
    name: &'static str,
    keys: Vec<u32>,
}

/// Hits of one server.
#[derive(Clone, Copy, Debug)]
struct Hits {
    percent: f64,
    /// Hits of an exact LRU of the same number of keys, percent.
    exact_percent: f64,
    keys: usize,
}

/// The rows.
pub(crate) fn hit_ratio(
    options: &Options,
    cores: &Cores,
    redis: &Program,
    shardis: impl Fn(usize) -> Program,
    report: &mut Report<impl Write>,
) -> Result<()> {
    if !options.wants("misses") {
        return Ok(());
    }
    report.heading("Hits of a cache, 10 samples", "redis", "shardis")?;
    let requests = if options.quick { QUICK_REQUESTS } else { REQUESTS };
    for trace in [zipf(requests), with_scans(requests)] {
        for policy in ["allkeys-lru", "allkeys-lfu"] {
            let reference = replay(&trace, cores, redis, policy)?;
            for shards in [1, 2] {
                let name = format!("{}, {policy}, {shards} shard(s)", trace.name);
                match replay(&trace, cores, &shardis(shards), policy) {
                    Ok(hits) => show(&name, policy, reference, hits, report)?,
                    Err(error) => report.failure(&name, &error)?,
                }
            }
        }
    }
    Ok(())
}

fn show(
    name: &str,
    policy: &str,
    reference: Hits,
    hits: Hits,
    report: &mut Report<impl Write>,
) -> Result<()> {
    let note = format!("{} and {} keys", reference.keys, hits.keys);
    report.line(
        &format!("{name}: misses, %"),
        Some(100.0 - reference.percent),
        100.0 - hits.percent,
        Target::Times(1.0),
        &note,
    )?;
    let target = if policy == "allkeys-lru" {
        Target::Value(BELOW_MAX)
    } else {
        Target::None
    };
    report.line(
        &format!("{name}: points below exact LRU"),
        Some(reference.exact_percent - reference.percent),
        hits.exact_percent - hits.percent,
        target,
        "",
    )
}

/// Keys of all degrees of popularity, each asked for at random.
fn zipf(requests: usize) -> Trace {
    let mut rng = SmallRng::seed_from_u64(7);
    let mut popularity = Popularity::new();
    Trace {
        name: "Zipf",
        keys: (0..requests).map(|_| popularity.draw(&mut rng)).collect(),
    }
}

/// The same, and in every fourth place the next key of a scan over keys that nobody else asks for.
fn with_scans(requests: usize) -> Trace {
    let mut trace = zipf(requests);
    for (number, key) in trace.keys.iter_mut().step_by(4).enumerate() {
        *key = (KEYS + number % KEYS) as u32;
    }
    trace.name = "Zipf and scans";
    trace
}

/// Cumulated popularity of the keys, from the most popular one on.
struct Popularity(Vec<f64>);

impl Popularity {
    fn new() -> Self {
        let mut sum = 0.0;
        let cumulated = (1..=KEYS).map(|rank| {
            sum += (rank as f64).powf(-EXPONENT);
            sum
        });
        Self(cumulated.collect())
    }

    fn draw(&mut self, rng: &mut SmallRng) -> u32 {
        let place = rng.random_range(0.0..self.0[KEYS - 1]);
        self.0.partition_point(|&sum| sum <= place) as u32
    }
}

/// Replays a trace against a server at its limit.
fn replay(trace: &Trace, cores: &Cores, program: &Program, policy: &str) -> Result<Hits> {
    let placement = cores.pinned();
    cores.place_load(placement)?;
    let limit = [
        "--maxmemory",
        MEMORY,
        "--maxmemory-policy",
        policy,
        "--maxmemory-samples",
        SAMPLES,
    ];
    let server = program.start(placement, &limit)?;
    let mut client = server.client()?;
    let value = "v".repeat(VALUE_BYTES);
    let counted_from = trace.keys.len() / 3;
    let (mut hits, mut keys) = (0_usize, 0_usize);
    let begin = now();
    for (number, batch) in trace.keys.chunks(BATCH).enumerate() {
        let mut requests = String::new();
        for key in batch {
            requests.push_str(&format!("GET key:{key:09}\r\n"));
        }
        client.send_lines(&requests)?;
        requests.clear();
        let mut missed = Vec::new();
        for &key in batch {
            match client.receive()? {
                Reply::Null => missed.push(key),
                _ => hits += usize::from(number * BATCH >= counted_from),
            }
        }
        for key in &missed {
            requests.push_str(&format!("SET key:{key:09} {value}\r\n"));
        }
        client.send_lines(&requests)?;
        for _ in &missed {
            client.receive()?;
        }
        if number * BATCH < counted_from {
            keys = 0;
        } else if keys == 0 {
            keys = held(&mut client)?;
        }
        let due = Duration::from_secs_f64((number * BATCH) as f64 / RATE);
        sleep(due.saturating_sub(now() - begin));
    }
    // The mean of the beginning and the end of what counts.
    let keys = keys.midpoint(held(&mut client)?);
    let percent = |hits: usize| 100.0 * hits as f64 / (trace.keys.len() - counted_from) as f64;
    Ok(Hits {
        percent: percent(hits),
        exact_percent: percent(exact_lru(&trace.keys, keys, counted_from)),
        keys,
    })
}

/// Number of keys that a server holds.
fn held(client: &mut super::client::Client) -> Result<usize> {
    let count = client.call("DBSIZE")?.integer();
    count
        .and_then(|count| usize::try_from(count).ok())
        .ok_or_else(|| Error::other("DBSIZE is no number"))
}

/// Hits of a cache of so many keys that loses the one longest unused, from a request on.
fn exact_lru(keys: &[u32], capacity: usize, counted_from: usize) -> usize {
    let (mut used_at, mut by_time) = (HashMap::new(), BTreeMap::new());
    let mut hits = 0;
    for (number, batch) in keys.chunks(BATCH).enumerate() {
        let mut missed = Vec::new();
        for (place, &key) in batch.iter().enumerate() {
            let time = 2 * number * BATCH + place;
            if let Some(at) = used_at.get_mut(&key) {
                by_time.remove(at);
                by_time.insert(time, key);
                *at = time;
                hits += usize::from(number * BATCH >= counted_from);
            } else {
                missed.push((time + BATCH, key));
            }
        }
        for (time, key) in missed {
            if let Some(at) = used_at.insert(key, time) {
                by_time.remove(&at);
            }
            by_time.insert(time, key);
            if used_at.len() > capacity
                && let Some((_, oldest)) = by_time.pop_first()
            {
                used_at.remove(&oldest);
            }
        }
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_lru_loses_what_was_not_used_for_longest() {
        let batches: Vec<Vec<u32>> = vec![vec![1], vec![2], vec![1], vec![3], vec![1], vec![2]];
        let keys: Vec<u32> = batches
            .into_iter()
            .flat_map(|batch| (0..BATCH).map(move |_| batch[0]))
            .collect();
        // Of each batch all are answered before the key is stored: the third and the fifth find 1, the sixth finds no 2.
        assert_eq!(exact_lru(&keys, 2, 0), 2 * BATCH);
        assert_eq!(exact_lru(&keys, 3, 0), 3 * BATCH);
        assert_eq!(exact_lru(&keys, 3, 5 * BATCH), BATCH);
    }

    #[test]
    fn popular_keys_are_asked_for_more_often() {
        let trace = zipf(20_000);
        let of_first = trace.keys.iter().filter(|&&key| key == 0).count();
        assert!((1200..1800).contains(&of_first), "{of_first}");
        let scans = with_scans(20_000).keys;
        assert_eq!((scans[0], scans[4]), (KEYS as u32, KEYS as u32 + 1));
    }
}
