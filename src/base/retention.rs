//! Which points are kept? Pure: every point with its time and what needs it is given, nothing is touched.
//!
//! The rules are those of restic and rustic, over the time of the *source snapshot* in UTC. Each rule goes from the newest
//! point to the oldest and keeps the newest of each period, until it kept as many as it may; periods without a point do
//! not count. A point is kept when any rule keeps it, so one more rule never deletes more.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

/// How many points are kept. The default keeps none but those that are needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The newest ones.
    pub last: Option<u32>,
    /// The newest of each of the newest hours that have one.
    pub hourly: Option<u32>,
    /// The same by days.
    pub daily: Option<u32>,
    /// The same by weeks, which begin on Mondays.
    pub weekly: Option<u32>,
    /// The same by months.
    pub monthly: Option<u32>,
    /// The same by years.
    pub yearly: Option<u32>,
    /// All that are at most this much older than the newest one.
    pub within: Option<Duration>,
}

/// A point as far as it matters here.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Time of the source snapshot; `None` when it cannot be read as a time.
    pub time: Option<Timestamp>,
    /// Time of the point: of two points of one source snapshot the later one is the newer.
    pub point: String,
    /// Why it is kept whatever the rules say; mostly empty.
    pub needed: BTreeSet<Reason>,
}

/// Why a point is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It is protected.
    Protected,
    /// The base blob is clean at it: the next difference begins there.
    Current,
    /// The base blob is torn, and can be rolled back to it.
    LastPoint,
    /// The base blob is torn, and the step that is about to be sealed made it.
    Sealing,
    /// Its time cannot be read.
    TimeUnknown,
    /// It is one of the newest.
    Last,
    /// It is the newest of its hour.
    Hourly,
    /// It is the newest of its day.
    Daily,
    /// It is the newest of its week.
    Weekly,
    /// It is the newest of its month.
    Monthly,
    /// It is the newest of its year.
    Yearly,
    /// It is new enough.
    Within,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protected => "protected",
            Self::Current => "current",
            Self::LastPoint => "last-point",
            Self::Sealing => "sealing",
            Self::TimeUnknown => "time-unknown",
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
            Self::Within => "within",
        })
    }
}

impl Retention {
    /// Whether no rule is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Why each of the points is kept, in their order. What has no reason may be deleted.
    pub fn reasons(&self, points: &[Candidate]) -> Vec<BTreeSet<Reason>> {
        let mut reasons: Vec<_> = points.iter().map(|point| point.needed.clone()).collect();
        let mut newest_first = Vec::new();
        for (index, point) in points.iter().enumerate() {
            match point.time {
                Some(time) => newest_first.push((time, point.point.as_str(), index)),
                None => drop(reasons[index].insert(Reason::TimeUnknown)),
            }
        }
        newest_first.sort_unstable_by(|one, other| other.cmp(one));
        for &(_, _, index) in newest_first.iter().take(count(self.last)) {
            reasons[index].insert(Reason::Last);
        }
        for (many, reason, period_of) in self.periods() {
            let mut newest_of_period: Vec<_> =
                newest_first.iter().map(|&(time, _, index)| (period_of(time), index)).collect();
            newest_of_period.dedup_by_key(|(period, _)| *period);
            for (_, index) in newest_of_period.into_iter().take(count(many)) {
                reasons[index].insert(reason);
            }
        }
        if let (Some(within), Some(&(newest, ..))) = (self.within, newest_first.first()) {
            // A span that reaches back before all time keeps everything.
            let since = newest.checked_sub(within).unwrap_or(Timestamp::MIN);
            for &(_, _, index) in newest_first.iter().take_while(|(time, ..)| *time >= since) {
                reasons[index].insert(Reason::Within);
            }
        }
        reasons
    }

    /// How many of which periods.
    fn periods(&self) -> [(Option<u32>, Reason, Period); 5] {
        [
            (self.hourly, Reason::Hourly, hour),
            (self.daily, Reason::Daily, day),
            (self.weekly, Reason::Weekly, week),
            (self.monthly, Reason::Monthly, month),
            (self.yearly, Reason::Yearly, year),
        ]
    }
}

/// Numbers the periods of one kind.
type Period = fn(Timestamp) -> i64;

fn count(many: Option<u32>) -> usize {
    many.map_or(0, |many| usize::try_from(many).unwrap_or(usize::MAX))
}

fn hour(time: Timestamp) -> i64 {
    time.as_second().div_euclid(3600)
}

fn day(time: Timestamp) -> i64 {
    hour(time).div_euclid(24)
}

fn week(time: Timestamp) -> i64 {
    // The days are counted from a Thursday.
    (day(time) + 3).div_euclid(7)
}

fn month(time: Timestamp) -> i64 {
    let date = time.to_zoned(TimeZone::UTC).date();
    i64::from(date.year()) * 12 + i64::from(date.month())
}

