//! Where an image on this machine differs from a point: leaf by leaf, by their checksums, without reading the point.

use futures::StreamExt;
use futures::stream::FuturesOrdered;

use super::{Chain, Expect, RecordId};
use crate::azure::crc64::Crc64;
use crate::azure::failure::CallResult;
use crate::azure::{PageBlob, Role};
use crate::copy::chunk::{local, scan_aside};
use crate::copy::scan::ZeroRule;
use crate::diff::{Feed, Listing};
use crate::error::Result;
use crate::image::{ImageReader, ImageWriter};
use crate::leaf::{LEAF, Sums, leaf_of, range_of};
use crate::range::{Extent, ExtentKind, PageRange};

/// Bytes that are looked at in one piece.
const WINDOW: u64 = 4 << 20;
/// Pieces that are read at once.
const PARALLEL: usize = 4;

/// The image on this machine.
#[derive(Clone, Debug)]
pub enum Held {
    /// It is copied: what is in it counts.
    Source(ImageReader),
    /// It is brought up to date: what the point holds counts.
    Target(ImageWriter),
}

/// A point with its records.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The base blob.
    pub base: PageBlob,
    /// The record that the point names.
    pub record: RecordId,
    /// Length of the point in bytes.
    pub length: u64,
}

/// Lists where an image of `length` bytes differs from `point`, from byte `from` on. Where no record says what the point
/// holds, it counts as different. Without a point, everything that the image holds is listed.
pub fn changes(held: Held, point: Option<Recorded>, from: u64, length: u64) -> Listing {
    let work = move |feed| async move {
        match point {
            Some(point) => compare(&held, &point, from, length, &feed).await,
            None => list(&held, from, length, &feed).await,
        }
    };
    Listing::fed(length.saturating_sub(from), work)
}

async fn list(held: &Held, from: u64, length: u64, feed: &Feed) -> CallResult<()> {
    for window in windows(from, length, 256 * WINDOW) {
        for range in held.data_ranges(window).await.map_err(|error| held.failed(error))? {
            if !feed.send(Extent { range, kind: ExtentKind::Data }).await {
                return Ok(());
            }
        }
        feed.looked_at(window.len());
    }
    Ok(())
}

async fn compare(held: &Held, point: &Recorded, from: u64, length: u64, feed: &Feed) -> CallResult<()> {
    let failed = |error| local(Role::Target, point.base.resource(), error);
    let mut chain = Chain::open(&point.base, &point.record).await.map_err(failed)?;
    let mut ahead = windows(from, length, WINDOW);
    let mut reading = FuturesOrdered::new();
    loop {
        while reading.len() < PARALLEL
            && let Some(window) = ahead.next()
        {
            let expected = chain.window(window).await.map_err(failed)?;
            reading.push_back(look(held.clone(), window, expected, length));
        }
        let Some(looked) = reading.next().await else { break };
        let (window, differing) = looked.map_err(|error| held.failed(error))?;
        for extent in differing {
            if !feed.send(extent).await {
                return Ok(());
            }
        }
        feed.looked_at(window.len());
    }
    // A record that turns out to be damaged at its end has said nothing that counts.
    chain.finish().await.map_err(failed)
}

/// What differs in a window.
async fn look(
    held: Held,
    window: PageRange,
    expected: Vec<Expect>,
    length: u64,
) -> Result<(PageRange, Vec<Extent>)> {
    let is_all_zeros = expected.iter().all(|expect| *expect == Expect::Zeros);
    if is_all_zeros && held.data_ranges(window).await?.is_empty() {
        return Ok((window, Vec::new()));
    }
    let frames = held.read(window).await?;
    let rule = ZeroRule { shortest_run: LEAF, trim_edges: true };
    let sums = match scan_aside(window, frames, rule).await {
        Some(scanned) => scanned.sums,
        None => return Err(super::not_scanned()),
    };
    let mut extents: Vec<Extent> = Vec::new();
    for (index, expect) in expected.into_iter().enumerate() {
        let Some(leaf) = range_of(leaf_of(window.start()) + index as u64, length) else { break };
        let zeros = Crc64::of_zeros(leaf.len());
        let sum = match &sums {
            Sums::Zeros => zeros,
            Sums::Leaves(sums) => sums.get(index).map_or(zeros, |sum| Crc64::from_parts(*sum, leaf.len())),
        };
        if expect.is_met_by(sum, leaf.len()) == Some(true) {
            continue;
        }
        let will_be_zeros = match held {
            Held::Source(_) => sum == zeros,
            Held::Target(_) => expect == Expect::Zeros,
        };
        let kind = if will_be_zeros { ExtentKind::Clear } else { ExtentKind::Data };
        match extents.last_mut() {
            Some(last) if last.kind == kind && last.range.end() == leaf.start() => {
                last.range = PageRange::new(last.range.start(), leaf.end()).unwrap_or(last.range);
            }
            _ => extents.push(Extent { range: leaf, kind }),
        }
    }
    Ok((window, extents))
}

impl Held {
    async fn read(&self, range: PageRange) -> Result<Vec<bytes::Bytes>> {
        match self {
            Self::Source(image) => image.read(range).await,
            Self::Target(image) => image.read(range).await,
        }
    }

    /// Where it may hold data.
    async fn data_ranges(&self, range: PageRange) -> Result<Vec<PageRange>> {
        match self {
            Self::Source(image) => image.data_ranges(range).await,
            Self::Target(_) => Ok(vec![range]),
        }
    }

    fn failed(&self, error: crate::error::Error) -> crate::azure::CallError {
        match self {
            Self::Source(image) => local(Role::Source, image.path(), error),
            Self::Target(image) => local(Role::Target, image.path().display(), error),
        }
    }
}

fn windows(from: u64, length: u64, size: u64) -> impl Iterator<Item = PageRange> + Send {
    let mut rest = PageRange::new(from / LEAF * LEAF, length).ok();
    std::iter::from_fn(move || {
        let range = rest?;
        let (window, next) = range.split((range.start() / size + 1) * size);
        rest = next;
        window
    })
}
