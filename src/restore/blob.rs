//! To another base blob, of any account: a step whose source is a point.
//!
//! The new base blob is sealed as a point of the *disk's* snapshot, so that later differences of the disk go on from it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::check::Check;
use super::point::{Found, Which, find};
use crate::azure::{Client, Endpoint, PageBlob, Resource, Role};
use crate::base::marker::{Marker, State};
use crate::base::{self, Look, points};
use crate::chain::survey::{Snapshot, survey_points};
use crate::error::{Error, ErrorKind, Result};
use crate::prepare::{Prepared, connect_target, decided, opening_of, resume_offset};
use crate::progress::{Phase, Progress};
use crate::replicate::carry_out;
use crate::step::{Report, Settings, Verify};

/// A point, and the base blob that shall equal it.
#[derive(Clone, Debug)]
pub struct BlobJob {
    /// The base blob that has the point.
    pub from: Resource,
    /// The point.
    pub which: Which,
    /// The other base blob.
    pub to: Resource,
    /// Let it be there already, clean at an older point of `from`, and move only what differs. Nothing has to be there.
    pub differential: bool,
}

/// Copies a point to another base blob. Calling it again after it ended, however it ended, is safe.
///
/// # Errors
/// As [`crate::replicate::replicate`]; [`ErrorKind::BaseElsewhere`] when the target is at none of the points.
pub async fn restore_to_blob(
    job: &BlobJob,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Report> {
    carry_out(prepare(job, client, settings, progress), settings, progress, cancel).await
}

async fn prepare(
    job: &BlobJob,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
) -> Result<Prepared> {
    progress.enter(Phase::Checking);
    let from = connect_source(&job.from, client, settings, progress)?;
    let found = find(&from, &job.which).await?;
    let target = connect_target(&job.to, client, settings, progress)?;
    if target.resource().location() == from.resource().location() {
        return Err(Error::new(
            ErrorKind::Usage,
            "restore to the base blob",
            "it is the one that the point is of",
        )
        .on(target.resource())
        .next("to put it back to its newest point: snapferry rollback --target <URL>"));
    }
    let look = base::look(&target).await?;
    let previous = previous_of(job, &found, &look).await?;
    let source = snapshot_of(&found.blob, &found.marker);
    let survey = survey_points(source, previous).await?;
    let opening = opening_of(&survey, found.marker.origin.clone(), settings);
    let gaps_are_zeros = survey.previous.is_none();
    let mut prepared = decided(survey, target, opening, &look)?;
    if settings.verify != Verify::None {
        let from = resume_offset(&prepared.decision);
        prepared.check = Check::open(&found, from, gaps_are_zeros).await?;
    }
    Ok(prepared)
}

/// The base blob that is read, counted on the source's side.
pub(super) fn connect_source(
    from: &Resource,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
) -> Result<PageBlob> {
    settings.only_stream(
        "restore a point",
        "what is restored is held against the record of the point, so that it must pass this machine",
    )?;
    let pace = client.pace(Role::Source, settings.caps);
    let from = from.in_role(Role::Source);
    Ok(PageBlob::new(Endpoint::new(from, client, pace, Arc::clone(&progress.source)))?)
}

fn snapshot_of(point: &PageBlob, marker: &Marker) -> Snapshot {
    Snapshot::of_blob(point.clone(), marker.step.to.clone(), marker.length)
}

/// The point that the target equals, or equalled before a step of this kind was begun.
async fn previous_of(job: &BlobJob, found: &Found, look: &Look) -> Result<Option<Snapshot>> {
    let Some(marker) = look.marker.as_ref().filter(|_| job.differential) else { return Ok(None) };
    let is_same = marker.step.to == found.marker.step.to;
    let at = match marker.state {
        // Nothing is left to do, or this step is gone on with.
        _ if is_same => marker.step.from.clone(),
        State::Clean => Some(marker.step.to.clone()),
        State::Applying | State::Sealing => marker.step.from.clone(),
    };
    let Some(at) = at else { return Ok(None) };
    let listed = points::marked(&found.base).await?;
    let older = listed.into_iter().rev().find(|(_, point)| point.step.to == at);
    match older {
        Some((time, point)) if point.step.to.is_older_than(&found.marker.step.to) => {
            Ok(Some(snapshot_of(&found.base.at_snapshot(&time)?, &point)))
        }
        _ => Err(Error::new(
            ErrorKind::BaseElsewhere,
            "move only what differs",
            format!("the target is at {at}, and no older point of the base blob is of that snapshot"),
        )
        .on(&job.to)
        .next("restore in full: leave --differential out, and name a blob that does not exist, or say --overwrite")),
    }
}
