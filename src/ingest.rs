//! An image on this machine becomes a point: disks from elsewhere join.
//!
//! No service tells what changed in a file. The record of the last point does: what differs from its checksums is
//! copied, and the point itself is not read. From there on it is a step like any other.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::azure::pace::pause;
use crate::azure::{Client, PageBlob, Resource};
use crate::base::marker::{Marker, State};
use crate::base::{self, Look};
use crate::chain::SnapshotId;
use crate::chain::survey::{Snapshot, survey_image};
use crate::copy::chunk::Source;
use crate::dry_run;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{ImagePath, ImageReader};
use crate::prepare::{Prepared, connect_target, decided, opening_of};
use crate::progress::{Phase, Progress};
use crate::record::compare::Recorded;
use crate::replicate::carry_out;
use crate::step::{PlanReport, Report, Settings};

/// An image, and the base blob that gets a point of it.
#[derive(Clone, Debug)]
pub struct ImageJob {
    /// The file or block device.
    pub image: ImagePath,
    /// The base blob.
    pub target: Resource,
}

/// Makes or extends a base blob from an image: whole where there is no base blob, otherwise what differs from its last
/// point. Calling it again after it ended, however it ended, is safe as long as the image stays as it is.
///
/// # Errors
/// As [`crate::replicate::replicate`]; [`ErrorKind::SourceUnsuitable`] when the image changes meanwhile.
pub async fn copy_image(
    job: &ImageJob,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Report> {
    carry_out(prepare(job, client, settings, progress), settings, progress, cancel).await
}

/// What [`copy_image`] would do. Writes nothing.
///
/// # Errors
/// As [`copy_image`].
pub async fn plan_image(
    job: &ImageJob,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
) -> Result<PlanReport> {
    dry_run::plan_prepared(&prepare(job, client, settings, progress).await?, settings, progress).await
}

async fn prepare(
    job: &ImageJob,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
) -> Result<Prepared> {
    settings.only_stream("copy an image", "no service can read a file or device of this machine")?;
    progress.enter(Phase::Checking);
    let target = connect_target(&job.target, client, settings, progress)?;
    let image = open(&job.image).await?;
    let id = SnapshotId::of_image(&image);
    let look = base::look(&target).await?;
    let previous = previous_of(&target, &look, &id, settings.rebase).await?;
    let source = Snapshot { length: image.length(), at: Source::Image(image), id };
    let survey = survey_image(source, previous).await?;
    let opening = opening_of(&survey, None, settings);
    decided(survey, target, opening, &look)
}

/// What is written while a clock does not tick twice leaves no trace: the image must be older than that.
async fn open(path: &ImagePath) -> Result<ImageReader> {
    const TICK: Duration = Duration::from_millis(100);
    let image = ImageReader::open(path).await?;
    let age = jiff::Timestamp::now().duration_since(image.changed()).unsigned_abs();
    if path.is_device() || age >= TICK {
        return Ok(image);
    }
    pause(TICK).await;
    ImageReader::open(path).await
}

/// The point with which the image is compared. `None` copies in full.
async fn previous_of(
    target: &PageBlob,
    look: &Look,
    id: &SnapshotId,
    rebase: bool,
) -> Result<Option<(Snapshot, Recorded)>> {
    let Some(marker) = look.marker.as_ref().filter(|_| !rebase) else { return Ok(None) };
    let is_same = marker.step.to == *id;
    let equalled = match marker.state {
        State::Clean if !is_same => marker.point.clone(),
        _ if is_same && marker.step.from.is_none() => return Ok(None),
        State::Clean => point_of(target, marker.step.from.as_ref()).await?,
        State::Applying | State::Sealing => marker.last_point.clone(),
    };
    let Some(time) = equalled else { return Ok(None) };
    let blob = target.at_snapshot(&time)?;
    let Some(point) = base::look(&blob).await?.marker else { return Ok(None) };
    if !is_same && !point.step.to.is_older_than(id) {
        return Err(Error::new(
            ErrorKind::SnapshotOrder,
            "extend the base blob from an image",
            format!(
                "the image was last changed at {}, and the base blob equals {} already",
                id.time(),
                point.step.to
            ),
        )
        .on(target.resource())
        .next(
            "if the image is newer all the same, touch the file; or begin anew in the same blob: --rebase",
        ));
    }
    let recorded = recorded(target, &point)?;
    Ok(Some((Snapshot::of_blob(blob, point.step.to.clone(), point.length), recorded)))
}

/// The point of the snapshot that a step began at.
async fn point_of(target: &PageBlob, from: Option<&SnapshotId>) -> Result<Option<String>> {
    let Some(from) = from else { return Ok(None) };
    let listed = base::points::marked(target).await?;
    Ok(listed.into_iter().rev().find(|(_, marker)| marker.step.to == *from).map(|(time, _)| time))
}

fn recorded(target: &PageBlob, point: &Marker) -> Result<Recorded> {
    let record = point.record.clone().ok_or_else(|| {
        Error::new(
            ErrorKind::BaseElsewhere,
            "find out what changed in the image",
            "the last point has no record, and without one nobody can tell what differs",
        )
        .on(target.resource())
        .next("write it: snapferry repair --record --target <URL>; or copy the image in full: --rebase")
    })?;
    Ok(Recorded { base: target.clone(), record, length: point.length })
}
