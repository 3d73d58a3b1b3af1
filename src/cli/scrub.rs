//! `snapferry scrub`.

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::options::PlanningArgs;
use super::output::{Output, size};
use super::{progress, settings};
use crate::azure::{Destination, PlainHttp};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use crate::scrub::{self, Fault, ScrubJob, ScrubReport};

pub(super) const HELP: &str = "\
Holds every point of every base blob in a container against its record, over days: each run does the share that is due
since the last one, and what is left is done by the next. Run it from a scheduler, on any machine, as often as you like;
with 16% a day every point is seen once a week. A pass goes by the names of the base blobs and the times of their points,
each point whole. Where it stopped and what it found is kept in the container, in the blob snapferry-scrub.json.

Needs r and l on the container, and c and w for that blob.

Example:
  snapferry scrub --container 'https://backups.blob.core.windows.net/disks' --per-day 16% --rate-limit 20MiB/s

Exit codes: 0 nothing is known to be wrong, 20 only records or metadata are damaged, 26 a point differs from its record.";

/// A container, and how much of it a day.
#[derive(clap::Args)]
pub struct ScrubArgs {
    /// The container: URL with a SAS, or without one to sign in with Entra (URL, @FILE or -)
    #[arg(long, value_name = "URL")]
    pub container: String,
    /// The share of all bytes that is compared in a day
    #[arg(long, value_name = "PERCENT", default_value = "16%", value_parser = settings::parse_percent)]
    pub per_day: f64,
    /// Most chunks in flight
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub planning: PlanningArgs,
}

pub(super) async fn scrub(args: Box<ScrubArgs>, output: Output, cancel: &CancellationToken) -> Result<()> {
    let mut settings = settings::plan_settings(&args.planning)?;
    settings.copy.concurrency = usize::from(args.concurrency);
    let plain = if args.planning.access.allow_http { PlainHttp::Anywhere } else { PlainHttp::LoopbackOnly };
    let container = Destination::parse(&settings::url_text("container", &args.container)?, plain)?;
    if let Destination::Blob(blob) = &container {
        return Err(Error::new(ErrorKind::Usage, "use the container URL", "it names a blob").on(blob).next(
            "leave the name of the blob out, or verify that blob alone: snapferry verify --target <URL>",
        ));
    }
    let client = settings::client(&args.planning, !container.is_signed())?;
    let job = ScrubJob { container, per_day: args.per_day, now: Timestamp::now() };
    let counters = Progress::default();
    let work = scrub::scrub(&job, &client, &settings, &counters, cancel);
    let report = progress::show(&counters, output.progress, work).await?;
    output.verdict(&report, &describe(&report), report.error())
}

fn describe(report: &ScrubReport) -> String {
    let mut lines = Vec::new();
    for finding in &report.findings {
        let what = match finding.fault {
            Fault::Differs => "differs",
            Fault::RecordDamaged => "its record is damaged",
            Fault::MetadataDamaged => "its metadata is damaged",
        };
        let first = finding.first_difference.map(|at| format!(", first at byte {at}")).unwrap_or_default();
        lines.push(format!(
            "wrong         {} of {}: {what}{first}, seen {}",
            finding.point, finding.blob, finding.seen
        ));
    }
    lines.push(format!(
        "compared      {} of {} in {} points, {} read, in {:.1} s with {} requests",
        size(report.bytes_compared),
        size(report.bytes_total),
        report.points,
        size(report.bytes_read),
        report.seconds,
        report.requests
    ));
    if report.points_without_record > 0 {
        lines.push(format!(
            "no record     {} points, which only a source can prove",
            report.points_without_record
        ));
    }
    if report.bytes_unknown > 0 {
        lines.push(format!("unknown       {}: no record says what they must be", size(report.bytes_unknown)));
    }
    let pass = report.last_full_pass.map_or_else(|| "none yet".to_owned(), |time| time.to_string());
    lines.push(format!("full pass     {pass}"));
    if let Some(next) = &report.position {
        lines.push(format!("goes on at    byte {} of {} of {}", next.offset, next.point, next.blob));
    }
    lines.join("\n")
}
