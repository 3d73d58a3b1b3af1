//! The lease on the base blob, kept alive in the background, and the news that it is lost.
//!
//! A lease lasts a minute and is renewed three times in it. When a renewal is refused, or none succeeded in
//! time, the lease counts as lost *before* the service lets somebody else have it, and the run stops. Even if
//! it did not (a machine that was suspended), the lease id and the sequence number on every write keep it out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::azure::PageBlob;
use crate::azure::failure::{CallError, CallResult, Class};
use crate::azure::pace;

/// How long one attempt to change a lease's id may take, and all of them together.
const ATTEMPT: Duration = Duration::from_secs(5);
const CHANGE_WITHIN: Duration = Duration::from_mins(2);

/// How leases are taken.
#[derive(Clone, Copy, Debug)]
pub struct LeaseOptions {
    /// Duration in seconds, 15 to 60.
    pub seconds: u8,
    /// How long to wait for the lease of a writer that shows no sign of life.
    pub wait: Duration,
    /// Take the lease from whoever has it: nothing of theirs lands any more.
    pub break_it: bool,
    /// The id of a lease that is held already: it is gone on with. Otherwise a new one is taken.
    pub id: Option<uuid::Uuid>,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        // A lease lasts a minute, and the service may take its time to give it to somebody else.
        Self { seconds: 60, wait: Duration::from_secs(90), break_it: false, id: None }
    }
}

/// How a lease was lost.
#[derive(Clone, Debug)]
pub enum Loss {
    /// The service refused to renew it.
    Refused(CallError),
    /// No renewal succeeded in time.
    Late,
}

/// A lease that is being kept alive.
pub struct Lease {
    blob: PageBlob,
    id: Arc<Mutex<String>>,
    lost: watch::Receiver<Option<Loss>>,
    keeper: JoinHandle<()>,
}

impl Lease {
    /// Acquires the lease and keeps it.
    pub async fn acquire(blob: &PageBlob, options: LeaseOptions) -> CallResult<Self> {
        let seconds = options.seconds.clamp(15, 60);
        let (id, asked) = if let Some(held) = options.id {
            let id = held.to_string();
            let asked = blob.renew_lease(&id).await?;
            (id, asked)
        } else {
            blob.acquire_lease(None, seconds).await?
        };
        let id = Arc::new(Mutex::new(id));
        let (sender, lost) = watch::channel(None);
        let keeper = Keeper {
            blob: blob.clone(),
            id: Arc::clone(&id),
            duration: Duration::from_secs(u64::from(seconds)),
            lost: sender,
        };
        let keeper = tokio::spawn(keeper.run(asked));
        Ok(Self { blob: blob.clone(), id, lost, keeper })
    }

    /// The id that every write carries.
    pub async fn id(&self) -> String {
        self.id.lock().await.clone()
    }

    /// Resolves when the lease is lost, with the reason; pends for as long as it holds.
    pub async fn lost(&self) -> Loss {
        let mut lost = self.lost.clone();
        // An error means that the keeper ended without a word: then nobody keeps the lease.
        match lost.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(Loss::Late),
            Err(_) => Loss::Late,
        }
    }

    /// Gives the lease another id: requests that are still on their way with the old one are refused.
    ///
    /// By short attempts, and with renewals between them, because the keeper waits meanwhile. An attempt whose
    /// reply was lost may have been done: then the new id is the one that can be renewed.
    pub async fn change_id(&self) -> CallResult<()> {
        let mut id = self.id.lock().await;
        let new = uuid::Uuid::new_v4().to_string();
        let deadline = Instant::now() + CHANGE_WITHIN;
        loop {
            let error = match tokio::time::timeout(ATTEMPT, self.blob.change_lease_once(&id, &new)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) if error.class() != Class::Passes && !error.is_fenced() => return Err(error),
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            if let Ok(Ok(_)) = tokio::time::timeout(ATTEMPT, self.blob.renew_lease_once(&new)).await {
                break;
            }
            match tokio::time::timeout(ATTEMPT, self.blob.renew_lease_once(&id)).await {
                Ok(Err(error)) if error.is_fenced() => return Err(error),
                _ if Instant::now() < deadline => pace::pause(Duration::from_secs(1)).await,
                _ => return Err(error.unwrap_or_else(|| self.blob.unanswered("Lease Blob"))),
            }
        }
        *id = new;
        Ok(())
    }

    /// Lets the lease go, so that the next run need not wait until it lapses.
    pub async fn release(self) -> CallResult<()> {
        self.keeper.abort();
        let id = self.id.lock().await.clone();
        self.blob.release_lease(&id).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

struct Keeper {
    blob: PageBlob,
    id: Arc<Mutex<String>>,
    duration: Duration,
    lost: watch::Sender<Option<Loss>>,
}

impl Keeper {
    /// Renews in time, by single attempts and not through the retry layer: what counts here is the end of the
    /// lease, and one attempt that gets no answer must not use up the time for the next.
    async fn run(self, acquired: Instant) {
        // Counted from before the request was sent: the service cannot end the lease earlier than that.
        let mut held_from = acquired;
        let margin = self.duration / 12;
        let mut next = held_from + self.duration / 3;
        loop {
            tokio::time::sleep_until(next).await;
            let deadline = held_from + self.duration - margin;
            match self.attempt(deadline).await {
                Ok(asked) => {
                    held_from = asked;
                    next = held_from + self.duration / 3;
                }
                Err(Some(error)) if error.class() != Class::Passes => {
                    return self.give_up(Loss::Refused(error));
                }
                Err(_) if Instant::now() >= deadline => return self.give_up(Loss::Late),
                Err(_) => next = deadline.min(Instant::now() + Duration::from_secs(1)),
            }
        }
    }

    /// One attempt that ends before the deadline; `None` for an error is one that got no answer.
    async fn attempt(&self, deadline: Instant) -> Result<Instant, Option<CallError>> {
        let limit = deadline.min(Instant::now() + self.duration / 6);
        let renewal = async {
            let id = self.id.lock().await;
            self.blob.renew_lease_once(&id).await
        };
        match tokio::time::timeout_at(limit, renewal).await {
            Ok(renewed) => renewed.map_err(Some),
            Err(_) => Err(None),
        }
    }

    fn give_up(&self, reason: Loss) {
        self.lost.send_replace(Some(reason));
    }
}
