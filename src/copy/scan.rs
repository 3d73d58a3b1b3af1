//! Looks at a chunk's bytes once: where are zeros, and what are the checksums?
//!
//! The chunk stays the list of frames that came from the socket; pieces are slices of them.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::azure::crc64::{Crc64, Running};
use crate::leaf::{LEAF, Sums, leaf_of};
use crate::range::{PAGE, PageRange};

/// A part of a chunk that is written with one request, or not at all.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Where it goes.
    pub range: PageRange,
    /// Its bytes and their checksum; `None` for a run of zeros.
    pub data: Option<(Vec<Bytes>, Crc64)>,
}

/// A chunk that was looked at.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// The pieces, in order, covering the whole chunk.
    pub pieces: Vec<Piece>,
    /// The checksum of the whole chunk, zeros included.
    pub crc: Crc64,
    /// The checksums of its leaves; a chunk begins at one.
    pub sums: Sums,
}

/// How zeros are told from data.
#[derive(Clone, Copy, Debug)]
pub struct ZeroRule {
    /// Zeros inside a chunk count as a run of their own from this many bytes on: shorter ones cost less as bytes
    /// than as another request.
    pub shortest_run: u64,
    /// Zeros at the edges of a chunk always count: true when they cost no request, because the base blob is
    /// known to read as zeros there.
    pub trim_edges: bool,
}

/// Splits the bytes of `range` into pieces of data and of zeros, and computes their checksums.
pub fn scan(range: PageRange, frames: &[Bytes], rule: ZeroRule) -> Scanned {
    let mut scanner = Scanner::new(range);
    for frame in frames {
        scanner.look(frame);
    }
    scanner.finish(frames, rule)
}

/// Looks at the frames of a chunk one by one as they come, while they are still in the processor's cache: read again later,
/// out of memory, they would cost several times as much.
#[derive(Debug)]
pub struct Scanner {
    range: PageRange,
    /// How much was looked at.
    at: usize,
    /// How much of its leaf lies before the chunk.
    lead: usize,
    /// The checksum of each leaf that is complete.
    leaves: Vec<Crc64>,
    /// For each page, whether it is all zeros.
    zero: Vec<bool>,
    /// What is known of a leaf that a frame's end cuts.
    open: Option<Running>,
}

/// The checksum of a leaf of zeros, which many are.
static ZERO_LEAF: LazyLock<Crc64> = LazyLock::new(|| Crc64::of_zeros(LEAF));

const PAGE_BYTES: usize = 512;
const LEAF_BYTES: usize = 4096;

impl Scanner {
    /// A scanner for a chunk.
    pub fn new(range: PageRange) -> Self {
        let count = |unit| usize::try_from(range.len().div_ceil(unit)).unwrap_or_default();
        Self {
            range,
            at: 0,
            lead: usize::try_from(range.start() % LEAF).unwrap_or_default(),
            leaves: Vec::with_capacity(count(LEAF)),
            zero: vec![true; count(PAGE)],
            open: None,
        }
    }

    /// Takes in the next frame, which may end anywhere.
    pub fn look(&mut self, frame: &[u8]) {
        let mut rest = frame;
        while !rest.is_empty() {
            let room = LEAF_BYTES - (self.lead + self.at) % LEAF_BYTES;
            let (part, next) = rest.split_at(rest.len().min(room));
            if part.len() == LEAF_BYTES {
                let is_zero = self.look_for_zeros(part);
                self.leaves.push(if is_zero { *ZERO_LEAF } else { Crc64::of(part) });
            } else {
                self.look_for_zeros(part);
                self.open.get_or_insert_default().update(part);
                if part.len() == room {
                    self.leaves.extend(self.open.take().map(|open| open.finish()));
                }
            }
            self.at += part.len();
            rest = next;
        }
    }

