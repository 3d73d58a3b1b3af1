//! The spine: one step, from two URLs to a sealed point.
//!
//! ```text
//! survey ──> decide ──> list ──> open ──> copy ──> check ──> seal
//! (source,   (does the  (diff,   (lease,  (window,  (counts,  (fence closed,
//!  previous)  base fit?) first    fence,   CRC both  footer)   snapshot with
//!                        reply)   marker)  ways)               If-Match, clean)
//! └────────── nothing is written ─────┘└──────── torn: only this step can go on ────────┘
//! ```
//!
//! **Consistency.** A point is sealed only when every chunk that was planned was written and acknowledged with
//! its checksum. Between the marker "applying" and the seal the base says of itself that it is torn.
//!
//! **Retry.** Inside `azure::retry` only. What still fails there ends the step.
//!
//! **Cancellation and failure.** The last checkpoint is written and the lease released, both as far as
//! possible; the base stays "applying" and the same call goes on from the checkpoint, on any machine.
//!
//! **Crash.** The same without the farewell: the lease lapses within a minute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::azure::{Client, Endpoint, Pace, PageBlob, Resource};
use crate::base::decide::{Decision, Wish, decide};
use crate::base::lease::Loss;
use crate::base::marker::StepId;
use crate::base::points::Point;
use crate::base::{self, Base, Opening};
use crate::chain::{Survey, survey};
use crate::copy::chunk::Route;
use crate::copy::frontier::Checkpoint;
use crate::copy::scan::ZeroRule;
use crate::copy::{Copied, Run, Stop};
use crate::diff::Listing;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Totals;
use crate::progress::{Phase, Progress};
use crate::range::{PAGE, PageRange};
use crate::step::{Report, Settings, Step};

/// Does one step. Calling it again after it ended, however it ended, is safe: it goes on, or finds that nothing
/// is left to do.
///
/// # Errors
/// See [`ErrorKind`]. Up to the marker nothing was written.
pub async fn replicate(
    step: &Step,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Report> {
    let started = Instant::now();
    let prepared = tokio::select! {
        prepared = prepare(step, client, settings, progress) => prepared?,
        () = cancel.cancelled() => return Err(interrupted_early()),
    };
    let Prepared { survey, target, opening, decision } = prepared;
    let outcome = match decision {
        Decision::Done(marker) => {
            let time = marker.point.clone().unwrap_or_default();
            Outcome { point: Point::from_marker(&time, &marker), already_sealed: true, ..Outcome::default() }
        }
        decision => {
            // Before the first write: does the service make this list at all?
            let mut listing = start_listing(&survey, resume_offset(&decision), settings, progress);
            if decision != Decision::FinishSeal {
                tokio::select! {
                    ready = listing.ready() => if let Err(error) = ready { return Err(survey.blame(error).await) },
                    () = cancel.cancelled() => return Err(interrupted_early()),
                }
            }
            write(&survey, &target, &opening, decision, listing, settings, progress, cancel).await?
        }
    };
    progress.enter(Phase::Done);
    let read = progress.read();
    Ok(Report {
        from: opening.step.from.as_ref().map(ToString::to_string),
        to: opening.step.to.to_string(),
        length: opening.length,
        already_sealed: outcome.already_sealed,
        resumed_from: outcome.resumed_from,
        totals: outcome.totals,
        bytes_sent: outcome.bytes_sent,
        bytes_zero: outcome.bytes_zero,
        requests: read.source.requests + read.target.requests,
        retries: read.source.retries + read.target.retries,
        seconds: started.elapsed().as_secs_f64(),
        point: outcome.point,
    })
}

/// Everything that is known before the first write.
pub(crate) struct Prepared {
    pub(crate) survey: Survey,
    pub(crate) target: PageBlob,
    pub(crate) opening: Opening,
    pub(crate) decision: Decision,
}

pub(crate) async fn prepare(
    step: &Step,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
) -> Result<Prepared> {
    progress.enter(Phase::Checking);
    if let Some(time) = step.target.snapshot() {
        let why = format!("it names a snapshot ({time}); only the blob itself can be written to");
        return Err(Error::new(ErrorKind::Usage, "use the target URL", why)
            .on(&step.target)
            .next("leave snapshot= out of --target"));
    }
    let reading = Arc::new(Pace::new(settings.caps));
    let connect = |resource: &Resource, pace: &Arc<Pace>, meter| {
        PageBlob::new(Endpoint::new(resource.clone(), client, Arc::clone(pace), meter)).map_err(Error::from)
    };
    let source = connect(&step.source, &reading, Arc::clone(&progress.source))?;
    let previous = step
        .previous
        .as_ref()
        .map(|previous| connect(previous, &reading, Arc::clone(&progress.source)))
        .transpose()?;
    let target = connect(&step.target, &Arc::new(Pace::new(settings.caps)), Arc::clone(&progress.target))?;
    let survey = survey(source, previous, settings.across_hosts).await?;
    let opening = Opening {
        step: StepId {
            from: survey.previous.as_ref().map(|previous| previous.id.clone()),
            to: survey.source.id.clone(),
        },
        length: survey.source.length,
        run: uuid::Uuid::new_v4().to_string(),
        across_hosts: settings.across_hosts,
        lease: settings.lease,
    };
    let look = base::look(&target).await?;
    let decision = decide(&look, &wish(&survey, &opening)).map_err(|error| error.on(target.resource()))?;
    Ok(Prepared { survey, target, opening, decision })
}

fn wish<'a>(survey: &Survey, opening: &'a Opening) -> Wish<'a> {
    Wish {
        step: &opening.step,
        from_length: survey.previous.as_ref().map(|previous| previous.length),
        to_length: opening.length,
        across_hosts: opening.across_hosts,
    }
}

