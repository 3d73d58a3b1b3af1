//! `snapferry copy` and `snapferry plan`.

use tokio_util::sync::CancellationToken;

use super::args::{CopyArgs, StepArgs};
use super::output::{Output, size};
use super::report::{self, ReportFile, Scope, Sums};
use super::{progress, settings};
use crate::azure::Role;
use crate::dry_run;
use crate::error::{Error, ErrorKind, Result};
use crate::image::ImagePath;
use crate::ingest::{ImageJob, copy_image, plan_image};
use crate::progress::{Phase, Progress};
use crate::replicate::replicate;
use crate::step::{Mode, PlanReport, Report, Settings};

pub(super) async fn copy(mut args: Box<CopyArgs>, output: Output, cancel: &CancellationToken) -> Result<()> {
    let CopyArgs { profile, step, copying, .. } = &mut *args;
    profile.apply(&mut step.planning, copying, &mut step.mode)?;
    let settings = Settings {
        across_hosts: args.step.across_hosts,
        mode: args.step.mode.into(),
        rebase: args.rebase,
        verify: args.verify.into(),
        ..settings::copy_settings(&args.step.planning, &args.copying)?
    };
    if args.dry_run {
        return super::unless(cancel, look_ahead(&args.step, &settings, output)).await;
    }
    let file = args.report.as_deref().map(ReportFile::at).transpose()?;
    let counters = Progress::default();
    let (source, target, copied, (outcome, course)) = if let Some(job) = image_job(&args.step)? {
        let client = settings::client(&args.step.planning, !job.target.is_signed())?;
        let work = copy_image(&job, &client, &settings, &counters, cancel);
        let copied = "what differs from the last point".to_owned();
        let done = progress::observed(&counters, output.progress, work).await;
        (job.image.to_string(), job.target, copied, done)
    } else {
        let step = settings::step(&args.step)?;
        let client = settings::step_client(&args.step.planning, &step)?;
        let work = replicate(&step, &client, &settings, &counters, cancel);
        let done = progress::observed(&counters, output.progress, work).await;
        let whole = || "the whole disk".to_owned();
        let copied = step.previous.as_ref().map_or_else(whole, |from| format!("changes since {from}"));
        (step.source.to_string(), step.target, copied, done)
    };
    let mut sums = Sums::default();
    if let Ok(report) = &outcome {
        sums.add(report);
    }
    let began = counters.read().phase != Phase::Checking;
    let scope = Scope { source, target: target.to_string(), copied, began };
    let reported = file.map_or(Ok(()), |file| file.write(scope, &sums, &course, &outcome));
    report::end(outcome, reported, |report| output.observed(&report, &describe(&report), &course))
}

pub(super) async fn plan(args: Box<StepArgs>, output: Output) -> Result<()> {
    let (across_hosts, mode) = (args.across_hosts, args.mode.into());
    let settings = Settings { mode, across_hosts, ..settings::plan_settings(&args.planning)? };
    look_ahead(&args, &settings, output).await
}

async fn look_ahead(args: &StepArgs, settings: &Settings, output: Output) -> Result<()> {
    let counters = Progress::default();
    if let Some(job) = image_job(args)? {
        let client = settings::client(&args.planning, !job.target.is_signed())?;
        let work = plan_image(&job, &client, settings, &counters);
        let report = progress::show(&counters, output.progress, work).await?;
        return output.result(&report, &describe_plan(&report));
    }
    let step = settings::step(args)?;
    let client = settings::step_client(&args.planning, &step)?;
    let work = dry_run::plan(&step, &client, settings, &counters);
    let report = progress::show(&counters, output.progress, work).await?;
    output.result(&report, &describe_plan(&report))
}

