//! What a run shows of itself over time: the course that reports draw, and what limited it.
//!
//! ```text
//! Progress (counters, all growing) ──sampled──> Course (samples, latencies, map) ──> limit finder ──> report
//! ```
//!
//! Everything here is plain data that serialises, so that a course can be kept, compared and drawn later.

mod advice;
mod counters;
mod cpu;
pub mod hold;
pub mod limit;
mod map;
mod sampler;
pub mod times;

use serde::{Deserialize, Serialize};

pub use counters::{Counters, Side};
pub use limit::{Found, LimitFinder};
pub use sampler::{Observer, SAMPLE_EVERY, observe};

/// What keeps a run from being faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// The source refuses (503) or answers late.
    Source,
    /// The target refuses (503) or answers late.
    Target,
    /// A cap that the user set.
    Cap,
    /// The processors of this machine.
    Cpu,
    /// The line: more chunks in flight only made each take longer.
    Link,
    /// The page list comes slower than it is copied.
    Listing,
    /// The window is at its limit (`--concurrency`, `--memory`) and nothing else is.
    Window,
    /// The window is still opening, or the run is too short to tell.
    Unknown,
}

/// The counters of a run at one moment; all but `at`, `window`, `in_flight` and `limit` only grow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since the run began.
    pub at: f64,
    /// Bytes that came from the source.
    pub bytes_in: u64,
    /// Bytes that went to the target.
    pub bytes_out: u64,
    /// Bytes of chunks that are written, zeros and clears included.
    pub bytes_done: u64,
    /// Requests to the source, every attempt counted.
    pub source_requests: u64,
    /// Requests to the target, every attempt counted.
    pub target_requests: u64,
    /// Of those to the source, the ones that it refused for load (503, 429, 500 `OperationTimedOut`).
    pub source_refused: u64,
    /// Of those to the target, the ones that it refused for load.
    pub target_refused: u64,
    /// Chunks in flight.
    pub in_flight: u64,
    /// Chunks that may be in flight.
    pub window: f64,
    /// Processor time of this process, in seconds.
    pub cpu: f64,
    /// What limited the run since the sample before.
    pub limit: Limit,
}

/// How long requests of one kind took, in milliseconds, from first byte sent to last byte received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Requests that succeeded.
    pub count: u64,
    /// The mean.
    pub mean: f64,
    /// Half of them took at most this.
    pub p50: f64,
    /// 90 of 100 took at most this.
    pub p90: f64,
    /// 99 of 100 took at most this.
    pub p99: f64,
    /// 999 of 1000 took at most this.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// Which parts of the disk were written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockMap {
    /// Bytes of the disk that one cell stands for.
    pub cell: u64,
    /// Bytes of data that were written in each cell; at most 4096 cells.
    pub data: Vec<u64>,
    /// Bytes of zeros and clears in each cell.
    pub zero: Vec<u64>,
}

/// How long something was the limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// What.
    pub limit: Limit,
    /// Part of the time, from 0 to 1.
    pub part: f64,
}

/// The course of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// Wall-clock seconds.
    pub seconds: f64,
    /// In order of time; at most a thousand, however long the run is.
    pub samples: Vec<Sample>,
    /// Ranged reads of the source.
    pub reads: Latency,
    /// Page writes to the target.
    pub writes: Latency,
    /// Where was written.
    pub map: BlockMap,
    /// What limited the run, most of the time first.
    pub limits: Vec<Share>,
}
