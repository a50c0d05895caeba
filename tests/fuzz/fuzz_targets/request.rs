//! Fuzzes the request parser. What is checked is in `src/request.rs`.

#![no_main]

#[path = "../src/request.rs"]
mod request;

libfuzzer_sys::fuzz_target!(|data: &[u8]| request::check(data));
