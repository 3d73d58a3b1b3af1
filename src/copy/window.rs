//! How many chunks may be in flight: as many as the service and the link take, within a budget of memory.
//!
//! It begins with a few and grows by one with each chunk that arrives, until something speaks against it; then
//! by one for each window's worth. Four things speak against it:
//!
//! - Chunks that usually take twice as long as they did when they were quickest: they only wait for each other. That costs
//!   memory, and processor time, because what is sent has left the caches meanwhile. What is usual is held against what was
//!   usual, not against the one quickest chunk: a service that is quick at times and slow at others is no queue.
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
const FIRST: f64 = 2.0;
/// Time-outs of requests that were under way together count once.
const DEAD_TIME: Duration = Duration::from_secs(2);
/// A chunk that takes longer shows that there are too many, however much time it has.
const SLOW: Duration = Duration::from_secs(6);
/// How often the requests that wait for their turn are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The window neither grows when requests wait for more than this part of the time that chunks are in flight…
const WAITS: f64 = 0.2;
/// …nor stays as it is when they wait for more than this.
const WAITS_MUCH: f64 = 0.35;
const EASE: f64 = 0.9;
/// Chunks that usually take this many times as long as when they were quickest wait for each other.
const QUEUED: f64 = 2.0;
/// As long as so many may be in flight, they do not wait for each other but for the line.
const FEW: f64 = 4.0;
/// How much a chunk changes what is usual.
const WEIGHT: f64 = 0.0625;
/// The quickest is forgotten slowly, by this part a second: lines change.
const FORGET: f64 = 0.001;
/// Classes of sizes, each twice the one before: how long a chunk takes depends on its size.
const CLASSES: usize = 32;

/// What was seen of the requests of a run, added up since its beginning.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signs {
    /// Requests that were not complete in their time.
    pub too_slow: u64,
    /// Seconds that requests waited for their turn, because the service was found to give no more.
    pub held_back: f64,
}

/// The window and what is in it.
#[derive(Debug)]
pub struct Window {
    most_chunks: f64,
    most_bytes: u64,
    /// A chunk that takes longer is in danger of its time-out.
    slow: Duration,
    limit: f64,
    /// Whether nothing spoke against growing yet.
    opening: bool,
    chunks: usize,
    bytes: u64,
    seen: Signs,
    looked_at: Option<Instant>,
    /// Part of the time that requests waited for their turn, when it was last looked at.
    waits: f64,
    shrunk_at: Option<Instant>,
    times: [Option<Times>; CLASSES],
    /// Whether the last chunk waited for others.
    is_queue: bool,
}

/// How long chunks of one size take, in seconds.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// Of the last few.
    usual: f64,
    /// What was usual when they were quickest.
    quickest: f64,
    /// When a chunk was last seen.
    at: Instant,
}

impl Times {
    fn first(took: f64, at: Instant) -> Self {
        Self { usual: took, quickest: took, at }
    }

