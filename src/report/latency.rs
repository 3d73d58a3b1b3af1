//! How long requests took: percentiles as two lines on a logarithmic axis, and the numbers below them.

use crate::measure::Latency;

use super::page::{self, Width};
use super::plot::Plot;
use super::scale::Axis;
use super::units::{NO_NUMBER, Unit, count, milliseconds, significant};

const NAMES: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];
const TITLE: &str = "Latency";
/// Room before the first percentile and after the last, in distances between them.
const MARGIN: f64 = 0.4;

fn values(latency: &Latency) -> [f64; 5] {
    [latency.p50, latency.p90, latency.p99, latency.p999, latency.max]
}

/// Reads and writes; what was never asked for is left out.
pub(super) fn card(id: &str, reads: &Latency, writes: &Latency) -> String {
    let mut kinds = Vec::new();
    for (class, name, latency) in [("of-source", "reads", reads), ("of-target", "writes", writes)] {
        if latency.count > 0 {
            kinds.push((class, name, latency));
        }
    }
    let all: Vec<f64> = kinds
        .iter()
        .flat_map(|(_, _, latency)| values(latency))
        .filter(|value| value.is_finite() && *value > 0.0)
        .collect();
    if all.is_empty() {
        let nothing = page::nothing(id, "No request succeeded, so none was timed.");
        return page::card(Width::Half, TITLE, "How long requests took.", &nothing);
    }
    let largest = all.iter().fold(0.0, |most: f64, value| most.max(*value));
    let smallest = all.iter().fold(largest, |least, value| least.min(*value));
    let unit =
        if largest >= 10_000.0 { Unit { name: "s", size: 1000.0 } } else { Unit { name: "ms", size: 1.0 } };
    let mut plot = Plot::new(
        id.to_owned(),
        "Latency of reads and writes by percentile",
        218,
        Axis::named(&NAMES, MARGIN),
        Axis::logarithmic(smallest, largest, unit),
    );
    for (class, name, latency) in &kinds {
        let values = values(latency);
        let points: Vec<(f64, f64)> =
            values.iter().enumerate().map(|(x, value)| (x as f64, *value)).collect();
        plot.line(class, &points);
        for (x, value) in values.into_iter().enumerate() {
            plot.dot(class, 3.5, x as f64, value, &format!("{name}, {}\n{}", NAMES[x], milliseconds(value)));
        }
    }
    let keys: Vec<(&str, &str)> = kinds.iter().map(|(class, name, _)| (*class, *name)).collect();
    let content = page::key(unit.name, &keys) + &plot.svg() + &numbers(reads, writes);
    page::card(Width::Half, TITLE, &caption(reads, writes), &content)
}

fn caption(reads: &Latency, writes: &Latency) -> String {
    let mut parts = Vec::new();
    for (name, latency) in [("reads", reads), ("writes", writes)] {
        if latency.count > 0 {
            let (half, most) = (milliseconds(latency.p50), milliseconds(latency.p99));
            parts.push(format!("half of the {name} took at most {half}, 99 of 100 at most {most}"));
        }
    }
    let text = parts.join("; ");
    // The only letter that it can begin with.
    text.strip_prefix('h').map_or(text.clone(), |rest| format!("H{rest}."))
}

/// The numbers behind the lines, in milliseconds.
fn numbers(reads: &Latency, writes: &Latency) -> String {
    let mut rows = Vec::new();
    for (name, latency) in [("reads", reads), ("writes", writes)] {
        let mut row = vec![name.to_owned(), count(latency.count)];
        let is_known = latency.count > 0;
        for value in std::iter::once(latency.mean).chain(values(latency)) {
            row.push(if is_known { significant(value) } else { NO_NUMBER.to_owned() });
        }
        rows.push(row);
    }
    page::table(&["ms", "count", "mean", "p50", "p90", "p99", "p99.9", "max"], 1, &rows)
}

/// The median and the 99th percentile for a table, in milliseconds.
pub(super) fn half_and_most(latency: &Latency) -> String {
    if latency.count == 0 {
        return NO_NUMBER.to_owned();
    }
    format!("{} / {}", significant(latency.p50), significant(latency.p99))
}
