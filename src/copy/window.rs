//! How many chunks may be in flight: as many as the service takes, within a budget of memory.
//!
//! Throttling and time-outs shrink the window (to two thirds, once for all refusals of one moment), chunks that
//! arrive let it grow again by one for each window's worth. So the copy finds the rate that the service allows
//! and stays near it, and on a slow link it does not start more than can finish in time.

use std::time::{Duration, Instant};

const SHRINK: f64 = 0.65;
/// Refusals of requests that were under way together count once.
const DEAD_TIME: Duration = Duration::from_secs(2);

/// The window and what is in it.
#[derive(Debug)]
pub struct Window {
    most_chunks: f64,
    most_bytes: u64,
    limit: f64,
    chunks: usize,
    bytes: u64,
    congestion_seen: u64,
    shrunk_at: Option<Instant>,
}

impl Window {
    /// A window of at most `chunks` chunks and `bytes` bytes; one chunk always fits.
    pub fn new(chunks: usize, bytes: u64) -> Self {
        let most_chunks = chunks.max(1) as f64;
        Self {
            most_chunks,
            most_bytes: bytes,
            limit: most_chunks,
            chunks: 0,
            bytes: 0,
            congestion_seen: 0,
            shrunk_at: None,
        }
    }

    /// Whether a chunk that takes `bytes` of memory may start.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.chunks == 0
            || ((self.chunks as f64) < self.limit.floor() && self.bytes + bytes <= self.most_bytes)
    }

    /// A chunk starts.
    pub fn enter(&mut self, bytes: u64) {
        self.chunks += 1;
        self.bytes += bytes;
    }

    /// A chunk is done.
    pub fn leave(&mut self, bytes: u64) {
        self.chunks -= 1;
        self.bytes -= bytes;
        self.limit = (self.limit + 1.0 / self.limit).min(self.most_chunks);
    }

    /// Looks at the running count of refusals; more than before shrinks the window.
    pub fn observe(&mut self, congested: u64, now: Instant) {
        if congested <= self.congestion_seen {
            return;
        }
        self.congestion_seen = congested;
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

    #[test]
    fn one_chunk_always_fits_and_the_budget_holds() {
        let mut window = Window::new(8, 100);
        assert!(window.has_room(1000));
        window.enter(60);
        assert!(window.has_room(40) && !window.has_room(41));
        window.leave(60);
        assert_eq!(window.chunks(), 0);
    }

    #[test]
    fn refusals_shrink_the_window_once_a_moment_and_success_grows_it() {
        let mut window = Window::new(16, u64::MAX);
        let start = Instant::now();
        window.observe(5, start);
        window.observe(9, start);
        assert!((window.limit() - 16.0 * SHRINK).abs() < 1e-9);
        for i in 0..100 {
            window.observe(10 + i, start + DEAD_TIME * u32::try_from(i + 1).unwrap_or(1));
        }
        assert!((window.limit() - 1.0).abs() < 1e-9, "never below one");
        for _ in 0..1000 {
            window.enter(1);
            window.leave(1);
        }
        assert!((window.limit() - 16.0).abs() < 1e-9, "never above the most");
    }
}
