//! Axes: which numbers stand on them, and where.

use super::units::{Unit, tick, time_unit};

/// Beyond everything that is measured, and not so far that a step leads to infinity.
const BEYOND: f64 = 1e300;

/// An axis with its ticks.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    is_logarithmic: bool,
    /// The value and what is written there.
    pub(super) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to a round number that is at least `largest`, labelled in `unit`.
    pub(super) fn from_zero(largest: f64, unit: Unit, most_steps: u32) -> Self {
        let largest = if largest > 0.0 { largest.min(BEYOND) } else { unit.size };
        let step = round_step(largest / unit.size, most_steps);
        let steps = (largest / unit.size / step - 1e-9).ceil().max(1.0);
        let ticks = ticks(step, steps, unit);
        Self { low: 0.0, high: steps * step * unit.size, is_logarithmic: false, ticks }
    }

    /// As far below 0 as above it: for what differs from something by at most `largest`.
    pub(super) fn around_zero(largest: f64, unit: Unit) -> Self {
        let above = Self::from_zero(largest, unit, 3);
        let mut ticks = Vec::new();
        for (value, label) in above.ticks.iter().skip(1).rev() {
            ticks.push((-value, format!("−{label}")));
        }
        for (value, label) in &above.ticks {
            let sign = if *value > 0.0 { "+" } else { "" };
            ticks.push((*value, format!("{sign}{label}")));
        }
        Self { low: -above.high, high: above.high, is_logarithmic: false, ticks }
    }

    /// From 0 to exactly `seconds`, so that what is drawn fills the plot.
    pub(super) fn of_time(seconds: f64) -> Self {
        let unit = time_unit(seconds);
        let step = round_step(seconds / unit.size, 6);
        let mut ticks = ticks(step, (seconds / unit.size / step + 1e-9).floor(), unit);
        for (value, label) in &mut ticks {
            if *value > 0.0 {
                label.push(' ');
                label.push_str(unit.name);
            }
        }
        Self { low: 0.0, high: seconds, is_logarithmic: false, ticks }
    }

    /// From a round number below `smallest` to one above `largest`, each step the same factor.
    pub(super) fn logarithmic(smallest: f64, largest: f64, unit: Unit) -> Self {
        let largest = if largest > 0.0 { largest.min(BEYOND) } else { unit.size };
        // More than six decades are not told apart any more.
        let least = largest / 1e6;
        let smallest = if smallest.is_finite() { smallest.clamp(least, largest) } else { least };
        let mut round = Vec::new();
        let mut decade = (smallest / unit.size).log10().floor();
        while round.last().is_none_or(|last| last * unit.size < largest * 0.999_999) {
            for factor in [1.0, 2.0, 5.0] {
                round.push(factor * 10_f64.powf(decade));
            }
            decade += 1.0;
        }
        let low = round.iter().rposition(|value| value * unit.size <= smallest * 1.000_001).unwrap_or(0);
        let high = round.iter().position(|value| value * unit.size >= largest * 0.999_999);
        // An axis has two ends, also where all that it is for is one value. A decade has three values, so there are two.
        let low = low.min(round.len() - 2);
        let high = high.unwrap_or(round.len() - 1).max(low + 1);
        let is_long = high - low > 6;
        let ticks = round[low..=high]
            .iter()
            .filter(|value| !is_long || is_power_of_ten(**value))
            .map(|value| (value * unit.size, tick(*value)))
            .collect();
        let (low, high) = (round[low] * unit.size, round[high] * unit.size);
        Self { low, high, is_logarithmic: true, ticks }
    }

    /// Names at equal distances; the first lies at 0, the second at 1. `margin` is the room around them.
    pub(super) fn named(names: &[&str], margin: f64) -> Self {
        let ticks =
            names.iter().enumerate().map(|(index, name)| (index as f64, (*name).to_owned())).collect();
        let last = names.len().saturating_sub(1) as f64;
        Self { low: -margin, high: last + margin, is_logarithmic: false, ticks }
    }

    /// Where a value lies, from 0 to 1; what lies outside of the axis is drawn at its end.
    pub(super) fn place(&self, value: f64) -> f64 {
        let place = if self.is_logarithmic {
            (value / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 }
    }
}

