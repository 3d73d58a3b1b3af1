//! The progress bar: bytes, rate, time left and what is being waited for. On a terminal it moves; elsewhere a
//! plain line comes every few seconds.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::copy::per_second;
use super::output::{self, size};
use crate::progress::{Numbers, Phase, Progress};

const BAR_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Rates are taken over this time.
const RATE_OVER: Duration = Duration::from_secs(10);

/// Runs `work` and shows `progress` meanwhile.
pub(super) async fn show<T>(progress: &Progress, wanted: bool, work: impl Future<Output = T>) -> T {
    let mut rate = Rate::default();
    let look = || {
        let now = progress.read();
        Look { line: rate.line(&now), done: now.bytes, of: now.expected.map_or(0, |(bytes, _)| bytes) }
    };
    watch(wanted, work, look).await
}

/// What is shown at one moment.
pub(super) struct Look {
    pub(super) line: String,
    pub(super) done: u64,
    pub(super) of: u64,
}

/// Runs `work` and shows what `look` sees meanwhile. Where lines stay, each is shown once.
pub(super) async fn watch<T>(
    wanted: bool,
    work: impl Future<Output = T>,
    mut look: impl FnMut() -> Look,
) -> T {
    if !wanted {
        return work.await;
    }
    let is_terminal = std::io::stderr().is_terminal();
    let bar = is_terminal.then(bar);
    let mut ticks = tokio::time::interval(if is_terminal { BAR_EVERY } else { LINE_EVERY });
    let mut first = true;
    let mut shown = String::new();
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            _ = ticks.tick() => {
                let now = look();
                match &bar {
                    Some(bar) => draw(bar, now),
                    None if !first && now.line != shown => {
                        output::say(&now.line);
                        shown = now.line;
                    }
                    None => first = false,
                }
            }
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    result
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
        self.past.push_back((Instant::now(), now.source.bytes_in));
        while self.past.len() > 2 && self.past.front().is_some_and(|(then, _)| then.elapsed() > RATE_OVER) {
            self.past.pop_front();
        }
        let (then, before) = self.past.front().copied().unwrap_or((Instant::now(), now.source.bytes_in));
        // What comes from the source moves all the time; whole chunks are counted only when they are written.
        let rate = per_second(now.source.bytes_in - before, then.elapsed().as_secs_f64());
        let waiting =
            now.waiting_for.as_ref().map(|reason| format!(", waiting for {reason}")).unwrap_or_default();
        let doing = match now.phase {
            Phase::Checking => return format!("checking the snapshots and the base blob{waiting}"),
            Phase::Sealing => return format!("sealing{waiting}"),
            Phase::Done => return "done".to_owned(),
            Phase::Copying => size(now.bytes),
        };
        let (in_flight, _) = now.in_flight;
        match now.expected {
            None => {
                format!("{doing} at {}/s, still listing, {in_flight} chunks in flight{waiting}", size(rate))
            }
            Some((all, exact)) => {
                let about = if exact { "" } else { "about " };
                let seconds = all.saturating_sub(now.bytes).checked_div(rate);
                let left = seconds.map_or_else(|| "unknown".to_owned(), time_left);
                format!(
                    "{doing} of {about}{} at {}/s, time left {left}, {in_flight} chunks in flight{waiting}",
                    size(all),
                    size(rate)
                )
            }
        }
    }
}

pub(super) fn time_left(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}
