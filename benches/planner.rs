//! A million extents become chunks: those that lie side by side and are joined, those that lie too far apart, and
//! those with clears among them.
//!
//! `cargo bench --bench planner`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use snapferry::plan::{PlanOptions, Planner, Totals};
use snapferry::range::{Extent, ExtentKind, PageRange};

const EXTENTS: u64 = 1_000_000;
const EXTENT: u64 = 4 << 10;

/// An extent of 4 KiB every `step` bytes; with `clears`, every third is one.
fn extents(step: u64, clears: bool) -> Vec<Extent> {
    let mut extents = Vec::new();
    for number in 0..EXTENTS {
        let kind = if clears && number.is_multiple_of(3) { ExtentKind::Clear } else { ExtentKind::Data };
        extents.push(Extent { range: PageRange::new(number * step, number * step + EXTENT).unwrap(), kind });
    }
    extents
}

fn plan(extents: &[Extent]) -> Totals {
    let length = extents.last().map_or(0, |last| last.range.end());
    let mut planner = Planner::new(PlanOptions::default(), length);
    let mut chunks = Vec::new();
    for extent in extents {
        planner.push(*extent, &mut chunks);
        // As in a copy, where chunks are taken away as they come.
        black_box(&chunks);
        chunks.clear();
    }
    planner.finish(&mut chunks)
}

fn planner(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan of a million extents");
    group.sample_size(20).warm_up_time(Duration::from_secs(1)).throughput(Throughput::Elements(EXTENTS));
    for (name, step, clears) in
        [("dense", 8 << 10, false), ("scattered", 1 << 20, false), ("with clears", 8 << 10, true)]
    {
        let extents = extents(step, clears);
        group.bench_function(BenchmarkId::from_parameter(name), |bench| {
            bench.iter(|| plan(black_box(&extents)));
        });
    }
    group.finish();
}

criterion_group!(benches, planner);
criterion_main!(benches);
