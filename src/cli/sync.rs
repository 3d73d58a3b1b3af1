//! `snapferry sync`: a disk's chain of snapshots, and `snapferry prices`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::copy::{moved_by, per_second};
use super::forecast::{Table, outlined};
use super::options::{ArmArgs, CopyingArgs, ModeArg, PlanningArgs, VerifyArg};
use super::output::{self, Observed, Output, size};
use super::profile::ProfileArgs;
use super::progress::{self, Shown};
use super::report::{self, ReportFile, Scope, Sums};
use super::settings;
use crate::azure::arm::{ArmId, ArmKind, LONGEST_GRANT, ListScope, ManagedSnapshot, SHORTEST_GRANT};
use crate::azure::reply::scrub;
use crate::azure::{Arm, Client, Destination, PlainHttp};
use crate::chain::grants::GrantOptions;
use crate::chain::outline::{Planned, Wanted};
use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::managed::quote::posix;
use crate::measure::{Course, Observer, SAMPLE_EVERY, observe};
use crate::price::{PriceTable, Rate};
use crate::progress::{Phase, Progress};
use crate::step::{Report, Settings};
use crate::sync::{self, Job, Outlook, SyncReport, Witness};

pub(super) const HELP: &str = "\
Lists the incremental snapshots of the disk, compares them with what the base blob holds, and copies each that is
missing, oldest first: the first whole, the rest as differences. Nothing is changed at the source: access to the
snapshots is granted for as long as it is needed, renewed in mid-copy, and ended on every way out.

Kill it anywhere: the same command, on any machine, goes on. In a scheduler run it as it is, or leave it running with
--watch. The snapshot named under \"keep\" must stay at the source: without it the next difference cannot be made.

Rights: Microsoft.Compute/snapshots/read, .../beginGetAccess/action, .../endGetAccess/action and
Microsoft.Compute/disks/read (the roles Reader and Disk Snapshot Contributor have them), and at the target those of
copy.

Examples:
  snapferry sync --disk $(az disk show -g prod -n web-1 --query id -o tsv) \\
    --target 'https://backups.blob.core.windows.net/disks'
  snapferry sync --disk <ARM id> --target <URL> --dry-run --prices prices.json
  snapferry sync --disk <ARM id> --target <URL> --watch 15m

With --watch and --output json every round is one document on one line, of a report or of an error. Ended between two
rounds, a watch ends with 0.";

/// How often a snapshot that is not whole yet is looked at.
const READY_EVERY: Duration = Duration::from_secs(10);

/// A disk and where its chain goes.
#[derive(clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct SyncArgs {
    /// ARM id of the disk: /subscriptions/.../Microsoft.Compute/disks/NAME
    #[arg(long, value_name = "ID", env = "SNAPFERRY_DISK")]
    pub disk: String,
    /// The base blob, or a container in which each disk has its own: URL with a SAS, or without one to sign in with
    /// Entra (URL, @FILE or -)
    #[arg(long, env = "SNAPFERRY_TARGET", hide_env_values = true, value_name = "URL")]
    pub target: String,
    /// The last snapshot to copy: its name or ARM id
    #[arg(long, value_name = "SNAPSHOT")]
    pub until: Option<String>,
    /// Copy only the newest snapshot, as one difference from the last point
    #[arg(long)]
    pub skip_intermediate: bool,
    /// Look again after this time, for ever, such as 15m
    #[arg(long, value_name = "INTERVAL", value_parser = humantime::parse_duration, conflicts_with = "dry_run")]
    pub watch: Option<Duration>,
    /// Begin anew in the same blob where no difference is possible; its points stay
    #[arg(long)]
    pub rebase: bool,
    /// Who moves the bytes from the snapshots to the base blob
    #[arg(long, value_enum, default_value_t)]
    pub mode: ModeArg,
    /// What is read back from the base blob and compared before a step is sealed
    #[arg(long, value_enum, default_value_t)]
    pub verify: VerifyArg,
    /// Put a base that a step to a deleted snapshot has torn back to its last point, and go on
    #[arg(long)]
    pub rollback: bool,
    /// Only say what would be done: bytes, requests, time and money of every step
    #[arg(long)]
    pub dry_run: bool,
    /// List snapshots in this resource group only, instead of the disk's whole subscription
    #[arg(long, value_name = "GROUP")]
    pub snapshot_resource_group: Option<String>,
    /// How long access to a snapshot lasts if it is neither renewed nor ended, such as 1h
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    pub sas_duration: Duration,
    /// End a SAS that is out for a snapshot that is to be read, whoever asked for it
    #[arg(long)]
    pub revoke_active_sas: bool,
    /// Write how it went to this file: a page (.html), Markdown (.md) or JSON (.json)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dry_run", "watch"])]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub profile: ProfileArgs,
    /// Price table for --dry-run: a file as `snapferry prices` prints it
    #[arg(long, value_name = "FILE")]
    pub prices: Option<String>,
    /// What --dry-run counts with, such as 200MiB/s; otherwise --rate-limit, else the rate of the last copy to the base
    /// blob, else what one page blob takes
    #[arg(long, value_name = "RATE", value_parser = settings::parse_rate)]
    pub assume_rate: Option<u64>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub manager: ArmArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub planning: PlanningArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub copying: CopyingArgs,
}

