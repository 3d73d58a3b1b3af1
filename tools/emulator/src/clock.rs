//! Time as the service sees it: in ticks of 100 ns, shiftable, and with a variant that never gives one value twice.
//!
//! ETags and snapshot names are made of ticks on the wire, so two writes in the same tick must still differ.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;

const TICKS_PER_SECOND: u64 = 10_000_000;
const TICKS_PER_MILLISECOND: i64 = 10_000;

/// Ticks from the year 1, where the clock behind an ETag begins, to 1970.
const TICKS_BEFORE_1970: u64 = 621_355_968_000_000_000;

/// A point in time, in ticks of 100 ns since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    /// The time on the machine's clock, which nothing here moves.
    pub(crate) fn of_machine() -> Moment {
        Moment(SystemTime::now().duration_since(UNIX_EPOCH).map(ticks).unwrap_or_default())
    }

    /// `2023-01-27T22:27:23.4547704Z`, the name of a snapshot.
    pub(crate) fn snapshot_text(self) -> String {
        let fraction = self.0 % TICKS_PER_SECOND;
        format!("{}.{fraction:07}Z", self.timestamp().strftime("%Y-%m-%dT%H:%M:%S"))
    }

    /// `2023-01-27T22:27:23Z`, as in `st` and `se` of a SAS.
    pub(crate) fn second_text(self) -> String {
        self.timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// `2023-01-27T22:27:23.4547704+00:00`, as management replies tell times.
    pub(crate) fn offset_text(self) -> String {
        let fraction = self.0 % TICKS_PER_SECOND;
        format!("{}.{fraction:07}+00:00", self.timestamp().strftime("%Y-%m-%dT%H:%M:%S"))
    }

    /// `1/27/2023 10:27:23 PM`, as refusals of tokens tell times.
    pub(crate) fn twelve_hour_text(self) -> String {
        self.timestamp().strftime("%-m/%-d/%Y %-I:%M:%S %p").to_string()
    }

    /// `Fri, 27 Jan 2023 22:27:23 GMT`, as in `Last-Modified`.
    pub(crate) fn http_text(self) -> String {
        self.timestamp().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }

    /// `0x8DB00B5A5D363CC`, an ETag without its quotes.
    pub(crate) fn etag_text(self) -> String {
        format!("0x{:X}", self.0.saturating_add(TICKS_BEFORE_1970))
    }

    /// Reads the forms that a SAS or a snapshot name may use: whole dates, minutes, seconds, fractions of a second.
    pub(crate) fn from_iso(text: &str) -> Option<Moment> {
        if let Ok(timestamp) = text.parse::<Timestamp>() {
            return Moment::from_timestamp(timestamp);
        }
        let date = text.parse::<Date>().ok()?;
        Moment::from_timestamp(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
    }

    /// Reads a date of an `If-Modified-Since` kind of header.
    pub(crate) fn from_http(text: &str) -> Option<Moment> {
        let timestamp = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Moment::from_timestamp(timestamp)
    }

    pub(crate) fn from_seconds(seconds: u64) -> Moment {
        Moment(seconds.saturating_mul(TICKS_PER_SECOND))
    }

    /// Whole seconds since 1970: HTTP dates can say no more.
    pub(crate) fn seconds(self) -> u64 {
        self.0 / TICKS_PER_SECOND
    }

    /// This moment moved to the next full second, unless it is one.
    pub(crate) fn up_to_second(self) -> Moment {
        Moment(self.0.div_ceil(TICKS_PER_SECOND).saturating_mul(TICKS_PER_SECOND))
    }

    pub(crate) fn plus(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(ticks(duration)))
    }

    /// This moment moved by so many milliseconds, which may be negative.
    pub(crate) fn moved_by_milliseconds(self, milliseconds: i64) -> Moment {
        Moment(self.0.saturating_add_signed(milliseconds.saturating_mul(TICKS_PER_MILLISECOND)))
    }

    /// The moment after this one.
    pub(crate) fn next(self) -> Moment {
        Moment(self.0.saturating_add(1))
    }

    /// How long it is from `earlier` to here; zero if it is the other way round.
    pub(crate) fn since(self, earlier: Moment) -> Duration {
        let ticks = self.0.saturating_sub(earlier.0);
        Duration::from_nanos(ticks.saturating_mul(100))
    }

    fn timestamp(self) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(self.0) * 100).unwrap_or(Timestamp::MAX)
    }

    fn from_timestamp(timestamp: Timestamp) -> Option<Moment> {
        u64::try_from(timestamp.as_nanosecond() / 100).ok().map(Moment)
    }
}

