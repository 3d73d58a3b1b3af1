//! Put Page: writes pages, or clears them. Also the check of a body against the checksum that came with it.

use std::ops::Range;

use hyper::StatusCode;

use super::{Task, Writable};
use crate::body::{PUT_PAGE_LIMIT, RequestBody};
use crate::checksum::{BadChecksum, crc64_text, md5_text, parse_crc64, parse_md5};
use crate::error::{ErrorCode, Failure, Outcome};
use crate::range::ByteRange;
use crate::reply::Reply;
use crate::request::Request;
use crate::store::pages::PageData;

pub(super) fn put_page(task: &Task<'_>, body: &RequestBody) -> Outcome<Reply> {
    let write = task.request.required_header("x-ms-page-write")?;
    if !write.eq_ignore_ascii_case("update") {
        return Err(Failure::bad_header("x-ms-page-write", write));
    }
    let range = page_range(task.request)?;
    if range.end - range.start > PUT_PAGE_LIMIT {
        return Err(ErrorCode::RequestBodyTooLarge.into());
    }
    if range.end - range.start != body.len() {
        return Err(ErrorCode::InvalidPageRange.into());
    }
    check_body(task.request, body)?;
    let mut reply = store(task, &range, &body.data)?;
    if !task.is_export() || task.knobs.upload_takes_crc64 {
        show_checksum(&mut reply, task.request, body, task.knobs.put_page_returns_md5);
    }
    Ok(reply)
}

/// Tells one checksum of what was sent: that which came with it, and if none did, the one that is preferred.
pub(super) fn show_checksum(reply: &mut Reply, request: &Request, body: &RequestBody, prefers_md5: bool) {
    let sent = |name: &str| request.headers.contains_key(name);
    if sent("content-md5") || (prefers_md5 && !sent("x-ms-content-crc64")) {
        reply.set("content-md5", &md5_text(body.md5()));
    } else {
        reply.set("x-ms-content-crc64", &crc64_text(body.crc64()));
    }
}

/// Writes pages whose checksum is right, and begins the reply.
pub(super) fn store(task: &Task<'_>, range: &Range<u64>, data: &PageData) -> Outcome<Reply> {
    let blob = task.blob()?;
    let mut blob = blob.lock();
    let mut writable = checked(task, task.writable(&mut blob)?, range)?;
    writable.pages()?.write(data);
    let sequence_number = writable.version.sequence_number;
    let reply = writable.changed(task, StatusCode::CREATED);
    let reply = reply.with("x-ms-blob-sequence-number", sequence_number.to_string());
    Ok(reply.with("x-ms-request-server-encrypted", "true"))
}

pub(super) fn clear_pages(task: &Task<'_>, body: &RequestBody) -> Outcome<Reply> {
    let range = page_range(task.request)?;
    if body.len() > 0 {
        return Err(Failure::bad_header("Content-Length", &body.len().to_string()));
    }
    let blob = task.blob()?;
    let mut blob = blob.lock();
    let mut writable = checked(task, task.writable(&mut blob)?, &range)?;
    writable.pages()?.clear(range);
    let sequence_number = writable.version.sequence_number;
    let reply = writable.changed(task, StatusCode::CREATED);
    Ok(reply.with("x-ms-blob-sequence-number", sequence_number.to_string()))
}

/// The range of a page write: both ends given, whole pages.
pub(super) fn page_range(request: &Request) -> Outcome<Range<u64>> {
    let range = request.range()?.ok_or_else(|| Failure::missing_header("x-ms-range"))?;
    let aligned = Some(range).filter(|range| range.is_aligned()).and_then(ByteRange::closed);
    aligned.ok_or_else(|| ErrorCode::InvalidPageRange.into())
}

/// What a page write asks of the blob besides lease and conditions.
pub(super) fn checked<'b>(
    task: &Task<'_>,
    mut writable: Writable<'b>,
    range: &Range<u64>,
) -> Outcome<Writable<'b>> {
    let length = writable.pages()?.len();
    check_sequence_number(task.request, writable.version.sequence_number)?;
    if range.end > length {
        return Err(ErrorCode::InvalidPageRange.into());
    }
    Ok(writable)
}

fn check_sequence_number(request: &Request, actual: u64) -> Outcome<()> {
    let at_most = request.number_header("x-ms-if-sequence-number-le")?;
    let below = request.number_header("x-ms-if-sequence-number-lt")?;
    let equal = request.number_header("x-ms-if-sequence-number-eq")?;
    let met = at_most.is_none_or(|limit| actual <= limit)
        && below.is_none_or(|limit| actual < limit)
        && equal.is_none_or(|number| actual == number);
    if met { Ok(()) } else { Err(ErrorCode::SequenceNumberConditionNotMet.into()) }
}

/// The headers in which a request may tell the checksum of data.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChecksumHeaders {
    pub(super) md5: &'static str,
    pub(super) crc64: &'static str,
}

/// Those about a request's body.
const OF_BODY: ChecksumHeaders = ChecksumHeaders { md5: "content-md5", crc64: "x-ms-content-crc64" };

/// Compares a body with the checksum in its request's headers.
pub(super) fn check_body(request: &Request, body: &RequestBody) -> Outcome<()> {
    check_data(request, OF_BODY, &body.data)
}

/// Compares data with the checksum that a request tells of it.
pub(super) fn check_data(request: &Request, names: ChecksumHeaders, data: &PageData) -> Outcome<()> {
    match (request.header(names.md5)?, request.header(names.crc64)?) {
        (Some(_), Some(_)) => Err(ErrorCode::BothCrc64AndMd5HeaderPresent.into()),
        (Some(md5), None) => {
            let expected = parse_md5(md5).map_err(|_| ErrorCode::InvalidMd5)?;
            let computed = data.md5();
            if expected == computed { Ok(()) } else { Err(ErrorCode::Md5Mismatch.into()) }
        }
        (None, Some(crc64)) => {
            let expected = parse_crc64(crc64).map_err(|bad| match bad {
                BadChecksum::NotBase64 => ErrorCode::InvalidCrc64.into(),
                BadChecksum::WrongLength => Failure::bad_header(names.crc64, crc64),
            })?;
            let computed = data.crc64();
            if expected == computed {
                return Ok(());
            }
            Err(Failure::from(ErrorCode::Crc64Mismatch)
                .element("UserSpecifiedCrc", crc64)
                .element("ServerCalculatedCrc", crc64_text(computed)))
        }
        (None, None) => Ok(()),
    }
}
