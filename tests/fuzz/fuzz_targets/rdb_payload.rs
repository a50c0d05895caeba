//! Fuzzes what takes bytes for a value that RESTORE brings. What is checked is in `src/rdb.rs`.

#![no_main]

#[path = "../src/rdb.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod rdb;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rdb::check_payload(data));
