//! The dry run: the same survey, decision, listing and plan as a step, without the copy.

use crate::azure::Client;
use crate::base;
use crate::base::decide::Decision;
use crate::chain::Survey;
use crate::error::Result;
use crate::plan::{Planner, Totals};
use crate::prepare::{Prepared, look_at_sources, prepare, resume_offset, start_listing};
use crate::progress::Progress;
use crate::step::{Mode, PlanReport, Settings, Step};

/// Says what [`replicate`](crate::replicate::replicate) would do. Writes nothing; refuses what it would refuse, but for a lease that
/// somebody holds.
pub async fn plan(
    step: &Step,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
) -> Result<PlanReport> {
    plan_prepared(&prepare(step, client, settings, progress).await?, settings, progress).await
}

pub(crate) async fn plan_prepared(
    prepared: &Prepared,
    settings: &Settings,
    progress: &Progress,
) -> Result<PlanReport> {
    let Prepared { survey, target, decision, .. } = prepared;
    let (action, resumes_from) = match decision {
        Decision::Create => ("create", None),
        Decision::Begin => ("begin", None),
        Decision::Rebase => ("rebase", None),
        Decision::GoOn(checkpoint) => ("go-on", Some(checkpoint.offset)),
        Decision::FinishSeal => ("finish-seal", None),
        Decision::Done(_) => ("done", None),
    };
    if *decision == Decision::Begin
        && let Some(marker) = base::look(target).await?.marker
    {
        base::check::unmodified(target, &marker, settings.listing).await?;
    }
    let mut totals = Totals::default();
    if matches!(decision, Decision::Create | Decision::Begin | Decision::Rebase | Decision::GoOn(_)) {
        totals = total(survey, resume_offset(decision), settings, progress).await?;
    }
    Ok(report(survey, settings, action, resumes_from, totals))
}

/// What a step would move, whatever the base blob holds now: for the later steps of a chain.
pub async fn measure(
    step: &Step,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
) -> Result<PlanReport> {
    let survey = look_at_sources(step, client, settings, progress).await?;
    let totals = total(&survey, 0, settings, progress).await?;
    let action = if survey.previous.is_some() { "begin" } else { "create" };
    Ok(report(&survey, settings, action, None, totals))
}

async fn total(survey: &Survey, from: u64, settings: &Settings, progress: &Progress) -> Result<Totals> {
    let mut listing = start_listing(survey, from, settings, progress);
    let mut planner = Planner::new(settings.plan, survey.source.length);
    let mut chunks = Vec::new();
    loop {
        match listing.next().await {
            Ok(Some(extent)) => planner.push(extent, &mut chunks),
            Ok(None) => return Ok(planner.finish(&mut chunks)),
            Err(error) => return Err(survey.blame(error).await),
        }
        chunks.clear();
    }
}

fn report(
    survey: &Survey,
    settings: &Settings,
    action: &'static str,
    resumes_from: Option<u64>,
    totals: Totals,
) -> PlanReport {
    // The service's own reads of the source are none of ours.
    let reads_of_service = if settings.mode == Mode::Server { totals.data_chunks } else { 0 };
    PlanReport {
        from: survey.previous.as_ref().map(|previous| previous.id.to_string()),
        to: survey.source.id.to_string(),
        length: survey.source.length,
        mode: settings.mode,
        action,
        resumes_from,
        bytes_to_read: totals.bytes_changed + totals.bytes_joined,
        requests_planned: totals.requests() - reads_of_service,
        totals,
    }
}
