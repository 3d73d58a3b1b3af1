//! What keeps the copy from starting another chunk, and for how long: the engine says it whenever it changes.

use std::time::Instant;

/// What keeps another chunk from starting now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Nothing is planned: the page list has not come further.
    Listing,
    /// As many chunks are in flight as the user allows.
    Concurrency,
    /// Their memory is used up.
    Memory,
    /// As many are in flight as the window was found to bear.
    Learned,
    /// What was written must be recorded first.
    Recording,
    /// Every chunk was started.
    Drained,
}

/// How long each was the reason, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Held {
    /// Nothing was planned: the page list had not come further.
    pub listing: f64,
    /// As many chunks were in flight as the user allows.
    pub concurrency: f64,
    /// Their memory was used up.
    pub memory: f64,
    /// As many were in flight as the window was found to bear.
    pub learned: f64,
    /// What was written had to be recorded first.
    pub recording: f64,
    /// Every chunk was started.
    pub drained: f64,
    /// Seconds that chunks were in flight, all chunks added up.
    pub chunks: f64,
}

/// The hold at this moment, and the times until now.
#[derive(Default)]
pub(crate) struct Holds {
    now: Option<(Hold, u64, Instant)>,
    held: Held,
}

impl Holds {
    /// From now on `hold` is the reason, with that many chunks in flight; `None` when no copy is under way.
    pub(crate) fn show(&mut self, hold: Option<Hold>, chunks: u64, now: Instant) {
        self.held = self.read(now);
        self.now = hold.map(|hold| (hold, chunks, now));
    }

    /// The times until `now`.
    pub(crate) fn read(&self, now: Instant) -> Held {
        let mut held = self.held;
        let Some((hold, chunks, since)) = self.now else { return held };
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        held.chunks += chunks as f64 * seconds;
        *match hold {
            Hold::Listing => &mut held.listing,
            Hold::Concurrency => &mut held.concurrency,
            Hold::Memory => &mut held.memory,
            Hold::Learned => &mut held.learned,
            Hold::Recording => &mut held.recording,
            Hold::Drained => &mut held.drained,
        } += seconds;
        held
    }
}

impl std::ops::Add for Held {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.with(other, |one, other| one + other)
    }
}

impl std::ops::Sub for Held {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        self.with(before, |now, before| (now - before).max(0.0))
    }
}

impl Held {
    pub(super) fn with(self, other: Self, join: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            listing: join(self.listing, other.listing),
            concurrency: join(self.concurrency, other.concurrency),
            memory: join(self.memory, other.memory),
            learned: join(self.learned, other.learned),
            recording: join(self.recording, other.recording),
            drained: join(self.drained, other.drained),
            chunks: join(self.chunks, other.chunks),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_reason_has_its_time_and_the_last_one_until_now() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut holds = Holds::default();
        assert_eq!(holds.read(after(5)), Held::default());
        holds.show(Some(Hold::Listing), 1, start);
        holds.show(Some(Hold::Memory), 4, after(2));
        let now = holds.read(after(5));
        assert_eq!(now, Held { listing: 2.0, memory: 3.0, chunks: 14.0, ..Held::default() });
        holds.show(None, 0, after(6));
        let end = holds.read(after(60));
        assert_eq!(end - now, Held { memory: 1.0, chunks: 4.0, ..Held::default() });
    }
}
