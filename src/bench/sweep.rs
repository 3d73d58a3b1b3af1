//! The sweep: which settings are run, in which order, and what becomes of their runs.

use tokio_util::sync::CancellationToken;

use super::ground::{Ground, Left};
use super::knee::knees;
use super::result::{Cell, Environment, FORMAT, MOST_CELLS, Mode, Repeat, Results, Setting, Statistic};
use super::run::{Bound, Measured, Subject, interrupted, run};
use super::statistics::interval;
use super::verdict::verdict;
use crate::azure::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::measure::times::Spread;
use crate::measure::{Course, Limit, Share};

/// How sure intervals are.
pub const CONFIDENCE: f64 = 0.95;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Most chunks in flight.
    pub windows: Vec<u64>,
    /// Largest chunks, in bytes.
    pub chunks: Vec<u64>,
    /// How bytes travel.
    pub modes: Vec<Mode>,
    /// What there is to copy, each pattern once.
    pub subjects: Vec<Subject>,
    /// Runs of each setting that count.
    pub repeats: u32,
    /// Runs of each mode and pattern before, that do not count.
    pub warm_up: u32,
    /// When a run has seen enough.
    pub bound: Bound,
    /// Decides the order of the runs.
    pub seed: u64,
}

/// What is told while it is measured.
pub trait Witness: Send {
    /// A run is over. `number` counts from 1; a warm-up has no rate.
    fn ran(&mut self, number: u64, of: u64, setting: Setting, rate: Option<f64>);
}

/// A benchmark that is over.
#[derive(Debug)]
pub struct Done {
    /// What it found; of the runs until an error, where there is one. `None` when there was none.
    pub results: Option<Results>,
    /// Why it ended before it was complete.
    pub error: Option<Error>,
    /// What could not be deleted.
    pub left: Option<Left>,
}

impl Sweep {
    /// Every setting, in the order in which they are shown.
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        for subject in &self.subjects {
            for &mode in &self.modes {
                for &chunk in &self.chunks {
                    for &window in &self.windows {
                        settings.push(Setting { mode, pattern: subject.pattern, window, chunk });
                    }
                }
            }
        }
        settings
    }

    /// How many runs it takes, warm-up included.
    pub fn runs(&self) -> u64 {
        let measured = self.settings().len() as u64 * u64::from(self.repeats);
        measured + (self.subjects.len() * self.modes.len()) as u64 * u64::from(self.warm_up)
    }

    /// # Errors
    /// [`ErrorKind::Usage`] when there are more settings than a document may hold.
    pub fn check(&self) -> Result<()> {
        let cells = self.settings().len();
        if cells > MOST_CELLS {
            let why = format!("it has {cells} settings; {MOST_CELLS} is the most");
            return Err(Error::new(ErrorKind::Usage, "plan the sweep", why).next("give fewer values"));
        }
        Ok(())
    }

    /// The places of [`Self::settings`] in the order in which they are run in one round.
    fn order(&self, round: u32) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.settings().len()).collect();
        fastrand::Rng::with_seed(self.seed.wrapping_add(u64::from(round))).shuffle(&mut order);
        order
    }

    pub(super) fn subject(&self, setting: Setting) -> Result<&Subject> {
        let found = self.subjects.iter().find(|subject| subject.pattern == setting.pattern);
        found.ok_or_else(|| {
            Error::new(ErrorKind::Internal, "find what is to be copied", "no subject has the pattern")
        })
    }
}

