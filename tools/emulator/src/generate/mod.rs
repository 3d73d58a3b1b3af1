//! Disks that are computed and never stored: what a benchmark reads, whatever the size.
//!
//! ```text
//! pattern -> layout -> runs (where something is written: page lists)
//! (text)     (cells)   stretches -> frame (what is read: slices of the tile)
//! ```
//!
//! A disk is a pile of layers: the base is generation 1, and every snapshot after the first adds a layer of changes,
//! numbered as the epochs of stored pages are. A layer knows its stretches cell by cell, so any place of it is found
//! without looking at what lies before. The newest layer that covers a page decides what it holds.

mod layout;
mod pattern;
mod runs;
mod tile;

use std::ops::{Range, RangeInclusive};

pub use self::pattern::{BadPattern, Pattern};
pub(crate) use self::runs::{Runs, Stretch, Stretches};
pub(crate) use self::tile::zeros;

use self::layout::Layer;
use crate::random::Random;
use bytes::Bytes;

/// The generation of the base; the first epoch of pages.
const BASE: u32 = 1;

/// What a generated disk is computed from.
#[derive(Debug)]
pub(crate) struct Generator {
    seed: u64,
    bytes: u64,
    base: Pattern,
    changes: Pattern,
}

impl Generator {
    /// The patterns must fit the disk, see [`Pattern::fits`].
    pub(crate) fn new(seed: u64, bytes: u64, base: Pattern, changes: Pattern) -> Generator {
        Generator { seed, bytes, base, changes }
    }

    /// Where any of some generations wrote, in order; neighbours may touch.
    pub(crate) fn runs(&self, generations: RangeInclusive<u32>, window: Range<u64>) -> Runs {
        Runs::new(self.layers(generations), window)
    }

    /// What is there in one generation, and which one wrote it, in order.
    pub(crate) fn stretches(&self, generation: u32, window: Range<u64>) -> Stretches {
        Stretches::new(self.layers(BASE..=generation), window)
    }

    /// Bytes of a stretch from `position` on: not to its end, but as many as are at hand in one piece.
    pub(crate) fn frame(&self, stretch: &Stretch, position: u64) -> Bytes {
        if stretch.zeros {
            return zeros(stretch.range.end - position);
        }
        tile::frame(self.seed, stretch.generation, position..stretch.range.end)
    }

    /// The layers of some generations that hold anything, the newest first.
    fn layers(&self, generations: RangeInclusive<u32>) -> Vec<Layer> {
        let mut layers = Vec::new();
        for generation in generations.rev() {
            let pattern = if generation <= BASE { self.base } else { self.changes };
            if pattern == Pattern::None {
                continue;
            }
            let mut random = Random::new(self.seed ^ u64::from(generation).rotate_right(16));
            layers.push(Layer::new(pattern, generation, random.next(), self.bytes));
            if pattern == Pattern::Dense {
                // Nothing below it is seen.
                break;
            }
        }
        layers
    }
}
