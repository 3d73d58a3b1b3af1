//! A step: what is asked for, how it is to be done, and what came of it.

use serde::Serialize;

use crate::azure::{Caps, Resource};
use crate::base::lease::LeaseOptions;
use crate::base::points::Point;
use crate::chain::Origin;
use crate::copy::CopyOptions;
use crate::diff::ListingOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{PlanOptions, Totals};

/// The three URLs of a step.
#[derive(Clone, Debug)]
pub struct Step {
    /// The snapshot to copy.
    pub source: Resource,
    /// The snapshot at which the base is clean; `None` copies in full.
    pub previous: Option<Resource>,
    /// The base blob.
    pub target: Resource,
    /// Who the source is in Azure Resource Manager, where that is known; the base blob remembers it.
    pub origin: Option<Origin>,
}

/// How a step is done. The defaults suit one page blob of an ordinary account.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How extents become chunks.
    pub plan: PlanOptions,
    /// Zeros inside a chunk that are not sent as bytes, from this length on.
    pub zero_run: u64,
    /// Who moves the bytes.
    pub mode: Mode,
    /// How chunks are moved.
    pub copy: CopyOptions,
    /// How page lists are asked for.
    pub listing: ListingOptions,
    /// How the lease is held.
    pub lease: LeaseOptions,
    /// Caps on each side: on what is read from the source, and on what is written to the target.
    pub caps: Caps,
    /// Tell snapshots apart by their time alone: for a disk whose export moved to another host.
    pub across_hosts: bool,
    /// Let a full copy take the place of what the base blob holds; its points stay.
    pub rebase: bool,
    /// What is read back before a step is sealed.
    pub verify: Verify,
}

/// Who moves the bytes from the source to the base blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// This machine: they are checked on their way, and the point gets a record.
    #[default]
    Stream,
    /// The service of the base blob reads them from the source (see [`crate::copy::pull`]); this machine does where that is
    /// refused. The point gets no record.
    Server,
}

impl Settings {
    /// Refuses `server` mode for what the service cannot pull.
    pub(crate) fn only_stream(&self, tried: &str, why: &str) -> Result<()> {
        match self.mode {
            Mode::Stream => Ok(()),
            Mode::Server => Err(Error::new(ErrorKind::Usage, tried, why).next("leave --mode server out")),
        }
    }
}

/// What is read back from the base blob, and compared, before a step is sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// Nothing: every write was acknowledged with its checksum. What the service pulled by itself is then unproven.
    None,
    /// A random part of what the run wrote, against the checksums of what came from the source; against the source itself
    /// where the bytes did not pass.
    #[default]
    Sample,
    /// That, and the whole base blob against the source, byte for byte.
    Full,
}

/// What was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How much was asked for.
    pub mode: Verify,
    /// Bytes of the base blob that were compared.
    pub bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            plan: PlanOptions::default(),
            zero_run: 64 << 10,
            mode: Mode::default(),
            copy: CopyOptions::default(),
            listing: ListingOptions::default(),
            lease: LeaseOptions::default(),
            caps: Caps::default(),
            across_hosts: false,
            rebase: false,
            verify: Verify::default(),
        }
    }
}

/// What a step did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The snapshot that the step began at; `None` for a full copy.
    pub from: Option<String>,
    /// The snapshot that was copied.
    pub to: String,
    /// Its length in bytes, footer included.
    pub length: u64,
    /// Whether the step was sealed before, so that nothing was done.
    pub already_sealed: bool,
    /// The byte from which an interrupted run was taken up.
    pub resumed_from: Option<u64>,
    /// Who moved the bytes of this run; `None` when there was nothing left to move.
    pub mode: Option<Mode>,
    /// Why they went through this machine, from the start or from some chunk on, though `server` mode was asked for.
    pub fell_back: Option<String>,
    /// What was planned in this run.
    #[serde(flatten)]
    pub totals: Totals,
    /// Bytes of the source that went to the target, each once.
    pub bytes_sent: u64,
    /// Of those, bytes that the service pulled by itself.
    pub bytes_pulled: u64,
    /// Bytes that are zero in the source and were not sent.
    pub bytes_zero: u64,
    /// What was read back before the seal; `None` when nothing was.
    pub verified: Option<Verified>,
    /// Requests to both sides, retries included.
    pub requests: u64,
    /// Of those, attempts that were made again.
    pub retries: u64,
    /// Wall-clock time.
    pub seconds: f64,
    /// The point.
    pub point: Point,
}

/// What a step would do.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// The snapshot that the step would begin at; `None` for a full copy.
    pub from: Option<String>,
    /// The snapshot that would be copied.
    pub to: String,
    /// Its length in bytes, footer included.
    pub length: u64,
    /// Who would move the bytes, unless the service refuses to.
    pub mode: Mode,
    /// `create`, `begin`, `rebase`, `go-on`, `finish-seal` or `done`.
    pub action: &'static str,
    /// The byte from which an interrupted run would be taken up.
    pub resumes_from: Option<u64>,
    /// Sums over the plan.
    #[serde(flatten)]
    pub totals: Totals,
    /// Bytes that would be read from the source: changed and joined.
    pub bytes_to_read: u64,
    /// Requests that moving them would take, without retries.
    pub requests_planned: u64,
}
