//! Protected points: a set in the marker of the base blob, which every run hands on and which pruning keeps.
//!
//! The marker is written only under the lease, so this waits for a run that is at work, or is refused.

use std::collections::BTreeSet;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::lease::LeaseOptions;
use super::marker::Marker;
use super::points::{self, cannot_list};
use super::{Base, look};
use crate::azure::reply::scrub;
use crate::azure::{Metadata, PageBlob};
use crate::error::{Error, ErrorKind, Result};

/// Bytes that metadata may take (REST reference, Set Blob Metadata).
const METADATA: usize = 8 << 10;
/// Of those, left for what later markers say more than the present one.
const RESERVE: usize = 2 << 10;

/// What is done to points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// They are never deleted from here on.
    Protect,
    /// They may be deleted again.
    Unprotect,
}

/// What it came to.
#[derive(Clone, Debug, Serialize)]
pub struct ProtectReport {
    /// The points that were not so before.
    pub changed: BTreeSet<String>,
    /// All points that are protected now.
    pub protected: BTreeSet<String>,
}

/// Protects points, or ends that. What is so already stays so.
///
/// # Errors
/// [`ErrorKind::NotFound`] when one of them is no point, [`ErrorKind::LeaseHeld`] while a run is at work, and
/// [`ErrorKind::Refused`] when the metadata has no room; then nothing is changed.
pub async fn change(
    blob: &PageBlob,
    change: Change,
    points: &BTreeSet<String>,
    lease: LeaseOptions,
    cancel: &CancellationToken,
) -> Result<ProtectReport> {
    look(blob).await?.into_marker(blob, change.words())?;
    let base = tokio::select! {
        base = Base::own(blob, lease) => base?,
        () = cancel.cancelled() => {
            return Err(Error::new(ErrorKind::Interrupted, change.words(), "interrupted; nothing was changed")
                .next("run the same command again"));
        }
    };
    let changed = apply(&base, change, points).await;
    base.farewell().await;
    changed
}

/// Under the lease: what the marker says now counts.
async fn apply(base: &Base, change: Change, points: &BTreeSet<String>) -> Result<ProtectReport> {
    let marker = base.marker().await;
    let listed = points::points(&base.blob).await.map_err(|error| cannot_list(&base.blob, error.into()))?;
    let is_known = |point: &String| {
        listed.iter().any(|known| known.point == *point)
            // A point that was deleted by other means.
            || change == Change::Unprotect && marker.protected.contains(point)
    };
    if let Some(unknown) = points.iter().find(|point| !is_known(point)) {
        return Err(Error::new(
            ErrorKind::NotFound,
            change.words(),
            format!("{} is no point of it", scrub(unknown)),
        )
        .on(base.blob.resource())
        .next("take the times from the list: snapferry points --target <URL>"));
    }
    let protected = match change {
        Change::Protect => &marker.protected | points,
        Change::Unprotect => &marker.protected - points,
    };
    let changed = &marker.protected ^ &protected;
    if !changed.is_empty() {
        let marker = Marker { protected: protected.clone(), ..marker };
        if change == Change::Protect && size(&marker.write(&base.others)) > METADATA - RESERVE {
            return Err(no_room(base));
        }
        base.write_marker(marker).await?;
    }
    Ok(ProtectReport { changed, protected })
}

impl Change {
    fn words(self) -> &'static str {
        match self {
            Self::Protect => "protect points",
            Self::Unprotect => "end the protection of points",
        }
    }
}

fn size(metadata: &Metadata) -> usize {
    metadata.iter().map(|(name, value)| name.len() + value.len()).sum()
}

fn no_room(base: &Base) -> Error {
    let why = "the metadata of the base blob, which holds the set, has no room for more: all of it takes at most 8 KiB, and the markers of later runs need a part";
    Error::new(ErrorKind::Refused, Change::Protect.words(), why).on(base.blob.resource()).next(
        "protect fewer points: snapferry points unprotect; or remove metadata of your own: az storage blob metadata update",
    )
}
