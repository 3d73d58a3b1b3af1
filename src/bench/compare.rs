//! Two benchmarks side by side: faster, slower, or no difference shown.
//!
//! A word is said only where the interval allows it. With a hundred cells, five intervals of 95% would miss by chance and
//! call equal things different: so the intervals of a comparison are widened until *all* of them hold together with the
//! confidence that is asked for (Bonferroni). What a small and even change comes to shows in the middle of all cells,
//! whose interval is much narrower.
//!
//! The repeats of one benchmark lie minutes apart, those of two perhaps days: another neighbour, another clock, another
//! place in memory. That moves all cells together, and no repeat within a benchmark shows it. So [`DRIFT`] is added to what
//! the repeats show.

use serde::Serialize;

use super::result::{Cell, Environment, Interval, Results, Setting};
use super::statistics::LogMiddle;

/// How far two benchmarks of the same program lie apart for no reason of its own, as a standard deviation of the logarithm
/// of their ratio: what benchmarks of a machine that others use, too, were seen to differ by.
pub const DRIFT: f64 = 0.08;

/// How two benchmarks compare.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What makes them hard to compare, a sentence each.
    pub warnings: Vec<String>,
    /// The settings that both have.
    pub cells: Vec<Compared>,
    /// All of these cells together, each counting alike; `None` where too little is known.
    pub overall: Option<Overall>,
    /// Settings that only the old one has.
    pub only_old: u64,
    /// Settings that only the new one has.
    pub only_new: u64,
    /// How sure it is that no interval of a cell misses.
    pub confidence: f64,
}

/// One setting in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// The setting.
    pub setting: Setting,
    /// Bytes a second in the old one, the median.
    pub old: f64,
    /// Bytes a second in the new one, the median.
    pub new: f64,
    /// New in terms of old, the medians.
    pub of_old: f64,
    /// The same with its interval; `None` where one of them has a single repeat.
    pub ratio: Option<Interval>,
    /// What can be said.
    pub word: Word,
}

/// All cells together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Overall {
    /// New in terms of old.
    pub ratio: Interval,
    /// What can be said.
    pub word: Word,
}

/// What can be said of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// The whole interval lies above 1.
    Faster,
    /// The whole interval lies below 1.
    Slower,
    /// It may be either.
    NoDifferenceShown,
    /// One of them was run once only: there is no interval.
    NotKnown,
}

impl Word {
    /// As it is shown.
    pub fn text(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::NoDifferenceShown => "no difference shown",
            Self::NotKnown => "not known: too few repeats",
        }
    }

    fn of(ratio: &Interval) -> Self {
        if ratio.low > 1.0 {
            Self::Faster
        } else if ratio.high < 1.0 {
            Self::Slower
        } else {
            Self::NoDifferenceShown
        }
    }
}

impl Comparison {
    /// Compares two benchmarks.
    pub fn of(old: &Results, new: &Results, confidence: f64) -> Self {
        let pairs: Vec<(&Cell, &Cell)> =
            old.cells.iter().filter_map(|cell| Some((cell, new.cell(cell.setting)?))).collect();
        let ratios: Vec<Option<LogMiddle>> =
            pairs.iter().map(|(old, new)| Some(middle(new)?.ratio_to(&middle(old)?))).collect();
        let known: Vec<LogMiddle> = ratios.iter().flatten().copied().collect();
        let of_each = 1.0 - (1.0 - confidence) / known.len().max(1) as f64;
        let cells: Vec<Compared> = pairs
            .iter()
            .zip(&ratios)
            .map(|((old, new), ratio)| {
                compared(old, new, ratio.map(|ratio| ratio.drifting(DRIFT).interval(of_each)))
            })
            .collect();
        let overall = LogMiddle::middle_of(&known).map(|middle| {
            let ratio = middle.drifting(DRIFT).interval(confidence);
            Overall { ratio, word: Word::of(&ratio) }
        });
        let count = |only: usize| only as u64;
        Self {
            warnings: warnings(old, new),
            only_old: count(old.cells.len() - cells.len()),
            only_new: count(new.cells.len().saturating_sub(cells.len())),
            cells,
            overall,
            confidence,
        }
    }

    /// Whether nothing is known of any cell.
    pub fn tells_nothing(&self) -> bool {
        self.cells.iter().all(|cell| cell.ratio.is_none())
    }

