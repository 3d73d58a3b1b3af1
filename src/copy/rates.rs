//! What a copy takes in a second, for whoever plans it: what the services were found to give, and what the line does.

use std::time::Duration;

use tokio::time::Instant;

use super::chunk::Route;
use crate::plan::balance::Rates;
use crate::progress::Progress;

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A copy that is younger has not shown yet what it can.
const OPENING: Duration = Duration::from_secs(6);
/// What came in so many looks is what can come: in a single one something else may have been waited for.
const FEW: usize = 4;
/// Requests are what is short when a copy makes more than this part of what the service takes.
const MANY: f64 = 0.98;

/// Looks at a copy now and then.
#[derive(Debug)]
pub(super) struct Look {
    begun: Instant,
    looked_at: Instant,
    bytes: u64,
    requests: u64,
    rates: Option<Rates>,
    /// Bytes a second that came in the last few looks.
    lately: [f64; FEW],
    looks: usize,
}

impl Look {
    pub(super) fn new(progress: &Progress) -> Self {
        let now = Instant::now();
        let read = progress.source.read();
        Self {
            begun: now,
            looked_at: now,
            bytes: read.bytes_in,
            requests: read.requests,
            rates: None,
            lately: [0.0; FEW],
            looks: 0,
        }
    }

    /// The rates at this moment.
    /// `is_queue` says whether chunks wait for each other.
    pub(super) fn now(&mut self, route: &Route, progress: &Progress, is_queue: bool) -> Rates {
        let passed = self.looked_at.elapsed();
        match self.rates {
            Some(rates) if passed < LOOK_EVERY => return rates,
            _ => {}
        }
        let mut rates = route.rates();
        if passed >= LOOK_EVERY {
            let read = progress.source.read();
            let bytes = (read.bytes_in - self.bytes) as f64 / passed.as_secs_f64();
            let requests = (read.requests - self.requests) as f64 / passed.as_secs_f64();
            self.lately[self.looks % FEW] = bytes;
            self.looks += 1;
            (self.bytes, self.requests, self.looked_at) = (read.bytes_in, read.requests, Instant::now());
            // Requests are not used up, and yet chunks wait: then it is the line that is narrow, or the source answers more
            // slowly instead of refusing, and bytes are dearer than they seem.
            let is_narrow = is_queue && requests < MANY * rates.requests_per_second;
            if self.begun.elapsed() >= OPENING && route.is_streaming() && is_narrow {
                let most = self.lately.into_iter().fold(1.0, f64::max);
                rates.bytes_per_second = rates.bytes_per_second.min(most);
            }
        }
        self.rates = Some(rates);
        rates
    }
}
