//! Time to find the arguments of a request.

#![allow(missing_docs, reason = "the harness generates public items")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shardis_protocol::{Limits, RequestParser, Requests};

fn request(arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn parse(criterion: &mut Criterion) {
    let get = request(&[b"GET", b"key:000000000001"]);
    let set = request(&[b"SET", b"key:000000000001", &[b'x'; 64]]);
    let pairs: Vec<&[u8]> = [&b"key:000000000001"[..], b"value"].repeat(10);
    let mset = request(&[&[&b"MSET"[..]], &pairs[..]].concat());
    let pipeline = get.repeat(100);
    let inline = b"SET key:000000000001 \"a value\"\r\n".to_vec();
    let limits = Limits::default();
    for (name, bytes) in [
        ("GET", get),
        ("SET 64 B", set.clone()),
        ("MSET of 10", mset),
        ("pipeline of 100", pipeline),
    ] {
        let mut group = criterion.benchmark_group("parse");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let (mut parser, mut out, mut input) = (RequestParser::new(), Requests::new(), bytes);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                parser.parse(black_box(&mut input), 0, &limits, &mut out, usize::MAX)
            });
        });
    }
    criterion.bench_function("parse/inline", |bencher| {
        let (mut parser, mut out, mut input) = (RequestParser::new(), Requests::new(), inline.clone());
        bencher.iter(|| {
            out.clear();
            // Unescaping shortens a word, so each turn begins with the text as it was typed.
            input.copy_from_slice(&inline);
            parser.parse(black_box(&mut input), 0, &limits, &mut out, usize::MAX)
        });
    });
    criterion.bench_function("parse/SET 64 B, a byte at a time", |bencher| {
        let (mut parser, mut out, mut input) = (RequestParser::new(), Requests::new(), set.clone());
        bencher.iter(|| {
            out.clear();
            for end in 1..=input.len() {
                black_box(parser.parse(black_box(&mut input[..end]), 0, &limits, &mut out, usize::MAX)).ok();
            }
        });
    });
}

criterion_group!(benches, parse);
criterion_main!(benches);