    /// Notes for each page that `part` touches whether it holds anything; tells whether nothing does.
    fn look_for_zeros(&mut self, part: &[u8]) -> bool {
        let mut all = true;
        let mut rest = part;
        let mut at = self.at;
        while !rest.is_empty() {
            let (piece, next) = rest.split_at(rest.len().min(PAGE_BYTES - at % PAGE_BYTES));
            if !is_zero(piece) {
                all = false;
                if let Some(zero) = self.zero.get_mut(at / PAGE_BYTES) {
                    *zero = false;
                }
            }
            at += piece.len();
            rest = next;
        }
        all
    }

    /// What the chunk comes to. `frames` are all that were looked at.
    pub fn finish(mut self, frames: &[Bytes], rule: ZeroRule) -> Scanned {
        // The end of an image may cut its last leaf.
        self.leaves.extend(self.open.take().map(|open| open.finish()));
        let mut cursor = FrameCursor { frames, index: 0, offset: 0 };
        let mut pieces = Vec::new();
        let mut crc = Crc64::default();
        for (range, is_zero) in group(self.range, &self.zero, rule) {
            let taken = cursor.take(range.len());
            let sum = if is_zero { Crc64::of_zeros(range.len()) } else { self.sum_of(range, &taken) };
            crc = crc.join(sum);
            pieces.push(Piece { range, data: (!is_zero).then_some((taken, sum)) });
        }
        let sums = if pieces.iter().all(|piece| piece.data.is_none()) {
            Sums::Zeros
        } else {
            Sums::Leaves(self.leaves.iter().map(|leaf| leaf.value()).collect())
        };
        Scanned { pieces, crc, sums }
    }

    /// The checksum of a piece: taken together from its leaves, and computed where it has only a part of one.
    fn sum_of(&self, piece: PageRange, frames: &[Bytes]) -> Crc64 {
        let mut cursor = FrameCursor { frames, index: 0, offset: 0 };
        let mut sum = Crc64::default();
        for part in by_leaf(piece) {
            let index = usize::try_from(leaf_of(part.start()) - leaf_of(self.range.start())).ok();
            let known = index.and_then(|index| self.leaves.get(index));
            match known {
                Some(leaf) if leaf.bytes() == part.len() => {
                    cursor.skip(part.len());
                    sum = sum.join(*leaf);
                }
                _ => sum = sum.join(cursor.checksum(part.len())),
            }
        }
        sum
    }
}

/// The parts of `range` that lie in one leaf each.
fn by_leaf(range: PageRange) -> impl Iterator<Item = PageRange> {
    let mut rest = Some(range);
    std::iter::from_fn(move || {
        let range = rest?;
        let (part, next) = range.split((range.start() / LEAF + 1) * LEAF);
        rest = next;
        part
    })
}

/// Word-wise, so that the compiler uses vector instructions; data ends it at its first words.
fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<64>();
    blocks.iter().all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

/// Groups pages into runs by the rule; runs alternate and cover the range.
fn group(range: PageRange, zero: &[bool], rule: ZeroRule) -> Vec<(PageRange, bool)> {
    let mut runs: Vec<(PageRange, bool)> = Vec::new();
    let mut start = 0;
    for same in zero.chunk_by(|a, b| a == b) {
        let end = start + same.len();
        let is_edge = start == 0 || end == zero.len();
        let long = same.len() as u64 * PAGE >= rule.shortest_run;
        let is_zero = same[0] && (long || (is_edge && rule.trim_edges));
        let from = range.start() + start as u64 * PAGE;
        let to = range.start() + end as u64 * PAGE;
        start = end;
        match runs.last_mut() {
            Some((last, kind)) if *kind == is_zero => {
                if let Ok(joined) = PageRange::new(last.start(), to) {
                    *last = joined;
                }
            }
            _ => runs.extend(PageRange::new(from, to).ok().map(|range| (range, is_zero))),
        }
    }
    runs
}

struct FrameCursor<'a> {
    frames: &'a [Bytes],
    index: usize,
    offset: usize,
}

