//! Fuzzes what takes bytes for a pack or an intset. What is checked is in `src/listpack.rs`.

#![no_main]

#[path = "../src/listpack.rs"]
mod listpack;

libfuzzer_sys::fuzz_target!(|data: &[u8]| listpack::check(data));
