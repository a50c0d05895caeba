//! Time to write a reply.

#![allow(missing_docs, reason = "the harness generates public items")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use shardis_protocol::{Encoder, Resp};

fn encode(criterion: &mut Criterion) {
    let mut out = Vec::with_capacity(1 << 16);
    let mut bench = |name: &str, write: &dyn Fn(&mut Encoder<'_>)| {
        criterion.bench_function(&format!("encode/{name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                write(&mut Encoder::new(&mut out, black_box(Resp::V3)));
                black_box(out.len())
            });
        });
    };
    bench("ok", &|encoder| encoder.ok());
    bench("integer 7", &|encoder| encoder.integer(black_box(7)));
    bench("integer 123456789", &|encoder| {
        encoder.integer(black_box(123_456_789));
    });
    bench("bulk of 64 B", &|encoder| encoder.bulk(black_box(&[b'x'; 64])));
    bench("bulk of 1 KiB", &|encoder| encoder.bulk(black_box(&[b'x'; 1024])));
    bench("double 0.1", &|encoder| encoder.double(black_box(b"0.1")));
    bench("array of 100 bulks of 16 B, deferred", &|encoder| {
        let array = encoder.deferred_array(100);
        for _ in 0..100 {
            encoder.bulk(black_box(b"key:000000000001"));
        }
        encoder.close(array, 100);
    });
}

criterion_group!(benches, encode);
criterion_main!(benches);
