//! Standard output holds the result and nothing else: text for people, or one JSON document. Everything else
//! goes to standard error.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde::Serialize;
use serde_json::{Value, json};

use super::args::OutputKind;
use crate::error::{Error, ErrorKind, Result};
use crate::measure::{Course, Share};

/// Standard output holds one document, also when an error comes after a result.
static RESULT_IS_WRITTEN: AtomicBool = AtomicBool::new(false);

/// Where and how results are written.
#[derive(Clone, Copy)]
pub(super) struct Output {
    kind: OutputKind,
    /// Whether progress may be shown.
    pub(super) progress: bool,
}

/// A report, and what limited the run that it is of.
#[derive(Serialize)]
pub(super) struct Observed<'a, T> {
    #[serde(flatten)]
    pub(super) report: &'a T,
    /// What limited it, most of the time first.
    pub(super) limits: &'a [Share],
}

impl Output {
    pub(super) fn new(kind: OutputKind, quiet: bool) -> Self {
        Self { kind, progress: !quiet }
    }

    /// Writes the one result of a command.
    pub(super) fn result(self, document: &impl Serialize, text: &str) -> Result<()> {
        match self.kind {
            OutputKind::Text => self.line(text),
            OutputKind::Json => {
                let document =
                    serde_json::to_string_pretty(document).map_err(|error| output_error(&error))?;
                RESULT_IS_WRITTEN.store(true, Relaxed);
                write_line(&document)
            }
        }
    }

    /// Writes the one result of something that was observed, with what limited it.
    pub(super) fn observed(self, report: &impl Serialize, text: &str, course: &Course) -> Result<()> {
        let limited =
            course.limited_by().map(|limits| format!("\nlimited by    {limits}")).unwrap_or_default();
        self.result(&Observed { report, limits: &course.limits }, &format!("{text}{limited}"))
    }

    /// Writes a result that was found although it speaks against what was looked at: the error stands in it, and is told.
    pub(super) fn verdict(self, report: &impl Serialize, text: &str, error: Option<Error>) -> Result<()> {
        let mut document = json!(report);
        if let Some(error) = &error {
            document["error"] = error_value(error);
        }
        self.result(&document, text)?;
        error.map_or(Ok(()), Err)
    }

    /// Writes the result of one round of many: a document on one line.
    pub(super) fn round(self, document: &impl Serialize, text: &str) -> Result<()> {
        RESULT_IS_WRITTEN.store(true, Relaxed);
        match self.kind {
            OutputKind::Text => self.line(text),
            OutputKind::Json => {
                let line = serde_json::to_string(document).map_err(|error| output_error(&error))?;
                write_line(&line)
            }
        }
    }

    /// Whether documents are expected.
    pub(super) fn is_json(self) -> bool {
        self.kind == OutputKind::Json
    }

    /// Writes the error of one round as its document.
    pub(super) fn round_failed(self, error: &Error) -> Result<()> {
        self.round(&json!({ "error": error_value(error) }), "")
    }

    /// Writes a line for people; nothing when a JSON document is wanted.
    pub(super) fn line(self, text: &str) -> Result<()> {
        if self.kind == OutputKind::Json { Ok(()) } else { write_line(text) }
    }

    /// Shows an error: on standard error for people, and as the document where one is expected.
    pub(super) fn error(self, error: &Error) {
        let kind = error.kind();
        let next = error.advice().map(|advice| format!("  next:  {advice}\n")).unwrap_or_default();
        let lines = format!(
            "error: {error}\n  again: {}\n{next}  code:  {} (exit code {})\n",
            kind.remedy().sentence(),
            kind.name(),
            kind.exit_code()
        );
        // When even this cannot be written, the exit code still tells.
        let _ = std::io::stderr().write_all(lines.as_bytes());
        // A result that was only in part what was asked for names the error itself.
        let is_told = RESULT_IS_WRITTEN.load(Relaxed);
        if self.kind == OutputKind::Json && kind != ErrorKind::Output && !is_told {
            error_document(error);
        }
    }
}

/// Writes an error as the one document.
pub(super) fn error_document(error: &Error) {
    let document = json!({ "error": error_value(error) });
    let _ = write_line(&format!("{document:#}"));
}

/// An error as it stands in documents.
pub(super) fn error_value(error: &Error) -> Value {
    let kind = error.kind();
    json!({
        "kind": kind.name(),
        "exit_code": kind.exit_code(),
        "tried": error.tried(),
        "on": error.subject(),
        "why": error.why(),
        "again": kind.remedy().name(),
        "next": error.advice(),
    })
}

pub(super) fn write_line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| output_error(&error))
}

fn output_error(error: &impl ToString) -> Error {
    Error::new(ErrorKind::Output, "write the result to standard output", error.to_string())
        .next("run it again with an output that can be written; a copy that was done is found done")
}

/// Shows an error that does not end the program, on standard error.
pub(super) fn say_error(error: &Error) {
    say(&format!("error: {error}\n  again: {}", error.kind().remedy().sentence()));
}

/// A line on standard error. Nobody may be reading any more: that is no reason to end.
pub(super) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A size for people.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}
