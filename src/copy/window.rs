//! How many chunks may be in flight: as many as the service and the link take, within a budget of memory.
//!
//! It begins with a few, and is tried with twice as many again and again, for as long as that makes the copy faster: chunks
//! that only wait for each other cost memory, and out of the processor's caches they cost time. From then on it tries a
//! few more every few seconds, and keeps them if they help. Three things speak against growing at all:
//!
//! - Chunks that take long: on a slow link all of them share it, and a window that is too wide would time out as a whole.
//! - Requests that were not complete in their time. They shrink it to two thirds, once for all of one moment.
//! - Requests that wait at home for their turn, because the service was found to give no more (see `azure::allowance`,
//!   which finds out how much that is): more chunks would only wait longer, and fill memory.
//!
//! A refusal (503) is no reason: the rates are learned from it, and a narrow window would give away what the service gives.

use std::time::{Duration, Instant};

use crate::measure::hold::Hold;

const SHRINK: f64 = 0.65;
/// Chunks to begin with.
const FIRST: f64 = 4.0;
/// Time-outs of requests that were under way together count once.
const DEAD_TIME: Duration = Duration::from_secs(2);
/// A chunk that takes longer shows that there are too many, however much time it has.
const SLOW: Duration = Duration::from_secs(10);
/// How often the requests that wait for their turn are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The window neither grows when requests wait for more than this part of the time that chunks are in flight…
const WAITS: f64 = 0.25;
/// …nor stays as it is when they wait for more than this.
const WAITS_MUCH: f64 = 0.5;
const EASE: f64 = 0.9;
/// A window is judged when it was used up as often as this, and for as long as this.
const TURNS: f64 = 2.0;
const ROUND: Duration = Duration::from_millis(200);
/// A larger one must be as much faster: while it opens, and later.
const OPENING_GAIN: f64 = 1.1;
const GAIN: f64 = 1.02;
/// What is kept beyond the last limit that helped: chunks do not come evenly.
const SPARE: f64 = 1.5;
/// After as many rounds, a larger window is tried, for as many rounds.
const TRY_AFTER: u32 = 10;
const TRY_FOR: u32 = 4;
const TRY: f64 = 1.25;
/// What a chunk counts besides its bytes: a request takes as long as so many bytes, as a page blob is documented.
const REQUEST: f64 = (60 << 20) as f64 / 500.0;

/// What was seen of the requests of a run, added up since its beginning.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signs {
    /// Requests that were not complete in their time.
    pub too_slow: u64,
    /// Seconds that requests waited for their turn, because the service was found to give no more.
    pub held_back: f64,
}

/// What was done since the limit was last looked at.
#[derive(Debug, Default)]
struct Round {
    begun: Option<Instant>,
    chunks: u64,
    work: f64,
    /// Whether the window was full.
    full: bool,
}

impl Round {
    fn starting(now: Instant) -> Self {
        Self { begun: Some(now), ..Self::default() }
    }
}

/// A limit, and how much work a second it brought.
#[derive(Clone, Copy, Debug)]
struct Best {
    limit: f64,
    rate: f64,
}

/// What becomes of the limit next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    /// It is doubled while that helps.
    Opening,
    /// It stays, for so many rounds more.
    Resting(u32),
    /// A larger one is tried, for so many rounds more.
    Trying(u32),
}

/// The window and what is in it.
#[derive(Debug)]
pub struct Window {
    most_chunks: f64,
    most_bytes: u64,
    /// A chunk that takes longer is in danger of its time-out.
    slow: Duration,
    limit: f64,
    round: Round,
    best: Option<Best>,
    growth: Growth,
    /// Work, and the seconds that it took, since it was decided what becomes of the limit.
    done: (f64, f64),
    chunks: usize,
    bytes: u64,
    seen: Signs,
    looked_at: Option<Instant>,
    /// Part of the time that requests waited for their turn, when it was last looked at.
    waits: f64,
    shrunk_at: Option<Instant>,
}

impl Window {
    /// A window of at most `chunks` chunks and `bytes` bytes; one chunk always fits. An attempt to move a chunk
    /// is given up after `call`.
    pub fn new(chunks: usize, bytes: u64, call: Duration) -> Self {
        let most_chunks = chunks.max(1) as f64;
        Self {
            most_chunks,
            most_bytes: bytes,
            slow: (call / 4).min(SLOW),
            limit: most_chunks.min(FIRST),
            round: Round::default(),
            best: None,
            growth: Growth::Opening,
            done: (0.0, 0.0),
            chunks: 0,
            bytes: 0,
            seen: Signs::default(),
            looked_at: None,
            waits: 0.0,
            shrunk_at: None,
        }
    }

