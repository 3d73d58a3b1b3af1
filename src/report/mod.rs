//! Reports: a run or a benchmark as one HTML page that needs nothing from anywhere, and as Markdown.
//!
//! ```text
//! measure::Course ──slots──> plots over time ─┐
//!                 ─────────> latency, map, limits ──> cards ──> copy ──> page (HTML), markdown
//! bench::Results  ─────────> surface, spread, table ──> cards ──> bench ─┘
//! ```
//!
//! Plots are SVG that is written here. A plotting crate paints colours and fonts into the drawing; these take them from
//! the style sheet of the page, so that one file serves light, dark, paper and any width, and stays small.
//!
//! No name is trusted: all are escaped, and the page forbids itself to fetch anything or to run anything but its own script.

#![allow(
    clippy::format_push_string,
    reason = "a page is written once, and write! would leave a result to throw away at every mark"
)]

pub mod bench;
pub mod copy;
mod course;
mod latency;
mod limits;
mod map;
mod markdown;
mod page;
mod plot;
mod scale;
mod slots;
mod spread;
mod surface;
mod units;

#[doc(inline)]
pub use copy::CopyRun;
