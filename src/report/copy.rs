//! The report of one real copy.

use jiff::Timestamp;

use crate::measure::Course;

use super::course::{self, Detail};
use super::units::{count, duration, rate, ratio, size};
use super::{limits, markdown, page};

/// What a copy did, as plain facts.
#[derive(Clone, Debug)]
pub struct CopyRun {
    /// The source, without its SAS.
    pub source: String,
    /// What the difference was taken from, without its SAS; `None` when the whole disk was copied.
    pub previous: Option<String>,
    /// The target, without its SAS.
    pub target: String,
    /// The point that was sealed; `None` when none was.
    pub point: Option<String>,
    /// Of snapferry.
    pub version: String,
    /// When it began.
    pub began: Timestamp,
    /// Bytes that were written, zeros and clears not included.
    pub bytes: u64,
    /// Extents of the difference.
    pub extents: u64,
    /// Requests to source and target, every attempt counted.
    pub requests: u64,
    /// Requests that were made again.
    pub retries: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
}

impl CopyRun {
    fn sentence(&self) -> String {
        let speed = ratio(self.bytes as f64, self.seconds);
        let took = duration(self.seconds);
        if self.bytes == 0 {
            return format!("Nothing to write, done in {took}.");
        }
        format!("{} copied in {took}, at {}.", size(self.bytes as f64), rate(speed))
    }

    fn numbers(&self) -> Vec<(String, &'static str)> {
        vec![
            (size(self.bytes as f64), "written"),
            (rate(ratio(self.bytes as f64, self.seconds)), "on average"),
            (duration(self.seconds), "in all"),
            (count(self.extents), "extents"),
            (count(self.requests), "requests"),
            (count(self.retries), "retries"),
        ]
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![("Source", self.source.clone())];
        match &self.previous {
            Some(previous) => facts.push(("Changes since", previous.clone())),
            None => facts.push(("Copied", "the whole disk".to_owned())),
        }
        facts.push(("Target", self.target.clone()));
        if let Some(point) = &self.point {
            facts.push(("Point", point.clone()));
        }
        facts.push(("Began", self.began.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()));
        facts.push(("Version", format!("snapferry {}", self.version)));
        facts
    }
}

/// The page.
pub fn html(run: &CopyRun, course: &Course) -> String {
    let body = page::headline("snapferry · copy", &run.sentence(), &[limits::sentence(&course.limits)])
        + &page::tiles(&run.numbers())
        + &page::facts(&run.facts())
        + &page::section("The course of the copy", "", &course::cards("plot-", course, Detail::Fine));
    page::document("snapferry: a copy", &body)
}

/// The same as text.
pub fn markdown(run: &CopyRun, course: &Course) -> String {
    let mut out = format!("# {}\n\n{}\n\n", run.sentence(), limits::sentence(&course.limits));
    let mut rows = Vec::new();
    for (name, value) in run.facts() {
        rows.push(vec![name.to_owned(), value]);
    }
    for (value, name) in run.numbers() {
        rows.push(vec![name.to_owned(), value]);
    }
    out.push_str(&markdown::table(&["", ""], 2, &rows));
    out.push_str(&markdown::course(course));
    out
}
