//! Scrub: all points of a container are held against their records, over days, a share of them every day.
//!
//! ```text
//! open state ──> list ─────────────> piece ──> save ──> piece ──> save ... ──> save
//! (ETag)         (all points, by      (from the position on, until the share that is due is done)
//!                 blob and time)
//! ```
//!
//! **How much.** A run does what is due: the time since the last one, times the share per day, of the bytes of all points
//! (of their whole length: what holds nothing costs nothing, and counts), and at least one chunk. After a long pause it does
//! one pass at most. Run it from a scheduler as often as you like; with 16% a day every point is seen once a week.
//!
//! **In which order.** By the name of the base blob, then by the time of the point, each point whole. Points share the pages
//! that did not change, so these are read once for each point. That is kept simple on purpose: which of two points has a
//! page of its own is not told by the service, and what is stored once may still be read wrong.
//!
//! **What it remembers** is in the container, in `snapferry-scrub.json`: where it stopped, what is due, when the last pass
//! was complete, and which points are not what they must be. A finding goes when the point is seen whole, or is gone.
//!
//! Points without a record, or of whose record a part is unknown, cannot be held against anything there: they are counted.

mod report;
mod state;

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::azure::{Client, Endpoint, Metadata, PageBlob, Role};
use crate::base::marker::{Marker, State};
use crate::base::points::cannot_list;
use crate::chain::survey::sends_crc;
use crate::copy::chunk::Source;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Phase, Progress};
use crate::range::PageRange;
use crate::record::Chain;
use crate::step::Settings;
use crate::verify::{Choice, DigestState, Records, Walk, chunk_of, digest_state, of_record};

pub use report::{ScrubJob, ScrubReport};
pub use state::{Fault, Finding, Position, ScrubState};
use state::{Keeper, TRIED};

/// Where a container's state is kept.
pub const STATE_NAME: &str = "snapferry-scrub.json";
/// Bytes that are compared between two writes of the state.
const PIECE: u64 = 1 << 30;
/// Seconds in a day.
const DAY: f64 = 86_400.0;

