//! The verdict: which setting to use, what limits there, and what to change.

use super::result::{Cell, Knee, Mode, Pattern, Setting, Verdict};
use crate::measure::Limit;

/// Of which pattern the setting to use is taken, the first that was measured: what a disk is most like.
const MOST_LIKE_A_DISK: [Pattern; 5] =
    [Pattern::Own, Pattern::Mixed, Pattern::Dense, Pattern::Scattered, Pattern::Zeros];
/// A part of the time that is worth naming.
const WORTH_NAMING: f64 = 0.15;
/// From this part of the time of all processors on, they are busy.
const BUSY: f64 = 0.85;
/// Requests that take longer by this part have become slower.
const LONGER: f64 = 0.5;
/// What became slower on one side is that side's doing from this part on.
const MAINLY: f64 = 0.7;
const MIB: f64 = 1_048_576.0;

/// What cells and knees come to.
pub fn verdict(cells: &[Cell], knees: &[Knee], emulated: bool) -> Verdict {
    let Some(best) = best(cells, knees) else {
        let sentence = "Nothing was measured.".to_owned();
        return Verdict { limit: Limit::Unknown, sentence, advice: Vec::new(), best: None };
    };
    let limit = limit_behind(cells, best);
    let setting = best.setting;
    // The table tells what limits at the knee itself, which is often the window.
    let behind =
        if widest(cells, best).setting.window > setting.window { "with more in flight, " } else { "" };
    let mut sentence = format!(
        "{} with {} of {} in flight (pattern {}, mode {}); {behind}{}.",
        rate(best.rate.middle),
        if setting.window == 1 { "one chunk".to_owned() } else { format!("{} chunks", setting.window) },
        size(setting.chunk),
        setting.pattern.name(),
        setting.mode.name(),
        what_limits(limit)
    );
    if emulated {
        sentence
            .push_str(" That is what this machine can do with the built-in emulator, not what Azure does.");
    }
    Verdict { limit, sentence, advice: advice(cells, knees, best, limit), best: Some(setting) }
}

/// The knee of the pattern that is most like a disk. Through this machine unless the service itself is surely faster:
/// only what passes through here is checked on its way.
fn best<'a>(cells: &'a [Cell], knees: &[Knee]) -> Option<&'a Cell> {
    for pattern in MOST_LIKE_A_DISK {
        let of = |mode| {
            let knee =
                knees.iter().find(|knee| knee.setting.pattern == pattern && knee.setting.mode == mode)?;
            cells.iter().find(|cell| cell.setting == knee.setting)
        };
        match (of(Mode::Stream), of(Mode::Server)) {
            (Some(stream), Some(server)) if server.rate.low > stream.rate.high => return Some(server),
            (None, Some(found)) | (Some(found), _) => return Some(found),
            (None, None) => {}
        }
    }
    None
}

/// The widest window with the same chunks.
fn widest<'a>(cells: &'a [Cell], best: &'a Cell) -> &'a Cell {
    let is_alike = |cell: &&Cell| Setting { window: best.setting.window, ..cell.setting } == best.setting;
    cells.iter().filter(is_alike).max_by_key(|cell| cell.setting.window).unwrap_or(best)
}

/// What limits behind the knee. In front of it the window does, which is no news: looked at is the widest window with the
/// same chunks. A run that is short may not have noticed itself: then it is told by what a wider window came to.
fn limit_behind(cells: &[Cell], best: &Cell) -> Limit {
    let widest = widest(cells, best);
    match main_limit(widest) {
        found @ (Limit::Window | Limit::Unknown | Limit::Link) => {
            if widest.machine_busy.is_some_and(|busy| busy >= BUSY) {
                return Limit::Cpu;
            }
            let slower = what_became_slower(best, widest);
            let known = if slower == Limit::Unknown { found } else { slower };
            if known == Limit::Unknown { main_limit(best) } else { known }
        }
        found => found,
    }
}

/// More chunks in flight moved no more: where did they wait?
fn what_became_slower(narrow: &Cell, wide: &Cell) -> Limit {
    if wide.setting.window <= narrow.setting.window {
        return Limit::Unknown;
    }
    let reads = (wide.reads.mean - narrow.reads.mean).max(0.0);
    let writes = (wide.writes.mean - narrow.writes.mean).max(0.0);
    if reads + writes < LONGER * (narrow.reads.mean + narrow.writes.mean) || reads + writes <= 0.0 {
        return Limit::Unknown;
    }
    match reads / (reads + writes) {
        part if part >= MAINLY => Limit::Source,
        part if part <= 1.0 - MAINLY => Limit::Target,
        _ => Limit::Link,
    }
}

