//! A record that is made of what the base blob holds.

use futures::stream::{FuturesOrdered, StreamExt};

use super::Newest;
use super::mend::as_one;
use crate::azure::LARGEST_CHUNK;
use crate::azure::failure::CallResult;
use crate::base::Base;
use crate::copy::chunk::Source;
use crate::copy::frontier::{Counts, Written};
use crate::error::Result;
use crate::leaf::{LEAF, around};
use crate::progress::Progress;
use crate::range::PageRange;
use crate::step::Settings;
use crate::verify::{Allocated, whole};

/// Chunks that are read at once.
const PARALLEL: usize = 8;

/// Reads all that the base holds, and records it. What is not named in it is zero.
pub(super) async fn write(
    base: &mut Base,
    newest: &Newest,
    image: &Source,
    run: &str,
    settings: &Settings,
    progress: &Progress,
) -> Result<()> {
    let length = newest.marker.length;
    base.begin_whole_record(&newest.marker, run)?;
    progress.begin_verifying(length);
    let mut held = Allocated::of(image, whole(length)?, length, settings);
    let mut reading = FuturesOrdered::new();
    let mut at = 0;
    while at < length || !reading.is_empty() {
        if at < length && reading.len() < PARALLEL {
            let end = (at + LARGEST_CHUNK).min(length);
            if let Ok(chunk) = PageRange::new(at, end) {
                for range in whole_leaves(held.within(chunk).await?, length) {
                    reading.push_back(read(image, range));
                }
                progress.compared(chunk.len());
            }
            at = end;
        } else if let Some(read) = reading.next().await {
            base.record_part(&read?).await?;
        }
    }
    Ok(())
}

async fn read(image: &Source, range: PageRange) -> CallResult<Written> {
    let scanned = image.read(range, as_one()).await?;
    Ok(Written { range, crc: Some(scanned.crc), sums: Some(scanned.sums), counts: Counts::default() })
}

/// What is held, grown to whole leaves and joined into one, as long as the gap is short.
fn whole_leaves(held: Vec<PageRange>, length: u64) -> Vec<PageRange> {
    let mut joined: Vec<PageRange> = Vec::new();
    for range in held.into_iter().map(|range| around(range, length)) {
        match joined.last_mut() {
            Some(last) if range.start() <= last.end() + 16 * LEAF => {
                *last = PageRange::new(last.start(), last.end().max(range.end())).unwrap_or(*last);
            }
            _ => joined.push(range),
        }
    }
    joined
}
