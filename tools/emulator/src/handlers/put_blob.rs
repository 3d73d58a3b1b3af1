//! Put Blob: creates a page blob that holds nothing, or a block blob with the body as its content.
//!
//! Writing over a blob keeps its snapshots and its lease, but they cannot be compared with the new blob.

use hyper::StatusCode;

use super::Task;
use super::metadata::sent_metadata;
use super::set_properties::{sent_content_headers, sent_length};
use crate::body::RequestBody;
use crate::conditions::Conditions;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::reply::Reply;
use crate::store::blob::{Content, Version};
use crate::store::blocks::BlockContent;
use crate::store::pages::Pages;

pub(super) fn put_blob(task: &Task<'_>, body: &RequestBody) -> Outcome<Reply> {
    let (content, sequence_number) = new_content(task, body)?;
    let metadata = sent_metadata(task.request)?;
    let mut content_headers = sent_content_headers(task.request)?;
    if content_headers.content_type.is_none() {
        content_headers.content_type = task.request.header("content-type")?.map(str::to_owned);
    }
    let conditions = Conditions::of(task.request)?;
    task.refuse_snapshot()?;

    let blob = task.container()?.blob_or_new(&task.request.target.blob);
    let mut blob = blob.lock();
    task.check_overwrite(&blob, &conditions)?;

    let tick = task.service.clock.tick();
    let is_block = matches!(content, Content::Block(_));
    let version = Version {
        content: task.account.adopt(content),
        content_headers,
        metadata,
        sequence_number,
        created: tick,
        etag: tick,
        last_modified: tick,
        incarnation: tick,
        copy: None,
    };
    let mut reply = Reply::new(StatusCode::CREATED)
        .with_validators(&version)
        .with("x-ms-request-server-encrypted", "true");
    if is_block {
        reply.set("content-md5", &crate::checksum::md5_text(body.md5()));
        reply.set("x-ms-content-crc64", &crate::checksum::crc64_text(body.crc64()));
    }
    blob.overwrite(version, task.now);
    Ok(reply)
}

/// The content to be stored, and its sequence number.
fn new_content(task: &Task<'_>, body: &RequestBody) -> Outcome<(Content, u64)> {
    let request = task.request;
    let blob_type = request.required_header("x-ms-blob-type")?;
    match blob_type {
        "PageBlob" => {
            let length =
                sent_length(request)?.ok_or_else(|| Failure::missing_header("x-ms-blob-content-length"))?;
            if body.len() > 0 {
                return Err(Failure::bad_header("Content-Length", &body.len().to_string()));
            }
            let sequence_number = request.number_header("x-ms-blob-sequence-number")?.unwrap_or(0);
            Ok((Content::Pages(Pages::new(length)), sequence_number))
        }
        "BlockBlob" => {
            super::put_page::check_body(request, body)?;
            Ok((Content::Block(BlockContent::whole(body.joined())), 0))
        }
        "AppendBlob" => Err(ErrorCode::NotImplemented.into()),
        _ => Err(Failure::bad_header("x-ms-blob-type", blob_type)),
    }
}
