//! A whole chain: the snapshots of a disk that the base blob lacks, copied one after the other.
//!
//! ```text
//! look ──────────> outline ──────────> step ──────────> (look again) ... ──> end
//! (disk, snapshots, (what is missing,   (grant, replicate,                   (every grant
//!  base blob)        in which order)     grants ended)                        is ended)
//! ```
//!
//! After every step everything is looked at again: snapshots come and go while a disk is copied, and another
//! machine may have moved the base on. So there is no plan that can grow stale, and a run that was killed begins
//! like any other.
//!
//! **What is never done:** no snapshot is created, changed or deleted at the source. The one that the base is clean
//! at is named as the one to keep: without it the next difference cannot be made.

mod run;
mod standing;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::azure::arm::{Arm, ArmId, ListScope, ManagedSnapshot};
use crate::azure::{Client, Destination, Resource};
use crate::chain::Chain;
use crate::chain::grants::GrantOptions;
use crate::chain::listing::LeftOut;
use crate::chain::outline::{At, Outline, Planned, PlannedSummary, Wanted};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use crate::step::{PlanReport, Report, Settings};

use run::Run;

/// What is to be kept up to date, and how.
#[derive(Clone, Debug)]
pub struct Job {
    /// The disk.
    pub disk: ArmId,
    /// The base blob, or the container for it.
    pub destination: Destination,
    /// Where snapshots are listed; `None` for the disk's subscription.
    pub scope: Option<ListScope>,
    /// Which snapshots.
    pub wanted: Wanted,
    /// Put a base that a step to a deleted snapshot has torn back to its last point, and go on.
    pub roll_back: bool,
    /// How often a snapshot that is not whole yet is looked at.
    pub ready_every: Duration,
    /// How access to snapshots is granted.
    pub grants: GrantOptions,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// The disk's snapshots.
    pub chain: Chain,
    /// The base blob.
    pub target: Resource,
    /// Where it stands.
    pub at: At,
    /// What is to be done.
    pub outline: Outline,
    /// Whether the last step is written and waits for its seal, which the next run finishes first.
    pub waits_for_seal: bool,
    /// Bytes a second that the last copy to this base blob reached, if it was long enough to tell.
    pub measured: Option<u64>,
}

/// Hears what a run does while it does it.
pub trait Witness: Sync {
    /// Everything was looked at, and this is to be done.
    fn found(&self, outlook: &Outlook);
    /// A step begins; its numbers are in `progress`.
    fn begins(&self, planned: &Planned, progress: &Arc<Progress>);
    /// A step is sealed.
    fn sealed(&self, planned: &Planned, report: &Report);
    /// A snapshot is not whole yet, and is waited for.
    fn waits(&self, snapshot: &ManagedSnapshot);
}

/// What a run came to.
#[derive(Clone, Debug, Serialize)]
pub struct SyncReport {
    /// `sync`: tells this report from others.
    pub kind: &'static str,
    /// The disk.
    pub disk: ArmId,
    /// The base blob.
    pub target: String,
    /// What was done, in this order.
    pub steps: Vec<Report>,
    /// The snapshot that the base is clean at: keep it at the source. Without it, the next difference cannot be made.
    pub keep: Option<ArmId>,
    /// Snapshots that were left out because only the newest was wanted.
    pub skipped: Vec<ArmId>,
    /// Snapshots of disks with this id that cannot be copied.
    pub left_out: Vec<LeftOut>,
    /// What will stand in the way of the next difference.
    pub warnings: Vec<String>,
    /// Snapshots whose SAS may still be out.
    pub not_ended: Vec<ArmId>,
    /// Requests to the resource manager, retries included.
    pub manager_requests: u64,
    /// Wall-clock time.
    pub seconds: f64,
}

/// Brings the base blob up to date and ends every grant, however it ends.
///
/// # Errors
/// Those of the first step that failed. What was sealed before stays; the same call goes on.
pub async fn sync(
    job: &Job,
    arm: &Arm,
    client: &Client,
    settings: &Settings,
    witness: &dyn Witness,
    cancel: &CancellationToken,
) -> Result<SyncReport> {
    let run = Run::new(job, arm, client, settings);
    let result = run.to_the_newest(witness, cancel).await;
    let not_ended = run.end().await;
    result.map(|report| SyncReport { not_ended, ..report })
}

/// What a step would move and take.
#[derive(Clone, Debug, Serialize)]
pub struct Forecast {
    /// Which step.
    #[serde(flatten)]
    pub planned: PlannedSummary,
    /// What it would move.
    pub plan: PlanReport,
}

/// Says what [`sync`] would do: every step is listed, and nothing is written. Grants access meanwhile, and ends it.
pub async fn forecast(
    job: &Job,
    arm: &Arm,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(Outlook, Vec<Forecast>)> {
    let run = Run::new(job, arm, client, settings);
    let looking = async {
        let outlook = run.look_only().await?;
        let mut forecasts = Vec::new();
        for planned in &outlook.outline.steps {
            let plan = run.measure(&outlook, planned, progress).await?;
            forecasts.push(Forecast { planned: planned.into(), plan });
        }
        Ok((outlook, forecasts))
    };
    let result = tokio::select! {
        result = looking => result,
        () = cancel.cancelled() => Err(Error::new(ErrorKind::Interrupted, "finish looking", "interrupted")),
    };
    run.end().await;
    result
}
