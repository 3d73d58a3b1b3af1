//! A point becomes a managed disk: uploaded through this machine, or imported by the service where it is in reach.
//!
//! ```text
//! point ──> fit? ──> disk there? ──┬─> upload: make (tagged) ──> SAS ──> pages ──> footer ──> end of access ─┐
//! (found,   (footer,  (ours, half   │                                                                         ├─> untag
//!  readable) size)     made, whole)  └─> import: make (tagged), of the point's URL ────────────────────────────┘
//! └──────── nothing is made ───────┘
//! ```
//!
//! **Consistency.** The footer is written when every other page was acknowledged, and access is ended after that: a
//! service that is asked to make a disk of less refuses. Until then the disk is in the state of an upload, in which
//! nothing can be done with it.
//!
//! **The disk is the only state.** While it is half made, tags say of which point it is made and how far it is: any
//! machine goes on. They go when the disk is whole. A point never changes, so whoever else writes to the same disk for
//! the same point writes the same bytes: nobody needs to be kept out.
//!
//! **Failure.** What the same command can go on with is kept, and all else of a half-made disk is deleted
//! ([`OnFailure`]). A crash leaves the disk, its tags, and a SAS that nobody knows and that ends by itself.
//!
//! **Access is ended once**, when everything is written, because that is what has the service judge the upload; only
//! where a SAS is out that stands in the way of another one is it ended before.

mod access;
mod fit;
mod import;
mod job;
mod target;
mod upload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::azure::arm::ManagedDisk;
use crate::azure::{Arm, ArmId, Client, Endpoint, PageBlob, Role};
use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::managed::posix;
use crate::progress::{Phase, Progress};
use crate::range::PAGE;
use crate::restore::point;
use crate::step::Settings;

use fit::Image;
use target::{Standing, Target};

pub use job::{DiskJob, OnFailure, Way};

/// How long the end of a half-made disk may take.
const FAREWELL: Duration = Duration::from_mins(2);

/// What was restored.
#[derive(Clone, Debug, Serialize)]
pub struct DiskReport {
    /// The disk.
    pub disk: ArmId,
    /// Its region.
    pub location: String,
    /// The point.
    pub point: String,
    /// The disk snapshot that it equals.
    pub source: String,
    /// Bytes of the disk, without a footer.
    pub size: u64,
    /// `upload` or `import`.
    pub way: &'static str,
    /// Why that way.
    pub because: String,
    /// Bytes that this run uploaded, each once.
    pub bytes_sent: u64,
    /// Bytes of what it read that are zero, and were not sent.
    pub bytes_zero: u64,
    /// Requests to base blob, disk and resource manager, retries included.
    pub requests: u64,
    /// Wall-clock time.
    pub seconds: f64,
    /// The byte from which an interrupted run was taken up.
    pub resumed_from: Option<u64>,
    /// What each write was checked by: `crc64`, or `length only`; of an import, `by the service`.
    pub checked: &'static str,
}

/// What the making came to.
pub(crate) struct Made {
    way: &'static str,
    because: String,
    bytes_sent: u64,
    bytes_zero: u64,
    resumed_from: Option<u64>,
    checked: &'static str,
}

/// Makes a disk of a point. Calling it again after it was interrupted is safe: it goes on.
///
/// # Errors
/// See [`ErrorKind`]. [`ErrorKind::TargetExists`] and [`ErrorKind::TargetUnsuitable`] when the disk is there already and
/// is not one that this began.
pub async fn restore_to_disk(
    job: &DiskJob,
    arm: &Arm,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<DiskReport> {
    let started = Instant::now();
    progress.enter(Phase::Checking);
    job.check()?;
    let checks = async {
        let image = look_at_point(job, client, settings, progress).await?;
        let target = Target::new(arm, job, &image);
        let standing = target.look().await?;
        Ok::<_, Error>((image, target, standing))
    };
    let (image, target, standing) = tokio::select! {
        checked = checks => checked?,
        () = cancel.cancelled() => return Err(interrupted(&job.disk, "interrupted before anything was made")),
    };
    let work = Work { job, target: &target, image: &image, client, settings, progress, cancel };
    let (made, disk) = work.all(standing).await?;
    progress.enter(Phase::Done);
    let read = progress.read();
    Ok(DiskReport {
        disk: disk.id,
        location: disk.location,
        point: image.found.time.clone(),
        source: image.found.marker.step.to.to_string(),
        size: image.disk_bytes(),
        way: made.way,
        because: made.because,
        bytes_sent: made.bytes_sent,
        bytes_zero: made.bytes_zero,
        requests: read.source.requests + read.target.requests + arm.meter().read().requests,
        seconds: started.elapsed().as_secs_f64(),
        resumed_from: made.resumed_from,
        checked: made.checked,
    })
}

async fn look_at_point(
    job: &DiskJob,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
) -> Result<Image> {
    let pace = client.pace(Role::Source, settings.caps);
    let base = PageBlob::new(Endpoint::new(job.base.clone(), client, pace, Arc::clone(&progress.source)))?;
    fit::image(point::find(&base, &job.point).await?).await
}

/// What a half-made disk is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worth {
    /// It costs a moment to make it again.
    Nothing,
    /// Pages were uploaded.
    Pages,
    /// The list of the point's pages was not to be believed: where this run began is as far as it goes.
    Distrusted,
}

