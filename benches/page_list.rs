//! What every extent comes from: a page list of a million elements, parsed from memory. The listing of a disk must
//! never be what a copy waits for.
//!
//! `cargo bench --bench page_list`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::executor::block_on;
use snapferry::azure::page_list::{ListKind, PageListReader};
use snapferry::range::PageRange;

const ELEMENTS: u64 = 1_000_000;
const EXTENT: u64 = 4 << 10;
const STEP: u64 = 32 << 10;

/// A list as the service writes it, every third element a clear.
fn page_list() -> String {
    let mut body = String::from("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<PageList>");
    for number in 0..ELEMENTS {
        let name = if number.is_multiple_of(3) { "ClearRange" } else { "PageRange" };
        let (start, last) = (number * STEP, number * STEP + EXTENT - 1);
        write!(body, "<{name}><Start>{start}</Start><End>{last}</End></{name}>").unwrap();
    }
    body + "</PageList>"
}

async fn count(body: &[u8], whole: PageRange) -> u64 {
    let mut reader = PageListReader::new(body, ListKind::Difference, whole, whole.end());
    let mut found = 0;
    while reader.next().await.unwrap().is_some() {
        found += 1;
    }
    found
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("page list of a million elements");
    // One pass takes a good part of a second: few samples say enough.
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).throughput(Throughput::Elements(ELEMENTS));
    let body = page_list();
    let whole = PageRange::new(0, ELEMENTS * STEP).unwrap();
    group.bench_function("parse", |bench| {
        bench.iter(|| assert_eq!(block_on(count(black_box(body.as_bytes()), whole)), ELEMENTS));
    });
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
