//! The progress bar: bytes, rate, time left and what is being waited for. On a terminal it moves; elsewhere a
//! plain line comes every few seconds.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;

use super::copy::per_second;
use super::output::{self, Output, size};
use crate::measure::{Course, Limit, SAMPLE_EVERY, observe};
use crate::progress::{Numbers, Phase, Progress};

const BAR_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Rates are taken over this time.
const RATE_OVER: Duration = Duration::from_secs(10);

/// What is shown while something runs.
pub(super) struct Shown {
    /// Whether numbers are shown at all.
    pub(super) wanted: bool,
    /// Lines of the result that come while it runs, and where they go.
    pub(super) lines: Option<(mpsc::UnboundedReceiver<String>, Output)>,
}

/// Runs `work` and shows `progress` meanwhile.
pub(super) async fn show<T>(progress: &Progress, wanted: bool, work: impl Future<Output = T>) -> T {
    observed(progress, wanted, work).await.0
}

/// Runs `work` and shows `progress` meanwhile. Gives its course, too.
pub(super) async fn observed<T>(
    progress: &Progress,
    wanted: bool,
    work: impl Future<Output = T>,
) -> (T, Course) {
    let observer = observe(progress, SAMPLE_EVERY);
    let done = show_with(|| progress.read(), Shown { wanted, lines: None }, work).await;
    (done, observer.finish())
}

/// Runs `work` and shows the numbers that `read` gives, and the lines that come, meanwhile.
pub(super) async fn show_with<T>(
    read: impl Fn() -> Numbers,
    shown: Shown,
    work: impl Future<Output = T>,
) -> T {
    let mut rate = Rate::default();
    let look = || {
        let now = read();
        Look { line: rate.line(&now), done: done(&now), of: now.expected.map_or(0, |(bytes, _)| bytes) }
    };
    watch(look, shown, work).await
}

/// What is shown at one moment.
pub(super) struct Look {
    pub(super) line: String,
    pub(super) done: u64,
    pub(super) of: u64,
}

/// Runs `work` and shows what `look` sees, and the lines that come, meanwhile.
pub(super) async fn watch<T>(
    mut look: impl FnMut() -> Look,
    mut shown: Shown,
    work: impl Future<Output = T>,
) -> T {
    let is_terminal = std::io::stderr().is_terminal();
    let bar = (is_terminal && shown.wanted).then(bar);
    let print = |line: String, output: Output| {
        // When nobody reads any more, the result at the end says so.
        let printed = || output.line(&line);
        let _ = bar.as_ref().map_or_else(printed, |bar| bar.suspend(printed));
    };
    let mut ticks = tokio::time::interval(if is_terminal { BAR_EVERY } else { LINE_EVERY });
    let mut first = true;
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            Some((line, output)) = next_line(&mut shown.lines) => print(line, output),
            _ = ticks.tick(), if shown.wanted => {
                let now = look();
                match &bar {
                    Some(bar) => draw(bar, now),
                    None if !first => output::say(&now.line),
                    None => first = false,
                }
            }
        }
    };
    if let Some((lines, output)) = &mut shown.lines {
        while let Ok(line) = lines.try_recv() {
            print(line, *output);
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    result
}

async fn next_line(
    lines: &mut Option<(mpsc::UnboundedReceiver<String>, Output)>,
) -> Option<(String, Output)> {
    match lines {
        Some((lines, output)) => lines.recv().await.map(|line| (line, *output)),
        None => None,
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3}% {msg}") {
        bar.set_style(style);
    }
    bar
}

fn draw(bar: &ProgressBar, now: Look) {
    bar.set_length(now.of);
    bar.set_position(now.done);
    bar.set_message(now.line);
}

#[derive(Default)]
struct Rate {
    past: VecDeque<(Instant, u64)>,
}

