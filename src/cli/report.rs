//! `--report FILE`: the course of a copy as a page, as Markdown or as JSON, written when it is over, also when it failed
//! after it began.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::output;
use super::whole_file::WholeFile;
use crate::azure::reply::scrub;
use crate::error::{Error, ErrorKind, Result};
use crate::measure::{Course, Limit};
use crate::report::{self, CopyRun};
use crate::step::{Mode, Report};

/// Where a report goes.
pub(super) struct ReportFile {
    file: WholeFile,
    form: Form,
    began: Timestamp,
}

/// The form of a report.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Html,
    Markdown,
    Json,
}

impl Form {
    /// As the name of its file tells.
    pub(super) fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("html" | "htm") => Ok(Self::Html),
            Some("md") => Ok(Self::Markdown),
            Some("json") => Ok(Self::Json),
            _ => {
                let why = "its name ends in none of .html, .md and .json, which tell the form";
                Err(Error::new(ErrorKind::Usage, "use --report", why)
                    .on(scrub(&path.display().to_string()))
                    .next("such as --report copy.html"))
            }
        }
    }
}

/// What a copy came to, over all of its steps and as far as it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    bytes: u64,
    extents: u64,
    least_seconds: f64,
    retries: u64,
    point: Option<String>,
    mode: Option<Mode>,
    fell_back: Option<String>,
}

impl Sums {
    pub(super) fn add(&mut self, report: &Report) {
        self.bytes += report.bytes_sent;
        self.extents += report.totals.data_extents;
        self.least_seconds += report.totals.least_seconds;
        self.retries += report.retries;
        self.point = Some(report.point.point.clone());
        self.mode = report.mode.or(self.mode);
        self.fell_back = report.fell_back.clone().or_else(|| self.fell_back.take());
    }

    /// Whether any step was done.
    pub(super) fn has_steps(&self) -> bool {
        self.point.is_some()
    }
}

/// What was to be copied; no SAS in it.
pub(super) struct Scope {
    pub(super) source: String,
    pub(super) target: String,
    /// Such as `the whole disk`.
    pub(super) copied: String,
    /// Whether anything of it was begun.
    pub(super) began: bool,
}

/// A report for programs.
#[derive(Serialize)]
struct Document<'a> {
    kind: &'static str,
    run: &'a CopyRun,
    /// What the main limit means and what to change.
    advice: Option<&'static str>,
    course: &'a Course,
}

impl ReportFile {
    /// A report that is going to be written to `path`. It is tried now: nobody shall wait for hours to learn that it
    /// cannot be.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when nothing can be written there.
    pub(super) fn at(path: &Path) -> Result<Self> {
        let form = Form::of(path)?;
        let file = WholeFile::at(path, "--report", "report")?;
        Ok(Self { file, form, began: Timestamp::now() })
    }

    /// Writes what became of the copy. One that failed before it began has no course to tell of.
    pub(super) fn write<T>(
        &self,
        scope: Scope,
        sums: &Sums,
        course: &Course,
        outcome: &Result<T>,
    ) -> Result<()> {
        if outcome.is_err() && !scope.began {
            return Ok(());
        }
        let last = course.samples.last();
        let run = CopyRun {
            source: scope.source,
            copied: scope.copied,
            target: scope.target,
            point: sums.point.clone(),
            mode: sums.mode,
            fell_back: sums.fell_back.clone(),
            error: outcome.as_ref().err().map(ToString::to_string),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            began: self.began,
            bytes: if outcome.is_ok() { sums.bytes } else { last.map_or(0, |last| last.bytes_out) },
            extents: outcome.is_ok().then_some(sums.extents),
            least_seconds: outcome.is_ok().then_some(sums.least_seconds),
            requests: last.map_or(0, |last| last.source_requests + last.target_requests),
            retries: sums.retries,
            seconds: course.seconds,
        };
        let text = match self.form {
            Form::Html => report::copy::html(&run, course),
            Form::Markdown => report::copy::markdown(&run, course),
            Form::Json => {
                let advice = course.main_limit().map(Limit::advice);
                let document = Document { kind: "copy-report", run: &run, advice, course };
                let text = serde_json::to_string_pretty(&document);
                text.map_err(|error| self.file.unwritable(&error))? + "\n"
            }
        };
        self.file.write(&text)
    }
}

/// Ends a command with its result, and with the failure of its report only where there is no worse.
pub(super) fn end<T>(
    outcome: Result<T>,
    reported: Result<()>,
    show: impl FnOnce(T) -> Result<()>,
) -> Result<()> {
    match (outcome, reported) {
        (Ok(report), reported) => show(report).and(reported),
        (Err(error), reported) => {
            if let Err(unwritten) = reported {
                output::say_error(&unwritten);
            }
            Err(error)
        }
    }
}
