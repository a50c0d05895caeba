//! Look-ups, writes, insertions and removals in a database of a million keys of 16 bytes with values of 32.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shardis_storage::key::{Key, KeyHasher};
use shardis_storage::keyspace::{Expiry, Keyspace, KeyspaceOptions, Layout, Lookup, OnExpired, OwnSlots};

const KEYS: usize = 1_000_000;
/// Commands that are prefetched together.
const BATCH: usize = 64;
/// Keys that are inserted or removed before the opposite happens off the clock.
const WAVE: usize = 50_000;

/// Names with their hashes, in an order that has nothing to do with that of insertion.
fn shuffled_names(hasher: &KeyHasher) -> Vec<([u8; 16], u64)> {
    let mut names: Vec<_> = (0..KEYS)
        .map(|n| {
            let mut name = [0; 16];
            name.copy_from_slice(format!("key:{n:012}").as_bytes());
            (name, hasher.hash(&name))
        })
        .collect();
    let order = KeyHasher::new(99);
    names.sort_by_key(|(name, _)| order.hash(name));
    names
}

fn key((name, hash): &([u8; 16], u64)) -> Key<'_> {
    // The slot only matters to the layout by slot; a few of the hash's bits spread as well as a checksum.
    Key {
        bytes: name,
        hash: *hash,
        slot: (*hash >> 20) as u16 % 16384,
    }
}

fn slot_of(_key: &[u8]) -> u16 {
    0
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

fn bench(criterion: &mut Criterion) {
    for layout in [Layout::Single, Layout::PerSlot(OwnSlots::ALL)] {
        bench_layout(criterion, layout);
    }
}

fn bench_layout(criterion: &mut Criterion, layout: Layout) {
    let hasher = KeyHasher::new(42);
    let mut keyspace = Keyspace::new(KeyspaceOptions {
        databases: 1,
        layout,
        hasher,
        slot_of,
    });
    let names = shuffled_names(&hasher);
    let mut order: Vec<&([u8; 16], u64)> = names.iter().collect();
    order.sort();
    let database = keyspace.database_mut(0);
    for name in order {
        database.set_string(&key(name), &[b'v'; 32], Expiry::Clear, 0);
    }

    let mut group = criterion.benchmark_group(format!("1M keys, {layout:?}"));
    group.throughput(Throughput::Elements(1));
    let mut at = 0;
    let mut next = |count: usize| {
        let start = if at + count > KEYS { 0 } else { at };
        at = start + count;
        &names[start..start + count]
    };

    group.bench_function("get", |bencher| {
        bencher.iter(
            || match database.look_up(&key(&next(1)[0]), 0, |clock| clock, |_| OnExpired::Keep) {
                Lookup::Live(entry) => entry.string().map_or(0, |string| string.len()),
                Lookup::Missing | Lookup::Expired => 0,
            },
        );
    });
    group.bench_function("set in place", |bencher| {
        bencher.iter(|| {
            black_box(database.set_string(&key(&next(1)[0]), &[b'w'; 32], Expiry::Clear, 0));
        });
    });
    group.bench_function("remove", |bencher| {
        bencher.iter_custom(|iterations| {
            waves(iterations, |count| {
                let wave = next(count);
                let time = timed(|| {
                    for name in wave {
                        black_box(database.remove(&key(name)));
                    }
                });
                for name in wave {
                    database.set_string(&key(name), &[b'v'; 32], Expiry::Clear, 0);
                }
                time
            })
        });
    });
    group.bench_function("insert", |bencher| {
        bencher.iter_custom(|iterations| {
            waves(iterations, |count| {
                let wave = next(count);
                for name in wave {
                    database.remove(&key(name));
                }
                timed(|| {
                    for name in wave {
                        database.set_string(&key(name), &[b'v'; 32], Expiry::Clear, 0);
                    }
                })
            })
        });
    });
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("get, 64 prefetched", |bencher| {
        bencher.iter(|| {
            let batch = next(BATCH);
            for (_, hash) in batch {
                database.prefetch_bucket(*hash, (*hash >> 20) as u16 % 16384);
            }
            for (_, hash) in batch {
                database.prefetch_entry(*hash, (*hash >> 20) as u16 % 16384);
            }
            for name in batch {
                black_box(database.peek(&key(name)).and_then(|entry| entry.string()));
            }
        });
    });
    group.finish();
}

/// Runs `wave` for so many keys in all, a bounded number at a time, and adds up the times it tells.
fn waves(iterations: u64, mut wave: impl FnMut(usize) -> Duration) -> Duration {
    let (mut left, mut time) = (iterations as usize, Duration::ZERO);
    while left > 0 {
        let count = left.min(WAVE);
        time += wave(count);
        left -= count;
    }
    time
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1));
    targets = bench
}
criterion_main!(benches);