fn year(time: Timestamp) -> i64 {
    time.to_zoned(TimeZone::UTC).date().year().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn at(time: &str) -> Candidate {
        Candidate { time: time.parse().ok(), point: time.to_owned(), needed: BTreeSet::new() }
    }

    /// The places of those that are kept.
    fn kept(retention: &Retention, points: &[Candidate]) -> Vec<usize> {
        let reasons = retention.reasons(points);
        (0..points.len()).filter(|&index| !reasons[index].is_empty()).collect()
    }

    #[test]
    fn the_newest_of_each_period_is_kept() {
        let points = [
            at("2024-12-29T10:00:00Z"), // Sunday
            at("2024-12-30T10:00:00Z"), // Monday: another week, and by ISO 8601 a week of 2025
            at("2024-12-31T23:59:59.9999999Z"),
            at("2025-01-01T00:00:00Z"),
            at("2025-01-01T00:30:00Z"),
            at("2025-01-01T01:00:00Z"),
        ];
        let none = Retention::default();
        assert!(none.is_empty() && kept(&none, &points).is_empty());
        assert_eq!(kept(&Retention { last: Some(2), ..none }, &points), [4, 5]);
        assert_eq!(kept(&Retention { hourly: Some(3), ..none }, &points), [2, 4, 5]);
        assert_eq!(kept(&Retention { daily: Some(2), ..none }, &points), [2, 5]);
        assert_eq!(kept(&Retention { weekly: Some(2), ..none }, &points), [0, 5]);
        assert_eq!(kept(&Retention { monthly: Some(9), ..none }, &points), [2, 5]);
        assert_eq!(kept(&Retention { yearly: Some(1), ..none }, &points), [5]);
        let hour = Duration::from_hours(1);
        assert_eq!(kept(&Retention { within: Some(hour), ..none }, &points), [3, 4, 5]);
        assert_eq!(kept(&Retention { within: Some(Duration::MAX), ..none }, &points).len(), 6);
    }

    #[test]
    fn what_has_no_time_is_kept_and_of_one_source_the_later_point_is_newer() {
        let twice = |point: &str| Candidate { point: point.to_owned(), ..at("2026-01-01T00:00:00Z") };
        let points = [at("no time"), twice("2026-02-02T00:00:00Z"), twice("2026-02-01T00:00:00Z")];
        assert_eq!(kept(&Retention { last: Some(1), ..Retention::default() }, &points), [0, 1]);
    }

    /// The definition, said plainly: in its period there is no newer one, and few newer periods have any.
    fn is_kept_by(
        points: &[Candidate],
        index: usize,
        many: Option<u32>,
        period: impl Fn(Timestamp) -> String,
    ) -> bool {
        let order = |index: usize| (points[index].time, points[index].point.clone(), index);
        let period_of = |index: usize| period(points[index].time.unwrap());
        let newer: Vec<usize> = (0..points.len()).filter(|&other| order(other) > order(index)).collect();
        let newer_periods: BTreeSet<String> = newer.iter().map(|&other| period_of(other)).collect();
        !newer_periods.contains(&period_of(index))
            && newer_periods.len() < usize::try_from(many.unwrap_or(0)).unwrap()
    }

    fn is_kept(retention: &Retention, points: &[Candidate], index: usize) -> bool {
        let by = |many, format: &'static str| {
            is_kept_by(points, index, many, |time| time.to_zoned(TimeZone::UTC).strftime(format).to_string())
        };
        let newest = points.iter().filter_map(|point| point.time).max().unwrap();
        let newer = points.iter().enumerate();
        let newer = newer.filter(|&(other, point)| {
            (point.time, &point.point, other) > (points[index].time, &points[index].point, index)
        });
        !points[index].needed.is_empty()
            || newer.count() < usize::try_from(retention.last.unwrap_or(0)).unwrap()
            || by(retention.hourly, "%Y-%m-%d %H")
            || by(retention.daily, "%Y-%m-%d")
            || by(retention.weekly, "%G-%V")
            || by(retention.monthly, "%Y-%m")
            || by(retention.yearly, "%Y")
            || retention.within.is_some_and(|within| {
                newest.duration_since(points[index].time.unwrap()).unsigned_abs() <= within
            })
    }

    fn points() -> impl Strategy<Value = Vec<Candidate>> {
        // Dense and sparse, around the turn of a year.
        let seconds = prop_oneof![0_i64..200_000, 0_i64..100_000_000];
        let needed = prop_oneof![8 => Just(None), 1 => Just(Some(Reason::Protected)), 1 => Just(Some(Reason::Current))];
        let point = (seconds, 0_u8..3, needed).prop_map(|(seconds, point, needed)| Candidate {
            time: Some(Timestamp::from_second(1_735_500_000 + seconds).unwrap()),
            point: point.to_string(),
            needed: needed.into_iter().collect(),
        });
        proptest::collection::vec(point, 1..40)
    }

    fn rules() -> impl Strategy<Value = Retention> {
        let many = || proptest::option::of(1_u32..6);
        let within = proptest::option::of((0_u64..1_000_000).prop_map(Duration::from_secs));
        (many(), many(), many(), many(), many(), many(), within).prop_map(
            |(last, hourly, daily, weekly, monthly, yearly, within)| Retention {
                last,
                hourly,
                daily,
                weekly,
                monthly,
                yearly,
                within,
            },
        )
    }

    proptest! {
        #[test]
        fn exactly_what_the_plain_definition_keeps_is_kept(points in points(), rules in rules()) {
            let model: Vec<usize> = (0..points.len()).filter(|&index| is_kept(&rules, &points, index)).collect();
            prop_assert_eq!(kept(&rules, &points), model);
        }

        #[test]
        fn what_is_needed_is_kept_and_one_more_rule_never_deletes_more(
            points in points(), rules in rules(), more in rules()
        ) {
            let both = Retention {
                last: rules.last.or(more.last),
                hourly: rules.hourly.or(more.hourly),
                daily: rules.daily.or(more.daily),
                weekly: rules.weekly.or(more.weekly),
                monthly: rules.monthly.or(more.monthly),
                yearly: rules.yearly.or(more.yearly),
                within: rules.within.or(more.within),
            };
            let (few, many) = (kept(&rules, &points), kept(&both, &points));
            prop_assert!(few.iter().all(|index| many.contains(index)));
            for (index, point) in points.iter().enumerate() {
                prop_assert!(point.needed.is_empty() || few.contains(&index));
            }
        }
    }
}
