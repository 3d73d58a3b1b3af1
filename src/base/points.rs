//! The points of a base blob: its snapshots, each with the marker of its seal.

use serde::Serialize;

use super::look;
use super::marker::{Marker, Speed, State, digest_text};
use crate::azure::PageBlob;
use crate::azure::failure::CallResult;
use crate::error::{Error, ErrorKind, Result};

/// A snapshot of the base blob that equals a snapshot of the disk.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Point {
    /// Time of the blob snapshot: `?snapshot=` with it names the point.
    pub point: String,
    /// The disk snapshot that it equals.
    pub source: String,
    /// Time of that disk snapshot.
    pub source_time: String,
    /// The disk snapshot that the step began at; `None` for a full copy.
    pub previous: Option<String>,
    /// Length in bytes, footer included.
    pub length: u64,
    /// Bytes in the chunks of the step.
    pub bytes: u64,
    /// Bytes that went to the base blob for it.
    pub bytes_sent: u64,
    /// Of those, bytes that the service pulled from the source by itself (`server` mode): they were not checked on their
    /// way.
    pub bytes_pulled: u64,
    /// Bytes a second of the run that sealed it.
    pub bytes_per_second: Option<u64>,
    /// CRC-64/NVME of an image in which everything that the step did not write is zero; of the whole point for
    /// a full copy. `None` where the service pulled bytes by itself and did not tell their checksum.
    pub digest: Option<String>,
    /// Whether it has a record: without one only its source can prove it.
    pub recorded: bool,
    /// Who the snapshot is in Azure Resource Manager, where that is known.
    pub origin: Option<crate::chain::Origin>,
    /// The point that it stands for: the same snapshot, after the base blob was repaired.
    pub repairs: Option<String>,
    /// The generation of the run that sealed it.
    pub generation: u64,
    /// When it was sealed.
    pub sealed_at: String,
}

impl Point {
    /// A point from the marker in its metadata.
    pub fn from_marker(time: &str, marker: &Marker) -> Self {
        Self {
            point: time.to_owned(),
            source: marker.step.to.to_string(),
            source_time: marker.step.to.time().to_owned(),
            previous: marker.step.from.as_ref().map(ToString::to_string),
            length: marker.length,
            bytes: marker.checkpoint.counts.bytes,
            bytes_sent: marker.checkpoint.counts.bytes_sent,
            bytes_pulled: marker.checkpoint.counts.bytes_pulled,
            bytes_per_second: marker.speed.and_then(Speed::rate),
            digest: marker.checkpoint.digest.map(digest_text),
            recorded: marker.record.is_some(),
            origin: marker.origin.clone(),
            repairs: marker.repairs.clone(),
            generation: marker.generation,
            sealed_at: marker.written_at.clone(),
        }
    }
}

/// A point, and what the base blob says of it.
#[derive(Clone, Debug, Serialize)]
pub struct Known {
    /// The point.
    #[serde(flatten)]
    pub point: Point,
    /// Whether the base blob is clean at it: the next difference begins there.
    pub current: bool,
    /// Whether it is never deleted.
    pub protected: bool,
}

impl Known {
    /// Whether its source snapshot is the one of this time, name or ARM id, or as it is shown.
    pub fn is_of(&self, source: &str) -> bool {
        let in_arm = self.point.origin.as_ref().is_some_and(|origin| {
            let name = origin.snapshot.rsplit('/').next().unwrap_or_default();
            // The resource manager does not tell upper case from lower.
            [name, &origin.snapshot].iter().any(|known| known.eq_ignore_ascii_case(source))
        });
        in_arm || self.point.source_time == source || self.point.source == source
    }
}

/// All points with what the base blob says of them, oldest first.
///
/// # Errors
/// [`ErrorKind::BaseMissing`] when there is no base blob.
pub async fn known(blob: &PageBlob) -> Result<Vec<Known>> {
    let look = look(blob).await?;
    if look.properties.is_none() {
        return Err(Error::new(ErrorKind::BaseMissing, "list the points", "it does not exist")
            .on(blob.resource())
            .next(
                "check the name; a full copy creates it: snapferry copy --source <SAS URL> --target <URL>",
            ));
    }
    let points = points(blob).await.map_err(|error| cannot_list(blob, error.into()))?;
    let marker = look.marker.as_ref();
    let known = |point: Point| Known {
        current: marker.is_some_and(|marker| marker.is_clean_at(&point.point)),
        protected: marker.is_some_and(|marker| marker.protected.contains(&point.point)),
        point,
    };
    Ok(points.into_iter().map(known).collect())
}

/// Listing needs a permission that copying does not. Said of a blob that could be looked at: its SAS is valid.
pub(crate) fn cannot_list(blob: &PageBlob, error: Error) -> Error {
    if !matches!(error.kind(), ErrorKind::AccessDenied | ErrorKind::PermissionMissing) {
        return error;
    }
    let why = format!("the list of snapshots needs list permission (l) on the container: {}", error.why());
    Error::new(error.kind(), "list the points", why)
        .on(blob.resource())
        .next("use a SAS of the container or the account with l, or leave the SAS out and sign in: az login")
}

/// All points, oldest first. Snapshots of the blob that are no points of ours are left out.
pub async fn points(blob: &PageBlob) -> CallResult<Vec<Point>> {
    Ok(marked(blob).await?.into_iter().map(|(time, marker)| Point::from_marker(&time, &marker)).collect())
}

/// All snapshots of the blob that were taken by a seal.
pub(crate) async fn marked(blob: &PageBlob) -> CallResult<Vec<(String, Marker)>> {
    let listed = blob.snapshots().await?;
    let mut found: Vec<(String, Marker)> = Vec::new();
    for snapshot in listed {
        // A snapshot that somebody else took of a torn base copies its marker "applying": it is no point. And a
        // request that the network doubled made two of one seal, equal in all: the first is the point.
        if let Ok(Some(marker)) = Marker::read(&snapshot.metadata)
            && marker.state == State::Sealing
            && !found.iter().any(|(_, other)| other.run == marker.run && other.step == marker.step)
        {
            found.push((snapshot.time, marker));
        }
    }
    Ok(found)
}
