//! The course of one run: everything that is drawn of it, in the order in which a reader asks. How fast was it, what
//! limited it, how did requests fare, what did it cost here, and where on the disk was written.

use crate::measure::{Course, Limit};

use super::page::{self, Width};
use super::plot::Plot;
use super::scale::Axis;
use super::slots::{Slot, cut};
use super::units::{Unit, count, duration, percent, plain, rate, rate_unit, ratio, significant};
use super::{latency, limits, map};

const GIB: f64 = 1_073_741_824.0;
const COUNT: Unit = Unit { name: "chunks", size: 1.0 };
const PER_SECOND: Unit = Unit { name: "requests/s", size: 1.0 };
const CORES: Unit = Unit { name: "cores", size: 1.0 };

/// How much of a course is drawn: a page can show many, and must stay small.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// The one that the page is about.
    Fine,
    /// One of those besides it.
    Coarse,
}

impl Detail {
    fn most_slots(self) -> usize {
        match self {
            Self::Fine => 160,
            Self::Coarse => 40,
        }
    }
}

/// The cards of a course. The ids of its plots begin with `prefix`, as a page can show more than one course.
pub(super) fn cards(prefix: &str, course: &Course, detail: Detail) -> String {
    let slots = cut(course, detail.most_slots());
    let mut out = String::new();
    if let Some(last) = slots.last() {
        let run = Run { prefix, course, slots: &slots, seconds: last.to };
        out.push_str(&run.throughput());
        // Two low cards are as high as the one beside them.
        let low = limits::card(&run.id("limits"), &course.limits) + &run.processors();
        out.push_str(&page::stack(&low));
        out.push_str(&latency::card(&run.id("latency"), &course.reads, &course.writes));
        out.push_str(&run.window());
        out.push_str(&run.requests());
    } else {
        let why = "The run was over before a first sample was taken, so there is nothing to draw over time.";
        let nothing = page::nothing(&format!("{prefix}throughput"), why);
        out.push_str(&page::card(Width::Whole, "Throughput", "Over time.", &nothing));
        out.push_str(&limits::card(&format!("{prefix}limits"), &course.limits));
        out.push_str(&latency::card(&format!("{prefix}latency"), &course.reads, &course.writes));
    }
    out.push_str(&map::card(&format!("{prefix}map"), &course.map, detail));
    out
}

/// A course that has time in it.
struct Run<'a> {
    prefix: &'a str,
    course: &'a Course,
    slots: &'a [Slot],
    seconds: f64,
}

