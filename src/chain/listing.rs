//! The chain: the incremental snapshots of one disk, oldest first, out of whatever the resource manager lists.
//!
//! A name is no identity: a disk that was deleted and made anew keeps its ARM id and has another unique id, and its
//! snapshots must not join those of the one before.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::azure::arm::{Arm, ArmId, ListScope, ManagedSnapshot};
use crate::azure::failure::CallError;
use crate::error::{Error, ErrorKind, Result};

/// Exports of disks with other sectors are VHDX.
const SECTOR: u32 = 512;

/// The snapshots of one disk that can be copied, in the order in which they were made.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The disk.
    pub disk: ArmId,
    /// Tells it from a disk that had its name before.
    pub disk_unique_id: Option<String>,
    /// Oldest first.
    pub snapshots: Vec<ManagedSnapshot>,
    /// Snapshots that are being made, of which it is not known yet when.
    pub being_made: Vec<ManagedSnapshot>,
    /// What was made of a disk with this id and cannot be copied.
    pub left_out: Vec<LeftOut>,
}

/// A snapshot that is not copied.
#[derive(Clone, Debug, Serialize)]
pub struct LeftOut {
    /// The snapshot.
    pub snapshot: ArmId,
    /// Why.
    pub why: String,
}

impl Chain {
    /// Asks for the disk and its snapshots. Without a `scope`, those of the whole subscription are listed, or of the
    /// disk's resource group where only that is allowed.
    pub async fn load(arm: &Arm, disk: &ArmId, scope: Option<&ListScope>) -> Result<Self> {
        let unique_id = match arm.disk(disk).await {
            Ok(found) if found.sector_size != SECTOR => return Err(other_sectors(disk, found.sector_size)),
            Ok(found) => found.unique_id,
            // Its snapshots outlive a disk.
            Err(error) if error.status() == Some(404) => {
                tracing::warn!(%disk, "the disk does not exist (any more): its snapshots are looked for");
                None
            }
            Err(error) => return Err(error.into()),
        };
        let listed = match scope {
            Some(scope) => arm.snapshots(scope).await?,
            None => list_all(arm, disk).await?,
        };
        Self::of(disk, unique_id, listed)
    }

    /// Picks the snapshots of the disk out of `listed`. Without `unique_id` (the disk is gone) they must all be of
    /// one disk.
    pub fn of(disk: &ArmId, unique_id: Option<String>, listed: Vec<ManagedSnapshot>) -> Result<Self> {
        let id = disk.to_string();
        let same = |one: &str, other: &str| one.to_lowercase() == other.to_lowercase();
        let of_disk: Vec<_> = listed
            .into_iter()
            .filter(|snapshot| snapshot.source.as_deref().is_some_and(|source| same(source, &id)))
            .collect();
        let disk_unique_id = match unique_id {
            Some(unique_id) => Some(unique_id),
            None => only_disk(disk, &of_disk)?,
        };
        let mut left_out = Vec::new();
        let mut snapshots = Vec::new();
        let mut being_made = Vec::new();
        for snapshot in of_disk {
            let is_ours = match (&disk_unique_id, &snapshot.source_unique_id) {
                (Some(ours), Some(theirs)) => same(ours, theirs),
                (None, None) => true,
                // One that is being made may not say yet of which disk.
                (Some(_), None) => !snapshot.is_ready(),
                (None, Some(_)) => false,
            };
            match obstacle(&snapshot, is_ours) {
                None if snapshot.created.is_none()
                    || snapshot.unique_id.is_none()
                    || snapshot.source_unique_id.is_none() != disk_unique_id.is_none() =>
                {
                    being_made.push(snapshot);
                }
                None => snapshots.push(snapshot),
                Some(why) => left_out.push(LeftOut { snapshot: snapshot.id, why: why.to_owned() }),
            }
        }
        snapshots.sort_by_key(|snapshot| snapshot.created);
        if let Some([one, other]) =
            snapshots.array_windows().find(|[one, other]| one.created == other.created)
        {
            let why = format!("{} and {} were made at the same time", one.id.name(), other.id.name());
            return Err(Error::new(ErrorKind::SnapshotOrder, "put the snapshots in order", why)
                .on(disk)
                .next("copy them one by one with snapferry copy, which goes by the time in their URLs"));
        }
        if snapshots.is_empty() && being_made.is_empty() {
            return Err(nothing_to_copy(disk, &left_out));
        }
        Ok(Self { disk: disk.clone(), disk_unique_id, snapshots, being_made, left_out })
    }

