//! The base blob: who may write to it, what it says of itself, and how a finished step becomes a point.
//!
//! ```text
//! look        read only: does it exist, what does its marker say?
//! decide      does this step fit? create | begin | go on | finish the seal | nothing to do | refuse
//! open        lease, fence (sequence number = generation), marker "applying" -- before the first byte
//! note        checkpoint into the marker, every few seconds
//! seal        close the fence, marker "sealing", snapshot with If-Match, marker "clean"
//! ```
//!
//! **Crash rules.** Before the marker: nothing happened. After it: the same step goes on from the checkpoint,
//! any other is refused. After "sealing": everything is written, and the list of snapshots tells whether the
//! point exists; it is adopted, or made. After "clean": nothing to do.
//!
//! **Late requests.** A write of this run that was delayed in the network may arrive after it was repeated.
//! While the run lasts it carries the same bytes; the clear before a full copy, which does not, is behind a fence of
//! its own. Before the seal the fence is closed: the sequence number is
//! raised, which refuses late page writes, and the lease goes on under another id, which refuses late
//! checkpoints. So nothing changes between the last acknowledged write and the point.

pub(crate) mod check;
pub mod decide;
pub mod lease;
pub mod marker;
mod mending;
pub mod points;
pub mod protect;
pub mod prune;
mod recording;
pub mod retention;
pub mod seal;
pub(crate) mod takeover;

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tokio::sync::Mutex;

use crate::azure::failure::CallResult;
use crate::azure::{Fence, Metadata, PageBlob, Properties};
use crate::chain::Origin;
use crate::copy::chunk::Sink;
use crate::copy::frontier::{Checkpoint, Written};
use crate::copy::keeper::{Backlog, Keeper};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{RecordId, Recorder};
use crate::verify::Reservoir;

use decide::{Decision, Wish, decide};
use lease::{Lease, LeaseOptions, Loss};
use marker::{Marker, Speed, State, StepId, now};

/// What is known of the base blob before it is touched.
#[derive(Clone, Debug)]
pub struct Look {
    /// Its properties; `None` when it does not exist.
    pub properties: Option<Properties>,
    /// Its marker; `None` when it carries none.
    pub marker: Option<Marker>,
}

impl Look {
    /// Whether somebody holds the lease.
    pub fn is_leased(&self) -> bool {
        let state = self.properties.as_ref().map(|properties| properties.lease_state.as_str());
        matches!(state, Some("leased" | "breaking"))
    }

    /// The marker, for what cannot be done to a base blob without one.
    pub(crate) fn into_marker(self, blob: &PageBlob, tried: &str) -> Result<Marker> {
        let refuse = |kind, why: &str| {
            Err(Error::new(kind, tried, why)
                .on(blob.resource())
                .next("check the URL: snapferry status --target <URL>"))
        };
        match self {
            Self { properties: None, .. } => refuse(ErrorKind::BaseMissing, "it does not exist"),
            Self { marker: None, .. } => refuse(ErrorKind::BaseNotClean, "it carries no marker of snapferry"),
            Self { marker: Some(marker), .. } => Ok(marker),
        }
    }
}

/// Looks at the base blob.
///
/// # Errors
/// When it cannot be read, is no page blob, or carries a marker that cannot be read.
pub async fn look(blob: &PageBlob) -> Result<Look> {
    let properties = match blob.properties().await {
        Ok(properties) => properties,
        Err(error)
            if error.code() == "BlobNotFound" || (error.status() == Some(404) && error.code().is_empty()) =>
        {
            return Ok(Look { properties: None, marker: None });
        }
        Err(error) => return Err(error.into()),
    };
    if !properties.blob_type.is_empty() && properties.blob_type != "PageBlob" {
        return Err(Error::new(
            ErrorKind::BaseNotClean,
            "use the target as a base blob",
            format!("it is a {}, not a page blob", properties.blob_type),
        )
        .on(blob.resource())
        .next("name another blob: the first full copy creates it"));
    }
    let marker = Marker::read(&properties.metadata).map_err(|why| {
        Error::new(ErrorKind::BaseNotClean, "read the marker of the base blob", why)
            .on(blob.resource())
            .next("use the version of snapferry that wrote it, or copy in full to another blob")
    })?;
    Ok(Look { properties: Some(properties), marker })
}

/// The base blob while this run owns it.
pub struct Base {
    blob: PageBlob,
    lease: Lease,
    fence: Fence,
    /// Metadata that is not ours.
    others: Metadata,
    marker: Mutex<Marker>,
    /// What was seen when the lease was taken.
    seen: Look,
    /// The record of the step, once it is begun.
    recorder: Option<Recorder>,
    /// The part of the record that this run went on from.
    record_before: Option<RecordId>,
    /// The record that the point gets when none is being written.
    record_kept: Option<RecordId>,
    /// A random part of what this run wrote.
    sampled: Reservoir,
}