/// The one clock of an emulator: leases, SAS and snapshot names all use it.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// Ticks added to the machine's clock.
    ahead: AtomicI64,
    last_tick: AtomicU64,
}

impl Clock {
    pub(crate) fn now(&self) -> Moment {
        Moment(Moment::of_machine().0.saturating_add_signed(self.ahead.load(Ordering::Relaxed)))
    }

    /// The time now, made later if needed so that no two calls return the same and none returns an earlier one.
    pub(crate) fn tick(&self) -> Moment {
        let now = self.now().0;
        let after = |last: u64| now.max(last.saturating_add(1));
        let last = self.last_tick.update(Ordering::Relaxed, Ordering::Relaxed, after);
        Moment(after(last))
    }

    pub(crate) fn advance(&self, by: Duration) {
        let by = i64::try_from(ticks(by)).unwrap_or(i64::MAX);
        self.ahead.fetch_add(by, Ordering::Relaxed);
    }
}

fn ticks(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos() / 100).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn texts_are_those_of_the_service() {
        let moment = Moment::from_iso("2023-01-27T22:27:23.4547704Z").unwrap();
        assert_eq!(moment.snapshot_text(), "2023-01-27T22:27:23.4547704Z");
        assert_eq!(moment.second_text(), "2023-01-27T22:27:23Z");
        assert_eq!(moment.offset_text(), "2023-01-27T22:27:23.4547704+00:00");
        assert_eq!(Moment::from_iso(&moment.offset_text()), Some(moment));
        assert_eq!(moment.twelve_hour_text(), "1/27/2023 10:27:23 PM");
        assert_eq!(moment.moved_by_milliseconds(-455).snapshot_text(), "2023-01-27T22:27:22.9997704Z");
        assert_eq!(moment.http_text(), "Fri, 27 Jan 2023 22:27:23 GMT");
        assert_eq!(Moment::from_http(&moment.http_text()).unwrap().seconds(), moment.seconds());
        assert_eq!(moment.up_to_second().second_text(), "2023-01-27T22:27:24Z");
    }

    #[test]
    fn an_etag_counts_ticks_from_the_year_1() {
        let moment = Moment(0x8DB_00B5_A5D3_63CC - TICKS_BEFORE_1970);
        assert_eq!(moment.etag_text(), "0x8DB00B5A5D363CC");
        assert_eq!(&moment.snapshot_text()[..10], "2023-01-27");
    }

    #[test]
    fn short_forms_of_times_are_read() {
        let full = Moment::from_iso("2026-02-03T00:00:00Z").unwrap();
        assert_eq!(Moment::from_iso("2026-02-03"), Some(full));
        assert_eq!(Moment::from_iso("2026-02-03T00:00Z"), Some(full));
        assert_eq!(Moment::from_iso("http://example"), None);
        assert_eq!(Moment::from_iso(""), None);
    }

    #[test]
    fn ticks_strictly_increase() {
        let clock = Clock::default();
        let ticks: Vec<Moment> = (0..1000).map(|_| clock.tick()).collect();
        assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]));
        clock.advance(Duration::from_mins(1));
        assert!(clock.now().since(ticks[0]) >= Duration::from_mins(1));
    }
}
