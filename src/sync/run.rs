//! A chain while it is copied: look, do one step, look again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Job, Outlook, SyncReport, Witness};
use crate::azure::arm::{Arm, ArmId, ManagedSnapshot};
use crate::azure::{Client, PageBlob, Resource, Role, pace};
use crate::base::lease::{Lease, LeaseOptions};
use crate::base::marker::{Marker, State};
use crate::base::{self, Look};
use crate::chain::grants::{Claim, Keeper};
use crate::chain::outline::{At, Known, Outline, Planned, outline};
use crate::chain::{Chain, Origin};
use crate::dry_run::{measure, plan};
use crate::error::{Error, ErrorKind, Result};
use crate::managed::quote::posix;
use crate::progress::Progress;
use crate::replicate::replicate;
use crate::rollback::rollback;
use crate::step::{PlanReport, Report, Settings, Step};

/// How often a snapshot may be deleted under a run before that is no accident.
const MOST_VANISHED: u32 = 20;
/// Bytes of a copy whose rate is believed.
const ENOUGH_TO_TELL: u64 = 64 << 20;
/// How long it may stand still.
const MOST_STILL: Duration = Duration::from_mins(30);

/// One job while it is done.
pub(super) struct Run<'a> {
    pub(super) job: &'a Job,
    pub(super) arm: &'a Arm,
    pub(super) client: &'a Client,
    pub(super) settings: &'a Settings,
    pub(super) keeper: Keeper,
}

impl<'a> Run<'a> {
    /// Begins; nothing is asked yet. Whatever happens then, [`Self::end`] is called.
    pub(super) fn new(job: &'a Job, arm: &'a Arm, client: &'a Client, settings: &'a Settings) -> Self {
        Self { job, arm, client, settings, keeper: Keeper::new(arm.clone(), job.grants) }
    }

