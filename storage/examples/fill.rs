//! Fills a database with keys of 16 bytes and values of 32 and tells what that costs: resident memory and table bytes a
//! key, the slowest insertion, the pace of a flush. `cargo run --release --example fill [keys] [single|per-slot]`.
//!
//! All is done three times, and of each insertion and each slice of the flush the quickest time counts: the machine's own
//! interruptions fall on others every time, what the table does to itself falls on the same.

use std::time::Instant;

use shardis_storage::key::KeyHasher;
use shardis_storage::keyspace::{Expiry, Keyspace, KeyspaceOptions, Layout, OwnSlots};
use shardis_storage::memory;

const ROUNDS: usize = 3;
/// Small entries freed in a slice of the flush.
const SLICE: usize = 4096;

fn slot_of(key: &[u8]) -> u16 {
    // Any even spread does for this purpose.
    (KeyHasher::new(1).hash(key) % 16384) as u16
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn timed<T>(quickest_ns: &mut u32, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = work();
    let ns = u32::try_from(begin.elapsed().as_nanos()).unwrap_or(u32::MAX);
    *quickest_ns = ns.min(*quickest_ns);
    result
}

/// Mean and maximum of durations, in nanoseconds.
fn summary(times_ns: &[u32]) -> (u64, u32) {
    let sum: u64 = times_ns.iter().map(|ns| u64::from(*ns)).sum();
    (
        sum / times_ns.len().max(1) as u64,
        times_ns.iter().copied().max().unwrap_or(0),
    )
}

#[expect(clippy::print_stdout, reason = "a program that prints its results")]
fn main() {
    let mut arguments = std::env::args().skip(1);
    let keys: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let layout = match arguments.next().as_deref() {
        Some("per-slot") => Layout::PerSlot(OwnSlots::ALL),
        _ => Layout::Single,
    };
    let mut insertions = vec![u32::MAX; keys];
    let mut slices = vec![u32::MAX; keys / (SLICE / 2) + 2];
    let mut flush = u32::MAX;
    for round in 0..ROUNDS {
        let options = KeyspaceOptions {
            databases: 1,
            layout,
            hasher: KeyHasher::new(42),
            slot_of,
        };
        let mut keyspace = Keyspace::new(options);
        let (resident, balance) = (resident_bytes(), memory::thread_balance());
        for (n, quickest) in insertions.iter_mut().enumerate() {
            let name = format!("key:{n:012}");
            let key = keyspace.key(name.as_bytes());
            let database = keyspace.database_mut(0);
            timed(quickest, || {
                database.set_string(&key, &[b'v'; 32], Expiry::Clear, 0);
            });
        }
        if round == 0 {
            let per_key = |bytes: usize| bytes as f64 / keys as f64;
            let stats = keyspace.database(0).table_stats();
            println!("{keys} keys, {layout:?}");
            println!("resident {:.2} bytes a key", per_key(resident_bytes() - resident));
            println!(
                "counted  {:.2} bytes a key",
                per_key((memory::thread_balance() - balance) as usize)
            );
            println!("table    {:.2} bytes a key", per_key(stats.bytes));
        }
        timed(&mut flush, || keyspace.flush_all());
        for quickest in &mut slices {
            if timed(quickest, || keyspace.release(SLICE)) == 0 {
                break;
            }
        }
    }
    slices.retain(|ns| *ns < u32::MAX);
    let (mean, max) = summary(&insertions);
    println!("insertion: {mean} ns, the slowest {max} ns");
    let (mean, max) = summary(&slices);
    println!(
        "flush: {flush} ns, then {} slices of {mean} ns, the slowest {max} ns",
        slices.len()
    );
}
