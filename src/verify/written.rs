//! Before a step is sealed: what was written to the base blob is read back.
//!
//! A random part of the chunks that a run wrote is remembered with the checksums of their leaves as they came from the
//! source, and compared with what the base blob gives back. No byte of the source is read again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures::stream::{FuturesOrdered, StreamExt};

use super::choice::{Choice, any_seed, mixed};
use super::walk::{Records, Walk, whole};
use crate::azure::LARGEST_CHUNK;
use crate::azure::crc64::Crc64;
use crate::azure::failure::CallResult;
use crate::base::Base;
use crate::chain::Survey;
use crate::chain::survey::sends_crc;
use crate::copy::chunk::Source;
use crate::copy::frontier::Written;
use crate::copy::scan::ZeroRule;
use crate::error::Result;
use crate::leaf::{LEAF, Sums, leaf_of, range_of};
use crate::progress::Progress;
use crate::range::PageRange;
use crate::step::{Settings, Verify};

/// Chunks that are remembered: the most that are read back.
const MOST: usize = 64;
/// Chunks that are read back where there are as many.
const LEAST: u64 = 4;
/// One chunk of as many is read back.
const ONE_OF: u64 = 100;
/// Chunks that are read at once.
const PARALLEL: usize = 8;

/// A random part of what passed.
pub(crate) struct Reservoir {
    seed: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Those with the smallest numbers, which the seed gives them.
    chunks: BTreeMap<u64, (PageRange, Sums)>,
    passed: u64,
}

impl Default for Reservoir {
    fn default() -> Self {
        Self { seed: any_seed(), kept: Mutex::default() }
    }
}

impl Reservoir {
    /// A chunk was written.
    pub(crate) fn passed(&self, written: &Written) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.passed += 1;
        let number = mixed(self.seed ^ mixed(written.range.start()));
        let is_wanted =
            kept.chunks.len() < MOST || kept.chunks.last_key_value().is_some_and(|(last, _)| number < *last);
        if !is_wanted {
            return;
        }
        // Only what was cleared is longer than a chunk.
        let cut = written.range.split(written.range.start() + LARGEST_CHUNK).0;
        kept.chunks.insert(number, (cut.unwrap_or(written.range), written.sums.clone()));
        if kept.chunks.len() > MOST {
            kept.chunks.pop_last();
        }
    }

    /// Those that are read back.
    fn sample(&self) -> Vec<(PageRange, Sums)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = kept.passed.div_ceil(ONE_OF).max(LEAST);
        kept.chunks.values().take(usize::try_from(wanted).unwrap_or(MOST)).cloned().collect()
    }
}

/// What was compared, and where the base blob is not what it must be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadBack {
    /// Bytes of the base blob.
    pub(crate) bytes: u64,
    /// The first byte of the first page or leaf that is wrong.
    pub(crate) wrong: Option<u64>,
}

/// Reads back what the settings say of a step that is written.
pub(crate) async fn read_back(
    base: &Base,
    survey: &Survey,
    settings: &Settings,
    progress: &Progress,
) -> Result<ReadBack> {
    let sample = base.sampled().sample();
    if sample.is_empty() && settings.verify == Verify::Sample {
        return Ok(ReadBack::default());
    }
    let image = Source::Blob { blob: base.blob().clone(), sends_crc: sends_crc(base.blob()).await? };
    let done = check_sample(&image, sample, progress).await?;
    if settings.verify != Verify::Full || done.wrong.is_some() {
        return Ok(done);
    }
    let source = survey.source.at.clone();
    let length = survey.source.length;
    let (part, choice) = (whole(length)?, Choice::all());
    progress.begin_verifying(length);
    let walk = Walk { image, source: Some(source), length, part, choice, settings, progress };
    let tally = walk.to_end(&mut Records::None, 1).await?;
    Ok(ReadBack { bytes: tally.compared, wrong: tally.first() })
}

/// Reads `sample` back, several chunks at once.
pub(crate) async fn check_sample(
    base: &Source,
    mut sample: Vec<(PageRange, Sums)>,
    progress: &Progress,
) -> CallResult<ReadBack> {
    sample.sort_unstable_by_key(|(range, _)| *range);
    let bytes = sample.iter().map(|(range, _)| range.len()).sum();
    progress.begin_verifying(bytes);
    let mut rest = sample.iter();
    let mut reading = FuturesOrdered::new();
    loop {
        if reading.len() < PARALLEL
            && let Some((range, sums)) = rest.next()
        {
            reading.push_back(check(base, *range, sums));
            continue;
        }
        let Some(checked) = reading.next().await else { return Ok(ReadBack { bytes, wrong: None }) };
        let (range, wrong) = checked?;
        progress.compared(range.len());
        if wrong.is_some() {
            return Ok(ReadBack { bytes, wrong });
        }
    }
}

async fn check(base: &Source, range: PageRange, sums: &Sums) -> CallResult<(PageRange, Option<u64>)> {
    let as_one = ZeroRule { shortest_run: u64::MAX, trim_edges: false };
    let found = base.read(range, as_one).await?.sums;
    let wrong = (leaf_of(range.start())..range.end().div_ceil(LEAF)).enumerate().find(|(index, number)| {
        let length = range_of(*number, range.end()).map_or(LEAF, PageRange::len);
        sum_of(&found, *index, length) != sum_of(sums, *index, length)
    });
    Ok((range, wrong.map(|(_, number)| number * LEAF)))
}

fn sum_of(sums: &Sums, index: usize, length: u64) -> Option<u64> {
    match sums {
        Sums::Zeros => Some(Crc64::of_zeros(length).value()),
        Sums::Leaves(sums) => sums.get(index).copied(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::copy::frontier::Counts;

    #[test]
    fn what_is_remembered_is_bounded_and_one_of_a_hundred_is_read_back() {
        for (chunks, wanted) in [(0, 0), (1, 1), (4, 4), (300, 4), (1000, 10), (100_000, MOST)] {
            let reservoir = Reservoir::default();
            for number in 0..chunks {
                reservoir.passed(&Written {
                    range: PageRange::new(number * LEAF, (number + 1) * LEAF).unwrap(),
                    crc: Crc64::default(),
                    sums: Sums::Leaves(vec![number]),
                    counts: Counts::default(),
                });
            }
            let sample = reservoir.sample();
            assert_eq!(sample.len(), wanted);
            assert!(reservoir.kept.lock().unwrap().chunks.len() <= MOST);
            assert!(sample.iter().all(|(range, sums)| *sums == Sums::Leaves(vec![range.start() / LEAF])));
        }
    }
}
