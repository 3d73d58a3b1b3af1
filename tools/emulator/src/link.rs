//! The line between client and service, and the limits of a blob: latency, bandwidth, and refusals above them.
//!
//! Bandwidth is kept by a schedule: each frame takes its slot after the one before it, and waits until the slot is over.
//! So all connections share the line in the order of their frames, and nothing is held in memory but the frames
//! themselves.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::call::{Call, Role};
use crate::error::{ErrorCode, Failure, Outcome};
use crate::fault::BusyText;
use crate::quantity::{parse_bytes, parse_time};
use crate::range::ByteRange;
use crate::request::Request;

/// Timers are not finer than this; a frame whose slot is over sooner does not wait.
const TIMER_STEP: Duration = Duration::from_millis(2);

/// Blobs whose limits are remembered; beyond it those are forgotten that were idle for a second.
const BLOBS_REMEMBERED: usize = 1024;

/// The line between client and service, and the limits of a blob. The default is a perfect line without limits.
///
/// In text, as for a command line: `latency=5ms,bytes-per-second=100MiB,blob-bytes-per-second=60MiB,
/// blob-requests-per-second=500,blob-burst=100ms`, any of them left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// How much later than it could every reply begins; the first on a connection by one such time more, over TLS by two:
    /// the round trips in which a connection is made.
    pub latency: Duration,
    /// Bytes of bodies in each direction, all connections together: beyond it they are slowed down. Zero counts as one.
    pub bytes_per_second: Option<u64>,
    /// Bytes of one blob: reads beyond it are slowed down, writes are refused with 503 "Ingress is over the account
    /// limit." A blob that was idle takes as much as belongs to `blob_burst` at once, and the rest of the last write.
    pub blob_bytes_per_second: Option<u64>,
    /// Requests to one blob: those beyond it are refused with 503 "Operations per second is over the account limit." A
    /// blob that was idle takes as many as belong to `blob_burst` at once. What is refused with 503 does not count.
    pub blob_requests_per_second: Option<u32>,
    /// How much a blob that was idle takes at once, as the time to which it belongs; a second if absent.
    pub blob_burst: Option<Duration>,
}

/// The text describes no link.
#[derive(Debug, thiserror::Error)]
#[error(
    "'{0}' is no part of a link: latency=TIME, bytes-per-second=BYTES, blob-bytes-per-second=BYTES, blob-requests-per-second=NUMBER or blob-burst=TIME"
)]
pub struct BadLink(String);

impl FromStr for Link {
    type Err = BadLink;

    fn from_str(text: &str) -> Result<Link, BadLink> {
        let mut link = Link::default();
        for part in text.split(',') {
            link.set(part).ok_or_else(|| BadLink(part.to_owned()))?;
        }
        Ok(link)
    }
}

impl Link {
    fn set(&mut self, part: &str) -> Option<()> {
        let (name, value) = part.split_once('=')?;
        match name {
            "latency" => self.latency = parse_time(value)?,
            "bytes-per-second" => self.bytes_per_second = Some(parse_bytes(value)?),
            "blob-bytes-per-second" => self.blob_bytes_per_second = Some(parse_bytes(value)?),
            "blob-requests-per-second" => self.blob_requests_per_second = Some(value.parse().ok()?),
            "blob-burst" => self.blob_burst = Some(parse_time(value)?),
            _ => return None,
        }
        Some(())
    }
}

/// A link in use. A new link comes with a new one of these; what is being sent keeps the one that it began with.
#[derive(Debug)]
pub(crate) struct Shaper {
    link: Link,
    inwards: Option<Schedule>,
    outwards: Option<Schedule>,
    blobs: Mutex<HashMap<String, Arc<BlobLimits>>>,
}

#[derive(Debug)]
struct BlobLimits {
    requests: Option<Allowance>,
    writes: Option<Allowance>,
    reads: Option<Schedule>,
}

impl Shaper {
    pub(crate) fn new(link: Link) -> Shaper {
        let schedule = || link.bytes_per_second.map(Schedule::new);
        Shaper { inwards: schedule(), outwards: schedule(), blobs: Mutex::default(), link }
    }

    pub(crate) fn latency(&self) -> Duration {
        self.link.latency
    }

    /// Refuses a request that is beyond the limits of its blob.
    pub(crate) fn admit(&self, request: &Request) -> Outcome<()> {
        let Some(limits) = self.limits(request) else { return Ok(()) };
        let now = Instant::now();
        let length = written_length(request)?;
        if limits.requests.as_ref().is_some_and(|allowance| !allowance.take(1, now)) {
            return Err(busy(BusyText::Operations));
        }
        match &limits.writes {
            Some(allowance) if length > 0 && !allowance.take(length, now) => {
                if let Some(requests) = &limits.requests {
                    requests.give_back(1);
                }
                Err(busy(BusyText::Ingress))
            }
            _ => Ok(()),
        }
    }

