//! Which chunks of an image are compared. Nothing is remembered: a number that comes from the seed and the chunk decides,
//! so that the same seed and chunk size choose the same chunks, in any order and on any machine.

/// What is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    /// The part of all chunks that is compared whole; 1 for all of them, 0 for none.
    pub(crate) sample: f64,
    /// The part of all chunks in which what the point's step did not write is compared.
    pub(crate) outside_diff: f64,
    /// What chance begins with.
    pub(crate) seed: u64,
}

/// How much of a chunk is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    OutsideDiff,
}

/// Makes two choices with one seed that are independent of each other.
const OUTSIDE: u64 = 0x6f75_7473_6964_6521;

impl Choice {
    /// Everything.
    pub(crate) fn all() -> Self {
        Self { sample: 1.0, outside_diff: 0.0, seed: 0 }
    }

    /// Whether chunk `number` of `chunks` is compared.
    pub(crate) fn part(&self, number: u64, chunks: u64) -> Option<Part> {
        if is_chosen(self.sample, self.seed, number, chunks) {
            return Some(Part::Whole);
        }
        is_chosen(self.outside_diff, self.seed ^ OUTSIDE, number, chunks).then_some(Part::OutsideDiff)
    }

    /// Bytes that are probably compared.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn expected(&self, length: u64) -> u64 {
        let part = self.sample + self.outside_diff * (1.0 - self.sample);
        (length as f64 * part) as u64
    }
}

/// A small image has at least one chunk in every sample.
fn is_chosen(fraction: f64, seed: u64, number: u64, chunks: u64) -> bool {
    fraction > 0.0 && (number == mixed(seed) % chunks.max(1) || share(mixed(seed ^ mixed(number))) < fraction)
}

/// Splitmix64: every bit of the result depends on every bit of `number`.
pub(super) fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// From 0 (included) to 1 (excluded).
fn share(number: u64) -> f64 {
    (number >> 11) as f64 / (1_u64 << 53) as f64
}

/// A seed that nobody chose.
pub(crate) fn any_seed() -> u64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    mixed(high ^ low) >> 11
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_chooses_about_its_fraction_and_the_same_chunks_every_time() {
        let chosen = |sample: f64, seed: u64, chunks: u64| -> Vec<u64> {
            let choice = Choice { sample, outside_diff: 0.0, seed };
            (0..chunks).filter(|number| choice.part(*number, chunks).is_some()).collect()
        };
        for seed in 0..20 {
            let many = chosen(0.05, seed, 100_000).len();
            assert!((4_700..5_300).contains(&many), "{many}");
            assert_eq!(chosen(0.05, seed, 1000), chosen(0.05, seed, 1000));
            assert_eq!(chosen(1.0, seed, 77).len(), 77);
            assert!(chosen(0.0, seed, 77).is_empty());
            assert!(!chosen(1e-9, seed, 3).is_empty(), "never nothing at all");
        }
        assert_ne!(chosen(0.05, 1, 1000), chosen(0.05, 2, 1000));
    }

    #[test]
    fn what_is_outside_the_diff_is_chosen_by_itself() {
        let choice = Choice { sample: 0.5, outside_diff: 0.5, seed: 7 };
        let parts: Vec<_> = (0..10_000).map(|number| choice.part(number, 10_000)).collect();
        let many = |part| parts.iter().filter(|found| **found == part).count();
        assert!((4_700..5_300).contains(&many(Some(Part::Whole))));
        assert!((2_300..2_700).contains(&many(Some(Part::OutsideDiff))));
        assert!((2_300..2_700).contains(&many(None)));
    }
}