    fn and(self, took: f64, at: Instant) -> Self {
        let passed = at.saturating_duration_since(self.at).as_secs_f64();
        let usual = self.usual + (took - self.usual) * WEIGHT;
        Self { usual, quickest: usual.min(self.quickest * (1.0 + FORGET * passed)), at }
    }
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
            opening: true,
            chunks: 0,
            bytes: 0,
            seen: Signs::default(),
            looked_at: None,
            waits: 0.0,
            shrunk_at: None,
            times: [None; CLASSES],
            is_queue: false,
        }
    }

    /// The same, where `signs` were seen before there was a window.
    #[must_use]
    pub(crate) fn since(self, signs: Signs) -> Self {
        Self { seen: signs, ..self }
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
    }

    /// A chunk is done that took `elapsed`.
    pub fn leave(&mut self, bytes: u64, elapsed: Duration, now: Instant) {
        self.chunks -= 1;
        self.bytes -= bytes;
        // What takes no memory is no data. A few chunks are no queue, however much longer they take than once: then it is the
        // line that changed.
        if bytes > 0 {
            self.is_queue = self.is_queued(bytes, elapsed, now);
        }
        let is_queued = self.is_queue && self.limit > FEW;
        if elapsed > self.slow * 2 {
            self.shrink(now);
        } else if is_queued && self.opening {
            // What is seen now began when there were half as many.
            self.opening = false;
            self.limit = (self.limit / 2.0).max(FIRST.min(self.most_chunks));
        } else if !is_queued && elapsed <= self.slow && self.waits <= WAITS {
            let step = if self.opening { 1.0 } else { 1.0 / self.limit };
            self.limit = (self.limit + step).min(self.most_chunks);
        }
    }

    /// Whether chunks of this size usually take so long that they must wait for each other.
    fn is_queued(&mut self, bytes: u64, elapsed: Duration, now: Instant) -> bool {
        let class = usize::try_from(bytes.max(1).ilog2()).unwrap_or(CLASSES).min(CLASSES - 1);
        let took = elapsed.as_secs_f64();
        let times = self.times[class].map_or_else(|| Times::first(took, now), |times| times.and(took, now));
        self.times[class] = Some(times);
        times.usual > QUEUED * times.quickest
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
            self.opening = false;
            self.limit = (self.limit * EASE).max(FIRST.min(self.most_chunks));
        }
    }

    fn shrink(&mut self, now: Instant) {
        self.opening = false;
        if self.shrunk_at.is_none_or(|then| now.duration_since(then) >= DEAD_TIME) {
            self.shrunk_at = Some(now);
            self.limit = (self.limit * SHRINK).max(1.0);
            // What was quick on another line says nothing of this one.
            self.times = [None; CLASSES];
        }
    }

    /// Whether chunks were seen to wait for each other.
    pub(crate) fn is_queue(&self) -> bool {
        self.is_queue
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
    use std::collections::VecDeque;

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
        let mut window = Window::new(5, 100, CALL);
        assert_eq!(window.hold(1000), None);
        window.enter(60);
        assert_eq!((window.hold(40), window.hold(41)), (None, Some(Hold::Memory)));
        window.enter(1);
        assert_eq!(window.hold(1), Some(Hold::Learned));
        for _ in 0..3 {
            window.leave(1, QUICK, Instant::now());
            window.enter(1);
            window.enter(1);
        }
        assert_eq!(window.hold(1), Some(Hold::Concurrency));
    }

    fn pass(window: &mut Window, chunks: usize, elapsed: Duration, now: Instant) {
        for _ in 0..chunks {
            window.enter(1);
            window.leave(1, elapsed, now);
        }
    }

    #[test]
    fn time_outs_shrink_the_window_once_a_moment_and_success_grows_it() {
        let start = Instant::now();
        let mut window = Window::new(16, u64::MAX, CALL);
        pass(&mut window, 14, QUICK, start);
        assert!((window.limit() - 16.0).abs() < 1e-9, "it opens by one with each chunk");
        let too_slow = |too_slow| Signs { too_slow, ..Signs::default() };
        window.observe(too_slow(5), start);
        window.observe(too_slow(9), start);
        assert!((window.limit() - 16.0 * SHRINK).abs() < 1e-9);
        for i in 0..100 {
            window.observe(too_slow(10 + i), start + DEAD_TIME * u32::try_from(i + 1).unwrap_or(1));
        }
        assert!((window.limit() - 1.0).abs() < 1e-9, "never below one");
        pass(&mut window, 1000, QUICK, start);
        assert!((window.limit() - 16.0).abs() < 1e-9, "never above the most");
    }

    #[test]
    fn chunks_that_take_long_hold_the_window_and_then_shrink_it() {
        let start = Instant::now();
        let mut window = Window::new(16, u64::MAX, CALL);
        pass(&mut window, 50, SLOW * 3 / 2, start);
        assert!((window.limit() - FIRST).abs() < 1e-9, "it does not grow");
        pass(&mut window, 1, Duration::from_mins(1), start);
        assert!((window.limit() - FIRST * SHRINK).abs() < 1e-9);
    }

    #[test]
    fn chunks_that_would_wait_at_home_do_not_start() {
        let start = Instant::now();
        let mut window = Window::new(64, u64::MAX, CALL);
        pass(&mut window, 62, QUICK, start);
        assert!((window.limit() - 64.0).abs() < 1e-9);
        (0..64).for_each(|_| window.enter(1));
        let mut signs = Signs::default();
        for second in 0..20 {
            window.observe(signs, start + Duration::from_secs(second));
            // Of 64 chunks, 48 wait all the time.
            signs.held_back += 48.0;
        }
        assert!(window.limit() < 16.0 && window.limit() >= FIRST, "{}", window.limit());
        let before = window.limit();
        window.leave(1, QUICK, start + Duration::from_secs(20));
        assert!((window.limit() - before).abs() < 1e-9, "it does not grow meanwhile");
        window.observe(signs, start + Duration::from_mins(1));
        window.leave(1, QUICK, start + Duration::from_mins(1));
        assert!(window.limit() > before);
    }

    /// The window after `chunks` chunks on a path that takes `at_once` of them without a wait, each for 100 ms times
    /// something random of that spread.
    fn settled(at_once: f64, spread: f64, chunks: usize) -> f64 {
        let mut random = fastrand::Rng::with_seed(3);
        let mut now = Instant::now();
        let mut window = Window::new(256, u64::MAX, CALL);
        let mut under_way = VecDeque::new();
        for _ in 0..chunks {
            while window.has_room(1) {
                window.enter(1);
                let waits = (window.chunks() as f64 / at_once).max(1.0);
                let luck = (spread * (random.f64() + random.f64() + random.f64() - 1.5)).exp();
                under_way.push_back(Duration::from_secs_f64(0.1 * waits * luck));
            }
            let took = under_way.pop_front().unwrap_or_default();
            now += took / u32::try_from(window.chunks()).unwrap_or(1);
            window.leave(1, took, now);
        }
        window.limit()
    }

    #[test]
    fn chunks_that_wait_for_each_other_are_not_joined_by_more() {
        for at_once in [1.0, 4.0, 30.0, 100.0] {
            for spread in [0.0, 0.5] {
                let limit = settled(at_once, spread, 3000);
                assert!(limit >= at_once && limit <= at_once * 3.0 + FIRST, "{limit} of {at_once}");
            }
        }
    }

    #[test]
    fn a_service_that_is_quick_at_times_is_no_queue() {
        // Its quickest answer takes less than a tenth of its slowest.
        let limit = settled(f64::INFINITY, 1.0, 3000);
        assert!(limit > 200.0, "{limit}");
    }
}
