//! One run: a real copy into a blob of its own, observed, and ended when enough of it was seen.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::ground::Ground;
use super::machine::{self, Processors};
use super::result::{Mode, Pattern, Repeat, Setting};
use crate::azure::{Client, Resource};
use crate::error::{Error, ErrorKind, Result};
use crate::measure::times::Spread;
use crate::measure::{Course, observe};
use crate::progress::{Phase, Progress};
use crate::replicate::replicate;
use crate::step::{Settings, Step, Verify};

/// How often the counters are sampled: runs are short.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// How often it is looked whether the copying began or ended: the error of a run's time.
const LOOK_EVERY: Duration = Duration::from_millis(3);
const GIB: f64 = 1_073_741_824.0;

/// What there is to copy.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What it is like.
    pub pattern: Pattern,
    /// The snapshot.
    pub source: Resource,
    /// The snapshot that the difference is taken from; `None` to copy in full.
    pub previous: Option<Resource>,
    /// Whether the target keeps what it is sent. An emulated account may drop it; nothing can be read back then.
    pub is_kept: bool,
}

/// When a run has seen enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// Bytes that are written; `None` to copy to the end.
    pub bytes: Option<u64>,
    /// Time of copying.
    pub time: Duration,
}

/// What a run showed.
pub(super) struct Measured {
    pub(super) repeat: Repeat,
    pub(super) course: Course,
    pub(super) reads: Spread,
    pub(super) writes: Spread,
    pub(super) requests: u64,
    pub(super) refused: u64,
    /// Processor seconds for each GiB.
    pub(super) cpu_per_gib: f64,
    pub(super) peak_memory: Option<u64>,
    pub(super) machine_busy: Option<f64>,
}

/// Settings of a copy that are those of a cell.
pub fn settings_of(setting: Setting, is_kept: bool) -> Settings {
    let mut settings = Settings {
        mode: setting.mode.into(),
        verify: if is_kept { Verify::default() } else { Verify::None },
        ..Settings::default()
    };
    settings.plan.chunk = setting.chunk;
    settings.copy.concurrency = usize::try_from(setting.window).unwrap_or(usize::MAX);
    settings.copy.memory = memory_for(setting);
    settings
}

/// Memory that the window needs: what is measured is the window and not `--memory`.
pub fn memory_for(setting: Setting) -> u64 {
    setting.window.saturating_mul(setting.chunk).max(Settings::default().copy.memory)
}

/// Runs a setting once.
pub(super) async fn run(
    subject: &Subject,
    setting: Setting,
    bound: Bound,
    place: (&Ground, u64),
    client: &Client,
    cancel: &CancellationToken,
) -> Result<Measured> {
    let (ground, number) = place;
    let settings = settings_of(setting, subject.is_kept);
    let target = ground.blob(number)?;
    if let Some(previous) = &subject.previous {
        tokio::select! {
            made = ground.pretend(previous, &target, client, &settings) => made?,
            () = cancel.cancelled() => return Err(interrupted()),
        }
    }
    let step =
        Step { source: subject.source.clone(), previous: subject.previous.clone(), target, origin: None };
    let counts_memory = machine::count_anew();
    let processors = Processors::look();
    let progress = Progress::default();
    let observer = observe(&progress, SAMPLE_EVERY);
    let enough = cancel.child_token();
    let work = replicate(&step, client, &settings, &progress, &enough);
    let (outcome, watch) = watched(&progress, bound, &enough, work).await;
    let course = observer.finish();
    let mut has_fallen_back = false;
    match outcome {
        Ok(report) => has_fallen_back = report.fell_back.is_some(),
        // It saw enough.
        Err(error) if error.kind() == ErrorKind::Interrupted && watch.is_enough && !cancel.is_cancelled() => {
        }
        Err(error) => return Err(error),
    }
    let (bytes, seconds) = (watch.bytes, watch.seconds());
    if bytes == 0 || seconds <= 0.0 {
        let why = "there was nothing to copy, or nothing of it was written in the time of a run";
        return Err(Error::new(ErrorKind::Usage, "measure a copy", why)
            .on(&subject.source)
            .next("name snapshots that differ, or give --duration more time"));
    }
    let read = progress.read();
    if setting.mode == Mode::Server && (has_fallen_back || progress.sent() > bytes / 2) {
        let why = "the service did not pull the bytes by itself; they went through this machine";
        return Err(Error::new(ErrorKind::Refused, "measure mode server", why)
            .on(&step.target)
            .next("measure --mode stream"));
    }
    let cpu = course.samples.last().map_or(0.0, |last| last.cpu);
    Ok(Measured {
        repeat: Repeat { seconds, bytes, rate: bytes as f64 / seconds },
        reads: progress.source.reads.spread(),
        writes: progress.target.writes.spread(),
        requests: read.source.requests + read.target.requests,
        refused: read.source.refused + read.target.refused,
        cpu_per_gib: cpu / (bytes as f64 / GIB),
        machine_busy: processors.and_then(|before| Processors::look()?.busy_since(before)),
        peak_memory: counts_memory.then(machine::most).flatten(),
        course,
    })
}

/// When a run began to copy and when it ended.
struct Watch {
    started: Instant,
    begun: Option<Instant>,
    ended: Option<Instant>,
    bytes: u64,
    /// Whether it was ended because enough was seen.
    is_enough: bool,
}

impl Watch {
    fn seconds(&self) -> f64 {
        let begun = self.begun.unwrap_or(self.started);
        self.ended.unwrap_or_else(Instant::now).saturating_duration_since(begun).as_secs_f64()
    }

    /// Looks once. Whether there is more to see.
    fn look(&mut self, progress: &Progress, bound: Bound) -> bool {
        let now = Instant::now();
        match progress.read().phase {
            Phase::Checking => return true,
            Phase::Copying => {}
            // It is written to its end.
            Phase::Verifying | Phase::Sealing | Phase::Done => {
                self.end(progress, now);
                return false;
            }
        }
        let begun = *self.begun.get_or_insert(now);
        let written = progress.window().0;
        let is_written = bound.bytes.is_some_and(|most| written >= most);
        self.is_enough = is_written || (written > 0 && now.duration_since(begun) >= bound.time);
        if self.is_enough {
            self.end(progress, now);
        }
        !self.is_enough
    }

    fn end(&mut self, progress: &Progress, now: Instant) {
        self.ended = Some(now);
        self.bytes = progress.changed();
    }
}

async fn watched<T>(
    progress: &Progress,
    bound: Bound,
    enough: &CancellationToken,
    work: impl Future<Output = T>,
) -> (T, Watch) {
    let mut watch = Watch { started: Instant::now(), begun: None, ended: None, bytes: 0, is_enough: false };
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut goes_on = true;
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = ticks.tick(), if goes_on => {
                goes_on = watch.look(progress, bound);
                if watch.is_enough {
                    enough.cancel();
                }
            }
        }
    };
    if watch.ended.is_none() {
        watch.end(progress, Instant::now());
    }
    (done, watch)
}

pub(super) fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "finish the benchmark", "interrupted")
        .next("run it again; what it wrote was deleted unless something else is said")
}
