//! The bytes of a stretch of a page blob on their way to whoever reads them.

use std::ops::Range;

use bytes::Bytes;

use super::ground::GroundView;
use super::pages::{BLOCK, part_of_block};
use crate::generate::zeros;

/// The bytes of a stretch of a blob, as frames to be sent: slices of the blob's blocks, and between them what lies under
/// them, or shared zeros.
#[derive(Clone, Debug)]
pub(crate) struct PageView {
    position: u64,
    end: u64,
    blocks: Vec<(u64, Bytes)>,
    next: usize,
    ground: Option<Box<GroundView>>,
}

impl PageView {
    pub(super) fn new(
        range: Range<u64>,
        blocks: Vec<(u64, Bytes)>,
        ground: Option<Box<GroundView>>,
    ) -> PageView {
        PageView { position: range.start, end: range.end, blocks, next: 0, ground }
    }

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
        let next = self.blocks.get(self.next);
        let next_start = next.map_or(self.end, |(index, _)| index * BLOCK).min(self.end);
        let frame = match next {
            Some((index, data)) if next_start <= self.position => {
                self.next += 1;
                data.slice(part_of_block(*index, &(self.position..self.end)))
            }
            _ => match &mut self.ground {
                Some(ground) => ground.frame(self.position..next_start),
                None => zeros(next_start - self.position),
            },
        };
        self.position += frame.len() as u64;
        Some(frame)
    }
}
