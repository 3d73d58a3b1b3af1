//! Taking the lease of a base blob whose last writer may be dead.
//!
//! A dead writer's lease lapses within a minute: whoever comes waits for it, and begins at once when it does. A writer
//! that lives renews its lease and its marker; when the marker moves, there is nothing to wait for.

use std::time::Duration;

use tokio::time::Instant;

use super::lease::{Lease, LeaseOptions};
use super::{Look, holder, look};
use crate::azure::PageBlob;
use crate::azure::failure::CallError;
use crate::azure::pace;
use crate::error::{Error, ErrorKind, Result};

/// How often a lease is broken before it is waited for.
const MOST_BROKEN: u32 = 3;
/// How often somebody else's lease is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A rival that has just taken the lease writes to the blob within this time.
const SILENCE: Duration = Duration::from_secs(1);

/// Waits until nobody holds the lease, without taking it. Breaking it is left to whoever takes it.
pub(crate) async fn wait_until_free(blob: &PageBlob, options: LeaseOptions) -> Result<()> {
    let mut watch = Watch::new(options);
    while !options.break_it && look(blob).await?.is_leased() {
        watch.pause(blob).await?;
    }
    Ok(())
}

/// Acquires the lease, as [`LeaseOptions`] has it.
pub(crate) async fn take(blob: &PageBlob, options: LeaseOptions) -> Result<Lease> {
    let mut watch = Watch::new(options);
    let mut broken = 0;
    loop {
        let is_ours = match Lease::acquire(blob, options).await {
            Ok(lease) => return Ok(lease),
            Err(error) if is_held(&error) => error.may_be_done,
            Err(error) => return Err(error.into()),
        };
        // The reply to an attempt was lost that may have taken it, under an id that nobody knows. If it was a rival after
        // all, nothing of theirs lands any more, and they know.
        if is_ours && broken < MOST_BROKEN && is_silent(blob).await? {
            broken += 1;
            tracing::warn!("the reply to a lease was lost: breaking it and taking another one");
            free(blob).await?;
            continue;
        }
        // Whoever takes it again at once is no dead writer: then it is waited for as ever.
        if options.break_it && broken < MOST_BROKEN {
            broken += 1;
            tracing::warn!("breaking the lease of another writer{}", holder(blob).await);
            free(blob).await?;
            continue;
        }
        watch.pause(blob).await?;
    }
}

/// Whether the holder of the lease writes nothing for a moment. A rival that took it writes its marker at once; a lease
/// without an end is not one of ours.
async fn is_silent(blob: &PageBlob) -> Result<bool> {
    let sign = |look: &Look| {
        let properties = look.properties.as_ref();
        properties.map(|properties| (properties.etag.clone(), properties.lease_is_infinite))
    };
    let before = sign(&look(blob).await?);
    pace::pause(SILENCE).await;
    let now = sign(&look(blob).await?);
    Ok(now.as_ref().is_some_and(|(_, is_infinite)| !is_infinite) && before == now)
}

/// Breaks the lease, whoever has it.
async fn free(blob: &PageBlob) -> Result<()> {
    match blob.break_lease().await {
        Err(error) if !matches!(error.code(), "LeaseNotPresentWithLeaseOperation" | "LeaseAlreadyBroken") => {
            Err(error.into())
        }
        _ => Ok(()),
    }
}

/// Watches a writer for signs of life.
struct Watch {
    options: LeaseOptions,
    deadline: Instant,
    /// What its marker said when it was looked at last.
    seen: Option<String>,
}

impl Watch {
    fn new(options: LeaseOptions) -> Self {
        Self { options, deadline: Instant::now() + options.wait, seen: None }
    }

    /// Waits a little, or says that there is nothing to wait for.
    async fn pause(&mut self, blob: &PageBlob) -> Result<()> {
        let marker = look(blob).await?.marker;
        let sign = marker.map_or_else(String::new, |marker| {
            format!("{} {} {}", marker.run, marker.written_at, marker.checkpoint.offset)
        });
        let lives = self.seen.as_ref().is_some_and(|before| *before != sign);
        let left = self.deadline.saturating_duration_since(Instant::now());
        if lives || left.is_zero() {
            return Err(refuse(blob, lives).await);
        }
        if self.seen.is_none() {
            let who = holder(blob).await;
            tracing::warn!(at_most = ?self.options.wait, "another writer holds the lease: waiting in case it is dead{who}");
        }
        self.seen = Some(sign);
        let wait = left.min(LOOK_EVERY);
        let _shown = blob.waiting("another writer holds the lease of the base blob", wait);
        pace::pause(wait).await;
        Ok(())
    }
}

fn is_held(error: &CallError) -> bool {
    matches!(error.code(), "LeaseAlreadyPresent" | "LeaseIsBreakingAndCannotBeAcquired")
}

/// "Another writer holds the lease", with what is known of it.
pub(crate) async fn refuse(blob: &PageBlob, lives: bool) -> Error {
    let lives = if lives { ", and it is at work" } else { "" };
    let why = format!("another writer holds its lease{lives}{}", holder(blob).await);
    Error::new(ErrorKind::LeaseHeld, "take over the base blob", why)
        .on(blob.resource())
        .next("wait for it to finish; if it is gone, its lease lapses within a minute, and --break-lease takes it at once. To look: snapferry status --target <URL>")
}
