//! The way back: a base blob that an abandoned step has torn equals its last point again.
//!
//! ```text
//! look ──> own ──> undo ──> copy back ──> resize ──> compare ──> clean at the last point
//!          (lease) (fence,   (what changed since the    (base and point, read
//!                  checkpoint point, by diff on the      wherever they differed)
//!                  to zero)   target itself)
//! ```
//!
//! Only pages that were written or cleared since the point are copied, from the point to the base it was taken of:
//! both are in the target region. Copy Blob over the base would be quicker to say, and would break every later
//! difference against its points (`BlobOverwritten`).
//!
//! **Crash.** Before the first page is copied back the marker says "applying, from the start". From there on the base
//! holds a mixture of both ends, and both ways out of it begin at the start: the step writes every page that
//! differs, and so does the rollback.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::azure::{Against, Client, Endpoint, PageBlob, Resource, Role};
use crate::base::marker::{Marker, State};
use crate::base::points::{self, Point};
use crate::base::{self, Base};
use crate::chain::SnapshotId;
use crate::chain::survey::sends_crc;
use crate::copy::chunk::{Route, Source};
use crate::copy::frontier::Checkpoint;
use crate::copy::scan::ZeroRule;
use crate::copy::{Run, Stop};
use crate::diff::Listing;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Planner;
use crate::progress::{Phase, Progress};
use crate::range::{PAGE, PageRange};
use crate::step::Settings;

/// What a rollback did.
#[derive(Clone, Debug, Serialize)]
pub struct RollbackReport {
    /// `rolled-back`, `seal-finished` (the step was written to its end, so it was sealed instead) or `clean`
    /// (nothing to do).
    pub outcome: &'static str,
    /// The step that was given up.
    pub given_up: Option<String>,
    /// The point that the base equals now.
    pub point: Point,
    /// Bytes that were copied back.
    pub bytes: u64,
    /// Requests to the target, retries included.
    pub requests: u64,
    /// Wall-clock time.
    pub seconds: f64,
}

/// Puts a torn base blob back to its last point. Calling it again after it ended, however it ended, is safe.
///
/// # Errors
/// [`ErrorKind::BaseNotClean`] when there is no point to go back to; otherwise see [`ErrorKind`].
pub async fn rollback(
    target: &Resource,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<RollbackReport> {
    let started = Instant::now();
    progress.enter(Phase::Checking);
    let pace = client.pace(Role::Target, settings.caps);
    let blob = PageBlob::new(Endpoint::new(target.clone(), client, pace, Arc::clone(&progress.target)))?;
    let marker = base::look(&blob).await?.into_marker(&blob, "roll the base blob back")?;
    let back = Back { settings, progress, cancel };
    let done = if marker.state == State::Clean && !back.is_modified(&blob, &marker).await? {
        Done { outcome: "clean", given_up: None, point: of_clean(&marker), bytes: 0 }
    } else {
        let mut base = tokio::select! {
            base = Base::own(&blob, settings.lease) => base?,
            () = cancel.cancelled() => return Err(interrupted()),
        };
        let done = back.from(&mut base).await;
        base.farewell().await;
        done?
    };
    progress.enter(Phase::Done);
    Ok(RollbackReport {
        outcome: done.outcome,
        given_up: done.given_up,
        point: done.point,
        bytes: done.bytes,
        requests: progress.read().target.requests,
        seconds: started.elapsed().as_secs_f64(),
    })
}

struct Done {
    outcome: &'static str,
    given_up: Option<String>,
    point: Point,
    bytes: u64,
}

struct Back<'a> {
    settings: &'a Settings,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
}

