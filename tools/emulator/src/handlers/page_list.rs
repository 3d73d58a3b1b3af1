//! Get Page Ranges, and its form that compares with an older snapshot.
//!
//! An ordinary account names the older snapshot by time (`prevsnapshot`). An export account takes a whole URL with a SAS
//! of its own (`x-ms-previous-snapshot-url`), which must be of the same hidden blob and must be valid itself.

use std::fmt::Write as _;
use std::ops::Range;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Uri;

use super::Task;
use crate::auth::sas;
use crate::clock::Moment;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::range::{PAGE, round_outwards};
use crate::reply::Reply;
use crate::request::Target;
use crate::store::blob::{Blob, Content, Version};
use crate::store::diff::{Extent, ExtentKind, allocated, changes, cut};
use crate::store::pages::Pages;

const URL_HEADER: &str = "x-ms-previous-snapshot-url";

/// The version that introduced the header.
const URL_HEADER_SINCE: &str = "2019-07-07";

/// The most elements of one reply.
const MAXRESULTS_LIMIT: usize = 10_000;

/// Disks up to this size and disks above it are stored differently, and cannot be compared.
const DIFF_BOUNDARY: u64 = 4 << 40;

pub(super) fn page_list(task: &Task<'_>) -> Outcome<Reply> {
    let older_time = previous_snapshot(task)?;
    let maxresults = maxresults(task)?;
    let marker = marker(task)?;
    let blob = task.blob()?;
    let blob = blob.lock();
    let version = task.readable(&blob)?;
    let newer = pages_of(version)?.clone();
    let older = match older_time {
        Some(time) => Some(older_pages(task, &blob, version, time)?.clone()),
        None => None,
    };
    let reply = Reply::new(hyper::StatusCode::OK).with_validators(version);
    drop(blob);

    let window = window(task, newer.len(), marker)?;
    let enough = maxresults.unwrap_or(usize::MAX);
    let mut extents = match &older {
        Some(older) => changes(&newer, older, &window, &task.knobs, enough),
        None => allocated(&newer, &window, enough),
    };
    if let Some(unit) = task.knobs.page_list_cut {
        extents = cut(&extents, unit);
    }
    let more = maxresults.is_some_and(|most| extents.len() > most);
    extents.truncate(enough);
    if task.knobs.page_list_timeout_elements.is_some_and(|most| extents.len() > most) {
        return Err(ErrorCode::OperationTimedOut.into());
    }
    let next = extents.last().filter(|_| more).map(|last| last.range.end);
    let mut listing = Reply::listing(&xml(&extents, next));
    listing.headers.extend(reply.headers);
    Ok(listing.with("x-ms-blob-content-length", newer.len().to_string()))
}

/// The time of the older snapshot, if the request compares.
fn previous_snapshot(task: &Task<'_>) -> Outcome<Option<Moment>> {
    let time = task.request.time_param("prevsnapshot")?;
    let url = task.request.header(URL_HEADER)?;
    match (time, url) {
        (None, None) => Ok(None),
        (Some(_), Some(url)) => Err(Failure::bad_header(URL_HEADER, url)),
        (Some(time), None) if !task.is_export() => Ok(Some(time)),
        (Some(time), None) => {
            let reason = "Snapshots of managed disks are compared by URL.";
            Err(Failure::bad_parameter("prevsnapshot", &time.snapshot_text(), reason))
        }
        (None, Some(_)) if !task.is_export() => {
            let failure = Failure::from(ErrorCode::UnsupportedHeaderForNonManagedDisksAccount);
            Err(failure.element("HeaderName", URL_HEADER))
        }
        (None, Some(url)) => previous_url(task, url).map(Some),
    }
}

/// Checks the older snapshot's URL as a request to it would be checked.
fn previous_url(task: &Task<'_>, url: &str) -> Outcome<Moment> {
    if !task.request.version_is_at_least(URL_HEADER_SINCE)? {
        return Err(Failure::unsupported_header(URL_HEADER));
    }
    let malformed = || Failure::bad_header(URL_HEADER, url);
    let uri: Uri = url.parse().map_err(|_| malformed())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(malformed());
    }
    let target = Target::parse(uri.path()).map_err(|_| malformed())?;
    let query = crate::request::parse_query(&uri);
    let account = task.service.store.account(&target.account);
    let account = account.ok_or(ErrorCode::PreviousSnapshotNotFound)?;
    sas::check_grant(&account, &target, &query, task.now)?;
    if target != task.request.target {
        return Err(ErrorCode::PreviousSnapshotNotFound.into());
    }
    let time = query.get("snapshot").and_then(|time| Moment::from_iso(time));
    time.ok_or_else(malformed)
}

fn older_pages<'b>(task: &Task<'_>, blob: &'b Blob, newer: &Version, time: Moment) -> Outcome<&'b Pages> {
    if task.request.snapshot()?.is_some_and(|newer| newer < time) {
        return Err(ErrorCode::PreviousSnapshotCannotBeNewer.into());
    }
    let older = blob.snapshots.get(&time).ok_or(ErrorCode::PreviousSnapshotNotFound)?;
    if older.incarnation != newer.incarnation {
        return Err(ErrorCode::BlobOverwritten.into());
    }
    let is_large = |version: &Version| version.content.len() > DIFF_BOUNDARY + PAGE;
    if task.is_export() && is_large(older) != is_large(newer) {
        return Err(ErrorCode::PreviousSnapshotOperationNotSupported.into());
    }
    pages_of(older)
}

