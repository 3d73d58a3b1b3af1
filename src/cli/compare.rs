//! `snapferry compare`: reports of copies side by side.

use std::io::Read;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::copy::per_second;
use super::output::{Output, size};
use crate::azure::reply::scrub;
use crate::error::{Error, ErrorKind, Result};

/// Reports to compare.
#[derive(clap::Args)]
pub struct CompareArgs {
    /// JSON reports, as copy, sync and managed-copy print them with --output json
    #[arg(value_name = "REPORT", required = true, num_args = 2..)]
    pub reports: Vec<std::path::PathBuf>,
}

/// A report of more than this is none.
const LARGEST_REPORT: u64 = 64 << 20;
/// The footer of a disk's image.
const FOOTER: u64 = 512;

/// One report. What it does not tell is null.
#[derive(Debug, Serialize)]
struct Row {
    report: String,
    /// `manual` (this machine copied) or `managed` (Azure did).
    kind: &'static str,
    source: Option<String>,
    /// Bytes of the disk.
    size: Option<u64>,
    bytes_changed: Option<u64>,
    bytes_sent: Option<u64>,
    requests: Option<u64>,
    seconds: Option<f64>,
    bytes_per_second: Option<u64>,
    /// How many times as long as the fastest. Of copies that are done.
    ratio: Option<f64>,
    /// Whether it is the time of a whole copy.
    #[serde(skip)]
    is_done: bool,
}

/// What is needed of a step's report.
#[derive(Deserialize)]
struct Step {
    to: String,
    length: u64,
    bytes_changed: u64,
    bytes_sent: u64,
    requests: u64,
    seconds: f64,
}

#[derive(Deserialize)]
struct Sync {
    steps: Vec<Step>,
    disk: Option<String>,
    /// Of the whole run, with what lies between the steps.
    seconds: Option<f64>,
    #[serde(default)]
    manager_requests: u64,
}

#[derive(Deserialize)]
struct Managed {
    source: Option<String>,
    state: String,
    size: Option<u64>,
    seconds: Option<f64>,
    bytes_per_second: Option<u64>,
}

pub(super) fn compare(args: &CompareArgs, output: Output) -> Result<()> {
    let mut rows = Vec::new();
    for path in &args.reports {
        let name = scrub(&path.display().to_string());
        let unreadable = |why: String| {
            Error::new(ErrorKind::Usage, "read the report", why)
                .on(&name)
                .next("make one: snapferry copy|sync|managed-copy ... --output json > report.json")
        };
        let text = read(path).map_err(|error| unreadable(error.to_string()))?;
        rows.push(row(name.clone(), &text).map_err(unreadable)?);
    }
    let fastest = rows.iter().filter_map(Row::whole_time).fold(f64::INFINITY, f64::min);
    for row in &mut rows {
        row.ratio = row.whole_time().map(|seconds| seconds / fastest);
    }
    output.result(&json!({ "reports": rows }), &table(&rows))
}

fn read(path: &std::path::Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(LARGEST_REPORT).read_to_string(&mut text)?;
    Ok(text)
}

fn row(report: String, text: &str) -> std::result::Result<Row, String> {
    // As PowerShell writes it: with a mark.
    let text = text.trim_start_matches('\u{feff}');
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("it is not one JSON document: {error}"))?;
    if let Some(kind) = value.pointer("/error/kind").and_then(Value::as_str) {
        return Err(format!("it tells of an error ({}), not of a copy", scrub(kind)));
    }
    let unknown = |what: &str, error: serde_json::Error| format!("it is no report of {what}: {error}");
    match value.get("kind").and_then(Value::as_str) {
        Some("managed") => {
            let managed: Managed =
                serde_json::from_value(value).map_err(|error| unknown("managed-copy", error))?;
            Ok(managed_row(report, &managed))
        }
        Some("sync") => {
            let sync: Sync = serde_json::from_value(value).map_err(|error| unknown("sync", error))?;
            Ok(sync_row(report, &sync))
        }
        None | Some("copy") if value.get("point").is_some() => {
            let step: Step = serde_json::from_value(value).map_err(|error| unknown("copy", error))?;
            Ok(manual_row(report, &[step]))
        }
        _ => Err("it is no report of copy, sync or managed-copy".to_owned()),
    }
}

