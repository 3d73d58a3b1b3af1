//! Page-aligned byte ranges: the one range type of the whole product.
//!
//! A [`PageRange`] carries its absolute start, is half-open, never empty and page-aligned by construction. A
//! range that loses its offset on the way writes the right bytes to the wrong place; here there is no way to
//! say "the n-th piece" without saying where it lies.

use std::fmt;

/// Bytes in a page, the smallest unit that a page blob can read, write, clear or report as changed.
pub const PAGE: u64 = 512;

/// A half-open range of bytes, `start..end`, both multiples of [`PAGE`], never empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageRange {
    start: u64,
    end: u64,
}

/// Why two numbers do not make a [`PageRange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The range holds no byte.
    #[error("range {start}..{end} is empty or backwards")]
    Empty {
        /// First byte.
        start: u64,
        /// First byte after the range.
        end: u64,
    },
    /// An edge is not a multiple of [`PAGE`].
    #[error("range {start}..{end} is not aligned to {PAGE} bytes")]
    Misaligned {
        /// First byte.
        start: u64,
        /// First byte after the range.
        end: u64,
    },
}

impl PageRange {
    /// The range `start..end` in bytes.
    pub fn new(start: u64, end: u64) -> Result<Self, RangeError> {
        if start >= end {
            return Err(RangeError::Empty { start, end });
        }
        if !start.is_multiple_of(PAGE) || !end.is_multiple_of(PAGE) {
            return Err(RangeError::Misaligned { start, end });
        }
        Ok(Self { start, end })
    }

    /// First byte.
    pub fn start(self) -> u64 {
        self.start
    }

    /// First byte after the range.
    pub fn end(self) -> u64 {
        self.end
    }

    /// Length in bytes, never zero.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> u64 {
        self.end - self.start
    }

    /// The part of this range inside `other`.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end)).ok()
    }

    /// Splits into what lies before `at` and what lies from it on. `at` must be aligned.
    pub fn split(self, at: u64) -> (Option<Self>, Option<Self>) {
        (Self::new(self.start, self.end.min(at)).ok(), Self::new(self.start.max(at), self.end).ok())
    }

    /// The value of an HTTP `Range` header: both ends inclusive.
    pub(crate) fn header(self) -> String {
        format!("bytes={}-{}", self.start, self.end - 1)
    }
}

impl fmt::Debug for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a page list says of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// The range holds data in the newer snapshot (`PageRange` on the wire).
    Data,
    /// The range held data in the older snapshot and reads as zeros in the newer (`ClearRange` on the wire).
    Clear,
}

/// A range of a page list, with its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where.
    pub range: PageRange,
    /// What is there now.
    pub kind: ExtentKind,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_range_is_aligned_and_not_empty() {
        assert_eq!(PageRange::new(0, 512).unwrap().len(), 512);
        assert!(matches!(PageRange::new(512, 512), Err(RangeError::Empty { .. })));
        assert!(matches!(PageRange::new(1024, 512), Err(RangeError::Empty { .. })));
        assert!(matches!(PageRange::new(1, 512), Err(RangeError::Misaligned { .. })));
        assert!(matches!(PageRange::new(0, 513), Err(RangeError::Misaligned { .. })));
    }

    #[test]
    fn split_keeps_every_byte() {
        let range = PageRange::new(1024, 4096).unwrap();
        let (low, high) = range.split(2048);
        assert_eq!((low.unwrap().len(), high.unwrap().start()), (1024, 2048));
        assert_eq!(range.split(512), (None, Some(range)));
        assert_eq!(range.split(8192), (Some(range), None));
    }
}
