//! Repair: a base blob that no longer holds what it must hold is given back the right bytes, or its newest point a record.
//!
//! ```text
//! look ──> own ──> compare ─────────────> begin ──────────> write ──────> read back ──> seal
//! (clean)  (lease) (base with its source,  (fence, marker    (only what     (what was     (a new point, which
//!                   or with its record)     "applying" from   differs, from  written)      stands for the
//!                                           the start)        source/point)                newest one)
//! └────────────────── nothing is written ─┘└────── torn: repair again, roll back, or copy whole ──────┘
//! ```
//!
//! Points are snapshots, and nobody can change them: a rotten point stays rotten. What is repaired is the base blob, of
//! which the next points are made, and it becomes a new point of the same source snapshot at once. A record stands in the
//! metadata of a point, so a new record too needs a new point.
//!
//! **Where the bytes come from.** From the source snapshot, which then is also what the base is compared with; or from
//! another point. What comes from a point is used only where the record proves it, before anything is written.

mod mend;
mod record;

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::azure::{Client, Endpoint, PageBlob, Resource, Role};
use crate::base::marker::{Marker, State};
use crate::base::points::Point;
use crate::base::{self, Base};
use crate::chain::survey::sends_crc;
use crate::copy::chunk::Source;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Phase, Progress};
use crate::range::PageRange;
use crate::record::Chain;
use crate::restore::point::{self, Which};
use crate::step::Settings;
use crate::verify::{
    Choice, Difference, DigestState, MOST_LISTED, Records, Tally, Walk, Wrong, find, reach_source, whole,
};

const TRIED: &str = "repair the base blob";
/// More ranges than these are not mended one by one.
const MOST_MENDED: usize = 1 << 20;

/// What is to be repaired, and where the right bytes are.
#[derive(Clone, Debug)]
pub struct RepairJob {
    /// The base blob.
    pub target: Resource,
    /// The snapshot that it is clean at.
    pub source: Option<Resource>,
    /// A point that has the right bytes where the base blob has not.
    pub from_point: Option<Which>,
    /// Write the record anew.
    pub record: bool,
    /// Make the new record of what the base blob holds, without a source that proves it.
    pub trust_point: bool,
    /// Only say what differs.
    pub dry_run: bool,
}

/// What was found, and done.
#[derive(Clone, Debug, Serialize)]
pub struct RepairReport {
    /// `whole` (nothing to do), `would-repair`, `repaired`, or `seal-finished` (an interrupted repair or step was written to
    /// its end, and is sealed now: run it again to look).
    pub outcome: &'static str,
    /// The base blob, without its SAS.
    pub target: String,
    /// The point that it was clean at.
    pub repairs: String,
    /// The point that it is clean at now.
    pub point: Option<Point>,
    /// Bytes that were compared.
    pub bytes_compared: u64,
    /// Bytes that were, or would be, written.
    pub bytes_repaired: u64,
    /// How many ranges differ.
    pub differing_ranges: u64,
    /// The first thousand of them.
    pub differences: Vec<Difference>,
    /// `kept`, `written`, `none` or `damaged`: the record of the point that the base is clean at now.
    pub record: &'static str,
    /// Requests to both sides, retries included.
    pub requests: u64,
    /// Wall-clock time.
    pub seconds: f64,
}