    /// The snapshot with this unique id.
    pub fn by_unique_id(&self, unique_id: &str) -> Option<&ManagedSnapshot> {
        self.snapshots.get(self.position(unique_id)?)
    }

    /// Its place in the chain.
    pub fn position(&self, unique_id: &str) -> Option<usize> {
        self.snapshots.iter().position(|snapshot| {
            snapshot.unique_id.as_deref().is_some_and(|theirs| theirs.eq_ignore_ascii_case(unique_id))
        })
    }

    /// The name of the base blob in a container that holds many: one disk, one blob, whatever becomes of the name.
    pub fn blob_name(&self) -> String {
        let unique: String = self
            .disk_unique_id
            .iter()
            .flat_map(|id| id.chars())
            .filter(char::is_ascii_alphanumeric)
            .take(8)
            .collect();
        let separator = if unique.is_empty() { "" } else { "-" };
        // Ids come in any case; the names of blobs are told apart by it.
        format!("{}{separator}{unique}.vhd", self.disk.name()).to_lowercase()
    }
}

/// Snapshots may lie in another resource group than their disk.
async fn list_all(arm: &Arm, disk: &ArmId) -> Result<Vec<ManagedSnapshot>> {
    let whole = ListScope::Subscription(disk.subscription().to_owned());
    match arm.snapshots(&whole).await {
        Ok(listed) => Ok(listed),
        Err(error) if is_forbidden(&error) => {
            let group = ListScope::Group(disk.subscription().to_owned(), disk.group().to_owned());
            tracing::warn!(%group, "the subscription's snapshots may not be listed: only this resource group is looked at");
            Ok(arm.snapshots(&group).await?)
        }
        Err(error) => Err(error.into()),
    }
}

fn is_forbidden(error: &CallError) -> bool {
    error.status() == Some(403)
}

/// The unique id that all snapshots of a deleted disk have in common.
fn only_disk(disk: &ArmId, of_disk: &[ManagedSnapshot]) -> Result<Option<String>> {
    let mut disks: BTreeSet<String> = of_disk
        .iter()
        .filter_map(|snapshot| snapshot.source_unique_id.as_ref())
        .map(|id| id.to_lowercase())
        .collect();
    if disks.len() > 1 {
        let why =
            format!("it is gone, and {} disks had this name: which one's snapshots are meant?", disks.len());
        return Err(Error::new(ErrorKind::DifferentFamilies, "find the snapshots of the disk", why)
            .on(disk)
            .next("copy its snapshots one by one: snapferry access grant, snapferry copy"));
    }
    Ok(disks.pop_first())
}

fn obstacle(snapshot: &ManagedSnapshot, is_of_this_disk: bool) -> Option<&'static str> {
    if !is_of_this_disk {
        Some("it is of another disk that had this name")
    } else if !snapshot.incremental {
        Some("it is a full snapshot: only incremental ones can be diffed")
    } else if snapshot.sector_size != SECTOR {
        Some(
            "its disk has sectors of 4096 bytes: it is exported as VHDX, which no page blob can be made into a disk from; snapferry managed-copy copies it",
        )
    } else if snapshot.has_failed() {
        Some("it was not made to its end")
    } else if snapshot.is_ready() && (snapshot.created.is_none() || snapshot.unique_id.is_none()) {
        Some("the service does not say when it was made, or which one it is")
    } else {
        None
    }
}

fn nothing_to_copy(disk: &ArmId, left_out: &[LeftOut]) -> Error {
    let tried = "find the incremental snapshots of the disk";
    let take = format!(
        "az snapshot create --incremental true --source {disk} --resource-group <group> --name <name>"
    );
    match left_out.first() {
        None => Error::new(
            ErrorKind::NotFound,
            tried,
            "it has none in the subscription, or in the part that may be listed",
        )
        .on(disk)
        .next(take),
        Some(one) => {
            let why = format!(
                "of its {} snapshots none can be copied; {}: {}",
                left_out.len(),
                one.snapshot.name(),
                one.why
            );
            Error::new(ErrorKind::SourceUnsuitable, tried, why).on(disk).next(take)
        }
    }
}

fn other_sectors(disk: &ArmId, sector_size: u32) -> Error {
    let why = format!(
        "it has sectors of {sector_size} bytes (Ultra Disk, Premium SSD v2): its snapshots are exported as VHDX, which no \
         page blob can be made into a disk from"
    );
    Error::new(ErrorKind::SourceUnsuitable, "copy the snapshots of the disk", why)
        .on(disk)
        .next("use Azure's managed copy: snapferry managed-copy --source <snapshot ARM id> --region <region> --target-name <name>")
}