/// Measures all of it, and deletes what it wrote, however it ends.
pub async fn measure(
    sweep: &Sweep,
    ground: &Ground,
    client: &Client,
    environment: Environment,
    witness: &mut dyn Witness,
    cancel: &CancellationToken,
) -> Done {
    let started = std::time::Instant::now();
    if let Err(error) = ground.check().await {
        return Done { results: None, error: Some(error), left: None };
    }
    let mut gathered: Vec<Gathered> = sweep.settings().into_iter().map(Gathered::new).collect();
    let error = rounds(sweep, &mut gathered, ground, client, witness, cancel).await.err();
    // Nothing ends this but the second Ctrl-C: what stays costs money.
    let left = ground.clean().await.err();
    gathered.retain(|gathered| !gathered.runs.is_empty());
    let results = (!gathered.is_empty()).then(|| {
        let counted: usize = gathered.iter().map(|gathered| gathered.runs.len()).sum();
        let cells: Vec<Cell> = gathered.into_iter().map(Gathered::cell).collect();
        let knees = knees(&cells);
        let mut verdict = verdict(&cells, &knees, environment.emulated);
        if error.is_some() {
            let all = u64::from(sweep.repeats) * sweep.settings().len() as u64;
            verdict.sentence = format!("Not complete: {counted} of {all} runs. {}", verdict.sentence);
        }
        let mut results = Results {
            format: FORMAT,
            environment: Environment { seconds: started.elapsed().as_secs_f64(), ..environment },
            source: sweep.subjects.first().map(|subject| subject.source.to_string()).unwrap_or_default(),
            target: ground.container(),
            statistic: Statistic::Median,
            confidence: CONFIDENCE,
            cells,
            knees,
            verdict,
        };
        results.keep_courses_of_knees();
        results
    });
    Done { results, error, left }
}

async fn rounds(
    sweep: &Sweep,
    gathered: &mut [Gathered],
    ground: &Ground,
    client: &Client,
    witness: &mut dyn Witness,
    cancel: &CancellationToken,
) -> Result<()> {
    let settings = sweep.settings();
    let (all, mut number) = (sweep.runs(), 0);
    for setting in warm_up(sweep) {
        number += 1;
        once(sweep, setting, (ground, number), client, cancel).await?;
        witness.ran(number, all, setting, None);
    }
    for round in 0..sweep.repeats {
        for place in sweep.order(round) {
            number += 1;
            let measured = once(sweep, settings[place], (ground, number), client, cancel).await?;
            witness.ran(number, all, settings[place], Some(measured.repeat.rate));
            gathered[place].add(measured);
        }
    }
    Ok(())
}

/// One run, and its blob is gone.
async fn once(
    sweep: &Sweep,
    setting: Setting,
    place: (&Ground, u64),
    client: &Client,
    cancel: &CancellationToken,
) -> Result<Measured> {
    if cancel.is_cancelled() {
        return Err(interrupted());
    }
    let (ground, number) = place;
    let ran = run(sweep.subject(setting)?, setting, sweep.bound, place, client, cancel).await;
    // What the copy says about going on is not so: its blob is deleted.
    let measured = ran.map_err(|error| if cancel.is_cancelled() { interrupted() } else { error })?;
    // A benchmark that cannot delete must not go on writing.
    ground.delete(number).await.map_err(|left| left.error)?;
    Ok(measured)
}

/// The widest setting of each mode and pattern: it opens as many connections as any.
pub(super) fn warm_up(sweep: &Sweep) -> Vec<Setting> {
    let settings = sweep.settings();
    let mut runs = Vec::new();
    for subject in &sweep.subjects {
        for &mode in &sweep.modes {
            let ours = settings.iter().filter(|one| one.mode == mode && one.pattern == subject.pattern);
            let widest = ours.max_by_key(|one| (one.window, one.chunk));
            runs.extend(widest.into_iter().flat_map(|one| (0..sweep.warm_up).map(|_| *one)));
        }
    }
    runs
}

/// The runs of one setting.
struct Gathered {
    setting: Setting,
    runs: Vec<Measured>,
}

impl Gathered {
    fn new(setting: Setting) -> Self {
        Self { setting, runs: Vec::new() }
    }

    fn add(&mut self, measured: Measured) {
        self.runs.push(measured);
    }

