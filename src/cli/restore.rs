//! `snapferry restore`.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::copy::{describe as describe_copy, per_second};
use super::options::{CopyingArgs, PlanningArgs};
use super::output::{Output, size};
use super::restore_disk::{DiskArgs, Order, to_disk};
use super::{progress, settings};
use crate::azure::{Client, PlainHttp, Resource, Role};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Format, ImagePath};
use crate::progress::Progress;
use crate::restore::blob::{BlobJob, restore_to_blob};
use crate::restore::file::{FileJob, FileReport, restore_to_file};
use crate::restore::point::Which;
use crate::step::{Settings, Verify};

pub const HELP: &str = "\
Where to:
  file:disk.vhd       a fixed VHD, sparse; file:disk.raw (.img) the bare disk, without a footer
  /dev/sdx            a block device that is at least as large as the disk; zeros are written, too
  https://...         another base blob, of any account: later differences of the disk go on from it
  disk:<ARM id>       a new managed disk

A file grows under a temporary name in its folder, and gets its own when all of it is on the disk. The same command
after a kill goes on. --differential compares what is there with the record of the point (checksums of 4 KiB each), and
moves only what differs.

Examples:
  snapferry restore --from 'https://backups.../web-1.vhd?<SAS>' --to file:web-1.vhd
  snapferry restore --from @base.sas --point 2026-02-01 --to file:web-1.raw
  snapferry restore --from @base.sas --to /dev/sdc --differential
  snapferry restore --from @base.sas --to 'https://elsewhere.../web-1.vhd?<SAS>'
  snapferry restore --from @base.sas --to disk:/subscriptions/.../disks/web-1 --location northeurope";

/// From a point to wherever a disk is wanted.
#[derive(clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct RestoreArgs {
    /// The base blob: URL with a SAS, or without one to sign in with Entra (URL, @FILE or -)
    #[arg(long, env = "SNAPFERRY_FROM", hide_env_values = true, value_name = "URL", alias = "target")]
    pub from: String,
    /// The point: latest, what `snapferry points` shows, the name of its snapshot, or the newest at a time
    #[arg(long, value_name = "ID|TIME", default_value = "latest")]
    pub point: Which,
    /// file:disk.vhd, file:disk.raw, /dev/..., disk:ARM-ID, or the URL of another base blob (URL, @FILE or -)
    #[arg(long, env = "SNAPFERRY_TO", hide_env_values = true, value_name = "WHERE")]
    pub to: String,
    /// Form of a file whose name does not tell: vhd or raw
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// The target holds something like it already: move only what differs
    #[arg(long)]
    pub differential: bool,
    /// Let it take the place of a file or of what a base blob holds
    #[arg(long)]
    pub overwrite: bool,
    /// Do not hold what is restored against the record of the point: for one that is known to be damaged
    #[arg(long)]
    pub unchecked: bool,
    /// Write to a device even if it is mounted or in use
    #[arg(long)]
    pub force: bool,
    /// For a device: keep here how far it came, so that the same command goes on after a kill
    #[arg(long, value_name = "FILE")]
    pub state_file: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub planning: PlanningArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub copying: CopyingArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub disk: DiskArgs,
}

/// What `--to` means.
enum Goal {
    File(ImagePath),
    Blob(Box<Resource>),
    /// The id of a disk.
    Disk(String),
}

