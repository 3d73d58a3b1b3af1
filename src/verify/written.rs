//! Before a step is sealed: what was written to the base blob is read back.
//!
//! A random part of the chunks that a run wrote is remembered with the checksums of their leaves as they came from the
//! source, and compared with what the base blob gives back. No byte of the source is read again.
//!
//! What the service pulled by itself (`server` mode) did not pass: of that both are read, the base blob and the source, and
//! this is all that proves it. So what an earlier run of the same step had pulled is not left out: its chunks are listed
//! again, and a random part of them is compared in the same way.

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
use crate::diff::Listing;
use crate::error::Result;
use crate::leaf::{LEAF, Sums, leaf_of, range_of};
use crate::plan::Planner;
use crate::progress::Progress;
use crate::range::{ExtentKind, PageRange};
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
    chunks: BTreeMap<u64, (PageRange, Option<Sums>)>,
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
        self.keep(written.range, written.sums.as_ref());
    }

    fn keep(&self, range: PageRange, sums: Option<&Sums>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.passed += 1;
        let number = mixed(self.seed ^ mixed(range.start()));
        let is_wanted =
            kept.chunks.len() < MOST || kept.chunks.last_key_value().is_some_and(|(last, _)| number < *last);
        if !is_wanted {
            return;
        }
        // Only what was cleared is longer than a chunk.
        let cut = range.split(range.start() + LARGEST_CHUNK).0;
        kept.chunks.insert(number, (cut.unwrap_or(range), sums.cloned()));
        if kept.chunks.len() > MOST {
            kept.chunks.pop_last();
        }
    }

    /// Those that are read back.
    fn sample(&self) -> Vec<(PageRange, Option<Sums>)> {
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

/// What a chunk of the base blob is held against.
enum Right<'a> {
    /// The checksums of what passed.
    Sums(Sums),
    /// What the source holds.
    Source(&'a Source),
}

/// Reads back what the settings say of a step that is written. Below `pulled_before` the service pulled bytes by itself in
/// earlier runs.
pub(crate) async fn read_back(
    base: &Base,
    survey: &Survey,
    pulled_before: Option<u64>,
    settings: &Settings,
    progress: &Progress,
) -> Result<ReadBack> {
    let mut sample = base.sampled().sample();
    if let Some(below) = pulled_before
        && settings.verify == Verify::Sample
    {
        sample.extend(earlier(survey, below, settings).await?);
    }
    if sample.is_empty() && settings.verify == Verify::Sample {
        return Ok(ReadBack::default());
    }
    let image = Source::Blob { blob: base.blob().clone(), sends_crc: sends_crc(base.blob()).await? };
    let source = &survey.source.at;
    let held = |sums: Option<Sums>| sums.map_or(Right::Source(source), Right::Sums);
    let sample = sample.into_iter().map(|(range, sums)| (range, held(sums))).collect();
    let done = check_all(&image, sample, progress).await?;
    if settings.verify != Verify::Full || done.wrong.is_some() {
        return Ok(done);
    }
    let source = source.clone();
    let length = survey.source.length;
    let (part, choice) = (whole(length)?, Choice::all());
    progress.begin_verifying(length);
    let walk = Walk { image, source: Some(source), length, part, choice, settings, progress };
    let tally = walk.to_end(&mut Records::None, 1).await?;
    Ok(ReadBack { bytes: tally.compared, wrong: tally.first() })
}

/// A random part of the data that earlier runs of the step had to copy: below their checkpoint the base blob equals the
/// source, whoever moved the bytes.
async fn earlier(survey: &Survey, below: u64, settings: &Settings) -> Result<Vec<(PageRange, Option<Sums>)>> {
    let (Source::Blob { blob, .. }, Ok(range)) = (&survey.source.at, PageRange::new(0, below)) else {
        return Ok(Vec::new());
    };
    let length = survey.source.length;
    let forced = survey.forced_pages().into_iter().filter(|page| page.end() <= below).collect();
    let mut listing = Listing::start(blob, &survey.against(), Some(range), length, forced, settings.listing);
    let mut planner = Planner::new(settings.plan, length);
    let kept = Reservoir::default();
    let mut chunks = Vec::new();
    loop {
        let extent = match listing.next().await {
            Ok(extent) => extent,
            Err(error) => return Err(survey.blame(error).await),
        };
        let Some(extent) = extent else { break };
        planner.push(extent, &mut chunks);
        for chunk in chunks.drain(..).filter(|chunk| chunk.kind == ExtentKind::Data) {
            kept.keep(chunk.range, None);
        }
    }
    planner.finish(&mut chunks);
    for chunk in chunks.iter().filter(|chunk| chunk.kind == ExtentKind::Data) {
        kept.keep(chunk.range, None);
    }
    Ok(kept.sample())
}

/// Reads `sample` back, and holds it against what passed.
pub(crate) async fn check_sample(
    base: &Source,
    sample: Vec<(PageRange, Sums)>,
    progress: &Progress,
) -> CallResult<ReadBack> {
    let sample = sample.into_iter().map(|(range, sums)| (range, Right::Sums(sums))).collect();
    check_all(base, sample, progress).await
}

/// Several chunks at once.
async fn check_all(
    base: &Source,
    mut sample: Vec<(PageRange, Right<'_>)>,
    progress: &Progress,
) -> CallResult<ReadBack> {
    sample.sort_unstable_by_key(|(range, _)| *range);
    let bytes = sample.iter().map(|(range, _)| range.len()).sum();
    progress.begin_verifying(bytes);
    let mut rest = sample.iter();
    let mut reading = FuturesOrdered::new();
    loop {
        if reading.len() < PARALLEL
            && let Some((range, right)) = rest.next()
        {
            reading.push_back(check(base, *range, right));
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

async fn check(base: &Source, range: PageRange, right: &Right<'_>) -> CallResult<(PageRange, Option<u64>)> {
    let as_one = ZeroRule { shortest_run: u64::MAX, trim_edges: false };
    let read;
    let sums = match right {
        Right::Sums(sums) => sums,
        Right::Source(source) => {
            read = source.read(range, as_one).await?.sums;
            &read
        }
    };
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
                    crc: Some(Crc64::default()),
                    sums: Some(Sums::Leaves(vec![number])),
                    counts: Counts::default(),
                });
            }
            let sample = reservoir.sample();
            assert_eq!(sample.len(), wanted);
            assert!(reservoir.kept.lock().unwrap().chunks.len() <= MOST);
            assert!(
                sample.iter().all(|(range, sums)| *sums == Some(Sums::Leaves(vec![range.start() / LEAF])))
            );
        }
    }
}