/// How a base is taken over.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The step that is about to be applied.
    pub step: StepId,
    /// Length of the snapshot that the step leads to.
    pub length: u64,
    /// Names this run.
    pub run: String,
    /// Whether snapshots are told apart by their time alone.
    pub across_hosts: bool,
    /// Who the snapshot is in Azure Resource Manager, where that is known.
    pub origin: Option<Origin>,
    /// Whether a full copy may take the place of what the base holds.
    pub rebase: bool,
    /// The lease.
    pub lease: LeaseOptions,
}

impl Base {
    /// Creates the base blob of a full copy, with the marker in it from its first moment on.
    pub async fn create(blob: &PageBlob, opening: &Opening) -> Result<Self> {
        const FIRST_GENERATION: u64 = 1;
        let marker = opening.marker(FIRST_GENERATION, Checkpoint::default());
        let metadata = marker.write(&Metadata::new());
        if let Err(error) = blob.create(opening.length, FIRST_GENERATION, &metadata).await {
            // A reply that was lost: what exists may be our own.
            let is_ours = error.code() == "BlobAlreadyExists"
                && look(blob).await?.marker.is_some_and(|marker| marker.run == opening.run);
            if !is_ours {
                let raced = error.code() == "BlobAlreadyExists";
                return Err(if raced { moved_on(blob) } else { Error::from(error) });
            }
        }
        let base = Self::own(blob, opening.lease).await?;
        // Between the creation and the lease another run may have taken it over, and even sealed it.
        let marker = base.marker().await;
        if marker.run == opening.run && marker.state == State::Applying {
            return Ok(base);
        }
        base.farewell().await;
        Err(moved_on(blob))
    }

    /// Takes an existing base blob over: lease, then a second look, because the first was taken without one.
    ///
    /// # Errors
    /// [`ErrorKind::LeaseHeld`] when another writer has it.
    pub async fn own(blob: &PageBlob, options: LeaseOptions) -> Result<Self> {
        let lease = takeover::take(blob, options).await?;
        let seen = match look(blob).await {
            Ok(seen) => seen,
            Err(error) => {
                let _ = tokio::time::timeout(FAREWELL, lease.release()).await;
                return Err(error);
            }
        };
        let (Some(properties), Some(marker)) = (&seen.properties, &seen.marker) else {
            let _ = tokio::time::timeout(FAREWELL, lease.release()).await;
            return Err(moved_on(blob));
        };
        if properties.is_versioned {
            tracing::warn!(
                "the account keeps versions of its blobs: every checkpoint may become one. Turn versioning off for \
                 this account, or make checkpoints rarer (--checkpoint-every)"
            );
        }
        let fence = Fence { lease_id: lease.id().await, generation: properties.sequence_number };
        let others = properties.metadata.clone();
        Ok(Self {
            blob: blob.clone(),
            lease,
            fence,
            others,
            marker: Mutex::new(marker.clone()),
            seen,
            recorder: None,
            record_before: None,
            record_kept: None,
            sampled: Reservoir::default(),
        })
    }

    /// What the base says of itself now.
    pub async fn marker(&self) -> Marker {
        self.marker.lock().await.clone()
    }

    /// The blob.
    pub fn blob(&self) -> &PageBlob {
        &self.blob
    }

    /// Decides once more, now that nobody else can write.
    pub fn look_again(&self, wish: &Wish<'_>) -> Result<Decision> {
        decide(&self.seen, wish)
    }

    /// What every page write carries.
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Raises the fence and writes the marker "applying", from `checkpoint` on: from here on the base is torn
    /// until it is sealed. Then brings the blob to the length of the snapshot.
    pub async fn begin(&mut self, opening: &Opening, checkpoint: Checkpoint) -> Result<()> {
        self.raise_fence().await?;
        let before = self.marker().await;
        let digest_before = self.begin_record(opening, checkpoint, &before).await?;
        let last_point = if before.state == State::Clean { before.point } else { before.last_point };
        let marker = Marker {
            last_point,
            record: self.record_before.clone(),
            before: digest_before,
            protected: before.protected,
            ..opening.marker(self.fence.generation, checkpoint)
        };
        self.write_marker(marker).await?;
        let length = self.seen.properties.as_ref().map(|properties| properties.length);
        if length != Some(opening.length) {
            self.blob.resize(opening.length, &self.fence.lease_id).await?;
        }
        Ok(())
    }

    /// Clears all that the blob holds, and raises the fence once more: the same clear, delayed in the network, would
    /// take away what was written after it.
    pub(crate) async fn clear(&mut self, length: u64) -> CallResult<()> {
        self.blob.clear_whole(length, &self.fence).await?;
        self.raise_fence().await?;
        // Written down with the next checkpoint.
        self.marker.lock().await.generation = self.fence.generation;
        Ok(())
    }

    /// Raises the fence and takes the checkpoint back to the start of the step: from here on the base may hold
    /// anything between the last point and the step's end, and both ways out of that begin at its start.
    pub(crate) async fn undo(&mut self, run: &str) -> CallResult<()> {
        self.raise_fence().await?;
        let marker = Marker {
            generation: self.fence.generation,
            run: run.to_owned(),
            owner: owner(),
            checkpoint: Checkpoint::default(),
            record: None,
            written_at: now(),
            ..self.marker().await
        };
        self.write_marker(marker).await.map(drop)
    }

