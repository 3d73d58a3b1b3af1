//! The spine: one step, from two URLs to a sealed point.
//!
//! ```text
//! survey ──> decide ──> list ──> open ──> copy ──> check ──> verify ──> seal
//! (source,   (does the  (diff,   (lease,  (window,  (counts,  (a sample  (fence closed,
//!  previous)  base fit?) first    fence,   CRC both  footer)   is read    snapshot with
//!                        reply)   marker)  ways)               back)      If-Match, clean)
//! └────────── nothing is written ─────┘└──────── torn: only this step can go on ───────────────────┘
//! ```
//!
//! **Consistency.** A point is sealed only when every chunk that was planned was written and acknowledged with
//! its checksum; in `server` mode it was acknowledged, and compared with the source in a sample. Between the marker "applying" and the seal the base says of itself that it is torn.
//!
//! **Retry.** Inside `azure::retry` only. What still fails there ends the step.
//!
//! **Cancellation and failure.** The last checkpoint is written and the lease released, both as far as
//! possible; the base stays "applying" and the same call goes on from the checkpoint, on any machine.
//!
//! **Crash.** The same without the farewell: the lease lapses within a minute.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::azure::{Client, PageBlob};
use crate::base::decide::Decision;
use crate::base::lease::Loss;
use crate::base::marker::Speed;
use crate::base::points::Point;
use crate::base::{self, Base, FAREWELL, Opening};
use crate::chain::Survey;
use crate::copy::chunk::{Route, Source};
use crate::copy::frontier::Checkpoint;
use crate::copy::keeper::Keeper;
use crate::copy::pull::Puller;
use crate::copy::scan::ZeroRule;
use crate::copy::{Copied, Run, Stop};
use crate::diff::Listing;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{Planner, Totals};
use crate::prepare::{Prepared, prepare, resume_offset, start_listing, wish};
use crate::progress::{Phase, Progress};
use crate::range::PAGE;
use crate::restore::check::{Check, Checked};
use crate::step::{Mode, Report, Settings, Step, Verified, Verify};
use crate::verify::{ReadBack, read_back};

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
    carry_out(prepare(step, client, settings, progress), settings, progress, cancel).await
}

/// Does what `preparing` comes to.
pub(crate) async fn carry_out(
    preparing: impl Future<Output = Result<Prepared>>,
    settings: &Settings,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Report> {
    let started = Instant::now();
    let prepared = tokio::select! {
        prepared = preparing => prepared?,
        () = cancel.cancelled() => return Err(interrupted_early()),
    };
    let Prepared { survey, target, opening, decision, check } = prepared;
    let work = Work { survey: &survey, opening: &opening, check: check.as_ref(), settings, progress, cancel };
    let outcome = match decision {
        Decision::Done(marker) => {
            let time = marker.point.clone().unwrap_or_default();
            Outcome { point: Point::from_marker(&time, &marker), already_sealed: true, ..Outcome::default() }
        }
        decision => {
            let listing = work.listing(&decision).await?;
            work.write(&target, decision, listing).await?
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
        mode: outcome.mode,
        fell_back: outcome.fell_back,
        totals: outcome.totals,
        bytes_sent: outcome.bytes_sent,
        bytes_pulled: outcome.bytes_pulled,
        bytes_zero: outcome.bytes_zero,
        verified: outcome.verified,
        requests: read.source.requests + read.target.requests,
        retries: read.source.retries + read.target.retries,
        seconds: started.elapsed().as_secs_f64(),
        point: outcome.point,
    })
}

/// What the writing part came to.
#[derive(Default)]
struct Outcome {
    point: Point,
    already_sealed: bool,
    resumed_from: Option<u64>,
    mode: Option<Mode>,
    fell_back: Option<String>,
    totals: Totals,
    bytes_sent: u64,
    bytes_pulled: u64,
    bytes_zero: u64,
    verified: Option<Verified>,
}

/// What every part of the work needs.
struct Work<'a> {
    survey: &'a Survey,
    opening: &'a Opening,
    check: Option<&'a Check>,
    settings: &'a Settings,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
}

