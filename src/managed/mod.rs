//! Azure's own copy of an incremental snapshot to another region (`CopyStart`), started and followed.
//!
//! ```text
//! request ──> checks (limits) ──> PUT ──> follow ──> report
//!    └─────> emit: the same for people who deploy with a template, az or PowerShell
//! ```
//!
//! **Who copies:** the service. Nothing passes through this machine, and nothing depends on it once the copy is
//! started: to stop following it leaves it running.
//!
//! **Before the call** everything that the service would refuse, or fail at hours later, is looked at in two reads:
//! the source, and one list of the subscription's snapshots (`limits`).
//!
//! **Run again**, the same request finds the copy that it started before and goes on following that; it starts no
//! second one. Between the list and the call somebody else may start a copy: then the service refuses, and says so.
//!
//! **The end** is what the service tells: 100 percent, or why the copy failed. It tells no time of it, so the time of
//! a copy is known only where its end was seen.

pub mod emit;
mod follow;
mod limits;
pub(crate) mod quote;
mod request;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::azure::reply::scrub;
use crate::azure::{Arm, ArmId, ManagedSnapshot};
use crate::error::{Error, ErrorKind, Result};

pub use follow::{Phase, Polling, Seen, Watch};
pub use limits::MOST_PENDING;
pub(crate) use quote::posix;
pub use request::{Request, Speed};
pub(crate) use request::{check_tags, fold_region};

/// Where a copy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The service is copying.
    Copying,
    /// The target is whole.
    Done,
}

/// What is known of a copy.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `managed`: tells it from the reports of other copies.
    pub kind: &'static str,
    /// The snapshot that is copied.
    pub source: Option<String>,
    /// The snapshot that it becomes.
    pub target: ArmId,
    /// The region of that.
    pub region: String,
    /// Where the copy stands.
    pub state: State,
    /// How much of it is done, as the service tells it.
    pub percent: f64,
    /// Bytes of the disk. How many of them had to be copied the service does not say.
    pub size: Option<u64>,
    /// From the start to the end, or until now. Nothing when it was done before it was looked at.
    pub seconds: Option<f64>,
    /// Bytes of the disk that were done in a second of that.
    pub bytes_per_second: Option<u64>,
    /// When it was started.
    pub started_at: Option<String>,
    /// When it was first seen done.
    pub finished_at: Option<String>,
    /// Whether it was found under way, or done, and not started by this run.
    pub found: bool,
    /// Requests to the resource manager, retries included.
    pub requests: u64,
}

/// A copy that was started, by this run or before.
#[derive(Debug)]
pub struct Copy {
    snapshot: ManagedSnapshot,
    source: Option<ArmId>,
    /// When this run started it.
    began: Option<(Instant, Timestamp)>,
    /// When this run saw that it was done, and had not been before.
    ended: Option<(Instant, Timestamp)>,
}

/// Starts the copy, or finds the one that the same request started before.
///
/// # Errors
/// Before anything is started: whatever `request`, its source, or the limits of the service speak against.
pub async fn start(arm: &Arm, request: &Request, watch: &Watch, cancel: &CancellationToken) -> Result<Copy> {
    request.check()?;
    let checks = async {
        let source = arm.snapshot(&request.source).await?;
        limits::check_source(&source, request)?;
        let all = limits::list(arm, request).await?;
        limits::check(&all, &source, request).map(|found| (source, found))
    };
    let (source, found) = tokio::select! {
        checked = checks => checked?,
        () = cancel.cancelled() => {
            return Err(Error::new(ErrorKind::Interrupted, "start the copy", "interrupted before it was started"));
        }
    };
    if let Some(snapshot) = found {
        let copy = Copy { snapshot, source: Some(request.source.clone()), began: None, ended: None };
        return copy.unless_failed();
    }
    watch.enter(Phase::Starting);
    let now = (Instant::now(), Timestamp::now());
    let snapshot = tokio::select! {
        snapshot = put(arm, request, &source) => snapshot?,
        () = cancel.cancelled() => {
            let why = "interrupted while it was being started: it may be under way";
            return Err(interrupted(&request.target, "start the copy", why.to_owned()));
        }
    };
    Copy { snapshot, source: Some(request.source.clone()), began: Some(now), ended: None }.unless_failed()
}

/// Asks the service to begin, and looks at what it made of that.
async fn put(arm: &Arm, request: &Request, source: &ManagedSnapshot) -> Result<ManagedSnapshot> {
    let Err(error) = arm.create(&request.target, &request.body()).await else {
        return Ok(arm.snapshot(&request.target).await?);
    };
    let error = refused(error, request);
    if error.kind() != ErrorKind::Unavailable {
        return Err(error);
    }
    // A call without an end may have been taken all the same: then the copy is there.
    match arm.snapshot(&request.target).await {
        Ok(there) if limits::same_copy(&there, source, request).is_ok() => Ok(there),
        _ => Err(error),
    }
}

