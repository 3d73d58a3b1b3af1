//! How long requests take: a histogram for the report, sums for the limit finder.
//!
//! A request costs three short locks and a few additions here: half a microsecond, beside a round trip of milliseconds.
//! Nothing is allocated per request, and nothing at all on a side that moves no data.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::Latency;

/// No request is shorter, in microseconds.
const SHORTEST: u64 = 1;
/// None is longer: the time-outs of a call are minutes.
const LONGEST: u64 = 3_600_000_000;
/// Decimal digits that are kept: a time is shown to one in a hundred, in 13 KiB.
const DIGITS: u8 = 2;

/// Requests that moved data, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// How many.
    pub requests: u64,
    /// Bytes that they moved.
    pub bytes: u64,
    /// Seconds that they took.
    pub seconds: f64,
}

impl std::ops::Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            bytes: self.bytes + other.bytes,
            seconds: self.seconds + other.seconds,
        }
    }
}

impl std::ops::Sub for Work {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            bytes: self.bytes.saturating_sub(before.bytes),
            seconds: (self.seconds - before.seconds).max(0.0),
        }
    }
}

/// How long the requests of one kind took.
#[derive(Default)]
pub(crate) struct Times(Mutex<Spread>);

/// Times of requests, and how they spread.
#[derive(Clone, Default)]
pub(crate) struct Spread {
    work: Work,
    /// In microseconds; made with the first request.
    histogram: Option<Histogram<u32>>,
}

impl Times {
    /// A request moved `bytes` in `time`.
    pub(crate) fn record(&self, bytes: u64, time: Duration) {
        let mut spread = lock(&self.0);
        spread.work = spread.work + Work { requests: 1, bytes, seconds: time.as_secs_f64() };
        if spread.histogram.is_none() {
            // Cannot fail: the bounds are constants that the crate allows.
            spread.histogram = Histogram::new_with_bounds(SHORTEST, LONGEST, DIGITS).ok();
        }
        if let Some(histogram) = &mut spread.histogram {
            histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(LONGEST).max(SHORTEST));
        }
    }

    pub(crate) fn work(&self) -> Work {
        lock(&self.0).work
    }

    pub(crate) fn spread(&self) -> Spread {
        lock(&self.0).clone()
    }
}

impl Spread {
    /// Takes in the requests of another run.
    pub(crate) fn add(&mut self, other: &Spread) {
        self.work = self.work + other.work;
        match (&mut self.histogram, &other.histogram) {
            (Some(histogram), Some(other)) => {
                // Cannot fail: all have the same bounds.
                let _ = histogram.add(other);
            }
            (None, Some(other)) => self.histogram = Some(other.clone()),
            (_, None) => {}
        }
    }

    pub(crate) fn latency(&self) -> Latency {
        let Some(histogram) = &self.histogram else { return Latency::default() };
        let millis = |micros: u64| micros as f64 / 1000.0;
        let at = |quantile| millis(histogram.value_at_quantile(quantile));
        Latency {
            count: self.work.requests,
            mean: self.work.seconds * 1000.0 / self.work.requests.max(1) as f64,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(histogram.max()),
        }
    }
}

/// How many are somewhere, added up over time: two that stay for three seconds make six. Unlike a sum over those that
/// left, it tells of a long stay while it lasts.
#[derive(Default)]
pub(crate) struct Occupancy(Mutex<Stays>);

#[derive(Default)]
struct Stays {
    inside: u32,
    since: Option<Instant>,
    seconds: f64,
}

impl Stays {
    fn settle(&mut self, now: Instant) {
        if let Some(since) = self.since.replace(now) {
            self.seconds += f64::from(self.inside) * now.saturating_duration_since(since).as_secs_f64();
        }
    }
}

impl Occupancy {
    /// One more, until the result is dropped.
    pub(crate) fn enter(&self) -> Stay<'_> {
        let mut stays = lock(&self.0);
        stays.settle(Instant::now());
        stays.inside += 1;
        Stay(self)
    }

    /// Seconds of all stays until now.
    pub(crate) fn seconds(&self) -> f64 {
        let mut stays = lock(&self.0);
        stays.settle(Instant::now());
        stays.seconds
    }
}

/// One that is there.
pub(crate) struct Stay<'a>(&'a Occupancy);

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        let mut stays = lock(&self.0.0);
        stays.settle(Instant::now());
        stays.inside -= 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_requests() {
        let times = Times::default();
        assert_eq!(times.spread().latency(), Latency::default());
        for millis in 1..=1000 {
            times.record(10, Duration::from_millis(millis));
        }
        let latency = times.spread().latency();
        assert_eq!((latency.count, times.work().bytes), (1000, 10_000));
        let expected = [
            (latency.mean, 500.5),
            (latency.p50, 500.0),
            (latency.p90, 900.0),
            (latency.p99, 990.0),
            (latency.p999, 999.0),
            (latency.max, 1000.0),
        ];
        for (shown, right) in expected {
            assert!((shown / right - 1.0).abs() < 0.011, "{shown} is not {right}: {latency:?}");
        }
    }

    #[test]
    fn two_runs_make_one_spread_and_nothing_is_too_long_or_too_short() {
        let (one, other) = (Times::default(), Times::default());
        one.record(1, Duration::ZERO);
        other.record(1, Duration::from_hours(9));
        let mut both = Spread::default();
        both.add(&one.spread());
        both.add(&Times::default().spread());
        both.add(&other.spread());
        let latency = both.latency();
        assert_eq!(latency.count, 2);
        assert!(latency.p50 < 0.01 && latency.max > 3_500_000.0, "{latency:?}");
    }

    #[test]
    fn a_stay_counts_while_it_lasts() {
        let occupancy = Occupancy::default();
        assert!(occupancy.seconds().abs() < f64::EPSILON);
        let stays = (occupancy.enter(), occupancy.enter());
        let begun = Instant::now();
        std::thread::sleep(Duration::from_millis(5));
        let shown = occupancy.seconds();
        assert!(shown >= 0.01 && shown <= 2.0 * begun.elapsed().as_secs_f64() + 0.01, "{shown}");
        drop(stays);
        let (left, later) = (occupancy.seconds(), occupancy.seconds());
        assert!((later - left).abs() < f64::EPSILON);
    }
}
