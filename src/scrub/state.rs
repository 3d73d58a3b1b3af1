//! Where a scrub stopped, and what it found: a block blob in the container, so that any machine can go on.
//!
//! Every time it is written it replaces what this scrub wrote before, and nothing else (`If-Match`): of two scrubs that
//! run at once one finds that it was overtaken, and ends.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::azure::BlockBlob;
use crate::azure::block_blob::Only;
use crate::error::{Error, ErrorKind, Result};

/// Layout. A higher number is not understood.
const FORMAT: u32 = 1;
/// A state that is larger was not written by a scrub.
const LARGEST: u64 = 4 << 20;
/// A scrub that did not write for so long is dead.
const SILENT: SignedDuration = SignedDuration::from_mins(10);
/// What a person is told who wants to go on.
pub(super) const TRIED: &str = "scrub the container";

/// What is wrong with a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It differs from its record.
    Differs,
    /// Its record is damaged, or a part of it is gone.
    RecordDamaged,
    /// Its metadata is damaged.
    MetadataDamaged,
}

/// A point that is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its base blob.
    pub blob: String,
    /// The point.
    pub point: String,
    /// What is wrong.
    pub fault: Fault,
    /// The first byte that differs.
    pub first_difference: Option<u64>,
    /// Bytes that differ.
    pub differing_bytes: u64,
    /// What is wrong with the record or the metadata.
    pub why: Option<String>,
    /// When it was seen last.
    pub seen: Timestamp,
}

/// How far a pass is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Base blob.
    pub blob: String,
    /// Its point.
    pub point: String,
    /// Byte of it from which on it is not compared yet.
    pub offset: u64,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubState {
    format: u32,
    /// The share of every day until then is done.
    pub done_until: Option<Timestamp>,
    /// Where the next run goes on; `None` at the start of a pass.
    pub position: Option<Position>,
    /// What was found in the point at the position so far.
    pub open: Option<Finding>,
    /// When the last pass over all points was complete.
    pub last_full_pass: Option<Timestamp>,
    /// What is known to be wrong.
    pub findings: Vec<Finding>,
    /// When the scrub that is at work wrote this; `None` when none is.
    pub at_work: Option<Timestamp>,
}

impl Default for ScrubState {
    fn default() -> Self {
        Self {
            format: FORMAT,
            done_until: None,
            position: None,
            open: None,
            last_full_pass: None,
            findings: Vec::new(),
            at_work: None,
        }
    }
}

/// The state's blob, as this scrub saw or wrote it last.
pub(super) struct Keeper {
    blob: BlockBlob,
    only: Only,
}

impl Keeper {
    /// Reads the state.
    ///
    /// # Errors
    /// [`ErrorKind::LeaseHeld`] while another scrub is at work.
    pub(super) async fn open(blob: BlockBlob, now: Timestamp) -> Result<(Self, ScrubState)> {
        let Some((length, etag)) = blob.look().await? else {
            return Ok((Self { blob, only: Only::IfNew }, ScrubState::default()));
        };
        let unusable = |why: String| {
            Error::new(ErrorKind::Corruption, "read where the last scrub stopped", why)
                .on(blob.resource())
                .next("delete that blob: the next scrub begins at the start (az storage blob delete)")
        };
        if length == 0 || length > LARGEST {
            return Err(unusable(format!("it has {length} bytes")));
        }
        let text = blob.read(0, length).await?;
        let state: ScrubState = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
        if state.format != FORMAT {
            return Err(unusable(format!(
                "its format is {}; this version of snapferry reads format {FORMAT}",
                state.format
            )));
        }
        if let Some(at) = state.at_work
            && now.duration_since(at).abs() < SILENT
        {
            let why = format!("another scrub is at work in this container; it showed a sign of life at {at}");
            return Err(Error::new(ErrorKind::LeaseHeld, TRIED, why)
                .on(blob.resource())
                .next("run the same command again when it has ended; after a crash, in ten minutes"));
        }
        Ok((Self { blob, only: Only::IfAt(etag) }, state))
    }

    /// Writes the state.
    ///
    /// # Errors
    /// [`ErrorKind::LeaseLost`] when another scrub wrote meanwhile.
    pub(super) async fn save(&mut self, state: &ScrubState) -> Result<()> {
        let text = serde_json::to_vec_pretty(state)
            .map(Bytes::from)
            .map_err(|error| Error::new(ErrorKind::Internal, TRIED, error.to_string()))?;
        let id = uuid::Uuid::new_v4().simple().to_string().into_bytes();
        self.blob.put_block(&id, text.clone()).await?;
        match self.blob.commit(&[id], &self.only).await {
            Ok(etag) => self.only = Only::IfAt(etag),
            Err(error) if matches!(error.status(), Some(409 | 412)) => self.adopt(&text).await?,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// It was refused: unless that is our own attempt, whose reply was lost, another scrub is at work.
    async fn adopt(&mut self, text: &Bytes) -> Result<()> {
        let length = text.len() as u64;
        if let Some((found, etag)) = self.blob.look().await?
            && found == length
            && self.blob.read(0, length).await? == *text
        {
            self.only = Only::IfAt(etag);
            return Ok(());
        }
        Err(Error::new(ErrorKind::LeaseLost, TRIED, "another scrub began in this container meanwhile")
            .on(self.blob.resource())
            .next("leave it to the other one; what this one did since it wrote last is done again"))
    }
}
