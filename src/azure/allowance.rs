//! What the service gives, learned from what it refuses.
//!
//! A blob takes so many requests and so many bytes a second, and answers 503 to what is beyond. How many is documented as
//! a target, not as a promise, differs between accounts, and changes. So it is found out:
//!
//! - Nothing is held back until the first refusal. From then on until enough is seen, what still gets through each second
//!   *is* the limit: that is the first rate.
//! - Requests leave at that rate. When some are refused, the rate falls by the part that was refused; the part that got
//!   through at a known rate is again the limit. A refusal of a request that left before the rate fell says nothing new.
//! - When none is refused for a while, and the rate is what held requests back, it rises: at first by half a percent, then
//!   faster the longer nothing speaks against it. Below what was once given, it asks earlier and in larger steps.
//!
//! Near the limit this costs few refusals, and none of them costs more than the request itself: what is refused waits for
//! its turn again, and the others go on. There is one [`Bound`] for requests and one for bytes, as either may be what is
//! scarce. All of it is arithmetic on times that are handed in; `pace` waits.

use std::time::Duration;

use tokio::time::Instant;

/// Requests may leave this much ahead of their time, which evens out what timers lose.
const SLACK: Duration = Duration::from_millis(20);
/// How long is looked at before the first rate is told.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Outcomes that the first rate rests on, unless they come very slowly.
const FIRST_OUTCOMES: u32 = 30;
/// How long refusals are looked at before the rate falls.
const LOOK: Duration = Duration::from_millis(300);
/// Outcomes that a fall rests on, unless they come slowly.
const OUTCOMES: u32 = 10;
/// The longest look.
const LONGEST_LOOK: Duration = Duration::from_secs(3);
/// The smallest fall and the largest.
const FALL: (f64, f64) = (0.005, 0.8);
/// Without refusals for this long, the rate rises: near the best that was ever given, and below it.
const QUIET: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(3));
/// Near the best means at least this part of it.
const NEAR: f64 = 0.9;
/// Between two rises, besides at least one outcome of each.
const RISE_EVERY: Duration = Duration::from_millis(500);
/// One rise after the other.
const RISES: [f64; 7] = [1.005, 1.01, 1.03, 1.1, 1.3, 1.5, 1.5];
/// Where the rises begin below the best.
const BOLD: usize = 3;

/// The learned limit of one scarce thing.
#[derive(Debug)]
pub(super) struct Bound {
    /// Amount a second; `None` until something was refused.
    rate: Option<f64>,
    /// When the next one may leave.
    free_at: Instant,
    /// The highest rate at which nothing was refused.
    best: f64,
    /// Counts the rates, so that outcomes can be told apart by the rate at which they left.
    epoch: u32,
    /// Outcomes of earlier rates say nothing about this one.
    since: u32,
    begun: Instant,
    seen: Seen,
    /// Not before this time does the rate rise.
    quiet_until: Instant,
    rises: usize,
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
    /// Requests that had to wait, and all.
    held: u32,
    admitted: u32,
}

/// Tells at which rate a request left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket(u32);

impl Bound {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            rate: None,
            free_at: now,
            best: 0.0,
            epoch: 0,
            since: 0,
            begun: now,
            seen: Seen::default(),
            quiet_until: now,
            rises: 0,
        }
    }

    /// The learned rate, in amount a second.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Takes a place for `amount`, and says when that may leave.
    pub(super) fn reserve(&mut self, amount: f64, now: Instant) -> (Instant, Ticket) {
        let ticket = Ticket(self.epoch);
        self.seen.admitted += 1;
        let Some(rate) = self.rate else { return (now, ticket) };
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let leaves = self.free_at.max(earliest);
        self.free_at = leaves + Duration::from_secs_f64((amount / rate).min(3600.0));
        if leaves > now {
            self.seen.held += 1;
        }
        (leaves.max(now), ticket)
    }

    /// What left with `ticket` came through.
    pub(super) fn passed(&mut self, ticket: Ticket, amount: f64, now: Instant) {
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
    pub(super) fn refused(&mut self, ticket: Ticket, amount: f64, now: Instant) {
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
                    self.fall_to(self.seen.passed / looked.as_secs_f64(), now);
                }
            }
            Some(rate) => {
                let enough = looked >= LOOK && self.seen.outcomes >= OUTCOMES;
                if enough || looked >= LONGEST_LOOK {
                    let all = self.seen.passed + self.seen.refused;
                    let part = if all > 0.0 { self.seen.refused / all } else { 0.0 };
                    self.fall_to(rate * (1.0 - part.clamp(FALL.0, FALL.1)), now);
                }
            }
        }
    }

    fn fall_to(&mut self, rate: f64, now: Instant) {
        self.best = self.best.max(rate);
        let quiet = if rate >= NEAR * self.best { QUIET.0 } else { QUIET.1 };
        self.quiet_until = now + quiet;
        self.rises = 0;
        self.begin(rate, now);
        self.since = self.epoch;
        // What queued up for places at the old rate does not hold the new one back.
        self.free_at = self.free_at.min(now + Duration::from_secs(1));
    }

    fn consider_rise(&mut self, now: Instant) {
        let Some(rate) = self.rate else { return };
        let is_what_holds = self.seen.held * 2 > self.seen.admitted;
        let is_time = now >= self.quiet_until && now.saturating_duration_since(self.begun) >= RISE_EVERY;
        if !is_time || !is_what_holds || self.seen.fresh == 0 {
            return;
        }
        let step = if rate < NEAR * self.best { self.rises + BOLD } else { self.rises };
        let risen = rate * RISES[step.min(RISES.len() - 1)];
        // What was once given is come back to, and gone on from with care.
        let risen = if rate < NEAR * self.best { risen.min(NEAR * self.best).max(rate * RISES[0]) } else { risen };
        self.best = self.best.max(rate);
        self.rises += 1;
        self.begin(risen, now);
    }

    fn begin(&mut self, rate: f64, now: Instant) {
        self.rate = Some(rate.max(0.1));
        self.epoch += 1;
        self.begun = now;
        self.seen = Seen::default();
    }
}