fn manual_row(report: String, steps: &[Step]) -> Row {
    let sum = |field: fn(&Step) -> u64| steps.iter().map(field).fold(0, u64::saturating_add);
    let seconds = steps.iter().map(|step| step.seconds).sum();
    let sent = sum(|step| step.bytes_sent);
    let last = steps.last();
    Row {
        report,
        kind: "manual",
        source: last.map(|step| scrub(&step.to)),
        size: last.map(|step| step.length.saturating_sub(FOOTER)),
        bytes_changed: Some(sum(|step| step.bytes_changed)),
        bytes_sent: Some(sent),
        requests: Some(sum(|step| step.requests)),
        seconds: Some(seconds),
        bytes_per_second: Some(per_second(sent, seconds)),
        ratio: None,
        is_done: true,
    }
}

fn sync_row(report: String, sync: &Sync) -> Row {
    let steps = manual_row(report, &sync.steps);
    let seconds = sync.seconds.or(steps.seconds);
    Row {
        source: sync.disk.as_deref().map(scrub).or(steps.source),
        requests: steps.requests.map(|requests| requests.saturating_add(sync.manager_requests)),
        bytes_per_second: steps.bytes_sent.zip(seconds).map(|(sent, seconds)| per_second(sent, seconds)),
        seconds,
        ..steps
    }
}

/// What Azure moved it does not say: its rate is that of the disk.
fn managed_row(report: String, managed: &Managed) -> Row {
    Row {
        report,
        kind: "managed",
        source: managed.source.as_deref().map(scrub),
        size: managed.size,
        bytes_changed: None,
        bytes_sent: None,
        requests: None,
        seconds: managed.seconds,
        bytes_per_second: managed.bytes_per_second,
        ratio: None,
        is_done: managed.state == "done",
    }
}

impl Row {
    /// The time of a copy that is done and took any.
    fn whole_time(&self) -> Option<f64> {
        self.seconds.filter(|seconds| self.is_done && seconds.is_finite() && *seconds > 0.0)
    }
}

fn table(rows: &[Row]) -> String {
    let unknown = || "-".to_owned();
    let bytes = |bytes: Option<u64>| bytes.map_or_else(unknown, size);
    let mut lines: Vec<[String; 10]> = vec![
        ["REPORT", "KIND", "SOURCE", "DISK", "CHANGED", "SENT", "REQUESTS", "SECONDS", "RATE", "TIMES"]
            .map(str::to_owned),
    ];
    for row in rows {
        let going_on = if row.is_done { "" } else { " so far" };
        lines.push([
            row.report.clone(),
            row.kind.to_owned(),
            // The names that matter are at its end.
            row.source.as_deref().map_or_else(unknown, |source| tail(source, 40)),
            bytes(row.size),
            bytes(row.bytes_changed),
            bytes(row.bytes_sent),
            row.requests.map_or_else(unknown, |requests| requests.to_string()),
            row.seconds.map_or_else(unknown, |seconds| format!("{seconds:.1}{going_on}")),
            row.bytes_per_second.map_or_else(unknown, |rate| format!("{}/s", size(rate))),
            row.ratio.map_or_else(unknown, |ratio| format!("{ratio:.2}x")),
        ]);
    }
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default())
        .collect();
    let write = |line: &[String; 10]| {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    lines.iter().map(write).collect::<Vec<_>>().join("\n")
}

fn tail(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    let end: String = text.chars().skip(length - most + 1).collect();
    format!("…{end}")
}
