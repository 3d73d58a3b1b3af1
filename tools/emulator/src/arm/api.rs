//! Management from the outside: where it is, tokens for it, what it refuses, and what it has given away.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::knobs::ArmKnobs;
use super::resource::{Key, Kind};
use super::route::Route;
use super::token;
use crate::disk::{Disk, DiskSnapshot};
use crate::service::Service;

/// The Azure Resource Manager of an emulator, as far as it concerns disks and snapshots.
#[derive(Clone)]
pub struct Arm {
    service: Arc<Service>,
}

impl fmt::Debug for Arm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Arm").field("endpoint", &self.endpoint()).finish_non_exhaustive()
    }
}

impl Arm {
    pub(crate) fn new(service: Arc<Service>) -> Arm {
        Arm { service }
    }

    /// What ids are appended to, instead of `https://management.azure.com`. It is the emulator's own endpoint.
    pub fn endpoint(&self) -> String {
        self.service.endpoint.clone()
    }

    /// The id of the one subscription that there is.
    pub fn subscription(&self) -> String {
        self.service.arm.subscription.to_string()
    }

    /// A token for management, good for full seconds on the machine's clock: `Duration::ZERO` has expired already.
    pub fn token(&self, lifetime: Duration) -> String {
        token::make(&self.service.arm, token::MANAGEMENT, lifetime).0
    }

    /// What the environment variables `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` are set to for a managed identity.
    pub fn identity(&self) -> (String, String) {
        (format!("{}/msi/token", self.service.endpoint), self.service.arm.identity_header.clone())
    }

    /// How long tokens from the identity endpoint are good, on the machine's clock, because clients go by that.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.service.arm.lock().token_lifetime = lifetime;
    }

    /// Refuses an action to everybody, such as `Microsoft.Compute/snapshots/read`, with 403 `AuthorizationFailed`.
    pub fn deny(&self, action: &str) {
        self.service.arm.lock().denied.insert(action.to_ascii_lowercase());
    }

    /// Allows all actions again.
    pub fn allow_all(&self) {
        self.service.arm.lock().denied.clear();
    }

    /// Changes behaviour from the next request on.
    pub fn set_knobs(&self, knobs: ArmKnobs) {
        let mut state = self.service.arm.lock();
        state.settle(self.service.clock.now());
        state.knobs = knobs;
    }

    /// The ids of the snapshots and disks that management gave a SAS for which is still good, sorted.
    pub fn active_grants(&self) -> Vec<String> {
        let now = self.service.clock.now();
        let state = self.service.arm.lock();
        let accessed = state.snapshots.values().filter(|entry| entry.has_managed_access(now));
        let snapshots = accessed.map(|entry| &entry.id);
        let accessed = state.disks.values().filter(|entry| entry.has_managed_access(now));
        let all = snapshots.chain(accessed.map(|entry| &entry.id));
        let mut ids: Vec<String> = all.map(|id| self.service.arm.id_of(id)).collect();
        ids.sort();
        ids
    }

    /// The disk of an id, such as one that a client made.
    pub fn disk(&self, id: &str) -> Option<Disk> {
        let entry = self.service.arm.lock().disks.get(&self.key(id, Kind::Disks)?).cloned()?;
        Some(Disk::of(Arc::clone(&self.service), entry))
    }

    /// The snapshot of an id, such as one that a client took.
    pub fn snapshot(&self, id: &str) -> Option<DiskSnapshot> {
        let entry = self.service.arm.lock().snapshots.get(&self.key(id, Kind::Snapshots)?).cloned()?;
        Some(DiskSnapshot::of(Arc::clone(&self.service), entry))
    }

    fn key(&self, id: &str, kind: Kind) -> Option<Key> {
        let (subscription, name) = Route::parse_id(id)?;
        let here = subscription.eq_ignore_ascii_case(&self.subscription()) && name.kind == kind;
        here.then(|| name.key())
    }
}
