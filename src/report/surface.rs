//! The sweep as heat maps: one for each mode and pattern, window over chunk size, with the knee marked.

use crate::bench::result::{Cell, Mode, Pattern, Results, Setting};

use super::page::{self, Width};
use super::plot::{percentage, title_of};
use super::units::{escape, percent, rate, rate_unit, ratio, round_size, significant};

/// Strengths of colour.
const LEVELS: usize = 9;
/// More columns than this leave no room for a number in a cell.
const MOST_NUMBERED: usize = 8;
/// More cells than this, in all maps, are not told of one by one while they are pointed at: the page would get too large.
const MOST_POINTED_AT: usize = 1200;

/// All heat maps that there are cells for.
pub(super) fn cards(results: &Results) -> String {
    let mut out = String::new();
    for pattern in Pattern::ALL {
        // Modes are to be held against each other, so they share their colours; patterns differ by hundreds of times.
        let highest = results
            .cells
            .iter()
            .filter(|cell| cell.setting.pattern == pattern && cell.rate.middle.is_finite())
            .fold(0.0, |most: f64, cell| most.max(cell.rate.middle));
        for mode in Mode::ALL {
            let cells: Vec<&Cell> = results
                .cells
                .iter()
                .filter(|cell| cell.setting.pattern == pattern && cell.setting.mode == mode)
                .collect();
            if !cells.is_empty() {
                out.push_str(&Surface { results, mode, pattern, cells, highest }.card());
            }
        }
    }
    out
}

struct Surface<'a> {
    results: &'a Results,
    mode: Mode,
    pattern: Pattern,
    cells: Vec<&'a Cell>,
    highest: f64,
}

