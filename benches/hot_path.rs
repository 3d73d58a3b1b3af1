//! What every byte and every extent passes through: checksum and zero scan, page-list parsing, planning; and a
//! whole copy over loopback. Each has its peer in the same run: the plain CRC, a bare pump.
//!
//! `cargo bench` runs all; `cargo bench -- crc` one group. Compare within one run: the numbers of two machines,
//! or of two moments, say little.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use snapferry::azure::crc64::Crc64;
use snapferry::azure::page_list::{ListKind, PageListReader};
use snapferry::azure::{Client, PlainHttp, Resource, RetryPolicy, Role, Timeouts};
use snapferry::copy::scan::{ZeroRule, scan};
use snapferry::plan::{PlanOptions, Planner};
use snapferry::range::{Extent, ExtentKind, PAGE, PageRange};
use snapferry::replicate::replicate;
use snapferry::step::{Settings, Step};
use snapferry_emulator::{Config, Emulator};

const CHUNK: usize = 4 << 20;
const EXTENTS: u64 = 10_000;

fn chunk_scan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crc and zero scan of a 4 MiB chunk");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    let range = PageRange::new(0, CHUNK as u64).unwrap();
    let rule = ZeroRule { shortest_run: 64 << 10, trim_edges: false };
    let data = Bytes::from(vec![7; CHUNK]);
    // As from a socket: frames of odd lengths.
    let frames: Vec<Bytes> =
        (0..CHUNK).step_by(65_000).map(|at| data.slice(at..(at + 65_000).min(CHUNK))).collect();
    let zeros = vec![Bytes::from(vec![0; CHUNK])];
    group.bench_function("peer: crc alone", |bench| bench.iter(|| Crc64::of(black_box(&data))));
    group.bench_function("data", |bench| bench.iter(|| scan(range, black_box(&frames), rule)));
    group.bench_function("zeros", |bench| bench.iter(|| scan(range, black_box(&zeros), rule)));
    group.finish();
}

fn extent(number: u64) -> Extent {
    let start = number * 64 * PAGE;
    let kind = if number.is_multiple_of(3) { ExtentKind::Clear } else { ExtentKind::Data };
    Extent { range: PageRange::new(start, start + 8 * PAGE).unwrap(), kind }
}

fn page_list(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("page lists");
    group.throughput(Throughput::Elements(EXTENTS));
    let mut body = String::from("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<PageList>");
    for extent in (0..EXTENTS).map(extent) {
        let name = if extent.kind == ExtentKind::Data { "PageRange" } else { "ClearRange" };
        let (start, last) = (extent.range.start(), extent.range.end() - 1);
        write!(body, "<{name}><Start>{start}</Start><End>{last}</End></{name}>").unwrap();
    }
    body += "</PageList>";
    let whole = PageRange::new(0, 1 << 40).unwrap();
    group.bench_function("parse", |bench| {
        bench.iter(|| {
            futures::executor::block_on(async {
                let mut reader =
                    PageListReader::new(body.as_bytes(), ListKind::Difference, whole, whole.end());
                let mut found = 0;
                while reader.next().await.unwrap().is_some() {
                    found += 1;
                }
                assert_eq!(found, EXTENTS);
            });
        });
    });
    group.bench_function("plan", |bench| {
        bench.iter(|| {
            let mut planner = Planner::new(PlanOptions::default(), 1 << 40);
            let mut chunks = Vec::new();
            for extent in (0..EXTENTS).map(extent) {
                planner.push(extent, &mut chunks);
            }
            planner.finish(&mut chunks)
        });
    });
    group.finish();
}

fn whole_copy(criterion: &mut Criterion) {
    const SIZE: u64 = 256 << 20;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (source, target, url) = runtime.block_on(async {
        let source = Emulator::start(Config::default()).await.unwrap();
        let target = Emulator::start(Config::default()).await.unwrap();
        target.account("target").create_container("disks");
        let disk = source.create_disk("disk", SIZE).unwrap();
        let block = vec![7; CHUNK];
        for at in (0..SIZE).step_by(CHUNK) {
            disk.write(at, &block).unwrap();
        }
        let url = disk.snapshot().grant();
        (source, target, url)
    });
    let mut group = criterion.benchmark_group("256 MiB over loopback, both servers in this process");
    group.sample_size(10).measurement_time(Duration::from_secs(20)).throughput(Throughput::Bytes(SIZE));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let account = target.account("target");
    let mut number = 0;
    let mut fresh = || {
        number += 1;
        account.container_sas("disks", &format!("base-{number}"), "rcwdl", Duration::from_hours(1))
    };
    group.bench_function("peer: bare pump, nothing looked at", |bench| {
        bench.iter(|| runtime.block_on(pump(&http, &url, &fresh(), SIZE)));
    });
    group.bench_function("replicate", |bench| {
        bench.iter(|| {
            let parse = |role, text: &str| Resource::parse(role, text, PlainHttp::LoopbackOnly).unwrap();
            let step = Step {
                source: parse(Role::Source, &url),
                previous: None,
                target: parse(Role::Target, &fresh()),
                origin: None,
            };
            let client = Client::new(Timeouts::default(), RetryPolicy::default(), None).unwrap();
            let (progress, cancel) = Default::default();
            runtime.block_on(replicate(&step, &client, &Settings::default(), &progress, &cancel)).unwrap()
        });
    });
    group.finish();
    drop((source, target));
}

/// 16 chunks at a time, each reply handed to the next request as it comes.
async fn pump(http: &reqwest::Client, source: &str, target: &str, size: u64) {
    use futures::StreamExt;
    let create = http.put(target).header("x-ms-version", "2021-12-02").header("x-ms-blob-type", "PageBlob");
    let length = size.to_string();
    let made = create
        .header("x-ms-blob-content-length", &length)
        .header("content-length", "0")
        .send()
        .await
        .unwrap();
    assert_eq!(made.status().as_u16(), 201);
    futures::stream::iter((0..size).step_by(CHUNK))
        .for_each_concurrent(16, |at| async move {
            let range = format!("bytes={at}-{}", at + CHUNK as u64 - 1);
            let read = http.get(source).header("x-ms-version", "2021-12-02").header("x-ms-range", &range);
            let body = reqwest::Body::wrap_stream(read.send().await.unwrap().bytes_stream());
            let write = http.put(format!("{target}&comp=page")).header("x-ms-version", "2021-12-02");
            let write = write.header("x-ms-page-write", "update").header("x-ms-range", range);
            let written = write.header("content-length", CHUNK).body(body).send().await.unwrap();
            assert_eq!(written.status().as_u16(), 201);
        })
        .await;
}

criterion_group!(benches, chunk_scan, page_list, whole_copy);
criterion_main!(benches);
