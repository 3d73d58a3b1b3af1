//! Is a point still what it must be? It is compared with what was recorded when it was sealed, with its source, or with
//! both.
//!
//! ```text
//! find ──> look ──────────> walk ─────────────────────────> judge
//! (point)  (digest, record,  (chunk by chunk: what the page   (equal, or which of point,
//!           source)           lists name is read, and every    source and record stands
//!                             leaf is held against the rest)   alone)
//! ```
//!
//! **What proves what.** A record is a checksum of every leaf, made from the bytes as they came from the source: it proves a
//! point when the source is gone. Each of its frames has a checksum, its whole a SHA-256 in the point's metadata, and these
//! a digest: a damaged record says that it is damaged, and then says nothing about the point. A source proves a point
//! without a record, byte for byte. With both at hand a difference is judged by two against one, so that a wrong record
//! never makes a good point look bad.
//! One case is no majority: what the step did not read, or only cleared, point and record both took from the service's page
//! list. Where the source differs there, the list was wrong, and not the source.
//!
//! **Samples.** A part of the chunks can be compared instead of all; and, against a source, a part of what the step of the
//! point did *not* write. That is the only look at what the service's difference left out.
//!
//! Nothing is written.

mod choice;
mod compare;
mod differences;
mod look;
mod report;
mod walk;
mod written;

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::azure::{Client, Endpoint, Metadata, PageBlob, Resource, Role};
use crate::base;
use crate::base::marker::Marker;
use crate::chain::survey::sends_crc;
use crate::chain::{SnapshotId, survey};
use crate::copy::chunk::Source;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Phase, Progress};
use crate::record::{Chain, digest};
use crate::restore::point::{self, Found, Which};
use crate::step::Settings;

pub(crate) use choice::{Choice, any_seed};
pub(crate) use compare::first_difference;
pub use compare::{Comparison, compare};
pub(crate) use differences::Tally;
pub use differences::{Difference, MOST_LISTED, Wrong};
pub use report::{Compared, DigestState, RecordState, Verdict, VerifyReport};
pub(crate) use walk::{Allocated, Records, Walk, chunk_of, whole};
pub(crate) use written::{ReadBack, Reservoir, check_sample, read_back};

const TRIED: &str = "verify the point";

/// What a point is to be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Its record, even where a source is given.
    Record,
    /// Its source, with its record as the third that judges.
    Source,
}

/// What is to be verified.
#[derive(Clone, Debug)]
pub struct VerifyJob {
    /// The base blob.
    pub target: Resource,
    /// Which of its points.
    pub which: Which,
    /// The snapshot that the point was copied from.
    pub source: Option<Resource>,
    /// `None`: the source where one is given, otherwise the record.
    pub reference: Option<Reference>,
    /// Compare this part of the chunks only, above 0 and at most 1.
    pub sample: Option<f64>,
    /// Compare this part of what the step of the point did not write.
    pub outside_diff: Option<f64>,
    /// What chance begins with; `None` takes any.
    pub seed: Option<u64>,
}

/// Verifies a point. A difference is not an error: [`VerifyReport::error`] makes one of it.
///
/// # Errors
/// When the point, its source or its record cannot be read, or when there is nothing to compare the point with.
pub async fn verify(
    job: &VerifyJob,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<VerifyReport> {
    let verification = Verification { job, client, settings, progress };
    tokio::select! {
        report = verification.run() => report,
        () = cancel.cancelled() => Err(Error::new(ErrorKind::Interrupted, TRIED, "interrupted; nothing was written")
            .next("run the same command again, or look at less of it: --sample 5%")),
    }
}

struct Verification<'a> {
    job: &'a VerifyJob,
    client: &'a Client,
    settings: &'a Settings,
    progress: &'a Progress,
}

