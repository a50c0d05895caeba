//! Fuzzes what takes bytes for an append-only file. What is checked is in `src/aof.rs`.

#![no_main]

#[path = "../src/aof.rs"]
mod aof;

libfuzzer_sys::fuzz_target!(|data: &[u8]| aof::check(&std::env::temp_dir(), data));
