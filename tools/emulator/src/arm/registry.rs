//! What management knows: resource groups, disks, snapshots, operations, and who may do what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use super::copies::Copies;
use super::knobs::ArmKnobs;
use super::operations::Operation;
use super::resource::{Creation, DiskEntry, Key, Kind, ResourceId, SnapshotEntry, SnapshotState};
use super::transfer::DiskState;
use crate::clock::Moment;
use crate::disk::{HiddenBlob, OF_FULL, OF_INCREMENTAL};
use crate::service::Service;
use crate::store::Store;
use crate::store::pages::Pages;

/// The resource group of what tests make without naming one, and where it is.
pub(crate) const DEFAULT_GROUP: &str = "disks";
pub(crate) const DEFAULT_LOCATION: &str = "westeurope";

/// How long a token from the identity endpoint is good for.
const TOKEN_LIFETIME: Duration = Duration::from_hours(24);

/// Everything of the management side. Its lock is taken before those of snapshots and blobs.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) subscription: Uuid,
    /// What the identity endpoint wants to see in `X-IDENTITY-HEADER`.
    pub(crate) identity_header: String,
    /// Who all tokens are for.
    pub(crate) client_id: Uuid,
    pub(crate) object_id: Uuid,
    pub(super) token_key: String,
    state: Mutex<State>,
}

/// What changes.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) knobs: ArmKnobs,
    pub(crate) token_lifetime: Duration,
    /// Actions that nobody may do, in lower case.
    pub(crate) denied: BTreeSet<String>,
    /// Resource groups as they are spelt, by name in lower case.
    groups: BTreeMap<String, String>,
    pub(super) disks: BTreeMap<Key, Arc<DiskEntry>>,
    pub(super) snapshots: BTreeMap<Key, Arc<SnapshotEntry>>,
    pub(super) operations: BTreeMap<String, Operation>,
    pub(super) copies: Copies,
    /// How many hidden blobs were made under a name: each has another address.
    addresses: BTreeMap<String, u64>,
    /// The latest `timeCreated`.
    created: Option<Moment>,
}

/// A disk to be made.
#[derive(Debug)]
pub(crate) struct NewDisk {
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) location: String,
    pub(crate) sku: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) creation: Creation,
    pub(crate) sector_size: u32,
    /// With the footer.
    pub(crate) pages: Pages,
}

impl NewDisk {
    /// A disk that a test makes.
    pub(crate) fn plain(group: &str, name: &str, pages: Pages) -> NewDisk {
        NewDisk {
            group: group.to_owned(),
            name: name.to_owned(),
            location: DEFAULT_LOCATION.to_owned(),
            sku: "Premium_LRS".to_owned(),
            tags: BTreeMap::new(),
            creation: Creation { option: "Empty", ..Creation::default() },
            sector_size: 512,
            pages,
        }
    }
}

/// A snapshot to be taken of a disk.
#[derive(Debug)]
pub(crate) struct NewSnapshot {
    /// None for the disk's.
    pub(crate) group: Option<String>,
    /// None for the disk's name and a number.
    pub(crate) name: Option<String>,
    pub(crate) incremental: bool,
    pub(crate) sku: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) public_network_access: bool,
    pub(crate) network_access_policy: String,
    pub(crate) data_access_auth_mode: Option<String>,
}

impl NewSnapshot {
    pub(crate) fn numbered() -> NewSnapshot {
        NewSnapshot {
            group: None,
            name: None,
            incremental: true,
            sku: "Standard_LRS".to_owned(),
            tags: BTreeMap::new(),
            public_network_access: true,
            network_access_policy: "AllowAll".to_owned(),
            data_access_auth_mode: None,
        }
    }

    pub(crate) fn named(name: &str) -> NewSnapshot {
        NewSnapshot { name: Some(name.to_owned()), ..NewSnapshot::numbered() }
    }

    fn state(&self, sector_size: u32, completion: Option<f64>) -> SnapshotState {
        SnapshotState {
            tags: self.tags.clone(),
            sector_size,
            public_network_access: self.public_network_access,
            network_access_policy: self.network_access_policy.clone(),
            data_access_auth_mode: self.data_access_auth_mode.clone(),
            completion,
            copy_error: None,
            deleted: false,
        }
    }
}

