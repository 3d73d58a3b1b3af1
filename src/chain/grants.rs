//! SAS grants and their clock: asked for when a step needs them, short, renewed while it reads, ended on every way
//! out.
//!
//! ```text
//! grant ──> SAS ──> (two thirds of its time, or a 403) ──> another one ──> ... ──> end
//! ```
//!
//! **The clock is our own.** The URL of an export does not say when it ends, and this machine's wall clock may be
//! wrong: time is counted on the monotonic clock, from before the request was sent. A machine that slept finds
//! out by a 403.
//!
//! **Two at once.** Whether a snapshot can have two SAS at a time is not documented. So another one is asked for
//! first; when that is refused (409), the old one is ended before. Requests that fall into the gap are refused,
//! wait for the new one and are made again (see `azure::sas`).
//!
//! **Whose is it?** A SAS that is out when a step begins may be what a crash of ours left, or somebody's who is
//! reading. It is ended only when the base blob says that it is in the middle of a step with that snapshot, or when
//! the user said so ([`GrantOptions::revoke_active`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt, Shared};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::azure::arm::{Access, Arm, ArmId, ManagedSnapshot};
use crate::azure::failure::{CallError, CallResult, Cause};
use crate::azure::pace;
use crate::azure::sas::Rights;
use crate::azure::{PlainHttp, Resource, Role};
use crate::error::{Error, ErrorKind, Result};
use crate::managed::quote::posix;

const CALL: &str = "Snapshots Grant Access";
/// How long the end of all grants may take on the way out.
const FAREWELL: Duration = Duration::from_secs(30);
/// How long a step waits for the end of a grant that it needs no longer.
const MOMENT: Duration = Duration::from_secs(5);
/// After a renewal that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What access is asked for, and so what may be done about a SAS that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// To look: none is ended but what this keeper was given.
    Look,
    /// For a step, under the lease of its base: a renewal may end what is out.
    Step,
    /// The same, of a base that is in the middle of that step: what is out is what a dead run left.
    TornStep,
}

/// How access is granted.
#[derive(Clone, Copy, Debug)]
pub struct GrantOptions {
    /// How long a grant lasts if it is neither renewed nor ended: what a crash leaves behind.
    pub duration: Duration,
    /// End a SAS that is out, whoever asked for it.
    pub revoke_active: bool,
    /// Whether exports may be read over plain http.
    pub plain: PlainHttp,
}

impl Default for GrantOptions {
    fn default() -> Self {
        Self { duration: Duration::from_hours(1), revoke_active: false, plain: PlainHttp::LoopbackOnly }
    }
}

/// Grants access to snapshots and ends it. Nothing is ended by dropping it: call [`Keeper::end_all`].
pub struct Keeper {
    arm: Arm,
    options: GrantOptions,
    held: Mutex<Vec<Held>>,
    /// Asked for, and the reply not seen: a run that is ended meanwhile may have got it.
    asked: Mutex<Vec<Asked>>,
}

/// A request that goes on whatever becomes of who made it.
struct Asked {
    id: ArmId,
    reply: Shared<BoxFuture<'static, CallResult<String>>>,
}

struct Held {
    grant: Arc<Grant>,
    resource: Resource,
    clock: JoinHandle<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.clock.abort();
    }
}

impl Keeper {
    /// A keeper that holds nothing yet.
    pub fn new(arm: Arm, options: GrantOptions) -> Self {
        Self { arm, options, held: Mutex::default(), asked: Mutex::default() }
    }

    /// A way to read `snapshot`, for as long as it takes.
    pub async fn grant(&self, snapshot: &ManagedSnapshot, role: Role, claim: Claim) -> Result<Resource> {
        {
            let mut held = self.held.lock().await;
            // What a step gave back when it had read everything is asked for again.
            held.retain(|known| !known.grant.ended.load(Relaxed));
            if let Some(known) = held.iter().find(|known| known.grant.id == snapshot.id) {
                return Ok(known.resource.in_role(role));
            }
        }
        let may_end = claim == Claim::TornStep || self.options.revoke_active;
        // Asked now, because the list is older than that. A service that lets two be out would let us have ours; and its
        // end would end theirs.
        self.clear_the_way(&snapshot.id, may_end).await?;
        let asked = Instant::now();
        let url = match self.begin(&snapshot.id).await {
            Err(error) if error.status() == Some(409) => {
                // None was out a moment ago: what is out now may be what an attempt got whose reply was lost.
                let may_end = may_end || error.may_be_done;
                self.clear_the_way(&snapshot.id, may_end).await?;
                // What was out may have ended in between: only what is refused again has another reason.
                self.begin(&snapshot.id).await.map_err(|error| explain_refusal(&snapshot.id, error))?
            }
            other => other?,
        };
        // A URL that nobody can read by stays among what was asked for, and is ended with that.
        let resource = Resource::parse(role, &url, self.options.plain)?;
        let grant = Arc::new(Grant {
            arm: self.arm.clone(),
            id: snapshot.id.clone(),
            options: self.options,
            granted: Mutex::new(asked),
            place: place_of(&resource),
            may_end: claim != Claim::Look || self.options.revoke_active,
            ended: AtomicBool::new(false),
            kept_on: AtomicBool::new(false),
        });
        let resource = resource.kept_by(Arc::clone(&grant) as _);
        let clock = tokio::spawn(keep(Arc::clone(&grant), resource.clone()));
        tracing::info!(snapshot = %snapshot.id, "access granted");
        self.held.lock().await.push(Held { grant, resource: resource.clone(), clock });
        self.forget(&snapshot.id).await;
        Ok(resource)
    }