/// Repairs a base blob. Calling it again after it ended, however it ended, is safe.
///
/// # Errors
/// [`ErrorKind::BaseNotClean`] in the middle of a step; [`ErrorKind::Differs`] when the right bytes are not to be had.
/// Otherwise see [`ErrorKind`].
pub async fn repair(
    job: &RepairJob,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<RepairReport> {
    let started = Instant::now();
    progress.enter(Phase::Checking);
    check(job)?;
    let pace = client.pace(Role::Target, settings.caps);
    let meter = Arc::clone(&progress.target);
    let blob = PageBlob::new(Endpoint::new(job.target.clone(), client, pace, meter))?;
    let looked = base::look(&blob).await?.into_marker(&blob, TRIED)?;
    refuse_torn(&blob, &looked)?;
    let mut base = tokio::select! {
        base = Base::own(&blob, settings.lease) => base?,
        () = cancel.cancelled() => return Err(interrupted()),
    };
    let repair = Repair { job, client, settings, progress };
    let done = tokio::select! {
        done = repair.run(&mut base) => Some(done),
        () = cancel.cancelled() => None,
    };
    base.farewell().await;
    let mut report = done.unwrap_or_else(|| Err(interrupted()))?;
    progress.enter(Phase::Done);
    let read = progress.read();
    report.requests = read.source.requests + read.target.requests;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

fn check(job: &RepairJob) -> Result<()> {
    let usage = |why: &str, next: &str| Err(Error::new(ErrorKind::Usage, TRIED, why).next(next));
    if job.source.is_some() && job.from_point.is_some() {
        return usage("both a source and a point are given", "give one of them");
    }
    if job.record && job.source.is_none() && !job.trust_point {
        return usage(
            "a record that is made of a point proves nothing unless the point is proven first",
            "give its source (--source <SAS URL>), or say --trust-point",
        );
    }
    if job.record && job.from_point.is_some() {
        return usage(
            "bytes of another point are proven by the record, which then cannot be written anew",
            "leave --record or --from-point out",
        );
    }
    Ok(())
}

struct Repair<'a> {
    job: &'a RepairJob,
    client: &'a Client,
    settings: &'a Settings,
    progress: &'a Progress,
}

/// The newest point: what it says of itself, and its time.
struct Newest {
    marker: Marker,
    time: String,
}

impl Repair<'_> {
    /// Under the lease: what the marker says now counts.
    async fn run(&self, base: &mut Base) -> Result<RepairReport> {
        let now = base.marker().await;
        refuse_torn(base.blob(), &now)?;
        if now.state == State::Sealing {
            self.progress.enter(Phase::Sealing);
            let point = base.finish_seal().await?;
            let repairs = point.repairs.clone().unwrap_or_default();
            return Ok(RepairReport { point: Some(point), ..empty("seal-finished", base.blob(), repairs) });
        }
        let newest = newest(base, &now).await?;
        self.check_trust(base.blob(), &now).await?;
        let image = Source::Blob { blob: base.blob().clone(), sends_crc: sends_crc(base.blob()).await? };
        let source = match &self.job.source {
            None => None,
            Some(source) => {
                let (client, settings) = (self.client, self.settings);
                Some(reach_source(source, &newest.marker, client, settings, self.progress).await?)
            }
        };
        let mut records = self.records(base.blob(), &newest, source.is_some()).await?;
        let tally = self.compare(&newest, &image, source.as_ref(), &mut records).await?;
        let state = record_state(&records, &tally, source.is_some());
        records = finish(records).await?;
        let state = if matches!(records, Records::Damaged(_)) { "damaged" } else { state };
        let wrong: Vec<PageRange> = wrong_ranges(&tally);
        let bytes = wrong.iter().map(|range| range.len()).sum();
        let was_torn = now.state == State::Applying;
        let report = RepairReport {
            bytes_compared: tally.compared,
            bytes_repaired: bytes,
            differing_ranges: tally.ranges,
            differences: tally.listed.iter().take(MOST_LISTED).copied().collect(),
            record: state,
            ..empty("whole", base.blob(), newest.time.clone())
        };
        let is_whole = wrong.is_empty() && !self.job.record && !was_torn;
        if self.job.dry_run {
            let outcome = if is_whole && state != "damaged" { "whole" } else { "would-repair" };
            return Ok(RepairReport { outcome, ..report });
        }
        refuse_hopeless(base.blob(), &tally)?;
        if state == "damaged" && !self.job.record {
            return Err(needs_record(base.blob(), &report));
        }
        if is_whole {
            return Ok(report);
        }
        let point = self.mend(base, &newest, &image, source, &wrong).await?;
        let record = if self.job.record { "written" } else { state };
        Ok(RepairReport { outcome: "repaired", point: Some(point), record, ..report })
    }

    /// A point that is trusted is what the base must still equal.
    async fn check_trust(&self, blob: &PageBlob, now: &Marker) -> Result<()> {
        if self.job.source.is_some() || !self.job.trust_point {
            return Ok(());
        }
        if now.state == State::Clean {
            return base::check::unmodified(blob, now, self.settings.listing).await;
        }
        let why = "a repair of it was interrupted: it is between two states, and nobody can trust it";
        Err(Error::new(ErrorKind::BaseNotClean, TRIED, why).on(blob.resource()).next(
            "give the source (--source <SAS URL>), or roll back first: snapferry rollback --target <URL>",
        ))
    }

    async fn records(&self, blob: &PageBlob, newest: &Newest, has_source: bool) -> Result<Records> {
        let Some(record) = &newest.marker.record else {
            if has_source || self.job.trust_point {
                return Ok(Records::None);
            }
            return Err(Error::new(
                ErrorKind::NotFound,
                TRIED,
                "its newest point has no record, and no source is given to compare it with",
            )
            .on(blob.resource())
            .next("give the SAS URL of its source: --source <SAS URL>"));
        };
        match Chain::open(blob, record).await {
            Ok(chain) => Ok(Records::Known(Box::new(chain))),
            Err(error) if error.kind() == ErrorKind::Corruption && (has_source || self.job.trust_point) => {
                Ok(Records::Damaged(error))
            }
            Err(error) => Err(error),
        }
    }

    async fn compare(
        &self,
        newest: &Newest,
        image: &Source,
        source: Option<&Source>,
        records: &mut Records,
    ) -> Result<Tally> {
        if source.is_none() && (self.job.trust_point || !matches!(records, Records::Known(_))) {
            return Ok(Tally::listing(0));
        }
        let length = newest.marker.length;
        self.progress.begin_verifying(length);
        let walk = Walk {
            part: whole(length)?,
            image: image.clone(),
            source: source.cloned(),
            length,
            choice: Choice::all(),
            settings: self.settings,
            progress: self.progress,
        };
        let tally = walk.to_end(records, MOST_MENDED).await?;
        match records {
            // Without a source it is all that there is to go by.
            Records::Damaged(error) if source.is_none() => Err(error.clone()),
            _ => Ok(tally),
        }
    }

    /// From the marker "applying" to the seal.
    async fn mend(
        &self,
        base: &mut Base,
        newest: &Newest,
        image: &Source,
        source: Option<Source>,
        wrong: &[PageRange],
    ) -> Result<Point> {
        let chunks = mend::chunks(wrong, newest.marker.length, self.settings.plan.chunk);
        let (right, proven) = match (source, &self.job.from_point) {
            (Some(source), _) => (Some(source), None),
            (None, Some(which)) => {
                let found = point::find(base.blob(), which).await?;
                let side = Source::Blob { sends_crc: sends_crc(&found.blob).await?, blob: found.blob };
                let proven = mend::prove(base.blob(), newest, &side, found.marker.length, &chunks).await?;
                (Some(side), Some(proven))
            }
            (None, None) if chunks.is_empty() => (None, None),
            (None, None) => return Err(nowhere_from(base.blob(), wrong)),
        };
        let run = uuid::Uuid::new_v4().to_string();
        // What is only recorded need not be torn while it is read.
        if self.job.record && chunks.is_empty() {
            record::write(base, newest, image, &run, self.settings, self.progress).await?;
        }
        base.begin_repair(&newest.marker, &newest.time, &run).await?;
        tracing::info!(point = %newest.time, chunks = chunks.len(), "repairing");
        if let Some(right) = &right {
            self.progress.enter(Phase::Copying);
            let written = mend::write(base, right, &chunks, proven.as_deref(), self.settings).await?;
            mend::read_back(base.blob(), image, written, self.progress).await?;
        }
        if self.job.record && !chunks.is_empty() {
            record::write(base, newest, image, &run, self.settings, self.progress).await?;
        }
        self.progress.enter(Phase::Sealing);
        let record = if self.job.record {
            base.end_whole_record().await?.into()
        } else {
            newest.marker.record.clone()
        };
        base.seal_repair(&newest.marker, record).await
    }
}