impl Run<'_> {
    fn id(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn largest(&self, values: &[fn(&Slot) -> f64]) -> f64 {
        let mut largest = 0.0;
        for slot in self.slots {
            for value in values {
                largest = f64::max(largest, value(slot));
            }
        }
        largest
    }

    /// The mean over time.
    fn mean(&self, value: fn(&Slot) -> f64) -> f64 {
        let sum: f64 = self.slots.iter().map(|slot| value(slot) * (slot.to - slot.from)).sum();
        ratio(sum, self.seconds)
    }

    /// What was reached for at least `part` of the time.
    fn reached(&self, value: fn(&Slot) -> f64, part: f64) -> f64 {
        let mut values: Vec<(f64, f64)> =
            self.slots.iter().map(|slot| (value(slot), slot.to - slot.from)).collect();
        values.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut time = 0.0;
        for (value, seconds) in values {
            time += seconds;
            if time >= part * self.seconds {
                return value;
            }
        }
        0.0
    }

    fn plot(&self, name: &str, label: &str, height: u32, y: Axis) -> Plot {
        Plot::new(self.id(name), label, height, Axis::of_time(self.seconds), y)
    }

    /// What is shown of each slot while it is pointed at.
    fn hits(&self, plot: &mut Plot, text: impl Fn(&Slot) -> String) {
        for slot in self.slots {
            let title = format!("{} to {}\n{}", duration(slot.from), duration(slot.to), text(slot));
            plot.hit(slot.from, slot.to, &title);
        }
    }

    fn throughput(&self) -> String {
        let passed = self.largest(&[|slot| slot.bytes_in, |slot| slot.bytes_out]);
        let done = self.largest(&[|slot| slot.bytes_done]);
        // Where nothing passed this machine the service moved the bytes itself. Elsewhere clears can go at many
        // times the speed of data: they may leave the plot at its top, so that they do not flatten the rest.
        let is_passed = passed > 0.0;
        let largest = if is_passed { passed.max(done.min(passed * 2.0)) } else { done };
        let unit = rate_unit(largest);
        let y = Axis::from_zero(largest, unit, 5);
        let mut plot = self.plot("throughput", "Throughput over time", 220, y);
        let mut keys = Vec::new();
        if is_passed {
            plot.steps("of-source", Some("area of-source"), self.slots, |slot| slot.bytes_in);
            plot.steps("of-target", None, self.slots, |slot| slot.bytes_out);
            keys.extend([("of-source", "read from the source"), ("of-target", "written to the target")]);
        }
        let is_more_done = self.mean(|slot| slot.bytes_done) > self.mean(|slot| slot.bytes_out) * 1.02;
        if is_more_done {
            let area = if is_passed { None } else { Some("area of-done") };
            plot.steps("of-done", area, self.slots, |slot| slot.bytes_done);
            keys.push(("of-done", if is_passed { "done, zeros and clears included" } else { "done" }));
        }
        plot.has_x_labels = false;
        self.hits(&mut plot, |slot| {
            format!(
                "read {}, written {}\ndone {}\nlimit: {}",
                rate(slot.bytes_in),
                rate(slot.bytes_out),
                rate(slot.bytes_done),
                limits::name(slot.limit)
            )
        });
        let mut content = page::key(unit.name, &keys);
        content.push_str(&plot.svg());
        content.push_str(&limits::band(&self.id("limits-over-time"), self.slots, self.seconds));
        content.push_str(&self.time_axis());
        content.push_str(&self.limit_key());
        let reached = self.reached(|slot| slot.bytes_out, 0.9);
        let caption = if is_passed && reached <= 0.0 {
            format!(
                "Written at {} on average; the band below shows what limited it.",
                rate(self.mean(|slot| slot.bytes_out))
            )
        } else if is_passed {
            format!(
                "Written at {} on average, and at {} or more for nine tenths of the time; the band below shows what limited it.",
                rate(self.mean(|slot| slot.bytes_out)),
                rate(reached)
            )
        } else {
            format!(
                "No data passed this machine: the service moved {} on average; the band below shows what limited it.",
                rate(self.mean(|slot| slot.bytes_done))
            )
        };
        page::card(Width::Whole, "Throughput", &caption, &content)
    }

    /// The labels of the x axis on their own, below the band.
    fn time_axis(&self) -> String {
        let axis = Axis::of_time(self.seconds);
        let mut labels = String::new();
        for (value, label) in &axis.ticks {
            let x = super::plot::percentage(axis.place(*value));
            labels.push_str(&format!(r#"<text class="x" x="{x}" y="1.1em">{label}</text>"#));
        }
        format!(
            "<div class=\"frame axis\"><svg class=\"plot labels\" height=\"18\" aria-hidden=\"true\">{labels}</svg></div>\n"
        )
    }

    fn limit_key(&self) -> String {
        let mut seen: Vec<Limit> = Vec::new();
        for slot in self.slots {
            if !seen.contains(&slot.limit) {
                seen.push(slot.limit);
            }
        }
        let entries: Vec<(String, &str)> = seen
            .iter()
            .map(|limit| (format!("{} block", limits::class(*limit)), limits::name(*limit)))
            .collect();
        let entries: Vec<(&str, &str)> =
            entries.iter().map(|(class, name)| (class.as_str(), *name)).collect();
        page::key("limit", &entries)
    }

    /// The window above what was refused, on one axis of time: the one answers the other.
    fn window(&self) -> String {
        let widest = self.largest(&[|slot| slot.window, |slot| slot.in_flight]);
        let y = Axis::from_zero(widest.max(1.0), COUNT, 4);
        let mut window = self.plot("window", "Window and chunks in flight over time", 110, y);
        window.steps("of-done", Some("area of-done"), self.slots, |slot| slot.in_flight);
        window.steps("of-window", None, self.slots, |slot| slot.window);
        window.has_x_labels = false;
        self.hits(&mut window, |slot| {
            format!("window {}, in flight {}", significant(slot.window), plain(slot.in_flight))
        });

        let most = self.largest(&[|slot| slot.source_refused, |slot| slot.target_refused]);
        let y = Axis::from_zero(most.max(1.0), PER_SECOND, 2);
        let mut refused = self.plot("refused", "Refused requests over time", 60, y);
        refused.steps("of-source", Some("area of-source"), self.slots, |slot| slot.source_refused);
        refused.steps("of-target", Some("area of-target"), self.slots, |slot| slot.target_refused);
        self.hits(&mut refused, |slot| {
            format!(
                "refused by the source {}/s, by the target {}/s",
                significant(slot.source_refused),
                significant(slot.target_refused)
            )
        });

        let content = page::key(COUNT.name, &[("of-window", "window"), ("of-done", "in flight")])
            + &window.svg()
            + &page::key("503/s", &[("of-source", "by the source"), ("of-target", "by the target")])
            + &refused.svg();
        page::card(Width::Half, "Window and refusals", &self.refusal_caption(widest), &content)
    }

    fn refusal_caption(&self, widest: f64) -> String {
        let window = format!("The window opened to {} chunks", plain(widest.round()));
        let Some(last) = self.course.samples.last() else { return window };
        let asked = last.source_requests.saturating_add(last.target_requests);
        let refused = last.source_refused.saturating_add(last.target_refused);
        if refused == 0 {
            return format!("{window}; no request was refused for load.");
        }
        let part = percent(ratio(refused as f64, asked as f64));
        format!("{window}; {} of {} requests ({part}) were refused for load.", count(refused), count(asked))
    }

    fn requests(&self) -> String {
        let most = self.largest(&[|slot| slot.source_requests, |slot| slot.target_requests]);
        let y = Axis::from_zero(most.max(1.0), PER_SECOND, 4);
        let mut plot = self.plot("requests", "Requests per second over time", 229, y);
        plot.steps("of-source", Some("area of-source"), self.slots, |slot| slot.source_requests);
        plot.steps("of-target", None, self.slots, |slot| slot.target_requests);
        self.hits(&mut plot, |slot| {
            format!(
                "source {}/s, target {}/s",
                significant(slot.source_requests),
                significant(slot.target_requests)
            )
        });
        let caption = format!(
            "{} requests a second to the source and {} to the target on average, every attempt counted.",
            significant(self.mean(|slot| slot.source_requests)),
            significant(self.mean(|slot| slot.target_requests))
        );
        let key =
            page::key(PER_SECOND.name, &[("of-source", "to the source"), ("of-target", "to the target")]);
        page::card(Width::Half, "Requests", &caption, &(key + &plot.svg()))
    }

    fn processors(&self) -> String {
        let y = Axis::from_zero(self.largest(&[|slot| slot.cpu]), CORES, 3);
        let mut plot = self.plot("cpu", "Busy cores over time", 96, y);
        plot.steps("of-cpu", Some("area of-cpu"), self.slots, |slot| slot.cpu);
        self.hits(&mut plot, |slot| format!("{} cores busy", significant(slot.cpu)));
        let (seconds, bytes) = self.course.samples.last().map_or((0.0, 0), |last| (last.cpu, last.bytes_out));
        let mean = significant(self.mean(|slot| slot.cpu));
        let caption = if bytes > 0 {
            let per_gib = significant(ratio(seconds, bytes as f64 / GIB));
            format!("{mean} cores were busy on average: {per_gib} processor seconds for each GiB written.")
        } else {
            format!("{mean} cores were busy on average.")
        };
        let key = page::key(CORES.name, &[("of-cpu", "busy with this process")]);
        page::card(Width::Half, "Processor", &caption, &(key + &plot.svg()))
    }
}
