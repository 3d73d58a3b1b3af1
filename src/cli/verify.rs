//! `snapferry verify`.

use tokio_util::sync::CancellationToken;

use super::options::PlanningArgs;
use super::output::{Output, size};
use super::{progress, settings};
use crate::azure::{Resource, Role};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use crate::restore::point::Which;
use crate::step::Settings;
use crate::verify::{self, Reference, VerifyJob, VerifyReport, Wrong};

pub(super) const HELP: &str = "\
Without --source the point is compared with the checksums that were recorded while it was copied: one for every 4 KiB,
made of the bytes as they came from the source. With --source both are read and compared byte for byte, and where point,
source and record are not all equal, it is told which of them stands alone. Nothing is written.

Percentages are written with their sign, such as 5% or 0.5%. The same seed and chunk size choose the same chunks again.

Examples:
  snapferry verify --target 'https://backups.blob.core.windows.net/disks/web-1'
  snapferry verify --target 'https://backups...' --point 2026-02-01 --sample 5% --seed 7
  snapferry verify --target 'https://backups...' --source @monday.sas
  snapferry verify --target 'https://backups...' --source @monday.sas --outside-diff 1%

Exit codes: 0 equal, 20 the record or the metadata is damaged and no source tells about the point, 26 something differs.";

/// Lines of differences for people; a document has more.
const MOST_SHOWN: usize = 20;

/// A point, and what it is compared with.
#[derive(clap::Args)]
pub struct VerifyArgs {
    /// The base blob: URL with a SAS, or without one to sign in with Entra (URL, @FILE or -)
    #[arg(long, env = "SNAPFERRY_TARGET", hide_env_values = true, value_name = "URL")]
    pub target: String,
    /// The point: latest, its time, the time, name or ARM id of its source snapshot, or a day
    #[arg(long, value_name = "POINT", default_value = "latest")]
    pub point: Which,
    /// SAS URL of the snapshot that the point was copied from (URL, @FILE or -)
    #[arg(long, env = "SNAPFERRY_SOURCE", hide_env_values = true, value_name = "URL")]
    pub source: Option<String>,
    /// What to compare the point with, where both could be
    #[arg(long, value_enum)]
    pub against: Option<AgainstArg>,
    /// Compare this part of the chunks only, such as 5%
    #[arg(long, value_name = "PERCENT", value_parser = settings::parse_percent)]
    pub sample: Option<f64>,
    /// Compare this part of what the step of the point did not write: what the service called unchanged
    #[arg(long, value_name = "PERCENT", value_parser = settings::parse_percent)]
    pub outside_diff: Option<f64>,
    /// Choose the chunks that a run with this seed chose
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Take a source at another host for the one of the point when nothing but the host speaks against it
    #[arg(long)]
    pub across_hosts: bool,
    /// Most chunks in flight
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub planning: PlanningArgs,
}

/// See [`Reference`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AgainstArg {
    /// The source, with the record as the third that judges
    Source,
    /// The record alone
    Record,
}

pub(super) async fn verify(args: Box<VerifyArgs>, output: Output, cancel: &CancellationToken) -> Result<()> {
    let mut settings =
        Settings { across_hosts: args.across_hosts, ..settings::plan_settings(&args.planning)? };
    settings.copy.concurrency = usize::from(args.concurrency);
    let job = job(&args)?;
    let needs_sign_in =
        !job.target.is_signed() || job.source.as_ref().is_some_and(|source| !source.is_signed());
    let client = settings::client(&args.planning, needs_sign_in)?;
    let counters = Progress::default();
    let work = verify::verify(&job, &client, &settings, &counters, cancel);
    let report = progress::show(&counters, output.progress, work).await?;
    output.verdict(&report, &describe(&report), report.error())
}

fn job(args: &VerifyArgs) -> Result<VerifyJob> {
    Ok(VerifyJob {
        target: base_blob(&args.target, &args.planning)?,
        which: args.point.clone(),
        source: source(args.source.as_deref(), &args.planning)?,
        reference: args.against.map(|against| match against {
            AgainstArg::Source => Reference::Source,
            AgainstArg::Record => Reference::Record,
        }),
        sample: args.sample,
        outside_diff: args.outside_diff,
        seed: args.seed,
    })
}

/// The base blob itself, and none of its snapshots.
pub(super) fn base_blob(url: &str, planning: &PlanningArgs) -> Result<Resource> {
    let target = settings::resource(Role::Target, url, &planning.access)?;
    match target.snapshot() {
        None => Ok(target),
        Some(time) => Err(Error::new(
            ErrorKind::Usage,
            "use the target URL",
            "it names a snapshot; records are kept beside the blob itself",
        )
        .on(&target)
        .next(format!("leave snapshot= out of --target, and say --point {time} where one can be said"))),
    }
}

/// A variable that is set to nothing is as good as none.
pub(super) fn source(url: Option<&str>, planning: &PlanningArgs) -> Result<Option<Resource>> {
    let is_unset = std::env::var("SNAPFERRY_SOURCE").is_ok_and(|text| text.is_empty());
    let url = url.filter(|url| !(is_unset && url.is_empty()));
    url.map(|url| settings::resource(Role::Source, url, &planning.access)).transpose()
}

fn describe(report: &VerifyReport) -> String {
    let mut lines = vec![
        format!("{:<13} {}", if report.error().is_none() { "equal" } else { "not equal" }, report.why),
        format!("point         {}", report.point),
        format!("source        {}", report.source),
    ];
    lines.extend(differing(&report.differences, report.differing_ranges));
    let part = |fraction: f64| format!("{:.3}%", fraction * 100.0);
    if let (Some(fraction), Some(seed)) = (report.sample, report.seed) {
        lines.push(format!("sample        {} of the chunks, seed {seed}", part(fraction)));
    }
    if let (Some(fraction), Some(seed)) = (report.outside_diff, report.seed) {
        lines.push(format!("outside       {} of what the step did not write, seed {seed}", part(fraction)));
    }
    if report.bytes_unknown > 0 {
        lines.push(format!("unknown       {}: no record says what they must be", size(report.bytes_unknown)));
    }
    lines.push(format!(
        "compared      {} of {}, {} read, in {:.1} s with {} requests",
        size(report.bytes_compared),
        size(report.length),
        size(report.bytes_read),
        report.seconds,
        report.requests
    ));
    lines.join("\n")
}

/// The ranges that differ, for people.
pub(super) fn differing(differences: &[verify::Difference], all: u64) -> Vec<String> {
    let mut lines: Vec<_> = differences
        .iter()
        .take(MOST_SHOWN)
        .map(|difference| {
            let wrong = match difference.wrong {
                Wrong::Point => " (the point)",
                Wrong::Record => " (the record)",
                Wrong::Source => " (the source)",
                Wrong::List => " (the page list)",
                Wrong::Unclear => "",
            };
            format!("differs       bytes {}..{}{wrong}", difference.start, difference.end)
        })
        .collect();
    let hidden = all - lines.len() as u64;
    if hidden > 0 {
        lines.push(format!(
            "              and {hidden} more: --output json lists the first {}",
            verify::MOST_LISTED
        ));
    }
    lines
}
