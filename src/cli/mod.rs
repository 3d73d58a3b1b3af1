//! What a person types and sees. One file a command; nothing in here is known to the engine.

mod access;
pub mod args;
pub mod bench;
mod bench_args;
mod bench_emulator;
mod bench_text;
mod compare;
mod copy;
mod demo;
mod demo_disk;
mod demo_restore;
mod emulate;
mod forecast;
mod logs;
mod managed_copy;
mod manager;
pub mod options;
mod output;
pub mod points;
pub mod profile;
mod progress;
pub mod repair;
mod report;
pub mod restore;
pub mod restore_disk;
mod rollback;
pub mod scrub;
mod settings;
pub mod sync;
mod target;
pub mod verify;
mod whole_file;

use std::process::ExitCode;

use args::{Args, Command};
use output::Output;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};

/// Runs a command that was parsed.
pub fn run(args: Args) -> ExitCode {
    let output = Output::new(args.output, args.quiet);
    let result = logs::start(args.verbose, args.quiet).and_then(|()| start(args, output));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn start(args: Args, output: Output) -> Result<()> {
    settings::refuse_unknown_environment()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(ErrorKind::Internal, "start the runtime", error.to_string()))?;
    runtime.block_on(async {
        let cancel = end_on_signal();
        match args.command {
            Command::Copy(copy) => copy::copy(copy, output, &cancel).await,
            // What only looks can be left at any moment.
            Command::Plan(plan) => unless(&cancel, copy::plan(plan, output)).await,
            Command::Sync(sync) => sync::sync(sync, output, &cancel).await,
            Command::Prices => sync::prices(),
            Command::Verify(args) => verify::verify(args, output, &cancel).await,
            Command::Repair(args) => repair::repair(args, output, &cancel).await,
            Command::Scrub(args) => scrub::scrub(args, output, &cancel).await,
            Command::Rollback(rollback) => rollback::rollback(rollback, output, &cancel).await,
            Command::Restore(restore) => restore::restore(restore, output, &cancel).await,
            Command::Points(points) => points::points(*points, output, &cancel).await,
            Command::Status(target) => unless(&cancel, target::status(target, output)).await,
            Command::ManagedCopy(args) => managed_copy::managed_copy(*args, output, &cancel).await,
            Command::Access(args) => access::access(args, output, &cancel).await,
            Command::Compare(args) => compare::compare(&args, output),
            Command::Bench(args) => bench::bench(*args, output, &cancel).await,
            Command::Demo(demo) => demo::demo(demo, output, &cancel).await,
            Command::Emulate(emulate) => emulate::emulate(emulate, output, &cancel).await,
        }
    })
}

async fn unless<T>(cancel: &CancellationToken, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        result = work => result,
        () = cancel.cancelled() => Err(Error::new(ErrorKind::Interrupted, "finish looking", "interrupted")),
    }
}

/// The first Ctrl-C (or SIGTERM) ends the work cleanly, the second at once.
fn end_on_signal() -> CancellationToken {
    let cancel = CancellationToken::new();
    let asked = cancel.clone();
    tokio::spawn(async move {
        wait_for_signal().await;
        asked.cancel();
        output::say("ending cleanly; once more ends at once");
        wait_for_signal().await;
        std::process::exit(i32::from(ErrorKind::Interrupted.exit_code()));
    });
    cancel
}

#[cfg(unix)]
async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    // A terminal that is closed ends the work as cleanly, unless it was started to outlive it (nohup).
    let mut hangup = if is_hangup_ignored() { None } else { signal(SignalKind::hangup()).ok() };
    let hung_up = async {
        match &mut hangup {
            Some(hangup) => hangup.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = tokio::signal::ctrl_c() => if result.is_err() { std::future::pending::<()>().await },
        _ = terminate.recv() => {}
        _ = hung_up => {}
    }
}

/// Linux shows which signals a process ignores; elsewhere it is not asked for.
#[cfg(unix)]
fn is_hangup_ignored() -> bool {
    const SIGHUP: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask & SIGHUP != 0)
}

#[cfg(not(unix))]
async fn wait_for_signal() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