pub(crate) fn resume_offset(decision: &Decision) -> u64 {
    if let Decision::GoOn(checkpoint) = decision { checkpoint.offset } else { 0 }
}

pub(crate) fn start_listing(survey: &Survey, from: u64, settings: &Settings, progress: &Progress) -> Listing {
    let length = survey.source.length;
    // Both are multiples of a page (the marker and the survey see to it), so only "nothing left" is no range.
    let range = PageRange::new(from, length).ok();
    let forced = survey.forced_pages().into_iter().filter(|page| page.start() >= from).collect();
    let listing =
        Listing::start(&survey.source.blob, &survey.against(), range, length, forced, settings.listing);
    progress.follow(listing.progress());
    listing
}

/// What the writing part came to.
#[derive(Default)]
struct Outcome {
    point: Point,
    already_sealed: bool,
    resumed_from: Option<u64>,
    totals: Totals,
    bytes_sent: u64,
    bytes_zero: u64,
}

/// The part that writes: from the lease to its release.
#[allow(clippy::too_many_arguments)]
async fn write(
    survey: &Survey,
    target: &PageBlob,
    opening: &Opening,
    decision: Decision,
    mut listing: Listing,
    settings: &Settings,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    let mut base = match decision {
        Decision::Create => Base::create(target, opening).await?,
        _ => Base::own(target, opening).await?,
    };
    // Under the lease, what was decided without it must still be so; a base that this run created is past it.
    let held = match decision {
        Decision::Create => Ok(Decision::Create),
        _ => base.look_again(&wish(survey, opening)),
    };
    let outcome = match held {
        Ok(now) if now == decision => {
            write_as_owner(&mut base, survey, opening, decision, &mut listing, settings, progress, cancel)
                .await
        }
        Ok(_) => Err(base::moved_on(target)),
        Err(error) => Err(error.on(target.resource())),
    };
    base.farewell().await;
    outcome
}