impl Work<'_> {
    /// Starts the listing and waits for its first reply: before the first write, does the service make it at all?
    /// `None` when everything is written and only the seal is missing.
    async fn listing(&self, decision: &Decision) -> Result<Option<Listing>> {
        if *decision == Decision::FinishSeal {
            return Ok(None);
        }
        let mut listing = start_listing(self.survey, resume_offset(decision), self.settings, self.progress);
        tokio::select! {
            ready = listing.ready() => match ready {
                Ok(()) => Ok(Some(listing)),
                Err(error) => Err(self.survey.blame(error).await),
            },
            () = self.cancel.cancelled() => Err(interrupted_early()),
        }
    }

    /// The part that writes: from the lease to its release.
    async fn write(
        &self,
        target: &PageBlob,
        decision: Decision,
        listing: Option<Listing>,
    ) -> Result<Outcome> {
        let taking_over = async {
            match decision {
                Decision::Create => Base::create(target, self.opening).await,
                _ => Base::own(target, self.opening.lease).await,
            }
        };
        let mut base = tokio::select! {
            base = taking_over => base?,
            // A lease that was just taken lapses by itself.
            () = self.cancel.cancelled() => return Err(interrupted_early()),
        };
        // What was decided without the lease must still be so; a base that this run created is past it.
        let held = match decision {
            Decision::Create => Ok(Decision::Create),
            _ => base.look_again(&wish(self.survey, self.opening)),
        };
        let outcome = match (held, listing) {
            (Ok(now), _) if now != decision => Err(base::moved_on(target)),
            (Ok(_), Some(listing)) => self.apply(&mut base, &decision, listing).await,
            (Ok(_), None) => self.finish_seal(&mut base).await,
            (Err(error), _) => Err(error.on(target.resource())),
        };
        base.farewell().await;
        outcome
    }

    async fn finish_seal(&self, base: &mut Base) -> Result<Outcome> {
        self.progress.enter(Phase::Sealing);
        Ok(Outcome { point: base.finish_seal().await?, ..Outcome::default() })
    }

    /// Marker, copy, check, seal.
    async fn apply(&self, base: &mut Base, decision: &Decision, mut listing: Listing) -> Result<Outcome> {
        if *decision == Decision::Begin {
            let marker = base.marker().await;
            tokio::select! {
                unmodified = base::check::unmodified(base.blob(), &marker, self.settings.listing) => unmodified?,
                () = self.cancel.cancelled() => return Err(interrupted_early()),
            }
        }
        let from =
            if let Decision::GoOn(checkpoint) = decision { *checkpoint } else { Checkpoint::default() };
        base.begin(self.opening, from).await?;
        if self.opening.step.from.is_none() && from.offset == 0 && *decision != Decision::Create {
            // A full copy begins at zeros. Whatever the base held is in its points.
            base.clear(self.opening.length).await?;
        }
        self.progress.enter(Phase::Copying);
        tracing::info!(step = %self.opening.step, from = from.offset, generation = base.fence().generation, "copying");
        let settings = self.settings;
        let begun = Instant::now();
        let planner =
            Planner::new(settings.plan, self.opening.length).behind(from.offset, self.opening.length);
        let keeper = Checked { inner: base, check: self.check };
        let puller = self.puller(base);
        let route = self.route(base, puller.clone());
        let mut run = Run::new(&keeper, route, planner, settings.copy, from, self.progress);
        let result = run.to_end(&mut listing, self.opening.length, self.cancel).await;
        let (reached, has_cleared) = (run.checkpoint(), run.has_cleared());
        drop(run);
        let Copied { totals, checkpoint: written } = match result {
            Ok(copied) => copied,
            Err(stop) => {
                if stop.is_distrust() {
                    // What a list said that turned out to be wrong is not trusted, not even where it looked right: back
                    // to where this run began, also over the checkpoints that it noted meanwhile.
                    // This is worth more than a moment: otherwise the next run goes on from what must not be trusted.
                    if base.distrust(from, has_cleared).await.is_err() {
                        tracing::error!(
                            "it was not written down that the step is not to be gone on with: snapferry rollback --target <URL>"
                        );
                    }
                    return Err(self.explain(base, stop, from).await);
                }
                return Err(self.stopped(base, stop, reached).await);
            }
        };
        self.progress.enter(Phase::Sealing);
        if let Some(check) = self.check {
            tokio::select! {
                checked = check.finish(self.opening.length) => checked?,
                () = self.cancel.cancelled() => return Err(self.stopped(base, Stop::Cancelled, written).await),
            }
        }
        base::check::footer(base, self.survey).await?;
        let verified = self.verify(base, from, written).await?;
        self.survey.is_as_it_was().await?;
        self.survey.give_back().await;
        self.progress.enter(Phase::Sealing);
        let bytes = written.counts.bytes_sent - from.counts.bytes_sent;
        let bytes_pulled = written.counts.bytes_pulled - from.counts.bytes_pulled;
        let fell_back = puller.as_ref().and_then(|puller| puller.fell_back()).map(str::to_owned);
        let is_server = bytes_pulled > 0 || (puller.is_some() && fell_back.is_none());
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        base.measured(Speed { bytes, millis }).await;
        Ok(Outcome {
            point: base.seal(written).await?,
            already_sealed: false,
            resumed_from: (from.offset > 0).then_some(from.offset),
            mode: Some(if is_server { Mode::Server } else { Mode::Stream }),
            fell_back,
            totals,
            bytes_sent: bytes,
            bytes_pulled,
            bytes_zero: written.counts.bytes_zero - from.counts.bytes_zero,
            verified,
        })
    }

    /// Reads back what was written, before anything says that it is right. What is not right is never gone on with.
    async fn verify(
        &self,
        base: &mut Base,
        from: Checkpoint,
        written: Checkpoint,
    ) -> Result<Option<Verified>> {
        if self.settings.verify == Verify::None {
            if written.counts.bytes_pulled > 0 {
                tracing::warn!(
                    bytes = written.counts.bytes_pulled,
                    "nothing proves what the service pulled by itself: it was neither checked on its way nor read back"
                );
            }
            return Ok(None);
        }
        let pulled_before = (from.counts.bytes_pulled > 0).then_some(from.offset);
        let read_back = read_back(base, self.survey, pulled_before, self.settings, self.progress);
        let stop = tokio::select! {
            read = read_back => match read? {
                ReadBack { bytes, wrong: None } => {
                    return Ok(Some(Verified { mode: self.settings.verify, bytes }));
                }
                ReadBack { wrong: Some(at), .. } => return Err(self.doubt(base, at).await),
            },
            lost = base.lost() => Stop::Lost(lost),
            () = self.cancel.cancelled() => Stop::Cancelled,
        };
        Err(self.stopped(base, stop, written).await)
    }

    /// The base blob does not give back what was written to it: the step begins again at its start.
    async fn doubt(&self, base: &mut Base, at: u64) -> Error {
        if base.undo(&self.opening.run).await.is_err() {
            tracing::error!(
                "it was not written down that the step is to be begun again: snapferry rollback --target <URL>"
            );
        }
        let why = format!("the base blob does not hold what the source holds: they differ at byte {at}");
        Error::new(ErrorKind::Corruption, "verify the step", why)
            .on(base.blob().resource())
            .next("nothing was sealed; the same command copies the step again. If it fails again, begin anew with --rebase, and report this")
    }

    /// Has the service move the bytes, where that is asked for.
    fn puller(&self, base: &Base) -> Option<Arc<Puller>> {
        match (&self.survey.source.at, self.settings.mode) {
            (Source::Blob { blob, .. }, Mode::Server) => {
                Some(Arc::new(Puller::new(blob.clone(), base.blob().clone(), base.fence())))
            }
            _ => None,
        }
    }

    fn route(&self, base: &Base, puller: Option<Arc<Puller>>) -> Route {
        // A full copy begins at zeros: what it does not write is zero already.
        let zeros_are_free = self.opening.step.from.is_none();
        Route {
            source: self.survey.source.at.clone(),
            sink: base.sink(),
            zeros: ZeroRule { shortest_run: self.settings.zero_run.max(PAGE), trim_edges: zeros_are_free },
            zeros_are_free,
            puller,
        }
    }

    /// The farewell of a run that did not reach its end: the checkpoint is written down, and the reason told.
    async fn stopped(&self, base: &Base, stop: Stop, reached: Checkpoint) -> Error {
        if !is_fenced(&stop)
            && let Ok(Err(error)) = tokio::time::timeout(FAREWELL, base.note(reached)).await
        {
            tracing::debug!(cause = %error.cause, "the last checkpoint was not written: the one before it stands");
        }
        self.explain(base, stop, reached).await
    }

    async fn explain(&self, base: &Base, stop: Stop, reached: Checkpoint) -> Error {
        let fenced = is_fenced(&stop);
        match stop {
            Stop::Call(error) | Stop::Lost(Loss::Refused(error)) if fenced => {
                base::explain_lost(base.blob(), &error.cause.to_string()).await
            }
            Stop::Call(error) | Stop::Lost(Loss::Refused(error)) => self.survey.blame(error).await,
            Stop::Lost(Loss::Late) => {
                base::explain_lost(base.blob(), "the lease could not be renewed in time").await
            }
            Stop::Cancelled => Error::new(
                ErrorKind::Interrupted,
                "go on copying",
                format!("everything below byte {} of {} is written", reached.offset, self.opening.length),
            )
            .next("the same command goes on from there, also on another machine"),
            Stop::Miscounted(why) => Error::new(ErrorKind::Corruption, "finish the step", why)
                .next("nothing was sealed; run the same command again, and report this"),
        }
    }
}

/// Whether another writer took over.
fn is_fenced(stop: &Stop) -> bool {
    match stop {
        Stop::Call(error) | Stop::Lost(Loss::Refused(error)) => error.is_fenced(),
        Stop::Lost(Loss::Late) => true,
        Stop::Cancelled | Stop::Miscounted(_) => false,
    }
}

fn interrupted_early() -> Error {
    Error::new(ErrorKind::Interrupted, "begin the step", "interrupted before the first byte was copied")
        .next("run the same command again")
}
