//! Where one layer lies. A layer is made of cells whose bounds follow from their numbers; what is in a cell is drawn
//! from its own random numbers. So the stretches at any place are found by computing one cell.

use std::ops::Range;

use super::pattern::Pattern;
use crate::random::Random;
use crate::range::PAGE;

/// Extents of one cell of a scattered layer: the gaps between them vary as they like, the cells are all alike.
const PER_CELL: u64 = 32;

/// Scattered extents lie on multiples of this, if their size is one: as file systems write.
const UNIT: u64 = 4096;

/// Cells of the mixed layer: small extents in the first half, a run in the other.
const MIXED_CELL: u64 = 32 << 20;
const MIXED_EXTENTS: u64 = 64;
const MIXED_SMALLEST_RUN: u64 = 4 << 20;

/// Cells of the layer with zeros.
const ZEROS_CELL: u64 = 1 << 20;

/// What one layer wrote in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) range: Range<u64>,
    pub(super) zeros: bool,
}

/// What one generation wrote.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pattern: Pattern,
    pub(super) generation: u32,
    seed: u64,
    /// Bytes of the disk.
    bytes: u64,
    cells: u64,
}

impl Layer {
    pub(super) fn new(pattern: Pattern, generation: u32, seed: u64, bytes: u64) -> Layer {
        let cells = match pattern {
            Pattern::None | Pattern::Dense => 1,
            Pattern::Scattered { extents, .. } => extents.div_ceil(PER_CELL),
            Pattern::Even { extents, .. } => extents,
            Pattern::Mixed => bytes.div_ceil(MIXED_CELL),
            Pattern::Zeros => bytes.div_ceil(ZEROS_CELL),
        };
        Layer { pattern, generation, seed, bytes, cells: cells.max(1) }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of the cell in which a byte of the disk lies.
    pub(super) fn cell_at(&self, position: u64) -> u64 {
        let guess = match self.pattern {
            Pattern::None | Pattern::Dense => 0,
            Pattern::Mixed => position / MIXED_CELL,
            Pattern::Zeros => position / ZEROS_CELL,
            Pattern::Scattered { .. } | Pattern::Even { .. } => {
                share(position, self.cells, self.bytes.max(1))
            }
        };
        let mut cell = guess.min(self.cells - 1);
        while cell > 0 && self.cell_start(cell) > position {
            cell -= 1;
        }
        while cell + 1 < self.cells && self.cell_start(cell + 1) <= position {
            cell += 1;
        }
        cell
    }

    /// The bytes of a cell.
    pub(super) fn cell(&self, cell: u64) -> Range<u64> {
        let end = if cell + 1 < self.cells { self.cell_start(cell + 1) } else { self.bytes };
        self.cell_start(cell)..end
    }

    fn cell_start(&self, cell: u64) -> u64 {
        match self.pattern {
            Pattern::None | Pattern::Dense => 0,
            Pattern::Mixed => cell * MIXED_CELL,
            Pattern::Zeros => cell * ZEROS_CELL,
            Pattern::Scattered { bytes, .. } | Pattern::Even { bytes, .. } => {
                let unit = unit_of(bytes);
                share(cell, self.bytes / unit, self.cells) * unit
            }
        }
    }

    /// Puts the pieces of a cell into `pieces`, in order.
    pub(super) fn fill(&self, cell: u64, pieces: &mut Vec<Piece>) {
        pieces.clear();
        let range = self.cell(cell);
        let mut random = Random::new(self.seed ^ cell.wrapping_mul(0xd6e8_feb8_6659_fd93));
        match self.pattern {
            Pattern::None => {}
            Pattern::Dense => pieces.push(Piece { range, zeros: false }),
            Pattern::Scattered { extents, bytes } => {
                let count = share(cell + 1, extents, self.cells) - share(cell, extents, self.cells);
                let size = |_: &mut Random| bytes;
                scatter(pieces, range, count, unit_of(bytes), &mut random, size);
            }
            Pattern::Even { bytes, .. } => {
                let unit = unit_of(bytes);
                let gap = (range.end - range.start).saturating_sub(bytes) / unit;
                // At least one unit lies in front, so that neighbours never touch.
                let start = range.start + gap.div_ceil(2) * unit;
                pieces.push(Piece { range: start..start + bytes, zeros: false });
            }
            Pattern::Mixed => mix(pieces, &range, &mut random),
            Pattern::Zeros => strew_zeros(pieces, &range, &mut random),
        }
    }
}

/// Whether a disk has room for so many extents that do not touch.
pub(super) fn fits(extents: u64, bytes: u64, disk_bytes: u64) -> bool {
    if extents == 0 {
        return true;
    }
    if bytes == 0 || !bytes.is_multiple_of(PAGE) {
        return false;
    }
    let unit = unit_of(bytes);
    // The smallest cell and the fullest one, of either kind of layer.
    let room = |cells: u64, most: u64| {
        let needed = u128::from(most) * u128::from(bytes / unit + 1);
        u128::from(disk_bytes / unit / cells) >= needed
    };
    room(extents.div_ceil(PER_CELL), extents.min(PER_CELL)) && room(extents, 1)
}

/// What extents of a size lie on multiples of.
fn unit_of(bytes: u64) -> u64 {
    if bytes.is_multiple_of(UNIT) { UNIT } else { PAGE }
}

/// `part * whole / parts`, rounded down.
fn share(part: u64, whole: u64, parts: u64) -> u64 {
    u64::try_from(u128::from(part) * u128::from(whole) / u128::from(parts)).unwrap_or(u64::MAX)
}

/// Puts `count` extents into a range, each with at least one unit of gap before it. What is left of the range is shared
/// out to the gaps at random.
fn scatter(
    pieces: &mut Vec<Piece>,
    range: Range<u64>,
    count: u64,
    unit: u64,
    random: &mut Random,
    size: impl Fn(&mut Random) -> u64,
) {
    // The same numbers are drawn twice: first for their sums, then for the extents.
    let mut draws = random.clone();
    let (mut filled, mut weights) = (0, 0);
    for _ in 0..count {
        filled += unit + size(&mut draws);
        weights += gap_weight(&mut draws);
    }
    weights += gap_weight(&mut draws);
    let spare = (range.end - range.start).saturating_sub(filled) / unit;
    let (mut before, mut weight) = (range.start, 0);
    for _ in 0..count {
        let bytes = size(random);
        weight += gap_weight(random);
        before += unit;
        let start = before + share(weight, spare, weights) * unit;
        pieces.push(Piece { range: start..start + bytes, zeros: false });
        before += bytes;
    }
}

/// The weight of a gap, distributed about as the times between independent events are: 65536 times the negative binary
/// logarithm of a random fraction, with straight lines between the powers of two.
fn gap_weight(random: &mut Random) -> u64 {
    let drawn = random.next() | 1;
    let zeros = drawn.leading_zeros();
    let fraction = ((drawn << zeros) << 1) >> 48;
    (u64::from(zeros) << 16) + (1 << 16) - fraction
}

fn mix(pieces: &mut Vec<Piece>, cell: &Range<u64>, random: &mut Random) {
    if cell.end - cell.start < MIXED_CELL {
        // The rest of a disk, or a small one.
        pieces.push(Piece { range: cell.clone(), zeros: false });
        return;
    }
    let half = cell.start + MIXED_CELL / 2;
    let size = |random: &mut Random| (1 + random.below(16)) * UNIT;
    scatter(pieces, cell.start..half, MIXED_EXTENTS, UNIT, random, size);
    let longest = MIXED_CELL / 2;
    let length = MIXED_SMALLEST_RUN + random.below((longest - MIXED_SMALLEST_RUN) / UNIT) * UNIT;
    let start = half + random.below((longest - length) / UNIT) * UNIT;
    pieces.push(Piece { range: start..start + length, zeros: false });
}

/// Data, zeros, data.
fn strew_zeros(pieces: &mut Vec<Piece>, cell: &Range<u64>, random: &mut Random) {
    let pages = (cell.end - cell.start) / PAGE;
    let from = cell.start + random.below(pages / 2 + 1) * PAGE;
    let to = from + random.below(pages / 2 + 1) * PAGE;
    for (range, zeros) in [(cell.start..from, false), (from..to, true), (to..cell.end, false)] {
        if !range.is_empty() {
            pieces.push(Piece { range, zeros });
        }
    }
}
