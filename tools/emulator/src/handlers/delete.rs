//! Delete Blob: a blob with or without its snapshots, the snapshots alone, or one snapshot.

use hyper::StatusCode;

use super::Task;
use crate::conditions::{Conditions, Purpose};
use crate::error::{ErrorCode, Failure, Outcome};
use crate::reply::Reply;
use crate::store::lease::Lease;

pub(super) fn delete_blob(task: &Task<'_>) -> Outcome<Reply> {
    let name = "x-ms-delete-snapshots";
    let snapshots = task.request.header(name)?;
    if let Some(other) = snapshots.filter(|value| !["include", "only"].contains(value)) {
        return Err(Failure::bad_header(name, other));
    }
    let conditions = Conditions::of(task.request)?;
    let blob = task.blob()?;
    let mut blob = blob.lock();

    if let Some(time) = task.request.snapshot()? {
        if let Some(value) = snapshots {
            return Err(Failure::bad_header(name, value));
        }
        let snapshot = blob.snapshots.get(&time).ok_or(ErrorCode::BlobNotFound)?;
        conditions.check(Purpose::Write, Some(snapshot.validators()))?;
        blob.snapshots.remove(&time);
        return Ok(deleted());
    }

    let live = blob.live.as_ref().ok_or(ErrorCode::BlobNotFound)?;
    blob.lease.check_write(task.now, task.lease_id()?)?;
    conditions.check(Purpose::Write, Some(live.validators()))?;
    if snapshots.is_none() && !blob.snapshots.is_empty() {
        return Err(ErrorCode::SnapshotsPresent.into());
    }
    blob.snapshots.clear();
    if snapshots != Some("only") {
        blob.live = None;
        blob.staged.clear();
        blob.lease = Lease::default();
    }
    Ok(deleted())
}

fn deleted() -> Reply {
    Reply::new(StatusCode::ACCEPTED).with("x-ms-delete-type-permanent", "true")
}
