//! Goes through an image from its start to its end, chunk by chunk, and compares it with a source, a record, or both.
//!
//! Only what one of the page lists names is read: all else is zero, and needs no request to be compared. The chunks are
//! looked at several at once, and judged in the order of the image. What is in flight is bounded in chunks and in bytes,
//! and narrows when the service refuses, as when copying.

use std::collections::VecDeque;
use std::time::Instant;

use futures::future::FutureExt;
use futures::stream::{FuturesOrdered, StreamExt};

use crate::azure::failure::CallResult;
use crate::azure::{Against, LARGEST_CHUNK};
use crate::copy::chunk::Source;
use crate::copy::window::Window;
use crate::diff::Listing;
use crate::error::{Error, ErrorKind, Result};
use crate::leaf::{LEAF, around, range_of};
use crate::measure::hold::Hold;
use crate::progress::Progress;
use crate::range::PageRange;
use crate::record::compare::{Held, changes};
use crate::record::{Chain, Expect};
use crate::step::Settings;

use super::choice::{Choice, Part};
use super::differences::Tally;
use super::look::{Looked, Task, look};

/// What a point is compared with, as far as it is a record.
pub(crate) enum Records {
    /// There is none, or it is not asked.
    None,
    /// It can be read, as far as it was.
    Known(Box<Chain>),
    /// It is not what it was.
    Damaged(Error),
}

/// A comparison.
pub(crate) struct Walk<'a> {
    pub(crate) image: Source,
    pub(crate) source: Option<Source>,
    pub(crate) length: u64,
    /// What of it is compared; begins and ends at chunks.
    pub(crate) part: PageRange,
    pub(crate) choice: Choice,
    pub(crate) settings: &'a Settings,
    pub(crate) progress: &'a Progress,
}

/// What a record says of a chunk.
#[derive(Default)]
struct Said {
    expected: Option<Vec<Expect>>,
    /// Which leaves the point's own step wrote.
    written: Option<Vec<bool>>,
}

impl Walk<'_> {
    /// Compares, and lists the first `most` ranges that differ. A record that turns out to be damaged is given up where there is a source, and ends the walk otherwise.
    ///
    /// # Errors
    /// When one of the images cannot be read. A difference is not an error.
    pub(crate) async fn to_end(&self, records: &mut Records, most: usize) -> Result<Tally> {
        let mut lists: Vec<Allocated> = std::iter::once(&self.image)
            .chain(&self.source)
            .map(|side| Allocated::of(side, self.part, self.length, self.settings))
            .collect();
        let call = self.image.call_timeout();
        let mut window = Window::new(self.settings.copy.concurrency, self.settings.copy.memory, call);
        let mut looking = FuturesOrdered::new();
        let mut tally = Tally::listing(most);
        let chunk = chunk_of(self.settings);
        let chunks = self.length.div_ceil(chunk);
        let mut numbers = self.part.start() / chunk..self.part.end().div_ceil(chunk);
        let mut next = None;
        loop {
            if next.is_none() {
                next = self.next_task(&mut numbers, chunks, &mut lists, records).await?;
            }
            let is_drained = next.is_none();
            window.observe(self.progress.signs(), Instant::now());
            match next.take() {
                Some(task) if window.has_room(self.memory_of(&task)) => {
                    let memory = self.memory_of(&task);
                    window.enter(memory);
                    looking.push_back(self.timed(task).map(move |done| (memory, done)).boxed());
                }
                waiting => {
                    next = waiting;
                    let Some((memory, (took, done))) = looking.next().await else { break };
                    window.leave(memory, took, Instant::now());
                    self.count(&mut tally, done?);
                }
            }
            let hold = match &next {
                Some(task) => window.hold(self.memory_of(task)).unwrap_or(Hold::Listing),
                None if is_drained => Hold::Drained,
                None => Hold::Listing,
            };
            self.progress.show_window(window.chunks(), window.limit(), hold);
        }
        Ok(tally)
    }

    fn memory_of(&self, task: &Task) -> u64 {
        let sides = if self.source.is_some() { 2 } else { 1 };
        task.reads.iter().map(|range| range.len() * sides).sum()
    }

    async fn timed(&self, task: Task) -> (std::time::Duration, CallResult<Looked>) {
        let started = Instant::now();
        let looked = look(task, self.image.clone(), self.source.clone()).await;
        (started.elapsed(), looked)
    }

    fn count(&self, tally: &mut Tally, looked: Looked) {
        self.progress.compared(looked.compared);
        tally.compared += looked.compared;
        tally.read += looked.read;
        tally.unknown += looked.unknown;
        for (range, wrong) in looked.found {
            tally.add(range, wrong);
        }
    }

    /// The next chunk that is compared, with what is to be read of it.
    async fn next_task(
        &self,
        numbers: &mut std::ops::Range<u64>,
        chunks: u64,
        lists: &mut [Allocated],
        records: &mut Records,
    ) -> Result<Option<Task>> {
        for number in numbers {
            let Some(part) = self.choice.part(number, chunks) else { continue };
            let start = number * chunk_of(self.settings);
            let end = (start + chunk_of(self.settings)).min(self.length);
            let chunk = PageRange::new(start, end).map_err(no_range)?;
            let Said { expected, written } = self.expected(chunk, records).await?;
            if self.source.is_none() && expected.is_none() {
                // Nothing is left to compare with.
                return Ok(None);
            }
            let scope = match part {
                Part::Whole => vec![chunk],
                Part::OutsideDiff => unwritten(chunk, written.as_deref(), self.length),
            };
            let mut held = Vec::new();
            for list in &mut *lists {
                held.extend(list.within(chunk).await?);
            }
            let reads = self.reads(held, &scope);
            let first = start / LEAF;
            return Ok(Some(Task { scope, reads, first, expected, written, length: self.length }));
        }
        Ok(None)
    }

    /// What the record says of a chunk. One that turns out to be damaged says nothing more.
    async fn expected(&self, chunk: PageRange, records: &mut Records) -> Result<Said> {
        let Records::Known(chain) = records else { return Ok(Said::default()) };
        match chain.window_of_step(chunk).await {
            Ok((expected, written)) => Ok(Said { expected: Some(expected), written: Some(written) }),
            // What is outside a diff is only known from the record.
            Err(error) if error.kind() == ErrorKind::Corruption && self.choice.outside_diff <= 0.0 => {
                *records = Records::Damaged(error);
                Ok(Said::default())
            }
            Err(error) => Err(error),
        }
    }

    /// What is held, grown to whole leaves and joined where a gap costs less than another request, inside the scope.
    fn reads(&self, mut held: Vec<PageRange>, scope: &[PageRange]) -> Vec<PageRange> {
        held.sort_unstable();
        let mut joined: VecDeque<PageRange> = VecDeque::new();
        for range in held.into_iter().map(|range| around(range, self.length)) {
            match joined.back_mut() {
                Some(last) if range.start() <= last.end().saturating_add(self.settings.plan.join_gap) => {
                    *last = PageRange::new(last.start(), last.end().max(range.end())).unwrap_or(*last);
                }
                _ => joined.push_back(range),
            }
        }
        let inside = scope.iter().flat_map(|scope| joined.iter().map(|range| range.intersection(*scope)));
        inside.flatten().collect()
    }
}

