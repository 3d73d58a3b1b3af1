//! Looks at a chunk's bytes once: where are zeros, and what are the checksums?
//!
//! The chunk stays the list of frames that came from the socket; pieces are slices of them.

use bytes::Bytes;

use crate::azure::crc64::{Crc64, Running};
use crate::leaf::{LEAF, Sums};
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
    let zero = zero_pages(range, frames);
    let mut pieces = Vec::new();
    let mut leaves = Leaves::default();
    let mut crc = Crc64::default();
    let mut cursor = FrameCursor { frames, index: 0, offset: 0 };
    for (range, is_zero) in group(range, &zero, rule) {
        if is_zero {
            cursor.take(range.len());
            let sum = Crc64::of_zeros(range.len());
            crc = crc.join(sum);
            leaves.push_zeros(range);
            pieces.push(Piece { range, data: None });
        } else {
            let taken = cursor.take(range.len());
            let sum = leaves.push_data(range, &taken);
            crc = crc.join(sum);
            pieces.push(Piece { range, data: Some((taken, sum)) });
        }
    }
    let sums = if pieces.iter().all(|piece| piece.data.is_none()) {
        Sums::Zeros
    } else {
        Sums::Leaves(leaves.finish())
    };
    Scanned { pieces, crc, sums }
}

/// The checksums of leaves, which pieces may cut.
#[derive(Default)]
struct Leaves {
    sums: Vec<u64>,
    /// What is known of the leaf that is not at its end yet.
    open: Crc64,
}

impl Leaves {
    /// The next bytes, which end at `end`.
    fn push(&mut self, sum: Crc64, end: u64) {
        self.open = self.open.join(sum);
        if end.is_multiple_of(LEAF) {
            self.close();
        }
    }

    fn close(&mut self) {
        self.sums.push(self.open.value());
        self.open = Crc64::default();
    }

    fn push_zeros(&mut self, range: PageRange) {
        let whole = Crc64::of_zeros(LEAF);
        for part in by_leaf(range) {
            let sum = if part.len() == LEAF { whole } else { Crc64::of_zeros(part.len()) };
            self.push(sum, part.end());
        }
    }

    /// The checksum of the bytes of `range`, taken together from those of its leaves.
    fn push_data(&mut self, range: PageRange, frames: &[Bytes]) -> Crc64 {
        let mut cursor = FrameCursor { frames, index: 0, offset: 0 };
        let mut crc = Crc64::default();
        for part in by_leaf(range) {
            let sum = cursor.checksum(part.len());
            crc = crc.join(sum);
            self.push(sum, part.end());
        }
        crc
    }

    /// The end of an image may cut its last leaf.
    fn finish(mut self) -> Vec<u64> {
        if self.open != Crc64::default() {
            self.close();
        }
        self.sums
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

/// For each page, whether all of its bytes are zero. A page may lie in several frames.
fn zero_pages(range: PageRange, frames: &[Bytes]) -> Vec<bool> {
    let page = usize::try_from(PAGE).unwrap_or(usize::MAX);
    let mut zero = vec![true; usize::try_from(range.len() / PAGE).unwrap_or_default()];
    let mut at = 0;
    for frame in frames {
        let mut rest: &[u8] = frame;
        while !rest.is_empty() {
            let (part, next) = rest.split_at(rest.len().min(page - at % page));
            if let Some(zero) = zero.get_mut(at / page) {
                *zero = *zero && is_zero(part);
            }
            at += part.len();
            rest = next;
        }
    }
    zero
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
