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

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::azure::arm::{Arm, ArmId, ListScope, ManagedSnapshot};
use crate::azure::{Caps, Client, Destination, Endpoint, Pace, PageBlob, Resource, Role, pace};
use crate::base::marker::{Marker, State};
use crate::base::{self, Base, Look};
use crate::chain::grants::{GrantOptions, Keeper};
use crate::chain::listing::LeftOut;
use crate::chain::outline::{At, Known, Outline, Planned, PlannedSummary, Wanted, outline};
use crate::chain::{Chain, Origin, SnapshotId};
use crate::dry_run::measure;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use crate::replicate::replicate;
use crate::rollback::{RollbackReport, rollback};
use crate::step::{PlanReport, Report, Settings, Step};

/// Snapshots whose URL is looked at to find the one that a base names by its URL alone.
const MOST_TRIED: usize = 8;
/// How often a snapshot may be deleted under a run before that is no accident.
const MOST_VANISHED: u32 = 20;
/// How far the time in a snapshot's URL may be from when the resource manager says that it was made.
const SLACK: Duration = Duration::from_mins(1);
/// How long it may stand still.
const MOST_STILL: Duration = Duration::from_mins(30);

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

/// One job while it is done.
pub struct Run<'a> {
    job: &'a Job,
    arm: &'a Arm,
    client: &'a Client,
    settings: &'a Settings,
    keeper: Keeper,
}

impl<'a> Run<'a> {
    /// Begins; nothing is asked yet. Whatever happens then, call [`Self::end`].
    pub fn new(job: &'a Job, arm: &'a Arm, client: &'a Client, settings: &'a Settings) -> Self {
        Self { job, arm, client, settings, keeper: Keeper::new(arm.clone(), job.grants) }
    }

    async fn to_the_newest(&self, witness: &dyn Witness, cancel: &CancellationToken) -> Result<SyncReport> {
        let started = Instant::now();
        let mut steps = Vec::new();
        let mut skipped: Vec<ArmId> = Vec::new();
        let mut vanished = 0;
        loop {
            let progress = Arc::new(Progress::default());
            let outlook = tokio::select! {
                outlook = self.look(&progress, cancel) => outlook?,
                () = cancel.cancelled() => return Err(interrupted()),
            };
            witness.found(&outlook);
            skipped.extend(outlook.outline.skipped.iter().map(|snapshot| snapshot.id.clone()));
            let Outline { steps: planned, waiting, .. } = &outlook.outline;
            match (planned.split_first(), waiting) {
                (Some((next, rest)), _) => {
                    witness.begins(next, &progress);
                    let is_last = rest.is_empty() && waiting.is_none();
                    match self.step(&outlook, next, is_last, &progress, cancel).await {
                        Ok(report) => {
                            witness.sealed(next, &report);
                            steps.push(report);
                        }
                        Err(error) if vanished < MOST_VANISHED && self.has_vanished(next).await => {
                            tracing::warn!(%error, "looking again");
                            self.end().await;
                            vanished += 1;
                        }
                        Err(error) => return Err(error),
                    }
                }
                (None, Some(snapshot)) => tokio::select! {
                    waited = self.wait_for(snapshot, |now| witness.waits(now)) => waited?,
                    () = cancel.cancelled() => return Err(interrupted()),
                },
                (None, None) => {
                    return Ok(SyncReport {
                        kind: "sync",
                        disk: self.job.disk.clone(),
                        target: outlook.target.to_string(),
                        steps,
                        keep: outlook.at.keep(&outlook.chain).map(|snapshot| snapshot.id.clone()),
                        skipped,
                        left_out: outlook.chain.left_out,
                        not_ended: Vec::new(),
                        manager_requests: self.arm.meter().read().requests,
                        seconds: started.elapsed().as_secs_f64(),
                    });
                }
            }
        }
    }

