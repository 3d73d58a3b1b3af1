//! Taking the lease of a base blob whose last writer may be dead.
//!
//! A dead writer's lease lapses within a minute: whoever comes waits for it, and begins at once when it does. A writer
//! that lives renews its lease and its marker; when the marker moves, there is nothing to wait for.

use std::time::Duration;

use tokio::time::Instant;

use super::lease::{Lease, LeaseOptions};
use super::{holder, look};
use crate::azure::PageBlob;
use crate::azure::failure::CallError;
use crate::azure::pace;
use crate::error::{Error, ErrorKind, Result};

/// How often somebody else's lease is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Acquires the lease, as [`LeaseOptions`] has it.
pub(super) async fn take(blob: &PageBlob, options: LeaseOptions) -> Result<Lease> {
    let deadline = Instant::now() + options.wait;
    let mut seen: Option<(String, String)> = None;
    loop {
        let held = match Lease::acquire(blob, options).await {
            Ok(lease) => return Ok(lease),
            Err(error) if is_held(&error) => error,
            Err(error) => return Err(error.into()),
        };
        if options.break_it {
            tracing::warn!("breaking the lease of another writer{}", holder(blob).await);
            match blob.break_lease().await {
                Err(error) if error.code() != "LeaseNotPresentWithLeaseOperation" => return Err(error.into()),
                _ => continue,
            }
        }
        let marker = look(blob).await?.marker;
        let sign =
            marker.map(|marker| (marker.run, format!("{} {}", marker.written_at, marker.checkpoint.offset)));
        let lives = seen.is_some() && seen != sign;
        let left = deadline.saturating_duration_since(Instant::now());
        if lives || left.is_zero() {
            return Err(refuse(blob, lives).await);
        }
        if seen.is_none() {
            tracing::warn!(at_most = ?options.wait, "another writer holds the lease: waiting in case it is dead{}", holder(blob).await);
        }
        seen = sign;
        let wait = left.min(LOOK_EVERY);
        let _shown = blob.waiting(&held, wait);
        pace::pause(wait).await;
    }
}

fn is_held(error: &CallError) -> bool {
    matches!(error.code(), "LeaseAlreadyPresent" | "LeaseIsBreakingAndCannotBeAcquired")
}

/// "Another writer holds the lease", with what is known of it.
async fn refuse(blob: &PageBlob, lives: bool) -> Error {
    let lives = if lives { ", and it is at work" } else { "" };
    let why = format!("another writer holds its lease{lives}{}", holder(blob).await);
    Error::new(ErrorKind::LeaseHeld, "take over the base blob", why)
        .on(blob.resource())
        .next("wait for it to finish; if it is gone, its lease lapses within a minute, and --break-lease takes it at once. To look: snapferry status --target <URL>")
}
