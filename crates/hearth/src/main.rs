//! The `hearth` program.

use std::process::ExitCode;

/// Returns memory to the system, and tells fragmentation from use: a server lives long.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    hearth::cli::main()
}
