//! The command line: parse, settle what was meant, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match snapferry::cli::args::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(code) => return code,
    };
    snapferry::cli::run(args)
}
