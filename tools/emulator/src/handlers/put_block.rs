//! Put Block: sends a block that becomes part of its blob when it is committed.
//!
//! Nothing of the blob changes by it, not its ETag either, and a blob that holds nothing else does not exist for readers.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::StatusCode;

use super::Task;
use super::put_page::{check_body, show_checksum};
use crate::body::RequestBody;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::reply::Reply;
use crate::store::blob::Blob;
use crate::store::blocks::BlockId;

/// The longest id, decoded.
const ID_LIMIT: usize = 64;

/// The most blocks that may wait.
const STAGED_LIMIT: usize = 100_000;

pub(super) fn put_block(task: &Task<'_>, body: &RequestBody) -> Outcome<Reply> {
    let id = block_id(task)?;
    if body.len() == 0 {
        return Err(Failure::bad_header("Content-Length", "0"));
    }
    check_body(task.request, body)?;
    task.refuse_snapshot()?;

    let blob = task.container()?.blob_or_new(&task.request.target.blob);
    let mut blob = blob.lock();
    blob.refuse_pages()?;
    blob.lease.check_write(task.now, task.lease_id()?)?;
    check_room(&blob, &id)?;
    blob.staged.insert(id, body.joined());
    let mut reply = Reply::new(StatusCode::CREATED).with("x-ms-request-server-encrypted", "true");
    show_checksum(&mut reply, task.request, body, false);
    Ok(reply)
}

fn block_id(task: &Task<'_>) -> Outcome<BlockId> {
    let name = "blockid";
    let text = task.request.param(name).unwrap_or_default();
    let bad = |reason| Failure::bad_parameter(name, text, reason);
    let id = BASE64_STANDARD.decode(text).map_err(|_| bad("Not a valid base64 string."))?;
    if id.is_empty() || id.len() > ID_LIMIT {
        return Err(bad("The id must have from 1 to 64 bytes."));
    }
    Ok(id)
}

/// The ids of all blocks that wait have one length.
fn check_room(blob: &Blob, id: &BlockId) -> Outcome<()> {
    if blob.staged.keys().next().is_some_and(|other| other.len() != id.len()) {
        return Err(ErrorCode::InvalidBlobOrBlock.into());
    }
    if blob.staged.len() >= STAGED_LIMIT && !blob.staged.contains_key(id) {
        return Err(ErrorCode::BlockCountExceedsLimit.into());
    }
    Ok(())
}
