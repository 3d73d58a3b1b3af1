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
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::azure::arm::{Arm, ArmId, ManagedSnapshot};
use crate::azure::failure::{CallError, CallResult, Cause};
use crate::azure::pace;
use crate::azure::sas::Rights;
use crate::azure::{PlainHttp, Resource, Role};
use crate::error::{Error, ErrorKind, Result};

/// How long the end of all grants may take on the way out.
const FAREWELL: Duration = Duration::from_secs(30);
/// How long a step waits for the end of a grant that it needs no longer.
const MOMENT: Duration = Duration::from_secs(5);
/// After a renewal that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

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
    asked: Mutex<Vec<ArmId>>,
}

struct Held {
    grant: Arc<Grant>,
    resource: Resource,
    clock: JoinHandle<()>,
}

impl Keeper {
    /// A keeper that holds nothing yet.
    pub fn new(arm: Arm, options: GrantOptions) -> Self {
        Self { arm, options, held: Mutex::default(), asked: Mutex::default() }
    }

    /// A way to read `snapshot`, for as long as it takes. `ours` tells that a SAS which is out is what a crash left.
    pub async fn grant(&self, snapshot: &ManagedSnapshot, role: Role, ours: bool) -> Result<Resource> {
        let known = self
            .held
            .lock()
            .await
            .iter()
            .find(|known| known.grant.id == snapshot.id)
            .map(|known| known.resource.in_role(role));
        if let Some(known) = known {
            return Ok(known);
        }
        let may_end = ours || self.options.revoke_active;
        let asked = Instant::now();
        let url = match self.ask(&snapshot.id).await {
            Ok(url) => Ok(url),
            Err(error) if error.status() == Some(409) => {
                // What is out is not what was just asked for.
                self.forget(&snapshot.id).await;
                self.begin_again(snapshot, may_end).await
            }
            Err(error) => Err(error.into()),
        };
        self.forget(&snapshot.id).await;
        let url = url?;
        let resource = match Resource::parse(role, &url, self.options.plain) {
            Ok(resource) => resource,
            Err(error) => {
                // Nobody can read by it, so nobody need: as far as possible.
                let _ = self.arm.end_get_access(&snapshot.id).await;
                return Err(error);
            }
        };
        let grant = Arc::new(Grant {
            arm: self.arm.clone(),
            id: snapshot.id.clone(),
            options: self.options,
            granted: Mutex::new(asked),
            place: place_of(&resource),
            ended: AtomicBool::new(false),
            kept_on: AtomicBool::new(false),
        });
        let resource = resource.kept_by(Arc::clone(&grant) as _);
        let clock = tokio::spawn(keep(Arc::clone(&grant), resource.clone()));
        tracing::info!(snapshot = %snapshot.id, "access granted");
        self.held.lock().await.push(Held { grant, resource: resource.clone(), clock });
        Ok(resource)
    }

    /// The first request was refused: is a SAS out, and may it be ended?
    async fn begin_again(&self, snapshot: &ManagedSnapshot, may_end: bool) -> Result<String> {
        let now = self.arm.snapshot(&snapshot.id).await?;
        let id = &snapshot.id;
        if !now.has_active_sas() {
            // What was out may have ended in between: only what is refused again has another reason.
            return match self.ask(id).await {
                Err(error) if error.status() == Some(409) => {
                    let error = Error::from(error);
                    Err(Error::new(error.kind(), format!("grant access to {id}"), error.why()).next(format!(
                        "at most five snapshots of a disk can have a SAS at a time, and a snapshot whose public access is disabled none: snapferry access revoke --disk <ARM id>, az snapshot show --ids {id}"
                    )))
                }
                asked => Ok(asked?),
            };
        }
        if !may_end {
            let why = "a SAS for it is out already, and the base blob does not say that it is ours: somebody may be reading";
            return Err(Error::new(ErrorKind::Refused, "grant access to the snapshot", why).on(id).next(
                format!("if nobody is: snapferry access revoke --snapshot {id}, or say --revoke-active-sas"),
            ));
        }
        tracing::warn!(snapshot = %id, "a SAS for it is out already: ending it");
        self.arm.end_get_access(id).await?;
        Ok(self.ask(id).await?)
    }