    /// Gives back what an admitted request has taken, because it is refused as busy all the same.
    pub(crate) fn give_back(&self, request: &Request) {
        let Some(limits) = self.limits(request) else { return };
        if let Some(requests) = &limits.requests {
            requests.give_back(1);
        }
        if let Some(writes) = &limits.writes {
            writes.give_back(written_length(request).unwrap_or(0));
        }
    }

    /// Waits until the line has brought in this much of a body.
    pub(crate) async fn taken_in(&self, bytes: usize) {
        let over = self.inwards.as_ref().and_then(|schedule| schedule.slot(bytes, Instant::now()));
        if let Some(over) = over {
            sleep_until(over).await;
        }
    }

    /// What slows down the reply to a request.
    pub(crate) fn reply_pace(self: &Arc<Self>, request: &Request) -> Option<ReplyPace> {
        let limits = if request.call == Call::GetBlob { self.limits(request) } else { None };
        let blob = limits.filter(|limits| limits.reads.is_some());
        let is_slow = self.outwards.is_some() || blob.is_some();
        is_slow.then(|| ReplyPace { line: Arc::clone(self), blob })
    }

    fn limits(&self, request: &Request) -> Option<Arc<BlobLimits>> {
        let link = &self.link;
        let none = link.blob_bytes_per_second.is_none() && link.blob_requests_per_second.is_none();
        if none || request.target.blob.is_empty() || request.role == Role::Management {
            return None;
        }
        let target = &request.target;
        let name = format!("{}/{}/{}", target.account, target.container, target.blob);
        let now = Instant::now();
        let mut blobs = self.blobs.lock();
        if blobs.len() >= BLOBS_REMEMBERED && !blobs.contains_key(&name) {
            blobs.retain(|_, limits| limits.in_use(now));
        }
        let limits = blobs.entry(name).or_insert_with(|| Arc::new(BlobLimits::new(link, now)));
        Some(Arc::clone(limits))
    }
}

/// The bytes that a request is about to write.
fn written_length(request: &Request) -> Outcome<u64> {
    match request.call {
        Call::PutPage | Call::PutBlock | Call::PutBlob => Ok(request.content_length()?.unwrap_or(0)),
        Call::PutPageFromUrl => {
            let range = request.range()?.and_then(ByteRange::closed);
            Ok(range.map_or(0, |range| range.end - range.start))
        }
        _ => Ok(0),
    }
}

impl BlobLimits {
    fn new(link: &Link, now: Instant) -> BlobLimits {
        let burst = link.blob_burst.unwrap_or(Duration::from_secs(1));
        BlobLimits {
            requests: link.blob_requests_per_second.map(|rate| Allowance::new(rate.into(), burst, now)),
            writes: link.blob_bytes_per_second.map(|rate| Allowance::new(rate, burst, now)),
            reads: link.blob_bytes_per_second.map(Schedule::new),
        }
    }

    fn in_use(&self, now: Instant) -> bool {
        let taken = [&self.requests, &self.writes].into_iter().flatten();
        taken.into_iter().any(|allowance| !allowance.is_full(now))
            || self.reads.as_ref().is_some_and(|schedule| *schedule.free_at.lock() > Some(now))
    }
}

/// What slows down one reply.
#[derive(Clone, Debug)]
pub(crate) struct ReplyPace {
    line: Arc<Shaper>,
    blob: Option<Arc<BlobLimits>>,
}

impl ReplyPace {
    /// When so many bytes are through, if that is worth waiting for.
    pub(crate) fn slot(&self, bytes: usize) -> Option<Instant> {
        let now = Instant::now();
        let on_line = self.line.outwards.as_ref().and_then(|schedule| schedule.slot(bytes, now));
        let reads = self.blob.as_ref().and_then(|limits| limits.reads.as_ref());
        let of_blob = reads.and_then(|schedule| schedule.slot(bytes, now));
        on_line.max(of_blob)
    }
}

/// Bytes one after the other at a fixed rate.
#[derive(Debug)]
struct Schedule {
    rate: u64,
    /// When the last slot that was given is over.
    free_at: Mutex<Option<Instant>>,
}

impl Schedule {
    fn new(rate: u64) -> Schedule {
        Schedule { rate: rate.max(1), free_at: Mutex::new(None) }
    }

    /// The end of the next slot, if it is later than soon.
    fn slot(&self, bytes: usize, now: Instant) -> Option<Instant> {
        let takes = time_for(bytes as u64, self.rate);
        let mut free_at = self.free_at.lock();
        // Slots that nobody took are lost, except for what the timer makes everybody lose.
        let earliest = now.checked_sub(TIMER_STEP).unwrap_or(now);
        let start = free_at.map_or(now, |free_at| free_at.max(earliest));
        let over = start + takes;
        *free_at = Some(over);
        (over > now + TIMER_STEP).then_some(over)
    }
}

