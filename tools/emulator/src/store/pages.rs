//! The content of a page blob: which 512-byte pages hold data, their bytes, and when each was last written.
//!
//! Pages live in 64 KiB blocks, in a map that holds only blocks with data; so a disk of 8 TiB with little on it is
//! small. Map and blocks are shared between a blob, its snapshots and the replies that are being sent, and are copied
//! when one of them is about to be changed. "When" is an epoch: it counts the snapshots taken so far, so a page was
//! written since a snapshot exactly if its stamp is larger than that snapshot's epoch.
//!
//! Two kinds of blob store less: under the blocks of a generated disk lies the `ground`, which is computed, and a sink
//! keeps only its last pages.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rangemap::RangeMap;

use super::ground::{Ground, between_blocks};
pub(crate) use super::page_data::PageData;
pub(crate) use super::page_view::PageView;
use crate::generate::{Generator, zeros};
use crate::range::PAGE;

/// Bytes of a block.
pub(crate) const BLOCK: u64 = 64 * 1024;

pub(super) const BLOCK_BYTES: usize = 64 * 1024;
const PAGE_BYTES: usize = 512;

/// Pages of a block: as many as a `u128` has bits.
const PAGES_PER_BLOCK: usize = 128;

/// Bytes at the end of a sink that are kept, because a client reads them back: a disk's footer is there.
const SINK_TAIL: u64 = 4096;

/// Pages in one 64 KiB stretch of a blob.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// All bytes of the block; zero where no page is present.
    data: Bytes,
    /// One bit for each page that holds data.
    pub(super) present: u128,
    /// The epoch in which each page was last written; means nothing for pages that are not present.
    written: [u32; PAGES_PER_BLOCK],
}

impl Block {
    fn empty() -> Block {
        Block::of(zeros(BLOCK))
    }

    /// A block with all its bytes, and no page yet that holds them.
    pub(super) fn of(data: Bytes) -> Block {
        Block { data, present: 0, written: [0; PAGES_PER_BLOCK] }
    }

    /// Says that the pages of `range` in block `index` hold data, and when they were written.
    pub(super) fn mark_written(&mut self, index: u64, range: &Range<u64>, epoch: u32) {
        let part = part_of_block(index, range);
        let pages = part.start / PAGE_BYTES..part.end / PAGE_BYTES;
        self.present |= bits(pages.clone());
        self.written[pages].fill(epoch);
    }

    /// One bit for each page that holds data and was written after `epoch`.
    pub(super) fn written_after(&self, epoch: u32) -> u128 {
        let mut written = 0;
        for (page, stamp) in self.written.iter().enumerate() {
            written |= u128::from(*stamp > epoch) << page;
        }
        written & self.present
    }

    fn write(&mut self, offset: usize, bytes: &Bytes, epoch: u32) {
        if bytes.len() == BLOCK_BYTES {
            self.data = bytes.clone();
        } else {
            self.change_data(offset..offset + bytes.len(), |data| data.copy_from_slice(bytes));
        }
        let pages = offset / PAGE_BYTES..(offset + bytes.len()) / PAGE_BYTES;
        self.present |= bits(pages.clone());
        self.written[pages].fill(epoch);
    }

    fn clear(&mut self, range: Range<usize>) {
        let pages = bits(range.start / PAGE_BYTES..range.end / PAGE_BYTES);
        if self.present & pages != 0 {
            self.present &= !pages;
            self.change_data(range, |data| data.fill(0));
        }
    }

    /// Changes bytes in place if nobody else looks at them, and in a copy otherwise.
    fn change_data(&mut self, range: Range<usize>, change: impl FnOnce(&mut [u8])) {
        let shared_or_not = mem::take(&mut self.data).try_into_mut();
        let mut data = shared_or_not.unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        change(&mut data[range]);
        self.data = data.freeze();
    }
}

/// That a disk's footer went from one page to another when the disk grew.
#[derive(Clone, Copy, Debug)]
pub(super) struct FooterMove {
    pub(super) old_page: u64,
    pub(super) epoch: u32,
}

/// The pages of a blob, or of one of its snapshots.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    length: u64,
    pub(super) epoch: u32,
    pub(super) blocks: Arc<BTreeMap<u64, Arc<Block>>>,
    /// The epoch in which a stretch of bytes was last cleared; may name stretches that were written again since.
    pub(super) cleared: Arc<RangeMap<u64, u32>>,
    pub(super) footer_moves: Vec<FooterMove>,
    /// What is there where no block is.
    pub(super) ground: Option<Ground>,
    is_sink: bool,
}

impl Pages {
    /// `length` bytes, a multiple of 512, none of them written.
    pub(crate) fn new(length: u64) -> Pages {
        Pages {
            length,
            epoch: 1,
            blocks: Arc::default(),
            cleared: Arc::default(),
            footer_moves: Vec::new(),
            ground: None,
            is_sink: false,
        }
    }

