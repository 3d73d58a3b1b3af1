//! An observer of a run: samples its counters a few times a second, finds what limits it, and keeps the course.
//!
//! ```text
//! Progress ──every 250 ms──> Counters ──> LimitFinder ──> Progress (shown), Sample (kept)
//! ```
//!
//! **Cost.** A look takes a dozen short locks and two questions to the system: 25 microseconds, four times a second. The
//! samples of a run take at most 120 KiB, however long it is: when there are a thousand, every other one is dropped, and
//! from then on half as many are kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::times::Spread;
use super::{BlockMap, Counters, Course, Found, Limit, LimitFinder, Sample, Share, Side, cpu};
use crate::azure::Reading;
use crate::progress::Progress;

/// Time between two looks, unless something else is wanted.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// Samples of a course at most.
const MOST_SAMPLES: usize = 1000;

/// Begins to observe a run: `progress` is looked at after each time of `every`, until the observer is dropped. To be called
/// within the runtime of the run; no thread is made.
pub fn observe(progress: &Progress, every: Duration) -> Observer {
    let sampler = Arc::new(Mutex::new(Sampler::new(progress.clone())));
    let looking = Arc::clone(&sampler);
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let task = tokio::spawn(async move {
        loop {
            ticks.tick().await;
            lock(&looking).look();
        }
    });
    Observer { sampler, task }
}

/// Observes a run until it is finished or dropped.
pub struct Observer {
    sampler: Arc<Mutex<Sampler>>,
    task: tokio::task::JoinHandle<()>,
}

impl Observer {
    /// From here on another run is observed, such as the next step of a chain: the counters go on from where they are.
    pub fn follow(&self, next: &Progress) {
        lock(&self.sampler).follow(next);
    }

    /// What limits the run now.
    pub fn found(&self) -> Found {
        lock(&self.sampler).found
    }

