//! A benchmark and a comparison as text for people.

use super::output::size;
use crate::bench::compare::{Comparison, DRIFT, told};
use crate::bench::estimate::Forecast;
use crate::bench::result::{Cell, Interval, Results, Setting};
use crate::measure::{Latency, Limit};
use crate::price::PriceTable;

const MIB: f64 = 1_048_576.0;

/// The cells, the knees and the verdict.
pub(super) fn results(results: &Results) -> String {
    let mut rows = vec![
        [
            "",
            "PATTERN",
            "MODE",
            "WINDOW",
            "CHUNK",
            "MiB/s",
            "95% INTERVAL",
            "REFUSED",
            "CPU s/GiB",
            "READ ms p50/p99",
            "WRITE ms p50/p99",
            "LIMIT",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for cell in &results.cells {
        let is_knee = results.knees.iter().any(|knee| knee.setting == cell.setting);
        rows.push(row(cell, if is_knee { "*" } else { "" }));
    }
    let repeats = results.cells.iter().map(|cell| cell.repeats.len()).max().unwrap_or_default();
    let mut lines = vec![table(&rows, &[0, 1, 2, 11])];
    lines.push(format!(
        "\n* the knee: the smallest window whose rate is within 5% of the best. Medians of {repeats} repeats; intervals by Student's t on logarithms."
    ));
    let peak = results.cells.iter().filter_map(|cell| cell.peak_memory).max();
    if let Some(peak) = peak {
        lines.push(format!("The most memory that a run held: {}.", size(peak)));
    }
    lines.push(format!("\n{}", results.verdict.sentence));
    lines.extend(results.verdict.advice.iter().map(|advice| format!("- {advice}")));
    lines.join("\n")
}

fn row(cell: &Cell, knee: &str) -> Vec<String> {
    let Setting { mode, pattern, window, chunk } = cell.setting;
    let limit = cell.limits.iter().find(|share| share.limit != Limit::Unknown && share.part > 0.1);
    vec![
        knee.to_owned(),
        pattern.name().to_owned(),
        mode.name().to_owned(),
        window.to_string(),
        size(chunk),
        mib(cell.rate.middle),
        if cell.repeats.len() > 1 { between(&cell.rate, mib) } else { "-".to_owned() },
        format!("{:.1}%", cell.refused * 100.0),
        format!("{:.2}", cell.cpu_per_gib),
        latency(&cell.reads),
        latency(&cell.writes),
        limit.map_or_else(
            || "-".to_owned(),
            |share| format!("{} {:.0}%", share.limit.words(), share.part * 100.0),
        ),
    ]
}

fn latency(latency: &Latency) -> String {
    if latency.count == 0 { "-".to_owned() } else { format!("{:.1}/{:.1}", latency.p50, latency.p99) }
}

fn mib(bytes: f64) -> String {
    let mib = bytes / MIB;
    if mib >= 100.0 { format!("{mib:.0}") } else { format!("{mib:.2}") }
}

fn between(interval: &Interval, show: impl Fn(f64) -> String) -> String {
    format!("{} to {}", show(interval.low), show(interval.high))
}

/// One comparison.
pub(super) fn comparison(old: &str, new: &str, compared: &Comparison) -> String {
    let mut lines = vec![format!("{new} against {old}")];
    lines.extend(compared.warnings.iter().map(|warning| format!("warning: {warning}")));
    let mut rows =
        vec![["CELL", "OLD MiB/s", "NEW MiB/s", "RATIO", "INTERVAL", ""].map(str::to_owned).to_vec()];
    for cell in &compared.cells {
        rows.push(vec![
            told(cell.setting),
            mib(cell.old),
            mib(cell.new),
            format!("{:.3}", cell.of_old),
            cell.ratio
                .as_ref()
                .map_or_else(String::new, |ratio| between(ratio, |ratio| format!("{ratio:.3}"))),
            cell.word.text().to_owned(),
        ]);
    }
    if let Some(overall) = &compared.overall {
        rows.push(vec![
            "all together".to_owned(),
            String::new(),
            String::new(),
            format!("{:.3}", overall.ratio.middle),
            between(&overall.ratio, |ratio| format!("{ratio:.3}")),
            overall.word.text().to_owned(),
        ]);
    }
    lines.push(table(&rows, &[0, 5]));
    lines.push(format!(
        "Ratios of medians, new in terms of old. The intervals of all cells hold together with {:.0}%, that of the last line with {:.0}%;\nthey allow for {:.0}% by which two benchmarks of one program differ anyway.",
        compared.confidence * 100.0,
        compared.confidence * 100.0,
        DRIFT * 100.0
    ));
    if compared.only_old + compared.only_new > 0 {
        lines.push(format!(
            "Not compared: {} cells that only the old one has, {} that only the new one has.",
            compared.only_old, compared.only_new
        ));
    }
    lines.join("\n")
}

/// What is going to be run, and what that takes.
pub(super) fn plan(cells: &[Setting], runs: u64, forecast: Option<(&Forecast, &PriceTable)>) -> String {
    let mut lines =
        vec![format!("cells         {} settings, {runs} runs, in an order that --seed decides", cells.len())];
    lines.extend(cells.iter().map(|setting| format!("              {}", told(*setting))));
    match forecast {
        Some((forecast, prices)) => lines.push(cost(forecast, prices)),
        None => lines.push("cost          nothing: the regions are emulated on this machine".to_owned()),
    }
    lines.join("\n")
}

/// What a benchmark on real URLs takes.
pub(super) fn cost(forecast: &Forecast, prices: &PriceTable) -> String {
    let Forecast { runs, bytes, requests, once, per_month_if_it_stays, seconds } = forecast;
    let minutes = (seconds / 60.0).ceil().max(1.0);
    format!(
        "takes         at most {} across the region's border in {runs} runs, about {requests} requests, {minutes:.0} min and more where the way is long\ncosts         at most {once:.4} {currency}; what it writes is deleted at the end (one blob left behind: {per_month_if_it_stays:.4} {currency} a month)\ncounted with  prices: {}",
        size(*bytes),
        prices.source,
        currency = prices.currency,
    )
}

/// Columns side by side; those in `left` begin at the left, numbers end at the right.
fn table(rows: &[Vec<String>], left: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut lines = Vec::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column > 0 {
                line.push_str("  ");
            }
            let padded =
                if left.contains(&column) { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
            line.push_str(&padded);
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}