fn ticks(step: f64, steps: f64, unit: Unit) -> Vec<(f64, String)> {
    let mut ticks = Vec::new();
    let mut index = 0.0;
    while index <= steps {
        ticks.push((index * step * unit.size, tick(index * step)));
        index += 1.0;
    }
    ticks
}

/// The smallest 1, 2 or 5 of a power of ten of which at most `most` cover the range.
fn round_step(range: f64, most: u32) -> f64 {
    let least = range / f64::from(most);
    if !least.is_finite() || least <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    for factor in [1.0, 2.0, 5.0] {
        if factor * power >= least * 0.999_999 {
            return factor * power;
        }
    }
    10.0 * power
}

fn is_power_of_ten(value: f64) -> bool {
    let exponent = value.log10();
    (exponent - exponent.round()).abs() < 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Unit = Unit { name: "", size: 1.0 };
    const MIB: Unit = Unit { name: "MiB/s", size: 1_048_576.0 };

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_in_the_unit_of_the_axis() {
        let axis = Axis::from_zero(58.7 * MIB.size, MIB, 4);
        assert_eq!(labels(&axis), ["0", "20", "40", "60"]);
        assert!((axis.place(30.0 * MIB.size) - 0.5).abs() < 1e-9);
        // Exactly at a tick there is no step more than needed.
        assert_eq!(labels(&Axis::from_zero(60.0, ONE, 3)), ["0", "20", "40", "60"]);
        assert_eq!(labels(&Axis::from_zero(0.35, ONE, 4)), ["0", "0.1", "0.2", "0.3", "0.4"]);
        assert_eq!(labels(&Axis::of_time(37.0)), ["0", "10 s", "20 s", "30 s"]);
        assert_eq!(
            labels(&Axis::of_time(7200.0)),
            ["0", "20 min", "40 min", "60 min", "80 min", "100 min", "120 min"]
        );
    }

    #[test]
    fn an_axis_around_zero_is_even() {
        let axis = Axis::around_zero(3.2, ONE);
        assert_eq!(labels(&axis), ["−4", "−2", "0", "+2", "+4"]);
        assert!((axis.place(0.0) - 0.5).abs() < 1e-9 && axis.place(-4.0).abs() < 1e-9);
    }

    #[test]
    fn logarithmic_ticks_cover_what_is_shown() {
        let axis = Axis::logarithmic(12.0, 430.0, ONE);
        assert_eq!(labels(&axis), ["10", "20", "50", "100", "200", "500"]);
        assert!(axis.place(10.0).abs() < 1e-9 && (axis.place(500.0) - 1.0).abs() < 1e-9);
        assert_eq!(labels(&Axis::logarithmic(1.0, 100_000.0, ONE)).len(), 6);
        assert_eq!(labels(&Axis::logarithmic(0.3, 0.3, ONE)), ["0.2", "0.5"]);
        assert_eq!(labels(&Axis::logarithmic(5.0, 5.0, ONE)), ["2", "5"]);
        assert_eq!(labels(&Axis::logarithmic(2.0, 2.0, ONE)), ["2", "5"]);
    }

    #[test]
    fn an_axis_stands_whatever_it_is_made_from() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, 1e300] {
            for axis in [
                Axis::from_zero(value, MIB, 4),
                Axis::logarithmic(value, value, ONE),
                Axis::logarithmic(0.0, value, ONE),
                Axis::logarithmic(f64::NAN, value, MIB),
            ] {
                assert!((2..=40).contains(&axis.ticks.len()), "{value}: {axis:?}");
                for probe in [0.0, value, f64::NAN, -5.0] {
                    assert!((0.0..=1.0).contains(&axis.place(probe)), "{value}: {axis:?}");
                }
            }
        }
    }
}
