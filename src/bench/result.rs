//! What a benchmark found: the document that `snapferry bench` writes, `bench compare` reads and the report draws.
//!
//! A *setting* is what a copy can be told (window, chunk size, mode) together with what there is to copy (pattern). A
//! *cell* is one setting, measured: some repeats, what they say together, and what limited them. A *knee* is the
//! smallest setting beyond which more in flight gains nothing worth having; the *verdict* is what a person is to do.
//!
//! All rates are bytes that changed and were written per second of wall-clock time, whichever way they took, so that
//! modes can be held against each other. All numbers are finite: JSON knows no other, and what is not is refused here.
//! Names of blobs come without their query: no SAS ever stands in this document.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::measure::{Course, Latency, Limit, Share};

/// The version of the document. It grows when a field changes its meaning or goes; a new optional field is no reason.
pub const FORMAT: u32 = 1;

/// The most cells that a document may hold.
pub const MOST_CELLS: usize = 4096;

/// A whole benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`FORMAT`].
    pub format: u32,
    /// Where and when it was measured.
    pub environment: Environment,
    /// What was read from, without its query.
    pub source: String,
    /// What was written to, without its query.
    pub target: String,
    /// Which middle and which interval [`Interval`] holds, in all cells.
    pub statistic: Statistic,
    /// How sure the intervals are, from 0 to 1: 0.95 is usual.
    pub confidence: f64,
    /// Every setting that was measured, at most [`MOST_CELLS`]; no setting twice.
    pub cells: Vec<Cell>,
    /// At most one for each mode and pattern. Each names a setting of [`Results::cells`].
    pub knees: Vec<Knee>,
    /// What limits, and what to change.
    pub verdict: Verdict,
}

/// Where and when a benchmark was measured: what has to be equal for two of them to be held against each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Of snapferry.
    pub version: String,
    /// The operating system, as `linux` or longer.
    pub os: String,
    /// The architecture of the processor, as `x86_64`.
    pub arch: String,
    /// Cores that this process may use.
    pub cores: u64,
    /// When it began.
    pub date: Timestamp,
    /// Wall-clock seconds of the whole benchmark, warm-up and tidying included.
    pub seconds: f64,
    /// Whether source and target were the built-in emulator: then its rates say nothing of Azure's.
    pub emulated: bool,
    /// Bytes after which a run ended; `None` where each went to its end.
    #[serde(default)]
    pub size: Option<u64>,
    /// What the emulator's line was told, as it was typed; empty without one.
    #[serde(default)]
    pub link: String,
    /// What decided the order of the runs.
    #[serde(default)]
    pub seed: u64,
}

/// How bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Through this machine.
    Stream,
    /// The service reads the source itself (Put Page From URL).
    Server,
}

/// What there is to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// Long runs of changed data.
    Dense,
    /// Changes of 4 KiB with gaps between them.
    Scattered,
    /// Both.
    Mixed,
    /// Runs of zeros with little data between them.
    Zeros,
    /// Whatever the user's own snapshots hold.
    Own,
}

/// One point of the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Setting {
    /// How bytes travel.
    pub mode: Mode,
    /// What there is to copy.
    pub pattern: Pattern,
    /// The most chunks in flight.
    pub window: u64,
    /// The largest chunk, in bytes.
    pub chunk: u64,
}

/// One setting, measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// What was measured.
    pub setting: Setting,
    /// At least one, in the order of measuring; the warm-up is none of them.
    pub repeats: Vec<Repeat>,
    /// What the repeats say together, in bytes per second.
    pub rate: Interval,
    /// Ranged reads of all repeats; hardly any in mode `server`.
    pub reads: Latency,
    /// Page writes of all repeats.
    pub writes: Latency,
    /// Requests per second, to source and target together, every attempt counted; the mean of the repeats.
    pub requests_per_second: f64,
    /// Of all requests, the part that was refused for load (503 and its like), from 0 to 1.
    pub refused: f64,
    /// Processor seconds of this process per GiB written; the mean of the repeats.
    pub cpu_per_gib: f64,
    /// The most memory that this process held, in bytes, of all repeats; `None` where the system does not tell.
    #[serde(default)]
    pub peak_memory: Option<u64>,
    /// The part of all processors of the machine that was busy, with whatever; `None` where the system does not tell.
    #[serde(default)]
    pub machine_busy: Option<f64>,
    /// What limited it, most of the time first; the parts are at most 1 together.
    pub limits: Vec<Share>,
    /// The course of the repeat whose rate is in the middle. Kept for the knees and left out elsewhere: a course can
    /// hold a thousand samples, and there can be thousands of cells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub course: Option<Course>,
}

/// One run of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Repeat {
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Bytes that the page list named and that were written, zeros and clears included; gaps that were joined are not in
    /// it, or settings that copy more of what did not change would look faster.
    pub bytes: u64,
    /// Bytes per second.
    pub rate: f64,
}

/// A middle and how far it can be trusted, in the unit of what was measured.
/// See [`super::statistics`] for how it is computed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Mean or median, as [`Results::statistic`] says.
    pub middle: f64,
    /// The lower end of its confidence interval; the middle itself where one repeat tells nothing of it.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// Which middle an [`Interval`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statistic {
    /// The mean.
    Mean,
    /// The median.
    Median,
}

/// Where more in flight gains nothing worth having any more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Knee {
    /// The setting, one of the cells'.
    pub setting: Setting,
    /// Its rate as a part of the best rate of its mode and pattern, from 0 to 1.
    pub of_best: f64,
}

