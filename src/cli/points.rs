//! `snapferry points`: what can be restored, and for how long it is kept.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::args::TargetArgs;
use super::copy::NO_DIGEST;
use super::options::LeaseArgs;
use super::output::{Output, error_value, size};
use super::target::connect;
use super::{settings, unless};
use crate::base::points::{Known, Point, known};
use crate::base::protect::{self, Change};
use crate::base::prune::{self, PruneReport};
use crate::base::retention::Retention;
use crate::error::{Error, ErrorKind, Result};

/// Without a command of its own, the list.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct PointsArgs {
    #[command(subcommand)]
    #[allow(missing_docs)]
    pub command: Option<PointsCommand>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub list: TargetArgs,
}

/// What can be done with points.
#[derive(Subcommand)]
pub enum PointsCommand {
    /// List the points of a base blob
    List(TargetArgs),
    /// Show everything that is known of one point
    Show(ShowArgs),
    /// Delete the points that no rule keeps; without --yes, only say which
    #[command(after_help = PRUNE_HELP)]
    Prune(PruneArgs),
    /// Never let points be deleted by prune
    Protect(ProtectArgs),
    /// Let prune delete points again
    Unprotect(ProtectArgs),
}

const PRUNE_HELP: &str = "\
The rules are those of restic, over the times of the source snapshots in UTC: of each of the newest N hours, days, weeks,
months or years that have points, the newest point is kept. A point stays when any rule keeps it.

Whatever the rules say, these stay: the point that the base blob is clean at, the point that a torn base can be rolled
back to, protected points, and snapshots of the blob that are no points. A copy may run meanwhile.

Needs delete permission (d). In an account with soft delete for blobs, deleted points can be brought back, and are paid
for, until its retention ends.";

/// One point.
#[derive(clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: TargetArgs,
    /// Time of the point
    #[arg(long, value_name = "TIME", required_unless_present = "source")]
    pub point: Option<String>,
    /// Its source snapshot: time, name or ARM id
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "point")]
    pub source: Option<String>,
}

/// Points to protect.
#[derive(clap::Args)]
pub struct ProtectArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: TargetArgs,
    /// Time of a point; can be given several times
    #[arg(long = "point", value_name = "TIME", required = true, num_args = 1..)]
    pub points: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub lease: LeaseArgs,
}

/// Which points are kept.
#[derive(clap::Args)]
pub struct PruneArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: TargetArgs,
    /// Keep the newest N points
    #[arg(long, value_name = "N", value_parser = many())]
    pub keep_last: Option<u32>,
    /// Keep the newest point of each of the newest N hours that have one
    #[arg(long, value_name = "N", value_parser = many())]
    pub keep_hourly: Option<u32>,
    /// The same by days
    #[arg(long, value_name = "N", value_parser = many())]
    pub keep_daily: Option<u32>,
    /// The same by weeks, which begin on Mondays
    #[arg(long, value_name = "N", value_parser = many())]
    pub keep_weekly: Option<u32>,
    /// The same by months
    #[arg(long, value_name = "N", value_parser = many())]
    pub keep_monthly: Option<u32>,
    /// The same by years
    #[arg(long, value_name = "N", value_parser = many())]
    pub keep_yearly: Option<u32>,
    /// Keep all points that are at most this much older than the newest one, such as 30d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub keep_within: Option<Duration>,
    /// Delete, instead of only saying what would be deleted
    #[arg(long)]
    pub yes: bool,
}

fn many() -> impl clap::builder::TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(1..)
}

pub(super) async fn points(args: PointsArgs, output: Output, cancel: &CancellationToken) -> Result<()> {
    match args.command {
        None => unless(cancel, list(args.list, output)).await,
        Some(PointsCommand::List(target)) => unless(cancel, list(target, output)).await,
        Some(PointsCommand::Show(args)) => unless(cancel, show(args, output)).await,
        Some(PointsCommand::Prune(args)) => prune_points(args, output, cancel).await,
        Some(PointsCommand::Protect(args)) => protect(args, Change::Protect, output, cancel).await,
        Some(PointsCommand::Unprotect(args)) => protect(args, Change::Unprotect, output, cancel).await,
    }
}

