//! Page lists that break the protocol.

use std::fmt::Write as _;
use std::iter::once;
use std::ops::Range;

use super::BadPageList;
use crate::range::{ByteRange, PAGE};
use crate::reply::Reply;
use crate::request::Request;

/// Bytes that a false clear takes.
const CLEARED: u64 = 64 << 10;
/// Pages that follow it, and how far apart.
const STREWN: u64 = 16;
const APART: u64 = 128 << 10;

/// Replaces the list in the reply to a page-list request by one that is wrong. Refusals are left alone.
pub(crate) fn spoil(reply: &mut Reply, request: &Request, how: BadPageList) {
    if reply.error.is_some() {
        return;
    }
    let length = reply.headers.get("x-ms-blob-content-length").and_then(|length| length.to_str().ok());
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(u64::MAX / 2);
    // Inside what was asked for, so that it is this fault that a client finds and no other.
    let range = request.range().ok().flatten();
    let start = range.and_then(|range: ByteRange| range.within(length)).map_or(0, |range| range.start);
    let mut xml = "<PageList>".to_owned();
    if how == BadPageList::FalseClear {
        // Far enough in front that a client may have acted on it when it finds the rest.
        let _ =
            write!(xml, "<ClearRange><Start>{start}</Start><End>{}</End></ClearRange>", start + CLEARED - 1);
    }
    for Range { start, end } in ranges(how, start, length) {
        let last = end - 1;
        // Writing to a string cannot fail.
        let _ = write!(xml, "<PageRange><Start>{start}</Start><End>{last}</End></PageRange>");
    }
    xml.push_str("</PageList>");
    reply.body = Reply::listing(&xml).body;
}

fn ranges(how: BadPageList, start: u64, length: u64) -> Vec<Range<u64>> {
    let pages = |from: u64, to: u64| start + from * PAGE..start + to * PAGE;
    match how {
        BadPageList::Overlapping => vec![pages(0, 2), pages(1, 3)],
        BadPageList::Misordered => vec![pages(2, 3), pages(0, 1)],
        BadPageList::Misaligned => once(start + 100..start + 100 + PAGE).collect(),
        BadPageList::OutOfBounds => once(length..length + PAGE).collect(),
        BadPageList::FalseClear => {
            // Each a chunk of its own, so that clients begin before they see the end.
            let strewn = (0..STREWN).map(|at| start + CLEARED + at * APART).map(|at| at..at + PAGE);
            strewn.chain(once(start..start + PAGE)).collect()
        }
    }
}
