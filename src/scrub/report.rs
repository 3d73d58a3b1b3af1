//! What is to be scrubbed, and what came of it.

use jiff::Timestamp;
use serde::Serialize;

use super::state::{Fault, Finding, Position};
use crate::azure::Destination;
use crate::error::{Error, ErrorKind};

/// What is to be scrubbed.
#[derive(Clone, Debug)]
pub struct ScrubJob {
    /// The container.
    pub container: Destination,
    /// The share of all bytes that is compared in a day.
    pub per_day: f64,
    /// The time.
    pub now: Timestamp,
}

/// What a run did, and what is known after it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ScrubReport {
    /// The container, without its SAS.
    pub container: String,
    /// Points in it.
    pub points: u64,
    /// Of those, points without a record.
    pub points_without_record: u64,
    /// Bytes of all points that have a record.
    pub bytes_total: u64,
    /// Bytes that were due.
    pub bytes_due: u64,
    /// Bytes that were compared in this run, with those that hold nothing.
    pub bytes_compared: u64,
    /// Bytes that were read for it.
    pub bytes_read: u64,
    /// Bytes of which no record says what they must be.
    pub bytes_unknown: u64,
    /// Where the next run goes on; `None` at the start of a pass.
    pub position: Option<Position>,
    /// When the last pass over all points was complete.
    pub last_full_pass: Option<Timestamp>,
    /// Points that are not what they must be, of this run and those before.
    pub findings: Vec<Finding>,
    /// Requests, retries included.
    pub requests: u64,
    /// Wall-clock time.
    pub seconds: f64,
}

impl ScrubReport {
    /// The error that the command ends with; `None` when nothing is known to be wrong.
    pub fn error(&self) -> Option<Error> {
        let first = self.findings.first()?;
        let differs = self.findings.iter().any(|finding| finding.fault == Fault::Differs);
        let kind = if differs { ErrorKind::Differs } else { ErrorKind::Corruption };
        let why = format!(
            "{} of {} points are not what they must be; the first is {} of {}",
            self.findings.len(),
            self.points,
            first.point,
            first.blob
        );
        Some(Error::new(kind, "find all points equal to their records", why).on(&self.container).next(format!(
            "look closer: snapferry verify --target <URL of {}> --point {} (with --source <SAS URL> while there is a source)",
            first.blob, first.point
        )))
    }
}
