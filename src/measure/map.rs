//! Which parts of the disk were written, in at most [`MOST_CELLS`] cells whatever the disk's size.

use super::BlockMap;
use crate::leaf::LEAF;
use crate::range::PageRange;

/// Cells of a map at most.
pub(crate) const MOST_CELLS: u64 = 4096;

impl BlockMap {
    /// An empty map of a disk of `length` bytes.
    pub(crate) fn new(length: u64) -> Self {
        let cell = length.div_ceil(MOST_CELLS).next_multiple_of(LEAF).max(LEAF);
        let cells = usize::try_from(length.div_ceil(cell)).unwrap_or_default();
        Self { cell, data: vec![0; cells], zero: vec![0; cells] }
    }

    /// `range` was written, `sent` bytes of it as data and the rest as zeros. Where in it the zeros lay is not known any
    /// more: they are spread evenly.
    pub(crate) fn mark(&mut self, range: PageRange, sent: u64) {
        if self.cell == 0 {
            return;
        }
        let (mut at, mut data_before) = (range.start(), 0);
        while at < range.end() {
            let end = (at / self.cell * self.cell).saturating_add(self.cell).min(range.end());
            let data_until = part(sent, end - range.start(), range.len());
            let data = data_until - data_before;
            let Ok(cell) = usize::try_from(at / self.cell) else { return };
            if let (Some(in_data), Some(in_zero)) = (self.data.get_mut(cell), self.zero.get_mut(cell)) {
                *in_data += data;
                *in_zero += (end - at).saturating_sub(data);
            }
            (at, data_before) = (end, data_until);
        }
    }

    /// The map of two steps of one disk. Where the disk grew between them so far that the cells differ, only the later
    /// step's.
    pub(crate) fn join(self, later: Self) -> Self {
        if later.cell == 0 {
            return self;
        }
        if self.cell != later.cell {
            return later;
        }
        Self { cell: self.cell, data: sums(self.data, &later.data), zero: sums(self.zero, &later.zero) }
    }
}

/// `all * of / whole`, rounded down.
fn part(all: u64, of: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(all) * u128::from(of) / u128::from(whole.max(1))).unwrap_or(all)
}

fn sums(mut one: Vec<u64>, other: &[u64]) -> Vec<u64> {
    one.resize(one.len().max(other.len()), 0);
    for (cell, more) in one.iter_mut().zip(other) {
        *cell += more;
    }
    one
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn range(start: u64, end: u64) -> PageRange {
        PageRange::new(start, end).unwrap()
    }

    #[test]
    fn no_disk_has_more_cells_than_allowed_and_none_is_without_one() {
        for length in [512, LEAF, LEAF * MOST_CELLS, LEAF * MOST_CELLS + 512, 1 << 40, (8 << 40) + 512] {
            let map = BlockMap::new(length);
            let cells = map.data.len() as u64;
            assert!((1..=MOST_CELLS).contains(&cells), "{length}: {cells}");
            assert!(cells * map.cell >= length && (cells - 1) * map.cell < length, "{length}");
        }
    }

    #[test]
    fn every_byte_is_marked_once_in_the_cell_where_it_lies() {
        let mut map = BlockMap::new(10 * LEAF + 512);
        map.mark(range(LEAF / 2, 3 * LEAF), 2 * LEAF);
        map.mark(range(9 * LEAF, 10 * LEAF + 512), 0);
        let (data, zero) = (map.data.iter().sum::<u64>(), map.zero.iter().sum::<u64>());
        assert_eq!((data, zero), (2 * LEAF, LEAF / 2 + LEAF + 512));
        let all: Vec<u64> = map.data.iter().zip(&map.zero).map(|(data, zero)| data + zero).collect();
        assert_eq!(all, [LEAF / 2, LEAF, LEAF, 0, 0, 0, 0, 0, 0, LEAF, 512]);
        // Beyond the end of the disk there is nothing to mark, and nothing goes wrong.
        map.mark(range(10 * LEAF, 40 * LEAF), LEAF);
    }

    #[test]
    fn the_maps_of_two_steps_add_up() {
        let (mut one, mut other) = (BlockMap::new(4 * LEAF), BlockMap::new(5 * LEAF));
        one.mark(range(0, LEAF), LEAF);
        other.mark(range(0, 2 * LEAF), 0);
        let both = BlockMap::default().join(one).join(other.clone()).join(BlockMap::default());
        assert_eq!((both.data[0], both.zero[0], both.zero[1], both.data.len()), (LEAF, LEAF, LEAF, 5));
        assert_eq!(both.join(BlockMap::new(1 << 40)), BlockMap::new(1 << 40));
    }
}