pub(super) async fn restore(
    args: Box<RestoreArgs>,
    output: Output,
    cancel: &CancellationToken,
) -> Result<()> {
    if args.from.trim() == "-" && args.to.trim() == "-" {
        return Err(Error::new(
            ErrorKind::Usage,
            "read the URLs",
            "only one of them can come from standard input",
        )
        .next("put the other into a file: --from @FILE"));
    }
    let goal = goal(&args)?;
    let from = settings::resource(Role::Source, &args.from, &args.planning.access)?;
    let settings = settings::copy_settings(&args.planning, &args.copying)?;
    let verify = if args.unchecked { Verify::None } else { settings.verify };
    let settings = Settings { verify, ..settings };
    match goal {
        Goal::File(to) => {
            let client = settings::client(&args.planning, !from.is_signed())?;
            let job = FileJob {
                from,
                which: args.point,
                to,
                differential: args.differential,
                overwrite: args.overwrite,
                force: args.force,
                state_file: args.state_file,
            };
            to_file(&job, &client, &settings, output, cancel).await
        }
        Goal::Disk(id) => {
            // The resource manager takes no SAS.
            let client = settings::client(&args.planning, true)?;
            let plain =
                if args.planning.access.allow_http { PlainHttp::Anywhere } else { PlainHttp::LoopbackOnly };
            let order = Order { base: from, point: args.point, client: &client, settings: &settings, plain };
            to_disk(&args.disk, &id, order, output, cancel).await
        }
        Goal::Blob(to) => {
            let client = settings::client(&args.planning, !(from.is_signed() && to.is_signed()))?;
            let settings = Settings { rebase: args.overwrite, ..settings };
            let job = BlobJob { from, which: args.point, to: *to, differential: args.differential };
            let counters = Progress::default();
            let work = restore_to_blob(&job, &client, &settings, &counters, cancel);
            let (report, course) = progress::observed(&counters, output.progress, work).await;
            let report = report?;
            output.observed(&report, &describe_copy(&report), &course)
        }
    }
}

fn goal(args: &RestoreArgs) -> Result<Goal> {
    let to = args.to.trim();
    if let Some(id) = to.strip_prefix("disk:") {
        if args.format.is_some()
            || args.force
            || args.state_file.is_some()
            || args.differential
            || args.overwrite
        {
            let why = "--format, --force, --state-file, --differential and --overwrite are not for disks: a new one is made";
            return Err(Error::new(ErrorKind::Usage, "restore the point", why)
                .next("leave them out, and name a disk that there is not yet"));
        }
        return Ok(Goal::Disk(id.to_owned()));
    }
    if ImagePath::is_meant(to) {
        return ImagePath::parse(to, args.format).map(Goal::File);
    }
    if args.format.is_some() || args.force || args.state_file.is_some() {
        return Err(Error::new(
            ErrorKind::Usage,
            "restore the point",
            "--format, --force and --state-file are for files and devices",
        )
        .next("--to file:disk.vhd"));
    }
    if to.starts_with('@') || to == "-" || to.starts_with("http") {
        let to = settings::resource(Role::Target, to, &args.planning.access)?;
        return Ok(Goal::Blob(Box::new(to)));
    }
    Err(Error::new(ErrorKind::Usage, "read --to", "it is neither a file, nor a device, nor a URL").next(
        "--to file:disk.vhd, --to /dev/sdx, --to https://<account>.blob.core.windows.net/<container>/<blob>",
    ))
}

async fn to_file(
    job: &FileJob,
    client: &Client,
    settings: &Settings,
    output: Output,
    cancel: &CancellationToken,
) -> Result<()> {
    let counters = Progress::default();
    let work = restore_to_file(job, client, settings, &counters, cancel);
    let (report, course) = progress::observed(&counters, output.progress, work).await;
    let report = report?;
    output.observed(&report, &describe(&report), &course)
}

fn describe(report: &FileReport) -> String {
    let resumed =
        report.resumed_from.map(|offset| format!("\ntaken up at   byte {offset}")).unwrap_or_default();
    format!(
        "restored      {}\npoint         {}\nto            {} (a disk of {}){resumed}\nmoved         {} of data, {} in all, in {:.1} s ({}/s)\nrequests      {}",
        report.source,
        report.point,
        report.to,
        size(report.disk_bytes),
        size(report.bytes_data),
        size(report.bytes),
        report.seconds,
        size(per_second(report.bytes, report.seconds)),
        report.requests,
    )
}