    /// Looks, and changes nothing: a seal that waits to be finished, or a torn base, is only told.
    async fn look_only(&self) -> Result<Outlook> {
        let chain = Chain::load(self.arm, &self.job.disk, self.job.scope.as_ref()).await?;
        let target = self.job.destination.blob(&chain.blob_name())?;
        let look = base::look(&self.blob(&target)?).await?;
        let at = self.place(&chain, look, &target).await?;
        let outline = outline(&chain, &at, &self.job.wanted)?;
        Ok(Outlook { chain, target, at, outline })
    }

    /// Looks at the disk and the base blob, and says what is to be done. A seal that a crash interrupted is
    /// finished first, and a torn base is rolled back if the job says so.
    pub async fn look(&self, progress: &Progress, cancel: &CancellationToken) -> Result<Outlook> {
        let chain = Chain::load(self.arm, &self.job.disk, self.job.scope.as_ref()).await?;
        let target = self.job.destination.blob(&chain.blob_name())?;
        let mut at = self.stand(&chain, &target).await?;
        if let Some(torn) = &at.torn_to_be_undone(&chain, self.job.roll_back) {
            let report = self.roll_back(&target, progress, cancel).await?;
            tracing::warn!(
                step = torn,
                point = report.point.point,
                "rolled back: the snapshot that the step led to was deleted"
            );
            at = self.stand(&chain, &target).await?;
        }
        let outline = outline(&chain, &at, &self.job.wanted)?;
        Ok(Outlook { chain, target, at, outline })
    }

