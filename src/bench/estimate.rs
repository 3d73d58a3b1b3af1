//! What a benchmark on somebody's own URLs would take, before it begins.
//!
//! The same plan as a dry run makes, for each chunk size; the same price table, with the same assumption: the target is in
//! another region, and every byte that is read crosses the border. Bytes are counted as if no run ended by its time, so
//! that what is told is the most. Blobs live for the time of their run; what they cost is told for the case that they
//! cannot be deleted.

use serde::Serialize;

use super::result::Setting;
use super::run::settings_of;
use super::sweep::Sweep;
use crate::azure::{Client, Resource};
use crate::dry_run;
use crate::error::Result;
use crate::plan::Totals;
use crate::price::{Estimate, PriceTable, Rate};
use crate::progress::Progress;
use crate::step::{PlanReport, Step};

/// Requests of a run besides those of its plan: looking, lease, marker, checkpoints, seal, record, deleting.
const REQUESTS_BESIDE: u64 = 60;

/// What all runs take together, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Forecast {
    /// Runs, warm-up included.
    pub runs: u64,
    /// Bytes that cross from the source's region to the target's.
    pub bytes: u64,
    /// Requests to both sides.
    pub requests: u64,
    /// Seconds of copying.
    pub seconds: f64,
    /// Money for transfer and requests.
    pub once: f64,
    /// Money for a month of the largest blob, should it stay.
    pub per_month_if_it_stays: f64,
}

/// Plans every chunk size, and adds up. Writes nothing.
pub async fn estimate(
    sweep: &Sweep,
    target: &Resource,
    client: &Client,
    prices: &PriceTable,
) -> Result<Forecast> {
    let mut plans: Vec<(Setting, PlanReport)> = Vec::new();
    let mut forecast = Forecast { runs: sweep.runs(), ..Forecast::default() };
    for setting in sweep.settings() {
        let known = plans.iter().find(|(planned, _)| {
            (planned.chunk, planned.pattern, planned.mode) == (setting.chunk, setting.pattern, setting.mode)
        });
        let plan = if let Some((_, plan)) = known {
            plan.clone()
        } else {
            let subject = sweep.subject(setting)?;
            let step = Step {
                source: subject.source.clone(),
                previous: subject.previous.clone(),
                target: target.clone(),
                origin: None,
            };
            let settings = settings_of(setting, subject.is_kept);
            let plan = dry_run::measure(&step, client, &settings, &Progress::default()).await?;
            plans.push((setting, plan.clone()));
            plan
        };
        let warm_ups = super::sweep::warm_up(sweep).iter().filter(|one| **one == setting).count() as u64;
        let totals = seen(&plan.totals, setting, sweep.bound.bytes);
        forecast.add(u64::from(sweep.repeats) + warm_ups, &totals, prices);
    }
    forecast.seconds = forecast.seconds.min(forecast.runs as f64 * sweep.bound.time.as_secs_f64());
    Ok(forecast)
}

/// The part of a plan that one run sees: it ends when enough is written, and then lets what is in flight finish.
fn seen(totals: &Totals, setting: Setting, bound: Option<u64>) -> Totals {
    let all = totals.bytes_changed + totals.bytes_cleared + totals.bytes_joined;
    let most = bound.map_or(all, |bytes| bytes.saturating_add(setting.window * setting.chunk));
    if most >= all {
        return *totals;
    }
    let part = most as f64 / all as f64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of what was counted")]
    let of = |count: u64| (count as f64 * part).ceil() as u64;
    Totals {
        data_extents: of(totals.data_extents),
        clear_extents: of(totals.clear_extents),
        bytes_changed: of(totals.bytes_changed),
        bytes_cleared: of(totals.bytes_cleared),
        bytes_joined: of(totals.bytes_joined),
        data_chunks: of(totals.data_chunks),
        clear_chunks: of(totals.clear_chunks),
        least_seconds: totals.least_seconds * part,
    }
}

impl Forecast {
    fn add(&mut self, runs: u64, totals: &Totals, prices: &PriceTable) {
        let one = Estimate::of(totals, prices, Rate::default());
        let many = runs as f64;
        let beside = runs * REQUESTS_BESIDE;
        self.bytes += runs * (totals.bytes_changed + totals.bytes_joined);
        self.requests += runs * totals.requests() + beside;
        self.seconds += many * one.seconds;
        self.once += many * one.once + beside as f64 / 1e4 * prices.write_per_10k.max(prices.read_per_10k);
        self.per_month_if_it_stays = self.per_month_if_it_stays.max(one.per_month);
    }
}

#[cfg(test)]
mod tests {
    use super::super::knee::tests::at;
    use super::*;

    #[test]
    fn a_run_that_ends_early_takes_its_part_and_what_is_in_flight() {
        let totals =
            Totals { bytes_changed: 1 << 30, data_chunks: 256, data_extents: 1, ..Totals::default() };
        let setting = at(16, 4 << 20);
        assert_eq!(seen(&totals, setting, None), totals);
        assert_eq!(seen(&totals, setting, Some(1 << 40)), totals);
        let part = seen(&totals, setting, Some(192 << 20));
        assert_eq!((part.bytes_changed, part.data_chunks), (256 << 20, 64));
    }

    #[test]
    fn runs_add_up() {
        let totals = Totals { bytes_changed: 1_000_000_000, data_chunks: 250, ..Totals::default() };
        let prices = PriceTable {
            transfer_per_gb: 2.0,
            read_per_10k: 0.0,
            write_per_10k: 0.0,
            storage_per_gb_month: 3.0,
            ..PriceTable::default()
        };
        let mut forecast = Forecast::default();
        forecast.add(3, &totals, &prices);
        forecast.add(1, &totals, &prices);
        assert_eq!((forecast.bytes, forecast.requests), (4_000_000_000, 4 * (500 + REQUESTS_BESIDE)));
        assert!((forecast.once - 8.0).abs() < 1e-9 && (forecast.per_month_if_it_stays - 3.0).abs() < 1e-9);
    }
}