/// Bytes in a chunk.
pub(crate) fn chunk_of(settings: &Settings) -> u64 {
    settings.plan.chunk.next_multiple_of(LEAF).clamp(LEAF, LARGEST_CHUNK)
}

/// All of an image.
pub(crate) fn whole(length: u64) -> Result<PageRange> {
    PageRange::new(0, length).map_err(no_range)
}

/// The leaves of a chunk that the step did not write, neighbours joined.
fn unwritten(chunk: PageRange, written: Option<&[bool]>, length: u64) -> Vec<PageRange> {
    let mut found: Vec<PageRange> = Vec::new();
    let first = chunk.start() / LEAF;
    for (number, _) in (first..).zip(written.unwrap_or_default()).filter(|(_, written)| !**written) {
        let Some(leaf) = range_of(number, length) else { continue };
        match found.last_mut() {
            Some(last) if last.end() == leaf.start() => {
                *last = PageRange::new(last.start(), leaf.end()).unwrap_or(*last);
            }
            _ => found.push(leaf),
        }
    }
    found
}

fn no_range(error: crate::range::RangeError) -> Error {
    Error::new(ErrorKind::Internal, "compare two images", error.to_string())
}

/// What a blob holds, asked for in ascending order.
pub(crate) struct Allocated {
    listing: Listing,
    ahead: Option<PageRange>,
}

impl Allocated {
    pub(crate) fn of(image: &Source, part: PageRange, length: u64, settings: &Settings) -> Self {
        let listing = match image {
            Source::Blob { blob, .. } => {
                Listing::start(blob, &Against::Nothing, Some(part), length, Vec::new(), settings.listing)
            }
            Source::Image(image) => changes(Held::Source(image.clone()), None, part.start(), part.end()),
        };
        Self { listing, ahead: None }
    }

    /// What it holds of `window`. What lies before it is passed over.
    pub(crate) async fn within(&mut self, window: PageRange) -> CallResult<Vec<PageRange>> {
        let mut found = Vec::new();
        loop {
            if self.ahead.is_none() {
                self.ahead = self.listing.next().await?.map(|extent| extent.range);
            }
            match self.ahead {
                Some(range) if range.start() < window.end() => {
                    found.extend(range.intersection(window));
                    self.ahead = range.split(window.end()).1;
                }
                _ => return Ok(found),
            }
        }
    }
}
