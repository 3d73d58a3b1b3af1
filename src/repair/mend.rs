//! The right bytes, to where the wrong ones are.

use futures::stream::{FuturesOrdered, StreamExt};

use super::{Newest, TRIED};
use crate::azure::crc64::Crc64;
use crate::azure::failure::CallError;
use crate::azure::{LARGEST_CHUNK, PageBlob};
use crate::base::{self, Base};
use crate::copy::chunk::{Route, Source};
use crate::copy::frontier::Written;
use crate::copy::scan::ZeroRule;
use crate::error::{Error, ErrorKind, Result};
use crate::leaf::{LEAF, Sums, around, range_of};
use crate::plan::Chunk;
use crate::progress::Progress;
use crate::range::{ExtentKind, PAGE, PageRange};
use crate::record::Chain;
use crate::step::Settings;
use crate::verify::check_sample;

/// Chunks that are written at once.
const PARALLEL: usize = 8;

/// What is to be written, as whole leaves and no longer than a chunk.
pub(super) fn chunks(wrong: &[PageRange], length: u64, chunk: u64) -> Vec<PageRange> {
    let chunk = chunk.next_multiple_of(LEAF).clamp(LEAF, LARGEST_CHUNK);
    let mut found: Vec<PageRange> = Vec::new();
    for range in wrong.iter().map(|range| around(*range, length)) {
        // Two pages of one leaf are one.
        let done = found.last().map_or(0, |last| last.end());
        let mut rest = PageRange::new(range.start().max(done), range.end()).ok();
        while let Some(long) = rest {
            let (first, next) = long.split(long.start() + chunk);
            found.extend(first);
            rest = next;
        }
    }
    found
}

/// Reads the bytes of another point, and holds them against the record, before anything is written. Gives the checksums of
/// what is right.
pub(super) async fn prove(
    blob: &PageBlob,
    newest: &Newest,
    side: &Source,
    length: u64,
    chunks: &[PageRange],
) -> Result<Vec<Sums>> {
    let refuse = |at: u64| {
        let why =
            format!("the point does not have the right bytes either: its record has others at byte {at}");
        Err(Error::new(ErrorKind::Differs, TRIED, why)
            .on(side)
            .next("try another point (snapferry points --target <URL>), or the source: --source <SAS URL>"))
    };
    let Some(record) = &newest.marker.record else {
        let why = "what another point holds can only be trusted where a record proves it, and there is none";
        return Err(Error::new(ErrorKind::NotFound, TRIED, why)
            .on(blob.resource())
            .next("give the source: --source <SAS URL>"));
    };
    let mut chain = Chain::open(blob, record).await?;
    let mut proven = Vec::new();
    for chunk in chunks {
        if chunk.end() > length {
            return refuse(chunk.start());
        }
        let expected = chain.window(*chunk).await?;
        let sums = side.clone().read(*chunk, as_one()).await?.sums;
        for (index, (expect, number)) in expected.iter().zip(chunk.start() / LEAF..).enumerate() {
            let Some(leaf) = range_of(number, newest.marker.length) else { continue };
            let sum = match &sums {
                Sums::Zeros => Some(Crc64::of_zeros(leaf.len())),
                Sums::Leaves(sums) => sums.get(index).map(|sum| Crc64::from_parts(*sum, leaf.len())),
            };
            if sum.and_then(|sum| expect.is_met_by(sum, leaf.len())) != Some(true) {
                return refuse(leaf.start());
            }
        }
        proven.push(sums);
    }
    // A record that is damaged anywhere proves nothing.
    chain.finish().await?;
    Ok(proven)
}

/// Writes every chunk, several at once. Gives what was written.
pub(super) async fn write(
    base: &Base,
    right: &Source,
    chunks: &[PageRange],
    proven: Option<&[Sums]>,
    settings: &Settings,
) -> Result<Vec<(PageRange, Sums)>> {
    let zeros = ZeroRule { shortest_run: settings.zero_run.max(PAGE), trim_edges: false };
    let route =
        Route { source: right.clone(), sink: base.sink(), zeros, zeros_are_free: false, puller: None };
    let mut done = Vec::new();
    let mut rest = chunks.iter();
    let mut writing = FuturesOrdered::new();
    loop {
        if writing.len() < PARALLEL
            && let Some(range) = rest.next()
        {
            let chunk = Chunk { range: *range, kind: ExtentKind::Data, changed: range.len(), widest_gap: 0 };
            writing.push_back(route.copy(chunk, None));
            continue;
        }
        let Some(written) = writing.next().await else { return Ok(done) };
        let Written { range, sums, .. } = match written {
            Ok(written) => written,
            Err(error) => return Err(explain(base, error).await),
        };
        let Some(sums) = sums else {
            let why = format!("bytes {range} did not pass this machine");
            return Err(Error::new(ErrorKind::Internal, TRIED, why));
        };
        if proven.and_then(|proven| proven.get(done.len())).is_some_and(|proven| *proven != sums) {
            let why = format!("the point gave other bytes at {range} than a moment ago");
            return Err(Error::new(ErrorKind::Corruption, TRIED, why)
                .on(right)
                .next("run the same command again"));
        }
        done.push((range, sums));
    }
}

/// What was written must be there.
pub(super) async fn read_back(
    blob: &PageBlob,
    image: &Source,
    written: Vec<(PageRange, Sums)>,
    progress: &Progress,
) -> Result<()> {
    match check_sample(image, written, progress).await?.wrong {
        None => Ok(()),
        Some(at) => Err(Error::new(
            ErrorKind::Corruption,
            TRIED,
            format!("it does not give back what was written to it at byte {at}"),
        )
        .on(blob.resource())
        .next("nothing was sealed; run the same command again, or begin anew in the same blob: --rebase")),
    }
}

async fn explain(base: &Base, error: CallError) -> Error {
    if error.is_fenced() {
        return base::explain_lost(base.blob(), &error.cause.to_string()).await;
    }
    error.into()
}

/// Only the checksums count.
pub(super) fn as_one() -> ZeroRule {
    ZeroRule { shortest_run: u64::MAX, trim_edges: false }
}
