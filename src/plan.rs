//! Extents become chunks: the units that are copied.
//!
//! Requests are as scarce as bytes (one page blob takes about 60 MiB/s and 500 requests/s), so neighbouring
//! data extents become one chunk when the gap between them costs less than a request (how much that is, [`balance`]
//! finds out). The gap's bytes are read from the source too. That is safe exactly because the base blob is clean at the previous snapshot: what the
//! diff does not name is equal in both. A clear extent is never joined to anything.
//!
//! Chunks begin and end at the edges of leaves, for the same reason as safely (see [`crate::leaf`]).

pub mod balance;
mod least;

use crate::azure::LARGEST_CHUNK;
use crate::leaf::{Aligner, LEAF};
use crate::range::{Extent, ExtentKind, PageRange};
use balance::{Balance, Rates};
use least::Least;

/// A clear is one request whatever its length; longer ones are split so that none runs into a time-out.
const LARGEST_CLEAR: u64 = 16 << 30;

/// How extents are cut and joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// Longest data chunk in bytes: a multiple of [`LEAF`], at most [`LARGEST_CHUNK`].
    pub chunk: u64,
    /// Widest gap, in bytes, over which two data extents are joined; `None` for as wide as pays.
    pub join_gap: Option<u64>,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self { chunk: LARGEST_CHUNK, join_gap: None }
    }
}

/// A unit of copying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// What is written.
    pub range: PageRange,
    /// Copied or cleared.
    pub kind: ExtentKind,
    /// Bytes of the range that the page list named; the rest are joined gaps and the rest of leaves.
    pub changed: u64,
    /// The widest gap, in bytes, that was joined.
    pub widest_gap: u64,
}

/// Sums over a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Totals {
    /// Extents with data that the page list named (after joining what touches).
    pub data_extents: u64,
    /// Extents to be cleared.
    pub clear_extents: u64,
    /// Bytes in data extents.
    pub bytes_changed: u64,
    /// Bytes in clear extents.
    pub bytes_cleared: u64,
    /// Bytes that were not named and are read along: joined gaps, and the rest of leaves that changed in part.
    pub bytes_joined: u64,
    /// Chunks with data.
    pub data_chunks: u64,
    /// Chunks that are cleared.
    pub clear_chunks: u64,
    /// The least time, in seconds, in which one page blob takes that at its documented rates (60 MiB/s and 500 requests/s),
    /// whichever gaps are joined.
    pub least_seconds: f64,
}

impl Totals {
    /// Takes an extent into account.
    pub fn add_extent(&mut self, extent: &Extent) {
        match extent.kind {
            ExtentKind::Data => {
                self.data_extents += 1;
                self.bytes_changed += extent.range.len();
            }
            ExtentKind::Clear => {
                self.clear_extents += 1;
                self.bytes_cleared += extent.range.len();
            }
        }
    }

    /// Takes a chunk into account.
    pub fn add_chunk(&mut self, chunk: &Chunk) {
        match chunk.kind {
            ExtentKind::Data => {
                self.data_chunks += 1;
                self.bytes_joined += chunk.range.len() - chunk.changed;
            }
            ExtentKind::Clear => self.clear_chunks += 1,
        }
    }

    /// Requests that moving the data takes: one read and one write for each data chunk, one for each clear.
    /// Zeros inside of chunks can add clears; retries are not foreseen.
    pub fn requests(&self) -> u64 {
        2 * self.data_chunks + self.clear_chunks
    }
}

/// Turns an ordered stream of extents into an ordered stream of chunks, with one extent in hand.
#[derive(Debug)]
pub struct Planner {
    options: PlanOptions,
    balance: Balance,
    aligner: Aligner,
    open: Option<Chunk>,
    totals: Totals,
    least: Least,
}

impl Planner {
    /// A planner for an image of `length` bytes. Values out of bounds are brought into them.
    pub fn new(options: PlanOptions, length: u64) -> Self {
        let chunk = (options.chunk / LEAF * LEAF).clamp(LEAF, LARGEST_CHUNK);
        Self {
            options: PlanOptions { chunk, ..options },
            balance: Balance::new(Rates::default(), chunk),
            aligner: Aligner::new(0, length),
            open: None,
            totals: Totals::default(),
            least: Least::default(),
        }
    }