    /// The course from the beginning until now.
    pub fn finish(self) -> Course {
        let mut sampler = lock(&self.sampler);
        sampler.look();
        sampler.course()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(sampler: &Mutex<Sampler>) -> MutexGuard<'_, Sampler> {
    sampler.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an observer knows.
struct Sampler {
    progress: Progress,
    begun: Instant,
    cpu_before: f64,
    finder: LimitFinder,
    found: Found,
    /// Sums over the runs that are over.
    past: Sums,
    reads: Spread,
    writes: Spread,
    map: BlockMap,
    samples: Thinned,
    /// Seconds for which each was the limit, in the order of [`Limit::ALL`].
    limited: [f64; Limit::ALL.len()],
    looked_at: f64,
}

/// The counters of one run, or of several.
#[derive(Clone, Copy, Default)]
struct Sums {
    counters: Counters,
    bytes_in: u64,
    bytes_out: u64,
    bytes_done: u64,
}

impl Sampler {
    fn new(progress: Progress) -> Self {
        Self {
            progress,
            begun: Instant::now(),
            cpu_before: cpu::seconds(),
            finder: LimitFinder::default(),
            found: Found::default(),
            past: Sums::default(),
            reads: Spread::default(),
            writes: Spread::default(),
            map: BlockMap::default(),
            samples: Thinned::new(MOST_SAMPLES),
            limited: [0.0; Limit::ALL.len()],
            looked_at: 0.0,
        }
    }

    /// The sums of all runs until now.
    fn sums(&self) -> Sums {
        let now = self.progress.read();
        let (bytes_done, _, window) = self.progress.window();
        let past = &self.past.counters;
        let counters = Counters {
            at: self.begun.elapsed().as_secs_f64(),
            source: past.source + side(&now.source),
            target: past.target + side(&now.target),
            held: past.held + self.progress.held(),
            window,
            cpu: cpu::seconds() - self.cpu_before,
            cores: cpu::cores(),
        };
        Sums {
            counters,
            bytes_in: self.past.bytes_in + now.source.bytes_in,
            bytes_out: self.past.bytes_out + now.target.bytes_out,
            bytes_done: self.past.bytes_done + bytes_done,
        }
    }

    fn look(&mut self) {
        let now = self.sums();
        let counters = now.counters;
        self.found = self.finder.look(counters);
        self.progress.show_limit(self.found);
        let place = Limit::ALL.iter().position(|limit| *limit == self.found.limit).unwrap_or_default();
        self.limited[place] += counters.at - self.looked_at;
        self.looked_at = counters.at;
        self.samples.push(Sample {
            at: counters.at,
            bytes_in: now.bytes_in,
            bytes_out: now.bytes_out,
            bytes_done: now.bytes_done,
            source_requests: counters.source.requests,
            target_requests: counters.target.requests,
            source_refused: counters.source.refused,
            target_refused: counters.target.refused,
            in_flight: self.progress.window().1,
            window: counters.window,
            cpu: counters.cpu,
            limit: self.found.limit,
        });
    }

    fn follow(&mut self, next: &Progress) {
        if self.progress.is_same(next) {
            return;
        }
        self.look();
        self.past = self.sums();
        (self.reads, self.writes, self.map) = self.spreads();
        self.progress = next.clone();
    }

    /// How long requests took, and where was written, over all runs.
    fn spreads(&self) -> (Spread, Spread, BlockMap) {
        let (mut reads, mut writes) = (self.reads.clone(), self.writes.clone());
        for meter in [&self.progress.source, &self.progress.target] {
            reads.add(&meter.reads.spread());
            writes.add(&meter.writes.spread());
        }
        (reads, writes, self.map.clone().join(self.progress.map()))
    }

    fn course(&self) -> Course {
        let (reads, writes, map) = self.spreads();
        let seconds = self.looked_at;
        let mut limits: Vec<Share> = Limit::ALL
            .iter()
            .zip(self.limited)
            .filter(|(_, time)| *time > 0.0)
            .map(|(limit, time)| Share { limit: *limit, part: time / seconds.max(f64::MIN_POSITIVE) })
            .collect();
        limits.sort_by(|one, other| other.part.total_cmp(&one.part));
        Course {
            seconds,
            samples: self.samples.all.clone(),
            reads: reads.latency(),
            writes: writes.latency(),
            map,
            limits,
        }
    }
}

fn side(now: &Reading) -> Side {
    Side {
        requests: now.requests,
        refused: now.refused,
        capped: now.capped,
        held_back: now.held_back,
        moving: now.moving,
        moved: now.moved,
    }
}

/// Samples in order of time, of which there are never more than a given number.
struct Thinned {
    most: usize,
    all: Vec<Sample>,
    /// Of as many samples one is kept.
    step: u64,
    /// How many came since the last that is kept. The newest is kept in any case, until the next comes.
    since: u64,
}

impl Thinned {
    fn new(most: usize) -> Self {
        Self { most, all: Vec::new(), step: 1, since: 0 }
    }

    fn push(&mut self, sample: Sample) {
        if self.since > 0
            && let Some(newest) = self.all.pop()
        {
            // What limited the run in the time that both stand for, where one of them knows.
            let limit = if sample.limit == Limit::Unknown { newest.limit } else { sample.limit };
            self.all.push(Sample { limit, ..sample });
        } else {
            if self.all.len() >= self.most {
                self.thin();
            }
            self.all.push(sample);
        }
        self.since = (self.since + 1) % self.step;
    }

    /// Drops every other one; each that stays stands for the one before it, too.
    fn thin(&mut self) {
        let mut kept = Vec::with_capacity(self.most);
        for pair in self.all.chunks(2) {
            match pair {
                [before, after] if after.limit == Limit::Unknown => {
                    kept.push(Sample { limit: before.limit, ..*after });
                }
                _ => kept.extend(pair.last()),
            }
        }
        self.all = kept;
        self.step *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(number: u64, limit: Limit) -> Sample {
        Sample {
            at: number as f64,
            bytes_in: number,
            bytes_out: number,
            bytes_done: number,
            source_requests: 0,
            target_requests: 0,
            source_refused: 0,
            target_refused: 0,
            in_flight: 0,
            window: 0.0,
            cpu: 0.0,
            limit,
        }
    }

    #[test]
    fn a_long_run_keeps_few_samples_evenly_spread_and_always_the_newest() {
        let mut thinned = Thinned::new(10);
        for number in 0..1000 {
            thinned.push(sample(number, Limit::Target));
            assert!(thinned.all.len() <= 10);
            assert_eq!(thinned.all.last().map(|sample| sample.bytes_in), Some(number));
        }
        let kept: Vec<u64> = thinned.all.iter().map(|sample| sample.bytes_in).collect();
        assert!(kept.len() >= 5, "{kept:?}");
        let apart: Vec<u64> = kept.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(apart[..apart.len() - 1].iter().all(|step| *step == thinned.step), "{kept:?}");
    }

    #[test]
    fn a_sample_that_stands_for_two_tells_what_either_knew() {
        let mut thinned = Thinned::new(2);
        for (number, limit) in [(0, Limit::Source), (1, Limit::Unknown), (2, Limit::Cap), (3, Limit::Unknown)]
        {
            thinned.push(sample(number, limit));
        }
        let kept: Vec<_> = thinned.all.iter().map(|sample| (sample.bytes_in, sample.limit)).collect();
        assert_eq!(kept, [(1, Limit::Source), (3, Limit::Cap)]);
    }

    #[tokio::test]
    async fn an_observer_leaves_nothing_behind_and_goes_on_with_the_next_run() {
        let (first, second) = (Progress::default(), Progress::default());
        first.target.sent(100);
        let observer = observe(&first, Duration::from_millis(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
        observer.follow(&first);
        observer.follow(&second);
        second.target.sent(10);
        let course = observer.finish();
        assert_eq!(course.samples.last().map(|last| (last.target_requests, last.bytes_out)), Some((2, 110)));
        assert!(course.samples.is_sorted_by(|one, other| one.at <= other.at));
        let whole: f64 = course.limits.iter().map(|share| share.part).sum();
        assert!((whole - 1.0).abs() < 1e-6, "{:?}", course.limits);
        tokio::task::yield_now().await;
        let left = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        assert_eq!(left, 0, "the observer's task is still there");
    }
}