async fn list(args: TargetArgs, output: Output) -> Result<()> {
    let blob = connect(&args)?;
    let points = known(&blob).await?;
    let heading = format!(
        "{:<30} {:<30} {:>12} {:>12}  {:<16}  KEPT",
        "POINT", "SOURCE SNAPSHOT", "LENGTH", "SENT", "DIGEST"
    );
    let rows = points.iter().map(|known| {
        let Known { point, .. } = known;
        let (length, sent) = (size(point.length), size(point.bytes_sent));
        let row = format!(
            "{:<30} {:<30} {length:>12} {sent:>12}  {:<16}  {}",
            point.point,
            point.source_time,
            point.digest.as_deref().unwrap_or(NO_DIGEST),
            standing(known)
        );
        row.trim_end().to_owned()
    });
    let text = if points.is_empty() {
        "no points".to_owned()
    } else {
        std::iter::once(heading).chain(rows).collect::<Vec<_>>().join("\n")
    };
    output.result(&json!({ "target": blob.resource().to_string(), "points": points }), &text)
}

/// `current` and `protected`, where they are true.
fn standing(known: &Known) -> String {
    let words = [(known.current, "current"), (known.protected, "protected")];
    words.into_iter().filter_map(|(is_so, word)| is_so.then_some(word)).collect::<Vec<_>>().join(", ")
}

async fn show(args: ShowArgs, output: Output) -> Result<()> {
    let blob = connect(&args.target)?;
    let (points, asked) = (known(&blob).await?, &args);
    let is_asked = |known: &&Known| match (&asked.point, &asked.source) {
        (Some(time), _) => known.point.point == *time,
        (None, source) => source.as_ref().is_some_and(|source| known.is_of(source)),
    };
    let found: Vec<&Known> = points.iter().filter(is_asked).collect();
    let refuse = |why: String, next: &str| {
        Err(Error::new(ErrorKind::NotFound, "show the point", why).on(blob.resource()).next(next))
    };
    let known = match found[..] {
        [known] => known,
        [] => {
            return refuse("it has no such point".to_owned(), "look for it: snapferry points --target <URL>");
        }
        [..] => {
            let times: Vec<_> = found.iter().map(|known| known.point.point.as_str()).collect();
            return refuse(
                format!("several points are of it: {}", times.join(", ")),
                "give one of them as --point",
            );
        }
    };
    let suffix = format!("?snapshot={}", known.point.point);
    let url = format!("{}{suffix}", blob.resource().address());
    let disk = format!("az disk create --resource-group <group> --name <disk> --source '{url}'");
    let file = format!(
        "snapferry restore --from '{}' --point {} --to file:disk.vhd",
        blob.resource().address(),
        known.point.point
    );
    let mut text = describe(known);
    let _ = write!(text, "\nsuffix        {suffix}\nas a disk     {disk}\nas a file     {file}");
    let mut document = json!({
        "target": blob.resource().to_string(),
        "url_suffix": suffix,
        "create_disk": disk,
        "restore_file": file,
    });
    document["point"] = json!(known);
    output.result(&document, &text)
}

/// What the service moved by itself.
fn pulled(point: &Point) -> String {
    match point.bytes_pulled {
        0 => "nothing: all of it passed the machine that copied".to_owned(),
        bytes => format!("{} by the service itself (server mode)", size(bytes)),
    }
}

fn describe(known: &Known) -> String {
    let Known { point, .. } = known;
    let kept = standing(known);
    let mut lines = vec![
        ("point", point.point.clone()),
        ("source", point.source.clone()),
        ("previous", point.previous.clone().unwrap_or_else(|| "none: a full copy".to_owned())),
    ];
    if let Some(repaired) = &point.repairs {
        lines.push(("stands for", repaired.clone()));
    }
    if let Some(origin) = &point.origin {
        lines.push(("snapshot", origin.snapshot.clone()));
        lines.push(("unique id", origin.unique_id.clone()));
        let rest = [
            ("previous id", &origin.previous_unique_id),
            ("disk id", &origin.disk_unique_id),
            ("family", &origin.family),
        ];
        lines.extend(rest.into_iter().filter_map(|(name, id)| Some((name, id.clone()?))));
    }
    lines.extend([
        ("length", format!("{} ({} bytes)", size(point.length), point.length)),
        ("changed", size(point.bytes)),
        ("sent", size(point.bytes_sent)),
        ("pulled", pulled(point)),
        ("digest", point.digest.clone().unwrap_or_else(|| NO_DIGEST.to_owned())),
        (
            "record",
            if point.recorded { "yes" } else { "none: only its source can prove it (verify --source)" }
                .to_owned(),
        ),
        ("generation", point.generation.to_string()),
        ("sealed at", point.sealed_at.clone()),
        ("kept", if kept.is_empty() { "no: prune may delete it".to_owned() } else { kept }),
    ]);
    lines.iter().map(|(name, value)| format!("{name:<13} {value}")).collect::<Vec<_>>().join("\n")
}