/// A source on this machine.
fn image_job(args: &StepArgs) -> Result<Option<ImageJob>> {
    let usage = |why: &str, next: &str| Err(Error::new(ErrorKind::Usage, "read --source", why).next(next));
    if !ImagePath::is_meant(args.source.trim()) {
        return match args.format {
            Some(_) => {
                usage("--format is for a source on this machine", "--source file:disk.img --format raw")
            }
            None => Ok(None),
        };
    }
    if args.previous.as_ref().is_some_and(|text| !text.is_empty()) {
        return usage("an image is compared with the last point of the base blob", "leave --previous out");
    }
    let image = ImagePath::parse(args.source.trim(), args.format)?;
    let target = settings::resource(Role::Target, &args.target, &args.planning.access)?;
    Ok(Some(ImageJob { image, target }))
}

/// In the place of a digest.
pub(super) const NO_DIGEST: &str = "none";

/// Who moved the bytes, where it was not this machine as usual.
pub(super) fn moved_by(report: &Report) -> Option<String> {
    let pulled = size(report.bytes_pulled);
    match &report.fell_back {
        Some(why) if report.bytes_pulled > 0 => {
            Some(format!("mode          server for {pulled}, then stream: {why}"))
        }
        Some(why) => Some(format!("mode          stream, not server: {why}")),
        None if report.mode == Some(Mode::Server) => Some(format!(
            "mode          server: the service pulled {pulled} by itself; the point has no record"
        )),
        None => None,
    }
}

pub(super) fn describe(report: &Report) -> String {
    let to = &report.to;
    if report.already_sealed {
        return format!("{to} was sealed before, as point {}: nothing to do", report.point.point);
    }
    let kind =
        report.from.as_ref().map_or_else(|| "full copy".to_owned(), |from| format!("difference from {from}"));
    let resumed =
        report.resumed_from.map(|offset| format!("\ntaken up at   byte {offset}")).unwrap_or_default();
    let rate = size(per_second(report.bytes_sent, report.seconds));
    let retries =
        if report.retries > 0 { format!(", {} of them retries", report.retries) } else { String::new() };
    let by = moved_by(report).map(|line| format!("\n{line}")).unwrap_or_default();
    let verified = report
        .verified
        .map(|verified| format!("\nread back     {}", size(verified.bytes)))
        .unwrap_or_default();
    format!(
        "copied        {to}\nas            {kind}{resumed}\nchanged       {} in {} extents, {} cleared in {}\nsent          {} in {:.1} s ({rate}/s), {} were zeros{by}\nrequests      {}{retries}{verified}\npoint         {}\ndigest        {}",
        size(report.totals.bytes_changed),
        report.totals.data_extents,
        size(report.totals.bytes_cleared),
        report.totals.clear_extents,
        size(report.bytes_sent),
        report.seconds,
        size(report.bytes_zero),
        report.requests,
        report.point.point,
        report.point.digest.as_deref().unwrap_or(NO_DIGEST),
    )
}

fn describe_plan(report: &PlanReport) -> String {
    let what = match report.action {
        "create" => "create the base blob and copy in full",
        "begin" => "bring the base blob forward",
        "rebase" => "copy in full over what the base blob holds; its points stay",
        "go-on" => "go on with the interrupted step",
        "finish-seal" => "seal what is written already",
        _ => "nothing: the step is sealed",
    };
    let from = report.from.as_ref().map_or_else(String::new, |from| format!("\nfrom          {from}"));
    let by = match report.mode {
        Mode::Stream => "",
        Mode::Server => ", by the service itself if it takes that",
    };
    format!(
        "would         {what}{from}\nto            {} ({})\nchanged       {} in {} extents\ncleared       {} in {} extents\nread          {} ({} of it joined gaps){by}\nrequests      {} (besides a few for lease, marker and seal)\nat best       {:.1} s at the documented rates of a page blob",
        report.to,
        size(report.length),
        size(report.totals.bytes_changed),
        report.totals.data_extents,
        size(report.totals.bytes_cleared),
        report.totals.clear_extents,
        size(report.bytes_to_read),
        size(report.totals.bytes_joined),
        report.requests_planned,
        report.totals.least_seconds,
    )
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn per_second(bytes: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { (bytes as f64 / seconds) as u64 } else { 0 }
}