impl Verification<'_> {
    async fn run(&self) -> Result<VerifyReport> {
        let started = Instant::now();
        self.progress.enter(Phase::Checking);
        let pace = self.client.pace(Role::Target, self.settings.caps);
        let meter = Arc::clone(&self.progress.target);
        let base = PageBlob::new(Endpoint::new(self.job.target.clone(), self.client, pace, meter))?;
        let (found, digest) = find(&base, &self.job.which).await?;
        let source = self.source(&found).await?;
        let mut records = self.records(&found, source.is_some()).await?;
        if source.is_none() && matches!(records, Records::None) {
            return Err(nothing_to_compare_with(&found, digest));
        }
        let against = match (&source, &records) {
            (None, _) => Compared::Record,
            (Some(_), Records::Known(_)) => Compared::SourceAndRecord,
            (Some(_), _) => Compared::Source,
        };
        let choice = self.choice();
        let mut report = self.report(&found, against, &choice);
        report.digest = digest;
        let mut tally = Tally::listing(MOST_LISTED);
        if source.is_some() || matches!(records, Records::Known(_)) {
            let image = Source::Blob { sends_crc: sends_crc(&found.blob).await?, blob: found.blob.clone() };
            let length = found.marker.length;
            let (settings, progress) = (self.settings, self.progress);
            let part = whole(length)?;
            progress.begin_verifying(choice.expected(length));
            let walk = Walk { image, source, length, part, choice, settings, progress };
            tally = walk.to_end(&mut records, MOST_LISTED).await?;
        }
        (report.record, report.record_damage) = match records {
            Records::Known(chain) => self.finish(*chain).await?,
            Records::Damaged(error) => (RecordState::Damaged, Some(of_record(&error))),
            Records::None if found.marker.record.is_none() => (RecordState::None, None),
            Records::None => (RecordState::NotRead, None),
        };
        report.conclude(tally);
        self.progress.enter(Phase::Done);
        let read = self.progress.read();
        report.requests = read.source.requests + read.target.requests;
        report.seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }

    fn choice(&self) -> Choice {
        let job = self.job;
        // An audit of what a diff left out is by itself when no sample is asked for beside it.
        let sample = job.sample.unwrap_or(if job.outside_diff.is_some() { 0.0 } else { 1.0 });
        let seed = job.seed.unwrap_or_else(any_seed);
        Choice { sample, outside_diff: job.outside_diff.unwrap_or_default(), seed }
    }

    fn report(&self, found: &Found, against: Compared, choice: &Choice) -> VerifyReport {
        let is_partial = self.job.sample.is_some() || self.job.outside_diff.is_some();
        VerifyReport {
            target: found.base.resource().to_string(),
            point: found.time.clone(),
            source: found.marker.step.to.to_string(),
            against,
            sample: self.job.sample,
            outside_diff: self.job.outside_diff,
            seed: is_partial.then_some(choice.seed),
            length: found.marker.length,
            bytes_compared: 0,
            bytes_read: 0,
            bytes_unknown: 0,
            verdict: Verdict::Equal,
            why: String::new(),
            first_difference: None,
            differences: Vec::new(),
            differing_ranges: 0,
            differing_bytes: 0,
            digest: DigestState::None,
            record: RecordState::NotRead,
            record_damage: None,
            requests: 0,
            seconds: 0.0,
        }
    }

    /// The source, which must be the snapshot that the point is of.
    async fn source(&self, found: &Found) -> Result<Option<Source>> {
        let usage = |why: &str, next: &str| Err(Error::new(ErrorKind::Usage, TRIED, why).next(next));
        let source = match (&self.job.source, self.job.reference) {
            (None, Some(Reference::Source)) => {
                return usage("no source is given to compare it with", "give it: --source <SAS URL>");
            }
            (None, _) if self.job.outside_diff.is_some() => {
                return usage(
                    "what a difference left out can only be found by reading the source",
                    "give it: --source <SAS URL>",
                );
            }
            (Some(_), Some(Reference::Record)) if self.job.outside_diff.is_some() => {
                return usage(
                    "what a difference left out can only be found by reading the source",
                    "leave --against record out",
                );
            }
            (None, _) | (Some(_), Some(Reference::Record)) => return Ok(None),
            (Some(source), _) => source,
        };
        let side = reach_source(source, &found.marker, self.client, self.settings, self.progress).await?;
        Ok(Some(side))
    }

    /// The record, opened.
    async fn records(&self, found: &Found, has_source: bool) -> Result<Records> {
        let wants_outside = self.job.outside_diff.is_some();
        let Some(record) = &found.marker.record else {
            if wants_outside {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    TRIED,
                    "the point has no record, so that nobody knows what its step wrote",
                )
                .on(found.blob.resource())
                .next("compare all of it: leave --outside-diff out"));
            }
            return Ok(Records::None);
        };
        match Chain::open(&found.base, record).await {
            Ok(chain) => Ok(Records::Known(Box::new(chain))),
            Err(error) if wants_outside => Err(error),
            Err(error) if error.kind() == ErrorKind::Corruption => Ok(Records::Damaged(error)),
            Err(error)
                if has_source
                    && matches!(error.kind(), ErrorKind::PermissionMissing | ErrorKind::AccessDenied) =>
            {
                tracing::warn!(why = error.why(), "the record of the point is not read");
                Ok(Records::None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the rest of the records: damage anywhere in them counts.
    async fn finish(&self, chain: Chain) -> Result<(RecordState, Option<String>)> {
        let state = if chain.is_complete() { RecordState::Complete } else { RecordState::Partial };
        match chain.finish().await {
            Ok(()) => Ok((state, None)),
            Err(error) if error.kind() == ErrorKind::Corruption => {
                Ok((RecordState::Damaged, Some(of_record(&error))))
            }
            Err(error) => Err(error),
        }
    }
}

/// The point, and what its digest says of its metadata.
pub(crate) async fn find(base: &PageBlob, which: &Which) -> Result<(Found, DigestState)> {
    let found = match point::find(base, which).await {
        Ok(found) => found,
        Err(error) => return Err(damaged_point(base, which, error).await),
    };
    let properties = found.blob.properties().await?;
    if properties.length != found.marker.length {
        let why = format!(
            "it has {} bytes, and its metadata says {}: one of them is damaged",
            properties.length, found.marker.length
        );
        return Err(Error::new(ErrorKind::Corruption, TRIED, why)
            .on(found.blob.resource())
            .next("verify another point: snapferry points --target <URL>"));
    }
    let digest = digest_state(&properties.metadata);
    Ok((found, digest))
}

pub(crate) fn digest_state(metadata: &Metadata) -> DigestState {
    match digest::is_right(metadata) {
        Some(true) => DigestState::Right,
        None if metadata.get("snapferry_format").is_some_and(|format| format == "1") => DigestState::None,
        Some(false) | None => DigestState::Damaged,
    }
}

/// A point whose metadata cannot be read at all is not one that was never sealed.
async fn damaged_point(base: &PageBlob, which: &Which, error: Error) -> Error {
    let Ok(look) = base::look(base).await else { return error };
    let time = match which {
        Which::Latest => look.marker.and_then(|marker| marker.point),
        Which::Named(name) => Some(name.clone()),
        Which::AsOf(_) => None,
    };
    let Some(Ok(point)) = time.map(|time| base.at_snapshot(&time)) else { return error };
    let Ok(properties) = point.properties().await else { return error };
    let is_ours = properties.metadata.contains_key(digest::FIELD);
    if is_ours && digest::is_right(&properties.metadata) == Some(true) {
        return error;
    }
    match Marker::read(&properties.metadata) {
        Ok(Some(marker)) if !is_ours => {
            // A snapshot of a torn base copies its marker, which has no digest.
            if marker.state == base::marker::State::Sealing {
                damaged(&point, "its digest is gone")
            } else {
                error
            }
        }
        Ok(Some(_)) => damaged(&point, "its digest is wrong"),
        Ok(None) => error,
        Err(why) => damaged(&point, &why),
    }
}

fn damaged(point: &PageBlob, why: &str) -> Error {
    let why = format!("the metadata of the point is damaged, which says nothing about its bytes: {why}");
    Error::new(ErrorKind::Corruption, TRIED, why)
        .on(point.resource())
        .next("verify another point: snapferry points --target <URL>")
}

/// The snapshot that a point or a base blob with this marker was copied from, and nothing else.
pub(crate) async fn reach_source(
    source: &Resource,
    marker: &Marker,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
) -> Result<Source> {
    let id = SnapshotId::of(source)?;
    if !id.is(&marker.step.to, settings.across_hosts) {
        let is_moved = id.time() == marker.step.to.time();
        let next = if is_moved {
            "if it is the same disk, whose export moved to another host, say --across-hosts".to_owned()
        } else {
            format!("give the SAS URL of the snapshot of {}", marker.step.to.time())
        };
        let kind = if is_moved { ErrorKind::DifferentFamilies } else { ErrorKind::BaseElsewhere };
        let why = format!("the source is {id}, and {} was copied", marker.step.to);
        return Err(Error::new(kind, "compare with the source", why).on(source).next(next));
    }
    let pace = client.pace(Role::Source, settings.caps);
    let meter = Arc::clone(&progress.source);
    let blob = PageBlob::new(Endpoint::new(source.clone(), client, pace, meter))?;
    let survey = survey(blob, None, settings.across_hosts).await?;
    if survey.source.length != marker.length {
        let why = format!("it has {} bytes, and the copy has {}", survey.source.length, marker.length);
        return Err(Error::new(ErrorKind::Differs, "compare with the source", why)
            .on(source)
            .next("they are not the same image: copy the snapshot in full to another blob"));
    }
    Ok(survey.source.at)
}

fn nothing_to_compare_with(found: &Found, digest: DigestState) -> Error {
    if digest == DigestState::Damaged {
        let why = "its metadata is not what was written when it was sealed, and names no record any more";
        return Error::new(ErrorKind::Corruption, TRIED, why)
            .on(found.blob.resource())
            .next("compare it with its source: --source <SAS URL>");
    }
    let why = if found.marker.checkpoint.counts.bytes_pulled > 0 {
        "the point has no record, because the service pulled its bytes by itself (server mode), and no source is given to \
         compare it with"
    } else {
        "the point has no record, and no source is given to compare it with"
    };
    Error::new(ErrorKind::NotFound, TRIED, why)
        .on(found.blob.resource())
        .next("give the SAS URL of its source: --source <SAS URL>")
}

/// Which of the records it is, and what is wrong with it.
pub(crate) fn of_record(error: &Error) -> String {
    let why = error.why().split(": the record is damaged").next().unwrap_or_default();
    match error.subject() {
        Some(record) => format!("{record}: {why}"),
        None => why.to_owned(),
    }
}