    /// `length` bytes, the first `generated` of which are computed. Each time that they are frozen, the next generation
    /// follows.
    pub(crate) fn generated(length: u64, generated: u64, generator: Generator) -> Pages {
        let pages = Pages::new(length);
        Pages { ground: Some(Ground::new(generator, generated, pages.epoch)), ..pages }
    }

    /// The same pages in a blob that drops what it is sent: of these, too, only the last are kept. What was dropped reads
    /// as zeros, and page lists name nothing.
    pub(crate) fn into_sink(self) -> Pages {
        let mut sink = Pages { is_sink: true, ..Pages::new(self.length) };
        let tail = sink.sink_tail();
        if self.has_data(&(tail..self.length)) {
            sink.write(&PageData::of(tail, &self.view(tail..self.length).to_vec()));
        }
        sink
    }

    pub(crate) fn is_sink(&self) -> bool {
        self.is_sink
    }

    /// Where the part begins that a sink of this length keeps.
    pub(crate) fn sink_tail(&self) -> u64 {
        self.length.saturating_sub(SINK_TAIL)
    }

    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// The state as it is, for a snapshot; what is written from now on counts as written after it.
    pub(crate) fn freeze(&mut self) -> Pages {
        let ground = self.ground.as_mut().map(Ground::freeze);
        let frozen = Pages { ground, ..self.clone() };
        self.epoch += 1;
        frozen
    }

    /// Stores whole pages; they must lie inside the blob. A sink stores only the last.
    pub(crate) fn write(&mut self, data: &PageData) {
        let kept_from = if self.is_sink { self.sink_tail() } else { 0 };
        if data.range().end <= kept_from {
            return;
        }
        let blocks = Arc::make_mut(&mut self.blocks);
        for (start, piece) in data.placed() {
            let end = start + piece.len() as u64;
            if end <= kept_from {
                continue;
            }
            let dropped = usize::try_from(kept_from.saturating_sub(start)).unwrap_or_default();
            let (start, piece) = (start + dropped as u64, piece.slice(dropped..));
            let index = start / BLOCK;
            let block = blocks.entry(index).or_insert_with(|| Arc::new(below(self.ground.as_ref(), index)));
            Arc::make_mut(block).write(offset_in_block(start), &piece, self.epoch);
        }
    }

    /// Makes whole pages hold nothing.
    pub(crate) fn clear(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if !self.is_sink {
            Arc::make_mut(&mut self.cleared).insert(range.clone(), self.epoch);
        }
        self.store_ground(&range);
        let touched: Vec<u64> = self.blocks.range(block_indexes(&range)).map(|(index, _)| *index).collect();
        if touched.is_empty() {
            return;
        }
        let blocks = Arc::make_mut(&mut self.blocks);
        for index in touched {
            let Entry::Occupied(mut entry) = blocks.entry(index) else { continue };
            let part = part_of_block(index, &range);
            let block = Arc::make_mut(entry.get_mut());
            if part.len() < BLOCK_BYTES {
                block.clear(part);
            } else {
                *block = Block::empty();
            }
            // An empty block still hides the ground.
            if block.present == 0 && self.ground.is_none() {
                entry.remove();
            }
        }
    }

    /// Stores the blocks of `range` that are generated, so that they can be changed.
    fn store_ground(&mut self, range: &Range<u64>) {
        let Some(ground) = &self.ground else { return };
        let mut found = Vec::new();
        for run in ground.written_after(0, range.clone()) {
            for index in block_indexes(&run) {
                if found.last() != Some(&index) && !self.blocks.contains_key(&index) {
                    found.push(index);
                }
            }
        }
        if found.is_empty() {
            return;
        }
        let blocks = Arc::make_mut(&mut self.blocks);
        for index in found {
            // What is cleared whole need not be computed.
            let is_whole = part_of_block(index, range).len() == BLOCK_BYTES;
            let block = if is_whole { Block::empty() } else { below(self.ground.as_ref(), index) };
            blocks.insert(index, Arc::new(block));
        }
    }

    /// Grows with pages that hold nothing, or drops the pages past `length`.
    pub(crate) fn resize(&mut self, length: u64) {
        if length < self.length {
            self.clear(length..self.length);
            if let Some(ground) = &mut self.ground {
                ground.shorten(length);
            }
        }
        self.length = length;
    }

    /// Grows, and moves the footer in the last page to the new end.
    pub(crate) fn grow_with_footer(&mut self, length: u64, footer: &[u8]) {
        let old_page = self.length.saturating_sub(PAGE);
        self.footer_moves.push(FooterMove { old_page, epoch: self.epoch });
        self.clear(old_page..self.length);
        self.length = length;
        self.write(&PageData::of(length.saturating_sub(PAGE), footer));
    }

    /// Changes a byte in place, as rot does: the page counts as not written. One that holds nothing is allocated by it.
    pub(super) fn change_byte(&mut self, offset: u64, change: impl Fn(&mut u8)) -> bool {
        if offset >= self.length {
            return false;
        }
        let blocks = Arc::make_mut(&mut self.blocks);
        let index = offset / BLOCK;
        let block = blocks.entry(index).or_insert_with(|| Arc::new(below(self.ground.as_ref(), index)));
        let block = Arc::make_mut(block);
        let at = offset_in_block(offset);
        let page = bits(at / PAGE_BYTES..at / PAGE_BYTES + 1);
        if block.present & page == 0 {
            block.present |= page;
            block.written[at / PAGE_BYTES] = 0;
        }
        block.change_data(at..at + 1, |data| data.iter_mut().for_each(change));
        true
    }