impl Back<'_> {
    /// Under the lease: what the marker says now counts.
    async fn from(&self, base: &mut Base) -> Result<Done> {
        let torn = base.marker().await;
        match torn.state {
            State::Clean if self.is_modified(base.blob(), &torn).await? => self.mend(base, &torn).await,
            State::Clean => Ok(Done { outcome: "clean", given_up: None, point: of_clean(&torn), bytes: 0 }),
            State::Sealing => {
                self.progress.enter(Phase::Sealing);
                let point = base.finish_seal().await?;
                Ok(Done { outcome: "seal-finished", given_up: None, point, bytes: 0 })
            }
            State::Applying => self.undo(base, &torn).await,
        }
    }

    /// Whether somebody else wrote to a base that says that it is clean.
    async fn is_modified(&self, blob: &PageBlob, marker: &Marker) -> Result<bool> {
        match self.uninterrupted(base::check::unmodified(blob, marker, self.settings.listing)).await? {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == ErrorKind::BaseModified => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The base says "clean" and is not. It may go on saying so: whoever begins at it compares it with its point.
    async fn mend(&self, base: &mut Base, marker: &Marker) -> Result<Done> {
        let time = marker.point.clone().unwrap_or_default();
        let point = base.blob().at_snapshot(&time)?;
        let kept = marker_of_point(&point, Some(&marker.step.to)).await?;
        base.close_fence().await?;
        let (point, bytes) = self.put_back(base, &point, kept, marker, time).await?;
        Ok(Done { outcome: "rolled-back", given_up: None, point, bytes })
    }

    async fn undo(&self, base: &mut Base, torn: &Marker) -> Result<Done> {
        let time = last_point(base.blob(), torn).await?;
        let point = base.blob().at_snapshot(&time)?;
        let kept = marker_of_point(&point, torn.step.from.as_ref()).await?;
        base.undo(&uuid::Uuid::new_v4().to_string()).await?;
        tracing::info!(point = %time, step = %torn.step, "rolling back");
        let (point, bytes) = self.put_back(base, &point, kept, torn, time).await?;
        Ok(Done { outcome: "rolled-back", given_up: Some(torn.step.to_string()), point, bytes })
    }

    /// Makes the base equal to `point`, whose marker is `kept`, proves it, and declares it clean.
    async fn put_back(
        &self,
        base: &mut Base,
        point: &PageBlob,
        kept: Marker,
        before: &Marker,
        time: String,
    ) -> Result<(Point, u64)> {
        self.progress.enter(Phase::Copying);
        let bytes = self.copy_back(base, point, kept.length).await?;
        self.progress.enter(Phase::Sealing);
        if base.blob().properties().await?.length != kept.length {
            base.blob().resize(kept.length, &base.fence().lease_id).await?;
        }
        self.uninterrupted(self.compare(base.blob(), point, kept.length)).await??;
        base.close_fence().await?;
        let generation = base.fence().generation;
        let protected = before.protected.clone();
        let point = base.declare_clean(Marker { generation, protected, ..kept }, time).await?;
        Ok((point, bytes))
    }

    /// What `work` came to, unless it was interrupted.
    async fn uninterrupted<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            done = work => Ok(done),
            () = self.cancel.cancelled() => Err(interrupted()),
        }
    }

    /// Copies every page below `length` in which base and point may differ, from the point to the base.
    async fn copy_back(&self, base: &Base, point: &PageBlob, length: u64) -> Result<u64> {
        let route = Route {
            source: Source::Blob { blob: point.clone(), sends_crc: sends_crc(point).await? },
            sink: base.sink(),
            zeros: ZeroRule { shortest_run: self.settings.zero_run.max(PAGE), trim_edges: false },
            zeros_are_free: false,
            puller: None,
        };
        let time = point.resource().snapshot().unwrap_or_default().to_owned();
        let mut bytes = 0;
        for mut changes in self.changes(base.blob(), &time, length).await? {
            self.progress.follow(changes.progress());
            let planner = Planner::new(self.settings.plan, length);
            let start = Checkpoint::default();
            let mut run = Run::new(base, route.clone(), planner, self.settings.copy, start, self.progress)
                .without_checkpoints();
            let copied = run.to_end(&mut changes, length, self.cancel).await;
            drop(run);
            match copied {
                Ok(copied) => bytes += copied.checkpoint.counts.bytes,
                Err(stop) => return Err(explain(base, stop).await),
            }
        }
        Ok(bytes)
    }

    /// Base and point must be equal wherever they may differ: what was copied back, and what was not.
    async fn compare(&self, blob: &PageBlob, point: &PageBlob, length: u64) -> Result<()> {
        let time = point.resource().snapshot().unwrap_or_default();
        for mut changes in self.changes(blob, time, length).await? {
            base::check::equals_point(blob, point, &mut changes).await?;
        }
        Ok(())
    }

    /// Where base and point may differ below `length`. A service that makes no differences is asked for what either
    /// of them holds.
    async fn changes(&self, blob: &PageBlob, time: &str, length: u64) -> Result<Vec<Listing>> {
        let Ok(whole) = PageRange::new(0, length) else { return Ok(Vec::new()) };
        let now = blob.properties().await?.length;
        let list = |blob: &PageBlob, against: &Against, blob_length: u64| {
            // What the base lacks of the point's length reads as zeros after the resize, and held none before.
            let range = PageRange::new(0, length.min(blob_length)).ok();
            let listing = self.settings.listing;
            Listing::start(blob, against, range, blob_length, Vec::new(), listing).all_as_data()
        };
        if base::check::compares(blob, whole).await? {
            return Ok(vec![list(blob, &Against::BlobSnapshot(time.to_owned()), now)]);
        }
        tracing::warn!("the service makes no differences: everything that base or point hold is copied");
        let point = blob.at_snapshot(time)?;
        Ok(vec![list(&point, &Against::Nothing, length), list(blob, &Against::Nothing, now)])
    }
}

