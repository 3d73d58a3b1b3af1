//! To a file or block device on this machine.

use std::path::PathBuf;
use std::time::Instant;

use futures::future::{BoxFuture, FutureExt};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::blob::connect_source;
use super::check::{Check, Checked};
use super::point::{Found, Which, find};
use crate::azure::failure::CallResult;
use crate::azure::{Against, Client, Resource, Role};
use crate::base::lease::Loss;
use crate::chain::survey::sends_crc;
use crate::copy::chunk::{Route, Sink, Source, local};
use crate::copy::frontier::{Checkpoint, Counts, Written};
use crate::copy::keeper::{Backlog, Keeper};
use crate::copy::scan::ZeroRule;
use crate::copy::{Run, Stop};
use crate::diff::Listing;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{ImagePath, ImageWriter, Resumed, WriterOptions};
use crate::plan::Planner;
use crate::progress::{Phase, Progress};
use crate::range::{PAGE, PageRange};
use crate::record::compare::{Held, Recorded, changes};
use crate::step::{Settings, Verify};

/// A point, and the file that shall hold it.
#[derive(Clone, Debug)]
pub struct FileJob {
    /// The base blob that has the point.
    pub from: Resource,
    /// The point.
    pub which: Which,
    /// The file or block device.
    pub to: ImagePath,
    /// What is at the target is compared with the record of the point, and only what differs is moved.
    pub differential: bool,
    /// A file that is there is replaced.
    pub overwrite: bool,
    /// A device is written to even though it is in use.
    pub force: bool,
    /// Where the state of a device's restore is kept, so that it can go on after a kill.
    pub state_file: Option<PathBuf>,
}

/// What a restore to a file did.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// Time of the point.
    pub point: String,
    /// The disk snapshot that it equals.
    pub source: String,
    /// Where it is now.
    pub to: String,
    /// Bytes of the disk: the image without its footer.
    pub disk_bytes: u64,
    /// Bytes that were read from the point and written.
    pub bytes: u64,
    /// Of those, bytes that hold data.
    pub bytes_data: u64,
    /// The byte from which an interrupted restore went on.
    pub resumed_from: Option<u64>,
    /// Requests, retries included.
    pub requests: u64,
    /// Wall-clock time.
    pub seconds: f64,
}

/// Restores a point to a file or block device. Calling it again after it ended, however it ended, is safe.
///
/// # Errors
/// Before anything is written: [`ErrorKind::NotFound`], [`ErrorKind::TargetExists`], [`ErrorKind::TargetUnsuitable`],
/// [`ErrorKind::Output`]; later see [`ErrorKind`].
pub async fn restore_to_file(
    job: &FileJob,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<FileReport> {
    let started = Instant::now();
    progress.enter(Phase::Checking);
    let from = connect_source(&job.from, client, settings, progress)?;
    let restore = async {
        let found = find(&from, &job.which).await?;
        readable(&found).await?;
        let (writer, resumed) = open(job, &found).await?;
        Ok::<_, Error>(Restore { job, found, writer, resumed, settings, progress, cancel })
    };
    let restore = tokio::select! {
        restore = restore => restore?,
        () = cancel.cancelled() => return Err(interrupted()),
    };
    restore.run(started).await
}

/// A service may refuse to read its snapshots where it lets the blob itself be read.
pub(crate) async fn readable(found: &Found) -> Result<()> {
    let Ok(page) = PageRange::new(0, PAGE) else { return Ok(()) };
    match found.blob.read(page).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.status(), Some(400 | 405 | 409 | 501)) => Err(Error::new(
            ErrorKind::Refused,
            "read the point",
            format!("the account does not let its snapshots be read: {}", error.cause),
        )
        .on(found.blob.resource())
        .next("premium accounts may do that: copy the point to a blob of its own (az storage blob copy start), and restore that")),
        Err(error) => Err(error.into()),
    }
}

async fn open(job: &FileJob, found: &Found) -> Result<(ImageWriter, Resumed)> {
    let in_place = job.differential && !job.to.is_device() && exists(&job.to).await;
    let counts = found.marker.checkpoint.counts;
    let options = WriterOptions {
        overwrite: job.overwrite,
        in_place,
        force: job.force,
        // Of a difference, the rest is in the points before it; of what the service pulled by itself, a part may be zeros.
        expected_data: (found.marker.step.from.is_none() && counts.bytes_pulled == 0)
            .then_some(counts.bytes_sent),
        state_file: job.state_file.clone(),
    };
    let marker = &found.marker;
    let digest = marker.chain.clone().unwrap_or_else(|| marker.run.clone());
    let identity = format!("{} {} {digest}", found.base.resource().location(), found.time);
    ImageWriter::open(&job.to, marker.length, &identity, options).await
}

async fn exists(path: &ImagePath) -> bool {
    tokio::fs::try_exists(path.path()).await.unwrap_or(false)
}

struct Restore<'a> {
    job: &'a FileJob,
    found: Found,
    writer: ImageWriter,
    resumed: Resumed,
    settings: &'a Settings,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
}