    /// Remembers the question until its answer was seen: whoever is ended in between has that SAS, too, to end.
    async fn ask(&self, id: &ArmId) -> CallResult<String> {
        self.asked.lock().await.push(id.clone());
        self.arm.begin_get_access(id, self.options.duration).await
    }

    async fn forget(&self, id: &ArmId) {
        self.asked.lock().await.retain(|asked| asked != id);
    }

    /// Whether the snapshot is needed after the step that reads it now.
    pub async fn keep_on(&self, id: &ArmId, is_needed: bool) {
        for known in self.held.lock().await.iter().filter(|known| known.grant.id == *id) {
            known.grant.kept_on.store(is_needed, Relaxed);
        }
    }

    /// Ends the grant of one snapshot.
    pub async fn end(&self, id: &ArmId) -> Vec<ArmId> {
        self.end_those(|held| held == id).await
    }

    /// Ends every grant, within half a minute. Returns the snapshots for which that could not be done: their SAS ends
    /// by itself.
    pub async fn end_all(&self) -> Vec<ArmId> {
        let mut left = self.end_those(|_| true).await;
        for id in std::mem::take(&mut *self.asked.lock().await) {
            if !matches!(tokio::time::timeout(FAREWELL, self.arm.end_get_access(&id)).await, Ok(Ok(()))) {
                left.push(id);
            }
        }
        left
    }

    async fn end_those(&self, wanted: impl Fn(&ArmId) -> bool) -> Vec<ArmId> {
        let (ending, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut *self.held.lock().await).into_iter().partition(|held| wanted(&held.grant.id));
        self.held.lock().await.extend(rest);
        let ended = futures::future::join_all(ending.iter().map(|held| async {
            // Waits for a renewal that is on its way: a request that was given up may still be done.
            let ended = tokio::time::timeout(FAREWELL, held.grant.end()).await;
            held.clock.abort();
            match ended {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some((held.grant.id.clone(), error.cause.to_string())),
                Err(_) => Some((held.grant.id.clone(), "no answer in time".to_owned())),
            }
        }));
        let left: Vec<_> = ended.await.into_iter().flatten().collect();
        for (snapshot, why) in &left {
            tracing::warn!(%snapshot, why, "access was not ended; it ends by itself, or by: snapferry access revoke --snapshot {snapshot}");
        }
        left.into_iter().map(|(id, _)| id).collect()
    }
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
    ended: AtomicBool,
    /// Whether the next step needs it.
    kept_on: AtomicBool,
}

#[async_trait]
impl Rights for Grant {
    async fn renew(&self) -> CallResult<String> {
        let mut granted = self.granted.lock().await;
        let refuse = |why: &str| CallError {
            call: "Snapshots Grant Access",
            role: Role::Manager,
            on: self.id.to_string(),
            cause: Cause::Protocol(why.to_owned()),
            attempts: 1,
        };
        if self.ended.load(Relaxed) {
            return Err(refuse("the grant was ended by this run"));
        }
        let asked = Instant::now();
        let url = match self.arm.begin_get_access(&self.id, self.options.duration).await {
            Err(error) if error.status() == Some(409) => {
                self.arm.end_get_access(&self.id).await?;
                self.arm.begin_get_access(&self.id, self.options.duration).await?
            }
            other => other?,
        };
        *granted = asked;
        let new = Resource::parse(Role::Source, &url, self.options.plain)
            .map_err(|_| refuse("the new SAS is no URL of a blob"))?;
        if self.place != place_of(&new) {
            return Err(refuse("the new SAS leads to another blob than the one before"));
        }
        tracing::info!(snapshot = %self.id, "access renewed");
        Ok(new.sas().expose().to_string())
    }

    async fn finished(&self) {
        if !self.kept_on.load(Relaxed) && tokio::time::timeout(MOMENT, self.end()).await.is_err() {
            tracing::debug!(snapshot = %self.id, "the end of access takes its time");
        }
    }
}

impl Grant {
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