    /// The bytes of `range`, which must lie inside the blob; it need not be made of whole pages.
    pub(crate) fn view(&self, range: Range<u64>) -> PageView {
        let blocks = self.blocks.range(block_indexes(&range));
        let blocks = blocks.map(|(index, block)| (*index, block.data.clone())).collect();
        let ground = self.ground.as_ref().map(|ground| Box::new(ground.view(range.clone())));
        PageView::new(range, blocks, ground)
    }

    /// A block, as stored or as the ground has it.
    pub(super) fn block(&self, index: u64) -> Option<Arc<Block>> {
        match (self.blocks.get(&index), &self.ground) {
            (Some(block), _) => Some(Arc::clone(block)),
            (None, Some(ground)) => ground.block(index).map(Arc::new),
            (None, None) => None,
        }
    }

    /// Whether any page of `range` holds data.
    pub(crate) fn has_data(&self, range: &Range<u64>) -> bool {
        let mut blocks = self.blocks.range(block_indexes(range));
        if blocks.any(|(index, block)| block.present & window_bits(*index, range) != 0) {
            return true;
        }
        let Some(ground) = &self.ground else { return false };
        let stored = self.blocks.range(block_indexes(range)).map(|(index, _)| *index);
        between_blocks(stored, range).any(|(free, _)| ground.has_data(free))
    }
}

/// A block that is about to be changed for the first time.
fn below(ground: Option<&Ground>, index: u64) -> Block {
    ground.and_then(|ground| ground.block(index)).unwrap_or_else(Block::empty)
}

/// The block numbers that `range` touches.
pub(super) fn block_indexes(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK..range.end.div_ceil(BLOCK).max(range.start / BLOCK)
}

/// One bit for each page of block `index` that lies in `window`.
pub(super) fn window_bits(index: u64, window: &Range<u64>) -> u128 {
    let part = part_of_block(index, window);
    bits(part.start / PAGE_BYTES..part.end.div_ceil(PAGE_BYTES))
}

/// The bytes of block `index`, counted from its start, that lie in `range`.
pub(super) fn part_of_block(index: u64, range: &Range<u64>) -> Range<usize> {
    let block_start = index * BLOCK;
    let from_start = |position: u64| {
        usize::try_from(position.saturating_sub(block_start).min(BLOCK)).unwrap_or(BLOCK_BYTES)
    };
    from_start(range.start)..from_start(range.end)
}

pub(super) fn offset_in_block(position: u64) -> usize {
    usize::try_from(position % BLOCK).unwrap_or_default()
}

/// The bits numbered `range`.
fn bits(range: Range<usize>) -> u128 {
    let below = |bit: usize| if bit >= PAGES_PER_BLOCK { u128::MAX } else { (1 << bit) - 1 };
    below(range.end) & !below(range.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(start: u64, pages: usize, byte: u8) -> PageData {
        PageData::of(start, &vec![byte; pages * PAGE_BYTES])
    }

    #[test]
    fn reads_what_was_written_and_zeros_elsewhere() {
        let mut pages = Pages::new(1 << 43);
        let far = (1 << 42) - PAGE;
        pages.write(&filled(far, 2, 7));
        let bytes = pages.view(far - 3..far + 2 * PAGE + 3).to_vec();
        assert_eq!(bytes[..3], [0; 3]);
        assert_eq!(bytes[3..1027], [7; 1024]);
        assert_eq!(bytes[1027..], [0; 3]);
        assert_eq!(pages.blocks.len(), 2);
    }

    #[test]
    fn a_view_and_a_snapshot_keep_their_bytes() {
        let mut pages = Pages::new(4 * BLOCK);
        pages.write(&filled(0, 256, 1));
        let snapshot = pages.freeze();
        let view = pages.view(0..4 * BLOCK);
        pages.write(&filled(PAGE, 1, 2));
        pages.clear(BLOCK..2 * BLOCK);
        assert!(view.to_vec()[..usize::try_from(2 * BLOCK).unwrap_or(0)].iter().all(|byte| *byte == 1));
        assert!(snapshot.has_data(&(BLOCK..2 * BLOCK)));
        assert!(!pages.has_data(&(BLOCK..2 * BLOCK)));
        assert_eq!(pages.view(PAGE..PAGE + 1).to_vec(), [2]);
    }

    #[test]
    fn shrinking_drops_pages_for_good() {
        let mut pages = Pages::new(BLOCK);
        pages.write(&filled(0, 128, 5));
        pages.resize(PAGE);
        pages.resize(BLOCK);
        assert_eq!(pages.view(PAGE - 1..PAGE + 1).to_vec(), [5, 0]);
        assert!(!pages.has_data(&(PAGE..BLOCK)));
    }
}
