//! What lies under the stored pages of a generated disk: pages that are computed when somebody looks at them.
//!
//! A block that is stored hides the ground below it, wholly. So whoever writes a page first stores the block of it as the
//! ground has it.

use std::iter::once;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::pages::{BLOCK, Block};
use crate::generate::{Generator, Stretch, Stretches, zeros};

/// Generated pages, in the state of one snapshot.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    generator: Arc<Generator>,
    /// Where it ends; the blob may be longer.
    end: u64,
    /// The generations up to this one are there. It counts as the epochs of stored pages do.
    generation: u32,
    /// Whether the next snapshot comes with the next generation. A copy stays as it is.
    advances: bool,
}

impl Ground {
    pub(super) fn new(generator: Generator, end: u64, generation: u32) -> Ground {
        Ground { generator: Arc::new(generator), end, generation, advances: true }
    }

    /// Goes on to the next generation. Returns the state before, which stays as it is.
    pub(super) fn freeze(&mut self) -> Ground {
        let frozen = Ground { advances: false, ..self.clone() };
        if self.advances {
            self.generation += 1;
        }
        frozen
    }

    /// Drops what lies past `length`.
    pub(super) fn shorten(&mut self, length: u64) {
        self.end = self.end.min(length);
    }

    /// Where something was written after `epoch`, in order; neighbours may touch.
    pub(super) fn written_after(&self, epoch: u32, window: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let window = window.start..window.end.min(self.end);
        self.generator.runs(epoch.saturating_add(1)..=self.generation, window)
    }

    pub(super) fn has_data(&self, range: Range<u64>) -> bool {
        self.written_after(0, range).next().is_some()
    }

    pub(super) fn view(&self, range: Range<u64>) -> GroundView {
        let range = range.start..range.end.min(self.end);
        let mut stretches = self.generator.stretches(self.generation, range);
        let current = stretches.next();
        GroundView { generator: Arc::clone(&self.generator), stretches, current }
    }

    /// A block as it is here, to be stored; none if there is nothing in it.
    pub(super) fn block(&self, index: u64) -> Option<Block> {
        let range = index * BLOCK..((index + 1) * BLOCK).min(self.end);
        let mut stretches = self.generator.stretches(self.generation, range.clone()).peekable();
        stretches.peek()?;
        let mut data = BytesMut::new();
        let mut view = self.view(range);
        let mut position = index * BLOCK;
        while position < (index + 1) * BLOCK {
            let frame = view.frame(position..(index + 1) * BLOCK);
            position += frame.len() as u64;
            data.extend_from_slice(&frame);
        }
        let mut block = Block::of(data.freeze());
        for stretch in stretches {
            block.mark_written(index, &stretch.range, stretch.generation);
        }
        Some(block)
    }
}

/// The bytes of generated pages, from some place on.
#[derive(Clone, Debug)]
pub(super) struct GroundView {
    generator: Arc<Generator>,
    stretches: Stretches,
    /// The first stretch that was not passed yet.
    current: Option<Stretch>,
}

impl GroundView {
    /// The first bytes of `range`, as many as are at hand in one piece. Ranges must come in order.
    pub(super) fn frame(&mut self, range: Range<u64>) -> Bytes {
        while self.current.as_ref().is_some_and(|stretch| stretch.range.end <= range.start) {
            self.current = self.stretches.next();
        }
        let length = range.end - range.start;
        match &self.current {
            None => zeros(length),
            Some(stretch) if stretch.range.start > range.start => {
                zeros(length.min(stretch.range.start - range.start))
            }
            Some(stretch) => {
                let mut frame = self.generator.frame(stretch, range.start);
                frame.truncate(usize::try_from(length).unwrap_or(usize::MAX));
                frame
            }
        }
    }
}

/// The parts of `window` that are under none of some stored blocks, each with the block that ends it; the last part is
/// ended by the window.
pub(super) fn between_blocks(
    stored: impl IntoIterator<Item = u64>,
    window: &Range<u64>,
) -> impl Iterator<Item = (Range<u64>, Option<u64>)> {
    let mut position = window.start;
    let (start, end) = (window.start, window.end);
    stored.into_iter().map(Some).chain(once(None)).map(move |index| {
        let until = index.map_or(end, |index| (index * BLOCK).clamp(start, end));
        let free = position..until.max(position);
        position = index.map_or(end, |index| ((index + 1) * BLOCK).min(end));
        (free, index)
    })
}
