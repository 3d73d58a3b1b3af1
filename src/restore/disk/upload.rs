//! The point goes up through this machine: what it holds, in parallel, then its footer, then the end of access.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::target::Target;
use super::{FAREWELL, Made, OnFailure, TRIED, Work, Worth, access, interrupted};
use crate::azure::crc64::Crc64;
use crate::azure::failure::{CallError, CallResult, Class};
use crate::azure::{Against, Endpoint, PageBlob, Role};
use crate::base::lease::Loss;
use crate::copy::chunk::{Route, Sink, Source};
use crate::copy::frontier::{Checkpoint, Written};
use crate::copy::keeper::{Backlog, Keeper};
use crate::copy::scan::ZeroRule;
use crate::copy::{Copied, CopyOptions, Run, Stop};
use crate::diff::Listing;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Planner;
use crate::progress::Phase;
use crate::range::{PAGE, PageRange};
use crate::restore::check::{Check, Checked};
use crate::step::Verify;

/// The host of an upload.
struct Host {
    blob: PageBlob,
    takes_crc: bool,
}

impl Work<'_> {
    /// Uploads from `resumed` on, or makes the disk first. `worth` tells, also after an error, what the disk is
    /// worth then.
    pub(super) async fn upload(
        &self,
        resumed: Option<u64>,
        because: String,
        worth: &mut Worth,
    ) -> Result<Made> {
        let from = resumed.unwrap_or_default();
        let resumed_from = (from > 0).then_some(from);
        if from == self.image.disk_bytes() && self.uninterrupted(self.was_written()).await? {
            return Ok(Made { resumed_from, ..Made::before("upload") });
        }
        let host = self.uninterrupted(self.open(resumed)).await?;
        let checked = if host.takes_crc { "crc64" } else { "length only" };
        let mut made = Made { way: "upload", because, bytes_sent: 0, bytes_zero: 0, resumed_from, checked };
        if let Ok(rest) = PageRange::new(from, self.image.disk_bytes()) {
            let copied = self.pages(&host, rest, worth).await?;
            made.bytes_sent = copied.checkpoint.counts.bytes_sent;
            made.bytes_zero = copied.checkpoint.counts.bytes_zero;
        }
        self.progress.enter(Phase::Sealing);
        self.uninterrupted(self.finish(&host)).await?;
        made.bytes_sent += PAGE;
        Ok(made)
    }

    /// Everything but the footer is there. Perhaps the footer is too, and only the end of access is missing: the service
    /// tells.
    async fn was_written(&self) -> Result<bool> {
        match self.target.arm.end_get_access(&self.job.disk).await {
            Err(error) if error.status() != Some(409) => return Err(error.into()),
            _ => {}
        }
        Ok(!self.target.awaits_upload().await?)
    }

    /// The disk, a SAS for it, and what its host takes.
    async fn open(&self, resumed: Option<u64>) -> Result<Host> {
        let job = self.job;
        if resumed.is_none() {
            self.target.make_for_upload().await?;
        }
        let resource = access::to_write(self.target.arm, &job.disk, job.sas_duration, job.plain).await?;
        let pace = self.client.pace(Role::Target, self.settings.caps);
        let endpoint = Endpoint::new(resource, self.client, pace, Arc::clone(&self.progress.target));
        let blob = PageBlob::new(endpoint)?;
        let takes_crc = self.takes_crc(&blob).await?;
        Ok(Host { blob, takes_crc })
    }

    /// Whether the host takes checksums is not documented: asked once, with the point's own first page.
    async fn takes_crc(&self, blob: &PageBlob) -> Result<bool> {
        let error = match self.put_page(blob, 0, &self.image.first, true).await {
            Ok(()) => return Ok(true),
            Err(error) if blob.learns_to_send_token(&error) => {
                match self.put_page(blob, 0, &self.image.first, true).await {
                    Ok(()) => return Ok(true),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if error.status() != Some(400) {
            return Err(error.into());
        }
        self.put_page(blob, 0, &self.image.first, false).await?;
        tracing::warn!(
            cause = %error.cause,
            "writes are checked by TLS and length only: the host of the upload takes no checksums"
        );
        Ok(false)
    }

    async fn put_page(&self, blob: &PageBlob, at: u64, page: &[u8], takes_crc: bool) -> CallResult<()> {
        let Ok(range) = PageRange::new(at, at + PAGE) else { return Ok(()) };
        blob.upload_pages(range, vec![Bytes::copy_from_slice(page)], Crc64::of(page), takes_crc).await
    }

    /// Everything but the footer, from `rest` on.
    async fn pages(&self, host: &Host, rest: PageRange, worth: &mut Worth) -> Result<Copied> {
        self.progress.enter(Phase::Copying);
        let settings = self.settings;
        let point = &self.image.found.blob;
        let length = self.image.found.marker.length;
        let mut listing =
            Listing::start(point, &Against::Nothing, Some(rest), length, Vec::new(), settings.listing);
        self.progress.follow(listing.progress());
        let route = Route {
            source: Source::Blob { blob: point.clone(), sends_crc: self.image.sends_crc },
            sink: Sink::Disk { blob: host.blob.clone(), takes_crc: host.takes_crc },
            zeros: ZeroRule { shortest_run: settings.zero_run.max(PAGE), trim_edges: true },
            zeros_are_free: true,
            puller: None,
        };
        let notes = Notes { target: self.target, noted: AtomicU64::new(rest.start()) };
        let check = match settings.verify {
            Verify::None => None,
            _ => self.uninterrupted(Check::open(&self.image.found, rest.start(), true)).await?,
        };
        let keeper = Checked { inner: &notes, check: check.as_ref() };
        let options = CopyOptions { checkpoint_every: self.job.note_every, ..settings.copy };
        let start = Checkpoint { offset: rest.start(), ..Checkpoint::default() };
        let planner = Planner::new(settings.plan, rest.end());
        let mut run = Run::new(&keeper, route, planner, options, start, self.progress);
        let result = run.to_end(&mut listing, rest.end(), self.cancel).await;
        let reached = run.checkpoint();
        drop(run);
        if reached.offset > rest.start() {
            *worth = Worth::Pages;
        }
        match result {
            Ok(copied) => {
                if let Some(check) = &check {
                    self.uninterrupted(async { Ok(check.finish(rest.end()).await?) }).await?;
                }
                Ok(copied)
            }
            Err(stop) if stop.is_distrust() => {
                *worth = Worth::Distrusted;
                self.distrust(rest.start()).await;
                Err(self.explain(stop, reached))
            }
            Err(stop) => {
                let error = self.explain(stop, reached);
                if reached.offset > notes.noted.load(Relaxed)
                    && self.keeps(error.kind(), *worth, rest.start() == 0)
                {
                    let _ = tokio::time::timeout(FAREWELL / 8, keeper.note(reached)).await;
                }
                Err(error)
            }
        }
    }

    /// What a list said that turned out to be wrong is not trusted, not even where it looked right: back to where this
    /// run began, also over the checkpoints that it noted meanwhile.
    async fn distrust(&self, from: u64) {
        if self.job.on_failure == OnFailure::Keep
            && let Err(error) = self.target.note(from).await
        {
            tracing::error!(cause = %error.cause, "it was not written down that the upload is not to be gone on with: delete the disk");
        }
    }

    fn explain(&self, stop: Stop, reached: Checkpoint) -> Error {
        match stop {
            Stop::Call(error) | Stop::Lost(Loss::Refused(error)) => Error::from(error),
            Stop::Lost(Loss::Late) => {
                Error::new(ErrorKind::Internal, TRIED, "an upload has no lease to lose")
            }
            Stop::Cancelled => interrupted(
                &self.job.disk,
                &format!(
                    "everything below byte {} of {} is uploaded",
                    reached.offset,
                    self.image.disk_bytes()
                ),
            ),
            Stop::Miscounted(why) => Error::new(ErrorKind::Corruption, TRIED, why).on(&self.job.disk),
        }
    }

    /// The footer, and the end of access: from there on it is a disk.
    async fn finish(&self, host: &Host) -> Result<()> {
        if let Err(error) = self.target.note_written().await {
            // A crash from here to the end leaves a disk of which nobody knows that it is whole.
            tracing::warn!(cause = %error.cause, "that all is uploaded was not written down");
        }
        let at = self.image.disk_bytes();
        if let Err(error) = self.put_page(&host.blob, at, &self.image.footer, host.takes_crc).await {
            // Access may have been ended for another SAS when the footer was there already, its reply lost.
            return self.unless_whole(error).await;
        }
        match self.target.arm.end_get_access(&self.job.disk).await {
            Err(error) => self.unless_whole(error).await,
            Ok(()) => Ok(()),
        }
    }

    async fn unless_whole(&self, error: CallError) -> Result<()> {
        match self.target.awaits_upload().await {
            Ok(false) => Ok(()),
            _ => Err(error.into()),
        }
    }
}

/// Keeps the upload's checkpoint in a tag of the disk. Nobody can take the upload over: see the module above.
struct Notes<'a> {
    target: &'a Target<'a>,
    noted: AtomicU64,
}

impl Keeper for Notes<'_> {
    fn lost(&self) -> BoxFuture<'_, Loss> {
        std::future::pending().boxed()
    }

    fn passed(&self, _: &Written) {}

    fn backlog(&self) -> Backlog {
        Backlog::None
    }

    /// Never fails: without it, a run that goes on repeats more. A disk that takes none is not asked again and again.
    fn note(&self, checkpoint: Checkpoint) -> BoxFuture<'_, CallResult<u64>> {
        async move {
            let Err(error) = self.target.note(checkpoint.offset).await else {
                self.noted.store(checkpoint.offset, Relaxed);
                return Ok(checkpoint.offset);
            };
            tracing::warn!(cause = %error.cause, "how far the upload is was not written down");
            let passes = error.class() == Class::Passes;
            Ok(if passes { self.noted.load(Relaxed) } else { u64::MAX })
        }
        .boxed()
    }
}
