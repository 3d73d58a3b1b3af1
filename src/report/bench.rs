//! The report of a benchmark.

use crate::bench::result::{Cell, Results, Setting};

use super::course::{self, Detail};
use super::latency::half_and_most;
use super::spread::chosen;
use super::units::{count, duration, percent, rate, round_size, significant};
use super::{limits, markdown, page, spread, surface};

/// The most rows of the table of cells: what is left out stands in the JSON document.
const MOST_ROWS: usize = 400;
/// The most sentences of advice: more than that is none.
const MOST_ADVICE: usize = 10;
/// The most courses that are drawn: one for each mode and pattern.
const MOST_COURSES: usize = 8;

const HEADS: [&str; 13] = [
    "pattern",
    "mode",
    "limit",
    "window",
    "chunk",
    "rate",
    "from",
    "to",
    "requests/s",
    "refused",
    "CPU s/GiB",
    "reads ms",
    "writes ms",
];

/// The page.
pub fn html(results: &Results) -> String {
    let mut body =
        page::headline("snapferry · benchmark", &results.verdict.sentence, &results.verdict.advice);
    body.push_str(&page::tiles(&numbers(results)));
    body.push_str(&page::facts(&facts(results)));
    body.push_str(&page::section(
        "The sweep",
        "Rates by chunks in flight (upwards) and chunk size (to the right). Colours are shared by the modes of a pattern.",
        &(surface::cards(results) + &spread::card("plot-rates", results)),
    ));
    body.push_str(&courses(results));
    body.push_str(&page::section("Every setting", "", &table_card(results)));
    page::document("snapferry: a benchmark", &body)
}

/// The same as text.
pub fn markdown(results: &Results) -> String {
    let mut out = format!("# {}\n\n", markdown::escape(&results.verdict.sentence));
    for advice in advice(results) {
        out.push_str(&format!("- {}\n", markdown::escape(advice)));
    }
    out.push('\n');
    let mut rows = Vec::new();
    for (name, value) in facts(results) {
        rows.push(vec![name.to_owned(), value]);
    }
    for (value, name) in numbers(results) {
        rows.push(vec![name.to_owned(), value]);
    }
    out.push_str(&markdown::table(&["", ""], 2, &rows));
    out.push_str("## Knees\n\n");
    out.push_str(&markdown::table(&HEADS, 3, &chosen(results).into_iter().map(row).collect::<Vec<_>>()));
    if let Some(course) = best(results).and_then(|cell| cell.course.as_ref()) {
        out.push_str(&markdown::course(course));
    }
    out.push_str("## Every setting\n\n");
    let cells = shown(results);
    out.push_str(&markdown::table(&HEADS, 3, &cells.iter().map(|cell| row(cell)).collect::<Vec<_>>()));
    out.push_str(&left_out(results, cells.len()));
    out.push('\n');
    out
}

fn advice(results: &Results) -> &[String] {
    let advice = &results.verdict.advice;
    &advice[..advice.len().min(MOST_ADVICE)]
}

fn best(results: &Results) -> Option<&Cell> {
    results.verdict.best.and_then(|setting| results.cell(setting))
}

fn numbers(results: &Results) -> Vec<(String, &'static str)> {
    let Some(best) = best(results) else {
        return vec![(count(results.cells.len() as u64), "settings measured")];
    };
    vec![
        (rate(best.rate.middle), "best setting"),
        (best.setting.window.to_string(), "chunks in flight"),
        (round_size(best.setting.chunk), "chunk size"),
        (percent(best.refused), "refused (503)"),
        (format!("{} s/GiB", significant(best.cpu_per_gib)), "processor"),
        (count(results.cells.len() as u64), "settings measured"),
    ]
}