    /// Does one step of the outline. `is_last` tells that nothing follows, so that no grant need stay.
    pub async fn step(
        &self,
        outlook: &Outlook,
        planned: &Planned,
        is_last: bool,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Report> {
        let granted = tokio::select! {
            granted = self.grant(outlook, planned) => granted?,
            () = cancel.cancelled() => {
                return Err(Error::new(ErrorKind::Interrupted, "begin the step", "interrupted before the first byte was copied")
                    .next("run the same command again"));
            }
        };
        self.keeper.keep_on(&planned.to.id, !is_last).await;
        let step =
            Step { target: outlook.target.clone(), origin: Some(origin(&outlook.chain, planned)), ..granted };
        let settings = Settings { rebase: planned.rebase, ..*self.settings };
        let report = replicate(&step, self.client, &settings, progress, cancel).await?;
        if let Some(from) = &planned.from {
            self.keeper.end(&from.id).await;
        }
        Ok(report)
    }

    /// What a step would move, without the copy. Grants access, and writes nothing.
    pub async fn measure(
        &self,
        outlook: &Outlook,
        planned: &Planned,
        progress: &Progress,
    ) -> Result<PlanReport> {
        let step = self.grant(outlook, planned).await?;
        let measured = measure(&step, self.client, self.settings, progress).await;
        if let Some(from) = &planned.from {
            self.keeper.end(&from.id).await;
        }
        measured
    }

    /// Puts a torn base blob back to its last point.
    pub async fn roll_back(
        &self,
        target: &Resource,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<RollbackReport> {
        rollback(target, self.client, self.settings, progress, cancel).await
    }

    /// Whether a step failed because one of its snapshots is gone: then everything is to be looked at again.
    pub async fn has_vanished(&self, planned: &Planned) -> bool {
        for snapshot in std::iter::once(&planned.to).chain(&planned.from) {
            if let Err(error) = self.arm.snapshot(&snapshot.id).await
                && error.status() == Some(404)
            {
                tracing::warn!(snapshot = %snapshot.id, "the snapshot was deleted meanwhile");
                return true;
            }
        }
        false
    }

    /// Waits until `snapshot` is whole. `tell` hears how far it is.
    ///
    /// # Errors
    /// When it stands still for half an hour, fails, or is deleted.
    pub async fn wait_for(&self, snapshot: &ManagedSnapshot, tell: impl Fn(&ManagedSnapshot)) -> Result<()> {
        let mut before = snapshot.completion_percent;
        let mut since = Instant::now();
        loop {
            let now = self.arm.snapshot(&snapshot.id).await?;
            if now.is_ready() || now.has_failed() {
                return Ok(());
            }
            tell(&now);
            if now.completion_percent != before {
                before = now.completion_percent;
                since = Instant::now();
            }
            if since.elapsed() > MOST_STILL {
                let why = format!(
                    "its copy in the background stands at {} % for half an hour",
                    before.unwrap_or_default()
                );
                return Err(Error::new(ErrorKind::Unavailable, "wait for the snapshot", why)
                    .on(&snapshot.id)
                    .next("run the same command again later; to look: az snapshot show --query completionPercent"));
            }
            pace::pause(self.job.ready_every).await;
        }
    }

    /// Ends every grant, on every way out. Returns those whose end is not certain.
    pub async fn end(&self) -> Vec<ArmId> {
        self.keeper.end_all().await
    }

    async fn grant(&self, outlook: &Outlook, planned: &Planned) -> Result<Step> {
        // What the base is in the middle of, a run of ours was granted access to.
        let is_ours = |snapshot: &ManagedSnapshot| match &outlook.at {
            At::Torn { from, to } => {
                [Some(to), from.as_ref()].into_iter().flatten().any(|known| is(known, snapshot))
            }
            At::Nothing | At::Clean(_) => false,
        };
        let previous = match &planned.from {
            Some(from) => Some(self.keeper.grant(from, Role::Previous, is_ours(from)).await?),
            None => None,
        };
        let source = self.keeper.grant(&planned.to, Role::Source, is_ours(&planned.to)).await?;
        Ok(Step { source, previous, target: outlook.target.clone(), origin: None })
    }

    /// Where the base blob stands, in the resource manager's words.
    async fn stand(&self, chain: &Chain, target: &Resource) -> Result<At> {
        let blob = self.blob(target)?;
        let mut look = base::look(&blob).await?;
        if look.is_leased() {
            // A grant for a step that somebody else is doing would take theirs away.
            base::takeover::wait_until_free(&blob, self.settings.lease).await?;
            look = base::look(&blob).await?;
        }
        if look.marker.as_ref().is_some_and(|marker| marker.state == State::Sealing) {
            let mut base = Base::own(&blob, self.settings.lease).await?;
            let finished = match base.marker().await.state {
                State::Sealing => base.finish_seal().await.map(drop),
                State::Applying | State::Clean => Ok(()),
            };
            base.farewell().await;
            finished?;
            look = base::look(&blob).await?;
        }
        self.place(chain, look, target).await
    }

    fn blob(&self, target: &Resource) -> Result<PageBlob> {
        let pace = Arc::new(Pace::new(Caps::default()));
        let meter = Arc::clone(self.arm.meter());
        Ok(PageBlob::new(Endpoint::new(target.clone(), self.client, pace, meter))?)
    }

    async fn place(&self, chain: &Chain, look: Look, target: &Resource) -> Result<At> {
        if look.properties.is_none() {
            return Ok(At::Nothing);
        }
        let Some(marker) = look.marker else {
            let why = "it exists, and was not made by snapferry";
            return Err(Error::new(ErrorKind::TargetExists, "use the target as a base blob", why)
                .on(target)
                .next("name a blob that does not exist, or a container"));
        };
        self.locate(chain, &marker, target).await
    }

    async fn locate(&self, chain: &Chain, marker: &Marker, target: &Resource) -> Result<At> {
        let origin = marker.origin.as_ref();
        if let (Some(theirs), Some(ours)) =
            (origin.and_then(|origin| origin.disk_unique_id.as_ref()), &chain.disk_unique_id)
            && !theirs.eq_ignore_ascii_case(ours)
        {
            let why = format!(
                "it holds another disk: {}",
                origin.map(|origin| origin.snapshot.as_str()).unwrap_or_default()
            );
            return Err(Error::new(ErrorKind::DifferentFamilies, "bring the base blob up to date", why)
                .on(target)
                .next("name the base blob of this disk as --target, or a container, in which each disk has its own"));
        }
        let mut to =
            self.known(chain, &marker.step.to, origin.map(|origin| origin.unique_id.clone())).await?;
        if let Some(created) = origin.and_then(|origin| origin.created.as_ref()?.parse().ok()) {
            to.made = created;
        }
        // What waits for its seal is as good as sealed.
        if marker.state != State::Applying {
            return Ok(At::Clean(to));
        }
        let from = match &marker.step.from {
            Some(id) => {
                let unique_id = origin.and_then(|origin| origin.previous_unique_id.clone());
                Some(self.known(chain, id, unique_id).await?)
            }
            None => None,
        };
        Ok(At::Torn { from, to })
    }

    /// A base that was made by `copy` names its snapshots by their URLs: the one with that URL is looked for, nearest
    /// in time first.
    async fn known(&self, chain: &Chain, id: &SnapshotId, unique_id: Option<String>) -> Result<Known> {
        let time: Timestamp = id.time().parse().unwrap_or_default();
        // The resource manager's time may differ: rather take one too many for newer than one too few.
        let made = time.saturating_sub(SLACK).unwrap_or(time);
        let known = |unique_id| Known { unique_id, name: id.time().to_owned(), made };
        if unique_id.is_some() {
            return Ok(known(unique_id));
        }
        let mut nearest: Vec<_> = chain.snapshots.iter().filter(|snapshot| snapshot.is_ready()).collect();
        nearest.sort_by_key(|snapshot| {
            snapshot.created.map(|created| created.duration_since(time).unsigned_abs())
        });
        for snapshot in nearest.into_iter().take(MOST_TRIED) {
            let resource = self.keeper.grant(snapshot, Role::Source, false).await?;
            let is_it = SnapshotId::of(&resource)?.is(id, self.settings.across_hosts);
            self.keeper.end(&snapshot.id).await;
            if is_it {
                return Ok(known(snapshot.unique_id.clone()));
            }
        }
        Ok(known(None))
    }
}

impl At {
    /// The step that a rollback is to undo: one that leads to a snapshot which is gone.
    fn torn_to_be_undone(&self, chain: &Chain, is_wanted: bool) -> Option<String> {
        match self {
            Self::Torn { from: Some(_), to } if is_wanted => {
                let is_gone = to.unique_id.as_deref().is_none_or(|id| chain.by_unique_id(id).is_none());
                is_gone.then(|| to.name.clone())
            }
            _ => None,
        }
    }

    /// The snapshot that the base is clean at, or was before the step that tore it: without it no difference can be
    /// made any more.
    pub fn keep<'c>(&self, chain: &'c Chain) -> Option<&'c ManagedSnapshot> {
        let known = match self {
            Self::Nothing => None,
            Self::Clean(known) => Some(known),
            Self::Torn { from, .. } => from.as_ref(),
        };
        chain.by_unique_id(known?.unique_id.as_deref()?)
    }
}

fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "bring the base blob up to date", "interrupted between two steps")
        .next("run the same command again: it goes on")
}

fn is(known: &Known, snapshot: &ManagedSnapshot) -> bool {
    known
        .unique_id
        .as_ref()
        .zip(snapshot.unique_id.as_ref())
        .is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
}

fn origin(chain: &Chain, planned: &Planned) -> Origin {
    Origin {
        snapshot: planned.to.id.to_string(),
        unique_id: planned.to.unique_id.clone().unwrap_or_default(),
        created: planned.to.created.map(|created| created.to_string()),
        previous_unique_id: planned.from.as_ref().and_then(|from| from.unique_id.clone()),
        disk_unique_id: chain.disk_unique_id.clone(),
        family: planned.to.family.clone(),
    }
}
