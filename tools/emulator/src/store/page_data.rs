//! Whole pages on their way into a blob: kept in pieces that become its blocks, or checked and dropped as they come.

use std::mem;
use std::ops::Range;
use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest as CrcDigest};
use md5::{Digest, Md5};

use super::pages::{BLOCK_BYTES, offset_in_block};
use crate::checksum;

/// Whole pages on their way into a blob, cut at the edges of its blocks.
#[derive(Clone, Debug)]
pub(crate) struct PageData {
    start: u64,
    length: u64,
    pieces: Vec<Bytes>,
    /// Where the pieces begin: after what was dropped.
    kept_from: u64,
    /// The end of `pieces`, until it reaches a block's edge.
    growing: BytesMut,
    /// What is known of bytes that are dropped.
    passing: Option<Box<Passing>>,
    /// Checksums of all bytes, once they were asked for: a write is checked with one, and its reply tells it.
    crc64: OnceLock<u64>,
    md5: OnceLock<[u8; 16]>,
}

/// Checksums of what has passed so far.
#[derive(Clone, Debug)]
struct Passing {
    crc64: CrcDigest,
    /// Only if somebody will ask for it: it costs more than all else together.
    md5: Option<Md5>,
}

impl PageData {
    /// Nothing yet, to be written at `start`.
    pub(crate) fn at(start: u64) -> PageData {
        PageData {
            start,
            length: 0,
            pieces: Vec::new(),
            kept_from: start,
            growing: BytesMut::new(),
            passing: None,
            crc64: OnceLock::new(),
            md5: OnceLock::new(),
        }
    }

    /// Nothing yet, to be written at `start`, and to be dropped up to `kept_from`. The checksums are those of all bytes;
    /// MD5 is right only if it was asked for here.
    pub(crate) fn passing(start: u64, kept_from: u64, with_md5: bool) -> PageData {
        let crc64 = CrcDigest::new(CrcAlgorithm::Crc64Nvme);
        let passing = Passing { crc64, md5: with_md5.then(Md5::new) };
        let kept_from = kept_from.max(start);
        PageData { kept_from, passing: Some(Box::new(passing)), ..PageData::at(start) }
    }

    /// `bytes`, to be written at `start`.
    pub(crate) fn of(start: u64, bytes: &[u8]) -> PageData {
        let mut data = PageData::at(start);
        data.push(bytes);
        data.finish();
        data
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        if let Some(passing) = &mut self.passing {
            passing.crc64.update(bytes);
            if let Some(md5) = &mut passing.md5 {
                md5.update(bytes);
            }
            let to_drop = self.kept_from.saturating_sub(self.start + self.length);
            let dropped = bytes.len().min(usize::try_from(to_drop).unwrap_or(usize::MAX));
            self.length += dropped as u64;
            bytes = &bytes[dropped..];
        }
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - offset_in_block(self.start + self.length);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            if self.growing.capacity() == 0 {
                self.growing.reserve(room);
            }
            self.growing.extend_from_slice(now);
            self.length += now.len() as u64;
            if now.len() == room {
                self.end_piece();
            }
            bytes = later;
        }
    }

    /// Says that no more bytes come.
    pub(crate) fn finish(&mut self) {
        self.end_piece();
        if let Some(passing) = self.passing.take() {
            self.crc64 = OnceLock::from(passing.crc64.finalize());
            if let Some(md5) = passing.md5 {
                self.md5 = OnceLock::from(<[u8; 16]>::from(md5.finalize()));
            }
        }
    }

    fn end_piece(&mut self) {
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

    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Where the bytes are to be written, dropped ones included.
    pub(crate) fn range(&self) -> Range<u64> {
        self.start..self.start + self.length
    }

    /// The bytes, as far as they are kept.
    pub(crate) fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// The same, each with the place where it is to be written.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (u64, &Bytes)> {
        let mut position = self.kept_from;
        self.pieces.iter().map(move |piece| {
            let start = position;
            position += piece.len() as u64;
            (start, piece)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pages::BLOCK;
    use super::*;
    use crate::range::PAGE;

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
    fn what_passes_has_the_checksums_of_all_bytes() {
        let bytes: Vec<u8> = (0..200_704_u32).map(|number| number.to_le_bytes()[1]).collect();
        let kept = PageData::of(4096, &bytes);
        for kept_from in [0, 4096, 100_352, 1 << 40] {
            let mut passing = PageData::passing(4096, kept_from, true);
            for part in bytes.chunks(7777) {
                passing.push(part);
            }
            passing.finish();
            assert_eq!((passing.len(), passing.range()), (200_704, 4096..204_800));
            assert_eq!((passing.crc64(), passing.md5()), (kept.crc64(), kept.md5()));
            let first = kept_from.clamp(4096, 204_800);
            assert_eq!(passing.pieces().concat(), bytes[usize::try_from(first - 4096).unwrap_or(0)..]);
            assert!(passing.placed().next().is_none_or(|(start, _)| start == first));
        }
    }
}
