//! `shardis-server`: the program. Everything it does is in the library; here argv becomes an exit code.

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
