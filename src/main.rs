//! The command line: parse, settle what was meant, run, exit code.

use std::process::ExitCode;

/// Buffers of connections are taken and given back a thousand times a second: the system's allocator hands their memory back
/// to the kernel each time, and the kernel fills it with zeros again (`benches/README.md`).
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let args = match snapferry::cli::args::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(code) => return code,
    };
    snapferry::cli::run(args)
}
