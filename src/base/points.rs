//! The points of a base blob: its snapshots, each with the marker of its seal.

use serde::Serialize;

use super::marker::{Marker, State};
use crate::azure::PageBlob;
use crate::azure::failure::CallResult;

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
    /// Bytes that were sent for it.
    pub bytes_sent: u64,
    /// CRC-64/NVME of an image in which everything that the step did not write is zero; of the whole point for
    /// a full copy.
    pub digest: String,
    /// Who the snapshot is in Azure Resource Manager, where that is known.
    pub origin: Option<crate::chain::Origin>,
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
            digest: format!("{:016x}", marker.checkpoint.digest.value()),
            origin: marker.origin.clone(),
            generation: marker.generation,
            sealed_at: marker.written_at.clone(),
        }
    }
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