    /// What became slower, and by more than `part`: a cell, or all of them together. Slower is what surely is; how much is
    /// its middle.
    pub fn slower_by(&self, part: f64) -> Vec<String> {
        let is_much = |word: Word, ratio: f64| word == Word::Slower && ratio < 1.0 - part;
        let mut slower = Vec::new();
        for cell in &self.cells {
            if is_much(cell.word, cell.of_old) {
                slower.push(format!("{} to {:.3} of its rate", told(cell.setting), cell.of_old));
            }
        }
        if let Some(overall) = &self.overall
            && is_much(overall.word, overall.ratio.middle)
        {
            slower.push(format!("all cells together to {:.3} of their rate", overall.ratio.middle));
        }
        slower
    }
}

/// A setting in a few words.
pub fn told(setting: Setting) -> String {
    format!(
        "{} {} {}x{}",
        setting.pattern.name(),
        setting.mode.name(),
        setting.window,
        super::verdict::typed_size(setting.chunk)
    )
}

fn middle(cell: &Cell) -> Option<LogMiddle> {
    let rates: Vec<f64> = cell.repeats.iter().map(|repeat| repeat.rate).collect();
    LogMiddle::of(&rates)
}

fn compared(old: &Cell, new: &Cell, ratio: Option<Interval>) -> Compared {
    let (before, now) = (old.rate.middle, new.rate.middle);
    let alone = if before > 0.0 { now / before } else { 1.0 };
    let word = ratio.as_ref().map_or(Word::NotKnown, Word::of);
    let of_old = ratio.map_or(alone, |ratio| ratio.middle);
    Compared { setting: old.setting, old: before, new: now, of_old, ratio, word }
}

fn warnings(old: &Results, new: &Results) -> Vec<String> {
    let (one, other): (&Environment, &Environment) = (&old.environment, &new.environment);
    let mut warnings = Vec::new();
    let mut differ = |what: &str, old: String, new: String| {
        if old != new {
            warnings.push(format!("{what} differs: {old}, then {new}."));
        }
    };
    let size = |size: Option<u64>| size.map_or_else(|| "all".to_owned(), |bytes| format!("{bytes} bytes"));
    let service = |emulated: bool| if emulated { "the emulator" } else { "a real service" }.to_owned();
    differ("The version", one.version.clone(), other.version.clone());
    differ("The operating system", one.os.clone(), other.os.clone());
    differ("The processor", one.arch.clone(), other.arch.clone());
    differ("The number of cores", one.cores.to_string(), other.cores.to_string());
    differ("What was measured", service(one.emulated), service(other.emulated));
    differ("The bytes of a run", size(one.size), size(other.size));
    differ("The emulated line", quoted(&one.link), quoted(&other.link));
    if !one.emulated && !other.emulated {
        differ("The source", old.source.clone(), new.source.clone());
        differ("The target", old.target.clone(), new.target.clone());
    }
    let patterns = |results: &Results| {
        let mut names: Vec<&str> = results.cells.iter().map(|cell| cell.setting.pattern.name()).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    };
    differ("What was copied", patterns(old), patterns(new));
    warnings
}