impl Rate {
    fn line(&mut self, now: &Numbers) -> String {
        // What comes from the source moves all the time; whole chunks are counted only when they are written.
        let moved = if now.phase == Phase::Verifying { now.bytes } else { now.source.bytes_in };
        // The next step counts from zero.
        if self.past.back().is_some_and(|(_, before)| *before > moved) {
            self.past.clear();
        }
        self.past.push_back((Instant::now(), moved));
        while self.past.len() > 2 && self.past.front().is_some_and(|(then, _)| then.elapsed() > RATE_OVER) {
            self.past.pop_front();
        }
        let (then, before) = self.past.front().copied().unwrap_or((Instant::now(), moved));
        let rate = per_second(moved.saturating_sub(before), then.elapsed().as_secs_f64());
        let waiting =
            now.waiting_for.as_ref().map(|reason| format!(", waiting for {reason}")).unwrap_or_default();
        let doing = match now.phase {
            Phase::Checking => return format!("checking the snapshots and the base blob{waiting}"),
            Phase::Sealing => return format!("sealing{waiting}"),
            Phase::Done => return "done".to_owned(),
            Phase::Copying => size(done(now)),
            Phase::Verifying => format!("compared {}", size(done(now))),
        };
        let (in_flight, _) = now.in_flight;
        let limited = match now.limited.limit {
            Limit::Unknown => String::new(),
            _ => format!(", limited by {}", now.limited),
        };
        match now.expected {
            None => {
                format!(
                    "{doing} at {}/s, still listing, {in_flight} chunks in flight{limited}{waiting}",
                    size(rate)
                )
            }
            Some((all, exact)) => {
                let about = if exact { "" } else { "about " };
                // What is expected comes with what is joined beside it.
                let left = u128::from(all.saturating_sub(done(now))) * u128::from(now.bytes.max(1));
                let left = u64::try_from(left / u128::from(done(now).max(1))).unwrap_or(u64::MAX);
                let seconds = left.checked_div(rate);
                let left = seconds.map_or_else(|| "unknown".to_owned(), time_left);
                format!(
                    "{doing} of {about}{} at {}/s, time left {left}, {in_flight} chunks in flight{limited}{waiting}",
                    size(all),
                    size(rate)
                )
            }
        }
    }
}

/// How much of what is expected is done.
fn done(now: &Numbers) -> u64 {
    if now.phase == Phase::Copying { now.bytes.saturating_sub(now.joined) } else { now.bytes }
}

pub(super) fn time_left(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::azure::Reading;
    use crate::measure::Found;

    #[test]
    fn what_was_joined_before_the_comparison_is_not_counted_in_it() {
        let progress = Progress::default();
        let range = crate::range::PageRange::new(0, 8192).unwrap();
        let counts = crate::copy::frontier::Counts::default();
        progress.wrote(&crate::copy::frontier::Written { range, crc: None, sums: None, counts }, 4096);
        assert_eq!((progress.read().bytes, progress.read().joined), (8192, 4096));
        progress.begin_verifying(8192);
        assert_eq!((progress.read().bytes, progress.read().joined), (0, 0));
    }

    #[test]
    fn what_is_joined_is_no_part_of_what_is_expected() {
        let numbers = Numbers {
            phase: Phase::Copying,
            bytes: 40 << 20,
            joined: 30 << 20,
            expected: Some((20 << 20, true)),
            ..Progress::default().read()
        };
        let line = Rate::default().line(&numbers);
        assert!(line.starts_with("10.0 MiB of 20.0 MiB at "), "{line}");
        assert_eq!(done(&Numbers { phase: Phase::Verifying, ..numbers }), 40 << 20);
    }

    #[test]
    fn the_next_step_of_a_chain_counts_from_zero() {
        let mut rate = Rate::default();
        let numbers = |bytes_in| Numbers {
            phase: Phase::Copying,
            bytes: bytes_in,
            expected: Some((1000, true)),
            source: Reading { bytes_in, ..Reading::default() },
            ..Numbers::default()
        };
        for bytes in [0, 600, 900, 10, 40] {
            let line = rate.line(&numbers(bytes));
            assert!(line.contains(&format!("{bytes} B of")), "{line}");
            assert!(!line.contains("limited"), "{line}");
        }
        let limited = Found { limit: Limit::Target, by: "503" };
        let line = rate.line(&Numbers { limited, ..numbers(40) });
        assert!(line.ends_with("chunks in flight, limited by the target (503)"), "{line}");
        assert!(rate.past.iter().all(|(_, bytes)| *bytes <= 40));
    }
}
