//! The least time in which a page blob takes what is to be copied, whichever gaps are joined: what a copy is measured by.
//!
//! A joined gap costs its bytes and saves one request, so the narrowest are joined first, as many as it takes until bytes
//! and requests take the same time (see [`super::balance`], which comes close without knowing the gaps to come). Only how
//! many gaps there are of each width is kept, so memory is flat; within a class of widths, an eighth apart, the narrowest
//! width counts, so that what is said is never too long.

use super::LARGEST_CLEAR;
use super::balance::Rates;
use crate::azure::LARGEST_CHUNK;
use crate::range::{Extent, ExtentKind};

/// Classes of widths to a power of two: as many as fit in so many bits.
const BITS: u32 = 3;

/// What is known of the extents of a plan.
#[derive(Clone, Debug, Default)]
pub(super) struct Least {
    bytes: u64,
    requests: u64,
    /// Where the extent before ended, if it had data.
    end: Option<u64>,
    /// By class of width.
    gaps: Vec<Gaps>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Gaps {
    count: u64,
    bytes: u64,
}

impl Least {
    /// Takes the next extent into account.
    pub(super) fn add(&mut self, extent: &Extent) {
        let range = extent.range;
        if extent.kind == ExtentKind::Clear {
            self.requests += range.len().div_ceil(LARGEST_CLEAR);
            self.end = None;
            return;
        }
        self.bytes += range.len();
        self.requests += range.len().div_ceil(LARGEST_CHUNK);
        if let Some(end) = self.end.replace(range.end()) {
            let gap = range.start().saturating_sub(end);
            let class = class_of(gap);
            if self.gaps.len() <= class {
                self.gaps.resize(class + 1, Gaps::default());
            }
            if let Some(gaps) = self.gaps.get_mut(class) {
                gaps.count += 1;
                gaps.bytes += gap;
            }
        }
    }

    /// Seconds at `rates`.
    pub(super) fn seconds(&self, rates: Rates) -> f64 {
        let Rates { bytes_per_second, requests_per_second } = rates;
        let (mut of_bytes, mut of_requests) =
            (self.bytes as f64 / bytes_per_second, self.requests as f64 / requests_per_second);
        for (class, gaps) in self.gaps.iter().enumerate() {
            let (bytes, requests) =
                (gaps.bytes as f64 / bytes_per_second, gaps.count as f64 / requests_per_second);
            if of_bytes + bytes > of_requests - requests {
                // Some of these, until both take the same.
                let short = (of_requests - of_bytes).max(0.0);
                let one = narrowest(class) as f64 / bytes_per_second;
                let joined = short / (one + 1.0 / requests_per_second);
                return of_bytes.max(of_requests - joined.min(gaps.count as f64) / requests_per_second);
            }
            of_bytes += bytes;
            of_requests -= requests;
        }
        of_bytes.max(of_requests)
    }
}

/// The class of a width.
#[allow(clippy::cast_possible_truncation, reason = "what is left of it has four bits")]
fn class_of(width: u64) -> usize {
    let shift = (u64::BITS - width.leading_zeros()).saturating_sub(BITS + 1);
    (shift << BITS) as usize + (width >> shift) as usize
}

/// The narrowest width of a class.
fn narrowest(class: usize) -> u64 {
    let shift = (class >> BITS).saturating_sub(1);
    ((class - (shift << BITS)) as u64) << shift
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::range::{PAGE, PageRange};
    use proptest::prelude::*;

    /// All gaps known, narrowest first.
    pub(in crate::plan) fn exact(bytes: u64, requests: u64, mut gaps: Vec<u64>, rates: Rates) -> f64 {
        let seconds = |bytes: u64, requests: u64| {
            (bytes as f64 / rates.bytes_per_second).max(requests as f64 / rates.requests_per_second)
        };
        gaps.sort_unstable();
        let (mut bytes, mut requests) = (bytes, requests);
        let mut best = seconds(bytes, requests);
        for gap in gaps {
            (bytes, requests) = (bytes + gap, requests - 1);
            best = best.min(seconds(bytes, requests));
        }
        best
    }

    proptest! {
        #[test]
        fn a_width_is_in_its_class(width in 0_u64..1 << 50) {
            let class = class_of(width);
            prop_assert!(narrowest(class) <= width && width < narrowest(class + 1));
            prop_assert!(narrowest(class + 1) as f64 <= (narrowest(class) as f64 * 1.125).max(8.0));
        }

        #[test]
        fn never_longer_than_what_is_possible_and_hardly_shorter(
            parts in prop::collection::vec((0_u64..24, 1_u64..3000, 0_u8..20), 1..400),
            requests_per_second in 5.0_f64..5000.0,
        ) {
            let rates = Rates { requests_per_second, ..Rates::default() };
            let mut least = Least::default();
            let (mut at, mut bytes, mut requests, mut gaps, mut data_before) = (0, 0, 0, Vec::new(), false);
            for (exponent, pages, kind) in parts {
                let gap = ((1 << exponent) + pages) * PAGE;
                let range = PageRange::new(at + gap, at + gap + pages * PAGE).unwrap();
                at = range.end();
                requests += 1;
                let kind = if kind == 0 { ExtentKind::Clear } else { ExtentKind::Data };
                least.add(&Extent { range, kind });
                if kind == ExtentKind::Data {
                    bytes += range.len();
                    gaps.extend(data_before.then_some(gap));
                }
                data_before = kind == ExtentKind::Data;
            }
            let (exact, least) = (exact(bytes, requests, gaps, rates), least.seconds(rates));
            // One request more or less is what no half of a gap can tell.
            let one = 1.0 / requests_per_second;
            prop_assert!(least <= exact + 1e-9 && least >= exact * 0.94 - one, "{least} s, really {exact} s");
        }
    }

    #[test]
    fn what_is_long_takes_its_bytes_and_nothing_takes_nothing() {
        let rates = Rates::default();
        assert!(Least::default().seconds(rates).abs() < f64::EPSILON);
        let mut least = Least::default();
        least.add(&Extent { range: PageRange::new(0, 60 << 30).unwrap(), kind: ExtentKind::Data });
        assert!((least.seconds(rates) - 1024.0).abs() < 1e-6);
    }
}