/// The point that the base equalled before the step.
async fn last_point(blob: &PageBlob, torn: &Marker) -> Result<String> {
    if let Some(time) = &torn.last_point {
        return Ok(time.clone());
    }
    let none = |why: &str| {
        Error::new(ErrorKind::BaseNotClean, "roll the base blob back", why.to_owned()).on(blob.resource())
    };
    let Some(from) = &torn.step.from else {
        return Err(none("it is in the middle of its first full copy: there is no point to go back to").next(
            "run the command of that copy again, begin anew with another snapshot (--rebase), or delete it: az storage blob delete",
        ));
    };
    // A marker of a version that did not write it down yet.
    let listed = points::marked(blob).await?;
    let found = listed.into_iter().rev().find(|(_, marker)| marker.step.to.is(from, true));
    found
        .map(|(time, _)| time)
        .ok_or_else(|| none("its last point was deleted").next("copy in full: --rebase"))
}

/// The marker of a point that must be of the snapshot `equalled`, where that is known.
async fn marker_of_point(point: &PageBlob, equalled: Option<&SnapshotId>) -> Result<Marker> {
    let refuse = |why: String| {
        Error::new(ErrorKind::BaseNotClean, "roll the base blob back", why)
            .on(point.resource())
            .next("begin anew in the same blob: copy the source in full with --rebase")
    };
    let look = base::look(point).await?;
    let (Some(properties), Some(marker)) = (look.properties, look.marker) else {
        return Err(refuse("its last point was deleted, or is no point of snapferry".to_owned()));
    };
    if properties.length != marker.length
        // The time alone tells: the export may have moved to another host in between.
        || equalled.is_some_and(|equalled| !equalled.is(&marker.step.to, true))
    {
        return Err(refuse(format!(
            "the point is of {}, which is not what the base equalled",
            marker.step.to
        )));
    }
    Ok(marker)
}

fn of_clean(marker: &Marker) -> Point {
    Point::from_marker(marker.point.as_deref().unwrap_or_default(), marker)
}

async fn explain(base: &Base, stop: Stop) -> Error {
    match stop {
        Stop::Cancelled => interrupted(),
        Stop::Call(error) if error.is_fenced() => {
            base::explain_lost(base.blob(), &error.cause.to_string()).await
        }
        Stop::Call(error) => error.into(),
        Stop::Lost(_) => base::explain_lost(base.blob(), "the lease could not be renewed").await,
        Stop::Miscounted(why) => Error::new(ErrorKind::Corruption, "roll the base blob back", why)
            .next("nothing was declared clean; run the same command again, and report this"),
    }
}

fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "roll the base blob back", "interrupted; the base is still torn")
        .next("run the same command again")
}