fn quoted(link: &str) -> String {
    if link.is_empty() { "none".to_owned() } else { format!("'{link}'") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::knee::tests::{at, cell};
    use super::super::result::{FORMAT, Repeat, Statistic, Verdict};
    use super::super::statistics::interval;
    use super::*;
    use crate::measure::Limit;

    /// A benchmark of `cells` settings with so much noise; the same truth but for `factor`.
    fn made(random: &mut fastrand::Rng, cells: u64, repeats: usize, noise: f64, factor: f64) -> Results {
        let cells = (1..=cells).map(|window| {
            let truth = 1e8 * window as f64 * factor;
            let rates: Vec<f64> = (0..repeats)
                .map(|_| {
                    let sum: f64 = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
                    truth * (noise * sum).exp()
                })
                .collect();
            Cell {
                repeats: rates.iter().map(|rate| Repeat { seconds: 1.0, bytes: 1, rate: *rate }).collect(),
                rate: interval(&rates, 0.95),
                ..cell(at(window, 1 << 20), truth, 0.0, Limit::Unknown)
            }
        });
        Results {
            format: FORMAT,
            environment: Environment {
                version: "0.1.0".into(),
                os: "linux".into(),
                arch: "x86_64".into(),
                cores: 2,
                date: "2026-02-01T00:00:00Z".parse().unwrap(),
                seconds: 9.5,
                emulated: true,
                size: Some(1 << 30),
                link: String::new(),
                seed: 1,
            },
            source: "a".into(),
            target: "b".into(),
            statistic: Statistic::Median,
            confidence: 0.95,
            cells: cells.collect(),
            knees: vec![],
            verdict: Verdict { limit: Limit::Unknown, sentence: String::new(), advice: vec![], best: None },
        }
    }

    #[test]
    fn what_is_equal_is_called_different_in_less_than_one_of_twenty_comparisons() {
        let mut random = fastrand::Rng::with_seed(11);
        let (mut cells_wrong, mut overall_wrong) = (0, 0);
        for _ in 0..400 {
            let old = made(&mut random, 12, 5, 0.05, 1.0);
            // A day later, which moves all cells alike.
            let sum: f64 = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
            let new = made(&mut random, 12, 5, 0.05, (DRIFT * sum).exp());
            let compared = Comparison::of(&old, &new, 0.95);
            assert_eq!(compared.cells.len(), 12);
            cells_wrong += u32::from(compared.cells.iter().any(|cell| cell.word != Word::NoDifferenceShown));
            overall_wrong += u32::from(compared.overall.unwrap().word != Word::NoDifferenceShown);
        }
        assert!(cells_wrong <= 20 && overall_wrong <= 28, "{cells_wrong} and {overall_wrong} of 400");
    }

    #[test]
    fn what_is_faster_or_slower_is_called_so() {
        let mut random = fastrand::Rng::with_seed(12);
        let old = made(&mut random, 6, 5, 0.02, 1.0);
        let faster = Comparison::of(&old, &made(&mut random, 6, 5, 0.02, 1.5), 0.95);
        assert!(faster.cells.iter().all(|cell| cell.word == Word::Faster), "{faster:?}");
        assert_eq!(faster.overall.unwrap().word, Word::Faster);
        assert!(faster.slower_by(0.05).is_empty());
        let slower = Comparison::of(&old, &made(&mut random, 6, 5, 0.02, 0.7), 0.95);
        assert_eq!(slower.slower_by(0.05).len(), 7, "{slower:?}");
        assert!(slower.slower_by(0.5).is_empty());
    }

    #[test]
    fn a_change_that_no_cell_shows_shows_in_all_together() {
        let mut random = fastrand::Rng::with_seed(13);
        let old = made(&mut random, 40, 5, 0.1, 1.0);
        let new = made(&mut random, 40, 5, 0.1, 1.3);
        let compared = Comparison::of(&old, &new, 0.95);
        assert!(compared.cells.iter().any(|cell| cell.word == Word::NoDifferenceShown), "{compared:?}");
        assert_eq!(compared.overall.unwrap().word, Word::Faster, "{:?}", compared.overall);
    }

    #[test]
    fn of_one_repeat_nothing_is_said() {
        let mut random = fastrand::Rng::with_seed(14);
        let old = made(&mut random, 2, 1, 0.02, 1.0);
        let compared = Comparison::of(&old, &made(&mut random, 2, 5, 0.02, 9.0), 0.95);
        assert!(compared.cells.iter().all(|cell| cell.word == Word::NotKnown));
        assert_eq!(compared.overall, None);
        assert!(compared.slower_by(0.01).is_empty());
    }

    #[test]
    fn different_environments_and_settings_are_told() {
        let mut random = fastrand::Rng::with_seed(15);
        let old = made(&mut random, 3, 3, 0.02, 1.0);
        assert!(Comparison::of(&old, &old, 0.95).warnings.is_empty());
        let mut new = made(&mut random, 5, 3, 0.02, 1.0);
        new.environment.cores = 64;
        new.environment.version = "0.2.0".into();
        new.environment.size = None;
        let compared = Comparison::of(&old, &new, 0.95);
        assert_eq!(compared.warnings.len(), 3, "{:?}", compared.warnings);
        assert_eq!((compared.cells.len(), compared.only_old, compared.only_new), (3, 0, 2));
    }
}
