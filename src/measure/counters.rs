//! What the limit finder looks at: all counters of a run at one moment.

use super::hold::Held;
use super::times::Work;

/// The counters of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Side {
    /// Requests, every attempt counted.
    pub requests: u64,
    /// Of those, the ones that it refused for load.
    pub refused: u64,
    /// Seconds that calls waited for the user's cap, all calls added up.
    pub capped: f64,
    /// Seconds that calls waited because the service was found to give no more, all calls added up.
    pub held_back: f64,
    /// Seconds that requests which move data were under way, all added up.
    pub moving: f64,
    /// Requests which moved data and succeeded.
    pub moved: Work,
}

/// What the limit finder looks at. All but `at`, `window` and `cores` only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    /// Seconds since the run began.
    pub at: f64,
    /// Where is read.
    pub source: Side,
    /// Where is written.
    pub target: Side,
    /// What kept chunks from starting, and for how long.
    pub held: Held,
    /// Chunks that may be in flight.
    pub window: f64,
    /// Processor time, in seconds.
    pub cpu: f64,
    /// Processors that may be used at once.
    pub cores: f64,
}

impl std::ops::Add for Side {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            refused: self.refused + other.refused,
            capped: self.capped + other.capped,
            held_back: self.held_back + other.held_back,
            moving: self.moving + other.moving,
            moved: self.moved + other.moved,
        }
    }
}

impl std::ops::Sub for Side {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            refused: self.refused.saturating_sub(before.refused),
            capped: (self.capped - before.capped).max(0.0),
            held_back: (self.held_back - before.held_back).max(0.0),
            moving: (self.moving - before.moving).max(0.0),
            moved: self.moved - before.moved,
        }
    }
}
