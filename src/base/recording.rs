//! The record of the step that is being applied: where it begins, and how it ends.

use super::marker::{Marker, State, StepId};
use super::{Base, Opening, look};
use crate::azure::failure::CallResult;
use crate::copy::frontier::Checkpoint;
use crate::error::{ErrorKind, Remedy, Result};
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
        let header = |basis| Header {
            format: FORMAT,
            leaf: LEAF,
            from: opening.step.from.as_ref().map(ToString::to_string),
            to: opening.step.to.to_string(),
            length: opening.length,
            basis,
        };
        if checkpoint.offset > 0 {
            if let Some(part) = &before.record {
                self.go_on_with_record(&name, &header(Basis::Record(part.clone())), part).await?;
            } else {
                tracing::warn!("what was copied before this run has no record, and so its point gets none");
            }
            return Ok(before.before.clone());
        }
        let (basis, digest) = match opening.step.from {
            None => (Basis::Zeros, None),
            Some(_) => self.basis(before).await?,
        };
        if basis == Basis::Unknown {
            tracing::warn!(
                "the point that the step begins at has no record: that of the new point knows only what the step writes"
            );
        }
        self.recorder = Recorder::begin(&self.blob, &name, &header(basis))?;
        Ok(digest)
    }

    /// Without what was written before the checkpoint there can be no record of this step. That costs the point its
    /// record, and nothing else.
    async fn go_on_with_record(&mut self, name: &str, header: &Header, part: &RecordId) -> Result<()> {
        match Recorder::go_on(&self.blob, name, header, part).await {
            Ok(recorder) => {
                self.recorder = recorder;
                self.record_before = Some(part.clone());
                Ok(())
            }
            Err(error)
                if error.kind().remedy() == Remedy::Passes && error.kind() != ErrorKind::Corruption =>
            {
                Err(error)
            }
            Err(error) => {
                tracing::warn!(why = error.why(), "the point of this step gets no record");
                Ok(())
            }
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
}
