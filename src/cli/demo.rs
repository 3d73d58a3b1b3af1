//! `snapferry demo`: the main job on this machine alone, over real HTTP, with the proof that it is right.

use std::time::Duration;

use serde::Serialize;
use snapferry_emulator::{Account, Config, DiskSnapshot, Emulator};
use tokio_util::sync::CancellationToken;

use super::args::DemoArgs;
use super::demo_disk::DemoDisk;
use super::output::{Output, size};
use super::progress;
use crate::azure::{Client, PageBlob, PlainHttp, Resource, RetryPolicy, Role, Timeouts};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use crate::replicate::replicate;
use crate::step::{Report, Settings, Step};
use crate::verify::compare;

const MIB: u64 = 1 << 20;
const SMALLEST: u64 = 16 * MIB;
/// Both regions hold the disk in memory.
const LARGEST: u64 = 16 << 30;
const CONTAINER: &str = "disks";
const BASE_BLOB: &str = "demo-disk";

#[derive(Serialize)]
struct DemoReport {
    steps: Vec<DemoStep>,
    identical: bool,
}

#[derive(Serialize)]
struct DemoStep {
    from: Option<String>,
    to: String,
    length: u64,
    bytes_changed: u64,
    bytes_cleared: u64,
    bytes_sent: u64,
    requests: u64,
    seconds: f64,
    point: String,
    digest: String,
    identical: bool,
}

pub(super) async fn demo(args: DemoArgs, output: Output, cancel: &CancellationToken) -> Result<()> {
    if !(SMALLEST..=LARGEST).contains(&args.size) || !args.size.is_multiple_of(MIB) {
        let why = format!(
            "{} is not a whole number of MiB from {} to {}, and both regions hold the disk in memory",
            size(args.size),
            size(SMALLEST),
            size(LARGEST)
        );
        return Err(Error::new(ErrorKind::Usage, "use --size", why).next("snapferry demo --size 1GiB"));
    }
    let source_region = start().await?;
    let target_region = start().await?;
    let target = target_region.account("target");
    target.create_container(CONTAINER);
    output.line(&format!(
        "source region   {} (a managed disk of {})",
        source_region.endpoint(),
        size(args.size)
    ))?;
    output.line(&format!("target region   {}\n", target_region.endpoint()))?;

    let disk = source_region.create_disk("demo", args.size).map_err(demo_error)?;
    let mut disk = blocking(move || DemoDisk::fill(disk)).await?;
    let mut snapshots = vec![disk.disk().snapshot()];
    disk = blocking(move || disk.use_for_a_day().map(|()| disk)).await?;
    snapshots.push(disk.disk().snapshot());
    disk = blocking(move || disk.grow().map(|()| disk)).await?;
    snapshots.push(disk.disk().snapshot());

    let mut steps = Vec::new();
    let mut previous: Option<&DiskSnapshot> = None;
    for snapshot in &snapshots {
        let step = cross(snapshot, previous, &target, output, cancel).await?;
        output.line(&describe(steps.len() + 1, &step))?;
        steps.push(step);
        previous = Some(snapshot);
    }
    let identical = steps.iter().all(|step| step.identical);
    output.result(
        &DemoReport { steps, identical },
        "\nevery point was read back over HTTP and equals its snapshot, byte for byte",
    )?;
    if identical {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::Corruption, "finish the demo", "a point differs from its snapshot"))
    }
}

/// Copies one snapshot, then reads it and its point back and compares them.
async fn cross(
    snapshot: &DiskSnapshot,
    previous: Option<&DiskSnapshot>,
    target: &Account,
    output: Output,
    cancel: &CancellationToken,
) -> Result<DemoStep> {
    const HOUR: Duration = Duration::from_hours(1);
    let url = |role, text: &str| Resource::parse(role, text, PlainHttp::LoopbackOnly);
    let step = Step {
        source: url(Role::Source, &snapshot.grant())?,
        previous: previous.map(|previous| url(Role::Previous, &previous.grant())).transpose()?,
        target: url(Role::Target, &target.container_sas(CONTAINER, BASE_BLOB, "rcwdl", HOUR))?,
        origin: None,
    };
    let client = Client::new(Timeouts::default(), RetryPolicy::default(), None)?;
    let counters = Progress::default();
    let settings = Settings::default();
    let work = replicate(&step, &client, &settings, &counters, cancel);
    let report = progress::show(&counters, output.progress, work).await?;
    let source = PageBlob::connect(step.source.clone(), &client)?;
    let point = PageBlob::connect(step.target.at_snapshot(&report.point.point), &client)?;
    let comparison = tokio::select! {
        comparison = compare(&source, &point, 8) => comparison?,
        () = cancel.cancelled() => return Err(Error::new(ErrorKind::Interrupted, "compare the point", "interrupted")),
    };
    Ok(summary(report, comparison.identical))
}

fn summary(report: Report, identical: bool) -> DemoStep {
    DemoStep {
        from: report.from,
        to: report.to,
        length: report.length,
        bytes_changed: report.totals.bytes_changed,
        bytes_cleared: report.totals.bytes_cleared,
        bytes_sent: report.bytes_sent,
        requests: report.requests,
        seconds: report.seconds,
        point: report.point.point,
        digest: report.point.digest,
        identical,
    }
}

fn describe(number: usize, step: &DemoStep) -> String {
    let kind = if step.from.is_some() { "difference" } else { "full copy" };
    let verdict = if step.identical { "identical" } else { "DIFFERENT" };
    format!(
        "snapshot {number}  {kind:<10}  {:>10} of {} changed, {:>10} sent in {:.2} s with {} requests  ->  point {}: {verdict}",
        size(step.bytes_changed),
        size(step.length),
        size(step.bytes_sent),
        step.seconds,
        step.requests,
        step.point,
    )
}

async fn start() -> Result<Emulator> {
    Emulator::start(Config::default()).await.map_err(demo_error)
}

/// Filling a disk computes for a while: not on the threads that serve sockets.
async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(demo_error)?.map_err(demo_error)
}

fn demo_error(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, "set up the emulated regions", error.to_string())
}