/// Something of which so much comes back per second, up to what belongs to a burst.
#[derive(Debug)]
struct Allowance {
    rate: u64,
    burst: Duration,
    /// When the allowance is full again.
    full_at: Mutex<Instant>,
}

impl Allowance {
    fn new(rate: u64, burst: Duration, now: Instant) -> Allowance {
        Allowance { rate: rate.max(1), burst, full_at: Mutex::new(now) }
    }

    /// Takes `amount` if anything is left: a large amount may be taken that comes back only in seconds.
    fn take(&self, amount: u64, now: Instant) -> bool {
        let mut full_at = self.full_at.lock();
        let start = (*full_at).max(now);
        // Nothing is left when it takes a burst to get full. The rate's rounding must not refuse the last one, nor a short
        // burst everything.
        let left = start == now || start.duration_since(now) + time_for(1, self.rate) / 2 < self.burst;
        if left {
            *full_at = start + time_for(amount, self.rate);
        }
        left
    }

    fn give_back(&self, amount: u64) {
        let mut full_at = self.full_at.lock();
        *full_at = full_at.checked_sub(time_for(amount, self.rate)).unwrap_or(*full_at);
    }

    fn is_full(&self, now: Instant) -> bool {
        *self.full_at.lock() <= now
    }
}

/// How long `amount` takes at `rate` per second; a year at most, which no clock overflows with.
fn time_for(amount: u64, rate: u64) -> Duration {
    let nanos = u128::from(amount) * 1_000_000_000 / u128::from(rate.max(1));
    let year = Duration::from_hours(24 * 365);
    u64::try_from(nanos).map_or(year, Duration::from_nanos).min(year)
}

fn busy(text: BusyText) -> Failure {
    Failure::from(ErrorCode::ServerBusy).saying(text.text())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_schedule_gives_slots_one_after_the_other() {
        let schedule = Schedule::new(1000);
        let now = Instant::now();
        assert_eq!(schedule.slot(500, now), Some(now + Duration::from_millis(500)));
        assert_eq!(schedule.slot(500, now), Some(now + Duration::from_secs(1)));
        let later = now + Duration::from_secs(5);
        assert_eq!(schedule.slot(1, later), None);
        assert_eq!(schedule.slot(100, later), Some(later - TIMER_STEP + Duration::from_millis(101)));
    }

    #[test]
    fn an_allowance_refuses_what_is_beyond_a_second() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let allowance = Allowance::new(3, second, now);
        let taken = |at| (0..5).filter(|_| allowance.take(1, at)).count();
        assert_eq!(taken(now), 3);
        assert_eq!(taken(now + Duration::from_millis(334)), 1);
        assert!(!allowance.is_full(now + Duration::from_millis(500)));
        assert_eq!(taken(now + Duration::from_secs(10)), 3);

        let bytes = Allowance::new(1 << 20, second, now);
        assert!(bytes.take(4 << 20, now));
        assert!(!bytes.take(1, now + Duration::from_millis(2900)));
        assert!(bytes.take(1, now + Duration::from_millis(3100)));
    }

    #[test]
    fn a_burst_may_be_short_and_a_refusal_is_given_back() {
        let now = Instant::now();
        let burst = Allowance::new(500, Duration::from_millis(100), now);
        assert_eq!((0..600).filter(|_| burst.take(1, now)).count(), 50);
        burst.give_back(1);
        assert!(burst.take(1, now) && !burst.take(1, now));
        let shorter_than_one = Allowance::new(2, Duration::from_millis(1), now);
        assert!(shorter_than_one.take(1, now) && !shorter_than_one.take(1, now));
        assert!(shorter_than_one.take(1, now + Duration::from_millis(500)));
    }

    #[test]
    fn extremes_do_not_overflow() {
        let now = Instant::now();
        let schedule = Schedule::new(0);
        assert!(schedule.slot(usize::MAX, now).is_some());
        let second = Duration::from_secs(1);
        assert!(Allowance::new(0, second, now).take(u64::MAX, now));
        assert!(Allowance::new(u64::MAX, second, now).take(u64::MAX, now));
    }

    #[test]
    fn text() {
        let link: Link = "latency=5ms,bytes-per-second=100MiB".parse().unwrap();
        let expected =
            Link { latency: Duration::from_millis(5), bytes_per_second: Some(100 << 20), ..Link::default() };
        assert_eq!(link, expected);
        let link: Link = "blob-bytes-per-second=60MiB,blob-requests-per-second=500".parse().unwrap();
        assert_eq!((link.blob_bytes_per_second, link.blob_requests_per_second), (Some(60 << 20), Some(500)));
        let link: Link = "blob-burst=100ms".parse().unwrap();
        assert_eq!(link.blob_burst, Some(Duration::from_millis(100)));
        for wrong in ["", "latency", "latency=5", "speed=1", "bytes-per-second=-1", "latency=5ms,"] {
            assert!(wrong.parse::<Link>().is_err(), "{wrong}");
        }
    }
}
