//! Fuzzes HyperLogLog values. What is checked is in `src/hyperloglog.rs`.

#![no_main]

#[path = "../src/hyperloglog.rs"]
mod hyperloglog;

libfuzzer_sys::fuzz_target!(|data: &[u8]| hyperloglog::check(data));