/// What every part of the work needs.
pub(crate) struct Work<'a> {
    job: &'a DiskJob,
    target: &'a Target<'a>,
    image: &'a Image,
    client: &'a Client,
    settings: &'a Settings,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
}

impl Work<'_> {
    /// Makes it, or goes on, and cleans up after a failure.
    async fn all(&self, standing: Standing) -> Result<(Made, ManagedDisk)> {
        let (is_ours, is_whole) =
            (matches!(standing, Standing::Absent), matches!(standing, Standing::Whole(_)));
        let mut worth = match standing {
            Standing::Uploading { from } if from > 0 => Worth::Pages,
            _ => Worth::Nothing,
        };
        let made = match standing {
            Standing::Absent => match self.uninterrupted(self.way()).await? {
                (Way::Import, because) => self.import(because).await,
                (_, because) => self.upload(None, because, &mut worth).await,
            },
            Standing::Uploading { from } => {
                let because = "a run before this one began so".to_owned();
                self.upload(Some(from), because, &mut worth).await
            }
            Standing::Importing => self.follow_import("a run before this one began so".to_owned()).await,
            Standing::Whole(way) => Ok(Made::before(way)),
        };
        let whole = async {
            let made = made?;
            Ok((made, self.uninterrupted(self.target.whole()).await?))
        };
        match whole.await {
            Ok((made, disk)) => {
                self.target.untag().await;
                Ok((made, disk))
            }
            Err(error) if is_whole => Err(error),
            Err(error) => Err(self.left_behind(error, worth, is_ours).await),
        }
    }

    /// Which way, and why.
    async fn way(&self) -> Result<(Way, String)> {
        let says = |way, because: &str| Ok((way, because.to_owned()));
        match (self.job.way, &self.job.storage_account) {
            (Way::Import, _) => says(Way::Import, "an import was asked for"),
            (Way::Upload, _) => says(Way::Upload, "an upload was asked for"),
            (Way::Auto, None) => says(
                Way::Upload,
                "the service can import only within a region, and the id of the point's storage account was not given",
            ),
            (Way::Auto, Some(account)) => match self.target.arm.region_of_account(account).await {
                Ok(region) if self.job.is_at(&region) => says(
                    Way::Import,
                    "the point is in the region of the disk: the service copies it, and nothing passes through this machine",
                ),
                Ok(region) => Ok((
                    Way::Upload,
                    format!("the point is in {region}, and the service imports only within a region"),
                )),
                Err(error) => {
                    tracing::info!(cause = %error.cause, "the region of the storage account is not known");
                    says(Way::Upload, "the region of the point's storage account could not be looked up")
                }
            },
        }
    }

    /// What `work` came to, unless it was interrupted.
    async fn uninterrupted<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = self.cancel.cancelled() => Err(interrupted(&self.job.disk, "interrupted")),
        }
    }

    /// The error, and what became of the half-made disk.
    async fn left_behind(&self, error: Error, worth: Worth, is_ours: bool) -> Error {
        let quoted = posix(&self.job.disk.to_string());
        let by_hand = format!("az disk delete --yes --ids {quoted}");
        let before = error.advice().map(|advice| format!("{advice}; ")).unwrap_or_default();
        if self.keeps(error.kind(), worth, is_ours) {
            return error.next(format!(
                "{before}what there is of the disk is kept, and the same command goes on with it, also on another machine; to give it up: {by_hand}"
            ));
        }
        match tokio::time::timeout(FAREWELL, self.target.remove()).await {
            Ok(Ok(false)) => error,
            Ok(Ok(true)) => {
                error.next(format!("{before}the half-made disk was deleted: nothing is left of it"))
            }
            Ok(Err(why)) => {
                tracing::warn!(cause = %why, "the half-made disk was not deleted");
                error.next(format!("{before}a half-made disk may be left: {by_hand}"))
            }
            Err(_) => {
                error.next(format!("{before}whether the half-made disk is deleted was not seen: {by_hand}"))
            }
        }
    }

    /// Whether going on is worth more than a clean table.
    /// A disk that was there before may be what another run is at work on, or is whole: it is not deleted unasked.
    fn keeps(&self, kind: ErrorKind, worth: Worth, is_ours: bool) -> bool {
        match self.job.on_failure {
            OnFailure::Keep => true,
            OnFailure::Delete => false,
            OnFailure::GoOn if !is_ours => true,
            OnFailure::GoOn => {
                let is_right = matches!(kind, ErrorKind::AccessDenied | ErrorKind::PermissionMissing);
                match worth {
                    Worth::Distrusted => false,
                    Worth::Pages => is_right || kind.remedy() == Remedy::Passes,
                    Worth::Nothing => kind.remedy() == Remedy::Passes,
                }
            }
        }
    }
}

impl Made {
    fn before(way: &'static str) -> Self {
        Self {
            way,
            because: "a run before this one made it, and was interrupted at its end".to_owned(),
            bytes_sent: 0,
            bytes_zero: 0,
            resumed_from: None,
            checked: "by the run before",
        }
    }
}

impl Image {
    /// Bytes of the disk: the point without its footer.
    fn disk_bytes(&self) -> u64 {
        self.found.marker.length.saturating_sub(PAGE)
    }
}

const TRIED: &str = "restore the point to a disk";

fn interrupted(disk: &ArmId, why: &str) -> Error {
    Error::new(ErrorKind::Interrupted, TRIED, why).on(disk)
}
