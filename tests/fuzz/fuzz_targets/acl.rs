//! Fuzzes what takes bytes for the rules of users and for files of users. What is checked is in `src/acl.rs`; the first byte chooses.

#![no_main]

#[path = "../src/acl.rs"]
mod acl;

use std::path::PathBuf;
use std::sync::OnceLock;

use shardis::Server;

fn server() -> &'static (Server, PathBuf) {
    static SERVER: OnceLock<(Server, PathBuf)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("shardis-fuzz-acl-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        (acl::start(&directory), directory)
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (server, directory) = server();
    match data.split_first() {
        Some((choice, rules)) if choice % 2 == 0 => acl::check_rules(server, rules),
        Some((_, file)) => acl::check_file(server, directory, file),
        None => {}
    }
});
