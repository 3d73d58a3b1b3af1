//! A base blob while it is repaired: what its marker says meanwhile, and how it becomes a point again.
//!
//! Meanwhile it says that a *full copy* of the snapshot is being applied, from its start, and which point it stands for.
//! Whatever happens then, no way out trusts what the blob holds: the repair is run again, the blob is rolled back to that
//! point, or the snapshot is copied whole. At the seal the step is again the one that the point is of: its counts and its
//! digest are those of the image, and the image is the same.

use super::marker::{Marker, State, StepId, now};
use super::points::Point;
use super::{Base, owner};
use crate::copy::frontier::{Checkpoint, Written};
use crate::copy::keeper::Backlog;
use crate::error::{Error, ErrorKind, Result};
use crate::leaf::LEAF;
use crate::record::format::{Basis, FORMAT, Header};
use crate::record::{RecordId, Recorder};

impl Base {
    /// Before the first byte: the fence is raised, and the marker says that the base is torn. `of_point` is what the point
    /// `time` says of itself.
    pub(crate) async fn begin_repair(&mut self, of_point: &Marker, time: &str, run: &str) -> Result<()> {
        self.raise_fence().await?;
        let before = self.marker().await;
        let marker = Marker {
            state: State::Applying,
            step: StepId { from: None, to: of_point.step.to.clone() },
            generation: self.fence.generation,
            run: run.to_owned(),
            owner: owner(),
            checkpoint: Checkpoint::default(),
            point: None,
            last_point: Some(time.to_owned()),
            distrusted: false,
            protected: before.protected,
            record: None,
            before: None,
            chain: None,
            repairs: Some(time.to_owned()),
            written_at: now(),
            ..of_point.clone()
        };
        self.write_marker(marker).await?;
        Ok(())
    }

    /// Everything is right again: a new point, which stands for the one that `of_point` is of.
    pub(crate) async fn seal_repair(&mut self, of_point: &Marker, record: Option<RecordId>) -> Result<Point> {
        {
            let mut marker = self.marker.lock().await;
            marker.step = of_point.step.clone();
            marker.before.clone_from(&of_point.before);
        }
        self.record_kept = record;
        self.seal(of_point.checkpoint).await
    }

    /// Begins a record of all that the base holds.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionMissing`] where nothing can be kept beside the base.
    pub(crate) fn begin_whole_record(&mut self, of_point: &Marker, run: &str) -> Result<()> {
        let header = Header {
            format: FORMAT,
            leaf: LEAF,
            from: of_point.step.from.as_ref().map(ToString::to_string),
            to: of_point.step.to.to_string(),
            length: of_point.length,
            basis: Basis::Zeros,
        };
        let name = self.record_name_of(&of_point.step, run);
        self.recorder = Recorder::begin(&self.blob, &name, &header)?;
        if self.recorder.is_none() {
            return Err(Error::new(
                ErrorKind::PermissionMissing,
                "write the record anew",
                "the SAS is for the base blob alone",
            )
            .on(self.blob.resource())
            .next("use a SAS of the container or of the account, or leave it out and sign in: az login"));
        }
        Ok(())
    }

    /// The next part of the record, uploaded when there is enough of it.
    pub(crate) async fn record_part(&self, part: &Written) -> Result<()> {
        let Some(recorder) = &self.recorder else { return Ok(()) };
        recorder.passed(part);
        if recorder.backlog() >= Backlog::Due {
            self.upload_record(Some(recorder.cut())).await?;
        }
        Ok(())
    }

    /// The record is whole. One that could not be kept is an error: it is what was asked for.
    pub(crate) async fn end_whole_record(&mut self) -> Result<RecordId> {
        let record = self.finish_record().await?;
        self.recorder = None;
        record.ok_or_else(|| {
            Error::new(ErrorKind::PermissionMissing, "write the record anew", "it may not be written")
                .on(self.blob.resource())
                .next("use a SAS with c and w on the container, or leave it out and sign in: az login")
        })
    }
}