    pub(super) async fn to_the_newest(
        &self,
        witness: &dyn Witness,
        cancel: &CancellationToken,
    ) -> Result<SyncReport> {
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
            for snapshot in &outlook.outline.skipped {
                if !skipped.contains(&snapshot.id) {
                    skipped.push(snapshot.id.clone());
                }
            }
            let Outline { steps: planned, waiting, .. } = &outlook.outline;
            match (planned.split_first(), waiting) {
                (Some((next, rest)), _) => {
                    witness.begins(next, &progress);
                    let is_last = rest.is_empty() && waiting.is_none();
                    match self.step_or_anew(&outlook, next, is_last, &progress, cancel).await {
                        Ok(report) => {
                            witness.sealed(next, &report);
                            steps.push(report);
                        }
                        Err(error)
                            if vanished < MOST_VANISHED
                                && !cancel.is_cancelled()
                                && self.has_vanished(next).await =>
                        {
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
                        warnings: self.warnings(&outlook).await,
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

    /// What will stand in the way of the next difference, told while something can still be done about it.
    async fn warnings(&self, outlook: &Outlook) -> Vec<String> {
        let mut warnings = Vec::new();
        if outlook.at != At::Nothing && outlook.at.keep(&outlook.chain).is_none() {
            warnings.push("the snapshot that the base blob is clean at was deleted at the source: the next one can only be copied with --rebase".to_owned());
        }
        if let Ok(blob) = self.blob(&outlook.target)
            && let Ok(Look { marker: Some(Marker { point: Some(point), .. }), .. }) = base::look(&blob).await
            && let Ok(point) = blob.at_snapshot(&point)
            && matches!(base::look(&point).await, Ok(Look { properties: None, .. }))
        {
            warnings.push("the last point was deleted at the target: the next snapshot can only be copied with --rebase".to_owned());
        }
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        warnings
    }

    /// The disk's snapshots, and the base blob that is theirs.
    async fn find(&self) -> Result<(Chain, Resource)> {
        let chain = Chain::load(self.arm, &self.job.disk, self.job.scope.as_ref()).await?;
        let target = self.job.destination.blob(&chain.blob_name())?;
        Ok((chain, target))
    }

    /// Looks, and changes nothing: a seal that waits to be finished, or a torn base, is only told.
    pub(super) async fn look_only(&self) -> Result<Outlook> {
        let (chain, target) = self.find().await?;
        let blob = self.blob(&target)?;
        let look = base::look(&blob).await?;
        if look.is_leased() {
            // What it is doing now would be foretold as still to be done; and its SAS is its own.
            let why = format!(
                "a run is at work on it, or died less than a minute ago{}",
                base::holder(&blob).await
            );
            return Err(Error::new(ErrorKind::LeaseHeld, "foretell what is left to do", why)
                .on(&target)
                .next("run it again in a minute; how far it is: snapferry status --target <URL>"));
        }
        let measured = measured(&look);
        let waits_for_seal = look.marker.as_ref().is_some_and(|marker| marker.state == State::Sealing);
        let at = self.place(&chain, look, &target).await?;
        let outline = outline(&chain, &at, &self.job.wanted)?;
        Ok(Outlook { chain, target, at, outline, waits_for_seal, measured })
    }

    /// Looks at the disk and the base blob, and says what is to be done. A seal that a crash interrupted is
    /// finished first, and a torn base is rolled back if the job says so.
    pub(super) async fn look(&self, progress: &Progress, cancel: &CancellationToken) -> Result<Outlook> {
        let (chain, target) = self.find().await?;
        let mut at = self.stand(&chain, &target).await?;
        if let Some(torn) = &at.torn_to_be_undone(&chain, self.job.roll_back) {
            let report = rollback(&target, self.client, self.settings, progress, cancel).await?;
            tracing::warn!(
                step = torn,
                point = report.point.point,
                "rolled back: the snapshot that the step led to was deleted"
            );
            at = self.stand(&chain, &target).await?;
        }
        let outline = outline(&chain, &at, &self.job.wanted)?;
        Ok(Outlook { chain, target, at, outline, waits_for_seal: false, measured: None })
    }

    /// Does a step, or, where somebody else's writes stand in the way of every difference and the job says so, begins
    /// anew with the snapshot that it leads to.
    async fn step_or_anew(
        &self,
        outlook: &Outlook,
        planned: &Planned,
        is_last: bool,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Report> {
        match self.step(outlook, planned, is_last, progress, cancel).await {
            Err(error) if error.kind() == ErrorKind::BaseModified && self.job.wanted.rebase => {
                tracing::warn!(%error, "beginning anew");
                let anew = Planned { from: None, rebase: true, ..planned.clone() };
                self.step(outlook, &anew, is_last, progress, cancel).await
            }
            done => done,
        }
    }

    /// Does one step of the outline. `is_last` tells that nothing follows, so that no grant need stay.
    pub(super) async fn step(
        &self,
        outlook: &Outlook,
        planned: &Planned,
        is_last: bool,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Report> {
        // Under the lease from here on: of two runs that begin together only one asks for access, and what a dead one
        // left is not what a living one uses.
        let blob = self.blob(&outlook.target)?;
        let mut settings = self.settings_of(outlook, planned);
        let too_early = || {
            Error::new(
                ErrorKind::Interrupted,
                "begin the step",
                "interrupted before the first byte was copied",
            )
            .next("run the same command again")
        };
        let guard = tokio::select! {
            guard = self.guard(outlook, &blob, settings.lease) => guard?,
            () = cancel.cancelled() => return Err(too_early()),
        };
        if let Some(guard) = &guard {
            settings.lease.id = guard.id().await.parse().ok();
        }
        let lost = async {
            match &guard {
                Some(guard) => guard.lost().await,
                None => std::future::pending().await,
            }
        };
        let granted = tokio::select! {
            granted = self.grant(outlook, planned, true) => granted,
            _ = lost => Err(base::explain_lost(&blob, "the lease was lost while access was asked for").await),
            () = cancel.cancelled() => Err(too_early()),
        };
        let copied = match granted {
            Ok(granted) => {
                self.keeper.keep_on(&planned.to.id, !is_last).await;
                let step = Step { origin: Some(origin(&outlook.chain, planned)), ..granted };
                replicate(&step, self.client, &settings, progress, cancel).await
            }
            Err(error) => Err(error),
        };
        if let Some(guard) = guard {
            // Mostly it is given back already, and under another id.
            drop(tokio::time::timeout(base::FAREWELL, guard.release()).await);
        }
        let report = copied?;
        if let Some(from) = &planned.from {
            self.keeper.end(&from.id).await;
        }
        Ok(report)
    }

    /// What a step would move, without the copy. Grants access, and writes nothing.
    pub(super) async fn measure(
        &self,
        outlook: &Outlook,
        planned: &Planned,
        progress: &Progress,
    ) -> Result<PlanReport> {
        let step = self.grant(outlook, planned, false).await?;
        let settings = self.settings_of(outlook, planned);
        // The first step meets the base as it is: torn, it goes on. The others meet what the one before will leave.
        let is_first = outlook.outline.steps.first().is_some_and(|first| first.to.id == planned.to.id);
        let measured = if is_first && !outlook.waits_for_seal {
            plan(&step, self.client, &settings, progress).await
        } else {
            measure(&step, self.client, &settings, progress).await
        };
        if let Some(from) = &planned.from {
            self.keeper.end(&from.id).await;
        }
        measured
    }

    /// Whether a step failed because one of its snapshots is gone: then everything is to be looked at again.
    pub(super) async fn has_vanished(&self, planned: &Planned) -> bool {
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
    pub(super) async fn wait_for(
        &self,
        snapshot: &ManagedSnapshot,
        tell: impl Fn(&ManagedSnapshot),
    ) -> Result<()> {
        let mut before = snapshot.completion_percent;
        let mut since = Instant::now();
        loop {
            // Before the first look too: a list may lag behind what a look at the snapshot says.
            pace::pause(self.job.ready_every).await;
            let now = match self.arm.snapshot(&snapshot.id).await {
                Ok(now) => now,
                // Deleted meanwhile: then it is passed over.
                Err(error) if error.status() == Some(404) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
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
                    .next(format!("run the same command again later; to look: az snapshot show --ids {} --query completionPercent", posix(&snapshot.id.to_string()))));
            }
        }
    }

    /// Ends every grant, on every way out. Returns those whose end is not certain.
    pub(super) async fn end(&self) -> Vec<ArmId> {
        self.keeper.end_all().await
    }

    /// Takes the lease of a base that exists, and looks whether it still stands where it stood.
    async fn guard(
        &self,
        outlook: &Outlook,
        blob: &PageBlob,
        options: LeaseOptions,
    ) -> Result<Option<Lease>> {
        if outlook.at == At::Nothing {
            return Ok(None);
        }
        let guard = base::takeover::take(blob, options).await?;
        let now = match base::look(blob).await {
            Ok(look) => self.place(&outlook.chain, look, &outlook.target).await,
            Err(error) => Err(error),
        };
        match now {
            Ok(now) if now == outlook.at => Ok(Some(guard)),
            other => {
                drop(tokio::time::timeout(base::FAREWELL, guard.release()).await);
                Err(other.err().unwrap_or_else(|| base::moved_on(blob)))
            }
        }
    }

    fn settings_of(&self, outlook: &Outlook, planned: &Planned) -> Settings {
        // The resource manager says that they are of one disk and family: then their hosts may differ.
        let is_one_family = planned.to.family.is_some()
            && outlook.chain.disk_unique_id.is_some()
            && planned.from.as_ref().is_none_or(|from| from.family == planned.to.family);
        Settings {
            rebase: planned.rebase,
            across_hosts: self.settings.across_hosts || is_one_family,
            ..*self.settings
        }
    }

    /// Access to the snapshots of a step. Under the lease, what is out for a step that the base is in the middle of is
    /// what a dead run left.
    async fn grant(&self, outlook: &Outlook, planned: &Planned, is_step: bool) -> Result<Step> {
        let claim = |snapshot: &ManagedSnapshot| match &outlook.at {
            _ if !is_step => Claim::Look,
            At::Torn { from, to }
                if [Some(to), from.as_ref()].into_iter().flatten().any(|known| is(known, snapshot)) =>
            {
                Claim::TornStep
            }
            At::Torn { .. } | At::Nothing | At::Clean(_) => Claim::Step,
        };
        let previous = match &planned.from {
            Some(from) => Some(self.keeper.grant(from, Role::Previous, claim(from)).await?),
            None => None,
        };
        let source = self.keeper.grant(&planned.to, Role::Source, claim(&planned.to)).await?;
        Ok(Step { source, previous, target: outlook.target.clone(), origin: None })
    }
}

/// The rate of the last copy, where it moved enough to say something.
fn measured(look: &Look) -> Option<u64> {
    let speed = look.marker.as_ref()?.speed.filter(|speed| speed.bytes >= ENOUGH_TO_TELL)?;
    speed.rate()
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
