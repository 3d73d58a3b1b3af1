//! The allowance against a model of the service: buckets that fill at the limits, and refuse when they are empty.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

/// A request takes this long there and back.
const ROUND_TRIP: f64 = 0.08;
/// What was refused comes back after this time.
const WAIT: f64 = 0.375;

/// A service with a limit on bytes or requests, which changes with time.
struct Service {
    limit: fn(f64) -> f64,
    /// Holds at most what comes in a second.
    bucket: f64,
    filled_at: f64,
    /// What it could have given since the time that is counted from.
    given: f64,
}

impl Service {
    fn admits(&mut self, amount: f64, now: f64) -> bool {
        let rate = (self.limit)(now);
        let came = (now - self.filled_at) * rate;
        self.given += came;
        self.bucket = (self.bucket + came).min(rate);
        self.filled_at = now;
        // As in the service: what is left may be less than what is asked for, and is owed then.
        let admits = self.bucket > 0.0;
        if admits {
            self.bucket -= amount;
        }
        admits
    }
}

#[derive(Debug, Default)]
struct Outcome {
    /// Part of what the service could give.
    used: f64,
    /// Part of the requests that it refused, after the first ten seconds.
    refused: f64,
}

/// What happens in the model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives(usize),
    Ends(usize, bool),
    Begins(usize),
    /// The gate may let another one out.
    Opens,
}

/// `workers` send requests of `bytes` each, one after the other, for so many seconds.
fn run(scarce: Scarce, limit: fn(f64) -> f64, bytes: u64, workers: usize, seconds: f64) -> Outcome {
    let start = Instant::now();
    let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
    let amount = if scarce == Scarce::Requests { 1.0 } else { bytes as f64 };
    let mut service = Service { limit, bucket: limit(0.0), filled_at: 0.0, given: 0.0 };
    let mut allowance = Allowance::new(start);
    let mut turns: Vec<Option<Turn>> = vec![None; workers];
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let nanos = |seconds: f64| (seconds * 1e9) as u64;
    let mut events: BinaryHeap<Reverse<(u64, Event)>> =
        (0..workers).map(|worker| Reverse((nanos(worker as f64 / 1000.0), Event::Begins(worker)))).collect();
    let mut queue = std::collections::VecDeque::new();
    let mut waits_until = start;
    let (mut passed, mut late, mut late_refused) = (0.0, 0.0, 0.0);
    while let Some(Reverse((time, event))) = events.pop() {
        let now = time as f64 / 1e9;
        if now > seconds {
            break;
        }
        match event {
            Event::Begins(worker) => {
                queue.push_back(worker);
                events.push(Reverse((time, Event::Opens)));
            }
            Event::Opens => {
                while let Some(worker) = queue.front().copied() {
                    let opens = allowance.opens();
                    if opens > at(now) {
                        // One event is enough for all that wait.
                        if waits_until != opens {
                            waits_until = opens;
                            let opens = opens.duration_since(start).as_secs_f64();
                            events.push(Reverse((nanos(opens) + 1, Event::Opens)));
                        }
                        break;
                    }
                    queue.pop_front();
                    turns[worker] = Some(allowance.leave(bytes, at(now)));
                    events.push(Reverse((nanos(now + ROUND_TRIP / 2.0), Event::Arrives(worker))));
                }
            }
            Event::Arrives(worker) => {
                let admitted = service.admits(amount, now);
                if admitted {
                    passed += amount;
                }
                if now > 10.0 {
                    late += 1.0;
                    late_refused += f64::from(u8::from(!admitted));
                }
                events.push(Reverse((nanos(now + ROUND_TRIP / 2.0), Event::Ends(worker, admitted))));
            }
            Event::Ends(worker, admitted) => {
                let Some(turn) = turns[worker].take() else { continue };
                if admitted {
                    allowance.passed(turn, at(now));
                    // It is read from the source before the next one is written.
                    events.push(Reverse((nanos(now + ROUND_TRIP), Event::Begins(worker))));
                } else {
                    allowance.refused(turn, scarce, at(now));
                    events.push(Reverse((nanos(now + WAIT), Event::Begins(worker))));
                }
            }
        }
    }
    Outcome { used: passed / service.given, refused: late_refused / late }
}

