//! What a copy would cost and how long it would take, by a table that the user can edit.
//!
//! Prices differ between regions, directions and contracts, and change: the table that comes with the program is an
//! assumption that says so, and is there to be replaced.

use serde::{Deserialize, Serialize};

use crate::azure::{DOCUMENTED_BYTES_PER_SECOND, DOCUMENTED_REQUESTS_PER_SECOND};
use crate::plan::Totals;

/// Prices of what a copy uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceTable {
    /// Where the numbers come from.
    pub source: String,
    /// Their currency.
    pub currency: String,
    /// One GB (10^9 bytes) that leaves the source's region.
    pub transfer_per_gb: f64,
    /// Ten thousand reads of the source, page lists included.
    pub read_per_10k: f64,
    /// Ten thousand writes and clears at the target.
    pub write_per_10k: f64,
    /// One GB of written pages that is kept at the target for a month.
    pub storage_per_gb_month: f64,
}

impl Default for PriceTable {
    fn default() -> Self {
        Self {
            source:
                "assumed, and not verified: replace these by the prices of your regions and your contract"
                    .to_owned(),
            currency: "USD".to_owned(),
            transfer_per_gb: 0.02,
            read_per_10k: 0.0005,
            write_per_10k: 0.0005,
            storage_per_gb_month: 0.045,
        }
    }
}

impl PriceTable {
    /// Whether every price is one.
    pub fn is_sensible(&self) -> bool {
        [self.transfer_per_gb, self.read_per_10k, self.write_per_10k, self.storage_per_gb_month]
            .iter()
            .all(|price| price.is_finite() && *price >= 0.0)
    }
}

/// What a target can take: the documented limits of one page blob unless something else is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Bytes a second.
    pub bytes_per_second: u64,
    /// Requests a second.
    pub requests_per_second: u32,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            bytes_per_second: u64::from(DOCUMENTED_BYTES_PER_SECOND),
            requests_per_second: DOCUMENTED_REQUESTS_PER_SECOND,
        }
    }
}

/// What a plan would take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// Seconds of copying, at the pace that was assumed.
    pub seconds: f64,
    /// Money for transfer and requests, once.
    pub once: f64,
    /// Money for the pages that are kept, each month.
    pub per_month: f64,
}

impl Estimate {
    /// Of one plan.
    pub fn of(totals: &Totals, prices: &PriceTable, rate: Rate) -> Self {
        const GB: f64 = 1e9;
        let read = (totals.bytes_changed + totals.bytes_joined) as f64;
        let writes = (totals.data_chunks + totals.clear_chunks) as f64;
        let by_bytes = read / rate.bytes_per_second.max(1) as f64;
        let by_requests = writes / f64::from(rate.requests_per_second.max(1));
        Self {
            seconds: by_bytes.max(by_requests),
            once: read / GB * prices.transfer_per_gb
                + totals.data_chunks as f64 / 1e4 * prices.read_per_10k
                + writes / 1e4 * prices.write_per_10k,
            per_month: read / GB * prices.storage_per_gb_month,
        }
    }
}

impl std::ops::AddAssign for Estimate {
    fn add_assign(&mut self, other: Self) {
        self.seconds += other.seconds;
        self.once += other.once;
        self.per_month += other.per_month;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scattered_changes_take_as_long_as_their_requests() {
        let totals = |bytes_changed, data_chunks| Totals { bytes_changed, data_chunks, ..Totals::default() };
        let rate = Rate { bytes_per_second: 100, requests_per_second: 10 };
        let prices = PriceTable {
            transfer_per_gb: 1.0,
            read_per_10k: 10_000.0,
            write_per_10k: 20_000.0,
            storage_per_gb_month: 2.0,
            ..PriceTable::default()
        };
        let large = Estimate::of(&totals(1_000_000_000, 1), &prices, rate);
        assert_eq!(large, Estimate { seconds: 1e7, once: 1.0 + 1.0 + 2.0, per_month: 2.0 });
        assert!((Estimate::of(&totals(100, 1000), &prices, rate).seconds - 100.0).abs() < 1e-9);
    }
}
