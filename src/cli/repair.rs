//! `snapferry repair`.

use tokio_util::sync::CancellationToken;

use super::options::{CopyingArgs, PlanningArgs};
use super::output::{Output, size};
use super::verify::{base_blob, differing, source};
use super::{progress, settings};
use crate::error::Result;
use crate::progress::Progress;
use crate::repair::{self, RepairJob, RepairReport};
use crate::restore::point::Which;
use crate::step::Settings;

pub(super) const HELP: &str = "\
Compares the base blob with the snapshot that it is clean at, or with the record of its newest point, writes what differs,
and seals a new point, which stands for the newest one. The right bytes come from the snapshot, or from a point in which
the record finds them. Points are snapshots and cannot be changed: a rotten point stays rotten.

Ended in the middle, the base blob is torn: run the same command again, or give it up with snapferry rollback.

Examples:
  snapferry repair --target 'https://backups.blob.core.windows.net/disks/web-1' --source @monday.sas --dry-run
  snapferry repair --target 'https://backups...' --source @monday.sas
  snapferry repair --target 'https://backups...' --from-point 2026-02-01T00:00:00.1234567Z
  snapferry repair --target 'https://backups...' --source @monday.sas --record";

/// What is repaired, and from where.
#[derive(clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct RepairArgs {
    /// The base blob: URL with a SAS, or without one to sign in with Entra (URL, @FILE or -)
    #[arg(long, env = "SNAPFERRY_TARGET", hide_env_values = true, value_name = "URL")]
    pub target: String,
    /// SAS URL of the snapshot that the base blob is clean at (URL, @FILE or -)
    #[arg(long, env = "SNAPFERRY_SOURCE", hide_env_values = true, value_name = "URL")]
    pub source: Option<String>,
    /// A point that has the right bytes: its time, or the time, name or ARM id of its source snapshot
    #[arg(long, value_name = "POINT", conflicts_with = "source")]
    pub from_point: Option<Which>,
    /// Write the record anew, of all that the base blob holds once it is right
    #[arg(long, conflicts_with = "from_point")]
    pub record: bool,
    /// Make the new record of a point that no source proves
    #[arg(long, requires = "record", conflicts_with = "source")]
    pub trust_point: bool,
    /// Only say what differs
    #[arg(long)]
    pub dry_run: bool,
    /// Take a source at another host for the one of the point when nothing but the host speaks against it
    #[arg(long)]
    pub across_hosts: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub planning: PlanningArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub copying: CopyingArgs,
}

pub(super) async fn repair(args: Box<RepairArgs>, output: Output, cancel: &CancellationToken) -> Result<()> {
    let settings = Settings {
        across_hosts: args.across_hosts,
        ..settings::copy_settings(&args.planning, &args.copying)?
    };
    let job = RepairJob {
        target: base_blob(&args.target, &args.planning)?,
        source: source(args.source.as_deref(), &args.planning)?,
        from_point: args.from_point,
        record: args.record,
        trust_point: args.trust_point,
        dry_run: args.dry_run,
    };
    let needs_sign_in =
        !job.target.is_signed() || job.source.as_ref().is_some_and(|source| !source.is_signed());
    let client = settings::client(&args.planning, needs_sign_in)?;
    let counters = Progress::default();
    let work = repair::repair(&job, &client, &settings, &counters, cancel);
    let (report, course) = progress::observed(&counters, output.progress, work).await;
    let report = report?;
    output.observed(&report, &describe(&report), &course)
}

fn describe(report: &RepairReport) -> String {
    let mut lines = vec![match report.outcome {
        "whole" => "nothing to do: the base blob is right".to_owned(),
        "seal-finished" => {
            "what was begun before was written to its end, and is sealed now: run it again to look".to_owned()
        }
        "would-repair" => {
            format!("would repair  {} in {} ranges", size(report.bytes_repaired), report.differing_ranges)
        }
        _ => format!("repaired      {} in {} ranges", size(report.bytes_repaired), report.differing_ranges),
    }];
    lines.extend(differing(&report.differences, report.differing_ranges));
    lines.push(format!("record        {}", report.record));
    lines.push(format!("stood at      {}", report.repairs));
    if let Some(point) = &report.point {
        lines.push(format!("new point     {} of {}", point.point, point.source));
    }
    lines.push(format!(
        "compared      {} in {:.1} s with {} requests",
        size(report.bytes_compared),
        report.seconds,
        report.requests
    ));
    lines.join("\n")
}
