//! The record of the step that is being applied: where it begins, and how it ends.

use super::marker::{Marker, State, StepId};
use super::{Base, Opening, look};
use crate::azure::failure::CallResult;
use crate::copy::frontier::Checkpoint;
use crate::error::{ErrorKind, Result};
use crate::leaf::LEAF;
use crate::record::format::{Basis, FORMAT, Header};
use crate::record::{RecordId, Recorder};

impl Base {
    /// Begins the record, or takes over what there is of it. Returns the digest of the point that the step begins at.
    pub(super) async fn begin_record(
        &mut self,
        opening: &Opening,
        checkpoint: Checkpoint,
        before: &Marker,
    ) -> Result<Option<String>> {
        let name = self.record_name(opening);
        if checkpoint.offset > 0 {
            self.go_on_with_record(&name, before.record.clone()).await?;
            return Ok(before.before.clone());
        }
        let (basis, digest) = match opening.step.from {
            None => (Basis::Zeros, None),
            Some(_) => self.basis(before).await?,
        };
        let header = Header {
            format: FORMAT,
            leaf: LEAF,
            from: opening.step.from.as_ref().map(ToString::to_string),
            to: opening.step.to.to_string(),
            length: opening.length,
            basis,
        };
        self.recorder = Recorder::begin(&self.blob, &name, &header)?;
        Ok(digest)
    }

    /// Without what was written before the checkpoint there can be no record of this step. That costs the point its
    /// record, and nothing else.
    async fn go_on_with_record(&mut self, name: &str, part: Option<RecordId>) -> Result<()> {
        let Some(part) = part else { return Ok(()) };
        match Recorder::go_on(&self.blob, name, part.clone()).await {
            Ok(recorder) => {
                self.recorder = recorder;
                self.record_before = Some(part);
                Ok(())
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Corruption | ErrorKind::AccessDenied | ErrorKind::PermissionMissing
                ) =>
            {
                tracing::warn!(why = error.why(), "the point of this step gets no record");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What the record of a difference is begun on: the record of the point that the base equals.
    async fn basis(&self, before: &Marker) -> Result<(Basis, Option<String>)> {
        let known = if before.state == State::Clean {
            Some((before.record.clone(), before.chain.clone()))
        } else if let Some(time) = &before.last_point {
            let point = look(&self.blob.at_snapshot(time)?).await?;
            point.marker.map(|marker| (marker.record, marker.chain))
        } else {
            None
        };
        let (record, digest) = known.unwrap_or_default();
        Ok((record.map_or(Basis::Unknown, Basis::Record), digest))
    }

    /// A name of its own for each run: what an overtaken writer still has on its way lands elsewhere.
    fn record_name(&self, opening: &Opening) -> String {
        self.record_name_of(&opening.step, &opening.run)
    }

    pub(super) fn record_name_of(&self, step: &StepId, run: &str) -> String {
        let time = step.to.time().replace(':', "-");
        let run = run.get(..8).unwrap_or(run);
        format!("{}.records/{time}-g{}-{run}", self.blob.resource().blob_name(), self.fence.generation)
    }

    pub(super) async fn upload_record(&self, goal: Option<u64>) -> CallResult<Option<RecordId>> {
        match (&self.recorder, goal) {
            (Some(recorder), Some(goal)) => recorder.upload(goal).await,
            _ => Ok(None),
        }
    }

    /// Ends the record, and gives what the point will name.
    pub(super) async fn finish_record(&self) -> CallResult<Option<RecordId>> {
        if self.recorder.is_none() {
            return Ok(self.record_kept.clone());
        }
        self.upload_record(self.recorder.as_ref().map(Recorder::finish)).await
    }

    /// What another run had written of the same record, and this one took over, is of no use any more.
    pub(super) async fn forget_old_record(&mut self) {
        let Some(old) = self.record_before.take() else { return };
        if let Ok(Some(blob)) = self.blob.beside(&old.name)
            && let Err(error) = blob.delete().await
        {
            tracing::debug!(cause = %error.cause, record = old.name, "the part of a record was not deleted");
        }
    }
}
