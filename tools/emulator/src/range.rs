//! Byte ranges of requests.

use std::ops::Range;

/// Bytes of a page: everything about page blobs counts in these.
pub(crate) const PAGE: u64 = 512;

/// `bytes=a-b` or `bytes=a-`, not yet compared with a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteRange {
    start: u64,
    /// Exclusive; absent if the request left it open.
    end: Option<u64>,
}

impl ByteRange {
    /// Reads a header's value. The service knows neither suffix ranges nor several at once.
    pub(crate) fn parse(text: &str) -> Option<ByteRange> {
        let (start, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let start = number(start)?;
        if last.is_empty() {
            return Some(ByteRange { start, end: None });
        }
        let last = number(last)?;
        (start <= last).then_some(ByteRange { start, end: Some(last + 1) })
    }

    /// The part inside a blob of `length` bytes; none if the range starts at the blob's end or later.
    pub(crate) fn within(self, length: u64) -> Option<Range<u64>> {
        let end = self.end.map_or(length, |end| end.min(length));
        (self.start < length).then_some(self.start..end)
    }

    /// The range itself, if both ends were given.
    pub(crate) fn closed(self) -> Option<Range<u64>> {
        self.end.map(|end| self.start..end)
    }

    /// Whether start and end, as far as given, fall on pages' edges.
    pub(crate) fn is_aligned(self) -> bool {
        self.start.is_multiple_of(PAGE) && self.end.is_none_or(|end| end.is_multiple_of(PAGE))
    }

    /// Whether an end was given that lies past a blob of `length` bytes.
    pub(crate) fn ends_past(self, length: u64) -> bool {
        self.end.is_some_and(|end| end > length)
    }
}

/// Digits only: `parse` alone would take a sign. The largest number is that of a signed 64-bit offset.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok()?;
    (digits && i64::try_from(number).is_ok()).then_some(number)
}

/// `range` moved outwards to edges of `unit` bytes, but not past `length`.
pub(crate) fn round_outwards(range: &Range<u64>, unit: u64, length: u64) -> Range<u64> {
    let start = range.start - range.start % unit;
    let end = range.end.div_ceil(unit).saturating_mul(unit).min(length);
    start..end
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_forms_are_read_and_cut() {
        assert_eq!(ByteRange::parse("bytes=0-511").unwrap().within(4096), Some(0..512));
        assert_eq!(ByteRange::parse("bytes=4000-9999").unwrap().within(4096), Some(4000..4096));
        assert_eq!(ByteRange::parse("bytes=512-").unwrap().within(4096), Some(512..4096));
        assert_eq!(ByteRange::parse("bytes=4096-").unwrap().within(4096), None);
    }

    #[test]
    fn other_forms_are_refused() {
        let too_large = format!("bytes=0-{}", u64::MAX);
        for text in
            ["bytes=-500", "bytes=5-4", "bytes=0-1,4-5", "0-511", "bytes=+1-2", "bytes=a-b", &too_large]
        {
            assert_eq!(ByteRange::parse(text), None, "{text}");
        }
    }

    #[test]
    fn rounding_stays_inside() {
        assert_eq!(round_outwards(&(600..700), 512, 4096), 512..1024);
        assert_eq!(round_outwards(&(600..4000), 65536, 4608), 0..4608);
    }
}
