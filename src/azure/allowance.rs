//! What the service gives, learned from what it refuses.
//!
//! A blob takes so many requests and so many bytes a second, and answers 503 to what is beyond. How many is documented as
//! a target, not as a promise, differs between accounts, and changes. So it is found out:
//!
//! - Nothing is held back until the first refusal. From then on until enough is seen, what still gets through each second
//!   *is* the limit: that is the first rate.
//! - Requests leave at that rate. When some are refused, the rate falls by the part that was refused; the part that got
//!   through at a known rate is again the limit. A refusal of a request that left before the rate fell says nothing new.
//! - When none is refused for a while though the rate is used, it rises. Below what was once given (at first, what is
//!   documented) it asks early and in large steps, and less often each time that it is told no. Beyond it, it goes one step,
//!   and stays there until what the service may have saved up is spent: only then is it shown that more is given, and the
//!   next step is larger.
//!
//! Near the limit this costs few refusals, and none of them costs more than the request itself: what is refused waits for
//! its turn again, and the others go on. There is one [`Bound`] for requests and one for bytes, as either may be what is
//! scarce. All of it is arithmetic on times that are handed in; `pace` waits.

use std::time::Duration;

use tokio::time::Instant;

use super::pages::{DOCUMENTED_BYTES_PER_SECOND, DOCUMENTED_REQUESTS_PER_SECOND};

/// Requests may leave this much ahead of their time, which evens out what timers lose.
const SLACK: Duration = Duration::from_millis(20);
/// How long is looked at before the first rate is told.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// What came through for at least this long before the first refusal is a rate, too.
const SPAN: Duration = Duration::from_secs(2);
/// Outcomes that the first rate rests on, unless they come very slowly.
const FIRST_OUTCOMES: u32 = 30;
/// How long refusals are looked at before the rate falls.
const LOOK: Duration = Duration::from_millis(300);
/// Outcomes that a fall rests on, unless they come slowly.
const OUTCOMES: u32 = 16;
/// As many are enough where most of them are refused.
const PLAIN: u32 = 8;
/// The longest look.
const LONGEST_LOOK: Duration = Duration::from_secs(3);
/// The smallest fall and the largest.
const FALL: (f64, f64) = (0.02, 0.8);
/// The largest that rests on a few outcomes: refusals come in bursts.
const PLAIN_FALL: f64 = 0.6;
/// No rate falls below so many requests or bytes a second, nor below this part of the highest: while nothing comes through at
/// all, nothing is learned.
const LEAST: (f64, f64) = (1.0, 262_144.0);
const LEAST_OF_HIGHEST: f64 = 0.02;
/// Where nobody was refused yet, the best is what is documented of a page blob: requests and bytes a second.
const DOCUMENTED: (f64, f64) = (DOCUMENTED_REQUESTS_PER_SECOND as f64, DOCUMENTED_BYTES_PER_SECOND as f64);
/// Without refusals for this long, the rate rises: near the best that was ever given, and below it.
const QUIET: (Duration, Duration) = (Duration::from_secs(12), Duration::from_secs(3));
/// Near the best means at least this part of it.
const NEAR: f64 = 0.9;
/// What is left of the best each time that more than the present rate is refused; how much longer is waited until the next
/// time, and how many times as long at most.
const FORGET: f64 = 0.99;
const PATIENCE: f64 = 1.1;
const MOST_PATIENCE: f64 = 20.0;
/// What is left of it at least when not all of it is given any more.
const LESS: f64 = 0.98;
/// Between two rises, besides at least so many outcomes of each: near the best, and below it.
const RISE_OUTCOMES: u32 = 15;
const BOLD_OUTCOMES: u32 = 4;
const RISE_EVERY: Duration = Duration::from_millis(500);
/// A rate of which less is used is not proven: something else holds requests back.
const USED: f64 = 0.9;
/// Below what is near the best, one rise after the other; and each from there to the best.
const BOLD_RISES: [f64; 4] = [1.1, 1.3, 1.5, 1.5];
const BACK: f64 = 1.02;
/// Beyond the best, one rise after the other.
const RISES: [f64; 4] = [1.05, 1.15, 1.3, 1.5];
/// What a service saves up while less is asked for: as much as it gives in so many seconds.
const SAVED: f64 = 1.0;

