//! The report of one real copy.

use jiff::Timestamp;
use serde::Serialize;

use crate::azure::{DOCUMENTED_BYTES_PER_SECOND, DOCUMENTED_REQUESTS_PER_SECOND};
use crate::measure::Course;
use crate::step::Mode;

use super::course::{self, Detail};
use super::units::{count, duration, rate, ratio, significant, size};
use super::{limits, markdown, page};

/// What a copy did, as plain facts.
#[derive(Clone, Debug, Serialize)]
pub struct CopyRun {
    /// The source, without its SAS.
    pub source: String,
    /// What of it was to be copied, such as `the whole disk`; without a SAS.
    pub copied: String,
    /// The target, without its SAS.
    pub target: String,
    /// The point that was sealed; `None` when none was.
    pub point: Option<String>,
    /// Who moved the bytes; `None` where there were none to move, or nobody can tell.
    pub mode: Option<Mode>,
    /// Why they went through this machine, though the service was asked to move them.
    pub fell_back: Option<String>,
    /// Why it ended before it was done.
    pub error: Option<String>,
    /// Of snapferry.
    pub version: String,
    /// When it began.
    pub began: Timestamp,
    /// Bytes that were written, zeros and clears not included.
    pub bytes: u64,
    /// Extents of the difference, where all are known.
    pub extents: Option<u64>,
    /// The least time, in seconds, in which a page blob takes what was copied at its documented rates, whichever gaps are
    /// joined; where all extents are known.
    pub least_seconds: Option<f64>,
    /// Requests to source and target, every attempt counted.
    pub requests: u64,
    /// Requests that were made again.
    pub retries: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
}

impl CopyRun {
    fn sentence(&self) -> String {
        if self.error.is_some() {
            return format!("Not done: it ended after {took}.", took = duration(self.seconds));
        }
        let speed = ratio(self.bytes as f64, self.seconds);
        let took = duration(self.seconds);
        if self.bytes == 0 {
            return format!("Nothing to write, done in {took}.");
        }
        format!("{} copied in {took}, at {}.", size(self.bytes as f64), rate(speed))
    }

    fn numbers(&self) -> Vec<(String, &'static str)> {
        let mut numbers = vec![
            (size(self.bytes as f64), "written"),
            (rate(ratio(self.bytes as f64, self.seconds)), "on average"),
            (duration(self.seconds), "in all"),
        ];
        if let Some(extents) = self.extents {
            numbers.push((count(extents), "extents"));
        }
        numbers.push((count(self.requests), "requests"));
        numbers.push((count(self.retries), "retries"));
        numbers
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![("Source", self.source.clone())];
        facts.push(("Copied", self.copied.clone()));
        facts.push(("Target", self.target.clone()));
        if let Some(point) = &self.point {
            facts.push(("Point", point.clone()));
        }
        match (self.mode, &self.fell_back) {
            (_, Some(why)) => {
                facts.push(("Moved by", format!("this machine, because the service did not: {why}")));
            }
            (Some(Mode::Stream), None) => facts.push(("Moved by", "this machine (mode stream)".to_owned())),
            (Some(Mode::Server), None) => facts.push(("Moved by", "the service (mode server)".to_owned())),
            (None, None) => {}
        }
        if let Some(error) = &self.error {
            facts.push(("Ended by", error.clone()));
        }
        if let Some(least) = self.least_seconds.filter(|least| *least > 0.0) {
            facts.push(("At best", at_best(least, self.seconds)));
        }
        facts.push(("Began", self.began.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()));
        facts.push(("Version", format!("snapferry {}", self.version)));
        facts
    }
}

/// What a copy took, held against what a page blob takes.
fn at_best(least: f64, took: f64) -> String {
    let held = if took < least {
        "; this one takes more".to_owned()
    } else {
        format!("; this took {} times as long", significant(took / least))
    };
    format!(
        "{} where a page blob takes {} and {} requests/s (documented), whichever gaps are joined{held}",
        duration(least),
        rate(DOCUMENTED_BYTES_PER_SECOND.into()),
        count(DOCUMENTED_REQUESTS_PER_SECOND.into()),
    )
}

/// What limited it, and what to change.
fn remarks(course: &Course) -> Vec<String> {
    let mut remarks = vec![limits::sentence(&course.limits)];
    if let Some(limit) = course.main_limit() {
        let advice = limit.advice();
        let (first, rest) = advice.split_at(1);
        remarks.push(format!("{}{rest}.", first.to_uppercase()));
    }
    remarks
}

/// The page.
pub fn html(run: &CopyRun, course: &Course) -> String {
    let body = page::headline("snapferry · copy", &run.sentence(), &remarks(course))
        + &page::tiles(&run.numbers())
        + &page::facts(&run.facts())
        + &page::section("The course of the copy", "", &course::cards("plot-", course, Detail::Fine));
    page::document("snapferry: a copy", &body)
}

/// The same as text.
pub fn markdown(run: &CopyRun, course: &Course) -> String {
    let mut out = format!("# {}\n\n{}\n\n", run.sentence(), remarks(course).join("\n\n"));
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
