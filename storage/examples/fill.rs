//! Fills a database with keys of 16 bytes and values of 32 and tells what that costs: resident memory and table bytes a
//! key, the slowest insertion, the pace of a flush. `cargo run --release --example fill [keys] [single|per-slot]`.

use std::time::{Duration, Instant};

use shardis_storage::key::KeyHasher;
use shardis_storage::keyspace::{Expiry, Keyspace, KeyspaceOptions, Layout};
use shardis_storage::memory;

fn slot_of(key: &[u8]) -> u16 {
    // Any even spread does for this purpose.
    (KeyHasher::new(1).hash(key) % 16384) as u16
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok())
        .unwrap_or(0)
        * 4096
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::print_stdout, reason = "a program that prints its results")]
fn main() {
    let mut arguments = std::env::args().skip(1);
    let keys: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let layout = match arguments.next().as_deref() {
        Some("per-slot") => Layout::PerSlot,
        _ => Layout::Single,
    };
    let options = KeyspaceOptions {
        databases: 1,
        layout,
        hasher: KeyHasher::new(42),
        slot_of,
    };
    let mut keyspace = Keyspace::new(options);
    let (resident, balance) = (resident_bytes(), memory::thread_balance());

    let mut worst = Vec::new();
    let begin = now();
    for n in 0..keys {
        let name = format!("key:{n:012}");
        let key = keyspace.key(name.as_bytes());
        let before = now();
        keyspace
            .database_mut(0)
            .set_string(&key, &[b'v'; 32], Expiry::Clear, 0);
        worst.push((before.elapsed(), n));
        if worst.len() == 10_000 {
            worst.sort_by(|a, b| b.cmp(a));
            worst.truncate(5);
        }
    }
    worst.sort_by(|a, b| b.cmp(a));
    worst.truncate(5);
    let per_key = |bytes: usize| bytes as f64 / keys as f64;
    println!(
        "{keys} keys, {layout:?}: {:.0} ns an insertion",
        begin.elapsed().as_nanos() as f64 / keys as f64
    );
    println!(
        "resident  {:6.2} bytes a key",
        per_key(resident_bytes() - resident)
    );
    println!(
        "counted   {:6.2} bytes a key",
        per_key((memory::thread_balance() - balance) as usize)
    );
    let stats = keyspace.database(0).table_stats();
    println!(
        "table     {:6.2} bytes a key ({} buckets, {} overflow)",
        per_key(stats.bytes),
        stats.buckets,
        stats.overflow_buckets
    );
    println!("slowest insertions (duration, number): {worst:?}");

    let before = now();
    keyspace.database_mut(0).flush();
    let flush = before.elapsed();
    let (mut slowest, mut slices, begin) = (Duration::ZERO, 0, now());
    loop {
        let before = now();
        let left = keyspace.release(4096);
        slowest = slowest.max(before.elapsed());
        slices += 1;
        if left == 0 {
            break;
        }
    }
    println!(
        "flush {flush:?}, then freed in {:?}: {slices} slices, the slowest {slowest:?}",
        begin.elapsed()
    );
}