fn facts(results: &Results) -> Vec<(&'static str, String)> {
    let environment = &results.environment;
    let cores =
        if environment.cores == 1 { "1 core".to_owned() } else { format!("{} cores", environment.cores) };
    let mut facts = vec![("Source", results.source.clone()), ("Target", results.target.clone())];
    if environment.emulated {
        facts.push((
            "Service",
            "the built-in emulator: rates say what this machine can do, not what Azure does".into(),
        ));
    }
    facts.push(("Machine", format!("{cores}, {} {}", environment.os, environment.arch)));
    facts.push(("Measured", environment.date.strftime("%Y-%m-%d %H:%M UTC").to_string()));
    facts.push(("Took", duration(environment.seconds)));
    facts.push(("Version", format!("snapferry {}", environment.version)));
    facts
}

/// The course of the best setting for all to see, those of the other knees to be opened.
fn courses(results: &Results) -> String {
    let best = best(results);
    let mut out = String::new();
    if let Some((cell, course)) = best.and_then(|cell| Some((cell, cell.course.as_ref()?))) {
        let sentence = format!("The repeat with the middle rate of {}.", told(cell.setting));
        out.push_str(&page::section(
            "The course of the best setting",
            &sentence,
            &course::cards("plot-", course, Detail::Fine),
        ));
    }
    let others = results.cells.iter().filter(|cell| Some(cell.setting) != best.map(|best| best.setting));
    let others = others.filter_map(|cell| Some((cell.setting, cell.course.as_ref()?)));
    for (index, (setting, course)) in others.take(MOST_COURSES - 1).enumerate() {
        out.push_str(&format!(
            "<details>\n<summary>The course of {}</summary>\n<div class=\"cards\">\n{}</div>\n</details>\n",
            page::sentence(&told(setting)),
            course::cards(&format!("other{}-", index + 1), course, Detail::Coarse)
        ));
    }
    out
}

fn told(setting: Setting) -> String {
    format!(
        "{}, {}, {} in flight of {}",
        setting.pattern.name(),
        setting.mode.name(),
        setting.window,
        round_size(setting.chunk)
    )
}

/// The cells in the table: all of them, or the fastest.
fn shown(results: &Results) -> Vec<&Cell> {
    let mut cells: Vec<&Cell> = results.cells.iter().collect();
    if cells.len() > MOST_ROWS {
        cells.sort_by(|a, b| b.rate.middle.total_cmp(&a.rate.middle));
        cells.truncate(MOST_ROWS);
    }
    cells.sort_by_key(|cell| {
        (cell.setting.pattern, cell.setting.mode, cell.setting.chunk, cell.setting.window)
    });
    cells
}

fn left_out(results: &Results, shown: usize) -> String {
    if shown == results.cells.len() {
        return format!(
            "All {} settings; latencies are those that half of the requests and 99 of 100 kept to.",
            count(shown as u64)
        );
    }
    format!(
        "The fastest {} of {} settings; the JSON document has all of them. Latencies are those that half of the requests and 99 of 100 kept to.",
        count(shown as u64),
        count(results.cells.len() as u64)
    )
}

fn row(cell: &Cell) -> Vec<String> {
    let limit = cell.limits.first().map_or("", |share| limits::name(share.limit));
    vec![
        cell.setting.pattern.name().to_owned(),
        cell.setting.mode.name().to_owned(),
        limit.to_owned(),
        count(cell.setting.window),
        round_size(cell.setting.chunk),
        rate(cell.rate.middle),
        rate(cell.rate.low),
        rate(cell.rate.high),
        significant(cell.requests_per_second),
        percent(cell.refused),
        significant(cell.cpu_per_gib),
        half_and_most(&cell.reads),
        half_and_most(&cell.writes),
    ]
}

fn table_card(results: &Results) -> String {
    let cells = shown(results);
    let rows: Vec<Vec<String>> = cells.iter().map(|cell| row(cell)).collect();
    let table = page::table(&HEADS, 3, &rows);
    page::card(page::Width::Whole, "All numbers", &left_out(results, cells.len()), &table)
}
