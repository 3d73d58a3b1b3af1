//! Snapshots: get, create, change, delete.

use std::sync::Arc;

use hyper::StatusCode;

use super::access::outstanding;
use super::input::{Input, check_name};
use super::operations::Done;
use super::registry::{NewSnapshot, State};
use super::reply::invalid;
use super::resource::{DiskEntry, Kind, ResourceId, SnapshotEntry};
use super::route::Route;
use super::{Task, reply, view};
use crate::error::{ErrorCode, Failure, Outcome};
use crate::reply::Reply;

/// From this version on, `CopyStart` is known.
const COPY_START_SINCE: &str = "2020-12-01";

const CREATE_OPTION: &str = "/properties/creationData/createOption";
const SOURCE_ID: &str = "/properties/creationData/sourceResourceId";

pub(super) fn get(task: &Task<'_>, state: &State) -> Outcome<Reply> {
    let entry = task.snapshot(state)?;
    Ok(reply::json(StatusCode::OK, &view::snapshot(task.service, &entry, task.now)))
}

pub(super) fn put(task: &Task<'_>, state: &mut State, input: &Input) -> Outcome<Done> {
    let name = ResourceId { kind: Kind::Snapshots, group: task.group(state)?, name: task.route.name.clone() };
    check_name(&name.name)?;
    let location = input.location()?;
    let new = new_snapshot(&name, input)?;
    let option = input.required_text(CREATE_OPTION)?;
    if let Some(existing) = state.snapshots.get(&name.key()) {
        check_unchanged(task, existing, option, &new, input)?;
        return Ok(shown(task, existing));
    }
    let source = input.required_text(SOURCE_ID)?;
    let entry = match option {
        "Copy" => {
            let disk = task.source_disk(state, source)?;
            if disk.location != location {
                let text =
                    "A snapshot must be in the region of its source. Use CopyStart for another region.";
                return Err(invalid("location", text));
            }
            disk.check_filled()?;
            state.snapshot_disk(task.service, &disk, new)
        }
        "CopyStart" => copy_start(task, state, name, source, location, new)?,
        _ => return Err(not_emulated(option)),
    };
    Ok(shown(task, &entry))
}

/// Copies an incremental snapshot to another place.
fn copy_start(
    task: &Task<'_>,
    state: &mut State,
    name: ResourceId,
    source: &str,
    location: String,
    new: NewSnapshot,
) -> Outcome<Arc<SnapshotEntry>> {
    if task.version() < COPY_START_SINCE {
        return Err(invalid("createOption", "CopyStart is not supported by this api-version."));
    }
    let source = task.source_snapshot(state, source)?;
    if source.family.is_none() || !new.incremental {
        let text =
            "CopyStart is only supported for incremental snapshots: source and target must be incremental.";
        return Err(invalid("incremental", text));
    }
    check_complete(&source)?;
    let limit = state.knobs.copies_per_region;
    if state.copies.under_way(&location) >= limit {
        let text = format!(
            "At most {limit} incremental snapshots can be copied at the same time per subscription and region."
        );
        return Err(Failure::from(ErrorCode::OperationNotAllowed).saying(text));
    }
    Ok(state.copy_snapshot(task.service, &source, name, location, new))
}

pub(super) fn patch(task: &Task<'_>, state: &State, input: &Input) -> Outcome<Done> {
    let entry = task.snapshot(state)?;
    let tags = input.tags()?;
    let enabled = public_network_access(input)?;
    let policy = input.text("/properties/networkAccessPolicy")?;
    entry.change(|state| {
        if let Some(tags) = tags {
            state.tags = tags;
        }
        if let Some(enabled) = enabled {
            state.public_network_access = enabled;
        }
        if let Some(policy) = policy {
            policy.clone_into(&mut state.network_access_policy);
        }
    });
    Ok(Done::with(view::snapshot(task.service, &entry, task.now)))
}

pub(super) fn delete(task: &Task<'_>, state: &mut State) -> Outcome<Done> {
    let Ok(entry) = task.snapshot(state) else {
        task.group(state)?;
        return Ok(Done::without_body(StatusCode::NO_CONTENT));
    };
    if entry.has_managed_access(task.now) {
        return Err(outstanding("snapshot", &entry.id.name, "deleting the snapshot"));
    }
    state.remove_snapshot(&entry, task.now);
    Ok(Done::without_body(StatusCode::OK))
}

/// A snapshot that is still being copied can be neither read nor copied.
pub(super) fn check_complete(entry: &SnapshotEntry) -> Outcome<()> {
    let state = entry.state();
    if state.copy_error.is_none() && state.completion.is_none_or(|percent| percent >= 100.0) {
        return Ok(());
    }
    let text = format!(
        "The snapshot '{}' cannot be used until its background copy is complete: completionPercent is {}.",
        entry.id.name,
        state.completion.unwrap_or_default()
    );
    Err(Failure::from(ErrorCode::OperationNotAllowed).saying(text))
}

