//! `snapferry managed-copy`: Azure's own copy, started or asked after.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::manager::{self, ManagerArgs};
use super::output::{Output, size};
use super::progress::{self, Look, Shown};
use crate::azure::reply::scrub;
use crate::azure::{Arm, ArmId, ArmKind};
use crate::error::{Error, ErrorKind, Result};
use crate::managed::{self, Phase, Polling, Report, Request, Seen, Speed, State, Watch, emit};

pub(super) const HELP: &str = "\
The service copies; nothing passes through this machine. The command follows the copy to its end, and Ctrl-C ends only
that: the copy goes on, and `snapferry managed-copy status` asks after it. The same command again finds the copy that it
started and follows it on.

Limits of Azure that are looked at before anything is started: only incremental snapshots, in the order in which they
were made, one at a time of each disk, and 100 at once in a subscription and region.

Examples:
  snapferry managed-copy --source /subscriptions/.../snapshots/monday --region westeurope --target-name monday-copy
  snapferry managed-copy status --snapshot /subscriptions/.../snapshots/monday-copy --wait
  snapferry managed-copy --source ... --region westeurope --target-name monday-copy --emit arm-template";

/// Azure's own copy.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ManagedCopyArgs {
    #[command(subcommand)]
    #[allow(missing_docs)]
    pub command: Option<ManagedCommand>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub start: StartArgs,
}

/// What can be done besides starting one.
#[derive(clap::Subcommand)]
pub enum ManagedCommand {
    /// Ask after a copy that was started before
    Status(StatusArgs),
}

/// A copy to start. What is required is so only where no other command is given.
#[derive(clap::Args)]
pub struct StartArgs {
    /// The snapshot to copy: its id in Azure Resource Manager
    #[arg(long, value_name = "ID", required = true)]
    pub source: Option<String>,
    /// The region to copy it to, such as westeurope
    #[arg(long, value_name = "REGION", required = true)]
    pub region: Option<String>,
    /// Name of the snapshot that it becomes
    #[arg(long, value_name = "NAME", required = true)]
    pub target_name: Option<String>,
    /// Resource group of that snapshot; that of the source unless named
    #[arg(long, value_name = "GROUP")]
    pub target_resource_group: Option<String>,
    /// Return as soon as the service has begun
    #[arg(long)]
    pub no_wait: bool,
    /// Let the service copy faster, at a price
    #[arg(long, value_name = "SPEED", value_enum)]
    pub bandwidth: Option<Bandwidth>,
    /// A tag of the target, KEY=VALUE; can be given several times
    #[arg(long = "tag", value_name = "TAG", value_parser = parse_tag)]
    pub tags: Vec<(String, String)>,
    /// Ask nobody: print what does the same
    #[arg(long, value_name = "FORM", value_enum)]
    pub emit: Option<Form>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub manager: ManagerArgs,
}

/// A copy to ask after.
#[derive(clap::Args)]
pub struct StatusArgs {
    /// The target of the copy: its id in Azure Resource Manager
    #[arg(long, value_name = "ID")]
    pub snapshot: String,
    /// Follow it to its end
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub manager: ManagerArgs,
}

/// How fast the service copies.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bandwidth {
    /// Faster, at a price.
    Enhanced,
}

/// What does the same.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A template of Azure Resource Manager.
    ArmTemplate,
    /// A command of the Azure CLI.
    Az,
    /// A script for the Az module of PowerShell.
    #[value(name = "powershell")]
    PowerShell,
}

pub(super) async fn managed_copy(
    args: ManagedCopyArgs,
    output: Output,
    cancel: &CancellationToken,
) -> Result<()> {
    match args.command {
        Some(ManagedCommand::Status(status)) => ask(&status, output, cancel).await,
        None => start(args.start, output, cancel).await,
    }
}

async fn start(args: StartArgs, output: Output, cancel: &CancellationToken) -> Result<()> {
    let request = request(&args)?;
    if let Some(form) = args.emit {
        return print(&request, form, output);
    }
    let arm = manager::arm(&args.manager)?;
    let watch = Watch::default();
    let work = async {
        let copy = managed::start(&arm, &request, &watch, cancel).await?;
        if args.no_wait {
            return Ok(copy.report(&arm));
        }
        copy.follow(&arm, Polling::default(), &watch, cancel).await
    };
    let shown = Shown { wanted: output.progress, lines: None };
    let report = progress::watch(|| look(&watch, &arm), shown, work).await?;
    output.result(&report, &describe(&report))
}

async fn ask(args: &StatusArgs, output: Output, cancel: &CancellationToken) -> Result<()> {
    let target = ArmId::parse(ArmKind::Snapshot, &args.snapshot)?;
    let arm = manager::arm(&args.manager)?;
    let watch = Watch::default();
    let work = async {
        let found = async { managed::find(&arm, &target).await };
        let copy = tokio::select! {
            copy = found => copy?,
            () = cancel.cancelled() => {
                return Err(Error::new(ErrorKind::Interrupted, "ask after the copy", "interrupted"));
            }
        };
        if !args.wait {
            return Ok(copy.report(&arm));
        }
        copy.follow(&arm, Polling::default(), &watch, cancel).await
    };
    let shown = Shown { wanted: output.progress, lines: None };
    let report = progress::watch(|| look(&watch, &arm), shown, work).await?;
    output.result(&report, &describe(&report))
}