/// Does what is due.
///
/// # Errors
/// [`ErrorKind::LeaseHeld`] while another scrub is at work; otherwise see [`ErrorKind`]. What is wrong with points is no
/// error: [`ScrubReport::error`] makes one of it.
pub async fn scrub(
    job: &ScrubJob,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<ScrubReport> {
    let started = Instant::now();
    progress.enter(Phase::Checking);
    let pace = client.pace(Role::Target, settings.caps);
    let meter = std::sync::Arc::clone(&progress.target);
    let anchor = PageBlob::new(Endpoint::new(job.container.blob(STATE_NAME)?, client, pace, meter))?;
    let Some(kept) = anchor.beside(STATE_NAME)? else {
        return Err(Error::new(ErrorKind::PermissionMissing, TRIED, "the SAS is for one blob alone")
            .on(anchor.resource())
            .next("use a SAS of the container with r, w, c and l, or leave it out and sign in: az login"));
    };
    let (keeper, state) = Keeper::open(kept, job.now).await?;
    let points = points(&anchor).await?;
    let mut run = Run { job, settings, progress, anchor, keeper, state, report: ScrubReport::default() };
    let ended = run.go_through(&points, cancel).await;
    run.state.at_work = None;
    let saved = run.keeper.save(&run.state).await;
    ended?;
    saved?;
    progress.enter(Phase::Done);
    let mut report = run.report;
    report.position = run.state.position;
    report.last_full_pass = run.state.last_full_pass;
    report.findings = run.state.findings;
    report.requests = progress.read().target.requests;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// A point of any base blob in the container.
struct Listed {
    blob: String,
    time: String,
    length: u64,
    metadata: Metadata,
}

impl Listed {
    /// `None` when its metadata cannot be read.
    fn marker(&self) -> Option<Marker> {
        Marker::read(&self.metadata).ok().flatten()
    }

    fn is_before(&self, position: &Position) -> bool {
        (&self.blob, &self.time) < (&position.blob, &position.point)
    }

    fn is_at(&self, position: &Position) -> bool {
        self.blob == position.blob && self.time == position.point
    }

    fn finding(&self, fault: Fault, seen: Timestamp, why: Option<String>) -> Finding {
        Finding {
            blob: self.blob.clone(),
            point: self.time.clone(),
            fault,
            first_difference: None,
            differing_bytes: 0,
            why,
            seen,
        }
    }
}

/// All points, by base blob and time. A snapshot of a torn base copies its marker: it is no point.
async fn points(anchor: &PageBlob) -> Result<Vec<Listed>> {
    let listed = anchor.snapshots_beside(None).await.map_err(|error| cannot_list(anchor, error.into()))?;
    let mut points: Vec<Listed> = listed
        .into_iter()
        .map(|(blob, snapshot)| Listed {
            blob,
            time: snapshot.time,
            length: snapshot.length,
            metadata: snapshot.metadata,
        })
        .filter(|point| match Marker::read(&point.metadata) {
            Ok(Some(marker)) => marker.state == State::Sealing,
            Ok(None) => false,
            Err(_) => true,
        })
        .collect();
    points.sort_by(|one, other| (&one.blob, &one.time).cmp(&(&other.blob, &other.time)));
    Ok(points)
}

struct Run<'a> {
    job: &'a ScrubJob,
    settings: &'a Settings,
    progress: &'a Progress,
    anchor: PageBlob,
    keeper: Keeper,
    state: ScrubState,
    report: ScrubReport,
}

impl Run<'_> {
    async fn go_through(&mut self, points: &[Listed], cancel: &CancellationToken) -> Result<()> {
        let total = points.iter().map(|point| point.length).sum();
        self.report.container = container_of(&self.anchor);
        self.report.points = points.len() as u64;
        let has_no_record = |point: &&Listed| point.marker().is_some_and(|marker| marker.record.is_none());
        self.report.points_without_record = points.iter().filter(has_no_record).count() as u64;
        self.report.bytes_total = total;
        self.forget_the_gone(points);
        let due = self.due(total);
        self.report.bytes_due = due;
        self.progress.begin_verifying(due);
        self.save().await?;
        let mut left = due;
        let mut at = self.place(points);
        // One pass at most, which may begin in the middle of a point.
        let mut visits = 0..=points.len();
        while left > 0 && visits.next().is_some() {
            if at >= points.len() {
                self.end_pass();
                at = 0;
            }
            let Some(point) = points.get(at) else { break };
            match self.point(point, &mut left, total, cancel).await {
                Ok(true) => at += 1,
                Ok(false) => break,
                // Pruned meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => at += 1,
                Err(error) => return Err(error),
            }
        }
        // A pass that ends with what was due is complete too.
        if at >= points.len() {
            self.end_pass();
        }
        self.state.done_until = Some(self.job.now);
        Ok(())
    }

    fn end_pass(&mut self) {
        self.state.last_full_pass = Some(self.job.now);
        self.state.position = None;
    }

    /// A point that was pruned takes what was known of it along.
    fn forget_the_gone(&mut self, points: &[Listed]) {
        self.state.findings.retain(|finding| {
            points.iter().any(|point| point.blob == finding.blob && point.time == finding.point)
        });
    }

    /// Bytes that are due.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn due(&self, total: u64) -> u64 {
        let days = match self.state.done_until {
            Some(until) => self.job.now.duration_since(until).as_secs_f64().max(0.0) / DAY,
            None => 1.0,
        };
        let share = (days * self.job.per_day).min(1.0);
        ((total as f64 * share) as u64).clamp(chunk_of(self.settings).min(total), total)
    }

    /// Where to go on.
    fn place(&self, points: &[Listed]) -> usize {
        let Some(position) = &self.state.position else { return 0 };
        let is_done = |point: &Listed| {
            point.is_before(position) || point.is_at(position) && position.offset >= point.length
        };
        points.iter().position(|point| !is_done(point)).unwrap_or(points.len())
    }

    /// Compares a point from the position on, as far as it is due. Gives whether its end was reached.
    async fn point(
        &mut self,
        point: &Listed,
        left: &mut u64,
        total: u64,
        cancel: &CancellationToken,
    ) -> Result<bool> {
        let resumed = self.state.position.as_ref().filter(|position| point.is_at(position));
        let mut offset = resumed.map_or(0, |position| position.offset).min(point.length);
        if offset == 0 {
            self.state.open = None;
        }
        let Some((blob, mut records)) = self.open(point).await? else {
            *left = left.saturating_sub(point.length - offset);
            self.close(point);
            return Ok(true);
        };
        let side = Source::Blob { sends_crc: sends_crc(&blob).await?, blob };
        while offset < point.length && matches!(records, Records::Known(_)) {
            if *left == 0 {
                return Ok(false);
            }
            let chunk = chunk_of(self.settings);
            let end = offset.saturating_add(PIECE.min(*left).next_multiple_of(chunk)).min(point.length);
            let part = PageRange::new(offset, end)
                .map_err(|error| Error::new(ErrorKind::Internal, TRIED, error.to_string()))?;
            tokio::select! {
                compared = self.piece(point, &side, part, &mut records) => compared?,
                () = cancel.cancelled() => return Err(interrupted()),
            }
            *left = left.saturating_sub(part.len());
            offset = end;
            self.paid(part.len(), total);
            self.state.position =
                Some(Position { blob: point.blob.clone(), point: point.time.clone(), offset });
            if offset < point.length {
                self.save().await?;
            }
        }
        let damage = match records {
            Records::Known(chain) => match chain.finish().await {
                Err(error) if error.kind() == ErrorKind::Corruption => Some(error),
                ended => ended.map(|()| None)?,
            },
            Records::Damaged(error) => Some(error),
            Records::None => None,
        };
        if let Some(error) = damage {
            *left = left.saturating_sub(point.length - offset);
            self.found(point.finding(Fault::RecordDamaged, self.job.now, Some(of_record(&error))));
        }
        self.close(point);
        self.save().await?;
        Ok(true)
    }

    /// The point and its records; `None` where there is nothing to hold it against.
    async fn open(&mut self, point: &Listed) -> Result<Option<(PageBlob, Records)>> {
        let damaged = |why: &str| point.finding(Fault::MetadataDamaged, self.job.now, Some(why.to_owned()));
        let marker = match Marker::read(&point.metadata) {
            Ok(Some(marker)) => marker,
            Ok(None) => return Ok(None),
            Err(why) => {
                let finding = damaged(&why);
                self.found(finding);
                return Ok(None);
            }
        };
        if digest_state(&point.metadata) == DigestState::Damaged || marker.length != point.length {
            let finding = damaged("its digest is wrong");
            self.found(finding);
        }
        let Some(base) = self.anchor.neighbour(&point.blob)? else { return Ok(None) };
        let Some(record) = marker.record.filter(|_| marker.length == point.length) else { return Ok(None) };
        let blob = base.at_snapshot(&point.time)?;
        match Chain::open(&base, &record).await {
            Ok(chain) => Ok(Some((blob, Records::Known(Box::new(chain))))),
            Err(error) if error.kind() == ErrorKind::Corruption => Ok(Some((blob, Records::Damaged(error)))),
            Err(error) => Err(error),
        }
    }

    async fn piece(
        &mut self,
        point: &Listed,
        side: &Source,
        part: PageRange,
        records: &mut Records,
    ) -> Result<()> {
        let walk = Walk {
            image: side.clone(),
            source: None,
            length: point.length,
            part,
            choice: Choice::all(),
            settings: self.settings,
            progress: self.progress,
        };
        let tally = walk.to_end(records, 1).await?;
        self.report.bytes_compared += tally.compared;
        self.report.bytes_read += tally.read;
        self.report.bytes_unknown += tally.unknown;
        if tally.bytes > 0 {
            let finding = Finding {
                first_difference: tally.first(),
                differing_bytes: tally.bytes,
                ..point.finding(Fault::Differs, self.job.now, None)
            };
            tracing::warn!(
                blob = point.blob,
                point = point.time,
                first = tally.first(),
                "the point differs from its record"
            );
            self.found(finding);
        }
        Ok(())
    }

    /// Adds to what is wrong with the point. What differs weighs more than what is damaged.
    fn found(&mut self, finding: Finding) {
        self.state.open = Some(match self.state.open.take() {
            Some(open) if open.fault == Fault::Differs => Finding {
                differing_bytes: open.differing_bytes + finding.differing_bytes,
                why: open.why.clone().or(finding.why),
                ..open
            },
            Some(open) if finding.fault != Fault::Differs => {
                Finding { why: open.why.clone().or(finding.why), ..open }
            }
            Some(open) => Finding { why: open.why, ..finding },
            None => finding,
        });
    }

    /// The point was seen whole: what was known of it before is replaced.
    fn close(&mut self, point: &Listed) {
        self.state.findings.retain(|known| known.blob != point.blob || known.point != point.time);
        self.state.findings.extend(self.state.open.take());
        self.state.position =
            Some(Position { blob: point.blob.clone(), point: point.time.clone(), offset: point.length });
    }

    /// What is done is not due again, also when the run is ended before its end.
    fn paid(&mut self, bytes: u64, total: u64) {
        let seconds = bytes as f64 / total.max(1) as f64 / self.job.per_day * DAY;
        let whole_pass =
            SignedDuration::try_from_secs_f64(DAY / self.job.per_day).unwrap_or(SignedDuration::MAX);
        let earliest = self.job.now.checked_sub(whole_pass).unwrap_or(self.job.now);
        let a_day = SignedDuration::from_hours(24);
        let begun = self.job.now.checked_sub(a_day).unwrap_or(self.job.now);
        let from = self.state.done_until.map_or(begun, |until| until.max(earliest));
        let until =
            SignedDuration::try_from_secs_f64(seconds).ok().and_then(|paid| from.checked_add(paid).ok());
        self.state.done_until = Some(until.unwrap_or(self.job.now).min(self.job.now));
    }

    async fn save(&mut self) -> Result<()> {
        self.state.at_work = Some(self.job.now.max(Timestamp::now()));
        self.keeper.save(&self.state).await
    }
}

fn container_of(anchor: &PageBlob) -> String {
    anchor.resource().container().map(|(url, _)| url.to_string()).unwrap_or_default()
}

fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, TRIED, "interrupted; where it stopped is written down")
        .next("run the same command again: it goes on there")
}
