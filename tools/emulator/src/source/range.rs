//! One range of a source, read into pieces for the pages that it is to become.

use std::ops::Range;

use hyper::{Method, StatusCode};
use reqwest::RequestBuilder;

use super::remote::{Remote, number};
use super::{refused, unverified};
use crate::error::Outcome;
use crate::handlers::UrlRanges;
use crate::store::pages::PageData;

/// The bytes that Put Page From URL is to write.
pub(super) async fn fetch(remote: &Remote<'_>, ranges: &UrlRanges) -> Outcome<PageData> {
    let request = remote.with_conditions(remote.request(Method::GET, "")?)?;
    read(remote, request, &ranges.source, ranges.pages.start).await
}

/// Reads exactly `range`, for pages from `start` on.
pub(super) async fn read(
    remote: &Remote<'_>,
    request: RequestBuilder,
    range: &Range<u64>,
    start: u64,
) -> Outcome<PageData> {
    let length = range.end - range.start;
    let range_text = format!("bytes={}-{}", range.start, range.end - 1);
    let request = request.header("x-ms-range", range_text);
    let mut response = remote.send(request, StatusCode::PARTIAL_CONTENT).await?;
    if number(response.headers(), "content-length").is_some_and(|told| told < length) {
        // The source ends inside the range.
        return Err(refused(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange"));
    }
    let mut data = PageData::at(start);
    while let Some(bytes) = response.chunk().await.map_err(|_| unverified())? {
        if data.len() + bytes.len() as u64 > length {
            return Err(unverified());
        }
        data.push(&bytes);
    }
    data.finish();
    if data.len() == length { Ok(data) } else { Err(unverified()) }
}