/// Finds a copy that was started before, by whatever means.
///
/// # Errors
/// When there is no such snapshot, it is no managed copy, or the copy failed.
pub async fn find(arm: &Arm, target: &ArmId) -> Result<Copy> {
    let snapshot = arm.snapshot(target).await?;
    if !limits::is_copy_start(&snapshot) {
        let how = snapshot.create_option.as_deref().unwrap_or("something else");
        return Err(Error::new(
            ErrorKind::Usage,
            "ask after a managed copy",
            format!("it is no managed copy: it was made by {}, not by CopyStart", scrub(how)),
        )
        .on(target)
        .next("give the id of the target: az snapshot list --query \"[?creationData.createOption=='CopyStart'].id\""));
    }
    let source = snapshot.source.as_deref().and_then(limits::snapshot_id);
    Copy { snapshot, source, began: None, ended: None }.unless_failed()
}

impl Copy {
    /// The snapshot that it becomes.
    pub fn target(&self) -> &ArmId {
        &self.snapshot.id
    }

    /// Whether the target is whole.
    pub fn is_done(&self) -> bool {
        // In the first moments the service shows no percentage: that is not the end.
        self.snapshot.is_ready() && self.snapshot.completion_percent.is_some()
    }

    fn percent(&self) -> f64 {
        self.snapshot.completion_percent.unwrap_or_default()
    }

    fn unless_failed(self) -> Result<Self> {
        if self.snapshot.has_failed() { Err(failed(&self.snapshot)) } else { Ok(self) }
    }

    /// What is known of it now.
    pub fn report(&self, arm: &Arm) -> Report {
        let started = self.began.map(|(_, time)| time).or(self.snapshot.created);
        let seconds = self.seconds(started);
        let size = self.snapshot.size;
        let rate = seconds.zip(size).filter(|(seconds, _)| *seconds > 0.0).map(|(seconds, size)| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let rate = (size as f64 * self.percent() / 100.0 / seconds) as u64;
            rate
        });
        Report {
            kind: "managed",
            source: self.source.as_ref().map(ToString::to_string),
            target: self.snapshot.id.clone(),
            region: self.snapshot.location.clone(),
            state: if self.is_done() { State::Done } else { State::Copying },
            percent: self.percent(),
            size,
            seconds,
            bytes_per_second: rate,
            started_at: started.map(|time| time.to_string()),
            finished_at: self.ended.map(|(_, time)| time.to_string()),
            found: self.began.is_none(),
            requests: arm.meter().read().requests,
        }
    }

    /// By this machine's clock alone where that is possible: the service's may differ.
    fn seconds(&self, started: Option<Timestamp>) -> Option<f64> {
        if self.is_done() && self.ended.is_none() {
            return None;
        }
        if let Some((began, _)) = self.began {
            let ended = self.ended.map_or_else(Instant::now, |(ended, _)| ended);
            return Some(ended.saturating_duration_since(began).as_secs_f64());
        }
        let ended = self.ended.map_or_else(Timestamp::now, |(_, ended)| ended);
        let lasted = Duration::try_from(ended.duration_since(started?)).ok()?;
        Some(lasted.as_secs_f64())
    }
}

fn failed(snapshot: &ManagedSnapshot) -> Error {
    let state = || format!("its state is {}", snapshot.provisioning_state.as_deref().unwrap_or("unknown"));
    let why = snapshot.copy_error.clone().unwrap_or_else(state);
    let is_gone = why.starts_with("CopySourceNotFound");
    let kind = if is_gone { ErrorKind::NotFound } else { ErrorKind::Refused };
    Error::new(kind, "complete the managed copy", format!("the copy failed: {}", scrub(&why)))
        .on(&snapshot.id)
        .next(format!(
            "delete what is left of it and start it again; the source must stay until the copy is done: az snapshot delete --ids {}",
            posix(&snapshot.id.to_string())
        ))
}

/// The words of the service say what stands in the way.
fn refused(error: crate::azure::CallError, request: &Request) -> Error {
    let error = Error::from(error);
    match error.kind() {
        ErrorKind::Refused => error.next(
            "copies that are under way: az snapshot list --query \"[?completionPercent<`100`].{id:id, percent:completionPercent}\"",
        ),
        ErrorKind::Unavailable => error.next(format!(
            "whether it was started is not known; run the same command again, or ask: {}",
            status_command(&request.target, false)
        )),
        _ => error,
    }
}

fn interrupted(target: &ArmId, tried: &str, why: String) -> Error {
    Error::new(ErrorKind::Interrupted, tried, why).on(target).next(status_command(target, true))
}

/// The command that asks after a copy.
pub fn status_command(target: &ArmId, wait: bool) -> String {
    let wait = if wait { " --wait" } else { "" };
    format!("snapferry managed-copy status --snapshot {}{wait}", posix(&target.to_string()))
}