pub(super) fn not_emulated(option: &str) -> Failure {
    let text = format!("The createOption '{option}' is not served by this emulator.");
    Failure::from(ErrorCode::NotImplemented).with_status(StatusCode::BAD_REQUEST).saying(text)
}

fn shown(task: &Task<'_>, entry: &SnapshotEntry) -> Done {
    let body = view::snapshot(task.service, entry, task.now);
    let accepted = Some(view::in_the_making(body.clone()));
    Done { accepted, ..Done::with(body) }
}

fn new_snapshot(name: &ResourceId, input: &Input) -> Outcome<NewSnapshot> {
    let text =
        |pointer: &str, default: &str| input.text(pointer).map(|text| text.unwrap_or(default).to_owned());
    Ok(NewSnapshot {
        group: Some(name.group.clone()),
        name: Some(name.name.clone()),
        incremental: input.flag("/properties/incremental")?.unwrap_or(false),
        sku: text("/sku/name", "Standard_LRS")?,
        tags: input.tags()?.unwrap_or_default(),
        public_network_access: public_network_access(input)?.unwrap_or(true),
        network_access_policy: text("/properties/networkAccessPolicy", "AllowAll")?,
        data_access_auth_mode: input.text("/properties/dataAccessAuthMode")?.map(str::to_owned),
    })
}

fn public_network_access(input: &Input) -> Outcome<Option<bool>> {
    let Some(text) = input.text("/properties/publicNetworkAccess")? else { return Ok(None) };
    match text {
        "Enabled" => Ok(Some(true)),
        "Disabled" => Ok(Some(false)),
        _ => Err(invalid("publicNetworkAccess", format!("The value '{text}' is invalid."))),
    }
}

/// A PUT of a snapshot that exists may repeat what it was made of, and change its tags.
fn check_unchanged(
    task: &Task<'_>,
    existing: &SnapshotEntry,
    option: &str,
    new: &NewSnapshot,
    input: &Input,
) -> Outcome<()> {
    let source = input.text(SOURCE_ID)?.unwrap_or_default();
    let has = existing.creation.source.as_ref().map_or("", |(id, _)| id.as_str());
    let changed = if existing.creation.option != option {
        "creationData.createOption"
    } else if !has.eq_ignore_ascii_case(source) {
        "creationData.sourceResourceId"
    } else if existing.family.is_some() != new.incremental {
        "incremental"
    } else {
        if let Some(tags) = input.tags()? {
            existing.change(|state| state.tags = tags);
        }
        return Ok(());
    };
    let text = format!("Changing property '{changed}' is not allowed: '{}'.", task.route.name);
    Err(Failure::from(ErrorCode::PropertyChangeNotAllowed).saying(text))
}

impl Task<'_> {
    /// The snapshot that the request addresses.
    pub(super) fn snapshot(&self, state: &State) -> Outcome<Arc<SnapshotEntry>> {
        let group = self.group(state)?;
        let name = ResourceId { kind: Kind::Snapshots, group, name: self.route.name.clone() };
        state.snapshots.get(&name.key()).cloned().ok_or_else(|| missing(&name))
    }

    fn source_disk(&self, state: &State, id: &str) -> Outcome<Arc<DiskEntry>> {
        let name = self.source_name(id, Kind::Disks)?;
        state.disks.get(&name.key()).cloned().ok_or_else(|| missing(&name))
    }

    pub(super) fn source_snapshot(&self, state: &State, id: &str) -> Outcome<Arc<SnapshotEntry>> {
        let name = self.source_name(id, Kind::Snapshots)?;
        state.snapshots.get(&name.key()).cloned().ok_or_else(|| missing(&name))
    }

    fn source_name(&self, id: &str, kind: Kind) -> Outcome<ResourceId> {
        let own = self.service.arm.subscription.to_string();
        let name = Route::parse_id(id)
            .filter(|(subscription, name)| subscription.eq_ignore_ascii_case(&own) && name.kind == kind);
        name.map(|(_, name)| name).ok_or_else(|| {
            let kind = kind.text();
            invalid("sourceResourceId", format!("'{id}' is no id of one of the {kind} of this subscription."))
        })
    }
}

/// 404 of a disk or a snapshot.
pub(super) fn missing(name: &ResourceId) -> Failure {
    let text = format!(
        "The Resource 'Microsoft.Compute/{}/{}' under resource group '{}' was not found. For more details please \
         go to https://aka.ms/ARMResourceNotFoundFix",
        name.kind.text(),
        name.name,
        name.group
    );
    Failure::from(ErrorCode::ResourceNotFound).saying(text)
}
