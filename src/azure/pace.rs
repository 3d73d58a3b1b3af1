//! How fast requests may leave this machine. The only place that sleeps.
//!
//! Caps count what really goes over the wire: every attempt of every call that moves data or lists pages, retries
//! included; control calls (leases, markers) are counted and never wait. There is one [`Pace`] for each side
//! (source and target), because a link is as wide in one direction as in the other.
//!
//! Behind the caps stands what the service was found to give (see `allowance`).

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::MonotonicClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use tokio::time::Instant;

use super::allowance::{Allowance, Learned, Scarce, Turn};
use super::failure::{CallError, CallResult, Cause};
use crate::range::PAGE;

type Limiter = RateLimiter<
    NotKeyed,
    InMemoryState,
    MonotonicClock,
    governor::middleware::NoOpMiddleware<std::time::Instant>,
>;

/// The largest amount that is asked for at once: a chunk.
const LARGEST: u64 = 4 << 20;

/// Caps on one side of a copy; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Bytes of bodies a second, at least [`PAGE`].
    pub bytes_per_second: Option<u64>,
    /// Requests a second, at least one.
    pub requests_per_second: Option<u32>,
}

/// Lets requests and bytes pass, at the capped rates and at those that the service was found to give.
pub struct Pace {
    caps: Limiters,
    /// Caps that others use up, too.
    shared: Option<Arc<Limiters>>,
    allowance: Mutex<Allowance>,
    /// Whoever holds it leaves next. First come, first served.
    gate: tokio::sync::Mutex<()>,
}

/// The caps, which several paces can share.
pub(crate) struct Limiters {
    caps: Caps,
    /// In pages: a rate in bytes does not fit the limiter's 32 bits.
    pages: Option<Limiter>,
    requests: Option<Limiter>,
}

impl Limiters {
    pub(crate) fn new(caps: Caps) -> Self {
        let pages = caps.bytes_per_second.map(|rate| {
            // A burst must hold a whole chunk, or a chunk could never pass.
            let rate = pages_of(rate);
            let burst = rate.div_euclid(4).max(pages_of(LARGEST));
            let pages = limiter(rate, burst);
            // What a burst may hold must be saved up first, or a small copy would never feel the cap.
            if let Some(all) = NonZeroU32::new(burst) {
                let _ = pages.check_n(all);
            }
            pages
        });
        let requests = caps.requests_per_second.map(|rate| limiter(rate, rate.div_euclid(4)));
        Self { caps, pages, requests }
    }

    async fn admit(&self, bytes: u64) {
        if let Some(requests) = &self.requests {
            requests.until_ready().await;
        }
        let mut rest = bytes;
        while let Some(limiter) = &self.pages
            && let Some(pages) = NonZeroU32::new(pages_of(rest.min(LARGEST)))
            && rest > 0
        {
            // Cannot fail: the burst holds LARGEST.
            let _ = limiter.until_n_ready(pages).await;
            rest = rest.saturating_sub(LARGEST);
        }
    }
}

impl Pace {
    /// A pace that keeps to `caps`.
    pub fn new(caps: Caps) -> Self {
        Self::within(caps, None)
    }

    /// A pace that keeps to `caps`, and to those which others use up, too.
    pub(crate) fn within(caps: Caps, shared: Option<Arc<Limiters>>) -> Self {
        Self {
            caps: Limiters::new(caps),
            shared,
            allowance: Mutex::new(Allowance::new(Instant::now())),
            gate: tokio::sync::Mutex::default(),
        }
    }

    /// Whether the user capped anything.
    pub(crate) fn is_capped(&self) -> bool {
        self.limiters().any(|caps| caps.pages.is_some() || caps.requests.is_some())
    }

    fn limiters(&self) -> impl Iterator<Item = &Limiters> {
        std::iter::once(&self.caps).chain(self.shared.as_deref())
    }

    /// Counts a request that does not wait for its turn.
    pub(crate) fn count_request(&self) {
        for requests in self.limiters().filter_map(|caps| caps.requests.as_ref()) {
            // A refusal means that the others are waiting already.
            let _ = requests.check();
        }
        let _ = self.allowance().leave(0, Instant::now());
    }

