//! A snapshot from the outside: its resource, its bytes, and access to it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::read_clipped;
use crate::arm::SnapshotEntry;
use crate::clock::Moment;
use crate::service::Service;

/// A snapshot of a disk, incremental unless it was taken as a full one. Lengths and offsets are in bytes of the exported
/// VHD, footer included.
#[derive(Clone)]
pub struct DiskSnapshot {
    service: Arc<Service>,
    entry: Arc<SnapshotEntry>,
    time_text: String,
}

impl fmt::Debug for DiskSnapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DiskSnapshot")
            .field("id", &self.arm_id())
            .field("time", &self.time_text)
            .finish_non_exhaustive()
    }
}

impl DiskSnapshot {
    pub(crate) fn of(service: Arc<Service>, entry: Arc<SnapshotEntry>) -> DiskSnapshot {
        let time_text = entry.time.snapshot_text();
        DiskSnapshot { service, entry, time_text }
    }

    /// When it was taken, as in its URL: seven fractional digits. The URL of a full snapshot does not tell it.
    pub fn time(&self) -> &str {
        &self.time_text
    }

    /// The id of its resource: `/subscriptions/.../resourceGroups/.../providers/Microsoft.Compute/snapshots/...`.
    pub fn arm_id(&self) -> String {
        self.service.arm.id_of(&self.entry.id)
    }

    /// The name of its resource.
    pub fn name(&self) -> &str {
        &self.entry.id.name
    }

    /// What tells it apart from a snapshot that had its name before.
    pub fn unique_id(&self) -> String {
        self.entry.unique_id.to_string()
    }

    /// When its resource was made, as management tells it. Not the same as `time`.
    pub fn time_created(&self) -> String {
        self.entry.created.offset_text()
    }

    /// Bytes of the export: the disk and its footer.
    #[allow(clippy::len_without_is_empty, reason = "there is always a footer")]
    pub fn len(&self) -> u64 {
        self.entry.pages.len()
    }

    /// The bytes from `offset` on, at most `length`: fewer if the export ends before. Works after `delete`, too.
    pub fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let pages = self.entry.exported();
        read_clipped(&pages, pages.len(), offset, length)
    }

    /// Grants read access until it is revoked: a URL with a SAS. Management does not know of it.
    pub fn grant(&self) -> String {
        self.grant_until(None)
    }

    /// Grants read access for some time on the emulator's clock. As with the service, the URL does not tell.
    pub fn grant_for(&self, duration: Duration) -> String {
        self.grant_until(Some(self.service.clock.now().plus(duration)))
    }

    /// Ends all access that was granted to this snapshot, by whomever.
    pub fn revoke(&self) {
        self.entry.revoke();
    }

    /// Deletes the snapshot with its resource, and ends access to it.
    pub fn delete(&self) {
        self.service.arm.lock().remove_snapshot(&self.entry, self.service.clock.now());
    }

    /// Changes its `completionPercent`, from 0 to 100.
    pub fn set_completion(&self, percent: f64) {
        self.entry.change(|state| state.completion = Some(percent.clamp(0.0, 100.0)));
    }

    /// Changes its `publicNetworkAccess`; without it, management gives nobody a SAS.
    pub fn set_public_network_access(&self, enabled: bool) {
        self.entry.change(|state| state.public_network_access = enabled);
    }

    /// Changes its `logicalSectorSize`. With 4096 it is no VHD any more: its last page is no footer.
    pub fn set_sector_size(&self, bytes: u32) {
        self.entry.set_sector_size(bytes);
    }

    fn grant_until(&self, lapses: Option<Moment>) -> String {
        self.entry.grant(&self.service, lapses, false)
    }
}