impl Restore<'_> {
    async fn run(self, started: Instant) -> Result<FileReport> {
        let length = self.found.marker.length;
        // What differs is found by looking: a state of an earlier run adds nothing to that.
        let from = if self.job.differential { 0 } else { self.resume_offset() };
        let mut listing = self.listing(from, length)?;
        self.progress.follow(listing.progress());
        self.progress.enter(Phase::Copying);
        let route = self.route().await?;
        let checkpoint = Checkpoint { offset: from, ..Checkpoint::default() };
        let planner = Planner::new(self.settings.plan, length);
        let check = match self.settings.verify {
            Verify::None => None,
            _ => self.uninterrupted(Check::open(&self.found, from, !self.job.differential)).await?,
        };
        let files = FileKeeper { writer: self.writer.clone(), notes: !self.job.differential };
        let keeper = Checked { inner: &files, check: check.as_ref() };
        let mut run = Run::new(&keeper, route, planner, self.settings.copy, checkpoint, self.progress);
        let result = run.to_end(&mut listing, length, self.cancel).await;
        let reached = run.checkpoint();
        drop(run);
        let counts = match result {
            Ok(copied) => {
                if let Some(check) = &check {
                    self.uninterrupted(async { Ok(check.finish(length).await?) }).await?;
                }
                copied.checkpoint.counts
            }
            Err(stop) => {
                if stop.is_distrust() {
                    // What a list said that turned out to be wrong is not gone on from.
                    self.writer.clone().discard().await?;
                } else if !stop.is_of(ErrorKind::Differs) {
                    let _ = keeper.note(reached).await;
                }
                return Err(self.explain(stop, reached));
            }
        };
        self.finish(counts, from, started).await
    }

    async fn finish(self, counts: Counts, from: u64, started: Instant) -> Result<FileReport> {
        self.progress.enter(Phase::Sealing);
        let to = self.writer.finish().await?;
        self.progress.enter(Phase::Done);
        let marker = &self.found.marker;
        Ok(FileReport {
            point: self.found.time.clone(),
            source: marker.step.to.to_string(),
            to: to.display().to_string(),
            disk_bytes: marker.length - PAGE.min(marker.length),
            bytes: counts.bytes,
            bytes_data: counts.bytes_sent,
            resumed_from: (from > 0).then_some(from),
            requests: self.progress.read().source.requests,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    async fn uninterrupted<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = self.cancel.cancelled() => Err(interrupted()),
        }
    }

    fn resume_offset(&self) -> u64 {
        match &self.resumed {
            Resumed::Fresh => 0,
            Resumed::At(checkpoint) => checkpoint.parse().unwrap_or(0),
        }
    }

    /// What is to be written.
    fn listing(&self, from: u64, length: u64) -> Result<Listing> {
        if self.job.differential {
            let record = self.found.marker.record.clone().ok_or_else(|| no_record(&self.found))?;
            let point = Recorded { base: self.found.base.clone(), record, length };
            return Ok(changes(Held::Target(self.writer.clone()), Some(point), 0, length));
        }
        let range = PageRange::new(from, length).ok();
        let listing = Listing::start(
            &self.found.blob,
            &Against::Nothing,
            range,
            length,
            Vec::new(),
            self.settings.listing,
        );
        // What the point does not hold must be zeros, and only a new file is known to be.
        Ok(if self.writer.gaps_are_zero() { listing } else { listing.gaps_as_clear(from, length) })
    }

    fn explain(&self, stop: Stop, reached: Checkpoint) -> Error {
        let left = if self.writer.gaps_are_zero() {
            "nothing stands under the file's name yet"
        } else {
            "the target is neither what it was nor the point"
        };
        match stop {
            Stop::Call(error) => {
                let error = Error::from(error);
                let why = format!("{}; {left}", error.why());
                let told =
                    Error::new(error.kind(), error.tried(), why).on(error.subject().unwrap_or("the target"));
                told.next(error.advice().unwrap_or("the same command goes on"))
            }
            Stop::Cancelled | Stop::Lost(_) => Error::new(
                ErrorKind::Interrupted,
                "restore the point",
                format!(
                    "everything below byte {} of {} is written, and {left}",
                    reached.offset,
                    self.writer.length()
                ),
            )
            .on(self.writer.path().display())
            .next("the same command goes on"),
            Stop::Miscounted(why) => {
                Error::new(ErrorKind::Corruption, "finish the file", format!("{why}; {left}"))
                    .next("run the same command again, and report this")
            }
        }
    }

    async fn route(&self) -> Result<Route> {
        let zeros_are_free = self.writer.gaps_are_zero() && matches!(self.resumed, Resumed::Fresh);
        Ok(Route {
            source: Source::Blob {
                blob: self.found.blob.clone(),
                sends_crc: sends_crc(&self.found.blob).await?,
            },
            sink: Sink::Image(self.writer.clone()),
            zeros: ZeroRule { shortest_run: self.settings.zero_run.max(PAGE), trim_edges: zeros_are_free },
            zeros_are_free,
            puller: None,
        })
    }
}

/// A file belongs to the process that locked it: it is not lost to anybody.
struct FileKeeper {
    writer: ImageWriter,
    /// Whether it is written down: a differential restore looks at everything anew.
    notes: bool,
}

impl Keeper for FileKeeper {
    fn lost(&self) -> BoxFuture<'_, Loss> {
        std::future::pending().boxed()
    }

    fn passed(&self, _written: &Written) {}

    fn backlog(&self) -> Backlog {
        Backlog::None
    }

    fn note(&self, checkpoint: Checkpoint) -> BoxFuture<'_, CallResult<u64>> {
        async move {
            if !self.notes {
                return Ok(checkpoint.offset);
            }
            let noted = self.writer.note(&checkpoint.offset.to_string()).await;
            let failed = |error| local(Role::Target, self.writer.path().display(), error);
            noted.map(|()| checkpoint.offset).map_err(failed)
        }
        .boxed()
    }
}

fn no_record(found: &Found) -> Error {
    Error::new(
        ErrorKind::BaseElsewhere,
        "move only what differs",
        "the point has no record, and without one nobody can tell what differs",
    )
    .on(found.blob.resource())
    .next("restore in full: leave --differential out, and say --overwrite")
}

fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "restore the point", "interrupted").next("run the same command again")
}
