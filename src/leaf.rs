//! Leaves: the 4096 bytes that each have a checksum of their own in the record of a point.
//!
//! File systems write in units of 4 KiB, so that a change covers whole leaves almost always. Where it does not, the
//! rest of the leaf is read along, in a request that is made anyway, and written back: in both images it is the
//! same, for the same reason as in a gap that was joined (see [`crate::plan`]). So the checksum of every leaf that
//! changed is known from the bytes that pass through, and no leaf is ever known in part.

use crate::range::{Extent, ExtentKind, PageRange};

/// Bytes in a leaf. The last one of an image is shorter: a VHD ends 512 bytes behind a whole number of them.
pub const LEAF: u64 = 4096;

/// Checksums of the leaves of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sums {
    /// All bytes are zero.
    Zeros,
    /// CRC-64/NVME of each leaf, in order.
    Leaves(Vec<u64>),
}

/// Number of the leaf that holds byte `at`.
pub fn leaf_of(at: u64) -> u64 {
    at / LEAF
}

/// Where leaf `number` of an image of `length` bytes lies; `None` behind its end.
pub fn range_of(number: u64, length: u64) -> Option<PageRange> {
    let start = number.checked_mul(LEAF)?;
    PageRange::new(start, start.saturating_add(LEAF).min(length)).ok()
}

/// `range` with the rest of the leaves that it touches, in an image of `length` bytes.
pub fn around(range: PageRange, length: u64) -> PageRange {
    let end = range.end().next_multiple_of(LEAF).min(length.max(range.end()));
    PageRange::new(range.start() / LEAF * LEAF, end).unwrap_or(range)
}

/// Brings an ordered stream of extents to the edges of leaves.
#[derive(Debug)]
pub struct Aligner {
    length: u64,
    /// Everything below was handed out or is unchanged.
    done: u64,
}

impl Aligner {
    /// For what lies behind `done` of an image of `length` bytes.
    pub fn new(done: u64, length: u64) -> Self {
        Self { length, done }
    }

    /// What is to be done for `extent`: itself, grown to whole leaves. The edges of a clear that share their leaf with
    /// something else become data.
    pub fn push(&mut self, extent: Extent) -> Vec<Extent> {
        let outer = around(extent.range, self.length);
        let parts = if extent.kind == ExtentKind::Data {
            vec![(outer.start(), outer.end(), ExtentKind::Data)]
        } else {
            let from = extent.range.start().next_multiple_of(LEAF);
            let is_to_the_end = extent.range.end() >= self.length;
            let to = if is_to_the_end { extent.range.end() } else { extent.range.end() / LEAF * LEAF };
            if from >= to {
                vec![(outer.start(), outer.end(), ExtentKind::Data)]
            } else {
                vec![
                    (outer.start(), from, ExtentKind::Data),
                    (from, to, ExtentKind::Clear),
                    (to, outer.end(), ExtentKind::Data),
                ]
            }
        };
        let mut placed = Vec::new();
        for (start, end, kind) in parts {
            if let Ok(range) = PageRange::new(start.max(self.done), end) {
                placed.push(Extent { range, kind });
                self.done = range.end();
            }
        }
        placed
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::range::PAGE;
    use proptest::prelude::*;

    proptest! {
        /// Per page: what was to be copied is copied; what was to be cleared is cleared, or copied where it shares a leaf;
        /// nothing is done twice, and all edges are those of leaves.
        #[test]
        fn extents_grow_to_whole_leaves(
            parts in proptest::collection::vec((0_u64..20, 1_u64..40, any::<bool>()), 1..30), tail in 0_u64..20
        ) {
            let mut at = 0;
            let mut extents = Vec::new();
            for (gap, pages, clear) in parts {
                at += gap;
                let range = PageRange::new(at * PAGE, (at + pages) * PAGE).unwrap();
                extents.push(Extent { range, kind: if clear { ExtentKind::Clear } else { ExtentKind::Data } });
                at += pages;
            }
            let length = (at + tail) * PAGE;
            let mut aligner = Aligner::new(0, length);
            let placed: Vec<_> = extents.iter().flat_map(|extent| aligner.push(*extent)).collect();
            prop_assert!(placed.windows(2).all(|pair| pair[0].range.end() <= pair[1].range.start()));
            for extent in &placed {
                let (start, end) = (extent.range.start(), extent.range.end());
                prop_assert!(start % LEAF == 0 && (end % LEAF == 0 || end == length), "{:?}", extent);
            }
            let kind_at = |list: &[Extent], page: u64| {
                list.iter().find(|e| (e.range.start()..e.range.end()).contains(&(page * PAGE))).map(|e| e.kind)
            };
            for page in 0..length / PAGE {
                let (wanted, done) = (kind_at(&extents, page), kind_at(&placed, page));
                match wanted {
                    Some(ExtentKind::Data) => prop_assert_eq!(done, Some(ExtentKind::Data)),
                    Some(ExtentKind::Clear) => prop_assert!(done.is_some()),
                    // Read along with its leaf, never cleared.
                    None => prop_assert!(done != Some(ExtentKind::Clear)),
                }
                if wanted == Some(ExtentKind::Clear) && done == Some(ExtentKind::Data) {
                    let leaf = page * PAGE / LEAF * LEAF / PAGE;
                    let last = (leaf + LEAF / PAGE).min(length / PAGE);
                    let shares = (leaf..last).any(|other| kind_at(&extents, other) != Some(ExtentKind::Clear));
                    let in_two = extents.windows(2).any(|pair| pair[0].range.end() == pair[1].range.start());
                    prop_assert!(shares || in_two);
                }
            }
        }
    }
}
