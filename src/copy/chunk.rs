//! One chunk: read, check, write.

use bytes::Bytes;

use crate::azure::crc64::Crc64;
use crate::azure::failure::{CallError, CallResult, Cause};
use crate::azure::pages::ChunkData;
use crate::azure::{Fence, Learned, PageBlob, Role, Timeouts};
use crate::budget::Budget;
use crate::error::{Error, ErrorKind};
use crate::image::{ImageReader, ImageWriter};
use crate::leaf::Sums;
use crate::plan::Chunk;
use crate::plan::balance::Rates;
use crate::range::{ExtentKind, PageRange};

use super::frontier::{Counts, Written};
use super::pull::Puller;
use super::readers::Turn;
use super::scan::{Scanned, Scanner, ZeroRule, scan};

/// Where chunks are read.
#[derive(Clone, Debug)]
pub enum Source {
    /// A snapshot, or a point.
    Blob {
        /// The way to it.
        blob: PageBlob,
        /// Whether it sends checksums.
        sends_crc: bool,
    },
    /// An image on this machine.
    Image(ImageReader),
}

/// Where chunks are written.
#[derive(Clone, Debug)]
pub enum Sink {
    /// A base blob.
    Base {
        /// The way to it.
        blob: PageBlob,
        /// What keeps a writer who was overtaken from writing.
        fence: Fence,
    },
    /// The upload of a new disk, which holds zeros.
    Disk {
        /// The way to it.
        blob: PageBlob,
        /// Whether it takes checksums.
        takes_crc: bool,
    },
    /// An image on this machine.
    Image(ImageWriter),
}

/// What every chunk of a run needs.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where it is read.
    pub source: Source,
    /// Where it is written.
    pub sink: Sink,
    /// How zeros are told from data.
    pub zeros: ZeroRule,
    /// Whether what was not written reads as zeros at the target: then zeros need no request at all. True only for a
    /// full copy into a target that this run made or cleared.
    pub zeros_are_free: bool,
    /// Has the service pull the data by itself, as long as it takes that.
    pub puller: Option<std::sync::Arc<Puller>>,
}

impl Route {
    /// What this run shares with others.
    pub(super) fn budget(&self) -> Option<&Budget> {
        let source = if let Source::Blob { blob, .. } = &self.source { blob.budget() } else { None };
        source.or(match &self.sink {
            Sink::Base { blob, .. } | Sink::Disk { blob, .. } => blob.budget(),
            Sink::Image(_) => None,
        })
    }

    /// Zeros that were joined to save requests are not to cost some.
    fn zeros_in(&self, chunk: Chunk) -> ZeroRule {
        let shortest_run = self.zeros.shortest_run.max(2 * chunk.widest_gap);
        ZeroRule { shortest_run, ..self.zeros }
    }

    /// Whether what is copied passes this machine, from a source that is counted.
    pub(super) fn is_streaming(&self) -> bool {
        let pulls = self.puller.as_ref().is_some_and(|puller| puller.fell_back().is_none());
        matches!(self.source, Source::Blob { .. }) && !pulls
    }

    /// What both sides take in a second: as documented, or found, or allowed by the user.
    pub(super) fn rates(&self) -> Rates {
        let source = if let Source::Blob { blob, .. } = &self.source { Some(blob.learned()) } else { None };
        let sides = [source, self.sink.learned()];
        let least = |of: fn(&Learned) -> Option<f64>, documented: f64| {
            sides.iter().flatten().filter_map(of).reduce(f64::min).unwrap_or(documented)
        };
        let documented = Rates::default();
        Rates {
            bytes_per_second: least(|side| side.bytes_per_second, documented.bytes_per_second),
            requests_per_second: least(|side| side.requests_per_second, documented.requests_per_second),
        }
    }

    /// Moves one chunk. `turn`, if it has to wait for one, is its turn to be read, and is over when it was.
    pub(crate) async fn copy(&self, chunk: Chunk, mut turn: Turn) -> CallResult<Written> {
        let length = chunk.range.len();
        if chunk.kind == ExtentKind::Clear {
            self.sink.clear(chunk.range).await?;
            let counts = Counts { chunks: 1, bytes: length, bytes_zero: length, ..Counts::default() };
            return Ok(Written {
                range: chunk.range,
                crc: Some(Crc64::of_zeros(length)),
                sums: Some(Sums::Zeros),
                counts,
            });
        }
        if let Some(puller) = &self.puller
            && puller.fell_back().is_none()
        {
            turn.take();
            if let Some(written) = puller.pull(chunk.range).await? {
                return Ok(written);
            }
        }
        let scanned = self.source.read(chunk.range, self.zeros_in(chunk)).await?;
        drop(turn);
        let mut counts = Counts { chunks: 1, bytes: length, ..Counts::default() };
        for piece in scanned.pieces {
            if let Some((frames, crc)) = piece.data {
                self.sink.write(piece.range, frames, crc).await?;
                counts.bytes_sent += piece.range.len();
            } else {
                if !self.zeros_are_free {
                    self.sink.clear(piece.range).await?;
                }
                counts.bytes_zero += piece.range.len();
            }
        }
        Ok(Written { range: chunk.range, crc: Some(scanned.crc), sums: Some(scanned.sums), counts })
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blob { blob, .. } => blob.resource().fmt(f),
            Self::Image(image) => image.path().fmt(f),
        }
    }
}

