//! Time to find the slot of a key.

#![allow(missing_docs, reason = "the harness generates public items")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use shardis_cluster::slot_of;

fn slots(criterion: &mut Criterion) {
    for (name, key) in [
        ("8 bytes", &b"key:0001"[..]),
        ("16 bytes", b"key:000000000001"),
        ("64 bytes", &[b'k'; 64]),
        ("tag of 8 in 32 bytes", b"prefix:{user1000}:following:0001"),
    ] {
        criterion.bench_function(&format!("slot_of/{name}"), |bencher| {
            bencher.iter(|| slot_of(black_box(key)));
        });
    }
    criterion.bench_function("crc16 crate/16 bytes", |bencher| {
        bencher.iter(|| crc16::State::<crc16::XMODEM>::calculate(black_box(b"key:000000000001")));
    });
}

criterion_group!(benches, slots);
criterion_main!(benches);
