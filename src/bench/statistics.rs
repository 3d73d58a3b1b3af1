//! What a few repeats say: a middle, an interval, and the ratio of two of them.
//!
//! **The middle is the median**: one run that something else on the machine got into the way of does not move it.
//!
//! **The interval is Student's t on logarithms.** Rates are positive and their noise is a matter of percent, so that
//! logarithms are what spreads evenly. The standard error of a median is at most 1.2533 times that of a mean (for even
//! noise and many repeats; less for few), which makes the interval a little too wide rather than too narrow. A
//! bootstrap of three or five repeats can do nothing but choose among them: its interval misses the truth far more often
//! than it says.
//!
//! **Ratios** are differences of logarithms, each side with its own spread (Welch): a noisy old run and a quiet new one may
//! be held against each other.

use super::result::Interval;

/// Standard error of a median, as a multiple of that of a mean: the square root of half of pi.
const MEDIAN_TO_MEAN: f64 = 1.253_314_137_315_500_3;

/// Beyond as many degrees of freedom the distribution is the normal one to three digits.
const MOST_FREEDOM: f64 = 1000.0;

/// The logarithm of something that was measured a few times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogMiddle {
    /// The logarithm of the median.
    pub middle: f64,
    /// Its standard error, squared.
    pub variance: f64,
    /// Degrees of freedom of the variance.
    pub freedom: f64,
}

/// The median; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    let upper = *sorted.get(half)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { Some(f64::midpoint(sorted[half - 1], upper)) }
}

/// The median of rates and its interval. Of less than two rates, or where one is not positive, nothing is known but the
/// median itself.
pub fn interval(rates: &[f64], confidence: f64) -> Interval {
    let middle = median(rates).unwrap_or_default();
    let Some(log) = LogMiddle::of(rates) else { return Interval { middle, low: middle, high: middle } };
    log.interval(confidence)
}

impl LogMiddle {
    /// Of rates: at least two, all positive.
    pub fn of(rates: &[f64]) -> Option<Self> {
        if rates.len() < 2 || !rates.iter().all(|rate| *rate > 0.0 && rate.is_finite()) {
            return None;
        }
        let logs: Vec<f64> = rates.iter().map(|rate| rate.ln()).collect();
        let count = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / count;
        let spread = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let variance = spread / count * MEDIAN_TO_MEAN.powi(2);
        Some(Self { middle: median(rates)?.ln(), variance, freedom: count - 1.0 })
    }

    /// How many times as much `self` is as `other`.
    #[must_use]
    pub fn ratio_to(&self, other: &Self) -> Self {
        Self::sum(self.middle - other.middle, &[*self, *other], 1.0)
    }

    /// The middle of several ratios, each counting alike; `None` of none.
    pub fn middle_of(all: &[Self]) -> Option<Self> {
        if all.is_empty() {
            return None;
        }
        let part = 1.0 / all.len() as f64;
        Some(Self::sum(all.iter().map(|one| one.middle * part).sum(), all, part * part))
    }

    /// The same where it may also have moved by so much (one standard deviation) for reasons that no repeat shows.
    #[must_use]
    pub fn drifting(&self, by: f64) -> Self {
        let drift = Self { middle: 0.0, variance: by * by, freedom: MOST_FREEDOM };
        Self::sum(self.middle, &[*self, drift], 1.0)
    }

    /// Variances add up; their degrees of freedom by Welch and Satterthwaite.
    fn sum(middle: f64, all: &[Self], weight: f64) -> Self {
        let variance: f64 = all.iter().map(|one| one.variance * weight).sum();
        let parts: f64 = all.iter().map(|one| (one.variance * weight).powi(2) / one.freedom).sum();
        let fewest = all.iter().map(|one| one.freedom).fold(f64::INFINITY, f64::min);
        let freedom = if parts > 0.0 { (variance * variance / parts).max(1.0) } else { fewest };
        Self { middle, variance, freedom }
    }

    /// As it was measured, not its logarithm.
    pub fn interval(&self, confidence: f64) -> Interval {
        let reach = student(self.freedom, confidence) * self.variance.sqrt();
        Interval {
            middle: self.middle.exp(),
            low: (self.middle - reach).exp(),
            // More than anybody measures, and finite: JSON knows no other numbers.
            high: (self.middle + reach).exp().min(f64::MAX),
        }
    }
}

