//! Where a base blob stands, in the words in which the resource manager lists snapshots.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::run::Run;
use crate::azure::arm::ManagedSnapshot;
use crate::azure::{Caps, Endpoint, Pace, PageBlob, Resource, Role};
use crate::base::marker::{Marker, State};
use crate::base::{self, Base, Look};
use crate::chain::grants::Claim;
use crate::chain::outline::{At, Known};
use crate::chain::{Chain, SnapshotId};
use crate::error::{Error, ErrorKind, Result};

/// Snapshots whose URL is looked at to find the one that a base names by its URL alone.
const MOST_TRIED: usize = 8;
/// How far the time in a snapshot's URL may be from when the resource manager says that it was made.
const SLACK: Duration = Duration::from_mins(1);

impl Run<'_> {
    /// Where the base blob stands, in the resource manager's words.
    pub(super) async fn stand(&self, chain: &Chain, target: &Resource) -> Result<At> {
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

    pub(super) fn blob(&self, target: &Resource) -> Result<PageBlob> {
        let pace = Arc::new(Pace::new(Caps::default()));
        let meter = Arc::clone(self.arm.meter());
        Ok(PageBlob::new(Endpoint::new(target.clone(), self.client, pace, meter))?)
    }

    pub(super) async fn place(&self, chain: &Chain, look: Look, target: &Resource) -> Result<At> {
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
        let mut is_this_disk = nearest.is_empty();
        for snapshot in nearest.into_iter().take(MOST_TRIED) {
            let resource = self.keeper.grant(snapshot, Role::Source, Claim::Look).await?;
            let found = SnapshotId::of(&resource)?;
            self.keeper.end(&snapshot.id).await;
            if found.is(id, self.settings.across_hosts) {
                return Ok(known(snapshot.unique_id.clone()));
            }
            is_this_disk |= self.settings.across_hosts || found.family() == id.family();
        }
        if !is_this_disk {
            let why = format!(
                "it holds a disk whose snapshots are at {}, and those of this one are elsewhere",
                id.family()
            );
            return Err(Error::new(ErrorKind::DifferentFamilies, "bring the base blob up to date", why).next(
                "name the base blob of this disk as --target, or a container, in which each disk has its own",
            ));
        }
        Ok(known(None))
    }
}
impl At {
    /// The step that a rollback is to undo: one that leads to a snapshot which is gone.
    pub(super) fn torn_to_be_undone(&self, chain: &Chain, is_wanted: bool) -> Option<String> {
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
