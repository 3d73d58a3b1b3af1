//! How sure the rates are: for each mode and pattern its knee (or its best cell), every repeat as a dot, and the
//! interval that the middle lies in. Drawn as parts of the middle, as rates of two patterns differ by hundreds of times and
//! those of one repeat to the next by a few hundredths.

use crate::bench::result::{Cell, Mode, Pattern, Results, Statistic};

use super::page::{self, Width};
use super::plot::{percentage, title_of};
use super::scale::Axis;
use super::units::{Unit, percent, rate, ratio, round_size};

const ROW: usize = 34;
/// What is farther off is drawn at the edge: by then it is sure that nothing is.
const MOST_SHOWN: f64 = 1.0;
const PERCENT: Unit = Unit { name: "%", size: 0.01 };

/// The cells that a reader asks for first: the knee of each mode and pattern, its best cell where it has none.
pub(super) fn chosen(results: &Results) -> Vec<&Cell> {
    let mut chosen = Vec::new();
    for pattern in Pattern::ALL {
        for mode in Mode::ALL {
            let is_ours = |cell: &&Cell| cell.setting.mode == mode && cell.setting.pattern == pattern;
            let knees = results.knees.iter().filter_map(|knee| results.cell(knee.setting));
            let best =
                results.cells.iter().filter(is_ours).max_by(|a, b| a.rate.middle.total_cmp(&b.rate.middle));
            chosen.extend(knees.into_iter().find(is_ours).or(best));
        }
    }
    chosen
}

pub(super) fn card(id: &str, results: &Results) -> String {
    let cells = chosen(results);
    let title = "How sure the rates are";
    if cells.is_empty() {
        let nothing = page::nothing(id, "There is no rate to show.");
        return page::card(Width::Whole, title, "Nothing was measured.", &nothing);
    }
    let mut farthest = 0.0;
    for cell in &cells {
        let repeats = cell.repeats.iter().map(|repeat| repeat.rate);
        for rate in repeats.chain([cell.rate.low, cell.rate.high]) {
            farthest = f64::max(farthest, off(cell, rate).abs());
        }
    }
    let axis = Axis::around_zero(farthest.min(MOST_SHOWN), PERCENT);
    let mut marks = String::new();
    let mut labels = String::new();
    for (value, label) in &axis.ticks {
        let x = percentage(axis.place(*value));
        marks.push_str(&format!(r#"<line class="rule" x1="{x}" x2="{x}" y2="100%"/>"#));
        labels.push_str(&format!(r#"<text class="x" x="{x}" y="100%" dy="1.5em">{label} %</text>"#));
    }
    for (index, cell) in cells.iter().enumerate() {
        let y = percentage((index as f64 + 0.5) / cells.len() as f64);
        marks.push_str(&row(cell, &axis, &y));
        labels.push_str(&format!(
            r#"<text class="y name" y="{y}" dx="-10" dy=".34em">{}, {}</text>"#,
            cell.setting.pattern.name(),
            cell.setting.mode.name()
        ));
        // At the right edge of the card, where the style sheet leaves room for it.
        labels.push_str(&format!(
            r#"<svg class="aside" x="100%" y="{y}"><text class="rate" dy=".34em">{}</text></svg>"#,
            rate(cell.rate.middle)
        ));
    }
    let svg = format!(
        concat!(
            r#"<div class="frame named"><svg class="plot" id="{id}" role="img" aria-label="Rates with their intervals" "#,
            r#"height="{height}"><g class="marks">{marks}</g><g class="labels">{labels}</g></svg></div>"#,
            "\n"
        ),
        id = id,
        height = cells.len() * ROW,
        marks = marks,
        labels = labels,
    );
    let statistic = match results.statistic {
        Statistic::Mean => "mean",
        Statistic::Median => "median",
    };
    let caption = format!(
        "Around the {statistic} of each knee: its {} confidence interval as a bar, and every repeat as a faint dot.",
        percent(results.confidence)
    );
    let key = page::key("off the middle", &[("of-source", "stream"), ("of-target", "server")]);
    page::card(Width::Whole, title, &caption, &(key + &svg))
}

/// How far a rate is off the middle of its cell, as a part of it.
fn off(cell: &Cell, rate: f64) -> f64 {
    ratio(rate - cell.rate.middle, cell.rate.middle)
}

fn row(cell: &Cell, axis: &Axis, y: &str) -> String {
    let class = match cell.setting.mode {
        Mode::Stream => "of-source",
        Mode::Server => "of-target",
    };
    let x = |rate: f64| percentage(axis.place(off(cell, rate)));
    let mut out = format!(
        r#"<line class="whisker {class}" x1="{}" x2="{}" y1="{y}" y2="{y}"/>"#,
        x(cell.rate.low),
        x(cell.rate.high)
    );
    for repeat in &cell.repeats {
        out.push_str(&format!(r#"<circle class="repeat {class}" cx="{}" cy="{y}" r="4"/>"#, x(repeat.rate)));
    }
    let told = format!(
        "{} in flight of {}\n{} ({} to {})\n{} repeats",
        cell.setting.window,
        round_size(cell.setting.chunk),
        rate(cell.rate.middle),
        rate(cell.rate.low),
        rate(cell.rate.high),
        cell.repeats.len()
    );
    let (x, title) = (x(cell.rate.middle), title_of(&told));
    out + &format!(r#"<circle class="dot {class}" cx="{x}" cy="{y}" r="5">{title}</circle>"#)
}
