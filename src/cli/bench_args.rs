//! What `snapferry bench` and its subcommands are told.

use std::path::PathBuf;
use std::time::Duration;

use snapferry_emulator::Link;

use super::options::AccessArgs;
use super::settings::{parse_percent, parse_size};
use crate::azure::LARGEST_CHUNK;
use crate::bench::result::{Mode, Pattern};
use crate::error::{Error, ErrorKind, Result};
use crate::range::PAGE;

/// A disk of the emulator that is larger takes longer than anybody waits.
const LARGEST_SIZE: u64 = 1 << 40;

/// A benchmark, or something about benchmarks.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    #[allow(missing_docs)]
    pub command: Option<BenchCommand>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepArgs,
}

/// What else there is to do with benchmarks.
#[derive(clap::Subcommand)]
pub enum BenchCommand {
    /// Say what became faster or slower between benchmarks, where that is sure
    Compare(BenchCompareArgs),
    /// Delete what a benchmark could not delete itself
    Clean(CleanArgs),
}

/// What is measured, and where.
#[derive(clap::Args)]
pub struct SweepArgs {
    /// SAS URL of a snapshot to copy (URL, @FILE or -). Without it, emulated regions on this machine are measured
    #[arg(long, env = "SNAPFERRY_SOURCE", hide_env_values = true, value_name = "URL")]
    pub source: Option<String>,
    /// SAS URL of an older snapshot: only what differs is copied (URL, @FILE or -)
    #[arg(long, env = "SNAPFERRY_PREVIOUS", hide_env_values = true, value_name = "URL")]
    pub previous: Option<String>,
    /// A container to write to, or a blob in it, which is not touched (URL, @FILE or -)
    #[arg(long, env = "SNAPFERRY_TARGET", hide_env_values = true, value_name = "URL")]
    pub target: Option<String>,
    /// Most chunks in flight [default: 4,16,64; with --full 4,8,16,32,64]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: Vec<u16>,
    /// Longest chunks, at most 4MiB [default: 1MiB,4MiB; with --full 512KiB,1MiB,2MiB,4MiB]
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', value_parser = parse_size)]
    pub chunk_size: Vec<u64>,
    /// Who moves the bytes: stream, server [default: stream; with --full, and emulated, both]
    #[arg(long, value_name = "MODE,...", value_delimiter = ',', value_parser = parse_mode)]
    pub mode: Vec<Mode>,
    /// What the emulated disks hold: dense, scattered, mixed, zeros [default: dense,scattered; with --full all]
    #[arg(long, value_name = "PATTERN,...", value_delimiter = ',', value_parser = parse_pattern, conflicts_with = "source")]
    pub pattern: Vec<Pattern>,
    /// The whole sweep: every value of every option that is not given
    #[arg(long)]
    pub full: bool,
    /// Bytes of each run [default: 512MiB emulated, 1GiB elsewhere]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub size: Option<u64>,
    /// Longest time of a run's copying
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Runs of each mode and pattern before it counts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub warm_up: u32,
    /// Runs of each cell that count
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeats: u32,
    /// What decides the order of the runs
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// The emulated line and its limits, as emulate has it
    #[arg(long, value_name = "LINK", value_parser = parse_link, conflicts_with = "source")]
    pub link: Option<String>,
    /// Write what was found to this file: a page (.html), Markdown (.md) or JSON (.json); can be given several times
    #[arg(long, value_name = "FILE")]
    pub report: Vec<PathBuf>,
    /// Keep the best settings in this file, for copy --profile
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Price table for what it costs: a file as `snapferry prices` prints it
    #[arg(long, value_name = "FILE")]
    pub prices: Option<String>,
    /// Begin without asking
    #[arg(long)]
    pub yes: bool,
    /// Only say which cells would be measured, and what that takes and costs
    #[arg(long)]
    pub dry_run: bool,
    /// How long one call may go on failing before the benchmark ends
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    pub retry_for: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub access: AccessArgs,
}

