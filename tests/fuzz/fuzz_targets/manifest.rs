//! Fuzzes what takes bytes for the manifest of an append-only file. What is checked is in `src/manifest.rs`.

#![no_main]

#[path = "../src/manifest.rs"]
mod manifest;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let directory = std::env::temp_dir().join(format!("shardis-fuzz-manifest-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir(&directory).expect("a directory");
    manifest::check(&directory, data);
});
