//! `shardis-server`: the program. The library does everything; this file turns arguments into an exit code.

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: shardis_storage::memory::Jemalloc = shardis_storage::memory::Jemalloc;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    ExitCode::from(shardis::program::run(&args))
}