/// What a person is to take away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What limits at the best setting.
    pub limit: Limit,
    /// One sentence with its numbers, as shown in large type: starts with a capital, ends with a full stop.
    pub sentence: String,
    /// What to change, the most worth first, a sentence each; empty when nothing is.
    pub advice: Vec<String>,
    /// The setting to use; `None` when nothing was measured.
    pub best: Option<Setting>,
}

impl Results {
    /// Reads a document.
    pub fn from_json(text: &str) -> Result<Self> {
        // Of another format only its number is certain to be readable.
        let head: Head = serde_json::from_str(text).map_err(|error| unusable(error.to_string()))?;
        if head.format != FORMAT {
            let why =
                format!("its format is {}; this version of snapferry reads format {FORMAT}", head.format);
            return Err(unusable(why));
        }
        let results: Self = serde_json::from_str(text).map_err(|error| unusable(error.to_string()))?;
        if results.cells.len() > MOST_CELLS {
            let why = format!("it has {} cells; {MOST_CELLS} is the most", results.cells.len());
            return Err(unusable(why));
        }
        Ok(results)
    }

    /// The document, for people to read, too.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|error| {
            Error::new(ErrorKind::Internal, "write a benchmark's results as JSON", error.to_string())
        })
    }

    /// The cell of a setting.
    pub fn cell(&self, setting: Setting) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.setting == setting)
    }
}

#[derive(Deserialize)]
struct Head {
    format: u32,
}

fn unusable(why: String) -> Error {
    Error::new(ErrorKind::Usage, "read a benchmark's results", why)
        .next("hand in a JSON file that `snapferry bench` wrote")
}

impl From<Mode> for crate::step::Mode {
    fn from(measured: Mode) -> Self {
        match measured {
            Mode::Stream => Self::Stream,
            Mode::Server => Self::Server,
        }
    }
}

impl Mode {
    /// Every mode, in the order in which they are shown.
    pub const ALL: [Self; 2] = [Self::Stream, Self::Server];

    /// Its name, as it is typed and written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Server => "server",
        }
    }
}

impl Pattern {
    /// Every pattern, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Dense, Self::Scattered, Self::Mixed, Self::Zeros, Self::Own];

    /// Its name, as it is typed and written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Scattered => "scattered",
            Self::Mixed => "mixed",
            Self::Zeros => "zeros",
            Self::Own => "own",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn results() -> Results {
        let setting = Setting { mode: Mode::Stream, pattern: Pattern::Dense, window: 16, chunk: 4 << 20 };
        let repeat = Repeat { seconds: 2.0, bytes: 1 << 30, rate: 536_870_912.0 };
        Results {
            format: FORMAT,
            environment: Environment {
                version: "0.1.0".into(),
                os: "linux".into(),
                arch: "x86_64".into(),
                cores: 2,
                date: "2026-02-01T00:00:00Z".parse().unwrap(),
                seconds: 9.5,
                emulated: true,
                size: Some(1 << 30),
                link: String::new(),
                seed: 1,
            },
            source: "a".into(),
            target: "b".into(),
            statistic: Statistic::Median,
            confidence: 0.95,
            cells: vec![Cell {
                setting,
                repeats: vec![repeat],
                rate: Interval { middle: repeat.rate, low: repeat.rate, high: repeat.rate },
                reads: Latency::default(),
                writes: Latency::default(),
                requests_per_second: 256.0,
                refused: 0.0,
                cpu_per_gib: 0.6,
                peak_memory: Some(50 << 20),
                machine_busy: Some(0.9),
                limits: vec![Share { limit: Limit::Cpu, part: 1.0 }],
                course: None,
            }],
            knees: vec![Knee { setting, of_best: 1.0 }],
            verdict: Verdict {
                limit: Limit::Cpu,
                sentence: "This machine is the limit.".into(),
                advice: vec![],
                best: Some(setting),
            },
        }
    }

    #[test]
    fn a_document_is_read_as_it_was_written() {
        let results = results();
        let text = results.to_json().unwrap();
        assert_eq!(Results::from_json(&text).unwrap(), results);
        assert_eq!(results.cell(results.knees[0].setting), Some(&results.cells[0]));
        // Others read it by these names.
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["format"], 1);
        assert_eq!(value["cells"][0]["setting"]["mode"], "stream");
        assert_eq!(value["cells"][0]["limits"][0]["limit"], "cpu");
    }

    #[test]
    fn what_is_no_document_of_this_format_is_refused() {
        let text = results().to_json().unwrap().replace("\"format\": 1", "\"format\": 2");
        let error = Results::from_json(&text).unwrap_err();
        assert!(error.why().contains("its format is 2"), "{error}");
        // A format of which nothing else is known.
        let error = Results::from_json(r#"{"format": 3, "other": []}"#).unwrap_err();
        assert!(error.why().contains("its format is 3"), "{error}");
        assert_eq!(Results::from_json("[]").unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(Results::from_json("").unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn numbers_that_are_not_finite_are_refused() {
        let mut results = results();
        results.cells[0].refused = f64::NAN;
        let text = results.to_json().unwrap();
        assert!(text.contains("\"refused\": null"));
        assert_eq!(Results::from_json(&text).unwrap_err().kind(), ErrorKind::Usage);
        let text = text.replace("\"refused\": null", "\"refused\": 1e999");
        assert_eq!(Results::from_json(&text).unwrap_err().kind(), ErrorKind::Usage);
    }
}