/// How many standard errors an interval reaches to each side, by Student's distribution.
///
/// With `x = sqrt(f) tan(a)` its density becomes `cos(a)^(f-1)`, which is bounded and on a bounded range: its sum is
/// walked along from the end until the tail is as large as it may be.
fn student(freedom: f64, confidence: f64) -> f64 {
    const STEPS: u32 = 40_000;
    let freedom = freedom.clamp(1.0, MOST_FREEDOM);
    let step = std::f64::consts::FRAC_PI_2 / f64::from(STEPS);
    let density = |number: u32| ((f64::from(number) + 0.5) * step).cos().powf(freedom - 1.0);
    let half: f64 = (0..STEPS).map(density).sum();
    let tail = half * (1.0 - confidence.clamp(0.0, 1.0));
    let mut sum = 0.0;
    for number in (0..STEPS).rev() {
        let next = density(number);
        if sum + next >= tail {
            // Within the step, as if the density were even there.
            let into = if next > 0.0 { (tail - sum) / next } else { 0.0 };
            return freedom.sqrt() * ((f64::from(number) + 1.0 - into) * step).tan();
        }
        sum += next;
    }
    0.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn students_numbers_are_those_of_the_tables() {
        let known = [
            (1.0, 0.95, 12.706),
            (2.0, 0.95, 4.303),
            (4.0, 0.95, 2.776),
            (10.0, 0.95, 2.228),
            (30.0, 0.95, 2.042),
            (5.0, 0.99, 4.032),
            (8.0, 0.999, 5.041),
            (1e9, 0.95, 1.962),
        ];
        for (freedom, confidence, right) in known {
            let found = student(freedom, confidence);
            assert!((found / right - 1.0).abs() < 0.001, "{freedom} {confidence}: {found}, not {right}");
        }
    }

    #[test]
    fn the_median_is_in_the_middle_and_one_repeat_has_no_interval() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(interval(&[7.0], 0.95), Interval { middle: 7.0, low: 7.0, high: 7.0 });
        assert_eq!(interval(&[7.0, 0.0], 0.95), Interval { middle: 3.5, low: 3.5, high: 3.5 });
        let equal = interval(&[5.0; 4], 0.95);
        assert!((equal.high - equal.low).abs() < 1e-9);
    }

    /// Noise of a few percent, more or less normal: the sum of twelve even ones.
    fn noisy(random: &mut fastrand::Rng, rate: f64, noise: f64) -> f64 {
        let sum: f64 = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        rate * (noise * sum).exp()
    }

    #[test]
    fn an_interval_holds_the_truth_as_often_as_it_says() {
        let mut random = fastrand::Rng::with_seed(5);
        for repeats in [2, 3, 5, 9] {
            let held = (0..2000).filter(|_| {
                let rates: Vec<f64> = (0..repeats).map(|_| noisy(&mut random, 100.0, 0.05)).collect();
                let found = interval(&rates, 0.95);
                found.low <= 100.0 && 100.0 <= found.high
            });
            let part = held.count() as f64 / 2000.0;
            assert!(part >= 0.94, "{repeats} repeats: it held the truth in {part} of all cases");
        }
    }

    #[test]
    fn a_ratio_is_rarely_taken_for_one_that_it_is_not_also_when_one_side_is_noisy() {
        let mut random = fastrand::Rng::with_seed(6);
        let mut wrong = 0;
        for _ in 0..2000 {
            let quiet: Vec<f64> = (0..5).map(|_| noisy(&mut random, 100.0, 0.005)).collect();
            let loud: Vec<f64> = (0..3).map(|_| noisy(&mut random, 100.0, 0.1)).collect();
            let ratio =
                LogMiddle::of(&loud).unwrap().ratio_to(&LogMiddle::of(&quiet).unwrap()).interval(0.95);
            wrong += u32::from(ratio.low > 1.0 || ratio.high < 1.0);
        }
        assert!(wrong <= 120, "{wrong} of 2000 intervals miss the truth");
    }

    proptest! {
        #[test]
        fn an_interval_is_in_order_finite_and_holds_its_middle(
            rates in proptest::collection::vec(1e-3_f64..1e12, 1..12),
            confidence in 0.5_f64..0.9999,
        ) {
            let found = interval(&rates, confidence);
            prop_assert!(found.low <= found.middle * (1.0 + 1e-9) && found.middle <= found.high * (1.0 + 1e-9));
            prop_assert!(found.low >= 0.0 && found.high.is_finite());
            let wider = interval(&rates, f64::midpoint(confidence, 1.0));
            prop_assert!(wider.low <= found.low * (1.0 + 1e-9) && wider.high >= found.high * (1.0 - 1e-9));
        }

        #[test]
        fn a_ratio_the_other_way_round_is_its_inverse(
            one in proptest::collection::vec(1.0_f64..1e6, 2..8),
            other in proptest::collection::vec(1.0_f64..1e6, 2..8),
        ) {
            let (one, other) = (LogMiddle::of(&one).unwrap(), LogMiddle::of(&other).unwrap());
            let (there, back) = (one.ratio_to(&other), other.ratio_to(&one));
            prop_assert!((there.middle + back.middle).abs() < 1e-9);
            prop_assert!((there.variance - back.variance).abs() <= 1e-9 * there.variance.max(1e-300));
        }
    }
}