fn request(args: &StartArgs) -> Result<Request> {
    let (Some(source), Some(region), Some(name)) = (&args.source, &args.region, &args.target_name) else {
        return Err(Error::new(
            ErrorKind::Usage,
            "read the command line",
            "source, region and name are needed",
        )
        .next("snapferry managed-copy --help"));
    };
    let source = ArmId::parse(ArmKind::Snapshot, source)?;
    let target = Request::target_of(&source, args.target_resource_group.as_deref(), name)?;
    let mut tags = BTreeMap::new();
    for (key, value) in &args.tags {
        if tags.insert(key.clone(), value.clone()).is_some() {
            return Err(Error::new(ErrorKind::Usage, "use the tags", "one is given twice")
                .on(scrub(key))
                .next("give each --tag once"));
        }
    }
    let speed = if args.bandwidth.is_some() { Speed::Enhanced } else { Speed::Usual };
    let request = Request { source, target, region: region.clone(), speed, tags };
    request.check()?;
    Ok(request)
}

fn print(request: &Request, form: Form, output: Output) -> Result<()> {
    let (name, text) = match form {
        Form::ArmTemplate => {
            let template = emit::arm_template(request)?;
            return output.result(&template, &format!("{template:#}"));
        }
        Form::Az => ("az", emit::az(request)?),
        Form::PowerShell => ("powershell", emit::az_powershell(request)?),
    };
    output.result(&json!({ "emit": name, "text": text }), &text)
}

pub(super) fn parse_tag(text: &str) -> std::result::Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

fn look(watch: &Watch, arm: &Arm) -> Look {
    let seen = watch.read();
    let waiting =
        arm.meter().waiting_for().map(|(reason, _)| format!(", waiting for {reason}")).unwrap_or_default();
    // A bar in hundredths of a percent moves while a large disk is copied.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let done = (seen.percent.clamp(0.0, 100.0) * 100.0) as u64;
    Look { line: format!("{}{waiting}", line(&seen)), done, of: 10_000 }
}

fn line(seen: &Seen) -> String {
    match seen.phase {
        Phase::Checking => return "looking at the snapshot and at the limits of managed copies".to_owned(),
        Phase::Starting => return "asking the service to start".to_owned(),
        Phase::Copying => {}
    }
    let left = seen.left.map_or_else(|| "unknown".to_owned(), |left| progress::time_left(left.as_secs()));
    let rate = seen.percent_per_second.map_or_else(String::new, |rate| match seen.size {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Some(bytes) => format!(", {}/s of the disk", size((bytes as f64 * rate / 100.0) as u64)),
        None => format!(", {rate:.2} percent/s"),
    });
    format!("the service has copied {:.1} percent{rate}, time left {left}", seen.percent)
}

fn describe(report: &Report) -> String {
    let state = match report.state {
        State::Done => "copied        ",
        State::Copying => "copying       ",
    };
    let mut lines =
        vec![format!("{state}{}", report.source.as_deref().unwrap_or("a snapshot that is unknown"))];
    lines.push(format!("to            {} ({})", report.target, report.region));
    lines.push(format!("percent       {:.1}", report.percent));
    if let Some(bytes) = report.size {
        lines.push(format!("disk          {}", size(bytes)));
    }
    if let Some(seconds) = report.seconds {
        let rate = report
            .bytes_per_second
            .map_or_else(String::new, |rate| format!(" ({}/s of the disk)", size(rate)));
        lines.push(format!("time          {seconds:.1} s{rate}"));
    }
    for (name, time) in [("started", &report.started_at), ("seen done", &report.finished_at)] {
        if let Some(time) = time {
            lines.push(format!("{name:<14}{time}"));
        }
    }
    if report.state == State::Copying {
        lines.push(format!("follow it     {}", managed::status_command(&report.target, true)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_line_tells_percent_rate_and_time_left() {
        let mut seen = Seen { phase: Phase::Copying, percent: 25.0, size: Some(1 << 30), ..Seen::default() };
        assert_eq!(line(&seen), "the service has copied 25.0 percent, time left unknown");
        seen.percent_per_second = Some(0.5);
        seen.left = Some(Duration::from_secs(150));
        let rate = size((1 << 30) / 200);
        assert_eq!(
            line(&seen),
            format!("the service has copied 25.0 percent, {rate}/s of the disk, time left 2m 30s")
        );
        seen.size = None;
        assert!(line(&seen).contains("0.50 percent/s"));
    }

    #[test]
    fn a_tag_has_a_name_and_a_value_with_anything_in_it() {
        assert_eq!(parse_tag("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(parse_tag("a="), Ok(("a".to_owned(), String::new())));
        assert!(parse_tag("a").is_err());
    }
}
