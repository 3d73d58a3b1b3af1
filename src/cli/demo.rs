//! `snapferry demo`: a disk's chain crosses between two regions on this machine, over real HTTP: `snapferry sync` is
//! killed in its middle, another one goes on, every point is proven to equal its snapshot, and two are restored to files.

use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use snapferry_emulator::{Account, Call, Config, DiskSnapshot, Emulator};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::args::DemoArgs;
use super::demo_disk::DemoDisk;
use super::demo_restore::{self, Restored};
use super::output::{Output, size};
use crate::azure::{Client, PageBlob, PlainHttp, Resource, RetryPolicy, Role, Timeouts};
use crate::error::{Error, ErrorKind, Result};
use crate::verify::compare;

const MIB: u64 = 1 << 20;
const SMALLEST: u64 = 16 * MIB;
/// Both regions hold the disk in memory.
const LARGEST: u64 = 16 << 30;
const CONTAINER: &str = "disks";
const BASE_BLOB: &str = "demo-disk";
const HOUR: Duration = Duration::from_hours(1);
/// After this the lease of a dead writer has lapsed.
const LEASE_LAPSES: Duration = Duration::from_secs(61);

#[derive(Serialize)]
struct DemoReport {
    /// Whether the first run was killed before it was done.
    killed: bool,
    /// The byte from which the second run went on.
    resumed_from: Option<u64>,
    points: Vec<DemoPoint>,
    restored: Vec<Restored>,
    identical: bool,
}

#[derive(Serialize)]
struct DemoPoint {
    snapshot: String,
    point: String,
    length: u64,
    bytes_sent: u64,
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
    let source = start().await?;
    let target = start().await?;
    let account = target.account("target");
    account.create_container(CONTAINER);
    output.line(&format!("source region   {} (a managed disk of {})", source.endpoint(), size(args.size)))?;
    output.line(&format!("target region   {}", target.endpoint()))?;
    let (disk_id, snapshots) = make_snapshots(&source, args.size).await?;

    let stage = Stage { source: &source, target: &target, account: &account, disk_id, output };
    output.line("\nsnapferry sync  copies the chain, and is killed in its middle")?;
    let killed = stage.run_and_kill(cancel).await?;
    output.line(if killed {
        "killed          the base blob says that it is torn; the emulated clock is moved on by a minute, and the dead writer's lease lapses\n"
    } else {
        "not killed      it was done before that\n"
    })?;
    target.advance_clock(LEASE_LAPSES);
    output.line(
        "snapferry sync  the same command, in another directory, with nothing but the target to go by",
    )?;
    let report = stage.run(cancel).await?;
    let resumed_from =
        report["steps"].as_array().into_iter().flatten().find_map(|step| step["resumed_from"].as_u64());
    if let Some(offset) = resumed_from {
        output.line(&format!("resumed         from byte {offset}\n"))?;
    }
    let points = stage.compare(&snapshots, cancel).await?;
    let restored = stage.restore(&points, &snapshots, cancel).await?;
    let identical = points.len() == snapshots.len()
        && points.iter().all(|point| point.identical)
        && restored.iter().all(|restored| restored.identical);
    output.result(
        &DemoReport { killed, resumed_from, points, restored, identical },
        if identical {
            "\nevery point was read back over HTTP and equals its snapshot, byte for byte; so do the restored files"
        } else {
            "\nthe points are NOT what they should be"
        },
    )?;
    if identical {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::Corruption,
            "finish the demo",
            "a point is missing or differs from its snapshot",
        ))
    }
}

/// A disk with some life in it, as it was on three days; on the third it had grown.
async fn make_snapshots(source: &Emulator, bytes: u64) -> Result<(String, Vec<DiskSnapshot>)> {
    let disk = source.create_disk("demo", bytes).map_err(demo_error)?;
    let id = disk.arm_id();
    let mut disk = blocking(move || DemoDisk::fill(disk)).await?;
    let mut snapshots = vec![disk.disk().snapshot()];
    disk = blocking(move || disk.use_for_a_day().map(|()| disk)).await?;
    snapshots.push(disk.disk().snapshot());
    disk = blocking(move || disk.grow().map(|()| disk)).await?;
    snapshots.push(disk.disk().snapshot());
    Ok((id, snapshots))
}

struct Stage<'a> {
    source: &'a Emulator,
    target: &'a Emulator,
    account: &'a Account,
    disk_id: String,
    output: Output,
}

