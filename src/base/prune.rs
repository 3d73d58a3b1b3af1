//! Pruning: points that no rule keeps and nothing needs are deleted.
//!
//! **Never deleted**, whatever the rules: the point that the base blob is clean at, the one that a torn base can be rolled
//! back to, the one of a seal that is not finished, what is protected, and every snapshot that is no point of ours.
//! Without a readable marker nothing is deleted.
//!
//! **While a run is at work.** Pruning takes no lease. The points are listed first and the marker is read after that, and
//! again before each deletion. What a run needs is the point that the marker names, or one that the run makes itself: a
//! run can only go on from the point that was seen to a newer one, which is not in the list, or back to it. So what the
//! marker needs is either kept or was never a candidate. Only a protection that is written between the look and the
//! deletion comes too late.

use std::collections::BTreeSet;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::look;
use super::marker::{Marker, State};
use super::points::{self, Point, cannot_list};
use super::retention::{Candidate, Reason, Retention};
use crate::azure::PageBlob;
use crate::chain::SnapshotId;
use crate::error::{Error, ErrorKind, Result};

const TRIED: &str = "prune the points";

/// What pruning did, or would do.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PruneReport {
    /// Points that stay, and why.
    pub kept: Vec<Kept>,
    /// Points that were not deleted yet.
    pub to_delete: Vec<Point>,
    /// Points that were deleted.
    pub deleted: Vec<Point>,
    /// Points that could not be deleted.
    pub failed: Vec<Failed>,
    /// The first failure, or the interruption.
    #[serde(skip)]
    pub error: Option<Error>,
}

/// A point that stays.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    /// The point.
    #[serde(flatten)]
    pub point: Point,
    /// Why it stays.
    pub reasons: BTreeSet<Reason>,
}

/// A point that could not be deleted.
#[derive(Clone, Debug, Serialize)]
pub struct Failed {
    /// The point.
    #[serde(flatten)]
    pub point: Point,
    /// What went wrong.
    pub why: String,
}

/// Says what the rules keep and what would be deleted. Deletes nothing.
///
/// # Errors
/// [`ErrorKind::Usage`] without any rule; [`ErrorKind::BaseNotClean`] without a readable marker.
pub async fn plan(blob: &PageBlob, retention: &Retention) -> Result<PruneReport> {
    if retention.is_empty() {
        return Err(Error::new(ErrorKind::Usage, TRIED, "no rule says what is kept")
            .next("give at least one, such as --keep-last 7 or --keep-daily 14"));
    }
    look(blob).await?.into_marker(blob, TRIED)?;
    let listed = points::marked(blob).await.map_err(|error| cannot_list(blob, error.into()))?;
    // The look that counts comes after the list: see the module.
    let marker = look(blob).await?.into_marker(blob, TRIED)?;
    let candidates: Vec<_> = listed
        .iter()
        .map(|(time, sealed)| Candidate {
            time: sealed.step.to.time().parse().ok(),
            point: time.clone(),
            needed: needed_by(&marker, &Point::from_marker(time, sealed)),
        })
        .collect();
    let mut report = PruneReport::default();
    for ((time, sealed), reasons) in listed.iter().zip(retention.reasons(&candidates)) {
        let point = Point::from_marker(time, sealed);
        if reasons.is_empty() {
            report.to_delete.push(point);
        } else {
            report.kept.push(Kept { point, reasons });
        }
    }
    Ok(report)
}

/// Deletes what the rules do not keep. What cannot be deleted does not keep the rest from it.
///
/// # Errors
/// As [`plan`], before anything is deleted; what comes after that is in the report.
pub async fn prune(
    blob: &PageBlob,
    retention: &Retention,
    cancel: &CancellationToken,
) -> Result<PruneReport> {
    let mut report = plan(blob, retention).await?;
    let mut rest = std::mem::take(&mut report.to_delete).into_iter();
    while let Some(point) = rest.next() {
        let outcome = tokio::select! {
            outcome = delete(blob, &point) => outcome,
            () = cancel.cancelled() => {
                report.error.get_or_insert_with(interrupted);
                report.to_delete = std::iter::once(point).chain(rest).collect();
                break;
            }
        };
        match outcome {
            Ok(reasons) if reasons.is_empty() => report.deleted.push(point),
            Ok(reasons) => report.kept.push(Kept { point, reasons }),
            Err(error) => {
                report.failed.push(Failed { point, why: error.why().to_owned() });
                report.error.get_or_insert(error);
            }
        }
    }
    Ok(report)
}

/// Deletes a point, unless the marker needs it by now: then it says why.
async fn delete(blob: &PageBlob, point: &Point) -> Result<BTreeSet<Reason>> {
    let marker = look(blob).await?.into_marker(blob, TRIED)?;
    let reasons = needed_by(&marker, point);
    if reasons.is_empty() {
        tracing::info!(point = %point.point, source = %point.source, "deleting");
        blob.delete_snapshot(&point.point).await.map_err(|error| {
            if error.is_fenced() {
                let why = format!(
                    "a run is at work, and the service does not let go of its snapshots: {}",
                    error.cause
                );
                return Error::new(ErrorKind::LeaseHeld, TRIED, why).on(blob.resource()).next(
                    "run the same command again when the run has ended: snapferry status --target <URL>",
                );
            }
            error.into()
        })?;
    }
    Ok(reasons)
}

/// Why the marker needs a point, whatever the rules say.
fn needed_by(marker: &Marker, point: &Point) -> BTreeSet<Reason> {
    let is_torn = marker.state != State::Clean;
    // The time alone tells: an export may have moved to another host.
    let is_source = |id: &SnapshotId| id.time() == point.source_time;
    let is_last_point = match &marker.last_point {
        Some(last) => *last == point.point,
        // A marker of a version that did not write it down yet.
        None => marker.step.from.as_ref().is_some_and(is_source),
    };
    [
        (marker.protected.contains(&point.point), Reason::Protected),
        (marker.is_clean_at(&point.point), Reason::Current),
        (is_torn && is_last_point, Reason::LastPoint),
        (marker.state == State::Sealing && is_source(&marker.step.to), Reason::Sealing),
    ]
    .into_iter()
    .filter_map(|(is_so, reason)| is_so.then_some(reason))
    .collect()
}

fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, TRIED, "interrupted before all of them were deleted")
        .next("run the same command again")
}
