//! What a comparison found: where images differ, and which of them is wrong where that can be told.

use serde::Serialize;

use crate::range::PageRange;

/// Differing ranges that a report lists; more are only counted.
pub const MOST_LISTED: usize = 1000;

/// Which of the images that were compared stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wrong {
    /// The point: source and record agree.
    Point,
    /// The record: point and source agree.
    Record,
    /// The source: point and record agree.
    Source,
    /// Point and record: they follow a page list of the service that was wrong. The source has what it called unchanged,
    /// or cleared.
    List,
    /// Two were compared, so that nothing tells which of them; or all three differ.
    Unclear,
}

/// A range in which not all images are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// First byte.
    pub start: u64,
    /// First byte behind it.
    pub end: u64,
    /// Which of them is wrong.
    pub wrong: Wrong,
}

/// Sums over a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How many ranges are listed at most.
    most: u64,
    /// The first ranges, neighbours joined.
    pub(crate) listed: Vec<Difference>,
    /// All of them.
    pub(crate) ranges: u64,
    /// Bytes in all of them.
    pub(crate) bytes: u64,
    /// Bytes in those of which only the record is wrong.
    pub(crate) bytes_record: u64,
    /// Bytes in those of which only the source is wrong.
    pub(crate) bytes_source: u64,
    /// Bytes in those of which only the point is wrong.
    pub(crate) bytes_point: u64,
    /// Bytes in those that a page list left out, or called cleared.
    pub(crate) bytes_list: u64,
    /// Bytes of the image that were compared, those included that hold nothing on any side.
    pub(crate) compared: u64,
    /// Bytes of the image that were read, on one side or on both.
    pub(crate) read: u64,
    /// Bytes of which nothing says what they must be.
    pub(crate) unknown: u64,
    last: Option<Difference>,
}

impl Tally {
    pub(crate) fn listing(most: usize) -> Self {
        Self {
            most: most as u64,
            listed: Vec::new(),
            ranges: 0,
            bytes: 0,
            bytes_record: 0,
            bytes_source: 0,
            bytes_point: 0,
            bytes_list: 0,
            compared: 0,
            read: 0,
            unknown: 0,
            last: None,
        }
    }

    /// The next range, behind those before it.
    pub(crate) fn add(&mut self, range: PageRange, wrong: Wrong) {
        self.bytes += range.len();
        match wrong {
            Wrong::Record => self.bytes_record += range.len(),
            Wrong::Source => self.bytes_source += range.len(),
            Wrong::Point => self.bytes_point += range.len(),
            Wrong::List => self.bytes_list += range.len(),
            Wrong::Unclear => {}
        }
        let mut found = Difference { start: range.start(), end: range.end(), wrong };
        if let Some(last) = self.last.filter(|last| last.end == found.start && last.wrong == wrong) {
            found.start = last.start;
            if self.ranges <= self.most {
                self.listed.pop();
            }
        } else {
            self.ranges += 1;
        }
        self.last = Some(found);
        if self.ranges <= self.most {
            self.listed.push(found);
        }
    }

    /// Where the first difference begins.
    pub(crate) fn first(&self) -> Option<u64> {
        self.listed.first().map(|first| first.start)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn neighbours_are_joined_and_too_many_are_only_counted() {
        let mut tally = Tally::listing(MOST_LISTED);
        let page = |number: u64| PageRange::new(number * 512, (number + 1) * 512).unwrap();
        tally.add(page(0), Wrong::Point);
        tally.add(page(1), Wrong::Point);
        tally.add(page(2), Wrong::Record);
        let listed = |tally: &Tally| tally.listed.iter().map(|d| (d.start, d.end)).collect::<Vec<_>>();
        assert_eq!(listed(&tally), [(0, 1024), (1024, 1536)]);
        for number in 0..2000 {
            tally.add(page(10 + number * 3), Wrong::Unclear);
            tally.add(page(11 + number * 3), Wrong::Unclear);
        }
        assert_eq!((tally.listed.len(), tally.ranges, tally.first()), (MOST_LISTED, 2002, Some(0)));
        assert_eq!((tally.bytes, tally.bytes_point, tally.bytes_record), (4003 * 512, 1024, 512));
        assert!(listed(&tally)[2..].iter().all(|(start, end)| end - start == 1024));
    }
}
