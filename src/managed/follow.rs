//! Follows a copy to its end. The service is asked more and more rarely; what it says is kept for whoever shows it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Copy, Report, failed, interrupted, status_command};
use crate::azure::{Arm, pace};
use crate::error::{Error, ErrorKind, Result};

/// How often the service is asked.
#[derive(Clone, Copy, Debug)]
pub struct Polling {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Default for Polling {
    fn default() -> Self {
        Self { first: Duration::from_secs(2), longest: Duration::from_secs(30) }
    }
}

/// Each wait is longer than the one before by this.
const SLOWER: f64 = 1.5;

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Looking at the source and at the limits.
    #[default]
    Checking,
    /// Asking the service to start.
    Starting,
    /// The service copies.
    Copying,
}

/// What was last seen of a copy that is being followed: to be shown by whoever embeds this.
#[derive(Default)]
pub struct Watch(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    phase: Phase,
    size: Option<u64>,
    first: Option<(Instant, f64)>,
    last: Option<(Instant, f64)>,
}

/// A copy at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// What is being done.
    pub phase: Phase,
    /// How much of the copy is done.
    pub percent: f64,
    /// Bytes of the disk.
    pub size: Option<u64>,
    /// How fast it goes on, once two looks differ.
    pub percent_per_second: Option<f64>,
    /// How long it takes on at that rate.
    pub left: Option<Duration>,
}

impl Watch {
    /// The copy as it was last seen.
    pub fn read(&self) -> Seen {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let percent = inner.last.map_or(0.0, |(_, percent)| percent);
        let rate = inner.first.zip(inner.last).and_then(|((then, before), (now, percent))| {
            let seconds = now.saturating_duration_since(then).as_secs_f64();
            (seconds > 0.0 && percent > before).then(|| (percent - before) / seconds)
        });
        let left = rate.and_then(|rate| Duration::try_from_secs_f64((100.0 - percent).max(0.0) / rate).ok());
        let since = inner.last.map_or(Duration::ZERO, |(at, _)| at.elapsed());
        let left = left.map(|left| left.saturating_sub(since));
        Seen { phase: inner.phase, percent, size: inner.size, percent_per_second: rate, left }
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).phase = phase;
    }

    fn saw(&self, at: Instant, percent: f64, size: Option<u64>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.phase = Phase::Copying;
        inner.size = size;
        inner.first.get_or_insert((at, percent));
        inner.last = Some((at, percent));
    }
}

impl Copy {
    /// Waits for the end of the copy. Cancelled, it leaves the copy running in the service.
    ///
    /// # Errors
    /// When the copy failed, the service could not be asked for longer than the retry budget, or it was cancelled.
    pub async fn follow(
        mut self,
        arm: &Arm,
        polling: Polling,
        watch: &Watch,
        cancel: &CancellationToken,
    ) -> Result<Report> {
        let mut wait = polling.first;
        watch.saw(Instant::now(), self.percent(), self.snapshot.size);
        // What this run started and is done at the first look ended about now.
        self.saw_end(self.began.is_some());
        while !self.is_done() {
            // Near the end the service is asked sooner: so the end is seen when it comes.
            let pause = watch.read().left.map_or(wait, |left| wait.min(left.max(polling.first)));
            let look = async {
                pace::pause(pause).await;
                arm.snapshot(&self.snapshot.id).await
            };
            self.snapshot = tokio::select! {
                snapshot = look => snapshot.map_err(|error| self.goes_on(error.into()))?,
                () = cancel.cancelled() => {
                    let why = format!("interrupted at {} percent; the copy goes on in the service", self.percent());
                    return Err(interrupted(self.target(), "follow the managed copy", why));
                }
            };
            if self.snapshot.has_failed() {
                return Err(failed(&self.snapshot));
            }
            watch.saw(Instant::now(), self.percent(), self.snapshot.size);
            self.saw_end(true);
            wait = wait.mul_f64(SLOWER).min(polling.longest);
        }
        Ok(self.report(arm))
    }

    fn saw_end(&mut self, just_now: bool) {
        if just_now && self.is_done() {
            self.ended = Some((Instant::now(), Timestamp::now()));
        }
    }

    /// Not to reach the service is not the end of the copy.
    fn goes_on(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Unavailable | ErrorKind::AccessDenied => error
                .next(format!("the copy goes on in the service: {}", status_command(self.target(), true))),
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_come_from_what_was_seen() {
        let (watch, begin) = (Watch::default(), Instant::now());
        watch.saw(begin, 10.0, Some(1000));
        assert!(watch.read().left.is_none(), "one look tells no rate");
        watch.saw(begin + Duration::from_secs(10), 10.0, Some(1000));
        assert!(watch.read().percent_per_second.is_none());
        watch.saw(begin + Duration::from_secs(20), 30.0, Some(1000));
        let seen = watch.read();
        assert_eq!(seen.percent_per_second, Some(1.0));
        assert_eq!(seen.left, Some(Duration::from_secs(70)));
        watch.saw(begin + Duration::from_secs(30), 100.0, Some(1000));
        assert_eq!(watch.read().left, Some(Duration::ZERO));
    }
}