/// What may leave for one blob.
#[derive(Debug)]
pub(super) struct Allowance {
    requests: Bound,
    bytes: Bound,
}

/// A request whose turn it is, or will be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    bytes: f64,
    of_requests: Ticket,
    of_bytes: Ticket,
}

/// What was learned of a blob.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Learned {
    /// Bytes a second, once some were refused.
    pub bytes_per_second: Option<f64>,
    /// Requests a second, once some were refused.
    pub requests_per_second: Option<f64>,
}

/// What a refusal was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scarce {
    Requests,
    Bytes,
}

impl Scarce {
    /// What a refusal of a request with `bytes` of body is about: as the service says ("Operations per second is over…",
    /// "Ingress is over…"), otherwise as the size suggests. The documented targets of a page blob, 60 MiB/s and 500
    /// requests/s, meet at 123 KiB.
    pub(super) fn of(message: &str, bytes: u64) -> Self {
        const BREAK_EVEN: u64 = (DOCUMENTED_BYTES_PER_SECOND / DOCUMENTED_REQUESTS_PER_SECOND) as u64;
        if message.contains("Operations per second") {
            Self::Requests
        } else if message.contains("gress is over") || bytes >= BREAK_EVEN {
            Self::Bytes
        } else {
            Self::Requests
        }
    }
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        let bound = |least, best| Bound::new(least, best, now);
        Self { requests: bound(LEAST.0, DOCUMENTED.0), bytes: bound(LEAST.1, DOCUMENTED.1) }
    }

    /// When the next request may leave. Asked again after a wait: the rates may have changed.
    pub(super) fn opens(&self) -> Instant {
        self.requests.opens().max(self.bytes.opens())
    }

    /// A request with `bytes` of body leaves.
    pub(super) fn leave(&mut self, bytes: u64, now: Instant) -> Turn {
        let bytes = bytes as f64;
        Turn { bytes, of_requests: self.requests.leave(1.0, now), of_bytes: self.bytes.leave(bytes, now) }
    }

    /// It was not refused.
    pub(super) fn passed(&mut self, turn: Turn, now: Instant) {
        self.requests.passed(turn.of_requests, 1.0, now);
        self.bytes.passed(turn.of_bytes, turn.bytes, now);
    }

    /// It was refused for load.
    pub(super) fn refused(&mut self, turn: Turn, scarce: Scarce, now: Instant) {
        match scarce {
            Scarce::Requests => self.requests.refused(turn.of_requests, 1.0, now),
            Scarce::Bytes => self.bytes.refused(turn.of_bytes, turn.bytes, now),
        }
    }

    pub(super) fn learned(&self) -> Learned {
        Learned { bytes_per_second: self.bytes.rate, requests_per_second: self.requests.rate }
    }
}

/// The learned limit of one scarce thing.
#[derive(Debug)]
struct Bound {
    /// No rate is lower, whatever is refused.
    least: f64,
    /// Amount a second; `None` until something was refused.
    rate: Option<f64>,
    /// When the next one may leave.
    free_at: Instant,
    /// The highest rate at which nothing was refused; what is documented, before there was one.
    best: f64,
    /// The highest rate that there was.
    highest: f64,
    /// The best when it was last gone beyond; zero while the rate is not beyond it.
    beyond: f64,
    /// How much more than that has left.
    more: f64,
    /// How many times longer is waited before it is asked for again.
    patience: f64,
    /// Counts the rates, so that outcomes can be told apart by the rate at which they left.
    epoch: u32,
    /// Outcomes of earlier rates say nothing about this one.
    since: u32,
    begun: Instant,
    seen: Seen,
    /// What came through before the first refusal, in two spans of [`SPAN`]: the last whole one, and the present one.
    before: [(f64, Instant); 2],
    /// Not before this time does the rate rise.
    quiet_until: Instant,
    rises: usize,
    /// The rate before the last rise.
    proven: f64,
}

