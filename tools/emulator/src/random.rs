//! Numbers that look random and are the same for the same seed.

/// `SplitMix64`.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if there is none. Slightly uneven, which nothing here minds.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// True with this probability: always from 1 on, never from 0 down.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        // The upper 53 bits are what a double holds exactly.
        let fraction = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        fraction < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            [random.next(), random.next(), random.below(10)]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(draw(3)[2] < 10);
        assert_eq!(Random::new(0).below(0), 0);
    }

    #[test]
    fn chances_are_kept() {
        let mut random = Random::new(5);
        let hits = |random: &mut Random, chance| (0..1000).filter(|_| random.chance(chance)).count();
        assert_eq!((hits(&mut random, 0.0), hits(&mut random, 1.0)), (0, 1000));
        assert!((400..600).contains(&hits(&mut random, 0.5)));
    }
}
