//! The resources: disks and snapshots as management knows them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use super::transfer::DiskState;
use crate::clock::Moment;
use crate::disk::HiddenBlob;
use crate::service::Service;
use crate::store::pages::{PageData, Pages};
use crate::store::{Access, Grant};
use crate::vhd::FOOTER;

/// The resource type that a disk or a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Disks,
    Snapshots,
}

impl Kind {
    /// As it stands in an id.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Kind::Disks => "disks",
            Kind::Snapshots => "snapshots",
        }
    }
}

/// What a resource is called, spelt as when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResourceId {
    pub(crate) kind: Kind,
    pub(crate) group: String,
    pub(crate) name: String,
}

/// A name as it is compared: resource group and name without case.
pub(crate) type Key = (String, String);

impl ResourceId {
    pub(crate) fn key(&self) -> Key {
        (self.group.to_lowercase(), self.name.to_lowercase())
    }

    pub(crate) fn text(&self, subscription: Uuid) -> String {
        let ResourceId { kind, group, name } = self;
        let kind = kind.text();
        format!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/{kind}/{name}"
        )
    }
}

/// Where a resource's content comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Creation {
    pub(crate) option: &'static str,
    /// Id and unique id.
    pub(crate) source: Option<(String, Uuid)>,
    /// Of an import: the blob's URL without its SAS, and the id of its account.
    pub(crate) blob: Option<(String, String)>,
    /// Of an upload: bytes with the footer.
    pub(crate) upload_size: Option<u64>,
}

/// A disk. It outlives its resource in what was made of it.
#[derive(Debug)]
pub(crate) struct DiskEntry {
    pub(crate) id: ResourceId,
    pub(crate) unique_id: Uuid,
    pub(crate) location: String,
    pub(crate) sku: String,
    pub(crate) created: Moment,
    pub(crate) creation: Creation,
    pub(crate) sector_size: u32,
    /// What its incremental snapshots have in common.
    pub(crate) family: Uuid,
    pub(crate) hidden: Arc<HiddenBlob>,
    pub(super) numbered: AtomicU64,
    pub(super) state: Mutex<DiskState>,
}

impl DiskEntry {
    pub(crate) fn bytes(&self) -> u64 {
        self.hidden.with_pages(|pages| pages.len() - FOOTER)
    }

    pub(crate) fn tags(&self) -> BTreeMap<String, String> {
        self.state.lock().tags.clone()
    }

    pub(super) fn set_tags(&self, tags: BTreeMap<String, String>) {
        self.state.lock().tags = tags;
    }

    /// The number for the next snapshot that gets no other name.
    pub(super) fn next_number(&self) -> u64 {
        self.numbered.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A snapshot. It outlives its resource in what tests hold.
#[derive(Debug)]
pub(crate) struct SnapshotEntry {
    pub(crate) id: ResourceId,
    pub(crate) unique_id: Uuid,
    pub(crate) location: String,
    pub(crate) sku: String,
    /// Names the snapshot of the hidden blob.
    pub(crate) time: Moment,
    /// `timeCreated`.
    pub(crate) created: Moment,
    /// None if it is a full one.
    pub(crate) family: Option<Uuid>,
    pub(crate) creation: Creation,
    pub(crate) hidden: Arc<HiddenBlob>,
    /// What it holds, as it was taken.
    pub(crate) pages: Pages,
    pub(super) state: Mutex<SnapshotState>,
}

/// What changes of a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotState {
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) sector_size: u32,
    pub(crate) public_network_access: bool,
    pub(crate) network_access_policy: String,
    pub(crate) data_access_auth_mode: Option<String>,
    /// Full snapshots have none.
    pub(crate) completion: Option<f64>,
    /// Why a background copy ended before it was complete.
    pub(crate) copy_error: Option<String>,
    pub(crate) deleted: bool,
}

impl SnapshotEntry {
    pub(crate) fn state(&self) -> SnapshotState {
        self.state.lock().clone()
    }

    pub(crate) fn change(&self, act: impl FnOnce(&mut SnapshotState)) {
        act(&mut self.state.lock());
    }

    pub(crate) fn disk_bytes(&self) -> u64 {
        self.pages.len() - FOOTER
    }

    /// What the export holds.
    pub(crate) fn exported(&self) -> Pages {
        let mut pages = self.pages.clone();
        if self.state.lock().sector_size != 512 {
            without_footer(&mut pages);
        }
        pages
    }

    pub(crate) fn set_sector_size(&self, bytes: u32) {
        self.state.lock().sector_size = bytes;
        self.hidden.replace(self.time_in_blob(), self.exported());
    }

    /// Gives read access, in the name of management or of a test.
    pub(crate) fn grant(&self, service: &Service, lapses: Option<Moment>, managed: bool) -> String {
        let mode = self.state.lock().data_access_auth_mode.clone();
        let needs_bearer = managed && mode.as_deref() == Some("AzureActiveDirectory");
        let access = Access::Read;
        let grant = Grant { snapshot: self.time_in_blob(), access, lapses, managed, needs_bearer };
        self.hidden.grant(service, grant)
    }

    /// The URLs that management gave and that still open the snapshot.
    pub(crate) fn managed_urls(&self, service: &Service) -> Vec<String> {
        let policies = self.hidden.managed_policies(self.time_in_blob(), service.clock.now());
        policies.iter().map(|policy| self.hidden.url(service, self.time_in_blob(), policy)).collect()
    }

    pub(crate) fn has_managed_access(&self, now: Moment) -> bool {
        !self.hidden.managed_policies(self.time_in_blob(), now).is_empty()
    }

    /// Ends all access.
    pub(crate) fn revoke(&self) {
        self.hidden.revoke(self.time_in_blob(), |_| true);
    }

    /// Ends the access that management gave.
    pub(super) fn revoke_managed(&self) {
        self.hidden.revoke(self.time_in_blob(), |grant| grant.managed);
    }

    /// Removes the bytes and all access to them.
    pub(super) fn erase(&self) {
        self.state.lock().deleted = true;
        self.revoke();
        self.hidden.remove(self.time_in_blob());
    }

    /// The snapshot of the hidden blob; none if the whole blob is this one's.
    fn time_in_blob(&self) -> Option<Moment> {
        self.family.map(|_| self.time)
    }
}

/// Makes the last page something else than a VHD's footer, as of a disk with large sectors, whose exports are VHDX.
pub(crate) fn without_footer(pages: &mut Pages) {
    let last = pages.len() - FOOTER;
    let mut page = [0; 512];
    page[..8].copy_from_slice(b"notavhd!");
    pages.write(&PageData::of(last, &page));
}
