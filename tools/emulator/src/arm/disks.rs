//! Disks: get, create, delete.

use std::sync::Arc;

use hyper::StatusCode;

use super::input::{Input, check_name};
use super::operations::Done;
use super::registry::{NewDisk, State};
use super::reply::invalid;
use super::resource::{Creation, DiskEntry, Kind, ResourceId, without_footer};
use super::snapshots::{check_complete, missing, not_emulated};
use super::{Task, reply, view};
use crate::disk::check_size;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::reply::Reply;
use crate::store::pages::{PageData, Pages};
use crate::vhd::{FOOTER, Footer};

const CREATE_OPTION: &str = "/properties/creationData/createOption";
const SOURCE_ID: &str = "/properties/creationData/sourceResourceId";
const SECTOR_SIZE: &str = "/properties/creationData/logicalSectorSize";
const SIZE: &str = "/properties/diskSizeGB";

pub(super) fn get(task: &Task<'_>, state: &State) -> Outcome<Reply> {
    let entry = task.disk(state)?;
    Ok(reply::json(StatusCode::OK, &view::disk(task.service, &entry)))
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
    let (creation, pages, sector_size) = match option {
        "Empty" => empty(task, input)?,
        "Copy" => copy(task, state, input, &location)?,
        _ => return Err(not_emulated(option)),
    };
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

/// Its snapshots stay, and so does what is behind them.
pub(super) fn delete(task: &Task<'_>, state: &mut State) -> Outcome<Done> {
    let Ok(entry) = task.disk(state) else {
        task.group(state)?;
        return Ok(Done::without_body(StatusCode::NO_CONTENT));
    };
    state.remove_disk(&entry);
    Ok(Done::without_body(StatusCode::OK))
}

/// A disk that holds nothing but, where it is exported as a VHD, its footer.
fn empty(task: &Task<'_>, input: &Input) -> Outcome<(Creation, Pages, u32)> {
    let gigabytes = input.number(SIZE)?.and_then(|number| u64::try_from(number).ok());
    let bytes = gigabytes.filter(|number| *number > 0).and_then(|number| number.checked_mul(1 << 30));
    let bytes = bytes.filter(|bytes| check_size(*bytes).is_ok());
    let bytes = bytes
        .ok_or_else(|| invalid("diskSizeGB", "The value of parameter 'diskSizeGB' is missing or invalid."))?;
    let sector_size = match input.number(SECTOR_SIZE)? {
        None | Some(512) => 512,
        Some(4096) => 4096,
        Some(other) => return Err(invalid("logicalSectorSize", format!("The value '{other}' is invalid."))),
    };
    let mut pages = Pages::new(bytes + FOOTER);
    if sector_size == 512 {
        let id = task.service.fresh_id().into_bytes();
        pages.write(&PageData::of(bytes, Footer::new(bytes, task.now.seconds(), id).bytes()));
    } else {
        without_footer(&mut pages);
    }
    Ok((Creation { option: "Empty", source: None }, pages, sector_size))
}

/// A disk with what a snapshot in the same region holds.
fn copy(task: &Task<'_>, state: &State, input: &Input, location: &str) -> Outcome<(Creation, Pages, u32)> {
    let source = task.source_snapshot(state, input.required_text(SOURCE_ID)?)?;
    if source.location != location {
        return Err(invalid("location", "A disk must be in the region of its source."));
    }
    check_complete(&source)?;
    let gigabytes = source.disk_bytes().div_ceil(1 << 30);
    if input.number(SIZE)?.is_some_and(|size| u64::try_from(size) != Ok(gigabytes)) {
        return Err(invalid(
            "diskSizeGB",
            "A disk of another size than its source is not served by this emulator.",
        ));
    }
    let id = task.service.arm.id_of(&source.id);
    let creation = Creation { option: "Copy", source: Some((id, source.unique_id)) };
    Ok((creation, source.exported(), source.state().sector_size))
}

/// A PUT of a disk that exists may repeat what it was made of.
fn check_unchanged(existing: &DiskEntry, option: &str, input: &Input) -> Outcome<()> {
    let source = input.text(SOURCE_ID)?.unwrap_or_default();
    let has = existing.creation.source.as_ref().map_or("", |(id, _)| id.as_str());
    if existing.creation.option == option && has.eq_ignore_ascii_case(source) {
        return Ok(());
    }
    let text = "Changing property 'creationData' is not allowed.";
    Err(Failure::from(ErrorCode::PropertyChangeNotAllowed).saying(text))
}

fn shown(task: &Task<'_>, entry: &DiskEntry) -> Done {
    let body = view::disk(task.service, entry);
    let accepted = Some(view::in_the_making(body.clone()));
    Done { accepted, ..Done::with(body) }
}

impl Task<'_> {
    fn disk(&self, state: &State) -> Outcome<Arc<DiskEntry>> {
        let group = self.group(state)?;
        let name = ResourceId { kind: Kind::Disks, group, name: self.route.name.clone() };
        state.disks.get(&name.key()).cloned().ok_or_else(|| missing(&name))
    }
}