impl Source {
    /// How long an attempt to read a chunk may take.
    pub(crate) fn call_timeout(&self) -> std::time::Duration {
        match self {
            Self::Blob { blob, .. } => blob.call_timeout(),
            Self::Image(_) => Timeouts::default().call,
        }
    }

    /// Reads and checks, as often as that is worth while.
    pub(crate) async fn read(&self, range: PageRange, zeros: ZeroRule) -> CallResult<Scanned> {
        match self {
            Self::Blob { blob, sends_crc } => {
                blob.repeat_attempt(|| read_once(blob, *sends_crc, range, zeros)).await
            }
            Self::Image(image) => {
                let failed = |error| local(Role::Source, image.path(), error);
                let frames = image.read(range).await.map_err(failed)?;
                scan_aside(range, frames, zeros).await.ok_or_else(|| failed(not_scanned()))
            }
        }
    }
}

/// What this machine's own disk refused.
pub(crate) fn local(role: Role, on: impl std::fmt::Display, error: Error) -> CallError {
    CallError::of("file I/O", role, on, Cause::Local(Box::new(error)))
}

fn not_scanned() -> Error {
    Error::new(ErrorKind::Internal, "scan a chunk", "the thread pool gave no result")
}

/// One attempt to read and check.
async fn read_once(
    blob: &PageBlob,
    sends_crc: bool,
    range: PageRange,
    zeros: ZeroRule,
) -> CallResult<Scanned> {
    let mut scanner = Scanner::new(range);
    let ChunkData { frames, sent_crc } =
        blob.read_looking(range, sends_crc, &mut |frame| scanner.look(frame)).await?;
    if sends_crc && sent_crc.is_none() {
        // It was sent when the run began: a reply without it is not the service's.
        let resource = blob.resource();
        let cause = Cause::Corrupt("the reply lacks its checksum".to_owned());
        return Err(CallError::of("Get Blob", resource.role(), resource, cause));
    }
    let found = scanner.finish(&frames, zeros);
    blob.compare("Get Blob", range, sent_crc, found.crc)?;
    Ok(found)
}

/// The bytes are looked at on the thread pool for computing, so that the threads that serve sockets stay free.
pub(crate) async fn scan_aside(range: PageRange, frames: Vec<Bytes>, zeros: ZeroRule) -> Option<Scanned> {
    let (sender, scanned) = tokio::sync::oneshot::channel();
    rayon::spawn(move || {
        // The receiver is gone when the run was ended meanwhile.
        let _ = sender.send(scan(range, &frames, zeros));
    });
    scanned.await.ok()
}

impl Sink {
    async fn write(&self, range: PageRange, frames: Vec<Bytes>, crc: Crc64) -> CallResult<()> {
        match self {
            Self::Base { blob, fence } => blob.put_pages(range, frames, crc, fence).await,
            Self::Disk { blob, takes_crc } => blob.upload_pages(range, frames, crc, *takes_crc).await,
            Self::Image(image) => {
                let written = image.write(range, &frames).await;
                written.map_err(|error| local(Role::Target, image.path().display(), error))
            }
        }
    }

    async fn clear(&self, range: PageRange) -> CallResult<()> {
        match self {
            Self::Base { blob, fence } => blob.clear_pages(range, fence).await,
            // What was never written is zero, and each page is only ever written with the point's own bytes.
            Self::Disk { .. } => Ok(()),
            Self::Image(image) => {
                image.zero(range).await.map_err(|error| local(Role::Target, image.path().display(), error))
            }
        }
    }

    fn learned(&self) -> Option<Learned> {
        match self {
            Self::Base { blob, .. } | Self::Disk { blob, .. } => Some(blob.learned()),
            Self::Image(_) => None,
        }
    }

    /// How long an attempt to write a chunk may take.
    pub(crate) fn call_timeout(&self) -> std::time::Duration {
        match self {
            Self::Base { blob, .. } | Self::Disk { blob, .. } => blob.call_timeout(),
            Self::Image(_) => Timeouts::default().call,
        }
    }
}
