//! The content of a page blob: which 512-byte pages hold data, their bytes, and when each was last written.
//!
//! Pages live in 64 KiB blocks, in a map that holds only blocks with data; so a disk of 8 TiB with little on it is
//! small. Map and blocks are shared between a blob, its snapshots and the replies that are being sent, and are copied
//! when one of them is about to be changed. "When" is an epoch: it counts the snapshots taken so far, so a page was
//! written since a snapshot exactly if its stamp is larger than that snapshot's epoch.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::mem;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use rangemap::RangeMap;

use crate::checksum;
use crate::range::PAGE;

/// Bytes of a block.
pub(crate) const BLOCK: u64 = 64 * 1024;

const BLOCK_BYTES: usize = 64 * 1024;
const PAGE_BYTES: usize = 512;

/// Pages of a block: as many as a `u128` has bits.
const PAGES_PER_BLOCK: usize = 128;

static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

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
        Block { data: Bytes::from_static(&ZEROS), present: 0, written: [0; PAGES_PER_BLOCK] }
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
}

impl Pages {
    /// `length` bytes, a multiple of 512, none of them written.
    pub(crate) fn new(length: u64) -> Pages {
        Pages { length, epoch: 1, blocks: Arc::default(), cleared: Arc::default(), footer_moves: Vec::new() }
    }

    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// The state as it is, for a snapshot; what is written from now on counts as written after it.
    pub(crate) fn freeze(&mut self) -> Pages {
        let frozen = self.clone();
        self.epoch += 1;
        frozen
    }

    /// Stores whole pages; they must lie inside the blob.
    pub(crate) fn write(&mut self, data: &PageData) {
        let blocks = Arc::make_mut(&mut self.blocks);
        let mut position = data.start;
        for piece in &data.pieces {
            let block = blocks.entry(position / BLOCK).or_insert_with(|| Arc::new(Block::empty()));
            Arc::make_mut(block).write(offset_in_block(position), piece, self.epoch);
            position += piece.len() as u64;
        }
    }

    /// Makes whole pages hold nothing.
    pub(crate) fn clear(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        Arc::make_mut(&mut self.cleared).insert(range.clone(), self.epoch);
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
                block.present = 0;
            }
            if block.present == 0 {
                entry.remove();
            }
        }
    }

    /// Grows with pages that hold nothing, or drops the pages past `length`.
    pub(crate) fn resize(&mut self, length: u64) {
        if length < self.length {
            self.clear(length..self.length);
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
        let block = blocks.entry(offset / BLOCK).or_insert_with(|| Arc::new(Block::empty()));
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
        PageView { position: range.start, end: range.end, blocks, next: 0 }
    }

    /// Whether any page of `range` holds data.
    pub(crate) fn has_data(&self, range: &Range<u64>) -> bool {
        let mut blocks = self.blocks.range(block_indexes(range));
        blocks.any(|(index, block)| block.present & window_bits(*index, range) != 0)
    }
}

/// The bytes of a stretch of a blob, as frames to be sent: slices of the blob's blocks, and shared zeros between them.
#[derive(Clone, Debug)]
pub(crate) struct PageView {
    position: u64,
    end: u64,
    blocks: Vec<(u64, Bytes)>,
    next: usize,
}

impl PageView {
    /// Bytes that are still to come.
    pub(crate) fn remaining(&self) -> u64 {
        self.end - self.position
    }

    /// All bytes, joined.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.remaining()).unwrap_or_default());
        for frame in self.clone() {
            bytes.extend_from_slice(&frame);
        }
        bytes
    }
}

impl Iterator for PageView {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.position >= self.end {
            return None;
        }
        let index = self.position / BLOCK;
        let part = part_of_block(index, &(self.position..self.end));
        self.position += part.len() as u64;
        match self.blocks.get(self.next) {
            Some((at, data)) if *at == index => {
                self.next += 1;
                Some(data.slice(part))
            }
            _ => Some(Bytes::from_static(&ZEROS[part])),
        }
    }
}

/// Whole pages on their way into a blob, cut at the edges of its blocks.
#[derive(Clone, Debug)]
pub(crate) struct PageData {
    start: u64,
    pieces: Vec<Bytes>,
    /// The end of `pieces`, until it reaches a block's edge.
    growing: BytesMut,
    length: u64,
    /// Checksums of all bytes, once they were asked for: a write is checked with one, and its reply tells it.
    crc64: OnceLock<u64>,
    md5: OnceLock<[u8; 16]>,
}

impl PageData {
    /// Nothing yet, to be written at `start`.
    pub(crate) fn at(start: u64) -> PageData {
        PageData {
            start,
            pieces: Vec::new(),
            growing: BytesMut::new(),
            length: 0,
            crc64: OnceLock::new(),
            md5: OnceLock::new(),
        }
    }

    /// `bytes`, to be written at `start`.
    pub(crate) fn of(start: u64, bytes: &[u8]) -> PageData {
        let mut data = PageData::at(start);
        data.push(bytes);
        data.finish();
        data
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - offset_in_block(self.start + self.length);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            if self.growing.capacity() == 0 {
                self.growing.reserve(room);
            }
            self.growing.extend_from_slice(now);
            self.length += now.len() as u64;
            if now.len() == room {
                self.finish();
            }
            bytes = later;
        }
    }

    /// Says that no more bytes come.
    pub(crate) fn finish(&mut self) {
        if !self.growing.is_empty() {
            self.pieces.push(mem::take(&mut self.growing).freeze());
        }
    }

    /// CRC-64/NVME of all bytes; `finish` comes first.
    pub(crate) fn crc64(&self) -> u64 {
        *self.crc64.get_or_init(|| checksum::crc64(&self.pieces))
    }

    /// MD5 of all bytes; `finish` comes first.
    pub(crate) fn md5(&self) -> [u8; 16] {
        *self.md5.get_or_init(|| checksum::md5(&self.pieces))
    }

    /// Changes a bit of the byte at `offset`, if there is one. Checksums must not have been asked for.
    pub(crate) fn flip(&mut self, offset: u64) {
        let mut start = 0;
        for piece in &mut self.pieces {
            let index = usize::try_from(offset - start).unwrap_or(usize::MAX);
            if index < piece.len() {
                let mut changed = piece.to_vec();
                changed[index] ^= 1;
                *piece = Bytes::from(changed);
                return;
            }
            start += piece.len() as u64;
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    pub(crate) fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }
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
fn part_of_block(index: u64, range: &Range<u64>) -> Range<usize> {
    let block_start = index * BLOCK;
    let from_start = |position: u64| {
        usize::try_from(position.saturating_sub(block_start).min(BLOCK)).unwrap_or(BLOCK_BYTES)
    };
    from_start(range.start)..from_start(range.end)
}

fn offset_in_block(position: u64) -> usize {
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
    fn data_is_cut_at_blocks() {
        let mut data = PageData::at(BLOCK - PAGE);
        for _ in 0..258 {
            data.push(&[9; 256]);
            data.push(&[8; 256]);
        }
        data.finish();
        let lengths: Vec<usize> = data.pieces().iter().map(Bytes::len).collect();
        assert_eq!(lengths, [512, 65536, 65536, 512]);
        assert_eq!(data.len(), 258 * 512);
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
