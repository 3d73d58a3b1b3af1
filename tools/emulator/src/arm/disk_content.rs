//! What a new disk holds: nothing, a snapshot's content, a blob's, or what is uploaded to it.

use std::sync::atomic::Ordering;

use super::Task;
use super::input::Input;
use super::registry::State;
use super::reply::invalid;
use super::resource::{Creation, without_footer};
use super::snapshots::{check_complete, not_emulated};
use super::transfer::{check_vhd, invalid_vhd};
use crate::call::Role;
use crate::disk::check_size;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::source;
use crate::store::blob::Content;
use crate::store::pages::{PageData, Pages};
use crate::vhd::{FOOTER, Footer};

pub(super) const SOURCE_ID: &str = "/properties/creationData/sourceResourceId";
pub(super) const UPLOAD_SIZE: &str = "/properties/creationData/uploadSizeBytes";
pub(super) const SOURCE_URI: &str = "/properties/creationData/sourceUri";
const ACCOUNT_ID: &str = "/properties/creationData/storageAccountId";
const SECTOR_SIZE: &str = "/properties/creationData/logicalSectorSize";
const SIZE: &str = "/properties/diskSizeGB";

/// How long an upload may be, footer included.
const SHORTEST_UPLOAD: u64 = 20_972_032;
const LONGEST_UPLOAD: u64 = 35_183_298_347_520;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// What a disk is made of.
pub(super) struct NewContent {
    pub(super) creation: Creation,
    /// With the footer, where there is one.
    pub(super) pages: Pages,
    pub(super) sector_size: u32,
}

impl NewContent {
    fn of_vhd(creation: Creation, pages: Pages) -> NewContent {
        NewContent { creation, pages, sector_size: 512 }
    }
}

pub(super) fn new_content(
    task: &Task<'_>,
    state: &State,
    input: &Input,
    option: &str,
    location: &str,
) -> Outcome<NewContent> {
    match option {
        "Empty" => empty(task, input),
        "Copy" => copy(task, state, input, location),
        "Upload" => upload(input),
        "Import" => import(task, input),
        _ => Err(not_emulated(option)),
    }
}

/// A disk that holds nothing but, where it is exported as a VHD, its footer.
fn empty(task: &Task<'_>, input: &Input) -> Outcome<NewContent> {
    let gigabytes = input.number(SIZE)?.and_then(|number| u64::try_from(number).ok());
    let bytes = gigabytes.filter(|number| *number > 0).and_then(|number| number.checked_mul(GIB));
    let bytes = bytes.filter(|bytes| check_size(*bytes).is_ok());
    let bytes = bytes
        .ok_or_else(|| invalid("diskSizeGB", "The value of parameter 'diskSizeGB' is missing or invalid."))?;
    let sector_size = match input.number(SECTOR_SIZE)? {
        None | Some(512) => 512,
        Some(4096) => 4096,
        Some(other) => return Err(bad_sector_size(other)),
    };
    let mut pages = Pages::new(bytes + FOOTER);
    if sector_size == 512 {
        let id = task.service.fresh_id().into_bytes();
        pages.write(&PageData::of(bytes, Footer::new(bytes, task.now.seconds(), id).bytes()));
    } else {
        without_footer(&mut pages);
    }
    let creation = Creation { option: "Empty", ..Creation::default() };
    Ok(NewContent { creation, pages, sector_size })
}

/// A disk with what a snapshot in the same region holds.
fn copy(task: &Task<'_>, state: &State, input: &Input, location: &str) -> Outcome<NewContent> {
    let source = task.source_snapshot(state, input.required_text(SOURCE_ID)?)?;
    if source.location != location {
        return Err(invalid("location", "A disk must be in the region of its source."));
    }
    check_complete(&source)?;
    check_same_size(input, source.disk_bytes())?;
    let id = task.service.arm.id_of(&source.id);
    let creation = Creation { option: "Copy", source: Some((id, source.unique_id)), ..Creation::default() };
    Ok(NewContent { creation, pages: source.exported(), sector_size: source.state().sector_size })
}

