//! What reports have in common as Markdown: tables, and a course without its plots.

use crate::measure::{Course, Latency};

use super::limits;
use super::slots::cut;
use super::units::{NO_NUMBER, count, percent, rate, ratio, shortened, significant};

/// A name as text: nothing in it is taken for markup, and it stays on its line.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in shortened(text).chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '~' | '#' | '!' => {
                out.push('\\');
                out.push(character);
            }
            control if control.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

/// A table; all columns from `numbers_from` on are aligned to the right. Texts are escaped here.
pub(super) fn table(heads: &[&str], numbers_from: usize, rows: &[Vec<String>]) -> String {
    let mut out = line(heads.iter().map(|head| escape(head)));
    out.push_str(&line((0..heads.len()).map(|column| {
        let rule = if column < numbers_from { "---" } else { "---:" };
        rule.to_owned()
    })));
    for row in rows {
        out.push_str(&line(row.iter().map(|text| escape(text))));
    }
    out.push('\n');
    out
}

fn line(cells: impl Iterator<Item = String>) -> String {
    let mut out = String::from("|");
    for cell in cells {
        out.push(' ');
        out.push_str(&cell);
        out.push_str(" |");
    }
    out + "\n"
}

/// A course: its throughput as one line of blocks, what limited it, and latencies.
pub(super) fn course(course: &Course) -> String {
    let mut out = throughput(course);
    let mut rows = Vec::new();
    for share in &course.limits {
        let meaning = limits::meaning(share.limit).to_owned();
        rows.push(vec![limits::name(share.limit).to_owned(), meaning, percent(share.part)]);
    }
    if !rows.is_empty() {
        out.push_str("## What limited it\n\n");
        out.push_str(&table(&["limit", "", "part of the time"], 2, &rows));
    }
    out.push_str("## Latency in milliseconds\n\n");
    out + &table(
        &["", "count", "mean", "p50", "p90", "p99", "p99.9", "max"],
        1,
        &[latency("reads", &course.reads), latency("writes", &course.writes)],
    )
}

fn latency(name: &str, latency: &Latency) -> Vec<String> {
    let mut row = vec![name.to_owned(), count(latency.count)];
    for value in [latency.mean, latency.p50, latency.p90, latency.p99, latency.p999, latency.max] {
        row.push(if latency.count > 0 { significant(value) } else { NO_NUMBER.to_owned() });
    }
    row
}

/// As many columns as fit beside a text.
const COLUMNS: u32 = 60;
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

fn throughput(course: &Course) -> String {
    let slots = cut(course, course.samples.len());
    let Some(last) = slots.last() else { return String::new() };
    let mut means = Vec::new();
    for column in 0..COLUMNS {
        let from = last.to * f64::from(column) / f64::from(COLUMNS);
        let to = last.to * f64::from(column + 1) / f64::from(COLUMNS);
        let mut bytes = 0.0;
        for slot in &slots {
            let seconds = (slot.to.min(to) - slot.from.max(from)).max(0.0);
            bytes += slot.bytes_done * seconds;
        }
        means.push(ratio(bytes, to - from));
    }
    let most = means.iter().fold(0.0, |most: f64, mean| most.max(*mean));
    let mut drawn = String::new();
    for mean in means {
        drawn.push(HEIGHTS[height(ratio(mean, most))]);
    }
    format!("## Throughput\n\n`{drawn}`\n\nFrom left to right over time; a full block is {}.\n\n", rate(most))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of one of a few heights")]
fn height(part: f64) -> usize {
    let highest = HEIGHTS.len() - 1;
    ((part * highest as f64).round() as usize).min(highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_its_cell() {
        let text = table(&["a"], 1, &[vec!["x|y\n<script>`*".to_owned()]]);
        assert_eq!(text, "| a |\n| --- |\n| x\\|y &lt;script&gt;\\`\\* |\n\n");
    }
}