impl Stage<'_> {
    /// Kills the run once it has written some, and a checkpoint says so.
    async fn run_and_kill(&self, cancel: &CancellationToken) -> Result<bool> {
        const SOME: u64 = 3;
        let mut child = self.start()?;
        let far_enough = async {
            while self.target.stats().of(Call::PutPage).requests < SOME || self.checkpoint() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = far_enough => {}
            ended = child.wait() => {
                let ended = ended.map_err(demo_error)?;
                return if ended.success() { Ok(false) } else { Err(demo_error(format!("snapferry sync ended with {ended}"))) };
            }
            () = cancel.cancelled() => return Err(interrupted()),
        }
        child.kill().await.map_err(demo_error)?;
        Ok(true)
    }

    /// Runs it to its end, and gives its report.
    async fn run(&self, cancel: &CancellationToken) -> Result<Value> {
        let child = self.start()?;
        let ended = tokio::select! {
            ended = child.wait_with_output() => ended.map_err(demo_error)?,
            () = cancel.cancelled() => return Err(interrupted()),
        };
        if !ended.status.success() {
            return Err(demo_error(format!("snapferry sync ended with {}", ended.status)));
        }
        serde_json::from_slice(&ended.stdout).map_err(demo_error)
    }

    /// The program itself, as a person would start it.
    fn start(&self) -> Result<Child> {
        let (identity_endpoint, identity_header) = self.source.arm().identity();
        let mut command = Command::new(std::env::current_exe().map_err(demo_error)?);
        command
            .args(["sync", "--output", "json", "--login-type", "msi", "--checkpoint-every", "20ms"])
            .args(["--disk", &self.disk_id, "--arm-endpoint", &self.source.arm().endpoint()])
            .env("SNAPFERRY_TARGET", self.account.container_sas(CONTAINER, BASE_BLOB, "rcwdl", HOUR))
            .env("IDENTITY_ENDPOINT", identity_endpoint)
            .env("IDENTITY_HEADER", identity_header)
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        if !self.output.progress {
            command.arg("--quiet");
        }
        command.spawn().map_err(demo_error)
    }

    fn checkpoint(&self) -> u64 {
        let base = self.account.read_blob(CONTAINER, BASE_BLOB, None);
        base.and_then(|base| base.metadata().get("snapferry_checkpoint")?.parse().ok()).unwrap_or_default()
    }

    /// The oldest and the newest point, as files.
    async fn restore(
        &self,
        points: &[DemoPoint],
        snapshots: &[DiskSnapshot],
        cancel: &CancellationToken,
    ) -> Result<Vec<Restored>> {
        let pairs: Vec<_> =
            points.iter().map(|point| point.point.clone()).zip(snapshots.iter().cloned()).collect();
        let ends: Vec<_> = [pairs.first(), pairs.last()].into_iter().flatten().cloned().collect();
        let from = self.account.container_sas(CONTAINER, BASE_BLOB, "rl", HOUR);
        demo_restore::restore(&from, &ends, self.output, cancel).await
    }

    /// Reads every point and its snapshot back, and compares them.
    async fn compare(
        &self,
        snapshots: &[DiskSnapshot],
        cancel: &CancellationToken,
    ) -> Result<Vec<DemoPoint>> {
        let client = Client::new(Timeouts::default(), RetryPolicy::default(), None)?;
        let url = |role, text: &str| Resource::parse(role, text, PlainHttp::LoopbackOnly);
        let target = url(Role::Target, &self.account.container_sas(CONTAINER, BASE_BLOB, "rl", HOUR))?;
        let base = PageBlob::connect(target, &client)?;
        let sealed = crate::base::points::points(&base).await?;
        let mut compared = Vec::new();
        for (snapshot, point) in snapshots.iter().zip(sealed) {
            let one = PageBlob::connect(url(Role::Source, &snapshot.grant())?, &client)?;
            let other = base.at_snapshot(&point.point)?;
            let comparison = tokio::select! {
                comparison = compare(&one, &other, 8) => comparison?,
                () = cancel.cancelled() => return Err(interrupted()),
            };
            let verdict = if comparison.identical { "identical" } else { "DIFFERENT" };
            let kind = if point.previous.is_some() { "difference" } else { "full copy" };
            self.output.line(&format!(
                "{:<15} {kind:<10}  {:>10} sent of {:>10}  ->  point {}: {verdict}",
                snapshot.name(),
                size(point.bytes_sent),
                size(point.length),
                point.point
            ))?;
            compared.push(DemoPoint {
                snapshot: snapshot.name().to_owned(),
                point: point.point,
                length: point.length,
                bytes_sent: point.bytes_sent,
                identical: comparison.identical,
            });
        }
        Ok(compared)
    }
}

async fn start() -> Result<Emulator> {
    Emulator::start(Config::default()).await.map_err(demo_error)
}

/// Filling a disk computes for a while: not on the threads that serve sockets.
pub(super) async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(demo_error)?.map_err(demo_error)
}

pub(super) fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "finish the demo", "interrupted").next("snapferry demo")
}

pub(super) fn demo_error(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, "show the demo", error.to_string())
}
