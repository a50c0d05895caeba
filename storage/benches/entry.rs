//! Costs of one entry, in a table so small that everything is in the nearest cache.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use shardis_storage::key::KeyHasher;
use shardis_storage::keyspace::{Expiry, Keyspace, KeyspaceOptions, Layout, Lookup, OnExpired};

fn bench(criterion: &mut Criterion) {
    let options = KeyspaceOptions {
        databases: 1,
        layout: Layout::Single,
        hasher: KeyHasher::new(1),
        slot_of: |_| 0,
    };
    let mut keyspace = Keyspace::new(options);
    let hasher = *keyspace.hasher();
    let name = *b"key:000000000042";
    let key = hasher.key(&name, 0);
    let database = keyspace.database_mut(0);

    criterion.bench_function("hash of 16 bytes", |bencher| {
        bencher.iter(|| hasher.hash(black_box(&name)));
    });
    for (label, value) in [
        ("32 bytes", vec![b'v'; 32]),
        ("integer", b"12345".to_vec()),
        ("4 KiB", vec![b'v'; 4096]),
    ] {
        criterion.bench_function(&format!("set, {label}"), |bencher| {
            bencher.iter(|| {
                database.set_string(&key, black_box(&value), Expiry::Clear, 0);
            });
        });
        criterion.bench_function(&format!("get, {label}"), |bencher| {
            bencher.iter(
                || match database.look_up(black_box(&key), 0, |clock| clock, |_| OnExpired::Keep) {
                    Lookup::Live(entry) => entry.string().map_or(0, |string| string.len()),
                    Lookup::Missing | Lookup::Expired => 0,
                },
            );
        });
    }
    let mut expiry = None;
    criterion.bench_function("set and clear an expiry", |bencher| {
        bencher.iter(|| {
            expiry = if expiry.is_none() { Some(1) } else { None };
            database.set_expiry(&key, expiry)
        });
    });
    criterion.bench_function("create and remove", |bencher| {
        bencher.iter(|| {
            database.remove(&key);
            database.set_string(&key, black_box(&[b'v'; 32]), Expiry::Clear, 0);
        });
    });
    let mut len = 0;
    criterion.bench_function("append a byte, restarting at 64 KiB", |bencher| {
        bencher.iter(|| {
            len += 1;
            if len > 65536 {
                database.remove(&key);
                len = 1;
            }
            database.string_mut(&key, len, 0)[len - 1] = b'x';
        });
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