    /// The same for what lies behind `offset`, which need not be the edge of a leaf.
    #[must_use]
    pub fn behind(self, offset: u64, length: u64) -> Self {
        Self { aligner: Aligner::new(offset, length), ..self }
    }

    /// What both sides of the copy were found to take, for chunks to come.
    pub fn learn(&mut self, rates: Rates) {
        self.balance.learn(rates);
    }

    /// Takes the next extent and appends the chunks that are complete.
    pub fn push(&mut self, extent: Extent, chunks: &mut Vec<Chunk>) {
        self.totals.add_extent(&extent);
        self.least.add(&extent);
        if let Some(open) = &mut self.open {
            // It begins in a leaf that is copied already.
            open.changed += overlap(open.range, extent.range);
        }
        for aligned in self.aligner.push(extent) {
            self.place(aligned, extent.range, chunks);
        }
    }

    /// Cuts and joins `extent`, of which the page list named what lies in `named`.
    fn place(&mut self, extent: Extent, named: PageRange, chunks: &mut Vec<Chunk>) {
        let mut rest = Some(extent.range);
        if let Some(open) = self.open.take() {
            let (joined, left) = self.join(open, extent, named);
            rest = left;
            match joined {
                // Nothing of the extent is left: the chunk may still grow.
                Some(joined) if rest.is_none() => self.open = Some(joined),
                Some(joined) => self.emit(joined, chunks),
                None => self.emit(open, chunks),
            }
        }
        let longest = if extent.kind == ExtentKind::Data { self.options.chunk } else { LARGEST_CLEAR };
        while let Some(range) = rest {
            // Cut at multiples of the chunk's length, so that most chunks are whole ones.
            let cut = (range.start() / longest + 1).saturating_mul(longest);
            let (piece, next) = range.split(cut);
            if let Some(piece) = piece {
                let chunk =
                    Chunk { range: piece, kind: extent.kind, changed: overlap(piece, named), widest_gap: 0 };
                if next.is_some() { self.emit(chunk, chunks) } else { self.open = Some(chunk) }
            }
            rest = next;
        }
    }

    /// Ends the plan: the last chunk, and the sums.
    pub fn finish(mut self, chunks: &mut Vec<Chunk>) -> Totals {
        if let Some(open) = self.open.take() {
            self.emit(open, chunks);
        }
        Totals { least_seconds: self.least.seconds(Rates::default()), ..self.totals }
    }

    fn emit(&mut self, chunk: Chunk, chunks: &mut Vec<Chunk>) {
        if chunk.kind == ExtentKind::Data {
            self.balance.planned(chunk.range.len());
        }
        self.totals.add_chunk(&chunk);
        chunks.push(chunk);
    }

    /// `open` with as much of `extent` as belongs to it (if any), and what is left of `extent`.
    fn join(&self, open: Chunk, extent: Extent, named: PageRange) -> (Option<Chunk>, Option<PageRange>) {
        let both_data = open.kind == ExtentKind::Data && extent.kind == ExtentKind::Data;
        let gap = extent.range.start() - open.range.end();
        let limit = open.range.start() + self.options.chunk;
        let widest = self.options.join_gap.unwrap_or_else(|| self.balance.widest());
        if !both_data || gap > widest || extent.range.start() >= limit {
            return (None, Some(extent.range));
        }
        let (taken, left) = extent.range.split(limit);
        let joined = taken.and_then(|taken| {
            let range = PageRange::new(open.range.start(), taken.end()).ok()?;
            let changed = open.changed + overlap(taken, named);
            Some(Chunk { range, kind: ExtentKind::Data, changed, widest_gap: open.widest_gap.max(gap) })
        });
        (joined, left)
    }
}

