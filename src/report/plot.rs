//! One plot: a frame with axes, and marks in it.
//!
//! The drawing stretches with the page and its texts do not: places across are percentages, lines lie in an inner
//! drawing of 1000 by 1000 that is stretched to the frame, and labels are put outside of the frame, where the style
//! sheet leaves room for them. So a plot reads as well on a phone as on paper, with no script.

use super::scale::Axis;
use super::slots::Slot;
use super::units::{coordinate, escape};

/// Width and height of the inner drawing.
const INNER: f64 = 1000.0;

/// A plot in the making.
pub(super) struct Plot {
    id: String,
    label: String,
    height: u32,
    x: Axis,
    y: Axis,
    /// Whether the ticks of the x axis are written; of plots that stand above each other, only the last one's are.
    pub(super) has_x_labels: bool,
    lines: String,
    marks: String,
    hits: String,
}

impl Plot {
    /// An empty frame. `label` is what is read aloud in its place.
    pub(super) fn new(id: String, label: &str, height: u32, x: Axis, y: Axis) -> Self {
        Self {
            id,
            label: escape(label),
            height,
            x,
            y,
            has_x_labels: true,
            lines: String::new(),
            marks: String::new(),
            hits: String::new(),
        }
    }

    /// A value that stands still within each slot, as a line and, where `fill` names a class, as the area below it.
    pub(super) fn steps(&mut self, class: &str, fill: Option<&str>, slots: &[Slot], value: fn(&Slot) -> f64) {
        let Some(first) = slots.first() else { return };
        let start = coordinate(self.x.place(first.from) * INNER);
        let mut path = String::new();
        for slot in slots {
            let y = coordinate((1.0 - self.y.place(value(slot))) * INNER);
            let join = if path.is_empty() { format!("M{start} {y}") } else { format!("V{y}") };
            path.push_str(&join);
            path.push_str(&format!("H{}", coordinate(self.x.place(slot.to) * INNER)));
        }
        if let Some(fill) = fill {
            let area = format!(r#"<path class="{fill}" d="{path}V{INNER}H{start}Z"/>"#);
            self.lines.push_str(&area);
        }
        self.lines.push_str(&format!(r#"<path class="line {class}" d="{path}"/>"#));
    }

    /// A line through points.
    pub(super) fn line(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut path = String::new();
        for (x, y) in points {
            let letter = if path.is_empty() { 'M' } else { 'L' };
            let x = coordinate(self.x.place(*x) * INNER);
            let y = coordinate((1.0 - self.y.place(*y)) * INNER);
            path.push_str(&format!("{letter}{x} {y}"));
        }
        if !path.is_empty() {
            self.lines.push_str(&format!(r#"<path class="line {class}" d="{path}"/>"#));
        }
    }

    /// A point that stays round, however the plot is stretched.
    pub(super) fn dot(&mut self, class: &str, radius: f64, x: f64, y: f64, title: &str) {
        self.marks.push_str(&format!(
            r#"<circle class="dot {class}" cx="{}" cy="{}" r="{radius}">{}</circle>"#,
            percentage(self.x.place(x)),
            percentage(1.0 - self.y.place(y)),
            title_of(title),
        ));
    }

    /// A band over the whole height that shows `title` while it is pointed at.
    pub(super) fn hit(&mut self, from: f64, to: f64, title: &str) {
        let (from, to) = (self.x.place(from), self.x.place(to));
        self.hits.push_str(&format!(
            r#"<rect x="{}" width="{}" height="100%">{}</rect>"#,
            percentage(from),
            percentage((to - from).max(0.0)),
            title_of(title),
        ));
    }

    /// The drawing in its frame.
    pub(super) fn svg(self) -> String {
        let mut frame = String::new();
        let mut labels = String::new();
        for (value, label) in &self.y.ticks {
            let y = percentage(1.0 - self.y.place(*value));
            frame.push_str(&format!(r#"<line x2="100%" y1="{y}" y2="{y}"/>"#));
            labels.push_str(&format!(r#"<text class="y" y="{y}" dx="-8" dy=".34em">{label}</text>"#));
        }
        for (value, label) in &self.x.ticks {
            let place = self.x.place(*value);
            let x = percentage(place);
            // The frame has its own edge there.
            if place > 0.0 {
                frame.push_str(&format!(r#"<line x1="{x}" x2="{x}" y2="100%"/>"#));
            }
            if self.has_x_labels {
                labels.push_str(&format!(r#"<text class="x" x="{x}" y="100%" dy="1.5em">{label}</text>"#));
            }
        }
        let tail = if self.has_x_labels { "" } else { " upper" };
        format!(
            concat!(
                r#"<div class="frame{tail}"><svg class="plot" id="{id}" role="img" aria-label="{label}" height="{height}">"#,
                r#"<g class="grid">{frame}</g>"#,
                r#"<svg class="inner" width="100%" height="100%" viewBox="0 0 1000 1000" preserveAspectRatio="none">"#,
                r#"{lines}</svg><g class="labels">{labels}</g><g class="hits">{hits}</g><g class="marks">{marks}</g>"#,
                "</svg></div>\n"
            ),
            tail = tail,
            id = self.id,
            label = self.label,
            height = self.height,
            frame = frame,
            lines = self.lines,
            labels = labels,
            hits = self.hits,
            marks = self.marks,
        )
    }
}

/// A place from 0 to 1 as a percentage of the frame.
pub(super) fn percentage(place: f64) -> String {
    let place = if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 };
    let text = format!("{:.2}", place * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// What is shown of a mark while it is pointed at.
pub(super) fn title_of(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("<title>{}</title>", escape(text)) }
}
