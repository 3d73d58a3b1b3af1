//! The seal: a finished step becomes a point, once.
//!
//! ```text
//! 0 end the record      its last block, before anything says that the step is written
//! 1 close the fence     sequence number + 1 (late page writes), lease under another id (late checkpoints)
//! 2 marker "sealing"    with final counts and digest; its ETag is the base as it shall be kept
//! 3 Snapshot Blob       If-Match that ETag, under the lease; carries the marker as its metadata
//! 4 marker "clean"      naming the point, under yet another lease id (late markers "sealing")
//! ```
//! A crash after 2 leaves "sealing": the next run looks for a snapshot with this step's marker, and makes it
//! only if there is none. A lost reply to 3 is answered the same way.

use std::collections::BTreeSet;

use super::marker::{Marker, State, now};
use super::points::{self, Point};
use super::{Base, explain_lost, owner};
use crate::azure::failure::Class;
use crate::copy::frontier::Checkpoint;
use crate::error::{Error, ErrorKind, Result};

/// Attempts to make the snapshot; between two, the list of snapshots is looked at.
const ATTEMPTS: u32 = 5;

impl Base {
    /// Seals a step that is written to its end. Returns the point.
    pub async fn seal(&mut self, checkpoint: Checkpoint) -> Result<Point> {
        let marker = self.marker().await;
        if marker.state != State::Applying || checkpoint.offset != marker.length {
            return Err(Error::new(ErrorKind::Corruption, "seal the step", "it is not written to its end"));
        }
        let record = self.finish_record().await?;
        self.close_fence().await?;
        let marker = Marker {
            state: State::Sealing,
            checkpoint,
            record,
            generation: self.fence.generation,
            written_at: now(),
            ..marker
        };
        self.make_point(marker).await
    }

    /// Finishes a seal that a crash interrupted: adopts the point if it exists, makes it otherwise.
    pub async fn finish_seal(&mut self) -> Result<Point> {
        let marker = self.marker().await;
        self.close_fence().await?;
        if let Some((point, made)) = self.existing_point(&marker).await? {
            return self.declare_clean(Marker { chain: made.chain, ..marker }, point).await;
        }
        self.make_point(Marker { generation: self.fence.generation, ..marker }).await
    }

    pub(crate) async fn close_fence(&mut self) -> Result<()> {
        self.raise_fence().await?;
        self.change_lease_id().await
    }

    /// Requests that are still on their way with the old id are refused from here on.
    pub(super) async fn change_lease_id(&mut self) -> Result<()> {
        self.lease.change_id().await?;
        self.fence.lease_id = self.lease.id().await;
        Ok(())
    }

    async fn make_point(&mut self, marker: Marker) -> Result<Point> {
        let mut last = None;
        for attempt in 0..ATTEMPTS {
            // Another ETag: an attempt that is still on its way is refused from here on, so that the list which
            // is looked at then does not change any more.
            let etag = self.write_marker(marker.clone()).await?;
            if attempt > 0
                && let Some((time, made)) = self.existing_point(&marker).await?
            {
                return self.declare_clean(Marker { chain: made.chain, ..marker }, time).await;
            }
            let of_point = Marker { last_point: None, protected: BTreeSet::new(), ..marker.clone() };
            let chain = Some(of_point.digest());
            let of_point = Marker { chain: chain.clone(), ..of_point };
            let metadata = of_point.write(&self.others);
            match self.blob.snapshot(&metadata, &self.fence.lease_id, &etag).await {
                Ok(time) => return self.declare_clean(Marker { chain, ..marker }, time).await,
                Err(error) if error.is_fenced() => {
                    return Err(explain_lost(&self.blob, &error.cause.to_string()).await);
                }
                // 412: something wrote after all. Otherwise the outcome is unknown.
                Err(error) if error.status() == Some(412) || error.class() == Class::Passes => {
                    last = Some(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let none = || Error::new(ErrorKind::Internal, "seal the step", "no attempt was made");
        Err(last.map_or_else(none, Error::from))
    }

    async fn existing_point(&self, marker: &Marker) -> Result<Option<(String, Marker)>> {
        let listed = points::marked(&self.blob).await.map_err(|error| {
            let error = Error::from(error);
            if error.kind() == ErrorKind::PermissionMissing || error.kind() == ErrorKind::AccessDenied {
                return Error::new(
                    error.kind(),
                    "finish the seal",
                    format!("whether the point exists already can only be seen in the list of snapshots: {}", error.why()),
                )
                .on(self.blob.resource())
                .next("run the same command with a SAS of the container or the account that has list permission (l), or signed in with az login");
            }
            error
        })?;
        let mut found = listed.into_iter().filter(|(_, made)| {
            made.run == marker.run && made.step == marker.step && made.checkpoint == marker.checkpoint
        });
        Ok(found.next())
    }

    /// The base equals `point`, and says so.
    pub(crate) async fn declare_clean(&mut self, marker: Marker, time: String) -> Result<Point> {
        self.change_lease_id().await?;
        let clean = Marker {
            state: State::Clean,
            point: Some(time.clone()),
            last_point: None,
            distrusted: false,
            owner: owner(),
            written_at: now(),
            ..marker
        };
        self.write_marker(clean.clone()).await?;
        tracing::info!(point = %time, source = %clean.step.to, "sealed");
        Ok(Point::from_marker(&time, &clean))
    }
}
