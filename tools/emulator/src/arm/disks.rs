//! Disks: get, create, change, delete.

use std::sync::Arc;

use hyper::StatusCode;

use super::access::outstanding;
use super::disk_content::{NewContent, SOURCE_ID, SOURCE_URI, UPLOAD_SIZE, new_content, shown_uri};
use super::input::{Input, check_name};
use super::operations::Done;
use super::registry::{NewDisk, State};
use super::resource::{DiskEntry, Kind, ResourceId};
use super::snapshots::missing;
use super::{Task, reply, view};
use crate::error::{ErrorCode, Failure, Outcome};
use crate::reply::Reply;

const CREATE_OPTION: &str = "/properties/creationData/createOption";

pub(super) fn get(task: &Task<'_>, state: &State) -> Outcome<Reply> {
    let entry = task.disk(state)?;
    Ok(reply::json(StatusCode::OK, &view::disk(task.service, &entry, task.now)))
}

pub(super) fn put(task: &Task<'_>, state: &mut State, input: &Input) -> Outcome<Done> {
    let name = ResourceId { kind: Kind::Disks, group: task.group(state)?, name: task.route.name.clone() };
    check_name(&name.name)?;
    let location = input.location()?;
    let option = input.required_text(CREATE_OPTION)?;
    if let Some(existing) = state.disks.get(&name.key()) {
        check_unchanged(existing, option, input)?;
        return Ok(shown(task, existing));
    }
    let NewContent { creation, pages, sector_size } = new_content(task, state, input, option, &location)?;
    let new = NewDisk {
        group: name.group,
        name: name.name,
        location,
        sku: input.text("/sku/name")?.unwrap_or("Standard_LRS").to_owned(),
        tags: input.tags()?.unwrap_or_default(),
        creation,
        sector_size,
        pages,
    };
    let entry = state.add_disk(task.service, new).ok_or(ErrorCode::InternalError)?;
    Ok(shown(task, &entry))
}

pub(super) fn patch(task: &Task<'_>, state: &State, input: &Input) -> Outcome<Done> {
    let entry = task.disk(state)?;
    if let Some(tags) = input.tags()? {
        entry.set_tags(tags);
    }
    Ok(Done::with(view::disk(task.service, &entry, task.now)))
}

/// Its snapshots stay, and so does what is behind them.
pub(super) fn delete(task: &Task<'_>, state: &mut State) -> Outcome<Done> {
    let Ok(entry) = task.disk(state) else {
        task.group(state)?;
        return Ok(Done::without_body(StatusCode::NO_CONTENT));
    };
    if entry.has_managed_access(task.now) {
        return Err(outstanding("disk", &entry.id.name, "deleting the disk"));
    }
    state.remove_disk(&entry);
    Ok(Done::without_body(StatusCode::OK))
}

/// A PUT of a disk that exists may repeat what it was made of, and change its tags.
fn check_unchanged(existing: &DiskEntry, option: &str, input: &Input) -> Outcome<()> {
    let had = &existing.creation;
    let source = input.text(SOURCE_ID)?.unwrap_or_default();
    let blob = input.text(SOURCE_URI)?.map(shown_uri);
    let size = input.number(UPLOAD_SIZE)?.and_then(|size| u64::try_from(size).ok());
    let is_same = had.option == option
        && had.source.as_ref().map_or("", |(id, _)| id.as_str()).eq_ignore_ascii_case(source)
        && had.blob.as_ref().map(|(uri, _)| uri) == blob.as_ref()
        && had.upload_size == size;
    if !is_same {
        let text = "Changing property 'creationData' is not allowed.";
        return Err(Failure::from(ErrorCode::PropertyChangeNotAllowed).saying(text));
    }
    if let Some(tags) = input.tags()? {
        existing.set_tags(tags);
    }
    Ok(())
}

fn shown(task: &Task<'_>, entry: &DiskEntry) -> Done {
    let body = view::disk(task.service, entry, task.now);
    let accepted = Some(view::in_the_making(body.clone()));
    Done { accepted, ..Done::with(body) }
}

impl Task<'_> {
    /// The disk that the request addresses.
    pub(super) fn disk(&self, state: &State) -> Outcome<Arc<DiskEntry>> {
        let group = self.group(state)?;
        let name = ResourceId { kind: Kind::Disks, group, name: self.route.name.clone() };
        state.disks.get(&name.key()).cloned().ok_or_else(|| missing(&name))
    }
}