async fn protect(
    args: ProtectArgs,
    change: Change,
    output: Output,
    cancel: &CancellationToken,
) -> Result<()> {
    let blob = connect(&args.target)?;
    let lease = settings::lease(&args.lease)?;
    let points: BTreeSet<String> = args.points.into_iter().collect();
    let report = protect::change(&blob, change, &points, lease, cancel).await?;
    let words = if change == Change::Protect { "protected now" } else { "no longer so" };
    let mut text: Vec<_> = report.changed.iter().map(|point| format!("{words:<13} {point}")).collect();
    if text.is_empty() {
        text.push("nothing to do: they are so already".to_owned());
    }
    text.push(format!("in all        {} protected", report.protected.len()));
    output.result(&report, &text.join("\n"))
}

async fn prune_points(args: PruneArgs, output: Output, cancel: &CancellationToken) -> Result<()> {
    let blob = connect(&args.target)?;
    let retention = Retention {
        last: args.keep_last,
        hourly: args.keep_hourly,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        yearly: args.keep_yearly,
        within: args.keep_within,
    };
    let report = if args.yes {
        prune::prune(&blob, &retention, cancel).await?
    } else {
        unless(cancel, prune::plan(&blob, &retention)).await?
    };
    let mut document = json!(report);
    document["target"] = json!(blob.resource().to_string());
    document["dry_run"] = json!(!args.yes);
    if let Some(error) = &report.error {
        document["error"] = error_value(error);
    }
    output.result(&document, &describe_prune(&report, &args))?;
    report.error.map_or(Ok(()), Err)
}

fn describe_prune(report: &PruneReport, args: &PruneArgs) -> String {
    let line = |word: &str, point: &Point, why: &str| {
        format!("{word:<8} {:<30} {:<30} {why}", point.point, point.source_time).trim_end().to_owned()
    };
    let mut lines = vec![format!("{:<8} {:<30} {:<30} WHY", "", "POINT", "SOURCE SNAPSHOT")];
    for kept in &report.kept {
        let reasons: Vec<_> = kept.reasons.iter().map(ToString::to_string).collect();
        lines.push(line("keep", &kept.point, &reasons.join(", ")));
    }
    let word = if args.yes { "left" } else { "delete" };
    lines.extend(report.to_delete.iter().map(|point| line(word, point, "")));
    lines.extend(report.deleted.iter().map(|point| line("deleted", point, "")));
    lines.extend(report.failed.iter().map(|failed| line("failed", &failed.point, &failed.why)));
    lines.push(match (args.yes, report.to_delete.len()) {
        (true, _) => format!("{} deleted, {} kept", report.deleted.len(), report.kept.len()),
        (false, 0) => "nothing would be deleted".to_owned(),
        (false, many) => format!(
            "a dry run: nothing was deleted. To delete {many} of {}: snapferry points prune --target <URL>{} --yes",
            report.kept.len() + many,
            rules(args)
        ),
    });
    lines.join("\n")
}

/// The rules as they were given.
fn rules(args: &PruneArgs) -> String {
    let counts = [
        ("last", args.keep_last),
        ("hourly", args.keep_hourly),
        ("daily", args.keep_daily),
        ("weekly", args.keep_weekly),
        ("monthly", args.keep_monthly),
        ("yearly", args.keep_yearly),
    ];
    let counts = counts.into_iter().filter_map(|(name, many)| Some(format!(" --keep-{name} {}", many?)));
    let within = args.keep_within.map(|within| {
        let within = humantime::format_duration(within).to_string();
        format!(" --keep-within {}", within.replace(' ', ""))
    });
    counts.chain(within).collect()
}
