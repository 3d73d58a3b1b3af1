//! Which point: the newest, one that was named, or the disk as it was at a time.

use crate::azure::{PageBlob, Resource};
use crate::base::marker::{Marker, State};
use crate::base::points::{self, Known};
use crate::base::{self};
use crate::error::{Error, ErrorKind, Result};

/// What a person says of the point that is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// The one that was sealed last.
    #[default]
    Latest,
    /// Its own time, or the time, name or ARM id of its source snapshot.
    Named(String),
    /// The newest whose source is not younger than this.
    AsOf(jiff::Timestamp),
}

impl std::str::FromStr for Which {
    type Err = String;

    /// `latest`, an id, or a time like `2026-02-01` or `2026-02-01T12:00Z`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.trim() {
            "" => Err("a point has a name: latest, a time, or what `snapferry points` shows".to_owned()),
            "latest" => Ok(Self::Latest),
            // Times as the service writes them name points and snapshots, also where the Z at their end was lost.
            text if is_exact(text) => Ok(Self::Named(text.to_owned())),
            text if is_exact(&format!("{text}Z")) => Ok(Self::Named(format!("{text}Z"))),
            text => Ok(time(text).map_or_else(|| Self::Named(text.to_owned()), Self::AsOf)),
        }
    }
}

/// A time with seven fractional digits is a name.
fn is_exact(text: &str) -> bool {
    text.rsplit_once('.').is_some_and(|(_, fraction)| fraction.len() == 8 && fraction.ends_with('Z'))
}

/// A day ends at its end.
fn time(text: &str) -> Option<jiff::Timestamp> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time);
    }
    if let Ok(date) = text.parse::<jiff::civil::Date>()
        && !text.contains('T')
    {
        let end = date.at(23, 59, 59, 999_999_999);
        return end.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    }
    let minutes = text.strip_suffix('Z').unwrap_or(text).parse::<jiff::civil::DateTime>().ok()?;
    minutes.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

/// A point that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The base blob.
    pub base: PageBlob,
    /// The point.
    pub blob: PageBlob,
    /// Its time.
    pub time: String,
    /// What stands in its metadata.
    pub marker: Marker,
}

/// Finds a point of `base`. A URL that names a snapshot itself needs no list, and no permission for one; neither does the
/// latest point of a base blob that is clean.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no such point, with those that there are.
pub async fn find(base: &PageBlob, which: &Which) -> Result<Found> {
    if let Some(time) = base.resource().snapshot() {
        if *which != Which::Latest {
            return Err(Error::new(ErrorKind::Usage, "choose the point", "the URL names one already")
                .on(base.resource())
                .next("leave --point out, or snapshot= in the URL"));
        }
        let time = time.to_owned();
        return read(base.clone(), base.clone(), time).await;
    }
    let look = base::look(base).await?;
    let marker = look.into_marker(base, "find the point")?;
    let time = match which {
        Which::Latest if marker.state == State::Clean => marker.point.clone().unwrap_or_default(),
        Which::Named(name) if is_exact(name) && points_at(base, name).await? => name.clone(),
        which => choose(base, which, points::known(base).await?)?,
    };
    let blob = base.at_snapshot(&time)?;
    read(base.clone(), blob, time).await
}

async fn points_at(base: &PageBlob, time: &str) -> Result<bool> {
    let look = base::look(&base.at_snapshot(time)?).await?;
    Ok(look.marker.is_some_and(|marker| marker.state == State::Sealing))
}

fn choose(base: &PageBlob, which: &Which, mut known: Vec<Known>) -> Result<String> {
    // In the order of the source: a point that was made anew is of its source's time.
    known.sort_by_key(|known| known.point.source_time.parse::<jiff::Timestamp>().ok());
    let is_not_after = |known: &Known, limit| {
        known.point.source_time.parse::<jiff::Timestamp>().is_ok_and(|time| time <= limit)
    };
    let found = match which {
        Which::Latest => known.last(),
        Which::Named(name) => {
            known.iter().rev().find(|known| known.point.point == *name || known.is_of(name))
        }
        Which::AsOf(limit) => known.iter().rev().find(|known| is_not_after(known, *limit)),
    };
    found.map(|known| known.point.point.clone()).ok_or_else(|| none(base.resource(), &known))
}

fn none(base: &Resource, known: &[Known]) -> Error {
    let why = match known {
        [] => "the base blob has no point".to_owned(),
        [one] => format!("its only point is {} (of {})", one.point.point, one.point.source_time),
        [first, .., last] => format!(
            "there is none like it among its {} points, from {} to {}",
            known.len(),
            first.point.source_time,
            last.point.source_time
        ),
    };
    Error::new(ErrorKind::NotFound, "find the point", why).on(base).next("snapferry points --target <URL>")
}

async fn read(base: PageBlob, blob: PageBlob, time: String) -> Result<Found> {
    let look = base::look(&blob).await?;
    if look.properties.is_none() {
        return Err(Error::new(
            ErrorKind::NotFound,
            "find the point",
            "there is no such snapshot of the base blob",
        )
        .on(blob.resource())
        .next("snapferry points --target <URL>"));
    }
    match look.marker {
        Some(marker) if marker.state == State::Sealing => Ok(Found { base, blob, time, marker }),
        _ => Err(Error::new(
            ErrorKind::NotFound,
            "find the point",
            "this snapshot of the blob was not sealed by snapferry: nobody knows what it holds",
        )
        .on(blob.resource())
        .next("snapferry points --target <URL>")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_point_is_named_or_a_time_or_the_latest() {
        let of = |text: &str| text.parse::<Which>().unwrap();
        assert_eq!(of("latest"), Which::Latest);
        assert_eq!(of("monday"), Which::Named("monday".to_owned()));
        let exact = "2026-02-01T00:00:00.1234567Z";
        assert_eq!(of(exact), Which::Named(exact.to_owned()));
        assert_eq!(of(exact.trim_end_matches('Z')), Which::Named(exact.to_owned()));
        let as_of = |text: &str| Which::AsOf(text.parse().unwrap());
        assert_eq!(of("2026-02-01"), as_of("2026-02-01T23:59:59.999999999Z"));
        assert_eq!(of("2026-02-01T12:00Z"), as_of("2026-02-01T12:00:00Z"));
        assert_eq!(of("2026-02-01T12:00:30+02:00"), as_of("2026-02-01T10:00:30Z"));
        assert!("".parse::<Which>().is_err());
    }
}
