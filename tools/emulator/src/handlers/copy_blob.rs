//! Copy Blob and its relatives.
//!
//! A copy is finished when its reply is sent: its status is always `success`, and there is never anything to abort.
//! What it makes is a new blob under the old name, so snapshots that were taken before cannot be compared with it.

use hyper::{StatusCode, Uri};

use super::Task;
use super::metadata::sent_metadata;
use crate::body::RequestBody;
use crate::call::Role;
use crate::conditions::{Conditions, Purpose};
use crate::error::{ErrorCode, Failure, Outcome};
use crate::reply::Reply;
use crate::request::Target;
use crate::source::{SOURCE_HEADER, Source};
use crate::store::blob::{Blob, Content, CopyRecord, Version};

pub(super) fn copy_blob(task: &Task<'_>, body: &RequestBody) -> Outcome<Reply> {
    let Some(Source::Blob(source)) = &body.source else { return Err(ErrorCode::InternalError.into()) };
    // Copy Blob From URL, the synchronous form, is for block blobs.
    let is_synchronous = task.request.flag_header("x-ms-requires-sync")?;
    if is_synchronous && matches!(source.content, Content::Pages(_)) {
        return Err(ErrorCode::InvalidBlobType.into());
    }
    let metadata = sent_metadata(task.request)?;
    let metadata = if metadata.is_empty() { source.metadata.clone() } else { metadata };

    let blob = task.container()?.blob_or_new(&task.request.target.blob);
    let mut blob = blob.lock();
    check_destination(task, &blob)?;
    if blob.live.as_ref().is_some_and(|live| live.content.type_text() != source.content.type_text()) {
        return Err(ErrorCode::InvalidBlobType.into());
    }
    let tick = task.service.clock.tick();
    let copy = CopyRecord {
        id: task.service.fresh_id(),
        source: task.request.required_header(SOURCE_HEADER)?.to_owned(),
        bytes: source.content.len(),
        completed: tick,
    };
    let reply = Reply::new(StatusCode::ACCEPTED)
        .with("x-ms-copy-id", copy.id.to_string())
        .with("x-ms-copy-status", "success");
    let version = Version {
        content: task.account.adopt(source.content.clone()),
        content_headers: source.content_headers.clone(),
        metadata,
        sequence_number: source.sequence_number,
        created: tick,
        etag: tick,
        last_modified: tick,
        incarnation: tick,
        copy: Some(copy),
    };
    let reply = reply.with_validators(&version);
    blob.overwrite(version, task.now);
    Ok(reply)
}

/// Checks the destination. This is done again when the source is there: the blob may have changed by then.
pub(super) fn check(task: &Task<'_>) -> Outcome<()> {
    task.request.flag_header("x-ms-requires-sync")?;
    sent_metadata(task.request)?;
    match task.container()?.blob(&task.request.target.blob) {
        Some(blob) => check_destination(task, &blob.lock()),
        None => check_destination(task, &Blob::default()),
    }
}

fn check_destination(task: &Task<'_>, blob: &Blob) -> Outcome<()> {
    task.refuse_snapshot()?;
    if blob.live.is_some() && !task.permit.has('w') {
        return Err(ErrorCode::AuthorizationPermissionMismatch.into());
    }
    blob.lease.check_write(task.now, task.lease_id()?)?;
    if blob.lease.duration_text(task.now) == Some("fixed") {
        return Err(ErrorCode::InfiniteLeaseDurationRequired.into());
    }
    let conditions = Conditions::of(task.request)?;
    if conditions.only_if_absent() && blob.live.is_some() {
        return Err(ErrorCode::BlobAlreadyExists.into());
    }
    let met = conditions.check(Purpose::Write, blob.live.as_ref().map(Version::validators));
    met.map_err(|failure| match failure.code {
        ErrorCode::ConditionNotMet => ErrorCode::TargetConditionNotMet.into(),
        _ => failure,
    })
}

/// Shows in a blob's properties where it came from.
pub(super) fn show_copy(reply: &mut Reply, copy: &CopyRecord) {
    reply.set("x-ms-copy-id", &copy.id.to_string());
    reply.set(SOURCE_HEADER, &copy.source);
    reply.set("x-ms-copy-status", "success");
    reply.set("x-ms-copy-progress", &format!("{0}/{0}", copy.bytes));
    reply.set("x-ms-copy-completion-time", &copy.completed.http_text());
}

pub(super) fn abort_copy(task: &Task<'_>) -> Outcome<Reply> {
    let name = "x-ms-copy-action";
    let action = task.request.required_header(name)?;
    if !action.eq_ignore_ascii_case("abort") {
        return Err(Failure::bad_header(name, action));
    }
    if task.request.param("copyid").is_none_or(str::is_empty) {
        return Err(Failure::bad_parameter("copyid", "", "The id of the copy is missing."));
    }
    let blob = task.blob()?;
    let mut blob = blob.lock();
    task.writable(&mut blob)?;
    Err(ErrorCode::NoPendingCopyOperation.into())
}

/// Incremental Copy Blob takes no snapshot of a managed disk, and that is what matters to clients of this emulator. Its
/// other use, between ordinary blobs, would need a blob that nobody may write or read, and is left out.
pub(super) fn incremental_copy(task: &Task<'_>) -> Outcome<Reply> {
    let url = task.request.required_header(SOURCE_HEADER)?;
    let bad = || Failure::bad_header(SOURCE_HEADER, url);
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let host_is_disk = uri.host().is_some_and(|host| Role::of_account(host) == Role::DiskExport);
    let target = Target::parse(uri.path()).map_err(|_| bad())?;
    if host_is_disk || Role::of_account(&target.account) == Role::DiskExport {
        return Err(bad());
    }
    Err(ErrorCode::NotImplemented.into())
}