/// Everything that a round needs.
struct Rounds {
    job: Job,
    arm: Arm,
    client: Client,
    settings: Settings,
    output: Output,
}

pub(super) async fn sync(mut args: Box<SyncArgs>, output: Output, cancel: &CancellationToken) -> Result<()> {
    let SyncArgs { profile, planning, copying, mode, .. } = &mut *args;
    profile.apply(planning, copying, mode)?;
    let prices = settings::prices(args.prices.as_deref())?;
    let rounds = rounds(&args, output)?;
    if args.dry_run {
        return rounds.dry_run(&args, &prices, cancel).await;
    }
    let Some(interval) = args.watch else {
        let file = args.report.as_deref().map(ReportFile::at).transpose()?;
        let round = rounds.round(cancel).await;
        let reported = file.map_or(Ok(()), |file| {
            let scope = Scope {
                source: rounds.job.disk.to_string(),
                target: round.target,
                copied: "the steps of its chain that were missing".to_owned(),
                began: round.began,
            };
            file.write(scope, &round.sums, &round.course, &round.outcome)
        });
        return report::end(round.outcome, reported, |report| {
            output.observed(&report, &describe(&report), &round.course)
        });
    };
    let told = |error: &Error| if output.is_json() { output.round_failed(error) } else { Ok(()) };
    loop {
        let Round { outcome, course, .. } = rounds.round(cancel).await;
        match outcome {
            // A line for each round: whoever reads along knows where a document ends.
            Ok(report) => {
                let text = describe(&report);
                output.round(&Observed { report: &report, limits: &course.limits }, &text)?;
            }
            // What passes by itself passes until the next round; a service must not end for it.
            Err(error)
                if error.kind().remedy() == Remedy::Passes && error.kind() != ErrorKind::Interrupted =>
            {
                output::say_error(&error);
                told(&error)?;
            }
            Err(error) => {
                told(&error)?;
                return Err(error);
            }
        }
        tokio::select! {
            () = crate::azure::pace::pause(interval) => {}
            () = cancel.cancelled() => return Ok(()),
        }
    }
}

pub(super) fn prices() -> Result<()> {
    let table = serde_json::to_string_pretty(&PriceTable::default())
        .map_err(|error| Error::new(ErrorKind::Internal, "write the price table", error.to_string()))?;
    output::write_line(&table)
}