/// Where the base was clean, also in the middle of a repair.
async fn newest(base: &Base, now: &Marker) -> Result<Newest> {
    if let (State::Clean, Some(time)) = (now.state, &now.point) {
        return Ok(Newest { marker: now.clone(), time: time.clone() });
    }
    let time = now.repairs.clone().unwrap_or_default();
    let unusable = |kind, why: &str| {
        Error::new(kind, TRIED, format!("the point that it stands for cannot be used: {why}"))
            .on(base.blob().resource())
            .next("begin anew in the same blob: snapferry copy --source <SAS URL> --target <URL> --rebase")
    };
    match find(base.blob(), &Which::Named(time.clone())).await {
        Ok((_, DigestState::Damaged)) => Err(unusable(ErrorKind::Corruption, "its metadata is damaged")),
        Ok((found, _)) => Ok(Newest { marker: found.marker, time }),
        Err(error) => Err(unusable(error.kind(), error.why())),
    }
}

/// A base in the middle of a step has other ways out. One in the middle of a repair has this.
fn refuse_torn(blob: &PageBlob, marker: &Marker) -> Result<()> {
    if marker.state != State::Applying || marker.repairs.is_some() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::BaseNotClean,
        TRIED,
        format!("it is in the middle of {} (by {} at {})", marker.step, marker.owner, marker.written_at),
    )
    .on(blob.resource())
    .next("finish that step with its own command, or give it up first: snapferry rollback --target <URL>"))
}

