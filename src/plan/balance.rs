//! How wide a gap may be that is copied along.
//!
//! A page blob takes so many requests and so many bytes a second, each for itself, so a copy takes as long as the scarcer
//! of the two: `max(requests / R, bytes / B)`. A gap that is joined costs its bytes and saves a request. Joined gaps should
//! therefore be the narrowest, and as many as it takes until both are used up at the same pace: any narrower limit leaves
//! bytes unused while requests are waited for, any wider one the other way round. (To take the narrowest first is best
//! because each joined gap saves the same, one request.)
//!
//! The gaps to come are not known, so the limit is steered: each chunk makes it wider by the time that its request takes,
//! and narrower by the time that its bytes take. It rests where both take the same. There is no memory of earlier chunks in
//! it that could be wrong when the rates change, and nothing that could swing.

use crate::azure::{DOCUMENTED_BYTES_PER_SECOND, DOCUMENTED_REQUESTS_PER_SECOND};
use crate::leaf::LEAF;

const DOCUMENTED: Rates = Rates {
    bytes_per_second: DOCUMENTED_BYTES_PER_SECOND as f64,
    requests_per_second: DOCUMENTED_REQUESTS_PER_SECOND as f64,
};
/// How much wider a second of requests makes it, and how much narrower a second of bytes: e times.
const STEER: f64 = 3.0;

/// What the scarcer side of a copy takes in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Bytes of data.
    pub bytes_per_second: f64,
    /// Requests that move data.
    pub requests_per_second: f64,
}

impl Default for Rates {
    fn default() -> Self {
        DOCUMENTED
    }
}

impl Rates {
    /// The gap that costs as much as a request, in bytes: where to begin.
    fn break_even(self) -> f64 {
        self.bytes_per_second / self.requests_per_second
    }
}

/// Steers the widest gap that is joined.
#[derive(Clone, Debug)]
pub(super) struct Balance {
    rates: Rates,
    /// The widest gap that is joined now, in bytes.
    widest: f64,
    /// Not wider than a chunk.
    most: f64,
}

impl Balance {
    pub(super) fn new(rates: Rates, chunk: u64) -> Self {
        let most = chunk as f64;
        Self { rates, widest: rates.break_even().min(most), most }
    }

    pub(super) fn learn(&mut self, rates: Rates) {
        self.rates = rates;
    }

    /// The widest gap, in bytes, over which two data extents are joined.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn widest(&self) -> u64 {
        self.widest as u64
    }

    /// A chunk of so many bytes was planned.
    pub(super) fn planned(&mut self, bytes: u64) {
        let Rates { bytes_per_second, requests_per_second } = self.rates;
        let short_of_requests = 1.0 / requests_per_second - bytes as f64 / bytes_per_second;
        self.widest = (self.widest * (short_of_requests * STEER).exp()).clamp(LEAF as f64, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::super::least::tests::exact;
    use super::*;

    const EXTENTS: usize = 100_000;
    const SIZE: f64 = 4096.0;

    /// Gaps that spread as those between independent writes do.
    fn gaps(mean: f64) -> Vec<f64> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..EXTENTS).map(|_| (-random.f64().max(1e-12).ln() * mean).max(LEAF as f64).round()).collect()
    }

    fn seconds(rates: Rates, requests: f64, bytes: f64) -> f64 {
        (requests / rates.requests_per_second).max(bytes / rates.bytes_per_second)
    }

    /// The least time in which the extents can be copied, whichever gaps are joined.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn best(gaps: &[f64], rates: Rates) -> f64 {
        let (bytes, requests) = (SIZE as u64 * EXTENTS as u64, EXTENTS as u64);
        exact(bytes, requests, gaps.iter().map(|gap| *gap as u64).collect(), rates)
    }

    /// The time that the steered limit comes to.
    fn steered(gaps: &[f64], rates: Rates) -> f64 {
        let mut balance = Balance::new(rates, 4 << 20);
        let (mut requests, mut bytes, mut chunk) = (0.0, 0.0, SIZE);
        for gap in gaps {
            if *gap <= balance.widest && chunk + gap < 4e6 {
                chunk += gap + SIZE;
                continue;
            }
            requests += 1.0;
            bytes += chunk;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            balance.planned(chunk as u64);
            chunk = SIZE;
        }
        seconds(rates, requests, bytes)
    }

    #[test]
    fn what_is_joined_comes_near_the_least_time_possible() {
        for mean in [8e3, 30e3, 100e3, 300e3, 1e6, 10e6] {
            for rates in [
                Rates::default(),
                Rates { requests_per_second: 2000.0, ..Rates::default() },
                Rates { bytes_per_second: 6e6, ..Rates::default() },
            ] {
                let gaps = gaps(mean);
                let (best, steered) = (best(&gaps, rates), steered(&gaps, rates));
                assert!(steered <= best * 1.03, "gaps of {mean}, {rates:?}: {steered} s, at best {best} s");
            }
        }
    }

    #[test]
    fn rates_that_fall_together_and_come_back_change_nothing() {
        let gaps = gaps(100e3);
        let rates = Rates::default();
        let mut balance = Balance::new(rates, 4 << 20);
        let (mut chunks, mut least, mut most) = (0, f64::MAX, 0.0);
        let mut chunk = SIZE;
        for gap in gaps {
            if gap <= balance.widest && chunk + gap < 4e6 {
                chunk += gap + SIZE;
                continue;
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            balance.planned(chunk as u64);
            chunk = SIZE;
            chunks += 1;
            let third = (10_000..20_000).contains(&chunks);
            let part = if third { 3.0 } else { 1.0 };
            balance.learn(Rates {
                bytes_per_second: rates.bytes_per_second / part,
                requests_per_second: rates.requests_per_second / part,
            });
            if chunks > 5000 {
                (least, most) = (f64::min(least, balance.widest), f64::max(most, balance.widest));
            }
        }
        assert!(chunks > 25_000 && most < least * 2.0, "{chunks} chunks, {least} to {most}");
    }
}