    /// Asks, and remembers that it was asked: whoever ends the run meanwhile, or gets no answer, may have got it.
    async fn begin(&self, id: &ArmId) -> CallResult<String> {
        let (arm, of, lasting) = (self.arm.clone(), id.clone(), self.options.duration);
        let asking = tokio::spawn(async move { arm.begin_get_access(&of, Access::Read, lasting).await });
        let gone =
            CallError::of(CALL, Role::Manager, id, Cause::Broken("the request was given up".to_owned()));
        let reply = asking.map(|reply| reply.unwrap_or(Err(gone))).boxed().shared();
        self.asked.lock().await.push(Asked { id: id.clone(), reply: reply.clone() });
        let result = reply.await;
        let is_certain = |error: &CallError| {
            !error.may_be_done && !error.outcome_is_unknown() && !matches!(error.cause, Cause::Protocol(_))
        };
        if result.as_ref().is_err_and(is_certain) {
            self.forget(id).await;
        }
        result
    }

    /// Is a SAS out, and may it be ended?
    async fn clear_the_way(&self, id: &ArmId, may_end: bool) -> Result<()> {
        if !self.arm.snapshot(id).await?.has_active_sas() {
            return Ok(());
        }
        if !may_end {
            let why = "a SAS for it is out already, and the base blob does not say that it is ours: somebody may be reading";
            return Err(Error::new(ErrorKind::SasOut, "grant access to the snapshot", why).on(id).next(
                format!("run the same command again, if a run of snapferry began just before; if nobody is reading: snapferry access revoke --snapshot {}, or say --revoke-active-sas",
                    quoted(id)
                ),
            ));
        }
        tracing::warn!(snapshot = %id, "a SAS for it is out already: ending it");
        Ok(self.arm.end_get_access(id).await?)
    }

    async fn forget(&self, id: &ArmId) {
        self.asked.lock().await.retain(|asked| asked.id != *id);
    }

    /// Whether the snapshot is needed after the step that reads it now.
    pub async fn keep_on(&self, id: &ArmId, is_needed: bool) {
        for known in self.held.lock().await.iter().filter(|known| known.grant.id == *id) {
            known.grant.kept_on.store(is_needed, Relaxed);
        }
    }

    /// Ends the grant of one snapshot. What could not be ended stays with the others that [`Self::end_all`] ends.
    pub async fn end(&self, id: &ArmId) {
        self.end_those(|held| held == id).await;
    }

    /// Ends every grant, within half a minute. Returns the snapshots for which that could not be done: their SAS ends
    /// by itself.
    pub async fn end_all(&self) -> Vec<ArmId> {
        let mut left = self.end_those(|_| true).await;
        let asked: Vec<_> =
            self.asked.lock().await.iter().map(|asked| (asked.id.clone(), asked.reply.clone())).collect();
        let ended = futures::future::join_all(asked.into_iter().map(|(id, reply)| async move {
            // Its end first: what is ended before it is there stays.
            let ending = async {
                let _ = reply.await;
                self.arm.end_get_access(&id).await
            };
            match tokio::time::timeout(FAREWELL, ending).await {
                Ok(Ok(())) => self.forget(&id).await,
                Ok(Err(error)) if error.status() == Some(404) => self.forget(&id).await,
                _ => return Some(id),
            }
            None
        }));
        left.extend(ended.await.into_iter().flatten());
        for snapshot in &left {
            tracing::error!(%snapshot, "access was not ended; it ends by itself, or by: snapferry access revoke --snapshot {}", quoted(snapshot));
        }
        left
    }

