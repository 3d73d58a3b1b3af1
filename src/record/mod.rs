//! The record of a point: a checksum of every leaf, so that a point can be proven right when its source is long gone.
//!
//! ```text
//! copy ──leaves that passed──> Recorder ──blocks──> record of the step (block blob beside the base)
//!                                  │                    ▲ basis: the record before it, back to the full copy
//!                                  └──how far──> marker │
//! seal ──name, length, SHA-256 of the record, digest of the point──> metadata of the point
//! ```
//!
//! **What it costs.** Eight bytes for each leaf of 4 KiB with data that a step writes: 0.2% of them. No byte is read for
//! it, neither at the source nor at the target. The bytes that a step copies pass through this machine anyway, and all of
//! their leaves are whole ([`crate::leaf`]): no checksum of a part has to be brought together with bytes that did not
//! pass. Leaves that a step does not write keep the checksum that they had: in the records before it, which the point's
//! record leads to. So the record of a *point* is the chain of the records of its steps, the newest word on each leaf.
//!
//! **Consistency.** A checkpoint never leads its record: first the record's blocks, then the marker that names how much of
//! it belongs to the checkpoint. A run that goes on begins a record of its own name (its generation) on exactly that much, so
//! that nothing of a writer that was overtaken lands in it.
//!
//! **Digest.** The metadata of a point carries a SHA-256 over all that snapferry wrote there, the SHA-256 of its record
//! and the digest of the point before it.

pub mod chain;
pub mod compare;
pub mod digest;
pub mod format;
mod reader;
mod recorder;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

pub use chain::{Chain, Expect};
pub use recorder::Recorder;

/// A record, or the part of one that is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordId {
    /// Name of its blob in the container of the base blob.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of these bytes, in hex.
    pub sha256: String,
}

fn not_scanned() -> Error {
    Error::new(ErrorKind::Internal, "compute checksums", "the thread pool gave no result")
}

impl RecordId {
    /// As it stands in metadata: `<bytes>:<sha256>:<name>`, the name percent-encoded, because headers are ASCII.
    pub(crate) fn to_text(&self) -> String {
        let name = percent_encoding::utf8_percent_encode(&self.name, percent_encoding::NON_ALPHANUMERIC);
        format!("{}:{}:{name}", self.bytes, self.sha256)
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let bytes = parts.next()?.parse().ok()?;
        let sha256 = parts.next().filter(|hex| hex.len() == 64)?.to_owned();
        let name = percent_encoding::percent_decode_str(parts.next()?).decode_utf8().ok()?.into_owned();
        (!name.is_empty()).then_some(Self { name, bytes, sha256 })
    }
}