fn main_limit(cell: &Cell) -> Limit {
    let known = |share: &&crate::measure::Share| share.limit != Limit::Unknown && share.part >= WORTH_NAMING;
    cell.limits.iter().find(known).map_or(Limit::Unknown, |share| share.limit)
}

fn what_limits(limit: Limit) -> String {
    match limit {
        Limit::Unknown => "the runs were over too soon to tell what limits".to_owned(),
        Limit::Cpu => "the processors of this machine limit it".to_owned(),
        limit => format!("{} limits it", limit.words()),
    }
}

fn advice(cells: &[Cell], knees: &[Knee], best: &Cell, limit: Limit) -> Vec<String> {
    let setting = best.setting;
    let mode = if setting.mode == Mode::Server { " --mode server" } else { "" };
    let mut advice = vec![format!(
        "Use --concurrency {} --chunk-size {}{mode}.",
        setting.window,
        typed_size(setting.chunk)
    )];
    let widest = cells.iter().map(|cell| cell.setting.window).max().unwrap_or_default();
    if limit == Limit::Unknown {
        advice.push("Measure longer runs to learn what limits: a larger --size.".to_owned());
    } else if limit == Limit::Window && setting.window == widest {
        advice.push(format!(
            "Measure wider windows, too: {widest} was the widest, and each request was as quick as ever."
        ));
    } else if limit != Limit::Window {
        advice.push(format!("{}.", capital(limit.advice())));
    }
    let others = knees.iter().filter(|knee| knee.setting.mode == setting.mode && knee.setting != setting);
    for knee in others {
        let (window, chunk) = (knee.setting.window, knee.setting.chunk);
        if (window, chunk) != (setting.window, setting.chunk) {
            advice.push(format!(
                "For a disk that is all {}, --concurrency {window} --chunk-size {} is enough.",
                knee.setting.pattern.name(),
                typed_size(chunk)
            ));
        }
    }
    advice
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn rate(bytes_per_second: f64) -> String {
    let mib = bytes_per_second / MIB;
    if mib >= 100.0 { format!("{mib:.0} MiB/s") } else { format!("{mib:.1} MiB/s") }
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

/// A size as it is typed, exactly.
pub(super) fn typed_size(bytes: u64) -> String {
    for (unit, name) in [(1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::knee::knees;
    use super::super::knee::tests::{at, cell};
    use super::*;

    fn verdict_of(cells: &[Cell]) -> Verdict {
        verdict(cells, &knees(cells), false)
    }

    #[test]
    fn what_limits_is_looked_up_behind_the_knee() {
        let cells = [
            cell(at(4, 1 << 20), 30e6, 0.01, Limit::Window),
            cell(at(16, 1 << 20), 60e6, 0.01, Limit::Window),
            cell(at(64, 1 << 20), 61e6, 0.02, Limit::Target),
        ];
        let verdict = verdict_of(&cells);
        assert_eq!((verdict.limit, verdict.best.unwrap().window), (Limit::Target, 16));
        assert!(verdict.sentence.contains("the target limits it"), "{}", verdict.sentence);
        assert_eq!(verdict.advice[0], "Use --concurrency 16 --chunk-size 1MiB.");
        assert!(verdict.advice[1].starts_with("The target") && verdict.advice[1].ends_with('.'));
    }

    #[test]
    fn the_service_itself_is_advised_only_where_it_is_surely_faster() {
        let server = Setting { mode: Mode::Server, ..at(4, 1 << 20) };
        let made = |rate, reach| {
            verdict_of(&[
                cell(at(4, 1 << 20), 100.0, 0.05, Limit::Link),
                cell(server, rate, reach, Limit::Source),
            ])
        };
        assert_eq!(made(200.0, 0.05).best.unwrap().mode, Mode::Server);
        assert!(made(200.0, 0.05).advice[0].contains("--mode server"));
        assert_eq!(made(110.0, 0.2).best.unwrap().mode, Mode::Stream);
    }

    #[test]
    fn a_window_that_was_the_widest_is_told_and_nothing_measured_is_nothing() {
        let verdict = verdict_of(&[
            cell(at(4, 1 << 20), 50.0, 0.01, Limit::Window),
            cell(at(8, 1 << 20), 100.0, 0.01, Limit::Window),
        ]);
        assert!(verdict.advice.iter().any(|line| line.contains("8 was the widest")), "{:?}", verdict.advice);
        assert_eq!(verdict_of(&[]).best, None);
    }

    #[test]
    fn sizes_are_typed_exactly() {
        for (bytes, text) in [(4 << 20, "4MiB"), (1536 << 10, "1536KiB"), (4096, "4KiB"), (4608, "4608")] {
            assert_eq!(typed_size(bytes), text);
        }
    }
}
