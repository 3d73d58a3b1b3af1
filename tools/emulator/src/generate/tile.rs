//! The bytes of generated data: slices of one tile of random bytes, which every disk shares.
//!
//! Each block of a disk shows the tile from another place on, drawn from the number of the block; the generation that
//! wrote it moves that place on. So bytes that are in a wrong place, or of a wrong generation, are wrong bytes, and yet
//! nothing is computed or copied for a read.

use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;

use crate::random::Random;

/// Bytes of a block: the longest frame.
const BLOCK: u64 = 256 * 1024;
const BLOCK_BYTES: usize = 256 * 1024;

/// The places of the tile where blocks can begin, one byte apart: a prime number, so that no two generations of fewer
/// than so many begin at the same place.
const PLACES: u64 = 2_097_143;

/// How far a generation moves the place.
const GENERATION_STEP: u64 = 611_953;

static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

static TILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random::new(0x7469_6c65);
    let bytes = usize::try_from(PLACES + BLOCK).unwrap_or_default();
    let mut tile = Vec::with_capacity(bytes + 8);
    while tile.len() < bytes {
        tile.extend_from_slice(&random.next().to_le_bytes());
    }
    tile
});

/// Random bytes for the beginning of `range`, as many as are at hand in one piece.
pub(super) fn frame(seed: u64, generation: u32, range: Range<u64>) -> Bytes {
    let block = range.start / BLOCK;
    let offset = range.start % BLOCK;
    let length = (range.end - range.start).min(BLOCK - offset);
    let drawn = Random::new(seed ^ block.wrapping_mul(0xa24b_aed4_963e_e407)).next();
    let moved = u64::from(generation) * GENERATION_STEP;
    let place = (drawn % PLACES + moved) % PLACES + offset;
    let start = usize::try_from(place).unwrap_or_default();
    let end = usize::try_from(place + length).unwrap_or_default();
    Bytes::from_static(&TILE[start..end])
}

/// At most `length` zeros, as many as are at hand in one piece.
pub(crate) fn zeros(length: u64) -> Bytes {
    let length = usize::try_from(length).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
    Bytes::from_static(&ZEROS[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_depends_on_place_and_generation() {
        let at = |generation, start: u64| frame(7, generation, start..start + 512);
        let base = at(1, BLOCK * 5 + 1024);
        assert_eq!(base.len(), 512);
        assert_eq!(base, at(1, BLOCK * 5 + 1024));
        for (generation, start) in [(2, BLOCK * 5 + 1024), (1, BLOCK * 5 + 512), (1, BLOCK * 6 + 1024)] {
            assert_ne!(base, at(generation, start));
        }
        assert_ne!(base, frame(8, 1, BLOCK * 5 + 1024..BLOCK * 5 + 1536));
        let cut = frame(7, 1, BLOCK - 512..BLOCK * 3);
        assert_eq!(cut.len(), 512);
        assert_eq!(frame(7, 1, BLOCK..BLOCK * 3).len(), BLOCK_BYTES);
    }

    #[test]
    fn no_page_is_zero() {
        assert!(TILE.windows(16).step_by(8).all(|bytes| bytes.iter().any(|byte| *byte != 0)));
        assert_eq!((zeros(3), zeros(u64::MAX).len()), (Bytes::from_static(&[0; 3]), BLOCK_BYTES));
    }
}