impl Surface<'_> {
    fn knee(&self) -> Option<Setting> {
        let is_ours = |setting: Setting| setting.mode == self.mode && setting.pattern == self.pattern;
        self.results.knees.iter().map(|knee| knee.setting).find(|setting| is_ours(*setting))
    }

    fn card(&self) -> String {
        let windows = steps(&self.cells, |setting| setting.window);
        let chunks = steps(&self.cells, |setting| setting.chunk);
        let unit = rate_unit(self.highest);
        let (columns, rows) = (chunks.len() as f64, windows.len() as f64);
        let is_numbered = chunks.len() <= MOST_NUMBERED && windows.len() <= 16;
        let is_pointed_at = self.results.cells.len() <= MOST_POINTED_AT;
        let knee = self.knee();

        // Every cell's place, as a column and a row; the widest window is on top.
        let place = |setting: Setting| {
            let find = |steps: &[u64], value: u64| steps.iter().position(|step| *step == value).unwrap_or(0);
            (find(&chunks, setting.chunk), windows.len() - 1 - find(&windows, setting.window))
        };
        let mut paths = [const { String::new() }; LEVELS];
        let mut numbers = String::new();
        let mut hits = String::new();
        let mut mark = String::new();
        for cell in &self.cells {
            let (column, row) = place(cell.setting);
            let (x, y) = (column as f64 / columns, row as f64 / rows);
            let level = level(cell.rate.middle, self.highest);
            paths[level].push_str(&format!("M{column} {row}h1v1h-1z"));
            let bounds = format!(
                r#"x="{}" y="{}" width="{}" height="{}""#,
                percentage(x),
                percentage(y),
                percentage(1.0 / columns),
                percentage(1.0 / rows)
            );
            if is_numbered {
                numbers.push_str(&format!(
                    r#"<text class="t{level}" x="{}" y="{}" dy=".34em">{}</text>"#,
                    percentage(x + 0.5 / columns),
                    percentage(y + 0.5 / rows),
                    escape(&significant(ratio(cell.rate.middle, unit.size)))
                ));
            }
            if is_pointed_at {
                hits.push_str(&format!("<rect {bounds}>{}</rect>", title_of(&described(cell))));
            }
            if knee == Some(cell.setting) {
                mark = format!(r#"<rect class="knee-edge" {bounds}/><rect class="knee" {bounds}/>"#);
            }
        }
        let mut cells = String::new();
        for (level, path) in paths.iter().enumerate() {
            if !path.is_empty() {
                cells.push_str(&format!(r#"<path class="q{level}" d="{path}"/>"#));
            }
        }

        let id = format!("plot-sweep-{}-{}", self.mode.name(), self.pattern.name());
        let label =
            format!("Rate by window and chunk size, mode {}, {}", self.mode.name(), self.pattern.name());
        let height = (windows.len() * if is_numbered { 30 } else { 10 }).clamp(60, 420);
        let svg = format!(
            concat!(
                r#"<div class="frame heat"><svg class="plot" id="{id}" role="img" aria-label="{label}" height="{height}">"#,
                r#"<svg class="cells" width="100%" height="100%" viewBox="0 0 {columns} {rows}" preserveAspectRatio="none">"#,
                r#"{cells}</svg><g class="numbers">{numbers}</g><g class="labels">{labels}</g>{mark}"#,
                r#"<g class="hits">{hits}</g></svg></div>"#,
                "\n"
            ),
            id = id,
            label = label,
            height = height,
            columns = columns,
            rows = rows,
            cells = cells,
            numbers = numbers,
            labels = labels(&windows, &chunks),
            mark = mark,
            hits = hits,
        );
        let content = ramp(unit.name, self.highest, knee.is_some()) + &svg;
        let title = format!("{}, {}", capital(self.pattern.name()), self.mode.name());
        page::card(Width::Half, &title, &self.caption(knee), &content)
    }

    fn caption(&self, knee: Option<Setting>) -> String {
        let best = self.cells.iter().max_by(|a, b| a.rate.middle.total_cmp(&b.rate.middle));
        let Some(best) = best else { return String::new() };
        let at = |setting: Setting| format!("{} in flight of {}", setting.window, round_size(setting.chunk));
        let rates = format!("The best is {} with {}", rate(best.rate.middle), at(best.setting));
        let of_best = knee
            .and_then(|knee| self.results.cell(knee))
            .map(|cell| ratio(cell.rate.middle, best.rate.middle));
        match (knee, of_best) {
            (Some(knee), _) if knee == best.setting => format!("{rates}, which is the knee, too."),
            (Some(knee), Some(part)) => {
                format!("{rates}; the knee, {}, has {} of it.", at(knee), percent(part))
            }
            _ => format!("{rates}."),
        }
    }
}

/// Every value that occurs, in order.
fn steps(cells: &[&Cell], value: fn(&Setting) -> u64) -> Vec<u64> {
    let mut steps: Vec<u64> = cells.iter().map(|cell| value(&cell.setting)).collect();
    steps.sort_unstable();
    steps.dedup();
    steps
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of one of a few levels")]
fn level(value: f64, highest: f64) -> usize {
    let part = ratio(value, highest).clamp(0.0, 1.0);
    ((part * LEVELS as f64) as usize).min(LEVELS - 1)
}

fn described(cell: &Cell) -> String {
    let limit = cell.limits.first().map_or("Unknown", |share| super::limits::name(share.limit));
    format!(
        "{} in flight of {}\n{} ({} to {})\nrefused {}, limit: {limit}",
        cell.setting.window,
        round_size(cell.setting.chunk),
        rate(cell.rate.middle),
        rate(cell.rate.low),
        rate(cell.rate.high),
        percent(cell.refused)
    )
}

/// At most sixteen labels an axis, evenly chosen.
fn labels(windows: &[u64], chunks: &[u64]) -> String {
    let mut out = String::new();
    for (index, window) in windows.iter().enumerate() {
        if (windows.len() - 1 - index).is_multiple_of(windows.len().div_ceil(16)) {
            let y = percentage(1.0 - (index as f64 + 0.5) / windows.len() as f64);
            out.push_str(&format!(r#"<text class="y" y="{y}" dx="-8" dy=".34em">{window}</text>"#));
        }
    }
    for (index, chunk) in chunks.iter().enumerate() {
        if index.is_multiple_of(chunks.len().div_ceil(MOST_NUMBERED)) {
            let x = percentage((index as f64 + 0.5) / chunks.len() as f64);
            // Two lines, as eight sizes do not fit beside each other on a phone.
            let size = round_size(*chunk);
            let (number, unit) = size.split_once(' ').unwrap_or((&size, ""));
            out.push_str(&format!(
                r#"<text class="x" y="100%"><tspan x="{x}" dy="1.4em">{number}</tspan><tspan x="{x}" dy="1.15em">{unit}</tspan></text>"#
            ));
        }
    }
    out
}

/// What the colours mean.
fn ramp(unit: &str, highest: f64, has_knee: bool) -> String {
    let mut swatches = String::new();
    for level in 0..LEVELS {
        swatches.push_str(&format!(r#"<i class="ramp q{level}"></i>"#));
    }
    let knee = if has_knee { r#"<span><i class="knee-key"></i>knee</span>"# } else { "" };
    format!(
        "<div class=\"key\"><span class=\"unit\">window × chunk</span>{knee}<span class=\"tight\">0{swatches}{}</span></div>\n",
        escape(&if highest > 0.0 { rate(highest) } else { unit.to_owned() })
    )
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
