//! Fuzzes a node of a cluster with packets. What is checked is in `src/bus_packet.rs`.

#![no_main]

#[path = "../src/bus_packet.rs"]
mod bus_packet;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bus_packet::check(data));
