//! Snapshot Blob.

use hyper::StatusCode;

use super::Task;
use super::metadata::sent_metadata;
use crate::conditions::{Conditions, Purpose};
use crate::error::{ErrorCode, Outcome};
use crate::reply::Reply;

/// A lease id is only a condition here, so a snapshot can be taken without it even of a leased blob.
pub(super) fn snapshot_blob(task: &Task<'_>) -> Outcome<Reply> {
    let metadata = sent_metadata(task.request)?;
    let conditions = Conditions::of(task.request)?;
    task.refuse_snapshot()?;
    let blob = task.blob()?;
    let mut blob = blob.lock();
    let live = blob.live.as_ref().ok_or(ErrorCode::BlobNotFound)?;
    blob.lease.check_read(task.now, task.lease_id()?)?;
    conditions.check(Purpose::Write, Some(live.validators()))?;

    let time = task.service.clock.tick();
    let snapshot = blob.take_snapshot(time).ok_or(ErrorCode::BlobNotFound)?;
    if !metadata.is_empty() {
        // Metadata of its own makes the snapshot differ from its blob, and so do its ETag and time.
        snapshot.metadata = metadata;
        snapshot.touch(time);
    }
    let reply = Reply::new(StatusCode::CREATED).with_validators(snapshot);
    Ok(reply.with("x-ms-snapshot", time.snapshot_text()).with("x-ms-request-server-encrypted", "false"))
}