    /// Whether a chunk that takes `bytes` of memory may start.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.chunks == 0
            || ((self.chunks as f64) < self.limit.floor() && self.bytes + bytes <= self.most_bytes)
    }

    /// What keeps a chunk that takes `bytes` of memory from starting; `None` when it may.
    pub(crate) fn hold(&self, bytes: u64) -> Option<Hold> {
        if self.has_room(bytes) {
            return None;
        }
        if self.bytes + bytes > self.most_bytes {
            return Some(Hold::Memory);
        }
        Some(if self.limit < self.most_chunks { Hold::Learned } else { Hold::Concurrency })
    }

    /// A chunk starts.
    pub fn enter(&mut self, bytes: u64) {
        self.chunks += 1;
        self.bytes += bytes;
        self.round.full |= self.chunks as f64 >= self.limit.floor() || self.bytes + bytes > self.most_bytes;
    }

    /// A chunk is done that took `elapsed`.
    pub fn leave(&mut self, bytes: u64, elapsed: Duration, now: Instant) {
        self.chunks -= 1;
        self.bytes -= bytes;
        // The first chunk of all took its time, too.
        let then = *self.round.begun.get_or_insert(now.checked_sub(elapsed).unwrap_or(now));
        self.round.chunks += 1;
        self.round.work += bytes as f64 + REQUEST;
        if elapsed > self.slow * 2 {
            self.shrink(now);
        } else if elapsed > self.slow || self.waits > WAITS {
            // No time to grow.
            self.rest(now);
        } else if self.round.chunks as f64 >= TURNS * self.limit && now - then >= ROUND {
            self.judge(now - then, now);
        }
    }

    /// A round is over: was this limit worth it?
    fn judge(&mut self, took: Duration, now: Instant) {
        let Round { work, full, .. } = std::mem::replace(&mut self.round, Round::starting(now));
        if !full {
            // There was not enough to do.
            return;
        }
        self.done = (self.done.0 + work, self.done.1 + took.as_secs_f64());
        let rate = self.done.0 / self.done.1.max(f64::MIN_POSITIVE);
        let gains = |gain: f64| self.best.is_none_or(|best| rate >= best.rate * gain);
        match self.growth {
            Growth::Opening if gains(OPENING_GAIN) => {
                self.best = Some(Best { limit: self.limit, rate });
                self.go_on(self.limit * 2.0, Growth::Opening);
            }
            Growth::Opening => {
                let helped = self.best.map_or(self.limit, |best| best.limit);
                self.go_on(helped * SPARE, Growth::Resting(TRY_AFTER));
            }
            Growth::Resting(0) => {
                self.best = Some(Best { limit: self.limit, rate });
                self.go_on(self.limit * TRY, Growth::Trying(TRY_FOR));
            }
            Growth::Trying(0) if gains(GAIN) => self.go_on(self.limit, Growth::Resting(TRY_FOR)),
            Growth::Trying(0) => {
                let before = self.best.map_or(self.limit, |best| best.limit);
                self.go_on(before, Growth::Resting(TRY_AFTER));
            }
            Growth::Resting(rounds) => self.growth = Growth::Resting(rounds - 1),
            Growth::Trying(rounds) => self.growth = Growth::Trying(rounds - 1),
        }
    }

    fn go_on(&mut self, limit: f64, growth: Growth) {
        self.limit = limit.ceil().min(self.most_chunks);
        self.growth = growth;
        self.done = (0.0, 0.0);
    }

    fn rest(&mut self, now: Instant) {
        self.growth = Growth::Resting(TRY_AFTER);
        self.done = (0.0, 0.0);
        self.round = Round::starting(now);
    }

    /// Looks at what the requests show.
    pub fn observe(&mut self, signs: Signs, now: Instant) {
        if signs.too_slow > self.seen.too_slow {
            self.seen.too_slow = signs.too_slow;
            self.shrink(now);
        }
        let then = *self.looked_at.get_or_insert(now);
        let passed = now.saturating_duration_since(then);
        if passed < LOOK_EVERY {
            return;
        }
        let in_flight = passed.as_secs_f64() * self.chunks.max(1) as f64;
        self.waits = (signs.held_back - self.seen.held_back) / in_flight;
        self.seen.held_back = signs.held_back;
        self.looked_at = Some(now);
        if self.waits > WAITS_MUCH {
            self.rest(now);
            self.limit = (self.limit * EASE).max(FIRST.min(self.most_chunks));
        }
    }

    fn shrink(&mut self, now: Instant) {
        self.rest(now);
        if self.shrunk_at.is_none_or(|then| now.duration_since(then) >= DEAD_TIME) {
            self.shrunk_at = Some(now);
            self.limit = (self.limit * SHRINK).max(1.0);
        }
    }

    /// Chunks in flight.
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// Chunks that may be in flight now.
    pub fn limit(&self) -> f64 {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Duration = Duration::from_secs(100);
    const QUICK: Duration = Duration::from_secs(1);

    #[test]
    fn one_chunk_always_fits_and_the_budget_holds() {
        let mut window = Window::new(8, 100, CALL);
        assert!(window.has_room(1000));
        window.enter(60);
        assert!(window.has_room(40) && !window.has_room(41));
        window.leave(60, QUICK, Instant::now());
        assert_eq!(window.chunks(), 0);
    }

    #[test]
    fn it_says_what_it_is_full_of() {
        let mut window = Window::new(4, 100, CALL);
        assert_eq!(window.hold(1000), None);
        window.enter(60);
        assert_eq!((window.hold(40), window.hold(41)), (None, Some(Hold::Memory)));
        (0..3).for_each(|_| window.enter(1));
        assert_eq!(window.hold(1), Some(Hold::Concurrency));
        let mut window = Window::new(5, 100, CALL);
        (0..4).for_each(|_| window.enter(1));
        assert_eq!(window.hold(1), Some(Hold::Learned));
    }

    /// A service that takes `latency` seconds for a chunk and at most `rate` chunks a second. Runs a copy through it for
    /// some seconds, and gives the window's limit at its end.
    fn settle(window: &mut Window, latency: f64, rate: f64, seconds: f64, start: Instant) -> f64 {
        let mut ends: std::collections::VecDeque<(f64, f64)> = std::collections::VecDeque::new();
        let (mut now, mut free) = (0.0, 0.0_f64);
        while now < seconds {
            while window.has_room(CHUNK) {
                window.enter(CHUNK);
                free = free.max(now) + 1.0 / rate;
                ends.push_back((now, free.max(now + latency)));
            }
            let Some((begun, end)) = ends.pop_front() else { break };
            now = end.max(now);
            let at = start + Duration::from_secs_f64(now);
            window.leave(CHUNK, Duration::from_secs_f64(now - begun), at);
        }
        for _ in ends {
            window.leave(CHUNK, Duration::ZERO, start + Duration::from_secs_f64(now));
        }
        window.limit()
    }

    const CHUNK: u64 = 4 << 20;

    #[test]
    fn it_opens_as_wide_as_it_helps_and_not_wider() {
        // 160 ms there and back, 400 chunks a second: 64 are needed.
        let mut window = Window::new(1000, u64::MAX, CALL);
        let limit = settle(&mut window, 0.16, 400.0, 30.0, Instant::now());
        assert!((60.0..200.0).contains(&limit), "{limit}");
        // Hardly any latency: the first few are enough.
        let mut window = Window::new(1000, u64::MAX, CALL);
        let limit = settle(&mut window, 0.001, 400.0, 30.0, Instant::now());
        assert!(limit <= 8.0, "{limit}");
    }

    #[test]
    fn it_follows_a_line_that_becomes_wider() {
        let start = Instant::now();
        let mut window = Window::new(1000, u64::MAX, CALL);
        let before = settle(&mut window, 0.16, 50.0, 20.0, start);
        let after = settle(&mut window, 0.16, 400.0, 120.0, start + Duration::from_secs(30));
        assert!(before <= 32.0 && after > 50.0, "{before} and {after}");
    }

    #[test]
    fn time_outs_shrink_the_window_once_a_moment() {
        let start = Instant::now();
        let mut window = Window::new(64, u64::MAX, CALL);
        let wide = settle(&mut window, 0.5, 1000.0, 30.0, start);
        assert!((wide - 64.0).abs() < 1e-9, "never above the most: {wide}");
        let later = start + Duration::from_secs(60);
        let too_slow = |too_slow| Signs { too_slow, ..Signs::default() };
        window.observe(too_slow(5), later);
        window.observe(too_slow(9), later);
        assert!((window.limit() - 64.0 * SHRINK).abs() < 1e-9);
        for i in 0..100 {
            window.observe(too_slow(10 + i), later + DEAD_TIME * u32::try_from(i + 1).unwrap_or(1));
        }
        assert!((window.limit() - 1.0).abs() < 1e-9, "never below one");
    }

    #[test]
    fn chunks_that_take_long_hold_the_window_and_then_shrink_it() {
        let start = Instant::now();
        let mut window = Window::new(16, u64::MAX, CALL);
        let mut pass = |elapsed: Duration| {
            for turn in 1..50 {
                window.enter(1);
                window.leave(1, elapsed, start + elapsed * turn);
            }
            window.limit()
        };
        assert!((pass(SLOW * 3 / 2) - FIRST).abs() < 1e-9, "it does not grow");
        assert!(pass(SLOW * 3) <= FIRST * SHRINK);
    }

    #[test]
    fn chunks_that_would_wait_at_home_do_not_start() {
        let start = Instant::now();
        let mut window = Window::new(64, u64::MAX, CALL);
        settle(&mut window, 0.5, 1000.0, 30.0, start);
        let start = start + Duration::from_secs(60);
        (0..64).for_each(|_| window.enter(1));
        let mut signs = Signs::default();
        for second in 0..20 {
            window.observe(signs, start + Duration::from_secs(second));
            // Of 64 chunks, 48 wait all the time.
            signs.held_back += 48.0;
        }
        assert!(window.limit() < 16.0 && window.limit() >= FIRST, "{}", window.limit());
    }
}
