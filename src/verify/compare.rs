//! Compares a point with its source, byte for byte, by reading both.

use futures::stream::{FuturesOrdered, StreamExt, TryStreamExt};
use serde::Serialize;

use crate::azure::failure::CallResult;
use crate::azure::{LARGEST_CHUNK, PageBlob};
use crate::diff::Listing;
use crate::error::{Error, ErrorKind, Result};
use crate::range::{PAGE, PageRange};

/// What a comparison found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Bytes that were compared on each side.
    pub bytes: u64,
    /// Whether all of them, and the lengths, are equal.
    pub identical: bool,
    /// The first page that differs (byte offset).
    pub first_difference: Option<u64>,
}

/// Reads `length` bytes of both and compares them; `parallel` ranges at a time.
///
/// # Errors
/// When one of them cannot be read. A difference is not an error.
pub async fn compare(one: &PageBlob, other: &PageBlob, parallel: usize) -> Result<Comparison> {
    let (length, other_length) = (one.properties().await?.length, other.properties().await?.length);
    if length != other_length {
        let first_difference = Some(length.min(other_length));
        return Ok(Comparison { bytes: 0, identical: false, first_difference });
    }
    let whole = PageRange::new(0, length)
        .map_err(|error| Error::new(ErrorKind::SourceUnsuitable, "compare two images", error.to_string()))?;
    let first_difference = futures::stream::iter(chunks(whole))
        .map(|range| compare_chunk(one, other, range))
        .buffered(parallel.max(1))
        .try_fold(None, |first: Option<u64>, found| std::future::ready(Ok(first.or(found))))
        .await?;
    Ok(Comparison { bytes: length, identical: first_difference.is_none(), first_difference })
}

/// Reads what `changes` lists in both, and tells the first page that differs; `parallel` ranges at a time.
pub(crate) async fn first_difference(
    one: &PageBlob,
    other: &PageBlob,
    changes: &mut Listing,
    parallel: usize,
) -> CallResult<Option<u64>> {
    // A loop and not a chain of combinators, whose futures the compiler does not find to be `Send`.
    let mut rest: Box<dyn Iterator<Item = PageRange> + Send> = Box::new(std::iter::empty());
    let mut reading = FuturesOrdered::new();
    let (mut listed_all, mut first) = (false, None);
    while first.is_none() {
        if reading.len() >= parallel.max(1) || listed_all && !reading.is_empty() {
            first = reading.try_next().await?.flatten();
        } else if let Some(range) = rest.next() {
            reading.push_back(compare_chunk(one, other, range));
        } else if listed_all {
            break;
        } else if let Some(extent) = changes.next().await? {
            rest = Box::new(chunks(extent.range));
        } else {
            listed_all = true;
        }
    }
    Ok(first)
}

async fn compare_chunk(one: &PageBlob, other: &PageBlob, range: PageRange) -> CallResult<Option<u64>> {
    let (one, other) = futures::try_join!(one.read(range), other.read(range))?;
    let (one, other) = (one.concat(), other.concat());
    if one == other {
        return Ok(None);
    }
    let page = usize::try_from(PAGE).unwrap_or(usize::MAX);
    let differing = one.chunks(page).zip(other.chunks(page)).position(|(one, other)| one != other);
    Ok(differing.map(|index| range.start() + index as u64 * PAGE))
}

fn chunks(whole: PageRange) -> impl Iterator<Item = PageRange> {
    let mut rest = Some(whole);
    std::iter::from_fn(move || {
        let (chunk, next) = rest?.split(rest?.start() + LARGEST_CHUNK);
        rest = next;
        chunk
    })
}