impl FrameCursor<'_> {
    /// The checksum of the next `length` bytes.
    fn checksum(&mut self, length: u64) -> Crc64 {
        let parts = self.take(length);
        if let [part] = &parts[..] {
            return Crc64::of(part);
        }
        let mut running = Running::default();
        for part in &parts {
            running.update(part);
        }
        running.finish()
    }

    /// Goes on behind the next `length` bytes.
    fn skip(&mut self, length: u64) {
        let mut left = usize::try_from(length).unwrap_or(usize::MAX);
        while left > 0
            && let Some(frame) = self.frames.get(self.index)
        {
            let part = left.min(frame.len() - self.offset);
            self.offset += part;
            left -= part;
            if self.offset == frame.len() {
                self.index += 1;
                self.offset = 0;
            }
        }
    }

    /// The next `length` bytes as slices of the frames.
    fn take(&mut self, length: u64) -> Vec<Bytes> {
        let mut left = usize::try_from(length).unwrap_or(usize::MAX);
        let mut taken = Vec::new();
        while left > 0
            && let Some(frame) = self.frames.get(self.index)
        {
            let part = left.min(frame.len() - self.offset);
            if part > 0 {
                taken.push(frame.slice(self.offset..self.offset + part));
            }
            self.offset += part;
            left -= part;
            if self.offset == frame.len() {
                self.index += 1;
                self.offset = 0;
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_cover_the_chunk_and_keep_every_byte(
            pages in proptest::collection::vec(0_u8..3, 1..40),
            cuts in proptest::collection::vec(1_usize..2000, 0..20),
            shortest in 1_u64..8,
            trim_edges: bool,
        ) {
            let data: Vec<u8> = pages.iter().flat_map(|kind| match kind {
                0 => vec![0; 512],
                1 => vec![7; 512],
                _ => { let mut page = vec![0; 512]; page[511] = 1; page }
            }).collect();
            let whole = Bytes::from(data.clone());
            let mut frames = Vec::new();
            let mut at = 0;
            for cut in cuts {
                let end = (at + cut).min(data.len());
                frames.push(whole.slice(at..end));
                at = end;
            }
            frames.push(whole.slice(at..));
            let range = PageRange::new(8192, 8192 + data.len() as u64).unwrap();
            let scanned = scan(range, &frames, ZeroRule { shortest_run: shortest * 512, trim_edges });

            prop_assert_eq!(scanned.crc, Crc64::of(&data));
            let leaves: Vec<u64> = data.chunks(4096).map(|leaf| Crc64::of(leaf).value()).collect();
            match &scanned.sums {
                Sums::Leaves(sums) => prop_assert_eq!(sums, &leaves),
                Sums::Zeros => prop_assert!(data.iter().all(|byte| *byte == 0)),
            }
            let mut next = range.start();
            let mut rebuilt = Vec::new();
            for piece in &scanned.pieces {
                prop_assert_eq!(piece.range.start(), next);
                next = piece.range.end();
                if let Some((frames, crc)) = &piece.data {
                    let bytes = frames.concat();
                    prop_assert_eq!(bytes.len() as u64, piece.range.len());
                    prop_assert_eq!(*crc, Crc64::of(&bytes));
                    rebuilt.extend(bytes);
                } else {
                    let is_edge = piece.range.start() == range.start() || piece.range.end() == range.end();
                    prop_assert!(piece.range.len() >= shortest * 512 || (trim_edges && is_edge));
                    rebuilt.resize(rebuilt.len() + usize::try_from(piece.range.len()).unwrap(), 0);
                }
            }
            prop_assert_eq!(next, range.end());
            prop_assert_eq!(rebuilt, data);
            prop_assert!(scanned.pieces.windows(2).all(|pair| pair[0].data.is_some() != pair[1].data.is_some()));
        }
    }

    #[test]
    fn a_chunk_of_zeros_is_one_run_without_bytes() {
        let range = PageRange::new(0, 4096).unwrap();
        let rule = ZeroRule { shortest_run: 1024, trim_edges: false };
        let scanned = scan(range, &[Bytes::from(vec![0; 4096])], rule);
        assert_eq!(scanned.pieces.len(), 1);
        assert!(scanned.pieces[0].data.is_none());
    }
}
