//! `snapferry rollback`.

use tokio_util::sync::CancellationToken;

use super::args::RollbackArgs;
use super::output::{Output, size};
use super::{progress, settings};
use crate::azure::Role;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use crate::rollback::{self, RollbackReport};

pub(super) async fn rollback(
    args: Box<RollbackArgs>,
    output: Output,
    cancel: &CancellationToken,
) -> Result<()> {
    let settings = settings::copy_settings(&args.planning, &args.copying)?;
    let target = settings::resource(Role::Target, &args.target, &args.planning.access)?;
    if target.snapshot().is_some() {
        let why = "it names a snapshot; the base blob itself is put back";
        return Err(Error::new(ErrorKind::Usage, "use the target URL", why)
            .on(&target)
            .next("leave snapshot= out of --target"));
    }
    let client = settings::client(&args.planning, !target.is_signed())?;
    let counters = Progress::default();
    let work = rollback::rollback(&target, &client, &settings, &counters, cancel);
    let (report, course) = progress::observed(&counters, output.progress, work).await;
    let report = report?;
    output.observed(&report, &describe(&report), &course)
}

fn describe(report: &RollbackReport) -> String {
    let clean = format!("clean at      {}\npoint         {}", report.point.source, report.point.point);
    match (report.outcome, &report.given_up) {
        ("clean", _) => format!("nothing to do: the base blob is whole\n{clean}"),
        ("seal-finished", _) => format!("the step was written to its end, and is sealed now\n{clean}"),
        (_, given_up) => format!(
            "gave up       {}\ncopied back   {} in {:.1} s with {} requests\n{clean}",
            given_up.as_deref().unwrap_or("what somebody else wrote"),
            size(report.bytes),
            report.seconds,
            report.requests
        ),
    }
}