/// What happened at the present rate.
#[derive(Debug, Default)]
struct Seen {
    first_refusal: Option<Instant>,
    /// Since the first refusal, without it: what came through, what was refused, and how many outcomes that were.
    passed: f64,
    refused: f64,
    outcomes: u32,
    /// Outcomes of requests that left at exactly this rate.
    fresh: u32,
    /// How much left since it was last looked at, and when that was.
    left: f64,
    left_since: Option<Instant>,
    /// Whether the rate was used when it was last looked at.
    is_used: bool,
}

/// Tells at which rate a request left.
#[derive(Clone, Copy, Debug)]
struct Ticket(u32);

impl Bound {
    fn new(least: f64, best: f64, now: Instant) -> Self {
        Self {
            least,
            rate: None,
            free_at: now,
            best,
            highest: 0.0,
            beyond: 0.0,
            more: 0.0,
            patience: 1.0,
            epoch: 0,
            since: 0,
            begun: now,
            seen: Seen::default(),
            before: [(0.0, now); 2],
            quiet_until: now,
            rises: 0,
            proven: 0.0,
        }
    }

    /// When the next one may leave.
    fn opens(&self) -> Instant {
        self.free_at.checked_sub(SLACK).unwrap_or(self.free_at)
    }

    fn leave(&mut self, amount: f64, now: Instant) -> Ticket {
        self.seen.left += amount;
        if let Some(rate) = self.rate {
            let earliest = now.checked_sub(SLACK).unwrap_or(now);
            self.free_at = self.free_at.max(earliest) + Duration::from_secs_f64((amount / rate).min(3600.0));
        }
        Ticket(self.epoch)
    }

    /// What left with `ticket` came through.
    fn passed(&mut self, ticket: Ticket, amount: f64, now: Instant) {
        if self.rate.is_none() && self.seen.first_refusal.is_none() {
            if now.saturating_duration_since(self.before[1].1) >= SPAN {
                self.before = [self.before[1], (0.0, now)];
            }
            self.before[1].0 += amount;
        }
        if ticket.0 >= self.since {
            self.seen.fresh += u32::from(ticket.0 == self.epoch);
            if self.seen.first_refusal.is_some() {
                self.seen.passed += amount;
                self.seen.outcomes += 1;
            }
        }
        self.judge(now);
    }

    /// What left with `ticket` was refused because of this bound.
    fn refused(&mut self, ticket: Ticket, amount: f64, now: Instant) {
        if ticket.0 >= self.since {
            // The first one only says that something is the matter: counted, it would weigh too much.
            if self.seen.first_refusal.is_some() {
                self.seen.refused += amount;
                self.seen.outcomes += 1;
            }
            self.seen.first_refusal.get_or_insert(now);
        }
        self.judge(now);
    }

