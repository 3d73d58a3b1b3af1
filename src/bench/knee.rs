//! The knee: the smallest setting beyond which more in flight gains nothing worth having.
//!
//! For each mode and pattern it is the smallest window, and for that the smallest chunk, whose rate is within 5% of the
//! best one *and* whose interval reaches that of the best: a rate that is surely lower is not as good as the best, however
//! near it lies, and one that is much lower is not as good only because it was measured badly.

use super::result::{Cell, Knee, Mode, Pattern};

/// How near the best a rate must be.
const NEAR: f64 = 0.95;

/// The knee of each mode and pattern that was measured.
pub fn knees(cells: &[Cell]) -> Vec<Knee> {
    let mut knees = Vec::new();
    for pattern in Pattern::ALL {
        for mode in Mode::ALL {
            let mut ours: Vec<&Cell> = cells
                .iter()
                .filter(|cell| cell.setting.mode == mode && cell.setting.pattern == pattern)
                .collect();
            ours.sort_by_key(|cell| (cell.setting.window, cell.setting.chunk));
            knees.extend(knee(&ours));
        }
    }
    knees
}

/// Of cells in order of their size.
fn knee(cells: &[&Cell]) -> Option<Knee> {
    let best = cells.iter().max_by(|one, other| one.rate.middle.total_cmp(&other.rate.middle))?;
    let good =
        |cell: &&&Cell| cell.rate.middle >= NEAR * best.rate.middle && (cell.rate.high >= best.rate.low);
    let found = cells.iter().find(good)?;
    let of_best = if best.rate.middle > 0.0 { found.rate.middle / best.rate.middle } else { 1.0 };
    Some(Knee { setting: found.setting, of_best })
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::result::{Interval, Repeat, Setting};
    use super::*;
    use crate::measure::{Latency, Limit, Share};

    /// A cell that was made up.
    pub(in super::super) fn cell(setting: Setting, rate: f64, reach: f64, limit: Limit) -> Cell {
        let repeat = |rate| Repeat { seconds: 1.0, bytes: 1 << 30, rate };
        Cell {
            setting,
            repeats: [rate * (1.0 - reach / 2.0), rate, rate * (1.0 + reach / 2.0)].map(repeat).to_vec(),
            rate: Interval { middle: rate, low: rate * (1.0 - reach), high: rate * (1.0 + reach) },
            reads: Latency::default(),
            writes: Latency::default(),
            requests_per_second: 100.0,
            refused: 0.0,
            cpu_per_gib: 0.5,
            peak_memory: None,
            machine_busy: None,
            limits: vec![Share { limit, part: 0.9 }, Share { limit: Limit::Unknown, part: 0.1 }],
            course: None,
        }
    }

    pub(in super::super) fn at(window: u64, chunk: u64) -> Setting {
        Setting { mode: Mode::Stream, pattern: Pattern::Dense, window, chunk }
    }

    fn of(rates: &[(u64, u64, f64, f64)]) -> Knee {
        let made = |(window, chunk, rate, reach): &(u64, u64, f64, f64)| {
            cell(at(*window, *chunk), *rate, *reach, Limit::Unknown)
        };
        let found = knees(&rates.iter().map(made).collect::<Vec<_>>());
        assert_eq!(found.len(), 1);
        found[0]
    }

    #[test]
    fn it_is_where_the_rates_stop_growing() {
        let knee = of(&[
            (4, 1, 100.0, 0.02),
            (8, 1, 200.0, 0.02),
            (16, 1, 390.0, 0.02),
            (32, 1, 400.0, 0.02),
            (64, 1, 401.0, 0.02),
        ]);
        assert_eq!((knee.setting.window, (knee.of_best * 1000.0).round()), (16, 973.0));
    }

    #[test]
    fn a_rate_that_is_surely_lower_is_none_and_one_that_is_badly_known_is_none_either() {
        // Within 5%, but surely lower.
        assert_eq!(of(&[(8, 1, 96.0, 0.005), (16, 1, 100.0, 0.005)]).setting.window, 16);
        // It may be as good as the best; it looks much worse.
        assert_eq!(of(&[(8, 1, 70.0, 0.9), (16, 1, 100.0, 0.01)]).setting.window, 16);
    }

    #[test]
    fn a_smaller_window_counts_before_a_smaller_chunk() {
        let knee = of(&[(8, 4, 99.0, 0.05), (16, 1, 100.0, 0.05), (8, 2, 98.0, 0.05)]);
        assert_eq!((knee.setting.window, knee.setting.chunk), (8, 2));
    }

    #[test]
    fn modes_and_patterns_have_their_own() {
        let other = Setting { mode: Mode::Server, ..at(4, 1) };
        let scattered = Setting { pattern: Pattern::Scattered, ..at(4, 1) };
        let cells = [at(4, 1), other, scattered].map(|setting| cell(setting, 1.0, 0.0, Limit::Cpu));
        assert_eq!(knees(&cells).len(), 3);
        assert!(knees(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn it_is_never_far_from_the_best_and_nothing_smaller_is_as_good(
            rates in proptest::collection::vec((1.0_f64..1000.0, 0.0_f64..0.3), 1..12),
        ) {
            let cells: Vec<Cell> = (1_u64..)
                .zip(&rates)
                .map(|(window, (rate, reach))| cell(at(window, 1), *rate, *reach, Limit::Unknown))
                .collect();
            let knee = knees(&cells)[0];
            let best = rates.iter().map(|(rate, _)| *rate).fold(0.0, f64::max);
            prop_assert!(knee.of_best >= NEAR && knee.of_best <= 1.0);
            for cell in cells.iter().filter(|cell| cell.setting.window < knee.setting.window) {
                let reaches = cell.rate.high >= cells.iter()
                    .find(|one| one.rate.middle >= best).map_or(0.0, |one| one.rate.low);
                prop_assert!(cell.rate.middle < NEAR * best || !reaches);
            }
        }
    }
}
