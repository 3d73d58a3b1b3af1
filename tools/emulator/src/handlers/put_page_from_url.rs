//! Put Page From URL: writes pages that the service reads from elsewhere, with a body that was fetched before.

use std::ops::Range;

use super::Task;
use super::put_page::{ChecksumHeaders, check_data, checked, page_range, store};
use crate::body::{PUT_PAGE_LIMIT, RequestBody};
use crate::checksum::{crc64, crc64_text, md5, md5_text};
use crate::error::{ErrorCode, Failure, Outcome};
use crate::range::ByteRange;
use crate::reply::Reply;
use crate::request::Request;
use crate::source::Source;

const OF_SOURCE: ChecksumHeaders =
    ChecksumHeaders { md5: "x-ms-source-content-md5", crc64: "x-ms-source-content-crc64" };

/// What is to be read, and where it is to be written; both have the same length.
#[derive(Clone, Debug)]
pub(crate) struct UrlRanges {
    pub(crate) source: Range<u64>,
    pub(crate) pages: Range<u64>,
}

pub(super) fn put_page_from_url(task: &Task<'_>, body: &RequestBody) -> Outcome<Reply> {
    let ranges = ranges(task.request)?;
    let Some(Source::Pages(data)) = &body.source else { return Err(ErrorCode::InternalError.into()) };
    check_data(task.request, OF_SOURCE, data)?;
    let mut reply = store(task, &ranges.pages, data)?;
    let crc64_sent = task.request.headers.contains_key(OF_SOURCE.crc64);
    let md5_sent = task.request.headers.contains_key(OF_SOURCE.md5);
    if crc64_sent || (task.knobs.put_page_from_url_returns_crc64 && !md5_sent) {
        reply.set("x-ms-content-crc64", &crc64_text(crc64(data.pieces())));
    } else {
        reply.set("content-md5", &md5_text(md5(data.pieces())));
    }
    Ok(reply)
}

/// Checks the headers and the blob. The blob is checked again when the pages are there: it may have changed by then.
pub(super) fn check(task: &Task<'_>) -> Outcome<UrlRanges> {
    let ranges = ranges(task.request)?;
    let blob = task.blob()?;
    checked(task, task.writable(&mut blob.lock())?, &ranges.pages)?;
    Ok(ranges)
}

fn ranges(request: &Request) -> Outcome<UrlRanges> {
    let write = request.required_header("x-ms-page-write")?;
    if !write.eq_ignore_ascii_case("update") {
        return Err(Failure::bad_header("x-ms-page-write", write));
    }
    if let Some(length) = request.content_length()?.filter(|length| *length > 0) {
        return Err(Failure::bad_header("Content-Length", &length.to_string()));
    }
    let pages = page_range(request)?;
    // Only where pages are written must they be whole: a source may be any bytes.
    let name = "x-ms-source-range";
    let text = request.required_header(name)?;
    let source = ByteRange::parse(text).and_then(ByteRange::closed);
    let source = source.ok_or_else(|| Failure::bad_header(name, text))?;
    if pages.end - pages.start > PUT_PAGE_LIMIT {
        return Err(ErrorCode::RequestBodyTooLarge.into());
    }
    if pages.end - pages.start != source.end - source.start {
        return Err(ErrorCode::InvalidPageRange.into());
    }
    Ok(UrlRanges { source, pages })
}