/// A disk that waits for its content, which ends with a footer.
fn upload(input: &Input) -> Outcome<NewContent> {
    let name = "uploadSizeBytes";
    let Some(size) = input.number(UPLOAD_SIZE)? else {
        return Err(invalid(name, "Required parameter 'uploadSizeBytes' is missing (null)."));
    };
    if let Some(other) = input.number(SECTOR_SIZE)?.filter(|size| *size != 512) {
        return Err(bad_sector_size(other));
    }
    let bytes = u64::try_from(size).unwrap_or_default();
    if !(SHORTEST_UPLOAD..=LONGEST_UPLOAD).contains(&bytes) {
        let text =
            format!("The value '{size}' of '{name}' is not from {SHORTEST_UPLOAD} to {LONGEST_UPLOAD}.");
        return Err(invalid(name, text));
    }
    if bytes % MIB != FOOTER {
        let text =
            format!("The value '{size}' of '{name}' is not a whole number of MiB and a footer of 512 bytes.");
        return Err(invalid(name, text));
    }
    let creation = Creation { option: "Upload", upload_size: Some(bytes), ..Creation::default() };
    Ok(NewContent::of_vhd(creation, Pages::new(bytes)))
}

/// A disk with what a page blob holds, or a snapshot of one, in an account of this emulator, which stands for the region.
///
/// The blob is read in the name of its account: a SAS in the URL may be there, and is not looked at.
fn import(task: &Task<'_>, input: &Input) -> Outcome<NewContent> {
    let uri = input.required_text(SOURCE_URI)?;
    let account_id = input.required_text(ACCOUNT_ID)?;
    let bad_uri = |text: &str| invalid("sourceUri", text);
    let (target, snapshot) = source::own_blob(task.service, uri)
        .ok_or_else(|| bad_uri("The source blob is not in an account of the region of the disk."))?;
    let account_name = account_id.rsplit('/').next().unwrap_or_default();
    if !account_name.eq_ignore_ascii_case(&target.account) {
        let text = format!("The source blob is not in the storage account '{account_name}'.");
        return Err(invalid("storageAccountId", text));
    }
    let account = task.service.store.account(&target.account).filter(|account| account.role == Role::Account);
    let account = account.ok_or_else(|| {
        invalid("storageAccountId", format!("There is no storage account '{account_name}' in the region."))
    })?;
    if snapshot.is_some() && account.premium.load(Ordering::Relaxed) {
        return Err(bad_uri("Snapshots of page blobs in premium storage accounts cannot be imported."));
    }
    let blob = account.container(&target.container).and_then(|container| container.blob(&target.blob));
    let missing = || bad_uri("The source blob does not exist.");
    let blob = blob.ok_or_else(missing)?;
    let blob = blob.lock();
    let Content::Pages(pages) = &blob.version(snapshot).ok_or_else(missing)?.content else {
        return Err(bad_uri("The source blob is not a page blob."));
    };
    check_vhd(pages).map_err(|bad| invalid_vhd(uri.split('?').next().unwrap_or_default(), bad))?;
    let bytes = pages.len() - FOOTER;
    if !bytes.is_multiple_of(MIB) {
        let text = format!(
            "The specified VHD has an unsupported virtual size of {bytes} bytes. The size must be a whole number \
             (in MBs)."
        );
        return Err(Failure::from(ErrorCode::InvalidVhd).saying(text));
    }
    check_same_size(input, bytes)?;
    let blob = Some((shown_uri(uri), account_id.to_owned()));
    Ok(NewContent::of_vhd(Creation { option: "Import", blob, ..Creation::default() }, pages.clone()))
}

/// A source as replies show it: of its query only the snapshot is left.
pub(super) fn shown_uri(uri: &str) -> String {
    let (address, query) = uri.split_once('?').unwrap_or((uri, ""));
    match query.split('&').find(|part| part.starts_with("snapshot=")) {
        Some(snapshot) => format!("{address}?{snapshot}"),
        None => address.to_owned(),
    }
}

fn check_same_size(input: &Input, bytes: u64) -> Outcome<()> {
    match input.number(SIZE)? {
        Some(size) if u64::try_from(size) != Ok(bytes.div_ceil(GIB)) => {
            let text = "A disk of another size than its source is not served by this emulator.";
            Err(invalid("diskSizeGB", text))
        }
        _ => Ok(()),
    }
}

fn bad_sector_size(size: i64) -> Failure {
    invalid("logicalSectorSize", format!("The value '{size}' is invalid."))
}
