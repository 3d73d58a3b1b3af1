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

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::azure::failure::{CallError, Cause};
use crate::azure::{Against, Caps, Client, Endpoint, Pace, PageBlob, Resource};
use crate::base::decide::{Decision, Wish, decide};
use crate::base::lease::{LeaseOptions, Loss};
use crate::base::marker::StepId;
use crate::base::points::Point;
use crate::base::{self, Base, Opening};
use crate::chain::{Survey, survey};
use crate::copy::chunk::Route;
use crate::copy::frontier::Checkpoint;
use crate::copy::scan::ZeroRule;
use crate::copy::{Copied, CopyOptions, Run, Stop};
use crate::diff::{Listing, ListingOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{PlanOptions, Planner, Totals};
use crate::progress::{Phase, Progress};
use crate::range::{PAGE, PageRange};

/// The three URLs of a step.
#[derive(Clone, Debug)]
pub struct Step {
    /// The snapshot to copy.
    pub source: Resource,
    /// The snapshot at which the base is clean; `None` copies in full.
    pub previous: Option<Resource>,
    /// The base blob.
    pub target: Resource,
}

/// How a step is done. The defaults suit one page blob of an ordinary account.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How extents become chunks.
    pub plan: PlanOptions,
    /// Zeros inside a chunk that are not sent as bytes, from this length on.
    pub zero_run: u64,
    /// How chunks are moved.
    pub copy: CopyOptions,
    /// How page lists are asked for.
    pub listing: ListingOptions,
    /// How the lease is held.
    pub lease: LeaseOptions,
    /// Caps on each side: on what is read from the source, and on what is written to the target.
    pub caps: Caps,
    /// Tell snapshots apart by their time alone: for a disk whose export moved to another host.
    pub across_hosts: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            plan: PlanOptions::default(),
            zero_run: 64 << 10,
            copy: CopyOptions::default(),
            listing: ListingOptions::default(),
            lease: LeaseOptions::default(),
            caps: Caps::default(),
            across_hosts: false,
        }
    }
}

/// What a step did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The snapshot that the step began at; `None` for a full copy.
    pub from: Option<String>,
    /// The snapshot that was copied.
    pub to: String,
    /// Its length in bytes, footer included.
    pub length: u64,
    /// Whether the step was sealed before, so that nothing was done.
    pub already_sealed: bool,
    /// The byte from which an interrupted run was taken up.
    pub resumed_from: Option<u64>,
    /// What was planned in this run.
    #[serde(flatten)]
    pub totals: Totals,
    /// Bytes of the source that were sent to the target, each once.
    pub bytes_sent: u64,
    /// Bytes that are zero in the source and were not sent.
    pub bytes_zero: u64,
    /// Requests to both sides, retries included.
    pub requests: u64,
    /// Of those, attempts that were made again.
    pub retries: u64,
    /// Wall-clock time.
    pub seconds: f64,
    /// The point.
    pub point: Point,
}

/// What a step would do.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// The snapshot that the step would begin at; `None` for a full copy.
    pub from: Option<String>,
    /// The snapshot that would be copied.
    pub to: String,
    /// Its length in bytes, footer included.
    pub length: u64,
    /// `create`, `begin`, `go-on`, `finish-seal` or `done`.
    pub action: &'static str,
    /// The byte from which an interrupted run would be taken up.
    pub resumes_from: Option<u64>,
    /// Sums over the plan.
    #[serde(flatten)]
    pub totals: Totals,
    /// Bytes that would be read from the source: changed and joined.
    pub bytes_to_read: u64,
    /// Requests that moving them would take, without retries.
    pub requests_planned: u64,
}

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

/// Says what [`replicate`] would do. Writes nothing; refuses what it would refuse.
pub async fn plan(
    step: &Step,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
) -> Result<PlanReport> {
    let Prepared { survey, opening, decision, .. } = prepare(step, client, settings, progress).await?;
    let (action, resumes_from) = match &decision {
        Decision::Create => ("create", None),
        Decision::Begin => ("begin", None),
        Decision::GoOn(checkpoint) => ("go-on", Some(checkpoint.offset)),
        Decision::FinishSeal => ("finish-seal", None),
        Decision::Done(_) => ("done", None),
    };
    let mut totals = Totals::default();
    if matches!(decision, Decision::Create | Decision::Begin | Decision::GoOn(_)) {
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

/// Everything that is known before the first write.
struct Prepared {
    survey: Survey,
    target: PageBlob,
    opening: Opening,
    decision: Decision,
}

async fn prepare(step: &Step, client: &Client, settings: &Settings, progress: &Progress) -> Result<Prepared> {
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

fn resume_offset(decision: &Decision) -> u64 {
    if let Decision::GoOn(checkpoint) = decision { checkpoint.offset } else { 0 }
}

fn start_listing(survey: &Survey, from: u64, settings: &Settings, progress: &Progress) -> Listing {
    let length = survey.source.length;
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
        Ok(_) => Err(Error::new(
            ErrorKind::LeaseHeld,
            "take over the base blob",
            "another run moved it on between the first look and the lease",
        )
        .on(target.resource())
        .next("run the same command again")),
        Err(error) => Err(error.on(target.resource())),
    };
    if let Err(error) = base.release().await {
        tracing::debug!(cause = %error.cause, "the lease was not released: it lapses within a minute");
    }
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
        check_unmodified(base, settings).await?;
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
    check_footer(base, survey).await?;
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

/// A base that is clean at A must equal its last point. A service that cannot tell (or a point that was deleted)
/// is passed over: the marker and the lease still stand.
async fn check_unmodified(base: &Base, settings: &Settings) -> Result<()> {
    let marker = base.marker().await;
    let Some(point) = marker.point else { return Ok(()) };
    let Ok(whole) = PageRange::new(0, marker.length) else { return Ok(()) };
    let against = Against::BlobSnapshot(point.clone());
    let mut changes =
        Listing::start(base.blob(), &against, Some(whole), marker.length, Vec::new(), settings.listing);
    let modified = |why: String| {
        Err(Error::new(ErrorKind::BaseModified, "begin at the base blob as it is", why)
            .on(base.blob().resource())
            .next("somebody else wrote to it; copy in full to another blob, which only snapferry writes to"))
    };
    match changes.next().await {
        Ok(None) => Ok(()),
        Ok(Some(extent)) => {
            modified(format!("it differs from its last point {point} at bytes {}", extent.range))
        }
        Err(error) if error.code() == "BlobOverwritten" => {
            modified(format!("it was overwritten as a whole after its last point {point}"))
        }
        Err(CallError { cause: Cause::Service(reply), .. })
            if matches!(reply.status, 400 | 404 | 409 | 501) =>
        {
            tracing::warn!(
                status = reply.status,
                code = reply.code,
                "could not compare the base with its last point"
            );
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// No disk can be made of an image without its footer: the most telling page is compared before the seal.
async fn check_footer(base: &Base, survey: &Survey) -> Result<()> {
    let Some(footer) = &survey.footer else { return Ok(()) };
    let length = survey.source.length;
    let Ok(last) = PageRange::new(length - PAGE, length) else { return Ok(()) };
    let page = base.blob().read(last, false).await?.concat();
    if page == *footer {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corruption,
        "seal the step",
        "the last page of the base blob is not the source's VHD footer",
    )
    .on(base.blob().resource())
    .next("nothing was sealed; copy in full to another blob, and report this"))
}

fn interrupted_early() -> Error {
    Error::new(ErrorKind::Interrupted, "begin the step", "interrupted before anything was written")
        .next("run the same command again")
}
