//! The dry run: the same survey, decision, listing and plan as a step, without the copy.

use crate::azure::Client;
use crate::base;
use crate::base::decide::Decision;
use crate::error::Result;
use crate::plan::{Planner, Totals};
use crate::prepare::{Prepared, prepare, resume_offset, start_listing};
use crate::progress::Progress;
use crate::step::{PlanReport, Settings, Step};

/// Says what [`replicate`](crate::replicate::replicate) would do. Writes nothing; refuses what it would refuse, but for a lease that
/// somebody holds.
pub async fn plan(
    step: &Step,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
) -> Result<PlanReport> {
    let Prepared { survey, target, opening, decision } = prepare(step, client, settings, progress).await?;
    let (action, resumes_from) = match &decision {
        Decision::Create => ("create", None),
        Decision::Begin => ("begin", None),
        Decision::Rebase => ("rebase", None),
        Decision::GoOn(checkpoint) => ("go-on", Some(checkpoint.offset)),
        Decision::FinishSeal => ("finish-seal", None),
        Decision::Done(_) => ("done", None),
    };
    if decision == Decision::Begin
        && let Some(marker) = base::look(&target).await?.marker
    {
        base::check::unmodified(&target, &marker, settings.listing).await?;
    }
    let mut totals = Totals::default();
    if matches!(decision, Decision::Create | Decision::Begin | Decision::Rebase | Decision::GoOn(_)) {
        let mut listing = start_listing(&survey, resume_offset(&decision), settings, progress);
        let mut planner = Planner::new(settings.plan);
        let mut chunks = Vec::new();
        loop {
            match listing.next().await {
                Ok(Some(extent)) => planner.push(extent, &mut chunks),
                Ok(None) => break,
                Err(error) => return Err(survey.blame(error).await),
            }
            chunks.clear();
        }
        totals = planner.finish(&mut chunks);
    }
    Ok(PlanReport {
        from: opening.step.from.as_ref().map(ToString::to_string),
        to: opening.step.to.to_string(),
        length: opening.length,
        action,
        resumes_from,
        bytes_to_read: totals.bytes_changed + totals.bytes_joined,
        requests_planned: totals.requests(),
        totals,
    })
}