    /// Waits until the user's caps let one request with `bytes` of body go.
    pub(crate) async fn admit(&self, bytes: u64) {
        for caps in self.limiters() {
            caps.admit(bytes).await;
        }
    }

    /// The turn of a request with `bytes` of body, if it may leave at once: the service is expected to take it.
    pub(crate) fn turn_now(&self, bytes: u64) -> Option<Turn> {
        let _first = self.gate.try_lock().ok()?;
        let now = Instant::now();
        let mut allowance = self.allowance();
        (allowance.opens() <= now).then(|| allowance.leave(bytes, now))
    }

    /// The same after a wait. One after the other, in the order in which they came: what is learned meanwhile holds for all
    /// that wait.
    pub(crate) async fn turn(&self, bytes: u64) -> Turn {
        let _first = self.gate.lock().await;
        loop {
            let opens = self.allowance().opens();
            let now = Instant::now();
            if opens <= now {
                return self.allowance().leave(bytes, now);
            }
            tokio::time::sleep_until(opens).await;
        }
    }

    /// What became of a request.
    pub(crate) fn learn<T>(&self, turn: Turn, bytes: u64, outcome: &CallResult<T>) {
        let now = Instant::now();
        match outcome {
            Ok(_) => self.allowance().passed(turn, now),
            Err(CallError { cause: Cause::Service(reply), .. }) if reply.is_refusal_for_load() => {
                self.allowance().refused(turn, Scarce::of(&reply.message, bytes), now);
            }
            // Nothing was said about load.
            Err(_) => {}
        }
    }

    /// What became of a request of *another* service to this one, which it made for us.
    pub(crate) fn learn_from_another<T>(&self, turn: Turn, bytes: u64, outcome: &CallResult<T>) {
        let now = Instant::now();
        match outcome {
            Ok(_) => self.allowance().passed(turn, now),
            Err(CallError { cause: Cause::Service(reply), .. }) if reply.is_refusal_of_source_for_load() => {
                self.allowance().refused(turn, Scarce::of(&reply.message, bytes), now);
            }
            Err(_) => {}
        }
    }

    /// What the service was found to give, or the user allows, whichever is less.
    pub fn learned(&self) -> Learned {
        let learned = self.allowance().learned();
        let least = |found: Option<f64>, cap: Option<f64>| match (found, cap) {
            (Some(found), Some(cap)) => Some(found.min(cap)),
            (found, cap) => found.or(cap),
        };
        let Caps { bytes_per_second, requests_per_second } = self.caps.caps;
        Learned {
            bytes_per_second: least(learned.bytes_per_second, bytes_per_second.map(|rate| rate as f64)),
            requests_per_second: least(learned.requests_per_second, requests_per_second.map(f64::from)),
        }
    }

    fn allowance(&self) -> MutexGuard<'_, Allowance> {
        self.allowance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits before another attempt.
pub(crate) async fn pause(wait: Duration) {
    tokio::time::sleep(wait).await;
}

fn pages_of(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PAGE)).unwrap_or(u32::MAX)
}

fn limiter(rate: u32, burst: u32) -> Limiter {
    let rate = NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN);
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    RateLimiter::direct_with_clock(Quota::per_second(rate).allow_burst(burst), MonotonicClock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_can_pass_however_low_the_cap() {
        let pace = Pace::new(Caps { bytes_per_second: Some(1), requests_per_second: Some(1) });
        let chunk = NonZeroU32::new(pages_of(LARGEST)).unwrap_or(NonZeroU32::MIN);
        // The outer error would mean "never".
        assert!(pace.caps.pages.as_ref().is_some_and(|limiter| limiter.check_n(chunk).is_ok()));
    }

    #[test]
    fn the_cap_is_counted_in_pages_and_requests() {
        let pace = Pace::new(Caps { bytes_per_second: Some(PAGE), requests_per_second: Some(4) });
        let pages = pace.caps.pages.as_ref().map(|limiter| limiter.check().is_ok());
        assert_eq!(pages, Some(false), "the burst is not there from the start");
        let requests =
            pace.caps.requests.as_ref().map(|limiter| (limiter.check().is_ok(), limiter.check().is_ok()));
        assert_eq!(requests, Some((true, false)));
    }
}