    fn cell(self) -> Cell {
        let Self { setting, mut runs } = self;
        let count = runs.len().max(1) as f64;
        let repeats: Vec<Repeat> = runs.iter().map(|run| run.repeat).collect();
        let rates: Vec<f64> = repeats.iter().map(|repeat| repeat.rate).collect();
        let (mut reads, mut writes) = (Spread::default(), Spread::default());
        for run in &runs {
            reads.add(&run.reads);
            writes.add(&run.writes);
        }
        let requests: u64 = runs.iter().map(|run| run.requests).sum();
        let refused: u64 = runs.iter().map(|run| run.refused).sum();
        let seconds: f64 = repeats.iter().map(|repeat| repeat.seconds).sum();
        let cell = Cell {
            setting,
            repeats,
            rate: interval(&rates, CONFIDENCE),
            reads: reads.latency(),
            writes: writes.latency(),
            requests_per_second: if seconds > 0.0 { requests as f64 / seconds } else { 0.0 },
            refused: refused as f64 / requests.max(1) as f64,
            cpu_per_gib: runs.iter().map(|run| run.cpu_per_gib).sum::<f64>() / count,
            peak_memory: runs.iter().filter_map(|run| run.peak_memory).max(),
            machine_busy: mean(runs.iter().filter_map(|run| run.machine_busy)),
            limits: limits(&runs),
            course: None,
        };
        // The course of the run in the middle, the upper one of two.
        runs.sort_by(|one, other| one.repeat.rate.total_cmp(&other.repeat.rate));
        let middle = runs.len() / 2;
        let course = runs.into_iter().nth(middle).map(|run| run.course);
        Cell { course, ..cell }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// For which part of the time of all runs each was the limit, the longest first.
fn limits(runs: &[Measured]) -> Vec<Share> {
    let whole: f64 = runs.iter().map(|run| run.course.seconds).sum();
    let time = |limit: Limit, course: &Course| {
        let part = course.limits.iter().find(|share| share.limit == limit).map_or(0.0, |share| share.part);
        part * course.seconds
    };
    let mut limits = Vec::new();
    for limit in Limit::ALL {
        let seconds: f64 = runs.iter().map(|run| time(limit, &run.course)).sum();
        if seconds > 0.0 && whole > 0.0 {
            limits.push(Share { limit, part: (seconds / whole).min(1.0) });
        }
    }
    limits.sort_by(|one, other| other.part.total_cmp(&one.part));
    limits
}

impl Results {
    /// There can be thousands of cells, and a course is long.
    fn keep_courses_of_knees(&mut self) {
        let kept: Vec<Setting> =
            self.knees.iter().map(|knee| knee.setting).chain(self.verdict.best).collect();
        for cell in &mut self.cells {
            if !kept.contains(&cell.setting) {
                cell.course = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::super::result::Pattern;
    use super::*;
    use crate::azure::{PlainHttp, Resource, Role};

    fn sweep() -> Sweep {
        let source = "http://127.0.0.1:1/md-1/c/abcd?snapshot=2026-02-01T00:00:00.0000000Z";
        let source = Resource::parse(Role::Source, source, PlainHttp::LoopbackOnly).unwrap();
        let subject = |pattern| Subject { pattern, source: source.clone(), previous: None, is_kept: false };
        Sweep {
            windows: vec![4, 8, 16],
            chunks: vec![1 << 20, 4 << 20],
            modes: Mode::ALL.to_vec(),
            subjects: vec![subject(Pattern::Dense), subject(Pattern::Scattered)],
            repeats: 3,
            warm_up: 1,
            bound: Bound { bytes: None, time: Duration::from_secs(1) },
            seed: 7,
        }
    }

    #[test]
    fn each_setting_is_run_once_in_each_round_and_rounds_differ() {
        let sweep = sweep();
        assert_eq!((sweep.settings().len(), sweep.runs()), (24, 24 * 3 + 4));
        let orders: Vec<Vec<usize>> = (0..3).map(|round| sweep.order(round)).collect();
        for order in &orders {
            assert_eq!(order.iter().copied().collect::<BTreeSet<_>>().len(), 24);
        }
        assert!(orders[0] != orders[1] && orders[1] != orders[2]);
        assert_eq!(orders[0], sweep.order(0), "the seed decides");
        assert_ne!(orders[0], Sweep { seed: 8, ..sweep }.order(1 << 20));
    }

    #[test]
    fn the_widest_setting_warms_up() {
        let runs = warm_up(&sweep());
        assert_eq!(runs.len(), 4);
        assert!(runs.iter().all(|setting| setting.window == 16 && setting.chunk == 4 << 20));
    }

    #[test]
    fn a_sweep_without_end_is_refused() {
        let wide = Sweep { windows: (1..=1024).collect(), ..sweep() };
        assert_eq!(wide.check().unwrap_err().kind(), ErrorKind::Usage);
        assert!(sweep().check().is_ok());
    }
}