#[allow(clippy::too_many_arguments)]
async fn write_as_owner(
    base: &mut Base,
    survey: &Survey,
    opening: &Opening,
    decision: Decision,
    listing: &mut Listing,
    settings: &Settings,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    if decision == Decision::FinishSeal {
        progress.enter(Phase::Sealing);
        return Ok(Outcome { point: base.finish_seal().await?, ..Outcome::default() });
    }
    if decision == Decision::Begin {
        let marker = base.marker().await;
        tokio::select! {
            unmodified = base::check::unmodified(base.blob(), &marker, settings.listing) => unmodified?,
            () = cancel.cancelled() => return Err(interrupted_early()),
        }
    }
    let checkpoint = match decision {
        Decision::GoOn(checkpoint) => checkpoint,
        _ => Checkpoint::default(),
    };
    base.begin(opening, checkpoint).await?;
    progress.enter(Phase::Copying);
    tracing::info!(step = %opening.step, from = checkpoint.offset, generation = base.fence().generation, "copying");
    let route = Route {
        source: survey.source.blob.clone(),
        target: base.blob().clone(),
        fence: base.fence(),
        source_crc: survey.source_crc,
        zeros: ZeroRule {
            shortest_run: settings.zero_run.max(PAGE),
            trim_edges: opening.step.from.is_none(),
        },
        zeros_are_free: opening.step.from.is_none(),
    };
    let mut run = Run::new(base, route, settings.plan, settings.copy, checkpoint, progress);
    let result = run.to_end(listing, opening.length, cancel).await;
    let reached = run.checkpoint();
    drop(run);
    let Copied { totals, checkpoint: written } = match result {
        Ok(copied) => copied,
        Err(stop) => return Err(stopped(base, survey, opening, stop, reached).await),
    };
    progress.enter(Phase::Sealing);
    base::check::footer(base, survey).await?;
    let point = base.seal(written).await?;
    Ok(Outcome {
        point,
        already_sealed: false,
        resumed_from: (checkpoint.offset > 0).then_some(checkpoint.offset),
        totals,
        bytes_sent: written.counts.bytes_sent - checkpoint.counts.bytes_sent,
        bytes_zero: written.counts.bytes_zero - checkpoint.counts.bytes_zero,
    })
}

/// The farewell of a run that did not reach its end: the checkpoint is written down, and the reason told.
async fn stopped(base: &Base, survey: &Survey, opening: &Opening, stop: Stop, reached: Checkpoint) -> Error {
    const FAREWELL: Duration = Duration::from_secs(10);
    let fenced = match &stop {
        Stop::Call(error) | Stop::Lost(Loss::Refused(error)) => error.is_fenced(),
        Stop::Lost(Loss::Late) => true,
        Stop::Cancelled | Stop::Miscounted(_) => false,
    };
    if !fenced && let Err(error) = tokio::time::timeout(FAREWELL, base.note(reached)).await.unwrap_or(Ok(0)) {
        tracing::debug!(cause = %error.cause, "the last checkpoint was not written: the one before it stands");
    }
    match stop {
        Stop::Call(error) | Stop::Lost(Loss::Refused(error)) if fenced => {
            base::explain_lost(base.blob(), &error.cause.to_string()).await
        }
        Stop::Call(error) | Stop::Lost(Loss::Refused(error)) => survey.blame(error).await,
        Stop::Lost(Loss::Late) => {
            base::explain_lost(base.blob(), "the lease could not be renewed in time").await
        }
        Stop::Cancelled => Error::new(
            ErrorKind::Interrupted,
            "go on copying",
            format!("interrupted; everything below byte {} of {} is written", reached.offset, opening.length),
        )
        .next("the same command goes on from there, also on another machine"),
        Stop::Miscounted(why) => Error::new(ErrorKind::Corruption, "finish the step", why)
            .next("nothing was sealed; run the same command again, and report this"),
    }
}

fn interrupted_early() -> Error {
    Error::new(ErrorKind::Interrupted, "begin the step", "interrupted before anything was written")
        .next("run the same command again")
}
