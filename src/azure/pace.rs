//! How fast requests may leave this machine. The only place that sleeps.
//!
//! Caps count what really goes over the wire: every attempt of every call that moves data or lists pages, retries
//! included; control calls (leases, markers) are counted and never wait. There is one [`Pace`] for each side
//! (source and target), because a link is as wide in one direction as in the other.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::MonotonicClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

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

/// Lets requests and bytes pass at the capped rates.
pub struct Pace {
    /// In pages: a rate in bytes does not fit the limiter's 32 bits.
    pages: Option<Limiter>,
    requests: Option<Limiter>,
}

impl Pace {
    /// A pace that keeps to `caps`.
    pub fn new(caps: Caps) -> Self {
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
        Self { pages, requests }
    }

    /// Whether anything may have to wait here.
    pub(crate) fn is_capped(&self) -> bool {
        self.pages.is_some() || self.requests.is_some()
    }

    /// Counts a request that does not wait for its turn.
    pub(crate) fn count_request(&self) {
        if let Some(requests) = &self.requests {
            // A refusal means that the others are waiting already.
            let _ = requests.check();
        }
    }

    /// Waits until one request with `bytes` of body may go.
    pub async fn admit(&self, bytes: u64) {
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
        assert!(pace.pages.is_some_and(|limiter| limiter.check_n(chunk).is_ok()));
    }

    #[test]
    fn the_cap_is_counted_in_pages_and_requests() {
        let pace = Pace::new(Caps { bytes_per_second: Some(PAGE), requests_per_second: Some(4) });
        let pages = pace.pages.as_ref().map(|limiter| limiter.check().is_ok());
        assert_eq!(pages, Some(false), "the burst is not there from the start");
        let requests =
            pace.requests.as_ref().map(|limiter| (limiter.check().is_ok(), limiter.check().is_ok()));
        assert_eq!(requests, Some((true, false)));
    }
}