fn mib(limit: f64) -> f64 {
    limit * 1_048_576.0
}

/// Full, a third, and full again.
fn dip(now: f64) -> f64 {
    if (60.0..90.0).contains(&now) { 1.0 / 3.0 } else { 1.0 }
}

fn holds(what: &str, outcome: &Outcome, used: f64, refused: f64) {
    // As many requests read from the source, so that of all it is half of this.
    assert!(outcome.used >= used && outcome.refused < refused, "{what}: {outcome:?}");
}

#[test]
fn what_the_service_gives_is_used_and_little_is_refused() {
    let steady = run(Scarce::Bytes, |_| mib(60.0), 4 << 20, 16, 120.0);
    holds("bytes", &steady, 0.97, 0.02);
    let steady = run(Scarce::Requests, |_| 500.0, 4096, 200, 120.0);
    holds("requests", &steady, 0.97, 0.01);
    let large = run(Scarce::Requests, |_| 20_000.0, 4096, 8000, 30.0);
    holds("many requests", &large, 0.95, 0.03);
}

#[test]
fn a_limit_that_falls_to_a_third_and_comes_back_is_followed() {
    let bytes = run(Scarce::Bytes, |now| mib(60.0) * dip(now), 4 << 20, 16, 150.0);
    holds("bytes", &bytes, 0.97, 0.02);
    let requests = run(Scarce::Requests, |now| 500.0 * dip(now), 4096, 200, 150.0);
    holds("requests", &requests, 0.97, 0.01);
}

#[test]
fn what_is_documented_is_come_back_to_though_it_was_never_given() {
    let limit = |now| if now < 30.0 { 167.0 } else { 500.0 };
    let requests = run(Scarce::Requests, limit, 4096, 200, 110.0);
    holds("requests", &requests, 0.95, 0.01);
}

#[test]
fn a_service_that_gives_less_for_good_is_not_asked_for_more_again_and_again() {
    let low = run(Scarce::Requests, |_| 100.0, 4096, 100, 600.0);
    holds("low", &low, 0.97, 0.01);
}

#[test]
fn an_outage_is_no_rate() {
    let outage = |now: f64| if (20.0..26.0).contains(&now) { 0.001 } else { 500.0 };
    let requests = run(Scarce::Requests, outage, 4096, 200, 60.0);
    assert!(requests.used > 0.85, "{requests:?}");
}

#[test]
fn a_limit_that_rises_for_good_is_found() {
    let risen = run(Scarce::Requests, |now| if now < 40.0 { 200.0 } else { 800.0 }, 4096, 400, 200.0);
    holds("risen", &risen, 0.9, 0.02);
}

#[test]
fn without_refusals_nothing_is_held_back() {
    let mut allowance = Allowance::new(Instant::now());
    let now = Instant::now();
    for _ in 0..1000 {
        assert!(allowance.opens() <= now);
        let turn = allowance.leave(4 << 20, now);
        allowance.passed(turn, now);
    }
    assert_eq!(allowance.learned(), Learned::default());
}

#[test]
fn a_single_refusal_is_no_limit() {
    let now = Instant::now();
    let mut allowance = Allowance::new(now);
    for second in 0..20 {
        for _ in 0..100 {
            let turn = allowance.leave(4096, now + Duration::from_secs(second));
            let later = now + Duration::from_millis(second * 1000 + 100);
            match second {
                5 => allowance.refused(turn, Scarce::Requests, later),
                _ => allowance.passed(turn, later),
            }
            if second == 5 {
                break;
            }
        }
    }
    assert_eq!(allowance.learned(), Learned::default());
}