fn overlap(range: PageRange, named: PageRange) -> u64 {
    range.intersection(named).map_or(0, PageRange::len)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::range::PAGE;
    use proptest::prelude::*;

    fn extent(start: u64, pages: u64, kind: ExtentKind) -> Extent {
        Extent { range: PageRange::new(start * PAGE, (start + pages) * PAGE).unwrap(), kind }
    }

    fn plan(extents: &[Extent], options: PlanOptions, length: u64) -> (Vec<Chunk>, Totals) {
        let mut planner = Planner::new(options, length);
        let mut chunks = Vec::new();
        for extent in extents {
            planner.push(*extent, &mut chunks);
        }
        let totals = planner.finish(&mut chunks);
        (chunks, totals)
    }

    #[test]
    fn small_gaps_are_joined_and_clears_are_not() {
        use ExtentKind::{Clear, Data};
        let options = PlanOptions { chunk: 64 * LEAF, join_gap: Some(4 * LEAF) };
        // In leaves: data at 0..2 and 6..8 (joined), 20 in part, 21..24 cleared, 24.
        let extents = [
            extent(0, 16, Data),
            extent(48, 16, Data),
            extent(161, 2, Data),
            extent(168, 24, Clear),
            extent(192, 8, Data),
        ];
        let (chunks, totals) = plan(&extents, options, 1000 * LEAF);
        let ranges: Vec<_> = chunks
            .iter()
            .map(|chunk| {
                (chunk.range.start() / LEAF, chunk.range.len() / LEAF, chunk.kind, chunk.changed / PAGE)
            })
            .collect();
        assert_eq!(ranges, [(0, 8, Data, 32), (20, 1, Data, 2), (21, 3, Clear, 24), (24, 1, Data, 8)]);
        assert_eq!(
            (totals.bytes_joined, totals.data_extents, totals.requests()),
            (4 * LEAF + 6 * PAGE, 4, 7)
        );
    }

    fn extents() -> impl Strategy<Value = Vec<Extent>> {
        proptest::collection::vec((0_u64..40, 1_u64..200, any::<bool>()), 0..60).prop_map(|parts| {
            let mut at = 0;
            let mut extents = Vec::new();
            for (gap, pages, clear) in parts {
                at += gap;
                extents.push(extent(at, pages, if clear { ExtentKind::Clear } else { ExtentKind::Data }));
                at += pages;
            }
            extents
        })
    }

    proptest! {
        /// Per page: every named page is in exactly one chunk, of its kind (or copied where a clear shares its leaf), and what
        /// else is in a chunk is a gap or the rest of a leaf, and is copied.
        #[test]
        fn the_union_of_the_chunks_is_the_plan(
            extents in extents(), chunk in 1_u64..100, gap in 0_u64..30, tail in 0_u64..9
        ) {
            let options = PlanOptions { chunk: chunk * LEAF, join_gap: gap.checked_sub(1).map(|gap| gap * PAGE) };
            let length = extents.last().map_or(0, |last| last.range.end()) + tail * PAGE;
            let (chunks, totals) = plan(&extents, options, length);
            let pages = |range: PageRange| (range.start() / PAGE)..(range.end() / PAGE);
            let mut wanted = std::collections::BTreeMap::new();
            for extent in &extents {
                for page in pages(extent.range) {
                    wanted.insert(page, extent.kind);
                }
            }
            let mut written = std::collections::BTreeMap::new();
            let mut joined = 0;
            for chunk in &chunks {
                prop_assert!(chunk.kind == ExtentKind::Clear || chunk.range.len() <= options.chunk);
                prop_assert!(chunk.range.start() % LEAF == 0);
                prop_assert!(chunk.range.end() % LEAF == 0 || chunk.range.end() == length);
                if chunk.kind == ExtentKind::Data {
                    joined += chunk.range.len() - chunk.changed;
                }
                for page in pages(chunk.range) {
                    prop_assert!(written.insert(page, chunk.kind).is_none(), "page {page} is written twice");
                    match wanted.get(&page) {
                        Some(ExtentKind::Data) | None => prop_assert_eq!(chunk.kind, ExtentKind::Data),
                        Some(ExtentKind::Clear) => {}
                    }
                }
            }
            for page in wanted.keys() {
                prop_assert!(written.contains_key(page), "page {page} is lost");
            }
            prop_assert!(chunks.is_sorted_by_key(|chunk| chunk.range.start()));
            prop_assert_eq!(totals.bytes_joined, joined);
            let named: u64 = chunks.iter().map(|chunk| chunk.changed).sum();
            prop_assert_eq!(named, wanted.len() as u64 * PAGE);
            prop_assert_eq!(totals.data_chunks + totals.clear_chunks, chunks.len() as u64);
        }
    }
}