    fn judge(&mut self, now: Instant) {
        let Some(first) = self.seen.first_refusal else { return self.consider_rise(now) };
        let looked = now.saturating_duration_since(first);
        match self.rate {
            None => {
                let enough = looked >= FIRST_LOOK && self.seen.outcomes >= FIRST_OUTCOMES;
                if (enough || looked >= LONGEST_LOOK) && self.seen.passed > 0.0 {
                    let part = self.seen.refused / (self.seen.passed + self.seen.refused);
                    if part >= FALL.0 {
                        // What is long under way when the first is refused comes through late.
                        let now_given = self.seen.passed / looked.as_secs_f64();
                        self.fall_to(now_given.max(self.given_before(first)), now);
                    } else {
                        // A refusal now and then has other reasons than a limit.
                        self.seen = Seen::default();
                    }
                } else if looked >= LONGEST_LOOK {
                    // Nothing comes through at all, which is an outage and no rate.
                    self.seen = Seen::default();
                }
            }
            // Asked for again below the best, and not given: one refusal is answer enough.
            Some(rate) if self.rises > 0 && rate < NEAR * self.best => {
                self.fall_to(self.proven.min(rate), now);
            }
            Some(rate) => {
                let all = self.seen.passed + self.seen.refused;
                let part = if all > 0.0 { self.seen.refused / all } else { 0.0 };
                let enough = looked >= LOOK && self.seen.outcomes >= OUTCOMES;
                let is_plain = self.seen.outcomes >= PLAIN && part > 0.5 && looked >= LOOK / 3;
                if enough || is_plain || looked >= LONGEST_LOOK {
                    let most = if is_plain && !enough { PLAIN_FALL } else { FALL.1 };
                    let part = part.clamp(FALL.0, most);
                    self.fall_to(rate * (1.0 - part), now);
                }
            }
        }
    }

    /// What came through a second before the first refusal.
    fn given_before(&self, first: Instant) -> f64 {
        let [(older, begun), (newer, _)] = self.before;
        let passed = first.saturating_duration_since(begun);
        if passed < SPAN { 0.0 } else { (older + newer) / passed.as_secs_f64() }
    }

    fn fall_to(&mut self, rate: f64, now: Instant) {
        let is_near = rate >= NEAR * self.best;
        if is_near {
            self.best = rate.max(self.best * LESS);
            self.patience = 1.0;
        } else if self.rises > 0 {
            // It was asked for again, and not given.
            self.best *= FORGET;
            self.patience = (self.patience * PATIENCE).min(MOST_PATIENCE);
        }
        let quiet = if is_near { QUIET.0 } else { QUIET.1.mul_f64(self.patience) };
        self.quiet_until = now + quiet;
        self.rises = 0;
        self.beyond = 0.0;
        self.begin(rate, now);
        self.since = self.epoch;
    }

    fn consider_rise(&mut self, now: Instant) {
        let Some(rate) = self.rate else { return };
        let looked_at = self.seen.left_since.unwrap_or(self.begun);
        let passed = now.saturating_duration_since(looked_at);
        if passed >= RISE_EVERY {
            self.seen.is_used = self.seen.left >= USED * rate * passed.as_secs_f64();
            self.more = (self.more + self.seen.left - self.beyond * passed.as_secs_f64()).max(0.0);
            (self.seen.left, self.seen.left_since) = (0.0, Some(now));
        }
        let is_time = now >= self.quiet_until && now.saturating_duration_since(self.begun) >= RISE_EVERY;
        let is_below = rate < NEAR * self.best;
        let enough = if is_below { BOLD_OUTCOMES } else { RISE_OUTCOMES };
        if !is_time || !self.seen.is_used || self.seen.fresh < enough {
            return;
        }
        let step = |rises: &[f64]| rises[self.rises.min(rises.len() - 1)];
        let risen = if is_below {
            let risen = (rate * step(&BOLD_RISES)).min(NEAR * self.best).max(rate * BACK);
            self.rises = if risen >= NEAR * self.best { 0 } else { self.rises + 1 };
            risen
        } else if rate < self.best {
            (rate * BACK).min(self.best)
        } else {
            if self.beyond > 0.0 && self.more < SAVED * self.beyond {
                return;
            }
            let risen = rate * step(&RISES);
            self.rises += 1;
            (self.best, self.beyond, self.more) = (rate, rate, 0.0);
            risen
        };
        self.proven = rate;
        self.begin(risen, now);
    }

    fn begin(&mut self, rate: f64, now: Instant) {
        self.highest = self.highest.max(rate);
        self.rate = Some(rate.max(self.least).max(LEAST_OF_HIGHEST * self.highest));
        self.epoch += 1;
        self.begun = now;
        self.seen = Seen::default();
    }
}

#[cfg(test)]
mod tests;