fn rounds(args: &SyncArgs, output: Output) -> Result<Rounds> {
    if !(SHORTEST_GRANT..=LONGEST_GRANT).contains(&args.sas_duration) {
        let why = "the service grants access for 30 seconds to 60 days";
        return Err(Error::new(ErrorKind::Usage, "use --sas-duration", why)
            .next("leave it out: access is renewed while it is needed"));
    }
    if args.watch.is_some_and(|interval| interval < Duration::from_secs(1)) {
        return Err(Error::new(ErrorKind::Usage, "use --watch", "it is less than a second")
            .next("such as --watch 15m"));
    }
    let disk = ArmId::parse(ArmKind::Disk, &args.disk)?;
    let until = args.until.as_deref().map(snapshot_named).transpose()?;
    let group = args
        .snapshot_resource_group
        .as_deref()
        .map(|group| ArmId::group_named(disk.subscription(), group))
        .transpose()?;
    let plain = if args.planning.access.allow_http { PlainHttp::Anywhere } else { PlainHttp::LoopbackOnly };
    let destination = Destination::parse(&settings::url_text("target", &args.target)?, plain)?;
    if let Destination::Blob(blob) = &destination
        && blob.snapshot().is_some()
    {
        let why = "it names a snapshot; only the blob itself can be written to";
        return Err(Error::new(ErrorKind::Usage, "use the target URL", why)
            .on(blob)
            .next("leave snapshot= out of --target"));
    }
    let (mode, verify) = (args.mode.into(), args.verify.into());
    let settings = Settings { mode, verify, ..settings::copy_settings(&args.planning, &args.copying)? };
    let client = settings::client(&args.planning, true)?;
    let arm = settings::arm(&args.manager, &client, plain)?;
    let job = Job {
        scope: group.map(|group| ListScope::Group(disk.subscription().to_owned(), group)),
        disk,
        destination,
        wanted: Wanted { until, skip_intermediate: args.skip_intermediate, rebase: args.rebase },
        roll_back: args.rollback,
        ready_every: READY_EVERY,
        grants: GrantOptions { duration: args.sas_duration, revoke_active: args.revoke_active_sas, plain },
    };
    Ok(Rounds { job, arm, client, settings, output })
}

/// A snapshot as people name it: by its name or its ARM id.
fn snapshot_named(text: &str) -> Result<String> {
    if text.starts_with('/') {
        return ArmId::parse(ArmKind::Snapshot, text).map(|id| id.to_string());
    }
    let is_name = !text.is_empty()
        && text.len() <= 80
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if is_name {
        return Ok(text.to_owned());
    }
    Err(Error::new(ErrorKind::Usage, "use --until", "it is neither the name nor the ARM id of a snapshot")
        .on(scrub(text))
        .next("az snapshot list --query '[].name' -o tsv"))
}

impl Rounds {
    async fn round(&self, cancel: &CancellationToken) -> Round {
        let (lines, to_show) = mpsc::unbounded_channel();
        let current = Arc::new(Progress::default());
        let observer = observe(&current, SAMPLE_EVERY);
        let teller = Teller { lines, observer, current: Mutex::new(current), told: Mutex::default() };
        let work = sync::sync(&self.job, &self.arm, &self.client, &self.settings, &teller, cancel);
        let shown = Shown { wanted: self.output.progress, lines: Some((to_show, self.output)) };
        let outcome = progress::show_with(|| teller.current().read(), shown, work).await;
        let Told { target, sums, .. } = teller.told().clone();
        let began = sums.has_steps() || teller.current().read().phase != Phase::Checking;
        Round { outcome, course: teller.observer.finish(), target, began, sums }
    }