    /// Remembers how fast the run was, for the marker of its seal.
    pub(crate) async fn measured(&self, speed: Speed) {
        self.marker.lock().await.speed = Some(speed);
    }

    /// Writes down that what was listed since `from` is not to be believed. A checkpoint that is still on its way is
    /// refused from here on.
    pub(crate) async fn distrust(&mut self, from: Checkpoint, has_cleared: bool) -> Result<()> {
        self.change_lease_id().await?;
        let distrusted = has_cleared && self.marker().await.step.from.is_some();
        let record = self.record_before.clone();
        let marker =
            Marker { checkpoint: from, distrusted, record, written_at: now(), ..self.marker().await };
        Ok(self.write_marker(marker).await.map(drop)?)
    }

    /// A random part of what this run wrote.
    pub(crate) fn sampled(&self) -> &Reservoir {
        &self.sampled
    }

    /// Where a run writes.
    pub(crate) fn sink(&self) -> Sink {
        Sink::Base { blob: self.blob.clone(), fence: self.fence() }
    }

    /// Gives the base blob back, as far as that is possible in a moment: otherwise the lease lapses by itself.
    pub async fn farewell(self) {
        match tokio::time::timeout(FAREWELL, self.lease.release()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(cause = %error.cause, "the lease was not released"),
            Err(_) => tracing::debug!("the lease was not released in time"),
        }
    }

    async fn raise_fence(&mut self) -> CallResult<()> {
        let wanted = self.fence.generation + 1;
        self.fence.generation = self.blob.raise_sequence_number(wanted, &self.fence.lease_id).await?;
        Ok(())
    }

    async fn write_marker(&self, marker: Marker) -> CallResult<String> {
        let etag = self.blob.set_metadata(&marker.write(&self.others), &self.fence.lease_id).await?;
        *self.marker.lock().await = marker;
        Ok(etag)
    }
}

impl Keeper for Base {
    fn lost(&self) -> BoxFuture<'_, Loss> {
        self.lease.lost().boxed()
    }

    fn passed(&self, written: &Written) {
        if let Some(recorder) = &self.recorder {
            recorder.passed(written);
        }
        self.sampled.passed(written);
    }

    fn backlog(&self) -> Backlog {
        self.recorder.as_ref().map(Recorder::backlog).unwrap_or_default()
    }

    /// The record first: a checkpoint never leads it.
    fn note(&self, checkpoint: Checkpoint) -> BoxFuture<'_, CallResult<u64>> {
        let goal = self.recorder.as_ref().map(Recorder::cut);
        async move {
            let record = self.upload_record(goal).await?;
            let marker = Marker { checkpoint, record, written_at: now(), ..self.marker().await };
            self.write_marker(marker).await?;
            Ok(checkpoint.offset)
        }
        .boxed()
    }
}

impl Opening {
    fn marker(&self, generation: u64, checkpoint: Checkpoint) -> Marker {
        Marker {
            state: State::Applying,
            step: self.step.clone(),
            length: self.length,
            generation,
            run: self.run.clone(),
            owner: owner(),
            checkpoint,
            point: None,
            last_point: None,
            distrusted: false,
            speed: None,
            origin: self.origin.clone(),
            protected: BTreeSet::new(),
            record: None,
            before: None,
            chain: None,
            repairs: None,
            written_at: now(),
        }
    }
}

/// How long the parting words of a run may take.
pub(crate) const FAREWELL: Duration = Duration::from_secs(10);

/// Another run was faster.
pub(crate) fn moved_on(blob: &PageBlob) -> Error {
    let why = "another run moved it on between the first look and the lease";
    Error::new(ErrorKind::LeaseHeld, "take over the base blob", why)
        .on(blob.resource())
        .next("run the same command again")
}

/// Host and process, for the person who asks who holds the lease.
fn owner() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok())
        .unwrap_or_default();
    let host: String = host.trim().chars().filter(char::is_ascii_graphic).take(100).collect();
    let host = if host.is_empty() { "unknown-host".to_owned() } else { host };
    format!("{host}/{}", std::process::id())
}

/// "We lost it", with what is known of the new owner.
pub(crate) async fn explain_lost(blob: &PageBlob, why: &str) -> Error {
    Error::new(ErrorKind::LeaseLost, "go on writing to the base blob", format!("{why}{}", holder(blob).await))
        .on(blob.resource())
        .next("nothing of this run lands any more. To look: snapferry status --target <URL>; to go on: the same command again")
}

pub(crate) async fn holder(blob: &PageBlob) -> String {
    match tokio::time::timeout(FAREWELL, look(blob)).await {
        Ok(Ok(Look { marker: Some(marker), .. })) => {
            format!(
                "; its marker was last written by {} at {} ({})",
                marker.owner,
                marker.written_at,
                marker.state_name()
            )
        }
        _ => String::new(),
    }
}