    async fn end_those(&self, wanted: impl Fn(&ArmId) -> bool) -> Vec<ArmId> {
        let ending: Vec<Arc<Grant>> = {
            let held = self.held.lock().await;
            held.iter().filter(|held| wanted(&held.grant.id)).map(|held| Arc::clone(&held.grant)).collect()
        };
        let ended = futures::future::join_all(ending.iter().map(|grant| async {
            // Waits for a renewal that is on its way: a request that was given up may still be done.
            match tokio::time::timeout(FAREWELL, grant.end()).await {
                Ok(Ok(())) => return None,
                Ok(Err(error)) => {
                    tracing::warn!(snapshot = %grant.id, cause = %error.cause, "access was not ended yet");
                }
                Err(_) => tracing::warn!(snapshot = %grant.id, "access was not ended yet: no answer in time"),
            }
            Some(grant.id.clone())
        }));
        let left = ended.await.into_iter().flatten().collect();
        // Only what is ended is let go of: a run that is interrupted here ends the rest later.
        self.held.lock().await.retain(|held| !held.grant.ended.load(Relaxed));
        left
    }
}

/// Refused for its state, and no SAS is out.
fn explain_refusal(id: &ArmId, error: CallError) -> Error {
    let is_state = error.status() == Some(409);
    let error = Error::from(error);
    if !is_state {
        return error;
    }
    Error::new(error.kind(), format!("grant access to {id}"), error.why()).next(format!(
        "at most five snapshots of a disk can have a SAS at a time, and a snapshot whose public access is disabled none: snapferry access revoke --disk <ARM id>, az snapshot show --ids {}",
        quoted(id)
    ))
}

fn quoted(id: &ArmId) -> String {
    posix(&id.to_string())
}

/// One snapshot that may be read.
struct Grant {
    arm: Arm,
    id: ArmId,
    options: GrantOptions,
    /// When the request for the present SAS was sent. Held while the grant is changed: a renewal and the end of
    /// the grant must not pass each other.
    granted: Mutex<Instant>,
    /// Where the snapshot is: another SAS must lead to the same place.
    place: (String, String),
    /// Whether a SAS that is out may be ended for another one.
    may_end: bool,
    ended: AtomicBool,
    /// Whether the next step needs it.
    kept_on: AtomicBool,
}

#[async_trait]
impl Rights for Grant {
    async fn renew(self: Arc<Self>) -> CallResult<String> {
        let gone = self.refusal("the renewal was given up");
        tokio::spawn(async move { self.renew_now().await }).await.unwrap_or(Err(gone))
    }

    async fn finished(&self) {
        if !self.kept_on.load(Relaxed) && tokio::time::timeout(MOMENT, self.end()).await.is_err() {
            tracing::debug!(snapshot = %self.id, "the end of access takes its time");
        }
    }
}

impl Grant {
    async fn renew_now(&self) -> CallResult<String> {
        let mut granted = self.granted.lock().await;
        if self.ended.load(Relaxed) {
            return Err(self.refusal("the grant was ended by this run"));
        }
        let asked = Instant::now();
        let url = match self.arm.begin_get_access(&self.id, Access::Read, self.options.duration).await {
            Err(error) if error.status() == Some(409) && self.may_end => {
                self.arm.end_get_access(&self.id).await?;
                self.arm.begin_get_access(&self.id, Access::Read, self.options.duration).await?
            }
            other => other?,
        };
        *granted = asked;
        let new = Resource::parse(Role::Source, &url, self.options.plain)
            .map_err(|_| self.refusal("the new SAS is no URL of a blob"))?;
        if self.place != place_of(&new) {
            return Err(self.refusal("the new SAS leads to another blob than the one before"));
        }
        tracing::info!(snapshot = %self.id, "access renewed");
        Ok(new.sas().expose().to_string())
    }

    fn refusal(&self, why: &str) -> CallError {
        CallError::of(CALL, Role::Manager, &self.id, Cause::Protocol(why.to_owned()))
    }

    async fn end(&self) -> CallResult<()> {
        let _nobody_renews = self.granted.lock().await;
        if self.ended.load(Relaxed) {
            return Ok(());
        }
        match self.arm.end_get_access(&self.id).await {
            // A snapshot that is gone took its SAS along.
            Err(error) if error.status() != Some(404) => Err(error),
            _ => {
                self.ended.store(true, Relaxed);
                tracing::info!(snapshot = %self.id, "access ended");
                Ok(())
            }
        }
    }
}

fn place_of(resource: &Resource) -> (String, String) {
    (resource.location(), resource.snapshot().unwrap_or_default().to_owned())
}

/// Renews before the time is over; what that does not reach, a 403 does.
async fn keep(grant: Arc<Grant>, resource: Resource) {
    let sas = resource.sas();
    let lasts = grant.options.duration * 2 / 3;
    loop {
        let due = *grant.granted.lock().await + lasts;
        let now = Instant::now();
        if now < due {
            pace::pause(due - now).await;
            continue;
        }
        if grant.ended.load(Relaxed) {
            return;
        }
        if let Err(error) = sas.renew_after(sas.version()).await {
            tracing::warn!(snapshot = %grant.id, cause = %error.cause, "access was not renewed yet");
            pace::pause(AGAIN_AFTER).await;
        }
    }
}
