//! What `sync --dry-run` shows: every step with its bytes, requests, time and money.

use std::time::Duration;

use serde_json::json;

use super::output::size;
use crate::chain::outline::Outline;
use crate::price::{Estimate, PriceTable, Rate};
use crate::sync::{Forecast, Outlook};

/// A dry run with what it would cost.
pub(super) struct Table<'a> {
    pub(super) forecasts: &'a [Forecast],
    /// All steps, where only the newest is wanted.
    pub(super) others: Option<&'a [Forecast]>,
    pub(super) prices: &'a PriceTable,
    pub(super) rate: Rate,
}

impl Table<'_> {
    fn estimate(&self, forecasts: &[Forecast]) -> (u64, u64, Estimate) {
        let mut sum = (0, 0, Estimate::default());
        for forecast in forecasts {
            sum.0 += forecast.plan.bytes_to_read;
            sum.1 += forecast.plan.requests_planned;
            sum.2 += Estimate::of(&forecast.plan.totals, self.prices, self.rate);
        }
        sum
    }

    pub(super) fn document(&self, outlook: &Outlook) -> serde_json::Value {
        let whole = |forecasts: &[Forecast]| {
            let (bytes, requests, estimate) = self.estimate(forecasts);
            json!({ "bytes_to_read": bytes, "requests_planned": requests, "estimate": estimate })
        };
        json!({
            "kind": "sync-plan",
            "disk": outlook.chain.disk,
            "target": outlook.target.to_string(),
            "steps": self.forecasts.iter().map(|forecast| {
                let estimate = Estimate::of(&forecast.plan.totals, self.prices, self.rate);
                json!({ "step": forecast, "estimate": estimate })
            }).collect::<Vec<_>>(),
            "total": whole(self.forecasts),
            "without_skipping": self.others.map(whole),
            "skipped": outlook.outline.skipped.iter().map(|snapshot| &snapshot.id).collect::<Vec<_>>(),
            "left_out": outlook.chain.left_out,
            "waiting": outlook.outline.waiting.as_ref().map(|snapshot| &snapshot.id),
            "keep": outlook.at.keep(&outlook.chain).map(|snapshot| &snapshot.id),
            "prices": self.prices,
            "rate": self.rate,
        })
    }

    pub(super) fn text(&self, outlook: &Outlook) -> String {
        let mut lines = vec![format!("target        {}", outlook.target)];
        for (planned, forecast) in outlook.outline.steps.iter().zip(self.forecasts) {
            let estimate = Estimate::of(&forecast.plan.totals, self.prices, self.rate);
            lines.push(format!(
                "to copy       {:<24} {:<28} {:>10} in {} requests, {}, {:.4} {}",
                planned.to.id.name(),
                planned.from.as_ref().map_or_else(
                    || if planned.rebase { "whole, anew".to_owned() } else { "whole".to_owned() },
                    |from| format!("from {}", from.id.name())
                ),
                size(forecast.plan.bytes_to_read),
                forecast.plan.requests_planned,
                duration(estimate.seconds),
                estimate.once,
                self.prices.currency,
            ));
            if let Some(offset) = forecast.plan.resumes_from {
                lines.push(format!("              taken up at byte {offset} of {}", forecast.plan.length));
            }
        }
        if let Some(keep) = outlook.at.keep(&outlook.chain) {
            lines.push(format!("keep          {}", keep.id));
        }
        lines.extend(outlined(&outlook.outline).into_iter().filter(|line| !line.starts_with("to copy")));
        if self.forecasts.is_empty() && outlook.outline.waiting.is_none() {
            lines.push("up to date    nothing to copy".to_owned());
        } else {
            lines.push(self.total("in all", self.forecasts));
        }
        if let Some(others) = self.others {
            lines.push(self.total("unskipped", others));
            let (bytes, _, estimate) = self.estimate(self.forecasts);
            let (all, _, whole) = self.estimate(others);
            lines.push(format!(
                "skipping      saves {} and {:.4} {}",
                size(all.saturating_sub(bytes)),
                (whole.once - estimate.once).max(0.0),
                self.prices.currency
            ));
        }
        lines.push(format!(
            "counted with  {}/s, {} requests/s; prices: {}",
            size(self.rate.bytes_per_second),
            self.rate.requests_per_second,
            self.prices.source
        ));
        lines.join("\n")
    }

    fn total(&self, name: &str, forecasts: &[Forecast]) -> String {
        let (bytes, requests, estimate) = self.estimate(forecasts);
        format!(
            "{name:<13} {} in {requests} requests, {}, {:.4} {}, then at most {:.4} a month",
            size(bytes),
            duration(estimate.seconds),
            estimate.once,
            self.prices.currency,
            estimate.per_month
        )
    }
}

fn duration(seconds: f64) -> String {
    let rounded = Duration::try_from_secs_f64(seconds.ceil()).unwrap_or(Duration::MAX);
    humantime::format_duration(rounded).to_string()
}

/// An outline, a line each.
pub(super) fn outlined(outline: &Outline) -> Vec<String> {
    let steps = outline.steps.iter().map(|step| {
        let how = match (&step.from, step.rebase) {
            (Some(from), _) => format!("as a difference from {}", from.id.name()),
            (None, true) => "whole, anew in the same blob".to_owned(),
            (None, false) => "whole".to_owned(),
        };
        format!("to copy       {} {how}", step.to.id.name())
    });
    let skipped = outline.skipped.iter().map(|snapshot| format!("skipped       {}", snapshot.id.name()));
    let waiting = outline.waiting.iter().map(|snapshot| {
        format!(
            "not ready     {} ({} %)",
            snapshot.id.name(),
            snapshot.completion_percent.unwrap_or_default()
        )
    });
    steps.chain(skipped).chain(waiting).collect()
}