fn pages_of(version: &Version) -> Outcome<&Pages> {
    match &version.content {
        Content::Pages(pages) => Ok(pages),
        Content::Block(_) => Err(ErrorCode::InvalidBlobType.into()),
    }
}

/// The pages to be looked at: the range asked for, from where the marker says.
fn window(task: &Task<'_>, length: u64, marker: Option<u64>) -> Outcome<Range<u64>> {
    let mut window = 0..length;
    if let Some(asked) = task.request.range()? {
        let text = task.request.header("x-ms-range")?.unwrap_or_default();
        if task.knobs.page_list_range_must_align && !asked.is_aligned() {
            return Err(Failure::bad_header("x-ms-range", text));
        }
        if task.knobs.page_list_range_must_fit && asked.ends_past(length) {
            return Err(ErrorCode::InvalidRange.into());
        }
        let inside = asked.within(length).ok_or(ErrorCode::InvalidRange)?;
        window = round_outwards(&inside, PAGE, length);
    }
    if let Some(marker) = marker {
        if !(window.start..=window.end).contains(&marker) {
            let text = task.request.param("marker").unwrap_or_default();
            return Err(Failure::bad_parameter("marker", text, "The marker is not of this list."));
        }
        window.start = marker;
    }
    Ok(window)
}

/// How many elements the reply may hold; no limit if neither the request nor a knob sets one.
fn maxresults(task: &Task<'_>) -> Outcome<Option<usize>> {
    let Some(text) = task.request.param("maxresults") else { return Ok(task.knobs.default_maxresults) };
    match text.parse::<usize>() {
        Ok(most) if most > 0 => Ok(Some(most.min(MAXRESULTS_LIMIT))),
        _ => Err(Failure::bad_parameter("maxresults", text, "The value must be a positive number.")),
    }
}

/// The offset from which the list goes on.
fn marker(task: &Task<'_>) -> Outcome<Option<u64>> {
    let Some(text) = task.request.param("marker").filter(|text| !text.is_empty()) else { return Ok(None) };
    let offset = marker_offset(text);
    let offset = offset.ok_or_else(|| Failure::bad_parameter("marker", text, "The marker is malformed."))?;
    Ok(Some(offset))
}

/// `2!16!MDAwMDA0ITIwNDgh`: a base64 text with its length before it; in the text `000004!2048!`, an offset with its own.
fn marker_text(offset: u64) -> String {
    let digits = offset.to_string();
    let inner = BASE64_STANDARD.encode(format!("{:06}!{digits}!", digits.len()));
    format!("2!{}!{inner}", inner.len())
}

fn marker_offset(text: &str) -> Option<u64> {
    let (_, inner) = text.strip_prefix("2!")?.split_once('!')?;
    let inner = String::from_utf8(BASE64_STANDARD.decode(inner).ok()?).ok()?;
    let (_, digits) = inner.strip_suffix('!')?.split_once('!')?;
    let offset: u64 = digits.parse().ok()?;
    (offset.is_multiple_of(PAGE) && marker_text(offset) == text).then_some(offset)
}

fn xml(extents: &[Extent], next: Option<u64>) -> String {
    let mut xml = String::with_capacity(64 * extents.len() + 64);
    xml.push_str("<PageList>");
    for Extent { kind, range } in extents {
        let name = match kind {
            ExtentKind::Data => "PageRange",
            ExtentKind::Clear => "ClearRange",
        };
        let (start, last) = (range.start, range.end - 1);
        // Writing to a string cannot fail.
        let _ = write!(xml, "<{name}><Start>{start}</Start><End>{last}</End></{name}>");
    }
    if let Some(next) = next {
        let _ = write!(xml, "<NextMarker>{}</NextMarker>", marker_text(next));
    }
    xml.push_str("</PageList>");
    xml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_have_the_recorded_form() {
        assert_eq!(marker_text(2048), "2!16!MDAwMDA0ITIwNDgh");
        assert_eq!(marker_offset("2!16!MDAwMDA0ITIwNDgh"), Some(2048));
        assert_eq!(marker_offset(&marker_text(8 << 40)), Some(8 << 40));
        for wrong in ["", "2048", "2!15!MDAwMDA0ITIwNDgh", "2!16!MDAwMDA0ITIwNDkh", "2!4!%%%%"] {
            assert_eq!(marker_offset(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn elements_are_interleaved_and_ends_inclusive() {
        let extents = [
            Extent { kind: ExtentKind::Data, range: 0..512 },
            Extent { kind: ExtentKind::Clear, range: 512..1024 },
        ];
        let expected = "<PageList><PageRange><Start>0</Start><End>511</End></PageRange>\
             <ClearRange><Start>512</Start><End>1023</End></ClearRange></PageList>";
        assert_eq!(xml(&extents, None), expected);
        assert_eq!(xml(&[], None), "<PageList></PageList>");
    }
}
