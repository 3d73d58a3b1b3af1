//! Get Blob and Get Blob Properties: the bytes of a blob or a snapshot, and what is known of it.

use std::ops::Range;

use hyper::StatusCode;

use super::Task;
use super::copy_blob::show_copy;
use super::metadata::show_metadata;
use crate::call::Call;
use crate::checksum::{crc64, crc64_text, md5, md5_text};
use crate::error::{ErrorCode, Failure, Outcome};
use crate::reply::{Reply, ReplyBody};
use crate::store::blob::{Blob, Content, Version};

/// The longest range for which the service computes a checksum.
const CHECKSUM_LIMIT: u64 = 4 << 20;

/// The checksum of a range that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WantedChecksum {
    Crc64,
    Md5,
}

pub(super) fn get_blob(task: &Task<'_>) -> Outcome<Reply> {
    let wanted = wanted_checksum(task)?;
    let asked = if task.request.call == Call::GetBlob { task.request.range()? } else { None };
    let blob = task.blob()?;
    let blob = blob.lock();
    let version = task.readable(&blob)?;
    let length = version.content.len();

    let range = match asked {
        Some(asked) => asked.within(length).ok_or(ErrorCode::InvalidRange)?,
        None => 0..length,
    };
    let partial = asked.is_some();
    let status = if partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut reply = Reply::new(status).with_validators(version);
    show_version(task, &mut reply, &blob, version);
    reply.set("content-length", &(range.end - range.start).to_string());
    if let Some(md5) = &version.content_headers.md5 {
        reply.set(if partial { "x-ms-blob-content-md5" } else { "content-md5" }, md5);
    }
    if partial {
        reply.set("content-range", &format!("bytes {}-{}/{length}", range.start, range.end - 1));
    }
    if task.request.call == Call::HeadBlob {
        return Ok(reply);
    }
    let body = body_of(version, &range);
    drop(blob);

    if let Some(wanted) = wanted {
        add_checksum(&mut reply, wanted, &body, &range)?;
    }
    reply.body = body;
    Ok(reply)
}

fn wanted_checksum(task: &Task<'_>) -> Outcome<Option<WantedChecksum>> {
    let crc64_name = "x-ms-range-get-content-crc64";
    let md5_name = "x-ms-range-get-content-md5";
    let wanted = match (task.request.flag_header(crc64_name)?, task.request.flag_header(md5_name)?) {
        (true, true) => return Err(ErrorCode::BothCrc64AndMd5RangeHeaderPresent.into()),
        (true, false) => Some((WantedChecksum::Crc64, crc64_name)),
        (false, true) => Some((WantedChecksum::Md5, md5_name)),
        (false, false) => None,
    };
    let Some((wanted, name)) = wanted else { return Ok(None) };
    if wanted == WantedChecksum::Crc64 && task.is_export() && !task.knobs.range_crc_on_export {
        return Err(Failure::unsupported_header(name));
    }
    if task.request.range()?.is_none() {
        return Err(Failure::bad_header(name, "true"));
    }
    Ok(Some(wanted))
}

fn add_checksum(
    reply: &mut Reply,
    wanted: WantedChecksum,
    body: &ReplyBody,
    range: &Range<u64>,
) -> Outcome<()> {
    if range.end - range.start > CHECKSUM_LIMIT {
        let name = match wanted {
            WantedChecksum::Crc64 => "x-ms-range-get-content-crc64",
            WantedChecksum::Md5 => "x-ms-range-get-content-md5",
        };
        return Err(Failure::bad_header(name, "true"));
    }
    let frames = match body {
        ReplyBody::Pages(view) => view.clone().collect(),
        ReplyBody::Whole(Some(bytes)) => vec![bytes.clone()],
        _ => Vec::new(),
    };
    match wanted {
        WantedChecksum::Crc64 => reply.set("x-ms-content-crc64", &crc64_text(crc64(&frames))),
        WantedChecksum::Md5 => reply.set("content-md5", &md5_text(md5(&frames))),
    }
    Ok(())
}

fn body_of(version: &Version, range: &Range<u64>) -> ReplyBody {
    match &version.content {
        Content::Pages(pages) => ReplyBody::Pages(pages.view(range.clone())),
        Content::Block(content) => ReplyBody::Whole(Some(content.slice(range.clone()))),
    }
}

/// The headers that tell what a blob, or a snapshot of it, is.
fn show_version(task: &Task<'_>, reply: &mut Reply, blob: &Blob, version: &Version) {
    let headers = &version.content_headers;
    let content_type = headers.content_type.as_deref().unwrap_or("application/octet-stream");
    reply.set("content-type", content_type);
    let optional = [
        ("content-encoding", &headers.encoding),
        ("content-language", &headers.language),
        ("content-disposition", &headers.disposition),
        ("cache-control", &headers.cache_control),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            reply.set(name, value);
        }
    }
    reply.set("accept-ranges", "bytes");
    reply.set("x-ms-blob-type", version.content.type_text());
    reply.set("x-ms-creation-time", &version.created.http_text());
    reply.set("x-ms-server-encrypted", "true");
    if let Content::Pages(_) = version.content {
        reply.set("x-ms-blob-sequence-number", &version.sequence_number.to_string());
    }
    show_metadata(reply, &version.metadata);
    if let Some(copy) = &version.copy {
        show_copy(reply, copy);
    }
    match task.request.snapshot() {
        Ok(Some(time)) if task.is_export() => show_export(task, reply, version, &time.snapshot_text()),
        Ok(Some(_)) => {}
        _ => {
            let state = blob.lease.state(task.now);
            reply.set("x-ms-lease-state", state.text());
            reply.set("x-ms-lease-status", state.status_text());
            if let Some(duration) = blob.lease.duration_text(task.now) {
                reply.set("x-ms-lease-duration", duration);
            }
        }
    }
}

/// A disk's snapshot looks like the target of an incremental copy.
fn show_export(task: &Task<'_>, reply: &mut Reply, version: &Version, time: &str) {
    let length = version.content.len();
    let copy = task.service.store.derived_text("copy", &format!("{}\n{time}", task.account.name), 32);
    reply.set("x-ms-incremental-copy", "true");
    reply.set("x-ms-copy-id", &copy);
    reply.set("x-ms-copy-status", "success");
    reply.set("x-ms-copy-progress", &format!("{length}/{length}"));
    reply.set("x-ms-copy-completion-time", &version.last_modified.http_text());
    reply.set("x-ms-copy-destination-snapshot", time);
}