impl SweepArgs {
    /// Whether emulated regions are meant.
    pub(super) fn is_emulated(&self) -> Result<bool> {
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.trim().is_empty());
        match (given(&self.source), given(&self.target)) {
            (true, true) => Ok(false),
            (false, false) if !given(&self.previous) => Ok(true),
            _ => Err(Error::new(
                ErrorKind::Usage,
                "find what is to be measured",
                "--source and --target belong together",
            )
            .next("give both, or neither (also not in the environment) to measure on emulated regions")),
        }
    }

    /// Bytes of a run.
    pub(super) fn sizes(&self, is_emulated: bool) -> Result<u64> {
        let size = self.size.unwrap_or(if is_emulated { 512 << 20 } else { 1 << 30 });
        if !(1 << 20..=LARGEST_SIZE).contains(&size) {
            return Err(Error::new(ErrorKind::Usage, "use --size", "a run has 1MiB to 1TiB"));
        }
        if self.duration < Duration::from_millis(100) {
            return Err(Error::new(
                ErrorKind::Usage,
                "use --duration",
                "nothing can be said of less than 100ms",
            ));
        }
        Ok(size)
    }

    /// What the emulated disks hold.
    pub(super) fn patterns(&self) -> Vec<Pattern> {
        match (self.pattern.is_empty(), self.full) {
            (false, _) => distinct(&self.pattern),
            (true, false) => vec![Pattern::Dense, Pattern::Scattered],
            (true, true) => vec![Pattern::Dense, Pattern::Scattered, Pattern::Mixed, Pattern::Zeros],
        }
    }

    pub(super) fn windows(&self) -> Vec<u64> {
        let given: Vec<u64> = self.concurrency.iter().map(|count| u64::from(*count)).collect();
        match (given.is_empty(), self.full) {
            (false, _) => distinct(&given),
            (true, false) => vec![4, 16, 64],
            (true, true) => vec![4, 8, 16, 32, 64],
        }
    }

    pub(super) fn chunks(&self) -> Result<Vec<u64>> {
        if let Some(bad) = self.chunk_size.iter().find(|size| !is_chunk(**size)) {
            let why = format!(
                "{bad} is not a multiple of {PAGE} bytes up to 4MiB, the most that one request may carry"
            );
            return Err(Error::new(ErrorKind::Usage, "use --chunk-size", why));
        }
        Ok(match (self.chunk_size.is_empty(), self.full) {
            (false, _) => distinct(&self.chunk_size),
            (true, false) => vec![1 << 20, 4 << 20],
            (true, true) => vec![512 << 10, 1 << 20, 2 << 20, 4 << 20],
        })
    }

    pub(super) fn modes(&self, is_emulated: bool) -> Vec<Mode> {
        match (self.mode.is_empty(), self.full && is_emulated) {
            (false, _) => distinct(&self.mode),
            (true, false) => vec![Mode::Stream],
            (true, true) => Mode::ALL.to_vec(),
        }
    }
}

/// Benchmarks to compare.
#[derive(clap::Args)]
pub struct BenchCompareArgs {
    /// JSON documents of `snapferry bench`: the old one, then those that are held against it
    #[arg(value_name = "RESULTS", required = true, num_args = 2..)]
    pub results: Vec<PathBuf>,
    /// End with exit code 28 when a cell, or all together, is surely slower, and by more than this, such as 5%
    #[arg(long, value_name = "PART", value_parser = parse_percent)]
    pub fail_if_slower: Option<f64>,
}

/// What a benchmark left behind.
#[derive(clap::Args)]
pub struct CleanArgs {
    /// The container that it wrote to (URL, @FILE or -)
    #[arg(long, env = "SNAPFERRY_TARGET", hide_env_values = true, value_name = "URL")]
    pub target: String,
    /// The name of the benchmark: the blobs are called snapferry-bench-RUN/...
    #[arg(long, value_name = "RUN")]
    pub run: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub access: AccessArgs,
}
fn is_chunk(size: u64) -> bool {
    (PAGE..=LARGEST_CHUNK).contains(&size) && size.is_multiple_of(PAGE)
}

fn distinct<T: Copy + Ord>(values: &[T]) -> Vec<T> {
    let mut distinct = values.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}
fn parse_mode(text: &str) -> std::result::Result<Mode, String> {
    let found = Mode::ALL.into_iter().find(|mode| mode.name() == text.trim());
    found.ok_or_else(|| "expected stream or server".to_owned())
}

fn parse_pattern(text: &str) -> std::result::Result<Pattern, String> {
    let made = Pattern::ALL.into_iter().filter(|pattern| *pattern != Pattern::Own);
    let found = made.into_iter().find(|pattern| pattern.name() == text.trim());
    found.ok_or_else(|| "expected dense, scattered, mixed or zeros".to_owned())
}

fn parse_link(text: &str) -> std::result::Result<String, String> {
    text.parse::<Link>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}