impl Registry {
    pub(crate) fn new(store: &Store) -> Registry {
        let id = |purpose| Uuid::try_parse(&store.derived_text(purpose, "", 32)).unwrap_or_default();
        let groups = [(DEFAULT_GROUP.to_owned(), DEFAULT_GROUP.to_owned())];
        Registry {
            subscription: id("subscription"),
            identity_header: store.derived_text("identity header", "", 32),
            client_id: id("client"),
            object_id: id("object"),
            token_key: store.derived_text("token key", "", 64),
            state: Mutex::new(State {
                knobs: ArmKnobs::default(),
                token_lifetime: TOKEN_LIFETIME,
                denied: BTreeSet::new(),
                groups: groups.into(),
                disks: BTreeMap::new(),
                snapshots: BTreeMap::new(),
                operations: BTreeMap::new(),
                copies: Copies::default(),
                addresses: BTreeMap::new(),
                created: None,
            }),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn id_of(&self, id: &ResourceId) -> String {
        id.text(self.subscription)
    }
}

impl State {
    /// A resource group as it is spelt.
    pub(crate) fn group(&self, name: &str) -> Option<&str> {
        self.groups.get(&name.to_lowercase()).map(String::as_str)
    }

    /// Makes a disk and, if needed, its resource group. None if the name is taken.
    pub(crate) fn add_disk(&mut self, service: &Service, new: NewDisk) -> Option<Arc<DiskEntry>> {
        let group = self.groups.entry(new.group.to_lowercase()).or_insert(new.group).clone();
        let id = ResourceId { kind: Kind::Disks, group, name: new.name };
        if self.disks.contains_key(&id.key()) {
            return None;
        }
        let address = self.next_address(&id.name);
        let hidden = HiddenBlob::new(service, OF_INCREMENTAL, &address, new.pages);
        let entry = Arc::new(DiskEntry {
            unique_id: unique_id(service),
            location: new.location,
            sku: new.sku,
            created: self.next_created(service.clock.tick()),
            state: Mutex::new(DiskState::new(new.tags, new.creation.upload_size.is_some())),
            creation: new.creation,
            sector_size: new.sector_size,
            family: unique_id(service),
            hidden: Arc::new(hidden),
            numbered: AtomicU64::new(0),
            id,
        });
        self.disks.insert(entry.id.key(), Arc::clone(&entry));
        Some(entry)
    }

    /// Takes a snapshot of a disk. One that has its name already is deleted.
    pub(crate) fn snapshot_disk(
        &mut self,
        service: &Service,
        disk: &DiskEntry,
        new: NewSnapshot,
    ) -> Arc<SnapshotEntry> {
        let id = self.id_of_new(disk, &new);
        let time = service.clock.tick();
        let (hidden, pages) = if new.incremental {
            (Arc::clone(&disk.hidden), disk.hidden.take_snapshot(time))
        } else {
            let pages = disk.hidden.with_pages(Pages::freeze);
            let address = self.next_address(&id.name);
            (Arc::new(HiddenBlob::new(service, OF_FULL, &address, pages.clone())), pages)
        };
        let creation = Creation {
            option: "Copy",
            source: Some((service.arm.id_of(&disk.id), disk.unique_id)),
            ..Creation::default()
        };
        let created = self.next_created(time);
        self.insert_snapshot(SnapshotEntry {
            id,
            unique_id: unique_id(service),
            location: disk.location.clone(),
            time,
            created,
            family: new.incremental.then_some(disk.family),
            creation,
            hidden,
            pages,
            state: Mutex::new(new.state(disk.sector_size, new.incremental.then_some(100.0))),
            sku: new.sku,
        })
    }

    /// Deletes a disk, and ends access to it. Its snapshots stay.
    pub(crate) fn remove_disk(&mut self, entry: &Arc<DiskEntry>) {
        let key = entry.id.key();
        if self.disks.get(&key).is_some_and(|known| Arc::ptr_eq(known, entry)) {
            self.disks.remove(&key);
        }
        entry.end_transfer();
    }

    /// The disk of a name in the default resource group.
    pub(crate) fn disk_in_default_group(&self, name: &str) -> Option<Arc<DiskEntry>> {
        self.disks.get(&(DEFAULT_GROUP.to_owned(), name.to_lowercase())).cloned()
    }

    /// Makes a snapshot that is a copy of another one, in another place, and that is complete at some later time.
    pub(crate) fn copy_snapshot(
        &mut self,
        service: &Service,
        source: &Arc<SnapshotEntry>,
        id: ResourceId,
        location: String,
        new: NewSnapshot,
    ) -> Arc<SnapshotEntry> {
        let address = self.next_address(&id.name);
        let hidden = HiddenBlob::new(service, OF_INCREMENTAL, &address, source.exported());
        let time = service.clock.tick();
        let pages = hidden.take_snapshot(time);
        let family = if self.knobs.copy_keeps_family { source.family } else { None };
        let source_id = service.arm.id_of(&source.id);
        let created = self.next_created(time);
        let copy = self.insert_snapshot(SnapshotEntry {
            id,
            unique_id: unique_id(service),
            location,
            time,
            created,
            family: family.or_else(|| Some(unique_id(service))),
            creation: Creation {
                option: "CopyStart",
                source: Some((source_id, source.unique_id)),
                ..Creation::default()
            },
            hidden: Arc::new(hidden),
            pages,
            state: Mutex::new(new.state(source.state().sector_size, Some(0.0))),
            sku: new.sku,
        });
        self.copies.add(Arc::clone(&copy), Arc::clone(source));
        copy
    }

    /// Lets background copies get on up to now.
    pub(crate) fn settle(&mut self, now: Moment) {
        self.copies.settle(now, self.knobs.copy_percent_per_second);
    }

    /// Deletes a snapshot, if it is still there.
    pub(crate) fn remove_snapshot(&mut self, entry: &Arc<SnapshotEntry>, now: Moment) {
        // Copies of it that are complete by now stay so.
        self.settle(now);
        let key = entry.id.key();
        if self.snapshots.get(&key).is_some_and(|known| Arc::ptr_eq(known, entry)) {
            self.snapshots.remove(&key);
        }
        entry.erase();
    }

    fn insert_snapshot(&mut self, entry: SnapshotEntry) -> Arc<SnapshotEntry> {
        let entry = Arc::new(entry);
        if let Some(older) = self.snapshots.insert(entry.id.key(), Arc::clone(&entry)) {
            older.erase();
        }
        entry
    }

    fn id_of_new(&self, disk: &DiskEntry, new: &NewSnapshot) -> ResourceId {
        let group = new.group.clone().unwrap_or_else(|| disk.id.group.clone());
        let named = |name: String| ResourceId { kind: Kind::Snapshots, group: group.clone(), name };
        if let Some(name) = &new.name {
            return named(name.clone());
        }
        loop {
            let id = named(format!("{}-{}", disk.id.name, disk.next_number()));
            if !self.snapshots.contains_key(&id.key()) {
                return id;
            }
        }
    }

    /// What the address of a hidden blob is derived from: the name for the first, and a number besides for the next.
    pub(super) fn next_address(&mut self, name: &str) -> String {
        let made = self.addresses.entry(name.to_owned()).or_default();
        *made += 1;
        if *made == 1 { name.to_owned() } else { format!("{name}\n{made}") }
    }

    /// `timeCreated` of what is made at `time`: later than any before.
    fn next_created(&mut self, time: Moment) -> Moment {
        let wanted = time.moved_by_milliseconds(self.knobs.time_created_offset_ms);
        let created = self.created.map_or(wanted, |latest| wanted.max(latest.next()));
        self.created = Some(created);
        created
    }
}

fn unique_id(service: &Service) -> Uuid {
    let text = service.store.derived_text("unique id", &service.fresh_id().to_string(), 32);
    Uuid::try_parse(&text).unwrap_or_default()
}