    async fn dry_run(&self, args: &SyncArgs, prices: &PriceTable, cancel: &CancellationToken) -> Result<()> {
        let counters = Progress::default();
        let forecasting =
            |job| sync::forecast(job, &self.arm, &self.client, &self.settings, &counters, cancel);
        let (outlook, forecasts) =
            progress::show(&counters, self.output.progress, forecasting(&self.job)).await?;
        let mut others = None;
        if self.job.wanted.skip_intermediate && !outlook.outline.skipped.is_empty() {
            // What is saved can only be told by looking at the long way too.
            let wanted = Wanted { skip_intermediate: false, ..self.job.wanted.clone() };
            let job = Job { wanted, ..self.job.clone() };
            others = Some(progress::show(&counters, self.output.progress, forecasting(&job)).await?.1);
        }
        let default = Rate::default();
        let rate = Rate {
            bytes_per_second: args
                .assume_rate
                .or(self.settings.caps.bytes_per_second)
                .or(outlook.measured)
                .unwrap_or(default.bytes_per_second),
            requests_per_second: self
                .settings
                .caps
                .requests_per_second
                .unwrap_or(default.requests_per_second),
        };
        let table = Table { forecasts: &forecasts, others: others.as_deref(), prices, rate };
        self.output.result(&table.document(&outlook), &table.text(&outlook))
    }
}

/// What a round came to.
struct Round {
    outcome: Result<SyncReport>,
    course: Course,
    /// The base blob, if it was found.
    target: String,
    /// Whether any step was begun.
    began: bool,
    sums: Sums,
}

/// Says what is done while it is done.
struct Teller {
    lines: mpsc::UnboundedSender<String>,
    observer: Observer,
    current: Mutex<Arc<Progress>>,
    told: Mutex<Told>,
}

/// What is known so far.
#[derive(Clone, Default)]
struct Told {
    /// Whether the whole outline was told.
    outline: bool,
    target: String,
    sums: Sums,
}

impl Teller {
    fn current(&self) -> Arc<Progress> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, line: String) {
        // Nobody listens when the run is over.
        let _ = self.lines.send(line);
    }
}

impl Witness for Teller {
    fn found(&self, outlook: &Outlook) {
        let mut told = self.told();
        told.target = outlook.target.to_string();
        if std::mem::replace(&mut told.outline, true) {
            return;
        }
        self.say(format!("target        {}", outlook.target));
        for line in outlined(&outlook.outline) {
            self.say(line);
        }
        for left_out in &outlook.chain.left_out {
            self.say(format!("left out      {}: {}", left_out.snapshot.name(), left_out.why));
        }
    }

    fn begins(&self, _: &Planned, progress: &Arc<Progress>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(progress);
        self.observer.follow(progress);
    }

    fn sealed(&self, planned: &Planned, report: &Report) {
        self.told().sums.add(report);
        let resumed = report.resumed_from.map(|at| format!(" (taken up at byte {at})")).unwrap_or_default();
        self.say(format!(
            "sealed        {:<24} {} changed, {} sent in {:.1} s ({}/s), point {}{resumed}",
            planned.to.id.name(),
            size(report.totals.bytes_changed),
            size(report.bytes_sent),
            report.seconds,
            size(per_second(report.bytes_sent, report.seconds)),
            report.point.point,
        ));
        if let Some(line) = moved_by(report) {
            self.say(line);
        }
    }

    fn waits(&self, snapshot: &ManagedSnapshot) {
        let percent = snapshot.completion_percent.unwrap_or_default();
        self.say(format!("waiting       {} is {percent:.1} % complete", snapshot.id.name()));
    }
}

fn describe(report: &SyncReport) -> String {
    let sent: u64 = report.steps.iter().map(|step| step.bytes_sent).sum();
    let done = match report.steps.len() {
        0 => "up to date    nothing to copy".to_owned(),
        steps => format!("up to date    {steps} sealed, {} sent in {:.1} s", size(sent), report.seconds),
    };
    let keep = report
        .keep
        .as_ref()
        .map(|keep| {
            format!("\nkeep          {keep}\n              (the next difference begins at this snapshot)")
        })
        .unwrap_or_default();
    let mut lines = vec![format!("{done}{keep}")];
    lines.extend(report.warnings.iter().map(|warning| format!("warning       {warning}")));
    lines.extend(report.not_ended.iter().map(|id| {
        format!("not ended     {id}: snapferry access revoke --snapshot {}", posix(&id.to_string()))
    }));
    lines.join("\n")
}