/// What the record of the newest point is worth for the next one.
fn record_state(records: &Records, tally: &Tally, has_source: bool) -> &'static str {
    // What neither the point nor the source alone explains: all three differ, or a page list was wrong.
    let unclear = tally.bytes - tally.bytes_point - tally.bytes_record - tally.bytes_source;
    match records {
        Records::None => "none",
        Records::Damaged(_) => "damaged",
        Records::Known(_) if has_source && tally.bytes_record + unclear > 0 => "damaged",
        Records::Known(_) => "kept",
    }
}

async fn finish(records: Records) -> Result<Records> {
    let Records::Known(chain) = records else { return Ok(records) };
    match chain.finish().await {
        Ok(()) => Ok(Records::None),
        Err(error) if error.kind() == ErrorKind::Corruption => Ok(Records::Damaged(error)),
        Err(error) => Err(error),
    }
}

/// Where the base itself is wrong.
fn wrong_ranges(tally: &Tally) -> Vec<PageRange> {
    let of_base = tally
        .listed
        .iter()
        .filter(|found| matches!(found.wrong, Wrong::Point | Wrong::List | Wrong::Unclear));
    of_base.filter_map(|found| PageRange::new(found.start, found.end).ok()).collect()
}

fn refuse_hopeless(blob: &PageBlob, tally: &Tally) -> Result<()> {
    let refuse = |why: String, next: &str| {
        Err(Error::new(ErrorKind::Differs, TRIED, why).on(blob.resource()).next(next))
    };
    if tally.bytes_source > 0 {
        return refuse(
            format!(
                "the source differs from the base blob and from its record, which agree, in {} bytes: it is not what was copied",
                tally.bytes_source
            ),
            "give the SAS of the very snapshot",
        );
    }
    if tally.ranges > MOST_MENDED as u64 {
        return refuse(
            format!("{} ranges differ: too many to be mended one by one", tally.ranges),
            "begin anew in the same blob: snapferry copy --source <SAS URL> --target <URL> --rebase",
        );
    }
    Ok(())
}

fn needs_record(blob: &PageBlob, report: &RepairReport) -> Error {
    let of_base =
        if report.bytes_repaired == 0 { "the base blob is right" } else { "the base blob is wrong too" };
    Error::new(ErrorKind::Differs, TRIED, format!("its record is damaged or wrong, and {of_base}"))
        .on(blob.resource())
        .next("mend both: snapferry repair --record --target <URL> --source <SAS URL>")
}

fn nowhere_from(blob: &PageBlob, wrong: &[PageRange]) -> Error {
    let first = wrong.first().map(|range| range.start()).unwrap_or_default();
    let bytes: u64 = wrong.iter().map(|range| range.len()).sum();
    let why = format!(
        "it differs from its record in {bytes} bytes, the first at byte {first}, and nothing says where the right ones are"
    );
    Error::new(ErrorKind::Differs, TRIED, why)
        .on(blob.resource())
        .next("give its source (--source <SAS URL>), or a point that has them (--from-point <TIME>)")
}

fn empty(outcome: &'static str, blob: &PageBlob, repairs: String) -> RepairReport {
    RepairReport {
        outcome,
        target: blob.resource().to_string(),
        repairs,
        point: None,
        bytes_compared: 0,
        bytes_repaired: 0,
        differing_ranges: 0,
        differences: Vec::new(),
        record: "kept",
        requests: 0,
        seconds: 0.0,
    }
}

fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, TRIED, "interrupted")
        .next("run the same command again, or give it up: snapferry rollback --target <URL>")
}
